"""What a person is told to do next with a run that ended."""

from qig_core.checkpoints.catalog import candidates
from qig_core.checkpoints.ranking import last_good
from qig_core.errors import CheckpointError, ExitCode
from qig_core.rundir.layout import RunDir
from qig_core.terminal import command, resume_command


def how_to_go_on(run: RunDir, exit_code: int | None) -> str:
    """What to type after a run ended so: nothing where a limit stopped it and no checkpoint is free of that."""
    if exit_code == ExitCode.LIMIT:
        try:
            sound = last_good(found.manifest for found in candidates(run) if found.manifest is not None)
        except CheckpointError:
            sound = None
        if sound is None:
            there = command("qig-core", "checkpoints", "list", run.path)
            return f"no checkpoint is free of what stopped it, so there is none to go back to; what there is: {there}"
    return f"go on with: {resume_command(run.path, exit_code)}"
