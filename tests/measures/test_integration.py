"""phi against closed forms, a plain loop, and the invariances that its definition promises."""

import math
import tracemalloc
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from qig_core.geometry.simplex import FloatArray
from qig_core.measures import integration
from qig_core.measures.integration import effective_information, geometric_integration

EPS = 0.1


def parts_of(dim: int, num_parts: int) -> list[list[int]]:
    size = dim // num_parts
    return [list(range(i * size, (i + 1) * size)) for i in range(num_parts)]


def by_the_book(maps: FloatArray, parts: list[list[int]], eps: float) -> tuple[float, float]:
    """(score, nats) of the definition, one cut and one slogdet at a time."""
    best = (math.inf, 0.0)
    for count in range(1, len(parts)):
        for side in combinations(range(1, len(parts)), count):
            s = [u for i in side for u in parts[i]]
            t = [u for i in range(len(parts)) if i not in side for u in parts[i]]
            nats = 0.0
            for a in maps:
                for rows, columns in ((s, t), (t, s)):
                    block = a[np.ix_(rows, columns)] / eps
                    nats += 0.5 * np.linalg.slogdet(np.eye(len(rows)) + block @ block.T)[1] / len(maps)
            best = min(best, (nats / min(len(s), len(t)), nats))
    return math.sqrt(1.0 - math.exp(-2.0 * best[0])), best[1]


def random_maps(seed: int, positions: int, dim: int) -> FloatArray:
    return 0.1 * np.random.default_rng(seed).standard_normal((positions, dim, dim))


@pytest.mark.parametrize(("dim", "num_parts"), [(8, 2), (12, 4), (16, 8), (15, 5)])
def test_phi_equals_the_definition_cut_by_cut(dim: int, num_parts: int) -> None:
    maps, parts = random_maps(dim, 3, dim), parts_of(dim, num_parts)
    result = effective_information(maps, parts, EPS)
    assert (result.score, result.nats) == pytest.approx(by_the_book(maps, parts, EPS), abs=1e-10)
    assert (result.num_parts, result.dim_state, result.noise) == (num_parts, dim, EPS)


def test_unequal_parts_are_cut_too() -> None:
    maps, parts = random_maps(1, 2, 10), [[0, 9], [1, 2, 3], [4], [5, 6, 7, 8]]
    result = effective_information(maps, parts, EPS)
    assert (result.score, result.nats) == pytest.approx(by_the_book(maps, parts, EPS), abs=1e-10)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_no_cut_that_the_bound_leaves_out_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, size=rng.integers(3, 7))
    dim = int(sizes.sum())
    parts = [part.tolist() for part in np.split(rng.permutation(dim), np.cumsum(sizes)[:-1])]
    # Entries of every order of magnitude, from a map nearly cut somewhere to one that is strong throughout.
    maps = rng.standard_normal((2, dim, dim)) * 10.0 ** rng.uniform(-3.0, 1.0, (dim, dim))
    score, nats = by_the_book(maps, parts, EPS)
    result = effective_information(maps, parts, EPS)
    assert result.score**2 == pytest.approx(score**2, abs=1e-12)
    assert result.nats == pytest.approx(nats, rel=1e-10, abs=1e-12)


def test_the_bound_leaves_out_most_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = []
    whole = integration._by_cholesky
    monkeypatch.setattr(integration, "_by_cholesky", lambda blocks: (evaluated.append(len(blocks)), whole(blocks))[1])
    effective_information(random_maps(0, 1, 36), parts_of(36, 12), EPS)
    assert 2 * (math.comb(12, 6) // 2) <= sum(evaluated) < 2 * 2047 / 2


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_threads_nor_the_size_of_a_chunk_change_a_bit(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    maps, parts = random_maps(9, 5, 16), parts_of(16, 8)
    before = effective_information(maps, parts, EPS)
    monkeypatch.setattr(integration, "_CHUNK", 1)
    after = effective_information(maps, parts, EPS, threads=threads)
    assert (after.cut, after.per_position_nats) == (before.cut, before.per_position_nats)


def test_the_blocks_of_all_cuts_are_never_held_at_once() -> None:
    maps, parts = random_maps(1, 1, 120), parts_of(120, 12)
    tracemalloc.start()
    effective_information(maps, parts, EPS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 462 * 60 * 60 * 8  # those of the even cuts


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_two_units_have_a_closed_form(b: float, c: float) -> None:
    result = effective_information([[0.7, b], [c, -0.2]], [[0], [1]], EPS)
    nats = 0.5 * math.log1p((b / EPS) ** 2) + 0.5 * math.log1p((c / EPS) ** 2)
    assert result.nats == pytest.approx(nats, abs=1e-12)
    # Squared: at zero the root turns a rounding of 1e-16 in the determinant into 1e-8.
    assert result.score**2 == pytest.approx(-math.expm1(-2.0 * nats), abs=1e-12)
    assert result.dim == 1
    assert result.cut == (1,)


@pytest.mark.parametrize("num_parts", [2, 5, 12])
def test_independent_parts_have_none(num_parts: int) -> None:
    rng = np.random.default_rng(num_parts)
    a = np.kron(np.eye(num_parts), np.ones((3, 3))) * rng.standard_normal((2, 3 * num_parts, 3 * num_parts))
    result = effective_information(a, parts_of(3 * num_parts, num_parts), EPS)
    assert (result.score, result.nats, result.share, result.spread_nats) == (0.0, 0.0, None, 0.0)


def test_a_ring_has_a_closed_form_that_grows_with_its_coupling() -> None:
    """Part i sends to part i + 1 by g times an orthogonal map: an arc is entered once and left once."""
    num_parts, size = 6, 2
    rng = np.random.default_rng(0)
    ring = np.zeros((num_parts * size, num_parts * size))
    for i in range(num_parts):
        j = (i + 1) % num_parts
        turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
        ring[j * size : (j + 1) * size, i * size : (i + 1) * size] = turn
    scores = []
    for g in np.linspace(0.01, 0.6, 12):
        result = effective_information(g * ring, parts_of(num_parts * size, num_parts), EPS)
        each = math.log1p((g / EPS) ** 2)  # both ways, a unit of the arc's ends
        assert result.nats == pytest.approx(size * each, rel=1e-10)
        assert result.score == pytest.approx(math.sqrt(-math.expm1(-2.0 * each / (num_parts // 2))), rel=1e-10)
        assert result.cut in {(1, 2, 3), (2, 3, 4), (3, 4, 5)}  # half of the ring
        assert result.share == pytest.approx(math.log(2.0 * g / EPS) / each if g > EPS else 1.0, rel=1e-8)
        scores.append(result.score)
    assert all(low < high for low, high in pairwise(scores))


@pytest.mark.parametrize("near", [3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_a_hidden_weak_cut_is_found(seed: int, near: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(8)
    group = np.isin(np.arange(8), order[:near])
    gain = np.kron(np.where(group[:, None] == group, 0.3, 0.01), np.ones((2, 2)))
    result = effective_information(gain * rng.standard_normal((3, 16, 16)), parts_of(16, 8), EPS)
    hidden = group if not group[0] else ~group
    assert result.cut == tuple(np.flatnonzero(hidden).tolist())
    assert result.dim == 2 * near


def test_one_way_coupling_of_a_pair_scores_its_correlation() -> None:
    b = 0.15
    result = effective_information([[0.0, b], [0.0, 0.0]], [[0], [1]], EPS)
    assert result.score == pytest.approx(b / math.hypot(b, EPS), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
@settings(max_examples=30)
def test_an_uncoupled_cut_gives_exactly_zero_whatever_the_unit_order(seed: int, order: list[int]) -> None:
    maps = 100.0 * random_maps(seed, 2, 8)
    maps[:, :4, 4:] = 0.0
    maps[:, 4:, :4] = 0.0
    shuffled = maps[:, order][:, :, order]
    where = {unit: place for place, unit in enumerate(order)}
    parts = [[where[u] for u in part] for part in parts_of(8, 4)]
    result = effective_information(shuffled, parts, EPS)
    assert result.score == 0.0
    assert result.nats == 0.0
    assert result.cut == (2, 3)


def test_one_coupled_position_is_enough_to_join_a_cut() -> None:
    maps = random_maps(3, 2, 8)
    maps[0, :4, 4:] = maps[0, 4:, :4] = 0.0
    result = effective_information(maps, parts_of(8, 2), EPS)
    assert result.per_position_nats[0] == 0.0
    assert result.per_position_nats[1] > 0.0
    assert result.nats == pytest.approx(result.per_position_nats[1] / 2)
    assert result.spread_nats == pytest.approx(np.std(result.per_position_nats, ddof=1))


@pytest.mark.parametrize("seed", range(3))
def test_phi_does_not_see_rotations_inside_a_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, parts = random_maps(seed, 2, 16), parts_of(16, 4)
    left, right = np.zeros((16, 16)), np.zeros((16, 16))
    for part in parts:
        left[np.ix_(part, part)] = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        right[np.ix_(part, part)] = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    before, after = (effective_information(m, parts, EPS) for m in (maps, left @ maps @ right))
    assert after.score == pytest.approx(before.score, abs=1e-12)
    assert after.cut == before.cut


def test_phi_grows_with_the_gain_of_what_crosses() -> None:
    a, parts = random_maps(5, 1, 16)[0], parts_of(16, 8)
    crossing = np.kron(1.0 - np.eye(8), np.ones((2, 2)))
    scores = [effective_information(np.where(crossing, g * a, a), parts, EPS).score for g in np.linspace(0, 2, 15)]
    assert scores[0] == 0.0
    assert all(low < high for low, high in pairwise(scores))


def test_phi_falls_with_the_noise() -> None:
    a, parts = random_maps(6, 1, 16), parts_of(16, 8)
    scores = [effective_information(a, parts, eps).score for eps in (0.02, 0.1, 0.5)]
    assert scores[0] > scores[1] > scores[2] > 0.0


def test_extreme_maps_keep_their_value() -> None:
    column = np.zeros((4, 4))
    column[:2, 2:] = 1e9 * np.outer([1.0, 2.0], [3.0, 1.0])
    result = effective_information(column, [[0, 1], [2, 3]], EPS)
    assert result.nats == pytest.approx(math.log(1e10 * math.sqrt(50.0)), rel=1e-12)
    assert effective_information(np.full((2, 2), 1e200), [[0], [1]], EPS).score <= 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_map_raises(bad: float) -> None:
    a = np.zeros((4, 4))
    a[0, 0] = bad
    with pytest.raises(ValueError, match="not finite"):
        effective_information(a, parts_of(4, 2))


@pytest.mark.parametrize("parts", [[[0, 1, 2, 3]], [[0, 1], [2]], [[0, 1], [1, 2, 3]], [[0, 1, 2, 3], []]])
def test_parts_that_do_not_partition_the_units_raise(parts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="parts"):
        effective_information(np.eye(4), parts)


def test_more_than_twelve_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="between 2 and 12"):
        effective_information(np.eye(13), parts_of(13, 13))


def test_a_map_that_is_not_square_or_a_noise_of_zero_raises() -> None:
    with pytest.raises(ValueError, match="must be"):
        effective_information(np.zeros((4, 3)), [[0], [1]])
    with pytest.raises(ValueError, match="noise"):
        effective_information(np.eye(2), [[0], [1]], 0.0)


def lost(free: FloatArray, blocks: tuple[FloatArray, FloatArray]) -> tuple[float, FloatArray]:
    """½ ln det(1 + R Rᵀ) and its gradient in `free`, the entries of R = (A − A')/ε that A' reaches."""
    b, c = blocks  # near from far, far from near
    k, m = b.shape
    r = np.block([[free[: k * k].reshape(k, k), b], [c, free[k * k :].reshape(m, m)]])
    gram = np.eye(k + m) + r @ r.T
    gradient = np.linalg.solve(gram, r)
    return 0.5 * float(np.linalg.slogdet(gram)[1]), np.concatenate([gradient[:k, :k].ravel(), gradient[k:, k:].ravel()])


def least_lost(blocks: tuple[FloatArray, FloatArray], rng: np.random.Generator, starts: int = 12) -> float:
    k, m = blocks[0].shape
    scales = rng.uniform(0.1, 5.0, starts)
    points = (scale * rng.standard_normal(k * k + m * m) for scale in scales)
    return min(float(minimize(lost, x, (blocks,), jac=True, options={"gtol": 1e-8}).fun) for x in points)


def random_cut(seed: int) -> tuple[FloatArray, int, tuple[FloatArray, FloatArray]]:
    """A map of 2 .. 6 units, weak to strong by turns, the number of units on one side, and the cross blocks over ε."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(2, 7))
    k = int(rng.integers(1, dim))
    a = EPS * (0.2, 1.0, 3.0)[seed % 3] * rng.standard_normal((dim, dim))
    return a, k, (a[:k, k:] / EPS, a[k:, :k] / EPS)


@pytest.mark.parametrize("seed", range(30))
def test_geometric_integration_is_what_minimisation_finds(seed: int) -> None:
    a, k, blocks = random_cut(seed)
    found = geometric_integration(a, range(k), EPS)
    assert found == pytest.approx(least_lost(blocks, np.random.default_rng(seed)), abs=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_geometric_integration_is_at_most_the_effective_information_and_equals_it_when_weak(seed: int) -> None:
    a, k, blocks = random_cut(seed)
    dim = len(a)
    result = effective_information(a, [range(k), range(k, dim)], EPS)
    found = geometric_integration(a, range(k), EPS)
    weak = math.prod(float(np.linalg.norm(block, 2)) for block in blocks) <= 1.0
    assert found <= result.nats + 1e-12
    assert (found == pytest.approx(result.nats, abs=1e-12)) is weak
    assert result.share == pytest.approx(found / result.nats, rel=1e-9)
    assert found == pytest.approx(geometric_integration(a, range(k, dim), EPS), rel=1e-12)


def test_both_regimes_are_among_the_random_cuts() -> None:
    products = [math.prod(float(np.linalg.norm(x, 2)) for x in random_cut(seed)[2]) for seed in range(30)]
    assert 8 <= sum(product > 1.0 for product in products) <= 22


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_geometric_integration_of_two_units_has_a_closed_form(b: float, c: float) -> None:
    x, y = abs(b) / EPS, abs(c) / EPS
    expected = math.log(x + y) if x * y > 1.0 else 0.5 * (math.log1p(x * x) + math.log1p(y * y))
    assert geometric_integration([[0.7, b], [c, -0.2]], [0], EPS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_the_map_without_its_crossing_is_a_saddle_under_strong_coupling(seed: int) -> None:
    a, k, blocks = random_cut(seed)
    here, gradient = lost(np.zeros(k * k + (len(a) - k) ** 2), blocks)
    assert np.abs(gradient).max() < 1e-12
    assert here == pytest.approx(effective_information(a, [range(k), range(k, len(a))], EPS).nats, rel=1e-9)
    assert here > geometric_integration(a, range(k), EPS) + 0.1
    # Of the 2 x 2 map [[x, b], [c, y]], det(1 + R Rᵀ) = 1 + x² + y² + b² + c² + (xy − bc)².
    (u, _, v), (p, _, q) = (np.linalg.svd(block) for block in blocks)
    near, far = 1e-2 * np.outer(u[:, 0], q[0]).ravel(), 1e-2 * np.outer(p[:, 0], v[0]).ravel()
    assert lost(np.concatenate([near, far]), blocks)[0] < here - 1e-6
    assert lost(np.concatenate([near, -far]), blocks)[0] > here + 1e-6


def test_geometric_integration_is_averaged_over_positions_and_zero_where_nothing_crosses() -> None:
    maps = random_maps(4, 2, 6)
    each = [geometric_integration(one, [0, 4], EPS) for one in maps]
    assert geometric_integration(maps, [4, 0], EPS) == pytest.approx(sum(each) / 2, rel=1e-12)
    assert geometric_integration(np.diag([3.0, 1.0, 2.0]), [1], EPS) == 0.0


def test_extreme_coupling_keeps_its_geometric_integration() -> None:
    assert geometric_integration([[0.0, 1e200], [1e200, 0.0]], [0], 1.0) == pytest.approx(math.log(2e200), rel=1e-12)
    assert effective_information([[0.0, 1e200], [1e200, 0.0]], [[0], [1]], 1.0).share == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize("cut", [[], [0, 1, 2], [0, 0], [3], [-1]])
def test_a_cut_that_is_none_is_refused(cut: list[int]) -> None:
    with pytest.raises(ValueError, match="cut"):
        geometric_integration(np.eye(3), cut)
