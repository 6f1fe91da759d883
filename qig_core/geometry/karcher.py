"""The Karcher mean on the orthant of the unit sphere as one differentiable torch function. No checks here."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qig_core.errors import QigError


class KarcherMean(torch.autograd.Function):
    """roots [B, N, K] on the sphere, share [B, N] -> unit root of the mean [B, K].

    At the mean G(m) = Σ_i w_i f(c_i) (x_i − c_i m) = 0, c = x · m, f(c) = θ/sin θ, cos θ = c. With a = x − c m and
    b = −f'(c) = (1 − θ cot θ)/sin² θ, −∂G/∂m is Σ w θ cot θ + Σ w b a aᵀ on the tangent space: positive definite.
    """

    @staticmethod
    def forward(ctx: Any, roots: Tensor, share: Tensor, tol: float, max_iterations: int) -> Tensor:
        every = 8 if roots.is_cuda else 1  # looking at the gradient makes a GPU wait
        mean = _times(share, roots)
        mean = mean / norm(mean)
        longest = math.inf
        for iteration in range(max_iterations):
            cosine = _cosine(roots, mean)
            weight = share * _stretch(cosine)
            step = _times(weight, roots) - (weight * cosine).sum(dim=-1, keepdim=True) * mean
            length = norm(step)
            if iteration % every == 0 and mean.numel():
                longest = 2.0 * float(length.max())
            if longest <= tol or not mean.numel():
                ctx.save_for_backward(roots, share, mean)
                return mean
            if math.isnan(longest):
                break
            mean = torch.cos(length) * mean + torch.sinc(length / math.pi) * step
            mean = mean / norm(mean)
        raise QigError(
            f"the Fréchet mean did not reach a gradient of {tol} rad in at most {max_iterations} iterations; "
            f"the longest was {longest:.3g}"
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        roots, share, mean = ctx.saved_tensors
        cosine = _cosine(roots, mean)
        stretch, bend = _stretch(cosine), _bend(cosine)
        across = roots - cosine.unsqueeze(-1) * mean.unsqueeze(-2)
        hessian = across.mT @ ((share * bend).unsqueeze(-1) * across)
        hessian.diagonal(dim1=-2, dim2=-1).add_((share * stretch * cosine).sum(dim=-1, keepdim=True))
        tangent = upstream - (upstream * mean).sum(dim=-1, keepdim=True) * mean
        adjoint = torch.linalg.solve(hessian, tangent)
        along = (across @ adjoint.unsqueeze(-1)).squeeze(-1)
        to_roots = (share * stretch).unsqueeze(-1) * adjoint.unsqueeze(-2)
        to_roots -= (share * bend * along).unsqueeze(-1) * mean.unsqueeze(-2)
        return to_roots, stretch * along, None, None


def _times(weight: Tensor, roots: Tensor) -> Tensor:
    return (weight.unsqueeze(-2) @ roots).squeeze(-2)


def _cosine(roots: Tensor, mean: Tensor) -> Tensor:
    return (roots @ mean.unsqueeze(-1)).squeeze(-1).clamp(0.0, 1.0)


def _stretch(cosine: Tensor) -> Tensor:
    """f(c) = arccos c / sqrt(1 − c²), 1 at c = 1."""
    inside = cosine.clamp_max(1.0 - torch.finfo(cosine.dtype).eps)
    return torch.acos(inside) / ((1.0 - inside) * (1.0 + inside)).sqrt()


def _bend(cosine: Tensor) -> Tensor:
    """−f'(c) = (1 − c f(c))/(1 − c²), by its series where that cancels."""
    far = 1.0 - cosine
    near = far < torch.finfo(cosine.dtype).eps ** 0.25
    series = 1.0 / 3.0 + far * (4.0 / 15.0 + far * (6.0 / 35.0))
    direct = (1.0 - cosine * _stretch(cosine)) / (far * (1.0 + cosine)).masked_fill(near, 1.0)
    return torch.where(near, series, direct)


def norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last axis, which stays as 1."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length
