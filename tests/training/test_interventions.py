"""Sleep, dream, perturb, escape: each does what its formula says, keeps its bound, or leaves the Gary as it was."""

import copy
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qig_core.errors import ConfigError
from qig_core.geometry.simplex import Basin, fisher_rao_distance
from qig_core.training import interventions as module
from qig_core.training.config import KernelConfig, build, preset
from qig_core.training.corpus import batch, default_corpus
from qig_core.training.digests import parameter_digest
from qig_core.training.interventions import Intervention, dream, escape, perturb, sleep
from qig_core.training.kernel import Kernel
from qig_core.training.noise import uniforms
from qig_core.training.perturbation import fisher_diagonal, shake
from qig_core.training.program_config import InterventionConfig
from qig_core.training.trainer import Trainer

CORPUS = default_corpus()
CONFIG = build(preset("tiny"))
SETTINGS = InterventionConfig(dream_texts=8)
Act = Callable[[Trainer, InterventionConfig], Intervention]


class Past:
    """A Gary after 100 steps, and what it was after 60."""

    def __init__(self) -> None:
        trainer = Trainer(CONFIG, CORPUS)
        for step in range(100):
            if step == 60:
                self.reference = measured(trainer)
                self.snapshot = copy.deepcopy(trainer.state())
                self.digest = parameter_digest(trainer.kernel)
            trainer.begin_step()
            trainer.forward_backward(step)
            trainer.update()
            if step % 20 == 0:
                trainer.measure()
        self.state = copy.deepcopy(trainer.state())

    def trainer(self) -> Trainer:
        trainer = Trainer(CONFIG, CORPUS)
        trainer.load(copy.deepcopy(self.state))
        return trainer


def measured(trainer: Trainer) -> Basin:
    found = trainer.probe.measure(trainer.kernel).basin
    assert found is not None
    return found


@pytest.fixture(scope="module")
def past() -> Past:
    return Past()


@pytest.fixture
def gary(past: Past) -> Trainer:
    return past.trainer()


@pytest.fixture(params=["sleep", "dream", "perturb", "escape"])
def verb(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def act(verb: str, past: Past) -> Act:
    acts: dict[str, Act] = {
        "sleep": lambda trainer, settings: sleep("gary1", trainer, past.reference, settings),
        "dream": lambda trainer, settings: dream("gary1", trainer, settings, seed=1, step=100),
        "perturb": lambda trainer, settings: perturb(
            "gary1", trainer, settings, seed=1, step=100, away_from=past.reference
        ),
        "escape": lambda trainer, settings: escape("gary1", trainer, past.snapshot),
    }
    return acts[verb]


def said(trainer: Trainer) -> Tensor:
    with torch.no_grad():
        logits: Tensor = trainer.kernel(trainer.probe.tokens)
    return logits.double().log_softmax(dim=-1)


def divergence(before: Tensor, after: Tensor) -> float:
    """By torch's own formula, a mean over the tokens."""
    return functional.kl_div(after, before, log_target=True, reduction="sum").item() / before[..., 0].numel()


def flattened(state: Any, where: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, each in state.items() for k, v in flattened(each, f"{where}.{key}").items()}
    if isinstance(state, list):
        return {k: v for key, each in enumerate(state) for k, v in flattened(each, f"{where}.{key}").items()}
    return {where: state}


def same(one: Any, other: Any) -> bool:
    """To the bit, NaN too."""
    one, other = flattened(one), flattened(other)
    return one.keys() == other.keys() and all(
        value.numpy().tobytes() == other[key].numpy().tobytes() if isinstance(value, Tensor) else value == other[key]
        for key, value in one.items()
    )


# What holds for all


def test_the_result_is_the_data_of_an_event(verb: str, act: Act, gary: Trainer) -> None:
    found = act(gary, SETTINGS)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data.keys() == {"verb", "gary", "before", "after", "bound", "undone", "reason"}
    assert (data["verb"], data["gary"], data["undone"], data["reason"]) == (verb, "gary1", False, "")
    assert data["bound"].keys() == {"name", "value", "limit", "unit"}
    assert data["bound"]["value"] <= data["bound"]["limit"]
    assert data["before"].keys() <= data["after"].keys()
    assert data["before"]["loss_heldout"] != data["after"]["loss_heldout"]


def test_the_held_out_loss_is_the_garys_before_and_after(act: Act, gary: Trainer) -> None:
    before = gary.heldout_loss()
    found = act(gary, SETTINGS)
    assert found.before["loss_heldout"] == before
    assert found.after["loss_heldout"] == gary.heldout_loss()


def test_nothing_but_parameters_is_touched(verb: str, act: Act, past: Past, gary: Trainer) -> None:
    for parameter in gary.learning:
        parameter.grad = torch.full_like(parameter, 0.5)
    gary.kernel.eval()
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    threads, identities = torch.get_num_threads(), [id(parameter) for parameter in gary.kernel.parameters()]
    given = copy.deepcopy((past.snapshot, past.reference.tolist()))
    act(gary, SETTINGS)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == generators[:2]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert torch.get_num_threads() == threads
    assert not gary.kernel.training
    assert [id(parameter) for parameter in gary.kernel.parameters()] == identities
    assert all(p.requires_grad and p.grad is not None and bool(torch.all(p.grad == 0.5)) for p in gary.learning)
    assert same(given[0], past.snapshot)
    assert given[1] == past.reference.tolist()
    if verb != "escape":
        kept = {key: value for key, value in gary.state().items() if key != "model"}
        assert same(kept, {key: past.state[key] for key in kept})


def test_it_is_a_pure_function_of_the_garys_state(act: Act, past: Past) -> None:
    one, other = past.trainer(), past.trainer()
    torch.manual_seed(77)
    assert act(one, SETTINGS) == act(other, SETTINGS)
    assert parameter_digest(one.kernel) == parameter_digest(other.kernel)


@pytest.mark.parametrize(
    ("verb", "over"),
    [
        ("sleep", {"sleep_rise_nats": 1e-9, "sleep_share": 1.0}),
        ("dream", {"dream_kl_nats": 1e-9}),
        ("perturb", {"perturb_kl_nats": 0.05, "perturb_damping": 1e-4}),  # the measured one is far beyond the predicted
    ],
)
def test_what_exceeds_its_bound_is_undone_to_the_bit(act: Act, past: Past, gary: Trainer, over: Any) -> None:
    found = act(gary, replace(SETTINGS, **over))
    assert found.undone
    assert found.bound.name in found.reason
    assert found.before["loss_heldout"] != found.after["loss_heldout"]
    assert same(gary.state(), past.state)


def test_a_broken_gary_is_left_as_it_is_by_all_but_escape(verb: str, act: Act, past: Past, gary: Trainer) -> None:
    with torch.no_grad():
        gary.kernel.w_q.within_a[0, 0] = torch.nan
    before = copy.deepcopy(gary.state())
    found = act(gary, SETTINGS)
    if verb == "escape":
        assert math.isnan(found.before["loss_heldout"])
        assert not found.undone
        assert parameter_digest(gary.kernel) == past.digest
        return
    assert found.undone
    assert "loss_heldout is nan" in found.reason
    assert same(gary.state(), before)


@pytest.mark.parametrize(("verb", "over"), [("dream", {"dream_lr": 1e30, "dream_kl_nats": 1e300})])
def test_what_makes_it_not_finite_is_undone(act: Act, past: Past, gary: Trainer, over: Any) -> None:
    found = act(gary, replace(SETTINGS, **over))
    assert found.undone
    assert "nan" in found.reason
    assert same(gary.state(), past.state)


def test_an_infinite_parameter_is_found_where_no_figure_shows_it(past: Past, gary: Trainer) -> None:
    """A byte that neither the probe nor the held-out text holds."""
    with torch.no_grad():
        gary.kernel.embedding[200, 0] = torch.inf
    found = sleep("gary1", gary, past.reference, SETTINGS)
    assert all(math.isfinite(value) for value in found.after.values())
    assert found.undone
    assert found.reason == "a parameter is not finite"


def test_only_what_the_gary_learns_by_moves(act: Act, verb: str, gary: Trainer) -> None:
    if verb == "escape":
        return
    cross = gary.kernel.cross_parameters()
    gary.learn_only(p for name, p in gary.kernel.named_parameters() if name not in cross)
    before = {name: p.detach().clone() for name, p in gary.kernel.named_parameters()}
    assert not act(gary, SETTINGS).undone
    moved = {name for name, p in gary.kernel.named_parameters() if not torch.equal(p, before[name])}
    assert not moved & cross.keys()
    assert moved >= before.keys() - cross.keys() - {"head"}


# Sleep


def test_sleep_brings_the_basin_back_by_the_share_of_every_pull(past: Past, gary: Trainer) -> None:
    d = float(fisher_rao_distance(measured(gary), past.reference))
    found = sleep("gary1", gary, past.reference, SETTINGS)
    assert found.before["distance_rad"] == pytest.approx(d, abs=1e-6)
    assert found.after["distance_rad"] == pytest.approx(
        float(fisher_rao_distance(measured(gary), past.reference)), abs=1e-6
    )
    assert found.after["distance_rad"] == pytest.approx(0.9**10 * d, rel=0.1)
    assert found.bound.value == found.after["loss_heldout"] - found.before["loss_heldout"]


# Dream


def test_a_dream_makes_it_surer_of_what_it_wrote(gary: Trainer) -> None:
    before, phi = said(gary), gary.probe.measure(gary.kernel).phi
    found = dream("gary1", gary, SETTINGS, seed=1, step=100)
    assert found.after["loss_own"] < found.before["loss_own"] - 0.02
    assert found.bound.value == pytest.approx(divergence(before, said(gary)), rel=1e-6)
    assert 0.0 < found.bound.value < SETTINGS.dream_kl_nats
    assert found.before["phi"] == phi
    assert found.after["phi"] == gary.probe.measure(gary.kernel).phi != phi


def test_what_is_dreamt_is_a_function_of_weights_seed_and_step(past: Past, gary: Trainer) -> None:
    def text(seed: int, step: int, trainer: Trainer = gary) -> list[list[int]]:
        found = module._dreamt(trainer, 2, seed=seed, step=step)
        assert found is not None
        told: list[list[int]] = found.tolist()
        return told

    assert text(1, 100) == text(1, 100)
    first = batch(CORPUS.train, seed=1, step=100, batch_size=2, context=1)[:, 0]
    assert [line[0] for line in text(1, 100)] == first.tolist()
    younger = past.trainer()
    younger.load(copy.deepcopy(past.snapshot))
    assert text(1, 100) not in (text(2, 100), text(1, 101), text(1, 100, younger))


def test_the_text_is_likely_to_the_kernel_that_wrote_it(gary: Trainer) -> None:
    """Its loss is the entropy of what it says: at temperature 1 neither more nor less."""
    text = module._dreamt(gary, 64, seed=3, step=3)
    assert text is not None
    assert text.shape == (64, CONFIG.kernel.context + 1)
    with torch.no_grad():
        logp = gary.kernel(text[:, :-1]).double().log_softmax(dim=-1)
    chosen = -logp.gather(-1, text[:, 1:, None])[..., 0]
    entropy = -(logp.exp() * logp).sum(dim=-1)
    excess = (chosen - entropy).flatten()  # a martingale difference: mean 0, uncorrelated
    assert abs(float(excess.mean())) < 4.0 * float(excess.std()) / len(excess) ** 0.5


def test_the_expected_first_step_of_a_dream_is_no_step(gary: Trainer) -> None:
    """E[∇ log p] = 0 under the p that wrote: over more text the gradient fades like noise, while the data's stays."""
    norms = []
    for num in (8, 128):
        text = module._dreamt(gary, num, seed=5, step=5)
        assert text is not None
        loss = functional.cross_entropy(gary.kernel(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        norms.append(torch.nn.utils.get_total_norm(torch.autograd.grad(loss, gary.learning)).item())
    assert norms[1] / norms[0] == pytest.approx(0.25, abs=0.08)


# Perturb


def test_a_perturbation_moves_what_is_said_as_far_as_it_is_to(gary: Trainer) -> None:
    before, origin = said(gary), measured(gary)
    found = perturb("gary1", gary, SETTINGS, seed=1, step=100, away_from=origin)
    assert found.after["kl_predicted_nats"] == pytest.approx(SETTINGS.perturb_kl_nats)
    assert found.bound.value == pytest.approx(divergence(before, said(gary)), rel=1e-6)
    assert found.bound.value == pytest.approx(SETTINGS.perturb_kl_nats, rel=0.3)
    assert found.bound.limit == 2.0 * SETTINGS.perturb_kl_nats
    assert found.before["distance_rad"] == pytest.approx(0.0, abs=1e-6)
    assert found.after["distance_rad"] == pytest.approx(found.after["moved_rad"], abs=1e-6)
    assert found.after["moved_rad"] > 0.03  # of two Garys that coincide, one alone is then no collapse any more


def test_for_small_targets_the_predicted_divergence_is_the_measured_one(past: Past) -> None:
    errors = []
    for target in (1e-2, 1e-4, 1e-6):
        gary = past.trainer()
        gary.kernel.double()
        found = perturb("gary1", gary, replace(SETTINGS, perturb_kl_nats=target), seed=2, step=100)
        errors.append(abs(found.bound.value / target - 1.0))
    assert errors[2] < 2e-3
    assert errors[1] < 0.3 * errors[0] or errors[1] < 0.01


def test_garys_with_seeds_of_their_own_go_different_ways(past: Past) -> None:
    one, other = past.trainer(), past.trainer()
    perturb("gary1", one, SETTINGS, seed=1, step=100)
    perturb("gary2", other, SETTINGS, seed=2, step=100)
    apart = float(fisher_rao_distance(measured(one), measured(other)))
    assert apart > 0.03


def test_the_noise_is_weaker_where_it_matters_more(past: Past, gary: Trainer) -> None:
    kernel, tokens = gary.kernel, gary.probe.tokens
    outputs = kernel(tokens)
    noise = uniforms(64 * tokens.numel(), seed=9, step=9, stream="labels").view(64, *tokens.shape)
    diagonal = fisher_diagonal(outputs, gary.learning, noise)
    before = torch.cat([p.detach().flatten() for p in gary.learning])
    shake(kernel, tokens, gary.learning, kl_nats=1e-4, draws=16, damping=0.1, seed=1, step=1)
    change = (torch.cat([p.detach().flatten() for p in gary.learning]) - before).square()
    order = diagonal.argsort()
    least, most = order[: len(order) // 10], order[-len(order) // 10 :]
    ratio = float(change[least].mean() / change[most].mean())
    wanted = (0.1 * float(diagonal.mean()) + float(diagonal[most].mean())) / (
        0.1 * float(diagonal.mean()) + float(diagonal[least].mean())
    )
    assert ratio == pytest.approx(wanted, rel=0.6)


def test_parameters_that_change_nothing_that_is_said_are_not_shaken(gary: Trainer) -> None:
    gary.kernel.set_gain(0.0)
    cross = list(gary.kernel.cross_parameters().values())
    digest = parameter_digest(gary.kernel)
    given = {"kl_nats": 0.01, "draws": 2, "damping": 1.0, "seed": 0, "step": 0}
    assert math.isnan(shake(gary.kernel, gary.probe.tokens, cross, **given))  # type: ignore[arg-type]
    assert parameter_digest(gary.kernel) == digest


def small_kernel() -> tuple[Kernel, list[Tensor]]:
    kernel = Kernel(KernelConfig(width=8, heads=2, context=4, vocab=5, passes=3)).double()
    return kernel, list(kernel.parameters())


def noise_for(outputs: Tensor, labels: tuple[int, ...]) -> Tensor:
    """[1, N]: what draws these labels, the middle of each one's interval."""
    p = outputs.detach().flatten(0, -2).softmax(dim=-1)
    middle = p.cumsum(dim=-1) - 0.5 * p
    return middle.gather(-1, torch.tensor(labels)[:, None]).T


def test_of_one_draw_the_fisher_diagonal_is_the_squared_score_over_the_rows() -> None:
    kernel, parameters = small_kernel()
    outputs = kernel(torch.tensor([[3, 1], [2, 0]]))
    labels = (4, 0, 2, 1)
    logp = outputs.flatten(0, 1).log_softmax(dim=-1)
    score = torch.autograd.grad(
        sum(logp[row, label] for row, label in enumerate(labels)),
        parameters,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    found = fisher_diagonal(outputs, parameters, noise_for(outputs, labels))
    torch.testing.assert_close(found, torch.cat([each.flatten() for each in score]).square() / 4.0)
    twice = torch.cat([noise_for(outputs, labels), noise_for(outputs, (1, 1, 1, 1))])
    other = fisher_diagonal(outputs, parameters, twice[1:])
    torch.testing.assert_close(fisher_diagonal(outputs, parameters, twice), 0.5 * (found + other))


def test_over_all_labels_that_the_model_gives_it_is_the_diagonal_of_the_true_fisher_matrix() -> None:
    """All 25 pairs of labels, as often as the model would say them: the expectation, without a draw."""
    kernel, parameters = small_kernel()
    outputs = kernel(torch.tensor([[3, 1]]))
    p = outputs.detach()[0].softmax(dim=-1)
    expected = torch.zeros(sum(each.numel() for each in parameters), dtype=torch.float64)
    for pair in product(range(5), repeat=2):
        share = float(p[0, pair[0]] * p[1, pair[1]])
        expected += share * fisher_diagonal(outputs, parameters, noise_for(outputs, pair))
    exact = torch.zeros_like(expected)
    for row, label in product(range(2), range(5)):
        logp = outputs[0, row].log_softmax(dim=-1)[label]
        scores = torch.autograd.grad(logp, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        exact += 0.5 * float(p[row, label]) * torch.cat([each.flatten() for each in scores]).square()
    assert float(exact.max()) > 0.01
    torch.testing.assert_close(expected, exact, rtol=1e-9, atol=1e-12)


# Escape


def test_escape_brings_the_snapshot_back_to_the_bit_with_the_optimisers_moments(past: Past, gary: Trainer) -> None:
    found = escape("gary1", gary, past.snapshot)
    assert (found.bound.value, found.bound.limit) == (0.0, 0.0)
    assert parameter_digest(gary.kernel) == past.digest
    wanted = {key: value for key, value in past.snapshot.items() if key != "breakdown"}
    assert same({key: gary.state()[key] for key in wanted}, wanted)
    moments = [each for each in flattened(gary.optimizer.state_dict()).values() if isinstance(each, Tensor)]
    assert len(moments) >= 3 * len(gary.learning)


def test_training_goes_on_from_a_snapshot_as_it_did_then_and_leaves_it_alone(past: Past, gary: Trainer) -> None:
    kept, then = copy.deepcopy(past.snapshot), Trainer(CONFIG, CORPUS)
    then.load(copy.deepcopy(past.snapshot))
    escape("gary1", gary, past.snapshot)
    for trainer in (gary, then):
        for step in range(60, 63):
            trainer.begin_step()
            trainer.forward_backward(step)
            trainer.update()
    assert parameter_digest(gary.kernel) == parameter_digest(then.kernel) != past.digest
    assert same(past.snapshot, kept)


def test_escape_may_slow_the_learning_down(past: Past, gary: Trainer) -> None:
    gary.scale_lr(0.25)
    escape("gary1", gary, past.snapshot, lr_factor=0.5)
    assert gary.lr_factor == 0.5  # the snapshot's own, 1, times the factor
    assert gary.learning_rate(1000) == 0.5 * CONFIG.optimizer.lr


def poisoned(snapshot: dict[str, Any]) -> None:
    snapshot["model"]["w_v.cross_ab"][0, 0] = torch.nan


def widened(snapshot: dict[str, Any]) -> None:
    snapshot["model"]["head"] = snapshot["model"]["head"].double() + 1e-12


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(poisoned, "loss_heldout is nan; a parameter is not finite"), (widened, "differing_tensors is 1, more than 0")],
)
def test_a_snapshot_that_is_no_good_changes_nothing(
    past: Past, gary: Trainer, spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    snapshot = copy.deepcopy(past.snapshot)
    spoil(snapshot)
    found = escape("gary1", gary, snapshot, lr_factor=0.5)
    assert found.undone
    assert reason in found.reason
    assert same(gary.state(), past.state)


# The configuration


@pytest.mark.parametrize(
    "bad", [{"sleep_share": 0.0}, {"sleep_share": 1.5}, {"dream_lr": 0.0}, {"perturb_kl_nats": math.inf}]
)
def test_numbers_that_cannot_be_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        InterventionConfig(**bad)  # type: ignore[arg-type]
