"""The runs of a folder: sorted, filtered, marked, and one of them opened."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_tui.columns import NEWEST
from qig_tui.compare.places import Places
from qig_tui.memory import Memory
from qig_tui.picture import WATCHED
from qig_tui.runs.columns import Order, sortable
from qig_tui.runs.filter import Filter, FilterError, parse
from qig_tui.setup import DEFAULT, Setup
from qig_tui.sources.runs import RunRow, RunShelf
from qig_tui.text import grouped, safe
from qig_tui.widgets.filter_bar import FilterBar
from qig_tui.widgets.lines import Part
from qig_tui.widgets.runs_table import MARK, BarLine, RunsTable

LOOK_S = 1.0
_NEEDED = ("question_mark", "q")
_OFFERED = (*_NEEDED, "enter", "slash", "space", "5", "o", "O", "u", "t")
"""The keys of the last line, the most needed first."""


class RunsScreen(Screen[None]):
    """Its worker looks at the folder, its handlers choose which runs stand where. Closed over by a run, it rests."""

    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "#runs"
    # Textual declares this as an instance variable, so mypy refuses ClassVar.
    VERTICAL_BREAKPOINTS = [(0, "-sliver"), (5, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", tooltip="Open the run under the cursor"),
        Binding(
            "slash", "filter", "filter", key_display="/", tooltip="state:live phi>0.7 name~charlie -worst:ok age<2h"
        ),
        Binding("o", "sort_next", "sort", tooltip="Sort by the next column; a click on its header does too"),
        Binding("O", "turn_round", "reverse", tooltip="Turn the order round"),
        Binding(
            "space", "mark", "mark", tooltip="Mark the run, or unmark it, and go to the next; marked runs stay in sight"
        ),
        Binding("u", "unmark", "unmark", tooltip="Unmark every run"),
        Binding("5,c", "compare", "compare", tooltip="Lay the marked runs over one another, eight at most"),
        Binding("escape", "no_filter", "no filter", tooltip="Take the filter away"),
    ]

    def __init__(
        self,
        root: Path,
        *,
        setup: Setup = DEFAULT,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        self._root = root
        self._setup = setup
        self._memory = memory or Memory(None)
        self._order = Order.of(self._memory.chosen.runs_sort)
        self._stop = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._shelf = RunShelf(root)
        self._rows: list[RunRow] = []
        self._filter = Filter()
        self._metrics: frozenset[str] | None = None
        """Every metric that some run has; None until all are read."""
        self._progress: tuple[int, int] | None = (0, 0)
        self._arranged: list[RunRow] = []
        """Those that are shown, as they stand."""
        self._fitting = 0
        self.places = Places()
        """The colour and letter that each run had when it was compared."""
        self.marked: list[str] = []
        """Ids of runs in the order of marking."""
        self.is_drawn = False
        """Whether every run that lay there at the start has been drawn."""

    def compose(self) -> ComposeResult:
        yield BarLine(id="runs-title")
        yield RunsTable(id="runs")
        yield FilterBar("filter", "state:live  phi>0.7  name~charlie  -worst:ok  age<2h  a OR b", id="runs-filter")
        yield BarLine(id="runs-keys")

    def on_mount(self) -> None:
        self._arrange()
        self._read()

    def on_unmount(self) -> None:
        self._stop.set()
        self._awake.set()

    def on_screen_suspend(self) -> None:
        self._awake.clear()

    def on_screen_resume(self) -> None:
        self._awake.set()

    @work(thread=True, exclusive=True, group="runs")
    def _read(self) -> None:
        """Looks and hands over; touches no widget."""

        def report(rows: list[RunRow], count: int, of: int) -> None:
            if not self._stop.is_set():
                self.app.call_from_thread(self._take, rows, (count, of))

        while not self._stop.is_set():
            rows = self._shelf.look(report)
            if not self._stop.is_set():
                self.app.call_from_thread(self._take, rows, None)
            self._stop.wait(LOOK_S)
            self._awake.wait()

    def _take(self, rows: list[RunRow], progress: tuple[int, int] | None) -> None:
        """Fold in what a look found.

        Args:
            progress: how many of how many names have been read, where this is not all yet.
        """
        if not self.display:
            # Closing: some of the widgets are gone already.
            return
        if progress is not None and self.is_drawn:
            # Several came at once while others were in sight: they would vanish until they are read again.
            return
        changed = rows != self._rows
        self._progress, self._rows = progress, rows
        if progress is None:
            if self._shelf.problem is None:
                there = {row.id for row in rows}
                self.marked = [run_id for run_id in self.marked if run_id in there]
            if changed or self._metrics is None:
                metrics = frozenset(name for row in rows for name in row.metrics)
                if metrics != self._metrics:
                    self._metrics = metrics
                    self._parse(self.query_one(FilterBar).text)
        if changed or "age" in self._filter.keys:
            self._arrange()
        else:
            self._draw()
        self.is_drawn = self.is_drawn or progress is None

    def _arrange(self) -> None:
        """Filter, sort, and draw what differs."""
        now = time.time()
        marked = set(self.marked)
        fits = [self._filter.fits(row, now) for row in self._rows]
        self._fitting = sum(fits)
        seen = [row for row, fit in zip(self._rows, fits, strict=True) if fit or row.id in marked]
        self._arranged = self._order.sort(seen)
        self._draw()

    def _draw(self) -> None:
        self.query_one(RunsTable).show(
            self._arranged,
            now=time.time(),
            marked=self.marked,
            order=self._order,
            instead=self._sentence(),
            settled=self._progress is None,
        )
        self._draw_title()
        self._draw_keys()

    def _sentence(self) -> str:
        """What is said where no run is in sight."""
        if self._progress is not None:
            return "reading"
        if self._shelf.problem is not None:
            return f"the folder {safe(self._shelf.problem, 100)}; it is looked for every second"
        if not self._rows:
            return "no run yet; one that begins here appears"
        return "no run fits the filter; escape takes it away"

    def _draw_title(self) -> None:
        count = len(self._rows)
        shown = f"{grouped(self._fitting)} of {grouped(count)}" if self._filter.groups else grouped(count)
        parts: list[Part] = [("strong", f"{shown} {'run' if shown == '1' else 'runs'}")]
        if beside := len(self._arranged) - self._fitting:
            parts.append(("warning", f" · {grouped(beside)} more in sight because marked"))
        if self._progress is not None and not count:
            parts = [("strong", "runs")]
        if self._progress is not None and self._progress[1]:
            read, of = self._progress
            parts.append(("accent", f" · reading {grouped(read)} of {grouped(of)}"))
        alive = sum(row.liveness is not None and row.liveness.word in WATCHED for row in self._rows)
        if alive:
            parts.append(("ok", f" · {grouped(alive)} alive"))
        if self.marked:
            parts.append(("cursor", f" · {MARK} {grouped(len(self.marked))} marked"))
        parts.append(("dim", f" · {self._order.words}"))
        if self._shelf.problem is not None and count == 0:
            parts.append(("critical", f" · ✖ {safe(self._shelf.problem, 60)}"))
        parts.append(("dim", f" · {safe(self._root, 200)}"))
        self.query_one("#runs-title", BarLine).show(parts)

    @on(RunsTable.Moved)
    def _draw_keys(self) -> None:
        """The last line: why the run under the cursor cannot be read, and the keys."""
        parts: list[Part] = []
        row = self.query_one(RunsTable).current
        if row is not None and row.error is not None:
            parts.append(("critical", f"✖ {safe(row.error, 300)}"))
        elif row is not None and row.note:
            parts.append(("warning", f"▲ {safe(row.note, 300)}"))
        self.query_one("#runs-keys", BarLine).show(parts, self._keys(), needed=len(_NEEDED))

    def _keys(self) -> list[tuple[str, str]]:
        if self.query_one(FilterBar).is_typed_into:
            return [("⏎", "keep the filter"), ("esc", "no filter")]
        known = self.active_bindings
        bindings = [known[key].binding for key in _OFFERED if key in known]
        return [(self.app.get_key_display(b), b.description) for b in bindings]

    @on(FilterBar.Changed)
    def narrow(self, event: FilterBar.Changed) -> None:
        """Filter as it is typed; of one that cannot be read all is shown, and what is wrong."""
        event.stop()
        self._parse(event.text)
        self._arrange()
        now, table = time.time(), self.query_one(RunsTable)
        if table.current is not None and not self._filter.fits(table.current, now):
            # A marked one stays in sight; enter is meant for what was looked for.
            first = next((i for i, row in enumerate(self._arranged) if self._filter.fits(row, now)), None)
            if first is not None:
                table.move_to(first)

    def _parse(self, text: str) -> None:
        bar = self.query_one(FilterBar)
        try:
            self._filter = parse(text, self._metrics)
        except FilterError as error:
            self._filter = Filter()
            bar.say(safe(error, 200), wrong=True)
        else:
            bar.say("")

    @on(FilterBar.Closed)
    def back_to_the_table(self, event: FilterBar.Closed) -> None:
        event.stop()
        self.query_one(RunsTable).focus()

    def on_descendant_focus(self) -> None:
        self._draw_keys()

    @on(RunsTable.SortAsked)
    def sort_by_header(self, event: RunsTable.SortAsked) -> None:
        event.stop()
        same = event.key == self._order.key
        self._sort(Order(event.key, turned=same and not self._order.turned))

    def action_sort_next(self) -> None:
        keys: Sequence[str] = sortable(self.query_one(RunsTable).columns)
        at = keys.index(self._order.key) if self._order.key in keys else -1
        self._sort(Order(keys[(at + 1) % len(keys)] if keys else NEWEST))

    def action_turn_round(self) -> None:
        self._sort(Order(self._order.key, not self._order.turned))

    def _sort(self, order: Order) -> None:
        self._order = order
        self._memory.change(runs_sort=str(order))
        self._arrange()

    def action_filter(self) -> None:
        self.query_one(FilterBar).open()

    def action_no_filter(self) -> None:
        self.query_one(FilterBar).action_clear()

    def action_mark(self) -> None:
        table = self.query_one(RunsTable)
        row = table.current
        if row is None:
            return
        if row.id in self.marked:
            self.marked.remove(row.id)
        else:
            self.marked.append(row.id)
        table.action_cursor_move(1)
        self._arrange()

    def action_unmark(self) -> None:
        self.marked.clear()
        self._arrange()

    def marked_runs(self) -> list[RunDir]:
        """In the order of marking."""
        known = {row.id: row.run for row in self._rows}
        return [known[run_id] for run_id in self.marked if run_id in known]

    def action_compare(self) -> None:
        marked = self.marked_runs()
        if not marked:
            words = "mark the runs to compare with space, then press 5"
            self.notify(words, title="no run is marked", severity="warning", markup=False)
            return
        from qig_tui.screens.compare import CompareScreen

        self.app.push_screen(CompareScreen(marked, memory=self._memory, places=self.places, setup=self._setup))

    @on(RunsTable.Opened)
    def action_open(self) -> None:
        row = self.query_one(RunsTable).current
        if row is None:
            return
        from qig_tui.screens.run import RunScreen

        try:
            screen = RunScreen(row.run, setup=self._setup, memory=self._memory)
        except RunFormatError as error:
            self.notify(safe(error, 300), severity="error", markup=False)
        else:
            self.app.push_screen(screen)
