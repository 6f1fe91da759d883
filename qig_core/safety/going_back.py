"""Going back to a checkpoint while the run goes on: a person's `restore`, or a soft reset. At step boundaries only.

Which checkpoint is good is the policy's to say (`reset`), how a state is put back the caller's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from qig_core.errors import CheckpointError, ConfigError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Command
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import EmergencyAbortHandler
from qig_core.safety.profile import Profile
from qig_core.safety.reset import POLICY_KEY, ResetPolicy
from qig_core.safety.saves import Restored


@dataclass(frozen=True, kw_only=True)
class Ask:
    """That somebody or something wants the run to go back."""

    how: Literal["restore", "soft_reset"]
    cause: str
    checkpoint: str | None = None
    """None: the last one that is known to be good."""
    command: Command | None = None


@dataclass(frozen=True, kw_only=True)
class GoneBack:
    """The state is that of a checkpoint again."""

    ask: Ask
    restored: Restored
    left: int | None
    """The step at which the run was."""
    lr_factor: float
    """What was done to the learning rate in the checkpoint."""
    number: int
    """Of soft resets so far."""

    @property
    def facts(self) -> dict[str, Any]:
        """For whoever asked."""
        found = {"checkpoint": self.restored.checkpoint, "fingerprint": self.restored.fingerprint}
        return found | ({"lr_factor": self.lr_factor, "number": self.number} if self.ask.how == "soft_reset" else {})


class HalfRestored(Exception):
    """Putting the state back failed on the way: it is neither the old one nor the checkpoint's."""


class GoingBack:
    """Puts the state of a checkpoint back into a loop that is able to take it.

    Args:
        restore: as the monitor gets it. One that has a method `prepare(run, name)` can be used while the run goes on:
            it verifies and reads, touches nothing of the loop, and returns what puts the state back; and `scale_lr`, a
            function or None (`qig_core.checkpoints.saving.restorer` makes such a one).
    """

    def __init__(
        self, writer: RunWriter, restore: object, *, policy: ResetPolicy, abort: EmergencyAbortHandler
    ) -> None:
        self._writer = writer
        self._restore = restore
        self._prepare: Callable[[RunDir, str], Callable[[], Restored]] | None = getattr(restore, "prepare", None)
        self._scale_lr: Callable[[float], object] | None = getattr(restore, "scale_lr", None)
        self._policy = policy
        self._abort = abort
        self.loop_follows = False
        """Whether the loop takes its steps from the monitor, which alone can make them go back."""

    def refusal(self) -> str:
        """Why this loop cannot go back at all; empty where it can."""
        if self._restore is None:
            return "this loop gave no restore function"
        if self._prepare is None:
            return "this loop's restore function works at a start only; qig_core.checkpoints.saving.restorer makes one"
        if not self.loop_follows:
            return "this loop does not take its steps from monitor.steps(), so they cannot go back"
        return ""

    def go(self, ask: Ask) -> GoneBack:
        """Put the state back. The caller brings all else to that step, and then has it recorded by `tell`.

        Raises:
            CheckpointError: no checkpoint that can be trusted; nothing has changed.
            HalfRestored: nothing can be said of the state any more.
            RecordWriteError: nothing has changed either.
        """
        left = self._writer.heartbeat.step
        self._writer.heartbeat.doing = "restore"
        put_back = self._prepared(ask)
        if self._abort.asked:
            raise CheckpointError("the run is to stop")
        try:
            restored = put_back()
            then = (restored.monitor_state or {}).get(POLICY_KEY, {})
            factor = self._policy.went_back(restored.checkpoint or "", then, reset=ask.how == "soft_reset")
            if self._scale_lr is None:
                factor = 1.0  # nobody does it
            elif factor != 1.0:
                self._scale_lr(factor)
        except Exception as error:
            raise HalfRestored(f"{type(error).__name__}: {error}") from error
        return GoneBack(ask=ask, restored=restored, left=left, lr_factor=factor, number=self._policy.number)

    def tell(self, gone: GoneBack) -> None:
        """Record that the run went back.

        Raises:
            RecordWriteError: the disk refused.
        """
        step, ask, restored = gone.restored.step, gone.ask, gone.restored
        if ask.how == "soft_reset":
            told: dict[str, Any] = {
                "checkpoint": restored.checkpoint,
                "cause": ask.cause,
                "lr_factor": gone.lr_factor,
                "number": gone.number,
            }
            self._writer.event("soft_reset", step=step, severity="warning", from_step=gone.left, to_step=step, **told)
        found: dict[str, Any] = {"checkpoint": restored.checkpoint, "fingerprint": restored.fingerprint}
        self._writer.event("restored", step=step, how=ask.how, **found)

    def _prepared(self, ask: Ask) -> Callable[[], Restored]:
        assert self._prepare is not None
        if ask.checkpoint is not None:
            return self._prepare(self._writer.run, ask.checkpoint)
        for candidate in self._policy.good:
            try:
                return self._prepare(self._writer.run, candidate.name)
            except CheckpointError as error:
                self._policy.forget(candidate.name)
                text = f"no soft reset to {candidate.name}: {error}"
                self._writer.event("alert", step=self._writer.heartbeat.step, severity="warning", text=text)
        raise CheckpointError(self._policy.nothing_good())


def check_restore(profile: Profile, restore: object) -> None:
    """What a profile asks of a loop, before there is a run.

    Raises:
        ConfigError: soft resets are asked for, and the loop gave nothing to do them with.
    """
    asked = profile.soft_reset
    if asked is None or not asked.limits:
        return
    if getattr(restore, "prepare", None) is None:
        raise ConfigError(
            f"profile {profile.name!r} asks for soft resets, which need restore=restorer(load_state) "
            "(qig_core.checkpoints.saving)"
        )
    if asked.lr_factor != 1.0 and getattr(restore, "scale_lr", None) is None:
        raise ConfigError(
            f"profile {profile.name!r} has soft_reset.lr_factor {asked.lr_factor:g}, which needs "
            "restorer(load_state, scale_lr=...)"
        )
