"""Density matrices: fidelity, Bures distance and angle, partial trace, entropy, thermal states, integration.

Real and complex matrices are taken as float64 and complex128. What is no density matrix is refused with what is wrong
and by how much. Nothing here differentiates a family of states: that is fisher.py.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NewType, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from qig_core.errors import DensityError
from qig_core.geometry.simplex import FloatArray

Matrix: TypeAlias = NDArray[Any]
"""[..., d, d], float64 or complex128."""
DensityMatrix = NewType("DensityMatrix", NDArray[Any])
"""[..., d, d]: Hermitian, positive semidefinite, trace 1."""

TOLERANCE = 1e-8
"""How far from Hermitian (any entry), from trace 1 and below 0 (any eigenvalue) a state may be; it is then mended."""
_NEAR = 0.99  # above this root fidelity its arccos loses digits: the angle is then taken from the polar form
_ROUNDING = 5e-13  # bound on a root fidelity's rounding up to which the short way is taken; seen: a hundredth of it
_BLOCK = 32_768  # entries that are checked together, with copies that stay in the processor's cache
_EPS = float(np.finfo(np.float64).eps)


def check_density(rho: ArrayLike) -> DensityMatrix:
    """rho as float64 or complex128, divided by its trace where that differs from 1 by more than rounding.

    Args:
        rho: [..., d, d]; Hermitian, trace 1 and positive semidefinite within 1e-8.

    Raises:
        DensityError: not square, not finite, not Hermitian, trace not 1 or a negative eigenvalue; says by how much.
    """
    state = as_state(rho)
    check_positive(np.linalg.eigvalsh(state), "rho")
    return DensityMatrix(state)


def nearest_density(x: ArrayLike) -> DensityMatrix:
    """A state made of any matrix: its Hermitian part, negative eigenvalues set to 0, divided by the trace.

    Args:
        x: [..., d, d], finite.

    Raises:
        DensityError: not square or not finite, or no eigenvalue is positive.
    """
    array = as_square(x, "x")
    if not np.isfinite(array).all():
        raise DensityError("x holds a value that is not finite")
    values, vectors = np.linalg.eigh(0.5 * (array + adjoint(array)))
    values = np.maximum(values, 0.0)
    total = values.sum(axis=-1, keepdims=True)
    if not np.all(total > 0.0):
        raise DensityError("x has no positive eigenvalue: no state is near it")
    return DensityMatrix(_compose(vectors, values / total))


def root_fidelity(rho: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Tr √(√ρ σ √ρ): the overlap |⟨ψ|φ⟩| of the closest purifications.

    Args:
        rho, sigma: [..., d, d] states; leading axes broadcast.

    Returns:
        [...], in [0, 1].

    Raises:
        DensityError: one of them is no density matrix, or their sizes differ.

    Source: Uhlmann 1976. ‖A†B‖₁ for any factors ρ = AA†, σ = BB†: by Cholesky and eigenvalues of A†σA where their
    rounding stays under 5e-13, else by factors from the spectrum, cut at d ε λ_max, and singular values.
    """
    a, b = _pair(rho, sigma)
    squares = _lapack_spectrum(a, b) if a.ndim == 2 else _batch_spectrum(a, b)
    # Not 0, so that a quotient is large where a plain one has no value.
    roots = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    overlap = np.asarray(roots.sum(axis=-1))
    # A change of ε λ_max in an eigenvalue λ changes √λ by ε λ_max/(2 √λ).
    certain = np.asarray(_EPS * squares[..., -1] * (1.0 / roots).sum(axis=-1) <= _ROUNDING)
    for i in [] if certain.all() else np.argwhere(~certain):
        at = tuple(i)
        product = adjoint(_factor(a[at], "rho")) @ _factor(b[at], "sigma")
        overlap[at] = np.linalg.svd(product, compute_uv=False).sum()
    return np.asarray(np.minimum(overlap, 1.0))[()]


def fidelity(rho: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """(Tr √(√ρ σ √ρ))², the squared (Uhlmann) form. Arguments, range and errors as root_fidelity."""
    return np.square(root_fidelity(rho, sigma))


def bures_angle(rho: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """arccos of the root fidelity, exact for tiny angles.

    Args:
        rho, sigma: [..., d, d] states; leading axes broadcast.

    Returns:
        [...], radians, in [0, π/2]. For commuting states half the Fisher–Rao distance of their spectra. Eigenvalues
        under d ε λ_max count as 0: where ranks differ, angles under √(d² ε) (1e-7 at d = 6) are not resolved.

    Raises:
        DensityError: as root_fidelity.

    Source: Bures 1969; Uhlmann 1976. Near 0 as 2 atan2(‖A − BU‖, ‖A + BU‖), ρ = AA†, σ = BB†, U the polar factor of
    B†A: the chord between the closest purifications.
    """
    a, b = _pair(rho, sigma)
    overlap = np.asarray(root_fidelity(a, b))
    angle = np.asarray(np.arccos(overlap))
    for i in np.argwhere(overlap > _NEAR):
        at = tuple(i)
        angle[at] = _polar_angle(a[at], b[at])
    return angle[()]


def bures_distance(rho: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """√(2 (1 − √F)) = 2 sin(θ/2), θ the Bures angle; in [0, √2], exact near 0. Arguments and errors as bures_angle."""
    return np.asarray(2.0 * np.sin(0.5 * bures_angle(rho, sigma)))[()]


def partial_trace(rho: ArrayLike, dims: Sequence[int], keep: int | Sequence[int]) -> Matrix:
    """The state of some subsystems: Tr over all others.

    Args:
        rho: [..., d, d], d = Π dims; the first subsystem is the slowest index, as in numpy.kron.
        dims: dimension of each subsystem.
        keep: the subsystems to keep, by number; their order is that of dims.

    Returns:
        [..., k, k], k the product of the kept dimensions.

    Raises:
        DensityError: dims do not multiply to d, or keep names a subsystem twice or one that is not there.
    """
    array = as_square(rho, "rho")
    kept = sorted([keep] if isinstance(keep, int) else keep)
    count = len(dims)
    if math.prod(dims) != array.shape[-1] or min(dims, default=0) < 1:
        raise DensityError(f"dims {tuple(dims)} do not multiply to the dimension {array.shape[-1]}")
    if len(set(kept)) != len(kept) or any(not 0 <= k < count for k in kept):
        raise DensityError(f"keep {tuple(kept)} must name different subsystems of 0 .. {count - 1}")
    rows = list(range(count))
    columns = [k + count if k in kept else k for k in rows]
    size = math.prod(dims[k] for k in kept)
    split = array.reshape(*array.shape[:-2], *dims, *dims)
    traced = np.einsum(split, [..., *rows, *columns], [..., *kept, *(k + count for k in kept)])
    return np.asarray(traced.reshape(*array.shape[:-2], size, size))


def von_neumann_entropy(rho: ArrayLike) -> FloatArray:
    """−Tr ρ ln ρ, nats, in [0, ln d].

    Args:
        rho: [..., d, d] states.

    Raises:
        DensityError: rho is no density matrix.
    """
    values = np.linalg.eigvalsh(as_state(rho))
    check_positive(values, "rho")
    logs = np.log(values, out=np.zeros_like(values), where=values > 0.0)
    return np.asarray(np.maximum(-np.sum(values * logs, axis=-1), 0.0))[()]


def thermal_state(hamiltonian: ArrayLike, beta: ArrayLike) -> DensityMatrix:
    """exp(−βH)/Tr exp(−βH), energies counted from the ground state so that no β overflows.

    Args:
        hamiltonian: [..., d, d], Hermitian within 1e-8 of its largest entry.
        beta: scalar or [...], inverse temperature in 1/energy, finite.

    Raises:
        DensityError: hamiltonian is not Hermitian, or something is not finite.
    """
    array = as_hermitian(hamiltonian, "hamiltonian")
    inverse = np.asarray(beta, dtype=np.float64)[..., None]
    if not np.isfinite(inverse).all():
        raise DensityError("beta must be finite")
    _broadcast(array.shape[:-2], inverse.shape[:-1], "hamiltonian", "beta")
    energies, vectors = np.linalg.eigh(array)
    lowest = np.where(inverse >= 0.0, energies[..., :1], energies[..., -1:])
    with np.errstate(over="ignore"):  # exp(−∞) = 0 is what a level that far up weighs
        weights = np.exp(-inverse * (energies - lowest))
    return DensityMatrix(_compose(vectors, weights / weights.sum(axis=-1, keepdims=True)))


def integration(rho: ArrayLike, dims: Sequence[int]) -> FloatArray:
    """phi_Q: the least [S(A) + S(B) − S(AB)] / (2 min(ln d_A, ln d_B)) over all bipartitions A | B of the subsystems.

    Args:
        rho: [..., d, d] states, d = Π dims.
        dims: at least two subsystems of dimension 2 or more.

    Returns:
        [...], in [0, 1]: 0 where some cut leaves a product state, 1 where every cut is maximally entangled.

    Raises:
        DensityError: rho is no density matrix, dims do not fit or there are fewer than two.
    """
    state = as_state(rho)
    if len(dims) < 2 or min(dims) < 2:
        raise DensityError(f"dims {tuple(dims)}: two subsystems of dimension 2 or more are needed for a cut")
    whole = von_neumann_entropy(state)
    rest = range(1, len(dims))
    least = np.full(state.shape[:-2], np.inf)
    # Subsystem 0 stays on one side, so that no cut is counted twice.
    for side in (s for size in range(1, len(dims)) for s in combinations(rest, size)):
        other = [k for k in range(len(dims)) if k not in side]
        mutual = sum(von_neumann_entropy(partial_trace(state, dims, part)) for part in (side, other)) - whole
        capacity = 2.0 * min(math.log(math.prod(dims[k] for k in part)) for part in (side, other))
        least = np.minimum(least, mutual / capacity)
    return np.asarray(np.clip(least, 0.0, 1.0))[()]


def as_square(x: ArrayLike, name: str) -> Matrix:
    """x as float64 or complex128, [..., d, d]."""
    array = np.asarray(x)
    if array.dtype == object:
        raise DensityError(f"{name} is no dense array of numbers (a scipy.sparse matrix has toarray())")
    array = np.asarray(array, dtype=np.complex128 if np.iscomplexobj(array) else np.float64)
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or not array.shape[-1]:
        raise DensityError(f"{name} has shape {array.shape}: a square matrix is needed")
    return array


def as_hermitian(x: ArrayLike, name: str, least: float = 0.0) -> Matrix:
    """x, checked to be finite, and Hermitian within 1e-8 of its largest entry, or of `least` if that is larger."""
    array = as_square(x, name)
    size = array.shape[-1]
    matrices = array.reshape(-1, size, size)
    step = max(1, _BLOCK // size**2)
    off2 = norm2 = 0.0
    for begin in range(0, len(matrices), step):
        some = matrices[begin : begin + step]
        # A copy first: transposed reads of many small matrices cost ten times as much in an expression.
        across = some.swapaxes(-1, -2).copy()
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(some, np.conjugate(across, out=across), out=across)
        off2 += np.vdot(across, across).real
        norm2 += np.vdot(some, some).real
    # Frobenius norms, one cheap pass each: one bounds every entry from above, the mean square the largest from below.
    if off2 <= TOLERANCE**2 * max(least**2, norm2 / max(1, array.size)):
        return array
    if not np.isfinite(array).all():
        raise DensityError(f"{name} holds a value that is not finite")
    off = largest_entry(array - adjoint(array))
    if off <= TOLERANCE * max(least, largest_entry(array)):
        return array
    raise DensityError(f"{name} is not Hermitian: an entry differs by {off:.3g} from its conjugate across the diagonal")


def as_state(rho: ArrayLike, name: str = "rho") -> Matrix:
    """rho, checked to be Hermitian with trace 1 and divided by it; positivity is left to whoever has eigenvalues."""
    array = as_hermitian(rho, name, least=1.0)
    trace = np.asarray(array.trace(axis1=-2, axis2=-1).real)
    if check_trace(trace, name) <= _EPS * array.shape[-1]:
        return array  # that is rounding: dividing by it makes nothing better
    return np.asarray(array / trace[..., None, None])


def check_trace(trace: FloatArray, name: str) -> float:
    """By how much the worst trace is not 1; DensityError where that is too much."""
    off = np.abs(trace - 1.0)
    worst = float(off.max(initial=0.0))
    if not worst <= TOLERANCE:
        raise DensityError(
            f"{name} has trace {trace.flat[off.argmax()]:.9g}, off by {worst:.3g} "
            "(limit 1e-8; nearest_density mends what is only rounded)"
        )
    return worst


def check_positive(values: FloatArray, name: str) -> None:
    """Raises DensityError where an eigenvalue is negative beyond rounding."""
    lowest = float(values.min(initial=0.0))
    if not lowest >= -TOLERANCE:
        raise DensityError(f"{name} is not positive semidefinite: its lowest eigenvalue is {lowest:.3g} (limit -1e-8)")


def adjoint(x: Matrix) -> Matrix:
    return x.conj().swapaxes(-1, -2)


def largest_entry(x: Matrix) -> float:
    """The largest |real or imaginary part|; NaN where there is one."""
    parts = np.ascontiguousarray(x).view(np.float64)
    return max(float(parts.max(initial=0.0)), -float(parts.min(initial=0.0)))


def _pair(rho: ArrayLike, sigma: ArrayLike) -> tuple[Matrix, Matrix]:
    """Two checked states of one dtype and one shape."""
    a, b = as_state(rho, "rho"), as_state(sigma, "sigma")
    if a.shape[-1] != b.shape[-1]:
        raise DensityError(f"rho has dimension {a.shape[-1]}, sigma {b.shape[-1]}")
    if a.shape == b.shape and a.dtype == b.dtype:
        return a, b
    dtype = np.result_type(a, b)
    shape = (*_broadcast(a.shape[:-2], b.shape[:-2], "rho", "sigma"), *a.shape[-2:])
    return np.broadcast_to(a.astype(dtype, copy=False), shape), np.broadcast_to(b.astype(dtype, copy=False), shape)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...], *names: str) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise DensityError(f"the leading axes of {' and '.join(names)}, {a} and {b}, do not broadcast") from None


def _lapack_spectrum(a: Matrix, b: Matrix) -> FloatArray:
    """Eigenvalues of A†σA for ρ = AA†, [d], ascending; NaN where ρ is not definite. potrf, hegst and heevd: half the
    products that two plain ones cost."""
    potrf, hegst, heevd = (
        (lapack.zpotrf, lapack.zhegst, lapack.zheevd)
        if np.iscomplexobj(a)
        else (lapack.dpotrf, lapack.dsygst, lapack.dsyevd)
    )
    # The transposes are in LAPACK's order without a copy; they are the conjugates, with the same eigenvalues.
    factor, failed = potrf(a.T, lower=0, clean=0)
    if failed:
        return np.full(len(a), np.nan)
    reduced, _ = hegst(b.T, factor, itype=2, lower=0)
    values, _, failed = heevd(reduced, compute_v=0, lower=0, overwrite_a=1)
    return np.full(len(a), np.nan) if failed else np.asarray(values, dtype=np.float64)


def _batch_spectrum(a: Matrix, b: Matrix) -> FloatArray:
    """The same for [..., d, d]; all NaN where one ρ of the batch is not definite."""
    try:
        factor = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return np.full(a.shape[:-1], np.nan)
    return np.asarray(np.linalg.eigvalsh(adjoint(factor) @ b @ factor), dtype=np.float64)


def _factor(rho: Matrix, name: str) -> Matrix:
    """A of ρ = AA†, [d, d]; eigenvalues under d ε λ_max are rounding and become columns of 0."""
    values, vectors = np.linalg.eigh(rho)
    check_positive(values, name)
    values[values <= len(values) * _EPS * values[-1]] = 0.0
    return np.asarray(vectors * np.sqrt(values))


def _polar_angle(a: Matrix, b: Matrix) -> float:
    left, right = _factor(a, "rho"), _factor(b, "sigma")
    u, _, vh = np.linalg.svd(adjoint(right) @ left)
    nearest = right @ (u @ vh)
    return float(2.0 * np.arctan2(np.linalg.norm(left - nearest), np.linalg.norm(left + nearest)))


def _compose(vectors: Matrix, values: FloatArray) -> Matrix:
    """V diag(values) V†."""
    return np.asarray((vectors * values[..., None, :]) @ adjoint(vectors))
