"""What is found out and done at the checkpoints of a run, for as long as it is watched. No Textual.

It outlives the screen: a verification goes on when somebody looks elsewhere, and what it found stays.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import PINNED
from qig_tui.actions import child, tag_argv, verify_argv
from qig_tui.checkpoints.rows import COMPLETE, STATUSES, Checked
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.text import duration, grouped, percent, safe, size

MOST_MARKED = 2
_LOOK_S = 0.2
Part = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a verification has come."""

    name: str = ""
    number: int = 0
    of: int = 0
    done: int = 0
    total: int = 0
    """Bytes."""

    @property
    def words(self) -> str:
        if not self.of:
            return "verifying"
        share = f" · {percent(self.done / self.total)} of {size(self.total)}" if self.total else ""
        return f"verifying {grouped(self.number)} of {grouped(self.of)}{share} · {safe(self.name, 40)}"


class Desk:
    """Of one run. What it says of the last thing that was done stays until the next."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self.checked: dict[str, Checked] = {}
        """By name, of the checkpoints whose every byte was read."""
        self.marked: list[str] = []
        """Names in the order of marking."""
        self.progress: Progress | None = None
        """Of the verification that is under way."""
        self.said: tuple[Part, ...] = ()
        self.version = 0
        """Another one whenever the table is to be drawn anew, and not only what is being done."""
        self.changed: Callable[[], None] = _nobody
        """Told of every change, by whoever shows it."""
        self.stop: Callable[[], None] | None = None
        """Ends the verification that is under way."""
        self._turn = 0
        """Of the newest verification; one that was stopped may end after the next has begun."""
        self._asked: set[str] = set()

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees what it says."""
        return self.changed is not _nobody

    @property
    def is_verifying(self) -> bool:
        return self.stop is not None

    def stop_verifying(self) -> None:
        stop, self.stop, self.progress = self.stop, None, None
        if stop is not None:
            stop()

    def leave(self) -> None:
        """Nobody sees it any more."""
        self.changed = _nobody

    def mark(self, name: str) -> None:
        """Mark a checkpoint, or unmark it; of more than two the one that was marked first is let go."""
        if name in self.marked:
            self.marked.remove(name)
        else:
            self.marked = [*self.marked, name][-MOST_MARKED:]
        self.version += 1
        self.changed()

    def unmark(self) -> None:
        self.marked.clear()
        self.version += 1
        self.changed()

    def keep_only(self, names: Sequence[str]) -> None:
        """Forget the marks of those that are no more."""
        if any(name not in names for name in self.marked):
            self.marked = [name for name in self.marked if name in names]

    def say(self, *parts: Part) -> None:
        self.said = parts
        self.changed()

    async def verify(self, picture: RunPicture, checkpoint: str | None = None) -> None:
        """Have every byte of a checkpoint read, or of all; cancelled it ends, and what was found till then stays."""
        self._turn += 1
        mine, found = self._turn, dict[str, Checked]()
        self.progress = Progress()
        self.say()
        try:
            async with aclosing(child(verify_argv(self._run, checkpoint))) as reports:
                async for report in reports:
                    found |= self._take(report, picture)
        except asyncio.CancelledError:
            self.said = (("warning", "○ verification stopped"), ("dim", _so_far(found)))
            raise
        finally:
            if self._turn == mine:
                self.progress = self.stop = None
            self.changed()

    def _take(self, report: Mapping[str, Any], picture: RunPicture) -> dict[str, Checked]:
        """One line of the child; what it tells of checkpoints."""
        found: dict[str, Checked] = {}
        if "error" in report:
            self.say(("critical", "✖ not verified"), ("text", f"  {safe(report['error'], 300)}"))
        elif "progress" in report:
            self.progress = _progress(report["progress"])
            self.changed()
        else:
            rows = report.get("result", [report.get("checked")])
            found = dict(_checked(rows if isinstance(rows, list) else []))
            self.checked |= found
            self.version += 1
            picture.verified({name: one.problem for name, one in found.items()})
            if "result" in report:
                self.said = tuple(_outcome(found))
            self.changed()
        return found

    async def tag(self, picture: RunPicture, name: str, tag: str, *, remove: bool) -> None:
        """Give a checkpoint a tag, or take it away: the trainer is asked to, or, where there is none, a child does."""
        if name in self._asked:
            self.say(("warning", "▲ not asked"), ("text", "  the trainer has not answered what was asked before"))
            return
        self._asked.add(name)
        pins = {True: "unpin", False: "pin"} if tag == PINNED else {True: f"untag {tag}:", False: f"tag {tag}:"}
        what = f"{pins[remove]} {name}"
        try:
            if picture.ended:
                await self._tag_here(what, name, tag, remove)
            else:
                verb = pins[remove] if tag == PINNED else "tag"
                args: dict[str, Any] = {"checkpoint": name}
                await self._follow(
                    what, picture, verb, args if tag == PINNED else args | {"tag": tag, "remove": remove}
                )
        finally:
            self._asked.discard(name)

    async def _tag_here(self, what: str, name: str, tag: str, remove: bool) -> None:
        self.say(("accent", f"● {safe(what, 80)}"), ("dim", "  by qig-core, as no trainer holds the run"))
        async with aclosing(child(tag_argv(self._run, name, tag, remove=remove))) as reports:
            async for report in reports:
                if report.get("name") == name and isinstance(report.get("tags"), list):
                    self.say(("ok", f"✓ {safe(what, 80)}"), ("dim", f"  done; {_tags(report['tags'])}"))
                    return
                if "error" in report:
                    self.say(("critical", f"✖ {safe(what, 80)}"), ("text", f"  {safe(report['error'], 300)}"))

    async def _follow(self, what: str, picture: RunPicture, verb: str, args: dict[str, Any]) -> None:
        """Ask, and tell how far it has come until the end is known."""
        try:
            followed = Followed(picture, self._run, verb, args)
        except Refused as error:
            self.say(("critical", f"✖ {safe(what, 80)}"), ("text", f"  not asked: {safe(error, 300)}"))
            return
        told = 0
        while followed.outcome == "waiting":
            if told != (told := len(followed.asked.stages)):
                self.say(("accent", f"● {safe(what, 80)}"), ("dim", f"  {_stages(followed)}"))
            await asyncio.sleep(_LOOK_S)
            followed.look()
        if followed.outcome == "confirmed":
            told_tags = None if followed.asked.answer is None else followed.asked.answer.detail.get("tags")
            tags = f"; {_tags(told_tags)}" if isinstance(told_tags, list) else ""
            self.say(("ok", f"✓ {safe(what, 80)}"), ("dim", f"  {_stages(followed)}{tags}"))
        else:
            self.say(("critical", f"✖ {safe(what, 80)}"), ("text", f"  {followed.words}"))


def _nobody() -> None:
    """Nobody sees it."""


def _stages(followed: Followed) -> str:
    return " · ".join(f"{stage.name} {duration(stage.after_s)}" for stage in followed.asked.stages)


def _tags(tags: Sequence[object]) -> str:
    return f"its tags: {', '.join(safe(tag, 30) for tag in tags[:8])}" if tags else "it has no tags"


def _progress(at: object) -> Progress:
    known = at if isinstance(at, dict) else {}
    numbers = {key: value for key in ("number", "of", "done", "total") if isinstance(value := known.get(key), int)}
    return Progress(name=safe(known.get("name", ""), 80), **numbers)


def checked_of(row: object) -> tuple[str, Checked] | None:
    """Name and findings of a row of `qig-core checkpoints verify`; None where it is none."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not isinstance(row.get("status"), str):
        return None
    known = row.get("shapes")
    shapes: dict[str, Any] = known if isinstance(known, dict) else {}
    tensors, beside = shapes.get("tensors"), shapes.get("beside")
    return row["name"], Checked(
        status=row["status"] if row["status"] in STATUSES else "UNREADABLE",
        t=time.time(),
        problems=_words(row.get("problems")),
        nonfinite=_words(row["nonfinite"]) if "nonfinite" in row else None,
        tensors=tensors if isinstance(tensors, int) else None,
        beside=beside if isinstance(beside, str) else None,
        differing=_words(shapes.get("differing")),
    )


def _checked(rows: Sequence[object]) -> Iterator[tuple[str, Checked]]:
    for row in rows:
        found = checked_of(row)
        if found is not None:
            yield found


def _words(found: object) -> tuple[str, ...]:
    return tuple(safe(one, 300) for one in found[:20]) if isinstance(found, list) else ()


def _outcome(found: Mapping[str, Checked]) -> list[Part]:
    damaged = [one.status for one in found.values() if not one.is_whole]
    what = "every byte, every number" if len(found) == 1 else f"{grouped(len(found))}: every byte, every number"
    if not found:
        return [("dim", "no checkpoint to verify")]
    if not damaged:
        return [("ok", f"✓ verified {what}"), ("dim", _odd(found))]
    kinds = ", ".join(f"{damaged.count(kind)} {kind}" for kind in STATUSES if kind in damaged)
    return [
        ("critical", f"✖ {grouped(len(damaged))} of {grouped(len(found))} damaged"),
        ("text", f"  {kinds}{_odd(found)}"),
    ]


def _odd(found: Mapping[str, Checked]) -> str:
    """What is no damage and yet to be known."""
    odd = sum(bool(one.nonfinite) for one in found.values())
    other = sum(bool(one.differing) for one in found.values())
    words = f" · ▲ {grouped(odd)} with tensors that are not finite" if odd else ""
    return words + (f" · ▲ {grouped(other)} of other shapes" if other else "")


def _so_far(found: Mapping[str, Checked]) -> str:
    bad = sum(one.status != COMPLETE for one in found.values())
    return f"  {grouped(len(found))} were read till then, {grouped(bad) if bad else 'none'} of them damaged"
