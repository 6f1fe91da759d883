"""One run: whether it is well, where it stands, and the keys that ask something of it."""

from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from qig_core.rundir.layout import RunDir
from qig_tui.memory import Memory
from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.setup import DEFAULT, SCREENS, Setup
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.events import EventList
from qig_tui.widgets.filter_bar import FilterBar
from qig_tui.widgets.program_panel import ProgramPanel
from qig_tui.widgets.safety import SafetyPanel


class RunScreen(Pane):
    """Stands below the other screens of its run: it starts the reading, and has whichever is in sight drawn."""

    # That of the dialogs as well: what is known at the start need not restyle every screen when the first one opens.
    CSS_PATH = ["run.tcss", "dialog.tcss"]  # noqa: RUF012  # as Textual declares it
    NUMBER = "1"
    OFFERED = ("space", "m", "2", "3", "4", "left_square_bracket", "s", "l")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "b", "pane('2')", "basin", show=False, tooltip="The basin: its 64 entries, what moved, where it has been"
        ),
        Binding("e", "ask('sampling')", "samples", tooltip="How often a sample is recorded"),
        Binding("slash", "filter", "filter", key_display="/", tooltip="Show only the metrics that are meant"),
        Binding("o", "choose_metrics", "choose", tooltip="Which metrics have a chart, and in which order"),
        *(replace(key, action=f"charts({key.action!r})") for key in ChartDeck.KEYS),
        *(replace(key, action=f"events({key.action!r})") for key in EventList.KEYS),
    ]

    def __init__(self, run: RunDir, *, setup: Setup = DEFAULT, memory: Memory | None = None) -> None:
        super().__init__(Watch(run, self, setup, memory or Memory()))
        self.run_watch.came, self.run_watch.redraw = self._came, self._redraw
        self._to_open = "" if setup.screen == "run" else SCREENS[setup.screen]
        """The number of the screen to open over this one, once it is drawn."""

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield ChartDeck(lambda: self.shown, self.run_watch.memory, id="charts")
            with Vertical(id="side"):
                yield SafetyPanel(id="safety")
                yield ProgramPanel(id="program")
                yield BasinPanel(id="basin")
        yield FilterBar("events", "words  -not  kind:checkpoint  severity:warning  step>1000", id="events-filter")
        with Horizontal(id="below"):
            yield EventList(id="events")
            yield CheckpointStrip(id="checkpoints")
        yield FilterBar("metrics", "words or patterns; -word leaves out", id="metrics-filter")

    def on_mount(self) -> None:
        self.run_watch.start()
        self.set_interval(self.run_watch.setup.frame_s, self.run_watch.play_on)

    def on_unmount(self) -> None:
        self.run_watch.stop()

    def _came(self, fresh: bool) -> None:
        self.active.draw_soon(fresh=fresh)

    @property
    def is_drawn(self) -> bool:
        return super().is_drawn and not self._to_open

    def _redraw(self, everything: bool) -> None:
        if self._to_open and self.run_watch.is_drawn:
            number, self._to_open = self._to_open, ""
            self.action_pane(number)
            return
        if everything:
            self.active.draw_all()
        else:
            self.active.draw(fresh=False)

    @on(ChartDeck.Looked)
    def look_closer(self, event: ChartDeck.Looked) -> None:
        event.stop()
        self.run_watch.look_closer(event.view)

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        picture = self.shown
        if fresh:
            self.query_one(ChartDeck).draw()
        if slow:
            self.run_watch.look_closer(self.query_one(ChartDeck).view)
        if slow:
            self.query_one(SafetyPanel).show(picture.condition_rows(), current=picture.watched)
            has_program = self.query_one(ProgramPanel).show(
                picture.phases(), picture.report(), picture.run_history.step
            )
            self.set_class(has_program, "-program")
            self.query_one(BasinPanel).show(picture.basin())
        strip = self.query_one(CheckpointStrip)
        strip.show(picture.checkpoints, picture.tagged, picture.checkpoints_problem, picture.no_checkpoints)
        aside = "" if strip.display or not picture.checkpoints else f"{strip.in_short()}   "
        self.query_one(EventList).show(picture.journal.events, aside)

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

        chosen = await self.app.push_screen_wait(MetricsScreen(self.run_watch.looked, self.run_watch.memory.chosen))
        if chosen is not None:
            self.run_watch.memory.change(pinned=chosen.pinned, hidden=chosen.hidden)
            deck = self.query_one(ChartDeck)
            if chosen.lead:
                deck.lead(chosen.lead)
            deck.rearranged()

    def show_metric(self, metric: str) -> None:
        """Put a metric into the first chart."""
        self.query_one(ChartDeck).lead(metric)

    async def may_leave(self) -> bool:
        """Whether the app may close; it asks. Needs a worker."""
        return await self.run_watch.commands.may_leave()

    def action_back(self) -> None:
        """To what there is without filters, then to now, then to the list of runs where this was opened from it."""
        filters = [bar for bar in self.query(FilterBar) if bar.has_class("-open")]
        if filters:
            for bar in filters:
                bar.action_clear()
        elif self.run_watch.past is not None:
            self.run_watch.now()
        elif len(self.app.screen_stack) > 2:
            self.dismiss()
