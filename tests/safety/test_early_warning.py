import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT, EarlyWarning, Measured, Profile
from tests.safety.judging import changes, one, states, verdict

NAN, INF = math.nan, math.inf
AROUND = [0.9, 1.1, 1.0, 0.8, 1.2, 1.0, 0.9, 1.1, 1.0, 1.0]
EARLY = EarlyWarning(metrics={"x": "up", "y": "both"}, window=10, slack=1.0, clip=5.0, threshold=20.0)
TRIO = Measured(metrics=("a", "b", "c"), armed_after=4, dwell=3)


def quiet(steps: int) -> list[dict[str, float]]:
    return [{"x": AROUND[n % 10], "y": AROUND[n % 10]} for n in range(steps)]


def watched(monitor: SafetyMonitor, name: str) -> dict[str, Any]:
    """Window, sums (up, down), and since when each of them is over 0."""
    found: dict[str, Any] = monitor.state()["conditions"]["early_warning"]["watched"][name]
    return found


def test_it_is_armed_by_one_full_window() -> None:
    series = [None, NAN, *AROUND, INF, None, 1.0]
    assert states(one(EARLY), "x", series) == ["unarmed"] * 14 + ["ok"]


def test_a_metric_that_never_appears_is_not_waited_for() -> None:
    assert states(SafetyMonitor(Profile(name="p", limits=(EarlyWarning(),))), "loss", [1.0] * 101)[-1] == "ok"


def test_it_is_defined_by_its_formula() -> None:
    """The documented rule, laid beside numpy: noise, a rise, a return."""
    chance = random.Random(4)
    series = [1.0 + chance.gauss(0, 0.1) + (1.0 if 60 <= n < 90 else 0.0) for n in range(160)]
    monitor = one(EARLY)
    held: list[float] = []
    total, alarming, center, sigma, left, said = 0.0, False, 0.0, 1.0, 10, []
    for step, x in enumerate(series):
        absorbed = True
        if len(held) >= 10:
            u = min(max((x - center) / sigma, -5.0), 5.0)
            total = min(max(0.0, total + u - 1.0), 40.0)
            absorbed = total < (10.0 if alarming else 20.0)
            alarming = total >= (10.0 if alarming else 20.0)
        if absorbed:
            held.append(x)
            left -= 1
            if left == 0:
                center = float(np.median(held[-10:]))
                sigma = 1.4826 * max(float(np.median(np.abs(np.array(held[-10:]) - center))), 0.01 * abs(center))
                left = 3
        said.append((step, monitor.judge(step, {"x": x}).worst, watched(monitor, "x")["sums"][0]))
        assert said[-1][2] == pytest.approx(total, abs=1e-9), step
        assert (said[-1][1] == "warning") is alarming
    assert "warning" in {state for _, state, _ in said[60:90]}
    assert said[-1][1] == "ok"


def test_it_is_raised_once_and_cleared_once_and_steps_without_a_value_do_not_count() -> None:
    rise = [*AROUND * 3, *[9.0] * 5, *[1.0] * 60]
    # Each of the rise counts as 5 - 1 = 4: the fifth reaches 20. Each calm one takes 1 away until it is under 10.
    dense = changes(one(EARLY), [{"x": x} for x in rise])
    assert [change.split(" ", 1)[1] for change in dense] == [f"early_warning {s}" for s in ("ok", "warning", "ok")]
    sparse = changes(one(EARLY), [{"x": x if k == 0 else None, "o": 0.0} for x in rise for k in range(3)])
    assert [int(a.split()[0]) * 3 for a in dense] == [int(b.split()[0]) for b in sparse]
    assert int(dense[1].split()[0]) == 34


def test_one_absurd_value_alarms_nobody() -> None:
    assert "warning" not in states(one(EARLY), "x", AROUND * 2 + [1e300, 1.0, -1e300, 1.0, 1.0] + AROUND)


def test_a_direction_that_is_not_watched_adds_nothing_up() -> None:
    fall = AROUND * 2 + [-9.0] * 20
    assert "warning" not in states(one(EARLY), "x", fall)
    assert "warning" in states(one(EARLY), "y", fall)


def test_a_lasting_shift_does_not_become_the_recent_past() -> None:
    monitor = one(EARLY)
    states(monitor, "x", AROUND * 2 + [3.0] * 5)
    before = watched(monitor, "x")["window"]
    assert set(states(monitor, "x", [3.0] * 1000, first=25)) == {"warning"}
    assert watched(monitor, "x")["window"] == before


def test_however_long_it_was_off_a_calm_of_the_same_length_clears_it() -> None:
    monitor = one(EARLY)
    states(monitor, "x", AROUND * 2 + [9.0] * 5000)
    calm = states(monitor, "x", [1.0] * 40, first=5020)
    assert calm.index("ok") < 35


def test_while_one_metric_alarms_another_may_join_and_the_cause_names_both_in_their_order() -> None:
    monitor = one(EARLY)
    for step, sample in enumerate(quiet(30)):
        monitor.judge(step, sample)
    for step in range(30, 50):
        said = monitor.judge(step, {"x": 1.0 if step < 40 else 9.0, "y": -9.0}).verdicts[0]
    assert (said.state, said.cause, said.metric, said.value) == ("warning", ("y", "x"), "y", -9.0)
    for step in range(50, 90):
        said = monitor.judge(step, {"x": 9.0, "y": 1.0}).verdicts[0]
    assert (said.state, said.cause, said.metric, said.value) == ("warning", ("x",), "x", 9.0)


def test_noise_on_the_other_side_is_no_onset() -> None:
    monitor = one(EARLY)
    for step, sample in enumerate(quiet(30)):
        monitor.judge(step, sample)
    # y is a little high from 30 on, and falls from 33 on: its upper sum has not run out when the lower one begins.
    # x begins at 32, before y fell.
    for step in range(30, 33):
        monitor.judge(step, {"x": 1.0 if step < 32 else 9.0, "y": 1.35})
    assert watched(monitor, "y")["since"][0] == 30
    for step in range(33, 45):
        assert watched(monitor, "y")["sums"][0] > 0.0 or step > 33
        said = monitor.judge(step, {"x": 9.0, "y": -9.0}).verdicts[0]
    assert watched(monitor, "y")["since"][1] == 33
    assert said.cause == ("x", "y")


def healthy(steps: int, seed: int) -> Iterator[dict[str, float]]:
    chance = random.Random(seed)
    for step in range(steps):
        yield {
            "loss": 2.0 + 0.8 * math.exp(-step / 150) + chance.gauss(0, 0.05),
            "grad_norm": math.exp(chance.gauss(0, 0.3)),
            "phi": 0.7 + chance.gauss(0, 0.005),
            "kappa": 8.0 + chance.gauss(0, 0.05),
            "drift_velocity": abs(0.01 + chance.gauss(0, 0.002)),
        }


def test_noise_alarms_nobody() -> None:
    assert changes(one(EarlyWarning()), healthy(5000, 0)) == ["100 early_warning ok"]


def test_an_alarm_names_the_metrics_in_the_order_in_which_they_moved() -> None:
    monitor = SafetyMonitor()
    raised = {}
    for step, sample in enumerate(healthy(700, 1)):
        sample["phi"] -= 0.001 * max(0, step - 400)
        sample["loss"] += 0.02 * max(0, step - 430)
        for each in monitor.judge(step, sample).transitions:
            if each.state in ("warning", "critical"):
                raised[each.id] = (step, each.cause)
    assert raised["early_warning"][1][0] == "phi"
    assert raised["early_warning"][0] < raised["divergence"][0]
    assert raised["divergence"][1] == ("phi", "loss")
    assert raised["phi_floor"][1] == ("phi", "loss")


def test_where_nothing_moved_before_an_alarm_names_its_own_metric() -> None:
    monitor = SafetyMonitor()
    for step, sample in enumerate(healthy(200, 2)):
        monitor.judge(step, sample)
    said = verdict(monitor.judge(200, {"drift_rolling": 2.0}), "drift")
    assert (said.state, said.cause) == ("warning", ("drift_rolling",))


def test_without_an_early_warning_an_alarm_names_its_own_metric() -> None:
    profile = Profile(name="p", limits=tuple(each for each in DEFAULT.limits if not isinstance(each, EarlyWarning)))
    monitor = SafetyMonitor(profile)
    assert monitor.judge(0, {"recursion_depth": 1.0}).critical[0].cause == ("recursion_depth",)


@pytest.mark.parametrize(
    "other",
    [
        EarlyWarning(metrics={"x": "down", "y": "both"}, window=10),
        EarlyWarning(metrics={"y": "both"}, window=10),
        EarlyWarning(metrics={"x": "up"}, window=50),
        EarlyWarning(metrics={"x": "up", "new": "up"}, window=10, severity="critical"),
    ],
)
def test_it_goes_on_with_other_numbers_and_metrics_and_clears(other: EarlyWarning) -> None:
    monitor = one(EARLY)
    for step in range(30):
        monitor.judge(step, {"x": AROUND[step % 10] if step < 20 else 9.0, "y": 1.0})
    assert monitor.states() == {"early_warning": "warning"}
    resumed = one(other)
    resumed.restore(monitor.state())
    for step in range(30, 200):
        resumed.judge(step, {"x": AROUND[step % 10], "y": AROUND[step % 10]})
    assert resumed.states() == {"early_warning": "ok"}


def trio(letters: str) -> dict[str, float | None]:
    return {name: 1.0 if name in letters else None for name in "abc"} | {"other": 0.0}


def seen(monitor: SafetyMonitor, *groups: str) -> list[str]:
    return [monitor.judge(step, trio(letters)).worst for step, letters in enumerate(groups)]


def test_a_metric_is_missed_once_it_was_measured_often_enough() -> None:
    assert seen(one(TRIO), *["ab"] * 3, "", "ab", *["a"] * 3, "", "ab") == (
        ["unarmed"] * 4 + ["ok"] * 3 + ["warning"] * 2 + ["ok"]
    )


def test_a_metric_is_not_missed_before_it_was_measured_so_often() -> None:
    # b and c come later than a, and all three together: they are counted there as well.
    assert seen(one(TRIO), *["a"] * 5, *["abc"] * 3, *["a"] * 9)[-1] == "ok"
    assert seen(one(TRIO), *["a"] * 5, *["abc"] * 4, *["a"] * 3)[-2:] == ["ok", "warning"]


def test_where_nothing_of_the_group_is_measured_nothing_is_missed() -> None:
    assert set(seen(one(TRIO), *["abc"] * 5, *[""] * 50)[4:]) == {"ok"}


def test_only_a_gap_in_one_piece_is_missed_and_it_is_told_once() -> None:
    monitor = one(TRIO)
    groups = ["abc"] * 5 + ["ab", "ab", "abc"] * 5 + ["ab"] * 20 + ["abc"] * 5
    assert changes(monitor, map(trio, groups)) == ["3 measured ok", "22 measured warning", "40 measured ok"]


def test_the_cause_names_what_is_missed_the_longest_first() -> None:
    monitor = one(TRIO)
    seen(monitor, *["abc"] * 5, "ab", "ab", *["a"] * 3)
    said = monitor.verdicts()[0]
    assert (said.cause, said.text()) == (("c", "b"), "measured: c, b not measured any more")


def test_a_value_that_is_not_finite_was_measured() -> None:
    monitor = one(TRIO)
    seen(monitor, *["abc"] * 5)
    for step in range(5, 20):
        monitor.judge(step, {"a": 1.0, "b": NAN, "c": INF})
    assert monitor.states() == {"measured": "ok"}
