"""A Markdown document as lines of text for a width: headings, lists, tables, code, formulas. No Textual.

Every character passes through `printable`; nothing here is markup of a screen, or asks for anything to be opened.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from markdown_it.token import Token
from rich.cells import cell_len

from qig_core.rundir.printable import printable
from qig_tui.latex.layout import inline, layout
from qig_tui.markdown.math_rules import parser
from qig_tui.markdown.wrapping import UNBROKEN, Line, Span, column_widths, wrapped
from qig_tui.text import clip

_BULLETS = "•▪‣◦"
_INDENT = "    "
"""Before a formula and code."""
_SHORT = 24
"""A formula of no more cells stays in one line of its sentence."""
_NARROWEST = 12
"""Cells of text beside what stands at its left, however deep it is nested."""
_MAX_HIGHLIGHTED = 20_000
_ADDRESS = 60
_MARKS = {"em_open": "em", "strong_open": "strong", "s_open": "strike"}
_TONES = {
    "Keyword": "keyword",
    "Name.Builtin": "keyword",
    "Name.Function": "name",
    "Name.Class": "name",
    "Name.Tag": "name",
    "Name.Decorator": "name",
    "Literal.String": "string",
    "Literal.Number": "number",
    "Comment": "dim",
    "Generic.Inserted": "string",
    "Generic.Deleted": "strike",
}
"""Of what Pygments finds; the longest name that fits holds."""


class Heading(NamedTuple):
    level: int
    title: str
    line: int


@dataclass
class Page:
    """A document laid out; whoever has it changes nothing any more."""

    lines: list[Line] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)

    @cached_property
    def width(self) -> int:
        """Of the longest line: code and formulas may be wider than the page."""
        return max((sum(cell_len(span.text) for span in line) for line in self.lines), default=0)


class Document:
    """A source that was read; laid out as often as the width changes."""

    def __init__(self, source: str) -> None:
        self._tokens = parser().parse(source)

    def page(self, width: int) -> Page:
        return _Setter(width).set(self._tokens)


class _Setter:
    """Sets block after block below one another."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._page = Page()
        self._prefixes: list[tuple[Span, Span]] = []
        """What stands left of a block: on its first line, and on the others."""
        self._fresh: list[bool] = []
        """Which of these have not stood on their first line yet."""
        self._lists: list[int | None] = []
        """The numbers of the next items; None: no numbers."""
        self._table: list[list[Line]] = []
        self._apart = False

    def set(self, tokens: Sequence[Token]) -> Page:
        inner: Token | None = None
        for token in tokens:
            kind = token.type
            if kind == "inline":
                inner = token
            elif kind in ("heading_close", "paragraph_close"):
                if kind == "heading_close":
                    self._heading(token, inner)
                else:
                    self._paragraph(inner, tight=token.hidden)
                inner = None
            elif kind in ("th_close", "td_close"):
                self._table[-1].append(_spans(inner.children if inner else None))
                inner = None
            else:
                self._structure(token)
        return self._page

    def _structure(self, token: Token) -> None:
        match token.type:
            case "bullet_list_open":
                self._gap()
                self._lists.append(None)
            case "ordered_list_open":
                self._gap()
                self._lists.append(int(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                self._lists.pop()
                self._apart = not self._lists
            case "list_item_open":
                self._push_item()
            case "blockquote_open":
                self._gap()
                bar = Span("▌ ", "dim")
                self._push(bar, bar)
            case "list_item_close" | "blockquote_close":
                if self._fresh[-1]:
                    self._put([])
                self._prefixes.pop()
                self._fresh.pop()
                self._apart = self._apart or token.type == "blockquote_close"
            case "fence" | "code_block":
                language = token.info.split()[0] if token.info.split() else ""
                if language == "math":
                    self._formula(token.content, "")
                else:
                    self._code(token.content, language)
            case "math_block":
                self._formula(token.content, token.info)
            case "hr":
                self._gap()
                self._put([Span("─" * self._room, "dim")])
                self._apart = True
            case "table_open":
                self._table = []
            case "tr_open":
                self._table.append([])
            case "table_close":
                self._set_table()
            case _:
                if token.content:
                    # Whatever it is, it does not vanish.
                    self._code(token.content, "")

    @property
    def _room(self) -> int:
        return max(self._width - sum(cell_len(rest.text) for _, rest in self._prefixes), _NARROWEST)

    def _push(self, first: Span, rest: Span) -> None:
        self._prefixes.append((first, rest))
        self._fresh.append(True)

    def _push_item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is None:
            mark = f"{_BULLETS[(len(self._lists) - 1) % len(_BULLETS)]} "
        else:
            mark = f"{number}. "
            self._lists[-1] = number + 1
        self._push(Span(mark, "mark"), Span(" " * len(mark)))

    def _put(self, line: Line) -> None:
        lead = []
        for i, (first, rest) in enumerate(self._prefixes):
            lead.append(first if self._fresh[i] else rest)
            self._fresh[i] = False
        self._page.lines.append([*lead, *line])

    def _gap(self) -> None:
        """A blank line, where a block was before."""
        if self._apart and self._page.lines and not any(self._fresh):
            self._put([])
        self._apart = False

    def _heading(self, token: Token, inner: Token | None) -> None:
        level = int(token.tag[1:])
        if self._page.lines:
            self._apart = True
        self._gap()
        line = len(self._page.lines)
        spans = [
            span._replace(tone=_with(span.tone, f"h{min(level, 4)}"))
            for span in _spans(inner.children if inner else None)
        ]
        for part in wrapped(spans, self._room):
            self._put(part)
        title = "".join(span.text for span in spans)
        self._page.headings.append(Heading(level, clip(title, 200), line))
        if level <= 2:
            rule = min(self._room, max(cell_len(title), 3)) if level == 2 else self._room
            self._put([Span("─" * rule, "rule")])
        self._apart = level > 2

    def _paragraph(self, inner: Token | None, *, tight: bool) -> None:
        self._gap()
        held: list[Token] = []
        open_marks = 0
        for child in (inner.children if inner else None) or []:
            if child.type == "math_display" and not open_marks:
                self._lines(_spans(held))
                self._formula(child.content, "", apart=False)
                held = []
                continue
            open_marks += child.nesting
            held.append(child)
        self._lines(_spans(held))
        self._apart = not tight

    def _lines(self, spans: Line) -> None:
        if any(span.text.strip() for span in spans):
            for line in wrapped(spans, self._room):
                self._put(line)

    def _formula(self, source: str, label: str, *, apart: bool = True) -> None:
        if apart:
            self._gap()
        box = layout(source, max_width=max(self._room - len(_INDENT), _NARROWEST))
        for i, line in enumerate(box.lines):
            marked = [Span(f"    {printable(label)}", "dim")] if label and i == box.baseline else []
            self._put([Span(_INDENT), Span(line, "math"), *marked])
        self._apart = apart

    def _code(self, code: str, language: str) -> None:
        self._gap()
        for line in _highlighted(code.rstrip("\n"), language):
            self._put([Span(_INDENT), *line])
        self._apart = True

    def _set_table(self) -> None:
        self._gap()
        rows = [row for row in self._table if row]
        if not rows:
            return
        widths = column_widths(rows, self._room)
        for i, row in enumerate(rows):
            cells = [wrapped(spans, width) or [[]] for spans, width in zip(row, widths, strict=False)]
            for y in range(max(map(len, cells))):
                line: Line = []
                for cell, width in zip(cells, widths, strict=False):
                    part = cell[y] if y < len(cell) else []
                    used = sum(cell_len(span.text) for span in part)
                    head = [span._replace(tone=_with(span.tone, "strong")) for span in part] if i == 0 else part
                    line += [*head, Span(" " * (width - used + 2))]
                self._put(line)
            if i == 0:
                self._put([Span("─" * (sum(widths) + 2 * (len(widths) - 1)), "rule")])
        self._apart = True


def _with(tone: str, more: str) -> str:
    return f"{tone}+{more}" if tone else more


def _spans(children: Iterable[Token] | None) -> Line:
    """What stands within a block, one after the other; a newline is a line's end."""
    spans: Line = []
    marks: list[str] = []
    target = ""
    start = 0
    for child in children or ():
        tone = "+".join(marks)
        match child.type:
            case "softbreak":
                spans.append(Span(" ", tone, target))
            case "hardbreak":
                spans.append(Span("\n"))
            case "code_inline":
                spans.append(Span(printable(child.content), _with(tone, "code"), target))
            case "math_inline" | "math_display":
                spans.append(Span(_unbroken(inline(child.content)), _with(tone, "math"), target))
            case "image":
                words = child.content or str(child.attrs.get("src", ""))
                spans.append(Span(f"[picture: {printable(words, 200)}]", _with(tone, "dim"), target))
            case "link_open":
                target, start = str(child.attrs.get("href", "")), len(spans)
                marks.append("link")
            case "link_close":
                marks.pop()
                words = "".join(span.text for span in spans[start:])
                if ":" in target and target.removeprefix("mailto:") != words:
                    # It is not opened from here: where it leads is told.
                    spans.append(Span(f" ({printable(target, _ADDRESS)})", "dim"))
                target = ""
            case opening if opening in _MARKS:
                marks.append(_MARKS[opening])
            case closing if closing.endswith("_close"):
                marks.pop()
            case _:
                spans.append(Span(printable(re.sub(r"[\s]+", " ", child.content)), tone, target))
    return spans


def _unbroken(formula: str) -> str:
    return formula.replace(" ", UNBROKEN) if cell_len(formula) <= _SHORT else formula


def _highlighted(code: str, language: str) -> list[Line]:
    """The lines of code, in the tones that its language gives them."""
    code = "\n".join(printable(line.expandtabs(4)) for line in code.split("\n"))
    if not language or len(code) > _MAX_HIGHLIGHTED or not re.fullmatch(r"[A-Za-z0-9+#-]{1,20}", language):
        return [[Span(line, "code-block")] for line in code.split("\n")]
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # it ships no types
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return [[Span(line, "code-block")] for line in code.split("\n")]
    lines: list[Line] = [[]]
    for kind, text in lexer.get_tokens(code):
        name = str(kind).removeprefix("Token.")
        tone = next((tone for prefix, tone in _TONES.items() if name.startswith(prefix)), "code-block")
        first, *rest = text.split("\n")
        lines[-1].append(Span(first, tone))
        lines += [[Span(part, tone)] for part in rest]
    return [[span for span in line if span.text] for line in lines]
