"""What is asked of a run while it lives: pause, soft reset, restore, the sampling interval; the test answers."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest
from textual.widgets import Button, DataTable, Input, Static

from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.mailbox import send
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Event, SessionRecord
from qig_tui.actions import Asked, went_back_as
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.restore import RestoreScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.sampling import SamplingScreen, log_every
from qig_tui.screens.soft_reset import SoftResetScreen
from qig_tui.setup import Setup
from tests.tui.runs import add_checkpoint, log_steps, open_run
from tests.tui.screens import WIDE, opened, screen_text, told, until, until_shown
from tests.tui.verifying import verification

SIZES = [(160, 48), (120, 40), (80, 24)]
GOOD = {"checkpoint": "step-00000100", "fingerprint": "f" * 64}


async def asked_for(pilot, writer, verb):
    """The command, as soon as the trainer has seen it."""
    await until(pilot, lambda: bool(writer.mailbox.pending))
    command = writer.mailbox.take()[0].command
    assert command.verb == verb
    return command


def stop_hearing(writer):
    """The heartbeat thread ends: nothing is seen any more."""
    writer.heartbeat._stop.set()
    writer.heartbeat._thread.join()


def in_sight(app, widget):
    """Whether every cell of a widget is on the screen, and within its dialog."""
    return widget.display and app.screen.query_one("#dialog").region.contains_region(widget.region)


# Restore


@asynccontextmanager
async def restoring(writer, monkeypatch, size=WIDE, **bad):
    """The dialog as `r` opens it on a live run, when every checkpoint has been verified."""
    verification(monkeypatch, **bad)
    async with opened(writer.run, size) as (app, pilot):
        await pilot.press("r")
        await until_shown(pilot, RestoreScreen)
        dialog = app.screen
        await until(pilot, lambda: len(dialog.status) == 2)
        yield app, pilot, dialog


async def test_a_live_run_is_taken_back_to_the_checkpoint_under_the_cursor(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("down")
        await until(pilot, lambda: "goes back to step-00000100 at step 100" in screen_text(app))
        assert not writer.mailbox.pending
        await pilot.press("y")
        command = await asked_for(pilot, writer, "restore")
        assert command.args == {"checkpoint": "step-00000100"}
        writer.mailbox.stage(command, "acting", 299)
        await until(pilot, lambda: "acting" in screen_text(app))
        writer.event("restored", step=100, how="restore", **GOOD)
        writer.mailbox.stage(command, "done", 100, **GOOD)
        await until(pilot, lambda: "The run goes on from step-00000100, step 100" in screen_text(app))
        for part in ("requested", "seen", "acting", "done", "fingerprint ffffffffffff"):
            assert part in screen_text(app), part
        assert dialog.followed.proof.step == 100
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)
        said = "from step-00000100, fingerprint ffffffffffff, by a command"
        await until(pilot, lambda: said in screen_text(app))


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (None, {}),
        ({"step": 200}, {}),
        ({"checkpoint": "step-00000200"}, {}),
        ({"fingerprint": "e" * 64}, {}),
        ({"how": "resume"}, {}),
        ({"how": "soft_reset"}, {}),
        ({"step": None}, {}),
        ({}, {"fingerprint": ""}),
        ({"fingerprint": None}, {"fingerprint": None}),
    ],
)
async def test_an_answer_alone_or_another_record_is_no_success(writer, monkeypatch, event, answer):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("down", "y")
        command = await asked_for(pilot, writer, "restore")
        if event is not None:
            writer.event("restored", **({"step": 100, "how": "restore"} | GOOD | event))
        writer.mailbox.stage(command, "done", 100, **(GOOD | answer))
        picture = app.screen_stack[1].picture
        await until(pilot, lambda: dialog.followed.unproven and (event is None or bool(picture.journal.restored)))
        monkeypatch.setattr("qig_tui.following.STILL_S", 0.0)
        await until(pilot, lambda: dialog.followed.outcome == "unconfirmed")
        await until(pilot, lambda: "the run has not recorded the same" in screen_text(app))
        assert "The run goes on" not in screen_text(app)


async def test_an_earlier_restore_to_the_same_checkpoint_proves_nothing(writer, monkeypatch):
    writer.event("restored", step=100, how="restore", **GOOD)
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("down", "y")
        command = await asked_for(pilot, writer, "restore")
        writer.mailbox.stage(command, "done", 100, **GOOD)
        await until(pilot, lambda: dialog.followed.unproven)
        await until(pilot, lambda: "for the run's own record of it" in screen_text(app))
        writer.event("restored", step=100, how="restore", **GOOD)
        await until(pilot, lambda: dialog.followed.outcome == "confirmed")


async def test_a_restore_that_is_refused_says_why_and_nothing_else(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("y")
        command = await asked_for(pilot, writer, "restore")
        writer.mailbox.stage(command, "refused", 299, reason="this loop gave no [b]restore[/] function \x1b[31m")
        await until(pilot, lambda: dialog.followed.outcome == "refused")
        said = "The trainer refused: this loop gave no [b]restore[/] function \\x1b[31m"
        await until(pilot, lambda: said in screen_text(app))
        assert "goes on" not in screen_text(app)


async def test_a_restore_that_nobody_sees_is_taken_back(writer, monkeypatch):
    monkeypatch.setattr("qig_tui.following.UNSEEN_S", 0.3)
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        stop_hearing(writer)
        await pilot.press("y")
        await until(pilot, lambda: dialog.followed.outcome == "unconfirmed")
        await until(pilot, lambda: "taken back, and nothing was changed" in screen_text(app))
        assert not list(writer.run.mailbox_in.iterdir())


async def test_a_restore_that_was_seen_and_stands_still_is_said_to_be_unconfirmed(writer, monkeypatch):
    monkeypatch.setattr("qig_tui.following.STILL_S", 0.3)
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("y")
        await asked_for(pilot, writer, "restore")
        await until(pilot, lambda: dialog.followed.outcome == "unconfirmed")
        await until(pilot, lambda: "Not confirmed" in screen_text(app))


@pytest.mark.parametrize("key", ["w", "escape"])
async def test_an_unseen_restore_is_taken_back_with_the_dialog(writer, monkeypatch, key):
    async with restoring(writer, monkeypatch) as (_app, pilot, dialog):
        stop_hearing(writer)
        await pilot.press("y")
        await until(pilot, lambda: dialog.query_one("#withdraw").display)
        assert list(writer.run.mailbox_in.iterdir())
        await pilot.press(key)
        await until_shown(pilot, RunScreen)
        assert not list(writer.run.mailbox_in.iterdir())


async def test_a_run_that_ends_before_it_went_back_is_said_to_have_ended(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("y")
        await asked_for(pilot, writer, "restore")
        writer.close(75)
        await until(pilot, lambda: dialog.followed.outcome == "unconfirmed")
        await until(pilot, lambda: "The run ended before this was confirmed: EXITED 75" in screen_text(app))


async def test_a_run_that_ends_before_it_was_asked_is_recovered_instead(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        writer.close(75)
        await until(pilot, lambda: "the run has ended meanwhile (EXITED 75)" in screen_text(app))
        await pilot.press("y")
        assert dialog.followed is None
        await pilot.press("escape", "r")
        await until_shown(pilot, RecoverScreen)


async def test_a_damaged_checkpoint_is_not_gone_back_to(writer, monkeypatch):
    async with restoring(writer, monkeypatch, step_200="HASH-MISMATCH") as (app, pilot, dialog):
        assert dialog.chosen.name == "step-00000100"
        await pilot.press("up", "y")
        await until(pilot, lambda: any("the checkpoint is HASH-MISMATCH" in note for note in told(app)))
        assert dialog.followed is None


async def test_what_is_confirmed_while_it_is_verified_is_asked_for_when_it_is_whole(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed)
    async with opened(writer.run) as (app, pilot):
        await pilot.press("r")
        await until_shown(pilot, RestoreScreen)
        await pilot.press("y")
        await until(pilot, lambda: "goes back if the checkpoint is whole" in screen_text(app))
        assert app.screen.followed is None
        proceed.set()
        command = await asked_for(pilot, writer, "restore")
        assert command.args == {"checkpoint": "step-00000200"}


async def test_the_first_key_that_is_pressed_asks_for_nothing(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        await pilot.press("enter")
        await until(pilot, lambda: "enter or y goes back to it" in screen_text(app))
        assert dialog.followed is None
        await pilot.press("enter")
        await asked_for(pilot, writer, "restore")


async def test_a_mailbox_that_is_gone_is_a_sentence(writer, monkeypatch):
    async with restoring(writer, monkeypatch) as (app, pilot, dialog):
        shutil.rmtree(writer.run.mailbox)
        await pilot.press("y")
        await until(pilot, lambda: "✖ not asked: no mailbox at" in screen_text(app))
        assert dialog.followed is None


@pytest.mark.parametrize("size", SIZES)
async def test_the_choice_and_the_stages_of_a_restore_fit(tmp_path, monkeypatch, size):
    verification(monkeypatch)
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 300)
        for step in range(10, 300, 10):
            add_checkpoint(writer, step)
        async with opened(writer.run, size) as (app, pilot):
            await pilot.press("r")
            await until_shown(pilot, RestoreScreen)
            dialog = app.screen
            await until(pilot, lambda: len(dialog.status) == 29)
            for name in ("#cancel", "#confirm", "#table"):
                assert in_sight(app, dialog.query_one(name)), name
            assert dialog.query_one(DataTable).row_count == 29
            await pilot.press("y")
            command = await asked_for(pilot, writer, "restore")
            writer.mailbox.stage(command, "acting", 299)
            good = {"checkpoint": "step-00000290", "fingerprint": "f" * 64}
            writer.event("restored", step=290, how="restore", **good)
            writer.mailbox.stage(command, "done", 290, **good)
            await until(pilot, lambda: dialog.followed.outcome == "confirmed")
            for name in ("#cancel", "#text"):
                assert in_sight(app, dialog.query_one(name)), name


def test_the_record_has_to_come_after_the_trainer_saw_the_command(writer):
    asked = Asked(writer.run, send(writer.run, "restore", args={"checkpoint": "c"}))
    writer.mailbox.stage(asked.command, "seen", 299)
    writer.mailbox.stage(asked.command, "done", 100, checkpoint="c", fingerprint="f")
    asked.look()

    def restored(t, **data):
        known = {"checkpoint": "c", "fingerprint": "f", "how": "restore"}
        return Event(0, t, "restored", 100, writer.session, data=known | data)

    after, before = restored(asked.seen_t), restored(asked.seen_t - 1)
    assert went_back_as([before, after], asked, "restore") is after
    assert went_back_as([before], asked, "restore") is None
    assert went_back_as([after], asked, "soft_reset") is None


@pytest.mark.parametrize(("verb", "outcome"), [("abort", "confirmed"), ("pause", "unconfirmed")])
def test_a_process_that_dies_has_stopped_and_has_done_nothing_else(writer, verb, outcome):
    stop_hearing(writer)
    picture = RunPicture(read_manifest(writer.run))
    followed = Followed(picture, writer.run, verb)
    followed.look()
    assert followed.outcome == "waiting"
    picture.liveness = Liveness(Word.KILLED, "the process is gone")
    followed.look()
    assert followed.outcome == outcome
    assert (verb == "pause") == ("KILLED the process is gone" in followed.words)
    assert bool(list(writer.run.mailbox_in.iterdir())) == (verb == "abort")


def test_another_session_is_not_the_one_that_was_asked(writer):
    picture = RunPicture(read_manifest(writer.run))
    followed = Followed(picture, writer.run, "pause")
    picture.manifest.sessions.append(SessionRecord("another", 0.0, 1, "elsewhere"))
    followed.look()
    assert "another process goes on with it" in followed.words


# Soft reset


async def test_a_soft_reset_asks_first_and_cancel_is_the_default(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("z")
        await until_shown(pilot, SoftResetScreen)
        question = str(app.screen.query_one("#text", Static).content)
        assert "last known good checkpoint, optimiser and random state with it" in question
        assert app.focused is app.screen.query_one("#cancel", Button)
        await pilot.press("enter")
        await until_shown(pilot, RunScreen)
        assert not list(writer.run.mailbox_in.iterdir())


@pytest.mark.parametrize("size", SIZES)
async def test_a_soft_reset_is_proven_by_what_the_run_records(writer, size):
    async with opened(writer.run, size) as (app, pilot):
        await pilot.press("z")
        await until_shown(pilot, SoftResetScreen)
        dialog = app.screen
        assert in_sight(app, dialog.query_one("#confirm"))
        await pilot.press("y")
        command = await asked_for(pilot, writer, "soft_reset")
        assert command.args == {}
        writer.mailbox.stage(command, "acting", 299)
        writer.mailbox.stage(command, "done", 100, lr_factor=0.5, number=1, **GOOD)
        await until(pilot, lambda: dialog.followed.unproven)
        more = {"from_step": 299, "to_step": 100, "cause": "soft_reset by me", "lr_factor": 0.5, "number": 1}
        writer.event("soft_reset", step=100, severity="warning", checkpoint=GOOD["checkpoint"], **more)
        writer.event("restored", step=100, how="soft_reset", **GOOD)
        await until(pilot, lambda: dialog.followed.outcome == "confirmed")
        await until(pilot, lambda: "learning rate × 0.5" in screen_text(app))
        assert in_sight(app, dialog.query_one("#text"))
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)


# Pause and go on


async def test_pause_and_go_on_are_one_key_by_what_the_heartbeat_says(writer):
    async with opened(writer.run) as (app, pilot):
        assert "p pause" in screen_text(app)
        await pilot.press("p")
        command = await asked_for(pilot, writer, "pause")
        await until(pilot, lambda: any(note.startswith("pause seen:") for note in told(app)))
        writer.heartbeat.doing = "pause"
        writer.mailbox.stage(command, "done", 299)
        await until(pilot, lambda: any(note.startswith("paused:") for note in told(app)))
        await until(pilot, lambda: "PAUSED" in screen_text(app) and "p go on" in screen_text(app))
        await pilot.press("p")
        command = await asked_for(pilot, writer, "resume")
        writer.heartbeat.doing = "step"
        writer.mailbox.stage(command, "done", 299)
        await until(pilot, lambda: any(note.startswith("the run goes on:") for note in told(app)))
        assert len(told(app)) == 1


async def test_a_key_that_is_pressed_again_before_the_answer_asks_nothing_twice(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("p")
        command = await asked_for(pilot, writer, "pause")
        await until(pilot, lambda: any(note.startswith("pause seen:") for note in told(app)))
        await pilot.press("p")
        await until(pilot, lambda: any("has not answered" in note for note in told(app)))
        assert list(writer.run.mailbox_in.iterdir()) == []
        assert not writer.mailbox.pending
        writer.heartbeat.doing = "pause"
        writer.mailbox.stage(command, "done", 299)
        await until(pilot, lambda: any(note.startswith("paused:") for note in told(app)))
        await until(pilot, lambda: "PAUSED" in screen_text(app))
        await pilot.press("p")
        await asked_for(pilot, writer, "resume")


async def test_a_pause_that_is_refused_says_why(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("p")
        command = await asked_for(pilot, writer, "pause")
        writer.mailbox.stage(command, "refused", 299, reason="too late")
        await until(pilot, lambda: any(note.startswith("not paused:") for note in told(app)))
        assert "too late" in told(app)[0]


@pytest.mark.parametrize("key", ["p", "c"])
async def test_what_nobody_sees_is_taken_back_and_said(writer, monkeypatch, key):
    monkeypatch.setattr("qig_tui.following.UNSEEN_S", 0.3)
    async with opened(writer.run) as (app, pilot):
        stop_hearing(writer)
        await pilot.press(key)
        await until(pilot, lambda: any("taken back" in note for note in told(app)))
        assert not list(writer.run.mailbox_in.iterdir())


@pytest.mark.parametrize("size", SIZES)
async def test_the_abort_dialog_offers_a_pause_instead(writer, size):
    async with opened(writer.run, size) as (app, pilot):
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        dialog = app.screen
        for name in ("#cancel", "#confirm", "#pause"):
            assert in_sight(app, dialog.query_one(name)), name
        assert app.focused is dialog.query_one("#cancel", Button)
        await pilot.press("p")
        command = await asked_for(pilot, writer, "pause")
        writer.heartbeat.doing = "pause"
        writer.mailbox.stage(command, "done", 299)
        await until(pilot, lambda: "The run is paused; p lets it go on." in screen_text(app))
        assert not dialog.query_one("#pause").display
        assert not dialog.escalating
        await pilot.press("y")
        assert dialog.asked.command is not None
        assert not writer.mailbox.pending
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)
        await until(pilot, lambda: app.screen.picture.paused)
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        assert not app.screen.query_one("#pause").display
        await pilot.press("p")
        assert app.screen.asked is None


# The sampling interval


@pytest.mark.parametrize("size", SIZES)
async def test_the_sampling_interval_is_typed_sent_and_confirmed(writer, size):
    async with opened(writer.run, size) as (app, pilot):
        await pilot.press("e")
        await until_shown(pilot, SamplingScreen)
        dialog = app.screen
        await until(pilot, lambda: app.focused is dialog.query_one(Input))
        for name in ("#cancel", "#confirm", "#every"):
            assert in_sight(app, dialog.query_one(name)), name
        await pilot.press(*"x-25.")
        assert dialog.query_one(Input).value == "25"
        await pilot.press("enter")
        command = await asked_for(pilot, writer, "set_log_every")
        assert command.args == {"value": 25}
        assert not dialog.query_one(Input).display
        writer.mailbox.stage(command, "done", 299, log_every=25)
        await until(pilot, lambda: "A sample every 25 steps from now on." in screen_text(app))
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)


@pytest.mark.parametrize("typed", ["", "0", "000"])
async def test_what_is_no_interval_is_not_sent(writer, typed):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("e")
        await until_shown(pilot, SamplingScreen)
        await until(pilot, lambda: app.focused is app.screen.query_one(Input))
        await pilot.press(*typed, "enter")
        await until(pilot, lambda: "A whole number of steps, 1 or more." in screen_text(app))
        assert app.screen.followed is None
        await pilot.press("5")
        await until(pilot, lambda: "1 or more" not in screen_text(app))
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)
        assert not list(writer.run.mailbox_in.iterdir())


def test_the_interval_is_known_from_the_newest_answer_of_the_session_or_the_configuration():
    def answer(stage, every):
        return Event(0, 0.0, "command", data={"verb": "set_log_every", "stage": stage, "log_every": every})

    config = {"cadence": {"log_every": 5}}
    assert log_every([], {}) is None
    assert log_every([], {"cadence": 7}) is None
    assert log_every([], config) == 5
    assert log_every([answer("done", 20), answer("refused", None)], config) == 20
    assert log_every([answer("done", 20), Event(1, 0.0, "start")], config) == 5
    assert log_every([answer("done", "x")], {}) is None


# For all of them


@pytest.mark.parametrize("key", ["a", "c", "p", "r", "z", "e"])
async def test_read_only_asks_for_nothing(writer, key):
    async with opened(writer.run, setup=Setup(read_only=True)) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: any("read-only" in note for note in told(app)))
        assert isinstance(app.screen, RunScreen)
        assert not list(writer.run.mailbox_in.iterdir())
        assert not writer.mailbox.pending


@pytest.mark.parametrize("key", ["a", "c", "p", "z", "e"])
async def test_a_run_that_has_ended_is_not_asked(writer, key):
    writer.close(0)
    async with opened(writer.run) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: any("no trainer to ask" in note for note in told(app)))
        assert isinstance(app.screen, RunScreen)


async def test_the_palette_has_what_the_keys_do(writer):
    async with opened(writer.run) as (app, pilot):
        found = {c.title: c for c in app.get_system_commands(app.screen)}
        assert {"Abort", "Checkpoint", "Pause", "Recover", "Soft reset", "Samples", "Freeze", "Log"} <= set(found)
        assert "Back" not in found
        await pilot.press("ctrl+p")
        await pilot.press(*"soft reset")
        await until(pilot, lambda: "last known good checkpoint" in screen_text(app))
        await pilot.press("down", "enter")
        await until_shown(pilot, SoftResetScreen)
