"""The append-only files of a run, read whole and in chunks. Changes nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from qig_core.checkpoints.catalog import in_words
from qig_core.commands.examination.finding import Finding, Known, Steps
from qig_core.rundir.reader import LineDecoder, Tail, open_regular
from qig_core.rundir.schema import Event, Sample, Unreadable
from qig_core.rundir.values import MAX_LINE_BYTES

_PROGRESS_BYTES = 16 << 20


def records(known: Known) -> Steps:
    """Every line of every stream and of the events: readable, in order, without gaps, with its newline."""
    run = known.run
    named = known.manifest.streams if known.manifest else []
    for stream in (None, *run.streams()):
        yield from _records(known, run.telemetry(stream), Sample)
    if lost := sorted(set(named) - set(run.streams())):
        what = f"run.json names streams that have no file: {in_words(lost)}"
        yield Finding(check="records", state="warning", what=what)
    yield from _records(known, run.events, Event)


class _Tally:
    """What is counted over the lines of one file."""

    def __init__(self) -> None:
        self.readable = self.unreadable = self.backwards = self.gaps = self.missing = 0
        self.first_bad: Unreadable | None = None
        self.first_backwards = self.first_gap = ""
        self._last: int | None = None

    def add(self, record: Sample | Event | Unreadable) -> None:
        if isinstance(record, Unreadable):
            self.unreadable += 1
            self.first_bad = self.first_bad or record
            return
        self.readable += 1
        if self._last is not None and record.seq <= self._last:
            self.backwards += 1
            self.first_backwards = self.first_backwards or f"{record.seq} after {self._last}"
        elif self._last is not None and record.seq > self._last + 1:
            self.gaps += 1
            self.missing += record.seq - self._last - 1
            self.first_gap = self.first_gap or f"{record.seq} after {self._last}"
        self._last = record.seq

    @property
    def lines(self) -> int:
        return self.readable + self.unreadable

    def findings(self, name: str) -> Iterator[Finding]:
        """What is wrong with the lines of the file of this name."""
        if self.first_bad is not None:
            what = f"{name}: {self.unreadable} of {self.lines} lines cannot be read and are passed over"
            what += f"; the first at byte {self.first_bad.offset}: {self.first_bad.reason}"
            yield Finding(check="records", state="warning" if self.readable else "bad", what=what)
        if self.backwards:
            what = f"{name}: seq does not increase, {self.backwards} times (first {self.first_backwards})"
            yield Finding(check="records", state="bad", what=f"{what}: two writers, or a file that was edited")
        if self.gaps:
            what = f"{name}: gaps in seq, {self.gaps} (first {self.first_gap}); numbers missing, {self.missing}"
            yield Finding(check="records", state="warning", what=what)


def _records(known: Known, path: Path, kind: type[Sample] | type[Event]) -> Steps:
    try:
        yield from _file(known, path, kind)
    except FileNotFoundError:
        yield Finding(check="records", state="warning", what=f"{path.name} does not exist: nothing is recorded in it")
    except OSError as error:
        what = f"{path.name} cannot be read: {error.strerror}; no session can go on with it"
        yield Finding(check="records", state="bad", what=what)


def _file(known: Known, path: Path, kind: type[Sample] | type[Event]) -> Steps:
    name, size = path.name, path.stat().st_size
    tally, said = _Tally(), 0
    tail: Tail[Any] = Tail(path, kind)
    try:
        while True:
            batch = tail.poll()
            if batch.restarted:
                tally = _Tally()
            for record in batch.records:
                tally.add(record)
            if not batch.more or tail.offset >= size:
                break  # what a live writer adds from now on is the next look's
            if tail.offset - said >= _PROGRESS_BYTES:
                said = tail.offset
                yield {"check": name, "done": said, "total": size}
        end = tail.offset
    finally:
        tail.close()
    yield Finding(check="records", state="ok", what=f"{name}: lines {tally.lines}, {decimal(size)}")
    yield from tally.findings(name)
    yield from _torn_tail(known, path, kind, end, size)


def _torn_tail(known: Known, path: Path, kind: type[Sample] | type[Event], end: int, size: int) -> Steps:
    """What stands behind the last newline."""
    torn = size - end
    if torn <= 0:
        return
    if known.live:
        yield Finding(check="records", state="ok", what=f"{path.name}: a line is being written")
        return
    fd = open_regular(path)
    try:
        rest = os.pread(fd, MAX_LINE_BYTES, end)
    finally:
        os.close(fd)
    decoder: LineDecoder[Any] = LineDecoder(path, kind)
    whole = not any(isinstance(record, Unreadable) for record in decoder.decode(rest + b"\n", end))
    becomes = "is whole then" if whole else "stays as one that cannot be read"
    what = f"{path.name}: the last line ({torn} bytes) has no newline: its writer was killed, or the disk was full"
    yield Finding(check="records", state="warning", what=f"{what}; the next session adds it, and the line {becomes}")
