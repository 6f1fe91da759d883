"""Which checkpoints a plan keeps, which it drops, and what it says about each."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.checkpoints.ranking import rank_key
from qig_core.checkpoints.retention import EMERGENCY, Keep, Plan, Shelved, plan
from qig_core.errors import ConfigError
from qig_core.rundir.schema import PINNED, CheckpointManifest

RUN = "a-run"
NAN = float("nan")
ONE = Keep(newest=1, best=0)


def shelved(t: float, loss: float | None = None, *, whole: bool = True, **facts: Any) -> Shelved:
    """A checkpoint published at `t`; its step is that too unless it is given."""
    step = facts.pop("step", int(t))
    tags = facts.pop("tags", ())
    metrics = facts.pop("metrics", {}) | ({} if loss is None else {"loss_heldout": loss})
    name = facts.pop("name", f"at-{t:g}")
    manifest = CheckpointManifest(
        name=name,
        run=facts.pop("run", RUN),
        session="5e55",
        step=step,
        t=t,
        reason=facts.pop("reason", "interval"),
        files=[],
        fingerprint="",
        metrics=metrics,
        **facts,
    )
    return Shelved(name=name, manifest=manifest, tags=tags, whole=whole, size=10)


def unreadable(name: str) -> Shelved:
    return Shelved(name=name, manifest=None, tags=(), whole=False)


def reasons(shelf: list[Shelved], keep: Keep = ONE, **known: Any) -> dict[str, tuple[str, ...]]:
    return {one.name: one.reasons for one in plan(shelf, keep, runs={RUN}, **known).decisions}


def kept(shelf: list[Shelved], keep: Keep = ONE, **known: Any) -> set[str]:
    return {one.name for one in plan(shelf, keep, runs={RUN}, **known).kept}


def test_the_newest_by_publication_stay_whatever_their_step() -> None:
    rewound = [shelved(1, step=100), shelved(2, step=300), shelved(3, step=50)]
    assert reasons(rewound) == {"at-3": ("newest",), "at-2": (), "at-1": ()}
    assert reasons(rewound, Keep(newest=2, best=0))["at-2"] == ("2 of the newest 2",)


def test_the_best_stay_by_their_score() -> None:
    shelf = [shelved(1, 0.5), shelved(2, 0.1), shelved(3, 0.3), shelved(4, 0.9), shelved(5)]
    found = reasons(shelf, Keep(newest=1, best=2))
    assert found == {"at-5": ("newest",), "at-4": (), "at-3": ("2 of the best 2",), "at-2": ("best",), "at-1": ()}
    assert kept(shelf, Keep(newest=1, best=1, lower_is_better=False)) == {"at-5", "at-4"}
    assert kept([shelved(1, metrics={"phi": 0.7}), shelved(2)], Keep(newest=1, best=1, score="phi")) == {"at-1", "at-2"}


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"loss": NAN}, {"loss": 5.0}),
        ({"loss": -math.inf}, {"loss": 5.0}),
        ({"loss": None, "nonfinite": {"loss_heldout": "nan"}}, {"loss": 5.0}),
        ({"loss": 0.1, "conditions": {"drift": "critical"}}, {"loss": 5.0, "conditions": {"drift": "warning"}}),
        ({"loss": 0.1, "conditions": {"drift": "warning"}}, {"loss": 5.0, "conditions": {"drift": "ok"}}),
        ({"loss": 0.1, "nonfinite": {"kappa": "inf"}}, {"loss": 5.0, "conditions": {"drift": "critical"}}),
        ({"loss": 0.1, "metrics": {"drift_rolling": 0.3}}, {"loss": 0.1, "metrics": {"drift_rolling": 0.2}}),
        ({"loss": 0.1}, {"loss": 0.1, "metrics": {"drift_rolling": 9.0}}),
    ],
)
def test_the_best_are_finite_then_without_alarm_then_of_the_least_drift(
    worse: dict[str, Any], better: dict[str, Any]
) -> None:
    newest = shelved(9)
    for first, second in ((worse, better), (better, worse)):
        shelf = [shelved(1, **first), shelved(2, **second), newest]
        chosen = "at-2" if second is better else "at-1"
        assert kept(shelf, Keep(newest=1, best=1)) == {"at-9", chosen}


def test_a_score_that_is_not_finite_fills_no_place_among_the_best() -> None:
    shelf = [shelved(1, NAN), shelved(2, math.inf), shelved(3), shelved(4)]
    assert kept(shelf, Keep(newest=1, best=3)) == {"at-4"}


def test_each_further_reason_keeps_by_itself() -> None:
    newest = shelved(9)
    for one, known, reason in [
        (shelved(1, tags=(PINNED,)), {}, "pinned"),
        (shelved(1, reason=EMERGENCY), {}, "emergency"),
        (shelved(1), {"resumed_from": {"at-1"}}, "gone on from"),
        (shelved(1), {"verified": "at-1"}, "last verified"),
        (shelved(1), {"in_use": {"at-1": "for a soft reset"}}, "for a soft reset"),
    ]:
        assert reasons([one, newest], **known) == {"at-9": ("newest",), "at-1": (reason,)}
    assert reasons([shelved(1, tags=("pinned-not", "other")), newest])["at-1"] == ()


def test_reasons_add_up() -> None:
    one = shelved(9, 0.1, tags=(PINNED,), reason=EMERGENCY)
    known = {"resumed_from": {"at-9"}, "verified": "at-9", "in_use": {"at-9": "for a soft reset"}}
    assert reasons([one], Keep(), **known)["at-9"] == (
        "newest",
        "best",
        "pinned",
        "emergency",
        "gone on from",
        "last verified",
        "for a soft reset",
    )


def test_what_is_in_doubt_never_goes_and_takes_no_place() -> None:
    doubtful = [
        shelved(5, 0.0, run="another"),
        shelved(6, 0.0, whole=False),
        Shelved(name="at-1", manifest=shelved(1).manifest, tags=None, whole=True),
        unreadable("damaged"),
    ]
    shelf = [*doubtful, shelved(2, 0.5), shelved(3, 0.9)]
    assert reasons(shelf, Keep(newest=1, best=1)) == {
        "at-6": ("not whole; never pruned",),
        "at-5": ("of another run",),
        "at-3": ("newest",),
        "at-2": ("best",),
        "at-1": ("its tags cannot be read",),
        "damaged": ("not whole; never pruned",),
    }


def test_nothing_goes_when_nothing_whole_stays() -> None:
    shelf = [shelved(1, whole=False), shelved(2, whole=False), unreadable("x")]
    assert plan(shelf, ONE, runs={RUN}).dropped == ()
    assert plan([shelved(1, run="another"), shelved(2, run="another")], ONE, runs={RUN}).dropped == ()


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"newest": 0}, "newest is 0: at least 1"),
        ({"newest": -3}, "newest is -3"),
        ({"best": -1}, "best is -1: it must be 0 or more"),
        ({"newest": 2.5}, "newest is 2.5"),
        ({"newest": "5"}, "newest is '5'"),
        ({"newest": True}, "newest is True"),
        ({"best": 1e300}, r"best is 1e\+300"),
        ({"best": None}, "best is None"),
        ({"score": ["loss"]}, "score is"),
        ({"lower_is_better": "no"}, "lower_is_better is 'no'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(over: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Keep(**over)


def test_a_plan_says_what_it_frees_newest_first_as_plain_data() -> None:
    found = plan([shelved(1), shelved(3), unreadable("x"), shelved(2)], ONE, runs={RUN})
    assert (found.freed, [one.name for one in found.dropped]) == (20, ["at-2", "at-1"])
    assert found.rows() == [
        {"name": "at-3", "step": 3, "size": 10, "kept": True, "reasons": ["newest"]},
        {"name": "at-2", "step": 2, "size": 10, "kept": False, "reasons": []},
        {"name": "at-1", "step": 1, "size": 10, "kept": False, "reasons": []},
        {"name": "x", "step": None, "size": 0, "kept": True, "reasons": ["not whole; never pruned"]},
    ]


SCORES = st.none() | st.floats(allow_nan=True) | st.sampled_from([0.0, 1.0])
STATES = st.sampled_from(["unarmed", "ok", "warning", "critical"])


@st.composite
def one_shelved(draw: st.DrawFn, number: int) -> Shelved:
    if draw(st.integers(0, 9)) == 0:
        return unreadable(f"n{number}")
    made = shelved(
        draw(st.integers(0, 5)),
        draw(SCORES),
        name=f"n{number}",
        step=draw(st.integers(0, 3)),
        metrics={"drift_rolling": draw(SCORES)},
        conditions={"drift": draw(STATES)},
        reason=draw(st.sampled_from(["interval", "best", EMERGENCY])),
        run=draw(st.sampled_from([RUN, RUN, RUN, "renamed", "another"])),
        whole=draw(st.integers(0, 4)) > 0,
    )
    tags = draw(st.sampled_from([(), (), ("other",), (PINNED,), None]))
    return Shelved(name=made.name, manifest=made.manifest, tags=tags, whole=made.whole, size=draw(st.integers(0, 9)))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Shelved], dict[str, Any]]:
    shelf = [draw(one_shelved(number)) for number in range(draw(st.integers(0, 12)))]
    names = st.sampled_from([*(one.name for one in shelf), "gone"])
    known = {
        "runs": {RUN, "renamed"},
        "resumed_from": draw(st.sets(names, max_size=2)),
        "verified": draw(st.none() | names),
        "in_use": dict.fromkeys(draw(st.sets(names, max_size=2)), "in use"),
    }
    return shelf, known


KEEPS = st.builds(Keep, newest=st.integers(1, 6), best=st.integers(0, 5), lower_is_better=st.booleans())


def straightforward(shelf: list[Shelved], keep: Keep, known: dict[str, Any]) -> set[str]:
    """The names that stay, by counting for each how many are before it."""
    sound = {
        one.name: one.manifest for one in shelf if one.whole and one.manifest and one.manifest.run in known["runs"]
    }
    scored = {
        name: rank_key(manifest, keep.score, keep.lower_is_better)
        for name, manifest in sound.items()
        if math.isfinite(manifest.metrics.get(keep.score) or 0.0) and manifest.metrics.get(keep.score) is not None
    }
    newest = {
        name
        for name, mine in sound.items()
        if sum((other.t, other.name) > (mine.t, mine.name) for other in sound.values()) < keep.newest
    }
    best = {name for name, mine in scored.items() if sum(other < mine for other in scored.values()) < keep.best}
    told = {one.name for one in shelf if one.manifest and one.manifest.reason == EMERGENCY}
    tagged = {one.name for one in shelf if one.tags is None or PINNED in one.tags}
    doubtful = {one.name for one in shelf} - set(sound)
    wanted = {*known["resumed_from"], *known["in_use"], known["verified"]} & {one.name for one in shelf}
    return newest | best | told | tagged | doubtful | wanted


def names_of(found: Plan) -> tuple[set[str], set[str]]:
    return {one.name for one in found.kept}, {one.name for one in found.dropped}


@settings(max_examples=120, deadline=None)
@given(scenes(), KEEPS)
def test_what_is_kept_is_the_union_and_the_rest_goes(scene: tuple[list[Shelved], dict[str, Any]], keep: Keep) -> None:
    shelf, known = scene
    found = plan(shelf, keep, **known)
    stays, goes = names_of(found)
    assert stays == straightforward(shelf, keep, known)
    assert sorted(one.name for one in found.decisions) == sorted(one.name for one in shelf)
    assert goes == {one.name for one in shelf} - stays
    assert found.freed == sum(one.size for one in shelf if one.name in goes)


@settings(max_examples=50, deadline=None)
@given(scenes(), KEEPS)
def test_a_second_prune_drops_nothing(scene: tuple[list[Shelved], dict[str, Any]], keep: Keep) -> None:
    shelf, known = scene
    stays, _ = names_of(plan(shelf, keep, **known))
    again = plan([one for one in shelf if one.name in stays], keep, **known)
    assert names_of(again) == (stays, set())


@settings(max_examples=50, deadline=None)
@given(scenes(), KEEPS, st.randoms())
def test_a_plan_does_not_depend_on_the_order_in_which_they_are_found(
    scene: tuple[list[Shelved], dict[str, Any]], keep: Keep, chance: Any
) -> None:
    shelf, known = scene
    other = list(shelf)
    chance.shuffle(other)
    assert plan(other, keep, **known) == plan(shelf, keep, **known)


@settings(max_examples=50, deadline=None)
@given(scenes(), KEEPS, st.integers(0, 3), st.integers(0, 3))
def test_a_larger_number_never_drops_more(
    scene: tuple[list[Shelved], dict[str, Any]], keep: Keep, newest: int, best: int
) -> None:
    shelf, known = scene
    wider = Keep(newest=keep.newest + newest, best=keep.best + best, lower_is_better=keep.lower_is_better)
    assert names_of(plan(shelf, wider, **known))[1] <= names_of(plan(shelf, keep, **known))[1]
