import math

import numpy as np
import pytest

from qig_tui.widgets import braille
from qig_tui.widgets.braille import LIVE, Canvas, Scale, YRange

HUGE = 1e308


def drawn(step, value, *, columns=20, rows=5, y=None):
    step, value = np.asarray(step, dtype=np.int64), np.asarray(value, dtype=np.float64)
    scale = braille.scale_for(int(step[0]), int(step[-1]), 2 * columns)
    buckets = braille.bucketed(step, value, scale)
    y = y or braille.y_range_for(float(value.min()), float(value.max()))
    canvas = Canvas(columns, rows)
    braille.draw_line(canvas, LIVE, buckets.to_shares(y))
    return canvas.result()[0]


def test_every_step_has_a_column_within_the_grid():
    for first, last in [(0, 0), (0, 1), (5, 300), (1, 99_999), (-7, 10**12)]:
        scale = braille.scale_for(first, last, 300)
        ends = scale.column(np.array([first, last]))
        assert 0 <= ends[0] <= ends[1] < 300


def test_at_least_four_fifths_of_the_width_are_used():
    for last in [3, 10, 100, 149, 299, 1000, 4321, 123_456, 10**7 + 3]:
        scale = braille.scale_for(0, last, 300)
        assert int(scale.column(np.array([last]))[0]) >= 0.79 * 300 - 2


def test_edges_lie_at_multiples_of_the_width():
    for last in range(1000, 60_000, 777):
        scale = braille.scale_for(3, last, 200)
        assert scale.origin % scale.width == 0


def test_a_growing_series_never_moves_its_past_within_a_scale():
    rng = np.random.default_rng(0)
    value = rng.normal(size=5000)
    y = YRange(low=-5, high=5)
    before, scale_before = None, None
    for last in range(2000, 5000, 7):
        step = np.arange(last)
        scale = braille.scale_for(0, last - 1, 80)
        now = drawn(step, value[:last], columns=40, rows=10, y=y)
        if scale == scale_before:
            end = int(scale.column(np.array([last - 8]))[0]) // 2 - 1
            assert (now[:, :end] == before[:, :end]).all()
        before, scale_before = now, scale


def test_one_spike_among_a_hundred_thousand_points_is_drawn():
    value = np.zeros(100_000)
    value[54_321] = 1.0
    codes = drawn(np.arange(100_000), value, y=YRange(low=0, high=1))
    assert codes[0].any()


def test_zoomed_in_points_are_joined():
    codes = drawn([0, 10], [0.0, 1.0], columns=20, rows=5)
    assert (codes.any(axis=0)[:18]).all()


def test_a_line_far_outside_the_view_costs_no_memory():
    canvas = Canvas(20, 5)
    scale = Scale(origin=10**15, quarters=8)
    buckets = braille.bucketed(np.array([0, 2 * 10**15]), np.array([0.0, 1.0]), scale)
    braille.draw_line(canvas, LIVE, buckets.to_shares(YRange(low=0, high=1)))
    assert canvas.result()[0].any()


@pytest.mark.parametrize("values", [[HUGE, -HUGE], [HUGE, HUGE], [-HUGE, 0.0], [5e-324, 1e-300], [0.0, 0.0]])
def test_the_ends_of_float64_are_drawn_without_a_warning(values):
    assert drawn([0, 1], values).any()


def test_a_mean_beyond_float64_stays_between_the_extremes():
    value = np.full(1000, HUGE)
    buckets = braille.bucketed(np.arange(1000), value, braille.scale_for(0, 999, 10))
    assert np.isfinite(buckets.mean).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (1e-320, 1e-310), (1.0, 1.0), (-1.0, -0.5)])
def test_a_log_axis_takes_anything(low, high):
    y = braille.y_range_for(low, high, log=True)
    assert 0 < y.low < y.high
    shares = y.to_share(np.array([low, high, 0.0, -1.0, 1.0]))
    assert not np.isnan(shares).any()
    assert braille.ticks(y, 10) is not None


def test_what_has_no_place_is_marked_on_the_edge():
    canvas = Canvas(10, 4)
    value = np.array([math.nan, math.inf, -math.inf, -1.0])
    braille.mark_nonfinite(canvas, np.array([0, 4, 8, 12]), value, log=True)
    assert canvas.marks == {(3, 0): "×", (0, 2): "↑", (3, 4): "↓", (3, 6): "↓"}


def test_a_range_is_held_until_the_values_leave_it_or_use_less_than_half():
    held = YRange(low=0, high=10)
    assert braille.held(held, YRange(low=1, high=9), 1, 9) == held
    assert braille.held(held, YRange(low=1, high=12), 1, 11).high == 12
    assert braille.held(held, YRange(low=4, high=6), 4, 6) == YRange(low=4, high=6)


def test_a_range_stays_within_what_is_possible():
    y = braille.y_range_for(0.31, 0.97, bounds=(0.0, 1.0))
    assert y.low >= 0.0
    assert y.high <= 1.0


def test_ticks_are_rounded_and_apart():
    found = braille.ticks(YRange(low=0, high=1), 20)
    assert [v for _, v in found] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    rows = [row for row, _ in found]
    assert rows[0] == 19
    assert rows[-1] == 0
    assert min(-np.diff(rows)) >= 3


@pytest.mark.parametrize("rows", [2, 3, 5, 9])
@pytest.mark.parametrize("y", [YRange(low=0.02, high=0.14), YRange(low=-3, high=8), YRange(low=1, high=1e7, log=True)])
def test_a_low_chart_has_a_mark_at_its_top_and_at_its_bottom_or_three(y, rows):
    found = dict(braille.ticks(y, rows))
    assert len(found) >= 3 or (found[0], found[rows - 1]) == (y.high, y.low)


def test_lines_that_share_cells_have_them_in_turns_and_none_is_hidden():
    canvas = Canvas(12, 1)
    scale, y = braille.scale_for(0, 23, 24), YRange(low=0.0, high=4.0, log=False)
    for layer in (1, 2, 3):
        line = braille.bucketed(np.arange(24), np.full(24, float(layer)), scale)
        braille.draw_line(canvas, layer, line.to_shares(y))
    codes, hidden = canvas.result((1, 2, 3))
    assert set(hidden[0].tolist()) == {3}
    shared_codes, shared = canvas.result((1, 2, 3), shared=(1, 2, 3))
    assert [(shared[0] == layer).sum() for layer in (1, 2, 3)] == [4, 4, 4]
    assert (shared_codes[0] > 0).all()
    assert (codes[0] > 0).all()
