"""A further stream of a run that is read already: its samples alone, beside the run's own. For a worker thread."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Sample, Unreadable
from qig_tui.setup import TAIL_BYTES
from qig_tui.sources.local import hints, within
from qig_tui.sources.telemetry import Backfill, Telemetry

_LOOK_BETWEEN_S = 0.2


@dataclass(frozen=True, kw_only=True)
class StreamUpdate:
    """What one look at the file found. Deltas: none may be left out."""

    samples: Sequence[Sample | Unreadable] = ()
    restarted: bool = False
    """The file was replaced: what was folded before is gone."""
    head: Sequence[Sample] = ()
    """The file's first samples, for the reference basin; only in the first look."""
    problem: str | None = None
    """Why it could not be read; the next look tries again."""


class StreamSource:
    """Reads one further stream; a file that is not there yet will come.

    Raises:
        OSError: by the constructor, where it cannot be read.
    """

    def __init__(self, run: RunDir, stream: str, *, tail_bytes: int = TAIL_BYTES) -> None:
        self.run = run
        self.stream = stream
        self.telemetry = Telemetry(run, stream, tail_bytes=tail_bytes)
        self._first = True

    def look(self) -> StreamUpdate:
        """Everything that is new since the last look; the first one returns the tail."""
        head = self.telemetry.head() if self._first else []
        self._first = False
        try:
            samples, restarted = self.telemetry.poll()
        except OSError as error:
            path = error.filename or str(self.telemetry.path)
            return StreamUpdate(problem=within(self.run, f"{path!r} cannot be read: {error.strerror or error}"))
        return StreamUpdate(samples=samples, restarted=restarted, head=head)

    def read(self, post: Callable[[StreamUpdate | Backfill], None], stop: threading.Event) -> None:
        """The tail, the rest behind it, then whatever is appended, until `stop` is set."""
        looked = time.monotonic()

        def progress(share: float) -> None:
            nonlocal looked
            post(Backfill(share=share))
            if time.monotonic() - looked >= _LOOK_BETWEEN_S:
                post(self.look())
                looked = time.monotonic()

        try:
            post(self.look())
            older = self.telemetry.backfill(progress, stop) if self.telemetry.backfill_end else None
            post(Backfill(share=None, older=older))
            for _ in hints(self.run.path, stop):
                if stop.is_set():
                    return
                found = self.look()
                if found.samples or found.restarted or found.problem:
                    post(found)
        finally:
            self.telemetry.close()
