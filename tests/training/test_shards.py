"""Sharded gradients: those of the whole batch, the same bits every time, nothing written when a shard fails."""

import pytest
import torch
from torch import Tensor

from qig_core.training.config import KernelConfig
from qig_core.training.kernel import Kernel
from qig_core.training.shards import ShardedGradients
from qig_core.training.trainer import next_token_loss

CONFIG = KernelConfig(width=32, heads=8, context=64, passes=3)


def tokens_of(rows: int) -> Tensor:
    return torch.randint(0, 256, (rows, CONFIG.context + 1), generator=torch.Generator().manual_seed(3))


def gradients_of(rows: int, threads: int) -> tuple[Tensor, list[Tensor], int]:
    kernel, tokens = Kernel(CONFIG).double(), tokens_of(rows)
    gradients = ShardedGradients(threads=threads, rows=rows, context=CONFIG.context)
    loss = gradients(lambda part: next_token_loss(kernel, part), kernel.parameters(), tokens)
    return loss, [p.grad for p in kernel.parameters() if p.grad is not None], gradients.num_shards


@pytest.mark.parametrize(("rows", "threads", "shards"), [(16, 2, 2), (27, 3, 3), (32, 64, 4), (4, 2, 1), (1, 8, 1)])
def test_shards_give_the_loss_and_the_gradient_of_the_whole_batch(rows: int, threads: int, shards: int) -> None:
    kernel = Kernel(CONFIG).double()
    whole = next_token_loss(kernel, tokens_of(rows))
    whole.backward()
    loss, gradients, num_shards = gradients_of(rows, threads)
    assert num_shards == shards
    torch.testing.assert_close(loss, whole.detach(), rtol=1e-12, atol=0.0)
    assert not loss.requires_grad
    for ours, parameter in zip(gradients, kernel.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-9, atol=1e-13)


def test_the_same_shards_give_the_same_bits() -> None:
    _, first, _ = gradients_of(32, 4)
    for _ in range(5):
        _, again, _ = gradients_of(32, 4)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_fused_optimiser_makes_of_them_the_step_that_an_unfused_one_makes() -> None:
    # A block of an assembled matrix has a view of its gradient. A fused optimiser took it for memory in a row.
    stepped = []
    for fused in (True, False):
        kernel = Kernel(CONFIG).double()
        gradients = ShardedGradients(threads=2, rows=16, context=CONFIG.context)
        optimizer = torch.optim.AdamW(kernel.parameters(), lr=1e-2, fused=fused)
        for _ in range(2):
            gradients(lambda part, kernel=kernel: next_token_loss(kernel, part), kernel.parameters(), tokens_of(16))  # type: ignore[misc]
            assert all(p.grad is not None and p.grad.is_contiguous() for p in kernel.parameters())
            optimizer.step()
        stepped.append([p.detach().clone() for p in kernel.parameters()])
    for ours, theirs in zip(*stepped, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_are_replaced_and_torchs_threads_are_given_back() -> None:
    kernel, before = Kernel(CONFIG), torch.get_num_threads()
    gradients = ShardedGradients(threads=2, rows=16, context=CONFIG.context)
    norms = []
    for _ in range(2):
        gradients(lambda part: next_token_loss(kernel, part), kernel.parameters(), tokens_of(16))
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in kernel.parameters() if p.grad is not None]).item())
    assert norms[0] == norms[1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("bad", [0, 1])
def test_a_shard_that_fails_is_heard_and_writes_no_gradient(bad: int) -> None:
    kernel, tokens, before = Kernel(CONFIG), tokens_of(16), torch.get_num_threads()
    tokens[8 * bad, 0] = 999  # no such byte

    with pytest.raises(IndexError):
        ShardedGradients(threads=2, rows=16, context=CONFIG.context)(
            lambda part: next_token_loss(kernel, part), kernel.parameters(), tokens
        )
    assert all(p.grad is None for p in kernel.parameters())
    assert torch.get_num_threads() == before
