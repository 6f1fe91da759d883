"""Rows to choose one of: columns that leave by their rank, a place for the keys, and a second line where one is needed.

What the rows are about a subclass says. The keys home and end are left to the screen, which goes through time by them.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Part
from qig_tui.widgets.rows import CURSOR, Rows

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column with its heading; where there is no room for all, those of the highest rank leave first."""

    name: str
    cells: int
    rank: int
    heading: str = ""
    is_number: bool = False
    grows: bool = False
    """Whether it takes what room is left: one at most."""


def fitting(columns: Sequence[Column], room: int) -> list[tuple[Column, int]]:
    """Those that fit side by side with a cell between, in their order, and the cells of each."""
    kept: set[str] = set()
    for column in sorted(columns, key=lambda column: column.rank):
        need = column.cells + bool(kept)
        if need <= room:
            kept.add(column.name)
            room -= need
    return [(column, column.cells + (room if column.grows else 0)) for column in columns if column.name in kept]


def laid_out(columns: Sequence[Column], room: int, *, spare: str) -> list[tuple[Column, int]]:
    """As `fitting`; where there is no room for the column that grows, another one takes what is left."""
    found = fitting(columns, room)
    if any(column.grows for column, _ in found):
        return found
    found = fitting([column for column in columns if not column.grows], room)
    left = room - sum(cells + 1 for _, cells in found) + 1
    return [(column, cells + (left if column.name == spare else 0)) for column, cells in found]


def cell(column: Column, cells: int, text: str) -> str:
    return pad_left(text, cells) if column.is_number else pad(text, cells)


class RowList(Rows[T]):
    """The place stays on its row while others come, but at the top, where it follows."""

    LEAST_WITH_HEADINGS: ClassVar[int] = 6
    """Lines that it must be high to have a line of headings."""
    OVERLAP, WHEEL = 0, 2
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_move(-1)", "up", show=False, tooltip="To the row above"),
        Binding("down", "cursor_move(1)", "down", show=False, tooltip="To the row below"),
        Binding("pageup", "cursor_page(-1)", "a page up", show=False),
        Binding("pagedown", "cursor_page(1)", "a page down", show=False),
        Binding("enter", "choose", "look", show=False, tooltip="All that is known of this row"),
    ]

    class Chosen(Message):
        """Somebody wants to see all of a row."""

        def __init__(self, rows: "RowList[Any]") -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> "RowList[Any]":
            return self.rows

    @abstractmethod
    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        """What stands on the left and on the right of the heading."""

    @abstractmethod
    def row(self, item: T, width: int) -> list[Part]:
        """A row, without the cell before it."""

    def story(self, item: T, width: int) -> list[Part]:
        """What stands below the row; nothing where no line is wanted."""
        return []

    def headings(self, width: int) -> list[Part]:
        """A line of headings; nothing where none is wanted."""
        return []

    def empty(self) -> str:
        """What is said where there are no rows."""
        return "nothing"

    def show_items(self, items: Sequence[T]) -> None:
        """Show these rows, the place on the row where it was."""
        self.take(items, *((self._key,) if self._at else ()))
        self.settle()

    @property
    def chosen(self) -> T | None:
        """The row that the keys are at."""
        return self.current

    @property
    def head(self) -> int:
        return 2 if self.size.height >= self.LEAST_WITH_HEADINGS and self.headings(self.size.width - 1) else 1

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        left, right = self.title(width)
        yield self.heading(width, left, right)
        if not self.items:
            yield self.strip(("dim", self.empty()))
            return
        if self.head > 1:
            yield self.strip(("text", " "), *self.headings(width - 1))
        rows = self.laid_out()
        for line in range(self._top, min(self._top + self.body, len(rows))):
            row = rows[line]
            is_story = line > 0 and rows[line - 1] == row
            marked = self.has_focus and row == self._at and not is_story
            parts = (self.story if is_story else self.row)(self.items[row], width - 1)
            yield self.strip(("cursor", CURSOR if marked else " "), *parts)

    def laid_out(self) -> list[int]:
        """Stories only where there is room for all of them, or by rows from the top as far as there is."""
        spare = self.body - len(self.items)
        lines: list[int] = []
        for row, item in enumerate(self.items):
            lines.append(row)
            if spare > 0 and self.story(item, self.size.width - 1):
                lines.append(row)
                spare -= 1
        return lines

    def settle(self, *, on_cursor: bool = True) -> None:
        # One that is not in sight keeps its place.
        if self.size.height:
            super().settle(on_cursor=on_cursor)

    def scroll_rows(self, rows: int) -> None:
        self.action_cursor_move(rows)

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def pressed(self, row: int, chain: int) -> None:
        """To the row; on the row where the keys are already, all of it."""
        if row == self._at and chain > 1:
            self.action_choose()
        self.move_to(row)

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self))
