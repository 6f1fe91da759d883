"""Alarms from raised to cleared, the newest first: about what, how far beyond, how long, and what moved first."""

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import lru_cache

from rich.cells import cell_len

from qig_tui.alarms.episodes import LEVELS, Alarm
from qig_tui.alarms.picture import Told
from qig_tui.alarms.words import limit_text, value_text
from qig_tui.journal import IN_WORDS
from qig_tui.text import clock, duration, grouped, number, pad
from qig_tui.widgets.lines import Part
from qig_tui.widgets.row_list import Column, RowList, cell, laid_out

_TONES = {"advice": "dim", "warning": "warning", "critical": "critical"}
_GLYPHS = {"advice": "·", "warning": "▲", "critical": "✖"}
_LONGEST_ID = 22


class AlarmList(RowList[Alarm]):
    """All, warnings and critical ones, or critical ones only."""

    def __init__(self, tell: Callable[[Alarm], Told], *, id: str | None = None) -> None:
        """Args: tell: asked only of alarms that are in sight."""
        super().__init__(id=id)
        self._tell = tell
        self._all: Sequence[Alarm] = ()
        self._standing: Collection[str] = ()
        self._count = 0
        self._until = ""
        self._id_cells = 9
        self.level = LEVELS[0]

    def show(self, alarms: Sequence[Alarm], standing: Collection[str], *, count: int, until: str = "still") -> None:
        """Show these, the oldest first.

        Args:
            standing: conditions that are alarmed.
            count: how many there were, with those that are not kept.
            until: what is said of those that stand.
        """
        self._all, self._standing, self._count, self._until = alarms, standing, count, until
        self._choose()

    def next_level(self) -> None:
        """All, warnings and worse, critical only, in a circle."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]
        self._at = self._top = 0
        self._choose()

    def _choose(self) -> None:
        least = LEVELS.index(self.level)
        shown = [alarm for alarm in reversed(self._all) if LEVELS.index(alarm.level) >= least]
        longest = max((cell_len(alarm.id) for alarm in shown[:100]), default=9)
        self._id_cells = min(max(longest, 9), _LONGEST_ID)
        self.show_items(shown)

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        left: list[Part] = [("strong", "ALARMS")]
        if self.level != LEVELS[0]:
            words = "critical only" if self.level == LEVELS[-1] else "warnings and critical"
            left.append((_TONES[self.level], f"  {words}"))
        right: list[Part] = []
        standing = sum(alarm.is_open(self._standing) for alarm in self._all if alarm.level != LEVELS[0])
        if standing:
            worst = any(a.level == "critical" and a.is_open(self._standing) for a in self._all)
            right.append(("critical" if worst else "warning", f"{grouped(standing)} {self._until}"))
        part = f"{grouped(len(self.items))} of " if len(self.items) != self._count else ""
        right.append(("dim", f"{'  ' if right else ''}{part}{grouped(self._count)} in all"))
        return left, right

    def empty(self) -> str:
        return f"none of {grouped(len(self._all))} is shown" if self._all else "no alarm so far"

    def key(self, item: Alarm) -> Hashable:
        return item.key

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        return _columns(width, self._id_cells)

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: Alarm, width: int) -> list[Part]:
        told = self._tell(item)
        columns = self._columns(width)
        parts: list[Part] = []
        if item.condition is None:
            columns = self._without_numbers(columns, width, item)
        for column, cells in columns:
            parts += [self._cell(item, told, column, cells), ("text", " ")]
        return parts[:-1]

    def _without_numbers(self, columns: list[tuple[Column, int]], width: int, item: Alarm) -> list[tuple[Column, int]]:
        """What is no condition has no value and no limit: what was said stands in their place."""
        ends = [column.name for column, _ in columns if column.name in ("lasted", "times")] if item.passes else []
        kept = [(column, cells) for column, cells in columns if column.name in ("time", "step", "state", *ends)]
        kept.insert(len(kept) - len(ends), (Column("id", 0, 0), self._id_cells))
        room = width - sum(cells + 1 for _, cells in kept)
        kept.insert(len(kept) - len(ends), (Column("why", 0, 0), max(room, 0)))
        return kept

    def story(self, item: Alarm, width: int) -> list[Part]:
        if item.condition is None:
            columns = self._without_numbers(self._columns(width), width, item)
            room = next((cells for column, cells in columns if column.name == "why"), 0)
            words = item.text if cell_len(item.text) > room else ""
        else:
            known = {column.name for column, _ in self._columns(width)}
            has_number = item.condition.comparison not in IN_WORDS
            limit = limit_text(item.condition) if has_number and "limit" not in known else ""
            words = "" if "why" in known else ", ".join(part for part in (limit, item.blame) if part)
        if not words:
            return []
        before = sum(cells + 1 for column, cells in self._columns(width) if column.name in ("time", "step"))
        tone = "text" if item.condition is None else _TONES[item.level]
        return [("dim", pad("", before + 2)), (tone, pad(words, max(width - before - 2, 0)))]

    def _cell(self, item: Alarm, told: Told, column: Column, cells: int) -> Part:
        condition, tone = item.condition, _TONES[item.level]
        loud = tone if told.stands else "text"
        match column.name:
            case "time":
                return "dim", cell(column, cells, clock(item.raised.t))
            case "step":
                return "dim", cell(column, cells, "" if item.raised.step is None else grouped(item.raised.step))
            case "state":
                return tone, pad(f"{_GLYPHS[item.level]} {item.level}", cells)
            case "id":
                return "strong" if told.stands else "text", pad(item.id, cells)
            case "value":
                return "text", cell(column, cells, "" if condition is None else value_text(condition))
            case "limit":
                return "dim", pad("" if condition is None else limit_text(condition), cells)
            case "peak":
                return "text", cell(column, cells, "" if told.peak is None else number(told.peak))
            case "lasted":
                return loud, cell(column, cells, lasted(item, told))
            case "times":
                return "dim", cell(column, cells, "" if told.of < 2 else f"{item.count} of {told.of}")
            case _:
                words = item.blame or item.text
                # What does not fit here stands below.
                fits = item.condition is not None or cell_len(words) <= cells
                return loud if item.blame else "text", pad(words if fits else "", cells)


def lasted(alarm: Alarm, told: Told) -> str:
    """How long it stood, or stands."""
    if not alarm.passes:
        return ""
    if told.stands and not told.over:
        return f"still {duration(told.lasted_s)}" if told.lasted_s is not None else "still"
    if alarm.cleared is None:
        return told.over
    if alarm.seconds is not None:
        return duration(alarm.seconds)
    return f"{grouped(alarm.steps)} steps" if alarm.steps is not None else "cleared"


@lru_cache(maxsize=16)
def _columns(width: int, id_cells: int) -> list[tuple[Column, int]]:
    columns = [
        Column("time", 8, 5, "at"),
        Column("step", 9, 3, "step", is_number=True),
        Column("state", 10, 0, "state"),
        Column("id", id_cells, 1, "alarm"),
        Column("value", 8, 4, "value", is_number=True),
        Column("limit", 13, 6, "limit"),
        Column("peak", 8, 8, "farthest", is_number=True),
        Column("lasted", 14, 2, "lasted", is_number=True),
        Column("times", 7, 9, "time", is_number=True),
        Column("why", 26, 7, "why", grows=True),
    ]
    return laid_out(columns, width, spare="id")
