import pytest

from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT


def test_the_step_that_a_resume_repeats_is_not_judged_twice() -> None:
    whole = SafetyMonitor(DEFAULT)
    for step in range(400):
        whole.judge(step, {"loss": 2.0 + 0.01 * (step % 7), "recursion_depth": 3.0})
        if step == 200:
            state = whole.state()
    resumed = SafetyMonitor.from_state(DEFAULT, state)
    for step in range(200, 400):
        resumed.judge(step, {"loss": 2.0 + 0.01 * (step % 7), "recursion_depth": 3.0})
    assert resumed.state() == whole.state()


@pytest.mark.parametrize("first", [150, 201])
def test_a_resume_from_elsewhere_judges_its_first_step(first: int) -> None:
    monitor = SafetyMonitor(DEFAULT)
    for step in range(201):
        monitor.judge(step, {"loss": 2.0})
    resumed = SafetyMonitor.from_state(DEFAULT, monitor.state())
    assert resumed.judge(first, {"loss": float("nan")}).critical
