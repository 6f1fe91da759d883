"""Sessions that kill themselves at a chosen step, and what the one who started them finds after each. No torch.

    python -m tests.checkpoints.killing RUN                one session for each step, until one lives to its end
    python -m tests.checkpoints.killing RUN CYCLES SEED    steps, and bytes of a write, at random

Prints, as JSON: the names of the steps at which sessions died, and of those of one that lived.
"""

import json
import os
import random
import signal
import sys
import traceback

import numpy as np

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.tensorfile import TensorFile, TensorSource
from qig_core.checkpoints.upkeep import add_tag, delete, remove_stale_temporaries
from qig_core.checkpoints.verification import verify
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock, lock_holder
from tests.checkpoints.recording import Recorder, Step

KEPT = 3
NEVER = sys.maxsize
NUM_VALUES = 60_000
"""So that the digest runs in its thread."""


def payload(step: int) -> dict[str, bytes | TensorFile]:
    values = np.full(NUM_VALUES, step, np.float32)
    source = TensorSource(name="w", dtype="F32", shape=(NUM_VALUES,), read=lambda: values.view(np.uint8).data)
    return {"model.safetensors": TensorFile([source]), "notes.txt": b"step %d\n" % step}


def session(run: RunDir, number: int, at: int, part: float, tell: int) -> None:
    """Sweep, save, pin, prune; killed before the step `at`, or in a write after a part of its bytes."""

    def say(*words: str) -> None:
        os.write(tell, json.dumps(words).encode() + b"\n")

    def die(step: Step) -> int | None:
        if step.index == at:
            say("killed", step.name)
            if step.call == "write":
                return int(part * len(step.data))
        if step.index >= at:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    lock = RunLock(run.lock)
    with Recorder(run.path, die) as recorder:
        remove_stale_temporaries(run, f"s{number}")
        name = publish(run, session=f"s{number}", step=number, reason="end", files=payload(number), tags=["kept"]).name
        say("published", name)
        add_tag(run, name, "pinned")
        say("pinned", name)
        old = [found.name for found in list_checkpoints(run)[KEPT:]]
        say("deleting", *old)
        delete(run, old)
        say("lived", *recorder.names)
    lock.release()


class Witness:
    """Starts sessions one after another and checks after each what it left."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._number = 0
        self._tags: dict[str, tuple[str, ...]] = {}
        """Of each checkpoint that is there."""
        self.died: list[str] = []

    def cycle(self, at: int = NEVER, part: float = 0.0, *, sweep: bool = True) -> list[str]:
        """One session that dies at a step; the names of its steps if it lived."""
        self._number += 1
        said = self._what_it_said(at, part)
        self._check(said)
        assert lock_holder(self._run.lock) is None
        if sweep:
            lock = RunLock(self._run.lock)
            remove_stale_temporaries(self._run, "sweeper")
            lock.release()
            assert list(self._run.checkpoints.rglob(".*")) == []
        self.died += [words[1] for words in said if words[0] == "killed"]
        return said[-1][1:] if said[-1][0] == "lived" else []

    def _what_it_said(self, at: int, part: float) -> list[list[str]]:
        hear, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                session(self._run, self._number, at, part, tell)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(tell)
        with os.fdopen(hear) as lines:
            said = [json.loads(line) for line in lines]
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == (0 if said and said[-1][0] == "lived" else -signal.SIGKILL), (code, said)
        return said

    def _check(self, said: list[list[str]]) -> None:
        """All that was there or was promised is there, byte for byte, with its tags; and nothing half."""
        may_be = {name: [tags] for name, tags in self._tags.items()}
        may_go: list[str] = []
        for word, *names in said:
            if word == "published":
                may_be[names[0]] = [("kept",), ("kept", "pinned")]
            elif word == "pinned":
                may_be[names[0]] = [("kept", "pinned")]
            elif word == "deleting":
                may_go = names
        self._tags.clear()
        for found in list_checkpoints(self._run):
            assert (found.status, found.problems) == ("COMPLETE", ()), found
            assert verify(self._run, found.name).status == "COMPLETE", found
            step = int(found.name.split("-")[1])
            for file, content in payload(step).items():
                whole = content if isinstance(content, bytes) else b"".join(content)
                assert (found.path / file).read_bytes() == whole, found
            assert step == self._number or found.name in may_be, f"{found.name} comes from nowhere"
            assert found.tags in may_be.get(found.name, [("kept",)]), found
            self._tags[found.name] = found.tags
        lost = may_be.keys() - self._tags.keys() - set(may_go)
        assert not lost, f"session {self._number} lost {lost}: {said}"


def main(path: str, *drawn: str) -> None:
    run = RunDir(path)
    run.checkpoints.mkdir(parents=True)
    run.lock.touch()
    witness = Witness(run)
    for _ in range(KEPT + 1):
        lived = witness.cycle()
    if drawn:
        num_cycles, seed = map(int, drawn)
        chance = random.Random(seed)
        for _ in range(num_cycles):
            witness.cycle(chance.randrange(len(lived)), chance.random(), sweep=chance.random() < 0.5)
    else:
        at = 0
        while not witness.cycle(at, 0.5):
            at += 1
    assert "torch" not in sys.modules
    print(json.dumps({"died": witness.died, "lived": lived}))


if __name__ == "__main__":
    main(*sys.argv[1:])
