"""The attention that a model really computes, seen while it computes it. torch; changes nothing, invents nothing.

A torch function mode: it sees `scaled_dot_product_attention`, `multi_head_attention_forward` (nn.MultiheadAttention,
nn.TransformerEncoderLayer) and attention written out as softmax(q kᵀ ...), whoever calls them. Attention by other
means (a fused kernel of one's own, an einsum) is not seen, and then there is none.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
_SOFTMAXES = (functional.softmax, torch.softmax, Tensor.softmax)
_MHA = inspect.signature(functional.multi_head_attention_forward)
_BC_LIMIT = 1.0 - 1e-6  # as inside our own kernel: arccos has an infinite slope at 1


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One call: what attended, to what, and how much."""

    query: Tensor
    """[B, H, T, e], as it entered the product (a rotary position is in it)."""
    key: Tensor
    """[B, H, T', e]."""
    weights: Tensor
    """[B, H, T, T'], rows sum to 1, before dropout."""
    allowed: Tensor
    """[B, H, T, T'] bool: false where a mask forbids."""

    def rows(self, most: int) -> "Attention":
        """At most `most` queries a sequence, evenly spaced, the last one among them."""
        length = self.weights.shape[2]
        if length <= most:
            return self
        kept = torch.linspace(0, length - 1, most, device=self.weights.device).round().long()
        query, weights, allowed = (each[:, :, kept] for each in (self.query, self.weights, self.allowed))
        return replace(self, query=query, weights=weights, allowed=allowed)

    def among(self, real: Tensor) -> "Attention":
        """Without the queries of positions that are padding; real: [B, T] bool."""
        real = real.to(self.allowed.device)
        if bool(real.all()) or real.shape != self.allowed[:, 0, :, 0].shape:
            return self
        return replace(self, allowed=self.allowed & real[:, None, :, None])

    def distances(self, temperature: float = 1.0) -> Tensor:
        """d_ij = 2 arccos Σ_k sqrt(p_ik q_jk), p_i = softmax(query_i/τ), q_j = softmax(key_j/τ): [B, H, T, T'], rad.

        The Bhattacharyya coefficient stops at 1 − 1e-6, as inside our own kernel.
        """

        def roots(z: Tensor) -> Tensor:
            return torch.exp(0.5 * functional.log_softmax(z.float() / temperature, dim=-1))

        return 2.0 * torch.arccos((roots(self.query) @ roots(self.key).mT).clamp(max=_BC_LIMIT))


class AttentionSeen(TorchFunctionMode):
    """`with AttentionSeen() as seen: model(x)`; then seen.calls holds every attention, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Attention] = []
        self._product: tuple[Tensor, Tensor, torch.Size] | None = None
        """q, kᵀ and the shape of the last product: what the next softmax may be made from."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            self._dot_product(*args, **kwargs)
        elif func is functional.multi_head_attention_forward:
            self._multi_head(_MHA.bind(*args, **kwargs).arguments)
        result = func(*args, **kwargs)
        if func in _PRODUCTS:
            a, b = args[0], args[1] if len(args) > 1 else next(iter(kwargs.values()), None)
            if isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(result, Tensor):
                self._product = (a, b, result.shape)
        elif func in _SOFTMAXES and isinstance(args[0], Tensor):
            self._written_out(args[0], result)
        return result

    def _written_out(self, scores: Tensor, weights: Tensor) -> None:
        """softmax(scores) of the last product's shape, over [B, H, T, T'] or, with one head, [B, T, T']."""
        product, self._product = self._product, None
        if product is None or scores.shape != product[2] or scores.ndim not in (3, 4):
            return
        query, key = product[0], product[1].mT
        if query.shape[:-2] != scores.shape[:-2] or key.shape[:-2] != scores.shape[:-2]:
            return
        if scores.ndim == 3:
            query, key, scores, weights = (each[:, None] for each in (query, key, scores, weights))
        lowest = torch.finfo(scores.dtype).min / 2.0
        self._keep(query, key, weights, scores > lowest)

    def _dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if query.ndim == 3:
            query, key = query[:, None], key[:, None]
            attn_mask = attn_mask[:, None] if attn_mask is not None and attn_mask.ndim == 3 else attn_mask
        if query.ndim != 4:
            return
        if query.shape[1] != key.shape[1]:  # grouped queries share a key
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        allowed = torch.ones_like(scores, dtype=torch.bool)
        if is_causal:
            allowed = allowed.tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            allowed = allowed & attn_mask
        elif attn_mask is not None:
            allowed = allowed & (attn_mask > torch.finfo(attn_mask.dtype).min / 2.0)
            scores = scores + attn_mask.float()
        self._keep(query, key, scores.masked_fill(~allowed, -math.inf).softmax(dim=-1), allowed)

    def _multi_head(self, given: Mapping[str, Any]) -> None:
        """nn.MultiheadAttention with one in-projection: q and k as it makes them. [T, B, E] in."""
        weight, bias = given["in_proj_weight"], given["in_proj_bias"]
        query, key, heads = given["query"], given["key"], given["num_heads"]
        if weight is None or given.get("bias_k") is not None or given.get("add_zero_attn") or query.ndim != 3:
            return
        width = query.shape[-1]
        biases = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
        q = functional.linear(query, weight[:width], biases[0])
        k = functional.linear(key, weight[width : 2 * width], biases[1])
        q, k = (z.view(z.shape[0], z.shape[1], heads, width // heads).permute(1, 2, 0, 3) for z in (q, k))
        mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
        if mask is not None:
            mask = _additive(mask)
            mask = mask.view(-1, heads, *mask.shape[-2:]) if mask.ndim == 3 else mask
        if padding is not None:
            padding = _additive(padding)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        self._dot_product(q, k, k, attn_mask=mask, is_causal=mask is None and bool(given.get("is_causal")))

    def _keep(self, query: Tensor, key: Tensor, weights: Tensor, allowed: Tensor) -> None:
        self.calls.append(Attention(query=query, key=key, weights=weights, allowed=allowed))


def _additive(mask: Tensor) -> Tensor:
    """nn.MultiheadAttention's mask: boolean ones say what is forbidden."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask, -math.inf)
