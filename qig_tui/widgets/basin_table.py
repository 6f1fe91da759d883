"""A basin entry by entry: value, differences, share of the distance, where it came from. Sortable.

Draws the rows that are in sight and nothing else: a foreign basin may have thousands of entries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from qig_tui.basin.basins import SPARKS, shares
from qig_tui.picture import BasinView
from qig_tui.series import Floats, Ints
from qig_tui.text import ABSENT, grouped, pad, pad_left, percent, signed, thin_bar
from qig_tui.widgets.lines import Lines, Part

_GAP = 2
_MARGIN = 2
_WHEEL = 3
_BAR = 8
_HEAD = 2
"""The title, and what the columns are."""


@dataclass(frozen=True)
class _Column:
    key: str
    label: str
    cells: int
    size: Callable[["_Numbers"], Floats] | None
    """What it is sorted by, largest first; None: it is not."""


@dataclass(frozen=True)
class _Numbers:
    """What the cells are made of."""

    value: Floats
    to_reference: Floats
    to_previous: Floats | None
    share: Floats
    sparks: Sequence[str]


_COLUMNS = (
    _Column("index", "#", 3, lambda n: -np.arange(len(n.value), dtype=np.float64)),
    _Column("value", "value", 7, lambda n: n.value),
    _Column("reference", "Δ ref", 7, lambda n: np.abs(n.to_reference)),
    _Column("previous", "Δ prev", 7, lambda n: n.value * 0 if n.to_previous is None else np.abs(n.to_previous)),
    _Column("share", "share", 5 + _BAR, lambda n: n.share),
    _Column("path", "path", SPARKS, None),
)
SORTED = tuple(column.key for column in _COLUMNS if column.size is not None)


class BasinTable(Lines, can_focus=True):
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
        self._order: Ints = np.zeros(0, dtype=np.int64)
        self._key, self._reverse = SORTED[0], False
        self._entry = 0
        self._top = 0

    @property
    def row_count(self) -> int:
        return len(self._order)

    @property
    def entry(self) -> int:
        """The entry under the cursor."""
        return self._entry

    @property
    def entries(self) -> list[int]:
        """Which entry stands in each row."""
        return [int(i) for i in self._order]

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
        before, self._entry = self._entry, min(entry, len(basin.values) - 1)
        self._arrange(keep_in_sight=before != self._entry or len(self._order) != len(basin.values))

    def sort(self, key: str, *, reverse: bool) -> None:
        """Args: key: one of SORTED; reverse: smallest first, for the index the last first."""
        self._key, self._reverse = key, reverse
        self._arrange(keep_in_sight=True)

    def _arrange(self, *, keep_in_sight: bool) -> None:
        if self._numbers is None:
            return
        size = next(column.size for column in _COLUMNS if column.key == self._key)
        assert size is not None
        order = np.argsort(-size(self._numbers), kind="stable")
        self._order = order[::-1] if self._reverse else order
        if keep_in_sight:
            self._keep_in_sight()
        self._clamp()
        self.redraw()

    def go_to(self, entry: int) -> None:
        """Set the cursor on an entry."""
        self._entry = min(max(entry, 0), max(len(self._order) - 1, 0))
        self._keep_in_sight()
        self.redraw()

    @property
    def _row(self) -> int:
        found = np.flatnonzero(self._order == self._entry)
        return int(found[0]) if len(found) else 0

    @property
    def _body(self) -> int:
        return max(self.size.height - _HEAD, 1)

    def _clamp(self) -> None:
        self._top = min(max(self._top, 0), max(len(self._order) - self._body, 0))

    def _keep_in_sight(self) -> None:
        row = self._row
        self._top = min(max(self._top, row - self._body + 1), row)

    @property
    def _columns(self) -> list[_Column]:
        """Those that fit; the line of the path goes first, then the difference to the one before."""
        shown = list(_COLUMNS)
        for key in ("path", "previous", "share", "reference"):
            if _MARGIN + sum(column.cells + _GAP for column in shown) <= self.size.width:
                break
            shown = [column for column in shown if column.key != key]
        return shown

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        yield self.heading(width, self._title, self._aside)
        numbers = self._numbers
        if numbers is None:
            return
        columns = self._columns
        yield self._header(columns, width)
        body = max(height - _HEAD, 0)
        widest = float(numbers.share.max(initial=0.0)) or 1.0
        cursor = self.get_component_rich_style("basin--cursor")
        highlight = Style(bgcolor=cursor.bgcolor, reverse=cursor.reverse)
        thumb = self._thumb(body)
        for y, entry in enumerate(self._order[self._top : self._top + body].tolist()):
            is_mine = entry == self._entry
            parts: list[Part] = [("strong", "▸ " if is_mine else "  ")]
            for column in columns:
                parts += [*_cell(column, numbers, entry, widest), ("text", " " * _GAP)]
            strip = self.strip(*parts, width=max(width - 1, 0))
            if is_mine:
                strip = Strip([Segment(s.text, s.style + highlight if s.style else highlight) for s in strip])
            yield Strip([*strip, *self._bar(y, thumb)])

    def _header(self, columns: Sequence[_Column], width: int) -> Strip:
        parts: list[Part] = [("dim", " " * _MARGIN)]
        for column in columns:
            sorts = column.key == self._key
            down = self._reverse == (column.key == SORTED[0])
            label = f"{column.label}{'▼' if down else '▲'}" if sorts else column.label
            fit = pad if column.key in ("share", "path") else pad_left
            parts += [("strong" if sorts else "dim", fit(label, column.cells)), ("dim", " " * _GAP)]
        return self.strip(*parts, width=width)

    def _thumb(self, body: int) -> tuple[int, int] | None:
        count = len(self._order)
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

    def action_cursor_move(self, rows: int) -> None:
        if len(self._order):
            row = min(max(self._row + rows, 0), len(self._order) - 1)
            self.post_message(self.Chosen(int(self._order[row])))

    def action_cursor_page(self, pages: int) -> None:
        self.action_cursor_move(pages * max(self._body - 1, 1))

    def action_cursor_end(self, last: int) -> None:
        self.action_cursor_move(len(self._order) if last else -len(self._order))

    def action_sort_next(self) -> None:
        self.post_message(self.Sorted(SORTED[(SORTED.index(self._key) + 1) % len(SORTED)], False))

    def action_reverse(self) -> None:
        self.post_message(self.Sorted(self._key, not self._reverse))

    def on_resize(self, event: events.Resize) -> None:
        self._clamp()
        self._keep_in_sight()
        super().on_resize(event)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.y == 1:
            key = self._column_at(event.x)
            if key is not None:
                self.post_message(self.Sorted(key, key == self._key and not self._reverse))
            return
        row = self._top + event.y - _HEAD
        if 0 <= row - self._top and row < len(self._order):
            self.post_message(self.Chosen(int(self._order[row])))

    def _column_at(self, x: int) -> str | None:
        start = _MARGIN
        for column in self._columns:
            if start <= x < start + column.cells + _GAP:
                return column.key if column.size is not None else None
            start += column.cells + _GAP
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


def _cell(column: _Column, numbers: _Numbers, entry: int, widest: float) -> list[Part]:
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
            filled, rest = thin_bar(share / widest, _BAR)
            return [("text", f"{percent(share):>4} "), ("accent", filled), ("faint", rest)]
    spark = numbers.sparks[entry] if entry < len(numbers.sparks) else ""
    return [("raw", pad(spark, column.cells))]


def _change(value: float, cells: int) -> Part:
    """What is shown as nothing steps back."""
    text = signed(value, 5)
    return ("dim" if not text.strip("+−.0") else "text", pad_left(text, cells))
