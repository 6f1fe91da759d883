"""Every basin of a run read again, evenly thinned to a bounded number; what is appended is read on. Decides nothing."""

import os
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import Tail
from qig_core.rundir.schema import Sample, Unreadable
from qig_tui.basin.basins import Kept
from qig_tui.history import MAX_SEGMENTS
from qig_tui.records import basin_of
from qig_tui.series import BEYOND

MOST_BASINS = 4096
MOST_NUMBERS = 1 << 22
"""Of all kept basins together: 16 MB."""
LEAST_BASINS = 16
_CHUNK = 1 << 18
_TELL_S = 0.5
_REST_S = 0.001
"""Between two pieces: the screen has the interpreter for itself."""


class Thinned:
    """Folds samples in the order of the file; of every 2^n-th basin it keeps the values. One thread.

    A basin of another size than the one before begins anew: two such do not compare.
    """

    def __init__(self, most: int = MOST_BASINS) -> None:
        self._most = most
        self._step: list[int] = []
        self._seq: list[int] = []
        self._ordinal: list[int] = []
        self._values: list[NDArray[np.float32]] = []
        self._rewinds: list[tuple[int, int]] = []
        self._every = 1
        self._count = 0
        self._last_seq = -1
        self._last_step: int | None = None

    def add(self, records: Iterable[Sample | Unreadable]) -> None:
        for record in records:
            # As a history takes them: what goes back in seq, or is no count, has no place.
            if isinstance(record, Unreadable) or not -BEYOND < record.step < BEYOND:
                continue
            if not self._last_seq < record.seq < BEYOND:
                continue
            if self._last_step is not None and record.step <= self._last_step and len(self._rewinds) < MAX_SEGMENTS:
                self._rewinds.append((record.seq, record.step))
            self._last_seq, self._last_step = record.seq, record.step
            if record.basin is not None:
                self._keep(record)

    @property
    def mark(self) -> tuple[int, int]:
        """Another one as soon as there is anything new of the basins."""
        return self._count, len(self._rewinds)

    def _keep(self, record: Sample) -> None:
        ordinal, self._count = self._count, self._count + 1
        if ordinal % self._every:
            return
        basin = basin_of(record)
        if basin is None:
            return
        if self._values and len(self._values[0]) != len(basin):
            self._step, self._seq, self._ordinal, self._values = [], [], [], []
            self._every = 1
        self._step.append(record.step)
        self._seq.append(record.seq)
        self._ordinal.append(ordinal)
        # What was recorded had four bytes an entry: its shares lose nothing that was there.
        self._values.append(basin.astype(np.float32))
        while len(self._values) > max(min(self._most, MOST_NUMBERS // len(basin)), LEAST_BASINS):
            self._thin()

    def _thin(self) -> None:
        self._every *= 2
        stay = [i for i, ordinal in enumerate(self._ordinal) if not ordinal % self._every]
        self._step = [self._step[i] for i in stay]
        self._seq = [self._seq[i] for i in stay]
        self._ordinal = [self._ordinal[i] for i in stay]
        self._values = [self._values[i] for i in stay]

    def kept(self, share: float | None) -> Kept:
        """All as it is now, to look at from any thread."""
        seqs, steps = zip(*self._rewinds, strict=True) if self._rewinds else ((), ())
        return Kept(
            step=np.array(self._step, dtype=np.int64),
            seq=np.array(self._seq, dtype=np.int64),
            values=np.array(self._values, dtype=np.float32).reshape(len(self._values), -1 if self._values else 0),
            rewinds=(np.array(seqs, dtype=np.int64), np.array(steps, dtype=np.int64)),
            every=self._every,
            recorded=self._count,
            share=share,
        )


class BasinFile:
    """The basins of one run's telemetry, or of a further stream. One thread at a time reads it, a second one waits."""

    def __init__(self, run: RunDir, most: int = MOST_BASINS, *, stream: str | None = None) -> None:
        self._most = most
        self._tail: Tail[Sample] = Tail(run.telemetry(stream), Sample)
        self._folded = Thinned(most)
        self._told: tuple[int, int, bool] | None = None
        self._lock = threading.Lock()

    def read(self, post: Callable[[Kept], object], is_stopped: Callable[[], bool]) -> None:
        """Whatever has not been read yet, with what is known meanwhile twice a second; all of it at the end, where it
        is another one. A next call goes on where this one came to.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:
            try:
                self._read(post, is_stopped)
            finally:
                # Who shows the run sees that its file was replaced, and begins anew.
                self._tail.close()

    def _read(self, post: Callable[[Kept], object], is_stopped: Callable[[], bool]) -> None:
        told = time.monotonic()
        while not is_stopped():
            batch = self._tail.poll(_CHUNK)
            if batch.restarted:
                self._folded = Thinned(self._most)
            self._folded.add(batch.records)
            if not batch.more:
                mark = (*self._folded.mark, True)
                if mark != self._told:
                    self._told = mark
                    post(self._folded.kept(None))
                return
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                self._told = (*self._folded.mark, False)
                post(self._folded.kept(self._share()))
            time.sleep(_REST_S)

    def _share(self) -> float:
        try:
            size = os.stat(self._tail.path).st_size
        except OSError:
            size = 0
        return min(self._tail.offset / size, 1.0) if size else 1.0
