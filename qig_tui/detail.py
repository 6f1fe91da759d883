"""What is read again from a run's file: the stretch that is zoomed into, the basin under the cursor. numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qig_core.rundir.schema import Sample, Scalars
from qig_tui.records import columns_of
from qig_tui.series import BEYOND, Branches, Floats, Ints, Segments, Series

_CAPACITY = 1 << 16
_MOST_POINTS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Every sample of a range of steps, read again from the file: what zooming in shows of a thinned series."""

    first: int
    last: int | None
    """None: to the newest; what comes is added."""
    series: dict[str, Series]
    seq: int
    """Of the newest record that was read for it."""

    @property
    def is_whole(self) -> bool:
        """Whether it still holds every point: one that grows with a run is given up before it takes too much room."""
        series = self.series.values()
        return sum(map(len, series)) <= _MOST_POINTS and not any(one.is_thinned for one in series)

    def covers(self, first: int, last: int | None) -> bool:
        """`last` None: to the newest."""
        return self.first <= first and (self.last is None or (last is not None and last <= self.last))

    def extend(self, name: str, step: Ints, value: Floats, segment: Segments) -> None:
        """Add points of a metric at the end."""
        self.series.setdefault(name, Series(_CAPACITY)).extend(step, value, segment)


@dataclass(frozen=True)
class Cursor:
    """A step that is looked at, and what the file holds of the basins up to it."""

    step: int
    basins: Sequence[tuple[int, Floats]]
    """The newest at or before the step and the one before it, newest first."""


@dataclass(frozen=True)
class Again:
    """What was read again for somebody who looks closer."""

    detail: Detail | None
    """None: nothing was asked for, or it would be too much."""
    cursor: Cursor | None


def detail_of(records: Sequence[Sample | Scalars], branches: Branches, first: int, last: int | None) -> Detail:
    """Every point of a range of steps, from the file's records of it in their order."""
    fitting = []
    seq = -1
    for record in records:
        # As when it was read first: a seq that goes back, or a step beyond all integers, is counted and not drawn.
        if not seq < record.seq < BEYOND or not -BEYOND < record.step < BEYOND:
            continue
        seq = record.seq
        if first <= record.step and (last is None or record.step <= last):
            fitting.append(record)
    detail = Detail(first=first, last=last, series={}, seq=seq)
    if fitting:
        steps = np.fromiter((r.step for r in fitting), dtype=np.int64, count=len(fitting))
        segment = branches.segment_of(np.fromiter((r.seq for r in fitting), dtype=np.int64, count=len(fitting)))
        for name, where, column in columns_of(fitting):
            at = (steps, segment) if where is None else (steps[where], segment[where])
            detail.extend(name, at[0], column, at[1])
    return detail
