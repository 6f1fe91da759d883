"""A run read once from end to end for its report: the picture a dashboard would show, and what a screen forgets."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import ENDED
from qig_core.rundir.reader import Tail
from qig_core.rundir.schema import Event, Sample, Scalars, Unreadable
from qig_tui.alarms.episodes import AlarmBook
from qig_tui.branches import Walk
from qig_tui.history import History
from qig_tui.once import settle
from qig_tui.picture import RunPicture
from qig_tui.report.story import Story
from qig_tui.sources.emergencies import EmergencyDetail, read_detail, together
from qig_tui.sources.local import LocalSource, Update, open_run
from qig_tui.sources.streams import StreamSource
from qig_tui.sources.surroundings import Surroundings
from qig_tui.sources.telemetry import Backfill

EMERGENCIES = 20
"""Newest ones that are told; a run that needs more has been told enough."""
LAST = 200
"""Samples that are kept whole from the end."""
_CHUNK = 1 << 18
_MOST_REWINDS = 1000

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Abandoned:
    """A stretch of steps that the run went back behind."""

    first: int
    """Where it went on instead."""
    last: int
    """The last step that was recorded before."""
    t: float
    """Of the first sample after going back."""


@dataclass(kw_only=True)
class Reading:
    """Everything that a report tells."""

    picture: RunPicture
    story: Story = field(default_factory=Story)
    alarms: AlarmBook = field(default_factory=AlarmBook)
    emergencies: list[EmergencyDetail] = field(default_factory=list)
    """The newest ones, oldest first."""
    emergency_count: int = 0
    emergency_problem: str = ""
    """Why their folder cannot be read."""
    last: deque[Sample] = field(default_factory=lambda: deque(maxlen=LAST))
    abandoned: deque[Abandoned] = field(default_factory=lambda: deque(maxlen=_MOST_REWINDS))
    went_back: int = 0
    first_t: float | None = None
    last_t: float | None = None
    at: float = 0.0
    """When it was read."""


def read(run: RunDir, tell: Tell, *, stream: str | None = None, sleep: Callable[[float], None] = time.sleep) -> Reading:
    """Read a run whole, and watch whether a run that has not ended still beats.

    Args:
        stream: whose samples are told of; all else is the run's.

    Raises:
        RunFormatError: the manifest, the telemetry or the events cannot be read, or were replaced meanwhile.
        LookupError: there is no such stream.
    """
    if stream is not None:
        open_run(run, stream)
    source = LocalSource(run)
    try:
        found = Reading(picture=RunPicture(source.manifest))
        update, walk = source.look(), Walk()
        found.picture.apply(update)
        found.story.add(update.events)
        events = list(update.events)
        # The tail comes first, as for a screen; what goes by order takes it last.
        _read_older(source, found, walk, tell)
        _note(found, walk, update.samples)
        if found.picture.liveness.word not in ENDED:
            tell("watching", 0, 0)

        def apply(update: Update) -> None:
            _apply(found, walk, update)
            events.extend(update.events)

        settle(source, found.picture, apply, sleep=sleep)
    finally:
        source.close()
    if stream is not None:
        _read_stream(run, stream, found, tell)
    known = [event for event in events if isinstance(event, Event)]
    found.alarms.follow(known)
    _read_emergencies(run, found, known)
    found.at = time.time()
    return found


def _read_stream(run: RunDir, stream: str, found: Reading, tell: Tell) -> None:
    """The samples of a further stream in the place of the run's own."""
    source = StreamSource(run, stream)
    try:
        update, end = source.look(), source.telemetry.backfill_end
        looked = found.picture.of_stream(stream)
        looked.apply_stream(update)
        if end:
            older = source.telemetry.backfill(lambda share: tell("reading", round(share * end), end), threading.Event())
            if older is None:
                raise RunFormatError(f"{str(source.telemetry.path)!r} was replaced while it was read; try again")
            looked.backfill(Backfill(share=None, older=older))
    finally:
        source.telemetry.close()
    found.picture = looked
    found.last = deque((one for one in update.samples if isinstance(one, Sample)), maxlen=LAST)


def _read_emergencies(run: RunDir, found: Reading, events: Iterable[Event]) -> None:
    beside = Surroundings(run).look(found.picture.manifest)
    told = together(beside.emergencies, [event for event in events if event.kind == "emergency"])
    found.emergencies = [read_detail(run, brief) for brief in reversed(told[:EMERGENCIES])]
    found.emergency_count = max(beside.total, len(told))
    found.emergency_problem = beside.problem


def _read_older(source: LocalSource, found: Reading, walk: Walk, tell: Tell) -> None:
    """What lies before the tail, scalars only."""
    end, path = source.backfill_end, source.run.telemetry()
    if not end:
        return
    older, tail = History(), Tail(path, Scalars)
    try:
        while tail.offset < end:
            start = tail.offset
            batch = tail.poll(min(_CHUNK, end - start))
            if batch.restarted or tail.offset == start:
                raise RunFormatError(f"{str(path)!r} was replaced while it was read; try again")
            older.add(batch.records)
            _note(found, walk, batch.records)
            tell("reading", tail.offset, end)
    except OSError as error:
        raise RunFormatError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    finally:
        tail.close()
    found.picture.backfill(Backfill(share=None, older=older))


def _apply(found: Reading, walk: Walk, update: Update) -> None:
    """Fold in what has come since."""
    if update.restarted:
        raise RunFormatError(f"{str(found.picture.manifest.id)!r}: its telemetry was replaced; try again")
    found.picture.apply(update)
    found.story.add(update.events)
    _note(found, walk, update.samples)


def _note(found: Reading, walk: Walk, records: Iterable[Sample | Scalars | Unreadable]) -> None:
    """What a history forgets: times, the last samples whole, and which steps a way back left behind."""
    for record in records:
        if isinstance(record, Unreadable):
            continue
        before, ways = walk.step, len(walk.went_back_to)
        if walk.place(record) != "live":
            continue
        if found.first_t is None:
            found.first_t = record.t
        found.last_t = record.t
        if isinstance(record, Sample):
            found.last.append(record)
        if len(walk.went_back_to) > ways and before is not None:
            found.went_back += 1
            found.abandoned.append(Abandoned(record.step, before, record.t))
