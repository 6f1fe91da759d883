"""kappa_eff against heads whose answer is known, and every case that has no answer."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.coupling import kappa_eff

CAUSAL = np.tri(24, dtype=bool)


def distances(seed: int, heads: int = 1, rows: int = 24, columns: int = 24) -> FloatArray:
    return np.random.default_rng(seed).uniform(0.1, 2.5, (heads, rows, columns))


def gibbs(d: FloatArray, kappa: FloatArray, mask: NDArray[np.bool_] | None = None) -> FloatArray:
    logits = -np.asarray(kappa)[:, None, None] * d
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    return np.asarray(np.exp(logits - logsumexp(logits, axis=-1, keepdims=True)))


@pytest.mark.parametrize("temperature", [1e-2, 0.1, 1.0, 30.0, 1e4])
def test_a_gibbs_head_gives_back_its_inverse_temperature(temperature: float) -> None:
    d = distances(0)
    result = kappa_eff(gibbs(d, np.array([1.0 / temperature]), CAUSAL), d, mask=CAUSAL)
    assert result.value == pytest.approx(1.0 / temperature, rel=1e-6)
    assert result.reason is None
    assert result.kl[0] == pytest.approx(0.0, abs=1e-9)
    assert result.n_rows == (23,)


def test_the_value_is_the_median_over_heads() -> None:
    d = distances(1, heads=8)
    kappas = np.geomspace(1.0, 128.0, 8)
    result = kappa_eff(gibbs(d, kappas), d)
    assert result.per_head == pytest.approx(kappas.tolist(), rel=1e-6)
    assert result.value == pytest.approx(np.median(kappas))
    assert 0.999 < min(e for e in result.explained if e is not None)


def test_the_fit_minimises_the_mean_divergence() -> None:
    d = distances(2)
    rng = np.random.default_rng(3)
    a = rng.dirichlet(np.ones(24), (1, 24)) * np.exp(-3.0 * d)
    a /= a.sum(axis=-1, keepdims=True)

    def divergence(k: float) -> float:
        return float(np.mean((a * (np.log(a) + k * d)).sum(-1) + logsumexp(-k * d, axis=-1)))

    reference = minimize_scalar(divergence, bounds=(-20, 20), options={"xatol": 1e-10})
    result = kappa_eff(a, d)
    assert result.value == pytest.approx(reference.x, abs=1e-5)
    assert result.kl[0] == pytest.approx(reference.fun, abs=1e-12)
    assert result.explained[0] == pytest.approx(1.0 - reference.fun / divergence(0.0), abs=1e-12)


def test_attention_that_prefers_the_far_is_negative_and_flagged() -> None:
    d = distances(4)
    result = kappa_eff(gibbs(d, np.array([-2.0])), d)
    assert result.value == pytest.approx(-2.0, rel=1e-6)
    assert result.flags == ("negative",)


def test_a_warm_start_changes_nothing_but_the_time() -> None:
    d = distances(5, heads=3)
    a = gibbs(d, np.array([2.0, 8.0, 50.0]))
    cold = kappa_eff(a, d)
    for warm in (cold.per_head, (-300.0, 1e6, math.nan), (None, None, None)):
        assert kappa_eff(a, d, warm=warm).per_head == pytest.approx(cold.per_head, rel=1e-9)


def test_masked_entries_may_hold_anything() -> None:
    d, broken = distances(6), distances(6)
    a = gibbs(d, np.array([4.0]), CAUSAL)
    broken[:, ~CAUSAL] = np.inf
    a[:, ~CAUSAL] = np.nan
    assert kappa_eff(a, broken, mask=CAUSAL).value == pytest.approx(4.0, rel=1e-6)


def test_torch_and_bfloat16_are_taken_as_they_are() -> None:
    d = torch.from_numpy(distances(7)).bfloat16()
    a = torch.softmax(-5.0 * d.float(), dim=-1).bfloat16()
    assert kappa_eff(a, d).value == pytest.approx(5.0, rel=0.01)
    assert kappa_eff(torch.softmax(-5.0 * d.double(), dim=-1), d).value == pytest.approx(5.0, rel=1e-6)


def test_equal_distances_have_no_temperature() -> None:
    d = np.full((2, 5, 6), 0.7)
    result = kappa_eff(np.full((2, 5, 6), 1 / 6), d)
    assert result.value is None
    assert result.reason == "distances equal"
    assert result.per_head == (None, None)


@pytest.mark.parametrize("pick", [np.argmin, np.argmax])
def test_attention_on_one_end_only_is_unbounded(pick: object) -> None:
    d = distances(8)
    a = np.zeros_like(d)
    np.put_along_axis(a, pick(d, axis=-1, keepdims=True), 1.0, axis=-1)  # type: ignore[operator]
    assert kappa_eff(a, d).reason == "unbounded"


def test_rows_with_a_single_entry_are_dropped() -> None:
    d = distances(9, rows=3)
    mask = np.zeros((3, 24), dtype=bool)
    mask[:, 0] = True
    a = np.zeros_like(d)
    a[..., 0] = 1.0
    assert kappa_eff(a, d, mask=mask).reason == "no rows"
    mask[1] = True
    a[0, 1] = gibbs(d, np.array([3.0]))[0, 1]
    result = kappa_eff(a, d, mask=mask)
    assert result.value == pytest.approx(3.0, rel=1e-6)
    assert result.n_rows == (1,)
    assert result.std_error == (None,)


def test_a_broken_head_is_named_and_the_others_still_count() -> None:
    d = distances(10, heads=2)
    a = gibbs(d, np.array([2.0, 3.0]))
    a[0, 0, 0] = np.nan
    result = kappa_eff(a, d)
    assert result.flags == ("not finite", None)
    assert result.value == pytest.approx(3.0)


def test_the_standard_error_covers_what_repeated_sampling_shows() -> None:
    rng = np.random.default_rng(11)
    d = distances(12, rows=400)
    truth = gibbs(d, np.array([2.0]))
    estimates, errors = [], []
    for _ in range(60):
        # Each row is the share of 5 draws: the rows are independent, so each is its own cluster.
        a = np.stack([rng.multinomial(5, row) / 5 for row in truth[0]])[None]
        result = kappa_eff(a, d)
        estimates.append(result.value)
        errors.append(result.std_error[0])
    assert np.mean(errors) == pytest.approx(np.std(estimates, ddof=1), rel=0.3)  # type: ignore[arg-type]


def test_repeated_rows_in_one_cluster_do_not_shrink_the_error() -> None:
    rng = np.random.default_rng(13)
    d = distances(14, rows=50)
    a = rng.dirichlet(np.ones(24), (1, 50))
    once = kappa_eff(a, d)
    thrice = kappa_eff(np.tile(a, (1, 3, 1)), np.tile(d, (1, 3, 1)), clusters=np.tile(np.arange(50), 3))
    assert thrice.value == pytest.approx(once.value, rel=1e-9)
    assert thrice.std_error[0] == pytest.approx(once.std_error[0], rel=1e-9)


def test_what_is_not_attention_raises() -> None:
    d = distances(15)
    with pytest.raises(ValueError, match="sum to 1"):
        kappa_eff(0.5 * gibbs(d, np.array([1.0])), d)
    with pytest.raises(ValueError, match="sum to 1 over unmasked"):
        kappa_eff(gibbs(d, np.array([1.0])), d, mask=CAUSAL)
    with pytest.raises(ValueError, match="must both be"):
        kappa_eff(d[0], d[0])
    with pytest.raises(ValueError, match="mask"):
        kappa_eff(d, d, mask=CAUSAL[:3])
    with pytest.raises(ValueError, match="clusters"):
        kappa_eff(d, d, clusters=np.arange(3))
