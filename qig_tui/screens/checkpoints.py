"""Every checkpoint of a run: whether it is whole, what it was worth, why it stays, and the way back to it."""

import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.worker import Worker

from qig_core.rundir.schema import PINNED
from qig_tui.checkpoints.columns import Order, next_key
from qig_tui.checkpoints.desk import Desk
from qig_tui.checkpoints.facts import sections
from qig_tui.checkpoints.rows import COMPLETE, Row, gone_since, rows_of, rule_of, rule_words, total_size
from qig_tui.picture import RunPicture
from qig_tui.screens.commands import READ_ONLY
from qig_tui.screens.pane import Pane
from qig_tui.screens.watch import Watch
from qig_tui.text import grouped, safe, size
from qig_tui.widgets.checkpoint_facts import CheckpointFacts, Heading
from qig_tui.widgets.checkpoint_table import CheckpointTable
from qig_tui.widgets.lines import Part
from qig_tui.widgets.runs_table import BarLine


class CheckpointsScreen(Pane):
    """Args: chosen: the name of the checkpoint that the cursor is to stand on."""

    CSS_PATH = "checkpoints.tcss"
    NUMBER = "4"
    AUTO_FOCUS = "#checkpoint-table"
    OFFERED = ("v", "V", "enter", "m", "d", "i", "x", "o", "T")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "details", tooltip="Everything that is known of the checkpoint under the cursor"),
        Binding("v", "verify", "verify", tooltip="Read every byte of the checkpoint under the cursor; again stops it"),
        Binding("V", "verify_all", "verify all", tooltip="Read every byte of every checkpoint; again stops it"),
        Binding("m", "mark", "mark", tooltip="Mark the checkpoint, or unmark it; two at most. space does too, but now"),
        Binding("space", "mark_or_replay", "mark", show=False, tooltip="Mark the checkpoint; in the past: replay"),
        Binding("u", "unmark", "unmark", show=False, tooltip="Unmark both"),
        Binding("d", "diff", "diff", tooltip="In what the two marked ones differ, or the marked one and this one"),
        Binding("i", "pin", "pin", tooltip="Keep the checkpoint whatever the rule says, or let the rule decide again"),
        Binding("T", "tag", "tag", tooltip="Give the checkpoint a tag, a name to find it by, or take it away"),
        Binding("x", "prune", "prune", tooltip="What would be deleted, and why; then, if confirmed, delete it"),
        Binding("o", "sort_next", "sort", tooltip="Sort by the next column; a click on its header does too"),
        Binding("O", "turn_round", "reverse", tooltip="Turn the order round"),
    ]

    def __init__(self, watch: Watch, *, chosen: str | None = None) -> None:
        super().__init__(watch)
        self._chosen = chosen
        self._order = Order.of(watch.memory.chosen.checkpoints_sort)
        self._known: tuple[object, ...] = ()
        """From what the rows were made last."""
        self._rows: list[Row] = []
        """Newest-published first."""
        self._arranged: list[Row] = []
        self._facts: tuple[object, ...] = ()
        self._version = -1
        """Of the desk, as it was drawn last."""

    @property
    def desk(self) -> Desk:
        return self.run_watch.desk

    def compose_body(self) -> ComposeResult:
        with Vertical(id="shelf"):
            yield Heading(id="checkpoint-heading")
            yield CheckpointTable(id="checkpoint-table")
            yield Heading(id="checkpoint-rule")
            yield CheckpointFacts(id="checkpoint-facts")
        yield BarLine(id="checkpoint-activity")

    def on_mount(self) -> None:
        self.desk.changed = self._desk_changed
        if self._chosen is not None:
            self.query_one(CheckpointTable).choose(self._chosen)

    def on_unmount(self) -> None:
        if self.desk.changed == self._desk_changed:
            self.desk.leave()

    def _desk_changed(self) -> None:
        if not self.is_running or not self.display:
            return
        if self.desk.version != self._version:
            self.draw_body(slow=True, fresh=False)
        else:
            self._draw_activity()

    def draw_body(self, *, slow: bool, fresh: bool) -> None:
        shown, self._version = self.shown, self.desk.version
        if self._gather(shown) or slow:
            self._draw_table(shown)
            self._draw_activity()

    def _gather(self, shown: RunPicture) -> bool:
        """The rows, where what they are made of has changed; whether it has."""
        known = (shown.checkpoints, shown.manifest, len(shown.journal.restored), self.desk.version, self._order)
        if len(known) == len(self._known) and all(a is b or a == b for a, b in zip(known, self._known, strict=True)):
            return False
        self._known = known
        self._rows = rows_of(shown, self.run_dir.id, self.desk.checked)
        self.desk.keep_only([entry.name for entry in self.picture.checkpoints])
        higher = not rule_of(shown.manifest).keep.lower_is_better
        self._order = Order(self._order.key, self._order.turned, higher)
        self._arranged = self._order.sort(self._rows)
        return True

    def _draw_table(self, shown: RunPicture) -> None:
        score = rule_of(shown.manifest).keep.score
        self.query_one(CheckpointTable).show(
            self._arranged,
            now=self._now(shown),
            marked=self.desk.marked,
            order=self._order,
            score="held-out" if score == "loss_heldout" else safe(score, 8),
            instead=self._sentence(shown),
        )
        self._draw_heading(shown)
        self.query_one("#checkpoint-rule", Heading).show([("dim", rule_words(shown))])
        self._draw_facts()

    def _now(self, shown: RunPicture) -> float:
        return time.time() if shown.moment is None else shown.moment.t

    def _sentence(self, shown: RunPicture) -> str:
        if shown.checkpoints_problem is not None:
            return f"✖ {safe(shown.checkpoints_problem, 100)}"
        if shown.moment is None:
            word = "yet" if shown.no_checkpoints == "none yet" else "any more"
            return f"no checkpoint {word}; one that is made appears"
        there_were = shown.no_checkpoints != "none yet"
        return "those that there were have been deleted since" if there_were else "there was none yet"

    def _draw_heading(self, shown: RunPicture) -> None:
        rows = self._rows
        damaged = sum(row.status != COMPLETE for row in rows)
        unread = sum(row.checked is None for row in rows)
        left: list[Part] = [("strong", "CHECKPOINTS "), ("text", grouped(len(rows)))]
        if rows:
            left.append(("dim", f" · {size(total_size(rows))}"))
        if damaged:
            left.append(("critical", f" · ✖ {grouped(damaged)} damaged"))
        if unread:
            left.append(("dim", f" · ○ {grouped(unread)} not verified"))
        if self.desk.marked:
            left.append(("cursor", f" · ◆ {grouped(len(self.desk.marked))} marked"))
        left += self._not_shown(shown)
        self.query_one("#checkpoint-heading", Heading).show(left, [("dim", self._order.words)])

    def _not_shown(self, shown: RunPicture) -> list[Part]:
        """In the past, what came later and what has gone since."""
        if shown.moment is None:
            return []
        later = len(self.picture.checkpoints) - len(shown.checkpoints)
        gone = gone_since(self.picture.journal.events, shown.moment)
        words = f" · {grouped(later)} later" if later else ""
        return [("cursor", words + (f" · {grouped(gone)} deleted since then" if gone else ""))]

    @on(CheckpointTable.Moved)
    def _draw_facts(self) -> None:
        row, shown = self._row, self.shown
        widget = self.query_one(CheckpointFacts)
        if not widget.display:
            return
        # The distance to the basin is worked out anew only where one of both is another one.
        known = (row, shown.history.step, shown.cursor, int(self._now(shown)))
        if known != self._facts:
            self._facts = known
            widget.show([] if row is None else sections(row, shown, self._now(shown)))

    def _draw_activity(self) -> None:
        desk = self.desk
        parts: Sequence[Part] = desk.said
        if desk.progress is not None:
            parts = [
                ("accent", f"● {desk.progress.words}"),
                ("dim", "   esc stops it; it goes on behind other screens"),
            ]
        elif not parts and (row := self._row) is not None and row.problem:
            parts = [("critical", f"✖ {safe(row.problem, 300)}")]
        self.query_one("#checkpoint-activity", BarLine).show(parts)

    @property
    def _row(self) -> Row | None:
        return self.query_one(CheckpointTable).current

    def _behind(self, work: Callable[[], Coroutine[None, None, None]], group: str) -> None:
        """In a worker that goes on when this screen is left."""
        below = next(s for s in self.app.screen_stack if isinstance(s, Pane) and s.run_watch is self.run_watch)
        worker: Worker[None] = below.run_worker(work, group=group, exclusive=group == "verify")
        if group == "verify":
            self.desk.stop = worker.cancel

    def _verify(self, name: str | None) -> None:
        if self.desk.is_verifying:
            self.desk.stop_verifying()
        elif self.picture.checkpoints:
            self._behind(partial(self._verified, name), "verify")

    async def _verified(self, name: str | None) -> None:
        """Verify, and tell of it where nobody looks at this screen any more."""
        desk, watch = self.desk, self.run_watch
        await desk.verify(self.picture, name)
        if not desk.is_watched:
            watch.tell("".join(words for _, words in desk.said), title="checkpoints", severity="information")

    def action_verify(self) -> None:
        if (row := self._row) is not None:
            self._verify(row.name)

    def action_verify_all(self) -> None:
        self._verify(None)

    def action_mark(self) -> None:
        if (row := self._row) is not None:
            self.desk.mark(row.name)
            self.query_one(CheckpointTable).action_cursor_move(1)

    def action_unmark(self) -> None:
        self.desk.unmark()

    def action_mark_or_replay(self) -> None:
        if self.run_watch.past is not None:
            self.action_freeze()
        else:
            self.action_mark()

    def action_diff(self) -> None:
        marked, row = self.desk.marked, self._row
        names = marked if len(marked) == 2 or row is None else [*marked, row.name]
        if len(set(names)) < 2:
            self.desk.say(("warning", "▲ mark one with space, then d compares it with the one under the cursor"))
            return
        from qig_tui.screens.diff import DiffScreen

        # The earlier one first: what is said of B is what came later.
        order = [row.name for row in reversed(self._rows) if row.name in names]
        self.app.push_screen(DiffScreen(self.picture, self.run_dir, *(order if len(order) == 2 else names)))

    def action_pin(self) -> None:
        if (row := self._row) is not None and self._may_change():
            self._change_tag(row, PINNED)

    def _change_tag(self, row: Row, tag: str) -> None:
        remove = tag in row.entry.tags
        self._behind(partial(self.desk.tag, self.picture, row.name, tag, remove=remove), "tag")

    @work
    async def action_tag(self) -> None:
        row = self._row
        if row is None or not self._may_change():
            return
        from qig_tui.screens.tag import TagScreen

        tag = await self.app.push_screen_wait(TagScreen(row.name, row.entry.tags))
        if tag:
            self._change_tag(row, tag)

    def action_prune(self) -> None:
        if not self._may_change():
            return
        from qig_tui.screens.prune import PruneScreen

        damaged = {name: found.status for name, found in self.desk.checked.items() if not found.is_whole}
        self.app.push_screen(PruneScreen(self.picture, self.run_dir, damaged))

    @on(CheckpointTable.Opened)
    def action_details(self) -> None:
        if (row := self._row) is None:
            return
        from qig_tui.screens.checkpoint import CheckpointScreen

        self.app.push_screen(CheckpointScreen(row.name, sections(row, self.shown, self._now(self.shown), digits=64)))

    def action_ask(self, what: str) -> None:
        """As everywhere; only that a recovery begins with the checkpoint under the cursor."""
        setup, row = self.run_watch.setup, self._row
        if what != "recover" or row is None or setup.read_only or (setup.web and self.picture.ended):
            super().action_ask(what)
            return
        from qig_tui.screens.recover import RecoverScreen
        from qig_tui.screens.restore import RestoreScreen

        kind = RecoverScreen if self.picture.ended else RestoreScreen
        self.app.push_screen(kind(self.picture, self.run_dir, chosen=row.name, checked=self.desk.checked))

    def _may_change(self) -> bool:
        if self.run_watch.setup.read_only:
            self.run_watch.tell(READ_ONLY)
            return False
        return True

    @on(CheckpointTable.SortAsked)
    def sort_by_header(self, event: CheckpointTable.SortAsked) -> None:
        event.stop()
        same = event.key == self._order.key
        self._sort(event.key, turned=same and not self._order.turned)

    def action_sort_next(self) -> None:
        self._sort(next_key(self._order, self.query_one(CheckpointTable).columns), turned=False)

    def action_turn_round(self) -> None:
        self._sort(self._order.key, turned=not self._order.turned)

    def _sort(self, key: str, *, turned: bool) -> None:
        self._order = Order(key, turned, self._order.higher_is_better)
        self.run_watch.memory.change(checkpoints_sort=str(self._order))
        self.draw_body(slow=True, fresh=False)

    def show_checkpoint(self, name: str) -> None:
        """Set the cursor on a checkpoint."""
        self.query_one(CheckpointTable).choose(name)

    def action_back(self) -> None:
        """Stop a verification; else as everywhere."""
        if self.desk.is_verifying:
            self.desk.stop_verifying()
        else:
            super().action_back()
