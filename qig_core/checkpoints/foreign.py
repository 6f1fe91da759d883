"""Weights that other programs wrote: .safetensors, and state dicts by torch.save. Nothing in a file is ever executed.

A pickled object is refused, whatever it is: only tensors and plain data are read.
"""

import os
import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from qig_core.checkpoints.dtypes import COMPLEX_PARTS, OF_TORCH, TORCH_OF
from qig_core.checkpoints.stored import SUFFIX, StoredTensor, tied_names
from qig_core.checkpoints.tensorfile import TensorEntry, read_header
from qig_core.errors import CheckpointError
from qig_core.rundir.reader import open_regular

_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"(?:GLOBAL |global: )(?:GLOBAL )?([\w.]+)")
_MAX_REASON = 200


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a file by their dotted names, on the CPU.

    Args:
        path: a .safetensors file by its suffix; anything else is read as what torch.save wrote. Of tables and lists in
            it the tensors are taken, {"model": {"w": ...}} as "model.w", and what is no tensor is passed over.

    Returns:
        Tensors that share memory where they did so in the file. Those of torch.save's present format are mapped from
        the file (privately: writing to them does not change it), which must stay as it is meanwhile.

    Raises:
        CheckpointError: absent, damaged, not such a file, or with a pickled object in it; nothing was executed.
    """
    where = Path(path)
    try:
        fd = open_regular(where)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(where)!r} cannot be read: {why}") from error
    try:
        return _read_safetensors(fd, where) if where.suffix == SUFFIX else _read_torch(fd, where)
    except OSError as error:
        raise CheckpointError(f"{str(where)!r} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(fd)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """`read_weights` as tensors whose bytes are read piece by piece. Raises: CheckpointError, as there."""
    tensors = read_weights(path)

    @lru_cache(maxsize=1)  # of one that lies otherwise in memory the elements are put in order once
    def elements(name: str) -> memoryview:
        plain = tensors[name].resolve_conj().resolve_neg().contiguous()
        return plain.reshape(-1).view(torch.uint8).numpy().data

    def copy(name: str, buffer: memoryview, offset: int) -> None:
        buffer[:] = elements(name)[offset : offset + len(buffer)]

    return {name: _stored(tensor, partial(copy, name)) for name, tensor in tensors.items()}


def _stored(tensor: torch.Tensor, read: Callable[[memoryview, int], None]) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return StoredTensor(
        dtype=OF_TORCH.get(tensor.dtype, COMPLEX_PARTS.get(dtype, dtype)),
        shape=(*tensor.shape, 2) if tensor.is_complex() else tuple(tensor.shape),
        parts_of=dtype if tensor.is_complex() else None,
        nbytes=tensor.numel() * tensor.element_size(),
        place=memory_of(tensor),
        read=read,
    )


def memory_of(tensor: torch.Tensor) -> Hashable:
    """Equal for two tensors that are the same elements of the same memory; for empty ones, for a tensor and itself."""
    if not tensor.numel():
        return id(tensor)
    flags = (tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), *flags)


def _read_safetensors(fd: int, path: Path) -> dict[str, torch.Tensor]:
    try:
        entries, metadata = read_header(fd, os.fstat(fd).st_size)
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is no safetensors file: {error}") from error
    tensors = {entry.name: _read_tensor(fd, entry, path) for entry in entries}
    return tensors | {name: tensors[kept] for name, kept in tied_names(tensors, metadata).items()}


def _read_tensor(fd: int, entry: TensorEntry, path: Path) -> torch.Tensor:
    tensor = torch.empty(entry.shape, dtype=torch.complex64 if entry.dtype == "C64" else TORCH_OF[entry.dtype])
    target = tensor.reshape(-1).view(torch.uint8).numpy().data
    position = entry.start
    while target and (got := os.preadv(fd, [target], position)):
        position += got
        target = target[got:]
    if target:
        raise CheckpointError(f"{str(path)!r} was cut short while it was read")
    return tensor


def _read_torch(fd: int, path: Path) -> dict[str, torch.Tensor]:
    mapped = os.pread(fd, len(_ZIP), 0) == _ZIP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old formats, which are read all the same
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # in a damaged file torch's reader runs into errors of every kind
        raise CheckpointError(_refusal(path, error)) from error
    try:
        found = list(_flat(content, ""))
    except RecursionError as error:
        raise CheckpointError(f"{str(path)!r} is nested too deeply, or contains itself") from error
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in found:
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            what = f"{tensor.layout}, on {tensor.device}" + (", quantised" if tensor.is_quantized else "")
            raise CheckpointError(f"{str(path)!r}: tensor {name!r} is {what}: only plain tensors are read")
        if name in tensors:
            raise CheckpointError(f"{str(path)!r}: two tensors are called {name!r}")
        tensors[name] = tensor
    if not tensors:
        raise CheckpointError(f"{str(path)!r} holds no table of tensors but a {type(content).__name__}")
    return tensors


def _flat(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if name:
            yield name, value.detach() if value.requires_grad or type(value) is not torch.Tensor else value
        return
    pairs: Any = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list | tuple):
        pairs = enumerate(value)
    for key, item in pairs:
        yield from _flat(item, f"{name}.{key}" if name else str(key))


def _refusal(path: Path, error: Exception) -> str:
    # What the unpickler says itself; torch wraps it in advice to execute what is in the file.
    inner = error.__context__ or error
    said = str(inner)
    if match := _GLOBAL.search(said):
        return f"{str(path)!r} holds a pickled object, {match[1]}, and is not read; nothing in it was executed"
    if "TorchScript" in said:
        return f"{str(path)!r} is a TorchScript program and is not read; nothing in it was executed"
    why = f"{type(inner).__name__}: {said.strip()}".split("\n", 1)[0].split(". ", 1)[0][:_MAX_REASON]
    return f"{str(path)!r} is not read, and nothing in it was executed: torch.load refuses it ({why})"
