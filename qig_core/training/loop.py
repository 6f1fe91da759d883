"""The training loop, read top to bottom: step, measure, judge, record, save.

`step` is the number of optimiser updates that were applied. A step is judged before its update, so a checkpoint taken
at step n holds exactly n updates, and a resume begins by repeating step n.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import torch
from torch.nn import functional

from qig_core.checkpoints.recovery import Restored
from qig_core.checkpoints.saving import restorer, saver
from qig_core.measures.basin import BasinTracker
from qig_core.measures.gpu import GpuMeter
from qig_core.measures.measurement import NOT_NOW, Measurement
from qig_core.measures.regime import RegimeTracker
from qig_core.rundir.writer import RunWriter
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.breakdown import Breakdown
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import load_profile
from qig_core.training import optimizers
from qig_core.training.config import TrainConfig, digest
from qig_core.training.corpus import Corpus, batch, heldout_batches, probe_batch
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.shards import ShardedGradients

Report = Callable[[int, Mapping[str, float | None]], None]
"""Called at each step, the last one too, with the latest value of every metric."""


class Trainer:
    """A kernel, its optimiser and what is measured on it: everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.corpus = corpus
        self.kernel = Kernel(config.kernel, seed=config.seed)
        self.optimizer = optimizers.make(config.optimizer, self.kernel.parameters())
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
        loss = self.gradients(lambda rows: next_token_loss(self.kernel, rows), self.kernel.parameters(), tokens)
        clip_norm = self.config.optimizer.clip_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.kernel.parameters(), clip_norm)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Started:
    """A run that is open for writing, and a trainer that stands before its first step."""

    writer: RunWriter
    trainer: Trainer
    restored: Restored = dataclasses.field(default_factory=Restored)
    alerts: AlertSettings | None = None


def train(started: Started, report: Report | None = None) -> IntegratedMonitor:
    """Train to the configured step; the monitor that comes back knows how it ended. The run is then closed."""
    writer, trainer, config = started.writer, started.trainer, started.trainer.config
    restored = started.restored
    cadence, checkpoints = config.cadence, config.checkpoints
    process = psutil.Process()
    process.cpu_percent()
    gpu = GpuMeter()
    with IntegratedMonitor(
        writer,
        profile=trainer.profile,
        save=saver(
            trainer.state,
            data_position=trainer.data_position,
            keep=checkpoints.keep(),
            asynchronous=checkpoints.asynchronous,
            on_best=checkpoints.on_best,
            sha256=checkpoints.sha256,
        ),
        restore=restorer(trainer.load, scale_lr=trainer.scale_lr),
        alerts=started.alerts,
        log_every=cadence.log_every,
        checkpoint_every=cadence.checkpoint_every,
        deadline_s=config.safety.deadline_s,
        config_digest=digest(config),
        corpus_digest=trainer.corpus.digest,
        training_s=restored.training_s,
        parent=restored.checkpoint,
        first_step=restored.step,
        monitor_state=restored.monitor_state,
    ) as monitor:
        step_s: float | None = None
        began = time.perf_counter()
        for step in monitor.steps(last=True):
            trainer.begin_step()
            last = step == config.steps
            metrics: dict[str, float | None] = {} if last else trainer.forward_backward(step)
            computed = time.perf_counter()
            if trainer.tokens is not None:
                metrics["tokens"] = float(trainer.tokens)
            if step_s is not None and not last:
                metrics["step_ms"] = 1e3 * step_s
                metrics["tokens_per_s"] = config.data.batch_size * config.kernel.context / step_s

            measured = NOT_NOW
            if last or step % cadence.heldout_every == 0:
                writer.heartbeat.doing = "eval"
                metrics["loss_heldout"] = trainer.heldout_loss()
            if last or step % cadence.measure_every == 0:
                writer.heartbeat.doing = "eval"
                measured = trainer.measure()
                metrics |= measured.metrics()  # what is not finite among them is judged, not hidden
                metrics["cpu_pct"] = process.cpu_percent()
                metrics["rss_bytes"] = float(process.memory_info().rss)
                metrics |= gpu.metrics()

            if not last:
                metrics["breakdown_pct"] = trainer.breakdown.observe(step, metrics, measured.regime)
            goes_on = monitor.check(
                step, metrics, basin=measured.basin_bytes, regime=measured.regime, reasons=measured.reasons
            )
            if report is not None:
                report(step, monitor.latest)
            if not goes_on:  # stopped, or gone back: the update is left out
                step_s, began = None, time.perf_counter()
                continue
            if last:
                monitor.finish(step)
                continue
            updating = time.perf_counter()
            trainer.update()
            done = time.perf_counter()
            step_s = (computed - began) + (done - updating)
            began = done
    return monitor
