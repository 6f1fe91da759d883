"""Where a basin stands: its entries, what moved, where it has been, and when it stood nearly there before."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from qig_tui.basin import copying as basin_copy
from qig_tui.basin.basins import acceleration
from qig_tui.basin.words import reference, three, why_none
from qig_tui.picture import BasinView
from qig_tui.screens.basin_reading import BasinReading, Found, Read
from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.text import grouped
from qig_tui.widgets.basin_facts import BasinFacts, Facts
from qig_tui.widgets.basin_grid import BasinGrid
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.basin_trail import BasinTrail, marks_of, told_of
from qig_tui.widgets.sentence import Sentence
from qig_tui.widgets.tabs import Tabs

_PAGES = ("table", "grid", "path")
_SINGLE = (100, 20)
"""Under so many cells or lines one of them is shown at a time."""
_NEAREST = "nearest past state"


class BasinScreen(Pane):
    """The table, the grid, the distances and the path; they show the same basin and mark the same entry."""

    CSS_PATH = "basin.tcss"
    AUTO_FOCUS = "BasinTable"
    NUMBER = "2"
    OFFERED = ("i", "n", "d", "o", "y", "v", "space", "left_square_bracket")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "pin(True)", "pin", tooltip="Measure from the basin that is shown; again: from the first one"),
        Binding("I", "pin(False)", "unpin", show=False, tooltip="Measure from the run's first basin again"),
        Binding("n", "nearest", "nearest", tooltip="To the past state that is nearest to the basin that is shown"),
        Binding("d", "change", "Δ grid", tooltip="The grid shows values, or differences to the reference"),
        Binding("y", "copy('JSON')", "copy", tooltip="Copy the basin that is shown as JSON"),
        Binding("Y", "copy('NumPy')", "copy", show=False, tooltip="Copy the basin that is shown for NumPy"),
        Binding("v", "page", "view", tooltip="In a small terminal: the table, the grid or the path of the basin"),
    ]

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._reading = BasinReading(self, watch)
        self._has_more = True

    def compose_body(self) -> ComposeResult:
        yield Tabs(_PAGES, "v", id="basin-tabs")
        with Horizontal(id="basin-body"):
            yield BasinTable(id="basin-entries")
            with Vertical(id="basin-side"):
                with Horizontal(id="basin-above"):
                    yield BasinGrid(id="basin-grid")
                    yield BasinFacts(id="basin-facts")
                yield BasinTrail(id="basin-trail")
        yield Sentence(id="basin-none")

    def on_mount(self) -> None:
        memory, table = self._reading.memory, self.query_one(BasinTable)
        table.sort(memory.sort, reverse=memory.reverse)
        self._turn_to(memory.page)

    @property
    def is_settled(self) -> bool:
        """Whether all that is to be found out of the basin that is shown is known."""
        view = self.shown.basin()
        return view is None or self._reading.fitting(view) is not None

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        self._has_more = self._has_more or fresh
        self.set_class(self.size.width < _SINGLE[0] or self.size.height < _SINGLE[1], "-single")
        if not slow:
            return
        if self._has_more and self._reading.read_on():
            self._has_more = False
        self._show()

    def _show(self) -> None:
        view, memory, shown = self.shown.basin(), self._reading.memory, self.shown
        self.set_class(view is None, "-none")
        if view is None:
            self.query_one(Sentence).say(*why_none(shown, memory.kept, memory.problem))
            return
        self._reading.derive(view)
        derived, origin = self._reading.fitting(view), reference(shown, view)
        self.query_one(BasinTable).show(
            view,
            () if memory.derived is None else memory.derived.sparks,
            entry=memory.entry,
            title=[("strong", "BASIN"), ("dim", "  step "), ("strong", grouped(view.step))],
            aside=[("dim", "reference: "), ("text", origin)],
        )
        self.query_one(BasinGrid).show(view, entry=memory.entry, change=memory.change)
        known = three(shown, view, derived)
        interval = known[0][0] - known[1][0] if len(known) > 1 else 0
        facts = Facts(
            basin=view,
            reference=origin,
            interval=interval if interval > 0 else None,
            acceleration_rad=acceleration(known),
            drift_rad=shown.history.latest("drift_rolling"),
            derived=derived,
            problem=memory.problem,
        )
        self.query_one(BasinFacts).show(facts)
        self._show_trail(view)

    def _show_trail(self, view: BasinView) -> None:
        """The map of before stands until there is the one of this moment."""
        widget, memory = self.query_one(BasinTrail), self._reading.memory
        derived = memory.derived
        if derived is None:
            widget.show(memory.problem or "reading the basins of this run")
        elif isinstance(derived.trail, str):
            widget.show(derived.trail)
        else:
            here = "now" if self.shown.moment is None and self.shown.cursor is None else f"step {grouped(view.step)}"
            marks = marks_of(self.shown, view, derived.trail, derived, here)
            widget.show(derived.trail, marks, told_of(derived.trail, derived))

    def _again(self) -> None:
        if self.is_current and self.display:
            self._show()

    @on(Read)
    def take_read(self, event: Read) -> None:
        event.stop()
        self._reading.take_read(event)
        self._again()

    @on(Found)
    def take_found(self, event: Found) -> None:
        event.stop()
        self._reading.take_found(event)
        self._again()

    @on(BasinTable.Chosen)
    @on(BasinGrid.Chosen)
    def choose_entry(self, event: BasinTable.Chosen | BasinGrid.Chosen) -> None:
        """The table and the grid mark the same entry."""
        event.stop()
        self._reading.memory.entry = event.entry
        self.query_one(BasinTable).go_to(event.entry)
        self.query_one(BasinGrid).go_to(event.entry)

    @on(BasinTable.Sorted)
    def sort_table(self, event: BasinTable.Sorted) -> None:
        event.stop()
        memory = self._reading.memory
        memory.sort, memory.reverse = event.key, event.reverse
        self.query_one(BasinTable).sort(event.key, reverse=event.reverse)

    @on(BasinTrail.Wanted)
    def go_on_path(self, event: BasinTrail.Wanted) -> None:
        event.stop()
        self.run_watch.pause()
        self.run_watch.go(event.step)

    def action_pin(self, wanted: bool) -> None:
        """Measure from what is shown; where that is so already, or is not wanted any more, from the first basin."""
        view, pinned = self.shown.basin(), self.run_watch.looked.pinned
        if view is None:
            return
        there = pinned is not None and pinned[0] == view.step
        origin = (view.step, view.values) if wanted and not there else None
        watch = self.run_watch
        for picture in (watch.looked, watch.past, watch.still):
            if picture is not None:
                picture.pinned = origin
        self.draw_all()

    def action_change(self) -> None:
        memory = self._reading.memory
        memory.change = not memory.change
        self.draw_all()

    def action_nearest(self) -> None:
        """Go to the past state that is nearest to the shown one, on the branch that the run is on."""
        view, watch = self.shown.basin(), self.run_watch
        if view is None:
            return
        derived = self._reading.fitting(view)
        if derived is None or derived.share is not None:
            watch.tell("what was before is still being read", title=_NEAREST, severity="information")
            return
        if derived.nearest is not None and derived.nearest.left:
            words = f"step {grouped(derived.nearest.step)} is nearer, but on a branch that the run went back from"
            watch.tell(words, title=_NEAREST, severity="information")
        if derived.own is not None:
            watch.pause()
            watch.go(derived.own.step)
        elif derived.nearest is None:
            words = f"no basin was recorded {grouped(derived.lag)} steps or more before this one"
            watch.tell(words, title=_NEAREST, severity="information")

    def action_copy(self, form: str) -> None:
        """Put the basin that is shown into the clipboard of whoever looks at this terminal."""
        view = self.shown.basin()
        if view is None:
            return
        if self.run_watch.setup.web:
            self.run_watch.tell("not from a browser; qig-tui export writes the numbers", title="nothing is copied")
            return
        write = basin_copy.as_json if form == "JSON" else basin_copy.as_numpy
        stream = "" if self.shown.stream is None else f" {self.shown.stream}"
        text = write(f"{self.picture.manifest.id}{stream}", view.step, view.values)
        self.app.copy_to_clipboard(text)
        title = f"basin of step {grouped(view.step)} as {form}, {grouped(len(text.encode()))} bytes"
        words = "sent to the terminal by OSC 52: tmux needs set-clipboard on, and some terminals refuse it"
        if len(text) > basin_copy.MANY_BYTES:
            words = f"many terminals take no more than {grouped(basin_copy.MANY_BYTES)} bytes, and ignore this"
        self.run_watch.tell(words, title=title, severity="information")

    @on(Tabs.Chosen)
    def turn_to(self, event: Tabs.Chosen) -> None:
        event.stop()
        self._turn_to(event.place)

    def action_page(self) -> None:
        self._turn_to((self._reading.memory.page + 1) % len(_PAGES))

    def _turn_to(self, page: int) -> None:
        self._reading.memory.page = page
        self.query_one(Tabs).show(page)
        for number, name in enumerate(_PAGES):
            self.set_class(number == page, f"-page-{name}")
        # What was not in sight has drawn nothing.
        self.call_after_refresh(self.draw_all)
