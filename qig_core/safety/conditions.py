"""From the values of metrics to a verdict, one class for each kind of limit. Pure: no clock, no disk, no writer.

Every count and dwell is in evaluations of that metric: a step at which it was not measured does not exist for it.
A condition is `unarmed` until its metric has been seen often enough to be judged.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from qig_core.rundir.values import kind_of_nonfinite
from qig_core.safety.divergence import DivergenceCondition
from qig_core.safety.profile import Divergence, Limit, NonFinite, Threshold
from qig_core.safety.verdict import ALARMS, Dwell, State, Verdict


class NonFiniteCondition:
    """A named metric's latest value is NaN or infinite."""

    def __init__(self, limit: NonFinite) -> None:
        self._limit = limit
        self._bad: dict[str, str] = {}
        metric = limit.metrics[0]
        self.verdict = Verdict(limit.id, "unarmed", metric, "finite", None, "", None, None, 1)

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        """Judge what was measured at this step; whether anything was."""
        seen = False
        bad = self._bad
        for name in self._limit.metrics:
            value = metrics.get(name)
            if value is None:
                continue
            seen = True
            if math.isfinite(value):
                if bad:
                    bad.pop(name, None)
            elif name not in bad:
                bad[name] = kind_of_nonfinite(value)
        old = self.verdict
        if seen and (bad or old.state != "ok"):
            state: State = self._limit.severity if bad else "ok"
            metric, value = next(((name, float(kind)) for name, kind in bad.items()), (old.metric, None))
            since = step if state != old.state else old.since_step
            self.verdict = Verdict(old.id, state, metric, "finite", None, "", value, since, 1, tuple(bad))
        return seen

    def state(self) -> dict[str, Any]:
        return {"bad": dict(self._bad)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._bad = dict(state["bad"])


class ThresholdCondition:
    """A metric against a fixed number, with dwell and hysteresis. A NaN is no evaluation; an infinity is one."""

    def __init__(self, limit: Threshold) -> None:
        self._limit = limit
        self._dwell = Dwell(limit.dwell)
        self._count = 0
        self.verdict = Verdict(
            limit.id, "unarmed", limit.metric, limit.comparison, limit.value, limit.unit, None, None, limit.dwell
        )

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        limit = self._limit
        measured = metrics.get(limit.metric)
        if measured is None or measured != measured:
            return False
        value = float(measured)
        self._count += 1
        old = self.verdict
        state: State = "unarmed"
        if self._count > limit.armed_after:
            back = limit.hysteresis if self._dwell.alarming else 0.0
            healthy = value >= limit.value + back if limit.comparison == ">=" else value <= limit.value - back
            state = limit.severity if self._dwell.update(not healthy) else "ok"
        if state != old.state or value != old.value:
            since = step if state != old.state else old.since_step
            cause = (limit.metric,) if state in ALARMS else ()
            self.verdict = msgspec.structs.replace(old, state=state, value=value, since_step=since, cause=cause)
        return True

    def state(self) -> dict[str, Any]:
        return {"count": self._count, "dwell": self._dwell.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._count = state["count"]
        self._dwell.restore(state["dwell"])


Condition = NonFiniteCondition | ThresholdCondition | DivergenceCondition


def condition_for(limit: Limit) -> Condition:
    """The condition that judges a limit, unarmed."""
    match limit:
        case NonFinite():
            return NonFiniteCondition(limit)
        case Threshold():
            return ThresholdCondition(limit)
        case Divergence():
            return DivergenceCondition(limit)
