"""What had happened by a moment of a run: its events read again, folded as far as then. No Textual."""

from collections.abc import Sequence

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import Tail
from qig_core.rundir.schema import Event
from qig_tui.journal import Journal
from qig_tui.travel import Moment


class Chronicle:
    """Holds every event of a run while somebody travels in it; reads what came since at each question. One thread."""

    def __init__(self, run: RunDir) -> None:
        self._tail: Tail[Event] = Tail(run.events, Event)
        self._events: list[Event] = []
        self._told = Journal()
        self._count = 0
        """How many events `_told` holds."""

    def until(self, moment: Moment, sessions: Sequence[str]) -> Journal:
        """The journal as it was at a moment; to look at only: the same one where nothing happened between two.

        Args:
            sessions: ids in their order.

        Raises:
            OSError: the events cannot be read.
        """
        self._read()
        order = {session: place for place, session in enumerate(sessions)}
        count = cut(self._events, moment, order)
        if count != self._count or not count:
            # Whoever shows the one before may still look at it.
            journal = self._told.copy() if count >= self._count else Journal()
            journal.add(self._events[self._count if count >= self._count else 0 : count])
            self._told, self._count = journal, count
        return self._told

    def _read(self) -> None:
        while True:
            batch = self._tail.poll()
            if batch.restarted:
                self._events, self._told, self._count = [], Journal(), 0
            self._events += [event for event in batch.records if isinstance(event, Event)]
            if not batch.more:
                return

    def close(self) -> None:
        self._tail.close()


def cut(events: Sequence[Event], moment: Moment, order: dict[str, int]) -> int:
    """How many events, in the order of the file, had come by a moment: those of its own step are among them."""
    mine = order.get(moment.session or "")
    for count, event in enumerate(events):
        theirs = order.get(event.session or "")
        if mine is not None and theirs is not None and mine != theirs:
            # Two sessions may be of two hosts, with clocks of their own.
            if theirs > mine:
                return count
        elif event.t > moment.t and event.step != moment.step:
            return count
    return len(events)
