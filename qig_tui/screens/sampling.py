"""How often the trainer records a sample: a number is asked for, sent, and seen to be taken."""

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button, Input, Static

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Event
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.asking import AskingDialog
from qig_tui.text import grouped

_DIGITS = 9


class SamplingScreen(AskingDialog):
    """Dismissed with whether the trainer took the number."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "confirm", "set", tooltip="Record a sample every so many steps"),
    ]
    ANSWERS = ("confirm", "every")

    def __init__(self, picture: RunPicture, run: RunDir) -> None:
        super().__init__(f"Samples of {picture.name}", picture, run)
        self._problem = ""

    def compose_body(self) -> ComposeResult:
        yield Static(Text(""), id="text")
        yield Input(id="every", placeholder="steps", restrict=r"[0-9]*", max_length=_DIGITS, compact=True)

    def compose_answers(self) -> ComposeResult:
        yield Button("Set  enter", id="confirm", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.call_after_refresh(self.query_one(Input).focus)

    @on(Input.Submitted)
    def take(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_confirm()

    @on(Input.Changed)
    def forget_problem(self, event: Input.Changed) -> None:
        event.stop()
        if self._problem:
            self._problem = ""
            self.show()

    def action_confirm(self) -> None:
        typed = self.query_one(Input).value
        if not typed.isascii() or not typed.isdigit() or int(typed) < 1:
            self._problem = "A whole number of steps, 1 or more."
            self.query_one(Input).focus()
            self.show()
            return
        self.send("set_log_every", {"value": int(typed)})

    def question(self) -> Text:
        text = Text("Record a sample every so many steps, from the next one on. ")
        now = log_every(self._picture.journal.events, self._picture.manifest.config)
        if now is not None:
            text.append(f"Now: every {_steps(now)}.", style="dim")
        text.append("\nEvery step is judged whatever is recorded; alarms and measurements are always recorded.", "dim")
        if self._problem:
            text.append(f"\n✖ {self._problem}", style="bold")
        return text

    def success(self, followed: Followed) -> str:
        return f"A sample every {_steps(followed.asked.command.args['value'])} from now on."


def _steps(count: int) -> str:
    return "step" if count == 1 else f"{grouped(count)} steps"


def log_every(events: Iterable[Event], config: dict[str, object]) -> int | None:
    """The interval as far as it is recorded: by the newest answer of this session, else in the configuration."""
    cadence = config.get("cadence")
    found = cadence.get("log_every") if isinstance(cadence, dict) else None
    for event in events:
        data = event.data
        if event.kind == "start" and isinstance(cadence, dict):
            found = cadence.get("log_every")
        elif event.kind == "command" and data.get("verb") == "set_log_every" and data.get("stage") == "done":
            found = data.get("log_every")
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 1 else None
