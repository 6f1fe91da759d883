"""The torch operations against simplex.py, their own inverses, finite differences, and a count of their memory."""

import math
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qig_core.errors import QigError, SimplexError
from qig_core.geometry import batched, simplex
from qig_core.geometry.batched import (
    check,
    exp,
    exponentiated_gradient_step,
    fisher_rao_distance,
    frechet_mean,
    geodesic,
    geodesic_step,
    log,
    natural_gradient,
    natural_gradient_step,
)

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
STEPS = [geodesic_step, natural_gradient_step, exponentiated_gradient_step]
GRADIENT_STEPS = [natural_gradient_step, exponentiated_gradient_step]
KINDS = [(torch.float64, 1e-12), (torch.float32, 1e-5)]

on_every_device = pytest.mark.parametrize("device", DEVICES)
of_both_kinds = pytest.mark.parametrize(("dtype", "tolerance"), KINDS)
every_step = pytest.mark.parametrize("step", STEPS)
every_gradient_step = pytest.mark.parametrize("step", GRADIENT_STEPS)


def random_points(*shape: int, seed: int = 0, alpha: float = 1.0, zeros: bool = False) -> Tensor:
    """Dirichlet points, float64; with zeros, about a third of the entries is 0."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(shape[-1], alpha), shape[:-1])
    if zeros:
        p = p * (rng.random(p.shape) > 1 / 3)
        p[..., 0] += 0.1
    return torch.tensor(p / p.sum(axis=-1, keepdims=True))


def inside(*shape: int, seed: int = 0) -> Tensor:
    """Points well away from the edge, where finite differences are good."""
    return (0.5 * random_points(*shape, seed=seed) + 0.5 / shape[-1]).requires_grad_()


def second_argument(step: Callable[..., Tensor], *shape: int, seed: int = 1) -> Tensor:
    if step is geodesic_step:
        return random_points(*shape, seed=seed)
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape))


def close(actual: Tensor, expected: object, tolerance: float) -> None:
    np.testing.assert_allclose(actual.detach().cpu().numpy(), np.asarray(expected), rtol=0.0, atol=tolerance)


def assert_on_the_simplex(p: Tensor) -> None:
    check(p)
    assert float((p.sum(dim=-1) - 1.0).abs().max()) <= 8 * torch.finfo(p.dtype).eps


@on_every_device
@of_both_kinds
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("shape", [(64,), (7, 64), (3, 4, 64)])
def test_every_function_gives_what_simplex_gives(
    device: str, dtype: torch.dtype, tolerance: float, zeros: bool, shape: tuple[int, ...]
) -> None:
    p = random_points(*shape, zeros=zeros).to(device, dtype)
    q = random_points(*shape, seed=1, alpha=0.1, zeros=zeros).to(device, dtype)
    a, b = p.double().cpu().numpy(), q.double().cpu().numpy()
    close(fisher_rao_distance(p, q), simplex.fisher_rao_distance(a, b), tolerance)
    close(geodesic(p, q, 0.3), simplex.geodesic(a, b, 0.3), tolerance)
    close(geodesic_step(p, q, 0.3), simplex.geodesic(a, b, 0.3), tolerance)
    close(log(p, q), simplex.log(a, b), tolerance)
    v = 0.7 * simplex.log(a, b)
    close(exp(p, torch.tensor(v).to(p)), simplex.exp(a, v), tolerance)


@on_every_device
@of_both_kinds
def test_means_are_those_of_simplex_one_by_one(device: str, dtype: torch.dtype, tolerance: float) -> None:
    points = random_points(2, 3, 9, 64, alpha=0.2, zeros=True).to(device, dtype)
    weights = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)).to(points)
    means, weighted = frechet_mean(points), frechet_mean(points, weights)
    assert means.dtype == dtype
    for i, j in np.ndindex(2, 3):
        sample = points[i, j].double().cpu().numpy()
        sample /= sample.sum(axis=-1, keepdims=True)
        close(means[i, j], simplex.frechet_mean(sample), tolerance)
        close(weighted[i, j], simplex.frechet_mean(sample, weights[j].double().cpu().numpy()), tolerance)


@on_every_device
def test_ten_thousand_float32_points_still_reach_the_default_gradient(device: str) -> None:
    points = random_points(10_000, 64, alpha=0.1).to(device, torch.float32)
    assert float(log(frechet_mean(points).double(), points.double()).mean(dim=0).norm()) <= 2e-6


@on_every_device
@every_step
@of_both_kinds
@pytest.mark.parametrize("shape", [(40, 64), (5, 8, 64)])
def test_a_batch_equals_a_loop_and_chunks_equal_the_whole(
    device: str, step: Callable[..., Tensor], dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]
) -> None:
    p = random_points(*shape, zeros=True).to(device, dtype)
    other = second_argument(step, *shape).to(device, dtype)
    whole = step(p, other, 0.3)
    for index in np.ndindex(*shape[:-1]):
        close(step(p[index], other[index], 0.3), whole[index].cpu(), 4 * torch.finfo(dtype).eps)
    for chunk in (1, 7, 1000):
        close(step(p, other, 0.3, chunk=chunk), whole.cpu(), 4 * torch.finfo(dtype).eps)


@on_every_device
def test_a_batch_of_distances_larger_than_a_chunk_equals_the_graph_that_is_done_whole(device: str) -> None:
    p, q = random_points(5000, 64).to(device), random_points(5000, 64, seed=1).to(device)
    close(fisher_rao_distance(p, q), fisher_rao_distance(p.requires_grad_(), q).detach().cpu(), 1e-14)


def test_leading_axes_broadcast() -> None:
    p, q = random_points(4, 1, 6), random_points(3, 6, seed=1)
    assert fisher_rao_distance(p, q).shape == (4, 3)
    close(fisher_rao_distance(p, q)[2, 1], fisher_rao_distance(p[2, 0], q[1]), 1e-15)
    close(geodesic_step(q, p[0, 0], 0.5)[1], geodesic(q[1], p[0, 0], 0.5), 1e-15)
    close(geodesic(q, q.flip(0), torch.tensor([0.0, 0.5, 1.0]))[2], q[0], 1e-15)


def test_an_empty_batch_gives_an_empty_batch() -> None:
    none = torch.empty(0, 5)
    assert fisher_rao_distance(none, none).shape == (0,)
    assert frechet_mean(torch.empty(0, 3, 5)).shape == (0, 5)
    for step in STEPS:
        assert step(none, none, 0.5).shape == (0, 5)


@given(st.integers(0, 10_000), st.booleans(), st.floats(0.02, 10.0))
@settings(max_examples=50, deadline=None)
def test_exp_undoes_log_and_log_is_as_long_as_the_distance(seed: int, zeros: bool, alpha: float) -> None:
    p, q = random_points(6, seed=seed, zeros=zeros, alpha=alpha), random_points(6, seed=seed + 1, zeros=zeros)
    v = log(p, q)
    assert float(v.norm()) == pytest.approx(float(fisher_rao_distance(p, q)), abs=1e-12)
    assert float((v * p.sqrt()).sum()) == pytest.approx(0.0, abs=1e-12)
    close(exp(p, v), q, 1e-12)


def test_leaving_the_orthant_sets_the_negative_roots_to_zero() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0])
    assert torch.equal(exp(p, 1.1 * log(p, q)), q)


@pytest.mark.parametrize("d", [1e-3, 1e-6, 1e-9])
def test_small_distances_keep_their_digits(d: float) -> None:
    p = torch.tensor([0.5, 0.5], dtype=torch.float64)
    q = torch.tensor([0.5 + d / 2, 0.5 - d / 2], dtype=torch.float64)
    assert float(fisher_rao_distance(p, q)) == pytest.approx(math.asin(d), rel=2e-7)
    many = random_points(20, 64)
    v = log(many, random_points(20, 64, seed=1))
    v = v * (d / v.norm(dim=-1, keepdim=True))
    close(fisher_rao_distance(many, exp(many, v)) / d, np.ones(20), 1e-6)


def test_distances_run_from_zero_to_pi() -> None:
    corners = torch.eye(2, dtype=torch.float64)
    assert float(fisher_rao_distance(corners[0], corners[1])) == pytest.approx(math.pi, abs=1e-15)
    assert float(fisher_rao_distance(corners[0], corners[0])) == 0.0


def test_the_gradient_of_a_distance_matches_finite_differences() -> None:
    assert torch.autograd.gradcheck(fisher_rao_distance, (inside(3, 6), inside(3, 6, seed=1)), atol=1e-8, rtol=1e-6)


def test_the_gradients_of_every_other_function_match_finite_differences() -> None:
    p, q = inside(3, 6), inside(3, 6, seed=1)
    g = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda p, q: geodesic(p, q, 0.3),
        log,
        lambda p, q: exp(p, 0.1 * q),
        natural_gradient,
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, (p, q), atol=1e-7, rtol=1e-6)
    for step in GRADIENT_STEPS:
        for rate in (0.1, 100.0):
            assert torch.autograd.gradcheck(lambda p, g, s=step, r=rate: s(p, g, r), (p, g), atol=1e-7, rtol=1e-6)


def test_the_gradient_of_the_mean_matches_finite_differences_to_a_millionth() -> None:
    points = inside(2, 4, 5)
    weights = torch.tensor([[1.0, 2.0, 0.5, 1.0], [0.1, 1.0, 1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(frechet_mean, (points, weights), eps=3e-5, atol=1e-6, rtol=0.0)


def test_the_gradient_of_the_mean_is_exact_for_points_that_nearly_coincide() -> None:
    centre = torch.full((6,), 1 / 6, dtype=torch.float64)
    points = torch.stack([geodesic(centre, x, 1e-3) for x in random_points(4, 6)]).requires_grad_()
    assert torch.autograd.gradcheck(frechet_mean, (points,), eps=3e-5, atol=1e-6, rtol=0.0)


def test_a_second_derivative_of_the_mean_is_refused_rather_than_wrong() -> None:
    points = inside(4, 5)
    (first,) = torch.autograd.grad(frechet_mean(points)[0], points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_gradient_of_a_squared_distance_is_minus_twice_the_logarithm() -> None:
    p, q = inside(4, 8), random_points(4, 8, seed=1)
    (gradient,) = torch.autograd.grad(fisher_rao_distance(p, q).square().sum(), p)
    with torch.no_grad():
        close(natural_gradient(p, gradient) / p.sqrt(), -2.0 * log(p, q), 1e-12)


@on_every_device
@of_both_kinds
def test_gradients_are_finite_where_points_coincide_or_have_zeros(
    device: str, dtype: torch.dtype, tolerance: float
) -> None:
    p = random_points(4, 6, zeros=True).to(device, dtype)
    p[0] = torch.eye(6)[0]
    p[1, 1:] = torch.finfo(dtype).tiny
    p[1, 0] = 1.0
    q = random_points(4, 6, seed=1, zeros=True).to(p)
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        fisher_rao_distance,
        lambda p, q: geodesic(p, q, 0.3),
        log,
        lambda p, q: exp(p, log(p, q)),
        lambda p, q: frechet_mean(torch.stack([p, q], dim=-2)),
        lambda p, q: natural_gradient_step(p, q, 1.0),
        lambda p, _: natural_gradient_step(p, torch.ones_like(p, requires_grad=True), 1.0),
        lambda p, q: exponentiated_gradient_step(p, q, 1.0),
    ]
    for function in functions:
        for other in (q, p):
            a, b = p.clone().requires_grad_(), other.clone().requires_grad_()
            (
                function(a, b) * torch.arange(1.0, 5.0).to(p).reshape(4, *[1] * (function(a, b).ndim - 1))
            ).sum().backward()
            for x in (a, b):
                assert x.grad is None or bool(torch.isfinite(x.grad).all())
            if function is fisher_rao_distance:
                assert a.grad is not None
                assert not bool(a.grad[p == 0.0].any())
                assert other is q or not bool(a.grad.any())


@on_every_device
@every_step
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0, 50.0])
def test_steps_end_on_the_simplex_and_zeros_stay_zeros(device: str, step: Callable[..., Tensor], rate: float) -> None:
    for dtype, _ in KINDS:
        p = random_points(200, 64, zeros=True).to(device, dtype)
        other = second_argument(step, 200, 64).to(p)
        end = step(p, other, min(rate, 1.0) if step is geodesic_step else rate)
        assert_on_the_simplex(end)
        if step is not geodesic_step:
            assert not bool(end[p == 0.0].any())
        if rate == 0.0:
            close(end, p.cpu(), 4 * torch.finfo(dtype).eps)


def test_a_geodesic_step_of_share_zero_stays_and_of_share_one_arrives() -> None:
    p, q = random_points(9, 64, zeros=True), random_points(9, 64, seed=1, zeros=True)
    close(geodesic_step(p, q, 0.0), p, 1e-15)
    close(geodesic_step(p, q, 1.0), q, 1e-15)


@every_gradient_step
def test_a_step_against_the_gradient_of_a_function_decreases_it(step: Callable[..., Tensor]) -> None:
    p, target = inside(30, 64), random_points(30, 64, seed=1)
    value = fisher_rao_distance(p, target).square()
    (gradient,) = torch.autograd.grad(value.sum(), p)
    after = fisher_rao_distance(step(p.detach(), gradient, 0.05), target).square()
    assert bool((after < value).all())


@every_gradient_step
def test_a_short_step_moves_along_the_natural_gradient_to_second_order(step: Callable[..., Tensor]) -> None:
    p, g = random_points(10, 64), second_argument(step, 10, 64)
    errors = [float(((step(p, g, rate) - p) / rate + natural_gradient(p, g)).norm()) for rate in (1e-3, 1e-4)]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.05)


@every_gradient_step
def test_a_constant_added_to_the_gradient_changes_nothing(step: Callable[..., Tensor]) -> None:
    p, g = random_points(10, 64), second_argument(step, 10, 64)
    close(step(p, g + 7.0, 0.3), step(p, g, 0.3), 1e-14)


def test_splitting_an_outcome_commutes_with_gradient_steps() -> None:
    p, g = random_points(10, 8), second_argument(natural_gradient_step, 10, 8)
    split_p, split_g = torch.cat([p[:, :1] * 0.3, p[:, :1] * 0.7, p[:, 1:]], 1), torch.cat([g[:, :1], g], 1)
    for step in GRADIENT_STEPS:
        for rate in (0.5, 100.0):
            end = step(split_p, split_g, rate)
            close(torch.cat([end[:, :2].sum(dim=1, keepdim=True), end[:, 2:]], 1), step(p, g, rate), 1e-13)


def test_a_natural_gradient_step_is_the_exponential_map_and_as_long_as_asked() -> None:
    p, g = random_points(10, 64), second_argument(natural_gradient_step, 10, 64)
    above = g - (p * g).sum(dim=-1, keepdim=True)
    v = -0.1 * p.sqrt() * above
    end = natural_gradient_step(p, g, 0.1)
    close(end, simplex.exp(p.numpy(), v.numpy()), 1e-14)
    close(fisher_rao_distance(p, end), v.norm(dim=-1), 1e-12)


def test_a_step_that_would_leave_the_orthant_stops_short_of_its_edge_in_its_own_row() -> None:
    p, g = random_points(2, 64, zeros=True), second_argument(natural_gradient_step, 2, 64)
    g[:, (p == 0.0).all(dim=0)] = 1e200  # where nothing is, nothing limits the step
    rates = torch.tensor([[1e6], [1e-4]], dtype=torch.float64)
    end = natural_gradient_step(p, g * rates, 1.0)
    close(end[1], natural_gradient_step(p[1], g[1], 1e-4), 1e-15)
    assert bool((end[p > 0.0] > 0.0).all())
    above = (g[0] - (p[0] * g[0]).sum())[p[0] > 0.0]
    spread = (p[0][p[0] > 0.0] * above.square()).sum().sqrt()
    edge = math.atan2(float(spread), float(above.max()))
    assert float(fisher_rao_distance(p[0], end[0])) == pytest.approx(2 * batched.BOUNDARY_SHARE * edge, abs=1e-12)


def test_an_exponentiated_step_does_not_overflow() -> None:
    p = torch.tensor([0.0, 0.5, 0.5])
    g = torch.tensor([-1e30, 1e4, 1e4 + 1.0])
    close(exponentiated_gradient_step(p, g, 1.0), [0.0, 1 / (1 + math.exp(-1)), 1 / (1 + math.e)], 1e-6)
    close(exponentiated_gradient_step(p, -g, 1e3), [0.0, 0.0, 1.0], 1e-7)


@on_every_device
@every_step
@pytest.mark.parametrize("chunk", [None, 3])
def test_out_may_be_new_memory_or_either_argument(device: str, step: Callable[..., Tensor], chunk: int | None) -> None:
    p, other = random_points(2, 5, 64).to(device), second_argument(step, 2, 5, 64).to(device)
    expected = step(p, other, 0.3)
    both = torch.empty(2, 2, 5, 64, dtype=p.dtype, device=device)
    both[0] = p
    for out in (torch.empty_like(p), both[1], p.clone(), other.clone()):
        assert step(p, other, 0.3, out=out, chunk=chunk) is out
        assert torch.equal(out, expected)
    assert torch.equal(step(both[0], other, 0.3, out=both[1], chunk=chunk), expected)
    a, b = p.clone(), other.clone()
    assert torch.equal(step(a, other, 0.3, out=a, chunk=chunk), expected)
    assert torch.equal(step(p, b, 0.3, out=b, chunk=chunk), expected)


@every_step
def test_an_out_that_does_not_fit_is_refused(step: Callable[..., Tensor]) -> None:
    p, other = random_points(5, 64), second_argument(step, 5, 64)
    buffer = torch.cat([p, p])
    with pytest.raises(SimplexError, match="out overlaps p in part"):
        step(buffer[:5], other, 0.3, out=buffer[1:6])
    with pytest.raises(SimplexError, match="out must be contiguous and shaped like p"):
        step(p, other, 0.3, out=torch.empty(5, 63, dtype=torch.float64))
    with pytest.raises(SimplexError, match="out must be contiguous"):
        step(p, other, 0.3, out=torch.empty(64, 5, dtype=torch.float64).T)
    with pytest.raises(SimplexError, match="where a gradient is recorded"):
        step(p.clone().requires_grad_(), other, 0.3, out=torch.empty_like(p))


class PeakMemory(TorchDispatchMode):
    """The most bytes held at once by tensors made inside the block, views counted once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key, size = storage.data_ptr(), storage.nbytes()
                if self._users[key] or key not in known:
                    self._hold(key, size)
                    weakref.finalize(tensor, self._release, key, size)
        return result

    def _hold(self, key: int, size: int) -> None:
        self._users[key] += 1
        self.now += size * (self._users[key] == 1)
        self.peak = max(self.peak, self.now)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        self.now -= size * (self._users[key] == 0)


def test_the_memory_counter_counts() -> None:
    x = torch.ones(1000)
    with PeakMemory() as memory:
        y = (x + 1.0) * 2.0
        y[:10].add_(1.0)
    assert memory.peak == 8000
    assert memory.now == 4000


@every_step
@pytest.mark.parametrize(("rows", "copies"), [(500, 4.0), (20_000, 1.5)])
def test_a_step_takes_at_most_four_copies_of_its_input_and_hardly_more_than_one_when_chunked(
    step: Callable[..., Tensor], rows: int, copies: float
) -> None:
    p, other = random_points(rows, 64), second_argument(step, rows, 64)
    with PeakMemory() as memory:
        result = step(p, other, 0.3)
    assert result.nbytes <= memory.peak <= copies * p.nbytes
    with PeakMemory() as memory:
        step(p, other, 0.3, out=result)
    assert memory.peak <= (copies - 1.0) * p.nbytes


def test_values_are_looked_at_only_when_asked() -> None:
    p = random_points(3, 4, 5)
    check(p)
    check(p.float())
    off = p.clone()
    off[1, 2] *= 1.01
    with pytest.raises(SimplexError, match=r"p\[1, 2\] sums to 1.01, off by 0.01"):
        check(off)
    negative = p.clone()
    negative[0, 1, :2] += torch.tensor([1.0, -1.0])
    with pytest.raises(SimplexError, match=r"p\[0, 1\] is negative somewhere"):
        check(negative)
    off[0, 0, 0] = math.nan
    with pytest.raises(SimplexError, match=r"p\[0, 0\] holds a value that is not finite"):
        check(off)
    with pytest.raises(SimplexError, match=r"p sums to 2"):
        check(torch.ones(2))


def test_shapes_dtypes_and_numbers_that_make_no_sense_are_refused() -> None:
    p = random_points(3, 5)
    with pytest.raises(SimplexError, match="last axes must be equal"):
        fisher_rao_distance(p, random_points(3, 6))
    with pytest.raises(SimplexError, match="do not broadcast"):
        log(p, random_points(2, 5))
    with pytest.raises(SimplexError, match="float32 or float64 is needed"):
        check(p.half())
    with pytest.raises(SimplexError, match=r"q torch\.float32"):
        geodesic(p, p.float(), 0.5)
    with pytest.raises(SimplexError, match="a last axis"):
        check(torch.tensor(1.0))
    with pytest.raises(SimplexError, match=r"t must lie in \[0, 1\]"):
        geodesic(p, p, 1.5)
    with pytest.raises(SimplexError, match="rate must be finite and at least 0"):
        natural_gradient_step(p, p, -0.1)
    with pytest.raises(SimplexError, match=r"target .* does not broadcast to p"):
        geodesic_step(p, random_points(2, 3, 5), 0.5)
    with pytest.raises(SimplexError, match="chunk must be at least 1"):
        geodesic_step(p, p, 0.5, chunk=0)


def test_a_mean_of_nothing_with_wrong_weights_or_of_nan_is_refused() -> None:
    p = random_points(3, 5)
    with pytest.raises(SimplexError, match="N ≥ 1"):
        frechet_mean(p[0])
    with pytest.raises(SimplexError, match="weights"):
        frechet_mean(p, torch.ones(2, dtype=p.dtype))
    with pytest.raises(SimplexError, match="weights"):
        frechet_mean(p, torch.ones(2, 3, dtype=p.dtype))
    with pytest.raises(SimplexError, match="weights"):
        frechet_mean(p, torch.ones(3))
    with pytest.raises(QigError, match="did not reach"):
        frechet_mean(p, tol=-1.0, max_iterations=20)
    with pytest.raises(QigError, match=r"did not reach .* nan"):
        frechet_mean(p * math.nan)


def test_a_compiler_that_fails_is_asked_once_and_then_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compile_to_failure(core: object) -> Callable[..., Tensor]:
        asked.append(core)

        def fail(*_: object) -> Tensor:
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", compile_to_failure)
    monkeypatch.setattr(batched, "_COMPILED", {})
    p = random_points(3, 5)
    assert not batched._fused(batched._geodesic, p, p, 0.5, torch.empty_like(p))
    assert not batched._fused(batched._geodesic, p, p, 0.5, torch.empty_like(p))
    assert asked == [batched._geodesic]


@on_every_device
@every_step
def test_a_step_large_enough_to_compile_gives_the_same_and_only_a_gpu_compiles(
    device: str, step: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "_COMPILED", {})
    for rows in (20_000, 30_001):
        p, other = random_points(rows, 64, zeros=True).float(), second_argument(step, rows, 64).float()
        expected = step(p, other, 0.3, chunk=999)
        in_place = p.to(device)
        close(step(in_place, other.to(device), 0.3), expected, 1e-6)
        close(step(in_place, other.to(device), 0.3, out=in_place), expected, 1e-6)
    assert len(batched._COMPILED) == (device == "cuda")
    assert None not in batched._COMPILED.values()


@pytest.mark.parametrize("core", [batched._geodesic, batched._natural, batched._exponentiated])
def test_a_step_can_be_traced_whole_also_into_its_own_argument(core: Callable[..., Tensor]) -> None:
    traced = torch.compile(core, backend="aot_eager", fullgraph=True)
    p, other, number = random_points(9, 5), random_points(9, 5, seed=1), torch.tensor(0.3, dtype=torch.float64)
    expected = core(p, other, 0.3)
    out = torch.empty_like(p)
    assert traced(p, other, number, None, None, out) is out
    close(out, expected, 1e-15)
    close(traced(p, other, number, None, None, p), expected, 1e-15)
