"""What a training run is asked to be, checked before torch is loaded. Reads only; nothing of a run is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qig_core.checkpoints.recovery import foresee
from qig_core.errors import ConfigError, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import refuse_if_locked
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest
from qig_core.rundir.values import is_run_id
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.profile import load_profile
from qig_core.training.config import TrainConfig, build, merge, resume_config
from qig_core.training.corpus import Corpus, default_corpus, load_corpus

PROGRAM = "qig-core train"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a new run goes, and what it is called."""

    runs: Path
    run_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.run_id and not is_run_id(self.run_id):
            raise UsageError(
                f"--id {self.run_id!r}: letters, digits, . _ and - only, at most 100, the first a letter or digit"
            )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run that a resume or a fork goes on from."""

    run: RunDir
    selector: str | None
    """STEP or CHECKPOINT; None for the newest."""
    how: Literal["resume", "fork"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run that may be begun, as far as can be known without torch."""

    config: TrainConfig
    corpus: Corpus
    paths: list[Path]
    """The texts of the corpus, absolute; none for the default one."""
    place: Place
    """Of a resume: not asked."""
    origin: Origin | None = None
    new_corpus: bool = False
    """A resume on another text than the recorded one, as it was asked for."""
    alerts: AlertSettings | None = None
    """Who is told. No part of the run: neither its configuration nor its directory holds them."""

    def corpus_facts(self) -> dict[str, Any]:
        """The corpus as the manifest says it."""
        return {
            "name": self.corpus.name,
            "digest": self.corpus.digest,
            "train_bytes": int(self.corpus.train.size),
            "heldout_bytes": int(self.corpus.heldout.size),
            "paths": [str(path) for path in self.paths],
        }


def new(
    values: Mapping[str, Any], texts: Sequence[Path], place: Place, *, alerts: AlertSettings | None = None
) -> Request:
    """A run from the beginning, on text files and folders, or on the default corpus where none are named.

    Raises:
        ConfigError, CorpusError: what cannot be.
    """
    config = _checked(build(values))
    paths = [path.resolve() for path in texts]
    return Request(config=config, corpus=_read(paths), paths=paths, place=place, alerts=alerts)


def resume(
    run: RunDir,
    selector: str | None,
    over: Mapping[str, Any],
    texts: Sequence[Path],
    place: Place,
    *,
    new_corpus: bool,
    alerts: AlertSettings | None = None,
) -> Request:
    """Go on with a run in its own directory. Alerts are never taken from there: a configuration with some is refused.

    Raises:
        ConfigError: a change that makes it another run, or another corpus.
        RunLocked: its trainer still lives.
        CheckpointError: no such checkpoint.
    """
    refuse_if_locked(run.lock)
    manifest = read_manifest(run)
    if manifest.program != PROGRAM:
        raise ConfigError(f"run {run.id!r} was written by {manifest.program or 'another program'!r}, not by {PROGRAM}")
    config = _checked(resume_config(manifest.config, over))
    foresee(run, selector, config.steps)
    paths = _recorded_paths(manifest, texts)
    corpus = _read(paths)
    recorded = manifest.corpus.get("digest")
    if recorded != corpus.digest and not new_corpus:
        raise ConfigError(
            f"the corpus {corpus.name!r} (digest {corpus.digest[:12]}) is not the one of run {manifest.id!r} "
            f"({str(recorded)[:12]}); add --accept-new-corpus if that is meant"
        )
    origin = Origin(run=run, selector=selector, how="resume")
    return Request(
        config=config, corpus=corpus, paths=paths, place=place, origin=origin, new_corpus=new_corpus, alerts=alerts
    )


def fork(
    run: RunDir,
    selector: str | None,
    over: Mapping[str, Any],
    texts: Sequence[Path],
    place: Place,
    *,
    alerts: AlertSettings | None = None,
) -> Request:
    """A new run that begins with the state of another's checkpoint.

    Raises:
        ConfigError: a configuration that cannot be. CheckpointError: no such checkpoint.
    """
    manifest = read_manifest(run)
    before = build(manifest.config).program
    if (wanted := over.get("program", before)) != before:
        raise ConfigError(f"a fork may not change program ({before!r} -> {wanted!r}): their states differ")
    config = _checked(build(merge(manifest.config, over)))
    name = foresee(run, selector or "latest", config.steps)
    paths = _recorded_paths(manifest, texts)
    origin = Origin(run=run, selector=name, how="fork")
    return Request(config=config, corpus=_read(paths), paths=paths, place=place, origin=origin, alerts=alerts)


def _checked(config: TrainConfig) -> TrainConfig:
    load_profile(config.safety.profile)
    return config


def _read(paths: Sequence[Path]) -> Corpus:
    return load_corpus(list(paths)) if paths else default_corpus()


def _recorded_paths(manifest: Manifest, named: Sequence[Path]) -> list[Path]:
    """The text of the recorded run, unless another one is named."""
    return [Path(path).resolve() for path in named or manifest.corpus.get("paths", [])]
