"""Pieces of Markdown: text from files escaped so that it stays text, tables, fences. Pure."""

import re
import time
from collections.abc import Iterable, Sequence

from qig_tui.text import ABSENT, grouped, safe

Cell = str
"""Markdown already: what comes from a file went through `md`."""

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
# An underscore within a word is no emphasis; everything else would read worse escaped than it is.
_MEANT = re.compile(r"[&<>|]|[\\`*\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=[wW])\.|:(?=//)")
_LEADING = re.compile(r"^(\s*)(\d{1,9}(?=[.)](?:\s|$))|[#+\-=](?=[#+\-=]*(?:\s|$)))")
"""What would begin a list, a heading or a rule."""


def md(text: object, cells: int = 200) -> Cell:
    """Text from a file as it may stand anywhere in a line: no markup, HTML, link or formula, nothing invisible."""
    shown = _MEANT.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), safe(text, cells))
    if (leading := _LEADING.match(shown)) is None:
        return shown
    space, mark = leading.groups()
    rest = shown[leading.end() :]
    return f"{space}{mark}\\{rest}" if mark.isdigit() else f"{space}\\{mark}{rest}"


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, right: Iterable[int] = ()) -> list[str]:
    """A table; nothing where it has no rows. `right`: the columns that hold numbers."""
    body = [f"| {' | '.join(cell or ' ' for cell in row)} |" for row in rows]
    if not body:
        return []
    numbers = set(right)
    rule = "|".join("--:" if i in numbers else "---" for i in range(len(head)))
    return [f"| {' | '.join(cell or ' ' for cell in head)} |", f"|{rule}|", *body]


def fenced(lines: Iterable[str], kind: str = "") -> list[str]:
    """Lines as they are, each made printable by the caller, in a fence that none of them can close."""
    body = list(lines)
    longest = max((len(run) for line in body for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", *body, fence]


def moment(t: float | None) -> str:
    """Local date and time; the document names the zone once."""
    try:
        return ABSENT if t is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return ABSENT


def step_text(step: int | None) -> str:
    return ABSENT if step is None else safe(grouped(step), 30)
