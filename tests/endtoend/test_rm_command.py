"""qig-core rm: what it deletes, what it refuses, and what an interruption leaves."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qig_core.checkpoints.store import publish
from qig_core.commands.removal import look, look_at_all, remove
from qig_core.errors import RecordWriteError, Refused, RunFormatError, RunLocked, RunNotFound
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.lock import RunLock, lock_holder
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest, Parent
from qig_core.rundir.writer import RunWriter
from tests.endtoend.commands import core


def make(root: Path, run_id: str, name: str = "", parent: str | None = None) -> RunDir:
    manifest = Manifest(id=run_id, name=name, parent=Parent(parent) if parent else None)
    with RunWriter.create(root, manifest) as writer:
        writer.telemetry.log(0, {"loss": 1.0})
    return writer.run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> RunDir:
    """A run of two checkpoints, one of them pinned, that came to its end."""
    run = make(root, "a-run", "mine")
    for step, tags in ((3, ["pinned"]), (5, [])):
        publish(run, session="5e55", step=step, reason="interval", files={"a.bin": b"a" * 4000}, tags=tags)
    return run


def on_a_terminal(answer: str, *arguments: str | Path) -> tuple[int, str]:
    """The exit code and the output of qig-core on a terminal where somebody types an answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "qig_core.cli", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
    ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        parts = []
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    return process.returncode, b"".join(parts).decode()


def test_a_run_goes_with_everything_in_it_and_its_neighbours_stay(run: RunDir, root: Path) -> None:
    make(root, "b-run")
    reports = list(remove(look("a-run", root)))
    assert os.listdir(root) == ["b-run"]
    assert reports[-1]["result"]["id"] == "a-run"
    assert reports[-1]["result"]["size"] > 8000
    names = [one["progress"]["name"] for one in reports[:-1]]
    assert "checkpoints" in names
    assert "lock" not in names, "it goes last"


def test_it_is_refused_without_a_terminal_and_without_yes(run: RunDir, root: Path) -> None:
    done = core("rm", "mine", "--runs", root)
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    assert run.exists()
    done = core("rm", "mine", "--runs", root, "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("a-run is deleted\n")
    assert os.listdir(root) == []


def test_it_asks_on_a_terminal_and_shows_what_goes(run: RunDir, root: Path) -> None:
    code, shown = on_a_terminal("n\n", "rm", run.path)
    assert code == 1
    assert f"a-run 'mine' at {str(run.path)!r}: " in shown
    assert "checkpoints 2, pinned 1" in shown
    assert "Delete for good? [y/N]" in shown
    assert "nothing was deleted" in shown
    assert run.exists()
    code, shown = on_a_terminal("y\n", "rm", run.path)
    assert code == 0
    assert os.listdir(root) == []


def test_json_is_progress_and_a_result_for_each_run(run: RunDir, root: Path) -> None:
    other = make(root, "b-run")
    done = core("rm", run.path, "b-run", other.path, "--runs", root, "--yes", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["result"]["id"] for one in lines if "result" in one] == ["a-run", "b-run"]
    assert all(set(one["progress"]) == {"id", "name", "number", "of"} for one in lines if "progress" in one)
    assert os.listdir(root) == []


def test_if_one_of_several_cannot_go_none_goes(run: RunDir, root: Path) -> None:
    done = core("rm", "a-run", "absent", "--runs", root, "--yes")
    assert done.returncode == 2
    assert run.exists()
    with pytest.raises(RunNotFound):
        look_at_all(["a-run", "absent"], root)


def test_a_live_run_is_refused_by_its_lock(run: RunDir, root: Path, live: "subprocess.Popen[str]") -> None:
    done = core("rm", "a-run", "--runs", root, "--yes")
    assert done.returncode == 73
    assert f"is being written by process {live.pid}" in done.stderr
    assert run.exists()


def test_a_run_that_comes_to_life_after_the_look_is_refused(run: RunDir, root: Path) -> None:
    doomed = look("a-run", root)
    with RunWriter.reopen(run), pytest.raises(RunLocked):
        list(remove(doomed))
    assert run.exists()


def test_a_living_trainer_whose_lock_was_deleted_is_refused(
    run: RunDir, root: Path, live: "subprocess.Popen[str]"
) -> None:
    run.lock.unlink()
    with pytest.raises(RunLocked, match=f"written by process {live.pid}"):
        look("a-run", root)


def test_another_run_in_its_place_is_left_alone(run: RunDir, root: Path) -> None:
    doomed = look("a-run", root)
    run.path.rename(root / "moved")
    make(root, "a-run")
    with pytest.raises(Refused, match="is another directory than a moment ago"):
        list(remove(doomed))
    assert sorted(os.listdir(root)) == ["a-run", "moved"]


def test_a_link_is_refused_by_whatever_it_is_named(run: RunDir, root: Path, tmp_path: Path) -> None:
    link = root / "link"
    link.symlink_to(run.path)
    run.path.rename(tmp_path / "elsewhere")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    for text in ("link", str(link), f"{link}/", "mine", "latest"):
        with pytest.raises(Refused, match=r"is a link; name the run itself: '.*elsewhere'"):
            look(text, root)
    assert (tmp_path / "elsewhere" / "run.json").exists()


def test_what_links_in_it_lead_to_stays(run: RunDir, root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (tmp_path / "lock").write_text("y")
    run.artifacts.rmdir()
    run.artifacts.symlink_to(kept)
    (run.checkpoints / "step-00000009-0123ab").symlink_to(kept)
    run.lock.unlink()
    run.lock.symlink_to(tmp_path / "lock")
    doomed = look("a-run", root)
    assert doomed.linked == ("artifacts", "lock")
    assert any("what they lead to stays: artifacts, lock" in sentence for sentence in doomed.sentences())
    list(remove(doomed))
    assert os.listdir(root) == []
    assert (kept / "file").read_text() == "x"
    assert (tmp_path / "lock").read_text() == "y"


def test_somebody_elses_run_is_refused(run: RunDir, root: Path) -> None:
    with pytest.raises(Refused, match=f"belongs to user {os.getuid()}, not to you"):
        look("a-run", root, uid=os.getuid() + 1)
    doomed = look("a-run", root)
    run.path.rename(doomed.marked)
    for step in (lambda: look("a-run", root, uid=os.getuid() + 1), lambda: list(remove(doomed, uid=os.getuid() + 1))):
        with pytest.raises(Refused, match="not to you"):
            step()
    assert (doomed.marked / "run.json").exists()


def test_what_is_no_run_is_never_deleted(run: RunDir, root: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "run.json").write_text('{"something": "else"}')
    (root / "file").write_text("x")
    for text in (tmp_path / "folder", root / "file", tmp_path / "absent", root):
        with pytest.raises(RunNotFound):
            look(str(text), root)
    for text in ("", "..", ".", "file"):
        with pytest.raises(RunNotFound):
            look(text, root)
    with pytest.raises(RunFormatError):
        look(str(tmp_path / "project"), root)


def test_a_run_whose_manifest_is_garbage_can_go_and_one_of_a_newer_format_not(run: RunDir, root: Path) -> None:
    run.manifest.write_text('{"format": 2, "identity": "a-run"}')
    with pytest.raises(RunFormatError, match="has format 2"):
        look("a-run", root)
    run.manifest.write_text("garbage")
    shutil.rmtree(run.checkpoints)
    run.checkpoints.write_text("garbage")
    list(remove(look("a-run", root)))
    assert os.listdir(root) == []


def test_forks_are_named_before_it_is_asked(run: RunDir, root: Path) -> None:
    make(root, "child", parent="a-run")
    make(root, "grandchild", parent="child")
    (RunDir(make(root, "broken").path).manifest).write_text("garbage")
    doomed = look("a-run", root)
    assert doomed.forks == ("child",)
    assert "forked from it: child; they stay" in doomed.sentences()[1]
    assert "forked from it: child" in core("rm", "a-run", "--runs", root, "--yes").stderr
    assert [one.id for one in list_runs(root)] == ["broken", "child", "grandchild"]


def test_what_was_interrupted_is_no_run_and_the_same_command_finishes_it(run: RunDir, root: Path) -> None:
    steps = remove(look("a-run", root))
    next(steps)
    next(steps)
    assert lock_holder(root / ".del-a-run" / "lock") == os.getpid()
    steps.close()  # type: ignore[attr-defined]  # a generator: as Ctrl-C would end it
    assert os.listdir(root) == [".del-a-run"]
    assert list(list_runs(root)) == []
    (sentence,) = look("a-run", root).sentences()
    assert sentence.startswith("a-run: the rest of a removal that was interrupted, ")
    done = core("rm", "a-run", "--runs", root, "--yes")
    assert (done.returncode, os.listdir(root)) == (0, [])


@pytest.mark.parametrize("text", ["a-run", ".del-a-run", "./a-run", "./.del-a-run"])
def test_the_rest_is_named_by_its_id_or_by_its_path(
    run: RunDir, root: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.path.rename(root / ".del-a-run")
    monkeypatch.chdir(root)
    list(remove(look(text, root)))
    assert os.listdir(root) == []


def test_the_rest_of_an_older_run_of_this_id_goes_first(run: RunDir, root: Path) -> None:
    run.path.rename(root / ".del-a-run")
    make(root, "a-run")
    doomed = look("a-run", root)
    assert len(doomed.sentences()) == 2
    list(remove(doomed))
    assert os.listdir(root) == []


def test_two_removals_do_not_meet_in_what_is_left(run: RunDir, root: Path) -> None:
    run.path.rename(root / ".del-a-run")
    lock = RunLock(root / ".del-a-run" / "lock")
    with pytest.raises(RunLocked):
        look("a-run", root)
    lock.release()
    list(remove(look("a-run", root)))
    assert os.listdir(root) == []


def test_a_link_in_place_of_what_is_left_is_refused(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "kept").mkdir()
    (root / ".del-a-run").symlink_to(tmp_path / "kept")
    with pytest.raises(Refused, match="is a link"):
        look("a-run", root)


def test_a_disk_that_refuses_is_told_and_what_is_left_can_go_later(
    run: RunDir, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    doomed = look("a-run", root)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuses)
        with pytest.raises(RecordWriteError, match=r"Input/output error .*the rest is in '.*\.del-a-run'") as caught:
            list(remove(doomed))
    assert caught.value.exit_code == 74
    assert lock_holder(root / ".del-a-run" / "lock") is None
    list(remove(look("a-run", root)))
    assert os.listdir(root) == []


def test_a_run_that_says_it_is_running_but_whose_trainer_died_can_go(run: RunDir, root: Path) -> None:
    manifest = read_manifest(run)
    manifest.state, manifest.sessions[-1].start_ticks = "running", 1
    write_document(run.manifest, encode_document(manifest))
    list(remove(look("a-run", root)))
    assert os.listdir(root) == []
