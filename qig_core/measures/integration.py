"""phi: effective information across the minimum-information bipartition of a linear map. numpy only, no model here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qig_core.geometry.simplex import FloatArray

Indices: TypeAlias = NDArray[np.intp]
_Side: TypeAlias = tuple[int, ...]

MAX_PARTS = 16
_GRAM_LIMIT = 1e6  # beyond this |A|/ε, 1 + AAᵀ/ε² is no longer positive definite in float64


@dataclass(frozen=True, kw_only=True)
class PhiResult:
    """Comparable with another only at equal dim_state, num_parts and noise, and equal choice of pass and parts."""

    score: float
    """phi = sqrt(1 − exp(−2 nats/dim)), in [0, 1)."""
    nats: float
    """Φ of the cut, averaged over positions."""
    dim: int
    """K, units on the smaller side of the cut."""
    cut: tuple[int, ...]
    """Parts on the side of the cut that does not hold part 0."""
    per_position_nats: tuple[float, ...]
    """Φ of the same cut at each position."""
    spread_nats: float
    """Their standard deviation (0 for one position)."""
    num_parts: int
    dim_state: int
    noise: float
    """ε, relative to the output's rms."""


def effective_information(a: ArrayLike, parts: Sequence[Sequence[int]], noise: float = 0.1) -> PhiResult:
    """Effective information across the cut that carries least of it, for y = A x + noise, x ~ N(0, 1).

    Φ(S | S̄) = ½ ln det(1 + A_SS̄ A_SS̄ᵀ/ε²) + ½ ln det(1 + A_S̄S A_S̄Sᵀ/ε²), averaged over positions; the cut minimises
    Φ/K, K = min(dim S, dim S̄), over all 2^(M−1) − 1 bipartitions of the M parts; score = sqrt(−expm1(−2 Φ/K)).

    Args:
        a: [d, d] or [P, d, d], relative maps J · rms(x)/rms(y): a[i, j] is what unit j sends to unit i.
        parts: M ≥ 2 disjoint groups of units that cover 0 .. d−1.
        noise: ε > 0, output noise relative to the output.

    Returns:
        PhiResult; exactly 0.0 where some cut carries nothing in either direction at any position.

    Raises:
        ValueError: a is not square, holds NaN or infinity, or parts do not partition its units.

    Source: Tononi & Sporns, BMC Neuroscience 4:31, 2003; score: Linfoot 1957. Determinants are those of the cross
    blocks themselves on the smaller Gram side (Cholesky; singular values where A/ε is extreme), never a difference.
    """
    maps = np.asarray(a, dtype=np.float64)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or not len(maps):
        raise ValueError(f"a must be [d, d] or [P, d, d], not {np.shape(a)}")
    if not np.all(np.isfinite(maps)):
        raise ValueError("a holds a value that is not finite: there is no phi of a broken map")
    if not (math.isfinite(noise) and noise > 0.0):
        raise ValueError(f"noise is {noise}: it must be positive")
    units = _partition(parts, maps.shape[1])
    scaled = maps / noise

    best: tuple[float, tuple[int, ...], int, FloatArray] | None = None
    for sides in _cuts_by_size(units):
        small = np.array([np.concatenate([units[i] for i in near]) for near, _, _ in sides])
        large = np.array([np.concatenate([units[i] for i in far]) for _, far, _ in sides])
        nats = np.array([_cut_nats(one, small, large) for one in scaled])  # [P, cuts]
        means = nats.mean(axis=0)
        least = int(np.argmin(means))
        share = float(means[least]) / small.shape[1]
        if best is None or share < best[0]:
            best = (share, sides[least][2], small.shape[1], nats[:, least])
    assert best is not None
    share, cut, dim, per_position = best
    return PhiResult(
        score=math.sqrt(-math.expm1(-2.0 * share)),
        nats=float(per_position.mean()),
        dim=dim,
        cut=cut,
        per_position_nats=tuple(per_position.tolist()),
        spread_nats=float(per_position.std(ddof=1)) if len(per_position) > 1 else 0.0,
        num_parts=len(units),
        dim_state=maps.shape[1],
        noise=noise,
    )


def _cuts_by_size(units: list[Indices]) -> list[list[tuple[_Side, _Side, _Side]]]:
    """All bipartitions as (smaller side, larger side, side without part 0), in groups of one smaller dimension."""
    num_parts = len(units)
    groups: dict[int, list[tuple[_Side, _Side, _Side]]] = {}
    for count in range(1, num_parts):
        for side in combinations(range(1, num_parts), count):
            other = tuple(i for i in range(num_parts) if i not in side)
            near, far = sorted((side, other), key=lambda s: sum(units[i].size for i in s))
            groups.setdefault(sum(units[i].size for i in near), []).append((near, far, side))
    return [groups[dim] for dim in sorted(groups)]


def _cut_nats(a: FloatArray, small: Indices, large: Indices) -> FloatArray:
    """Φ of each cut: a [d, d] already over ε, small [n, k] and large [n, d − k] the units of its sides."""
    into = a[small[:, :, None], large[:, None, :]]  # what the large side sends to the small one
    from_ = np.swapaxes(a[large[:, :, None], small[:, None, :]], 1, 2)
    return _half_logdet(into) + _half_logdet(from_)


def _half_logdet(blocks: FloatArray) -> FloatArray:
    """½ ln det(1 + B Bᵀ) of [n, k, m] blocks, k ≤ m."""
    if np.abs(blocks).max(initial=0.0) > _GRAM_LIMIT:
        singular = np.linalg.svd(blocks, compute_uv=False)
        # ln(1 + s²)/2 for any s, without squaring a large one
        return np.asarray(np.log(np.hypot(1.0, singular)).sum(axis=-1))
    gram = blocks @ np.swapaxes(blocks, 1, 2)
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += 1.0
    factor = np.linalg.cholesky(gram)
    return np.asarray(np.log(factor[:, diagonal, diagonal]).sum(axis=-1))


def _partition(parts: Sequence[Sequence[int]], dim: int) -> list[Indices]:
    if not 2 <= len(parts) <= MAX_PARTS:
        raise ValueError(f"{len(parts)} parts: between 2 and {MAX_PARTS} can be cut")
    units = [np.asarray(part, dtype=np.intp) for part in parts]
    if any(part.size == 0 for part in units) or not np.array_equal(np.sort(np.concatenate(units)), np.arange(dim)):
        raise ValueError(f"parts must hold each of the {dim} units once, and none may be empty")
    return units
