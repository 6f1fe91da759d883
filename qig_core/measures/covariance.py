"""What Gaussian parts share, from covariances alone. numpy and LAPACK; no recording, no model, and never called phi."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lapack

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.integration import partition

_ASYMMETRY = 1e-10  # |S_ij − S_ji| / sqrt(S_ii S_jj) that rounding explains
_EPSILON = float(np.finfo(np.float64).eps)
_TILE = 64  # rows and columns compared with their mirror image while both are in the cache


def total_correlation(cov: ArrayLike, parts: Sequence[Sequence[int]] | None = None) -> float:
    """What Gaussian parts share at one time: TC = ½ (Σ_p ln det S_pp − ln det S).

    Args:
        cov: [d, d], covariance; units may have any scales.
        parts: disjoint groups of units that cover 0 .. d−1; None: each unit by itself.

    Returns:
        Nats, in [0, ∞); with parts, rounding may leave −1e−15 where it is 0.

    Raises:
        ValueError: cov is not square, finite, symmetric within 1e-10 of sqrt(S_ii S_jj), or positive definite (by how
            much is said), or parts do not partition its units.

    Source: Watanabe 1960. Summed over Cholesky pivots relative to S_ii, so scales cannot cancel digits.
    """
    s = np.asarray(cov, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not len(s):
        raise ValueError(f"cov must be [d, d], not {s.shape}")
    if parts is None:
        return 0.0 - float(log_roots(s).sum())  # 0.0, not −0.0, where nothing is shared
    units = partition(parts, len(s), least=1, most=len(s))
    order = np.concatenate(units)
    alone = np.concatenate([log_roots(s[np.ix_(part, part)]) for part in units])
    return float((alone - log_roots(s[np.ix_(order, order)])).sum())


def stochastic_interaction(cov: ArrayLike, lagged: ArrayLike, parts: Sequence[Sequence[int]]) -> float:
    """What is lost when each part is predicted from its own past alone: SI = Σ_k H(X_k,t | X_k,t−1) − H(X_t | X_t−1).

    For stationary Gaussian data SI = ½ (Σ_k ln det S(E_k) − ln det S(E)), S(E) = S − G S⁻¹ Gᵀ, S(E_k) the same of
    part k alone. Simultaneous correlation of the noise counts as well; the equal-time covariance alone gives only
    total_correlation.

    Args:
        cov: [d, d], S = cov(x_t), the same at t−1.
        lagged: [d, d], G = cov(x_t, x_t−1): G[i, j] relates unit i now to unit j before.
        parts: at least one disjoint group of units that together cover 0 .. d−1.

    Returns:
        Nats, in [0, ∞) up to rounding.

    Raises:
        ValueError: as total_correlation; or lagged is not finite, of another shape, or too large to belong to cov.

    Source: Ay 2001; Barrett & Seth, PLoS Comput Biol 7:e1001052, 2011.
    """
    s, g = np.asarray(cov, dtype=np.float64), np.asarray(lagged, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not len(s) or g.shape != s.shape:
        raise ValueError(f"cov and lagged must be [d, d], not {s.shape} and {g.shape}")
    if not np.all(np.isfinite(g)):
        raise ValueError("lagged holds a value that is not finite")
    units = partition(parts, len(s), least=1, most=len(s))
    order = np.concatenate(units)
    alone = np.concatenate([_left_over(s[np.ix_(part, part)], g[np.ix_(part, part)]) for part in units])
    return float((alone - _left_over(s[np.ix_(order, order)], g[np.ix_(order, order)])).sum())


def log_roots(s: FloatArray, name: str = "cov") -> FloatArray:
    """½ ln(1 − R²) of each unit of s [d, d] given those before it: ½ ln det s = Σ_i (that + ½ ln s_ii).

    A matrix is looked at twice only where something failed: the first look must cost little beside the factorisation.
    """
    if not _mirrored(s):
        _check_symmetry(s, name)
    factor, info = lapack.dpotrf(s.T if s.flags.c_contiguous else s, lower=1, clean=0)
    if info == 0:
        roots = factor.diagonal()
        with np.errstate(invalid="ignore"):
            logs: FloatArray = np.log(roots / np.sqrt(s.diagonal()))
        if logs.min() > 0.5 * math.log(len(s) * _EPSILON):  # also false for NaN
            return logs
    _check_symmetry(s, name)
    variances = s.diagonal()
    if variances.min() <= 0.0:
        raise ValueError(f"{name} is not positive definite: unit {variances.argmin()} has {variances.min():.3g}")
    scale = np.sqrt(variances)
    least = np.linalg.eigvalsh(s / scale / scale[:, None])[0]
    raise ValueError(f"{name} is not positive definite: the least eigenvalue of its correlations is {least:.1e}")


def _mirrored(s: FloatArray) -> bool:
    """Whether s equals its transpose to the last bit, tile by tile: a transpose of all of s misses the cache."""
    for i in range(0, len(s), _TILE):
        for j in range(0, i + 1, _TILE):
            if not (s[i : i + _TILE, j : j + _TILE] == s[j : j + _TILE, i : i + _TILE].T).all():
                return False
    return True


def _check_symmetry(s: FloatArray, name: str) -> None:
    if not np.all(np.isfinite(s)):
        raise ValueError(f"{name} holds a value that is not finite")
    scale = np.sqrt(np.abs(s.diagonal()))
    apart = np.abs(s - s.T)
    wrong = apart > _ASYMMETRY * scale * scale[:, None]
    if wrong.any():
        i, j = np.unravel_index(np.argmax(np.where(wrong, apart, 0.0)), s.shape)
        raise ValueError(f"{name} is not symmetric: [{i}, {j}] is {s[i, j]:.6g}, [{j}, {i}] is {s[j, i]:.6g}")


def _left_over(s: FloatArray, g: FloatArray) -> FloatArray:
    """Logarithms whose sum is ½ ln det(s − g s⁻¹ gᵀ), of what the past leaves open."""
    log_roots(s)
    told = np.linalg.solve(np.linalg.cholesky(s), g.T)
    left = s - told.T @ told
    try:
        return np.asarray(log_roots(left) + 0.5 * np.log(left.diagonal()))
    except ValueError as why:
        raise ValueError("lagged is too large to belong to cov: it leaves no positive definite noise") from why
