"""Reading the data of an event that anybody may have written: a value of the right kind, or none. Decides nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qig_tui.records import NONFINITE, as_float
from qig_tui.series import BEYOND
from qig_tui.text import safe

Data = Mapping[str, Any]


def table(value: object) -> Data:
    """A mapping; an empty one instead of anything else."""
    return value if isinstance(value, Mapping) else {}


def rows(value: object, most: int) -> list[Any]:
    """The first so many of a list; none of anything else."""
    return list(value[:most]) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def text(data: Data, key: str, cells: int = 60) -> str:
    """As it may be shown; empty where it is no text."""
    value = data.get(key)
    return safe(value, cells) if isinstance(value, str) else ""


def step(value: object) -> int | None:
    """An integer that can be reckoned with."""
    return value if isinstance(value, int) and not isinstance(value, bool) and -BEYOND < value < BEYOND else None


class Numbers:
    """The numbers of one event, not finite ones by their kind, which stands under their path."""

    def __init__(self, data: Data) -> None:
        self._kinds = table(data.get("nonfinite"))

    def at(self, value: object, *path: object) -> float | None:
        """A value and where it stands; None where it was not measured."""
        if value is None and self._kinds:
            kind = self._kinds.get(".".join(map(str, path)))
            return NONFINITE.get(kind, math.nan) if isinstance(kind, str) else None
        return as_float(value)
