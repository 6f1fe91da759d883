"""A formula in one line: a/b, √x, x², xᵢ, and x_(…), x^(…) where there is no such character."""

import unicodedata

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

_SQUARE = ("[", "]")
_BRACKETS = {
    "pmatrix": ("(", ")"),
    "Bmatrix": ("{", "}"),
    "vmatrix": ("|", "|"),
    "Vmatrix": ("‖", "‖"),
    **dict.fromkeys(("cases", "dcases", "rcases"), ("{", "}")),
    **dict.fromkeys(("matrix", "smallmatrix", "bmatrix", "array"), _SQUARE),
}


def line_of(node: Node, *, tight: bool = False) -> str:
    """Args: tight: without spaces around operations, as what is set small."""
    match node:
        case Symbol():
            return node.text
        case Row():
            parts = (line_of(item, tight=tight) for item in node.items)
            spaces = gaps(node.items, tight=tight, flat=True)
            return "".join(" " + part if spaced else part for part, spaced in zip(parts, spaces, strict=True))
        case Scripts():
            return _scripts(node, tight=tight)
        case Fraction():
            return _fraction(node, tight=tight)
        case Root():
            degree = line_of(node.degree, tight=True)
            return f"{(raised(degree) or f'({degree})') if degree else ''}√{_factor(node.body, tight=tight)}"
        case Fence():
            inside = [_unfenced(part, tight=tight) for part in node.parts]
            return node.delimiters[0] + "".join(map("".join, zip(inside, node.delimiters[1:], strict=True)))
        case Accent():
            return _accent(node, tight=tight)
        case Over():
            return _with_scripts(line_of(node.base, tight=tight), node.below, node.above)
        case Brace():
            return _factor(node.body, tight=tight)
        case Styled():
            return line_of(node.body, tight=tight)
        case Grid():
            left, right = _BRACKETS.get(node.name, ("", ""))
            return left + _rows(node, tight=tight) + right


def _rows(node: Grid, *, tight: bool) -> str:
    between = " " if node.name in _BRACKETS else ""
    return "; ".join(between.join(line_of(cell, tight=tight) for cell in row) for row in node.rows)


def _unfenced(node: Node, *, tight: bool) -> str:
    """Between delimiters a table needs no brackets of its own."""
    if isinstance(node, Row) and len(node.items) == 1:
        table = node.items[0]
        if isinstance(table, Grid) and _BRACKETS.get(table.name) == _SQUARE:
            return _rows(table, tight=tight)
    return line_of(node, tight=tight)


def _scripts(node: Scripts, *, tight: bool) -> str:
    return _with_scripts(line_of(node.base, tight=tight), node.low, node.high)


def _with_scripts(base: str, low: Node | None, high: Node | None) -> str:
    below = "" if low is None else line_of(low, tight=True)
    above = "" if high is None else line_of(high, tight=True)
    if above and set(above) == {"′"}:
        base, above = base + above, ""
    if below:
        base += lowered(below) or f"_{_grouped(below)}"
    if above:
        base += raised(above) or f"^{_grouped(above)}"
    return base


def _grouped(script: str) -> str:
    """In parentheses, but for a single character or what stands in parentheses already."""
    return script if len(script) == 1 else f"({script})"


def _fraction(node: Fraction, *, tight: bool) -> str:
    if not node.bar:
        return f"({line_of(node.top, tight=tight)} choose {line_of(node.bottom, tight=tight)})"
    top, bottom = line_of(node.top, tight=tight), line_of(node.bottom, tight=tight)
    if (top, bottom) == ("1", "2"):
        return "½"
    over = top if _is_product(node.top) else f"({top})"
    return f"{over}/{bottom if _is_single(node.bottom) else f'({bottom})'}"


def _factor(node: Node, *, tight: bool) -> str:
    """In parentheses, unless it is a single thing anyhow."""
    line = line_of(node, tight=tight)
    return line if _is_single(node) else f"({line})"


def _is_single(node: Node) -> bool:
    if isinstance(node, Row):
        digits = all(isinstance(item, Symbol) and (item.text.isdigit() or item.text == ".") for item in node.items)
        differential = [item.text for item in node.items if isinstance(item, Symbol)]
        if len(node.items) == len(differential) == 2 and differential[0] in ("d", "∂"):
            return True
        return digits or (len(node.items) == 1 and _is_single(node.items[0]))
    if isinstance(node, Symbol):
        return len(node.text) == 1 or node.text.isalpha()
    return isinstance(node, Scripts | Fence | Accent | Root | Brace)


def _is_product(node: Node) -> bool:
    """Whether "/" after it divides all of it."""
    if not isinstance(node, Row):
        return _is_single(node)
    kinds = {kind for item in node.items for kind in edges(item)}
    return kinds <= {Kind.ORDINARY, Kind.OPEN, Kind.CLOSE} and bool(node.items)


def _accent(node: Accent, *, tight: bool) -> str:
    body = line_of(node.body, tight=tight)
    combining = ACCENTS[node.command][1]
    if len(body) == 1 or node.command in ("overline", "underline", "bar"):
        return unicodedata.normalize("NFC", "".join(character + combining for character in body))
    return f"\\{node.command}{{{body}}}"
