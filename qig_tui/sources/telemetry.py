"""One telemetry file of a run, the run's own or that of a further stream: its tail, what is appended, what lies before.

Reads when asked and decides nothing.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import Tail, tail_start
from qig_core.rundir.schema import Manifest, Sample, Scalars, Unreadable
from qig_tui.history import History
from qig_tui.series import CAPACITY
from qig_tui.setup import TAIL_BYTES
from qig_tui.sources.index import StepIndex

HEAD_BYTES = 1 << 16
_REST_S = 0.1
_MOST_STREAMS = 512
_NEAREST = 3
_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """How far the records before the tail have been read."""

    share: float | None
    """None: as far as they can be. It comes once, also where there was nothing to read."""
    older: History | None = None
    """All of them, at the end; None where there are none, or the file was replaced meanwhile."""


def streams_of(run: RunDir, manifest: Manifest) -> list[str]:
    """The further streams of a run: those that the manifest names, in its order, and those that have a file."""
    there = run.streams()[:_MOST_STREAMS]
    # What could leave the directory is no stream, whoever names it.
    named = [name for name in manifest.streams[:_MOST_STREAMS] if _is_stream(run, name)]
    return list(dict.fromkeys([*named, *sorted(there, key=_natural)]))


def _is_stream(run: RunDir, name: str) -> bool:
    try:
        run.telemetry(name)
    except ValueError:
        return False
    return True


def _natural(name: str) -> list[tuple[int, str]]:
    """gary2 before gary10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def check_stream(name: str, known: Sequence[str]) -> None:
    """Raises LookupError, which names the nearest, where there is no such stream."""
    if name in known:
        return
    near = get_close_matches(name, known, _NEAREST, 0.5)
    some = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
    there = f"it has {some}" if known else "it has no further streams"
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    raise LookupError(f"the run has no stream {name[:80]!r}; {there}{meant}")


class Telemetry:
    """Reads one file; one that is not there yet will come.

    Raises:
        OSError: by the constructor, where it cannot be read.
    """

    def __init__(self, run: RunDir, stream: str | None = None, *, tail_bytes: int = TAIL_BYTES) -> None:
        self.path: Path = run.telemetry(stream)
        self.index = StepIndex(self.path)
        self.backfill_end = tail_start(self.path, tail_bytes)
        """Where the tail begins; what lies before it is the backfill's."""
        self._tail: Tail[Sample] = Tail(self.path, Sample, start=self.backfill_end)
        self._rest_until = 0.0

    @property
    def offset(self) -> int:
        """How far it was read."""
        return self._tail.offset

    @property
    def waiting_bytes(self) -> int:
        """What lies beyond that: a torn last line."""
        try:
            size = os.stat(self.path).st_size
        except OSError:
            size = 0
        return max(size - self._tail.offset, 0)

    def poll(self) -> tuple[list[Sample | Unreadable], bool]:
        """What is new, the tail at first; and whether the file was replaced: what was read before is gone then.

        Raises:
            OSError: it cannot be read.
        """
        samples: list[Sample | Unreadable] = []
        restarted = False
        while True:
            start = self._tail.offset
            batch = self._tail.poll()
            if batch.restarted:
                restarted = True
                samples.clear()
                self.backfill_end = start = 0
                self.index.clear()
            samples += batch.records
            self.index.note(start, self._tail.offset, batch.records)
            if not batch.more:
                return samples, restarted

    def head(self) -> list[Sample]:
        """The first samples of the file, where the tail does not hold them already."""
        if not self.backfill_end:
            return []
        head = Tail(self.path, Sample)
        try:
            return [r for r in head.poll(HEAD_BYTES).records if isinstance(r, Sample)]
        except OSError:
            return []
        finally:
            head.close()

    def make_way(self) -> None:
        """Let the backfill rest for a moment: somebody waits for the screen."""
        self._rest_until = time.monotonic() + _REST_S

    def backfill(
        self, progress: Callable[[float], None], stop: threading.Event, capacity: int = CAPACITY
    ) -> History | None:
        """What lies before the tail, scalars only; None where it was stopped or the file was replaced."""
        end = self.backfill_end
        tail: Tail[Scalars] = Tail(self.path, Scalars)
        older = History(capacity)
        try:
            while tail.offset < end:
                if (rest := self._rest_until - time.monotonic()) > 0 and stop.wait(rest):
                    return None
                start = tail.offset
                batch = tail.poll(min(1 << 18, end - start))
                if stop.is_set() or batch.restarted or self.backfill_end != end or tail.offset == start:
                    return None
                self.index.note(start, tail.offset, batch.records)
                older.add(batch.records)
                progress(tail.offset / end)
        except OSError:
            return None
        finally:
            tail.close()
        # It may have been replaced while the last progress was told.
        return older if self.backfill_end == end else None

    def close(self) -> None:
        self._tail.close()
