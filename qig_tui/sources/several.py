"""Several runs read side by side in one thread: what lies there in turns, then whatever is appended. Decides nothing.

Only scalars and events are decoded; of a run that has ended, only its files' marks are looked at.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lineage import Lineage, lineage_of
from qig_core.rundir.liveness import ENDED, BeatWatch, Liveness
from qig_core.rundir.reader import Tail, read_manifest
from qig_core.rundir.schema import Event, Manifest, Scalars, Unreadable
from qig_tui.sources.local import within

POLL_S = 0.5
_CHUNK = 1 << 18
_JUDGE_S = 1.0
_TELLING = ("start", "restored", "soft_reset")
"""Events after which the lineage is another one."""

_Mark = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one look at a run found. Deltas: none may be left out."""

    manifest: Manifest | None = None
    """Only where it changed."""
    problem: str | None = None
    """Why it cannot be read now."""
    liveness: Liveness | None = None
    restarted: bool = False
    """The telemetry file was replaced: what was folded before is gone."""
    samples: Sequence[Scalars | Unreadable] = ()
    events_restarted: bool = False
    events: Sequence[Event | Unreadable] = ()
    lineage: Lineage | None = None
    """Only where it changed."""
    share: float | None = None
    """Of what lay there at the first look, what has been read; None: all of it."""


class RunReader:
    """Reads one run, a piece at a look."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._manifest: Manifest | None = None
        self._watch = BeatWatch(run)
        self._samples: Tail[Scalars] = Tail(run.telemetry(), Scalars)
        self._events: Tail[Event] = Tail(run.events, Event)
        self._marks: tuple[_Mark | None, ...] = ()
        self._liveness: Liveness | None = None
        self._judged = 0.0
        self._problem: str | None = None
        self._unreadable: str | None = None
        """Why the manifest as it stands now cannot be read."""
        self._lineage_is_old = False
        self._first_size = _size(run)
        self.is_behind = True
        """Whether there was more than one piece."""

    def look(self) -> Found | None:
        """What is new; None where nothing is."""
        marks = tuple(map(_mark, (self._run.manifest, self._run.telemetry(), self._run.events)))
        if not self.is_behind and marks == self._marks and not self._is_to_be_judged():
            return None
        changed = self._read_manifest() if marks[:1] != self._marks[:1] or self._manifest is None else None
        self._marks = marks
        if self._manifest is None:
            self.is_behind = False
            return Found(problem=self._unreadable)
        before, self._problem = self._problem, self._unreadable
        restarted = events_restarted = False
        samples: Sequence[Scalars | Unreadable] = ()
        events: Sequence[Event | Unreadable] = ()
        try:
            told = self._events.poll()
            events, events_restarted = told.records, told.restarted
            measured = self._samples.poll(_CHUNK)
            samples, restarted = measured.records, measured.restarted
            self.is_behind = told.more or measured.more
        except OSError as error:
            self.is_behind = False
            path = error.filename or str(self._run.path)
            self._problem = within(self._run, f"{path!r} cannot be read: {error.strerror or error}")
        judged, self._liveness = self._liveness, self._judge(self._manifest)
        kinds = {event.kind for event in events if isinstance(event, Event)}
        self._lineage_is_old |= changed is not None or events_restarted or not kinds.isdisjoint(_TELLING)
        news = samples or events or restarted or events_restarted or changed
        if not news and judged == self._liveness and before == self._problem and not self._lineage_is_old:
            return None
        return Found(
            manifest=changed,
            problem=self._problem,
            liveness=self._liveness,
            restarted=restarted,
            samples=samples,
            events_restarted=events_restarted,
            events=events,
            lineage=self._lineage(self._manifest),
            share=self._share(),
        )

    def _is_to_be_judged(self) -> bool:
        ended = self._liveness is not None and self._liveness.word in ENDED
        return not ended and time.monotonic() - self._judged >= _JUDGE_S and self._manifest is not None

    def _judge(self, manifest: Manifest) -> Liveness:
        if self._liveness is None or time.monotonic() - self._judged >= _JUDGE_S:
            self._judged = time.monotonic()
            return self._watch.look(manifest)
        return self._liveness

    def _read_manifest(self) -> Manifest | None:
        try:
            self._manifest = read_manifest(self._run)
        except RunFormatError as error:
            self._unreadable = within(self._run, error)
            return None
        self._liveness = self._unreadable = None
        return self._manifest

    def _lineage(self, manifest: Manifest) -> Lineage | None:
        if self.is_behind or not self._lineage_is_old:
            return None
        self._lineage_is_old = False
        try:
            return lineage_of(self._run, manifest)
        except RunFormatError as error:
            self._problem = within(self._run, error)
            return None

    def _share(self) -> float | None:
        if not self.is_behind:
            return None
        return min(self._samples.offset / self._first_size, 1.0) if self._first_size else 0.0

    def close(self) -> None:
        self._samples.close()
        self._events.close()


def read_runs(runs: Sequence[RunDir], post: Callable[[int, Found], None], stop: threading.Event) -> None:
    """A piece of each in turn until all has been read, then what is new of any, until `stop` is set.

    Args:
        post: which of the runs, and what was found of it.
    """
    readers = [RunReader(run) for run in runs]
    try:
        while not stop.is_set():
            for place, reader in enumerate(readers):
                if stop.is_set():
                    return
                found = reader.look()
                if found is not None:
                    post(place, found)
            if not any(reader.is_behind for reader in readers):
                stop.wait(POLL_S)
    finally:
        for reader in readers:
            reader.close()


def _mark(path: os.PathLike[str]) -> _Mark | None:
    """What changes when a file does."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _size(run: RunDir) -> int:
    found = _mark(run.telemetry())
    return 0 if found is None else found[2]
