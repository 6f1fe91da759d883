import math

import pytest

from qig_core.rundir.schema import Event
from qig_tui.journal import Journal, condition_of, sentence, verdict

DRIFT = {"id": "drift", "metric": "drift_rolling", "comparison": "<=", "limit": 0.6, "unit": "rad", "value": 0.5}


def condition(state, seq=0, **data):
    return Event(seq, 0.0, "condition", 5, None, "info", None, DRIFT | {"state": state} | data)


def test_the_latest_event_of_a_condition_is_its_state():
    journal = Journal()
    journal.add([condition("unarmed"), condition("ok"), condition("warning")])
    assert journal.conditions["drift"].state == "warning"


def test_a_start_forgets_the_conditions_that_it_announces_again():
    journal = Journal()
    journal.add([condition("critical"), Event(1, 0.0, "start"), condition("ok", id="other")])
    assert list(journal.conditions) == ["other"]
    assert journal.worst == "ok"


@pytest.mark.parametrize(
    ("states", "current", "words"),
    [
        ([], True, "○ no conditions"),
        (["unarmed"], True, "○ unarmed"),
        (["unarmed", "ok"], True, "● limits ok"),
        (["unarmed", "ok"], False, "○ limits were ok"),
        (["unjudged", "ok"], True, "▲ 1 unjudged"),
        (["unjudged", "warning", "ok", "warning"], True, "▲ 2 warning"),
        (["warning", "critical"], False, "✖ 1 critical"),
    ],
)
def test_a_verdict_is_the_worst_state_and_in_the_past_when_nobody_judges_any_more(states, current, words):
    assert verdict(states, current=current) == words


@pytest.mark.parametrize(
    ("value", "bounds", "margin"),
    [
        (0.0, None, 1.0),
        (0.3, None, 0.5),
        (0.6, None, 0.0),
        (0.9, None, 0.0),
        (math.nan, None, None),
        (None, None, None),
    ],
)
def test_a_margin_is_the_share_of_the_way_that_is_left(value, bounds, margin):
    assert condition_of(DRIFT, 0).margin(value, bounds) == pytest.approx(margin)


def test_a_margin_above_a_limit_is_measured_from_the_far_end():
    phi = condition_of({"comparison": ">=", "limit": 0.5}, 0)
    assert phi.margin(0.75, (0.0, 1.0)) == pytest.approx(0.5)
    assert phi.margin(0.25, (0.0, 1.0)) == 0.0
    assert phi.margin(0.75, None) == pytest.approx(0.5)


@pytest.mark.parametrize("spelling", [{"nonfinite": {"value": "nan"}}, {"value_text": "nan"}])
def test_a_condition_without_a_number_has_no_margin(spelling):
    finite = condition_of({"id": "nonfinite", "comparison": "finite", "limit": None, "value": None, **spelling}, 0)
    assert finite.margin(1.0, None) is None
    assert math.isnan(finite.value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"id": 5, "limit": "a", "value": [], "cause": 3, "since_step": "x", "state": {}},
        {"id": "x" * 10_000, "cause": ["\x1b[31m"] * 99, "dwell": {"a": 1}},
    ],
)
@pytest.mark.parametrize(
    "kind",
    ["condition", "checkpoint", "command", "restored", "end", "start", "emergency", "metrics", "note", "alert", "?"],
)
def test_every_event_has_a_sentence_whatever_it_holds(kind, data):
    event = Event(0, 0.0, kind, data=data)
    journal = Journal()
    journal.add([event])
    text = sentence(event)
    assert "\x1b" not in text
    assert len(text) < 2500


def test_an_unknown_kind_shows_its_data():
    assert sentence(Event(0, 0.0, "phase", data={"name": "sleep", "x": 0.5})) == "name sleep · x 0.500"


def test_metrics_declared_later_are_known():
    journal = Journal()
    journal.add([Event(0, 0.0, "metrics", data={"specs": [{"name": "new", "unit": "rad"}, 7, {"unit": 3}]})])
    assert journal.specs["new"].unit == "rad"
    assert list(journal.specs) == ["new"]


def test_a_condition_that_says_nothing_new_is_folded_and_not_listed():
    journal = Journal()
    journal.add(
        [condition("unarmed"), condition("ok"), condition("ok", limit=0.7), Event(1, 0.0, "start"), condition("ok")]
    )
    assert [e.kind for e in journal.events] == ["condition", "start"]
    assert journal.conditions["drift"].state == "ok"
    assert journal.read == 5
    journal.add([condition("warning"), condition("ok")])
    assert [e.data.get("state") for e in journal.events] == ["ok", None, "warning", "ok"]
