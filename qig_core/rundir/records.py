"""Append-only record files: one `write(2)` of one whole line, so that a kill loses nothing that was returned from."""

import os
import threading
from pathlib import Path
from typing import Any, Literal

import msgspec

from qig_core.errors import RecordWriteError

Fsync = Literal["interval", "always"]

_TAIL_BLOCK = 1 << 16


class _Numbered(msgspec.Struct):
    seq: int


def last_seq(path: Path) -> int | None:
    """The seq of the last readable line; None where there is none. Reads from the end."""
    decoder = msgspec.json.Decoder(_Numbered)
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""
        while end > 0:
            start = max(0, end - _TAIL_BLOCK)
            file.seek(start)
            block = file.read(end - start) + rest
            lines = block.split(b"\n")
            rest = lines.pop(0) if start > 0 else b""
            for line in reversed(lines):
                try:
                    return decoder.decode(line).seq
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
            end = start
    return None


class RecordFile:
    """One append-only file of JSON lines, numbered by seq.

    Loss window: `append` returns after write(2), so a killed process loses no record; a power cut loses at most what
    came since the last `sync` (with fsync="always": nothing).

    Raises:
        RecordWriteError: the disk is full or fails. A line that was cut short is closed by a newline before the next.
    """

    def __init__(self, path: Path, *, fsync: Fsync = "interval") -> None:
        self.path = path
        self._fsync_always = fsync == "always"
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()
        self._dirty = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            last = last_seq(path) if size else None
        except OSError as error:
            raise RecordWriteError(error.errno, f"cannot open {str(path)!r}: {error.strerror}") from error
        self.next_seq = 0 if last is None else last + 1
        if self._torn:
            self._write(b"\n")
            self._torn = False

    def append(self, record: Any) -> int:
        """Number the record, write it as one line, and return its seq. The record's own `seq` is overwritten."""
        with self._lock:
            seq = record.seq = self.next_seq
            line = self._encoder.encode(record) + b"\n"
            self._write(b"\n" + line if self._torn else line)
            self._torn = False
            self.next_seq = seq + 1
        return seq

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise RecordWriteError(error.errno, f"cannot write {str(self.path)!r}: {error.strerror}") from error
        self._dirty = True
        if written < len(line):
            self._torn = True
            raise RecordWriteError(
                None, f"cannot write {str(self.path)!r}: the disk took {written} of {len(line)} bytes"
            )
        if self._fsync_always:
            self.sync()

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
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1
