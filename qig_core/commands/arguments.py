"""What commands take: a run, a checkpoint of it, where runs live. Reads nothing but what finding a run takes."""

from pathlib import Path
from typing import Annotated

import typer

from qig_core.errors import UsageError
from qig_core.rundir.layout import RunDir, default_root, resolve_run, split_selector

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of runs. (default: $QIG_RUNS, else ./runs)")]
Run = Annotated[str, typer.Argument(help="A run: its id, `latest`, its name, or its path.", show_default=False)]
RunAt = Annotated[str, typer.Argument(help="A run, as everywhere; also RUN@CHECKPOINT.", show_default=False)]
Checkpoint = Annotated[str | None, typer.Argument(help="A step, a name, a tag, latest, best or last-good.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


def find_run(text: str, runs: Path | None) -> RunDir:
    """RUN as `resolve_run` takes it. Raises: RunNotFound, UsageError."""
    return resolve_run(text, runs or default_root())


def find_run_at(text: str, checkpoint: str | None, runs: Path | None) -> tuple[RunDir, str | None]:
    """RUN CHECKPOINT, or RUN@CHECKPOINT as --resume takes it."""
    text, selector = split_selector(text)
    if selector is not None and checkpoint is not None:
        raise UsageError(f"two checkpoints, {selector!r} and {checkpoint!r}; name one")
    return find_run(text, runs), checkpoint if selector is None else selector
