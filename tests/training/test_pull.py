"""The basin as a function of the parameters, and the step that takes it towards another."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from qig_core.geometry.simplex import Basin, fisher_rao_distance
from qig_core.training.config import KernelConfig
from qig_core.training.corpus import batch, default_corpus, probe_batch
from qig_core.training.digests import parameter_digest
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.pull import LONGEST, basin, descent, distance_to
from qig_core.training.trainer import next_token_loss

TINY = KernelConfig(width=32, heads=4, context=32, passes=3)
CORPUS = default_corpus()
PROBE = KernelProbe(TINY, probe_batch(CORPUS.heldout, 4, context=32))


@pytest.fixture(scope="module")
def trained() -> Kernel:
    kernel = Kernel(TINY)
    optimizer = torch.optim.AdamW(kernel.parameters(), lr=1e-2)
    for step in range(60):
        tokens = torch.from_numpy(batch(CORPUS.train, seed=0, step=step, batch_size=4, context=32))
        optimizer.zero_grad()
        next_token_loss(kernel, tokens).backward()
        optimizer.step()
    optimizer.zero_grad()
    return kernel


@pytest.fixture
def kernel(trained: Kernel) -> Kernel:
    return copy.deepcopy(trained)


def measured(kernel: Kernel) -> Basin:
    found = PROBE.measure(kernel).basin
    assert found is not None
    return found


@pytest.fixture(scope="module")
def target() -> Basin:
    return measured(Kernel(TINY, seed=1))


def moving(kernel: Kernel) -> list[torch.nn.Parameter]:
    return list(kernel.parameters())


def pull(kernel: Kernel, target: Basin | torch.Tensor, share: float) -> float:
    """d before."""
    found = descent(kernel, PROBE, target, moving(kernel))
    assert found is not None
    found.take(share)
    return found.distance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_the_basin_is_the_probes(kernel: Kernel, dtype: torch.dtype, tolerance: float) -> None:
    kernel.to(dtype)
    found = basin(kernel, PROBE)
    assert found.dtype == torch.float64
    assert found.requires_grad
    np.testing.assert_allclose(found.detach().numpy(), measured(kernel), rtol=0.0, atol=tolerance)


def test_the_distance_is_the_geometrys_and_its_slope_that_of_a_finite_difference(kernel: Kernel, target: Basin) -> None:
    kernel.double()
    found = descent(kernel, PROBE, target, moving(kernel))
    assert found is not None
    assert found.distance == pytest.approx(float(fisher_rao_distance(measured(kernel), target)), rel=1e-12)
    length = 1e-5
    ends = []
    for sign in (1.0, -1.0):
        moved = copy.deepcopy(kernel)
        with torch.no_grad():
            for parameter, gradient in zip(moved.parameters(), found.gradient, strict=True):
                if gradient is not None:
                    parameter.add_(gradient, alpha=sign * length / found.slope)
        ends.append(float(fisher_rao_distance(measured(moved), target)))
    assert (ends[0] - ends[1]) / (2.0 * length) == pytest.approx(found.slope, rel=1e-6)


def test_to_first_order_the_distance_falls_by_the_share(kernel: Kernel, target: Basin) -> None:
    kernel.double()
    errors = []
    for share in (2.0**-6, 2.0**-7, 2.0**-8, 2.0**-9):
        moved = copy.deepcopy(kernel)
        before = pull(moved, target, share)
        after = float(fisher_rao_distance(measured(moved), target))
        errors.append(abs((before - after) / (share * before) - 1.0))
    assert errors[-1] < 5e-3
    orders = [math.log2(one / half) for one, half in pairwise(errors)]
    assert orders == pytest.approx([1.0, 1.0, 1.0], abs=0.2)


def test_pull_after_pull_brings_the_basin_nearer(kernel: Kernel, target: Basin) -> None:
    distances = [pull(kernel, target, 0.1) for _ in range(25)]
    assert all(after < before for before, after in pairwise(distances))
    assert distances[-1] < 0.15 * distances[0]
    # The first ones are as good as promised.
    assert distances[5] == pytest.approx(0.9**5 * distances[0], rel=0.1)


def test_the_target_is_a_constant_whatever_it_was_made_from(kernel: Kernel) -> None:
    other = Kernel(TINY, seed=1)
    digest, target = parameter_digest(other), basin(other, PROBE)
    kept = target.detach().clone()
    pull(kernel, target, 0.5)
    assert target.requires_grad
    assert torch.equal(target.detach(), kept)
    assert parameter_digest(other) == digest
    assert all(parameter.grad is None for parameter in other.parameters())
    plain = Basin(kept.numpy().copy())
    plain.setflags(write=False)  # a basin that somebody shares
    pull(kernel, plain, 0.5)
    assert not torch.equal(basin(other, PROBE), basin(kernel, PROBE))


def test_a_target_made_from_the_kernel_itself_is_a_constant_too(kernel: Kernel, target: Basin) -> None:
    """As the mean of all basins is: no gradient goes round by it."""
    mean = 0.5 * (basin(kernel, PROBE) + torch.from_numpy(target))
    found, wanted = (descent(kernel, PROBE, each, moving(kernel)) for each in (mean, mean.detach().clone()))
    assert found is not None
    assert wanted is not None
    assert (found.distance, found.slope) == (wanted.distance, wanted.slope)


def test_nothing_but_what_may_move_moves(kernel: Kernel, target: Basin) -> None:
    before = {name: tensor.clone() for name, tensor in kernel.state_dict().items()}
    kernel.eval()
    kernel.embedding.grad = marked = torch.ones_like(kernel.embedding)
    kernel.head.requires_grad_(False)
    state = torch.get_rng_state()
    cross = kernel.cross_parameters()
    free = [parameter for name, parameter in kernel.named_parameters() if name not in cross and name != "head"]
    with torch.no_grad():
        found = descent(kernel, PROBE, target, free)
    assert found is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in kernel.state_dict().items())
    assert found.take(0.3) > 0.0
    moved = {name for name, tensor in kernel.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, parameter in kernel.named_parameters() if any(parameter is each for each in free)}
    assert kernel.embedding.grad is marked
    assert bool(torch.all(marked == 1.0))
    assert not kernel.training
    assert not kernel.head.requires_grad
    assert sum(p.requires_grad for p in kernel.parameters()) == len(list(kernel.parameters())) - 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_is_as_long_as_it_says(kernel: Kernel, target: Basin) -> None:
    before = [parameter.detach().double() for parameter in kernel.parameters()]
    found = descent(kernel, PROBE, target, moving(kernel))
    assert found is not None
    length = found.take(0.2)
    changes = [p.detach().double() - b for p, b in zip(kernel.parameters(), before, strict=True)]
    assert torch.nn.utils.get_total_norm(changes).item() == pytest.approx(length, rel=1e-4)
    assert length == pytest.approx(0.2 * found.distance / found.slope)


def test_no_step_is_longer_than_its_share_of_the_parameters(kernel: Kernel, target: Basin) -> None:
    size = torch.nn.utils.get_total_norm([p.detach().double() for p in kernel.parameters()]).item()
    found = descent(kernel, PROBE, target, moving(kernel))
    assert found is not None
    assert found.take(1.0, longest=1e-4) == pytest.approx(1e-4 * size, rel=1e-6)
    shorter = descent(kernel, PROBE, target, moving(kernel))
    assert shorter is not None
    assert shorter.distance < found.distance
    assert 0.3 * found.distance / found.slope < LONGEST * size  # a usual step is not held up


def test_at_the_target_nothing_moves_and_near_it_hardly_anything(kernel: Kernel) -> None:
    digest, here = parameter_digest(kernel), basin(kernel, PROBE).detach()
    found = descent(kernel, PROBE, here, moving(kernel))
    assert found is not None
    assert (found.distance, found.slope) == (0.0, 0.0)
    assert found.take(1.0) == 0.0
    assert parameter_digest(kernel) == digest
    rounded = here.float().double()  # as a sample holds a basin
    for target in (rounded / rounded.sum(), torch.nextafter(here, here + 1.0)):
        found = descent(kernel, PROBE, target, moving(kernel))
        assert found is not None
        assert 0.0 < found.distance < 1e-6
        assert found.slope > 0.0
        assert found.take(1.0) < 1e-5
    assert distance_to(basin(kernel, PROBE), here).item() < 1e-5


def test_a_broken_kernel_goes_nowhere(kernel: Kernel, target: Basin) -> None:
    with torch.no_grad():
        kernel.embedding[:] = torch.nan
    assert descent(kernel, PROBE, target, moving(kernel)) is None


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(kernel: Kernel, target: Basin, share: float) -> None:
    found = descent(kernel, PROBE, target, moving(kernel))
    assert found is not None
    with pytest.raises(ValueError, match="share"):
        found.take(share)


def test_the_number_of_threads_changes_no_bit(kernel: Kernel, target: Basin) -> None:
    threads, digests = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            moved = copy.deepcopy(kernel)
            pull(moved, target, 0.1)
            digests.append(parameter_digest(moved))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert digests[0] == digests[1]
