"""Which metrics have a chart and in which order: a list to pin, hide and move in."""

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import Button, DataTable, Static

from qig_tui.charting import chart_metrics
from qig_tui.memory import Remembered
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.text import grouped, quantity, safe


@dataclass(frozen=True, kw_only=True)
class ChosenMetrics:
    """What the list was left with."""

    pinned: tuple[str, ...]
    hidden: tuple[str, ...]
    lead: str = ""
    """The metric to put into the first chart; empty: none in particular."""


class MetricsTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "large", tooltip="Put this metric into the large chart, and keep the choice"),
    ]


class MetricsScreen(Dialog[ChosenMetrics]):
    """Dismissed with the choice; None changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "show", "show or hide", tooltip="Give this metric a chart, or none"),
        Binding("p", "pin", "pin", tooltip="Put this metric in front, or back into its place"),
        Binding("shift+up,K", "move(-1)", "up", tooltip="Move this metric forward among the pinned ones"),
        Binding("shift+down,J", "move(1)", "down", tooltip="Move this metric backward among the pinned ones"),
        Binding("k", "keep", "keep", tooltip="Keep the choice and close"),
        Binding("a", "all", "all", tooltip="Show every metric in its own order again"),
    ]

    def __init__(self, picture: RunPicture, remembered: Remembered) -> None:
        super().__init__("Metrics")
        self._picture = picture
        known = chart_metrics(picture, 1 << 16)
        self._known = known
        self._pinned = list(remembered.pinned)
        self._hidden = set(remembered.hidden)

    def compose_body(self) -> ComposeResult:
        yield MetricsTable(cursor_type="row", zebra_stripes=False)
        yield Static(Text("space show or hide · p pin · K J move · a all again · enter into the large chart · k keep"))

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Keep  k", id="keep", variant="primary", compact=True)

    def on_mount(self) -> None:
        table = self.query_one(MetricsTable)
        for label in ("", "metric", "what it is", "last", "min", "max", "points"):
            table.add_column(Text(label, justify="right" if label in ("last", "min", "max", "points") else "left"))
        self._fill()
        table.focus()

    def _order(self) -> list[str]:
        pinned = [name for name in self._pinned if name in self._known]
        return pinned + [name for name in self._known if name not in pinned]

    def _fill(self, at: str | None = None) -> None:
        table, picture = self.query_one(MetricsTable), self._picture
        table.clear()
        for name in self._order():
            series = picture.history.series(name)
            low, high = series.extremes or (None, None)
            mark = "★ pinned" if name in self._pinned else "– hidden" if name in self._hidden else "✓ shown"
            last = None if series.last is None else series.last[1]
            unit = picture.spec(name).unit
            numbers = [*(quantity(value, unit) for value in (last, low, high)), grouped(series.seen)]
            what = f"{safe(picture.spec(name).label, 28)}"
            table.add_row(
                Text(mark),
                Text(safe(name, 24)),
                Text(what),
                *[Text(text, justify="right") for text in numbers],
                key=name,
            )
        if at is not None:
            table.move_cursor(row=self._order().index(at))

    def _under_cursor(self) -> str | None:
        table = self.query_one(MetricsTable)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value

    def action_show(self) -> None:
        name = self._under_cursor()
        if name is not None:
            self._hidden ^= {name}
            if name in self._hidden and name in self._pinned:
                self._pinned.remove(name)
            self._fill(name)

    def action_pin(self) -> None:
        name = self._under_cursor()
        if name is None:
            return
        if name in self._pinned:
            self._pinned.remove(name)
        else:
            self._pinned.append(name)
            self._hidden.discard(name)
        self._fill(name)

    def action_move(self, direction: int) -> None:
        name = self._under_cursor()
        if name is None:
            return
        if name not in self._pinned:
            self.action_pin()
            return
        here = [other for other in self._pinned if other in self._known]
        at = here.index(name)
        to = min(max(at + direction, 0), len(here) - 1)
        here[at], here[to] = here[to], here[at]
        self._pinned = here + [other for other in self._pinned if other not in self._known]
        self._fill(name)

    def action_all(self) -> None:
        self._pinned, self._hidden = [], set()
        self._fill()

    def action_keep(self) -> None:
        self._leave("")

    @on(DataTable.RowSelected)
    def enlarge(self, event: DataTable.RowSelected) -> None:
        event.stop()
        name = event.row_key.value or ""
        self._hidden.discard(name)
        self._leave(name)

    def _leave(self, lead: str) -> None:
        self.dismiss(ChosenMetrics(pinned=tuple(self._pinned), hidden=tuple(sorted(self._hidden)), lead=lead))
