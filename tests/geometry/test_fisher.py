"""The quantum Fisher information against closed forms, an independent way to compute it, and its own properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import quanestimation_qfim
from scipy.linalg import expm, solve_continuous_lyapunov

from qig_core.errors import DensityError
from qig_core.geometry.density import Matrix, bures_angle, partial_trace, thermal_state
from qig_core.geometry.fisher import qfi_bures, qfi_matrix, qfi_pure, qfi_unitary, sld
from tests.geometry.strategies import random_state, random_tangents, random_unitary, states

X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0, -1.0]).astype(complex)
SEEDS = st.integers(0, 2**32 - 1)


def of_lyapunov(rho: Matrix, drho: Matrix) -> Matrix:
    """F_ij = Re Tr(L_i ∂_jρ), with L of ρL + Lρ = 2∂ρ solved as a Lyapunov equation: no eigenvector is used."""
    slds = [solve_continuous_lyapunov(rho, 2.0 * x) for x in drho]
    return np.array([[np.trace(a @ b).real for b in drho] for a in slds])


def rotated(rho: Matrix, generator: Matrix) -> Matrix:
    return -1j * (generator @ rho - rho @ generator)


def collective(pauli: Matrix, num_qubits: int) -> Matrix:
    """½ Σ σ over the qubits."""
    total = np.zeros((2**num_qubits, 2**num_qubits), dtype=complex)
    for k in range(num_qubits):
        total += np.kron(np.kron(np.eye(2**k), pauli), np.eye(2 ** (num_qubits - k - 1)))
    return total / 2


@given(SEEDS, st.integers(2, 9))
def test_the_sum_over_pairs_equals_the_lyapunov_solution(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    rho, drho = random_state(rng, dim), random_tangents(rng, 3, dim)
    expected = of_lyapunov(rho, drho)
    found = qfi_matrix(rho, drho)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    assert found.rank == dim
    np.testing.assert_array_equal(found.dropped, 0.0)


def test_a_commuting_family_has_the_classical_fisher_information() -> None:
    p, dp = np.array([0.1, 0.2, 0.7]), np.array([[0.3, -0.1, -0.2], [0.0, 1.0, -1.0]])
    u = random_unitary(np.random.default_rng(0), 3)
    rho = u @ np.diag(p) @ u.conj().T
    drho = np.array([u @ np.diag(x) @ u.conj().T for x in dp])
    np.testing.assert_allclose(qfi_matrix(rho, drho).matrix, (dp / p) @ dp.T, rtol=1e-12)


@pytest.mark.parametrize("r", [0.1, 0.6, 0.999, 1.0])
def test_a_qubit_has_the_bloch_form(r: float) -> None:
    """ρ = (1 + r n·σ)/2: F_rr = 1/(1 − r²), and r² for a rotation about an orthogonal axis."""
    rho = (np.eye(2) + r * X) / 2
    assert qfi_matrix(rho, [rotated(rho, Z / 2)]).matrix[0, 0] == pytest.approx(r**2, rel=1e-12)
    if r < 1.0:
        assert qfi_matrix(rho, [X / 2]).matrix[0, 0] == pytest.approx(1.0 / (1.0 - r**2), rel=1e-12)


@pytest.mark.parametrize("beta", [0.5, 5.0, 50.0])
def test_a_thermal_state_has_the_variance_of_its_energy(beta: float) -> None:
    """∂_βρ = −(H − ⟨H⟩)ρ commutes with ρ: F = Var H, down to 1e-22 with a cutoff below it."""
    energy = np.array([-1.0, 1.0])
    rho = thermal_state(np.diag(energy), beta)
    p = np.diag(rho).real
    drho = np.diag(-(energy - p @ energy) * p)
    # 4/(e^β + e^−β)² without the difference that leaves nothing at β = 50.
    variance = 4.0 / (math.exp(beta) + math.exp(-beta)) ** 2
    assert qfi_matrix(rho, [drho], support_tol=0.0).matrix[0, 0] == pytest.approx(variance, rel=1e-6)


def test_ghz_states_reach_the_heisenberg_limit_and_products_the_standard_one() -> None:
    for n in (1, 2, 4):
        ghz = np.zeros(2**n, dtype=complex)
        ghz[[0, -1]] = 1 / math.sqrt(2)
        plus = np.full(2**n, 2 ** (-n / 2), dtype=complex)
        generator = collective(Z, n)
        for psi, expected in ((ghz, n**2), (plus, n)):
            rho = np.outer(psi, psi.conj())
            assert qfi_pure(psi, [-1j * generator @ psi])[0, 0] == pytest.approx(expected, rel=1e-12)
            assert qfi_unitary(rho, [generator])[0, 0] == pytest.approx(expected, rel=1e-12)
            assert qfi_matrix(rho, [rotated(rho, generator)]).matrix[0, 0] == pytest.approx(expected, rel=1e-12)


@given(SEEDS)
def test_a_pure_state_gives_the_same_as_a_vector_and_as_a_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    psi, *slopes = rng.normal(size=(4, 5)) + 1j * rng.normal(size=(4, 5))
    psi /= np.linalg.norm(psi)
    dpsi = np.array([s - np.vdot(psi, s).real * psi for s in slopes])
    drho = np.array([np.outer(d, psi.conj()) + np.outer(psi, d.conj()) for d in dpsi])
    rho = np.outer(psi, psi.conj())
    np.testing.assert_allclose(qfi_matrix(rho, drho).matrix, qfi_pure(psi, dpsi), rtol=1e-9, atol=1e-9)
    turned = np.array([d + 1j * a * psi for d, a in zip(dpsi, (0.3, -2.0, 5.0), strict=True)])
    np.testing.assert_allclose(qfi_pure(psi, turned), qfi_pure(psi, dpsi), rtol=1e-9, atol=1e-9)


@given(states(dim=4), SEEDS)
def test_a_unitary_family_is_bounded_by_four_variances(rho: Matrix, seed: int) -> None:
    generator = random_tangents(np.random.default_rng(seed), 1, 4)[0]
    f = qfi_unitary(rho, [generator])[0, 0]
    variance = np.trace(rho @ generator @ generator).real - np.trace(rho @ generator).real ** 2
    assert f <= 4.0 * variance * (1.0 + 1e-9) + 1e-9
    assert qfi_matrix(rho, [rotated(rho, generator)]).matrix[0, 0] == pytest.approx(f, rel=1e-7, abs=1e-7)


@given(SEEDS)
def test_a_unitary_change_of_basis_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rho, drho, u = random_state(rng, 5, 3), random_tangents(rng, 2, 5), random_unitary(rng, 5)
    drho = np.array([rotated(rho, x) for x in drho])
    moved = qfi_matrix(u @ rho @ u.conj().T, u @ drho @ u.conj().T)
    np.testing.assert_allclose(moved.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-8, atol=1e-8)
    assert moved.rank == 3


@given(SEEDS)
def test_forgetting_a_subsystem_never_raises_the_information(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rho, drho = random_state(rng, 6), random_tangents(rng, 2, 6)
    whole = qfi_matrix(rho, drho).matrix
    part = qfi_matrix(partial_trace(rho, [2, 3], 0), partial_trace(drho, [2, 3], 0)).matrix
    assert np.linalg.eigvalsh(whole - part).min() >= -1e-9 * np.abs(whole).max()


def test_the_information_of_a_product_is_the_sum() -> None:
    rng = np.random.default_rng(1)
    a, b, da, db = random_state(rng, 2), random_state(rng, 3), random_tangents(rng, 1, 2), random_tangents(rng, 1, 3)
    whole = qfi_matrix(np.kron(a, b), [np.kron(da[0], b) + np.kron(a, db[0])]).matrix
    np.testing.assert_allclose(whole, qfi_matrix(a, da).matrix + qfi_matrix(b, db).matrix, rtol=1e-10)


@pytest.mark.parametrize("spectrum", [(0.25, 0.25, 0.25, 0.25), (0.4, 0.4, 0.1, 0.1), (0.5, 0.5, 0.0, 0.0)])
def test_a_degenerate_state_has_the_information_of_its_lyapunov_equation(spectrum: tuple[float, ...]) -> None:
    """Any basis of a degenerate eigenspace serves, if it is orthonormal: a general `eig` does not give one."""
    rng = np.random.default_rng(2)
    u = random_unitary(rng, 4)
    rho = u @ np.diag(spectrum) @ u.conj().T
    rho = (rho + rho.conj().T) / 2
    drho = np.array([rotated(rho, x) for x in random_tangents(rng, 3, 4)])
    if min(spectrum) > 0:
        drho[0] += random_tangents(rng, 1, 4)[0]
    # The same family under a full-rank state that tends to ρ: the Lyapunov equation needs one.
    near = of_lyapunov(rho + 1e-7 * (min(spectrum) == 0) * np.eye(4), drho)
    np.testing.assert_allclose(qfi_matrix(rho, drho).matrix, near, rtol=1e-5, atol=1e-6)


def test_a_degenerate_state_is_right_where_quanestimation_is_not() -> None:
    """It agrees with us while the eigenvalues differ; where they meet, its `eig` gives eigenvectors that overlap."""
    rng = np.random.default_rng(7)
    u, drho = random_unitary(rng, 4), random_tangents(rng, 2, 4)
    for spectrum, agrees in (([0.4, 0.3, 0.2, 0.1], True), ([0.4, 0.4, 0.1, 0.1], False)):
        rho = u @ np.diag(spectrum) @ u.conj().T
        exact = of_lyapunov(rho, drho)
        theirs = quanestimation_qfim(rho, drho)()
        np.testing.assert_allclose(qfi_matrix(rho, drho).matrix, exact, rtol=1e-10)
        off = np.abs(theirs - exact).max() / np.abs(exact).max()
        assert (off < 1e-8) if agrees else (off > 1e-2), off


def test_the_sld_solves_its_equation() -> None:
    rng = np.random.default_rng(3)
    rho, drho = random_state(rng, 5), random_tangents(rng, 3, 5)
    found = sld(rho, drho)
    np.testing.assert_allclose((found @ rho + rho @ found) / 2, drho, atol=1e-11)
    np.testing.assert_allclose(found, found.conj().swapaxes(-1, -2), atol=1e-9)
    low = random_state(rng, 5, 2)
    turned = np.array([rotated(low, drho[0])])
    partial = sld(low, turned)
    np.testing.assert_allclose((partial @ low + low @ partial) / 2, turned, atol=1e-11)


def test_the_information_is_four_times_the_bures_metric() -> None:
    rng = np.random.default_rng(4)
    rho, generator = random_state(rng, 4), random_tangents(rng, 1, 4)[0]
    f = qfi_matrix(rho, [rotated(rho, generator)]).matrix[0, 0]
    for step in (1e-3, 1e-5):
        u = expm(-1j * step * generator)
        assert 4.0 * bures_angle(rho, u @ rho @ u.conj().T) ** 2 / step**2 == pytest.approx(f, rel=10 * step)


@pytest.mark.parametrize("theta", [0.0, 1e-9, 1e-3, 0.7])
def test_where_the_rank_changes_the_bures_form_goes_on_and_the_plain_one_says_what_it_left_out(theta: float) -> None:
    """ρ = diag(cos²θ, sin²θ): F = 4 for every θ but 0, where the derivative vanishes and with it the plain form."""
    c, s = math.cos(theta), math.sin(theta)
    rho, drho = np.diag([c * c, s * s]), np.diag([-2 * s * c, 2 * s * c])
    d2rho = np.diag([-2 * math.cos(2 * theta), 2 * math.cos(2 * theta)])
    plain = qfi_matrix(rho, [drho])
    assert qfi_bures(rho, [drho], [[d2rho]])[0, 0] == pytest.approx(4.0, rel=1e-6)
    if theta > 1e-6:
        assert plain.matrix[0, 0] == pytest.approx(4.0, rel=1e-9)
        assert plain.rank == 2
    else:
        assert plain.matrix[0, 0] == pytest.approx(0.0, abs=1e-12)
        assert plain.rank == 1
    if theta == 1e-9:
        assert qfi_matrix(rho, [drho], support_tol=0.0).matrix[0, 0] == pytest.approx(4.0, rel=1e-9)


def test_a_derivative_that_leaves_the_support_is_reported() -> None:
    found = qfi_matrix(np.diag([1.0, 0.0]), [np.diag([-1.0, 1.0]), X])
    np.testing.assert_allclose(found.dropped, [1.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(np.diag(found.matrix), [1.0, 4.0], atol=1e-12)


def test_the_bures_form_has_the_curvature_of_a_rotating_kernel() -> None:
    """A pure state that rotates keeps its rank: both forms agree, though ∂ρ and ∂²ρ reach into the kernel."""
    rho = np.diag([1.0, 0.0]).astype(complex)
    drho = rotated(rho, Y / 2)
    d2rho = rotated(drho, Y / 2)
    assert qfi_bures(rho, [drho], [[d2rho]])[0, 0] == pytest.approx(float(qfi_matrix(rho, [drho]).matrix[0, 0]))


def test_a_batch_equals_a_loop() -> None:
    rng = np.random.default_rng(5)
    rho = np.array([[random_state(rng, 4, r) for r in (4, 2, 1)]])
    drho = np.array([[[rotated(r, g) for g in random_tangents(rng, 2, 4)] for r in row] for row in rho])
    second = np.zeros((1, 3, 2, 2, 4, 4))
    whole, bures = qfi_matrix(rho, drho), qfi_bures(rho, drho, second)
    assert whole.matrix.shape == (1, 3, 2, 2)
    assert whole.rank.tolist() == [[4, 2, 1]]
    slds, unitary = sld(rho, drho), qfi_unitary(rho, drho)
    for i in np.ndindex(1, 3):
        np.testing.assert_allclose(whole.matrix[i], qfi_matrix(rho[i], drho[i]).matrix, atol=1e-11)
        np.testing.assert_allclose(bures[i], qfi_bures(rho[i], drho[i], second[i]), atol=1e-11)
        np.testing.assert_allclose(slds[i], sld(rho[i], drho[i]), atol=1e-11)
        np.testing.assert_allclose(unitary[i], qfi_unitary(rho[i], drho[i]), atol=1e-11)
    psi = rng.normal(size=(3, 4)) + 0j
    psi /= np.linalg.norm(psi, axis=-1, keepdims=True)
    dpsi = rng.normal(size=(3, 2, 4)) + 1j * rng.normal(size=(3, 2, 4))
    for i in range(3):
        np.testing.assert_allclose(qfi_pure(psi, dpsi)[i], qfi_pure(psi[i], dpsi[i]), atol=1e-12)


def test_real_and_complex_input_agree() -> None:
    rng = np.random.default_rng(6)
    rho, drho = random_state(rng, 4).real, random_tangents(rng, 2, 4).real
    real, mixed = qfi_matrix(rho, drho), qfi_matrix(rho, drho.astype(complex))
    np.testing.assert_allclose(real.matrix, mixed.matrix, rtol=1e-12)


@given(SEEDS)
@settings(max_examples=20)
def test_the_matrix_is_symmetric_and_positive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = qfi_matrix(random_state(rng, 4), random_tangents(rng, 4, 4)).matrix
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12


@pytest.mark.parametrize(
    ("rho", "drho", "message"),
    [
        (np.eye(2), [X], "rho has trace 2"),
        (np.diag([1.5, -0.5]), [X], "not positive semidefinite: its lowest eigenvalue is -0.5"),
        (np.eye(2) / 2, [Z + np.eye(2)], "drho has trace 2: the trace of a state is 1"),
        (np.eye(2) / 2, [np.array([[0, 1], [0, 0]])], "drho is not Hermitian"),
        (np.eye(2) / 2, [np.full((2, 2), np.nan)], "drho holds a value that is not finite"),
        (np.eye(2) / 2, X, "one more axis"),
        (np.eye(2) / 2, [np.eye(3)], "rho has dimension 2, drho 3"),
    ],
)
def test_what_is_no_family_of_states_is_refused(rho: Matrix, drho: Matrix, message: str) -> None:
    with pytest.raises(DensityError, match=message):
        qfi_matrix(rho, drho)


def test_no_states_and_no_parameters_give_empty_matrices() -> None:
    assert qfi_matrix(np.empty((0, 2, 2)), np.empty((0, 3, 2, 2))).matrix.shape == (0, 3, 3)
    assert qfi_matrix(np.eye(2) / 2, np.empty((0, 2, 2))).matrix.shape == (0, 0)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3])
def test_a_derivative_is_judged_at_its_own_scale(scale: float) -> None:
    half = np.eye(2) / 2
    assert qfi_matrix(half, [scale * X]).matrix[0, 0] == pytest.approx(4.0 * scale**2, rel=1e-12)
    with pytest.raises(DensityError, match="not Hermitian"):
        qfi_matrix(half, [scale * np.array([[0, 1], [0, 0]])])
    with pytest.raises(DensityError, match="drho has trace"):
        qfi_matrix(half, [scale * np.eye(2)])


def test_other_wrong_arguments_are_refused() -> None:
    half = np.eye(2) / 2
    with pytest.raises(DensityError, match="change places"):
        qfi_bures(half, [X, Y], [[X, X], [Z, Z]])
    with pytest.raises(DensityError, match="leading axes"):
        qfi_pure([[1.0, 0.0]] * 2, [[[0.0, 1.0]]] * 3)
    with pytest.raises(DensityError, match="support_tol is -1"):
        qfi_matrix(half, [X], support_tol=-1.0)
    with pytest.raises(DensityError, match=r"d2rho has shape \(1, 2, 2\)"):
        qfi_bures(half, [X], [X])
    with pytest.raises(DensityError, match="norm off by 1"):
        qfi_pure([2.0, 0.0], [[0.0, 1.0]])
    with pytest.raises(DensityError, match="are needed"):
        qfi_pure([1.0, 0.0], [0.0, 1.0])
    with pytest.raises(DensityError, match="not finite"):
        qfi_pure([1.0, 0.0], [[0.0, np.nan]])
    with pytest.raises(DensityError, match="generators is not Hermitian"):
        qfi_unitary(half, [[[0, 1], [0, 0]]])
    with pytest.raises(DensityError, match="rho has dimension 2, generators 3"):
        qfi_unitary(half, [np.eye(3)])
