"""What the screens of a run have in common: status above, the way through time and the keys below, seven numbers."""

import time
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from qig_core.rundir.layout import RunDir
from qig_tui.picture import RunPicture
from qig_tui.screens.watch import Watch
from qig_tui.travel import SPEEDS, marks
from qig_tui.widgets.footer import HonestyFooter
from qig_tui.widgets.scrubber import Scrubber
from qig_tui.widgets.status import StatusLine

_NUMBERS_S = 1.0
NEEDED = ("question_mark", "q")
"""The keys that the last line offers at any width, after the commands."""
_IN_THE_PAST = [("[ ]", "sample"), ("{ }", "event"), ("space", "replay"), ("< >", "speed"), ("end", "now")]
PANES = (
    ("1", "run", "The run: charts, limits, basin, events, checkpoints"),
    ("2", "basin", "The basin: its 64 entries, what moved, where it has been"),
    ("3", "safety", "Every limit, every alarm with its cause, every emergency"),
    ("4", "checkpoints", "Every checkpoint: verify, compare, prune, go back"),
    ("5", "compare", "This run beside the marked ones"),
    ("6", "notes", "The notes of this run, with formulas"),
    ("7", "program", "The phases of a charlie run with their guards; the Garys of a constellation"),
)


class Pane(Screen[None]):
    """A screen about one run. Subclasses say what stands between status and keys, and draw `shown` when told to.

    The run screen stands below the others; they come and go over it.
    """

    AUTO_FOCUS = ""
    # Textual declares these as instance variables, so mypy refuses ClassVar.
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-medium"), (140, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-sliver"), (10, "-flat"), (20, "-low"), (34, "-middling"), (44, "-tall")]  # noqa: RUF012
    NUMBER: ClassVar[str]
    """The key that opens it."""
    OFFERED: ClassVar[tuple[str, ...]] = ()
    """Its own keys in the last line, the most needed first."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "ask('abort')", "abort", tooltip="Stop the run with a checkpoint; asks first"),
        Binding("c", "send('checkpoint')", "checkpoint", tooltip="Write a checkpoint now"),
        Binding("p", "send('pause')", "pause", tooltip="Pause the run at its next step, or let it go on"),
        Binding("r", "ask('recover')", "recover", tooltip="Back to a checkpoint, of a live run or of a dead one"),
        Binding("z", "ask('soft_reset')", "soft reset", tooltip="Back to the last known good checkpoint; asks first"),
        *(Binding(number, f"pane({number!r})", word, tooltip=tooltip) for number, word, tooltip in PANES),
        Binding("space", "freeze", "freeze", tooltip="Hold the picture still; in the past: replay, or stay"),
        Binding("left_square_bracket", "hop(-1)", "earlier", key_display="[", tooltip="The sample before, as it was"),
        Binding("right_square_bracket", "hop(1)", "later", key_display="]", tooltip="The next sample, as it was"),
        Binding(
            "left_curly_bracket", "leap(-1)", "event before", key_display="{", tooltip="Back to what happened before"
        ),
        Binding("right_curly_bracket", "leap(1)", "next event", key_display="}", tooltip="To what happened next"),
        Binding("home", "first", "first step", tooltip="The first sample of the run, as it was"),
        Binding("end", "now", "now", tooltip="Back from the past, to the newest sample"),
        Binding(
            "less_than_sign", "speed(-1)", "slower", key_display="<", tooltip="Replay more slowly, 1 to 1000 times"
        ),
        Binding("greater_than_sign", "speed(1)", "faster", key_display=">", tooltip="Replay faster; begins a replay"),
        Binding(
            "left_parenthesis", "stream(-1)", "stream before", key_display="(", tooltip="Look at the stream before"
        ),
        Binding(
            "right_parenthesis",
            "stream(1)",
            "stream",
            key_display=")",
            tooltip="Look at the next stream of the run: control, branch, gary1",
        ),
        Binding("R", "write_report", "report", tooltip="Write a post-mortem with its charts into a folder here"),
        Binding("escape", "back", "back", show=False, tooltip="Back to where this came from"),
    ]

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.run_watch = watch
        self._speed = SPEEDS.index(10)
        self._stale = True
        self._is_composed = False
        self._drawing_soon = False
        self._drawn_t = 0.0
        self._numbers_t = 0.0
        self._verdict = ""
        self._keys: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield from self.compose_body()
        yield Scrubber(id="scrubber")
        yield HonestyFooter(id="footer")

    def compose_body(self) -> ComposeResult:
        raise NotImplementedError

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        """Show `shown`.

        Args:
            slow: numbers that all move a little may be drawn: once a second at most, at once where the worst
                condition's state is another one.
            fresh: samples have come since the last drawing, or everything is another one.
        """
        raise NotImplementedError

    @property
    def shown(self) -> RunPicture:
        """The run as it is to be shown: now, or at the moment that somebody went back to."""
        return self.run_watch.shown

    @property
    def picture(self) -> RunPicture:
        """The run as it is now: what is asked of it is asked of this."""
        return self.run_watch.picture

    @property
    def run_dir(self) -> RunDir:
        return self.run_watch.run

    @property
    def is_drawn(self) -> bool:
        """Whether everything that lay in the directory at the start has been drawn."""
        return self.run_watch.is_drawn and self._is_composed

    @property
    def offered(self) -> tuple[str, ...]:
        """Its own keys that make sense now."""
        return self.OFFERED

    def make_way(self) -> None:
        """Somebody pressed a key: what lies long ago can be read a moment later."""
        self.run_watch.make_way()

    @property
    def active(self) -> "Pane":
        """The screen of this run that is in sight, if under a dialog."""
        for screen in reversed(self.app.screen_stack):
            if isinstance(screen, Pane):
                return screen
            if not isinstance(screen, ModalScreen):
                break
        return self

    def draw_soon(self, *, fresh: bool) -> None:
        """Draw what has come, at the pace of the frames."""
        self._stale = self._stale or fresh or not self.run_watch.is_drawn
        wait = self._drawn_t + self.run_watch.setup.frame_s - time.monotonic()
        if wait <= 0 or not self.run_watch.is_drawn:
            self.draw(fresh=self._stale)
        elif not self._drawing_soon:
            self._drawing_soon = True
            self.set_timer(wait, self._draw_late)

    def _draw_late(self) -> None:
        self._drawing_soon = False
        if self.display:
            self.draw(fresh=self._stale)

    def draw_all(self) -> None:
        """Draw whatever its pace."""
        self._numbers_t = 0.0
        self.draw()

    def draw(self, *, fresh: bool = True) -> None:
        """Show the picture as it is to be shown; whether the run is well, and what is being read, is told of now."""
        if not (self._is_composed and self.is_running and self.display):
            # On the stack already, and its parts are not there yet: on_mount draws all. Or gone already.
            self._stale = True
            return
        shown, watch = self.shown, self.run_watch
        now = self._drawn_t = time.monotonic()
        slow = now - self._numbers_t >= _NUMBERS_S
        if slow:
            self._numbers_t = now
        verdict = shown.verdict()[1]
        keys = self._offered()
        status, live = self.query_one(StatusLine), watch.looked
        status.show(watch.past or live, frozen=watch.still is not None, now=None if watch.past is None else live)
        if slow or keys != self._keys:
            self._keys = keys
            self.query_one(HonestyFooter).show(live, keys, needed=len(watch.commands.keys) + len(NEEDED))
        self._show_place()
        if fresh:
            self._stale = False
        self.draw_body(slow=slow or verdict != self._verdict, fresh=fresh)
        self._verdict = verdict

    def _show_place(self) -> None:
        watch, scrubber = self.run_watch, self.query_one(Scrubber)
        if watch.past is None or watch.past.moment is None:
            scrubber.show((0, 1), None, 0.0, (), None)
            return
        moment, live = watch.past.moment, watch.looked
        scrubber.show(live.history.ends, moment.step, moment.t, marks(list(live.journal.events)), watch.speed)

    def _offered(self) -> list[tuple[str, str]]:
        """The keys of the last line: those that ask something of the run now, and some of those that show it."""
        known, commands = self.active_bindings, self.run_watch.commands
        offered = (*NEEDED, *self.offered[:2], *self._by_run(), *self.offered[2:])
        shown = [
            (self.app.get_key_display(known[key].binding), known[key].binding.description)
            for key in dict.fromkeys(offered)
            if key in known
        ]
        always = len(NEEDED)
        if self.run_watch.past is not None:
            others = [key for key in shown[always:] if key[0] not in ("space", "[")]
            return [*commands.keys, *shown[:always], *_IN_THE_PAST, *others]
        return [*commands.keys, *shown[:always], *commands.more_keys, *shown[always:]]

    def _by_run(self) -> tuple[str, ...]:
        """Keys that not every run has a use for."""
        journal = self.picture.journal
        program = ("7",) if self.NUMBER != "7" and (journal.phases or journal.report) else ()
        return (*program, "right_parenthesis") if self.picture.streams else program

    def on_mount(self) -> None:
        self._is_composed = True
        self.draw_all()

    def on_resize(self) -> None:
        # What a smaller size had hidden has drawn nothing since.
        self.call_after_refresh(self.draw_all)

    def on_screen_resume(self) -> None:
        """What came while another screen stood over this one."""
        self._stale = True
        self.call_after_refresh(self.draw_all)

    def action_ask(self, what: str) -> None:
        """Open the dialog that asks something of the run."""
        self.run_watch.commands.dialogs[what]()

    def action_send(self, what: str) -> None:
        """Ask something of the run that needs no dialog, and tell how far it has come."""
        self.run_worker(self.run_watch.commands.messages[what](), group=what)

    def action_write_report(self) -> None:
        self.run_worker(self.run_watch.commands.report(), group="report")

    def action_freeze(self) -> None:
        watch = self.run_watch
        if watch.past is None:
            watch.hold(watch.still is None)
        elif watch.speed is None:
            watch.play(SPEEDS[self._speed])
        else:
            watch.pause()

    @on(Scrubber.Wanted)
    def go_to_step(self, event: Scrubber.Wanted) -> None:
        event.stop()
        self.run_watch.pause()
        self.run_watch.go(event.step)

    def action_hop(self, samples: int) -> None:
        self.run_watch.pause()
        self.run_watch.hop(samples)

    def action_leap(self, direction: int) -> None:
        self.run_watch.pause()
        self.run_watch.leap(direction)

    def action_first(self) -> None:
        self.run_watch.pause()
        self.run_watch.go(self.run_watch.looked.history.ends[0])

    def action_stream(self, direction: int) -> None:
        self.run_watch.pause()
        self.run_watch.step_stream(direction)

    def show_stream(self, stream: str | None) -> None:
        """Look at another stream of the run; None: its own."""
        self.run_watch.pause()
        self.run_watch.turn_to(stream)

    def action_now(self) -> None:
        self.run_watch.now()

    def action_speed(self, direction: int) -> None:
        """The next speed of a replay, or the one before; a replay that stands begins."""
        if self.run_watch.speed is not None:
            self._speed = min(max(self._speed + direction, 0), len(SPEEDS) - 1)
        self.run_watch.play(SPEEDS[self._speed])

    def action_pane(self, number: str) -> None:
        """Another of the screens, in the place of this one; the run screen stays below."""
        if number == self.NUMBER:
            return
        if number == "1":
            self.dismiss()
            return
        from qig_tui.screens.panes import pane

        other = pane(number, self.run_watch, self.app)
        if other is None:
            return
        if self.NUMBER == "1" or not isinstance(other, Pane):
            self.app.push_screen(other)
        else:
            self.app.switch_screen(other)

    def show_checkpoint(self, name: str) -> None:
        """Open the screen of the checkpoints with the cursor on one of them."""
        from qig_tui.screens.checkpoints import CheckpointsScreen

        screen = CheckpointsScreen(self.run_watch, chosen=name)
        if self.NUMBER == "1":
            self.app.push_screen(screen)
        else:
            self.app.switch_screen(screen)

    def action_back(self) -> None:
        self.dismiss()
