"""Each word from facts alone, and the facts themselves: heartbeat, host, process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.heartbeat import HeartbeatThread, percentile
from qig_core.rundir.host import boot_id, git_revision, host_name, process_is, start_ticks, user_name
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import GLYPHS, BeatWatch, Liveness, Word, has_beaten, judge_liveness
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import Heartbeat, Manifest, SessionRecord
from qig_core.rundir.writer import RunWriter


def judged(
    *,
    silence_s: float = 0.0,
    alive: bool | None = True,
    state: str = "running",
    exit_code: int | None = None,
    heartbeat: bool = True,
    session_t: float = 1000.0,
    **beat: Any,
) -> Liveness:
    manifest = Manifest(id="r", sessions=[SessionRecord("aa", session_t, 1, "h")], exit_code=exit_code)
    if state == "exited":
        manifest.state = "exited"
    facts: dict[str, Any] = {"session": "aa", "beat": 5, "t": 1000.0, "pid": 1, "doing": "step", "last_step_age_s": 0.1}
    return judge_liveness(
        manifest, Heartbeat(**(facts | beat)) if heartbeat else None, silence_s=silence_s, process_alive=alive
    )


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({}, "LIVE"),
        ({"step_ms_p50": 12.0, "step_ms_p99": 20.0}, "LIVE 12 ms/step"),
        ({"alive": None}, "LIVE"),
        ({"silence_s": 10.0, "last_step_age_s": 0.0, "step_ms_p99": 3000.0}, "LIVE"),
        ({"last_step_age_s": 3.0, "step_ms_p99": 100.0}, "SLOW no step for 3 s"),
        ({"last_step_age_s": 1.9, "step_ms_p99": 100.0}, "LIVE"),
        ({"last_step_age_s": 30.0, "step_ms_p99": 6100.0}, "LIVE"),
        ({"last_step_age_s": 31.0, "step_ms_p99": 6100.0}, "SLOW no step for 31 s"),
        ({"last_step_age_s": 61.0, "step_ms_p99": 100.0}, "HUNG no step for 61 s"),
        ({"last_step_age_s": 121.0, "step_ms_p99": 6100.0}, "SLOW no step for 121 s"),
        ({"last_step_age_s": 123.0, "step_ms_p99": 6100.0}, "HUNG no step for 123 s"),
        ({"silence_s": 10.5}, "SILENT 10 s"),
        ({"silence_s": 61.0, "alive": None}, "SILENT 61 s"),
        ({"silence_s": 61.0}, "HUNG no beat for 61 s"),
        ({"silence_s": 61.0, "doing": "pause"}, "HUNG no beat for 61 s"),
        ({"heartbeat": False}, "SILENT no heartbeat yet"),
        ({"session": "older"}, "SILENT no heartbeat yet"),
        ({"doing": "pause", "last_step_age_s": 9000.0}, "PAUSED"),
        ({"doing": "save", "last_step_age_s": 1.0}, "LIVE"),
        ({"doing": "save", "last_step_age_s": 3.0}, "BUSY save"),
        ({"doing": "eval", "last_step_age_s": 599.0}, "BUSY eval"),
        ({"doing": "eval", "last_step_age_s": 601.0}, "HUNG eval for 601 s"),
        ({"doing": "start", "last_step_age_s": None}, "LIVE"),
        ({"doing": "start", "last_step_age_s": None, "t": 1030.0}, "BUSY start"),
        ({"doing": "start", "last_step_age_s": None, "t": 1601.0}, "HUNG start for 601 s"),
        ({"doing": "start", "last_step_age_s": None, "t": 500.0}, "LIVE"),
        ({"alive": False}, "KILLED the process is gone"),
        ({"alive": False, "silence_s": 9000.0, "doing": "pause"}, "KILLED the process is gone"),
        ({"alive": False, "heartbeat": False}, "KILLED the process is gone"),
        ({"state": "exited", "exit_code": 76, "alive": False}, "EXITED 76"),
        ({"state": "exited", "exit_code": 0, "alive": True}, "EXITED 0"),
        ({"state": "exited"}, "EXITED"),
    ],
)
def test_each_word_follows_from_these_facts(facts: dict[str, Any], word: str) -> None:
    assert judged(**facts).text == word


def test_every_word_has_a_glyph() -> None:
    assert set(GLYPHS) == set(Word)
    assert judged().glyph == "●"


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    pid = os.getpid()
    ticks = start_ticks(pid)
    assert ticks is not None
    assert process_is(pid, ticks, host_name(), boot_id()) is True
    # The pid is used again by another process: its start differs.
    assert process_is(pid, ticks - 1, host_name(), boot_id()) is False
    assert process_is(pid, ticks, "another host", boot_id()) is None
    assert process_is(pid, ticks, host_name(), "another boot") is None
    assert process_is(pid, ticks, host_name(), None) is None
    assert process_is(pid, None, host_name(), boot_id()) is None


def test_a_zombie_counts_as_gone_and_a_strange_name_confuses_nobody(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a) S 1 \xff")
    odd.symlink_to(sys.executable)
    child = subprocess.Popen(
        [str(odd), "-c", "print(flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONHOME": sys.base_prefix},
    )
    assert child.stdout is not None
    child.stdout.readline()
    ticks = start_ticks(child.pid)
    assert ticks is not None
    mine = start_ticks(os.getpid())
    assert mine is not None
    assert mine <= ticks
    assert process_is(child.pid, ticks, host_name(), boot_id()) is True
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while start_ticks(child.pid) is not None:  # not yet waited for: a zombie
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process_is(child.pid, ticks, host_name(), boot_id()) is False
    child.wait()
    child.stdout.close()
    assert start_ticks(child.pid) is None


def test_a_host_knows_its_names(tmp_path: Path) -> None:
    assert host_name()
    assert user_name()
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert git_revision(tmp_path) is None


KILLED = """
import sys, time
from pathlib import Path
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
writer = RunWriter.create(Path(sys.argv[1]), Manifest(id="killed"))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_run_is_killed_and_a_run_whose_pid_lives_again_is_too(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    run = RunDir(tmp_path / "killed")
    manifest = read_document(run.manifest, Manifest)
    assert BeatWatch(run).look(manifest).word is Word.LIVE
    child.kill()
    child.wait()
    child.stdout.close()
    assert BeatWatch(run).look(manifest).word is Word.KILLED
    # Another process has the pid now.
    manifest.sessions[-1].pid = os.getpid()
    assert BeatWatch(run).look(manifest).word is Word.KILLED


def test_a_process_that_cannot_be_found_but_holds_the_lock_is_not_killed(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        manifest = read_document(writer.run.manifest, Manifest)
        manifest.sessions[-1].pid = 2**22 + 1  # a pid of another container
        assert BeatWatch(writer.run).look(manifest).word is Word.LIVE


def test_silence_is_measured_by_the_readers_clock_since_the_beat_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    manifest = Manifest(id="r", sessions=[SessionRecord("aa", 0.0, 1, "another host", "another boot", 5)])
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def beat(number: int) -> None:
        document = Heartbeat("aa", number, 7.0, 1, last_step_age_s=0.1, doing="pause")
        write_document(run.heartbeat, encode_document(document), durable=False)

    watch = BeatWatch(run)
    assert watch.look(manifest).text == "SILENT no heartbeat yet"
    beat(1)  # its time lies decades back, and does not matter
    assert watch.look(manifest).text == "PAUSED"
    now += 9.0
    assert watch.look(manifest).text == "PAUSED"
    now += 3.0
    assert watch.look(manifest).text == "SILENT 12 s"
    beat(2)
    assert watch.look(manifest).text == "PAUSED"
    run.heartbeat.write_bytes(b'{"session":')
    now += 20.0
    assert watch.look(manifest).text == "SILENT no heartbeat yet"


def test_at_the_first_look_on_the_same_host_an_old_beat_is_silence_already(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ticks = start_ticks(os.getpid())
    session = SessionRecord("aa", 0.0, os.getpid(), host_name(), boot_id(), ticks)
    manifest = Manifest(id="r", sessions=[session])

    def text(age_s: float) -> str:
        document = Heartbeat("aa", 1, time.time() - age_s, 1, last_step_age_s=0.1, doing="pause")
        write_document(run.heartbeat, encode_document(document), durable=False)
        return BeatWatch(run).look(manifest).text

    assert text(3.0) == "PAUSED"
    assert text(-3000.0) == "PAUSED"  # the clock was set back since
    assert text(30.0).startswith("SILENT 30")
    assert text(3000.0).startswith("HUNG no beat for 3000")
    # On another host its time says nothing.
    session.boot_id = "another boot"
    assert text(3000.0) == "PAUSED"


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def beat_of(run: RunDir, thread: HeartbeatThread) -> Heartbeat:
    thread.beat()
    return read_document(run.heartbeat, Heartbeat)


def test_step_times_are_gaps_in_which_nothing_else_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = RunDir(tmp_path), Clock(monkeypatch)
    thread = HeartbeatThread(run, "aa", each_second=lambda: None)
    first = beat_of(run, thread)
    assert (first.beat, first.step, first.last_step_age_s, first.doing) == (1, None, None, "start")
    for step in range(100):
        clock.now += 0.010 if step < 98 else 0.5
        thread.step_done(step)
    found = beat_of(run, thread)
    assert (found.step, found.doing, found.step_ms_p50, found.step_ms_p99) == (99, "step", 10.0, 500.0)
    for doing in ("eval", "save", "pause"):
        thread.doing = doing
        clock.now += 1000.0
        thread.doing = "step"
        clock.now += 0.01
        thread.step_done(100)
    assert beat_of(run, thread).step_ms_p99 == 500.0


def test_one_step_in_which_the_process_stood_still_is_no_measure_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clock = RunDir(tmp_path), Clock(monkeypatch)
    thread = HeartbeatThread(run, "aa", each_second=lambda: None)
    for step in range(20):
        clock.now += 72.0 if step == 10 else 0.01
        thread.step_done(step)
    assert beat_of(run, thread).step_ms_p99 == 10.0


def test_a_pause_is_no_part_of_the_last_steps_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = RunDir(tmp_path), Clock(monkeypatch)
    thread = HeartbeatThread(run, "aa", each_second=lambda: None)
    thread.step_done(1)
    clock.now += 2.0
    assert beat_of(run, thread).last_step_age_s == 2.0
    thread.doing = "pause"
    clock.now += 3600.0
    assert beat_of(run, thread).last_step_age_s == 2.0
    thread.doing = "save"
    clock.now += 1.0
    found = beat_of(run, thread)
    assert (found.last_step_age_s, found.doing) == (1.0, "save")


def test_only_the_last_256_steps_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = RunDir(tmp_path), Clock(monkeypatch)
    thread = HeartbeatThread(run, "aa", each_second=lambda: None)
    for step in range(600):
        clock.now += 1.0 if step < 300 else 0.25
        thread.step_done(step)
    assert beat_of(run, thread).step_ms_p99 == 250.0


def test_percentiles_are_nearest_rank() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def test_a_disk_that_refuses_a_beat_does_not_stop_the_next(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    thread = HeartbeatThread(run, "aa", each_second=lambda: None)
    thread.beat()
    assert isinstance(thread.error, FileNotFoundError)
    run.path.mkdir()
    assert beat_of(run, thread).beat == 2
    assert thread.error is None


def test_the_thread_beats_by_itself_and_ends_with_a_last_beat(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    heard: list[int] = []
    thread = HeartbeatThread(run, "aa", each_second=lambda: heard.append(1), period_s=0.01)
    thread.start()
    since = read_document(run.heartbeat, Heartbeat)
    deadline = time.monotonic() + 10
    while not (heard and has_beaten(run.heartbeat, since)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    thread.doing = "stop"
    thread.stop()
    last = read_document(run.heartbeat, Heartbeat)
    assert last.doing == "stop"
    assert not has_beaten(run.heartbeat, last)
    assert not has_beaten(run.path / "absent", last)
    assert [name for name in os.listdir(run.path) if name.endswith(".tmp")] == []
