"""What the measurements of a step mean: every condition of a profile, judged at once. Pure: no clock, no disk."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from qig_core.safety.conditions import NonFiniteCondition, ThresholdCondition, condition_for
from qig_core.safety.early import EarlyWarningCondition, MeasuredCondition
from qig_core.safety.profile import DEFAULT, Divergence, Floor, Profile, RobustZ, Threshold
from qig_core.safety.verdict import ALARMS, Condition, State, Verdict

LIMIT_MOVED_BY = 0.02
"""A limit that moves with its metric is told again once it differs by more than this share ..."""
LIMIT_TOLD_EVERY = 50
"""... and at least this many evaluations after it was told last."""

WINDOW = 20
"""Evaluations of a metric that are told with an alarm ..."""
_SAMPLES = 1000
"""... as far as they lie in so many steps."""
_MOVES = (Divergence, Floor, RobustZ)
"""Whose limit moves with its metric."""
_NAMES_ITSELF = (NonFiniteCondition, EarlyWarningCondition, MeasuredCondition)

_RANK = {"critical": 0, "warning": 1, "ok": 2, "unarmed": 3}


class Advice(msgspec.Struct, frozen=True, gc=False):
    """Something to consider before a limit is reached; no alarm."""

    id: str
    """Of the limit."""
    text: str
    raised: bool
    """False where it holds no longer."""


class Judgement:
    """What one step means. Reading `verdicts` puts them together: they are as they stand until the next judgement."""

    __slots__ = ("_conditions", "_verdicts", "advice", "moved", "transitions", "worst")

    def __init__(
        self,
        conditions: Sequence[Condition] = (),
        transitions: tuple[Verdict, ...] = (),
        moved: tuple[Verdict, ...] = (),
        advice: tuple[Advice, ...] = (),
    ) -> None:
        self._conditions = conditions
        self._verdicts: tuple[Verdict, ...] | None = None
        self.worst: State = conditions[0].state if conditions else "unarmed"
        """The worst state of any condition."""
        self.transitions = transitions
        """Those whose state changed at this step, critical first."""
        self.moved = moved
        """Those whose state did not change, but whose limit did so far that readers must hear of it."""
        self.advice = advice
        """What began or ceased to be advised at this step."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each condition, critical first, then warning, ok, unarmed; in the profile's order among equals."""
        if self._verdicts is None:
            self._verdicts = tuple([condition.verdict for condition in self._conditions])
        return self._verdicts

    @property
    def critical(self) -> tuple[Verdict, ...]:
        """Every critical verdict, new or lasting."""
        return tuple(verdict for verdict in self.verdicts if verdict.state == "critical")

    def __repr__(self) -> str:
        return f"Judgement({self.verdicts}, {self.transitions}, {self.moved}, {self.advice})"


class SafetyMonitor:
    """Judges metrics step by step against a profile; the same calls always give the same judgements."""

    def __init__(self, profile: Profile = DEFAULT) -> None:
        self.profile = profile
        self._judged: int | None = None
        self._repeated: int | None = None
        """The step at which a resume begins: it was judged before its checkpoint was made, and is not counted twice."""
        self._begin()

    def _begin(self) -> None:
        self._watches = [_Watch(condition_for(limit)) for limit in self.profile.judged]
        self._samples: deque[tuple[int, Mapping[str, float | None]]] = deque(maxlen=_SAMPLES)
        self._wire()

    def _wire(self) -> None:
        limits = self.profile.judged
        conditions = [watch.condition for watch in self._watches]
        # Looked up once: this is on the path of every step.
        self._loop = [
            (watch, watch.condition, watch.condition.evaluate, isinstance(limit, _MOVES))
            for watch, limit in zip(self._watches, limits, strict=True)
        ]
        self._sorted = self._sort()
        self._early = [each for each in conditions if isinstance(each, EarlyWarningCondition)]
        self._advising = [
            _Advising(condition, limit.advice)
            for condition, limit in zip(conditions, limits, strict=True)
            if isinstance(condition, ThresholdCondition) and isinstance(limit, Threshold) and limit.advice
        ]

    def rearm(self, ids: Collection[str]) -> tuple[Verdict, ...]:
        """Judge these anew, as at the birth of a run: what they are about is another thing from now on.

        Returns:
            What they say now.
        """
        new = []
        for index, limit in enumerate(self.profile.judged):
            if limit.id in ids:
                self._watches[index] = _Watch(condition_for(limit))
                new.append(self._watches[index].condition.verdict)
        self._wire()
        return tuple(new)

    def judge(self, step: int, metrics: Mapping[str, float | None]) -> Judgement:
        """Judge what was measured at a step; absent and None are "not measured", and then nothing is counted.

        Args:
            metrics: kept for `window`, and not to be changed afterwards.
        """
        repeated, self._repeated, self._judged = self._repeated, None, step
        if step == repeated:
            return Judgement(self._sorted)
        self._samples.append((step, metrics))
        transitions: list[_Watch] = []
        moved: list[Verdict] = []
        for watch, condition, evaluate, moves in self._loop:
            if not evaluate(step, metrics):
                continue
            if condition.state != watch.state:
                transitions.append(watch)
                watch.tell()
            elif moves:
                watch.evaluations += 1
                if watch.evaluations >= LIMIT_TOLD_EVERY:
                    watch.evaluations = 0
                    if watch.has_moved(condition.limit):
                        moved.append(condition.verdict)
                        watch.tell()
        advice = [found for each in self._advising if (found := each.look()) is not None] if self._advising else ()
        if not transitions and not moved and not advice:
            return Judgement(self._sorted)
        self._name_causes(transitions)
        self._sorted = self._sort()
        changed = sorted((watch.condition.verdict for watch in transitions), key=lambda verdict: _RANK[verdict.state])
        return Judgement(self._sorted, tuple(changed), tuple(moved), tuple(advice))

    def _name_causes(self, transitions: list["_Watch"]) -> None:
        """Of each new alarm, which metrics moved first: what was off already, then the one that it is about."""
        for watch in transitions:
            condition = watch.condition
            if condition.state in ALARMS and not isinstance(condition, _NAMES_ITSELF):
                off = self._moved(condition.metric)
                condition.cause = off if condition.metric in off else (*off, condition.metric)

    def _moved(self, metric: str) -> tuple[str, ...]:
        """What was off already, of the model that this metric is of."""
        several = len(self._early) > 1
        found = (each for each in self._early if not several or _owner(each.metric) == _owner(metric))
        return next((each.moved() for each in found), ())

    def window(self, metric: str) -> list[tuple[int, float]]:
        """The last evaluations of a metric, oldest first: step and value."""
        found: list[tuple[int, float]] = []
        for step, metrics in reversed(self._samples):
            value = metrics.get(metric)
            if value is not None:
                found.append((step, value))
                if len(found) == WINDOW:
                    break
        return found[::-1]

    def verdicts(self) -> tuple[Verdict, ...]:
        """What every condition says now, critical first."""
        return tuple([condition.verdict for condition in self._sorted])

    def states(self) -> dict[str, str]:
        """Condition id to its state, in the profile's order."""
        return {watch.condition.id: watch.condition.state for watch in self._watches}

    def state(self) -> dict[str, Any]:
        """Everything that the next judgement depends on, as plain data with finite numbers only."""
        return {
            "step": self._judged,
            "conditions": {
                limit.id: {
                    "kind": type(limit).__struct_config__.tag,
                    "verdict": watch.condition.verdict.data(),
                    "told": [watch.limit, watch.evaluations],
                    **watch.condition.state_of(),
                }
                for limit, watch in zip(self.profile.judged, self._watches, strict=True)
            },
        }

    @classmethod
    def from_state(cls, profile: Profile, state: Mapping[str, Any]) -> "SafetyMonitor":
        """Go on where another monitor was when it gave its `state`; see `restore`."""
        monitor = cls(profile)
        monitor.restore(state)
        return monitor

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, whatever was judged since.

        A limit of the profile that the state does not know, or knows as another kind or of another metric, starts
        unarmed; one that only the state knows is dropped. The windows that alarms are told with begin anew.
        """
        self._begin()
        self._judged = self._repeated = state.get("step")
        conditions: Mapping[str, Any] = state.get("conditions", {})
        for limit, watch in zip(self.profile.judged, self._watches, strict=True):
            kept = conditions.get(limit.id)
            condition = watch.condition
            if kept is None or kept["kind"] != type(limit).__struct_config__.tag:
                continue
            said = Verdict.from_data(kept["verdict"])
            if said.metric not in condition.metrics:
                continue
            condition.resume(said)
            condition.restore(kept)
            watch.state = condition.state
            watch.limit, watch.evaluations = kept["told"]
        for advising in self._advising:
            advising.raised = advising.condition.advised
        self._sorted = self._sort()

    def _sort(self) -> list[Condition]:
        conditions = [watch.condition for watch in self._watches]
        return sorted(conditions, key=lambda condition: _RANK[condition.state])


def _owner(metric: str) -> str:
    """Whose metric it is, of several models: "gary1" of gary1.loss; empty for the run's own."""
    return metric.rpartition(".")[0]


class _Watch:
    """A condition, and what readers were last told of it."""

    __slots__ = ("condition", "evaluations", "limit", "state")

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.state = condition.state
        self.limit = condition.limit
        self.evaluations = 0
        """Since it was told, or looked whether it should be."""

    def tell(self) -> None:
        self.state, self.limit, self.evaluations = self.condition.state, self.condition.limit, 0

    def has_moved(self, limit: float | None) -> bool:
        if limit is None or limit == self.limit:
            return False
        return self.limit is None or abs(limit - self.limit) > LIMIT_MOVED_BY * abs(self.limit)


class _Advising:
    """A condition with an advice, and whether it was given."""

    __slots__ = ("condition", "raised", "words")

    def __init__(self, condition: ThresholdCondition, words: str) -> None:
        self.condition = condition
        self.words = words
        self.raised = False

    def look(self) -> Advice | None:
        if self.condition.advised is self.raised:
            return None
        self.raised = not self.raised
        verdict = self.condition.verdict
        words = f"{verdict.text()}: {self.words}" if self.raised else f"{verdict.text()}: no longer {self.words}"
        return Advice(verdict.id, words, self.raised)
