"""The probability simplex with the Fisher–Rao metric: distance, geodesic, exp, log and mean. numpy only.

p -> √p maps the simplex onto the positive orthant of the unit sphere, where a Fisher–Rao length is twice the angle.
Everything is computed there: log p is never taken, so zeros are ordinary points.
"""

from typing import Any, NewType, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qig_core.errors import QigError, SimplexError

FloatArray: TypeAlias = NDArray[np.float64]
Simplex = NewType("Simplex", NDArray[np.float64])
"""[..., K]: non-negative, last axis sums to 1."""
Basin = NewType("Basin", NDArray[np.float64])
"""[..., 64]: a point of the simplex that stands for what a model is; compared by fisher_rao_distance alone."""

SUM_TOLERANCE = 1e-6
_ORTHANT_TOLERANCE = 1e-12
_TANGENT_TOLERANCE = 1e-6
_MAX_ITERATIONS = 10_000


def normalise(x: ArrayLike) -> Simplex:
    """x / Σ x over the last axis, in float64.

    Args:
        x: [..., K], non-negative, finite, not all zero in a row.

    Raises:
        SimplexError: naming the row.
    """
    array = _non_negative(x, "x")
    total = array.sum(axis=-1, keepdims=True)
    if not np.all(total > 0.0):
        raise SimplexError(f"x{_row(~(total[..., 0] > 0.0))} sums to 0: there is nothing to normalise")
    return Simplex(array / total)


def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Geodesic distance on the probability simplex: 2 arccos(Σ_k sqrt(p_k q_k)).

    Args:
        p, q: [..., K], non-negative, last axis sums to 1 within 1e-6 (then renormalised in float64); leading axes
            broadcast.

    Returns:
        [...], radians, in [0, π].

    Raises:
        SimplexError: an entry is negative or not finite, or a sum is off by more than 1e-6.

    Source: Rao 1945; evaluated as 4 atan2(‖√p − √q‖, ‖√p + √q‖), exact near 0.
    """
    u, v = _root(p, "p"), _root(q, "q")
    _same_size(u, v)
    return 2.0 * _angle(u, v)


def bhattacharyya_angle(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """arccos(Σ_k sqrt(p_k q_k)): half the Fisher–Rao distance, radians, in [0, π/2]. Arguments and errors as there."""
    return 0.5 * fisher_rao_distance(p, q)


def geodesic(p: ArrayLike, q: ArrayLike, t: ArrayLike) -> Simplex:
    """The point at share t of the Fisher–Rao geodesic from p to q, at constant speed: d(p, γ(t)) = t d(p, q).

    γ(t) = ((sin((1−t)θ) √p + sin(tθ) √q) / sin θ)², θ = d(p, q)/2.

    Args:
        p, q: [..., K] on the simplex.
        t: scalar or [...], in [0, 1].

    Raises:
        SimplexError: p or q is off the simplex, or t lies outside [0, 1], where the curve would leave the orthant.
    """
    u, v = _root(p, "p"), _root(q, "q")
    _same_size(u, v)
    share = np.asarray(t, dtype=np.float64)[..., None]
    if not np.all((share >= 0.0) & (share <= 1.0)):
        raise SimplexError("t must lie in [0, 1]: beyond its ends a geodesic may leave the simplex")
    theta = _angle(u, v)[..., None]
    # sinc keeps both weights exact when the points coincide.
    whole = np.sinc(theta / np.pi)
    left = (1.0 - share) * np.sinc((1.0 - share) * theta / np.pi) / whole
    right = share * np.sinc(share * theta / np.pi) / whole
    return _square(left * u + right * v)


def exp(p: ArrayLike, v: ArrayLike) -> Simplex:
    """The end of the geodesic that leaves p along v and is ‖v‖ radians long: (√p cos(r/2) + v/r sin(r/2))², r = ‖v‖.

    Args:
        p: [..., K] on the simplex.
        v: [..., K], tangent in square-root coordinates: v · √p = 0, Euclidean norm = Fisher–Rao length in radians.

    Raises:
        SimplexError: p is off the simplex, v is not finite or not tangent, or the end lies outside the orthant.
    """
    u = _root(p, "p")
    tangent = np.asarray(v, dtype=np.float64)
    _same_size(u, tangent)
    radial = np.sum(u * tangent, axis=-1, keepdims=True)
    length = np.linalg.norm(tangent, axis=-1, keepdims=True)
    bad = ~(np.abs(radial) <= _TANGENT_TOLERANCE * (1.0 + length))[..., 0]
    if np.any(bad):
        raise SimplexError(f"v{_row(bad)} is not a tangent vector at p: v · √p must be 0 and v finite")
    tangent = tangent - radial * u
    half = 0.5 * np.linalg.norm(tangent, axis=-1, keepdims=True)
    end = np.cos(half) * u + 0.5 * np.sinc(half / np.pi) * tangent
    outside = np.any(end < -_ORTHANT_TOLERANCE, axis=-1) | (half[..., 0] > 0.5 * np.pi + _ORTHANT_TOLERANCE)
    if np.any(outside):
        raise SimplexError(f"v{_row(outside)} leaves the simplex: its end has a negative square root; shorten it")
    return _square(end)


def log(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """The tangent v at p with exp(p, v) = q: direction of q, length d(p, q).

    Args:
        p, q: [..., K] on the simplex.

    Returns:
        [..., K] in square-root coordinates (see exp), radians; 0 where p = q.

    Raises:
        SimplexError: p or q is off the simplex.
    """
    u, w = _root(p, "p"), _root(q, "q")
    _same_size(u, w)
    return _log_root(u, w)


def frechet_mean(
    points: ArrayLike, weights: ArrayLike | None = None, tol: float = 1e-12, *, start: Basin | Simplex | None = None
) -> Simplex:
    """The Karcher mean argmin_m Σ_i w_i d(m, p_i)², by the fixed point m <- exp_m(Σ_i w_i log_m p_i).

    Args:
        points: [N, K] on the simplex.
        weights: [N], non-negative, normalised here; None for equal weights.
        tol: stop when ‖Σ_i w_i log_m p_i‖ ≤ tol, radians.
        start: [K]; where to begin, the normalised mean of √p_i if None. The result does not depend on it.

    Returns:
        [K]. Unique, because the orthant lies in a ball of radius arccos(1/√K) < π/2 on the unit sphere.

    Raises:
        SimplexError: a point is off the simplex, or weights are negative, all zero or of another length.
        QigError: no convergence in 10 000 iterations.

    Source: Karcher 1977; Afsari 2011.
    """
    roots = _root(points, "points")
    if roots.ndim != 2 or not len(roots):
        raise SimplexError(f"points must be [N, K] with N ≥ 1, not {roots.shape}")
    share = np.asarray(normalise(np.ones(len(roots)) if weights is None else weights))
    if share.shape != (len(roots),):
        raise SimplexError(f"{share.size} weights for {len(roots)} points")
    mean = share @ roots if start is None else _root(start, "start")
    mean = mean / np.linalg.norm(mean)
    for _ in range(_MAX_ITERATIONS):
        step = share @ _log_root(mean, roots)
        length = float(np.linalg.norm(step))
        if length <= tol:
            return _square(mean)
        mean = np.cos(0.5 * length) * mean + 0.5 * np.sinc(0.5 * length / np.pi) * step
        mean = mean / np.linalg.norm(mean)
    raise QigError(f"the Fréchet mean did not reach a gradient of {tol} rad; the last was {length:.3g}")


def _log_root(u: FloatArray, w: FloatArray) -> FloatArray:
    """log between unit vectors of the orthant; taken from w − u, which keeps its digits when they are close."""
    difference = w - u
    across: FloatArray = difference - np.sum(difference * u, axis=-1, keepdims=True) * u
    norm = np.linalg.norm(across, axis=-1, keepdims=True)
    scale = np.divide(2.0 * _angle(u, w)[..., None], norm, out=np.zeros_like(norm), where=norm > 0.0)
    return np.asarray(across * scale)


def _angle(u: FloatArray, v: FloatArray) -> FloatArray:
    """Angle between unit vectors, radians, exact near 0."""
    return np.asarray(2.0 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)))


def _square(root: FloatArray) -> Simplex:
    p = np.square(np.maximum(root, 0.0))
    return Simplex(p / p.sum(axis=-1, keepdims=True))


def _root(p: ArrayLike, name: str) -> FloatArray:
    """√p of checked and renormalised input."""
    array = _non_negative(p, name)
    total = array.sum(axis=-1)
    off = np.abs(total - 1.0)
    if np.any(off > SUM_TOLERANCE):
        bad = off > SUM_TOLERANCE
        raise SimplexError(f"{name}{_row(bad)} sums to {total[bad][0]:.9g}, off by {off[bad][0]:.3g} (limit 1e-6)")
    return np.asarray(np.sqrt(array / total[..., None]))


def _non_negative(x: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise SimplexError(f"{name} has shape {array.shape}: a last axis of probabilities is needed")
    if not np.all(np.isfinite(array)):
        raise SimplexError(f"{name}{_row(~np.all(np.isfinite(array), axis=-1))} holds a value that is not finite")
    if np.any(array < 0.0):
        raise SimplexError(f"{name}{_row(np.any(array < 0.0, axis=-1))} is negative somewhere: {array.min():.3g}")
    return array


def _same_size(u: FloatArray, v: FloatArray) -> None:
    if u.shape[-1] != v.shape[-1]:
        raise SimplexError(f"{u.shape[-1]} and {v.shape[-1]} entries: both points must lie on one simplex")


def _row(bad: NDArray[Any]) -> str:
    """The first bad row as an index, nothing for a single point."""
    return f"[{', '.join(str(i) for i in np.argwhere(bad)[0])}]" if bad.ndim else ""
