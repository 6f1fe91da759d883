"""Who writes a run: its manifest, its lock, its heartbeat, and what was asked of it. Changes nothing."""

import os
import re
import stat
import sys
import time
from pathlib import Path

from qig_core.checkpoints.catalog import in_words
from qig_core.commands.examination.finding import Finding, Known, State, Steps
from qig_core.errors import RunFormatError
from qig_core.rundir.host import host_name, process_is
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.mailbox import read_ack
from qig_core.rundir.reader import read_document, read_manifest
from qig_core.rundir.schema import FORMAT, FORMAT_MINOR, Ack, Command, Heartbeat, Manifest
from qig_core.rundir.summary import summarise
from qig_core.rundir.values import is_command_id
from qig_core.terminal import command

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)
_STATE_OF: dict[Word, State] = {
    Word.SLOW: "warning",
    Word.SILENT: "warning",
    Word.HUNG: "bad",
    Word.KILLED: "bad",
}
_WAIT_FOR_BEAT_S = 1.5
_SOON_S = 10.0
"""A live writer has ended a replacement, and taken and answered a command, within this; a step may be long."""


def document(known: Known) -> Steps:
    """run.json: readable, of a format that is known, of this directory; and what interrupted replacements left."""
    run, manifest = known.run, known.manifest
    if manifest is None:
        why = "run.json cannot be read"
        try:
            read_manifest(run)
        except RunFormatError as error:
            why = str(error)
        yield Finding(check="format", state="bad", what=f"{why}; no session can go on with this run")
    elif manifest.minor > FORMAT_MINOR:
        what = f"format {FORMAT}.{manifest.minor} is newer than {FORMAT}.{FORMAT_MINOR}: what is new in it was not seen"
        yield Finding(check="format", state="warning", what=f"{what}; upgrade qig-tui")
    else:
        yield Finding(check="format", state="ok", what=f"run.json is of format {FORMAT}.{manifest.minor}")
    if manifest is not None and manifest.id != run.id:
        what = f"run.json gives the id {manifest.id[:100]!r}: the directory was renamed, or is a copy"
        yield Finding(check="format", state="warning", what=what)
    left = sorted(name for name in os.listdir(run.path) if _TEMPORARY.fullmatch(name))
    if known.live:
        left = [name for name in left if _is_old(run.path / name)]
    if left:
        what = f"left by interrupted replacements of documents, {len(left)}: {in_words(left)}"
        what += "; the next session removes those of run.json and heartbeat.json"
        yield Finding(check="format", state="warning", what=what)


def _is_old(path: Path) -> bool:
    """Whether a live writer is no longer about it."""
    try:
        return time.time() - path.lstat().st_mtime > _SOON_S
    except FileNotFoundError:
        return False  # it has its name by now


def lock(known: Known) -> Steps:
    """Whether the lock is held, by whom, and whether run.json says the same."""
    run, manifest, holder = known.run, known.manifest, known.holder
    state = manifest.state if manifest else None
    try:
        facts = run.lock.lstat()
    except FileNotFoundError:
        facts = None
    if facts is not None and not stat.S_ISREG(facts.st_mode):
        what = "lock is a link or no regular file: two writers may not see each other; move it away when none is there"
        yield Finding(check="lock", state="bad", what=what)
    if holder is not None:
        who = f"process {holder}" if holder > 0 else "a process on another host or in another container"
        if state == "exited":
            what = f"held by {who} although run.json says that the run has ended: it begins or ends just now, or a"
            yield Finding(check="lock", state="warning", what=f"{what} command is changing the run")
        else:
            yield Finding(check="lock", state="ok", what=f"held by {who}")
    elif not sys.platform.startswith("linux") or (facts is not None and not os.access(run.lock, os.R_OK)):
        yield Finding(check="lock", state="warning", what="whether somebody holds it cannot be asked here")
    elif manifest is not None and state == "running":
        yield _running_and_free(run, manifest)
    else:
        yield Finding(check="lock", state="ok", what="free" if facts else "free; the next session makes the file")


def _running_and_free(run: RunDir, manifest: Manifest) -> Finding:
    session = manifest.sessions[-1] if manifest.sessions else None
    who = f"process {session.pid}" if session else "nobody knows which"
    alive = process_is(session.pid, session.start_ticks, session.host, session.boot_id) if session else None
    if alive:
        what = f"free, and its trainer ({who}) lives: the file was deleted or replaced, and a second writer could begin"
        return Finding(check="lock", state="bad", what=f"{what}; stop the trainer, then resume")
    elsewhere = session is not None and session.host != host_name()
    where = f" on host {session.host[:100]!r}, whose locks may not be seen from here" if session and elsewhere else ""
    what = f"free although run.json says running: its trainer ({who}{where}) died"
    return Finding(
        check="lock",
        state="warning" if elsewhere else "bad",
        what=what,
        cure=command("qig-core", "recover", run.path),
    )


def heartbeat(known: Known) -> Steps:
    """The word for the state of the run; and whether there is a heartbeat to judge it by."""
    run, manifest = known.run, known.manifest
    try:
        read_document(run.heartbeat, Heartbeat)
    except RunFormatError as error:
        yield Finding(check="heartbeat", state="warning", what=str(error))
    if manifest is None:
        return
    liveness = summarise(run, wait_for_beat_s=_WAIT_FOR_BEAT_S if known.live else 0.0).liveness
    if liveness is not None:
        yield Finding(
            check="heartbeat",
            state=_STATE_OF.get(liveness.word, "ok"),
            what=_in_full(liveness, manifest),
        )


def _in_full(liveness: Liveness, manifest: Manifest) -> str:
    why = f": {manifest.reason[:200]}" if liveness.word is Word.EXITED and manifest.reason else ""
    return f"{liveness.text}{why}"


def mailbox(known: Known) -> Steps:
    """What was asked and not answered, and how old it is."""
    try:
        yield from _unanswered(known.run, known.live)
    except PermissionError as error:
        yield Finding(check="mailbox", state="warning", what=f"{error.filename!r} is closed to you")


def _unanswered(run: RunDir, live: bool) -> Steps:
    now = time.time()
    waiting: list[tuple[float, str]] = []
    for path in _visible(run.mailbox_in):
        try:
            waiting.append((now - path.lstat().st_mtime, _verb(path)))
        except FileNotFoundError:
            continue  # taken or withdrawn just now
    begun: list[tuple[float, str]] = []
    for path in _visible(run.mailbox_out):
        ack = read_ack(run, path.stem) if is_command_id(path.stem) else None
        if ack is not None and not ack.ended:
            begun.append((now - (ack.last.t if ack.last else now), _last_stage(ack)))
    if not waiting and not begun:
        yield Finding(check="mailbox", state="ok", what="no command waits for an answer")
    if waiting:
        told = in_words([f"{verb} for {_age(age)}" for age, verb in sorted(waiting, reverse=True)])
        late = not live or max(age for age, _ in waiting) > _SOON_S
        what = f"taken by nobody, {len(waiting)}: {told}"
        what += "" if live else "; the next session refuses them"
        yield Finding(check="mailbox", state="warning" if late else "ok", what=what)
    if begun:
        told = in_words([f"{stage} for {_age(age)}" for age, stage in sorted(begun, reverse=True)])
        late = not live or max(age for age, _ in begun) > _SOON_S
        what = f"taken and not answered to the end, {len(begun)}: {told}"
        yield Finding(check="mailbox", state="warning" if late else "ok", what=what)


def _visible(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _verb(path: Path) -> str:
    try:
        return read_document(path, Command).verb[:40]
    except RunFormatError:
        return f"{path.name[:100]!r} (no command)"


def _last_stage(ack: Ack) -> str:
    return f"{ack.verb[:40]} {ack.last.stage[:40] if ack.last else ''}".rstrip()


def _age(seconds: float) -> str:
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{max(0.0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
