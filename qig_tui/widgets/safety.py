"""Every safety condition in a row: state, limit, newest value, margin; under an alarm what it is blamed on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.journal import IN_WORDS, SHOWN
from qig_tui.picture import ConditionRow
from qig_tui.text import clip, compact, pad, pad_left, thin_bar
from qig_tui.widgets.lines import Lines, Part

_BAR = 8
_RULE = 6
"""Cells of a heading that its rule wants between the title and what stands on the right."""
_WIDE = 70
"""From here on what an alarm is blamed on stands in its own row; in a narrower panel below it."""
_TONES = {"unarmed": "dim", "ok": "ok", "unjudged": "warning", "warning": "warning", "critical": "critical"}
_LOUD = frozenset({"unjudged", "warning", "critical"})
_SAID = frozenset({"unarmed", "unjudged"})
"""States for which no margin stands, so that there is room for their word."""


@dataclass(frozen=True)
class Fitted:
    """What of the conditions fits into so many lines."""

    rows: Sequence[ConditionRow]
    blamed: int
    """For how many of them, from the first on, there is a line for what they are blamed on."""
    hidden: Sequence[ConditionRow]


def fit(rows: Sequence[ConditionRow], room: int, *, blame: bool) -> Fitted:
    """The alarms first, the worst of them on top, each with its blame where that fits; then the rest in its order.

    Args:
        blame: whether what an alarm is blamed on wants a line.
    """
    alarms = sorted((row for row in rows if row.state in _LOUD), key=lambda row: -SHOWN.index(row.state))
    quiet = [row for row in rows if row.state not in _LOUD]
    if len(rows) + sum(blame and bool(row.condition.blame) for row in alarms) <= room:
        return Fitted([*alarms, *quiet], len(alarms) if blame else 0, [])
    if quiet or len(alarms) > room:
        # The last line says what is left out.
        room = max(room - 1, 0)
    shown = alarms[:room]
    spare = room - len(shown)
    blamed = 0
    for row in shown if blame else ():
        if row.condition.blame:
            if not spare:
                break
            spare -= 1
        blamed += 1
    # Those that nobody judges yet are the first to go.
    kept = set(sorted(range(len(quiet)), key=lambda i: quiet[i].state == "unarmed")[:spare])
    hidden = [row for i, row in enumerate(quiet) if i not in kept]
    return Fitted([*shown, *(quiet[i] for i in sorted(kept))], blamed, [*alarms[room:], *hidden])


def more(hidden: Sequence[ConditionRow]) -> str:
    """What is left out: +8 more ok; +9 more: 8 ok, 1 unarmed."""
    counts = Counter(row.state for row in hidden)
    states = [state for state in reversed(SHOWN) if state in counts]
    if len(states) == 1:
        return f"+{len(hidden)} more {states[0]}"
    return f"+{len(hidden)} more: {', '.join(f'{counts[state]} {state}' for state in states)}"


class SafetyPanel(Lines):
    """Alarms stand first; the rest in the order of the run's profile. Where rows must go, the healthy ones go."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[ConditionRow] = []
        self._needed = 0
        self._current = True

    def show(self, rows: list[ConditionRow], *, current: bool) -> None:
        needed = max(len(rows) + sum(bool(row.condition.blame) for row in rows), 1) + 2
        if needed != self._needed:
            # As high as it needs; the arrangement says how high it may be.
            self._needed = needed
            self.styles.height = needed
        self._rows, self._current = rows, current
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        rows = self._rows
        states = [row.state for row in rows]
        counts = [(s, states.count(s)) for s in reversed(SHOWN) if s in states]
        title: list[Part] = [("strong", "SAFETY"), ("dim", "" if self._current else " last known")]
        room = width - sum(cell_len(text) for _, text in title) - _RULE
        summary: list[Part] = []
        for state, count in counts:
            # The worst stands first: what there is no room for is what is well.
            part = f"{'  ' if summary else ''}{count} {state}"
            room -= cell_len(part)
            if room < 0:
                break
            summary.append((_TONES[state], part))
        yield self.heading(width, title, summary)
        if not rows:
            yield self.strip(("dim", "no conditions are watched"))
            return
        metrics = Counter(row.name for row in rows if row.condition.limit is not None)
        found = fit(rows, max(height - 1, 0), blame=width < _WIDE)
        for i, row in enumerate(found.rows):
            yield self._row(row, width, by_id=metrics[row.name] > 1)
            if i < found.blamed and row.condition.blame:
                yield self.strip((_TONES[row.state], pad(f"  {row.condition.blame}", width)))
        if found.hidden:
            yield self.strip(("dim", f"  {more(found.hidden)}"))

    def _row(self, row: ConditionRow, width: int, *, by_id: bool) -> Strip:
        """Args: by_id: whether other conditions compare the same metric, so that only the id tells them apart."""
        condition = row.condition
        tone = _TONES[row.state]
        with_bar, with_word = width >= 36, width >= 50
        name_width = max(width - 2 - 9 - (_BAR + 3 if with_bar else 0) - (9 if with_word else 0), 4)
        unit = f" {row.unit}" if row.unit else ""
        limit = "" if condition.limit is None else f" {condition.comparison} {compact(condition.limit)}{unit}"
        if cell_len(limit) > name_width - 5:
            limit = limit.removesuffix(unit)
        name = condition.id if condition.limit is None or by_id else row.name
        # The name is cut rather than the limit: a cut number would be another one.
        named = pad(name, name_width - cell_len(limit)) if cell_len(name + limit) > name_width else name
        quiet = row.state == "unarmed"
        blame = f"  {condition.blame}" if width >= _WIDE and condition.blame else ""
        what = clip(f"{named}{limit}", name_width)
        parts: list[Part] = [
            (tone, f"{row.glyph} "),
            ("dim" if quiet else "text", what),
            (tone, pad(blame, name_width - cell_len(what))),
            ("dim" if quiet else "strong", pad_left(row.shown, 8) + " "),
        ]
        if with_bar:
            if row.margin is None or quiet:
                alone = row.state in _SAID or (condition.comparison in IN_WORDS and row.state in _LOUD)
                said = f" {row.state}" if alone and not with_word else ""
                parts.append((tone, pad(said, _BAR + 3)))
            else:
                filled, rest = thin_bar(row.margin, _BAR)
                parts += [("dim", "  "), (tone, filled), ("faint", f"{rest} ")]
        if with_word:
            parts.append((tone, f" {row.state}"))
        return self.strip(*parts)
