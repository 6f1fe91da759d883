"""Leaving a run that this command started: does it go on?"""

from typing import ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_tui.screens.dialog import Dialog


class LeaveScreen(Dialog[Literal["leave", "stop"] | None]):
    """Dismissed with what was chosen; None stays."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "leave", "leave it running", tooltip="Leave; the run goes on without a dashboard"),
        Binding("s", "stop", "stop it", tooltip="Stop the run with a checkpoint, then leave"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__("Leave")
        self._name = name

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Leave it running  l", id="leave", variant="primary", compact=True)
        yield Button("Stop with a checkpoint  s", id="stop", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()
        self.say(Text(f"{self._name} is still running. What becomes of it?"))

    def action_leave(self) -> None:
        self.dismiss("leave")

    def action_stop(self) -> None:
        self.dismiss("stop")
