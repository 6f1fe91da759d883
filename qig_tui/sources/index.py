"""Where in a telemetry file which steps stand: sparse, made while the file is read, to read parts of it again."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qig_core.rundir.reader import LineDecoder, open_regular
from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_tui.detail import Again, Cursor, detail_of
from qig_tui.records import basin_of
from qig_tui.series import BEYOND, Branches, Floats
from qig_tui.travel import Moment

_STRETCH = 1 << 18
MAX_READ = 32 << 20
"""More than this is not read again: a range of so many samples is drawn as well from what is known of it."""


@dataclass
class _Stretch:
    """Whole lines start..end of the file and the steps that stand in them."""

    start: int
    end: int
    low: int
    high: int


class StepIndex:
    """Noted by the threads that read a file, asked by those that read it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stretches: list[_Stretch] = []
        self._lock = threading.Lock()

    def clear(self) -> None:
        """The file is another one."""
        with self._lock:
            self._stretches.clear()

    def note(self, start: int, end: int, records: Sequence[Sample | Scalars | Unreadable]) -> None:
        """These records were read from the bytes start..end."""
        steps = [record.step for record in records if not isinstance(record, Unreadable)]
        if not steps:
            return
        with self._lock:
            last = self._stretches[-1] if self._stretches else None
            if last is not None and last.end == start and end - last.start <= _STRETCH:
                last.end, last.low, last.high = end, min(last.low, *steps), max(last.high, *steps)
            else:
                self._stretches.append(_Stretch(start, end, min(steps), max(steps)))

    def __len__(self) -> int:
        return len(self._stretches)

    def _holding(self, first: int, last: int | None) -> list[_Stretch]:
        """In the order of the file."""
        with self._lock:
            found = [s for s in self._stretches if s.high >= first and (last is None or s.low <= last)]
        return sorted(found, key=lambda stretch: stretch.start)

    def scalars(self, first: int, last: int | None) -> list[Scalars] | None:
        """Every sample of first..last (None: to the newest) in the order of the file; None where they are too many.

        Raises:
            OSError: the file cannot be read.
        """
        stretches = self._holding(first, last)
        if sum(s.end - s.start for s in stretches) > MAX_READ:
            return None
        decoder: LineDecoder[Scalars] = LineDecoder(self._path, Scalars)
        found: list[Scalars] = []
        for chunk, offset in self._chunks(stretches):
            found += [r for r in decoder.decode(chunk, offset) if not isinstance(r, Unreadable)]
        return found

    def moment(self, at: int, branches: Branches) -> Moment | None:
        """The newest sample at or before a step on the branch that the run is on, with the basins up to it.

        Raises:
            OSError: the file cannot be read.
        """
        decoder: LineDecoder[Sample] = LineDecoder(self._path, Sample)
        newest: Sample | None = None
        basins: list[tuple[int, Floats]] = []
        read = 0
        for stretch in reversed(self._holding(np.iinfo(np.int64).min, at)):
            for chunk, offset in self._chunks([stretch]):
                read += len(chunk)
                for record in reversed(decoder.decode(chunk, offset)):
                    if isinstance(record, Unreadable) or not (-BEYOND < record.step <= at and record.seq < BEYOND):
                        continue
                    if branches.is_abandoned(record.seq, record.step):
                        continue
                    newest = newest or record
                    if record.basin is not None and (basin := basin_of(record)) is not None:
                        basins.append((record.step, basin))
                    if len(basins) == 2:
                        return _moment_of(newest, basins, branches)
            if read > MAX_READ:
                break
        return None if newest is None else _moment_of(newest, basins, branches)

    def next_step(self, after: int, branches: Branches) -> int | None:
        """The lowest recorded step above another one on the branch that the run is on; None where there is none.

        Raises:
            OSError: the file cannot be read.
        """
        decoder: LineDecoder[Scalars] = LineDecoder(self._path, Scalars)
        for chunk, offset in self._chunks(self._holding(after + 1, None)):
            steps = [
                record.step
                for record in decoder.decode(chunk, offset)
                if not isinstance(record, Unreadable)
                and after < record.step < BEYOND
                and not branches.is_abandoned(record.seq, record.step)
            ]
            if steps:
                return min(steps)
        return None

    def again(self, steps: tuple[int, int | None] | None, cursor: int | None, branches: Branches) -> Again:
        """Every point of a stretch of steps (to None: to the newest), and the basins up to the cursor's.

        Raises:
            OSError: the file cannot be read.
        """
        detail = None
        if steps is not None and (records := self.scalars(*steps)) is not None:
            detail = detail_of(records, branches, *steps)
        if cursor is None:
            return Again(detail, None)
        moment = self.moment(cursor, branches)
        return Again(detail, Cursor(cursor, () if moment is None else moment.basins))

    def _chunks(self, stretches: Sequence[_Stretch]) -> Iterator[tuple[bytes, int]]:
        fd = open_regular(self._path)
        try:
            for stretch in stretches:
                chunk = os.pread(fd, stretch.end - stretch.start, stretch.start)
                yield chunk[: chunk.rfind(b"\n") + 1], stretch.start
        finally:
            os.close(fd)


def _moment_of(newest: Sample, basins: Sequence[tuple[int, Floats]], branches: Branches) -> Moment:
    return Moment(
        step=newest.step,
        seq=newest.seq,
        t=newest.t,
        session=newest.session,
        segment=int(branches.segment_of(np.array([newest.seq], dtype=np.int64))[0]),
        regime=newest.regime,
        basins=tuple(basins),
    )
