"""The columns of a table of things: what a cell says, what is sorted by, which of them a width has room for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

NEWEST = ""
"""The order where no column was chosen: the newest first."""
GAP = 2
"""Cells between two columns."""
Cell = tuple[str, str]
"""A tone and a text of at most the column's width."""
Value = float | str


@dataclass(frozen=True, kw_only=True)
class Column(Generic[T]):
    """One column; of several the first stands furthest to the left."""

    key: str
    label: str
    cells: int
    rank: int
    """The lower, the longer it stays as the terminal narrows."""
    cell: Callable[[T, float, int], Cell]
    """Of a thing, at a time, in so many cells."""
    value: Callable[[T], Value | None] | None = None
    """What is sorted by; None: it cannot be."""
    falling: bool = False
    """Whether the greatest comes first."""
    right: bool = False
    grows: int = 0
    """How many cells more it takes where there is room."""


def kept(columns: Sequence[Column[T]], width: int) -> tuple[set[str], int]:
    """Keys of the columns that a width has room for, by their rank; and the cells that are left."""
    chosen: set[str] = set()
    room = width
    for column in sorted(columns, key=lambda c: c.rank):
        needed = column.cells + (GAP if chosen else 0)
        if needed > room:
            break
        chosen.add(column.key)
        room -= needed
    return chosen, room
