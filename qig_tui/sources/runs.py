"""Every run under a folder in a few facts, read again only where its files changed. Decides nothing, shows nothing.

A look costs little at any number of runs: what has ended is looked at in turns, and of a file only its end is read.
"""

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import ENDED, BeatWatch, Liveness, Word
from qig_core.rundir.reader import LineDecoder, open_regular, read_manifest
from qig_core.rundir.schema import Event, Manifest, Scalars, Unreadable
from qig_core.rundir.values import MAX_LINE_BYTES
from qig_tui.journal import STATES
from qig_tui.records import NONFINITE
from qig_tui.runs.filter import NO_RUN, NO_VERDICT, UNREADABLE
from qig_tui.sources.local import within

SAMPLES_BYTES = 1 << 15
"""What is read of the end of the telemetry; more where a metric that the table shows is not in it."""
_MORE_BYTES = 1 << 18
_EVENTS_BYTES = 1 << 18
_TABLED = ("phi", "kappa", "loss", "drift_rolling")
_TREND = 96
"""The newest values of phi that are kept: enough for twelve cells."""
_FEW = 64
_TURNS = 5
"""Of more than a few runs that rest, each is looked at every so many looks."""
_RESTS_AFTER_S = 60.0
_REPORT_S = 0.15
_STILL = (Word.EXITED.lower(), UNREADABLE)
"""States in which only a changed file says anything new."""
_ABSENT = (errno.ENOENT, errno.ENOTDIR)

_Mark = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of the folder, or what looks like one and is none."""

    run: RunDir
    name: str
    program: str = ""
    state: str = UNREADABLE
    """The word of its liveness in small letters, UNREADABLE or NO_RUN."""
    error: str | None = None
    """What of it cannot be read, and why; then nothing of it is judged."""
    note: str = ""
    """What is worth knowing of a run that can be read: no sample, a torn last line."""
    liveness: Liveness | None = None
    step: int | None = None
    total: int | None = None
    t: float | None = None
    began: float = 0.0
    """When its last session began; of what cannot be read, when it was changed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest value of each, finite or not."""
    trend: tuple[float, ...] = ()
    """The newest values of phi, the oldest first."""
    worst: str = NO_VERDICT
    count: int = 0
    """How many conditions are in the worst state."""

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def share(self) -> float | None:
        """0 to 1, of the steps it is to make."""
        return None if not self.total or self.step is None else min(max(self.step / self.total, 0.0), 1.0)

    def number(self, key: str, now: float) -> float | None:
        """A metric, or step, total, share, age (seconds since the last sample)."""
        if key == "age":
            return None if self.t is None else max(now - self.t, 0.0)
        if key in ("step", "total", "share"):
            found: float | None = getattr(self, key)
            return found
        return self.metrics.get(key)


class _Facts(msgspec.Struct):
    """What the files of a run say; the heartbeat is not among them."""

    error: str | None = None
    manifest: Manifest | None = None
    step: int | None = None
    t: float | None = None
    metrics: dict[str, float] = {}
    trend: tuple[float, ...] = ()
    note: str = ""
    worst: str = NO_VERDICT
    count: int = 0


class _Known:
    """A name in the folder, and what was found under it."""

    def __init__(self, run: RunDir, turn: int) -> None:
        self.run = run
        self.turn = turn
        self.rests = False
        self.row: RunRow | None = None
        """None: no run, and nothing that looks like one."""
        self._telemetry = run.telemetry()
        self._documents = (os.fspath(run.manifest), os.fspath(self._telemetry), os.fspath(run.events))
        self._watch = BeatWatch(run)
        self._heard = time.monotonic()
        self._marks: tuple[_Mark | int, ...] = ()
        self._facts = _Facts()

    def look(self) -> None:
        marks = tuple(map(_mark, self._documents))
        manifest_mark = marks[0]
        if isinstance(manifest_mark, int):
            self.rests = True
            if marks != self._marks or manifest_mark in _ABSENT:
                self.row = self._no_run(manifest_mark)
            self._marks = marks
            return
        if marks == self._marks and self.row is not None and self.row.state in _STILL:
            return
        if marks != self._marks:
            self._facts = _read(self.run, self._telemetry)
            self._marks = marks
        row = self._row()
        if row != self.row:
            self.row = row

    def _row(self) -> RunRow:
        facts, manifest = self._facts, self._facts.manifest
        name = (manifest.name if manifest else "") or self.run.id
        session = manifest.sessions[-1] if manifest and manifest.sessions else None
        mark = self._marks[0]
        changed = mark[0] / 1e9 if isinstance(mark, tuple) else 0.0
        began = session.t if session else manifest.created_t if manifest else changed
        began = began if math.isfinite(began) else changed
        if facts.error is not None or manifest is None:
            self.rests = True
            return RunRow(run=self.run, name=name, began=began, error=within(self.run, facts.error))
        liveness = self._watch.look(manifest)
        if liveness.word != Word.SILENT:
            self._heard = time.monotonic()
        # Long silent: a process of another host that is gone, most likely.
        self.rests = liveness.word in ENDED or time.monotonic() - self._heard > _RESTS_AFTER_S
        return RunRow(
            run=self.run,
            name=name,
            program=manifest.program,
            state=liveness.word.lower(),
            note=_note(facts, liveness),
            liveness=liveness,
            step=facts.step,
            total=manifest.total_steps,
            t=facts.t,
            began=began,
            metrics=facts.metrics,
            trend=facts.trend,
            worst=facts.worst,
            count=facts.count,
        )

    def _no_run(self, refused: int) -> RunRow | None:
        if refused not in _ABSENT:
            error = f"run.json cannot be read: {os.strerror(refused)}"
            return RunRow(run=self.run, name=self.run.id, began=_changed(self.run.path), error=error)
        found = [
            path.name for path in (self._telemetry, self.run.events, self.run.checkpoints) if os.path.lexists(path)
        ]
        if not found:
            return None
        error = f"no run: there is no run.json beside {' and '.join(found)}"
        row = RunRow(run=self.run, name=self.run.id, began=_changed(self.run.path), state=NO_RUN, error=error)
        return self.row if row == self.row else row


Report = Callable[[list[RunRow], int, int], None]
"""What has been read so far, how many names that took, and how many there are."""


class RunShelf:
    """Looks at a folder again and again; a heartbeat is judged over time, a file is read when it changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, _Known] = {}
        self._looks = 0
        self.problem: str | None = None
        """What hinders that the folder is listed ("does not exist"); what was known of its runs is kept."""

    def look(self, report: Report | None = None) -> list[RunRow]:
        """The runs and what looks like one, the highest id first; none where the folder cannot be listed.

        Args:
            report: called now and then while runs are read for the first time.
        """
        try:
            names = self._names()
        except OSError as error:
            gone = error.errno in _ABSENT
            self.problem = "does not exist" if gone else f"cannot be read: {error.strerror}"
            return []
        self.problem = None
        for name in self._known.keys() - set(names):
            del self._known[name]
        first = sum(name not in self._known for name in names) > 1
        resting = sum(known.rests for known in self._known.values())
        turns = 1 if resting <= _FEW else _TURNS
        self._looks += 1
        rows: list[RunRow] = []
        reported = time.monotonic()
        for count, name in enumerate(names):
            known = self._known.get(name)
            if known is None:
                known = self._known[name] = _Known(RunDir(self._root / name), count)
                known.look()
            elif not known.rests or (known.turn + self._looks) % turns == 0:
                known.look()
            if known.row is not None:
                rows.append(known.row)
            if report is not None and first and time.monotonic() - reported >= _REPORT_S:
                report(list(rows), count + 1, len(names))
                reported = time.monotonic()
        return rows

    def _names(self) -> list[str]:
        """Whatever may be a run, the highest name first. Hidden names are passed over: what is being deleted, say."""
        with os.scandir(self._root) as entries:
            found = [e.name for e in entries if not e.name.startswith(".") and (e.is_symlink() or not e.is_file())]
        return sorted(found, reverse=True)


def _mark(path: str) -> _Mark | int:
    """What changes when a file does, also who may read it; the error's number where it cannot be asked."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO
    return (found.st_ctime_ns, found.st_size, found.st_ino)


def _changed(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _read(run: RunDir, telemetry: Path) -> _Facts:
    """The ends of a run's files. What cannot be read is an `error`, and then it is all that is told."""
    try:
        facts = _Facts(manifest=_slim(read_manifest(run)))
    except RunFormatError as error:
        return _Facts(error=str(error))
    try:
        _read_samples(facts, telemetry)
        _read_conditions(facts, run.events)
    except OSError as error:
        facts.error = f"{str(error.filename or run.path)!r} cannot be read: {error.strerror}"
    return facts


def _slim(manifest: Manifest) -> Manifest:
    """Without what a table does not show: there may be thousands of them."""
    specs = [spec for spec in manifest.metrics if spec.name in _TABLED]
    return msgspec.structs.replace(
        manifest,
        config={},
        profile={},
        corpus={},
        probe={},
        versions={},
        metrics=specs,
        sessions=manifest.sessions[-1:],
    )


def _read_samples(facts: _Facts, path: Path) -> None:
    assert facts.manifest is not None
    declared = [spec.name for spec in facts.manifest.metrics]
    decoder = LineDecoder(path, Scalars)
    for size in (SAMPLES_BYTES, _MORE_BYTES):
        whole, torn, more = _end_of(path, size)
        records = decoder.decode(whole, 0)
        samples = [record for record in records if not isinstance(record, Unreadable)]
        facts.metrics = {}
        for sample in samples:
            facts.metrics.update({name: _finite_or_not(sample, name) for name in (*sample.m, *sample.nonfinite)})
        if not more or all(name in facts.metrics for name in declared):
            break
    if samples:
        facts.step, facts.t = samples[-1].step, samples[-1].t
        trend = [_finite_or_not(s, "phi") for s in samples if "phi" in s.m or "phi" in s.nonfinite]
        facts.trend = tuple(trend[-_TREND:])
    bad = len(records) - len(samples)
    if bad:
        facts.note = f"telemetry.jsonl: {bad} of its last {len(records)} lines cannot be read"
    elif torn:
        facts.note = "telemetry.jsonl: its last line is torn"


def _finite_or_not(sample: Scalars, name: str) -> float:
    value = sample.m.get(name)
    return NONFINITE.get(sample.nonfinite.get(name, ""), math.nan) if value is None else value


def _read_conditions(facts: _Facts, path: Path) -> None:
    whole, _, _ = _end_of(path, _EVENTS_BYTES)
    # Few events are conditions, and decoding the others would be most of the cost.
    chosen = b"".join(line + b"\n" for line in whole.split(b"\n") if b'"condition"' in line)
    states: dict[str, str] = {}
    for event in LineDecoder(path, Event).decode(chosen, 0) if chosen else ():
        if isinstance(event, Event) and event.kind == "condition" and isinstance(event.data.get("id"), str):
            states[event.data["id"]] = str(event.data.get("state"))
    known = [state for state in states.values() if state in STATES]
    if known:
        facts.worst = max(known, key=STATES.index)
        facts.count = known.count(facts.worst)


def _end_of(path: Path, size: int) -> tuple[bytes, bool, bool]:
    """The whole lines at the end of a file, whether a piece of one follows, and whether there is more before them.

    Of a longer last line as much more is read as it takes, within reason. An absent file is empty.
    """
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return b"", False, False
    try:
        end = os.fstat(fd).st_size
        for wanted in _growing(size):
            start = max(end - wanted, 0)
            chunk = os.pread(fd, end - start, start)
            first = chunk.find(b"\n") + 1 if start else 0
            last = chunk.rfind(b"\n") + 1
            if first < last or not start:
                return chunk[first:last], last < len(chunk), start > 0
        return b"", True, True
    finally:
        os.close(fd)


def _growing(size: int) -> Iterator[int]:
    while size <= MAX_LINE_BYTES:
        yield size
        size *= 8


def _note(facts: _Facts, liveness: Liveness) -> str:
    ended = liveness.word in ENDED
    if facts.step is None and not facts.note:
        return "no sample was recorded" if ended else "no sample yet"
    # While somebody writes, a piece of a line is nothing to be told.
    return facts.note if ended or "torn" not in facts.note else ""
