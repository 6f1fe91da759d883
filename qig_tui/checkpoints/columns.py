"""Columns of the table of checkpoints: what stands in a cell, what is sorted by, what fits a width. No Textual."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qig_tui import columns
from qig_tui.checkpoints.rows import STATUSES, Row
from qig_tui.columns import NEWEST, Cell, Value
from qig_tui.text import ABSENT, age, axis_label, clock, duration, grouped, number, safe, size

_DAY_S = 86_400.0

Column = columns.Column[Row]


def written(t: float, now: float) -> str:
    """When something was written: the time of day, and the day where that is another one."""
    if not abs(now - t) < _DAY_S:
        try:
            return time.strftime("%Y-%m-%d %H:%M", time.localtime(t))
        except (OverflowError, ValueError, OSError):
            return ABSENT
    return clock(t)


def _step(row: Row, now: float, cells: int) -> Cell:
    if row.entry.step is None:
        return "dim", ABSENT
    whole = grouped(row.entry.step)
    tone = "dim" if row.left else "strong"
    return tone, whole if len(whole) <= cells else axis_label(_float(row.entry.step), cells)


def _status(row: Row, now: float, cells: int) -> Cell:
    tone = "critical" if row.glyph == "✖" else "ok" if row.is_verified else "text"
    return tone, f"{row.glyph} {row.status}"


def _written(row: Row, now: float, cells: int) -> Cell:
    at, ago = written(row.entry.t, now), age(row.entry.t, now)
    whole = f"{at} {ago:>11}"
    return "dim", whole if len(whole) <= cells else at if len(at) <= cells else ago


def _size(row: Row, now: float, cells: int) -> Cell:
    return "dim", ABSENT if row.manifest is None else size(row.entry.size)


def _measured(value: float | None, cells: int) -> Cell:
    if value is None:
        return "dim", ABSENT
    text = number(value)
    return ("text" if math.isfinite(value) else "warning"), text if len(text) <= cells else axis_label(value, cells)


def _reason(row: Row, now: float, cells: int) -> Cell:
    if row.manifest is None:
        return "dim", ABSENT
    return ("warning" if row.manifest.reason == "emergency" else "dim"), safe(row.manifest.reason, cells)


def _tags(row: Row, now: float, cells: int) -> Cell:
    tags = [safe(tag, 24) for tag in row.tags]
    # First: what does not fit is cut on the right.
    return ("dim" if row.left else "accent"), safe(", ".join([row.left, *tags] if row.left else tags), cells)


def _why(row: Row, now: float, cells: int) -> Cell:
    return ("dim", safe(", ".join(row.why), cells)) if row.why else ("warning", safe("▲ goes when pruned", cells))


def _verified(row: Row, now: float, cells: int) -> Cell:
    if row.checked is None:
        return "dim", "not yet"
    if row.checked.t > now + 1:
        # In the past it is said of now.
        return "dim", clock(row.checked.t)
    return "dim", "now" if now - row.checked.t < 1 else f"{duration(now - row.checked.t)} ago"


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


COLUMNS = (
    Column(
        key="step",
        label="step",
        cells=9,
        rank=0,
        cell=_step,
        value=lambda r: None if r.entry.step is None else _float(r.entry.step),
        falling=True,
        right=True,
    ),
    Column(
        key="status",
        label="status",
        cells=len("✖ HASH-MISMATCH"),
        rank=1,
        cell=_status,
        value=lambda r: 2.0 * STATUSES.index(r.status) + (not r.is_verified),
        falling=True,
    ),
    Column(
        key="written",
        label="written",
        cells=8,
        grows=12,
        rank=5,
        cell=_written,
        value=lambda r: r.entry.t,
        falling=True,
    ),
    Column(
        key="size",
        label="size",
        cells=8,
        rank=7,
        cell=_size,
        value=lambda r: None if r.manifest is None else float(r.entry.size),
        falling=True,
        right=True,
    ),
    Column(
        key="phi",
        label="Φ",
        cells=6,
        rank=4,
        cell=lambda r, now, n: _measured(r.phi, n),
        value=lambda r: r.phi,
        falling=True,
        right=True,
    ),
    Column(
        key="score",
        label="held-out",
        cells=8,
        rank=3,
        cell=lambda r, now, n: _measured(r.score, n),
        value=lambda r: r.score,
        right=True,
    ),
    Column(
        key="reason",
        label="reason",
        cells=9,
        rank=6,
        cell=_reason,
        value=lambda r: None if r.manifest is None else r.manifest.reason,
    ),
    Column(
        key="tags",
        label="tags",
        cells=16,
        grows=10,
        rank=2,
        cell=_tags,
        value=lambda r: ", ".join(r.tags) or None,
    ),
    Column(
        key="verified",
        label="verified",
        cells=9,
        rank=9,
        cell=_verified,
        value=lambda r: None if r.checked is None else r.checked.t,
        falling=True,
        right=True,
    ),
    Column(
        key="why",
        label="why it stays",
        cells=18,
        grows=30,
        rank=8,
        cell=_why,
        value=lambda r: ", ".join(r.why) or None,
    ),
)
_BY_KEY = {column.key: column for column in COLUMNS}
_GROWING = ("written", "tags", "why")
"""Which column takes first what room is left."""


@dataclass(frozen=True)
class Order:
    """By which column the checkpoints stand, and whether the other way round."""

    key: str = NEWEST
    turned: bool = False
    higher_is_better: bool = False
    """Of the score: by it the best stands first."""

    @classmethod
    def of(cls, text: str, *, higher_is_better: bool = False) -> "Order":
        """As it is remembered: the column, "-" before it for the other way round; what is unknown is the default."""
        key = text.removeprefix("-")
        known = key == NEWEST or key in _BY_KEY
        return cls(key if known else NEWEST, known and text.startswith("-"), higher_is_better)

    def __str__(self) -> str:
        return f"{'-' if self.turned else ''}{self.key}"

    @property
    def falling(self) -> bool:
        """Whether the greatest stands first."""
        by_itself = self.higher_is_better if self.key == "score" else self.key == NEWEST or _BY_KEY[self.key].falling
        return by_itself != self.turned

    @property
    def glyph(self) -> str:
        return "▼" if self.falling else "▲"

    @property
    def words(self) -> str:
        if self.key == NEWEST:
            return "oldest first" if self.turned else "newest first"
        return f"by {_BY_KEY[self.key].label} {self.glyph}"

    def sort(self, rows: Iterable[Row]) -> list[Row]:
        """Checkpoints in this order; those that lack the value stand last, whichever way round.

        Args:
            rows: newest-published first, as equals stay.
        """
        shelf = list(rows)
        value_of = None if self.key == NEWEST else _BY_KEY[self.key].value
        if value_of is None:
            return shelf[::-1] if self.turned else shelf
        known = [(value, row) for row in shelf if (value := value_of(row)) is not None and value == value]
        known.sort(key=_first, reverse=self.falling)
        there = {row.name for _, row in known}
        return [row for _, row in known] + [row for row in shelf if row.name not in there]


def _first(pair: tuple[Value, Row]) -> Value:
    return pair[0]


def fitting(width: int) -> list[tuple[Column, int]]:
    """The columns that fit a width, as they stand, each with its cells; never none."""
    chosen, room = columns.kept(COLUMNS, width)
    if not chosen:
        return [(_BY_KEY["step"], max(width, 0))]
    cells = {key: _BY_KEY[key].cells for key in chosen}
    for key in _GROWING:
        if key in chosen:
            grown = min(_BY_KEY[key].grows, max(room, 0))
            cells[key] += grown
            room -= grown
    return [(column, cells[column.key]) for column in COLUMNS if column.key in chosen]


def next_key(order: Order, shown: Sequence[tuple[Column, int]]) -> str:
    """The column to sort by after this one, of those that are shown; after the last the order without one."""
    keys = [NEWEST, *(column.key for column, _ in shown)]
    return keys[(keys.index(order.key) + 1) % len(keys)] if order.key in keys else NEWEST
