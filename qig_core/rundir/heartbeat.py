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
        self._ring = [0.0] * _RING
        self._steps = 0
        self.step: int | None = None
        self.doing = "start"
        self.error: OSError | None = None

    def start(self) -> None:
        self.beat()
        self._thread.start()

    def step_done(self, step: int) -> None:
        """A step boundary was passed. Step times are the gaps between two calls with `doing == "step"`."""
        now = time.monotonic()
        last = self._last_step
        if last is not None and self.doing == "step":
            self._ring[self._steps % _RING] = now - last
            self._steps += 1
        self.doing = "step"
        self.step = step
        self._last_step = now

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
            doing=self.doing,
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
            self._each_second()
            self.beat()

    def stop(self) -> None:
        """End the thread after a last beat."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self.beat()
