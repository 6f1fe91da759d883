"""The metric by blocks: always the dense result, whatever structure there is, was given, or is missing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qig_core.errors import DensityError
from qig_core.geometry.density import Matrix
from qig_core.geometry.fisher import BlockStructure, SparseFisherMetric, find_blocks, qfi_matrix, sld
from tests.geometry.strategies import random_state, random_tangents

SEEDS = st.integers(0, 2**32 - 1)


def block_family(
    rng: np.random.Generator, sizes: list[int], count: int = 3, shuffle: bool = True
) -> tuple[Matrix, Matrix]:
    """A state of those blocks and derivatives that stay inside, under one permutation of the basis."""
    dim = sum(sizes)
    rho, drho = np.zeros((dim, dim), dtype=complex), np.zeros((count, dim, dim), dtype=complex)
    begin = 0
    for size in sizes:
        here = slice(begin, begin + size)
        rho[here, here] = random_state(rng, size) * size / dim
        drho[:, here, here] = random_tangents(rng, count, size)
        begin += size
    order = rng.permutation(dim) if shuffle else np.arange(dim)
    return rho[np.ix_(order, order)], drho[:, order][:, :, order]


@given(SEEDS, st.lists(st.integers(1, 6), min_size=1, max_size=5))
@settings(max_examples=60)
def test_blocks_under_any_permutation_give_the_dense_result(seed: int, sizes: list[int]) -> None:
    rho, drho = block_family(np.random.default_rng(seed), sizes, count=3)
    dense = qfi_matrix(rho, drho)
    for given_rho, given_drho in ((rho, drho), (sparse.csr_array(rho), [sparse.coo_array(x) for x in drho])):
        metric = SparseFisherMetric(given_rho, given_drho)
        scale = max(1.0, float(np.abs(dense.matrix).max()))
        np.testing.assert_allclose(metric.matrix, dense.matrix, rtol=0, atol=1e-10 * scale)
        assert metric.rank == dense.rank
        assert metric.structure.sizes == tuple(sorted(sizes))
        assert metric.path == ("blocks" if len(sizes) > 1 else "dense")
        assert metric.structure.sparsity == pytest.approx(1.0 - sum(s * s for s in sizes) / sum(sizes) ** 2)


def test_a_derivative_joins_the_blocks_that_it_connects() -> None:
    rng = np.random.default_rng(0)
    rho, drho = block_family(rng, [2, 3, 3], shuffle=False)
    drho[1, 0, 2] = drho[1, 2, 0] = 1e-300
    metric = SparseFisherMetric(rho, drho)
    assert metric.structure.sizes == (3, 5)
    np.testing.assert_allclose(metric.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-10)


def test_random_sparsity_without_structure_takes_the_dense_path() -> None:
    rng = np.random.default_rng(1)
    rho = np.eye(40) / 40 + 0j
    mask = np.triu(rng.random((40, 40)) < 0.1, 1)
    drho = random_tangents(rng, 2, 40) * (mask | mask.T)
    metric = SparseFisherMetric(rho, drho)
    assert metric.path == "dense"
    assert metric.structure.sparsity > 0.8
    np.testing.assert_allclose(metric.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-12)


def test_a_structure_serves_again_and_a_wrong_one_costs_nothing_but_time() -> None:
    rng = np.random.default_rng(2)
    first = SparseFisherMetric(*block_family(rng, [4, 4, 2], shuffle=False))
    rho, drho = block_family(rng, [4, 4, 2], shuffle=False)
    again = SparseFisherMetric(rho, drho, structure=first.structure)
    assert again.reused
    assert again.structure is first.structure
    np.testing.assert_allclose(again.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-10)
    for sizes in ([2, 4, 4], [10], [3, 3]):
        rho, drho = block_family(rng, sizes, shuffle=False)
        for made in ((rho, drho), (sparse.csr_array(rho), [sparse.csr_array(x) for x in drho])):
            other = SparseFisherMetric(*made, structure=first.structure)
            assert not other.reused
            np.testing.assert_allclose(other.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-9)


def test_a_coarser_structure_is_reused_and_still_exact() -> None:
    rng = np.random.default_rng(3)
    coarse = find_blocks(np.kron(np.eye(2), np.ones((4, 4))))
    rho, drho = block_family(rng, [2, 2, 4], shuffle=False)
    metric = SparseFisherMetric(rho, drho, structure=coarse)
    assert metric.reused
    np.testing.assert_allclose(metric.matrix, qfi_matrix(rho, drho).matrix, rtol=1e-10)


def test_negative_zeros_connect_nothing() -> None:
    rho, drho = block_family(np.random.default_rng(4), [2, 2], shuffle=False)
    drho[0, 0, 3] = complex(-0.0, -0.0)
    assert SparseFisherMetric(rho, drho).structure.sizes == (2, 2)
    stored = sparse.coo_array(
        (np.r_[drho[0][drho[0] != 0], 0.0], (*(np.r_[x, y] for x, y in zip(np.nonzero(drho[0]), (0, 3), strict=True)),))
    )
    assert SparseFisherMetric(sparse.csr_array(rho), [stored]).structure.sizes == (2, 2)


def test_rank_deficient_blocks_share_one_support() -> None:
    """Blocks of zeros, and one whose weight is rounding beside the other: the cutoff is that of the whole state."""
    rho = np.zeros((5, 5))
    rho[:2, :2] = [[0.6, 0.2], [0.2, 0.4]]
    rho[2, 2] = 1e-17
    drho = np.zeros((1, 5, 5))
    drho[0, :2, :2] = [[0.1, 0.3], [0.3, -0.1]]
    metric, dense = SparseFisherMetric(rho, drho), qfi_matrix(rho, drho)
    np.testing.assert_allclose(metric.matrix, dense.matrix, rtol=1e-12)
    assert metric.rank == dense.rank == 2
    assert metric.support_tol == pytest.approx(float(dense.support_tol))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.coo_matrix])
def test_lengths_and_inner_products_are_those_of_the_slds(form: type) -> None:
    """⟨x, y⟩ = Re Tr(ρ L_x L_y) symmetrised = Re Tr(L_x y), inside the blocks and across them."""
    rng = np.random.default_rng(5)
    rho, drho = block_family(rng, [3, 2, 3], count=2, shuffle=False)
    metric = SparseFisherMetric(form(rho), [form(x) for x in drho])
    across = random_tangents(rng, 2, 8)
    for x, y in ((drho[0], drho[1]), (across[0], across[1]), (drho[0], across[1])):
        expected = float(np.trace(sld(rho, [x])[0] @ y).real)
        assert metric.inner(form(x), form(y)) == pytest.approx(expected, rel=1e-9)
    assert metric.length(form(drho[0])) == pytest.approx(float(np.sqrt(metric.matrix[0, 0])), rel=1e-12)
    assert metric.inner(form(drho[0]), form(drho[1])) == pytest.approx(float(metric.matrix[0, 1]), rel=1e-10)


def test_tangents_across_blocks_leave_out_the_same_pairs_as_the_dense_form() -> None:
    """The eigenvalue 0 stands in the last block, so that the eigenvalues of all blocks together do not ascend."""
    rng = np.random.default_rng(7)
    rho = np.zeros((5, 5), dtype=complex)
    rho[:2, :2], rho[2:, 2:] = 0.5 * random_state(rng, 2), 0.5 * random_state(rng, 3, 1)
    across = random_tangents(rng, 2, 5)
    metric = SparseFisherMetric(rho, [1j * (rho @ x - x @ rho) * (rho != 0) for x in across])
    assert metric.rank == 3
    expected = qfi_matrix(rho, across).matrix
    found = [[metric.inner(x, y) for y in across] for x in across]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_is_no_family_of_states_is_refused_by_blocks_too() -> None:
    rho, drho = block_family(np.random.default_rng(6), [2, 2], shuffle=False)
    with pytest.raises(DensityError, match="rho has trace 2"):
        SparseFisherMetric(2.0 * rho, drho)
    with pytest.raises(DensityError, match="drho is not Hermitian"):
        SparseFisherMetric(rho, drho * 1j)
    with pytest.raises(DensityError, match="not positive semidefinite"):
        SparseFisherMetric(np.diag([1.5, -0.5, 0.0, 0.0]), drho)
    with pytest.raises(DensityError, match="rho has dimension 4, drho 3"):
        SparseFisherMetric(rho, np.zeros((1, 3, 3)))
    with pytest.raises(DensityError, match="drho has trace 4"):
        SparseFisherMetric(rho, np.eye(4)[None])
    with pytest.raises(DensityError, match="drho has trace 4"):
        SparseFisherMetric(rho, drho).inner(np.ones((4, 4)), drho[0])
    with pytest.raises(DensityError, match="drho is one matrix"):
        SparseFisherMetric(rho, sparse.csr_array(drho[0]))
    with pytest.raises(DensityError, match=r"every index of 0 \.\. 3 once"):
        BlockStructure(dim=4, groups=(np.array([[0, 1]]),), sparsity=0.5)
    for none in ([], np.zeros((0, 4, 4))):
        with pytest.raises(DensityError, match="drho is empty"):
            SparseFisherMetric(rho, none)
    with pytest.raises(DensityError, match="not finite"):
        SparseFisherMetric(np.full((4, 4), np.nan), drho)


def test_a_trace_may_move_between_blocks() -> None:
    rho = np.diag([0.3, 0.7])
    move = np.diag([1.0, -1.0])[None]
    metric = SparseFisherMetric(rho, move)
    assert metric.path == "blocks"
    assert metric.matrix[0, 0] == pytest.approx(1 / 0.3 + 1 / 0.7, rel=1e-12)
