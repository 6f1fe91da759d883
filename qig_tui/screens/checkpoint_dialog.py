"""Choose a checkpoint: all of them, as a child process verified them. What is done with it, a subclass says."""

from collections.abc import MutableMapping, Sequence
from contextlib import aclosing
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import Button, DataTable, Static

from qig_core.rundir.layout import RunDir
from qig_tui.actions import child, verify_argv
from qig_tui.checkpoints.desk import checked_of
from qig_tui.checkpoints.rows import Checked, before_what, dry_run
from qig_tui.picture import RunPicture
from qig_tui.screens.dialog import Dialog
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.text import ABSENT, clock, grouped, number, safe

_CHECKING = "… checking"
_LIST_S = 1.0
_STATUS_CELLS = len("✖ HASH-MISMATCH")


class CheckpointDialog(Dialog[bool]):
    """What was confirmed before it was verified waits, and is done if the checkpoint is whole."""

    DOES = "starts it"
    """What the confirming key does, after "enter or y"."""
    WAITS = "starts if the checkpoint is whole"
    NOT_DONE = "not started"
    CONFIRM = "Start  y"
    """The confirming button."""

    def __init__(
        self,
        title: str,
        picture: RunPicture,
        run: RunDir,
        chosen: str | None = None,
        checked: MutableMapping[str, Checked] | None = None,
    ) -> None:
        """
        Args:
            chosen: the name of the checkpoint that the cursor is to stand on; it is verified before the others.
            checked: where what was found is put down as well, by name.
        """
        super().__init__(title)
        self._first = chosen
        self._checked: MutableMapping[str, Checked] = {} if checked is None else checked
        self._picture = picture
        self._run = run
        self._entries = list(picture.checkpoints)
        self._left = picture.went_back
        self._wanted: str | None = None
        """The checkpoint to go on from as soon as it is found to be whole."""
        self._verifying = False
        self._has_place = False
        """Whether the cursor stands where it was put: nothing found out moves it any more."""
        self.status: dict[str, str] = {}
        """Checkpoint name to what the verification said."""
        self._found: dict[str, Checked] = {}
        """The same with all that it said."""

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
        self._fill()
        if self._first not in [entry.name for entry in self._entries]:
            self._first = None
        self._has_place = self._first is not None
        self.set_interval(_LIST_S, self._look_at_list)
        if self._entries:
            table.focus()
            self._start_verifying([None] if self._first is None else [self._first, None])
        self.show()

    def _fill(self) -> None:
        """Every checkpoint as a row; the cursor stays where it is, or goes to the one that was chosen before."""
        table = self.query_one(DataTable)
        stays = self._first if not table.row_count or self.chosen is None else self.chosen.name
        self._entries, self._left = list(self._picture.checkpoints), self._picture.went_back
        table.clear()
        for entry in self._entries:
            table.add_row(*_row(entry, left=entry.name in self._left), self._tags(entry), key=entry.name)
            if entry.name in self.status:
                self._show_status(entry.name)
        table.display = bool(self._entries)
        at = next((row for row, entry in enumerate(self._entries) if entry.name == stays), 0)
        table.move_cursor(row=at)

    def _look_at_list(self) -> None:
        """Those that were made since, or are gone; nothing moves while something is under way."""
        known = [entry.name for entry in self._entries]
        there = [entry.name for entry in self._picture.checkpoints]
        if self._verifying or self.is_busy or known == there:
            return
        self._fill()
        new = [name for name in there if name not in self.status]
        if new:
            self._start_verifying(new)
        self.show()

    def _start_verifying(self, names: Sequence[str | None]) -> None:
        self._verifying = True
        self._verify(names)

    @property
    def chosen(self) -> CheckpointEntry | None:
        table = self.query_one(DataTable)
        return self._entries[table.cursor_row] if 0 <= table.cursor_row < len(self._entries) else None

    def _tags(self, entry: CheckpointEntry) -> Text:
        tagged = [tag for tag, found in self._picture.tagged.items() if found.name == entry.name]
        if entry.name in self._left:
            # First: what does not fit is cut on the right.
            tagged.insert(0, before_what(self._left[entry.name]))
        return Text(safe(", ".join([*tagged, *entry.tags]), 40))

    @work(exclusive=True, group="verify")
    async def _verify(self, names: Sequence[str | None]) -> None:
        """One after the other; None: all of them."""
        try:
            for name in names:
                argv = verify_argv(self._run) if name is None else verify_argv(self._run, name)
                async with aclosing(child(argv)) as reports:
                    async for found in reports:
                        self._take(found)
                self._start_wanted()
        finally:
            self._verifying = False
            if self.is_mounted and self.is_busy:
                self.query_one("#verification", Static).update(Text(""))
        self._start_wanted()
        self.show()

    def _take(self, found: dict[str, Any]) -> None:
        """One line of what the child says."""
        note = self.query_one("#verification", Static)
        if isinstance(found.get("progress"), dict):
            at = found["progress"]
            note.update(Text(f"verifying {at.get('number', '?')} of {at.get('of', '?')}", style="dim"))
        elif isinstance(found.get("result"), list):
            for row in found["result"]:
                self._take_status(row)
            damaged = sum(s != "COMPLETE" for s in self.status.values())
            words = f"; ✖ {grouped(damaged)} of {grouped(len(self.status))} damaged" if damaged else ""
            note.update(Text.assemble(("verified: sizes, digests, finiteness", "dim"), (words, "bold")))
            self._picture.verified({name: one.problem for name, one in self._found.items()})
            for entry in self._entries:
                self.query_one(DataTable).update_cell(entry.name, "tags", self._tags(entry))
            self._prefer_complete()
            self.show()
        elif "error" in found:
            note.update(Text(f"▲ not verified: {safe(found['error'], 200)}", style="bold"))
            for entry in self._entries:
                self.status.setdefault(entry.name, "unverified")
                self._show_status(entry.name)

    def _start_wanted(self) -> None:
        """What was confirmed before it was verified starts now if it is whole, and else is said not to."""
        name = self._wanted
        if name is None or (self._verifying and name not in self.status):
            return
        self._wanted = None
        if self.status.get(name) == "COMPLETE":
            self.action_confirm()
        else:
            self._warn(f"{self.NOT_DONE}: {safe(name, 60)} is {self.status.get(name, 'unverified')}")

    def _warn(self, words: str) -> None:
        self.notify(words, severity="warning", markup=False)

    def _take_status(self, row: object) -> None:
        known = checked_of(row)
        if known is None:
            return
        name, found = known
        self.status[name], self._found[name], self._checked[name] = found.status, found, found
        self._show_status(name)

    def _show_status(self, name: str) -> None:
        table, status = self.query_one(DataTable), self.status[name]
        if name in table.rows:
            glyph = {"COMPLETE": "✓", "unverified": "○"}.get(status, "✖")
            table.update_cell(name, "status", Text(f"{glyph} {status}", style="bold" if glyph == "✖" else ""))

    def _prefer_complete(self) -> None:
        """From the newest to the newest that is whole, unless somebody went elsewhere meanwhile."""
        table = self.query_one(DataTable)
        if self._has_place:
            return
        self._has_place = True
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
            found = self._found.get(entry.name)
            return f"the checkpoint is {status if found is None else safe(found.problem, 220)}"
        return None

    def action_confirm(self) -> None:
        entry = self._confirmable()
        if entry is None:
            return
        if self._is_awaited(entry):
            self._wanted = entry.name
            self.show()
        else:
            self.act(entry)
            if self.is_busy and self._verifying:
                # The choice is made: what the others are like is not to hold it up.
                self.workers.cancel_group(self, "verify")

    def _is_awaited(self, entry: CheckpointEntry) -> bool:
        """Whether it is still to be found out how it is."""
        return self._verifying and entry.name not in self.status

    def add_what_is_next(self, text: Text, entry: CheckpointEntry) -> None:
        """What stands against it, or what the next key does where one was pressed already."""
        found = self._found.get(entry.name)
        if found is not None:
            text.append("\ndry run", style="dim")
            for i, (glyph, words) in enumerate(dry_run(entry, found)):
                text.append("  " if i == 0 else " · ", style="dim")
                text.append(f"{glyph} {words}", style="" if glyph == "✓" else "bold")
        obstacle = self.obstacle(entry)
        confirm = self.query_one("#confirm", Button)
        confirm.disabled = obstacle is not None
        if obstacle is not None:
            text.append(f"\n\n○ {obstacle}", style="bold")
        elif self._wanted is not None:
            text.append(f"\n● It waits for the verification and {self.WAITS}; esc to leave it.", style="bold")
        elif confirm.has_focus:
            when = " once it is verified" if self._is_awaited(entry) else ""
            text.append(f"\n● enter or y {self.DOES}{when}; esc to leave it.", style="bold")
        elif self._is_awaited(entry):
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
