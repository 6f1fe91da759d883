"""Documents that are replaced whole or not at all."""

import os
import secrets
from pathlib import Path

import msgspec


def fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_document(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content`: temporary name in the same directory, fsync, rename, fsync of the directory.

    Args:
        durable: False leaves out both fsyncs (the heartbeat: a power cut may lose it).

    Raises:
        OSError: as the system says; the old document is then untouched and no temporary file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
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


def encode_document(value: object) -> bytes:
    """A structure as indented JSON with a final newline, for people to read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
