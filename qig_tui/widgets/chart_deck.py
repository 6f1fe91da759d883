"""Every chart of a run, as many as there is room for, on one axis of steps and with one cursor."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.message import Message
from textual.reactive import var

from qig_tui.charting import ChartData, chart_metrics, chart_of
from qig_tui.memory import Memory
from qig_tui.metrics_filter import metrics_filter
from qig_tui.picture import RunPicture
from qig_tui.view import Ends, View, smoothing_named
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.deck import LAYOUTS, Arrangement, Deck, arrangement


class ChartDeck(Deck):
    """Draws the picture when told to, and whenever the view is another."""

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
    page = var(0, init=False)
    """Which of the metrics after the first one."""

    class Looked(Message):
        """Other steps are in sight, or the cursor stands elsewhere."""

        def __init__(self, view: View) -> None:
            super().__init__()
            self.view = view

    def __init__(self, shown: Callable[[], RunPicture], memory: Memory, *, id: str | None = None) -> None:
        """Args: shown: the run as it is to be drawn: now, or at the moment that somebody went back to."""
        super().__init__(View(smoothing=smoothing_named(memory.chosen.smoothing)), id=id)
        self._shown_now = shown
        self._memory = memory
        self._fits = metrics_filter("")

    @property
    def _picture(self) -> RunPicture:
        return self._shown_now()

    def chart(self, place: int) -> LineChart:
        return LineChart(id=f"chart-{place}")

    @property
    def layout_name(self) -> str:
        chosen = self._memory.chosen.layout
        return chosen if chosen in LAYOUTS else LAYOUTS[0]

    def _arrange(self) -> Arrangement:
        return self.place(arrangement(self.layout_name, *self.size, len(self._picture.history.metrics)))

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

    def metrics(self) -> list[str]:
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
        return f"{len(self.metrics())} of {len(chart_metrics(self._picture))} metrics"

    def lead(self, metric: str) -> None:
        """Put a metric into the first chart."""
        self._lead = metric
        self.draw()

    def rearranged(self) -> None:
        """Which metrics are shown, or how, was chosen anew."""
        self._placed = None
        self._arrange()
        self.call_after_refresh(self.draw)

    def _shown(self) -> list[ChartData | None]:
        """What the charts in sight draw; nothing in those for which there is no metric."""
        place = self._arrange()
        pages = place.pages(self.metrics(), self._lead)
        names = pages[min(self.page, len(pages) - 1)] if pages else []
        found: list[ChartData | None] = [
            chart_of(self._picture, name, self.view, with_regimes=i == 0) for i, name in enumerate(names)
        ]
        return found + [None] * (place.charts - len(found))

    def ends(self) -> Ends:
        """First and last step that were read."""
        return self._picture.history.ends

    @on(LineChart.Chosen)
    def enlarge(self, event: LineChart.Chosen) -> None:
        event.stop()
        self.lead(event.metric)

    def action_turn(self, direction: int) -> None:
        pages = self._arrange().pages(self.metrics(), self._lead)
        self.page = (self.page + direction) % max(len(pages), 1)

    def action_layout(self) -> None:
        at = LAYOUTS.index(self.layout_name)
        self._memory.change(layout=LAYOUTS[(at + 1) % len(LAYOUTS)])
        self.page = 0
        self.rearranged()

    def action_smooth(self) -> None:
        super().action_smooth()
        self._memory.change(smoothing=self.view.smoothing.name)
