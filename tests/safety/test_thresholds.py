import math

import pytest

from qig_core.safety.monitor import Advice, SafetyMonitor
from qig_core.safety.profile import DEFAULT, REFERENCE, Threshold
from tests.safety.judging import changes, one, states, verdict

NAN, INF = math.nan, math.inf


def limit(**more: object) -> Threshold:
    return Threshold(id="t", metric="x", **({"comparison": "<=", "value": 1.0} | more))


def test_a_threshold_waits_its_dwell_in_evaluations_of_its_metric_and_clears_beyond_its_hysteresis() -> None:
    monitor = one(limit(dwell=2, hysteresis=0.5, armed_after=1))
    # None: a step at which x was not measured. It neither counts nor interrupts.
    seen = states(monitor, "x", [9.0, 2.0, None, None, 2.0, 0.9, 0.9, 0.4, None, NAN, 0.4])
    assert seen == ["unarmed", "ok", "ok", "ok"] + ["critical"] * 6 + ["ok"]


@pytest.mark.parametrize("comparison", ["<=", ">="])
def test_equality_is_healthy(comparison: str) -> None:
    assert states(one(limit(comparison=comparison)), "x", [1.0]) == ["ok"]


def test_an_infinity_is_on_one_side_of_every_number() -> None:
    assert states(one(limit()), "x", [INF, -INF, NAN]) == ["critical", "ok", "ok"]


def test_a_threshold_is_raised_once_and_cleared_once() -> None:
    samples = [{"x": x} for x in (0.0, 2.0, 2.0, 3.0, 0.0, 0.0)]
    assert changes(one(limit()), samples) == ["0 t ok", "1 t critical", "4 t ok"]


def test_a_critical_limit_passes_its_warning_first_and_shows_the_number_that_comes_next() -> None:
    monitor = one(limit(warning=0.5, hysteresis=0.1))
    seen = [
        (v.state, v.limit, v.since_step)
        for step, x in enumerate([0.2, 0.6, 1.2, 0.95, 0.8, 0.45, 0.3])
        for v in monitor.judge(step, {"x": x}).verdicts
    ]
    assert seen == [
        ("ok", 0.5, 0),
        ("warning", 0.5, 1),
        ("critical", 1.0, 2),
        ("critical", 1.0, 2),
        ("warning", 0.5, 4),
        ("warning", 0.5, 4),
        ("ok", 0.5, 6),
    ]


def test_a_warning_waits_the_dwell_as_well() -> None:
    seen = states(one(limit(warning=0.5, dwell=2)), "x", [0.7, 0.7, 0.7, 2.0, 2.0, 0.0, 0.0])
    assert seen == ["ok", "warning", "warning", "warning", "critical", "critical", "ok"]


def test_advice_is_given_and_taken_back_and_is_no_alarm() -> None:
    monitor = one(limit(advice_at=0.8, advice="sleep advised", hysteresis=0.1, unit="rad"))
    given = [monitor.judge(step, {"x": x}).advice for step, x in enumerate([0.5, 0.85, 0.9, 0.75, 0.6])]
    assert given == [
        (),
        (Advice("t", "t: x 0.85 rad, limit <= 1 rad: sleep advised", True),),
        (),
        (),
        (Advice("t", "t: x 0.6 rad, limit <= 1 rad: no longer sleep advised", False),),
    ]
    assert monitor.states() == {"t": "ok"}


def test_advice_that_holds_is_not_given_again_after_a_resume() -> None:
    monitor = SafetyMonitor()
    assert [each.id for each in monitor.judge(0, {"drift_rolling": 0.5}).advice] == ["drift"]
    again = SafetyMonitor.from_state(DEFAULT, monitor.state())
    assert again.judge(1, {"drift_rolling": 0.5}).advice == ()
    assert [each.raised for each in again.judge(2, {"drift_rolling": 0.1}).advice] == [False]


def test_the_reference_floor_of_phi_is_armed_by_fifty_evaluations_at_its_height_and_stays_so() -> None:
    monitor = SafetyMonitor(REFERENCE)
    phis = [0.3] * 5 + [0.65] * 49 + [0.64] + [None, NAN] + [0.65] * 49
    assert {verdict(monitor.judge(n, {"phi": phi}), "phi_floor").state for n, phi in enumerate(phis)} == {"unarmed"}
    said = [verdict(monitor.judge(200 + n, {"phi": phi}), "phi_floor").state for n, phi in enumerate([0.7, 0.5, 0.49])]
    assert said == ["ok", "ok", "critical"]


def test_a_resumed_threshold_is_that_of_the_profile_it_is_resumed_with() -> None:
    monitor = one(limit())
    monitor.judge(0, {"x": 2.0})
    wider = SafetyMonitor.from_state(one(limit(value=5.0, dwell=2)).profile, monitor.state())
    assert [(v.state, v.limit, v.dwell) for v in wider.verdicts()] == [("critical", 5.0, 2)]
    assert states(wider, "x", [2.0, 2.0], first=1) == ["critical", "ok"]


def test_a_limit_that_is_now_of_another_metric_starts_unarmed() -> None:
    monitor = one(limit())
    monitor.judge(0, {"x": 2.0})
    other = one(Threshold(id="t", metric="y", comparison="<=", value=1.0))
    other.restore(monitor.state())
    assert other.states() == {"t": "unarmed"}
