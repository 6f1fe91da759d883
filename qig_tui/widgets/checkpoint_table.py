"""The table of checkpoints. Reads nothing."""

from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType

from qig_tui.checkpoints.columns import Column, Order, fitting
from qig_tui.checkpoints.rows import Row
from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Part
from qig_tui.widgets.rows import Table


class CheckpointTable(Table[Row, Column]):
    """Keeps its place by the checkpoint's name."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_move(-1)", "up", key_display="↑", tooltip="The checkpoint above"),
        Binding("down,j", "cursor_move(1)", "down", key_display="↓", tooltip="The checkpoint below"),
        Binding("pageup", "cursor_page(-1)", "page up", tooltip="A screenful up"),
        Binding("pagedown", "cursor_page(1)", "page down", tooltip="A screenful down"),
        Binding("ctrl+home", "cursor_end(0)", "first", tooltip="The first row"),
        Binding("ctrl+end", "cursor_end(1)", "last", tooltip="The last row"),
    ]
    DEFAULT_CSS = """
    CheckpointTable { height: 1fr; background: $background; }
    CheckpointTable > .checkpoints--cursor { background: $primary 22%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"checkpoints--cursor"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._moved = False
        """Whether somebody chose the row; until then the cursor stays at the top."""
        self._order = Order()
        self._score = ""
        self._now = 0.0

    def key(self, item: Row) -> str:
        return item.name

    @property
    def columns(self) -> list[tuple[Column, int]]:
        return fitting(max(self.size.width - self.MARGIN - 1, 1))

    def label(self, column: Column, cells: int, *, sorts: bool) -> str:
        label = self._score if self._score and column.key == "score" else column.label
        return f"{label} {self._order.glyph}" if sorts and cell_len(label) + 2 <= cells else label

    def cell(self, item: Row, column: Column, cells: int) -> Iterable[Part]:
        tone, text = column.cell(item, self._now, cells)
        yield tone, (pad_left if column.right else pad)(text, cells)

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
        before = self._key, self.cursor_row
        self._now, self._marked, self._order, self._score, self._instead = now, marked, order, score, instead
        self._sort_key = order.key
        if not rows:
            self._key = None
        self.take(rows, *((self._key,) if self._moved else ()))
        self.settle(on_cursor=(self._key, self.cursor_row) != before)
        if self._key != before[0]:
            self.post_message(self.Moved())

    def choose(self, name: str) -> None:
        """Set the cursor on a checkpoint by its name; on one that is not there yet as soon as it is."""
        row = self.row_of(name)
        if row is not None:
            self.move_to(row)
        else:
            self._key, self._at, self._moved = name, 0, True

    def move_to(self, row: int) -> None:
        self._moved = True
        super().move_to(row)
