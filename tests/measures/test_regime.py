"""Names, boundaries and hysteresis of regimes."""

import json
import math

import pytest

from qig_core.measures.regime import FIELD_REGIMES, Band, RegimeProfile, RegimeState, RegimeTracker, classify


def name_of(phi: float) -> str | None:
    return classify(RegimeState(), phi=phi, kappa=None, drift=None).name


@pytest.mark.parametrize(
    ("phi", "name"),
    [
        (0.0, "linear"),
        (0.4499, "linear"),
        (0.45, "geometric"),
        (0.7499, "geometric"),
        (0.75, "hyperdimensional"),
        (0.8999, "hyperdimensional"),
        (0.90, "topological_instability"),
        (0.9999, "topological_instability"),
    ],
)
def test_the_fields_names_begin_at_their_boundaries(phi: float, name: str) -> None:
    assert name_of(phi) == name


def test_a_change_needs_the_margin_and_the_dwell() -> None:
    tracker = RegimeTracker()
    assert [tracker.observe(phi) for phi in (0.60, 0.755, 0.755, 0.755, 0.755)] == ["geometric"] * 5
    assert [tracker.observe(phi) for phi in (0.77, 0.77, 0.60, 0.77, 0.77)] == ["geometric"] * 5
    assert tracker.observe(0.77) == "hyperdimensional"
    assert [tracker.observe(phi) for phi in (0.745, 0.745, 0.745)] == ["hyperdimensional"] * 3
    assert [tracker.observe(0.70) for _ in range(3)][-1] == "geometric"


def test_a_jump_over_a_band_lands_where_it_stays() -> None:
    tracker = RegimeTracker()
    tracker.observe(0.1)
    assert [tracker.observe(phi) for phi in (0.95, 0.95, 0.95)][-1] == "topological_instability"
    assert [tracker.observe(phi) for phi in (0.1, 0.1, 0.1)][-1] == "linear"


def test_a_climb_gets_the_name_of_the_nearest_band_on_its_way() -> None:
    tracker = RegimeTracker()
    tracker.observe(0.1)
    assert [tracker.observe(phi) for phi in (0.80, 0.95, 0.95)][-1] == "hyperdimensional"
    assert [tracker.observe(phi) for phi in (0.95, 0.95, 0.95)][-1] == "topological_instability"


def test_a_swing_about_a_further_bound_does_not_hold_back_the_change() -> None:
    tracker = RegimeTracker()
    tracker.observe(0.1)
    assert [tracker.observe(phi) for phi in (0.77, 0.74, 0.77)] == ["linear", "linear", "geometric"]


def test_the_other_side_starts_the_count_again() -> None:
    tracker = RegimeTracker()
    tracker.observe(0.6)
    assert [tracker.observe(phi) for phi in (0.1, 0.1, 0.8, 0.1, 0.1)] == ["geometric"] * 5
    assert tracker.observe(0.1) == "linear"


def test_a_phi_below_full_rank_is_passed_as_none_and_has_no_name() -> None:
    tracker = RegimeTracker()
    assert [tracker.observe(None, kappa=2.0, drift=0.1) for _ in range(5)] == [None] * 5


@pytest.mark.parametrize("phi", [None, math.nan, math.inf])
def test_a_missing_phi_changes_nothing(phi: float | None) -> None:
    state = RegimeState(name="linear", candidate="geometric", count=2)
    assert classify(state, phi=phi, kappa=None, drift=None) == state
    assert classify(RegimeState(), phi=phi, kappa=None, drift=None).name is None


def test_a_profile_may_ask_for_coupling_and_small_drift() -> None:
    profile = RegimeProfile(
        bands=(Band(name="low", phi_min=0.0), Band(name="high", phi_min=0.5, kappa_min=20.0, drift_max_rad=0.6)),
        dwell=1,
    )

    def name(kappa: float | None, drift: float | None) -> str | None:
        return classify(RegimeState(), phi=0.8, kappa=kappa, drift=drift, profile=profile).name

    assert name(20.0, 0.6) == "high"
    assert name(19.9, 0.6) == name(20.0, 0.61) == name(None, 0.1) == name(30.0, None) == "low"


def test_an_unknown_name_raises() -> None:
    with pytest.raises(ValueError, match="no regime is called 'quantum'; this profile knows linear, geometric"):
        classify(RegimeState(name="quantum"), phi=0.5, kappa=None, drift=None)
    with pytest.raises(ValueError, match="quantum"):
        RegimeTracker.from_state({"name": "linear", "candidate": "quantum", "count": 1})
    with pytest.raises(ValueError, match="not the state"):
        RegimeTracker.from_state({"colour": "red"})
    for count in ("1", -1, 1.5, None, True):
        with pytest.raises(ValueError, match="not the state"):
            RegimeTracker.from_state({"name": "linear", "candidate": "geometric", "count": count})


def test_a_resumed_tracker_keeps_its_candidate() -> None:
    tracker = RegimeTracker()
    for phi in (0.60, 0.80, 0.80):
        tracker.observe(phi)
    resumed = RegimeTracker.from_state(json.loads(json.dumps(tracker.state())))
    assert resumed.name == "geometric"
    assert resumed.observe(0.80) == "hyperdimensional"


@pytest.mark.parametrize("bounds", [(), (0.1,), (0.0, 0.5, 0.4), (0.0, 0.5, 0.5), (0.0, math.nan), (0.0, math.inf)])
def test_a_profile_that_leaves_a_gap_is_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="start at 0 and rise"):
        RegimeProfile(bands=tuple(Band(name=str(b), phi_min=b) for b in bounds))


def test_a_profile_whose_first_band_refuses_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="must take any"):
        RegimeProfile(bands=(Band(name="a", phi_min=0.0, kappa_min=1.0),))
    with pytest.raises(ValueError, match="margin"):
        RegimeProfile(bands=FIELD_REGIMES.bands, dwell=0)
    with pytest.raises(ValueError, match="margin"):
        RegimeProfile(bands=FIELD_REGIMES.bands, margin=math.nan)
    with pytest.raises(ValueError, match="two bands have one name: a, a"):
        RegimeProfile(bands=(Band(name="a", phi_min=0.0), Band(name="a", phi_min=0.5)))
