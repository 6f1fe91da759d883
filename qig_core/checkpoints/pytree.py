"""A tree of plain data, torch tensors and numpy arrays as files, and back. Nothing is ever pickled.

    KEY.safetensors   the tensors below the top-level key KEY under their dotted paths: other tools open it directly
    state.json        {"format": 1, "state": {...}}: everything else, and where each tensor stands

In state.json what JSON has is itself; the rest is an object of one key:

    {"$tensor": [KEY, NAME]}, {"$tensor": [KEY, NAME, "complex128"]}    a torch tensor (complex: a last axis re, im)
    {"$array": [KEY, NAME]}, {"$array": [KEY, NAME, "complex128"]}      a numpy array
    {"$scalar": ["float32", HEX]}     a numpy scalar by its bytes, little-endian
    {"$int": HEX}                     beyond 64 bits
    {"$float": HEX}                   not finite: the big-endian bits of a float64
    {"$bytes": BASE64}, {"$str": BASE64} (text with lone surrogates), {"$tuple": [...]}
    {"$dict": [[KEY, VALUE], ...]}    keys that are no text, or text that begins with "$"
"""

import base64
import itertools
import json
import math
import os
import re
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qig_core.checkpoints.dtypes import COMPLEX_PARTS, NUMPY_OF, OF_NUMPY, OF_TORCH, TORCH_OF
from qig_core.checkpoints.tensorfile import METADATA, TensorEntry, TensorFile, TensorSource, read_header
from qig_core.errors import CheckpointError

FORMAT = 1
STATE = "state.json"
SUFFIX = ".safetensors"

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DICTS = (dict, OrderedDict, defaultdict)


def to_files(state: Mapping[str, Any]) -> dict[str, bytes | TensorFile]:
    """The files of a state, to be given to `store.publish`.

    Args:
        state: dict, list, tuple, None, bool, int, float, str, bytes, numpy scalars, torch tensors (any device; they
            come back as plain tensors on the CPU) and numpy arrays (they come back in native byte order). A key that
            holds tensors is a plain file name. Two tensors below one key that are the same memory, shape and strides
            are written once and come back as one; any other overlap is written out.

    Returns:
        Contents that read the tensors only when they are written: nothing may change before that.

    Raises:
        CheckpointError: something else is in the tree; the message names its path.
    """
    files: dict[str, bytes | TensorFile] = {}
    plain: list[tuple[str, Any]] = []
    for key, value in state.items():
        if type(key) is not str:
            raise CheckpointError(f"state key {key!r}: the keys at the top of a state are text")
        encoder = _Encoder(key)
        try:
            plain.append((key, encoder.encode(value, ())))
        except RecursionError as error:
            raise CheckpointError(f"state[{key!r}] is nested too deeply, or contains itself") from error
        if encoder.sources:
            if not _KEY.fullmatch(key):
                raise CheckpointError(f"state key {key!r} holds tensors and is no plain file name")
            files[key + SUFFIX] = TensorFile(list(encoder.sources.values()), encoder.metadata)
    document = {"format": FORMAT, "state": _object(plain, _text)}
    files[STATE] = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    return files


def from_files(folder: Path) -> dict[str, Any]:
    """The state that `to_files` was given, each tensor with memory of its own.

    The bytes are taken as they are: verify the checkpoint first (`recovery.load` does).

    Raises:
        CheckpointError: a file is missing, is a link, cannot be read, or is of another form.
    """
    with ExitStack() as stack:
        decoder = _Decoder(folder, stack)
        try:
            fd = decoder.open(STATE)
            with os.fdopen(os.dup(fd), "rb") as file:
                document = json.load(file)
            if document["format"] > FORMAT:
                raise ValueError(f"format {document['format']}; this program reads {FORMAT}: upgrade qig-tui")
            state = decoder.decode(document["state"])
        except OSError as error:
            raise CheckpointError(f"{str(folder)!r}: {error.filename or 'a file'}: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, IndexError, RecursionError, RuntimeError) as error:
            raise CheckpointError(f"{str(folder)!r} is no state that this program reads: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{str(folder)!r} is no state that this program reads: not a table")
    return state


class _Encoder:
    """Everything below one top-level key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.sources: dict[str, TensorSource] = {}
        self.metadata = {"format": "pt"}
        self._names: dict[tuple[Any, ...], str] = {}

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return _text(value)
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 63 else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
        if kind is list:
            return [self.encode(item, (*path, index)) for index, item in enumerate(value)]
        if kind is tuple:
            return {"$tuple": [self.encode(item, (*path, index)) for index, item in enumerate(value)]}
        if kind in _DICTS:
            pairs = [(key, self.encode(item, (*path, key))) for key, item in value.items()]
            return _object(pairs, lambda key: self._encode_key(key, path))
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        if kind in (torch.Tensor, torch.nn.Parameter):
            return {"$tensor": self._tensor(value, path)}
        if kind is np.ndarray:
            return {"$array": self._array(value, path)}
        if isinstance(value, np.generic) and (value.dtype in OF_NUMPY or value.dtype.name in COMPLEX_PARTS):
            return {"$scalar": [value.dtype.name, value.tobytes().hex()]}
        raise self._refusal(path, f"a {kind.__module__}.{kind.__qualname__}")

    def _encode_key(self, key: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(key, torch.Tensor):
            raise self._refusal(path, "a tensor as a key")
        return self.encode(key, path)

    def _tensor(self, tensor: torch.Tensor, path: tuple[Any, ...]) -> list[str]:
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_meta or not (tensor.dtype in OF_TORCH or name in COMPLEX_PARTS):
            raise self._refusal(path, f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}")
        tensor = tensor.detach()
        flags = (tensor.is_conj(), tensor.is_neg())
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), *flags)
        kind = OF_TORCH.get(tensor.dtype)
        return self._place(path, kind, name, tuple(tensor.shape), same, lambda: _bytes_of_tensor(tensor))

    def _array(self, array: NDArray[Any], path: tuple[Any, ...]) -> list[str]:
        dtype = array.dtype.newbyteorder("=")
        if not (dtype in OF_NUMPY or dtype.name in COMPLEX_PARTS):
            raise self._refusal(path, f"an array of {array.dtype}")
        same = ("numpy", array.__array_interface__["data"][0], array.dtype, array.shape, array.strides)
        return self._place(path, OF_NUMPY.get(dtype), dtype.name, array.shape, same, lambda: _bytes_of_array(array))

    def _place(
        self,
        path: tuple[Any, ...],
        kind: str | None,
        dtype: str,
        shape: tuple[int, ...],
        same: tuple[Any, ...],
        read: Callable[[], memoryview],
    ) -> list[str]:
        """Give a tensor its name, or that of the one whose memory it is; the reference to it."""
        base = ".".join(key if type(key) is str else repr(key) for key in path) or self._key
        base = base.encode("utf-8", "backslashreplace").decode()
        kept = self._names.get(same) if math.prod(shape) else None
        if kept is not None:
            self.metadata.setdefault(base, kept)
        else:
            kept = base
            for number in itertools.count(2):
                if kept not in self.sources and kept != METADATA:
                    break
                kept = f"{base}~{number}"
            whole = shape if kind else (*shape, 2)
            self.sources[kept] = TensorSource(name=kept, dtype=kind or COMPLEX_PARTS[dtype], shape=whole, read=read)
            self._names[same] = kept
        return [self._key, kept] if kind else [self._key, kept, dtype]

    def _refusal(self, path: tuple[Any, ...], what: str) -> CheckpointError:
        where = "".join(f"[{key!r}]" for key in (self._key, *path))
        return CheckpointError(f"state{where} is {what}: only plain data, torch tensors and numpy arrays are saved")


class _Decoder:
    """The values of one folder; a tensor is read when its reference is met, and once."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._files: dict[str, tuple[int, dict[str, TensorEntry]]] = {}
        self._seen: dict[tuple[str, ...], Any] = {}

    def open(self, name: str) -> int:
        fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        return fd

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key.startswith("$"):
                return self._marked(key, inner)
        return {key: self.decode(item) for key, item in value.items()}

    def _marked(self, mark: str, inner: Any) -> Any:
        match mark:
            case "$tensor" | "$array":
                at = (mark, *inner)
                if at not in self._seen:
                    self._seen[at] = self._read(mark, *inner)
                return self._seen[at]
            case "$tuple":
                return tuple(self.decode(item) for item in inner)
            case "$dict":
                return {self.decode(key): self.decode(item) for key, item in inner}
            case "$int":
                return int(inner, 16)
            case "$float":
                return struct.unpack(">d", bytes.fromhex(inner))[0]
            case "$bytes":
                return base64.b64decode(inner, validate=True)
            case "$str":
                return base64.b64decode(inner, validate=True).decode("utf-8", "surrogatepass")
            case "$scalar":
                return np.frombuffer(bytes.fromhex(inner[1]), dtype=inner[0])[0]
        raise ValueError(f"unknown mark {mark!r}")

    def _read(self, mark: str, key: str, name: str, dtype: str | None = None) -> Any:
        if key not in self._files:
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no plain file name")
            fd = self.open(key + SUFFIX)
            entries, _ = read_header(fd, os.fstat(fd).st_size)
            self._files[key] = fd, {entry.name: entry for entry in entries}
        fd, by_name = self._files[key]
        entry = by_name[name]
        if dtype is not None and (COMPLEX_PARTS[dtype] != entry.dtype or entry.shape[-1] != 2):
            raise ValueError(f"{name!r} is no {dtype}")
        shape = entry.shape if dtype is None else entry.shape[:-1]
        value: Any
        if mark == "$tensor":
            value = torch.empty(shape, dtype=TORCH_OF[entry.dtype] if dtype is None else getattr(torch, dtype))
            target = _bytes_of_tensor(value)
        else:
            value = np.empty(shape, dtype=NUMPY_OF[entry.dtype] if dtype is None else np.dtype(dtype))
            target = _bytes_of_array(value)
        position = entry.start
        while target and (got := os.preadv(fd, [target], position)):
            position += got
            target = target[got:]
        if position != entry.end:
            raise ValueError(f"{key}{SUFFIX} ends inside {name!r}")
        return value


def _bytes_of_tensor(tensor: torch.Tensor) -> memoryview:
    """The elements in C order; the tensor's own memory where it lies so on the CPU already."""
    tensor = tensor.resolve_conj().resolve_neg().cpu().contiguous()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    # One element counts as contiguous whatever its stride, and a stride of 1 is what `view` asks for.
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data


def _bytes_of_array(array: NDArray[Any]) -> memoryview:
    plain = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return plain.reshape(-1).view(np.uint8).data


def _text(value: str) -> Any:
    # JSON would join two lone surrogates to one character.
    if _SURROGATE.search(value) is None:
        return value
    return {"$str": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}


def _object(pairs: list[tuple[Any, Any]], encode_key: Callable[[Any], Any]) -> dict[str, Any]:
    """A table as a JSON object where its keys are such text that it can be one."""
    if all(type(key) is str and not key.startswith("$") and _SURROGATE.search(key) is None for key, _ in pairs):
        return dict(pairs)
    return {"$dict": [[encode_key(key), value] for key, value in pairs]}
