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
    """

    def __init__(self, run: RunDir, session: str, *, each_second: Callable[[], None], period_s: float = 1.0) -> None:
        self._run = run
        self._session = session
        self._each_second = each_second
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="qig-heartbeat", daemon=True)
        self._beat = 0
        self._last_step: float | None = None
        self._gap_from: float | None = None
        self._doing = "start"
        self._ring = [0.0] * _RING
        self._steps = 0
        self.step: int | None = None
        self.error: OSError | None = None
        """The last refusal of the disk; None again after a beat that was written."""
        self.failure: Exception | None = None
        """What broke in `each_second`, last; the beats go on."""

    @property
    def doing(self) -> str:
        """step | eval | save | pause | start | stop. What is not a step is no part of a step's time."""
        return self._doing

    @doing.setter
    def doing(self, value: str) -> None:
        if self._doing == "pause" != value and self._last_step is not None:
            # A pause is no part of the last step's age: what follows it would look hung.
            self._last_step = time.monotonic()
        self._doing = value
        if value != "step":
            self._gap_from = None

    def start(self) -> None:
        self.beat()
        self._thread.start()

    def step_done(self, step: int) -> None:
        """A step boundary was passed. Step times are the gaps between two calls with nothing else done between."""
        now = time.monotonic()
        last = self._gap_from
        if last is not None:
            self._ring[self._steps % _RING] = now - last
            self._steps += 1
        self._doing = "step"
        self.step = step
        self._last_step = self._gap_from = now

    def beat(self) -> None:
        """Write the heartbeat now."""
        self._beat += 1
        last = self._last_step
        times = sorted(self._ring[: min(self._steps, _RING)])
        document = Heartbeat(
            session=self._session,
            beat=self._beat,
            t=time.time(),
            pid=os.getpid(),
            step=self.step,
            last_step_age_s=None if last is None else round(time.monotonic() - last, 3),
            doing=self._doing,
            step_ms_p50=round(1e3 * percentile(times, 0.5), 3) if times else None,
            step_ms_p99=round(1e3 * percentile(times, 0.99), 3) if times else None,
        )
        try:
            write_document(self._run.heartbeat, encode_document(document), durable=False)
            self.error = None
        except OSError as error:
            self.error = error

    def _beat_on(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self._each_second()
            except Exception as error:
                # The edge of a thread: one that dies would make a healthy run look hung. The step boundary reports it.
                self.failure = error
            self.beat()

    def stop(self) -> None:
        """End the thread after a last beat."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self.beat()
