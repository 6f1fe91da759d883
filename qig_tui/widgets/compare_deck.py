"""Every chart of a comparison, as many as there is room for, on one axis and with one cursor."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.message import Message
from textual.reactive import var

from qig_tui.compare.comparing import Comparison
from qig_tui.text import unit_text
from qig_tui.view import View, smoothing_named
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.chart_deck import LAYOUTS, Arrangement, ChartDeck, arrangement
from qig_tui.widgets.overlay import OverlayChart, OverlayData

_MOST = 12
_SMALL_FROM = 20
"""Rows from which on small charts beneath a large one are worth their place."""
_TOOLTIPS = {
    "zoom(0.5)": "Half as much of the axis",
    "zoom(2.0)": "Twice as much of the axis",
    "pan(-1)": "Earlier; moves the cursor where there is one",
    "pan(1)": "Later; moves the cursor where there is one",
    "whole": "All of every run, following the newest; no cursor",
    "cursor": "Read every run at one place; again to put it away",
}


class CompareDeck(Container):
    """Owns the view that its charts share. Draws the comparison when told to, and whenever the view is another."""

    KEYS: ClassVar[tuple[Binding, ...]] = tuple(
        replace(key, tooltip=_TOOLTIPS.get(key.action, key.tooltip)) for key in ChartDeck.KEYS
    )
    """Those of the charts of one run, for the screen to bind and to hand back."""
    DEFAULT_CSS = """
    CompareDeck { layout: grid; grid-gutter: 0 2; height: 1fr; width: 1fr; }
    """
    view = var(View(), init=False)

    class Looked(Message):
        """Something else is in sight, another metric leads, or the cursor stands elsewhere."""

    def __init__(self, comparison: Comparison, smoothing: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._comparison = comparison
        self._layout = LAYOUTS[0]
        self._lead = ""
        self._page = 0
        self._placed: Arrangement | None = None
        self._top: int | None = None
        self.set_reactive(CompareDeck.view, View(smoothing=smoothing_named(smoothing)))

    def compose(self) -> ComposeResult:
        for i in range(4):
            yield OverlayChart(id=f"overlay-{i}")

    def _arrange(self) -> Arrangement:
        width, height = self.size
        layout = "single" if self._layout == LAYOUTS[0] and height < _SMALL_FROM else self._layout
        found = arrangement(layout, width, height, len(self._comparison.metrics()))
        if found != self._placed:
            self._placed = found
            self.styles.grid_size_columns, self.styles.grid_size_rows = found.columns, found.rows
            self.styles.grid_rows = "2fr 1fr" if found.has_large else "1fr"
            charts = list(self.query(OverlayChart))
            more = [OverlayChart(id=f"overlay-{i}") for i in range(len(charts), found.charts)]
            if more:
                self.mount_all(more)
                self.call_after_refresh(self.draw)
            for i, chart in enumerate([*charts, *more]):
                chart.styles.column_span = found.columns if found.has_large and i == 0 else 1
                chart.display = i < found.charts
        return found

    def draw(self, top: int | None = None) -> None:
        """Draw the comparison as it is now.

        Args:
            top: place of the run whose line lies on top; None: the same one as before.
        """
        self._top = self._top if top is None else top
        if not self.size:
            return
        names = self.names()
        for chart, name in zip(self.query(OverlayChart), [*names, *[None] * _MOST], strict=False):
            if chart.display:
                chart.show_runs(None if name is None else self._data(name), self.view)

    def _data(self, metric: str) -> OverlayData:
        comparison = self._comparison
        spec, (label, title) = comparison.spec(metric), comparison.label(metric)
        lines = sorted(comparison.lines(metric), key=lambda line: line.run.place == self._top)
        return OverlayData(
            metric=metric,
            label=label,
            title=title,
            unit=unit_text(spec.unit),
            axis=comparison.axis,
            lines=lines,
            ends=comparison.ends(),
            bounds=spec.range,
        )

    def names(self) -> list[str]:
        """The metrics in sight, the leading one first."""
        metrics, place = self._comparison.metrics(), self._arrange()
        pages = self._pages(metrics, place)
        return pages[min(self._page, len(pages) - 1)] if pages else []

    def _pages(self, metrics: Sequence[str], place: Arrangement) -> list[list[str]]:
        if self._lead in metrics:
            metrics = [self._lead, *(name for name in metrics if name != self._lead)]
        kept, rest = (metrics[:1], metrics[1:]) if place.has_large else ([], metrics)
        room = place.charts - len(kept)
        last = max(len(rest) - room, 0)
        return [[*kept, *rest[at : at + room]] for at in [*range(0, last, max(room, 1)), last]] if metrics else []

    def lead(self, metric: str) -> None:
        """Put a metric into the first chart."""
        self._lead, self._page = metric, 0
        self._changed()

    def other_axis(self) -> None:
        """The axis has become another one: what was in sight means nothing on it."""
        self.view = replace(self.view, first=None, last=None, cursor=None)
        self._changed()

    def _changed(self) -> None:
        self.draw()
        self.post_message(self.Looked())

    def on_resize(self) -> None:
        self._placed = None
        self._arrange()
        self.call_after_refresh(self.draw)

    def watch_view(self) -> None:
        self._changed()

    @on(LineChart.Zoomed)
    def zoom_around(self, event: LineChart.Zoomed) -> None:
        event.stop()
        self.view = self.view.zoomed(event.factor, self._comparison.ends(), around=event.step)

    @on(LineChart.Pointed)
    def point_at(self, event: LineChart.Pointed) -> None:
        event.stop()
        self.view = self.view.pointed(event.step, self._comparison.ends())

    @on(LineChart.Dragged)
    def drag(self, event: LineChart.Dragged) -> None:
        event.stop()
        self.view = self.view.dragged(event.steps, self._comparison.ends())

    def action_turn(self, direction: int) -> None:
        pages = self._pages(self._comparison.metrics(), self._arrange())
        self._page = (self._page + direction) % max(len(pages), 1)
        self._changed()

    def action_lead(self, direction: int) -> None:
        names = self._comparison.metrics()
        if names:
            at = names.index(self._lead) if self._lead in names else 0
            self.lead(names[(at + direction) % len(names)])

    def action_layout(self) -> None:
        self._layout = LAYOUTS[(LAYOUTS.index(self._layout) + 1) % len(LAYOUTS)]
        self._placed, self._page = None, 0
        self._arrange()
        self.call_after_refresh(self._changed)

    def action_zoom(self, factor: float) -> None:
        self.view = self.view.zoomed(factor, self._comparison.ends())

    def action_pan(self, direction: int) -> None:
        self.view = self.view.moved(direction, self._comparison.ends())

    def action_whole(self) -> None:
        self.view = replace(self.view, first=None, last=None, cursor=None)

    def action_cursor(self) -> None:
        end = self.view.shown(self._comparison.ends())[1]
        self.view = replace(self.view, cursor=end if self.view.cursor is None else None)

    def action_toggle_log(self) -> None:
        self.view = replace(self.view, log=not self.view.log)

    def action_y(self) -> None:
        self.view = self.view.other_y()

    def action_smooth(self) -> None:
        self.view = self.view.smoother()
