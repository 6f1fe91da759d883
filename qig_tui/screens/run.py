"""One run: whether it is well, where it stands, and the keys that ask something of it."""

import asyncio
import threading
import time
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_core.errors import Refused, RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_tui.actions import ask
from qig_tui.history import History
from qig_tui.picture import RunPicture
from qig_tui.sources.local import TAIL_BYTES, LocalSource, Update, follow
from qig_tui.text import duration, safe
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.chart import LineChart, View
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.events import EventList
from qig_tui.widgets.footer import HonestyFooter
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.status import StatusLine

_MINIS = 3
_SPANS = (1, 10, 50, 250)
_MOVE = 0.25
_ACK_S = 0.2
FRAME_S = 0.2
"""At most five pictures a second: nobody reads faster, and a terminal is not flooded."""
_NUMBERS_S = 0.9


class RunScreen(Screen[None]):
    """Holds the picture of the run and the view that all charts share; its worker reads, its handlers draw."""

    CSS_PATH = "run.tcss"
    AUTO_FOCUS = ""
    # Textual declares these as instance variables, so mypy refuses ClassVar.
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-medium"), (140, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-sliver"), (10, "-flat"), (20, "-low"), (34, "-middling"), (44, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "abort", "abort", tooltip="Stop the run with a checkpoint; asks first"),
        Binding("c", "checkpoint", "checkpoint", tooltip="Write a checkpoint now"),
        Binding("r", "recover", "recover", tooltip="Bring a dead run back from a checkpoint"),
        Binding("b,2", "toggle_table", "basin", tooltip="The basin as a table of 64 rows, or as a grid"),
        Binding("space", "freeze", "freeze", tooltip="Hold the picture still; reading goes on"),
        Binding("l", "toggle_log", "log", tooltip="Logarithmic values"),
        Binding("s", "smooth", "smooth", tooltip="Smooth over 10, 50, 250 points, or not; raw stays visible"),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+", tooltip="Half as many steps"),
        Binding("minus", "zoom(2.0)", "zoom out", key_display="-", tooltip="Twice as many steps"),
        Binding("left", "pan(-1)", "earlier", tooltip="Earlier steps; moves the cursor where there is one"),
        Binding("right", "pan(1)", "later", tooltip="Later steps; moves the cursor where there is one"),
        Binding("0,home", "whole", "whole run", tooltip="All steps, following the newest; no cursor"),
        Binding("x", "cursor", "cursor", tooltip="Read every chart at one step; again to put it away"),
        Binding("escape", "back", "back", show=False),
    ]

    def __init__(
        self,
        run: RunDir,
        *,
        read_only: bool = False,
        owned: bool = False,
        tail_bytes: int = TAIL_BYTES,
        frame_s: float = FRAME_S,
    ) -> None:
        super().__init__()
        self.run_dir = run
        self.read_only = read_only
        self._owned = owned
        self._tail_bytes = tail_bytes
        self._frame_s = frame_s
        self.picture = RunPicture(read_manifest(run))
        self.view = View()
        self.frozen = False
        self.is_drawn = False
        """Whether everything that lay in the directory at the start has been drawn."""
        self._stop = threading.Event()
        self._stale = True
        self._drawing_soon = False
        self._drawn_t = 0.0
        self._numbers_t = 0.0
        self._verdict = ""

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with Horizontal(id="body"):
            with Vertical(id="charts"):
                yield LineChart(id="main")
                with Horizontal(id="minis"):
                    for i in range(_MINIS):
                        yield LineChart(id=f"mini-{i}", classes="mini")
            with Vertical(id="side"):
                yield SafetyPanel(id="safety")
                yield BasinPanel(id="basin")
                yield BasinTable(id="basin-table")
        with Horizontal(id="below"):
            yield EventList(id="events")
            yield CheckpointStrip(id="checkpoints")
        yield HonestyFooter(id="footer")

    def on_mount(self) -> None:
        self._read()

    def on_unmount(self) -> None:
        self._stop.set()

    @work(thread=True, exclusive=True, group="source")
    def _read(self) -> None:
        """The tail, the rest behind it, then what is appended. Reads and hands over; touches no widget."""
        worker = get_current_worker()
        hand_over = self.app.call_from_thread
        try:
            source = LocalSource(self.run_dir, tail_bytes=self._tail_bytes)
        except RunFormatError as error:
            # It was readable a moment ago: removed, or replaced by something else.
            hand_over(self._fail, str(error))
            return

        def post(update: Update) -> None:
            if not self._stop.is_set() and not worker.is_cancelled:
                hand_over(self._apply, update)

        def progress(share: float) -> None:
            if not self._stop.is_set():
                hand_over(self._backfilling, share)

        post(source.look())
        if source.backfill_end:
            older = source.backfill(progress, self._stop)
            if older is not None and not self._stop.is_set():
                hand_over(self._prepend, older)
        if not self._stop.is_set():
            hand_over(self._all_read)
        follow(source, post, self._stop)

    def _apply(self, update: Update) -> None:
        self.picture.apply(update)
        self._stale = self._stale or bool(update.samples) or update.restarted or not self.is_drawn
        wait = self._drawn_t + self._frame_s - time.monotonic()
        if wait <= 0 or not self.is_drawn:
            self.draw(charts=self._stale)
        elif not self._drawing_soon:
            self._drawing_soon = True
            self.set_timer(wait, self._draw_late)

    def _draw_late(self) -> None:
        self._drawing_soon = False
        self.draw(charts=self._stale)

    def _fail(self, problem: str) -> None:
        self.picture.problem = problem
        self.draw_all()

    def _backfilling(self, share: float) -> None:
        self.picture.backfilled = share
        self.query_one(HonestyFooter).show(self.picture, self._keys())

    def _prepend(self, older: History) -> None:
        self.picture.history.prepend(older)
        self.draw()

    def _all_read(self) -> None:
        self.picture.backfilled = None
        self.draw_all()
        self.is_drawn = True

    def draw_all(self) -> None:
        """Draw whatever its pace."""
        self._numbers_t = 0.0
        self.draw()

    def draw(self, *, charts: bool = True) -> None:
        """Show the picture as it is now; frozen, only whether the run is well and what is being read."""
        picture = self.picture
        now = self._drawn_t = time.monotonic()
        slow = now - self._numbers_t >= _NUMBERS_S
        if slow:
            self._numbers_t = now
        verdict = picture.journal.verdict()
        self.query_one(StatusLine).show(picture, frozen=self.frozen)
        if slow:
            self.query_one(HonestyFooter).show(picture, self._keys())
        if self.frozen:
            return
        if charts:
            self._stale = False
            self.draw_charts()
        if slow or verdict != self._verdict:
            # Numbers that all move a little are read once a second at most; a change of state is shown at once.
            self._verdict = verdict
            self.query_one(SafetyPanel).show(picture.condition_rows())
        if slow:
            basin = picture.basin()
            self.query_one(BasinPanel).show(basin)
            if self.has_class("-table"):
                self.query_one(BasinTable).show(basin)
        self.query_one(EventList).show(picture.journal.events)
        self.query_one(CheckpointStrip).show(picture.checkpoints, picture.tagged)

    def draw_charts(self) -> None:
        charts = list(self.query(LineChart))
        for chart, metric in zip(charts, self.picture.chart_metrics(len(charts)), strict=False):
            if chart.region:
                chart.show(self.picture.chart(metric), self.view)

    def on_resize(self) -> None:
        # A chart that a smaller size had hidden has drawn nothing since.
        self.call_after_refresh(self.draw_all)

    def _keys(self) -> list[tuple[str, str]]:
        """What the last line offers, the most needed first."""
        asks = [("r", "recover")] if self.picture.ended else [("a", "abort"), ("c", "checkpoint")]
        if self.read_only:
            asks = [("", "read only")]
        return [*asks, ("space", "freeze"), ("?", "help"), ("b", "basin"), ("s", "smooth"), ("l", "log"), ("q", "quit")]

    def _set_view(self, view: View) -> None:
        self.view = view
        self.draw_charts()

    def _ends(self) -> tuple[int, int]:
        """First and last step that were read."""
        series = [self.picture.history.series(m) for m in self.picture.chart_metrics(_MINIS + 1)]
        steps = [s.step for s in series if len(s)]
        if not steps:
            return 0, 1
        return min(int(s.min()) for s in steps), max(int(s.max()) for s in steps)

    def _shown(self) -> tuple[int, int]:
        low, high = self._ends()
        return (
            low if self.view.first is None else self.view.first,
            high if self.view.last is None else self.view.last,
        )

    def _zoom(self, factor: float, around: int) -> None:
        low, high = self._ends()
        first, last = self._shown()
        span = max(round((last - first) * factor), 8)
        if span >= high - low:
            self._set_view(replace(self.view, first=None, last=None))
            return
        share = (around - first) / max(last - first, 1)
        start = round(around - share * span)
        start = min(max(start, low), high - span)
        following = start + span >= high
        self._set_view(replace(self.view, first=start, last=None if following else start + span))

    @on(LineChart.Zoomed)
    def zoom_around(self, event: LineChart.Zoomed) -> None:
        self._zoom(event.factor, event.step)

    @on(LineChart.Pointed)
    def point_at(self, event: LineChart.Pointed) -> None:
        self._set_view(replace(self.view, cursor=event.step))

    def action_zoom(self, factor: float) -> None:
        first, last = self._shown()
        cursor = self.view.cursor
        inside = cursor is not None and first <= cursor <= last
        # Without a cursor the newest step stays where it is.
        self._zoom(factor, cursor if inside and cursor is not None else last)

    def action_pan(self, direction: int) -> None:
        low, high = self._ends()
        first, last = self._shown()
        span = last - first
        if self.view.cursor is not None:
            moved = min(max(self.view.cursor + direction * max(span // 100, 1), low), high)
            self._set_view(replace(self.view, cursor=moved))
            return
        start = min(max(first + round(direction * _MOVE * span), low), high - span)
        whole = start <= low and start + span >= high
        following = start + span >= high
        self._set_view(replace(self.view, first=None if whole else start, last=None if following else start + span))

    def action_whole(self) -> None:
        self._set_view(replace(self.view, first=None, last=None, cursor=None))

    def action_cursor(self) -> None:
        self._set_view(replace(self.view, cursor=self._shown()[1] if self.view.cursor is None else None))

    def action_toggle_log(self) -> None:
        self._set_view(replace(self.view, log=not self.view.log))

    def action_smooth(self) -> None:
        span = _SPANS[(_SPANS.index(self.view.smoothing) + 1) % len(_SPANS)]
        self._set_view(replace(self.view, smoothing=span))

    def action_freeze(self) -> None:
        self.frozen = not self.frozen
        self.draw_all()

    def action_toggle_table(self) -> None:
        self.toggle_class("-table")
        table = self.query_one(BasinTable)
        if self.has_class("-table"):
            table.show(self.picture.basin())
            table.focus()
        else:
            self.set_focus(None)
        self.call_after_refresh(self.draw_all)

    def _may_ask(self) -> bool:
        """Whether a command makes sense now; says why not."""
        if self.read_only:
            self.notify("this dashboard is read-only: every command is disabled", severity="warning", markup=False)
            return False
        if self.picture.ended:
            self.notify(
                f"the run is {self.picture.liveness.text}: there is no trainer to ask", severity="warning", markup=False
            )
            return False
        return True

    def action_abort(self) -> None:
        if self._may_ask():
            from qig_tui.screens.abort import AbortScreen

            self.app.push_screen(AbortScreen(self.picture, self.run_dir))

    @work(exclusive=True, group="checkpoint")
    async def action_checkpoint(self) -> None:
        """Ask for a checkpoint and tell each stage as it comes."""
        if not self._may_ask():
            return
        try:
            asked = ask(self.run_dir, "checkpoint")
        except Refused as error:
            self.notify(safe(error, 300), title="not asked", severity="error", markup=False)
            return
        told = 0
        while asked.elapsed_s < asked.command.ttl_s:
            for stage in asked.stages[told:]:
                severity: SeverityLevel = "error" if stage.name == "refused" else "information"
                words = f"{duration(stage.after_s)}  {stage.detail}"
                self.notify(words, title=f"checkpoint {stage.name}", severity=severity, markup=False)
            told = len(asked.stages)
            if asked.ended:
                return
            await asyncio.sleep(_ACK_S)
            asked.look()
        self.notify("the trainer did not answer", title="checkpoint", severity="error", markup=False)

    def action_recover(self) -> None:
        if self.read_only:
            self._may_ask()
        elif not self.picture.ended:
            self.notify(
                f"the run is {self.picture.liveness.text}; only a dead one is recovered",
                severity="warning",
                markup=False,
            )
        else:
            from qig_tui.screens.recover import RecoverScreen

            self.app.push_screen(RecoverScreen(self.picture, self.run_dir))

    async def may_leave(self) -> bool:
        """Whether the app may close: a run that this command started is not left by accident. Needs a worker."""
        if not self._owned or self.picture.ended or self.read_only:
            return True
        from qig_tui.screens.leave import LeaveScreen

        choice = await self.app.push_screen_wait(LeaveScreen(self.picture.name))
        if choice == "stop":
            from qig_tui.screens.abort import AbortScreen

            stopped = await self.app.push_screen_wait(AbortScreen(self.picture, self.run_dir, confirmed=True))
            return stopped is True
        return choice == "leave"

    def action_back(self) -> None:
        """To the list of runs, where this screen was opened from it."""
        if len(self.app.screen_stack) > 2:
            self.dismiss()
