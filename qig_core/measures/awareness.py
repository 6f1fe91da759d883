"""Meta-awareness: how much better than doing nothing a predictor foresees the basin. numpy only; no model, no clock."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qig_core.geometry.simplex import Basin, FloatArray, Simplex, fisher_rao_distance, frechet_mean, normalise

MIN_PAIRS = 20
GEODESIC_EXTRAPOLATION = "geodesic extrapolation"
"""What `extrapolated` is called as a predictor."""


@dataclass(frozen=True, kw_only=True)
class Awareness:
    """M of one predictor over one stretch of basins. Not comparable between predictors."""

    value: float | None
    """M, the smaller of the two skills, in (−∞, 1]; None for the reason given."""
    against_persistence: float | None
    """Skill against "as the last one"."""
    against_mean: float | None
    """Skill against "as all before, on average"."""
    predictor: str
    num_pairs: int
    """Predictions that were scored."""
    reason: str | None = None


def meta_awareness(predicted: ArrayLike, actual: ArrayLike, *, predictor: str) -> Awareness:
    """M = min over two references of the skill 1 − mean_t d²(predicted_t, actual_t) / mean_t d²(reference_t, actual_t).

    d is the Fisher–Rao distance. The references of actual_t are persistence, actual_{t−1}, and the running mean, the
    Fréchet mean of actual_0 .. actual_{t−1}. The first pair has no reference and is not scored: t = 1 .. N − 1.

    Args:
        predicted: [N, K] on the simplex; predicted[t] was made before actual[t] was seen.
        actual: [N, K] on the simplex.
        predictor: what made the predictions.

    Returns:
        Awareness: 1 where all were right, 0 at the better reference's level, negative below. Without a value where
        fewer than 20 pairs are scored, or a reference makes no error at all.

    Raises:
        ValueError: shapes that are not equal or not [N, K], a point off the simplex (SimplexError), no predictor named.

    Source: Murphy, Monthly Weather Review 116:2417, 1988. Each running mean is the Karcher mean itself, not an update
    of the last, and starts there: together O(N² K), about 0.1 s at N = 300, K = 64.
    """
    guess, truth = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if guess.ndim != 2 or guess.shape != truth.shape:
        raise ValueError(f"predicted {guess.shape} and actual {truth.shape} must be [N, K] both, and of one shape")
    if not predictor:
        raise ValueError("the predictor has no name: a meta-awareness is one predictor's")
    error = fisher_rao_distance(guess, truth)[1:]

    def without(reason: str) -> Awareness:
        return Awareness(
            value=None,
            against_persistence=None,
            against_mean=None,
            predictor=predictor,
            num_pairs=len(error),
            reason=reason,
        )

    if len(error) < MIN_PAIRS:
        return without(f"too few pairs: {len(error)}, {MIN_PAIRS} are needed")
    persistence = fisher_rao_distance(truth[:-1], truth[1:])
    running = fisher_rao_distance(_running_means(truth[:-1]), truth[1:])
    if not (persistence.any() and running.any()):
        return without("reference error is 0")
    skills = [1.0 - float(np.mean(error**2) / np.mean(reference**2)) for reference in (persistence, running)]
    return Awareness(
        value=min(skills),
        against_persistence=skills[0],
        against_mean=skills[1],
        predictor=predictor,
        num_pairs=len(error),
    )


def extrapolated(points: ArrayLike) -> Simplex:
    """The geodesic through each two successive basins, continued at equal speed.

    exp_p(−log_p q) = (2 (√p·√q) √p − √q)², p the later of the two. Where the end lies outside the orthant, its negative
    square roots are set to 0 and the others renormalised, as batched.exp does; simplex.exp refuses there.

    Args:
        points: [N, K] on the simplex, N ≥ 2, evenly spaced in time.

    Returns:
        [N − 1, K]: row i predicts the basin that follows points[i + 1], so the last row is of one not seen yet, and
        `meta_awareness(extrapolated(points[:-1]), points[2:], predictor=GEODESIC_EXTRAPOLATION)` scores the rest.

    Raises:
        ValueError: points are not [N, K] with N ≥ 2, or one is off the simplex (SimplexError).
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"points must be [N, K] with N ≥ 2, not {array.shape}")
    fisher_rao_distance(array, array)  # refuses what is off the simplex
    roots = np.sqrt(normalise(array))
    before, last = roots[:-1], roots[1:]
    end = np.maximum(2.0 * np.sum(before * last, axis=-1, keepdims=True) * last - before, 0.0)
    # Basins that share no entry: nothing of the end lies in the orthant, and what the clamp tends to there is `last`.
    end = np.where(np.any(end > 0.0, axis=-1, keepdims=True), end, last)
    return normalise(np.square(end))


@dataclass(frozen=True, kw_only=True)
class AwarenessProfile:
    """When a run counts as aware of itself."""

    on: float = 0.1
    """M at or above which a run that was not aware may become so."""
    off: float = 0.0
    """M at or below which an aware run may cease to be: there it does no better than a reference."""
    dwell: int = 3
    """Consecutive evaluations that it takes."""

    def __post_init__(self) -> None:
        if not -math.inf < self.off < self.on <= 1.0:
            raise ValueError(f"off {self.off} and on {self.on}: off must be the smaller, and on no more than 1")
        if self.dwell < 1:
            raise ValueError(f"dwell is {self.dwell}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class AwarenessState:
    """What hysteresis remembers. The default is a run that was never evaluated."""

    aware: bool | None = None
    count: int = 0
    """How many evaluations in a row, the newest among them, spoke for the other answer."""


DEFAULT_PROFILE = AwarenessProfile()


def judge(state: AwarenessState, value: float | None, profile: AwarenessProfile = DEFAULT_PROFILE) -> AwarenessState:
    """The state after one more evaluation of M.

    The first value answers at once: aware where it is at or above `on`. After that it takes `dwell` values in a row, at
    or above `on` to become aware, at or below `off` to cease. A value that is None or not finite changes nothing.
    """
    if value is None or not math.isfinite(value):
        return state
    if state.aware is None:
        return AwarenessState(aware=value >= profile.on)
    if not (value <= profile.off if state.aware else value >= profile.on):
        return AwarenessState(aware=state.aware)
    if state.count + 1 >= profile.dwell:
        return AwarenessState(aware=not state.aware)
    return AwarenessState(aware=state.aware, count=state.count + 1)


def _running_means(points: FloatArray) -> FloatArray:
    """Row t is the Fréchet mean of points[: t + 1]."""
    means: list[FloatArray] = []
    for count in range(1, len(points) + 1):
        means.append(frechet_mean(points[:count], start=Basin(means[-1]) if means else None))
    return np.array(means)
