"""Several runs over one another, and in what they differ: the marked ones of the list, or a run and those."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_tui.compare.axes import place_text
from qig_tui.compare.comparing import ComparedRun, Comparison
from qig_tui.compare.pages import ConfigPage, KinPage
from qig_tui.compare.places import MOST_RUNS, Places
from qig_tui.compare.table import RunsPage
from qig_tui.memory import Memory
from qig_tui.screens.pane import PANES, Pane
from qig_tui.setup import DEFAULT, Setup
from qig_tui.sources.several import Found, read_runs
from qig_tui.text import grouped, percent, safe
from qig_tui.widgets.compare_deck import CompareDeck
from qig_tui.widgets.compare_panel import ComparePanel
from qig_tui.widgets.lines import Part
from qig_tui.widgets.runs_table import BarLine

_TALL = 34
_GLANCE, _GLANCE_LOW = 11, 7
"""Rows at most for the table of runs, on a screen of so many rows and on a lower one."""
_NEEDED = ("question_mark", "q")
_OFFERED = (*_NEEDED, "tab", "d", "n", "space", "x", "s", "l", "g", "o", "escape")
"""The keys of the last line, the most needed first."""


class CompareScreen(Screen[None]):
    """Holds the comparison: its worker reads, its handlers draw, its keys go to the charts or to the page below.

    Args:
        runs: one at least, in the order of their marking; the first eight are compared.
        places: which colour and letter each run had before; None: nobody remembers any.
    """

    CSS_PATH = "compare.tcss"
    AUTO_FOCUS = ""
    # Textual declares this as an instance variable, so mypy refuses ClassVar.
    VERTICAL_BREAKPOINTS = [(0, "-sliver"), (10, "-flat"), (20, "-low"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "axis", "axis", tooltip="By step, by training time, or by tokens where a run records them"),
        Binding("space", "hide", "hide", tooltip="Hide the line of the run under the cursor, or show it again"),
        Binding("enter", "open", "open", tooltip="Open the run under the cursor; of a difference, all that it holds"),
        Binding("o", "sort_next", "sort", tooltip="Sort the runs by the next column; colours stay"),
        Binding("O", "turn_round", "reverse", tooltip="Turn the order of the runs round"),
        *(replace(key, action=f"charts({key.action!r})") for key in CompareDeck.KEYS),
        *(replace(key, action=f"page({key.action!r})") for key in ComparePanel.KEYS),
        *(Binding(key, f"pane({key!r})", word, show=False) for key, word, _ in PANES if key != "5"),
        Binding("escape", "back", "back", tooltip="Back to where this was opened"),
    ]

    def __init__(
        self,
        runs: Sequence[RunDir],
        *,
        memory: Memory | None = None,
        places: Places | None = None,
        setup: Setup = DEFAULT,
    ) -> None:
        super().__init__()
        self._left_out = max(len(runs) - MOST_RUNS, 0)
        runs = runs[:MOST_RUNS]
        self._memory = memory or Memory()
        self._setup = setup
        taken = (places or Places()).of([str(run.path.absolute()) for run in runs])
        self.comparison = Comparison(runs, taken)
        self._runs_page = RunsPage(comparison=self.comparison, metrics=())
        self._config_page = ConfigPage(comparison=self.comparison)
        self.is_drawn = False
        """Whether everything that lay there at the start has been drawn."""
        self._stop = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._drawn_t = 0.0
        self._drawing_soon = False

    def compose(self) -> ComposeResult:
        yield BarLine(id="compare-title")
        yield CompareDeck(self.comparison, self._memory.chosen.smoothing, id="overlays")
        yield ComparePanel([self._runs_page, self._config_page, KinPage(comparison=self.comparison)], id="panel")
        yield BarLine(id="compare-keys")

    def on_mount(self) -> None:
        self._read()

    def on_unmount(self) -> None:
        self._stop.set()
        self._awake.set()

    def on_screen_suspend(self) -> None:
        self._awake.clear()

    def on_screen_resume(self) -> None:
        self._awake.set()

    @work(thread=True, exclusive=True, group="compare")
    def _read(self) -> None:
        """Reads and hands over; touches no widget."""
        worker = get_current_worker()

        def post(place: int, found: Found) -> None:
            # Covered by another screen, it rests; what comes meanwhile waits in the files.
            self._awake.wait()
            if not self._stop.is_set() and not worker.is_cancelled:
                self.app.call_from_thread(self._take, place, found)

        read_runs([run.run for run in self.comparison.runs], post, self._stop)

    def _take(self, place: int, found: Found) -> None:
        """Fold in what was read, and draw it at the pace of the frames."""
        if not self.display:
            # Closing: some of the widgets are gone already.
            return
        self.comparison.runs[place].take(found)
        wait = self._drawn_t + self._setup.frame_s - time.monotonic()
        if wait <= 0 or (self.comparison.is_read and not self.is_drawn):
            self.draw()
        elif not self._drawing_soon:
            self._drawing_soon = True
            self.set_timer(wait, self._draw_late)

    def _draw_late(self) -> None:
        self._drawing_soon = False
        if self.display:
            self.draw()

    def draw(self) -> None:
        """Show the comparison as it is now."""
        self._drawn_t = time.monotonic()
        self._make_room()
        self._draw_page()
        self.query_one(CompareDeck).draw(self._on_top)
        self.is_drawn = self.is_drawn or self.comparison.is_read

    @on(CompareDeck.Looked)
    def _draw_page(self) -> None:
        deck = self.query_one(CompareDeck)
        self._runs_page.metrics = deck.names()
        self._runs_page.cursor = deck.view.cursor
        self.query_one(ComparePanel).redraw()
        self._draw_bars()

    def _draw_bars(self) -> None:
        comparison, cursor = self.comparison, self._runs_page.cursor
        hidden = len(comparison.runs) - len(comparison.shown)
        parts: list[Part] = [("strong", f"{grouped(len(comparison.runs))} runs compared")]
        if len(comparison.runs) == 1:
            parts = [("strong", "1 run: mark more with space in the list of runs to compare it with")]
        if hidden:
            parts.append(("dim", f" · {grouped(hidden)} hidden"))
        if not comparison.is_read:
            parts.append(("accent", f" · reading {percent(comparison.share)}"))
        if cursor is not None:
            parts.append(("cursor", f" · │ at {place_text(comparison.axis, cursor)}"))
        left_out = comparison.left_out
        if left_out:
            names = ", ".join(f"{run.letter} {run.name}" for run in left_out)
            verb = "record" if len(left_out) > 1 else "records"
            parts.append(("warning", f" · ▲ left out: {names}, which {verb} no tokens"))
        if self._left_out:
            what = "run was" if self._left_out == 1 else "runs were"
            parts.append(("warning", f" · ▲ {self._left_out} more {what} marked: eight are compared"))
        self.query_one("#compare-title", BarLine).show(parts)
        known = self.active_bindings
        bindings = [known[key].binding for key in _OFFERED if key in known]
        keys = [(self.app.get_key_display(b), b.description) for b in bindings]
        self.query_one("#compare-keys", BarLine).show([], keys, needed=len(_NEEDED))

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    @property
    def _current(self) -> ComparedRun:
        """The run under the cursor of the first page."""
        ordered = self._runs_page.ordered()
        return ordered[min(self.query_one(ComparePanel).cursor, len(ordered) - 1)]

    @property
    def _on_top(self) -> int | None:
        return self._current.place if self.query_one(ComparePanel).page is self._runs_page else None

    async def action_charts(self, action: str) -> None:
        """An action of the charts, whatever has the focus."""
        await self.app.run_action(action, self.query_one(CompareDeck))

    async def action_page(self, action: str) -> None:
        """An action of the page below the charts."""
        await self.app.run_action(action, self.query_one(ComparePanel))

    @on(ComparePanel.Turned)
    def turn_page(self, event: ComparePanel.Turned) -> None:
        event.stop()
        self._make_room()
        self.call_after_refresh(self.draw)

    def _make_room(self) -> None:
        """As many rows for the page as it has, within reason: what is read may take more than what is glanced at."""
        panel, height = self.query_one(ComparePanel), self.size.height
        glance = _GLANCE if height >= _TALL else _GLANCE_LOW
        panel.styles.height = min(panel.height_wanted, glance if panel.page is self._runs_page else height // 2)

    def action_axis(self) -> None:
        before = self.comparison.axis
        self.comparison.next_axis()
        if self.comparison.axis == before:
            self.notify("there is nothing yet to draw by another axis", markup=False)
        self.query_one(CompareDeck).other_axis()

    @on(ComparePanel.Moved)
    def raise_line(self, event: ComparePanel.Moved) -> None:
        """The line of the run under the cursor lies on top."""
        event.stop()
        self.query_one(CompareDeck).draw(self._on_top)

    def action_hide(self) -> None:
        if self.query_one(ComparePanel).page is self._runs_page:
            self.comparison.hidden ^= {self._current.place}
            self.draw()

    def action_sort_next(self) -> None:
        self._runs_page.sort_next()
        self.draw()

    def action_turn_round(self) -> None:
        self._runs_page.turned = not self._runs_page.turned
        self.draw()

    @on(ComparePanel.Opened)
    def action_open(self) -> None:
        panel = self.query_one(ComparePanel)
        if panel.page is self._runs_page:
            self._open_run(self._current.run)
        elif panel.page is self._config_page and self._config_page.found():
            from qig_tui.screens.difference import DifferenceScreen

            runs = [(run.letter, run.name) for run in self._config_page.runs]
            self.app.push_screen(DifferenceScreen(self._config_page.found()[panel.cursor], runs))

    def _open_run(self, run: RunDir) -> None:
        from qig_tui.screens.run import RunScreen

        try:
            screen = RunScreen(run, setup=self._setup._replace(owned=False, at=None, screen="run"), memory=self._memory)
        except RunFormatError as error:
            self.notify(safe(error, 300), severity="error", markup=False)
        else:
            self.app.push_screen(screen)

    def action_pane(self, number: str) -> None:
        """Another of the screens of the run that this was opened from."""
        below = self.app.screen_stack[-2]
        if isinstance(below, Pane):
            self.dismiss()
            self.app.call_later(below.action_pane, number)

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 2:
            self.dismiss()
