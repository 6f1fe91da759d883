"""A copy of a state at one moment, so that it can be written while training goes on. Writes nothing."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from qig_core.checkpoints.pytree import to_files

_PLAIN = (type(None), bool, int, float, str, bytes)


class Stage:
    """Memory that the tensors of a state are copied into: made at the first copy and used again, as large as they are.

    Page-locked where a tensor comes from a CUDA device. What was taken before is overwritten when the next is taken.
    """

    def __init__(self) -> None:
        self._places: list[torch.Tensor] = []
        self._used = 0
        self._taken: dict[tuple[Any, ...], Any] = {}
        """By the memory that it is a copy of: what was one stays one."""

    def take(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The same tree with every container and tensor copied: the state may change from now on.

        Raises:
            CheckpointError: something in it is no plain data, tensor or array, as `pytree.to_files` says.
        """
        self._used = 0
        devices: set[torch.device] = set()
        try:
            taken = {key: self._copy(value, devices) for key, value in state.items()}
        except (_Odd, RecursionError):
            to_files(state)  # says what, and where
            raise
        finally:
            self._taken.clear()
        del self._places[self._used :]
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return taken

    def _copy(self, value: Any, devices: set[torch.device]) -> Any:
        kind = type(value)
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            return self._tensor(value, devices)
        if kind is dict or kind is OrderedDict or kind is defaultdict:
            return {key: self._copy(item, devices) for key, item in value.items()}
        if kind in _PLAIN or isinstance(value, np.generic):
            return value
        if kind is list or kind is tuple:
            return kind([self._copy(item, devices) for item in value])
        if kind is np.ndarray:
            same = (value.__array_interface__["data"][0], value.dtype, value.shape, value.strides)
            return self._taken.setdefault(same, value.copy())
        raise _Odd

    def _tensor(self, tensor: torch.Tensor, devices: set[torch.device]) -> torch.Tensor:
        if tensor.layout != torch.strided or tensor.is_meta:
            raise _Odd
        flags = (tensor.is_conj(), tensor.is_neg())
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), *flags)
        place = self._taken.get(same) if tensor.numel() else None
        if place is None:
            place = self._taken[same] = self._place(tensor)
            if tensor.is_cuda:
                devices.add(tensor.device)
            place.copy_(tensor.detach(), non_blocking=True)
        return place

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        number, pinned = self._used, tensor.is_cuda
        self._used += 1
        if number < len(self._places):
            kept = self._places[number]
            if kept.shape == tensor.shape and kept.dtype == tensor.dtype and (not pinned or kept.is_pinned()):
                return kept
        place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        self._places[number : number + 1] = [place]
        return place


class _Odd(Exception):
    """What cannot be saved."""
