"""Number and unit to text; durations, ages, sizes. Pure functions over plain values; no Textual."""

import math
import time
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from qig_core.rundir.printable import printable

ABSENT = "–"
_SPARKS = "▁▂▃▄▅▆▇█"
_UNITS = {"1/rad": "rad⁻¹", "rad^-1": "rad⁻¹", "percent": "%", "1": "", "score": "", "nat": "nats"}
_ROUNDING = 1e-9
_BYTES = {"bytes", "B", "byte"}


def grouped(count: int) -> str:
    """An integer with a space between thousands: 18 240."""
    return f"{count:,}".replace(",", " ")


def number(value: float | None) -> str:
    """About four significant digits, never longer than eight characters: 0.731, 58.3, 18 240, 1.2e9, nan."""
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99_999.5 or size < 1e-4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 999.5:
        return grouped(round(value))
    decimals = 1 if size >= 99.95 else 2 if size >= 9.995 else 3 if size >= 0.1 else 4
    if size < 0.01:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}"


def compact(value: float, digits: int = 4) -> str:
    """As short as it stays true, for axes and limits: 0.5, 60, 1e9."""
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def axis_label(value: float, cells: int) -> str:
    """A value in so many cells, with as many of four digits as there is room for: a cut number would be another one."""
    found = (compact(value, digits) for digits in (4, 3, 2, 1))
    return next((text for text in found if len(text) <= cells), "")


def signed(value: float, decimals: int = 3) -> str:
    """A difference: +.041, −.028."""
    text = f"{abs(value):.{decimals}f}"
    return ("−" if value < 0 else "+") + text.removeprefix("0")


def unit_text(unit: str) -> str:
    return _UNITS.get(unit, printable(unit, 16))


def quantity(value: float | None, unit: str = "") -> str:
    """A value with its unit: 58.3 rad⁻¹, 3 %, 1.4 GiB."""
    if value is not None and unit in _BYTES and math.isfinite(value):
        return size(value)
    shown = unit_text(unit)
    return f"{number(value)} {shown}" if shown and value is not None else number(value)


def size(count: float) -> str:
    """Bytes in binary units: 512 B, 0.4 KiB, 1.4 GiB."""
    if abs(count) < 103:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if abs(count) < 1000:
            return f"{count:.1f} {unit}" if abs(count) < 100 else f"{count:.0f} {unit}"
    return f"{count / 1024:.3g} PiB"


def duration(seconds: float | None) -> str:
    """At most two units: 41 ms, 3.2 s, 14 m, 2 h 05 m, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} m"
    days, hours = divmod(hours, 24)
    return f"{grouped(days)} d {hours} h"


def age(t: float, now: float) -> str:
    """How long ago a wall-clock time was."""
    return "now" if now - t < 1 else f"{duration(now - t)} ago"


def clock(t: float) -> str:
    """Local time of day."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def regime_text(regime: str, cells: int) -> str:
    """A recorded name as it is read: TOPOLOGICAL INSTABILITY."""
    return safe(regime, cells).upper().replace("_", " ")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def clip(text: str, cells: int) -> str:
    """Cut to a width in terminal cells; what was cut ends in an ellipsis."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - 1).rstrip() + "…" if cells > 1 else "…"[:cells]


def pad(text: str, cells: int) -> str:
    """Exactly so many terminal cells."""
    return set_cell_size(clip(text, cells), cells)


def pad_left(text: str, cells: int) -> str:
    text = clip(text, cells)
    return " " * (cells - cell_len(text)) + text


def sparkline(values: Sequence[float], width: int) -> str:
    """One character a bucket, its mean between the lowest and the highest; a bucket without a finite value is "·".

    Values that differ by rounding alone are a flat line.
    """
    if not values or width < 1:
        return ""
    count = len(values)
    width = min(width, count)
    means: list[float | None] = []
    for i in range(width):
        bucket = [v for v in values[i * count // width : (i + 1) * count // width] if math.isfinite(v)]
        means.append(sum(v / len(bucket) for v in bucket) if bucket else None)
    finite = [m for m in means if m is not None]
    if not finite:
        return "·" * width
    low, high = min(finite), max(finite)
    # Halves first: the span of ±1e308 is beyond float64.
    span = high / 2 - low / 2
    if span <= _ROUNDING * max(abs(low), abs(high)):
        span = 0.0
    return "".join(
        "·" if m is None else _SPARKS[3 if span == 0 else min(7, int(8 * ((m / 2 - low / 2) / span)))] for m in means
    )


def bar(fraction: float, cells: int) -> str:
    """A horizontal bar in eighths of a cell."""
    eighths = round(min(max(fraction, 0.0), 1.0) * 8 * cells)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]).ljust(cells)


def thin_bar(fraction: float, cells: int) -> tuple[str, str]:
    """A horizontal bar as a heavy line and the light rest of it, to half a cell."""
    halves = round(min(max(fraction, 0.0), 1.0) * 2 * cells)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "─" * (cells - len(filled))


def safe(text: object, cells: int = 400) -> str:
    """Text from a file as it may be shown: no control characters, bounded length."""
    return clip(printable(text, cells), cells)
