"""One difference of several runs, each run's value in full."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from qig_tui.compare.config_diff import Difference
from qig_tui.screens.dialog import Dialog
from qig_tui.text import ABSENT, safe

_MOST = 4000


class DifferenceScreen(Dialog[None]):
    """Args: runs: letter and name of each run, as the values stand."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "cancel", "close", show=False),
        Binding("up", "scroll(-1)", "up", show=False),
        Binding("down", "scroll(1)", "down", show=False),
    ]

    def __init__(self, difference: Difference, runs: Sequence[tuple[str, str]]) -> None:
        super().__init__(safe(difference.key, 60))
        self._difference = difference
        self._runs = runs

    def compose_body(self) -> ComposeResult:
        text = Text()
        for (letter, name), value in zip(self._runs, self._difference.values, strict=True):
            text.append(f"{letter} {name}\n", style="bold")
            text.append(f"{f'{ABSENT} no such key' if value is None else safe(value, _MOST)}\n\n")
        text.rstrip()
        yield Static(text, id="text")

    def on_mount(self) -> None:
        self.query_one("#cancel").focus(scroll_visible=False)

    def action_scroll(self, lines: int) -> None:
        self.query_one("#dialog", VerticalScroll).scroll_relative(y=lines, animate=False)
