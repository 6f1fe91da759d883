"""Which checkpoint is best, latest, last good."""

import itertools
import math
from typing import Any

import pytest

from qig_core.checkpoints.ranking import best, last_good, latest, rank_key
from qig_core.rundir.schema import CheckpointManifest


def manifest(name: str, step: int = 1, t: float = 0.0, reason: str = "interval", **facts: Any) -> CheckpointManifest:
    return CheckpointManifest(
        name=name, run="r", session="s", step=step, t=t, reason=reason, files=[], fingerprint="", **facts
    )


def scored(name: str, loss: float | None, **facts: Any) -> CheckpointManifest:
    finite = loss is None or math.isfinite(loss)
    metrics = {"loss_heldout": loss if finite else None, **facts.pop("metrics", {})}
    return manifest(name, metrics=metrics, nonfinite={} if finite else {"loss_heldout": "nan"}, **facts)


def test_one_nan_among_five_changes_no_order_in_any_of_120_arrangements() -> None:
    five = [scored("a", 1.0), scored("b", 2.0), scored("nan", math.nan), scored("c", 3.0), scored("d", 4.0)]
    for order in itertools.permutations(five):
        assert [m.name for m in sorted(order, key=rank_key)] == ["a", "b", "c", "d", "nan"]
        assert best(order).name == "a"
        assert best(order, lower_is_better=False).name == "d"


def test_a_nan_that_reached_a_manifest_as_a_number_is_no_score_either() -> None:
    raw = manifest("raw", metrics={"loss_heldout": math.nan})
    for order in itertools.permutations([scored("a", 1.0), raw, scored("inf", math.inf), scored("b", 2.0)]):
        assert best(order).name == "a"
    assert best([raw]) is None


def test_without_any_finite_score_there_is_no_best() -> None:
    assert best([]) is None
    assert best([manifest("absent"), scored("nan", math.nan)]) is None
    assert best([manifest("absent"), scored("a", 9.0, conditions={"drift": "critical"})]) is None
    assert (
        best([scored("b", 9.0, conditions={"drift": "warning"}), scored("a", 1.0, metrics={"phi": None})]).name == "b"
    )


def test_inside_all_bands_comes_before_a_better_score() -> None:
    calm = scored("calm", 3.0, conditions={"drift": "ok", "phi": "unarmed"})
    warned = scored("warned", 2.0, conditions={"drift": "warning"})
    broken = scored("broken", 1.0, conditions={"drift": "critical", "phi": "warning"})
    odd = scored("odd", 0.5, metrics={"grad_norm": None})
    for order in itertools.permutations([calm, warned, broken, odd]):
        assert [m.name for m in sorted(order, key=rank_key)] == ["calm", "warned", "broken", "odd"]


def test_a_high_phi_is_no_merit() -> None:
    high = scored("high", 2.0, metrics={"phi": 0.99})
    assert best([high, scored("low", 1.0, metrics={"phi": 0.1})]).name == "low"


def test_equal_scores_are_told_apart_by_drift_then_by_the_earlier_step() -> None:
    far = scored("far", 1.0, metrics={"drift_rolling": 0.2}, step=1)
    near = scored("near", 1.0, metrics={"drift_rolling": 0.1}, step=9)
    soon = scored("soon", 1.0, metrics={"drift_rolling": 0.1}, step=3)
    unmeasured = scored("unmeasured", 1.0, step=0)
    for order in itertools.permutations([far, near, soon, unmeasured]):
        assert [m.name for m in sorted(order, key=rank_key)] == ["soon", "near", "far", "unmeasured"]


def test_latest_is_by_publication_and_not_by_step() -> None:
    assert latest([manifest("a", step=900, t=1.0), manifest("b", step=100, t=2.0)]).name == "b"
    assert latest([]) is None


def test_last_good_passes_over_what_is_not_finite_or_critical() -> None:
    good = manifest("good", t=1.0, metrics={"loss": 1.0}, conditions={"drift": "warning"})
    critical = manifest("critical", t=2.0, conditions={"drift": "critical"})
    emergency = manifest("emergency", t=3.0, reason="emergency", metrics={"loss": None}, nonfinite={"loss": "nan"})
    assert last_good([good, critical, emergency]).name == "good"
    assert last_good([critical, emergency]) is None


@pytest.mark.parametrize("nonfinite", [{"grad_norm": "inf"}, {"anything": "-inf"}])
def test_an_emergency_after_a_nonfinite_value_is_never_last_good(nonfinite: dict[str, str]) -> None:
    emergency = manifest("e", t=9.0, reason="emergency", metrics={"loss": 1.0}, nonfinite=nonfinite)
    assert last_good([emergency]) is None


def test_an_emergency_with_everything_in_its_bands_may_be_last_good() -> None:
    assert last_good([manifest("e", reason="emergency", metrics={"loss": 1.0})]).name == "e"
