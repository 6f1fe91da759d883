"""What can be done to one Gary beyond training it: sleep, dream, perturb, escape. When, and to whom, is not said here.

Each tells its figures before and after, and keeps a bound: where that is exceeded, or a figure or a parameter is not
finite, every parameter is put back to the bit and the result says why. Each is a pure function of the Gary's state and
of what it is given; none draws from a global random state. Only escape touches what the optimiser and the trackers
remember.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qig_core.errors import QigError
from qig_core.geometry.simplex import Basin
from qig_core.measures.undisturbed import one_thread
from qig_core.training.corpus import batch
from qig_core.training.kernel import Kernel
from qig_core.training.perturbation import shake
from qig_core.training.program_config import InterventionConfig, Verb
from qig_core.training.pull import basin, descent, distance_to
from qig_core.training.trainer import Trainer, next_token_loss
from qig_core.training.writing import generate


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What an intervention promises to keep: value ≤ limit."""

    name: str
    value: float
    """NaN where it came to nothing that could be measured."""
    limit: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What was done, or tried, to one Gary."""

    verb: Verb
    gary: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    """As it was after the attempt, also where that was undone then."""
    bound: Bound
    undone: bool
    reason: str
    """Why it was undone; empty where it was not."""

    def to_dict(self) -> dict[str, Any]:
        """The data of an `intervention` event but for who asked for it."""
        return asdict(self)


def sleep(gary: str, trainer: Trainer, reference: Basin, settings: InterventionConfig) -> Intervention:
    """n pulls of the basin back towards a reference: θ ← θ − η d ∇d/‖∇d‖², d = d(basin(θ), reference), see `pull`.

    Figures: distance_rad = d, loss_heldout. Bound: loss_heldout_rise, after minus before, nats a token.
    """

    def figures() -> dict[str, float]:
        return {"distance_rad": distance_to(_basin(trainer), reference).item(), "loss_heldout": trainer.heldout_loss()}

    before, kept = figures(), _copies(trainer.learning)
    for _ in range(settings.sleep_pulls):
        found = descent(trainer.kernel, trainer.probe, reference, trainer.learning)
        if found is None:
            break
        found.take(settings.sleep_share)
    after = figures()
    rise = after["loss_heldout"] - before["loss_heldout"]
    bound = Bound(name="loss_heldout_rise", value=rise, limit=settings.sleep_rise_nats, unit="nats")
    return _settled("sleep", gary, trainer.learning, kept, before, after, bound)


def dream(gary: str, trainer: Trainer, settings: InterventionConfig, *, seed: int, step: int) -> Intervention:
    """n steps θ ← θ − η ∇L of plain gradient descent, L the mean next-token loss of text that the kernel wrote before.

    Each text goes on from one byte of the training text, sampled at temperature 1. At the θ that wrote it the expected
    ∇L is 0: the first step is noise, whose covariance is the Fisher matrix's. Only the further ones, on the same text,
    have a direction: the kernel becomes surer of what it would have said anyway.

    Figures: loss_heldout, phi, loss_own = L. Bound: kl_nats, mean KL(before ‖ after) of the next token on the probe.

    Args:
        seed, step: what the text is a function of, with the weights.
    """
    kernel = trainer.kernel

    def figures() -> dict[str, float]:
        phi = trainer.probe.measure(kernel).phi
        with torch.no_grad():
            own = math.nan if text is None else next_token_loss(kernel, text).item()
        return {"loss_heldout": trainer.heldout_loss(), "phi": math.nan if phi is None else phi, "loss_own": own}

    text = _dreamt(trainer, settings.dream_texts, seed=seed, step=step)
    before, kept, said = figures(), _copies(trainer.learning), _said(trainer)
    if text is not None:
        for _ in range(settings.dream_steps):
            _descend(kernel, text, trainer.learning, settings.dream_lr)
    bound = Bound(name="kl_nats", value=_kl(said, _said(trainer)), limit=settings.dream_kl_nats, unit="nats")
    return _settled("dream", gary, trainer.learning, kept, before, figures(), bound)


def perturb(
    gary: str,
    trainer: Trainer,
    settings: InterventionConfig,
    *,
    seed: int,
    step: int,
    away_from: Basin | None = None,
) -> Intervention:
    """Noise in the Fisher metric that moves what is said on the probe by so many nats a token, see `perturbation`.

    Figures: loss_heldout, and distance_rad to `away_from`; after it also kl_predicted_nats and moved_rad, how far the
    basin moved. Bound: kl_nats, mean KL(before ‖ after) of the next token on the probe, twice the target.

    Args:
        seed, step: what z and the labels are a function of; Garys that lie together need seeds of their own.
        away_from: the basin that it lies too near to.
    """

    def figures(here: Tensor) -> dict[str, float]:
        near = {} if away_from is None else {"distance_rad": distance_to(here, away_from).item()}
        return {"loss_heldout": trainer.heldout_loss()} | near

    kept, said, origin = _copies(trainer.learning), _said(trainer), _basin(trainer)
    before = figures(origin)
    predicted = shake(
        trainer.kernel,
        _tokens(trainer),
        trainer.learning,
        kl_nats=settings.perturb_kl_nats,
        draws=settings.perturb_draws,
        damping=settings.perturb_damping,
        seed=seed,
        step=step,
    )
    here = _basin(trainer)
    after = figures(here) | {"kl_predicted_nats": predicted, "moved_rad": distance_to(here, origin).item()}
    limit = 2.0 * settings.perturb_kl_nats
    bound = Bound(name="kl_nats", value=_kl(said, _said(trainer)), limit=limit, unit="nats")
    return _settled("perturb", gary, trainer.learning, kept, before, after, bound)


def escape(gary: str, trainer: Trainer, snapshot: Mapping[str, Any], *, lr_factor: float = 1.0) -> Intervention:
    """The kernel, its optimiser and the trackers of its measures become those of a snapshot, which stays as it is.

    Figures: loss_heldout. Bound: differing_tensors, those of the kernel that are not the snapshot's to the bit, 0. The
    kernel is looked at first: where it is put back, nothing else has changed.

    Args:
        snapshot: a `Trainer.state()` of this Gary, the last that is known to be good.
        lr_factor: what its learning rate is multiplied by.

    Raises:
        RuntimeError, ValueError: torch's, for the state of another kernel or of other parameters.
    """
    mine = trainer.kernel.state_dict()
    before, kept = {"loss_heldout": trainer.heldout_loss()}, _copies(mine.values())
    trainer.kernel.load_state_dict(snapshot["model"])
    unlike = sum(not _same_bits(tensor, mine[name]) for name, tensor in snapshot["model"].items())
    after = {"loss_heldout": trainer.heldout_loss()}
    bound = Bound(name="differing_tensors", value=float(unlike), limit=0.0, unit="")
    found = _settled("escape", gary, mine.values(), kept, before, after, bound)
    if not found.undone:
        trainer.load(copy.deepcopy(dict(snapshot)))  # an optimiser keeps the tensors that it is given
        trainer.scale_lr(lr_factor)
    return found


def _dreamt(trainer: Trainer, num_texts: int, *, seed: int, step: int) -> Tensor | None:
    """[num_texts, context + 1] tokens, all but the first written by the kernel; None where a broken one writes none."""
    first = batch(trainer.corpus.train, seed=seed, step=step, batch_size=num_texts, context=1)[:, :1]
    prompt = torch.from_numpy(first).to(trainer.kernel.embedding.device)
    try:
        written = generate(trainer.kernel, prompt, trainer.config.kernel.context, seed=seed, step=step)
    except QigError:
        return None
    return torch.cat([prompt, written], dim=-1)


def _descend(kernel: Kernel, text: Tensor, parameters: Sequence[nn.Parameter], lr: float) -> None:
    with one_thread(), torch.enable_grad():
        gradients = torch.autograd.grad(next_token_loss(kernel, text), parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)


def _tokens(trainer: Trainer) -> Tensor:
    return trainer.probe.tokens.to(trainer.kernel.embedding.device)


@torch.no_grad()
def _said(trainer: Trainer) -> Tensor:
    """[B, T, vocab]: ln p of the next token, at every token of the probe, float64."""
    with one_thread():
        logits: Tensor = trainer.kernel(_tokens(trainer))
    return logits.double().log_softmax(dim=-1)


def _kl(before: Tensor, after: Tensor) -> float:
    """Mean over all but the last axis of Σ p (ln p − ln q), nats."""
    return (before.exp() * (before - after)).sum(dim=-1).mean().item()


@torch.no_grad()
def _basin(trainer: Trainer) -> Tensor:
    return basin(trainer.kernel, trainer.probe)


def _copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.cpu().numpy().tobytes() == other.cpu().numpy().tobytes()


def _settled(
    verb: Verb,
    gary: str,
    moved: Iterable[Tensor],
    kept: Sequence[Tensor],
    before: Mapping[str, float],
    after: Mapping[str, float],
    bound: Bound,
) -> Intervention:
    """The result; what was moved is first put back where it may not stay."""
    moved = list(moved)
    figures = {**after, bound.name: bound.value}
    wrong = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in moved):
        wrong.append("a parameter is not finite")
    if bound.value > bound.limit:
        wrong.append(f"{bound.name} is {bound.value:.3g}, more than {bound.limit:.3g} {bound.unit}".rstrip())
    if wrong:
        with torch.no_grad():
            for tensor, copied in zip(moved, kept, strict=True):
                tensor.copy_(copied)
    return Intervention(
        verb=verb,
        gary=gary,
        before=before,
        after=after,
        bound=bound,
        undone=bool(wrong),
        reason="; ".join(wrong),
    )
