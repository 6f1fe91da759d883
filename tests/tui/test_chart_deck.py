import pytest
from textual.events import MouseDown, MouseMove, MouseUp
from textual.widgets import Input

from qig_core.rundir.schema import Sample
from qig_tui.memory import Memory
from qig_tui.metrics_filter import metrics_filter
from qig_tui.screens.metrics import MetricsScreen
from qig_tui.screens.run import RunScreen
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.deck import LAYOUTS, arrangement
from tests.tui.runs import log_steps, open_run, set_condition
from tests.tui.screens import opened, screen_text, text_of, until, until_shown


def charts_of(app):
    return [chart for chart in app.screen.query(LineChart) if chart.region and chart._data is not None]


def names_of(app):
    return [chart._data.metric for chart in charts_of(app)]


def deck_of(app):
    return app.screen.query_one(ChartDeck)


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (56, 10), (78, 11), (100, 36), (116, 28), (240, 80)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metrics", [0, 1, 5, 30])
def test_an_arrangement_has_no_more_charts_than_places(layout, size, metrics):
    found = arrangement(layout, *size, metrics)
    assert 1 <= found.charts <= 12
    assert found.charts == (1 + found.columns if found.has_large else found.columns * found.rows)


def test_six_charts_fit_beside_the_panels_of_the_wide_screen():
    assert arrangement("grid", 100, 36, 12).charts == 6


async def test_the_layouts_take_turns_and_the_chosen_one_is_remembered(tmp_path):
    memory = Memory(tmp_path / "state.json")
    with open_run(tmp_path / "runs") as writer:
        for step in range(50):
            writer.telemetry.log(step, {f"m{i}": float(i + step) for i in range(9)})
        async with opened(writer.run, memory=memory) as (app, pilot):
            assert len(charts_of(app)) == 4
            await pilot.press("g")
            await until(pilot, lambda: len(charts_of(app)) == 6)
            assert names_of(app) == [f"m{i}" for i in range(6)]
            await pilot.press("m")
            assert names_of(app) == [f"m{i}" for i in range(3, 9)]
            await pilot.press("g")
            await until(pilot, lambda: len(charts_of(app)) == 1)
        async with opened(writer.run, memory=Memory(tmp_path / "state.json")) as (app, pilot):
            assert deck_of(app).layout_name == "single"
            await pilot.press("g")
            await until(pilot, lambda: len(charts_of(app)) == 4)


async def test_any_metric_can_lead(writer):
    async with opened(writer.run) as (app, pilot):
        assert names_of(app) == ["phi", "kappa", "loss", "drift_rolling"]
        await pilot.press("n")
        assert names_of(app) == ["kappa", "phi", "loss", "drift_rolling"]
        await pilot.press("N", "N")
        assert names_of(app)[0] == "drift_rolling"
        await pilot.double_click(charts_of(app)[2], offset=(15, 3))
        await until(pilot, lambda: names_of(app)[0] == "kappa")
        app.screen.show_metric("loss")
        assert names_of(app)[0] == "loss"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("grad*", ["grad_norm"]),
        ("*_norm", ["grad_norm"]),
        ("gra", ["phi", "grad_norm"]),
        ("p?i", ["phi"]),
        ("l.*s", ["loss"]),
    ],
)
def test_a_star_means_any_letters_of_one_word(text, names):
    known = {"phi": "phi Φ integration", "grad_norm": "grad_norm gradient norm", "loss": "loss loss"}
    fits = metrics_filter(text)
    assert [name for name, described in known.items() if fits(described)] == names


async def test_a_filter_shows_only_the_metrics_that_are_meant(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("slash", *"lo")
        await until(pilot, lambda: names_of(app) == ["loss"])
        assert "1 of 4 metrics" in screen_text(app)
        await pilot.press("enter")
        assert app.focused is None
        await pilot.press("s")
        assert "ema 10" in screen_text(app)
        await pilot.press("slash", "backspace", "backspace", *"-loss")
        await until(pilot, lambda: names_of(app) == ["phi", "kappa", "drift_rolling"])
        await pilot.press("escape")
        await until(pilot, lambda: len(names_of(app)) == 4)
        assert not app.screen.query_one("#metrics-filter").has_class("-open")
        await pilot.press("slash", *"[(")
        assert app.screen.query_one("#metrics-filter Input", Input).value == "[("
        assert isinstance(app.screen, RunScreen)


async def test_metrics_are_pinned_hidden_and_ordered_and_that_is_remembered(tmp_path):
    memory = Memory(tmp_path / "state.json")
    with open_run(tmp_path / "runs") as writer:
        log_steps(writer, 0, 40)
        async with opened(writer.run, memory=memory) as (app, pilot):
            await pilot.press("o")
            await until_shown(pilot, MetricsScreen)
            assert "✓ shown" in screen_text(app)
            # loss in front, before it drift; kappa hidden.
            await pilot.press("down", "down", "p", "down", "down", "down", "p")
            await until(pilot, lambda: screen_text(app).count("★ pinned") == 2)
            await pilot.press("K", "down", "down", "down", "space")
            await until(pilot, lambda: "– hidden" in screen_text(app))
            await pilot.press("k")
            await until_shown(pilot, RunScreen)
            await until(pilot, lambda: names_of(app) == ["drift_rolling", "loss", "phi"])
        assert memory.chosen.pinned == ("drift_rolling", "loss")
        async with opened(writer.run, memory=Memory(tmp_path / "state.json")) as (app, pilot):
            assert names_of(app) == ["drift_rolling", "loss", "phi"]
            await pilot.press("o")
            await until_shown(pilot, MetricsScreen)
            await pilot.press("a", "J", "escape")
            await until_shown(pilot, RunScreen)
            assert names_of(app) == ["drift_rolling", "loss", "phi"]
            await pilot.press("o")
            await until_shown(pilot, MetricsScreen)
            await pilot.press("a", "down", "enter")
            await until_shown(pilot, RunScreen)
            await until(pilot, lambda: names_of(app) == ["kappa", "phi", "loss", "drift_rolling"])


async def test_the_values_can_be_shown_from_zero_and_as_far_as_they_are_possible(writer):
    async with opened(writer.run) as (app, pilot):
        chart = charts_of(app)[0]
        assert chart._held.low > 0.5
        await pilot.press("y")
        assert chart._held.low == 0
        assert "y zero" in text_of(chart)
        await pilot.press("y")
        assert (chart._held.low, chart._held.high) == (0, 1)
        await pilot.press("y")
        assert chart._held.low > 0.5


async def test_a_chart_is_pulled_with_the_mouse(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("plus", "plus")
        deck, chart = deck_of(app), charts_of(app)[0]
        before = deck.view.shown(deck.ends())
        await pilot._post_mouse_events([MouseDown], chart, offset=(20, 5), button=1)
        await pilot._post_mouse_events([MouseMove], chart, offset=(50, 5), button=1)
        await pilot._post_mouse_events([MouseUp], chart, offset=(50, 5), button=1)
        await until(pilot, lambda: deck.view.shown(deck.ends())[0] < before[0])
        first, last = deck.view.shown(deck.ends())
        assert last - first == before[1] - before[0]
        assert deck.view.cursor is None


async def test_the_limit_in_force_is_a_line_with_its_name(writer):
    set_condition(writer, "ok", limit=0.55)
    async with opened(writer.run) as (app, pilot):
        await pilot.press("n", "n", "n")
        await until(pilot, lambda: "≤ 0.55 drift" in text_of(charts_of(app)[0]))


async def test_the_regimes_stand_below_the_first_chart(tmp_path):
    with open_run(tmp_path) as writer:
        for step in range(200):
            writer.telemetry.log(step, {"phi": 0.5}, regime="linear" if step < 100 else "geometric")
        async with opened(writer.run) as (app, _):
            ribbon = text_of(charts_of(app)[0]).splitlines()[-2]
            assert ribbon.index("╷linear") < 20 < ribbon.index("╷geometric")


async def test_zooming_into_a_long_run_shows_every_point_of_it(tmp_path):
    with open_run(tmp_path) as writer:
        for step in range(40_000):
            writer.telemetry.log(step, {"phi": (step * 7919 % 1000) / 1000})
        async with opened(writer.run) as (app, pilot):
            chart, screen = charts_of(app)[0], app.screen
            assert "extremes kept" in text_of(chart)
            await pilot.press(*["plus"] * 6)
            await until(pilot, lambda: screen.picture.history.detail is not None)
            first, last = deck_of(app).view.shown(deck_of(app).ends())
            await until(pilot, lambda: chart.drawn == last - first + 2)
            assert f"every one of {last - first + 2} points" in text_of(chart)
            log = [Sample(40_000 + i, 40_000 + i, 1.0, m={"phi": 0.5}) for i in range(5)]
            for sample in log:
                writer.telemetry.log(sample.step, sample.m)
            await until(pilot, lambda: chart.drawn == last - first + 7)


async def test_the_basin_is_that_of_the_cursor(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 2000)
        async with opened(writer.run) as (app, pilot):
            panel = app.screen.query_one(BasinPanel)
            heading = panel.children[0]
            assert "BASIN 1 990" in text_of(heading)
            await pilot.press("x", "left", "left", "left")
            cursor = deck_of(app).view.cursor
            await until(pilot, lambda: f"BASIN 1 {cursor // 10 * 10 - 1000}" in text_of(heading))
            log_steps(writer, 2000, 2020)
            await until(pilot, lambda: app.screen.picture.history.read == 2020)
            assert f"BASIN 1 {cursor // 10 * 10 - 1000}" in text_of(heading)
            await pilot.press("0")
            await until(pilot, lambda: "BASIN 2 010" in text_of(heading))
