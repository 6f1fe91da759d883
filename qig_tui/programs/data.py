"""Phases and reports as JSON for scripts, by the keys of their events: every number is finite, or its kind as text."""

import math
from typing import Any

from qig_tui.programs.constellation import Report
from qig_tui.programs.phases import Phase
from qig_tui.text import number

_GUARD = ("id", "label", "comparison", "unit", "state", "reason")
_PHASE = ("name", "index", "of", "state", "since_step", "earliest_step", "latest_step", "reason")
_REPORT = ("min_rad", "max_rad", "floor_rad", "variance", "coherence")
_ADVICE = ("verb", "gary", "rung", "since_step", "text")


def plain(value: float | None) -> float | str | None:
    """A number as JSON can hold it: what is not finite by its name."""
    return value if value is None or math.isfinite(value) else number(value)


def phase_data(phase: Phase) -> dict[str, Any]:
    """As it was told of last."""
    guards = [
        {name: getattr(guard, name) for name in _GUARD} | {"value": plain(guard.value), "limit": plain(guard.limit)}
        for guard in phase.guards
    ]
    return {"step": phase.step} | {name: getattr(phase, name) for name in _PHASE} | {"guards": guards}


def report_data(report: Report) -> dict[str, Any]:
    """What the Ocean said last."""
    garys = [
        {"name": gary.name, "role": gary.role}
        | {key: plain(value) for key, value in gary.numbers.items()}
        | {"flags": list(gary.flags)}
        for gary in report.garys
    ]
    return {
        "step": report.step,
        "garys": garys,
        "distances": [[plain(rad) for rad in row] for row in report.distances] or None,
        **{name: plain(getattr(report, name)) for name in _REPORT},
        "modes": list(report.modes),
        "recommendations": [
            {name: getattr(advice, name) for name in _ADVICE} | {"evidence": list(advice.evidence)}
            for advice in report.advice
        ],
        "digest": report.digest,
        "sound": report.sound,
        "reasons": dict(report.reasons),
    }
