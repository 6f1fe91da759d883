import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_tui.smoothing import ema, median_at

HUGE = 1e308


def ones(value):
    return np.ones(len(value), dtype=np.int64)


@pytest.mark.parametrize("span", [2, 10, 50, 250])
def test_an_average_agrees_with_its_recurrence(span):
    rng = np.random.default_rng(5)
    value = rng.normal(size=3000)
    weight = 2 / (span + 1)
    expected = [value[0]]
    for x in value[1:]:
        expected.append(expected[-1] + weight * (x - expected[-1]))
    assert ema(value, ones(value), span) == pytest.approx(np.array(expected))


def test_an_average_of_what_float64_can_just_hold_is_finite():
    value = np.full(5000, HUGE)
    assert np.isfinite(ema(value, ones(value), 10)).all()


@pytest.mark.parametrize("span", [10, 250])
def test_a_point_that_stands_for_equal_ones_weighs_as_many(span):
    rng = np.random.default_rng(1)
    count = rng.integers(1, 2000, size=400)
    mean = rng.normal(size=400)
    all_of_them = np.repeat(mean, count)
    ends = np.cumsum(count) - 1
    assert ema(mean, count, span) == pytest.approx(ema(all_of_them, ones(all_of_them), span)[ends], abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 6)), min_size=1, max_size=40),
    st.sampled_from([1, 2, 9, 51]),
)
def test_a_median_is_that_of_the_last_samples(points, span):
    mean = np.array([value for value, _ in points])
    count = np.array([n for _, n in points])
    all_of_them = np.repeat(mean, count)
    ends = np.arange(len(points))
    expected = [np.median(all_of_them[max(end - span, 0) : end]) for end in np.cumsum(count)]
    assert median_at(mean, count, ends, span) == pytest.approx(np.array(expected))
