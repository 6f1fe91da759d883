"""Text that a kernel writes, byte by byte. It learns nothing from it here, and no global random state is used."""

import torch
from torch import Tensor

from qig_core.errors import QigError
from qig_core.measures.undisturbed import one_thread
from qig_core.training.kernel import Kernel
from qig_core.training.noise import drawn, uniforms


@torch.no_grad()
def generate(kernel: Kernel, prompt: Tensor, length: int, *, seed: int, step: int, temperature: float = 1.0) -> Tensor:
    """What follows a prompt: each token is drawn from softmax(logits / temperature) given the last `context` tokens.

    A pure function of weights, prompt, seed and step, whatever the number of threads; a shorter text is the beginning
    of a longer one.

    Args:
        prompt: [P] or [B, P] tokens, P ≥ 1; of one longer than the kernel's context only the end is read.

    Returns:
        [length] or [B, length] tokens, without the prompt.

    Raises:
        ValueError: an empty prompt, a negative length, seed or step, or a temperature that is not positive.
        QigError: logits that are not finite: a broken kernel writes nothing.
    """
    if prompt.ndim not in (1, 2) or not prompt.numel():
        raise ValueError(f"a prompt is [P] or [B, P] with at least one token, not {tuple(prompt.shape)}")
    if length < 0 or not temperature > 0.0:
        raise ValueError(f"length {length} must not be negative and temperature {temperature} must be positive")
    context, before = kernel.config.context, prompt.shape[-1]
    written: Tensor = prompt.reshape(-1, before).to(kernel.embedding.device)
    noise = uniforms(length * len(written), seed=seed, step=step, stream="text").view(length, len(written))
    with one_thread():
        for row in noise:
            logits = kernel(written[:, -context:])[:, -1] / temperature
            if not bool(torch.isfinite(logits).all()):
                raise QigError(f"the kernel's logits are not finite after {written.shape[-1] - before} tokens")
            written = torch.cat([written, drawn(logits, row)[:, None]], dim=-1)
    return written[:, before:].view(*prompt.shape[:-1], length)
