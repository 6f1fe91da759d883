"""What the basin screen has read and found out: two workers, and what outlives the screen. No widgets."""

import time
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from qig_tui.basin.basins import Derived, Kept, derive
from qig_tui.basin.words import three
from qig_tui.history import History
from qig_tui.picture import BasinView
from qig_tui.screens.watch import Watch
from qig_tui.series import Branches, Floats
from qig_tui.sources.basins import BasinFile
from qig_tui.sources.index import StepIndex
from qig_tui.widgets.basin_table import SORTED

_REST = 40
"""A map stands for so many times the time that it took, before new samples make another one."""
_LEAST_REST_S, _MOST_REST_S = 0.5, 10.0


@dataclass
class BasinMemory:
    """What outlives the screen as long as its run is open: what was read, and how somebody wants to see it."""

    file: BasinFile
    history: History
    """Another one: the file was replaced, or another stream is looked at."""
    kept: Kept | None = None
    derived: Derived | None = None
    problem: str = ""
    """Why the file cannot be read."""
    sort: str = SORTED[0]
    reverse: bool = False
    entry: int = 0
    change: bool = False
    """Whether the grid shows differences."""
    page: int = 0


_memories: "WeakKeyDictionary[Watch, BasinMemory]" = WeakKeyDictionary()


def _memory_of(watch: Watch) -> BasinMemory:
    """The one of this run, without what was read of a file that was replaced."""
    history = watch.looked.history
    known = _memories.get(watch)
    if known is None:
        known = _memories[watch] = BasinMemory(BasinFile(watch.run, stream=watch.stream), history)
    elif known.history is not history:
        known.file, known.history = BasinFile(watch.run, stream=watch.stream), history
        known.kept = known.derived = None
    return known


@dataclass(frozen=True)
class Wanted:
    """What is to be found out: of which basin, as of which sample (None: now), from what was read."""

    step: int
    seq: int | None
    kept: Kept
    file: BasinFile


class Read(Message):
    """More of a file was read; without a `kept`: as much as there is."""

    def __init__(self, file: BasinFile, kept: Kept | None, problem: str = "") -> None:
        super().__init__()
        self.file, self.kept, self.problem = file, kept, problem


class Found(Message):
    """What was wanted is known."""

    def __init__(self, wanted: Wanted, derived: Derived, took_s: float) -> None:
        super().__init__()
        self.wanted, self.derived, self.took_s = wanted, derived, took_s


class BasinReading:
    """Reads every basin of a run in one worker, and finds out in another one what a picture cannot wait for.

    The screen gets `Read` and `Found` and hands them back; nothing is read while there is no screen.
    """

    def __init__(self, screen: Screen[None], watch: Watch) -> None:
        self._screen = screen
        self._watch = watch
        self._is_reading = False
        self._wanted: Wanted | None = None
        self._is_deriving = False
        self._rests_until = 0.0

    @property
    def memory(self) -> BasinMemory:
        return _memory_of(self._watch)

    def fitting(self, view: BasinView) -> Derived | None:
        """What is known of the basin that is shown; of the newest one what was found out of one shortly before."""
        derived, shown = self.memory.derived, self._watch.shown
        is_now = shown.moment is None and shown.cursor is None
        return derived if derived is not None and (derived.step == view.step or is_now) else None

    def read_on(self) -> bool:
        """Read what has come; False where somebody is still reading."""
        if self._is_reading:
            return False
        self._is_reading = True
        self._screen.run_worker(partial(self._read, self.memory.file), thread=True, group="basins")
        return True

    def _read(self, file: BasinFile) -> None:
        """In a thread: posts, and touches no widget."""
        worker, post = get_current_worker(), self._screen.post_message
        problem = ""
        try:
            file.read(lambda kept: post(Read(file, kept)), lambda: worker.is_cancelled)
        except OSError as error:
            problem = f"telemetry.jsonl cannot be read: {error.strerror or error}"
        post(Read(file, None, problem))

    def take_read(self, event: Read) -> None:
        memory = self.memory
        if event.kept is None:
            self._is_reading = False
        if event.file is memory.file:
            memory.problem = event.problem
            memory.kept = event.kept or memory.kept

    def derive(self, view: BasinView) -> None:
        """Find out what is not known of a basin. One at a time; asked again when it has come, the next."""
        file, kept = self.memory.file, self.memory.kept
        shown, before = self._watch.shown, self._wanted
        if kept is None or self._is_deriving:
            return
        seq = None if shown.moment is None else shown.moment.seq
        if shown.cursor is not None:
            seq = kept.seq_at(view.step)
        wanted = Wanted(view.step, seq, kept, file)
        if before is not None and before.file is file and before.kept.share is None and before.seq == seq:
            # What comes does not change what was; and of now there need not be a new map for each sample.
            same = before.step == view.step and (seq is not None or before.kept is kept)
            if same or (seq is None and time.monotonic() < self._rests_until):
                return
        self._is_deriving, self._wanted = True, wanted
        index = self._watch.index if len(three(shown, view, None)) == 2 else None
        work = partial(self._work_out, wanted, view.values, index, self._watch.looked.history.branches)
        self._screen.run_worker(work, thread=True, group="derive")

    def _work_out(self, wanted: Wanted, values: Floats, index: StepIndex | None, branches: Branches) -> None:
        """In a thread: posts, and touches no widget."""
        begun, before = time.monotonic(), None
        if index is not None:
            try:
                before = _last_but_two(index, wanted.step, branches)
            except OSError:
                # That the file cannot be read is told by who follows it.
                pass
        found = derive(wanted.kept, wanted.step, wanted.seq, values, before=before)
        self._screen.post_message(Found(wanted, found, time.monotonic() - begun))

    def take_found(self, event: Found) -> None:
        self._is_deriving = False
        self._rests_until = time.monotonic() + min(max(_REST * event.took_s, _LEAST_REST_S), _MOST_REST_S)
        if event.wanted is self._wanted and event.wanted.file is self.memory.file:
            self.memory.derived = event.derived


def _last_but_two(index: StepIndex, step: int, branches: Branches) -> tuple[int, Floats] | None:
    newest = index.moment(step, branches)
    if newest is None or len(newest.basins) < 2:
        return None
    earlier = index.moment(newest.basins[1][0], branches)
    return earlier.basins[1] if earlier is not None and len(earlier.basins) == 2 else None
