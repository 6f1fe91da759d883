"""A checkpoint is there whole or not at all, whatever stops the one who writes it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import remove_stale_temporaries
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError, Refused, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock

FILES = {"model.bin": b"m" * 3000, "empty.bin": b"", "state.json": b"{}"}


def put(run: RunDir, **more: Any) -> str:
    asked = {"session": "5e55", "step": 18, "reason": "interval", "files": FILES}
    return publish(run, **{**asked, **more}).name


def left_behind(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_what_was_published_is_listed_and_verifies(run: RunDir) -> None:
    manifest = publish(
        run,
        session="5e55",
        step=18000,
        reason="interval",
        files=FILES,
        tags=["pinned"],
        metrics={"loss": 1.5, "phi": float("nan")},
        seq=7,
        data_position={"epoch": 1},
    )
    (found,) = list_checkpoints(run)
    assert found.name.startswith("step-00018000-")
    assert (found.status, found.tags, found.step, found.size) == ("COMPLETE", ("pinned",), 18000, 3002)
    assert found.manifest == manifest
    assert (manifest.metrics, manifest.nonfinite) == ({"loss": 1.5, "phi": None}, {"phi": "nan"})
    assert verify(run, found.name).status == "COMPLETE"
    assert left_behind(run) == [found.name]


def test_a_payload_may_come_piece_by_piece(run: RunDir) -> None:
    class Pieces:
        nbytes = 20 << 20

        def __iter__(self) -> Iterator[bytes | memoryview]:
            yield b""
            for number in range(20):
                yield memoryview(bytes([number]) * (1 << 20))

    name = put(run, files={"p.bin": Pieces()})
    assert verify(run, name).status == "COMPLETE"
    content = (run.checkpoint(name) / "p.bin").read_bytes()
    assert content == b"".join(bytes([number]) * (1 << 20) for number in range(20))


def test_too_little_free_space_is_said_before_anything_is_written(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(run.path)
    few = os.statvfs_result((4096, 4096, 1000, 1000, 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: few)
    put(run, files={"a": b"a" * 3700})
    with pytest.raises(CheckpointError, match="must be free"):
        put(run, files={"a": b"a" * 3800})
    assert len(left_behind(run)) == 1


def test_a_name_that_exists_is_drawn_again_and_at_last_refused(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter(["aaaaaa", "bbbbbb", "cccccc", "dddddd", "0", "0", "0", "0", "0"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(draws))
    (run.checkpoints / "step-00000018-aaaaaa").mkdir()
    (run.checkpoints / ".bad-step-00000018-bbbbbb").mkdir()
    (run.checkpoints / ".del-step-00000018-cccccc").mkdir()
    assert put(run) == "step-00000018-dddddd"
    monkeypatch.setattr("secrets.token_hex", lambda size: "aaaaaa")
    with pytest.raises(CheckpointError, match="exists"):
        put(run)


def test_a_directory_that_takes_the_name_meanwhile_is_not_replaced(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "a" * 2 * size)
    taken = run.checkpoints / "step-00000018-aaaaaa"

    class Meanwhile:
        nbytes = 1

        def __iter__(self) -> Iterator[bytes]:
            taken.mkdir()
            yield b"x"

    with pytest.raises(CheckpointError, match="never replaces another"):
        put(run, files={"x": Meanwhile()})
    assert left_behind(run) == [taken.name]
    assert list(taken.iterdir()) == []


def test_an_interrupt_while_writing_leaves_nothing(run: RunDir) -> None:
    class Interrupted:
        nbytes = 1

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put(run, files={"a": b"a", "x": Interrupted()})
    assert left_behind(run) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".", "..", "a\nb", "manifest.json", "tags.json", "x" * 121])
def test_a_payload_name_that_is_not_plain_is_refused(run: RunDir, name: str) -> None:
    with pytest.raises(UsageError, match="plain"):
        put(run, files={name: b""})
    assert left_behind(run) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"t": 1.0},
        {"no_such_field": 1},
        {"conditions": {"drift": 3}},
        {"seq": 1.5},
        {"name": "mine"},
        {"metrics": {"loss": "low"}},
        {"metrics": {"loss": [1.0]}},
        {"data_position": {"x": {1, 2}}, "parent": 3},
        {"step": -1},
        {"files": {}},
        {"session": "../x"},
        {"tags": ["a b"]},
    ],
)
def test_facts_that_could_not_be_read_back_are_refused_before_anything_is_written(
    run: RunDir, facts: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        put(run, **facts)
    assert left_behind(run) == []


def test_a_clock_that_goes_back_does_not_make_an_old_one_the_latest(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([5000.0, 100.0, 50.0])
    monkeypatch.setattr("time.time", lambda: next(times))
    names = [put(run, step=step) for step in (3, 2, 1)]
    assert [found.name for found in list_checkpoints(run)] == names[::-1]


HOLD = """
import sys
from pathlib import Path
from qig_core.rundir.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_while_another_process_writes_the_run_nothing_is_changed(run: RunDir) -> None:
    argv = [sys.executable, "-c", HOLD, run.lock]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Refused, match=str(other.pid)):
            put(run)
        other.communicate()
    assert left_behind(run) == []
    put(run)


def test_only_the_lock_holder_removes_what_other_sessions_left_half_written(run: RunDir, tmp_path: Path) -> None:
    for name in (".tmp-5e55-aaaaaa", ".tmp-dead-bbbbbb", ".tmp-x", ".bad-step-1", "mine"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "model.bin").write_bytes(b"half")
    (tmp_path / "elsewhere").mkdir()
    (run.checkpoints / ".tmp-dead-cccccc").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        remove_stale_temporaries(run, "5e55")
    lock = RunLock(run.lock)
    try:
        assert remove_stale_temporaries(run, "5e55") == [".tmp-dead-bbbbbb"]
    finally:
        lock.release()
    assert left_behind(run) == [".bad-step-1", ".tmp-5e55-aaaaaa", ".tmp-dead-cccccc", ".tmp-x", "mine"]
