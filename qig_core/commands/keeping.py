"""What `checkpoints pin`, `unpin`, `tag`, `prune`, `restore` do: a live trainer is asked, a dead run changed here."""

import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.filesize import decimal

from qig_core.checkpoints.catalog import resolve
from qig_core.checkpoints.pruning import carry_out, planning, recorded_keep
from qig_core.checkpoints.retention import Keep, Plan
from qig_core.checkpoints.upkeep import add_tag, remove_stale_temporaries, remove_tag
from qig_core.checkpoints.verification import verify
from qig_core.commands.asking import ask
from qig_core.errors import CheckpointError, ExitCode, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock, lock_holder
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.records import RecordFile
from qig_core.rundir.schema import PINNED, Event
from qig_core.terminal import command, print_json, print_table, progress_bar, tell

Record = Callable[..., int]
"""Called with the kind of an event and its data."""


@contextmanager
def holding(run: RunDir) -> Iterator[Record]:
    """Be the writer of a run that has none; what is done is told in its events.

    Raises:
        RunLocked: it has one. RecordWriteError: the lock, or the events, cannot be written.
    """
    lock = RunLock(run.lock)
    try:
        events = RecordFile(run.events)
        try:
            yield lambda kind, **data: events.append(Event(0, time.time(), kind, data=data))
        finally:
            events.close()
    finally:
        lock.release()


def change_tags(
    run: RunDir, verb: str, checkpoint: str, tag: str = PINNED, *, remove: bool = False, wait_s: float, json: bool
) -> int:
    """Pin, unpin or tag a checkpoint; the exit code.

    Args:
        verb: pin, unpin or tag.

    Raises:
        CheckpointError: no such checkpoint. UsageError: not a plain word. Refused: a trainer that does not answer.
    """
    name = resolve(run, checkpoint).name
    if lock_holder(run.lock) is not None:
        args: dict[str, Any] = {"checkpoint": name}
        if verb == "tag":
            args |= {"tag": tag, "remove": remove}
        return ExitCode.OK if ask(run, verb, args, wait_s=wait_s, json=json) else ExitCode.FOUND_BAD
    with holding(run) as record:
        tags = (remove_tag if remove else add_tag)(run, name, tag)
        record("tagged", name=name, tags=list(tags))
    if json:
        print_json({"name": name, "tags": list(tags)})
    else:
        tell(f"{name}: {' '.join(tags) if tags else 'no tags'}")
    return ExitCode.OK


def prune(
    run: RunDir,
    over: Mapping[str, Any],
    *,
    only: Collection[str] | None = None,
    dry_run: bool,
    yes: bool,
    wait_s: float,
    json: bool,
) -> int:
    """Show what the rule gives up and delete it; the exit code.

    Args:
        over: what is to differ from the rule that the run records: newest, best, score, lower_is_better.
        only: names; of what the rule gives up nothing else goes. Who was shown a plan before names what it drops.

    Raises:
        UsageError: nobody can be asked and `yes` is not given. CheckpointError: none verifies, or the disk refused.
    """
    keep = recorded_keep(run, **over)
    live = lock_holder(run.lock) is not None
    asking = not (dry_run or yes)
    if asking and (json or not (sys.stdin.isatty() and sys.stderr.isatty())):
        raise UsageError("prune deletes checkpoints and nobody is here to ask: add --yes, or --dry-run to look")
    if live and not dry_run and over.keys() - {"newest", "best"}:
        raise UsageError("a live trainer ranks by the score that it was given; --score is for a run that has ended")
    found = _plan(run, keep, json)
    going = [one for one in found.dropped if only is None or one.name in only]
    shown, freed = [one.name for one in going], sum(one.size for one in going)
    if not json:
        _show_plan(found, live)
    if dry_run or not going:
        if not (dry_run or live):
            with holding(run):
                remove_stale_temporaries(run, "")  # an interrupted prune left something
        if json:
            print_json({"result": _result(found, keep, dry_run=dry_run, names=[])})
        return ExitCode.OK
    if asking:
        try:
            wanted = typer.confirm(f"Delete {_many(len(going))} ({decimal(freed)})?", err=True)
        except typer.Abort:  # Ctrl-C, or the end of the input
            return 128 + signal.SIGINT
        if not wanted:
            tell("nothing was deleted")
            return ExitCode.FOUND_BAD
    if live:
        args = {key: value for key, value in over.items() if value is not None}
        args["names"] = shown
        return ExitCode.OK if ask(run, "prune", args, wait_s=wait_s, json=json) else ExitCode.FOUND_BAD
    with holding(run) as record:
        remove_stale_temporaries(run, "")
        gone = carry_out(run, _plan(run, keep, json), shown)  # nobody else writes from here on
        record("pruned", how="by qig-core", **gone.data())
    if json:
        print_json({"result": _result(found, keep, dry_run=False, names=list(gone.names))})
    else:
        tell(f"{_many(len(gone.names))} deleted, {decimal(gone.size)} freed, {gone.kept} kept")
    return ExitCode.OK


def restore(run: RunDir, checkpoint: str, *, wait_s: float, json: bool) -> int:
    """Bring a live run back to a checkpoint; of a dead one, verify it and say how to go on from it. The exit code.

    Raises:
        CheckpointError: no such checkpoint, or a bad one. Refused: a trainer that does not answer.
    """
    found = resolve(run, checkpoint)
    if lock_holder(run.lock) is not None:
        done = ask(run, "restore", {"checkpoint": found.name}, wait_s=wait_s, json=json)
        return ExitCode.OK if done else ExitCode.FOUND_BAD
    result = verify(run, found.name)
    if result.status != "COMPLETE":
        raise CheckpointError(f"{found.name} is {result.status}: {'; '.join(result.problems)}")
    program = read_manifest(run).program
    words = ("qig-core", "train", "--resume", run.path.with_name(f"{run.path.name}@{found.name}"))
    line = command(*words) if program == "qig-core train" else None
    if json:
        print_json({"result": {"name": found.name, "status": result.status, "command": line}})
    else:
        tell(f"{found.name} is whole, and nothing is running. Go on from it with:")
        tell(f"  {line}" if line else f"  resume={str(words[-1])!r} in your loop's IntegratedMonitor.open")
    return ExitCode.OK


def _plan(run: RunDir, keep: Keep, json: bool) -> Plan:
    steps = planning(run, keep)
    with progress_bar("verifying", shown=not json) as show:
        while True:
            try:
                name, done, total = next(steps)
            except StopIteration as stop:
                found: Plan = stop.value
                return found
            if json:
                print_json({"progress": {"name": name, "done": done, "total": total}})
            show(done, total)


def _show_plan(found: Plan, live: bool) -> None:
    rows = [
        (one.name, one.step, decimal(one.size), "keep" if one.kept else "delete", ", ".join(one.reasons))
        for one in found.decisions
    ]
    if not rows:
        tell("no checkpoints")
        return
    print_table(("checkpoint", "step", "size", "", "why"), rows, right=("step", "size"), fold=("why",))
    if not found.dropped:
        tell("nothing to delete: the rule keeps them all")
    elif live:
        tell("the trainer is alive: it keeps those as well that it would go back to")


def _result(found: Plan, keep: Keep, *, dry_run: bool, names: list[str]) -> dict[str, Any]:
    rule = {"newest": keep.newest, "best": keep.best, "score": keep.score, "lower_is_better": keep.lower_is_better}
    return {"rule": rule, "plan": found.rows(), "freed": found.freed, "dry_run": dry_run, "deleted": names}


def _many(count: int) -> str:
    return "1 checkpoint" if count == 1 else f"{count} checkpoints"
