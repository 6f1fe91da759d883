"""Every recommendation has its evidence, climbs and leaves slowly, and never goes further than it may."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.training.advice import Advice, Evidence, Finding, Recommendation, findings
from qig_core.training.changes import Flag
from qig_core.training.program_config import RUNGS, VERBS, OceanConfig, Verb

SOME = Finding(evidence=(Evidence(metric="drift", value=0.5, comparison=">=", limit=0.48, unit="rad"),), near=True)
NEAR = Finding(near=True)
NONE = Finding()


def flag(total: float, direction: Any = "up") -> Flag:
    return Flag(direction=direction, since=120, sum=total, limit=12.0)


def found(**given: Any) -> dict[Verb, Finding]:
    calm: dict[str, Any] = {"flags": {}, "broken": [], "drift": None, "nearest": None, "floor_rad": 0.03}
    return findings(**(calm | given))


def with_evidence(**given: Any) -> set[str]:
    return {verb for verb, finding in found(**given).items() if finding.evidence}


@pytest.mark.parametrize(
    ("given", "verbs"),
    [
        ({}, set()),
        ({"flags": {"loss": flag(12.0)}}, {"escape"}),
        ({"flags": {"loss": flag(11.9)}}, set()),
        ({"broken": ["loss"]}, {"escape"}),
        ({"broken": ["loss_heldout"]}, {"escape"}),
        ({"drift": 0.48}, {"sleep"}),
        ({"drift": 0.4799}, set()),
        ({"flags": {"velocity": flag(15.0)}}, {"sleep"}),
        ({"flags": {"phi": flag(15.0, "down")}}, {"dream"}),
        ({"flags": {"phi": flag(15.0, "down"), "loss": flag(4.0)}}, set()),
        ({"flags": {"phi": flag(15.0, "down"), "loss": flag(13.0)}}, {"escape"}),
        ({"flags": {"phi": flag(15.0, "down")}, "broken": ["loss"]}, {"escape"}),
        ({"flags": {"kappa": flag(15.0)}}, set()),
        ({"nearest": ("gary1", 0.0299)}, {"perturb"}),
        ({"nearest": ("gary1", 0.03)}, set()),
        ({"nearest": ("gary1", 0.01), "drift": 0.6}, {"perturb", "sleep"}),
    ],
)
def test_a_verb_has_its_evidence_and_no_other(given: dict[str, Any], verbs: set[str]) -> None:
    assert with_evidence(**given) == verbs


def test_evidence_says_its_number_and_its_limit() -> None:
    both = found(drift=0.51, flags={"velocity": flag(14.0)})["sleep"].evidence
    assert both == (
        Evidence(metric="drift", value=0.51, comparison=">=", limit=0.48, unit="rad"),
        Evidence(metric="velocity CUSUM", value=14.0, comparison=">=", limit=12.0, unit="σ"),
    )
    assert both[0].text() == "drift 0.51 >= 0.48 rad"
    (broken,) = found(broken=["loss"])["escape"].evidence
    assert broken.text() == "loss_nonfinite 1 >= 1"
    (close,) = found(nearest=("gary1", 0.01))["perturb"].evidence
    assert close.text() == "distance to gary1 0.01 < 0.03 rad"


@pytest.mark.parametrize(
    ("verb", "given", "near"),
    [
        ("sleep", {"drift": 0.45}, True),
        ("sleep", {"drift": 0.4499}, False),
        ("sleep", {"flags": {"velocity": flag(3.1)}}, True),
        ("escape", {"flags": {"loss": flag(3.1)}}, True),
        ("escape", {}, False),
        ("dream", {"flags": {"phi": flag(3.1, "down")}}, True),
        ("perturb", {"nearest": ("gary1", 0.0374)}, True),
        ("perturb", {"nearest": ("gary1", 0.0375)}, False),
    ],
)
def test_a_number_must_come_back_by_a_margin(verb: Verb, given: dict[str, Any], near: bool) -> None:
    finding = found(**given).get(verb, NONE)
    assert not finding.evidence
    assert finding.near == near


def rungs(advice: Advice, sequence: list[Finding], verb: Verb = "sleep") -> list[str | None]:
    """The rung after each report, None where nothing is recommended."""
    told: list[str | None] = []
    for step, finding in enumerate(sequence):
        standing = advice.weigh(step, {"gary1": {verb: finding}})
        told.append(standing[0].rung if standing else None)
    return told


def test_a_recommendation_climbs_a_rung_with_each_two_further_reports_with_evidence() -> None:
    advice = Advice(OceanConfig(ladder="act"))
    expected = ["witness", "witness", "suggest", "suggest", "warn", "warn", "act", "act", "act"]
    assert rungs(advice, [SOME] * 9) == expected
    one = Advice(OceanConfig(ladder="act", patience=1))
    assert rungs(one, [SOME] * 5) == ["witness", "suggest", "warn", "act", "act"]


@pytest.mark.parametrize("ladder", RUNGS)
def test_no_rung_is_above_the_ladder(ladder: Any) -> None:
    assert rungs(Advice(OceanConfig(ladder=ladder)), [SOME] * 20)[-1] == ladder


def test_a_verb_that_is_not_allowed_stays_a_warning() -> None:
    settings = OceanConfig(ladder="act", allow=("dream",))
    assert rungs(Advice(settings), [SOME] * 20)[-1] == "warn"
    assert rungs(Advice(settings), [SOME] * 20, "dream")[-1] == "act"


def test_it_is_dropped_after_two_reports_without_evidence_and_begins_below() -> None:
    advice = Advice(OceanConfig())
    sequence = [SOME] * 5 + [NONE, SOME, NONE, NONE, SOME]
    assert rungs(advice, sequence) == ["witness"] * 2 + ["suggest"] * 2 + ["warn"] * 4 + [None, "witness"]


def test_between_the_limits_it_stays_where_it_is() -> None:
    advice = Advice(OceanConfig())
    assert rungs(advice, [SOME] * 3 + [NEAR] * 20) == ["witness"] * 2 + ["suggest"] * 21
    assert rungs(Advice(OceanConfig()), [NEAR] * 5) == [None] * 5
    # Neither climbing nor leaving is counted over it: only reports in a row count.
    assert rungs(Advice(OceanConfig()), [SOME, SOME, NEAR, SOME, SOME]) == ["witness"] * 4 + ["suggest"]
    assert rungs(Advice(OceanConfig()), [SOME, NONE, NEAR, NONE, NEAR, NONE]) == ["witness"] * 6


def test_nothing_is_carried_out_on_what_is_past() -> None:
    advice = Advice(OceanConfig(ladder="act"))
    assert rungs(advice, [SOME] * 7 + [NEAR, NONE, SOME]) == (
        ["witness"] * 2 + ["suggest"] * 2 + ["warn"] * 2 + ["act", "warn", "warn", "act"]
    )
    (past,) = advice.weigh(10, {"gary1": {"sleep": NEAR}})
    assert past.text == "sleep gary1: drift 0.5 >= 0.48 rad (no longer)"
    assert past.since_step == 0


def test_a_gary_that_is_not_there_any_more_is_dropped_too() -> None:
    advice = Advice(OceanConfig())
    advice.weigh(0, {"gary1": {"sleep": SOME}})
    assert len(advice.weigh(1, {})) == 1
    assert advice.weigh(2, {}) == ()


def test_after_something_was_carried_out_a_gary_is_left_alone_for_the_cooldown() -> None:
    advice = Advice(OceanConfig(ladder="act", cooldown=10, patience=1))
    assert rungs(advice, [SOME] * 4)[-1] == "act"
    advice.carried_out("gary1")
    assert advice.cooldowns == {"gary1": 10}
    left, told = [], []
    for step in range(4, 16):
        (one,) = advice.weigh(step, {"gary1": {"sleep": SOME}})
        left.append(advice.cooldowns.get("gary1"))
        told.append(one.rung)
    assert told == ["witness", "suggest"] + ["warn"] * 8 + ["act"] * 2
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, None, None, None]


def test_no_rung_is_climbed_in_secret_during_a_cooldown() -> None:
    advice = Advice(OceanConfig(ladder="act", cooldown=10, patience=2))
    advice.carried_out("gary1")
    told = rungs(advice, [SOME] * 9 + [NEAR] * 2 + [SOME] * 3)
    assert told == ["witness"] * 2 + ["suggest"] * 2 + ["warn"] * 8 + ["act"] * 2


def test_the_cooldown_of_one_gary_is_not_another_ones() -> None:
    advice = Advice(OceanConfig(ladder="act", patience=1))
    for step in range(4):
        advice.weigh(step, {"gary1": {"sleep": SOME}, "gary2": {"sleep": SOME}})
    advice.carried_out("gary1")
    told = advice.weigh(4, {"gary1": {"sleep": SOME}, "gary2": {"sleep": SOME}})
    assert [(one.gary, one.rung) for one in told] == [("gary2", "act"), ("gary1", "witness")]
    assert told[1].since_step == 4


def test_the_rank_is_by_rung_then_urgency_then_the_order_of_the_garys() -> None:
    advice = Advice(OceanConfig(patience=1))
    advice.weigh(0, {"gary10": {"perturb": SOME}})
    garys = {
        "gary2": {"dream": SOME, "escape": SOME},
        "gary9": {"sleep": SOME},
        "gary10": {"sleep": SOME, "perturb": SOME},
    }
    told = advice.weigh(1, garys)  # type: ignore[arg-type]
    assert [(one.rung, one.verb, one.gary) for one in told] == [
        ("suggest", "perturb", "gary10"),
        ("witness", "escape", "gary2"),
        ("witness", "sleep", "gary9"),
        ("witness", "sleep", "gary10"),
        ("witness", "dream", "gary2"),
    ]
    data = told[0].to_dict(1)
    assert data == {
        "rank": 1,
        "verb": "perturb",
        "gary": "gary10",
        "rung": "suggest",
        "since_step": 0,
        "evidence": [{"metric": "drift", "value": 0.5, "comparison": ">=", "limit": 0.48, "unit": "rad"}],
        "text": "perturb gary10: drift 0.5 >= 0.48 rad",
    }


@pytest.mark.parametrize("cut", range(9))
def test_a_resume_goes_on_wherever_it_was(cut: int) -> None:
    sequence = [SOME] * 5 + [NONE, SOME, NONE, NONE, SOME]
    whole, first, second = (Advice(OceanConfig(patience=2)) for _ in range(3))
    expected = rungs(whole, sequence)
    told = rungs(first, sequence[:cut])
    second.restore(json.loads(json.dumps(first.state())))
    assert told + rungs(second, sequence[cut:]) == expected


Step = tuple[Mapping[str, Mapping[Verb, Finding]], str | None]
GARYS = ("gary1", "gary2")
REPORTS = st.lists(
    st.tuples(
        st.fixed_dictionaries(
            {gary: st.dictionaries(st.sampled_from(VERBS), st.sampled_from([SOME, SOME, NEAR, NONE])) for gary in GARYS}
        ),
        st.sampled_from([None, None, None, *GARYS]),
    ),
    max_size=40,
)
SETTINGS = st.builds(
    OceanConfig,
    patience=st.integers(1, 3),
    ladder=st.sampled_from(RUNGS),
    allow=st.sets(st.sampled_from(VERBS)).map(tuple),
    cooldown=st.integers(0, 5),
)


@given(REPORTS, SETTINGS, st.integers(0, 39))
def test_whatever_happens_the_ladder_is_climbed_rung_by_rung_and_not_beyond(
    reports: list[Step], settings: OceanConfig, cut: int
) -> None:
    advice = Advice(settings)
    twin = Advice(settings)
    before: dict[tuple[str, str], Recommendation] = {}
    since_action = dict.fromkeys(GARYS, 1000)
    for step, (by_gary, acted) in enumerate(reports):
        told = advice.weigh(step, by_gary)
        assert told == twin.weigh(step, by_gary)
        for one in told:
            rung, last = RUNGS.index(one.rung), before.get((one.gary, one.verb))
            finding = by_gary[one.gary].get(one.verb, NONE)
            assert rung <= RUNGS.index(settings.ladder)
            if one.rung == "act":
                assert one.verb in settings.allow
                assert finding.evidence
                assert since_action[one.gary] >= settings.cooldown
            if last is None:
                assert finding.evidence
                assert (rung, one.since_step) == (0, step)
            elif rung > RUNGS.index(last.rung):
                assert finding.evidence
                assert rung == RUNGS.index(last.rung) + 1
        before = {(one.gary, one.verb): one for one in told}
        for gary, by_verb in by_gary.items():
            assert all((gary, verb) in before for verb, finding in by_verb.items() if finding.evidence)
        since_action = {gary: count + 1 for gary, count in since_action.items()}
        if acted is not None:
            advice.carried_out(acted)
            twin.carried_out(acted)
            since_action[acted] = 0
            before = {key: one for key, one in before.items() if key[0] != acted}
        if step == cut:
            state = json.loads(json.dumps(twin.state()))
            twin = Advice(settings)
            twin.restore(state)
    assert twin.state() == advice.state()
