"""One metric over steps in bounded memory: thinned by buckets that keep their extremes and their mass. numpy only."""

from copy import copy

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Segments = NDArray[np.int32]

CAPACITY = 1 << 15
"""Points kept of one metric; above it the series is thinned to about half."""
BEYOND = 1 << 53
"""Steps from here on are no counts any more; differences of smaller ones fit into 64 bits."""
_NEVER = np.iinfo(np.int64).max


def _buckets(step: Ints, segment: Segments, width: int) -> NDArray[np.intp]:
    """Where a bucket of `width` steps begins. Edges lie at multiples of `width`, so that buckets of buckets agree."""
    bucket = step // width
    new = np.empty(len(step), dtype=np.bool_)
    new[0] = True
    np.logical_or(bucket[1:] != bucket[:-1], segment[1:] != segment[:-1], out=new[1:])
    return np.flatnonzero(new)


def kept_by_thinning(step: Ints, value: Floats, segment: Segments, width: int) -> NDArray[np.intp]:
    """Indices of the lowest, the highest and the first non-finite point of every bucket of `width` steps."""
    starts = _buckets(step, segment, width)
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(step)))
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
    """Step, value and segment of every point kept, in the order of the file, and what the points left out amount to.

    A value that was not finite stands as nan, inf or -inf: a chart marks it on the edge. A point that was left out is
    counted in `count` and summed in `total` of a point kept in its bucket: a mean over buckets is that of all points.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._n = 0
        self._width = 2
        self._step = np.empty(64, dtype=np.int64)
        self._value = np.empty(64, dtype=np.float64)
        self._segment = np.empty(64, dtype=np.int32)
        self._mass: tuple[Ints, Floats] | None = None
        """Count and total of the points as they were after the last thinning; later points stand for themselves."""
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
    def segment(self) -> Segments:
        return self._segment[: self._n]

    @property
    def is_thinned(self) -> bool:
        return self._mass is not None

    def mass(self) -> tuple[Ints, Floats]:
        """Finite points that each kept point stands for, and their sum: 0 where another one stands for them."""
        value = self.value
        with np.errstate(over="ignore"):
            finite = np.isfinite(value)
            count, total = finite.astype(np.int64), np.where(finite, value, 0.0)
        if self._mass is not None:
            old = len(self._mass[0])
            count[:old], total[:old] = self._mass
        return count, total

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

    def begins_before(self, step: int, segment: int) -> bool:
        """Whether a point of it was known when a step of a segment was the newest."""
        return self._n > 0 and (int(self._segment[0]), int(self._step[0])) <= (segment, step)

    def until(self, step: int, segment: int) -> "Series":
        """As it was when a step of a segment was the newest, to look at only; `seen` counts what that amounts to."""
        before = int(np.searchsorted(self.segment, segment, side="left"))
        within = int(np.searchsorted(self.segment, segment, side="right"))
        count = before + int(np.searchsorted(self.step[before:within], step, side="right"))
        past = copy(self)
        past._n = count
        if self._mass is not None:
            past._mass = self._mass[0][:count], self._mass[1][:count]
        past.seen = int(past.mass()[0].sum()) + int((~np.isfinite(past.value)).sum())
        return past

    def extend(self, step: Ints, value: Floats, segment: Segments) -> None:
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

    def limit(self, capacity: int) -> None:
        """Keep no more than so many points from now on."""
        self._capacity = capacity
        self._thin()

    def _thin(self) -> None:
        if self._n <= self._capacity:
            return
        room = self._capacity * 5 // 8
        keep = kept_by_thinning(self.step, self.value, self.segment, self._width)
        while len(keep) > room and self._width < 1 << 60:
            self._width *= 2
            keep = kept_by_thinning(self.step, self.value, self.segment, self._width)
        starts = _buckets(self.step, self.segment, self._width)
        count, total = self.mass()
        # A bucket's mass lies on the last of its points that stay.
        bearer = keep[np.searchsorted(keep, np.append(starts[1:], self._n)) - 1]
        left, summed = np.zeros(self._n, dtype=np.int64), np.zeros(self._n)
        with np.errstate(over="ignore", invalid="ignore"):
            left[bearer], summed[bearer] = np.add.reduceat(count, starts), np.add.reduceat(total, starts)
        # Steps that jump about cannot be bucketed: then the oldest points go.
        keep = keep[-room:]
        self._step, self._value, self._segment = self._step[keep], self._value[keep], self._segment[keep]
        self._mass = left[keep], summed[keep]
        self._n = len(keep)

    def prepend(self, older: "Series", segment_offset: int) -> None:
        """Put what came before in front; my segments move up by `segment_offset`."""
        step, value, segment = self.step, self.value, self.segment + np.int32(segment_offset)
        mass = None
        if self.is_thinned or older.is_thinned:
            # Of each of both what it stands for: afterwards nobody knows which of them was thinned.
            (count, total), (later_count, later_total) = older.mass(), self.mass()
            mass = np.concatenate((count, later_count)), np.concatenate((total, later_total))
        self._step = np.concatenate((older.step, step))
        self._value = np.concatenate((older.value, value))
        self._segment = np.concatenate((older.segment, segment))
        self._mass, self._n = mass, len(self._step)
        self._width = max(self._width, older._width)
        self.seen += older.seen
        self._thin()


class Branches:
    """Where a run went back, and so which points lie on a branch that it has left. Immutable."""

    def __init__(self, seqs: tuple[int, ...] = (), steps: tuple[int, ...] = ()) -> None:
        """Args: seqs, steps: of the first sample of every segment but the first."""
        self._seqs = np.array(seqs, dtype=np.int64)
        self._cuts = np.full(len(steps) + 1, _NEVER, dtype=np.int64)
        self._cuts[:-1] = np.minimum.accumulate(np.array(steps, dtype=np.int64)[::-1])[::-1]
        self.count = len(steps) + 1

    def segment_of(self, seq: Ints) -> Segments:
        """The segment in which samples stand, by their seq."""
        return np.searchsorted(self._seqs, seq, side="right").astype(np.int32)

    def abandoned(self, step: Ints, segment: Segments) -> Bools | None:
        """Which points the run went back from: a later segment begins at or before their step. None: it never did."""
        if self.count == 1:
            return None
        mask: Bools = step >= self._cuts[segment]
        return mask

    def is_abandoned(self, seq: int, step: int) -> bool:
        return bool(step >= self._cuts[int(np.searchsorted(self._seqs, seq, side="right"))])


def last_at(step: Ints, at: int) -> int | None:
    """The index of the newest point at or before a step, of steps that ascend."""
    found = int(np.searchsorted(step, at, side="right")) - 1
    return found if found >= 0 else None
