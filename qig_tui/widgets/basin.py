"""The newest basin as an 8 x 8 heat grid beside the entries that moved most.

Three widgets and not one: Textual sends a line from its widget's left edge on, and the grid is dear to send.
"""

from collections.abc import Iterable

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.color import Color
from textual.containers import Horizontal, Vertical
from textual.strip import Strip

from qig_tui.picture import BasinView
from qig_tui.text import grouped, quantity, signed
from qig_tui.widgets.lines import Lines, Part

_LEVELS = "▁▂▃▄▅▆▇█"
_SIDE = 8


class BasinPanel(Vertical):
    """A heading, the grid, the movers; narrow, the movers leave."""

    DEFAULT_CSS = """
    BasinPanel { height: 1fr; }
    BasinPanel > BasinHeading { height: 1; }
    BasinPanel BasinHeat { width: 34; }
    BasinPanel BasinMovers { width: 1fr; min-width: 18; }
    """

    def compose(self) -> ComposeResult:
        yield BasinHeading()
        with Horizontal():
            yield BasinHeat()
            yield BasinMovers()

    def show(self, basin: BasinView | None) -> None:
        self.query_one(BasinHeading).show(basin)
        self.query_one(BasinHeat).show(basin)
        self.query_one(BasinMovers).show(basin)


class _BasinLines(Lines):
    def __init__(self) -> None:
        super().__init__()
        self._basin: BasinView | None = None

    def show(self, basin: BasinView | None) -> None:
        before = None if self._basin is None else (self._basin.step, self._basin.reference_step)
        if basin is None or (basin.step, basin.reference_step) != before:
            self._basin = basin
            self.redraw()


class BasinHeading(_BasinLines):
    def lines(self, width: int, height: int) -> Iterable[Strip]:
        basin = self._basin
        if basin is None:
            yield self.heading(width, [("strong", "BASIN")], [("dim", "not recorded")])
            return
        right: list[Part] = [("dim", "d_ref "), ("text", quantity(basin.distance_rad, "rad"))]
        if basin.velocity_rad is not None and width >= 50:
            right += [
                ("dim", "  v "),
                ("text", quantity(basin.velocity_rad, "rad")),
            ]
        at = f" {grouped(basin.step)}"
        yield self.heading(width, [("strong", "BASIN"), ("dim", at)], right)


class BasinHeat(_BasinLines):
    """Height of a block and strength of its colour both say how large an entry is."""

    def __init__(self) -> None:
        super().__init__()
        self._heat: list[Style] = []

    def _recolour(self) -> None:
        self._heat = []
        super()._recolour()

    def _style(self, level: int) -> Style:
        if not self._heat:
            faint, accent = self.tone("faint"), self.tone("accent")
            low, high = (Color.from_rich_color(s.color or RichColor.default()) for s in (faint, accent))
            # Few steps: neighbours of one colour are sent as one.
            self._heat = [accent + Style(color=low.blend(high, i / 3).rich_color) for i in range(4)]
        return self._heat[level]

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        basin = self._basin
        if basin is None:
            return
        top = float(basin.values.max()) or 1.0
        # As many as there are cells: a foreign basin may have millions of entries.
        shares = [float(v) / top for v in basin.values[: max(width * height, _SIDE * _SIDE)]]
        if height < _SIDE or width < _SIDE or len(basin.values) != _SIDE * _SIDE:
            for start in range(0, len(shares), width):
                yield self._row(shares[start : start + width], 0.0, 1, 1)
            return
        high = 2 if height >= 2 * _SIDE else 1
        for row in range(_SIDE * high):
            cells = shares[row // high * _SIDE : (row // high + 1) * _SIDE]
            # A cell of two rows fills from its lower one.
            yield self._row(cells, 0.0 if row % high == high - 1 else 0.5, high, min(2 + high, width // _SIDE))

    def _row(self, shares: list[float], floor: float, high: int, wide: int) -> Strip:
        segments: list[Segment] = []
        for share in shares:
            eighths = round((share - floor) * 8 * high)
            # The lowest row of an empty cell still shows where it is.
            block = _LEVELS[min(max(eighths, 1), 8) - 1] if eighths >= 1 or floor == 0.0 else " "
            text = block * max(wide - 1, 1) + " " * (wide > 1)
            style = self._style(min(int(4 * share), 3))
            if segments and (segments[-1].style == style or not text.strip()):
                segments[-1] = Segment(segments[-1].text + text, segments[-1].style)
            else:
                segments.append(Segment(text, style))
        return Strip(segments)


class BasinMovers(_BasinLines):
    """The entries that moved most since the reference."""

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        basin = self._basin
        if basin is None:
            return

        yield self.strip(("dim", f"top movers since {grouped(basin.reference_step)}"))
        # Where nothing moved there is nothing to list.
        movers = basin.movers(min(height, 2 * _SIDE) - 1 if height > 1 else 0)
        largest = abs(movers[0][1]) or 1.0 if movers else 1.0
        for index, change in movers:
            size = "━" * max(1, round(max(width - 15, 1) * abs(change) / largest))
            sign = "▲" if change > 0 else "▼"
            yield self.strip(
                ("dim", f"#{index:02d} "), ("text", f"{signed(change)} {sign} "), ("raw", size[: width - 12])
            )
