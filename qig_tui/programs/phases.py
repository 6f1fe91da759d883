"""The phases of a run, each by its latest event: where the run is in them, what its guards say. No Textual, no disk.

Nothing is judged here: states are those that the events tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qig_core.rundir.schema import Event
from qig_tui.margin import LOWER, UPPER, share_left
from qig_tui.programs.fields import Data, Numbers, rows, step, table, text
from qig_tui.text import ABSENT, compact, grouped, number, unit_text

GUARD_STATES = ("failed", "open", "unknown", "ok")
"""The worst first."""
GUARD_GLYPHS = {"ok": "●", "open": "◐", "failed": "✖", "unknown": "○"}
PHASE_GLYPHS = {"begun": "▸", "judged": "▸", "passed": "✓", "failed": "✖", "to come": "○"}
_KNOWN = ("dormant", "awakening", "demonstration")
"""Of a charlie run: what a phase is called of which nothing has been told."""
_PLANNED = {
    "dormant": ("dormant_steps",),
    "awakening": ("awakening_steps", "settling_steps"),
    "demonstration": ("demonstration_steps",),
}
"""Keys of the run's configuration that say how many steps a phase takes at least."""
_MOST_GUARDS = 256
_MOST_PHASES = 32
_SHOWN = {"<": "<", "<=": "≤", ">": ">", ">=": "≥"}


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One thing that must hold before a phase may end."""

    id: str
    label: str
    comparison: str
    limit: float | None
    unit: str
    value: float | None
    state: str
    """One of `GUARD_STATES`."""
    reason: str
    """Why there is no value."""

    @property
    def glyph(self) -> str:
        return GUARD_GLYPHS[self.state]

    @property
    def bound(self) -> str:
        """≥ 2.3 nats."""
        limit = ABSENT if self.limit is None else compact(self.limit)
        return f"{self.comparison} {limit}" + (f" {self.unit}" if self.unit else "")

    @property
    def margin(self) -> float | None:
        """As of a safety condition: what is left of the way to the limit; 0 where it does not hold."""
        if self.comparison in UPPER or self.comparison in LOWER:
            return share_left(self.value, self.limit, is_upper=self.comparison in UPPER)
        return None

    @property
    def why(self) -> str:
        """Of one without a value, why it has none."""
        return (self.reason or "no reason is recorded") if self.value is None else ""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase as its latest event says; or as it is planned, where there is none."""

    name: str
    index: int
    """From 1."""
    of: int
    state: str
    """begun, judged, passed, failed; or "to come"."""
    guards: tuple[Guard, ...] = ()
    more_guards: int = 0
    """Beyond those that are kept."""
    since_step: int | None = None
    earliest_step: int | None = None
    latest_step: int | None = None
    event: Event | None = None
    """That said so."""
    reason: str = ""
    planned: str = ""
    """What the configuration says of its length."""

    @property
    def step(self) -> int | None:
        """At which it was told of last."""
        return None if self.event is None else self.event.step

    @property
    def glyph(self) -> str:
        return PHASE_GLYPHS[self.state]

    @property
    def is_current(self) -> bool:
        return self.state in ("begun", "judged")

    @property
    def counts(self) -> str:
        """3 of 4 guards hold; 1 open."""
        if not self.guards:
            return "no guard judged yet"
        count = {state: sum(guard.state == state for guard in self.guards) for state in GUARD_STATES}
        others = [f"{count[state]} {state}" for state in GUARD_STATES[:-1] if count[state]]
        total = len(self.guards) + self.more_guards
        held = "all" if count["ok"] == total else f"{count['ok']} of {grouped(total)}"
        return ", ".join([f"{held} guards hold" if total > 1 else f"{held.replace('all', '1')} guard holds", *others])

    @property
    def told(self) -> str:
        """Its outcome, or where it stands, in a few words."""
        at = "" if self.step is None else f" at {grouped(self.step)}"
        match self.state:
            case "passed":
                return f"passed{at}: {self.reason or self.counts}"
            case "failed":
                return f"failed{at}: {self.reason or self.counts}"
            case "to come":
                return self.planned or "to come"
            case _:
                return f"{self.counts}{at and ' (judged' + at + ')'}" if self.state == "judged" else "begun" + at

    @property
    def span(self) -> str:
        """When it may end: may end from 300, by 489."""
        first = "" if self.earliest_step is None else f"from {grouped(self.earliest_step)}"
        if self.latest_step is None or self.latest_step == self.earliest_step:
            return f"ends {first.replace('from', 'at')}" if first else ""
        last = f"by {grouped(self.latest_step)}"
        return f"may end {first}, must {last}" if first else f"must end {last}"

    def share(self, at: int | None) -> float | None:
        """How much of the way to where it must have ended lies behind; None where that is not known."""
        if at is None or self.since_step is None or self.latest_step is None or self.latest_step <= self.since_step:
            return None
        return min(max((at - self.since_step) / (self.latest_step - self.since_step), 0.0), 1.0)


def phase_of(event: Event) -> Phase | None:
    """What a `phase` event says; None for one of before 1.4, which names its guards and judges none."""
    data = event.data
    state = data.get("state")
    found = rows(data.get("guards"), _MOST_GUARDS + 1)
    if not isinstance(state, str) or state not in PHASE_GLYPHS or state == "to come":
        return None
    index, of = step(data.get("index")), step(data.get("of"))
    index = 1 if index is None or not 1 <= index <= _MOST_PHASES else index
    numbers = Numbers(data)
    guards = data.get("guards")
    return Phase(
        name=text(data, "name", 40) or f"phase {index}",
        index=index,
        of=index if of is None or not index <= of <= _MOST_PHASES else of,
        state=state,
        guards=tuple(_guard(table(each), numbers, i) for i, each in enumerate(found[:_MOST_GUARDS])),
        more_guards=max(len(guards) - _MOST_GUARDS, 0) if isinstance(guards, list) else 0,
        since_step=step(data.get("since_step")),
        earliest_step=step(data.get("earliest_step")),
        latest_step=step(data.get("latest_step")),
        event=event,
        reason=text(data, "reason", 400),
    )


def _guard(data: Data, numbers: Numbers, place: int) -> Guard:
    comparison = text(data, "comparison", 4)
    state = data.get("state")
    name = text(data, "id", 40)
    return Guard(
        id=name or "?",
        label=text(data, "label", 80) or name or "(no name)",
        comparison=_SHOWN.get(comparison, comparison or "?"),
        limit=numbers.at(data.get("limit"), "guards", place, "limit"),
        unit=unit_text(text(data, "unit", 16)),
        value=numbers.at(data.get("value"), "guards", place, "value"),
        state=state if isinstance(state, str) and state in GUARD_GLYPHS else "unknown",
        reason=text(data, "reason", 200),
    )


class PhaseBook:
    """The latest event of each phase, folded in the order of the file."""

    def __init__(self, phases: Iterable[Phase] = ()) -> None:
        self._phases: dict[int, Phase] = {phase.index: phase for phase in phases}

    def __bool__(self) -> bool:
        return bool(self._phases)

    def copy(self) -> "PhaseBook":
        return PhaseBook(self._phases.values())

    def add(self, event: Event) -> None:
        """One of an earlier phase: the run went back, and what came after is to come again."""
        phase = phase_of(event)
        if phase is None:
            return
        for index in [index for index in self._phases if index > phase.index]:
            del self._phases[index]
        self._phases[phase.index] = phase

    @property
    def latest(self) -> Phase | None:
        """The one that was told of last."""
        return self._phases[max(self._phases)] if self._phases else None

    def all(self, config: Mapping[str, object]) -> Sequence[Phase]:
        """Those that were told of and those to come, in their order; none where none was told of."""
        latest = self.latest
        if latest is None:
            return []
        settings = table(config.get("charlie"))
        made = []
        for index in range(1, latest.of + 1):
            known = self._phases.get(index)
            # Only where what is known of them says that these are their names.
            names = _KNOWN if latest.of == len(_KNOWN) and latest.name == _KNOWN[latest.index - 1] else ()
            name = names[index - 1] if names else f"phase {index}"
            to_come = Phase(name=name, index=index, of=latest.of, state="to come", planned=_planned(name, settings))
            if known is None and index < latest.index:
                to_come = Phase(
                    name=name, index=index, of=latest.of, state="passed", reason="not told of in its events"
                )
            made.append(known or to_come)
        return made


def _planned(name: str, settings: Data) -> str:
    steps = [step(settings.get(key)) for key in _PLANNED.get(name, ())]
    known = [grouped(each) for each in steps if each is not None]
    return f"to come: at least {' + '.join(known)} steps" if known and len(known) == len(steps) else "to come"


def current(phases: Sequence[Phase]) -> Phase | None:
    """The phase that was told of last."""
    return next((phase for phase in reversed(phases) if phase.event is not None), None)


def in_line(phase: Phase) -> str:
    """A phase in one line of plain text: phase 2 of 3, awakening since 301: 3 of 4 guards hold, 1 open; ..."""
    since = "" if phase.since_step is None else f" since {grouped(phase.since_step)}"
    span = f"; {phase.span}" if phase.is_current and phase.span else ""
    return f"phase {phase.index} of {phase.of}, {phase.name}{since}: {phase.told}{span}"


def guard_in_line(guard: Guard) -> str:
    """A guard in one line of plain text."""
    value = number(guard.value) if guard.value is not None else f"{ABSENT} ({guard.why})"
    return f"{guard.glyph} {guard.state:<8} {guard.label} {value}, must be {guard.bound}"
