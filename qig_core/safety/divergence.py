"""Whether a metric that should fall or rest runs away upwards. Pure: no clock, no disk, no writer."""

import math
from collections.abc import Mapping
from typing import Any

from qig_core.safety.profile import Divergence
from qig_core.safety.trailing import TrailingWindow
from qig_core.safety.verdict import LARGEST, LOWEST, Condition, Dwell, State, within_reach

_SKETCHED = 20
"""Values in the trailing window from which outliers are cut, before it is full and anything is judged."""
_QUICK = 100
"""Differences at the beginning for which their running median moves by a fifth a time, afterwards by a fiftieth."""
_MAD_OF_CHANGE = 0.7
"""MAD over the median absolute difference of normal noise: 0.674 sigma / 0.954 sigma."""
_LEAST_CHANGE = 1e-9
"""The running median is multiplied and divided: from zero it would never move."""


class DivergenceCondition(Condition):
    """A moving average of the metric above its recent past, or above its best.

    With x the metric, med and MAD those of the trailing window, d a running median of |x − previous x| (0.7 d is the
    MAD of normal noise with such differences, whatever the trend):

        spread = mads x max(MAD, mad_floor, mad_floor_share x |med|)
        margin = max(margin, margin_share x |med|, mads x 0.7 d)
        e <- e + alpha (clip(x, med ± 2 max(spread, margin)) − e),  alpha = 2 / (span + 1)
        alarm: e > med + spread for `dwell` evaluations, or e > best e + margin for `margin_dwell`

    The clip keeps one absurd batch from looking like a lasting rise; a lasting one still passes both limits. The margin
    grows with noise and size so that a metric in another unit than nats is not judged by half a nat. Nothing is taken
    into the window or into d while e is above either limit. Armed when the window is full, after window + lag
    evaluations; `best` is kept from the span-th on, so that a loss that blew up before is noticed then. A value that is
    not finite is no evaluation.
    """

    statistic = "average"

    def __init__(self, limit: Divergence) -> None:
        super().__init__(limit.id, limit.metric, "<=", limit.unit, limit.dwell)
        self._limit = limit
        self._alpha = 2.0 / (limit.span + 1)
        self._window = TrailingWindow(limit.window, limit.lag)
        self._sketched = min(_SKETCHED, limit.window)
        self._armed = False
        self._above_past = Dwell(limit.dwell)
        self._above_best = Dwell(limit.margin_dwell)
        self._count = 0
        self._average = 0.0
        self._best: float | None = None
        self._previous = 0.0
        self._change = _LEAST_CHANGE

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        limit = self._limit
        measured = metrics.get(limit.metric)
        if measured is None:
            return False
        if not LOWEST <= measured <= LARGEST and (measured := within_reach(measured)) is None:
            return False
        value = x = float(measured)
        window = self._window
        self._count += 1
        if self._count == 2:
            self._change = max(abs(value - self._previous), _LEAST_CHANGE)
        past = best = math.inf
        if self._armed or len(window) >= self._sketched:
            median, mad = window.median_and_mad()
            size = median if median > 0.0 else -median
            # Written out and not by max(): this is on the path of every step.
            floor = limit.mad_floor_share * size
            if floor < limit.mad_floor:
                floor = limit.mad_floor
            spread = limit.mads * (mad if mad > floor else floor)
            past = median + spread
            margin = _MAD_OF_CHANGE * limit.mads * self._change
            least = limit.margin_share * size
            if least < limit.margin:
                least = limit.margin
            if margin < least:
                margin = least
            reach = 2.0 * (spread if spread > margin else margin)
            if x > median + reach:
                x = median + reach
            elif x < median - reach:
                x = median - reach
            if self._best is not None:
                best = self._best + margin
        average = self._average = x if self._count == 1 else self._average + self._alpha * (x - self._average)
        if (self._best is None or average < self._best) and self._count >= limit.span:
            self._best = average
        nearest = past if past < best else best
        if self._armed:
            state: State = "ok"
            if average > nearest or self.state != "ok" or self._above_past.streak or self._above_best.streak:
                above_past = self._above_past.update(average > past)
                above_best = self._above_best.update(average > best)
                if above_past or above_best:
                    state = limit.severity
                self.become(state, step)
            self.limit = nearest
        if not self._armed or average <= nearest:
            window.add(value)
            self._armed = window.full
            pace = 1.2 if self._count <= _QUICK else 1.02
            if abs(value - self._previous) > self._change:
                self._change *= pace
            elif self._change > _LEAST_CHANGE:
                self._change /= pace
        self._previous = value
        self.value = average
        self.dwell = limit.dwell if past <= best else limit.margin_dwell
        return True

    def state_of(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "average": self._average,
            "best": self._best,
            "previous": self._previous,
            "change": self._change,
            "window": self._window.values(),
            "above_past": self._above_past.state(),
            "above_best": self._above_best.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._count = state["count"]
        self._average = float(state["average"])
        self._best = None if state["best"] is None else float(state["best"])
        self._previous = float(state["previous"])
        self._change = float(state["change"])
        self._window = TrailingWindow(self._limit.window, self._limit.lag, map(float, state["window"]))
        self._armed = self._window.full
        if not self._armed:  # also where the window has become larger
            self.state, self.limit = "unarmed", None
        self._above_past.restore(state["above_past"])
        self._above_best.restore(state["above_best"])
