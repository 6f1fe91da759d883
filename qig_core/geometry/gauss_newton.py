"""Products with the true Fisher matrix of a torch model, which is never formed. No optimiser, no loss, no data.

The model's outputs z(θ), [..., K], are the natural parameters of a likelihood, one row each. With J = ∂z/∂θ and H the
Fisher information of a row's likelihood in z,

    F = mean over rows of Jᵀ H J,    ½ δᵀ F δ = mean KL(p(·|z(θ)) ‖ p(·|z(θ + δ))) + O(δ³), nats.

For both likelihoods here F is the generalised Gauss–Newton matrix too (Martens 2020). It is never the empirical Fisher,
the gradients' own outer products, which bends a step the wrong way (Kunstner et al. 2019).

Sources: Schraudolph 2002; Martens 2020.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

Likelihood = Literal["categorical", "gaussian"]
"""categorical: z are logits, H = diag(p) − ppᵀ, p = softmax(z). gaussian: z are means, unit variance, H = 1;
the loss of a row is ½ |z − target|², K/2 times what torch's mse_loss gives."""


def output_metric(outputs: Tensor, v: Tensor, likelihood: Likelihood) -> Tensor:
    """H v of every row: p ∘ v − p (pᵀ v) for the categorical likelihood, p = softmax(outputs); v for the gaussian one.

    Args:
        outputs, v: [..., K].

    Returns:
        [..., K]; not divided by the number of rows.
    """
    return v if likelihood == "gaussian" else _covariance(outputs.softmax(dim=-1), v)


def _covariance(p: Tensor, v: Tensor) -> Tensor:
    weighted = p * v
    return weighted - p * weighted.sum(dim=-1, keepdim=True)


class FisherProduct:
    """v -> F v with F = (1/N) Jᵀ H J over the N rows of `outputs`: two backward passes a product, F never formed.

    Jᵀu is linear in u, so J v is the derivative of (Jᵀu)·v by u. The graph of Jᵀu is built once and serves every
    product: on the kernel, three times as fast as forward mode, which starts anew from the tokens each time.

    Args:
        outputs: [..., K] with its graph.
        parameters: P entries in all, of one dtype and device; one that the outputs do not depend on has F = 0.

    Raises:
        ValueError: outputs without a graph or rows.
        RuntimeError: torch's, where an operation has no second derivative (fused attention: choose SDPBackend.MATH).
    """

    def __init__(self, outputs: Tensor, parameters: Sequence[Tensor], likelihood: Likelihood = "categorical") -> None:
        if not outputs.requires_grad or outputs.dim() < 1 or not outputs.numel():
            raise ValueError(f"outputs {tuple(outputs.shape)} must be [..., K], not empty, and made with gradients on")
        self._outputs, self._parameters = outputs, tuple(parameters)
        self._p = outputs.detach().softmax(dim=-1) if likelihood == "categorical" else None
        self._num_rows = outputs.numel() // outputs.shape[-1]
        self._covector = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, self._parameters, self._covector, create_graph=True, allow_unused=True, materialize_grads=True
        )
        self._used = [index for index, gradient in enumerate(pulled) if gradient.requires_grad]
        self._pulled = [pulled[index] for index in self._used]

    def jacobian_product(self, v: Tensor) -> Tensor:
        """J v, [..., K], of v [P]."""
        pieces = split(v, self._parameters)
        tangents = [pieces[index] for index in self._used]
        (jv,) = torch.autograd.grad(self._pulled, self._covector, tangents, retain_graph=True)
        return jv

    def __call__(self, v: Tensor) -> Tensor:
        """F v, [P], of v [P]."""
        jv = self.jacobian_product(v)
        hjv = (jv if self._p is None else _covariance(self._p, jv)) / self._num_rows
        gradients = torch.autograd.grad(
            self._outputs, self._parameters, hjv, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return flat(gradients)


def fisher_matrix(outputs: Tensor, parameters: Sequence[Tensor], likelihood: Likelihood = "categorical") -> Tensor:
    """F itself, [P, P], by P products: for small models and for tests. Arguments and errors as FisherProduct."""
    product = FisherProduct(outputs, parameters, likelihood)
    unit = torch.eye(sum(p.numel() for p in parameters), dtype=outputs.dtype, device=outputs.device)
    return torch.stack([product(row) for row in unit])


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """[P]: all entries, one tensor after the other."""
    return torch.cat([t.reshape(-1) for t in tensors])


def split(v: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `flat`: views of v [P] in the shapes of `like`."""
    pieces = v.split([t.numel() for t in like])
    return [piece.view_as(t) for piece, t in zip(pieces, like, strict=True)]
