import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.errors import ConfigError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event, Sample
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.training import requests
from qig_core.training.charlie import Charlie
from qig_core.training.config import build, merge, preset, to_toml
from qig_core.training.corpus import default_corpus
from qig_core.training.kernel import Kernel
from qig_core.training.loop import Started, train
from qig_core.training.runs import begin
from tests.warm import Warm, console_script

SMALL: dict[str, Any] = {
    "steps": 131,
    "cadence": {"measure_every": 4, "heldout_every": 10, "checkpoint_every": 10},
    "charlie": {
        "dormant_steps": 40,
        "awakening_steps": 30,
        "settling_steps": 30,
        "demonstration_steps": 10,
        "margin_nats": 1.0,
        "graduation_share": 0.3,
    },
}
LATEST = SMALL["steps"] - 71
"""The last step at which the dormant phase may end."""


def values(**over: Any) -> dict[str, Any]:
    return merge(merge(preset("tiny", "charlie"), SMALL), over)


def start(folder: Path, name: str, over: Mapping[str, Any] | None = None) -> Started:
    return begin(requests.new(values(**(over or {})), [], requests.Place(runs=folder, run_id=name)))


def charlie_of(started: Started) -> Charlie:
    assert isinstance(started.program, Charlie)
    return started.program


class Run:
    """What a run has left behind."""

    def __init__(self, run: RunDir, monitor: IntegratedMonitor | None = None) -> None:
        self.run, self.monitor = run, monitor
        self.events = [each for each in read_all(run.events, Event) if isinstance(each, Event)]
        self.samples = self.stream(None)

    def stream(self, name: str | None) -> list[Sample]:
        return [each for each in read_all(self.run.telemetry(name), Sample) if isinstance(each, Sample)]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def phases(self) -> list[tuple[str, str]]:
        """(name, state) of each `phase` event, repetitions left out."""
        told = [(event.data["name"], event.data["state"]) for event in self.of("phase")]
        return [one for i, one in enumerate(told) if i == 0 or one != told[i - 1]]

    def last_state(self) -> dict[str, Any]:
        newest = max((each for each in list_checkpoints(self.run) if each.manifest), key=lambda each: each.manifest.t)
        return load(self.run, newest.name)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run through all three phases."""
    started = start(tmp_path_factory.mktemp("charlie"), "whole")
    monitor = train(started)
    return Run(started.writer.run, monitor)


def test_a_run_goes_through_its_phases_in_their_order_and_graduates(whole: Run) -> None:
    assert whole.monitor is not None
    assert (whole.monitor.exit_code, whole.monitor.reason) == (0, "")
    assert whole.phases() == [
        ("dormant", "judged"),
        ("dormant", "passed"),
        ("awakening", "begun"),
        ("awakening", "judged"),
        ("awakening", "passed"),
        ("demonstration", "judged"),
        ("demonstration", "passed"),
    ]
    assert whole.of("phase")[-1].data["reason"] == "graduated"
    for event in whole.of("phase"):
        if event.data["state"] == "passed":
            assert {guard["state"] for guard in event.data["guards"]} == {"ok"}
            assert event.step is not None
            assert event.data["earliest_step"] <= event.step <= event.data["latest_step"]


def test_phi_is_exactly_zero_while_dormant_and_is_more_from_the_first_look_at_the_awakened(whole: Run) -> None:
    awoken = next(event.step for event in whole.of("phase") if event.data["name"] == "awakening")
    assert awoken is not None
    dormant = [each.m["phi"] for each in whole.samples if "phi" in each.m and each.step < awoken]
    after = [each.m["phi"] for each in whole.samples if "phi" in each.m and each.step > awoken]
    assert len(dormant) >= 10
    assert set(dormant) == {0.0}
    assert all(phi is not None and phi > 0.0 for phi in after)
    assert after[-1] is not None
    assert after[-1] > 0.2
    assert {each.m["gain"] for each in whole.samples if each.step < awoken} == {0.0}
    gains = [each.m["gain"] or 0.0 for each in whole.samples if each.step >= awoken]
    assert gains == sorted(gains)
    assert gains[29] == gains[-1] == 1.0
    assert gains[28] < 1.0


def test_the_control_is_what_plain_training_makes_and_the_branch_never_integrates(whole: Run, tmp_path: Path) -> None:
    over = {key: value for key, value in values().items() if key not in ("program", "charlie")}
    plain = begin(requests.new(merge(over, {"steps": 60}), [], requests.Place(runs=tmp_path, run_id="plain")))
    train(plain)
    beside = {each.step: each.m for each in whole.stream("control")}
    alone = [each for each in Run(plain.writer.run).samples if each.step < 60]
    assert len(alone) == 60
    for sample in alone:
        for key in {"loss", "loss_heldout", "phi", "kappa"} & sample.m.keys():
            assert sample.m[key] == beside[sample.step][key]
    branch = whole.stream("branch")
    assert {each.m["phi"] for each in branch if "phi" in each.m} == {0.0}
    assert branch[0].step == next(event.step for event in whole.of("phase") if event.data["name"] == "awakening")


def test_the_demonstration_writes_and_changes_nothing(whole: Run) -> None:
    written = whole.of("generated")
    assert len(written) == 10
    assert all(event.data["prompt"] and event.data["text"] for event in written)
    assert len({event.data["text"] for event in written}) > 1
    begun = next(event.step for event in whole.of("phase") if event.data["name"] == "demonstration")
    assert begun is not None
    shown = [each for each in whole.samples if each.step >= begun]
    assert all("loss" not in each.m and "grad_norm" not in each.m for each in shown)
    assert len({each.m["loss_heldout"] for each in shown if "loss_heldout" in each.m}) == 1
    assert len({each.m["phi"] for each in shown if "phi" in each.m}) == 1


def test_cross_weights_are_born_zero_lie_outside_the_optimiser_and_join_it_without_a_past() -> None:
    charlie = Charlie(build(values()), default_corpus())
    cross = charlie.trainer.kernel.cross_parameters()
    assert len(cross) == 12
    assert all(bool((each == 0.0).all()) for each in cross.values())
    assert {id(each) for each in cross.values()}.isdisjoint(_moved(charlie))
    for step in range(3):
        charlie.begin_step(step)
        charlie.learn(step)
        charlie.update(step)
    assert all(bool((each == 0.0).all()) for each in cross.values())
    old = charlie.trainer.optimizer
    charlie._next, charlie._heldout = "awakening", 2.0
    charlie.phases.enter = lambda name, step, guards, **more: None  # type: ignore[method-assign]
    charlie.begin_step(3)
    assert charlie.trainer.optimizer is old
    assert [len(group["params"]) for group in old.param_groups][1:] == [12]
    assert {id(each) for each in cross.values()} <= _moved(charlie)
    assert all(each not in old.state for each in cross.values())
    assert all(len(old.state[each]) for each in old.param_groups[0]["params"])


def _moved(charlie: Charlie) -> set[int]:
    return {id(each) for group in charlie.trainer.optimizer.param_groups for each in group["params"]}


def test_a_guard_that_never_passes_stops_the_run_after_its_budget_and_says_which(tmp_path: Path) -> None:
    monitor = train(started := start(tmp_path, "never", {"charlie": {"margin_nats": 50.0}}))
    assert monitor.exit_code == 75
    assert "the phase dormant had not ended" in monitor.reason
    assert "held-out loss fell by" in monitor.reason
    assert "50 nats" in monitor.reason
    run = Run(started.writer.run)
    assert run.phases()[-1] == ("dormant", "failed")
    assert run.of("phase")[-1].step == LATEST
    assert run.of("emergency")
    told = [event for event in run.of("condition") if event.data["id"] == "phase"]
    assert [event.data["state"] for event in told] == ["ok", "critical"]
    assert told[-1].data["cause"] == ["heldout_fell"]
    assert "--resume RUN --steps MORE" in charlie_of(started).remedy
    assert run.samples[-1].step == LATEST
    more = requests.resume(
        run.run, None, {"steps": SMALL["steps"] + 7}, [], requests.Place(runs=tmp_path), new_corpus=False
    )
    assert train(begin(more)).exit_code == 75
    assert Run(run.run).of("phase")[-1].step == LATEST + 7


def test_a_leak_through_the_cut_stops_the_run_at_the_first_look(tmp_path: Path) -> None:
    started = start(tmp_path, "leak")
    charlie = charlie_of(started)
    charlie.phases.gain = lambda step: 1.0  # type: ignore[method-assign]
    with torch.no_grad():
        for each in charlie.trainer.kernel.cross_parameters().values():
            each.normal_(std=0.05)
    monitor = train(started)
    assert monitor.exit_code == 75
    assert "the phase dormant cannot end: Φ at every evaluation" in monitor.reason
    assert Run(started.writer.run).of("phase")[-1].step == 0


def test_a_control_that_does_not_integrate_makes_the_mechanism_vacuous(tmp_path: Path) -> None:
    started = start(tmp_path, "vacuous")
    charlie_of(started).companions["control"].kernel.set_gain(0.0)
    monitor = train(started)
    assert monitor.exit_code == 75
    assert "Φ of the control 0, must be > 0.01" in monitor.reason


def _sabotaged(started: Started, from_step: int) -> Started:
    """From a step on, every update of the kernel tears its language head apart."""
    trainer = charlie_of(started).trainer
    update = trainer.update

    def torn() -> None:
        update()
        if charlie_of(started).phases.name == "awakening" and charlie_of(started)._step >= from_step:
            with torch.no_grad():
                trainer.kernel.head.mul_(-1.5)

    trainer.update = torn  # type: ignore[method-assign]
    return started


def test_a_collapse_while_awakening_is_answered_by_a_soft_reset_then_by_a_stop(tmp_path: Path) -> None:
    over = {"steps": 300, "charlie": {"awakening_steps": 60, "dormant_steps": 60}}
    started = _sabotaged(start(tmp_path, "collapse", over), 80)
    monitor = train(started)
    assert monitor.exit_code == 75
    run = Run(started.writer.run)
    reset = run.of("soft_reset")
    assert len(reset) == 1
    assert "awakening_heldout" in reset[0].data["cause"] or "divergence" in reset[0].data["cause"]
    assert reset[0].data["lr_factor"] == 0.5
    assert reset[0].step is not None
    assert reset[0].step < 80
    assert "soft reset not possible" in monitor.reason
    assert run.of("emergency")
    told = [event for event in run.of("condition") if event.data["id"] == "awakening_heldout"]
    assert {event.data["state"] for event in told} >= {"unarmed", "ok"}


def forked(whole: Run, folder: Path, over: Mapping[str, Any]) -> Started:
    """The same run once more, from the end of awakening on."""
    phases = [each for each in list_checkpoints(whole.run) if each.manifest and each.manifest.reason == "phase"]
    last = max(phases, key=lambda each: each.step or 0)
    return begin(requests.fork(whole.run, last.name, over, [], requests.Place(runs=folder, run_id="forked")))


def test_a_kernel_that_falls_short_of_the_controls_phi_does_not_graduate(whole: Run, tmp_path: Path) -> None:
    started = forked(whole, tmp_path, {"charlie": {"graduation_share": 9.0}})
    monitor = train(started)
    assert monitor.exit_code == 75
    assert "Φ as a share of the control's" in monitor.reason
    run = Run(started.writer.run)
    assert run.phases()[-1] == ("demonstration", "failed")
    assert len(run.of("generated")) == 10


def test_a_parameter_that_changes_in_the_demonstration_stops_the_run(whole: Run, tmp_path: Path) -> None:
    started = forked(whole, tmp_path, {})
    charlie = charlie_of(started)
    learn = charlie.learn

    def touching(step: int) -> Any:
        if not charlie.trains and step == 125:
            with torch.no_grad():
                charlie.trainer.kernel.head[0, 0] += 1.0
        return learn(step)

    charlie.learn = touching  # type: ignore[method-assign]
    monitor = train(started)
    assert monitor.exit_code == 75
    assert "the phase demonstration cannot end: parameters that changed" in monitor.reason


def test_the_control_alone_runs_with_nothing_suppressed(tmp_path: Path) -> None:
    monitor = train(started := start(tmp_path, "control", {"steps": 131, "charlie": {"suppressed": False}}))
    assert monitor.exit_code == 0
    run = Run(started.writer.run)
    assert {event.data["name"] for event in run.of("phase")} == {"control"}
    assert run.of("phase")[-1].data["state"] == "passed"
    assert run.run.streams() == []
    assert all((each.m["phi"] or 0.0) > 0.01 for each in run.samples if "phi" in each.m)


def test_a_fork_of_a_phases_checkpoint_goes_another_way_and_a_kernel_cannot_become_a_charlie(whole: Run) -> None:
    phase = next(each for each in list_checkpoints(whole.run) if each.manifest and each.manifest.reason == "phase")
    assert "pinned" in phase.tags
    place = requests.Place(runs=whole.run.path.parent, run_id="forked")
    over = {"charlie": {"awakening_steps": 20}}
    forked = train(begin(requests.fork(whole.run, phase.name, over, [], place)))
    assert forked.exit_code == 0
    with pytest.raises(ConfigError, match="a fork may not change program"):
        requests.fork(whole.run, phase.name, {"program": "kernel"}, [], place)


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        ({"steps": 100}, "the phases of charlie take at least 111"),
        ({"kernel": {"gain": 0.5}}, "charlie sets the gain itself"),
        ({"charlie": {"dormant": 1}}, "did you mean charlie.dormant_steps"),
        ({"charlie": {"alpha": 0.0}}, "alpha is 0.0"),
        ({"constellation": {}}, "only for that"),
    ],
)
def test_what_cannot_be_is_refused_in_words(over: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Charlie(build(values(**over)), default_corpus())


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Callable[..., Warm]]:
    """`qig-core train`, to be killed."""
    started: list[Warm] = []
    config = tmp_path / "small.toml"
    config.write_text(to_toml(values(cadence={"checkpoint_every": 5})))

    def begin_process(*arguments: str) -> Warm:
        more = () if "--resume" in arguments else ("--config", config)
        process = Warm(console_script, ["train", *arguments, *more])
        started.append(process)
        return process

    yield begin_process
    for process in started:
        process.kill()
        process.wait()


def _wait_for_step(run: RunDir, step: int, process: Warm) -> None:
    """Until the run has recorded a step, and its trainer still lives."""
    ends = time.monotonic() + 60.0
    while time.monotonic() < ends:
        if run.telemetry().exists():
            lines = run.telemetry().read_bytes().split(b"\n")[:-1]
            if lines and json.loads(lines[-1])["step"] >= step:
                return
        assert process.poll() is None, f"it ended with {process.returncode}"
        time.sleep(0.005)
    raise AssertionError(f"no step {step} in a minute")


def test_a_kill_in_every_phase_changes_nothing_of_what_becomes_of_the_run(
    trainer: Callable[..., Warm], tmp_path: Path, whole: Run
) -> None:
    run = RunDir(tmp_path / "killed")
    process = trainer("--runs", str(tmp_path), "--id", "killed")
    for step in (20, 75, 124):
        _wait_for_step(run, step, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process = trainer("--resume", str(run.path))
    assert process.wait(60) == 0
    found = Run(run)
    assert [event.data["name"] for event in found.of("phase") if event.data["state"] == "passed"][-1] == "demonstration"
    assert len(found.of("restored")) == 3
    killed, straight = found.last_state(), whole.last_state()
    for part in ("model", "optimizer", "basin", "phases"):
        _assert_equal(killed[part], straight[part], part)
    for part in ("control", "branch"):
        for key in ("model", "optimizer"):
            _assert_equal(killed[part][key], straight[part][key], f"{part}.{key}")


def _assert_equal(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            _assert_equal(mine, theirs, f"{where}.{i}")
    else:
        assert one == other, where


def test_a_dormant_charlie_carries_nothing_across_its_cut() -> None:
    charlie = Charlie(build(values()), default_corpus())
    for step in range(5):
        charlie.begin_step(step)
        charlie.learn(step)
        charlie.update(step)
    kernel = charlie.trainer.kernel
    twin = Kernel(kernel.config)
    twin.load_state_dict(kernel.state_dict())
    tokens = torch.arange(32)[None] % 256
    half = kernel.config.width // 2
    with torch.no_grad():
        twin.embedding[:, half:] += 1.0  # half b alone sees another text
    one, other = kernel.observe(tokens)[-1].state, twin.observe(tokens)[-1].state
    assert torch.equal(one[..., :half], other[..., :half])
    assert not torch.equal(one[..., half:], other[..., half:])
