"""Where a run comes from: the runs it was forked from, its sessions, and when it went back. Reads; judges nothing."""

import time

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import Tail, read_manifest
from qig_core.rundir.schema import Event, Manifest, Parent, Unreadable
from qig_core.rundir.values import is_run_id

MAX_RELATIVES = 200
MAX_ANCESTORS = 100
_SHOWN = 10
"""Rows of one kind, at most: a run may have gone back thousands of times."""


class Ancestor(msgspec.Struct):
    """A run that another one was forked from."""

    run: str
    checkpoint: str | None
    """Of this run: what the next younger one began with."""
    problem: str = ""
    """Why nothing older is known: not here, not readable, or met before."""


class Began(msgspec.Struct):
    """One process that wrote the run, and what it went on from."""

    session: str
    t: float
    checkpoint: str | None = None
    """None: from the beginning, or it died before it said so."""
    step: int | None = None


class WentBack(msgspec.Struct):
    """The run went back to a checkpoint while it ran."""

    t: float
    session: str | None
    how: str
    """restore (somebody asked), soft_reset, or as recorded."""
    checkpoint: str | None
    from_step: int | None
    """The last one that was recorded before, where nobody wrote down which it was."""
    to_step: int | None


class Lineage(msgspec.Struct):
    """Everything that this run goes on from."""

    run: str
    ancestors: list[Ancestor] = []
    """The parent first."""
    sessions: list[Began] = []
    went_back: list[WentBack] = []
    """In the order of the file."""


def lineage_of(run: RunDir, manifest: Manifest) -> Lineage:
    """The lineage by run.json, by those of its ancestors under the same root, and by the events, read once.

    Raises:
        RunFormatError: the events cannot be read.
    """
    sessions = {one.id: Began(one.id, one.t, one.resumed_from) for one in manifest.sessions}
    found = Lineage(run.id, ancestors(run, manifest.parent), list(sessions.values()))
    left: int | None = None
    before: int | None = None
    tail = Tail(run.events, Event)
    try:
        more = True
        while more:
            batch = tail.poll()
            more = batch.more
            for event in batch.records:
                if isinstance(event, Unreadable):
                    continue
                if event.kind == "soft_reset":
                    left = _int(event.data.get("from_step"))  # the `restored` that follows tells the rest
                elif event.kind == "restored":
                    how = str(event.data.get("how") or "resume")
                    checkpoint = _text(event.data.get("checkpoint"))
                    if how != "resume":
                        was = before if left is None else left
                        found.went_back.append(WentBack(event.t, event.session, how, checkpoint, was, event.step))
                    elif (began := sessions.get(event.session or "")) is not None:
                        began.checkpoint, began.step = checkpoint or began.checkpoint, event.step
                    left = None
                if event.kind != "soft_reset" and event.step is not None:
                    before = event.step
    except OSError as error:
        raise RunFormatError(f"{str(run.events)!r} cannot be read: {error.strerror}") from error
    finally:
        tail.close()
    return found


def ancestors(run: RunDir, parent: Parent | None) -> list[Ancestor]:
    """From the parent to the oldest that is known, at most `MAX_ANCESTORS`; a circle ends where it closes."""
    root, met = run.path.absolute().parent, {run.id}
    line: list[Ancestor] = []
    while parent is not None and len(line) < MAX_ANCESTORS:
        one = Ancestor(parent.run, parent.checkpoint)
        line.append(one)
        there = RunDir(root / parent.run) if is_run_id(parent.run) else None
        parent = None
        if one.run in met:
            one.problem = "met before: a circle"
        elif there is None or not there.exists():
            one.problem = "not here"
        else:
            met.add(one.run)
            try:
                parent = read_manifest(there).parent
            except RunFormatError:
                one.problem = "cannot be read"
    if parent is not None:
        line[-1].problem = "and older ones"
    return line


def relatives(run: RunDir) -> list[RunDir]:
    """The run that this one was forked from and those that were forked from it, as far as they lie beside it.

    Of a large folder the newest `MAX_RELATIVES` are looked at.
    """
    try:
        parent = read_manifest(run).parent
    except RunFormatError:
        parent = None
    found = []
    for other in list(list_runs(run.path.absolute().parent))[-MAX_RELATIVES:]:
        if other.id == run.id:
            continue
        try:
            theirs = read_manifest(other).parent
        except RunFormatError:
            continue
        if (parent is not None and other.id == parent.run) or (theirs is not None and theirs.run == run.id):
            found.append(other)
    return found


def lineage_rows(found: Lineage) -> list[tuple[str, str]]:
    """The lineage for a person, a label and its words a row. What stands in it is as files say it."""
    line = [found.run]
    for one in found.ancestors:
        at = f" @ {one.checkpoint}" if one.checkpoint else ""
        line.append(f"{one.run}{at}" + (f" ({one.problem})" if one.problem else ""))
    rows = [("lineage", "  ←  ".join(line))]
    sessions = [f"{one.session[:8]}  {_clock(one.t)}  {_origin(one)}" for one in found.sessions]
    back = [f"step {_step(one.from_step)} -> {one.checkpoint or '?'} ({one.how})" for one in found.went_back]
    return rows + _last(sessions, "session") + _last(back, "went back")


def _last(lines: list[str], label: str) -> list[tuple[str, str]]:
    left_out = len(lines) - _SHOWN
    earlier = [(label, f"{left_out} earlier")] if left_out > 0 else []
    return earlier + [(label, line) for line in lines[-_SHOWN:]]


def _origin(one: Began) -> str:
    if one.checkpoint is None:
        return "from the beginning"
    return f"from {one.checkpoint}" + (f", step {one.step}" if one.step is not None else "")


def _clock(t: float) -> str:
    """Local date and time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return "?"


def _step(step: int | None) -> str:
    return "?" if step is None else str(step)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
