"""Changes are flagged soon, seldom without cause, and are what a straightforward computation says."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.geometry.simplex import FloatArray
from qig_core.training.changes import Change, Changes
from qig_core.training.program_config import OceanConfig

DEFAULT = OceanConfig()


def change(direction: str = "up", *, window: int = DEFAULT.window) -> Change:
    return Change(direction, window=window, slack=DEFAULT.slack, threshold=DEFAULT.threshold)  # type: ignore[arg-type]


def first_flag(values: FloatArray) -> int | None:
    """How many values it took until a change was flagged."""
    watched = change()
    for i, value in enumerate(values, 1):
        watched.observe(i, float(value))
        if watched.flag is not None:
            return i
    return None


def autoregressive(rho: float, series: int, length: int) -> FloatArray:
    """AR(1) noise of unit variance, [series, length]."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((series, length))
    for t in range(1, length):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * x[:, t]
    return x


@pytest.mark.parametrize(("rho", "per_thousand"), [(0.0, 0.1), (0.5, 0.8), (0.7, 2.5)])
def test_noise_is_seldom_called_a_change(rho: float, per_thousand: float) -> None:
    flagged = 0
    noise = autoregressive(rho, 40, 250)
    for series in noise:
        watched, before = change(), False
        for step, value in enumerate(series):
            watched.observe(step, value)
            flagged += watched.flag is not None and not before
            before = watched.flag is not None
    assert 1000 * flagged / noise.size <= per_thousand


@pytest.mark.parametrize(("size", "share", "delay"), [(3.0, 0.8, 10), (5.0, 0.98, 5), (8.0, 1.0, 4)])
def test_a_step_is_flagged_within_a_few_reports(size: float, share: float, delay: int) -> None:
    noise = autoregressive(0.0, 60, 100)
    noise[:, 60:] += size
    found = [first_flag(series) for series in noise]
    delays = [at - 60 for at in found if at is not None and at > 60]
    assert len(delays) >= share * len(noise)
    assert np.median(delays) <= delay


def test_a_straight_trend_is_no_change() -> None:
    for slope in (0.01, 1.0, 1e6):
        assert first_flag(slope * np.arange(500.0)) is None


def test_two_absurd_values_flag_nothing_and_three_do() -> None:
    calm = np.tile([1.0, 1.2, 0.8], 10)
    assert first_flag(np.concatenate([calm, [1e9, 1e9], calm, calm])) is None
    assert first_flag(np.concatenate([calm, [1e9] * 3])) == 33


@pytest.mark.parametrize(
    ("direction", "sign", "flagged"),
    [
        ("up", 1, "up"),
        ("up", -1, None),
        ("down", 1, None),
        ("down", -1, "down"),
        ("both", 1, "up"),
        ("both", -1, "down"),
    ],
)
def test_a_change_is_flagged_in_the_direction_that_is_watched(direction: str, sign: int, flagged: str | None) -> None:
    watched = change(direction)
    for step, value in enumerate([1.0, 1.2, 0.8] * 10 + [1.0 + sign * 2.0] * 6):
        watched.observe(step, value)
    assert (watched.flag and watched.flag.direction) == flagged
    if watched.flag is not None:
        assert watched.flag.since == 30
        assert watched.flag.holds


def test_a_flag_outlives_its_threshold_down_to_a_quarter() -> None:
    watched = change()
    for step, value in enumerate([1.0, 1.2, 0.8] * 10 + [9.0] * 3):
        watched.observe(step, value)
    told = [watched.flag]
    for step in range(33, 39):
        watched.observe(step, 1.0)
        told.append(watched.flag)
    # The median is 1: each calm value takes the slack away, and 3.0 is a quarter.
    assert [flag and flag.sum for flag in told] == pytest.approx([12.0, 10.5, 9.0, 7.5, 6.0, 4.5, None])
    assert [flag and flag.holds for flag in told] == [True] + [False] * 5 + [None]


def test_however_long_it_was_off_four_calm_reports_end_the_evidence() -> None:
    watched = change()
    for step, value in enumerate([1.0, 1.2, 0.8] * 10 + [9.0] * 20):
        watched.observe(step, value)
    assert watched.flag is not None
    assert watched.flag.sum == 18.0
    holds = []
    for step in range(50, 56):
        watched.observe(step, 1.0)
        holds.append(watched.flag is not None and watched.flag.holds)
    assert holds == [True] * 4 + [False] * 2


def test_only_what_is_off_in_a_row_becomes_the_past() -> None:
    watched = change(window=12)
    for value in [1.0, 1.2, 0.8] * 4 + ([9.0] * 8 + [1.0] * 16) * 3:
        watched.observe(0, value)
    assert watched.state()["off"] == []
    assert 9.0 not in watched.state()["past"]


def test_what_is_off_does_not_enter_the_past() -> None:
    watched = change()
    for step, value in enumerate([1.0, 1.2, 0.8] * 10 + [9.0] * 20):
        watched.observe(step, value)
    assert watched.flag is not None
    assert set(watched.state()["past"]) == {1.0, 1.2, 0.8}


def test_what_stays_changed_for_a_window_is_how_it_is_now() -> None:
    watched = change()
    flagged = []
    for step, value in enumerate([1.0, 1.2, 0.8] * 10 + [9.0] * 29 + [9.1, 9.0]):
        watched.observe(step, value)
        flagged.append(watched.flag is not None)
    assert flagged == [False] * 32 + [True] * 27 + [False] * 2
    assert watched.state()["past"] == [9.0] * 28 + [9.1, 9.0]


def test_what_is_not_finite_is_passed_over_and_what_is_huge_is_survived() -> None:
    watched, other = change("both"), change("both")
    for step, value in enumerate([1.0, 1.2, 0.8] * 5):
        watched.observe(step, value)
        other.observe(step, value)
        for odd in (math.nan, math.inf, -math.inf):
            other.observe(step, odd)
    assert watched.state() == other.state()
    for step in range(100):
        watched.observe(step, 1.7e308 * (-1) ** step)
        assert all(math.isfinite(x) for x in watched.state()["sums"].values())


RUNS = st.lists(st.tuples(st.sampled_from([-9.0, -1.0, 0.0, 0.2, 1.0, 9.0]), st.integers(1, 14)), max_size=10)


@given(
    st.one_of(
        st.lists(st.floats(-5.0, 5.0), max_size=80), RUNS.map(lambda runs: [x for x, n in runs for _ in range(n)])
    )
)
def test_the_sums_are_those_of_a_straightforward_computation(values: list[float]) -> None:
    watched = change("both", window=12)
    past: list[float] = []
    off: list[float] = []
    up = down = 0.0
    for step, x in enumerate(values):
        watched.observe(step, x)
        if len(past) >= 8:
            median = float(np.median(past))
            mad = float(np.median(np.abs(np.array(past) - median)))
            u = (x - median) / (1.4826 * max(mad, 0.01 * abs(median), 1e-12))
            up = min(max(up + min(u - 1.5, 4.0), 0.0), 18.0)
            down = min(max(down + min(-u - 1.5, 4.0), 0.0), 18.0)
        if max(up, down) <= 3.0:
            past, off = [*past, x][-12:], []
        else:
            off.append(x)
        if len(off) == 12:
            past, off, up, down = off, [], 0.0, 0.0
        state = watched.state()
        assert state["sums"]["up"] == pytest.approx(up, rel=1e-9, abs=1e-9)
        assert state["sums"]["down"] == pytest.approx(down, rel=1e-9, abs=1e-9)
        assert (state["past"], state["off"]) == (past, off)


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=40, max_size=70), st.integers(0, 69))
def test_a_resume_goes_on_bit_by_bit(values: list[float], cut: int) -> None:
    whole = change("both")
    resumed = change("both")
    for step, value in enumerate(values):
        whole.observe(step, value)
        resumed.observe(step, value)
        if step == cut:
            state = json.loads(json.dumps(resumed.state()))
            resumed = change("both")
            resumed.restore(state)
        assert resumed.flag == whole.flag
    assert resumed.state() == whole.state()


def test_taking_turns_is_no_change() -> None:
    """An active Gary moves ten times as fast as an observer."""
    rng = np.random.default_rng(3)
    several = Changes(window=30, slack=1.5, threshold=12.0)
    one = change()
    confused = 0
    for step in range(300):
        role = "active" if step // 5 % 3 == 0 else "observer"
        velocity = (0.1 if role == "active" else 0.01) * (1.0 + 0.1 * rng.standard_normal())
        assert several.observe(step, "gary1", role, {"velocity": velocity}) == {}
        one.observe(step, velocity)
        confused += one.flag is not None
    assert confused > 100  # what it would be if there were one past for both


def test_every_metric_is_watched_in_its_direction_and_only_while_it_is_measured() -> None:
    several = Changes(window=30, slack=1.5, threshold=12.0)
    rise = {"loss": 3.0, "phi": 0.9, "velocity": 0.5, "kappa": 30.0}
    calm = {"loss": 1.0, "phi": 0.5, "velocity": 0.1, "kappa": 8.0}
    for step in range(30):
        wobble = 1.0 + 0.05 * (step % 3)
        several.observe(step, "up", "active", {name: wobble * value for name, value in calm.items()})
        several.observe(step, "down", "active", {name: wobble * value for name, value in calm.items()})
    for step in range(30, 36):
        up = several.observe(step, "up", "active", rise)
        down = several.observe(step, "down", "active", dict.fromkeys(rise, 0.0))
    assert {name: flag.direction for name, flag in up.items()} == {"loss": "up", "velocity": "up", "kappa": "up"}
    assert {name: flag.direction for name, flag in down.items()} == {"phi": "down", "kappa": "down"}
    assert several.observe(36, "up", "active", {"loss": None, "kappa": 30.0}).keys() == {"kappa"}
    several.anew("up")
    assert several.observe(37, "up", "active", rise) == {}
    assert several.observe(37, "down", "active", {"phi": 0.0}).keys() == {"phi"}
