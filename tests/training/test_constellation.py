from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.errors import ConfigError
from qig_core.geometry.simplex import fisher_rao_distance, frechet_mean
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event, Sample
from qig_core.rundir.values import decode_basin
from qig_core.safety.abort import Cause
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.training import requests
from qig_core.training.config import build, merge, preset
from qig_core.training.constellation import Constellation
from qig_core.training.corpus import default_corpus
from qig_core.training.digests import parameter_digest
from qig_core.training.loop import Started, train
from qig_core.training.program_config import ConstellationConfig
from qig_core.training.runs import begin

SMALL: dict[str, Any] = {
    "steps": 40,
    "cadence": {"measure_every": 5, "heldout_every": 20, "checkpoint_every": 10},
    "constellation": {"turn_steps": 7},
}
FIXED: dict[str, Any] = {"constellation": {"routing": "fixed"}}


def values(*overs: Mapping[str, Any]) -> dict[str, Any]:
    found = merge(preset("tiny", "constellation"), SMALL)
    for over in overs:
        found = merge(found, over)
    return found


def start(folder: Path, name: str, *overs: Mapping[str, Any]) -> Started:
    return begin(requests.new(values(*overs), [], requests.Place(runs=folder, run_id=name)))


def constellation_of(started: Started) -> Constellation:
    assert isinstance(started.program, Constellation)
    return started.program


def new(*overs: Mapping[str, Any]) -> Constellation:
    return Constellation(build(values(*overs)), default_corpus())


def advance(constellation: Constellation, steps: range) -> None:
    """Steps without a run: nothing is judged or recorded."""
    for step in steps:
        constellation.begin_step(step)
        constellation.learn(step)
        for name in constellation._active:
            constellation.trainers[name].update()
        for found in constellation._descents.values():
            found.take(constellation.settings.vicarious_share)


class Run:
    """What a run has left behind."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.events = [each for each in read_all(run.events, Event) if isinstance(each, Event)]

    def samples(self, name: str | None = None) -> list[Sample]:
        return [each for each in read_all(self.run.telemetry(name), Sample) if isinstance(each, Sample)]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def last_state(self) -> dict[str, Any]:
        found = [each for each in list_checkpoints(self.run) if each.manifest]
        newest = max(found, key=lambda each: each.manifest.t if each.manifest else 0.0)
        return load(self.run, newest.name)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    started = start(tmp_path_factory.mktemp("constellation"), "whole")
    assert train(started).exit_code == 0
    return Run(started.writer.run)


def test_the_routing_is_a_function_of_the_step_and_gives_every_gary_its_turn() -> None:
    settings = ConstellationConfig(garys=3, turn_steps=2)
    active = [settings.active_at(step) for step in range(8)]
    assert active == [("gary1",)] * 2 + [("gary2",)] * 2 + [("gary3",)] * 2 + [("gary1",)] * 2
    two = ConstellationConfig(garys=3, active=2, turn_steps=1)
    assert [two.active_at(step) for step in range(3)] == [("gary1", "gary2"), ("gary2", "gary3"), ("gary3", "gary1")]
    fixed = ConstellationConfig(garys=3, routing="fixed")
    assert {fixed.active_at(step) for step in range(500)} == {("gary1",)}


def test_each_gary_has_a_stream_a_basin_and_a_part_of_every_checkpoint(whole: Run) -> None:
    assert whole.run.streams() == ["gary1", "gary2", "gary3"]
    for name in whole.run.streams():
        samples = whole.samples(name)
        measured = [each for each in samples if each.basin is not None]
        assert [each.step for each in measured] == list(range(0, 41, 5))
        assert all({"phi", "kappa", "drift_birth", "active"} <= each.m.keys() for each in measured)
        assert {each.m["active"] for each in samples} == {0.0, 1.0}
        assert all(("loss" in each.m) == (each.m["active"] == 1.0) for each in samples if each.step < 40)
    for found in list_checkpoints(whole.run):
        assert found.manifest is not None
        assert {f"gary{i}.safetensors" for i in (1, 2, 3)} <= {file.path for file in found.manifest.files}


def test_the_runs_own_samples_have_means_distances_and_every_garys_figures(whole: Run) -> None:
    samples = whole.samples()
    garys = {name: {each.step: each for each in whole.samples(name)} for name in whole.run.streams()}
    for sample in samples:
        if sample.basin is None:
            continue
        own = [each[sample.step] for each in garys.values()]
        points = [np.frombuffer(decode_basin(each.basin or ""), "<f4").astype(np.float64) for each in own]
        points = [each / each.sum() for each in points]
        assert sample.m["phi"] == pytest.approx(np.mean([each.m["phi"] for each in own]))
        for name, each in zip(garys, own, strict=True):
            assert sample.m[f"{name}.phi"] == each.m["phi"]
        pairs = [float(fisher_rao_distance(points[i], points[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert sample.m["pairwise_min"] == pytest.approx(min(pairs), abs=1e-6)
        assert sample.m["pairwise_max"] == pytest.approx(max(pairs), abs=1e-6)
        mean = np.frombuffer(decode_basin(sample.basin), "<f4").astype(np.float64)
        assert float(fisher_rao_distance(mean / mean.sum(), frechet_mean(points))) < 1e-3
    assert any(event.data["id"] == "gary2.phi_floor" for event in whole.of("condition"))
    assert any(event.data["id"] == "collapse" for event in whole.of("condition"))
    assert len({event.data["digest"] for event in whole.of("ocean")}) == 1


def test_an_observer_comes_nearer_to_the_active_basin_and_sees_no_text() -> None:
    constellation = new(FIXED)
    advance(constellation, range(1))
    before = constellation._descents["gary2"].distance
    target = constellation._basin("gary1")
    found = constellation._descents["gary2"]
    assert found.distance == pytest.approx(float(fisher_rao_distance(constellation._basin("gary2"), target)), abs=0.2)
    advance(constellation, range(1, 30))
    follower = constellation._descents["gary2"].distance
    alone = new(FIXED, {"constellation": {"vicarious_share": 0.0}})
    resting = parameter_digest(alone.trainers["gary2"].kernel)
    advance(alone, range(30))
    assert parameter_digest(alone.trainers["gary2"].kernel) == resting
    assert parameter_digest(alone.trainers["gary1"].kernel) == parameter_digest(constellation.trainers["gary1"].kernel)
    apart = float(fisher_rao_distance(alone._basin("gary2"), alone._basin("gary1")))
    assert follower < 0.95 * apart
    assert before > 0.0


def test_the_target_is_detached_so_an_active_gary_learns_as_if_nobody_followed() -> None:
    followed, alone = new(FIXED), new(FIXED, {"constellation": {"vicarious_share": 0.0}})
    advance(followed, range(10))
    advance(alone, range(10))
    for one, other in zip(
        followed.trainers["gary1"].kernel.parameters(), alone.trainers["gary1"].kernel.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_resume_at_any_step_goes_on_bit_by_bit(whole: Run, tmp_path: Path) -> None:
    started = start(tmp_path, "cut")
    stops = [13, 20, 35]
    while True:
        at = stops.pop(0) if stops else None
        monitors: list[IntegratedMonitor] = []
        program = constellation_of(started)
        attend = program.attend

        def stopping(
            step: int, look: Any, monitor: IntegratedMonitor, at: int | None = at, attend: Any = attend
        ) -> None:
            attend(step, look, monitor)
            if step == at:
                monitor.abort.request(Cause("command", "a stop", 76))

        program.attend = stopping  # type: ignore[method-assign]
        monitors.append(train(started))
        if at is None:
            break
        assert monitors[0].exit_code == 76
        place = requests.Place(runs=tmp_path)
        started = begin(requests.resume(started.writer.run, None, {}, [], place, new_corpus=False))
    assert monitors[0].exit_code == 0
    mine, straight = Run(started.writer.run).last_state(), whole.last_state()
    for name in ("gary1", "gary2", "gary3"):
        for key, tensor in straight[name]["model"].items():
            assert torch.equal(mine[name]["model"][key], tensor), (name, key)
        assert mine[name]["basin"] == straight[name]["basin"]
    assert mine["constellation"] == straight["constellation"]


LONG: dict[str, Any] = {
    "steps": 110,
    "cadence": {"measure_every": 5, "heldout_every": 50, "checkpoint_every": 5},
    "constellation": {"routing": "fixed"},
}


def broken_at(started: Started, name: str, steps: set[int]) -> Started:
    """After the update of these steps a weight of one Gary is NaN."""
    program = constellation_of(started)
    update = program.update

    def breaking(step: int) -> None:
        update(step)
        if step in steps:
            with torch.no_grad():
                program.trainers[name].kernel.head[0, 0] = torch.nan

    program.update = breaking  # type: ignore[method-assign]
    return started


def test_a_gary_that_goes_wrong_alone_is_taken_back_alone(tmp_path: Path) -> None:
    undisturbed = start(tmp_path, "undisturbed", LONG)
    assert train(undisturbed).exit_code == 0
    started = broken_at(start(tmp_path, "one", LONG), "gary3", {97})
    monitor = train(started)
    assert (monitor.exit_code, monitor.reason) == (0, "")
    run = Run(started.writer.run)
    (done,) = run.of("intervention")
    assert (done.data["verb"], done.data["gary"], done.data["by"]) == ("escape", "gary3", "safety")
    assert done.step is not None
    assert 97 < done.step <= 100
    assert (done.data["undone"], done.data["bound"]["value"]) == (False, 0.0)
    back = next(found for found in list_checkpoints(started.writer.run) if found.name in done.data["reason"])
    assert back.step is not None
    assert back.step < 97
    assert not run.of("soft_reset")
    assert not run.of("emergency")
    mine, theirs = run.last_state(), Run(undisturbed.writer.run).last_state()
    for name in ("gary1", "gary2"):
        for key, tensor in theirs[name]["model"].items():
            assert torch.equal(mine[name]["model"][key], tensor), (name, key)
    assert all(bool(torch.isfinite(each).all()) for each in mine["gary3"]["model"].values())
    assert mine["constellation"]["coordinator"]["taken_back"] == {"gary1": 0, "gary2": 0, "gary3": 1}
    told = [event for event in run.of("condition") if event.data["id"] == "gary3.nonfinite"]
    assert [event.data["state"] for event in told[-3:]] == ["critical", "unarmed", "ok"]


def test_a_gary_that_goes_wrong_again_and_again_stops_the_run(tmp_path: Path) -> None:
    over = {"constellation": {"soft_resets": 1}}
    started = broken_at(start(tmp_path, "again", LONG, over), "gary3", set(range(90, 110)))
    monitor = train(started)
    assert monitor.exit_code == 75
    assert "gary3.nonfinite" in monitor.reason
    run = Run(started.writer.run)
    assert len(run.of("intervention")) == 1
    assert any("was 1 times" in event.data["text"] for event in run.of("alert"))
    assert run.of("emergency")


def test_a_gary_that_goes_wrong_before_anything_is_known_to_be_good_stops_the_run(tmp_path: Path) -> None:
    started = broken_at(start(tmp_path, "early", LONG), "gary2", {7})
    monitor = train(started)
    assert monitor.exit_code == 75
    assert any("no checkpoint is known to be good" in each.data["text"] for each in Run(started.writer.run).of("alert"))


def test_garys_that_all_go_wrong_are_the_runs_affair(tmp_path: Path) -> None:
    started = start(tmp_path, "all", LONG)
    for name in ("gary1", "gary2", "gary3"):
        broken_at(started, name, {99})
    monitor = train(started)
    assert monitor.exit_code == 75
    assert not Run(started.writer.run).of("intervention")


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        ({"constellation": {"garys": 1}}, "between 2 and 64"),
        ({"constellation": {"active": 4}}, "at most the 3 Garys"),
        ({"constellation": {"vicarious_share": 1.0}}, "must lie in"),
        ({"constellation": {"routing": "random"}}, "routing"),
        ({"constellation": {"ocean": {"widow": 9}}}, "did you mean constellation.ocean.window"),
        ({"constellation": {"ocean": {"ladder": "obey"}}}, "ladder"),
    ],
)
def test_what_cannot_be_is_refused_in_words(over: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        new(over)


ACTING: dict[str, Any] = {
    "steps": 45,
    "constellation": {
        "routing": "fixed",
        "ocean": {"ladder": "act", "patience": 1, "cooldown": 2, "collapse_floor_rad": 2.0, "allow": ["perturb"]},
    },
}


def test_what_the_ocean_recommends_is_carried_out_where_the_configuration_allows_it(tmp_path: Path) -> None:
    started = start(tmp_path, "acting", ACTING)
    assert train(started).exit_code == 0
    run = Run(started.writer.run)
    done = run.of("intervention")
    assert done
    assert {(event.data["verb"], event.data["by"], event.data["undone"]) for event in done} == {
        ("perturb", "ocean", False)
    }
    for event in done:
        bound = event.data["bound"]
        assert 0.0 < bound["value"] <= bound["limit"]
        assert event.data["after"]["distance_rad"] != event.data["before"]["distance_rad"]
        report = next(each for each in run.of("ocean") if each.step == event.step)
        asked = [each for each in report.data["recommendations"] if each["rung"] == "act"]
        assert event.data["gary"] in {each["gary"] for each in asked}
    for name in ("gary2", "gary3"):
        steps = [event.step for event in done if event.data["gary"] == name]
        assert len(steps) >= 2
        assert all(later - earlier > 2 * 5 for earlier, later in pairwise(steps))
    for over in ({"ladder": "warn"}, {"allow": []}):
        quiet = start(tmp_path, f"quiet-{next(iter(over))}", ACTING, {"constellation": {"ocean": over}})
        assert train(quiet).exit_code == 0
        assert not Run(quiet.writer.run).of("intervention")
        rungs = {each["rung"] for event in Run(quiet.writer.run).of("ocean") for each in event.data["recommendations"]}
        assert "warn" in rungs
        assert "act" not in rungs


def test_an_intervention_is_repeated_to_the_bit_by_a_resume_from_its_own_step(tmp_path: Path) -> None:
    over = {"cadence": {"checkpoint_every": 5}, "checkpoints": {"newest": 20}}
    straight = start(tmp_path, "straight", ACTING, over)
    assert train(straight).exit_code == 0
    run = Run(straight.writer.run)
    at = run.of("intervention")[0].step
    assert at is not None
    place = requests.Place(runs=tmp_path, run_id="again")
    forked = begin(requests.fork(run.run, str(at), {}, [], place))
    assert train(forked).exit_code == 0
    mine, theirs = Run(forked.writer.run).last_state(), run.last_state()
    for name in ("gary1", "gary2", "gary3"):
        for key, tensor in theirs[name]["model"].items():
            assert torch.equal(mine[name]["model"][key], tensor), (name, key)
    assert mine["constellation"] == theirs["constellation"]
