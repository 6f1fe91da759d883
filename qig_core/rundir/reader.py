"""Reading a run that somebody else is writing: whole lines only; a bad line is a value, never an exception."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import (
    FORMAT,
    Event,
    Manifest,
    Sample,
    Scalars,
    Unreadable,
)
from qig_core.rundir.values import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES, foreign_line

R = TypeVar("R", Sample, Scalars, Event)
D = TypeVar("D", bound=msgspec.Struct)

# What fits the processor's cache is decoded a quarter faster than what does not.
_CHUNK = 1 << 18
_HEAD = 128
_MARK = 64
_SHOWN = 200

_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Formatted(msgspec.Struct):
    format: int = FORMAT


F = TypeVar("F", Manifest, _Formatted)


def open_regular(path: Path) -> int:
    """A descriptor for reading; a FIFO or a device, on which a read may never end, is an OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read_document(path: Path, kind: type[D], *, what: str = "") -> D:
    """A JSON document of the run directory.

    Raises:
        RunFormatError: absent, unreadable or not of this form.
    """
    try:
        with open(open_regular(path), "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_DOCUMENT_BYTES:
                raise RunFormatError(f"{str(path)!r} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
            return msgspec.json.decode(file.read(), type=kind)
    except FileNotFoundError as error:
        raise RunFormatError(f"{str(path)!r} does not exist") from error
    except OSError as error:
        raise RunFormatError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except _REFUSALS as error:
        raise RunFormatError(f"{str(path)!r} is not a readable {what or kind.__name__}: {error}") from error


def read_manifest(run: RunDir) -> Manifest:
    """run.json, if its format is one that this reader knows.

    Raises:
        RunFormatError: unreadable, or of a newer major format.
    """
    try:
        return _of_known_format(read_document(run.manifest, Manifest), run.manifest)
    except RunFormatError:
        # A newer format may differ in everything else, and then its number is what matters.
        _of_known_format(_formatted(run), run.manifest)
        raise


def format_of(run: RunDir) -> int:
    """The major format that run.json names, whatever else it says. Raises: RunFormatError, it cannot be read."""
    return _formatted(run).format


def _formatted(run: RunDir) -> _Formatted:
    return read_document(run.manifest, _Formatted, what="manifest")


def _of_known_format(document: F, path: Path) -> F:
    if document.format != FORMAT:
        cure = "upgrade qig-tui" if document.format > FORMAT else "there is no such format"
        raise RunFormatError(f"{str(path)!r} has format {document.format}; this program reads {FORMAT}: {cure}")
    return document


class LineDecoder(Generic[R]):
    """Whole lines of one record file into records; what cannot be read becomes an Unreadable."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path = str(path)
        self._kind: type[R] = kind
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(kind)

    def decode(self, chunk: bytes, offset: int) -> list[R | Unreadable]:
        """Args: chunk: whole lines, each with its newline; offset: where the chunk stands in the file."""
        try:
            records = self._decoder.decode_lines(chunk)
            # decode_lines knows no lines: a record over two of them, or two on one, would depend on the chunk's bounds.
            if len(records) == chunk.count(b"\n") == chunk.count(b"}\n{") + 1 and chunk[:1] == b"{":
                return list(records)
        except _REFUSALS:
            pass
        out: list[R | Unreadable] = []
        for line in chunk.split(b"\n")[:-1]:
            if line.strip():
                out.append(self._one(line, offset))
            offset += len(line) + 1
        return out

    def unreadable(self, line: bytes, offset: int, reason: str) -> Unreadable:
        return Unreadable(self._path, offset, reason, line[:_SHOWN])

    def _one(self, line: bytes, offset: int) -> R | Unreadable:
        try:
            return self._decoder.decode(line)
        except _REFUSALS as error:
            reason = str(error)
        try:
            return msgspec.convert(foreign_line(line), self._kind)
        except (ValueError, RecursionError) as error:
            return self.unreadable(line, offset, reason if str(error) in reason else f"{reason}; {error}")


class Batch(msgspec.Struct, Generic[R]):
    """What one poll found."""

    records: Sequence[R | Unreadable] = ()
    restarted: bool = False
    """The file was truncated or replaced by another: what was read before belongs to a file that is gone."""
    more: bool = False
    """The size limit of one poll was met; poll again at once."""


class Tail(Generic[R]):
    """Follows one append-only file by offset and stat; a notification is only a hint to poll sooner.

    The device, inode, first bytes and last bytes read are kept: a file that shrank, was rotated or rewritten is read
    from its start, after the rest of the old one. A last line without its newline waits; an absent file is empty.
    """

    def __init__(self, path: Path, kind: type[R], *, start: int = 0) -> None:
        self.path = path
        self.offset = start
        """Everything before it has been returned; a line's start, or within a line that is too long to be one."""
        self._decoder: LineDecoder[R] = LineDecoder(path, kind)
        self._fd = -1
        self._head = b""
        self._mark = b""
        """What stands just before the offset."""
        self._skipping = False
        """The offset is within a line that was reported as too long."""

    def poll(self, max_bytes: int = _CHUNK) -> Batch[R]:
        """The whole lines that came since the last poll, at most about `max_bytes` of them.

        Raises:
            OSError: the file is there and cannot be opened or read.
        """
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            found = None
        restarted = False
        if self._fd >= 0:
            mine = os.fstat(self._fd)
            is_another = mine.st_size < self.offset or self._is_rewritten()
            if found is not None and not os.path.samestat(mine, found):
                # Of a file that was cut or rewritten before it was replaced, nobody knows what was read already.
                rest: Batch[R] = Batch() if is_another else self._read(max_bytes)
                if not is_another and not rest.records and not rest.more:
                    rest = self._fragment()
                if rest.records or rest.more:
                    rest.more = True
                    return rest
                self.close()
            # Held under a name that is gone, or under its own, it is read again without being opened again.
            restarted = is_another or self._fd < 0
            if restarted:
                self._begin_again()
        if self._fd < 0:
            try:
                self._fd = open_regular(self.path)
            except FileNotFoundError:
                return Batch(restarted=restarted)
            if os.fstat(self._fd).st_size < self.offset:
                restarted = True
                self.offset = 0
            start = max(self.offset - _MARK, 0)
            self._mark = os.pread(self._fd, self.offset - start, start)
        if len(self._head) < _HEAD:
            self._head = os.pread(self._fd, _HEAD, 0)
        batch = self._read(max_bytes)
        batch.restarted = restarted
        return batch

    def _is_rewritten(self) -> bool:
        return (
            os.pread(self._fd, len(self._head), 0) != self._head
            or os.pread(self._fd, len(self._mark), self.offset - len(self._mark)) != self._mark
        )

    def _begin_again(self) -> None:
        self.offset = 0
        self._head = self._mark = b""
        self._skipping = False

    def _advance(self, read: bytes) -> None:
        self.offset += len(read)
        self._mark = (self._mark + read[-_MARK:])[-_MARK:]

    def _read(self, max_bytes: int) -> Batch[R]:
        max_bytes = min(max_bytes, MAX_LINE_BYTES)
        chunk = os.pread(self._fd, max_bytes, self.offset)
        more = len(chunk) >= max_bytes
        skipped = self._skipping
        if skipped:
            end = chunk.find(b"\n") + 1
            self._skipping = not end
            self._advance(chunk[:end] if end else chunk)
            chunk = chunk[end:] if end else b""
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) == max_bytes:
            # One line is longer than the limit: read on until its newline, or wait for it.
            chunk = _until_newline(self._fd, self.offset, chunk)
            end = chunk.rfind(b"\n") + 1
            if not end and len(chunk) >= MAX_LINE_BYTES:
                bad = self._decoder.unreadable(chunk, self.offset, f"a line longer than {MAX_LINE_BYTES} bytes")
                self._skipping = True
                self._advance(chunk)
                return Batch(records=[bad], more=True)
        if not end:
            return Batch(more=more and skipped)
        records = self._decoder.decode(chunk[:end], self.offset)
        self._advance(chunk[:end])
        return Batch(records=records, more=more)

    def _fragment(self) -> Batch[R]:
        """The torn last line of a file that was replaced: its newline will never come."""
        line = b"" if self._skipping else os.pread(self._fd, MAX_LINE_BYTES, self.offset)
        if not line:
            return Batch()
        records = self._decoder.decode(line + b"\n", self.offset)
        self._advance(line)
        return Batch(records=records, more=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _until_newline(fd: int, offset: int, chunk: bytes) -> bytes:
    parts = [chunk]
    length = len(chunk)
    while block := os.pread(fd, min(_CHUNK, MAX_LINE_BYTES - length), offset + length):
        parts.append(block)
        length += len(block)
        if b"\n" in block:
            break
    return b"".join(parts)


def tail_start(path: Path, size_bytes: int) -> int:
    """The offset of a line's start: the first one within the last `size_bytes` of a file, or the last one before.

    0 for a shorter or absent file.
    """
    try:
        with open(open_regular(path), "rb") as file:
            end = file.seek(0, os.SEEK_END)
            while size_bytes < end:
                file.seek(end - size_bytes - 1)
                if file.readline(size_bytes + 1).endswith(b"\n"):
                    return file.tell()
                # The last line alone is longer and not ended yet: where it begins lies further back.
                if size_bytes > MAX_LINE_BYTES:
                    return 0
                size_bytes = max(1, 2 * size_bytes)
            return 0
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
