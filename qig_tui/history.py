"""What was measured, folded into bounded series that know where a run went back. No Textual, no clock, no disk."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_core.rundir.values import decode_basin

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CAPACITY = 1 << 16
"""Points kept of one metric; above it the series is thinned to half."""
MAX_METRICS = 256
MAX_SEGMENTS = 1 << 16
_BASINS = 64
_NEVER = np.iinfo(np.int64).max
_KINDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def kept_by_thinning(step: Ints, value: Floats, segment: NDArray[np.int32], width: int) -> NDArray[np.intp]:
    """Indices of the lowest, the highest and the first non-finite point of every bucket of `width` steps.

    Edges lie at multiples of `width`, so that thinning again, or thinning more data, keeps the same points.
    """
    bucket = step // width
    new = np.empty(len(step), dtype=np.bool_)
    new[0] = True
    np.logical_or(bucket[1:] != bucket[:-1], segment[1:] != segment[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    finite = np.isfinite(value)
    lowest = np.minimum.reduceat(np.where(finite, value, np.inf), starts)
    highest = np.maximum.reduceat(np.where(finite, value, -np.inf), starts)
    keep = np.zeros(len(step), dtype=np.bool_)
    for mask in (finite & (value == lowest[group]), finite & (value == highest[group]), ~finite):
        found = np.flatnonzero(mask)
        if len(found):
            first = np.ones(len(found), dtype=np.bool_)
            first[1:] = group[found][1:] != group[found][:-1]
            keep[found[first]] = True
    keep[-1] = True
    return np.flatnonzero(keep)


class Series:
    """One metric: step, value and segment of every point kept, in the order of the file.

    A value that was not finite stands as nan, inf or -inf: a chart marks it on the edge.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._n = 0
        self._width = 4
        self._step = np.empty(64, dtype=np.int64)
        self._value = np.empty(64, dtype=np.float64)
        self._segment = np.empty(64, dtype=np.int32)
        self.seen = 0
        """Points that came, kept or not."""

    def __len__(self) -> int:
        return self._n

    @property
    def step(self) -> Ints:
        return self._step[: self._n]

    @property
    def value(self) -> Floats:
        return self._value[: self._n]

    @property
    def segment(self) -> NDArray[np.int32]:
        return self._segment[: self._n]

    @property
    def last(self) -> tuple[int, float] | None:
        """Step and value of the newest point."""
        return (int(self._step[self._n - 1]), float(self._value[self._n - 1])) if self._n else None

    @property
    def extremes(self) -> tuple[float, float] | None:
        """The lowest and the highest finite value; thinning keeps both."""
        finite = self.value[np.isfinite(self.value)]
        return (float(finite.min()), float(finite.max())) if len(finite) else None

    def still(self) -> "Series":
        """As it is now, to look at only. It shares the arrays: what is in use of them is never written again."""
        return copy(self)

    def extend(self, step: Ints, value: Floats, segment: NDArray[np.int32]) -> None:
        need = self._n + len(step)
        if need > len(self._step):
            room = max(need, min(2 * len(self._step), self._capacity + self._capacity // 8))
            self._step = np.concatenate((self.step, np.empty(room - self._n, dtype=np.int64)))
            self._value = np.concatenate((self.value, np.empty(room - self._n, dtype=np.float64)))
            self._segment = np.concatenate((self.segment, np.empty(room - self._n, dtype=np.int32)))
        self._step[self._n : need] = step
        self._value[self._n : need] = value
        self._segment[self._n : need] = segment
        self._n = need
        self.seen += len(step)
        self._thin()

    def _thin(self) -> None:
        if self._n <= self._capacity:
            return
        room = self._capacity * 5 // 8
        keep = kept_by_thinning(self.step, self.value, self.segment, self._width)
        while len(keep) > room and self._width < 1 << 60:
            self._width *= 2
            keep = kept_by_thinning(self.step, self.value, self.segment, self._width)
        # Steps that jump about cannot be bucketed: then the oldest points go.
        keep = keep[-room:]
        self._step, self._value, self._segment = self._step[keep], self._value[keep], self._segment[keep]
        self._n = len(keep)

    def prepend(self, older: "Series", segment_offset: int) -> None:
        """Put what came before in front; my segments move up by `segment_offset`."""
        step, value, segment = self.step, self.value, self.segment + np.int32(segment_offset)
        seen = self.seen
        self._step, self._value, self._segment = older.step.copy(), older.value.copy(), older.segment.copy()
        self._n, self.seen = len(older), older.seen
        self.extend(step, value, segment)
        self.seen = older.seen + seen


class History:
    """Every metric of one telemetry file, the newest basins, and the honesty counts.

    A step that is not above the one before it starts a new segment: what earlier segments hold at or after that step is
    an abandoned branch.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._series: dict[str, Series] = {}
        self._rewinds: list[int] = []
        self._last_seq = -1
        self._first_step: int | None = None
        self.step: int | None = None
        self.t: float | None = None
        self.regime: str | None = None
        self.read = 0
        self.bad = 0
        self.late = 0
        """Records whose seq is not above the one before: counted, not drawn."""
        self.dropped_metrics = 0
        self.unreadable: deque[Unreadable] = deque(maxlen=20)
        self.basins: deque[tuple[int, Floats]] = deque(maxlen=_BASINS)
        """Step and probabilities of the newest basins, oldest first."""
        self.reference: tuple[int, Floats] | None = None
        """The basin that distances are measured from: the run's first."""
        self._pace: deque[tuple[float, int]] = deque(maxlen=200)

    @property
    def metrics(self) -> list[str]:
        """Names in the order of their first appearance."""
        return list(self._series)

    def series(self, name: str) -> Series:
        """The points of a metric; an empty series where it was never measured."""
        return self._series.get(name) or Series(self._capacity)

    def latest(self, name: str) -> float | None:
        found = self._series.get(name)
        return found.last[1] if found is not None and found.last is not None else None

    @property
    def segments(self) -> int:
        return len(self._rewinds) + 1

    def abandoned(self, series: Series) -> Bools | None:
        """Which points lie on a branch that the run went back from; None where it never did."""
        if not self._rewinds:
            return None
        cuts = np.full(len(self._rewinds) + 1, _NEVER, dtype=np.int64)
        cuts[:-1] = np.minimum.accumulate(np.array(self._rewinds, dtype=np.int64)[::-1])[::-1]
        mask: Bools = series.step >= cuts[series.segment]
        return mask

    @property
    def seconds_per_step(self) -> float | None:
        """The pace of the newest samples, evaluations and saves included."""
        if len(self._pace) < 2:
            return None
        (t0, step0), (t1, step1) = self._pace[0], self._pace[-1]
        return (t1 - t0) / (step1 - step0) if step1 > step0 and t1 > t0 else None

    def add(self, records: Iterable[Sample | Scalars | Unreadable]) -> int:
        """Fold new records in; the number of samples that were new."""
        good: list[Sample | Scalars] = []
        last_seq = self._last_seq
        for record in records:
            if isinstance(record, Unreadable):
                self.bad += 1
                self.unreadable.append(record)
            elif not -(1 << 62) < record.step < 1 << 62:
                self.bad += 1
            elif record.seq <= last_seq:
                self.late += 1
            else:
                last_seq = record.seq
                good.append(record)
        if good:
            self._last_seq = last_seq
            self._fold(good)
        return len(good)

    def _fold(self, records: Sequence[Sample | Scalars]) -> None:
        steps = np.fromiter((record.step for record in records), dtype=np.int64, count=len(records))
        before = steps[0] - 1 if self.step is None else self.step
        back = np.empty(len(steps), dtype=np.bool_)
        back[0] = steps[0] <= before
        np.less_equal(steps[1:], steps[:-1], out=back[1:])
        room = MAX_SEGMENTS - len(self._rewinds)
        if back.any():
            back[np.flatnonzero(back)[room:]] = False
            self._pace.clear()
        segment = (len(self._rewinds) + np.cumsum(back)).astype(np.int32)
        self._rewinds += steps[back].tolist()
        if self._first_step is None:
            self._first_step = int(steps[0])
        self._fold_metrics(records, steps, segment)
        newest = records[-1]
        self.step, self.t = newest.step, newest.t
        self.read += len(records)
        self.regime = next((r.regime for r in reversed(records) if r.regime is not None), self.regime)
        self._pace += [(r.t, r.step) for r in records[-(self._pace.maxlen or 0) :] if math.isfinite(r.t)]
        self._keep_basins(records)

    def _fold_metrics(self, records: Sequence[Sample | Scalars], steps: Ints, segment: NDArray[np.int32]) -> None:
        # Samples with the same metrics in the same order become one table: one conversion, not one for each metric.
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, record in enumerate(records):
            groups.setdefault(tuple(record.m), []).append(i)
        if len(groups) == 1:
            names = next(iter(groups))
            for name, column in zip(names, _table(records, names).T, strict=True):
                if (series := self._open(name)) is not None:
                    series.extend(steps, column, segment)
            return
        columns: dict[str, tuple[list[list[int]], list[Floats]]] = {}
        for names, rows in groups.items():
            for name, column in zip(names, _table([records[i] for i in rows], names).T, strict=True):
                where, parts = columns.setdefault(name, ([], []))
                where.append(rows)
                parts.append(column)
        for name, (where, parts) in columns.items():
            if (series := self._open(name)) is not None:
                index = np.concatenate(where)
                order = np.argsort(index, kind="stable")
                index = index[order]
                series.extend(steps[index], np.concatenate(parts)[order], segment[index])

    def _open(self, name: str) -> Series | None:
        """The series of a metric, new ones as long as there is room."""
        series = self._series.get(name)
        if series is None:
            if len(self._series) >= MAX_METRICS:
                self.dropped_metrics += 1
                return None
            series = self._series[name] = Series(self._capacity)
        return series

    def _keep_basins(self, records: Sequence[Sample | Scalars]) -> None:
        fresh: list[tuple[int, Floats]] = []
        for record in reversed(records):
            if isinstance(record, Sample) and record.basin is not None:
                basin = basin_of(record)
                if basin is not None:
                    fresh.append((record.step, basin))
                if len(fresh) == _BASINS:
                    break
        self.basins.extend(reversed(fresh))
        if self.reference is None and fresh:
            found = ((r.step, basin_of(r)) for r in records if isinstance(r, Sample))
            self.reference = next(((step, basin) for step, basin in found if basin is not None), None)

    def prepend(self, older: "History") -> None:
        """Put the earlier part of the same file in front: what a backfill found while this part was being shown."""
        if older.step is not None and self._first_step is not None and self._first_step <= older.step:
            older._rewinds.append(self._first_step)
        offset = len(older._rewinds)
        self._rewinds = older._rewinds + self._rewinds
        mine = self._series
        self._series = older._series
        for name, series in mine.items():
            front = self._series.get(name)
            if front is None:
                front = Series(self._capacity)
            series.prepend(front, offset)
            self._series[name] = series
        self.read += older.read
        self.bad += older.bad
        self.late += older.late
        self._first_step = older._first_step if older._first_step is not None else self._first_step
        if self.step is None:
            self.step, self.t, self._last_seq = older.step, older.t, older._last_seq
        self.regime = self.regime if self.regime is not None else older.regime
        if older.reference is not None:
            self.reference = older.reference


def _table(records: Sequence[Sample | Scalars], names: tuple[str, ...]) -> Floats:
    """Values [record, metric] of samples that hold the same metrics; what was not finite by its recorded kind."""
    # numpy reads None as nan; only then is it asked which kind it was.
    values: Iterable[float | None] = chain.from_iterable([record.m.values() for record in records])
    count = len(records) * len(names)
    table = np.fromiter(values, dtype=np.float64, count=count).reshape(len(records), len(names))
    for i in np.flatnonzero(np.isnan(table).any(axis=1)).tolist():
        record = records[i]
        for j, name in enumerate(names):
            if record.m[name] is None:
                table[i, j] = _KINDS.get(record.nonfinite.get(name, "nan"), math.nan)
    return table


def basin_of(record: Sample) -> Floats | None:
    """The recorded basin as probabilities in float64, or None where it cannot be read as a distribution."""
    if record.basin is None:
        return None
    try:
        basin = np.frombuffer(decode_basin(record.basin), dtype="<f4").astype(np.float64)
    except ValueError:
        return None
    total = float(basin.sum())
    if not len(basin) or not np.isfinite(basin).all() or basin.min() < 0 or not 0 < total < math.inf:
        return None
    return basin / total
