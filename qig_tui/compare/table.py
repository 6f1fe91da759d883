"""The table below the charts of a comparison: colour, state, best and last of each run, as tone and text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from qig_core.rundir.liveness import ENDED, Word
from qig_tui.compare.comparing import ComparedRun, Comparison
from qig_tui.text import ABSENT, clip, grouped, number, pad, pad_left, percent, safe

Part = tuple[str, str]
Row = list[Part]
GAP = 2
_NAME = (12, 32)
_STATE = (10, 20)
_VALUE = 8
_PLACE = 9
_GROWN_FROM = 100
_MARGIN = 6
"""Cells for the cursor, a line's colour and its letter."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table of runs."""

    key: str
    label: str
    cells: int
    cell: Callable[[ComparedRun], Part]
    value: Callable[[ComparedRun], float | str | None]
    """What is sorted by."""
    falling: bool = False
    """Whether the greatest comes first."""
    grows: int = 0
    """To how many cells, where it holds more."""


@dataclass(kw_only=True)
class RunsPage:
    """The legend: each run with its line's colour and letter, its state, and its best and last values."""

    comparison: Comparison
    metrics: Sequence[str]
    """Those in sight, the leading one first."""
    cursor: int | None = None
    """The place at which the leading metric is read."""
    sorted_by: str = ""
    turned: bool = False
    width: int = 0
    """For which the columns were chosen last."""
    title: str = "runs"

    @property
    def count(self) -> int:
        return len(self.comparison.runs)

    def ordered(self) -> list[ComparedRun]:
        """The runs as they stand; those without the value last."""
        column = next((c for c in self._every() if c.key == self.sorted_by), None)
        runs = self.comparison.runs
        if column is None:
            return list(reversed(runs)) if self.turned else list(runs)
        known = [(value, run) for run in runs if (value := column.value(run)) is not None and value == value]
        known.sort(key=_value, reverse=column.falling != self.turned)
        ordered = [run for _, run in known]
        return ordered + [run for run in runs if run not in ordered]

    def header(self, width: int) -> Row:
        self.width = width
        parts: Row = [("dim", " " * _MARGIN)]
        for column, cells in self._fitting(width):
            sorts = column.key == self.sorted_by
            glyph = ("▼" if column.falling != self.turned else "▲") if sorts else ""
            fit = pad if column.key in ("name", "state") else pad_left
            label = f"{clip(column.label, cells - 2)} {glyph}" if sorts else column.label
            parts += [("strong" if sorts else "dim", fit(label, cells)), ("dim", " " * GAP)]
        return parts

    def rows(self, width: int) -> list[Row]:
        columns = self._fitting(width)
        return [self._row(run, width, columns) for run in self.ordered()]

    def wanted(self) -> int:
        return self.count

    def sort_next(self) -> None:
        """By the next of the columns in sight, in a circle."""
        keys = ["", *(column.key for column, _ in self._fitting(self.width))]
        at = keys.index(self.sorted_by) if self.sorted_by in keys else 0
        self.sorted_by, self.turned = keys[(at + 1) % len(keys)], False

    def _row(self, run: ComparedRun, width: int, columns: Sequence[tuple[Column, int]]) -> Row:
        hidden = run.place in self.comparison.hidden
        tone = f"run{run.place}{'-dim' if hidden else ''}"
        parts: Row = [(tone, f"{'╌' if hidden else '━'} {run.letter} ")]
        for column, cells in columns:
            shade, text = column.cell(run)
            if run.problem is not None and column.key == "state":
                room = width - _MARGIN - sum(cell_len(t) for _, t in parts[1:])
                return [*parts, ("critical", clip(f"✖ {safe(run.problem, 300)}", room))]
            fit = pad if column.key in ("name", "state") else pad_left
            shade = "dim" if hidden and shade in ("text", "strong") else shade
            parts += [(shade, fit(text, cells)), ("text", " " * GAP)]
        return parts

    def _fitting(self, width: int) -> list[tuple[Column, int]]:
        """The first columns that fit; name and state as wide as what stands in them, within reason."""
        room = width - _MARGIN
        chosen: list[tuple[Column, int]] = []
        for column in self._every():
            cells = column.cells
            if column.grows and width >= _GROWN_FROM:
                longest = max((cell_len(column.cell(run)[1]) for run in self.comparison.runs), default=0)
                cells = min(max(cells, longest), column.grows)
            if room < cells + GAP and chosen:
                break
            chosen.append((column, cells))
            room -= cells + GAP
        return chosen

    def _every(self) -> list[Column]:
        comparison = self.comparison
        columns = [
            Column(
                key="name",
                label="run",
                cells=_NAME[0],
                grows=_NAME[1],
                cell=lambda r: ("strong", r.name),
                value=lambda r: r.name.casefold(),
            ),
            Column(
                key="state",
                label="state",
                cells=_STATE[0],
                grows=_STATE[1],
                cell=state_of,
                value=lambda r: state_of(r)[1],
            ),
            Column(key="step", label="step", cells=_PLACE, cell=_step_cell, value=_last_step, falling=True),
        ]
        for i, metric in enumerate(self.metrics):
            label, better = comparison.label(metric)[0], comparison.spec(metric).better
            columns.append(_metric_column(f"{metric}/last", label, _last(metric)))
            if i == 0 and self.cursor is not None:
                columns.append(_metric_column("cursor", "│ there", self._at_cursor(metric)))
            if better in ("lower", "higher"):
                columns += _best_columns(metric, "best", better, falling=better == "higher", with_step=i == 0)
            else:
                columns += _best_columns(metric, "min", "lower", falling=False, with_step=i == 0)
                columns += _best_columns(metric, "max", "higher", falling=True, with_step=i == 0)
        return columns

    def _at_cursor(self, metric: str) -> Callable[[ComparedRun], float | None]:
        def found(run: ComparedRun) -> float | None:
            line = run.line(metric, self.comparison.axis)
            return None if line is None or self.cursor is None else line.at(self.cursor)

        return found


def _value(pair: tuple[float | str, ComparedRun]) -> float | str:
    return pair[0]


def _metric_column(key: str, label: str, value: Callable[[ComparedRun], float | None]) -> Column:
    def cell(run: ComparedRun) -> Part:
        found = value(run)
        if found is None:
            return "dim", ABSENT
        return ("text" if math.isfinite(found) else "warning"), number(found)

    return Column(key=key, label=label, cells=_VALUE, cell=cell, value=value)


def _last(metric: str) -> Callable[[ComparedRun], float | None]:
    def value(run: ComparedRun) -> float | None:
        found = run.standing(metric).last
        return None if found is None or run.share is not None else found[1]

    return value


def _best_columns(metric: str, word: str, better: str, *, falling: bool, with_step: bool) -> list[Column]:
    def best(run: ComparedRun) -> tuple[int, float] | None:
        return None if run.share is not None else run.standing(metric).best(better)

    def value(run: ComparedRun) -> float | None:
        found = best(run)
        return None if found is None else found[1]

    def step(run: ComparedRun) -> Part:
        found = best(run)
        return ("dim", ABSENT) if found is None else ("dim", grouped(found[0]))

    column = _metric_column(f"{metric}/{word}", word, value)
    columns = [
        Column(key=column.key, label=word, cells=_VALUE, cell=column.cell, value=value, falling=falling),
    ]
    if with_step:
        where = f"{metric}/{word}/step"
        columns.append(
            Column(
                key=where,
                label="at step",
                cells=_PLACE,
                cell=step,
                value=lambda run: None if (found := best(run)) is None else found[0],
                falling=True,
            )
        )
    return columns


def state_of(run: ComparedRun) -> Part:
    """Glyph and word of a run's state, or how far it has been read."""
    if run.problem is not None:
        return "critical", "✖ UNREADABLE"
    if run.share is not None:
        return "accent", f"reading {percent(run.share)}"
    if run.liveness is None:
        return "dim", ABSENT
    word = run.liveness.word
    failed = word in (Word.HUNG, Word.KILLED) or (word == Word.EXITED and run.liveness.detail not in ("", "0"))
    tone = "critical" if failed else "dim" if word in ENDED else "warning" if word == Word.SILENT else "ok"
    brief = run.liveness.text if word == Word.EXITED else str(word)
    return tone, f"{run.liveness.glyph} {safe(brief, 20)}"


def _last_step(run: ComparedRun) -> int | None:
    return None if run.history is None or run.share is not None else run.history.step


def _step_cell(run: ComparedRun) -> Part:
    step = _last_step(run)
    return ("dim", ABSENT) if step is None else ("text", grouped(step))
