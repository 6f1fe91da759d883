"""What stands below the charts of a comparison beside its table: differences and kin, as tone and text. No Textual."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.cells import cell_len

from qig_tui.compare.comparing import ComparedRun, Comparison
from qig_tui.compare.config_diff import CONFIGURATION, Difference, differences
from qig_tui.compare.kin import KinLine, Member, bar_of, clipped, family
from qig_tui.compare.table import GAP, Row, state_of
from qig_tui.text import ABSENT, grouped, pad, pad_left, safe

_KEY = (16, 34)
_COLUMN = (9, 30)
_BAR = (24, 48)


class Page(Protocol):
    """One of the pages: its name, what is counted on it (0: nothing), and its rows laid out."""

    @property
    def title(self) -> str: ...

    @property
    def count(self) -> int: ...

    def header(self, width: int) -> Row: ...

    def rows(self, width: int) -> list[Row]: ...

    def wanted(self) -> int:
        """How many rows there are."""
        ...


@dataclass(kw_only=True)
class ConfigPage:
    """Only what differs, a column for each run that can be read."""

    comparison: Comparison
    title: str = "config"
    _known: tuple[int, ...] = ()
    _found: list[Difference] = field(default_factory=list)
    _laid_for: tuple[int, ...] = ()
    _laid: list[Row] = field(default_factory=list)

    @property
    def runs(self) -> list[ComparedRun]:
        """Those that have a column."""
        return [run for run in self.comparison.runs if run.manifest is not None]

    def found(self) -> list[Difference]:
        """What differs; worked out anew where a manifest is another one."""
        manifests = [manifest for run in self.runs if (manifest := run.manifest) is not None]
        marks = tuple(map(id, manifests))
        if marks != self._known:
            self._known, self._found = marks, differences(manifests)
        return self._found

    @property
    def count(self) -> int:
        return len(self.found())

    def wanted(self) -> int:
        return max(self.count, 1)

    def _columns(self, width: int) -> tuple[int, int, int]:
        """Cells for the key and for each value, and how many runs have room."""
        runs = max(len(self.runs), 1)
        longest = max((cell_len(d.key) for d in self.found()), default=0)
        key = min(max(longest, _KEY[0]), _KEY[1], max(width // 3, 8))
        room = width - 3 - key
        shown = min(runs, max(room // (_COLUMN[0] + GAP), 1))
        widest = max((cell_len(v or "") for d in self.found() for v in d.values), default=0)
        return key, max(min(room // shown - GAP, max(widest, _COLUMN[0]), _COLUMN[1]), 1), shown

    def header(self, width: int) -> Row:
        key, cells, shown = self._columns(width)
        left_out = len(self.runs) - shown
        more = f", {left_out} more runs in ⏎" if left_out else ""
        parts: Row = [("dim", "    "), ("dim", pad(f"key{more}", key))]
        for run in self.runs[:shown]:
            parts += [("text", " " * GAP), (f"run{run.place}", pad(f"{run.letter} {run.name}", cells))]
        return parts

    def rows(self, width: int) -> list[Row]:
        if len(self.runs) < 2:
            return [[("dim", "it takes two runs that can be read to differ")]]
        if not self.found():
            return [[("dim", "nothing differs: configuration, versions, revision, corpus and threads are the same")]]
        marks = (width, *self._known)
        if marks != self._laid_for:
            key, cells, shown = self._columns(width)
            self._laid_for, self._laid = marks, [self._row(found, key, cells, shown) for found in self.found()]
        return self._laid

    @staticmethod
    def _row(found: Difference, key: int, cells: int, shown: int) -> Row:
        is_setting = found.section == CONFIGURATION
        parts: Row = [("dim", "  " if is_setting else "· ")]
        parts.append(("text" if is_setting else "dim", pad(safe(found.key, 200), key)))
        for value, text in zip(found.values, apart(found.values, cells), strict=True):
            # What is as in the first run recedes.
            tone = "text" if value == found.values[0] else "strong"
            parts += [("text", " " * GAP), ("dim" if value is None else tone, pad(text, cells))]
        return parts[: 2 + 2 * shown]


def apart(values: Sequence[str | None], cells: int) -> list[str]:
    """The values in so many cells; where they begin alike and are longer, from where they do not."""
    shown = [ABSENT if value is None else safe(value, 400) for value in values]
    known = [text for value, text in zip(values, shown, strict=True) if value is not None]
    alike = next((i for i, column in enumerate(zip(*known, strict=False)) if len(set(column)) > 1), 0)
    if alike <= 4 or all(cell_len(text) <= cells for text in known):
        return shown
    # A few characters of what is alike tell where it is that they part.
    start = alike - 3
    return [text if value is None else f"…{text[start:]}" for value, text in zip(values, shown, strict=True)]


@dataclass(kw_only=True)
class KinPage:
    """Who was forked from whom, and where each went back."""

    comparison: Comparison
    title: str = "lineage"

    count: int = 0

    def wanted(self) -> int:
        return len(self._family())

    def _family(self) -> list[KinLine]:
        return family([_member(run) for run in self.comparison.runs])

    def header(self, width: int) -> Row:
        bar = self._bar(width)
        low, high = self._ends()
        left: Row = [("dim", pad("  fork ┳, session ↻, rewind ↩", width - bar - 1))]
        scale = f"{grouped(low)}{pad_left(grouped(high), max(bar - len(grouped(low)), 0))}"
        return [*left, ("dim", scale)] if bar else left

    def rows(self, width: int) -> list[Row]:
        bar = self._bar(width)
        return [self._row(line, width, bar) for line in self._family()]

    def _row(self, line: KinLine, width: int, bar: int) -> Row:
        if not bar:
            return line.left
        return [*clipped(line.left, width - bar - 5), ("text", "  "), *bar_of(line, bar, self._ends())]

    def _ends(self) -> tuple[int, int]:
        found = [ends for run in self.comparison.runs if (ends := run.ends("step")) is not None]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else (0, 1)

    @staticmethod
    def _bar(width: int) -> int:
        return min(width // 3, _BAR[1]) if width // 3 >= _BAR[0] else 0


def _member(run: ComparedRun) -> Member:
    ends = run.ends("step")
    return Member(
        id=run.run.id,
        name=run.name,
        letter=run.letter,
        tone=f"run{run.place}",
        state=state_of(run)[1],
        first=None if ends is None else ends[0],
        last=None if ends is None else ends[1],
        lineage=run.lineage,
        note="" if run.problem is None else safe(run.problem, 200),
    )
