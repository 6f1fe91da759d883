import math

import pytest

from qig_core.rundir.schema import Event
from qig_core.safety.verdict import Verdict
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
        (["warning", "critical"], False, "✖ 1 critical ▲ 1"),
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
        {
            "state": "critical",
            "comparison": "finite",
            "cause": ["\x1b[31m"] * 99,
            "window": 3,
            "stacks": "\x1b",
            "doing": [],
        },
        {"state": "warning", "comparison": "steady", "metric": "\x1b", "doing": "\x1b", "stacks": {"a": "\x1b"}},
        {
            "how": ["\x1b"],
            "checkpoint": "\x1b" * 999,
            "fingerprint": 5,
            "from_step": "\x1b",
            "lr_factor": "x",
            "raised": 0,
        },
        {"how": "\x1b", "text": "\x1b" * 999, "number": [], "cause": {"\x1b": 1}, "to_step": -1, "raised": False},
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        "condition",
        "checkpoint",
        "command",
        "restored",
        "soft_reset",
        "end",
        "start",
        "emergency",
        "metrics",
        "note",
        "alert",
        "?",
    ],
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


NO_STEP = {"id": "no_step", "metric": "step_age", "limit": 60.0, "unit": "s", "value": 63.2, "cause": ["step_age"]}


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (
            "restored",
            {"checkpoint": "c", "fingerprint": "f" * 64},
            "from c, fingerprint ffffffffffff, on resume",
        ),
        (
            "restored",
            {"checkpoint": "c", "fingerprint": "abc", "how": "restore"},
            "from c, fingerprint abc, by a command",
        ),
        (
            "restored",
            {"checkpoint": "c", "fingerprint": "abc", "how": "soft_reset"},
            "from c, fingerprint abc, by a soft reset",
        ),
        ("restored", {"checkpoint": "c", "fingerprint": "abc", "how": "wish"}, "from c, fingerprint abc, wish"),
        ("restored", {"checkpoint": None, "fingerprint": None}, "no checkpoint: from the beginning"),
        (
            "soft_reset",
            {"from_step": 1240, "to_step": 1000, "checkpoint": "c", "cause": "nonfinite: loss not finite"}
            | {"lr_factor": 0.5, "number": 2},
            "from step 1 240 back to 1 000, checkpoint c, nonfinite: loss not finite, learning rate × 0.5, reset 2",
        ),
        (
            "soft_reset",
            {"from_step": 9, "to_step": 5, "checkpoint": "c", "cause": "", "lr_factor": 1.0, "number": 1},
            "from step 9 back to 5, checkpoint c, reset 1",
        ),
        ("alert", {"id": "drift", "text": "sleep advised", "raised": True}, "drift: sleep advised"),
        ("alert", {"id": "drift", "text": "sleep advised", "raised": False}, "drift: sleep advised, no longer"),
        ("alert", {"text": "no checkpoint"}, "no checkpoint"),
        ("command", {"verb": "soft_reset", "stage": "refused", "reason": "why"}, "soft reset refused: why"),
        (
            "condition",
            DRIFT
            | {"state": "warning", "value": 0.65, "cause": ["phi", "kappa", "drift_rolling"], "window": [[1, 0.6]]},
            "drift warning: drift_rolling 0.650 (≤ 0.6 rad), phi moved first, then kappa, drift_rolling",
        ),
        (
            "condition",
            DRIFT | {"state": "warning", "value": 0.65, "cause": ["drift_rolling"]},
            "drift warning: drift_rolling 0.650 (≤ 0.6 rad)",
        ),
        ("condition", DRIFT | {"state": "ok", "cause": []}, "drift ok: drift_rolling 0.500 (≤ 0.6 rad)"),
        (
            "condition",
            DRIFT | {"state": "unarmed", "limit": None, "value": None},
            "drift unarmed: drift_rolling (no limit yet)",
        ),
        (
            "condition",
            {
                "id": "nonfinite",
                "state": "critical",
                "metric": "loss",
                "comparison": "finite",
                "cause": ["loss", "phi"],
            },
            "nonfinite critical: loss, phi not finite",
        ),
        (
            "condition",
            {"id": "nonfinite", "state": "ok", "metric": "loss", "comparison": "finite"},
            "nonfinite ok: all finite",
        ),
        (
            "condition",
            {"id": "measured", "state": "warning", "metric": "phi", "comparison": "measured", "cause": ["phi"]},
            "measured warning: phi not measured any more",
        ),
        ("condition", {"id": "measured", "state": "ok", "comparison": "measured"}, "measured ok: all measured"),
        (
            "condition",
            {"id": "early_warning", "state": "warning", "metric": "phi", "comparison": "steady", "value": 0.4}
            | {"cause": ["phi", "kappa"]},
            "early_warning warning: phi 0.400 left its recent past, phi moved first, then kappa",
        ),
        (
            "condition",
            {"id": "early_warning", "state": "warning", "metric": "phi", "comparison": "steady", "value": 0.4}
            | {"cause": ["phi"]},
            "early_warning warning: phi 0.400 left its recent past",
        ),
        ("condition", {"id": "early_warning", "state": "ok", "comparison": "steady"}, "early_warning ok: steady"),
        (
            "condition",
            NO_STEP | {"comparison": "<=", "state": "warning", "doing": "eval", "stacks": "a.stacks.txt"},
            "no_step warning: step_age 63.20 (≤ 60 s), doing eval, stacks in emergencies/a.stacks.txt",
        ),
        (
            "condition",
            NO_STEP | {"comparison": "<=", "state": "ok", "value": 0.5, "doing": "step", "cause": []},
            "no_step ok: step_age 0.500 (≤ 60 s)",
        ),
        (
            "condition",
            DRIFT | {"state": "ok", "value": 0.65, "dwell": 50, "cause": []},
            "drift ok: drift_rolling 0.650 (≤ 0.6 rad, not yet 50 in a row)",
        ),
        ("unmeasured", {"reasons": {"kappa": "distances equal"}}, "kappa: distances equal"),
        ("unmeasured", {"reasons": {}}, "all measured"),
        ("tagged", {"name": "step-1", "tags": ["emergency", "pinned"]}, "step-1: emergency, pinned"),
        ("tagged", {"name": "step-1", "tags": []}, "step-1: no tags"),
    ],
)
def test_an_event_in_words(kind, data, words):
    assert sentence(Event(0, 0.0, kind, 5, data=data)) == words


@pytest.mark.parametrize("comparison", ["finite", "measured", "steady", "<=", ">="])
def test_an_alarm_says_what_the_trainer_says_of_it(comparison):
    """The dashboard may not import the judge; its words for the same facts must not drift apart from the judge's."""
    limit = 0.5 if comparison in ("<=", ">=") else None
    verdict = Verdict("x", "critical", "phi", comparison, limit, "", 0.25, 3, 1, ("phi", "kappa"))
    trainers = verdict.text().removeprefix("x: ").replace("<=", "≤").replace(">=", "≥")
    ours = sentence(Event(0, 0.0, "condition", 5, data=verdict.data()))
    if limit is not None:
        assert trainers == f"phi 0.25, limit {ours.split('(')[1].split(')')[0]}"
    else:
        assert trainers.replace("0.25", "0.250") in ours


def test_blame_is_only_of_alarms_and_only_where_it_says_more_than_the_metric():
    def blame(**data):
        return condition_of({"metric": "phi", "comparison": "<=", "state": "warning"} | data, 0).blame

    assert blame(cause=["phi"]) == ""
    assert blame(cause=["kappa"]) == "kappa moved first"
    assert blame(cause=["kappa", "phi"]) == "kappa moved first, then phi"
    assert blame(cause=["kappa", "phi"], state="ok") == ""
    assert blame(cause=["phi"], comparison="steady") == "phi moved"
    assert blame(cause=["phi", "loss"], comparison="finite") == "phi, loss"
    assert blame(cause=[]) == ""
