"""Stop a run and see that it stopped: the question, the stages as they come, and what is left if none comes."""

import signal
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Word
from qig_tui.actions import ESCALATE_AFTER_S, PROGRAM, send_signal
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.asking import AskingDialog
from qig_tui.screens.dialog import Dialog
from qig_tui.text import duration, safe

_DOUBTFUL = frozenset({Word.SILENT, Word.HUNG})


class AbortScreen(AskingDialog):
    """Asks, sends, follows. Dismissed with whether the run was seen to stop."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "stop", tooltip="Stop the run with a checkpoint"),
        Binding("p", "pause", "pause instead", tooltip="Let the run wait at a step boundary instead of stopping it"),
        Binding("k", "escalate", "escalate", tooltip="Signal the process, once the trainer does not answer"),
    ]
    ANSWERS = ("confirm", "pause")

    def __init__(self, picture: RunPicture, run: RunDir, *, confirmed: bool = False, may_signal: bool = True) -> None:
        super().__init__(f"Stop {picture.name}", picture, run)
        self._confirmed = confirmed
        self._may_signal = may_signal
        self.escalating = False
        """Whether the trainer has been quiet for so long that a signal is offered."""

    def compose_answers(self) -> ComposeResult:
        yield Button("Stop with a checkpoint  y", id="confirm", variant="error", compact=True)
        yield Button("Pause instead  p", id="pause", compact=True)

    def compose_buttons(self) -> ComposeResult:
        yield from super().compose_buttons()
        yield Button("Escalate  k", id="escalate", variant="error", compact=True)

    def on_mount(self) -> None:
        self.add_class("-danger")
        if self._confirmed:
            self.action_confirm()

    def action_confirm(self) -> None:
        self.send("abort")

    def action_pause(self) -> None:
        if not self._picture.paused:
            self.send("pause")

    def action_escalate(self) -> None:
        if self.escalating:
            self.app.push_screen(EscalateScreen(self._picture))

    def is_what_was_meant(self, followed: Followed) -> bool:
        return followed.verb == "abort"

    def show(self) -> None:
        followed = self.followed
        if followed is not None and followed.verb == "abort" and followed.outcome != "confirmed":
            self.escalating = followed.asked.quiet_s >= ESCALATE_AFTER_S or followed.outcome == "refused"
        if self.refusal is not None and not self._picture.ended:
            # Nobody can be asked: the process still can be signalled, where it is on this host.
            self.escalating = True
        self.escalating = self.escalating and self._may_signal
        super().show()
        self.query_one("#escalate").display = self.escalating
        if self._picture.paused:
            self.query_one("#pause").display = False

    def question(self) -> Text:
        text = Text("The trainer ends its step, saves a checkpoint where it stops, and exits.\n")
        ours = self._picture.manifest.program == PROGRAM
        later = "r brings it back from that checkpoint" if ours else "r shows how to start it again from there"
        text.append(f"{later}.", style="dim")
        if not self._picture.paused:
            text.append(" Paused instead, it waits in memory until p lets it go on.", style="dim")
        if self._picture.liveness.word in _DOUBTFUL:
            text.append(f"\n\n▲ It is {safe(self._picture.liveness.text, 80)}: it may not hear this.", style="bold")
        return text

    def success(self, followed: Followed) -> str:
        if followed.verb == "pause":
            return "The run is paused; p lets it go on."
        if followed.asked.ended:
            return "The run has stopped."
        return f"The run has stopped: {safe(self._picture.liveness.text, 80)}."

    def add_to(self, text: Text, followed: Followed) -> None:
        if self.escalating and followed.outcome == "waiting":
            quiet = duration(followed.asked.quiet_s)
            text.append(f"\n\n▲ No progress for {quiet}. k signals the process instead.", style="bold")


class EscalateScreen(Dialog[None]):
    """The second dialog: SIGTERM, and only after it SIGKILL."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "terminate", "SIGTERM", tooltip="Ask the system to end the process; it can still save"),
        Binding("K", "kill", "SIGKILL", tooltip="End the process at once; what is not saved is lost"),
    ]

    def __init__(self, picture: RunPicture) -> None:
        super().__init__("Signal the process")
        self._picture = picture
        self._said: list[str] = []
        self._terminated = False

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("SIGTERM  t", id="terminate", variant="warning", compact=True)
        yield Button("SIGKILL  K", id="kill", variant="error", compact=True)

    def on_mount(self) -> None:
        self.add_class("-danger")
        self.query_one("#cancel", Button).focus()
        self.set_interval(1.0, self._show)
        self._show()

    def action_terminate(self) -> None:
        self._send(signal.SIGTERM)

    def action_kill(self) -> None:
        if self._terminated:
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        try:
            self._said.append(f"✓ {send_signal(self._picture.manifest, number)}")
            self._terminated = True
        except Refused as error:
            self._said.append(f"✖ {safe(error, 300)}")
        self._show()

    def _show(self) -> None:
        self.query_one("#kill").display = self._terminated and not self._picture.ended
        self.query_one("#terminate").display = not self._picture.ended
        sessions = self._picture.manifest.sessions
        who = f"process {sessions[-1].pid} on {safe(sessions[-1].host, 60)}" if sessions else "no known process"
        text = Text(f"{who}\n")
        text.append("SIGTERM lets the trainer save what it can. SIGKILL loses all since its last checkpoint.\n", "dim")
        for said in self._said:
            text.append(f"\n{said}")
        text.append(f"\n{self._picture.liveness.glyph} {safe(self._picture.liveness.text, 80)}", style="bold")
        self.say(text)
