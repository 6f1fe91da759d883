"""A widget made of lines that were computed before they are asked for, and re-sent only where they changed."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from qig_tui.text import clip

Part = tuple[str, str]
"""A tone and the text in it."""


class Lines(Widget):
    """Subclasses give their lines in `lines`; `redraw` compares them with what is on the screen.

    Text is never markup: what comes from a file stands in a segment as it is.
    """

    DEFAULT_CSS = """
    Lines { height: 1fr; width: 1fr; }
    Lines > .lines--text { color: $foreground; }
    Lines > .lines--strong { color: $foreground; text-style: bold; }
    Lines > .lines--dim { color: $foreground-muted; }
    Lines > .lines--faint { color: $foreground 28%; }
    Lines > .lines--accent { color: $primary; }
    Lines > .lines--raw { color: $primary 38%; }
    Lines > .lines--cursor { color: $secondary; }
    Lines > .lines--ok { color: $success; }
    Lines > .lines--warning { color: $warning; }
    Lines > .lines--critical { color: $error; text-style: bold; }
    """
    TONES = ("text", "strong", "dim", "faint", "accent", "raw", "cursor", "ok", "warning", "critical")
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{tone}" for tone in TONES}

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip] = []
        self._tones: dict[str, Style] = {}

    # Textual's metaclass is not ABCMeta, so that it is mypy that refuses a subclass without it.
    @abstractmethod
    def lines(self, width: int, height: int) -> Iterable[Strip]:
        """The content as `height` strips of exactly `width` cells; fewer are filled up."""

    def tone(self, name: str) -> Style:
        if name not in self._tones:
            self._tones[name] = self.get_component_rich_style(f"lines--{name}")
        return self._tones[name]

    def redraw(self) -> None:
        """Compute the lines again and refresh the cells that differ."""
        width, height = self.size
        if not width or not height:
            return
        blank = Strip.blank(width, self.tone("text"))
        strips = [strip.adjust_cell_length(width, self.tone("text")) for strip in self.lines(width, height)][:height]
        strips += [blank] * (height - len(strips))
        before, self._strips = self._strips, strips
        if len(before) != height or (before and before[0].cell_length != width):
            self.refresh()
            return
        regions = []
        for y, (old, new) in enumerate(zip(before, strips, strict=True)):
            if old != new:
                start, end = changed_span(old, new)
                regions.append(Region(start, y, end - start, 1))
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.tone("text"))

    def on_resize(self, event: events.Resize) -> None:
        self.redraw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_mounted:
            # Textual gives the tones their new colours only after this.
            self.call_later(self._recolour)

    def _recolour(self) -> None:
        self._tones.clear()
        self.redraw()

    def strip(self, *parts: Part, width: int | None = None) -> Strip:
        """Parts of a line one after the other."""
        made = Strip([Segment(text, self.tone(tone)) for tone, text in parts if text])
        return made if width is None else made.adjust_cell_length(width, self.tone("text"))

    def heading(self, width: int, left: Sequence[Part], right: Sequence[Part] = ()) -> Strip:
        """A title set into a thin rule; the right part is left out where there is no room for both."""
        used = sum(cell_len(text) for _, text in left)
        if used + 2 > width:
            return self.strip(*_cut(left, width), width=width)
        room = width - used - 1
        after = sum(cell_len(text) for _, text in right)
        if right and after + 5 <= room:
            rule = room - after - 2
            return self.strip(*left, ("faint", " " + "─" * rule + " "), *right, width=width)
        return self.strip(*left, ("faint", " " + "─" * room), width=width)


def _cut(parts: Sequence[Part], width: int) -> list[Part]:
    """The parts as far as they fit; the one that is cut ends in an ellipsis."""
    out: list[Part] = []
    for tone, text in parts:
        if width <= 0:
            break
        shown = clip(text, width)
        out.append((tone, shown))
        width -= cell_len(shown)
    return out


def changed_span(old: Strip, new: Strip) -> tuple[int, int]:
    """From the first cell that differs to the last, of two lines of equal length that do differ.

    One span a line: Textual sends every span from the widget's left edge on, so that a second one only repeats it.
    """
    before, after = _cells(old), _cells(new)
    start = next((x for x, (a, b) in enumerate(zip(before, after, strict=True)) if a != b), 0)
    end = next((x for x in range(len(after), 0, -1) if before[x - 1] != after[x - 1]), len(after))
    return start, end


def _cells(strip: Strip) -> list[tuple[str, Style | None]]:
    """Character and style of each cell; the second cell of a wide character is empty."""
    out: list[tuple[str, Style | None]] = []
    for text, style, _ in strip:
        if text.isascii() or cell_len(text) == len(text):
            out += [(character, style) for character in text]
            continue
        for character in text:
            width = cell_len(character)
            if width:
                out += [(character, style), *[("", style)] * (width - 1)]
            elif out:
                out[-1] = (out[-1][0] + character, style)
    return out
