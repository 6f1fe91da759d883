"""What happened, folded from all events in bounded memory: the timeline and the marks of a chart. No disk."""

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from qig_core.rundir.schema import Event, Unreadable
from qig_tui.journal import ALARMS, condition_of
from qig_tui.programs.words import repeated
from qig_tui.series import BEYOND
from qig_tui.text import safe

_NEWEST = 100
_FIRST = 20
_SEVERE = 150
_MARKS = 1 << 16
_KINDS = 100
_MAX_CONDITIONS = 1024
_GOING_BACK = ("restored", "soft_reset")


@dataclass(frozen=True)
class Told:
    """One line of the timeline, and its place in the file."""

    place: int
    event: Event


class Story:
    """Events folded in their order."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By kind and severity, of the lines that are news."""
        self.marks: dict[str, list[int]] = {"critical": [], "warning": [], "checkpoint": [], "restored": []}
        """Steps at which something happened, for the charts."""
        self._said: dict[str, str] = {}
        self._repeated: dict[str, Hashable] = {}
        self._place = 0
        self._first: list[Told] = []
        self._newest: deque[Told] = deque(maxlen=_NEWEST)
        self._critical: deque[Told] = deque(maxlen=_SEVERE)
        self._turning: deque[Told] = deque(maxlen=_SEVERE)
        """Warnings, and whatever changed the way of the run."""

    def add(self, records: Iterable[Event | Unreadable]) -> None:
        for event in records:
            if isinstance(event, Unreadable) or not self._is_news(event):
                continue
            self._keep(event)
            self._mark(event)

    @property
    def total(self) -> int:
        """Lines of a timeline in which nothing is left out."""
        return self._place

    def timeline(self) -> list[Told]:
        """What is kept of it, in its order: the first, the newest, and the worst between them."""
        kept = {
            told.place: told for part in (self._first, self._newest, self._critical, self._turning) for told in part
        }
        return [kept[place] for place in sorted(kept)]

    def _keep(self, event: Event) -> None:
        told = Told(self._place, event)
        self._place += 1
        kind = safe(event.kind, 40)
        key = (kind if len(self.counts) < _KINDS else "other kinds", safe(event.severity, 20))
        self.counts[key] += 1
        if len(self._first) < _FIRST:
            self._first.append(told)
        self._newest.append(told)
        if event.severity == "critical":
            self._critical.append(told)
        elif event.severity == "warning" or event.kind in (
            "start",
            "end",
            "command",
            "emergency",
            "phase",
            *_GOING_BACK,
        ):
            self._turning.append(told)

    def _is_news(self, event: Event) -> bool:
        """Not what says again what it said: a condition after a start, or whose limit moved; guards and reports."""
        if event.kind != "condition":
            said = repeated(event)
            before = self._repeated.pop(event.kind, None)
            if said is not None:
                self._repeated[event.kind] = said
            return said is None or said != before or event.severity in ALARMS
        condition = condition_of(event.data, event.step)
        name, state = condition.id, condition.state
        if name not in self._said and len(self._said) >= _MAX_CONDITIONS:
            return True
        before = self._said.get(name, "unarmed")
        self._said[name] = state
        return state != before

    def _mark(self, event: Event) -> None:
        step = event.step
        if step is None or not -BEYOND < step < BEYOND:
            return
        kind = event.severity if event.severity in ALARMS else "restored" if event.kind == "restored" else event.kind
        marks = self.marks.get(kind)
        if marks is not None and len(marks) < _MARKS and (event.kind != "checkpoint" or not event.data.get("error")):
            marks.append(step)
