"""Data from a seed for benchmarks/geometry.py, and what is known about them: closed forms, or formulas in long double.

On x86 a long double has 11 bits more than a double; elsewhere it may be no more than one, and the errors that are
printed then hold both sides' rounding.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
HEAD = 1000  # rows that are evaluated in long double where there are more


def simplex_points(generator: Generator, *shape: int) -> Array:
    """Uniform on the simplex."""
    return generator.dirichlet(np.ones(shape[-1]), shape[:-1])


def ginibre_state(generator: Generator, size: int) -> Array:
    """G G†/Tr, G complex Gaussian: full rank."""
    root = generator.standard_normal((size, 2 * size)).view(np.complex128)
    state = root @ root.conj().T
    return state / np.trace(state).real


def states(generator: Generator, size: int) -> tuple[Array, Array]:
    return ginibre_state(generator, size), ginibre_state(generator, size)


def commuting_states(generator: Generator, size: int) -> tuple[tuple[Array, Array], float]:
    """Two states with the same eigenvectors, and their fidelity (Σ √(p q))²."""
    _, basis = np.linalg.eigh(ginibre_state(generator, size))
    p, q = simplex_points(generator, 2, size)
    pair = tuple(_hermitian((basis * values) @ basis.conj().T) for values in (p, q))
    return pair, float(np.sum(np.sqrt(np.longdouble(p) * q)) ** 2)


def family(generator: Generator, size: int, count: int, blocks: int = 1) -> tuple[tuple[Array, Array], Array]:
    """(ρ [size, size], ∂ρ [count, size, size]) and its QFI matrix: ∂_iρ = (L_i ρ + ρ L_i)/2 with random Hermitian
    L_i, Tr ρ L_i = 0, so that F_ij = Re Tr ρ L_i L_j. Blocks are as equal as size allows, on scattered basis states.
    """
    labels = generator.permutation(np.arange(size) * blocks // size)
    inside = labels[:, None] == labels
    rho = ginibre_state(generator, size) * inside
    draws = generator.standard_normal((count, size, 2 * size)).view(np.complex128)
    slds = _hermitian(draws) * inside
    slds -= np.einsum("kl,ilk->i", rho, slds).real[:, None, None] * np.eye(size)
    half = rho @ slds
    drho = _hermitian(half) * inside
    truth = (half.reshape(count, -1) @ slds.conj().reshape(count, -1).T).real
    return (rho, drho), truth


def _hermitian(x: Array) -> Array:
    return 0.5 * (x + x.conj().swapaxes(-1, -2))


def _roots(*points: Array) -> tuple[Array, ...]:
    roots = (np.sqrt(np.longdouble(p)) for p in points)
    return tuple(root / np.sqrt(np.sum(root * root, axis=-1, keepdims=True)) for root in roots)


def _angle(u: Array, v: Array) -> Array:
    chord, sum_ = (np.sqrt(np.sum(x * x, axis=-1, keepdims=True)) for x in (u - v, u + v))
    return 2 * np.arctan2(chord, sum_)


def exact_distance(p: Array, q: Array) -> Array:
    return 2 * _angle(*_roots(p[:HEAD], q[:HEAD]))[..., 0]


def exact_step(p: Array, target: Array, share: float) -> Array:
    u, v = _roots(p[:HEAD], target[:HEAD])
    angle = _angle(u, v)
    end = np.sin((1 - share) * angle) * u + np.sin(share * angle) * v
    return end * end / np.sum(end * end, axis=-1, keepdims=True)


def exact_natural_step(p: Array, grad: Array, rate: float) -> Array:
    """For rates that do not reach the edge of the orthant."""
    p, grad = np.longdouble(p[:HEAD]), np.longdouble(grad[:HEAD])
    above = grad - np.sum(p * grad, axis=-1, keepdims=True)
    spread = np.sqrt(np.sum(p * above * above, axis=-1, keepdims=True))
    return p * (np.cos(rate * spread / 2) - above / spread * np.sin(rate * spread / 2)) ** 2


def exact_exponentiated_step(p: Array, grad: Array, rate: float) -> Array:
    weight = np.longdouble(p[:HEAD]) * np.exp(-rate * np.longdouble(grad[:HEAD]))
    return weight / np.sum(weight, axis=-1, keepdims=True)


def mean_gradient(points: Array, mean: Array) -> float:
    """‖Σ_i log_m p_i‖/N, radians."""
    roots, centre = _roots(points, mean)
    angle = _angle(roots, centre)
    logs = 2 * angle / np.sin(angle) * (roots - np.cos(angle) * centre)
    return float(np.linalg.norm(np.mean(logs, axis=0)))


def residual(p: Array, v: Array, damping: float, x: Array) -> float:
    """‖(F + λ) x − v‖/‖v‖ for F = diag(p) − p pᵀ."""
    p, x = np.longdouble(p), np.longdouble(x)
    off = p * x - p * np.sum(p * x) + damping * x - v
    return float(np.sqrt(np.sum(off * off) / np.sum(np.longdouble(v) ** 2)))


def largest_difference(a: Array, b: Array) -> float:
    """max |a − b| over the rows that both have."""
    a, b = np.atleast_1d(a, b)
    rows = min(len(a), len(b))
    return float(np.max(np.abs(a[:rows] - b[:rows])))


def relative_difference(a: Array, b: Array) -> float:
    """‖a − b‖/‖b‖."""
    return float(np.linalg.norm(np.asarray(a - b, dtype=np.float64)) / np.linalg.norm(b))
