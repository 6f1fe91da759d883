"""One run: whether it is well, where it stands, and the keys that ask something of it."""

import threading
import time
from dataclasses import replace
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_core.rundir.layout import RunDir
from qig_tui.picture import BasinView, RunPicture
from qig_tui.screens.commands import RunCommands
from qig_tui.sources.local import TAIL_BYTES, Backfill, Update, open_run, read_run
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.events import EventList
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

    CSS_PATH = "run.tcss"
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
        Binding("space", "freeze", "freeze", tooltip="Hold the picture still; reading goes on"),
        *(replace(key, action=f"charts({key.action!r})") for key in ChartDeck.KEYS),
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
        self._tail_bytes = tail_bytes
        self._frame_s = frame_s
        self.picture = RunPicture(open_run(run))
        self._commands = RunCommands(self, run, self.picture, read_only=read_only, owned=owned)
        self.frozen = False
        self.is_drawn = False
        """Whether everything that lay in the directory at the start has been drawn."""
        self._stop = threading.Event()
        self._stale = True
        self._drawing_soon = False
        self._drawn_t = 0.0
        self._numbers_t = 0.0
        self._verdict = ""
        self._keys: list[tuple[str, str]] = []
        self._basin: BasinView | None = None

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with Horizontal(id="body"):
            yield ChartDeck(self.picture, id="charts")
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
        """Reads and hands over; touches no widget."""
        worker = get_current_worker()
        hand_over = self.app.call_from_thread

        def post(found: Update | Backfill) -> None:
            if not self._stop.is_set() and not worker.is_cancelled:
                hand_over(self._take, found)

        read_run(self.run_dir, post, self._stop, tail_bytes=self._tail_bytes)

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
        self._stale = self._stale or bool(found.samples) or found.restarted or not self.is_drawn
        wait = self._drawn_t + self._frame_s - time.monotonic()
        if wait <= 0 or not self.is_drawn:
            self.draw(charts=self._stale and not self.frozen)
        elif not self._drawing_soon:
            self._drawing_soon = True
            self.set_timer(wait, self._draw_late)

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
        if self.frozen:
            return
        if slow or verdict != self._verdict:
            # Numbers that all move a little are read once a second at most; a change of state is shown at once.
            self._verdict = verdict
            self.query_one(SafetyPanel).show(picture.condition_rows(), current=picture.watched)
        if slow:
            self._basin = picture.basin()
            self.query_one(BasinPanel).show(self._basin)
            if self.has_class("-table"):
                self.query_one(BasinTable).show(self._basin)
        self.query_one(EventList).show(picture.journal.events)
        self.query_one(CheckpointStrip).show(picture.checkpoints, picture.tagged, picture.checkpoints_problem)

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
        """To the list of runs, where this screen was opened from it."""
        if len(self.app.screen_stack) > 2:
            self.dismiss()
