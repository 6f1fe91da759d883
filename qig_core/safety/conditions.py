"""From the values of metrics to a verdict, one class for each kind of limit. Pure: no clock, no disk, no writer.

Every count and dwell is in evaluations of that metric: a step at which it was not measured does not exist for it.
A condition is `unarmed` until its metric has been seen often enough to be judged.
"""

import math
from collections.abc import Mapping
from typing import Any

from qig_core.rundir.values import kind_of_nonfinite
from qig_core.safety.divergence import DivergenceCondition
from qig_core.safety.early import EarlyWarningCondition, MeasuredCondition
from qig_core.safety.profile import (
    Divergence,
    EarlyWarning,
    Floor,
    Judged,
    Measured,
    NonFinite,
    RobustZ,
    Threshold,
)
from qig_core.safety.relative import FloorCondition, RobustZCondition
from qig_core.safety.verdict import Condition, Dwell, State


class NonFiniteCondition(Condition):
    """A named metric's latest value is NaN or infinite."""

    def __init__(self, limit: NonFinite) -> None:
        super().__init__(limit.id, limit.metrics[0], "finite")
        self.metrics = limit.metrics
        self._limit = limit
        self._bad: dict[str, str] = {}

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        seen = False
        bad = self._bad
        for name in self._limit.metrics:
            value = metrics.get(name)
            if value is None:
                continue
            seen = True
            if value - value == 0.0:  # finite; NaN and infinities give NaN
                if bad:
                    bad.pop(name, None)
            elif name not in bad:
                bad[name] = kind_of_nonfinite(value)
        if seen and (bad or self.state != "ok"):
            self.become(self._limit.severity if bad else "ok", step)
            self.metric, self.value = next(((name, float(kind)) for name, kind in bad.items()), (self.metric, None))
            self.cause = tuple(bad)
        return seen

    def state_of(self) -> dict[str, Any]:
        return {"bad": dict(self._bad)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._bad = {name: kind for name, kind in state["bad"].items() if name in self.metrics}


class ThresholdCondition(Condition):
    """A metric against a fixed number, with dwell and hysteresis. A NaN is no evaluation; an infinity is one.

    A critical limit may have a warning before it, and any limit an advice before that, which is no alarm.
    """

    def __init__(self, limit: Threshold) -> None:
        super().__init__(limit.id, limit.metric, limit.comparison, limit.unit, limit.dwell, limit.value)
        self._limit = limit
        self._above = limit.comparison == "<="
        self._graded = limit.advice_at is not None or limit.warning is not None
        self._dwell = Dwell(limit.dwell)
        self._warning = Dwell(limit.dwell)
        self._advising = Dwell(limit.dwell)
        self._count = 0
        self._held = 0
        self._low, self._high = math.inf, -math.inf
        """Within them nothing changes but the value: healthy, and was so; almost always. Else the band is empty."""

    @property
    def advised(self) -> bool:
        """Whether the advice holds now."""
        return self._advising.alarming

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        measured = metrics.get(self.metric)
        if measured is None:
            return False
        if self._low <= measured <= self._high:
            self.value = float(measured)
            return True
        if measured != measured:
            return False
        self.value = value = float(measured)
        self._judge(step, value)
        self._settle()
        return True

    def _judge(self, step: int, value: float) -> None:
        limit = self._limit
        if self._count < limit.armed_after:
            self._count += 1
            return
        if limit.armed_at is not None and not self._is_armed(value):
            return
        state: State = self._grade(value) if self._graded else "ok"
        dwell = self._dwell
        beyond = value > limit.value if self._above else value < limit.value
        if (beyond or dwell.alarming or dwell.streak) and dwell.update(self._beyond(value, limit.value, dwell)):
            state = limit.severity
        if state != self.state:
            self.become(state, step)
            self.limit = self._nearest()

    def _settle(self) -> None:
        dwells = (self._dwell, self._warning, self._advising)
        if self.state != "ok" or any(dwell.alarming or dwell.streak for dwell in dwells):
            self._low, self._high = math.inf, -math.inf
            return
        limit = self._limit
        numbers = [each for each in (limit.value, limit.warning, limit.advice_at) if each is not None]
        self._low, self._high = (-math.inf, min(numbers)) if self._above else (max(numbers), math.inf)

    def _nearest(self) -> float:
        """The number that is compared with: of two, the one that was not passed yet, or the last."""
        limit = self._limit
        return limit.value if limit.warning is None or self.state in ("unarmed", "critical") else limit.warning

    def _grade(self, value: float) -> State:
        limit = self._limit
        if limit.advice_at is not None:
            self._goes_on(value, limit.advice_at, self._advising)
        if limit.warning is not None and self._goes_on(value, limit.warning, self._warning):
            return "warning"
        return "ok"

    def _goes_on(self, value: float, number: float, dwell: Dwell) -> bool:
        beyond = value > number if self._above else value < number
        # On the path of every step: almost always it is not, and was not.
        return (beyond or dwell.alarming or dwell.streak > 0) and dwell.update(self._beyond(value, number, dwell))

    def _beyond(self, value: float, number: float, dwell: Dwell) -> bool:
        back = self._limit.hysteresis if dwell.alarming else 0.0
        return value > number - back if self._above else value < number + back

    def _is_armed(self, value: float) -> bool:
        limit = self._limit
        assert limit.armed_at is not None
        if self._held >= limit.armed_held:
            return True
        healthy = value <= limit.armed_at if self._above else value >= limit.armed_at
        self._held = self._held + 1 if healthy else 0
        return self._held >= limit.armed_held

    def state_of(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "held": self._held,
            "dwell": self._dwell.state(),
            "warning": self._warning.state(),
            "advising": self._advising.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._count = state["count"]
        self._held = int(state.get("held", 0))
        self._dwell.restore(state["dwell"])
        for dwell, name in ((self._warning, "warning"), (self._advising, "advising")):
            dwell.restore(state.get(name, [0, 0]))
        self.comparison, self.dwell, self.limit = self._limit.comparison, self._limit.dwell, self._nearest()
        self._low, self._high = math.inf, -math.inf


def condition_for(limit: Judged) -> Condition:
    """The condition that judges a limit, unarmed."""
    match limit:
        case NonFinite():
            return NonFiniteCondition(limit)
        case Threshold():
            return ThresholdCondition(limit)
        case Divergence():
            return DivergenceCondition(limit)
        case Floor():
            return FloorCondition(limit)
        case RobustZ():
            return RobustZCondition(limit)
        case EarlyWarning():
            return EarlyWarningCondition(limit)
        case Measured():
            return MeasuredCondition(limit)
