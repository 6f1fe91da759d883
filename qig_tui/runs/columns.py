"""Columns of the table of runs: what stands in a cell, what is sorted by, what fits a width. No Textual, no disk."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qig_core.rundir.liveness import Word
from qig_tui import columns
from qig_tui.columns import GAP, NEWEST, Cell, Value
from qig_tui.journal import GLYPHS, STATES
from qig_tui.picture import WATCHED
from qig_tui.runs.filter import NO_RUN, NO_VERDICT, RUN_STATES, VERDICTS
from qig_tui.sources.runs import RunRow
from qig_tui.text import ABSENT, axis_label, clip, duration, grouped, number, percent, safe, sparkline

_TONES = {
    Word.LIVE: "ok",
    Word.SLOW: "warning",
    Word.BUSY: "accent",
    Word.PAUSED: "accent",
    Word.SILENT: "warning",
    Word.HUNG: "critical",
    Word.EXITED: "dim",
    Word.KILLED: "critical",
}
_ORDER = {state: i for i, state in enumerate(RUN_STATES)}
_ALERTS = {"ok": "ok", "warning": "warning", "critical": "critical"}

Column = columns.Column[RunRow]


def _name(row: RunRow, now: float, cells: int) -> Cell:
    return "strong", safe(row.name, cells)


def _state(row: RunRow, now: float, cells: int) -> Cell:
    if row.liveness is None:
        tone, whole = ("dim", f"{ABSENT} no run") if row.state == NO_RUN else ("critical", "✖ UNREADABLE")
        return tone, whole if len(whole) <= cells else whole[:1]
    word = row.liveness.word
    tone = "critical" if word == Word.EXITED and row.liveness.detail not in ("", "0") else _TONES[word]
    if cells < len(f"{row.liveness.glyph} {word}"):
        return tone, row.liveness.glyph
    whole = f"{row.liveness.glyph} {safe(row.liveness.text, 60)}"
    # What the word rests on is left out rather than cut: a cut number would be another one.
    return tone, whole if len(whole) <= cells else f"{row.liveness.glyph} {word}"


def _step(row: RunRow, now: float, cells: int) -> Cell:
    if row.step is None:
        return "dim", ABSENT
    whole = grouped(row.step)
    return "text", whole if len(whole) <= cells else axis_label(float(row.step), cells)


def _share(row: RunRow, now: float, cells: int) -> Cell:
    return "dim", "" if row.share is None else percent(row.share)


def _metric(name: str) -> Callable[[RunRow, float, int], Cell]:
    def cell(row: RunRow, now: float, cells: int) -> Cell:
        value = row.metrics.get(name)
        if value is None:
            return "dim", ABSENT
        text = number(value)
        return ("text" if math.isfinite(value) else "warning"), text if len(text) <= cells else axis_label(value, cells)

    return cell


def _trend(row: RunRow, now: float, cells: int) -> Cell:
    return "accent", sparkline(row.trend, cells)


def _alerts(row: RunRow, now: float, cells: int) -> Cell:
    if row.worst == NO_VERDICT or row.liveness is None:
        return "dim", ABSENT
    if row.worst not in ("warning", "critical"):
        if row.liveness.word not in WATCHED and row.worst == "ok":
            return "dim", f"{GLYPHS['unarmed']} was ok"
        return _ALERTS.get(row.worst, "dim"), f"{GLYPHS[row.worst]} {row.worst}"
    return row.worst, clip(f"{GLYPHS[row.worst]} {row.worst} {row.count}", cells)


def _age(row: RunRow, now: float, cells: int) -> Cell:
    found = row.number("age", now)
    if found is None:
        return "dim", ABSENT
    whole = "now" if found < 1 else duration(found)
    # Of years ago the hours are left out.
    return "dim", whole if len(whole) <= cells else clip(whole.rsplit(" ", 2)[0], cells)


def _id(row: RunRow, now: float, cells: int) -> Cell:
    return "dim", safe(row.id, cells)


def _of(name: str) -> Callable[[RunRow], Value | None]:
    return lambda row: row.number(name, 0.0)


COLUMNS = (
    Column(key="name", label="run", cells=16, grows=28, rank=0, cell=_name, value=lambda r: r.name.casefold()),
    Column(key="state", label="state", cells=12, grows=8, rank=1, cell=_state, value=lambda r: _ORDER[r.state]),
    Column(key="step", label="step", cells=9, rank=3, cell=_step, value=_of("step"), falling=True, right=True),
    Column(key="share", label="%", cells=5, rank=10, cell=_share, value=_of("share"), falling=True, right=True),
    Column(key="phi", label="Φ", cells=6, rank=4, cell=_metric("phi"), value=_of("phi"), falling=True, right=True),
    Column(key="trend", label="Φ trend", cells=12, rank=8, cell=_trend),
    Column(
        key="kappa", label="κ", cells=7, rank=7, cell=_metric("kappa"), value=_of("kappa"), falling=True, right=True
    ),
    Column(
        key="drift",
        label="drift",
        cells=7,
        rank=9,
        cell=_metric("drift_rolling"),
        value=_of("drift_rolling"),
        falling=True,
        right=True,
    ),
    Column(key="loss", label="loss", cells=7, rank=6, cell=_metric("loss"), value=_of("loss"), right=True),
    Column(
        key="alerts",
        label="alerts",
        cells=12,
        rank=2,
        cell=_alerts,
        value=lambda r: None if r.worst == NO_VERDICT else VERDICTS.index(r.worst) * 10_000 + r.count,
        falling=True,
    ),
    Column(
        key="age", label="age", cells=9, rank=5, cell=_age, value=lambda r: None if r.t is None else -r.t, right=True
    ),
    Column(key="id", label="id", cells=22, rank=11, cell=_id, value=lambda r: r.id),
)
_BY_KEY = {column.key: column for column in COLUMNS}
assert all(state in VERDICTS for state in STATES)


@dataclass(frozen=True)
class Order:
    """By which column the runs stand, and whether the other way round."""

    key: str = NEWEST
    turned: bool = False

    @classmethod
    def of(cls, text: str) -> "Order":
        """As it is remembered: the column, "-" before it for the other way round; what is unknown is the default."""
        key = text.removeprefix("-")
        known = key == NEWEST or (key in _BY_KEY and _BY_KEY[key].value is not None)
        return cls(key, text.startswith("-")) if known else cls()

    def __str__(self) -> str:
        return f"{'-' if self.turned else ''}{self.key}"

    @property
    def falling(self) -> bool:
        """Whether the greatest stands first."""
        return (self.key == NEWEST or _BY_KEY[self.key].falling) != self.turned

    @property
    def glyph(self) -> str:
        return "▼" if self.falling else "▲"

    @property
    def words(self) -> str:
        if self.key == NEWEST:
            return "oldest first" if self.turned else "newest first"
        return f"by {_BY_KEY[self.key].label} {self.glyph}"

    def sort(self, rows: Iterable[RunRow]) -> list[RunRow]:
        """Runs in this order; those that lack the value stand last, whichever way round. Equals: the newest first."""
        newest = sorted(rows, key=lambda row: (row.began, row.id), reverse=self.key != NEWEST or self.falling)
        value = None if self.key == NEWEST else _BY_KEY[self.key].value
        if value is None:
            return newest
        found: list[tuple[Value, RunRow]] = []
        unordered, missing = [], []
        for row in newest:
            known = value(row)
            if known is None:
                missing.append(row)
            elif known != known:
                unordered.append(row)
            else:
                found.append((known, row))
        found.sort(key=_first, reverse=self.falling)
        return [row for _, row in found] + unordered + missing


def _first(pair: tuple[Value, RunRow]) -> Value:
    return pair[0]


def sortable(shown: Sequence[tuple[Column, int]]) -> list[str]:
    """The columns on the screen that can be sorted by, after the order without one."""
    return [NEWEST, *(column.key for column, _ in shown if column.value is not None)]


def fitting(width: int) -> list[tuple[Column, int]]:
    """The columns that fit a width, as they stand, each with its cells; never none."""
    chosen, room = columns.kept(COLUMNS, width)
    if len(chosen) < 2:
        name, state = _BY_KEY["name"], _BY_KEY["state"]
        for needed in (state.cells, 1):
            # A state in words, or at least its glyph.
            if width - GAP - needed >= 3:
                return [(name, width - GAP - needed), (state, needed)]
        return [(name, max(width, 0))]
    shown = []
    for column in COLUMNS:
        if column.key in chosen:
            # The state's words first, then the name.
            kept = _BY_KEY["state"].grows if column.key == "name" and "age" in chosen else 0
            grown = min(column.grows, max(room - kept, 0))
            room -= grown
            shown.append((column, column.cells + grown))
    return shown
