"""How long a run had been training at each of its samples. numpy only; no clock, no disk."""

from collections import deque

import numpy as np

from qig_tui.series import Floats, Ints, Segments, Series

PAUSE_S = 20.0
PAUSE_FACTOR = 50.0
"""Between two samples more than both this time and so many times the usual gap is no training."""
WORDS = "pauses and the time between sessions left out"
_RECENT = 200
_LONGEST_S = 1e11


class TrainingTime:
    """Seconds from the first sample on, in the order of the file: what was trained and given up again counts, for it
    took its time. Left out are the gap before the first sample of a session, and gaps of a pause.
    """

    def __init__(self, capacity: int) -> None:
        self.seconds = Series(capacity)
        """By step and segment, never falling."""
        self.total_s = 0.0
        self._t: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def extend(self, step: Ints, t: Floats, segment: Segments, starts: Floats) -> None:
        """Fold in samples.

        Args:
            t: unix seconds, as they were recorded.
            starts: when each session began, on the same clock; ascending.
        """
        if not len(step):
            return
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.diff(t, prepend=t[0] if self._t is None else self._t)
        # A clock that was set back, and a time that is none, say nothing.
        gap = np.where(np.isfinite(gap) & (gap > 0), gap, 0.0)
        self._recent += gap[gap > 0][-_RECENT:].tolist()
        usual = float(np.median(list(self._recent))) if self._recent else 0.0
        session = np.searchsorted(starts, t, side="right")
        before = session[0] if self._t is None else np.searchsorted(starts, self._t, side="right")
        trained = (gap <= max(PAUSE_S, PAUSE_FACTOR * usual)) & (np.diff(session, prepend=before) == 0)
        seconds = np.minimum(self.total_s + np.cumsum(np.where(trained, gap, 0.0)), _LONGEST_S)
        self.seconds.extend(step, seconds, segment)
        self.total_s = float(seconds[-1])
        finite = t[np.isfinite(t)]
        if len(finite):
            self._t = float(finite[-1])
