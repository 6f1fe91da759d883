"""One limit under a monitor of its own, and what it says of a series."""

from collections.abc import Iterable, Mapping

from qig_core.safety.monitor import Judgement, SafetyMonitor
from qig_core.safety.profile import Limit, Profile
from qig_core.safety.verdict import Verdict


def one(limit: Limit) -> SafetyMonitor:
    return SafetyMonitor(Profile(name="one", limits=(limit,)))


def verdict(judgement: Judgement, name: str) -> Verdict:
    return next(verdict for verdict in judgement.verdicts if verdict.id == name)


def states(monitor: SafetyMonitor, metric: str, values: Iterable[float | None], first: int = 0) -> list[str]:
    """The state after each value; None is a step at which something else was measured."""
    return [monitor.judge(step, {metric: value, "other": 0.0}).worst for step, value in enumerate(values, first)]


def changes(monitor: SafetyMonitor, samples: Iterable[Mapping[str, float | None]], first: int = 0) -> list[str]:
    """Every transition as "step id state"."""
    found = []
    for step, sample in enumerate(samples, first):
        found += [f"{step} {each.id} {each.state}" for each in monitor.judge(step, sample).transitions]
    return found
