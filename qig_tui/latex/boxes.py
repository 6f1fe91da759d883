"""Rectangles of text with a baseline, and how they are put together. Knows nothing of LaTeX."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len


@dataclass(frozen=True)
class Box:
    """Lines that are equally wide in terminal cells."""

    lines: tuple[str, ...]
    baseline: int = 0
    """The line that stands level with the text beside it."""

    @property
    def width(self) -> int:
        return cell_len(self.lines[0])

    @property
    def height(self) -> int:
        return len(self.lines)

    @property
    def depth(self) -> int:
        """Lines below the baseline."""
        return len(self.lines) - 1 - self.baseline


EMPTY = Box(("",))
# Of each delimiter: top, middle piece, bottom, and what stands between them.
_PIECES = {
    "(": "⎛⎜⎝⎜",
    ")": "⎞⎟⎠⎟",
    "[": "⎡⎢⎣⎢",
    "]": "⎤⎥⎦⎥",
    "{": "⎧⎨⎩⎪",
    "}": "⎫⎬⎭⎪",
    "|": "││││",
    "‖": "║║║║",
    "⌊": "⎢⎢⎣⎢",
    "⌋": "⎥⎥⎦⎥",
    "⌈": "⎡⎢⎢⎢",
    "⌉": "⎤⎥⎥⎥",
    "⟦": "╓║╙║",
    "⟧": "╖║╜║",
    "↑": "↑│││",
    "↓": "││↓│",
    "↕": "↑│↓│",
}
_SLANTED = {"⟨": ("╱", "╲"), "⟩": ("╲", "╱"), "/": ("╱", "╱"), "\\": ("╲", "╲")}


def text(line: str) -> Box:
    return Box((line,))


def centred(line: str, width: int) -> str:
    left = (width - cell_len(line)) // 2
    return " " * left + line + " " * (width - left - cell_len(line))


def aligned(line: str, width: int, side: str) -> str:
    """Args: side: l, c or r."""
    room = " " * (width - cell_len(line))
    return line + room if side == "l" else room + line if side == "r" else centred(line, width)


def widened(box: Box, width: int, side: str = "c") -> Box:
    return Box(tuple(aligned(line, width, side) for line in box.lines), box.baseline)


def heightened(box: Box, above: int, below: int) -> Box:
    """With so many blank lines added."""
    blank = " " * box.width
    return Box((blank,) * above + box.lines + (blank,) * below, box.baseline + above)


def beside(boxes: Iterable[Box]) -> Box:
    """From left to right, on one baseline."""
    found = [box for box in boxes if box.width]
    if not found:
        return EMPTY
    above, below = max(box.baseline for box in found), max(box.depth for box in found)
    level = [heightened(box, above - box.baseline, below - box.depth) for box in found]
    return Box(tuple(map("".join, zip(*(box.lines for box in level), strict=True))), above)


def stacked(boxes: Sequence[Box], base: int, side: str = "c") -> Box:
    """From top to bottom; the baseline is that of number `base`."""
    width = max(box.width for box in boxes)
    lines = tuple(aligned(line, width, side) for box in boxes for line in box.lines)
    return Box(lines, sum(box.height for box in boxes[:base]) + boxes[base].baseline)


def fraction(top: Box, bottom: Box) -> Box:
    """One above the other; a line that stands over or under another line is longer than it."""
    width = max(top.width, bottom.width)
    if max(top.height, bottom.height) > 1:
        width += 2
    return stacked([top, text("─" * width), bottom], 1)


def root(body: Box, degree: Box) -> Box:
    """The sign grows with what is under it; the degree stands at its foot."""
    height = body.height
    roof = text(" " * height + "_" * body.width)
    sign = [" " * (height - 1 - i) + ("╱" if i < height - 1 else "√") + " " * i for i in range(height)]
    under = Box(tuple(left + right for left, right in zip(sign, body.lines, strict=True)), body.baseline)
    made = stacked([roof, under], 1)
    if not degree.width:
        return made
    # Its last line is the one of the sign's foot, or the one above where it is no raised character.
    foot = made.height - 1
    return beside([Box(degree.lines, made.baseline - foot + degree.height - 1), made])


def grown(delimiter: str, above: int, below: int) -> Box:
    """A delimiter from so many lines above the baseline to so many below it."""
    height = above + 1 + below
    if height == 1 or not delimiter:
        return text(delimiter)
    if delimiter in _SLANTED:
        return Box(tuple(_slanted(delimiter, height)), above)
    if delimiter not in _PIECES:
        return text(delimiter)
    top, middle, bottom, between = tuple(_PIECES[delimiter])
    # A brace points at the baseline; the others have nothing there.
    at = min(max(above, 1), height - 2) if delimiter in "{}" else -1
    return Box((top, *(middle if i == at else between for i in range(1, height - 1)), bottom), above)


def _slanted(delimiter: str, height: int) -> list[str]:
    first, second = _SLANTED[delimiter]
    if first == second:
        places = [i if delimiter == "\\" else height - 1 - i for i in range(height)]
        return [aligned(" " * place + first, height, "l") for place in places]
    width = (height + 1) // 2
    lines = []
    for i in range(height):
        distance = abs(2 * i - (height - 1)) // 2
        character = delimiter if 2 * i == height - 1 else first if 2 * i < height - 1 else second
        place = distance if delimiter == "⟨" else width - 1 - distance
        lines.append(aligned(" " * place + character, width, "l"))
    return lines


def fenced(parts: Sequence[Box], delimiters: Sequence[str]) -> Box:
    """Parts with delimiters before, between and after them, all as high as the highest part."""
    above, below = max(part.baseline for part in parts), max(part.depth for part in parts)
    if above + below == 1 and any(delimiter in "{}" for delimiter in delimiters if delimiter):
        # A brace has three pieces at least.
        above, below = (above, below + 1) if above else (above + 1, below)
    signs = [grown(delimiter, above, below) for delimiter in delimiters]
    row = [signs[0]]
    for part, sign in zip(parts, signs[1:], strict=True):
        row += [part, sign]
    return beside(row)


def braced(body: Box, label: Box, *, over: bool) -> Box:
    """A brace lying above or below, and what is written at its middle."""
    width = max(body.width, 3)
    left = (width - 3) // 2
    ends, tip = ("╭╮", "┴") if over else ("╰╯", "┬")
    brace = text(ends[0] + "─" * left + tip + "─" * (width - 3 - left) + ends[1])
    labels = [label] if label.width else []
    return stacked([*labels, brace, body], len(labels) + 1) if over else stacked([body, brace, *labels], 0)


def grid(rows: Sequence[Sequence[Box]], sides: str, gaps: Sequence[int], rules: Sequence[int], *, loose: bool) -> Box:
    """A table; its baseline is that of its middle row.

    Args:
        sides: l, c or r for each column; | is a line and no column.
        gaps: cells before each of these.
        rules: before which rows a line is drawn.
        loose: whether two rows have a blank line between them, which is their middle.
    """
    columns = len(sides.replace("|", ""))
    widths = [max((row[i].width for row in rows if i < len(row)), default=0) for i in range(columns)]
    lines = [_table_row(row, widths, sides, gaps) for row in rows]
    blank = _table_row((), widths, sides, gaps)
    apart = (loose and len(rows) == 2) or any(line.height > 1 for line in lines)
    stack: list[Box] = []
    levels = []
    for i, line in enumerate(lines):
        if i in rules:
            stack.append(text("─" * blank.width))
        elif i and apart:
            stack.append(blank)
        levels.append(len(stack))
        stack.append(line)
    if len(lines) in rules:
        stack.append(text("─" * blank.width))
    if len(lines) % 2:
        return stacked(stack, levels[len(lines) // 2], "l")
    made = stacked(stack, 0, "l")
    return Box(made.lines, (made.height - 1) // 2)


def _table_row(row: Sequence[Box], widths: Sequence[int], sides: str, gaps: Sequence[int]) -> Box:
    """Cells that are not there are blank."""
    above, below = (max((getattr(box, of) for box in row), default=0) for of in ("baseline", "depth"))
    parts = []
    i = 0
    for side, gap in zip(sides, gaps, strict=True):
        parts.append(text(" " * gap))
        if side == "|":
            parts.append(grown("|", above, below) if above + below else text("│"))
            continue
        parts.append(widened(row[i] if i < len(row) else EMPTY, widths[i], side))
        i += 1
    made = beside(parts)
    # A row of nothing is a line all the same.
    return made if made.width else text(" " * (sum(widths) + sum(gaps)))
