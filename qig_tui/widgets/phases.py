"""The phases of a run in rows, the guards of one of them, and what was written at the end of it."""

from collections.abc import Hashable, Sequence

from rich.cells import cell_len
from textual.message import Message

from qig_core.rundir.schema import Event
from qig_tui.programs.fields import text
from qig_tui.programs.phases import GUARD_STATES, Guard, Phase
from qig_tui.text import ABSENT, grouped, number, pad, thin_bar
from qig_tui.widgets.lines import Part
from qig_tui.widgets.program_panel import GUARD_TONES, PHASE_TONES, by_severity
from qig_tui.widgets.row_list import Column, RowList, cell, laid_out

_BAR = 8


def _step(step: int | None) -> str:
    return ABSENT if step is None else grouped(step)


class PhaseList(RowList[Phase]):
    """Every phase: where it stands, since when, when it may end and by when it must; how it ended."""

    LEAST_WITH_HEADINGS = 4

    class Moved(Message):
        """The keys are at another phase, or may be."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._place = ""

    def show(self, phases: Sequence[Phase], at: int | None) -> None:
        """Args: at: the step that is shown."""
        now = next((phase for phase in phases if phase.is_current), None)
        share = None if now is None else now.share(at)
        self._place = (
            ""
            if now is None or at is None or now.since_step is None
            else f"step {grouped(at - now.since_step)} of {now.name}"
        )
        if share is not None:
            filled, rest = thin_bar(share, 16)
            self._place += f"  {filled}{rest}"
        self.show_items(phases)

    @property
    def lines_wanted(self) -> int:
        return 3 + max(len(self.items), 1)

    def move_to(self, row: int) -> None:
        super().move_to(row)
        self.post_message(self.Moved())

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        return [("strong", "PHASES")], [("dim", self._place)]

    def empty(self) -> str:
        return "no phase was told of until then"

    def key(self, item: Phase) -> Hashable:
        return item.index

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        longest = max((cell_len(phase.name) for phase in self.items), default=8)
        columns = [
            Column("number", 2, 5, "", is_number=True),
            Column("name", min(max(longest, 8), 20), 0, "phase"),
            Column("state", 9, 1, "state"),
            Column("since", 7, 4, "since", is_number=True),
            Column("earliest", 9, 6, "may end", is_number=True),
            Column("latest", 9, 3, "must by", is_number=True),
            Column("told", 24, 2, "guards", grows=True),
        ]
        return laid_out(columns, width, spare="name")

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: Phase, width: int) -> list[Part]:
        tone = PHASE_TONES[item.state]
        word = {"begun": "now", "judged": "now"}.get(item.state, item.state)
        shown = {
            "number": str(item.index),
            "name": item.name,
            "state": f"{item.glyph} {word}",
            "since": _step(item.since_step),
            "earliest": _step(item.earliest_step),
            "latest": _step(item.latest_step),
            "told": item.told,
        }
        tones = {"name": "strong" if item.event is not None else "dim", "state": tone}
        if item.state == "failed":
            tones["told"] = "critical"
        parts: list[Part] = []
        for column, cells in self._columns(width):
            parts += [(tones.get(column.name, "dim"), cell(column, cells, shown[column.name])), ("text", " ")]
        return parts[:-1]


class GuardTable(RowList[Guard]):
    """The guards of one phase, the worst first: what must hold before it may end."""

    LEAST_WITH_HEADINGS = 4

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._phase: Phase | None = None

    def show(self, phase: Phase | None) -> None:
        self._phase = phase
        self.show_items([] if phase is None else by_severity(phase.guards))

    @property
    def lines_wanted(self) -> int:
        return 3 + max(len(self.items), 1)

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        phase = self._phase
        left: list[Part] = [("strong", "GUARDS"), ("dim", "" if phase is None else f"  {phase.name}")]
        if phase is not None and phase.step is not None:
            left.append(("dim", f" at {grouped(phase.step)}"))
        right: list[Part] = []
        states = [guard.state for guard in self.items]
        for state in GUARD_STATES:
            if state in states:
                right.append((GUARD_TONES[state], f"{'  ' if right else ''}{states.count(state)} {state}"))
        if phase is not None and phase.more_guards:
            right.append(("dim", f"  +{grouped(phase.more_guards)} more"))
        return left, right

    def empty(self) -> str:
        phase = self._phase
        if phase is None or phase.event is not None:
            return "none was judged in this session yet"
        return "it has not come yet" if phase.state == "to come" else "none was told of"

    def key(self, item: Guard) -> Hashable:
        return item.id

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        longest = max((cell_len(guard.label) for guard in self.items), default=12)
        bound = max((cell_len(guard.bound) for guard in self.items), default=8)
        columns = [
            Column("state", 9, 0, "state"),
            Column("label", min(max(longest, 12), 44 if width >= 90 else 30), 1, "guard"),
            Column("value", 8, 2, "value", is_number=True),
            Column("bound", min(max(bound, 7), 16), 3, "must be"),
            Column("margin", _BAR, 4, "margin"),
            Column("why", 24, 5, "why no value" if any(guard.why for guard in self.items) else "", grows=True),
        ]
        return laid_out(columns, width, spare="label")

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: Guard, width: int) -> list[Part]:
        tone = GUARD_TONES[item.state]
        parts: list[Part] = []
        for column, cells in self._columns(width):
            match column.name:
                case "state":
                    parts.append((tone, pad(f"{item.glyph} {item.state}", cells)))
                case "label":
                    parts.append(("text", pad(item.label, cells)))
                case "value":
                    parts.append(("strong", cell(column, cells, number(item.value))))
                case "bound":
                    parts.append(("dim", pad(item.bound, cells)))
                case "margin":
                    filled, rest = ("", pad("", cells)) if item.margin is None else thin_bar(item.margin, cells)
                    parts += [(tone, filled), ("faint", rest)]
                case _:
                    parts.append(("dim", pad(item.why, cells)))
            parts.append(("text", " "))
        return parts[:-1]

    def story(self, item: Guard, width: int) -> list[Part]:
        if not item.why or any(column.name == "why" for column, _ in self._columns(width)):
            return []
        return [("dim", pad(f"{'':10}{item.why}", width))]


class PassageList(RowList[Event]):
    """What a frozen kernel wrote, the newest first: a prompt of held-out text, and how it went on."""

    def show(self, found: Sequence[Event]) -> None:
        self.show_items(list(reversed(found)))

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        return [("strong", "WRITTEN")], [("dim", f"{grouped(len(self.items))} passages" if self.items else "")]

    def empty(self) -> str:
        return "nothing yet: the frozen kernel writes in the last phase"

    def key(self, item: Event) -> Hashable:
        return item.seq

    def row(self, item: Event, width: int) -> list[Part]:
        front = f"{_step(item.step):>7} "
        prompt = text(item.data, "prompt", 60) or "(no prompt)"
        used = cell_len(front) + cell_len(prompt) + 3
        return [
            ("dim", front),
            ("dim", prompt),
            ("accent", " ▸ "),
            ("text", pad(text(item.data, "text", 400) or "(nothing)", max(width - used, 0))),
        ]
