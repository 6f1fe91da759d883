"""Random numbers that are a pure function of (seed, step, stream, index): nothing to save, no global random state."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Stream = Literal["text", "labels", "directions"]
_STREAMS: dict[Stream, int] = {"text": 1, "labels": 2, "directions": 3}
"""The second counter word of each: what is drawn for one purpose has nothing to do with what is drawn for another, nor
with the offsets of training batches, whose second word is 0 (`corpus.batch`)."""


def uniforms(count: int, *, seed: int, step: int, stream: Stream) -> Tensor:
    """[count], float64, uniform on the odd multiples of 2⁻⁵³ in (0, 1); fewer of the same seed are the first of more.

    Source: the counter-based Philox generator (Salmon et al. 2011), key = seed, counter = (·, stream, step).

    Raises:
        ValueError: seed or step is negative.
    """
    if seed < 0 or step < 0:
        raise ValueError(f"seed {seed} and step {step} must not be negative")
    counter = step << 128 | _STREAMS[stream] << 64
    words = np.random.Philox(key=seed, counter=counter).random_raw(count)
    return torch.from_numpy(((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def normals(count: int, *, seed: int, step: int, stream: Stream) -> Tensor:
    """[count], float64, independent N(0, 1): the normal distribution's quantiles of `uniforms`, which see."""
    found: Tensor = torch.special.ndtri(uniforms(count, seed=seed, step=step, stream=stream))
    return found


def drawn(logits: Tensor, noise: Tensor) -> Tensor:
    """One index a row from softmax(logits), by inversion: the first whose cumulative probability exceeds the noise.

    Args:
        logits: [..., K], finite.
        noise: [...], in (0, 1).

    Returns:
        [...], integers in 0 .. K − 1.
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    level = noise.to(cumulative)[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, level, right=True)[..., 0].clamp_max(logits.shape[-1] - 1)
