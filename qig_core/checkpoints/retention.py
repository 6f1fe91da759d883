"""Which checkpoints are kept, which may go, and why: pure functions over what is known of them. Deletes nothing.

    kept = newest N ∪ best K ∪ pinned ∪ emergency ∪ gone on from ∪ last verified ∪ in use ∪ in doubt

One plan is made here; what `--dry-run` prints, what the dashboard shows and what is deleted are that plan.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qig_core.checkpoints.ranking import DEFAULT_SCORE, is_sound, published_key, rank_key, score_of
from qig_core.errors import ConfigError
from qig_core.rundir.schema import PINNED, CheckpointManifest

EMERGENCY = "emergency"
"""The reason, and the tag, of what was saved when a run was stopped."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How many are kept beside those that are kept for what they are.

    Raises:
        ConfigError: newest is less than 1, or best less than 0: the newest one is never given up; or a value of
            another type.
    """

    newest: int = 5
    best: int = 3
    score: str = DEFAULT_SCORE
    """The metric that the best are ranked by; see `ranking.rank_key`."""
    lower_is_better: bool = True

    def __post_init__(self) -> None:
        # Recorded ones come from a file.
        for key, kind, words in (
            ("newest", int, "a whole number"),
            ("best", int, "a whole number"),
            ("score", str, "a metric's name"),
            ("lower_is_better", bool, "true or false"),
        ):
            if type(value := getattr(self, key)) is not kind:
                raise ConfigError(f"{key} is {value!r}: it must be {words}")
        if self.newest < 1:
            raise ConfigError(f"newest is {self.newest}: at least 1, the newest checkpoint is never given up")
        if self.best < 0:
            raise ConfigError(f"best is {self.best}: it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """What of a checkpoint a plan is made from."""

    name: str
    manifest: CheckpointManifest | None
    tags: tuple[str, ...] | None
    """None where they cannot be read: a pin may stand in them."""
    whole: bool
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of one checkpoint."""

    name: str
    step: int | None
    size: int
    """Bytes of payload."""
    reasons: tuple[str, ...]
    """Why it is kept, in words; none where it goes."""

    @property
    def kept(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each checkpoint, newest-published first."""

    decisions: tuple[Decision, ...]

    @property
    def kept(self) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if one.kept)

    @property
    def dropped(self) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if not one.kept)

    @property
    def freed(self) -> int:
        """Bytes of payload that go."""
        return sum(one.size for one in self.dropped)

    def rows(self) -> list[dict[str, Any]]:
        """Plain data for JSON: name, step, size, kept, reasons."""
        return [
            {"name": d.name, "step": d.step, "size": d.size, "kept": d.kept, "reasons": list(d.reasons)}
            for d in self.decisions
        ]


def plan(
    shelf: Sequence[Shelved],
    keep: Keep,
    *,
    runs: Collection[str],
    resumed_from: Collection[str] = (),
    verified: str | None = None,
    in_use: Mapping[str, str] | None = None,
) -> Plan:
    """The union rule. Nothing goes unless some whole checkpoint stays.

    Args:
        runs: the ids that this run's checkpoints may carry; one of another run is never touched.
        resumed_from: names that sessions went on from.
        verified: the last one whose every byte was found right.
        in_use: further names that something counts on, with what.
    """
    ours = [one.manifest for one in shelf if one.whole and one.manifest is not None and one.manifest.run in runs]
    newest = sorted(ours, key=published_key, reverse=True)[: keep.newest]
    scored = [manifest for manifest in ours if score_of(manifest, keep.score) is not None]
    best = sorted(scored, key=lambda m: rank_key(m, keep.score, keep.lower_is_better))[: keep.best]
    why: dict[str, list[str]] = {one.name: [] for one in shelf}
    for place, each in enumerate(newest, 1):
        why[each.name].append("newest" if place == 1 else f"{place} of the newest {keep.newest}")
    for place, each in enumerate(best, 1):
        # What is not sound is never called the best, and is kept where there is nothing better.
        why[each.name].append("best" if place == 1 and is_sound(each) else f"{place} of the best {keep.best}")
    for one in shelf:
        reasons, manifest = why[one.name], one.manifest
        if not one.whole or manifest is None:
            reasons.append("not whole; never pruned")
        elif manifest.run not in runs:
            reasons.append("of another run")
        if one.tags is None:
            reasons.append("its tags cannot be read")
        elif PINNED in one.tags:
            reasons.append("pinned")
        if manifest is not None and manifest.reason == EMERGENCY:
            reasons.append("emergency")
        if one.name in resumed_from:
            reasons.append("gone on from")
        if one.name == verified:
            reasons.append("last verified")
        if in_use and one.name in in_use:
            reasons.append(in_use[one.name])
    order = sorted(shelf, key=lambda one: _order(one.manifest, one.name), reverse=True)
    return Plan(
        decisions=tuple(
            Decision(
                name=one.name,
                step=one.manifest.step if one.manifest else None,
                size=one.size,
                reasons=tuple(why[one.name]),
            )
            for one in order
        )
    )


def _order(manifest: CheckpointManifest | None, name: str) -> tuple[float, str]:
    return (0.0, name) if manifest is None else published_key(manifest)
