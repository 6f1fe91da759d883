"""When a probe measures: by steps, and within its share of the time. The clock is the test's."""

import math

import pytest

from qig_core.measures.cadence import Cadence


def steps_measured(cadence: Cadence, num_steps: int, *, step_s: float, cost_s: float) -> list[int]:
    now, taken = 100.0, []
    for step in range(num_steps):
        if cadence.due(step, now):
            now += cost_s
            cadence.measured(step, cost_s, now)
            taken.append(step)
        now += step_s
    cadence.due(num_steps + 1, now)
    return taken


def test_what_is_cheap_is_measured_at_every_turn() -> None:
    cadence = Cadence(10, 0.03)
    assert steps_measured(cadence, 50, step_s=0.1, cost_s=0.001) == [0, 10, 20, 30, 40]
    spent = cadence.spent()
    assert (spent.num_measured, spent.num_skipped, spent.actual_every) == (5, 0, 10.0)
    assert spent.overhead == pytest.approx(0.001)
    assert spent.text() == "5 measurements of 1 ms, every 10 steps (asked: 10): 0.10 % of the time, limit 3 %"


def test_what_is_dear_is_measured_as_often_as_the_budget_allows() -> None:
    cadence = Cadence(10, 0.03)
    taken = steps_measured(cadence, 1000, step_s=0.1, cost_s=0.1199)
    # 0.12 s are 3 % of 40 steps; the first is paid for before the second.
    assert taken[:4] == [0, 80, 120, 160]
    spent = cadence.spent()
    assert spent.overhead is not None
    assert 0.028 < spent.overhead <= 0.03
    assert spent.num_skipped == 100 - len(taken)


def test_the_share_is_kept_whatever_a_measurement_costs() -> None:
    for cost in (0.01, 0.3, 2.0):
        cadence = Cadence(1, 0.05)
        steps_measured(cadence, 2000, step_s=0.05, cost_s=cost)
        spent = cadence.spent()
        assert spent.overhead is not None
        assert spent.overhead <= 0.05 + 1e-9


def test_a_birth_before_the_loop_is_paid_for_like_any_other() -> None:
    cadence = Cadence(10, 0.03)
    assert cadence.due(0, 100.0)
    cadence.born(0, 0.2999)
    assert steps_measured(cadence, 400, step_s=0.1, cost_s=0.2999) == [200, 300]
    spent = cadence.spent()
    assert (spent.birth_s, spent.num_measured) == (0.2999, 3)
    assert spent.overhead is not None
    assert spent.overhead < 0.03


def test_without_a_limit_every_turn_is_taken() -> None:
    assert len(steps_measured(Cadence(1, math.inf), 20, step_s=0.001, cost_s=1.0)) == 20


def test_before_anything_was_measured_there_are_no_figures() -> None:
    spent = Cadence(10, 0.03).spent()
    assert (spent.overhead, spent.actual_every, spent.last_cost_s) == (None, None, None)
    assert spent.text() == "nothing measured yet"


@pytest.mark.parametrize(("every", "share"), [(0, 0.03), (10, 0.0), (10, -1.0), (10, math.nan)])
def test_what_is_no_cadence_is_refused(every: int, share: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Cadence(every, share)
