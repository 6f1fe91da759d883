"""Every safety condition as a table: what is compared with what, the value, what is left, since when, and why."""

from collections import Counter
from collections.abc import Hashable
from functools import lru_cache

from rich.cells import cell_len

from qig_tui.alarms.picture import Judged
from qig_tui.alarms.words import limit_text
from qig_tui.journal import ALARMS, SHOWN
from qig_tui.picture import ConditionRow
from qig_tui.text import ABSENT, clock, grouped, pad, thin_bar
from qig_tui.widgets.lines import Part
from qig_tui.widgets.row_list import Column, RowList, cell, laid_out

TONES = {"unarmed": "dim", "ok": "ok", "unjudged": "warning", "warning": "warning", "critical": "critical"}
_LONGEST_ID = 24
_BAR = 8
_WHY = 30
"""Cells below which the last column is too short for a sentence: it then stands in a line of its own."""


def by_severity(rows: list[Judged]) -> list[Judged]:
    """The worst first, in the order of the profile among equals."""
    return sorted(rows, key=lambda judged: -SHOWN.index(judged.row.state))


class ConditionTable(RowList[Judged]):
    """All of them, the worst first."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._current = True
        self._id_cells = 4

    def show(self, rows: list[Judged], *, current: bool) -> None:
        """Args: current: whether somebody still judges."""
        self._current = current
        longest = max((cell_len(judged.row.condition.id) for judged in rows), default=4)
        self._id_cells = min(max(longest, 4), _LONGEST_ID)
        self.show_items(by_severity(rows))

    @property
    def lines_wanted(self) -> int:
        """How high it would be with every row in sight."""
        return max(len(self.items), 1) + 2

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        counts = Counter(judged.row.state for judged in self.items)
        summary: list[Part] = []
        for state in reversed(SHOWN):
            if counts[state]:
                summary.append((TONES[state], f"{'  ' if summary else ''}{counts[state]} {state}"))
        return [("strong", "CONDITIONS"), ("dim", "" if self._current else " last known")], summary

    def empty(self) -> str:
        return "no conditions are watched"

    def key(self, item: Judged) -> Hashable:
        return item.row.condition.id

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        return _columns(width, self._id_cells)

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: Judged, width: int) -> list[Part]:
        columns = self._columns(width)
        parts: list[Part] = []
        for column, cells in columns:
            parts += self._cell(item, column, cells)
            parts.append(("text", " "))
        return parts[:-1]

    def story(self, item: Judged, width: int) -> list[Part]:
        if not item.why or any(column.name == "why" for column, _ in self._columns(width)):
            return []
        return [("dim", pad("", 11)), (_why_tone(item), pad(item.why, max(width - 11, 0)))]

    def _cell(self, item: Judged, column: Column, cells: int) -> list[Part]:
        row = item.row
        condition, tone = row.condition, TONES[row.state]
        quiet = row.state == "unarmed"
        match column.name:
            case "state":
                return [(tone, pad(f"{row.glyph} {row.state}", cells))]
            case "id":
                return [("dim" if quiet else "strong", pad(condition.id, cells))]
            case "metric":
                what = f"{row.name} {condition.statistic}".strip() if condition.metric else ""
                return [("dim", pad(what, cells))]
            case "limit":
                return [("dim", pad(limit_text(condition), cells))]
            case "value":
                return [("dim" if quiet else "text", cell(column, cells, row.shown))]
            case "margin":
                return self._margin(row, cells, tone)
            case "dwell":
                return [("dim", cell(column, cells, condition.dwell or ABSENT))]
            case "step":
                step = item.since_step
                return [("dim", cell(column, cells, ABSENT if step is None else grouped(step)))]
            case "time":
                return [("dim", cell(column, cells, ABSENT if item.since_t is None else clock(item.since_t)))]
            case _:
                return [(_why_tone(item), pad(item.why, cells))]

    @staticmethod
    def _margin(row: ConditionRow, cells: int, tone: str) -> list[Part]:
        # An alarm stands until its condition was well for a while: a bar of what is left would belie it.
        if row.margin is None or row.state == "unarmed" or (row.state in ALARMS and row.margin > 0):
            return [("dim", pad("", cells))]
        filled, rest = thin_bar(row.margin, cells)
        return [(tone, filled), ("faint", rest)]


def _why_tone(item: Judged) -> str:
    return TONES[item.row.state] if item.row.state in ALARMS else "dim"


@lru_cache(maxsize=16)
def _columns(width: int, id_cells: int) -> list[tuple[Column, int]]:
    columns = [
        Column("state", 10, 0, "state"),
        Column("id", id_cells, 1, "condition"),
        Column("metric", 17, 7, "metric"),
        Column("limit", 14, 4, "limit"),
        Column("value", 8, 2, "value", is_number=True),
        Column("margin", _BAR, 5, "margin"),
        Column("dwell", 5, 9, "dwell", is_number=True),
        Column("step", 10, 3, "since step", is_number=True),
        Column("time", 8, 8, "at", is_number=True),
        Column("why", _WHY, 6, "why", grows=True),
    ]
    return laid_out(columns, width, spare="id")
