"""Density matrices against closed forms, high precision, QuTiP, and properties drawn by Hypothesis."""

import math

import numpy as np
import pytest
import qutip
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from qig_core.errors import DensityError
from qig_core.geometry.density import (
    Matrix,
    bures_angle,
    bures_distance,
    check_density,
    fidelity,
    integration,
    nearest_density,
    partial_trace,
    root_fidelity,
    thermal_state,
    von_neumann_entropy,
)
from qig_core.geometry.simplex import FloatArray, bhattacharyya_angle
from tests.geometry.strategies import near_pairs, random_state, random_unitary, simplex_points, states

PAULI_Z = np.diag([1.0, -1.0])
BELL = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]) / 2


def pure(vector: list[complex]) -> Matrix:
    psi = np.asarray(vector, dtype=complex) / np.linalg.norm(vector)
    return np.outer(psi, psi.conj())


def test_the_overlap_of_pure_states_is_that_of_their_vectors() -> None:
    rng = np.random.default_rng(0)
    for dim in (2, 5, 16):
        psi, phi = (rng.normal(size=dim) + 1j * rng.normal(size=dim) for _ in range(2))
        expected = abs(np.vdot(psi, phi)) ** 2 / (np.vdot(psi, psi) * np.vdot(phi, phi)).real
        assert fidelity(pure(list(psi)), pure(list(phi))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ranks", [(1, 1), (1, 4), (3, 2), (5, 8), (8, 8)])
def test_rank_deficient_states_keep_twelve_digits(ranks: tuple[int, int]) -> None:
    """ρ = A A†, σ = B B† of known factors: √F is the sum of the singular values of A†B, whatever the rank."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = (rng.normal(size=(8, r)) + 1j * rng.normal(size=(8, r)) for r in ranks)
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        exact = np.linalg.svd(a.conj().T @ b, compute_uv=False).sum()
        assert root_fidelity(a @ a.conj().T, b @ b.conj().T) == pytest.approx(exact, abs=1e-12)


def test_states_of_disjoint_support_have_fidelity_zero() -> None:
    rng = np.random.default_rng(2)
    u = random_unitary(rng, 6)
    a = u @ np.diag([0.2, 0.3, 0.5, 0, 0, 0]) @ u.conj().T
    b = u @ np.diag([0, 0, 0, 0.6, 0.3, 0.1]) @ u.conj().T
    assert fidelity(a, b) <= 1e-24
    assert bures_angle(a, b) == pytest.approx(math.pi / 2, abs=1e-12)
    assert bures_distance(a, b) == pytest.approx(math.sqrt(2), abs=1e-12)


@given(states(), states())
def test_fidelity_is_symmetric_and_never_above_one(a: Matrix, b: Matrix) -> None:
    f = fidelity(a, b)
    assert 0.0 <= f <= 1.0
    assert f == pytest.approx(float(fidelity(b, a)), abs=1e-12)
    assert fidelity(a, a) == pytest.approx(1.0, abs=1e-12)


@given(states(), states())
def test_qutip_agrees(a: Matrix, b: Matrix) -> None:
    theirs = qutip.fidelity(qutip.Qobj(a), qutip.Qobj(b))  # the root; loses digits where the rank is deficient
    assert root_fidelity(a, b) == pytest.approx(theirs, abs=1e-6)


@given(states(rank=4), states(rank=4))
def test_qutip_agrees_closely_on_states_of_full_rank(a: Matrix, b: Matrix) -> None:
    theirs = qutip.fidelity(qutip.Qobj(a), qutip.Qobj(b))
    assert root_fidelity(a, b) == pytest.approx(theirs, abs=1e-9)
    assume(theirs < 0.999)  # above it QuTiP's distance loses digits, and is NaN for equal states
    assert bures_distance(a, b) == pytest.approx(qutip.bures_dist(qutip.Qobj(a), qutip.Qobj(b)), abs=1e-6)


@given(states(), states(), st.integers(0, 1000))
def test_a_unitary_changes_nothing_and_a_partial_trace_never_lowers_fidelity(a: Matrix, b: Matrix, seed: int) -> None:
    u = random_unitary(np.random.default_rng(seed), 4)
    f = float(root_fidelity(a, b))
    assert root_fidelity(u @ a @ u.conj().T, u @ b @ u.conj().T) == pytest.approx(f, abs=1e-10)
    assert root_fidelity(partial_trace(a, [2, 2], 0), partial_trace(b, [2, 2], 0)) >= f - 1e-10


@given(near_pairs())
def test_commuting_states_have_half_the_fisher_rao_distance(pair: tuple[FloatArray, FloatArray]) -> None:
    p, q = pair
    # Eigenvalues under d ε are taken for rounding: what they could add is the square root of their sum.
    assert bures_angle(np.diag(p), np.diag(q)) == pytest.approx(float(bhattacharyya_angle(p, q)), rel=1e-6, abs=2e-7)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6, 1e-8, 1e-9])
def test_tiny_bures_angles_keep_their_digits(angle: float) -> None:
    rng = np.random.default_rng(3)
    u = random_unitary(rng, 2)
    one = u @ np.diag([1.0, 0.0]) @ u.conj().T
    psi = u @ np.array([math.cos(angle), math.sin(angle)])
    assert bures_angle(one, np.outer(psi, psi.conj())) == pytest.approx(angle, rel=1e-6)
    half = np.arcsin(math.sqrt(0.5)) + angle  # commuting, far from the boundary
    mixed = u @ np.diag([math.cos(half) ** 2, math.sin(half) ** 2]) @ u.conj().T
    assert bures_angle(u @ np.eye(2) @ u.conj().T / 2, mixed) == pytest.approx(angle, rel=1e-6)


def test_a_batch_equals_a_loop_whatever_the_ranks() -> None:
    rng = np.random.default_rng(4)
    for ranks in ((4, 4, 4), (4, 1, 2)):
        a = np.array([random_state(rng, 4, r) for r in ranks])
        b = random_state(rng, 4)
        for function in (fidelity, bures_angle, bures_distance):
            batch = function(a, b)
            assert batch.shape == (3,)
            for i in range(3):
                assert batch[i] == pytest.approx(float(function(a[i], b)), abs=1e-12)


def test_real_states_are_handled_as_real() -> None:
    rng = np.random.default_rng(5)
    g, h = rng.normal(size=(2, 5, 5))
    a, b = g @ g.T / np.trace(g @ g.T), h @ h.T / np.trace(h @ h.T)
    assert check_density(a).dtype == np.float64
    assert fidelity(a, b) == pytest.approx(float(fidelity(a.astype(complex), b)), abs=1e-13)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.eye(2), r"rho has trace 2, off by 1"),
        (np.array([[0.5, 0.1], [0.3, 0.5]]), r"not Hermitian: an entry differs by 0.2"),
        (np.diag([1.5, -0.5]), r"lowest eigenvalue is -0.5"),
        (np.diag([math.nan, 0.5]), r"not finite"),
        (np.diag([math.inf, 0.5]), r"not finite"),
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.ones(4), r"a square matrix is needed"),
    ],
)
def test_what_is_no_state_is_refused_with_what_and_by_how_much(bad: Matrix, message: str) -> None:
    with pytest.raises(DensityError, match=message):
        check_density(bad)
    with pytest.raises(DensityError, match=message):
        fidelity(bad, np.eye(len(bad)) / len(bad))


def test_the_other_state_is_named_when_it_is_the_wrong_one() -> None:
    with pytest.raises(DensityError, match="sigma is not positive"):
        fidelity(np.eye(2) / 2, np.diag([1.5, -0.5]))
    with pytest.raises(DensityError, match="leading axes of rho and sigma"):
        fidelity(np.array([np.eye(2) / 2] * 2), np.array([np.eye(2) / 2] * 3))
    with pytest.raises(DensityError, match="no dense array"):
        fidelity(sparse.csr_array(np.eye(2) / 2), np.eye(2) / 2)
    with pytest.raises(DensityError, match="rho has dimension 2, sigma 3"):
        fidelity(np.eye(2) / 2, np.eye(3) / 3)


@given(states(), st.floats(1e-12, 1e-9))
def test_input_within_the_tolerance_is_mended(a: Matrix, off: float) -> None:
    assert fidelity(a * (1.0 + off), a) == pytest.approx(1.0, abs=1e-12)


def test_the_nearest_state_of_a_disturbed_one_is_a_state() -> None:
    rng = np.random.default_rng(6)
    rho = random_state(rng, 4, 2)
    mended = nearest_density(rho + 1e-3 * rng.normal(size=(4, 4)))
    check_density(mended)
    assert bures_distance(mended, rho) < 0.1
    with pytest.raises(DensityError, match="no positive eigenvalue"):
        nearest_density(-np.eye(2))
    with pytest.raises(DensityError, match="not finite"):
        nearest_density(np.full((2, 2), np.nan))


def test_partial_traces_of_products_are_their_factors() -> None:
    rng = np.random.default_rng(7)
    a, b, c = random_state(rng, 2), random_state(rng, 3), random_state(rng, 2)
    whole = np.kron(np.kron(a, b), c)
    np.testing.assert_allclose(partial_trace(whole, [2, 3, 2], 1), b, atol=1e-14)
    np.testing.assert_allclose(partial_trace(whole, [2, 3, 2], [0, 2]), np.kron(a, c), atol=1e-14)
    np.testing.assert_allclose(partial_trace(whole, [2, 3, 2], [2, 0]), np.kron(a, c), atol=1e-14)
    np.testing.assert_allclose(partial_trace(np.array([whole, whole]), [2, 3, 2], 0)[1], a, atol=1e-14)
    theirs = qutip.Qobj(random_state(rng, 12), dims=[[2, 3, 2], [2, 3, 2]])
    np.testing.assert_allclose(
        partial_trace(theirs.full(), [2, 3, 2], [0, 1]), theirs.ptrace([0, 1]).full(), atol=1e-14
    )


def test_subsystems_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DensityError, match="do not multiply to the dimension 4"):
        partial_trace(BELL, [2, 3], 0)
    with pytest.raises(DensityError, match="different subsystems"):
        partial_trace(BELL, [2, 2], [0, 0])
    with pytest.raises(DensityError, match="different subsystems"):
        partial_trace(BELL, [2, 2], 2)


def test_entropies_have_their_closed_forms() -> None:
    assert von_neumann_entropy(np.eye(8) / 8) == pytest.approx(math.log(8), abs=1e-14)
    assert von_neumann_entropy(pure([1, 1j])) == pytest.approx(0.0, abs=1e-14)
    p = np.array([0.2, 0.8])
    expected = float(-(p * np.log(p)).sum())
    u = random_unitary(np.random.default_rng(8), 2)
    np.testing.assert_allclose(
        von_neumann_entropy([u @ np.diag(p) @ u.conj().T, BELL[::3, ::3]]), [expected, 0], atol=1e-14
    )


def test_thermal_states_have_boltzmann_weights_at_every_temperature() -> None:
    for beta in (0.0, 0.3, 5.0, 1e6, -2.0):
        weights = np.diag(thermal_state(PAULI_Z, beta)).real
        assert weights[0] == pytest.approx(1.0 / (1.0 + math.exp(min(2.0 * beta, 700.0))), abs=1e-15)
    batch = thermal_state(PAULI_Z, [0.0, 1.0])
    np.testing.assert_allclose(batch[0], np.eye(2) / 2, atol=1e-15)
    check_density(batch)
    np.testing.assert_array_equal(np.diag(thermal_state(1e200 * PAULI_Z, -1e200)), [1.0, 0.0])
    with pytest.raises(DensityError, match="beta, \\(2,\\) and \\(3,\\), do not broadcast"):
        thermal_state([PAULI_Z, PAULI_Z], [0.0, 1.0, 2.0])
    with pytest.raises(DensityError, match="not Hermitian"):
        thermal_state([[0.0, 1e-9], [0.0, 0.0]], 1.0)
    with pytest.raises(DensityError, match="beta must be finite"):
        thermal_state(PAULI_Z, math.inf)
    with pytest.raises(DensityError, match="hamiltonian is not Hermitian"):
        thermal_state([[0.0, 1.0], [0.0, 0.0]], 1.0)


def test_integration_is_zero_for_products_and_one_for_maximal_entanglement() -> None:
    rng = np.random.default_rng(9)
    a, b = random_state(rng, 2), random_state(rng, 3)
    assert integration(np.kron(a, b), [2, 3]) == pytest.approx(0.0, abs=1e-13)
    assert integration(BELL, [2, 2]) == pytest.approx(1.0, abs=1e-13)
    assert integration(np.diag([0.5, 0, 0, 0.5]), [2, 2]) == pytest.approx(0.5, abs=1e-13)  # a classical bit shared
    np.testing.assert_allclose(integration([np.kron(a, a), BELL], [2, 2]), [0.0, 1.0], atol=1e-13)


def test_integration_takes_the_weakest_cut_wherever_it_is() -> None:
    rng = np.random.default_rng(10)
    alone = random_state(rng, 2)
    first = np.kron(alone, BELL)
    between = first.reshape([2] * 6).transpose(1, 0, 2, 4, 3, 5).reshape(8, 8)  # the lonely one in the middle
    assert integration(first, [2, 2, 2]) == pytest.approx(0.0, abs=1e-13)
    assert integration(between, [2, 2, 2]) == pytest.approx(0.0, abs=1e-13)
    ghz = pure([1, 0, 0, 0, 0, 0, 0, 1])
    assert integration(ghz, [2, 2, 2]) == pytest.approx(1.0, abs=1e-13)


@given(states(dim=8), simplex_points(3))
@settings(max_examples=25)
def test_integration_lies_in_the_unit_interval_and_ignores_local_unitaries(rho: Matrix, seed: FloatArray) -> None:
    rng = np.random.default_rng(int(seed[0] * 1e6))
    u = np.kron(np.kron(random_unitary(rng, 2), random_unitary(rng, 2)), random_unitary(rng, 2))
    value = float(integration(rho, [2, 2, 2]))
    assert 0.0 <= value <= 1.0
    assert integration(u @ rho @ u.conj().T, [2, 2, 2]) == pytest.approx(value, abs=1e-10)


def test_integration_needs_something_to_cut() -> None:
    with pytest.raises(DensityError, match="two subsystems"):
        integration(np.eye(4) / 4, [4])
