"""What a run does beyond training one kernel: its phases with their guards, or its Garys with their Ocean."""

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus

from qig_core.rundir.schema import Event
from qig_tui.programs.constellation import Advice, Gary
from qig_tui.programs.phases import Phase, current
from qig_tui.screens.event import EventScreen
from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.text import safe
from qig_tui.widgets.distances import DistanceGrid, OceanFacts
from qig_tui.widgets.garys import AdviceList, GaryTable, InterventionList
from qig_tui.widgets.phases import GuardTable, PassageList, PhaseList
from qig_tui.widgets.row_list import RowList
from qig_tui.widgets.sentence import Sentence

_PARTS = {
    "-phases": ("phases", "guards", "passages"),
    "-garys": ("garys", "advice", "interventions"),
    "-none": (),
}
"""What is in sight, by the class of the screen, and which of it takes keys."""


class ProgramScreen(Pane):
    """Shows and asks nothing of the run. Which of its two faces is in sight the events of the run say."""

    CSS_PATH = "program.tcss"
    NUMBER = "7"
    OFFERED = ("enter", "g", "tab", "1", "3", "left_square_bracket", "m")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go", "go there", tooltip="Show the run as it was when this began, or happened"),
        Binding("tab", "app.focus_next", "next part", tooltip="The keys go on to the next part"),
    ]

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._face = ""
        self._at = ""

    def compose_body(self) -> ComposeResult:
        with Vertical(id="program-phases"):
            yield PhaseList(id="phases")
            yield GuardTable(id="guards")
            yield PassageList(id="passages")
        with Vertical(id="program-garys"):
            yield GaryTable(id="garys")
            with Horizontal(id="garys-below"):
                yield DistanceGrid(id="distances")
                with Vertical(id="ocean"):
                    yield OceanFacts(id="facts")
                    yield AdviceList(id="advice")
                    yield InterventionList(id="interventions")
        yield Sentence(id="program-none")

    @on(DescendantFocus)
    def _make_room(self) -> None:
        """In one column the part that has the keys takes most of the room."""
        at = self.focused.id if self._is_one_column and self.focused is not None else None
        wanted = f"-at-{at}" if at in _PARTS.get(self._face, ()) else ""
        if wanted != self._at:
            for name in filter(None, (self._at, wanted)):
                self.set_class(name == wanted, name)
            self._at = wanted

    @property
    def _is_one_column(self) -> bool:
        return self.has_class("-narrow") or self.has_class("-slim")

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        if slow:
            self._choose_face()
            self._show()
            self._make_room()

    def _choose_face(self) -> None:
        shown = self.shown
        program = shown.manifest.config.get("program")
        if shown.phases() or (program == "charlie" and shown.report() is None):
            face = "-phases"
        elif shown.report() is not None or program == "constellation":
            face = "-garys"
        else:
            face = "-none"
        if face == self._face:
            return
        for other in _PARTS:
            self.set_class(other == face, other)
        self._face = face
        parts = _PARTS[face]
        if parts:
            self.query_one(f"#{parts[0]}").focus()
        else:
            self.set_focus(None)

    def _show(self) -> None:
        shown = self.shown
        match self._face:
            case "-phases":
                phases, table = shown.phases(), self.query_one(PhaseList)
                first = not table.items
                table.show(phases, shown.run_history.step)
                latest = current(phases)
                if first and latest is not None:
                    table.put(phases.index(latest))
                    table.settle()
                self._show_guards()
                self.query_one(PassageList).show(shown.journal.generated)
                self._fit(table, self.query_one(GuardTable))
            case "-garys":
                report = shown.report()
                self.query_one(GaryTable).show(report)
                self.query_one(DistanceGrid).show(report)
                self.query_one(OceanFacts).show(report)
                self.query_one(AdviceList).show(report)
                self.query_one(InterventionList).show(shown.journal.interventions)
                self._fit(self.query_one(GaryTable), self.query_one(AdviceList))
            case _:
                named = shown.manifest.config.get("program")
                what = f"the program {safe(named, 40)}" if isinstance(named, str) else "one kernel"
                self.query_one(Sentence).say(
                    f"This run trains {what}: it tells of no phases, and no Ocean watches it.",
                    "A charlie run has its phases and guards here, a constellation its Garys.",
                )

    def _show_guards(self) -> None:
        self.query_one(GuardTable).show(self.query_one(PhaseList).current)

    def _fit(self, *panels: PhaseList | GuardTable | GaryTable | AdviceList) -> None:
        """As high as they need; the arrangement says how high they may be, and in one column it says all."""
        for panel in panels:
            wanted = None if self._is_one_column else panel.lines_wanted
            height = panel.styles.inline.height
            if wanted != (None if height is None else int(height.value)):
                panel.styles.height = wanted

    @property
    def _place(self) -> RowList[Any] | None:
        """The rows that the keys are at."""
        return self.focused if isinstance(self.focused, RowList) else None

    @on(PhaseList.Moved)
    def show_guards(self, event: PhaseList.Moved) -> None:
        event.stop()
        self._show_guards()

    @on(RowList.Chosen)
    def choose(self, event: RowList.Chosen) -> None:
        """All that is recorded of a row; of a Gary its stream."""
        event.stop()
        chosen = event.rows.chosen
        if isinstance(chosen, Gary):
            self._open(chosen.name)
            return
        found = self._event_of(chosen)
        if found is not None:
            self.app.push_screen(EventScreen(found))

    def _event_of(self, chosen: object) -> Event | None:
        report = self.shown.report()
        match chosen:
            case Event():
                return chosen
            case Phase():
                return chosen.event
            case Advice():
                return None if report is None else report.event
            case _:
                phase = self.query_one(PhaseList).current
                return None if phase is None else phase.event

    def _open(self, stream: str) -> None:
        """A Gary's own stream on the run screen."""
        if stream not in self.picture.streams:
            self.run_watch.tell(f"{stream} has no stream of its own in this run")
            return
        self.show_stream(stream)
        self.dismiss()

    def action_go(self) -> None:
        place = self._place
        chosen = None if place is None else place.chosen
        match chosen:
            case None:
                return
            case Phase() | Advice():
                step = chosen.since_step
            case _:
                event = self._event_of(chosen)
                step = None if event is None else event.step
        if step is None:
            self.run_watch.tell("no step is recorded of this: there is nowhere to go")
            return
        self.run_watch.pause()
        self.run_watch.go(step)
