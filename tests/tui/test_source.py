import os
import shutil
import threading

import pytest

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Word
from qig_tui.picture import RunPicture
from qig_tui.sources.checkpoints import CheckpointShelf
from qig_tui.sources.local import Backfill, LocalSource, Update, follow, read_run
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
        shelf = CheckpointShelf(writer.run)
        entries = shelf.changed()
        assert [e.step for e in entries] == [30, 20, 10, None]
        assert {e.name: e.problem.split(":")[0] for e in entries if e.problem} == {torn: "TORN", "empty": "TORN"}
        assert shelf.changed() is None
        writer.run.checkpoint_tags(name).write_text('{"tags": ["pinned"]}')
        assert next(e for e in shelf.changed() if e.name == name).tags == ("pinned",)


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

        thread = threading.Thread(target=read_run, args=(writer.run, post, stop), kwargs={"tail_bytes": tail_bytes})
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(found[0], Update)
        shares = [what.share for what in found if isinstance(what, Backfill)]
        assert shares == ([1.0, None] if tail_bytes == 4096 else [None])
        assert picture.backfilled is None
        assert picture.history.series("phi").step.tolist() == list(range(310))


def test_a_run_that_has_vanished_is_a_problem_and_ends_the_reader(tmp_path):
    with open_run(tmp_path) as writer:
        run, manifest = writer.run, writer.manifest
    shutil.rmtree(run.path)
    found = []
    read_run(run, found.append, threading.Event())
    picture = RunPicture(manifest)
    for update in found:
        picture.apply(update)
    assert "run.json" in picture.problem
    assert len(found) == 1


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
