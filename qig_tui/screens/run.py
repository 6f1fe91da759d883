"""One run: whether it is well, where it stands, and the keys that ask something of it."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_core.rundir.layout import RunDir
from qig_tui.detail import Again
from qig_tui.history import History
from qig_tui.memory import Memory
from qig_tui.picture import BasinView, RunPicture
from qig_tui.screens.commands import RunCommands
from qig_tui.series import Branches
from qig_tui.sources.local import TAIL_BYTES, Backfill, LocalSource, Update, read_run
from qig_tui.text import grouped, safe
from qig_tui.toasts import Toaster
from qig_tui.view import View
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.events import EventList
from qig_tui.widgets.filter_bar import FilterBar
from qig_tui.widgets.footer import HonestyFooter
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.status import StatusLine

FRAME_S = 0.2
"""At most five pictures a second: nobody reads faster, and a terminal is not flooded."""
_NUMBERS_S = 0.9
_NEEDED = ("question_mark", "q")
"""The keys that the last line offers at any width, after the commands."""
_OFFERED = (*_NEEDED, "space", "m", "b", "s", "l")
"""All of them, the most needed first."""


class RunScreen(Screen[None]):
    """Holds the picture of the run: its worker reads, its handlers draw, its keys go to the charts or to the run."""

    # That of the dialogs as well: what is known at the start need not restyle every screen when the first one opens.
    CSS_PATH = ["run.tcss", "dialog.tcss"]  # noqa: RUF012  # as Textual declares it
    AUTO_FOCUS = ""
    # Textual declares these as instance variables, so mypy refuses ClassVar.
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-medium"), (140, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-sliver"), (10, "-flat"), (20, "-low"), (34, "-middling"), (44, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "ask('abort')", "abort", tooltip="Stop the run with a checkpoint; asks first"),
        Binding("c", "send('checkpoint')", "checkpoint", tooltip="Write a checkpoint now"),
        Binding("p", "send('pause')", "pause", tooltip="Pause the run at its next step, or let it go on"),
        Binding("r", "ask('recover')", "recover", tooltip="Back to a checkpoint, of a live run or of a dead one"),
        Binding("z", "ask('soft_reset')", "soft reset", tooltip="Back to the last known good checkpoint; asks first"),
        Binding("e", "ask('sampling')", "samples", tooltip="How often a sample is recorded"),
        Binding("b,2", "toggle_table", "basin", tooltip="The basin as a table of 64 rows, or as a grid"),
        Binding("slash", "filter", "filter", key_display="/", tooltip="Show only the metrics that are meant"),
        Binding("o", "choose_metrics", "choose", tooltip="Which metrics have a chart, and in which order"),
        Binding("space", "freeze", "freeze", tooltip="Hold the picture still; reading goes on"),
        *(replace(key, action=f"charts({key.action!r})") for key in ChartDeck.KEYS),
        *(replace(key, action=f"events({key.action!r})") for key in EventList.KEYS),
        Binding("escape", "back", "back", show=False, tooltip="To the list of runs, if this came from it"),
    ]

    def __init__(
        self,
        run: RunDir,
        *,
        read_only: bool = False,
        owned: bool = False,
        memory: Memory | None = None,
        tail_bytes: int = TAIL_BYTES,
        frame_s: float = FRAME_S,
    ) -> None:
        super().__init__()
        self.run_dir = run
        self._frame_s = frame_s
        self._memory = memory or Memory()
        self._source = LocalSource(run, tail_bytes=tail_bytes)
        self.picture = RunPicture(self._source.manifest)
        self._commands = RunCommands(self, run, self.picture, read_only=read_only, owned=owned)
        self.frozen = False
        self.is_drawn = False
        """Whether everything that lay in the directory at the start has been drawn."""
        self._toaster = Toaster()
        self._told_unreadable = False
        self._stop = threading.Event()
        self._stale = True
        self._drawing_soon = False
        self._drawn_t = 0.0
        self._numbers_t = 0.0
        self._verdict = ""
        self._keys: list[tuple[str, str]] = []
        self._basin: BasinView | None = None
        self._looked_at: tuple[object, ...] = ()
        """For which steps the file was last asked for more than is remembered of them."""

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with Horizontal(id="body"):
            yield ChartDeck(self.picture, self._memory, id="charts")
            with Vertical(id="side"):
                yield SafetyPanel(id="safety")
                yield BasinPanel(id="basin")
                yield BasinTable(id="basin-table")
        yield FilterBar("events", "words  -not  kind:checkpoint  severity:warning  step>1000", id="events-filter")
        with Horizontal(id="below"):
            yield EventList(id="events")
            yield CheckpointStrip(id="checkpoints")
        yield FilterBar("metrics", "words or patterns; -word leaves out", id="metrics-filter")
        yield HonestyFooter(id="footer")

    def on_mount(self) -> None:
        self._read()

    def on_unmount(self) -> None:
        self._stop.set()

    def make_way(self) -> None:
        """Somebody pressed a key: what lies long ago can be read a moment later."""
        self._source.make_way()

    @work(thread=True, exclusive=True, group="source")
    def _read(self) -> None:
        """Reads and hands over; touches no widget."""
        worker = get_current_worker()
        hand_over = self.app.call_from_thread

        def post(found: Update | Backfill) -> None:
            if not self._stop.is_set() and not worker.is_cancelled:
                hand_over(self._take, found)

        read_run(self._source, post, self._stop)

    def _take(self, found: Update | Backfill) -> None:
        """Fold in what was read, and draw it at the pace of the frames."""
        if not self.display:
            # Closing: some of the widgets are gone already.
            return
        if isinstance(found, Backfill):
            self.picture.backfill(found)
            if found.share is None:
                self.draw_all()
                self.is_drawn = True
            else:
                self.query_one(HonestyFooter).redraw()
            return
        self.picture.apply(found)
        for toast in self._toaster.look(found.events, self.picture.liveness, now=time.monotonic()):
            words, title = toast.message, toast.title
            self.notify(words, title=title, severity=toast.severity, timeout=toast.timeout_s, markup=False)
        if found.restarted and self.is_drawn:
            words = "telemetry.jsonl was cut or replaced: what it holds now is read from its start"
            self.notify(words, title="another file", severity="warning", markup=False)
        self._tell_unreadable()
        self._stale = self._stale or bool(found.samples) or found.restarted or not self.is_drawn
        wait = self._drawn_t + self._frame_s - time.monotonic()
        if wait <= 0 or not self.is_drawn:
            self.draw(charts=self._stale and not self.frozen)
        elif not self._drawing_soon:
            self._drawing_soon = True
            self.set_timer(wait, self._draw_late)

    def _tell_unreadable(self) -> None:
        """Of the first line that cannot be read: which, and why."""
        bad = self.picture.history.unreadable
        # A single one from before is what a killed run leaves, and no news.
        known = 0 if self.is_drawn else 1
        if len(bad) > known and not self._told_unreadable:
            self._told_unreadable = True
            words = f"{safe(Path(bad[0].path).name, 60)}, byte {grouped(bad[0].offset)}: {safe(bad[0].reason, 200)}"
            self.notify(words, title="a line cannot be read", severity="warning", markup=False)

    @on(ChartDeck.Looked)
    def look_closer(self, event: ChartDeck.Looked) -> None:
        event.stop()
        self._look_closer(event.view)

    def _look_closer(self, view: View) -> None:
        """Read again from the file what is not remembered of the steps in sight, and the basin under the cursor."""
        history = self.picture.history
        steps: tuple[int, int | None] | None = None
        if view.first is not None and not self.frozen and history.is_thinned(view.first, view.last):
            # As much beyond each side: a small move needs no reading.
            span = (history.ends[1] if view.last is None else view.last) - view.first
            steps = view.first - span, None if view.last is None else view.last + span
        is_whole = self.picture.backfilled is None
        wanted = (steps is not None, view.first, view.last, view.cursor, history.segments, is_whole)
        if wanted == self._looked_at:
            return
        self._looked_at = wanted
        if view.cursor is None and self.picture.cursor is not None:
            self.picture.cursor = None
            self._numbers_t = 0.0
            self.draw(charts=False)
        if steps is not None:
            history.ask_for_detail()
        if steps is not None or view.cursor is not None:
            self._read_again(steps, view.cursor, history, history.branches)

    @work(thread=True, exclusive=True, group="again")
    def _read_again(
        self, steps: tuple[int, int | None] | None, cursor: int | None, history: History, branches: Branches
    ) -> None:
        worker = get_current_worker()
        try:
            found = self._source.index.again(steps, cursor, branches)
        except OSError:
            # What is remembered stays; that the file cannot be read is told by who follows it.
            return
        if not worker.is_cancelled and not self._stop.is_set():
            self.app.call_from_thread(self._take_again, history, branches.count, found)

    def _take_again(self, history: History, segments: int, found: Again) -> None:
        if not self.display or history is not self.picture.history or segments != history.segments:
            return
        if found.detail is not None:
            history.take_detail(found.detail)
        self.picture.cursor = found.cursor
        self.draw_all()

    def _draw_late(self) -> None:
        self._drawing_soon = False
        if self.display:
            self.draw(charts=self._stale and not self.frozen)

    def draw_all(self) -> None:
        """Draw whatever its pace."""
        self._numbers_t = 0.0
        self.draw()

    def draw(self, *, charts: bool = True) -> None:
        """Show the picture as it is now; frozen, only whether the run is well, what is being read, and still charts."""
        picture = self.picture
        now = self._drawn_t = time.monotonic()
        slow = now - self._numbers_t >= _NUMBERS_S
        if slow:
            self._numbers_t = now
        verdict = picture.verdict()[1]
        keys = self._offered()
        self.query_one(StatusLine).show(picture, frozen=self.frozen)
        if slow or keys != self._keys:
            self._keys = keys
            needed = len(self._commands.keys) + len(_NEEDED)
            self.query_one(HonestyFooter).show(picture, keys, needed=needed)
        if charts:
            self._stale = self.frozen
            self.query_one(ChartDeck).draw()
        if slow:
            self._look_closer(self.query_one(ChartDeck).view)
        if self.frozen:
            self._show_basin(self._basin if picture.cursor is None else picture.basin())
            return
        if slow or verdict != self._verdict:
            # Numbers that all move a little are read once a second at most; a change of state is shown at once.
            self._verdict = verdict
            self.query_one(SafetyPanel).show(picture.condition_rows(), current=picture.watched)
        if slow:
            self._basin = picture.basin()
            self._show_basin(self._basin)
        strip = self.query_one(CheckpointStrip)
        strip.show(picture.checkpoints, picture.tagged, picture.checkpoints_problem)
        aside = "" if strip.display or not picture.checkpoints else f"{strip.in_short()}   "
        self.query_one(EventList).show(picture.journal.events, aside)

    def _show_basin(self, basin: BasinView | None) -> None:
        self.query_one(BasinPanel).show(basin)
        if self.has_class("-table"):
            self.query_one(BasinTable).show(basin)

    def _offered(self) -> list[tuple[str, str]]:
        """The keys of the last line: those that ask something of the run now, and some of those that show it."""
        known = self.active_bindings
        bindings = [known[key].binding for key in _OFFERED if key in known]
        shown = [(self.app.get_key_display(b), b.description) for b in bindings]
        always = len(_NEEDED)
        return [*self._commands.keys, *shown[:always], *self._commands.more_keys, *shown[always:]]

    def on_resize(self) -> None:
        # A chart that a smaller size had hidden has drawn nothing since.
        self.call_after_refresh(self.draw_all)

    async def action_charts(self, action: str) -> None:
        """An action of the charts, whatever has the focus."""
        await self.app.run_action(action, self.query_one(ChartDeck))

    async def action_events(self, action: str) -> None:
        """An action of the events, whatever has the focus."""
        await self.app.run_action(action, self.query_one(EventList))

    def action_filter(self) -> None:
        """Open the line to type a filter of the metrics into."""
        self.query_one("#metrics-filter", FilterBar).open()

    @on(FilterBar.Changed, "#metrics-filter")
    def filter_metrics(self, event: FilterBar.Changed) -> None:
        event.stop()
        event.bar.say(self.query_one(ChartDeck).filter(event.text))

    @on(FilterBar.Closed, "#metrics-filter")
    def leave_metrics_filter(self, event: FilterBar.Closed) -> None:
        event.stop()
        self.set_focus(None)

    @on(EventList.FilterWanted)
    def open_events_filter(self) -> None:
        if self.query_one("#below").display:
            self.query_one("#events-filter", FilterBar).open()

    @on(FilterBar.Changed, "#events-filter")
    def filter_events(self, event: FilterBar.Changed) -> None:
        event.stop()
        wrong = self.query_one(EventList).filter(event.text)
        event.bar.say(wrong or "", wrong=wrong is not None)

    @on(FilterBar.Closed, "#events-filter")
    def leave_events_filter(self, event: FilterBar.Closed) -> None:
        """To the list itself: arrows and enter work at once."""
        event.stop()
        self.query_one(EventList).focus()

    @on(EventList.Chosen)
    def show_event(self, event: EventList.Chosen) -> None:
        from qig_tui.screens.event import EventScreen

        self.app.push_screen(EventScreen(event.event, event.count))

    @work
    async def action_choose_metrics(self) -> None:
        """Open the list of the metrics; what is chosen there is remembered."""
        from qig_tui.screens.metrics import MetricsScreen

        chosen = await self.app.push_screen_wait(MetricsScreen(self.picture, self._memory.chosen))
        if chosen is not None:
            self._memory.change(pinned=chosen.pinned, hidden=chosen.hidden)
            deck = self.query_one(ChartDeck)
            if chosen.lead:
                deck.lead(chosen.lead)
            deck.rearranged()

    def show_metric(self, metric: str) -> None:
        """Put a metric into the first chart."""
        self.query_one(ChartDeck).lead(metric)

    def action_freeze(self) -> None:
        self.frozen = not self.frozen
        self.query_one(ChartDeck).freeze(self.frozen)
        self.draw_all()

    def action_toggle_table(self) -> None:
        if not self.frozen:
            self._basin = self.picture.basin()
        if self._basin is None and not self.has_class("-table"):
            self.notify("this run has no basin", severity="warning", markup=False)
            return
        self.toggle_class("-table")
        table = self.query_one(BasinTable)
        if self.has_class("-table"):
            table.show(self._basin)
            table.focus()
        else:
            self.set_focus(None)
        self.call_after_refresh(self.draw_all)

    def action_ask(self, what: str) -> None:
        """Open the dialog that asks something of the run."""
        self._commands.dialogs[what]()

    def action_send(self, what: str) -> None:
        """Ask something of the run that needs no dialog, and tell how far it has come."""
        self.run_worker(self._commands.messages[what](), group=what)

    async def may_leave(self) -> bool:
        """Whether the app may close; it asks. Needs a worker."""
        return await self._commands.may_leave()

    def action_back(self) -> None:
        """To what there is without filters; from there to the list of runs, where this screen was opened from it."""
        filters = [bar for bar in self.query(FilterBar) if bar.has_class("-open")]
        if filters:
            for bar in filters:
                bar.action_clear()
            return
        if len(self.app.screen_stack) > 2:
            self.dismiss()
