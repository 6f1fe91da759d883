"""A shelf of checkpoints through saves, tags, prunes, damage, refusals, kills and new sessions, against a small model.

What must be durable when is for `test_crash_consistency`: here fsync is only a call that may be refused.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qig_core.checkpoints.catalog import Found, list_checkpoints
from qig_core.checkpoints.pruning import carry_out, plan_prune, planning
from qig_core.checkpoints.recovery import newest_verified
from qig_core.checkpoints.retention import EMERGENCY, Keep, Plan
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, remove_stale_temporaries, remove_tag
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock
from qig_core.rundir.schema import PINNED

PAYLOAD = "weights.bin"
LISTED = {"": "COMPLETE", "flipped": "COMPLETE", "cut": "TORN", "missing": "TORN", "manifest": "UNREADABLE"}
"""What a look says of each damage; reading every byte tells a flipped one too."""
CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir", "write", "fsync")


class Killed(BaseException):
    """The process is gone: no call goes through any more."""


@dataclass
class Known:
    """What the model holds of a checkpoint."""

    number: int
    metrics: dict[str, float | None]
    reason: str
    tags: set[str] = field(default_factory=set)
    damage: str = ""

    @property
    def listed(self) -> str:
        return LISTED[self.damage]

    @property
    def content(self) -> bytes:
        return f"weights {self.number}".encode() * 5


@contextmanager
def disturbed(call: str, at: int, *, killed: bool) -> Iterator[None]:
    """The call of that name, after `at` others of it, is refused; or the process is killed there."""
    left, dead = at, False

    def wrapped(name: str, going_on: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **given: Any) -> Any:
            nonlocal left, dead
            if dead:
                raise Killed
            if name == call:
                left -= 1
                if left == -1 and killed:
                    dead = True
                    raise Killed
                if left == -1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a-name")
            return going_on(*args, **given)

        return instead

    with pytest.MonkeyPatch.context() as patched:
        for name in CHANGES:
            patched.setattr(os, name, wrapped(name, getattr(os, name)))
        yield


METRICS = st.fixed_dictionaries(
    {},
    optional={
        "loss_heldout": st.none() | st.floats(allow_nan=True) | st.sampled_from([0.5, 1.0]),
        "drift_rolling": st.floats(0, 3),
    },
)
REASONS = st.sampled_from([*["interval"] * 5, "best", "command", EMERGENCY])
TAGS = st.just(set[str]()) | st.sets(st.sampled_from([PINNED, "kept", "paper"]), max_size=2)
KEEPS = st.builds(Keep, newest=st.integers(1, 2), best=st.integers(0, 2))
PICK = st.integers(0, 1000)
HOW = st.sampled_from(["undisturbed", "undisturbed", "refused", "killed"])
SAVING = st.sampled_from(["mkdir", "write", "fsync", "replace", "rename"])
DELETING = st.sampled_from(["rename", "fsync", "unlink", "rmdir"])
AT = st.integers(0, 4)


class Shelf(RuleBasedStateMachine):
    """One run directory and one model of it."""

    @initialize(earlier=st.integers(1, 8))
    def begin(self, earlier: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shelf-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda fd: None)
        self.run = RunDir(self.folder / "a-run")
        self.run.checkpoints.mkdir(parents=True)
        self.run.lock.touch()
        self.model: dict[str, Known] = {}
        """In the order of publication."""
        self.saved = 0
        self.save_some(earlier)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    @rule(count=st.integers(2, 6))
    def save_some(self, count: int) -> None:
        for step in range(count):
            self.save_one(step, {"loss_heldout": 1.0 / (1 + step)}, "interval", set())

    def pick(self, number: int) -> str:
        return list(self.model)[number % len(self.model)]

    def act(self, how: str, call: str, at: int, action: Callable[[], Any]) -> bool:
        """Whether it came to its end."""
        if how == "undisturbed":
            action()
            return True
        with suppress(Killed, CheckpointError), disturbed(call, at, killed=how == "killed"):
            action()
            return True
        return False

    @rule(metrics=METRICS, reason=REASONS, tags=TAGS, step=st.integers(0, 50), how=HOW, call=SAVING, at=AT)
    def save(
        self, metrics: dict[str, float | None], reason: str, tags: set[str], step: int, how: str, call: str, at: int
    ) -> None:
        before = self.hidden()
        self.save_one(step, metrics, reason, tags, how, call, at)
        if how == "refused":
            assert self.hidden() == before, "what is refused leaves nothing"

    def hidden(self) -> set[str]:
        return {name for name in os.listdir(self.run.checkpoints) if name.startswith(".")}

    def save_one(
        self,
        step: int,
        metrics: dict[str, float | None],
        reason: str,
        tags: set[str],
        how: str = "undisturbed",
        call: str = "",
        at: int = 0,
    ) -> None:
        self.saved += 1
        known = Known(self.saved, metrics, reason, set(tags))
        files = {PAYLOAD: known.content, "state.json": b"{}"}

        def action() -> None:
            publish(
                self.run,
                session="5e55",
                step=step,
                reason=reason,
                files=files,
                tags=sorted(tags),
                metrics=metrics,
                seq=known.number,
            )

        ended = self.act(how, call, at, action)
        new = {*os.listdir(self.run.checkpoints)} - {*self.model}
        new = {name for name in new if not name.startswith(".")}
        assert len(new) <= 1
        assert new or not ended, "it was promised"
        self.model |= dict.fromkeys(new, known)

    @precondition(lambda self: self.model)
    @rule(
        number=PICK,
        tag=st.sampled_from([PINNED, "kept", "paper"]),
        remove=st.booleans(),
        how=HOW,
        call=st.sampled_from(["write", "fsync", "replace"]),
        at=st.integers(0, 1),
    )
    def tag(self, number: int, tag: str, remove: bool, how: str, call: str, at: int) -> None:
        name = self.pick(number)
        known = self.model[name]
        wanted = known.tags - {tag} if remove else known.tags | {tag}
        if self.act(how, call, at, lambda: (remove_tag if remove else add_tag)(self.run, name, tag)):
            known.tags = wanted
            return
        now = set(self.found()[name].tags)
        assert now in (known.tags, wanted)
        known.tags = now

    @precondition(lambda self: self.model)
    @rule(keep=KEEPS, verifying=st.booleans(), how=HOW, call=DELETING, at=AT)
    def prune(self, keep: Keep, verifying: bool, how: str, call: str, at: int) -> None:
        plan: Plan | None = None
        if verifying:
            steps = planning(self.run, keep)
            try:
                while plan is None:
                    try:
                        next(steps)
                    except StopIteration as stop:
                        plan = stop.value
            except CheckpointError:
                listed = [known for known in self.model.values() if known.listed == "COMPLETE"]
                assert listed
                assert all(known.damage == "flipped" for known in listed)
                return
        else:
            plan = plan_prune(self.run, keep)
        dropped = {one.name for one in plan.dropped}
        listed = [name for name, known in self.model.items() if known.listed == "COMPLETE"]
        whole = [name for name, known in self.model.items() if not known.damage]
        stay = {name for name, one in self.model.items() if one.reason == EMERGENCY or PINNED in one.tags}
        stay |= {name for name, one in self.model.items() if one.listed != "COMPLETE"}
        stay |= {*whole[-1:]} if verifying else {*listed[-keep.newest :]}
        assert not stay & dropped
        assert not listed or len({*listed} - dropped) >= min(keep.newest, len(listed)), "so many are left"
        ended = self.act(how, call, at, lambda: carry_out(self.run, plan))
        gone = {*self.model} - {*self.found()}
        assert gone <= dropped
        assert gone == dropped or not ended
        for name in gone:
            del self.model[name]

    @precondition(lambda self: sum(not known.damage for known in self.model.values()) > 2)
    @rule(number=PICK, damage=st.sampled_from([damage for damage in LISTED if damage]))
    def spoil(self, number: int, damage: str) -> None:
        whole = [name for name, known in self.model.items() if not known.damage]
        name = whole[number % len(whole)]
        payload = self.run.checkpoint(name) / PAYLOAD
        content = payload.read_bytes()
        if damage == "flipped":
            payload.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif damage == "cut":
            payload.write_bytes(content[:-1])
        elif damage == "missing":
            payload.unlink()
        else:
            path = self.run.checkpoint_manifest(name)
            path.write_bytes(path.read_bytes()[:-10])
        self.model[name].damage = damage

    @rule()
    def new_session(self) -> None:
        lock = RunLock(self.run.lock)
        try:
            remove_stale_temporaries(self.run, "0ther")
        finally:
            lock.release()
        left = [path for path in self.run.checkpoints.rglob(".*") if not path.name.startswith(".bad-")]
        assert left == []

    @precondition(lambda self: self.model)
    @rule()
    def recover(self) -> None:
        order = [found.name for found in list_checkpoints(self.run)]
        sound = [name for name in order if not self.model[name].damage]
        bad = order[: order.index(sound[0])] if sound else order
        told: list[str] = []
        going_on = nullcontext() if sound else pytest.raises(CheckpointError, match="no sound checkpoint is left")
        with going_on:
            assert newest_verified(self.run, on_bad=lambda found, _: told.append(found.name)).name == sound[0]
        assert told == bad
        for name in bad:
            del self.model[name]

    def found(self) -> dict[str, Found]:
        return {found.name: found for found in list_checkpoints(self.run)}

    @invariant()
    def what_is_there_is_what_the_model_holds(self) -> None:
        if not hasattr(self, "model"):
            return
        found = self.found()
        assert {name for name in os.listdir(self.run.checkpoints) if not name.startswith(".")} == {*self.model}
        assert {name: one.status for name, one in found.items()} == {
            name: known.listed for name, known in self.model.items()
        }
        readable = [name for name in found if found[name].manifest is not None]
        assert readable[::-1] == [name for name in self.model if self.model[name].damage != "manifest"]
        for name, known in self.model.items():
            assert found[name].tags == tuple(sorted(known.tags))
            assert found[name].tags_known
            seen = verify(self.run, name).status
            assert seen == ("HASH-MISMATCH" if known.damage == "flipped" else known.listed)
            manifest = found[name].manifest
            if manifest is not None:
                assert (manifest.reason, manifest.seq, manifest.run) == (known.reason, known.number, "a-run")
                assert manifest.metrics.keys() == known.metrics.keys()
                for metric, value in known.metrics.items():
                    if value is None or value - value != 0.0:
                        assert manifest.metrics[metric] is None
                        assert (metric in manifest.nonfinite) == (value is not None)
                    else:
                        assert manifest.metrics[metric] == value
            if not known.damage:
                assert (self.run.checkpoint(name) / PAYLOAD).read_bytes() == known.content


TestShelf = Shelf.TestCase
TestShelf.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
