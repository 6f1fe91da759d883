"""kappa_eff against heads whose answer is known, and every case that has no answer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.coupling import KappaResult, kappa_eff

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


def mean_divergence(k: float, a: FloatArray, d: FloatArray, mask: NDArray[np.bool_]) -> float:
    """mean_i KL(a_i ‖ softmax_j(−k d_ij)), one row after the other, over the rows of two entries or more."""
    rows = []
    for a_i, d_i, seen in zip(a, d, mask, strict=True):
        if seen.sum() >= 2:
            p, x = a_i[seen], d_i[seen]
            rows.append(np.sum(p * (np.log(p) + k * x)) + logsumexp(-k * x))
    return float(np.mean(rows))


@given(
    seed=st.integers(0, 2**32 - 1),
    coupling=st.floats(-12.0, 12.0),
    roughness=st.floats(0.1, 2.0),
    density=st.floats(0.2, 1.0),
    warm=st.none() | st.floats(-100.0, 100.0),
)
def test_the_fit_minimises_the_mean_divergence(
    seed: int, coupling: float, roughness: float, density: float, warm: float | None
) -> None:
    rng = np.random.default_rng(seed)
    d = rng.uniform(0.0, 3.0, (7, 9))
    mask = rng.random(d.shape) < density
    mask[0, :2] = mask[1, 1:] = True
    logits = np.where(mask, rng.normal(0.0, roughness, d.shape) - coupling * d, -np.inf)
    a = np.exp(logits - np.where(mask.any(1), logsumexp(np.where(mask, logits, -1e9), axis=1), 0.0)[:, None])
    result = kappa_eff(a[None], d[None], mask=mask, warm=(warm,))

    reference = minimize_scalar(mean_divergence, args=(a, d, mask), bounds=(-60, 60), options={"xatol": 1e-10})
    assert result.value == pytest.approx(reference.x, abs=1e-4)
    assert result.kl[0] == pytest.approx(mean_divergence(result.value or 0.0, a, d, mask), abs=1e-12)
    assert result.kl[0] == pytest.approx(reference.fun, abs=1e-11)
    assert result.explained[0] == pytest.approx(1.0 - reference.fun / mean_divergence(0.0, a, d, mask), abs=1e-9)
    assert result.n_rows == (int((mask.sum(1) >= 2).sum()),)


def test_the_standard_error_is_the_clustered_sandwich() -> None:
    d = distances(26)
    a = np.random.default_rng(27).dirichlet(np.ones(24), (1, 24))
    labels = np.array(["one", "two", "three"] * 8)
    result = kappa_eff(a, d, clusters=labels)
    fitted = gibbs(d, np.array([result.value]))[0]
    mean = np.sum(fitted * d[0], axis=1)
    scores = mean - np.sum(a[0] * d[0], axis=1)
    clustered = [scores[labels == name].sum() for name in ("one", "two", "three")]
    variance = np.sum(fitted * (d[0] - mean[:, None]) ** 2)
    assert result.std_error[0] == pytest.approx(np.linalg.norm(clustered) / variance, rel=1e-9)


@given(st.floats(-4.0, 5.0), st.floats(-6.0, 6.0), st.sampled_from([-1.0, 1.0]))
def test_any_start_ends_at_the_same_kappa(log_kappa: float, log_factor: float, side: float) -> None:
    kappa = 2.0**log_kappa
    d = distances(25, rows=6)
    a = gibbs(d, np.array([kappa]))
    for sign in (1.0, -1.0):
        x = d if sign > 0.0 else 2.5 - d
        result = kappa_eff(a, x, warm=(side * kappa * 10.0**log_factor,))
        assert result.value == pytest.approx(sign * kappa, rel=1e-9)
        assert result.kl[0] == pytest.approx(0.0, abs=1e-13)


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
    assert kappa_eff(a, broken, mask=CAUSAL) == kappa_eff(np.where(CAUSAL, a, 0.0), d, mask=CAUSAL)


@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf, -3.0, 1e300])
def test_what_is_masked_is_not_looked_at(filler: float) -> None:
    mask = np.random.default_rng(16).random((24, 24)) < 0.5
    mask[3], mask[5] = False, np.arange(24) == 7  # a row with nothing, and one with a single entry
    for kappa in (4.0, -4.0):
        d = distances(17)
        a = np.zeros_like(d)
        a[:, mask.sum(1) > 0] = gibbs(d[:, mask.sum(1) > 0], np.array([kappa]), mask[mask.sum(1) > 0])
        result = kappa_eff(np.where(mask, a, filler), np.where(mask, d, filler), mask=mask)
        assert result == kappa_eff(a, d, mask=mask)
        assert result.value == pytest.approx(kappa, rel=1e-9)
        assert result.n_rows == (22,)


def test_what_a_dropped_row_holds_is_not_looked_at_either() -> None:
    d = distances(18)
    a = gibbs(d, np.array([6.0]), CAUSAL)
    d[0, 0], a[0, 0] = np.nan, -np.inf
    result = kappa_eff(a, d, mask=CAUSAL)
    assert result.value == pytest.approx(6.0, rel=1e-9)
    assert result.reason is None


def test_each_head_may_have_its_own_mask() -> None:
    d = distances(19, heads=3)
    masks = np.stack([CAUSAL, CAUSAL.T, np.zeros_like(CAUSAL)])
    a = np.concatenate([gibbs(d[:1], np.array([3.0]), CAUSAL), gibbs(d[1:2], np.array([5.0]), CAUSAL.T), d[2:]])
    result = kappa_eff(a, d, mask=masks)
    assert result.per_head[:2] == pytest.approx((3.0, 5.0), rel=1e-9)
    assert result.per_head[2] is None
    assert result.flags == (None, None, "no rows")
    assert result.n_rows == (23, 23, 0)
    assert result.value == pytest.approx(4.0, rel=1e-9)


def test_a_mask_of_ones_is_no_mask() -> None:
    d = distances(20)
    a = gibbs(d, np.array([3.0]))
    for mask in (np.ones((24, 24)), torch.ones(24, 24, dtype=torch.bool), np.ones((1, 24, 24), dtype=int)):
        assert kappa_eff(a, d, mask=mask) == kappa_eff(a, d)


def test_torch_and_bfloat16_are_taken_as_they_are() -> None:
    d = torch.from_numpy(distances(7)).bfloat16()
    a = torch.softmax(-5.0 * d.float(), dim=-1).bfloat16()
    assert kappa_eff(a, d).value == pytest.approx(5.0, rel=0.01)
    assert kappa_eff(torch.softmax(-5.0 * d.double(), dim=-1), d).value == pytest.approx(5.0, rel=1e-6)
    leaf = d.double().requires_grad_()
    mask = torch.ones(24, 24, dtype=torch.bool).tril()
    attention = torch.softmax((-5.0 * leaf).masked_fill(~mask, -torch.inf), dim=-1)
    labels = torch.arange(24) // 4
    assert kappa_eff(attention, leaf, mask=mask, clusters=labels).value == pytest.approx(5.0, rel=1e-6)
    assert leaf.grad is None


def test_integers_and_lists_are_numbers_too() -> None:
    # Σ E_k[d] = 3/4 over rows {0, 1}: two of e⁻ᵏ/(1 + e⁻ᵏ) each, so e⁻ᵏ = 3/5.
    result = kappa_eff([[[1, 0], [0.25, 0.75]]], [[[0, 1], [0, 1]]])
    assert result.value == pytest.approx(math.log(5 / 3), rel=1e-12)
    one_hot = np.array([[[1, 0], [0, 1], [1, 0]]], dtype=np.uint8)
    assert kappa_eff(one_hot, np.tile([3, 4], (1, 3, 1))).value == pytest.approx(math.log(2.0), rel=1e-12)


@pytest.mark.parametrize("columns", [2, 3, 5, 7, 24])
def test_uniform_attention_is_zero_and_there_is_nothing_to_explain(columns: int) -> None:
    d = distances(21, columns=columns)
    result = kappa_eff(np.full_like(d, 1 / columns) * (1.0 - 1e-9 * d), d)
    assert result.value == pytest.approx(1e-9, rel=1e-5)
    assert result.explained == (None,)
    assert result.kl[0] == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("kappa", [3.0, -3.0])
@pytest.mark.parametrize("share", [1e-9, 3e-6, 9e-6, 1e-3, 0.02])
def test_every_field_is_as_good_from_a_start_nearby(kappa: float, share: float) -> None:
    d = distances(31, heads=2)
    a = gibbs(d + np.random.default_rng(32).normal(0.0, 0.1, d.shape), np.array([kappa, 2.0 * kappa]))
    cold = kappa_eff(a, d)
    exact = kappa_eff(a, d, warm=cold.per_head)
    near = kappa_eff(a, d, warm=tuple((1.0 + share) * (k or 0.0) for k in cold.per_head))
    assert near.per_head == pytest.approx(exact.per_head, rel=1e-12)
    assert near.std_error == pytest.approx(exact.std_error, rel=1e-9)
    assert near.kl == pytest.approx(exact.kl, abs=1e-13)
    assert near.explained == pytest.approx(exact.explained, abs=1e-13)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_another_unit_of_distance_scales_kappa_and_its_error_alone(unit: float) -> None:
    d = distances(33)
    a = gibbs(d + np.random.default_rng(34).normal(0.0, 0.1, d.shape), np.array([3.0]))
    one, other = kappa_eff(a, d), kappa_eff(a, unit * d)
    assert unit * (other.value or 0.0) == pytest.approx(one.value, rel=1e-10)
    assert unit * (other.std_error[0] or 0.0) == pytest.approx(one.std_error[0], rel=1e-9)
    assert other.kl == pytest.approx(one.kl, abs=1e-12)


def test_rows_are_renormalised() -> None:
    d = distances(22)
    a = gibbs(d, np.array([3.0]))
    scaled, whole = kappa_eff(a * np.linspace(0.992, 1.008, 24)[:, None], d), kappa_eff(a, d)
    assert scaled.value == pytest.approx(3.0, rel=1e-12)
    assert scaled.kl[0] == pytest.approx(0.0, abs=1e-13)
    assert scaled.explained == pytest.approx(whole.explained, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, -1.0])
def test_small_differences_between_distances_are_kept(offset: float, kappa: float) -> None:
    counts = np.random.default_rng(23).integers(0, 2**20, (1, 24, 24))
    small = counts.astype(np.float64) * 2.0**-36  # exact beside the offset
    a = gibbs(small, np.array([kappa * 2.0**16]))
    assert kappa_eff(a, offset + small).value == pytest.approx(kappa * 2.0**16, rel=1e-9)


def test_one_entry_far_from_a_crowd_costs_no_precision() -> None:
    d = np.full((1, 4, 1000), 3.0)
    d[..., 0] = 0.0
    a = gibbs(d, np.array([0.5]))
    result = kappa_eff(a, d)
    assert result.value == pytest.approx(0.5, rel=1e-10)
    assert result.std_error[0] == pytest.approx(0.0, abs=1e-9)


NOBODY = KappaResult(value=None, reason="no rows", per_head=(), flags=(), std_error=(), kl=(), explained=(), n_rows=())


def test_no_heads_have_no_value() -> None:
    assert kappa_eff(np.empty((0, 4, 4)), np.empty((0, 4, 4))) == NOBODY
    assert kappa_eff(np.empty((0, 4, 4)), np.empty((0, 4, 4)), mask=np.ones((0, 4, 4)), warm=()) == NOBODY


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 5, 0), (2, 5, 1), (2, 1, 1)])
def test_rows_of_no_or_one_entry_say_nothing(shape: tuple[int, int, int]) -> None:
    result = kappa_eff(np.ones(shape), np.ones(shape))
    assert (result.value, result.reason) == (None, "no rows")
    assert result.flags == ("no rows", "no rows")
    assert result.n_rows == (0, 0)


def test_one_row_has_a_value_and_no_error() -> None:
    d = distances(24, rows=1, columns=2)
    result = kappa_eff(gibbs(d, np.array([7.0])), d)
    assert result.value == pytest.approx(7.0, rel=1e-9)
    assert result.std_error == (None,)


def test_every_kind_of_head_side_by_side() -> None:
    d = distances(28, heads=6)
    a = gibbs(d, np.array([2.0, 4.0, -3.0, 2.0, 2.0, 2.0]))
    d[1] = 1.3
    a[3] = 0.0
    np.put_along_axis(a[3], d[3].argmin(axis=-1)[:, None], 1.0, axis=-1)
    d[4, 5, 6] = math.inf
    result = kappa_eff(a, d)
    assert result.flags == (None, "distances equal", "negative", "unbounded", "not finite", None)
    assert result.value == pytest.approx(2.0)
    assert result.reason is None
    for each in (result.per_head, result.std_error, result.kl, result.explained):
        assert [x is None for x in each] == [False, True, False, True, True, False]
    assert result.n_rows == (24,) * 6
    assert kappa_eff(a, d, warm=result.per_head).per_head[2] == pytest.approx(-3.0)
    without = kappa_eff(a[1:2], d[1:2])
    assert (without.value, without.reason) == (None, "distances equal")


def test_distances_are_equal_below_a_millionth_of_their_mean() -> None:
    for spread, reason in ((1e-7, "distances equal"), (1e-5, None)):
        d = 1.0 + spread * distances(29)
        assert kappa_eff(gibbs(d, np.array([1.0 / spread])), d).reason == reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["attention", "distances", "row of distances"])
def test_an_entry_that_is_not_finite_is_named(bad: float, where: str) -> None:
    d = distances(30)
    a = gibbs(d, np.array([2.0]), CAUSAL)
    if where == "row of distances":
        d[0, 4] = bad
    else:
        (a if where == "attention" else d)[0, 4, 2] = bad
    for mask in (CAUSAL, None):
        result = kappa_eff(a, d, mask=mask)
        assert (result.value, result.reason) == (None, "not finite")


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
    a = gibbs(d, np.array([1.0]))
    with pytest.raises(ValueError, match=r"sum to 1 .* off by 0\.5"):
        kappa_eff(0.5 * a, d)
    with pytest.raises(ValueError, match="sum to 1 over unmasked"):
        kappa_eff(a, d, mask=CAUSAL)
    with pytest.raises(ValueError, match="sum to 1"):
        kappa_eff(np.zeros_like(a), d)
    a[0, 0, :2] += (-1.0, 1.0)
    with pytest.raises(ValueError, match=r"must be non-negative .* least entry is -0\.9"):
        kappa_eff(a, d)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": np.ones((3, 4))}, r"attention \(3, 4\) and distances \(2, 3, 4\) must both be \[H, N, T\]"),
        ({"attention": []}, r"attention \(0,\) and distances"),
        ({"attention": 1.0}, r"attention \(\) and distances"),
        ({"attention": "attention"}, "attention must be an array of numbers, not of <U9"),
        ({"attention": None}, "attention must be an array of numbers, not of object"),
        ({"distances": np.ones((2, 3, 4), dtype=complex)}, "distances must be an array of numbers, not of complex128"),
        ({"distances": [[[1.0], [1.0, 2.0]]]}, "distances must be one array: its rows differ in length"),
        ({"mask": np.ones((4, 3))}, r"mask \(4, 3\) must be \[N, T\] or \[H, N, T\]"),
        ({"mask": np.ones((3, 3, 4))}, r"mask \(3, 3, 4\) must be"),
        ({"mask": np.where(np.tri(3, 4), 0.0, -np.inf)}, "mask must hold true and false"),
        ({"mask": np.full((3, 4), "yes")}, "mask must be an array of numbers"),
        ({"clusters": np.arange(4)}, r"clusters \(4,\) must hold one label for each of 3 rows"),
        ({"clusters": [[1], [2, 3]]}, "clusters must be one array"),
        ({"clusters": [None, "a", 1]}, "clusters must be an array of numbers or names, not of object"),
    ],
)
def test_what_cannot_be_read_raises(changed: dict[str, object], message: str) -> None:
    arguments = {"attention": np.full((2, 3, 4), 0.25), "distances": np.ones((2, 3, 4))} | changed
    with pytest.raises(ValueError, match=message):
        kappa_eff(**arguments)  # type: ignore[arg-type]
