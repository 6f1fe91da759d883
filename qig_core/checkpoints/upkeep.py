"""What is done to checkpoints that are there: tagged, set aside, deleted; and what killed processes left is swept.

Who changes anything here holds the run's lock, or nobody does.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qig_core.checkpoints.catalog import encode_tags, read_tags
from qig_core.errors import CheckpointError, Refused, UsageError
from qig_core.rundir.atomic import encode_document, fsync_directory, sweep_temporary, write_document
from qig_core.rundir.layout import (
    BEING_DELETED,
    BEING_WRITTEN,
    CHECKPOINT_TAGS,
    QUARANTINE_NOTE,
    QUARANTINED,
    RunDir,
)
from qig_core.rundir.lock import lock_holder

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORDS = ("latest", "best", "last-good")
_TEMPORARY = re.compile(re.escape(BEING_WRITTEN) + r"([A-Za-z0-9]{1,64})-[0-9a-f]{6}")


def add_tag(run: RunDir, name: str, tag: str) -> tuple[str, ...]:
    """Add a tag and return all. `pinned` keeps a checkpoint from being pruned.

    Raises:
        UsageError: not a plain word. Refused: another process writes this run.
        CheckpointError: no such checkpoint, or the disk refused.
    """
    check_tag(tag)
    return _write_tags(run, name, {*read_tags(run, name), tag})


def remove_tag(run: RunDir, name: str, tag: str) -> tuple[str, ...]:
    """Remove a tag, if it is there, and return the rest. Raises: as `add_tag`."""
    check_tag(tag)
    return _write_tags(run, name, set(read_tags(run, name)) - {tag})


def quarantine(run: RunDir, name: str, reason: str) -> Path:
    """Set a checkpoint aside as .bad-NAME with every byte it has, and return where it is; `quarantine.json` says why.

    Raises:
        Refused: another process writes this run.
        CheckpointError: no such checkpoint, or the disk refused.
    """
    only_writer(run)
    source = run.checkpoint(name)
    target = run.checkpoints / f"{QUARANTINED}{name}"
    while os.path.lexists(target):
        target = run.checkpoints / f"{QUARANTINED}{name}-{secrets.token_hex(3)}"
    try:
        source.rename(target)
        fsync_directory(run.checkpoints)
    except OSError as error:
        raise CheckpointError(
            f"{name} is bad ({reason}) and cannot be set aside: {error.strerror}; "
            f"make {str(run.checkpoints)!r} writable"
        ) from error
    # On a full disk the checkpoint is out of the way and only the note is lost.
    with suppress(OSError):
        write_document(target / QUARANTINE_NOTE, encode_document({"name": name, "reason": reason, "t": time.time()}))
    return target


def delete(run: RunDir, names: Iterable[str]) -> list[str]:
    """Delete checkpoints and return the names; which ones may go is for `retention` to say.

    Each is marked by a rename to .del-NAME, which is made durable before a byte goes: what is interrupted is never a
    checkpoint with a part missing, and `remove_stale_temporaries` finishes it.

    Raises:
        Refused: another process writes this run.
        CheckpointError: no such checkpoint, or the disk refused; those that were marked are gone.
    """
    only_writer(run)
    marked: list[tuple[str, Path]] = []
    failure: OSError | None = None
    try:
        for name in names:
            source = run.checkpoint(name)
            target = run.checkpoints / f"{BEING_DELETED}{name}"
            source.rename(target)
            marked.append((name, target))
    except OSError as error:
        failure = error
    try:
        if marked:
            fsync_directory(run.checkpoints)
    except OSError as error:  # not durable: a crash may bring the names back, so their bytes stay
        raise CheckpointError(f"{str(run.checkpoints)!r}: the disk refused: {error.strerror}; swept later") from error
    for _, target in marked:
        shutil.rmtree(target, ignore_errors=True)
    if failure is not None:
        raise CheckpointError(f"{failure.filename!r} cannot be deleted: {failure.strerror}") from failure
    return [name for name, _ in marked]


def remove_stale_temporaries(run: RunDir, session: str) -> list[str]:
    """Delete what other sessions left half written or half deleted, and return the names of the folders.

    What the disk does not let go is left for a later session.

    Raises:
        Refused: this process does not hold the run's lock.
    """
    if lock_holder(run.lock) != os.getpid():
        raise Refused(f"only the holder of {str(run.lock)!r} may remove temporary directories")
    removed = []
    with suppress(OSError):
        # A process may have been killed before its rename to .del-NAME was durable: a power cut would undo it, and must
        # not bring back a checkpoint with a part missing.
        fsync_directory(run.checkpoints)
        for entry in sorted(os.scandir(run.checkpoints), key=lambda entry: entry.name):
            match = _TEMPORARY.fullmatch(entry.name)
            stale = entry.name.startswith(BEING_DELETED) or (match and match[1] != session)
            if stale and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(entry.name)
            elif not entry.name.startswith(BEING_WRITTEN) and entry.is_dir(follow_symlinks=False):
                for document in (CHECKPOINT_TAGS, QUARANTINE_NOTE):
                    sweep_temporary(Path(entry.path, document))
    return removed


def only_writer(run: RunDir) -> None:
    """Raises: Refused, another process is the writer of this run."""
    holder = lock_holder(run.lock)
    if holder is not None and holder != os.getpid():
        raise Refused(f"{str(run.path)!r} is being written by process {holder}; ask it by a command")


def check_tag(tag: str) -> None:
    """Raises: UsageError, not a plain word."""
    if not _TAG.fullmatch(tag):
        raise UsageError(f"tag {tag!r}: letters, digits, '.', '_' and '-' only, at most 100")
    if tag in _WORDS or tag.isdecimal():
        raise UsageError(f"tag {tag!r} already means something where a checkpoint is named; choose another word")


def _write_tags(run: RunDir, name: str, tags: set[str]) -> tuple[str, ...]:
    only_writer(run)
    path = run.checkpoint_tags(name)
    if not path.parent.is_dir():
        raise CheckpointError(f"no checkpoint {name!r} in {str(run.checkpoints)!r}")
    try:
        write_document(path, encode_tags(tags))
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return tuple(sorted(tags))
