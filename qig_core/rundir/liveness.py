"""Whether a run is alive, judged from facts only. The words and the numbers behind them live here."""

import math
import time
from enum import StrEnum
from pathlib import Path

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.host import boot_id, host_name, process_is
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import Heartbeat, Manifest

SILENT_AFTER_S = 10.0
HUNG_AFTER_S = 60.0
"""No step for this long, or for 20 x p99 if that is longer; or a living process without a beat."""
BUSY_BECOMES_HUNG_S = 600.0
BUSY_AFTER_S = 2.0
"""An evaluation or a save shorter than this does not change the word: it would only flicker."""
SLOW_FACTOR = 5.0
SLOW_FLOOR_S = 1.0
"""The age of a step is known to a second, so that no shorter one can be called slow."""


class Word(StrEnum):
    LIVE = "LIVE"
    SLOW = "SLOW"
    BUSY = "BUSY"
    PAUSED = "PAUSED"
    SILENT = "SILENT"
    HUNG = "HUNG"
    EXITED = "EXITED"
    KILLED = "KILLED"


GLYPHS: dict[Word, str] = {
    Word.LIVE: "●",
    Word.SLOW: "◐",
    Word.BUSY: "◑",
    Word.PAUSED: "‖",
    Word.SILENT: "○",
    Word.HUNG: "✖",
    Word.EXITED: "■",
    Word.KILLED: "✖",
}

ENDED = frozenset({Word.EXITED, Word.KILLED})


class Liveness(msgspec.Struct, frozen=True):
    """The word, and what it rests on in a few plain words."""

    word: Word
    detail: str = ""

    @property
    def glyph(self) -> str:
        return GLYPHS[self.word]

    @property
    def text(self) -> str:
        return f"{self.word} {self.detail}".rstrip()


def judge_liveness(
    manifest: Manifest, heartbeat: Heartbeat | None, *, silence_s: float, process_alive: bool | None
) -> Liveness:
    """One word for the state of a run.

    Args:
        silence_s: how long the READER has seen no new beat, on its own monotonic clock.
        process_alive: whether the trainer's process is there; None where that cannot be known (another host).
    """
    session = manifest.sessions[-1] if manifest.sessions else None
    if manifest.state == "exited":
        return Liveness(Word.EXITED, "" if manifest.exit_code is None else str(manifest.exit_code))
    if process_alive is False:
        return Liveness(Word.KILLED, "the process is gone")
    if heartbeat is None or (session is not None and heartbeat.session != session.id):
        return Liveness(Word.SILENT, "no heartbeat yet")
    if process_alive and silence_s > HUNG_AFTER_S:
        return Liveness(Word.HUNG, f"no beat for {silence_s:.0f} s")
    if silence_s > SILENT_AFTER_S:
        return Liveness(Word.SILENT, f"{silence_s:.0f} s")
    if heartbeat.doing == "pause":
        return Liveness(Word.PAUSED)
    age = heartbeat.last_step_age_s
    if age is None:
        # No step yet: since the session began. Both times are of the writer's clock.
        age = 0.0 if session is None else max(0.0, heartbeat.t - session.t)
    age += silence_s
    if heartbeat.doing != "step" and age > BUSY_AFTER_S:
        if age > BUSY_BECOMES_HUNG_S:
            return Liveness(Word.HUNG, f"{heartbeat.doing} for {age:.0f} s")
        return Liveness(Word.BUSY, heartbeat.doing)
    p99 = (heartbeat.step_ms_p99 or 0.0) / 1e3
    if heartbeat.doing == "step" and age > max(HUNG_AFTER_S, 20 * p99):
        return Liveness(Word.HUNG, f"no step for {age:.0f} s")
    if age > max(SLOW_FLOOR_S + 1.0, SLOW_FACTOR * p99):
        return Liveness(Word.SLOW, f"no step for {age:.0f} s")
    return Liveness(Word.LIVE, "" if heartbeat.step_ms_p50 is None else f"{heartbeat.step_ms_p50:.3g} ms/step")


class BeatWatch:
    """Watches one run's heartbeat with the reader's own clock."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._last: tuple[str, int] | None = None
        self._changed = -math.inf
        self.heartbeat: Heartbeat | None = None

    def look(self, manifest: Manifest) -> Liveness:
        """Read the heartbeat now and judge."""
        now = time.monotonic()
        try:
            self.heartbeat = read_document(self._run.heartbeat, Heartbeat)
        except RunFormatError:
            self.heartbeat = None
        if self.heartbeat is not None:
            mark = (self.heartbeat.session, self.heartbeat.beat)
            if mark != self._last:
                # At the first look the beat may be old: how old is known where writer and reader share one clock.
                age = self._age_on_this_host(manifest, self.heartbeat) if self._last is None else 0.0
                self._last, self._changed = mark, now - age
        session = manifest.sessions[-1] if manifest.sessions else None
        alive = None
        if session is not None and manifest.state != "exited":
            alive = process_is(session.pid, session.start_ticks, session.host, session.boot_id)
            if alive is False and lock_holder(self._run.lock) is not None:
                # Somebody holds the lock: the pid is one of another container, or a new session is about to begin.
                alive = None
        was_there = self.heartbeat is None and self._last is not None and manifest.state != "exited"
        if was_there and alive is not False and not self._run.heartbeat.exists():
            # With it, or with the whole directory, what could be known from it is gone.
            return Liveness(Word.SILENT, "its heartbeat is gone")
        silence = now - self._changed if self._last is not None else 0.0
        return judge_liveness(manifest, self.heartbeat, silence_s=silence, process_alive=alive)

    @staticmethod
    def _age_on_this_host(manifest: Manifest, heartbeat: Heartbeat) -> float:
        session = manifest.sessions[-1] if manifest.sessions else None
        if session is None or session.host != host_name() or session.boot_id is None or session.boot_id != boot_id():
            return 0.0
        return max(0.0, time.time() - heartbeat.t)


def has_beaten(path: Path, since: Heartbeat) -> bool:
    """Whether a newer beat than `since` stands in the file."""
    try:
        now = read_document(path, Heartbeat)
    except RunFormatError:
        return False
    return (now.session, now.beat) != (since.session, since.beat)
