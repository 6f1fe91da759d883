"""Every safety condition in a row: state, limit, newest value, margin."""

import math
from collections.abc import Iterable

from textual.strip import Strip

from qig_tui.journal import SHOWN
from qig_tui.picture import ConditionRow
from qig_tui.text import compact, number, pad, pad_left, thin_bar
from qig_tui.widgets.lines import Lines, Part

_BAR = 8
_TONES = {"unarmed": "dim", "ok": "ok", "unjudged": "warning", "warning": "warning", "critical": "critical"}


def _value(row: ConditionRow) -> str:
    """The newest value; where only finiteness is asked, whether it is."""
    if row.condition.comparison == "finite" and row.value is not None and math.isfinite(row.value):
        return "finite"
    return number(row.value)


class SafetyPanel(Lines):
    """The order is that of the run's profile; where rows must go, the healthy ones go."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[ConditionRow] = []
        self._current = True

    def show(self, rows: list[ConditionRow], *, current: bool) -> None:
        if len(rows) != len(self._rows):
            # As high as it needs; the arrangement says how high it may be.
            self.styles.height = max(len(rows), 1) + 2
        self._rows, self._current = rows, current
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        rows, room = self._rows, height - 1
        states = [row.state for row in rows]
        counts = [(s, states.count(s)) for s in reversed(SHOWN) if s in states]
        summary: list[Part] = []
        for state, count in counts:
            summary += [("dim", "  " if summary else ""), (_TONES[state], f"{count} {state}")]
        yield self.heading(width, [("strong", "SAFETY"), ("dim", "" if self._current else " last known")], summary)
        if not rows:
            yield self.strip(("dim", "no conditions are watched"))
            return
        hidden = 0
        if len(rows) > room > 0:
            order = sorted(range(len(rows)), key=lambda i: (-SHOWN.index(rows[i].state), i))
            shown = set(order[: room - 1])
            hidden = len(rows) - len(shown)
            rows = [row for i, row in enumerate(rows) if i in shown]
        for row in rows:
            yield self._row(row, width)
        if hidden:
            yield self.strip(("dim", f"  and {hidden} more, none worse"))

    def _row(self, row: ConditionRow, width: int) -> Strip:
        condition = row.condition
        tone = _TONES[row.state]
        with_bar, with_word = width >= 36, width >= 50
        name_width = max(width - 2 - 9 - (_BAR + 3 if with_bar else 0) - (9 if with_word else 0), 4)
        unit = f" {row.unit}" if row.unit else ""
        limit = "" if condition.limit is None else f" {condition.comparison} {compact(condition.limit)}{unit}"
        name = pad(f"{row.name if condition.limit is not None else condition.id}{limit}", name_width)
        quiet = row.state == "unarmed"
        parts: list[Part] = [
            (tone, f"{row.glyph} "),
            ("dim" if quiet else "text", name),
            ("dim" if quiet else "strong", pad_left(_value(row), 8) + " "),
        ]
        if with_bar:
            if row.margin is None or quiet:
                said = f" {row.state}" if row.state in ("unarmed", "unjudged") and not with_word else ""
                parts.append((tone, pad(said, _BAR + 3)))
            else:
                filled, rest = thin_bar(row.margin, _BAR)
                parts += [("dim", "  "), (tone, filled), ("faint", f"{rest} ")]
        if with_word:
            parts.append((tone, f" {row.state}"))
        return self.strip(*parts)
