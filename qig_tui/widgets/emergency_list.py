"""Every stop and every hang of the run, the newest first."""

from collections.abc import Hashable, Sequence

from qig_tui.sources.emergencies import Emergency
from qig_tui.text import ABSENT, clock, grouped, pad
from qig_tui.widgets.lines import Part
from qig_tui.widgets.row_list import Column, RowList, cell, fitting

_TONES = {"info": "text", "warning": "warning", "critical": "critical"}
_GLYPHS = {"info": "■", "warning": "▲", "critical": "✖"}
_WIDE = 56


def cause_text(emergency: Emergency) -> str:
    """Why it stopped: limit, signal, command or error, and which."""
    if emergency.problem and not emergency.cause:
        return "its record cannot be read"
    return f"{emergency.kind}: {emergency.cause}" if emergency.kind else emergency.cause or "no cause is recorded"


def saved_text(emergency: Emergency) -> str:
    """Which checkpoint it left."""
    if emergency.checkpoint:
        return f"saved as {emergency.checkpoint}"
    if not emergency.has_record and emergency.exit_code is None:
        return ""
    return f"nothing saved: {emergency.note}" if emergency.note else "nothing saved"


class EmergencyList(RowList[Emergency]):
    """Where one has room below its row, what was saved stands there."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._total = 0
        self._later = 0
        self._problem = ""

    def show(self, found: Sequence[Emergency], *, total: int, later: int = 0, problem: str = "") -> None:
        """Args: total: how many there are, with those that are not listed. later: than the moment that is shown."""
        self._total, self._later, self._problem = total, later, problem
        self.show_items(found)

    @property
    def lines_wanted(self) -> int:
        return 1 + max(2 * len(self.items), 1)

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        right: list[Part] = []
        if self._problem:
            right.append(("warning", f"▲ {self._problem}"))
        elif self._later:
            right.append(("cursor", f"{grouped(self._later)} later"))
        elif self._total > len(self.items):
            right.append(("dim", f"{grouped(len(self.items))} of {grouped(self._total)}"))
        return [("strong", "EMERGENCIES")], right

    def empty(self) -> str:
        return "none until then" if self._later else "the run was never stopped, and never hung"

    def key(self, item: Emergency) -> Hashable:
        return item.id

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        columns = [
            Column("time", 10, 4),
            Column("step", 8, 2, is_number=True),
            Column("why", 14, 0, grows=True),
            Column("exit", 7, 1, is_number=True),
        ]
        # In a narrow one step and exit code stand below.
        return fitting(columns if width >= _WIDE else [columns[0], columns[2]], width)

    def row(self, item: Emergency, width: int) -> list[Part]:
        tone = _TONES.get(item.severity, "text")
        parts: list[Part] = []
        for column, cells in self._columns(width):
            match column.name:
                case "time":
                    at = "--:--:--" if item.t is None else clock(item.t)
                    parts += [(tone, f"{_GLYPHS.get(item.severity, '■')} "), ("dim", pad(at, cells - 2))]
                case "step":
                    parts.append(("dim", cell(column, cells, ABSENT if item.step is None else grouped(item.step))))
                case "why":
                    parts.append((tone, pad(cause_text(item), cells)))
                case _:
                    parts.append(
                        ("dim", cell(column, cells, "" if item.exit_code is None else f"exit {item.exit_code}"))
                    )
            parts.append(("text", " "))
        return parts[:-1]

    def story(self, item: Emergency, width: int) -> list[Part]:
        saved = saved_text(item)
        stacks = "stacks kept" if item.has_stacks and item.has_record else ""
        step = "" if item.step is None or width >= _WIDE else f"step {grouped(item.step)}"
        code = "" if item.exit_code is None or width >= _WIDE else f"exit {item.exit_code}"
        words = ", ".join(part for part in (step, code, saved, stacks) if part)
        if not words:
            return []
        return [("text", pad("", 2)), ("dim", pad(words, max(width - 2, 0)))]
