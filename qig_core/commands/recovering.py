"""`qig-core recover`: what became of a run, the newest checkpoint that is sound, and the command that goes on from it.

Wires checkpoints, the run directory and the terminal together. Trains nothing, loads no torch; a child process goes on.
"""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qig_core.checkpoints.catalog import candidates, list_checkpoints, look, resolve
from qig_core.checkpoints.ranking import is_finite
from qig_core.checkpoints.recovery import newest_verified, once_there
from qig_core.checkpoints.upkeep import quarantine
from qig_core.checkpoints.verification import Progress, Verification, verify
from qig_core.commands.recovery_report import (
    Bar,
    Emergency,
    LeftAlone,
    Next,
    Report,
    Row,
    SetAside,
    ask,
    show_checkpoints,
    show_happened,
    show_next,
)
from qig_core.commands.resuming import resume_argv, run_in_foreground
from qig_core.errors import CheckpointError, ExitCode, Refused, RunFormatError, RunLocked, UsageError
from qig_core.rundir.aftermath import read_aftermath
from qig_core.rundir.host import process_is
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Word, has_beaten
from qig_core.rundir.lock import RunLock, lock_holder
from qig_core.rundir.printable import printable
from qig_core.rundir.reader import read_document, read_manifest
from qig_core.rundir.relaunch import obstacle
from qig_core.rundir.schema import Heartbeat, Manifest
from qig_core.rundir.summary import summarise
from qig_core.rundir.values import is_run_id
from qig_core.safety.emergency import EmergencyRecord
from qig_core.terminal import command, err, out, print_json
from qig_core.training.config import flatten
from qig_core.training.requests import PROGRAM

_BEAT_S = 3.0
"""How long a trainer that may be on another host is given for a beat; one comes every second."""
_LOOK_S = 0.05
_RECORDS = 20
"""Emergency records that are looked into for one of the last session."""
_RESUME = ("qig-core", "train", "--resume")
_ON_A_LEFT_BRANCH = "the run went back to before it; name it to go on from it all the same"
_ALARMS = ("warning", "critical")

_SetAside = Callable[[Verification, Path], None]


def run_recover(run: RunDir, *, resume: bool, yes: bool, json: bool) -> int:
    """Say what happened, verify, set aside what is bad, name the checkpoint and the command; go on where asked to.

    Args:
        resume: go on at once. yes: the answer to the question whether to; both need a run of `qig-core train`.

    Returns:
        What the shell is told: FOUND_BAD without a sound checkpoint, or what became of the resumed training.

    Raises:
        RunLocked: a trainer writes it; nothing has been touched.
        UsageError: to be resumed, and of another program. Refused: to be resumed, and that is not safe from here.
        RunFormatError: its manifest cannot be read. RecordWriteError: the disk refused.
    """
    run = RunDir(run.path.absolute())
    manifest = read_manifest(run)
    if resume and manifest.program != PROGRAM:
        program = manifest.program or "another program"
        raise UsageError(f"run {run.id!r} was written by {program!r}; --resume is for runs of {PROGRAM}")
    alive = _who_lives(run, manifest)
    report = _what_happened(run, manifest)
    if alive:
        report.outcome = "live"
        if json:
            print_json({"result": report})
        watch = command("qig-tui", run.path)
        raise RunLocked(f"run {run.id!r} is alive ({alive}): nothing to recover; look at it with: {watch}")
    if not json:
        show_happened(report)
    if _has_come_to_its_end(report):
        report.outcome = "finished"
        _answer(report, json, "the run came to its end: nothing to recover")
        return ExitCode.OK
    wanted = manifest.program == PROGRAM and (resume or yes)
    if wanted and (why := obstacle(run, manifest)):
        raise Refused(f"nothing was touched: {why}")
    lock = RunLock(run.lock)
    try:
        if read_manifest(run) != manifest:
            raise RunLocked(f"{str(run.path)!r} was written by another process meanwhile; look at it again")
        with Bar(json=json) as bar:
            _choose(run, manifest, report, bar)
        _plan(run, manifest, report)
    finally:
        lock.release()
    if not json:
        show_checkpoints(report)
        show_next(report)
    _answer(report, json)
    then = report.command
    if then is not None and report.outcome in ("goes-on", "from-birth") and then.ours:
        chosen = report.checkpoint.name if report.checkpoint else None
        why = obstacle(run, manifest, chosen)
        if wanted and why:
            raise Refused(f"not resumed: {why}")
        if not wanted and not json and sys.stdin.isatty() and err.is_terminal:
            if why:
                out.print(printable(f"it cannot be resumed from here: {why}"), soft_wrap=True)
            else:
                wanted = ask(f"go on from {chosen} now?" if chosen else "begin again at step 0 now?")
        if wanted:
            return run_in_foreground(then.argv, stdout_is_taken=json)
    return ExitCode.FOUND_BAD if report.checkpoint is None else ExitCode.OK


def _answer(report: Report, json: bool, sentence: str = "") -> None:
    if json:
        print_json({"result": report})
    elif sentence:
        out.print(printable(sentence), soft_wrap=True)


def _who_lives(run: RunDir, manifest: Manifest) -> str:
    """Why the trainer is held to be alive; empty where it is not. Silence is measured on this process's own clock."""
    holder = lock_holder(run.lock)
    if holder is not None:
        return f"process {holder} holds its lock" if holder > 0 else "its lock is held on another host"
    session = manifest.sessions[-1] if manifest.sessions else None
    if manifest.state == "exited" or session is None:
        return ""
    known = process_is(session.pid, session.start_ticks, session.host, session.boot_id)
    if known is not None:
        return f"process {session.pid} runs" if known else ""
    try:
        before = read_document(run.heartbeat, Heartbeat)
    except RunFormatError:
        return ""
    until = time.monotonic() + _BEAT_S
    while time.monotonic() < until:
        if has_beaten(run.heartbeat, before):
            return f"it beats, on {session.host}"
        time.sleep(_LOOK_S)
    return ""


def _what_happened(run: RunDir, manifest: Manifest) -> Report:
    summary, after = summarise(run), read_aftermath(run, manifest)
    session = manifest.sessions[-1] if manifest.sessions else None
    liveness = summary.liveness
    word, detail = ("?", "") if liveness is None else (str(liveness.word), liveness.detail)
    if word not in (Word.EXITED, Word.KILLED):
        # Of another host or boot: a first look at a heartbeat cannot tell how old it is.
        word, detail = str(Word.SILENT), "no beat" if session is None else f"no beat, on {session.host}"
    steps = [summary.step, *(event.step for event in after.events[-1:] if event.kind == "end")]
    return Report(
        run=run.id,
        path=str(run.path),
        name=manifest.name,
        program=manifest.program,
        liveness=word,
        liveness_detail=detail,
        session=session,
        sessions=len(manifest.sessions),
        exit_code=manifest.exit_code,
        reason=manifest.reason,
        last_t=after.last_t,
        age_s=None if after.last_t is None else max(0.0, time.time() - after.last_t),
        step=max((step for step in steps if step is not None), default=None),
        total_steps=manifest.total_steps,
        metrics=summary.metrics,
        nonfinite=summary.nonfinite,
        conditions={name: state for name, state in summary.conditions.items() if state in _ALARMS},
        events=after.events,
        emergency=None if session is None else _emergency(run, session.id),
        console=after.console,
        damage=after.damage,
        notes=[summary.error] if summary.error else [],
    )


def _emergency(run: RunDir, session: str) -> Emergency | None:
    """The last record of this session; one that cannot be read tells nothing."""
    names = (path for path in run.emergencies.glob("*.json") if not path.name.startswith("."))
    for path in sorted(names, reverse=True)[:_RECORDS]:
        try:
            one = read_document(path, EmergencyRecord)
        except RunFormatError:
            continue
        if one.session == session:
            return Emergency(one.id, one.t, one.step, one.cause.text(), one.exit_code, one.checkpoint, one.note)
    return None


def _has_come_to_its_end(report: Report) -> bool:
    if report.liveness != Word.EXITED or report.exit_code != ExitCode.OK:
        return False
    return report.total_steps is None or (report.step is not None and report.step >= report.total_steps)


def _choose(run: RunDir, manifest: Manifest, report: Report, progress: Progress) -> None:
    """Verify newest first, and the last good one where the newest would stop again. The caller holds the lock."""

    def set_aside(found: Verification, where: Path) -> None:
        report.set_aside.append(SetAside(found.name, found.step, found.status, list(found.problems), str(where)))

    newest: Verification | None = None
    try:
        newest = newest_verified(run, progress, set_aside)
    except CheckpointError as error:
        report.problem = str(error)
    on_the_way = {found.name for found in candidates(run)}
    for found in list_checkpoints(run):
        if newest is not None and found.name == newest.name:
            break
        problems = list(found.problems) or ["not looked at" if found.name in on_the_way else _ON_A_LEFT_BRANCH]
        report.left_alone.append(LeftAlone(found.name, found.step, found.status, problems))
    if newest is None:
        return
    chosen = newest
    if why := _would_stop_again(manifest, newest):
        good = _last_good(run, newest, progress, set_aside)
        if good is None:
            report.notes.append(f"it would stop again, {why}; no checkpoint is known to be good (@last-good)")
        elif good.name != newest.name:
            report.notes.append(f"the newest sound one, {newest.name}, would stop again, {why}: hence @last-good")
            chosen = good
    report.newest, report.checkpoint = _row(newest), _row(chosen)
    if report.step is not None and chosen.step is not None:
        report.lost_steps = max(0, report.step - chosen.step)
    if report.checkpoint.nonfinite:
        report.notes.append(f"not finite in {chosen.name}: {', '.join(report.checkpoint.nonfinite[:5])}")


def _would_stop_again(manifest: Manifest, found: Verification) -> str:
    """Why, in a few words; empty where nothing speaks for it."""
    saved = found.manifest
    if saved is not None and saved.reason == "emergency":
        critical = [name for name, state in saved.conditions.items() if state == "critical"]
        if critical:
            return f"{', '.join(critical[:3])} is critical there"
        if not is_finite(saved):
            return "its metrics are not finite"
    return "the run was stopped by a limit" if manifest.exit_code == ExitCode.LIMIT else ""


def _last_good(run: RunDir, newest: Verification, progress: Progress, set_aside: _SetAside) -> Verification | None:
    while True:
        try:
            name = resolve(run, "last-good").name
        except CheckpointError:
            return None
        found = newest if name == newest.name else verify(run, name, progress)
        if found.status == "COMPLETE":
            return found
        set_aside(found, quarantine(run, name, f"{found.status}: {'; '.join(found.problems)}"))


def _row(found: Verification) -> Row:
    manifest = found.manifest
    assert manifest is not None  # of a complete one
    return Row(
        name=found.name,
        step=found.step,
        t=found.t,
        size=sum(file.size for file in manifest.files),
        reason=manifest.reason,
        tags=list(found.tags),
        conditions={name: state for name, state in manifest.conditions.items() if state in _ALARMS},
        nonfinite=[*manifest.nonfinite, *found.nonfinite],
    )


def _plan(run: RunDir, manifest: Manifest, report: Report) -> None:
    """What can be done now, and the command for it."""
    chosen, total = report.checkpoint, manifest.total_steps
    if chosen is not None and total is not None and chosen.step is not None and chosen.step >= total:
        report.outcome = "nothing-left"
        report.notes.append(f"it is at step {chosen.step} of {total}: nothing is left to do but with a larger total")
        return
    if chosen is not None:
        report.outcome = "goes-on"
    if manifest.program != PROGRAM:
        argv = manifest.sessions[-1].argv if manifest.sessions else []
        # What python ran is recorded, not which python.
        text = shlex.join(["python", *argv] if argv and argv[0].endswith(".py") else argv) or "no command was recorded"
        report.command = Next(argv, text, manifest.cwd or None, ours=False)
    elif chosen is not None:
        where = run.path.with_name(f"{run.path.name}@{chosen.name}")
        report.command = Next(resume_argv(run, chosen.name), command(*_RESUME, where), None, ours=True)
    elif report.left_alone:
        report.notes.append("what was left alone is not given up by beginning again: no command is proposed")
    elif manifest.parent is not None:
        report.outcome = "fork-again"
        _plan_fork(run, manifest, report)
    elif gone := once_there(run):
        report.notes.append(gone)
    else:
        report.outcome = "from-birth"
        report.notes.append("a resume begins again at step 0")
        report.command = Next(resume_argv(run, None), command(*_RESUME, run.path), None, ours=True)


def _plan_fork(run: RunDir, manifest: Manifest, report: Report) -> None:
    """It has no state of its own: the same fork once more, as a new run."""
    assert manifest.parent is not None
    name, checkpoint = manifest.parent.run, manifest.parent.checkpoint
    report.notes.append(f"it is a fork of {name} @ {checkpoint}: to begin at step 0 would be another run")
    parent = RunDir(run.path.parent / name) if is_run_id(name) else None
    if parent is None or checkpoint is None or look(parent, checkpoint) is None:
        report.notes.append(
            f"that checkpoint is not under {str(run.path.parent)!r}: it cannot be forked again from here"
        )
        return
    try:
        theirs = read_manifest(parent)
    except RunFormatError as error:
        report.notes.append(str(error))
        return
    old, new = flatten(theirs.config), flatten(manifest.config)
    other = [key for key in sorted({*old, *new} - {"steps"}) if old.get(key) != new.get(key)]
    if theirs.corpus.get("digest") != manifest.corpus.get("digest"):
        other.append("the corpus")
    if other:
        what = ", ".join(other[:8])
        report.notes.append(f"it differs from its parent in {what}: give that again, by --config or --corpus")
    words: list[str] = ["--steps", str(manifest.total_steps)] if manifest.total_steps else []
    words += ["--name", manifest.name] if manifest.name else []
    where, root = parent.path.with_name(f"{name}@{checkpoint}"), run.path.parent
    argv = [sys.executable, "-m", "qig_core.cli", "train", "--fork", str(where), "--runs", str(root), *words]
    text = command("qig-core", "train", "--fork", where, "--runs", root, *words)
    report.command = Next(argv, text, None, ours=True)
