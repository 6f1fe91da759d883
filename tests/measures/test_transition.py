"""Jacobians by forward and by reverse mode, projections, and integration as a loss."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from qig_core.measures.integration import effective_information
from qig_core.measures.transition import equal_parts, integration_loss, nonfinite_kind, part_coordinates, transition

PARTS = equal_parts(12, 4)


class Doubled(torch.autograd.Function):
    """An operation that its author gave a backward pass only."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2.0 * x

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return 2.0 * grads[0]


WEIGHTS = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def smooth(x: Tensor) -> Tensor:
    weights = WEIGHTS.to(x)
    return torch.tanh(x @ weights) + x.square() @ weights.flip(0)


def without_batching(x: Tensor) -> Tensor:
    """Looks at a value, which no function under vmap can."""
    return smooth(x) if float(x.detach().sum()) > -1e9 else x


def backward_only(x: Tensor) -> Tensor:
    return smooth(Doubled.apply(x) / 2.0)


@pytest.mark.parametrize(
    ("function", "mode"), [(smooth, "forward"), (without_batching, "forward"), (backward_only, "reverse")]
)
def test_every_way_gives_the_same_jacobian(function: object, mode: str) -> None:
    x = torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = torch.eye(12, dtype=torch.float64)
    with torch.no_grad():
        found = transition(function, x, whole, whole)  # type: ignore[arg-type]
    assert found.mode == mode
    assert not found.jacobian.requires_grad
    torch.testing.assert_close(found.jacobian, vmap(jacrev(smooth))(x))
    torch.testing.assert_close(found.rms_x, x.square().mean(-1).sqrt())
    torch.testing.assert_close(found.rms_y, smooth(x).square().mean(-1).sqrt())


def test_a_projected_jacobian_is_the_projection_of_the_whole_one() -> None:
    x = torch.randn(3, 12, dtype=torch.float64)
    q, r = part_coordinates(12, 4, 2, seed=1), part_coordinates(12, 4, 2, seed=2)
    for function in (smooth, backward_only):
        found = transition(function, x, q, r).jacobian
        torch.testing.assert_close(found, r @ vmap(jacrev(smooth))(x) @ q.T)


def test_directions_that_do_not_fit_into_memory_are_taken_in_turns() -> None:
    x, whole = torch.randn(3, 12), torch.eye(12)
    torch.testing.assert_close(
        transition(smooth, x, whole, whole, elements=1 << 22).jacobian, transition(smooth, x, whole, whole).jacobian
    )


@pytest.mark.parametrize("rank", [1, 2, 3, 16])
def test_coordinates_are_orthonormal_and_belong_to_one_part_each(rank: int) -> None:
    q = part_coordinates(12, 4, rank)
    size = min(rank, 3)
    assert q.shape == (4 * size, 12)
    torch.testing.assert_close(q @ q.T, torch.eye(4 * size, dtype=torch.float64))
    for i, part in enumerate(PARTS):
        rows = q[i * size : (i + 1) * size]
        assert torch.equal(rows, torch.zeros_like(rows).index_copy(1, torch.tensor(part), rows[:, part]))
    assert torch.equal(q, torch.eye(12, dtype=torch.float64)) == (rank >= 3)


def test_uneven_parts_have_the_rank_of_the_smallest() -> None:
    assert [len(part) for part in equal_parts(11, 4)] == [3, 3, 3, 2]
    assert part_coordinates(11, 4, 16).shape == (8, 11)
    with pytest.raises(ValueError, match="3 units cannot be cut into 4 parts"):
        equal_parts(3, 4)


def test_the_loss_is_nats_over_k_and_its_gradient_is_right() -> None:
    maps = 0.2 * torch.randn(2, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    maps.requires_grad_()
    found = effective_information(maps.detach().numpy(), PARTS)
    loss = integration_loss(maps, PARTS)
    assert loss.item() == pytest.approx(found.nats / found.dim, rel=1e-12)
    assert torch.autograd.gradcheck(lambda a: integration_loss(a, PARTS), maps)


def test_the_gradient_is_finite_where_nothing_crosses() -> None:
    maps = torch.zeros(12, 12, requires_grad=True)
    loss = integration_loss(maps, PARTS)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(maps.grad, torch.zeros(12, 12))  # type: ignore[arg-type]


def test_a_broken_map_has_no_loss() -> None:
    with pytest.raises(ValueError, match="not finite"):
        integration_loss(torch.full((12, 12), torch.nan), PARTS)


def test_training_on_the_loss_raises_phi_through_the_jacobian() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 12))
    x, whole = torch.randn(8, 12), torch.eye(12)
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-2)
    scores = []
    for _ in range(40):
        maps = transition(lambda z: z + block(z), x, whole, whole).relative()
        scores.append(effective_information(maps.detach().double().numpy(), PARTS).score)
        optimizer.zero_grad()
        (-integration_loss(maps, PARTS)).backward()
        optimizer.step()
    assert scores[-1] > scores[0] + 0.05


def test_what_is_not_finite_has_a_name() -> None:
    assert [nonfinite_kind(torch.tensor(x)) for x in ([1.0], [torch.inf, torch.nan], [torch.inf], [-torch.inf])] == [
        None,
        "nan",
        "inf",
        "-inf",
    ]
