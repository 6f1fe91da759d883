"""The table of checkpoints: draws the rows that are in sight and nothing else, whatever their number. Reads nothing."""

from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_tui.checkpoints.columns import GAP, Column, Order, fitting
from qig_tui.checkpoints.rows import Row
from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Lines, Part

MARK = "◆"
_CURSOR = "▸"
_MARGIN = 3
"""Cursor, mark and a blank before the first column."""
_WHEEL = 3


class CheckpointTable(Lines, can_focus=True):
    """Keeps its place by the checkpoint's name: rows may come, go and change their order below the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_move(-1)", "up", key_display="↑", tooltip="The checkpoint above"),
        Binding("down,j", "cursor_move(1)", "down", key_display="↓", tooltip="The checkpoint below"),
        Binding("pageup", "cursor_page(-1)", "page up", tooltip="A screenful up"),
        Binding("pagedown", "cursor_page(1)", "page down", tooltip="A screenful down"),
        Binding("home", "cursor_end(0)", "first", tooltip="The first row"),
        Binding("end", "cursor_end(1)", "last", tooltip="The last row"),
    ]
    DEFAULT_CSS = """
    CheckpointTable { height: 1fr; background: $background; }
    CheckpointTable > .checkpoints--cursor { background: $primary 22%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"checkpoints--cursor"}

    class Moved(Message):
        """The cursor stands on another checkpoint."""

    class Opened(Message):
        """The checkpoint under the cursor was asked for by mouse."""

    class SortAsked(Message):
        """A header was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[Row] = ()
        self._at: dict[str, int] = {}
        self._cursor: str | None = None
        self._moved = False
        """Whether somebody chose the row; until then the cursor stays at the top."""
        self._top = 0
        self._marked: Collection[str] = ()
        self._order = Order()
        self._labels: dict[str, str] = {}
        self._now = 0.0
        self._instead = ""
        self._shown: list[tuple[Column, int]] = []

    @property
    def cursor_row(self) -> int | None:
        return None if self._cursor is None else self._at.get(self._cursor)

    @property
    def current(self) -> Row | None:
        """The checkpoint under the cursor."""
        at = self.cursor_row
        return None if at is None else self._rows[at]

    @property
    def columns(self) -> list[tuple[Column, int]]:
        """Those that fit, with their cells."""
        return fitting(max(self.size.width - _MARGIN - 1, 1))

    def show(
        self,
        rows: Sequence[Row],
        *,
        now: float,
        marked: Collection[str],
        order: Order,
        score: str,
        instead: str,
    ) -> None:
        """Draw the rows in the order given.

        Args:
            now: what ages are reckoned from.
            score: what the column of the score is called.
            instead: the sentence that stands where there is no row.
        """
        before, at_before = self._cursor, self.cursor_row
        if rows is not self._rows:
            self._rows, self._at = rows, {row.name: i for i, row in enumerate(rows)}
        self._now, self._marked, self._order, self._instead = now, marked, order, instead
        self._labels = {"score": score}
        if not rows:
            self._cursor = None
        elif not self._moved:
            self._cursor = rows[0].name
        elif self._cursor not in self._at:
            self._cursor = rows[min(at_before or 0, len(rows) - 1)].name
        self._clamp()
        if self._cursor != before or self.cursor_row != at_before:
            self._keep_in_sight()
        self.redraw()
        if self._cursor != before:
            self.post_message(self.Moved())

    def choose(self, name: str) -> None:
        """Set the cursor on a checkpoint by its name."""
        self._cursor, self._moved = name, True
        if name in self._at:
            self.go_to(self._at[name])

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        self._shown = self.columns
        yield self._header(width)
        if not self._rows:
            yield self.strip(("text", ""), width=width)
            yield self.strip(("dim", pad(f"  {self._instead}", width)), width=width)
            return
        body = max(height - 1, 0)
        thumb = self._thumb(body)
        cursor = self.get_component_rich_style("checkpoints--cursor")
        highlight = Style(bgcolor=cursor.bgcolor, reverse=cursor.reverse)
        for y, row in enumerate(self._rows[self._top : self._top + body]):
            strip = self._row(row, width)
            if row.name == self._cursor:
                strip = Strip([Segment(s.text, s.style + highlight if s.style else highlight) for s in strip])
            yield Strip([*strip, *self._bar(y, thumb)])

    def _header(self, width: int) -> Strip:
        parts: list[Part] = [("dim", " " * _MARGIN)]
        for i, (column, cells) in enumerate(self._shown):
            sorts = column.key == self._order.key
            label = self._labels.get(column.key, column.label)
            label = f"{label} {self._order.glyph}" if sorts and cell_len(label) + 2 <= cells else label
            fit = pad_left if column.right else pad
            parts += [
                ("strong" if sorts else "dim", fit(label, cells)),
                ("dim", " " * (GAP if i + 1 < len(self._shown) else 0)),
            ]
        return self.strip(*parts, width=width)

    def _row(self, row: Row, width: int) -> Strip:
        parts: list[Part] = [
            ("strong", _CURSOR if row.name == self._cursor else " "),
            ("cursor", f"{MARK if row.name in self._marked else ' '} "),
        ]
        for column, cells in self._shown:
            tone, text = column.cell(row, self._now, cells)
            parts += [(tone, (pad_left if column.right else pad)(text, cells)), ("text", " " * GAP)]
        return self.strip(*parts, width=max(width - 1, 0))

    def _thumb(self, body: int) -> tuple[int, int] | None:
        """From which line to which the bar at the right is thick; None where all rows are in sight."""
        count = len(self._rows)
        if count <= body or body < 2:
            return None
        length = max(body * body // count, 1)
        start = (body - length) * self._top // (count - body)
        return start, start + length

    def _bar(self, y: int, thumb: tuple[int, int] | None) -> list[Segment]:
        if thumb is None:
            return [Segment(" ", self.tone("text"))]
        inside = thumb[0] <= y < thumb[1]
        return [Segment("┃" if inside else "│", self.tone("raw" if inside else "faint"))]

    @property
    def _body(self) -> int:
        """How many rows are in sight."""
        return max(self.size.height - 1, 1)

    def _clamp(self) -> None:
        self._top = min(max(self._top, 0), max(len(self._rows) - self._body, 0))

    def _keep_in_sight(self) -> None:
        at = self.cursor_row
        if at is not None:
            self._top = min(max(self._top, at - self._body + 1), at)

    def go_to(self, row: int) -> None:
        """Set the cursor on a row; beyond an end is the end."""
        if not self._rows:
            return
        self._cursor, self._moved = self._rows[min(max(row, 0), len(self._rows) - 1)].name, True
        self._keep_in_sight()
        self.redraw()
        self.post_message(self.Moved())

    def action_cursor_move(self, rows: int) -> None:
        self.go_to((self.cursor_row or 0) + rows)

    def action_cursor_page(self, pages: int) -> None:
        self.go_to((self.cursor_row or 0) + pages * max(self._body - 1, 1))

    def action_cursor_end(self, last: int) -> None:
        self.go_to(len(self._rows) - 1 if last else 0)

    def on_resize(self, event: events.Resize) -> None:
        self._clamp()
        self._keep_in_sight()
        super().on_resize(event)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.y == 0:
            key = self._column_at(event.x)
            if key is not None:
                self.post_message(self.SortAsked(key))
            return
        row = self._top + event.y - 1
        if row < len(self._rows):
            self.go_to(row)
            if event.chain == 2:
                self.post_message(self.Opened())

    def _column_at(self, x: int) -> str | None:
        start = _MARGIN
        for column, cells in self._shown:
            if start <= x < start + cells:
                return column.key
            start += cells + GAP
        return None

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(_WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-_WHEEL)

    def _scroll(self, rows: int) -> None:
        self._top += rows
        self._clamp()
        self.redraw()
