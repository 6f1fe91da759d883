"""Median and robust deviation of the last values, renewed every few of them. No clock, no judging.

Cheaper than `trailing`, which is exact after every value: what is judged against a hundred values may be a few old.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

SIGMA_PER_MAD = 1.4826
"""Standard deviation of a normal distribution over its MAD."""
_RENEWALS = 4
"""In the time in which all values are replaced: the sorting is most of what a window costs a step."""
_LEAST = 1e-12


class Rolling:
    """The last `size` values that were added.

    Args:
        mad_floor_share: of the median's magnitude: the MAD counts as at least this.
        turn: windows with different ones are not all renewed at the same step.
    """

    __slots__ = ("_every", "_floor", "_left", "_size", "_turn", "_values", "median", "ready", "sigma")

    def __init__(self, size: int, mad_floor_share: float, *, turn: int = 0) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._size = size
        self._floor = mad_floor_share
        self._every = -(-size // _RENEWALS)
        self._turn = turn % self._every
        self._left = size
        """Values until they are renewed: first when all places are taken."""
        self.ready = False
        """Whether it has been full."""
        self.median = 0.0
        self.sigma = 1.0
        """1.4826 max(MAD, floor), never 0."""

    def add(self, value: float) -> bool:
        """Take in a finite value; whether median and sigma are new."""
        self._values.append(value)
        self._left -= 1
        if self._left:
            return False
        self._renew()
        return True

    def _renew(self) -> None:
        self._left = self._every if self.ready else self._every + self._turn
        self.ready = True
        self.median, mad = median_and_mad(sorted(self._values))
        self.sigma = SIGMA_PER_MAD * max(mad, self._floor * abs(self.median), _LEAST)

    def state(self) -> dict[str, Any]:
        return {
            "size": self._size,
            "values": list(self._values),
            "left": self._left,
            "ready": self.ready,
            "median": self.median,
            "sigma": self.sigma,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, into a new one; from its values alone where those were of another size."""
        values: Iterable[float] = map(float, state["values"])
        if state["size"] != self._size:
            for value in values:
                self.add(value)
            return
        self._values.extend(values)
        self._left, self.ready = int(state["left"]), bool(state["ready"])
        self.median, self.sigma = float(state["median"]), float(state["sigma"])


def median_of(values: Iterable[float]) -> float:
    """The median of at least one value, as numpy.median has it."""
    return median_and_mad(sorted(values))[0]


def median_and_mad(ordered: list[float]) -> tuple[float, float]:
    """median(x) and median(|x − median(x)|) of at least one sorted value, as numpy.median has them.

    The k values nearest to the median are neighbours: bisection finds where they begin.
    """
    n = len(ordered)
    half, odd = divmod(n, 2)
    median = ordered[half] if odd else 0.5 * (ordered[half - 1] + ordered[half])
    k = half + odd
    low, high = 0, n - k
    while low < high:
        middle = (low + high) // 2
        if median - ordered[middle] > ordered[middle + k] - median:
            low = middle + 1
        else:
            high = middle
    end = low + k
    kth = max(median - ordered[low], ordered[end - 1] - median)
    if odd:
        return median, kth
    below = median - ordered[low - 1] if low > 0 else math.inf
    above = ordered[end] - median if end < n else math.inf
    return median, 0.5 * (kth + min(below, above))
