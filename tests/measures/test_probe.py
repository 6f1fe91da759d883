"""A probe on models that nobody wrote for it: the right figures, and no trace."""

import copy
import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qig_core.errors import ProbeError
from qig_core.measures.integration import effective_information
from qig_core.measures.measurement import NOT_NOW, spread_positions
from qig_core.measures.probe import Probe
from qig_core.measures.transition import equal_parts
from qig_core.training.config import KernelConfig
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from tests import warm
from tests.measures.foreign import CONTEXT, TOKENS, VOCAB, Encoder, Lstm, Recurrent, bert, gpt2, llama, logits_of, mlp

MODELS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "encoder": (Encoder, "encoder.layers.2", "forward"),
    "encoder, time first": (lambda: Encoder(batch_first=False), "encoder.layers.2", "forward"),
    "recurrent": (Recurrent, "block", "forward"),
    "lstm": (Lstm, "lstm", "reverse"),
    "mlp": (mlp, "4", "forward"),
    "gpt2": (gpt2, "transformer.h.1", "forward"),
    "gpt2, attention written out": (lambda: gpt2("eager"), "transformer.h.1", "forward"),
    "llama": (llama, "model.layers.1", "forward"),
    "bert": (bert, "encoder.layer.1", "forward"),
}
WITHOUT_ATTENTION = ("lstm", "mlp")


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_measured_and_the_block_is_the_expected_one(name: str) -> None:
    make, block, mode = MODELS[name]
    with Probe(made(make), TOKENS) as probe:
        seen = probe.measure()
        assert probe.facts()["block"] == block
        assert seen.mode == mode
        assert seen.nonfinite == {}
        assert seen.phi is not None
        assert 0.0 < seen.phi < 1.0
        assert seen.integration is not None
        assert len(seen.integration.per_position_nats) == 8
        assert seen.basin is not None
        assert seen.basin.shape == (64,)
        assert seen.basin.sum() == pytest.approx(1.0, abs=1e-12)
        if name in WITHOUT_ATTENTION:
            assert seen.coupling is None
            assert seen.reasons == {"kappa": f"{block} shows no attention"}
        else:
            assert seen.reasons == {}
            assert seen.coupling is not None
            assert len(seen.coupling.per_head) == 4
            assert seen.kappa is not None
            assert all(error is not None and error > 0.0 for error in seen.coupling.std_error)
        again = probe.measure()
        assert (again.phi, again.kappa) == pytest.approx((seen.phi, seen.kappa), rel=1e-6, nan_ok=True)
        assert np.array_equal(again.basin, seen.basin)  # type: ignore[arg-type]


def test_phi_is_that_of_the_blocks_own_jacobian() -> None:
    model = made(gpt2).eval()
    probe = Probe(model, TOKENS, rank=99)
    seen, offsets = probe.measure(), probe.facts()["positions"]
    inputs: list[tuple[Any, Any]] = []
    block = model.get_submodule("transformer.h.1")
    handle = block.register_forward_pre_hook(lambda _m, a, k: inputs.append((a, k)), with_kwargs=True)
    with torch.no_grad():
        model(TOKENS, use_cache=False)
    handle.remove()
    (hidden, *rest), kwargs = inputs[0]
    maps = []
    for sequence, offset in enumerate(offsets):

        def one(x: Tensor, sequence: int = sequence, offset: int = offset) -> Tensor:
            varied = hidden.clone()
            varied[sequence, offset] = x
            y = block(varied, *rest, **kwargs)
            return (y if isinstance(y, Tensor) else y[0])[sequence, offset]

        x = hidden[sequence, offset]
        jacobian = torch.autograd.functional.jacobian(one, x)
        maps.append((jacobian * x.norm() / one(x).norm()).detach().double().numpy())
    expected = effective_information(np.array(maps), equal_parts(32, 8))
    assert seen.integration is not None
    assert seen.integration.nats == pytest.approx(expected.nats, rel=1e-4)
    assert seen.integration.cut == expected.cut


class OurPass(nn.Module):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = [kernel]  # not a submodule of its own

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel[0]._pass(x, self.kernel[0].block_weights()).state


class OurKernel(nn.Module):
    """Our kernel as a stranger would have written it: an embedding, a block called four times, a head."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.block = OurPass(kernel)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.kernel._embed(tokens)
        for _ in range(self.kernel.config.passes):
            x = self.block(x)
        return x


def test_phi_means_the_same_on_a_foreign_model() -> None:
    config = KernelConfig(width=32, heads=8, context=CONTEXT, passes=4)
    kernel = Kernel(config)
    ours = KernelProbe(config, TOKENS.numpy(), spread_positions(8, CONTEXT)).measure(kernel)
    probe = Probe(OurKernel(kernel), TOKENS, block="block", rank=99)
    # The same positions: those are ours, from the middle to the end.
    assert probe.facts()["positions"] == spread_positions(8, CONTEXT)[:, 1].tolist()
    theirs = probe.measure()
    assert ours.phi is not None
    assert theirs.phi == pytest.approx(ours.phi, abs=1e-5)
    assert theirs.integration is not None
    assert ours.integration is not None
    assert theirs.integration.cut == ours.integration.cut


def test_an_uncoupled_foreign_block_scores_exactly_zero() -> None:
    model = nn.Sequential(nn.Embedding(VOCAB, 32), nn.Linear(32, 32, bias=False), nn.Linear(32, VOCAB))
    with torch.no_grad():
        model[1].weight.copy_(torch.block_diag(torch.randn(16, 16), torch.randn(16, 16)))
    assert Probe(model, TOKENS, block="1").measure().phi == 0.0
    assert Probe(model, TOKENS, block="1", rank=2).measure().phi == 0.0


def test_every_pass_of_a_recurrent_block_can_be_seen() -> None:
    probe = Probe(made(Recurrent), TOKENS)
    seen = probe.measure(every_pass=True)
    assert len(seen.per_pass) == 4
    assert seen.per_pass[-1] == seen.phi == pytest.approx(probe.measure().phi)
    assert len(set(seen.per_pass)) == 4


def trained(
    make: Callable[[], nn.Module], probed: bool, wrap: Callable[[nn.Module], Any] = lambda m: m
) -> list[Tensor]:
    """Three steps with dropout on: logits, gradients, parameters, buffers and what the generators give next."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = make()
    called = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(called, TOKENS, every=1, max_overhead=math.inf) if probed else None
    kept: list[Tensor] = []
    for step in range(3):
        tokens = torch.randint(0, VOCAB, (4, CONTEXT))
        logits = logits_of(called(tokens))
        optimizer.zero_grad()
        logits.square().mean().backward()
        if probe is not None:
            assert probe(step).phi is not None
        kept += [logits.detach().clone(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        optimizer.step()
    drawn = torch.tensor([random.random(), np.random.random()])
    return [*kept, *model.parameters(), *model.buffers(), torch.rand(3), drawn]


@pytest.mark.parametrize("name", MODELS)
def test_a_probe_changes_no_bit_of_outputs_gradients_buffers_or_random_numbers(name: str) -> None:
    make = MODELS[name][0]
    for with_probe, without in zip(trained(make, True), trained(make, False), strict=True):
        assert torch.equal(with_probe, without)


class Restless(nn.Module):
    """Counts its calls in a buffer, draws noise, and has a batch norm: everything that a look could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 32)
        self.norm = nn.BatchNorm1d(CONTEXT)
        self.block = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.Tanh())
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        x = self.embedding(tokens) + random.random() + float(np.random.random())
        return self.block(self.norm(x + torch.randn_like(x)))


def test_a_restless_model_is_left_as_it_was() -> None:
    for with_probe, without in zip(trained(Restless, True), trained(Restless, False), strict=True):
        assert torch.equal(with_probe, without)


def test_modes_and_hooks_are_put_back_one_by_one() -> None:
    model = made(Encoder).train()
    model.encoder.layers[0].eval()  # somebody froze one
    before = [module.training for module in model.modules()]
    with Probe(model, TOKENS) as probe:
        probe.measure()
    assert [module.training for module in model.modules()] == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_the_hook_that_waits_for_a_first_batch_goes_with_it_or_on_exit() -> None:
    model = made(Encoder)
    with Probe(model, every=1, max_overhead=math.inf) as probe:
        assert len(model._forward_pre_hooks) == 1
        assert probe(0) is NOT_NOW
        with pytest.raises(ProbeError, match="no batch to measure on yet"):
            probe.measure()
        model(TOKENS[:3])
        assert len(model._forward_pre_hooks) == 0
        model(TOKENS[3:])
        seen = probe(1)
        assert probe.facts()["batch"] == "the first that the model was called with"
    assert seen.phi == pytest.approx(Probe(model, TOKENS[[0, 1, 2, 0, 1, 2, 0, 1]]).measure().phi, rel=1e-6)
    with Probe(model):
        pass
    assert len(model._forward_pre_hooks) == 0


def test_autocast_around_the_loop_does_not_round_the_measures() -> None:
    model = made(gpt2)
    plain = Probe(model, TOKENS).measure()
    with torch.autocast("cpu", torch.bfloat16):
        model(TOKENS)
        under = Probe(model, TOKENS).measure()
    assert (under.phi, under.kappa) == (plain.phi, plain.kappa)


def test_a_model_in_half_precision_is_differentiated_in_single() -> None:
    model = made(gpt2)
    exact, half = Probe(model, TOKENS).measure(), Probe(copy.deepcopy(model).bfloat16(), TOKENS).measure()
    assert half.reasons == {}
    assert half.phi == pytest.approx(exact.phi, abs=0.01)
    assert half.kappa == pytest.approx(exact.kappa, rel=0.05)


class Checkpointed(Encoder):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__(dropout=0.0)
        self.reentrant = reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.encoder.layers:
            x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_no_obstacle(reentrant: bool) -> None:
    def make() -> nn.Module:
        return Checkpointed(reentrant=reentrant)

    assert Probe(made(make), TOKENS).measure().mode == "forward"
    for with_probe, without in zip(trained(make, True), trained(make, False), strict=True):
        assert torch.equal(with_probe, without)


def test_hugging_faces_checkpointing_is_no_obstacle() -> None:
    def make() -> nn.Module:
        model = gpt2()
        model.activation_checkpointing_enable()
        return model

    for with_probe, without in zip(trained(make, True), trained(make, False), strict=True):
        assert torch.equal(with_probe, without)


COMPILED = """
import math, sys
import torch
from torch._dynamo.testing import CompileCounter
from qig_core.measures.probe import Probe
from tests.measures.foreign import TOKENS, Encoder, gpt2, logits_of


def trained(how, probed, batch):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, count = gpt2() if how == "by layer" else Encoder(dropout=0.0), CompileCounter()
    called = torch.compile(model, backend=count) if how == "wrapped" else model
    if how == "in place":
        model.compile(backend=count)
    elif how == "by layer":
        for layer in model.transformer.h:
            layer.compile(backend=count)
    probe = Probe(called, batch, every=1, max_overhead=math.inf) if probed else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total, frames = 0.0, []
    for step in range(4):
        logits = logits_of(called(TOKENS[:4]))
        optimizer.zero_grad()
        logits.square().mean().backward()
        assert probe is None or probe(step).phi is not None
        optimizer.step()
        total += float(logits.detach().double().sum())
        frames.append(count.frame_count)
    return repr(total), frames[0] > 0, frames[-1] - frames[1]


alone = trained(sys.argv[1], False, None)
print(alone, trained(sys.argv[1], True, TOKENS) == alone, trained(sys.argv[1], True, None) == alone)
"""


@pytest.mark.parametrize("how", ["wrapped", "in place", "by layer"])
def test_a_compiled_model_stays_compiled_and_gives_the_same_bits(how: str) -> None:
    done = warm.run(warm.code, COMPILED, how)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("True, 0) True True\n")


DISTRIBUTED = """
import math, os, sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from qig_core.measures.probe import Probe
from tests.measures.foreign import TOKENS, Encoder

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
model = DistributedDataParallel(Encoder(dropout=0.0))
probe = Probe(model, TOKENS, every=1, max_overhead=math.inf) if rank == 0 else None
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    loss = model(TOKENS[rank::2]).square().mean()
    optimizer.zero_grad(); loss.backward()
    if probe is not None:
        seen = probe(step)
        assert seen.phi is not None
    optimizer.step()
print(repr(float(sum(p.double().sum() for p in model.parameters()))))
distributed.destroy_process_group()
"""


def test_one_rank_of_two_may_measure_alone(tmp_path: Path) -> None:
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # whatever the host's name resolves to
    ranks = [
        warm.Warm(warm.code, [DISTRIBUTED, str(rank), tmp_path / "meet"], env=os.environ | loopback)
        for rank in range(2)
    ]
    ends = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ends
    assert ends[0][0] == ends[1][0]


def test_broken_activations_are_named_with_the_module_that_broke() -> None:
    model = made(Encoder)
    probe = Probe(model, TOKENS)
    with torch.no_grad():
        model.encoder.layers[1].linear2.weight[0, 0] = torch.nan
    seen = probe.measure()
    assert seen.phi is None
    assert seen.kappa is None
    assert seen.basin is None
    assert seen.nonfinite == {"output": "nan", "phi": "nan", "phi_nats": "nan", "kappa": "nan", "basin": "nan"}
    assert seen.broken_at == "encoder.layers.1.linear2"
    assert seen.reasons["phi"] == "nan, first in encoder.layers.1.linear2"
    metrics = seen.metrics()
    assert all(math.isnan(metrics[name]) for name in ("phi", "phi_nats", "kappa"))  # type: ignore[arg-type]


def test_a_name_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProbeError, match=r"no module 'encoder.layer.2'; nearest: encoder.layers.2"):
        Probe(made(Encoder), block="encoder.layer.2")
    with pytest.raises(ProbeError, match="no module 'x'"):
        Probe(nn.Linear(2, 2), block="x")


def test_a_block_whose_tensors_are_no_states_is_refused() -> None:
    with pytest.raises(ProbeError, match=r"embedding takes no floating-point tensor and gives \(8, 16, 32\)"):
        Probe(made(Encoder), TOKENS, block="embedding")
    with pytest.raises(ProbeError, match="no module of this model takes a state"):
        Probe(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.randn(8, 4, 4))
    with pytest.raises(ProbeError, match=r"no module of this model takes a state.*name one of 0, 2"):
        Probe(nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 10)), torch.randn(8, 9))
    model = made(Encoder)
    model.unused = nn.Linear(32, 32)
    with pytest.raises(ProbeError, match="unused was not called"):
        Probe(model, TOKENS, block="unused")
    with pytest.raises(ProbeError, match="at least one feature for each of 12 parts"):
        Probe(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.randn(8, 8), block="0", parts=12)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"parts": 1}, "parts is 1: it must be a whole number, at least 2"),
        ({"parts": 13}, "parts is 13: at most 12"),
        ({"parts": 2.5}, "parts is 2.5: it must be a whole number"),
        ({"rank": 0}, "rank is 0"),
        ({"every": "10"}, "every is '10'"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be positive"),
        ({"noise": math.nan}, "noise is nan"),
        ({"max_overhead": 3}, r"max_overhead is 3: a share in \(0, 1\]"),
        ({"batch_dim": 5}, "batch_dim is 5: no tensor of the batch has so many dimensions"),
        ({"block": nn.Linear(2, 2)}, "the block, a Linear, is not a module of this model"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_words(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProbeError, match=sentence):
        Probe(made(Encoder), TOKENS, **settings)


def test_what_is_no_model_or_no_batch_is_refused_in_words() -> None:
    with pytest.raises(ProbeError, match="not on function"):
        Probe(lambda x: x, TOKENS)  # type: ignore[arg-type]
    with pytest.raises(IndexError) as raised:
        Probe(made(Encoder), TOKENS + 1000)
    assert raised.value.__notes__ == ["raised by the model when the probe called it with its batch"]
    with pytest.raises(ProbeError, match="at least one sequence"):
        Probe(made(Encoder), TOKENS[:0])


class Forgetful(nn.Module):
    """A block whose answer depends on how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.times = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return self.linear(x) * self.times


def test_a_block_that_does_not_repeat_itself_gets_no_phi() -> None:
    model = nn.Sequential(nn.Embedding(VOCAB, 32), Forgetful(), nn.Linear(32, VOCAB))
    seen = Probe(model, TOKENS, block="1").measure()
    assert seen.phi is None
    assert seen.reasons["phi"] == "1 called again with its own inputs answers otherwise"
    assert seen.nonfinite == {}
    assert seen.basin is not None


def test_a_block_without_a_derivative_gets_no_phi() -> None:
    class Torn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.detach().numpy() * 2.0)

    model = nn.Sequential(nn.Embedding(VOCAB, 32), Torn(), nn.Linear(32, VOCAB))
    seen = Probe(model, TOKENS, block="1").measure()
    assert seen.phi is None
    assert "no Jacobian of 1" in seen.reasons["phi"]


def test_positions_do_not_lie_in_padding() -> None:
    mask = torch.ones(8, CONTEXT, dtype=torch.long)
    mask[1, 5:] = 0
    batch = {"input_ids": TOKENS, "attention_mask": mask}
    probe = Probe(made(bert), batch)
    offsets = probe.facts()["positions"]
    assert offsets[1] <= 4
    seen = probe.measure()
    # What stands in the padding is seen by nobody.
    other = {"input_ids": TOKENS.masked_fill(mask == 0, 3), "attention_mask": mask}
    again = Probe(made(bert), other).measure()
    assert again.phi == pytest.approx(seen.phi, rel=1e-5)
    np.testing.assert_allclose(again.basin, seen.basin, rtol=1e-5)  # type: ignore[arg-type]


def test_a_measurement_that_would_cost_too_much_is_left_out_and_counted() -> None:
    probe = Probe(made(Encoder), TOKENS, every=2, max_overhead=1e-6)
    taken = [step for step in range(8) if probe(step) is not NOT_NOW]
    spent = probe.spent()
    assert taken == [0]
    assert (spent.num_measured, spent.num_skipped, spent.every) == (1, 3, 2)
    assert "1 measurement of" in spent.text()
    assert "3 turns left out" in spent.text()


def test_the_birth_is_measured_once_and_again_only_if_the_model_is_another() -> None:
    model = made(Encoder)
    probe = Probe(model, TOKENS)
    assert probe.spent().text() == "nothing measured yet"
    born = probe(0)
    assert born.phi == Probe(model, TOKENS).measure().phi
    assert (probe.spent().birth_s, probe.spent().num_measured) == (born.cost_s, 1)
    other = Probe(model, TOKENS)
    with torch.no_grad():
        model.encoder.layers[2].linear2.weight.mul_(1.5)
    assert other(0).phi != born.phi
    assert other.spent().birth_s == 0.0


def test_what_breaks_after_the_block_is_named_too() -> None:
    model = made(Encoder)
    with torch.no_grad():
        model.head.bias[3] = torch.inf
    seen = Probe(model, TOKENS).measure()
    assert seen.phi is not None
    assert (seen.nonfinite, seen.broken_at) == ({"output": "inf"}, "head")


def test_a_state_of_zero_has_no_phi_and_no_alarm() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    seen = Probe(model, torch.randn(8, 16), block="2").measure()
    assert (seen.phi, seen.nonfinite) == (None, {})
    assert seen.reasons["phi"] == "the state before or after 2 is 0: it has no size that a change is relative to"


@pytest.mark.parametrize("make", [bert, gpt2])
def test_no_measure_sees_what_stands_in_the_padding(make: Callable[[], nn.Module]) -> None:
    mask = torch.ones(8, CONTEXT, dtype=torch.long)
    mask[:, 10:] = 0
    found = [
        Probe(made(make), {"input_ids": tokens, "attention_mask": mask}).measure()
        for tokens in (TOKENS, TOKENS.masked_fill(mask == 0, 3))
    ]
    assert found[0].kappa == pytest.approx(found[1].kappa, rel=1e-5)
    assert found[0].phi == pytest.approx(found[1].phi, rel=1e-5)
    cut = Probe(made(make), TOKENS[:, :10]).measure()
    assert cut.kappa == pytest.approx(found[0].kappa, rel=1e-4)
    assert cut.phi == pytest.approx(found[0].phi, rel=1e-4)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_model_itself_may_be_the_block(batch_first: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 5, 16)
    probe = Probe(
        nn.LSTM(16, 16, batch_first=batch_first), x if batch_first else x.transpose(0, 1), batch_dim=1 - batch_first
    )
    assert probe.facts()["block"] == "the model"
    assert probe.measure().phi is not None
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    assert Probe(layer, x).facts()["block"] == "the model"


def test_the_last_of_equal_layers_is_the_block_and_a_module_can_be_named_by_itself() -> None:
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)), nn.Linear(16, 4))
    assert Probe(model, torch.randn(8, 16)).facts()["block"] == "2"
    assert Probe(model, np.zeros((8, 16), dtype=np.float32) + 1.0, block=model[1]).facts()["block"] == "1"


def test_drift_and_regime_go_on_after_a_resume() -> None:
    model = made(Encoder)
    probe = Probe(model, TOKENS, every=1, max_overhead=math.inf, rank=99)
    first = probe(0)
    assert first.drift == {"drift_birth": 0.0}
    assert first.regime is not None
    other = Probe(model, TOKENS, every=1, max_overhead=math.inf, rank=99)
    other.load(json.loads(json.dumps(probe.state())))
    with torch.no_grad():
        model.head.weight.add_(1.0)
        model.encoder.layers[2].linear2.weight.mul_(1.5)
    moved = other(1)
    assert moved.drift["drift_birth"] == moved.drift["drift_velocity"] > 0.0
    assert moved.basin_bytes is not None
    assert len(moved.basin_bytes) == 256
    assert Probe(model, TOKENS, every=1, rank=1)(0).regime is None  # its boundaries are those of full rank
    with pytest.raises(ProbeError, match="the state is that of another probe"):
        Probe(model, TOKENS.flip(0)).load(probe.state())
    for state in ({}, None):
        with pytest.raises(ValueError, match="not the state of a probe"):
            probe.load(state)  # type: ignore[arg-type]


def test_the_facts_change_with_what_makes_measures_incomparable() -> None:
    model = made(Encoder)

    def digest(**settings: Any) -> str:
        return str(Probe(model, settings.pop("tokens", TOKENS), **settings).facts()["digest"])

    same = digest()
    assert digest() == same
    others = [digest(rank=2), digest(block="encoder.layers.0"), digest(seed=1), digest(tokens=TOKENS.flip(0))]
    assert len({same, *others}) == 5
