"""The attention that is seen is the one that the model itself would tell, entry by entry."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qig_core.measures.attention import Attention, AttentionSeen
from tests.measures.foreign import TOKENS, bert, gpt2, llama


def seen_in(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[list[Attention], Any]:
    with torch.no_grad(), AttentionSeen() as seen:
        output = model.eval()(*args, **kwargs)
    return seen.calls, output


@pytest.mark.parametrize("make", [gpt2, llama, bert])
def test_fused_and_written_out_attention_are_those_that_hugging_face_returns(make: Any) -> None:
    torch.manual_seed(0)
    told_by = make("eager")
    torch.manual_seed(0)
    fused = make("sdpa")
    calls, output = seen_in(told_by, TOKENS, use_cache=False, output_attentions=True)
    assert len(calls) == len(output.attentions) == 2
    other, _ = seen_in(fused, TOKENS, use_cache=False)
    for call, again, told in zip(calls, other, output.attentions, strict=True):
        assert torch.equal(call.weights, told)
        torch.testing.assert_close(again.weights, told)
        torch.testing.assert_close(again.query, call.query)
        torch.testing.assert_close(again.key, call.key)
        assert torch.equal(again.allowed, call.allowed)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", ["not", "by float", "by bool", "by padding too"])
def test_nn_multihead_attention_is_seen_as_it_returns_it(batch_first: bool, masked: str) -> None:
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(32, 4, batch_first=batch_first)
    x = torch.randn(3, 5, 32) if batch_first else torch.randn(5, 3, 32)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    kwargs: dict[str, Any] = {"need_weights": True, "average_attn_weights": False}
    if masked != "not":
        kwargs["attn_mask"] = causal if masked == "by float" else causal.isinf()
    if masked == "by padding too":
        kwargs["key_padding_mask"] = torch.tensor([[False] * 5, [False] * 4 + [True], [False] * 5])
    (call,), (_, told) = seen_in(layer, x, x, x, **kwargs)
    torch.testing.assert_close(call.weights, told)
    assert bool((call.allowed == (told > 0)).all())
    assert call.query.shape == (3, 4, 5, 8)


def test_a_grouped_key_serves_its_queries() -> None:
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    with AttentionSeen() as seen:
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(seen.calls[0].weights @ v.repeat_interleave(2, dim=1), out)


def test_a_softmax_that_follows_no_product_is_not_attention() -> None:
    with AttentionSeen() as seen:
        torch.randn(2, 4, 5, 5).softmax(-1)
        x = torch.randn(2, 5, 8) @ torch.randn(8, 5)  # a projection
        x.softmax(-1)
    assert seen.calls == []


def test_distances_are_those_of_the_softmaxed_queries_and_keys() -> None:
    q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 4, 8)
    ones = torch.ones(1, 1, 3, 4)
    call = Attention(query=q, key=k, weights=ones / 4, allowed=ones.bool())

    def root(z: Tensor) -> Tensor:
        return torch.softmax(z / 0.5, -1).sqrt()

    expected = 2.0 * torch.arccos(root(q) @ root(k).mT)
    torch.testing.assert_close(call.distances(0.5), expected)
    same = Attention(query=q, key=q, weights=torch.ones(1, 1, 3, 3) / 3, allowed=torch.ones(1, 1, 3, 3).bool())
    assert float(same.distances().diagonal(dim1=-2, dim2=-1).max()) < 3e-3  # 2 arccos(1 − 1e-6)


def test_few_rows_are_spread_over_all_and_keep_the_last() -> None:
    weights = torch.arange(10.0).expand(1, 1, 10, 10).mT
    call = Attention(query=weights, key=weights, weights=weights, allowed=weights.bool())
    assert call.rows(10) is call
    assert call.rows(4).weights[0, 0, :, 0].tolist() == [0.0, 3.0, 6.0, 9.0]
