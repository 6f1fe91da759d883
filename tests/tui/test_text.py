import math

import pytest
from rich.cells import cell_len

from qig_tui.text import age, axis_label, bar, clip, duration, number, pad, quantity, signed, size, sparkline, thin_bar


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.7311, "0.731"),
        (58.3, "58.30"),
        (18240.4, "18 240"),
        (3e-4, "0.0003"),
        (1.2e9, "1.2e9"),
        (-1e308, "-1e308"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_is_short_and_true(value, text):
    assert number(value) == text


@pytest.mark.parametrize("value", [1e-300, 9.9999, 99.999, 999.96, 99999.9, -12345.6, 1e308, 0.00999999])
def test_a_number_never_needs_more_than_nine_cells(value):
    assert len(number(value)) <= 9
    assert float(number(value).replace(" ", "")) == pytest.approx(value, rel=0.01)


def test_a_quantity_names_its_unit_once():
    assert quantity(0.512, "rad") == "0.512 rad"
    assert quantity(58.31, "1/rad") == "58.31 rad⁻¹"
    assert quantity(1.5 * 2**30, "bytes") == "1.5 GiB"
    assert quantity(None, "rad") == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.041, "41 ms"),
        (3.2, "3.2 s"),
        (59.6, "60 s"),
        (840, "14 m"),
        (7500, "2 h 05 m"),
        (270_000, "3 d 3 h"),
        (None, "–"),
        (math.nan, "–"),
        (-5, "0 ms"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, text):
    assert duration(seconds) == text


def test_sizes_are_binary():
    assert [size(0), size(410), size(2**20)] == ["0 B", "0.4 KiB", "1.0 MiB"]


def test_an_age_is_relative_to_now():
    assert age(100.0, 160.0) == "60 s ago"
    assert age(100.0, 100.2) == "now"


def test_a_difference_shows_its_sign():
    assert signed(0.041) == "+.041"
    assert signed(-0.028) == "−.028"
    assert signed(1.5) == "+1.500"


def test_wide_characters_are_cut_by_cells():
    assert cell_len(clip("宽宽宽宽", 5)) <= 5
    assert cell_len(pad("宽宽宽", 4)) == 4
    assert clip("abc", 0) == ""


def test_bars_are_as_long_as_they_say():
    assert len(bar(0.3, 8)) == 8
    assert bar(2.0, 4) == "████"
    filled, rest = thin_bar(0.5, 8)
    assert (len(filled), len(rest)) == (4, 4)


def test_a_sparkline_survives_everything():
    assert sparkline([], 10) == ""
    assert sparkline([1.0, 1.0], 10) == "▄▄"
    assert sparkline([math.nan, 1.0, 2.0], 3) == "·▁█"
    assert len(sparkline([1e308, -1e308, 1e308, math.inf], 4)) == 4


def test_what_differs_by_rounding_alone_is_a_flat_line():
    assert sparkline([0.1] * 9, 4) == "▄▄▄▄"
    assert sparkline([3.0, 3.0 + 2e-15, 3.0 - 2e-15], 3) == "▄▄▄"
    assert sparkline([1.0, 1.0 + 1e-6], 2) == "▁█"


@pytest.mark.parametrize("value", [0.0, 0.8125, -0.123456, 512_345_678.0, -1.2345e-12, 1e308, 99_999.0])
def test_the_label_of_an_axis_fits_and_is_never_cut_to_another_number(value):
    text = axis_label(value, 6)
    assert len(text) <= 6
    assert float(text) == pytest.approx(value, rel=0.4)
