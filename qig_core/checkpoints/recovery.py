"""From which checkpoint to go on, and its state: the newest that verifies; a bad one is set aside and named."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig_core.checkpoints.catalog import candidates, in_words, list_checkpoints, read_branches, resolve
from qig_core.checkpoints.upkeep import quarantine, remove_stale_temporaries
from qig_core.checkpoints.verification import Progress, Verification, verify
from qig_core.errors import CheckpointError, ConfigError, exit_code_of
from qig_core.rundir.layout import QUARANTINED, RunDir
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import CheckpointManifest, Manifest
from qig_core.rundir.writer import RunWriter

OnBad = Callable[[Verification, Path], None]
"""Called with what was found wrong and where the checkpoint now is."""
LoadState = Callable[[dict[str, Any]], object]
"""Puts the state of a checkpoint back."""
Amend = Callable[[Manifest], None]
"""Changes what a resumed run's manifest says from now on."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """Where a session begins; the default is the birth of a run."""

    step: int = 0
    checkpoint: str | None = None
    fingerprint: str | None = None
    monitor_state: Mapping[str, Any] | None = None
    training_s: float = 0.0
    """Spent on the steps before, over all sessions."""


def newest_verified(run: RunDir, progress: Progress | None = None, on_bad: OnBad | None = None) -> Verification:
    """The newest of `catalog.candidates` whose every byte is right; each bad one before it is quarantined and reported.

    A checkpoint with a tensor that is not finite is taken (a mask may hold -inf): see `Verification.nonfinite`. One of
    a newer format is passed over and left alone.

    Raises:
        CheckpointError: none is left; the message names those that were bad.
        Refused: one is bad, and another process is the writer of this run.
    """
    bad: list[str] = []
    newer: list[str] = []
    for found in candidates(run):
        verification = verify(run, found.name, progress)
        if verification.status == "COMPLETE":
            return verification
        if verification.status == "NO-ACCESS":
            raise CheckpointError(
                f"{found.name}: {'; '.join(verification.problems)}; nothing is known against its bytes, so it is "
                "neither set aside nor passed over: make it readable, or name an older one with @"
            )
        if verification.status == "NEWER":
            newer.append(found.name)
            continue
        why = f"{verification.status}: {'; '.join(verification.problems)}"
        path = quarantine(run, found.name, why)
        bad.append(f"{found.name} ({why})")
        if on_bad is not None:
            on_bad(verification, path)
    where = repr(str(run.checkpoints))
    others = [found.name for found in list_checkpoints(run) if found.status == "COMPLETE"]
    if not (bad or newer or others):
        raise CheckpointError(f"there is no checkpoint in {where}")
    said = [f"no sound checkpoint is left in {where}" + (" on the way that this run took" if others else "")]
    if bad:
        said.append(f"set aside: {in_words(bad)}")
    if newer:
        said.append(f"left alone, of a format that a newer qig-tui wrote: {in_words(newer)}")
    if others:
        said.append(f"on branches that were left, to be named with @: {in_words(others)}")
    raise CheckpointError("; ".join(said))


def load(run: RunDir, name: str, progress: Progress | None = None) -> tuple[dict[str, Any], CheckpointManifest]:
    """The state of a checkpoint after every byte of it was verified, tensors on the CPU.

    Raises:
        CheckpointError: absent, bad, or of a form that this program does not read.
    """
    verification = verify(run, name, progress)
    if verification.status != "COMPLETE" or verification.manifest is None:
        problems = "; ".join(verification.problems)
        raise CheckpointError(f"checkpoint {name!r} is not loaded, it is {verification.status}: {problems}")
    from qig_core.checkpoints.pytree import from_files  # imports torch, which verifying must not

    return from_files(run.checkpoint(name)), verification.manifest


def prepare(run: RunDir, name: str, load_state: LoadState) -> Callable[[], Restored]:
    """Verify and read a checkpoint; what puts its state back.

    Raises:
        CheckpointError: as `load`; nothing of the state has been touched.
        ConfigError: by what is returned, where `load_state` found that it does not fit.
    """
    state, manifest = load(run, name)

    def put_back() -> Restored:
        monitor_state = state.get("monitor")
        try:
            load_state(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ConfigError(f"checkpoint {name!r} does not fit what it is loaded into: {error}") from error
        return Restored(
            step=manifest.step,
            checkpoint=name,
            fingerprint=manifest.fingerprint,
            monitor_state=monitor_state,
            training_s=manifest.training_s or 0.0,
        )

    return put_back


def restore(run: RunDir, name: str, load_state: LoadState) -> Restored:
    """Put the state of one checkpoint back. Raises: CheckpointError, ConfigError, as `prepare`."""
    return prepare(run, name, load_state)()


def foresee(
    run: RunDir, selector: str | None, total_steps: int | None = None, *, finished_is_fine: bool = False
) -> str | None:
    """What can be refused by a look, before anything is loaded or touched.

    Returns:
        The checkpoint that `selector` names; None where the newest that verifies is wanted.

    Raises:
        CheckpointError: the selector names none.
        ConfigError: nothing is left to do up to `total_steps`. With `finished_is_fine` only if that was overshot.
    """
    if selector is None:
        found = next((one for one in candidates(run) if one.status == "COMPLETE"), None)
        if found is None:
            return None
    else:
        found = resolve(run, selector)
    least = 0 if total_steps is None else total_steps + finished_is_fine
    if total_steps is not None and found.step is not None and found.step >= least:
        raise ConfigError(
            f"checkpoint {found.name!r} is at step {found.step} and the run's total is {total_steps}: nothing is left "
            "to do; name a larger total (--steps; total_steps in a loop of your own), or an earlier checkpoint"
        )
    return found.name if selector else None


def once_there(run: RunDir) -> str:
    """What became of the checkpoints of a run that has none, and what to do; empty where it never made one."""
    aside = sorted(path.name for path in run.checkpoints.glob(f"{QUARANTINED}*"))
    made = read_branches(run).made
    if not (aside or made):
        return ""
    said = [f"it has made {made}" if made else "it once had some"]
    if aside:
        said.append(f"set aside and never deleted: {in_words(aside)} (mended, one is put back by mv .bad-NAME NAME)")
    return f"{'; '.join(said)}; to begin again, begin a new run"


def go_on(
    run: RunDir,
    selector: str | None,
    load_state: LoadState,
    amend: Amend,
    *,
    total_steps: int | None = None,
    or_from_birth: bool = False,
    finished_is_fine: bool = False,
) -> tuple[RunWriter, Restored]:
    """Put the state of one of a run's checkpoints back and open the run for a new session in its own directory.

    The newest that verifies, or the one that `selector` names. Bad ones are set aside and told; the session says from
    which checkpoint it goes on, and a `restored` event with its step and fingerprint proves it. The session begins when
    the state is back: what is refused leaves the run as it was, but for what was set aside.

    Args:
        amend: what the manifest is to say from now on.
        total_steps: None for the recorded total, if there is one.
        or_from_birth: a run that has never made a checkpoint begins again at step 0, with the state as it is.
        finished_is_fine: a run that has made all its steps may be opened, to make none.

    Raises:
        RunLocked: another process writes it; nothing has been touched.
        CheckpointError: no checkpoint that can be trusted.
        ConfigError: nothing is left to do, or the state does not fit.
    """
    run = RunDir(run.path.absolute())  # whatever the program's working directory becomes
    restored = Restored()
    bad: list[dict[str, Any]] = []

    def set_aside(found: Verification, where: Path) -> None:
        print(f"qig: {found.name} is {found.status} and was set aside as {where.name}", file=sys.stderr)
        bad.append({"name": found.name, "status": found.status, "moved_to": where.name})

    def prepare(manifest: Manifest) -> str | None:
        nonlocal restored
        name = foresee(run, selector, total_steps or manifest.total_steps, finished_is_fine=finished_is_fine)
        if list_checkpoints(run):
            restored = restore(run, name or newest_verified(run, on_bad=set_aside).name, load_state)
        elif manifest.parent is not None:
            origin = f"{manifest.parent.run}@{manifest.parent.checkpoint}"
            raise CheckpointError(
                f"there is no checkpoint in {str(run.checkpoints)!r} yet, and its birth was another run's: fork "
                f"{printable(origin, 200)} again"
            )
        elif (gone := once_there(run)) or not or_from_birth:
            where = repr(str(run.checkpoints))
            raise CheckpointError("; ".join(filter(None, (f"there is no checkpoint in {where} to go on from", gone))))
        amend(manifest)
        return restored.checkpoint

    writer = RunWriter.reopen(run, prepare=prepare)
    try:
        remove_stale_temporaries(run, writer.session)
        for one in bad:
            writer.event("quarantined", severity="warning", **one)
        announce(writer, restored)
    except BaseException as error:
        writer.close(exit_code_of(error), str(error)[:500])
        raise
    return writer, restored


def announce(writer: RunWriter, restored: Restored) -> None:
    """Say in the run from where this session goes on."""
    found: dict[str, Any] = {"checkpoint": restored.checkpoint, "fingerprint": restored.fingerprint}
    writer.event("restored", step=restored.step, how="resume", **found)
