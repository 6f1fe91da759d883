"""Alarms, folded from events: each from when it was raised until it was cleared. No Textual, no disk, no clock."""

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qig_core.rundir.schema import Event
from qig_tui.alarms.words import blame_text
from qig_tui.history import History
from qig_tui.journal import ALARMS, STATES, Condition, condition_of, sentence
from qig_tui.text import safe

LEVELS = ("advice", "warning", "critical")
"""By rising severity; the first names what is no alarm yet."""
_MOST_ALARMS = 2000
_MOST_TURNS = 500
_MOST_IDS = 200
_MOST_REASONS = 200
_PARSED = 20_000
_NOT_HERE = frozenset({"command", "emergency"})
"""Events that may be severe and stand elsewhere: among the commands and the emergencies."""
_FOLDED = frozenset({"condition", "alert", "start", "unmeasured"})


@dataclass(frozen=True)
class Turn:
    """A condition that became another state than it had."""

    event: Event
    condition: Condition

    @property
    def step(self) -> int | None:
        return self.event.step


@dataclass(eq=False)
class Alarm:
    """One alarm from raised to cleared; what has no end of its own is over as it comes."""

    id: str
    """Of the condition; of anything else the kind of the event."""
    count: int
    """How often it was raised up to and with this time."""
    raised: Event
    worst: Event
    """The first event of its worst state."""
    level: str
    turns: list[Turn] = field(default_factory=list)
    """Of a condition: the alarms it went through, at most a few."""
    text: str = ""
    """Of anything but a condition: what was said."""
    passes: bool = False
    """Whether it has an end."""
    cleared: Event | None = None
    extreme: float | None = None
    """The value that went farthest beyond the limit, of those that events told."""

    @property
    def condition(self) -> Condition | None:
        """As it was judged when it was worst."""
        return max(self.turns, key=lambda turn: STATES.index(turn.condition.state)).condition if self.turns else None

    @property
    def blame(self) -> str:
        """Which metrics moved first, in words."""
        return "" if self.condition is None else blame_text(self.condition)

    @property
    def key(self) -> tuple[int, float]:
        return self.raised.seq, self.raised.t

    def is_open(self, standing: Collection[str]) -> bool:
        """Whether it stands: nothing cleared it, and its condition is among those that are alarmed."""
        return self.passes and self.cleared is None and (not self.turns or self.id in standing)

    @property
    def steps(self) -> int | None:
        """How many it lasted; None where it stands, or where the run went back meanwhile."""
        if self.cleared is None or self.cleared.step is None or self.raised.step is None:
            return None
        steps = self.cleared.step - self.raised.step
        return steps if steps >= 0 else None

    @property
    def seconds(self) -> float | None:
        """How long it lasted on the writer's clock; None where it stands, or where another process cleared it."""
        if self.cleared is None or self.cleared.session != self.raised.session:
            return None
        seconds = self.cleared.t - self.raised.t
        return seconds if math.isfinite(seconds) and seconds >= 0 else None


class AlarmBook:
    """Every alarm of the events that it follows, every turn of the conditions, and why a metric is not measured."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[int, float], Condition] = {}
        """What was read of condition events, for whoever goes back and forth in time."""
        self._mark: tuple[int, float] | None = None
        self._older: Sequence[Event] = ()
        self._begin()

    def _begin(self) -> None:
        self.alarms: deque[Alarm] = deque(maxlen=_MOST_ALARMS)
        """In the order in which they were raised."""
        self.turns: dict[str, deque[Turn]] = {}
        self.reasons: dict[str, str] = {}
        """By metric, why it has no value."""
        self.count = 0
        """How many alarms there were; more than are kept, perhaps."""
        self._counts: dict[str, int] = {}
        self._open: dict[str, Alarm] = {}
        self._mark = None

    def follow(self, events: Sequence[Event], older: Sequence[Event] = ()) -> bool:
        """Fold what came since the last call, or everything anew where these are events of another time.

        Args:
            events: the newest ones, the oldest first.
            older: those before them, as far as they lie in the file and not in `events`.

        Returns:
            Whether anything is different.
        """
        mark = (events[-1].seq, events[-1].t) if events else None
        if mark == self._mark and older is self._older:
            return False
        goes_on = older is self._older and self._mark is not None
        fresh: Sequence[Event] | None = _after(events, self._mark) if goes_on else None
        if fresh is None:
            self._begin()
            first = events[0].seq if events else None
            self._fold(event for event in older if first is None or event.seq < first)
            fresh = events
        self._fold(fresh)
        self._mark, self._older = mark, older
        return True

    def _fold(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "condition":
                self._turn(event)
            elif event.kind == "alert" and isinstance(event.data.get("raised"), bool) and event.data.get("id"):
                self._advise(event)
            elif event.kind == "unmeasured":
                self._explain(event.data.get("reasons"))
            elif event.kind == "start":
                self.reasons = {}
            elif event.severity in ALARMS and event.kind not in _NOT_HERE:
                name = safe(event.kind, 40)
                self._raise(Alarm(name, self._counted(name), event, event, event.severity, text=sentence(event)))

    def _condition(self, event: Event) -> Condition:
        key = (event.seq, event.t)
        known = self._parsed.get(key)
        if known is None:
            if len(self._parsed) >= _PARSED:
                self._parsed.clear()
            known = self._parsed[key] = condition_of(event.data, event.step)
        return known

    def _turn(self, event: Event) -> None:
        condition = self._condition(event)
        name = condition.id
        turns = self.turns.get(name)
        if turns is None:
            if len(self.turns) >= _MOST_IDS:
                return
            turns = self.turns[name] = deque(maxlen=_MOST_TURNS)
        alarm = self._open.get(name)
        if alarm is not None and condition.state in ALARMS:
            alarm.extreme = farther(condition.comparison, alarm.extreme, condition.value)
        if condition.state == (turns[-1].condition.state if turns else "unarmed"):
            # It is told again after a start, and where its limit moves.
            return
        turn = Turn(event, condition)
        turns.append(turn)
        if condition.state not in ALARMS:
            if alarm is not None:
                alarm.cleared = event
                del self._open[name]
        elif alarm is None:
            alarm = self._open[name] = Alarm(
                name, self._counted(name), event, event, condition.state, [turn], passes=True, extreme=condition.value
            )
            self._raise(alarm)
        else:
            if STATES.index(condition.state) > STATES.index(alarm.level):
                alarm.level, alarm.worst = condition.state, event
            if len(alarm.turns) < 8:
                alarm.turns.append(turn)

    def _advise(self, event: Event) -> None:
        """Something to consider, which is no alarm: it has the id of its condition."""
        name = safe(event.data["id"], 60)
        key = f"advice {name}"
        alarm = self._open.get(key)
        if event.data["raised"] is False:
            if alarm is not None:
                alarm.cleared = event
                del self._open[key]
        elif alarm is None and len(self._open) < 2 * _MOST_IDS:
            said = safe(event.data.get("text") or "", 200).removeprefix(f"{name}: ")
            alarm = Alarm(name, self._counted(key), event, event, LEVELS[0], text=said, passes=True)
            self._open[key] = alarm
            self._raise(alarm)

    def _explain(self, reasons: object) -> None:
        if isinstance(reasons, Mapping):
            told = list(reasons.items())[:_MOST_REASONS]
            self.reasons = {safe(name, 60): safe(reason, 200) for name, reason in told}

    def _counted(self, name: str) -> int:
        if name in self._counts or len(self._counts) < 2 * _MOST_IDS:
            self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts.get(name, 1)

    def _raise(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        self.count += 1

    def times(self, alarm: Alarm) -> int:
        """How often it was raised in all so far."""
        return self._counts.get(alarm.id if alarm.level != LEVELS[0] else f"advice {alarm.id}", 1)

    def since(self, condition: Condition) -> Turn | None:
        """The turn with which it became what it is; None where that lies before what is known."""
        turns = self.turns.get(condition.id)
        return turns[-1] if turns and turns[-1].condition.state == condition.state else None


def relevant(event: Event) -> bool:
    """Whether a book makes anything of it."""
    return event.kind in _FOLDED or (event.severity in ALARMS and event.kind not in _NOT_HERE)


def _after(events: Sequence[Event], mark: tuple[int, float] | None) -> list[Event] | None:
    """The events after a certain one; None where that is not among them."""
    fresh: list[Event] = []
    for event in reversed(events):
        if (event.seq, event.t) == mark:
            return fresh[::-1]
        fresh.append(event)
    return None


def farther(comparison: str, one: float | None, other: float | None) -> float | None:
    """Which of two values is farther beyond a limit of this kind; None where that cannot be said."""
    if comparison not in ("≤", "≥"):
        return None
    known = [value for value in (one, other) if value is not None and not math.isnan(value)]
    if not known:
        return None
    return max(known) if comparison == "≤" else min(known)


def peak(alarm: Alarm, history: History) -> float | None:
    """The value farthest beyond the limit while the alarm stood: of what is remembered of its metric and its events.

    None where no number is compared, or where it is compared by a statistic and its events told none.
    """
    condition = alarm.condition
    if condition is None or condition.comparison not in ("≤", "≥"):
        return None
    if condition.statistic or alarm.raised.step is None:
        return alarm.extreme
    series, times = history.series(condition.metric), history.times
    if not len(series) or not len(times):
        return alarm.extreme
    # A run that went back passes the same steps again: those of its own branch are those that came at its time.
    later = np.flatnonzero(times.value >= alarm.raised.t)
    segment = int(times.segment[later[0]]) if len(later) else int(times.segment[-1])
    mask = (series.segment == segment) & (series.step >= alarm.raised.step) & np.isfinite(series.value)
    cleared = alarm.cleared
    if cleared is not None and cleared.step is not None and cleared.step >= alarm.raised.step:
        mask &= series.step <= cleared.step
    found = series.value[mask]
    if not len(found):
        return alarm.extreme
    return farther(
        condition.comparison, alarm.extreme, float(found.max() if condition.comparison == "≤" else found.min())
    )
