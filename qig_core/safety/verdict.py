"""What a condition says, and how long a breach must last before it says so. Pure: no clock, no disk, no writer."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from qig_core.rundir.values import name_nonfinite

State = Literal["unarmed", "ok", "warning", "critical"]
ALARMS = ("warning", "critical")


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What one condition says now."""

    id: str
    state: State
    metric: str
    comparison: str
    """Of the healthy side: ">=", "<=" or "finite"."""
    limit: float | None
    """The number that the value is compared with now; None before there is one."""
    unit: str
    value: float | None
    since_step: int | None
    """The step at which the state became what it is."""
    dwell: int
    cause: tuple[str, ...] = ()
    """The metrics that raised the alarm, in the order in which they went wrong; empty without one."""

    def data(self) -> dict[str, Any]:
        """The data of a `condition` event: a float that is not finite is None, and its kind stands in `nonfinite`."""
        return name_nonfinite({name: getattr(self, name) for name in self.__struct_fields__})

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
        value = "unknown" if self.value is None else f"{self.value:.4g}{unit}"
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
