import random

import pytest

from qig_core.safety.breakdown import Breakdown, wilson_interval


def healthy(step: int, chance: random.Random) -> dict[str, float | None]:
    return {"loss": 2.0 + chance.gauss(0, 0.1), "grad_norm": 1.0 + chance.gauss(0, 0.1)}


def test_there_is_no_share_under_twenty_evaluations() -> None:
    chance, breakdown = random.Random(0), Breakdown()
    shares = [breakdown.observe(n, healthy(n, chance)) for n in range(25)]
    assert shares[:19] == [None] * 19
    assert shares[19:] == [0.0] * 6


@pytest.mark.parametrize("broken", [{"loss": 9.0}, {"grad_norm": 50.0}, {"phi": float("nan")}, {"loss": float("inf")}])
def test_each_kind_of_breakdown_is_counted_and_forgotten_after_a_hundred(broken: dict[str, float | None]) -> None:
    chance, breakdown = random.Random(1), Breakdown()
    for n in range(100):
        breakdown.observe(n, healthy(n, chance))
    for n in range(100, 110):
        breakdown.observe(n, healthy(n, chance) | broken)
    assert breakdown.observe(110, healthy(110, chance)) == 10.0
    for n in range(111, 211):
        share = breakdown.observe(n, healthy(n, chance))
    assert share == 0.0


def test_a_lasting_breakdown_does_not_become_its_own_baseline() -> None:
    chance, breakdown = random.Random(2), Breakdown()
    for n in range(100):
        breakdown.observe(n, healthy(n, chance))
    for n in range(100, 500):
        share = breakdown.observe(n, {"loss": 20.0, "grad_norm": 1.0})
    assert share == 100.0


def test_phi_under_its_floor_counts_once_the_baseline_stands() -> None:
    breakdown = Breakdown(phi_armed_after=200)
    for n in range(150, 200):
        breakdown.observe(n, {"phi": 0.1})
    for n in range(200, 250):
        breakdown.observe(n, {"phi": 0.8})
    assert breakdown.observe(250, {"phi": 0.57}) == 0.0
    assert breakdown.observe(251, {"phi": 0.55}) == 1.0


def test_a_breakdown_goes_on_from_its_state_as_if_never_interrupted() -> None:
    chance = random.Random(3)
    whole, first = Breakdown(), Breakdown()
    feed = [healthy(n, chance) | ({"loss": 9.0} if n % 17 == 0 else {}) for n in range(300)]
    for n in range(150):
        whole.observe(n, feed[n])
        first.observe(n, feed[n])
    second = Breakdown.from_state(first.state())
    assert [whole.observe(n, feed[n]) for n in range(150, 300)] == [second.observe(n, feed[n]) for n in range(150, 300)]
    assert whole.interval() == second.interval()


def test_by_the_reference_rule_only_the_regime_counts_and_only_where_it_was_measured() -> None:
    breakdown = Breakdown(rule="reference")
    shares = []
    for n in range(200):
        regime = None if n % 2 else "topological_instability" if n >= 100 else "hyperdimensional"
        shares.append(breakdown.observe(n, {"loss": float("nan")}, regime))
    assert shares[1::2] == [None] * 100  # not measured: no evaluation, and none of what the share is judged by
    assert shares[:38:2] == [None] * 19
    assert shares[38:100:2] == [0.0] * 31
    assert shares[100::2] == pytest.approx([100.0 * hits / (50 + hits) for hits in range(1, 51)])
    assert breakdown.interval() == pytest.approx([100.0 * end for end in wilson_interval(50, 100)])


def test_by_the_default_rule_the_regime_does_not_count() -> None:
    breakdown = Breakdown()
    assert [breakdown.observe(n, {"loss": 1.0}, "topological_instability") for n in range(25)][-1] == 0.0


def test_a_breakdown_keeps_its_rule_and_one_of_before_there_were_rules_has_the_default() -> None:
    breakdown = Breakdown(300, rule="reference")
    for n in range(30):
        breakdown.observe(n, {}, "topological_instability")
    again = Breakdown.from_state(breakdown.state())
    assert (again.rule, again.observe(30, {}, "linear")) == ("reference", pytest.approx(100.0 * 30 / 31))
    old = {name: value for name, value in Breakdown().state().items() if name != "rule"}
    assert Breakdown.from_state(old).rule == "default"


def test_the_wilson_interval_meets_its_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(3, 2)
