"""How far a basin is from where, and which entries moved: short lines beside the grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textual.strip import Strip

from qig_tui.basin.basins import Derived, Nearest, movers
from qig_tui.picture import BasinView
from qig_tui.text import ABSENT, grouped, number, signed
from qig_tui.widgets.lines import Lines, Part

_LABEL = 8
_RETURNED = 1.1
"""Where the path was farther away meanwhile by more than this, it came back."""
_LEAST_MOVE = 5e-5
"""Less is shown as 0."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is told of a basin."""

    basin: BasinView
    reference: str
    """Which step it is measured from, and why that one."""
    interval: int | None
    """Steps since the basin before."""
    acceleration_rad: float | None
    drift_rad: float | None
    """As the trainer recorded it."""
    derived: Derived | None
    """None: it is still being found out."""
    problem: str = ""
    """Why the basins of before cannot be read."""


class BasinFacts(Lines):
    """Distances, the nearest past state, the movers; as many lines as there are."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._facts: Facts | None = None

    def show(self, facts: Facts) -> None:
        self._facts = facts
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        facts = self._facts
        if facts is None:
            return
        basin = facts.basin
        yield self.heading(width, [("strong", "DISTANCES")], [("dim", "Fisher–Rao, rad")])
        yield self._line("from", [("text", facts.reference)])
        yield self._line("distance", [("strong", number(basin.distance_rad))])
        yield self._line("velocity", _velocity(facts))
        apart = f" per ({grouped(facts.interval)} steps)²" if facts.interval and facts.interval > 1 else " per step²"
        bent = facts.acceleration_rad
        yield self._line("accel.", [("text", number(bent)), ("dim", "" if bent is None else apart)])
        yield self._line(
            "drift", [("text", number(facts.drift_rad)), ("dim", "" if facts.drift_rad is None else " recorded")]
        )
        yield from self._past(facts)
        if height >= 14:
            yield self.strip(("text", ""))
            yield from self._movers(basin, width, height - 13)

    def _line(self, label: str, parts: Sequence[Part]) -> Strip:
        """What there is no room for is left out, part by part: half a word says nothing."""
        shown: list[Part] = [("dim", f" {label:<{_LABEL}} ")]
        room = self.size.width - _LABEL - 2
        for part in parts:
            room -= len(part[1])
            if room < 0:
                break
            shown.append(part)
        return self.strip(*shown)

    def _past(self, facts: Facts) -> Iterable[Strip]:
        derived = facts.derived
        if derived is None or derived.share is not None:
            read = "" if derived is None or derived.share is None else f" {100 * derived.share:.0f} %"
            yield self._line("spread", [("dim", ABSENT)])
            yield self._line("nearest", [("dim", facts.problem or f"reading what was{read}")])
            return
        trail = derived.trail
        spread: list[Part] = [("dim", ABSENT)]
        if not isinstance(trail, str):
            spread = [("text", number(trail.spread_rad)), ("dim", " about the mean")]
        yield self._line("spread", spread)
        nearest = derived.nearest
        if nearest is None:
            yield self._line("nearest", [("dim", f"none ≥ {grouped(derived.lag)} steps apart")])
            return
        yield self._line("nearest", _nearest(nearest))
        for words in _circumstance(nearest, derived):
            yield self._line("", [words])
        yield self._line("", [("dim", f"≥ {grouped(derived.lag)} steps apart")])

    def _movers(self, basin: BasinView, width: int, height: int) -> Iterable[Strip]:
        columns = [("since ref", basin.to_reference)]
        if basin.to_previous is not None:
            columns.append(("since before", basin.to_previous))
        each = width // len(columns) if width >= 30 else width
        columns = columns if width >= 30 else columns[:1]
        yield self.heading(width, [("strong", "MOVERS"), ("dim", f" {'  |  '.join(words for words, _ in columns)}")])
        found = [movers(change, height - 1, _LEAST_MOVE) for _, change in columns]
        for row in range(max(map(len, found))):
            parts: list[Part] = []
            for listed in found:
                if row < len(listed):
                    entry, change = listed[row]
                    sign = "▲" if change > 0 else "▼"
                    tone = "accent" if change > 0 else "cursor"
                    text = f"{signed(change, 4)} "
                    gap = " " * max(each - 6 - len(text), 0)
                    parts += [("dim", f" #{entry:02d} "), ("text", text), (tone, sign), ("text", gap)]
                else:
                    parts.append(("text", " " * each))
            yield self.strip(*parts)


def _velocity(facts: Facts) -> list[Part]:
    if facts.basin.velocity_rad is None:
        return [("dim", f"{ABSENT} no basin before it")]
    steps = facts.interval
    apart = "" if steps is None else " a step" if steps == 1 else f" in {grouped(steps)} steps"
    return [("text", number(facts.basin.velocity_rad)), ("dim", apart)]


def _nearest(nearest: Nearest) -> list[Part]:
    return [("strong", number(nearest.distance_rad)), ("dim", " step "), ("text", grouped(nearest.step))]


def _circumstance(nearest: Nearest, derived: Derived) -> list[Part]:
    """Two lines: how long ago, and whether the path came back to it or never went farther."""
    if nearest.left:
        own = derived.own
        here = "none on this branch" if own is None else f"here {number(own.distance_rad)} step {grouped(own.step)}"
        return [("warning", "↩ left branch"), ("dim", here)]
    farthest = nearest.between_rad or 0.0
    returned = f"up to {number(farthest)} since" if farthest > _RETURNED * nearest.distance_rad else "never farther"
    return [("dim", f"{grouped(nearest.away)} steps ago"), ("dim", returned)]
