"""Line charts in braille dots: arrays in, a grid of characters and layers out. numpy only; no Textual, no state.

A cell holds 2 x 4 dots. Every column of dots shows the lowest and the highest value of its bucket, so that no spike is
lost, and bucket edges lie at multiples of the bucket's width, so that a growing series never makes its past jitter.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LIVE, RAW, ABANDONED = 1, 2, 3
"""What a cell shows, the first of them that has dots in it; 0 is nothing."""

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)
_QUARTERS = (4, 5, 6, 7)
_HUGE = 1e150
_LARGEST = 1.7e308


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Steps to columns of dots.

    Zoomed out, a column holds `width` steps; zoomed in, `width` is 1 and a step spans `quarters` / 4 columns.
    """

    origin: int
    width: int = 1
    quarters: int = 4

    def column(self, step: Ints) -> Ints:
        return (step - self.origin) // self.width * self.quarters // 4

    def step_at(self, column: int) -> int:
        return self.origin + -(-column * 4 // self.quarters) * self.width


def scale_for(first: int, last: int, columns: int) -> Scale:
    """The finest scale on which steps first..last fit into so many columns of dots.

    Widths, and their inverses, are 4, 5, 6 or 7 times a power of two: four scalings an octave and none between them.
    """
    columns = max(columns, 2)
    first, last = min(first, last), max(first, last)
    steps = last - first + 1
    if steps <= columns:
        room = 4 * (columns - 1) // max(steps - 1, 1)
        power = 1 << max(room.bit_length() - 3, 0)
        return Scale(origin=first, quarters=max(room // power * power, 4))
    width = 1
    while (last // width) - (first // width) >= columns:
        width = _next_width(width)
    return Scale(origin=first // width * width, width=width)


def _next_width(width: int) -> int:
    if width < 4:
        return width + 1
    power = 1 << (width.bit_length() - 3)
    quarter = width // power
    return (quarter + 1) * power if quarter < _QUARTERS[-1] else 8 * power


@dataclass(frozen=True, kw_only=True)
class YRange:
    low: float
    high: float
    log: bool = False

    def to_share(self, value: Floats) -> Floats:
        """0 at the bottom, 1 at the top; outside of both where the value is. Non-positive on a log axis is -inf."""
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.where(value > 0, np.log10(np.where(value > 0, value, 1.0)), -np.inf)
            low, high = math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        # Spans beyond float64 (±1e308) are divided first.
        unit = max(abs(low), abs(high))
        unit = unit if unit > _HUGE else 1.0
        shares: Floats = (value / unit - low / unit) / (high / unit - low / unit)
        return shares


def nice_step(span: float, parts: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that divides a span into at most so many parts."""
    raw = span / max(parts, 1)
    if raw <= 0 or not math.isfinite(raw):
        return 1.0
    power = math.floor(math.log10(raw))
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0):
        step = factor * 10.0**power
        if step >= raw * (1 - 1e-9):
            return step
    return 10.0 ** (power + 1)


def y_range_for(
    low: float, high: float, *, log: bool = False, bounds: tuple[float | None, float | None] | None = None
) -> YRange:
    """A rounded range that holds low..high with a little air, within the bounds of what is possible."""
    if log:
        low = low if low > 0 else min(high, 1e-3) if high > 0 else 1e-3
        high = high if high > low else min(low * 10, _LARGEST)
        # Decades; 1, 2 or 5 of one where that would leave more than half of the height empty.
        whole = YRange(low=_power_below(low), high=_power_above(high), log=True)
        used = (math.log10(high) - math.log10(low)) / (math.log10(whole.high) - math.log10(whole.low))
        return whole if used >= 0.5 else YRange(low=_mark_below(low), high=_mark_above(high), log=True)
    if abs(low) > _HUGE or abs(high) > _HUGE:
        return YRange(low=low if low < high else -abs(low), high=high if low < high else abs(high))
    if low == high:
        pad = abs(low) * 0.05 or 0.5
        low, high = low - pad, high + pad
    step = nice_step(high - low, 8)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    lower, upper = bounds or (None, None)
    if lower is not None and low >= lower:
        bottom = max(bottom, lower)
    if upper is not None and high <= upper:
        top = min(top, upper)
    return YRange(low=bottom, high=top) if bottom < top else YRange(low=low, high=high)


def _power_below(value: float) -> float:
    return max(10.0 ** math.floor(math.log10(value)), 5e-324)


def _power_above(value: float) -> float:
    exponent = math.ceil(math.log10(value) + 1e-12)
    return 10.0**exponent if exponent <= 308 else _LARGEST


def _mark_below(value: float) -> float:
    """The largest 1, 2 or 5 of a decade that is not above a value."""
    power = _power_below(value)
    return max((mark for mark in (power, 2 * power, 5 * power) if mark <= value), default=power)


def _mark_above(value: float) -> float:
    """The smallest 1, 2 or 5 of a decade above a value."""
    power = _power_below(value)
    return next((mark for mark in (2 * power, 5 * power, 10 * power) if value < mark <= _LARGEST), _LARGEST)


def held(previous: YRange | None, wanted: YRange, low: float, high: float) -> YRange:
    """The previous range as long as the values fit and use at least half of it: the picture does not breathe."""
    if previous is None or previous.log != wanted.log:
        return wanted
    fits = previous.low <= low and high <= previous.high
    used = wanted.high / 2 - wanted.low / 2 >= 0.45 * (previous.high / 2 - previous.low / 2)
    return previous if fits and (used or wanted.log) else wanted


def ticks(y: YRange, rows: int) -> list[tuple[int, float]]:
    """Row (0 at the top) and value of a few rounded marks, at least three rows apart; the ends where few fit."""
    if rows < 2:
        return []
    if y.log:
        first, last = math.ceil(math.log10(y.low) - 1e-9), math.floor(math.log10(y.high) + 1e-9)
        stride = max(1, -(-(last - first) * 3 // rows))
        values = [10.0**e for e in range(first, last + 1, stride)]
        if last - first < 2:
            marks = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1.0, 2.0, 5.0)]
            inside = [mark for mark in marks if y.low * (1 - 1e-9) <= mark <= y.high * (1 + 1e-9)]
            values = inside if 3 * len(inside) <= rows + 2 else values
    else:
        span = y.high - y.low
        if not math.isfinite(span) or span <= 0:
            values = [y.low, y.high]
        else:
            step = nice_step(span, max(1, (rows - 1) // 3))
            start = math.ceil(y.low / step - 1e-9)
            values = [k * step for k in range(start, start + 40) if k * step <= y.high + 1e-9 * span]
    if len(values) < 3:
        values = [y.low, y.high]
    shares = y.to_share(np.array(values, dtype=np.float64))
    return [(row_of(float(s), rows), v) for s, v in zip(shares, values, strict=True)]


def row_of(share: float, rows: int) -> int:
    """The row of cells in which a share of the height lies, 0 at the top."""
    return min(max(rows - 1 - int(share * (4 * rows - 1) + 0.5) // 4, 0), rows - 1)


class Canvas:
    """A grid of dots with one layer number for each cell."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self._layers: dict[int, Bools] = {}
        self.marks: dict[tuple[int, int], str] = {}
        """(row, column) of a cell to the character that stands for a value that cannot be drawn."""

    def _layer(self, layer: int) -> Bools:
        if layer not in self._layers:
            self._layers[layer] = np.zeros((4 * self.rows, 2 * self.columns), dtype=np.bool_)
        return self._layers[layer]

    def spans(self, layer: int, column: Ints, low: Ints, high: Ints) -> None:
        """Fill the dots low..high (0 at the bottom) of each column; what lies outside of the grid is cut."""
        height = 4 * self.rows
        inside = (column >= 0) & (column < 2 * self.columns) & (high >= 0) & (low < height)
        column, low, high = column[inside], low[inside], high[inside]
        if not len(column):
            return
        level = np.arange(height - 1, -1, -1)[:, None]
        filled = (level >= low[None, :]) & (level <= high[None, :])
        grid = self._layer(layer)
        grid[:, column] |= filled

    def keep(self, layer: int, columns: Bools) -> None:
        """Take the dots out of the other columns: a dashed line."""
        if layer in self._layers:
            self._layers[layer] &= columns[None, :]

    def result(
        self, order: Iterable[int] = (ABANDONED, RAW, LIVE), *, shared: Iterable[int] = ()
    ) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Code points (0 where nothing is) and layers, both [rows, columns].

        Args:
            order: the layers from the lowest to the highest, at most 127.
            shared: those of them of which none hides another: cells that several want are theirs in turns.
        """
        codes = np.zeros((self.rows, self.columns), dtype=np.int32)
        shown = np.zeros((self.rows, self.columns), dtype=np.int8)
        turns, wanted = set(shared), np.zeros((self.rows, self.columns), dtype=np.int64)
        columns = np.arange(self.columns)[None, :]
        for layer in order:
            if layer not in self._layers:
                continue
            cells = self._layers[layer].reshape(self.rows, 4, self.columns, 2)
            code = np.einsum("rdcs,ds->rc", cells, _DOTS, dtype=np.int32)
            # The lower layer's dots stay where the upper has none in the cell: two colours cannot share one.
            mine = code > 0
            if layer in turns:
                wanted[mine] += 1
                # The k-th that wants a cell has one column in k.
                mine &= (wanted == 1) | (columns % np.maximum(wanted, 1) == 0)
            codes[mine] = code[mine]
            shown[mine] = layer
        codes[codes > 0] += 0x2800
        return codes, shown


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """One span of values a column of dots, columns ascending."""

    column: Ints
    low: Floats
    high: Floats
    first: Floats
    last: Floats
    mean: Floats
    ends: Ints
    """Index after the last point of each column."""

    def to_shares(self, y: YRange) -> "Buckets":
        low, high, first, last, mean = (y.to_share(a) for a in (self.low, self.high, self.first, self.last, self.mean))
        return replace(self, low=low, high=high, first=first, last=last, mean=mean)

    def of(self, value: Floats) -> "Buckets":
        """One value for each column instead."""
        return replace(self, low=value, high=value, first=value, last=value, mean=value)


def bucketed(step: Ints, value: Floats, scale: Scale, mass: tuple[Ints, Floats] | None = None) -> Buckets:
    """What each column of dots holds.

    Args:
        step: ascending.
        value: finite, as many; at least one.
        mass: of each point how many it stands for in the mean, and their sum; None: for itself.
    """
    if scale.width > 1:
        # A search for the edges spares a division for every point.
        first = int(step[0] - scale.origin) // scale.width
        last = int(step[-1] - scale.origin) // scale.width
        edges = scale.origin + scale.width * np.arange(first, last + 2)
        bounds = np.searchsorted(step, edges)
        filled = np.flatnonzero(bounds[1:] > bounds[:-1])
        starts, ends = bounds[filled], bounds[filled + 1]
        column = first + filled
    else:
        columns = scale.column(step)
        starts = np.flatnonzero(np.concatenate(([True], columns[1:] != columns[:-1])))
        ends = np.concatenate((starts[1:], [len(columns)]))
        column = columns[starts]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if mass is None:
            mean = np.add.reduceat(value, starts) / (ends - starts)
        else:
            mean = np.add.reduceat(mass[1], starts) / np.add.reduceat(mass[0], starts)
    low, high = np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)
    # A sum beyond float64 says nothing, nor does one of no points: another column's stand for them.
    mean = np.where(np.isfinite(mean), np.clip(mean, low, high), low / 2 + high / 2)
    return Buckets(
        column=column, low=low, high=high, first=value[starts], last=value[ends - 1], mean=mean, ends=np.asarray(ends)
    )


def draw_line(canvas: Canvas, layer: int, shares: Buckets) -> None:
    """A connected line through buckets given as shares of the height; what lies beyond it is cut.

    Columns between two points are interpolated; between two columns the line meets half way.
    """
    columns, low, high, first, last = shares.column, shares.low, shares.high, shares.first, shares.last
    gaps = np.diff(columns)
    if len(gaps) and gaps.max() > 1:
        # Of a line that begins far outside only what crosses the picture is filled in.
        near = np.flatnonzero((columns >= -1) & (columns <= 2 * canvas.columns))
        begin = max(int(near[0]) - 1, 0) if len(near) else max(int(np.searchsorted(columns, 0)) - 1, 0)
        end = min(int(near[-1]) + 2, len(columns)) if len(near) else begin + 2
        columns = columns[begin:end]
        low, high, first, last = (a[begin:end] for a in (low, high, first, last))
        whole = np.arange(max(int(columns[0]), -1), min(int(columns[-1]), 2 * canvas.columns) + 1)
        at = np.searchsorted(columns, whole, side="right") - 1
        known = columns[at] == whole
        after = np.minimum(at + 1, len(columns) - 1)
        way = np.maximum(columns[after] - columns[at], 1)
        share = (whole - columns[at]) / way
        with np.errstate(invalid="ignore", over="ignore"):
            between = last[at] * (1 - share) + first[after] * share
        # On a log axis nothing may lie at minus infinity: no line leads there.
        between = np.where(np.isfinite(between), between, last[at])
        low, high, first, last = (np.where(known, a[at], between) for a in (low, high, first, last))
        columns = whole
    dots = 4 * canvas.rows - 1
    lowest = _dot(low, dots)
    highest = _dot(high, dots)
    if len(columns) > 1:
        out = _dot(last[:-1], dots)
        into = _dot(first[1:], dots)
        middle = (out + into) // 2
        rising = into > out
        # Half of the climb belongs to the column before, the rest to the one after.
        highest[:-1] = np.where(rising, np.maximum(highest[:-1], middle), highest[:-1])
        lowest[1:] = np.where(rising, np.minimum(lowest[1:], np.minimum(middle + 1, into)), lowest[1:])
        falling = into < out
        lowest[:-1] = np.where(falling, np.minimum(lowest[:-1], middle + 1), lowest[:-1])
        highest[1:] = np.where(falling, np.maximum(highest[1:], np.maximum(middle, into)), highest[1:])
    canvas.spans(layer, columns, lowest, highest)


def _dot(share: Floats, dots: int) -> Ints:
    # Far outside is cut before it becomes an integer: inf and 1e300 have none.
    found: Ints = np.floor(np.clip(share, -2.0, 3.0) * dots + 0.5).astype(np.int64)
    return found


def mark_nonfinite(canvas: Canvas, column: Ints, value: Floats, *, log: bool) -> None:
    """What has no place: "↑" at the top for inf, "↓" at the bottom for -inf or ≤ 0 on a log axis, "×" for nan."""
    bottom = canvas.rows - 1
    for where, row, character in (
        (np.isnan(value), bottom, "×"),
        (np.isposinf(value), 0, "↑"),
        (np.isneginf(value), bottom, "↓"),
        ((value <= 0) & np.isfinite(value) if log else np.zeros(len(value), dtype=np.bool_), bottom, "↓"),
    ):
        cells = np.unique(column[where] // 2)
        for cell in cells[(cells >= 0) & (cells < canvas.columns)].tolist():
            canvas.marks[row, cell] = character
