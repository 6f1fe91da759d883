"""The axes that runs can share: by step, by training time, by tokens; rounded places on each, and their words. Pure."""

from typing import Literal

from qig_tui.text import grouped

Axis = Literal["step", "time", "tokens"]
AXES: tuple[Axis, ...] = ("step", "time", "tokens")
MS = 1000
"""Places on the axis of time are whole milliseconds."""
_DAY = 86400 * MS
_MOMENTS = tuple(
    MS * seconds for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
)


def marks(axis: Axis, first: int, last: int, most: int) -> list[int]:
    """Rounded places between two, at most about so many."""
    wanted = max(last - first, 1) / most
    if axis != "time" or wanted < MS:
        stride = _rounded(wanted)
    else:
        stride = next((moment for moment in _MOMENTS if moment >= wanted), 0) or _rounded(wanted / _DAY) * _DAY
    return list(range(-(-first // stride) * stride, last + 1, stride))


def _rounded(wanted: float) -> int:
    """The smallest of 1, 2 and 5 times a power of ten that is not below."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= wanted:
                return factor * power
        power *= 10


def place_text(axis: Axis, place: int) -> str:
    """A place as it is read: 18 240, 1 h 30 m, 2.5 M."""
    if axis == "step":
        return grouped(place)
    if axis == "tokens":
        for unit, size in (("G", 1e9), ("M", 1e6)):
            if abs(place) >= size:
                return f"{place / size:.4g} {unit}"
        return grouped(place)
    seconds, ms = divmod(place, MS)
    if ms and seconds < 60:
        return f"{place / MS:g} s"
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    said = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(said) or "0"
