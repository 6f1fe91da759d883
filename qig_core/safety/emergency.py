"""What was known when a run was stopped: emergencies/ID.json, one for each abort."""

import os
import secrets
import time
from collections import deque
from typing import Any

import msgspec

from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import FORMAT
from qig_core.rundir.values import split_nonfinite
from qig_core.safety.abort import Cause

REMEMBERED = 200


class RememberedSample(msgspec.Struct, omit_defaults=True):
    """One check of the loop, recorded in the telemetry or not."""

    step: int
    t: float
    m: dict[str, float | None]
    nonfinite: dict[str, str] = {}


class StageTime(msgspec.Struct):
    stage: str
    t: float


class EmergencyRecord(msgspec.Struct):
    """emergencies/ID.json."""

    id: str
    run: str
    session: str
    step: int | None
    t: float
    cause: Cause
    exit_code: int
    checkpoint: str | None
    fingerprint: str | None
    """Of the checkpoint."""
    note: str
    """Why there is no checkpoint, if there is none."""
    conditions: list[dict[str, Any]]
    """Every condition as its event would say it, critical first."""
    stages: list[StageTime]
    samples: list[RememberedSample]
    """The last 200 checks, oldest first."""
    versions: dict[str, str]
    traceback: str = ""
    format: int = FORMAT

    def write(self, run: RunDir) -> None:
        """Write or replace the record.

        Raises:
            OSError: as the system says.
        """
        write_document(run.emergency(self.id), encode_document(self))


class Reserved:
    """A file for the first record of a stop, made before there is one.

    To make a file takes longer than all else that happens between the boundary and the emergency save. It has a
    temporary name until it is needed, and is not forced to the disk.
    """

    def __init__(self, run: RunDir, id: str) -> None:
        """Raises: OSError, as the system says."""
        self._target = run.emergency(id)
        self._path = self._target.with_name(f".{self._target.name}.{secrets.token_hex(6)}.tmp")
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._pid = os.getpid()

    def write(self, record: EmergencyRecord) -> None:
        """Put it in its place. Raises: OSError, as the system says."""
        content = memoryview(encode_document(record))
        while content:
            content = content[os.write(self._fd, content) :]
        os.replace(self._path, self._target)

    def drop(self) -> None:
        """It is needed no more; what was put in its place stays."""
        os.close(self._fd)
        if os.getpid() == self._pid:
            self._path.unlink(missing_ok=True)


class Memory:
    """The last samples, and the latest of everything that was measured."""

    def __init__(self) -> None:
        self._last: deque[tuple[int, float, dict[str, float]]] = deque(maxlen=REMEMBERED)
        self.latest: dict[str, float] = {}
        self.basin: bytes | None = None
        self.regime: str | None = None
        self._newest: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Keep a sample, which must not be changed afterwards."""
        self._before = self._newest
        self._newest = metrics
        self._last.append((step, time.time(), metrics))
        self.latest.update(metrics)

    def forget_latest(self) -> None:
        """The state is another one: what was measured last does not belong to it. The samples stay."""
        self.latest = {}
        self.basin = self.regime = None
        self._newest, self._before = {}, {}

    @property
    def has_more(self) -> bool:
        """Whether the newest sample has a metric that the one before had not."""
        return not self._newest.keys() <= self._before.keys()

    def samples(self) -> list[RememberedSample]:
        return [RememberedSample(step, t, *split_nonfinite(metrics)) for step, t, metrics in tuple(self._last)]
