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


def start_core(*arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """qig-core in a process of its own, its output captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "qig_core.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
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
