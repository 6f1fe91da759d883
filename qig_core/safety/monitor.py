"""What the measurements of a step mean: every condition of a profile, judged at once. Pure: no clock, no disk."""

from collections.abc import Mapping
from typing import Any

import msgspec

from qig_core.safety.conditions import Condition, condition_for
from qig_core.safety.profile import DEFAULT, Profile
from qig_core.safety.verdict import Verdict

LIMIT_MOVED_BY = 0.02
"""A limit that moves with its metric is told again once it differs by more than this share ..."""
LIMIT_TOLD_EVERY = 50
"""... and at least this many evaluations after it was told last."""

_RANK = {"critical": 0, "warning": 1, "ok": 2, "unarmed": 3}


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """All verdicts after one step."""

    verdicts: tuple[Verdict, ...]
    """One for each condition, critical first, then warning, ok, unarmed; in the profile's order among equals."""
    transitions: tuple[Verdict, ...] = ()
    """Those whose state changed at this step, in the same order."""
    moved: tuple[Verdict, ...] = ()
    """Those whose state did not change, but whose limit did so far that readers must hear of it."""

    @property
    def critical(self) -> tuple[Verdict, ...]:
        """Every critical verdict, new or lasting."""
        return tuple(verdict for verdict in self.verdicts if verdict.state == "critical")


class SafetyMonitor:
    """Judges metrics step by step against a profile; the same calls always give the same judgements."""

    def __init__(self, profile: Profile = DEFAULT) -> None:
        self.profile = profile
        self._watches = [_Watch(condition_for(limit)) for limit in profile.limits]
        self._sorted = self._sort()
        self._judged: int | None = None
        self._repeated: int | None = None
        """The step at which a resume begins: it was judged before its checkpoint was made, and is not counted twice."""

    def judge(self, step: int, metrics: Mapping[str, float | None]) -> Judgement:
        """Judge what was measured at a step; absent and None are "not measured", and then nothing is counted."""
        repeated, self._repeated, self._judged = self._repeated, None, step
        if step == repeated:
            return Judgement(self.verdicts())
        transitions: list[Verdict] = []
        moved: list[Verdict] = []
        for watch in self._watches:
            condition = watch.condition
            if not condition.evaluate(step, metrics):
                continue
            verdict = condition.verdict
            if verdict.state == watch.state:
                watch.evaluations += 1
                if watch.evaluations < LIMIT_TOLD_EVERY or not watch.has_moved(verdict.limit):
                    continue
            (moved if verdict.state == watch.state else transitions).append(verdict)
            watch.tell(verdict)
        if not transitions and not moved:
            return Judgement(tuple([condition.verdict for condition in self._sorted]))
        self._sorted = self._sort()
        transitions.sort(key=lambda verdict: _RANK[verdict.state])
        return Judgement(self.verdicts(), tuple(transitions), tuple(moved))

    def verdicts(self) -> tuple[Verdict, ...]:
        """What every condition says now, critical first."""
        return tuple([condition.verdict for condition in self._sorted])

    def states(self) -> dict[str, str]:
        """Condition id to its state, in the profile's order."""
        return {watch.condition.verdict.id: watch.condition.verdict.state for watch in self._watches}

    def state(self) -> dict[str, Any]:
        """Everything that the next judgement depends on, as plain data with finite numbers only."""
        return {
            "step": self._judged,
            "conditions": {
                limit.id: {
                    "kind": type(limit).__struct_config__.tag,
                    "verdict": watch.condition.verdict.data(),
                    "told": [watch.limit, watch.evaluations],
                    **watch.condition.state(),
                }
                for limit, watch in zip(self.profile.limits, self._watches, strict=True)
            },
        }

    @classmethod
    def from_state(cls, profile: Profile, state: Mapping[str, Any]) -> "SafetyMonitor":
        """Go on where another monitor was when it gave its `state`.

        A limit of the profile that the state does not know, or knows as another kind, starts unarmed; one that only the
        state knows is dropped.
        """
        monitor = cls(profile)
        monitor._judged = monitor._repeated = state.get("step")
        conditions: Mapping[str, Any] = state.get("conditions", {})
        for limit, watch in zip(profile.limits, monitor._watches, strict=True):
            kept = conditions.get(limit.id)
            if kept is None or kept["kind"] != type(limit).__struct_config__.tag:
                continue
            watch.condition.restore(kept)
            watch.condition.verdict = Verdict.from_data(kept["verdict"])
            watch.state = watch.condition.verdict.state
            watch.limit, watch.evaluations = kept["told"]
        monitor._sorted = monitor._sort()
        return monitor

    def _sort(self) -> list[Condition]:
        conditions = [watch.condition for watch in self._watches]
        return sorted(conditions, key=lambda condition: _RANK[condition.verdict.state])


class _Watch:
    """A condition, and what readers were last told of it."""

    __slots__ = ("condition", "evaluations", "limit", "state")

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.state = condition.verdict.state
        self.limit = condition.verdict.limit
        self.evaluations = 0
        """Since it was told last."""

    def tell(self, verdict: Verdict) -> None:
        self.state, self.limit, self.evaluations = verdict.state, verdict.limit, 0

    def has_moved(self, limit: float | None) -> bool:
        if limit is None or limit == self.limit:
            return False
        return self.limit is None or abs(limit - self.limit) > LIMIT_MOVED_BY * abs(self.limit)
