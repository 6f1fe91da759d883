"""What was known at each stop of a run, and where threads stood at each hang: emergencies/. For worker threads.

Whoever wrote these files: nothing in them is taken for granted, and of everything only so much is read.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import open_regular, read_document
from qig_core.rundir.schema import Event
from qig_core.rundir.values import is_run_id
from qig_tui.journal import Condition, condition_of
from qig_tui.records import NONFINITE, as_float
from qig_tui.text import safe

MOST = 100
"""Newest emergencies that are listed."""
_LISTED = 10_000
_SAMPLES = 200
_METRICS = 256
_STACKS_BYTES = 1 << 18
_JSON, _STACKS = ".json", ".stacks.txt"


class _Brief(msgspec.Struct):
    """What a list needs of the document, with nothing taken for granted."""

    session: Any = None
    step: Any = None
    t: Any = None
    cause: Any = None
    exit_code: Any = None
    checkpoint: Any = None
    note: Any = None
    stages: Any = None


class _Whole(_Brief):
    fingerprint: Any = None
    conditions: Any = None
    samples: Any = None
    versions: Any = None
    traceback: Any = None


@dataclass(frozen=True, kw_only=True)
class Emergency:
    """One stop, or a hang of which only the stacks are known."""

    id: str
    t: float | None = None
    step: int | None = None
    session: str | None = None
    kind: str = ""
    """limit, signal, command or error."""
    cause: str = ""
    exit_code: int | None = None
    checkpoint: str = ""
    note: str = ""
    """Why there is no checkpoint."""
    stages: tuple[tuple[str, float], ...] = ()
    has_record: bool = False
    has_stacks: bool = False
    severity: str = "critical"
    problem: str = ""
    """Why the record cannot be read."""


@dataclass(frozen=True)
class Remembered:
    """One check of the loop."""

    step: int | None
    t: float | None
    values: Mapping[str, float]
    """Not finite ones as they are."""


@dataclass(frozen=True, kw_only=True)
class EmergencyDetail:
    """All that was kept of an emergency."""

    brief: Emergency
    fingerprint: str = ""
    conditions: tuple[Condition, ...] = ()
    samples: tuple[Remembered, ...] = ()
    """The oldest first."""
    versions: Mapping[str, str] = field(default_factory=dict)
    traceback: str = ""
    stacks: str = ""
    stacks_are_cut: bool = False


class EmergencyShelf:
    """Lists the emergencies of one run; a record that has not changed is read once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._known: dict[str, tuple[object, Emergency]] = {}

    def look(self) -> tuple[list[Emergency], int, str]:
        """The newest of them, newest first; how many there are; why their folder cannot be read."""
        records: set[str] = set()
        stacks: set[str] = set()
        try:
            with os.scandir(self._run.emergencies) as entries:
                for entry in islice(entries, _LISTED):
                    for end, names in ((_JSON, records), (_STACKS, stacks)):
                        if entry.name.endswith(end) and is_run_id(entry.name.removesuffix(end)):
                            names.add(entry.name.removesuffix(end))
        except FileNotFoundError:
            return [], 0, ""
        except OSError as error:
            return [], 0, f"{self._run.emergencies.name}/ cannot be read: {error.strerror}"
        # Their ids begin with the time.
        newest = sorted(records | stacks, reverse=True)[:MOST]
        found = [self._brief(name, name in records, name in stacks) for name in newest]
        self._known = {name: self._known[name] for name in newest}
        found.sort(key=lambda one: (-math.inf if one.t is None else one.t, one.id), reverse=True)
        return found, len(records | stacks), ""

    def _brief(self, name: str, has_record: bool, has_stacks: bool) -> Emergency:
        path = self._run.emergency(name) if has_record else self._run.emergency_stacks(name)
        mark = (*file_mark(path), has_record, has_stacks)
        known = self._known.get(name)
        if known is None or known[0] != mark:
            made = _read_brief(self._run, name, has_stacks) if has_record else _hang(path, name)
            known = self._known[name] = (mark, made)
        return known[1]


def file_mark(path: Path) -> tuple[object, ...]:
    """What is another one once a file was replaced or has changed; empty where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _hang(path: Path, name: str) -> Emergency:
    try:
        t = os.lstat(path).st_mtime
    except OSError:
        t = None
    return Emergency(id=name, t=t, kind="hang", cause="where every thread stood", has_stacks=True, severity="warning")


def _read_brief(run: RunDir, name: str, has_stacks: bool) -> Emergency:
    try:
        found = read_document(run.emergency(name), _Brief, what="emergency")
    except RunFormatError as error:
        return Emergency(id=name, has_record=True, has_stacks=has_stacks, problem=_within(run, error))
    return _brief_of(found, name, has_stacks)


def _brief_of(found: _Brief, name: str, has_stacks: bool) -> Emergency:
    kind, cause = _cause(found.cause)
    return Emergency(
        id=name,
        t=_finite(found.t),
        step=_whole(found.step),
        session=None if found.session is None else safe(found.session, 60),
        kind=kind,
        cause=cause,
        exit_code=_whole(found.exit_code),
        checkpoint=_text(found.checkpoint, 100),
        note=_text(found.note, 300),
        stages=_stages(found.stages),
        has_record=True,
        has_stacks=has_stacks,
        severity="critical" if kind not in ("command", "signal") else "info" if found.checkpoint else "warning",
    )


def of_event(event: Event) -> Emergency:
    """An emergency as its event tells it: where its file is not read yet, or gone."""
    data = event.data
    kind, _, cause = safe(data.get("cause") or "?", 300).partition(" ")
    known = kind in ("limit", "signal", "command", "error")
    return Emergency(
        id=safe(data.get("id") or "?", 100),
        t=_finite(event.t),
        step=event.step,
        session=None if event.session is None else safe(event.session, 60),
        kind=kind if known else "",
        cause=cause if known else f"{kind} {cause}".strip(),
        exit_code=_whole(data.get("exit_code")),
        checkpoint=_text(data.get("checkpoint"), 100),
        note=_text(data.get("note"), 300).removeprefix("no checkpoint: "),
        severity=event.severity,
    )


def together(found: Iterable[Emergency], events: Iterable[Event]) -> list[Emergency]:
    """Those with a file and those that only an event tells of, the newest first."""
    known = {one.id: one for one in map(of_event, events)}
    # The record knows more; only how bad it was is told better by the event.
    for one in found:
        told = known.get(one.id)
        known[one.id] = one if told is None else _judged(one, told)
    return sorted(known.values(), key=lambda one: (-math.inf if one.t is None else one.t, one.id), reverse=True)


def read_detail(run: RunDir, brief: Emergency) -> EmergencyDetail:
    """All that lies there of an emergency; what cannot be read is told as its problem."""
    stacks, is_cut = _stacks(run, brief.id) if brief.has_stacks else ("", False)
    if not brief.has_record:
        return EmergencyDetail(brief=brief, stacks=stacks, stacks_are_cut=is_cut)
    try:
        found = read_document(run.emergency(brief.id), _Whole, what="emergency")
    except RunFormatError as error:
        told = replace(brief, problem=_within(run, error))
        return EmergencyDetail(brief=told, stacks=stacks, stacks_are_cut=is_cut)
    conditions = found.conditions if isinstance(found.conditions, list) else []
    samples = found.samples if isinstance(found.samples, list) else []
    versions = found.versions if isinstance(found.versions, dict) else {}
    return EmergencyDetail(
        brief=replace(_brief_of(found, brief.id, brief.has_stacks), severity=brief.severity),
        fingerprint=_text(found.fingerprint, 80),
        conditions=tuple(condition_of(each, None) for each in conditions[:200] if isinstance(each, dict)),
        samples=tuple(map(_sample, samples[-_SAMPLES:])),
        versions={safe(name, 30): safe(told, 40) for name, told in list(versions.items())[:20]},
        traceback=found.traceback[: 1 << 16] if isinstance(found.traceback, str) else "",
        stacks=stacks,
        stacks_are_cut=is_cut,
    )


def _judged(one: Emergency, told: Emergency) -> Emergency:
    """What the file tells, as bad as the event says; of a file that cannot be read the event's facts."""
    if one.problem or not one.has_record:
        return replace(
            told, has_record=one.has_record, has_stacks=one.has_stacks, problem=one.problem, t=told.t or one.t
        )
    return replace(one, severity=told.severity)


def _stacks(run: RunDir, name: str) -> tuple[str, bool]:
    """The text, and whether there is more of it."""
    try:
        with open(open_regular(run.emergency_stacks(name)), "rb") as file:
            content = file.read(_STACKS_BYTES + 1)
    except OSError as error:
        return f"cannot be read: {error.strerror}", False
    return content[:_STACKS_BYTES].decode("utf-8", errors="replace"), len(content) > _STACKS_BYTES


def _within(run: RunDir, error: RunFormatError) -> str:
    """A path as it is named inside the directory."""
    return safe(str(error).replace(f"{run.path}{os.sep}", ""), 200)


def _finite(value: object) -> float | None:
    found = as_float(value)
    return found if found is not None and math.isfinite(found) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else None


def _text(value: object, cells: int) -> str:
    return "" if value is None else safe(value, cells)


def _cause(value: object) -> tuple[str, str]:
    if isinstance(value, dict):
        return _text(value.get("kind"), 20), _text(value.get("detail"), 300)
    return "", _text(value, 300)


def _stages(value: object) -> tuple[tuple[str, float], ...]:
    found: list[tuple[str, float]] = []
    for each in value[:20] if isinstance(value, list) else []:
        t = _finite(each.get("t")) if isinstance(each, dict) else None
        if t is not None:
            found.append((_text(each.get("stage"), 20), t))
    return tuple(found)


def _sample(value: object) -> Remembered:
    if not isinstance(value, dict):
        return Remembered(None, None, {})
    measured, kinds = value.get("m"), value.get("nonfinite")
    values: dict[str, float] = {}
    for name, number in list(measured.items())[:_METRICS] if isinstance(measured, dict) else []:
        kind = kinds.get(name) if number is None and isinstance(kinds, dict) else None
        found = as_float(number) if kind is None else NONFINITE.get(str(kind))
        if found is not None:
            values[safe(name, 60)] = found
    return Remembered(_whole(value.get("step")), _finite(value.get("t")), values)
