"""The events of programs in a line each, and when one of them is news. Pure; an event of anybody's making."""

from collections.abc import Hashable

from qig_core.rundir.schema import Event
from qig_tui.programs.constellation import RUNGS, Advice, report_of
from qig_tui.programs.fields import Data, Numbers, table, text
from qig_tui.programs.phases import phase_of
from qig_tui.text import ABSENT, compact, grouped, number, safe, unit_text


def phase_words(event: Event) -> str | None:
    """dormant (1 of 3) passed: all guards hold; None for an event of before 1.4."""
    phase = phase_of(event)
    if phase is None:
        return None
    what = f"{phase.name} ({phase.index} of {phase.of}) {phase.state}"
    if phase.state == "begun":
        return f"{what}; {phase.span}" if phase.span else what
    held = [] if phase.state == "failed" and phase.reason else [phase.counts]
    return f"{what}: {'; '.join([*([phase.reason] if phase.reason else []), *held])}"


def generated_words(data: Data) -> str:
    """What a frozen kernel made of a prompt."""
    return f"{text(data, 'prompt', 60) or '(no prompt)'} ▸ {text(data, 'text', 300) or '(nothing)'}"


def ocean_words(event: Event) -> str | None:
    """What the Ocean recommends and how near two Garys are; None where it is no report."""
    report = report_of(event)
    if report is None:
        return None
    parts = [f"{grouped(len(report.garys) + report.more_garys)} Garys, nearest two {number(report.min_rad)} rad"]
    if report.sound is False:
        parts.insert(0, "the Ocean is NOT as it was born")
    if report.too_near:
        count = len(report.too_near)
        parts.append(f"{grouped(count)} pair{'' if count == 1 else 's'} under the floor")
    if report.advice:
        first = report.advice[0]
        more = f" and {grouped(len(report.advice) - 1)} more" if len(report.advice) > 1 else ""
        parts.append(f"{first.rung_text}: {first.verb} {first.gary}{more}")
    else:
        parts.append("nothing is recommended")
    return "; ".join(parts)


def intervention_words(data: Data) -> str:
    """perturb gary2 by the ocean: distance 0.021 → 0.034; kl 0.02 of 0.04 nats; undone: ..."""
    numbers = Numbers(data)
    by = text(data, "by", 16)
    head = f"{text(data, 'verb', 16) or '?'} {text(data, 'gary', 40) or '?'}" + (f" by {by}" if by else "")
    parts = [*changes(data, numbers)[:3], bound_words(data, numbers)]
    if data.get("undone") is True:
        parts.append(f"undone: {text(data, 'reason', 200) or 'no reason is recorded'}")
    elif text(data, "reason", 200):
        parts.append(text(data, "reason", 200))
    return f"{head}: {'; '.join(part for part in parts if part) or 'nothing more is recorded'}"


def changes(data: Data, numbers: Numbers) -> list[str]:
    """What was measured before and after: phi 0.71 → 0.72."""
    before, after = table(data.get("before")), table(data.get("after"))
    names = list(dict.fromkeys([*list(before)[:16], *list(after)[:16]]))
    return [
        f"{safe(name, 30)} {number(numbers.at(before.get(name), 'before', name))}"
        f" → {number(numbers.at(after.get(name), 'after', name))}"
        for name in names
    ]


def bound_words(data: Data, numbers: Numbers) -> str:
    """What it promised to keep: kl_nats 0.013, at most 0.05 nats."""
    bound = table(data.get("bound"))
    if not bound:
        return ""
    limit = numbers.at(bound.get("limit"), "bound", "limit")
    unit = unit_text(text(bound, "unit", 16))
    value = number(numbers.at(bound.get("value"), "bound", "value"))
    most = ABSENT if limit is None else compact(limit)
    return f"{text(bound, 'name', 40) or 'bound'} {value}, at most {most} {unit}".rstrip()


def repeated(event: Event) -> Hashable | None:
    """Of an event of a kind that comes at every measurement what it says, in short: one that says the same as the one
    before is no news. None for any other event.
    """
    match event.kind:
        case "phase":
            phase = phase_of(event)
            if phase is None or phase.state != "judged":
                return None
            return phase.name, phase.index, tuple((guard.id, guard.state) for guard in phase.guards)
        case "ocean":
            report = report_of(event)
            if report is None:
                return None
            urgent = tuple((one.verb, one.gary, one.rung) for one in report.advice if is_told(one))
            return report.sound, report.is_under_floor(report.min_rad), urgent
        case _:
            return None


def is_told(advice: Advice) -> bool:
    """Whether a recommendation is more than seen: one that nobody knows is taken for that."""
    return advice.rung not in RUNGS or RUNGS.index(advice.rung) > 0
