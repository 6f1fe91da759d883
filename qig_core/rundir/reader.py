"""Reading a run that somebody else is writing: whole lines only; a bad line is a value, never an exception."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import FORMAT, Event, Manifest, Sample, Scalars, Unreadable, foreign_line

R = TypeVar("R", Sample, Scalars, Event)
D = TypeVar("D", bound=msgspec.Struct)

_CHUNK = 1 << 22
_HEAD = 128
_SHOWN = 200


def read_document(path: Path, kind: type[D]) -> D:
    """A JSON document of the run directory.

    Raises:
        RunFormatError: absent, unreadable or not of this form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise RunFormatError(f"{str(path)!r} does not exist") from error
    except OSError as error:
        raise RunFormatError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFormatError(f"{str(path)!r} is not a readable {kind.__name__}: {error}") from error


def read_manifest(run: RunDir) -> Manifest:
    """run.json, if its format is one that this reader knows.

    Raises:
        RunFormatError: unreadable, or of a newer major format.
    """
    manifest = read_document(run.manifest, Manifest)
    if manifest.format > FORMAT:
        raise RunFormatError(
            f"{str(run.manifest)!r} has format {manifest.format}; this program reads {FORMAT}: upgrade qig-tui"
        )
    return manifest


class LineDecoder(Generic[R]):
    """Whole lines of one record file into records; what cannot be read becomes an Unreadable."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path = str(path)
        self._kind: type[R] = kind
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(kind)

    def decode(self, chunk: bytes, offset: int) -> list[R | Unreadable]:
        """Args: chunk: whole lines, each with its newline; offset: where the chunk stands in the file."""
        try:
            return list(self._decoder.decode_lines(chunk))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        out: list[R | Unreadable] = []
        for line in chunk.split(b"\n")[:-1]:
            if line.strip():
                out.append(self._one(line, offset))
            offset += len(line) + 1
        return out

    def _one(self, line: bytes, offset: int) -> R | Unreadable:
        try:
            return self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = str(error)
        try:
            return msgspec.convert(foreign_line(line), self._kind)
        except (ValueError, RecursionError) as error:
            return Unreadable(self._path, offset, f"{reason}; {error}" if str(error) else reason, line[:_SHOWN])


class Batch(msgspec.Struct, Generic[R]):
    """What one poll found."""

    records: Sequence[R | Unreadable] = ()
    restarted: bool = False
    """The file was truncated or replaced by another: what was read before belongs to a file that is gone."""
    more: bool = False
    """The size limit of one poll was met; poll again at once."""


class Tail(Generic[R]):
    """Follows one append-only file by offset and stat; a notification is only a hint to poll sooner.

    The device, inode and first bytes are kept: a file that shrank, was rotated or rewritten is read from its start,
    after the rest of the old one. A last line without its newline waits. An absent file is an empty one.
    """

    def __init__(self, path: Path, kind: type[R], *, start: int = 0) -> None:
        self.path = path
        self.offset = start
        """Everything before it has been returned; always a line's start."""
        self._decoder: LineDecoder[R] = LineDecoder(path, kind)
        self._fd = -1
        self._head = b""

    def poll(self, max_bytes: int = _CHUNK) -> Batch[R]:
        """The whole lines that came since the last poll, at most about `max_bytes` of them.

        Raises:
            OSError: the file is there and cannot be opened or read.
        """
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return self._read(max_bytes) if self._fd >= 0 else Batch()
        restarted = False
        if self._fd >= 0:
            mine = os.fstat(self._fd)
            if (mine.st_dev, mine.st_ino) != (found.st_dev, found.st_ino):
                rest = self._read(max_bytes)
                if rest.records or rest.more:
                    return rest
                self.close()
                restarted = True
            elif found.st_size < self.offset or os.pread(self._fd, len(self._head), 0) != self._head:
                self.close()
                restarted = True
        if restarted:
            self.offset = 0
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return Batch(restarted=restarted)
            self._head = b""
        if len(self._head) < _HEAD:
            self._head = os.pread(self._fd, _HEAD, 0)
        batch = self._read(max_bytes)
        batch.restarted = restarted
        return batch

    def _read(self, max_bytes: int) -> Batch[R]:
        chunk = os.pread(self._fd, max_bytes, self.offset)
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) == max_bytes:
            # One line is longer than the limit: read on until its newline, or wait for it.
            chunk = _until_newline(self._fd, self.offset, chunk)
            end = chunk.rfind(b"\n") + 1
        if not end:
            return Batch()
        records = self._decoder.decode(chunk[:end], self.offset)
        self.offset += end
        return Batch(records=records, more=len(chunk) >= max_bytes)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _until_newline(fd: int, offset: int, chunk: bytes) -> bytes:
    parts = [chunk]
    offset += len(chunk)
    while block := os.pread(fd, _CHUNK, offset):
        parts.append(block)
        if b"\n" in block:
            break
        offset += len(block)
    return b"".join(parts)


def tail_start(path: Path, size_bytes: int) -> int:
    """The offset of the first whole line within the last `size_bytes` of a file; 0 for a shorter or absent one."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            if end <= size_bytes:
                return 0
            file.seek(end - size_bytes - 1)
            file.readline()
            return file.tell()
    except FileNotFoundError:
        return 0


def read_all(path: Path, kind: type[R]) -> list[R | Unreadable]:
    """Every record of a file that is there now.

    Raises:
        RunFormatError: the file cannot be read.
    """
    tail = Tail(path, kind)
    out: list[R | Unreadable] = []
    try:
        while True:
            batch = tail.poll()
            out += batch.records
            if not batch.more:
                return out
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise RunFormatError(f"{str(path)!r} cannot be read: {error.strerror or name}") from error
    finally:
        tail.close()
