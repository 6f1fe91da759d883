"""The safetensors format as a stream: a header, then the bytes of each tensor. No torch, no whole-file buffer.

    8 bytes    length of the header, little-endian
    header     JSON: {"__metadata__": {str: str}, NAME: {"dtype", "shape", "data_offsets": [start, end]}, ...}, padded
               with spaces to a multiple of 8
    data       the tensors without a hole, C order, little-endian

Written here and not by the safetensors package so that a checkpoint is hashed while it is written, one tensor in memory
at a time. Tests read what this writes by that package, and the other way round.
Source: github.com/huggingface/safetensors, README "Format".
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
MAX_HEADER_BYTES = 100_000_000
"""What other readers of the format accept."""

METADATA = "__metadata__"
"""Not a tensor's name."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset in the file, not in the data part."""
    end: int


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """A tensor to be written: what the header says, and a call that gives its bytes when their turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8


class TensorFile:
    """A safetensors file to be written: its size, and its pieces in order.

    A tensor is read when its piece is asked for: it must not change until the file is written.
    """

    def __init__(self, tensors: Sequence[TensorSource], metadata: Mapping[str, str] | None = None) -> None:
        # Widest first, as the format's own writer does: every tensor is then aligned to its element.
        self._tensors = sorted(tensors, key=lambda tensor: (-BITS[tensor.dtype], tensor.name))
        header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
        end = 0
        for tensor in self._tensors:
            start, end = end, end + tensor.nbytes
            header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, end)}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._head = len(text).to_bytes(8, "little") + text
        self.nbytes = len(self._head) + end

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._head
        for tensor in self._tensors:
            piece = tensor.read()
            assert piece.nbytes == tensor.nbytes, tensor.name
            if piece.nbytes:
                yield piece


def read_header(fd: int, size: int) -> tuple[list[TensorEntry], dict[str, str]]:
    """The tensors of an open safetensors file in the order of their bytes, and its metadata.

    Args:
        size: of the file, in bytes.

    Raises:
        ValueError: not safetensors; the message says in what. Nothing is trusted before it is checked: the tensors
            cover the file from the header to its end, without hole or overlap.
        OSError: the disk does not give it.
    """
    head = os.pread(fd, 8, 0)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"a header of {length} bytes does not fit into {size} bytes")
    text = _pread_all(fd, length, 8)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{METADATA} is not a table of text")
    entries = sorted((_entry(name, row, 8 + length) for name, row in header.items()), key=lambda e: (e.start, e.end))
    position = 8 + length
    for entry in entries:
        if entry.start != position:
            raise ValueError(f"tensor {entry.name!r} starts at byte {entry.start}, not at {position}")
        position = entry.end
    if position != size:
        raise ValueError(f"the tensors end at byte {position} of {size}")
    return entries, metadata


def _entry(name: str, row: object, data: int) -> TensorEntry:
    match row:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]} if dtype in BITS and all(
            type(n) is int and n >= 0 for n in shape
        ):
            if not 0 <= start <= end or end - start != math.prod(shape) * BITS[dtype] // 8:
                raise ValueError(f"tensor {name!r}: offsets {start}..{end} do not fit {dtype} {shape}")
            return TensorEntry(name=name, dtype=dtype, shape=tuple(shape), start=data + start, end=data + end)
    raise ValueError(f"tensor {name!r} has no known type, shape and offsets")


def _pread_all(fd: int, length: int, offset: int) -> bytes:
    parts = []
    while length and (part := os.pread(fd, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)
