"""A program in a real pseudo-terminal: what it draws, when each byte of it came, what it costs. Linux.

The far end is pyte, a terminal without a window. One thread only takes bytes off the line and notes when, another draws
them: how long drawing takes here is no delay of the program. Knows nothing about what runs in it.
"""

import codecs
import fcntl
import os
import pty
import queue
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import pyte

SYNCHRONIZED = b"\x1b[?2026$p"
"""The question whether a frame may be held back until it is whole; answered as most terminals do, with yes."""
_YES = b"\x1b[?2026;2$y"
_WINDOW = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
clock = time.perf_counter

Condition = Callable[[str], bool]
"""Of the screen's text, a line for each row."""


class Timeout(AssertionError):
    """The screen never came to show what was waited for; the message ends with what it shows."""


class Terminal:
    """Starts a program in a terminal of its own; ends it on leaving.

    Args:
        size: columns and rows.
        env: on top of what any terminal sets; nothing of the caller's own terminal or session gets in.
    """

    def __init__(self, argv: Sequence[str], *, size: tuple[int, int] = (160, 48), env: Mapping[str, str] = {}) -> None:
        columns, rows = size
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._condition: Condition | None = None
        self._came = threading.Event()
        self._came_at = 0.0
        self._drawn_at = 0.0
        self.pieces: list[tuple[float, bytes]] = []
        """Everything that came, with the time at which it did."""
        self._master, slave = pty.openpty()
        self._set_size(size)
        about = {name: os.environ[name] for name in _WINDOW if name in os.environ}
        about |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
        self.started = clock()
        # In a session of its own without a controlling terminal: a hook between fork and exec could give it one, and
        # that is not safe in a process with threads. It misses nothing but the signal of a resize, which we send.
        self._process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=about | dict(env), start_new_session=True
        )
        os.close(slave)
        self.pid = self._process.pid
        self._usage = psutil.Process(self.pid)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._take, self._draw)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _take(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                # EIO: nobody holds the other end any more.
                data = b""
            now = clock()
            if SYNCHRONIZED in data:
                self._write(_YES)
            self.pieces.append((now, data))
            self._pieces.put((now, data))
            if not data:
                return

    def _draw(self) -> None:
        while True:
            now, data = self._pieces.get()
            if not data:
                return
            with self._lock:
                self._stream.feed(self._decode(data))
                self._drawn_at = now
                self._judge()

    def _judge(self) -> None:
        if self._condition is not None and self._condition(self._text()):
            self._condition, self._came_at = None, self._drawn_at
            self._came.set()

    def _text(self) -> str:
        # Not pyte's own `display`: it fails where half of a wide character was written over.
        screen = self._screen
        return "\n".join("".join(screen.buffer[y][x].data for x in range(screen.columns)) for y in range(screen.lines))

    @property
    def text(self) -> str:
        """What is on the screen now."""
        with self._lock:
            return self._text()

    def wait(self, condition: Condition | str, timeout_s: float = 20.0) -> float:
        """Until the screen is so, or holds these words; when the bytes came that made it so (on `clock`)."""
        self.watch(condition)
        return self.awaited(timeout_s)

    def watch(self, condition: Condition | str) -> None:
        """What `awaited` is to wait for: for those who must not miss it while they do something else."""
        with self._lock:
            self._came.clear()
            self._condition = (lambda text: condition in text) if isinstance(condition, str) else condition
            self._judge()

    def awaited(self, timeout_s: float = 20.0) -> float:
        if not self._came.wait(timeout_s):
            raise Timeout(f"not seen after {timeout_s} s; pid {self.pid}, ended: {self._process.poll()}\n{self.text}")
        return self._came_at

    def send(self, keys: str) -> float:
        """Type; when."""
        now = clock()
        self._write(keys.encode())
        return now

    def _write(self, data: bytes) -> None:
        os.write(self._master, data)

    def resize(self, size: tuple[int, int]) -> None:
        columns, rows = size
        with self._lock:
            self._screen.resize(rows, columns)
        self._set_size(size)
        if self.alive:
            os.kill(self.pid, signal.SIGWINCH)

    def _set_size(self, size: tuple[int, int]) -> None:
        columns, rows = size
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def bytes_between(self, start: float, end: float) -> int:
        return sum(len(data) for at, data in list(self.pieces) if start <= at < end)

    def cpu_s(self) -> float:
        """CPU seconds of the program so far, all threads; by the kernel's ticks of 10 ms."""
        used = self._usage.cpu_times()
        return used.user + used.system

    def peak_mb(self) -> float:
        """The most memory it held at any time, resident, in MB (1e6 bytes)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6

    def maps(self, what: str) -> bool:
        """Whether a file with this in its name is loaded."""
        return what in Path(f"/proc/{self.pid}/maps").read_text()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ended(self, timeout_s: float) -> int:
        """The exit code, when it is there."""
        return self._process.wait(timeout_s)

    def drained(self, timeout_s: float = 5.0) -> None:
        """Until everything that the program sent before it ended has come and is drawn."""
        for thread in self._threads:
            thread.join(timeout_s)

    def leave(self, key: str = "q", timeout_s: float = 10.0) -> int:
        """By its own key; the exit code."""
        self.send(key)
        return self.ended(timeout_s)

    def hang_up(self) -> None:
        """The line breaks; without a controlling terminal no signal says so."""
        master, self._master = self._master, -1
        os.close(master)

    def kill(self) -> None:
        if self.alive:
            self._process.kill()
        self._process.wait()
        self.drained()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
