"""N steps = k + resume + (N - k), bit by bit: a kernel with dropout, AdamW, a schedule and a shuffled loader."""

from pathlib import Path

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event, Sample
from tests import warm

# A loop as people write it: an epoch is not finished when a checkpoint is made.
LOOP = """
import os, random, signal, sys
import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from qig_core.checkpointer import Checkpointer
from qig_core.training.config import KernelConfig
from qig_core.training.kernel import Kernel

root, steps, every, fatal, asynchronous = sys.argv[1], *map(int, sys.argv[2:6])
torch.set_num_threads(1)
random.seed(0); np.random.seed(0); torch.manual_seed(0)
kernel = Kernel(KernelConfig(width=16, heads=2, context=8, passes=3, vocab=32), seed=0)
dropout = torch.nn.Dropout(0.1)
optimizer = torch.optim.AdamW(kernel.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
tokens = torch.randint(0, 32, (50, 9), generator=torch.Generator().manual_seed(1))
shuffle = torch.Generator().manual_seed(2)
loader = DataLoader(TensorDataset(tokens), batch_size=4, shuffle=True, generator=shuffle)
position = {"done": 0, "shuffle": shuffle.get_state()}

def batches():
    while True:
        shuffle.set_state(position["shuffle"])
        for number, (batch,) in enumerate(loader):
            if number >= position["done"]:
                position["done"] = number + 1
                yield batch
        position.update(done=0, shuffle=shuffle.get_state())

state = {"kernel": kernel, "optimizer": optimizer, "schedule": schedule, "position": position}
with Checkpointer(root, "torn", steps=steps, every=every, asynchronous=bool(asynchronous), **state) as checkpoints:
    data = batches()
    for step in checkpoints.steps():
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = next(data)
        logits = dropout(kernel(batch[:, :-1]))
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        checkpoints.note(loss=loss.item())
sys.exit(checkpoints.exit_code)
"""
STEPS = 40


def loop(root: Path, *, every: int, fatal: int = -1, asynchronous: bool = False) -> RunDir:
    done = warm.run(warm.code, LOOP, root, *map(str, (STEPS, every, fatal, int(asynchronous))))
    assert done.returncode == (0 if fatal < 0 else -9), done.stderr
    (run,) = list_runs(root)
    return run


def payload(run: RunDir) -> dict[str, bytes]:
    newest = list_checkpoints(run)[0]
    assert newest.step == STEPS
    assert newest.manifest is not None
    return {file.path: (newest.path / file.path).read_bytes() for file in newest.manifest.files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run that was never stopped; not to be changed."""
    return loop(tmp_path_factory.mktemp("whole"), every=1000)


@pytest.mark.parametrize(("every", "fatal"), [(7, 9), (13, 39)])
def test_n_steps_are_k_and_a_resume_and_the_rest(whole: RunDir, tmp_path: Path, every: int, fatal: int) -> None:
    loop(tmp_path, every=every, fatal=fatal)
    run = loop(tmp_path, every=every)
    restored = [e.step for e in read_all(run.events, Event) if isinstance(e, Event) and e.kind == "restored"]
    assert restored == [every * (fatal // every)]
    torn, unbroken = payload(run), payload(whole)
    assert torn.keys() == unbroken.keys()
    for name in unbroken.keys() - {"state.json"}:  # in it the monitor counts its own checks
        assert torn[name] == unbroken[name], name


def test_a_copy_that_is_written_while_training_goes_on_is_of_its_step(tmp_path: Path) -> None:
    beside, at_once = (loop(tmp_path / str(way), every=10, asynchronous=way) for way in (True, False))
    files = ("kernel.safetensors", "optimizer.safetensors", "position.safetensors", "global_rng.safetensors")
    steps = [found.step for found in list_checkpoints(at_once)]
    assert steps == [40, 30, 20, 10]
    for mine, theirs in zip(list_checkpoints(beside), list_checkpoints(at_once), strict=True):
        assert mine.step == theirs.step
        for file in files:
            assert (mine.path / file).read_bytes() == (theirs.path / file).read_bytes(), (mine.step, file)


def test_the_losses_after_a_resume_are_those_of_the_run_that_was_never_stopped(whole: RunDir, tmp_path: Path) -> None:
    loop(tmp_path, every=10, fatal=25)
    torn = loop(tmp_path, every=10)
    losses = [
        {s.step: s.m.get("loss") for s in read_all(r.telemetry(), Sample) if isinstance(s, Sample)}
        for r in (whole, torn)
    ]
    # The first sample after a resume has no loss: none was computed in this session yet.
    assert {k: v for k, v in losses[1].items() if k != 20} == {k: v for k, v in losses[0].items() if k != 20}
