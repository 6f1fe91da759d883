"""The Garys of a constellation in rows, what the Ocean recommends, and what was done to them."""

from collections.abc import Hashable, Sequence

from rich.cells import cell_len

from qig_core.rundir.schema import Event
from qig_tui.programs.constellation import RUNGS, Advice, Gary, Report
from qig_tui.programs.fields import Numbers, text
from qig_tui.programs.words import bound_words, changes
from qig_tui.text import ABSENT, grouped, number, pad
from qig_tui.widgets.lines import Part
from qig_tui.widgets.program_panel import RUNG_TONES
from qig_tui.widgets.row_list import Column, RowList, cell, laid_out

_REMARKS = 24


def _step(step: int | None) -> str:
    return ABSENT if step is None else grouped(step)


class GaryTable(RowList[Gary]):
    """Every Gary as the Ocean saw it last."""

    LEAST_WITH_HEADINGS = 4

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._report: Report | None = None

    def show(self, report: Report | None) -> None:
        self._report = report
        self.show_items(() if report is None else report.garys)

    @property
    def lines_wanted(self) -> int:
        return 3 + max(len(self.items), 1)

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        report = self._report
        if report is None:
            return [("strong", "GARYS")], []
        count = grouped(len(report.garys))
        total = f"{count} of {grouped(len(report.garys) + report.more_garys)}" if report.more_garys else count
        left: list[Part] = [("strong", "GARYS"), ("dim", f"  {total}")]
        if report.step is not None:
            left.append(("dim", f"  at {grouped(report.step)}"))
        units = "κ in rad⁻¹, losses in nats, the rest of the way in rad" if width >= 100 else ""
        return left, [("dim", units)]

    def empty(self) -> str:
        return "the Ocean has not reported until then"

    def key(self, item: Gary) -> Hashable:
        return item.name

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        longest = max((cell_len(gary.name) for gary in self.items), default=5)
        columns = [
            Column("name", min(max(longest, 5), 16), 0, "Gary"),
            Column("role", 10, 1, "role"),
            Column("phi", 7, 2, "Φ", is_number=True),
            Column("kappa", 7, 5, "κ", is_number=True),
            Column("loss", 7, 4, "loss", is_number=True),
            Column("loss_heldout", 8, 3, "held-out", is_number=True),
            Column("velocity", 8, 9, "velocity", is_number=True),
            Column("drift", 7, 6, "drift", is_number=True),
            Column("from_mean", 9, 7, "from mean", is_number=True),
            Column("from_ocean", 10, 10, "from Ocean", is_number=True),
            Column("remarks", _REMARKS, 8, "flags", grows=True),
        ]
        return laid_out(columns, width, spare="name")

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: Gary, width: int) -> list[Part]:
        parts: list[Part] = []
        for column, cells in self._columns(width):
            match column.name:
                case "name":
                    parts.append(("strong", pad(item.name, cells)))
                case "role":
                    parts.append(("ok" if item.role == "active" else "dim", pad(item.role_text, cells)))
                case "remarks":
                    parts.append(("warning" if item.flags else "dim", pad(item.remarks, cells)))
                case name:
                    parts.append(("text", cell(column, cells, number(item.numbers[name]))))
            parts.append(("text", " "))
        return parts[:-1]

    def story(self, item: Gary, width: int) -> list[Part]:
        if not item.remarks or any(column.name == "remarks" for column, _ in self._columns(width)):
            return []
        return [("warning" if item.flags else "dim", pad(f"  {item.remarks}", width))]


class AdviceList(RowList[Advice]):
    """What the Ocean recommends, in its order: the first is the most pressing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cooling = 0

    def show(self, report: Report | None) -> None:
        self._cooling = 0 if report is None else sum(bool(gary.cooldown) for gary in report.garys)
        self.show_items(() if report is None else report.advice)

    @property
    def lines_wanted(self) -> int:
        return 2 + max(2 * len(self.items), 1)

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        right: list[Part] = []
        rungs = [advice.rung for advice in self.items]
        for rung in reversed(RUNGS):
            if rung in rungs:
                right.append((RUNG_TONES[rung], f"{'  ' if right else ''}{rungs.count(rung)} {rung}"))
        if self._cooling:
            right.append(("dim", f"{'  ' if right else ''}{grouped(self._cooling)} left alone"))
        return [("strong", "RECOMMENDED")], right

    def empty(self) -> str:
        return "nothing"

    def key(self, item: Advice) -> Hashable:
        return item.verb, item.gary

    def row(self, item: Advice, width: int) -> list[Part]:
        since = "" if item.since_step is None else f" since {grouped(item.since_step)}"
        what = f"{item.verb} {item.gary}"
        used = 10 + cell_len(what) + cell_len(since) + 2
        said = item.said if width - used >= 16 else ""
        return [
            (RUNG_TONES.get(item.rung, "text"), pad(item.rung_text, 10)),
            ("strong", what),
            ("dim", since),
            ("text", pad(f"  {said}", max(width - used + 2, 0))),
        ]

    def story(self, item: Advice, width: int) -> list[Part]:
        since = "" if item.since_step is None else f" since {grouped(item.since_step)}"
        room = width - 12 - cell_len(f"{item.verb} {item.gary}{since}")
        if not item.said or cell_len(item.said) <= room:
            return []
        return [("dim", pad(f"{'':10}{item.said}", width))]


class InterventionList(RowList[Event]):
    """What was done to one Gary, the newest first: before, after, the bound that held or did not."""

    def show(self, found: Sequence[Event]) -> None:
        self.show_items(list(reversed(found)))

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        undone = sum(event.data.get("undone") is True for event in self.items)
        right = f"{grouped(len(self.items))}, {grouped(undone)} undone" if self.items else ""
        return [("strong", "DONE")], [("dim", right)]

    def empty(self) -> str:
        return "nothing yet"

    def key(self, item: Event) -> Hashable:
        return item.seq

    def row(self, item: Event, width: int) -> list[Part]:
        data = item.data
        undone = data.get("undone") is True
        by = text(data, "by", 12)
        what = f"{text(data, 'verb', 12) or '?'} {text(data, 'gary', 20) or '?'}" + (f" by {by}" if by else "")
        front = f"{_step(item.step):>7} "
        sign = "↶ undone " if undone else "✓ kept   "
        used = cell_len(front) + cell_len(sign) + cell_len(what) + 2
        return [
            ("dim", front),
            ("warning" if undone else "ok", sign),
            ("strong", what),
            ("text", pad(f"  {bound_words(data, Numbers(data))}", max(width - used + 2, 0))),
        ]

    def story(self, item: Event, width: int) -> list[Part]:
        data = item.data
        words = "; ".join(part for part in (text(data, "reason", 200), *changes(data, Numbers(data))[:4]) if part)
        return [("dim", pad(f"{'':8}{words}", width))] if words else []
