"""The path of a run's basins as a plane map: principal directions at their Fréchet mean. numpy only; draws nothing."""

from dataclasses import dataclass

import numpy as np

from qig_core.geometry.simplex import Simplex, log, tangent_pca
from qig_tui.series import Floats, Ints

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Trail:
    """A path on the simplex in the two directions of the tangent space at its Fréchet mean in which it spreads most.

    Tangent vectors are those of the square-root sphere, whose Euclidean length is the Fisher–Rao length in radians:
    both axes are in radians from the mean, and distances to the mean are true, others nearly so.
    """

    step: Ints
    scores: Floats
    """[N, 2], radians."""
    explained: tuple[float, float]
    """Of the variance in all directions."""
    spread_rad: float
    """Root mean square distance to the mean."""
    centre: Simplex
    directions: Floats
    """[2, K], orthonormal tangent vectors at the centre."""

    def place(self, points: Floats) -> Floats:
        """[n, 2]: where basins [n, K] lie on this map."""
        found: Floats = log(self.centre, points) @ self.directions.T
        return found


def trail_of(steps: Ints, points: Floats) -> Trail:
    """Tangent principal component analysis (Fletcher et al. 2004) of a path at its Fréchet mean.

    The signs are chosen so that the path begins on the left and below: the picture of a path that grows keeps its
    sides. Where it begins in the middle, the largest entry of a direction is positive.

    Args:
        steps: [N], oldest first.
        points: [N, K] on the simplex, N ≥ 3, K ≥ 2.
    """
    found = tangent_pca(points)
    count = len(points)
    scores, directions, explained = np.zeros((count, 2)), np.zeros((2, points.shape[1])), [0.0, 0.0]
    for axis in range(min(2, len(found.share))):
        along = found.scores[:, axis]
        begins_right = along[0] > _ROUNDING * float(np.abs(along).max())
        sign = -1.0 if begins_right else 1.0
        scores[:, axis], directions[axis] = sign * along, sign * found.components[axis]
        explained[axis] = float(found.share[axis])
    return Trail(
        step=steps,
        scores=scores,
        explained=(explained[0], explained[1]),
        spread_rad=float(np.sqrt(found.variance.sum())),
        centre=found.base,
        directions=directions,
    )
