"""Which of what happened is told in a toast, and once. No Textual, no clock of its own, no disk.

Folds events and the word of liveness as they are read; what a toast looks like and where it stands is the screen's.
The last that was told of a condition, or of the run's life, is never left to be untrue: an alarm is told at once, good
news after it has held.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.schema import Event, Unreadable
from qig_tui.events_filter import rank
from qig_tui.journal import ALARMS, condition_of, sentence
from qig_tui.text import clip, grouped, safe

STEADY_S = 60.0
"""What has come and gone within this time is flapping, and is told once."""
AT_MOST = 3
"""Toasts a look."""
_BURST, _BURST_S = 6, 10.0
"""Toasts in so many seconds; what comes beyond that is told together when there is room again."""
_STAYS_S = 3600.0
_CELLS = 300
_MAX_KNOWN = 500
_MAX_RANGES = 512
_SEVERITIES: tuple["ToastSeverity", ...] = ("information", "warning", "error")
_TIMEOUTS_S = (5.0, 8.0, 15.0)
_ASKED = (0, 76)
"""Exit codes of an end that was wanted: all steps done, stopped by a command."""
_LOST = {
    Word.SILENT: (1, "nothing is heard of the trainer"),
    Word.HUNG: (2, "the trainer stands still"),
    Word.KILLED: (3, "the trainer ended without a word"),
}
"""How bad a word is, and what it says."""
_ANSWERED = frozenset({"command"})
"""Kinds that are told to whoever asked, and to nobody else."""

ToastSeverity = Literal["information", "warning", "error"]


@dataclass(frozen=True)
class Toast:
    """Plain text: no markup, no control characters."""

    title: str
    message: str
    severity: ToastSeverity
    timeout_s: float


@dataclass(frozen=True)
class _News:
    """What is to be told, as long as it stands alone."""

    title: str
    message: str
    rank: int
    """0 to 2, as of severities."""
    condition: str = ""
    """Its id, where it is the alarm of one."""
    cause: str = ""
    timeout_s: float | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether it is told whatever was told just before."""
        return self.timeout_s is not None

    def toast(self) -> Toast:
        timeout_s = _TIMEOUTS_S[self.rank] if self.timeout_s is None else self.timeout_s
        return Toast(clip(self.title, 60), clip(self.message, _CELLS), _SEVERITIES[self.rank], timeout_s)


@dataclass
class _Told:
    """What was told of one condition; 0 to 2, as of severities."""

    now: int = 0
    """What it is."""
    told: int = 0
    worst: int = 0
    """The worst that was told since it was last ok."""
    below_t: float | None = None
    """Since when it has been less than what was told."""


class _Seen:
    """Which records were seen, as ranges of seq: these are without gaps in a file that is read whole."""

    def __init__(self) -> None:
        self._ranges: dict[str | None, list[list[int]]] = {}
        self._count = 0

    def add(self, session: str | None, seq: int) -> bool:
        """Whether it was not seen yet."""
        ranges = self._ranges.setdefault(session, [])
        at = bisect_right(ranges, seq, key=lambda r: r[0])
        before = ranges[at - 1] if at else None
        if before is not None and seq <= before[1]:
            return False
        if before is not None and seq == before[1] + 1:
            before[1] = seq
        else:
            ranges.insert(at, [seq, seq])
            self._count += 1
            self._bound()
        return True

    def _bound(self) -> None:
        while self._count > _MAX_RANGES:
            oldest = next(iter(self._ranges))
            self._ranges[oldest].pop(0)
            self._count -= 1
            if not self._ranges[oldest]:
                del self._ranges[oldest]


class Toaster:
    """What the first look finds is history and is not told; from then on each record is told at most once.

    A condition whose alarm was told is not told again until it was better for a minute, or got worse.
    """

    def __init__(self) -> None:
        self._seen = _Seen()
        self._first = True
        self._conditions: dict[str, _Told] = {}
        self._heard: dict[tuple[str, str], float] = {}
        """When an alert or another event was there last, by its kind and what it says."""
        self._ended: str | None = None
        """The session whose emergency was told: its end is no further news."""
        self._lost = 0
        """How bad the worst word since it lived was; 0: it lives, or has ended."""
        self._lost_told = False
        self._there_t: float | None = None
        """Since when it has been there again."""
        self._back_t = -math.inf
        """When it was told to be there again."""
        self._is_shaky = False
        """Whether it was lost again soon after that."""
        self._held: list[_News] = []
        self._sent: deque[float] = deque(maxlen=_BURST)

    def look(self, events: Iterable[Event | Unreadable], liveness: Liveness, *, now: float) -> list[Toast]:
        """What is to be told now.

        Args:
            events: those that came since the last look, in their order; any that were seen before are passed over.
            now: seconds of a clock that only goes forward.
        """
        news: list[_News] = []
        for event in events:
            if isinstance(event, Event) and self._seen.add(event.session, event.seq):
                news += self._told_of(event, now)
        news += self._steady(now)
        news += self._life(liveness, now)
        if self._first:
            self._first = False
            return []
        return self._within_bounds(news, now)

    def _told_of(self, event: Event, now: float) -> Iterable[_News]:
        if self._first and event.kind not in ("start", "condition"):
            # Of history only how the conditions stand is needed, and it may be long.
            return
        where = "" if event.step is None else f" at step {grouped(event.step)}"
        match event.kind:
            case "start":
                self._conditions.clear()
                self._heard.clear()
                self._held.clear()
                self._ended = None
            case "condition":
                yield from self._condition(event, where, now)
            case "emergency":
                self._ended = event.session
                # One that was asked for and went as asked is no alarm.
                title, stays_s = ("Stopped", _TIMEOUTS_S[2]) if event.severity == "info" else ("Emergency", _STAYS_S)
                yield _News(title + where, sentence(event), rank(event.severity), timeout_s=stays_s)
            case "end":
                if self._ended is None or self._ended != event.session:
                    code = event.data.get("exit_code")
                    bad = 0 if code in _ASKED else 2 if isinstance(code, int) else 1
                    yield _News(f"The run ended{where}", sentence(event), bad, timeout_s=_TIMEOUTS_S[2])
            case _ if event.kind not in _ANSWERED and event.severity != "info":
                if event.data.get("raised") is not False and self._is_new(event, now):
                    kind = "" if event.kind == "alert" else f": {safe(event.kind, 24).replace('_', ' ')}"
                    severity = safe(event.severity, 16).capitalize()
                    yield _News(f"{severity}{kind}{where}", sentence(event), rank(event.severity))

    def _is_new(self, event: Event, now: float) -> bool:
        """Whether what it says has not been said within the last minute."""
        words = sentence(event)
        key = (safe(event.kind, 24), safe(event.data["id"], 60) if event.data.get("id") else words)
        before = self._heard.pop(key, None)
        self._heard[key] = now
        while len(self._heard) > _MAX_KNOWN:
            del self._heard[next(iter(self._heard))]
        return before is None or now - before >= STEADY_S

    def _condition(self, event: Event, where: str, now: float) -> Iterable[_News]:
        condition = condition_of(event.data, event.step)
        known = self._conditions.pop(condition.id, None) or _Told()
        self._conditions[condition.id] = known
        while len(self._conditions) > _MAX_KNOWN:
            del self._conditions[next(iter(self._conditions))]
        self._settle(known, now)
        known.now = rank(condition.state) if condition.state in ALARMS else 0
        if known.now < known.told:
            known.below_t = now if known.below_t is None else known.below_t
            return
        known.below_t = None
        if known.now > known.told:
            known.told = known.now
            known.worst = max(known.worst, known.told)
            if self._first:
                return
            cause = condition.cause[0] if condition.cause else ""
            yield _News(condition.state.capitalize() + where, sentence(event), known.now, condition.id, cause)

    def _steady(self, now: float) -> Iterable[_News]:
        """What has been better for a minute."""
        for name, known in self._conditions.items():
            if self._settle(known, now):
                yield _News("Ok again", f"{name} is ok again after an alarm that was critical", 0)

    @staticmethod
    def _settle(known: _Told, now: float) -> bool:
        """Let go of what was told where it has been better for a minute; whether it is ok after a critical alarm."""
        if known.below_t is None or now - known.below_t < STEADY_S:
            return False
        known.below_t, known.told = None, known.now
        if known.now:
            return False
        was, known.worst = known.worst, 0
        return was == 2

    def _life(self, liveness: Liveness, now: float) -> Iterable[_News]:
        word = liveness.word
        why = f": {safe(liveness.detail, 80)}" if liveness.detail else ""
        if word in _LOST:
            self._there_t = None
            lost, words = _LOST[word]
            if not self._lost:
                self._is_shaky = now - self._back_t < STEADY_S
            if lost > self._lost:
                self._lost, self._lost_told = lost, not self._first
                yield _News(f"{liveness.glyph} {word}", words + why, min(lost, 2), timeout_s=_TIMEOUTS_S[2])
        elif word == Word.EXITED or not self._lost_told:
            self._lost, self._lost_told = 0, False
        elif word != Word.SLOW:
            # The first beat after a silence may still tell of it: a step will say more.
            self._there_t = now if self._there_t is None else self._there_t
            # The first time at once; where it comes and goes, when it has stayed.
            if not self._is_shaky or now - self._there_t >= STEADY_S:
                self._lost, self._lost_told, self._back_t = 0, False, now
                yield _News(f"{liveness.glyph} {word} again", "the trainer is back" + why, 0)

    def _within_bounds(self, news: Sequence[_News], now: float) -> list[Toast]:
        """As many as may be told now, the rest together; what must wait is held."""
        waiting: list[_News] = []
        superseded = set()
        for one in reversed([*self._held, *news]):
            # Of one condition only the worst: it was told that it got worse.
            if not one.condition or one.condition not in superseded:
                waiting.insert(0, one)
            superseded.add(one.condition)
        self._held = []
        if not waiting:
            return []
        urgent = sum(one.is_urgent for one in waiting)
        room = _BURST - sum(now - t < _BURST_S for t in self._sent)
        room = min(max(room, min(urgent + 1, len(waiting)) if urgent else 0), AT_MOST)
        if room < 1:
            self._held = waiting[-_MAX_KNOWN:]
            return []
        told = _fitted(waiting, room)
        self._sent.extend([now] * len(told))
        return [one.toast() for one in told]


def _fitted(news: list[_News], room: int) -> list[_News]:
    """No more than `room`, in the order they came: many alarms as one, then the least as one."""
    if len(news) <= room:
        return news
    alarms = [one for one in news if one.condition]
    if len(alarms) > 1:
        first = news.index(alarms[0])
        others = [one for one in news if not one.condition]
        news = [*others[:first], _storm(alarms), *others[first:]]
    if len(news) <= room:
        return news
    worst = sorted(news, key=lambda one: (one.is_urgent, one.rank), reverse=True)
    return [*worst[: room - 1], _rest(worst[room - 1 :])]


def _storm(alarms: Sequence[_News]) -> _News:
    """Many alarms at once: how many, which, and what moved first."""
    critical = sum(one.rank == 2 for one in alarms)
    warnings = len(alarms) - critical
    counts = [f"{warnings} warning{'s' * (warnings > 1)}"] * bool(warnings) + [f"{critical} critical"] * bool(critical)
    worst = sorted(alarms, key=lambda one: -one.rank)
    names = ", ".join(clip(one.condition, 24) for one in worst[:6])
    more = f" and {len(alarms) - 6} more" if len(alarms) > 6 else ""
    cause = next((f"; {one.cause} moved first" for one in alarms if one.cause), "")
    words = f"{', '.join(counts)}: {names}{more}{cause}"
    return _News(f"{grouped(len(alarms))} alarms at once", words, worst[0].rank, timeout_s=_TIMEOUTS_S[2])


def _rest(news: Sequence[_News]) -> _News:
    """What there is no room for, as one: the worst of it in its words."""
    worst, others = news[0], len(news) - 1
    more = f"\nand {grouped(others)} more: see the events" if others else ""
    return replace(worst, message=clip(worst.message, _CELLS - 60) + more)
