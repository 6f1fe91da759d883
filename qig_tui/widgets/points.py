"""What of a series lies within a view, ready to be drawn. numpy only; no Textual."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qig_tui.series import Bools, Floats, Ints, Series
from qig_tui.view import View

_LOST_BRANCHES = 24


@dataclass(frozen=True, kw_only=True)
class Points:
    """The points of one metric between two steps, and one beyond each side, so that a line enters and leaves."""

    step: Ints
    value: Floats
    """Ascending and finite: the branch that the run is on; positive, on a log axis."""
    count: Ints
    total: Floats
    """How many samples a point stands for, and their sum."""
    first: int
    last: int
    drawn: int
    odd_step: Ints
    odd_value: Floats
    """What has no place on the axis and is marked on its edge."""
    lost_step: Ints
    lost_value: Floats

    @property
    def mass(self) -> tuple[Ints, Floats]:
        return self.count, self.total

    def lumps(self) -> tuple[Ints, Floats, Ints]:
        """Of the points that stand for any: step, mean and count."""
        heavy = np.flatnonzero(self.count)
        count = self.count[heavy]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self.total[heavy] / count
        # A sum beyond float64 says nothing.
        return self.step[heavy], np.where(np.isfinite(mean), mean, self.value[heavy]), count

    def lost(self, *, log: bool) -> Iterator[tuple[Ints, Floats]]:
        """The newest abandoned branches, each ascending."""
        if not len(self.lost_step):
            return
        fine = np.isfinite(self.lost_value) & ((self.lost_value > 0) if log else True)
        step, value = self.lost_step[fine], self.lost_value[fine]
        edges = np.flatnonzero(np.diff(step) <= 0) + 1
        bounds = [0, *edges.tolist(), len(step)]
        for start, end in list(pairwise(bounds))[-_LOST_BRANCHES:]:
            if start < end:
                yield step[start:end], value[start:end]


def visible(series: Series, abandoned: Bools | None, view: View) -> Points:
    """The points within the view: the branch that the run is on, what cannot be drawn, and the lost branches."""
    step, value = series.step, series.value
    count, total = series.mass()
    no_step, no_value = step[:0], value[:0]
    lost_step, lost_value = no_step, no_value
    first, last = 0, 1
    if len(step):
        low, high = (int(step[0]), int(step[-1])) if abandoned is None else (int(step.min()), int(step.max()))
        first = low if view.first is None else view.first
        last = max(high if view.last is None else view.last, first + 1)
    if abandoned is not None:
        lost_step, lost_value = step[abandoned], value[abandoned]
        live = ~abandoned
        step, value, count, total = step[live], value[live], count[live], total[live]
    if len(step) and (first > step[0] or last < step[-1]):
        start = max(int(np.searchsorted(step, first)) - 1, 0)
        end = int(np.searchsorted(step, last, side="right")) + 1
        step, value, count, total = step[start:end], value[start:end], count[start:end], total[start:end]
    drawn = len(step) + len(lost_step)
    odd_step, odd_value = no_step, no_value
    with np.errstate(over="ignore", invalid="ignore"):
        all_finite = bool(np.isfinite(value.sum()))
    if view.log or not all_finite:
        fine = np.isfinite(value)
        if view.log:
            fine &= value > 0
        odd_step, odd_value = step[~fine], value[~fine]
        step, value, count, total = step[fine], value[fine], count[fine], total[fine]
    return Points(
        step=step,
        value=value,
        count=count,
        total=total,
        first=first,
        last=last,
        drawn=drawn,
        odd_step=odd_step,
        odd_value=odd_value,
        lost_step=lost_step,
        lost_value=lost_value,
    )
