import asyncio
import os
import sys
from contextlib import asynccontextmanager

import pytest
from textual.widgets import Button, Static

from qig_core.rundir.reader import read_manifest
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from qig_tui.widgets.checkpoints import CheckpointStrip
from tests.tui.runs import add_checkpoint, log_steps, open_run
from tests.tui.screens import WIDE, opened, screen_text, text_of, told, until, until_shown
from tests.tui.verifying import verification


def nothing_was_asked(writer):
    return not list(writer.run.mailbox_in.iterdir()) and not writer.mailbox.pending


async def test_cancel_is_the_default_of_the_abort_dialog(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        assert app.focused is app.screen.query_one("#cancel", Button)
        await pilot.press("enter")
        await until_shown(pilot, RunScreen)
        assert nothing_was_asked(writer)


@pytest.mark.parametrize(
    ("program", "words"),
    [("qig-core train", "r brings it back from"), ("own.py", "r shows how to start it again")],
)
async def test_the_question_names_no_step_that_will_be_another_when_it_stops(tmp_path, program, words):
    with open_run(tmp_path, program=program) as writer:
        log_steps(writer, 0, 232)
        async with opened(writer.run) as (app, pilot):
            await pilot.press("a")
            await until_shown(pilot, AbortScreen)
            question = str(app.screen.query_one("#text", Static).content)
            assert "saves a checkpoint where it stops" in question
            assert words in question
            assert "231" not in question


async def test_confirming_the_abort_sends_it_and_shows_every_stage(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        await pilot.press("y")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        command = writer.mailbox.take()[0].command
        assert command.verb == "abort"
        dialog = app.screen
        await until(pilot, lambda: "seen" in screen_text(app))
        writer.mailbox.stage(command, "acting", 299)
        writer.mailbox.stage(command, "checkpoint", 299, name="emergency-1", digest="ab" * 32)
        await until(pilot, lambda: "emergency-1" in screen_text(app))
        writer.close(76, "stopped by a command")
        writer.mailbox.stage(command, "stopped", 299, exit_code=76)
        await until(pilot, lambda: dialog.asked.ended)
        shown = screen_text(app)
        for part in ("requested", "seen", "step 299", "acting", "digest abababababab", "stopped", "exit code 76"):
            assert part in shown, part
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)
        await until(pilot, lambda: "EXITED 76" in screen_text(app))
        assert "r recover" in screen_text(app)
        assert "a abort" not in screen_text(app)


async def test_a_refusal_is_a_sentence_and_offers_a_signal(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        await pilot.press("y")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        writer.mailbox.stage(writer.mailbox.take()[0].command, "refused", 1, reason="not [bold]now[/]")
        await until(pilot, lambda: "The trainer refused: not [bold]now[/]" in screen_text(app))
        assert app.screen.escalating
        assert "The run has stopped" not in screen_text(app)


async def test_silence_after_an_abort_offers_a_signal(writer, monkeypatch):
    monkeypatch.setattr("qig_tui.screens.abort.ESCALATE_AFTER_S", 0.0)
    async with opened(writer.run) as (app, pilot):
        await pilot.press("a")
        await until_shown(pilot, AbortScreen)
        await pilot.press("k")
        assert isinstance(app.screen, AbortScreen)
        await pilot.press("y")
        await until(pilot, lambda: app.screen.escalating)
        await pilot.press("k")
        await until(pilot, lambda: "SIGTERM" in screen_text(app))
        assert f"process {os.getpid()}" in screen_text(app)
        assert not app.screen.query_one("#kill").display
        await pilot.press("escape", "escape")


async def test_a_checkpoint_command_tells_its_stages(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("c")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        command = writer.mailbox.take()[0].command
        assert command.verb == "checkpoint"
        await until(pilot, lambda: any(note.startswith("checkpoint seen:") for note in told(app)))
        writer.mailbox.stage(command, "acting", 299)
        writer.mailbox.stage(command, "done", 299, name="step-00000299")
        await until(pilot, lambda: any(note.startswith("checkpoint written:") for note in told(app)))
        assert len(told(app)) == 1
        assert "step-00000299" in told(app)[0]


async def test_a_checkpoint_that_is_refused_says_why(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("c")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        writer.mailbox.stage(writer.mailbox.take()[0].command, "refused", 1, reason="no space")
        await until(pilot, lambda: any(note.startswith("no checkpoint:") for note in told(app)))
        assert len(told(app)) == 1
        assert "no space" in told(app)[0]


class Process:
    """What a dialog started, or thinks it did."""

    def __init__(self, pid):
        self.pid = pid
        self.code = None
        self.argv = []

    def poll(self):
        return self.code

    def start(self, run, plan):
        assert plan.refusal is None
        assert not self.argv
        self.argv = plan.argv
        return self


@asynccontextmanager
async def recovering(writer, *, pid=0, size=WIDE):
    """The dialog over the run's screen, as soon as it has something to say of every checkpoint."""
    process = Process(pid)
    async with opened(writer.run, size) as (app, pilot):
        dialog = RecoverScreen(app.screen.picture, writer.run, starter=process.start)
        app.push_screen(dialog)
        await until(pilot, lambda: dialog.is_mounted)
        yield app, pilot, dialog, process


async def test_recovery_is_proven_by_a_new_session_that_names_the_checkpoint(writer, monkeypatch):
    verification(monkeypatch, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer, pid=os.getpid()) as (app, pilot, dialog, process):
        await until(pilot, lambda: len(dialog.status) == 2)
        await pilot.press("up")
        await until(pilot, lambda: "the checkpoint is HASH-MISMATCH: model.bin does not" in screen_text(app))
        await pilot.press("y")
        assert not process.argv
        await pilot.press("down")
        await until(pilot, lambda: "--resume" in screen_text(app) and "step-00000100" in screen_text(app))
        await pilot.press("y")
        expected = [sys.executable, "-m", "qig_core.cli", "train", "--resume", f"{writer.run.path}@step-00000100"]
        assert process.argv == expected
        with type(writer).reopen(writer.run, resumed_from="step-00000100") as again:
            await until(pilot, lambda: "beats" in screen_text(app))
            assert dialog.recovered is None
            again.event("restored", step=100, checkpoint="step-00000100", fingerprint="f" * 64)
            await until(pilot, lambda: dialog.recovered is True)
            assert "The run goes on." in screen_text(app)


async def test_only_the_process_that_was_started_here_proves_a_recovery(writer, monkeypatch):
    verification(monkeypatch)
    writer.close(76)
    async with recovering(writer, pid=os.getpid() + 1) as (app, pilot, dialog, process):
        await until(pilot, lambda: len(dialog.status) == 2)
        await pilot.press("y")
        with type(writer).reopen(writer.run, resumed_from="step-00000200") as other:
            other.event("restored", step=200, checkpoint="step-00000200", fingerprint="f" * 64)
            await until(pilot, lambda: any(e.session == other.session for e in dialog._picture.journal.restored))
            waited_s = dialog._waited_s
            await until(pilot, lambda: dialog._waited_s > waited_s)
            assert dialog.recovered is None
            process.code = 73
            await until(pilot, lambda: dialog.recovered is False)
            assert "another process took the run first" in screen_text(app)
            assert "The run goes on." not in screen_text(app)


async def test_the_newest_whole_checkpoint_is_chosen_once_it_is_known(writer, monkeypatch):
    verification(monkeypatch, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer) as (_, pilot, dialog, _process):
        await until(pilot, lambda: dialog.chosen.name == "step-00000100")
        table = dialog.query_one("#table")
        assert [table.get_cell(name, "tags").plain for name in ("step-00000200", "step-00000100")] == [
            "",
            "latest, best, last good",
        ]


async def test_a_cursor_that_was_moved_stays_where_it_is(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed, step_250="TORN")
    add_checkpoint(writer, 250)
    writer.close(76)
    async with recovering(writer) as (_, pilot, dialog, _process):
        await pilot.press("down", "down")
        proceed.set()
        await until(pilot, lambda: len(dialog.status) == 3)
        assert dialog.chosen.name == "step-00000100"


async def test_a_checkpoint_found_bad_is_marked_on_the_run_screen_too(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer) as (app, pilot, _dialog, _process):
        strip = app.screen_stack[1].query_one(CheckpointStrip)
        assert text_of(strip).count("✓") == 2
        proceed.set()
        await until(pilot, lambda: "✖      200  HASH-MISMATCH" in text_of(strip))
        assert "last good 100" in text_of(strip)
        writer.run.checkpoint_tags("step-00000100").write_text('{"tags": ["x"]}')
        await until(pilot, lambda: "last good x" in text_of(strip))
        assert "✖      200  HASH-MISMATCH" in text_of(strip)


async def test_where_nothing_is_left_to_do_only_an_earlier_checkpoint_starts(tmp_path, monkeypatch):
    verification(monkeypatch)
    writer = open_run(tmp_path, total_steps=200)
    for step in (100, 200):
        add_checkpoint(writer, step)
    writer.close(0)
    async with recovering(writer) as (app, pilot, dialog, process):
        await until(pilot, lambda: "nothing is left to do" in screen_text(app))
        assert "--steps" in screen_text(app)
        assert app.screen.query_one("#confirm", Button).disabled
        await pilot.press("y")
        assert not process.argv
        await pilot.press("down", "y")
        assert process.argv[-1].endswith("@step-00000100")
        assert dialog.recovered is None


async def test_what_is_confirmed_while_it_is_verified_waits_and_then_starts(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed)
    writer.close(76)
    async with recovering(writer) as (app, pilot, _dialog, process):
        await pilot.press("y")
        await until(pilot, lambda: "waits for the verification" in screen_text(app))
        assert not process.argv
        proceed.set()
        await until(pilot, lambda: bool(process.argv))
        assert process.argv[-1].endswith("@step-00000200")
        assert "waits for the verification" not in screen_text(app)


async def test_what_is_confirmed_while_it_is_verified_and_found_bad_does_not_start(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer) as (app, pilot, _dialog, process):
        await pilot.press("y")
        proceed.set()
        await until(pilot, lambda: any("not started: step-00000200 is HASH-MISMATCH" in note for note in told(app)))
        await until(pilot, lambda: "1 of 2 damaged" in screen_text(app))
        assert not process.argv
        await pilot.press("y")
        assert process.argv[-1].endswith("@step-00000100")


@pytest.mark.parametrize("way", ["down", "escape"])
async def test_a_confirmation_is_taken_back_by_going_elsewhere(writer, monkeypatch, way):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed=proceed)
    writer.close(76)
    async with recovering(writer) as (_app, pilot, dialog, process):
        await pilot.press("y", way)
        await until(pilot, lambda: way == "escape" or dialog.chosen.name == "step-00000100")
        proceed.set()
        await until(pilot, lambda: len(dialog.status) == 2 or not dialog.is_running)
        assert not process.argv


async def test_enter_on_a_row_goes_to_the_button_and_enter_there_starts(writer, monkeypatch):
    verification(monkeypatch)
    writer.close(76)
    async with recovering(writer) as (app, pilot, dialog, process):
        await until(pilot, lambda: len(dialog.status) == 2)
        await pilot.press("enter")
        await until(pilot, lambda: "enter or y starts it" in screen_text(app))
        assert app.focused is dialog.query_one("#confirm", Button)
        await pilot.press("tab")
        await until(pilot, lambda: "enter or y starts it" not in screen_text(app))
        assert not process.argv
        await pilot.press("shift+tab", "enter")
        await until(pilot, lambda: bool(process.argv))


@pytest.mark.parametrize("key", ["enter", "y"])
async def test_a_key_on_a_checkpoint_that_cannot_start_says_why(writer, monkeypatch, key):
    verification(monkeypatch, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer) as (app, pilot, dialog, process):
        await until(pilot, lambda: dialog.chosen.name == "step-00000100")
        await pilot.press("up", key)
        await until(pilot, lambda: any("the checkpoint is HASH-MISMATCH" in note for note in told(app)))
        assert not process.argv


async def test_checkpoints_of_a_branch_that_was_left_say_so(tmp_path, monkeypatch):
    verification(monkeypatch)
    writer = open_run(tmp_path)
    for step in (100, 200):
        add_checkpoint(writer, step)
    writer.event("restored", step=100, checkpoint="step-00000100", fingerprint="f" * 64)
    add_checkpoint(writer, 150)
    writer.close(76)
    async with recovering(writer) as (_app, pilot, dialog, _process):
        await until(pilot, lambda: len(dialog.status) == 3)
        rows = {name: dialog.query_one("#table").get_cell(name, "tags").plain for name in dialog.status}
        assert [name for name, tags in rows.items() if "before the resume at 100" in tags] == ["step-00000200"]


async def test_checkpoints_that_cannot_be_listed_are_not_said_to_be_none(tmp_path):
    writer = open_run(tmp_path)
    writer.run.checkpoints.rmdir()
    writer.run.checkpoints.write_text("a file")
    writer.close(76)
    async with recovering(writer) as (app, pilot, _dialog, _process):
        await until(pilot, lambda: "✖ checkpoints/ cannot be read: Not a directory" in screen_text(app))
        assert "no checkpoint to go on from" not in screen_text(app)
        assert "cannot be read" in text_of(app.screen_stack[1].query_one(CheckpointStrip))


async def test_a_status_is_readable_on_a_small_terminal(writer, monkeypatch):
    verification(monkeypatch, step_200="HASH-MISMATCH")
    writer.close(76)
    async with recovering(writer, size=(80, 24)) as (app, pilot, _dialog, _process):
        await until(pilot, lambda: "✖ HASH-MISMATCH " in screen_text(app))
        assert "✓ COMPLETE " in screen_text(app)


async def test_a_run_of_another_program_only_shows_its_command(tmp_path, monkeypatch):
    verification(monkeypatch)
    writer = open_run(tmp_path, program="evil [link]")
    log_steps(writer, 0, 5)
    add_checkpoint(writer, 4)
    writer.manifest.sessions[-1].argv = ["train.py", "; rm -rf /", "\x1b[2J"]
    writer.close(1)
    async with opened(writer.run) as (app, pilot):
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RecoverScreen) and bool(app.screen.status))
        await until(pilot, lambda: "'; rm -rf /'" in screen_text(app))
        await until(pilot, lambda: "Start it again yourself, from the checkpoint" in screen_text(app))
        assert "@step-00000004" in screen_text(app)
        assert "without the interpreter" in screen_text(app)
        assert not app.screen.query_one("#confirm", Button).display
        await pilot.press("y")
        assert "started" not in screen_text(app)


async def test_leaving_an_owned_run_asks_first(writer):
    async with opened(writer.run, setup=Setup(owned=True)) as (app, pilot):
        await pilot.press("q")
        await until_shown(pilot, LeaveScreen)
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)
        assert app.is_running
        await pilot.press("q")
        await until_shown(pilot, LeaveScreen)
        await pilot.press("l")
        await until(pilot, lambda: not app.is_running)
        assert app.return_code == 0
        assert nothing_was_asked(writer)
        assert read_manifest(writer.run).state == "running"


async def test_stopping_an_owned_run_follows_it_to_its_end(writer):
    async with opened(writer.run, setup=Setup(owned=True)) as (app, pilot):
        await pilot.press("q")
        await until_shown(pilot, LeaveScreen)
        await pilot.press("s")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        assert [asked.command.verb for asked in writer.mailbox.pending] == ["abort"]
        dialog = app.screen
        writer.close(76)
        await until(pilot, lambda: dialog.asked is not None and dialog.asked.ended)
        assert "exit code 76" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: not app.is_running)
        assert app.return_code == 0
