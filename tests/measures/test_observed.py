"""Measures of recorded data against closed forms, a general optimiser, and systems whose coupling is known."""

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import block_diag, solve_discrete_lyapunov
from scipy.optimize import minimize

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.covariance import stochastic_interaction, total_correlation
from qig_core.measures.disconnection import cut_nats
from qig_core.measures.observed import ObservedPhi, phi_observed

PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]


def covariance(rng: np.random.Generator, dim: int) -> FloatArray:
    root = rng.standard_normal((dim, dim + 2))
    return np.asarray(root @ root.T / (dim + 2))


def recorded(
    a: FloatArray, num: int, rng: np.random.Generator, noise: FloatArray | None = None, push: FloatArray | None = None
) -> FloatArray:
    """[num, d] of x_t+1 = A x_t + push_t + e, from rest."""
    dim = len(a)
    x = rng.standard_normal((num, dim)) @ np.linalg.cholesky(np.eye(dim) if noise is None else noise).T
    if push is not None:
        x[1:] += push[:-1]
    for step in range(1, num):
        x[step] += a @ x[step - 1]
    return x


def half_logdet(cov: FloatArray) -> float:
    return 0.5 * float(np.linalg.slogdet(cov)[1])


# total correlation


@pytest.mark.parametrize(("dim", "rho"), [(2, 0.5), (5, -0.2), (64, 0.9), (3, 1e-6)])
def test_total_correlation_of_equicorrelated_units_has_a_closed_form(dim: int, rho: float) -> None:
    cov = np.full((dim, dim), rho) + (1.0 - rho) * np.eye(dim)
    nats = -0.5 * ((dim - 1) * math.log1p(-rho) + math.log1p((dim - 1) * rho))
    assert total_correlation(cov) == pytest.approx(nats, rel=1e-12, abs=1e-15)


def test_blocks_share_nothing() -> None:
    rng = np.random.default_rng(0)
    cov = block_diag(covariance(rng, 3), covariance(rng, 1), covariance(rng, 4))
    assert total_correlation(cov, [[0, 1, 2], [3], [4, 5, 6, 7]]) == pytest.approx(0.0, abs=1e-14)
    assert total_correlation(np.diag([1e-20, 1.0, 1e20])) == 0.0


@pytest.mark.parametrize("parts", [None, [[4, 0], [1, 2, 5], [3]]])
def test_total_correlation_does_not_see_the_scale_of_a_unit(parts: list[list[int]] | None) -> None:
    cov, scale = covariance(np.random.default_rng(1), 6), np.array([1e-60, 1e-3, 1.0, 1e9, 1e60, 7.0])
    assert total_correlation(cov * scale * scale[:, None], parts) == pytest.approx(
        total_correlation(cov, parts), rel=1e-12
    )


def test_what_parts_share_and_what_is_shared_inside_add_up() -> None:
    cov, parts = covariance(np.random.default_rng(2), 7), [[6, 1], [0, 3, 5], [2, 4]]
    inside = sum(total_correlation(cov[np.ix_(part, part)]) for part in parts)
    assert total_correlation(cov, parts) + inside == pytest.approx(total_correlation(cov), rel=1e-12)


@pytest.mark.parametrize("dim", [63, 64, 65, 200])
def test_total_correlation_equals_the_formula_at_any_size_and_memory_order(dim: int) -> None:
    cov = covariance(np.random.default_rng(dim), dim)
    nats = 0.5 * float(np.log(cov.diagonal()).sum()) - half_logdet(cov)
    wide = np.zeros((2 * dim, 2 * dim))
    wide[::2, ::2] = cov
    for each in (cov, np.asfortranarray(cov), wide[::2, ::2]):
        assert total_correlation(each) == pytest.approx(nats, rel=1e-11)


@pytest.mark.parametrize(
    ("cov", "what"),
    [
        (np.ones((2, 3)), r"\[d, d\]"),
        ([[1.0, math.nan], [math.nan, 1.0]], "not finite"),
        ([[math.inf, 0.0], [0.0, 1.0]], "not finite"),
        ([[1.0, 0.5], [0.4, 1.0]], r"not symmetric: \[0, 1\] is 0.5, \[1, 0\] is 0.4"),
        ([[1e-20, 5e-11], [4e-11, 1.0]], "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "not positive definite: the least eigenvalue of its correlations is -1"),
        ([[1.0, 1.0], [1.0, 1.0]], "not positive definite"),
        ([[1.0, 0.0], [0.0, 0.0]], "not positive definite: unit 1 has 0"),
    ],
)
def test_what_is_no_covariance_raises(cov: list[list[float]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        total_correlation(cov)


def test_rounding_does_not_make_a_covariance_asymmetric() -> None:
    cov = covariance(np.random.default_rng(3), 5)
    cov[0, 1] *= 1.0 + 1e-14
    assert total_correlation(cov) > 0.0


@pytest.mark.parametrize("parts", [[], [[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [[0], [1], [2], [3]]])
def test_parts_that_do_not_partition_the_units_raise(parts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="parts"):
        total_correlation(np.eye(3), parts)
    with pytest.raises(ValueError, match="parts"):
        stochastic_interaction(np.eye(3), np.zeros((3, 3)), parts)
    with pytest.raises(ValueError, match="parts"):
        phi_observed(np.random.default_rng(0).standard_normal((100, 3)), parts)


# stochastic interaction


def one_way(a: float, b: float, d: float) -> tuple[FloatArray, FloatArray]:
    """(A, stationary covariance) of x' = a x + b y + e, y' = d y + f, e and f white."""
    y = 1.0 / (1.0 - d * d)
    xy = b * d * y / (1.0 - a * d)
    x = (1.0 + 2.0 * a * b * xy + b * b * y) / (1.0 - a * a)
    return np.array([[a, b], [0.0, d]]), np.array([[x, xy], [xy, y]])


@pytest.mark.parametrize(("a", "b", "d"), [(0.5, 0.4, 0.3), (-0.2, 2.0, 0.9), (0.0, 1e-3, 0.0)])
def test_stochastic_interaction_of_two_nodes_has_a_closed_form(a: float, b: float, d: float) -> None:
    maps, cov = one_way(a, b, d)
    alone = cov[0, 0] - (maps[0] @ cov[:, 0]) ** 2 / cov[0, 0]
    assert stochastic_interaction(cov, maps @ cov, [[0], [1]]) == pytest.approx(0.5 * math.log(alone), abs=1e-14)


def test_without_memory_stochastic_interaction_is_the_total_correlation() -> None:
    cov, parts = covariance(np.random.default_rng(4), 6), [[5, 0], [1, 2, 3], [4]]
    assert stochastic_interaction(cov, np.zeros((6, 6)), parts) == pytest.approx(total_correlation(cov, parts))


def test_parts_that_run_alone_do_not_interact() -> None:
    rng = np.random.default_rng(5)
    maps, noise = 0.3 * block_diag(*rng.standard_normal((2, 2, 2))), block_diag(covariance(rng, 2), covariance(rng, 2))
    cov = solve_discrete_lyapunov(maps, noise)
    cov = 0.5 * (cov + cov.T)
    assert stochastic_interaction(cov, maps @ cov, [[0, 1], [2, 3]]) == pytest.approx(0.0, abs=1e-13)


@pytest.mark.parametrize(
    ("lagged", "what"),
    [
        (np.zeros((2, 3)), r"\[d, d\]"),
        (np.full((2, 2), math.nan), "not finite"),
        (np.array([[0.0, 1.5], [0.0, 0.0]]), "too large to belong"),
    ],
)
def test_a_lagged_covariance_that_cannot_be_raises(lagged: FloatArray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        stochastic_interaction(np.eye(2), lagged, [[0], [1]])


# Φ_G of one cut


def by_descent(a: FloatArray, noise: FloatArray, state: FloatArray, k: int, rng: np.random.Generator) -> float:
    """The definition, minimised by BFGS over all of A' from 20 starts; units 0 .. k−1 are one side."""
    inside = block_diag(np.ones((k, k)), np.ones((len(a) - k, len(a) - k))) > 0

    def objective(kept: FloatArray) -> tuple[float, FloatArray]:
        gap = a.copy()
        gap[inside] -= kept
        fitted = noise + gap @ state @ gap.T
        return half_logdet(fitted) - half_logdet(noise), -np.linalg.solve(fitted, gap @ state)[inside]

    found = []
    for start in range(20):
        jump = 0.0 if start == 0 else rng.choice([0.3, 1.0, 3.0]) * rng.standard_normal(int(inside.sum()))
        result = minimize(objective, a[inside] + jump, jac=True, method="BFGS", options={"gtol": 1e-8})
        found.append(float(result.fun))
    return min(found)


@pytest.mark.parametrize("seed", range(30))
def test_a_cut_reaches_the_minimum_that_a_general_optimiser_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(2, 7))
    k = int(rng.integers(1, dim))
    a = [0.2, 1.0, 3.0][seed % 3] * rng.standard_normal((dim, dim)) / math.sqrt(dim)
    noise, state = covariance(rng, dim), covariance(rng, dim)
    nats = cut_nats(a, noise, state, range(k))
    # A lower one than 20 starts find is no fault.
    assert nats <= by_descent(a, noise, state, k, rng) + 1e-8
    assert 0.0 <= nats <= half_logdet(noise + a @ state @ a.T) - half_logdet(noise) + 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_white_noise_and_state_have_a_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(2, 9))
    k = int(rng.integers(1, dim // 2 + 1))
    a = rng.uniform(0.1, 3.0) * rng.standard_normal((dim, dim))
    b, c = (np.linalg.svd(block, compute_uv=False) for block in (a[:k, k:], a[k:, :k]))
    nats = np.where(b * c > 1.0, np.log(b + c), 0.5 * np.log((1.0 + b**2) * (1.0 + c**2))).sum()
    assert cut_nats(a, np.eye(dim), np.eye(dim), range(k)) == pytest.approx(float(nats), abs=1e-9)


@pytest.mark.parametrize(("a", "b", "d"), [(0.5, 0.4, 0.3), (-0.2, 2.0, 0.9), (0.9, 10.0, 0.5)])
def test_one_way_coupling_of_two_nodes_has_a_closed_form(a: float, b: float, d: float) -> None:
    maps, cov = one_way(a, b, d)
    left = cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]
    assert cut_nats(maps, np.eye(2), cov, [0]) == pytest.approx(0.5 * math.log1p(b * b * left), abs=1e-12)


@pytest.mark.parametrize("strength", [0.2, 1.0, 2.0])
def test_a_cut_does_not_see_linear_maps_within_its_sides(strength: float) -> None:
    rng = np.random.default_rng(6)
    a, noise, state = strength * rng.standard_normal((6, 6)), covariance(rng, 6), covariance(rng, 6)
    out, into = (block_diag(rng.standard_normal((2, 2)), rng.standard_normal((4, 4))) for _ in range(2))
    back = np.linalg.inv(into)
    before = cut_nats(a, noise, state, [0, 1])
    new_noise, new_state = out @ noise @ out.T, into @ state @ into.T
    after = cut_nats(out @ a @ back, 0.5 * (new_noise + new_noise.T), 0.5 * (new_state + new_state.T), [0, 1])
    assert after == pytest.approx(before, abs=1e-8)
    assert cut_nats(a, noise, state, [2, 3, 4, 5]) == before


def test_a_cut_that_nothing_crosses_costs_exactly_nothing() -> None:
    rng = np.random.default_rng(7)
    a = block_diag(rng.standard_normal((2, 2)), rng.standard_normal((3, 3)))
    assert cut_nats(a, covariance(rng, 5), covariance(rng, 5), [0, 1]) == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_costs_no_more_than_stochastic_interaction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, noise = rng.standard_normal((6, 6)), covariance(rng, 6)
    a *= rng.uniform(0.2, 0.95) / np.abs(np.linalg.eigvals(a)).max()
    state = solve_discrete_lyapunov(a, noise)
    state = 0.5 * (state + state.T)
    assert cut_nats(a, noise, state, [0, 3]) <= stochastic_interaction(state, a @ state, [[0, 3], [1, 2, 4, 5]])


def test_a_cut_of_what_is_broken_raises() -> None:
    eye = np.eye(3)
    for side in ([], [0, 1, 2], [0, 0], [3]):
        with pytest.raises(ValueError, match="parts"):
            cut_nats(eye, eye, eye, side)
    with pytest.raises(ValueError, match="must be"):
        cut_nats(eye, np.eye(2), eye, [0])
    with pytest.raises(ValueError, match="not finite"):
        cut_nats(np.full((3, 3), math.nan), eye, eye, [0])
    with pytest.raises(ValueError, match="state_cov is not positive definite"):
        cut_nats(eye, eye, -eye, [0])
    with pytest.raises(ValueError, match="of the noise"):
        cut_nats(1e9 * np.ones((3, 3)), eye, eye, [0])


@pytest.mark.parametrize("strength", [1e2, 1e4, 1e6])
def test_a_strong_one_way_cut_keeps_its_closed_form(strength: float) -> None:
    a = np.zeros((5, 5))
    a[:2, 2:] = strength * np.array([[0.5, 0.0, 0.0], [0.0, 0.3, 0.0]])
    nats = 0.5 * math.log1p((0.5 * strength) ** 2) + 0.5 * math.log1p((0.3 * strength) ** 2)
    assert cut_nats(a, np.eye(5), np.eye(5), [0, 1]) == pytest.approx(nats, rel=1e-9)


# phi_observed


def ring(coupling: float) -> FloatArray:
    """[8, 8]: each pair drives the next one."""
    pair = np.array([[0.5, 0.2], [-0.3, 0.4]])
    return np.asarray(np.kron(np.eye(4), pair) + coupling * np.kron(np.roll(np.eye(4), 1, axis=0), np.eye(2)))


def number(x: float | None) -> float:
    assert x is not None
    return x


def test_a_long_recording_reaches_the_closed_form() -> None:
    maps, cov = one_way(0.5, 0.4, 0.3)
    x = recorded(maps, 40_000, np.random.default_rng(8))
    left = cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]
    found = phi_observed(x, [[0], [1]], num_surrogates=19)
    # Its standard error: of half a log-likelihood ratio, sqrt(2 · nats / T).
    truth = 0.5 * math.log1p(0.16 * left)
    assert found.value == pytest.approx(truth, abs=4.0 * math.sqrt(2.0 * truth / 40_000))
    assert (found.dim, found.cut, found.num_samples, found.num_surrogates) == (1, (1,), 40_000, 19)


@pytest.mark.parametrize("with_inputs", [False, True])
def test_the_fit_is_least_squares_and_the_cut_the_least_of_all(with_inputs: bool) -> None:
    rng = np.random.default_rng(9)
    u = rng.standard_normal((300, 2))
    x = 5.0 + recorded(ring(0.2), 300, rng, covariance(rng, 8), u @ rng.standard_normal((2, 8)))
    parts = [[7, 0], [1, 2, 3], [4], [5, 6]]
    found = phi_observed(x, parts, u if with_inputs else None, num_surrogates=5)

    known = np.column_stack([np.ones(299), u[:-1]] if with_inputs else [np.ones(299)])
    weights = np.linalg.lstsq(np.column_stack([x[:-1], known]), x[1:], rcond=None)[0]
    left = x[1:] - np.column_stack([x[:-1], known]) @ weights
    free = x[:-1] - known @ np.linalg.lstsq(known, x[:-1], rcond=None)[0]
    a, noise, state = weights[:8].T, left.T @ left / 299, free.T @ free / 299
    costs = {}
    for count in (1, 2, 3):
        for side in combinations((1, 2, 3), count):
            units = [unit for part in side for unit in parts[part]]
            costs[side] = cut_nats(a, noise, state, units), min(len(units), 8 - len(units))
    best = min(costs, key=lambda side: costs[side][0] / costs[side][1])
    assert found.cut == best
    assert (found.nats, found.dim) == pytest.approx(costs[best], rel=1e-9)
    flow = half_logdet(noise + a @ state @ a.T) - half_logdet(noise)
    assert found.share == pytest.approx(costs[best][0] / flow, rel=1e-9)


def test_coupled_parts_are_seen() -> None:
    found = phi_observed(recorded(ring(0.25), 600, np.random.default_rng(10)), PAIRS)
    assert found.p_value == 1 / 200
    assert number(found.value) > 4.0 * number(found.std_nats)
    assert number(found.value) == number(found.nats) - number(found.bias_nats)
    assert found.reason is None


def test_independent_parts_are_not_seen_though_their_noise_is_correlated() -> None:
    results = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = recorded(ring(0.0), 250, rng, covariance(rng, 8))
        results.append(phi_observed(x, PAIRS, num_surrogates=39, seed=seed))
    scores = np.array([number(each.value) / number(each.std_nats) for each in results])
    p = np.array([number(each.p_value) for each in results])
    assert abs(scores.mean()) < 3.0 / math.sqrt(40)
    assert np.abs(scores).max() < 5.0
    # More than 6 of 40 at 5 % happen once in a hundred times, a mean of uniform numbers out there once in a thousand.
    assert np.count_nonzero(p <= 0.05) <= 6
    assert abs(p.mean() - 0.5) < 3.3 * math.sqrt(1 / 12 / 40)
    assert min(number(each.nats) for each in results) > 0.0


def test_a_common_input_looks_like_a_connection_until_it_is_given() -> None:
    rng = np.random.default_rng(11)
    u = recorded(np.array([[0.8]]), 600, rng)
    x = recorded(ring(0.0), 600, rng, None, u @ rng.uniform(0.5, 1.0, (1, 8)))
    hidden, given = phi_observed(x, PAIRS), phi_observed(x, PAIRS, u)
    assert hidden.p_value == 1 / 200
    assert number(hidden.value) > 4.0 * number(hidden.std_nats)
    assert 0.05 < number(hidden.share) < 0.3
    assert number(given.p_value) > 0.05
    assert abs(number(given.value)) < 3.0 * number(given.std_nats)


def test_inputs_that_say_nothing_new_change_nothing() -> None:
    rng = np.random.default_rng(12)
    u = rng.standard_normal((300, 1))
    x = recorded(ring(0.1), 300, rng, None, u @ np.ones((1, 8)))
    padded = np.column_stack([u, np.full(300, 3.0), 2.0 * u - 1.0, np.zeros(300)])
    few, many = (phi_observed(x, PAIRS, each, num_surrogates=19) for each in (u, padded))
    assert asdict(many) == pytest.approx(asdict(few), rel=1e-8)


def test_the_order_of_parts_and_of_their_units_does_not_matter() -> None:
    x = recorded(ring(0.1), 300, np.random.default_rng(13))
    parts = [[0, 1], [2, 3, 4], [5], [6, 7]]
    turned = [parts[i][::-1] for i in (2, 0, 3, 1)]
    one, other = phi_observed(x, parts), phi_observed(x, turned)

    def units(found: ObservedPhi, of: list[list[int]]) -> set[frozenset[int]]:
        assert found.cut is not None
        side = frozenset(unit for part in found.cut for unit in of[part])
        return {side, frozenset(range(8)) - side}

    assert units(one, parts) == units(other, turned)
    for name in ("value", "nats", "bias_nats", "std_nats", "p_value", "share", "dim"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6)


def test_linear_maps_inside_a_part_do_not_matter() -> None:
    rng = np.random.default_rng(14)
    x = recorded(ring(0.1), 300, rng)
    mixed = x @ block_diag(*(scale * rng.standard_normal((2, 2)) for scale in (1e-170, 1e-6, 1.0, 1e170)))
    mixed += [0.0, 0.0, 5.0, -3.0, 1e6, 0.0, 0.0, 1e170]
    one, other = phi_observed(x, PAIRS), phi_observed(mixed, PAIRS)
    assert other.cut == one.cut
    for name in ("value", "nats", "bias_nats", "std_nats", "p_value", "share"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-5)


def test_a_seed_gives_the_same_numbers_again() -> None:
    x = recorded(ring(0.0), 300, np.random.default_rng(15))
    assert phi_observed(x, PAIRS, seed=3) == phi_observed(x, PAIRS, seed=3)
    assert phi_observed(x, PAIRS, seed=3).bias_nats != phi_observed(x, PAIRS, seed=4).bias_nats


def empty(found: ObservedPhi) -> bool:
    facts = asdict(found)
    return all(facts[name] is None for name in facts.keys() - {"num_samples", "reason"})


def test_too_few_samples_give_no_number() -> None:
    rng = np.random.default_rng(16)
    x, u = recorded(ring(0.0), 160, rng), rng.standard_normal((160, 8))
    found = phi_observed(x[:120], PAIRS, u[:120])
    assert found.reason == "too few samples: 120 for 16 dimensions, 160 are needed"
    assert empty(found)
    assert phi_observed(x, PAIRS, u, num_surrogates=9).value is not None
    assert phi_observed(x[:80], PAIRS, num_surrogates=9).value is not None


def constant(x: FloatArray) -> None:
    x[:, 3] = 1e6


def twice(x: FloatArray) -> None:
    x[:, 3] = x[:, 0] - 2.0 * x[:, 6]


def copied(x: FloatArray) -> None:
    x[:, 6] = x[:, 3]


def foretold(x: FloatArray) -> None:
    x[1:, 3] = x[:-1, 0] + x[:-1, 1]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (constant, "unit 3 is constant"),
        (twice, "unit 6 follows from the inputs and the units before it"),
        (copied, "unit 6 follows from the inputs and the units before it"),
        (foretold, "unit 3 follows from the past"),
    ],
)
def test_units_without_a_life_of_their_own_give_no_number(spoil: Callable[[FloatArray], None], what: str) -> None:
    x = recorded(ring(0.0), 200, np.random.default_rng(17))
    spoil(x)
    found = phi_observed(x, PAIRS)
    assert found.reason is not None
    assert what in found.reason
    assert empty(found)


@pytest.mark.parametrize(("radius", "fits"), [(1.02, False), (1.0, False), (0.8, True)])
def test_a_part_that_drifts_has_a_raw_value_only(radius: float, fits: bool) -> None:
    x = recorded(np.diag([0.5, 0.5, radius, 0.5]), 300, np.random.default_rng(18))
    found = phi_observed(x, [[0, 1], [2, 3]], num_surrogates=19)
    assert number(found.nats) > 0.0
    assert (found.reason is None) == fits
    if not fits:
        assert found.reason is not None
        assert found.reason.startswith(
            "part 1 alone is not stable or drifts too slowly for surrogates: spectral radius"
        )
        assert (found.value, found.p_value, found.bias_nats, found.std_nats, found.num_surrogates) == (None,) * 5


def test_a_unit_that_moves_once_has_no_surrogates() -> None:
    x = np.random.default_rng(19).standard_normal((200, 4))
    x[:, 2] = 0.0
    x[77, 2] = 1.0
    found = phi_observed(x, [[0, 1], [3], [2]])
    assert found.reason is not None
    assert "degenerate" in found.reason
    assert found.value is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_recording_raises(bad: float) -> None:
    x, u = np.random.default_rng(20).standard_normal((2, 200, 4))
    x[7, 2] = bad
    with pytest.raises(ValueError, match="trajectory holds a value that is not finite, in row 7"):
        phi_observed(x, [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="inputs holds a value that is not finite, in row 7"):
        phi_observed(u, [[0, 1], [2, 3]], x)


def test_shapes_that_do_not_fit_raise() -> None:
    x, parts = np.random.default_rng(21).standard_normal((200, 4)), [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="trajectory must be"):
        phi_observed(x[:, 0], parts)
    with pytest.raises(ValueError, match="inputs must be"):
        phi_observed(x, parts, x[1:])
    with pytest.raises(ValueError, match="surrogates"):
        phi_observed(x, parts, num_surrogates=1)
