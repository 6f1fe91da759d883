"""A run directory on this machine's file system: the tail first, the rest behind it, then whatever is appended.

`LocalSource` reads when asked and decides nothing; `read_run` is all that a worker thread does. A further stream of the
run is read beside it, by `streams`.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qig_core.errors import RunFormatError
from qig_core.rundir.host import host_name
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import BeatWatch, Liveness
from qig_core.rundir.reader import Tail, read_manifest, tail_start
from qig_core.rundir.schema import Event, Heartbeat, Manifest, Sample, Unreadable
from qig_tui.history import History
from qig_tui.series import CAPACITY
from qig_tui.setup import TAIL_BYTES
from qig_tui.sources.checkpoints import CheckpointEntry, CheckpointShelf
from qig_tui.sources.index import StepIndex
from qig_tui.sources.telemetry import Backfill, Telemetry, check_stream, streams_of

_POLL_S = 1.0
_LOOK_BETWEEN_S = 0.2
# inotify reports only what this host's kernel wrote: not for these.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "9p", "ceph", "glusterfs", "beegfs", "afs", "gpfs"}


@dataclass(kw_only=True)
class Update:
    """What one look at the directory found. Deltas: none may be left out."""

    manifest: Manifest | None = None
    """Only where it changed."""
    problem: str | None = None
    """Why something could not be read; the next look tries again."""
    restarted: bool = False
    """The telemetry file was replaced: what was folded before is gone."""
    samples: Sequence[Sample | Unreadable] = ()
    events_restarted: bool = False
    events: Sequence[Event | Unreadable] = ()
    liveness: Liveness
    heartbeat: Heartbeat | None
    checkpoints: list[CheckpointEntry] | None = None
    """Only where they changed."""
    checkpoints_problem: str | None = None
    """Why they cannot be listed."""
    streams: list[str] | None = None
    """Only where there are others."""
    bytes_per_s: float | None = None
    """None: not known yet."""
    waiting_bytes: int = 0
    """What lies in the file beyond what was read: a torn last line."""
    lag_s: float | None = None
    """Age of the newest sample as it arrived; only where the run is on this host, whose clock wrote it."""
    head: Sequence[Sample] = field(default_factory=list)
    """The file's first samples, for the reference basin; only in the first look."""


def open_run(run: RunDir, stream: str | None = None) -> Manifest:
    """The manifest of a run whose records can be read; those that are not there yet will come.

    Args:
        stream: a further one that is to be read as well.

    Raises:
        RunFormatError: the manifest, the telemetry or the events cannot be read: nothing can be judged.
        LookupError: there is no such stream.
    """
    manifest = read_manifest(run)
    if stream is not None:
        check_stream(stream, streams_of(run, manifest))
    for path in (run.telemetry(), run.telemetry(stream), run.events):
        try:
            tail_start(path, 1 << 62)
        except OSError as error:
            raise RunFormatError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return manifest


class LocalSource:
    """Reads one run directory; of its streams the run's own.

    Raises:
        RunFormatError: by the constructor, as `open_run` does.
    """

    def __init__(self, run: RunDir, *, tail_bytes: int = TAIL_BYTES) -> None:
        self.run = run
        self.manifest = open_run(run)
        self._manifest_mark = _mark(run.manifest)
        self._watch = BeatWatch(run)
        self._shelf = CheckpointShelf(run)
        self.telemetry = Telemetry(run, tail_bytes=tail_bytes)
        self._events: Tail[Event] = Tail(run.events, Event)
        self._streams: list[str] | None = None
        self._first = True
        self._listed = -_POLL_S
        self._rate: tuple[float, int] = (time.monotonic(), self.backfill_end)
        self._bytes_per_s: float | None = None
        self._lock = threading.Lock()

    @property
    def index(self) -> StepIndex:
        return self.telemetry.index

    @property
    def backfill_end(self) -> int:
        """Where the tail begins; what lies before it is the backfill's."""
        return self.telemetry.backfill_end

    def look(self) -> Update:
        """Everything that is new since the last look; the first one returns the tail."""
        with self._lock:
            return self._look()

    def _look(self) -> Update:
        changed = None
        problem = None
        mark = _mark(self.run.manifest)
        if mark != self._manifest_mark or self._first:
            try:
                self.manifest = changed = read_manifest(self.run)
                self._manifest_mark = mark
            except RunFormatError as error:
                problem = within(self.run, error)
        update = Update(
            manifest=changed, liveness=self._watch.look(self.manifest), heartbeat=self._watch.heartbeat, problem=problem
        )
        if not os.path.isdir(self.run.path):
            update.problem = f"the directory of this run is gone: {str(self.run.path)!r}"
        try:
            self._read_events(update)
            self._read_samples(update)
        except OSError as error:
            path = error.filename or str(self.run.path)
            update.problem = within(self.run, f"{path!r} cannot be read: {error.strerror or error}")
        now = time.monotonic()
        published = any(isinstance(event, Event) and event.kind == "checkpoint" for event in update.events)
        if now - self._listed >= _POLL_S or changed is not None or published:
            # A folder of many checkpoints costs a stat each; samples may come ten times a second. But who brings a run
            # back as soon as it has ended must be offered what it saved at its end.
            self._listed = now
            update.checkpoints = self._shelf.changed()
            streams = streams_of(self.run, self.manifest)
            if streams != self._streams:
                self._streams = update.streams = streams
        update.checkpoints_problem = self._shelf.problem
        if self._first:
            update.head = self.telemetry.head()
            self._first = False
        return update

    def _read_samples(self, update: Update) -> None:
        samples, update.restarted = self.telemetry.poll()
        update.samples = samples
        newest = samples[-1] if samples else None
        if not self._first and isinstance(newest, Sample) and self._is_here():
            update.lag_s = max(time.time() - newest.t, 0.0)
        now = time.monotonic()
        then, offset = self._rate
        if self._first:
            # What lay there already did not come over time.
            self._rate = (now, self.telemetry.offset)
        elif now - then >= 2 * _POLL_S or update.restarted:
            self._bytes_per_s = max(self.telemetry.offset - offset, 0) / max(now - then, 1e-3)
            self._rate = (now, self.telemetry.offset)
        update.bytes_per_s = self._bytes_per_s
        update.waiting_bytes = self.telemetry.waiting_bytes

    def _is_here(self) -> bool:
        return bool(self.manifest.sessions) and self.manifest.sessions[-1].host == host_name()

    def _read_events(self, update: Update) -> None:
        events: list[Event | Unreadable] = []
        while True:
            batch = self._events.poll()
            if batch.restarted:
                update.events_restarted = True
                events.clear()
            events += batch.records
            if not batch.more:
                break
        update.events = events

    def make_way(self) -> None:
        """Let the backfill rest for a moment: somebody waits for the screen."""
        self.telemetry.make_way()

    def backfill(
        self, progress: Callable[[float], None], stop: threading.Event, capacity: int = CAPACITY
    ) -> History | None:
        """What lies before the tail, scalars only; None where it was stopped or the file was replaced."""
        return self.telemetry.backfill(progress, stop, capacity)

    def close(self) -> None:
        with self._lock:
            self.telemetry.close()
            self._events.close()


def read_run(source: LocalSource, post: Callable[[Update | Backfill], None], stop: threading.Event) -> None:
    """The tail, the rest behind it, then whatever is appended, until `stop` is set."""
    post(source.look())
    older = None
    looked = time.monotonic()

    def progress(share: float) -> None:
        nonlocal looked
        post(Backfill(share=share))
        if time.monotonic() - looked >= _LOOK_BETWEEN_S:
            # What comes meanwhile is more urgent than what was.
            post(source.look())
            looked = time.monotonic()

    if source.backfill_end:
        older = source.backfill(progress, stop)
    post(Backfill(share=None, older=older))
    follow(source, post, stop)


def follow(source: LocalSource, post: Callable[[Update], None], stop: threading.Event) -> None:
    """Look again whenever something moved in the directory, and each second in any case, until `stop` is set."""
    try:
        for _ in hints(source.run.path, stop):
            if stop.is_set():
                return
            post(source.look())
    finally:
        source.close()


def hints(path: Path, stop: threading.Event) -> Iterator[None]:
    """Something may have changed. A notification is a hint; the second's tick is the truth."""
    if not is_network(path):
        import watchfiles

        try:
            for _ in watchfiles.watch(
                path,
                watch_filter=None,
                debounce=100,
                step=50,
                rust_timeout=int(1000 * _POLL_S),
                yield_on_timeout=True,
                stop_event=stop,
                recursive=False,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                yield
        except (OSError, RuntimeError, UnicodeEncodeError):
            # No inotify watches left, a file system without them, a name that is not UTF-8: the clock alone.
            pass
    while not stop.wait(_POLL_S):
        yield


def is_network(path: Path) -> bool:
    """Whether the directory lies on a file system that other hosts may write."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return True
    where = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts:
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind in _NETWORK or kind.startswith("fuse")


def within(run: RunDir, sentence: object) -> str:
    """A sentence about a file of this run, by the file's name: the run is known, and a line is short."""
    return str(sentence).replace(f"{run.path}{os.sep}", "")


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
