"""Bring a dead run back: the checkpoints as a child process verified them, the exact command, and the proof."""

import subprocess
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Button, DataTable, Static

from qig_core.errors import ExitCode, Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import Relaunch, child, console_tail, relaunch, restored_as, start, verify_argv
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import ABSENT, clock, duration, grouped, number, pad, safe

_LOOK_S = 0.25
_CHECKING = "… checking"
_STATUS_CELLS = len("✖ HASH-MISMATCH")
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
        self._left = picture.went_back
        self._sessions_before = {s.id for s in picture.manifest.sessions}
        self._following: CheckpointEntry | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[tuple[str, str, str]] = []
        self._said: list[str] = []
        self._wanted: str | None = None
        """The checkpoint to start from as soon as it is found to be whole."""
        self._verifying = False
        self._waited_s = 0.0
        self.status: dict[str, str] = {}
        """Checkpoint name to what the verification said."""
        self._problems: dict[str, str] = {}
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
            # What does not fit is cut on the right, never the status.
            table.add_column(Text(label), key=label, width=_STATUS_CELLS if label == "status" else None)
        for entry in self._entries:
            table.add_row(*_row(entry, left=entry.name in self._left), self._tags(entry), key=entry.name)
        if self._entries:
            table.focus()
            self._verifying = True
            self._verify()
        else:
            table.display = False
        self._show()

    @property
    def chosen(self) -> CheckpointEntry | None:
        table = self.query_one(DataTable)
        return self._entries[table.cursor_row] if 0 <= table.cursor_row < len(self._entries) else None

    def _tags(self, entry: CheckpointEntry) -> Text:
        tagged = [tag for tag, found in self._picture.tagged.items() if found.name == entry.name]
        if entry.name in self._left:
            # First: what does not fit is cut on the right.
            tagged.insert(0, f"before the resume at {grouped(self._left[entry.name])}")
        return Text(safe(", ".join([*tagged, *entry.tags]), 40))

    @work(exclusive=True, group="verify")
    async def _verify(self) -> None:
        note = self.query_one("#verification", Static)
        async for found in child(verify_argv(self._run)):
            if "progress" in found and isinstance(found["progress"], dict):
                at = found["progress"]
                note.update(Text(f"verifying {at.get('number', '?')} of {at.get('of', '?')}", style="dim"))
            elif "result" in found and isinstance(found["result"], list):
                for row in found["result"]:
                    self._take_status(row)
                damaged = sum(s != "COMPLETE" for s in self.status.values())
                words = f"; ✖ {grouped(damaged)} of {grouped(len(self.status))} damaged" if damaged else ""
                note.update(Text.assemble(("verified: sizes, digests, finiteness", "dim"), (words, "bold")))
                self._picture.verified({name: "" if s == "COMPLETE" else s for name, s in self.status.items()})
                for entry in self._entries:
                    self.query_one(DataTable).update_cell(entry.name, "tags", self._tags(entry))
                self._prefer_complete()
            elif "error" in found:
                note.update(Text(f"▲ not verified: {safe(found['error'], 200)}", style="bold"))
                for entry in self._entries:
                    self._take_status({"name": entry.name, "status": "unverified"})
        self._verifying = False
        self._start_wanted()
        self._show()

    def _start_wanted(self) -> None:
        """What was confirmed before it was verified starts now if it is whole, and else is said not to."""
        name, self._wanted = self._wanted, None
        if name is None:
            return
        if self.status.get(name) == "COMPLETE":
            self.action_confirm()
        else:
            self._warn(f"not started: {safe(name, 60)} is {self.status.get(name, 'unverified')}")

    def _warn(self, words: str) -> None:
        self.notify(words, severity="warning", markup=False)

    def _take_status(self, row: object) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            return
        name, status = row["name"], safe(row.get("status", "?"), 24)
        self.status[name] = status
        problems = row.get("problems")
        self._problems[name] = safe(problems[0], 200) if isinstance(problems, list) and problems else ""
        table = self.query_one(DataTable)
        if name in table.rows:
            glyph = {"COMPLETE": "✓", "unverified": "○"}.get(status, "✖")
            table.update_cell(name, "status", Text(f"{glyph} {status}", style="bold" if glyph == "✖" else ""))

    def _prefer_complete(self) -> None:
        """From the newest to the newest that is whole, unless somebody went elsewhere meanwhile."""
        table = self.query_one(DataTable)
        whole = (row for row, entry in enumerate(self._entries) if self.status.get(entry.name) == "COMPLETE")
        if table.cursor_row == 0 and (row := next(whole, 0)):
            table.move_cursor(row=row)

    @on(DataTable.RowHighlighted)
    def show_command(self) -> None:
        if self.chosen is None or self.chosen.name != self._wanted:
            self._wanted = None
        self._show()

    @on(DataTable.RowSelected)
    def ask_for_confirmation(self) -> None:
        """To the button, where the same key starts; or the word why there is none."""
        entry = self.chosen
        if entry is None or self._process is not None:
            return
        obstacle = self._obstacle(entry, relaunch(self._run, self._picture.manifest, entry.name))
        if obstacle is not None:
            self._warn(obstacle)
            return
        self.query_one("#confirm", Button).focus()
        self._show()

    def on_descendant_blur(self) -> None:
        if self.is_current:
            self._show()

    def _obstacle(self, entry: CheckpointEntry, plan: Relaunch) -> str | None:
        """Why the command is not started, whatever may still be found out."""
        status = self.status.get(entry.name, "unverified")
        if entry.problem and entry.name not in self.status:
            return f"the checkpoint is {safe(entry.problem, 200)}"
        if status not in ("COMPLETE", "unverified"):
            problem = self._problems.get(entry.name)
            return f"the checkpoint is {status}" + (f": {problem}" if problem else "")
        total = self._picture.manifest.total_steps
        if plan.ours and total is not None and entry.step is not None and entry.step >= total:
            return (
                f"nothing is left to do: the run's total is {grouped(total)} steps; choose an earlier checkpoint, "
                "or start the command yourself with a larger total: --steps"
            )
        return plan.refusal

    def action_confirm(self) -> None:
        entry = self.chosen
        if entry is None or self._process is not None:
            return
        plan = relaunch(self._run, self._picture.manifest, entry.name)
        obstacle = self._obstacle(entry, plan)
        if obstacle is not None:
            self._warn(obstacle)
            return
        if self._verifying:
            self._wanted = entry.name
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
        self._show()

    def _show(self) -> None:
        entry = self.chosen
        confirm = self.query_one("#confirm", Button)
        confirm.display = False
        text = Text()
        if entry is None:
            problem = self._picture.checkpoints_problem
            text.append("This run has no checkpoint to go on from." if problem is None else f"✖ {safe(problem, 200)}")
        else:
            plan = relaunch(self._run, self._picture.manifest, entry.name)
            confirm.display = plan.ours and self._process is None
            if not plan.ours:
                text.append("Its command as it was recorded, without the interpreter in front of it", style="dim")
                text.append(f", in {safe(self._picture.manifest.cwd or '?', 200)}:\n", style="dim")
            text.append("$ ", style="dim")
            text.append(plan.shown or "no command was recorded")
            obstacle = self._obstacle(entry, plan)
            confirm.disabled = obstacle is not None
            if self._process is None:
                if obstacle is not None:
                    text.append(f"\n\n○ {obstacle}", style="bold")
                else:
                    text.append("\n\nIt runs in a session of its own; its output goes to console.log.", style="dim")
                    text.append(self._next(confirm), style="bold")
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

    def _next(self, confirm: Button) -> str:
        """What the next key does, where one was pressed already."""
        if self._wanted is not None:
            return "\n● It waits for the verification and starts if the checkpoint is whole; esc to leave it."
        if confirm.has_focus:
            when = " once it is verified" if self._verifying else ""
            return f"\n● enter or y starts it{when}; esc to leave it."
        return "\n○ It is still being verified." if self._verifying else ""


def _row(entry: CheckpointEntry, *, left: bool) -> list[Text]:
    """Args: left: whether the run went back to before it."""
    manifest = entry.manifest
    cells = [
        ABSENT if entry.step is None else grouped(entry.step),
        f"✖ {safe(entry.problem.split()[0].rstrip(':'), 40)}" if entry.problem else _CHECKING,
        clock(entry.t),
        number(None if manifest is None else manifest.metrics.get("phi")),
        number(None if manifest is None else manifest.metrics.get("loss_heldout")),
        "" if manifest is None else safe(manifest.reason, 12),
    ]
    style = "dim" if left else ""
    return [Text(cell, style, justify="right" if i in (0, 3, 4) else "left") for i, cell in enumerate(cells)]
