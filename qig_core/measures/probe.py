"""phi, kappa and the basin of a model that nobody here wrote, beside its training loop. torch; leaves no trace.

    with Probe(model, heldout_tokens) as probe:
        for step in range(steps):
            ...
            seen = probe(step)  # at most 3 % of the time
            if not monitor.check(step, {"loss": loss.item()} | seen.metrics(), basin=seen.basin_bytes):
                break

One module of the model is its block. It is called again with its own inputs, so phi is what it is for our kernel: the
block's linear map at one position, the rest of the context held fixed. Nothing stays in the model: hooks exist while it
is looked at, in a forward pass of the probe's own; its mode, buffers, gradients and the random generators are then as
they were. No collective operation either: on one rank or on all.
"""

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from qig_core.errors import ProbeError
from qig_core.geometry.simplex import Basin
from qig_core.measures.attention import Attention
from qig_core.measures.basin import BasinTracker, basin_of
from qig_core.measures.blocks import Call, captured, first_nonfinite, named_block
from qig_core.measures.cadence import Cadence, Spent
from qig_core.measures.coupling import KappaResult, kappa_eff
from qig_core.measures.integration import MAX_PARTS, PhiResult, effective_information
from qig_core.measures.measurement import NOT_NOW, Measurement
from qig_core.measures.regime import RegimeTracker
from qig_core.measures.subject import Batch, Subject
from qig_core.measures.transition import Mode, equal_parts, nonfinite_kind
from qig_core.measures.undisturbed import inside, one_thread, undisturbed, without_compiler

_ROWS_A_SEQUENCE = 64  # queries of one sequence that kappa is fitted on
_MANY_NUMBERS = 1 << 22  # in one operation of a Jacobian: from here on several threads gain more than they cost
_COLD_S = 1.0
_ALL = ("phi", "phi_nats", "kappa", "basin")


@dataclass(kw_only=True)
class _Look:
    """What one look has found so far."""

    phi: list[PhiResult] = field(default_factory=list)
    coupling: KappaResult | None = None
    basin: Basin | None = None
    mode: Mode = "forward"
    nonfinite: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    broken_at: str | None = None


def _name_of(block: nn.Module, model: nn.Module) -> str:
    names: list[str] = [name for name, module in model.named_modules() if module is block]
    if names:
        return names[0]
    raise ProbeError(f"the block, a {type(block).__name__}, is not a module of this model")


class Probe:
    """Measures `model` on one fixed batch. A context manager; `probe(step)` in the loop, `measure()` at any time.

    Args:
        model: any module. What torch.compile or DistributedDataParallel wrapped is looked at as it is inside.
        batch: what the model is called with, held out from training: a tensor, a tuple of positional or a mapping of
            keyword arguments; the first eight sequences are used, fewer are repeated. None takes the first batch that
            the model is called with, and facts() says so. With a batch the model is measured here already: the first
            step has that measurement for nothing, if the model is still what it was.
        block: the module whose transition is measured: itself, its name, or "auto" (`blocks.chosen_block` says which
            that is).
        parts: groups of neighbouring units that are cut, 2 .. 12.
        rank: coordinates of each part that are perturbed and read; a number as large as a part means all of them.
        every: steps between measurements. max_overhead: the share of the loop's time that they may cost together;
            where that is not enough, some are left out (`spent()` tells).
        noise: ε. temperature: τ of softmax(q/τ), from which attention's distances are made.
        seed: of the projections and the readout.
        batch_dim: which dimension of the batch's tensors counts sequences.

    Raises:
        ProbeError: no module of that name (with the nearest ones), or none that maps a state to a state.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any = None,
        *,
        block: str | nn.Module = "auto",
        parts: int = 8,
        rank: int = 4,
        every: int = 10,
        max_overhead: float = 0.03,
        noise: float = 0.1,
        temperature: float = 1.0,
        seed: int = 0,
        batch_dim: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ProbeError(f"a probe is put on a torch module, not on {type(model).__name__}")
        for name, value, least in (("parts", parts, 2), ("rank", rank, 1), ("every", every, 1)):
            if not isinstance(value, int) or value < least:
                raise ProbeError(f"{name} is {value!r}: it must be a whole number, at least {least}")
        if parts > MAX_PARTS:
            raise ProbeError(f"parts is {parts}: at most {MAX_PARTS} can be cut")
        for name, number in (("noise", noise), ("temperature", temperature)):
            if not 0.0 < number < math.inf:
                raise ProbeError(f"{name} is {number}: it must be positive and finite")
        if not (0.0 < max_overhead <= 1.0 or max_overhead == math.inf):
            raise ProbeError(f"max_overhead is {max_overhead}: a share in (0, 1], or math.inf for no limit")
        self._model = inside(model)
        if isinstance(block, nn.Module):
            block = _name_of(block, self._model)
        elif block != "auto":
            named_block(self._model, block)
        self._block, self._parts, self._rank, self._seed = block, parts, rank, seed
        self._noise, self._temperature, self._batch_dim = noise, temperature, batch_dim
        self._cadence = Cadence(every, max_overhead)
        self._basins, self._regimes = BasinTracker(), RegimeTracker()
        self._warm: tuple[float | None, ...] | None = None
        self._batch: Batch | None = None
        self._subject: Subject | None = None
        self._source = "given"
        self._handle: Any = None
        self._birth: tuple[Measurement, torch.Tensor] | None = None
        if batch is not None:
            self._batch = Batch(batch, batch_dim)
            birth = self.measure()
            if birth.cost_s < _COLD_S:  # much of that was libraries at their first call
                birth = self.measure()
            self._birth = birth, self._weights()
        else:
            self._source = "the first that the model was called with"
            self._handle = model.register_forward_pre_hook(without_compiler(self._first_batch), with_kwargs=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what may still hang on the model: the hook that waits for a first batch."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __call__(self, step: int) -> Measurement:
        """The measurement of this step, with its drift and regime; NOT_NOW where it is not this step's turn."""
        if self._batch is None or not self._cadence.due(step, time.perf_counter()):
            return NOT_NOW
        birth, self._birth = self._birth, None
        if birth is not None and torch.equal(birth[1], self._weights()):
            seen = birth[0]
            self._cadence.born(step, seen.cost_s)
        else:
            seen = self.measure()
            self._cadence.measured(step, seen.cost_s, time.perf_counter())
        drift = {} if seen.basin is None else self._basins.observe(seen.basin)
        regime = None
        if self._ready().full_rank:
            regime = self._regimes.observe(seen.phi, kappa=seen.kappa, drift=drift.get("drift_rolling"))
        return replace(seen, drift=drift, regime=regime)

    def spent(self) -> Spent:
        """What measuring has cost so far, and how often it could be done."""
        return self._cadence.spent()

    def facts(self) -> dict[str, Any]:
        """What two runs must share for their measures to be comparable, as plain data for a manifest."""
        subject = self._ready()
        return {
            "digest": subject.digest(),
            "batch": self._source,
            "block": subject.name,
            "positions": subject.offsets.tolist(),
            "num_parts": self._parts,
            "width": [subject.directions.shape[1], subject.readings.shape[1]],
            "rank": len(subject.directions) // self._parts,
            "partition": "neighbouring units",
            "noise": self._noise,
            "pass": "last",
            "temperature": self._temperature,
        }

    def state(self) -> dict[str, Any]:
        """What drift, regime and the fit of kappa remember, and of which probe, for a checkpoint."""
        return {
            "digest": self._ready().digest(),
            "basin": self._basins.state(),
            "regime": self._regimes.state(),
            "kappa": None if self._warm is None else list(self._warm),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`.

        Raises:
            ValueError: it is none, or that of a probe whose basins are not comparable with this one's (ProbeError).
        """
        try:
            digest, warm = state["digest"], state["kappa"]
            basins, regimes = BasinTracker.from_state(state["basin"]), RegimeTracker.from_state(state["regime"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a probe: {error!r}") from error
        if digest != self._ready().digest():
            raise ProbeError("the state is that of another probe: another batch, block, rank or seed")
        self._basins, self._regimes, self._warm = basins, regimes, None if warm is None else tuple(warm)
        self._birth = None  # of the weights before

    def measure(self, *, every_pass: bool = False) -> Measurement:
        """Look at the model as it is. A broken model is a value, not an exception: see Measurement.nonfinite.

        Args:
            every_pass: phi of each call of the block, not only of the last.

        Raises:
            ProbeError: no batch yet, or a block whose tensors are not (batch, position, feature).
        """
        begun = time.perf_counter()
        subject, look = self._ready(), _Look()
        with undisturbed(self._model), ExitStack() as stack:
            threads = torch.get_num_threads()
            if subject.work < _MANY_NUMBERS:
                stack.enter_context(one_thread())
            try:
                self._measure(subject, look, every_pass, threads)
            except torch.OutOfMemoryError:
                look.reasons |= dict.fromkeys(_ALL, "out of memory")
        return Measurement(
            integration=look.phi[-1] if look.phi else None,
            coupling=look.coupling,
            basin=look.basin,
            nonfinite=look.nonfinite,
            reasons=look.reasons,
            broken_at=look.broken_at,
            per_pass=tuple(each.score for each in look.phi) if every_pass else (),
            mode=look.mode,
            cost_s=time.perf_counter() - begun,
        )

    def _measure(self, subject: Subject, look: _Look, every_pass: bool, threads: int) -> None:
        with captured(subject.block) as calls:
            output = subject.run()
        if output is not None and (kind := nonfinite_kind(output)) is not None:
            look.nonfinite["output"] = kind
        if not calls or calls[-1].y is None:
            look.reasons |= dict.fromkeys(_ALL, f"{subject.name} was not called with a state")
            return
        again, attention = subject.again(calls[-1])
        if again is None:
            reason = f"{subject.name} called again with its own inputs answers otherwise"
            look.reasons |= dict.fromkeys(("phi", "phi_nats"), reason)
        else:
            self._integration(subject, calls if every_pass else calls[-1:], look, threads)
        self._coupling(subject, attention, look)
        pooled = subject.pooled(calls[-1].y).cpu()
        if (kind := nonfinite_kind(pooled)) is None:
            look.basin = basin_of(pooled.numpy(), subject.basin_readout)
        else:
            look.nonfinite["basin"] = kind
        if look.nonfinite:
            with first_nonfinite(self._model) as broken:
                subject.run()
            look.broken_at = next(iter(broken), None)
            where = "" if look.broken_at is None else f", first in {look.broken_at}"
            look.reasons |= {name: kind + where for name, kind in look.nonfinite.items()}

    def _integration(self, subject: Subject, calls: list[Call], look: _Look, threads: int) -> None:
        for call in calls:
            try:
                found = subject.transition(call)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # a derivative of neither kind
                look.reasons |= dict.fromkeys(("phi", "phi_nats"), f"no Jacobian of {subject.name}: {error}"[:300])
                return
            look.mode = found.mode
            if not (bool(found.rms_x.all()) and bool(found.rms_y.all())):
                reason = f"the state before or after {subject.name} is 0: it has no size that a change is relative to"
                look.reasons |= dict.fromkeys(("phi", "phi_nats"), reason)
                return
            maps = found.relative().cpu()
            if (kind := nonfinite_kind(maps)) is not None:
                look.nonfinite |= {"phi": kind, "phi_nats": kind}
                return
            parts = equal_parts(maps.shape[1], self._parts)
            look.phi.append(effective_information(maps.numpy(), parts, self._noise, threads=threads))

    def _coupling(self, subject: Subject, attention: Attention | None, look: _Look) -> None:
        if attention is None:
            look.reasons["kappa"] = f"{subject.name} shows no attention"
            return
        attention = attention.among(subject.real(attention.weights.shape[2])).rows(_ROWS_A_SEQUENCE)
        distances = attention.distances(self._temperature)
        num_sequences, _, num_rows, _ = attention.weights.shape
        weights, pairs, allowed = (
            each.transpose(0, 1).flatten(1, 2) for each in (attention.weights, distances, attention.allowed)
        )
        clusters = np.repeat(np.arange(num_sequences), num_rows)
        look.coupling = kappa_eff(weights, pairs, mask=allowed, clusters=clusters, warm=self._warm)
        self._warm = look.coupling.per_head
        if look.coupling.reason == "not finite":
            look.nonfinite["kappa"] = nonfinite_kind(weights) or nonfinite_kind(pairs) or "nan"
        elif look.coupling.reason is not None:
            look.reasons["kappa"] = look.coupling.reason

    def _weights(self) -> torch.Tensor:
        """A sum for each parameter: whether the model is still what it was at its birth."""
        return torch.tensor([float(p.detach().double().sum()) for p in self._model.parameters()])

    def _first_batch(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.close()
        self._batch = Batch((args, kwargs), self._batch_dim)

    def _ready(self) -> Subject:
        if self._subject is None:
            if self._batch is None:
                raise ProbeError("there is no batch to measure on yet: give one, or call the model first")
            self._subject = Subject(
                self._model, self._batch, block=self._block, parts=self._parts, rank=self._rank, seed=self._seed
            )
        return self._subject
