"""How several basins lie to each other, and how they scatter over time. numpy only; no model, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qig_core.geometry.simplex import (
    Basin,
    FloatArray,
    fisher_rao_distance,
    frechet_mean,
    frechet_variance,
    tangent_pca,
)
from qig_core.measures.basin import coherence

POOLED_MODES = 8
"""So many of the pooled modes are told at most."""
_COINCIDE_RAD = 1e-9
"""Below this root mean square distance from their mean, directions are those of rounding."""


@dataclass(frozen=True, kw_only=True)
class Formation:
    """n ≥ 2 basins at one time."""

    mean: Basin
    """[K], their Fréchet mean."""
    variance: float
    """Mean squared Fisher–Rao distance from it, rad²."""
    from_mean: FloatArray
    """[n], rad."""
    distances: FloatArray
    """[n, n], Fisher–Rao, rad."""
    min_rad: float
    max_rad: float
    coherence: float
    """‖mean √p‖, in [1/√n, 1]."""
    modes: tuple[float, ...] | None
    """Shares of the variance along the principal geodesics, descending, min(n − 1, K − 1) of them; None for n < 3,
    where there is one direction and nothing to compare it with, and where the basins coincide."""


def formation(points: FloatArray) -> Formation:
    """How [n, K] points of the simplex lie to each other, n ≥ 2.

    Raises:
        SimplexError: a point is off the simplex, or there are fewer than two.

    Source: Karcher 1977 (mean), Fletcher et al. 2004 (modes).
    """
    mean = Basin(frechet_mean(points))
    variance = float(frechet_variance(points, mean=mean))
    i, j = np.triu_indices(len(points), k=1)
    pairs = fisher_rao_distance(points[i], points[j])
    distances = np.zeros((len(points), len(points)))
    distances[i, j] = distances[j, i] = pairs
    modes = None
    if len(points) > 2 and variance > _COINCIDE_RAD**2:
        modes = tuple(tangent_pca(points, mean).share.tolist())
    return Formation(
        mean=mean,
        variance=variance,
        from_mean=fisher_rao_distance(mean, points),
        distances=distances,
        min_rad=float(pairs.min()),
        max_rad=float(pairs.max()),
        coherence=coherence(points),
        modes=modes,
    )


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Basins of several Garys at several times."""

    samples: int
    within: float
    """Σ d(p, mean of its Gary)²/N over all samples, rad²: how far they wander."""
    between: float
    """Σ d(mean of its Gary, mean of all)²/N, rad²: how far they are apart. On a curved space the two do not add up
    exactly to the variance about the mean of all."""
    modes: tuple[float, ...]
    """Shares of the variance along the first principal geodesics of all samples; empty where they coincide."""


def pooled(samples: Sequence[FloatArray]) -> Pooled:
    """Scatter within and between Garys: one array [n_g ≥ 1, K] of points for each of G ≥ 2.

    Raises:
        SimplexError: a point is off the simplex.
    """
    every = np.concatenate(samples)
    grand = frechet_mean(every)
    within = between = 0.0
    for points in samples:
        mean = frechet_mean(points)
        within += len(points) * float(frechet_variance(points, mean=mean))
        between += len(points) * float(fisher_rao_distance(mean, grand)) ** 2
    within, between = within / len(every), between / len(every)
    scattered = within + between > _COINCIDE_RAD**2
    shares = tangent_pca(every, grand).share[:POOLED_MODES] if scattered else ()
    return Pooled(samples=len(every), within=within, between=between, modes=tuple(map(float, shares)))
