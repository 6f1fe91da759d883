"""Nothing replaced: the real trainer in a process of its own is paused, taken back and goes on, by the keys alone."""

import itertools
import signal

from textual.widgets import Input

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event, Sample
from qig_tui.screens.restore import RestoreScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.sampling import SamplingScreen
from qig_tui.screens.soft_reset import SoftResetScreen
from tests.endtoend.commands import start_core, wait_for_step
from tests.tui.screens import opened, screen_text, told, until, until_shown

SLOW_S = 60.0


def events_of(run, kind):
    return [event for event in read_all(run.events, Event) if isinstance(event, Event) and event.kind == kind]


async def test_a_real_run_is_paused_taken_back_and_goes_on(tmp_path):
    keep_all = tmp_path / "keep.toml"  # what a test has seen must not be pruned before it presses the key
    keep_all.write_text("[checkpoints]\nnewest = 100000\n")
    words = (
        "train",
        "--preset",
        "tiny",
        "--config",
        keep_all,
        "--steps",
        "1000000",
        "--runs",
        tmp_path,
        "--id",
        "live",
    )
    trainer = start_core(*words)
    try:
        run = RunDir(tmp_path / "live")
        wait_for_step(tmp_path, 12)
        async with opened(run) as (app, pilot):
            await pilot.press("c")
            await until(pilot, lambda: any(note.startswith("checkpoint written:") for note in told(app)), SLOW_S)
            await pilot.press("p")
            await until(pilot, lambda: any(note.startswith("paused:") for note in told(app)), SLOW_S)
            await until(pilot, lambda: "PAUSED" in screen_text(app), SLOW_S)
            await pilot.press("p")
            await until(pilot, lambda: any(note.startswith("the run goes on:") for note in told(app)), SLOW_S)

            await until(pilot, lambda: bool(app.screen.picture.checkpoints), SLOW_S)
            await pilot.press("r")
            await until_shown(pilot, RestoreScreen)
            dialog = app.screen
            chosen = dialog.chosen.name
            await until(pilot, lambda: dialog.status.get(chosen) == "COMPLETE", SLOW_S)
            await pilot.press("y")
            await until(pilot, lambda: dialog.followed is not None and dialog.followed.outcome != "waiting", SLOW_S)
            assert dialog.followed.outcome == "confirmed", screen_text(app)
            assert [stage.name for stage in dialog.asked.stages] == ["requested", "seen", "acting", "done"]
            (event,) = events_of(run, "restored")
            assert (event.data["how"], event.data["checkpoint"]) == ("restore", chosen)
            await pilot.press("escape")
            await until_shown(pilot, RunScreen)

            await pilot.press("e")
            await until_shown(pilot, SamplingScreen)
            await until(pilot, lambda: app.focused is app.screen.query_one(Input))
            await pilot.press("3", "enter")
            dialog = app.screen
            await until(pilot, lambda: dialog.followed.outcome == "confirmed", SLOW_S)
            await pilot.press("escape")
            await until_shown(pilot, RunScreen)

            # Too early for any checkpoint to be known as good: the trainer says so.
            await pilot.press("z")
            await until_shown(pilot, SoftResetScreen)
            await pilot.press("y")
            dialog = app.screen
            await until(pilot, lambda: dialog.followed.outcome in ("refused", "confirmed"), SLOW_S)
            assert dialog.followed.outcome == ("confirmed" if events_of(run, "soft_reset") else "refused")
            await pilot.press("escape")
        steps = [record.step for record in read_all(run.telemetry(), Sample) if isinstance(record, Sample)]
        assert any(later < earlier for earlier, later in itertools.pairwise(steps))
    finally:
        trainer.send_signal(signal.SIGTERM)
        trainer.communicate(timeout=SLOW_S)
