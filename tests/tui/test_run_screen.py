import os
import sys
import threading
import time

import pytest
from textual.widgets import Button, DataTable

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import MetricSpec, ReferenceLine
from qig_tui.app import QigApp
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.help import HelpScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.runs import RunsScreen
from qig_tui.screenshot import take_screenshot
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.lines import Lines
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.status import StatusLine
from tests.tui.runs import add_checkpoint, basin, log_steps, open_run, set_condition, until

WIDE = (160, 48)


def open_app(run, **options):
    return QigApp(run.path if isinstance(run, RunDir) else run, is_run=isinstance(run, RunDir), **options)


def text_of(widget):
    return "\n".join("".join(segment.text for segment in widget.render_line(y)) for y in range(widget.size.height))


def screen_text(app):
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def drawn(app):
    return lambda: isinstance(app.screen, RunScreen) and app.screen.is_drawn


def full_run(root):
    writer = open_run(root)
    for state in ("unarmed", "ok"):
        set_condition(writer, state)
    log_steps(writer, 0, 300)
    add_checkpoint(writer, 100)
    add_checkpoint(writer, 200)
    return writer


async def test_the_chart_grows_with_the_run(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 20)
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            chart = app.screen.query_one("#main", LineChart)
            assert chart.drawn == 20
            before = text_of(chart)
            log_steps(writer, 20, 60)
            await until(pilot, lambda: chart.drawn == 60)
            assert text_of(chart) != before
            status = app.screen.query_one(StatusLine)
            await until(pilot, lambda: "LIVE" in text_of(status) and "6 %" in text_of(status))


async def test_a_run_without_a_sample_is_shown(tmp_path):
    with open_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            assert "no sample yet" in text_of(app.screen.query_one("#main", LineChart))
            assert "no conditions" in text_of(app.screen.query_one(SafetyPanel))


async def test_every_part_of_the_run_is_on_the_wide_screen(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            shown = screen_text(app)
    where = ["charlie", "● LIVE", "SAFETY", "BASIN", "EVENTS", "CHECKPOINTS", "300 read", "a abort"]
    what = [
        "Φ 0.",
        "κ 62",
        "loss",
        "drift 0.500 rad",
        "drift ≤ 0.6 rad",
        "d_ref",
        "best 100",
        "last good 200",
        "GEOMETRIC",
    ]
    for part in where + what:
        assert part in shown, part


@pytest.mark.parametrize(
    "size", [(160, 48), (120, 40), (100, 30), (80, 24), (59, 50), (40, 12), (20, 5), (5, 2), (1, 1)]
)
async def test_no_size_breaks_the_screen(tmp_path, size):
    with full_run(tmp_path) as writer:
        set_condition(writer, "critical")
        app = open_app(writer.run)
        async with app.run_test(size=size) as pilot:
            await until(pilot, drawn(app))
            for key in ("b", "b", "s", "l", "plus", "x", "left", "0", "t", "question_mark", "escape", "a", "escape"):
                await pilot.press(key)
            await pilot.resize_terminal(80, 24)
            await pilot.resize_terminal(*size)
            await pilot.pause()
            if size[0] >= 20:
                assert any(word in screen_text(app) for word in ("LIVE", "SLOW"))
            if size[0] >= 40:
                assert "1 critical" in screen_text(app)


async def test_a_changed_condition_is_seen_at_once(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            safety = app.screen.query_one(SafetyPanel)
            assert "● drift" in text_of(safety)
            set_condition(writer, "warning", cause=["kappa"])
            await until(pilot, lambda: "▲ drift" in text_of(safety) and "warning" in text_of(safety))
            await until(pilot, lambda: "first moved kappa" in screen_text(app))


async def test_a_rewind_dims_what_was_abandoned(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        log_steps(writer, 40, 60)
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            chart = app.screen.query_one("#main", LineChart)
            faint = chart.tone("faint")
            cells = [s for y in range(chart.size.height) for s in chart.render_line(y) if s.style == faint]
            assert any("\u2801" <= c <= "\u28ff" for s in cells for c in s.text)


async def test_freezing_holds_the_picture_and_reading_goes_on(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            chart = app.screen.query_one("#main", LineChart)
            await pilot.press("space")
            log_steps(writer, 300, 320)
            await until(pilot, lambda: app.screen.picture.history.read == 320)
            assert chart.drawn == 300
            assert "FROZEN" in text_of(app.screen.query_one(StatusLine))
            await pilot.press("space")
            await until(pilot, lambda: chart.drawn == 320)


async def test_zoom_pan_and_cursor_move_all_charts_together(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("plus", "plus")
            charts = list(app.screen.query(LineChart))
            assert {chart.drawn for chart in charts} == {charts[0].drawn}
            assert charts[0].drawn < 100
            assert app.screen.view.last is None
            await pilot.press("left")
            assert app.screen.view.last is not None
            await pilot.press("x")
            assert " at " in text_of(charts[0])
            assert all("  │ " in text_of(chart) for chart in charts)
            await pilot.press("0")
            assert app.screen.view.first is None
            assert charts[0].drawn == 300
            app.screen.post_message(LineChart.Zoomed(0.5, 100))
            await until(pilot, lambda: charts[0].drawn < 300)


async def test_cancel_is_the_default_of_the_abort_dialog(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("a")
            await until(pilot, lambda: isinstance(app.screen, AbortScreen))
            assert app.focused is app.screen.query_one("#cancel", Button)
            await pilot.press("enter")
            await until(pilot, drawn(app))
            assert list(writer.run.mailbox_in.iterdir()) == []
            assert writer.mailbox.pending == []


async def test_confirming_the_abort_sends_it_and_shows_every_stage(tmp_path):
    writer = full_run(tmp_path)
    app = open_app(writer.run)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, drawn(app))
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, AbortScreen))
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
        await until(pilot, drawn(app))
        await until(pilot, lambda: "EXITED 76" in screen_text(app))


async def test_a_refusal_is_a_sentence(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("a")
            await until(pilot, lambda: isinstance(app.screen, AbortScreen))
            await pilot.press("y")
            await until(pilot, lambda: bool(writer.mailbox.pending))
            writer.mailbox.stage(writer.mailbox.take()[0].command, "refused", 1, reason="not [bold]now[/]")
            await until(pilot, lambda: "The trainer refused: not [bold]now[/]" in screen_text(app))


async def test_silence_after_an_abort_offers_a_signal(tmp_path, monkeypatch):
    monkeypatch.setattr("qig_tui.screens.abort.ESCALATE_AFTER_S", 0.0)
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("a")
            await until(pilot, lambda: isinstance(app.screen, AbortScreen))
            await pilot.press("k")
            assert isinstance(app.screen, AbortScreen)
            await pilot.press("y")
            await until(pilot, lambda: app.screen.escalating)
            await pilot.press("k")
            await until(pilot, lambda: "SIGTERM" in screen_text(app))
            assert f"process {os.getpid()}" in screen_text(app)
            assert not app.screen.query_one("#kill").display
            await pilot.press("escape", "escape")


async def test_a_checkpoint_command_tells_its_stages(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE, notifications=True) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("c")
            await until(pilot, lambda: bool(writer.mailbox.pending))
            command = writer.mailbox.take()[0].command
            assert command.verb == "checkpoint"
            writer.mailbox.stage(command, "done", 299, name="step-00000299")
            await until(pilot, lambda: any("step-00000299" in n.message for n in app._notifications))


@pytest.mark.parametrize("key", ["a", "c", "r"])
async def test_read_only_asks_for_nothing(tmp_path, key):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run, read_only=True)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press(key)
            await until(pilot, lambda: any("read-only" in n.message for n in app._notifications))
            assert isinstance(app.screen, RunScreen)
            assert list(writer.run.mailbox_in.iterdir()) == []
            assert "read only" in screen_text(app)


async def test_only_a_dead_run_is_recovered(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("r")
            await until(pilot, lambda: any("only a dead one" in n.message for n in app._notifications))


async def test_recovery_is_proven_by_a_new_session_that_names_the_checkpoint(tmp_path, monkeypatch):
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
    writer = full_run(tmp_path)
    writer.close(76)
    app = open_app(writer.run)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, drawn(app))
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
        again = type(writer).reopen(writer.run, resumed_from="step-00000100")
        await until(pilot, lambda: "beats" in screen_text(app))
        assert dialog.recovered is None
        again.event("restored", step=100, checkpoint="step-00000100", fingerprint="f" * 64)
        await until(pilot, lambda: dialog.recovered is True)
        assert "The run goes on." in screen_text(app)
        again.close(0)


async def test_a_run_of_another_program_only_shows_its_command(tmp_path, monkeypatch):
    async def verified(argv):
        yield {"error": "no module"}

    monkeypatch.setattr("qig_tui.screens.recover.child", verified)
    writer = open_run(tmp_path, program="evil [link]")
    log_steps(writer, 0, 5)
    add_checkpoint(writer, 4)
    writer.manifest.sessions[-1].argv = ["train.py", "; rm -rf /", "\x1b[2J"]
    writer.close(1)
    app = open_app(writer.run)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, drawn(app))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RecoverScreen) and bool(app.screen.status))
        await until(pilot, lambda: "'; rm -rf /'" in screen_text(app))
        assert "copy the command" in screen_text(app)
        assert app.screen.query_one("#confirm", Button).disabled


async def test_leaving_an_owned_run_asks_first(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run, owned=True)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("q")
            await until(pilot, lambda: isinstance(app.screen, LeaveScreen))
            await pilot.press("escape")
            await until(pilot, drawn(app))
            await pilot.press("q")
            await until(pilot, lambda: isinstance(app.screen, LeaveScreen))
            await pilot.press("l")
            await until(pilot, lambda: app.return_code == 0 and not app.is_running)


async def test_stopping_an_owned_run_follows_it_to_its_end(tmp_path):
    writer = full_run(tmp_path)
    app = open_app(writer.run, owned=True)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, drawn(app))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, LeaveScreen))
        await pilot.press("s")
        await until(pilot, lambda: bool(writer.mailbox.pending))
        dialog = app.screen
        writer.close(76)
        await until(pilot, lambda: dialog.asked is not None and dialog.asked.ended)
        await pilot.press("escape")
        await until(pilot, lambda: not app.is_running)


HOSTILE = "[bold red]x[/] [@click=app.quit]y[/] \x1b[31m\x07\u202e ${HOME} \u0000" + "n" * 10_000


async def test_markup_and_escapes_in_every_field_are_inert(tmp_path):
    spec = MetricSpec(name="phi", label=HOSTILE, unit=HOSTILE, references=[ReferenceLine(0.7, HOSTILE, HOSTILE)])
    strange = MetricSpec(name=HOSTILE, label=HOSTILE, unit=HOSTILE)
    with open_run(tmp_path, name=HOSTILE, program=HOSTILE, reason=HOSTILE, metrics=[strange, spec]) as writer:
        for step in range(30):
            writer.telemetry.log(step, {"phi": 0.7, HOSTILE: 1.0}, regime=HOSTILE, basin=basin())
        set_condition(writer, "critical", id=HOSTILE, metric=HOSTILE, unit=HOSTILE, comparison=HOSTILE, cause=[HOSTILE])
        for kind in ("note", "alert", "checkpoint", "command", "emergency", "end", "restored", HOSTILE):
            writer.event(
                kind, severity="warning", stream=HOSTILE, **{"text": HOSTILE, "name": HOSTILE, "reason": HOSTILE}
            )
        name = add_checkpoint(writer, 10)
        writer.run.checkpoint_tags(name).write_text('{"tags": ["[red]\\u001b[1m"]}')
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            for key in ("a", "escape", "question_mark", "escape", "b"):
                await pilot.press(key)
            shown = screen_text(app)
        assert not any(ord(c) < 32 and c != "\n" for c in shown)
        assert "\u202e" not in shown
        assert "[bold red]x[/]" in shown


async def test_values_that_cannot_be_drawn_are_marked(tmp_path):
    with open_run(tmp_path) as writer:
        for step, value in enumerate(
            [1.0, float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 0.0, -1.0, 5e-324] * 9
        ):
            writer.telemetry.log(step, {"phi": value, "kappa": value, "loss": abs(value)})
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            for key in ("l", "s", "plus", "l", "x", "left", "0"):
                await pilot.press(key)
            shown = text_of(app.screen.query_one("#main", LineChart))
            assert "×" in shown
            assert "↑" in shown


async def test_the_basin_table_has_a_row_for_each_entry_and_sorts(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("b")
            table = app.screen.query_one(BasinTable)
            await until(pilot, lambda: table.row_count == 64)
            first = table.get_row_at(0)[0].plain
            assert first == "00"
            await pilot.press("o")
            values = [float(table.get_row_at(i)[1].plain) for i in range(64)]
            assert values == sorted(values, reverse=True)
            await pilot.press("O")
            assert float(table.get_row_at(0)[1].plain) == min(values)


async def test_help_lists_the_keys_from_the_bindings(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            shown = screen_text(app)
            for binding in RunScreen.BINDINGS:
                assert not binding.tooltip or binding.tooltip in shown


async def test_the_theme_changes_every_tone(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            chart = app.screen.query_one("#main", Lines)
            dark = chart.tone("text")
            await pilot.press("t")
            await until(pilot, lambda: chart.tone("text") != dark)
            assert all(s.style.bgcolor == chart.tone("text").bgcolor for s in chart.render_line(1) if s.style)


async def test_a_folder_of_runs_is_a_list_to_choose_from(tmp_path):
    open_run(tmp_path, "a", name="first [b]").close(0)
    with open_run(tmp_path, "b", name="second") as writer:
        log_steps(writer, 0, 30)
        app = open_app(tmp_path)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.is_drawn)
            table = app.screen.query_one(DataTable)
            assert table.row_count == 2
            assert "first [b]" in screen_text(app)
            await until(pilot, lambda: "● LIVE" in screen_text(app))
            await pilot.press("enter")
            await until(pilot, drawn(app))
            assert app.screen.run_dir.id == "b"
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_earlier_steps_are_read_behind_the_first_picture(tmp_path):
    with full_run(tmp_path) as writer:
        app = open_app(writer.run)
        async with app.run_test(size=WIDE) as pilot:
            await until(pilot, drawn(app))
            screen = RunScreen(writer.run, tail_bytes=4096)
            app.push_screen(screen)
            await until(pilot, lambda: app.screen is screen and screen.is_drawn)
            assert screen.query_one("#main", LineChart).drawn == 300
            assert "300 read · 0 bad · 0 late" in screen_text(app)


def test_a_screenshot_is_an_svg(tmp_path):
    writer = full_run(tmp_path)
    writer.close(0)
    out = tmp_path / "out.svg"
    take_screenshot(open_app(writer.run), str(out), (100, 30))
    assert out.read_text().startswith("<svg")


def test_a_closed_app_leaves_no_thread(tmp_path):
    writer = full_run(tmp_path)
    writer.close(0)
    before = threading.active_count()
    take_screenshot(open_app(writer.run), str(tmp_path / "o.svg"), (80, 24))
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
    assert read_manifest(writer.run).exit_code == 0
