"""phi against closed forms, a plain loop, and the invariances that its definition promises."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.integration import effective_information

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


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_two_units_have_a_closed_form(b: float, c: float) -> None:
    result = effective_information([[0.7, b], [c, -0.2]], [[0], [1]], EPS)
    nats = 0.5 * math.log1p((b / EPS) ** 2) + 0.5 * math.log1p((c / EPS) ** 2)
    assert result.nats == pytest.approx(nats, abs=1e-12)
    # Squared: at zero the root turns a rounding of 1e-16 in the determinant into 1e-8.
    assert result.score**2 == pytest.approx(-math.expm1(-2.0 * nats), abs=1e-12)
    assert result.dim == 1
    assert result.cut == (1,)


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


def test_a_map_that_is_not_square_or_a_noise_of_zero_raises() -> None:
    with pytest.raises(ValueError, match="must be"):
        effective_information(np.zeros((4, 3)), [[0], [1]])
    with pytest.raises(ValueError, match="noise"):
        effective_information(np.eye(2), [[0], [1]], 0.0)
