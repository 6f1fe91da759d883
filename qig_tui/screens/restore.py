"""Take a live run back to a checkpoint: verified, asked of the trainer, and proven by what the run itself records."""

from collections.abc import MutableMapping
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import Asked
from qig_tui.checkpoints.rows import Checked
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.asking import LOOK_S
from qig_tui.screens.checkpoint_dialog import CheckpointDialog
from qig_tui.screens.soft_reset import went_on_from
from qig_tui.screens.stages import stages_text
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import grouped, safe


class RestoreScreen(CheckpointDialog):
    """Choose, confirm, follow. Dismissed with whether the run was confirmed to have gone back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "go back", tooltip="Ask the trainer to go back to the checkpoint under the cursor"),
        Binding("w", "withdraw", "withdraw", tooltip="Take the command back while the trainer has not seen it"),
    ]
    DOES = "goes back to it"
    WAITS = "goes back if the checkpoint is whole"
    NOT_DONE = "not asked"
    CONFIRM = "Go back  y"

    def __init__(
        self,
        picture: RunPicture,
        run: RunDir,
        *,
        chosen: str | None = None,
        checked: MutableMapping[str, Checked] | None = None,
    ) -> None:
        super().__init__(f"Take {picture.name} back", picture, run, chosen, checked)
        self.followed: Followed | None = None
        self._refusal: str | None = None
        self._ended = picture.ended

    def compose_buttons(self) -> ComposeResult:
        yield from super().compose_buttons()
        yield Button("Withdraw  w", id="withdraw", compact=True)

    def on_mount(self) -> None:
        self.set_interval(LOOK_S, self._look)

    @property
    def asked(self) -> Asked | None:
        return None if self.followed is None else self.followed.asked

    @property
    def is_busy(self) -> bool:
        return self.followed is not None

    def obstacle(self, entry: CheckpointEntry) -> str | None:
        if self._picture.ended:
            ending = safe(self._picture.liveness.text, 80)
            return f"the run has ended meanwhile ({ending}); close this, then r brings it back"
        return self.damage(entry)

    def act(self, entry: CheckpointEntry) -> None:
        args = {"checkpoint": entry.name}
        try:
            self.followed = Followed(self._picture, self._run, "restore", args, going_back="restore")
        except Refused as error:
            self._refusal = safe(error, 400)
        else:
            # The choice is made: the room is for the stages.
            for name in ("verification", "table"):
                self.query_one(f"#{name}").display = False
        self.query_one("#cancel", Button).focus()
        self.show()

    def action_withdraw(self) -> None:
        if self.followed is not None and self.followed.withdraw():
            self.dismiss(False)

    def action_cancel(self) -> None:
        self._wanted = None
        followed = self.followed
        if followed is not None and followed.withdraw():
            # Nobody would take it back later, and a trainer that wakes in an hour would do it.
            self.notify(followed.words, severity="warning", markup=False)
        self.dismiss(followed is not None and followed.outcome == "confirmed")

    def _look(self) -> None:
        followed = self.followed
        if followed is not None and followed.outcome == "waiting":
            followed.look()
            self.show()
        elif self._ended != self._picture.ended:
            self._ended = self._picture.ended
            self.show()

    def show(self) -> None:
        followed, entry = self.followed, self.chosen
        waiting = followed is not None and followed.outcome == "waiting" and followed.asked.unseen
        self.query_one("#withdraw").display = waiting
        self.query_one("#confirm").display = followed is None and entry is not None
        self.query_one("#cancel", Button).label = "Cancel  esc" if followed is None else "Close  esc"
        if followed is not None:
            text = Text(f"Back to {safe(followed.asked.command.args['checkpoint'], 80)}\n\n", style="dim")
            text.append_text(stages_text(followed))
            if followed.outcome == "confirmed":
                text.append(f"\n{went_on_from(followed)}", style="bold")
            if followed.asked.problem:
                text.append(f"\n{followed.asked.problem}", style="bold")
        elif entry is None:
            text = Text(self.nothing_to_choose())
        else:
            at = "" if entry.step is None else f" at step {grouped(entry.step)}"
            text = Text(f"The trainer goes back to {safe(entry.name, 80)}{at}: model, optimiser and random state.\n")
            text.append("The steps since then are left; their records and checkpoints stay.", style="dim")
            self.add_what_is_next(text, entry)
            if self._refusal is not None:
                text.append(f"\n✖ not asked: {self._refusal}", style="bold")
        self.say(text)
