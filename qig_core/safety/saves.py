"""What a save function is asked for, and when; what a restore function gives. Both are the caller's.

Nothing here knows a tensor or a file.
"""

import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from qig_core.errors import CheckpointError, ExitCode
from qig_core.rundir.layout import RunDir
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import CheckpointManifest, GitRevision, Manifest
from qig_core.rundir.values import encode_basin, split_nonfinite
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import Cause, EmergencyAbortHandler, SaveSkipped
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
    """interval | best | command | emergency | phase | end"""
    in_use: Mapping[str, str] = field(default_factory=dict)
    """Checkpoints that the run counts on, with what for: they are not to be pruned."""
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

`qig_core.checkpoints.saving.saver` makes one that can do more: one that has a method `step_begins` is told when a step
begins, and one that is a Keeper saves in the background, prunes, and pins.
"""


class Gone(Protocol):
    """What a prune has deleted."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def error(self) -> str: ...

    def data(self) -> dict[str, Any]: ...


@runtime_checkable
class Keeper(Protocol):
    """A save function that looks after what it has made as well."""

    asynchronous: bool
    on_best: bool
    """Whether it is to save whenever its score is better than at every checkpoint before."""

    def rule(self) -> dict[str, Any]: ...
    def best_score(self, run: RunDir, /) -> float | None: ...
    def score(self, metrics: Mapping[str, float | None], /) -> float | None: ...

    def begin(self, request: SaveRequest, /) -> "Future[tuple[CheckpointManifest, Gone]]": ...
    def prune(self, run: RunDir, in_use: Mapping[str, str], /) -> Gone: ...
    def tidy(
        self, run: RunDir, in_use: Mapping[str, str], over: Mapping[str, Any], only: Collection[str] | None, /
    ) -> Gone: ...
    def tag(self, run: RunDir, name: str, tag: str, /) -> tuple[str, ...]: ...
    def untag(self, run: RunDir, name: str, tag: str, /) -> tuple[str, ...]: ...


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
        self.keeper: Keeper | None = save if isinstance(save, Keeper) else None
        self.step_begins: Callable[[], None] = getattr(save, "step_begins", _nothing)
        """To be called when a step begins, before it draws random numbers."""
        self._safety = safety
        self._policy = policy
        self._abort = abort
        self._memory = memory
        self.goes_on_from(parent, training_s)
        self._config_digest = config_digest
        self._corpus_digest = corpus_digest
        self.on_its_way: Future[tuple[CheckpointManifest, Gone]] | None = None
        """A save in the background; `settle` tells of it."""
        self._reason = ""
        """Of that one."""
        self._best: float | None = None
        """Score of the best checkpoint that is known of; higher is better."""
        self._best_asked = False
        """Whether those of earlier sessions are known of."""
        self.newest: CheckpointManifest | None = None
        self.error: Exception | None = None
        """What the last attempt failed of; None where it did not."""

    @property
    def possible(self) -> bool:
        return self._save is not None

    @property
    def is_of_a_checkpoint(self) -> bool:
        """Whether the state came from one, and none was made since."""
        return self._parent is not None and self.newest is None

    def goes_on_from(self, parent: str | None, training_s: float) -> None:
        """The state is that of a checkpoint, or of a run's birth."""
        self._parent = parent
        self._began = time.monotonic() - training_s
        if parent is not None:
            self._policy.saved(parent, sound=not any(state in ALARMS for state in self._safety.states().values()))

    def not_training(self, seconds: float) -> None:
        """Take a pause out of the training time."""
        self._began += seconds

    def in_use(self) -> dict[str, str]:
        """What must not be pruned: where the state came from, and where a soft reset would go back to."""
        wanted = dict.fromkeys(self._policy.wanted(), "for a soft reset")
        return wanted | ({self._parent: "gone on from"} if self._parent is not None else {})

    def publish(self, step: int, reason: str) -> CheckpointManifest:
        """Have a checkpoint made. Raises whatever the save function does, and SaveSkipped on a second Ctrl-C.

        The caller records it by `tell`.
        """
        assert self._save is not None
        heartbeat = self._writer.heartbeat
        heartbeat.doing = "save"
        try:
            with self._abort.interruptible():
                self.newest = made = self._save(self._request(step, reason))
        finally:
            heartbeat.step_done(step)  # ends `doing`; the time since the last boundary is then no step time
        self._made(made)
        return made

    def tell(self, made: CheckpointManifest) -> None:
        """Record that a checkpoint exists."""
        self._writer.event(
            "checkpoint", step=made.step, name=made.name, reason=made.reason, fingerprint=made.fingerprint
        )

    def attempt(self, step: int, reason: str) -> CheckpointManifest | None:
        """Publish, tell and prune; a failure is told as well and kept in `error`, and training can go on.

        The terminal hears of the first of a row of failures, and always of the one at the end.

        Raises:
            RecordWriteError: the disk does not take even that.
        """
        self.settle(step, wait=True)
        try:
            made = self.publish(step, reason)
        except (Exception, SaveSkipped) as error:
            self._failed(step, reason, error)
            return None
        self.error = None
        self.tell(made)
        if self.keeper is not None:
            self.tell_pruned(step, self.keeper.prune(self._writer.run, self.in_use()))
        return made

    def rule(self) -> dict[str, Any]:
        """By which checkpoints are pruned and ranked, for the manifest of the run."""
        return {} if self.keeper is None else self.keeper.rule()

    def is_best(self, sample: Mapping[str, float]) -> bool:
        """Whether a checkpoint is wanted because this sample's score is the best so far."""
        keeper = self.keeper
        if keeper is None or not keeper.on_best or (score := keeper.score(sample)) is None:
            return False
        if not self._best_asked:
            self._best_asked = True
            self._scored(keeper.best_score(self._writer.run))
        return self._best is None or score > self._best

    def begin(self, step: int, reason: str) -> None:
        """As `attempt`, where it can be in the background: `settle` then tells how it went.

        While another one is on its way this waits for it: there are never two.
        """
        if self.keeper is None or not self.keeper.asynchronous:
            self.attempt(step, reason)
            return
        self.settle(step, wait=True)
        heartbeat = self._writer.heartbeat
        heartbeat.doing = "save"
        try:
            request = self._request(step, reason)
            self.on_its_way, self._reason = self.keeper.begin(request), reason
            self._policy.saving()
            self._scored(self.keeper.score(request.metrics))
        except Exception as error:
            self._failed(step, reason, error)
        finally:
            heartbeat.step_done(step)

    def settle(self, step: int, *, wait: bool = False) -> None:
        """Tell of the save that was on its way, if it is there or has failed; `wait` until it is.

        Raises:
            RecordWriteError: as `attempt`. SaveSkipped: a second Ctrl-C while waiting; it is still on its way.
        """
        coming = self.on_its_way
        if coming is None or not (wait or coming.done()):
            return
        if not coming.done():
            self._writer.heartbeat.doing = "save"
            try:
                futures.wait((coming,))
            finally:
                self._writer.heartbeat.step_done(step)
        self.on_its_way = None
        try:
            made, gone = coming.result()
        except Exception as error:
            self._best, self._best_asked = None, False  # it may have been this one
            self._policy.not_saved()
            self._failed(step, self._reason, error)
            return
        self.error = None
        if self.newest is None or made.t > self.newest.t:
            self.newest = made
        self._made(made)
        self.tell(made)
        self.tell_pruned(step, gone)

    def tell_pruned(self, step: int, gone: Gone, *, how: str = "after a save") -> None:
        """Record what a prune deleted, if anything, and what it failed of."""
        for name in gone.names:
            self._policy.forget(name)
        if gone.names:
            self._writer.event("pruned", step=step, how=how, **gone.data())
        if gone.error:
            self._writer.event("alert", step=step, severity="warning", text=f"nothing was pruned: {gone.error}")

    def _failed(self, step: int, reason: str, error: BaseException) -> None:
        again = self.error is not None and reason != "end"
        self.error = error if isinstance(error, Exception) else CheckpointError("interrupted by a second Ctrl-C")
        text = f"{type(error).__name__}: {self.error}"
        self._writer.event("alert", step=step, severity="critical", text=f"no {reason} checkpoint: {text}")
        if self._safety.profile.on_failed_save == "stop" and reason != "end":
            self._abort.request(Cause("error", f"no {reason} checkpoint: {text}"[:500], int(ExitCode.IO)))
        if not again:
            with suppress(OSError, ValueError):  # a terminal that is gone
                print(f"qig: step {step}: no {reason} checkpoint: {printable(text)}", file=sys.stderr)

    def _scored(self, score: float | None) -> None:
        """There is a checkpoint with this score, or will be."""
        if score is not None:
            self._best = score if self._best is None else max(self._best, score)

    def _made(self, made: CheckpointManifest) -> None:
        if self.keeper is not None:
            self._scored(self.keeper.score(made.metrics))
        alarming = any(state in ALARMS for state in made.conditions.values())
        self._policy.saved(made.name, sound=not made.nonfinite and not alarming)

    def _request(self, step: int, reason: str) -> SaveRequest:
        writer, memory = self._writer, self._memory
        metrics, nonfinite = split_nonfinite(memory.latest)
        return SaveRequest(
            run=writer.run,
            session=writer.session,
            step=step,
            reason=reason,
            in_use=self.in_use(),
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
