"""Every chart of a run, the first of them large, on one axis of steps and with one cursor."""

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.reactive import var

from qig_tui.picture import ChartData, RunPicture
from qig_tui.view import Ends, View
from qig_tui.widgets.chart import LineChart

_MINIS = 3


class ChartDeck(Vertical):
    """Owns the view that its charts share. Draws the picture when told to, and whenever the view is another."""

    KEYS: ClassVar[tuple[Binding, ...]] = (
        Binding("l", "toggle_log", "log", tooltip="Logarithmic values"),
        Binding("s", "smooth", "smooth", tooltip="Smooth over 10, 50, 250 points, or not; raw stays visible"),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+", tooltip="Half as many steps"),
        Binding("minus", "zoom(2.0)", "zoom out", key_display="-", tooltip="Twice as many steps"),
        Binding("left", "pan(-1)", "earlier", tooltip="Earlier steps; moves the cursor where there is one"),
        Binding("right", "pan(1)", "later", tooltip="Later steps; moves the cursor where there is one"),
        Binding("0,home", "whole", "whole run", tooltip="All steps, following the newest; no cursor"),
        Binding("m", "turn(1)", "metrics", tooltip="The next metrics in the small charts"),
        Binding("M", "turn(-1)", "metrics back", tooltip="The metrics before them"),
        Binding("x", "cursor", "cursor", tooltip="Read every chart at one step; again to put it away"),
    )
    """For the screen to bind and to hand back: a widget's own BINDINGS work only while the focus is within it."""
    DEFAULT_CSS = """
    ChartDeck #main { height: 3fr; }
    ChartDeck #minis { height: 2fr; min-height: 4; }
    ChartDeck .mini { width: 1fr; margin-right: 2; }
    ChartDeck .mini:last-child { margin-right: 0; }
    """
    view = var(View(), init=False)
    page = var(0, init=False)
    """Which of the metrics below the large chart; where there is none below, which metric."""

    def __init__(self, picture: RunPicture, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._picture = picture
        self._still: dict[str, ChartData] | None = None
        """What there was to draw at the moment of freezing."""

    def compose(self) -> ComposeResult:
        yield LineChart(id="main")
        with Horizontal(id="minis"):
            for i in range(_MINIS):
                yield LineChart(id=f"mini-{i}", classes="mini")

    def draw(self) -> None:
        """Draw the picture as it is now; a chart that the size hides is left alone."""
        for chart, data in zip(self.query(LineChart), self._shown(), strict=False):
            if chart.region:
                chart.show(data, self.view)

    def freeze(self, frozen: bool) -> None:
        """Have only what there is now to draw from now on, or whatever comes."""
        names = self._picture.chart_metrics(1 + _MINIS)
        self._still = {name: self._picture.chart(name) for name in names} if frozen else None

    def watch_view(self) -> None:
        self.draw()

    def watch_page(self) -> None:
        self.draw()

    def _pages(self) -> list[list[str]]:
        """The metrics of the charts, page by page; the last page is a whole one too."""
        names = self._picture.chart_metrics(1 + _MINIS) if self._still is None else list(self._still)
        if not self.query_one("#minis").display:
            return [[name] for name in names]
        last = max(len(names) - _MINIS, 1)
        return [[*names[:1], *names[at : at + _MINIS]] for at in [*range(1, last, _MINIS), last]]

    def _shown(self) -> list[ChartData]:
        """What the charts in sight draw."""
        pages = self._pages()
        names = pages[min(self.page, len(pages) - 1)] if pages else []
        return [self._picture.chart(name) if self._still is None else self._still[name] for name in names]

    def _ends(self) -> Ends:
        """First and last step that were read."""
        steps = [data.series.step for data in self._shown() if len(data.series)]
        if not steps:
            return 0, 1
        return min(int(s.min()) for s in steps), max(int(s.max()) for s in steps)

    @on(LineChart.Zoomed)
    def zoom_around(self, event: LineChart.Zoomed) -> None:
        event.stop()
        self.view = self.view.zoomed(event.factor, self._ends(), around=event.step)

    @on(LineChart.Pointed)
    def point_at(self, event: LineChart.Pointed) -> None:
        event.stop()
        self.view = self.view.pointed(event.step, self._ends())

    def action_turn(self, direction: int) -> None:
        self.page = (self.page + direction) % max(len(self._pages()), 1)

    def action_zoom(self, factor: float) -> None:
        self.view = self.view.zoomed(factor, self._ends())

    def action_pan(self, direction: int) -> None:
        self.view = self.view.moved(direction, self._ends())

    def action_whole(self) -> None:
        self.view = replace(self.view, first=None, last=None, cursor=None)

    def action_cursor(self) -> None:
        self.view = replace(self.view, cursor=self.view.shown(self._ends())[1] if self.view.cursor is None else None)

    def action_toggle_log(self) -> None:
        self.view = replace(self.view, log=not self.view.log)

    def action_smooth(self) -> None:
        self.view = self.view.smoother()
