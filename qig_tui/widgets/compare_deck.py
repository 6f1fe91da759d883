"""Every chart of a comparison, as many as there is room for, on one axis and with one cursor."""

from dataclasses import replace
from itertools import chain, repeat
from typing import ClassVar

from textual.binding import Binding
from textual.message import Message

from qig_tui.compare.comparing import Comparison
from qig_tui.text import unit_text
from qig_tui.view import Ends, View, smoothing_named
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.deck import LAYOUTS, Arrangement, Deck, arrangement
from qig_tui.widgets.overlay import OverlayChart, OverlayData

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


class CompareDeck(Deck):
    """Draws the comparison when told to, and whenever the view is another."""

    KEYS: ClassVar[tuple[Binding, ...]] = tuple(
        replace(key, tooltip=_TOOLTIPS.get(key.action, key.tooltip)) for key in ChartDeck.KEYS
    )
    """Those of the charts of one run, for the screen to bind and to hand back."""
    LARGE = "2fr 1fr"

    class Looked(Message):
        """Something else is in sight, another metric leads, or the cursor stands elsewhere."""

    def __init__(self, comparison: Comparison, smoothing: str, *, id: str | None = None) -> None:
        super().__init__(View(smoothing=smoothing_named(smoothing)), id=id)
        self._comparison = comparison
        self._layout = LAYOUTS[0]
        self._page = 0
        self._top: int | None = None

    def chart(self, place: int) -> OverlayChart:
        return OverlayChart(id=f"overlay-{place}")

    def ends(self) -> Ends:
        return self._comparison.ends()

    def metrics(self) -> list[str]:
        return self._comparison.metrics()

    def _arrange(self) -> Arrangement:
        width, height = self.size
        layout = "single" if self._layout == LAYOUTS[0] and height < _SMALL_FROM else self._layout
        return self.place(arrangement(layout, width, height, len(self.metrics())))

    def draw(self, top: int | None = None) -> None:
        """Draw the comparison as it is now.

        Args:
            top: place of the run whose line lies on top; None: the same one as before.
        """
        self._top = self._top if top is None else top
        if not self.size:
            return
        names = self.names()
        for chart, name in zip(self.query(OverlayChart), chain(names, repeat(None)), strict=False):
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
        pages = self._pages()
        return pages[min(self._page, len(pages) - 1)] if pages else []

    def _pages(self) -> list[list[str]]:
        return self._arrange().pages(self.metrics(), self._lead)

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

    def action_turn(self, direction: int) -> None:
        self._page = (self._page + direction) % max(len(self._pages()), 1)
        self._changed()

    def action_layout(self) -> None:
        self._layout = LAYOUTS[(LAYOUTS.index(self._layout) + 1) % len(LAYOUTS)]
        self._placed, self._page = None, 0
        self._arrange()
        self.call_after_refresh(self._changed)
