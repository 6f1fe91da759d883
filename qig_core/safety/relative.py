"""Conditions that judge a metric by its own past: under a share of its baseline, or out of its recent range. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from qig_core.safety.profile import Floor, RobustZ
from qig_core.safety.rolling import Rolling, median_of
from qig_core.safety.verdict import LARGEST, LOWEST, Condition, Dwell, within_reach


class FloorCondition(Condition):
    """A metric under share x baseline, the median of its first `baseline` evaluations from a step of the run on.

    A baseline under 0 is fallen below by as much: (2 − share) x baseline. Where the metric `rebase_on` changes its
    value, the baseline is taken anew: another one holds from there on.
    """

    def __init__(self, limit: Floor) -> None:
        super().__init__(limit.id, limit.metric, ">=", limit.unit, limit.dwell)
        self._limit = limit
        self._dwell = Dwell(limit.dwell)
        self._values: list[float] = []
        self._baseline: float | None = None
        self._rebased_at: float | None = None

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        limit = self._limit
        setting = metrics.get(limit.rebase_on)
        rebased = setting is not None and setting != self._rebased_at and self._rebase(float(setting), step)
        measured = metrics.get(limit.metric)
        if measured is None:
            return rebased
        if not LOWEST <= measured <= LARGEST and (measured := within_reach(measured)) is None:
            return rebased
        self.value = value = float(measured)
        if self.limit is not None:
            breached, dwell = value < self.limit, self._dwell
            if breached or dwell.alarming or dwell.streak or self.state != "ok":
                self.become(limit.severity if dwell.update(breached) else "ok", step)
        elif step >= limit.armed_after_steps:
            self._values.append(value)
            if len(self._values) == limit.baseline:
                self._values, self._baseline = [], median_of(self._values)
                self._show()
        return True

    def _rebase(self, setting: float, step: int) -> bool:
        """Whether that changed anything: not for the first setting, nor for one that is no number."""
        if setting - setting != 0.0:
            return False
        before, self._rebased_at = self._rebased_at, setting
        if before is None:
            return False
        self._values, self._baseline, self._dwell = [], None, Dwell(self._limit.dwell)
        self._show()
        self.become("unarmed", step)
        return True

    def _show(self) -> None:
        baseline, share = self._baseline, self._limit.share
        self.limit = None if baseline is None else (share if baseline > 0.0 else 2.0 - share) * baseline

    def state_of(self) -> dict[str, Any]:
        return {
            "values": list(self._values),
            "baseline": self._baseline,
            "rebased_at": self._rebased_at,
            "dwell": self._dwell.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        # Of fewer values where the profile asks for fewer now: the next one completes the baseline.
        self._values = [float(value) for value in state["values"]][: self._limit.baseline - 1]
        self._baseline = None if state["baseline"] is None else float(state["baseline"])
        self._rebased_at = None if state["rebased_at"] is None else float(state["rebased_at"])
        self._dwell.restore(state["dwell"])
        self.dwell = self._limit.dwell
        self._show()


class RobustZCondition(Condition):
    """z = |x − median| / (1.4826 MAD) of the last `window` values that did not alarm exceeds the limit.

    Armed when the window is full. The limit that is shown is the upper one, or the lower one where that broke.
    """

    def __init__(self, limit: RobustZ) -> None:
        super().__init__(limit.id, limit.metric, ">=" if limit.sides == "below" else "<=", limit.unit, limit.dwell)
        self._limit = limit
        self._window = Rolling(limit.window, limit.mad_floor_share, turn=sum(map(ord, limit.id)))
        self._dwell = Dwell(limit.dwell)
        self._up, self._down = limit.sides != "below", limit.sides != "above"
        self._back = limit.z * (1.0 - limit.hysteresis)
        self._low, self._high = math.inf, -math.inf
        """Within them nothing changes but the value and the window; see ThresholdCondition."""

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        measured = metrics.get(self.metric)
        if measured is None:
            return False
        if self._low <= measured <= self._high:
            self.value = value = float(measured)
            if self._window.add(value):
                self._show(below=not self._up)
                self._settle()
            return True
        if not LOWEST <= measured <= LARGEST and (measured := within_reach(measured)) is None:
            return False
        self.value = value = float(measured)
        self._judge(step, value)
        self._settle()
        return True

    def _judge(self, step: int, value: float) -> None:
        limit, window, dwell = self._limit, self._window, self._dwell
        if window.ready:
            allowed = (self._back if dwell.alarming else limit.z) * window.sigma
            above = self._up and value > window.median + allowed
            breached = above or (self._down and value < window.median - allowed)
            if breached or dwell.alarming or dwell.streak or self.state != "ok":
                self.become(limit.severity if dwell.update(breached) else "ok", step)
                self._show(below=not self._up or (breached and not above))
            if breached:
                return
        if window.add(value):
            self._show(below=not self._up)

    def _settle(self) -> None:
        window, dwell = self._window, self._dwell
        self._low, self._high = math.inf, -math.inf
        if self.state == "ok" and not dwell.alarming and not dwell.streak:
            reach = self._limit.z * window.sigma
            self._low = max(window.median - reach, LOWEST) if self._down else LOWEST
            self._high = min(window.median + reach, LARGEST) if self._up else LARGEST

    def _show(self, *, below: bool) -> None:
        window, z = self._window, self._limit.z
        self.comparison = ">=" if below else "<="
        self.limit = window.median - z * window.sigma if below else window.median + z * window.sigma

    def state_of(self) -> dict[str, Any]:
        return {"window": self._window.state(), "dwell": self._dwell.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._window.restore(state["window"])
        self._dwell.restore(state["dwell"])
        self.dwell = self._limit.dwell
        if self._window.ready:
            self._show(below=not self._up or (self._down and self.comparison == ">="))
        else:  # also where the window has become larger
            self.state, self.limit = "unarmed", None
