"""Rows one below the other with a cursor among them, and tables made of such rows. What they are subclasses say.

Only the rows that are in sight are drawn, whatever their number.
"""

from abc import abstractmethod
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events, on
from textual.message import Message
from textual.strip import Strip

from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Lines, Part

T = TypeVar("T")
MARK = "◆"
CURSOR = "▸"
GAP = 2
"""Cells between two columns of a table."""


class Rows(Lines, Generic[T], can_focus=True):
    """Keeps its place by a key: rows may come, go and change their order below the cursor.

    Subclasses bind the keys, as not all are free on every screen.
    """

    OVERLAP: ClassVar[int] = 1
    """Rows of a page that are on the next one too."""
    WHEEL: ClassVar[int] = 3
    """Rows that a turn of the wheel goes on by."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.items: Sequence[T] = ()
        self._at = 0
        self._key: Hashable = None
        """Of the row under the cursor, or of the last one where there is none now."""
        self._top = 0
        """The first line in sight, of all lines of rows."""

    @abstractmethod
    def key(self, item: T) -> Hashable:
        """What a row is known by while others come and go."""

    @property
    def current(self) -> T | None:
        """The row under the cursor."""
        return self.items[self._at] if self.items else None

    @property
    def head(self) -> int:
        """How many lines stand above the rows."""
        return 1

    @property
    def body(self) -> int:
        """How many lines of rows are in sight."""
        return max(self.size.height - self.head, 1)

    def laid_out(self) -> Sequence[int]:
        """Which row each line is of; one may have several."""
        return range(len(self.items))

    def row_of(self, key: Hashable) -> int | None:
        return next((row for row, item in enumerate(self.items) if self.key(item) == key), None)

    def take(self, items: Sequence[T], *wanted: Hashable) -> None:
        """Have these rows from now on, the cursor on the first of the wanted ones that is among them; else in the row
        where it was.
        """
        self.items = items
        self.put(next((row for row in map(self.row_of, wanted) if row is not None), self._at))

    def put(self, row: int) -> None:
        """Set the cursor on a row; beyond an end is the end."""
        self._at = max(min(row, len(self.items) - 1), 0)
        if self.items:
            self._key = self.key(self.items[self._at])

    def move_to(self, row: int) -> None:
        """Somebody wants the cursor on another row."""
        self.put(row)
        self.settle()

    def pressed(self, row: int, chain: int) -> None:
        """Args: chain: how often in a row it was clicked."""
        self.move_to(row)

    def head_pressed(self, x: int) -> None:
        """The line above the rows was clicked."""

    def settle(self, *, on_cursor: bool = True) -> None:
        """Draw the rows, no room left below the last one, and the cursor in sight unless that is not wanted."""
        lines = self.laid_out()
        self._top = max(min(self._top, len(lines) - self.body), 0)
        if on_cursor and lines:
            line = lines.index(self._at)
            self._top = min(max(self._top, line - self.body + 1), line)
        self.redraw()

    def scroll_rows(self, rows: int) -> None:
        """What the wheel does: the cursor stays where it is."""
        self._top += rows
        self.settle(on_cursor=False)

    def action_cursor_move(self, rows: int) -> None:
        if self.items:
            self.move_to(self._at + rows)

    def action_cursor_page(self, pages: int) -> None:
        self.action_cursor_move(pages * max(self.body - self.OVERLAP, 1))

    def on_resize(self, event: events.Resize) -> None:
        self.settle()

    def on_click(self, event: events.Click) -> None:
        event.stop()
        line = event.y - self.head
        if line == -1:
            self.head_pressed(event.x)
        elif line >= 0 and self._top + line < len(lines := self.laid_out()):
            self.pressed(lines[self._top + line], event.chain)

    @on(events.MouseScrollDown)
    @on(events.MouseScrollUp)
    def turn_wheel(self, event: events.MouseScrollDown | events.MouseScrollUp) -> None:
        event.stop()
        self.scroll_rows(self.WHEEL if isinstance(event, events.MouseScrollDown) else -self.WHEEL)


class Column(Protocol):
    """What a table must know of a column."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def right(self) -> bool:
        """Whether it ends where its cells end, as numbers do."""

    @property
    def value(self) -> object:
        """What is sorted by; None: it cannot be."""


C = TypeVar("C", bound=Column)


class Table(Rows[T], Generic[T, C]):
    """Rows in columns with a header to sort by, the row under the cursor set off, and a bar where there are more."""

    MARGIN: ClassVar[int] = 3
    """Cursor, mark and a blank before the first column."""
    REACH: ClassVar[int] = 0
    """Cells beyond its own that a click on a header may miss it by."""

    class Moved(Message):
        """The cursor stands on another row."""

    class Opened(Message):
        """The row under the cursor was asked for by mouse."""

    class SortAsked(Message):
        """A header was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sort_key = ""
        """The column that is sorted by; empty for none."""
        self._marked: Collection[Hashable] = ()
        self._instead = ""
        """The sentence that stands where there is no row."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[tuple[C, int]]:
        """Those that fit, with their cells."""

    @abstractmethod
    def label(self, column: C, cells: int, *, sorts: bool) -> str:
        """What a column is called."""

    @abstractmethod
    def cell(self, item: T, column: C, cells: int) -> Iterable[Part]:
        """What stands in a cell, as wide as the cell is."""

    @property
    def row_count(self) -> int:
        return len(self.items)

    @property
    def top(self) -> int:
        """Which row is the first in sight."""
        return self._top

    @property
    def cursor_row(self) -> int | None:
        return self._at if self.items else None

    def sign(self, item: T) -> Part:
        """What stands between the cursor and the first column."""
        return "cursor", f"{MARK if self.key(item) in self._marked else ' '} "

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        columns = self.columns
        yield self._header(columns, width)
        if not self.items:
            yield self.strip(("text", ""), width=width)
            yield self.strip(("dim", pad(f"  {self._instead}", width)), width=width)
            return
        body = max(height - self.head, 0)
        # Each table has one of its own, for its look in a terminal of 16 colours.
        (name,) = type(self).COMPONENT_CLASSES
        cursor = self.get_component_rich_style(name)
        highlight = Style(bgcolor=cursor.bgcolor, reverse=cursor.reverse)
        for y, item in enumerate(self.items[self._top : self._top + body]):
            is_mine = self._top + y == self._at
            parts = [("strong", CURSOR if is_mine else " "), self.sign(item)]
            for column, cells in columns:
                parts += [*self.cell(item, column, cells), ("text", " " * GAP)]
            strip = self.strip(*parts, width=max(width - 1, 0))
            if is_mine:
                strip = Strip([Segment(s.text, s.style + highlight if s.style else highlight) for s in strip])
            yield Strip([*strip, self._bar(y, body)])

    def _header(self, columns: Sequence[tuple[C, int]], width: int) -> Strip:
        parts: list[Part] = [("dim", " " * self.MARGIN)]
        for column, cells in columns:
            sorts = column.key == self._sort_key
            text = (pad_left if column.right else pad)(self.label(column, cells, sorts=sorts), cells)
            parts += [("strong" if sorts else "dim", text), ("dim", " " * GAP)]
        return self.strip(*parts[:-1], width=width)

    def _bar(self, y: int, body: int) -> Segment:
        """The last cell of a line: a bar, thick beside as large a part as the rows in sight are of all."""
        count = len(self.items)
        if count <= body or body < 2:
            return Segment(" ", self.tone("text"))
        length = max(body * body // count, 1)
        start = (body - length) * self._top // (count - body)
        inside = start <= y < start + length
        return Segment("┃" if inside else "│", self.tone("raw" if inside else "faint"))

    def move_to(self, row: int) -> None:
        before = self._key
        super().move_to(row)
        if self._key != before:
            self.post_message(self.Moved())

    def pressed(self, row: int, chain: int) -> None:
        super().pressed(row, chain)
        if chain == 2:
            self.post_message(self.Opened())

    def head_pressed(self, x: int) -> None:
        start = self.MARGIN
        for column, cells in self.columns:
            if start <= x < start + cells + self.REACH and column.value is not None:
                self.sort_by(column.key)
            start += cells + GAP

    def sort_by(self, key: str) -> None:
        """Somebody wants to sort by a column, or the other way round."""
        self.post_message(self.SortAsked(key))

    def action_cursor_end(self, last: int) -> None:
        self.action_cursor_move(len(self.items) if last else -len(self.items))
