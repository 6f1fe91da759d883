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
from qig_core.safety.reset import ResetPolicy
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

    how: Literal["restore", "soft_reset"]
    restored: Restored
    facts: dict[str, Any]
    """For the acknowledgement."""


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
        """Put the state back and record it.

        Raises:
            CheckpointError: no checkpoint that can be trusted; nothing has changed.
            HalfRestored: nothing can be said of the state any more.
            RecordWriteError: the state is the checkpoint's, and the disk did not take the record of it.
        """
        policy, writer = self._policy, self._writer
        left = writer.heartbeat.step
        writer.heartbeat.doing = "restore"
        put_back = self._prepared(ask)
        if self._abort.asked:
            raise CheckpointError("the run is to stop")
        reset = ask.how == "soft_reset"
        try:
            restored = put_back()
            name = restored.checkpoint or ""
            factor = policy.went_back(name, reset=reset)
            if factor != 1.0 and self._scale_lr is not None:
                self._scale_lr(factor)
        except Exception as error:
            raise HalfRestored(f"{type(error).__name__}: {error}") from error
        step = restored.step
        facts: dict[str, Any] = {"checkpoint": name, "fingerprint": restored.fingerprint}
        if reset:
            # What is done to the rate, not what was asked for: without scale_lr it stays.
            lr_factor = factor if self._scale_lr is not None else 1.0
            told: dict[str, Any] = {
                "checkpoint": name,
                "cause": ask.cause,
                "lr_factor": lr_factor,
                "number": policy.number,
            }
            writer.event("soft_reset", step=step, severity="warning", from_step=left, to_step=step, **told)
            facts |= {"lr_factor": lr_factor, "number": policy.number}
        writer.event("restored", step=step, checkpoint=name, fingerprint=restored.fingerprint, how=ask.how)
        return GoneBack(how=ask.how, restored=restored, facts=facts)

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
