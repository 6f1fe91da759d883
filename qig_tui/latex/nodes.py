"""A formula of LaTeX as a tree, and how its parts are spaced. Reads and draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qig_tui.latex.symbols import Kind


@dataclass(frozen=True)
class Symbol:
    text: str
    kind: Kind = Kind.ORDINARY


@dataclass(frozen=True)
class Row:
    items: tuple["Node", ...] = ()


@dataclass(frozen=True)
class Scripts:
    base: "Node"
    low: "Node | None" = None
    high: "Node | None" = None
    limits: bool | None = None
    r"""Whether \limits or \nolimits was said."""


@dataclass(frozen=True)
class Fraction:
    top: "Node"
    bottom: "Node"
    display: bool | None = None
    r"""Whether \dfrac or \tfrac was said."""
    bar: bool = True


@dataclass(frozen=True)
class Root:
    body: "Node"
    degree: "Node"


@dataclass(frozen=True)
class Fence:
    parts: tuple["Node", ...]
    delimiters: tuple[str, ...]


@dataclass(frozen=True)
class Accent:
    command: str
    body: "Node"


@dataclass(frozen=True)
class Over:
    """Something smaller above or below a symbol that keeps its place."""

    base: "Node"
    above: "Node"
    below: "Node"


@dataclass(frozen=True)
class Brace:
    body: "Node"
    over: bool


@dataclass(frozen=True)
class Styled:
    body: "Node"
    display: bool


@dataclass(frozen=True)
class Grid:
    name: str
    rows: tuple[tuple["Node", ...], ...]
    columns: str = ""
    """Of an array: l, c, r and | as they are written."""
    rules: tuple[int, ...] = ()
    """Before which rows a line is drawn."""


Node: TypeAlias = Symbol | Row | Scripts | Fraction | Root | Fence | Accent | Over | Brace | Styled | Grid


_LOOSE = (Kind.BINARY, Kind.RELATION, Kind.PUNCTUATION)


def edges(node: Node) -> tuple[Kind, Kind]:
    """How a part is spaced to its left and to its right."""
    if isinstance(node, Symbol):
        return node.kind, node.kind
    if isinstance(node, Scripts):
        return edges(node.base)
    if isinstance(node, Over):
        # It stays what it is: an equals sign with something above it is one.
        return edges(node.base.items[0] if isinstance(node.base, Row) and len(node.base.items) == 1 else node.base)
    if isinstance(node, Fence):
        return Kind.OPEN if node.delimiters[0] else Kind.INNER, Kind.CLOSE if node.delimiters[-1] else Kind.INNER
    if isinstance(node, Fraction | Grid):
        return Kind.INNER, Kind.INNER
    if isinstance(node, Row) and len(node.items) == 1:
        # What stands in braces is one ordinary thing: 1{,}000.
        left, right = edges(node.items[0])
        return (Kind.ORDINARY if left in _LOOSE else left), (Kind.ORDINARY if right in _LOOSE else right)
    return Kind.ORDINARY, Kind.ORDINARY


_OPERATORS = (Kind.NAME, Kind.LARGE, Kind.INTEGRAL)
_BEFORE_A_SIGN = (Kind.BINARY, Kind.RELATION, Kind.OPEN, Kind.PUNCTUATION, *_OPERATORS)


def gaps(items: Sequence[Node], *, tight: bool, flat: bool = False) -> list[bool]:
    """Before which parts of a row a space stands.

    Args:
        tight: of what is set small, where only operators have spaces.
        flat: of what stands in one line altogether.
    """
    found = [edges(item) for item in items]
    before = Kind.OPEN
    for i, (left, right) in enumerate(found):
        if left is Kind.BINARY:
            # A sign and not an operation: −x, (−x), a = −b, log −x.
            after = next((found[k][0] for k in range(i + 1, len(found)) if found[k][0] is not Kind.SPACE), Kind.CLOSE)
            if before in _BEFORE_A_SIGN or after in (Kind.RELATION, Kind.CLOSE, Kind.PUNCTUATION):
                found[i] = (Kind.SIGN, Kind.SIGN)
        if right is not Kind.SPACE:
            before = found[i][1]
    apart = [False]
    for k in range(1, len(items)):
        left, right = found[k - 1][1], found[k][0]
        if left is Kind.SIGN:
            # Beside the line of a fraction a minus would look like a part of it.
            apart.append(right is Kind.INNER and not flat)
        else:
            apart.append(_apart(items[k - 1], left, right, tight=tight))
    return apart[: len(items)]


def _apart(item: Node, left: Kind, right: Kind, *, tight: bool) -> bool:
    if Kind.SPACE in (left, right) or left is Kind.OPEN or right in (Kind.CLOSE, Kind.PUNCTUATION):
        return False
    if left in _OPERATORS:
        # det(A), but a space after a sum, and after what has its limits below it.
        return right is not Kind.OPEN or not _is_word(item) or (left is Kind.LARGE and isinstance(item, Scripts))
    if right in _OPERATORS:
        return (left is not Kind.RELATION and left is not Kind.BINARY) or not tight
    if Kind.INNER in (left, right):
        return True
    if tight:
        return False
    if left is Kind.RELATION and right is Kind.RELATION:
        return False
    return Kind.RELATION in (left, right) or Kind.BINARY in (left, right) or left is Kind.PUNCTUATION


def _is_word(item: Node) -> bool:
    while isinstance(item, Scripts | Over):
        item = item.base
    return isinstance(item, Symbol) and item.text.replace(" ", "").isalnum() and len(item.text) > 1
