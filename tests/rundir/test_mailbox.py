"""A file in the mailbox is a stranger's until every check has passed."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qig_core.errors import RecordWriteError, Refused, UsageError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.host import host_name
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import (
    MAX_BYTES,
    MAX_FILES_A_POLL,
    MAX_PENDING,
    Mailbox,
    Pending,
    Rejected,
    read_ack,
    send,
    withdraw,
)
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import VERBS, Ack, Command, Event, Heartbeat, Manifest, SessionRecord
from qig_core.rundir.writer import RunWriter

SESSION = "ab" * 8
ID = "0123456789abcdef" * 2


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "r1")
    run.path.mkdir()
    manifest = Manifest(id="r1", sessions=[SessionRecord(SESSION, time.time(), 1, "elsewhere")])
    write_document(run.manifest, encode_document(manifest))
    write_document(run.heartbeat, encode_document(Heartbeat(SESSION, 1, time.time(), 1)))
    return run


@pytest.fixture
def mailbox(run: RunDir) -> Mailbox:
    return Mailbox(run, SESSION)


def command(**changes: Any) -> dict[str, Any]:
    return {"id": ID, "session": SESSION, "verb": "pause", "t": 1.0} | changes


def put(run: RunDir, content: bytes | dict[str, Any], name: str = f"{ID}.json", mode: int = 0o600) -> Path:
    path = run.mailbox_in / name
    path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
    path.chmod(mode)
    return path


def stages(run: RunDir, command_id: str = ID) -> list[str]:
    ack = read_ack(run, command_id)
    return [] if ack is None else [stage.stage for stage in ack.stages]


def refusal(run: RunDir) -> str:
    ack = read_ack(run, ID)
    assert ack is not None
    assert ack.last is not None
    assert (ack.last.stage, ack.ended, ack.session) == ("refused", True, SESSION)
    return str(ack.last.detail["reason"])


def test_a_command_is_seen_taken_and_answered(run: RunDir, mailbox: Mailbox) -> None:
    sent = send(run, "set_log_every", args={"steps": 5}, ttl_s=30.0)
    assert (run.command(sent.id).stat().st_mode & 0o777, sent.by.endswith("@" + host_name())) == (0o600, True)
    assert mailbox.poll(7) == []
    assert stages(run, sent.id) == ["seen"]
    assert not run.command(sent.id).exists()
    (pending,) = mailbox.take()
    assert pending.command == sent
    assert mailbox.take() == []
    mailbox.stage(sent, "acting", 8)
    mailbox.stage(sent, "done", 9, value=5)
    ack = read_ack(run, sent.id)
    assert ack is not None
    assert [(s.stage, s.step, s.detail) for s in ack.stages] == [
        ("seen", 7, {}), ("acting", 8, {}), ("done", 9, {"value": 5})
    ]  # fmt: skip
    assert ack.ended


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (command(session="cd" * 8), "another session"),
        (command(verb="rm -rf"), "unknown verb 'rm -rf'"),
        (command(id="f" * 32), "the id inside"),
        (command(id="../../evil"), "the id inside"),
        (b"{", "not a command"),
        (b"", "not a command"),
        (b"[]", "not a command"),
        (b"\xff\xfe", "not a command"),
        (b'{"args":' + b"[" * 20_000, "not a command"),
        (command(t="now"), "not a command"),
        (b" " * (MAX_BYTES + 1), f"more than {MAX_BYTES}"),
    ],
)
def test_what_is_no_command_for_this_session_is_refused_and_taken_away(
    run: RunDir, mailbox: Mailbox, content: bytes | dict[str, Any], reason: str
) -> None:
    path = put(run, content)
    (rejected,) = mailbox.poll(0)
    assert rejected.name == path.name
    assert reason in rejected.reason
    assert reason in refusal(run)
    assert not path.exists()
    assert mailbox.take() == []
    assert mailbox.poll(0) == []


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(run: RunDir, mailbox: Mailbox, mode: int) -> None:
    put(run, command(), mode=mode)
    assert "written by others" in mailbox.poll(0)[0].reason
    assert "written by others" in refusal(run)
    assert mailbox.take() == []


def test_a_file_of_another_user_is_refused(run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(run, command())
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        # Only root can give a file away: the open file is then said to be another's. The folders, looked at by their
        # names, stay this user's.
        look = os.fstat
        monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*look(fd)[:4], 12345, *look(fd)[5:10]]))
    assert "belongs to user 12345" in mailbox.poll(0)[0].reason
    assert mailbox.take() == []


def test_a_symlink_is_refused_and_its_target_untouched(run: RunDir, mailbox: Mailbox, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_bytes(msgspec.json.encode(command()))
    target.chmod(0o600)
    run.command(ID).symlink_to(target)
    assert "cannot be opened" in mailbox.poll(0)[0].reason
    assert target.exists()
    assert mailbox.take() == []


def test_a_hard_link_is_refused(run: RunDir, mailbox: Mailbox, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_bytes(msgspec.json.encode(command()))
    target.chmod(0o600)
    os.link(target, run.command(ID))
    assert "2 links" in mailbox.poll(0)[0].reason
    assert target.exists()
    assert mailbox.take() == []


def test_a_fifo_is_refused_at_once(run: RunDir, mailbox: Mailbox) -> None:
    os.mkfifo(run.command(ID), 0o600)
    began = time.monotonic()
    assert "not a regular file" in mailbox.poll(0)[0].reason
    assert time.monotonic() - began < 5
    assert not run.command(ID).exists()


def test_a_socket_is_refused(run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.mailbox_in)  # the name of a socket may be no longer than a hundred bytes
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(f"{ID}.json")
        assert "cannot be opened" in mailbox.poll(0)[0].reason
    assert not run.command(ID).exists()


def test_a_file_that_grows_while_it_is_read_is_refused(
    run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(run, command())
    look = os.fstat

    def then_grow(fd: int) -> os.stat_result:
        found = look(fd)
        path.write_bytes(b" " * (MAX_BYTES + 1))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", then_grow)
        assert "grew to more" in mailbox.poll(0)[0].reason
    assert mailbox.take() == []


def test_a_folder_in_place_of_a_command_is_reported_once(run: RunDir, mailbox: Mailbox) -> None:
    run.command(ID).mkdir()
    assert "not a regular file" in mailbox.poll(0)[0].reason
    assert mailbox.poll(0) == []


@pytest.mark.parametrize(
    "name", ["x.json", f"{ID.upper()}.json", f"{ID}.txt", f"{ID}0.json", "bad\udcff.json", f"{ID}.json.json"]
)
def test_a_name_that_is_no_id_is_refused_without_an_answer(run: RunDir, mailbox: Mailbox, name: str) -> None:
    put(run, command(), name)
    (rejected,) = mailbox.poll(0)
    assert (rejected.name, "not named by a command id" in rejected.reason) == (name, True)
    assert not os.listdir(run.mailbox_out)
    assert mailbox.take() == []


def test_a_half_written_file_has_a_dot_and_is_left_alone(run: RunDir, mailbox: Mailbox) -> None:
    put(run, b"{", f".{ID}.json.0123456789ab.tmp")
    assert mailbox.poll(0) == []
    assert len(os.listdir(run.mailbox_in)) == 1


def test_an_id_that_was_answered_is_never_acted_on_again(run: RunDir, mailbox: Mailbox) -> None:
    put(run, command())
    assert mailbox.poll(0) == []
    assert len(mailbox.take()) == 1
    put(run, command(verb="abort"))
    assert mailbox.poll(0) == []
    assert mailbox.take() == []
    assert not run.command(ID).exists()
    # Nor by another mailbox of this session, which knows the answer from the disk alone.
    again = Mailbox(run, SESSION)
    put(run, command())
    assert again.poll(0) == []
    assert again.take() == []
    assert stages(run) == ["seen"]


def test_a_stranger_with_a_known_id_does_not_end_the_answer_of_the_real_one(run: RunDir, mailbox: Mailbox) -> None:
    put(run, command())
    mailbox.poll(0)
    put(run, command(), f"{ID}.txt")
    assert len(mailbox.poll(0)) == 1
    assert stages(run) == ["seen"]


def test_at_most_64_files_are_read_a_poll_and_none_is_forgotten(run: RunDir, mailbox: Mailbox) -> None:
    for number in range(MAX_FILES_A_POLL + 6):
        put(run, command(id=f"{number:032x}"), f"{number:032x}.json")
    mailbox.poll(0)
    assert (len(mailbox.pending), mailbox.has_more) == (64, True)
    mailbox.poll(0)
    assert [p.command.id for p in mailbox.take()] == [f"{number:032x}" for number in range(70)]
    assert not mailbox.has_more


def test_a_folder_of_many_files_is_listed_once_until_all_of_them_are_read(
    run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5 * MAX_FILES_A_POLL):
        put(run, command(id=f"{number:032x}"), f"{number:032x}.json")
    listed: list[int] = []
    look = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [listed.append(1), look(path)][1])
    mailbox.poll(0)
    put(run, command(id="f" * 32), f"{'f' * 32}.json")
    while mailbox.has_more:
        mailbox.poll(0)
    assert (len(mailbox.pending), len(listed)) == (5 * MAX_FILES_A_POLL, 1)
    mailbox.poll(0)
    assert (len(mailbox.pending), len(listed)) == (5 * MAX_FILES_A_POLL + 1, 2)


def test_what_was_listed_is_read_only_while_the_folder_is_safe(run: RunDir, mailbox: Mailbox) -> None:
    for number in range(2 * MAX_FILES_A_POLL):
        put(run, command(id=f"{number:032x}"), f"{number:032x}.json")
    mailbox.poll(0)
    run.mailbox_in.chmod(0o777)
    assert "chmod go-w" in mailbox.poll(0)[0].reason
    assert (len(mailbox.pending), mailbox.has_more) == (MAX_FILES_A_POLL, False)


def test_aborts_are_taken_first_then_the_oldest_and_the_rest_waits(run: RunDir, mailbox: Mailbox) -> None:
    verbs = ["pause", "checkpoint", "abort", "resume", "abort"]
    for number, verb in enumerate(verbs):
        put(run, command(id=f"{number:032x}", verb=verb), f"{number:032x}.json")
    mailbox.poll(0)

    def taken(limit: int | None) -> list[int]:
        return [int(one.command.id, 16) for one in mailbox.take(limit)]

    assert taken(1) == [2]
    assert taken(2) == [4, 0]
    assert taken(0) == []
    assert taken(None) == [1, 3]
    assert mailbox.pending == []


def test_when_too_many_commands_wait_new_ones_are_refused_but_an_abort_still_gets_through(
    run: RunDir, mailbox: Mailbox
) -> None:
    waiting = Pending(Command("e" * 32, SESSION, "pause", 1.0), time.monotonic())
    mailbox.pending = [waiting] * (MAX_PENDING - 1)
    verbs = ["pause", "resume", "abort", "abort"]
    for number, verb in enumerate(verbs):
        put(run, command(id=f"{number:032x}", verb=verb), f"{number:032x}.json")
    rejected = mailbox.poll(0)
    assert [(one.name[:32], one.reason) for one in rejected] == [
        (f"{number:032x}", "too many commands wait") for number in (1, 3)
    ]
    assert [stages(run, f"{number:032x}") for number in range(4)] == [["seen"], ["refused"], ["seen"], ["refused"]]
    assert len(mailbox.pending) == MAX_PENDING + 1
    assert mailbox.take(1)[0].command.verb == "abort"


def test_an_acknowledgement_that_has_ended_is_kept_by_its_file_alone(
    run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, last in enumerate(("done", "refused", "stopped")):
        given = Command(f"{number:032x}", SESSION, "pause", 1.0)
        for stage in ("seen", "acting", last):
            mailbox.stage(given, stage, number)
        assert stages(run, given.id) == ["seen", "acting", last]
    assert mailbox._acks == {}

    # Of one that the disk refused nothing else would know that it was answered.
    def full(path: Path, content: bytes, durable: bool) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("qig_core.rundir.mailbox.write_document", full)
        mailbox.stage(Command(ID, SESSION, "pause", 1.0), "refused", 1)
    put(run, command())
    assert mailbox.poll(0) == []
    assert mailbox.take() == []


def test_a_file_that_is_withdrawn_while_it_is_read_is_no_command(
    run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(run, "pause")
    read = mailbox._read

    def withdrawn_meanwhile(path: Path) -> Command | None:
        found = read(path)
        assert withdraw(run, sent)
        return found

    monkeypatch.setattr(mailbox, "_read", withdrawn_meanwhile)
    assert mailbox.poll(0) == []
    assert mailbox.take() == []
    assert read_ack(run, sent.id) is None


def test_an_unseen_command_can_be_withdrawn_and_a_seen_one_cannot(run: RunDir, mailbox: Mailbox) -> None:
    first, second = send(run, "pause"), send(run, "resume")
    assert withdraw(run, first)
    mailbox.poll(0)
    assert not withdraw(run, second)
    assert [p.command.verb for p in mailbox.take()] == ["resume"]


def test_a_file_that_cannot_be_taken_away_is_not_acted_on(
    run: RunDir, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    put(run, command())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        (rejected,) = mailbox.poll(0)
        assert "cannot be taken: Read-only" in rejected.reason
        assert mailbox.poll(0) == []
    assert mailbox.take() == []


@pytest.mark.parametrize("verb", VERBS)
def test_only_an_abort_is_never_late(verb: str) -> None:
    pending = Pending(Command(ID, SESSION, verb, 1.0, ttl_s=120.0), seen_monotonic=1000.0)
    assert not pending.is_late(1120.0)
    assert pending.is_late(1120.1) == (verb != "abort")


@pytest.mark.parametrize("which", ["mailbox", "mailbox_in", "mailbox_out"])
def test_a_folder_that_others_can_write_is_refused_with_its_cure(run: RunDir, mailbox: Mailbox, which: str) -> None:
    put(run, command())
    folder: Path = getattr(run, which)
    folder.chmod(0o770)
    (rejected,) = mailbox.poll(0)
    assert rejected == Rejected("mailbox", f"{str(folder)!r} can be written by others; run: chmod go-w {str(folder)!r}")
    assert mailbox.poll(0) == []
    assert run.command(ID).exists()
    if which != "mailbox_out":
        with pytest.raises(Refused, match="chmod go-w"):
            send(run, "pause")


def test_a_mailbox_of_another_user_is_not_used(run: RunDir, mailbox: Mailbox) -> None:
    put(run, command())
    if os.getuid() == 0:
        os.chown(run.mailbox_in, 12345, 12345)
    else:
        # Only root can give a folder away, and it has one of its own here.
        run.mailbox_in = Path("/usr")
    assert "belongs to user" in mailbox.poll(0)[0].reason
    assert mailbox.take() == []
    with pytest.raises(Refused, match=r"belongs to user \d+, not to you"):
        send(run, "pause")


def test_a_mailbox_that_is_a_link_is_not_used(run: RunDir, mailbox: Mailbox, tmp_path: Path) -> None:
    run.mailbox_in.rename(tmp_path / "moved")
    run.mailbox_in.symlink_to(tmp_path / "moved")
    assert "is not a folder" in mailbox.poll(0)[0].reason
    with pytest.raises(Refused, match="is not a folder"):
        send(run, "pause")


def test_a_file_in_the_mailboxes_place_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "mailbox").write_text("x")
    with pytest.raises(RecordWriteError, match="cannot make"):
        Mailbox(RunDir(tmp_path), SESSION)


def test_nobody_is_asked_where_nobody_listens(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown verb 'chekpoint'; did you mean checkpoint"):
        send(run, "chekpoint")
    with pytest.raises(UsageError, match=f"known are {', '.join(VERBS)}$"):
        send(run, "xyz")
    with pytest.raises(Refused, match="no mailbox"):
        send(run, "pause")
    Mailbox(run, SESSION)
    with pytest.raises(Refused, match="at most"):
        send(run, "pause", args={"x": "y" * MAX_BYTES})
    run.heartbeat.unlink()
    with pytest.raises(Refused, match="no heartbeat"):
        send(run, "pause")
    with RunWriter.create(tmp_path, Manifest(id="ended")) as writer:
        pass
    with pytest.raises(Refused, match="has ended"):
        send(writer.run, "pause")
    assert not os.listdir(writer.run.mailbox_in)


def test_the_ack_of_an_unknown_or_damaged_id_is_none(run: RunDir, mailbox: Mailbox) -> None:
    assert read_ack(run, ID) is None
    run.ack(ID).write_bytes(b"{")
    assert read_ack(run, ID) is None
    assert Ack(ID, SESSION, "pause").last is None


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter.create(tmp_path, Manifest(id="live")) as writer:
        yield writer


def test_the_heartbeat_thread_of_a_run_listens_and_records_what_it_refuses(writer: RunWriter) -> None:
    sent = send(writer.run, "checkpoint")
    (writer.run.mailbox_in / "bad\udcff.json").write_text("x")
    deadline = time.monotonic() + 10
    while not writer.mailbox.pending:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [p.command.id for p in writer.mailbox.take()] == [sent.id]
    refused: list[Event] = []
    while not refused:
        assert time.monotonic() < deadline
        refused = [e for e in read_all(writer.run.events, Event) if isinstance(e, Event) and e.kind == "command"]
    assert refused[0].data["name"] == "bad\\udcff.json"
    assert refused[0].data["stage"] == "refused"
    assert writer.heartbeat.failure is None
