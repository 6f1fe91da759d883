"""What a save function is asked for, and when; what a restore function gives. Both are the caller's.

Nothing here knows a tensor or a file.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import CheckpointManifest, GitRevision, Manifest
from qig_core.rundir.values import encode_basin, split_nonfinite
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import EmergencyAbortHandler, SaveSkipped
from qig_core.safety.emergency import Memory
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.reset import POLICY_KEY, ResetPolicy
from qig_core.safety.verdict import ALARMS


@dataclass(frozen=True, kw_only=True)
class SaveRequest:
    """A checkpoint to be made now, with everything that the monitor knows at this moment."""

    run: RunDir
    session: str
    step: int
    """Optimiser updates that the state to be saved holds."""
    reason: str
    """interval | command | emergency | end"""
    monitor_state: Mapping[str, Any] = field(default_factory=dict)
    """Plain data; a resume hands it back as the monitor's `monitor_state`. Belongs into the payload."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """The latest value of each metric; None where it was not finite."""
    nonfinite: Mapping[str, str] = field(default_factory=dict)
    basin: str | None = None
    """Base64, as a record has it."""
    regime: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    seq: int | None = None
    training_s: float | None = None
    config_digest: str = ""
    corpus_digest: str = ""
    parent: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    git: GitRevision | None = None

    def facts(self) -> dict[str, Any]:
        """The fields of a CheckpointManifest that the monitor knows, beside run, session, step and reason."""
        return {
            "metrics": dict(self.metrics),
            "nonfinite": dict(self.nonfinite),
            "basin": self.basin,
            "regime": self.regime,
            "conditions": dict(self.conditions),
            "seq": self.seq,
            "training_s": self.training_s,
            "config_digest": self.config_digest,
            "corpus_digest": self.corpus_digest,
            "parent": self.parent,
            "versions": dict(self.versions),
            "git": self.git,
        }


Save = Callable[[SaveRequest], CheckpointManifest]
"""Publishes the caller's state and returns the manifest; whatever it raises means that there is no checkpoint.

One that has a method `step_begins` is told when a step begins (`qig_core.checkpoints.saving.saver` makes such a one).
"""


class Restored(Protocol):
    """Where a session goes on; `qig_core.checkpoints.recovery.Restored` is one."""

    @property
    def step(self) -> int: ...
    @property
    def checkpoint(self) -> str | None: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def monitor_state(self) -> Mapping[str, Any] | None: ...
    @property
    def training_s(self) -> float: ...


Restore = Callable[
    [RunDir, str | None, Callable[[Manifest], None], int | None],
    tuple[RunWriter, Restored],
]
"""Opens a run for a new session with the state of a checkpoint; `qig_core.checkpoints.saving.restorer` makes one.

Args: the run; STEP or CHECKPOINT, None for the newest that verifies; what changes the manifest; the total of steps.
"""


def _nothing() -> None:
    pass


class Saves:
    """Has checkpoints made at step boundaries, and tells the run of each."""

    def __init__(
        self,
        writer: RunWriter,
        save: Save | None,
        *,
        safety: SafetyMonitor,
        policy: ResetPolicy,
        abort: EmergencyAbortHandler,
        memory: Memory,
        training_s: float,
        parent: str | None,
        config_digest: str,
        corpus_digest: str,
    ) -> None:
        self._writer = writer
        self._save = save
        self.step_begins: Callable[[], None] = getattr(save, "step_begins", _nothing)
        """To be called when a step begins, before it draws random numbers."""
        self._safety = safety
        self._policy = policy
        self._abort = abort
        self._memory = memory
        self.goes_on_from(parent, training_s)
        self._config_digest = config_digest
        self._corpus_digest = corpus_digest
        self.newest: CheckpointManifest | None = None
        self.error: Exception | None = None
        """What the last attempt failed of; None where it did not."""

    @property
    def possible(self) -> bool:
        return self._save is not None

    def goes_on_from(self, parent: str | None, training_s: float) -> None:
        """The state is that of a checkpoint, or of a run's birth."""
        self._parent = parent
        self._began = time.monotonic() - training_s
        if parent is not None:
            self._policy.saved(parent, sound=not any(state in ALARMS for state in self._safety.states().values()))

    def not_training(self, seconds: float) -> None:
        """Take a pause out of the training time."""
        self._began += seconds

    def publish(self, step: int, reason: str) -> CheckpointManifest:
        """Have a checkpoint made. Raises whatever the save function does, and SaveSkipped on a second Ctrl-C.

        The caller records it by `tell`.
        """
        assert self._save is not None
        writer, heartbeat, memory = self._writer, self._writer.heartbeat, self._memory
        metrics, nonfinite = split_nonfinite(memory.latest)
        request = SaveRequest(
            run=writer.run,
            session=writer.session,
            step=step,
            reason=reason,
            monitor_state=self._safety.state() | {POLICY_KEY: self._policy.state()},
            metrics=metrics,
            nonfinite=nonfinite,
            basin=None if memory.basin is None else encode_basin(memory.basin),
            regime=memory.regime,
            conditions=self._safety.states(),
            seq=writer.telemetry.next_seq - 1 if writer.telemetry.next_seq else None,
            training_s=round(time.monotonic() - self._began, 3),
            config_digest=self._config_digest,
            corpus_digest=self._corpus_digest,
            parent=self._parent,
            versions=writer.manifest.versions,
            git=writer.manifest.git,
        )
        heartbeat.doing = "save"
        try:
            with self._abort.interruptible():
                self.newest = made = self._save(request)
        finally:
            heartbeat.step_done(step)  # ends `doing`; the time since the last boundary is then no step time
        alarming = any(state in ALARMS for state in made.conditions.values())
        self._policy.saved(made.name, sound=not made.nonfinite and not alarming)
        return made

    def tell(self, made: CheckpointManifest) -> None:
        """Record that a checkpoint exists."""
        self._writer.event(
            "checkpoint", step=made.step, name=made.name, reason=made.reason, fingerprint=made.fingerprint
        )

    def attempt(self, step: int, reason: str) -> CheckpointManifest | None:
        """Publish and tell; a failure is told as well and kept in `error`, and training can go on.

        The terminal hears of the first of a row of failures, and always of the one at the end.

        Raises:
            RecordWriteError: the disk does not take even that.
        """
        again = self.error is not None and reason != "end"
        self.error = None
        try:
            made = self.publish(step, reason)
        except (Exception, SaveSkipped) as error:
            self.error = error if isinstance(error, Exception) else CheckpointError("interrupted by a second Ctrl-C")
            text = f"{type(error).__name__}: {self.error}"
            self._writer.event("alert", step=step, severity="critical", text=f"no {reason} checkpoint: {text}")
            if not again:
                with suppress(OSError, ValueError):  # a terminal that is gone
                    print(f"qig: step {step}: no {reason} checkpoint: {printable(text)}", file=sys.stderr)
            return None
        self.tell(made)
        return made
