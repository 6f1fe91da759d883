"""The optimiser that a configuration asks for, and how its state comes back. No loop, no model."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from qig_core.geometry.natural import Closure, NaturalGradient
from qig_core.training.config import NATURAL_KEYS, OptimizerConfig


def make(settings: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW or the natural gradient, at the rate that follows the warm-up."""
    if settings.name == "natural":
        own = {name: getattr(settings, name) for name in NATURAL_KEYS}
        return NaturalGradient(parameters, likelihood="categorical", lr=settings.lr, **own)
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def joined(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], settings: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimiser with further parameters: AdamW gets a group of them with fresh moments, at its own rate.

    The natural gradient solves for all parameters at once, so it is a new one over all of them, lambda kept.
    """
    if isinstance(optimizer, NaturalGradient):
        new = make(settings, [*optimizer.param_groups[0]["params"], *parameters])
        new.param_groups[0]["damping"] = optimizer.damping
        return new
    group = optimizer.param_groups[0]
    optimizer.add_param_group({"params": parameters, **{key: group[key] for key in ("lr", "weight_decay", "fused")}})
    return optimizer


def step(optimizer: torch.optim.Optimizer, closure: Closure) -> None:
    """Update the parameters by their gradients; `closure` looks at the gradients' batch again, if that is asked for."""
    if isinstance(optimizer, NaturalGradient):
        optimizer.step(closure)
    else:
        optimizer.step()


def load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], settings: OptimizerConfig) -> None:
    """Put a state back under `settings`. Another optimiser's state, as a fork may bring it, is left: ours begins anew.

    Raises:
        ValueError: a state for other parameters.
    """
    natural = isinstance(optimizer, NaturalGradient)
    if natural != ("kl_max" in state["param_groups"][0]):
        return
    optimizer.load_state_dict(dict(state))
    # What torch keeps of settings in its state is the parent's; lambda alone is state.
    kept = [name for name in NATURAL_KEYS if name != "damping"] if natural else ["weight_decay"]
    for group in optimizer.param_groups:
        group.update({name: getattr(settings, name) for name in kept})


def figures(optimizer: torch.optim.Optimizer) -> dict[str, float | None]:
    """Metrics of an optimiser that has some: lambda of the coming step, and what the last step did."""
    if not isinstance(optimizer, NaturalGradient):
        return {}
    found: dict[str, float | None] = {"damping": optimizer.damping}
    if (last := optimizer.last) is not None:
        found |= {"step_kl": last.kl, "cg_iterations": float(last.cg_iterations)}
        if not math.isnan(last.ratio):
            found["reduction_ratio"] = last.ratio
    return found
