import signal
import subprocess
import sys
import time
from pathlib import Path

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import read_manifest
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT

EXAMPLE = Path(__file__).parents[2] / "examples" / "your_own_loop.py"


def the_run(root: Path) -> RunDir:
    (run,) = list_runs(root)
    return run


def test_the_example_runs_to_its_end_and_its_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--runs", str(tmp_path), "--steps", "300"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    run = the_run(tmp_path)
    (found,) = list_checkpoints(run)
    state, manifest = load(run, found.name)
    assert (manifest.step, manifest.reason, manifest.conditions["divergence"]) == (300, "end", "ok")
    assert set(state) == {"model", "optimizer", "monitor"}
    assert SafetyMonitor.from_state(DEFAULT, state["monitor"]).states() == manifest.conditions
    assert (read_manifest(run).state, read_manifest(run).exit_code) == ("exited", 0)


def test_the_example_stops_in_order_on_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "--runs", str(tmp_path), "--steps", "1000000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not any(run.telemetry().stat().st_size > 10_000 for run in list_runs(tmp_path)):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143, text
    run = the_run(tmp_path)
    (found,) = list_checkpoints(run)
    _, manifest = load(run, found.name)
    assert manifest.reason == "emergency"
    assert read_manifest(run).exit_code == 143
    assert f"checkpoint {found.name}" in text
