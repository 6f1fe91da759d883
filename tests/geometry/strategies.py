"""Random states and points for the geometry's properties: of given rank, with zeros, with near-duplicates."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qig_core.geometry.density import Matrix
from qig_core.geometry.simplex import FloatArray


def simplex_points(size: int = 6) -> st.SearchStrategy[FloatArray]:
    """Points of the simplex, zeros and corners included."""
    entries = st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
    return arrays(np.float64, size, elements=entries).filter(lambda x: x.sum() > 1e-6).map(lambda x: x / x.sum())


@st.composite
def near_pairs(draw: st.DrawFn, size: int = 6) -> tuple[FloatArray, FloatArray]:
    """A point and one that differs from it by as little as a rounding error."""
    p = draw(simplex_points(size))
    shift = draw(arrays(np.float64, size, elements=st.floats(0.0, 1.0))) * 10.0 ** draw(st.integers(-16, -1))
    q = p + shift
    return p, q / q.sum()


@st.composite
def states(draw: st.DrawFn, dim: int = 4, rank: int | None = None) -> Matrix:
    """A random complex state; of the rank named, or of any."""
    chosen = draw(st.integers(1, dim)) if rank is None else rank
    return random_state(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), dim, chosen)


def random_state(rng: np.random.Generator, dim: int, rank: int | None = None) -> Matrix:
    """G G†/Tr with G [dim, rank] of complex normal entries (the induced measure)."""
    factor = rng.normal(size=(dim, rank or dim)) + 1j * rng.normal(size=(dim, rank or dim))
    rho = factor @ factor.conj().T
    return np.asarray(rho / np.trace(rho).real)


def random_unitary(rng: np.random.Generator, dim: int) -> Matrix:
    q, r = np.linalg.qr(rng.normal(size=(dim, dim)) + 1j * rng.normal(size=(dim, dim)))
    return np.asarray(q * (np.diag(r) / np.abs(np.diag(r))))


def random_tangents(rng: np.random.Generator, count: int, dim: int) -> Matrix:
    """[count, dim, dim], Hermitian and traceless."""
    x = rng.normal(size=(count, dim, dim)) + 1j * rng.normal(size=(count, dim, dim))
    x = x + x.conj().swapaxes(-1, -2)
    return np.asarray(x - np.trace(x, axis1=1, axis2=2)[:, None, None] / dim * np.eye(dim))
