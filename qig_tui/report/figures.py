"""One chart a metric: its mean over its extremes, lost branches, limits, what happened. Arrays in, a drawing out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qig_core.rundir.schema import ReferenceLine
from qig_tui.charting import ChartData
from qig_tui.report.svg import HEIGHT, WIDTH, Drawing, Point, polyline
from qig_tui.series import Bools, Floats, Ints
from qig_tui.text import compact, grouped, quantity, unit_text
from qig_tui.view import View
from qig_tui.widgets.braille import Buckets, Scale, YRange, bucketed, nice_step, ticks, y_range_for
from qig_tui.widgets.points import Points, visible

_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 806, 66, 258
"""Of the plot itself; what a line means stands to the right of it."""
_COLUMNS = 690
_LOST_COLUMNS = 230
_MOST_LOST = 2400
"""Points of lost branches in one chart."""
_LOG_FROM = 1000.0
"""Values that are all positive and so many times apart are drawn by decades."""
_DOTTED = 60
"""Of so few points each is seen."""
_ROOM = 14.0
_SEVERITIES = ("info", "warning", "critical")
_SHAPES = {
    "critical": ((-5, -9), (5, -9), (0, 0)),
    "warning": ((-5, 0), (0, -9), (5, 0)),
    "checkpoint": ((-3, -3), (0, -6), (3, -3), (0, 0)),
    "restored": ((-6, -4), (0, -9), (0, 1)),
}
"""Outlines around where a mark points to; critical ones have a stem through the chart."""
_NAMES = {"critical": "critical", "warning": "warning", "checkpoint": "checkpoint", "restored": "went back"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart as it is drawn, and what of it a document tells in words."""

    metric: str
    svg: str
    drawn: int
    measured: int


@dataclass(frozen=True)
class Frame:
    """Steps and values to pixels."""

    first: int
    last: int
    y: YRange

    def x_of(self, step: NDArray[Any]) -> Floats:
        share = (step.astype(np.float64) - float(self.first)) / max(float(self.last) - float(self.first), 1.0)
        x: Floats = _LEFT + share * (_RIGHT - _LEFT)
        return x

    def y_of(self, value: Floats) -> Floats:
        share = np.clip(self.y.to_share(value), -0.02, 1.02)
        return _BOTTOM - share * (_BOTTOM - _TOP)

    def height_of(self, value: float) -> float:
        return float(self.y_of(np.array([value], dtype=np.float64))[0])

    def points(self, scale: Scale, buckets: Buckets, value: Floats) -> list[Point]:
        """A value a column, in the middle of the steps that it holds."""
        step = scale.origin + (buckets.column + 0.5 * (scale.width > 1)) * float(scale.width)
        x = np.clip(self.x_of(step), _LEFT, _RIGHT)
        return list(zip(x.tolist(), self.y_of(value).tolist(), strict=True))


def figure(data: ChartData, marks: Mapping[str, Sequence[int]]) -> Figure:
    """The chart of a metric over all steps.

    Args:
        marks: by what happened ("critical", "warning", "checkpoint", "restored") the steps at which it did.
    """
    points = visible(data.series, data.abandoned, View())
    reach = _reach(points)
    log = reach is not None and reach[0] > 0 and reach[1] / reach[0] >= _LOG_FROM
    scale = _scale(points.first, points.last, _COLUMNS)
    buckets = bucketed(points.step, points.value, scale, points.mass) if len(points.step) else None
    frame = Frame(points.first, points.last, _y_range(data, reach, log=log))
    title = name_of(data)
    drawing = Drawing(title, f"{title} over steps {points.first} to {points.last}; {data.seen} points were measured.")
    _heading(drawing, data, log=log)
    _axes(drawing, frame)
    _wires(drawing, frame, marks)
    for step, value in _lost(points):
        coarse = _scale(points.first, points.last, _LOST_COLUMNS)
        lost = bucketed(step, value, coarse)
        drawing.path("lost", polyline(frame.points(coarse, lost, lost.mean)))
    banded = buckets is not None and len(points.step) > len(buckets.column)
    _references(drawing, frame, data.references)
    if buckets is not None:
        _curve(drawing, frame, scale, buckets, banded=banded)
    _odd(drawing, frame, points)
    _marks(drawing, frame, marks)
    _legend(drawing, points, marks, banded=banded)
    return Figure(metric=data.metric, svg=drawing.whole(), drawn=points.drawn, measured=data.seen)


def _scale(first: int, last: int, columns: int) -> Scale:
    """As many steps a column as it takes, not more."""
    return Scale(origin=first, width=max(-(-(last - first + 1) // columns), 1))


def name_of(data: ChartData) -> str:
    """What a metric is called in full: Φ integration, basin drift, loss."""
    says_it_all = data.title and (data.label == data.metric or f" {data.label} " in f" {data.title} ")
    return data.title if says_it_all else f"{data.label} {data.title}".strip()


def _reach(points: Points) -> tuple[float, float] | None:
    """The lowest and the highest finite value that is drawn, of lost branches too: there the run was in trouble."""
    value = np.concatenate((points.value, points.lost_value[np.isfinite(points.lost_value)]))
    return (float(value.min()), float(value.max())) if len(value) else None


def _y_range(data: ChartData, reach: tuple[float, float] | None, *, log: bool) -> YRange:
    if reach is None:
        return YRange(low=0.0, high=1.0)
    low, high = reach
    if not log:
        span = high / 2 - low / 2
        for line in data.references:
            # A limit close by is worth the room; one far away would flatten the curve.
            near = max(span, max(abs(low), abs(high)) / 4 if line.severity != "info" else 0.0)
            if reach[0] - near <= line.value <= reach[1] + near:
                low, high = min(low, line.value), max(high, line.value)
    return y_range_for(low, high, log=log, bounds=data.bounds)


def _lost(points: Points) -> Iterable[tuple[Ints, Floats]]:
    """The newest lost branches for which there is room, oldest first."""
    found: list[tuple[Ints, Floats]] = []
    room = _MOST_LOST
    for step, value in reversed(list(points.lost(log=False))):
        room -= min(len(step), _LOST_COLUMNS)
        if room < 0:
            break
        found.append((step, value))
    return reversed(found)


def _heading(drawing: Drawing, data: ChartData, *, log: bool) -> None:
    drawing.title((_LEFT, 30), name_of(data), unit_text(data.unit))
    low, high = data.series.extremes or (None, None)
    # The unit stands in the title; of bytes a number alone would be too long to read.
    unit = data.unit if data.unit in ("bytes", "B") else ""
    parts = [] if data.newest is None else [f"last {quantity(data.newest[1], unit)}"]
    if low is not None:
        parts += [f"min {quantity(low, unit)}", f"max {quantity(high, unit)}"]
    parts += ["log scale"] * log
    drawing.text("soft end", (WIDTH - 16, 30), "  ·  ".join(parts), 110)


def _axes(drawing: Drawing, frame: Frame) -> None:
    values = [value for _, value in ticks(frame.y, 16)]
    for value in values:
        y = frame.height_of(value)
        drawing.line("grid", (_LEFT, y), (_RIGHT, y))
        drawing.text("soft end", (_LEFT - 8, y + 4), compact(value), 8)
    drawing.line("axis", (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))
    for step in _step_ticks(frame.first, frame.last):
        x = float(frame.x_of(np.array([step], dtype=np.int64))[0])
        drawing.line("axis", (x, _BOTTOM), (x, _BOTTOM + 5))
        drawing.text("soft middle", (x, _BOTTOM + 19), grouped(step), 24)
    drawing.text("soft end", (WIDTH - 16, _BOTTOM + 19), "step")


def _step_ticks(first: int, last: int) -> list[int]:
    parts = 8 if max(abs(first), abs(last)) < 10**7 else 4
    width = max(int(nice_step(float(last - first), parts)), 1)
    return list(range(-(-first // width) * width, last + 1, width))[:12]


def _curve(drawing: Drawing, frame: Frame, scale: Scale, buckets: Buckets, *, banded: bool) -> None:
    if banded:
        top = frame.points(scale, buckets, buckets.high)
        bottom = frame.points(scale, buckets, buckets.low)
        drawing.polygon("band", [*top, *reversed(bottom)])
    line = frame.points(scale, buckets, buckets.mean)
    drawing.path("line", polyline(line))
    if len(line) <= _DOTTED:
        drawing.path(
            "dot", "".join(f"M{x - 2.4:.1f} {y:.1f}a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0 -4.8 0" for x, y in line)
        )


def _references(drawing: Drawing, frame: Frame, references: Sequence[ReferenceLine]) -> None:
    """Each line that lies in the picture, its name at its end; names make way for each other."""
    shown: list[tuple[float, ReferenceLine]] = []
    for line in references:
        share = float(frame.y.to_share(np.array([line.value], dtype=np.float64))[0])
        if math.isfinite(share) and -1e-9 <= share <= 1 + 1e-9:
            shown.append((frame.height_of(line.value), line))
        if line.upto is not None:
            _band(drawing, frame, line.value, line.upto, line.severity if line.severity in _SEVERITIES else "info")
    free = float(_TOP) - _ROOM
    for y, line in sorted(shown, key=lambda one: one[0]):
        severity = line.severity if line.severity in _SEVERITIES else "info"
        drawing.line(f"ref {severity}", (_LEFT, y), (_RIGHT, y))
        at = max(y + 4, free + _ROOM)
        free = at
        tone = "soft" if severity == "info" else severity
        drawing.text(f"small {tone}", (_RIGHT + 8, at), line.label or compact(line.value), 24)


def _band(drawing: Drawing, frame: Frame, value: float, upto: float, severity: str) -> None:
    """Beside the axis the heights of a band of values, as far as they lie in the picture."""
    bottom, top = (min(max(frame.height_of(end), _TOP), _BOTTOM) for end in (value, upto))
    if top < bottom:
        drawing.polygon(f"span {severity}", [(_LEFT - 4, top), (_LEFT, top), (_LEFT, bottom), (_LEFT - 4, bottom)])


def _odd(drawing: Drawing, frame: Frame, points: Points) -> None:
    """On the edge what has no place: a cross for nan and an arrow down for -inf below, an arrow up for inf above."""
    gone = ~np.isfinite(points.lost_value)
    x = np.round(frame.x_of(np.concatenate((points.odd_step, points.lost_step[gone]))))
    value = np.concatenate((points.odd_value, points.lost_value[gone]))
    for where, y, shape in (
        (np.isnan(value), _BOTTOM - 7, "m-3 -3l6 6m0 -6l-6 6"),
        (np.isneginf(value), _BOTTOM - 7, "m0 -4v8m-3 -3l3 3l3 -3"),
        (np.isposinf(value), _TOP + 7, "m0 4v-8m-3 3l3 -3l3 3"),
    ):
        drawing.path("odd", "".join(f"M{at:.0f} {y}{shape}" for at in _apart(x, where, 4)))


def _apart(x: Floats, where: Bools, least: float) -> list[float]:
    """Places, those left out that would lie upon another."""
    found: list[float] = []
    for at in sorted(x[where].tolist()):
        if not found or at - found[-1] >= least:
            found.append(at)
    return found


def _places(frame: Frame, steps: Sequence[int]) -> list[float]:
    known = np.array([s for s in steps if frame.first <= s <= frame.last], dtype=np.int64)
    return _apart(frame.x_of(known), np.ones(len(known), dtype=np.bool_), 3)


def _wires(drawing: Drawing, frame: Frame, marks: Mapping[str, Sequence[int]]) -> None:
    """Behind everything a dotted line down from what was grave; from hundreds it would be a wall."""
    for kind in ("restored", "critical"):
        places = _places(frame, marks.get(kind, ()))
        if len(places) <= 40:
            drawing.path(f"wire {kind}", "".join(f"M{x:.1f} {_TOP - 7}V{_BOTTOM}" for x in places))


def _marks(drawing: Drawing, frame: Frame, marks: Mapping[str, Sequence[int]]) -> None:
    """Above the plot, the grave ones last, so that they lie on top."""
    for kind in reversed(_SHAPES):
        outline = [(float(x), float(y)) for x, y in _SHAPES[kind]]
        tail = polyline(outline).partition("l")[2]
        start = outline[0]
        drawing.path(
            kind,
            "".join(
                f"M{x + start[0]:.1f} {_TOP - 7 + start[1]:.0f}l{tail}z" for x in _places(frame, marks.get(kind, ()))
            ),
        )


def _legend(drawing: Drawing, points: Points, marks: Mapping[str, Sequence[int]], *, banded: bool) -> None:
    x, y = float(_LEFT), HEIGHT - 16.0

    def name(text: str) -> None:
        nonlocal x
        drawing.text("small soft", (x + 22, y + 4), text)
        x += 22 + 5.9 * len(text) + 18

    if banded:
        drawing.polygon("band", [(x, y - 5), (x + 16, y - 5), (x + 16, y + 5), (x, y + 5)])
    drawing.line("line", (x, y), (x + 16, y))
    name("mean, lowest to highest" if banded else "as measured")
    if len(points.lost_step):
        drawing.line("lost", (x, y), (x + 16, y))
        name("abandoned branch")
    if len(points.odd_step) or not np.isfinite(points.lost_value).all():
        drawing.path("odd", f"M{x + 8} {y}m-3 -3l6 6m0 -6l-6 6")
        name("not finite")
    for kind in _SHAPES:
        if any(points.first <= step <= points.last for step in marks.get(kind, ())):
            drawing.polygon(kind, [(x + 9 + dx, y + 4 + dy) for dx, dy in _SHAPES[kind]])
            name(_NAMES[kind])
