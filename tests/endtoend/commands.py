"""qig-core as a person runs it: real processes, captured output."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from qig_core.rundir.layout import list_runs
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Sample
from tests.warm import Warm, console_script

_LOADS_TORCH = ("train", "measure")


def start_core(
    *arguments: str | Path, cwd: Path | None = None, cold: bool = False, **options: Any
) -> "subprocess.Popen[str] | Warm":
    """qig-core in a process of its own, its output captured.

    One that will load torch is forked from a process that has it; as a person starts it if `cold`, or with options.
    """
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    if arguments[0] in _LOADS_TORCH and not cold and not options:
        return Warm(console_script, arguments, cwd=cwd, env=environment)
    return subprocess.Popen(
        [sys.executable, "-m", "qig_core.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
        **options,
    )


def core(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    process = start_core(*arguments, **options)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def core_json(*arguments: str | Path) -> list[Any]:
    done = core(*arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for_step(root: Path, step: int, timeout_s: float = 60.0) -> Path:
    """The only run under root, once it has recorded `step`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        runs = list(list_runs(root))
        if runs and any(isinstance(r, Sample) and r.step >= step for r in read_all(runs[-1].telemetry(), Sample)):
            return runs[-1].path
        time.sleep(0.05)
    raise AssertionError(f"no run under {root} reached step {step} in {timeout_s} s")


WRITES = """
import sys
from pathlib import Path
from qig_core.rundir.layout import RunDir
from qig_core.rundir.writer import RunWriter
with RunWriter.reopen(RunDir(Path(sys.argv[1]))) as writer:
    writer.telemetry.log(7, {"loss": 1.0})
    print("writes", flush=True)
    sys.stdin.readline()
"""
"""A program that is the writer of the run at argv[1] until a line comes."""
