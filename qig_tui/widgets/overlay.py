"""One metric of several runs in one chart: a line, a colour and a letter for each. Draws; decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.segment import Segment
from textual.strip import Strip

from qig_tui.compare.axes import Axis, marks, place_text
from qig_tui.compare.comparing import Line
from qig_tui.compare.places import MOST_RUNS
from qig_tui.compare.training_time import WORDS
from qig_tui.series import Bools
from qig_tui.smoothing import ema, median_at
from qig_tui.text import axis_label, clip, number, pad, pad_left
from qig_tui.view import Ends, Smoothing, View
from qig_tui.widgets import braille
from qig_tui.widgets.braille import Buckets, Canvas, Scale, YRange
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.hued import Hued
from qig_tui.widgets.lines import Part
from qig_tui.widgets.points import Points, visible

_LEFT = 7
_RIGHT = 9
"""Cells for a letter and the value at the end of its line."""
_LABELLED = 20
_NUMBERED = 52
"""Cells from which on the lines' ends are numbered."""
_BANDS = 3
"""Of so many runs at most the spread of noisy values is drawn too: of more nobody could tell whose it is."""
_DENSE = 4
_LETTER_EVERY = 24
_AXES: dict[Axis, str] = {
    "step": "by step",
    "time": "by training time",
    "tokens": "by tokens",
}
# Columns of dots that are drawn, and left out, in turns: lines stay apart where there is no colour.
_DASHES = ((1,), (8, 2), (4, 2), (2, 2), (1, 2), (8, 2, 2, 2), (4, 2, 1, 2), (8, 6))
assert len(_DASHES) == MOST_RUNS


@dataclass(frozen=True, kw_only=True)
class OverlayData:
    """One metric as it is drawn."""

    metric: str
    label: str
    title: str
    unit: str
    axis: Axis
    lines: Sequence[Line]
    """The last one lies on top."""
    ends: Ends
    bounds: tuple[float | None, float | None] | None = None
    """The values that are possible."""
    note: str = ""
    """What is not drawn, and why."""


class OverlayChart(Hued, LineChart):
    """The same axes, mouse and view as the chart of one run."""

    DEFAULT_CSS = """
    OverlayChart { min-height: 2; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._overlay: OverlayData | None = None

    def show_runs(self, data: OverlayData | None, view: View) -> None:
        """None: there is no metric for this chart."""
        axis = (None if data is None else f"{data.metric} {data.axis}", view.log, view.y)
        if axis != self._axis_of:
            self._axis_of, self._held = axis, None
        self._overlay, self._view = data, view
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        data = self._overlay
        if data is None:
            return []
        left = _LEFT if width >= _LABELLED else 0
        right = _RIGHT if width >= _NUMBERED and height >= 5 else 0
        columns = max(width - left - right, 1)
        has_axis = height >= 6
        rows = height - 1 - has_axis
        first, last = self._view.shown(data.ends)
        last = max(last, first + 1)
        self._scale = scale = braille.scale_for(first, last, 2 * columns)
        view = replace(self._view, first=first, last=last)
        drawn = [_Drawn(line, visible(line.series, line.abandoned, view), scale) for line in data.lines]
        for one in drawn:
            one.choose(self._view, columns, with_band=len(drawn) <= _BANDS)
        heading = self._head(data, drawn, width)
        if rows < 1:
            return [heading]
        body = self._plot(data, drawn, scale, columns, rows, left, right)
        foot = [self._foot(data.axis, scale, first, last, columns, left, width)] if has_axis else []
        return [heading, *body, *foot]

    def _head(self, data: OverlayData, drawn: Sequence["_Drawn"], width: int) -> Strip:
        left: list[Part] = [("strong", clip(data.label, max(width - 2, 1)))]
        if data.unit:
            left.append(("dim", f" {data.unit}"))
        if data.title and width >= 60:
            left.append(("dim", f"  {data.title}"))
        if not drawn:
            left.append(("dim", "  no run shown measured it" if not data.note else ""))
        view = self._view
        modes = (view.smoothing.name, "log" if view.log else "", f"y {view.y}" if view.y != "fit" else "")
        right = "  ".join(mode for mode in modes if mode)
        if width >= _NUMBERED:
            axis = _AXES[data.axis] + (f", {WORDS}" if data.axis == "time" and width >= 120 else "")
            averaged = any(one.is_averaged for one in drawn)
            right = "  ".join(
                part
                for part in (right, ("mean of each column" if width >= 100 else "means") if averaged else "", axis)
                if part
            )
        if data.note:
            left.append(("warning", f"  ▲ {data.note}"))
        return self.heading(width, left, [("dim", right)] if right else [])

    def _range(self, data: OverlayData, drawn: Sequence["_Drawn"]) -> YRange:
        log = self._view.log
        spans = [span for one in drawn if (span := one.span()) is not None]
        if not spans:
            return self._held or YRange(low=0.1 if log else 0.0, high=1.0, log=log)
        low, high = min(s[0] for s in spans), max(s[1] for s in spans)
        lowest, highest = data.bounds or (None, None)
        if self._view.y == "zero" and not log:
            low, high = min(low, 0.0), max(high, 0.0)
        elif self._view.y == "possible" and not log:
            low = low if lowest is None else min(low, lowest)
            high = high if highest is None else max(high, highest)
        wanted = braille.y_range_for(low, high, log=log, bounds=data.bounds)
        self._held = braille.held(self._held, wanted, low, high)
        return self._held

    def _plot(
        self,
        data: OverlayData,
        drawn: Sequence["_Drawn"],
        scale: Scale,
        columns: int,
        rows: int,
        left: int,
        right: int,
    ) -> list[Strip]:
        y = self._range(data, drawn)
        canvas = Canvas(columns, rows)
        plain = self.is_plain
        tones: dict[int, str] = {0: "text"}
        letters: dict[tuple[int, int], tuple[str, str]] = {}
        for i, one in enumerate(drawn):
            lost, raw, line = i, MOST_RUNS + i, 2 * MOST_RUNS + i
            tone = f"run{one.line.run.place}"
            tones |= {lost + 1: f"{tone}-dim", raw + 1: f"{tone}-dim", line + 1: tone}
            for step, value in one.points.lost(log=y.log):
                braille.draw_line(canvas, lost + 1, braille.bucketed(step, value, scale).to_shares(y))
            if one.raw is not None:
                braille.draw_line(canvas, raw + 1, one.raw.to_shares(y))
            if one.shown is not None:
                braille.draw_line(canvas, line + 1, one.shown.to_shares(y))
                if plain:
                    canvas.keep(line + 1, _dashes(one.line.run.place, 2 * columns))
                    letters |= one.letters(y, columns, rows, i)
            if len(one.points.odd_step):
                before = set(canvas.marks)
                odd = scale.column(one.points.odd_step)
                braille.mark_nonfinite(canvas, odd, one.points.odd_value, log=y.log)
                letters |= {at: (tone, canvas.marks[at]) for at in canvas.marks.keys() - before}
        codes, layers = canvas.result(range(1, 3 * MOST_RUNS + 1), shared=range(2 * MOST_RUNS + 1, 3 * MOST_RUNS + 1))
        cells = [[chr(code) if code else " " for code in row] for row in codes.tolist()]
        toned = [[tones[layer] for layer in row] for row in layers.tolist()]
        for (row, column), (tone, letter) in letters.items():
            cells[row][column], toned[row][column] = letter, tone
        self._cursor_line(scale, cells, toned)
        labels = {row: axis_label(value, left - 1) for row, value in braille.ticks(y, rows)} if left else {}
        ends = _ends(drawn, y, rows) if right else {}
        strips = []
        for row in range(rows):
            front = [Segment(pad_left(labels.get(row, ""), left - 1) + " ", self.tone("dim"))] if left else []
            tone, text = ends.get(row, ("text", ""))
            back = [Segment(pad(f" {text}", right), self.tone(tone))] if right else []
            strips.append(Strip([*front, *self._runs(cells[row], toned[row]), *back]))
        return strips

    def _cursor_line(self, scale: Scale, cells: list[list[str]], tones: list[list[str]]) -> None:
        cursor = self._view.cursor
        if cursor is None:
            return
        at = int(scale.column(np.array([cursor], dtype=np.int64))[0]) // 2
        for row, line in enumerate(cells):
            if 0 <= at < len(line) and line[at] == " ":
                line[at], tones[row][at] = "│", "cursor"

    def _foot(self, axis: Axis, scale: Scale, first: int, last: int, columns: int, left: int, width: int) -> Strip:
        """Rounded places below the columns where they stand."""
        row = [" "] * columns
        free = 0
        for place in marks(axis, first, last, max(1, columns // 12)):
            text = place_text(axis, place)
            at = int(scale.column(np.array([place], dtype=np.int64))[0]) // 2
            start = min(max(at - len(text) // 2, 0), columns - len(text))
            if start < free or at > columns or start < 0:
                continue
            row[start : start + len(text)] = text
            free = start + len(text) + 2
        return self.strip(("dim", " " * left + "".join(row)), width=width)


class _Drawn:
    """One run's line as far as it is in sight."""

    def __init__(self, line: Line, points: Points, scale: Scale) -> None:
        self.line = line
        self.points = points
        self._scale = scale
        self.shown: Buckets | None = None
        self.raw: Buckets | None = None
        self.is_averaged = False
        """Whether means are drawn without what they are the means of."""

    def choose(self, view: View, columns: int, *, with_band: bool) -> None:
        """What of it is drawn: its values, or a smooth line, and beneath it what that goes through."""
        points = self.points
        if not len(points.step):
            return
        buckets = braille.bucketed(points.step, points.value, self._scale, points.mass)
        soft = _smooth(points, self._scale, view.smoothing)
        if soft is None and len(points.step) >= _DENSE * columns:
            soft = buckets.of(buckets.mean)
        self.shown = buckets if soft is None else soft
        self.raw = buckets if soft is not None and with_band else None
        self.is_averaged = soft is not None and not with_band

    def span(self) -> tuple[float, float] | None:
        """The lowest and the highest value that is drawn of the branch that the run is on."""
        shown = self.raw or self.shown
        return None if shown is None else (float(shown.low.min()), float(shown.high.max()))

    def end(self, y: YRange, rows: int) -> int | None:
        """The row in which the line ends."""
        if self.shown is None:
            return None
        share = float(y.to_share(self.shown.last[-1:])[0])
        return braille.row_of(min(max(share, 0.0), 1.0), rows) if np.isfinite(share) else None

    def letters(self, y: YRange, columns: int, rows: int, order: int) -> dict[tuple[int, int], tuple[str, str]]:
        """Its letter here and there on its line, each run's at columns of its own."""
        if self.shown is None:
            return {}
        run = self.line.run
        cells = self.shown.column // 2
        shares = np.clip(y.to_share(self.shown.mean), 0.0, 1.0)
        found = {}
        start = _LETTER_EVERY * order // MOST_RUNS + 2
        for cell in range(start, columns, _LETTER_EVERY):
            at = int(np.searchsorted(cells, cell))
            if at < len(cells) and int(cells[at]) == cell:
                found[braille.row_of(float(shares[at]), rows), cell] = f"run{run.place}", run.letter
        return found


def _smooth(points: Points, scale: Scale, smoothing: Smoothing) -> Buckets | None:
    """The smooth curve as one value a column; None where none is asked for."""
    step, mean, count = points.lumps()
    if smoothing.kind == "none" or not len(step):
        return None
    if smoothing.kind == "ema":
        soft = braille.bucketed(step, ema(mean, count, smoothing.span), scale)
        return soft.of(soft.mean)
    columns = braille.bucketed(step, mean, scale)
    return columns.of(median_at(mean, count, columns.ends - 1, smoothing.span))


def _dashes(place: int, columns: int) -> Bools:
    pattern = _DASHES[place]
    on = np.concatenate([np.full(length, i % 2 == 0) for i, length in enumerate(pattern)])
    dashes: Bools = np.resize(on, columns)
    return dashes


def _ends(drawn: Sequence[_Drawn], y: YRange, rows: int) -> dict[int, tuple[str, str]]:
    """Letter and newest value beside the end of each line, moved apart where they would cover one another."""
    wanted = sorted(
        (row, -float(one.points.value[-1]), i) for i, one in enumerate(drawn) if (row := one.end(y, rows)) is not None
    )
    if len(wanted) > rows:
        return {}
    at: list[int] = []
    for row, _, _ in wanted:
        at.append(max(row, at[-1] + 1 if at else 0))
    # What was pushed over the edge comes back, and the others make room.
    limit = rows - 1
    for i in reversed(range(len(at))):
        at[i] = limit = min(at[i], limit)
        limit -= 1
    found = {}
    for row, (_, _, i) in zip(at, wanted, strict=True):
        one = drawn[i]
        value = float(one.points.value[-1])
        found[row] = f"run{one.line.run.place}", f"{one.line.run.letter} {number(value)}"
    return found
