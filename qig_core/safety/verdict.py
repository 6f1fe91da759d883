"""What a condition says, and how long a breach must last before it says so. Pure: no clock, no disk, no writer."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from qig_core.rundir.values import kind_of_nonfinite

State = Literal["unarmed", "ok", "warning", "critical"]
ALARMS = ("warning", "critical")

LOWEST, LARGEST = -1e150, 1e150
"""Of what a condition remembers: sums, differences and multiples of such numbers are finite."""


def within_reach(value: float) -> float | None:
    """A finite value as a condition may remember it; None for one that is not finite."""
    if value - value != 0.0:
        return None
    return max(LOWEST, min(value, LARGEST))


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What one condition says now."""

    id: str
    state: State
    metric: str
    comparison: str
    """Of the healthy side: ">=", "<=", or in words "finite", "steady", "measured"."""
    limit: float | None
    """The number that the value is compared with now; None before there is one."""
    unit: str
    value: float | None
    since_step: int | None
    """The step at which the state became what it is."""
    dwell: int
    cause: tuple[str, ...] = ()
    """The metrics that raised the alarm, in the order in which they went wrong; empty without one."""
    statistic: str = ""
    """What of the metric is compared and told as the value ("average"); empty: its newest value itself."""

    def data(self) -> dict[str, Any]:
        """The data of a `condition` event: a float that is not finite is None, and its kind stands in `nonfinite`."""
        said: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        said["cause"] = list(self.cause)
        if not self.statistic:
            del said["statistic"]
        # Not by name_nonfinite: of every condition it is part of a checkpoint, which is to begin within a millisecond.
        kinds = {
            name: kind_of_nonfinite(number)
            for name, number in (("limit", self.limit), ("value", self.value))
            if number is not None and number - number != 0.0
        }
        return said | dict.fromkeys(kinds) | {"nonfinite": kinds} if kinds else said

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Verdict":
        """The inverse of `data`."""
        kinds = {name: float(kind) for name, kind in data.get("nonfinite", {}).items()}
        return msgspec.convert({**data, **kinds}, cls)

    def text(self) -> str:
        """For people: "divergence: loss 5.13 nat, limit <= 2.5 nat"."""
        unit = f" {self.unit}" if self.unit else ""
        if self.comparison == "finite":
            return f"{self.id}: {', '.join(self.cause) or self.metric} not finite"
        if self.comparison == "measured":
            return f"{self.id}: {', '.join(self.cause) or self.metric} not measured any more"
        value = "unknown" if self.value is None else f"{self.value:.4g}{unit}"
        if self.comparison == "steady":
            return f"{self.id}: {self.metric} {value} left its recent past"
        limit = "none yet" if self.limit is None else f"{self.comparison} {self.limit:.4g}{unit}"
        return f"{self.id}: {self.metric} {value}, limit {limit}"


class Dwell:
    """Alarms after `count` consecutive breaches, clears after as many consecutive evaluations without one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.alarming = False
        self.streak = 0
        """Consecutive evaluations that contradict `alarming`."""

    def update(self, breached: bool) -> bool:
        if breached is self.alarming:
            self.streak = 0
            return breached
        self.streak += 1
        if self.streak >= self._count:
            self.alarming, self.streak = breached, 0
        return self.alarming

    def state(self) -> list[int]:
        return [int(self.alarming), self.streak]

    def restore(self, state: list[int]) -> None:
        self.alarming, self.streak = bool(state[0]), int(state[1])


class Condition:
    """What judges one limit. A subclass evaluates; what it says is put into a Verdict only when somebody asks."""

    statistic = ""

    def __init__(
        self, id: str, metric: str, comparison: str, unit: str = "", dwell: int = 1, limit: float | None = None
    ) -> None:
        self.id = id
        self.metrics: tuple[str, ...] = (metric,)
        """Those that are looked at."""
        self.metric = metric
        self.comparison = comparison
        self.unit = unit
        self.dwell = dwell
        self.limit = limit
        self.state: State = "unarmed"
        self.value: float | None = None
        self.since: int | None = None
        self.cause: tuple[str, ...] = (metric,)
        """What an alarm is blamed on."""

    def evaluate(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        """Judge what was measured at this step; whether anything was."""
        raise NotImplementedError

    def become(self, state: State, step: int) -> None:
        if state != self.state:
            self.state, self.since = state, step

    @property
    def verdict(self) -> Verdict:
        """What it says now."""
        return Verdict(
            self.id,
            self.state,
            self.metric,
            self.comparison,
            self.limit,
            self.unit,
            self.value,
            self.since,
            self.dwell,
            self.cause if self.state in ALARMS else (),
            self.statistic,
        )

    def resume(self, said: Verdict) -> None:
        """Go on from what was said when the state was taken that `restore` gets next."""
        self.state, self.metric, self.comparison = said.state, said.metric, said.comparison
        self.limit, self.value, self.since, self.dwell = said.limit, said.value, said.since_step, said.dwell
        self.cause = said.cause or self.cause

    def state_of(self) -> dict[str, Any]:
        """Plain data, beside the verdict, from which `restore` goes on."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, Any]) -> None:
        """After `resume`. Where the profile's numbers are others now, they hold, also in what is shown."""
        raise NotImplementedError
