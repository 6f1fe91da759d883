"""One metric over steps: a line of braille dots with its reference lines, its lost branches and a reading."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from qig_core.rundir.schema import ReferenceLine
from qig_tui.history import Floats, Ints
from qig_tui.picture import ChartData
from qig_tui.text import ABSENT, axis_label, grouped, number, pad_left, quantity, safe
from qig_tui.view import View
from qig_tui.widgets import braille
from qig_tui.widgets.braille import ABANDONED, LIVE, RAW, Buckets, Canvas, Scale, YRange
from qig_tui.widgets.lines import Lines, Part

_GUTTER = 7
_LABELLED = 20
"""Cells that a chart must be wide for the labels of its values to be worth theirs."""
_LOST_BRANCHES = 24
_TONES = {LIVE: "accent", RAW: "raw", ABANDONED: "faint"}
_SEVERITIES = {"info": "dim", "warning": "warning", "critical": "critical"}


@dataclass(frozen=True, kw_only=True)
class _Points:
    """What of a series lies within the view."""

    step: Ints
    value: Floats
    """Ascending and finite: the branch that the run is on; positive, on a log axis."""
    first: int
    last: int
    drawn: int
    odd_step: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    odd_value: Floats = field(default_factory=lambda: np.empty(0))
    """What has no place on the axis and is marked on its edge."""
    lost_step: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lost_value: Floats = field(default_factory=lambda: np.empty(0))

    def lost(self, *, log: bool) -> Iterator[tuple[Ints, Floats]]:
        """The newest abandoned branches, each ascending."""
        if not len(self.lost_step):
            return
        fine = np.isfinite(self.lost_value) & ((self.lost_value > 0) if log else True)
        step, value = self.lost_step[fine], self.lost_value[fine]
        edges = np.flatnonzero(np.diff(step) <= 0) + 1
        bounds = [0, *edges.tolist(), len(step)]
        for start, end in list(pairwise(bounds))[-_LOST_BRANCHES:]:
            if start < end:
                yield step[start:end], value[start:end]


class LineChart(Lines):
    """Draws when told to; zooming and pointing are messages to whoever holds the view of all charts."""

    DEFAULT_CSS = """
    LineChart { min-height: 2; }
    """

    class Zoomed(Message):
        """The wheel was turned: zoom by a factor around a step."""

        def __init__(self, factor: float, step: int) -> None:
            super().__init__()
            self.factor = factor
            self.step = step

    class Pointed(Message):
        """A step was clicked."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None, classes: str | None = None, axis: bool = True) -> None:
        super().__init__(id=id, classes=classes)
        self._data: ChartData | None = None
        self._view = View()
        self._axis = axis
        self._held: YRange | None = None
        self._scale: Scale | None = None
        self.drawn = 0
        """Points within the view at the last drawing."""

    def show(self, data: ChartData, view: View) -> None:
        if self._data is None or data.label != self._data.label or view.log != self._view.log:
            self._held = None
        self._data, self._view = data, view
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        data = self._data
        if data is None:
            return [self.heading(width, [("dim", ABSENT)])]
        gutter = _gutter(width)
        columns = max(width - gutter, 1)
        axis = self._axis and height >= 6
        rows = height - 1 - axis
        points = self._visible(data)
        self._scale = scale = braille.scale_for(points.first, points.last, 2 * columns)
        buckets = braille.bucketed(points.step, points.value, scale) if len(points.step) else None
        body = self._body(data, points, buckets, scale, columns, rows, gutter) if rows > 0 else []
        foot = [self._steps(scale, points.first, points.last, columns, gutter)] if axis else []
        return [self._heading(data, width, points, buckets), *body, *foot]

    def _visible(self, data: ChartData) -> _Points:
        """The points within the view: the branch that the run is on, what cannot be drawn, and the lost branches."""
        step, value, gone = data.series.step, data.series.value, data.abandoned
        if not len(step):
            return _Points(step=step, value=value, first=0, last=1, drawn=0)
        low, high = (int(step[0]), int(step[-1])) if gone is None else (int(step.min()), int(step.max()))
        first = low if self._view.first is None else self._view.first
        last = max(high if self._view.last is None else self._view.last, first + 1)
        odd_step, odd_value = step[:0], value[:0]
        lost_step, lost_value = step[:0], value[:0]
        if gone is not None:
            lost_step, lost_value = step[gone], value[gone]
            step, value = step[~gone], value[~gone]
        if len(step) and (first > step[0] or last < step[-1]):
            # One point beyond each side, so that the line enters and leaves the picture.
            start = max(int(np.searchsorted(step, first)) - 1, 0)
            end = int(np.searchsorted(step, last, side="right")) + 1
            step, value = step[start:end], value[start:end]
        drawn = len(step) + len(lost_step)
        with np.errstate(over="ignore", invalid="ignore"):
            all_finite = bool(np.isfinite(value.sum()))
        if self._view.log or not all_finite:
            fine = np.isfinite(value)
            if self._view.log:
                fine &= value > 0
            odd_step, odd_value = step[~fine], value[~fine]
            step, value = step[fine], value[fine]
        return _Points(
            step=step,
            value=value,
            first=first,
            last=last,
            drawn=drawn,
            odd_step=odd_step,
            odd_value=odd_value,
            lost_step=lost_step,
            lost_value=lost_value,
        )

    def _y_range(self, data: ChartData, buckets: Buckets | None, rows: int) -> YRange:
        log = self._view.log
        if buckets is None:
            return self._held or YRange(low=0.1 if log else 0.0, high=1.0, log=log)
        low, high = float(buckets.low.min()), float(buckets.high.max())
        span = high / 2 - low / 2
        wanted_low, wanted_high = low, high
        for line in data.references:
            # A reference line close by is worth the room; one far away would flatten the curve.
            near = not log and low - span - 1e-12 <= line.value <= high + span + 1e-12 and rows >= 6
            if near:
                wanted_low, wanted_high = min(wanted_low, line.value), max(wanted_high, line.value)
        wanted = braille.y_range_for(wanted_low, wanted_high, log=log, bounds=data.bounds)
        self._held = braille.held(self._held, wanted, wanted_low, wanted_high)
        return self._held

    def _body(
        self,
        data: ChartData,
        points: _Points,
        buckets: Buckets | None,
        scale: Scale,
        columns: int,
        rows: int,
        gutter: int,
    ) -> list[Strip]:
        y = self._y_range(data, buckets, rows)
        canvas = Canvas(columns, rows)
        for step, value in points.lost(log=y.log):
            braille.draw_line(canvas, ABANDONED, braille.bucketed(step, value, scale).to_shares(y))
        if buckets is not None:
            shares = buckets.to_shares(y)
            if self._view.smoothing > 1:
                soft = braille.smoothed(points.value, self._view.smoothing)
                braille.draw_line(canvas, RAW, shares)
                braille.draw_line(canvas, LIVE, braille.bucketed(points.step, soft, scale).means().to_shares(y))
            elif len(points.step) >= 4 * columns:
                # More points than columns: what they reach in the dim tone, their mean over it.
                braille.draw_line(canvas, RAW, shares)
                braille.draw_line(canvas, LIVE, buckets.means().to_shares(y))
            else:
                braille.draw_line(canvas, LIVE, shares)
        if len(points.odd_step):
            braille.mark_nonfinite(canvas, scale.column(points.odd_step), points.odd_value, log=y.log)
        return self._paint(data, canvas, y, scale, gutter)

    def _paint(self, data: ChartData, canvas: Canvas, y: YRange, scale: Scale, gutter: int) -> list[Strip]:
        codes, layers = canvas.result()
        rows, columns = canvas.rows, canvas.columns
        cells = [[chr(code) if code else " " for code in row] for row in codes.tolist()]
        tones = [[_TONES.get(layer, "text") for layer in row] for row in layers.tolist()]
        cursor = self._view.cursor
        if cursor is not None:
            at = int(scale.column(np.array([cursor], dtype=np.int64))[0]) // 2
            if 0 <= at < columns:
                for row in range(rows):
                    if cells[row][at] == " ":
                        cells[row][at] = "│"
                    tones[row][at] = "cursor"
        lines: list[tuple[ReferenceLine, int]] = []
        for line in data.references:
            share = float(y.to_share(np.array([line.value], dtype=np.float64))[0])
            if math.isfinite(share) and -1e-9 <= share <= 1 + 1e-9:
                lines.append((line, braille.row_of(share, rows)))
                self._reference(line, cells[lines[-1][1]], tones[lines[-1][1]])
        # After all lines stand: a label beside its own must not end up on another's.
        for line, row in lines:
            self._label(line, cells, tones, row)
        for (row, column), character in canvas.marks.items():
            cells[row][column] = character
            tones[row][column] = "critical"
        labels = {}
        if gutter:
            labels = {row: pad_left(axis_label(v, gutter - 1), gutter - 1) + " " for row, v in braille.ticks(y, rows)}
        return [
            Strip(
                [
                    Segment(labels.get(row, " " * gutter), self.tone("dim")),
                    *self._runs(cells[row], tones[row]),
                ]
            )
            for row in range(rows)
        ]

    def _reference(self, line: ReferenceLine, cells: list[str], tones: list[str]) -> None:
        """A dotted line behind the curve."""
        tone = _SEVERITIES.get(line.severity, "dim")
        for i, cell in enumerate(cells):
            if cell == " ":
                cells[i], tones[i] = "┈", "faint" if tone == "dim" else tone

    def _label(self, line: ReferenceLine, cells: list[list[str]], tones: list[list[str]], row: int) -> None:
        """The name of a line where nothing is in the way, on it or beside it; else none."""
        tone = _SEVERITIES.get(line.severity, "dim")
        label = safe(line.label, 40)
        width, columns = cell_len(label), len(cells[row])
        if width != len(label) or width + 4 > columns or not label:
            return
        for at in (row, row - 1, row + 1):
            if not 0 <= at < len(cells):
                continue
            for start in (columns - width - 1, columns // 2, 1):
                span = slice(start - 1, start + width + 1)
                if all(cell == ("┈" if at == row else " ") for cell in cells[at][span]):
                    cells[at][span] = f" {label} "[: len(cells[at][span])]
                    tones[at][span] = [tone] * len(cells[at][span])
                    return

    def _runs(self, cells: list[str], tones: list[str]) -> list[Segment]:
        """Neighbours of one tone as one segment. A blank takes the tone beside it: each segment is dear to send."""
        out: list[Segment] = []
        start, tone = 0, tones[0]
        for i, cell in enumerate(cells):
            if cell != " " and tones[i] != tone:
                if i > start and any(c != " " for c in cells[start:i]):
                    out.append(Segment("".join(cells[start:i]), self.tone(tone)))
                    start = i
                tone = tones[i]
        out.append(Segment("".join(cells[start:]), self.tone(tone)))
        return out

    def _heading(self, data: ChartData, width: int, points: _Points, buckets: Buckets | None) -> Strip:
        self.drawn = points.drawn
        newest = data.series.last
        left: list[Part] = [("strong", data.label)]
        left.append(("text", " " + quantity(None if newest is None else newest[1], data.unit)))
        left.append(("dim", " no sample yet" if newest is None else f" {trend(points.value)}"))
        cursor = self._view.cursor
        if cursor is not None and len(points.step):
            at = int(np.searchsorted(points.step, cursor, side="right")) - 1
            if at >= 0:
                value, step = float(points.value[at]), int(points.step[at])
                where = f" at {grouped(step)}" if width >= 60 else ""
                left.append(("cursor", f"  │ {quantity(value, data.unit) if where else number(value)}{where}"))
        if data.title and width >= 60:
            left.append(("dim", f"  {data.title}"))
        right: list[Part] = []
        if buckets is not None:
            low, high = number(float(buckets.low.min())), number(float(buckets.high.max()))
            right.append(("dim", f"{low} … {high}"))
            if width >= 100:
                right = [("dim", f"min {low}  max {high}  {self._honesty(data)}")]
        return self.heading(width, left, right)

    def _honesty(self, data: ChartData) -> str:
        total, kept = data.series.seen, len(data.series)
        # Only where something is not drawn: a count that grows with every sample is no news.
        words = "" if self.drawn == total else f"{grouped(self.drawn)} of {grouped(total)} points"
        if self._view.smoothing > 1:
            words += f"  smoothed over {self._view.smoothing}"
        if self._view.log:
            words += "  log"
        return words + (", extremes kept" if kept < total else "")

    def _steps(self, scale: Scale, first: int, last: int, columns: int, gutter: int) -> Strip:
        """Rounded steps below the columns where they stand."""
        row = [" "] * columns
        span = max(last - first, 1)
        stride = max(int(braille.nice_step(span, max(1, columns // 10))), 1)
        free = 0
        for step in range(-(-first // stride) * stride, last + 1, stride):
            text = grouped(step)
            at = int(scale.column(np.array([step], dtype=np.int64))[0]) // 2
            start = min(max(at - len(text) // 2, 0), columns - len(text))
            if start < free or at > columns or start < 0:
                continue
            row[start : start + len(text)] = text
            free = start + len(text) + 2
        return self.strip(("dim", " " * gutter + "".join(row)))

    def _step_at(self, x: int) -> int | None:
        if self._scale is None:
            return None
        return self._scale.step_at(max(2 * (x - _gutter(self.size.width)), 0))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._zoom(event, 0.8)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._zoom(event, 1.25)

    def _zoom(self, event: events.MouseEvent, factor: float) -> None:
        step = self._step_at(event.x)
        if step is not None:
            event.stop()
            self.post_message(self.Zoomed(factor, step))

    def on_click(self, event: events.Click) -> None:
        step = self._step_at(event.x)
        if step is not None:
            self.post_message(self.Pointed(step))


def _gutter(width: int) -> int:
    """Cells on the left for the labels of the values."""
    return _GUTTER if width >= _LABELLED else 0


def trend(value: Floats) -> str:
    """An arrow for the last tenth of finite values against the one before it; flat within a twentieth of the spread."""
    finite = value[-2000:]
    part = len(finite) // 10
    if part < 2:
        return "→"
    spread = float(finite.max() / 2 - finite.min() / 2)
    change = float((finite[-part:] / 2).mean() - (finite[-2 * part : -part] / 2).mean())
    if spread == 0 or abs(change) < 0.05 * spread:
        return "→"
    return "↑" if change > 0 else "↓"
