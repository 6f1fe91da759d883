"""A model, its block and the one batch it is measured on. torch; what the measures make of it is not said here."""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import blake3
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qig_core.errors import ProbeError
from qig_core.geometry.simplex import FloatArray
from qig_core.measures.attention import Attention, AttentionSeen
from qig_core.measures.basin import readout
from qig_core.measures.blocks import (
    Call,
    Layout,
    Shape,
    chosen_block,
    first_tensor,
    is_time_first,
    layout_of,
    named_block,
    watched,
)
from qig_core.measures.measurement import NUM_POSITIONS
from qig_core.measures.transition import Transition, equal_parts, part_coordinates, transition
from qig_core.measures.undisturbed import called, is_half, undisturbed, widen

_REPEATS = 1e-3  # how near a second call of the block must come to the first, in units of its size
_REPEATS_HALF = 5e-2  # where the first was rounded to half precision


_MASKS = {"attention_mask": False, "src_key_padding_mask": True, "key_padding_mask": True}
"""Arguments that say what is padding, by 1 or by 0."""


class Batch:
    """What a model is called with: eight sequences, always the same.

    Args:
        given: a tensor, a tuple of positional or a mapping of keyword arguments, or both as (tuple, dict). A tensor
            whose dimension `dim` is as long as the first one's holds one sequence a place there; the first eight are
            taken, fewer are repeated.

    Raises:
        ProbeError: there is no tensor in it, or no sequence.
    """

    def __init__(self, given: Any, dim: int = 0) -> None:
        args, kwargs = _arguments(given)
        every = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        tensors = [value for value in every if value.ndim > dim]
        if every and not tensors:
            raise ProbeError(f"batch_dim is {dim}: no tensor of the batch has so many dimensions")
        if not tensors or not tensors[0].numel():
            raise ProbeError("the batch must hold a tensor with at least one sequence and one position")
        size = tensors[0].shape[dim]
        kept = torch.arange(NUM_POSITIONS) % size

        def take(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            held = value.detach()
            has = value.ndim > dim and value.shape[dim] == size
            return held.index_select(dim, kept.to(value.device)) if has else held.clone()

        self.args: tuple[Any, ...] = tuple(take(value) for value in args)
        self.kwargs: dict[str, Any] = {name: take(value) for name, value in kwargs.items()}
        self.length: int | None = tensors[0].shape[1 - dim] if tensors[0].ndim > 1 and dim in (0, 1) else None
        """Tokens a sequence; None where an input has no such dimension."""
        self.real: Tensor | None = None
        """[8, T] bool, positions that are not padding; None where nothing is said."""
        for name, padding in _MASKS.items():
            mask = self.kwargs.get(name)
            if isinstance(mask, Tensor) and mask.ndim == 2:
                self.real = ((mask > 0) != padding).cpu()

    def to(self, device: torch.device) -> None:
        """Move every tensor to where the model is."""
        self.args = tuple(value.to(device) if isinstance(value, Tensor) else value for value in self.args)
        self.kwargs = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.kwargs.items()
        }


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        args, kwargs = (), dict(given)
    elif isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], tuple) and isinstance(given[1], dict):
        args, kwargs = given
    else:
        args, kwargs = tuple(given) if isinstance(given, tuple | list) else (given,), {}
    return tuple(map(_tensor, args)), {name: _tensor(value) for name, value in kwargs.items()}


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class Subject:
    """The block of `model`, found and fitted to `batch`.

    Args:
        block: a module's name, or "auto".
        parts, rank: as of Probe.

    Raises:
        ProbeError: no module of that name, or its tensors are not (batch, position, feature).
    """

    def __init__(self, model: nn.Module, batch: Batch, *, block: str, parts: int, rank: int, seed: int) -> None:
        self.model, self.batch = model, batch
        if (weight := next(model.parameters(), None)) is not None:
            batch.to(weight.device)
        self._time_first = is_time_first(model)
        if "use_cache" in inspect.signature(model.forward).parameters and "use_cache" not in batch.kwargs:
            batch.kwargs["use_cache"] = False  # a cache would remember the first call when the block is called again
        try:
            with undisturbed(model), watched(model) as shapes:
                self.run()
        except Exception as error:
            error.add_note("raised by the model when the probe called it with its batch")
            raise
        name = chosen_block(model, shapes, lambda shape: self._fits(shape, parts)) if block == "auto" else block
        self.name = name or "the model"
        """Of the block."""
        self.block = named_block(model, name)
        shape = shapes.get(name, Shape())
        if not shape.calls:
            raise ProbeError(f"{self.name} was not called when the model was called with the batch")
        if not self._fits(shape, parts):
            raise ProbeError(
                f"{self.name} takes {_words(shape.x)} and gives {_words(shape.y)}: a block takes and gives "
                f"(batch, position, feature) or (batch, feature), with at least one feature for each of {parts} parts"
            )
        assert shape.x is not None
        assert shape.y is not None
        self._before, self._after = self._layout(shape.x), self._layout(shape.y)
        widths = shape.x[-1], shape.y[-1]
        size = min(rank, *(len(part) for width in widths for part in equal_parts(width, parts)))
        self.directions = part_coordinates(widths[0], parts, size, seed)
        """[R, width in], what is perturbed."""
        self.readings = part_coordinates(widths[1], parts, size, seed)
        """[R, width out], what is read."""
        self.work = math.prod(shape.x) * len(self.directions)
        """Numbers in one operation of a Jacobian, about."""
        self.full_rank = all(size * parts == width for width in widths)
        """Whether that is all there is."""
        self.basin_readout: FloatArray = readout(widths[1], seed=seed)
        self.offsets = self._spread(self._before)
        """[8], the position in each sequence that is perturbed."""
        _warm_up()

    def run(self) -> Tensor | None:
        """One forward pass of the model on the batch; the first floating-point tensor of what it gives."""
        return first_tensor(called(self.model, self.batch.args, dict(self.batch.kwargs)))

    def again(self, call: Call) -> tuple[Tensor | None, Attention | None]:
        """The block called again with its own inputs: what comes out, and the attention over its own sequence.

        None for the output where it is not the same as before: then the block's answer depends on more than its inputs.
        """
        half = is_half(call.x)
        with AttentionSeen() as seen:
            y = first_tensor(called(self.block, call.args, call.kwargs, widened=half))
        own = [one for one in seen.calls if one.weights.shape[2] == one.weights.shape[3]]
        attention = next(iter(own or seen.calls), None)
        if y is None or call.y is None or y.shape != call.y.shape:
            return None, attention
        apart = (y - call.y).abs().max()
        same = not bool(apart > (_REPEATS_HALF if half else _REPEATS) * call.y.float().square().mean().sqrt())
        return (y if same else None), attention

    def transition(self, call: Call) -> Transition:
        """The block's linear map at the eight positions, the rest of the context held fixed.

        Raises:
            RuntimeError: as `transition`.
            ProbeError: this call's tensors are of another kind than those of the call that the block was chosen by.
        """
        half = is_half(call.x)
        full = widen(call.x)
        offsets = self.offsets.to(full.device)
        here = self._layout(tuple(call.x.shape)).index(offsets)
        there = self._after.index(offsets if self._after.length > 1 else torch.zeros_like(offsets))

        def function(points: Tensor) -> Tensor:
            args, kwargs = call.with_state(full.index_put(here, points))
            y = first_tensor(called(self.block, args, kwargs, widened=half))
            assert y is not None
            return y[there]

        return transition(function, full[here], self.directions, self.readings, elements=full.numel())

    def pooled(self, y: Tensor) -> Tensor:
        """The mean state [width] over every position that is not padding, each of mean 0 and variance 1 before.

        As a head reads it: a raw residual state grows with training and would drive every basin into a corner.
        """
        states = self._after.sequences(y).double()
        states = functional.layer_norm(states, states.shape[-1:])
        real = self.real(states.shape[1]).to(states.device)
        return states[real].mean(dim=0)

    def real(self, length: int) -> Tensor:
        """[8, length] bool: positions that are not padding."""
        real = self.batch.real
        return real if real is not None and length == real.shape[1] else torch.ones(NUM_POSITIONS, length).bool()

    def digest(self) -> str:
        """blake3, hex, of the batch, the block's name, the positions and every projection."""
        digest = blake3.blake3(self.name.encode())
        named = [value for _, value in sorted(self.batch.kwargs.items())]
        for value in (*self.batch.args, *named, self.offsets):
            digest.update(_bytes(value))
        for array in (self.directions.numpy(), self.readings.numpy(), self.basin_readout):
            digest.update(np.ascontiguousarray(array.astype("<f8")).tobytes())
        return str(digest.hexdigest())

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        layout = layout_of(shape, NUM_POSITIONS, self.batch.length, self._time_first)
        if layout is None:
            raise ProbeError(f"a tensor of {shape} is not (batch, position, feature) or (batch, feature)")
        return layout

    def _fits(self, shape: Shape, parts: int) -> bool:
        def fits(one: tuple[int, ...] | None) -> bool:
            layout = one and layout_of(one, NUM_POSITIONS, self.batch.length, self._time_first)
            return bool(layout) and one is not None and one[-1] >= parts

        return fits(shape.x) and fits(shape.y)

    def _spread(self, layout: Layout) -> Tensor:
        """One position a sequence, from the middle of the first to the end of the last; never in padding."""
        offsets = []
        for turn, real in enumerate(self.real(layout.length)):
            places = real.nonzero().flatten() if real.any() else torch.arange(layout.length)
            first, last = len(places) // 2, len(places) - 1
            offsets.append(places[first + (last - first) * turn // (NUM_POSITIONS - 1)])
        return torch.stack(offsets)


def _words(shape: tuple[int, ...] | None) -> str:
    return "no floating-point tensor" if shape is None else str(shape)


def _bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous().flatten()
        return f"{value.dtype}{list(value.shape)}".encode() + whole.view(torch.uint8).numpy().tobytes()
    return repr(value).encode()


def _warm_up() -> None:
    """torch compiles its forward-mode rules the first time one is used: seconds that no step should pay for."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.func.jvp(lambda x: functional.layer_norm(x, (2,)).softmax(-1), (torch.ones(1, 2),), (torch.ones(1, 2),))
