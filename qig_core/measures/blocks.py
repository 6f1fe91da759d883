"""Which module of a foreign model is its block, and where in its tensors a position is. torch; runs no model itself."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from qig_core.errors import ProbeError

RECURRENT = 3
"""Calls in one forward pass from which on a module counts as a recurrent block."""


@dataclass(kw_only=True)
class Shape:
    """What one forward pass showed of a module."""

    calls: int = 0
    x: tuple[int, ...] | None = None
    """Of the first floating-point tensor that went in."""
    y: tuple[int, ...] | None = None
    """Of the first floating-point tensor that came out."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tensor holds S sequences of T positions: rows [S, d], [S, T, d], [T, S, d] or packed [S·T, d]."""

    kind: str
    length: int
    """T, of this tensor; 1 for rows."""

    def index(self, offsets: Tensor) -> tuple[Tensor, ...]:
        """x[index(offsets)] is [S, d]: position offsets[s] of sequence s."""
        sequences = torch.arange(len(offsets), device=offsets.device)
        match self.kind:
            case "rows":
                return (sequences,)
            case "batch first":
                return sequences, offsets
            case "time first":
                return offsets, sequences
            case _:
                return (sequences * self.length + offsets,)

    def sequences(self, x: Tensor) -> Tensor:
        """x as [S, T, d]."""
        match self.kind:
            case "rows":
                return x[:, None]
            case "time first":
                return x.transpose(0, 1)
            case "packed":
                return cast(Tensor, x.unflatten(0, (-1, self.length)))
            case _:
                return x


def layout_of(shape: tuple[int, ...], num_sequences: int, length: int | None, time_first: bool) -> Layout | None:
    """The layout of a tensor of this shape for S sequences of T tokens; None where it is none of them.

    Where both of the first two dimensions are S, `time_first` decides.
    """
    s = num_sequences
    if len(shape) == 3 and s in shape[:2]:
        first = shape[1] == s and (shape[0] != s or time_first)
        return Layout(kind="time first" if first else "batch first", length=shape[0] if first else shape[1])
    if len(shape) == 2 and shape[0] == s:
        return Layout(kind="rows", length=1)
    if len(shape) == 2 and length is not None and shape[0] == s * length:
        return Layout(kind="packed", length=length)
    return None


def is_time_first(module: nn.Module) -> bool:
    """Whether something inside says batch_first=False, as nn.LSTM and nn.MultiheadAttention do unless told."""
    return any(getattr(part, "batch_first", None) is False for part in module.modules())


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor in a tensor, a tuple, a list or a mapping."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((found for found in map(first_tensor, parts) if found is not None), None)


@dataclass(kw_only=True)
class Call:
    """One call of a block, with what went in and came out."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    x: Tensor
    """The state: the first floating-point tensor among the arguments."""
    y: Tensor | None = field(default=None)

    def with_state(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with another state."""
        args = tuple(x if value is self.x else value for value in self.args)
        return args, {name: x if value is self.x else value for name, value in self.kwargs.items()}


@contextmanager
def captured(block: nn.Module) -> Iterator[list[Call]]:
    """Every call of `block` inside the with-block; the hooks are gone after it."""
    calls: list[Call] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = first_tensor((args, kwargs))
        if x is None:
            return None
        # The model may go on in place. A view into a list or a tuple is not a state that can be replaced.
        kept = x.detach().clone()
        call = Call(args=args, kwargs=kwargs, x=x)
        args, kwargs = call.with_state(kept)
        if any(value is kept for value in (*args, *kwargs.values())):
            calls.append(Call(args=args, kwargs=kwargs, x=kept))
        return None

    def after(_module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        y = first_tensor(output)
        if calls and calls[-1].y is None and y is not None:
            calls[-1].y = y.detach().clone()

    handles = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Shape]]:
    """Calls and shapes of every module by name, in the order of their first call; the hooks are gone after it."""
    shapes: dict[str, Shape] = {}
    handles = []
    try:
        for name, module in model.named_modules():

            def look(_module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                seen = shapes.setdefault(name, Shape())
                x, y = first_tensor((args, kwargs)), first_tensor(output)
                seen.calls += 1
                seen.x, seen.y = (None if z is None else tuple(z.shape) for z in (x, y))

            handles.append(module.register_forward_hook(look, with_kwargs=True))
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def first_nonfinite(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules whose output is not finite, in the order of their ends: the first is the innermost cause."""
    broken: list[str] = []
    handles = []
    try:
        for name, module in model.named_modules():

            def look(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
                y = first_tensor(output)
                if y is not None and not bool(torch.isfinite(y).all()):
                    broken.append(name or "the model")

            handles.append(module.register_forward_hook(look))
        yield broken
    finally:
        for handle in handles:
            handle.remove()


def named_block(model: nn.Module, name: str) -> nn.Module:
    """The module of this name, the model for "". Raises ProbeError with the nearest names where there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name in modules:
        return modules[name]
    known = [each for each in modules if each]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or [
        each for each in known if name.split(".")[-1] in each
    ]
    shown = near[:3] or known[:3]
    hint = f"nearest: {', '.join(shown)}" if shown else "it has no modules at all"
    raise ProbeError(f"the model has no module {name!r}; {hint}")


def chosen_block(model: nn.Module, shapes: Mapping[str, Shape], fits: Callable[[Shape], bool]) -> str:
    """The name of the block that `auto` means, "" for the model itself.

    The largest module that is called at least three times in one forward pass (a recurrent block); else the last of the
    longest row of alike modules that are built of others (the layers of a transformer); else the last recurrent layer;
    else the largest module that keeps the width of a state, the last of equals. Size is parameters.

    Args:
        fits: whether what goes into and comes out of a module are states.

    Raises:
        ProbeError: none of these; the message names the modules that map a state to one of another width.
    """
    modules = dict(model.named_modules())
    states = [name for name, shape in shapes.items() if fits(shape)]
    size = {name: sum(p.numel() for p in modules[name].parameters()) for name in states}
    same = [name for name in states if size[name] and shapes[name].x == shapes[name].y]

    def largest(names: list[str]) -> str:
        return max(reversed(names), key=lambda name: size[name])

    recurrent = [name for name in same if shapes[name].calls >= RECURRENT]
    if recurrent:
        return largest(recurrent)
    rows: dict[tuple[str, type], list[str]] = {}
    for name in filter(None, same):
        parent = name.rpartition(".")[0]
        if isinstance(modules[parent], nn.ModuleList | nn.Sequential) and any(True for _ in modules[name].children()):
            rows.setdefault((parent, type(modules[name])), []).append(name)
    alike = [row for row in rows.values() if len(row) >= 2]
    if alike:
        return max(alike, key=lambda row: (len(row), size[row[-1]]))[-1]
    layers = [name for name in states if isinstance(modules[name], nn.RNNBase)]
    if layers:
        return layers[-1]
    if not same:
        others = ", ".join(name for name in states if name and size[name])
        raise ProbeError(
            "no module of this model takes a state, (batch, position, feature) or (batch, feature) with a feature for "
            f"each part, and gives one of that width; {f'name one of {others}' if others else 'none can be named'}"
        )
    return largest(same)
