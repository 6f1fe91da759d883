"""How a run stops: armed -> requested -> checkpointing -> stopped, one way. No record is written here.

Who asks only sets attributes; the step boundary acts. An abort has one cause, the first that asked, and its exit code.
"""

import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import FrameType
from typing import Any, Literal, Self

import msgspec

from qig_core.errors import ExitCode
from qig_core.rundir.layout import new_run_id
from qig_core.safety.watchdog import Watchdog

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a scheduler or a service manager, a dropped terminal. One that is ignored (nohup) stays ignored."""

DEADLINE_S = 25.0
"""Launchers send SIGKILL 30 s after SIGTERM."""


class Cause(msgspec.Struct, frozen=True):
    """Why a run was stopped."""

    kind: Literal["limit", "signal", "command", "error"]
    detail: str
    exit_code: int

    @classmethod
    def limit(cls, detail: str) -> "Cause":
        return cls("limit", detail, int(ExitCode.LIMIT))

    @classmethod
    def command(cls, detail: str) -> "Cause":
        return cls("command", detail, int(ExitCode.COMMAND))

    @classmethod
    def signal(cls, signum: int) -> "Cause":
        return cls("signal", signal.Signals(signum).name, 128 + signum)

    def text(self) -> str:
        return f"{self.kind} {self.detail}"


class AbortState(IntEnum):
    """In the order in which they are passed; one may be left out, none is returned to."""

    ARMED = 0
    REQUESTED = 1
    CHECKPOINTING = 2
    STOPPED = 3


class SaveSkipped(KeyboardInterrupt):
    """Raised by the second Ctrl-C inside a save, and only there."""


class EmergencyAbortHandler:
    """Listens to signals, keeps the state of the abort, and has a watchdog end the process at the deadline.

    First Ctrl-C: stop in order at the next step boundary. Second: without waiting for a checkpoint. Third: the process
    ends where it is. Only Ctrl-C escalates: service managers and launchers repeat SIGTERM and add SIGHUP by themselves,
    and that must not cost the checkpoint. Off the main thread Python allows no signal handlers: `request` still works.

    A context manager: previous handlers are chained (called after ours, except the one that raises KeyboardInterrupt)
    and restored. In a forked child Ctrl-C does nothing, the parent decides; other signals do what they did before.
    """

    def __init__(
        self, *, deadline_s: float = DEADLINE_S, signals: bool = True, on_deadline: Callable[[], None] | None = None
    ) -> None:
        self._wanted = SIGNALS if signals else ()
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._interruptible = False
        self._cause: Cause | None = None
        self._watchdog = Watchdog(
            deadline_s, mine=self._is_mine, asked=lambda: self.asked, report=on_deadline or (lambda: None)
        )
        self.asked = False
        """Whether the run is to stop; all that the step path reads."""
        self.signum: int | None = None
        """The first signal that came."""
        self.interrupts = 0
        self.state = AbortState.ARMED
        self.stages: list[tuple[str, float]] = []
        """Each state with the Unix time at which it was entered."""
        self.id = new_run_id()
        """Of the emergency, if there is one."""

    def _is_mine(self, signum: int) -> bool:
        return signum in self._previous and signal.getsignal(signum) == self._handle

    @property
    def listening(self) -> bool:
        """Whether signal handlers are in place."""
        return bool(self._previous)

    @property
    def skip(self) -> bool:
        """Whether a second Ctrl-C asked not to wait for a checkpoint."""
        return self.interrupts >= 2

    @property
    def cause(self) -> Cause | None:
        """The first that asked; None while nobody has."""
        if self._cause is None and self.signum is not None:
            # Its byte has woken the watchdog already.
            self._enter_request(Cause.signal(self.signum))
        return self._cause

    def request(self, cause: Cause) -> Cause:
        """Ask for a stop at the next step boundary; the cause that stands, which is the first one's."""
        if self.cause is None:
            self._enter_request(cause)
            self._watchdog.begin()
        self.asked = True
        return self.cause or cause

    def _enter_request(self, cause: Cause) -> None:
        self._cause = cause
        self.advance(AbortState.REQUESTED)

    def advance(self, state: AbortState) -> None:
        """Go on to a later state."""
        assert state > self.state, f"{self.state.name} -> {state.name}"
        self.state = state
        self.stages.append((state.name.lower(), time.time()))

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Around a save: here, and only here, the second Ctrl-C raises SaveSkipped."""
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Sets attributes: no lock, no I/O, nothing that the interrupted code may be in the middle of."""
        if os.getpid() != self._pid:
            return
        if self.signum is None:
            self.signum = signum
        self.asked = True
        previous = self._previous.get(signum)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(signum, frame)
        if signum == signal.SIGINT:
            self.interrupts += 1
            if self.interrupts >= 3:
                os._exit(128 + signum)
            if self.interrupts == 2 and self._interruptible:
                raise SaveSkipped

    def __enter__(self) -> Self:
        _follow_forks()
        for signum in self._wanted:
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue
            try:
                self._previous[signum] = signal.signal(signum, self._handle)
            except ValueError:  # not the main thread
                break
        self._watchdog.start()
        _entered.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        _entered.discard(self)
        self._watchdog.stop()
        for signum in tuple(self._previous):
            self._restore(signum)

    def _restore(self, signum: int) -> None:
        mine, previous = self._is_mine(signum), self._previous.pop(signum)
        if mine:  # else somebody else has taken the signal since
            # None is a handler that was not set from Python; it cannot be set again either.
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)

    def leave_to_parent(self) -> None:
        """In a forked child: keep ignoring Ctrl-C, give back the rest."""
        self._watchdog.forget()
        for signum in tuple(self._previous):
            if signum != signal.SIGINT:
                self._restore(signum)


_entered: weakref.WeakSet[EmergencyAbortHandler] = weakref.WeakSet()
_following = False


def _follow_forks() -> None:
    """A pool ends its workers by SIGTERM, and a worker's signal must not reach the parent's watchdog."""
    global _following
    if not _following:
        _following = True
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for handler in tuple(_entered):
        handler.leave_to_parent()
    _entered.clear()
