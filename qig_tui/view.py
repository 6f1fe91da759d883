"""Which steps the charts of a screen show, and how: the arithmetic of zooming and moving. No Textual, no data."""

from dataclasses import dataclass, replace
from typing import Literal

Ends = tuple[int, int]
"""First and last step."""


@dataclass(frozen=True)
class Smoothing:
    """Over how many points: an exponential moving average of weight 2 / (span + 1), or the median of the last ones."""

    kind: Literal["none", "ema", "median"] = "none"
    span: int = 1

    @property
    def name(self) -> str:
        """As it is shown and remembered: ema 10; empty for none."""
        return "" if self.kind == "none" else f"{self.kind} {self.span}"


SMOOTHINGS = (
    Smoothing(),
    Smoothing("ema", 10),
    Smoothing("ema", 50),
    Smoothing("ema", 250),
    Smoothing("median", 9),
    Smoothing("median", 51),
)
Y = Literal["fit", "zero", "possible"]
YS: tuple[Y, ...] = ("fit", "zero", "possible")
"""What the axis of values holds: what is drawn, and 0 as well, or every value that is possible."""
_FEWEST_STEPS = 8
_STRIDE = 0.25


@dataclass(frozen=True, kw_only=True)
class View:
    """What all charts of a screen share: one axis of steps, one cursor. `ends` are always those of what was read."""

    first: int | None = None
    """None: from the first step on."""
    last: int | None = None
    """None: to the newest, following it."""
    cursor: int | None = None
    smoothing: Smoothing = SMOOTHINGS[0]
    log: bool = False
    y: Y = "fit"

    def shown(self, ends: Ends) -> Ends:
        """The steps that are in sight."""
        low, high = ends
        return low if self.first is None else self.first, high if self.last is None else self.last

    def zoomed(self, factor: float, ends: Ends, *, around: int | None = None) -> "View":
        """`factor` times as many steps; the one that stays where it is: `around`, else the cursor, else the last."""
        first, last = self.shown(ends)
        if around is None:
            around = self.cursor if self.cursor is not None and first <= self.cursor <= last else last
        span = max(round((last - first) * factor), _FEWEST_STEPS)
        share = (around - first) / max(last - first, 1)
        return self._placed(round(around - share * span), span, ends)._in_sight(ends)

    def dragged(self, steps: int, ends: Ends) -> "View":
        """Moved by so many steps, later ones with a positive number; the cursor stays where it is in the data."""
        first, last = self.shown(ends)
        return self._placed(first + steps, last - first, ends)

    def moved(self, direction: int, ends: Ends) -> "View":
        """The cursor a hundredth of the span to the left (-1) or right (1), and what is shown with it where it would
        leave; without a cursor, the span by a quarter.
        """
        low, high = ends
        first, last = self.shown(ends)
        span = last - first
        if self.cursor is None:
            return self._placed(first + round(direction * _STRIDE * span), span, ends)
        cursor = min(max(self.cursor + direction * max(span // 100, 1), low), high)
        view = replace(self, cursor=cursor)
        beyond = min(cursor - first, 0) + max(cursor - last, 0)
        return view._placed(first + beyond, span, ends) if beyond else view

    def pointed(self, step: int, ends: Ends) -> "View":
        """The cursor at a step, or at the nearest in sight."""
        return replace(self, cursor=step)._in_sight(ends)

    def _placed(self, start: int, span: int, ends: Ends) -> "View":
        """`span` steps from `start` on, or from the nearest step that leaves them within the ends."""
        low, high = ends
        if span >= high - low:
            return replace(self, first=None, last=None)
        start = min(max(start, low), high - span)
        return replace(self, first=start, last=None if start + span >= high else start + span)

    def _in_sight(self, ends: Ends) -> "View":
        if self.cursor is None:
            return self
        first, last = self.shown(ends)
        return replace(self, cursor=min(max(self.cursor, first), last))

    def smoother(self) -> "View":
        """The next of `SMOOTHINGS`, in a circle."""
        at = SMOOTHINGS.index(self.smoothing)
        return replace(self, smoothing=SMOOTHINGS[(at + 1) % len(SMOOTHINGS)])

    def other_y(self) -> "View":
        """The next of `YS`, in a circle."""
        return replace(self, y=YS[(YS.index(self.y) + 1) % len(YS)])


def smoothing_named(name: str) -> Smoothing:
    """One of `SMOOTHINGS`; none where there is no such one."""
    return next((found for found in SMOOTHINGS if found.name == name), SMOOTHINGS[0])
