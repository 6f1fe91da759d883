"""Which events a list shows, and which of them stand together in one row. No Textual, no clock, no disk.

Keeps rows for a list that only grows; not a store of events: those are the journal's.
"""

import operator
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from qig_core.rundir.schema import SEVERITIES, Event
from qig_tui.journal import sentence
from qig_tui.text import safe

LEVELS = ("all", "warnings", "critical")
"""What is shown by severity, in the order of the key that goes through them: all, warnings and worse, the worst."""
_FIELDS = ("kind", "severity", "step")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ":": operator.eq,
}
_TERM = re.compile(r'(-?)(?:([^\W\d]\w*)(:|>=|<=|>|<|=))?(?:"([^"]*)"?|(\S*))')
_ROUTINE = {"checkpoint": "reason", "pruned": "how", "ocean": "", "generated": ""}
"""Kinds that come again and again when all is well, and the key of their data that says why they came, if any does."""
_ASKED_FOR = frozenset({"command", "emergency", "end"})
"""Reasons that are news even where the kind is routine."""
_LOOKED_BACK = 8
"""How many rows of one streak of routine may stand side by side."""

Test = Callable[[Event, str], bool]
"""Whether an event, and its kind and sentence in small letters, are what is looked for."""


class NotUnderstood(ValueError):
    """A filter that says nothing; the message is a sentence for whoever types it."""


def rank(severity: str) -> int:
    """0, 1, 2 by rising severity; one that nobody knows is not taken for harmless."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1


@dataclass(frozen=True)
class EventFilter:
    """Terms that must all hold. Empty: every event."""

    text: str = ""
    tests: tuple[Test, ...] = ()
    asks_for_some: bool = False
    """Whether it names what is looked for by word or kind: then each one is wanted for itself."""

    def matches(self, event: Event) -> bool:
        if not self.tests:
            return True
        words = f"{safe(event.kind, 60)} {sentence(event)}".casefold()
        return all(test(event, words) for test in self.tests)


def parse(text: str) -> EventFilter:
    """Words that must all be found, `kind:checkpoint`, `severity:warning` (or worse), `step>1000`; `-` excludes.

    Quotes hold a word with spaces together, and make a word of what would be a term. A term half typed that could
    still become one is left out.

    Raises:
        NotUnderstood: a field that there is not, a severity or a step that is none.
    """
    tests: list[Test] = []
    some = False
    for found in _TERM.finditer(text):
        minus, name, sign, quoted, bare = found.groups()
        if not found.group() or found.group() == "-":
            continue
        value = quoted if quoted is not None else bare
        known = name is not None and name.casefold() in _FIELDS
        if name and not known:
            _refuse_misspelt(name, sign)
            value = f"{name}{sign}{value}"
        test = _term(name.casefold(), sign, value) if known else _word(value)
        if test is None:
            continue
        some = some or (not minus and not (known and name.casefold() != "kind"))
        tests.append(_not(test) if minus else test)
    return EventFilter(" ".join(text.split()), tuple(tests), some)


def _refuse_misspelt(name: str, sign: str) -> None:
    begun = [known for known in _FIELDS if len(name) > 2 and known.startswith(name.casefold())]
    near = begun or get_close_matches(name.casefold(), _FIELDS, 1, 0.7)
    if near:
        raise NotUnderstood(f"no field {safe(name, 12)}{sign} is known; {near[0]}{sign} is")


def _word(value: str) -> Test | None:
    wanted = value.casefold()
    return (lambda event, words: wanted in words) if wanted else None


def _term(name: str, sign: str, value: str) -> Test | None:
    if name == "step":
        return _step(sign, value)
    if sign != ":":
        raise NotUnderstood(f"only steps are compared, as in step{sign}1000")
    wanted = value.casefold()
    if not wanted:
        return None
    if name == "kind":
        return lambda event, words: event.kind.casefold().startswith(wanted)
    at_least = next((rank(s) for s in SEVERITIES if s.startswith(wanted)), None)
    if at_least is None:
        raise NotUnderstood(f"{safe(value, 12)} is none of {', '.join(SEVERITIES)}")
    return lambda event, words: rank(event.severity) >= at_least


def _step(sign: str, value: str) -> Test | None:
    if not value:
        return None
    digits = value.replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise NotUnderstood(f"{safe(value, 12)} is no step, as in step{sign}1000")
    compare, wanted = _COMPARE[sign], int(digits)
    return lambda event, words: event.step is not None and compare(event.step, wanted)


def _not(test: Test) -> Test:
    return lambda event, words: not test(event, words)


@dataclass(eq=False)
class Row:
    """One event, or a streak of the same routine. Each is itself: two that look alike are two."""

    event: Event
    """The newest."""
    number: int
    """Which one it was, counted from the first that was taken."""
    reason: str | None = None
    """Why a routine event came; None where another one never joins it."""
    count: int = 1
    first_step: int | None = None
    """The lowest and, below, the highest step of a streak."""
    last_step: int | None = None

    def take(self, event: Event, number: int) -> None:
        self.event, self.number = event, number
        self.count += 1
        if event.step is not None:
            self.first_step = min(event.step, self.first_step if self.first_step is not None else event.step)
            self.last_step = max(event.step, self.last_step if self.last_step is not None else event.step)


def routine_reason(event: Event) -> str | None:
    """Why a routine event came; None for one that stands for itself."""
    if event.severity != "info" or event.kind not in _ROUTINE or event.data.get("error"):
        return None
    if event.data.get("sound") is False:
        return None
    reason = safe(event.data.get(_ROUTINE[event.kind]) or "", 40) if _ROUTINE[event.kind] else ""
    return None if reason in _ASKED_FOR else reason


@dataclass
class Listing:
    """The rows of a list that grows at its end and forgets at its beginning, as a bounded deque does.

    `follow` costs what is new, `choose` one pass; nothing else looks at more than it returns.
    """

    level: str = LEVELS[0]
    wanted: EventFilter = field(default_factory=EventFilter)
    rows: list[Row] = field(default_factory=list)
    """The newest last."""
    total: int = 0
    """How many events there are, shown or not."""
    _taken: int = 0
    _newest: Event | None = None
    _matched: deque[int] = field(default_factory=deque)

    @property
    def shown(self) -> int:
        """How many events the rows stand for, of those that are still there."""
        return len(self._matched)

    @property
    def is_chosen(self) -> bool:
        """Whether something is left out."""
        return self.level != LEVELS[0] or bool(self.wanted.tests)

    def knows(self, events: Sequence[Event]) -> bool:
        """Whether there is nothing to follow."""
        return (events[-1] if events else None) is self._newest and len(events) == self.total

    def follow(self, events: Sequence[Event]) -> list[int]:
        """Take in what is new; where none of what was taken is left, begin again.

        Returns:
            for each row that was put on top, past how many rows it went: the places of those are one lower now.
        """
        new = self._unseen(events)
        if new is None:
            self._begin(events)
            return []
        passed = [rows for event in new if (rows := self._take(event)) is not None]
        self.total = len(events)
        self._forget()
        return passed

    def choose(self, events: Sequence[Event], *, level: str | None = None, wanted: EventFilter | None = None) -> None:
        """Show others of the events that were taken so far; what came since waits for `follow`."""
        self.level = self.level if level is None else level
        self.wanted = self.wanted if wanted is None else wanted
        newer = self._unseen(events) or []
        self._begin([*events][: len(events) - len(newer)])

    def _unseen(self, events: Sequence[Event]) -> list[Event] | None:
        """Those after the newest that is known; None where that is not among them."""
        if self._newest is None:
            return [*events]
        new: list[Event] = []
        for event in reversed(events):
            if event is self._newest:
                return new[::-1]
            new.append(event)
        return None

    def _begin(self, events: Sequence[Event]) -> None:
        self.rows, self._taken, self._newest, self._matched = [], 0, None, deque()
        for event in events:
            self._take(event)
        self.total = len(events)

    def _take(self, event: Event) -> int | None:
        """Past how many rows it went; None where it is not shown."""
        self._newest = event
        number, self._taken = self._taken, self._taken + 1
        if rank(event.severity) < LEVELS.index(self.level) or not self.wanted.matches(event):
            return None
        self._matched.append(number)
        reason = None if self.wanted.asks_for_some else routine_reason(event)
        if reason is not None:
            for back, row in enumerate(self.rows[: -_LOOKED_BACK - 1 : -1]):
                if row.reason is None:
                    break
                if (row.event.kind, row.reason) == (event.kind, reason):
                    row.take(event, number)
                    self.rows.append(self.rows.pop(-1 - back))
                    return back
        self.rows.append(Row(event, number, reason, 1, event.step, event.step))
        return len(self.rows)

    def _forget(self) -> None:
        """Those that are no longer in the list; a streak stays as it was counted for as long as its newest is."""
        oldest = self._taken - self.total
        while self._matched and self._matched[0] < oldest:
            self._matched.popleft()
        gone = bisect_left(self.rows, oldest, key=lambda row: row.number)
        if gone:
            del self.rows[:gone]
