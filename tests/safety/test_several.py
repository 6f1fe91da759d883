"""Several models in one run: limits under each one's name, one judged anew alone, one relieved alone."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.saving import saver
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT, OFF, REFERENCE, Profile, SoftReset, Threshold, from_dict, to_dict
from qig_core.safety.several import of_several
from qig_core.safety.verdict import Verdict

NAMES = ("gary1", "gary2")
SEVERAL = of_several(DEFAULT, NAMES)
PLAIN = Profile(name="plain", limits=(Threshold(id="depth", metric="loss", comparison="<=", value=1.0),))


@pytest.mark.parametrize("profile", [DEFAULT, REFERENCE, OFF])
def test_each_limit_of_a_model_is_there_once_a_name_and_each_of_the_machine_once(profile: Profile) -> None:
    several = of_several(profile, NAMES)
    machine = [limit.id for limit in profile.limits if limit.id in ("gpu_memory", "no_step")]
    own = [limit.id for limit in profile.limits if limit.id not in machine]
    expected = {f"{name}.{one}" for name in NAMES for one in own} | set(machine)
    assert {limit.id for limit in several.limits} == expected
    assert from_dict(to_dict(several)) == several


def test_a_limit_under_a_name_judges_that_ones_metric_and_no_other() -> None:
    monitor = SafetyMonitor(SEVERAL)
    judgement = monitor.judge(0, {"gary1.loss": 1.0, "gary2.loss": float("nan"), "loss": float("nan")})
    assert [verdict.id for verdict in judgement.critical] == ["gary2.nonfinite"]


def test_a_soft_reset_answers_for_every_name_what_it_answered_for_one() -> None:
    asked = Profile(name="asked", limits=PLAIN.limits, soft_reset=SoftReset(limits=("depth",)))
    found = of_several(asked, NAMES).soft_reset
    assert found is not None
    assert found.limits == ("gary1.depth", "gary2.depth")


def test_an_alarm_is_blamed_on_what_moved_first_in_the_same_model() -> None:
    monitor = SafetyMonitor(SEVERAL)
    for step in range(400):
        wave = 0.01 * ((step * 7919) % 13 - 6)
        loss = 2.0 + wave
        metrics = {"gary1.loss": loss, "gary2.loss": loss, "gary1.grad_norm": 1.0 + wave, "gary2.grad_norm": 1.0 + wave}
        if step >= 320:
            metrics["gary1.grad_norm"] += 3.0  # gary1 creeps
        if step == 360:
            metrics["gary2.loss"] = 9.0  # gary2 jumps
        judgement = monitor.judge(step, metrics)
        if step == 360:
            causes = {verdict.id: verdict.cause for verdict in judgement.transitions}
            assert causes["gary2.loss_spike"] == ("gary2.loss",)
            return
    raise AssertionError("not reached")


def test_one_model_is_judged_anew_and_the_other_goes_on() -> None:
    monitor = SafetyMonitor(of_several(PLAIN, NAMES))
    monitor.judge(0, {"gary1.loss": 5.0, "gary2.loss": 5.0})
    assert monitor.states() == {"gary1.depth": "critical", "gary2.depth": "critical"}
    told = monitor.rearm({"gary2.depth"})
    assert [(verdict.id, verdict.state) for verdict in told] == [("gary2.depth", "unarmed")]
    assert monitor.states() == {"gary1.depth": "critical", "gary2.depth": "unarmed"}
    again = monitor.judge(1, {"gary1.loss": 5.0, "gary2.loss": 0.5})
    assert [verdict.id for verdict in again.transitions] == ["gary2.depth"]
    assert again.worst == "critical"


def monitored(folder: Path, relieved: Collection[str], losses: Sequence[tuple[float, float]]) -> IntegratedMonitor:
    asked: list[tuple[str, ...]] = []

    def relieve(step: int, critical: Sequence[Verdict]) -> Collection[str]:
        asked.append(tuple(verdict.id for verdict in critical))
        return relieved

    monitor = IntegratedMonitor.open(
        folder, profile=of_several(PLAIN, NAMES), total_steps=len(losses), signals=False, relieve=relieve
    )
    with monitor:
        for step in monitor.steps():
            one, other = losses[step]
            monitor.check(step, {"gary1.loss": one, "gary2.loss": other})
    assert all(asked)
    return monitor


def test_a_run_whose_one_model_was_relieved_goes_on(tmp_path: Path) -> None:
    monitor = monitored(tmp_path, {"gary2.depth"}, [(0.0, 0.0), (0.0, 5.0), (0.0, 0.0)])
    assert monitor.exit_code == 0
    events = [each for each in read_all(monitor.writer.run.events, Event) if isinstance(each, Event)]
    told = [each.data["state"] for each in events if each.kind == "condition" and each.data["id"] == "gary2.depth"]
    assert told == ["unarmed", "ok", "critical", "unarmed", "ok"]


@pytest.mark.parametrize("relieved", [(), ("gary1.depth",)])
def test_what_was_not_relieved_stops_the_run(tmp_path: Path, relieved: tuple[str, ...]) -> None:
    monitor = monitored(tmp_path, relieved, [(0.0, 0.0), (0.0, 5.0), (0.0, 0.0)])
    assert monitor.exit_code == 75
    assert "gary2.depth" in monitor.reason


def test_a_checkpoint_that_the_loop_wants_is_made_at_its_check_and_one_of_a_phase_is_pinned(tmp_path: Path) -> None:
    with IntegratedMonitor.open(
        tmp_path, profile="off", total_steps=6, signals=False, save=saver(lambda: {"x": 1})
    ) as monitor:
        for step in monitor.steps():
            if step == 3:
                monitor.want_checkpoint("phase")
            monitor.check(step, {"loss": 1.0})
    found = {each.step: each for each in list_checkpoints(monitor.writer.run) if each.manifest}
    assert {step: each.manifest.reason for step, each in found.items() if each.manifest} == {3: "phase", 6: "end"}
    assert "pinned" in found[3].tags
    assert "pinned" not in found[6].tags
