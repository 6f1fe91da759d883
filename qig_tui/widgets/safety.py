"""Every safety condition in a row: state, limit, newest value, margin; under an alarm what it is blamed on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.journal import ALARMS, IN_WORDS, SHOWN
from qig_tui.picture import ConditionRow
from qig_tui.text import clip, compact, pad, pad_left, thin_bar
from qig_tui.widgets.lines import Lines, Part

_BAR = 7
_WORD = 9
_ID, _LONGEST_ID = 15, 21
"""Cells of the longest id of the profiles that come with the trainer, and of those with a Gary's name before them."""
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
        blame: whether the story of an alarm wants a line.
    """
    alarms = sorted((row for row in rows if row.state in _LOUD), key=lambda row: -SHOWN.index(row.state))
    quiet = [row for row in rows if row.state not in _LOUD]
    if len(rows) + sum(blame and bool(row.story) for row in alarms) <= room:
        return Fitted([*alarms, *quiet], len(alarms) if blame else 0, [])
    if quiet or len(alarms) > room:
        # The last line says what is left out.
        room = max(room - 1, 0)
    shown = alarms[:room]
    spare = room - len(shown)
    blamed = 0
    for row in shown if blame else ():
        if row.story:
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
        needed = max(len(rows) + sum(bool(row.story) for row in rows), 1) + 2
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
        found = fit(rows, max(height - 1, 0), blame=width < _WIDE)
        longest = max((cell_len(row.condition.id) for row in found.rows), default=0)
        for i, row in enumerate(found.rows):
            yield self._row(row, width, longest)
            if i < found.blamed and row.story:
                yield self.strip((_TONES[row.state], pad(f"  {row.story}", width)))
        if found.hidden:
            yield self.strip(("dim", f"  {more(found.hidden)}"))

    def _row(self, row: ConditionRow, width: int, longest: int) -> Strip:
        tone = _TONES[row.state]
        with_bar, with_word = width >= 36, width >= 50
        bar = _BAR - with_word
        room = max(width - 2 - 9 - (bar + 2 if with_bar else 0) - (_WORD if with_word else 0), 4)
        id_width = min(max(min(longest, _LONGEST_ID), _ID), max(room - 8, room // 2)) if room >= 14 else room
        what = _compared(row, max(room - id_width - 1, 0))
        quiet = row.state == "unarmed"
        story = row.story if width >= _WIDE else ""
        parts: list[Part] = [
            (tone, f"{row.glyph} "),
            ("dim" if quiet else "text", pad(row.condition.id, id_width)),
            ("dim", pad(f" {what}" if what else "", room - id_width) if not story else f" {what}"),
        ]
        if story:
            parts.append((tone, pad(f"  {story}", room - id_width - 1 - cell_len(what))))
        parts.append(("dim" if quiet else "strong", pad_left(row.shown, 8) + " "))
        if with_bar:
            # An alarm stands until its condition was well for a while: a bar of what is left would belie it.
            if row.margin is None or quiet or (row.state in ALARMS and row.margin > 0):
                alone = row.state in _SAID or row.state in ALARMS
                said = f" {row.state}" if alone and not with_word else ""
                parts.append((tone, pad(said, bar + 2)))
            else:
                filled, rest = thin_bar(row.margin, bar)
                parts += [("dim", " "), (tone, filled), ("faint", f"{rest} ")]
        if with_word:
            parts.append((tone, f" {row.state}"))
        return self.strip(*parts)


def _compared(row: ConditionRow, cells: int) -> str:
    """What is compared with which limit, as much of it as there is room for: a cut number would be another one."""
    condition = row.condition
    if condition.comparison in IN_WORDS:
        return ""
    if condition.limit is None:
        return clip("no limit yet", cells) if cells >= 12 else ""
    subject = "" if row.name == condition.id or not condition.metric else f"{row.name} "
    if condition.statistic:
        subject += f"{condition.statistic} "
    limit, unit = f"{condition.comparison} {compact(condition.limit)}", f" {row.unit}" if row.unit else ""
    texts = (f"{subject}{limit}{unit}", f"{subject}{limit}", f"{limit}{unit}", limit)
    return next((text for text in texts if cell_len(text) <= cells), "")
