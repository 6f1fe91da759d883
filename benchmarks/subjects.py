"""The two runs that are watched: our kernel in its own loop, and a byte language model in a loop such as a user has.

The kernel is the preset `tiny`; the other is built around nn.TransformerEncoder and measured by a probe. A faulty run
goes on from a healthy run's checkpoint, the monitor's state included, and is that run bit by bit until the injection.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from faults import FAULTS, Fault, Job, Target
from torch import Tensor, nn
from torch.nn import functional

from qig_core.checkpoints.recovery import Restored, announce, foresee, restore
from qig_core.checkpoints.saving import saver, state_loader
from qig_core.measures.probe import Probe
from qig_core.rundir.host import git_revision, versions
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest, Parent
from qig_core.rundir.writer import RunWriter
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.training import requests
from qig_core.training.config import PRESETS, merge
from qig_core.training.corpus import batch, default_corpus, heldout_batches, probe_batch
from qig_core.training.loop import train
from qig_core.training.program import Solo
from qig_core.training.runs import begin
from qig_core.training.trainer import Trainer


def byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next byte, nats; logits [B, T, vocab], targets [B, T]."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class KernelTarget(Target):
    """A kernel in its trainer."""

    def __init__(self, trainer: Trainer) -> None:
        self.model, self.optimizer = trainer.kernel, trainer.optimizer
        self._kernel, self._trainer = trainer.kernel, trainer

    def heldout_loss(self) -> float:
        return self._trainer.heldout_loss()

    @torch.no_grad()
    def flatten_attention(self) -> None:
        self._kernel.log_kappa.fill_(-20.0)

    def cut(self) -> None:
        self._kernel.set_gain(0.0)

    def residual_axes(self, first: Tensor, second: Tensor) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
        whole = torch.cat([first, second + len(first)])
        columns_of = {"within_a": first, "cross_ab": second, "cross_ba": first, "within_b": second}
        rows_of = {"within_a": first, "cross_ab": first, "cross_ba": second, "within_b": second}
        for name, parameter in self._kernel.named_parameters():
            matrix, _, block = name.partition(".")
            if matrix in ("embedding", "positions", "head"):
                yield parameter, 1, whole
            elif matrix in ("w_o", "mlp_out"):
                yield parameter, 0, rows_of[block]
            elif block:
                yield parameter, 1, columns_of[block]


def train_kernel(job: Job) -> None:
    """A run of the kernel as `qig-core train` makes it, with the preset `tiny`."""
    place = requests.Place(runs=Path(job.folder), run_id=job.run_id)
    over = {
        "steps": job.steps,
        "seed": job.seed,
        "cadence": {"checkpoint_every": job.checkpoint_every},
        "safety": {"profile": job.profile},
    }
    if job.parent:
        started = begin(requests.fork(RunDir(job.parent), str(job.parent_step), over, [], place))
    else:
        started = begin(requests.new(merge(PRESETS["tiny"], over), [], place))
    assert isinstance(started.program, Solo)
    trainer = started.program.trainer
    if job.fault:
        _put_into(trainer, FAULTS[job.fault](job, KernelTarget(trainer), started.writer))
    train(started)


def _put_into(trainer: Trainer, fault: Fault) -> None:
    """Let the fault's hooks be called from within the trainer's own methods."""
    forward_backward, update, rate, gradients = (
        trainer.forward_backward,
        trainer.update,
        trainer.learning_rate,
        trainer.gradients,
    )

    def hooked_forward_backward(step: int) -> dict[str, float | None]:
        fault.step_begins(step)
        return forward_backward(step)

    def hooked_update() -> None:
        update()
        fault.updated()

    def hooked_gradients(_: Any, parameters: Iterable[nn.Parameter], tokens: Tensor) -> Tensor:
        def loss_of(rows: Tensor) -> Tensor:
            return byte_loss(trainer.kernel(rows[:, :-1]), fault.targets(rows[:, 1:]))

        loss = gradients(loss_of, parameters, tokens)
        fault.gradients()
        return loss

    trainer.forward_backward = hooked_forward_backward  # type: ignore[method-assign]
    trainer.update = hooked_update  # type: ignore[method-assign]
    trainer.learning_rate = lambda step: fault.rate(rate(step))  # type: ignore[method-assign]
    trainer.gradients = hooked_gradients  # type: ignore[assignment]


WIDTH, HEADS, LAYERS, HIDDEN = 32, 4, 2, 64
CONTEXT, BATCH_SIZE = 32, 4
RATE, WARM_UP, CLIP_NORM = 3e-3, 20, 1.0
MEASURE_EVERY, HELDOUT_EVERY = 10, 50


class ByteTransformer(nn.Module):
    """Next-byte logits [B, T, 256] of bytes [B, T], by torch's own encoder under a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(256, WIDTH))
        self.positions = nn.Parameter(0.5 * torch.randn(CONTEXT, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embedding[tokens] + self.positions[:length]
        logits: Tensor = self.head(self.encoder(x, mask=mask, is_causal=True))
        return logits


class TransformerTarget(Target):
    """The encoder and its optimiser.

    Its layers keep torch's LayerNorm over the whole width, through which the halves of a cut encoder still reach each
    other: phi falls by a quarter. With a norm for each half it would be 0.
    """

    def __init__(self, model: ByteTransformer, optimizer: torch.optim.Optimizer, heldout: list[Tensor]) -> None:
        self.model, self.optimizer, self._heldout = model, optimizer, heldout
        self._layers: list[Any] = list(model.encoder.layers)

    @torch.no_grad()
    def flatten_attention(self) -> None:
        for layer in self._layers:
            layer.self_attn.in_proj_weight[: 2 * WIDTH] = 0.0
            layer.self_attn.in_proj_bias[: 2 * WIDTH] = 0.0

    @torch.no_grad()
    def cut(self) -> None:
        for layer in self._layers:
            attention = layer.self_attn
            for weight in (
                *attention.in_proj_weight.chunk(3),
                attention.out_proj.weight,
                layer.linear1.weight,
                layer.linear2.weight,
            ):
                upper, lower = weight.chunk(2)
                upper.chunk(2, dim=1)[1].zero_()
                lower.chunk(2, dim=1)[0].zero_()

    def residual_axes(self, first: Tensor, second: Tensor) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
        whole = torch.cat([first, second + len(first)])
        model: Any = self.model
        found = [(model.embedding, 1), (model.positions, 1), (model.head.weight, 1)]
        for layer in self._layers:
            attention = layer.self_attn
            found += [(attention.in_proj_weight, 1), (layer.linear1.weight, 1)]
            found += [(module.weight, 0) for module in (attention.out_proj, layer.linear2, layer.norm1, layer.norm2)]
            found += [(module.bias, 0) for module in (attention.out_proj, layer.linear2, layer.norm1, layer.norm2)]
        for parameter, axis in found:
            yield parameter, axis, whole

    @torch.no_grad()
    def heldout_loss(self) -> float:
        losses = [byte_loss(self.model(tokens[:, :-1]), tokens[:, 1:]).item() for tokens in self._heldout]
        return sum(losses) / len(losses)


def train_transformer(job: Job) -> None:
    """A loop as a user has it, with a probe and a monitor in it."""
    torch.manual_seed(job.seed)
    corpus = default_corpus()
    model = ByteTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    heldout = [
        torch.from_numpy(tokens)
        for tokens in heldout_batches(corpus.heldout, num_batches=2, batch_size=BATCH_SIZE, context=CONTEXT)
    ]
    target = TransformerTarget(model, optimizer, heldout)
    looked_at = torch.from_numpy(probe_batch(corpus.heldout, context=CONTEXT))
    probe = Probe(model, looked_at, every=MEASURE_EVERY, max_overhead=math.inf)
    remembered = probe.state()

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "probe": remembered}

    def load(state: Mapping[str, Any]) -> None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        probe.load(state["probe"])

    writer, restored = _opened(job, load, probe)
    fault = (FAULTS[job.fault] if job.fault else Fault)(job, target, writer)
    with IntegratedMonitor(
        writer,
        profile=job.profile,
        save=saver(state),
        checkpoint_every=job.checkpoint_every,
        first_step=restored.step,
        monitor_state=restored.monitor_state,
        training_s=restored.training_s,
        parent=restored.checkpoint,
    ) as monitor:
        for step in range(monitor.first_step, job.steps):
            fault.step_begins(step)
            window = batch(corpus.train, seed=job.seed, step=step, batch_size=BATCH_SIZE, context=CONTEXT)
            tokens = torch.from_numpy(window)
            rate = fault.rate(RATE * min(1.0, (step + 1) / (WARM_UP + 1)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = byte_loss(model(tokens[:, :-1]), fault.targets(tokens[:, 1:]))
            loss.backward()
            fault.gradients()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            metrics: dict[str, float | None] = {"loss": loss.item(), "grad_norm": grad_norm.item(), "lr": rate}
            if step % HELDOUT_EVERY == 0:
                metrics["loss_heldout"] = target.heldout_loss()
            remembered = probe.state()  # a resume repeats this step, its measurement too
            seen = probe(step)
            metrics |= seen.metrics()
            if not monitor.check(step, metrics, basin=seen.basin_bytes, regime=seen.regime, reasons=seen.reasons):
                break
            optimizer.step()
            fault.updated()
        monitor.finish(job.steps)


def _opened(job: Job, load: Callable[[dict[str, Any]], None], probe: Probe) -> tuple[RunWriter, Restored]:
    """A new run under its own name; where it has a parent, with the parent's state."""
    restored, parent = Restored(), None
    if job.parent:
        run = RunDir(job.parent)
        name = foresee(run, str(job.parent_step))
        assert name is not None
        restored = restore(run, name, state_loader(load))
        parent = Parent(run=run.id, checkpoint=name)
    manifest = Manifest(
        id=job.run_id,
        program="benchmarks/detection.py",
        total_steps=job.steps,
        config=job.data(),
        probe=probe.facts(),
        versions=versions(),
        git=git_revision(Path.cwd()),
        threads=torch.get_num_threads(),
        parent=parent,
    )
    writer = RunWriter.create(Path(job.folder), manifest)
    if job.parent:
        announce(writer, restored)
    return writer, restored


SUBJECTS = {"kernel": train_kernel, "transformer": train_transformer}


def work(job: Job) -> None:
    """Train until the end or until the monitor stops it; how it ended stands in the run directory."""
    torch.set_num_threads(1)
    SUBJECTS[job.subject](job)
