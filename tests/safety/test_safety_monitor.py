import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.safety.monitor import Judgement, SafetyMonitor
from qig_core.safety.profile import DEFAULT, OFF, Divergence, NonFinite, Profile, Threshold
from qig_core.safety.trailing import TrailingWindow
from qig_core.safety.verdict import Dwell, Verdict

NAN, INF = math.nan, math.inf
floats = st.floats(-1e6, 1e6, allow_nan=False)


def verdict(judgement: Judgement, name: str) -> Verdict:
    return next(verdict for verdict in judgement.verdicts if verdict.id == name)


def one(limit: Threshold | NonFinite | Divergence) -> SafetyMonitor:
    return SafetyMonitor(Profile(name="one", limits=(limit,)))


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
    judgement = monitor.judge(0, {"accuracy": 0.5})
    assert {v.id: v.state for v in judgement.verdicts} == {
        "nonfinite": "unarmed",
        "recursion_depth": "unarmed",
        "divergence": "unarmed",
    }
    assert judgement.transitions == ()


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


def test_a_threshold_waits_its_dwell_in_evaluations_of_its_metric_and_clears_beyond_its_hysteresis() -> None:
    limit = Threshold(id="t", metric="x", comparison="<=", value=1.0, dwell=2, hysteresis=0.5, armed_after=1)
    monitor = one(limit)
    states = []
    # None: a step at which x was not measured. It neither counts nor interrupts.
    for step, x in enumerate([9.0, 2.0, None, None, 2.0, 0.9, 0.9, 0.4, None, NAN, 0.4]):
        states.append(monitor.judge(step, {"x": x, "y": 0.0}).verdicts[0].state)
    assert states == ["unarmed", "ok", "ok", "ok"] + ["critical"] * 6 + ["ok"]


def test_a_warning_never_masks_a_critical_condition() -> None:
    warning = Threshold(id="w", metric="x", comparison="<=", value=0.0, severity="warning")
    fine = Threshold(id="f", metric="x", comparison="<=", value=9.0)
    critical = Threshold(id="c", metric="y", comparison="<=", value=0.0)
    monitor = SafetyMonitor(Profile(name="p", limits=(warning, fine, critical)))
    judgement = monitor.judge(0, {"x": 1.0, "y": 1.0})
    assert [(v.id, v.state) for v in judgement.verdicts] == [("c", "critical"), ("w", "warning"), ("f", "ok")]
    assert [v.id for v in judgement.transitions] == ["c", "w", "f"]


def test_the_profile_off_judges_nothing() -> None:
    assert SafetyMonitor(OFF).judge(0, {"loss": NAN}) == Judgement(())


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


values = st.one_of(
    floats,
    st.floats(0.0, 5.0),
    st.sampled_from([NAN, INF, -INF, 0.0]),
    st.none(),
)
steps = st.lists(st.fixed_dictionaries({"loss": values, "recursion_depth": values, "phi": values}), max_size=60)
SHORT = Profile(
    name="short",
    limits=(
        NonFinite(),
        Threshold(id="d", metric="recursion_depth", comparison=">=", value=3.0, dwell=2, hysteresis=1.0, armed_after=2),
        Divergence(window=8, lag=3, span=3, dwell=2, margin_dwell=4),
    ),
)


@settings(max_examples=200)
@given(steps, st.integers(0, 60))
def test_a_monitor_that_was_stopped_and_resumed_judges_as_one_that_never_was(
    samples: list[dict[str, float | None]], cut: int
) -> None:
    whole = resumed = SafetyMonitor(SHORT)
    resumed = SafetyMonitor(SHORT)
    for step, sample in enumerate(samples):
        if step == cut:
            text = json.dumps(resumed.state(), allow_nan=False)
            resumed = SafetyMonitor.from_state(SHORT, json.loads(text))
        expected, found = whole.judge(step, sample), resumed.judge(step, sample)
        assert repr(found) == repr(expected)  # repr: NaN is not equal to itself
    assert resumed.state() == whole.state()


def test_a_state_of_another_profile_is_used_as_far_as_it_fits() -> None:
    old = SafetyMonitor()
    old.judge(3, {"loss": 1.0, "recursion_depth": 4.0})
    other = Profile(name="p", limits=(Threshold(id="nonfinite", metric="x", comparison=">=", value=0.0), Divergence()))
    monitor = SafetyMonitor.from_state(other, old.state())
    assert monitor.states() == {"nonfinite": "unarmed", "divergence": "unarmed"}
    assert SafetyMonitor.from_state(DEFAULT, old.state()).states()["recursion_depth"] == "ok"
