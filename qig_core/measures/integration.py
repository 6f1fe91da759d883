"""phi: effective information across the minimum-information bipartition of a linear map. numpy only, no model here."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qig_core.geometry.simplex import FloatArray

Indices: TypeAlias = NDArray[np.intp]

MAX_PARTS = 12
"""2047 cuts."""
_CHUNK = 2**18  # numbers in the cross blocks held at a time: 2 MB
_GRAM_LIMIT = 1e6  # beyond this |A|/ε, 1 + AAᵀ/ε² is no longer positive definite in float64


class _Cut(NamedTuple):
    near: tuple[int, ...]  # parts of the smaller side, in the order of the Gram matrix's rows
    far: tuple[int, ...]
    dim: int  # K


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
    share: float | None
    """Φ_G/Φ of the cut, each averaged over positions, in [0, 1]: see geometric_integration. None where Φ is 0, or where
    it was not asked for."""
    num_parts: int
    dim_state: int
    noise: float
    """ε, relative to the output's rms."""


def effective_information(
    a: ArrayLike, parts: Sequence[Sequence[int]], noise: float = 0.1, *, share: bool = True, threads: int = 1
) -> PhiResult:
    """Effective information across the cut that carries least of it, for y = A x + noise, x ~ N(0, 1).

    Φ(S | S̄) = ½ ln det(1 + A_SS̄ A_SS̄ᵀ/ε²) + ½ ln det(1 + A_S̄S A_S̄Sᵀ/ε²), averaged over positions; the cut minimises
    Φ/K, K = min(dim S, dim S̄), over all 2^(M−1) − 1 bipartitions of the M parts; score = sqrt(−expm1(−2 Φ/K)).

    Args:
        a: [d, d] or [P, d, d], relative maps J · rms(x)/rms(y): a[i, j] is what unit j sends to unit i.
        parts: M ≥ 2 disjoint groups of units that cover 0 .. d−1.
        noise: ε > 0, output noise relative to the output.
        share: whether to compute Φ_G of the cut too, for a tenth of the time.
        threads: among which the positions are shared out; the result is the same.

    Returns:
        PhiResult; exactly 0.0 where some cut carries nothing in either direction at any position.

    Raises:
        ValueError: a is not square, holds NaN or infinity, or parts do not partition its units.

    Source: Tononi & Sporns, BMC Neuroscience 4:31, 2003; score: Linfoot 1957. Determinants are those of the cross
    blocks themselves on the smaller Gram side (Cholesky; singular values where A/ε is extreme), never a difference.
    The minimum is that over all cuts; those that a bound excludes are not evaluated (_floors).
    """
    scaled = _scaled(a, noise)
    num_positions, dim_state, _ = scaled.shape
    units = partition(parts, dim_state)
    both = np.concatenate([scaled, scaled.swapaxes(1, 2)])  # [2P, d, d]: what a side receives, then what it sends
    extreme = float(np.abs(scaled).max()) > _GRAM_LIMIT
    half_logdet = _by_singular_values if extreme else _by_cholesky
    holds = np.zeros((dim_state, len(units)))  # [d, M]: unit u is in part i
    for i, part in enumerate(units):
        holds[part, i] = 1.0

    every = _cuts(tuple(part.size for part in units))
    least, best, per_position = math.inf, every[0], np.zeros(num_positions)
    known = gains = np.zeros((0, len(units)))  # of the near sides evaluated so far: see _floors
    with ThreadPoolExecutor(threads) as pool:
        for cuts in _chunks(every, dim_state):
            near = np.array([[i in cut.near for i in range(len(units))] for cut in cuts], dtype=np.float64)
            tried = np.flatnonzero(_floors(near, known, gains) < least * cuts[0].dim)
            if not tried.size:
                continue
            small = np.array([_units_of(cuts[n].near, units) for n in tried])
            large = np.array([_units_of(cuts[n].far, units) for n in tried])
            places = small[:, :, None] * dim_state + large[:, None, :]
            terms = np.array(list(pool.map(lambda a, at=places: half_logdet(a.ravel().take(at)), both)))  # [2P, n, K]
            terms = terms[:num_positions] + terms[num_positions:]
            nats = terms.sum(axis=2)
            means = nats.mean(axis=0) / small.shape[1]
            winner = int(means.argmin())
            if means[winner] < least:
                least, best, per_position = float(means[winner]), cuts[tried[winner]], nats[:, winner]
            if not extreme:
                known = np.concatenate([known, near[tried]])
                gains = np.concatenate([gains, (terms.mean(axis=0)[:, None, :] @ holds[small])[:, 0]])

        geometric = whole = 0.0
        if share and least > 0.0:
            geometric, whole = _geometric(scaled, _units_of(best.near, units), _units_of(best.far, units), pool)
    return PhiResult(
        score=math.sqrt(-math.expm1(-2.0 * least)),
        nats=float(per_position.mean()),
        dim=best.dim,
        cut=tuple(sorted(best.near if 0 in best.far else best.far)),
        per_position_nats=tuple(per_position.tolist()),
        spread_nats=float(per_position.std(ddof=1)) if num_positions > 1 else 0.0,
        share=min(geometric / whole, 1.0) if whole > 0.0 else None,
        num_parts=len(units),
        dim_state=dim_state,
        noise=noise,
    )


def geometric_integration(a: ArrayLike, cut: Sequence[int], noise: float = 0.1) -> float:
    """Φ_G, the information that y = A x + noise loses with its best replacement A' that has no entry across the cut.

    Φ_G = min over A' of ½ ln det(1 + (A − A')(A − A')ᵀ/ε²) = Σ_i [ln(b_i + c_i) if b_i c_i > 1, else
    ½ ln((1 + b_i²)(1 + c_i²))], b and c the descending singular values of the two cross blocks over ε, the unpaired
    c_i = 0. At most the effective information of the same cut, and equal to it just where b_0 c_0 ≤ 1: beyond, what
    is sent one way foretells part of what is sent the other way.

    Args:
        a: [d, d] or [P, d, d], relative maps as for effective_information.
        cut: the units (not parts) of one side.
        noise: ε > 0, output noise relative to the output.

    Returns:
        nats, averaged over positions; 0.0 where nothing crosses.

    Raises:
        ValueError: a is not square, holds NaN or infinity, or cut is empty, all units, repeats one or leaves 0 .. d−1.

    Source: Oizumi, Tsuchiya & Amari, PNAS 113:14817, 2016; the closed form was met by numerical minimisation (tests).
    """
    scaled = _scaled(a, noise)
    dim_state = scaled.shape[1]
    side = np.asarray(cut, dtype=np.intp)
    other = np.setdiff1d(np.arange(dim_state), side)
    if not (0 < side.size < dim_state and side.size + other.size == dim_state and np.unique(side).size == side.size):
        raise ValueError(f"cut {tuple(cut)} must hold some but not all of the units 0 .. {dim_state - 1}, each once")
    with ThreadPoolExecutor(1) as pool:
        return _geometric(scaled, side, other, pool)[0]


def _geometric(scaled: FloatArray, side: Indices, other: Indices, pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Φ_G and the effective information of one cut, from the same singular values; each averaged over positions."""
    blocks = (scaled[:, side[:, None], other], scaled[:, other[:, None], side])
    b, c = pool.map(lambda block: np.linalg.svd(block, compute_uv=False), blocks)
    both = np.log(np.hypot(1.0, b)) + np.log(np.hypot(1.0, c))
    with np.errstate(over="ignore", divide="ignore"):
        lost = np.where(b * c > 1.0, np.log(b + c), both)
    return float(lost.sum(axis=1).mean()), float(both.sum(axis=1).mean())


def _scaled(a: ArrayLike, noise: float) -> FloatArray:
    """A/ε as [P, d, d], checked."""
    if np.iscomplexobj(a):
        raise ValueError("a is complex: a map of real states is real")
    maps = np.asarray(a, dtype=np.float64)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or not len(maps):
        raise ValueError(f"a must be [d, d] or [P, d, d], not {np.shape(a)}")
    if not (math.isfinite(noise) and noise > 0.0):
        raise ValueError(f"noise is {noise}: it must be positive")
    with np.errstate(over="ignore"):
        scaled = maps / noise
    if not np.all(np.isfinite(scaled)):
        raise ValueError("a, or a/noise, holds a value that is not finite: there is no phi of a broken map")
    return scaled


@lru_cache(maxsize=8)
def _cuts(sizes: tuple[int, ...]) -> tuple[_Cut, ...]:
    """All bipartitions of parts of so many units, the most even first."""
    cuts: list[_Cut] = []
    for count in range(1, len(sizes)):
        for turn, side in enumerate(combinations(range(1, len(sizes)), count)):
            other = tuple(i for i in range(len(sizes)) if i not in side)
            # Of two equal sides either will do, in any order: taking turns lets _floors exclude more of the rest.
            pair = (side, other) if turn % 2 else (other, side)
            near, far = sorted(pair, key=lambda parts: sum(sizes[i] for i in parts))
            first = turn // 2 % len(near)
            cuts.append(_Cut(near[first:] + near[:first], far, sum(sizes[i] for i in near)))
    return tuple(sorted(cuts, key=lambda cut: -cut.dim))


def _chunks(cuts: tuple[_Cut, ...], dim_state: int) -> Iterator[list[_Cut]]:
    """Runs of cuts of one K, their cross blocks within _CHUNK numbers (a single cut at least)."""
    for dim, run in groupby(cuts, key=lambda cut: cut.dim):
        same, most = list(run), max(1, _CHUNK // (dim * (dim_state - dim)))
        yield from (same[i : i + most] for i in range(0, len(same), most))


def _units_of(side: tuple[int, ...], units: list[Indices]) -> Indices:
    return np.concatenate([units[i] for i in side])


def _floors(near: FloatArray, known: FloatArray, gains: FloatArray) -> FloatArray:
    """Lower bounds [n] of Φ(S) for near sides S [n, M], from those T [N, M] whose gains [N, M] are known.

    Φ(T) is the sum of its rows' Cholesky terms, each given the rows before it; gain_T(i) is the sum over part i. For
    S ⊂ T, Φ(S) ≥ Σ_{i in S} gain_T(i): the parts that leave T cease to explain rows of S and join the far side, whose
    Gram matrix adds to theirs, and either can only raise a term.
    """
    covers = near @ (1.0 - known).T == 0.0
    return np.asarray(np.where(covers, near @ gains.T, 0.0).max(axis=1, initial=0.0))


def _by_cholesky(blocks: FloatArray) -> FloatArray:
    """Terms [n, k] that sum to ½ ln det(1 + B Bᵀ) of [n, k, m] blocks, k ≤ m: each row's, given the rows before it."""
    gram = blocks @ np.swapaxes(blocks, 1, 2)
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += 1.0
    pivots = np.linalg.cholesky(gram)[:, diagonal, diagonal]
    return np.asarray(np.log(np.maximum(pivots, 1.0)))  # rounding alone brings one below 1


def _by_singular_values(blocks: FloatArray) -> FloatArray:
    """Terms [n, k] of the same sum, for blocks of any size: no value is squared. They belong to no row."""
    return np.asarray(np.log(np.hypot(1.0, np.linalg.svd(blocks, compute_uv=False))))


def partition(parts: Sequence[Sequence[int]], dim: int, *, least: int = 2, most: int = MAX_PARTS) -> list[Indices]:
    """The parts as arrays of units. Raises ValueError where they do not hold each of 0 .. dim−1 once."""
    if not least <= len(parts) <= most:
        raise ValueError(f"{len(parts)} parts: between {least} and {most} are possible")
    units = [np.asarray(part, dtype=np.intp) for part in parts]
    if any(part.size == 0 for part in units) or not np.array_equal(np.sort(np.concatenate(units)), np.arange(dim)):
        raise ValueError(f"parts must hold each of the {dim} units once, and none may be empty")
    return units
