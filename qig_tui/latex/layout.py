r"""Formulas of LaTeX as plain text, in two dimensions (`layout`) or in one line (`inline`). No Textual.

Whatever the source is, something readable comes back: an unknown command stands as its source among what was laid out,
and a formula that TeX would refuse, or that is larger than any formula, stands as its source altogether.

Where one letter with its mark, its index or its power is a character of Unicode, that character is taken. Else marks
stand on a line above: combining characters are drawn beside their letter, or not at all, by too many terminals. In one
line there is no place above, and combining they are.
"""

import unicodedata
from dataclasses import dataclass, replace

from rich.cells import cell_len, chop_cells

from qig_core.rundir.printable import printable
from qig_tui.latex import boxes
from qig_tui.latex.boxes import EMPTY, Box, aligned, beside, stacked, text
from qig_tui.latex.line import line_of
from qig_tui.latex.nodes import (
    Accent,
    Brace,
    Fence,
    Fraction,
    Grid,
    Node,
    Over,
    Root,
    Row,
    Scripts,
    Styled,
    Symbol,
    edges,
    gaps,
)
from qig_tui.latex.symbols import ACCENTS, Kind, lowered, raised
from qig_tui.latex.tree import Broken, parse

MAX_SOURCE = 5_000
"""Characters; a page of formulas has fewer."""
_MAX_CELLS = 200_000
_FEW = 4
"""Longer scripts are easier to read on a line of their own than in small characters."""
_INDENT = 4
"""Cells by which what does not fit into a line stands in on the next one."""
_FENCES: dict[str, tuple[str, str]] = {
    "pmatrix": ("(", ")"),
    "bmatrix": ("[", "]"),
    "Bmatrix": ("{", "}"),
    "vmatrix": ("|", "|"),
    "Vmatrix": ("‖", "‖"),
    "cases": ("{", ""),
    "dcases": ("{", ""),
    "rcases": ("", "}"),
}
_ALIGNED = frozenset({"aligned", "alignedat", "align", "alignat", "split"})
_GATHERED = {"gather": "c", "gathered": "c", "equation": "c", "multline": "l", "substack": "c"}


@dataclass(frozen=True)
class _Style:
    """TeX's styles as far as they differ on a terminal."""

    display: bool = True
    """Limits stand above and below."""
    tight: bool = False
    """Of what is high or low: no spaces around operations."""


def layout(source: str, *, max_width: int | None = None) -> Box:
    """A formula as on a line of its own.

    Args:
        max_width: cells; a longer formula is broken before relations and operations where it has some. What still does
            not fit is not cut: whoever shows it lets it be scrolled.
    """
    if len(source) <= MAX_SOURCE:
        try:
            made = _fitted(parse(printable(" ".join(source.split()))), max_width)
        except Broken:
            pass
        else:
            if made.width * made.height <= _MAX_CELLS:
                return made
    return _as_it_stands(source, max_width)


def inline(source: str) -> str:
    """A formula as within a sentence."""
    if len(source) <= MAX_SOURCE:
        try:
            return line_of(parse(printable(" ".join(source.split()))))
        except Broken:
            pass
    return printable(" ".join(source.split()))


def _as_it_stands(source: str, max_width: int | None) -> Box:
    lines = [printable(line.expandtabs(4)) for line in source.strip("\n").splitlines()] or [""]
    if max_width is not None:
        lines = [part for line in lines for part in (chop_cells(line, max(max_width, 1)) or [""])]
    width = max(map(cell_len, lines))
    return Box(tuple(aligned(line, width, "l") for line in lines))


def _fitted(tree: Node, max_width: int | None) -> Box:
    whole = _box(tree, _Style())
    if max_width is None or whole.width <= max_width or not isinstance(tree, Row):
        return whole
    lines: list[Box] = []
    held: list[Node] = []
    last = EMPTY
    for part in _pieces(tree.items):
        # An operation at the start of a line has its left side on the line before.
        lead: list[Node] = [Symbol("")] if lines else []
        room = max_width - (_INDENT if lines else 0)
        tried = _box(Row((*lead, *held, *part)), _Style())
        if held and tried.width > room:
            lines.append(last)
            held = []
            tried = _box(Row((Symbol(""), *part)), _Style())
        held += part
        last = tried
    lines.append(last)
    indent = text(" " * _INDENT)
    lines = [lines[0], *(beside([indent, line]) for line in lines[1:])]
    if any(line.height > 1 for line in lines):
        lines = [line for each in lines for line in (text(""), each)][1:]
    return stacked(lines, 0, "l")


def _pieces(items: tuple[Node, ...]) -> list[list[Node]]:
    """A row cut before what stands between its parts; never within parentheses."""
    apart = gaps(items, tight=False)
    pieces: list[list[Node]] = [[]]
    depth = 0
    for item, spaced in zip(items, apart, strict=True):
        kind = edges(item)[0]
        if depth == 0 and spaced and kind in (Kind.RELATION, Kind.BINARY):
            pieces.append([])
        if isinstance(item, Symbol):
            depth += {Kind.OPEN: 1, Kind.CLOSE: -1 if depth else 0}.get(kind, 0)
        pieces[-1].append(item)
    return [piece for piece in pieces if piece]


def _box(node: Node, style: _Style) -> Box:
    match node:
        case Symbol():
            return text(node.text)
        case Row():
            return _row(node.items, style)
        case Scripts():
            return _scripts(node, style)
        case Fraction():
            return _fraction(node, style)
        case Root():
            inner = replace(style, display=False)
            degree = _box(node.degree, replace(inner, tight=True))
            small = raised(degree.lines[0]) if degree.height == 1 else None
            return boxes.root(_box(node.body, inner), text(small) if small else degree)
        case Fence():
            return boxes.fenced([_box(part, style) for part in node.parts], node.delimiters)
        case Accent():
            return _accent(node.command, _box(node.body, style))
        case Over():
            return _over(node, style)
        case Brace():
            return boxes.braced(_box(node.body, style), EMPTY, over=node.over)
        case Styled():
            return _box(node.body, replace(style, display=node.display))
        case Grid():
            return _grid(node, style)


def _row(items: tuple[Node, ...], style: _Style) -> Box:
    row: list[Box] = []
    for item, spaced in zip(items, gaps(items, tight=style.tight), strict=True):
        if spaced:
            row.append(text(" "))
        row.append(_box(item, style))
    return beside(row)


def _fraction(node: Fraction, style: _Style) -> Box:
    inner = replace(style, display=bool(node.display))
    top, bottom = _box(node.top, inner), _box(node.bottom, inner)
    if node.bar:
        return boxes.fraction(top, bottom)
    return boxes.fenced([stacked([top, text(""), bottom], 1)], "()")


def _over(node: Over, style: _Style) -> Box:
    small = _Style(display=False, tight=True)
    above, base, below = _box(node.above, small), _box(node.base, style), _box(node.below, small)
    if isinstance(node.base, Symbol) and node.base.text in "⟶⟵⟼":
        # An arrow is as long as what is written at it.
        shaft = "─" * (max(above.width, below.width, 2) - 1)
        ends = {"⟶": shaft + "→", "⟵": "←" + shaft, "⟼": "├" + shaft[1:] + "→"}
        base = text(ends[node.base.text])
    rows = [box for box in (above, base, below) if box.width or box is base]
    return stacked(rows, 1 if above.width else 0)


def _accent(command: str, body: Box) -> Box:
    mark, combining = ACCENTS[command]
    if body.height == 1 and len(body.lines[0]) == 1:
        whole = unicodedata.normalize("NFC", body.lines[0] + combining)
        if len(whole) == 1:
            return text(whole)
    width = body.width
    if mark in "_▔":
        mark *= width
    elif mark in "→←":
        mark = "─" * (width - 1) + mark if mark == "→" else mark + "─" * (width - 1)
    if command == "underline":
        return stacked([body, text(mark)], 0)
    return stacked([text(mark), body], 1)


def _scripts(node: Scripts, style: _Style) -> Box:
    small = _Style(display=False, tight=True)
    low = EMPTY if node.low is None else _box(node.low, small)
    high = EMPTY if node.high is None else _box(node.high, small)
    if isinstance(node.base, Brace):
        label, other = (high, low) if node.base.over else (low, high)
        return _beside_base(boxes.braced(_box(node.base.body, style), label, over=node.base.over), EMPTY, other)
    kind = edges(node.base)[1]
    base = _box(node.base, style)
    if kind is Kind.INTEGRAL and style.display and base.lines == ("∫",):
        base = Box(("⌠", "⎮", "⌡"), 1)
    if node.limits or (node.limits is None and style.display and kind is Kind.LARGE):
        rows = [box for box in (high, base, low) if box.width or box is base]
        return stacked(rows, 1 if high.width else 0)
    return _beside_base(base, low, high, small=kind is not Kind.INTEGRAL or base.height == 1)


def _beside_base(base: Box, low: Box, high: Box, *, small: bool = True) -> Box:
    """Scripts at the right of their base. Args: small: whether their characters may be."""
    if high.height == 1 and high.lines[0] and set(high.lines[0]) == {"′"}:
        base, high = beside([base, Box(high.lines)]), EMPTY
    is_high = base.height > 1
    if small and (is_high or not (low.width and high.width)):
        # Two at one place stand above one another, and small characters would not.
        low, high = _small(low, lowered(low.lines[0])), _small(high, raised(high.lines[0]))
        if not is_high and (low.baseline < 0 or high.baseline < 0):
            return beside([base, Box(low.lines), Box(high.lines)])
    # Beside something high they stand level with its first and its last line.
    shared = int(is_high)
    above = high.lines if high.width else ("",) * shared
    below = low.lines if low.width else ("",) * shared
    width = max(low.width, high.width)
    column = (*above, *("",) * (base.height - 2 * shared), *below)
    return beside([base, Box(tuple(aligned(line, width, "l") for line in column), base.baseline - shared + len(above))])


def _small(box: Box, characters: str | None) -> Box:
    """In small characters where there are all; marked by a baseline below it: it needs no line of its own."""
    return Box((characters,), -1) if box.height == 1 and characters and len(characters) <= _FEW else box


def _grid(node: Grid, style: _Style) -> Box:
    name = node.name.rstrip("*")
    columns = max(map(len, node.rows))
    inner = replace(style, display=False)
    loose = False
    if name in _ALIGNED:
        sides, gap = ("rl" * columns)[:columns], (0, 4)
        inner = replace(style, display=True)
    elif name in _GATHERED:
        sides, gap, inner = _GATHERED[name] * columns, (0, 0), replace(style, display=name != "substack")
    elif name == "eqnarray":
        sides, gap = ("rcl" * columns)[:columns], (1, 1)
    elif "cases" in name:
        sides, gap, loose = "l" * columns, (3, 3), True
        inner = replace(style, display=name == "dcases")
    else:
        sides = _sides(node.columns, columns)
        gap, loose = (2, 2), name in _FENCES
    # Of pairs of columns, the first stands apart from the pair before.
    wide = [0 if i == 0 else 1 if "|" in sides[i - 1 : i + 1] else gap[i % 2 == 0] for i in range(len(sides))]
    cells = [[_box(cell, inner) for cell in row] for row in node.rows]
    table = boxes.grid(cells, sides, wide, node.rules, loose=loose)
    left, right = _FENCES.get(name, ("", ""))
    if left in ("|", "‖"):
        table = beside([text(" "), table, text(" ")])
    return boxes.fenced([table], (left, right)) if left or right else table


def _sides(spec: str, columns: int) -> str:
    found = "".join(c for c in spec if c in "lcr|")
    return found + "c" * (columns - len(found.replace("|", "")))
