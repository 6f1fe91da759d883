"""The basin of a kernel as a function of its parameters, and a step of them that takes it towards another basin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qig_core.geometry.batched import fisher_rao_distance
from qig_core.geometry.simplex import Basin
from qig_core.measures.undisturbed import one_thread
from qig_core.training.kernel import Kernel, half_norm
from qig_core.training.measure import KernelProbe

LONGEST = 0.01
"""No step is longer than this times the norm of the parameters that it moves."""


def basin(kernel: Kernel, probe: KernelProbe) -> Tensor:
    """softmax(R z), z the mean over batch and position of half_norm(state after the last pass): what `probe` measures.

    Returns:
        [64] on the simplex, float64, with its graph; NaN where the kernel is broken.
    """
    device = kernel.embedding.device
    with one_thread():
        pooled = half_norm(kernel.last_state(probe.tokens.to(device))).double().mean(dim=(0, 1))
        return torch.softmax(torch.from_numpy(probe.readout).to(device) @ pooled, dim=-1)


def distance_to(here: Tensor, target: Basin | Tensor) -> Tensor:
    """Fisher–Rao distance of a basin from a target that is a constant, whatever it was made from: rad, a scalar."""
    constant = target.detach() if isinstance(target, Tensor) else torch.tensor(target)
    return fisher_rao_distance(here, constant.to(here))


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Which way, and how far, parameters must move for their kernel's basin to approach a target."""

    distance: float
    """d, Fisher–Rao, from the basin to the target where it was looked at, rad."""
    slope: float
    """‖∇d‖, rad a unit of the parameters; 0 where d has no gradient: at the target, or if nothing moves the basin."""
    parameters: Sequence[nn.Parameter]
    """Those that may move."""
    gradient: Sequence[Tensor | None]
    """∇d of each; None where the basin does not depend on it."""

    @torch.no_grad()
    def take(self, share: float, *, longest: float = LONGEST) -> float:
        """θ ← θ − η d ∇d/‖∇d‖²: to first order d falls by the share η. Nothing moves where the slope is 0.

        Shortened, in its direction, to ‖Δθ‖ ≤ longest · ‖θ‖ over the parameters that may move.

        Args:
            share: η in [0, 1].

        Returns:
            ‖Δθ‖.

        Raises:
            ValueError: share outside [0, 1].

        Source: Polyak 1987, the step for a function whose least value, here 0, is known.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share is {share}: it must lie in [0, 1]")
        if self.slope == 0.0:
            return 0.0
        length = min(share * self.distance / self.slope, longest * _norm(self.parameters))
        for parameter, gradient in zip(self.parameters, self.gradient, strict=True):
            if gradient is not None:
                parameter.sub_(gradient, alpha=length / self.slope)
        return length


def descent(
    kernel: Kernel, probe: KernelProbe, target: Basin | Tensor, parameters: Sequence[nn.Parameter]
) -> Descent | None:
    """∇d(basin(θ), target) by the parameters that may move: one forward and one backward pass of the probe's tokens.

    Neither the parameters nor their `.grad` change.

    Args:
        target: [64] on the simplex.

    Returns:
        None where the distance or its gradient is not finite: a broken kernel has nowhere to go.

    Raises:
        SimplexError: the target is not [64].
    """
    with one_thread(), torch.enable_grad():
        here = basin(kernel, probe)
        distance = distance_to(here, target)
        gradient = torch.autograd.grad(distance, tuple(parameters), allow_unused=True)
    d, slope = distance.item(), _norm([each for each in gradient if each is not None])
    if not (math.isfinite(d) and math.isfinite(slope)):
        return None
    return Descent(distance=d, slope=slope, parameters=parameters, gradient=gradient)


def _norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean, of all entries together, summed in float64."""
    return math.sqrt(sum(torch.linalg.vector_norm(each.detach(), dtype=torch.float64).item() ** 2 for each in tensors))
