"""Which checkpoint is newest, best, last good: pure functions over manifests. No disk, no torch, no numpy.

A high phi is no merit of its own, it picks unstable states; a value that is not finite is never a merit.
"""

import math
from collections.abc import Iterable

from qig_core.rundir.schema import CheckpointManifest

DEFAULT_SCORE = "loss_heldout"

RankKey = tuple[bool, bool, bool, bool, float, float, int, float, str]


def is_finite(manifest: CheckpointManifest) -> bool:
    """Whether every metric that was known at the checkpoint is a finite number."""
    return not manifest.nonfinite and all(
        value is not None and math.isfinite(value) for value in manifest.metrics.values()
    )


def score_of(manifest: CheckpointManifest, score: str = DEFAULT_SCORE) -> float | None:
    """The metric that checkpoints are ranked by; None where it was not measured or is not finite."""
    value = manifest.metrics.get(score)
    return value if value is not None and score not in manifest.nonfinite and math.isfinite(value) else None


def rank_key(manifest: CheckpointManifest, score: str = DEFAULT_SCORE, lower_is_better: bool = True) -> RankKey:
    """A total order, the best first: no NaN enters a comparison.

    In turn: a finite score; every metric finite; no condition critical; no condition in warning; the score; the smaller
    drift_rolling (rad; absent or not finite last); the earlier step, then the earlier publication.
    """
    value = score_of(manifest, score)
    drift = score_of(manifest, "drift_rolling")
    states = manifest.conditions.values()
    return (
        value is None,
        not is_finite(manifest),
        "critical" in states,
        "warning" in states,
        0.0 if value is None else value if lower_is_better else -value,
        math.inf if drift is None else drift,
        manifest.step,
        manifest.t,
        manifest.name,
    )


def published_key(manifest: CheckpointManifest) -> tuple[float, str]:
    """The order of publication; `publish` never lets t go back within a run."""
    return manifest.t, manifest.name


def latest(manifests: Iterable[CheckpointManifest]) -> CheckpointManifest | None:
    """The newest-published, whatever its step; None where there is none."""
    return max(manifests, key=published_key, default=None)


def best(
    manifests: Iterable[CheckpointManifest], score: str = DEFAULT_SCORE, lower_is_better: bool = True
) -> CheckpointManifest | None:
    """The first by `rank_key` of those with a score, every metric finite, no condition critical; None without one."""
    scored = [m for m in manifests if score_of(m, score) is not None and is_sound(m)]
    return min(scored, key=lambda manifest: rank_key(manifest, score, lower_is_better), default=None)


def last_good(manifests: Iterable[CheckpointManifest]) -> CheckpointManifest | None:
    """The newest-published with every metric finite and no condition critical; None where there is none.

    An emergency checkpoint after a value that was not finite is thereby never last-good.
    """
    return latest(m for m in manifests if is_sound(m))


def is_sound(manifest: CheckpointManifest) -> bool:
    """Every metric finite, and no condition critical when it was saved."""
    return is_finite(manifest) and "critical" not in manifest.conditions.values()
