"""The global random generators of python, numpy and torch, taken down and put back bitwise.

Cheap enough for every step: a step that has to be thrown away is repeated with the numbers that it began with.
"""

import ctypes
import random
import sys
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_MT19937_BYTES = 2500
"""key[624] and pos, as numpy's mt19937_state has them in memory."""

# The last state of numpy's legacy generator: its raw words and what get_state() made of them. A copy by get_state()
# takes 70 us, 624 Python integers; comparing the words takes half a microsecond.
_numpy_last: tuple[bytes, dict[str, Any]] | None = None

_PYTHON_BYTES = 4 * 625
"""int index and uint32 state[624], which CPython keeps in a Random object behind its header."""

# The same for python's generator, whose getstate() takes 12 us. That its words lie where they are looked for is found
# out at each reading: where it is not so, nothing is remembered and every state is read in full.
_python_last: tuple[bytes, tuple[Any, ...]] | None = None


def capture_rng() -> dict[str, Any]:
    """The states of `random`, `numpy.random` (legacy global), torch on the CPU and on each CUDA device in use.

    Returns:
        {"python", "numpy", "torch", "cuda"}: plain data, arrays and tensors; nothing in it changes later. "cuda" is
        empty where this process has not begun to use CUDA.

    python's and numpy's states are read anew only when their words have changed since the last call. That misses one
    thing: a numpy.random.set_state() that changes nothing but the stored second half of a pair of normal numbers.
    """
    return {
        "python": _python_state(),
        "numpy": _numpy_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put back what `capture_rng` took. States of CUDA devices that are absent here are left out."""
    global _numpy_last, _python_last
    random.setstate(state["python"])
    _numpy_last = _python_last = None
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda, device)


def _python_state() -> tuple[Any, ...]:
    global _python_last
    generator: Any = getattr(random.random, "__self__", None)
    if generator.__class__ is not random.Random or sys.implementation.name != "cpython":
        return random.getstate()
    words = ctypes.string_at(id(generator) + object.__basicsize__, _PYTHON_BYTES)
    if _python_last is not None and _python_last[0] == words and _python_last[1][2] == vars(generator)["gauss_next"]:
        return _python_last[1]
    state = random.getstate()
    *key, index = state[1]
    _python_last = (words, state) if array("I", [index, *key]).tobytes() == words else None
    return state


def _numpy_state() -> dict[str, Any]:
    global _numpy_last
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]  # numpy's stub leaves it out
    if type(bits) is not np.random.MT19937:
        return dict(np.random.get_state(legacy=False))
    words = ctypes.string_at(bits.ctypes.state_address, _MT19937_BYTES)
    if _numpy_last is None or _numpy_last[0] != words:
        state = dict(np.random.get_state(legacy=False))
        state["state"]["key"].flags.writeable = False  # it may be handed out again
        # A stored second normal number can be used up without a word changing; its absence cannot end that way.
        _numpy_last = None if state["has_gauss"] else (words, state)
        return state
    return _numpy_last[1]
