"""Five lines around any loop: its state goes on, comes back, and is refused where it cannot be saved."""

import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qig_core.checkpointer import Checkpointer
from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.checkpoints.retention import Keep
from qig_core.errors import CheckpointError, ConfigError, UsageError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.mailbox import read_ack
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Command, Event, Sample


class Loop:
    """Everything that a small training has, each drawing random numbers in its own way."""

    def __init__(self, folder: Path, *, steps: int = 30, **given: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 7, 0.5)
        self.generator = torch.Generator().manual_seed(7)
        self.seen: dict[str, Any] = {"losses": [], "mean": torch.zeros(())}
        self.done: list[tuple[int, float]] = []
        self.at: dict[int, Callable[[], object]] = {}
        self.checkpoints = Checkpointer(
            folder,
            "mine",
            steps=steps,
            every=10,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            generator=self.generator,
            seen=self.seen,
            **given,
        )

    @property
    def run(self) -> RunDir:
        return self.checkpoints.monitor.writer.run

    def train(self, stop: int | None = None) -> int:
        with self.checkpoints as checkpoints:
            for step in checkpoints.steps():
                if step == stop:
                    break
                if hook := self.at.pop(step, None):
                    hook()
                x = torch.randn(8, 4, generator=self.generator)
                loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                self.seen["losses"].append(loss.item())
                self.seen["mean"] += loss.detach()
                self.done.append((step, loss.item()))
                checkpoints.note(loss_heldout=loss.item())
        return checkpoints.exit_code

    def weights(self) -> list[torch.Tensor]:
        return [each.detach().clone() for each in self.model.parameters()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """What an undisturbed run does."""
    loop = Loop(tmp_path_factory.mktemp("whole"))
    assert loop.train() == 0
    return loop


def steps_of(run: RunDir) -> list[int | None]:
    return [found.step for found in reversed(list_checkpoints(run))]


def test_a_new_run_is_begun_and_saved_at_its_cadence(whole: Loop) -> None:
    assert [step for step, _ in whole.done] == list(range(30))
    assert steps_of(whole.run) == [10, 20, 30]
    assert read_manifest(whole.run).name == "mine"
    for found in list_checkpoints(whole.run):
        state, manifest = load(whole.run, found.name)
        assert set(state) >= {"model", "optimizer", "scheduler", "generator", "seen"}
        assert len(state["seen"]["losses"]) == manifest.step, "it holds as many steps as it says"


def test_what_is_noted_is_recorded_and_ranks_up_to_the_last_step(whole: Loop) -> None:
    losses = [loss for _, loss in whole.done]
    for found in list_checkpoints(whole.run):
        assert found.manifest is not None
        assert found.manifest.metrics == {"loss_heldout": losses[found.manifest.step - 1]}
    samples = [each for each in read_all(whole.run.telemetry(), Sample) if isinstance(each, Sample)]
    assert [(each.step, each.m.get("loss_heldout")) for each in samples[1:]] == list(enumerate(losses, 1))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_begun_again_it_goes_on_bit_by_bit(tmp_path: Path, whole: Loop, asynchronous: bool) -> None:
    first = Loop(tmp_path, asynchronous=asynchronous)
    assert first.train(stop=17) == 0
    second = Loop(tmp_path, asynchronous=asynchronous)
    assert second.checkpoints.step == 10
    assert second.train() == 0
    assert second.run.path == first.run.path
    assert first.done[:10] + second.done == whole.done
    assert all(torch.equal(a, b) for a, b in zip(second.weights(), whole.weights(), strict=True))
    assert second.optimizer.state_dict()["param_groups"] == whole.optimizer.state_dict()["param_groups"]
    assert second.scheduler.state_dict() == whole.scheduler.state_dict()
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())
    assert second.seen["losses"] == whole.seen["losses"]
    assert torch.equal(second.seen["mean"], whole.seen["mean"])


def test_one_that_is_finished_gives_its_last_state_and_more_steps_go_on(tmp_path: Path) -> None:
    first = Loop(tmp_path, steps=12)
    assert first.train() == 0
    again = Loop(tmp_path, steps=12)
    assert again.train() == 0
    assert again.done == []
    assert steps_of(again.run) == [10, 12], "no second checkpoint of the same state"
    for mine, theirs in zip(again.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ConfigError, match="nothing is left to do"):
        Loop(tmp_path, steps=11)
    more = Loop(tmp_path, steps=15)
    assert more.checkpoints.step == 12
    assert more.train() == 0
    assert [step for step, _ in more.done] == [12, 13, 14]


def test_another_run_is_begun_where_it_is_asked_for(tmp_path: Path) -> None:
    assert Loop(tmp_path, steps=12).train() == 0
    other = Loop(tmp_path, steps=12, resume=None)
    assert other.train() == 0
    assert len(list(list_runs(tmp_path))) == 2
    by_step = Loop(tmp_path, steps=12, resume=f"{other.run.id}@10")
    assert by_step.checkpoints.step == 10
    assert by_step.train() == 0


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Loop(tmp_path)
    assert first.train(stop=25) == 0
    path = list_checkpoints(first.run)[0].path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    second = Loop(tmp_path)
    assert second.checkpoints.step == 10
    assert "was set aside" in capsys.readouterr().err
    assert second.train() == 0


def test_the_rule_keeps_the_newest(tmp_path: Path) -> None:
    loop = Loop(tmp_path, steps=200, keep=Keep(newest=2, best=0))
    assert loop.train() == 0
    assert steps_of(loop.run)[-2:] == [190, 200]
    assert len(steps_of(loop.run)) < 20


class Wrapped:
    """Hands everything on to what it wraps, as wrappers of optimisers and models do."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_wrapper_that_hands_on_is_saved_as_what_it_wraps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    with Checkpointer(tmp_path, "wrapped", steps=3, model=Wrapped(model)) as checkpoints:
        for _ in checkpoints.steps():
            with torch.no_grad():
                model.weight += 1
    assert checkpoints.exit_code == 0
    other = nn.Linear(2, 2)
    with Checkpointer(tmp_path, "wrapped", steps=5, model=Wrapped(other)) as checkpoints:
        assert torch.equal(other.weight, model.weight)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({}, "needs something to save"),
        ({"lr": 0.1}, "lr=float: only what has state_dict and load_state_dict, a torch.Generator or a dict"),
        ({"model": nn.Linear(1, 1), "data": [1, 2]}, "data=list"),
        ({"weights": torch.zeros(3)}, "weights=Tensor"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_there_is_a_run(tmp_path: Path, state: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Checkpointer(tmp_path / "runs", "mine", steps=3, **state)
    assert not (tmp_path / "runs").exists()


def test_state_that_the_checkpoint_lacks_is_refused_and_nothing_of_it_touched(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, "mine", steps=2, model=nn.Linear(2, 1)) as checkpoints:
        for _ in checkpoints.steps():
            pass
    before = {path.name: path.read_bytes() for path in checkpoints.monitor.writer.run.path.glob("*.json*")}
    model = nn.Linear(2, 1)
    weight = model.weight.detach().clone()
    with pytest.raises(ConfigError, match="it has no 'ema', only 'model'"):
        Checkpointer(tmp_path, "mine", steps=4, model=model, ema=nn.Linear(2, 1))
    assert torch.equal(model.weight, weight)
    with pytest.raises(ConfigError, match="does not fit"):
        Checkpointer(tmp_path, "mine", steps=4, model=nn.Linear(3, 1))
    assert {path.name: path.read_bytes() for path in checkpoints.monitor.writer.run.path.glob("*.json*")} == before


def test_ctrl_c_stops_with_a_checkpoint_and_the_next_goes_on_from_it(tmp_path: Path, whole: Loop) -> None:
    first = Loop(tmp_path)
    first.at[13] = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        first.train()
    assert stopped.value.code == 130
    assert [step for step, _ in first.done] == list(range(14)), "the step that it came in is done"
    assert steps_of(first.run) == [10, 14]
    second = Loop(tmp_path)
    assert second.checkpoints.step == 14
    assert second.train() == 0
    assert first.done + second.done == whole.done


def test_brought_back_by_a_command_the_state_really_goes_back(tmp_path: Path, whole: Loop) -> None:
    loop = Loop(tmp_path)
    command = Command(secrets.token_hex(16), loop.checkpoints.monitor.writer.session, "restore", time.time())

    def restore() -> None:
        name = next(found.name for found in list_checkpoints(loop.run) if found.step == 10)
        command.args = {"checkpoint": name}
        write_document(loop.run.command(command.id), encode_document(command), mode=0o600)
        mailbox, end = loop.checkpoints.monitor.writer.mailbox, time.monotonic() + 20
        while command.id not in [each.command.id for each in mailbox.pending]:
            mailbox.poll(None)
            assert time.monotonic() < end

    loop.at[24] = restore
    assert loop.train() == 0
    assert loop.done == whole.done[:25] + whole.done[10:]
    assert loop.seen["losses"] == whole.seen["losses"]
    ack = read_ack(loop.run, command.id)
    assert ack is not None
    assert [stage.stage for stage in ack.stages] == ["seen", "acting", "done"]
    events = [each for each in read_all(loop.run.events, Event) if isinstance(each, Event)]
    assert [(each.step, each.data["how"]) for each in events if each.kind == "restored"] == [(10, "restore")]


def test_two_at_once_on_one_run_are_refused(tmp_path: Path) -> None:
    assert Loop(tmp_path, steps=10).train() == 0
    first = Loop(tmp_path, steps=20)
    with pytest.raises(Exception, match="is being written by"):
        Loop(tmp_path, steps=20)
    assert first.train() == 0


def test_an_exception_of_the_loop_is_raised_and_ends_the_run(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def fail() -> None:
        raise CheckpointError("the loop's own")

    loop.at[12] = fail
    with pytest.raises(CheckpointError, match="the loop's own"):
        loop.train()
    assert steps_of(loop.run) == [10]
    assert read_manifest(loop.run).state == "exited"
