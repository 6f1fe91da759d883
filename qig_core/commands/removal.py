"""Deleting whole runs: looked at first, marked by a rename to .del-ID, then deleted. Asks nobody; follows no link.

What is interrupted is no run any more, and the next removal of ID finishes it.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.filesize import decimal

from qig_core.checkpoints.catalog import in_words, list_checkpoints
from qig_core.errors import CheckpointError, RecordWriteError, Refused, RunFormatError, RunLocked, RunNotFound
from qig_core.rundir.atomic import fsync_directory
from qig_core.rundir.host import process_is
from qig_core.rundir.layout import BEING_DELETED, RunDir, list_runs, resolve_run
from qig_core.rundir.lock import RunLock, refuse_if_locked
from qig_core.rundir.reader import format_of, open_regular, read_manifest
from qig_core.rundir.schema import FORMAT, PINNED, Manifest
from qig_core.rundir.values import is_run_id
from qig_core.terminal import command


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """A run that may be deleted, and what goes with it."""

    run: RunDir
    name: str = ""
    size: int = 0
    """Bytes of all its files."""
    checkpoints: int = 0
    pinned: int = 0
    forks: tuple[str, ...] = ()
    """The runs under the same root that were forked from it, by id."""
    linked: tuple[str, ...] = ()
    """Links at its top, whose targets stay."""
    identity: tuple[int, int] | None = None
    """Device and inode of the directory; None where only the rest of an interrupted removal is there."""
    rest: int | None = None
    """Bytes that an interrupted removal of a run of this id has left; None where there was none."""

    @property
    def marked(self) -> Path:
        """Where it lies while it is being deleted."""
        return _marked(self.run)

    def sentences(self) -> list[str]:
        """What whoever answers for it should know."""
        said = []
        if self.identity is not None:
            name = f" {self.name[:100]!r}" if self.name else ""
            size = f"{decimal(self.size)}, checkpoints {self.checkpoints}, pinned {self.pinned}"
            said.append(f"{self.run.id}{name} at {str(self.run.path)!r}: {size}")
        if self.rest is not None:
            where = f"{decimal(self.rest)} at {str(self.marked)!r}"
            said.append(f"{self.run.id}: the rest of a removal that was interrupted, {where}")
        if self.forks:
            said.append(f"forked from it: {in_words(self.forks)}; they stay, and what they come from is gone")
        if self.linked:
            said.append(f"links in it are deleted, what they lead to stays: {in_words(self.linked)}")
        return said


def look(text: str, root: Path, *, uid: int | None = None) -> Doomed:
    """RUN as everywhere, or the id of one whose removal was interrupted, with everything that may speak against it.

    Args:
        uid: whose it must be; None for this process's user.

    Raises:
        RunNotFound: nothing is there. UsageError: several runs have this name.
        Refused: a link, not a directory, somebody else's, not writable, with another file system in it.
        RunFormatError: of a newer format, or no run at all.
        RunLocked: its trainer lives.
    """
    try:
        return _look(text, root, os.getuid() if uid is None else uid)
    except OSError as error:
        raise Refused(f"{text[:300]!r} cannot be looked at: {error.strerror} ({error.filename!r})") from error


def _look(text: str, root: Path, uid: int) -> Doomed:
    given = Path(text)
    if given.name.startswith(BEING_DELETED):
        return _rest_of(text, root, uid)
    try:
        run = resolve_run(text, root)
    except RunNotFound:
        try:
            return _rest_of(text, root, uid)
        except RunNotFound:
            pass  # what was said first says it better
        raise
    if given.is_symlink() and given.resolve() == run.path:
        raise Refused(f"{text[:300]!r} is a link; name the run itself: {str(run.path)!r}")
    run = RunDir(run.path.absolute())
    facts = _check_folder(run.path, uid)
    manifest = _read(run)
    _refuse_alive(run, manifest)
    try:
        found = list_checkpoints(run)
    except CheckpointError:
        found = []
    return Doomed(
        run=run,
        name=manifest.name if manifest else "",
        size=_size(run.path),
        rest=_size(_marked(run)) if os.path.lexists(_marked(run)) else None,
        checkpoints=len(found),
        pinned=sum(PINNED in one.tags for one in found),
        forks=tuple(_forks(run, manifest)),
        linked=tuple(sorted(entry.name for entry in os.scandir(run.path) if entry.is_symlink())),
        identity=(facts.st_dev, facts.st_ino),
    )


def look_at_all(texts: Sequence[str], root: Path) -> list[Doomed]:
    """As `look`, each run once: whatever speaks against one of them speaks before anything is touched."""
    found = [look(text, root) for text in texts]
    return list({one.run.path: one for one in found}.values())


def remove(doomed: Doomed, *, uid: int | None = None) -> Iterator[dict[str, Any]]:
    """Delete a run: {"progress": {...}} as it goes, at last {"result": {id, path, size}}.

    It is marked by a rename, which is made durable before a byte goes, and its lock is held all the time.

    Raises:
        RunLocked: another process writes it. Refused: something else lies there now.
        RecordWriteError: the disk refused; the same command goes on with what is left.
    """
    run, marked = doomed.run, doomed.marked
    uid = os.getuid() if uid is None else uid
    try:
        if os.path.lexists(marked):
            _check_folder(marked, uid)
            yield from _delete(run, marked, _lock(marked))
        if doomed.identity is not None:
            lock = _lock(run.path)
            try:
                facts = run.path.lstat()
                if (facts.st_dev, facts.st_ino) != doomed.identity:
                    raise Refused(f"{str(run.path)!r} is another directory than a moment ago; it was left alone")
                run.path.rename(marked)
                fsync_directory(marked.parent)
            except BaseException:
                lock.release()
                raise
            yield from _delete(run, marked, lock)
    except RecordWriteError:
        raise
    except OSError as error:
        left = f"; the rest is in {str(marked)!r}" if os.path.lexists(marked) else ""
        again = command("qig-core", "rm", run.path)
        what = f"{str(run.path)!r} cannot be deleted: {error.strerror} ({error.filename!r}){left}; then again: {again}"
        raise RecordWriteError(error.errno, what) from error
    yield {"result": {"id": run.id, "path": str(run.path), "size": doomed.size + (doomed.rest or 0)}}


def _lock(folder: Path) -> RunLock:
    path = RunDir(folder).lock
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        path.unlink()  # it locks nothing, and opening it would lead out of the run
    return RunLock(path)


def _delete(run: RunDir, marked: Path, lock: RunLock) -> Iterator[dict[str, Any]]:
    """The lock goes last: until then nobody else deletes here."""
    try:
        names = sorted(name for name in os.listdir(marked) if name != run.lock.name)
        for number, name in enumerate(names, 1):
            yield {"progress": {"id": run.id, "name": name, "number": number, "of": len(names)}}
            path = marked / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    finally:
        lock.release()
    shutil.rmtree(marked)


def _marked(run: RunDir) -> Path:
    return run.path.with_name(BEING_DELETED + run.id)


def _rest_of(text: str, root: Path, uid: int) -> Doomed:
    """Of an id under the root, or of a path, as it was or as it is now. Raises: RunNotFound, there is none."""
    places = [Path(text)] if "/" in text or "." in text else []
    if is_run_id(text.removeprefix(BEING_DELETED)):
        places.append(root / text)
    for place in places:
        run_id = place.name.removeprefix(BEING_DELETED)
        run = RunDir(place.absolute().parent / run_id)
        if is_run_id(run_id) and os.path.lexists(_marked(run)):
            _check_folder(_marked(run), uid)
            refuse_if_locked(RunDir(_marked(run)).lock)
            return Doomed(run=run, rest=_size(_marked(run)))
    raise RunNotFound(f"{text[:300]!r} is not what an interrupted removal has left")


def _check_folder(path: Path, uid: int) -> os.stat_result:
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        raise Refused(f"{str(path)!r} is a link; name the run itself: {str(path.resolve())!r}")
    if not stat.S_ISDIR(facts.st_mode):
        raise Refused(f"{str(path)!r} is no directory")
    if facts.st_uid != uid:
        raise Refused(f"{str(path)!r} belongs to user {facts.st_uid}, not to you; its owner can delete it")
    if not os.access(path, os.W_OK | os.X_OK):
        raise Refused(f"{str(path)!r} may not be changed; run: {command('chmod', 'u+wx', path)}")
    return facts


def _read(run: RunDir) -> Manifest | None:
    """The manifest; None of a run of ours whose manifest is damaged."""
    try:
        return read_manifest(run)
    except RunFormatError:
        try:
            newer = format_of(run) > FORMAT  # it may be locked in a way that is not known here
        except RunFormatError:
            newer = False
        if newer or not os.path.lexists(run.lock):
            raise
        return None


def _refuse_alive(run: RunDir, manifest: Manifest | None) -> None:
    """Also where the lock does not say it: its file was deleted, or cannot be asked."""
    refuse_if_locked(run.lock)
    if manifest is None or manifest.state != "running" or not manifest.sessions:
        return
    last = manifest.sessions[-1]
    if process_is(last.pid, last.start_ticks, last.host, last.boot_id):
        raise RunLocked(f"{str(run.path)!r} is being written by process {last.pid}; stop that one first")


def _size(path: Path) -> int:
    """Bytes of all files. Raises: Refused, another file system is mounted in it."""
    device, total = path.lstat().st_dev, 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            facts = Path(folder, name).lstat()
            if facts.st_dev != device:
                raise Refused(f"another file system is mounted at {str(Path(folder, name))!r}; unmount it first")
            total += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    return total


class _Parent(msgspec.Struct):
    run: str = ""


class _Child(msgspec.Struct):
    parent: _Parent | None = None


def _forks(run: RunDir, manifest: Manifest | None) -> list[str]:
    ids = {run.id, manifest.id if manifest else run.id}
    found = []
    for other in list_runs(run.path.parent):
        try:
            with open(open_regular(other.manifest), "rb") as file:
                parent = msgspec.json.decode(file.read(), type=_Child).parent
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # nobody can say what it comes from
        if parent is not None and parent.run in ids and other.path != run.path:
            found.append(other.id)
    return found
