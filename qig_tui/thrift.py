"""What a terminal shows, and of every frame only what differs from that. Strings in, strings out; no terminal.

A screen library sends the lines that changed from the left edge of their widget on, each stretch of text with all of
its colours: most of what goes over SSH says nothing new. Here a frame is laid beside the cells that the terminal has.
"""

import re
from functools import lru_cache
from typing import Protocol, runtime_checkable

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[([0-9;]*)([Hm])|([^\x00-\x1f\x7f-\x9f]+)|(\n)")
_HARMLESS = re.compile(
    r"(?:\x1b\[\?(?!1049|1047|47|3[hl])[0-9;]+(?:[hl]|\$p)|\x1b\[[<>=][0-9;]*[a-zA-Z]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x07)*"
)
"""Modes other than those of the alternate screen, titles, the clipboard, the pointer's shape, the bell: no cell."""
_NARROW = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0377\u0384-\u03ff\u0400-\u0482\u2010-\u2027\u2030-\u205e\u2070-\u209c"
    "\u2190-\u21ff\u2200-\u22ff\u2500-\u25fc\u2605\u2713\u2716\u2717\u2800-\u28ff]*"
)
"""Characters that every terminal gives one cell: of others the next cell's place is not known."""

Cell = tuple[str, str]
"""A character and the parameters of the SGR sequence that it was written with."""


@runtime_checkable
class Thrifty(Protocol):
    """What sends through a `Thrift`."""

    @property
    def is_gone(self) -> bool:
        """Whether there is nothing to send to any more."""

    def forget(self) -> None:
        """Send everything that is drawn from now on: the terminal may show something else."""


class Thrift:
    """Holds the cells of one terminal. `encode` takes what would have been sent and returns what has to be."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, Cell]] = {}
        self._cursor: tuple[int, int] | None = None
        """Where the last frame left it."""

    def forget(self) -> None:
        """The terminal may show anything: another program wrote to it, or it has another size."""
        self._rows.clear()
        self._cursor = None

    def encode(self, data: str) -> str:
        """The same picture in as few bytes as can be had easily; what is no frame stays as it is."""
        tokens = list(_TOKEN.finditer(data))
        if not data or sum(len(token[0]) for token in tokens) != len(data):
            if not _HARMLESS.fullmatch(data):
                self.forget()
            return data
        out = _Output()
        y = x = 0
        sgr = ""
        placed = False
        for token in tokens:
            parameters, kind, text, _ = token.groups()
            if text is not None:
                if not placed:
                    # Where the cursor stands is not known: no frame.
                    self.forget()
                    return data
                x = self._write(out, y, x, text, sgr)
            elif kind == "m":
                sgr = "" if parameters in ("", "0") else f"{sgr};{parameters}" if sgr else parameters
            elif kind == "H":
                row, _, column = parameters.partition(";")
                y, x, placed = int(row or 1) - 1, int(column or 1) - 1, True
            # A line's end only moves the cursor, and what follows says where it belongs.
            else:
                placed = False
        if placed and (out.is_used or (y, x) != self._cursor):
            self._cursor = (y, x)
            out.move(y, x)
        return out.close()

    def _write(self, out: "_Output", y: int, x: int, text: str, sgr: str) -> int:
        """Where the next character belongs."""
        row = self._rows.setdefault(y, {})
        if not _NARROW.fullmatch(text):
            width = cell_len(text)
            out.put(y, x, text, sgr)
            out.lose_place()
            for column in range(x - 1, x + width + 1):
                row.pop(column, None)
            return x + width
        at, end = 0, len(text)
        while at < end:
            cell = (text[at], sgr)
            if row.get(x + at) == cell:
                at += 1
                continue
            begin = at
            while at < end and row.get(x + at) != (cell := (text[at], sgr)):
                row[x + at] = cell
                at += 1
            out.put(y, x + begin, text[begin:at], sgr)
        return x + end


class _Output:
    """Sequences as short as they can be, from wherever the last one has left the cursor and the colours."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._place: tuple[int, int] | None = None
        self._sgr = ""

    @property
    def is_used(self) -> bool:
        return bool(self._parts)

    def move(self, y: int, x: int) -> None:
        if self._place == (y, x):
            return
        if self._place is not None and self._place[0] == y and self._place[1] < x:
            gap = x - self._place[1]
            self._parts.append("\x1b[C" if gap == 1 else f"\x1b[{gap}C")
        else:
            self._parts.append(f"\x1b[{y + 1};{x + 1}H")
        self._place = (y, x)

    def put(self, y: int, x: int, text: str, sgr: str) -> None:
        self.move(y, x)
        if sgr != self._sgr:
            self._parts.append(_change(self._sgr, sgr))
            self._sgr = sgr
        self._parts.append(text)
        self._place = (y, x + len(text))

    def lose_place(self) -> None:
        self._place = None

    def close(self) -> str:
        if self._sgr:
            self._parts.append("\x1b[0m")
        return "".join(self._parts)


@lru_cache(maxsize=4096)
def _change(before: str, after: str) -> str:
    """The shortest sequence from one look to another."""
    (old, old_fore, old_back), (new, fore, back) = _parsed(before), _parsed(after)
    if old != new or (old_fore and not fore) or (old_back and not back):
        return f"\x1b[0;{after}m" if after and before else f"\x1b[{after}m"
    changed = ";".join(now for now, was in ((fore, old_fore), (back, old_back)) if now != was)
    return f"\x1b[{changed}m" if changed else ""


def _parsed(sgr: str) -> tuple[tuple[str, ...], str, str]:
    """Attributes, foreground and background of the parameters of an SGR sequence."""
    attributes: list[str] = []
    fore = back = ""
    parameters = iter(sgr.split(";") if sgr else ())
    for parameter in parameters:
        if parameter in ("38", "48"):
            depth = next(parameters, "")
            colour = ";".join(
                [parameter, depth, *(next(parameters, "") for _ in range({"2": 3, "5": 1}.get(depth, 0)))]
            )
        elif parameter.isdigit() and (30 <= int(parameter) <= 39 or 90 <= int(parameter) <= 97):
            colour = parameter
        elif parameter.isdigit() and (40 <= int(parameter) <= 49 or 100 <= int(parameter) <= 107):
            colour = parameter
        else:
            attributes.append(parameter)
            continue
        if colour.startswith(("38", "3", "9")) and not colour.startswith("4"):
            fore = colour
        else:
            back = colour
    return tuple(attributes), fore, back
