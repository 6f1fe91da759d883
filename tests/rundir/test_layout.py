"""Where everything lies, and that no name leaves its folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.errors import RunNotFound, UsageError
from qig_core.rundir.atomic import fsync_directory, sweep_temporary, write_document
from qig_core.rundir.layout import RunDir, default_root, list_runs, new_run_id, resolve_run, split_selector
from qig_core.rundir.values import is_command_id, is_run_id

BAD_NAMES = ["..", ".", "", "../x", "a/b", "/etc", ".hidden", "-x", "_x", "a\n", "a\0", "ä", "a b", "a" * 101, "\udcff"]


def make(root: Path, run_id: str, **manifest: Any) -> RunDir:
    (root / run_id).mkdir(parents=True)
    (root / run_id / "run.json").write_text(json.dumps(manifest))
    return RunDir(root / run_id)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_is_no_name(name: str) -> None:
    run = RunDir("runs/r1")
    assert not is_run_id(name)
    for method in (
        run.telemetry, run.checkpoint, run.checkpoint_manifest, run.checkpoint_tags,
        run.command, run.ack, run.emergency, run.emergency_stacks,
    ):  # fmt: skip
        with pytest.raises(UsageError):
            method(name)


@given(st.text())
def test_whatever_is_taken_for_a_name_stays_in_its_folder(text: str) -> None:
    if is_run_id(text):
        assert RunDir("r").checkpoint(text).resolve().parent == RunDir("r").checkpoints.resolve()
    if is_command_id(text):
        assert RunDir("r").command(text).resolve().parent == RunDir("r").mailbox_in.resolve()


def test_files_are_called_this() -> None:
    run = RunDir("runs/r1")
    name, command = "step-00000010-abcdef", "0f" * 16
    assert [
        str(path.relative_to("runs/r1"))
        for path in (
            run.manifest, run.lock, run.telemetry(), run.telemetry("rank0001"), run.events, run.heartbeat,
            run.command(command), run.ack(command), run.checkpoint_manifest(name), run.checkpoint_tags(name),
            run.emergency("e1"), run.emergency_stacks("e1"), run.artifacts, run.console_log, run.notes,
        )
    ] == [
        "run.json", "lock", "telemetry.jsonl", "telemetry.rank0001.jsonl", "events.jsonl", "heartbeat.json",
        f"mailbox/in/{command}.json", f"mailbox/out/{command}.json", f"checkpoints/{name}/manifest.json",
        f"checkpoints/{name}/tags.json", "emergencies/e1.json", "emergencies/e1.stacks.txt", "artifacts",
        "console.log", "notes.md",
    ]  # fmt: skip


def test_a_new_run_id_sorts_by_time_and_is_a_run_id() -> None:
    early, late = new_run_id(1_700_000_000.0), new_run_id(1_700_000_001.0)
    assert early < late
    assert early.startswith("20231114-221320-")
    assert is_run_id(early)
    assert len({new_run_id(0.0) for _ in range(50)}) > 45


def test_run_is_an_id_without_a_slash_or_dot_and_a_path_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    inside, outside = make(root, "r1"), make(tmp_path, "r1")
    monkeypatch.chdir(tmp_path)
    assert resolve_run("r1", root).path == inside.path
    assert resolve_run("./r1", root).path == outside.path
    assert resolve_run("runs/r1", root).path == inside.path
    assert resolve_run(str(outside.path), root).path == outside.path
    monkeypatch.chdir(outside.path)
    assert resolve_run(".", root).id == "r1"


def test_an_id_with_a_dot_is_found_under_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path / "runs", "exp.2")
    assert resolve_run("exp.2", tmp_path / "runs").path == run.path


@pytest.mark.parametrize(
    "text", ["", "absent", "..", "../absent", "./\0", "a b", "a" * 5000, "./" + "a" * 5000, "\udcff", "~"]
)
def test_what_is_no_run_is_one_clear_error(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs", "20260101-000000-abcdef")
    (tmp_path / "runs" / "run.json").write_text("{}")  # an empty id must not mean the root itself
    with pytest.raises(RunNotFound):
        resolve_run(text, tmp_path / "runs")


@pytest.mark.parametrize("name", ["mine", "my run", "v1.2", "lr=1/3", "ünïcode", "@", "a" * 300])
def test_a_run_is_found_by_its_whole_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "r1", name=f"{name}2")
    run = make(tmp_path, "r2", name=name)
    assert resolve_run(name, tmp_path).path == run.path


def test_a_name_that_several_runs_have_is_answered_by_their_ids(tmp_path: Path) -> None:
    make(tmp_path, "r1", name="mine")
    make(tmp_path, "r2", name="other")
    make(tmp_path, "r3", name="mine")
    with pytest.raises(UsageError, match=r"2 runs .* named 'mine'; give one by its id: r1, r3"):
        resolve_run("mine", tmp_path)


def test_latest_is_the_run_whose_last_session_began_last(tmp_path: Path) -> None:
    make(tmp_path, "r1", created_t=1.0, sessions=[{"t": 1.0}, {"t": 9.0}])
    make(tmp_path, "r2", created_t=5.0, sessions=[{"t": 5.0}])
    make(tmp_path, "r3", created_t=7.0)
    (make(tmp_path, "r4").manifest).write_bytes(b"\xff not a manifest")
    assert resolve_run("latest", tmp_path).id == "r1"
    with pytest.raises(RunNotFound, match="there is none"):
        resolve_run("latest", tmp_path / "absent")


def test_an_id_wins_over_a_name_and_over_latest(tmp_path: Path) -> None:
    make(tmp_path, "r1", name="r2", created_t=9.0)
    assert resolve_run("r2", tmp_path).id == "r1"
    make(tmp_path, "r2")
    assert resolve_run("r2", tmp_path).id == "r2"
    make(tmp_path, "r3", name="latest")
    assert resolve_run("latest", tmp_path).id == "r1"
    make(tmp_path, "latest")
    assert resolve_run("latest", tmp_path).id == "latest"


def test_a_known_id_is_found_without_reading_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "r1")

    def reads(path: Path) -> bytes:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(Path, "read_bytes", reads)
    assert resolve_run("r1", tmp_path).id == "r1"


@pytest.mark.parametrize(
    ("text", "run", "selector"),
    [
        ("r1", "r1", None),
        ("r1@500", "r1", "500"),
        ("./r1@best", "./r1", "best"),
        ("a@b/r1", "a@b/r1", None),
        ("a@b/r1@7", "a@b/r1", "7"),
    ],
)
def test_what_follows_the_last_at_names_a_checkpoint(text: str, run: str, selector: str | None) -> None:
    assert split_selector(text) == (run, selector)


@pytest.mark.parametrize("text", ["mine@", "./r1@", "@"])
def test_an_at_with_nothing_after_it_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a step or a checkpoint is missing after the @"):
        split_selector(text)


def test_a_link_that_leads_to_itself_hides_no_run(tmp_path: Path) -> None:
    make(tmp_path, "r1")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    assert [run.id for run in list_runs(tmp_path)] == ["r1"]
    with pytest.raises(UsageError, match="loop' cannot be read: Too many levels of symbolic links"):
        list(list_runs(tmp_path / "loop"))


def test_a_wrong_id_is_told_the_newest(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="there is none"):
        resolve_run("r9", tmp_path)
    make(tmp_path, "r1")
    make(tmp_path, "r2")
    with pytest.raises(RunNotFound, match="newest there is 'r2'"):
        resolve_run("r9", tmp_path)


def test_runs_are_listed_by_their_manifest(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("x")
    assert [run.id for run in list_runs(tmp_path)] == ["a", "b"]
    assert list(list_runs(tmp_path / "absent")) == []
    assert list(list_runs(tmp_path / "file")) == []


def test_a_hidden_name_is_no_run(tmp_path: Path) -> None:
    make(tmp_path, ".del-a", name="mine", created_t=9.0)
    make(tmp_path, "a", name="mine")
    assert [run.id for run in list_runs(tmp_path)] == ["a"]
    assert resolve_run("latest", tmp_path).id == resolve_run("mine", tmp_path).id == "a"


def test_the_root_comes_from_the_environment_or_is_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIG_RUNS", "/some/where")
    assert default_root() == Path("/some/where")
    monkeypatch.setenv("QIG_RUNS", "")
    assert default_root() == Path("runs")


def test_streams_are_found_by_their_files(tmp_path: Path) -> None:
    for name in (
        "telemetry.jsonl",
        "telemetry.b.jsonl",
        "telemetry.a-1.jsonl",
        "telemetry..jsonl",
        "telemetry.c.jsonl.1",
    ):
        (tmp_path / name).write_text("")
    assert RunDir(tmp_path).streams() == ["a-1", "b"]
    assert RunDir(tmp_path / "absent").streams() == []


def test_a_document_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_document(path, b"old", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            write_document(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.json"]
    write_document(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000


def test_a_file_system_without_a_directory_fsync_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 22

    def refuses(fd: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "fsync", refuses)
    fsync_directory(tmp_path)
    number = 5
    with pytest.raises(OSError, match="refused"):
        fsync_directory(tmp_path)


def test_a_sweep_takes_the_leftovers_of_one_document(tmp_path: Path) -> None:
    for name in (".run.json.0123456789ab.tmp", ".run.json.0123.tmp", ".other.json.0123456789ab.tmp", "run.json"):
        (tmp_path / name).write_text("x")
    sweep_temporary(tmp_path / "run.json")
    assert sorted(os.listdir(tmp_path)) == [".other.json.0123456789ab.tmp", ".run.json.0123.tmp", "run.json"]
    sweep_temporary(tmp_path / "absent" / "run.json")
