"""A dialog that asks something of the trainer: the question, and once it was confirmed the stages as they come."""

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import Asked
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.screens.stages import stages_text
from qig_tui.text import safe

LOOK_S = 0.2


class AskingDialog(Dialog[bool]):
    """Asks, sends, follows. Dismissed with whether what was asked for was seen to be done.

    Subclasses give the question, the words of success, and the buttons that answer the question.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "withdraw", "withdraw", tooltip="Take the command back while the trainer has not seen it"),
    ]
    ANSWERS: ClassVar[tuple[str, ...]] = ("confirm",)
    """Ids of what is there until something was sent."""

    def __init__(self, title: str, picture: RunPicture, run: RunDir) -> None:
        super().__init__(title)
        self._picture = picture
        self._run = run
        self._note = ""
        self.refusal: str | None = None
        """Why nothing could be asked; a sentence."""
        self.followed: Followed | None = None

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield from self.compose_answers()
        yield Button("Withdraw  w", id="withdraw", compact=True)

    def compose_answers(self) -> ComposeResult:
        """The buttons that answer the question."""
        raise NotImplementedError

    def question(self) -> Text:
        raise NotImplementedError

    def success(self, followed: Followed) -> str:
        """What is so now, once it is confirmed; a sentence."""
        raise NotImplementedError

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()
        self.set_interval(LOOK_S, self.look)
        self.show()

    @property
    def asked(self) -> Asked | None:
        return None if self.followed is None else self.followed.asked

    def send(self, verb: str, args: dict[str, Any] | None = None, *, going_back: str | None = None) -> None:
        """Send the command, once."""
        if self.followed is not None or self.refusal is not None:
            return
        try:
            self.followed = Followed(self._picture, self._run, verb, args, going_back=going_back)
        except Refused as error:
            self.refusal = safe(error, 400)
        self.query_one("#cancel", Button).focus()
        self.show()

    def action_withdraw(self) -> None:
        followed = self.followed
        if followed is None or not followed.asked.unseen or followed.outcome != "waiting":
            return
        if followed.withdraw():
            self.dismiss(False)
        else:
            self._note = "too late: the trainer has seen it"
            self.show()

    def action_cancel(self) -> None:
        followed = self.followed
        if followed is not None and followed.verb != "abort" and followed.withdraw():
            # Nobody would take it back later, and a trainer that wakes in an hour would do it.
            self.notify(followed.words, severity="warning", markup=False)
        self.dismiss(followed is not None and followed.outcome == "confirmed" and self.is_what_was_meant(followed))

    def is_what_was_meant(self, followed: Followed) -> bool:
        """Whether the command is the one that the dialog is for."""
        return True

    def look(self) -> None:
        if self.followed is not None and self.followed.outcome == "waiting":
            self.followed.look()
            self.show()

    def show(self) -> None:
        """Show how far it has come."""
        followed = self.followed
        over = followed is not None or self.refusal is not None
        for name in self.ANSWERS:
            self.query_one(f"#{name}").display = not over
        self.query_one("#withdraw").display = (
            followed is not None and followed.outcome == "waiting" and followed.asked.unseen
        )
        self.query_one("#cancel", Button).label = "Close  esc" if over else "Cancel  esc"
        self.say(self._asked_nothing() if followed is None else self._progress(followed))

    def _asked_nothing(self) -> Text:
        if self.refusal is None:
            return self.question()
        return Text.assemble(("✖ not asked: ", "bold"), self.refusal)

    def _progress(self, followed: Followed) -> Text:
        text = stages_text(followed)
        if followed.outcome == "confirmed":
            text.append(f"\n{self.success(followed)}", style="bold")
        self.add_to(text, followed)
        for note in (self._note, followed.asked.problem):
            if note:
                text.append(f"\n{note}", style="bold")
        return text

    def add_to(self, text: Text, followed: Followed) -> None:
        """What a dialog has to say beside the stages."""
