import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT, Floor, Profile, RobustZ, Threshold
from qig_core.safety.rolling import Rolling, median_of
from tests.safety.judging import changes, one, states, verdict

NAN, INF = math.nan, math.inf
FLOOR = Floor(id="f", metric="x", dwell=3, baseline=5, armed_after_steps=10)
SPIKE = RobustZ(id="z", metric="x", z=8.0, window=10)
AROUND = [0.9, 1.1, 1.0, 0.9, 1.1, 1.0, 0.9, 1.1, 1.0, 1.0]
"""Median 1, MAD 0.05 ... 0.1."""


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.integers(10, 30), st.integers(0, 12))
def test_a_rolling_window_is_renewed_to_what_numpy_says(values: list[float], size: int, turn: int) -> None:
    window = Rolling(size, 0.01, turn=turn)
    age = 0
    for count, value in enumerate(values, start=1):
        renewed = window.add(value)
        age = 0 if renewed else age + 1
        assert window.ready is (count >= size)
        assert age < (2 * -(-size // 4) if window.ready else size)
        if renewed:
            held = np.array(values[max(0, count - size) : count])
            median = np.median(held)
            mad = np.median(np.abs(held - median))
            assert window.median == pytest.approx(median, rel=1e-12, abs=1e-12)
            sigma = 1.4826 * max(mad, 0.01 * abs(median), 1e-12)
            assert window.sigma == pytest.approx(sigma, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_the_median_is_that_of_numpy(values: list[float]) -> None:
    assert median_of(values) == pytest.approx(float(np.median(values)), rel=1e-12, abs=1e-12)


def test_windows_of_other_turns_are_renewed_at_other_steps() -> None:
    windows = [Rolling(100, 0.01, turn=turn) for turn in range(25)]
    steps = [{step for step in range(1000) if window.add(float(step % 7))} - {99} for window in windows]
    assert not set.intersection(*steps[:2])
    assert len(set.union(*steps)) > 800


def test_a_floor_is_armed_by_a_step_of_the_run_and_its_baseline_by_evaluations_of_the_metric() -> None:
    monitor = one(FLOOR)
    assert set(states(monitor, "x", [9.0] * 10)) == {"unarmed"}  # the warm-up is no baseline
    seen = [monitor.judge(step, {"x": 1.0 if step % 2 else None}).worst for step in range(10, 22)]
    assert seen == ["unarmed"] * 11 + ["ok"]  # steps 11, 13, 15, 17, 19 are the baseline
    assert monitor.verdicts()[0].limit == 0.7


def test_a_floor_counts_its_dwell_in_evaluations_both_ways() -> None:
    monitor = one(FLOOR)
    states(monitor, "x", [1.0] * 16)
    low = [0.6, None, 0.6, NAN, 0.6, 0.8, 0.8, None, 0.6, 0.8, 0.8, 0.8]
    assert states(monitor, "x", low, first=16) == ["ok"] * 4 + ["critical"] * 7 + ["ok"]


def test_a_floor_is_raised_once_and_cleared_once() -> None:
    series = [1.0] * 20 + [0.1] * 300 + [1.0] * 10
    assert changes(one(FLOOR), [{"x": x} for x in series]) == ["15 f ok", "22 f critical", "322 f ok"]


def test_a_lasting_fall_does_not_become_the_baseline() -> None:
    monitor = one(FLOOR)
    states(monitor, "x", [1.0] * 16 + [0.5] * 2000)
    assert (monitor.verdicts()[0].state, monitor.verdicts()[0].limit) == ("critical", 0.7)


def test_a_baseline_under_zero_is_fallen_below_by_as_much() -> None:
    monitor = one(FLOOR)
    assert states(monitor, "x", [-1.0] * 16 + [-1.3] * 3 + [-1.31] * 3)[15:] == ["ok"] * 6 + ["critical"]


def test_a_change_of_the_gain_takes_a_new_baseline_and_judges_nothing_till_then() -> None:
    monitor = one(FLOOR)
    for step in range(18):
        monitor.judge(step, {"x": 1.0, "gain": 1.0})
    for step in range(18, 21):
        worst = monitor.judge(step, {"x": 0.5, "gain": 1.0}).worst
    assert worst == "critical"
    gains = [0.9, 0.8, 0.7] + [0.7] * 10
    seen = [monitor.judge(21 + n, {"x": 0.5, "gain": gain}).worst for n, gain in enumerate(gains)]
    assert seen == ["unarmed"] * 7 + ["ok"] * 6  # 0.7 is held for five evaluations before one is judged
    assert monitor.verdicts()[0].limit == 0.35


def test_a_gain_that_changes_where_the_metric_is_not_measured_is_heard_at_once() -> None:
    warning = Threshold(id="w", metric="y", comparison="<=", value=0.0, severity="warning")
    monitor = SafetyMonitor(Profile(name="p", limits=(FLOOR, warning)))
    for step in range(21):
        monitor.judge(step, {"x": 1.0 if step < 17 else 0.1, "y": 1.0, "gain": 1.0})
    assert monitor.states() == {"f": "critical", "w": "warning"}
    judgement = monitor.judge(21, {"gain": 0.5})
    assert [(v.id, v.state, v.since_step) for v in judgement.transitions] == [("f", "unarmed", 21)]
    assert judgement.worst == "warning"


@pytest.mark.parametrize("gain", [NAN, INF, None])
def test_a_gain_that_is_no_number_changes_no_baseline(gain: float | None) -> None:
    monitor = one(FLOOR)
    for step in range(40):
        monitor.judge(step, {"x": 1.0, "gain": gain if step % 3 == 0 else 1.0})
    assert monitor.states() == {"f": "ok"}


def test_a_resumed_floor_is_that_share_of_its_baseline_which_the_profile_says() -> None:
    monitor = one(FLOOR)
    states(monitor, "x", [1.0] * 16)
    lower = one(Floor(id="f", metric="x", share=0.5, baseline=5))
    lower.restore(monitor.state())
    assert (lower.verdicts()[0].limit, lower.verdicts()[0].dwell) == (0.5, 10)


def test_a_robust_z_is_armed_by_a_full_window_of_its_metric() -> None:
    series = [None, NAN, *AROUND[:5], INF, None, *AROUND[5:], None, 1.0]
    assert states(one(SPIKE), "x", series) == ["unarmed"] * 15 + ["ok"]


def test_a_robust_z_breaks_at_the_limit_that_it_shows() -> None:
    monitor = one(SPIKE)
    states(monitor, "x", [*AROUND, 1.0])
    limit = monitor.verdicts()[0].limit
    assert limit == pytest.approx(1.0 + 8.0 * 1.4826 * np.median(np.abs(np.array(AROUND) - 1.0)), rel=1e-12)
    assert states(monitor, "x", [limit, math.nextafter(limit, INF)]) == ["ok", "warning"]


def test_a_robust_z_comes_back_by_its_hysteresis_and_is_raised_once() -> None:
    monitor = one(SPIKE)
    states(monitor, "x", [*AROUND, 1.0])
    per_z = (monitor.verdicts()[0].limit - 1.0) / 8.0
    samples = [{"x": 1.0 + z * per_z} for z in (8.1, 7.9, 6.1, 20.0, 5.9, 1.0)]
    assert changes(monitor, samples, first=20) == ["20 z warning", "24 z ok"]


def test_a_robust_z_waits_its_dwell_in_evaluations_both_ways() -> None:
    monitor = one(RobustZ(id="z", metric="x", window=10, dwell=2))
    seen = states(monitor, "x", [*AROUND, 1.0, 9.0, None, 1.0, 9.0, NAN, 9.0, 1.0, None, 9.0, 1.0, 1.0])
    assert seen[10:] == ["ok"] * 6 + ["warning"] * 5 + ["ok"]


@pytest.mark.parametrize(("sides", "alarms"), [("above", "+"), ("below", "-"), ("both", "+-")])
def test_a_robust_z_looks_to_the_sides_that_it_was_told(sides: str, alarms: str) -> None:
    for sign in "+-":
        monitor = one(RobustZ(id="z", metric="x", window=10, sides=sides))
        states(monitor, "x", [*AROUND, 1.0])
        assert monitor.verdicts()[0].comparison == (">=" if sides == "below" else "<=")
        said = states(monitor, "x", [float(f"{sign}50")])[-1]
        assert said == ("warning" if sign in alarms else "ok")
        shown = monitor.verdicts()[0]
        assert shown.comparison == (">=" if sides == "below" or (sides == "both" and sign == "-") else "<=")
        assert said == "ok" or (shown.value > shown.limit) is (sign == "+")


def test_a_lasting_shift_does_not_become_the_recent_past() -> None:
    monitor = one(SPIKE)
    assert set(states(monitor, "x", [*AROUND, 1.0] + [5.0] * 1000)[11:]) == {"warning"}
    assert states(monitor, "x", [1.0]) == ["ok"]


def test_a_slow_change_does() -> None:
    chance = random.Random(0)
    series = [1.0 + 0.001 * n + chance.gauss(0, 0.05) for n in range(3000)]
    assert set(states(one(RobustZ(id="z", metric="x")), "x", series)) == {"unarmed", "ok"}


def test_a_flat_metric_is_allowed_a_hundredth_of_itself() -> None:
    monitor = one(SPIKE)
    assert states(monitor, "x", [2.0] * 12 + [2.0 + 8 * 1.4826 * 0.02 - 1e-9, 2.3])[-2:] == ["ok", "warning"]


def test_a_spike_of_the_gradient_norm_is_three_in_a_row() -> None:
    monitor = SafetyMonitor()
    for step in range(110):
        monitor.judge(step, {"grad_norm": AROUND[step % 10]})
    said = [verdict(monitor.judge(110 + n, {"grad_norm": x}), "grad_spike").state for n, x in enumerate([99, 1] * 3)]
    assert set(said) == {"ok"}
    said = [verdict(monitor.judge(120 + n, {"grad_norm": 99.0}), "grad_spike").state for n in range(3)]
    assert said == ["ok", "ok", "warning"]


@pytest.mark.parametrize("window", [10, 30])
def test_a_robust_z_that_is_resumed_with_another_window_goes_on_from_its_values(window: int) -> None:
    monitor = one(RobustZ(id="z", metric="x", window=20))
    states(monitor, "x", AROUND * 3 + [9.0])
    other = one(RobustZ(id="z", metric="x", window=window))
    other.restore(monitor.state())
    assert other.states() == {"z": "warning" if window == 10 else "unarmed"}
    assert states(other, "x", AROUND * 2)[-1] == "ok"
    assert states(other, "x", [9.0]) == ["warning"]


def test_numbers_at_the_end_of_the_range_leave_a_finite_state() -> None:
    monitor = SafetyMonitor()
    for step in range(600):
        value = (-1.0) ** step * 1.7e308
        monitor.judge(step, dict.fromkeys(("loss", "phi", "kappa", "grad_norm", "drift_velocity"), value))
    monitor = SafetyMonitor.from_state(DEFAULT, monitor.state())

    def numbers(data: object) -> list[float]:
        if isinstance(data, dict | list | tuple):
            return [n for each in (data.values() if isinstance(data, dict) else data) for n in numbers(each)]
        return [data] if isinstance(data, float) else []

    assert all(map(math.isfinite, numbers(monitor.state())))
