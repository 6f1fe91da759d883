"""The one writer of a run: an fcntl record lock on an empty file, held for life."""

import fcntl
import os
import struct
import sys
from pathlib import Path

from qig_core.errors import RunLocked

# A POSIX record lock falls when ANY descriptor of the file is closed in the process that holds it, so this process
# must never open a lock file of its own a second time. Keyed by (device, inode) and pid: a forked child holds nothing.
_held: dict[tuple[int, int], int] = {}

_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


class RunLock:
    """Take the lock of a run, or say who holds it.

    lockf and not flock: a record lock is not inherited by forked data-loader workers, which would keep a run locked
    after its trainer died.

    Raises:
        RunLocked: another process is the writer.
    """

    def __init__(self, path: Path) -> None:
        holder = lock_holder(path)
        if holder is not None:
            raise RunLocked(f"{str(path.parent)!r} is being written by process {holder}; stop that one first")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise RunLocked(f"{str(path.parent)!r} is being written by another process; stop that one first") from error
        stat = os.fstat(self._fd)
        self._key = (stat.st_dev, stat.st_ino)
        _held[self._key] = os.getpid()

    def release(self) -> None:
        if self._fd >= 0:
            _held.pop(self._key, None)
            os.close(self._fd)
            self._fd = -1


def lock_holder(path: Path) -> int | None:
    """The pid that holds a run's lock (-1 where it holds it on another host), or None where it is free.

    Asks only (F_GETLK), takes nothing: a trainer that starts at this moment is not disturbed.
    """
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    if _held.get((stat.st_dev, stat.st_ino)) == os.getpid():
        return os.getpid()
    if not sys.platform.startswith("linux"):
        return None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return None
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else (pid or -1)
