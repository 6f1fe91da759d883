"""The whole circle, nothing replaced: a real trainer and dashboard, abort, proof, recovery, the run goes on."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from textual.pilot import Pilot

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Sample
from qig_tui.app import QigApp
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from tests.endtoend.commands import core_json, start_core, wait_for_step


async def until(pilot: Pilot[int], condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        await pilot.pause()
        await asyncio.sleep(0.05)


def samples_of_last_session(run: RunDir) -> list[Sample]:
    session = read_manifest(run).sessions[-1].id
    records = [r for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)]
    starts = [i for i, r in enumerate(records) if r.session == session]
    return records[starts[0] :] if starts else []


async def test_watch_abort_see_it_stopped_recover_and_see_it_go_on(tmp_path: Path) -> None:
    trainer = start_core("train", "--preset", "tiny", "--steps", "1000000", "--runs", tmp_path, "--id", "watched")
    run = RunDir(tmp_path / "watched")
    wait_for_step(tmp_path, 12)
    app = QigApp(run.path, is_run=True)
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.is_drawn)

        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, AbortScreen))
        dialog = app.screen
        assert isinstance(dialog, AbortScreen)
        assert dialog.asked is None
        await pilot.press("y")
        await until(pilot, lambda: dialog.asked is not None and dialog.asked.ended)
        assert dialog.asked is not None
        assert [stage.name for stage in dialog.asked.stages] == ["requested", "seen", "acting", "checkpoint", "stopped"]
        trainer.communicate(timeout=60)
        assert trainer.returncode == 76
        await pilot.press("escape")

        *_, verified = core_json("checkpoints", "verify", run.path)
        emergency = next(row for row in verified["result"] if row["reason"] == "emergency")
        assert emergency["status"] == "COMPLETE"

        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RecoverScreen))
        recover = app.screen
        assert isinstance(recover, RecoverScreen)
        await until(pilot, lambda: recover.status.get(emergency["name"]) == "COMPLETE")
        assert recover.chosen is not None
        assert recover.chosen.name == emergency["name"]
        await pilot.press("y")
        await until(pilot, lambda: recover.recovered is not None)
        assert recover.recovered is True
        await pilot.press("escape")

        (restored,) = [e for e in read_all(run.events, Event) if isinstance(e, Event) and e.kind == "restored"]
        assert restored.data["checkpoint"] == emergency["name"]
        assert restored.data["fingerprint"] == emergency["fingerprint"]
        await until(pilot, lambda: len(samples_of_last_session(run)) > 5)
        steps = [sample.step for sample in samples_of_last_session(run)]
        assert steps[:5] == list(range(emergency["step"], emergency["step"] + 5))

    session = read_manifest(run).sessions[-1]
    successor = psutil.Process(session.pid)
    successor.send_signal(signal.SIGTERM)
    # A child of this very process, started by the dashboard: waiting for it also buries it.
    assert successor.wait(timeout=60) in (143, None)
    assert read_manifest(run).exit_code == 143


async def test_quitting_a_run_of_ones_own_asks_and_can_stop_it_with_a_checkpoint(tmp_path: Path) -> None:
    trainer = start_core("train", "--preset", "tiny", "--steps", "1000000", "--runs", tmp_path, "--id", "mine")
    run = RunDir(tmp_path / "mine")
    wait_for_step(tmp_path, 3)
    app = QigApp(run.path, is_run=True, setup=Setup(owned=True))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.is_drawn)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, LeaveScreen))
        await pilot.press("s")
        await until(pilot, lambda: trainer.poll() is not None)
    trainer.communicate(timeout=60)
    assert trainer.returncode == 76
    (latest,) = core_json("checkpoints", "latest", run.path)
    assert latest["reason"] == "emergency"
