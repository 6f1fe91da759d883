"""A basin entry by entry: value, differences, share of the distance, where it came from. Sortable.

Draws the rows that are in sight and nothing else: a foreign basin may have thousands of entries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_tui.basin.basins import SPARKS, shares
from qig_tui.picture import BasinView
from qig_tui.series import Floats
from qig_tui.text import ABSENT, grouped, pad, pad_left, percent, signed, thin_bar
from qig_tui.widgets.lines import Part
from qig_tui.widgets.rows import GAP, Table

_BAR = 8


@dataclass(frozen=True)
class _Column:
    key: str
    label: str
    cells: int
    value: Callable[["_Numbers"], Floats] | None
    """What it is sorted by, largest first; None: it is not."""
    right: bool = True


@dataclass(frozen=True)
class _Numbers:
    """What the cells are made of."""

    value: Floats
    to_reference: Floats
    to_previous: Floats | None
    share: Floats
    sparks: Sequence[str]

    @cached_property
    def widest(self) -> float:
        """The largest share; 1 where there is none."""
        return float(self.share.max(initial=0.0)) or 1.0


_COLUMNS = (
    _Column("index", "#", 3, lambda n: -np.arange(len(n.value), dtype=np.float64)),
    _Column("value", "value", 7, lambda n: n.value),
    _Column("reference", "Δ ref", 7, lambda n: np.abs(n.to_reference)),
    _Column("previous", "Δ prev", 7, lambda n: n.value * 0 if n.to_previous is None else np.abs(n.to_previous)),
    _Column("share", "share", 5 + _BAR, lambda n: n.share, right=False),
    _Column("path", "path", SPARKS, None, right=False),
)
SORTED = tuple(column.key for column in _COLUMNS if column.value is not None)


class BasinTable(Table[int, _Column]):
    """One row for each entry. The cursor stays on its entry, whatever its row; home and end belong to time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_move(-1)", "up", show=False, tooltip="The row above"),
        Binding("down,j", "cursor_move(1)", "down", show=False, tooltip="The row below"),
        Binding("pageup", "cursor_page(-1)", "page up", show=False, tooltip="A screenful of rows up"),
        Binding("pagedown", "cursor_page(1)", "page down", show=False, tooltip="A screenful of rows down"),
        Binding("ctrl+home", "cursor_end(0)", "first", show=False, tooltip="The first row"),
        Binding("ctrl+end", "cursor_end(1)", "last", show=False, tooltip="The last row"),
        Binding("o", "sort_next", "sort", tooltip="Sort the basin table by the next column"),
        Binding("O", "reverse", "reverse", tooltip="Turn the order of the basin table round"),
    ]
    MARGIN = 2
    REACH = GAP
    DEFAULT_CSS = """
    BasinTable { height: 1fr; background: $background; }
    BasinTable > .basin--cursor { background: $primary 22%; }
    BasinTable:ansi > .basin--cursor { background: ansi_default; text-style: reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"basin--cursor"}

    class Chosen(Message):
        """The cursor is to stand on another entry."""

        def __init__(self, entry: int) -> None:
            super().__init__()
            self.entry = entry

    class Sorted(Message):
        """Somebody wants another order."""

        def __init__(self, key: str, reverse: bool) -> None:
            super().__init__()
            self.key, self.reverse = key, reverse

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._numbers: _Numbers | None = None
        self._title: Sequence[Part] = ()
        self._aside: Sequence[Part] = ()
        self._sort_key, self._reverse = SORTED[0], False

    def key(self, item: int) -> int:
        return item

    @property
    def head(self) -> int:
        return 2

    @property
    def entry(self) -> int:
        """The entry under the cursor."""
        return self.current or 0

    @property
    def entries(self) -> list[int]:
        """Which entry stands in each row."""
        return list(self.items)

    def show(
        self,
        basin: BasinView,
        sparks: Sequence[str] = (),
        *,
        entry: int = 0,
        title: Sequence[Part] = (),
        aside: Sequence[Part] = (),
    ) -> None:
        """Draw a basin.

        Args:
            sparks: a line for each entry, or for the first ones.
            entry: the one under the cursor; beyond the last it is the last.
        """
        reference = basin.values - basin.to_reference
        self._title, self._aside = title, aside
        self._numbers = _Numbers(
            basin.values, basin.to_reference, basin.to_previous, shares(basin.values, reference), sparks
        )
        entry = min(entry, len(basin.values) - 1)
        self._arrange(entry, on_cursor=entry != self.entry or self.row_count != len(basin.values))

    def sort(self, key: str, *, reverse: bool) -> None:
        """Args: key: one of SORTED; reverse: smallest first, for the index the last first."""
        self._sort_key, self._reverse = key, reverse
        self._arrange(self.entry, on_cursor=True)

    def _arrange(self, entry: int, *, on_cursor: bool) -> None:
        if self._numbers is None:
            return
        value = next(column.value for column in _COLUMNS if column.key == self._sort_key)
        assert value is not None
        order = np.argsort(-value(self._numbers), kind="stable")
        self.take((order[::-1] if self._reverse else order).tolist(), entry)
        self.settle(on_cursor=on_cursor)

    def go_to(self, entry: int) -> None:
        """Set the cursor on an entry."""
        self.put(self.row_of(min(max(entry, 0), max(self.row_count - 1, 0))) or 0)
        self.settle()

    def move_to(self, row: int) -> None:
        self.post_message(self.Chosen(self.items[min(max(row, 0), self.row_count - 1)]))

    def pressed(self, row: int, chain: int) -> None:
        self.move_to(row)

    @property
    def columns(self) -> list[tuple[_Column, int]]:
        """Those that fit; the line of the path goes first, then the difference to the one before."""
        shown = list(_COLUMNS)
        for key in ("path", "previous", "share", "reference"):
            if self.MARGIN + sum(column.cells + GAP for column in shown) <= self.size.width:
                break
            shown = [column for column in shown if column.key != key]
        return [(column, column.cells) for column in shown]

    def label(self, column: _Column, cells: int, *, sorts: bool) -> str:
        down = self._reverse == (column.key == SORTED[0])
        return f"{column.label}{'▼' if down else '▲'}" if sorts else column.label

    def sign(self, item: int) -> Part:
        return "strong", " "

    def cell(self, item: int, column: _Column, cells: int) -> Iterable[Part]:
        return () if self._numbers is None else _cell(column, self._numbers, item)

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        yield self.heading(width, self._title, self._aside)
        if self._numbers is not None:
            yield from super().lines(width, height)

    def sort_by(self, key: str) -> None:
        self.post_message(self.Sorted(key, key == self._sort_key and not self._reverse))

    def action_sort_next(self) -> None:
        self.post_message(self.Sorted(SORTED[(SORTED.index(self._sort_key) + 1) % len(SORTED)], False))

    def action_reverse(self) -> None:
        self.post_message(self.Sorted(self._sort_key, not self._reverse))


def _cell(column: _Column, numbers: _Numbers, entry: int) -> list[Part]:
    match column.key:
        case "index":
            return [("dim", pad_left(f"{entry:02d}" if entry < 1000 else grouped(entry), column.cells))]
        case "value":
            return [("text", pad_left(f"{numbers.value[entry]:.5f}", column.cells))]
        case "reference":
            return [_change(float(numbers.to_reference[entry]), column.cells)]
        case "previous":
            if numbers.to_previous is None:
                return [("dim", pad_left(ABSENT, column.cells))]
            return [_change(float(numbers.to_previous[entry]), column.cells)]
        case "share":
            share = float(numbers.share[entry])
            filled, rest = thin_bar(share / numbers.widest, _BAR)
            return [("text", f"{percent(share):>4} "), ("accent", filled), ("faint", rest)]
    spark = numbers.sparks[entry] if entry < len(numbers.sparks) else ""
    return [("raw", pad(spark, column.cells))]


def _change(value: float, cells: int) -> Part:
    """What is shown as nothing steps back."""
    text = signed(value, 5)
    return ("dim" if not text.strip("+−.0") else "text", pad_left(text, cells))
