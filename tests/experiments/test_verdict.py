"""Verdicts against scipy's t-tests, and by what they must not do."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from qig_core.experiments.verdict import ALPHA, Finding, estimate, judge, p_above, p_below, together


def of(*values: float | None, above: float | None = None, below: float | None = None) -> Finding:
    return judge("x", "x", {f"seed {i}": value for i, value in enumerate(values)}, above=above, below=below)


@pytest.mark.parametrize("num", [2, 3, 5, 12])
def test_interval_and_p_are_those_of_the_t_test(num: int) -> None:
    values = np.random.default_rng(num).normal(0.3, 0.2, num).tolist()
    found = estimate(values)
    interval = ttest_1samp(values, 0.0).confidence_interval(1.0 - 2.0 * ALPHA)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    for limit in (-0.5, 0.0, 0.29, 2.0):
        greater = ttest_1samp(values, limit, alternative="greater").pvalue
        less = ttest_1samp(values, limit, alternative="less").pvalue
        assert p_above(found, limit) == pytest.approx(greater, rel=1e-9)
        assert p_below(found, limit) == pytest.approx(less, rel=1e-9)


@given(
    st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=6),
    st.floats(-1.0, 1.0),
)
def test_a_claim_passes_exactly_where_its_interval_lies_beyond_the_limit(values: list[float], limit: float) -> None:
    found = estimate(values)
    if min(abs(found.low - limit), abs(found.high - limit)) < 1e-9:
        return  # on the limit itself rounding decides
    up, down = of(*values, above=limit), of(*values, below=limit)
    assert (up.verdict == "pass") is (found.low > limit) is (down.verdict == "fail")
    assert (down.verdict == "pass") is (found.high < limit) is (up.verdict == "fail")


def test_between_two_limits_it_is_the_test_of_equivalence() -> None:
    values = [0.001, -0.002, 0.0005, 0.0001]
    found = of(*values, above=-0.01, below=0.01)
    lower = ttest_1samp(values, -0.01, alternative="greater").pvalue
    upper = ttest_1samp(values, 0.01, alternative="less").pvalue
    assert found.p == pytest.approx(max(lower, upper), rel=1e-9)
    assert found.verdict == "pass"
    assert of(*[v + 1.0 for v in values], above=-0.01, below=0.01).verdict == "fail"
    assert of(*[10.0 * v for v in values], above=-0.01, below=0.01).verdict == "inconclusive"


def test_three_seeds_that_disagree_are_inconclusive() -> None:
    assert of(0.1, 0.3, -0.05, above=0.0).verdict == "inconclusive"
    assert of(0.1, 0.11, 0.09, above=0.0).verdict == "pass"
    assert of(-0.1, -0.11, -0.09, above=0.0).verdict == "fail"


def test_figures_without_spread_decide_exactly() -> None:
    assert of(0.0, 0.0, 0.0, above=-0.01, below=0.01).verdict == "pass"
    third = of(0.1, 0.1, 0.1, below=0.1)
    assert third.estimate is not None
    assert (third.estimate.mean, third.estimate.low, third.estimate.high) == (0.1, 0.1, 0.1)
    assert (third.p, third.verdict) == (1.0, "inconclusive"), "on the limit is not beyond it"
    assert of(0.2, 0.2, below=0.1).verdict == "fail"


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_seed_without_a_figure_is_never_left_out(bad: float | None) -> None:
    found = of(1.0, bad, 1.01, 0.99, above=0.0)
    assert (found.verdict, found.p, found.estimate) == ("inconclusive", None, None)
    assert found.reason == "no figure of seed 1"


def test_one_seed_proves_nothing() -> None:
    assert of(5.0, above=0.0).reason == "1 of at least 2 seeds"
    assert of(5.0, above=0.0).verdict == "inconclusive"
    assert of(above=0.0).verdict == "inconclusive"
    with pytest.raises(ValueError, match="at least 2"):
        estimate([1.0])


def test_the_false_passes_and_fails_are_as_many_as_declared() -> None:
    """At the limit itself: 5 % of 4000 experiments with three seeds pass, 5 % fail."""
    draws = np.random.default_rng(0).normal(0.0, 1.0, (4000, 3))
    words = [of(*row.tolist(), above=0.0).verdict for row in draws]
    for word in ("pass", "fail"):
        assert words.count(word) / len(words) == pytest.approx(ALPHA, abs=0.012)


def test_all_claims_must_hold_and_one_that_fails_decides() -> None:
    good, bad, open_ = of(1.0, 1.1, above=0.0), of(-1.0, -1.1, above=0.0), of(1.0, -1.1, above=0.0)
    assert together([good, good]) == "pass"
    assert together([good, open_]) == "inconclusive"
    for order in itertools.permutations([good, open_, bad]):
        assert together(order) == "fail"
    with pytest.raises(ValueError, match="nothing"):
        together([])
