"""The 64-D basin of a model and how far it drifts, from points alone. numpy only; no model, no clock."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qig_core.errors import SimplexError
from qig_core.geometry.simplex import Basin, FloatArray, fisher_rao_distance, frechet_mean, log, normalise

BASIN_SIZE = 64
OLDEST_LAG = 150
NEWEST_LAG = 50
ARMED_AFTER = 200
COHERENCE_WINDOW = 50


def readout(width: int, size: int = BASIN_SIZE, seed: int = 0) -> FloatArray:
    """A fixed seeded map [size, width] from a state to the logits of its basin.

    Orthonormal rows where size ≤ width, orthonormal columns otherwise: Q of the QR decomposition of a Gaussian matrix,
    signs fixed by diag(R) > 0, so that it does not depend on the linear algebra library. Never trained.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    q, r = np.linalg.qr(rng.standard_normal((max(size, width), min(size, width))))
    q = q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    return np.asarray(q if size >= width else q.T)


def basin_of(pooled_state: ArrayLike, readout: FloatArray) -> Basin:
    """softmax(R z): the basin of a pooled state z.

    Args:
        pooled_state: z, [width], mean state over a FIXED probe batch; pooling the minibatch triples the velocity's
            noise.
        readout: R, [size, width].

    Returns:
        [size] on the simplex.

    Raises:
        ValueError: z is not finite, or its width is not the readout's.
    """
    z = np.asarray(pooled_state, dtype=np.float64)
    if z.shape != readout.shape[1:]:
        raise ValueError(f"state {z.shape} and readout {readout.shape} do not fit")
    if not np.all(np.isfinite(z)):
        raise ValueError("the pooled state is not finite: there is no basin of a broken model")
    logits = readout @ z
    return Basin(normalise(np.exp(logits - logits.max())))


def coherence(points: ArrayLike) -> float:
    """C = ‖mean_t √p_t‖ over a window of basins: the resultant length of their square roots.

    Args:
        points: [W, K], W ≥ 1, non-negative; each row is normalised.

    Returns:
        In [1/√min(W, K), 1]: 1 where all are equal, 1/√W where no two share an entry.

    Raises:
        ValueError: points are not [W, K], or a row cannot be normalised (SimplexError).
    """
    return float(np.linalg.norm(_roots(points).mean(axis=0)))


def coherence_drift(points: ArrayLike, window: int) -> float | None:
    """C_{t−W} − C_t, C_t the coherence of the W basins up to t: positive where the newest are the more scattered.

    Args:
        points: [N, K], oldest first, the last at t; as in `coherence`. Only the newest 2 W count.
        window: W ≥ 1.

    Returns:
        In [−1, 1]; None for N < 2 W.

    Raises:
        ValueError: as `coherence`, or window is less than 1.
    """
    if window < 1:
        raise ValueError(f"a window of {window} basins has no coherence: it must be at least 1")
    roots = _roots(points)
    if len(roots) < 2 * window:
        return None
    before, now = (np.linalg.norm(half.mean(axis=0)) for half in np.split(roots[-2 * window :], 2))
    return float(before - now)


def drift_acceleration(before: ArrayLike, middle: ArrayLike, after: ArrayLike) -> float:
    """‖log_m(p_{t}) + log_m(p_{t−2})‖ at m = p_{t−1}: the covariant second difference of three successive basins.

    Args:
        before, middle, after: p_{t−2}, p_{t−1}, p_t, [K] each, on the simplex.

    Returns:
        Radians per squared interval between samples, in [0, 2π]; 0 on a geodesic run through at constant speed.

    Raises:
        SimplexError: a point off the simplex.
    """
    # Both sides have one shape, so that they are normalised by the same rounding and a model at rest gives exactly 0.
    return float(np.linalg.norm(log(np.array([middle, middle]), np.array([before, after])).sum(axis=0)))


def _roots(points: ArrayLike) -> FloatArray:
    roots = np.sqrt(normalise(points))
    if roots.ndim != 2 or not len(roots):
        raise ValueError(f"points must be [W, K] with W ≥ 1, not {roots.shape}")
    return roots


class BasinTracker:
    """Drift of a stream of basins: d to the first, to a mean of the older ones, and to the last; how they scatter.

    It remembers the 151 newest samples; `state()` is all of it as plain data, `from_state` its inverse.
    """

    def __init__(self) -> None:
        self._count = 0
        self._birth: Basin | None = None
        self._window: deque[Basin] = deque(maxlen=OLDEST_LAG + 1)
        self._mean: Basin | None = None  # the last Fréchet mean, where the next one starts

    @property
    def count(self) -> int:
        """Samples seen."""
        return self._count

    @property
    def reference(self) -> Basin | None:
        """What drift_rolling was last measured from; before it is armed the first sample, None before that."""
        return self._birth if self._mean is None else self._mean

    def observe(self, basin: Basin) -> dict[str, float]:
        """Take the next sample and measure it: Fisher–Rao distances, radians, in [0, π] unless it says otherwise.

        Returns:
            drift_birth, to the first sample (shown, never limited); drift_velocity, to the sample before, absent for
            the first; drift_acceleration, see there, in [0, 2π], absent before the third; drift_rolling, to the
            Fréchet mean of samples t−150 .. t−50, absent before the 200th; coherence of the newest 50 samples, without
            unit, in (0, 1], absent before the 50th.

        Raises:
            SimplexError: a point off the simplex; the tracker is as it was.
        """
        basin = Basin(np.array(basin, dtype=np.float64))  # a copy: the caller may use its buffer again
        if basin.ndim != 1:
            raise SimplexError(f"a basin is [K], not {basin.shape}")
        birth = basin if self._birth is None else self._birth
        drift = {"drift_birth": float(fisher_rao_distance(basin, birth))}
        if self._window:
            drift["drift_velocity"] = float(fisher_rao_distance(basin, self._window[-1]))
        if len(self._window) > 1:
            drift["drift_acceleration"] = drift_acceleration(self._window[-2], self._window[-1], basin)
        self._birth = birth
        self._window.append(basin)
        self._count += 1
        if self._count >= COHERENCE_WINDOW:
            drift["coherence"] = coherence(np.array(list(self._window)[-COHERENCE_WINDOW:]))
        if self._count >= ARMED_AFTER:
            older = np.array(list(self._window)[: OLDEST_LAG - NEWEST_LAG + 1])
            self._mean = Basin(frechet_mean(older, start=self._mean))
            drift["drift_rolling"] = float(fisher_rao_distance(basin, self._mean))
        return drift

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, as numbers and lists of float."""
        return {
            "count": self._count,
            "birth": None if self._birth is None else self._birth.tolist(),
            "window": [basin.tolist() for basin in self._window],
            "mean": None if self._mean is None else self._mean.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "BasinTracker":
        """The tracker that `state()` was taken from. Raises ValueError for a state that cannot be one."""
        tracker = cls()
        try:
            tracker._count = int(state["count"])
            tracker._birth = _basin(state["birth"])
            tracker._window.extend(Basin(np.asarray(row, dtype=np.float64)) for row in state["window"])
            tracker._mean = _basin(state["mean"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a basin tracker: {error!r}") from error
        if len(tracker._window) != min(tracker._count, OLDEST_LAG + 1):
            raise ValueError(f"a basin tracker of {tracker._count} samples cannot remember {len(tracker._window)}")
        return tracker


def _basin(row: list[float] | None) -> Basin | None:
    return None if row is None else Basin(np.asarray(row, dtype=np.float64))
