"""A condition in words: what is compared, what is to blame, what it waits for. No Textual, no disk, no clock."""

from collections.abc import Callable, Mapping

from qig_tui.journal import ALARMS, IN_WORDS, Condition
from qig_tui.text import compact, number

_MOST_LIMITS = 200


def blame_text(condition: Condition) -> str:
    """Of an alarm, which metrics are to blame, in words: the first that moved first."""
    if condition.state not in ALARMS or not condition.cause:
        return ""
    if condition.comparison in ("finite", "measured"):
        return f"{condition.blame} {IN_WORDS[condition.comparison][1]}"
    return condition.blame or f"{condition.cause[0]} alone"


def limit_text(condition: Condition) -> str:
    """What the healthy side is: ≤ 0.6 rad; or in a word."""
    if condition.comparison in IN_WORDS:
        return condition.comparison
    if condition.limit is None:
        return "no limit yet"
    return f"{condition.comparison} {compact(condition.limit)}" + (f" {condition.unit}" if condition.unit else "")


def value_text(condition: Condition) -> str:
    """What was compared with it, as the event told."""
    return "" if condition.value is None else number(condition.value)


def why_unarmed(
    condition: Condition,
    *,
    reasons: Mapping[str, str],
    is_measured: Callable[[str], bool],
    profile: Mapping[str, object],
) -> str:
    """Why a condition is not judged, as far as the record tells.

    Args:
        reasons: by metric, why it has no value.
        is_measured: whether there is a value of a metric.
        profile: of the manifest, whoever wrote it.
    """
    metric = condition.metric
    if metric == "step_age":
        return "judged from the first step on"
    if metric in reasons:
        return f"no {metric}: {reasons[metric]}"
    if metric and not is_measured(metric):
        return f"no value of {metric} yet"
    return _arming(_limit_of(profile, condition.id), condition) or "not enough values yet"


def _limit_of(profile: Mapping[str, object], name: str) -> Mapping[str, object]:
    limits = profile.get("limits")
    for limit in limits[:_MOST_LIMITS] if isinstance(limits, list) else ():
        if isinstance(limit, dict) and limit.get("id") == name:
            return limit
    return {}


def _arming(limit: Mapping[str, object], condition: Condition) -> str:
    """What a condition waits for, by the profile."""

    def count(name: str) -> int:
        value = limit.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else 0

    at = limit.get("armed_at")
    if isinstance(at, int | float) and not isinstance(at, bool):
        held = f" for {count('armed_held')} in a row" if count("armed_held") > 1 else ""
        return f"judged once it was {condition.comparison} {compact(float(at))}{held}"
    if steps := count("armed_after_steps"):
        return f"its limit is made of {count('baseline')} values from step {steps} on"
    if values := count("window") + count("lag") or count("armed_after"):
        return f"judged after {values} values"
    return ""
