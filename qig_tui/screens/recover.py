"""Bring a dead run back: the checkpoints as a child process verified them, the exact command, and the proof."""

import subprocess
from collections.abc import Callable, MutableMapping
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Button

from qig_core.errors import ExitCode, Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import Relaunch, console_tail, relaunch, restored_as, start
from qig_tui.checkpoints.rows import Checked
from qig_tui.picture import RunPicture
from qig_tui.screens.checkpoint_dialog import CheckpointDialog
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import duration, grouped, pad, safe

_LOOK_S = 0.25
Starter = Callable[[RunDir, Relaunch], "subprocess.Popen[bytes]"]


class RecoverScreen(CheckpointDialog):
    """Choose, confirm, follow. Dismissed with whether the run was confirmed to go on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "start", tooltip="Start the command that is shown"),
    ]

    def __init__(
        self,
        picture: RunPicture,
        run: RunDir,
        *,
        chosen: str | None = None,
        checked: MutableMapping[str, Checked] | None = None,
        starter: Starter = start,
    ) -> None:
        super().__init__(f"Recover {picture.name}", picture, run, chosen, checked)
        self._start = starter
        self._sessions_before = {s.id for s in picture.manifest.sessions}
        self._following: CheckpointEntry | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[tuple[str, str, str]] = []
        self._said: list[str] = []
        self._waited_s = 0.0
        self.recovered: bool | None = None

    @property
    def is_busy(self) -> bool:
        return self._process is not None

    def _plan(self, entry: CheckpointEntry) -> Relaunch:
        return relaunch(self._run, self._picture.manifest, entry.name)

    def obstacle(self, entry: CheckpointEntry) -> str | None:
        damage = self.damage(entry)
        if damage is not None:
            return damage
        plan = self._plan(entry)
        total = self._picture.manifest.total_steps
        if plan.ours and total is not None and entry.step is not None and entry.step >= total:
            return (
                f"nothing is left to do: the run's total is {grouped(total)} steps; choose an earlier checkpoint, "
                "or start the command yourself with a larger total: --steps"
            )
        return plan.refusal

    def act(self, entry: CheckpointEntry) -> None:
        try:
            self._process = self._start(self._run, self._plan(entry))
        except Refused as error:
            self._log.append(("✖", "not started", safe(error, 300)))
            self.show()
            return
        self._log.append(("✓", "started", f"process {self._process.pid}"))
        self._following = entry
        self.query_one("#cancel", Button).label = "Close  esc"
        self.set_interval(_LOOK_S, self._follow)
        self.show()

    def action_cancel(self) -> None:
        self._wanted = None
        self.dismiss(bool(self.recovered))

    def _follow(self) -> None:
        """Success is a session of the process that was started here, and that it says from which checkpoint it goes on.

        Another dashboard may have started another process at the same time: only one of them gets the run.
        """
        if self.recovered is not None or self._process is None or self._following is None:
            return
        self._waited_s += _LOOK_S
        beat = self._picture.heartbeat
        if beat is not None and beat.session not in self._sessions_before and beat.pid == self._process.pid:
            if not any(name == "session" for _, name, _ in self._log):
                self._log.append(("✓", "session", f"{safe(beat.session, 20)} beats"))
            event = restored_as(list(self._picture.journal.restored), beat.session, self._following.name)
            if event is not None:
                fingerprint = safe(event.data.get("fingerprint"))[:12]
                step = "" if event.step is None else f" at step {grouped(event.step)}"
                self._log.append(
                    ("✓", "restored", f"{safe(self._following.name, 60)}{step}, fingerprint {fingerprint}")
                )
                self.recovered = True
        if self.recovered is None and (code := self._process.poll()) is not None:
            self.recovered = False
            if code == ExitCode.LOCKED:
                self._log.append(("✖", "ended", "another process took the run first"))
            else:
                self._log.append(("✖", "ended", f"exit code {code}; the last lines of console.log:"))
                self._said = console_tail(self._run)
        self.show()

    def show(self) -> None:
        entry = self.chosen
        confirm = self.query_one("#confirm", Button)
        confirm.display = False
        text = Text()
        if entry is None:
            text.append(self.nothing_to_choose())
        else:
            plan = self._plan(entry)
            confirm.display = plan.ours and self._process is None
            if not plan.ours:
                text.append("Its command as it was recorded, without the interpreter in front of it", style="dim")
                text.append(f", in {safe(self._picture.manifest.cwd or '?', 200)}:\n", style="dim")
            text.append("$ ", style="dim")
            text.append(plan.shown or "no command was recorded")
            if self._process is None:
                if self.obstacle(entry) is None:
                    text.append("\n\nIt runs in a session of its own; its output goes to console.log.", style="dim")
                self.add_what_is_next(text, entry)
        for glyph, name, detail in self._log:
            text.append(f"\n{glyph} {pad(name, 11)}", style="bold")
            text.append(f" {detail}")
        if self._process is not None and self.recovered is None:
            text.append(f"\n○ {pad('waiting', 11)} {duration(self._waited_s)}", style="dim")
        if self.recovered is True:
            text.append("\n\nThe run goes on.", style="bold")
        for line in self._said:
            text.append(f"\n  {line}", style="dim")
        self.say(text)
