import math

import numpy as np
import pytest

from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_core.rundir.values import encode_basin
from qig_tui.history import History, Series, kept_by_thinning


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
    history.add([Sample(i, i, 0.0, m={f"m{i}": 1.0}) for i in range(300)])
    assert len(history.metrics) == 256
    assert history.dropped_metrics == 44


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
