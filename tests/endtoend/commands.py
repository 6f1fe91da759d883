"""qig-core as a person runs it: real processes, captured output."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


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
