import json

import pytest

from qig_core.errors import ConfigError
from qig_core.safety.going_back import check_restore
from qig_core.safety.profile import NonFinite, Profile, SoftReset
from qig_core.safety.reset import ResetPolicy

SETTINGS = SoftReset(limits=("nonfinite",), good_for=5, lr_factor=0.5, cooldown=10, at_most=2, window=100)


def checked(policy: ResetPolicy, times: int, alarming: bool = False) -> None:
    for _ in range(times):
        policy.checked(alarming)


def good(policy: ResetPolicy) -> list[str]:
    return [candidate.name for candidate in policy.good]


def with_good(*names: str) -> ResetPolicy:
    policy = ResetPolicy(SETTINGS)
    for name in names:
        policy.saved(name, sound=True)
        checked(policy, 5)
    return policy


def test_a_checkpoint_is_good_after_enough_checks_without_an_alarm() -> None:
    policy = ResetPolicy(SETTINGS)
    policy.saved("a", sound=True)
    checked(policy, 4)
    assert good(policy) == []
    checked(policy, 1)
    assert good(policy) == ["a"]


def test_a_save_in_the_background_counts_from_when_it_began_and_a_failed_one_not_at_all() -> None:
    policy = ResetPolicy(SETTINGS)
    policy.saving()
    checked(policy, 3)
    policy.saved("a", sound=True)
    checked(policy, 2)
    assert good(policy) == ["a"]
    policy.saving()
    checked(policy, 1, alarming=True)
    policy.not_saved()
    policy.saved("b", sound=True)
    checked(policy, 4)
    assert good(policy) == ["a"], "not from when the other one began"
    checked(policy, 1)
    assert good(policy) == ["b", "a"], "nor spoiled by an alarm before it"


def test_an_alarm_takes_from_all_that_wait_the_chance_to_become_good() -> None:
    policy = with_good("a")
    policy.saved("b", sound=True)
    checked(policy, 3)
    policy.saved("c", sound=True)
    checked(policy, 1, alarming=True)
    checked(policy, 50)
    assert good(policy) == ["a"]


def test_a_checkpoint_with_a_fault_in_it_never_becomes_good() -> None:
    policy = ResetPolicy(SETTINGS)
    policy.saved("a", sound=False)
    checked(policy, 50)
    assert good(policy) == []
    assert "no checkpoint is known to be good" in policy.refusal()


def test_the_newest_good_one_comes_first() -> None:
    assert good(with_good("a", "b", "c")) == ["c", "b", "a"]


def test_only_alarms_that_the_profile_names_are_answered_by_a_reset() -> None:
    policy = with_good("a")
    assert policy.answers(["nonfinite"])
    assert not policy.answers(["nonfinite", "divergence"])
    assert not policy.answers([])
    assert not ResetPolicy(None).answers(["nonfinite"])


def test_within_the_cooldown_the_next_alarm_is_not_answered_by_a_reset() -> None:
    policy = with_good("a")
    assert policy.refusal() == ""
    policy.went_back("a", policy.state(), reset=True)
    checked(policy, 9)
    assert "9 checks ago, and the cooldown is 10" in policy.refusal()
    checked(policy, 1)
    assert policy.refusal() == ""


def test_at_most_so_many_resets_are_done_within_the_window() -> None:
    policy = with_good("a")
    for _ in range(2):
        policy.went_back("a", policy.state(), reset=True)
        checked(policy, 20)
    assert "2 in the last 100 checks, and at most 2" in policy.refusal()
    checked(policy, 60)
    assert policy.refusal() == ""


def test_each_reset_to_the_same_checkpoint_lowers_the_rate_further() -> None:
    policy = with_good("a")
    assert policy.went_back("a", policy.state(), reset=True) == 0.5
    assert policy.went_back("a", policy.state(), reset=True) == 0.25
    # A checkpoint that was made since holds the lowered rate already.
    policy.saved("b", sound=True)
    checked(policy, 5)
    assert policy.went_back("b", policy.state(), reset=True) == 0.5


def test_a_person_who_goes_back_changes_no_rate_and_uses_up_no_reset() -> None:
    policy = with_good("a")
    then = policy.state()
    policy.saved("b", sound=True)
    checked(policy, 5)
    assert policy.went_back("a", then, reset=False) == 1.0
    assert policy.number == 0
    assert good(policy) == ["a"], "the branch that was left is no place to go back to"


def test_what_was_made_after_the_checkpoint_is_no_place_to_go_back_to_though_that_one_is_not_known_good() -> None:
    policy = with_good("a")
    then = policy.state()
    policy.saved("unsound", sound=False)
    policy.saved("later", sound=True)
    checked(policy, 5)
    assert good(policy) == ["later", "a"]
    policy.went_back("unsound", then, reset=False)
    assert good(policy) == ["a"]


def test_the_policy_goes_on_from_its_state() -> None:
    policy = with_good("a", "b")
    policy.went_back("b", policy.state(), reset=True)
    policy.saved("c", sound=True)
    checked(policy, 2)
    again = ResetPolicy(SETTINGS)
    again.restore(json.loads(json.dumps(policy.state())))
    assert again.state() == policy.state()
    for each in (policy, again):
        checked(each, 3)
    assert (good(again), again.refusal(), again.number) == (good(policy), policy.refusal(), 1)
    assert good(again) == ["c", "b", "a"]


def test_a_profile_that_asks_for_what_the_loop_cannot_do_is_refused_at_once() -> None:
    class Restorer:
        scale_lr = None

        def prepare(self) -> None: ...

    profile = Profile(name="mine", limits=(NonFinite(),), soft_reset=SETTINGS)
    with pytest.raises(ConfigError, match="need restore=restorer"):
        check_restore(profile, None)
    with pytest.raises(ConfigError, match=r"lr_factor 0\.5, which needs restorer"):
        check_restore(profile, Restorer())
    check_restore(Profile(name="mine", limits=(NonFinite(),), soft_reset=SoftReset()), None)
