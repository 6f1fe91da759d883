"""qig-core doctor: real damage, what is said of it, and that nothing is changed by looking."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import quarantine
from qig_core.commands.doctor import examine, find
from qig_core.commands.examination.disk import of_mount
from qig_core.errors import RunNotFound
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import send
from qig_core.rundir.mounts import Mount, mount_in
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Ack, Command, Manifest, Stage
from qig_core.rundir.writer import RunWriter
from tests.endtoend.commands import WRITES, core, core_json
from tests.endtoend.test_what_commands_load import REPORT, run_code


def put(run: RunDir, step: int, **facts: Any) -> str:
    files = {"a.bin": b"a" * 4000, "b.bin": b"b" * 100}
    return publish(run, session="5e55", step=step, reason="interval", files=files, **facts).name


@pytest.fixture(autouse=True)
def _private() -> Iterator[None]:
    """Whatever the umask of whoever runs the tests, nobody else can write what they make."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of two checkpoints that came to its end."""
    with RunWriter.create(tmp_path / "runs", Manifest(id="a-run", program="a test")) as writer:
        for step in range(6):
            writer.telemetry.log(step, {"loss": 1.0 / (step + 1)})
        writer.heartbeat.step_done(5)
        for step in (3, 5):
            put(writer.run, step)
    return writer.run


def said(run: RunDir, state: str = "", **options: Any) -> list[str]:
    """What is found in this state (empty: warning or bad), as CHECK STATE: WHAT [CURE].

    But for the file system, which is the tests' own.
    """
    *_, last = examine(run, **options)
    states = [state] if state else ["warning", "bad"]
    return [
        f"{one['check']} {one['state']}: {one['what']} [{one['cure']}]"
        for one in last["result"]["findings"]
        if one["state"] in states and one["check"] != "file system"
    ]


def only(run: RunDir, **options: Any) -> str:
    (one,) = said(run, **options)
    return one


def content_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def test_a_run_that_is_well_has_only_good_findings_and_is_left_as_it_is(run: RunDir) -> None:
    before = content_of(run.path)
    assert said(run, verify=True) == []
    assert {one.split(" ok:")[0] for one in said(run, "ok")} == {
        "format", "records", "lock", "heartbeat", "permissions", "checkpoints", "mailbox"
    }  # fmt: skip
    assert any("2 COMPLETE, 8.2 kB; every byte was read" in one for one in said(run, "ok", verify=True))
    assert content_of(run.path) == before


def test_the_command_prints_a_table_and_a_number_for_the_shell(run: RunDir) -> None:
    done = core("doctor", run.path)
    assert done.returncode == 0
    assert done.stderr.startswith("a-run: bad 0, warnings ")
    heads, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heads == ["check", "state", "what"]
    assert {"format", "records", "lock", "heartbeat", "file", "checkpoints", "mailbox"} <= {row[0] for row in rows}
    os.chmod(run.path, 0o777)
    with open(run.telemetry(), "a") as file:
        file.write("garbage\n")
    done = core("doctor", "a-run", "--runs", run.path.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("a-run: bad 1, warnings ")
    assert f"can be written by everybody: relaunch refuses it; run: chmod go-w {run.path}" in done.stdout
    assert "telemetry.jsonl: 1 of 7 lines cannot be read" in done.stdout


def test_json_is_progress_and_at_last_the_result(run: RunDir) -> None:
    *progress, last = core_json("doctor", run.path, "--verify")
    assert progress
    assert all(set(one["progress"]) == {"check", "done", "total"} for one in progress)
    result = last["result"]
    assert (result["id"], result["path"], result["bad"]) == ("a-run", str(run.path), 0)
    assert all(set(one) == {"check", "state", "what", "cure"} for one in result["findings"])
    assert result["ok"] + result["warning"] == len(result["findings"])


def test_it_never_loads_torch(run: RunDir) -> None:
    assert run_code(REPORT, "doctor", run.path, "--verify").stderr.splitlines()[-1] == "0 []"


def test_what_is_not_there_is_no_run_and_what_is_a_directory_is_looked_at(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="does not exist"):
        find(str(tmp_path / "absent"), run.path.parent)
    with pytest.raises(RunNotFound, match="neither by id nor by name"):
        find("absent", run.path.parent)
    assert core("doctor", tmp_path / "absent").returncode == 2
    run.manifest.unlink()
    assert find("a-run", run.path.parent).path == run.path
    assert find(str(run.path), tmp_path).path == run.path
    (one,) = said(find(str(run.path), tmp_path), "bad")
    assert one.startswith("format bad: ")
    assert "run.json' does not exist; no session can go on" in one


def test_an_empty_folder_is_diagnosed(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "empty")
    folder.path.mkdir()
    (bad,) = said(folder, "bad")
    assert "run.json' does not exist" in bad


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"[" * 100_000, b'{"id": 7}', b"null"])
def test_a_manifest_that_cannot_be_read_hides_nothing_else(run: RunDir, content: bytes) -> None:
    run.manifest.write_bytes(content)
    (bad,) = said(run, "bad")
    assert bad.startswith("format bad: ")
    assert "is not a readable manifest" in bad.lower()
    checks = {one.split(" ok:")[0] for one in said(run, "ok")}
    assert {"records", "lock", "permissions", "checkpoints", "mailbox"} <= checks


def test_a_newer_format_is_said_so_and_everything_else_left_alone(run: RunDir) -> None:
    run.manifest.write_text('{"format": 2, "identity": "a-run"}')
    run.telemetry().write_text("garbage\n")
    assert only(run).startswith("format bad: run.json has format 2; this program reads 1: nothing else was looked at")


def test_a_newer_minor_format_is_read_and_said_so(run: RunDir) -> None:
    document = json.loads(run.manifest.read_bytes())
    run.manifest.write_text(json.dumps(document | {"minor": 99}))
    assert only(run).startswith("format warning: format 1.99 is newer than 1.")


def test_a_directory_with_another_name_than_its_run_is_told(run: RunDir) -> None:
    copy = RunDir(run.path.with_name("a-copy"))
    shutil.copytree(run.path, copy.path)
    assert "run.json gives the id 'a-run': the directory was renamed, or is a copy" in said(copy)[0]


def test_interrupted_replacements_are_counted(run: RunDir) -> None:
    for name in (".run.json.0123456789ab.tmp", ".heartbeat.json.0123456789ab.tmp", ".reserve", ".other"):
        (run.path / name).write_bytes(b"x")
    assert "by interrupted replacements of documents, 2: .heartbeat.json.0123456789ab.tmp, .run.json" in only(run)


def test_unreadable_lines_are_counted_and_the_first_is_named(run: RunDir) -> None:
    whole = run.telemetry().stat().st_size
    with open(run.telemetry(), "ab") as file:
        file.write(b'{"seq": 6, "step": 6, "t": \n\x00\x00\x00\n{"seq":6,"step":6,"t":1.0}\n')
    one = only(run)
    assert one.startswith("records warning: telemetry.jsonl: 2 of 9 lines cannot be read and are passed over")
    assert f"the first at byte {whole}: " in one


def test_a_file_without_a_readable_line_is_bad(run: RunDir) -> None:
    run.events.write_bytes(os.urandom(100_000).replace(b"\n", b"") + b"\n")
    assert only(run).startswith("records bad: events.jsonl: 1 of 1 lines cannot be read")


@pytest.mark.parametrize(
    ("torn", "becomes"),
    [(b'{"seq":6,"step":6,"t":1.0}', "is whole then"), (b'{"seq":6,"st', "stays as one that cannot be read")],
)
def test_a_torn_tail_is_what_the_next_session_ends(run: RunDir, torn: bytes, becomes: str) -> None:
    with open(run.telemetry(), "ab") as file:
        file.write(torn)
    one = only(run)
    assert f"the last line ({len(torn)} bytes) has no newline" in one
    assert f"the next session adds it, and the line {becomes}" in one


def test_seq_that_goes_back_is_bad_and_a_gap_is_not(run: RunDir) -> None:
    with open(run.telemetry(), "ab") as file:
        file.writelines(b'{"seq":%d,"step":6,"t":1.0}\n' % seq for seq in (9, 9, 4, 20))
    going_back, gaps = said(run)
    assert "records bad: telemetry.jsonl: seq does not increase, 2 times (first 9 after 9)" in going_back
    assert "records warning: telemetry.jsonl: gaps in seq, 2 (first 9 after 5); numbers missing, 18" in gaps


def test_every_stream_is_read_and_a_lost_one_is_missed(run: RunDir) -> None:
    run.telemetry("rank0001").write_bytes(b'{"seq":0,"step":6,"t":1.0}\ngarbage\n')
    manifest = read_manifest(run)
    manifest.streams = ["rank0001", "rank0002"]
    write_document(run.manifest, encode_document(manifest))
    run.telemetry().unlink()
    none, bad, lost = said(run)
    assert "telemetry.jsonl does not exist" in none
    assert "telemetry.rank0001.jsonl: 1 of 2 lines cannot be read" in bad
    assert "names streams that have no file: rank0002" in lost


def test_what_is_no_file_is_a_finding(run: RunDir) -> None:
    for path in (run.telemetry(), run.heartbeat, run.lock, run.manifest):
        path.unlink()
        path.mkdir()
    os.mkfifo(run.telemetry("pipe"))
    bad = said(run, "bad")
    assert any("run.json' cannot be read: not a regular file" in one for one in bad)
    assert any("telemetry.jsonl cannot be read: not a regular file" in one for one in bad)
    assert any("telemetry.pipe.jsonl cannot be read: not a regular file" in one for one in bad)
    assert any("lock is a link or no regular file" in one for one in bad)


def test_a_long_file_is_read_in_pieces_with_progress(run: RunDir) -> None:
    line = b'{"seq":%d,"step":6,"t":1.0,"m":{' + b", ".join(b'"metric%d":1.5' % n for n in range(60)) + b"}}\n"
    with open(run.telemetry(), "ab") as file:
        file.writelines(line % seq for seq in range(6, 40_006))
    size = run.telemetry().stat().st_size
    done = [one["progress"]["done"] for one in examine(run) if "progress" in one]
    assert len(done) == size // (16 << 20) > 1
    assert done == sorted(done)
    assert said(run) == []


def test_a_live_run_is_well_and_its_writer_is_named(run: RunDir, live: "subprocess.Popen[str]") -> None:
    with open(run.telemetry(), "ab") as file:
        file.write(b'{"seq":7,"st')
    assert said(run) == []
    assert f"lock ok: held by process {live.pid} []" in said(run, "ok")
    assert "records ok: telemetry.jsonl: a line is being written []" in said(run, "ok")


def test_a_lock_that_is_held_although_the_run_has_ended_is_told(run: RunDir, live: "subprocess.Popen[str]") -> None:
    manifest = read_manifest(run)
    manifest.state = "exited"
    write_document(run.manifest, encode_document(manifest))
    assert f"lock warning: held by process {live.pid} although run.json says that the run has ended" in only(run)


def test_a_run_whose_trainer_died_is_sent_to_recover(run: RunDir) -> None:
    code = WRITES.replace("sys.stdin.readline()", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code, str(run.path)], check=False, capture_output=True).returncode < 0
    lock, heartbeat = said(run, "bad")
    assert "lock bad: free although run.json says running: its trainer (process" in lock
    assert lock.endswith(f"died [qig-core recover {run.path}]")
    assert heartbeat.startswith("heartbeat bad: KILLED")


def test_a_deleted_lock_under_a_living_trainer_is_bad(run: RunDir, live: "subprocess.Popen[str]") -> None:
    run.lock.unlink()
    assert any(f"its trainer (process {live.pid}) lives: the file was deleted or replaced" in one for one in said(run))


def test_a_trainer_of_another_host_is_not_called_dead(run: RunDir) -> None:
    manifest = read_manifest(run)
    manifest.state, manifest.sessions[-1].host = "running", "elsewhere"
    write_document(run.manifest, encode_document(manifest))
    (lock,) = [one for one in said(run) if one.startswith("lock")]
    assert lock.startswith("lock warning: ")
    assert "on host 'elsewhere', whose locks may not be seen from here" in lock


def test_a_heartbeat_that_is_missing_or_garbage_is_told(run: RunDir) -> None:
    run.heartbeat.write_bytes(b"garbage")
    assert "heartbeat.json' is not a readable Heartbeat" in only(run)
    run.heartbeat.unlink()
    assert "heartbeat.json' does not exist" in only(run)


def test_what_others_can_write_is_told_with_its_chmod(run: RunDir) -> None:
    name = list_checkpoints(run)[0].name
    for path, mode in (
        (run.path, 0o775),
        (run.manifest, 0o666),
        (run.checkpoint(name) / "a.bin", 0o666),
        (run.mailbox_in, 0o777),
        (run.mailbox_out, 0o755),
    ):
        os.chmod(path, mode)
    found = said(run)
    assert [one.split(":")[0] for one in found] == [
        "permissions warning", "permissions bad", "permissions bad", "permissions bad", "permissions warning"
    ]  # fmt: skip
    assert f"writable by others, which a relaunch refuses: 1, {name}/a.bin" in found[2]
    for one in found:
        subprocess.run(one.rpartition("[")[2].removesuffix("]"), shell=True, check=True)
    assert said(run) == []


def test_a_run_that_is_closed_to_its_owner_is_told_with_its_chmod(run: RunDir) -> None:
    os.chmod(run.path, 0o000)
    # What else is said depends on whether the tests are run by root.
    assert any(f"{str(run.path)!r} is closed to its owner [chmod u+rx {run.path}]" in one for one in said(run, "bad"))
    os.chmod(run.path, 0o700)
    assert said(run) == []


def test_another_users_run_is_told(run: RunDir) -> None:
    found = only(run, uid=os.getuid() + 1)
    assert f"permissions warning: the run belongs to user {os.getuid()}, not to you" in found


def test_a_link_where_a_folder_should_be_is_told(run: RunDir, tmp_path: Path) -> None:
    for path in (run.checkpoints, run.mailbox, run.emergencies):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    run.artifacts.rmdir()
    run.artifacts.write_text("x")
    found = said(run)
    assert "permissions warning: checkpoints is a link, not a folder []" in found
    assert "permissions warning: emergencies is a link, not a folder []" in found
    assert "permissions bad: artifacts is no folder []" in found
    assert any("mailbox' is a link or no folder: no command is read from it" in one for one in found)
    assert any("2 COMPLETE" in one for one in said(run, "ok"))


def test_checkpoints_that_are_not_whole_are_named(run: RunDir) -> None:
    put(run, 6)
    put(run, 7)
    newest, newer, older, oldest = list_checkpoints(run)
    (newest.path / "a.bin").unlink()
    (newer.path / "a.bin").write_bytes(b"A" + b"a" * 3999)
    (older.path / "manifest.json").write_bytes(b"garbage")
    cheap = said(run)
    assert len(cheap) == 3
    assert cheap[0].startswith("checkpoints bad: 1 TORN, 2 COMPLETE, 1 UNREADABLE, ")
    assert f"checkpoints bad: {newest.name} is TORN: a.bin is missing [qig-core recover {run.path}]" == cheap[1]
    assert f"{older.name} is UNREADABLE: manifest.json: its seal is missing" in cheap[2]
    assert cheap[2].endswith("[]"), "one before it is sound"
    verified = said(run, verify=True)
    assert len(verified) == 4
    assert verified[0].startswith("checkpoints bad: 1 TORN, 1 HASH-MISMATCH, 1 UNREADABLE, 1 COMPLETE")
    assert f"{newer.name} is HASH-MISMATCH: a.bin does not match its digest" in verified[2]
    assert (newer.path / "a.bin").read_bytes()[:1] == b"A"
    assert oldest.path.is_dir()


def test_what_lies_beside_the_checkpoints_is_told_with_its_size(run: RunDir) -> None:
    name = put(run, 7)
    quarantine(run, name, "TORN: somebody was here")
    for left in (".tmp-5e55-0123ab", f".del-{name}", ".bad-step-00000009-0123ab"):
        (run.checkpoints / left).mkdir()
        (run.checkpoints / left / "a.bin").write_bytes(bytes(2000))
    (run.checkpoints / "step-00000008-0123ab").symlink_to(list_checkpoints(run)[0].path)
    found = said(run)
    assert len(found) == 5
    noted = next(one for one in found if f".bad-{name}" in one)
    assert "TORN: somebody was here" in noted
    assert noted.endswith("mended, it is put back by its name without .bad- []")
    assert any(".bad-step-00000009-0123ab was set aside, 2.0 kB: nobody wrote down why" in one for one in found)
    assert any(f".del-{name} is being deleted by nobody, 2.0 kB: left by a kill" in one for one in found)
    assert any(".tmp-5e55-0123ab is being written by nobody, 2.0 kB: left by a kill" in one for one in found)
    assert any("step-00000008-0123ab is a link: it is taken for no checkpoint" in one for one in found)


def test_what_a_live_session_is_writing_is_no_leftover(run: RunDir, live: "subprocess.Popen[str]") -> None:
    session = read_manifest(run).sessions[-1].id
    (run.checkpoints / f".tmp-{session}-0123ab").mkdir()
    (run.checkpoints / ".tmp-5e55-0123ab").mkdir()
    assert ".tmp-5e55-0123ab is being written by nobody" in only(run)


def test_a_checkpoint_of_another_run_and_tags_that_cannot_be_read_are_told(run: RunDir) -> None:
    first, second = list_checkpoints(run)
    other = RunDir(run.path.parent / "other")
    other.path.mkdir()
    shutil.copytree(put_elsewhere(other), run.checkpoints / "step-00000009-0123ab")
    (first.path / "tags.json").write_text("garbage")
    tags, foreign = said(run)
    assert tags.startswith(f"checkpoints warning: {first.name}: ")
    assert "delete it to begin without tags" in tags
    assert "of another run, by their manifests, 1: step-00000009-0123ab (other); they are never pruned" in foreign
    assert second.path.is_dir()


def put_elsewhere(run: RunDir) -> Path:
    return run.checkpoint(put(run, 9))


def test_commands_that_nobody_has_answered_are_told_with_their_age(run: RunDir) -> None:
    waits, begun, done = "0a" * 16, "0b" * 16, "0c" * 16
    now = time.time()
    run.command(waits).write_bytes(encode_document(Command(waits, "5e55", "checkpoint", now)))
    os.utime(run.command(waits), (now - 7300, now - 7300))
    (run.mailbox_in / "junk").write_text("x")
    run.ack(begun).write_bytes(encode_document(Ack(begun, "5e55", "abort", [Stage("seen", now - 200)])))
    run.ack(done).write_bytes(encode_document(Ack(done, "5e55", "pause", [Stage("done", now - 200)])))
    taken, answered = said(run)
    assert "taken by nobody, 2: checkpoint for 2 h, 'junk' (no command) for 0 s; the next session refuses" in taken
    assert "taken and not answered to the end, 1: abort seen for 3 min" in answered


def test_a_command_just_sent_to_a_live_trainer_is_no_finding(run: RunDir, live: "subprocess.Popen[str]") -> None:
    command = send(run, "checkpoint")
    assert said(run) == []
    assert command.verb == "checkpoint"


TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:27 / /mnt/with\040a\134blank rw,relatime shared:1 master:2 - nfs4 host:/x rw
31 27 0:28 / /mnt ro,relatime - ext4 /dev/vdb ro
32 27 0:29 / /mnt/over rw - ext4 /dev/vdc rw
33 27 0:30 / /mnt/over rw - fuse.sshfs host: rw
not a line
"""


@pytest.mark.parametrize(
    ("path", "point", "kind", "read_only"),
    [
        ("/home/x", "/", "ext4", False),
        ("/mnt/with a\\blank/run", "/mnt/with a\\blank", "nfs4", False),
        ("/mnt/with a\\blanket", "/mnt", "ext4", True),
        ("/mnt/over", "/mnt/over", "fuse.sshfs", False),
    ],
)
def test_the_deepest_mount_that_contains_a_path_counts(path: str, point: str, kind: str, read_only: bool) -> None:
    mount = mount_in(TABLE, Path(path))
    assert mount is not None
    assert (mount.point, mount.kind, mount.read_only) == (point, kind, read_only)
    assert mount_in("", Path(path)) is None


@pytest.mark.parametrize(
    ("kind", "read_only", "caveat"),
    [
        ("nfs4", False, "a network file system, where locks and fsync may not be what they say"),
        ("fuse.sshfs", False, "a network file system"),
        ("tmpfs", False, "memory, gone at the next boot"),
        ("ext4", True, "mounted read-only"),
    ],
)
def test_a_file_system_that_promises_less_is_warned_of(kind: str, read_only: bool, caveat: str) -> None:
    finding = of_mount(Mount("/mnt", kind, read_only))
    assert (finding.state, finding.what.startswith(f"{kind} at '/mnt'; {caveat}")) == ("warning", True)
    assert of_mount(Mount("/mnt", "fuseblk", False)).state == of_mount(Mount("/", "ext4", False)).state == "ok"


def test_names_that_are_no_unicode_do_not_stop_it(run: RunDir) -> None:
    odd = os.fsencode(run.checkpoints) + b"/.bad-\xff\x1b[31m"
    os.mkdir(odd)
    *_, last = core_json("doctor", run.path)
    assert any("was set aside" in one["what"] for one in last["result"]["findings"])
    done = core("doctor", run.path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_a_live_run_that_grows_while_it_is_read_is_well(run: RunDir) -> None:
    with RunWriter.reopen(run) as writer:
        steps = examine(run)
        writer.telemetry.log(6, {"loss": 1.0})
        *_, last = steps
        writer.telemetry.log(7, {"loss": 1.0})
    assert {one["state"] for one in last["result"]["findings"] if one["check"] != "file system"} == {"ok"}
