"""What is known of checkpoints as plain data: ranks, why each stays, orders, words. No terminal."""

import math
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len

from qig_core.rundir.schema import CheckpointManifest, Event, FileEntry, Manifest, SessionRecord
from qig_tui.checkpoints.columns import COLUMNS, Order, fitting, next_key, written
from qig_tui.checkpoints.desk import Desk, checked_of
from qig_tui.checkpoints.diff import by_change, diff_text
from qig_tui.checkpoints.facts import sections
from qig_tui.checkpoints.plan import plan_of, plan_text
from qig_tui.checkpoints.rows import Checked, dry_run, rows_of, rule_of, rule_words
from qig_tui.columns import GAP
from qig_tui.picture import RunPicture
from qig_tui.sources.checkpoints import CheckpointEntry

NOW = 1_700_000_000.0
HOSTILE = "\x1b[31m[bold]" + "x" * 10_000 + "‮\ud800"


def entry(step, *, loss=1.0, tags=(), problem="", **facts):
    known = {"reason": "interval", "metrics": {"phi": 0.7, "loss_heldout": loss}} | facts
    manifest = CheckpointManifest(
        name=f"step-{step:08d}",
        run="r1",
        session="s",
        step=step,
        t=NOW + step,
        files=[FileEntry("model.bin", 1000, "ab" * 32)],
        fingerprint="f" * 64,
        **known,
    )
    return CheckpointEntry(name=manifest.name, manifest=manifest, t=manifest.t, tags=tuple(tags), problem=problem)


def picture_of(*entries, keep=None, events=(), **manifest):
    picture = RunPicture(Manifest(id="r1", keep={} if keep is None else keep, **manifest))
    picture.checkpoints = sorted(entries, key=lambda e: -e.t)
    picture.journal.add(events)
    return picture


def rows(picture, checked=None):
    return {row.entry.step: row for row in rows_of(picture, "r1", checked or {})}


def test_the_best_is_the_best_by_the_rule_that_the_run_records():
    shelf = [entry(step, metrics={"loss_heldout": 1.0, "accuracy": value}) for step, value in ((1, 0.9), (2, 0.2))]
    keep = {"newest": 1, "best": 1, "score": "accuracy", "lower_is_better": False}
    assert rows(picture_of(*shelf, keep=keep))[1].tags == ("best",)
    assert rows(picture_of(*shelf, keep=keep | {"lower_is_better": True}))[2].tags == ("best", "latest", "last-good")
    assert rows(picture_of(*shelf, keep=keep))[1].score == 0.9


def test_what_is_damaged_has_no_rank_wherever_that_was_found_out():
    shelf = [entry(1, loss=2.0), entry(2, loss=1.0), entry(3, loss=0.5, problem="TORN: model.bin is missing")]
    found = rows(picture_of(*shelf), {"step-00000002": Checked(status="HASH-MISMATCH", t=NOW, problems=("a byte",))})
    assert found[1].tags == ("best", "latest", "last-good")
    assert [(found[step].status, found[step].glyph) for step in (1, 2, 3)] == [
        ("COMPLETE", "○"),
        ("HASH-MISMATCH", "✖"),
        ("TORN", "✖"),
    ]
    assert found[2].problem == "HASH-MISMATCH: a byte"
    assert rows(picture_of(shelf[0]), {"step-00000001": Checked(status="COMPLETE", t=NOW)})[1].glyph == "✓"


def test_a_checkpoint_on_a_branch_that_was_left_is_never_last_good():
    back = Event(1, NOW + 5, "restored", step=1, data={"checkpoint": "step-00000001", "how": "restore"})
    found = rows(picture_of(entry(1), entry(2), events=[back]))
    assert "last-good" in found[1].tags
    assert "latest" in found[2].tags
    assert found[2].left == "before going back to 1"
    assert found[1].left == ""


def test_why_each_stays_is_the_core_s_rule_over_what_is_seen():
    shelf = [
        entry(1, loss=0.1),
        entry(2, tags=("pinned",)),
        entry(3, reason="emergency"),
        entry(4),
        entry(5, problem="TORN: x"),
        replace(entry(6), tags_known=False),
        entry(7),
        entry(8),
        entry(9),
    ]
    session = SessionRecord(id="s", t=NOW, pid=1, host="h", resumed_from="step-00000007")
    picture = picture_of(*shelf, keep={"newest": 1, "best": 1}, sessions=[session])
    found = rows(picture, {"step-00000008": Checked(status="COMPLETE", t=NOW)})
    assert {step: row.why for step, row in found.items()} == {
        1: ("best",),
        2: ("pinned",),
        3: ("emergency",),
        4: (),
        5: ("not whole; never pruned",),
        6: ("its tags cannot be read",),
        7: ("gone on from",),
        8: ("last verified",),
        9: ("newest",),
    }


def test_a_run_without_a_rule_and_one_with_a_broken_one_say_so():
    assert not rule_of(Manifest(id="r1")).recorded
    assert "no rule recorded, none goes by itself" in rule_words(picture_of())
    broken = picture_of(keep={"newest": -3, "score": HOSTILE})
    assert "cannot be used" in rule_words(broken)
    assert "\x1b" not in rule_words(broken)
    assert rule_words(picture_of(keep={"newest": 2, "best": 1})) == "kept: newest 2, best 1 by held-out loss"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("key", [column.key for column in COLUMNS])
def test_in_every_order_what_lacks_the_value_stands_last(key, turned):
    odd = CheckpointEntry(name="strange", manifest=None, t=NOW, problem="UNREADABLE manifest")
    nan = entry(4, metrics={"phi": None, "loss_heldout": None}, nonfinite={"phi": "nan", "loss_heldout": "nan"})
    shelf = [odd, nan, entry(1, loss=3.0, tags=("a",)), entry(2, loss=1.0, tags=("b",), reason="best"), entry(3)]
    found = rows_of(picture_of(*shelf), "r1", {"step-00000001": Checked(status="COMPLETE", t=NOW)})
    ordered = Order(key, turned).sort(found)
    assert sorted(row.name for row in ordered) == sorted(row.name for row in found)
    column = next(column for column in COLUMNS if column.key == key)
    values = [column.value(row) for row in ordered]
    known = [value for value in values if value is not None and value == value]
    assert known == sorted(known, reverse=Order(key, turned).falling)
    assert all(value is not None and value == value for value in values[: len(known)])


def test_by_a_score_of_which_more_is_better_the_best_stands_first():
    found = rows_of(picture_of(entry(1, loss=1.0), entry(2, loss=2.0)), "r1", {})
    assert [row.entry.step for row in Order.of("score").sort(found)] == [1, 2]
    assert [row.entry.step for row in Order.of("score", higher_is_better=True).sort(found)] == [2, 1]
    assert Order.of("-nothing") == Order()
    assert str(Order.of("-score")) == "-score"


def test_the_columns_fit_every_width_and_the_step_and_the_status_stay():
    for width in range(1, 240):
        shown = fitting(width)
        assert sum(cells for _, cells in shown) + GAP * (len(shown) - 1) <= width
        if width >= 30:
            assert {"step", "status"} <= {column.key for column, _ in shown}
    assert len(fitting(200)) == len(COLUMNS)
    order = Order()
    seen = []
    for _ in range(len(COLUMNS) + 1):
        seen.append(order.key)
        order = Order(next_key(order, fitting(200)))
    assert len(set(seen)) == len(COLUMNS) + 1
    assert order == Order()


@pytest.mark.parametrize("size", [12, 60, 160])
def test_nothing_that_a_file_says_leaves_its_cell_or_commands_the_terminal(size):
    wild = entry(
        10**30,
        tags=(HOSTILE, "pinned"),
        reason=HOSTILE,
        metrics={"phi": 1e308, "loss_heldout": None, HOSTILE: 1.0},
        nonfinite={"loss_heldout": HOSTILE},
        regime=HOSTILE,
        conditions={HOSTILE: HOSTILE},
        data_position={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        basin="no base64",
        parent=HOSTILE,
        training_s=math.inf,
    )
    wild.manifest.files.append(FileEntry(HOSTILE, 10**40, HOSTILE))
    picture = picture_of(replace(wild, t=1e308))
    found = rows_of(picture, "r1", {wild.name: Checked(status="COMPLETE", t=NOW, nonfinite=(HOSTILE,))})
    for row in found:
        for column in COLUMNS:
            _, text = column.cell(row, NOW, size)
            assert "\x1b" not in text
            assert "\ud800" not in text
            assert column.key in ("status", "written", "verified", "size") or cell_len(text) <= size
        for section in sections(row, picture, NOW):
            for fact in section.facts:
                assert "\x1b" not in fact.key + fact.value
                assert cell_len(fact.value) <= 500


def test_a_time_of_another_day_is_told_with_its_day():
    assert written(NOW, NOW + 5) == time.strftime("%H:%M:%S", time.localtime(NOW))
    assert written(NOW, NOW + 2e5).startswith(time.strftime("%Y-%m-%d", time.localtime(NOW)))


def test_a_dry_run_says_what_was_looked_at_and_nothing_else():
    whole = Checked(status="COMPLETE", t=NOW, nonfinite=(), tensors=3, beside="step-2")
    assert dry_run(entry(1), whole) == [
        ("✓", "opened 1 file"),
        ("✓", "digests of 1.0 KiB"),
        ("✓", "every number finite"),
        ("✓", "shapes of 3 tensors as in step-2"),
    ]
    assert [words for _, words in dry_run(entry(1), Checked(status="COMPLETE", t=NOW))] == [
        "opened 1 file",
        "digests of 1.0 KiB",
    ]
    odd = replace(whole, nonfinite=("model:a", "model:b"), differing=("model:w is F32 [2], there F32 [3]",))
    assert [glyph for glyph, _ in dry_run(entry(1), odd)] == ["✓", "✓", "▲", "▲"]
    torn = Checked(status="TORN", t=NOW, problems=("model.bin is missing",))
    assert dry_run(entry(1), torn) == [("✖", "not opened: TORN: model.bin is missing")]
    flipped = Checked(status="HASH-MISMATCH", t=NOW, problems=("a byte has changed",))
    assert [glyph for glyph, _ in dry_run(entry(1), flipped)] == ["✓", "✖"]


@pytest.mark.parametrize("row", [None, 3, {}, {"name": 3, "status": "COMPLETE"}, {"name": "a"}])
def test_what_is_no_row_of_a_verification_is_passed_over(row):
    assert checked_of(row) is None


def test_a_checkpoint_that_is_told_of_before_the_end_is_known_at_once(tmp_path):
    desk, picture = Desk(tmp_path), picture_of(entry(1), entry(2))
    picture._listed = picture.checkpoints
    row = {"name": "step-00000002", "status": "TORN", "problems": ["model.bin is missing"], "nonfinite": []}
    desk._take({"checked": row}, picture)
    assert desk.checked["step-00000002"].problem == "TORN: model.bin is missing"
    assert [one.problem for one in picture.checkpoints] == ["TORN: model.bin is missing", ""]
    desk._take({"progress": {"number": 1, "of": 2, "done": 5, "total": 10, "name": HOSTILE}}, picture)
    assert desk.progress.words.startswith("verifying 1 of 2 · 50 % of 10 B · ")


def test_of_two_marks_the_first_is_let_go_for_a_third(tmp_path):
    desk = Desk(tmp_path)
    for name in ("a", "b", "c", "b"):
        desk.mark(name)
    assert desk.marked == ["c"]
    desk.keep_only(["a"])
    assert desk.marked == []


def test_a_plan_gives_up_nothing_that_is_known_to_be_damaged_or_has_no_word_for_it():
    answer = {
        "rule": {"newest": 2, "best": 1, "score": "loss_heldout"},
        "plan": [
            {"name": "a", "step": 3, "size": 10, "kept": True, "reasons": ["newest"]},
            {"name": "b", "step": 2, "size": 20, "kept": False, "reasons": []},
            {"name": "c", "step": 1, "size": 30, "kept": False, "reasons": []},
            {"name": "d", "step": None, "size": -1, "reasons": []},
            "nonsense",
        ],
    }
    found = plan_of(answer, {"c": "HASH-MISMATCH"})
    assert [row.name for row in found.going] == ["b"]
    assert found.freed == 20
    assert {row.name: row.reasons for row in found.staying} == {
        "a": ("newest",),
        "c": ("found HASH-MISMATCH; never pruned",),
        "d": ("no reason was given",),
    }
    shown = plan_text(found, 90).plain
    assert "✖ 1 checkpoint would be deleted, 20 B freed" in shown
    assert "found HASH-MISMATCH; never pruned" in shown
    assert plan_of(None, {}) is None
    assert plan_of({"plan": 3}, {}) is None


def test_a_difference_is_sorted_by_change_and_whatever_stands_in_it_is_harmless():
    tensors = [
        {"name": "small", "relative_change": 1e-6, "differing": 1, "elements": 4},
        {"name": "none", "relative_change": None, "differing": 3, "elements": 4, "reason": "8-bit, counted"},
        {"name": "large", "relative_change": 0.5, "differing": 4, "elements": 4, "norm_a": 1.0, "norm_b": 10**400},
    ]
    assert [row["name"] for row in by_change(tensors)] == ["large", "small", "none"]
    result = {
        "a": HOSTILE,
        "b": "r1@b",
        "tensors": {"changed": [*tensors, {"name": HOSTILE}], "equal": 2, "only_a": [{"name": HOSTILE}]},
        "basin": {"distance_rad": 0.25},
        "metrics": [{"name": HOSTILE, "a": 1e308, "b": None, "difference": None, "nonfinite": {"b": "nan"}}],
        "conditions": [{"id": "drift", "a": "ok", "b": HOSTILE}],
        "facts": [{"name": "t", "a": 1e300, "b": NOW}],
        "state": {"equal": False, "differing": 1, "paths": [{"path": "epoch", "a": "1", "b": "2"}]},
    }
    for width in (60, 70, 120):
        shown = diff_text(result, width, NOW).plain
        assert "0.250 rad apart (Fisher–Rao)" in shown
        assert "differs at 1 path\n" in shown
        assert "\x1b" not in shown
        assert "\ud800" not in shown
        assert shown.index("large") < shown.index("small") < shown.index("none")
        assert max(cell_len(line) for line in shown.splitlines() if not line.startswith(("A ", "B "))) <= max(width, 60)
    assert diff_text({}, 60, NOW).plain.startswith("A")
