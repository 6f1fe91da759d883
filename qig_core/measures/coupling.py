"""kappa_eff: the measured inverse temperature of attention over its own distances. numpy only; no lattice κ here."""

import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qig_core.geometry.simplex import FloatArray

Flag: TypeAlias = Literal["no rows", "not finite", "distances equal", "unbounded", "negative"]
"""Why a head has no κ; "negative" alone stands beside a value (attention prefers what is far)."""

_FLAT = 1e-12  # share of mean(d)² under which distances carry no information
_EDGE = 1e-12  # share of the possible E[d] at which attention sits on the nearest (farthest) entries only
_UNIFORM = 1e-12  # mean nats from uniform attention below which rounding would be explained
_ROW_SUM_TOLERANCE = 1e-2  # bfloat16 attention rows are off by this much
_CONVERGED = 1e-5  # relative Newton step; the error of Halley's, taken in its place, is of the order of its cube
_REACH = 4.0  # relative step that none exceeds, and ratio of Newton's to Halley's above which neither is trusted
_MAX_ITERATIONS = 200
_TINY = 1e-300  # makes 0 ln 0 zero and leaves every a above 1e-284 as it is


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
    """1 − KL(attention ‖ fitted)/KL(attention ‖ uniform), summed over rows, in [0, 1]; None for uniform attention."""
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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Which entries [N, T] of a head take part; none of a row that has fewer than two."""

    bits: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    """All bits of an entry that takes part and none of another, and the opposite; None where all take part."""
    used: NDArray[np.bool_]
    count: FloatArray
    """Entries of a row; 1 where there are none: d = 0 alone, of which mean, variance and ln z are 0."""
    num_used: int
    num_entries: int
    cluster: NDArray[np.intp]
    """0, 1, ... of each used row."""

    def zeroed(self, x: FloatArray, out: FloatArray) -> FloatArray:
        """x, but 0 for the entries that take no part, whatever they hold."""
        if self.bits is None:
            return x
        return np.bitwise_and(x.view(np.int64), self.bits[0], out=out.view(np.int64)).view(np.float64)

    def hidden(self, x: FloatArray, out: FloatArray) -> FloatArray:
        """x, but NaN for the entries that take no part, whatever they hold."""
        if self.bits is None:
            return x
        return np.bitwise_or(x.view(np.int64), self.bits[1], out=out.view(np.int64)).view(np.float64)


class _Moments(NamedTuple):
    """Cumulants of d under softmax_j(−k d_ij), and ln z = ln Σ_j exp(−k d_ij), of each row."""

    mean: FloatArray
    var: FloatArray
    third: FloatArray
    log_z: FloatArray

    def moved(self, step: float) -> "_Moments":
        """At k + step, by Taylor: each is −d/dk of the one before, and mean is −d/dk ln z."""
        mean, var, third, log_z = self
        return _Moments(
            mean - step * (var - step / 2.0 * third),
            var - step * third,
            third,
            log_z - step * (mean - step / 2.0 * var),
        )


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
        ValueError: shapes differ, an argument is no array of numbers (clusters: nor of names), a mask holds something
            else than true and false (1 and 0), attention is negative, or an unmasked row's sum is off 1 by more than
            1e-2.

    Source: standard error sqrt(Σ_c s_c²)/Σ_i Var_i(d), s_c = Σ_{i in c}(E_κ[d] − E_a[d]) (sandwich, clustered).
    """
    a, d = _array(attention, "attention"), _array(distances, "distances")
    if a.ndim != 3 or a.shape != d.shape:
        raise ValueError(f"attention {a.shape} and distances {d.shape} must both be [H, N, T]")
    num_heads, num_rows, _ = a.shape
    allowed = np.ones(a.shape[1:], dtype=bool) if mask is None else _array(mask, "mask")
    if allowed.shape not in (a.shape[1:], a.shape):
        raise ValueError(f"mask {allowed.shape} must be [N, T] or [H, N, T] of {a.shape}")
    if allowed.dtype != bool and not np.isin(allowed, (0, 1)).all():
        raise ValueError("mask must hold true and false, or 1 and 0 (an additive mask means the opposite)")
    labels = (
        np.arange(num_rows) if clusters is None else _array(clusters, "clusters", kinds="biufSU", of="numbers or names")
    )
    if labels.shape != (num_rows,):
        raise ValueError(f"clusters {labels.shape} must hold one label for each of {num_rows} rows")
    starts = warm if warm is not None and len(warm) == num_heads else (None,) * num_heads
    rows = [_rows(each, labels) for each in allowed] if allowed.ndim == 3 else [_rows(allowed, labels)] * num_heads
    # In one piece, which the allocator keeps for the next call: fresh pages cost more than the arithmetic in them.
    work = np.empty((3, *a.shape[1:]))
    heads = [_fit(a[h], d[h], rows[h], starts[h], work) for h in range(num_heads)]
    values = [head.kappa for head in heads if head.kappa is not None]
    return KappaResult(
        value=statistics.median(values) if values else None,
        reason=None if values else (heads[0].flag if heads else "no rows"),
        per_head=tuple(head.kappa for head in heads),
        flags=tuple(head.flag for head in heads),
        std_error=tuple(head.std_error for head in heads),
        kl=tuple(head.kl for head in heads),
        explained=tuple(head.explained for head in heads),
        n_rows=tuple(head.n_rows for head in heads),
    )


def _fit(attention: NDArray[Any], distances: NDArray[Any], rows: _Rows, start: float | None, work: FloatArray) -> _Head:
    used, count, n_rows = rows.used, rows.count, rows.num_used
    if not n_rows:
        return _Head(flag="no rows", n_rows=0)
    d, weight, spare = work
    ones = np.ones(d.shape[1])
    a = rows.zeroed(np.asarray(attention, dtype=np.float64), out=spare)
    total = np.where(used, a @ ones, 1.0)
    distances = rows.hidden(np.asarray(distances, dtype=np.float64), out=d)
    nearest = np.where(used, np.fmin.reduce(distances, axis=1), 0.0)
    if not math.isfinite(total.sum() + nearest.sum()):
        return _Head(flag="not finite", n_rows=n_rows)
    # The shift changes no softmax and keeps small differences.
    d = rows.zeroed(np.subtract(distances, nearest[:, None], out=d), out=d)
    uniform = (d @ ones) / count
    at_zero = float(uniform.sum())
    if not math.isfinite(at_zero):
        return _Head(flag="not finite", n_rows=n_rows)
    least, off = float(a.min()), float(np.abs(total - 1.0).max())
    if least < 0.0 or off > _ROW_SUM_TOLERANCE:
        raise ValueError(
            "attention rows must be non-negative and sum to 1 over unmasked entries; "
            f"the least entry is {least:.3g}, a sum is off by {off:.3g}"
        )

    target = np.vecdot(a, d) / total
    wanted = float(target.sum())
    uniform_var = float((np.vecdot(d, d) / count - uniform**2).sum())
    mean_d = float((uniform + nearest) @ count) / rows.num_entries
    if uniform_var <= _FLAT * mean_d**2:
        return _Head(flag="distances equal", n_rows=n_rows)
    sign = 1.0
    if wanted > at_zero:
        # Attention prefers the far: −κ couples it to how much nearer than the farthest an entry is.
        sign = -1.0
        d = rows.zeroed(np.subtract(d.max(axis=1, keepdims=True), d, out=d), out=d)
        target = np.vecdot(a, d) / total
        wanted, at_zero = float(target.sum()), float((d @ ones / count).sum())
    if wanted <= _EDGE * at_zero:
        return _Head(flag="unbounded", n_rows=n_rows)

    first = 0.0 if start is None else sign * start
    if not 0.0 < first < math.inf:
        first = (at_zero - wanted) / uniform_var  # Newton's step from 0
    kappa, fitted = _solve(wanted, first, n_rows / at_zero, d, len(ones) - count, weight)
    np.log(np.add(a, _TINY, out=weight), out=weight)
    entropy = np.log(total) - np.vecdot(a, weight) / total
    kl = float((kappa * target + fitted.log_z - entropy).sum()) / n_rows
    kl_uniform = float((np.log(count) - entropy).sum()) / n_rows
    scores = np.bincount(rows.cluster, weights=(fitted.mean - target)[used])
    return _Head(
        flag="negative" if sign * kappa < 0.0 else None,
        n_rows=n_rows,
        kappa=sign * kappa,
        std_error=math.sqrt(float(scores @ scores)) / float(fitted.var.sum()) if len(scores) > 1 else None,
        kl=max(kl, 0.0),
        explained=min(max(1.0 - kl / kl_uniform, 0.0), 1.0) if kl_uniform > _UNIFORM else None,
    )


def _solve(
    target: float, start: float, unit: float, d: FloatArray, masked: FloatArray, weight: FloatArray
) -> tuple[float, _Moments]:
    """The k ≥ 0 where Σ_i E_k[d], which falls with k, is target: Halley steps kept inside a bracket that only shrinks.

    Halley's step is right at once for E_k[d] ~ 1/k, which many near entries give, where Newton's overshoots.
    """
    kappa, low, high = start, 0.0, math.inf
    for _ in range(_MAX_ITERATIONS):
        at = _moments(kappa, d, masked, weight)
        excess, slope, third = float(at.mean.sum()) - target, float(at.var.sum()), float(at.third.sum())
        reach = _REACH * (kappa + unit)
        halley = slope - excess * third / (2.0 * slope) if slope > 0.0 else 0.0
        trusted = 0.0 < halley < _REACH * slope
        step = min(max(excess / halley, -reach), reach) if trusted else math.copysign(reach, excess)
        if abs(excess) <= _CONVERGED * (kappa + unit) * slope:
            return kappa + step, at.moved(step)
        low, high = (kappa, high) if excess > 0.0 else (low, kappa)
        kappa = kappa + step if low < kappa + step < high else 0.5 * (low + high)
    return kappa, _moments(kappa, d, masked, weight)


def _moments(k: float, d: FloatArray, masked: FloatArray, weight: FloatArray) -> _Moments:
    """For k ≥ 0 where each row's least d is 0: z ≥ 1, nothing overflows, and E[d²] ≤ T Var(d), so that raw moments
    cost no more than a factor T of precision. A masked entry, its d 0, adds 1 to z, taken off, and nothing else."""
    ones = np.ones(d.shape[1])
    np.exp(np.multiply(d, -k, out=weight), out=weight)
    z = weight @ ones - masked
    weight *= d
    mean = (weight @ ones) / z
    weight *= d
    square = (weight @ ones) / z
    cube = np.vecdot(weight, d) / z
    return _Moments(mean, square - mean**2, cube - mean * (3.0 * square - 2.0 * mean**2), np.log(z))


def _rows(mask: NDArray[Any], labels: NDArray[Any]) -> _Rows:
    mask = mask.astype(bool)
    count = mask.sum(axis=1)
    used = count >= 2
    mask &= used[:, None]
    seen = -mask.astype(np.int64)
    return _Rows(
        bits=None if mask.all() else (seen, ~seen),
        used=used,
        count=np.where(used, count, 1.0),
        num_used=int(used.sum()),
        num_entries=int(count[used].sum()),
        cluster=np.unique(labels[used], return_inverse=True)[1],
    )


def _array(x: Any, name: str, kinds: str = "biuf", of: str = "numbers") -> NDArray[Any]:
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if x.is_floating_point() and x.itemsize < 4 else x  # numpy has no bfloat16
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{name} must be one array: its rows differ in length") from None
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} must be an array of {of}, not of {array.dtype}")
    return array
