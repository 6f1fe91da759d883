"""A healthy run raises no critical alert, ever; an injected fault always does. Both on generated loss curves."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from qig_core.safety.monitor import SafetyMonitor

STEPS = 3000
FloatArray = np.ndarray
SEEDS = range(8)


def falling(rng: np.random.Generator, noise: float = 0.05) -> FloatArray:
    """From ln 256 to 1.5 nats, as a small language model learns."""
    steps = np.arange(STEPS)
    return 1.5 + (math.log(256) - 1.5) / (1 + steps / 100) ** 0.8 + noise * rng.standard_normal(STEPS)


def plateau(rng: np.random.Generator) -> FloatArray:
    return 2.0 + 0.05 * rng.standard_normal(STEPS)


def very_noisy(rng: np.random.Generator) -> FloatArray:
    return falling(rng, noise=0.5)


def heavy_tailed(rng: np.random.Generator) -> FloatArray:
    return 2.0 + 0.2 * np.abs(rng.standard_t(2.5, STEPS))


def log_normal(rng: np.random.Generator) -> FloatArray:
    return rng.lognormal(0.0, 1.5, STEPS)


def another_unit(rng: np.random.Generator) -> FloatArray:
    """A squared error in the thousands: half a nat means nothing there."""
    return 4000.0 / (1 + np.arange(STEPS) / 50) + 300.0 * (1 + 0.3 * rng.standard_normal(STEPS))


def memorised(rng: np.random.Generator) -> FloatArray:
    return 5.5 * np.exp(-np.arange(STEPS) / 80) + 1e-6 * rng.random(STEPS)


def constant(rng: np.random.Generator) -> FloatArray:
    return np.full(STEPS, math.log(256))


def warm_up_bump(rng: np.random.Generator) -> FloatArray:
    steps = np.arange(STEPS)
    return falling(rng) + 1.2 * np.exp(-0.5 * ((steps - 80) / 30) ** 2)


def sudden_insight(rng: np.random.Generator) -> FloatArray:
    steps = np.arange(STEPS)
    return np.where(steps < 1200, 3.0, 1.0) + 0.05 * rng.standard_normal(STEPS)


def single_absurd_batches(rng: np.random.Generator) -> FloatArray:
    losses = falling(rng)
    losses[rng.choice(STEPS, 12, replace=False)] = 1e6
    return losses


def wandering_in_another_unit(rng: np.random.Generator) -> FloatArray:
    return 1000.0 + 40.0 * np.sin(np.arange(STEPS) / 60) + 2.0 * rng.standard_normal(STEPS)


def empty_batches(rng: np.random.Generator) -> FloatArray:
    losses = plateau(rng)
    losses[rng.choice(STEPS, 12, replace=False)] = 0.0
    return losses


def slow_waves(rng: np.random.Generator) -> FloatArray:
    return 2.0 + 0.2 * np.sin(np.arange(STEPS) / 40) + 0.05 * rng.standard_normal(STEPS)


HEALTHY: list[Callable[[np.random.Generator], FloatArray]] = [
    falling, plateau, very_noisy, heavy_tailed, log_normal, another_unit, wandering_in_another_unit,
    memorised, constant, warm_up_bump, sudden_insight, single_absurd_batches, empty_batches, slow_waves,
]  # fmt: skip


def first_critical(losses: FloatArray) -> int | None:
    monitor = SafetyMonitor()
    for step, loss in enumerate(losses):
        if monitor.judge(step, {"loss": float(loss), "grad_norm": 1.0, "recursion_depth": 4.0}).critical:
            return step
    return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", HEALTHY, ids=lambda curve: curve.__name__)
def test_a_healthy_run_raises_no_critical_alert(curve: Callable[..., FloatArray], seed: int) -> None:
    assert first_critical(curve(np.random.default_rng(seed))) is None


def blow_up(losses: FloatArray, at: int) -> FloatArray:
    """Exponential, doubling every 20 steps."""
    after = np.arange(len(losses) - at)
    return np.concatenate([losses[:at], losses[at:] * 2.0 ** (after / 20)])


def jump(losses: FloatArray, at: int) -> FloatArray:
    out = losses.copy()
    out[at:] += 2.0
    return out


def collapse_to_uniform(losses: FloatArray, at: int) -> FloatArray:
    out = losses.copy()
    out[at:] += math.log(256) - out[at:].mean()
    return out


def slow_drift(losses: FloatArray, at: int) -> FloatArray:
    out = losses.copy()
    out[at:] += 0.002 * np.arange(len(out) - at)
    return out


def steady_ramp(losses: FloatArray, at: int) -> FloatArray:
    out = losses.copy()
    out[at:] += 0.1 * np.arange(len(out) - at)
    return out


def not_a_number(losses: FloatArray, at: int) -> FloatArray:
    out = losses.copy()
    out[at:] = math.nan
    return out


FAULTS = {blow_up: 100, jump: 70, collapse_to_uniform: 70, slow_drift: 1000, steady_ramp: 70, not_a_number: 0}
"""Each with the steps within which it must be noticed, once the conditions are armed."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("at", [120, 260, 500, 1500, 2300])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_injected_fault_always_raises_a_critical_alert(fault: Callable[..., FloatArray], at: int, seed: int) -> None:
    noticed = first_critical(fault(falling(np.random.default_rng(seed)), at))
    assert noticed is not None
    armed = at if fault is not_a_number else max(at, 250)
    assert at <= noticed <= armed + FAULTS[fault]


@pytest.mark.parametrize("seed", range(3))
def test_a_fault_in_a_very_noisy_run_is_noticed_too(seed: int) -> None:
    losses = collapse_to_uniform(very_noisy(np.random.default_rng(seed)), 1500)
    noticed = first_critical(losses)
    assert noticed is not None
    assert 1500 <= noticed < 2000
