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
from qig_tui.actions import ESCALATE_AFTER_S, PROGRAM, Asked, ask, send_signal
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.text import duration, pad, pad_left, safe

_LOOK_S = 0.2
_DOUBTFUL = frozenset({Word.SILENT, Word.HUNG})


class AbortScreen(Dialog[bool]):
    """Asks, sends, follows. Dismissed with whether the run was seen to stop."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "stop", tooltip="Stop the run with a checkpoint"),
        Binding("w", "withdraw", "withdraw", tooltip="Take the command back while the trainer has not seen it"),
        Binding("k", "escalate", "escalate", tooltip="Signal the process, once the trainer does not answer"),
    ]

    def __init__(self, picture: RunPicture, run: RunDir, *, confirmed: bool = False) -> None:
        super().__init__(f"Stop {picture.name}")
        self._picture = picture
        self._run = run
        self._confirmed = confirmed
        self._note = ""
        self._refusal: str | None = None
        self.asked: Asked | None = None
        self.escalating = False
        """Whether the trainer has been quiet for so long that a signal is offered."""

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Stop with a checkpoint  y", id="confirm", variant="error", compact=True)
        yield Button("Withdraw  w", id="withdraw", compact=True)
        yield Button("Escalate  k", id="escalate", variant="error", compact=True)

    def on_mount(self) -> None:
        self.add_class("-danger")
        self.query_one("#cancel", Button).focus()
        self.set_interval(_LOOK_S, self._look)
        if self._confirmed:
            self.action_confirm()
        self._show()

    def action_confirm(self) -> None:
        if self.asked is not None or self._refusal is not None:
            return
        try:
            self.asked = ask(self._run, "abort")
        except Refused as error:
            self._refusal = safe(error, 400)
        self._show()

    def action_withdraw(self) -> None:
        if self.asked is None or self.asked.ended or len(self.asked.stages) > 1:
            return
        if self.asked.withdraw():
            self.dismiss(False)
        else:
            self._note = "too late: the trainer has seen it"
            self._show()

    def action_escalate(self) -> None:
        if self.escalating:
            self.app.push_screen(EscalateScreen(self._picture))

    def action_cancel(self) -> None:
        self.dismiss(self.asked is not None and self.asked.ended and self.asked.refused is None)

    def _look(self) -> None:
        if self.asked is not None and not self.asked.ended:
            self.asked.look()
            self.escalating = self.asked.quiet_s >= ESCALATE_AFTER_S or self.asked.refused is not None
            self._show()

    def _show(self) -> None:
        asked = self.asked
        following = asked is not None
        unseen = asked is not None and len(asked.stages) == 1 and not asked.ended
        self.query_one("#confirm").display = not following and self._refusal is None
        self.query_one("#withdraw").display = unseen
        self.query_one("#escalate").display = self.escalating
        self.query_one("#cancel", Button).label = "Close  esc" if following or self._refusal else "Cancel  esc"
        self.say(self._question() if asked is None else self._progress(asked))

    def _question(self) -> Text:
        text = Text()
        if self._refusal is not None:
            text.append("✖ not asked: ", style="bold")
            text.append(self._refusal)
            return text
        text.append("The trainer ends its step, saves a checkpoint where it stops, and exits.\n")
        ours = self._picture.manifest.program == PROGRAM
        later = "r brings it back from that checkpoint" if ours else "r shows how to start it again from there"
        text.append(f"{later}.", style="dim")
        if self._picture.liveness.word in _DOUBTFUL:
            text.append(f"\n\n▲ It is {safe(self._picture.liveness.text, 80)}: it may not hear this.", style="bold")
        return text

    def _progress(self, asked: Asked) -> Text:
        text = Text()
        for i, stage in enumerate(asked.stages):
            last = i == len(asked.stages) - 1
            bad = stage.name == "refused"
            glyph = "✖" if bad else "✓" if not last or asked.ended else "●"
            text.append(f"{glyph} {pad(stage.name, 11)}", style="bold")
            text.append(f"{pad_left(duration(stage.after_s), 7)}  ", style="dim")
            text.append(f"{stage.detail}\n")
        if asked.refused is not None:
            text.append(f"\nThe trainer refused: {asked.refused}", style="bold")
        elif asked.ended:
            text.append("\nThe run has stopped.", style="bold")
        else:
            text.append(f"○ waiting    {pad_left(duration(asked.elapsed_s), 7)}", style="dim")
            if self.escalating:
                quiet = duration(asked.quiet_s)
                text.append(f"\n\n▲ No progress for {quiet}. k signals the process instead.", style="bold")
        for note in (self._note, asked.problem):
            if note:
                text.append(f"\n{note}", style="bold")
        return text


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
