"""The thread that ends a process whose orderly stop takes too long. It must not need anything that may be stuck."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from qig_core.errors import ExitCode

REPORT_S = 2.0
"""What the report may take after the deadline: the disk may be what hangs."""

_BEGIN = 255  # no signal has this number
_END = 0
_LOOK_EVERY_MS = 1000


class Watchdog:
    """Sleeps on a pipe until an abort begins, then ends the process at the deadline with exit code 78.

    The pipe is the interpreter's signal wake-up descriptor: the C half of a signal's handling writes to it at once,
    even while the main thread is stuck in a call that never returns to Python, which is when a watchdog is needed.

    Args:
        mine: whether a signal that came is one that asks for a stop.
        asked: whether a stop was asked for in any other way.
        report: called at the deadline in a thread of its own, and given two seconds.
    """

    def __init__(
        self,
        deadline_s: float,
        *,
        mine: Callable[[int], bool],
        asked: Callable[[], bool],
        report: Callable[[], None],
    ) -> None:
        self._deadline_s = deadline_s
        self._mine = mine
        self._asked = asked
        self._report = report
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_fd: int | None = None
        self._thread = threading.Thread(target=self._watch, name="qig-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; on the main thread also for signals that Python code cannot yet see."""
        if threading.current_thread() is threading.main_thread():
            self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread.start()

    def begin(self) -> None:
        """The deadline counts from now, unless it already does."""
        self._send(_BEGIN)

    def stop(self) -> None:
        """The process ends in order: no deadline any more."""
        self._restore_fd(self._previous_fd)
        self._send(_END)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def forget(self) -> None:
        """In a forked child: its signals are none of the parent's."""
        self._restore_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def _restore_fd(self, fd: int | None) -> None:
        if self._previous_fd is None or fd is None:
            return
        with contextlib.suppress(ValueError, OSError):  # not the main thread, or the previous owner closed it
            found = signal.set_wakeup_fd(fd)
            if found != self._write:  # somebody took over in between
                signal.set_wakeup_fd(found)
        self._previous_fd = None

    def _send(self, byte: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread as well
            os.write(self._write, bytes([byte]))

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        deadline: float | None = None
        while True:
            left_ms = None if deadline is None else max(0.0, 1e3 * (deadline - time.monotonic()))
            heard = os.read(self._read, 4096) if poll.poll(_LOOK_EVERY_MS if left_ms is None else left_ms) else b""
            self._pass_on(heard)
            if _END in heard:
                return
            if deadline is None:
                # Asked is a second way: an event loop may have taken the wake-up descriptor for itself.
                if self._asked() or any(byte == _BEGIN or self._mine(byte) for byte in heard):
                    deadline = time.monotonic() + self._deadline_s
            elif time.monotonic() >= deadline:
                self._expire()

    def _pass_on(self, heard: bytes) -> None:
        """Signals belong to whoever held the wake-up descriptor before, too."""
        numbers = bytes(byte for byte in heard if byte not in (_BEGIN, _END))
        if numbers and self._previous_fd is not None and self._previous_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._previous_fd, numbers)

    def _expire(self) -> None:
        thread = threading.Thread(target=self._report, name="qig-watchdog-report", daemon=True)
        thread.start()
        thread.join(REPORT_S)
        os._exit(ExitCode.DEADLINE)
