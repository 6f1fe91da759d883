"""Skill of predictions, the geodesic extrapolation, and who counts as aware."""

import math

import numpy as np
import pytest

from qig_core.errors import SimplexError
from qig_core.geometry.simplex import FloatArray, exp, fisher_rao_distance, frechet_mean, log, normalise
from qig_core.measures.awareness import (
    GEODESIC_EXTRAPOLATION,
    AwarenessProfile,
    AwarenessState,
    extrapolated,
    judge,
    meta_awareness,
)


def walk(num: int, seed: int = 0, size: int = 8) -> FloatArray:
    """[num, size], a random walk."""
    steps = 0.1 * np.random.default_rng(seed).standard_normal((num, size))
    return np.asarray(normalise(np.exp(np.cumsum(steps, axis=0))))


def circle(num: int, step_rad: float) -> FloatArray:
    """[num, 3], points of one geodesic `step_rad` apart (Fisher–Rao), the third entry alone being constant."""
    angle = 0.1 + 0.5 * step_rad * np.arange(num)
    roots = np.stack([np.cos(angle), np.sin(angle), np.zeros(num)], axis=1)
    return np.asarray(normalise(np.square(roots)))


def test_a_perfect_prediction_has_a_skill_of_one() -> None:
    points = walk(40)
    seen = meta_awareness(points, points, predictor="oracle")
    assert (seen.value, seen.against_persistence, seen.against_mean) == (1.0, 1.0, 1.0)
    assert (seen.predictor, seen.num_pairs, seen.reason) == ("oracle", 39, None)


def test_persistence_has_no_skill_against_itself() -> None:
    points = walk(60)
    seen = meta_awareness(np.concatenate([points[:1], points[:-1]]), points, predictor="persistence")
    assert seen.against_persistence == 0.0
    assert seen.value == min(0.0, seen.against_mean or 0.0)


def test_the_running_mean_has_no_skill_against_itself() -> None:
    points = np.random.default_rng(1).dirichlet(np.ones(8), 60)
    means = np.array([points[0], *(frechet_mean(points[:t]) for t in range(1, 60))])
    seen = meta_awareness(means, points, predictor="mean")
    assert seen.against_mean == pytest.approx(0.0, abs=1e-10)
    assert seen.against_persistence is not None
    assert seen.against_persistence > 0.2  # scattered points: the last one is the worse guess
    assert seen.value == seen.against_mean


def test_the_skill_equals_its_formula() -> None:
    points, guess = walk(50), walk(50, seed=5)
    seen = meta_awareness(guess, points, predictor="stranger")
    errors = [float(fisher_rao_distance(guess[t], points[t])) ** 2 for t in range(1, 50)]
    last = [float(fisher_rao_distance(points[t - 1], points[t])) ** 2 for t in range(1, 50)]
    mean = [float(fisher_rao_distance(frechet_mean(points[:t]), points[t])) ** 2 for t in range(1, 50)]
    assert seen.against_persistence == pytest.approx(1.0 - sum(errors) / sum(last), rel=1e-9)
    assert seen.against_mean == pytest.approx(1.0 - sum(errors) / sum(mean), rel=1e-9)
    assert seen.value is not None
    assert seen.value < 0.0
    assert seen.value in (seen.against_persistence, seen.against_mean)


@pytest.mark.parametrize("num", [0, 1, 13, 20])
def test_too_few_pairs_give_a_reason_and_no_value(num: int) -> None:
    points = walk(num)
    seen = meta_awareness(points, points, predictor="oracle")
    pairs = max(0, num - 1)
    assert (seen.value, seen.against_persistence, seen.against_mean, seen.num_pairs) == (None, None, None, pairs)
    assert seen.reason == f"too few pairs: {pairs}, 20 are needed"


def test_twenty_pairs_are_enough() -> None:
    assert meta_awareness(walk(21), walk(21), predictor="oracle").value == 1.0


def test_a_constant_trajectory_has_no_reference_to_beat() -> None:
    points = np.tile(walk(1), (40, 1))
    seen = meta_awareness(points, points, predictor="oracle")
    assert (seen.value, seen.reason, seen.num_pairs) == (None, "reference error is 0", 39)


@pytest.mark.parametrize(
    ("predicted", "actual", "message"),
    [(walk(30), walk(31), "of one shape"), (walk(30)[0], walk(30)[0], "both"), (walk(30), -walk(30), "negative")],
)
def test_what_cannot_be_scored_is_refused(predicted: FloatArray, actual: FloatArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_awareness(predicted, actual, predictor="oracle")


def test_a_predictor_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no name"):
        meta_awareness(walk(30), walk(30), predictor="")


def test_extrapolation_foresees_a_geodesic() -> None:
    points = circle(30, step_rad=0.09)
    np.testing.assert_allclose(extrapolated(points[:-1]), points[2:], atol=1e-14)
    seen = meta_awareness(extrapolated(points[:-1]), points[2:], predictor=GEODESIC_EXTRAPOLATION)
    assert seen.value == pytest.approx(1.0, abs=1e-12)


def test_extrapolation_is_exp_of_minus_log_inside_the_orthant() -> None:
    points = walk(20, size=64)
    expected = exp(points[1:], -log(points[1:], points[:-1]))
    np.testing.assert_allclose(extrapolated(points), expected, atol=1e-15)


def test_extrapolation_is_clamped_where_it_leaves_the_orthant() -> None:
    points = np.array([[0.4, 0.3, 0.3], [0.01, 0.49, 0.5]])
    with pytest.raises(SimplexError, match="leaves the simplex"):
        exp(points[1], -log(points[1], points[0]))
    end = extrapolated(points)[0]
    roots = np.sqrt(points)
    unclamped = 2.0 * (roots[0] @ roots[1]) * roots[1] - roots[0]
    assert unclamped[0] < 0.0 == end[0]
    assert end[1] / end[2] == pytest.approx((unclamped[1] / unclamped[2]) ** 2)
    assert end.sum() == pytest.approx(1.0, abs=1e-15)


def test_extrapolation_from_disjoint_basins_stays_where_it_is() -> None:
    points = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    np.testing.assert_array_equal(extrapolated(points), points[1:])
    nearly = np.array([[1.0, 0.0, 0.0], [1e-9, 0.4999999995, 0.5]])
    np.testing.assert_allclose(extrapolated(nearly)[0], [0.0, 0.5, 0.5], atol=1e-8)


def test_extrapolation_of_a_model_at_rest_is_rest() -> None:
    points = np.tile(walk(1), (3, 1))
    np.testing.assert_allclose(extrapolated(points), points[1:], atol=1e-15)


@pytest.mark.parametrize("points", [walk(1), walk(3)[0], 2.0 * walk(3)])
def test_what_has_no_continuation_is_refused(points: FloatArray) -> None:
    with pytest.raises(ValueError, match=r"N ≥ 2|sums to"):
        extrapolated(points)


@pytest.mark.parametrize(
    ("values", "answers"),
    [
        ([None, math.nan, 0.05], [None, None, False]),
        ([0.1], [True]),
        ([0.5, 0.0, 0.0, 0.0], [True, True, True, False]),
        ([0.5, -9.0, -9.0, 0.01, -9.0, -9.0, -9.0], [True] * 6 + [False]),
        ([0.5, -9.0, None, -9.0, math.inf, -9.0], [True] * 5 + [False]),
        ([0.0, 0.1, 0.1, 0.1], [False, False, False, True]),
        ([0.0, 0.2, 0.2, 0.09, 0.2, 0.2], [False] * 6),
        ([0.0, 0.05, 0.05, 0.05, 0.05], [False] * 5),
        ([0.1, 0.05, 0.05, 0.05, 0.05], [True] * 5),
    ],
)
def test_an_answer_holds_until_dwell_values_in_a_row_say_otherwise(
    values: list[float | None], answers: list[bool | None]
) -> None:
    state, seen = AwarenessState(), []
    for value in values:
        state = judge(state, value)
        seen.append(state.aware)
    assert seen == answers


def test_a_profile_of_ones_own_is_obeyed() -> None:
    profile = AwarenessProfile(on=0.5, off=0.4, dwell=1)
    state = judge(AwarenessState(), 0.45, profile)
    assert state == AwarenessState(aware=False)
    state = judge(state, 0.5, profile)
    assert state == AwarenessState(aware=True)
    assert judge(state, 0.45, profile) == state
    assert judge(state, 0.4, profile) == AwarenessState(aware=False)


@pytest.mark.parametrize(
    ("on", "off", "dwell"), [(0.0, 0.0, 3), (0.0, 0.1, 3), (1.1, 0.0, 3), (math.nan, 0.0, 3), (0.1, -math.inf, 3)]
)
def test_a_profile_without_a_gap_is_refused(on: float, off: float, dwell: int) -> None:
    with pytest.raises(ValueError, match="off must be the smaller"):
        AwarenessProfile(on=on, off=off, dwell=dwell)


def test_a_profile_without_a_dwell_is_refused() -> None:
    with pytest.raises(ValueError, match="dwell is 0"):
        AwarenessProfile(dwell=0)
