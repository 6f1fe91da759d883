"""Going back in time: a moment of a run, where it stands among what came later, and replay. No Textual, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qig_core.rundir.schema import Event
from qig_tui.series import Floats, Ints

SPEEDS = (1, 3, 10, 30, 100, 300, 1000)
"""How many seconds of the run a second of a replay shows."""
_PAUSE_S = 20.0
_STANDING_OUT = frozenset({"checkpoint", "restored", "emergency", "soft_reset", "start", "end", "phase"})


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A sample that is looked at as if it were the newest."""

    step: int
    seq: int
    t: float
    session: str | None
    segment: int
    regime: str | None
    basins: Sequence[tuple[int, Floats]]
    """The newest at or before it and the one before that, newest first."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step and is worth going to."""

    step: int
    kind: str
    severity: str


def marks(events: Sequence[Event]) -> list[Mark]:
    """What stands out among events, by ascending step; of several at one step the worst."""
    rank = {"info": 0, "warning": 1, "critical": 2}
    found: dict[int, Mark] = {}
    for event in events:
        alarm = event.severity in ("warning", "critical")
        if event.step is None or not (alarm or event.kind in _STANDING_OUT):
            continue
        known = found.get(event.step)
        if known is None or rank.get(event.severity, 0) >= rank.get(known.severity, 0):
            found[event.step] = Mark(event.step, event.kind, event.severity)
    return [found[step] for step in sorted(found)]


def next_mark(found: Sequence[Mark], step: int, direction: int) -> Mark | None:
    """The nearest mark beyond a step: later ones with a positive direction."""
    if direction > 0:
        return next((mark for mark in found if mark.step > step), None)
    return next((mark for mark in reversed(found) if mark.step < step), None)


class Pace:
    """When each step of the branch that the run is on was recorded, pauses left out: what a replay goes by.

    Args:
        step, t: of the points known of it, in ascending order of the steps; t in unix seconds.
    """

    def __init__(self, step: Ints, t: Floats) -> None:
        known = np.isfinite(t)
        self._step = step[known]
        gaps = np.diff(t[known], prepend=t[known][:1])
        # A clock that was set back, a pause and the night between two processes pass in no time.
        usual = float(np.median(gaps[1:])) if len(gaps) > 1 else 0.0
        gaps[(gaps < 0) | (gaps > max(_PAUSE_S, 50 * usual))] = 0.0
        self._at = np.cumsum(gaps)

    def seconds(self, step: float) -> float:
        """Seconds of the run up to a step."""
        if not len(self._step):
            return 0.0
        return float(np.interp(step, self._step, self._at))

    def step_after(self, step: int, seconds: float) -> int | None:
        """Where the run is so many seconds after a step; None: beyond the last that is known."""
        wanted = self.seconds(step) + seconds
        if not len(self._step) or wanted >= float(self._at[-1]):
            return None
        return int(np.interp(wanted, self._at, self._step))

    @property
    def last(self) -> int | None:
        return int(self._step[-1]) if len(self._step) else None
