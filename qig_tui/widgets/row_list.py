"""Rows to choose one of: columns that leave by their rank, a place for the keys, and a second line where one is needed.

What the rows are about a subclass says. The keys home and end are left to the screen, which goes through time by them.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Lines, Part

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


class RowList(Lines, Generic[T], can_focus=True):
    """The place stays on its row while others come, but at the top, where it follows."""

    LEAST_WITH_HEADINGS: ClassVar[int] = 6
    """Lines that it must be high to have a line of headings."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False, tooltip="To the row above"),
        Binding("down", "move(1)", "down", show=False, tooltip="To the row below"),
        Binding("pageup", "page(-1)", "a page up", show=False),
        Binding("pagedown", "page(1)", "a page down", show=False),
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

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.items: Sequence[T] = ()
        self._at = 0
        self._top = 0
        """The first line in sight, of all lines of rows."""

    @abstractmethod
    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        """What stands on the left and on the right of the heading."""

    @abstractmethod
    def key(self, item: T) -> Hashable:
        """What a row is known by while others come and go."""

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
        key = self.key(self.items[self._at]) if self._at and self._at < len(self.items) else None
        self.items = items
        if key is not None:
            self._at = next((i for i, item in enumerate(items) if self.key(item) == key), self._at)
        self._draw()

    @property
    def chosen(self) -> T | None:
        """The row that the keys are at."""
        return self.items[self._at] if self._at < len(self.items) else None

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        left, right = self.title(width)
        yield self.heading(width, left, right)
        if not self.items:
            yield self.strip(("dim", self.empty()))
            return
        headings = self.headings(width - 1) if self._has_headings else []
        if headings:
            yield self.strip(("text", " "), *headings)
        room = self._room
        for index, is_story in self._laid_out(width)[self._top : self._top + room]:
            item = self.items[index]
            marked = self.has_focus and index == self._at and not is_story
            parts = self.story(item, width - 1) if is_story else self.row(item, width - 1)
            yield self.strip(("cursor", "▸" if marked else " "), *parts)

    def _laid_out(self, width: int) -> list[tuple[int, bool]]:
        """Which row and which part of it each line is; stories only where there is room for all of them, or by rows
        from the top as far as there is."""
        count = len(self.items)
        spare = self._room - count
        lines: list[tuple[int, bool]] = []
        for index in range(count):
            lines.append((index, False))
            if spare > 0 and self.story(self.items[index], width - 1):
                lines.append((index, True))
                spare -= 1
        return lines

    @property
    def _has_headings(self) -> bool:
        return self.size.height >= self.LEAST_WITH_HEADINGS

    @property
    def _room(self) -> int:
        has_headings = self._has_headings and bool(self.headings(self.size.width - 1))
        return max(self.size.height - 1 - has_headings, 1)

    def _draw(self) -> None:
        if not self.size.height:
            return
        count, room = len(self.items), self._room
        self._at = max(min(self._at, count - 1), 0)
        lines = self._laid_out(self.size.width) if count else []
        at = next((i for i, line in enumerate(lines) if line == (self._at, False)), 0)
        self._top = min(max(self._top, at - room + 1), at, max(len(lines) - room, 0))
        self.redraw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(2)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-2)

    def on_click(self, event: events.Click) -> None:
        """To the row; on the row where the keys are already, all of it."""
        event.stop()
        line = self._top + event.y - (self.size.height - self._room)
        laid_out = self._laid_out(self.size.width) if self.items else []
        if event.y < self.size.height - self._room or not 0 <= line < len(laid_out):
            return
        index = laid_out[line][0]
        if index == self._at and event.chain > 1:
            self.action_choose()
        self._at = index
        self._draw()

    def action_move(self, rows: int) -> None:
        self._at += rows
        self._draw()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * self._room)

    def action_choose(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Chosen(self))
