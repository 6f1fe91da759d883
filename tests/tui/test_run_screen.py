import os
import threading
import time

import pytest
from textual.events import MouseScrollDown, MouseScrollUp

from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import MetricSpec, ReferenceLine, Sample
from qig_tui.screens.help import HelpScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.runs import RunsScreen
from qig_tui.screenshot import take_screenshot
from qig_tui.setup import Setup
from qig_tui.sources.local import Backfill
from qig_tui.widgets.basin import BasinHeat, BasinMovers
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.footer import HonestyFooter
from qig_tui.widgets.lines import Lines
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.status import StatusLine
from tests.tui.runs import add_checkpoint, basin, log_steps, open_run, set_condition
from tests.tui.screens import open_app, opened, screen_text, text_of, told, until, until_shown


def main_chart(app):
    return app.screen.query_one("#chart-0", LineChart)


async def test_the_chart_grows_with_the_run(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 20)
        async with opened(writer.run) as (app, pilot):
            chart = main_chart(app)
            assert chart.drawn == 20
            before = text_of(chart)
            log_steps(writer, 20, 60)
            await until(pilot, lambda: chart.drawn == 60)
            assert text_of(chart) != before
            status = app.screen.query_one(StatusLine)
            await until(pilot, lambda: "LIVE" in text_of(status) and "6 %" in text_of(status))
            assert "step 59 / 1 000" in text_of(status)


async def test_a_run_without_a_sample_is_shown(tmp_path):
    with open_run(tmp_path) as writer:
        async with opened(writer.run) as (app, _):
            assert "no sample yet" in text_of(main_chart(app))
            assert "no conditions" in text_of(app.screen.query_one(SafetyPanel))


async def test_every_part_of_the_run_is_on_the_wide_screen(writer):
    async with opened(writer.run) as (app, _):
        shown = screen_text(app)
    where = ["charlie", "● LIVE", "SAFETY", "BASIN", "EVENTS", "CHECKPOINTS", "300 read", "a abort"]
    what = [
        "Φ 0.",
        "κ 62",
        "loss",
        "drift 0.500 rad",
        "≤ 0.6 rad",
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
async def test_no_size_breaks_the_screen(writer, size):
    set_condition(writer, "critical")
    async with opened(writer.run, size) as (app, pilot):
        for key in ("b", "1", "s", "l", "plus", "x", "left", "0", "t", "question_mark", "escape", "a", "escape"):
            await pilot.press(key)
        await pilot.resize_terminal(80, 24)
        await pilot.resize_terminal(*size)
        await pilot.pause()
        assert isinstance(app.screen, RunScreen)
        if size[0] >= 20:
            assert any(word in screen_text(app) for word in ("LIVE", "SLOW"))
        if size[0] >= 40:
            assert "1 critical" in screen_text(app)


async def test_a_changed_condition_is_seen_at_once(writer):
    async with opened(writer.run) as (app, pilot):
        safety = app.screen.query_one(SafetyPanel)
        assert "● drift" in text_of(safety)
        set_condition(writer, "warning", cause=["kappa"])
        await until(pilot, lambda: "▲ drift" in text_of(safety) and "warning" in text_of(safety))
        await until(pilot, lambda: "kappa moved first" in screen_text(app))
        assert "● drift" not in text_of(safety)
        assert "1 warning" in text_of(app.screen.query_one(StatusLine))


async def test_a_rewind_dims_what_was_abandoned(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        log_steps(writer, 40, 60)
        async with opened(writer.run) as (app, _):
            chart = main_chart(app)
            faint = chart.tone("faint")
            cells = [s for y in range(chart.size.height) for s in chart.render_line(y) if s.style == faint]
            assert any("\u2801" <= c <= "\u28ff" for s in cells for c in s.text)


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_chart_is_drawn_again_as_it_was_after_more_of_a_resumed_run_has_come(tmp_path, frozen):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        log_steps(writer, 40, 60)
        async with opened(writer.run) as (app, pilot):
            if frozen:
                await pilot.press("space")
            chart, history = main_chart(app), app.screen.picture.history
            before = text_of(chart)
            # Read, and not drawn yet: what a change of theme or size meets.
            sample = Sample(history._last_seq + 1, 60, 60.0, m={"phi": 0.9, "kappa": 1.0, "loss": 1.0})
            history.add([sample])
            chart.redraw()
            assert text_of(chart) == before
            await pilot.press("t")
            await pilot.resize_terminal(120, 40)
            await until(pilot, lambda: chart.size.width < 100)
            assert isinstance(app.screen, RunScreen)


async def test_freezing_holds_the_picture_and_reading_goes_on(writer):
    async with opened(writer.run) as (app, pilot):
        chart, status = main_chart(app), app.screen.query_one(StatusLine)
        await pilot.press("space")
        log_steps(writer, 300, 320)
        await until(pilot, lambda: app.screen.picture.history.read == 320)
        assert chart.drawn == 300
        assert "FROZEN" in text_of(status)
        await pilot.press("space")
        await until(pilot, lambda: chart.drawn == 320)
        assert "FROZEN" not in text_of(status)


async def test_whatever_is_looked_at_while_frozen_is_what_was_frozen(writer):
    async with opened(writer.run) as (app, pilot):
        chart, deck = main_chart(app), app.screen.query_one(ChartDeck)
        await pilot.press("space")
        log_steps(writer, 300, 700)
        await until(pilot, lambda: app.screen.picture.history.read == 700)
        await pilot.press("plus")
        assert deck.view.shown(deck.ends()) == (149, 299)
        assert chart.drawn == 152
        await pilot.press("x")
        assert " at 299" in text_of(chart)
        await pilot.resize_terminal(120, 40)
        await pilot.press("0")
        await until(pilot, lambda: chart.size.width < 100)
        assert chart.drawn == 300
        assert app.screen.shown.basin().step == 290
        await pilot.press("space")
        await until(pilot, lambda: chart.drawn == 700)


async def test_zoom_pan_and_cursor_move_all_charts_together(writer):
    async with opened(writer.run) as (app, pilot):
        deck = app.screen.query_one(ChartDeck)
        charts = charts_of(app)
        await pilot.press("plus", "plus")
        assert {chart.drawn for chart in charts} == {charts[0].drawn}
        assert charts[0].drawn < 100
        assert deck.view.last is None
        await pilot.press("left")
        assert deck.view.last is not None
        await pilot.press("x")
        assert " at " in text_of(charts[0])
        assert all("  │ " in text_of(chart) for chart in charts)
        await pilot.press("0")
        assert deck.view.first is None
        assert charts[0].drawn == 300


async def test_the_wheel_and_a_click_on_one_chart_move_all(writer):
    async with opened(writer.run) as (app, pilot):
        deck = app.screen.query_one(ChartDeck)
        charts = charts_of(app)
        step = charts[1]._step_at(20)
        assert 50 < step < 250
        for _ in range(4):
            await pilot._post_mouse_events([MouseScrollUp], charts[1], offset=(20, 4))
        await until(pilot, lambda: charts[0].drawn < 150)
        assert {chart.drawn for chart in charts} == {charts[0].drawn}
        first, last = deck.view.shown((0, 299))
        assert first < step < last < 299
        await pilot.click(charts[0], offset=(40, 5))
        await until(pilot, lambda: deck.view.cursor is not None)
        assert first <= deck.view.cursor <= last
        assert all("  │ " in text_of(chart) for chart in charts)
        for _ in range(8):
            await pilot._post_mouse_events([MouseScrollDown], charts[2], offset=(20, 4))
        await until(pilot, lambda: charts[0].drawn == 300)


def log_metrics(writer, count):
    names = [f"metric{i}" for i in range(count)]
    for step in range(30):
        writer.telemetry.log(step, {"phi": 0.7} | dict.fromkeys(names, 1.0))
    return names


def charts_of(app):
    """Those in sight."""
    return [chart for chart in app.screen.query(LineChart) if chart.region and chart._data is not None]


def labels(app):
    return [chart._data.label for chart in charts_of(app)]


async def test_every_metric_can_be_charted_and_the_large_chart_stays(tmp_path):
    with open_run(tmp_path) as writer:
        names = log_metrics(writer, 8)
        async with opened(writer.run) as (app, pilot):
            assert "m metrics" in screen_text(app)
            seen = []
            for _ in range(3):
                assert labels(app)[0] == "Φ"
                seen.append(labels(app)[1:])
                await pilot.press("m")
            assert seen == [names[:3], names[3:6], names[5:8]]
            assert labels(app)[1:] == names[:3]
            await pilot.press("M")
            assert labels(app)[1:] == names[5:8]
            await pilot.press("m", "space", "m")
            assert labels(app)[1:] == names[3:6]


async def test_where_there_is_one_chart_only_it_shows_every_metric(tmp_path):
    with open_run(tmp_path) as writer:
        names = log_metrics(writer, 4)
        async with opened(writer.run, (50, 24)) as (app, pilot):
            seen = []
            for _ in range(6):
                seen += labels(app)
                await pilot.press("m")
            assert seen == ["Φ", *names, "Φ"]


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_a_small_chart_says_what_its_heights_mean(writer, size):
    async with opened(writer.run, size) as (app, _):
        chart = app.screen.query_one("#chart-1", LineChart)
        assert 20 <= chart.size.width < 30
        y = chart._held
        found = [float(line[:6]) for line in text_of(chart).splitlines()[1:] if line[:6].strip() and line[6] == " "]
        assert len(found) >= 2
        assert y.low <= min(found) < 59
        assert 61 < max(found) <= y.high


@pytest.mark.parametrize("size", [(160, 48), (120, 40), (100, 30), (140, 30)])
async def test_every_column_of_the_basin_grid_is_in_sight(writer, size):
    async with opened(writer.run, size) as (app, _):
        heat, movers = app.screen.query_one(BasinHeat), app.screen.query_one(BasinMovers)
        lowest = text_of(heat).splitlines()
        rows = [line for line in lowest if len(line.split()) == 8]
        assert len(rows) >= 8
        assert heat.region.right <= movers.region.x
        assert movers.region.right <= app.screen.query_one("#side").region.right


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
        async with opened(writer.run) as (app, pilot):
            for key in ("a", "escape", "question_mark", "escape", *"23461"):
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
        async with opened(writer.run) as (app, pilot):
            for key in ("l", "s", "plus", "l", "x", "left", "0"):
                await pilot.press(key)
            shown = text_of(main_chart(app))
            assert "×" in shown
            assert "↑" in shown


async def test_help_lists_the_keys_from_the_bindings(writer):
    async with opened(writer.run, (160, 110)) as (app, pilot):
        await pilot.press("question_mark")
        await until_shown(pilot, HelpScreen)
        shown = screen_text(app)
        tooltips = [binding.tooltip for binding in RunScreen.BINDINGS if binding.tooltip]
        assert len(tooltips) > len(ChartDeck.KEYS)
        for tooltip in tooltips:
            assert tooltip in shown


async def test_help_that_is_higher_than_the_screen_begins_with_the_first_key(writer):
    async with opened(writer.run, (80, 24)) as (app, pilot):
        await pilot.press("question_mark")
        await until_shown(pilot, HelpScreen)
        box = app.screen.query_one("#dialog")
        assert box.max_scroll_y > 0
        assert "Stop the run with a checkpoint" in screen_text(app)
        await pilot.press("end")
        await until(pilot, lambda: "Close  esc" in screen_text(app))


async def test_the_theme_changes_every_tone(writer):
    async with opened(writer.run) as (app, pilot):
        chart = app.screen.query_one("#chart-0", Lines)
        dark = chart.tone("text")
        await pilot.press("t")
        await until(pilot, lambda: chart.tone("text") != dark)
        assert all(s.style.bgcolor == chart.tone("text").bgcolor for s in chart.render_line(1) if s.style)


async def test_earlier_steps_are_read_behind_the_first_picture(writer):
    async with opened(writer.run) as (app, pilot):
        screen = RunScreen(writer.run, setup=Setup(tail_bytes=4096))
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and screen.is_drawn)
        assert main_chart(app).drawn == 300
        assert "300 read · 0 bad · 0 late" in screen_text(app)


async def test_the_keys_of_the_last_line_are_those_of_this_moment(writer, monkeypatch):
    monkeypatch.setattr("qig_tui.screens.pane._NUMBERS_S", 1e9)
    async with opened(writer.run) as (app, pilot):
        assert "a abort  c checkpoint" in screen_text(app)
        writer.close(0)
        await until(pilot, lambda: "r recover" in screen_text(app))
        assert "a abort" not in screen_text(app)


async def test_a_run_that_ended_shows_no_green_light(writer):
    async with opened(writer.run) as (app, pilot):
        status = app.screen.query_one(StatusLine)
        assert "● limits ok" in text_of(status)
        writer.close(75)
        await until(pilot, lambda: "○ limits were ok" in text_of(status))
        await until(pilot, lambda: "SAFETY last known" in screen_text(app))


async def test_a_narrow_status_line_keeps_the_step_rather_than_what_the_word_rests_on(tmp_path):
    with open_run(tmp_path, name="a name as long") as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, 300)
        async with opened(writer.run, (80, 24)) as (app, _):
            picture, status = app.screen.picture, app.screen.query_one(StatusLine)
            picture.liveness = Liveness(Word.KILLED, "the process is gone")
            status.show(picture, frozen=False)
            assert "✖ KILLED ─ step 299 / 1 000" in text_of(status)


@pytest.mark.parametrize("size", [(160, 48), (80, 24), (40, 12), (20, 5), (11, 3)])
async def test_the_exit_code_is_never_left_out(tmp_path, size):
    writer = open_run(tmp_path, name="a name that is as long as this")
    set_condition(writer, "critical")
    log_steps(writer, 0, 300)
    writer.close(76)
    async with opened(writer.run, size) as (app, _):
        assert "■ EXITED 76" in text_of(app.screen.query_one(StatusLine))


@pytest.mark.parametrize("size", [(160, 48), (120, 40), (80, 24), (40, 12), (30, 12), (20, 5)])
async def test_the_last_line_offers_to_leave_at_any_width(writer, size):
    async with opened(writer.run, size) as (app, pilot):
        footer = app.screen.query_one(HonestyFooter)
        assert {"a", "c", "?", "q"} <= set(text_of(footer).split())
        if size[0] >= 80:
            assert "a abort  c checkpoint  ? help  q quit" in text_of(footer)
        app.screen.picture.problem = "a sentence that is longer than the line " * 9
        footer.redraw()
        assert {"a", "c", "?", "q"} <= set(text_of(footer).split())
        writer.close(0)
        await until(pilot, lambda: "r" in text_of(footer).split())
        assert {"r", "?", "q"} <= set(text_of(footer).split())


async def test_a_run_that_cannot_be_read_any_more_says_so_in_its_status(writer):
    async with opened(writer.run, (120, 40)) as (app, pilot):
        status, kept = app.screen.query_one(StatusLine), writer.run.manifest.read_bytes()
        assert "▲" not in text_of(status)
        writer.run.manifest.write_bytes(b"{")
        await until(pilot, lambda: "▲ 'run.json' is not a readable" in text_of(status))
        assert any(word in text_of(status) for word in ("● LIVE", "◐ SLOW"))
        writer.run.manifest.write_bytes(kept)
        await until(pilot, lambda: "▲" not in text_of(status))
        os.rename(writer.run.checkpoints, writer.run.path / "elsewhere")
        await until(pilot, lambda: "▲ checkpoints/ is gone" in text_of(status))
        await until(pilot, lambda: "checkpoints/ is gone" in text_of(app.screen.query_one(CheckpointStrip)))


async def test_a_condition_is_not_ok_beside_a_value_that_is_no_number(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok", id="nonfinite", metric="loss", comparison="finite", limit=None, value=1.0)
        log_steps(writer, 0, 20)
        async with opened(writer.run) as (app, pilot):
            safety, status = app.screen.query_one(SafetyPanel), app.screen.query_one(StatusLine)
            assert "● nonfinite" in text_of(safety)
            writer.telemetry.log(20, {"loss": float("nan")})
            await until(pilot, lambda: "▲ 1 unjudged" in text_of(status))
            await until(pilot, lambda: "▲ nonfinite" in text_of(safety))
            assert "nan" in text_of(safety)
            assert "ok" not in text_of(safety)


async def test_a_regime_is_shown_in_words(tmp_path):
    with open_run(tmp_path) as writer:
        writer.telemetry.log(0, {"phi": 0.95}, regime="topological_instability")
        async with opened(writer.run) as (app, _):
            assert "TOPOLOGICAL INSTABILITY" in text_of(app.screen.query_one(StatusLine))


async def test_an_old_damaged_checkpoint_is_in_sight(writer):
    for step in range(300, 1300, 100):
        add_checkpoint(writer, step)
    writer.run.checkpoint_manifest("step-00000100").write_bytes(b"{")
    os.utime(writer.run.checkpoint("step-00000100"), (5.0, 5.0))
    async with opened(writer.run, (120, 40)) as (app, _):
        shown = text_of(app.screen.query_one(CheckpointStrip))
        assert "✖      100  UNREADABLE" in shown
        assert "none of them damaged" in shown
        assert shown.index("1 200") < shown.index("UNREADABLE")


async def test_a_run_that_cannot_be_read_is_a_row_that_says_so_and_hides_no_other(tmp_path):
    for run_id in "abc":
        open_run(tmp_path, run_id, name=f"run {run_id}").close(0)
    (tmp_path / "c" / "telemetry.jsonl").unlink(missing_ok=True)
    (tmp_path / "c" / "telemetry.jsonl").mkdir()
    async with opened(tmp_path, (120, 40)) as (app, pilot):
        shown = screen_text(app)
        assert shown.count("■ EXITED 0") == 2
        assert "✖ UNREADABLE" in shown
        assert "✖ 'telemetry.jsonl' cannot be read: not a regular file" in shown
        await pilot.press("enter")
        await until(pilot, lambda: any("cannot be read" in note for note in told(app)))
        await pilot.press("down")
        await until(pilot, lambda: "✖ 'telemetry.jsonl'" not in screen_text(app))
        await pilot.press("enter")
        await until_shown(pilot, RunScreen)


async def test_a_folder_of_runs_is_a_list_to_choose_from(tmp_path):
    with open_run(tmp_path, "a", name="first [b]") as ended:
        set_condition(ended, "ok")
    with open_run(tmp_path, "b", name="second") as writer:
        log_steps(writer, 0, 30)
        async with opened(tmp_path, (120, 40)) as (app, pilot):
            runs = app.screen
            assert isinstance(runs, RunsScreen)
            assert runs.query_one("#runs").row_count == 2
            assert "first [b]" in screen_text(app)
            assert "○ was ok" in screen_text(app)

            def lives() -> bool:
                writer.step_done(30)  # on a busy machine the last step would soon be too long ago
                return "● LIVE" in screen_text(app)

            await until(pilot, lives)
            await pilot.press("question_mark")
            await until_shown(pilot, HelpScreen)
            assert "Open the run under the cursor" in screen_text(app)
            assert "wheel" not in screen_text(app)
            await pilot.press("escape", "enter")
            await until_shown(pilot, RunScreen)
            assert app.screen.run_dir.id == "b"
            await pilot.press("escape")
            await until_shown(pilot, RunsScreen)
            assert app.screen is runs


def test_a_screenshot_is_an_svg(tmp_path, writer):
    writer.close(0)
    out = tmp_path / "out.svg"
    take_screenshot(open_app(writer.run), str(out), (100, 30))
    assert out.read_text().startswith("<svg")


async def test_what_is_read_while_the_screen_closes_is_dropped(writer):
    async with opened(writer.run) as (app, _):
        screen = app.screen
    screen.run_watch.take(Backfill(share=0.5))
    screen._draw_late()


def test_a_closed_app_leaves_no_thread(tmp_path, writer):
    writer.close(0)
    before = threading.active_count()
    take_screenshot(open_app(writer.run), str(tmp_path / "o.svg"), (80, 24))
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
    assert read_manifest(writer.run).exit_code == 0
