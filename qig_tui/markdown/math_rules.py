r"""Where formulas stand in Markdown: $…$, \(…\), $$…$$, \[…\], \begin{align}…\end{align}. Finds them, draws nothing.

Rules of our own: those of mdit-py-plugins take "$x$ costs 5" for no formula, because it ends in a digit.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

# As Pandoc has it: nothing blank inside the dollars, no digit behind them, so that "$5 and $5" are none; nor a letter
# or digit at them outside, as in US$5. Bounded, for each is looked for again at the next dollar.
_INLINE = re.compile(
    r"""
      (?<![A-Za-z0-9$]) \$ (?![\s$]) (?P<dollar> (?:\\.|[^\\$]){1,2000} ) (?<!\s) \$ (?![A-Za-z0-9$])
    | \$\$ (?P<display> (?:\\.|[^\\$]){1,5000} ) \$\$
    | \\\( (?P<paren> (?:(?!\\\)).){1,400} ) \\\)
    """,
    re.DOTALL | re.VERBOSE,
)
_ENVIRONMENT = re.compile(r"\\begin\{((?:equation|align|alignat|gather|multline|eqnarray)\*?)\}")
_LABEL = re.compile(r"\s*(\([^)]{1,80}\))?\s*")
_MAX_LINES = 200


def parser() -> MarkdownIt:
    """The parser of our documents. HTML is text; addresses are links only where they are written as such."""
    found = MarkdownIt("gfm-like", {"html": False, "linkify": False}).disable("linkify")
    found.inline.ruler.before("escape", "formula", _formula)
    found.block.ruler.before("fence", "display", _display, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    return found


def _formula(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\" or not (found := _INLINE.match(state.src, state.pos, state.posMax)):
        return False
    if not silent:
        token = state.push("math_display" if found["display"] else "math_inline", "math", 0)
        token.content = found["dollar"] or found["display"] or found["paren"]
    state.pos = found.end()
    return True


def _display(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    line = _line(state, start)
    environment = _ENVIRONMENT.match(line)
    if environment:
        opening, closing = "", f"\\end{{{environment[1]}}}"
    elif line.startswith(("$$", "\\[")):
        opening, closing = line[:2], "$$" if line[0] == "$" else "\\]"
    else:
        return False
    lines = [line[len(opening) :]]
    last = start
    while closing not in lines[-1]:
        last += 1
        if last >= end or last - start > _MAX_LINES or state.sCount[last] < state.blkIndent:
            return False
        lines.append(_line(state, last))
        if not lines[-1]:
            return False
    inside, _, after = lines[-1].partition(closing)
    label = _LABEL.fullmatch(after)
    if label is None:
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content = "\n".join([*lines[:-1], inside + (closing if environment else "")])
        token.info = label[1] or ""
        token.map = [start, last + 1]
    state.line = last + 1
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].strip()
