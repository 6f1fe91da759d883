"""One process's hold on a run: the lock, a session, numbered records, the heartbeat, the mailbox, an orderly end."""

import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from math import inf, isfinite
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RecordWriteError, RunNotFound, UsageError, exit_code_of
from qig_core.rundir import reserve
from qig_core.rundir.atomic import encode_document, fsync_directory, sweep_temporary, write_document
from qig_core.rundir.heartbeat import HeartbeatThread
from qig_core.rundir.host import this_process, user_name
from qig_core.rundir.layout import RunDir, new_run_id
from qig_core.rundir.lock import RunLock
from qig_core.rundir.mailbox import Mailbox
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.records import Fsync, RecordFile
from qig_core.rundir.redaction import redact
from qig_core.rundir.schema import (
    ConsciousnessTelemetry,
    Event,
    Manifest,
    MetricSpec,
    Sample,
)
from qig_core.rundir.values import encode_basin, is_run_id, name_nonfinite, split_nonfinite

_the_float = float.conjugate
_SYNC_S = 5.0
_LISTEN_S = 0.3
"""What reading the mailbox may take of each second: a flood of commands must not hold up the heartbeat."""
_RESTART_S = 1.0
_TELL_AGAIN_S = 60.0
_MAX_BUFFERED = 100_000

Metrics = Mapping[str, float | None] | ConsciousnessTelemetry
_Handed = tuple[int, float, dict[str, float | None], bytes | None, str | None, dict[str, str] | None]


class TelemetryCollector:
    """Samples of one stream, one line each; one thread logs.

    With the default, `log` returns after write(2): a killed process loses no sample that it returned from. With
    `buffered` samples are handed to whoever calls `flush` (a RunWriter's heartbeat thread, every second): a kill loses
    at most what was logged since.
    """

    def __init__(self, path: Path, session: str, *, fsync: Fsync = "interval", buffered: bool = False) -> None:
        if buffered and fsync == "always":
            raise UsageError("a buffered stream cannot keep the promise of fsync='always'; choose one")
        self._file = RecordFile(path, fsync=fsync)
        self._append = self._file.append
        self._session: str | None = session
        self._buffer: deque[_Handed] | None = deque() if buffered else None
        self._flushing = threading.Lock()
        self._next = self._file.next_seq

    @property
    def next_seq(self) -> int:
        """The number that the next sample will get."""
        return self._next

    def log(self, step: int, metrics: Metrics, *, basin: bytes | None = None, regime: str | None = None) -> int:
        """Record one sample and return its seq.

        Args:
            step: may be lower than before (a rewind).
            metrics: name to value; None and absent are "not measured", NaN and infinities are kept by their kind.
            basin: little-endian float32, 64 of them.

        Raises:
            RecordWriteError: the disk refused it; what was written before stays readable.
            ValueError: the basin is not a whole number of float32, or a metric is no number.
        """
        m: Any = metrics if type(metrics) is dict else _as_dict(metrics)
        buffer = self._buffer
        if buffer is None:
            m, nonfinite = _numbers(m)
            text = None if basin is None else encode_basin(basin)
            seq = self._append(Sample(0, step, time.time(), self._session, m, text, regime, nonfinite))
            # The session stands on its first sample: sixteen digits a line would be a tenth of the file.
            self._session = None
            self._next = seq + 1
            return seq
        if len(buffer) >= _MAX_BUFFERED:
            self.flush()
        if basin is not None and len(basin) % 4:
            encode_basin(basin)
        kinds: dict[str, str] | None = None
        try:
            # A float only if no value is of a foreign type, which might change before it is written, or be no number.
            known = type(sum(m.values())) is float
        except (TypeError, OverflowError):
            known = False
        if not known:
            m, kinds = _numbers(m)
        # A copy: the caller's dictionary may change as well.
        buffer.append((step, time.time(), m.copy(), basin, regime, kinds))
        seq = self._next
        self._next = seq + 1
        return seq

    def flush(self) -> None:
        """Write what is buffered, if this collector buffers.

        Raises:
            RecordWriteError: the disk refused; what is not written stays in the buffer.
        """
        buffer = self._buffer
        if not buffer:
            return
        with self._flushing:
            while buffer:
                step, t, m, basin, regime, nonfinite = buffer[0]
                if nonfinite is None:
                    m, nonfinite = _numbers(m)
                text = None if basin is None else encode_basin(basin)
                self._append(Sample(0, step, t, self._session, m, text, regime, nonfinite))
                self._session = None
                buffer.popleft()

    def sync(self) -> None:
        self.flush()
        self._file.sync()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def _numbers(metrics: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics as they go into a record. Almost always they are floats, all finite, and go as they are."""
    try:
        # A TypeError for what is no float (True equals 1.0, but is written otherwise); finite only if every one is.
        if isfinite(sum(map(_the_float, metrics.values()))):
            return metrics, {}
    except TypeError:
        pass
    return split_nonfinite({name: value for name, value in metrics.items() if value is not None})


def _as_dict(metrics: Metrics) -> dict[str, Any]:
    return metrics.metrics() if isinstance(metrics, ConsciousnessTelemetry) else dict(metrics)


class RunWriter:
    """The one writer of a run directory. Open by `create` or `reopen`; a context manager.

    Raises:
        RunLocked: another process writes this run.
        RecordWriteError: the disk refused.
    """

    def __init__(
        self,
        run: RunDir,
        manifest: Manifest,
        lock: RunLock,
        *,
        resumed_from: str | None = None,
        fsync: Fsync = "interval",
        buffered: bool = False,
    ) -> None:
        self.run = run
        self.manifest = manifest
        self.session = secrets.token_hex(8)
        self._lock = lock
        self._fsync: Fsync = fsync
        self._buffered = buffered
        self._streams: dict[str | None, TelemetryCollector] = {}
        self._last_sync = time.monotonic()
        self._pid = os.getpid()
        self._closed = False
        self._next_restart = -inf
        self._told: tuple[str, float] = ("", -inf)
        self.write_error: RecordWriteError | None = None
        """What the disk refused in the heartbeat thread; the next step boundary raises it, once."""
        for document in (run.manifest, run.heartbeat):
            sweep_temporary(document)
        self._events = RecordFile(run.events, fsync=fsync)
        try:
            self._begin(resumed_from)
        except BaseException:
            with ExitStack() as files:
                files.callback(self._events.close)
                for collector in self._streams.values():
                    files.callback(collector.close)
            raise

    def _begin(self, resumed_from: str | None) -> None:
        run, manifest, pid = self.run, self.manifest, self._pid
        self.telemetry = self.stream(None)
        self.mailbox = Mailbox(run, self.session)
        manifest.state, manifest.exit_code, manifest.ended_t, manifest.reason = "running", None, None, ""
        manifest.sessions.append(this_process(self.session, resumed_from))
        self.heartbeat = HeartbeatThread(run, self.session, each_second=self._each_second)
        self.save_manifest()
        reserve.keep(run.reserve, reserve.RESERVED_BYTES + run.manifest.stat().st_size)
        self.event("start", pid=pid, resumed_from=resumed_from)
        self.heartbeat.start()

    @classmethod
    def create(
        cls, root: Path, manifest: Manifest | None = None, *, fsync: Fsync = "interval", buffered: bool = False
    ) -> "RunWriter":
        """Make a run directory under `root`; the manifest's id is its name (empty: a new one is drawn).

        Raises:
            UsageError: an id that cannot be a name, or is taken.
        """
        manifest = manifest or Manifest(id="")
        manifest.id = manifest.id or new_run_id()
        if not is_run_id(manifest.id):
            raise UsageError(f"run id {manifest.id[:100]!r}: letters, digits, '.', '_', '-' (not first), at most 100")
        run = RunDir(root / manifest.id)
        made = False
        try:
            if not root.is_dir():
                root.mkdir(parents=True, exist_ok=True)
                fsync_directory(root.absolute().parent)
            run.path.mkdir()
            made = True  # and what cannot become a run is not left in the way of one
            for folder in (run.checkpoints, run.emergencies, run.artifacts):
                folder.mkdir()
            fsync_directory(root)
        except OSError as error:
            if made:
                shutil.rmtree(run.path, ignore_errors=True)
            elif isinstance(error, FileExistsError) and run.path.is_dir():
                raise UsageError(f"{str(run.path)!r} exists; resume that run or choose another id") from error
            raise RecordWriteError(error.errno, f"cannot make {str(run.path)!r}: {error.strerror}") from error
        manifest.created_t = manifest.created_t or time.time()
        manifest.cwd = manifest.cwd or os.getcwd()
        manifest.user = manifest.user or user_name()
        try:
            return cls._holding(run, manifest, None, fsync, buffered)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)
            raise

    @classmethod
    def reopen(
        cls,
        run: RunDir,
        *,
        resumed_from: str | None = None,
        prepare: Callable[[Manifest], str | None] | None = None,
        fsync: Fsync = "interval",
        buffered: bool = False,
    ) -> "RunWriter":
        """Go on with a run whose trainer has ended or died: the same directory, a new session.

        Args:
            prepare: called with the lock held, before anything is written: may change the manifest, and returns what
                `resumed_from` is. What it raises is raised, and the run is as it was.

        Raises:
            RunNotFound: no run directory there. RunFormatError: its manifest cannot be read.
        """
        if not run.exists():
            raise RunNotFound(f"{str(run.path)!r} is not a run directory (no run.json)")
        return cls._holding(run, None, resumed_from, fsync, buffered, prepare)

    @classmethod
    def _holding(
        cls,
        run: RunDir,
        manifest: Manifest | None,
        resumed_from: str | None,
        fsync: Fsync,
        buffered: bool,
        prepare: Callable[[Manifest], str | None] | None = None,
    ) -> "RunWriter":
        run = RunDir(run.path.absolute())  # whatever the program's working directory becomes
        lock = RunLock(run.lock)
        try:
            # Read only now: before the lock was held, another writer could still have changed it.
            manifest = manifest or read_manifest(run)
            if prepare is not None:
                resumed_from = prepare(manifest)
            return cls(run, manifest, lock, resumed_from=resumed_from, fsync=fsync, buffered=buffered)
        except BaseException:
            lock.release()
            raise

    def stream(self, name: str | None) -> TelemetryCollector:
        """The collector of a further stream ("rank0001", "gary1"), made at its first use; None is the run's own.

        A reader finds a new stream by its file; the manifest names it from its next replacement on.
        """
        if name not in self._streams:
            self._streams[name] = TelemetryCollector(
                self.run.telemetry(name), self.session, fsync=self._fsync, buffered=self._buffered
            )
            if name is not None and name not in self.manifest.streams:
                self.manifest.streams.append(name)
        return self._streams[name]

    def event(
        self, kind: str, *, step: int | None = None, severity: str = "info", stream: str | None = None, **data: Any
    ) -> int:
        """Record something that happened and return its seq; thread-safe.

        A number in `data` that is not finite becomes None, and its kind stands in data["nonfinite"].
        """
        record = Event(0, time.time(), kind, step, self.session, severity, stream, name_nonfinite(data))
        return self._events.append(record)

    def declare(self, metrics: Sequence[MetricSpec]) -> None:
        """Say how metrics that appear after the start are to be shown."""
        self.event("metrics", specs=list(metrics))

    def step_done(self, step: int) -> None:
        """A step boundary: a few attributes for the heartbeat, then what `look_after` does."""
        heartbeat = self.heartbeat
        heartbeat.step_done(step)
        if self.write_error is not None or heartbeat.failure is not None or heartbeat.death is not None:
            self.look_after(step)

    def look_after(self, step: int) -> None:
        """Raise what the disk refused in the background, note what broke there, start a thread that died again.

        It is raised once: a loop that goes on meets it again when it happens again. For every loop that waits between
        two boundaries as well: in a pause nobody else would hear that it is to end.

        Raises:
            RecordWriteError: see above.
        """
        heartbeat = self.heartbeat
        if self.write_error is not None:
            error, self.write_error = self.write_error, None
            raise error
        if heartbeat.failure is not None:
            failure, heartbeat.failure = heartbeat.failure, None
            self._note(step, f"the listening thread failed: {type(failure).__name__}: {failure}")
        if heartbeat.death is not None:
            self._restart_heartbeat(step, heartbeat.death)

    def _restart_heartbeat(self, step: int, death: BaseException) -> None:
        """At most once a second. Not in a forked child: the thread is its parent's."""
        now = time.monotonic()
        if now < self._next_restart or self._closed or os.getpid() != self._pid:
            return
        self._next_restart = now + _RESTART_S
        why = f"{type(death).__name__}: {death}"
        try:
            self.heartbeat.restart()
        except (RuntimeError, MemoryError) as error:
            self._note(step, f"the listening thread died and could not be started again ({error}): {why}")
        else:
            self._note(step, f"the listening thread died and was started again: {why}")

    def _note(self, step: int, text: str) -> None:
        """Record that something is wrong; what is told every second otherwise, once a minute."""
        now, (told, when) = time.monotonic(), self._told
        if text != told or now - when >= _TELL_AGAIN_S:
            self._told = (text, now)
            self.event("note", step=step, severity="critical", text=text[:500])

    def save_manifest(self) -> None:
        """Replace run.json by `manifest`, secrets as "***": at start, resume and end, or after a change of config."""
        recorded = msgspec.structs.replace(
            self.manifest,
            config=redact(self.manifest.config),
            profile=redact(self.manifest.profile),
            corpus=redact(self.manifest.corpus),
            probe=redact(self.manifest.probe),
        )
        try:
            write_document(self.run.manifest, encode_document(recorded))
        except OSError as error:
            raise RecordWriteError(
                error.errno, f"cannot write {str(self.run.manifest)!r}: {error.strerror or error}"
            ) from error

    def _each_second(self) -> None:
        """In the heartbeat thread: hear the mailbox, write what is buffered, force it to the disk now and then."""
        step = self.heartbeat.step
        try:
            self._look_for_itself()
            self._hear_the_mailbox(step)
            collectors = tuple(self._streams.values())
            for collector in collectors:
                collector.flush()
            now = time.monotonic()
            if now - self._last_sync >= _SYNC_S:
                self._last_sync = now
                for collector in collectors:
                    collector.sync()
                self._events.sync()
        except RecordWriteError as error:
            self.write_error = error

    def _hear_the_mailbox(self, step: int | None) -> None:
        until = time.monotonic() + _LISTEN_S
        while True:
            for rejected in self.mailbox.poll(step):
                self.event(
                    "command",
                    step=step,
                    severity="warning",
                    stage="refused",
                    name=rejected.name,
                    reason=rejected.reason,
                )
            if not self.mailbox.has_more or time.monotonic() >= until:
                return

    def _look_for_itself(self) -> None:
        """Records go on into files that were deleted or moved away, without an error."""
        try:
            os.stat(self.run.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            gone = f"the run's directory {str(self.run.path)!r} is gone, deleted or moved"
            raise RecordWriteError(error.errno, gone) from error
        except OSError:
            pass  # a file system that does not answer now

    def close(self, exit_code: int = 0, reason: str = "") -> None:
        """Say that this process stops writing, how, and let the lock go. A full disk does not keep the lock.

        Nothing happens in a forked child: the run is its parent's.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self.heartbeat.doing = "stop"
        # Run from the last to the first, each whatever the others raise.
        with ExitStack() as ending:
            ending.callback(self._lock.release)
            ending.callback(self._end, exit_code, reason)
            ending.callback(self._events.close)
            for collector in self._streams.values():
                ending.callback(collector.close)
            ending.callback(self.event, "end", step=self.heartbeat.step, exit_code=exit_code, reason=reason)
            # First: no other thread may touch the files while they are closed.
            ending.callback(self.heartbeat.stop)

    def _end(self, exit_code: int, reason: str) -> None:
        now = time.time()
        self.manifest.state, self.manifest.exit_code = "exited", exit_code
        self.manifest.ended_t, self.manifest.reason = now, reason
        self.manifest.sessions[-1].ended_t, self.manifest.sessions[-1].exit_code = now, exit_code
        # Only here: nothing else of this process writes any more, so that all of it is there for the manifest.
        reserve.release(self.run.reserve)
        self.save_manifest()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        # What ended the block is what matters: a disk that is full as well must not take its place.
        with suppress(RecordWriteError):
            self.close(exit_code_of(error), f"{type(error).__name__}: {error}"[:500])
