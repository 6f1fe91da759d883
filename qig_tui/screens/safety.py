"""Whether the run is safe: every condition, every alarm with its cause, every emergency, and how it can be stopped."""

from functools import partial
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus

from qig_core.rundir.schema import Event, Manifest
from qig_tui.alarms.episodes import Alarm
from qig_tui.alarms.picture import Judged, SafetyPicture
from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.sources.surroundings import Beside, Surroundings, read_older
from qig_tui.widgets.abort_panel import AbortPanel
from qig_tui.widgets.alarms import AlarmList
from qig_tui.widgets.conditions import ConditionTable
from qig_tui.widgets.emergency_list import EmergencyList
from qig_tui.widgets.row_list import RowList

_LOOK_S = 1.0
_READ_AGAIN = 200
"""Events that the journal has dropped since those before it were read, before they are read again."""
_PANELS = ("conditions", "alarms", "emergencies", "abort")


class SafetyScreen(Pane):
    """Shows and asks nothing of the run by itself. The four parts take the keys in turn."""

    CSS_PATH = "safety.tcss"
    AUTO_FOCUS = "#conditions"
    NUMBER = "3"
    OFFERED = ("enter", "g", "m", "v", "tab", "1", "2", "4", "left_square_bracket")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go", "go there", tooltip="Show the run as it was when this condition turned, or this happened"),
        Binding("m", "metric", "chart", tooltip="The metric of this row in the first chart of the run screen"),
        Binding("v", "level", "severity", tooltip="All alarms and advice, warnings and worse, or critical ones"),
        Binding("tab", "app.focus_next", "next part", tooltip="Conditions, alarms, emergencies, abort: the keys go on"),
    ]

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._safety = SafetyPicture(watch.picture)
        self._surroundings = Surroundings(watch.run)
        self._older_until = 0
        """The seq up to which older events were read."""
        self._at = ""

    @property
    def beside(self) -> Beside | None:
        """What lies beside the records; None: not looked at yet."""
        return self._safety.beside

    def compose_body(self) -> ComposeResult:
        with Vertical(id="safety-body"):
            yield ConditionTable(id="conditions")
            with Horizontal(id="safety-below"):
                yield AlarmList(self._safety.tell, id="alarms")
                with Vertical(id="stops"):
                    yield EmergencyList(id="emergencies")
                    yield AbortPanel(id="abort")

    def on_mount(self) -> None:
        self.set_interval(_LOOK_S, self._look)
        self._look()

    @on(DescendantFocus)
    def _make_room(self) -> None:
        """In one column the part that has the keys takes most of the room."""
        at = self.focused.id if self._is_one_column and self.focused is not None else None
        wanted = f"-at-{at}" if at in _PANELS else ""
        if wanted != self._at:
            # At once and on what it concerns: each class costs a look at the style of everything below.
            self._at = wanted
            self.query_one("#safety-body").set_classes(wanted)

    @property
    def _is_one_column(self) -> bool:
        return self.has_class("-narrow") or self.has_class("-slim")

    def _look(self) -> None:
        journal = self.picture.journal
        first = journal.events[0].seq if len(journal.events) == journal.events.maxlen else 0
        wanted = first if first and (not self._older_until or first >= self._older_until + _READ_AGAIN) else 0
        look = partial(self._look_beside, self.picture.manifest, wanted)
        self.run_worker(look, thread=True, exclusive=True, group="beside")

    def _look_beside(self, manifest: Manifest, older_than: int) -> None:
        found = self._surroundings.look(manifest)
        older: tuple[Event, ...] | None = None
        if older_than:
            try:
                older = read_older(self.run_dir, older_than)
            except OSError:
                # Who follows the file tells of it.
                older = None
        self.app.call_from_thread(self._take, found, older, older_than)

    def _take(self, found: Beside, older: tuple[Event, ...] | None, older_than: int) -> None:
        if not self.is_mounted or not self.display:
            return
        self._safety.beside = found
        if older is not None:
            self._safety.older, self._older_until = older, older_than
            self._safety.follow(self.shown)
            self._draw_alarms()
        self._draw_stops()

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        is_new = self._safety.follow(self.shown)
        if slow or is_new:
            self._make_room()
            table = self.query_one(ConditionTable)
            table.show(self._safety.conditions(), current=self.shown.watched)
            self._fit(table, table.lines_wanted)
            self._draw_alarms()
            self._draw_stops()

    def _draw_alarms(self) -> None:
        safety = self._safety
        until = "stood to the end" if safety.is_over else "still"
        alarms = list(safety.book.alarms)
        self.query_one(AlarmList).show(alarms, safety.standing, count=safety.book.count, until=until)

    def _draw_stops(self) -> None:
        setup, stops = self.run_watch.setup, self._safety.stops()
        panel = self.query_one(EmergencyList)
        panel.show(stops.found, total=stops.total, later=stops.later, problem=stops.problem)
        self._fit(panel, panel.lines_wanted)
        self.query_one(AbortPanel).show(self._safety.stopping(stops, read_only=setup.read_only, web=setup.web))

    def _fit(self, panel: ConditionTable | EmergencyList, lines: int) -> None:
        """As high as it needs; the arrangement says how high it may be, and in one column it says all."""
        wanted = None if self._is_one_column else lines
        height = panel.styles.inline.height
        if wanted != (None if height is None else int(height.value)):
            panel.styles.height = wanted

    @property
    def _place(self) -> RowList[Any]:
        """The rows that the keys are at."""
        return self.focused if isinstance(self.focused, RowList) else self.query_one(ConditionTable)

    @on(RowList.Chosen, "#conditions")
    def show_condition(self, event: RowList.Chosen) -> None:
        from qig_tui.screens.condition import ConditionScreen

        event.stop()
        judged = self.query_one(ConditionTable).chosen
        if judged is not None:
            turns = self._safety.book.turns.get(judged.row.condition.id, ())
            self.app.push_screen(ConditionScreen(judged, list(turns)), self._go)

    @on(RowList.Chosen, "#alarms")
    def show_alarm(self, event: RowList.Chosen) -> None:
        """The whole event with which it was worst; the key `g` goes to where it was raised."""
        from qig_tui.screens.event import EventScreen

        event.stop()
        alarm = self.query_one(AlarmList).chosen
        if alarm is not None:
            self.app.push_screen(EventScreen(alarm.worst))

    @on(RowList.Chosen, "#emergencies")
    def show_emergency(self, event: RowList.Chosen) -> None:
        from qig_tui.screens.emergency import EmergencyScreen

        event.stop()
        emergency = self.query_one(EmergencyList).chosen
        if emergency is not None:
            self.app.push_screen(EmergencyScreen(self.run_dir, emergency), self._go)

    def _go(self, step: int | None) -> None:
        if step is not None:
            self.run_watch.pause()
            self.run_watch.go(step)

    def action_go(self) -> None:
        chosen = self._place.chosen
        if chosen is None:
            return
        match chosen:
            case Judged():
                step = chosen.since_step
            case Alarm():
                step = chosen.raised.step
            case _:
                step = chosen.step
        if step is None:
            self.run_watch.tell("no step is recorded of this: there is nowhere to go")
        self._go(step)

    def action_metric(self) -> None:
        from qig_tui.screens.run import RunScreen

        chosen = self._place.chosen
        condition = chosen.row.condition if isinstance(chosen, Judged) else getattr(chosen, "condition", None)
        metric = "" if condition is None else condition.metric
        if metric and metric in self.shown.run_history.metrics:
            # Limits are of the run's own metrics.
            self.run_watch.turn_to(None)
        else:
            words = f"{metric} has no values: there is no chart of it" if metric else "no metric belongs to this row"
            self.run_watch.tell(words)
            return
        for screen in self.app.screen_stack:
            if isinstance(screen, RunScreen):
                self.dismiss()
                screen.show_metric(metric)

    def action_level(self) -> None:
        self.query_one(AlarmList).next_level()
