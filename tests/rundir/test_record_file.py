"""Record files under faults: torn tails, short writes, full disks, forks, foreign endings."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import qig_core.rundir.records as records
from qig_core.errors import ExitCode, RecordWriteError
from qig_core.rundir.reader import read_all
from qig_core.rundir.records import RecordFile, last_seq
from qig_core.rundir.schema import Event, Sample, Unreadable
from qig_core.rundir.values import MAX_LINE_BYTES

ONE = b'{"seq":41,"step":1,"t":1.0}\n'


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", None),
        (ONE, 41),
        (ONE[:-1], 41),
        (ONE + b'{"seq":42,"st', 41),
        (ONE + b"\n\n", 41),
        (ONE + b"garbage\n\xff\xfe\n\x00\x00\x00", 41),
        (ONE + b'{"seq":50,"step":1,"t":1,"m":{"a":NaN}}\n', 50),
        (ONE + b'{"seq":1000000000000000000000}\n', 41),
        (ONE + b'{"seq":true}\n{"seq":-3}\n{"seq":"9"}\n', 41),
        (ONE + b"x" * 200_000, 41),
        (ONE + b'{"seq":42,"step":1,"t":1,"regime":"' + b"x" * 200_000 + b'"}\n' + b"y" * 70_000, 42),
        (b"\x00" * 200_000, None),
        (b'{"seq":3,"zz":' + b"[" * 100_000, None),
    ],
)
def test_the_last_readable_seq_is_found_behind_whatever_follows_it(
    tmp_path: Path, content: bytes, expected: int | None
) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(content)
    assert last_seq(path) == expected


def test_a_huge_hole_at_the_end_costs_neither_memory_nor_hours(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(ONE)
    os.truncate(path, MAX_LINE_BYTES * 4)
    assert last_seq(path) == 41


def test_a_torn_tail_is_closed_by_one_newline_and_the_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(ONE + b'{"seq":42,"step":2,"m":{"phi":0.')
    file = RecordFile(path)
    assert file.append(Sample(0, 3, 1.0)) == 42
    file.close()
    found = read_all(path, Sample)
    assert [type(r) for r in found] == [Sample, Unreadable, Sample]
    assert path.read_bytes().count(b"\n") == 3


def test_a_record_that_lacks_its_newline_alone_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(ONE[:-1])
    file = RecordFile(path)
    assert file.append(Sample(0, 3, 1.0)) == 42
    file.close()
    assert [r.seq for r in read_all(path, Sample) if isinstance(r, Sample)] == [41, 42]


class ShortWrites:
    """os.write that takes only so many bytes and then fails, as a full disk does."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.counts:
            return os.write(fd, data)
        count = self.counts.pop(0)
        if count < 0:
            raise OSError(28, "No space left on device")
        return os.write(fd, bytes(data[:count]))


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordFile(tmp_path / "a.jsonl")
    monkeypatch.setattr(records, "_write", ShortWrites(5, 3, 2))
    assert [file.append(Sample(0, step, 1.0)) for step in range(3)] == [0, 1, 2]
    file.close()
    assert [r.seq for r in read_all(file.path, Sample) if isinstance(r, Sample)] == [0, 1, 2]


def test_a_full_disk_is_one_clear_error_and_the_next_record_stands_on_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RecordFile(tmp_path / "a.jsonl")
    file.append(Sample(0, 1, 1.0))
    monkeypatch.setattr(records, "_write", ShortWrites(5, -1, -1))
    with pytest.raises(
        RecordWriteError, match=r"cannot write '.*a\.jsonl': No space left on device \(after 5 of"
    ) as caught:
        file.append(Sample(0, 2, 1.0))
    assert caught.value.errno == 28
    assert int(caught.value.exit_code) == ExitCode.IO.value
    with pytest.raises(RecordWriteError, match="No space left"):
        file.append(Sample(0, 2, 1.0))
    assert file.append(Sample(0, 2, 1.0)) == 1
    file.close()
    found = read_all(file.path, Sample)
    assert [type(r) for r in found] == [Sample, Unreadable, Sample]


def test_a_record_of_which_the_disk_took_all_but_the_newline_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RecordFile(tmp_path / "a.jsonl")
    monkeypatch.setattr(records, "_write", ShortWrites(len(b'{"seq":0,"step":1,"t":1.0}'), -1))
    assert file.append(Sample(0, 1, 1.0)) == 0
    assert file.append(Sample(0, 2, 1.0)) == 1
    file.close()
    assert [r.step for r in read_all(file.path, Sample) if isinstance(r, Sample)] == [1, 2]


FILL = """
import os, resource, signal, sys
from pathlib import Path
from qig_core.errors import RecordWriteError
from qig_core.rundir.writer import RunWriter
from qig_core.rundir.schema import Manifest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = RunWriter.create(Path(sys.argv[1]), Manifest(id="full"))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
told = -1
try:
    for step in range(10_000):
        told = writer.telemetry.log(step, {"phi": 0.5, "loss": step / 7})
except RecordWriteError as error:
    print(told, error.errno, error, sep="|")
    try:
        writer.telemetry.log(step, {"phi": 0.5})
    except RecordWriteError as error:
        print("again", error.errno, sep="|")
os._exit(0)
"""


def test_a_disk_that_fills_up_raises_once_keeps_what_was_written_and_heals_at_the_next_opening(tmp_path: Path) -> None:
    from qig_core.rundir.layout import RunDir
    from qig_core.rundir.writer import RunWriter

    done = run_python(FILL, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    told, number, message = first.split("|")
    assert int(number) == 27  # EFBIG
    assert "telemetry.jsonl': File too large" in message
    assert second == "again|27"
    path = tmp_path / "full" / "telemetry.jsonl"
    assert path.stat().st_size == 20_000
    before = [r.seq for r in read_all(path, Sample) if isinstance(r, Sample)]
    # The disk may have ended exactly before the newline of a record: it is whole, and waits for that newline.
    assert before in (list(range(int(told) + 1)), list(range(int(told))))
    with RunWriter.reopen(RunDir(tmp_path / "full")) as writer:
        assert writer.telemetry.log(5, {"phi": 0.5}) == int(told) + 1
    after = read_all(path, Sample)
    assert [r.seq for r in after if isinstance(r, Sample)] == list(range(int(told) + 2))
    assert sum(isinstance(r, Unreadable) for r in after) == (1 if len(before) == int(told) + 1 else 0)


def test_threads_share_a_file_without_a_torn_or_doubled_line(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "events.jsonl")
    seqs: list[int] = []

    def work(kind: str) -> None:
        for _ in range(200):
            seqs.append(file.append(Event(0, 1.0, kind)))

    threads = [threading.Thread(target=work, args=(f"k{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    found = [r.seq for r in read_all(file.path, Event) if isinstance(r, Event)]
    assert found == list(range(800)) == sorted(seqs)


FORKED = """
import os, sys
from pathlib import Path
from qig_core.errors import RecordWriteError
from qig_core.rundir.records import RecordFile
from qig_core.rundir.schema import Sample
file = RecordFile(Path(sys.argv[1]))
file.append(Sample(0, 0, 1.0))
child = os.fork()
if child == 0:
    try:
        file.append(Sample(0, 99, 1.0))
    except RecordWriteError:
        os._exit(7)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
file.append(Sample(0, 1, 1.0))
"""


def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    done = run_python(FORKED, tmp_path / "a.jsonl")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in (tmp_path / "a.jsonl").read_bytes().splitlines()] == [0, 1]


def test_fsync_always_syncs_every_record_and_the_interval_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    always, interval = RecordFile(tmp_path / "a.jsonl", fsync="always"), RecordFile(tmp_path / "b.jsonl")
    monkeypatch.setattr(os, "fsync", synced.append)
    for step in range(3):
        always.append(Sample(0, step, 1.0))
    assert len(synced) == 3
    for step in range(3):
        interval.append(Sample(0, step, 1.0))
    assert len(synced) == 3
    interval.sync()
    interval.sync()
    assert len(synced) == 4
    always.close()
    interval.close()


def test_a_sync_that_fails_is_a_record_write_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordFile(tmp_path / "a.jsonl")
    file.append(Sample(0, 0, 1.0))

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(RecordWriteError, match="cannot sync"):
            file.sync()
    file.close()


def test_text_that_is_no_unicode_is_written_as_its_escape(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "events.jsonl")
    file.append(Event(0, 1.0, "command", data={"name": "bad\udcff", "deep": [{"\udc80": 1}]}))
    file.close()
    (event,) = read_all(file.path, Event)
    assert isinstance(event, Event)
    assert event.data == {"name": "bad\\udcff", "deep": [{"\\udc80": 1}]}


@pytest.mark.parametrize("data", [{"x": object()}, {"x": "y" * (MAX_LINE_BYTES + 1)}])
def test_a_record_that_cannot_be_is_refused_and_takes_no_number(tmp_path: Path, data: dict[str, object]) -> None:
    file = RecordFile(tmp_path / "events.jsonl")
    with pytest.raises((TypeError, ValueError), match=r"no place in a record|more than"):
        file.append(Event(0, 1.0, "note", data=data))
    assert file.append(Event(0, 1.0, "note")) == 0
    file.close()
    assert len(read_all(file.path, Event)) == 1


def test_a_file_that_cannot_be_opened_is_a_record_write_error(tmp_path: Path) -> None:
    with pytest.raises(RecordWriteError, match=r"cannot open .*Is a directory"):
        RecordFile(tmp_path)
