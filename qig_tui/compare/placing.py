"""Points of a series put at other places than their steps: training time, tokens. numpy only."""

import numpy as np

from qig_tui.series import BEYOND, Bools, Floats, Ints, Segments, Series


class Placed(Series):
    """The points of a series at other places than their steps, what each stands for with them."""

    def __init__(self, series: Series, place: Ints, keep: Bools) -> None:
        super().__init__()
        count, total = series.mass()
        self._step, self._value, self._segment = place[keep], series.value[keep], series.segment[keep]
        self._mass = count[keep], total[keep]
        self._n = len(self._step)
        self.seen = series.seen


def counts(tokens: Series) -> Floats:
    """What of a series can be counted with, in the order of the file."""
    value = tokens.value
    with np.errstate(invalid="ignore"):
        found: Floats = value[np.isfinite(value) & (np.abs(value) < BEYOND)]
    return found


def rising(place: Ints, of: Bools) -> Bools:
    """Which of some places are not below one before them: a count that falls would draw a zig-zag."""
    highest = np.maximum.accumulate(np.where(of, place, np.iinfo(np.int64).min))
    found: Bools = of & (place >= highest)
    return found


def places_along(by: Series, step: Ints, segment: Segments) -> Floats:
    """What `by` says at each of some points of the same file; nan outside of what it says of their segment.

    Between two of its points that were kept it is read off the line between them.

    Args:
        step, segment: in the order of the file.
    """
    finite = np.isfinite(by.value)
    steps, segments, values = by.step[finite], by.segment[finite], by.value[finite]
    if not len(steps) or not len(step):
        return np.full(len(step), np.nan)
    known, first = np.unique(segments, return_index=True)
    last = np.append(first[1:], len(segments)) - 1
    low, high = steps[first], steps[last]
    # One ascending axis: the segments one behind the other, as they stand in the file.
    offset = np.concatenate(([0.0], np.cumsum(high - low + 1.0)))
    mine = np.searchsorted(known, segments)
    at = np.minimum(np.searchsorted(known, segment), len(known) - 1)
    inside = (known[at] == segment) & (step >= low[at]) & (step <= high[at])
    found = np.interp(offset[at] + (step - low[at]), offset[mine] + (steps - low[mine]), values)
    places: Floats = np.where(inside, found, np.nan)
    return places
