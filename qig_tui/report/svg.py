"""A drawing as text: the few shapes that a chart needs, escaped and rounded, good on a light page and on a dark one."""

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import quoteattr

from qig_tui.text import safe

WIDTH, HEIGHT = 960, 320
Point = tuple[float, float]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_ALWAYS = f"""\
text {{ font: 12px {_FONT}; font-variant-numeric: tabular-nums; }}
.title {{ font-size: 16px; font-weight: 600; }}
.small, .unit {{ font-size: 11px; font-weight: 400; }}
.end {{ text-anchor: end; }} .middle {{ text-anchor: middle; }}
.line, .lost, .grid, .axis, .ref, .wire {{ fill: none; }}
.line {{ stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }}
.lost {{ stroke-width: 1.4; stroke-linejoin: round; stroke-dasharray: 4 2; }}
.grid, .axis {{ stroke-width: 1; }}
.ref {{ stroke-width: 1.2; stroke-dasharray: 6 4; }}
.wire {{ stroke-width: 1; stroke-dasharray: 1 3; }}
.odd {{ fill: none; stroke-width: 1.6; }}
"""
_TONES = {
    "light": "#ffffff #1b2733 #5c6b7a #e9edf1 #c3ccd5 #2563a8 #2563a8 #7b8895 #a86407 #c02a2a #4d6f3a #7352a3",
    "dark": "#12171d #e6ebf0 #94a2b0 #222a33 #3b4754 #74b3f2 #74b3f2 #8795a4 #e3ac3f #ff7a72 #93c47a #bb9af0",
}
_CLASSES = "page text soft grid axis line band lost warning critical checkpoint restored".split()


def _tones(name: str) -> str:
    """The rules of one palette."""
    tone = dict(zip(_CLASSES, _TONES[name].split(), strict=True))
    fills = [f".{c} {{ fill: {tone[c]}; }}" for c in ("page", "warning", "critical", "checkpoint", "restored")]
    fills += [f"text {{ fill: {tone['text']}; }}", f"text.soft, .unit {{ fill: {tone['soft']}; }}"]
    fills.append(f".band {{ fill: {tone['band']}; fill-opacity: 0.20; }}")
    fills.append(f".dot {{ fill: {tone['line']}; }}")
    fills.append(f".span {{ fill: {tone['soft']}; fill-opacity: 0.5; }}")
    fills += [f".span.{c} {{ fill: {tone[c]}; }}" for c in ("warning", "critical")]
    strokes = [f".{c} {{ stroke: {tone[c]}; }}" for c in ("grid", "axis", "line", "lost")]
    strokes += [f".ref.info {{ stroke: {tone['soft']}; }}", f".odd {{ stroke: {tone['critical']}; }}"]
    strokes += [f".{kind}.{c} {{ fill: none; stroke: {tone[c]}; }}"
                for kind in ("ref", "wire") for c in ("warning", "critical", "restored")]  # fmt: skip
    fills += [f"text.{c} {{ fill: {tone[c]}; }}" for c in ("warning", "critical")]
    return "\n".join([*fills, *strokes])


def _style() -> str:
    return f"{_ALWAYS}{_tones('light')}\n@media (prefers-color-scheme: dark) {{\n{_tones('dark')}\n}}"


def escaped(text: object, cells: int = 100) -> str:
    """Text from a file as it may stand in XML: printable, and no markup."""
    return quoteattr(safe(text, cells), {'"': "&quot;"})[1:-1]


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel, as short as it is exact to that."""
    return f"{value:.1f}".removesuffix(".0")


def polyline(points: Iterable[Point]) -> str:
    """The data of a path through points; steps are relative, which is a third shorter."""
    out: list[str] = []
    x = y = 0.0
    for px, py in points:
        # Against what has been written, so that the rounding of many steps does not add up.
        dx, dy = round(px - x, 1), round(py - y, 1)
        out.append(f"{'l' if out else 'M'}{number(dx)} {number(dy)}")
        x, y = round(x + dx, 1), round(y + dy, 1)
    return "".join(out)


class Drawing:
    """Shapes in the order in which they cover each other."""

    def __init__(self, title: str, description: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escaped(title)}</title>",
            f"<desc>{escaped(description, 400)}</desc>",
            f"<style>\n{_style()}\n</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        ]

    def path(self, classes: str, data: str) -> None:
        if data:
            self._parts.append(f'<path class="{classes}" d="{data}"/>')

    def line(self, classes: str, start: Point, end: Point) -> None:
        self.path(classes, f"M{number(start[0])} {number(start[1])}L{number(end[0])} {number(end[1])}")

    def polygon(self, classes: str, points: Sequence[Point]) -> None:
        self.path(classes, polyline(points) + "z" if points else "")

    def text(self, classes: str, at: Point, text: object, cells: int = 60) -> None:
        self._parts.append(
            f'<text class="{classes}" x="{number(at[0])}" y="{number(at[1])}">{escaped(text, cells)}</text>'
        )

    def title(self, at: Point, name: str, unit: str) -> None:
        """A name, and its unit smaller behind it."""
        behind = f'<tspan class="unit" dx="8">{escaped(unit)}</tspan>' if unit else ""
        place = f'x="{number(at[0])}" y="{number(at[1])}"'
        self._parts.append(f'<text class="title" {place}>{escaped(name, 44)}{behind}</text>')

    def whole(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
