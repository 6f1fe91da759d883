"""One process's hold on a run: the lock, a session, numbered records, the heartbeat, the mailbox, an orderly end."""

import os
import re
import secrets
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from qig_core.errors import RecordWriteError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.heartbeat import HeartbeatThread
from qig_core.rundir.host import boot_id, host_name, start_ticks, user_name
from qig_core.rundir.layout import RunDir, new_run_id
from qig_core.rundir.lock import RunLock
from qig_core.rundir.mailbox import Mailbox
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.records import Fsync, RecordFile
from qig_core.rundir.schema import (
    ConsciousnessTelemetry,
    Event,
    Manifest,
    MetricSpec,
    Sample,
    SessionRecord,
    encode_basin,
    split_nonfinite,
)

_SECRET = re.compile(r"secret|passw(or)?d|api[_-]?key|credential|private[_-]?key|(^|[_-])token$", re.IGNORECASE)
_PLAIN_FLOATS = {float}
_SYNC_S = 5.0

Metrics = Mapping[str, float | None] | ConsciousnessTelemetry


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it may be recorded: text under a secret-looking key becomes "***"."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out[key] = redact(value)
        else:
            out[key] = "***" if isinstance(value, str) and value and _SECRET.search(key) else value
    return out


class TelemetryCollector:
    """Samples of one stream, one line each.

    With the default, `log` returns after write(2): a killed process loses no sample that it returned from. With
    `buffered` records are handed to the heartbeat thread and a kill loses at most one second of them.
    """

    def __init__(self, path: Path, session: str, *, fsync: Fsync = "interval", buffered: bool = False) -> None:
        self._file = RecordFile(path, fsync=fsync)
        self._session: str | None = session
        self._buffer: deque[Sample] | None = deque() if buffered else None
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
        """
        if isinstance(metrics, ConsciousnessTelemetry):
            metrics = metrics.metrics()
        nonfinite: dict[str, str] = {}
        values = metrics.values()
        # Almost always: plain floats, all finite. The sum is finite only if every value is.
        if set(map(type, values)) == _PLAIN_FLOATS and isfinite(sum(values)):  # type: ignore[arg-type]  # checked by type
            m: Any = metrics
        else:
            m, nonfinite = split_nonfinite({name: value for name, value in metrics.items() if value is not None})
        sample = Sample(
            0, step, time.time(), self._session, m, None if basin is None else encode_basin(basin), regime, nonfinite
        )
        # The session stands on its first sample: sixteen digits a line would be a tenth of the file.
        self._session = None
        seq = self._next
        if self._buffer is None:
            seq = self._file.append(sample)
        else:
            sample.m = dict(m)
            self._buffer.append(sample)
        self._next = seq + 1
        return seq

    def flush(self) -> None:
        """Write what is buffered, if this collector buffers."""
        while self._buffer:
            self._file.append(self._buffer[0])
            self._buffer.popleft()

    def sync(self) -> None:
        self.flush()
        self._file.sync()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


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
        self._closed = False
        self.write_error: RecordWriteError | None = None
        """What the disk refused in the heartbeat thread; the step boundary raises it."""
        self._events = RecordFile(run.events, fsync=fsync)
        self.telemetry = self.stream(None)
        self.mailbox = Mailbox(run, self.session)
        pid = os.getpid()
        manifest.state, manifest.exit_code, manifest.ended_t, manifest.reason = "running", None, None, ""
        manifest.sessions.append(
            SessionRecord(
                id=self.session,
                t=time.time(),
                pid=pid,
                host=host_name(),
                boot_id=boot_id(),
                start_ticks=start_ticks(pid),
                argv=list(sys.argv),
                resumed_from=resumed_from,
            )
        )
        self.heartbeat = HeartbeatThread(run, self.session, each_second=self._each_second)
        self.save_manifest()
        self.event("start", pid=pid, resumed_from=resumed_from)
        self.heartbeat.start()

    @classmethod
    def create(
        cls, root: Path, manifest: Manifest | None = None, *, fsync: Fsync = "interval", buffered: bool = False
    ) -> "RunWriter":
        """Make a run directory under `root`; the manifest's id is its name (empty: a new one is drawn)."""
        manifest = manifest or Manifest(id="")
        manifest.id = manifest.id or new_run_id()
        run = RunDir(root / manifest.id)
        try:
            root.mkdir(parents=True, exist_ok=True)
            run.path.mkdir()
            for folder in (run.checkpoints, run.emergencies, run.artifacts):
                folder.mkdir()
        except OSError as error:
            raise RecordWriteError(error.errno, f"cannot make {str(run.path)!r}: {error.strerror}") from error
        manifest.created_t = manifest.created_t or time.time()
        manifest.cwd = manifest.cwd or os.getcwd()
        manifest.user = manifest.user or user_name()
        manifest.config = redact(manifest.config)
        return cls._holding(run, manifest, None, fsync, buffered)

    @classmethod
    def reopen(
        cls, run: RunDir, *, resumed_from: str | None = None, fsync: Fsync = "interval", buffered: bool = False
    ) -> "RunWriter":
        """Go on with a run whose trainer has ended or died: the same directory, a new session."""
        return cls._holding(run, None, resumed_from, fsync, buffered)

    @classmethod
    def _holding(
        cls, run: RunDir, manifest: Manifest | None, resumed_from: str | None, fsync: Fsync, buffered: bool
    ) -> "RunWriter":
        lock = RunLock(run.lock)
        try:
            # Read only now: before the lock was held, another writer could still have changed it.
            manifest = manifest or read_manifest(run)
            return cls(run, manifest, lock, resumed_from=resumed_from, fsync=fsync, buffered=buffered)
        except BaseException:
            lock.release()
            raise

    def stream(self, name: str | None) -> TelemetryCollector:
        """The collector of a further stream ("rank0001", "gary1"), made at its first use; None is the run's own."""
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
        """Record something that happened and return its seq; thread-safe. Floats in `data` must be finite or None."""
        record = Event(0, time.time(), kind, step, self.session, severity, stream, data)
        return self._events.append(record)

    def declare(self, metrics: Sequence[MetricSpec]) -> None:
        """Say how metrics that appear after the start are to be shown."""
        self.event("metrics", specs=list(metrics))

    def step_done(self, step: int) -> None:
        """A step boundary: two attributes for the heartbeat; raises what the disk refused in the background."""
        self.heartbeat.step_done(step)
        if self.write_error is not None:
            raise self.write_error

    def save_manifest(self) -> None:
        try:
            write_document(self.run.manifest, encode_document(self.manifest))
        except OSError as error:
            raise RecordWriteError(
                error.errno, f"cannot write {str(self.run.manifest)!r}: {error.strerror or error}"
            ) from error

    def _each_second(self) -> None:
        """In the heartbeat thread: hear the mailbox, write what is buffered, force it to the disk now and then."""
        try:
            step = self.heartbeat.step
            for rejected in self.mailbox.poll(step):
                self.event(
                    "command",
                    step=step,
                    severity="warning",
                    stage="refused",
                    name=rejected.name,
                    reason=rejected.reason,
                )
            now = time.monotonic()
            for collector in tuple(self._streams.values()):
                collector.flush()
            if now - self._last_sync >= _SYNC_S:
                self._last_sync = now
                for collector in tuple(self._streams.values()):
                    collector.sync()
                self._events.sync()
        except RecordWriteError as error:
            self.write_error = error

    def close(self, exit_code: int = 0, reason: str = "") -> None:
        """Say that this process stops writing, how, and let the lock go. A full disk does not keep the lock."""
        if self._closed:
            return
        self._closed = True
        self.heartbeat.doing = "stop"
        try:
            # Ended first: no other thread may touch the files while they are closed.
            self.heartbeat.stop()
            self.event("end", step=self.heartbeat.step, exit_code=exit_code, reason=reason)
            now = time.time()
            self.manifest.state, self.manifest.exit_code = "exited", exit_code
            self.manifest.ended_t, self.manifest.reason = now, reason
            self.manifest.sessions[-1].ended_t, self.manifest.sessions[-1].exit_code = now, exit_code
            for collector in self._streams.values():
                collector.close()
            self._events.close()
            self.save_manifest()
        finally:
            self._lock.release()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.close(getattr(error, "exit_code", 1), f"{type(error).__name__}: {error}"[:500])
