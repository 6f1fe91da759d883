"""Charts that share one view: how many of them there is room for, and what keys and mouse make of the view."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.reactive import var

from qig_tui.view import Ends, View
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

    def pages(self, names: Sequence[str], lead: str) -> list[list[str]]:
        """The metrics of the charts, page by page, `lead` before all others; the last page is a whole one too. The
        first one is on all of them where it has a large chart.
        """
        if lead in names:
            names = [lead, *(name for name in names if name != lead)]
        if not names:
            return []
        kept, rest = (names[:1], names[1:]) if self.has_large else ([], names)
        room = self.charts - len(kept)
        last = max(len(rest) - room, 0)
        return [[*kept, *rest[at : at + room]] for at in [*range(0, last, room), last]]


def arrangement(layout: str, width: int, height: int, metrics: int) -> Arrangement:
    """What of a layout fits into so many cells, and is needed for so many metrics."""
    if layout == "grid":
        columns = min(max((width + 2) // _TILE[0], 1), 4)
        rows = min(max(height // _TILE[1], 1), _MOST // columns, 3, max(-(-metrics // columns), 1))
        return Arrangement(columns * rows, columns, rows, has_large=False)
    if layout == "single" or width < _MINIS_FROM[0] or height < _MINIS_FROM[1]:
        return Arrangement(1, 1, 1, has_large=False)
    return Arrangement(1 + _MINIS, _MINIS, 2, has_large=True)


class Deck(Container):
    """Owns the view. What the charts draw subclasses say, and what happens when the view is another."""

    DEFAULT_CSS = """
    Deck { layout: grid; grid-gutter: 0 2; height: 1fr; width: 1fr; }
    """
    LARGE: ClassVar[str] = "3fr 2fr"
    """How high a large chart is, and the small ones."""
    view = var(View(), init=False)

    def __init__(self, view: View, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lead = ""
        """The metric of the first chart; empty: the first there is."""
        self._placed: Arrangement | None = None
        self.set_reactive(Deck.view, view)

    @abstractmethod
    def chart(self, place: int) -> LineChart:
        """A new one, for the place with this number."""

    @abstractmethod
    def draw(self) -> None:
        """Draw what is known now."""

    @abstractmethod
    def ends(self) -> Ends:
        """First and last step of what was read."""

    @abstractmethod
    def metrics(self) -> Sequence[str]:
        """Those that may have a chart, each by its name."""

    @abstractmethod
    def lead(self, metric: str) -> None:
        """Put a metric into the first chart."""

    def compose(self) -> ComposeResult:
        for i in range(1 + _MINIS):
            yield self.chart(i)

    def place(self, found: Arrangement) -> Arrangement:
        """Arrange the charts so, where they are not."""
        if found != self._placed:
            self._placed = found
            self.styles.grid_size_columns, self.styles.grid_size_rows = found.columns, found.rows
            self.styles.grid_rows = self.LARGE if found.has_large else "1fr"
            charts = [chart for chart in self.children if isinstance(chart, LineChart)]
            more = [self.chart(i) for i in range(len(charts), found.charts)]
            if more:
                # Only where they are wanted: each costs a start its share of the style sheets.
                self.mount_all(more)
                self.call_after_refresh(self.draw)
            for i, chart in enumerate([*charts, *more]):
                chart.styles.column_span = found.columns if found.has_large and i == 0 else 1
                chart.display = i < found.charts
        return found

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

    def action_lead(self, direction: int) -> None:
        names = self.metrics()
        if names:
            at = names.index(self._lead) if self._lead in names else 0
            self.lead(names[(at + direction) % len(names)])

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
