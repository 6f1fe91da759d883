"""The newest basin entry by entry: value, difference to the reference and to the one before. Sortable."""

from collections.abc import Callable
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from qig_tui.picture import BasinView
from qig_tui.text import percent, signed, thin_bar

_COLUMNS = (
    ("index", "#"),
    ("value", "value"),
    ("reference", "Δ ref"),
    ("previous", "Δ prev"),
    ("share", "share"),
)


_ROWS = 4096
"""More would take seconds to fill, and nobody reads so many."""


class BasinTable(DataTable[Text]):
    """64 rows; only the cells that changed are sent again. A header, or `o`, sorts by a column."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "sort_next", "sort", tooltip="Sort the basin table by the next column"),
        Binding("O", "reverse", "reverse", tooltip="Turn the order of the basin table round"),
    ]
    DEFAULT_CSS = """
    BasinTable { height: 1fr; background: $background; scrollbar-size-vertical: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=False)
        self._shown: list[list[str]] = []
        self._numbers: list[tuple[float, ...]] = []
        self._sorted_by = 0
        self._reverse = False

    def on_mount(self) -> None:
        for key, label in _COLUMNS:
            self.add_column(Text(label, justify="left" if key == "share" else "right"), key=key)

    def show(self, basin: BasinView | None) -> None:
        if basin is None or not self.columns:
            return
        total = float(abs(basin.to_reference).sum()) or 1.0
        numbers: list[tuple[float, ...]] = []
        cells: list[list[str]] = []
        for i, value in enumerate(basin.values[:_ROWS].tolist()):
            reference = float(basin.to_reference[i])
            previous = 0.0 if basin.to_previous is None else float(basin.to_previous[i])
            share = abs(reference) / total
            numbers.append((float(i), value, reference, previous, share))
            cells.append(
                [
                    f"{i:02d}",
                    f"{value:.5f}",
                    signed(reference, 5),
                    "–" if basin.to_previous is None else signed(previous, 5),
                    f"{percent(share):>4} {thin_bar(share * 4, 8)[0]}",
                ]
            )
        self._numbers = numbers
        if len(cells) != self.row_count:
            self.clear()
            for i, row in enumerate(cells):
                self.add_row(*[_cell(text, c) for c, text in enumerate(row)], key=str(i))
        else:
            for i, row in enumerate(cells):
                for c, text in enumerate(row):
                    if text != self._shown[i][c]:
                        self.update_cell(str(i), _COLUMNS[c][0], _cell(text, c))
        self._shown = cells

    def _sort(self) -> None:
        column = self._sorted_by
        row = self.cursor_coordinate.row
        key: Callable[[Any], float] = lambda cell: self._numbers[int(cell.plain)][column]  # noqa: E731  # typed lambda
        self.sort("index", key=key, reverse=self._reverse)
        self.cursor_coordinate = Coordinate(row, 0)

    @on(DataTable.HeaderSelected)
    def sort_by_header(self, event: DataTable.HeaderSelected) -> None:
        event.stop()
        keys = [key for key, _ in _COLUMNS]
        column = keys.index(event.column_key.value or "index")
        self._reverse = not self._reverse if column == self._sorted_by else column > 0
        self._sorted_by = column
        self._sort()

    def action_sort_next(self) -> None:
        self._sorted_by = (self._sorted_by + 1) % len(_COLUMNS)
        self._reverse = self._sorted_by > 0
        self._sort()

    def action_reverse(self) -> None:
        self._reverse = not self._reverse
        self._sort()


def _cell(text: str, column: int) -> Text:
    return Text(text, justify="left" if column == len(_COLUMNS) - 1 else "right", no_wrap=True)
