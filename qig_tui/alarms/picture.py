"""What the safety screen says of a run: its picture beside what lies around it. No Textual, no clock, no disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from qig_core.rundir.schema import Event
from qig_tui.alarms.episodes import Alarm, AlarmBook, peak
from qig_tui.alarms.stops import Asking, StopView, askings, stop_view
from qig_tui.alarms.words import blame_text, why_unarmed
from qig_tui.journal import ALARMS
from qig_tui.picture import ConditionRow, RunPicture
from qig_tui.sources.emergencies import Emergency, together
from qig_tui.sources.surroundings import Beside
from qig_tui.text import number

_MOST_PEAKS = 4000


@dataclass(frozen=True)
class Judged:
    """A condition beside when it became what it is, and why."""

    row: ConditionRow
    since_t: float | None
    """None: not known."""
    why: str
    """Of an alarm what it is blamed on; of an unarmed condition what it waits for."""

    @property
    def since_step(self) -> int | None:
        return self.row.condition.since_step


@dataclass(frozen=True)
class Told:
    """What there is to say of an alarm beside what its events say."""

    peak: float | None
    stands: bool
    lasted_s: float | None
    """So far, where it stands; None: not known."""
    of: int
    """How often it was raised in all."""
    over: str
    """What is said of one that nobody cleared, and that does not stand any more; empty where it stands."""


@dataclass(frozen=True)
class Stops:
    """Emergencies up to the moment that is shown."""

    found: Sequence[Emergency]
    total: int
    later: int
    problem: str


class SafetyPicture:
    """Follows the picture that is shown and the one of now."""

    def __init__(self, now: RunPicture) -> None:
        self.now = now
        self.shown = now
        self.book = AlarmBook()
        self.beside: Beside | None = None
        """None: not looked at yet."""
        self.older: tuple[Event, ...] = ()
        """Events before those that the journal keeps."""
        self.standing: frozenset[str] = frozenset()
        """Conditions that are alarmed."""
        self._peaks: dict[tuple[int, float, int, int], float | None] = {}

    def follow(self, shown: RunPicture) -> bool:
        """Look at this one; whether an alarm, a turn or a reason is another one."""
        self.shown = shown
        self.standing = frozenset(c.id for c in shown.journal.conditions.values() if c.state in ALARMS)
        return self.book.follow(shown.journal.events, self.older)

    @property
    def is_over(self) -> bool:
        """Whether what stands in the picture stood until the run ended."""
        return self.shown.moment is None and self.shown.ended

    def conditions(self) -> list[Judged]:
        """All of them, in the order of the profile."""
        return [self._judged(row) for row in self.shown.condition_rows()]

    def _judged(self, row: ConditionRow) -> Judged:
        turn, condition, history = self.book.since(row.condition), row.condition, self.shown.run_history
        if row.state in ALARMS:
            why = blame_text(condition)
        elif row.state == "unarmed":
            why = why_unarmed(
                condition,
                reasons=self.book.reasons,
                is_measured=lambda metric: history.latest(metric) is not None,
                profile=self.shown.manifest.profile,
            )
        else:
            why = f"nobody judges a value of {number(row.value)}" if row.state == "unjudged" else ""
        return Judged(row, None if turn is None else turn.event.t, why)

    def tell(self, alarm: Alarm) -> Told:
        """What is known of an alarm now."""
        last_t = self.shown.run_history.t
        stands = alarm.is_open(self.standing)
        so_far = None if last_t is None or last_t < alarm.raised.t else last_t - alarm.raised.t
        over = "to the end" if self.is_over else "" if stands else "its process"
        return Told(self._peak(alarm), stands, so_far, self.book.times(alarm), over)

    def _peak(self, alarm: Alarm) -> float | None:
        """Looked for once of an alarm that is over, where all of the run is read."""
        history = self.shown.run_history
        if alarm.cleared is None or self.now.backfilled is not None:
            return peak(alarm, history)
        key = (*alarm.key, alarm.cleared.seq, self.now.run_history.segments)
        if key not in self._peaks:
            if len(self._peaks) >= _MOST_PEAKS:
                self._peaks.clear()
            self._peaks[key] = peak(alarm, history)
        return self._peaks[key]

    def stops(self) -> Stops:
        """Emergencies, the newest first."""
        beside = self.beside
        known = together(() if beside is None else beside.emergencies, self.now.journal.emergencies)
        found = [one for one in known if not self._is_later(one)]
        total = len(known) if beside is None else max(len(known), beside.total)
        return Stops(found, total, len(known) - len(found), "" if beside is None else beside.problem)

    def _is_later(self, one: Emergency) -> bool:
        """Whether it came after the moment that is shown."""
        moment = self.shown.moment
        if moment is None:
            return False
        order = [session.id for session in self.now.manifest.sessions]
        if one.session in order and moment.session in order and one.session != moment.session:
            return order.index(one.session) > order.index(moment.session)
        return one.t is not None and one.t > moment.t and one.step != moment.step

    def stopping(self, stops: Stops, *, read_only: bool, web: bool) -> StopView:
        """Whether the run can be stopped, what was asked of it until then, how it ended."""
        is_past = self.shown.moment is not None
        now = self._asked(self.now, is_past=False)
        asked = self._asked(self.shown, is_past=True) if is_past else now
        return stop_view(
            self.now,
            self.beside,
            asked,
            stops.found,
            read_only=read_only,
            web=web,
            is_past=is_past,
            later=len(now) - len(asked),
        )

    def _asked(self, picture: RunPicture, *, is_past: bool) -> list[Asking]:
        beside = self.beside
        if beside is None or is_past:
            # What the mailbox says is of now; the events tell nearly the same of then.
            return askings(picture.journal.events, {}, (), {} if beside is None else beside.requests)
        return askings(picture.journal.events, beside.acks, beside.waiting, beside.requests)
