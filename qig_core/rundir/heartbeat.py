"""The thread that proves a run alive once a second, and listens while the loop computes."""

import math
import os
import threading
import time
from collections.abc import Callable

from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Heartbeat

_RING = 256


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty list."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class HeartbeatThread:
    """Writes heartbeat.json every second and calls what else must not wait for the step.

    The step path only sets attributes (`step_done`, `doing`); everything that touches the disk happens here.
    A disk that refuses the heartbeat does not stop it: the next beat tries again, `error` holds the last refusal.
    What ends the thread itself stands in `death`, for the step boundary to call `restart`.
    """

    def __init__(self, run: RunDir, session: str, *, each_second: Callable[[], None], period_s: float = 1.0) -> None:
        self._run = run
        self._session = session
        self._watchers: tuple[Callable[[], None], ...] = (each_second,)
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = self._new_thread()
        self._beat = 0
        self._last_step: float | None = None
        self._gap_from: float | None = None
        self._paused_at: float | None = None
        self._doing = "start"
        self._ring = [0.0] * _RING
        self._steps = 0
        self.step: int | None = None
        self.error: OSError | None = None
        """The last refusal of the disk; None again after a beat that was written."""
        self.failure: Exception | None = None
        """What broke last in a beat or in what is called beside it; the beats go on."""
        self.death: BaseException | None = None
        """What ended the thread; None while it lives, and after an orderly stop."""
        self.step_p99_s: float | None = None
        """The 99th percentile of step times without the longest, as of the last beat; None before there is one."""

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._live, name="qig-heartbeat", daemon=True)

    @property
    def last_step_age_s(self) -> float | None:
        """Since the last step boundary, a pause not counted; None before the first.

        `doing` is to be read before it: then an age from before a boundary never meets the word from after it.
        """
        paused, last = self._paused_at, self._last_step
        return None if last is None else max(0.0, (time.monotonic() if paused is None else paused) - last)

    @property
    def doing(self) -> str:
        """step | eval | save | restore | pause | start | stop. What is not a step is no part of a step's time."""
        return self._doing

    @doing.setter
    def doing(self, value: str) -> None:
        if self._doing != "pause" == value:
            self._paused_at = time.monotonic()
        elif self._doing == "pause" != value:
            # A pause is no part of the last step's age: what follows it would look hung.
            self._last_step = None if self._last_step is None else time.monotonic()
            self._paused_at = None
        self._doing = value
        if value != "step":
            self._gap_from = None

    def watch(self, each_second: Callable[[], None]) -> None:
        """Have something called every second from now on, in the thread; what it raises stands in `failure`."""
        self._watchers += (each_second,)

    def start(self) -> None:
        self.beat()
        self._thread.start()

    def restart(self) -> None:
        """Go on after `death`, which is then None.

        Raises:
            RuntimeError, MemoryError: the system gives no thread; `death` stands.
        """
        thread = self._new_thread()
        death, self.death = self.death, None
        try:
            thread.start()
        except BaseException:
            self.death = death
            raise
        self._thread = thread

    def step_done(self, step: int) -> None:
        """A step boundary was passed. Step times are the gaps between two calls with nothing else done between."""
        now = time.monotonic()
        last = self._gap_from
        if last is not None:
            self._ring[self._steps % _RING] = now - last
            self._steps += 1
        self.step = step
        self._last_step = self._gap_from = now
        self._paused_at = None
        self._doing = "step"

    def beat(self) -> None:
        """Write the heartbeat now."""
        self._beat += 1
        doing, age = self._doing, self.last_step_age_s
        times = sorted(self._ring[: min(self._steps, _RING)])
        # Without the longest: one stop of the process, or one hang, is no measure of a step.
        p99 = self.step_p99_s = percentile(times[:-1] or times, 0.99) if times else None
        document = Heartbeat(
            session=self._session,
            beat=self._beat,
            t=time.time(),
            pid=os.getpid(),
            step=self.step,
            last_step_age_s=None if age is None else round(age, 3),
            doing=doing,
            step_ms_p50=round(1e3 * percentile(times, 0.5), 3) if times else None,
            step_ms_p99=None if p99 is None else round(1e3 * p99, 3),
        )
        try:
            write_document(self._run.heartbeat, encode_document(document), durable=False)
            self.error = None
        except OSError as error:
            self.error = error

    def _live(self) -> None:
        try:
            while not self._stop.wait(self._period_s):
                # The beat first: it comes even where what follows ends the thread each time.
                for call in (self.beat, *self._watchers):
                    try:
                        call()
                    except Exception as error:
                        # A thread that dies makes a healthy run look hung. The step boundary reports it.
                        self.failure = error
        except BaseException as error:
            self.death = error

    def stop(self) -> None:
        """End the thread after a last beat."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self.beat()
