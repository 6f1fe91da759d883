"""Delete what the rule gives up: the plan first, then the question, then what became of it."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Button

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import child, prune_argv
from qig_tui.checkpoints.plan import PrunePlan, many, plan_of, plan_text
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.asking import LOOK_S
from qig_tui.screens.reading import ReadingDialog
from qig_tui.screens.stages import stages_text
from qig_tui.text import grouped, percent, safe, size


class PruneScreen(ReadingDialog[bool]):
    """A live trainer is asked to delete what the plan names, of a run without one a child process does.

    Dismissed with whether something was deleted. Nothing goes that the plan on the screen did not name.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "delete", tooltip="Delete what the plan names"),
        Binding("n", "change('newest', -1)", "fewer newest", tooltip="Keep one less of the newest, and plan again"),
        Binding("N", "change('newest', 1)", "more newest", tooltip="Keep one more of the newest, and plan again"),
        Binding("b", "change('best', -1)", "fewer best", tooltip="Keep one less of the best, and plan again"),
        Binding("B", "change('best', 1)", "more best", tooltip="Keep one more of the best, and plan again"),
        Binding("w", "withdraw", "withdraw", tooltip="Take the command back while the trainer has not seen it"),
    ]

    def __init__(self, picture: RunPicture, run: RunDir, damaged: Mapping[str, str]) -> None:
        """Args: damaged: by name the status of those that were found damaged; they stay."""
        super().__init__(f"Prune {picture.name}")
        self._damaged = damaged
        self._picture = picture
        self._run = run
        self._over: dict[str, int] = {}
        self._doing = "planning"
        """What is under way; empty: nothing."""
        self._problem = ""
        self._done = ""
        self.plan: PrunePlan | None = None
        """None while none is known, or the one that was is out of date."""
        self.followed: Followed | None = None

    def compose_buttons(self) -> ComposeResult:
        yield Button("Cancel  esc", id="cancel", compact=True)
        yield Button("Delete  y", id="confirm", variant="error", compact=True)
        yield Button("Withdraw  w", id="withdraw", compact=True)

    def on_mount(self) -> None:
        self.add_class("-danger")
        self.set_interval(LOOK_S, self._look)
        self._make_plan()
        self.show()

    @work(exclusive=True, group="prune")
    async def _make_plan(self) -> None:
        self.plan, self._problem, self._doing = None, "", "planning"
        self.show()
        async with aclosing(child(self._argv())) as reports:
            async for found in reports:
                if isinstance(found.get("progress"), dict):
                    self._doing = _progress(found["progress"])
                elif "result" in found:
                    self.plan = plan_of(found["result"], self._damaged)
                    self._problem = "" if self.plan is not None else "no plan: the answer cannot be read"
                elif "error" in found:
                    self._problem = f"no plan: {safe(found['error'], 400)}"
                self.show()
        self._doing = ""
        self.show()

    def _argv(self, only: list[str] | None = None) -> list[str]:
        return prune_argv(self._run, newest=self._over.get("newest"), best=self._over.get("best"), only=only)

    @property
    def _is_decided(self) -> bool:
        return self.followed is not None or bool(self._done) or self._doing == "deleting"

    def action_change(self, which: str, by: int) -> None:
        """Another number of those that stay; planned again."""
        if self.plan is None or self._is_decided:
            return
        known = self.plan.newest if which == "newest" else self.plan.best
        self._over[which] = max(known + by, 1 if which == "newest" else 0)
        self._make_plan()

    def action_confirm(self) -> None:
        if self.plan is None or not self.plan.going or self._is_decided or self._doing:
            return
        names = [row.name for row in self.plan.going]
        if self._picture.ended:
            self._delete(names)
            return
        try:
            self.followed = Followed(self._picture, self._run, "prune", {**self._over, "names": names})
        except Refused as error:
            self._problem = f"not asked: {safe(error, 400)}"
        self.query_one("#cancel", Button).focus()
        self.show()

    @work(exclusive=True, group="prune")
    async def _delete(self, names: list[str]) -> None:
        self._doing = "deleting"
        self.show()
        async with aclosing(child(self._argv(only=names))) as reports:
            async for found in reports:
                result = found.get("result")
                if isinstance(result, dict):
                    self._done = self._counted(result.get("deleted"))
                elif "error" in found:
                    self._problem = f"not done: {safe(found['error'], 400)}"
        self._doing = ""
        self.show()

    def _counted(self, deleted: object, freed: object = None, kept: object = None) -> str:
        """What was deleted, as the one who did it says; what it leaves out is reckoned by the plan."""
        names = {str(name) for name in deleted} if isinstance(deleted, list) else set()
        rows = () if self.plan is None else self.plan.rows
        if not isinstance(freed, int):
            freed = sum(row.size for row in rows if row.name in names)
        if not isinstance(kept, int):
            kept = len(rows) - len(names)
        return f"{many(len(names))} deleted, {size(min(max(freed, 0), 1 << 62))} freed, {grouped(kept)} kept."

    def _look(self) -> None:
        followed = self.followed
        if followed is None or followed.outcome != "waiting":
            return
        followed.look()
        answer = followed.asked.answer
        if answer is not None and answer.stage == "done":
            self._done = self._counted(answer.detail.get("names"), answer.detail.get("size"), answer.detail.get("kept"))
        self.show()

    def action_withdraw(self) -> None:
        if self.followed is not None and self.followed.withdraw():
            self.dismiss(False)

    def action_cancel(self) -> None:
        followed = self.followed
        if followed is not None and followed.withdraw():
            # Nobody would take it back later, and a trainer that wakes in an hour would do it.
            self.notify(followed.words, severity="warning", markup=False)
        if self._doing == "deleting":
            self.notify("it is being deleted; this waits for the end", severity="warning", markup=False)
            return
        self.dismiss(bool(self._done))

    def on_resize(self) -> None:
        self.call_after_refresh(self.show)

    def show(self) -> None:
        followed, plan = self.followed, self.plan
        waiting = followed is not None and followed.outcome == "waiting" and followed.asked.unseen
        self.query_one("#withdraw").display = waiting
        may = plan is not None and bool(plan.going) and not self._is_decided and not self._doing
        self.query_one("#confirm").display = may
        self.query_one("#cancel", Button).label = "Close  esc" if self._is_decided else "Cancel  esc"
        text = Text()
        if followed is not None:
            text.append_text(stages_text(followed))
            text.append("\n")
        elif plan is not None and not self._done:
            width = self.query_one("#dialog", VerticalScroll).scrollable_content_region.width
            if may:
                # First: what is asked stays in sight where the plan is long.
                text.append(f"○ y deletes {many(len(plan.going))}; esc changes nothing.", style="bold")
                if not self._picture.ended:
                    text.append(" The trainer is asked: it keeps those as well that it would go back to.", style="dim")
                text.append("\n")
            text.append_text(plan_text(plan, max(width - 1, 40)))
            text.append("\nn N  fewer, more of the newest    b B  fewer, more of the best\n", style="dim")
        if self._doing:
            text.append(f"● {self._doing}\n", style="bold")
        if self._done:
            text.append(f"\n✓ {self._done}\n", style="bold")
        if self._problem:
            text.append(f"\n✖ {self._problem}\n", style="bold")
        text.rstrip()
        self.say(text)


def _progress(at: dict[str, Any]) -> str:
    """A plan is made after the newest checkpoint that is whole was found."""
    done, total = at.get("done"), at.get("total")
    share = f" {percent(done / total)}" if isinstance(done, int) and isinstance(total, int) and total > 0 else ""
    return f"planning: verifying {safe(at.get('name', ''), 60)}{share}"
