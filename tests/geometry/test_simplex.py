"""The simplex against closed forms, its own inverses, and properties drawn by Hypothesis."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qig_core.errors import QigError, SimplexError
from qig_core.geometry.simplex import (
    FloatArray,
    bhattacharyya_angle,
    exp,
    fisher_rao_distance,
    fisher_solve,
    frechet_mean,
    frechet_variance,
    geodesic,
    log,
    natural_gradient,
    normalise,
    parallel_transport,
    tangent_pca,
)
from tests.geometry.strategies import near_pairs, simplex_points

SIZE = 6


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


@given(near_pairs())
def test_near_points_have_the_distance_of_exact_arithmetic(pair: tuple[FloatArray, FloatArray]) -> None:
    p, q = pair
    with mpmath.workdps(40):
        a, b = ([mpmath.mpf(float(x)) for x in each] for each in (p, q))
        overlap = mpmath.fsum(mpmath.sqrt(x * y) for x, y in zip(a, b, strict=True))
        exact = float(2 * mpmath.acos(min(mpmath.mpf(1), overlap / mpmath.sqrt(mpmath.fsum(a) * mpmath.fsum(b)))))
    assert float(fisher_rao_distance(p, q)) == pytest.approx(exact, rel=1e-6, abs=2e-15)


def test_the_two_ways_to_a_distance_meet_where_they_change() -> None:
    angles = np.linspace(0.1400, 0.1430, 301)  # cos 0.1415 = 0.99
    p, q = np.array([1.0, 0.0]), np.stack([np.cos(angles) ** 2, np.sin(angles) ** 2], axis=-1)
    np.testing.assert_allclose(fisher_rao_distance(p, q), 2.0 * angles, rtol=1e-13)


def test_large_batches_and_broadcasting_equal_single_pairs() -> None:
    rng = np.random.default_rng(5)
    p, q = rng.dirichlet(np.ones(8), (700, 3)), rng.dirichlet(np.ones(8), (1, 3))
    q[0, 1] = p[3, 1]
    whole = fisher_rao_distance(p, q)
    assert whole.shape == (700, 3)
    assert whole[3, 1] == 0.0
    for i in [(0, 0), (3, 1), (511, 2), (699, 0)]:
        assert whole[i] == pytest.approx(float(fisher_rao_distance(p[i], q[0, i[1]])), abs=4e-15)
    assert fisher_rao_distance(np.empty((0, 8)), q[0, 0]).shape == (0,)


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
        assert batched[i] == pytest.approx(float(fisher_rao_distance(p[i], q[i])), abs=4e-15)
        np.testing.assert_allclose(log(p, q)[i], log(p[i], q[i]), rtol=0, atol=4e-15)
        np.testing.assert_allclose(geodesic(p, q, 0.3)[i], geodesic(p[i], q[i], 0.3), rtol=0, atol=4e-15)


def test_input_within_the_tolerance_is_renormalised() -> None:
    p = np.array([0.3, 0.7])
    assert fisher_rao_distance(p * (1 + 9e-7), p) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.51]], r"p\[1\] sums to 1.01, off by 0.01"),
        ([[0.5, 0.5], [-0.1, 1.1]], r"p\[1\] has a negative entry: -0.1"),
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
    with pytest.raises(SimplexError, match=r"weights have the shape \(1,\), the points \(2,\)"):
        frechet_mean([[0.5, 0.5], [0.4, 0.6]], weights=[1.0])
    with pytest.raises(QigError, match="did not reach"):
        frechet_mean([[0.5, 0.5], [0.1, 0.9]], tol=-1.0)


def test_a_batch_of_means_equals_a_loop() -> None:
    rng = np.random.default_rng(2)
    points, weights = rng.dirichlet(np.ones(8), (2, 3, 20)), rng.random((2, 3, 20))
    means, spread = frechet_mean(points, weights), frechet_variance(points, weights)
    assert means.shape == (2, 3, 8)
    assert spread.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(means[i], frechet_mean(points[i], weights[i]), atol=1e-14)
        assert spread[i] == pytest.approx(float(frechet_variance(points[i], weights[i])), rel=1e-12)


def test_the_variance_is_least_about_the_mean_and_known_for_two_points() -> None:
    p, q = np.array([0.1, 0.2, 0.7]), np.array([0.6, 0.4, 0.0])
    d = float(fisher_rao_distance(p, q))
    assert frechet_variance([p, q]) == pytest.approx(d**2 / 4, rel=1e-12)
    assert frechet_variance([p, q], mean=normalise(p)) == pytest.approx(d**2 / 2, rel=1e-12)


@given(simplex_points(), simplex_points(), simplex_points())
def test_transport_keeps_inner_products_and_turns_the_geodesic_into_itself(
    p: FloatArray, q: FloatArray, r: FloatArray
) -> None:
    v, along = log(p, r), log(p, q)
    carried, moved = parallel_transport(p, q, v), parallel_transport(p, q, along)
    assert carried @ np.sqrt(q) == pytest.approx(0.0, abs=1e-12)
    assert carried @ moved == pytest.approx(float(v @ along), abs=1e-11)
    assert np.linalg.norm(carried) == pytest.approx(float(np.linalg.norm(v)), abs=1e-11)
    np.testing.assert_allclose(moved, -log(q, p), atol=1e-11)
    np.testing.assert_allclose(parallel_transport(q, p, carried), v, atol=1e-11)


def test_transport_of_what_is_no_tangent_is_refused() -> None:
    with pytest.raises(SimplexError, match="not a tangent"):
        parallel_transport([0.5, 0.5], [0.1, 0.9], [1.0, 1.0])


def test_the_natural_gradient_is_the_slope_along_every_tangent_divided_by_the_metric() -> None:
    rng = np.random.default_rng(3)
    p, slope = rng.dirichlet(np.ones(SIZE)), rng.normal(size=SIZE)
    step = natural_gradient(p, slope)
    assert step.sum() == pytest.approx(0.0, abs=1e-15)
    tangent = rng.normal(size=SIZE)
    tangent -= tangent.mean()
    assert np.sum(step * tangent / p) == pytest.approx(float(slope @ tangent), rel=1e-12)
    np.testing.assert_allclose(natural_gradient(p, slope + 7.0), step, atol=1e-13)
    np.testing.assert_allclose(fisher_solve(p, step), slope - slope.mean(), atol=1e-12)


def test_a_step_along_the_natural_gradient_follows_the_flow_of_softmax() -> None:
    p, slope, rate = np.array([0.2, 0.3, 0.5]), np.array([1.0, -0.5, 0.25]), 1e-6
    stepped = exp(p, -rate * natural_gradient(p, slope) / np.sqrt(p))
    flow = p * np.exp(-rate * slope)
    np.testing.assert_allclose(stepped, flow / flow.sum(), atol=1e-12)


@given(arrays(np.float64, SIZE, elements=st.floats(1e-3, 1.0)), arrays(np.float64, SIZE, elements=st.floats(-1.0, 1.0)))
def test_the_undamped_solve_is_the_solution_of_least_norm(raw: FloatArray, v: FloatArray) -> None:
    p, v = normalise(raw), v - v.mean()
    assume(np.abs(v).sum() > 1e-6)  # less is rounding, and its sum too
    fisher = np.diag(p) - np.outer(p, p)
    x = fisher_solve(p, v)
    np.testing.assert_allclose(fisher @ x, v, atol=1e-12)
    assert x.sum() == pytest.approx(0.0, abs=1e-10 * np.abs(x).sum())  # nothing along the kernel, so of least norm


@given(simplex_points(), arrays(np.float64, SIZE, elements=st.floats(-1.0, 1.0)), st.floats(1e-6, 10.0))
def test_the_damped_solve_equals_the_dense_one(p: FloatArray, v: FloatArray, damping: float) -> None:
    dense = np.diag(p + damping) - np.outer(p, p)
    expected = np.linalg.solve(dense, v)
    atol = 1e-12 * max(1.0, np.abs(expected).max())  # a zero beside a large entry is as wrong as that one's last digits
    np.testing.assert_allclose(fisher_solve(p, v, damping), expected, rtol=1e-8, atol=atol)


def test_a_solve_with_zeros_stays_on_the_support() -> None:
    p, v = np.array([0.5, 0.0, 0.3, 0.2]), np.array([0.1, 0.0, 0.2, -0.3])
    x = fisher_solve(p, v)
    fisher = np.diag(p) - np.outer(p, p)
    np.testing.assert_allclose(x, np.linalg.pinv(fisher, hermitian=True) @ v, atol=1e-12)
    assert x[1] == 0.0


def test_a_batch_of_solves_equals_a_loop() -> None:
    rng = np.random.default_rng(4)
    p, v = rng.dirichlet(np.ones(5), (2, 3)), rng.normal(size=(2, 3, 5))
    v -= v.mean(axis=-1, keepdims=True)
    for damping in (0.0, 0.1):
        x = fisher_solve(p, v, damping)
        for i in np.ndindex(2, 3):
            np.testing.assert_allclose(x[i], fisher_solve(p[i], v[i], damping), atol=1e-14)


def test_a_solve_without_a_solution_is_refused_with_the_reason() -> None:
    with pytest.raises(SimplexError, match=r"v\[1\] sums to 1: without damping"):
        fisher_solve([[0.5, 0.5], [0.5, 0.5]], [[1.0, -1.0], [1.0, 0.0]])
    with pytest.raises(SimplexError, match="is not 0 where p is 0"):
        fisher_solve([1.0, 0.0], [1.0, -1.0])
    with pytest.raises(SimplexError, match="damping is -1"):
        fisher_solve([0.5, 0.5], [1.0, -1.0], -1.0)
    with pytest.raises(SimplexError, match="not finite"):
        fisher_solve([0.5, 0.5], [math.nan, -1.0], 0.1)
    with pytest.raises(SimplexError, match="not finite"):
        natural_gradient([0.5, 0.5], [math.inf, 1.0])


def test_the_first_component_is_the_geodesic_on_which_the_points_lie() -> None:
    p, q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.2, 0.2, 0.1])
    points = geodesic(p, q, np.linspace(0.0, 1.0, 9))
    found = tangent_pca(points)
    d = float(fisher_rao_distance(p, q))
    np.testing.assert_allclose(found.base, geodesic(p, q, 0.5), atol=1e-12)
    assert found.variance[0] == pytest.approx(d**2 * np.var(np.linspace(0.0, 1.0, 9)), rel=1e-10)
    assert found.share[0] == pytest.approx(1.0, abs=1e-12)
    assert abs(found.components[0] @ log(found.base, q)) == pytest.approx(d / 2, rel=1e-10)
    np.testing.assert_allclose(np.abs(np.diff(found.scores[:, 0])), d / 8, rtol=1e-9)


def test_all_components_together_carry_the_variance_of_the_points() -> None:
    points = np.random.default_rng(6).dirichlet(np.ones(5), 40)
    found = tangent_pca(points)
    assert found.components.shape == (4, 5)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(found.components @ np.sqrt(found.base), 0.0, atol=1e-12)
    assert found.variance.sum() == pytest.approx(float(frechet_variance(points)), rel=1e-10)
    assert found.share.sum() == pytest.approx(1.0)
    elsewhere = tangent_pca(points, base=points[0])
    np.testing.assert_array_equal(elsewhere.base, points[0])
    np.testing.assert_allclose(elsewhere.scores.mean(axis=0), 0.0, atol=1e-12)


def test_components_of_one_point_are_refused_and_of_equal_points_are_zero() -> None:
    with pytest.raises(SimplexError, match="N ≥ 2"):
        tangent_pca([[0.5, 0.5]])
    assert tangent_pca([[0.5, 0.5], [0.5, 0.5]]).share.tolist() == [0.0]
    with pytest.raises(SimplexError, match="base must be"):
        tangent_pca([[0.5, 0.5], [0.5, 0.5]], base=[[0.5, 0.5]])


def test_components_without_variance_are_tangent_too() -> None:
    found = tangent_pca(geodesic([0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.2, 0.1], np.linspace(0.0, 1.0, 9)))
    assert found.variance[1:].max() < 1e-28
    np.testing.assert_allclose(found.components @ np.sqrt(found.base), 0.0, atol=1e-14)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(3), atol=1e-14)


def test_arguments_that_do_not_go_together_are_refused_in_words() -> None:
    half = [0.5, 0.5]
    with pytest.raises(SimplexError, match="do not broadcast"):
        fisher_rao_distance([half] * 2, [half] * 3)
    with pytest.raises(SimplexError, match="p is complex"):
        fisher_rao_distance([0.5 + 0j, 0.5], half)
    with pytest.raises(SimplexError, match="last axes must be equal"):
        natural_gradient(half, 1.0)
    with pytest.raises(SimplexError, match="v holds a value that is not finite"):
        exp(half, [math.inf, -math.inf])
    with pytest.raises(SimplexError, match="not a tangent"):
        exp(half, [1e-9, 1e-9])
    with pytest.raises(SimplexError, match="start must be"):
        frechet_mean([half], start=normalise([1.0, 1.0, 1.0]))
    with pytest.raises(SimplexError, match="weights sums to 0"):
        frechet_mean([half], weights=[0.0])
    with pytest.raises(SimplexError, match="damping is inf"):
        fisher_solve(half, [1.0, -1.0], math.inf)
