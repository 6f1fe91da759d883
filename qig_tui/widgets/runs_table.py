"""The table of runs. Reads nothing."""

from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.strip import Strip

from qig_tui.columns import GAP
from qig_tui.runs.columns import Column, Order, fitting
from qig_tui.sources.runs import RunRow
from qig_tui.text import pad, pad_left
from qig_tui.widgets.lines import Lines, Part
from qig_tui.widgets.rows import MARK as MARK
from qig_tui.widgets.rows import Table


class RunsTable(Table[RunRow, Column]):
    """Keeps its place by the run's id, and on the same line of the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_move(-1)", "up", key_display="↑", tooltip="The run above"),
        Binding("down,j", "cursor_move(1)", "down", key_display="↓", tooltip="The run below"),
        Binding("pageup", "cursor_page(-1)", "page up", tooltip="A screenful up"),
        Binding("pagedown", "cursor_page(1)", "page down", tooltip="A screenful down"),
        Binding("home", "cursor_end(0)", "first", tooltip="The first run"),
        Binding("end", "cursor_end(1)", "last", tooltip="The last run"),
    ]
    DEFAULT_CSS = """
    RunsTable { height: 1fr; background: $background; }
    RunsTable > .runs--cursor { background: $primary 22%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"runs--cursor"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._wanted: str | None = None
        """The run that was gone to: the cursor comes back to it when a filter lets it be seen again."""
        self._order = Order()
        self._now = 0.0

    def key(self, item: RunRow) -> str:
        return item.id

    @property
    def columns(self) -> list[tuple[Column, int]]:
        return fitting(max(self.size.width - self.MARGIN - 1, 1))

    def label(self, column: Column, cells: int, *, sorts: bool) -> str:
        label = f"{column.label} {self._order.glyph}" if sorts else column.label
        return label if cell_len(label) <= cells else ""

    def cell(self, item: RunRow, column: Column, cells: int) -> Iterable[Part]:
        tone, text = column.cell(item, self._now, cells)
        yield tone, (pad_left if column.right else pad)(text, cells)

    def show(
        self,
        rows: Sequence[RunRow],
        *,
        now: float,
        marked: Collection[str] = (),
        order: Order = Order(),  # noqa: B008  # frozen
        instead: str = "",
        settled: bool = True,
    ) -> None:
        """Draw the rows in the order given.

        Args:
            now: what ages are reckoned from.
            instead: the sentence that stands where there is no row.
            settled: False while rows are read for the first time: until somebody moves it, the cursor stays at the top.
        """
        before, at, top = self._key, self.cursor_row, self._top
        is_seen = at is not None and top <= at < top + self.body
        line = at if at is not None and is_seen else top
        anchor = self.key(self.items[line]) if line < len(self.items) else None
        self._now, self._marked, self._order, self._instead = now, marked, order, instead
        self._sort_key = order.key
        if rows is not self.items:
            self.take(rows, *(() if self._wanted is None else (self._wanted, before)))
        if settled and self._wanted is None and self.current is not None:
            self._wanted = self.current.id
        anchored = self.row_of(anchor) if top else None
        if anchored is not None:
            self._top = anchored - (line - top)
        self.settle(on_cursor=anchor == before or self._key != before)
        if self._key != before:
            self.post_message(self.Moved())

    def move_to(self, row: int) -> None:
        super().move_to(row)
        self._wanted = None if self.current is None else self.current.id


class BarLine(Lines):
    """One line: the most needed on the left, cut where it must be; on the right keys, as many as there is room for."""

    DEFAULT_CSS = """
    BarLine { height: 1; background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Sequence[Part] = ()
        self._keys: Sequence[tuple[str, str]] = ()
        self._needed = 0

    def show(self, left: Sequence[Part], keys: Sequence[tuple[str, str]] = (), *, needed: int = 0) -> None:
        """Args: keys: the most needed first; needed: how many of them stay at any width, if without a word."""
        self._left, self._keys, self._needed = left, keys, needed
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        kept = sum(cell_len(key) + GAP for key, _ in self._keys[: self._needed])
        left: list[Part] = [("text", " ")] if width > 1 else []
        room = max(width - 2 - kept, 0)
        for tone, text in self._left:
            shown = pad(text, min(cell_len(text), room))
            left.append((tone, shown))
            room -= cell_len(shown)
        room = width - sum(cell_len(text) for _, text in left) - 1
        right: list[Part] = []
        for index, (key, label) in enumerate(self._keys):
            gap = GAP if right or self._left else 0
            later = sum(cell_len(k) + GAP for k, _ in self._keys[index + 1 : self._needed])
            word = f" {label}" if gap + cell_len(key) + cell_len(label) + 1 + later <= room else ""
            if (not word and index >= self._needed) or gap + cell_len(key) > room:
                break
            right += [("text", " " * gap), ("strong", key), ("dim", word)]
            room -= gap + cell_len(key) + cell_len(word)
        between = " " * max(room, 0) if self._left else ""
        yield self.strip(*left, ("text", between), *right, width=width)
