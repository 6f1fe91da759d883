"""Several metrics beside each other: which of them moved first, and which is not measured any more. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from qig_core.safety.profile import EarlyWarning, Measured
from qig_core.safety.rolling import Rolling
from qig_core.safety.verdict import ALARMS, LARGEST, LOWEST, Condition, Verdict, within_reach

_MAD_FLOOR_SHARE = 0.01
_MOVED_SHARE = 0.5
"""Of the threshold: a sum beyond it counts as moved when another condition alarms, and one below it as calm again."""
_CAP = 2.0
"""Thresholds that a sum can hold: so long a calm clears it, however long it was off."""


class _Watched:
    """One metric: its recent past, and the two one-sided sums of Page's CUSUM."""

    __slots__ = (
        "down_since",
        "high",
        "highest",
        "low",
        "lowest",
        "sum",
        "sum_down",
        "sum_up",
        "up_since",
        "value",
        "window",
    )

    def __init__(self, limit: EarlyWarning, direction: str, turn: int) -> None:
        self.window = Rolling(limit.window, _MAD_FLOOR_SHARE, turn=turn)
        self.low = -limit.slack if direction != "up" else -math.inf
        self.high = limit.slack if direction != "down" else math.inf
        """Between them nothing adds up."""
        self.lowest, self.highest = math.inf, -math.inf
        """The same as values of the metric; an empty band before there is one."""
        self.sum_up = self.sum_down = self.sum = 0.0
        """The two sums, and the larger of them."""
        self.up_since = self.down_since = 0
        """The step at which each sum last left 0."""
        self.value: float | None = None

    @property
    def onset(self) -> int:
        """The step at which the larger sum last left 0: when the change began, as far as CUSUM can tell."""
        return self.up_since if self.sum_up >= self.sum_down else self.down_since

    def settle(self) -> None:
        """The window has been renewed."""
        window = self.window
        self.lowest = max(window.median + self.low * window.sigma, LOWEST)
        self.highest = min(window.median + self.high * window.sigma, LARGEST)

    def add(self, step: int, u: float, top: float) -> float:
        """Take in a deviation; the larger sum."""
        # Written out and not by max() and min(): this is on the path of every other step.
        up = self.sum_up + (u - self.high)
        if up <= 0.0:
            up = 0.0
        elif self.sum_up == 0.0:
            self.up_since = step
        down = self.sum_down + (self.low - u)
        if down <= 0.0:
            down = 0.0
        elif self.sum_down == 0.0:
            self.down_since = step
        self.sum_up = up = up if up < top else top
        self.sum_down = down = down if down < top else top
        self.sum = up = up if up > down else down
        return up

    def state(self) -> dict[str, Any]:
        return {
            "window": self.window.state(),
            "sums": [self.sum_up, self.sum_down],
            "since": [self.up_since, self.down_since],
            "value": self.value,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.window.restore(state["window"])
        self.value = state["value"]
        if not self.window.ready:
            return
        self.settle()
        up, down = map(float, state["sums"])
        # Where the direction is another now, nothing could take a sum away again.
        self.sum_up, self.sum_down = up if self.high < math.inf else 0.0, down if self.low > -math.inf else 0.0
        self.sum = max(self.sum_up, self.sum_down)
        self.up_since, self.down_since = state["since"]


class EarlyWarningCondition(Condition):
    """One-sided CUSUMs (Page 1954) of robust deviations: the sum of what a metric is off beyond the slack.

        u = clip((x − median) / (1.4826 MAD), ±clip),  S <- max(0, S + u − slack),  alarm: S >= threshold

    median and MAD are of the last `window` values of that metric which came while its sum was under the threshold, and
    while it alarms under half of that. The clip keeps one absurd value from alarming. Cleared when every sum is under
    half the threshold. The cause names the metrics by when they moved: by the step at which the sum left 0.
    """

    def __init__(self, limit: EarlyWarning) -> None:
        super().__init__(limit.id, next(iter(limit.metrics)), "steady")
        self.metrics = tuple(limit.metrics)
        self._limit = limit
        self._calm = _MOVED_SHARE * limit.threshold
        self._top = _CAP * limit.threshold
        self._watched = {
            name: _Watched(limit, direction, 3 * number)
            for number, (name, direction) in enumerate(limit.metrics.items())
        }
        self._items = tuple((name, watched, watched.window) for name, watched in self._watched.items())

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        limit = self._limit
        clip = limit.clip
        alarming = self.state in ALARMS
        enough = self._calm if alarming else limit.threshold
        seen = armed = beyond = False
        for name, watched, window in self._items:
            measured = metrics.get(name)
            if measured is None:
                continue
            # On the path of every step: almost always both sums are and stay 0.
            if watched.sum or not watched.lowest <= measured <= watched.highest:
                if not LOWEST <= measured <= LARGEST and (measured := within_reach(measured)) is None:
                    continue
                if window.ready:
                    u = (measured - window.median) / window.sigma
                    u = clip if u > clip else -clip if u < -clip else u
                    if watched.add(step, u, self._top) >= enough:
                        watched.value = float(measured)
                        seen = armed = beyond = True
                        continue
            seen = True
            watched.value = value = float(measured)
            if window.ready:
                armed = True
            if window.add(value):
                watched.settle()
        if armed and (beyond or alarming or self.state != "ok"):
            self._conclude(step, beyond or (alarming and any(each.sum >= enough for each in self._watched.values())))
        return seen

    def _conclude(self, step: int, alarming: bool) -> None:
        self.become(self._limit.severity if alarming else "ok", step)
        if alarming:
            self.cause = self.moved()
            self.metric = self.cause[0]

    @property
    def verdict(self) -> Verdict:
        self.value = self._watched[self.metric].value
        return super().verdict

    def moved(self) -> tuple[str, ...]:
        """The metrics that are off now, the first that moved first."""
        off = [(watched.onset, name) for name, watched in self._watched.items() if watched.sum >= self._calm]
        return tuple(name for _, name in sorted(off, key=lambda one: one[0]))

    def state_of(self) -> dict[str, Any]:
        return {"watched": {name: watched.state() for name, watched in self._watched.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, watched in self._watched.items():
            if name in state["watched"]:
                watched.restore(state["watched"][name])
        if not any(watched.window.ready for watched in self._watched.values()):
            self.state = "unarmed"  # also where the window has become larger


class MeasuredCondition(Condition):
    """A metric that used to be measured has no value where the others of its group have one.

    Measured once more, it is missed no longer. The cause names the one first that was missed first.
    """

    def __init__(self, limit: Measured) -> None:
        super().__init__(limit.id, limit.metrics[0], "measured", dwell=limit.dwell)
        self.metrics = limit.metrics
        self._limit = limit
        self._seen = dict.fromkeys(limit.metrics, 0)
        """How often, up to armed_after."""
        self._missing = dict.fromkeys(limit.metrics, 0)
        self._settled = False
        """Whether another evaluation with all of them changes nothing."""

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        seen, missing = self._seen, self._missing
        present = 0
        for name in seen:
            if metrics.get(name) is not None:
                present += 1
        if not present:
            return False
        if self._settled and present == len(seen):
            return True
        armed_after = self._limit.armed_after
        for name in seen:
            if metrics.get(name) is not None:
                missing[name] = 0
                if seen[name] < armed_after:
                    seen[name] += 1
            elif seen[name] >= armed_after:
                missing[name] += 1
        self._conclude(step)
        return True

    def _conclude(self, step: int) -> None:
        limit, missing = self._limit, self._missing
        lost = sorted((name for name in missing if missing[name] >= limit.dwell), key=lambda name: -missing[name])
        if lost:
            self.become(limit.severity, step)
            self.cause, self.metric = tuple(lost), lost[0]
        elif max(self._seen.values()) >= limit.armed_after:
            self.become("ok", step)
        self._settle()

    def _settle(self) -> None:
        counted = min(self._seen.values()) >= self._limit.armed_after
        self._settled = counted and self.state == "ok" and not any(self._missing.values())

    def state_of(self) -> dict[str, Any]:
        return {"seen": dict(self._seen), "missing": dict(self._missing)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.dwell = self._limit.dwell
        for name in self._seen:
            self._seen[name] = int(state["seen"].get(name, 0))
            self._missing[name] = int(state["missing"].get(name, 0))
        self._settle()
