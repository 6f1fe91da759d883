"""Carrying an experiment out: its runs are trained, gone on with or taken as they are, then judged and written down."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from qig_core.errors import ExitCode, Refused
from qig_core.experiments import artefact
from qig_core.experiments.awakening import AWAKENING
from qig_core.experiments.experiment import Experiment, Wanted
from qig_core.experiments.observers import OBSERVERS
from qig_core.experiments.reading import Recorded
from qig_core.experiments.suppression import SUPPRESSION
from qig_core.rundir.layout import RunDir
from qig_core.training import requests

EXPERIMENTS: dict[str, Experiment] = {each.name: each for each in (SUPPRESSION, AWAKENING, OBSERVERS)}
FINISHED = (ExitCode.OK, ExitCode.LIMIT)
"""How a run ends that is not gone on with: in order, or stopped by a limit of its own, which is a result."""
How = Literal["taken as it is", "trained", "gone on with"]
Advance = Callable[[Wanted, How, int, int], None]
"""Called at each step of a run: what it is, how it comes about, the step, all steps. Once for one that is taken."""


class Interrupted(Refused):
    """A run was stopped before its end. The same command goes on with it."""

    def __init__(self, run_id: str, code: int) -> None:
        super().__init__(f"run {run_id} was stopped with exit code {code}; the same command goes on with it")
        self.code = code
        """Of the run."""


def runs_folder(out: Path) -> Path:
    """Where the runs of the experiments that are written to `out` lie."""
    return out / "runs"


def conduct(name: str, preset: str, seeds: int, out: Path, advance: Advance) -> tuple[dict[str, Any], Sequence[Path]]:
    """One experiment, from its runs to its document and picture.

    Runs are known by what they are trained with: experiments that want the same run share it, and one that has ended is
    never trained again.

    Returns:
        The document, and the files that were written.

    Raises:
        Interrupted: a run was stopped. RunLocked: somebody else trains one. Refused: a run on another corpus is in its
            place. ConfigError: an unknown preset. MissingExtra, RecordWriteError: nothing could be drawn, or written.
    """
    experiment = EXPERIMENTS[name]
    runs = {
        f"seed {seed}": {wanted.role: obtain(wanted, out, advance) for wanted in experiment.wanted(preset, seed)}
        for seed in range(seeds)
    }
    found = artefact.document(experiment, preset, runs, experiment.evaluate(runs))
    return found, artefact.write(out, found)


def obtain(wanted: Wanted, out: Path, advance: Advance) -> Recorded:
    """The run, trained to its end here where it is not there yet. Raises: as `conduct`."""
    run = RunDir(runs_folder(out) / wanted.run_id)
    place = requests.Place(runs=runs_folder(out), run_id=wanted.run_id, name=f"{wanted.role}, seed {wanted.seed}")
    fresh = requests.new(wanted.values, [], place)
    total = fresh.config.steps
    how: How = "trained"
    request = fresh
    if run.exists():
        found = Recorded(run)
        if found.manifest.corpus.get("digest") != fresh.corpus.digest:
            raise Refused(f"{str(run.path)!r} was trained on another corpus; name another folder with --out")
        if found.manifest.state == "exited" and found.manifest.exit_code in FINISHED:
            advance(wanted, "taken as it is", total, total)
            return found
        how = "gone on with"
        request = requests.resume(run, None, {}, [], place, new_corpus=False)
    _train(request, lambda step: advance(wanted, how, step, total))
    return Recorded(run)


def _train(request: requests.Request, told: Callable[[int], None]) -> None:
    from qig_core.training.loop import train  # torch, which is not loaded to read what is there already
    from qig_core.training.runs import begin

    monitor = train(begin(request), lambda step, metrics: told(step))
    if monitor.exit_code not in FINISHED:
        raise Interrupted(request.place.run_id, int(monitor.exit_code))
