"""Whether a metric has changed: CUSUMs of what it is off the rolling median of its own past. Pure: no clock, no disk.

What early warnings do on every step of one kernel (`safety.early`) with windows of hundreds, done for the few dozen
reports of a constellation, where the median must be exact and a window may not have to be full.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qig_core.safety.profile import Direction
from qig_core.safety.rolling import SIGMA_PER_MAD
from qig_core.safety.trailing import TrailingWindow
from qig_core.safety.verdict import within_reach

WATCHED: Mapping[str, Direction] = {"loss": "up", "phi": "down", "velocity": "up", "kappa": "both"}
"""Every metric of a Gary that is watched, with the direction."""
ARMED_AFTER = 8
"""Values before anything adds up. In healthy constellations, from step 200 on, waiting for 30 saved no false alarm."""
_CALM = 0.25
"""Of the threshold: above it a value does not enter the past, and a change that was flagged is not over."""
_CAP = 1.5
"""Thresholds that a sum can hold: so long a calm clears it, however long it was off."""
_MOST = 1.0 / 3.0
"""Of the threshold, that one value adds at most: no two absurd ones flag a change."""
_MAD_FLOOR_SHARE = 0.01
_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A change that is not over."""

    direction: Literal["up", "down"]
    since: int
    """The step at which the sum last left 0: when it began, as far as CUSUM can tell."""
    sum: float
    """Robust standard deviations, added up."""
    limit: float
    """The threshold; a flag stays until the sum is down to a quarter of it."""

    @property
    def holds(self) -> bool:
        """Whether the sum is at or above the threshold now."""
        return self.sum >= self.limit


class Change:
    """Page's one-sided CUSUMs of one metric.

        r = x − median,  u = r / (1.4826 max(MAD, 1 % of |median|)),  S <- max(0, S + min(u − slack, threshold/3))

    (and with −u for "down"). A change is flagged at S ≥ threshold and over at S ≤ threshold/4. Median and MAD are of
    the last `window` values that came while S was that low, x not among them; from the 8th on they are used. What has
    stayed off for `window` values in a row is no change any more but how it is: those values become the past.

    A straight trend of slope s has r = s W/2 and a MAD of s W/4: u = 1.35, which a slack of 1.5 forgives.

    Source: Page 1954.
    """

    def __init__(self, direction: Direction, *, window: int, slack: float, threshold: float) -> None:
        self._watches = {"up": direction != "down", "down": direction != "up"}
        self._size, self._slack, self._threshold = window, slack, threshold
        self._past = TrailingWindow(window, 0)
        self._off: list[float] = []
        """The newest values in a row that did not enter the past."""
        self._sums = {"up": 0.0, "down": 0.0}
        self._since = {"up": 0, "down": 0}
        self._flagged: Literal["up", "down"] | None = None

    @property
    def flag(self) -> Flag | None:
        side = self._flagged
        if side is None:
            return None
        return Flag(direction=side, since=self._since[side], sum=self._sums[side], limit=self._threshold)

    def observe(self, step: int, value: float) -> None:
        """Take in the next value; one that is not finite is passed over."""
        x = within_reach(value)
        if x is None:
            return
        if len(self._past) >= min(ARMED_AFTER, self._size):
            median, mad = self._past.median_and_mad()
            sigma = SIGMA_PER_MAD * max(mad, _MAD_FLOOR_SHARE * abs(median), _LEAST)
            u = (x - median) / sigma
            self._add("up", u, step)
            self._add("down", -u, step)
        if max(self._sums.values()) <= _CALM * self._threshold:
            self._off.clear()
            self._past.add(x)
            return
        self._off.append(x)
        if len(self._off) >= self._size:
            self._past = TrailingWindow(self._size, 0, self._off[-self._size :])
            self._off.clear()
            self._sums = {"up": 0.0, "down": 0.0}
            self._flagged = None

    def _add(self, side: Literal["up", "down"], u: float, step: int) -> None:
        if not self._watches[side]:
            return
        before = self._sums[side]
        now = before + min(u - self._slack, _MOST * self._threshold)
        self._sums[side] = now = max(0.0, min(now, _CAP * self._threshold))
        if before == 0.0 and now > 0.0:
            self._since[side] = step
        if now >= self._threshold and (self._flagged is None or now > self._sums[self._flagged]):
            self._flagged = side
        elif self._flagged == side and now <= _CALM * self._threshold:
            self._flagged = None

    def state(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {
            "past": self._past.values(),
            "off": list(self._off),
            "sums": dict(self._sums),
            "since": dict(self._since),
            "flagged": self._flagged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._past = TrailingWindow(self._size, 0, state["past"])
        self._off = list(state["off"])
        self._sums, self._since = dict(state["sums"]), dict(state["since"])
        self._flagged = state["flagged"]


class Changes:
    """The watched metrics of several Garys.

    One past for each of a Gary's roles: who takes turns at learning from text moves faster in some reports than in
    others, and that is no change. (With one past, healthy Garys were flagged at every turn.)

    Args:
        watch_from: the step before which nothing is watched.
    """

    def __init__(self, *, window: int, slack: float, threshold: float, watch_from: int = 0) -> None:
        self._window, self._slack, self._threshold = window, slack, threshold
        self._watch_from = watch_from
        self._found: dict[str, dict[str, dict[str, Change]]] = {}
        """By Gary, role and metric."""

    def observe(self, step: int, gary: str, role: str, values: Mapping[str, float | None]) -> dict[str, Flag]:
        """Take in what was measured of one Gary; the changes of it that are not over."""
        if step < self._watch_from:
            return {}
        watches = self._of(gary, role)
        flags = {}
        for metric, change in watches.items():
            value = values.get(metric)
            if value is not None:
                change.observe(step, value)
                if change.flag is not None:
                    flags[metric] = change.flag
        return flags

    def anew(self, gary: str) -> None:
        """Forget the past of a Gary: something was done to it."""
        self._found.pop(gary, None)

    def _of(self, gary: str, role: str) -> dict[str, Change]:
        roles = self._found.setdefault(gary, {})
        if role not in roles:
            roles[role] = {
                metric: Change(direction, window=self._window, slack=self._slack, threshold=self._threshold)
                for metric, direction in WATCHED.items()
            }
        return roles[role]

    def state(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {
            gary: {
                role: {metric: change.state() for metric, change in watches.items()} for role, watches in roles.items()
            }
            for gary, roles in self._found.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, and from nothing else."""
        self._found = {}
        for gary, roles in state.items():
            for role, watches in roles.items():
                mine = self._of(gary, role)
                for metric in mine.keys() & watches.keys():
                    mine[metric].restore(watches[metric])
