"""A run that is watched: read in a worker, remembered as it is now, shown as it is now or as it was. No widgets."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_core.rundir.layout import RunDir
from qig_tui.checkpoints.desk import Desk
from qig_tui.detail import Again
from qig_tui.history import History
from qig_tui.journal import Journal
from qig_tui.memory import Memory
from qig_tui.picture import RunPicture
from qig_tui.screens.commands import RunCommands
from qig_tui.series import Branches
from qig_tui.setup import Setup
from qig_tui.sources.chronicle import Chronicle
from qig_tui.sources.index import StepIndex
from qig_tui.sources.local import LocalSource, Update, read_run
from qig_tui.sources.streams import StreamSource, StreamUpdate
from qig_tui.sources.telemetry import Backfill
from qig_tui.text import grouped, safe
from qig_tui.toasts import Toaster
from qig_tui.travel import Moment, Pace, marks, next_mark
from qig_tui.view import View


@dataclass(frozen=True)
class _Wanted:
    """Where somebody wants to be: a step, and so many samples beyond it (before it with a negative number)."""

    step: int
    hops: int = 0


@dataclass(frozen=True)
class _Place:
    """A moment that was found, and what had happened by then."""

    moment: Moment
    journal: Journal
    run_moment: Moment | None
    """In the run's own stream, where another one is looked at."""


class _Reading:
    """A further stream that is looked at, and what is known of it."""

    def __init__(self, source: StreamSource, run: RunPicture) -> None:
        self.source = source
        self.picture = run.of_stream(source.stream)
        self.stop = threading.Event()


class Watch:
    """One run for all screens that show it. The screen that stands below the others starts and stops it.

    Args:
        redraw: told after each change; with what came anew of the charts.

    Raises:
        RunFormatError: the run cannot be read.
    """

    def __init__(self, run: RunDir, screen: Screen[None], setup: Setup, memory: Memory) -> None:
        self.run = run
        self.setup = setup
        self.memory = memory
        self.source = LocalSource(run, tail_bytes=setup.tail_bytes)
        self.picture = RunPicture(self.source.manifest)
        """As it is now, by its own stream: what is asked of the run is asked of this."""
        self._stream: _Reading | None = None
        self._unread: set[str | None] = {None}
        """Streams of which not all that lay there is read; None: the run's own."""
        self._at = setup.at
        """The step to go to once all is read."""
        self.past: RunPicture | None = None
        """As it was at the moment that somebody went back to."""
        self.still: RunPicture | None = None
        """As it was when somebody held the picture still."""
        self.is_drawn = False
        """Whether everything that lay in the directory at the start, or the step to open at, has been drawn."""
        self.speed: int | None = None
        """Of the replay; None: none runs."""
        self._to_open = setup.stream
        self.redraw: Callable[[bool], None] = lambda charts: None
        """Draw whatever the pace; asked with whether everything is another one, or only what is being read."""
        self.came: Callable[[bool], None] = lambda fresh: None
        """Something was read; asked with whether it changes the charts."""
        self._screen = screen
        self._toaster = Toaster()
        self._told_unreadable = False
        self._stop = threading.Event()
        self._looked_at: tuple[object, ...] = ()
        """For which steps the file was last asked for more than is remembered of them."""
        self._chronicle = Chronicle(run)
        self._wanted: _Wanted | None = None
        self._is_under_way = False
        self._replayed: tuple[Pace, int, float] | None = None
        """The pace of the run, and the step and the time that the replay began at."""
        self.desk = Desk(run)
        """What is known of the checkpoints, and being done with them."""
        self.commands = RunCommands(
            screen, run, self.picture, read_only=setup.read_only, owned=setup.owned, web=setup.web
        )

    @property
    def shown(self) -> RunPicture:
        """What every screen shows: the run as it was at the moment somebody went back to, or held it; else now."""
        return self.past or self.still or self.looked

    @property
    def looked(self) -> RunPicture:
        """The run as it is now, by the stream that is looked at."""
        if self._stream is None:
            return self.picture
        self._stream.picture.follow(self.picture)
        return self._stream.picture

    @property
    def stream(self) -> str | None:
        """Which stream is looked at; None: the run's own."""
        return None if self._stream is None else self._stream.source.stream

    @property
    def index(self) -> StepIndex:
        """Where which steps stand in the file of that stream."""
        return self.source.index if self._stream is None else self._stream.source.telemetry.index

    def turn_to(self, stream: str | None) -> None:
        """Look at another stream, at the same moment where it has one."""
        if stream == self.stream:
            return
        try:
            source = None if stream is None else StreamSource(self.run, stream, tail_bytes=self.setup.tail_bytes)
        except OSError as error:
            self.tell(f"the stream {safe(stream, 70)} cannot be read: {error.strerror or error}", severity="error")
            return
        at = None if self.past is None or self.past.moment is None else self.past.moment.step
        if self._stream is not None:
            self._stream.stop.set()
        self.past = self.still = self._wanted = self._replayed = self.speed = None
        self._looked_at, self.picture.cursor = (), None
        self._at = self._at if at is None else at
        self._unread &= {None}
        self._stream = None if source is None else _Reading(source, self.picture)
        if self._stream is not None:
            self._unread.add(stream)
            read = partial(self._read_stream, self._stream)
            self._screen.run_worker(read, thread=True, group="stream")
        self._go_on()
        self.redraw(True)

    def step_stream(self, direction: int) -> None:
        """The next stream, or the one before; the run's own is one of the circle."""
        known = [None, *self.picture.streams]
        if len(known) == 1:
            self.tell("this run has one stream: there is no other to look at", severity="information")
            return
        at = known.index(self.stream) if self.stream in known else 0
        self.turn_to(known[(at + direction) % len(known)])

    def hold(self, still: bool) -> None:
        """Hold the picture still while reading goes on, or let it move again."""
        looked = self.looked
        moment = looked.history.newest
        self.still = None
        if still and moment is not None:
            self.still = looked.until(moment, looked.journal.copy(), self.picture.history.newest)
            self.still.checkpoints = looked.checkpoints
        self.redraw(True)

    def start(self) -> None:
        self._screen.run_worker(self._read, thread=True, exclusive=True, group="source")
        if self._to_open is not None:
            self.turn_to(self._to_open)

    def stop(self) -> None:
        self._stop.set()
        if self._stream is not None:
            self._stream.stop.set()
        self._chronicle.close()

    def make_way(self) -> None:
        """Somebody pressed a key: what lies long ago can be read a moment later."""
        self.source.make_way()
        if self._stream is not None:
            self._stream.source.telemetry.make_way()

    def tell(self, words: str, *, title: str = "", severity: SeverityLevel = "warning") -> None:
        self._screen.notify(words, title=title, severity=severity, markup=False)

    def _hand_over(self, take: Callable[..., None], *what: object) -> None:
        """From a worker's thread to the screen's, as long as there is one."""
        if not self._stop.is_set() and not get_current_worker().is_cancelled:
            self._screen.app.call_from_thread(take, *what)

    def _read(self) -> None:
        """Reads and hands over; touches no widget."""
        read_run(self.source, lambda found: self._hand_over(self.take, found), self._stop)

    def _read_stream(self, reading: _Reading) -> None:
        """Reads and hands over; touches no widget."""
        reading.source.read(lambda found: self._hand_over(self._take_stream, reading, found), reading.stop)

    def _take_stream(self, reading: _Reading, found: StreamUpdate | Backfill) -> None:
        if not self._screen.display or reading is not self._stream:
            return
        if isinstance(found, Backfill):
            self._take_backfill(reading.picture, found)
            return
        reading.picture.apply_stream(found)
        if found.restarted and self.is_drawn:
            self._tell_restarted(reading.source.telemetry.path)
        self._tell_unreadable()
        self.came((bool(found.samples) or found.restarted) and self.past is None)

    def _take_backfill(self, picture: RunPicture, found: Backfill) -> None:
        picture.backfill(found)
        if found.share is not None:
            self.redraw(False)
            return
        self._unread.discard(picture.stream)
        self._go_on()

    def _go_on(self) -> None:
        """What waits for all to be read, once it is."""
        if self._unread:
            return
        at, self._at = self._at, None
        if at is not None and self.past is None:
            self.go(at)
            return
        self._begin_again()
        self.is_drawn = True
        self.redraw(True)

    def take(self, found: Update | Backfill) -> None:
        """Fold in what was read, and have it drawn."""
        if not self._screen.display:
            # Closing: some of the widgets are gone already.
            return
        if isinstance(found, Backfill):
            self._take_backfill(self.picture, found)
            return
        self.picture.apply(found)
        for toast in self._toaster.look(found.events, self.picture.liveness, now=time.monotonic()):
            words, title = toast.message, toast.title
            self._screen.notify(words, title=title, severity=toast.severity, timeout=toast.timeout_s, markup=False)
        if found.restarted and self.is_drawn:
            self._tell_restarted(self.source.telemetry.path)
        self._tell_unreadable()
        if self.past is not None:
            # Whether the run is alive, and can be read, is told of now, wherever one looks.
            self.past.liveness, self.past.problem = self.picture.liveness, self.picture.problem
        self.came((bool(found.samples) or found.restarted) and self.past is None and self._stream is None)

    def _tell_restarted(self, path: Path) -> None:
        self.now()
        self.tell(f"{path.name} was cut or replaced: what it holds now is read from its start", title="another file")

    def _tell_unreadable(self) -> None:
        """Of the first line that cannot be read: which, and why."""
        bad = self.looked.history.unreadable or self.picture.history.unreadable
        # A single one from before is what a killed run leaves, and no news.
        known = 0 if self.is_drawn else 1
        if len(bad) > known and not self._told_unreadable:
            self._told_unreadable = True
            words = f"{safe(Path(bad[0].path).name, 60)}, byte {grouped(bad[0].offset)}: {safe(bad[0].reason, 200)}"
            self.tell(words, title="a line cannot be read")

    def look_closer(self, view: View) -> None:
        """Read again from the file what is not remembered of the steps in sight, and the basin under the cursor."""
        looked = self.looked
        history = looked.history
        steps: tuple[int, int | None] | None = None
        if view.first is not None and self.still is None and history.is_thinned(view.first, view.last):
            # As much beyond each side: a small move needs no reading.
            span = (history.ends[1] if view.last is None else view.last) - view.first
            steps = view.first - span, None if view.last is None else view.last + span
        is_whole = looked.backfilled is None
        wanted = (steps is not None, view.first, view.last, view.cursor, history.segments, is_whole)
        if wanted == self._looked_at:
            return
        self._looked_at = wanted
        if view.cursor is None and looked.cursor is not None:
            looked.cursor = None
            self._begin_again()
            self.redraw(False)
        if steps is not None:
            history.ask_for_detail()
        if steps is not None or view.cursor is not None:
            again = partial(self._read_again, self.index, steps, view.cursor, history, history.branches)
            self._screen.run_worker(again, thread=True, exclusive=True, group="again")

    def _read_again(
        self,
        index: StepIndex,
        steps: tuple[int, int | None] | None,
        cursor: int | None,
        history: History,
        branches: Branches,
    ) -> None:
        try:
            found = index.again(steps, cursor, branches)
        except OSError:
            # What is remembered stays; that the file cannot be read is told by who follows it.
            return
        self._hand_over(self._take_again, history, branches.count, found)

    def _take_again(self, history: History, segments: int, found: Again) -> None:
        if not self._screen.display or history is not self.looked.history or segments != history.segments:
            return
        if found.detail is not None:
            history.take_detail(found.detail)
        self.looked.cursor = found.cursor
        self._begin_again()
        self.redraw(True)

    def _begin_again(self) -> None:
        """Show the same moment with what is known of it now."""
        if self.still is not None:
            self.still.cursor = self.looked.cursor
        if self.past is None or self.past.moment is None:
            return
        self.past = self.looked.until(self.past.moment, self.past.journal, self.past.run_moment)

    @property
    def at(self) -> int | None:
        """The step that is shown."""
        return self.shown.history.step

    def go(self, step: int) -> None:
        """Show the run as it was at a step: at the newest sample of it or before."""
        self._wanted = _Wanted(step)
        self._set_out()

    def hop(self, samples: int) -> None:
        """So many samples to later ones; to earlier ones with a negative number."""
        if self._wanted is not None:
            self._wanted = _Wanted(self._wanted.step, self._wanted.hops + samples)
        elif self.at is not None and (self.past is not None or samples < 0):
            self._wanted = _Wanted(self.at, samples)
        self._set_out()

    def leap(self, direction: int) -> None:
        """To the next thing that happened: an alarm, a checkpoint, a start; or to the one before."""
        if self.at is None:
            return
        found = next_mark(marks(list(self.picture.journal.events)), self.at, direction)
        if found is not None:
            self.go(found.step)
        elif direction > 0:
            self.now()
        else:
            self.tell("nothing is recorded to have happened before this", severity="information")

    def now(self) -> None:
        """Show the run as it is now."""
        self._wanted, self._replayed, self.speed = None, None, None
        if self.past is not None:
            self.past = None
            self.redraw(True)

    def _set_out(self) -> None:
        """Look for where somebody wants to be, one at a time: what is wanted meanwhile comes after it."""
        if self._is_under_way or self._wanted is None:
            return
        wanted, self._wanted = self._wanted, None
        self._is_under_way = True
        history, sessions = self.looked.history, [session.id for session in self.picture.manifest.sessions]
        of_run = None if self._stream is None else self.picture.history.branches
        find = partial(self._find, self.index, wanted, history, history.branches, of_run, sessions)
        self._screen.run_worker(find, thread=True, group="travel")

    def _find(
        self,
        index: StepIndex,
        wanted: _Wanted,
        history: History,
        branches: Branches,
        of_run: Branches | None,
        sessions: list[str],
    ) -> None:
        place: _Place | None = None
        problem = ""
        try:
            moment = self._moment(index, wanted, branches)
            if moment is not None:
                own = None if of_run is None else self.source.index.moment(moment.step, of_run)
                place = _Place(moment, self._chronicle.until(moment, sessions), own)
        except OSError as error:
            problem = f"the run's files cannot be read: {error.strerror or error}"
        self._hand_over(self._arrive, wanted, history, branches.count, place, problem)

    @staticmethod
    def _moment(index: StepIndex, wanted: _Wanted, branches: Branches) -> Moment | None:
        """None: there is no such sample, or only now lies beyond it."""
        moment, hops = index.moment(wanted.step, branches), wanted.hops
        while moment is not None and hops < 0:
            before = index.moment(moment.step - 1, branches)
            if before is None:
                return moment
            moment, hops = before, hops + 1
        while moment is not None and hops > 0:
            after = index.next_step(moment.step, branches)
            if after is None:
                return None
            moment, hops = index.moment(after, branches), hops - 1
        return moment

    def _arrive(self, wanted: _Wanted, history: History, segments: int, place: _Place | None, problem: str) -> None:
        self._is_under_way = False
        if not self._screen.display:
            return
        looked = self.looked
        if history is not looked.history or segments != history.segments:
            # The run went back meanwhile, what lies before was read, or another stream is looked at.
            self._wanted = self._wanted or wanted
        elif place is not None:
            self.is_drawn = self.is_drawn or not self._unread
            self.still, self.past = None, looked.until(place.moment, place.journal, place.run_moment)
            self.redraw(True)
        elif problem:
            self.tell(problem, severity="error")
        elif wanted.hops > 0:
            self.now()
        else:
            whose = "this run" if self.stream is None else f"the stream {self.stream}"
            why = "it is not read yet" if self._unread else f"{whose} has no sample at or before it"
            self.tell(f"step {grouped(wanted.step)}: {why}")
        self.is_drawn = self.is_drawn or not self._unread
        self._set_out()

    def play(self, speed: int) -> None:
        """Go on from the step that is shown at so many times the pace of the run; to now, once all is shown."""
        history = self.looked.history
        times = history.times
        gone = history.abandoned(times)
        step, t = (times.step, times.value) if gone is None else (times.step[~gone], times.value[~gone])
        if self.past is None and len(step):
            # From the beginning: there is nothing to replay at the end.
            self.go(int(step[0]))
        start = self.at if self.past is not None else int(step[0]) if len(step) else None
        if start is not None:
            self.speed, self._replayed = speed, (Pace(step, t), start, time.monotonic())

    def pause(self) -> None:
        """Stay at the moment that the replay has come to."""
        self.speed, self._replayed = None, None
        self.redraw(False)

    def play_on(self) -> None:
        """A frame of the replay."""
        if self.speed is None or self._replayed is None or self._is_under_way:
            return
        pace, start, since = self._replayed
        step = pace.step_after(start, self.speed * (time.monotonic() - since))
        if step is None:
            self.speed, self._replayed = None, None
            if self.picture.ended and pace.last is not None:
                self.go(pace.last)
            else:
                self.now()
        elif step != self.at:
            self.go(step)
