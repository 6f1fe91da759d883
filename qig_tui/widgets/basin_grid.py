"""A basin as a grid of tiles: how large each entry is, or how far it moved. Keys and mouse choose one."""

import math
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.message import Message
from textual.strip import Strip

from qig_tui.picture import BasinView
from qig_tui.series import Floats
from qig_tui.text import grouped, signed, thin_bar
from qig_tui.widgets.lines import Lines, Part

_LEVELS = 6
"""Few: neighbours of one colour are sent as one."""
_STRONGEST = 0.62
_BLOCKS = "▁▂▃▄▅▆▇█"
_FORMS = ((7, 2), (6, 2), (6, 1), (2, 1), (1, 1))
"""Cells and lines of a tile, the largest that fits is taken; under six cells there is no number in it."""


class BasinGrid(Lines, can_focus=True):
    """Numbers and bars say what the colours say."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(0, -1)", "left", show=False, tooltip="The entry to the left"),
        Binding("right", "step(0, 1)", "right", show=False, tooltip="The entry to the right"),
        Binding("up", "step(-1, 0)", "up", show=False, tooltip="The entry above"),
        Binding("down", "step(1, 0)", "down", show=False, tooltip="The entry below"),
    ]

    class Chosen(Message):
        """An entry was pointed at."""

        def __init__(self, entry: int) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._basin: BasinView | None = None
        self._is_change = False
        self._entry = 0
        self._styles: dict[tuple[int, bool, bool], Style] = {}

    def show(self, basin: BasinView, *, entry: int, change: bool) -> None:
        """Args: entry: the one to mark; change: how far each moved from the reference instead of how large it is."""
        self._basin, self._is_change = basin, change
        self.go_to(entry)

    def go_to(self, entry: int) -> None:
        """Mark an entry; beyond the last it is the last."""
        self._entry = min(entry, 0 if self._basin is None else len(self._basin.values) - 1)
        self.redraw()

    def _recolour(self) -> None:
        self._styles.clear()
        super()._recolour()

    def _shape(self) -> tuple[int, int, int]:
        """Entries in a line, and cells and lines of each: as near to a square as there is room for."""
        width, height = self.size
        count = 1 if self._basin is None else len(self._basin.values)
        side = math.isqrt(count - 1) + 1
        for wide, high in _FORMS:
            if wide * side <= width and high * -(-count // side) < height:
                return side, wide, high
        return max(min(side, width), 1), 1, 1

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        basin = self._basin
        if basin is None:
            return
        shown = basin.to_reference if self._is_change else basin.values
        largest = float(np.abs(shown).max()) or 1.0
        side, wide, high = self._shape()
        in_sight = min(len(shown), side * ((height - 1) // high))
        yield self._title(basin, largest, in_sight, width)
        for start in range(0, in_sight, side):
            yield from self._row(shown, start, min(start + side, in_sight), largest, wide, high)

    def _title(self, basin: BasinView, largest: float, in_sight: int, width: int) -> Strip:
        left: list[Part] = [("strong", "GRID"), ("dim", "  Δ to the reference" if self._is_change else "  value")]
        chosen = float((basin.to_reference if self._is_change else basin.values)[self._entry])
        number = signed(chosen, 6) if self._is_change else f"{chosen:.6f}"
        right: list[Part] = [("dim", f"#{self._entry:02d} "), ("text", number)]
        if in_sight < len(basin.values):
            left.append(("dim", f"  {grouped(in_sight)} of {grouped(len(basin.values))}"))
        elif width >= 50:
            right.append(("dim", f"  largest {'±' if self._is_change else ''}{largest:.4f}"))
        return self.heading(width, left, right)

    def _row(self, shown: Floats, start: int, end: int, largest: float, wide: int, high: int) -> Iterable[Strip]:
        for line in range(high):
            segments: list[Segment] = []
            for entry in range(start, end):
                value = float(shown[entry])
                text = self._tile(value, value / largest, wide, is_bar=line == 1)
                # By the square root, in which the simplex is flat: small entries differ as visibly as large ones.
                level = round(math.sqrt(abs(value) / largest) * (_LEVELS - 1))
                style = self._style(level, value < 0, entry == self._entry)
                if segments and segments[-1].style == style:
                    segments[-1] = Segment(segments[-1].text + text, style)
                else:
                    segments.append(Segment(text, style))
            yield Strip(segments)

    def _tile(self, value: float, share: float, wide: int, *, is_bar: bool) -> str:
        if wide < 6:
            block = _BLOCKS[min(int(8 * abs(share)), 7)]
            sign = ("+" if value > 0 else "−" if value < 0 else "·") if self._is_change else block
            return sign if wide == 1 else f"{sign}{block}" if self._is_change else f"{block} "
        if is_bar:
            return f" {thin_bar(abs(share), 5)[0]}".ljust(wide)
        if self._is_change:
            return signed(value, 4).ljust(wide)[:wide]
        return f" {f'{value:.4f}'.removeprefix('0')}".ljust(wide)[:wide]

    def _style(self, level: int, negative: bool, chosen: bool) -> Style:
        key = level, negative and self._is_change, chosen
        if key not in self._styles:
            self._styles[key] = self._made(*key)
        return self._styles[key]

    def _made(self, level: int, negative: bool, chosen: bool) -> Style:
        tone = self.tone("cursor" if negative else "accent")
        if self.app.no_color or self.app.current_theme.ansi:
            # Nothing between two colours there: the numbers and the bars have to do.
            return self.tone("text") + Style(reverse=chosen, bold=chosen)
        strong = Color.from_rich_color(tone.color) if tone.color is not None else Color.parse("white")
        ground = self.background_colors[1]
        tile = ground.blend(strong, _STRONGEST * level / (_LEVELS - 1))
        text = self.tone("text").color
        ink = Color.from_rich_color(text) if text is not None else tile.inverse
        if abs(tile.brightness - ink.brightness) < 0.35:
            ink = ground
        if chosen:
            tile, ink = ink, tile
        return Style(color=ink.rich_color, bgcolor=tile.rich_color, bold=chosen)

    def _choose(self, entry: int) -> None:
        if self._basin is not None and 0 <= entry < len(self._basin.values):
            self.post_message(self.Chosen(entry))

    def action_step(self, rows: int, columns: int) -> None:
        side = self._shape()[0]
        if 0 <= self._entry % side + columns < side:
            self._choose(self._entry + rows * side + columns)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        side, wide, high = self._shape()
        column, row = event.x // wide, (event.y - 1) // high
        if event.y > 0 and column < side:
            self._choose(row * side + column)
