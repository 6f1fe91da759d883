"""A memory for QFI matrices of states that come back. Never a source of another state's value.

It pays where the same (ρ, ∂ρ) returns often: a hit costs a pass over the bytes for the digest and one to compare them,
less than the eigenproblem, but each miss pays for a digest and two copies. benchmarks/geometry.py prints the costs.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qig_core.errors import UsageError
from qig_core.geometry.density import Matrix, adjoint, as_square, nearest_density
from qig_core.geometry.fisher import QfiResult, qfi_matrix


@dataclass(frozen=True, kw_only=True)
class CacheStatistics:
    hits: int
    misses: int
    evictions: int
    size: int
    """Entries held now."""
    size_bytes: int
    """Of the matrices and results held now."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    rho: Matrix
    drho: Matrix
    result: QfiResult

    @property
    def size_bytes(self) -> int:
        return self.rho.nbytes + self.drho.nbytes + self.result.matrix.nbytes


class CachedQFI:
    """qfi_matrix, remembering the last `maxsize` different arguments; thread-safe.

    Args:
        maxsize: entries at most; the one unused for longest goes first.
        tolerance: 0 for exact arguments. Above 0, ρ and ∂ρ are first rounded to multiples of it, ρ then made Hermitian,
            positive and of trace 1, ∂ρ Hermitian and traceless, and that state is what is evaluated: arguments that
            round alike share one value, which is exactly theirs.
        max_bytes: what the entries may take together, bytes.
        support_tol: as in qfi_matrix.

    Raises:
        UsageError: maxsize or max_bytes is under 1, or tolerance is negative or not finite.
    """

    def __init__(
        self,
        maxsize: int = 1000,
        tolerance: float = 0.0,
        *,
        max_bytes: int = 1 << 30,
        support_tol: float | None = None,
    ) -> None:
        if maxsize < 1 or max_bytes < 1:
            raise UsageError(f"maxsize is {maxsize}, max_bytes {max_bytes}: both must be at least 1")
        if not 0.0 <= tolerance < np.inf:
            raise UsageError(f"tolerance is {tolerance}: it must be 0 or more, and finite")
        self.maxsize, self.max_bytes = maxsize, max_bytes
        self.tolerance, self.support_tol = tolerance, support_tol
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = self._size_bytes = 0

    def __call__(self, rho: ArrayLike, drho: ArrayLike) -> QfiResult:
        """qfi_matrix(rho, drho), computed or remembered; its arrays are read-only. Errors as qfi_matrix."""
        state, tangents = as_square(rho, "rho"), as_square(drho, "drho")
        if self.tolerance:
            state, tangents = self._rounded(state), self._rounded(tangents)
        key = _digest(state, tangents)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        # A digest that collides is a miss: the matrices themselves are compared.
        if entry is not None and np.array_equal(entry.rho, state) and np.array_equal(entry.drho, tangents):
            with self._lock:
                self._hits += 1
            return entry.result
        result = self._evaluate(state, tangents)
        for array in (result.matrix, result.rank, result.support_tol, result.dropped):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        self._remember(key, _Entry(rho=state.copy(), drho=tangents.copy(), result=result))
        return result

    def invalidate(self) -> None:
        """Forget every entry; the statistics go on."""
        with self._lock:
            self._entries.clear()
            self._size_bytes = 0

    @property
    def statistics(self) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                size=len(self._entries),
                size_bytes=self._size_bytes,
            )

    def _rounded(self, x: Matrix) -> Matrix:
        """Multiples of the tolerance; −0 becomes 0, so that equal values have equal bytes."""
        return np.asarray(self.tolerance * np.round(x / self.tolerance) + 0.0)

    def _evaluate(self, state: Matrix, tangents: Matrix) -> QfiResult:
        if self.tolerance:
            state = np.asarray(nearest_density(state))
            tangents = 0.5 * (tangents + adjoint(tangents))
            dim = tangents.shape[-1]
            tangents = tangents - np.trace(tangents, axis1=-2, axis2=-1)[..., None, None] / dim * np.eye(dim)
        return qfi_matrix(state, tangents, support_tol=self.support_tol)

    def _remember(self, key: bytes, entry: _Entry) -> None:
        with self._lock:
            self._misses += 1
            before = self._entries.pop(key, None)
            self._entries[key] = entry
            self._size_bytes += entry.size_bytes - (before.size_bytes if before else 0)
            while len(self._entries) > self.maxsize or (self._size_bytes > self.max_bytes and self._entries):
                _, oldest = self._entries.popitem(last=False)
                self._size_bytes -= oldest.size_bytes
                self._evictions += 1


def _digest(*arrays: Matrix) -> bytes:
    """blake2b over shapes, types and bytes."""
    digest = hashlib.blake2b(digest_size=32)
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
