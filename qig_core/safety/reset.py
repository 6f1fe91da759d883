"""Whether a run may go back to a checkpoint known to be good, and to which. Pure: no clock, no disk, no writer.

A checkpoint is known to be good when all that was known at it was finite, no condition was in alarm, and none came into
alarm in the `good_for` checks after it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from qig_core.safety.profile import SoftReset

POLICY_KEY = "soft_reset"
"""Where the monitor's state keeps the policy's."""
_KEPT = 16
"""Checkpoints that are remembered, good ones and ones that may become so."""


class Candidate(msgspec.Struct, frozen=True):
    """A checkpoint without a fault in it."""

    name: str
    check: int
    """How many checks of the loop there had been."""
    resets: int
    """How many soft resets there had been: the learning rate in it was lowered so often."""


class ResetPolicy:
    """Counts checks, and says what a critical alarm is to be answered with."""

    def __init__(self, settings: SoftReset | None) -> None:
        self.settings = settings or SoftReset()
        self._check = 0
        self._resets: list[int] = []
        """The checks at which there was one."""
        self._good: deque[Candidate] = deque(maxlen=_KEPT)
        self._pending: deque[Candidate] = deque(maxlen=_KEPT)
        self._begun: Candidate | None = None
        self._spoiled = False
        """Whether there was an alarm since the save that is on its way was begun."""

    @property
    def number(self) -> int:
        """Soft resets so far."""
        return len(self._resets)

    def checked(self, alarming: bool) -> None:
        """One more check of the loop; whether any condition was in alarm at it."""
        self._check += 1
        pending = self._pending
        self._spoiled |= alarming
        if pending:
            if alarming:
                pending.clear()
            elif self._check - pending[0].check >= self.settings.good_for:
                self._good.append(pending.popleft())

    def saving(self) -> None:
        """A save begins in the background: what `saved` then tells of is of now."""
        self._begun, self._spoiled = Candidate("", self._check, self.number), False

    def not_saved(self) -> None:
        """That save came to nothing."""
        self._begun = None

    def saved(self, name: str, *, sound: bool) -> None:
        """A checkpoint was made, now or as `saving` said, or the run goes on from it.

        Args:
            sound: all in it was finite and nothing in alarm.
        """
        begun, self._begun = self._begun, None
        if begun is not None and self._spoiled:
            return
        made = msgspec.structs.replace(begun or Candidate("", self._check, self.number), name=name)
        if sound and all(each.name != name for each in self._good):
            self._pending.append(made)

    @property
    def good(self) -> Sequence[Candidate]:
        """Those known to be good, the newest first."""
        return tuple(reversed(self._good))

    def wanted(self) -> list[str]:
        """What must stay so that a reset is possible: the newest that is good, and those that may become it."""
        return [each.name for each in (*list(self._good)[-1:], *self._pending)]

    def forget(self, name: str) -> None:
        """It cannot be loaded, or is gone."""
        for kept in (self._good, self._pending):
            for each in [one for one in kept if one.name == name]:
                kept.remove(each)

    def answers(self, critical: Sequence[str]) -> bool:
        """Whether the profile wants these alarms, by their ids, answered by a reset."""
        return bool(critical) and all(each in self.settings.limits for each in critical)

    def refusal(self) -> str:
        """Why an alarm is not answered by a reset now; empty where it may be."""
        settings = self.settings
        since = self._check - self._resets[-1] if self._resets else None
        if since is not None and since < settings.cooldown:
            return f"the last one was {since} checks ago, and the cooldown is {settings.cooldown}"
        recent = sum(self._check - each < settings.window for each in self._resets)
        if recent >= settings.at_most:
            return f"there were {recent} in the last {settings.window} checks, and at most {settings.at_most} may be"
        return self.nothing_good()

    def nothing_good(self) -> str:
        """Why there is no checkpoint to go back to; empty where there is one."""
        if self._good:
            return ""
        return (
            "no checkpoint is known to be good: one that was saved without an alarm and followed by "
            f"{self.settings.good_for} checks without one"
        )

    def went_back(self, name: str, then: Mapping[str, Any], *, reset: bool) -> float:
        """The state is the one of a checkpoint again.

        Args:
            then: the policy's `state` in that checkpoint: what it does not know of was made later, on the branch that
                is left now, and is no place to go back to any more.
            reset: by a soft reset, and not by a person who named it.

        Returns:
            What the learning rate in it is to be multiplied by.
        """
        before = next((each.resets for each in self._good if each.name == name), self.number)
        if reset:
            self._resets.append(self._check)
        before_it = {each["name"] for kept in ("good", "pending") for each in then.get(kept, ())}
        self._good = deque((each for each in self._good if each.name in before_it | {name}), maxlen=_KEPT)
        self._pending.clear()
        return self.settings.lr_factor ** (self.number - before) if reset else 1.0

    def state(self) -> dict[str, Any]:
        """Plain data; a checkpoint keeps it for the next session."""
        return {
            "check": self._check,
            "resets": list(self._resets),
            "good": [msgspec.to_builtins(each) for each in self._good],
            "pending": [msgspec.to_builtins(each) for each in self._pending],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`; from {} as at the birth of a run."""
        self._check = int(state.get("check", 0))
        self._resets = [int(each) for each in state.get("resets", ())]
        for kept, name in ((self._good, "good"), (self._pending, "pending")):
            kept.clear()
            kept.extend(msgspec.convert(each, Candidate) for each in state.get(name, ()))
