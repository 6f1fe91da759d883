"""A disk that refuses at any moment: one clear error, nothing half, nothing else touched; the next save succeeds."""

import errno
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, delete, quarantine, remove_stale_temporaries
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock
from tests.checkpoints.recording import Recorder, Step, Tree, read_tree

FILES = {"model.bin": b"m" * 3000, "empty.bin": b"", "notes.txt": b"n" * 50}
LIBERATING = ("unlink", "rmdir")
"""What a full disk does not refuse."""


def put(run: RunDir, **more: Any) -> str:
    asked = {"session": "5e55", "step": 18, "reason": "interval", "files": FILES, "tags": ["kept"]}
    return publish(run, **{**asked, **more}).name


def refuse(run: RunDir, code: int, at: int, *, only_once: bool = False) -> Callable[[Step], None]:
    """From the step `at` on there is no space, or that one step goes wrong."""

    def hook(step: Step) -> None:
        if step.index == at or (step.index > at and not only_once and step.call not in LIBERATING):
            raise OSError(code, os.strerror(code), str(run.path.joinpath(*step.where)))

    return hook


def refused(run: RunDir, act: Callable[[], object], hook: Callable[[Step], None]) -> CheckpointError | None:
    """What an action said when the disk refused; None if it ended well."""
    with Recorder(run.path, hook):
        try:
            act()
        except CheckpointError as error:
            text = str(error)
            assert "\n" not in text
            assert str(run.checkpoints) in text
            return error
    return None


def sound(run: RunDir) -> list[str]:
    for found in list_checkpoints(run):
        assert (found.status, found.tags_known) == ("COMPLETE", True)
        assert verify(run, found.name).status == "COMPLETE"
    return [found.name for found in list_checkpoints(run)]


def everything(run: RunDir) -> Tree:
    tree = read_tree(run.path)
    tree.pop("lock", None)
    return tree


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("only_once", [True, False])
def test_a_save_that_is_refused_at_any_step_leaves_no_trace_and_the_next_succeeds(
    run: RunDir, code: int, only_once: bool
) -> None:
    put(run)
    for at in itertools.count():
        before = everything(run)
        error = refused(run, lambda: put(run, step=19), refuse(run, code, at, only_once=only_once))
        if error is None:
            break
        assert f"({errno.errorcode[code]})" in str(error)
        if everything(run) != before:
            # Only the last fsync was refused: it is whole, and is left so; see `publish`.
            assert "is whole, but the disk refused to make its name durable" in str(error)
            assert len(sound(run)) == len(before["checkpoints"]) + 1
            whole_at = at
        else:
            assert str(error).startswith("no checkpoint at step 19: 0.0 MB could not be stored in ")
            assert str(error).endswith("; checkpoints published before are untouched")
            put(run, step=20)
            assert delete(run, [sound(run)[0]])
    assert whole_at == at - 1 > 15


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_pin_that_is_refused_leaves_the_tags_as_they_were(run: RunDir, code: int) -> None:
    name = put(run)
    for at in itertools.count():
        before = everything(run)
        error = refused(run, lambda: add_tag(run, name, "pinned"), refuse(run, code, at))
        if error is None:
            break
        assert os.strerror(code) in str(error)
        tags = list_checkpoints(run)[0].tags
        if tags != ("kept",):
            assert tags == ("kept", "pinned")
            last = at
        else:
            assert everything(run) == before
    assert last == at - 1 > 2
    assert list_checkpoints(run)[0].tags == ("kept", "pinned")


def test_a_deletion_that_is_refused_at_any_step_leaves_whole_ones_only(run: RunDir) -> None:
    for at in itertools.count():
        keep, go = put(run, step=1), put(run, step=2)
        error = refused(run, lambda go=go: delete(run, [go]), refuse(run, errno.EIO, at))
        left = [path.name for path in run.checkpoints.glob(".*")]
        assert set(sound(run)) in ({keep, go}, {keep})
        if error is None and not left:
            break
        lock = RunLock(run.lock)
        assert remove_stale_temporaries(run, "0ther") == left
        lock.release()
        delete(run, sound(run))
        assert list(run.checkpoints.iterdir()) == []
    assert at > 4


def test_bytes_stay_when_the_mark_of_a_deletion_cannot_be_made_durable(run: RunDir) -> None:
    name = put(run)
    before = read_tree(run.checkpoint(name))

    def hook(step: Step) -> None:
        if step.call == "fsync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert "swept later" in str(refused(run, lambda: delete(run, [name]), hook))
    lock = RunLock(run.lock)
    with Recorder(run.path, hook):
        assert remove_stale_temporaries(run, "0ther") == []
    assert read_tree(run.checkpoints / f".del-{name}") == before
    assert remove_stale_temporaries(run, "0ther") == [f".del-{name}"]
    lock.release()


def test_a_bad_one_is_out_of_the_way_or_where_it_was_when_setting_it_aside_is_refused(run: RunDir) -> None:
    for at in itertools.count():
        name = put(run)
        before = read_tree(run.checkpoint(name))
        error = refused(run, lambda name=name: quarantine(run, name, "why"), refuse(run, errno.ENOSPC, at))
        aside = run.checkpoints / f".bad-{name}"
        tree = read_tree(aside if aside.exists() else run.checkpoint(name))
        note = tree.pop("quarantine.json", None)
        assert tree == before
        if note is not None:
            break
        assert error is None or "cannot be set aside" in str(error)
    assert at > 3


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_system_that_takes_few_bytes_at_a_time_gets_all_of_them(run: RunDir, piece: int) -> None:
    with Recorder(run.path, lambda step: piece if step.call == "write" else None) as recorder:
        name = put(run)
    assert sound(run) == [name]
    assert read_tree(run.checkpoint(name)).items() > FILES.items()
    assert recorder.names.count("write model.bin") == math.ceil(3000 / piece)


LIMITED = """
import resource, signal, sys
from qig_core.checkpoints.store import publish
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    publish(RunDir(sys.argv[1]), session="5e55", step=9, reason="interval", files={"a": b"a", "b": b"b" * 200_000})
except CheckpointError as error:
    print(error)
publish(RunDir(sys.argv[1]), session="5e55", step=10, reason="interval", files={"a": b"a"})
"""


def said_by(code: str, *arguments: str, folder: Path | None = None) -> str:
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_a_write_that_the_system_cuts_off_leaves_nothing_and_says_so(run: RunDir) -> None:
    first = put(run)
    said = said_by(LIMITED, str(run.path))
    assert "no checkpoint at step 9: 0.2 MB could not be stored" in said
    assert "(EFBIG)" in said
    assert [found.step for found in list_checkpoints(run)] == [10, 18]
    assert {path.name for path in run.checkpoints.iterdir()} == {*sound(run)} > {first}


INTERRUPTED = """
import signal, sys
from qig_core.checkpoints.store import publish
from qig_core.rundir.layout import RunDir

count = 0
def tick(number, frame):
    global count
    count += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
publish(RunDir(sys.argv[1]), session="5e55", step=9, reason="interval", files={"a": b"a" * 20_000_000})
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""


def test_signals_all_the_while_change_nothing(run: RunDir) -> None:
    assert int(said_by(INTERRUPTED, str(run.path))) > 3
    assert len(sound(run)) == 1


READ_ONLY = """
import os
from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, delete, quarantine
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir

if os.geteuid() == 0:  # whom no mode keeps out
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
run = RunDir("a-run")
(found,) = list_checkpoints(run)
for act in (
    lambda: publish(run, session="5e55", step=9, reason="interval", files={"a": b"a"}),
    lambda: add_tag(run, found.name, "pinned"),
    lambda: quarantine(run, found.name, "why"),
    lambda: delete(run, [found.name]),
):
    try:
        print("done", act())
    except CheckpointError as error:
        print(error)
"""


def test_a_folder_that_may_not_be_written_is_left_as_it_is(run: RunDir, tmp_path: Path) -> None:
    name = put(run)
    before = everything(run)
    folders = [tmp_path, run.path, run.checkpoints, run.checkpoint(name)]
    for folder in folders:
        folder.chmod(0o555)
    try:
        # From inside: the folders above are private to who runs the tests.
        lines = said_by(READ_ONLY, folder=tmp_path).splitlines()
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert len(lines) == 4
    assert all("Permission denied" in line for line in lines)
    assert everything(run) == before


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(run: RunDir) -> None:
    run.checkpoints.rmdir()
    run.checkpoints.write_bytes(b"")
    for act in (lambda: put(run), lambda: list_checkpoints(run), lambda: delete(run, ["step-00000001-aaaaaa"])):
        with pytest.raises(CheckpointError, match=r"File exists|Not a directory"):
            act()
    with pytest.raises(CheckpointError, match="ENOTDIR"):
        put(RunDir(run.checkpoints / "inside"))
    assert run.checkpoints.read_bytes() == b""
