"""How far the Garys are apart, pair by pair: a grid with numbers where all fits, else the nearest pairs; and in all."""

from collections.abc import Iterable
from functools import lru_cache

from rich.cells import cell_len
from textual.strip import Strip

from qig_tui.programs.constellation import Pair, Report
from qig_tui.text import ABSENT, clip, compact, grouped, number, pad, pad_left, quantity
from qig_tui.widgets.lines import Lines, Part

_LEVELS = "▁▂▃▄▅▆▇█"
UNDER = "▼"
_LEAST_NAME, _MOST_NAME = 5, 12
_LABEL = 17
_FRAME = 3
"""Lines of a grid that are no rows of it: the heading, the names above, the words below."""


@lru_cache(maxsize=512)
def _decimals(rad: float, decimals: int) -> str:
    shown = f"{rad:.{decimals}f}"
    return shown if len(shown) <= decimals + 2 else number(rad)


class DistanceGrid(Lines):
    """Height of a block and the number say how far; what is under the floor has a sign and stands in words below."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._report: Report | None = None

    def show(self, report: Report | None) -> None:
        if report is not self._report:
            self._report = report
            self.redraw()

    @property
    def lines_wanted(self) -> int:
        return _FRAME + 1 + (0 if self._report is None else len(self._report.garys))

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        report = self._report
        left: list[Part] = [("strong", "DISTANCES"), ("dim", "  Fisher–Rao, rad")]
        if report is None:
            yield self.heading(width, left)
            return
        if not report.pairs:
            yield self.heading(width, left)
            why = report.why("distances") or "no distance is recorded"
            yield self.strip(("dim", pad(f"{ABSENT} {why}", width)))
            return
        decimals = self._fitting(report, width, height)
        if decimals is None:
            yield from self._pairs(report, width, height, left)
            return
        yield self.heading(
            width, left, [("dim", "1 pair" if len(report.pairs) == 1 else f"{grouped(len(report.pairs))} pairs")]
        )
        yield from self._grid(report, width, decimals)
        yield self._floor(report, report.too_near, width)

    def _name_cells(self, report: Report) -> int:
        longest = max(cell_len(name) for name in report.names)
        return min(max(longest, _LEAST_NAME), _MOST_NAME)

    def _fitting(self, report: Report, width: int, height: int) -> int | None:
        """With how many decimals the whole grid fits; None where it does not."""
        count = len(report.garys)
        if count + _FRAME > height:
            return None
        room = (width - self._name_cells(report) - 1) // count
        return next((decimals for decimals in (3, 2) if room >= decimals + 4), None)

    def _grid(self, report: Report, width: int, decimals: int) -> Iterable[Strip]:
        names, cells, wide = report.names, self._name_cells(report), decimals + 4
        heads: list[Part] = [("dim", pad("", cells + 1))]
        # Of names that are alike the end tells them apart.
        heads += [("dim", f"{pad_left(_end(name, wide - 1), wide - 1)} ") for name in names]
        yield self.strip(*heads, width=width)
        top = max((pair.rad for pair in report.pairs), default=1.0) or 1.0
        for i, name in enumerate(names):
            parts: list[Part] = [("text", f"{pad(name, cells)} ")]
            for j, rad in enumerate(report.distances[i]):
                if i == j:
                    parts.append(("faint", f"{pad_left('·', wide - 1)} "))
                elif rad is None:
                    parts.append(("dim", f"{pad_left(ABSENT, wide - 1)} "))
                elif report.is_under_floor(rad):
                    parts.append(("warning", f"{UNDER}{pad_left(_decimals(rad, decimals), wide - 2)} "))
                else:
                    share = min(max(rad / top, 0.0), 1.0) if rad == rad else 0.0
                    block = _LEVELS[min(int(8 * share), 7)]
                    parts += [("raw", block), ("text", f"{pad_left(_decimals(rad, decimals), wide - 2)} ")]
            yield self.strip(*parts, width=width)

    def _floor(self, report: Report, near: Iterable[Pair], width: int) -> Strip:
        floor = report.floor_rad
        if floor is None:
            return self.strip(("dim", "no floor is recorded"), width=width)
        names = report.names
        pairs = [f"{names[pair.first]} and {names[pair.second]}" for pair in near]
        if not pairs:
            return self.strip(("dim", pad(f"none under the floor of {compact(floor)} rad", width)))
        return self.strip(
            ("warning", pad(f"{UNDER} under the floor of {compact(floor)} rad: {', '.join(pairs)}", width))
        )

    def _pairs(self, report: Report, width: int, height: int, left: list[Part]) -> Iterable[Strip]:
        """As many of the nearest pairs as there is room for, column by column."""
        cells, names = self._name_cells(report), report.names
        each = 2 * cells + 14
        columns = max((width + 2) // (each + 2), 1)
        room = max(height - 2, 1)
        shown = report.pairs[: columns * room]
        rest = f"{grouped(len(shown))} of {grouped(len(report.pairs))} pairs, nearest first"
        yield self.heading(width, left if width >= 60 else left[:1], [("dim", rest)])
        yield self._floor(report, report.too_near, width)
        rows = -(-len(shown) // columns)
        for y in range(rows):
            parts: list[Part] = []
            for pair in shown[y::rows]:
                under = report.is_under_floor(pair.rad)
                parts += [
                    ("text", f"{pad(names[pair.first], cells)} {pad(names[pair.second], cells)} "),
                    ("warning" if under else "strong", f"{UNDER if under else ' '}{pad(number(pair.rad), 8)}"),
                    ("text", "     "),
                ]
            yield self.strip(*parts[:-1], width=width)


def _end(name: str, cells: int) -> str:
    return name if cell_len(name) <= cells else f"…{name[-(cells - 1) :]}" if name.isascii() else clip(name, cells)


class OceanFacts(Lines):
    """What the Ocean says of all of them together, and whether it is still what it was."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._report: Report | None = None

    def show(self, report: Report | None) -> None:
        if report is not self._report:
            self._report = report
            self.redraw()

    LINES_WANTED = 9
    """With an empty line at its end."""

    def lines(self, width: int, height: int) -> Iterable[Strip]:
        report = self._report
        if report is None:
            yield self.heading(width, [("strong", "OCEAN")])
            return
        scatter = f"variance {quantity(report.variance, 'rad²')}  coherence {number(report.coherence)}"
        yield self.heading(width, [("strong", "OCEAN")], [("dim", scatter)] if height < 6 else [])
        tone = "ok" if report.sound else "dim" if report.sound is None else "critical"
        rows: list[list[Part]] = [[(tone, pad(report.soundness, width))]]
        rows.append(self._fact("nearest two", report.min_rad, "rad", report.why("distances"), width))
        rows.append(self._fact("farthest two", report.max_rad, "rad", report.why("distances"), width))
        rows.append(self._fact("Fréchet variance", report.variance, "rad²", report.why("variance"), width))
        rows.append(self._fact("coherence", report.coherence, "", report.why("coherence"), width))
        rows.append([("dim", pad("modes", _LABEL)), ("text", pad(report.shares, max(width - _LABEL, 0)))])
        within, between, samples = (report.pooled[key] for key in ("within", "between", "samples"))
        if within is None and between is None:
            pooled = f"{ABSENT} {report.why('pooled')}".rstrip()
        else:
            over = "" if samples is None else f", {compact(samples)} basins"
            pooled = f"within {number(within)}, between {quantity(between, 'rad²')}{over}"
        rows.append([("dim", pad("scatter", _LABEL)), ("text", pad(pooled, max(width - _LABEL, 0)))])
        for parts in rows[: max(height - 1, 0)]:
            yield self.strip(*parts, width=width)

    @staticmethod
    def _fact(name: str, value: float | None, unit: str, why: str, width: int) -> list[Part]:
        words = quantity(value, unit) if value is not None else f"{ABSENT} {why}".rstrip()
        return [("dim", pad(name, _LABEL)), ("text", pad(words, max(width - _LABEL, 0)))]
