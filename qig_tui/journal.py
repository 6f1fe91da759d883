"""What happened, folded from events: conditions as they stand, and the lists a screen shows. No Textual, no disk."""

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from qig_core.rundir.schema import Event, MetricSpec, Unreadable
from qig_tui.margin import LOWER, UPPER, Bounds, share_left
from qig_tui.programs.phases import PhaseBook
from qig_tui.programs.words import generated_words, intervention_words, ocean_words, phase_words, repeated
from qig_tui.records import NONFINITE, as_float
from qig_tui.text import compact, grouped, number, safe, unit_text

STATES = ("unarmed", "ok", "warning", "critical")
SHOWN = ("unarmed", "ok", "unjudged", "warning", "critical")
"""The states and what is shown instead of one that the newest value belies, by rising severity."""
GLYPHS = {"unarmed": "○", "ok": "●", "unjudged": "▲", "warning": "▲", "critical": "✖"}
SEVERITY_GLYPHS = {"info": "·", "warning": "▲", "critical": "✖"}
_KEPT = 2000
_MAX_CONDITIONS = 1024
"""Enough for every limit of 64 Garys."""
ALARMS = ("warning", "critical")
IN_WORDS = {
    "finite": ("all finite", "not finite"),
    "measured": ("all measured", "not measured any more"),
    "steady": ("steady", "left its recent past"),
}
"""Comparisons without a number: what is said of a healthy condition, and of what it blames where it is not."""
_HOW = {"resume": "on resume", "restore": "by a command", "soft_reset": "by a soft reset"}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One safety condition as its latest event says."""

    id: str
    state: str
    metric: str
    comparison: str
    """Of the healthy side: "≤", "≥", or as recorded ("finite", "steady", "measured")."""
    limit: float | None
    unit: str
    value: float | None
    """At the transition; the newest sample may say something newer."""
    since_step: int | None
    dwell: str
    cause: tuple[str, ...]
    """Metrics, the first that moved first."""
    statistic: str = ""
    """What of the metric is compared, where it is not its newest value."""

    @property
    def blame(self) -> str:
        """Of an alarm, what it is blamed on, where that is more than the metric that is compared."""
        if self.state not in ALARMS or not self.cause:
            return ""
        if self.comparison in ("finite", "measured"):
            return ", ".join(self.cause)
        first, *rest = self.cause
        if rest:
            return f"{first} moved first, then {', '.join(rest)}"
        if first != self.metric:
            return f"{first} moved first"
        return f"{first} moved" if self.comparison == "steady" else ""

    def is_beyond(self, value: float) -> bool:
        """Whether a value is on the wrong side of the limit."""
        if self.limit is None or self.comparison not in ("≤", "≥"):
            return False
        return value > self.limit if self.comparison == "≤" else value < self.limit

    def margin(self, value: float | None, bounds: Bounds) -> float | None:
        """The share of the way to the limit that is left: 1 far from it, 0 at it or beyond; None if unknowable.

        Args:
            bounds: the values that are possible; the way is measured from the far end where it is known, else from 0.
        """
        if self.comparison not in ("≤", "≥"):
            return None
        return share_left(value, self.limit, is_upper=self.comparison == "≤", bounds=bounds)


def _value_of(data: Mapping[str, Any]) -> float | None:
    """The value, or its kind where it is not finite; early writers of 1.0 put that into value_text."""
    named = data.get("nonfinite")
    kind = named.get("value") if isinstance(named, dict) else data.get("value_text")
    return as_float(data.get("value")) if kind is None else NONFINITE.get(str(kind))


def condition_of(data: Mapping[str, Any], step: int | None) -> Condition:
    """A condition event's data, whatever a foreign writer put there."""
    comparison = safe(data.get("comparison") or "", 16)
    comparison = "≤" if comparison in UPPER else "≥" if comparison in LOWER else comparison
    since = data.get("since_step")
    cause = data.get("cause")
    dwell = data.get("dwell")
    return Condition(
        id=safe(data.get("id") or "?", 60),
        state=str(data.get("state")) if data.get("state") in STATES else "unarmed",
        metric=safe(data.get("metric") or "", 60),
        comparison=comparison,
        limit=as_float(data.get("limit")),
        unit=unit_text(safe(data.get("unit") or "", 16)),
        statistic=safe(data.get("statistic") or "", 20),
        value=_value_of(data),
        since_step=since if isinstance(since, int) else step,
        dwell="" if dwell is None else safe(dwell, 40),
        cause=tuple(safe(c, 60) for c in cause[:8]) if isinstance(cause, list) else (),
    )


class Journal:
    """The events of a run, folded in the order of the file."""

    def __init__(self) -> None:
        self.conditions: dict[str, Condition] = {}
        self.events: deque[Event] = deque(maxlen=_KEPT)
        """What is worth a line on the screen."""
        self._said: dict[str, str] = {}
        self.emergencies: deque[Event] = deque(maxlen=100)
        self.restored: deque[Event] = deque(maxlen=100)
        self.phases = PhaseBook()
        self.report: Event | None = None
        """The Ocean's newest."""
        self.interventions: deque[Event] = deque(maxlen=100)
        self.generated: deque[Event] = deque(maxlen=100)
        """What a frozen kernel wrote."""
        self._repeated: dict[str, Hashable] = {}
        """By kind what was said last, of kinds that come at every measurement."""
        self.specs: dict[str, MetricSpec] = {}
        """Declared after the start."""
        self.read = 0
        self.bad = 0

    def copy(self) -> "Journal":
        """The same as it is now; what is folded into one of both does not reach the other."""
        made = Journal()
        made.conditions, made.specs, made._said = dict(self.conditions), dict(self.specs), dict(self._said)
        made.events, made.emergencies = self.events.copy(), self.emergencies.copy()
        made.restored, made.read, made.bad = self.restored.copy(), self.read, self.bad
        made.phases, made.report, made._repeated = self.phases.copy(), self.report, dict(self._repeated)
        made.interventions, made.generated = self.interventions.copy(), self.generated.copy()
        return made

    def add(self, records: Iterable[Event | Unreadable]) -> int:
        """Fold new events in; how many there were."""
        count = 0
        for record in records:
            if isinstance(record, Unreadable):
                self.bad += 1
                continue
            count += 1
            if self._is_news(record):
                self.events.append(record)
            match record.kind:
                case "start":
                    # Every condition is announced again after a start.
                    self.conditions.clear()
                case "condition":
                    condition = condition_of(record.data, record.step)
                    if condition.id in self.conditions or len(self.conditions) < _MAX_CONDITIONS:
                        self.conditions[condition.id] = condition
                case "metrics":
                    self._declare(record.data.get("specs"))
                case "emergency":
                    self.emergencies.append(record)
                case "restored":
                    self.restored.append(record)
                case "phase":
                    self.phases.add(record)
                case "ocean":
                    self.report = record
                case "intervention":
                    self.interventions.append(record)
                case "generated":
                    self.generated.append(record)
        self.read += count
        return count

    def _is_news(self, event: Event) -> bool:
        """Not what says again what it said: a condition whose limit moved, guards and reports that are as before."""
        if event.kind != "condition":
            said = repeated(event)
            before = self._repeated.pop(event.kind, None)
            if said is not None:
                self._repeated[event.kind] = said
            return said is None or said != before or event.severity in ALARMS
        condition = condition_of(event.data, event.step)
        before = self._said.get(condition.id, "unarmed")
        if len(self._said) < _MAX_CONDITIONS or condition.id in self._said:
            self._said[condition.id] = condition.state
        return condition.state != before

    def _declare(self, specs: object) -> None:
        if not isinstance(specs, list):
            return
        for spec in specs[:256]:
            try:
                known = msgspec.convert(spec, MetricSpec)
            except msgspec.ValidationError:
                continue
            self.specs[known.name] = known

    @property
    def worst(self) -> str:
        """The worst state of any condition; "unarmed" where none is armed."""
        return max((c.state for c in self.conditions.values()), key=STATES.index, default="unarmed")


def verdict(states: Sequence[str], *, current: bool) -> str:
    """The worst of the conditions' states in words with its glyph: ▲ 1 warning.

    Args:
        current: whether somebody still judges; that nothing was broken is said in the past otherwise.
    """
    if not states:
        return "○ no conditions"
    worst = max(states, key=SHOWN.index)
    if worst in ("unjudged", "warning", "critical"):
        further = states.count("warning") if worst == "critical" else 0
        return f"{GLYPHS[worst]} {states.count(worst)} {worst}" + (f" {GLYPHS['warning']} {further}" if further else "")
    if worst == "unarmed":
        return f"{GLYPHS['unarmed']} unarmed"
    return f"{GLYPHS['ok']} limits ok" if current else f"{GLYPHS['unarmed']} limits were ok"


def _pairs(data: Mapping[str, Any], skip: tuple[str, ...] = ()) -> str:
    parts: list[str] = []
    for key, value in data.items():
        if len(parts) == 8:
            break
        if key in skip or value is None or value == "" or value == []:
            continue
        shown = number(value) if isinstance(value, float) else safe(value, 80)
        parts.append(f"{safe(key, 24)} {shown}")
    return " · ".join(parts)


def sentence(event: Event) -> str:
    """One event in a line; a kind that is not known shows its data as they are."""
    data = event.data
    match event.kind:
        case "condition":
            return _condition(condition_of(data, event.step), data)
        case "checkpoint":
            reason, error = data.get("reason"), data.get("error")
            what = f"none: {safe(error, 200)}" if error else safe(data.get("name", "?"), 80)
            return what + (f" ({safe(reason, 40)})" if reason else "")
        case "command":
            reason = data.get("reason")
            verb = safe(data.get("verb") or data.get("name") or "?", 40).replace("_", " ")
            what = f"{verb} {safe(data.get('stage', ''), 20)}"
            return what + (f": {safe(reason, 120)}" if reason else "")
        case "restored":
            recorded = data.get("how") or "resume"
            how = _HOW.get(recorded) if isinstance(recorded, str) else None
            origin = data.get("checkpoint", "?")
            if origin is None:
                return "no checkpoint: from the beginning"
            known = f"from {safe(origin, 80)}, fingerprint {safe(data.get('fingerprint', '?'), 80)[:12]}"
            return f"{known}, {how or safe(recorded, 24)}"
        case "soft_reset":
            return _soft_reset(data)
        case "end":
            reason = data.get("reason")
            return f"exit code {safe(data.get('exit_code', '?'), 12)}" + (f", {safe(reason, 200)}" if reason else "")
        case "start":
            resumed = data.get("resumed_from")
            return f"process {safe(data.get('pid', '?'), 12)}" + (f", from {safe(resumed, 80)}" if resumed else "")
        case "emergency":
            saved = data.get("checkpoint")
            kept = f", saved as {safe(saved, 60)}" if saved else ", nothing saved"
            return f"{safe(data.get('cause', '?'), 160)}{kept}, exit code {safe(data.get('exit_code', '?'), 12)}"
        case "metrics":
            specs = data.get("specs")
            return f"{len(specs)} declared" if isinstance(specs, list) else _pairs(data)
        case "pruned":
            return _pruned(data)
        case "unmeasured":
            reasons = data.get("reasons")
            if not isinstance(reasons, dict):
                return _pairs(data)
            return (
                "; ".join(f"{safe(m, 40)}: {safe(why, 80)}" for m, why in list(reasons.items())[:8]) or "all measured"
            )
        case "tagged":
            tags = data.get("tags")
            if not isinstance(tags, list):
                return _pairs(data)
            return f"{safe(data.get('name', '?'), 80)}: {', '.join(safe(tag, 40) for tag in tags[:8]) or 'no tags'}"
        case "phase":
            return phase_words(event) or _pairs(data)
        case "ocean":
            return ocean_words(event) or _pairs(data)
        case "generated":
            return generated_words(data)
        case "intervention":
            return intervention_words(data)
        case "note" | "alert":
            said = data.get("text") or data.get("message")
            if not said:
                return _pairs(data)
            what = f"{safe(data['id'], 60)}: " if data.get("id") else ""
            return what + safe(said, 300) + (", no longer" if data.get("raised") is False else "")
        case _:
            return _pairs(data)


def _pruned(data: Mapping[str, Any]) -> str:
    named = data.get("names")
    names = named if isinstance(named, list) else []
    some = ", ".join(safe(name, 40) for name in names[:4]) + (" …" if len(names) > 4 else "")
    return f"{len(names)} deleted: {some}" + (f", {safe(data['how'], 40)}" if data.get("how") else "")


def _condition(c: Condition, data: Mapping[str, Any]) -> str:
    """A condition's event: the same facts as the trainer's own words for it, and what it is blamed on."""
    alarm = c.state in ALARMS
    unit = f" {c.unit}" if c.unit else ""
    value = "" if c.value is None else f" {number(c.value)}"
    if c.comparison in IN_WORDS:
        healthy, broken = IN_WORDS[c.comparison]
        if not alarm:
            what = f" {healthy}" if c.state == "ok" else " not judged yet"
        elif c.comparison == "steady":
            what = f" {c.metric}{value}{unit if value else ''} {broken}" + (f", {c.blame}" if len(c.cause) > 1 else "")
        else:
            what = f" {c.blame or c.metric} {broken}"
    else:
        limit = "no limit yet" if c.limit is None else f"{c.comparison} {compact(c.limit)}{unit}"
        beyond = c.state == "ok" and c.value is not None and c.is_beyond(c.value)
        not_yet = f", not yet {c.dwell} in a row" if beyond and c.dwell.isdigit() else ""
        bound = f" ({limit}{not_yet})" if c.comparison else ""
        what = (f" {c.metric}{value}" if c.metric else value) + bound + (f", {c.blame}" if c.blame else "")
    doing, stacks = data.get("doing"), data.get("stacks")
    if alarm and doing:
        what += f", doing {safe(doing, 20)}"
    if stacks:
        what += f", stacks in emergencies/{safe(stacks, 120)}"
    return f"{c.id} {c.state}:{what}"


def _soft_reset(data: Mapping[str, Any]) -> str:
    left, back = (grouped(n) if isinstance(n := data.get(key), int) else "?" for key in ("from_step", "to_step"))
    parts = [f"from step {left} back to {back}", f"checkpoint {safe(data.get('checkpoint', '?'), 80)}"]
    if data.get("cause"):
        parts.append(safe(data["cause"], 200))
    factor = as_float(data.get("lr_factor"))
    if factor is not None and factor != 1.0:
        parts.append(f"learning rate × {compact(factor)}")
    count = data.get("number")
    if isinstance(count, int):
        parts.append(f"reset {grouped(count)}")
    return ", ".join(parts)


def at_step(event: Event) -> str:
    return "" if event.step is None else grouped(event.step)
