"""Pruning a run's checkpoints by a plan: what is known of them is gathered, and what the plan drops is deleted."""

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from qig_core.checkpoints.catalog import Found, list_checkpoints, read_branches
from qig_core.checkpoints.retention import Keep, Plan, Shelved, plan
from qig_core.checkpoints.upkeep import delete
from qig_core.checkpoints.verification import verifying
from qig_core.errors import CheckpointError, ConfigError, RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What went."""

    names: tuple[str, ...] = ()
    size: int = 0
    """Bytes of payload."""
    kept: int = 0
    error: str = ""
    """Why it came to nothing, if it did."""

    def data(self) -> dict[str, Any]:
        """For an event, or an acknowledgement."""
        return {"names": list(self.names), "size": self.size, "kept": self.kept}


def recorded_keep(run: RunDir, **over: Any) -> Keep:
    """The rule that a run's trainer prunes by, or the default one where it names none; `over` what is to differ.

    Raises:
        ConfigError: a rule that cannot be. RunFormatError: no readable run.json.
    """
    recorded = {key: value for key, value in read_manifest(run).keep.items() if key in Keep.__dataclass_fields__}
    over = {key: value for key, value in over.items() if value is not None}
    Keep(**over)
    try:
        return Keep(**recorded | over)
    except ConfigError as error:
        raise ConfigError(f"run {run.id!r} records no rule that this program reads: {error}") from error


def plan_prune(
    run: RunDir, keep: Keep, *, in_use: Mapping[str, str] | None = None, verified: str | None = None
) -> Plan:
    """What a prune would do now, by a cheap look. Changes nothing.

    Raises:
        CheckpointError: the checkpoints, or the events, cannot be read.
    """
    return _plan(run, list_checkpoints(run), keep, in_use, verified)


def planning(
    run: RunDir, keep: Keep, *, in_use: Mapping[str, str] | None = None
) -> Generator[tuple[str, int, int], None, Plan]:
    """`plan_prune` after the newest that verifies was found: yields (name, bytes read, bytes in all) as it goes.

    Raises:
        CheckpointError: as `plan_prune`; or none of them verifies, and then nothing may go.
    """
    shelf = list_checkpoints(run)
    ids = _ids(run, _manifest(run))
    # One of another run is no reason to trust in what this one has.
    ours = [one for one in shelf if one.status == "COMPLETE" and one.manifest and one.manifest.run in ids]
    bad: set[str] = set()
    verified: str | None = None
    for found in ours:
        steps = verifying(found)
        while True:
            try:
                yield found.name, next(steps), found.size
            except StopIteration as stop:
                status = stop.value.status
                break
        if status == "COMPLETE":
            verified = found.name
            break
        bad.add(found.name)
    if verified is None and ours:
        raise CheckpointError(
            f"nothing is pruned in {str(run.checkpoints)!r}: of {len(shelf)} checkpoints none verifies"
        )
    return _plan(run, shelf, keep, in_use, verified, bad)


def carry_out(run: RunDir, plan: Plan, only: Collection[str] | None = None) -> Pruned:
    """Delete what the plan drops; of those that `only` names, where it names some.

    Raises:
        Refused: another process writes this run. CheckpointError: the disk refused.
    """
    going = [one for one in plan.dropped if only is None or one.name in only]
    names = delete(run, [one.name for one in going])
    return Pruned(names=tuple(names), size=sum(one.size for one in going), kept=len(plan.decisions) - len(names))


def _plan(
    run: RunDir,
    shelf: list[Found],
    keep: Keep,
    in_use: Mapping[str, str] | None,
    verified: str | None,
    bad: set[str] | frozenset[str] = frozenset(),
) -> Plan:
    manifest = _manifest(run)
    sessions = {one.resumed_from for one in manifest.sessions if one.resumed_from} if manifest else set()
    return plan(
        [
            Shelved(
                name=found.name,
                manifest=found.manifest,
                tags=found.tags if found.tags_known else None,
                whole=found.status == "COMPLETE" and found.name not in bad,
                size=found.size,
            )
            for found in shelf
        ],
        keep,
        runs=_ids(run, manifest),
        resumed_from=sessions | read_branches(run).restored,
        verified=verified,
        in_use=in_use,
    )


def _ids(run: RunDir, manifest: Manifest | None) -> set[str]:
    """What its checkpoints may call the run: its directory may have been renamed."""
    return {run.id, manifest.id} if manifest else {run.id}


def _manifest(run: RunDir) -> Manifest | None:
    try:
        return read_manifest(run)
    except RunFormatError:
        return None
