"""Integration of recorded data: watching, not perturbing. numpy; no model, and never called phi.

A common input that nobody recorded looks like a connection here. These numbers are secondary and no guard reads them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lapack

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.disconnection import Fit, bipartitions, half_logdet, least_per_unit, solved, transposed
from qig_core.measures.integration import Indices, partition

SAMPLES_PER_DIMENSION = 10
MAX_LAGS = 8
"""Steps of its own past that a part of a surrogate may depend on."""
_LEAST_PIVOT = 1e-8  # 1 − R² of a unit given the others: below, its determinants are rounding
_LEAST_MEMORIES = 5.0
"""Least T (1 − spectral radius) of a part. A random walk rarely fits with more, and independent walks would often look
coupled (17 % of them at 5 %, T = 400, where only radii from 1 on are refused)."""
_LEAST_EIGENVALUE = 1e-12  # of (x_t, x_t+1) in units of the data's standard deviations
_STILL = 1e-12  # of its largest value: what a constant's mean may miss it by
_STEPS = 256  # time steps of all surrogates held at once


@dataclass(frozen=True, kw_only=True)
class ObservedPhi:
    """Φ_G of a fitted VAR(1). Where there is no value, reason says why and what could not be measured is None."""

    value: float | None
    """Nats: nats − bias_nats. Not floored: it falls below 0 by chance where nothing is coupled."""
    nats: float | None
    """Φ_G of the cut as fitted, per sample; positive by chance alone, by about bias_nats."""
    bias_nats: float | None
    """dim × the mean over the surrogates of their least Φ_G/K."""
    std_nats: float | None
    """dim × its standard deviation over the surrogates."""
    p_value: float | None
    """Of "no lagged coupling between any two parts, given the inputs", not of this cut. At least 1/(surrogates + 1)."""
    share: float | None
    """nats / I, in [0, 1]; I = ½ ln(det S(x_t+1 | u_t) / det S_E): what the past tells of the present, inputs given."""
    dim: int | None
    """K, units on the smaller side of the cut."""
    cut: tuple[int, ...] | None
    """Parts on the side of the cut that does not hold part 0."""
    num_samples: int
    """T, rows of the trajectory."""
    num_surrogates: int | None
    reason: str | None


def phi_observed(
    trajectory: ArrayLike,
    parts: Sequence[Sequence[int]],
    inputs: ArrayLike | None = None,
    *,
    num_surrogates: int = 199,
    seed: int = 0,
) -> ObservedPhi:
    """Φ_G of recorded data across the cut that carries least of it, less what chance gives, with a p-value.

    Model x_t+1 = A x_t + B u_t + c + e, e ~ N(0, S_E), by least squares. The cut minimises Φ_G/K (cut_nats; S_X what
    the inputs leave of x_t), K = min(dim S, dim S̄), over all bipartitions of the parts.

    Surrogates obey "no lagged coupling between any two parts, given the inputs": each part is fitted to its own past
    (as many steps as Akaike's criterion asks for, up to MAX_LAGS) and the inputs, and all are simulated together on
    the same inputs with residuals resampled in time, whole vectors at once, so that simultaneous correlation stays.
    The least Φ_G/K over all cuts is taken on each; p = (1 + #{surrogate ≥ observed}) / (1 + num_surrogates).

    An input that drives several parts and is not given makes the value positive and significant where no connection
    exists (about 0.1-0.2 of I). p is too small where parts remember more than MAX_LAGS steps or drift slowly: p ≤ 0.05
    in 11 % of uncoupled narrow-band oscillations seen through noise, in 13 % of uncoupled recordings at
    T (1 − spectral radius) = 8; it is between 3 and 5 % where the model holds (benchmarks/calibration.py). Secondary:
    never a guard.

    Args:
        trajectory: [T, d], x_t in rows, evenly spaced in time.
        parts: 2 to MAX_PARTS disjoint groups of units that cover 0 .. d−1.
        inputs: [T, m], known exogenous inputs; u_t acts on x_t+1, so the last row is not used. Constant or collinear
            columns do no harm.
        num_surrogates: at least 2. Time doubles with each part: 199 at T = 600 take 0.06 s for 4 parts of 2 units,
            1.2 s for 8, a minute for 12.
        seed: of the surrogates.

    Returns:
        ObservedPhi. No value, and reason set: fewer than SAMPLES_PER_DIMENSION rows for each of d + m; a constant
        unit; a unit that the others and the inputs, or the past, determine to 1e-8 of its variance. Where surrogates
        cannot be made, nats, share, dim and cut are still given: a part whose own dynamics are not stable, or drift
        so slowly that T (1 − spectral radius) < 5, or a unit that moves so seldom that resampling loses it.

    Raises:
        ValueError: NaN or infinity, shapes that do not fit, or parts that do not partition the units.

    Source: Oizumi, Tsuchiya & Amari, PNAS 113:14817, 2016; surrogates: Bühlmann, Bernoulli 3:123, 1997.
    """
    x, u = _checked(trajectory, inputs)
    num_samples, dim = x.shape
    units = partition(parts, dim)
    if num_surrogates < 2:
        raise ValueError(f"{num_surrogates} surrogates: at least 2 are needed for their spread")

    needed = SAMPLES_PER_DIMENSION * (dim + u.shape[1])
    if num_samples < needed:
        short = f"too few samples: {num_samples} for {dim + u.shape[1]} dimensions, {needed} are needed"
        return _nothing(short, num_samples)
    size = np.abs(x).max(axis=0)
    x = x - x.mean(axis=0)
    spread = np.abs(x).max(axis=0)
    still = np.flatnonzero(spread <= _STILL * size)
    if still.size:
        return _nothing(f"unit {still[0]} is constant", num_samples)
    x /= spread  # whose squares might overflow
    x /= x.std(axis=0)
    v = _basis(u[:-1])
    moments = _Moments(1, dim, v.shape[1])
    moments.add(x[None, :-1], x[None, 1:], v)
    known = _determined(moments.covariance()[0])
    if known:
        later, unit = divmod(known[0], dim)
        how = "the past, the inputs and the units before it" if later else "the inputs and the units before it"
        return _nothing(f"unit {unit} follows from {how}: 1 − R² is {known[1]:.1e}", num_samples)

    fit, groups = moments.fit(), bipartitions(units)
    least, where = least_per_unit(fit, groups)
    found, group = float(least[0]), groups[where[0][0]]
    told = fit.a @ fit.state @ transposed(fit.a)
    flow = float((half_logdet(fit.noise + told) - half_logdet(fit.noise))[0])
    raw: dict[str, Any] = {
        "nats": found * group.k,
        "share": found * group.k / flow if flow > 0.0 else 0.0,
        "dim": group.k,
        "cut": group.sides[where[0][1]],
        "num_samples": num_samples,
    }
    null = _null_of(x, units, v)
    slowest, most = int(np.argmax(null.radii)), 1.0 - _LEAST_MEMORIES / num_samples
    if null.radii[slowest] > most:
        radius = f"spectral radius {null.radii[slowest]:.4f}, up to {most:.4f} at {num_samples} samples"
        why = f"part {slowest} alone is not stable or drifts too slowly for surrogates: {radius}"
        return ObservedPhi(**(_NOTHING | raw | {"reason": why}))
    surrogates = _simulated(null, x, v, num_surrogates, np.random.default_rng(seed))
    lost = surrogates.num_degenerate()
    if lost:
        why = f"{lost} of {num_surrogates} surrogates are degenerate: a unit moves too seldom to be resampled"
        return ObservedPhi(**(_NOTHING | raw | {"reason": why}))
    chance = group.k * least_per_unit(surrogates.fit(), groups)[0]
    return ObservedPhi(
        **raw,
        value=raw["nats"] - float(chance.mean()),
        bias_nats=float(chance.mean()),
        std_nats=float(chance.std(ddof=1)),
        p_value=(1 + int(np.count_nonzero(chance >= raw["nats"]))) / (1 + num_surrogates),
        num_surrogates=num_surrogates,
        reason=None,
    )


def _checked(trajectory: ArrayLike, inputs: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    x = np.asarray(trajectory, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"trajectory must be [T, d], not {x.shape}")
    u = np.empty((len(x), 0)) if inputs is None else np.asarray(inputs, dtype=np.float64)
    if u.ndim != 2 or len(u) != len(x):
        raise ValueError(f"inputs must be [T, m] with T = {len(x)}, not {u.shape}")
    for name, each in (("trajectory", x), ("inputs", u)):
        if not np.all(np.isfinite(each)):
            row = int(np.flatnonzero(~np.isfinite(each).all(axis=1))[0])
            raise ValueError(f"{name} holds a value that is not finite, in row {row}")
    return x, u


_NOTHING: dict[str, Any] = dict.fromkeys(field.name for field in fields(ObservedPhi))


def _nothing(reason: str, num_samples: int) -> ObservedPhi:
    return ObservedPhi(**(_NOTHING | {"reason": reason, "num_samples": num_samples}))


def _basis(u: FloatArray) -> FloatArray:
    """[n, q], VᵀV = n: the constant and what the columns of u [n, m] add to it."""
    centred = u - u.mean(axis=0)
    size = np.abs(centred).max(axis=0)
    moving = size > _STILL * np.abs(u).max(axis=0, initial=0.0)
    v, singular, _ = np.linalg.svd(centred[:, moving] / size[moving], full_matrices=False)
    kept = v[:, singular > 1e-10 * singular.max(initial=0.0)]
    return np.column_stack([np.ones(len(u)), math.sqrt(len(u)) * kept])


class _Moments:
    """Sums over transitions of trajectories [n, steps, d] beside the same basis V, block by block."""

    def __init__(self, num: int, dim: int, num_basis: int) -> None:
        self.both = np.zeros((num, 2 * dim, 2 * dim))
        self.basis = np.zeros((num, num_basis, 2 * dim))
        self.count = 0

    def add(self, before: FloatArray, after: FloatArray, v: FloatArray) -> None:
        pair = np.concatenate([before, after], axis=2)
        self.both += transposed(pair) @ pair
        self.basis += v.T @ pair
        self.count += len(v)

    def covariance(self) -> FloatArray:
        """Of (x_t, x_t+1) [n, 2d, 2d], what the basis leaves of it."""
        basis = self.basis / self.count
        return np.asarray(self.both / self.count - transposed(basis) @ basis)

    def num_degenerate(self) -> int:
        least = np.linalg.eigvalsh(self.covariance())[:, 0]
        return int(np.count_nonzero(least < _LEAST_EIGENVALUE))

    def fit(self) -> Fit:
        dim = self.both.shape[1] // 2
        cov = self.covariance()
        state, lagged = cov[:, :dim, :dim], cov[:, dim:, :dim]
        a = transposed(solved(state, transposed(lagged)))
        noise = cov[:, dim:, dim:] - a @ transposed(lagged)
        return Fit(a=a, noise=0.5 * (noise + transposed(noise)), state=0.5 * (state + transposed(state)))


def _determined(cov: FloatArray) -> tuple[int, float] | None:
    """The first row of cov [n, n], of standardised variables, that those before it determine, and its 1 − R²."""
    factor, info = lapack.dpotrf(cov, lower=1, clean=0)
    if info:
        return info - 1, 0.0
    pivots = factor.diagonal() ** 2
    low = np.flatnonzero(pivots < _LEAST_PIVOT)
    return (int(low[0]), float(pivots[low[0]])) if low.size else None


@dataclass(frozen=True, kw_only=True)
class _Null:
    """Parts that run by themselves."""

    own: FloatArray
    """[q · d, d], oldest step first: x_t = (x_t−q … x_t−1) own + v_t drive + residual."""
    drive: FloatArray
    """[num_basis, d]"""
    residuals: FloatArray
    """[T − q, d]"""
    radii: list[float]
    """Spectral radius of each part."""


def _null_of(x: FloatArray, units: list[Indices], v: FloatArray) -> _Null:
    num, dim = x.shape
    fits = [_own_fit(x[:, part], v) for part in units]
    lags = max(len(own) for own, _ in fits)
    own = np.zeros((lags, dim, dim))
    drive = np.zeros((v.shape[1], dim))
    for part, (steps, push) in zip(units, fits, strict=True):
        own[lags - len(steps) :, part[:, None], part] = steps
        drive[:, part] = push
    windows = np.lib.stride_tricks.sliding_window_view(x[:-1], lags, axis=0)  # [T − q, d, q]
    told = np.moveaxis(windows, 2, 1).reshape(num - lags, lags * dim) @ own.reshape(lags * dim, dim)
    residuals = x[lags:] - told - v[lags - 1 :] @ drive
    return _Null(
        own=own.reshape(lags * dim, dim),
        drive=drive,
        residuals=residuals - residuals.mean(axis=0),
        radii=[_radius(steps) for steps, _ in fits],
    )


def _own_fit(x: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least squares of one part [T, k] on its own past and v: steps [q, k, k], oldest first, and [num_basis, k].

    q by Akaike's criterion (1974) on the same rows for all q. Too few steps leave memory in the residuals that
    resampling would destroy: Φ_G of the surrogates, and p, are too small. Too many make them too large. Akaike errs to
    that side (p ≤ 0.05 in 3 % where an input is given); Hannan & Quinn is even there, but sees coupling in 22 % of
    uncoupled narrow-band oscillations where Akaike does in 11 % (benchmarks/calibration.py).
    """
    num, k = x.shape
    most = max(1, min(MAX_LAGS, (num // 5 - v.shape[1]) // k))
    rows = num - most
    past = [x[most - lag : num - lag] for lag in range(1, most + 1)]
    target = x[most:]
    q, _ = np.linalg.qr(np.hstack([v[most - 1 :], *past]))
    told = q.T @ target
    best = (math.inf, 1)
    for lag in range(1, most + 1):
        used = v.shape[1] + lag * k
        left = target.T @ target - told[:used].T @ told[:used]
        sign, logdet = np.linalg.slogdet(left / rows)
        score = rows * logdet + 2.0 * k * used if sign > 0 else math.inf
        best = min(best, (score, lag))
    lags = best[1]
    design = np.hstack([v[lags - 1 :], *(x[lags - lag : num - lag] for lag in range(lags, 0, -1))])
    weights = np.asarray(np.linalg.lstsq(design, x[lags:], rcond=None)[0], dtype=np.float64)
    return weights[v.shape[1] :].reshape(lags, k, k), weights[: v.shape[1]]


def _radius(steps: FloatArray) -> float:
    """Spectral radius of x_t = Σ x_t−l steps[−l]."""
    lags, k, _ = steps.shape
    companion = np.eye(lags * k, k=-k)
    companion[:, -k:] = steps.reshape(lags * k, k)
    return float(np.abs(np.linalg.eigvals(companion)).max())


def _simulated(null: _Null, x: FloatArray, v: FloatArray, num: int, generator: np.random.Generator) -> _Moments:
    """Of num surrogates as long as x, each from a random stretch of x, block by block in time."""
    dim = x.shape[1]
    lags = len(null.own) // dim
    push = v @ null.drive
    block = np.empty((num, lags + _STEPS, dim))
    flat = block.reshape(num, -1)
    starts = generator.integers(0, len(x) - lags + 1, num)
    block[:, :lags] = x[starts[:, None] + np.arange(lags)]
    moments = _Moments(num, dim, v.shape[1])
    for first in range(0, len(v), _STEPS):
        steps = min(_STEPS, len(v) - first)
        drawn = generator.integers(0, len(null.residuals), (num, steps))
        block[:, lags : lags + steps] = null.residuals[drawn] + push[first : first + steps]
        for step in range(steps):
            block[:, lags + step] += flat[:, step * dim : (step + lags) * dim] @ null.own
        moments.add(block[:, lags - 1 : lags - 1 + steps], block[:, lags : lags + steps], v[first : first + steps])
        block[:, :lags] = block[:, steps : steps + lags].copy()
    return moments
