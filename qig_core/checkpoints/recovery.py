"""From which checkpoint to go on, and its state: the newest that verifies; a bad one is set aside and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import quarantine
from qig_core.checkpoints.verification import Progress, Verification, verify
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import CheckpointManifest

OnBad = Callable[[Verification, Path], None]
"""Called with what was found wrong and where the checkpoint now is."""


def newest_verified(run: RunDir, progress: Progress | None = None, on_bad: OnBad | None = None) -> Verification:
    """The newest-published checkpoint whose every byte is right; each bad one before it is quarantined and reported.

    A checkpoint with a tensor that is not finite is taken (a mask may hold -inf): see `Verification.nonfinite`.

    Raises:
        CheckpointError: none is left; the message names those that were bad.
        Refused: one is bad, and another process is the writer of this run.
    """
    bad: list[str] = []
    for found in list_checkpoints(run):
        verification = verify(run, found.name, progress)
        if verification.status == "COMPLETE":
            return verification
        why = f"{verification.status}: {'; '.join(verification.problems)}"
        path = quarantine(run, found.name, why)
        bad.append(f"{found.name} ({why})")
        if on_bad is not None:
            on_bad(verification, path)
    if bad:
        raise CheckpointError(f"no sound checkpoint is left in {str(run.checkpoints)!r}; set aside: {', '.join(bad)}")
    raise CheckpointError(f"there is no checkpoint in {str(run.checkpoints)!r}")


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
