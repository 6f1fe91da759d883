"""The gradients of a batch, its rows shared out over threads that meet once a step. Never a second process.

A BLAS with several threads lets them meet after every operation, a thousand times a step. Beside another busy process
each meeting waits for the thread that lost its core, and the step takes at least twice as long as here
(benchmarks/train_step.py).
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qig_core.measures.undisturbed import one_thread

MIN_TOKENS = 512
"""A shard with fewer gains less than a thread costs."""


class _Part(NamedTuple):
    loss: Tensor
    gradients: tuple[Tensor, ...]


class ShardedGradients:
    """Writes the gradient of a mean loss into `.grad`, one shard of the batch a thread.

    The shards are summed in their order, so the same number of shards gives the same bits, whatever the threads do.
    Their number is min(threads, rows, tokens // 512), at least 1: the calling thread's.

    Args:
        threads: how many may run at once.
        rows, context: of a batch [rows, context + 1].
    """

    def __init__(self, *, threads: int, rows: int, context: int) -> None:
        self.num_shards = max(1, min(threads, rows, rows * context // MIN_TOKENS))
        self._pool = ThreadPoolExecutor(max(1, self.num_shards - 1), "qig-shard")  # makes a thread when it needs one

    def __call__(
        self, mean_loss: Callable[[Tensor], Tensor], parameters: Iterable[nn.Parameter], tokens: Tensor
    ) -> Tensor:
        """Set p.grad = ∂ mean_loss(tokens)/∂p for every parameter; mean_loss averages over rows of equal weight.

        Returns:
            The mean loss, a scalar without a graph.

        Raises:
            What mean_loss raises, once every shard has stopped; no gradient is written then.
        """
        parameters = tuple(parameters)
        shards = tokens.tensor_split(self.num_shards)

        def part(rows: Tensor) -> _Part:
            loss = mean_loss(rows) * (len(rows) / len(tokens))
            return _Part(loss.detach(), torch.autograd.grad(loss, parameters))

        with one_thread():
            others = [self._pool.submit(part, rows) for rows in shards[1:]]
            try:
                loss, gradients = part(shards[0])
            finally:
                wait(others)
        for found in [other.result() for other in others]:
            loss += found.loss
            torch._foreach_add_(gradients, found.gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # A block of an assembled matrix has a view for a gradient, and a fused optimiser reads memory in a row.
            parameter.grad = gradient.contiguous()
        return loss
