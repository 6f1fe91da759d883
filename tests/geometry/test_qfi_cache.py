"""The cache: the computed value or the remembered one, and never another state's."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.errors import DensityError, UsageError
from qig_core.geometry import qfi_cache
from qig_core.geometry.fisher import qfi_matrix
from qig_core.geometry.qfi_cache import CachedQFI
from tests.geometry.strategies import random_state, random_tangents


def test_a_hit_returns_what_was_computed() -> None:
    rng = np.random.default_rng(0)
    rho, drho = random_state(rng, 4), random_tangents(rng, 2, 4)
    cache = CachedQFI()
    first, second = cache(rho, drho), cache(rho.copy(), drho.copy())
    assert second is first
    np.testing.assert_array_equal(first.matrix, qfi_matrix(rho, drho).matrix)
    seen = cache.statistics
    assert (seen.hits, seen.misses, seen.evictions, seen.size) == (1, 1, 0, 1)
    assert seen.size_bytes >= rho.nbytes + drho.nbytes


def test_the_derivative_and_the_shape_belong_to_the_key() -> None:
    rng = np.random.default_rng(1)
    rho, drho = random_state(rng, 4), random_tangents(rng, 2, 4)
    cache = CachedQFI()
    for tangents in (drho, drho[:1], drho[::-1], -drho):
        np.testing.assert_array_equal(cache(rho, tangents).matrix, qfi_matrix(rho, tangents).matrix)
    assert cache.statistics.misses == 4


def test_changing_the_arguments_afterwards_changes_no_answer() -> None:
    rng = np.random.default_rng(2)
    rho, drho = random_state(rng, 3), random_tangents(rng, 1, 3)
    kept = rho.copy()
    cache = CachedQFI()
    before = cache(rho, drho).matrix.copy()
    rho[:] = random_state(rng, 3)
    np.testing.assert_array_equal(cache(rho, drho).matrix, qfi_matrix(rho, drho).matrix)
    np.testing.assert_array_equal(cache(kept, drho).matrix, before)
    with pytest.raises(ValueError, match="read-only"):
        cache(kept, drho).matrix[0, 0] = 7.0


def test_digests_that_collide_never_give_another_states_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qfi_cache, "_digest", lambda *arrays: b"always the same")
    rng = np.random.default_rng(3)
    cache = CachedQFI()
    pairs = [(random_state(rng, 3), random_tangents(rng, 1, 3)) for _ in range(3)]
    for rho, drho in pairs + pairs:
        np.testing.assert_array_equal(cache(rho, drho).matrix, qfi_matrix(rho, drho).matrix)
    assert cache.statistics.hits == 0
    assert cache.statistics.size == 1


def test_the_one_unused_for_longest_goes_first() -> None:
    rng = np.random.default_rng(4)
    drho = random_tangents(rng, 1, 2)
    a, b, c = (random_state(rng, 2) for _ in range(3))
    cache = CachedQFI(maxsize=2)
    for rho in (a, b, a, c):  # c pushes b out: a was used since
        cache(rho, drho)
    assert cache.statistics.evictions == 1
    cache(a, drho)
    assert cache.statistics.hits == 2
    cache(b, drho)
    assert cache.statistics.misses == 4


def test_bytes_are_bounded_too() -> None:
    rng = np.random.default_rng(5)
    drho = random_tangents(rng, 1, 8)
    cache = CachedQFI(max_bytes=5_000)  # two entries of 2 056 bytes
    for _ in range(6):
        cache(random_state(rng, 8), drho)
        assert cache.statistics.size_bytes <= 5_000
    assert cache.statistics.size == 2
    assert cache.statistics.evictions == 4


def test_invalidating_forgets_everything() -> None:
    rng = np.random.default_rng(6)
    rho, drho = random_state(rng, 2), random_tangents(rng, 1, 2)
    cache = CachedQFI()
    cache(rho, drho)
    cache.invalidate()
    assert (cache.statistics.size, cache.statistics.size_bytes) == (0, 0)
    cache(rho, drho)
    assert (cache.statistics.hits, cache.statistics.misses) == (0, 2)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-3, 1e-1]))
@settings(max_examples=40)
def test_with_a_tolerance_neighbours_share_the_value_of_the_state_that_is_evaluated(
    seed: int, tolerance: float
) -> None:
    rng = np.random.default_rng(seed)
    rho, drho = random_state(rng, 3), random_tangents(rng, 2, 3)
    cache = CachedQFI(tolerance=tolerance)
    found = cache(rho, drho)
    noise = 1e-3 * tolerance * random_tangents(rng, 1, 3)[0]
    near = cache(rho + noise, drho + noise)
    fresh = CachedQFI(tolerance=tolerance)(rho + noise, drho + noise)
    np.testing.assert_array_equal(near.matrix, fresh.matrix)
    if cache.statistics.hits:
        assert near is found


def test_a_tolerance_changes_the_value_by_as_much_as_it_changes_the_state() -> None:
    rng = np.random.default_rng(7)
    rho, drho = 0.5 * random_state(rng, 3) + np.eye(3) / 6, random_tangents(rng, 2, 3)
    exact = qfi_matrix(rho, drho).matrix
    for tolerance in (1e-3, 1e-6, 1e-9):
        off = np.abs(CachedQFI(tolerance=tolerance)(rho, drho).matrix - exact).max() / np.abs(exact).max()
        assert off < 100 * tolerance


def test_many_threads_get_the_right_values_and_every_call_is_counted() -> None:
    rng = np.random.default_rng(8)
    pairs = [(random_state(rng, 4), random_tangents(rng, 1, 4)) for _ in range(12)]
    expected = [qfi_matrix(*pair).matrix for pair in pairs]
    cache = CachedQFI(maxsize=5)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(pairs), 200):
            if not np.array_equal(cache(*pairs[i]).matrix, expected[i]):
                wrong.append(int(i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    seen = cache.statistics
    assert seen.hits + seen.misses == 1600
    assert seen.size <= 5


def test_wrong_settings_and_wrong_states_are_refused_and_not_remembered() -> None:
    for settings_ in ({"maxsize": 0}, {"max_bytes": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}):
        with pytest.raises(UsageError):
            CachedQFI(**settings_)
    cache = CachedQFI()
    with pytest.raises(DensityError, match="trace 2"):
        cache(np.eye(2), [np.diag([1.0, -1.0])])
    assert cache.statistics.size == 0
