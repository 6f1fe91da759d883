"""Starting, resuming and forking a training run: everything that happens before the first step."""

import dataclasses
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qig_core.checkpoints.catalog import list_checkpoints, resolve
from qig_core.checkpoints.recovery import load, newest_verified
from qig_core.checkpoints.store import remove_stale_temporaries
from qig_core.checkpoints.verification import Verification
from qig_core.errors import ConfigError, QigError
from qig_core.rundir.host import git_revision
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest, Parent
from qig_core.rundir.writer import RunWriter
from qig_core.safety.profile import load_profile
from qig_core.training.config import TrainConfig, build, merge, resume_config
from qig_core.training.corpus import Corpus, default_corpus, load_corpus
from qig_core.training.loop import Restored, Started, Trainer
from qig_core.training.specs import SPECS

PROGRAM = "qig-core train"


def _versions() -> dict[str, str]:
    return {
        "qig-tui": version("qig-tui"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
    }


def _manifest(
    config: TrainConfig, corpus: Corpus, paths: Sequence[Path], trainer: Trainer, run_id: str, name: str
) -> Manifest:
    return Manifest(
        id=run_id,
        name=name,
        program=PROGRAM,
        total_steps=config.steps,
        config=dataclasses.asdict(config),
        metrics=list(SPECS),
        corpus=_corpus_facts(corpus, paths),
        probe=trainer.probe.facts(),
        versions=_versions(),
        git=git_revision(Path.cwd()),
        threads=torch.get_num_threads(),
    )


def _corpus_facts(corpus: Corpus, paths: Sequence[Path]) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "digest": corpus.digest,
        "train_bytes": int(corpus.train.size),
        "heldout_bytes": int(corpus.heldout.size),
        "paths": [str(path) for path in paths],
    }


def _read(paths: Sequence[Path]) -> Corpus:
    return load_corpus(list(paths)) if paths else default_corpus()


def _recorded_paths(manifest: Manifest, named: Sequence[Path]) -> list[Path]:
    """The text of the recorded run, unless another one is named."""
    return [Path(path).resolve() for path in named or manifest.corpus.get("paths", [])]


def _make_trainer(config: TrainConfig, corpus: Corpus) -> Trainer:
    load_profile(config.safety.profile)  # refused before there is a run
    if config.threads:
        torch.set_num_threads(config.threads)
    return Trainer(config, corpus)


def start(values: Mapping[str, Any], texts: Sequence[Path], *, runs: Path, run_id: str = "", name: str = "") -> Started:
    """A new run from the beginning, on text files and folders, or on the default corpus where none are named.

    Raises:
        ConfigError, CorpusError: before anything is written.
    """
    config = build(values)
    paths = [path.resolve() for path in texts]
    corpus = _read(paths)
    trainer = _make_trainer(config, corpus)
    writer = RunWriter.create(runs, _manifest(config, corpus, paths, trainer, run_id, name))
    return Started(writer=writer, trainer=trainer)


def _check_corpus(manifest: Manifest, corpus: Corpus, accept_new: bool) -> None:
    """Refuse another text than the one the run was trained on.

    Raises:
        ConfigError: the digests differ and nobody said that this is meant.
    """
    recorded = manifest.corpus.get("digest")
    if recorded != corpus.digest and not accept_new:
        raise ConfigError(
            f"the corpus {corpus.name!r} (digest {corpus.digest[:12]}) is not the one of run {manifest.id!r} "
            f"({str(recorded)[:12]}); add --accept-new-corpus if that is meant"
        )


def resume(
    run: RunDir,
    selector: str | None,
    over: Mapping[str, Any],
    texts: Sequence[Path],
    *,
    accept_new_corpus: bool = False,
) -> Started:
    """Go on with a run in its own directory, from one checkpoint or from the newest that verifies.

    Nothing is touched before the request is known to be possible. A run that was killed before its first checkpoint
    begins again at step 0, which is the same run; one whose checkpoints are all damaged is refused.

    Raises:
        ConfigError: a change that makes it another run, or another corpus.
        RunLocked: its trainer still lives.
        CheckpointError: no checkpoint that can be trusted.
    """
    manifest = read_manifest(run)
    if manifest.program != PROGRAM:
        raise ConfigError(f"run {run.id!r} was written by {manifest.program or 'another program'!r}, not by {PROGRAM}")
    config = resume_config(manifest.config, over)
    paths = _recorded_paths(manifest, texts)
    corpus = _read(paths)
    _check_corpus(manifest, corpus, accept_new_corpus)
    _check_steps(run, selector, config)
    wanted = resolve(run, selector).name if selector else None
    trainer = _make_trainer(config, corpus)
    writer = RunWriter.reopen(run)
    try:
        remove_stale_temporaries(run, writer.session)
        name = wanted
        if name is None and list_checkpoints(run):
            name = _newest_verified(writer)
        restored = _restore(run, name, trainer)
        writer.manifest.sessions[-1].resumed_from = name
        writer.manifest.config, writer.manifest.total_steps = dataclasses.asdict(config), config.steps
        if accept_new_corpus:
            writer.manifest.corpus = _corpus_facts(corpus, paths)
        writer.save_manifest()
        _announce(writer, restored)
    except BaseException as error:
        writer.close(error.exit_code if isinstance(error, QigError) else 1, str(error)[:500])
        raise
    return Started(writer=writer, trainer=trainer, restored=restored)


def _check_steps(run: RunDir, selector: str | None, config: TrainConfig) -> None:
    """Refuse a resume that has nothing to do, before the run is touched."""
    whole = [found for found in list_checkpoints(run) if found.status == "COMPLETE"]
    if not selector and not whole:
        return
    found = resolve(run, selector or "latest")
    if found.step is not None and found.step >= config.steps:
        raise ConfigError(
            f"checkpoint {found.name!r} is at step {found.step} and the run's total is {config.steps}: nothing is left "
            "to do; name a larger total with --steps, or an earlier checkpoint"
        )


def _newest_verified(writer: RunWriter) -> str:
    """The checkpoint to go on from; each bad one that is set aside on the way is told."""

    def tell(bad: Verification, where: Path) -> None:
        print(f"qig: {bad.name} is {bad.status} and was set aside as {where.name}", file=sys.stderr)
        writer.event("quarantined", severity="warning", name=bad.name, status=bad.status, moved_to=where.name)

    return newest_verified(writer.run, on_bad=tell).name


def fork(
    run: RunDir,
    selector: str | None,
    over: Mapping[str, Any],
    texts: Sequence[Path],
    *,
    runs: Path,
    run_id: str = "",
    name: str = "",
) -> Started:
    """A new run that begins with the state of another's checkpoint; the parent is recorded, never changed.

    Raises:
        ConfigError: a configuration that the parent's state does not fit.
        CheckpointError: the checkpoint is absent or damaged.
    """
    manifest = read_manifest(run)
    config = build(merge(manifest.config, over))
    _check_steps(run, selector, config)
    paths = _recorded_paths(manifest, texts)
    corpus = _read(paths)
    found = resolve(run, selector or "latest")
    trainer = _make_trainer(config, corpus)
    restored = _restore(run, found.name, trainer)
    record = _manifest(config, corpus, paths, trainer, run_id, name)
    record.parent = Parent(run=run.id, checkpoint=found.name)
    writer = RunWriter.create(runs, record)
    _announce(writer, restored)
    return Started(writer=writer, trainer=trainer, restored=restored)


def _restore(run: RunDir, name: str | None, trainer: Trainer) -> Restored:
    if name is None:
        return Restored()
    state, manifest = load(run, name)
    try:
        trainer.load(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(f"checkpoint {name!r} does not fit this configuration: {error}") from error
    return Restored(
        step=manifest.step,
        checkpoint=name,
        fingerprint=manifest.fingerprint,
        monitor_state=state.get("monitor"),
        training_s=manifest.training_s or 0.0,
    )


def _announce(writer: RunWriter, restored: Restored) -> None:
    writer.event("restored", step=restored.step, checkpoint=restored.checkpoint, fingerprint=restored.fingerprint)
