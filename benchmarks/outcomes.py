"""What the runs of the detection benchmark said, one row a run, summed up, judged and as tables. Starts no run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alarms import Alarm, History
from faults import FAULTS, HungLoader, Job
from racing import MISSED

WARNINGS, PER_STEPS = 1.0, 5000
"""A healthy run's mark, beside no critical alarm at all."""


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """What a healthy run said."""

    subject: str
    seed: int
    steps: int
    """Done: fewer than asked for where it was stopped."""
    exit_code: int | None
    alarms: tuple[Alarm, ...] = ()
    crash: str = ""


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """What a run with a fault said."""

    subject: str
    fault: str
    seed: int
    exit_code: int | None
    reason: str = ""
    first: Alarm | None = None
    steps_to_first: int | None = None
    critical: Alarm | None = None
    """The first that stops a run."""
    steps_to_critical: int | None = None
    false: tuple[Alarm, ...] = ()
    """Before the injection."""
    alarms: tuple[Alarm, ...] = ()
    """After it, all of them."""
    crash: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job's process has ended."""

    job: Job
    history: History
    steps: int = 0
    exit_code: int | None = None
    reason: str = ""
    crash: str = ""


def healthy_row(ended: Ended) -> Healthy:
    job = ended.job
    return Healthy(
        subject=job.subject,
        seed=job.seed,
        steps=ended.steps,
        exit_code=ended.exit_code,
        alarms=ended.history.before,
        crash=ended.crash,
    )


def faulty_row(ended: Ended, twin: Ended) -> Faulty:
    """Of a faulty run, beside the healthy run that it was until the injection."""
    job, history = ended.job, ended.history
    crash = ended.crash or ("" if history.injected_step is not None else "ended before the injection")
    expected = {(alarm.id, alarm.step) for alarm in twin.history.before}
    alarms = tuple(alarm for alarm in history.after if (alarm.id, alarm.step) not in expected)
    first = next(iter(alarms), None)
    critical = next((alarm for alarm in alarms if alarm.severity == "critical"), None)
    return Faulty(
        subject=job.subject,
        fault=job.fault,
        seed=job.seed,
        exit_code=ended.exit_code,
        reason=ended.reason,
        first=first,
        steps_to_first=_steps_to(first, history),
        critical=critical,
        steps_to_critical=_steps_to(critical, history),
        false=history.before,
        alarms=alarms,
        crash=crash,
    )


def _steps_to(alarm: Alarm | None, history: History) -> int | None:
    if alarm is None or alarm.step is None or history.injected_step is None:
        return None
    return max(0, alarm.step - history.injected_step)


def healthy_summary(rows: Iterable[Healthy]) -> list[dict[str, Any]]:
    """One for each subject."""
    rows = list(rows)
    found = []
    for subject in dict.fromkeys(row.subject for row in rows):
        mine = [row for row in rows if row.subject == subject]
        steps = sum(row.steps for row in mine)
        severities = Counter(alarm.severity for row in mine for alarm in row.alarms)
        conditions = Counter(f"{alarm.id} {alarm.severity}" for row in mine for alarm in row.alarms)
        rate = PER_STEPS * severities["warning"] / max(1, steps)
        ended = all(row.exit_code == 0 and not row.crash for row in mine)
        met = ended and not severities["critical"] and rate <= WARNINGS
        found.append(
            {
                "subject": subject,
                "runs": len(mine),
                "steps": steps,
                "critical": severities["critical"],
                "warnings": severities["warning"],
                "warnings_per_5000": round(rate, 3),
                "conditions": dict(conditions.most_common()),
                "verdict": "met" if met else MISSED,
            }
        )
    return found


def faulty_summary(rows: Iterable[Faulty]) -> list[dict[str, Any]]:
    """One for each subject and fault, faults in their order."""
    rows = list(rows)
    found = []
    for fault in FAULTS:
        for subject in dict.fromkeys(row.subject for row in rows):
            mine = [row for row in rows if (row.subject, row.fault) == (subject, fault)]
            firsts = [row.first for row in mine if row.first is not None]
            detected = sum(row.first is not None and not row.crash for row in mine)
            found.append(
                {
                    "subject": subject,
                    "fault": FAULTS[fault].title,
                    "runs": len(mine),
                    "detected": detected,
                    "first": dict(Counter(f"{each.id} {each.severity}" for each in firsts).most_common()),
                    "metrics": dict(Counter(each.cause or each.metric for each in firsts).most_common()),
                    "steps": sorted(row.steps_to_first for row in mine if row.steps_to_first is not None),
                    "seconds": sorted(each.after_s for each in firsts if each.after_s is not None),
                    "stopped": sum(row.critical is not None for row in mine),
                    "steps_to_critical": sorted(
                        row.steps_to_critical for row in mine if row.steps_to_critical is not None
                    ),
                    "exit_codes": sorted({row.exit_code for row in mine if row.exit_code is not None}),
                    "false": sum(len(row.false) for row in mine),
                    "verdict": "met" if detected == len(mine) else MISSED,
                }
            )
    return found


def _span(values: Sequence[float], form: str = "g") -> str:
    if not values:
        return "–"
    low, high = format(values[0], form), format(values[-1], form)
    return low if low == high else f"{low} to {high}"


def _counted(counts: dict[str, int]) -> str:
    """The names alone where there is one."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "–"


def markdown(facts: dict[str, Any]) -> str:
    """Both tables; facts as they stand in the file of results."""
    lines: list[str] = []
    if facts["healthy"]:
        lines += [
            "| healthy | runs | steps in all | critical | warnings | a 5 000 steps | of | mark | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for row in facts["healthy"]:
        found: tuple[Any, ...] = (
            row["subject"],
            row["runs"],
            row["steps"],
            row["critical"],
            row["warnings"],
            f"{row['warnings_per_5000']:.2g}",
            _counted(row["conditions"]),
            "0, ≤ 1 a 5 000",
            _verdict(row),
        )
        lines.append(f"| {' | '.join(map(str, found))} |")
    if facts["healthy"] and facts["faults"]:
        lines.append("")
    if facts["faults"]:
        lines += [
            "| fault | subject | detected | first alarm | names | after steps | stopped | after steps | exit code | |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
    for row in facts["faults"]:
        in_seconds = row["fault"] == HungLoader.title and row["seconds"]
        cells = (
            row["fault"],
            row["subject"],
            f"{row['detected']} of {row['runs']}",
            _counted(row["first"]),
            _counted(row["metrics"]),
            f"{_span(row['seconds'], '.0f')} s" if in_seconds else _span(row["steps"]),
            f"{row['stopped']} of {row['runs']}",
            _span(row["steps_to_critical"]),
            ", ".join(map(str, row["exit_codes"])),
            _verdict(row),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _verdict(row: dict[str, Any]) -> str:
    return str(row["verdict"]).replace(MISSED, "**missed**")


def remarks(healthy: Sequence[Healthy], faulty: Sequence[Faulty]) -> list[str]:
    """What a table does not say: each false alarm, each run that was not noticed, each crash."""
    found = []
    for row in healthy:
        name = f"{row.subject}-{row.seed}"
        found += [f"{name}: {alarm.id} {alarm.severity} at {alarm.step}" for alarm in row.alarms]
        if row.crash or row.exit_code:
            found.append(f"{name}: exit code {row.exit_code} at {row.steps} {_last_line(row.crash)}".rstrip())
    for each in faulty:
        name = f"{each.subject}-{each.fault}-{each.seed}"
        found += [f"{name}: {alarm.id} {alarm.severity} at {alarm.step}, before the fault" for alarm in each.false]
        if each.crash:
            found.append(f"{name}: crashed: {_last_line(each.crash)}")
        elif each.first is None:
            found.append(f"{name}: not detected")
    return found


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else ""
