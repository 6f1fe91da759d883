"""The simplex against closed forms, its own inverses, and properties drawn by Hypothesis."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qig_core.errors import QigError, SimplexError
from qig_core.geometry.simplex import (
    FloatArray,
    bhattacharyya_angle,
    exp,
    fisher_rao_distance,
    frechet_mean,
    geodesic,
    log,
    normalise,
)

SIZE = 6


def simplex_points(size: int = SIZE) -> st.SearchStrategy[FloatArray]:
    """Points of the simplex, zeros and corners included."""
    entries = st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
    return arrays(np.float64, size, elements=entries).filter(lambda x: x.sum() > 1e-6).map(lambda x: x / x.sum())


@given(simplex_points(), simplex_points())
def test_distance_is_symmetric_and_lies_between_zero_and_pi(p: FloatArray, q: FloatArray) -> None:
    d = fisher_rao_distance(p, q)
    assert d == fisher_rao_distance(q, p)
    assert 0.0 <= d <= math.pi


@given(simplex_points(), simplex_points(), simplex_points())
def test_distance_obeys_the_triangle_inequality(p: FloatArray, q: FloatArray, r: FloatArray) -> None:
    assert fisher_rao_distance(p, r) <= fisher_rao_distance(p, q) + fisher_rao_distance(q, r) + 1e-12


@given(simplex_points(), simplex_points())
def test_merging_two_outcomes_never_increases_the_distance(p: FloatArray, q: FloatArray) -> None:
    merged = fisher_rao_distance(np.append(p[2:], p[:2].sum()), np.append(q[2:], q[:2].sum()))
    assert merged <= fisher_rao_distance(p, q) + 1e-12


@given(simplex_points(), simplex_points())
def test_exp_undoes_log(p: FloatArray, q: FloatArray) -> None:
    v = log(p, q)
    assert np.linalg.norm(v) == pytest.approx(float(fisher_rao_distance(p, q)), abs=1e-12)
    np.testing.assert_allclose(exp(p, v), q, atol=1e-12)


@given(simplex_points(), simplex_points(), st.floats(0.0, 0.9))
def test_log_undoes_exp(p: FloatArray, q: FloatArray, share: float) -> None:
    v = share * log(p, q)
    np.testing.assert_allclose(log(p, exp(p, v)), v, atol=1e-7)


@given(simplex_points(), simplex_points(), st.floats(0.0, 1.0))
def test_a_geodesic_has_constant_speed(p: FloatArray, q: FloatArray, t: float) -> None:
    middle = geodesic(p, q, t)
    d = float(fisher_rao_distance(p, q))
    assert float(fisher_rao_distance(p, middle)) == pytest.approx(t * d, abs=2e-8)
    assert float(fisher_rao_distance(middle, q)) == pytest.approx((1.0 - t) * d, abs=2e-8)


def test_disjoint_points_are_pi_apart_and_equal_ones_zero() -> None:
    assert fisher_rao_distance([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.pi, abs=1e-15)
    assert fisher_rao_distance([0.3, 0.7], [0.3, 0.7]) == 0.0
    assert bhattacharyya_angle([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.pi / 2, abs=1e-15)


def test_two_coins_have_the_arcsine_distance() -> None:
    a, b = 0.2, 0.7
    expected = 2.0 * abs(math.asin(math.sqrt(a)) - math.asin(math.sqrt(b)))
    assert fisher_rao_distance([a, 1 - a], [b, 1 - b]) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("d", [1e-3, 1e-6, 1e-9])
def test_small_distances_keep_their_digits(d: float) -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.5 + d / 2, 0.5 - d / 2])
    assert float(fisher_rao_distance(p, q)) == pytest.approx(math.asin(d), rel=2e-7)


def test_random_dirichlet_points_are_as_far_apart_as_published() -> None:
    rng = np.random.default_rng(0)
    d = fisher_rao_distance(rng.dirichlet(np.ones(64), 2000), rng.dirichlet(np.ones(64), 2000))
    assert float(d.mean()) == pytest.approx(1.32, abs=0.01)
    assert float(d.std()) == pytest.approx(0.11, abs=0.01)


def test_a_batch_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(64), (3, 4)), rng.dirichlet(np.ones(64), (3, 4))
    batched = fisher_rao_distance(p, q)
    assert batched.shape == (3, 4)
    for i in np.ndindex(3, 4):
        assert batched[i] == fisher_rao_distance(p[i], q[i])
        np.testing.assert_array_equal(log(p, q)[i], log(p[i], q[i]))
        np.testing.assert_array_equal(geodesic(p, q, 0.3)[i], geodesic(p[i], q[i], 0.3))


def test_input_within_the_tolerance_is_renormalised() -> None:
    p = np.array([0.3, 0.7])
    assert fisher_rao_distance(p * (1 + 9e-7), p) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.51]], r"p\[1\] sums to 1.01, off by 0.01"),
        ([[0.5, 0.5], [-0.1, 1.1]], r"p\[1\] is negative"),
        ([[math.nan, 1.0], [0.5, 0.5]], r"p\[0\] holds a value that is not finite"),
    ],
)
def test_a_point_off_the_simplex_is_refused_with_its_row(bad: list[list[float]], message: str) -> None:
    with pytest.raises(SimplexError, match=message):
        fisher_rao_distance(bad, [0.5, 0.5])


def test_points_of_two_simplexes_are_refused() -> None:
    with pytest.raises(SimplexError, match="one simplex"):
        fisher_rao_distance([0.5, 0.5], [0.2, 0.3, 0.5])


def test_leaving_the_orthant_is_refused() -> None:
    with pytest.raises(SimplexError, match="leaves the simplex"):
        exp([0.5, 0.5], 1.01 * log([0.5, 0.5], [0.0, 1.0]))
    with pytest.raises(SimplexError, match="not a tangent"):
        exp([0.5, 0.5], [1.0, 1.0])
    with pytest.raises(SimplexError, match="t must lie"):
        geodesic([0.5, 0.5], [0.0, 1.0], 1.5)


def test_nothing_cannot_be_normalised() -> None:
    np.testing.assert_allclose(normalise([1.0, 3.0]), [0.25, 0.75])
    with pytest.raises(SimplexError, match=r"x\[1\] sums to 0"):
        normalise([[1.0, 0.0], [0.0, 0.0]])


@given(arrays(np.float64, (5, SIZE), elements=st.floats(1e-3, 1.0)))
@settings(max_examples=30)
def test_the_mean_has_a_vanishing_gradient_and_ignores_its_start(raw: FloatArray) -> None:
    points = normalise(raw)
    mean = frechet_mean(points)
    assert np.linalg.norm(log(mean, points).mean(axis=0)) <= 1e-11
    other = frechet_mean(points, start=normalise(raw[0]))
    assert fisher_rao_distance(mean, other) <= 1e-10


def test_the_mean_of_two_points_is_their_midpoint() -> None:
    p, q = np.array([0.1, 0.2, 0.7]), np.array([0.6, 0.4, 0.0])
    np.testing.assert_allclose(frechet_mean([p, q]), geodesic(p, q, 0.5), atol=1e-12)
    np.testing.assert_allclose(frechet_mean([p, q], weights=[3.0, 1.0]), geodesic(p, q, 0.25), atol=1e-12)


def test_the_mean_is_not_the_arithmetic_mean() -> None:
    p, q = np.array([0.99, 0.01]), np.array([0.5, 0.5])
    assert fisher_rao_distance(frechet_mean([p, q]), (p + q) / 2) > 0.01


def test_the_mean_of_all_corners_is_the_centre() -> None:
    np.testing.assert_allclose(frechet_mean(np.eye(64), start=normalise(np.eye(64)[0] + 0.01)), 1 / 64, atol=1e-12)


def test_a_mean_of_nothing_or_with_wrong_weights_is_refused() -> None:
    with pytest.raises(SimplexError, match="N ≥ 1"):
        frechet_mean([0.5, 0.5])
    with pytest.raises(SimplexError, match="1 weights for 2 points"):
        frechet_mean([[0.5, 0.5], [0.4, 0.6]], weights=[1.0])
    with pytest.raises(QigError, match="did not reach"):
        frechet_mean([[0.5, 0.5], [0.1, 0.9]], tol=-1.0)
