"""kappa_eff: the measured inverse temperature of attention over its own distances. numpy only; no lattice κ here."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qig_core.geometry.simplex import FloatArray

Flag: TypeAlias = Literal["no rows", "not finite", "distances equal", "unbounded", "negative"]
"""Why a head has no κ; "negative" alone stands beside a value (attention prefers what is far)."""

_FLAT = 1e-12  # share of mean(d)² under which distances carry no information
_EDGE = 1e-12  # share of the possible E[d] at which attention sits on the nearest (farthest) entries only
_ROW_SUM_TOLERANCE = 1e-2  # bfloat16 attention rows are off by this much
_CONVERGED = 1e-8  # relative Newton step; the error after it is its square
_MAX_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True)
class KappaResult:
    value: float | None
    """Median of per_head over the heads that have a value, rad⁻¹; None without any."""
    reason: Flag | None
    """Why value is None: the first head's flag."""
    per_head: tuple[float | None, ...]
    flags: tuple[Flag | None, ...]
    std_error: tuple[float | None, ...]
    """Sandwich standard error per head, rad⁻¹, clustered; None with fewer than two clusters."""
    kl: tuple[float | None, ...]
    """Mean KL(attention ‖ fitted) per head, nats."""
    explained: tuple[float | None, ...]
    """1 − KL(attention ‖ fitted)/KL(attention ‖ uniform), summed over rows, in [0, 1]."""
    n_rows: tuple[int, ...]
    """Rows used per head: those with at least two unmasked entries."""


@dataclass(frozen=True, kw_only=True)
class _Head:
    flag: Flag | None
    n_rows: int
    kappa: float | None = None
    std_error: float | None = None
    kl: float | None = None
    explained: float | None = None


def kappa_eff(
    attention: Any,
    distances: Any,
    mask: Any | None = None,
    clusters: Any | None = None,
    warm: tuple[float | None, ...] | None = None,
) -> KappaResult:
    """κ_h = argmin_k mean_i KL(a_i ‖ softmax_j(−k d_ij)) per head, and the median over heads.

    The minimum of a one-parameter exponential family, where Σ_i E_κ[d] = Σ_i E_a[d]. On a head whose attention is
    softmax(−d/T) it is 1/T.

    Args:
        attention: [H, N, T], rows over unmasked entries sum to 1 (renormalised here). numpy or torch.
        distances: [H, N, T], radians, the same d that the model used.
        mask: [N, T] or [H, N, T], true where an entry takes part (a causal map needs it); None for all.
        clusters: [N] labels of sequence or document for the standard error; None makes each row its own.
        warm: a κ per head to start from, such as the last result's per_head.

    Returns:
        KappaResult. A head is without a value where it has no row of two entries ("no rows"), an entry that is not
        finite ("not finite"), Σ_i Var_i(d) < 1e-12 mean(d)² ("distances equal"), or attention on the nearest (farthest)
        entries only ("unbounded").

    Raises:
        ValueError: shapes differ, attention is negative, or an unmasked row's sum is off 1 by more than 1e-2.

    Source: standard error sqrt(Σ_c s_c²)/Σ_i Var_i(d), s_c = Σ_{i in c}(E_κ[d] − E_a[d]) (sandwich, clustered).
    """
    a, d = _float64(attention), _float64(distances)
    if a.ndim != 3 or a.shape != d.shape:
        raise ValueError(f"attention {a.shape} and distances {d.shape} must both be [H, N, T]")
    allowed = np.ones(a.shape[1:], dtype=bool) if mask is None else _numpy(mask).astype(bool)
    if allowed.shape not in (a.shape[1:], a.shape):
        raise ValueError(f"mask {allowed.shape} must be [N, T] or [H, N, T] of {a.shape}")
    allowed = np.broadcast_to(allowed, a.shape)
    labels = np.arange(a.shape[1]) if clusters is None else _numpy(clusters)
    if labels.shape != (a.shape[1],):
        raise ValueError(f"clusters {labels.shape} must hold one label for each of {a.shape[1]} rows")
    starts = warm if warm is not None and len(warm) == len(a) else (None,) * len(a)
    heads = [_fit(a[h], d[h], allowed[h], labels, starts[h]) for h in range(len(a))]
    values = [head.kappa for head in heads if head.kappa is not None]
    return KappaResult(
        value=float(np.median(values)) if values else None,
        reason=None if values else (heads[0].flag if heads else "no rows"),
        per_head=tuple(head.kappa for head in heads),
        flags=tuple(head.flag for head in heads),
        std_error=tuple(head.std_error for head in heads),
        kl=tuple(head.kl for head in heads),
        explained=tuple(head.explained for head in heads),
        n_rows=tuple(head.n_rows for head in heads),
    )


def _fit(a: FloatArray, d: FloatArray, mask: NDArray[np.bool_], labels: NDArray[Any], start: float | None) -> _Head:
    keep = mask.sum(axis=1) >= 2
    a, d, mask, labels = a[keep], d[keep], mask[keep], labels[keep]
    n_rows = len(a)
    if not n_rows:
        return _Head(flag="no rows", n_rows=0)
    # Masked entries may hold anything, −inf·0 included: they are replaced before anything is computed.
    a, d = np.where(mask, a, 0.0), np.where(mask, d, 0.0)
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(d))):
        return _Head(flag="not finite", n_rows=n_rows)
    total = a.sum(axis=1, keepdims=True)
    if np.any(a < 0.0) or np.any(np.abs(total - 1.0) > _ROW_SUM_TOLERANCE):
        worst = float(np.abs(total - 1.0).max())
        raise ValueError(f"attention rows must be non-negative and sum to 1 over unmasked entries; off by {worst:.3g}")
    a = a / total
    count = mask.sum(axis=1)
    mean_d = float(d.sum() / count.sum())

    nearest = np.where(mask, d, np.inf).min(axis=1, keepdims=True)
    d = np.where(mask, d - nearest, 0.0)  # a shift of a row changes no softmax and keeps small differences
    farthest = d.max(axis=1)
    uniform_mean = d.sum(axis=1) / count
    uniform_var = np.where(mask, (d - uniform_mean[:, None]) ** 2, 0.0).sum(axis=1) / count
    if uniform_var.sum() <= _FLAT * mean_d**2:
        return _Head(flag="distances equal", n_rows=n_rows)
    target = (a * d).sum(axis=1)
    if (
        target.sum() <= _EDGE * uniform_mean.sum()
        or (farthest - target).sum() <= _EDGE * (farthest - uniform_mean).sum()
    ):
        return _Head(flag="unbounded", n_rows=n_rows)

    kappa = _solve(d, mask, float(target.sum()), 0.0 if start is None else start)
    mean, var, log_z = _moments(kappa, d, mask)
    entropy = -np.sum(a * np.log(a, out=np.zeros_like(a), where=a > 0.0), axis=1)
    kl = float(np.mean(kappa * target + log_z - entropy))
    kl_uniform = float(np.mean(np.log(count) - entropy))
    _, cluster = np.unique(labels, return_inverse=True)
    scores = np.bincount(cluster, weights=mean - target)
    return _Head(
        flag="negative" if kappa < 0.0 else None,
        n_rows=n_rows,
        kappa=kappa,
        std_error=math.sqrt(float(scores @ scores)) / float(var.sum()) if len(scores) > 1 else None,
        kl=max(kl, 0.0),
        explained=min(max(1.0 - kl / kl_uniform, 0.0), 1.0) if kl_uniform > 0.0 else None,
    )


def _solve(d: FloatArray, mask: NDArray[np.bool_], target: float, start: float) -> float:
    """The root of Σ_i E_k[d] − target, which falls with k: Newton steps kept inside a bracket that only shrinks."""
    unit = 1.0 / float(d.max())
    kappa = start if math.isfinite(start) else 0.0
    low, high = -math.inf, math.inf
    for _ in range(_MAX_ITERATIONS):
        mean, var, _ = _moments(kappa, d, mask)
        excess, slope = float(mean.sum()) - target, float(var.sum())
        if excess == 0.0:
            return kappa
        if excess > 0.0:
            low = kappa
        else:
            high = kappa
        reach = 4.0 * (abs(kappa) + unit)
        step = min(max(excess / slope, -reach), reach) if slope > 0.0 else math.copysign(reach, excess)
        proposal = kappa + step
        if not low < proposal < high:
            proposal = 0.5 * (low + high)
        moved, kappa = abs(proposal - kappa), proposal
        if moved <= _CONVERGED * (abs(kappa) + unit):
            return kappa
    return kappa


def _moments(k: float, d: FloatArray, mask: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and variance of d, and ln Σ_j exp(−k d_ij), of each row's softmax(−k d)."""
    logits = np.where(mask, -k * d, -np.inf)
    top = logits.max(axis=1, keepdims=True)
    weight = np.exp(logits - top)
    z = weight.sum(axis=1)
    mean = np.einsum("ij,ij->i", weight, d) / z
    var = np.einsum("ij,ij->i", weight, (d - mean[:, None]) ** 2) / z
    return mean, var, top[:, 0] + np.log(z)


def _numpy(x: Any) -> NDArray[Any]:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)


def _float64(x: Any) -> FloatArray:
    # A torch tensor is widened before it leaves torch: numpy has no bfloat16.
    return np.asarray(_numpy(x.detach().double() if hasattr(x, "detach") else x), dtype=np.float64)
