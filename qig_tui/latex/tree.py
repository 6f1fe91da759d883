"""A formula of LaTeX read into a tree.

What TeX would refuse is refused here as well (`Broken`): whoever draws shows the source instead. What is merely unknown
stays in the tree as its source.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from qig_tui.latex.nodes import Accent, Brace, Fence, Fraction, Grid, Node, Over, Root, Row, Scripts, Styled, Symbol
from qig_tui.latex.symbols import (
    ACCENTS,
    ALPHABETS,
    CHARACTERS,
    DELIMITERS,
    INVISIBLE,
    LIMIT_NAMES,
    NAMES,
    PLAIN_FONTS,
    SPACES,
    SYMBOLS,
    TEXTS,
    Kind,
    in_alphabet,
)

MAX_DEPTH = 40
"""Braces within braces; a formula has five or six."""
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_FRACTIONS = {"frac": None, "dfrac": True, "tfrac": False, "cfrac": True}
_BINOMIALS = {"binom": None, "dbinom": True, "tbinom": False}
_STYLES = {"\\displaystyle": True, "\\textstyle": False, "\\scriptstyle": False}
_ARROWS = {"xrightarrow": "⟶", "xleftarrow": "⟵", "xmapsto": "⟼"}
ENVIRONMENTS = frozenset(
    """
    matrix smallmatrix pmatrix bmatrix Bmatrix vmatrix Vmatrix array cases dcases rcases aligned align align* alignat*
    split gather gather* gathered multline multline* eqnarray eqnarray* equation equation* alignedat
    """.split()
)
_WITH_COLUMNS = frozenset({"array", "alignat*", "alignedat"})


_ALIGNED = frozenset({"aligned", "align", "align*", "alignat*", "alignedat", "split"})


class Broken(ValueError):
    """TeX would stop here: a brace that nobody closes, a fraction without its second part."""


def parse(source: str) -> Node:
    """Raises: Broken."""
    return _Parser(_TOKEN.findall(source)).whole()


class _Parser:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        """Lines that stand without an environment are aligned as in one."""
        rows, rules = self._rows("")
        if len(rows) == 1 and len(rows[0]) == 1:
            return rows[0][0]
        return Grid("aligned", _with_left_sides(rows), rules=rules)

    def _peek(self) -> str:
        """The next token that is not a space; empty at the end."""
        while self._at < len(self._tokens) and self._tokens[self._at].isspace():
            self._at += 1
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise Broken(f"no {token} where one must be")

    def _row(self, *ends: str) -> Row:
        """Up to one of these tokens, which stays."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Broken("nested too deep")
        items: list[Node] = []
        while (token := self._peek()) not in ends:
            if token in ("", "}", "\\right", "\\middle", "\\end"):
                raise Broken(f"{token or 'the end'} where none may be")
            if token in _STYLES:
                self._at += 1
                items.append(Styled(self._row(*ends), _STYLES[token]))
            elif token[1:] in INVISIBLE:
                self._at += 1
            else:
                items.append(self._item())
        self._depth -= 1
        return Row(tuple(items))

    def _item(self) -> Node:
        """An atom with what stands high and low at it."""
        base = Row() if self._peek() in ("^", "_", "'", "’") else self._atom()
        parts: dict[str, Node] = {}
        primes = 0
        limits: bool | None = None
        while True:
            token = self._peek()
            if token in ("\\limits", "\\nolimits"):
                limits = token == "\\limits"
            elif token in ("'", "’"):
                primes += 1
            elif token in ("^", "_"):
                if token in parts:
                    raise Broken(f"{token} twice")
                self._at += 1
                parts[token] = self._argument()
                continue
            else:
                break
            self._at += 1
        if primes:
            marks = (Symbol("′"),) * primes
            parts["^"] = Row((*marks, parts["^"]) if "^" in parts else marks)
        return Scripts(base, parts.get("_"), parts.get("^"), limits) if parts else base

    def _argument(self) -> Node:
        """A group, or a single symbol or command."""
        if self._peek() == "{":
            return self._group()
        if self._peek() in ("", "}", "&", "\\\\", "\\right", "\\middle", "\\end", "^", "_"):
            raise Broken("something is missing")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Broken("nested too deep")
        found = self._atom()
        self._depth -= 1
        return found

    def _group(self) -> Row:
        self._expect("{")
        row = self._row("}")
        self._expect("}")
        return row

    def _optional(self) -> Node:
        """What stands in square brackets, if anything does."""
        if self._peek() != "[":
            return Row()
        self._at += 1
        row = self._row("]")
        self._expect("]")
        return row

    def _raw(self) -> str:
        """The source between two braces, spaces and all."""
        self._expect("{")
        start, depth = self._at, 1
        while depth:
            if self._at >= len(self._tokens):
                raise Broken("a brace is not closed")
            depth += {"{": 1, "}": -1}.get(self._tokens[self._at], 0)
            self._at += 1
        return "".join(self._tokens[start : self._at - 1])

    def _atom(self) -> Node:
        token = self._peek()
        if token == "{":
            return self._group()
        self._at += 1
        if token.startswith("\\") and len(token) > 1:
            return self._command(token[1:])
        text, kind = CHARACTERS.get(token, (token, Kind.ORDINARY))
        return Symbol(text, kind)

    def _command(self, name: str) -> Node:
        if name in SYMBOLS:
            return Symbol(*SYMBOLS[name])
        if name in NAMES:
            return Symbol(name, Kind.NAME)
        if name in LIMIT_NAMES:
            return Symbol(LIMIT_NAMES[name], Kind.LARGE)
        if name in SPACES:
            return Symbol(SPACES[name], Kind.SPACE)
        if name in INVISIBLE:
            return Row()
        if name in TEXTS:
            return Symbol(_plain(self._raw()) if self._peek() == "{" else self._next())
        if name in PLAIN_FONTS:
            return self._argument()
        if name in ALPHABETS:
            return _in_alphabet(name, self._argument())
        return self._structure(name)

    def _structure(self, name: str) -> Node:
        """A command that takes something."""
        if name in _FRACTIONS:
            return Fraction(self._argument(), self._argument(), _FRACTIONS[name])
        if name in _BINOMIALS:
            return Fraction(self._argument(), self._argument(), _BINOMIALS[name], bar=False)
        if name == "sqrt":
            degree = self._optional()
            return Root(self._argument(), degree)
        if name in ACCENTS:
            return Accent(name, self._argument())
        if name in ("overset", "stackrel"):
            above = self._argument()
            return Over(self._argument(), above, Row())
        if name == "underset":
            below = self._argument()
            return Over(self._argument(), Row(), below)
        if name in _ARROWS:
            below = self._optional()
            return Over(Symbol(_ARROWS[name], Kind.RELATION), self._argument(), below)
        if name in ("overbrace", "underbrace"):
            return Brace(self._argument(), name == "overbrace")
        if name == "left":
            return self._fence()
        if name == "begin":
            return self._environment(self._raw())
        if name == "substack":
            self._expect("{")
            rows, _ = self._rows("}")
            self._expect("}")
            return Grid("substack", rows)
        return self._words(name)

    def _words(self, name: str) -> Node:
        """A command whose meaning is words; one that nobody knows stays as its source, with what it was given."""
        if name == "operatorname":
            starred = self._peek() == "*"
            self._at += starred
            text = flat(self._argument())
            return Symbol(text, Kind.LARGE if starred or text.replace(" ", "") in LIMIT_NAMES else Kind.NAME)
        if name in ("bmod", "mod"):
            return Symbol("mod", Kind.BINARY)
        if name == "pmod":
            return Row((Symbol("  (mod "), self._argument(), Symbol(")", Kind.CLOSE)))
        if name == "tag":
            return Symbol(f"    ({_plain(self._raw())})")
        if name == "label":
            self._raw()
            return Row()
        if name == "not":
            found = unicodedata.normalize("NFC", _meant(self._peek()) + "\u0338")
            if len(found) == 1:
                atom = self._atom()
                return Symbol(found, atom.kind if isinstance(atom, Symbol) else Kind.RELATION)
        items: list[Node] = [Symbol(f"\\{name}")]
        while self._at < len(self._tokens) and self._tokens[self._at] == "{":
            items += [Symbol("{"), self._group(), Symbol("}")]
        return Row(tuple(items))

    def _fence(self) -> Node:
        delimiters, parts = [self._delimiter()], []
        while True:
            parts.append(self._row("\\middle", "\\right"))
            end = self._next()
            delimiters.append(self._delimiter())
            if end == "\\right":
                return Fence(tuple(parts), tuple(delimiters))

    def _delimiter(self) -> str:
        token = self._next()
        if token not in DELIMITERS:
            raise Broken("no delimiter where one must be")
        return DELIMITERS[token]

    def _environment(self, name: str) -> Node:
        columns = self._raw() if name in _WITH_COLUMNS and self._peek() == "{" else ""
        rows, rules = self._rows("\\end")
        self._expect("\\end")
        if self._raw() != name:
            raise Broken(f"{name} ends as something else")
        if name in _ALIGNED:
            rows = _with_left_sides(rows)
        if name in ENVIRONMENTS:
            return Grid(name, rows, columns if name == "array" else "", rules)
        inside: list[Node] = []
        for i, row in enumerate(rows):
            for j, cell in enumerate(row):
                inside += [*([Symbol(" & ")] if j else [Symbol(" \\\\ ")] if i else []), cell]
        return Row((Symbol(f"\\begin{{{name}}} "), *inside, Symbol(f" \\end{{{name}}}")))

    def _rows(self, end: str) -> tuple[tuple[tuple[Node, ...], ...], tuple[int, ...]]:
        """The cells of a table up to a token, which stays, and before which rows lines are drawn."""
        rows: list[tuple[Node, ...]] = []
        rules: list[int] = []
        cells: list[Node] = []
        while True:
            while self._peek() == "\\hline":
                self._at += 1
                rules.append(len(rows))
            cells.append(self._row("&", "\\\\", end))
            token = self._peek()
            if token == "&":
                self._at += 1
                continue
            rows.append(tuple(cells))
            cells = []
            if token == end:
                break
            self._at += 1
            if self._at < len(self._tokens) and self._tokens[self._at] == "[":
                self._optional()
        if len(rows) > 1 and rows[-1] == (Row(),):
            rows.pop()
        return tuple(rows), tuple(rule for rule in dict.fromkeys(rules) if rule <= len(rows))


def _with_left_sides(rows: tuple[tuple[Node, ...], ...]) -> tuple[tuple[Node, ...], ...]:
    """What begins with a relation has its left side in the column before, and a space between them."""
    return tuple(
        tuple(Row((Symbol(""), *_items(cell))) if i % 2 else cell for i, cell in enumerate(row)) for row in rows
    )


def _items(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Row) else (node,)


def _plain(raw: str) -> str:
    """The source of words as they are read."""
    return re.sub(r"\\([ %$&#_{}])", r"\1", raw).replace("~", " ")


def _meant(token: str) -> str:
    return SYMBOLS[token[1:]][0] if token[1:] in SYMBOLS and token.startswith("\\") else token


def _in_alphabet(command: str, node: Node) -> Node:
    if isinstance(node, Symbol):
        return replace(node, text=in_alphabet(command, node.text))
    if isinstance(node, Row):
        return Row(tuple(_in_alphabet(command, item) for item in node.items))
    return node


def flat(node: Node) -> str:
    """The characters of a name.

    Raises: Broken: there is more to it than characters.
    """
    if isinstance(node, Symbol):
        return node.text.replace("−", "-")
    if isinstance(node, Row):
        return "".join(flat(item) for item in node.items)
    raise Broken("a name has letters only")
