"""Natural gradient for torch models: conjugate gradients on true-Fisher products, damped, in a KL trust region.

The loss is the mean over rows of −log p(target | outputs): what F is for which outputs stands in gauss_newton.

    optimizer = NaturalGradient(model.parameters(), likelihood="categorical")
    for x, y in batches:
        def closure():
            logits = model(x)
            return functional.cross_entropy(logits, y), logits
        optimizer.zero_grad()
        closure()[0].backward()
        optimizer.step(closure)

Not a place for models, data or schedules. Sources: Amari 1998; Martens 2010, 2020.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qig_core.geometry.gauss_newton import FisherProduct, Likelihood, flat, split

Closure = Callable[[], tuple[Tensor, Tensor]]
"""() -> (loss, outputs) on one batch, the same each time it is called: no dropout, no new batch."""

_LOW, _HIGH = 0.25, 0.75  # Levenberg–Marquardt's bounds of trust in the reduction ratio (Martens 2010)
_STEP, _LEAP = 1.5, 4.0  # by what the damping is raised or lowered, and raised after a step that was refused
_MAX_DAMPING = 1e8
_MIN_WINDOW = 10  # CG iterations over which progress is judged (Martens 2010)


class Solution(NamedTuple):
    x: Tensor
    product: Tensor
    """A x, as the residual tells it."""
    iterations: int


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    x0: Tensor | None = None,
    max_iterations: int,
    tolerance: float = 5e-4,
) -> Solution:
    """Minimise φ(x) = ½ xᵀ A x − bᵀ x, that is solve A x = b, for a symmetric positive semidefinite A.

    Ends at iteration i once φ fell over the last k = max(10, ⌈i/10⌉) by less than the share k · tolerance of itself
    (Martens 2010), at a residual of rounding's size, at a direction without curvature (pᵀ A p ≤ 0 or not finite: x is
    then what was reached before), or after max_iterations.

    Args:
        product: v [P] -> A v [P].
        b: [P], finite.
        x0: [P], where to begin; 0 where None.
        tolerance: 0 goes on to rounding.

    Returns:
        x [P], A x and the number of iterations, a product each; one more is spent on x0.
    """
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - product(x)
    p, rr = r.clone(), float(r @ r)
    smallest = float(b @ b) * torch.finfo(b.dtype).eps ** 2
    phi = [-0.5 * float(x @ (b + r))]
    for i in range(1, max_iterations + 1):
        if rr <= smallest:
            return Solution(x, b - r, i - 1)
        ap = product(p)
        curvature = float(p @ ap)
        if not 0.0 < curvature < math.inf:
            return Solution(x, b - r, i - 1)
        x.add_(p, alpha=rr / curvature)
        r.sub_(ap, alpha=rr / curvature)
        before, rr = rr, float(r @ r)
        p.mul_(rr / before).add_(r)
        phi.append(-0.5 * float(x @ (b + r)))
        window = max(_MIN_WINDOW, math.ceil(i / 10))
        if i > window and phi[-1] < 0.0 and phi[-1] - phi[-1 - window] > phi[-1] * window * tolerance:
            return Solution(x, b - r, i)
    return Solution(x, b - r, max_iterations)


@dataclass(frozen=True, kw_only=True)
class NaturalStep:
    """What one step did, as plain numbers."""

    refused: str = ""
    """Why the parameters are as they were; empty where they moved."""
    loss: float = math.nan
    """At the parameters that the step leaves behind, nats."""
    kl: float = 0.0
    """½ δᵀ F δ of the step that was taken, nats: at most kl_max."""
    ratio: float = math.nan
    """Actual over predicted reduction of the loss, of the first trial; −inf where that loss was not finite."""
    cg_iterations: int = 0
    backtracks: int = 0
    """How often the step was halved."""


class NaturalGradient(torch.optim.Optimizer):
    """θ ← θ + c δ with (F + λ 1) δ = −g, g the gradient that stands in `.grad`, as it stands there: do not clip it.

    One step:
        1. δ by conjugate gradients, begun at warm_start times the last solution.
        2. c = lr, then less, so that the predicted KL, ½ c² δᵀ F δ, is at most kl_max.
        3. ρ = (loss(θ) − loss(θ + c δ)) / −(c gᵀδ + ½ c² δᵀ F δ). A loss that rose or is not finite halves c, at most
           max_backtracks times; if none is accepted, the parameters are restored to the bit and the step is refused.
           A closure that raises finds them restored too.
        4. λ rises by 3/2 where the first trial had ρ < 1/4, falls by 2/3 where ρ > 3/4, rises by 4 where the step was
           refused for its loss. It stays in [damping_min, 1e8]; only one that was born lower (0 is allowed) stays so
           until it is raised.
    A gradient, loss or output that is not finite is refused before anything moves, λ included. A refusal is a value,
    `NaturalStep.refused`, and never an exception: whoever trains on broken numbers is told by `last`.

    At λ = 0, with CG run to its end, a step is invariant under affine changes of the parameters, and one step solves
    linear least squares. With λ > 0 it is not: the 1 in F + λ 1 belongs to the parametrisation.

    Args:
        params: of one dtype and device, one group; those whose `.grad` is None stay as they are.
        lr: c before the trust region; 1 where the batch is all there is, less where batches differ.
        damping: λ at birth, in the unit of F, nats per squared parameter.
        damping_min: how low λ may fall. A small batch praises every step that is fitted to it, so there λ always falls.
        kl_max: radius of the trust region, nats a row; inf for none.
        cg_iterations, cg_tolerance: of one solve, see conjugate_gradients.
        warm_start: in [0, 1]; above 0 the state holds one copy of the parameters.

    `state_dict` holds λ, the last solution and the last figures: what goes on from it does so to the bit.

    Raises:
        ValueError: a setting out of range, several groups, dtypes or devices.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        likelihood: Likelihood = "categorical",
        lr: float = 1.0,
        damping: float = 1e-2,
        damping_min: float = 1e-8,
        kl_max: float = 1e-2,
        cg_iterations: int = 10,
        cg_tolerance: float = 5e-4,
        warm_start: float = 0.0,
        max_backtracks: int = 4,
    ) -> None:
        _require(likelihood in ("categorical", "gaussian"), f"likelihood {likelihood!r}: categorical or gaussian")
        _require(0.0 < lr < math.inf, f"lr is {lr}: it must be greater than 0")
        _require(0.0 <= damping < math.inf, f"damping is {damping}: it must be 0 or more")
        _require(0.0 < damping_min <= _MAX_DAMPING, f"damping_min is {damping_min}: it must lie in (0, 1e8]")
        _require(kl_max > 0.0, f"kl_max is {kl_max}: it must be greater than 0")
        _require(cg_iterations >= 1, f"cg_iterations is {cg_iterations}: it must be at least 1")
        _require(cg_tolerance >= 0.0, f"cg_tolerance is {cg_tolerance}: it must be 0 or more")
        _require(0.0 <= warm_start <= 1.0, f"warm_start is {warm_start}: it must lie in [0, 1]")
        _require(max_backtracks >= 0, f"max_backtracks is {max_backtracks}: it must be 0 or more")
        settings: dict[str, Any] = {
            "likelihood": likelihood,
            "lr": lr,
            "damping": damping,
            "damping_min": damping_min,
            "kl_max": kl_max,
            "cg_iterations": cg_iterations,
            "cg_tolerance": cg_tolerance,
            "warm_start": warm_start,
            "max_backtracks": max_backtracks,
            "last": None,
        }
        super().__init__(params, settings)
        _require(len(self.param_groups) == 1, "one group of parameters: the step is solved for all of them together")
        kinds = {(p.dtype, p.device) for p in self.param_groups[0]["params"]}
        _require(len(kinds) == 1, "the parameters must be of one dtype, on one device")

    @property
    def damping(self) -> float:
        """λ of the next step."""
        return float(self.param_groups[0]["damping"])

    @property
    def last(self) -> NaturalStep | None:
        """What the last step did; None before the first."""
        figures = self.param_groups[0]["last"]
        return None if figures is None else NaturalStep(**figures)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's closure returns the loss alone; a Fisher product needs the outputs
        self, closure: Closure, curvature: Callable[[], Tensor] | None = None
    ) -> NaturalStep:
        """Take one step by the gradient in `.grad`.

        Args:
            closure: loss and outputs on the batch that the gradient is of; called once with gradients on, and once
                without for every trial.
            curvature: outputs on the rows that F is averaged over; None for the closure's. Some of the batch's rows
                make every product cheaper.
        """
        taken = self._step(closure, curvature)
        self.param_groups[0]["last"] = dataclasses.asdict(taken)
        return taken

    def _step(self, closure: Closure, curvature: Callable[[], Tensor] | None) -> NaturalStep:
        group = self.param_groups[0]
        parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return NaturalStep(refused="no gradient")
        g = flat([p.grad for p in parameters if p.grad is not None])
        if not bool(torch.isfinite(g).all()):
            return NaturalStep(refused="the gradient is not finite")
        with torch.enable_grad():
            loss, outputs = closure()
            outputs = outputs if curvature is None else curvature()
            if not (bool(torch.isfinite(loss)) and bool(torch.isfinite(outputs).all())):
                return NaturalStep(refused="the loss or an output is not finite", loss=loss.item())
            fisher = FisherProduct(outputs, parameters, group["likelihood"])
        before, damping = loss.item(), group["damping"]

        x0 = self._warm_start(parameters)
        delta, damped, iterations = conjugate_gradients(
            lambda v: fisher(v).add_(v, alpha=damping),
            -g,
            x0=x0,
            max_iterations=group["cg_iterations"],
            tolerance=group["cg_tolerance"],
        )
        descent, quadratic = float(g @ delta), max(float(delta @ damped.sub_(delta, alpha=damping)), 0.0)
        if not (descent < 0.0 and quadratic < math.inf):
            self._keep(parameters, None)
            return NaturalStep(refused="no direction of descent", loss=before, cg_iterations=iterations)
        self._keep(parameters, delta)
        scale = group["lr"]
        if 0.5 * scale**2 * quadratic > group["kl_max"]:
            scale = math.sqrt(2.0 * group["kl_max"] / quadratic)

        saved, pieces = [p.clone() for p in parameters], split(delta, parameters)
        predicted = -(scale * descent + 0.5 * scale**2 * quadratic)
        ratio, accepted = -math.inf, False
        try:
            for backtracks in range(group["max_backtracks"] + 1):
                for p, old, piece in zip(parameters, saved, pieces, strict=True):
                    torch.add(old, piece, alpha=scale, out=p)
                after = closure()[0].item()
                if backtracks == 0 and math.isfinite(after):
                    ratio = (before - after) / predicted if predicted > 0.0 else -math.inf
                if accepted := after <= before:
                    break
                scale /= 2.0
        finally:
            if not accepted:  # nor where the closure raised
                for p, old in zip(parameters, saved, strict=True):
                    p.copy_(old)
        figures: dict[str, Any] = {"ratio": ratio, "cg_iterations": iterations, "backtracks": backtracks}
        if accepted:
            group["damping"] = _adapted(damping, ratio, group["damping_min"])
            return NaturalStep(loss=after, kl=0.5 * scale**2 * quadratic, **figures)
        self._keep(parameters, None)
        group["damping"] = _raised(damping, _LEAP, group["damping_min"])
        return NaturalStep(refused="the loss would rise", loss=before, **figures)

    def _warm_start(self, parameters: Sequence[Tensor]) -> Tensor | None:
        share = self.param_groups[0]["warm_start"]
        if share == 0.0 or not all("direction" in self.state[p] for p in parameters):
            return None
        return flat([self.state[p]["direction"] for p in parameters]).mul_(share)

    def _keep(self, parameters: Sequence[Tensor], delta: Tensor | None) -> None:
        """Remember the solution for the next warm start, or forget the last one."""
        if delta is None or self.param_groups[0]["warm_start"] == 0.0:
            self.state.clear()
            return
        for p, piece in zip(parameters, split(delta, parameters), strict=True):
            self.state[p]["direction"] = piece.clone()


def _raised(damping: float, factor: float, lowest: float) -> float:
    return min(max(damping, lowest) * factor, _MAX_DAMPING)


def _adapted(damping: float, ratio: float, lowest: float) -> float:
    if ratio < _LOW:
        return _raised(damping, _STEP, lowest)
    return min(damping, max(damping / _STEP, lowest)) if ratio > _HIGH else damping


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
