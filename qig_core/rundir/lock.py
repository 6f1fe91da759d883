"""The one writer of a run: an fcntl record lock on an empty file, held for life."""

import errno
import fcntl
import os
import struct
import sys
import threading
from pathlib import Path

from qig_core.errors import RecordWriteError, RunLocked

# A POSIX record lock falls when ANY descriptor of the file is closed in the process that holds it, so this process
# must never open a lock file of its own a second time. Keyed by (device, inode) and pid: a forked child holds nothing.
_held: dict[tuple[int, int], int] = {}
_mutex = threading.Lock()

_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


def _renew_mutex() -> None:
    global _mutex
    _mutex = threading.Lock()


# A child that is forked while another thread is inside would wait for ever.
os.register_at_fork(after_in_child=_renew_mutex)


class RunLock:
    """Take the lock of a run, or say who holds it.

    lockf and not flock: a record lock is not inherited by forked data-loader workers, which would keep a run locked
    after its trainer died.

    Raises:
        RunLocked: another process is the writer.
        RecordWriteError: the lock file cannot be made or locked at all.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        with _mutex:
            _refuse_if_held(path)
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1
                    if error.errno in (errno.EACCES, errno.EAGAIN):
                        raise RunLocked(
                            f"{str(path.parent)!r} is being written by another process; stop that one first"
                        ) from error
                raise RecordWriteError(error.errno, f"cannot lock {str(path)!r}: {error.strerror}") from error
            stat = os.fstat(self._fd)
            self._key = (stat.st_dev, stat.st_ino)
            _held[self._key] = os.getpid()

    def release(self) -> None:
        with _mutex:
            if self._fd >= 0:
                _held.pop(self._key, None)
                os.close(self._fd)
                self._fd = -1


def refuse_if_locked(path: Path) -> None:
    """Ask only: what is known early spares a long way to the same answer.

    Raises:
        RunLocked: somebody is the writer.
    """
    with _mutex:
        _refuse_if_held(path)


def _refuse_if_held(path: Path) -> None:
    holder = _holder(path)
    if holder is not None:
        who = f"process {holder}" if holder > 0 else "a process on another host or in another container"
        raise RunLocked(f"{str(path.parent)!r} is being written by {who}; stop that one first")


def lock_holder(path: Path) -> int | None:
    """The pid that holds a run's lock (-1 where it has none here: another host or container), or None where it is free.

    Asks only (F_GETLK), takes nothing: a trainer that starts at this moment is not disturbed. None also where it cannot
    be asked: not Linux, or a file that may not be read.
    """
    with _mutex:
        return _holder(path)


def _holder(path: Path) -> int | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    if _held.get((stat.st_dev, stat.st_ino)) == os.getpid():
        return os.getpid()
    if not sys.platform.startswith("linux"):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid if pid > 0 else -1
