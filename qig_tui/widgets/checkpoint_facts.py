"""What is known of one checkpoint beside one another in columns, and the lines above and below the table of all."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.checkpoints.facts import Section
from qig_tui.text import pad
from qig_tui.widgets.lines import Lines, Part

_COLUMN = 50
"""Cells that a column should have at least."""
_GAP = 3
_KEY = 12
_LINES = 3
"""Of one fact, at most."""


class CheckpointFacts(Lines):
    """Sections fill one column after the other; what has no place is counted."""

    DEFAULT_CSS = """
    CheckpointFacts { height: auto; background: $background; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sections: Sequence[Section] = ()

    def show(self, sections: Sequence[Section]) -> None:
        self._sections = sections
        self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        count = max((width + _GAP) // (_COLUMN + _GAP), 1)
        cells = (width - (count - 1) * _GAP) // count
        columns = self._columns(count, cells, height)
        for y in range(height):
            parts: list[Part] = []
            for column in columns:
                line = column[y] if y < len(column) else []
                parts += [*line, ("text", " " * (cells - sum(cell_len(text) for _, text in line) + _GAP))]
            yield self.strip(*parts, width=width)

    def _columns(self, count: int, cells: int, height: int) -> list[list[list[Part]]]:
        """Lines of each column, all about as long; what is longer than the height is cut and counted."""
        blocks = [_section(section, cells) for section in self._sections]
        columns: list[list[list[Part]]] = []
        for most in range(1, height + 1):
            columns = _stacked(blocks, most)
            if len(columns) <= count:
                break
        del columns[count:]
        rest = sum(len(block) for block in blocks) - sum(len([line for line in column if line]) for column in columns)
        for column in columns:
            if len(column) > height > 0:
                rest += len([line for line in column[height - 1 :] if line])
                column[height - 1 :] = [[]]
        if rest and columns and height:
            columns[-1] = (columns[-1] + [[]] * height)[:height]
            columns[-1][height - 1] = [("dim", pad(f"… {rest} more lines; enter shows all", cells))]
        return columns


def _stacked(blocks: Sequence[list[list[Part]]], most: int) -> list[list[list[Part]]]:
    """Blocks one below the other, in a further column where more than so many lines would stand in one."""
    columns: list[list[list[Part]]] = []
    for block in blocks:
        if columns and len(columns[-1]) + 1 + len(block) <= most:
            columns[-1] += [[], *block]
        else:
            columns.append(list(block))
    return columns


def _section(section: Section, cells: int) -> list[list[Part]]:
    lines: list[list[Part]] = [[("accent", pad(section.title, cells))]]
    if not section.facts:
        lines.append([("dim", pad("none", cells))])
    widest = max((cell_len(fact.key) for fact in section.facts), default=0)
    key = min(max(widest + 1, _KEY), cells // 2)
    for fact in section.facts:
        said = wrap(fact.value, max(cells - key, 1)) or [""]
        for i, line in enumerate([*said[: _LINES - 1], " ".join(said[_LINES - 1 :])][: max(len(said), 1)]):
            lines.append([("dim", pad("" if i else fact.key, key)), (fact.tone, pad(line, max(cells - key, 0)))])
    return lines


class Heading(Lines):
    """A title in a rule, with something at its right."""

    DEFAULT_CSS = """
    Heading { height: 1; background: $background; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Sequence[Part] = ()
        self._right: Sequence[Part] = ()

    def show(self, left: Sequence[Part], right: Sequence[Part] = ()) -> None:
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.redraw()

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        yield self.heading(width, self._left, self._right)
