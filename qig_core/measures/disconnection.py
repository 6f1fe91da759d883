"""Φ_G of a fitted VAR(1): what the best one without a lagged connection across a cut loses. No recording here."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.covariance import log_roots
from qig_core.measures.integration import Indices, partition

_LARGEST_CORRELATION = 1.0 - 1e-12
_LARGEST_CROSSING = 1e6
_TOLERANCE_NATS = 1e-12
_MAX_ROUNDS = 1000
_LONGEST_LEAP = 1e4
_STRONG = 0.5  # b₁c₁ above which the likelihood of a cut may have more than one minimum
_SIGNED_PAIRS = 3
_PROBLEMS = 1024  # cuts of surrogates worked on together


def cut_nats(a: ArrayLike, noise_cov: ArrayLike, state_cov: ArrayLike, side: Sequence[int]) -> float:
    """Φ_G of one cut of x' = A x + e: min over A' that nothing crosses of ½ ln(det S_E' / det S_E).

    S_E' = S_E + (A − A') S_X (A − A')ᵀ: A' is zero between the sides, everything within them and the noise is free.
    For white S_E and S_X, b_i and c_i the singular values of the two cross blocks in descending order, it is
    Σ_i [ln(b_i + c_i) if b_i c_i > 1 else ½ ln((1 + b_i²)(1 + c_i²))], unpaired c_i = 0.

    Args:
        a: [d, d], a[i, j] is what unit j sends to unit i.
        noise_cov: [d, d], S_E, positive definite.
        state_cov: [d, d], S_X, positive definite; given inputs, what they leave of it.
        side: units on one side, at least one and not all.

    Returns:
        Nats a sample, in [0, ½ ln(det(S_E + A S_X Aᵀ) / det S_E)]; exactly 0.0 where nothing crosses.

    Raises:
        ValueError: shapes differ, a value is not finite, a covariance is not one, side is no side, or what crosses is
            more than 1e6 of the noise.

    Source: Oizumi, Tsuchiya & Amari, PNAS 113:14817, 2016. n times this is the log-likelihood ratio of a seemingly
    unrelated regression (Zellner 1962), so it is minimised by alternating generalised least squares, which never
    goes up; from A' = the least squares of the full model and, where the coupling is strong enough for that to be a
    saddle (b₁c₁ > ½), also from the minima of the white case, of all signs.
    """
    maps, noise, state = (np.asarray(each, dtype=np.float64) for each in (a, noise_cov, state_cov))
    dim = len(maps) if maps.ndim else 0
    if not dim or any(each.shape != (dim, dim) for each in (maps, noise, state)):
        raise ValueError(f"a, noise_cov and state_cov must be [d, d], not {maps.shape}, {noise.shape}, {state.shape}")
    if not np.all(np.isfinite(maps)):
        raise ValueError("a holds a value that is not finite")
    for name, cov in (("noise_cov", noise), ("state_cov", state)):
        log_roots(cov, name)
    rest = [unit for unit in range(dim) if unit not in set(side)]
    near, far = sorted(partition([list(side), rest], dim), key=len)
    fit, order = Fit(a=maps[None], noise=noise[None], state=state[None]), np.concatenate([near, far])[None]
    problem = _problem(fit, np.zeros(1, dtype=np.intp), order, len(near))
    strongest = np.abs(problem.cross).max()
    if strongest > _LARGEST_CROSSING:
        raise ValueError(f"what crosses is {strongest:.1e} of the noise: beyond {_LARGEST_CROSSING:.0e} it is rounding")
    return float(_minimum(problem)[0])


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Bipartitions with K units on the smaller side."""

    order: Indices
    """[c, d], the units of the smaller side first."""
    k: int
    sides: list[tuple[int, ...]]
    """Parts on the side without part 0."""


def bipartitions(units: list[Indices]) -> list[Cuts]:
    found: dict[int, list[tuple[Indices, tuple[int, ...]]]] = {}
    for count in range(1, len(units)):
        for side in combinations(range(1, len(units)), count):
            here = np.concatenate([units[i] for i in side])
            there = np.concatenate([units[i] for i in range(len(units)) if i not in side])
            near, far = sorted((here, there), key=len)
            found.setdefault(len(near), []).append((np.concatenate([near, far]), side))
    return [
        Cuts(order=np.stack([order for order, _ in each]), k=k, sides=[side for _, side in each])
        for k, each in sorted(found.items())
    ]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """x_t+1 = A x_t + e, inputs and mean taken out; the first axis counts trajectories."""

    a: FloatArray
    noise: FloatArray
    """S_E [n, d, d], over the number of transitions, as maximum likelihood has it."""
    state: FloatArray
    """S_X [n, d, d]"""


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """Cuts of maps, [n, d, d], K units first, in coordinates where both sides are white in noise and in state."""

    noise: FloatArray
    cross: FloatArray
    """A where it crosses, 0 elsewhere."""
    state: FloatArray
    k: int

    def fitted(self, gap: FloatArray) -> FloatArray:
        """S_E' = S_E + D S_X Dᵀ of D = A − A'."""
        return self.noise + gap @ self.state @ transposed(gap)

    def nats(self, gap: FloatArray) -> FloatArray:
        """[n]: Φ_G is at most that."""
        return half_logdet(self.fitted(gap)) - half_logdet(self.noise)

    def take(self, which: NDArray[Any]) -> "_Problem":
        return _Problem(noise=self.noise[which], cross=self.cross[which], state=self.state[which], k=self.k)


def least_per_unit(fit: Fit, groups: list[Cuts]) -> tuple[FloatArray, list[tuple[int, int]]]:
    """Least Φ_G/K of each trajectory of a fit, and which cut has it: its group and its place there.

    One step of least squares bounds every cut from both sides; only cuts that may still be the least are minimised.
    """
    num = len(fit.a)
    which = [(g, c) for g, group in enumerate(groups) for c in range(len(group.sides))]
    lower, upper = np.empty((num, len(which))), np.empty((num, len(which)))
    columns = np.cumsum([0, *(len(group.sides) for group in groups)])
    for group, first in zip(groups, columns[:-1], strict=True):
        for rows, cuts in _batches(np.ones((num, len(group.sides)), dtype=bool)):
            problem = _problem(fit, rows, group.order[cuts], group.k)
            gap, trace = _step(problem)
            # det(1 + M) ≥ 1 + tr M, and of this trace it is the least there is
            lower[rows, first + cuts] = 0.5 * np.log1p(trace) / group.k
            upper[rows, first + cuts] = problem.nats(gap) / group.k
    open_ = (lower <= upper.min(axis=1, keepdims=True)) & (upper - lower > _TOLERANCE_NATS)
    for g, group in enumerate(groups):
        first = columns[g]
        for rows, cuts in _batches(open_[:, first : columns[g + 1]]):
            problem = _problem(fit, rows, group.order[cuts], group.k)
            upper[rows, first + cuts] = _minimum(problem) / group.k
    best = upper.argmin(axis=1)
    return upper[np.arange(num), best], [which[i] for i in best]


def _batches(chosen: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices]]:
    rows, columns = np.nonzero(chosen)
    for first in range(0, len(rows), _PROBLEMS):
        yield rows[first : first + _PROBLEMS], columns[first : first + _PROBLEMS]


def _problem(fit: Fit, rows: Indices, order: Indices, k: int) -> _Problem:
    """Trajectory rows[i] of the fit cut after the first k units of order[i]."""
    at = rows[:, None, None], order[:, :, None], order[:, None, :]
    out, noise = _whitened(fit.noise[at], k)
    into, state = _whitened(fit.state[at], k)
    # A x = A into⁻¹ (into x)
    cross: FloatArray = out @ transposed(solved(transposed(into), transposed(fit.a[at])))
    cross[:, :k, :k] = cross[:, k:, k:] = 0.0
    return _Problem(noise=_paired(noise, out.shape[-1]), cross=cross, state=_paired(state, out.shape[-1]), k=k)


def _whitened(cov: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """T block-diagonal, and r [n, k] with T cov Tᵀ = _paired(r): canonical correlations of the two sides."""
    t = np.zeros_like(cov)
    near = np.linalg.inv(np.linalg.cholesky(cov[:, :k, :k]))
    far = np.linalg.inv(np.linalg.cholesky(cov[:, k:, k:]))
    u, r, vt = np.linalg.svd(near @ cov[:, :k, k:] @ transposed(far))
    r = np.minimum(r, _LARGEST_CORRELATION)
    t[:, :k, :k] = transposed(u) @ near
    t[:, k:, k:] = vt @ far
    return t, r


def _paired(r: FloatArray, dim: int) -> FloatArray:
    """[n, d, d]: 1 with r_i between unit i and unit k + i."""
    k = r.shape[1]
    matrix = np.zeros((len(r), dim, dim))
    i, j = np.arange(k), np.arange(dim)
    matrix[:, j, j] = 1.0
    matrix[:, i, k + i] = matrix[:, k + i, i] = r
    return matrix


def _correlations(white: FloatArray, k: int) -> FloatArray:
    """r [n, k] of _paired(r)."""
    return white[:, np.arange(k), k + np.arange(k)]


def _step(problem: _Problem, gap: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """One step of generalised least squares: D = A − A' that minimises tr(W D S_X Dᵀ) [n], and that trace.

    W = (S_E + gap S_X gapᵀ)⁻¹ is held; gap None: W = S_E⁻¹. In coordinates where both sides are white in W too,
    canonical correlations r in S_X and −s in W couple entry (i, j) of one diagonal block with entry (i, j) of the other
    and with nothing else: N = W D_cross S_X, h = −s_i r_j, p + h q = −N_SS, q + h p = −N_S̄S̄.
    """
    k, cross, state = problem.k, problem.cross, problem.state
    if gap is None:
        t, s = np.broadcast_to(np.eye(cross.shape[1]), cross.shape), _correlations(problem.noise, k)
    else:
        t, s = _whitened(problem.fitted(gap), k)
    # what 1/(1 − s²) there is on the diagonal of W goes into the coordinates
    gain = np.ones((len(s), cross.shape[1], 1))
    gain[:, :k, 0] = gain[:, k : 2 * k, 0] = 1.0 / np.sqrt(1.0 - s * s)
    t = gain * t
    weight = _paired(-s, cross.shape[1])
    new = t @ cross
    n = weight @ new @ state
    h = -s[:, :, None] * _correlations(state, k)[:, None, :]
    near, far = n[:, :k, :k], n[:, k:, k:][:, :k, :k]
    new[:, k:, k:] = -n[:, k:, k:]
    new[:, :k, :k] = (h * far - near) / (1.0 - h * h)
    new[:, k : 2 * k, k : 2 * k] = (h * near - far) / (1.0 - h * h)
    trace = (weight * (new @ state @ transposed(new))).sum(axis=(1, 2))
    return (new / gain if gap is None else solved(t, new)), trace


def _minimum(problem: _Problem) -> FloatArray:
    """Φ_G of every cut [n]."""
    k, cross = problem.k, problem.cross
    nats = _descent(problem)
    ub, b, vb = np.linalg.svd(cross[:, :k, k:], full_matrices=False)
    uc, c, vc = np.linalg.svd(cross[:, k:, :k], full_matrices=False)
    strong = np.flatnonzero(b[:, 0] * c[:, 0] > _STRONG)
    if strong.size:
        hard = problem.take(strong)
        # white: p_i = q_i = ±sqrt(b_i c_i − 1); kept away from 0, since where white does not hold they may part sooner
        pairs = np.where(b * c > _STRONG, np.sqrt(np.maximum(b * c - 1.0, 0.25)), 0.0)[strong]
        for signs in product((1.0, -1.0), repeat=min(k, _SIGNED_PAIRS)):
            size = pairs * np.array([*signs, *(signs[-1:] * (k - len(signs)))])
            gap = hard.cross.copy()
            gap[:, :k, :k] = (ub[strong] * size[:, None, :]) @ vc[strong]
            gap[:, k:, k:] = (uc[strong] * size[:, None, :]) @ vb[strong]
            nats[strong] = np.minimum(nats[strong], _descent(hard, gap))
    return nats


def _descent(problem: _Problem, gap: FloatArray | None = None) -> FloatArray:
    """Two steps and a leap along both (SQUAREM, Varadhan & Roland 2008; undone where it climbs), until no cut [n] falls
    by more than _TOLERANCE_NATS. Near b₁c₁ = 1, and far beyond, plain steps would take thousands."""
    nats = np.full(len(problem.noise), math.inf)
    active = np.arange(len(nats))
    for _ in range(_MAX_ROUNDS):
        once, _trace = _step(problem, gap)
        twice, _trace = _step(problem, once)
        reached = problem.nats(twice)
        if gap is not None:
            stride, bend = once - gap, twice - 2.0 * once + gap
            ratio = _norm(stride) / np.maximum(_norm(bend), np.finfo(np.float64).tiny)
            length = np.clip(ratio, 1.0, _LONGEST_LEAP)
            leap = gap + 2.0 * length * stride + length**2 * bend
            tried = problem.nats(leap)
            lower = tried < reached
            twice = np.where(lower[:, None, None], leap, twice)
            reached = np.minimum(tried, reached)
        falling = nats[active] - reached > _TOLERANCE_NATS
        nats[active] = reached
        active = active[falling]
        if not active.size:
            break
        problem, gap = problem.take(falling), twice[falling]
    return nats


def _norm(matrices: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((matrices * matrices).sum(axis=(1, 2), keepdims=True)))


def half_logdet(cov: FloatArray) -> FloatArray:
    """∞ where rounding left no positive determinant: a leap may land anywhere."""
    sign, logdet = np.linalg.slogdet(cov)
    return np.where(sign > 0.0, 0.5 * logdet, np.inf)


def solved(matrices: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.solve(matrices, right), dtype=np.float64)


def transposed(matrices: FloatArray) -> FloatArray:
    return np.swapaxes(matrices, -1, -2)
