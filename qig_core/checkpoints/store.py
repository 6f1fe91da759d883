"""A checkpoint is published whole or not at all. No torch.

    checkpoints/step-00018000-1f0a9c/   payload files, manifest.json (the commit marker, sealed), tags.json (not hashed)
    checkpoints/.tmp-SESSION-xxxxxx     being written; checkpoints/.bad-NAME  quarantined; .del-NAME  being deleted

Who changes anything here holds the run's lock, or nobody does.
"""

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from qig_core.checkpoints.catalog import encode_tags
from qig_core.checkpoints.digest import StreamDigest
from qig_core.checkpoints.manifest_file import encode_sealed, fingerprint, is_payload_name, read_sealed
from qig_core.checkpoints.upkeep import check_tag, only_writer
from qig_core.errors import CheckpointError, UsageError
from qig_core.rundir.atomic import fsync_directory, write_document
from qig_core.rundir.layout import (
    BEING_DELETED,
    BEING_WRITTEN,
    CHECKPOINT_MANIFEST,
    CHECKPOINT_TAGS,
    QUARANTINED,
    RunDir,
)
from qig_core.rundir.schema import CheckpointManifest, FileEntry
from qig_core.rundir.values import split_nonfinite

SPACE_FACTOR = 1.1
"""Free space that must be there before a save, in sizes of what is to be written."""

_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_OURS = {"name", "run", "t", "files", "fingerprint", "format"}
"""Fields of the manifest that nobody else fills in."""

_CHUNK = 8 << 20
_BEHIND = 32
"""Chunks that the hash may lag behind the writing; pieces that were copied from a device stay in memory so long."""
_DRAWS = 8


class Pieces(Protocol):
    """A payload that is written piece by piece: its size is known before its bytes are."""

    nbytes: int

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


Payload = bytes | bytearray | memoryview | Pieces


def publish(
    run: RunDir,
    *,
    session: str,
    step: int,
    reason: str,
    files: Mapping[str, Payload],
    tags: Sequence[str] = (),
    sha256: bool = False,
    **facts: Any,
) -> CheckpointManifest:
    """Write one checkpoint; when this returns it survives a power cut, and before that it is not there at all.

    Args:
        files: plain file name to content. Contents are read once, in this order, and must not change meanwhile.
        tags: there from the first moment.
        sha256: digest each file by SHA-256 too, for those who must; slow where the processor has no instruction for it.
        facts: further fields of CheckpointManifest (metrics, nonfinite, basin, conditions, data_position, ...).

    Raises:
        UsageError: a name or a fact that cannot be.
        Refused: another process is the writer of this run.
        CheckpointError: the disk is too full or refused; nothing of it is left, other checkpoints are untouched. Where
            only the last fsync was refused a whole one is left, and the message says so.
    """
    for name in files:
        if not is_payload_name(name):
            raise UsageError(f"payload file {name!r} is not a plain file name")
    if not _SESSION.fullmatch(session):
        raise UsageError(f"session {session!r}: letters and digits only")
    if step < 0 or not files:
        raise UsageError(
            f"a checkpoint needs a step >= 0 and at least one file, not step {step} and {len(files)} files"
        )
    for tag in tags:
        check_tag(tag)
    name = _fresh_name(run, step)
    manifest = _draft(name=name, run=run.id, session=session, step=step, reason=reason, facts=facts)
    only_writer(run)
    size = sum(payload.nbytes if hasattr(payload, "nbytes") else len(payload) for payload in files.values())
    temporary: Path | None = None
    try:
        run.checkpoints.mkdir(exist_ok=True)
        if not os.listdir(run.checkpoints):  # its own name may not be durable yet, whoever made it
            fsync_directory(run.path)
        _check_space(run, step, size)
        temporary = run.checkpoints / f"{BEING_WRITTEN}{session}-{secrets.token_hex(3)}"
        temporary.mkdir()
        for file, payload in files.items():
            manifest.files.append(_write_payload(temporary / file, payload, sha256))
        fsync_directory(temporary)
        if tags:
            write_document(temporary / CHECKPOINT_TAGS, encode_tags(tags))
        manifest.fingerprint = fingerprint(manifest.files)
        # Never earlier than what is published already: a clock that was set back must not make an old one the latest.
        manifest.t = max(time.time(), _newest_t(run) + 1e-3)
        # Includes the fsync of the temporary directory: the rename below must never be there without the manifest.
        write_document(temporary / CHECKPOINT_MANIFEST, encode_sealed(manifest))
        final = run.checkpoint(manifest.name)
        if os.path.lexists(final):  # rename(2) would replace an empty directory without a word
            raise CheckpointError(f"{str(final)!r} exists; a checkpoint never replaces another")
        temporary.rename(final)
        temporary = None
        try:
            fsync_directory(run.checkpoints)
        except OSError as error:  # to take it away again could leave a part of it after a power cut
            raise CheckpointError(
                f"checkpoint {manifest.name!r} is whole, but the disk refused to make its name durable in "
                f"{str(run.checkpoints)!r}: {_why(error)}; a power cut may take it"
            ) from error
    except OSError as error:
        raise CheckpointError(_refusal(run, step, size, error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _draft(
    *, name: str, run: str, session: str, step: int, reason: str, facts: Mapping[str, Any]
) -> CheckpointManifest:
    """The manifest before anything is written; what could not be read back is refused here, not after the payload."""
    unknown = sorted(facts.keys() - (set(CheckpointManifest.__struct_fields__) - _OURS))
    if unknown:
        raise UsageError(f"a checkpoint's manifest takes no {', '.join(map(repr, unknown))}")
    manifest = CheckpointManifest(
        name=name, run=run, session=session, step=step, t=0.0, reason=reason, files=[], fingerprint="", **facts
    )
    try:
        measured = {metric: value for metric, value in manifest.metrics.items() if value is not None}
        finite, nonfinite = split_nonfinite(measured)
        manifest.metrics = {**manifest.metrics, **finite}
        manifest.nonfinite = {**manifest.nonfinite, **nonfinite}
        encode_sealed(manifest)
    except (ValueError, TypeError) as error:
        raise UsageError(f"a checkpoint's manifest cannot hold this: {error}") from error
    return manifest


def _fresh_name(run: RunDir, step: int) -> str:
    for _ in range(_DRAWS):
        name = f"step-{step:08d}-{secrets.token_hex(3)}"
        if not any(os.path.lexists(run.checkpoints / f"{prefix}{name}") for prefix in ("", QUARANTINED, BEING_DELETED)):
            return name
    raise CheckpointError(f"no free checkpoint name for step {step} in {str(run.checkpoints)!r}: {name!r} exists")


def _write_payload(path: Path, payload: Payload, sha256: bool) -> FileEntry:
    """Write, hash and fsync one file, each byte taken up once."""
    pieces = (payload,) if isinstance(payload, bytes | bytearray | memoryview) else payload
    size = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with StreamDigest(_BEHIND, sha256=sha256) as digest:
            for piece in pieces:
                view = memoryview(piece)
                size += view.nbytes
                if view.nbytes:
                    view = view.cast("B")
                while view:
                    chunk = view[:_CHUNK]
                    digest.feed(chunk)
                    view = view[len(chunk) :]
                    while chunk:
                        chunk = chunk[os.write(fd, chunk) :]
            os.fsync(fd)
            return FileEntry(path=path.name, size=size, blake3=digest.hexdigest(), sha256=digest.sha256())
    finally:
        os.close(fd)


def _newest_t(run: RunDir) -> float:
    newest = 0.0
    with os.scandir(run.checkpoints) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with suppress(OSError, ValueError):  # damaged, or no checkpoint
                    newest = max(newest, read_sealed(Path(entry.path) / CHECKPOINT_MANIFEST).t)
    return newest


def _check_space(run: RunDir, step: int, size: int) -> None:
    facts = os.statvfs(run.checkpoints)
    free = facts.f_bavail * facts.f_frsize
    if free < SPACE_FACTOR * size:
        raise CheckpointError(
            f"no checkpoint at step {step}: {SPACE_FACTOR * size / 1e6:.1f} MB must be free in "
            f"{str(run.checkpoints)!r} and {free / 1e6:.1f} MB are; free space or prune"
        )


def _refusal(run: RunDir, step: int, size: int, error: OSError) -> str:
    return (
        f"no checkpoint at step {step}: {size / 1e6:.1f} MB could not be stored in {str(run.checkpoints)!r}: "
        f"{_why(error)}; checkpoints published before are untouched"
    )


def _why(error: OSError) -> str:
    return f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})"
