"""The quantum Fisher information: SLD, QFI matrices, and the metric by blocks where a state has blocks.

Everything is taken from one eigendecomposition of the Hermitian state. Structure is found, never invented: no entry is
dropped for being small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csgraph

from qig_core.errors import DensityError
from qig_core.geometry.density import (
    TOLERANCE,
    Matrix,
    adjoint,
    as_hermitian,
    as_square,
    as_state,
    check_positive,
    check_trace,
    largest_entry,
)
from qig_core.geometry.simplex import FloatArray

Indices: TypeAlias = NDArray[np.intp]
AnyMatrix: TypeAlias = Any
"""A dense array or a scipy.sparse matrix, [d, d]."""

_EPS = float(np.finfo(np.float64).eps)
_LEAST = 1e-7  # times TOLERANCE: what a state's rounding leaves in its derivative, however small that is
_SIGN_BIT = np.uint64(1 << 63)


@dataclass(frozen=True, kw_only=True)
class QfiResult:
    """A quantum Fisher information matrix and what it was computed on."""

    matrix: FloatArray
    """[..., m, m], symmetric, positive semidefinite; unit 1/(θ_i θ_j)."""
    rank: NDArray[np.intp]
    """[...], eigenvalues of ρ above support_tol."""
    support_tol: FloatArray
    """[...], pairs with λ_k + λ_l at or under it were left out."""
    dropped: FloatArray
    """[..., m], Σ |⟨k|∂_iρ|l⟩|² over the pairs left out. Above rounding, θ_i changes the rank of ρ, and F is
    discontinuous there (Šafránek 2017): qfi_bures is the other form."""


def sld(rho: ArrayLike, drho: ArrayLike, *, support_tol: float | None = None) -> Matrix:
    """The symmetric logarithmic derivatives L_i with ∂_iρ = (L_i ρ + ρ L_i)/2: 2⟨k|∂_iρ|l⟩/(λ_k + λ_l) on the support.

    Args:
        rho, drho, support_tol: as in qfi_matrix.

    Returns:
        [..., m, d, d], Hermitian; 0 between eigenvectors outside the support, where L is not determined.

    Raises:
        DensityError: as qfi_matrix.

    Source: Helstrom 1967; Braunstein & Caves 1994.
    """
    state = as_state(rho)
    values, vectors = _spectrum(state)
    pairs = values[..., :, None] + values[..., None, :]
    kept = pairs > _support(values, support_tol)[..., None, None]
    weights = np.divide(2.0, pairs, out=np.zeros_like(pairs), where=kept)
    v = vectors[..., None, :, :]
    elements = _elements(v, _tangents(drho, state))
    return np.asarray(v @ (weights[..., None, :, :] * elements) @ adjoint(v))


def qfi_matrix(rho: ArrayLike, drho: ArrayLike, *, support_tol: float | None = None) -> QfiResult:
    """F_ij = 2 Σ_{k,l: λ_k + λ_l > 0} Re(⟨k|∂_iρ|l⟩⟨l|∂_jρ|k⟩)/(λ_k + λ_l).

    Args:
        rho: [..., d, d] states.
        drho: [..., m, d, d], ∂ρ/∂θ_i: Hermitian and traceless within 1e-8 of their largest entry.
        support_tol: pairs with λ_k + λ_l ≤ support_tol are left out; None for d ε λ_max, which is rounding.

    Returns:
        QfiResult; 4 times the Bures metric wherever the rank of ρ does not change.

    Raises:
        DensityError: rho is no density matrix, or drho no derivative of one.

    Source: Braunstein & Caves 1994; Paris 2009; Liu, Yuan, Lu & Wang 2020.
    """
    state = as_state(rho)
    tangents = _tangents(drho, state)
    values, vectors = _spectrum(state)
    tol = _support(values, support_tol)
    weighted, dropped = _weighted(values[..., None, :], vectors[..., None, :, :], tangents, tol[..., None])
    rank = (values > tol[..., None]).sum(axis=-1)
    return QfiResult(matrix=_real_gram(weighted), rank=rank, support_tol=tol, dropped=dropped)


def qfi_bures(rho: ArrayLike, drho: ArrayLike, d2rho: ArrayLike, *, support_tol: float | None = None) -> FloatArray:
    """4 times the Bures metric: qfi_matrix + 2 Σ_{λ_k = 0} ∂_i∂_jλ_k, continuous where the rank of ρ changes.

    Σ ∂_i∂_jλ_k over the kernel (projector P) = Tr P ∂_i∂_jρ − 2 Re Tr(P ∂_iρ ρ⁺ ∂_jρ P).

    Args:
        rho, drho, support_tol: as in qfi_matrix; eigenvalues at or under support_tol count as 0.
        d2rho: [..., m, m, d, d], ∂²ρ/∂θ_i∂θ_j, Hermitian.

    Returns:
        [..., m, m].

    Raises:
        DensityError: as qfi_matrix, or d2rho has another shape.

    Source: Šafránek 2017; the sum by second-order perturbation theory.
    """
    state = as_state(rho)
    tangents = _tangents(drho, state)
    second = as_hermitian(d2rho, "d2rho")
    expected = (*tangents.shape[:-2], *tangents.shape[-3:])
    if second.shape != expected:
        raise DensityError(f"d2rho has shape {second.shape}, {expected} belongs to drho")
    if largest_entry(second - second.swapaxes(-3, -4)) > TOLERANCE * largest_entry(second):
        raise DensityError("d2rho differs when i and j change places: second derivatives do not")
    values, vectors = _spectrum(state)
    tol = _support(values, support_tol)
    v = vectors[..., None, :, :]
    weighted, _ = _weighted(values[..., None, :], v, tangents, tol[..., None])
    kernel = values <= tol[..., None]
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=~kernel)
    # From the support (rows) into the kernel (columns).
    leaving = _elements(v, tangents) * np.sqrt(inverse)[..., None, :, None] * kernel[..., None, None, :]
    projector = (vectors * kernel[..., None, :]) @ adjoint(vectors)
    curvature = np.einsum("...ijab,...ba->...ij", second, projector).real
    return np.asarray(_real_gram(weighted) + 2.0 * curvature - 4.0 * _real_gram(leaving))


def qfi_pure(psi: ArrayLike, dpsi: ArrayLike) -> FloatArray:
    """F_ij = 4 Re(⟨∂_iψ|∂_jψ⟩ − ⟨∂_iψ|ψ⟩⟨ψ|∂_jψ⟩), evaluated on ∂_iψ − ψ⟨ψ|∂_iψ⟩: a phase of ψ changes nothing.

    Args:
        psi: [..., d], norm 1 within 1e-8.
        dpsi: [..., m, d].

    Returns:
        [..., m, m].

    Raises:
        DensityError: psi is not normalised, the sizes differ or something is not finite.

    Source: Braunstein & Caves 1994.
    """
    state, slopes = (np.asarray(x, dtype=np.complex128) for x in (psi, dpsi))
    if state.ndim < 1 or slopes.ndim < 2 or slopes.shape[-1] != state.shape[-1]:
        raise DensityError(f"psi has shape {state.shape}, dpsi {slopes.shape}: [..., d] and [..., m, d] are needed")
    if slopes.shape[:-2] != state.shape[:-1]:
        raise DensityError(f"psi has the leading axes {state.shape[:-1]}, dpsi {slopes.shape[:-2]}: they must be equal")
    off = np.abs(np.linalg.norm(state, axis=-1) - 1.0).max(initial=0.0)
    if not off <= TOLERANCE:
        raise DensityError(f"psi has a norm off by {off:.3g} from 1 (limit 1e-8)")
    if not np.isfinite(slopes).all():
        raise DensityError("dpsi holds a value that is not finite")
    along = np.einsum("...d,...md->...m", state.conj(), slopes)
    return 4.0 * _real_gram((slopes - along[..., None] * state[..., None, :])[..., None, :])


def qfi_unitary(rho: ArrayLike, generators: ArrayLike, *, support_tol: float | None = None) -> FloatArray:
    """F_ij of ρ(θ) = U ρ U†, ∂_iU = −i H_i U: 2 Σ (λ_k − λ_l)²/(λ_k + λ_l) Re(⟨k|H_i|l⟩⟨l|H_j|k⟩).

    Args:
        rho: [..., d, d] states.
        generators: [..., m, d, d], Hermitian.
        support_tol: as in qfi_matrix.

    Returns:
        [..., m, m]; F_ii ≤ 4 Var(H_i), equal for pure states.

    Raises:
        DensityError: rho is no density matrix or a generator is not Hermitian.

    Source: Paris 2009.
    """
    state = as_state(rho)
    values, vectors = _spectrum(state)
    hamiltonians = as_hermitian(generators, "generators")
    _same_dimension(state, hamiltonians, "generators")
    tol = _support(values, support_tol)
    pairs = values[..., :, None] + values[..., None, :]
    scale = np.sqrt(np.divide(2.0, pairs, out=np.zeros_like(pairs), where=pairs > tol[..., None, None]))
    scale *= values[..., :, None] - values[..., None, :]
    return _real_gram(_elements(vectors[..., None, :, :], hamiltonians) * scale[..., None, :, :])


@dataclass(frozen=True, kw_only=True)
class BlockStructure:
    """Which basis states a state and its derivatives connect: the connected components of their joint pattern."""

    dim: int
    groups: tuple[Indices, ...]
    """[count, size] each: the indices of `count` blocks of one size; sizes ascend."""
    sparsity: float
    """Share of the entries of the joint pattern that are 0, in [0, 1)."""

    def __post_init__(self) -> None:
        members = np.concatenate([group.ravel() for group in self.groups])
        if not np.array_equal(np.sort(members), np.arange(self.dim)):
            raise DensityError(f"the blocks must hold every index of 0 .. {self.dim - 1} once")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of every block, ascending."""
        return tuple(group.shape[1] for group in self.groups for _ in group)

    @cached_property
    def labels(self) -> Indices:
        """[d], the block of each index, counted through the groups."""
        labels = np.empty(self.dim, dtype=np.intp)
        begin = 0
        for group in self.groups:
            labels[group] = np.arange(begin, begin + len(group))[:, None]
            begin += len(group)
        return labels

    @cached_property
    def outside(self) -> NDArray[np.bool]:
        """[d, d], True between two blocks."""
        return np.asarray(self.labels[:, None] != self.labels)

    def holds(self, pattern: AnyMatrix) -> bool:
        """Whether no entry of a pattern, dense or scipy.sparse, lies between two blocks."""
        if isinstance(pattern, np.ndarray):
            return not np.any(pattern & self.outside)
        entries = pattern.tocoo()
        return not np.any(self.labels[entries.row] != self.labels[entries.col])


def find_blocks(pattern: AnyMatrix) -> BlockStructure:
    """The connected components of a pattern [d, d], dense or scipy.sparse; an entry other than 0 connects."""
    dim = pattern.shape[0]
    if isinstance(pattern, np.ndarray) and pattern[0].all():  # everybody knows the first: no graph is needed
        return BlockStructure(
            dim=dim, groups=(np.arange(dim)[None],), sparsity=1.0 - np.count_nonzero(pattern) / dim**2
        )
    graph = sparse.csr_array(pattern)
    count, labels = csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(labels, minlength=count)
    blocks = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    groups = tuple(np.array([b for b in blocks if len(b) == size]) for size in sorted(set(sizes.tolist())))
    return BlockStructure(dim=dim, groups=groups, sparsity=1.0 - graph.nnz / dim**2)


class SparseFisherMetric:
    """The QFI metric at one state, block by block where the state and its derivatives have blocks; exact.

    Args:
        rho: [d, d] state, dense or scipy.sparse.
        drho: [m, d, d], or m matrices of scipy.sparse.
        structure: of an earlier metric. Reused if nothing here reaches outside its blocks, else found anew: a wrong one
            costs time, never the result.
        support_tol: as in qfi_matrix.

    Raises:
        DensityError: as qfi_matrix.

    An unstructured pattern, be it 90 % sparse, is a single component: there is nothing to gain, and the dense path
    runs. Entries are compared with 0 exactly; none is cut for being small.
    """

    structure: BlockStructure
    path: str
    """blocks, or dense where the pattern is connected."""
    reused: bool
    """Whether the structure that was given served."""
    matrix: FloatArray
    """[m, m], the QFI matrix of the derivatives given."""
    rank: int
    support_tol: float

    def __init__(
        self,
        rho: AnyMatrix,
        drho: AnyMatrix | Sequence[AnyMatrix],
        *,
        structure: BlockStructure | None = None,
        support_tol: float | None = None,
    ) -> None:
        if sparse.issparse(drho):
            raise DensityError("drho is one matrix: a sequence of them is needed, [drho] for one")
        if not len(drho):
            raise DensityError("drho is empty: the blocks are those of a state and its derivatives")
        pattern = _union(_pattern([rho]), _pattern(drho))
        dim = pattern.shape[0]
        self.reused = structure is not None and structure.dim == dim and structure.holds(pattern)
        self.structure = structure if structure is not None and self.reused else find_blocks(pattern)
        self.path = "blocks" if len(self.structure.sizes) > 1 else "dense"
        states = [as_hermitian(block[0], "rho", least=1.0) for block in self._gather([rho])]
        traces = [np.trace(block, axis1=-2, axis2=-1).real for block in states]
        total = np.asarray(sum(float(trace.sum()) for trace in traces))
        check_trace(total, "rho")
        self._spectra = [_spectrum(block / total) for block in states]
        spectrum = np.concatenate([values.ravel() for values, _ in self._spectra])
        tol = _support(np.sort(spectrum), support_tol)
        self.rank, self.support_tol = int(np.sum(spectrum > tol)), float(tol)
        self.matrix = self._metric(drho)

    def inner(self, x: AnyMatrix, y: AnyMatrix) -> float:
        """The inner product 2 Σ Re(⟨k|x|l⟩⟨l|y|k⟩)/(λ_k + λ_l) of two tangent vectors.

        Args:
            x, y: [d, d], Hermitian and traceless, dense or scipy.sparse; they may reach outside the blocks, then the
                eigenvectors of all blocks together serve.

        Raises:
            DensityError: x or y is not Hermitian or not traceless.
        """
        pair = [x, y]
        if self.structure.holds(_pattern(pair)):
            return float(self._metric(pair)[0, 1])
        stack = np.stack([z.toarray() if sparse.issparse(z) else np.asarray(z) for z in pair])
        values, vectors = self._whole_spectrum
        weighted, _ = _weighted(values, vectors, _tangents(stack, stack[0]), np.asarray(self.support_tol))
        return float(_real_gram(weighted)[0, 1])

    def length(self, x: AnyMatrix) -> float:
        """√⟨x, x⟩ of a tangent vector: twice the Bures length of the step x."""
        return float(np.sqrt(self.inner(x, x)))

    def _metric(self, tangents: AnyMatrix | Sequence[AnyMatrix]) -> FloatArray:
        """[m, m] of m tangents inside the blocks: each group of blocks adds its own."""
        blocks = [as_hermitian(block, "drho", _LEAST) for block in self._gather(tangents)]
        traces = [np.trace(block, axis1=-2, axis2=-1).real.sum(axis=-1) for block in blocks]
        _check_traceless(np.asarray(sum(traces)), blocks)
        tol = np.asarray(self.support_tol)
        weighted = (_weighted(*own, block, tol)[0] for own, block in zip(self._spectra, blocks, strict=True))
        return np.asarray(sum(_real_gram(x.reshape(len(x), 1, -1)) for x in weighted))

    def _gather(self, matrices: AnyMatrix | Sequence[AnyMatrix]) -> list[Matrix]:
        """The blocks of m matrices, [m, count, size, size] for each group."""
        groups = self.structure.groups
        if not _any_sparse(matrices):
            stack = as_square(np.asarray(matrices), "a matrix")
            if self.path == "dense":
                return [stack[:, None]]
            flat = stack.reshape(len(stack), -1)
            places = (group[:, :, None] * self.structure.dim + group[:, None, :] for group in groups)
            return [flat.take(place, axis=1) for place in places]
        labels, place = self.structure.labels, np.empty(self.structure.dim, dtype=np.intp)
        for group in groups:
            place[group] = np.arange(group.shape[1])
        entries = [sparse.coo_array(matrix) for matrix in matrices]
        dtype = np.result_type(np.float64, *(each.dtype for each in entries))
        blocks, begin = [], 0
        for group in groups:
            count, size = group.shape
            block = np.zeros((len(entries), count, size, size), dtype=dtype)
            for mine, each in zip(block, entries, strict=True):
                label = labels[each.row] - begin
                here = (label >= 0) & (label < count)
                np.add.at(mine, (label[here], place[each.row[here]], place[each.col[here]]), each.data[here])
            blocks.append(block)
            begin += count
        return blocks

    @cached_property
    def _whole_spectrum(self) -> tuple[FloatArray, Matrix]:
        """Eigenvalues [d] and eigenvectors [d, d] of the whole state, put together from the blocks, in their order."""
        dim = self.structure.dim
        values = np.empty(dim)
        vectors = np.zeros((dim, dim), dtype=np.result_type(*(vectors for _, vectors in self._spectra)))
        for group, (mine, theirs) in zip(self.structure.groups, self._spectra, strict=True):
            values[group] = mine
            vectors[group[:, :, None], group[:, None, :]] = theirs
        return values, vectors


def _pattern(matrices: AnyMatrix | Sequence[AnyMatrix]) -> AnyMatrix:
    """Where any of m matrices is not 0, [d, d] of bool, dense or sparse as they are."""
    if _any_sparse(matrices):
        pattern = sum(abs(sparse.csr_array(matrix)) for matrix in matrices).astype(bool)
        pattern.eliminate_zeros()
        return pattern
    stack = as_square(np.ascontiguousarray(matrices), "a matrix")
    bits = np.bitwise_or.reduce(stack.view(np.uint64), axis=0)
    if np.iscomplexobj(stack):
        bits = bits[:, 0::2] | bits[:, 1::2]
    return (bits & ~_SIGN_BIT) != 0  # −0.0 is 0


def _union(a: AnyMatrix, b: AnyMatrix) -> AnyMatrix:
    """Of two patterns; sparse if one is."""
    if a.shape != b.shape:
        raise DensityError(f"rho has dimension {a.shape[0]}, drho {b.shape[0]}")
    both_dense = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return a | b if both_dense else sparse.csr_array(a) + sparse.csr_array(b)


def _any_sparse(matrices: AnyMatrix | Sequence[AnyMatrix]) -> bool:
    return not isinstance(matrices, np.ndarray) and any(sparse.issparse(matrix) for matrix in matrices)


def _spectrum(state: Matrix) -> tuple[FloatArray, Matrix]:
    """Eigenvalues, not below 0, and eigenvectors."""
    values, vectors = np.linalg.eigh(state)
    check_positive(values, "rho")
    return np.maximum(values, 0.0), vectors


def _support(values: FloatArray, support_tol: float | None) -> FloatArray:
    """[...]: what λ_k + λ_l must exceed; values [..., d] ascend."""
    if support_tol is None:
        return np.asarray(values.shape[-1] * _EPS * values[..., -1])
    if not support_tol >= 0.0:
        raise DensityError(f"support_tol is {support_tol}: it must be 0 or more")
    return np.full(values.shape[:-1], support_tol)


def _tangents(drho: ArrayLike, state: Matrix) -> Matrix:
    tangents = as_square(drho, "drho")
    if tangents.ndim != state.ndim + 1 or tangents.shape[:-3] != state.shape[:-2]:
        raise DensityError(f"drho has shape {tangents.shape}: one more axis than rho's {state.shape} is needed")
    _same_dimension(state, tangents, "drho")
    as_hermitian(tangents, "drho", _LEAST)
    _check_traceless(tangents.trace(axis1=-2, axis2=-1).real, [tangents])
    return tangents


def _check_traceless(trace: FloatArray, tangents: Sequence[Matrix]) -> None:
    off = float(np.abs(trace).max(initial=0.0))
    if off > TOLERANCE * _LEAST and off > TOLERANCE * max(largest_entry(each) for each in tangents):
        raise DensityError(f"drho has trace {off:.3g}: the trace of a state is 1 for every θ, so its derivative is 0")


def _same_dimension(state: Matrix, other: Matrix, name: str) -> None:
    if state.shape[-1] != other.shape[-1]:
        raise DensityError(f"rho has dimension {state.shape[-1]}, {name} {other.shape[-1]}")


def _elements(vectors: Matrix, tangents: Matrix) -> Matrix:
    """⟨k|∂_iρ|l⟩, [..., m, d, d]."""
    dim = vectors.shape[-1]
    if vectors.size == dim * dim:  # one basis for all: one tall product instead of m small ones
        right = (tangents.reshape(-1, dim) @ vectors.reshape(dim, dim)).reshape(tangents.shape)
    else:
        right = tangents @ vectors
    return np.asarray(adjoint(vectors) @ right)


def _weighted(values: FloatArray, vectors: Matrix, tangents: Matrix, tol: FloatArray) -> tuple[Matrix, FloatArray]:
    """⟨k|∂_iρ|l⟩ √(2/(λ_k + λ_l)), 0 for the pairs left out, and Σ |⟨k|∂_iρ|l⟩|² over these; all broadcast."""
    pairs = values[..., :, None] + values[..., None, :]
    elements = _elements(vectors, tangents)
    if (2.0 * values.min(axis=-1) > tol).all():  # the smallest pair of all
        scale = np.sqrt(2.0 / pairs)
        dropped = np.zeros(elements.shape[:-2])
    else:
        kept = pairs > tol[..., None, None]
        scale = np.sqrt(np.divide(2.0, pairs, out=np.zeros_like(pairs), where=kept))
        dropped = np.where(kept, 0.0, np.square(np.abs(elements))).sum(axis=(-2, -1))
    if np.iscomplexobj(elements):
        parts = elements.view(np.float64)
        parts *= np.repeat(scale, 2, axis=-1)
    else:
        elements *= scale
    return elements, dropped


def _real_gram(x: Matrix) -> FloatArray:
    """Re Σ_kl x_i,kl conj(x_j,kl), [..., m, m] of x [..., m, k, l]."""
    parts = np.ascontiguousarray(x).view(np.float64)
    rows = parts.reshape(*x.shape[:-2], math.prod(parts.shape[-2:]))
    return np.asarray(rows @ rows.swapaxes(-1, -2))
