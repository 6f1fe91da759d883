"""The kernel: causal, reproducible, learning, and truly uncoupled at gain 0."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qig_core.errors import ConfigError
from qig_core.geometry.gauss_newton import FisherProduct
from qig_core.measures.integration import effective_information
from qig_core.training import kernel as kernel_module
from qig_core.training import kernel_jacobian as jacobian_module
from qig_core.training.config import KernelConfig
from qig_core.training.corpus import batch, default_corpus
from qig_core.training.kernel import HalvedLinear, Kernel, distance_from_bc, half_norm
from qig_core.training.kernel_jacobian import pass_jacobians

TINY = KernelConfig(width=32, heads=8, context=16, passes=3)
POSITIONS = torch.tensor([[0, 0], [1, 7], [2, 15]])
CROSSING = ("w_q", "w_k", "w_v", "w_o", "mlp_in", "mlp_out")


def tokens_of(config: KernelConfig = TINY, num: int = 3) -> Tensor:
    return torch.randint(0, config.vocab, (num, config.context), generator=torch.Generator().manual_seed(5))


def cross_blocks(j: Tensor) -> Tensor:
    half = j.shape[-1] // 2
    return torch.cat([j[:, :half, half:], j[:, half:, :half].mT], dim=1)


@torch.no_grad()
def jacobians(kernel: Kernel, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the last pass."""
    return pass_jacobians(kernel.observe(tokens)[-1], positions, kernel.block_weights())


def pass_at(kernel: Kernel, x: Tensor, root_keys: Tensor, values: Tensor, earlier: Tensor) -> Tensor:
    """The block at one position, as it reads: x [d], its context's root_keys and values [H, T, d/H], its mask [T]."""
    weights = kernel.block_weights()
    root_q, root_k, v = (each[0] for each in kernel._qkv(x[None, None], weights))
    bc = torch.cat([(root_keys @ root_q.mT).squeeze(-1), (root_q * root_k).sum(-1)], dim=-1)
    scores = -weights.kappa[:, None] * distance_from_bc(bc)
    masked = torch.where(earlier, scores[:, :-1], -math.inf)
    attention = torch.cat([masked, scores[:, -1:]], dim=-1).softmax(dim=-1)
    mixed = (attention[:, None, :-1] @ values).squeeze(1) + attention[:, -1:] * v.squeeze(1)
    x = x + mixed.flatten() @ weights.out.T
    return x + kernel._mlp(x, weights)


def test_logits_have_the_shape_of_the_tokens_and_see_no_future() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    logits = kernel(tokens)
    assert logits.shape == (3, 16, 256)
    tokens[:, 10:] = 0
    torch.testing.assert_close(kernel(tokens)[:, :10], logits[:, :10])
    assert not torch.equal(kernel(tokens)[:, 10:], logits[:, 10:])
    torch.testing.assert_close(kernel(tokens[:, :4]), logits[:, :4])


def test_birth_is_its_seed_and_touches_no_global_state() -> None:
    before = torch.get_rng_state()
    one, same, other = (Kernel(KernelConfig(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head"], other["head"])


@pytest.mark.parametrize(
    "bad",
    [{"passes": 2}, {"heads": 3}, {"heads": 12}, {"width": 100}, {"gain": 1.5}, {"kappa_init": 0.0}, {"context": 0}],
)
def test_a_shape_that_does_not_fit_is_refused_by_name(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        KernelConfig(**bad)


def test_parts_are_heads_and_never_straddle_the_halves() -> None:
    for heads in (2, 4, 8, 16):
        config = KernelConfig(width=64, heads=heads)
        assert sum(config.parts, ()) == tuple(range(64))
        assert len(config.parts) == min(heads, 8)
        assert all(len({unit >= 32 for unit in part}) == 1 for part in config.parts)


def test_the_written_out_derivative_of_the_distance_is_autograds() -> None:
    bc = torch.tensor([0.0, 0.3, 0.9, 1.0 - 1e-5, 1.0 - 1e-7, 1.0, 1.0 + 1e-9], dtype=torch.float64, requires_grad=True)
    ours = kernel_module._Distance.distance(bc)
    plain = distance_from_bc(bc)
    torch.testing.assert_close(ours, plain, rtol=0.0, atol=0.0)
    (g_ours,), (g_plain,) = (torch.autograd.grad(d.sum(), bc) for d in (ours, plain))
    torch.testing.assert_close(g_ours, g_plain)
    assert torch.all(g_ours[-3:] == 0.0)


def test_the_distance_may_be_differentiated_twice_for_a_fisher_product(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tokens = Kernel(TINY).double(), tokens_of()
    parameters = list(kernel.parameters())
    size = sum(p.numel() for p in parameters)
    v = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = FisherProduct(kernel(tokens), parameters)(v)
    monkeypatch.setattr(kernel_module._Distance, "distance", distance_from_bc)
    torch.testing.assert_close(ours, FisherProduct(kernel(tokens), parameters)(v), rtol=1e-9, atol=1e-13)


def test_an_observation_is_every_pass() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    passes = kernel.observe(tokens)
    assert len(passes) == 3
    assert all(torch.equal(one.state, after.before) for one, after in pairwise(passes))
    seen = passes[-1]
    assert seen.state.shape == (3, 16, 32)
    assert seen.attention.shape == seen.distances.shape == (3, 8, 16, 16)
    torch.testing.assert_close(seen.attention.sum(-1), torch.ones(3, 8, 16))
    assert torch.all(seen.attention.triu(1) == 0.0)
    assert 0.0 < float(seen.distances.min()) <= float(seen.distances.max()) <= math.pi + 1e-6
    kappa = kernel.log_kappa.exp()[:, None, None]
    future = torch.full((16, 16), -math.inf).triu(1)
    torch.testing.assert_close(seen.attention, torch.softmax(future - kappa * seen.distances, -1))
    torch.testing.assert_close(half_norm(seen.state) @ kernel.head.T, kernel(tokens))


@pytest.mark.parametrize("gain", [0.0, 0.3, 1.0])
def test_the_jacobian_is_that_of_the_whole_sequence_with_the_context_held(gain: float) -> None:
    kernel, tokens = Kernel(TINY).double(), tokens_of()
    kernel.set_gain(gain)
    j, rms_x, rms_y = jacobians(kernel, tokens, POSITIONS)
    weights = kernel.block_weights()
    seen = kernel.observe(tokens)[-1]
    for p, (sequence, offset) in enumerate(POSITIONS.tolist()):

        def last_pass(x_t: Tensor, sequence: int = sequence, offset: int = offset) -> Tensor:
            changed = seen.before[sequence].clone()
            changed[offset] = x_t
            return kernel._pass(changed[None], weights).state[0, offset]

        reference = torch.autograd.functional.jacobian(last_pass, seen.before[sequence, offset])
        torch.testing.assert_close(j[p], reference, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(rms_x[p], seen.before[sequence, offset].square().mean().sqrt())
        torch.testing.assert_close(rms_y[p], seen.state[sequence, offset].square().mean().sqrt())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("gain", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("which", [0, 2])
def test_the_written_out_jacobian_is_that_of_forward_mode(
    which: int, gain: float, dtype: torch.dtype, tolerance: float
) -> None:
    kernel, tokens = Kernel(KernelConfig(width=64, heads=16, context=16, passes=3)).to(dtype), tokens_of()
    kernel.set_gain(gain)
    seen, (sequence, offset) = kernel.observe(tokens)[which], POSITIONS.T
    earlier = torch.arange(16) < offset[:, None]
    with torch.no_grad():
        j, _, _ = pass_jacobians(seen, POSITIONS, kernel.block_weights())
        forward = torch.func.vmap(torch.func.jacfwd(partial(pass_at, kernel)))
        reference = forward(seen.before[sequence, offset], seen.root_k[sequence], seen.values[sequence], earlier)
    assert j.dtype == dtype
    torch.testing.assert_close(j, reference, rtol=tolerance, atol=tolerance)
    assert bool(torch.all(cross_blocks(j) == 0.0)) is (gain == 0.0)


def test_the_jacobian_stays_finite_where_query_and_key_are_equal() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    with torch.no_grad():
        for name in ("w_q", "w_k"):
            for p in getattr(kernel, name).parameters():
                p.zero_()
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.isfinite(jacobians(kernel.to(dtype), tokens, POSITIONS)[0]).all()


def test_the_jacobian_predicts_a_small_step() -> None:
    kernel, tokens = Kernel(TINY).double(), tokens_of()
    j, _, _ = jacobians(kernel, tokens, POSITIONS[1:2])
    weights = kernel.block_weights()
    x = kernel.observe(tokens)[-1].before[1:2]
    step = 1e-6 * torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[0, 7] += step
    with torch.no_grad():
        change = (kernel._pass(moved, weights).state - kernel._pass(x, weights).state)[0, 7]
    torch.testing.assert_close(change, j[0] @ step, rtol=1e-4, atol=1e-10)


def test_at_gain_zero_the_cross_blocks_of_the_jacobian_are_exactly_zero() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    assert torch.all(cross_blocks(jacobians(kernel, tokens, POSITIONS)[0]).abs().amax((1, 2)) > 1e-3)
    kernel.set_gain(0.0)
    j, _, _ = jacobians(kernel, tokens, POSITIONS)
    assert torch.all(cross_blocks(j) == 0.0)
    result = effective_information(j.double().numpy(), TINY.parts)
    assert result.score == 0.0
    assert result.cut == (4, 5, 6, 7)


@pytest.mark.parametrize("name", CROSSING)
def test_any_single_matrix_left_coupled_would_be_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    kernel.set_gain(0.0)
    leak: HalvedLinear = getattr(kernel, name)
    monkeypatch.setattr(leak, "assemble", lambda gain: HalvedLinear.assemble(leak, torch.ones(())))
    # The first position of a sequence attends to itself alone, whatever its q and k.
    j, _, _ = jacobians(kernel, tokens, POSITIONS[1:])
    assert torch.all(cross_blocks(j).abs().amax((1, 2)) > 1e-6)


def test_a_norm_over_both_halves_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    kernel.set_gain(0.0)
    for module in (kernel_module, jacobian_module):
        monkeypatch.setattr(module, "half_norm", lambda x: functional.layer_norm(x, x.shape[-1:]))
    j, _, _ = jacobians(kernel, tokens, POSITIONS)
    assert torch.all(cross_blocks(j).abs().amax((1, 2)) > 1e-6)


def test_every_cross_block_is_its_own_parameter_and_idle_at_gain_zero() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    cross = kernel.cross_parameters()
    assert sorted(cross) == sorted(f"{name}.cross_{which}" for name in CROSSING for which in ("ab", "ba"))
    kernel.set_gain(0.0)
    before = kernel(tokens)
    before.square().mean().backward()
    assert all(p.grad is not None and not p.grad.any() for p in cross.values())
    with torch.no_grad():
        for p in cross.values():
            p.mul_(3.0)
    assert torch.equal(kernel(tokens), before)
    kernel.set_gain(1.0)
    assert not torch.equal(kernel(tokens), before)
    with pytest.raises(ConfigError, match="gain"):
        kernel.set_gain(-0.1)


def test_a_saved_state_brings_back_the_kernel_and_its_gain_under_strict_names() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    kernel.set_gain(0.25)
    other = Kernel(KernelConfig(width=32, heads=8, context=16, passes=3), seed=9)
    other.load_state_dict(kernel.state_dict())
    assert torch.equal(other(tokens), kernel(tokens))
    assert float(other.gain) == 0.25
    state = kernel.state_dict()
    state["stranger"] = state.pop("head")
    with pytest.raises(RuntimeError, match="stranger"):
        other.load_state_dict(state)


def test_equal_queries_and_keys_have_a_finite_gradient() -> None:
    kernel, tokens = Kernel(TINY), tokens_of()
    with torch.no_grad():
        for name in ("w_q", "w_k"):
            for p in getattr(kernel, name).parameters():
                p.zero_()
    kernel(tokens).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in kernel.parameters())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than they give at this size, and much more when the tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_hundred_steps_teach_it_something() -> None:
    config = KernelConfig(width=32, heads=4, context=32, passes=3)
    kernel, data = Kernel(config), default_corpus().train
    optimizer = torch.optim.AdamW(kernel.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    for step in range(100):
        tokens = torch.from_numpy(batch(data, seed=0, step=step, batch_size=4, context=32))
        loss = functional.cross_entropy(kernel(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(kernel.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[:3]) > 4.5
    assert np.mean(losses[-20:]) < 2.9
