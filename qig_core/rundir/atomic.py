"""Documents that are replaced whole or not at all."""

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

import msgspec

from qig_core.rundir.values import plain, without_surrogates


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable, where its file system can do that."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems know no fsync of a directory.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def write_document(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o666) -> None:
    """Replace `path` by `content`: temporary name in the same directory, fsync, rename, fsync of the directory.

    Args:
        durable: False leaves out both fsyncs (the heartbeat: a power cut may lose it).
        mode: permissions of the new file, less the umask.

    Raises:
        OSError: as the system says; no temporary file stays, and the old document is untouched unless only the last
            fsync failed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_directory(path.parent)


def sweep_temporary(path: Path) -> None:
    """Remove what killed writers of the document `path` left beside it. For the holder of the run's lock."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{12}}\.tmp")
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if leftover.fullmatch(name):
                (path.parent / name).unlink(missing_ok=True)


def encode_document(value: object) -> bytes:
    """A structure as indented JSON with a final newline, for people to read."""
    try:
        line = msgspec.json.encode(value, enc_hook=plain)
    except UnicodeEncodeError:
        line = msgspec.json.encode(without_surrogates(msgspec.to_builtins(value, enc_hook=plain)))
    return msgspec.json.format(line, indent=2) + b"\n"
