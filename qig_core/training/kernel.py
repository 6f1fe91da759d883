"""A small recurrent language kernel whose attention is a Fisher–Rao distance and whose two halves can be uncoupled.

Embedding -> ONE block applied `passes` times -> language head. No optimiser, no data, no clock; never a second block.

Everything that crosses the two halves of the state (units 0 .. d/2−1 and d/2 .. d−1) passes through a cross block of
one of six weight matrices, and every cross block is multiplied by the gain g. Heads, MLP units and norm groups belong
to one half, so at g = 0 the halves do not see each other inside the block: the cross blocks of its Jacobian are 0.0,
exactly.
"""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from qig_core.errors import ConfigError
from qig_core.training.config import KernelConfig

_BC_LIMIT = 1.0 - 1e-6  # arccos has an infinite slope at 1: equal points would give a NaN gradient
_NORM_EPS = 1e-6


class Observation(NamedTuple):
    """What one pass of the block showed."""

    state: Tensor
    """[B, T, d]: the residual state after the pass, before the head's norm."""
    before: Tensor
    """[B, T, d]: the residual state that it read."""
    attention: Tensor
    """[B, H, T, T]: weights, rows sum to 1, 0 above the diagonal."""
    distances: Tensor
    """[B, H, T, T]: Fisher–Rao distances, radians; above the diagonal they exist but are not used."""
    root_q: Tensor
    """[B, H, T, d/H]: square roots of the queries on their simplex; root_k alike of the keys."""
    root_k: Tensor
    values: Tensor
    """[B, H, T, d/H]"""


class BlockWeights(NamedTuple):
    """The block's matrices with the gain applied, assembled once a forward and used by every pass."""

    qkv: Tensor  # [3d, d]
    out: Tensor  # [d, d]
    mlp_in: Tensor  # [r d, d]
    mlp_out: Tensor  # [d, r d]
    kappa: Tensor  # [H], rad⁻¹


class HalvedLinear(nn.Module):
    """A bias-free matrix in four blocks, [[within_a, g cross_ab], [g cross_ba, within_b]], each its own Parameter."""

    def __init__(self, rows: int, columns: int, std: float, generator: torch.Generator) -> None:
        super().__init__()

        def block() -> nn.Parameter:
            return nn.Parameter(std * torch.randn(rows // 2, columns // 2, generator=generator))

        self.within_a = block()
        self.cross_ab = block()  # rows of half a, columns of half b: what b sends to a
        self.cross_ba = block()
        self.within_b = block()

    def assemble(self, gain: Tensor) -> Tensor:
        """[rows, columns], the cross blocks multiplied by `gain`."""
        upper = torch.cat([self.within_a, gain * self.cross_ab], dim=1)
        lower = torch.cat([gain * self.cross_ba, self.within_b], dim=1)
        return torch.cat([upper, lower])


def half_norm(x: Tensor) -> Tensor:
    """(x − mean)/sqrt(var + 1e-6) of each half of the last axis by itself, whatever the gain. x: [..., d]."""
    halves = x.view(*x.shape[:-1], 2, x.shape[-1] // 2)
    return functional.layer_norm(halves, halves.shape[-1:], eps=_NORM_EPS).flatten(-2)


def root_simplex(logits: Tensor) -> Tensor:
    """sqrt(softmax(logits)) over the last axis: a point of the unit sphere's positive orthant, gradient finite."""
    return torch.exp(0.5 * functional.log_softmax(logits, dim=-1))


def distance_from_bc(bc: Tensor) -> Tensor:
    """Fisher–Rao distance 2 arccos(min(BC, 1 − 1e-6)), radians, from a Bhattacharyya coefficient of any shape."""
    return 2.0 * torch.arccos(bc.clamp(max=_BC_LIMIT))


class _Distance(torch.autograd.Function):
    """distance_from_bc with its derivative −2/sqrt(1 − BC²) (0 beyond the limit) written out.

    The maps of attention are the largest tensors of a step and autograd makes eight more of each here; this makes two.
    The derivative is made of differentiable operations: a Fisher product goes back through it a second time.
    """

    @classmethod
    def distance(cls, bc: Tensor) -> Tensor:
        return cast(Tensor, cls.apply(bc))  # type: ignore[no-untyped-call]  # torch leaves apply untyped

    @staticmethod
    def forward(ctx: Any, bc: Tensor) -> Tensor:
        ctx.save_for_backward(bc)
        return bc.clamp(max=_BC_LIMIT).arccos_().mul_(2.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (bc,) = ctx.saved_tensors
        quarter = bc.new_full((), 0.25)
        slope = torch.addcmul(quarter, bc, bc, value=-0.25).rsqrt_().neg_()
        return slope.mul_(grads[0]).masked_fill_(bc > _BC_LIMIT, 0.0)


class Kernel(nn.Module):
    """The kernel. `gain` is a buffer: it is never trained, and a saved state carries it.

    Raises (load_state_dict): RuntimeError for a missing, unexpected or differently shaped name; names are strict.
    """

    future: Tensor
    gain: Tensor

    def __init__(self, config: KernelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        d, hidden = config.width, config.width * config.mlp_ratio
        generator = torch.Generator().manual_seed(seed)
        in_std = d**-0.5
        self.embedding = nn.Parameter(torch.randn(config.vocab, d, generator=generator))
        self.positions = nn.Parameter(0.5 * torch.randn(config.context, d, generator=generator))
        self.w_q = HalvedLinear(d, d, in_std, generator)
        self.w_k = HalvedLinear(d, d, in_std, generator)
        self.w_v = HalvedLinear(d, d, in_std, generator)
        self.w_o = HalvedLinear(d, d, 0.35 * in_std, generator)
        self.mlp_in = HalvedLinear(hidden, d, in_std, generator)
        self.mlp_out = HalvedLinear(d, hidden, 0.35 * hidden**-0.5, generator)
        self.log_kappa = nn.Parameter(torch.full((config.heads,), math.log(config.kappa_init)))
        self.head = nn.Parameter(0.5 * in_std * torch.randn(config.vocab, d, generator=generator))
        self.register_buffer("gain", torch.tensor(config.gain))
        future = torch.full((config.context, config.context), -math.inf).triu(1)
        self.register_buffer("future", future, persistent=False)

    def set_gain(self, gain: float) -> None:
        """Set g, the factor of every cross block, in [0, 1]; raises ConfigError outside."""
        if not 0.0 <= gain <= 1.0:
            raise ConfigError(f"gain is {gain}: it must lie in [0, 1]")
        self.gain.fill_(gain)

    def cross_parameters(self) -> dict[str, nn.Parameter]:
        """The twelve cross blocks by their name in the state: all that can carry anything from half to half."""
        return {name: p for name, p in self.named_parameters() if name.endswith((".cross_ab", ".cross_ba"))}

    def forward(self, tokens: Tensor) -> Tensor:
        """Next-token logits [B, T, vocab] of tokens [B, T], T at most `context`."""
        # The head lies outside the block and reads both halves freely.
        return half_norm(self.last_state(tokens)) @ self.head.T

    def last_state(self, tokens: Tensor) -> Tensor:
        """[B, T, d]: the residual state after the last pass, before the head's norm, with its graph."""
        weights = self.block_weights()
        x = self._embed(tokens)
        for _ in range(self.config.passes):
            x = self._pass(x, weights).state
        return x

    @torch.no_grad()
    def observe(self, tokens: Tensor) -> tuple[Observation, ...]:
        """Every pass in order, for tokens [B, T], detached from the graph."""
        weights = self.block_weights()
        x = self._embed(tokens)
        seen = []
        for _ in range(self.config.passes):
            seen.append(self._pass(x, weights))
            x = seen[-1].state
        return tuple(seen)

    def block_weights(self) -> BlockWeights:
        """The six matrices with the gain applied, q, k and v stacked, and kappa per head."""
        g = self.gain
        qkv = torch.cat([self.w_q.assemble(g), self.w_k.assemble(g), self.w_v.assemble(g)])
        out, mlp_in, mlp_out = self.w_o.assemble(g), self.mlp_in.assemble(g), self.mlp_out.assemble(g)
        return BlockWeights(qkv, out, mlp_in, mlp_out, self.log_kappa.exp())

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.embedding[tokens] + self.positions[: tokens.shape[-1]]

    def _qkv(self, x: Tensor, weights: BlockWeights) -> tuple[Tensor, Tensor, Tensor]:
        """Square roots of q and k on their simplex, and v: each [B, H, T, d/H] of x [B, T, d]."""
        qkv = half_norm(x) @ weights.qkv.T
        heads = self.config.heads
        qkv = qkv.view(*x.shape[:-1], 3, heads, x.shape[-1] // heads).transpose(-2, -4)
        roots = root_simplex(qkv[..., :2, :, :])
        return roots[..., 0, :, :], roots[..., 1, :, :], qkv[..., 2, :, :]

    def _mlp(self, x: Tensor, weights: BlockWeights) -> Tensor:
        return functional.gelu(half_norm(x) @ weights.mlp_in.T) @ weights.mlp_out.T

    def _pass(self, x: Tensor, weights: BlockWeights) -> Observation:
        """One application of the block to [B, T, d]."""
        root_q, root_k, v = self._qkv(x, weights)
        distances = _Distance.distance(root_q @ root_k.mT)
        length = x.shape[1]
        future = self.future[:length, :length]  # 0, and −inf above the diagonal
        attention = torch.addcmul(future, distances, -weights.kappa[:, None, None]).softmax(dim=-1)
        mixed = x + (attention @ v).transpose(1, 2).flatten(-2) @ weights.out.T
        state = mixed + self._mlp(mixed, weights)
        return Observation(state, x, attention, distances, root_q, root_k, v)
