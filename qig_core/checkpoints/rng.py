"""The global random generators of python, numpy and torch, taken down and put back bitwise.

Cheap enough for every step: a step that has to be thrown away is repeated with the numbers that it began with.
"""

import ctypes
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_MT19937_BYTES = 2500
"""key[624] and pos, as numpy's mt19937_state has them in memory."""

# The last state of numpy's legacy generator: its raw words and what get_state() made of them. A copy by get_state()
# takes 70 us, 624 Python integers; comparing the words takes half a microsecond.
_numpy_last: tuple[bytes, dict[str, Any]] | None = None


def capture_rng() -> dict[str, Any]:
    """The states of `random`, `numpy.random` (legacy global), torch on the CPU and on each CUDA device in use.

    Returns:
        {"python", "numpy", "torch", "cuda"}: plain data, arrays and tensors; nothing in it changes later. "cuda" is
        empty where this process has not begun to use CUDA.

    numpy's state is read anew only when its words have changed since the last call. That misses one thing: a
    set_state() that changes nothing but the stored second half of a pair of normal numbers.
    """
    return {
        "python": random.getstate(),
        "numpy": _numpy_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put back what `capture_rng` took. States of CUDA devices that are absent here are left out."""
    global _numpy_last
    random.setstate(state["python"])
    _numpy_last = None
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda, device)


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
