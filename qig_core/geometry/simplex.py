"""The probability simplex with the Fisher–Rao metric: distance, geodesic, exp, log, transport, mean. numpy only.

p -> √p maps the simplex onto the positive orthant of the unit sphere, where a Fisher–Rao length is twice the angle.
Everything is computed there: log p is never taken, so zeros are ordinary points. A tangent vector v at p is given in
those coordinates too: v · √p = 0, its Euclidean norm is its Fisher–Rao length in radians, and √p ∘ v is the same vector
in coordinates of p.
"""

import math
from dataclasses import dataclass
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
_NEAR = 0.99  # above this Σ√(p q) its arccos loses digits: the angle is then taken from the chord
_BLOCK = 32_768  # entries that are worked on together: they and what is made of them stay in the processor's cache
_TANGENT_TOLERANCE = 1e-6
_TANGENT_ROUNDING = 1e-12
_RANGE_TOLERANCE = 1e-9
_MAX_ITERATIONS = 10_000


def normalise(x: ArrayLike) -> Simplex:
    """x / Σ x over the last axis, in float64.

    Args:
        x: [..., K], non-negative, finite, not all zero in a row.

    Raises:
        SimplexError: naming the row.
    """
    return _normalised(x, "x")


def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Geodesic distance on the probability simplex: 2 arccos(Σ_k sqrt(p_k q_k)).

    Args:
        p, q: [..., K], non-negative, last axis sums to 1 within 1e-6 (then renormalised in float64); leading axes
            broadcast.

    Returns:
        [...], radians, in [0, π].

    Raises:
        SimplexError: an entry is negative or not finite, or a sum is off by more than 1e-6.

    Source: Rao 1945; where Σ sqrt(p_k q_k) > 0.99 evaluated as 4 atan2(‖√p − √q‖, ‖√p + √q‖), exact near 0.
    """
    a, b = _as_floats(p, "p"), _as_floats(q, "q")
    _same_size(a, b)
    coefficient, *sums = _coefficients(a, b)
    distance = np.asarray(2.0 * np.arccos(np.minimum(coefficient, 1.0)))
    near = np.asarray(coefficient > _NEAR)
    if near.any():
        u, v = (
            np.sqrt(np.broadcast_to(x, (*near.shape, x.shape[-1]))[near] / total[near][:, None])
            for x, total in zip((a, b), sums, strict=True)
        )
        distance[near] = 2.0 * _angle(u, v)
    return distance[()]


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
    tangent = _tangent(u, v)
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


def parallel_transport(p: ArrayLike, q: ArrayLike, v: ArrayLike) -> FloatArray:
    """v carried from p to q along the geodesic between them: v − (v · √q)/(1 + √p · √q) (√p + √q).

    Args:
        p, q: [..., K] on the simplex.
        v: [..., K], tangent at p in square-root coordinates (see exp).

    Returns:
        [..., K], tangent at q; lengths and angles between vectors are kept, and log(p, q) becomes −log(q, p).

    Raises:
        SimplexError: p or q is off the simplex, v is not finite or not tangent at p.
    """
    u, w = _root(p, "p"), _root(q, "q")
    _same_size(u, w)
    tangent = _tangent(u, v)
    along = np.sum(tangent * w, axis=-1, keepdims=True) / (1.0 + np.sum(u * w, axis=-1, keepdims=True))
    return np.asarray(tangent - along * (u + w))


def frechet_mean(
    points: ArrayLike, weights: ArrayLike | None = None, tol: float = 1e-12, *, start: Basin | Simplex | None = None
) -> Simplex:
    """The Karcher mean argmin_m Σ_i w_i d(m, p_i)², by the fixed point m <- exp_m(Σ_i w_i log_m p_i).

    Args:
        points: [..., N, K] on the simplex.
        weights: [N] or [..., N], non-negative, normalised here; None for equal weights.
        tol: stop when ‖Σ_i w_i log_m p_i‖ ≤ tol, radians.
        start: [K]; where to begin, the normalised mean of √p_i if None. The result does not depend on it.

    Returns:
        [..., K]. Unique, because the orthant lies in a ball of radius arccos(1/√K) < π/2 on the unit sphere.

    Raises:
        SimplexError: a point is off the simplex, or weights are negative, all zero or of another length.
        QigError: no convergence in 10 000 iterations.

    Source: Karcher 1977; Afsari 2011.
    """
    roots = _root(points, "points")
    share = _share(roots, weights)
    first = None if start is None else _root(start, "start")
    if first is not None and first.shape != roots.shape[-1:]:
        raise SimplexError(f"start must be [K] = {roots.shape[-1:]}, not {first.shape}")
    if roots.ndim == 2:
        return _square(_mean_root(roots, share, tol, first))
    leading = roots.shape[:-2]
    each = [_mean_root(roots[i], share[i], tol, first) for i in np.ndindex(leading)]
    return _square(np.reshape(each, (*leading, roots.shape[-1])))


def frechet_variance(
    points: ArrayLike, weights: ArrayLike | None = None, *, mean: Basin | Simplex | None = None
) -> FloatArray:
    """Σ_i w_i d(m, p_i)² about the Karcher mean m, rad².

    Args:
        points, weights: as in frechet_mean.
        mean: [..., K]; the point to measure from, the Karcher mean if None.

    Returns:
        [...], in [0, π²].
    """
    array = _as_floats(points, "points")
    share = _share(array, weights)
    centre = np.asarray(frechet_mean(array, share) if mean is None else mean)
    return np.asarray(np.sum(share * np.square(fisher_rao_distance(centre[..., None, :], array)), axis=-1))


@dataclass(frozen=True, kw_only=True)
class TangentPca:
    """Principal geodesic directions at a base point; R = min(N − 1, K − 1) of them."""

    base: Simplex
    """[K]."""
    components: FloatArray
    """[R, K], orthonormal tangent vectors at base in square-root coordinates; the largest entry of each is positive."""
    variance: FloatArray
    """[R], rad², of the N points along each (divisor N), descending."""
    share: FloatArray
    """[R], of the variance in all directions; 0 where there is none."""
    scores: FloatArray
    """[N, R], radians: log_base(p_i) less its mean, along each component."""


def tangent_pca(points: ArrayLike, base: ArrayLike | None = None) -> TangentPca:
    """Principal component analysis of log_base(p_i) in the tangent space at base.

    Args:
        points: [N, K] on the simplex, N ≥ 2.
        base: [K] on the simplex; their Karcher mean if None (the logarithms then average to 0).

    Returns:
        TangentPca; exp(base, s · components[0]) for small s is the first principal geodesic.

    Raises:
        SimplexError: fewer than two points, or a point or the base is off the simplex.

    Source: Fletcher et al. 2004.
    """
    array = _as_floats(points, "points")
    if array.ndim != 2 or len(array) < 2:
        raise SimplexError(f"points must be [N, K] with N ≥ 2, not {array.shape}")
    centre = frechet_mean(array) if base is None else Simplex(_checked(_as_floats(base, "base"), "base"))
    if centre.shape != array.shape[-1:]:
        raise SimplexError(f"base must be [K] = {array.shape[-1:]}, not {centre.shape}")
    logs = log(centre, array)
    logs -= logs.mean(axis=0)
    # In an orthonormal basis of the tangent space, so that directions without variance are tangent too.
    basis = np.linalg.qr(np.sqrt(centre)[:, None], mode="complete")[0][:, 1:]
    _, spread, directions = np.linalg.svd(logs @ basis, full_matrices=False)
    count = min(len(array) - 1, array.shape[-1] - 1)
    spread, directions = spread[:count], directions[:count] @ basis.T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=-1)[:, None], axis=-1)
    directions = directions * np.where(largest < 0.0, -1.0, 1.0)
    variance = np.square(spread) / len(array)
    total = float(variance.sum())
    return TangentPca(
        base=centre,
        components=directions,
        variance=variance,
        share=variance / total if total > 0.0 else np.zeros_like(variance),
        scores=logs @ directions.T,
    )


def natural_gradient(p: ArrayLike, grad: ArrayLike) -> FloatArray:
    """The Fisher–Rao gradient of f at p: p_i (∂f/∂p_i − Σ_j p_j ∂f/∂p_j).

    Args:
        p: [..., K] on the simplex.
        grad: [..., K], ∂f/∂p_i of any smooth extension of f: a constant added to all of them changes nothing.

    Returns:
        [..., K] in coordinates of p; sums to 0. Divided by √p it is the tangent vector that exp takes.

    Raises:
        SimplexError: p is off the simplex or grad is not finite.

    Source: Amari 1998, for the Fisher metric of the categorical distribution.
    """
    array = _checked(_as_floats(p, "p"), "p")
    slope = _finite(np.asarray(grad, dtype=np.float64), "grad")
    _same_size(array, slope)
    return np.asarray(array * (slope - np.sum(array * slope, axis=-1, keepdims=True)))


def fisher_solve(p: ArrayLike, v: ArrayLike, damping: float = 0.0) -> FloatArray:
    """x of (F + λ) x = v for the softmax Fisher matrix F = diag(p) − p pᵀ, in O(K).

    λ = 0: F is singular along 1; the solution of least norm is v/p − mean(v/p), entries with p_k = 0 being 0 and left
    out of the mean. λ > 0: v/(p + λ) + p/(p + λ) · Σ(p v/(p + λ)) / (λ Σ p/(p + λ)), its condition 1/λ.

    Args:
        p: [..., K] on the simplex.
        v: [..., K]; for λ = 0 its entries sum to 0 (within 1e-9 of Σ|v|) and are 0 where p is.
        damping: λ ≥ 0.

    Returns:
        [..., K], coordinates of the logits.

    Raises:
        SimplexError: p is off the simplex, v is not finite or not in the range of F, or damping is negative.

    Source: Sherman & Morrison 1950; the minimum-norm form follows from F (v/p + c 1) = v.
    """
    array = _checked(_as_floats(p, "p"), "p")
    right = _finite(np.asarray(v, dtype=np.float64), "v")
    _same_size(array, right)
    if not 0.0 <= damping < math.inf:
        raise SimplexError(f"damping is {damping}: it must be 0 or more, and finite")
    if damping > 0.0:
        held = array + damping
        weight, ratio, ones = array / held, right / held, np.ones(array.shape[-1])
        # Σ w v = Σ v − λ Σ v/(p + λ): of a v that sums to 0, a small λ then magnifies no rounding but that of its sum.
        along = ((right @ ones) / damping - ratio @ ones) / (weight @ ones)
        return np.asarray(ratio + weight * along[..., None])
    off = np.abs(np.sum(right, axis=-1))
    bad = ~(off <= _RANGE_TOLERANCE * np.sum(np.abs(right), axis=-1))
    if np.any(bad):
        raise SimplexError(
            f"v{_row(bad)} sums to {off[bad][0]:.3g}: without damping only a v that sums to 0 has a solution"
        )
    if array.min(initial=1.0) > 0.0:
        ratio = right / array
        return np.asarray(ratio - np.mean(ratio, axis=-1, keepdims=True))
    support = np.broadcast_to(array > 0.0, np.broadcast_shapes(array.shape, right.shape))
    outside = np.any((right != 0.0) & ~support, axis=-1)
    if np.any(outside):
        raise SimplexError(f"v{_row(outside)} is not 0 where p is 0: no x has F x = v")
    ratio = np.divide(right, array, out=np.zeros(support.shape), where=support)
    mean = np.sum(ratio, axis=-1, keepdims=True) / np.sum(support, axis=-1, keepdims=True)
    return np.asarray(np.where(support, ratio - mean, 0.0))


def _mean_root(roots: FloatArray, share: FloatArray, tol: float, start: FloatArray | None) -> FloatArray:
    """√ of the Karcher mean of roots [N, K]. Σ w_i log_m p_i = 2 (Σ w_i f_i r_i − (Σ w_i f_i c_i) m), c_i = r_i · m,
    f = θ/sin θ at θ = arccos c: two products with the matrix of points an iteration."""
    mean = share @ roots if start is None else start
    mean = mean / np.linalg.norm(mean)
    length = np.inf
    for _ in range(_MAX_ITERATIONS):
        cosine = np.minimum(roots @ mean, 1.0)
        pull = share * _theta_over_sine(cosine)
        step = 2.0 * (pull @ roots - (pull @ cosine) * mean)
        length = float(np.linalg.norm(step))
        if length <= tol:
            return mean
        mean = np.cos(0.5 * length) * mean + 0.5 * np.sinc(0.5 * length / np.pi) * step
        mean = mean / np.linalg.norm(mean)
    raise QigError(f"the Fréchet mean did not reach a gradient of {tol} rad; the last was {length:.3g}")


def _theta_over_sine(cosine: FloatArray) -> FloatArray:
    """θ/sin θ at θ = arccos(cosine), 1 at θ = 0. Both sides of the quotient are exact for the cosine as given."""
    sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
    return np.divide(np.arccos(cosine), sine, out=np.ones_like(sine), where=sine > 0.0)


def _share(points: FloatArray, weights: ArrayLike | None) -> FloatArray:
    """Weights of points [..., N, K], normalised, [..., N]."""
    if points.ndim < 2 or not points.shape[-2]:
        raise SimplexError(f"points must be [..., N, K] with N ≥ 1, not {points.shape}")
    if weights is None:
        return np.full(points.shape[:-1], 1.0 / points.shape[-2])
    share = np.asarray(_normalised(weights, "weights"))
    if share.shape not in (points.shape[-2:-1], points.shape[:-1]):
        raise SimplexError(f"weights have the shape {share.shape}, the points {points.shape[:-1]}")
    return np.broadcast_to(share, points.shape[:-1])


def _normalised(x: ArrayLike, name: str) -> Simplex:
    array = _as_floats(x, name)
    _non_negative(array, name)
    total = array.sum(axis=-1, keepdims=True)
    if not np.all(total > 0.0):
        raise SimplexError(f"{name}{_row(~(total[..., 0] > 0.0))} sums to 0: there is nothing to normalise")
    return Simplex(array / total)


def _tangent(u: FloatArray, v: ArrayLike) -> FloatArray:
    """v, checked to be tangent at the root u and made so exactly."""
    tangent = _finite(np.asarray(v, dtype=np.float64), "v")
    _same_size(u, tangent)
    radial = np.sum(u * tangent, axis=-1, keepdims=True)
    length = np.linalg.norm(tangent, axis=-1, keepdims=True)
    bad = ~(np.abs(radial) <= _TANGENT_TOLERANCE * length + _TANGENT_ROUNDING)[..., 0]
    if np.any(bad):
        raise SimplexError(f"v{_row(bad)} is not a tangent vector at p: v · √p must be 0")
    return np.asarray(tangent - radial * u)


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


def _coefficients(p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bhattacharyya coefficients Σ_k √(p_k q_k) of checked points, their sums divided out, and those sums: [...] each.

    A cacheful of rows at a time: whole arrays would go to memory and back at each step.
    """
    size = p.shape[-1]
    ones = np.ones(size)
    leading = np.broadcast_shapes(p.shape[:-1], q.shape[:-1])
    if not leading:
        sum_p, sum_q = _sums(p, "p"), _sums(q, "q")
        return np.asarray((np.sqrt(p * q) @ ones) / np.sqrt(sum_p * sum_q)), sum_p, sum_q
    a, b = np.broadcast_to(p, (*leading, size)), np.broadcast_to(q, (*leading, size))
    rows = max(1, _BLOCK // max(1, size * math.prod(leading[1:])))
    scratch = np.empty((min(rows, leading[0]), *leading[1:], size))
    roots, sum_p, sum_q = np.empty((3, *leading))
    lowest = 0.0
    with np.errstate(invalid="ignore"):  # of a point off the simplex, which is refused when its row is known
        for begin in range(0, leading[0], rows):
            part = slice(begin, begin + rows)
            x, y = a[part], b[part]
            lowest = min(lowest, x.min(initial=0.0), y.min(initial=0.0))
            np.matmul(x, ones, out=sum_p[part])
            np.matmul(y, ones, out=sum_q[part])
            product = np.multiply(x, y, out=scratch[: len(x)])
            np.matmul(np.sqrt(product, out=product), ones, out=roots[part])
    if not (lowest >= 0.0 and max(np.abs(each - 1.0).max(initial=0.0) for each in (sum_p, sum_q)) <= SUM_TOLERANCE):
        _sums(p, "p")
        _sums(q, "q")
    return roots / np.sqrt(sum_p * sum_q), sum_p, sum_q


def _root(p: ArrayLike, name: str) -> FloatArray:
    """√p of checked and renormalised input."""
    root = _checked(_as_floats(p, name), name)
    return np.sqrt(root, out=root)


def _checked(array: FloatArray, name: str) -> FloatArray:
    """A renormalised copy."""
    return np.asarray(array / _sums(array, name)[..., None])


def _sums(array: FloatArray, name: str) -> FloatArray:
    """Row sums of points of the simplex; anything else is refused with its row and by how much."""
    total = np.asarray(array @ np.ones(array.shape[-1]))
    off = np.abs(total - 1.0)
    if array.min(initial=0.0) >= 0.0 and off.max(initial=0.0) <= SUM_TOLERANCE:
        return total
    _non_negative(array, name)
    bad = np.asarray(off > SUM_TOLERANCE)
    where = _row(bad)
    raise SimplexError(f"{name}{where} sums to {total[bad][0]:.9g}, off by {off[bad][0]:.3g} (limit {SUM_TOLERANCE:g})")


def _as_floats(x: ArrayLike, name: str) -> FloatArray:
    if np.iscomplexobj(x):
        raise SimplexError(f"{name} is complex: probabilities are real")
    array = np.asarray(x, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise SimplexError(f"{name} has shape {array.shape}: a last axis of probabilities is needed")
    return array


def _finite(array: FloatArray, name: str) -> FloatArray:
    if not np.isfinite(array).all():
        raise SimplexError(f"{name}{_row(~np.isfinite(array).all(axis=-1))} holds a value that is not finite")
    return array


def _non_negative(array: FloatArray, name: str) -> None:
    _finite(array, name)
    lowest = array.min(axis=-1)
    bad = np.asarray(lowest < 0.0)
    if bad.any():
        raise SimplexError(f"{name}{_row(bad)} has a negative entry: {lowest[bad][0]:.3g}")


def _same_size(u: FloatArray, v: FloatArray) -> None:
    if u.shape == v.shape:
        return
    if u.shape[-1:] != v.shape[-1:]:
        raise SimplexError(f"shapes {u.shape} and {v.shape}: the last axes must be equal, both belong to one simplex")
    try:
        np.broadcast_shapes(u.shape, v.shape)
    except ValueError:
        raise SimplexError(f"shapes {u.shape} and {v.shape} do not broadcast") from None


def _row(bad: NDArray[Any] | np.bool) -> str:
    """The first bad row as an index, nothing for a single point."""
    if not bad.ndim:
        return ""
    return f"[{', '.join(str(i) for i in np.argwhere(bad)[0])}]"
