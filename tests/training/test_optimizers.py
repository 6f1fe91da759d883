"""Which optimiser trains: how it is asked for, what it does to the kernel, how its state comes back."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from qig_core.errors import ConfigError
from qig_core.geometry.natural import NaturalGradient
from qig_core.training.config import PRESETS, build, merge, overridden, resume_config
from qig_core.training.corpus import default_corpus
from qig_core.training.specs import specs_of
from qig_core.training.trainer import Trainer

NATURAL = {"optimizer": "natural"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(over: dict[str, Any]) -> Trainer:
    return Trainer(build(merge(PRESETS["tiny"], over)), default_corpus())


def advance(trainer: Trainer, steps: range) -> list[dict[str, float | None]]:
    seen = []
    for step in steps:
        seen.append(trainer.forward_backward(step))
        trainer.update()
    return seen


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_short_form_is_that_optimiser_with_its_own_defaults(preset: str) -> None:
    config = build(merge(PRESETS[preset], NATURAL)).optimizer
    assert (config.name, config.lr, config.warmup_steps) == ("natural", 0.1, 0)
    assert (config.weight_decay, config.clip_norm) == (0.0, 0.0)
    assert min(config.damping, config.damping_min, config.kl_max, config.cg_iterations, config.warm_start) > 0
    assert build(merge(PRESETS[preset], {"optimizer": {"name": "natural"}})).optimizer == config
    assert build(merge(PRESETS[preset], {"optimizer": "adamw"})) == build(PRESETS[preset])


def test_a_table_keeps_the_rate_of_its_preset_unless_it_names_another_optimiser() -> None:
    assert build(merge(PRESETS["tiny"], {"optimizer": {"warmup_steps": 5}})).optimizer.lr == 1e-2
    other = build(merge(PRESETS["tiny"], {"optimizer": {"name": "natural", "kl_max": 0.5}})).optimizer
    assert (other.lr, other.kl_max, other.warmup_steps) == (0.1, 0.5, 0)
    assert overridden(PRESETS["tiny"], NATURAL) == ["optimizer.name"]
    assert overridden(PRESETS["tiny"], {"optimizer": "adamw"}) == []


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        ("natrual", "unknown optimizer 'natrual'; did you mean natural?"),
        ({"name": "sgd"}, "unknown optimizer 'sgd'"),
        ({"name": "sgd"}, "known here: adamw, natural"),
        ({"name": 3}, "optimizer.name"),
        (3, "optimizer must be a table"),
        ({"dampingg": 1.0}, "did you mean optimizer.damping?"),
        ({"damping": 1.0}, "damping does nothing for adamw"),
        ({"name": "natural", "weight_decay": 0.1}, "weight_decay does nothing for natural"),
        ({"name": "natural", "clip_norm": 1.0}, "clip_norm does nothing for natural"),
        ({"name": "natural", "kl_max": 0.0}, "kl_max is 0.0"),
        ({"name": "natural", "cg_iterations": 0}, "cg_iterations is 0"),
        ({"name": "natural", "warm_start": 1.5}, "warm_start is 1.5"),
        ({"name": "natural", "damping": -1.0}, "damping is -1.0"),
    ],
)
def test_an_optimiser_that_cannot_be_is_refused_in_one_sentence(optimizer: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(merge(PRESETS["tiny"], {"optimizer": optimizer}))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_recorded_configuration_is_explicit_and_comes_back_as_it_was() -> None:
    config = build(merge(PRESETS["tiny"], NATURAL))
    recorded = dataclasses.asdict(config)
    assert {"name", "lr", "damping", "kl_max", "cg_iterations"} <= recorded["optimizer"].keys()
    assert build(recorded) == config
    assert resume_config(recorded, {"steps": 400} | NATURAL) == dataclasses.replace(config, steps=400)
    assert resume_config(recorded, {"optimizer": {"lr": 0.05}}).optimizer.lr == 0.05


def test_a_configuration_that_was_recorded_before_there_was_a_choice_resumes_with_adamw() -> None:
    recorded = dataclasses.asdict(build(PRESETS["tiny"]))
    recorded["optimizer"] = {"lr": 1e-2, "warmup_steps": 20, "weight_decay": 0.01, "clip_norm": 1.0}
    assert resume_config(recorded, {"steps": 400, "optimizer": "adamw"}).optimizer == build(PRESETS["tiny"]).optimizer


@pytest.mark.parametrize(("before", "after"), [("adamw", "natural"), ("natural", "adamw")])
def test_a_resume_may_not_change_the_optimiser(before: str, after: str) -> None:
    recorded = dataclasses.asdict(build(merge(PRESETS["tiny"], {"optimizer": before})))
    with pytest.raises(ConfigError, match=f"optimizer.name \\('{before}' -> '{after}'\\)"):
        resume_config(recorded, {"optimizer": after})


def test_thirty_natural_steps_teach_the_tiny_kernel_more_than_as_many_of_adamw() -> None:
    reached = {}
    for name in ("natural", "adamw"):
        one = trainer({"optimizer": name})
        before = one.heldout_loss()
        advance(one, range(30))
        reached[name] = one.heldout_loss()
        assert reached[name] < before - 1.5
    assert reached["natural"] < reached["adamw"]


def test_natural_steps_report_what_they_did_and_adamw_nothing_new() -> None:
    first, second = advance(trainer(NATURAL), range(2))
    assert "step_kl" not in first
    assert first["damping"] == 0.1
    assert 0.0 < float(second["step_kl"] or 0.0) <= 0.02
    assert second["cg_iterations"] == 3.0
    assert math.isfinite(float(second["reduction_ratio"] or math.nan))
    shown = {spec.name for spec in specs_of("natural")} - {spec.name for spec in specs_of("adamw")}
    (adamw,) = advance(trainer({}), range(1))
    assert shown == second.keys() - adamw.keys()


def test_a_gradient_of_a_natural_step_is_not_clipped() -> None:
    one = trainer(NATURAL)
    norm = one.forward_backward(0)["grad_norm"]
    assert torch.nn.utils.get_total_norm([p.grad for p in one.kernel.parameters() if p.grad is not None]).item() == norm


@pytest.mark.parametrize("optimizer", ["adamw", "natural"])
def test_a_trainer_that_took_over_anothers_state_goes_on_to_the_bit(optimizer: str) -> None:
    whole, first, second = (trainer({"optimizer": optimizer}) for _ in range(3))
    expected = advance(whole, range(8))
    advance(first, range(5))
    first.begin_step()
    second.load(first.state())
    assert advance(second, range(5, 8)) == expected[5:]
    assert all(torch.equal(a, b) for a, b in zip(whole.kernel.parameters(), second.kernel.parameters(), strict=True))


@pytest.mark.parametrize(("parent", "child"), [("adamw", "natural"), ("natural", "adamw")])
def test_a_fork_with_another_optimiser_keeps_the_weights_and_begins_the_optimiser_anew(parent: str, child: str) -> None:
    one, other = trainer({"optimizer": parent}), trainer({"optimizer": child})
    advance(one, range(3))
    one.begin_step()
    other.load(one.state())
    assert all(torch.equal(a, b) for a, b in zip(one.kernel.parameters(), other.kernel.parameters(), strict=True))
    assert other.optimizer.state_dict()["state"] == {}
    advance(other, range(3, 5))


def test_a_fork_with_other_settings_trains_with_its_own() -> None:
    one = trainer({"optimizer": {"name": "natural", "kl_max": 0.5}})
    advance(one, range(3))
    one.begin_step()
    other = trainer({"optimizer": {"name": "natural", "kl_max": 0.001}})
    other.load(one.state())
    assert isinstance(one.optimizer, NaturalGradient)
    assert isinstance(other.optimizer, NaturalGradient)
    assert other.optimizer.damping == one.optimizer.damping != 0.1
    advance(other, range(3, 4))
    assert other.optimizer.last is not None
    assert other.optimizer.last.kl == pytest.approx(0.001)
    child = trainer({"optimizer": {"weight_decay": 0.5}})
    parent = trainer({})
    advance(parent, range(1))
    parent.begin_step()
    child.load(parent.state())
    assert child.optimizer.param_groups[0]["weight_decay"] == 0.5
