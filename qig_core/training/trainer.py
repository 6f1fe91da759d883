"""One kernel that learns: its optimiser, its data, what is measured on it. No loop, no run directory."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qig_core.measures.basin import BasinTracker
from qig_core.measures.measurement import Measurement
from qig_core.measures.regime import RegimeTracker
from qig_core.safety.breakdown import Breakdown
from qig_core.safety.profile import load_profile
from qig_core.training import optimizers
from qig_core.training.config import TrainConfig
from qig_core.training.corpus import Corpus, batch, heldout_batches, probe_batch
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.shards import ShardedGradients


class Trainer:
    """A kernel, its optimiser and what is measured on it: everything that a checkpoint holds of one.

    Args:
        seed: of the kernel at birth; None for the configuration's, which is that of the data and of the probe.
    """

    def __init__(self, config: TrainConfig, corpus: Corpus, *, seed: int | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.corpus = corpus
        self.kernel = Kernel(config.kernel, seed=config.seed if seed is None else seed)
        self.learning: list[nn.Parameter] = []
        """What the optimiser moves."""
        self.optimizer: torch.optim.Optimizer
        self.learn_only(self.kernel.parameters())
        self.lr_factor = 1.0
        """What soft resets have made of the learning rate."""
        self.tokens: int | None = 0
        """Trained on by the updates so far; None: the checkpoint that this goes on from does not say."""
        self._tokens: torch.Tensor | None = None
        context, data = config.kernel.context, config.data
        self.gradients = ShardedGradients(threads=torch.get_num_threads(), rows=data.batch_size, context=context)
        self.probe = KernelProbe(config.kernel, probe_batch(corpus.heldout, context=context), seed=config.seed)
        heldout = heldout_batches(
            corpus.heldout, num_batches=data.heldout_batches, batch_size=data.batch_size, context=context
        )
        self._heldout = [torch.from_numpy(tokens) for tokens in heldout]
        self.basin = BasinTracker()
        self.regime = RegimeTracker()
        self.profile = load_profile(config.safety.profile).armed_after(2 * config.optimizer.warmup_steps)
        self.breakdown = Breakdown(max(200, 2 * config.optimizer.warmup_steps), self.profile.breakdown)
        self._begun: dict[str, Any] = {}
        """What the step changes before it is judged, as it was when the step began: a resume repeats that step."""

    @property
    def tokens_per_step(self) -> int:
        return self.config.data.batch_size * self.config.kernel.context

    def learn_only(self, parameters: Iterable[nn.Parameter]) -> None:
        """Move these alone, by an optimiser without a past."""
        self.learning = list(parameters)
        self.optimizer = optimizers.make(self.config.optimizer, self.learning)

    def learn_also(self, parameters: Iterable[nn.Parameter]) -> None:
        """Move these as well: a group of their own, without a past, beside what the optimiser remembers of the rest."""
        parameters = list(parameters)
        self.learning += parameters
        self.optimizer = optimizers.joined(self.optimizer, parameters, self.config.optimizer)

    def state(self) -> dict[str, Any]:
        """What a resume needs to go on bit by bit; tensors and plain data."""
        return {
            "model": self.kernel.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "basin": self.basin.state(),
            "regime": self.regime.state(),
            "lr_factor": self.lr_factor,
            "tokens": self.tokens,
        } | self._begun

    def load(self, state: Mapping[str, Any]) -> None:
        self.kernel.load_state_dict(state["model"])
        optimizers.load(self.optimizer, state["optimizer"], self.config.optimizer)
        self.basin = BasinTracker.from_state(state["basin"])
        self.regime = RegimeTracker.from_state(state["regime"])
        counted = Breakdown.from_state(state["breakdown"])
        if counted.rule == self.profile.breakdown:  # else a fork under another profile: it counts anew
            self.breakdown = counted
        self._begun = {"breakdown": self.breakdown.state()}
        self.lr_factor = float(state.get("lr_factor", 1.0))
        tokens = state.get("tokens")
        self.tokens = None if tokens is None else int(tokens)

    def scale_lr(self, factor: float) -> None:
        """Learn at `factor` times the rate from now on."""
        self.lr_factor *= factor

    def begin_step(self) -> None:
        self._begun = {"breakdown": self.breakdown.state()}

    def data_position(self, step: int) -> dict[str, Any]:
        """What `batch` makes the batch of a step from: the position in the data is the step alone."""
        data, kernel = self.config.data, self.config.kernel
        return {"step": step, "seed": self.config.seed, "batch_size": data.batch_size, "context": kernel.context}

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant; less where a soft reset made it so."""
        settings = self.config.optimizer
        return self.lr_factor * settings.lr * min(1.0, (step + 1) / (settings.warmup_steps + 1))

    def forward_backward(self, step: int) -> dict[str, float | None]:
        """Gradients of one batch, clipped; `update` is left to the caller, who judges first."""
        self._tokens = tokens = torch.from_numpy(
            batch(
                self.corpus.train,
                seed=self.config.seed,
                step=step,
                batch_size=self.config.data.batch_size,
                context=self.config.kernel.context,
            )
        )
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.gradients(lambda rows: next_token_loss(self.kernel, rows), self.learning, tokens)
        clip_norm = self.config.optimizer.clip_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.learning, clip_norm)
        metrics: dict[str, float | None] = {
            "loss": loss.item(),
            "grad_norm": grad_norm.item(),
            "lr": rate,
            "recursion_depth": float(self.config.kernel.passes),
        }
        return metrics | optimizers.figures(self.optimizer)

    def update(self) -> None:
        """The step that the gradients of forward_backward ask for."""
        tokens = self._tokens
        assert tokens is not None

        def closure() -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.kernel(tokens[:, :-1])
            return _cross_entropy(logits, tokens), logits

        optimizers.step(self.optimizer, closure)
        if self.tokens is not None:
            self.tokens += tokens[:, 1:].numel()

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean next-token loss over the fixed held-out batches, nats a byte."""
        return sum(next_token_loss(self.kernel, tokens).item() for tokens in self._heldout) / len(self._heldout)

    def measure(self) -> Measurement:
        """phi, kappa, the basin, its drift and the regime as they are now."""
        seen = self.probe.measure(self.kernel)
        self._begun |= {"basin": self.basin.state(), "regime": self.regime.state()}
        drift = {} if seen.basin is None else self.basin.observe(seen.basin)
        regime = self.regime.observe(seen.phi, kappa=seen.kappa, drift=drift.get("drift_rolling"))
        return dataclasses.replace(seen, drift=drift, regime=regime)


def next_token_loss(kernel: Kernel, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each next byte, nats; tokens [B, T + 1]."""
    return _cross_entropy(kernel(tokens[:, :-1]), tokens)


def _cross_entropy(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
