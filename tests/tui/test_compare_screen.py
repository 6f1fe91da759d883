"""The comparison on the screen: opened from the list of runs, drawn, turned, and read off."""

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Parent
from qig_tui.compare.comparing import Comparison
from qig_tui.screens.compare import CompareScreen
from qig_tui.screens.difference import DifferenceScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.runs import RunsScreen
from qig_tui.screens.safety import SafetyScreen
from qig_tui.widgets.compare_deck import CompareDeck
from qig_tui.widgets.compare_panel import ComparePanel
from qig_tui.widgets.overlay import OverlayChart
from qig_tui.widgets.runs_table import BarLine
from tests.tui.runs import log_steps, open_run
from tests.tui.screens import opened, screen_text, text_of, told, until, until_shown


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr("qig_tui.sources.several.POLL_S", 0.02)


def ended(root, run_id, steps=100, *, first=0, code=0, **manifest):
    with open_run(root, run_id, **({"name": f"run {run_id}"} | manifest)) as writer:
        log_steps(writer, first, first + steps)
        writer.close(code)
    return writer.run


@asynccontextmanager
async def comparing(root, size=(160, 48), *, marks=None):
    """The comparison of the first runs by id, all of them where no number is said, once all has been drawn."""
    async with opened(root, size) as (app, pilot):
        runs = app.screen
        runs.marked = sorted(row.id for row in runs._rows)[:marks]
        await pilot.press("5")
        await until_shown(pilot, CompareScreen)
        await until(pilot, lambda: app.screen.is_drawn)
        yield app, pilot


@pytest.fixture
def pair(tmp_path):
    """Two runs that have ended, of 100 and of 60 steps."""
    ended(tmp_path, "r1", 100, config={"optimizer": {"lr": 1e-3}, "seed": 1})
    ended(tmp_path, "r2", 60, code=75, config={"optimizer": {"lr": 3e-3}, "seed": 1})
    return tmp_path


def panel(app):
    return text_of(app.screen.query_one(ComparePanel))


def chart(app):
    return app.screen.query(OverlayChart).first()


def title(app):
    return text_of(app.screen.query_one("#compare-title", BarLine))


def drawn_tones(app):
    """Of the first two runs, the tones in which something is drawn."""
    drawn = chart(app)
    colors = {s.style.color for y in range(drawn.size.height) for s in drawn.render_line(y) if s.style is not None}
    return {tone for tone in ("run0", "run0-dim", "run1", "run1-dim") if drawn.tone(tone).color in colors}


def tones_of(app, letter):
    """The colours in which a letter stands, in the legend and beside the lines."""
    widgets = [app.screen.query_one(ComparePanel), chart(app)]
    strips = [widget.render_line(y) for widget in widgets for y in range(widget.size.height)]
    found = [s for strip in strips for s in strip if f"{letter} " in s.text and len(s.text.strip()) < 10]
    return {segment.style.color for segment in found if segment.style is not None}


async def test_marked_runs_lie_over_one_another(pair):
    async with comparing(pair) as (app, pilot):
        assert "2 runs compared" in title(app)
        rows = panel(app).splitlines()
        assert rows[0].startswith("RUNS 2   config 1   lineage")
        assert [part in rows[2] for part in ("━ A", "run r1", "■ EXITED 0", "99")] == [True] * 4
        assert [part in rows[3] for part in ("━ B", "run r2", "■ EXITED 75", "59")] == [True] * 4
        picture = text_of(chart(app))
        assert "A 0." in picture
        assert "B 0." in picture
        assert "by step" in picture
        await pilot.press("escape")
        await until_shown(pilot, RunsScreen)
        assert app.screen.marked == ["r1", "r2"]


async def test_with_no_run_marked_it_is_said_how_to_mark(pair):
    async with opened(pair) as (app, pilot):
        assert "5 compare" in text_of(app.screen.query_one("#runs-keys", BarLine))
        await pilot.press("c")
        await until(pilot, lambda: any("space" in note for note in told(app)))
        assert isinstance(app.screen, RunsScreen)


async def test_more_than_eight_are_cut_and_it_is_said(tmp_path):
    for i in range(10):
        ended(tmp_path, f"r{i}", 3)
    async with comparing(tmp_path) as (app, _):
        assert len(app.screen.comparison.runs) == 8
        assert "2 more runs were marked: eight are compared" in title(app)


async def test_a_hidden_run_comes_back_in_its_colour_and_order_never_changes_it(pair):
    async with comparing(pair) as (app, pilot):
        before = tones_of(app, "A"), tones_of(app, "B")
        assert len(before[0]) == len(before[1]) == 1
        assert before[0] != before[1]
        await pilot.press("space")
        assert "1 hidden" in title(app)
        assert "╌ A" in panel(app)
        assert "A 0." not in text_of(chart(app))
        assert tones_of(app, "B") == before[1]
        await pilot.press("space", "o", "O")
        assert [line[4] for line in panel(app).splitlines()[2:4]] == ["B", "A"]
        assert (tones_of(app, "A"), tones_of(app, "B")) == before
        await pilot.press("escape")
        await until_shown(pilot, RunsScreen)
        app.screen.marked = ["r2"]
        await pilot.press("5")
        await until_shown(pilot, CompareScreen)
        await until(pilot, lambda: app.screen.is_drawn)
        assert "━ B" in panel(app)
        assert tones_of(app, "B") == before[1]


async def test_the_table_is_sorted_by_the_columns_and_names_the_best(tmp_path):
    specs = [{"name": "loss", "unit": "nats", "better": "lower"}]
    for run_id, losses in (("a", [3.0, 1.0, float("nan"), 2.0]), ("b", [4.0, 0.5, float("-inf"), 3.0])):
        with open_run(tmp_path, run_id, name=run_id, metrics=specs) as writer:
            for step, loss in enumerate(losses):
                writer.telemetry.log(10 * step, {"loss": loss})
            writer.close(0)
    async with comparing(tmp_path) as (app, pilot):
        rows = panel(app).splitlines()
        assert rows[1].split() == ["run", "state", "step", "loss", "best", "at", "step"]
        assert rows[2].split()[-3:] == ["2.000", "1.000", "10"]
        await pilot.press(*"ooooo")
        assert "best ▲" in panel(app)
        ordered = [run.run.id for run in app.screen._runs_page.ordered()]
        assert ordered == ["b", "a"]
        await pilot.press("O")
        assert [run.run.id for run in app.screen._runs_page.ordered()] == ["a", "b"]


async def test_d_goes_through_the_axes_and_says_who_is_left_out(tmp_path):
    with open_run(tmp_path, "a", name="counts") as writer:
        for step in range(20):
            writer.telemetry.log(step, {"loss": 1.0, "tokens": 1000.0 * step})
        writer.close(0)
    ended(tmp_path, "b")
    async with comparing(tmp_path) as (app, pilot):
        await pilot.press("plus", "d")
        assert "by training time, pauses" in text_of(chart(app))
        assert app.screen.query_one(CompareDeck).view.first is None
        await pilot.press("d")
        assert "by tokens" in text_of(chart(app))
        assert "left out: B run b, which records no tokens" in title(app)
        await pilot.press("d")
        assert "by step" in text_of(chart(app))
        assert "left out" not in title(app)


async def test_a_live_run_moves_and_the_zoom_stays(tmp_path):
    ended(tmp_path, "a", 200)
    with open_run(tmp_path, "b", name="live") as writer:
        log_steps(writer, 0, 50)
        async with comparing(tmp_path) as (app, pilot):
            deck = app.screen.query_one(CompareDeck)
            await pilot.press("plus", "plus", "left", "s")
            view = deck.view
            assert view.first is not None
            log_steps(writer, 50, 120)
            await until(pilot, lambda: app.screen.comparison.runs[1].history.step == 119)
            await until(pilot, lambda: "119" in panel(app))
            assert deck.view == view
            # On a busy machine a step may take long.
            assert "●" in panel(app) or "◐" in panel(app)


async def test_another_screen_of_the_run_it_was_opened_from_is_a_key_away(pair):
    async with opened(RunDir(pair / "r1")) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, SafetyScreen))
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))


async def test_a_run_that_cannot_be_read_is_listed_with_its_reason(pair):
    (pair / "r1" / "run.json").write_text("{")
    async with comparing(pair) as (app, pilot):
        row = panel(app).splitlines()[2]
        assert "━ A" in row
        assert "✖ 'run.json' is not a readable manifest" in row
        assert "B 0." in text_of(chart(app))
        await pilot.press("tab")
        assert "it takes two runs that can be read" in panel(app)


async def test_the_cursor_reads_every_run_at_one_place(pair):
    async with comparing(pair) as (app, pilot):
        await pilot.press("x")
        assert "│ at 99" in title(app)
        header, first, second = panel(app).splitlines()[1:4]
        at = header.index("│ there")
        assert "there" in header
        assert first[at : at + 8].strip().startswith("0.")
        assert second[at : at + 8].strip() == "–"
        deck = app.screen.query_one(CompareDeck)
        deck.view = replace(deck.view, cursor=50)
        await until(pilot, lambda: "0." in panel(app).splitlines()[3][at : at + 8])


async def test_the_differences_of_configuration_are_told_and_opened_in_full(pair):
    async with comparing(pair) as (app, pilot):
        await pilot.press("tab")
        rows = panel(app).splitlines()
        assert "runs 2   CONFIG 1   lineage" in rows[0]
        assert rows[2].split() == ["▸", "optimizer.lr", "0.001", "0.003"]
        assert "seed" not in panel(app)
        await pilot.press("enter")
        await until_shown(pilot, DifferenceScreen)
        assert "B run r2" in screen_text(app)
        await pilot.press("escape")
        await until_shown(pilot, CompareScreen)


async def test_forks_and_rewinds_are_a_tree(tmp_path):
    with open_run(tmp_path, "a", name="alpha") as writer:
        log_steps(writer, 0, 50)
        for step in range(50, 70):
            writer.telemetry.log(step, {"phi": 0.65})
        writer.event("soft_reset", step=69, from_step=69, to_step=50, checkpoint="step-00000050")
        writer.event("restored", step=50, how="soft_reset", checkpoint="step-00000050")
        log_steps(writer, 50, 100)
        writer.close(0)
    with open_run(tmp_path, "b", name="bravo", parent=Parent("a", "step-00000060")) as writer:
        writer.event("restored", step=60, how="resume", checkpoint="step-00000060")
        log_steps(writer, 60, 90)
        writer.close(0)
    async with comparing(tmp_path) as (app, pilot):
        assert "run0-dim" in drawn_tones(app)
        await pilot.press("shift+tab")
        text = panel(app)
        assert "━ A alpha  0 → 99  ■ EXITED 0" in text
        assert "│  ↩ 69 → 50  soft reset, step-00000050" in text
        assert "└─ ━ B bravo  fork at 60 → 89  ■ EXITED 0  step-00000060" in text
        assert "┳" in text
        assert "┗" in text


async def test_enter_opens_the_run_under_the_cursor(pair):
    async with comparing(pair) as (app, pilot):
        await pilot.press("down", "enter")
        await until_shown(pilot, RunScreen)
        assert app.screen.run_dir.id == "r2"
        await pilot.press("escape")
        await until_shown(pilot, CompareScreen)


async def test_layouts_metrics_and_modes_have_their_keys(pair):
    async with comparing(pair) as (app, pilot):
        assert text_of(chart(app)).startswith("Φ")
        await pilot.press("n")
        assert text_of(chart(app)).startswith("κ")
        await pilot.press("N", "l", "y", "s")
        assert "ema 10  log  y zero" in text_of(chart(app))
        await pilot.press("g")
        await until(pilot, lambda: sum(c.display for c in app.screen.query(OverlayChart)) == 6)
        await pilot.press("g")
        await until(pilot, lambda: sum(c.display for c in app.screen.query(OverlayChart)) == 1)


async def test_without_colours_each_line_bears_its_letter(pair, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with comparing(pair) as (app, _):
        columns = [line[7:-9] for line in text_of(chart(app)).splitlines()[1:-1]]
        assert any("A" in line for line in columns)
        assert any("B" in line for line in columns)


@pytest.mark.parametrize("size", [(160, 48), (80, 24), (20, 5), (1, 1)])
async def test_no_size_and_no_name_breaks_the_screen(tmp_path, size):
    evil = "x\x1b[31m[red]\u202e\u200d漢字" * 500
    for i, value in enumerate((float("nan"), float("inf"), 1e308, -1e308)):
        config = {evil: evil, "n": i, "deep": {"list": [evil, i]}}
        with open_run(tmp_path, f"r{i}", name=evil, config=config, program=evil) as writer:
            writer.telemetry.log(0, {"loss": value, evil: 1.0, "tokens": value})
            writer.telemetry.log(1, {"loss": 1.0, evil: value, "tokens": 5.0})
            writer.event("restored", step=0, how=evil, checkpoint=evil)
            writer.telemetry.log(0, {"loss": value})
            writer.close(0)
    async with comparing(tmp_path, size) as (app, pilot):
        for key in ("d", "d", "l", "g", "x", "tab", "pagedown", "tab", "g", "s", "tab", "space", "o", "n"):
            await pilot.press(key)
            strips = app.screen._compositor.render_strips()
            assert all(strip.cell_length == size[0] for strip in strips)
            assert {"\x1b", "\u202e", "\u200d"}.isdisjoint(screen_text(app))


def test_a_comparison_of_nothing_has_no_ends():
    assert Comparison([], []).ends() == (0, 1)
