"""The Jacobian of one pass of the kernel at single positions, its chain rule written out. No measure, no probe here.

Within a head the mixed value depends on that head's own query, key and value only, so the large factors are products of
matrices; forward mode through the whole block would carry d tangents through every step. Functions of one number and
the norm are differentiated by torch.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from qig_core.training.kernel import BlockWeights, Observation, distance_from_bc, half_norm


def pass_jacobians(seen: Observation, positions: Tensor, weights: BlockWeights) -> tuple[Tensor, Tensor, Tensor]:
    """J = ∂F/∂x of y = F(x), the pass at one position with the rest of its context held fixed.

    The position's own query, key and value vary with x. With n the norm, o the mixed values, u the hidden units:
    J = (1 + W_out diag gelu'(u) W_in ∂n(x')/∂x') (1 + W_o ∂o/∂(q, k, v) W_qkv ∂n(x)/∂x), x' = x + W_o o.

    Args:
        seen: the pass, of tokens [B, T].
        positions: [P, 2] integers, (sequence, offset) each.
        weights: those that the pass used.

    Returns:
        J [P, d, d] with J[p, i, j] = ∂y_i/∂x_j, rms(x) [P] and rms(y) [P] at those positions; of the pass's dtype, at
        least float32.
    """
    # In bfloat16 the distance's limit rounds to 1, where its slope is infinite.
    dtype = torch.promote_types(seen.state.dtype, torch.float32)
    seen = Observation(*(tensor.to(dtype) for tensor in seen))
    weights = BlockWeights(*(matrix.to(dtype) for matrix in weights))
    sequence, offset = positions[:, 0], positions[:, 1]
    x, y = seen.before[sequence, offset], seen.state[sequence, offset]
    rms_x, rms_y = (z.square().mean(-1).sqrt() for z in (x, y))
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    with warnings.catch_warnings():
        # torch compiles its forward-mode rules with the deprecated torch.jit.script the first time they are used.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        by_qkv, mixed = _mixing(seen, sequence, offset, weights.kappa)
        heads, size = mixed.shape[1:]
        per_head = weights.qkv.view(3, heads, size, -1).transpose(0, 1).flatten(1, 2)  # [H, 3 d/H, d]
        attended = one + weights.out @ (by_qkv @ per_head).flatten(1, 2) @ _norm_jacobian(x)

        x = x + mixed.flatten(1) @ weights.out.T
        slope = _slope(functional.gelu, half_norm(x) @ weights.mlp_in.T)
        jacobian = (one + (weights.mlp_out * slope[:, None, :]) @ weights.mlp_in @ _norm_jacobian(x)) @ attended
    return jacobian, rms_x, rms_y


def _mixing(seen: Observation, sequence: Tensor, offset: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """∂o/∂(q, k, v) [P, H, d/H, 3 d/H] and o [P, H, d/H]: o = Σ_j a_j v_j, a = softmax(−κ d), before the roots."""
    root_q, root_k = seen.root_q[sequence, :, offset], seen.root_k[sequence, :, offset]
    root_keys, values = seen.root_k[sequence], seen.values[sequence]
    attention = seen.attention[sequence, :, offset]  # [P, H, T]
    mixed = attention[:, :, None, :] @ values
    steepness = -kappa[:, None] * _slope(distance_from_bc, (root_keys @ root_q[..., None]).squeeze(-1))
    # do = Σ_j pull_j d(BC_j) + a_own dv, for the softmax takes from every score what it gives to one.
    pull = (attention * steepness)[..., None] * (values - mixed)
    by_root_q = pull.mT @ root_keys
    itself = torch.arange(len(offset), device=offset.device)
    by_root_k = pull[itself, :, offset][..., None] * root_q[..., None, :]
    own = attention[itself, :, offset][..., None, None]
    by_v = own * torch.eye(root_q.shape[-1], dtype=own.dtype, device=own.device)
    parts = [by_root_q @ _root_jacobian(root_q), by_root_k @ _root_jacobian(root_k), by_v]
    return torch.cat(parts, dim=-1), mixed.squeeze(2)


def _root_jacobian(root: Tensor) -> Tensor:
    """∂ root_simplex(z)/∂z = ½ (diag r − r (r²)ᵀ), [..., K, K] at r [..., K]."""
    return 0.5 * (torch.diag_embed(root) - root[..., :, None] * root.square()[..., None, :])


def _norm_jacobian(x: Tensor) -> Tensor:
    jacobian: Tensor = torch.func.vmap(torch.func.jacfwd(half_norm))(x)
    return jacobian


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of a function of one number, at every entry of x."""
    slope: Tensor = torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]
    return slope
