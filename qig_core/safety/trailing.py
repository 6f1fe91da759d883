"""Median and MAD of the recent past, exact after every value. No clock, no judging."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable


class TrailingWindow:
    """The `size` values that came before the newest `lag`.

    A sorted copy is kept by insertion, so that both statistics are exact and a value costs about a microsecond.
    """

    def __init__(self, size: int, lag: int, values: Iterable[float] = ()) -> None:
        self._size = size
        self._lag = lag
        self._waiting: deque[float] = deque()
        self._window: deque[float] = deque()
        self._sorted: list[float] = []
        self._nearest = 0
        """Where in the sorted list the half nearest to the median began."""
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        """How many values median and MAD are taken over now."""
        return len(self._window)

    @property
    def full(self) -> bool:
        return len(self._window) == self._size

    def values(self) -> list[float]:
        """Everything held, oldest first; a window built from it is equal to this one."""
        return [*self._window, *self._waiting]

    def add(self, value: float) -> None:
        """Take in the newest value, finite."""
        waiting = self._waiting
        waiting.append(value)
        if len(waiting) <= self._lag:
            return
        entering = waiting.popleft()
        window, ordered = self._window, self._sorted
        if len(window) == self._size:
            del ordered[bisect_left(ordered, window.popleft())]
        window.append(entering)
        insort(ordered, entering)

    def median_and_mad(self) -> tuple[float, float]:
        """median(x) and median(|x − median(x)|), not scaled to a standard deviation; the window is not empty.

        An even count takes the mean of the middle two, as numpy.median does. The k values nearest to the median are
        neighbours in the sorted list. Where they begin hardly moves from one value to the next: it is found by walking
        from where it was.
        """
        ordered = self._sorted
        n = len(ordered)
        half = n // 2
        odd = n % 2
        median = ordered[half] if odd else 0.5 * (ordered[half - 1] + ordered[half])
        k = half + odd
        last = n - k
        low = self._nearest if self._nearest < last else last
        # ordered[low] is worth its place while it is nearer than the value that would follow the k.
        while low < last and median - ordered[low] > ordered[low + k] - median:
            low += 1
        while low > 0 and median - ordered[low - 1] <= ordered[low - 1 + k] - median:
            low -= 1
        self._nearest = low
        end = low + k
        below, above = median - ordered[low], ordered[end - 1] - median
        kth = below if below > above else above
        if odd:
            return median, kth
        below = median - ordered[low - 1] if low > 0 else math.inf
        above = ordered[end] - median if end < n else math.inf
        return median, 0.5 * (kth + (below if below < above else above))
