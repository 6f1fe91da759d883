"""The three protocols on runs whose answer is known."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from qig_core.experiments import awakening, observers, suppression
from qig_core.experiments.experiment import Experiment, Result, Runs
from qig_core.experiments.observers import ACTING, OBSERVING, RESTING
from qig_core.experiments.reading import Recorded
from qig_core.geometry.simplex import fisher_rao_distance
from qig_core.rundir.schema import GitRevision
from qig_core.training.config import build
from tests.experiments.recorded import AWAKENING, DORMANT, charlie, constellation, points

SEEDS = ("seed 0", "seed 1", "seed 2")
ALL = (suppression.SUPPRESSION, awakening.AWAKENING, observers.OBSERVERS)


def of_charlie(make: Callable[[int], Recorded]) -> Runs:
    return {name: {"charlie": make(number)} for number, name in enumerate(SEEDS)}


def words(result: Result) -> dict[str, str]:
    return {finding.id: finding.verdict for finding in result.findings}


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: each.name)
def test_hypothesis_measure_null_margins_and_rule_are_declared(experiment: Experiment) -> None:
    for word in ("Declared before the data:", "hypothesis", "measure", "null", "margins", "rule"):
        assert f"\n{word}" in experiment.declared


def test_what_is_declared_is_what_is_judged_by(tmp_path: Path) -> None:
    assert (
        f"margins     {suppression.PHI_MARGIN:g} and {suppression.CONTROL_MARGIN:g},"
        in suppression.SUPPRESSION.declared
    )
    margins = f"margins     {awakening.PHI_MARGIN:g} of a score in [0, 1); {awakening.LOSS_MARGIN_NATS:g} nats"
    assert margins in awakening.AWAKENING.declared
    assert f"over the last {awakening.LAST} evaluations" in awakening.AWAKENING.declared
    assert observers.RATIO_MARGIN == 0.0
    assert observers.STILL_RAD == 1e-6
    assert "1e-6 rad" in observers.OBSERVERS.declared


# suppression


def test_phi_that_stays_zero_beside_a_control_that_integrates_passes(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", control=lambda step: 0.5 + 0.01 * n + step / 1000))
    found = suppression.evaluate(runs)
    assert found.verdict == "pass"
    assert found.figures["seed 1"]["phi_max"] == 0.0
    assert found.figures["seed 1"]["control_above"] == pytest.approx(0.51 + 0.045)
    assert found.figures["seed 1"]["control_min"] == pytest.approx(0.51)
    assert found.figures["seed 0"]["evaluations"] == DORMANT / 10
    assert found.figures["seed 0"]["heldout_fell_nats"] == pytest.approx(0.3)
    (panel,) = found.panels
    assert [line.label for line in panel.lines] == ["suppressed, g = 0", "control, g = 1"] * 3
    assert [line.points[50] for line in panel.lines[:4]] == pytest.approx([0.0, 0.55, 0.0, 0.56])


def test_one_leak_at_one_evaluation_is_enough(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", phi=lambda step: 0.02 + n / 1000 if step == 50 else 0.0))
    found = suppression.evaluate(runs)
    assert words(found) == {"phi_zero": "fail", "control_integrates": "pass"}
    assert found.verdict == "fail"


def test_a_leak_in_one_seed_alone_is_no_pass(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", phi=lambda step: 0.02 * (n == 1)))
    assert words(suppression.evaluate(runs))["phi_zero"] == "inconclusive"


def test_awakening_is_not_held_against_suppression(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}"))
    assert max(runs["seed 0"]["charlie"].curve("phi").values()) > 0.5
    assert words(suppression.evaluate(runs))["phi_zero"] == "pass"


def test_a_control_that_does_not_integrate_makes_it_vacuous(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", control=lambda step: 0.02 + 0.001 * n))
    assert words(suppression.evaluate(runs)) == {"phi_zero": "pass", "control_integrates": "fail"}


def test_an_evaluation_without_phi_is_not_taken_for_zero(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", phi=lambda step: math.nan if (n, step) == (2, 50) else 0.0))
    found = suppression.evaluate(runs)
    assert found.figures["seed 2"]["evaluations_without_phi"] == 1.0
    assert found.findings[0].reason == "no figure of seed 2"
    assert found.verdict == "inconclusive"


def test_a_run_that_its_guards_stopped_is_judged_too_and_told_of(tmp_path: Path) -> None:
    def leaks(n: int) -> Recorded:
        return charlie(tmp_path, f"r{n}", phi=lambda step: step / 1000, until=40, exit_code=75)

    found = suppression.evaluate(of_charlie(leaks))
    assert words(found)["phi_zero"] == "fail"
    assert found.notes[1] == "r1 stopped with exit code 75: a guard"


def test_runs_of_different_programs_are_told_of(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", versions={"torch": "2.6"}))
    assert suppression.evaluate(runs).notes == []
    other = {"seed 3": {"charlie": charlie(tmp_path, "r3", versions={"torch": "2.7"})}}
    (note,) = suppression.evaluate({**runs, **other}).notes
    assert "not all trained by one revision" in note
    revised = charlie(tmp_path, "r4", versions={"torch": "2.6"}, git=GitRevision("0" * 40, False))
    assert len(suppression.evaluate({**runs, "seed 4": {"charlie": revised}}).notes) == 1


# awakening


def test_phi_that_rises_at_no_cost_passes(tmp_path: Path) -> None:
    def rises(step: int) -> float:
        return 0.0 if step < DORMANT else 0.7 * min(1.0, (step - DORMANT) / 100)

    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", phi=rises, branch=lambda step: 3.1 + n / 1000 - step / 300))
    found = awakening.evaluate(runs)
    assert found.verdict == "pass"
    figures = found.figures["seed 1"]
    assert figures["phi_over_branch"] == pytest.approx(0.7)
    assert figures["heldout_over_branch_nats"] == pytest.approx(-0.101)
    assert figures["heldout_over_before_nats"] == pytest.approx((3.0 - 280 / 300) - (3.0 - 90 / 300))
    assert figures["share_of_control"] == pytest.approx(0.7 / 0.6)
    assert figures["trend_p"] is not None
    assert figures["trend_p"] < 0.01
    assert figures["evaluations"] == AWAKENING / 10
    phi, loss = found.panels
    assert [line.label for line in phi.lines] == ["awakened", "branch, g = 0", "control, g = 1"] * 3
    assert [line.points[290] for line in phi.lines[3:6]] == pytest.approx([0.7, 0.0, 0.6])
    assert [line.points[290] for line in loss.lines[3:5]] == pytest.approx([3.0 - 290 / 300, 3.101 - 290 / 300])


def test_held_out_loss_that_is_lost_fails(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", branch=lambda step: 2.8 + n / 1000 - step / 300))
    assert words(awakening.evaluate(runs)) == {"phi_raised": "pass", "loss_kept": "fail"}


def test_a_phi_that_does_not_rise_fails(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", phi=lambda step: 0.001 * n))
    assert words(awakening.evaluate(runs)) == {"phi_raised": "fail", "loss_kept": "pass"}


def test_only_the_end_of_the_phase_counts(tmp_path: Path) -> None:
    """A loss that is high at first and low over the last three evaluations is no loss."""
    last = DORMANT + AWAKENING - 30
    runs = of_charlie(
        lambda n: charlie(
            tmp_path, f"r{n}", heldout=lambda step: 9.0 if step < last else 2.0, branch=lambda step: 2.01 + n / 1000
        )
    )
    found = awakening.evaluate(runs)
    assert found.figures["seed 0"]["heldout_over_branch_nats"] == pytest.approx(-0.01)
    assert words(found)["loss_kept"] == "pass"


def test_a_run_that_never_awoke_leaves_it_open(tmp_path: Path) -> None:
    runs = of_charlie(lambda n: charlie(tmp_path, f"r{n}", until=DORMANT if n == 1 else 300, exit_code=75 * (n == 1)))
    found = awakening.evaluate(runs)
    assert {finding.reason for finding in found.findings} == {"no figure of seed 1"}
    assert found.verdict == "inconclusive"
    assert found.figures["seed 1"]["trend_p"] is None


def test_both_experiments_read_the_same_runs() -> None:
    first, second = (each.wanted("tiny", 2) for each in (suppression.SUPPRESSION, awakening.AWAKENING))
    assert [each.run_id for each in first] == [each.run_id for each in second]


# observers

STILL = {"gary1": 0.01, "gary2": 0.0, "gary3": 0.0}


def three(root: Path, observing: Mapping[str, float], acting: Mapping[str, float], **resting: float) -> Runs:
    out = {}
    for number, name in enumerate(SEEDS):
        wanted = observers.wanted("tiny", number)
        speeds = {OBSERVING: observing, ACTING: acting, RESTING: STILL | resting}
        out[name] = {each.role: constellation(root, each, speeds[each.role]) for each in wanted}
    return out


def test_a_gary_is_compared_with_itself_in_the_other_role(tmp_path: Path) -> None:
    """On a geodesic path and distance are the speed: the ratio is theirs, whatever the actor of the same run does."""
    whole = [float(fisher_rao_distance(*points(number))) for number in range(3)]
    speeds = {"gary1": 0.016, "gary2": 0.002, "gary3": 0.001}
    found = observers.evaluate(three(tmp_path, speeds, {"gary1": 0.001, "gary2": 0.004, "gary3": 0.008}))
    expected = (math.log(1 / 2) + math.log(1 / 8)) / 2
    for figures in found.figures.values():
        for name in ("ln_drift_per_update", "ln_drift_from_birth", "ln_drift_per_update_second_half"):
            assert figures[name] == pytest.approx(expected, rel=1e-5)
        assert figures["updates"] == 60.0
        assert figures["resting_rad"] == 0.0
        assert figures["actor_of_the_same_run_rad_per_update"] == pytest.approx(0.016 * whole[0], rel=1e-5)
        assert figures["observing_rad_per_update"] == pytest.approx((0.002 * whole[1] + 0.001 * whole[2]) / 2, rel=1e-5)
        assert figures["acting_from_birth_rad"] == pytest.approx(
            60 * (0.004 * whole[1] + 0.008 * whole[2]) / 2, rel=1e-5
        )
    assert found.verdict == "pass"
    birth, moved = found.panels
    assert [line.label for line in birth.lines[:3]] == [
        "the same Garys, acting",
        "observing",
        "the same Garys, resting",
    ]
    assert birth.lines[0].points[60] == pytest.approx(figures["acting_from_birth_rad"])
    assert moved.lines[1].points[30] == pytest.approx(figures["observing_rad_per_update"], rel=1e-5)


def test_observers_that_drift_more_fail(tmp_path: Path) -> None:
    speeds = {"gary1": 0.001, "gary2": 0.004, "gary3": 0.004}
    found = observers.evaluate(three(tmp_path, speeds, dict.fromkeys(speeds, 0.003)))
    assert words(found) == {"drift_per_update": "fail", "drift_from_birth": "fail", "resting_is_still": "pass"}


def test_resting_observers_that_drift_are_no_control(tmp_path: Path) -> None:
    speeds = {"gary1": 0.01, "gary2": 0.001, "gary3": 0.001}
    found = observers.evaluate(three(tmp_path, speeds, dict.fromkeys(speeds, 0.003), gary3=0.001))
    assert words(found)["resting_is_still"] == "fail"
    assert found.verdict == "fail"


def test_drift_is_compared_after_equal_steps(tmp_path: Path) -> None:
    speeds = {"gary1": 0.01, "gary2": 0.001, "gary3": 0.001}
    runs: dict[str, dict[str, Recorded]] = {}
    for number, name in enumerate(SEEDS):
        for each in observers.wanted("tiny", number):
            steps = 30 if each.role == OBSERVING else 60
            moving = STILL if each.role == RESTING else speeds
            runs.setdefault(name, {})[each.role] = constellation(tmp_path, each, moving, steps=steps)
    figures = observers.evaluate(runs).figures["seed 0"]
    assert figures["updates"] == 30.0
    assert figures["ln_drift_from_birth"] == pytest.approx(0.0, abs=1e-6)


def test_the_constellations_differ_in_roles_alone() -> None:
    observing, acting, resting = (build(each.values) for each in observers.wanted("tiny", 1))
    assert observing.constellation is not None
    assert acting.constellation is not None
    assert resting.constellation is not None
    names = observing.constellation.names
    for step in (0, 599):
        assert observing.constellation.active_at(step) == names[:1]
        assert acting.constellation.active_at(step) == names
        assert resting.constellation.active_at(step) == names[:1]
    assert resting.constellation.vicarious_share == 0.0
    for one, other in ((observing, acting), (observing, resting)):
        assert (one.seed, one.kernel, one.data, one.optimizer, one.steps) == (
            other.seed,
            other.kernel,
            other.data,
            other.optimizer,
            other.steps,
        )
    assert len({each.run_id for seed in range(3) for each in observers.wanted("tiny", seed)}) == 9
