"""The main job in one command: a training run in the background, the dashboard in front. Starts processes only."""

import subprocess
import sys
import time
from pathlib import Path

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.going_on import how_to_go_on
from qig_core.errors import ExitCode
from qig_core.rundir.layout import RunDir, new_run_id
from qig_core.rundir.liveness import ENDED
from qig_core.rundir.summary import Summary, summarise
from qig_core.terminal import command, tell

_LONG = 20_000
_START_S = 120.0
_END_S = 10.0


def run_demo(root: Path, steps: int) -> int:
    """With a terminal: a run in the background, the dashboard in front. Without: train `steps`, print a snapshot."""
    run = RunDir(root / new_run_id())
    train = [sys.executable, "-m", "qig_core.cli", "train", "--runs", str(root), "--id", run.id, "--name", "demo"]
    look = [sys.executable, "-m", "qig_tui.cli", str(run.path)]
    if sys.stdin.isatty() and sys.stdout.isatty():
        code = _start(run, [*train, "--steps", str(_LONG)])
        if code:
            return code
        code = subprocess.call([*look, "--owned"])
        tell_what_became(run)
        return code
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


def tell_what_became(run: RunDir) -> None:
    """After the dashboard was left: where the run is and what can be done with it."""
    summary = _settled(run)
    if summary.liveness is None or summary.manifest is None:
        tell(summary.error or f"the run in {run.path} cannot be read")
        return
    if summary.liveness.word not in ENDED:
        tell(f"the run goes on in the background, in {run.path}")
        tell(f"  look at it:  {command('qig-tui', run.path)}")
        tell(f"  stop it:     {command('qig-core', 'ctl', run.path, 'abort')}")
        return
    tell(f"the run in {run.path} is {summary.liveness.text}, at step {summary.step or 0}")
    saved = next((one for one in list_checkpoints(run) if one.status == "COMPLETE"), None)
    tell(f"  saved:       {f'checkpoint {saved.name}, step {saved.step}' if saved else 'no checkpoint'}")
    if summary.manifest.exit_code != ExitCode.OK:
        tell(f"  {how_to_go_on(run, summary.manifest.exit_code)}")
    tell(f"  look at it:  {command('qig-tui', run.path)}")


def _settled(run: RunDir) -> Summary:
    """The run as it is; one that has stopped, but whose process is not quite at its end, is waited for."""
    deadline = time.monotonic() + _END_S
    while True:
        summary = summarise(run)
        ended = summary.liveness is None or summary.liveness.word in ENDED
        kinds = [event.kind for event in summary.last_events]
        stopping = "emergency" in kinds and "start" not in kinds[kinds.index("emergency") :]
        if ended or not stopping or time.monotonic() > deadline:
            return summary
        time.sleep(0.05)
