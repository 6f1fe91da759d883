"""What lies beside the records of a run: emergencies, mailbox, lock; and its older events. For worker threads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from qig_core.errors import RunFormatError
from qig_core.rundir.host import process_is
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import Tail, read_document
from qig_core.rundir.schema import Ack, Command, Event, Manifest
from qig_core.rundir.values import is_command_id
from qig_tui.alarms.episodes import relevant
from qig_tui.sources.emergencies import Emergency, EmergencyShelf, file_mark

_LISTED = 10_000
_ACKS = 12
_WAITING = 64
_REQUESTS = 1000
_OLDER = 5000
_JSON = ".json"
_LISTED_TWICE = 2
"""A folder's time is told in ticks: what came in the tick of one listing is seen by another."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What one look found."""

    emergencies: tuple[Emergency, ...] = ()
    """The newest first, those that have a file."""
    total: int = 0
    problem: str = ""
    """Why their folder cannot be read."""
    lock: int | None = None
    """As `lock_holder` says."""
    process: bool | None = None
    """Whether the recorded process is there; None where that cannot be known."""
    acks: Mapping[str, Ack] = field(default_factory=dict)
    waiting: tuple[Command, ...] = ()
    requests: Mapping[str, Command] = field(default_factory=dict)
    """By id, every command that was once seen lying in the mailbox."""


class Surroundings:
    """Looks at a run's directory beside its records. One thread at a time."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._shelf = EmergencyShelf(run)
        self._acks: dict[str, tuple[object, Ack]] = {}
        self._requests: dict[str, Command] = {}
        self._out: list[str] = []
        self._out_mark: tuple[object, ...] = ()
        self._out_listed = 0

    def look(self, manifest: Manifest) -> Beside:
        """Everything as it is now."""
        found, total, problem = self._shelf.look()
        session = manifest.sessions[-1] if manifest.sessions else None
        alive = None
        if session is not None:
            alive = process_is(session.pid, session.start_ticks, session.host, session.boot_id)
        waiting = self._waiting()
        return Beside(
            emergencies=tuple(found),
            total=total,
            problem=problem,
            lock=lock_holder(self._run.lock),
            process=alive,
            acks=self._answers(),
            waiting=tuple(waiting),
            requests=dict(self._requests),
        )

    def _answers(self) -> dict[str, Ack]:
        """The acknowledgements that changed last."""
        kept: dict[str, tuple[object, Ack]] = {}
        for name in self._newest_answers():
            path = self._run.ack(name)
            mark = file_mark(path)
            known = self._acks.get(name)
            if known is None or known[0] != mark:
                try:
                    known = (mark, read_document(path, Ack))
                except RunFormatError:
                    continue
            kept[name] = known
        self._acks = kept
        return {name: ack for name, (_, ack) in kept.items()}

    def _newest_answers(self) -> list[str]:
        """Their ids; listed again only where the folder has changed: a run may have answered ten thousand commands."""
        mark = file_mark(self._run.mailbox_out)
        if mark == self._out_mark and self._out_listed >= _LISTED_TWICE:
            return self._out
        self._out_listed = self._out_listed + 1 if mark == self._out_mark else 1
        newest: list[tuple[float, str]] = []
        try:
            with os.scandir(self._run.mailbox_out) as entries:
                for entry in islice(entries, _LISTED):
                    name = entry.name.removesuffix(_JSON)
                    if is_command_id(name) and entry.name.endswith(_JSON):
                        newest.append((entry.stat(follow_symlinks=False).st_mtime, name))
        except OSError:
            # No mailbox, or one of somebody else: the events tell the same but for what was only seen.
            newest = []
        self._out_mark, self._out = mark, [name for _, name in sorted(newest, reverse=True)[:_ACKS]]
        return self._out

    def _waiting(self) -> list[Command]:
        """What lies in the mailbox unseen; commands are remembered, since who takes one away tells less of it."""
        try:
            with os.scandir(self._run.mailbox_in) as entries:
                names = sorted(entry.name for entry in islice(entries, _WAITING) if not entry.name.startswith("."))
        except OSError:
            return []
        found = []
        for name in names:
            known = self._requests.get(name.removesuffix(_JSON))
            if known is None and is_command_id(name.removesuffix(_JSON)):
                try:
                    known = read_document(self._run.mailbox_in / name, Command)
                except RunFormatError:
                    continue
                if known.id != name.removesuffix(_JSON):
                    continue
                if len(self._requests) < _REQUESTS:
                    self._requests[known.id] = known
            if known is not None:
                found.append(known)
        return found


def read_older(run: RunDir, first_seq: int) -> tuple[Event, ...]:
    """The events before a certain one that an alarm book makes something of: the newest of them.

    Raises:
        OSError: the events cannot be read.
    """
    tail: Tail[Event] = Tail(run.events, Event)
    found: list[Event] = []
    try:
        while True:
            batch = tail.poll()
            fresh = [event for event in batch.records if isinstance(event, Event)]
            found += [event for event in fresh if event.seq < first_seq and relevant(event)]
            del found[:-_OLDER]
            if not batch.more or (fresh and fresh[-1].seq >= first_seq):
                return tuple(found)
    finally:
        tail.close()
