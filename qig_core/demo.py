"""The main job in one command: a training run in the background, the dashboard in front. Starts processes only."""

import subprocess
import sys
import time
from pathlib import Path

from qig_core.errors import ExitCode
from qig_core.rundir.layout import RunDir, new_run_id

_LONG = 20_000
_START_S = 120.0


def run_demo(root: Path, steps: int) -> int:
    """With a terminal: a run in the background, the dashboard in front. Without: train `steps`, print a snapshot."""
    run = RunDir(root / new_run_id())
    train = [sys.executable, "-m", "qig_core.cli", "train", "--runs", str(root), "--id", run.id, "--name", "demo"]
    look = [sys.executable, "-m", "qig_tui.cli", str(run.path)]
    if sys.stdin.isatty() and sys.stdout.isatty():
        code = _start(run, [*train, "--steps", str(_LONG)])
        return code or subprocess.call([*look, "--owned"])
    code = subprocess.call([*train, "--steps", str(steps)])
    return code or subprocess.call([*look, "--once"])


def _start(run: RunDir, train: list[str]) -> int:
    """Start the trainer and wait for its run directory; 0, or the code that it died with."""
    run.path.parent.mkdir(parents=True, exist_ok=True)
    log = run.path.parent / f".{run.id}.log"
    print("starting a training run in the background ...", flush=True)
    with open(log, "ab") as output:
        # A session of its own: closing the terminal or Ctrl-C in the dashboard does not reach the trainer.
        child = subprocess.Popen(train, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    deadline = time.monotonic() + _START_S
    while not run.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            child.terminate()
            print(log.read_text(errors="replace"), file=sys.stderr)
            return child.returncode or ExitCode.FOUND_BAD
        time.sleep(0.05)
    log.rename(run.console_log)
    return ExitCode.OK
