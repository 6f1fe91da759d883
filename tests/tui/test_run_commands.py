import os
import sys

import pytest
from textual.widgets import Button

from qig_core.rundir.reader import read_manifest
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.run import RunScreen
from tests.tui.runs import add_checkpoint, log_steps, open_run
from tests.tui.screens import opened, screen_text, told, until, until_shown


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
        # The last line moves once a second.
        await until(pilot, lambda: "r recover" in screen_text(app))
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
        writer.mailbox.stage(command, "done", 299, name="step-00000299")
        await until(pilot, lambda: any("step-00000299" in note for note in told(app)))
        stages = [note.split(":")[0] for note in told(app)]
        assert stages == ["checkpoint requested", "checkpoint seen", "checkpoint done"]


@pytest.mark.parametrize("key", ["a", "c", "r"])
async def test_read_only_asks_for_nothing(writer, key):
    async with opened(writer.run, read_only=True) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: any("read-only" in note for note in told(app)))
        assert isinstance(app.screen, RunScreen)
        assert nothing_was_asked(writer)
        assert "read only" in screen_text(app)


@pytest.mark.parametrize("key", ["a", "c"])
async def test_a_run_that_has_ended_is_not_asked(writer, key):
    writer.close(0)
    async with opened(writer.run) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: any("no trainer to ask" in note for note in told(app)))
        assert isinstance(app.screen, RunScreen)
        assert nothing_was_asked(writer)


async def test_only_a_dead_run_is_recovered(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("r")
        await until(pilot, lambda: any("only a dead one" in note for note in told(app)))
        assert isinstance(app.screen, RunScreen)
        assert nothing_was_asked(writer)


async def test_recovery_is_proven_by_a_new_session_that_names_the_checkpoint(writer, monkeypatch):
    async def verified(argv):
        assert argv[:3] == [sys.executable, "-m", "qig_core.cli"]
        yield {"progress": {"number": 1, "of": 2}}
        rows = [("step-00000200", "HASH-MISMATCH", ["model.bin"]), ("step-00000100", "COMPLETE", [])]
        yield {"result": [{"name": n, "step": 1, "status": s, "problems": p} for n, s, p in rows]}

    started = []

    class Process:
        pid = 4242

        def poll(self):
            return None

    def starter(run, plan):
        assert plan.refusal is None
        started.append(plan.argv)
        return Process()

    monkeypatch.setattr("qig_tui.screens.recover.child", verified)
    writer.close(76)
    async with opened(writer.run) as (app, pilot):
        dialog = RecoverScreen(app.screen.picture, writer.run, starter=starter)
        app.push_screen(dialog)
        await until(pilot, lambda: dialog.is_mounted and len(dialog.status) == 2)
        assert "the checkpoint is HASH-MISMATCH" in screen_text(app)
        await pilot.press("y")
        assert not started
        await pilot.press("down")
        await until(pilot, lambda: "--resume" in screen_text(app) and "step-00000100" in screen_text(app))
        await pilot.press("y")
        expected = [sys.executable, "-m", "qig_core.cli", "train", "--resume", f"{writer.run.path}@step-00000100"]
        assert started == [expected]
        with type(writer).reopen(writer.run, resumed_from="step-00000100") as again:
            await until(pilot, lambda: "beats" in screen_text(app))
            assert dialog.recovered is None
            again.event("restored", step=100, checkpoint="step-00000100", fingerprint="f" * 64)
            await until(pilot, lambda: dialog.recovered is True)
            assert "The run goes on." in screen_text(app)


async def test_a_run_of_another_program_only_shows_its_command(tmp_path, monkeypatch):
    async def verified(argv):
        yield {"error": "no module"}

    monkeypatch.setattr("qig_tui.screens.recover.child", verified)
    writer = open_run(tmp_path, program="evil [link]")
    log_steps(writer, 0, 5)
    add_checkpoint(writer, 4)
    writer.manifest.sessions[-1].argv = ["train.py", "; rm -rf /", "\x1b[2J"]
    writer.close(1)
    async with opened(writer.run) as (app, pilot):
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RecoverScreen) and bool(app.screen.status))
        await until(pilot, lambda: "'; rm -rf /'" in screen_text(app))
        assert "copy the command" in screen_text(app)
        assert app.screen.query_one("#confirm", Button).disabled


async def test_leaving_an_owned_run_asks_first(writer):
    async with opened(writer.run, owned=True) as (app, pilot):
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
    async with opened(writer.run, owned=True) as (app, pilot):
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
