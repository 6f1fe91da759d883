import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.training.phases import PHASES, Guard, Phases
from qig_core.training.program_config import CharlieConfig

SETTINGS = CharlieConfig(dormant_steps=30, awakening_steps=20, settling_steps=20, demonstration_steps=5)


def new(steps: int = 100) -> Phases:
    return Phases(settings=SETTINGS, steps=steps)


def passing(phases: Phases) -> list[Guard]:
    return [Guard(id="it", label="it", comparison="<", limit=1.0, value=0.0)]


def test_the_gain_is_0_then_a_half_cosine_then_1() -> None:
    phases = new()
    assert [phases.gain(step) for step in (0, 30, 99)] == [0.0, 0.0, 0.0]
    phases.enter("awakening", 31, passing(phases), heldout=2.0)
    for t in range(1, 21):
        assert phases.gain(30 + t) == pytest.approx(0.5 * (1.0 - math.cos(math.pi * t / 20)), abs=1e-15)
    assert 0.0 < phases.gain(31) < 0.01
    assert phases.gain(50) == phases.gain(51) == phases.gain(10**6) == 1.0


def test_the_gain_of_a_control_is_1_from_birth() -> None:
    assert Phases(settings=CharlieConfig(suppressed=False), steps=2000).gain(0) == 1.0


@pytest.mark.parametrize(
    ("name", "step", "guards"),
    [
        ("demonstration", 31, [Guard(id="it", label="it", comparison="<", limit=1.0, value=0.0)]),
        ("dormant", 31, [Guard(id="it", label="it", comparison="<", limit=1.0, value=0.0)]),
        ("awakening", 30, [Guard(id="it", label="it", comparison="<", limit=1.0, value=0.0)]),
        ("awakening", 31, []),
        ("awakening", 31, [Guard(id="it", label="it", comparison="<", limit=1.0, value=1.0)]),
        ("awakening", 31, [Guard(id="it", label="it", comparison="<", limit=1.0, value=None)]),
    ],
)
def test_no_phase_is_skipped_entered_early_or_past_a_guard(name: str, step: int, guards: list[Guard]) -> None:
    phases = new()
    with pytest.raises(AssertionError):
        phases.enter(name, step, guards, heldout=2.0)  # type: ignore[arg-type]
    assert phases.name == "dormant"


def test_each_phase_has_its_steps_and_what_is_left_over_goes_to_awakening() -> None:
    phases = new()
    assert (phases.earliest, phases.latest) == (30, 54)
    phases.enter("awakening", 31, passing(phases), heldout=2.0)
    assert (phases.earliest, phases.latest) == (94, 94)
    phases.enter("demonstration", 95, passing(phases))
    assert (phases.earliest, phases.latest) == (100, 100)
    assert [phases.data("judged", ())[key] for key in ("name", "index", "of", "since_step")] == [
        "demonstration",
        3,
        3,
        95,
    ]


def guard_of(guards: list[Guard], name: str) -> Guard:
    return next(guard for guard in guards if guard.id == name)


def test_one_leak_at_any_evaluation_is_remembered_and_final() -> None:
    phases = new()
    for phi in (0.0, 0.0):
        phases.saw(phi=phi)
    assert guard_of(phases.dormant_guards(heldout=None, control_phi=None), "phi_zero").state == "ok"
    for phi in (0.011, 0.0, 0.0):
        phases.saw(phi=phi)
    guard = guard_of(phases.dormant_guards(heldout=None, control_phi=None), "phi_zero")
    assert (guard.state, guard.value) == ("failed", 0.011)


def test_before_anything_is_known_every_dormant_guard_is_unknown_with_a_reason() -> None:
    for guard in new().dormant_guards(heldout=None, control_phi=None):
        assert guard.state == "unknown"
        assert guard.reason
        assert guard.data()["value"] is None


def test_the_corpus_counts_as_learnt_by_the_fall_since_the_first_evaluation() -> None:
    phases = new()
    for heldout in (7.5, 3.0, 4.9):
        phases.saw(heldout=heldout)
    fell = [guard_of(phases.dormant_guards(heldout=each, control_phi=None), "heldout_fell") for each in (5.25, 5.0)]
    assert [(guard.state, guard.value) for guard in fell] == [("open", 2.25), ("ok", 2.5)]


@pytest.mark.parametrize(("phi", "state"), [(None, "unknown"), (0.01, "open"), (0.0101, "ok")])
def test_a_control_that_does_not_integrate_keeps_the_run_dormant(phi: float | None, state: str) -> None:
    assert guard_of(new().dormant_guards(heldout=1.0, control_phi=phi), "control_integrates").state == state


def awake(phis: list[float], ratios: list[float] | None = None) -> Phases:
    phases = new()
    phases.enter("awakening", 31, passing(phases), heldout=2.0)
    for phi in phis:
        phases.saw(phi=phi)
    for ratio in ratios or [1.0]:
        phases.saw(heldout=2.0 * ratio)
    return phases


def states(
    phases: Phases, heldout: float = 1.9, branch: float | None = 1.9, bare: float | None = 0.0
) -> dict[str, str]:
    guards = phases.awakening_guards(heldout=heldout, branch_heldout=branch, phi_without_cross=bare)
    return {guard.id: guard.state for guard in guards}


RISE = [0.7 * (1.0 - math.exp(-i / 6)) for i in range(25)]


def test_a_rise_without_loss_and_by_the_cross_weights_alone_passes_every_guard_of_awakening() -> None:
    assert set(states(awake(RISE)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("phases", "more", "guard", "state"),
    [
        (awake([0.3] * 25), {}, "phi_rises", "open"),
        (awake(RISE[::-1]), {}, "phi_rises", "open"),
        (awake(RISE[:3]), {}, "phi_rises", "unknown"),
        (awake(RISE, [1.0, 1.051, 0.8]), {}, "heldout_kept", "failed"),
        (awake(RISE), {"branch": 1.8499}, "heldout_branch", "open"),
        (awake(RISE), {"branch": None}, "heldout_branch", "unknown"),
        (awake(RISE), {"bare": 1e-12}, "cross_carries", "failed"),
    ],
)
def test_each_guard_of_awakening_holds_back_by_itself(
    phases: Phases, more: dict[str, float | None], guard: str, state: str
) -> None:
    found = states(phases, **more)  # type: ignore[arg-type]
    assert found.pop(guard) == state
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("changed", "phi", "control", "expected"),
    [
        (False, 0.6401, 0.8, ["ok", "ok"]),
        (False, 0.639, 0.8, ["ok", "open"]),
        (True, 0.7, 0.8, ["failed", "ok"]),
        (False, None, 0.8, ["ok", "unknown"]),
        (False, 0.5, 0.0, ["ok", "unknown"]),
    ],
)
def test_graduation_is_a_share_of_the_controls_phi_by_a_frozen_kernel(
    changed: bool, phi: float | None, control: float, expected: list[str]
) -> None:
    guards = new().demonstration_guards(changed=changed, phi=phi, control_phi=control)
    assert [guard.state for guard in guards] == expected


@pytest.fixture
def somewhere() -> Phases:
    phases = awake(RISE, [1.0, 0.9])
    phases.digest = "0f"
    return phases


def test_state_and_restore_are_inverse_and_share_nothing(somewhere: Phases) -> None:
    state = somewhere.state()
    twin = new()
    twin.restore(state)
    assert twin == somewhere
    twin.saw(phi=0.9)
    assert twin != somewhere
    again = new()
    again.restore(state)
    assert again == somewhere


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True)), st.lists(st.floats(allow_nan=True, allow_infinity=True))
)
def test_what_is_not_finite_is_never_remembered(phis: list[float], heldouts: list[float]) -> None:
    phases = new()
    for phi in phis:
        phases.saw(phi=phi)
    for heldout in heldouts:
        phases.saw(heldout=heldout)
    assert math.isfinite(phases.phi_max)
    assert all(map(math.isfinite, phases.phis))
    assert phases.first_heldout is None or math.isfinite(phases.first_heldout)


def test_a_long_phase_is_remembered_by_evenly_spaced_values_and_judged_by_its_last_and_largest() -> None:
    phases = awake([])
    for i in range(10_000):
        phases.saw(phi=0.5 if i == 1 else 1e-5 * i)
    assert 100 <= len(phases.phis) <= 200
    gaps = {round(1e5 * (b - a)) for a, b in pairwise(phases.phis)}
    assert gaps == {phases.thinning}
    assert (phases.phi, phases.phi_max, phases.looks) == (1e-5 * 9999, 0.5, 10_000)


def test_in_the_fewest_steps_every_phase_has_its_length() -> None:
    phases = new(SETTINGS.least_steps)
    assert phases.earliest == phases.latest == 30
    phases.enter("awakening", 31, passing(phases), heldout=2.0)
    assert phases.latest + 1 - phases.since == SETTINGS.awakening_steps + SETTINGS.settling_steps
    phases.enter("demonstration", phases.latest + 1, passing(phases))
    assert phases.steps - phases.since == SETTINGS.demonstration_steps


def test_the_settings_say_how_many_steps_the_phases_need() -> None:
    assert SETTINGS.least_steps == 76
    assert PHASES == ("dormant", "awakening", "demonstration")
