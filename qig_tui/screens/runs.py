"""The runs of a folder, to choose one from."""

import threading
import time
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Static

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_tui.journal import GLYPHS
from qig_tui.picture import WATCHED
from qig_tui.sources.runs import RunRow, RunShelf
from qig_tui.text import ABSENT, age, grouped, number, percent, safe

_LOOK_S = 1.0
_COLUMNS = (
    ("name", "run"),
    ("state", "state"),
    ("step", "step"),
    ("share", ""),
    ("phi", "Φ"),
    ("kappa", "κ"),
    ("loss", "loss"),
    ("drift", "drift"),
    ("worst", "safety"),
    ("age", "last sample"),
    ("id", "id"),
)
_KEYS = "enter open   q quit   ? help   t theme"
_RIGHT = {"step", "share", "phi", "kappa", "loss", "drift"}


class RunsTable(DataTable[Text]):
    """The table's own key opens; it has to say so for the help to list it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", tooltip="Open the run under the cursor"),
    ]


class RunsScreen(Screen[None]):
    """The newest first; enter opens one, escape comes back."""

    CSS_PATH = "runs.tcss"

    def __init__(self, root: Path, *, read_only: bool = False, frame_s: float | None = None) -> None:
        super().__init__()
        self._root = root
        self._read_only = read_only
        self._frame_s = frame_s
        self._stop = threading.Event()
        self._rows: dict[str, RunRow] = {}
        self._shown: dict[str, list[str]] = {}
        self.is_drawn = False

    def compose(self) -> ComposeResult:
        yield Static(Text(f"runs in {safe(self._root, 120)}"), id="runs-title")
        yield RunsTable(id="runs", cursor_type="row")
        yield Static(Text(_KEYS), id="runs-keys")

    def on_mount(self) -> None:
        table = self.query_one(RunsTable)
        for key, label in _COLUMNS:
            table.add_column(Text(label, justify="right" if key in _RIGHT else "left"), key=key)
        table.focus()
        self._read()

    def on_unmount(self) -> None:
        self._stop.set()

    @work(thread=True, exclusive=True, group="runs")
    def _read(self) -> None:
        shelf = RunShelf(self._root)
        while not self._stop.is_set():
            rows = shelf.look()
            if not self._stop.is_set():
                self.app.call_from_thread(self._show, rows)
            self._stop.wait(_LOOK_S)

    def _show(self, rows: list[RunRow]) -> None:
        """New runs below the ones that are there: the cursor keeps its row."""
        table = self.query_one(RunsTable)
        now = time.time()
        found = {row.run.id: row for row in rows}
        for gone in self._rows.keys() - found.keys():
            table.remove_row(gone)
            self._shown.pop(gone, None)
        for run_id, row in found.items():
            cells = _cells(row, now)
            before = self._shown.get(run_id)
            if before is None:
                table.add_row(*[_cell(text, i) for i, text in enumerate(cells)], key=run_id)
            else:
                for i, text in enumerate(cells):
                    if text != before[i]:
                        table.update_cell(
                            run_id, _COLUMNS[i][0], _cell(text, i), update_width=len(text) > len(before[i])
                        )
            self._shown[run_id] = cells
        self._rows = found
        self.tell_what_is_wrong()
        self.is_drawn = True

    @on(DataTable.RowHighlighted)
    def tell_what_is_wrong(self) -> None:
        """Beside the keys, why the run under the cursor cannot be read."""
        table = self.query_one(RunsTable)
        text = Text(_KEYS)
        if 0 <= table.cursor_row < table.row_count:
            row = self._rows.get(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value or "")
            if row is not None and row.error is not None:
                text.append(f"   ✖ {safe(row.error, 300)}", style="bold")
        self.query_one("#runs-keys", Static).update(text)

    @on(DataTable.RowSelected)
    def open_run(self, event: DataTable.RowSelected) -> None:
        event.stop()
        row = self._rows.get(event.row_key.value or "")
        if row is not None:
            self._open(row.run)

    def _open(self, run: RunDir) -> None:
        from qig_tui.screens.run import FRAME_S, RunScreen

        try:
            self.app.push_screen(RunScreen(run, read_only=self._read_only, frame_s=self._frame_s or FRAME_S))
        except RunFormatError as error:
            self.notify(safe(error, 300), severity="error", markup=False)


def _cells(row: RunRow, now: float) -> list[str]:
    name = safe(row.name, 28)
    if row.error is not None or row.liveness is None:
        return [name, "✖ UNREADABLE", *[ABSENT] * (len(_COLUMNS) - 3), safe(row.run.id, 28)]
    share = "" if not row.total or row.step is None else percent(min(max(row.step / row.total, 0.0), 1.0))
    unwatched = row.liveness.word not in WATCHED
    return [
        name,
        f"{row.liveness.glyph} {safe(row.liveness.text, 30)}",
        ABSENT if row.step is None else grouped(row.step),
        share,
        *[number(row.metrics.get(m)) for m in ("phi", "kappa", "loss", "drift_rolling")],
        f"{GLYPHS['unarmed']} was ok" if unwatched and row.worst == "ok" else f"{GLYPHS[row.worst]} {row.worst}",
        ABSENT if row.t is None else age(row.t, now),
        safe(row.run.id, 28),
    ]


def _cell(text: str, column: int) -> Text:
    key = _COLUMNS[column][0]
    return Text(text, justify="right" if key in _RIGHT else "left", no_wrap=True)
