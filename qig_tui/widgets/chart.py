"""One metric over steps: a line of braille dots with its reference lines, its lost branches and a reading."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from qig_core.rundir.schema import ReferenceLine
from qig_tui.charting import ChartData
from qig_tui.series import Floats, last_at
from qig_tui.smoothing import ema, median_at
from qig_tui.text import axis_label, clip, grouped, number, pad, pad_left, quantity, safe
from qig_tui.view import View
from qig_tui.widgets import braille
from qig_tui.widgets.braille import ABANDONED, LIVE, RAW, Buckets, Canvas, Scale, YRange
from qig_tui.widgets.lines import Lines, Part
from qig_tui.widgets.points import Points, visible

_GUTTER = 7
_LABELLED = 20
"""Cells that a chart must be wide for the labels of its values to be worth theirs."""
_LEGEND = 98
"""Cells from which on a heading has room for what the lines mean."""
_RIBBON_ROWS = 9
"""Rows of cells that a chart must be high for its regimes to be worth one."""
_TONES = {LIVE: "accent", RAW: "raw", ABANDONED: "faint"}
_SEVERITIES = {"info": "dim", "warning": "warning", "critical": "critical"}


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

    class Dragged(Message):
        """The chart was pulled by so many steps, towards later ones with a positive number."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

    class Chosen(Message):
        """The chart was clicked twice."""

        def __init__(self, metric: str) -> None:
            super().__init__()
            self.metric = metric

    def __init__(self, *, id: str | None = None, classes: str | None = None, axis: bool = True) -> None:
        super().__init__(id=id, classes=classes)
        self._data: ChartData | None = None
        """None: there is no metric for this chart."""
        self._view = View()
        self._axis = axis
        self._held: YRange | None = None
        self._axis_of: tuple[str | None, bool, str] | None = None
        self._scale: Scale | None = None
        self._held_at: int | None = None
        """The column of cells under the pressed button."""
        self._was_dragged = False
        self.drawn = 0
        """Points within the view at the last drawing."""

    def show(self, data: ChartData | None, view: View, *, anew: bool = False) -> None:
        """Args: anew: choose the range of values as if nothing had been drawn before."""
        axis = (None if data is None else data.metric, view.log, view.y)
        if anew or axis != self._axis_of:
            self._axis_of, self._held = axis, None
        self._data, self._view = data, view
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        data = self._data
        if data is None:
            return []
        gutter = _gutter(width)
        columns = max(width - gutter, 1)
        axis = self._axis and height >= 6
        ribbon = axis and data.regimes is not None and height >= _RIBBON_ROWS
        rows = height - 1 - axis - ribbon
        points = visible(data.series, data.abandoned, self._view)
        self._scale = scale = braille.scale_for(points.first, points.last, 2 * columns)
        buckets = braille.bucketed(points.step, points.value, scale, points.mass) if len(points.step) else None
        body = self._body(data, points, buckets, scale, columns, rows, gutter) if rows > 0 else []
        foot = [self._steps(scale, points.first, points.last, columns, gutter)] if axis else []
        if ribbon and data.regimes is not None:
            foot.insert(0, self._ribbon(data.regimes, scale, points, columns, gutter))
        return [self._heading(data, width, points, buckets), *body, *foot]

    def _y_range(self, data: ChartData, buckets: Buckets | None, rows: int) -> YRange:
        log = self._view.log
        if buckets is None:
            return self._held or YRange(low=0.1 if log else 0.0, high=1.0, log=log)
        low, high = float(buckets.low.min()), float(buckets.high.max())
        span = high / 2 - low / 2
        lowest, highest = data.bounds or (None, None)
        if self._view.y == "zero" and not log:
            low, high = min(low, 0.0), max(high, 0.0)
        elif self._view.y == "possible" and not log:
            low = low if lowest is None else min(low, lowest)
            high = high if highest is None else max(high, highest)
        wanted_low, wanted_high = low, high
        for line in data.references:
            # A reference line close by is worth the room; one far away would flatten the curve.
            reach = max(span, (max(abs(low), abs(high)) / 4 if line.severity != "info" else 0.0)) + 1e-12
            near = not log and low - reach <= line.value <= high + reach and rows >= 6
            if near:
                wanted_low, wanted_high = min(wanted_low, line.value), max(wanted_high, line.value)
        wanted = braille.y_range_for(wanted_low, wanted_high, log=log, bounds=data.bounds)
        self._held = braille.held(self._held, wanted, wanted_low, wanted_high)
        return self._held

    def _body(
        self,
        data: ChartData,
        points: Points,
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
            soft = self._smooth(points, scale)
            if soft is not None:
                braille.draw_line(canvas, RAW, shares)
                braille.draw_line(canvas, LIVE, soft.to_shares(y))
            elif len(points.step) >= 4 * columns:
                # More points than columns: what they reach in the dim tone, their mean over it.
                braille.draw_line(canvas, RAW, shares)
                braille.draw_line(canvas, LIVE, shares.of(shares.mean))
            else:
                braille.draw_line(canvas, LIVE, shares)
        if len(points.odd_step):
            braille.mark_nonfinite(canvas, scale.column(points.odd_step), points.odd_value, log=y.log)
        return self._paint(data, canvas, y, scale, gutter)

    def _smooth(self, points: Points, scale: Scale) -> Buckets | None:
        """The smooth curve as one value a column; None where none is asked for."""
        smoothing = self._view.smoothing
        step, mean, count = points.lumps()
        if smoothing.kind == "none" or not len(step):
            return None
        if smoothing.kind == "ema":
            soft = braille.bucketed(step, ema(mean, count, smoothing.span), scale)
            return soft.of(soft.mean)
        columns = braille.bucketed(step, mean, scale)
        return columns.of(median_at(mean, count, columns.ends - 1, smoothing.span))

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
        labels = {row: axis_label(value, gutter - 1) for row, value in braille.ticks(y, rows)} if gutter else {}
        bands = self._bands(data, y, rows) if gutter else {}
        strips = []
        for row in range(rows):
            front = [Segment(pad_left(labels.get(row, ""), gutter - 1) if gutter else "", self.tone("dim"))]
            if gutter:
                front.append(Segment("▐" if row in bands else " ", self.tone(bands.get(row, "dim"))))
            strips.append(Strip([*front, *self._runs(cells[row], tones[row])]))
        return strips

    def _bands(self, data: ChartData, y: YRange, rows: int) -> dict[int, str]:
        """Beside the labels, the rows that lie in a band of values, and its tone; of several the last one's."""
        found: dict[int, str] = {}
        for band in data.references:
            if band.upto is None:
                continue
            low, high = y.to_share(np.array([band.value, band.upto], dtype=np.float64)).tolist()
            if high > low and high > 0 and low < 1:
                top, bottom = braille.row_of(min(high, 1.0), rows), braille.row_of(max(low, 0.0), rows)
                found |= dict.fromkeys(range(top, bottom + 1), _SEVERITIES.get(band.severity, "dim"))
        return found

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
            for start in (columns - width - 1, (columns - width) // 2, 1):
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

    def _heading(self, data: ChartData, width: int, points: Points, buckets: Buckets | None) -> Strip:
        self.drawn = points.drawn
        newest = data.newest
        # The name is cut rather than the value, and the unit left out before that.
        value = None if newest is None else newest[1]
        shown = quantity(value, data.unit)
        if cell_len(data.label) + cell_len(shown) + 4 > width and value is not None:
            shown = number(value)
        left: list[Part] = [("strong", clip(data.label, max(width - cell_len(shown) - 4, 1))), ("text", f" {shown}")]
        left.append(("dim", " no sample yet" if newest is None else f" {trend(data.recent)}"))
        cursor = self._view.cursor
        if cursor is not None and (at := last_at(points.step, cursor)) is not None:
            read, step = float(points.value[at]), int(points.step[at])
            where = f" at {grouped(step)}" if width >= 60 else ""
            left.append(("cursor", f"  │ {quantity(read, data.unit) if where else number(read)}{where}"))
        if (modes := self._modes()) and 36 <= width < _LEGEND:
            left.append(("accent", f"  {modes}"))
        if data.title and width >= 60:
            left.append(("dim", f"  {data.title}"))
        right: list[Part] = []
        if buckets is not None:
            low, high = number(float(buckets.low.min())), number(float(buckets.high.max()))
            right.append(("dim", f"{low} … {high}"))
            if width >= _LEGEND:
                right = [*self._legend(points), ("dim", f"min {low}  max {high}{self._honesty(data, points)}")]
        return self.heading(width, left, right)

    def _modes(self) -> str:
        """How the values are shown, where that is not as they are."""
        view = self._view
        modes = (view.smoothing.name, "log" if view.log else "", f"y {view.y}" if view.y != "fit" else "")
        return " · ".join(mode for mode in modes if mode)

    def _legend(self, points: Points) -> list[Part]:
        """What the tones of the lines mean, where there is more than one."""
        shown: list[Part] = []
        if self._view.smoothing.kind != "none":
            shown += [("accent", f"━ {self._view.smoothing.name}  "), ("raw", "━ raw  ")]
        if len(points.lost_step):
            shown.append(("faint", "━ left branch  "))
        return shown

    def _honesty(self, data: ChartData, points: Points) -> str:
        words = [word for word, on in (("log", self._view.log), (f"y {self._view.y}", self._view.y != "fit")) if on]
        # Only where something is not drawn: a count that grows with every sample is no news.
        if data.is_detail:
            words.append(f"every one of {grouped(points.drawn)} points")
        elif points.drawn < data.seen:
            kept = ", extremes kept" if data.series.is_thinned else ""
            words.append(f"{grouped(points.drawn)} of {grouped(data.seen)} points{kept}")
        return "".join(f"  {word}" for word in words)

    def _ribbon(
        self, regimes: tuple[Sequence[int], Sequence[str]], scale: Scale, points: Points, columns: int, gutter: int
    ) -> Strip:
        """The regimes over the steps of the columns: a name where it begins, as far as there is room."""
        steps, names = regimes
        turned = np.asarray(steps, dtype=np.int64)
        ends = [scale.step_at(2 * cell + 2) - 1 for cell in range(columns)]
        found = np.searchsorted(turned, ends, side="right") - 1
        cells = [
            safe(names[at], columns) if at >= 0 and scale.step_at(2 * cell) <= points.last else ""
            for cell, at in enumerate(found.tolist())
        ]
        parts: list[Part] = [("dim", " " * gutter)]
        for name, run in groupby(cells):
            width = len(list(run))
            text = clip(name.replace("_", " "), width - 1) if width > 3 else ""
            parts.append(("dim" if name else "text", pad(f"╷{text}", width) if name else " " * width))
        return self.strip(*parts)

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

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._held_at, self._was_dragged = event.x, False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._held_at is None or event.x == self._held_at:
            return
        here, there = self._step_at(event.x), self._step_at(self._held_at)
        self._held_at, self._was_dragged = event.x, True
        if here is not None and there is not None and here != there:
            self.post_message(self.Dragged(there - here))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._held_at = None
        self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        step = self._step_at(event.x)
        if self._was_dragged or step is None:
            return
        if event.chain == 2 and self._data is not None:
            self.post_message(self.Chosen(self._data.metric))
        else:
            self.post_message(self.Pointed(step))


def _gutter(width: int) -> int:
    """Cells on the left for the labels of the values."""
    return _GUTTER if width >= _LABELLED else 0


def trend(value: Floats) -> str:
    """An arrow for the last tenth of finite values against the one before it; flat within a twentieth of the spread."""
    part = len(value) // 10
    if part < 2:
        return "→"
    # A sum of what float64 can just hold is beyond it.
    value = value / max(float(np.abs(value).max()), 1.0)
    spread = float(value.max() - value.min())
    change = float(value[-part:].mean() - value[-2 * part : -part].mean())
    if spread == 0 or abs(change) < 0.05 * spread:
        return "→"
    return "↑" if change > 0 else "↓"
