"""Beginning a training run that was asked for and found possible: everything between the request and the first step."""

from pathlib import Path

import torch

from qig_core.checkpoints.recovery import announce, go_on, restore
from qig_core.checkpoints.saving import state_loader
from qig_core.rundir.host import git_revision, versions
from qig_core.rundir.schema import Manifest, Parent
from qig_core.rundir.writer import RunWriter
from qig_core.training.charlie import Charlie
from qig_core.training.config import TrainConfig, plain
from qig_core.training.constellation import Constellation
from qig_core.training.corpus import Corpus
from qig_core.training.loop import Started
from qig_core.training.program import Program, Solo
from qig_core.training.requests import PROGRAM, Origin, Request


def begin(request: Request) -> Started:
    """Open the run for writing, with a program that stands before its first step.

    Raises:
        ConfigError: the state of the checkpoint does not fit the configuration.
        CheckpointError: no checkpoint that can be trusted.
        RunLocked: the run to go on with has a writer.
    """
    if request.config.threads:
        torch.set_num_threads(request.config.threads)
    program = make_program(request.config, request.corpus)
    match request.origin:
        case None:
            writer = RunWriter.create(request.place.runs, _manifest(request, program))
            return Started(writer=writer, program=program, alerts=request.alerts)
        case Origin(how="fork"):
            return _fork(request, request.origin, program)
        case origin:
            return _resume(request, origin, program)


def make_program(config: TrainConfig, corpus: Corpus) -> Program:
    """What a configuration asks for, at its birth."""
    match config.program:
        case "charlie":
            return Charlie(config, corpus)
        case "constellation":
            return Constellation(config, corpus)
        case _:
            return Solo(config, corpus)


def _resume(request: Request, origin: Origin, program: Program) -> Started:
    """A run that was killed before its first checkpoint begins again at step 0, which is the same run."""

    def amend(manifest: Manifest) -> None:
        manifest.config, manifest.total_steps = plain(request.config), request.config.steps
        if request.new_corpus:
            manifest.corpus = request.corpus_facts()

    load = state_loader(program.load)
    total = request.config.steps
    writer, restored = go_on(origin.run, origin.selector, load, amend, total_steps=total, or_from_birth=True)
    return Started(writer=writer, program=program, restored=restored, alerts=request.alerts)


def _fork(request: Request, origin: Origin, program: Program) -> Started:
    """The parent is recorded, never changed."""
    assert origin.selector is not None
    restored = restore(origin.run, origin.selector, state_loader(program.load))
    record = _manifest(request, program)
    record.parent = Parent(run=origin.run.id, checkpoint=restored.checkpoint)
    writer = RunWriter.create(request.place.runs, record)
    announce(writer, restored)
    return Started(writer=writer, program=program, restored=restored, alerts=request.alerts)


def _manifest(request: Request, program: Program) -> Manifest:
    return Manifest(
        id=request.place.run_id,
        name=request.place.name,
        program=PROGRAM,
        total_steps=request.config.steps,
        config=plain(request.config),
        metrics=program.specs,
        corpus=request.corpus_facts(),
        probe=program.probe,
        versions=versions(),
        git=git_revision(Path.cwd()),
        threads=torch.get_num_threads(),
    )
