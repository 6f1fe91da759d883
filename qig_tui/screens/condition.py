"""The story of one condition: what it compares, and every turn that it took in the run. Changes nothing."""

from collections.abc import Hashable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button, Static

from qig_tui.alarms.episodes import Turn
from qig_tui.alarms.picture import Judged
from qig_tui.alarms.words import blame_text, limit_text, value_text
from qig_tui.journal import ALARMS, GLYPHS
from qig_tui.screens.dialog import Dialog
from qig_tui.text import ABSENT, clock, duration, grouped, pad
from qig_tui.widgets.conditions import TONES
from qig_tui.widgets.lines import Part
from qig_tui.widgets.row_list import Column, RowList, cell, fitting

_MOST_LINES = 16
_KEY = 12


class TurnList(RowList[tuple[Turn, float | None]]):
    """Turns, the newest first, each with the seconds until the next one; None: it still stands."""

    LEAST_WITH_HEADINGS = 3

    def title(self, width: int) -> tuple[list[Part], list[Part]]:
        return [("strong", "TURNS")], [("dim", f"{grouped(len(self.items))} in this run")]

    def empty(self) -> str:
        return "it has not been judged yet"

    def key(self, item: tuple[Turn, float | None]) -> Hashable:
        return item[0].event.seq

    def _columns(self, width: int) -> list[tuple[Column, int]]:
        return fitting(
            [
                Column("time", 8, 4, "at"),
                Column("step", 9, 1, "step", is_number=True),
                Column("state", 10, 0, "became"),
                Column("value", 8, 2, "value", is_number=True),
                Column("limit", 14, 3, "limit"),
                Column("lasted", 8, 5, "for", is_number=True),
                Column("why", 20, 6, "why", grows=True),
            ],
            width,
        )

    def headings(self, width: int) -> list[Part]:
        return [("dim", f"{cell(column, cells, column.heading)} ") for column, cells in self._columns(width)]

    def row(self, item: tuple[Turn, float | None], width: int) -> list[Part]:
        turn, lasted = item
        condition, tone = turn.condition, TONES[turn.condition.state]
        said = {
            "time": clock(turn.event.t),
            "step": "" if turn.step is None else grouped(turn.step),
            "state": f"{GLYPHS[condition.state]} {condition.state}",
            "value": value_text(condition),
            "limit": limit_text(condition),
            "lasted": "still" if lasted is None else duration(lasted),
            "why": blame_text(condition),
        }
        loud = {"state": tone, "value": "text", "why": tone if condition.state in ALARMS else "dim"}
        parts: list[Part] = []
        for column, cells in self._columns(width):
            parts += [(loud.get(column.name, "dim"), cell(column, cells, said[column.name])), ("text", " ")]
        return parts[:-1]


class ConditionScreen(Dialog[int | None]):
    """Dismissed with the step that somebody wants to go to, or None."""

    AUTO_FOCUS = "TurnList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go", "go there", tooltip="Show the run as it was at this turn"),
    ]

    def __init__(self, judged: Judged, turns: Sequence[Turn]) -> None:
        super().__init__(judged.row.condition.id)
        self._judged = judged
        self._turns = turns

    def compose_body(self) -> ComposeResult:
        yield Static(self._facts(), id="text")
        yield TurnList(id="turns")

    def compose_buttons(self) -> ComposeResult:
        yield Button("Close  esc", id="cancel", compact=True)
        yield Button("Go there  enter", id="go", compact=True)

    def on_mount(self) -> None:
        turns = list(self._turns)
        following = [*turns[1:], None]
        rows = [(turn, _between(turn, after)) for turn, after in zip(turns, following, strict=True)]
        found = self.query_one(TurnList)
        found.styles.height = min(len(rows) + 2, _MOST_LINES)
        found.show_items(rows[::-1])
        self.query_one("#go").display = bool(rows)

    def _facts(self) -> Text:
        row = self._judged.row
        condition = row.condition
        metric = f"{condition.metric} {condition.statistic}".strip()
        dwell = condition.dwell if condition.dwell.isdigit() else ""
        times = f"{dwell} in a row raise it, as many clear it" if dwell not in ("", "0", "1") else ""
        text = Text.assemble((f"{row.glyph} {row.state}", "bold"))
        text.append(f"  {self._judged.why}\n\n" if self._judged.why else "\n\n")
        facts = {
            "compares": f"{metric or ABSENT}  {limit_text(condition)}",
            "value": f"{row.shown}{f' {row.unit}' if row.unit and row.unit != '%' and row.value is not None else ''}",
            "dwell": times or condition.dwell or ABSENT,
            "since": ABSENT if condition.since_step is None else f"step {grouped(condition.since_step)}",
        }
        for name, told in facts.items():
            text.append(pad(name, _KEY), style="dim")
            text.append(f"{told}\n")
        return text

    @on(RowList.Chosen)
    def go_to_turn(self, event: RowList.Chosen) -> None:
        event.stop()
        self.action_go()

    def action_go(self) -> None:
        chosen = self.query_one(TurnList).chosen
        if chosen is not None and chosen[0].step is not None:
            self.dismiss(chosen[0].step)
        elif chosen is not None:
            self.notify("no step is recorded of this turn", markup=False)


def _between(turn: Turn, after: Turn | None) -> float | None:
    if after is None:
        return None
    return max(after.event.t - turn.event.t, 0.0)
