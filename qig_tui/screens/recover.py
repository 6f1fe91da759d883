"""Bring a dead run back: the checkpoints as a child process verified them, the exact command, and the proof."""

import subprocess
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button, DataTable, Static

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import Relaunch, child, console_tail, relaunch, restored_as, start, verify_argv
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import ABSENT, clock, duration, grouped, number, pad, safe

_LOOK_S = 0.25
_CHECKING = "… checking"
Starter = Callable[[RunDir, Relaunch], "subprocess.Popen[bytes]"]


class RecoverScreen(Dialog[bool]):
    """Choose, confirm, follow. Dismissed with whether the run was confirmed to go on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "start", tooltip="Start the command that is shown"),
    ]

    def __init__(self, picture: RunPicture, run: RunDir, *, starter: Starter = start) -> None:
        super().__init__(f"Recover {picture.name}")
        self._picture = picture
        self._run = run
        self._start = starter
        self._entries = list(picture.checkpoints)
        self._sessions_before = {s.id for s in picture.manifest.sessions}
        self._following: CheckpointEntry | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[tuple[str, str, str]] = []
        self._waited_s = 0.0
        self.status: dict[str, str] = {}
        """Checkpoint name to what the verification said."""
        self.recovered: bool | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(Text(""), id="verification")
        yield DataTable[Text](id="table", cursor_type="row")
        yield Static(Text(""), id="text")

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Start  y", id="confirm", variant="success", compact=True)

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for label in ("step", "status", "written", "Φ", "held-out", "reason", "tags"):
            table.add_column(Text(label), key=label)
        tagged = self._picture.tagged
        for entry in self._entries:
            tags = [tag for tag, found in tagged.items() if found.name == entry.name] + list(entry.tags)
            table.add_row(*_row(entry, tags), key=entry.name)
        if self._entries:
            table.focus()
            self._verify()
        else:
            table.display = False
        self._show()

    @property
    def chosen(self) -> CheckpointEntry | None:
        table = self.query_one(DataTable)
        return self._entries[table.cursor_row] if 0 <= table.cursor_row < len(self._entries) else None

    @work(exclusive=True, group="verify")
    async def _verify(self) -> None:
        note = self.query_one("#verification", Static)
        async for found in child(verify_argv(self._run)):
            if "progress" in found and isinstance(found["progress"], dict):
                at = found["progress"]
                note.update(Text(f"verifying {at.get('number', '?')} of {at.get('of', '?')}", style="dim"))
            elif "result" in found and isinstance(found["result"], list):
                note.update(Text("verified: sizes, digests, finiteness", style="dim"))
                for row in found["result"]:
                    self._take_status(row)
            elif "error" in found:
                note.update(Text(f"▲ not verified: {safe(found['error'], 200)}", style="bold"))
                for entry in self._entries:
                    self.status.setdefault(entry.name, "unverified")
        self._show()

    def _take_status(self, row: object) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            return
        name, status = row["name"], safe(row.get("status", "?"), 24)
        self.status[name] = status
        table = self.query_one(DataTable)
        if name in table.rows:
            problems = row.get("problems")
            first = f" {safe(problems[0], 60)}" if isinstance(problems, list) and problems else ""
            good = status == "COMPLETE"
            table.update_cell(
                name, "status", Text(f"{'✓' if good else '✖'} {status}{first}", style="" if good else "bold")
            )

    @on(DataTable.RowHighlighted)
    def show_command(self) -> None:
        self._show()

    @on(DataTable.RowSelected)
    def ask_for_confirmation(self) -> None:
        self.query_one("#confirm", Button).focus()

    def _obstacle(self, entry: CheckpointEntry, plan: Relaunch) -> str | None:
        status = self.status.get(entry.name)
        if status is None:
            return "the checkpoint is still being verified"
        if status not in ("COMPLETE", "unverified"):
            return f"the checkpoint is {status}"
        return plan.refusal

    def action_confirm(self) -> None:
        entry = self.chosen
        if entry is None or self._process is not None:
            return
        plan = relaunch(self._run, self._picture.manifest, entry.name)
        if self._obstacle(entry, plan) is not None:
            self._show()
            return
        try:
            self._process = self._start(self._run, plan)
        except Refused as error:
            self._log.append(("✖", "not started", safe(error, 300)))
            self._show()
            return
        self._log.append(("✓", "started", f"process {self._process.pid}"))
        self._following = entry
        self.query_one("#cancel", Button).label = "Close  esc"
        self.set_interval(_LOOK_S, self._follow)
        self._show()

    def action_cancel(self) -> None:
        self.dismiss(bool(self.recovered))

    def _follow(self) -> None:
        """Success is a new session that beats and says from which checkpoint it goes on."""
        if self.recovered is not None or self._process is None or self._following is None:
            return
        self._waited_s += _LOOK_S
        beat = self._picture.heartbeat
        if beat is not None and beat.session not in self._sessions_before:
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
            self._log.append(("✖", "ended", f"exit code {code}; the last lines of console.log:"))
            self.recovered = False
        self._show()

    def _show(self) -> None:
        entry = self.chosen
        confirm = self.query_one("#confirm", Button)
        confirm.display = self._process is None and entry is not None
        text = Text()
        if entry is None:
            text.append("This run has no checkpoint to go on from.")
        else:
            plan = relaunch(self._run, self._picture.manifest, entry.name)
            text.append("$ ", style="dim")
            text.append(plan.shown or "no command was recorded")
            obstacle = self._obstacle(entry, plan)
            confirm.disabled = obstacle is not None
            if self._process is None:
                if obstacle is not None:
                    text.append(f"\n\n○ {obstacle}", style="bold")
                else:
                    text.append("\n\nIt runs in a session of its own; its output goes to console.log.", style="dim")
        for glyph, name, detail in self._log:
            text.append(f"\n{glyph} {pad(name, 11)}", style="bold")
            text.append(f" {detail}")
        if self._process is not None and self.recovered is None:
            text.append(f"\n○ {pad('waiting', 11)} {duration(self._waited_s)}", style="dim")
        if self.recovered is True:
            text.append("\n\nThe run goes on.", style="bold")
        if self.recovered is False:
            for line in console_tail(self._run):
                text.append(f"\n  {line}", style="dim")
        self.say(text)


def _row(entry: CheckpointEntry, tags: list[str]) -> list[Text]:
    manifest = entry.manifest
    cells = [
        ABSENT if entry.step is None else grouped(entry.step),
        f"✖ {safe(entry.problem, 40)}" if entry.problem else _CHECKING,
        ABSENT if manifest is None else clock(manifest.t),
        number(None if manifest is None else manifest.metrics.get("phi")),
        number(None if manifest is None else manifest.metrics.get("loss_heldout")),
        "" if manifest is None else safe(manifest.reason, 12),
        safe(", ".join(tags), 26),
    ]
    return [Text(cell, justify="right" if i in (0, 3, 4) else "left") for i, cell in enumerate(cells)]
