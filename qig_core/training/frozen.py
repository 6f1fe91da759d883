"""The measures of a frozen model: a checkpoint of ours, or any torch module that a file of the user's makes.

Reads only. The model is one that nobody trains meanwhile.
"""

import difflib
import importlib.util
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qig_core.checkpoints.catalog import resolve
from qig_core.checkpoints.recovery import load
from qig_core.errors import CheckpointError, ConfigError, ProbeError, UsageError
from qig_core.measures.measurement import Measurement
from qig_core.measures.packet import BasinPacket
from qig_core.measures.probe import Probe
from qig_core.measures.regime import RegimeState, classify
from qig_core.measures.transition import nonfinite_kind
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.training.config import build
from qig_core.training.corpus import Corpus, default_corpus, load_corpus, probe_batch
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.requests import PROGRAM

LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What was measured, on what, and what it may be compared with."""

    model: str
    seen: Measurement
    probe: Mapping[str, Any]
    """The probe's facts: measures of unequal digest are not comparable."""
    corpus: str
    notes: tuple[str, ...] = ()
    run: str = ""
    checkpoint: str | None = None
    step: int = 0
    """Updates applied; 0 for a model that does not say."""
    distance_rad: float | None = None
    """Fisher–Rao, of the basin from that of a packet, where one was named."""

    def packet(self) -> BasinPacket:
        """The basin as another run can read it. Raises ProbeError where there is none."""
        seen = self.seen
        if seen.basin is None:
            why = seen.nonfinite.get("basin") or seen.reasons.get("basin", "not measured")
            raise ProbeError(f"{self.model} has no basin to write down: {why}")
        return BasinPacket(
            basin=seen.basin,
            step=self.step,
            phi=seen.phi,
            kappa=seen.kappa,
            regime=seen.regime,
            probe_digest=self.probe["digest"],
            run=self.run,
            checkpoint=self.checkpoint,
            created_t=time.time(),
            metrics={name: value for name, value in seen.metrics().items() if value is not None},
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "model": self.model,
            **self.seen.to_dict(),
            "probe": dict(self.probe),
            "corpus": self.corpus,
            "notes": list(self.notes),
            "distance_rad": self.distance_rad,
        }


def of_checkpoint(run: RunDir, selector: str | None, texts: Sequence[Path], *, stream: str | None = None) -> Frozen:
    """The kernel of a checkpoint, every byte of which is verified, at each of its passes.

    Args:
        selector: STEP, CHECKPOINT, `latest`, `best` ...; None for the newest.
        texts: None but the run's own corpus where empty.
        stream: which kernel, where the run has several: a Gary of a constellation, Charlie's control or branch.

    Raises:
        CheckpointError: no such checkpoint, or a bad one.
        ConfigError: a run of another program, or its corpus is not at hand.
        UsageError: a kernel that the checkpoint does not hold, or none is named of several.
    """
    manifest = read_manifest(run)
    if manifest.program != PROGRAM:
        raise ConfigError(
            f"run {run.id!r} was written by {manifest.program or 'another program'!r}, not by {PROGRAM}: what its "
            "checkpoint is a state of, only that program knows; give MODEL.py:factory, a function that loads it"
        )
    config = build(manifest.config)
    found = resolve(run, selector or "latest")
    recorded = [Path(path) for path in manifest.corpus.get("paths", [])]
    corpus = _read(list(texts) or recorded)
    notes = []
    if corpus.digest != manifest.corpus.get("digest"):
        if not texts:
            raise ConfigError(
                f"the text of run {run.id!r}, {manifest.corpus.get('name', 'unknown')}, is not what is "
                "found there now; name a text with --corpus"
            )
        notes.append("another text than the run's own: not comparable with its record")
    state, _ = load(run, found.name)
    state = _part(state, stream)
    kernel = Kernel(config.kernel)
    try:
        kernel.load_state_dict(state["model"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {found.name!r} holds no kernel of its run's configuration: {error}"
        ) from error
    tokens = probe_batch(corpus.heldout, context=config.kernel.context)
    probe = KernelProbe(config.kernel, tokens, seed=config.seed)
    if not notes and manifest.probe.get("digest") not in (None, probe.probe_digest):
        notes.append("another probe than the run's own (an earlier version): not comparable with its record")
    seen = probe.measure(kernel, every_pass=True)
    with torch.no_grad():
        logits = kernel(torch.from_numpy(tokens))
    if (kind := nonfinite_kind(logits)) is not None:
        seen = replace(seen, nonfinite={**seen.nonfinite, "output": kind})
    return Frozen(
        model=f"{run.id} @ {found.name} (step {found.step})" + (f", {stream}" if stream else ""),
        seen=_named(seen, full_rank=True),
        probe=probe.facts(),
        corpus=corpus.name,
        notes=tuple(notes),
        run=run.id,
        checkpoint=found.name,
        step=found.step or 0,
    )


def _part(state: dict[str, Any], stream: str | None) -> dict[str, Any]:
    """The state of one kernel."""
    beside = [name for name, part in state.items() if isinstance(part, Mapping) and "model" in part]
    if stream is None and "model" not in state and beside:
        raise UsageError(f"the checkpoint holds several kernels; name one with --stream: {', '.join(beside)}")
    if stream is None:
        return state
    if stream not in beside:
        there = f"it holds {', '.join(beside)}" if beside else "it holds one kernel alone"
        raise UsageError(f"the checkpoint holds no kernel {stream[:80]!r}; {there}")
    part: dict[str, Any] = state[stream]
    return part


def of_factory(
    target: str,
    texts: Sequence[Path],
    *,
    length: int | None = None,
    block: str = "auto",
    parts: int = 8,
    rank: int = 4,
) -> Frozen:
    """Any module: FILE.py:FUNCTION, a function without arguments that returns it, or (module, batch).

    The file is executed: it is the caller's. Without a batch the model is called with [8, length] bytes of held-out
    text as integers, 64 of them unless told.

    Raises:
        UsageError: no such file or function, it raises, or it does not return a module.
        ProbeError: the model does not fit.
    """
    path, _, function = target.rpartition(":")
    try:
        made = _call(Path(path), function)
    except UsageError:
        raise
    except Exception as error:  # the caller's code may raise anything
        raise UsageError(_in_words(target, error)) from error
    model, batch = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{target!r} returned {type(model).__name__}, not a torch module or (module, batch)")
    name, own = "given by the factory", batch is not None
    if batch is None:
        corpus, length = _read(texts), LENGTH if length is None else length
        if length < 2:
            raise UsageError(f"--length {length}: at least 2 bytes make a sequence")
        name, batch = corpus.name, torch.from_numpy(probe_batch(corpus.heldout, context=length))
    elif texts or length is not None:
        raise UsageError(f"{target!r} gives a batch of its own: leave {'--corpus' if texts else '--length'} out")
    try:
        probe = Probe(model, batch, block=block, parts=parts, rank=rank)
        seen = probe.measure(every_pass=True)
    except (IndexError, TypeError, RuntimeError) as error:
        hint = "" if own else f"; without a batch of its own it is called with [8, {length}] bytes, 0 .. 255"
        raise ProbeError(f"{target!r}: {type(error).__name__}: {str(error)[:300]}{hint}") from error
    facts = probe.facts()
    return Frozen(
        model=f"{target} ({sum(p.numel() for p in model.parameters()):,} parameters)",
        seen=_named(seen, full_rank=facts["rank"] * facts["num_parts"] == min(facts["width"])),
        probe=facts,
        corpus=name,
    )


def _named(seen: Measurement, *, full_rank: bool) -> Measurement:
    """With its regime, where phi was taken at full rank."""
    phi = seen.phi if full_rank else None
    return replace(seen, regime=classify(RegimeState(), phi=phi, kappa=seen.kappa, drift=None).name)


def _read(texts: Sequence[Path]) -> Corpus:
    return load_corpus(list(texts)) if texts else default_corpus()


def _call(path: Path, function: str) -> Any:
    if not path.is_file():
        raise UsageError(f"no such file: {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as python FILE.py would: its neighbours can be imported
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    factory: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(factory):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(function, known, n=3, cutoff=0.3) or known[:3]
        raise UsageError(f"{str(path)!r} has no function {function!r}; nearest: {', '.join(near) or 'none'}")
    return factory()


def _in_words(target: str, error: Exception) -> str:
    """What somebody's code raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{target!r} raised {type(error).__name__}: {str(error)[:300]} ({frame.filename}, line {frame.lineno})"
