import json
import math
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Heartbeat
from qig_core.rundir.writer import RunWriter
from qig_tui.runs.filter import NO_RUN, UNREADABLE
from qig_tui.sources import runs as source
from qig_tui.sources.runs import RunShelf
from tests.tui.runs import log_steps, open_run, set_condition


def ended(root, run_id, code=0, steps=20, **manifest):
    """A run that has ended."""
    with open_run(root, run_id, **manifest) as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, steps)
        writer.close(code)
    return writer.run


def says(run, **changes):
    """Replace keys of run.json."""
    run.manifest.write_text(json.dumps(json.loads(run.manifest.read_bytes()) | changes))


def look(root):
    return {row.id: row for row in RunShelf(root).look()}


def test_a_run_is_told_in_a_few_facts(tmp_path):
    with open_run(tmp_path, "a", name="first") as writer:
        for name, state in [("x", "ok"), ("y", "warning"), ("z", "critical"), ("x", "critical"), ("z", "warning")]:
            set_condition(writer, state, id=name)
        log_steps(writer, 0, 300)
        row = look(tmp_path)["a"]
        assert (row.name, row.program, row.state, row.step, row.total) == ("first", "qig-core train", "live", 299, 1000)
        assert row.share == pytest.approx(0.299)
        assert row.metrics["kappa"] == 62.0
        assert row.trend[-1] == row.metrics["phi"]
        assert len(row.trend) > 12
        assert (row.worst, row.count) == ("critical", 1)
        assert (row.error, row.note) == (None, "")
        assert row.number("age", row.t + 5) == 5
        assert row.number("step", 0) == 299
        assert row.number("gone", 0) is None


def test_the_runs_come_the_highest_id_first(tmp_path):
    for run_id in "bca":
        ended(tmp_path, run_id)
    assert [row.id for row in RunShelf(tmp_path).look()] == ["c", "b", "a"]


def test_a_run_without_a_sample_says_so(tmp_path):
    ended(tmp_path, "a", steps=0)
    with open_run(tmp_path, "b"):
        rows = look(tmp_path)
        assert rows["a"].note == "no sample was recorded"
        assert rows["b"].note == "no sample yet"
        assert rows["b"].step is None
        assert rows["b"].worst == "none"


def test_a_torn_last_line_is_told_of_a_run_that_has_ended(tmp_path):
    run = ended(tmp_path, "a")
    with open(run.telemetry(), "ab") as file:
        file.write(b'{"seq":20,"st')
    row = look(tmp_path)["a"]
    assert row.note == "telemetry.jsonl: its last line is torn"
    assert row.step == 19
    with open_run(tmp_path, "b") as writer, open(writer.run.telemetry(), "ab") as file:
        log_steps(writer, 0, 3)
        file.write(b"{")
        file.flush()
        assert look(tmp_path)["b"].note == ""


def test_lines_that_cannot_be_read_are_counted(tmp_path):
    run = ended(tmp_path, "a")
    with open(run.telemetry(), "ab") as file:
        file.write(b"nonsense\n\xff\xfe\n")
    row = look(tmp_path)["a"]
    assert row.note == "telemetry.jsonl: 2 of its last 22 lines cannot be read"
    assert row.step == 19


def test_values_that_are_no_numbers_keep_their_kind(tmp_path):
    with open_run(tmp_path, "a") as writer:
        writer.telemetry.log(0, {"phi": math.nan, "loss": -math.inf, "kappa": 1.0})
    with open(writer.run.telemetry(), "ab") as file:
        file.write(b'{"seq":1,"step":1,"t":1.0,"m":{"kappa":null}}\n')
    row = look(tmp_path)["a"]
    assert math.isnan(row.metrics["phi"])
    assert math.isnan(row.trend[-1])
    assert row.metrics["loss"] == -math.inf
    assert math.isnan(row.metrics["kappa"])


def test_a_metric_that_is_measured_seldom_is_found_further_back(tmp_path):
    with open_run(tmp_path, "a") as writer:
        writer.telemetry.log(0, {"phi": 0.5, "kappa": 1.0, "drift_rolling": 0.1})
        step = 1
        while writer.run.telemetry().stat().st_size < 2 * source.SAMPLES_BYTES:
            writer.telemetry.log(step, {"loss": 1.0})
            step += 1
    row = look(tmp_path)["a"]
    assert row.metrics["phi"] == 0.5
    assert row.step == step - 1


def test_a_line_longer_than_the_end_that_is_read_is_a_line(tmp_path):
    with open_run(tmp_path, "a") as writer:
        log_steps(writer, 0, 5)
        writer.telemetry.log(5, {"x" * (2 * source.SAMPLES_BYTES): 1.0, "phi": 0.25})
    row = look(tmp_path)["a"]
    assert row.step == 5
    assert row.metrics["phi"] == 0.25


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("newer", "'run.json' has format 2; this program reads 1: upgrade qig-tui"),
        ("not json", "'run.json' is not a readable manifest"),
        ("fifo", "'run.json' cannot be read: not a regular file"),
        ("loop", "run.json cannot be read: Too many levels"),
        ("telemetry fifo", "'telemetry.jsonl' cannot be read: not a regular file"),
        ("events folder", "'events.jsonl' cannot be read: not a regular file"),
    ],
)
def test_what_cannot_be_read_is_shown_with_the_reason(tmp_path, what, reason):
    run = ended(tmp_path, "a")
    if what == "newer":
        says(run, format=2)
    elif what == "not json":
        run.manifest.write_text("hello")
    elif what == "fifo":
        run.manifest.unlink()
        os.mkfifo(run.manifest)
    elif what == "loop":
        run.manifest.unlink()
        os.symlink("run.json", run.manifest)
    elif what == "telemetry fifo":
        run.telemetry().unlink()
        os.mkfifo(run.telemetry())
    else:
        run.events.unlink()
        run.events.mkdir()
    row = look(tmp_path)["a"]
    assert row.state == UNREADABLE
    assert row.error is not None
    assert reason in row.error
    assert (row.liveness, row.step, row.metrics) == (None, None, {})


def test_only_what_looks_like_a_run_is_listed(tmp_path):
    ended(tmp_path, "a")
    lost = ended(tmp_path, "lost")
    lost.manifest.unlink()
    (tmp_path / "plain").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "run.json").write_text("{}")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    os.symlink("nowhere", tmp_path / "broken")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("a", tmp_path / "linked")
    rows = look(tmp_path)
    assert sorted(rows) == ["a", "linked", "loop", "lost"]
    assert rows["lost"].state == NO_RUN
    assert "there is no run.json beside telemetry.jsonl" in rows["lost"].error
    assert rows["loop"].state == UNREADABLE
    assert rows["linked"].state == "exited"


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, monkeypatch):
    run = ended(tmp_path, "a")
    ended(tmp_path, "b")
    os.chmod(tmp_path, 0o755)
    os.chmod(run.path, 0)
    # Nobody is kept out of what root may enter, and the folders above are this user's own.
    monkeypatch.chdir(tmp_path)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        rows = look(Path("."))
    finally:
        os.seteuid(me)
        os.chmod(run.path, 0o755)
    assert rows["a"].error == "run.json cannot be read: Permission denied"
    assert rows["b"].state == "exited"


def test_a_plain_folder_that_becomes_a_run_is_one(tmp_path):
    (tmp_path / "a").mkdir()
    shelf = RunShelf(tmp_path)
    assert shelf.look() == []
    (tmp_path / "a" / "checkpoints").mkdir()
    assert [row.state for row in shelf.look()] == [NO_RUN]
    shutil.rmtree(tmp_path / "a")
    ended(tmp_path, "a")
    assert [row.state for row in shelf.look()] == ["exited"]


def test_what_changed_is_read_again_and_what_did_not_is_the_same_row(tmp_path):
    ended(tmp_path, "a")
    with open_run(tmp_path, "b") as writer:
        log_steps(writer, 0, 3)
        shelf = RunShelf(tmp_path)
        b, a = shelf.look()
        assert b.step == 2
        log_steps(writer, 3, 5)
        set_condition(writer, "critical")
        b, same = shelf.look()
        assert same is a
        assert (b.step, b.worst) == (4, "critical")
    b, _ = shelf.look()
    assert b.state == "exited"


def test_a_run_that_is_resumed_lives_again(tmp_path):
    run = ended(tmp_path, "a")
    shelf = RunShelf(tmp_path)
    assert shelf.look()[0].state == "exited"
    with RunWriter.reopen(run):
        assert shelf.look()[0].state == "live"


def test_a_process_that_is_gone_is_told(tmp_path):
    run = ended(tmp_path, "a")
    says(run, state="running", exit_code=None)
    manifest = read_manifest(run)
    manifest.sessions[-1].start_ticks = 1
    run.manifest.write_bytes(msgspec.json.encode(manifest))
    row = look(tmp_path)["a"]
    assert row.state == "killed"


def test_of_many_runs_that_rest_each_is_looked_at_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_FEW", 3)
    for i in range(6):
        ended(tmp_path, f"r{i}", steps=2)
    shelf = RunShelf(tmp_path)
    shelf.look()
    for i in range(6):
        says(shelf._known[f"r{i}"].run, name="renamed")
    renamed = [sum(row.name == "renamed" for row in shelf.look()) for _ in range(source._TURNS)]
    assert renamed[0] < 6
    assert renamed[-1] == 6


def test_a_run_of_another_host_that_is_long_silent_rests(tmp_path, monkeypatch):
    run = ended(tmp_path, "a")
    says(run, state="running", exit_code=None)
    manifest = read_manifest(run)
    manifest.sessions[-1].host = "elsewhere"
    run.manifest.write_bytes(msgspec.json.encode(manifest))
    run.heartbeat.write_bytes(
        msgspec.json.encode(Heartbeat(session=manifest.sessions[-1].id, beat=1, t=time.time(), pid=1, doing="step"))
    )
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    shelf = RunShelf(tmp_path)
    shelf.look()
    assert not shelf._known["a"].rests
    clock += 100
    assert shelf.look()[0].state == "silent"
    assert shelf._known["a"].rests


def test_a_folder_that_vanishes_is_a_problem_until_it_is_back(tmp_path):
    root = tmp_path / "runs"
    shelf = RunShelf(root)
    assert shelf.look() == []
    assert shelf.problem == "does not exist"
    ended(root, "a")
    rows = shelf.look()
    assert shelf.problem is None
    os.rename(root, tmp_path / "elsewhere")
    assert shelf.look() == []
    assert shelf.problem == "does not exist"
    os.rename(tmp_path / "elsewhere", root)
    assert shelf.look()[0] is rows[0]


def test_a_root_that_is_a_loop_cannot_be_read(tmp_path):
    os.symlink("loop", tmp_path / "loop")
    shelf = RunShelf(tmp_path / "loop")
    assert shelf.look() == []
    assert "cannot be read: Too many levels" in shelf.problem


def test_a_first_look_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_REPORT_S", 0.0)
    for run_id in "abc":
        ended(tmp_path, run_id, steps=1)
    told = []
    shelf = RunShelf(tmp_path)
    shelf.look(lambda rows, count, of: told.append((len(rows), count, of)))
    assert told == [(1, 1, 3), (2, 2, 3), (3, 3, 3)]
    shelf.look(lambda rows, count, of: told.append((len(rows), count, of)))
    assert len(told) == 3


def test_numbers_of_a_foreign_writer_are_only_numbers(tmp_path):
    run = ended(tmp_path, "a")
    with open(run.telemetry(), "ab") as file:
        file.write(b'{"seq":99,"step":-5,"t":-1e300,"m":{"phi":1e308,"kappa":-1e308},"regime":"x"}\n')
    says(run, total_steps=-3, created_t=1e308)
    row = look(tmp_path)["a"]
    assert row.step == -5
    assert row.number("age", 0.0) == 1e300
    assert row.share == 1.0
