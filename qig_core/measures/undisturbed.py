"""Looking at a model without leaving a trace: mode, random state and buffers are then what they were. torch."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def inside(model: nn.Module) -> nn.Module:
    """The module that torch.compile and DistributedDataParallel were given."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no graph, no autocast, no compiled code; python's, numpy's and torch's generators put back.

    A module's `training` is set and put back by itself: train() may do more in somebody's model.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters()} | {torch.device("cpu")}
    generators = random.getstate(), np.random.get_state()  # what a model may draw from
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device for device in devices if device.type == "cuda"]))
        stack.enter_context(torch.no_grad())
        for kind in {device.type for device in devices}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing was compiled, and asking would import the compiler
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(warnings.catch_warnings())
        # Reentrant checkpointing says so where there is no graph, and here there is none.
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad", UserWarning)
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(generators[0])
            np.random.set_state(generators[1])


@contextmanager
def one_thread() -> Iterator[int]:
    """torch's operations on the calling thread alone; gives the number of threads that they had.

    Threads that meet after every operation cost more than small operations gain, and beside another busy process many
    times more: each meeting waits for the thread that lost its core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, of those that begin now, and of the BLAS for all
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def without_compiler(hook: Callable[..., Any]) -> Callable[..., Any]:
    """`hook` for a module that may have been compiled in place: the compiler is to leave it as it is."""
    # As above: where the compiler was never imported nothing was compiled.
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], widened: bool = False) -> Any:
    """module(*args, **kwargs) on copies of its buffers, so that what it writes there is not kept.

    Args:
        widened: half-precision parameters, buffers and arguments as float32: a derivative is not rounded to 8 bits.
    """
    state: dict[str, Tensor] = {name: buffer.clone() for name, buffer in module.named_buffers()}
    if widened:
        state |= dict(module.named_parameters())
        state, args, kwargs = widen(state), widen(args), widen(kwargs)
    return torch.func.functional_call(module, state, args, kwargs)


def is_half(x: Tensor) -> bool:
    return x.dtype in (torch.bfloat16, torch.float16)


def widen(value: Any) -> Any:
    """Half-precision tensors in tuples, lists and mappings as float32; everything else as it is."""
    if isinstance(value, Tensor):
        return value.float() if is_half(value) else value
    if isinstance(value, dict):
        return {name: widen(part) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(widen, value))
    return value
