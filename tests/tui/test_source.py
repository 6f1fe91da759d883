import os
import threading

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Word
from qig_tui.picture import RunPicture
from qig_tui.sources.checkpoints import CheckpointEntry, CheckpointShelf, in_sight, rest_of
from qig_tui.sources.local import Backfill, LocalSource, Update, follow, read_run
from qig_tui.sources.local import open_run as open_run_directory
from tests.tui.runs import add_checkpoint, log_steps, open_run


def read(source):
    picture = RunPicture(source.manifest)
    picture.apply(source.look())
    return picture


def test_the_tail_comes_first_and_the_backfill_completes_it(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 500)
        source = LocalSource(writer.run, tail_bytes=4096)
        picture = read(source)
        assert 0 < picture.history.read < 100
        assert picture.history.reference[0] == 0
        shares = []
        older = source.backfill(shares.append, threading.Event())
        picture.history.prepend(older)
        assert picture.history.series("phi").step.tolist() == list(range(500))
        assert (picture.history.read, picture.history.late) == (500, 0)
        assert shares[-1] == 1.0
        source.close()


def test_what_is_appended_is_found_by_the_next_look(tmp_path):
    with open_run(tmp_path) as writer:
        source = LocalSource(writer.run)
        picture = read(source)
        assert picture.history.step is None
        log_steps(writer, 0, 3)
        picture.apply(source.look())
        assert picture.history.step == 2
        assert picture.liveness.word == Word.LIVE
        source.close()


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_run_saves_is_listed_with_the_word_of_it_and_with_its_end(tmp_path, ends):
    writer = open_run(tmp_path)
    source = LocalSource(writer.run)
    picture = read(source)
    assert not picture.checkpoints
    name = add_checkpoint(writer, 4)
    if ends:
        # As if the word of it could not be written.
        writer.run.events.write_bytes(b"")
        writer.close(76)
    picture.apply(source.look())
    assert picture.ended == ends
    assert [entry.name for entry in picture.checkpoints] == [name]
    source.close()
    writer.close(76)


def test_a_torn_line_waits_and_is_said_to(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 3)
        source = LocalSource(writer.run)
        with open(writer.run.telemetry(), "ab") as file:
            file.write(b'{"seq":3,"step":3,"t":1')
            file.flush()
            picture = read(source)
            assert (picture.history.read, picture.history.bad, picture.waiting_bytes) == (3, 0, 23)
            file.write(b'.0,"m":{"phi":0.5}}\n{"seq": oops}\n')
            file.flush()
        picture.apply(source.look())
        assert (picture.history.read, picture.history.bad, picture.waiting_bytes) == (4, 1, 0)
        source.close()


def test_a_replaced_file_starts_the_picture_again(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 50)
        source = LocalSource(writer.run)
        picture = read(source)
        other = writer.run.path / "other"
        other.write_bytes(b'{"seq":0,"step":7,"t":1.0,"m":{"phi":0.5}}\n')
        os.replace(other, writer.run.telemetry())
        picture.apply(source.look())
        assert picture.history.series("phi").step.tolist() == [7]
        source.close()


def test_the_end_of_a_run_is_seen(tmp_path):
    writer = open_run(tmp_path)
    source = LocalSource(writer.run)
    picture = read(source)
    writer.close(75, "a limit")
    picture.apply(source.look())
    assert picture.liveness.word == Word.EXITED
    assert picture.manifest.exit_code == 75
    source.close()


def test_a_manifest_that_cannot_be_read_for_a_moment_is_a_problem_not_an_end(tmp_path):
    with open_run(tmp_path) as writer:
        source = LocalSource(writer.run)
        picture = read(source)
        kept = writer.run.manifest.read_bytes()
        writer.run.manifest.write_bytes(b"{")
        picture.apply(source.look())
        assert "run.json" in picture.problem
        writer.run.manifest.write_bytes(kept + b" ")
        picture.apply(source.look())
        assert picture.problem is None
        source.close()


def test_no_manifest_is_refused(tmp_path):
    with pytest.raises(RunFormatError):
        LocalSource(RunDir(tmp_path / "none"))


def test_checkpoints_are_listed_newest_first_and_only_when_they_change(tmp_path):
    with open_run(tmp_path) as writer:
        add_checkpoint(writer, 10)
        name = add_checkpoint(writer, 20)
        (writer.run.checkpoints / ".tmp-x").mkdir()
        torn = add_checkpoint(writer, 30, size=99)
        writer.run.checkpoint("empty").mkdir()
        os.utime(writer.run.checkpoint("empty"), (2e9, 2e9))
        shelf = CheckpointShelf(writer.run)
        entries = shelf.changed()
        assert [e.step for e in entries] == [None, 30, 20, 10]
        assert {e.name: e.problem.split(":")[0] for e in entries if e.problem} == {torn: "TORN", "empty": "TORN"}
        assert shelf.changed() is None
        writer.run.checkpoint_tags(name).write_text('{"tags": ["pinned"]}')
        assert next(e for e in shelf.changed() if e.name == name).tags == ("pinned",)


def damage(writer, name, t):
    """Cut a checkpoint's manifest short; its directory last changed at t."""
    writer.run.checkpoint_manifest(name).write_bytes(b'{"name"')
    os.utime(writer.run.checkpoint(name), (t, t))


def test_a_damaged_checkpoint_stands_where_the_core_lists_it(tmp_path):
    with open_run(tmp_path) as writer:
        names = [f"step-{step:08d}-abcdef" for step in (10, 20, 30)]
        for name in names:
            made = add_checkpoint(writer, int(name[5:13]))
            os.rename(writer.run.checkpoint(made), writer.run.checkpoint(name))
        found = {e.name: e.t for e in CheckpointShelf(writer.run).changed()}
        damage(writer, names[1], (found[names[1]] + found[names[2]]) / 2)
        (writer.run.checkpoints / "link").symlink_to(names[0])
        entries = CheckpointShelf(writer.run).changed()
        assert [e.name for e in entries] == names[::-1]
        assert [e.step for e in entries] == [30, 20, 10]
        assert entries[1].problem == "UNREADABLE manifest"
        damage(writer, names[1], 5.0)
        assert [e.name for e in CheckpointShelf(writer.run).changed()] == [names[2], names[0], names[1]]
        assert [one.name for one in list_checkpoints(writer.run)][-1] == names[1]


def entry(number, problem=""):
    return CheckpointEntry(name=f"c{number}", manifest=None, t=float(number), problem=problem)


def test_where_not_all_are_shown_the_damaged_ones_are():
    entries = [entry(n, "TORN" if n in (3, 1) else "") for n in range(9, -1, -1)]
    shown = in_sight(entries, 4)
    assert [e.name for e in shown] == ["c9", "c8", "c3", "c1"]
    assert rest_of(entries, shown) == "and 6 more, none of them damaged"
    shown = in_sight(entries, 2)
    assert [e.name for e in shown] == ["c9", "c3"]
    assert rest_of(entries, shown) == "and 8 more, 1 of them damaged"
    assert in_sight(entries, 20) == entries
    assert in_sight(entries, -1) == []


def test_checkpoints_that_vanish_or_cannot_be_listed_are_a_problem_and_not_none(tmp_path):
    with open_run(tmp_path) as writer:
        add_checkpoint(writer, 10)
        shelf = CheckpointShelf(writer.run)
        assert len(shelf.changed()) == 1
        kept = writer.run.path / "kept"
        os.rename(writer.run.checkpoints, kept)
        assert shelf.changed() == []
        assert shelf.problem == "checkpoints/ is gone"
        writer.run.checkpoints.write_text("a file")
        shelf.changed()
        assert shelf.problem == "checkpoints/ cannot be read: Not a directory"
        writer.run.checkpoints.unlink()
        os.rename(kept, writer.run.checkpoints)
        assert len(shelf.changed()) == 1
        assert shelf.problem is None


def test_a_run_that_never_had_checkpoints_has_none_and_no_problem(tmp_path):
    with open_run(tmp_path) as writer:
        writer.run.checkpoints.rmdir()
        shelf = CheckpointShelf(writer.run)
        assert shelf.changed() == []
        assert shelf.problem is None


@pytest.mark.parametrize("name", ["telemetry.jsonl", "events.jsonl"])
def test_a_run_whose_records_cannot_be_read_is_refused(tmp_path, name):
    with open_run(tmp_path) as writer:
        pass
    (writer.run.path / name).unlink(missing_ok=True)
    assert open_run_directory(writer.run).id == "run1"
    (writer.run.path / name).mkdir()
    with pytest.raises(RunFormatError, match=f"{name}' cannot be read"):
        LocalSource(writer.run)


@pytest.mark.parametrize("tail_bytes", [4096, 1 << 20])
def test_a_reader_posts_the_tail_then_the_rest_then_what_is_appended(tmp_path, tail_bytes):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 300)
        stop, found = threading.Event(), []
        picture = RunPicture(writer.manifest)

        def post(what):
            found.append(what)
            if isinstance(what, Backfill):
                picture.backfill(what)
                if what.share is None:
                    log_steps(writer, 300, 310)
            else:
                picture.apply(what)
                if picture.history.step == 309:
                    stop.set()

        thread = threading.Thread(target=read_run, args=(LocalSource(writer.run, tail_bytes=tail_bytes), post, stop))
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(found[0], Update)
        shares = [what.share for what in found if isinstance(what, Backfill)]
        assert shares == ([1.0, None] if tail_bytes == 4096 else [None])
        assert picture.backfilled is None
        assert picture.history.series("phi").step.tolist() == list(range(310))


def test_a_run_that_has_vanished_is_a_problem_and_comes_back(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 10)
        run, manifest = writer.run, writer.manifest
        source, picture = LocalSource(run), RunPicture(manifest)
    os.rename(run.path, tmp_path / "elsewhere")
    picture.apply(source.look())
    assert "is gone" in picture.problem
    os.rename(tmp_path / "elsewhere", run.path)
    picture.apply(source.look())
    assert picture.problem is None
    assert picture.history.step == 9
    source.close()


@pytest.mark.parametrize("network", [False, True])
def test_following_posts_what_is_written_until_it_is_stopped(tmp_path, monkeypatch, network):
    monkeypatch.setattr("qig_tui.sources.local.is_network", lambda path: network)
    with open_run(tmp_path) as writer:
        stop, arrived = threading.Event(), threading.Event()
        steps = []

        def post(update):
            steps.extend(s.step for s in update.samples)
            if steps and steps[-1] == 19:
                arrived.set()

        thread = threading.Thread(target=follow, args=(LocalSource(writer.run), post, stop))
        thread.start()
        log_steps(writer, 0, 10)
        log_steps(writer, 10, 20)
        assert arrived.wait(20)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        assert steps == list(range(20))


def test_a_directory_that_is_gone_says_so_and_its_heartbeat_too(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 10)
        source, picture = LocalSource(writer.run), RunPicture(writer.manifest)
        picture.apply(source.look())
        assert picture.problem is None
        os.rename(writer.run.path, tmp_path / "elsewhere")
        picture.apply(source.look())
        assert "is gone" in picture.problem
        assert picture.liveness.detail == "its heartbeat is gone"
        os.rename(tmp_path / "elsewhere", writer.run.path)
        source.close()
