"""What is made of a run's basins, without a screen: kept, compared, mapped."""

import ast
import json

import numpy as np
import pytest

from qig_core.geometry.simplex import fisher_rao_distance, frechet_mean, geodesic, normalise
from qig_core.rundir.layout import RunDir
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import Sample
from qig_core.rundir.values import encode_basin
from qig_tui.basin.basins import LEAST_AWAY, acceleration, derive, movers, shares
from qig_tui.basin.copying import as_json, as_numpy
from qig_tui.basin.trail import trail_of
from qig_tui.sources.basins import BasinFile, Thinned
from tests.tui.runs import basin, log_steps, open_run


def points(count, entries=64, seed=0, concentration=1.0):
    return np.random.default_rng(seed).dirichlet(np.full(entries, concentration), count)


def record(seq, step, values):
    return Sample(seq, step, 0.0, basin=encode_basin(np.asarray(values).astype("<f4").tobytes()))


def kept_of(path, *, most=4096, steps=None):
    thinned = Thinned(most)
    thinned.add([record(i, i if steps is None else steps[i], p) for i, p in enumerate(path)])
    return thinned.kept(None)


def test_the_shares_are_those_of_the_chord_that_the_distance_spans():
    p, q = points(2)
    found = shares(p, q)
    chord = np.square(np.sqrt(p) - np.sqrt(q))
    assert found.sum() == pytest.approx(1.0)
    assert chord.sum() == pytest.approx(4 * np.sin(fisher_rao_distance(p, q) / 4) ** 2)
    assert found == pytest.approx(chord / chord.sum())
    assert not shares(p, p).any()


def test_the_movers_are_the_largest_changes_and_none_that_is_shown_as_nothing():
    assert movers(np.array([0.1, -0.3, 0.0, 1e-9]), 3, 1e-6) == [(1, -0.3), (0, 0.1)]


def test_a_geodesic_run_through_at_constant_speed_does_not_accelerate():
    p, q = points(2)
    path = [(step, geodesic(p, q, step / 40)) for step in (30, 20, 10)]
    assert acceleration(path) == pytest.approx(0.0, abs=1e-12)
    # There and back: twice the way.
    back = [(30, path[2][1]), path[1], path[2]]
    assert acceleration(back) == pytest.approx(2 * fisher_rao_distance(path[1][1], path[2][1]))
    assert acceleration([path[0], path[1], (9, path[2][1])]) is None
    assert acceleration(path[:2]) is None


def test_a_geodesic_lies_in_one_direction_and_keeps_its_distances():
    p, q = points(2)
    at = np.linspace(0.0, 1.0, 9)
    path = np.array([geodesic(p, q, t) for t in at])
    found = trail_of(np.arange(9), path)
    assert found.explained == pytest.approx((1.0, 0.0), abs=1e-12)
    assert found.scores[:, 0] - found.scores[0, 0] == pytest.approx(at * fisher_rao_distance(p, q))


def test_the_map_is_that_of_the_gram_matrix_of_the_logarithms():
    path = points(40, concentration=3.0)
    found = trail_of(np.arange(40), path)
    mean = np.sqrt(frechet_mean(path))
    cosine = np.sqrt(path) @ mean
    angle = np.arccos(cosine)
    logs = (2 * angle / np.sin(angle))[:, None] * (np.sqrt(path) - cosine[:, None] * mean)
    assert np.linalg.norm(logs.mean(axis=0)) < 1e-10
    gram = np.sort(np.linalg.eigvalsh(logs @ logs.T))[::-1]
    assert found.explained == pytest.approx(gram[:2] / gram.sum())
    assert found.spread_rad == pytest.approx(np.sqrt(gram.sum() / 40))
    assert np.square(found.scores).sum(axis=0) == pytest.approx(gram[:2])
    assert found.place(path) == pytest.approx(found.scores, abs=1e-9)


def test_the_order_of_the_entries_changes_no_map():
    path = points(30)
    order = np.random.default_rng(1).permutation(64)
    one, other = trail_of(np.arange(30), path), trail_of(np.arange(30), path[:, order])
    assert one.scores == pytest.approx(other.scores, abs=1e-9)
    assert one.explained == pytest.approx(other.explained)


@pytest.mark.parametrize("seed", range(4))
def test_a_path_begins_on_the_left_and_below(seed):
    assert (trail_of(np.arange(20), points(20, seed=seed)).scores[0] < 0).all()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (points(2), "three basins"),
        (points(5, entries=1), "three basins"),
        (points(3, entries=2000), "more than 1024 entries"),
        (np.tile(points(1), (5, 1)), "all the same"),
    ],
)
def test_where_there_is_no_map_a_sentence_says_why(path, reason):
    found = derive(kept_of(path), len(path) - 1, None, path[-1]).trail
    assert isinstance(found, str)
    assert reason in found


def test_of_many_basins_evenly_many_are_kept_whatever_pieces_they_came_in():
    path = points(1000, entries=4)
    whole = kept_of(path, most=100)
    pieces = Thinned(100)
    for start in range(0, 1000, 7):
        pieces.add([record(i, i, path[i]) for i in range(start, min(start + 7, 1000))])
    assert whole.step.tolist() == list(range(0, 1000, 16))
    assert (whole.every, whole.recorded) == (16, 1000)
    assert pieces.kept(None).step.tolist() == whole.step.tolist()
    assert np.asarray(whole.points(np.array([3]))) == pytest.approx(path[48:49], abs=1e-7)


def test_large_basins_are_fewer():
    assert len(kept_of(points(40, entries=60_000), most=4096).step) <= 64
    mixed = Thinned()
    mixed.add([record(0, 0, points(1)[0]), record(1, 1, points(1, entries=9)[0])])
    assert mixed.kept(None).values.shape == (1, 9)


def test_the_nearest_past_state_is_no_neighbour_and_says_how_far_the_path_went_meanwhile():
    p, q = points(2)
    way = np.concatenate((np.linspace(0, 1, 200), np.linspace(1, 0.25, 200)))
    path = np.array([geodesic(p, q, t) for t in way])
    found = derive(kept_of(path), 399, None, path[-1]).nearest
    assert found is not None
    assert abs(way[found.step] - 0.25) < 0.01
    assert found.step < 200
    assert found.away == 399 - found.step
    assert found.distance_rad < 0.01
    assert found.between_rad == pytest.approx(0.75 * fisher_rao_distance(p, q), rel=1e-3)
    # Of a path that only goes on, it is the one that just counts as past.
    onward = derive(kept_of(path[:200]), 199, None, path[199]).nearest
    assert onward is not None
    assert onward.away == LEAST_AWAY


def test_a_state_of_before_a_rewind_is_found_and_marked_and_no_part_of_the_path():
    path = points(700)
    steps = [*range(500), *range(200, 400)]
    path[-1] = path[450]
    found = derive(kept_of(path, steps=steps), 399, None, path[-1])
    assert found.nearest is not None
    assert (found.nearest.step, found.nearest.left) == (450, True)
    # Back to step 200, where the branches part, and up the other one.
    assert found.nearest.away == (399 - 200) + (450 - 200)
    assert found.own is not None
    assert not found.own.left
    assert (found.live, found.left) == (400, 300)


def test_a_moment_shows_what_was_known_then():
    path = points(700)
    steps = [*range(500), *range(200, 400)]
    whole, then = kept_of(path, steps=steps), kept_of(path[:301], steps=steps)
    for kept in (whole, then):
        found = derive(kept, 300, 300, path[300])
        assert (found.live, found.left) == (301, 0)
    one, other = (derive(kept, 300, 300, path[300]).trail for kept in (whole, then))
    assert one.scores == pytest.approx(other.scores, abs=1e-12)
    # A cursor at a step of the branch that the run is on now.
    assert whole.seq_at(300) == 600
    assert whole.seq_at(-1) is None


def test_the_lines_of_the_entries_keep_their_past_as_the_path_grows():
    path = points(400)
    some = [kept_of(path[:count]).until(count - 1, None).some(12) for count in (300, 301)]
    assert len(some[0]) <= 12
    assert some[0][:-1] == pytest.approx(some[1][:-1])
    assert some[1][-1] == pytest.approx(path[300], abs=1e-6)


def test_a_run_is_read_on_from_where_it_was_read_to(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 100)
        file, got = BasinFile(writer.run), []
        file.read(got.append, lambda: False)
        assert got[-1].step.tolist() == list(range(0, 100, 10))
        file.read(got.append, lambda: False)
        assert len(got) == 1
        log_steps(writer, 100, 120)
        log_steps(writer, 50, 60)
        file.read(got.append, lambda: False)
        assert got[-1].step.tolist() == [*range(0, 120, 10), 50]
        known = got[-1].until(50, None)
        assert got[-1].step[known.left].tolist() == list(range(50, 120, 10))
        want = normalise(np.frombuffer(basin(50 / 50), "<f4").astype(np.float64))
        assert np.asarray(got[-1].points(known.live[-1:]))[0] == pytest.approx(want, abs=1e-8)


def test_nothing_is_read_of_a_run_that_is_not_there(tmp_path):
    got = []
    BasinFile(RunDir(tmp_path / "none")).read(got.append, lambda: False)
    assert [kept.recorded for kept in got] == [0]


@pytest.mark.parametrize("name", ["run1", 'quote " \n\x1b[31m newline', "\ud800"])
def test_what_is_copied_reads_back_as_the_same_numbers(name):
    values = points(1)[0]
    found = json.loads(as_json(name, 7, values))
    assert (found["run"], found["step"]) == (name, 7)
    assert np.array_equal(np.array(found["basin"], dtype=np.float64), values)
    line = as_numpy(name, 7, values)
    assert printable(line, len(line)) == line
    assert line.startswith("np.array([")
    literal = line.removeprefix("np.array(").partition(")")[0]
    assert np.array_equal(np.array(ast.literal_eval(literal)), values)
