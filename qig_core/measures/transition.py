"""The linear map of a block by perturbation, and integration as a loss. torch; no hooks, no module, no clock here."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from qig_core.measures.basin import readout
from qig_core.measures.integration import effective_information

Mode: TypeAlias = Literal["forward", "reverse"]
Rows: TypeAlias = Callable[[Tensor], Tensor]
"""[S, d_in] -> [S, d_out], one state a row; rows do not see each other."""

_CHUNK_ELEMENTS = 1 << 24
"""How much of the block's input is perturbed at once: more directions than fit are taken in turns."""


@dataclass(frozen=True, kw_only=True)
class Transition:
    """What a block does to small changes of its state at S positions."""

    jacobian: Tensor
    """[S, R_out, R_in], in the coordinates of `directions` and `readings`."""
    rms_x: Tensor
    """[S], float64, of the whole state that goes in."""
    rms_y: Tensor
    """[S], float64, of the whole state that comes out."""
    mode: Mode

    def relative(self) -> Tensor:
        """A = J · rms(x)/rms(y), [S, R_out, R_in], float64: a change of x by its size moves y by this share of its."""
        return self.jacobian.double() * (self.rms_x / self.rms_y)[:, None, None]


def equal_parts(dim: int, num_parts: int) -> list[list[int]]:
    """`num_parts` neighbouring groups of 0 .. dim−1, their sizes equal or one apart."""
    if not 1 <= num_parts <= dim:
        raise ValueError(f"{dim} units cannot be cut into {num_parts} parts")
    return [part.tolist() for part in np.array_split(np.arange(dim), num_parts)]


def part_coordinates(dim: int, num_parts: int, rank: int, seed: int = 0) -> Tensor:
    """[M·r, dim], orthonormal rows: r coordinates of each of M neighbouring groups of units, float64.

    r = min(rank, smallest part). Where that is a whole part they are its units themselves; elsewhere a fixed seeded
    orthonormal projection, so that a wide state is perturbed and read in M·r directions only.
    """
    parts = equal_parts(dim, num_parts)
    size = min(rank, *(len(part) for part in parts))
    rows = np.zeros((num_parts, size, dim))
    for i, part in enumerate(parts):
        rows[i, :, part] = (np.eye(size) if size == len(part) else readout(len(part), size, seed=seed + i)).T
    return torch.from_numpy(rows.reshape(-1, dim))


def transition(function: Rows, x: Tensor, directions: Tensor, readings: Tensor, *, elements: int = 0) -> Transition:
    """∂(readings · F)/∂(directions · x) at every row of x, by one forward-mode product a direction, all in one batch.

    Forward mode under vmap; for an operator without a batching rule one direction after another; for one without a
    forward derivative (nn.LSTM, an autograd function of one's own) reverse mode, one product a reading. The same J each
    time. Attention runs by its plain formula meanwhile: its fused forms have no forward derivative. Differentiable
    where gradients are enabled. Not from two threads at once: torch has one forward mode for a process.

    Args:
        function: F, which has to accept rows of x's shape and to treat each by itself.
        x: [S, d_in].
        directions: [R_in, d_in], readings: [R_out, d_out].
        elements: how many numbers F touches at its input, where that is more than x holds; for the use of memory.

    Raises:
        RuntimeError: F has neither derivative; the message is torch's.
        torch.OutOfMemoryError: as it comes.
    """
    directions, readings = directions.to(x), readings.to(x)
    chunk = max(1, _CHUNK_ELEMENTS // max(elements, x.numel()))
    with _plain_attention(), warnings.catch_warnings():
        # torch compiles its forward-mode rules with the deprecated torch.jit.script the first time they are used.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # an operator without vmap's rule
        mode: Mode = "forward"
        jacobian: Tensor | None = None
        for attempt in (_batched, _in_turn):
            try:
                jacobian = attempt(function, x, directions, readings, chunk)
                break
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # NotImplementedError is one
                continue
        if jacobian is None:
            mode = "reverse"
            jacobian = _reverse(function, x, directions, readings)
        return Transition(jacobian=jacobian, rms_x=_rms(x), rms_y=_rms(function(x)), mode=mode)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by its plain formula, and nn.TransformerEncoderLayer without its fused path."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _batched(function: Rows, x: Tensor, directions: Tensor, readings: Tensor, chunk: int) -> Tensor:
    def product(direction: Tensor) -> Tensor:
        change: Tensor = torch.func.jvp(function, (x,), (direction.expand_as(x),), strict=True)[1]
        return change @ readings.T

    columns: Tensor = torch.func.vmap(product, chunk_size=chunk, randomness="same")(directions)
    return columns.permute(1, 2, 0)


def _in_turn(function: Rows, x: Tensor, directions: Tensor, readings: Tensor, _chunk: int) -> Tensor:
    columns = []
    with forward_ad.dual_level():
        for direction in directions:
            _, change = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction.expand_as(x))))
            if change is None:
                raise RuntimeError("what comes out does not depend on the state by operations with a derivative")
            columns.append(change @ readings.T)
    return torch.stack(columns, dim=-1)


def _reverse(function: Rows, x: Tensor, directions: Tensor, readings: Tensor) -> Tensor:
    goes_on = torch.is_grad_enabled()
    # cuDNN gives an RNN a backward pass in training mode only.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        x = x if x.requires_grad else x.detach().requires_grad_()
        y = function(x)
        rows = []
        for reading in readings:
            (change,) = torch.autograd.grad(y, x, reading.expand_as(y), retain_graph=True, create_graph=goes_on)
            rows.append(change @ directions.T)
        jacobian = torch.stack(rows, dim=1)
    return jacobian if goes_on else jacobian.detach()


def _rms(x: Tensor) -> Tensor:
    return x.double().square().mean(-1).sqrt()


def integration_loss(maps: Tensor, parts: Sequence[Sequence[int]], noise: float = 0.1) -> Tensor:
    """Φ/K of the minimum-information cut, nats a unit, differentiable in the maps: a term of a loss, to be subtracted.

    Φ(S | S̄) = ½ ln det(1 + A_SS̄ A_SS̄ᵀ/ε²) + ½ ln det(1 + A_S̄S A_S̄Sᵀ/ε²), averaged over positions. The gradient is
    that of the cut that is the minimum now: a subgradient where two are equal. It is 0 at A = 0, where the score
    sqrt(−expm1(−2 Φ/K)) has none.

    Args:
        maps: [d, d] or [P, d, d], relative: Transition.relative() made with gradients enabled.
        parts, noise: as for `effective_information`.

    Returns:
        A scalar, float64, on the maps' device; the value is phi_nats/K.

    Raises:
        ValueError: as `effective_information`.
    """
    maps = maps[None] if maps.ndim == 2 else maps
    found = effective_information(maps.detach().double().cpu().numpy(), parts, noise)
    near = [unit for i in found.cut for unit in parts[i]]
    far = [unit for i, part in enumerate(parts) if i not in found.cut for unit in part]
    if len(near) > len(far):
        near, far = far, near
    scaled = maps.double() / noise
    into, outof = scaled[:, near][:, :, far], scaled[:, far][:, :, near].mT
    return (_half_logdet(into) + _half_logdet(outof)).mean() / found.dim


def _half_logdet(blocks: Tensor) -> Tensor:
    """½ ln det(1 + B Bᵀ) of [P, k, m] blocks."""
    gram = blocks @ blocks.mT + torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    return cast(Tensor, torch.linalg.cholesky(gram).diagonal(dim1=-2, dim2=-1).log().sum(-1))


def nonfinite_kind(x: Tensor) -> str | None:
    """What is not finite in x: "nan" if anything is NaN, else "inf" or "-inf", else None."""
    if bool(torch.isfinite(x).all()):
        return None
    if bool(torch.isnan(x).any()):
        return "nan"
    return "inf" if bool((x == math.inf).any()) else "-inf"
