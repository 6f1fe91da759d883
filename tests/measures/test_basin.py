"""Basins, and drift against the definition computed from the whole history."""

import json

import numpy as np
import pytest

from qig_core.errors import SimplexError
from qig_core.geometry.simplex import Basin, FloatArray, exp, fisher_rao_distance, frechet_mean, geodesic, log
from qig_core.measures.basin import BasinTracker, basin_of, coherence, coherence_drift, drift_acceleration, readout


def walk(num: int, seed: int = 0) -> list[Basin]:
    """A slow random walk of basins."""
    steps: FloatArray = 0.05 * np.random.default_rng(seed).standard_normal((num, 64))
    return [basin_of(z, np.eye(64)) for z in np.cumsum(steps, axis=0)]


@pytest.mark.parametrize(("width", "size"), [(128, 64), (64, 64), (32, 64)])
def test_the_readout_is_orthonormal_on_its_shorter_side(width: int, size: int) -> None:
    r = readout(width, size)
    assert r.shape == (size, width)
    gram = r @ r.T if width >= size else r.T @ r
    np.testing.assert_allclose(gram, np.eye(min(width, size)), atol=1e-12)


def test_the_readout_is_its_seed_and_no_global_state() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    np.testing.assert_array_equal(readout(128, seed=3), readout(128, seed=3))
    assert not np.array_equal(readout(128, seed=3), readout(128, seed=4))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_a_basin_is_the_softmax_of_its_readout() -> None:
    r, z = readout(16, 8), np.linspace(-3.0, 900.0, 16)
    basin = basin_of(z, r)
    logits = r @ z
    assert basin.sum() == pytest.approx(1.0, abs=1e-15)
    assert basin.argmax() == logits.argmax()
    np.testing.assert_allclose(basin_of(1e-3 * z, r), np.exp(1e-3 * logits) / np.exp(1e-3 * logits).sum())


def test_a_broken_state_has_no_basin() -> None:
    with pytest.raises(ValueError, match="not finite"):
        basin_of(np.array([np.nan, 0.0]), np.eye(2))
    with pytest.raises(ValueError, match="do not fit"):
        basin_of(np.zeros(3), np.eye(2))


def test_coherence_is_one_for_equal_points_and_falls_for_disjoint_ones() -> None:
    assert coherence(np.full((5, 4), 0.25)) == pytest.approx(1.0, abs=1e-15)
    assert coherence(np.eye(4)) == pytest.approx(0.5, abs=1e-15)


def test_coherence_drift_is_positive_where_the_newest_scatter() -> None:
    still, apart = np.full((4, 4), 0.25), np.eye(4)
    assert coherence_drift(np.concatenate([still, apart]), 4) == pytest.approx(0.5, abs=1e-15)
    assert coherence_drift(np.concatenate([apart, still]), 4) == pytest.approx(-0.5, abs=1e-15)
    assert coherence_drift(np.concatenate([apart, still, still]), 4) == 0.0
    points = np.array(walk(23))
    assert coherence_drift(points, 7) == pytest.approx(coherence(points[9:16]) - coherence(points[16:]), abs=1e-15)


def test_coherence_drift_needs_two_windows() -> None:
    assert coherence_drift(np.eye(4), 2) is not None
    assert coherence_drift(np.eye(4)[:3], 2) is None
    with pytest.raises(ValueError, match="at least 1"):
        coherence_drift(np.eye(4), 0)


@pytest.mark.parametrize("points", [np.full(4, 0.25), np.zeros((0, 4)), np.full((2, 2, 2), 0.5)])
def test_what_is_not_a_list_of_basins_has_no_coherence(points: FloatArray) -> None:
    with pytest.raises(ValueError, match=r"\[W, K\]"):
        coherence(points)
    with pytest.raises(ValueError, match=r"\[W, K\]"):
        coherence_drift(points, 1)


def test_acceleration_is_zero_at_constant_speed_along_a_geodesic() -> None:
    ends = np.random.default_rng(3).dirichlet(np.ones(64), 2)
    before, middle, after = (geodesic(ends[0], ends[1], t) for t in (0.2, 0.5, 0.8))
    assert drift_acceleration(before, middle, after) == pytest.approx(0.0, abs=1e-14)
    assert drift_acceleration(middle, middle, middle) == 0.0


def test_acceleration_along_a_geodesic_is_the_change_of_speed() -> None:
    ends = np.random.default_rng(3).dirichlet(np.ones(64), 2)
    before, middle, after = (geodesic(ends[0], ends[1], t) for t in (0.2, 0.3, 0.8))
    expected = 0.4 * float(fisher_rao_distance(ends[0], ends[1]))
    assert drift_acceleration(before, middle, after) == pytest.approx(expected, rel=1e-12)
    assert drift_acceleration(before, middle, before) == pytest.approx(0.5 * expected, rel=1e-12)


def test_acceleration_of_a_right_angle_is_its_hypotenuse() -> None:
    middle = np.full(4, 0.25)
    east, north = np.array([0.3, -0.3, 0.0, 0.0]), np.array([0.0, 0.0, 0.4, -0.4])
    expected = np.hypot(np.linalg.norm(east), np.linalg.norm(north))
    assert drift_acceleration(exp(middle, east), middle, exp(middle, north)) == pytest.approx(expected, rel=1e-12)


def test_drift_equals_its_definition_over_the_whole_history() -> None:
    points, tracker = walk(260), BasinTracker()
    for t, point in enumerate(points):
        drift = tracker.observe(point)
        assert drift["drift_birth"] == fisher_rao_distance(point, points[0])
        assert ("drift_velocity" in drift) == (t > 0)
        if t > 0:
            assert drift["drift_velocity"] == fisher_rao_distance(point, points[t - 1])
        assert ("drift_acceleration" in drift) == (t > 1)
        if t > 1:
            twice = log(points[t - 1], points[t]) + log(points[t - 1], points[t - 2])
            assert drift["drift_acceleration"] == pytest.approx(float(np.linalg.norm(twice)), abs=1e-15)
        assert ("coherence" in drift) == (t + 1 >= 50)
        if t + 1 >= 50:
            assert drift["coherence"] == coherence(np.array(points[t - 49 : t + 1]))
        assert ("drift_rolling" in drift) == (t + 1 >= 200)
        if t + 1 >= 200:
            mean = frechet_mean(np.array(points[t - 150 : t - 49]))
            assert drift["drift_rolling"] == pytest.approx(float(fisher_rao_distance(point, mean)), abs=1e-10)
    assert tracker.count == 260


@pytest.mark.parametrize("when", [0, 1, 2, 49, 120, 205])
def test_a_resumed_tracker_goes_on_bit_by_bit(when: int) -> None:
    points, tracker = walk(230), BasinTracker()
    for point in points[:when]:
        tracker.observe(point)
    resumed = BasinTracker.from_state(json.loads(json.dumps(tracker.state())))
    for point in points[when:]:
        assert resumed.observe(point) == tracker.observe(point)


@pytest.mark.parametrize("count", [1, 60])
def test_a_bad_sample_leaves_the_tracker_as_it_was(count: int) -> None:
    tracker = BasinTracker()
    for point in walk(count):
        tracker.observe(point)
    before = tracker.state()
    with pytest.raises(SimplexError):
        tracker.observe(Basin(np.full(64, 0.5)))
    assert tracker.state() == before


@pytest.mark.parametrize("state", [{}, {"count": 3, "birth": None, "window": [], "mean": None}])
def test_what_is_not_a_tracker_state_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="basin tracker"):
        BasinTracker.from_state(state)


def test_the_tracker_keeps_a_copy_and_takes_a_list() -> None:
    tracker, buffer = BasinTracker(), np.array([0.2, 0.3, 0.5])
    tracker.observe(buffer)  # type: ignore[arg-type]
    buffer[:] = [0.5, 0.3, 0.2]
    assert tracker.observe([0.5, 0.3, 0.2])["drift_birth"] > 0.1  # type: ignore[arg-type]
    assert len(tracker.state()["window"]) == 2
    with pytest.raises(SimplexError, match=r"a basin is \[K\]"):
        tracker.observe(np.full((2, 2), 0.5))  # type: ignore[arg-type]
    assert tracker.count == 2
