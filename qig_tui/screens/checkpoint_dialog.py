"""Choose a checkpoint: all of them, as a child process verified them. What is done with it, a subclass says."""

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import Button, DataTable, Static

from qig_core.rundir.layout import RunDir
from qig_tui.actions import child, verify_argv
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import ABSENT, clock, grouped, number, safe

_CHECKING = "… checking"
_STATUS_CELLS = len("✖ HASH-MISMATCH")


class CheckpointDialog(Dialog[bool]):
    """What was confirmed before it was verified waits, and is done if the checkpoint is whole."""

    DOES = "starts it"
    """What the confirming key does, after "enter or y"."""
    WAITS = "starts if the checkpoint is whole"
    NOT_DONE = "not started"
    CONFIRM = "Start  y"
    """The confirming button."""

    def __init__(self, title: str, picture: RunPicture, run: RunDir) -> None:
        super().__init__(title)
        self._picture = picture
        self._run = run
        self._entries = list(picture.checkpoints)
        self._left = picture.went_back
        self._wanted: str | None = None
        """The checkpoint to go on from as soon as it is found to be whole."""
        self._verifying = False
        self.status: dict[str, str] = {}
        """Checkpoint name to what the verification said."""
        self._problems: dict[str, str] = {}

    @property
    def is_busy(self) -> bool:
        """Whether the choice is made."""
        raise NotImplementedError

    def obstacle(self, entry: CheckpointEntry) -> str | None:
        """Why it is not to be done with this checkpoint, whatever may still be found out; a sentence."""
        raise NotImplementedError

    def act(self, entry: CheckpointEntry) -> None:
        """Do it: nothing stands against it."""
        raise NotImplementedError

    def show(self) -> None:
        """Say what would be done, is being done or was done."""
        raise NotImplementedError

    def compose_body(self) -> ComposeResult:
        yield Static(Text(""), id="verification")
        yield DataTable[Text](id="table", cursor_type="row")
        yield Static(Text(""), id="text")

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button(self.CONFIRM, id="confirm", variant="success", compact=True)

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
        self.show()

    @property
    def chosen(self) -> CheckpointEntry | None:
        table = self.query_one(DataTable)
        return self._entries[table.cursor_row] if 0 <= table.cursor_row < len(self._entries) else None

    def _tags(self, entry: CheckpointEntry) -> Text:
        tagged = [tag for tag, found in self._picture.tagged.items() if found.name == entry.name]
        if entry.name in self._left:
            # First: what does not fit is cut on the right.
            event = self._left[entry.name]
            how = "the resume at" if event.data.get("how", "resume") == "resume" else "going back to"
            tagged.insert(0, f"before {how} {grouped(event.step or 0)}")
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
        self.show()

    def _start_wanted(self) -> None:
        """What was confirmed before it was verified starts now if it is whole, and else is said not to."""
        name, self._wanted = self._wanted, None
        if name is None:
            return
        if self.status.get(name) == "COMPLETE":
            self.action_confirm()
        else:
            self._warn(f"{self.NOT_DONE}: {safe(name, 60)} is {self.status.get(name, 'unverified')}")

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
        self.show()

    @on(DataTable.RowSelected)
    def ask_for_confirmation(self) -> None:
        """To the button, where the same key starts; or the word why there is none."""
        if self._confirmable() is not None:
            self.query_one("#confirm", Button).focus()
            self.show()

    def _confirmable(self) -> CheckpointEntry | None:
        """The one under the cursor, where it may be confirmed; else says why not."""
        entry = self.chosen
        if entry is None or self.is_busy:
            return None
        obstacle = self.obstacle(entry)
        if obstacle is not None:
            self._warn(obstacle)
            return None
        return entry

    def on_descendant_blur(self) -> None:
        if self.is_current:
            self.show()

    def damage(self, entry: CheckpointEntry) -> str | None:
        """What was found wrong with a checkpoint."""
        status = self.status.get(entry.name, "unverified")
        if entry.problem and entry.name not in self.status:
            return f"the checkpoint is {safe(entry.problem, 200)}"
        if status not in ("COMPLETE", "unverified"):
            problem = self._problems.get(entry.name)
            return f"the checkpoint is {status}" + (f": {problem}" if problem else "")
        return None

    def action_confirm(self) -> None:
        entry = self._confirmable()
        if entry is None:
            return
        if self._verifying:
            self._wanted = entry.name
            self.show()
        else:
            self.act(entry)

    def add_what_is_next(self, text: Text, entry: CheckpointEntry) -> None:
        """What stands against it, or what the next key does where one was pressed already."""
        obstacle = self.obstacle(entry)
        confirm = self.query_one("#confirm", Button)
        confirm.disabled = obstacle is not None
        if obstacle is not None:
            text.append(f"\n\n○ {obstacle}", style="bold")
        elif self._wanted is not None:
            text.append(f"\n● It waits for the verification and {self.WAITS}; esc to leave it.", style="bold")
        elif confirm.has_focus:
            when = " once it is verified" if self._verifying else ""
            text.append(f"\n● enter or y {self.DOES}{when}; esc to leave it.", style="bold")
        elif self._verifying:
            text.append("\n○ It is still being verified.", style="bold")

    def nothing_to_choose(self) -> str:
        problem = self._picture.checkpoints_problem
        return "This run has no checkpoint to go on from." if problem is None else f"✖ {safe(problem, 200)}"


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
