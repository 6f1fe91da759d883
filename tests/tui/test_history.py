import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_core.rundir.values import encode_basin
from qig_tui.detail import detail_of
from qig_tui.history import MAX_POINTS, History
from qig_tui.series import Series, kept_by_thinning
from qig_tui.widgets.braille import bucketed, scale_for


def samples(steps, *, seq=0, metric="phi", value=float):
    return [Sample(seq + i, step, float(i), m={metric: value(step)}) for i, step in enumerate(steps)]


def gone_steps(history, metric="phi"):
    series = history.series(metric)
    mask = history.abandoned(series)
    return [] if mask is None else series.step[mask].tolist()


def test_samples_become_columns_in_the_order_of_the_file():
    history = History()
    assert history.add(samples(range(5))) == 5
    assert history.series("phi").step.tolist() == [0, 1, 2, 3, 4]
    assert history.latest("phi") == 4.0
    assert (history.step, history.read, history.bad, history.late) == (4, 5, 0, 0)
    assert history.abandoned(history.series("phi")) is None


def test_a_step_that_goes_back_leaves_an_abandoned_branch():
    history = History()
    history.add(samples([0, 1, 2, 3, 4]))
    history.add(samples([2, 3], seq=5))
    assert history.segments == 2
    assert gone_steps(history) == [2, 3, 4]


def test_a_step_repeated_after_a_resume_counts_as_a_rewind():
    history = History()
    history.add(samples([0, 1, 2]))
    history.add(samples([2, 3], seq=3))
    assert gone_steps(history) == [2]
    series = history.series("phi")
    assert series.step[~history.abandoned(series)].tolist() == [0, 1, 2, 3]


def test_a_second_rewind_abandons_both_earlier_branches():
    history = History()
    history.add(samples([0, 1, 2, 3, 4, 2, 3, 1, 2]))
    series = history.series("phi")
    live = series.step[~history.abandoned(series)]
    assert live.tolist() == [0, 1, 2]
    assert (np.diff(live) > 0).all()


def test_what_is_not_finite_keeps_its_kind():
    history = History()
    history.add(
        [
            Sample(0, 0, 0.0, m={"loss": 1.0}),
            Sample(1, 1, 0.0, m={"loss": None}, nonfinite={"loss": "inf"}),
            Sample(2, 2, 0.0, m={"loss": None}, nonfinite={"loss": "-inf"}),
            Sample(3, 3, 0.0, m={"loss": None}, nonfinite={"loss": "nan"}),
            Sample(4, 4, 0.0, m={}),
        ]
    )
    value = history.series("loss").value
    assert value[:3].tolist() == [1.0, math.inf, -math.inf]
    assert math.isnan(value[3])
    assert len(value) == 4
    assert history.series("loss").extremes == (1.0, 1.0)


def test_metrics_measured_now_and_then_keep_their_own_steps():
    history = History()
    history.add([Sample(i, i, 0.0, m={"a": 1.0} | ({"b": 2.0} if i % 3 == 0 else {})) for i in range(10)])
    assert history.series("a").step.tolist() == list(range(10))
    assert history.series("b").step.tolist() == [0, 3, 6, 9]


def test_bad_lines_and_late_records_are_counted_and_not_drawn():
    history = History()
    history.add([*samples([0, 1]), Unreadable("f", 0, "torn", b"{")])
    history.add(samples([0, 1, 2], seq=0))
    assert (history.read, history.bad, history.late) == (3, 1, 2)
    assert history.series("phi").step.tolist() == [0, 1, 2]


def test_a_step_beyond_all_integers_is_a_bad_record():
    history = History()
    history.add([Sample(0, 10**30, 0.0, m={"phi": 1.0})])
    assert (history.read, history.bad) == (0, 1)


def test_a_series_stays_bounded_and_keeps_its_extremes():
    series = Series(capacity=1000)
    rng = np.random.default_rng(1)
    value = rng.normal(size=50_000)
    value[12_345], value[23_456], value[34_567] = 99.0, -99.0, math.nan
    for start in range(0, 50_000, 500):
        step = np.arange(start, start + 500)
        series.extend(step, value[start : start + 500], np.zeros(500, dtype=np.int32))
        assert len(series) <= 1000
    assert series.seen == 50_000
    assert series.extremes == (-99.0, 99.0)
    assert np.isnan(series.value).any()
    assert series.last == (49_999, value[-1])
    assert (np.diff(series.step) > 0).all()


def test_what_was_held_still_knows_nothing_of_what_comes():
    series = Series(64)
    step = np.arange(200)
    none = np.zeros(200, dtype=np.int32)
    series.extend(step[:50], step[:50] * 1.0, none[:50])
    still = series.still()
    for i in range(50, 200):
        series.extend(step[i : i + 1], -step[i : i + 1] * 1.0, none[:1])
    assert len(still) == still.seen == 50
    assert still.step.tolist() == list(range(50))
    assert still.value.tolist() == [float(i) for i in range(50)]


def test_thinning_twice_keeps_what_thinning_once_would():
    rng = np.random.default_rng(2)
    step = np.arange(3, 4000)
    value = rng.normal(size=len(step))
    segment = np.zeros(len(step), dtype=np.int32)
    once = kept_by_thinning(step, value, segment, 64)
    first = kept_by_thinning(step, value, segment, 16)
    twice = first[kept_by_thinning(step[first], value[first], segment[first], 64)]
    assert once.tolist() == twice.tolist()


def test_steps_that_jump_about_for_ever_stay_bounded():
    history = History(capacity=256)
    history.add([Sample(i, i % 2, 0.0, m={"phi": 1.0}) for i in range(5000)])
    assert len(history.series("phi")) <= 256


def test_more_metrics_than_are_kept_are_counted():
    history = History(capacity=64)
    history.add([Sample(i, i, 0.0, m={f"m{i % 1050}": 1.0}) for i in range(2000)])
    assert len(history.metrics) == 1024
    assert history.dropped_metrics == {f"m{i}" for i in range(1024, 1050)}


@pytest.mark.parametrize("cut", [1, 5, 9, 11])
def test_a_backfill_gives_what_reading_from_the_start_would(cut):
    steps = [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 2, 3, 4]
    records = samples(steps)
    whole, older, newer = History(), History(), History()
    whole.add(records)
    newer.add(records[cut:])
    older.add([Scalars(r.seq, r.step, r.t, r.m) for r in records[:cut]])
    newer.prepend(older)
    assert newer.series("phi").step.tolist() == steps
    assert gone_steps(newer) == gone_steps(whole)
    assert (newer.read, newer.step, newer.segments) == (whole.read, whole.step, whole.segments)


def test_a_metric_that_only_the_earlier_part_knew_is_kept():
    newer, older = History(), History()
    newer.add(samples([10, 11], seq=10))
    older.add(samples([0, 1], metric="old"))
    newer.prepend(older)
    assert newer.series("old").step.tolist() == [0, 1]


def test_the_reference_is_the_first_basin_and_the_newest_are_kept():
    history = History()
    for i in range(200):
        raw = np.full(64, 1.0, dtype="<f4")
        raw[0] += i
        history.add([Sample(i, i, 0.0, basin=encode_basin(raw.tobytes()))])
    assert history.reference[0] == 0
    assert history.basins[-1][0] == 199
    assert len(history.basins) == 64
    assert history.basins[-1][1].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("raw", ["", "!!", encode_basin(b"\x00" * 256), encode_basin(b"\xff" * 256), "QUJD"])
def test_a_basin_that_is_no_distribution_is_left_out(raw):
    history = History()
    history.add([Sample(0, 0, 0.0, basin=raw)])
    assert not history.basins


def runs_of(steps, regimes, *, seq=0):
    return [
        Sample(seq + i, step, float(i), m={"phi": 0.5}, regime=regime)
        for i, (step, regime) in enumerate(zip(steps, regimes, strict=True))
    ]


def test_regimes_are_known_by_where_they_change_on_the_branch_that_the_run_is_on():
    history = History()
    history.add(runs_of(range(6), ["linear", "linear", "geometric", "geometric", "linear", None]))
    steps, names = history.regimes()
    assert (steps.tolist(), names) == ([0, 2, 4], ["linear", "geometric", "linear"])
    history.add(runs_of([1, 2, 3], ["linear", "linear", "odd"], seq=6))
    steps, names = history.regimes()
    assert (steps.tolist(), names) == ([0, 1, 3], ["linear", "linear", "odd"])
    assert history.regime == "odd"


def test_regimes_of_an_earlier_part_come_in_front():
    whole, late, early = History(), History(), History()
    records = runs_of(range(8), ["a", "b", "b", "c", "b", "a", "d", "d"])
    whole.add(records)
    late.add(records[5:])
    early.add(records[:5])
    late.prepend(early)
    assert late.regime == "d"
    for step in range(8):
        at = [int(np.searchsorted(h.regimes()[0], step, side="right")) - 1 for h in (whole, late)]
        assert whole.regimes()[1][at[0]] == late.regimes()[1][at[1]]


def test_a_run_of_any_length_and_any_number_of_metrics_stays_within_its_room():
    history = History()
    names = [f"m{i}" for i in range(200)]
    for start in range(0, 20_000, 500):
        history.add([Scalars(i, i, 0.0, m=dict.fromkeys(names, float(i))) for i in range(start, start + 500)])
    assert sum(len(history.series(name)) for name in names) <= MAX_POINTS
    assert all(history.series(name).seen == 20_000 for name in names)
    assert history.series("m0").extremes == (0.0, 19_999.0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(1, 6000),
    capacity=st.sampled_from([64, 200, 1000]),
    back=st.booleans(),
)
def test_every_zoom_level_keeps_its_extremes_and_its_mean(seed, length, capacity, back):
    rng = np.random.default_rng(seed)
    step = np.cumsum(rng.integers(1, 4, size=length))
    value = rng.normal(size=length)
    segment = np.zeros(length, dtype=np.int32)
    if back and length > 10:
        step[length // 2 :] -= step[length // 2] - step[length // 4]
        segment[length // 2 :] = 1
    series = Series(capacity)
    at = 0
    while at < length:
        part = int(rng.integers(1, 400))
        series.extend(step[at : at + part], value[at : at + part], segment[at : at + part])
        at += part
    assert len(series) <= capacity
    count, total = series.mass()
    assert count.sum() == length
    assert total.sum() == pytest.approx(value.sum())
    width = series._width
    while width <= step.max() + 1:
        for part in (0, 1):
            for first in range(0, int(step.max()) + 1, width):
                mine = (segment == part) & (step >= first) & (step < first + width)
                kept = (series.segment == part) & (series.step >= first) & (series.step < first + width)
                if mine.any():
                    assert series.value[kept].min() == value[mine].min()
                    assert series.value[kept].max() == value[mine].max()
        width *= 4


def test_a_mean_over_what_was_thinned_is_that_of_every_point():
    series = Series(256)
    rng = np.random.default_rng(3)
    # Skewed: the middle between the extremes would be far off.
    value = rng.exponential(size=40_000)
    for start in range(0, 40_000, 1000):
        series.extend(np.arange(start, start + 1000), value[start : start + 1000], np.zeros(1000, dtype=np.int32))
    assert series.is_thinned
    scale = scale_for(0, 39_999, 20)
    thinned = bucketed(series.step, series.value, scale, series.mass())
    whole = bucketed(np.arange(40_000), value, scale)
    assert thinned.column.tolist() == whole.column.tolist()
    assert thinned.low == pytest.approx(whole.low)
    assert thinned.high == pytest.approx(whole.high)
    assert thinned.mean == pytest.approx(whole.mean, rel=0.05)


def test_a_detail_has_every_point_of_its_steps_and_knows_the_branches():
    history = History(capacity=64)
    records = [*samples(range(500)), *samples(range(300, 600), seq=500)]
    history.add(records)
    assert history.is_thinned(250, 350)
    history.take_detail(detail_of(records, history.branches, 250, 350))
    assert not history.is_thinned(260, 340)
    assert history.is_thinned(260, 360)
    found = history.series_within("phi", 250, 350)
    assert found.step.tolist() == [*range(250, 351), *range(300, 351)]
    assert found.step[~history.abandoned(found)].tolist() == list(range(250, 351))
    assert history.series_within("phi", 250, None) is history.series("phi")


def test_a_detail_that_follows_the_newest_misses_nothing_that_came_while_it_was_read():
    history = History(capacity=64)
    records = samples(range(500))
    history.add(records[:400])
    history.ask_for_detail()
    read = records[:400]
    history.add(records[400:450])
    history.take_detail(detail_of(read, history.branches, 300, None))
    history.add(records[450:])
    assert history.series_within("phi", 350, None).step.tolist() == list(range(300, 500))


def test_a_pause_says_nothing_of_the_pace():
    history = History()
    history.add([Sample(i, i, 0.5 * i + (3600.0 if i >= 60 else 0.0), m={"a": 1.0}) for i in range(100)])
    assert history.seconds_per_step == pytest.approx(0.5, rel=0.02)
    odd = History()
    odd.add([Sample(i, i, (-1.0) ** i * 1e308, m={"a": 1.0}) for i in range(10)])
    assert odd.seconds_per_step is None


def test_a_detail_that_grew_too_large_is_given_up(monkeypatch):
    monkeypatch.setattr("qig_tui.detail._MOST_POINTS", 150)
    history = History(capacity=64)
    records = samples(range(400))
    history.add(records[:200])
    history.ask_for_detail()
    history.take_detail(detail_of(records[:200], history.branches, 100, None))
    history.add(records[200:240])
    assert len(history.series_within("phi", 100, None)) == 140
    history.add(records[240:])
    assert history.detail is None


def test_a_detail_for_which_too_much_came_meanwhile_is_not_taken(monkeypatch):
    monkeypatch.setattr("qig_tui.history._MOST_AWAITED", 10)
    history = History(capacity=64)
    records = samples(range(200))
    history.add(records[:100])
    history.ask_for_detail()
    history.add(records[100:])
    history.take_detail(detail_of(records[:100], history.branches, 50, None))
    assert history.detail is None
