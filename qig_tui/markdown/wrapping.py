"""Text in several tones broken into lines of a width. No Textual."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

UNBROKEN = "\N{NO-BREAK SPACE}"
"""A space at which no line ends; it is drawn as a plain one."""
_PARTS = re.compile(r" |[^ ]+")
_CELLS = 6
"""Of a column of a table, at least."""


class Span(NamedTuple):
    text: str
    tone: str = ""
    """Names joined by "+": strong+em."""
    target: str = ""
    """Where a link leads, as it is written."""


Line = list[Span]


def wrapped(spans: Line, width: int) -> list[Line]:
    """Lines of at most so many cells; a word that is longer is cut."""
    lines: list[Line] = [[]]
    used = 0
    word: Line = []

    def place() -> None:
        """The word that is complete, on this line or the next."""
        nonlocal used, word
        length = sum(cell_len(span.text) for span in word)
        if used and used + length > width:
            _trim(lines[-1])
            lines.append([])
            used = 0
        for span in word:
            for i, part in enumerate(chop_cells(span.text, width - used if used < width else width)):
                if i or used + cell_len(part) > width:
                    lines.append([])
                    used = 0
                lines[-1].append(span._replace(text=part.replace(UNBROKEN, " ")))
                used += cell_len(part)
        word = []

    for span in spans:
        if span.text == "\n":
            place()
            lines.append([])
            used = 0
            continue
        for part in _PARTS.findall(span.text):
            if part != " ":
                word.append(span._replace(text=part))
                continue
            place()
            if used and used < width:
                lines[-1].append(span._replace(text=" "))
                used += 1
    place()
    _trim(lines[-1])
    return lines


def _trim(line: Line) -> None:
    while line and line[-1].text == " ":
        line.pop()


def column_widths(rows: Sequence[Sequence[Line]], room: int) -> list[int]:
    """As wide as what stands in them; where there is no room, the widest give way first."""
    columns = max(map(len, rows))
    widths = [
        max((sum(cell_len(span.text) for span in row[i]) for row in rows if i < len(row)), default=0)
        for i in range(columns)
    ]
    room -= 2 * (columns - 1)
    while sum(widths) > room and max(widths) > _CELLS:
        widest = max(widths)
        second = max([width for width in widths if width < widest], default=_CELLS)
        count = widths.count(widest)
        less = max(min(widest - max(second, _CELLS), -(-(sum(widths) - room) // count)), 1)
        widths = [width - less if width == widest else width for width in widths]
    return [max(width, 1) for width in widths]
