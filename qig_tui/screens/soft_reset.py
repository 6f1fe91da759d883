"""Go back to the last known good checkpoint: the question, the stages, and the run's own record that it did."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_core.rundir.layout import RunDir
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.asking import AskingDialog
from qig_tui.text import compact, grouped, safe


class SoftResetScreen(AskingDialog):
    """Asks, sends, follows. Dismissed with whether the run was seen to go back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "reset", tooltip="Go back to the last known good checkpoint"),
    ]

    def __init__(self, picture: RunPicture, run: RunDir) -> None:
        super().__init__(f"Soft reset of {picture.name}", picture, run)

    def compose_answers(self) -> ComposeResult:
        yield Button("Go back  y", id="confirm", variant="warning", compact=True)

    def on_mount(self) -> None:
        self.add_class("-danger")

    def action_confirm(self) -> None:
        self.send("soft_reset", going_back="soft_reset")

    def question(self) -> Text:
        text = Text("Go back to the last known good checkpoint, optimiser and random state with it.\n")
        text.append("The trainer knows which one that is, and may lower its learning rate as its profile says. ", "dim")
        text.append("The steps since then are left; their records stay.", style="dim")
        return text

    def success(self, followed: Followed) -> str:
        return went_on_from(followed)


def went_on_from(followed: Followed) -> str:
    """Where the run goes on, as it recorded it itself."""
    event, answer = followed.proof, followed.asked.answer
    if event is None or event.step is None:
        return "The run went back."
    name, fingerprint = safe(event.data.get("checkpoint"), 60), safe(event.data.get("fingerprint"))[:12]
    words = f"The run goes on from {name}, step {grouped(event.step)}, fingerprint {fingerprint}"
    factor = None if answer is None else answer.detail.get("lr_factor")
    if isinstance(factor, int | float) and factor != 1.0:
        words += f", learning rate × {compact(factor)}"
    return f"{words}."
