"""Every chart of a run, as many as there is room for, on one axis of steps and with one cursor."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.message import Message
from textual.reactive import var

from qig_tui.charting import ChartData, chart_metrics, chart_of
from qig_tui.memory import Memory
from qig_tui.metrics_filter import metrics_filter
from qig_tui.picture import RunPicture
from qig_tui.view import Ends, View, smoothing_named
from qig_tui.widgets.chart import LineChart

LAYOUTS = ("focus", "grid", "single")
"""One large chart over a row of small ones; all alike; one alone."""
_MOST = 12
_MINIS = 3
_MINIS_FROM = (56, 10)
"""Cells and rows from which on small charts are worth their place."""
_TILE = (44, 8)
"""Cells and rows that a chart among others wants."""


@dataclass(frozen=True)
class Arrangement:
    """How many charts stand in how many columns and rows; a large first one spans a row of its own."""

    charts: int
    columns: int
    rows: int
    has_large: bool


def arrangement(layout: str, width: int, height: int, metrics: int) -> Arrangement:
    """What of a layout fits into so many cells, and is needed for so many metrics."""
    if layout == "grid":
        columns = min(max((width + 2) // _TILE[0], 1), 4)
        rows = min(max(height // _TILE[1], 1), _MOST // columns, 3, max(-(-metrics // columns), 1))
        return Arrangement(columns * rows, columns, rows, has_large=False)
    if layout == "single" or width < _MINIS_FROM[0] or height < _MINIS_FROM[1]:
        return Arrangement(1, 1, 1, has_large=False)
    return Arrangement(1 + _MINIS, _MINIS, 2, has_large=True)


class ChartDeck(Container):
    """Owns the view that its charts share. Draws the picture when told to, and whenever the view is another."""

    KEYS: ClassVar[tuple[Binding, ...]] = (
        Binding("m", "turn(1)", "metrics", tooltip="The next metrics in the charts"),
        Binding("M", "turn(-1)", "metrics back", tooltip="The metrics before them"),
        Binding("n", "lead(1)", "next metric", tooltip="The next metric in the first, large chart"),
        Binding("N", "lead(-1)", "metric before", tooltip="The metric before it in the first chart"),
        Binding("g", "layout", "layout", tooltip="One large chart and small ones, all alike, or one alone"),
        Binding("l", "toggle_log", "log", tooltip="Logarithmic values"),
        Binding("y", "y", "y range", tooltip="Values: what is drawn, with 0 as well, or all that are possible"),
        Binding(
            "s", "smooth", "smooth", tooltip="Smooth: averages of 10, 50, 250, medians of 9, 51, or not; raw stays"
        ),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+", tooltip="Half as many steps"),
        Binding("minus", "zoom(2.0)", "zoom out", key_display="-", tooltip="Twice as many steps"),
        Binding("left", "pan(-1)", "earlier", tooltip="Earlier steps; moves the cursor where there is one"),
        Binding("right", "pan(1)", "later", tooltip="Later steps; moves the cursor where there is one"),
        Binding("0", "whole", "whole run", tooltip="All steps, following the newest; no cursor"),
        Binding("x", "cursor", "cursor", tooltip="Read every chart and the basin at one step; again to put it away"),
    )
    """For the screen to bind and to hand back: a widget's own BINDINGS work only while the focus is within it."""
    DEFAULT_CSS = """
    ChartDeck { layout: grid; grid-gutter: 0 2; height: 1fr; width: 1fr; }
    """
    view = var(View(), init=False)
    page = var(0, init=False)
    """Which of the metrics after the first one."""

    class Looked(Message):
        """Other steps are in sight, or the cursor stands elsewhere."""

        def __init__(self, view: View) -> None:
            super().__init__()
            self.view = view

    def __init__(self, shown: Callable[[], RunPicture], memory: Memory, *, id: str | None = None) -> None:
        """Args: shown: the run as it is to be drawn: now, or at the moment that somebody went back to."""
        super().__init__(id=id)
        self._shown_now = shown
        self._memory = memory
        self._fits = metrics_filter("")
        self._lead = ""
        """The metric of the first chart; empty: the first there is."""
        self._placed: Arrangement | None = None
        self.set_reactive(ChartDeck.view, View(smoothing=smoothing_named(memory.chosen.smoothing)))

    @property
    def _picture(self) -> RunPicture:
        return self._shown_now()

    def compose(self) -> ComposeResult:
        for i in range(1 + _MINIS):
            yield LineChart(id=f"chart-{i}")

    @property
    def layout_name(self) -> str:
        chosen = self._memory.chosen.layout
        return chosen if chosen in LAYOUTS else LAYOUTS[0]

    def _arrange(self) -> Arrangement:
        found = arrangement(self.layout_name, *self.size, len(self._picture.history.metrics))
        if found != self._placed:
            self._placed = found
            self.styles.grid_size_columns, self.styles.grid_size_rows = found.columns, found.rows
            self.styles.grid_rows = "3fr 2fr" if found.has_large else "1fr"
            charts = list(self.query(LineChart))
            more = [LineChart(id=f"chart-{i}") for i in range(len(charts), found.charts)]
            if more:
                # Only where they are wanted: each costs a start its share of the style sheets.
                self.mount_all(more)
                self.call_after_refresh(self.draw)
            for i, chart in enumerate([*charts, *more]):
                chart.styles.column_span = found.columns if found.has_large and i == 0 else 1
                chart.display = i < found.charts
        return found

    def draw(self) -> None:
        """Draw the picture as it is now; a chart that the size hides is left alone."""
        if not self.size:
            return
        # As it was then depends on nothing that was looked at before.
        anew = self._picture.moment is not None
        for place, (chart, data) in enumerate(zip(self.query(LineChart), self._shown(), strict=False)):
            chart.show(data if data is None or place == 0 else replace(data, regimes=None), self.view, anew=anew)

    def on_resize(self) -> None:
        self._arrange()

    def watch_view(self) -> None:
        self.draw()
        self.post_message(self.Looked(self.view))

    def watch_page(self) -> None:
        self.draw()

    def names(self) -> list[str]:
        """The metrics that have a chart: the pinned ones, then the others, as far as they fit the filter."""
        chosen = self._memory.chosen
        known = chart_metrics(self._picture, self._arrange().charts)
        known = [name for name in chosen.pinned if name in known] + [n for n in known if n not in chosen.pinned]
        picture = self._picture
        return [
            name
            for name in known
            if name not in chosen.hidden and self._fits(f"{name} {picture.label(name)} {picture.title(name)}")
        ]

    def filter(self, text: str) -> str:
        """Show only the metrics that are meant; how many those are, in words."""
        self._fits = metrics_filter(text)
        self._lead, self.page = "", 0
        self.draw()
        if not text:
            return ""
        return f"{len(self.names())} of {len(chart_metrics(self._picture))} metrics"

    def lead(self, metric: str) -> None:
        """Put a metric into the first chart."""
        self._lead = metric
        self.draw()

    def rearranged(self) -> None:
        """Which metrics are shown, or how, was chosen anew."""
        self._placed = None
        self._arrange()
        self.call_after_refresh(self.draw)

    def _pages(self) -> list[list[str]]:
        """The metrics of the charts, page by page; the last page is a whole one too. The first one is on all of them
        where it has a large chart.
        """
        names, place = self.names(), self._arrange()
        if self._lead in names:
            names = [self._lead, *(name for name in names if name != self._lead)]
        if not names:
            return []
        kept, rest = (names[:1], names[1:]) if place.has_large else ([], names)
        room = place.charts - len(kept)
        last = max(len(rest) - room, 0)
        return [[*kept, *rest[at : at + room]] for at in [*range(0, last, room), last]]

    def _shown(self) -> list[ChartData | None]:
        """What the charts in sight draw; nothing in those for which there is no metric."""
        pages, count = self._pages(), self._arrange().charts
        names = pages[min(self.page, len(pages) - 1)] if pages else []
        found: list[ChartData | None] = [
            chart_of(self._picture, name, self.view, with_regimes=i == 0) for i, name in enumerate(names)
        ]
        return found + [None] * (count - len(found))

    def ends(self) -> Ends:
        """First and last step that were read."""
        return self._picture.history.ends

    @on(LineChart.Zoomed)
    def zoom_around(self, event: LineChart.Zoomed) -> None:
        event.stop()
        self.view = self.view.zoomed(event.factor, self.ends(), around=event.step)

    @on(LineChart.Pointed)
    def point_at(self, event: LineChart.Pointed) -> None:
        event.stop()
        self.view = self.view.pointed(event.step, self.ends())

    @on(LineChart.Dragged)
    def drag(self, event: LineChart.Dragged) -> None:
        event.stop()
        self.view = self.view.dragged(event.steps, self.ends())

    @on(LineChart.Chosen)
    def enlarge(self, event: LineChart.Chosen) -> None:
        event.stop()
        self.lead(event.metric)

    def action_turn(self, direction: int) -> None:
        self.page = (self.page + direction) % max(len(self._pages()), 1)

    def action_lead(self, direction: int) -> None:
        names = self.names()
        if names:
            at = names.index(self._lead) if self._lead in names else 0
            self.lead(names[(at + direction) % len(names)])

    def action_layout(self) -> None:
        at = LAYOUTS.index(self.layout_name)
        self._memory.change(layout=LAYOUTS[(at + 1) % len(LAYOUTS)])
        self.page = 0
        self.rearranged()

    def action_zoom(self, factor: float) -> None:
        self.view = self.view.zoomed(factor, self.ends())

    def action_pan(self, direction: int) -> None:
        self.view = self.view.moved(direction, self.ends())

    def action_whole(self) -> None:
        self.view = replace(self.view, first=None, last=None, cursor=None)

    def action_cursor(self) -> None:
        self.view = replace(self.view, cursor=self.view.shown(self.ends())[1] if self.view.cursor is None else None)

    def action_toggle_log(self) -> None:
        self.view = replace(self.view, log=not self.view.log)

    def action_y(self) -> None:
        self.view = self.view.other_y()

    def action_smooth(self) -> None:
        self.view = self.view.smoother()
        self._memory.change(smoothing=self.view.smoothing.name)
