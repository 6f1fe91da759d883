"""Append-only record files: one `write(2)` of one whole line, so that a kill loses nothing that was returned from."""

import errno
import os
import threading
from pathlib import Path
from typing import Any, Literal

import msgspec

from qig_core.errors import RecordWriteError
from qig_core.rundir.atomic import fsync_directory
from qig_core.rundir.values import MAX_LINE_BYTES, foreign_line, plain, without_surrogates

Fsync = Literal["interval", "always"]

_write = os.write
_NEWLINE = 0x0A
_TAIL_BLOCK = 1 << 16
_MAX_SEQ = 1 << 53

# How often this process is the child of a fork: a record file belongs to the process that opened it.
_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)


class _Numbered(msgspec.Struct):
    seq: int


def last_seq(path: Path) -> int | None:
    """The seq of the last readable line; None where there is none. Reads from the end."""
    decoder = msgspec.json.Decoder(_Numbered)
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        # The blocks of a line whose start is not reached yet, last first: joined once.
        parts: list[bytes] = []
        length = 0
        while end > 0:
            start = max(0, end - _TAIL_BLOCK)
            file.seek(start)
            head, *lines = file.read(end - start).split(b"\n")
            end = start
            if lines:
                lines[-1] = b"".join(reversed([*parts, lines[-1]])) if length <= MAX_LINE_BYTES else b""
                parts, length = [], 0
                for line in reversed(lines):
                    if (seq := _seq_of(line, decoder)) is not None:
                        return seq
            length += len(head)
            if length <= MAX_LINE_BYTES:
                parts.append(head)
        return _seq_of(b"".join(reversed(parts)), decoder) if length <= MAX_LINE_BYTES else None


def _seq_of(line: bytes, decoder: msgspec.json.Decoder[_Numbered]) -> int | None:
    if not line or len(line) > MAX_LINE_BYTES:
        return None
    try:
        seq = decoder.decode(line).seq
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            seq = foreign_line(line).get("seq")  # type: ignore[assignment]  # checked below
        except (ValueError, RecursionError):
            return None
    return seq if type(seq) is int and 0 <= seq < _MAX_SEQ else None


class RecordFile:
    """One append-only file of JSON lines, numbered by seq. Threads may share it; a forked child may not.

    Loss window: `append` returns after write(2), so a killed process loses no record; a power cut loses at most what
    came since the last `sync` (with fsync="always": nothing).

    Raises:
        RecordWriteError: the disk is full or fails. A line that was cut short is closed by a newline before the next.
    """

    def __init__(self, path: Path, *, fsync: Fsync = "interval") -> None:
        self.path = path
        self._fsync_always = fsync == "always"
        self._encode_into = msgspec.json.Encoder(enc_hook=plain).encode_into
        # One buffer for every line: a third less than a new one each time. Under the lock.
        self._line = bytearray()
        self._lock = threading.Lock()
        self._generation = _generation
        self._dirty = False
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            last = last_seq(path) if size else None
            if not size:
                fsync_directory(path.parent)
        except OSError as error:
            self.close()
            raise RecordWriteError(error.errno, f"cannot open {str(path)!r}: {error.strerror}") from error
        self.next_seq = 0 if last is None else last + 1
        if self._torn:
            try:
                _write(self._fd, b"\n")
            except OSError as error:
                os.close(self._fd)
                raise self._refused(error, 0, b"\n") from error
            self._torn, self._dirty = False, True

    def append(self, record: Any) -> int:
        """Number the record, write it as one line, and return its seq. The record's own `seq` is overwritten.

        Raises:
            TypeError: it holds something that JSON does not know.
            ValueError: its line is longer than 16 MiB.
        """
        if self._generation != _generation:
            raise RecordWriteError(errno.EPERM, f"{str(self.path)!r} belongs to the process that opened it, not a fork")
        with self._lock:
            seq = record.seq = self.next_seq
            line = self._line
            try:
                self._encode_into(record, line)
            except UnicodeEncodeError:
                self._encode_into(without_surrogates(msgspec.to_builtins(record, enc_hook=plain)), line)
            line.append(_NEWLINE)
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"a record of {len(line)} bytes, more than {MAX_LINE_BYTES}")
            if self._torn:
                line[:0] = b"\n"
            try:
                written = _write(self._fd, line)
            except OSError as error:
                raise self._refused(error, 0, line) from error
            self._dirty = True
            self._torn = written != len(line) and not self._write_rest(line, written)
            self.next_seq = seq + 1
            if self._fsync_always:
                self.sync()
        return seq

    def _write_rest(self, line: bytearray, written: int) -> bool:
        """After a short write: a disk that is full says so at the next one. Whether the line has its newline now."""
        self._torn = True
        try:
            while written < len(line):
                written += _write(self._fd, line[written:])
        except OSError as error:
            if written == len(line) - 1:
                # Whole but for its newline, which the next line or the next opening brings: it must not come twice.
                return False
            raise self._refused(error, written, line) from error
        return True

    def _refused(self, error: OSError, written: int, line: bytes | bytearray) -> RecordWriteError:
        after = f" (after {written} of {len(line)} bytes)" if written else ""
        return RecordWriteError(error.errno, f"cannot write {str(self.path)!r}: {error.strerror}{after}")

    def sync(self) -> None:
        """Force what was written to the disk, if anything was."""
        if self._dirty:
            self._dirty = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise RecordWriteError(error.errno, f"cannot sync {str(self.path)!r}: {error.strerror}") from error

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if self._dirty:
                    os.fsync(fd)
            except OSError as error:
                raise RecordWriteError(error.errno, f"cannot sync {str(self.path)!r}: {error.strerror}") from error
            finally:
                os.close(fd)
