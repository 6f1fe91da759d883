"""Faults that happen to real processes: what is hit goes on or stops in order, and says so."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.verification import verify
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.host import start_ticks
from qig_core.rundir.layout import BEING_WRITTEN, RunDir
from qig_core.rundir.liveness import BeatWatch, Word
from qig_core.rundir.mailbox import read_ack, send
from qig_core.rundir.reader import read_all, read_document, read_manifest
from qig_core.rundir.schema import Command, Event, Heartbeat, Sample
from qig_core.safety.emergency import EmergencyRecord
from tests.endtoend.commands import core

SCRIPT = """
import os, resource, signal, sys, threading, time
from qig_core.rundir.schema import CheckpointManifest
from qig_core.safety.integrated import IntegratedMonitor

def save(request):
    return CheckpointManifest(
        name=f"step-{request.step}", run=request.run.id, session=request.session, step=request.step,
        t=time.time(), reason=request.reason, files=[], fingerprint="f" * 64, **request.facts())

settings = {}
PREPARE
with IntegratedMonitor.open(sys.argv[1], **{"save": save} | settings) as monitor:
    print(monitor.writer.run.path, flush=True)
    for step in range(1_000_000):
BODY
        if not monitor.check(step, {"loss": 1.0}):
            break
        time.sleep(0.002)
sys.exit(monitor.exit_code)
"""


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


class Loop:
    """A loop under the monitor in a process of its own."""

    def __init__(self, root: Path, body: str = "pass", prepare: str = "") -> None:
        code = SCRIPT.replace("PREPARE", textwrap.dedent(prepare))
        code = code.replace("BODY", textwrap.indent(textwrap.dedent(body).strip(), " " * 8))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        path = self.process.stdout.readline().strip()
        assert path, self.process.communicate()[1]
        self.run = RunDir(path)
        until(lambda: self.last_step >= 0)

    @property
    def last_step(self) -> int:
        heartbeat = read_document(self.run.heartbeat, Heartbeat)
        return -1 if heartbeat.step is None else heartbeat.step

    def events(self, kind: str) -> list[Event]:
        return [e for e in read_all(self.run.events, Event) if isinstance(e, Event) and e.kind == kind]

    def kill(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)

    def end(self) -> tuple[int, str, str]:
        """The exit code, and what was printed."""
        out, err = self.process.communicate(timeout=120)
        assert read_manifest(self.run).exit_code == self.process.returncode, err
        return self.process.returncode, out, err

    def emergency(self) -> EmergencyRecord:
        (path,) = self.run.emergencies.glob("*.json")
        return msgspec.json.decode(path.read_bytes(), type=EmergencyRecord)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    started: list[Loop] = []

    def start(*how: str) -> Loop:
        started.append(Loop(tmp_path, *how))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


LOCKS = """
import os, signal, sys, threading, time
from qig_core.rundir import lock
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.integrated import IntegratedMonitor

LOCKS = {
    "acknowledgements": lambda monitor: monitor.writer.mailbox._lock,
    "queue": lambda monitor: monitor.writer.mailbox._queue_lock,
    "events": lambda monitor: monitor.writer._events._lock,
    "telemetry": lambda monitor: monitor.writer.telemetry._file._lock,
    "flushing": lambda monitor: monitor.writer.telemetry._flushing,
    "run lock": lambda monitor: lock._mutex,
    "heartbeat": lambda monitor: monitor.writer.heartbeat._stop._cond,
    "alerts": lambda monitor: monitor._announcer._alerts._wake,
}

def held_by_the_loop(monitor, held):
    with held:
        signal.raise_signal(signal.SIGTERM)
        assert monitor.abort.asked

def waited_for_by_the_loop(monitor, held):
    def hold():
        with held:
            taken.set()
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            while not monitor.abort.asked:
                time.sleep(0.001)

    taken = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with held:
        assert monitor.abort.asked
    thread.join()

for name, find in LOCKS.items():
    alerts = AlertSettings(command=("true",))
    with IntegratedMonitor.open(sys.argv[1], name=name, deadline_s=20.0, alerts=alerts) as monitor:
        assert monitor.check(0, {"loss": 1.0})
        globals()[sys.argv[2]](monitor, find(monitor))
        assert not monitor.check(1, {"loss": 1.0})
    print(f"{name}: {monitor.exit_code}", flush=True)
"""


@pytest.mark.parametrize("how", ["held_by_the_loop", "waited_for_by_the_loop"])
def test_a_signal_while_any_of_our_locks_is_held_hangs_nothing(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCKS, str(tmp_path), how], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    locks = ["acknowledgements", "queue", "events", "telemetry", "flushing", "run lock", "heartbeat", "alerts"]
    assert done.stdout.splitlines() == [f"{name}: 143" for name in locks]


@pytest.mark.parametrize("call", ["hashlib.pbkdf2_hmac('sha256', b'x', b'y', n)", "sum(range(n))"])
def test_a_signal_in_one_long_call_stops_the_run_at_the_boundary_after_it(loop: Callable[..., Loop], call: str) -> None:
    """The first lets other threads run, the second none; Python hears the signal only after either."""
    one = loop(
        """
        if step == 5:
            killer.stdin.write("go\\n")
            killer.stdin.flush()
            began = time.time()
            call(n)
            ended = time.time()
            print(began < float(killer.stdout.readline()) < ended, monitor.abort.asked)
        """,
        f"""
        import hashlib, subprocess
        call = lambda n: {call}
        n = 1
        while (began := time.perf_counter(), call(n), took := time.perf_counter() - began)[2] < 0.1:
            n *= 2
        n = int(2.5 * n / took)
        killer = subprocess.Popen(
            ["sh", "-c", "read go; sleep 0.3; date +%s.%N; kill -TERM $0", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        """,
    )
    code, out, err = one.end()
    assert (code, out) == (143, "True True\n"), err
    record = one.emergency()
    assert (record.step, record.checkpoint, record.note) == (5, "step-5", "")


BIG_STATE = """
import torch
from qig_core.checkpoints.saving import saver

state = {"model": {"w": torch.ones(24, 1 << 20)}}
signal.signal(signal.SIGTERM, lambda *_: print("heard in", monitor.writer.heartbeat.doing, flush=True))
settings = {"save": saver(lambda: state, asynchronous=False), "checkpoint_every": 500}
"""


def test_sigterm_in_a_save_lets_it_finish_and_stops_at_the_next_boundary(loop: Callable[..., Loop]) -> None:
    one = loop("pass", BIG_STATE)
    try:
        until(lambda: list(one.run.checkpoints.glob(f"{BEING_WRITTEN}*/*")))
        one.kill()
        code, out, err = one.end()
        assert (code, out) == (143, "heard in save\n"), err
        newest, before = list_checkpoints(one.run)
        assert [each.manifest and each.manifest.reason for each in (before, newest)] == ["interval", "emergency"]
        assert newest.step == before.step + 1
        assert [str(verify(one.run, each.name).status) for each in (before, newest)] == ["COMPLETE"] * 2
        assert {path.name for path in one.run.checkpoints.iterdir()} == {newest.name, before.name}
        assert one.emergency().checkpoint == newest.name
    finally:
        shutil.rmtree(one.run.path, ignore_errors=True)  # two hundred megabytes


def test_sigterm_beside_a_save_lets_it_finish_before_the_emergency_save(loop: Callable[..., Loop]) -> None:
    one = loop("pass", BIG_STATE.replace("asynchronous=False", "asynchronous=True"))
    try:
        until(lambda: list(one.run.checkpoints.glob(f"{BEING_WRITTEN}*/*")))
        one.kill()
        code, out, err = one.end()
        assert (code, out) == (143, "heard in step\n"), err
        newest, before = list_checkpoints(one.run)
        assert [each.manifest and each.manifest.reason for each in (before, newest)] == ["interval", "emergency"]
        assert [str(verify(one.run, each.name).status) for each in (before, newest)] == ["COMPLETE"] * 2
        told = [
            e.data["name"] for e in read_all(one.run.events, Event) if isinstance(e, Event) and e.kind == "checkpoint"
        ]
        assert told == [before.name, newest.name]
    finally:
        shutil.rmtree(one.run.path, ignore_errors=True)


def test_an_abort_whose_checkpoint_finds_the_disk_full_stops_all_the_same_and_says_so_with_77(
    loop: Callable[..., Loop],
) -> None:
    one = loop(
        """
        if step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        """,
        BIG_STATE + "del settings['checkpoint_every']",
    )
    until(lambda: one.last_step > 5)
    command = send(one.run, "abort")
    code, _, err = one.end()
    assert code == 77, err
    record = one.emergency()
    assert (record.exit_code, record.checkpoint) == (77, None)
    assert "File too large" in record.note
    assert err.count("\n") == 1
    assert "no checkpoint: " in err
    ack = read_ack(one.run, command.id)
    assert ack is not None
    assert [stage.stage for stage in ack.stages] == ["seen", "acting", "stopped"]
    assert ack.stages[-1].detail == {"exit_code": 77, "note": f"no checkpoint: {record.note}"}
    assert list(one.run.checkpoints.iterdir()) == []
    assert [event.severity for event in one.events("emergency")] == ["critical"]


def test_a_clock_that_goes_back_an_hour_changes_nothing(
    loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_back = tmp_path / "go-back"
    one = loop(
        f"""
        if time.time is clock and os.path.exists({str(go_back)!r}):
            time.time = lambda: clock() - 3600.0
        """,
        "clock = time.time",
    )
    watch, words = BeatWatch(one.run), []

    def went_back() -> bool:
        words.append(watch.look(read_manifest(one.run)).word)
        return watch.heartbeat is not None and watch.heartbeat.t < time.time() - 1800.0

    assert not went_back()
    go_back.touch()
    until(went_back)
    # The host's clock is the reader's too; this one looks for the first time.
    clock = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() - 3600.0)
        words.append(BeatWatch(one.run).look(read_manifest(one.run)).word)
    assert set(words) == {Word.LIVE}
    asked = send(one.run, "set_log_every", args={"value": 7}, ttl_s=30.0)
    until(lambda: (ack := read_ack(one.run, asked.id)) and ack.ended)
    one.kill()
    assert one.end()[0] == 143
    ack = read_ack(one.run, asked.id)
    assert ack is not None
    assert [stage.stage for stage in ack.stages] == ["seen", "done"]
    samples = [record for record in read_all(one.run.telemetry(), Sample) if isinstance(record, Sample)]
    assert [sample.seq for sample in samples] == list(range(len(samples)))
    assert [sample.step for sample in samples] == sorted(sample.step for sample in samples)
    assert samples[-1].t < samples[0].t - 1800.0
    events = [record.seq for record in read_all(one.run.events, Event) if isinstance(record, Event)]
    assert events == list(range(len(events)))


def test_a_process_that_has_the_pid_of_a_killed_run_is_not_asked(loop: Callable[..., Loop]) -> None:
    one = loop()
    one.kill(signal.SIGKILL)
    one.process.communicate()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            manifest = read_manifest(one.run)
            assert manifest.sessions[-1].start_ticks != start_ticks(stranger.pid)
            manifest.sessions[-1].pid = stranger.pid
            write_document(one.run.manifest, encode_document(manifest))
            assert BeatWatch(one.run).look(manifest).word is Word.KILLED
            for verb in ("abort", "checkpoint"):
                refused = core("ctl", one.run.path, verb)
                assert (refused.returncode, refused.stdout) == (1, "")
                assert f"(process {stranger.pid}) is gone" in refused.stderr
            assert os.listdir(one.run.mailbox_in) == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_flood_of_commands_is_answered_while_the_loop_steps_and_the_abort_at_its_end_obeyed(
    loop: Callable[..., Loop], count: int
) -> None:
    one = loop()
    manifest = read_manifest(one.run)
    ids = [f"{number:032x}" for number in range(count - 1)] + ["f" * 32]
    for number, command_id in enumerate(ids):
        verb = "abort" if number == count - 1 else ("set_log_every", "tag")[number % 2]
        command = Command(command_id, manifest.sessions[-1].id, verb, time.time(), args={"value": 1})
        write_document(one.run.command(command_id), encode_document(command), mode=0o600, durable=False)
    step, words = one.last_step, set()
    watch = BeatWatch(one.run)

    def ended() -> bool:
        words.add(watch.look(manifest).word)
        return one.process.poll() is not None

    until(ended, 200.0)
    code, _, err = one.end()
    assert code == 76, err
    assert not words & {Word.SILENT, Word.HUNG}
    stopped_at = one.emergency().step
    assert stopped_at is not None
    assert stopped_at > step

    acks = {command_id: read_ack(one.run, command_id) for command_id in ids}
    stages = {command_id: [stage.stage for stage in ack.stages] if ack else [] for command_id, ack in acks.items()}
    assert stages.pop("f" * 32) == ["seen", "acting", "checkpoint", "stopped"]
    assert set(map(tuple, stages.values())) <= {("seen", "done"), ("seen", "refused"), ("refused",)}
    assert len(os.listdir(one.run.mailbox_out)) == count
    assert os.listdir(one.run.mailbox_in) == []
    told = Counter(
        event.data.get("id") or event.data["name"].removesuffix(".json")
        for event in one.events("command")
        if event.data["stage"] in ("done", "refused", "stopped")
    )
    assert told == dict.fromkeys(ids, 1)


def test_a_listening_thread_that_dies_is_told_and_the_run_listens_on(loop: Callable[..., Loop]) -> None:
    one = loop(
        """
        if step == 5:
            monitor.writer.heartbeat.watch(lambda: deaths and deaths.pop()())
        """,
        "deaths = [sys.exit]",
    )
    (note,) = until(lambda: one.events("note"))
    assert (note.severity, note.data["text"]) == (
        "critical",
        "the listening thread died and was started again: SystemExit: ",
    )
    send(one.run, "abort")
    assert one.end()[0] == 76


def test_a_loop_that_hangs_warns_with_the_stacks_and_takes_it_back_when_it_goes_on(
    loop: Callable[..., Loop], tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    one = loop(
        f"""
        if step == 5:
            stand_still({str(go_on)!r})
        """,
        """
        from qig_core.safety.profile import Profile, Stall
        settings = {"profile": Profile(name="mine", limits=(Stall(min_s=0.5),))}
        def stand_still(until):
            while not os.path.exists(until):
                time.sleep(0.01)
        """,
    )

    def said(state: str) -> list[Event]:
        return [event for event in one.events("condition") if event.data["state"] == state]

    (warning,) = until(lambda: said("warning"))
    assert (warning.step, warning.severity) == (4, "warning")
    data = {name: warning.data[name] for name in ("id", "metric", "comparison", "limit", "unit", "since_step", "doing")}
    assert data == {
        "id": "no_step", "metric": "step_age", "comparison": "<=", "limit": 0.5, "unit": "s", "since_step": 4,
        "doing": "step",
    }  # fmt: skip
    assert warning.data["value"] > 0.5
    assert "in stand_still" in (one.run.emergencies / warning.data["stacks"]).read_text()
    ok = len(said("ok"))
    go_on.touch()
    until(lambda: len(said("ok")) > ok)
    one.kill()
    assert one.end()[0] == 143
