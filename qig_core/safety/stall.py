"""No step for too long: one condition for it, and where every thread stood. Beside the loop; stops nothing."""

import faulthandler
import os
import time
from collections.abc import Callable

from qig_core.rundir.heartbeat import HeartbeatThread
from qig_core.rundir.layout import RunDir, new_run_id
from qig_core.rundir.liveness import BUSY_BECOMES_HUNG_S
from qig_core.safety.profile import Stall
from qig_core.safety.verdict import State, Verdict

LIMIT_MOVED_BY = 0.1
"""A limit that moves with the step times is told again once it differs by more than this share."""


class StallWatch:
    """Judges once a second whether the trainer hangs: `heartbeat.watch(stall.look)`.

    It hangs where the last step boundary (before the first one: the beginning) is longer ago than
    max(min_s, p99s x the 99th percentile of step times), or than 600 s where the trainer does something else than a
    step. A pause and an orderly stop never hang.

    Args:
        limit: of the profile.
        run: in whose folder of emergencies the stacks of all threads are written when a hang begins.
        on_change: called in the heartbeat thread at every transition, with the name of the file of stacks where a hang
            began and the disk took it; and when the limit has moved.
        on_silence: called there with the seconds in which nobody could look, where they were more than min_s.
    """

    def __init__(
        self,
        limit: Stall,
        heartbeat: HeartbeatThread,
        run: RunDir,
        on_change: Callable[[Verdict, str | None], None],
        on_silence: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._limit = limit
        self._heartbeat = heartbeat
        self._run = run
        self._on_change = on_change
        self._on_silence = on_silence
        self._looked: float | None = None
        self._began = time.monotonic()
        self.doing = heartbeat.doing
        """What the trainer did at the last look."""
        self.verdict = self._say("unarmed", BUSY_BECOMES_HUNG_S, 0.0, None)
        """What the condition says now; unarmed before the first step."""
        self._told = BUSY_BECOMES_HUNG_S
        """The limit that readers know."""

    def look(self) -> None:
        """Judge now."""
        now = time.monotonic()
        before, self._looked = self._looked, now
        if before is not None and now - before > self._limit.min_s:
            self._on_silence(now - before)
        # In this order: see `last_step_age_s`.
        doing = self.doing = self._heartbeat.doing
        age = self._heartbeat.last_step_age_s
        if doing == "stop":
            return
        waited = time.monotonic() - self._began if age is None else age
        limit = self._limit_s() if age is not None and doing in ("step", "pause") else BUSY_BECOMES_HUNG_S
        hangs = doing != "pause" and waited > limit
        state: State = "warning" if hangs else "unarmed" if age is None else "ok"
        if state == self.verdict.state:
            self.verdict = self._say(state, limit, waited, self.verdict.since_step)
            if state == "ok" and doing == "step" and abs(limit - self._told) > LIMIT_MOVED_BY * self._told:
                self._told = limit
                self._on_change(self.verdict, None)
            return
        stacks = self._dump_stacks() if hangs else None
        self.verdict = self._say(state, limit, waited, self._heartbeat.step)
        self._told = limit
        self._on_change(self.verdict, stacks)

    def _limit_s(self) -> float:
        return max(self._limit.min_s, self._limit.p99s * (self._heartbeat.step_p99_s or 0.0))

    def _say(self, state: State, limit_s: float, waited_s: float, since_step: int | None) -> Verdict:
        value = None if state == "unarmed" else round(waited_s, 3)
        cause = ("step_age",) if state == "warning" else ()
        return Verdict(self._limit.id, state, "step_age", "<=", limit_s, "s", value, since_step, 1, cause)

    def _dump_stacks(self) -> str | None:
        """The name of the file; None where the disk refused it."""
        path = self._run.emergency_stacks(new_run_id())
        try:
            with open(path, "x") as file:
                faulthandler.dump_traceback(file=file, all_threads=True)
                if os.fstat(file.fileno()).st_size:
                    return path.name
            # It writes without saying what the disk refused.
            path.unlink()
        except OSError:
            pass
        return None
