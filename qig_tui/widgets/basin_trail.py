"""The path of the basins on their map: braille dots, old ones faint and new ones bright, with marks where it matters.

Our own dots and no plotting library: a frame of 4 096 points takes a few milliseconds, both axes have one scale, and
only what changed of it is sent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.message import Message
from textual.strip import Strip

from qig_tui.basin.basins import Derived
from qig_tui.basin.trail import Trail
from qig_tui.picture import BasinView, RunPicture
from qig_tui.series import Floats, Ints
from qig_tui.text import compact, grouped, percent
from qig_tui.widgets.braille import nice_step
from qig_tui.widgets.lines import Lines, Part

_AGES = 4
"""Shades from the oldest to the newest."""
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)
_MARGIN = 2
"""Dots that are left free on each side."""
_LEAST_SPAN = 1e-9


@dataclass(frozen=True)
class Mark:
    """A place on the map that is worth a sign; later ones lie on top."""

    glyph: str
    tone: str
    word: str
    at: tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """From radians on the map to dots; one scale for both axes, so that what looks equally far is equally far."""

    left: float
    top: float
    unit: float
    """Radians a dot."""

    def column(self, x: Floats) -> Ints:
        found: Ints = np.rint((x - self.left) / self.unit).astype(np.int64)
        return found

    def row(self, y: Floats) -> Ints:
        """0 at the top."""
        found: Ints = np.rint((self.top - y) / self.unit).astype(np.int64)
        return found


def frame_for(points: Floats, columns: int, rows: int) -> Frame:
    """The largest picture of points [N, 2] in so many cells, in the middle of them."""
    wide, high = max(2 * columns - 1 - 2 * _MARGIN, 1), max(4 * rows - 1 - 2 * _MARGIN, 1)
    low, top = points.min(axis=0), points.max(axis=0)
    unit = max(float(top[0] - low[0]) / wide, float(top[1] - low[1]) / high, _LEAST_SPAN)
    centre = low / 2 + top / 2
    return Frame(
        left=float(centre[0]) - unit * (2 * columns - 1) / 2,
        top=float(centre[1]) + unit * (4 * rows - 1) / 2,
        unit=unit,
    )


def path_dots(frame: Frame, points: Floats, columns: int, rows: int) -> NDArray[np.int8]:
    """[4 rows, 2 columns]: 0 where nothing is, else by the age of the newest line there 1 to 4; 1 and 2 are dotted."""
    grid = np.zeros((4 * rows, 2 * columns), dtype=np.int8)
    x, y = frame.column(points[:, 0]), frame.row(points[:, 1])
    steps = np.maximum(np.abs(np.diff(x)), np.abs(np.diff(y)))
    # Each line without its first dot, and the first dot of all: none is drawn twice.
    count = np.maximum(steps, 1)
    line = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count) + 1
    share = nth / count[line]
    column = np.concatenate((x[:1], np.rint(x[line] + share * (x[line + 1] - x[line])).astype(np.int64)))
    row = np.concatenate((y[:1], np.rint(y[line] + share * (y[line + 1] - y[line])).astype(np.int64)))
    level = np.concatenate(([0], line * _AGES // max(len(count), 1))) + 1
    drawn = (level > _AGES // 2) | (np.arange(len(level)) % 2 == 0)
    drawn &= (column >= 0) & (column < 2 * columns) & (row >= 0) & (row < 4 * rows)
    np.maximum.at(grid, (row[drawn], column[drawn]), level[drawn].astype(np.int8))
    return grid


class BasinTrail(Lines):
    """A click on the path goes to the step that is nearest there."""

    class Wanted(Message):
        """A step was pointed at."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._trail: Trail | None = None
        self._marks: Sequence[Mark] = ()
        self._instead = ""
        self._told: Sequence[str] = ()
        self._frame: Frame | None = None
        self._ages: list[Style] = []

    def show(self, trail: Trail | str, marks: Sequence[Mark] = (), told: Sequence[str] = ()) -> None:
        """Draw a path. Args: trail: a sentence where there is none; told: what it is made of, the most needed first."""
        self._trail = trail if isinstance(trail, Trail) else None
        self._instead = trail if isinstance(trail, str) else ""
        self._marks, self._told = marks, told
        self.redraw()

    def _recolour(self) -> None:
        self._ages.clear()
        super()._recolour()

    def _age(self, level: int) -> Style:
        if not self._ages:
            faint, bright = self.tone("faint"), self.tone("accent")
            low, high = (Color.from_rich_color(s.color or RichColor.default()) for s in (faint, bright))
            for i in range(_AGES):
                self._ages.append(bright + Style(color=low.blend(high, i / (_AGES - 1)).rich_color))
        return self._ages[level - 1]

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        trail = self._trail
        self._frame = None
        left: list[Part] = [("strong", "PATH")]
        if trail is None:
            return [self.heading(width, left), *([self.strip(("dim", f" {self._instead}"))] if self._instead else [])]
        first, second = (percent(share) for share in trail.explained)
        if width >= 84:
            left.append(("dim", "  tangent map at the Fréchet mean"))
        right: list[Part] = [("dim", "PC 1 "), ("text", first), ("dim", "  PC 2 "), ("text", second)]
        if width >= 50:
            right.append(("dim", " of the variance"))
        heading = self.heading(width, left, right)
        rows = height - 1 - (height >= 6) - (height >= 10)
        if rows < 1 or width < 4:
            return [heading]
        body = self._plot(trail, width, rows)
        # The scale is known as soon as the picture is.
        foot = [self._scale(width), self._legend(width)] if height >= 10 else [self._legend(width)][: height >= 6]
        return [heading, *body, *foot]

    def _plot(self, trail: Trail, columns: int, rows: int) -> list[Strip]:
        marks = np.array([mark.at for mark in self._marks], dtype=np.float64).reshape(-1, 2)
        self._frame = frame = frame_for(np.concatenate((trail.scores, marks)), columns, rows)
        cells = path_dots(frame, trail.scores, columns, rows).reshape(rows, 4, columns, 2)
        codes = np.einsum("rdcs,ds->rc", cells > 0, _DOTS, dtype=np.int32)
        levels = cells.max(axis=(1, 3)).tolist()
        text = [[chr(0x2800 + code) if code else " " for code in row] for row in codes.tolist()]
        signs: dict[tuple[int, int], Mark] = {}
        mean = Mark("┼", "faint", "", (0.0, 0.0))
        for mark in (mean, *self._marks):
            column = int(frame.column(np.array(mark.at[0]))) // 2
            row = int(frame.row(np.array(mark.at[1]))) // 4
            if 0 <= column < columns and 0 <= row < rows and (mark is not mean or text[row][column] == " "):
                signs[row, column] = mark
        return [
            self._line(text[row], levels[row], {c: m for (r, c), m in signs.items() if r == row}) for row in range(rows)
        ]

    def _line(self, text: Sequence[str], levels: Sequence[int], signs: dict[int, Mark]) -> Strip:
        segments: list[Segment] = []
        for column, character in enumerate(text):
            mark = signs.get(column)
            if mark is not None:
                character, style = mark.glyph, self.tone(mark.tone)
            elif levels[column]:
                style = self._age(levels[column])
            else:
                style = segments[-1].style or self.tone("text") if segments else self.tone("text")
            if segments and segments[-1].style == style:
                segments[-1] = Segment(segments[-1].text + character, style)
            else:
                segments.append(Segment(character, style))
        return Strip(segments)

    def _scale(self, width: int) -> Strip:
        """How long a tenth or a fifth of the width is, and what the picture is made of."""
        if self._frame is None:
            return self.strip(("text", ""))
        cells = 2 * self._frame.unit
        length = nice_step(cells * width / 8, 1)
        bar = min(max(round(length / cells), 2), width)
        parts: list[Part] = [("dim", f" ├{'─' * (bar - 2)}┤ {compact(length)} rad")]
        room = width - bar - len(parts[0][1]) + bar
        for words in self._told:
            if len(words) + 3 > room:
                break
            parts.append(("dim", f"   {words}"))
            room -= len(words) + 3
        return self.strip(*parts, width=width)

    def _legend(self, width: int) -> Strip:
        parts: list[Part] = []
        room = width
        for mark in self._marks:
            if mark.word and len(mark.word) + 4 <= room:
                parts += [(mark.tone, f" {mark.glyph}"), ("dim", f" {mark.word} ")]
                room -= len(mark.word) + 4
        if room >= 34:
            parts.append(("dim", " dotted: the older half  ┼ mean"))
        return self.strip(*parts, width=width)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        trail, frame = self._trail, self._frame
        if trail is None or frame is None or event.y < 1:
            return
        x, y = frame.column(trail.scores[:, 0]) // 2, frame.row(trail.scores[:, 1]) // 4
        # A cell is twice as high as wide.
        off = np.abs(x - event.x) + 2 * np.abs(y - (event.y - 1))
        best = int(np.argmin(off))
        if off[best] <= 4:
            self.post_message(self.Wanted(int(trail.step[best])))


def told_of(trail: Trail, derived: Derived) -> list[str]:
    """What a path is made of, the most needed first."""
    first, last = int(trail.step[0]), int(trail.step[-1])
    out = [f"{grouped(len(trail.step))} basins, steps {grouped(first)}–{grouped(last)}"]
    if derived.share is not None:
        out.insert(0, f"{percent(derived.share)} read")
    if derived.every > 1:
        out.append(f"every {derived.every}th recorded")
    if derived.left:
        out.append(f"without {grouped(derived.left)} on branches it left")
    return out


def marks_of(picture: RunPicture, view: BasinView, trail: Trail, derived: Derived, here: str) -> list[Mark]:
    """The checkpoints, the first basin, the nearest past one, the pinned one and the one that is shown.

    Args:
        here: what the one shown is called.
    """
    whole = {e.manifest.step for e in picture.checkpoints if e.manifest is not None and not e.problem}
    saved = np.flatnonzero(np.isin(trail.step, list(whole))).tolist()
    marks = [_mark("✓", "ok", "" if n else "checkpoint", trail.scores[i]) for n, i in enumerate(saved)]

    def add(glyph: str, tone: str, word: str, values: Floats) -> None:
        if len(values) == trail.directions.shape[1]:
            marks.append(_mark(glyph, tone, word, trail.place(values[None])[0]))

    birth, nearest = picture.history.reference, derived.own
    if birth is not None and birth[0] <= view.step:
        add("○", "text", "birth", birth[1])
    if nearest is not None:
        at = int(np.abs(trail.step - nearest.step).argmin())
        marks.append(_mark("◇", "cursor", "nearest", trail.scores[at]))
    if picture.pinned is not None:
        add("◆", "warning", "pinned", picture.pinned[1])
    add("●", "strong", here, view.values)
    return marks


def _mark(glyph: str, tone: str, word: str, at: Floats) -> Mark:
    return Mark(glyph, tone, word, (float(at[0]), float(at[1])))
