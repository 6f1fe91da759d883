"""What a comparison says of several runs, before anything is drawn."""

import math
import re

import msgspec
import numpy as np
import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.lineage import Ancestor, Began, Lineage, WentBack
from qig_core.rundir.schema import GitRevision, Manifest
from qig_tui.compare.axes import MS, marks, place_text
from qig_tui.compare.comparing import Comparison
from qig_tui.compare.config_diff import SURROUNDINGS, differences
from qig_tui.compare.kin import Member, bar_of, family
from qig_tui.compare.pages import apart
from qig_tui.compare.places import Places
from qig_tui.compare.placing import places_along
from qig_tui.compare.training_time import TrainingTime
from qig_tui.series import Series
from qig_tui.sources.several import RunReader
from qig_tui.themes import OURS
from qig_tui.widgets.braille import Canvas
from qig_tui.widgets.hued import Hued
from tests.tui.runs import open_run


def read(root, *ids):
    """A comparison of these runs, read as far as there is anything."""
    runs = [RunDir(root / run_id) for run_id in ids]
    comparison = Comparison(runs, range(len(runs)))
    for run, compared in zip(runs, comparison.runs, strict=True):
        reader = RunReader(run)
        while reader.is_behind:
            if (found := reader.look()) is not None:
                compared.take(found)
        reader.close()
    return comparison


def recorded(root, run_id, samples, **manifest):
    """A run that has ended with these steps and metrics."""
    with open_run(root, run_id, **({"name": run_id} | manifest)) as writer:
        for step, metrics in samples:
            writer.telemetry.log(step, metrics)
        writer.close(0)
    return writer.run


def ints(*values):
    return np.array(values, dtype=np.int64)


def floats(*values):
    return np.array(values, dtype=np.float64)


def test_a_run_keeps_its_place_whatever_is_compared_beside_it():
    places = Places()
    assert places.of(["a", "b", "c"]) == [0, 1, 2]
    assert places.of(["c", "x", "a"]) == [2, 3, 0]
    assert places.of(["b"]) == [1]
    assert sorted(places.of([*"abcdefgh"])) == list(range(8))
    assert places.of(["b", "a"]) == [1, 0]


def test_the_place_of_the_run_compared_longest_ago_is_given_away_first():
    places = Places()
    places.of([f"r{i}" for i in range(8)])
    places.of(["r0", "r1"])
    assert places.of(["new"]) == [2]
    assert places.of(["r0", "r1"]) == [0, 1]


def test_two_runs_that_had_the_same_place_are_told_apart():
    places = Places()
    places.of([f"a{i}" for i in range(8)])
    taken = places.of(["x"])
    both = places.of(["a0", *[f"a{i}" for i in range(1, 7)], "x"])
    assert len(set(both)) == 8
    assert both[0] == 0
    assert taken[0] in range(8)


def test_pauses_and_the_time_between_sessions_are_no_training():
    time = TrainingTime(1000)
    t = floats(100, 101, 102, 103, 700, 701, 710, 711)
    time.extend(np.arange(8), t, np.zeros(8, dtype=np.int32), floats(99.0, 709.5))
    assert time.seconds.value.tolist() == [0, 1, 2, 3, 3, 4, 4, 5]


def test_training_time_goes_on_over_pieces_and_over_what_was_given_up():
    whole, pieces = TrainingTime(1000), TrainingTime(1000)
    step, segment = ints(0, 1, 2, 3, 1, 2, 3, 4), np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32)
    t = floats(5, 6, 7, 8, 10, 11, 12, 13)
    whole.extend(step, t, segment, floats())
    for part in (slice(0, 3), slice(3, 5), slice(5, 8)):
        pieces.extend(step[part], t[part], segment[part], floats())
    assert whole.total_s == pieces.total_s == 8
    assert whole.seconds.value.tolist() == pieces.seconds.value.tolist()


def test_a_clock_that_was_set_back_or_says_nothing_never_goes_backwards():
    time = TrainingTime(1000)
    t = floats(10, 11, 5, 6, math.nan, 8, math.inf, 1e300, 12)
    time.extend(np.arange(9), t, np.zeros(9, dtype=np.int32), floats())
    assert np.isfinite(time.seconds.value).all()
    assert (np.diff(time.seconds.value) >= 0).all()
    assert time.total_s == 2


def test_places_are_read_off_their_own_segment_and_nowhere_else():
    by = Series()
    by.extend(ints(0, 10, 20, 5, 15), floats(0, 100, 200, 250, 350), np.array([0, 0, 0, 1, 1], dtype=np.int32))
    step = ints(5, 20, 25, 4, 5, 10, 16)
    segment = np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.int32)
    found = places_along(by, step, segment)
    assert found[[0, 1, 4, 5]].tolist() == [50, 200, 250, 300]
    assert np.isnan(found[[2, 3, 6]]).all()
    assert np.isnan(places_along(Series(), step, segment)).all()
    by.extend(ints(0, 9), floats(400, 490), np.array([3, 3], dtype=np.int32))
    assert np.isnan(places_along(by, ints(5), np.array([2], dtype=np.int32))).all()


def test_the_best_is_finite_and_lies_on_the_branch_that_the_run_is_on(tmp_path):
    samples = [(s, {"loss": 5.0 - s}) for s in range(5)]
    samples += [(s, {"loss": 4.5 - s / 2}) for s in range(2, 6)]
    samples += [(6, {"loss": -math.inf}), (7, {"loss": math.nan})]
    recorded(tmp_path, "a", samples)
    standing = read(tmp_path, "a").runs[0].standing("loss")
    assert standing.best("lower") == (5, 2.0)
    assert standing.best("higher") == (0, 5.0)
    assert standing.best("band") is None
    assert standing.last is not None
    assert standing.last[0] == 7
    assert math.isnan(standing.last[1])


def test_a_run_without_tokens_is_left_out_of_that_axis_and_never_estimated(tmp_path):
    recorded(tmp_path, "a", [(s, {"loss": 1.0, "tokens": 100.0 * s}) for s in range(10)])
    recorded(tmp_path, "b", [(s, {"loss": 2.0}) for s in range(10)])
    comparison = read(tmp_path, "a", "b")
    comparison.axis = "tokens"
    assert [line.run.run.id for line in comparison.lines("loss")] == ["a"]
    assert [run.run.id for run in comparison.left_out] == ["b"]
    assert comparison.ends() == (0, 900)
    assert comparison.lines("loss")[0].series.step.tolist() == [100 * s for s in range(10)]


def test_the_axes_go_round_by_what_the_runs_record(tmp_path):
    recorded(tmp_path, "a", [(s, {"loss": 1.0}) for s in range(10)])
    comparison = read(tmp_path, "a")
    seen = []
    for _ in range(3):
        comparison.next_axis()
        seen.append(comparison.axis)
    assert seen == ["time", "step", "time"]


def test_a_count_that_falls_draws_no_zigzag(tmp_path):
    tokens = [0, 10, 20, 15, 30]
    recorded(tmp_path, "a", [(s, {"loss": float(s), "tokens": float(n)}) for s, n in enumerate(tokens)])
    comparison = read(tmp_path, "a")
    comparison.axis = "tokens"
    line = comparison.lines("loss")[0]
    assert line.series.step.tolist() == [0, 10, 20, 30]
    assert line.at(25) == 2.0
    assert line.at(31) is None


def test_a_line_is_read_only_where_it_is(tmp_path):
    recorded(tmp_path, "a", [(s, {"loss": float(s)}) for s in (10, 12, 14)])
    line = read(tmp_path, "a").lines("loss")[0]
    assert [line.at(step) for step in (9, 10, 13, 14, 15)] == [None, 10.0, 12.0, 14.0, None]


def test_after_a_rewind_time_goes_on_and_steps_go_back(tmp_path):
    recorded(tmp_path, "a", [(s, {"loss": 1.0}) for s in (*range(8), *range(4, 10))])
    comparison = read(tmp_path, "a")
    by_step = comparison.lines("loss")[0]
    assert by_step.abandoned is not None
    assert by_step.series.step[by_step.abandoned].tolist() == [4, 5, 6, 7]
    comparison.axis = "time"
    by_time = comparison.lines("loss")[0]
    assert by_time.abandoned is not None
    assert by_time.abandoned.sum() == 4
    assert (np.diff(by_time.series.step) >= 0).all()


def manifest(**known):
    return Manifest(id="r", **known)


def test_only_keys_that_differ_are_told_and_missing_is_not_null():
    a = manifest(config={"optimizer": {"lr": 1e-3, "name": "adamw"}, "seed": 1, "note": None, "api_key": "***"})
    b = manifest(config={"optimizer": {"lr": 3e-3, "name": "adamw"}, "seed": 1.0, "api_key": "***", "sizes": [1, 2]})
    found = {d.key: d.values for d in differences([a, b])}
    assert found == {"optimizer.lr": ("0.001", "0.003"), "note": ("null", None), "sizes": (None, "[1, 2]")}


def test_a_number_is_not_the_text_that_looks_like_it():
    values = [1, "1", True, "true", "x", "", [{"a": 1}]]
    texts = [differences([manifest(config={"k": v}), manifest()])[0].values[0] for v in values]
    assert texts == ["1", '"1"', "true", '"true"', "x", '""', "1"]


def test_what_a_run_ran_on_is_compared_after_its_configuration():
    a = manifest(config={"seed": 1}, versions={"torch": "2.6"}, git=GitRevision("abc", False), threads=2)
    b = manifest(config={"seed": 2}, versions={"torch": "2.7"}, git=GitRevision("abc", True), threads=2)
    found = differences([a, b])
    assert [d.key for d in found] == ["seed", "git", "versions.torch"]
    assert [d.section for d in found][1:] == [SURROUNDINGS] * 2
    assert found[1].values == ("abc", "abc with changes")


@pytest.mark.parametrize(
    "config", [{"n": 10**6000}, {"x" * 10_000: "\x1b[31m" * 1000}, {str(i): i for i in range(9000)}]
)
def test_no_configuration_is_too_much(config):
    assert differences([manifest(config=config), manifest()])


def test_values_that_begin_alike_are_cut_where_they_part():
    long = "/data/corpora/some/long/path/"
    assert apart([f"{long}a", f"{long}b", None], 9) == ["…th/a", "…th/b", "–"]
    assert apart(["short", "shore"], 9) == ["short", "shore"]


def member(run_id, *, lineage=None, **known):
    known = {"name": run_id, "letter": "A", "tone": "run0", "state": "EXITED", "first": 0, "last": 100} | known
    return Member(id=run_id, lineage=lineage, **known)


def text_of(members):
    return ["".join(text for _, text in line.left) for line in family(members)]


def test_a_fork_stands_below_its_parent_with_its_rewinds():
    parent = Lineage("a", [], [Began("s", 0.0)], [WentBack(9.0, "s", "soft_reset", "step-00000050", 70, 50)])
    child = Lineage("b", [Ancestor("a", "step-00000060")], [Began("t", 1.0, "step-00000060", 60)])
    lines = text_of([member("b", lineage=child, first=60, last=90), member("a", lineage=parent)])
    assert lines == [
        "━ A a  0 → 100  EXITED",
        "│  ↩ 70 → 50  soft reset, step-00000050",
        "└─ ━ A b  fork at 60 → 90  EXITED  step-00000060",
    ]


def test_an_ancestor_that_is_not_compared_is_named_with_why():
    child = Lineage("b", [Ancestor("gone", "c1", problem="not here")], [Began("t", 1.0)])
    assert text_of([member("b", lineage=child)])[0] == "○ gone  not compared: not here"


def test_a_circle_of_parents_ends():
    a = Lineage("a", [Ancestor("b", None), Ancestor("a", None, problem="met before: a circle")])
    b = Lineage("b", [Ancestor("a", None), Ancestor("b", None, problem="met before: a circle")])
    lines = text_of([member("a", lineage=a), member("b", lineage=b)])
    assert any("a circle" in line for line in lines)
    assert len(lines) == 3


def test_a_bar_spans_the_steps_of_its_run_and_is_as_wide_as_asked():
    child = Lineage("b", [Ancestor("a", None)], [Began("t", 1.0, "c", 50)])
    parent, fork = family([member("a", lineage=Lineage("a")), member("b", lineage=child, first=50)])
    bars = ["".join(text for _, text in bar_of(line, 21, (0, 100))) for line in (parent, fork)]
    assert bars == ["━━━━━━━━━━┳━━━━━━━━━━", " " * 10 + "┗" + "━" * 10]


@pytest.mark.parametrize(
    ("axis", "first", "last", "texts"),
    [
        ("step", 0, 1000, ["0", "200", "400", "600", "800", "1 000"]),
        ("time", 0, 3600 * MS, ["0", "15 m", "30 m", "45 m", "1 h"]),
        ("time", 0, 400, ["0", "0.1 s", "0.2 s", "0.3 s", "0.4 s"]),
        ("time", 0, 90 * 86400 * MS, ["0", "20 d", "40 d", "60 d", "80 d"]),
        ("tokens", 0, 5_000_000, ["0", "1 M", "2 M", "3 M", "4 M", "5 M"]),
    ],
)
def test_places_are_marked_by_rounded_ones(axis, first, last, texts):
    assert [place_text(axis, place) for place in marks(axis, first, last, 5)] == texts


# Machado, Oliveira and Fernandes (2009), severity 1.0: linear RGB as eyes without one kind of cones see it.
_EYES = {
    "all": np.eye(3),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no blue": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def linear(color):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089], 0.0089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [theme for theme in OURS if not theme.ansi], ids=lambda theme: theme.name)
def test_the_colours_of_runs_are_read_on_every_theme_and_told_apart_by_all_eyes(theme):
    selector = "Hued" if theme.dark else "Hued:light"
    found = [re.search(rf"{selector} > .lines--run{i} {{ color: (#\w+)", Hued.DEFAULT_CSS) for i in range(8)]
    colors = [linear(match[1]) for match in found if match is not None]
    assert len(colors) == 8
    weights = [0.2126, 0.7152, 0.0722]
    ground = linear(theme.background) @ weights
    for color in colors:
        high, low = max(color @ weights, ground), min(color @ weights, ground)
        assert (high + 0.05) / (low + 0.05) >= 4.5
    for eyes in _EYES.values():
        seen = [lab(eyes @ color) for color in colors]
        apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(apart) > 12


def test_layers_lie_as_they_are_told_and_can_be_dashed():
    canvas = Canvas(2, 1)
    every = np.arange(4)
    canvas.spans(5, every, np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64))
    canvas.spans(9, every[:2], np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64))
    assert canvas.result([5, 9])[1].tolist() == [[9, 5]]
    assert canvas.result([9, 5])[1].tolist() == [[5, 5]]
    canvas.keep(5, np.array([True, False, False, False]))
    codes, layers = canvas.result([5])
    assert codes.tolist() == [[0x2840, 0]]
    assert layers.tolist() == [[5, 0]]


def test_a_reader_tells_what_is_new_and_rests_where_nothing_is(tmp_path):
    with open_run(tmp_path, "a") as writer:
        writer.telemetry.log(0, {"loss": 1.0})
        reader = RunReader(writer.run)
        first = reader.look()
        assert first is not None
        assert first.manifest is not None
        assert first.lineage is not None
        assert len(first.samples) == 1
        writer.telemetry.log(1, {"loss": 1.0})
        second = reader.look()
        assert second is not None
        assert second.manifest is None
        assert [s.step for s in second.samples] == [1]
        writer.close(0)
        while reader.look() is not None:
            pass
        reader.close()


def test_a_manifest_that_cannot_be_read_is_a_reason_and_comes_back(tmp_path):
    run = recorded(tmp_path, "a", [(0, {"loss": 1.0})])
    whole = run.manifest.read_bytes()
    run.manifest.write_bytes(b"{")
    reader = RunReader(run)
    found = reader.look()
    assert found is not None
    assert found.problem is not None
    assert "run.json" in found.problem
    assert str(tmp_path) not in found.problem
    assert reader.look() is None
    run.manifest.write_bytes(whole)
    again = reader.look()
    assert again is not None
    assert again.problem is None
    assert msgspec.to_builtins(again.manifest)["id"] == "a"
    reader.close()
