"""How far two tensors of one type and shape lie apart, chunk by chunk. No torch; memory for a few chunks, no disk.

    |A|, |B|          Frobenius norms, accumulated in float64
    |A - B| / |A|     the relative change
    max |A - B|       the largest change of one element; of a complex tensor, of one part

Floating-point tensors only; of integers, booleans and 8-bit floats the elements that differ are counted.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qig_core.checkpoints.stored import StoredTensor

CHUNK = 2 << 20
"""Bytes of each tensor in memory at a time; a multiple of every element."""

_BIG, _SMALL = 1e290, 1e-280
"""A sum of squares between them has lost nothing to the ends of float64's range."""


def _bfloat16(piece: memoryview) -> NDArray[np.float64]:
    wide = np.frombuffer(piece, dtype="<u2").astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32).astype(np.float64)


_FLOATS: dict[str, Callable[[memoryview], NDArray[np.float64]]] = {
    "BF16": _bfloat16,
    "F16": lambda piece: np.frombuffer(piece, dtype="<f2").astype(np.float64),
    "F32": lambda piece: np.frombuffer(piece, dtype="<f4").astype(np.float64),
    "F64": lambda piece: np.frombuffer(piece, dtype="<f8"),
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What reading both tensors has shown."""

    elements: int
    differing: int
    """Elements whose bits differ: 0.0 and -0.0 do."""
    norm_a: float | None = None
    norm_b: float | None = None
    relative_change: float | None = None
    max_abs_change: float | None = None
    reason: str | None = None
    """Why there is no relative change; None where there is one."""

    @property
    def equal(self) -> bool:
        return self.differing == 0


def measure(a: StoredTensor, b: StoredTensor) -> Generator[int, None, Change]:
    """Compare two tensors of one type and shape; yields the bytes read of both as it goes.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    assert (a.dtype, a.shape, a.nbytes) == (b.dtype, b.shape, b.nbytes)
    elements = math.prod(a.shape)
    width = a.nbytes // elements if elements else 1
    convert = _FLOATS.get(a.dtype)
    sums = _Sums()
    differing = offset = 0
    size = min(CHUNK, a.nbytes)
    buffers = memoryview(bytearray(size)), memoryview(bytearray(size))
    while offset < a.nbytes:
        left, right = (buffer[: a.nbytes - offset] for buffer in buffers)
        a.read(left, offset)
        b.read(right, offset)
        here = _differing(left, right, width)
        differing += here
        if convert is not None:
            first = convert(left)
            sums.add(first, convert(right) if here else first)
        offset += len(left)
        yield 2 * len(left)
    if convert is None:
        reason = "of this type elements are counted"
        return Change(elements=elements, differing=differing, reason=reason)
    return sums.change(elements, differing)


def _differing(a: memoryview, b: memoryview, width: int) -> int:
    word = {2: np.uint16, 4: np.uint32, 8: np.uint64}.get(width, np.uint8)
    x: NDArray[Any] = np.frombuffer(a, dtype=word)
    unequal = x != np.frombuffer(b, dtype=word)
    if width > x.itemsize:  # elements wider than any word
        unequal = unequal.reshape(-1, width).any(axis=1)
    return int(np.count_nonzero(unequal))


class _Sums:
    """The norms so far, by hypot: squares of large or small numbers leave the range of float64."""

    def __init__(self) -> None:
        self._norms = [0.0, 0.0]
        self._finite = [True, True]
        self._change = self._largest = 0.0

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Add a chunk of both; the same array where the chunks are equal."""
        with np.errstate(all="ignore"):
            norms = [_norm(a)] if b is a else [_norm(a), _norm(b)]
            for side, (norm, finite) in enumerate((norms * 2)[:2]):
                self._norms[side] = math.hypot(self._norms[side], norm)
                self._finite[side] &= finite
            if b is not a:
                apart = np.subtract(a, b)
                self._change = math.hypot(self._change, _norm(apart)[0])
                self._largest = max(self._largest, float(np.abs(apart, out=apart).max()))

    def change(self, elements: int, differing: int) -> Change:
        norm_a, norm_b = self._norms
        relative = self._change / norm_a if norm_a else math.inf
        reason = None
        if not all(self._finite):
            where = "A and B hold" if not any(self._finite) else "A holds" if self._finite[1] else "B holds"
            reason = f"{where} values that are not finite"
        elif norm_a == 0.0:
            reason = "|A| is 0"
        elif not all(map(math.isfinite, (norm_a, norm_b, relative))):
            reason = "beyond the range of float64"
        return Change(
            elements=elements,
            differing=differing,
            norm_a=norm_a if self._finite[0] and math.isfinite(norm_a) else None,
            norm_b=norm_b if self._finite[1] and math.isfinite(norm_b) else None,
            relative_change=relative if reason is None else None,
            max_abs_change=self._largest if all(self._finite) and math.isfinite(self._largest) else None,
            reason=reason,
        )


def _norm(x: NDArray[np.float64]) -> tuple[float, bool]:
    """sqrt(sum x²), right over the whole range of float64, and whether every element is finite."""
    square = float(np.dot(x, x))
    if _SMALL < square < _BIG:
        return math.sqrt(square), True
    largest = float(np.abs(x).max())
    if largest == 0.0 or not math.isfinite(largest):
        return largest, largest == 0.0
    scaled = x / largest
    return largest * math.sqrt(float(np.dot(scaled, scaled))), True
