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


def test_the_wilson_interval_meets_its_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(3, 2)
