"""One look at a kernel: right, repeatable, and leaving no trace."""

import math

import numpy as np
import pytest
import torch

from qig_core.measures.integration import PhiResult, effective_information
from qig_core.measures.measurement import spread_positions
from qig_core.training.config import KernelConfig
from qig_core.training.corpus import default_corpus, probe_batch
from qig_core.training.kernel import Kernel
from qig_core.training.kernel_jacobian import pass_jacobians
from qig_core.training.measure import KernelProbe

TINY = KernelConfig(width=32, heads=8, context=16, passes=3)
TOKENS = probe_batch(default_corpus().heldout, context=16)


@pytest.fixture
def probe() -> KernelProbe:
    return KernelProbe(TINY, TOKENS, seed=0)


def phi_of_pass(kernel: Kernel, index: int) -> PhiResult:
    with torch.no_grad():
        seen, weights = kernel.observe(torch.from_numpy(TOKENS))[index], kernel.block_weights()
        j, rms_x, rms_y = pass_jacobians(seen, torch.from_numpy(spread_positions(*TOKENS.shape)), weights)
    return effective_information((j * (rms_x / rms_y)[:, None, None]).double().numpy(), TINY.parts)


def test_phi_is_the_effective_information_of_the_scaled_last_pass(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    seen = probe.measure(kernel)
    expected = phi_of_pass(kernel, -1)
    assert seen.phi == pytest.approx(expected.score, abs=1e-6)
    assert seen.phi_nats == pytest.approx(expected.nats, rel=1e-5)
    assert seen.integration is not None
    assert seen.integration.cut == expected.cut
    assert len(seen.integration.per_position_nats) == 8
    assert seen.nonfinite == {}
    assert seen.cost_s > 0.0


def test_every_pass_has_its_phi_when_asked(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    seen = probe.measure(kernel, every_pass=True)
    assert seen.per_pass == pytest.approx([phi_of_pass(kernel, n).score for n in range(3)], abs=1e-6)
    assert len(set(seen.per_pass)) == 3
    last = probe.measure(kernel)
    assert seen.per_pass[-1] == seen.phi == last.phi
    assert last.per_pass == ()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 2e-2)])
def test_a_kernel_of_another_precision_is_measured_too(
    probe: KernelProbe, dtype: torch.dtype, tolerance: float
) -> None:
    seen, other = probe.measure(Kernel(TINY)), probe.measure(Kernel(TINY).to(dtype), every_pass=True)
    assert other.nonfinite == {}
    assert other.phi == pytest.approx(seen.phi, abs=tolerance)
    assert other.kappa == pytest.approx(seen.kappa, rel=10 * tolerance)
    kernel = Kernel(TINY).to(dtype)
    kernel.set_gain(0.0)
    assert probe.measure(kernel).phi == 0.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_kernel_on_a_gpu_is_measured_as_on_the_cpu(probe: KernelProbe) -> None:
    kernel = Kernel(TINY).double()
    here, there = probe.measure(kernel), probe.measure(kernel.to("cuda"))
    assert there.phi == pytest.approx(here.phi, rel=1e-9)
    assert there.kappa == pytest.approx(here.kappa, rel=1e-6)


def test_a_broken_model_has_no_phi_of_any_pass(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    with torch.no_grad():
        kernel.embedding[:] = math.nan
    assert probe.measure(kernel, every_pass=True).per_pass == ()


def test_kappa_is_the_kernels_own(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    own = torch.linspace(2.0, 30.0, 8)
    with torch.no_grad():
        kernel.log_kappa.copy_(own.log())
    seen = probe.measure(kernel)
    assert seen.coupling is not None
    assert seen.coupling.per_head == pytest.approx(own.tolist(), rel=1e-5)
    assert seen.kappa == pytest.approx(16.0, rel=1e-5)
    assert seen.reasons == {}


def test_the_basin_is_a_point_of_the_simplex(probe: KernelProbe) -> None:
    basin = probe.measure(Kernel(TINY)).basin
    assert basin is not None
    assert basin.shape == (64,)
    assert basin.dtype == np.float64
    assert basin.sum() == pytest.approx(1.0, abs=1e-12)


def test_phi_is_exactly_zero_at_gain_zero(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    assert (probe.measure(kernel).phi or 0.0) > 0.5
    kernel.set_gain(0.0)
    seen = probe.measure(kernel)
    assert seen.phi == 0.0
    assert seen.metrics()["phi_nats"] == 0.0


def test_measuring_leaves_no_trace_and_repeats_bit_by_bit(probe: KernelProbe) -> None:
    kernel = Kernel(TINY)
    before = {name: value.clone() for name, value in kernel.state_dict().items()}
    generator = torch.get_rng_state()
    first = probe.measure(kernel, every_pass=True)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in kernel.state_dict().items())
    assert all(p.grad is None for p in kernel.parameters())
    again = KernelProbe(TINY, TOKENS, seed=0).measure(kernel, every_pass=True)
    assert (again.metrics(), again.integration, again.coupling) == (first.metrics(), first.integration, first.coupling)
    assert again.basin is not None
    np.testing.assert_array_equal(again.basin, first.basin)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_as_it_was(probe: KernelProbe, training: bool) -> None:
    kernel = Kernel(TINY).train(training)
    probe.measure(kernel)
    assert kernel.training is training


@pytest.mark.parametrize(("bad", "kind"), [(math.nan, "nan"), (math.inf, "nan")])
def test_a_broken_model_is_named_and_not_an_exception(probe: KernelProbe, bad: float, kind: str) -> None:
    kernel = Kernel(TINY)
    with torch.no_grad():
        kernel.w_v.within_a[0, 0] = bad
    seen = probe.measure(kernel)
    assert (seen.phi, seen.phi_nats, seen.basin, seen.integration) == (None, None, None, None)
    assert seen.nonfinite["phi"] == seen.nonfinite["phi_nats"] == seen.nonfinite["basin"] == kind
    assert math.isnan(seen.metrics()["phi"] or 0.0)
    # A broken half spoils every head that reads it.
    assert seen.kappa is None
    assert seen.coupling is not None
    assert seen.coupling.reason == "not finite"
    assert "kappa" in seen.nonfinite


def test_the_digest_names_the_probe() -> None:
    same = KernelProbe(TINY, TOKENS.copy(), spread_positions(8, 16), seed=0)
    assert same.probe_digest == KernelProbe(TINY, TOKENS).probe_digest == same.facts()["digest"]
    others = (
        KernelProbe(TINY, TOKENS, seed=1),
        KernelProbe(TINY, TOKENS[::-1]),
        KernelProbe(TINY, TOKENS, spread_positions(8, 16)[:4]),
    )
    assert len({same.probe_digest, *(other.probe_digest for other in others)}) == 4


def test_positions_spread_over_the_sequences_and_the_later_half() -> None:
    positions = spread_positions(8, 64)
    assert positions[:, 0].tolist() == list(range(8))
    assert positions[:, 1].min() == 32
    assert positions[:, 1].max() == 63


def test_a_probe_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="context of 16"):
        KernelProbe(TINY, np.zeros((2, 17), dtype=np.int64))
    with pytest.raises(ValueError, match="positions"):
        KernelProbe(TINY, TOKENS, np.array([[8, 0]]))
    with pytest.raises(ValueError, match="another shape"):
        KernelProbe(TINY, TOKENS).measure(Kernel(KernelConfig(width=64)))
