"""Which steps the charts of a screen show, and how: the arithmetic of zooming and moving. No Textual, no data."""

from dataclasses import dataclass, replace

Ends = tuple[int, int]
"""First and last step."""

SMOOTHINGS = (1, 10, 50, 250)
"""Points to smooth over; 1 is not at all."""
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
    smoothing: int = 1
    log: bool = False

    def shown(self, ends: Ends) -> Ends:
        """The steps that are in sight."""
        low, high = ends
        return low if self.first is None else self.first, high if self.last is None else self.last

    def zoomed(self, factor: float, ends: Ends, *, around: int | None = None) -> "View":
        """`factor` times as many steps; the one that stays where it is: `around`, else the cursor, else the last."""
        low, high = ends
        first, last = self.shown(ends)
        if around is None:
            around = self.cursor if self.cursor is not None and first <= self.cursor <= last else last
        span = max(round((last - first) * factor), _FEWEST_STEPS)
        if span >= high - low:
            return replace(self, first=None, last=None)
        share = (around - first) / max(last - first, 1)
        start = min(max(round(around - share * span), low), high - span)
        following = start + span >= high
        return replace(self, first=start, last=None if following else start + span)

    def moved(self, direction: int, ends: Ends) -> "View":
        """The cursor a hundredth of the span to the left (-1) or right (1); without one, the span by a quarter."""
        low, high = ends
        first, last = self.shown(ends)
        span = last - first
        if self.cursor is not None:
            return replace(self, cursor=min(max(self.cursor + direction * max(span // 100, 1), low), high))
        start = min(max(first + round(direction * _STRIDE * span), low), high - span)
        following = start + span >= high
        whole = following and start <= low
        return replace(self, first=None if whole else start, last=None if following else start + span)

    def smoother(self) -> "View":
        """The next of `SMOOTHINGS`, in a circle."""
        at = SMOOTHINGS.index(self.smoothing)
        return replace(self, smoothing=SMOOTHINGS[(at + 1) % len(SMOOTHINGS)])
