import itertools
import json
import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import (
    DEFAULT,
    OFF,
    Divergence,
    EarlyWarning,
    Floor,
    Measured,
    NonFinite,
    Profile,
    RobustZ,
    Stall,
    Threshold,
)
from qig_core.safety.trailing import TrailingWindow
from qig_core.safety.verdict import ALARMS, Dwell, Verdict
from tests.safety.judging import one, verdict

NAN, INF = math.nan, math.inf
floats = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(floats, min_size=1, max_size=80), st.integers(1, 25), st.integers(0, 10))
def test_the_trailing_window_agrees_with_numpy_after_every_value(values: list[float], size: int, lag: int) -> None:
    window = TrailingWindow(size, lag)
    for count, value in enumerate(values, start=1):
        window.add(value)
        held = values[max(0, count - lag - size) : max(0, count - lag)]
        assert len(window) == len(held)
        if held:
            median, mad = window.median_and_mad()
            # numpy averages the middle two with another rounding.
            assert median == pytest.approx(np.median(held), rel=1e-12, abs=1e-12)
            assert mad == pytest.approx(np.median(np.abs(np.array(held) - median)), rel=1e-9, abs=1e-9)
    again = TrailingWindow(size, lag, window.values())
    assert again.values() == window.values()
    assert len(again) == len(window)


def test_a_dwell_counts_consecutive_evaluations_both_ways() -> None:
    dwell = Dwell(3)
    seen = [dwell.update(bad) for bad in (True, True, False, True, True, True, False, False, True, False, False, False)]
    assert seen == [False] * 5 + [True] * 6 + [False]


def test_every_condition_is_unarmed_until_its_metric_appears() -> None:
    monitor = SafetyMonitor()
    for step in range(500):
        judgement = monitor.judge(step, {"accuracy": 0.5})
        assert (judgement.worst, judgement.transitions, judgement.moved) == ("unarmed", (), ())
    assert {v.id for v in judgement.verdicts} == {limit.id for limit in DEFAULT.judged}
    assert {v.state for v in judgement.verdicts} == {"unarmed"}


@pytest.mark.parametrize("name", ["loss", "phi", "grad_norm", "loss_heldout"])
@pytest.mark.parametrize(("value", "kind"), [(NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
def test_a_value_that_is_not_finite_is_critical_at_once_and_named(name: str, value: float, kind: str) -> None:
    judgement = SafetyMonitor().judge(7, {"loss": 1.0, "phi": 0.5, "grad_norm": 1.0, name: value})
    first = judgement.verdicts[0]
    assert (first.id, first.state, first.cause, first.metric, first.since_step) == (
        "nonfinite",
        "critical",
        (name,),
        name,
        7,
    )
    assert judgement.critical == (first,)
    data = first.data()
    assert (data["value"], data["nonfinite"]) == (None, {"value": kind})
    json.dumps(data, allow_nan=False)
    assert repr(Verdict.from_data(data)) == repr(first)


def test_nonfinite_names_the_metrics_in_the_order_in_which_they_went_wrong_and_clears_when_all_are_back() -> None:
    monitor = SafetyMonitor()
    monitor.judge(0, {"loss": 1.0, "grad_norm": 1.0})
    monitor.judge(1, {"loss": 1.0, "grad_norm": INF})
    assert verdict(monitor.judge(2, {"loss": NAN}), "nonfinite").cause == ("grad_norm", "loss")
    assert verdict(monitor.judge(3, {"loss": 1.0}), "nonfinite").state == "critical"
    assert verdict(monitor.judge(4, {"grad_norm": 1.0}), "nonfinite").state == "ok"


def test_a_metric_that_is_not_watched_may_be_what_it_likes() -> None:
    judgement = SafetyMonitor().judge(0, {"loss": 1.0, "reward": NAN, "note": None})
    assert judgement.critical == ()


def test_too_few_recursions_are_critical_and_three_are_not() -> None:
    monitor = SafetyMonitor()
    assert verdict(monitor.judge(0, {"recursion_depth": 3.0}), "recursion_depth").state == "ok"
    assert verdict(monitor.judge(1, {"recursion_depth": 2.0}), "recursion_depth").data() == {
        "id": "recursion_depth",
        "state": "critical",
        "metric": "recursion_depth",
        "comparison": ">=",
        "limit": 3.0,
        "unit": "passes",
        "value": 2.0,
        "since_step": 1,
        "dwell": 1,
        "cause": ["recursion_depth"],
    }


def test_a_warning_never_masks_a_critical_condition() -> None:
    warning = Threshold(id="w", metric="x", comparison="<=", value=0.0, severity="warning")
    fine = Threshold(id="f", metric="x", comparison="<=", value=9.0)
    critical = Threshold(id="c", metric="y", comparison="<=", value=0.0)
    monitor = SafetyMonitor(Profile(name="p", limits=(warning, fine, critical)))
    judgement = monitor.judge(0, {"x": 1.0, "y": 1.0})
    assert [(v.id, v.state) for v in judgement.verdicts] == [("c", "critical"), ("w", "warning"), ("f", "ok")]
    assert [v.id for v in judgement.transitions] == ["c", "w", "f"]


def test_the_profile_off_judges_nothing() -> None:
    judgement = SafetyMonitor(OFF).judge(0, {"loss": NAN})
    assert (judgement.verdicts, judgement.transitions, judgement.worst) == ((), (), "unarmed")


def test_a_transition_is_told_once() -> None:
    monitor = SafetyMonitor()
    assert [v.id for v in monitor.judge(0, {"recursion_depth": 3.0}).transitions] == ["recursion_depth"]
    assert monitor.judge(1, {"recursion_depth": 3.0}).transitions == ()


def test_a_limit_that_moves_is_told_again_but_not_often() -> None:
    monitor = one(Divergence())
    told = []
    for step in range(2000):
        judgement = monitor.judge(step, {"loss": 5.0 * 0.999**step + 1.0})
        told += [(step, v.limit) for v in judgement.moved]
    assert 5 < len(told) <= 2000 / 50
    for (before, old), (after, new) in itertools.pairwise(told):
        assert after - before >= 50
        assert abs(new - old) > 0.02 * old


def test_divergence_is_defined_by_its_formula() -> None:
    """The documented rule, laid beside numpy: a noisy plateau, then a rise."""
    generator = np.random.default_rng(3)
    losses = np.concatenate([2.0 + 0.1 * generator.standard_normal(400), 2.0 + 0.02 * np.arange(120)])
    losses[330] = 1e9
    monitor = one(Divergence())
    average, best, kept, d, past_streak, best_streak, rung = losses[0], INF, [], 1e-9, 0, 0, False
    for step, loss in enumerate(losses):
        held = np.array(kept[-250:-50] if len(kept) > 50 else [])
        past, margin, x = INF, INF, loss
        d = abs(losses[1] - losses[0]) if step == 1 else d
        if held.size >= 20:
            median = np.median(held)
            spread = 8.0 * max(np.median(np.abs(held - median)), 0.01, 0.01 * abs(median))
            margin = max(0.5, 0.1 * abs(median), 8.0 * 0.7 * d)
            past, reach = median + spread, 2 * max(spread, margin)
            x = np.clip(loss, median - reach, median + reach)
        former_best = best
        average += 2 / 21 * (x - average)
        if step >= 19:
            best = min(best, average)
        armed = held.size == 200
        got = monitor.judge(step, {"loss": float(loss)}).verdicts[0]
        assert got.value == pytest.approx(average, rel=1e-12)
        nearest = min(past, former_best + margin)
        if armed:
            assert got.limit == pytest.approx(nearest, rel=1e-12)
            past_streak = past_streak + 1 if average > past else 0
            best_streak = best_streak + 1 if average > former_best + margin else 0
            rung = rung or past_streak >= 20 or best_streak >= 50
            assert got.state == ("critical" if rung else "ok")
        else:
            assert (got.state, got.limit) == ("unarmed", None)
        if not armed or average <= nearest:
            kept.append(loss)
            pace = 1.2 if step < 100 else 1.02
            d = d * pace if abs(loss - losses[max(step - 1, 0)]) > d else d / pace if d > 1e-9 else d
    assert rung


EVERY_KIND = Profile(
    name="every kind",
    limits=(
        NonFinite(metrics=("loss", "phi")),
        NonFinite(id="unusual", metrics=("kappa",), severity="warning"),
        Threshold(
            id="depth",
            metric="depth",
            comparison=">=",
            value=2.0,
            warning=3.0,
            advice_at=3.5,
            advice="more passes",
            dwell=2,
            hysteresis=0.25,
            armed_after=2,
            armed_at=3.0,
            armed_held=2,
        ),
        Divergence(window=8, lag=3, span=3, dwell=2, margin_dwell=4),
        Floor(id="floor", metric="phi", dwell=2, baseline=4, armed_after_steps=5),
        RobustZ(id="both", metric="kappa", z=4.0, sides="both", window=10),
        RobustZ(id="below", metric="phi", z=4.0, sides="below", window=10, dwell=2),
        EarlyWarning(metrics={"loss": "up", "phi": "down", "kappa": "both"}, threshold=12.0, window=10),
        Measured(metrics=("phi", "kappa", "depth"), armed_after=3, dwell=2),
        Stall(),
    ),
)
FAULTS = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.floats(0.0, 5.0),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([NAN, INF, -INF, 0.0, 1.7e308, -1.7e308]),
)
METRICS = {"loss": 2.0, "phi": 0.7, "kappa": 8.0, "depth": 4.0}


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, float | None]]:
    """Noise around what is healthy, with gaps, absurd values and lasting shifts."""
    chance = random.Random(draw(st.integers(0, 999)))
    length = draw(st.integers(0, 90))
    gaps = draw(st.sampled_from([0.0, 0.2, 0.6]))
    stream: list[dict[str, float | None]] = [
        {
            name: None if chance.random() < gaps else center * (1.0 + chance.gauss(0.0, 0.02))
            for name, center in METRICS.items()
        }
        for _ in range(length)
    ]
    places = st.tuples(st.integers(0, 89), st.sampled_from([*METRICS, "gain"]), st.integers(1, 25), FAULTS)
    for first, name, lasts, value in draw(st.lists(places, max_size=8)):
        for sample in stream[first : first + lasts]:
            sample[name] = value
    return stream


@settings(max_examples=300, deadline=None)
@given(streams(), st.integers(0, 89))
def test_a_monitor_that_was_stopped_and_resumed_judges_as_one_that_never_was(
    stream: list[dict[str, float | None]], cut: int
) -> None:
    whole, resumed = SafetyMonitor(EVERY_KIND), SafetyMonitor(EVERY_KIND)
    for step, sample in enumerate(stream):
        if step == cut:
            state = resumed.state()
            assert json.loads(json.dumps(state, allow_nan=False)) == msgspec.json.decode(msgspec.json.encode(state))
            resumed = SafetyMonitor.from_state(EVERY_KIND, msgspec.json.decode(msgspec.json.encode(state)))
        expected, found = whole.judge(step, sample), resumed.judge(step, sample)
        assert repr(found) == repr(expected)  # repr: NaN is not equal to itself
        assert found.worst == expected.worst
    assert msgspec.json.encode(resumed.state()) == msgspec.json.encode(whole.state())


@settings(max_examples=200, deadline=None)
@given(streams())
def test_a_judgement_holds_together(stream: list[dict[str, float | None]]) -> None:
    monitor = SafetyMonitor(EVERY_KIND)
    before = monitor.states()
    assert set(before.values()) == {"unarmed"}
    for step, sample in enumerate(stream):
        judgement = monitor.judge(step, sample)
        ranks = [("critical", "warning", "ok", "unarmed").index(each.state) for each in judgement.verdicts]
        assert ranks == sorted(ranks)
        assert judgement.worst == judgement.verdicts[0].state
        assert {each.id: each.state for each in judgement.verdicts} == monitor.states()
        told = {each.id: each.state for each in judgement.transitions}
        after = monitor.states()
        assert told == {id: state for id, state in after.items() if state != before[id]}
        assert not {each.id for each in judgement.moved} & set(told)
        for each in judgement.verdicts:
            assert bool(each.cause) is (each.state in ALARMS)
            assert (each.since_step == step) is (each.id in told)
        before = after


def test_a_state_of_another_profile_is_used_as_far_as_it_fits() -> None:
    old = SafetyMonitor()
    old.judge(3, {"loss": 1.0, "recursion_depth": 4.0})
    other = Profile(name="p", limits=(Threshold(id="nonfinite", metric="x", comparison=">=", value=0.0), Divergence()))
    monitor = SafetyMonitor.from_state(other, old.state())
    assert monitor.states() == {"nonfinite": "unarmed", "divergence": "unarmed"}
    assert SafetyMonitor.from_state(DEFAULT, old.state()).states()["recursion_depth"] == "ok"


def test_a_state_of_before_the_newer_kinds_is_gone_on_from() -> None:
    told = {"told": [None, 1]}
    verdicts = [
        Verdict("nonfinite", "ok", "loss", "finite", None, "", None, 0, 1),
        Verdict("recursion_depth", "ok", "recursion_depth", ">=", 3.0, "passes", 4.0, 0, 1),
    ]
    old = {
        "step": 5,
        "conditions": {
            "nonfinite": {"kind": "nonfinite", "verdict": verdicts[0].data(), **told, "bad": {}},
            "recursion_depth": {
                "kind": "threshold",
                "verdict": verdicts[1].data(),
                "told": [3.0, 1],
                "count": 6,
                "dwell": [0, 0],
            },
        },
    }
    monitor = SafetyMonitor.from_state(DEFAULT, old)
    assert monitor.verdicts()[:2] == tuple(verdicts)
    assert set(list(monitor.states().values())[2:]) == {"unarmed"}


def test_an_empty_state_begins_anew() -> None:
    monitor = SafetyMonitor()
    fresh = monitor.state()
    monitor.judge(0, {"loss": NAN})
    monitor.restore({})
    assert (monitor.state(), monitor.window("loss")) == (fresh, [])
    assert monitor.judge(0, {"loss": 1.0}).worst == "ok"


def test_a_divergence_that_is_resumed_with_a_larger_window_is_unarmed_until_that_is_full() -> None:
    monitor = one(Divergence(window=8, lag=2, dwell=2))
    for step in range(80):
        monitor.judge(step, {"loss": 1.0 if step < 40 else 50.0})
    assert monitor.states() == {"divergence": "critical"}
    wider = SafetyMonitor.from_state(one(Divergence(window=60, lag=2)).profile, monitor.state())
    assert [(v.state, v.limit) for v in wider.verdicts()] == [("unarmed", None)]


def test_what_is_no_longer_watched_does_not_keep_an_alarm() -> None:
    monitor = one(NonFinite(metrics=("loss", "reward")))
    monitor.judge(0, {"loss": NAN, "reward": NAN})
    monitor.judge(1, {"loss": NAN})
    fewer = SafetyMonitor.from_state(one(NonFinite(metrics=("loss",))).profile, monitor.state())
    assert [each.worst for each in (fewer.judge(2, {"loss": NAN}), fewer.judge(3, {"loss": 1.0}))] == ["critical", "ok"]


def test_a_warning_of_what_is_not_finite_stops_nothing() -> None:
    monitor = one(NonFinite(metrics=("reward",), severity="warning"))
    judgement = monitor.judge(0, {"reward": NAN})
    assert (judgement.worst, judgement.critical) == ("warning", ())


def test_the_window_of_a_metric_is_its_last_twenty_evaluations() -> None:
    monitor = SafetyMonitor()
    for step in range(100):
        monitor.judge(step, {"loss": float(step), "phi": 0.5 if step % 10 == 0 else None})
    assert monitor.window("loss") == [(step, float(step)) for step in range(80, 100)]
    assert monitor.window("phi") == [(step, 0.5) for step in range(0, 100, 10)]
    assert monitor.window("absent") == []


def test_a_limit_that_does_not_move_is_never_told_again() -> None:
    monitor = SafetyMonitor()
    told = [each.id for n in range(300) for each in monitor.judge(n, {"recursion_depth": 4.0, "loss": 1.0}).moved]
    assert "recursion_depth" not in told


def test_verdicts_that_were_read_stay_as_they_were() -> None:
    monitor = SafetyMonitor()
    first = monitor.judge(0, {"recursion_depth": 4.0}).verdicts
    monitor.judge(1, {"recursion_depth": 1.0})
    assert (first[0].id, first[0].state) == ("recursion_depth", "ok")
