"""One process's hold on a run: sessions, samples, the manifest, an orderly end, and what stands against it."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from qig_core.errors import ExitCode, RecordWriteError, RunFormatError, RunLocked, RunNotFound, UsageError
from qig_core.rundir import records as record_files
from qig_core.rundir import reserve
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock, lock_holder
from qig_core.rundir.mailbox import send
from qig_core.rundir.reader import read_all, read_document, read_manifest
from qig_core.rundir.schema import ConsciousnessTelemetry, Event, Heartbeat, Manifest, MetricSpec, Sample, Unreadable
from qig_core.rundir.values import decode_basin
from qig_core.rundir.writer import RunWriter, TelemetryCollector


def samples(path: Path) -> list[Sample]:
    return [r for r in read_all(path, Sample) if isinstance(r, Sample)]


def events(run: RunDir) -> list[Event]:
    return [r for r in read_all(run.events, Event) if isinstance(r, Event)]


def logged(tmp_path: Path, *metrics: Any, **options: Any) -> list[Sample]:
    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8, **options)
    for step, each in enumerate(metrics):
        collector.log(step, each)
    collector.close()
    return samples(tmp_path / "telemetry.jsonl")


def test_a_run_is_a_directory_with_these_files(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1", name="first", program="test")) as writer:
        writer.telemetry.log(0, {"phi": 0.5})
        writer.stream("gary1").log(0, {"phi": 0.25})
        assert read_manifest(writer.run).state == "running"
    found = sorted(str(path.relative_to(tmp_path / "r1")) for path in (tmp_path / "r1").rglob("*"))
    assert found == [
        "artifacts", "checkpoints", "emergencies", "events.jsonl", "heartbeat.json", "lock", "mailbox", "mailbox/in",
        "mailbox/out", "run.json", "telemetry.gary1.jsonl", "telemetry.jsonl",
    ]  # fmt: skip
    for folder in ("mailbox", "mailbox/in", "mailbox/out"):
        assert (tmp_path / "r1" / folder).stat().st_mode & 0o777 == 0o700
    manifest = read_manifest(writer.run)
    assert (manifest.state, manifest.exit_code, manifest.streams, manifest.format) == ("exited", 0, ["gary1"], 1)
    (session,) = manifest.sessions
    assert (session.id, session.pid, session.exit_code) == (writer.session, os.getpid(), 0)
    assert session.start_ticks is not None
    assert [e.kind for e in events(writer.run)] == ["start", "end"]
    assert read_document(writer.run.heartbeat, Heartbeat).doing == "stop"
    assert writer.run.streams() == ["gary1"]


def test_what_is_prepared_under_the_lock_is_told_at_the_start_and_what_is_refused_changes_nothing(
    tmp_path: Path,
) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as first:
        pass
    before = {path.name: path.read_bytes() for path in first.run.path.iterdir() if path.is_file()}

    def refuse(manifest: Manifest) -> str:
        assert lock_holder(first.run.lock) == os.getpid()
        manifest.total_steps = 9
        raise KeyError("refused")

    with pytest.raises(KeyError, match="refused"):
        RunWriter.reopen(first.run, prepare=refuse)
    assert {path.name: path.read_bytes() for path in first.run.path.iterdir() if path.is_file()} == before
    assert lock_holder(first.run.lock) is None

    def prepare(manifest: Manifest) -> str:
        manifest.total_steps = 9
        return "step-00000001"

    with RunWriter.reopen(first.run, prepare=prepare) as second:
        recorded = read_manifest(first.run)
        assert (recorded.total_steps, recorded.sessions[-1].resumed_from) == (9, "step-00000001")
    started = [e.data["resumed_from"] for e in events(second.run) if e.kind == "start"]
    assert started == [None, "step-00000001"]


def test_the_session_stands_on_its_first_sample_only_and_a_new_one_goes_on_with_the_numbers(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as first:
        assert [first.telemetry.log(step, {"phi": 0.5}) for step in (0, 1, 2)] == [0, 1, 2]
    with RunWriter.reopen(first.run, resumed_from="step-00000001") as second:
        assert second.telemetry.next_seq == 3
        assert [second.telemetry.log(step, {"phi": 0.5}) for step in (1, 2)] == [3, 4]
    assert first.session != second.session
    assert len(second.session) == 16
    found = samples(first.run.telemetry())
    assert [s.session for s in found] == [first.session, None, None, second.session, None]
    assert [s.step for s in found] == [0, 1, 2, 1, 2]
    assert [(e.seq, e.kind, e.session) for e in events(first.run)] == [
        (0, "start", first.session), (1, "end", first.session), (2, "start", second.session), (3, "end", second.session)
    ]  # fmt: skip
    manifest = read_manifest(first.run)
    assert [s.resumed_from for s in manifest.sessions] == [None, "step-00000001"]
    assert manifest.state == "exited"


def test_a_session_is_not_lost_with_a_sample_that_the_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8)
    with monkeypatch.context() as patch:
        patch.setattr(record_files, "_write", full)
        with pytest.raises(RecordWriteError):
            collector.log(0, {"phi": 0.5})
    assert collector.log(0, {"phi": 0.5}) == 0
    collector.close()
    assert samples(tmp_path / "telemetry.jsonl")[0].session == "ab" * 8


@pytest.mark.parametrize("buffered", [False, True])
def test_every_kind_of_number_is_written_as_a_number(tmp_path: Path, buffered: bool) -> None:
    metrics: dict[str, Any] = {
        "float": 0.5, "int": 3, "true": True, "false": False, "np64": np.float64(1.5), "np32": np.float32(0.25),
        "npint": np.int64(7), "npbool": np.bool_(True), "zero_d": np.array(2.5), "none": None, "big": 10**30,
    }  # fmt: skip
    (sample, ones, ints, empty, proxy) = logged(
        tmp_path, metrics, {"a": 1.0, "b": True}, {"a": 1, "b": 0}, {}, MappingProxyType({"a": 1.5}), buffered=buffered
    )
    assert sample.m == {
        "float": 0.5, "int": 3.0, "true": 1.0, "false": 0.0, "np64": 1.5, "np32": 0.25,
        "npint": 7.0, "npbool": 1.0, "zero_d": 2.5, "big": 1e30,
    }  # fmt: skip
    assert (ones.m, ints.m, empty.m, proxy.m) == ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}, {}, {"a": 1.5})
    assert b":true" not in (tmp_path / "telemetry.jsonl").read_bytes()


@pytest.mark.parametrize("buffered", [False, True])
def test_numbers_that_are_not_finite_are_kept_by_their_kind(tmp_path: Path, buffered: bool) -> None:
    (first, second) = logged(
        tmp_path,
        {"loss": math.nan, "phi": 0.5, "up": math.inf, "down": -math.inf, "np": np.float32("nan")},
        {"huge": 1e308, "huger": 1e308},
        buffered=buffered,
    )
    assert first.m == {"loss": None, "phi": 0.5, "up": None, "down": None, "np": None}
    assert first.nonfinite == {"loss": "nan", "up": "inf", "down": "-inf", "np": "nan"}
    assert (second.m, second.nonfinite) == ({"huge": 1e308, "huger": 1e308}, {})
    for line in (tmp_path / "telemetry.jsonl").read_bytes().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("buffered", [False, True])
def test_what_is_no_number_is_refused_where_it_is_logged(tmp_path: Path, buffered: bool) -> None:
    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8, buffered=buffered)
    with pytest.raises(ValueError, match="could not convert"):
        collector.log(0, {"loss": "high"})  # type: ignore[dict-item]  # on purpose
    with pytest.raises(ValueError, match="not a whole number of float32"):
        collector.log(0, {"loss": 1.5}, basin=b"12345")
    assert collector.log(0, {"loss": 1.5}) == 0
    collector.close()
    assert len(samples(tmp_path / "telemetry.jsonl")) == 1


def test_the_typed_record_a_basin_and_a_regime_are_recorded(tmp_path: Path) -> None:
    basin = np.linspace(0, 1, 64, dtype="<f4").tobytes()
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.telemetry.log(4, ConsciousnessTelemetry(phi=0.5, kappa=41.0), basin=basin, regime="geometric")
    (sample,) = samples(writer.run.telemetry())
    assert (sample.m, sample.regime) == ({"phi": 0.5, "kappa": 41.0}, "geometric")
    assert decode_basin(sample.basin or "") == basin


def test_steps_and_the_clock_may_go_back_but_seq_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 50.0, 75.0])
    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: next(clock))
        for step in (5, 2, 3):
            collector.log(step, {"phi": 0.5})
    collector.close()
    assert [(s.seq, s.step, s.t) for s in samples(tmp_path / "telemetry.jsonl")] == [
        (0, 5, 100.0), (1, 2, 50.0), (2, 3, 75.0)
    ]  # fmt: skip


def test_a_buffered_sample_is_what_was_logged_and_is_written_within_a_second_or_at_the_end(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1"), buffered=True) as writer:
        metrics = {"phi": 0.5}
        assert [writer.telemetry.log(0, metrics), writer.telemetry.log(1, metrics)] == [0, 1]
        metrics["phi"] = 0.75
        assert samples(writer.run.telemetry()) == []
        deadline = time.monotonic() + 10
        while len(samples(writer.run.telemetry())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert [s.m["phi"] for s in samples(writer.run.telemetry())] == [0.5, 0.5]
        writer.telemetry.log(2, metrics)
    assert [s.seq for s in samples(writer.run.telemetry())] == [0, 1, 2]


def test_a_buffer_that_two_threads_flush_is_written_once(tmp_path: Path) -> None:
    from threading import Thread

    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8, buffered=True)
    for _ in range(20):
        threads = [Thread(target=collector.flush) for _ in range(3)]
        for step in range(50):
            collector.log(step, {"phi": 0.5})
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    collector.close()
    assert [s.seq for s in samples(tmp_path / "telemetry.jsonl")] == list(range(1000))


def test_a_buffer_that_the_disk_refuses_keeps_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    collector = TelemetryCollector(tmp_path / "telemetry.jsonl", "ab" * 8, buffered=True)
    assert [collector.log(step, {"phi": 0.5}) for step in range(3)] == [0, 1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(record_files, "_write", full)
        with pytest.raises(RecordWriteError):
            collector.flush()
    assert collector.log(3, {"phi": 0.5}) == 3
    collector.close()
    assert [(s.seq, s.step) for s in samples(tmp_path / "telemetry.jsonl")] == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_buffered_and_fsync_always_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one"):
        RunWriter.create(tmp_path, Manifest(id="r1"), buffered=True, fsync="always")


def test_what_the_disk_refuses_in_the_background_is_raised_once_at_the_step_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1"), buffered=True) as writer:

        def full() -> None:
            raise RecordWriteError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer.telemetry, "flush", full)
            writer._each_second()
            with pytest.raises(RecordWriteError, match="No space"):
                writer.step_done(1)
        writer.step_done(2)


def test_a_listening_thread_that_breaks_goes_on_beating_and_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(step: int | None) -> list[Any]:
        raise KeyError("a mistake")

    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(writer.mailbox, "poll", broken)
            deadline = time.monotonic() + 10
            while writer.heartbeat.failure is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        beat = read_document(writer.run.heartbeat, Heartbeat).beat
        while read_document(writer.run.heartbeat, Heartbeat).beat == beat:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        writer.step_done(1)
    (note,) = [e for e in events(writer.run) if e.kind == "note"]
    assert (note.severity, note.data["text"]) == ("critical", "the listening thread failed: KeyError: 'a mistake'")


def test_what_breaks_again_every_second_is_noted_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now)
        for second in range(130):
            writer.heartbeat.failure = KeyError("a mistake")
            writer.step_done(second)
            now += 1.0
        writer.heartbeat.failure = KeyError("another")
        writer.step_done(130)
        monkeypatch.undo()
    assert [e.step for e in events(writer.run) if e.kind == "note"] == [0, 60, 120, 130]


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def notes(run: RunDir) -> list[tuple[str, str]]:
    return [(e.severity, e.data["text"]) for e in events(run) if e.kind == "note"]


def test_a_listening_thread_that_dies_is_started_again_at_the_step_boundary_and_noted(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        deaths: list[BaseException] = [SystemExit("first"), GeneratorExit("second")]

        def die() -> None:
            if deaths:
                raise deaths.pop(0)

        writer.heartbeat._period_s = 0.05
        writer.heartbeat.watch(die)
        for left in (1, 0):
            until(lambda left=left: len(deaths) == left and writer.heartbeat.death is not None)
            until(lambda: (writer.step_done(1), writer.heartbeat.death is None)[1])
        beat = read_document(writer.run.heartbeat, Heartbeat).beat
        until(lambda: read_document(writer.run.heartbeat, Heartbeat).beat > beat)
        sent = send(writer.run, "pause")
        until(lambda: [one.command for one in writer.mailbox.pending] == [sent])
    assert notes(writer.run) == [
        ("critical", f"the listening thread died and was started again: {why}")
        for why in ("SystemExit: first", "GeneratorExit: second")
    ]
    assert writer.heartbeat.death is None


def test_a_listening_thread_that_dies_each_time_beats_on_and_is_started_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        started: list[int] = []
        restart = writer.heartbeat.restart
        monkeypatch.setattr(writer.heartbeat, "restart", lambda: [started.append(1), restart()][1])
        writer.heartbeat._period_s = 0.01
        began = time.monotonic()

        def die() -> None:
            raise SystemExit("again")

        writer.heartbeat.watch(die)
        first = read_document(writer.run.heartbeat, Heartbeat).beat
        until(lambda: (writer.step_done(1), len(started) == 3)[1])
        assert read_document(writer.run.heartbeat, Heartbeat).beat >= first + 2
        assert time.monotonic() - began >= 2.0
    assert len(notes(writer.run)) == 1


def test_a_listening_thread_that_cannot_be_started_again_is_noted_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.heartbeat.watch(sys.exit)
        until(lambda: writer.heartbeat.death is not None)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            writer.step_done(1)
        assert isinstance(writer.heartbeat.death, SystemExit)
    assert notes(writer.run) == [
        ("critical", "the listening thread died and could not be started again (can't start new thread): SystemExit: ")
    ]


def test_between_two_boundaries_a_pause_looks_after_the_listening_thread_and_stays_a_pause(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.heartbeat.watch(sys.exit)
        until(lambda: writer.heartbeat.death is not None)
        writer.heartbeat.doing = "pause"
        writer.look_after(1)
        assert (writer.heartbeat.death, writer.heartbeat.doing, writer.heartbeat.step) == (None, "pause", None)
        writer.write_error = RecordWriteError(28, "No space left on device")
        with pytest.raises(RecordWriteError):
            writer.look_after(1)
        writer.look_after(1)
    assert len(notes(writer.run)) == 1


def test_a_beat_that_breaks_ends_neither_the_beats_nor_the_listening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(document: Any) -> bytes:
        raise TypeError("a mistake")

    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("qig_core.rundir.heartbeat.encode_document", broken)
            until(lambda: writer.heartbeat.failure is not None)
            heard: list[int] = []
            writer.heartbeat.watch(lambda: heard.append(1))
            until(lambda: heard)
        writer.step_done(1)
        assert writer.heartbeat.death is None
    assert notes(writer.run) == [("critical", "the listening thread failed: TypeError: a mistake")]


def test_a_watcher_that_breaks_keeps_no_other_from_being_called(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        heard: list[int] = []
        writer.heartbeat.watch(lambda: {}["absent"])
        writer.heartbeat.watch(lambda: heard.append(1))
        until(lambda: len(heard) > 1)
        assert isinstance(writer.heartbeat.failure, KeyError)


def test_a_flood_of_commands_holds_up_no_beat_and_is_all_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        now, polls = 0.0, 0

        def poll(step: int | None) -> list[Any]:
            nonlocal now, polls
            now, polls = now + 0.07, polls + 1
            return []

        writer.heartbeat._stop.set()
        writer.heartbeat._thread.join()
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: now)
            patch.setattr(writer.mailbox, "poll", poll)
            patch.setattr(writer.mailbox, "_listed", iter(["more"]))
            writer._each_second()
            assert polls == 5  # what 0.3 s hold
            patch.setattr(writer.mailbox, "_listed", iter(()))
            writer._each_second()
            assert polls == 6


def test_a_number_in_an_event_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.event("condition", step=3, severity="critical", id="loss", value=math.nan, np=np.float32(0.5))
        writer.declare([MetricSpec("temperature", "K")])
    condition, metrics = events(writer.run)[1:3]
    assert condition.data == {"id": "loss", "value": None, "np": 0.5, "nonfinite": {"value": "nan"}}
    assert metrics.data == {"specs": [{"name": "temperature", "unit": "K"}]}


def test_secrets_are_in_no_file_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--api-key=hunter2", "--steps", "5", "odd\udcff"])
    manifest = Manifest(id="r1", config={"api_key": "hunter2", "lr": 0.1, "limit": math.inf, "where": Path("x")})
    with RunWriter.create(tmp_path, manifest) as writer:
        pass
    with RunWriter.reopen(writer.run) as writer:
        # What a resume sets afterwards is redacted as well.
        writer.manifest.config = {"deep": [{"password": "hunter2"}]}
        writer.save_manifest()
        assert read_manifest(writer.run).config == {"deep": [{"password": "***"}]}
    for path in (tmp_path / "r1").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    assert read_manifest(writer.run).sessions[0].argv == ["train", "--api-key=***", "--steps", "5", "odd\\udcff"]


def test_a_config_that_is_not_finite_keeps_its_kind(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1", config={"limit": math.inf}, profile={"max": math.nan})) as writer:
        pass
    manifest = read_manifest(writer.run)
    assert (manifest.config, manifest.profile) == ({"limit": "inf"}, {"max": "nan"})


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "-x", "a" * 101, "a\n", "ä", "a b"])
def test_a_run_id_that_is_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    if not name:
        return
    with pytest.raises(UsageError, match="run id"):
        RunWriter.create(tmp_path / "runs", Manifest(id=name))
    assert not list(tmp_path.iterdir())


def test_a_run_that_exists_is_not_created_again(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")):
        pass
    with pytest.raises(UsageError, match="exists; resume that run"):
        RunWriter.create(tmp_path, Manifest(id="r1"))


def test_a_root_that_is_a_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("x")
    with pytest.raises(RecordWriteError, match="cannot make"):
        RunWriter.create(tmp_path / "runs", Manifest(id="r1"))


def test_what_is_no_run_is_not_reopened_and_nothing_is_left_there(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        RunWriter.reopen(RunDir(tmp_path / "absent"))
    with pytest.raises(RunNotFound):
        RunWriter.reopen(RunDir(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_newer_format_is_not_written_and_the_lock_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"id":"r1","format":2}')
    with pytest.raises(RunFormatError, match="upgrade"):
        RunWriter.reopen(RunDir(tmp_path))
    assert lock_holder(tmp_path / "lock") is None


def test_a_run_that_cannot_be_opened_whole_is_closed_whole(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        pass
    writer.run.telemetry().unlink()
    writer.run.telemetry().mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RecordWriteError, match="Is a directory"):
        RunWriter.reopen(writer.run)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert lock_holder(writer.run.lock) is None


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        pass
    left = [".run.json.0123456789ab.tmp", ".heartbeat.json.0123456789ab.tmp"]
    kept = [".notes.md.0123456789ab.tmp", ".run.json.swp", "notes.md"]
    for name in (*left, *kept):
        (writer.run.path / name).write_text("x")
    with RunWriter.reopen(writer.run):
        pass
    there = {path.name for path in writer.run.path.iterdir()}
    assert not there & set(left)
    assert set(kept) <= there


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), 1),
        (SystemExit(3), 3),
        (SystemExit(None), 0),
        (SystemExit("text"), 1),
        (KeyboardInterrupt(), 130),
        (RunLocked("x"), 73),
    ],
)
def test_the_exit_code_of_what_ended_the_block_is_recorded(tmp_path: Path, error: BaseException, code: int) -> None:
    with pytest.raises(type(error)), RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        raise error
    manifest = read_manifest(writer.run)
    assert (manifest.exit_code, manifest.sessions[0].exit_code) == (code, code)
    assert manifest.reason.startswith(type(error).__name__)


class SmallDisk:
    """No write(2) of this process makes the files below a folder larger than they are now, all together."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._size = self._used()
        self._write = os.write
        patch.setattr(os, "write", self.write)
        patch.setattr(record_files, "_write", self.write)

    def _used(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def write(self, fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(self._folder)) and self._used() + len(data) > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, data)


def test_a_run_that_a_full_disk_stopped_says_so_in_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter.create(tmp_path, Manifest(id="r1", config={"text": "x" * 50_000}))
    SmallDisk(tmp_path, monkeypatch)
    with pytest.raises(RecordWriteError, match="No space left"):
        writer.telemetry.log(0, {"loss": 1.0})
    with pytest.raises(RecordWriteError, match="No space left"):
        writer.close(74, "the disk is full")
    manifest = read_manifest(writer.run)
    assert (manifest.state, manifest.exit_code, manifest.reason) == ("exited", 74, "the disk is full")
    assert lock_holder(writer.run.lock) is None


def test_the_reserve_is_there_while_a_run_lives_and_after_a_kill_it_is_used_again(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, Manifest(id="r1"))
    writer.heartbeat.stop()
    assert writer.run.reserve.stat().st_size >= 65536
    writer._lock.release()  # as a kill would
    with RunWriter.reopen(RunDir(tmp_path / "r1")) as again:
        assert again.run.reserve.stat().st_size >= 65536
    assert not again.run.reserve.exists()


def test_a_disk_too_full_for_a_reserve_does_not_keep_a_run_from_its_start(tmp_path: Path) -> None:
    reserve.keep(tmp_path / "absent" / ".reserve", 10)
    reserve.keep(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_program_may_change_its_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunWriter.create(Path("runs"), Manifest(id="r1")) as writer:
        monkeypatch.chdir("/")
        writer._each_second()
    assert writer.write_error is None
    assert read_manifest(RunDir(tmp_path / "runs" / "r1")).state == "exited"


def test_a_directory_that_vanished_is_told_at_the_step_boundary(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, Manifest(id="r1"))
    (tmp_path / "r1").rename(tmp_path / "elsewhere")
    writer._each_second()
    with pytest.raises(RecordWriteError, match=r"r1' is gone, deleted or moved"):
        writer.step_done(0)
    with pytest.raises(RecordWriteError):
        writer.close(74)


def test_a_full_disk_at_the_end_hides_neither_the_error_before_it_nor_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def failing() -> None:
        with RunWriter.create(tmp_path, Manifest(id="r1")):
            monkeypatch.setattr(record_files, "_write", full)
            raise KeyError("the reason")

    with pytest.raises(KeyError):
        failing()
    assert lock_holder(tmp_path / "r1" / "lock") is None
    # What can be written is: the manifest goes another way than the records.
    assert read_manifest(RunDir(tmp_path / "r1")).state == "exited"


OPEN = """
import sys
from qig_core.errors import QigError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.writer import RunWriter
try:
    RunWriter.reopen(RunDir(sys.argv[1])).close()
except QigError as error:
    print(type(error).__name__, error)
    sys.exit(int(error.exit_code))
"""

HOLD = """
import os, sys, time
from pathlib import Path
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
writer = RunWriter.create(Path(sys.argv[1]), Manifest(id="held"))
writer.telemetry.log(0, {"phi": 0.5})
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
print("ready", flush=True)
time.sleep(60)
"""


def open_elsewhere(run: RunDir) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN, str(run.path)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_writer_in_this_or_another_process_is_refused_with_73(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        with pytest.raises(RunLocked, match=f"process {os.getpid()}"):
            RunWriter.reopen(writer.run)
        # The refusal must not have dropped the lock, as closing any descriptor of the file would.
        refused = open_elsewhere(writer.run)
        assert (refused.returncode, ExitCode.LOCKED) == (73, 73)
        assert f"is being written by process {os.getpid()}" in refused.stdout
        assert lock_holder(writer.run.lock) == os.getpid()
        assert open_elsewhere(writer.run).returncode == 73
    assert open_elsewhere(writer.run).returncode == 0


@pytest.mark.parametrize("fork", ["plain", "fork"])
def test_a_killed_writer_frees_the_lock_even_when_a_forked_worker_lives_on(tmp_path: Path, fork: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), fork], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip()]
    if fork == "fork":
        lines.append(process.stdout.readline().strip())
    assert lines[-1] == "ready"
    run = RunDir(tmp_path / "held")
    try:
        assert lock_holder(run.lock) == process.pid
        with pytest.raises(RunLocked, match=f"process {process.pid}"):
            RunLock(run.lock)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        assert lock_holder(run.lock) is None
        with RunWriter.reopen(run) as writer:
            assert writer.telemetry.log(1, {"phi": 0.5}) == 1
    finally:
        if fork == "fork":
            os.kill(int(lines[0]), signal.SIGKILL)


FORKED_CLOSE = """
import os, sys
from pathlib import Path
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
with RunWriter.create(Path(sys.argv[1]), Manifest(id="r1")) as writer:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        assert lock_holder(writer.run.lock) == parent
        writer.close(9)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert read_manifest(writer.run).state == "running"
    assert lock_holder(writer.run.lock) == parent
"""


def test_a_forked_child_cannot_end_its_parents_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED_CLOSE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [e.kind for e in events(RunDir(tmp_path / "r1"))] == ["start", "end"]


FORKED_STEP = """
import os, sys, threading
from pathlib import Path
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
with RunWriter.create(Path(sys.argv[1]), Manifest(id="r1")) as writer:
    child = os.fork()
    if child == 0:
        writer.heartbeat.death = SystemExit("the parent's")
        writer.step_done(1)
        os._exit(5 if threading.active_count() == 1 and writer.heartbeat.death is not None else 6)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
"""


def test_a_forked_child_starts_no_heartbeat(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED_STEP, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [e.kind for e in events(RunDir(tmp_path / "r1"))] == ["start", "end"]


def test_a_lock_that_cannot_be_made_is_an_error_of_the_disk_not_another_writer(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(RecordWriteError, match="cannot lock"):
        RunLock(tmp_path / "lock")


def test_a_lock_is_free_after_its_release_and_asking_takes_nothing(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock")
    assert lock_holder(tmp_path / "lock") == os.getpid()
    lock.release()
    lock.release()
    assert lock_holder(tmp_path / "lock") is None
    assert lock_holder(tmp_path / "absent") is None
    assert (tmp_path / "lock").stat().st_size == 0


def test_a_torn_event_and_sample_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.telemetry.log(0, {"phi": 0.5})
    for path in (writer.run.telemetry(), writer.run.events):
        with path.open("ab") as file:
            file.write(b'{"seq":9')
    with RunWriter.reopen(writer.run) as writer:
        assert writer.telemetry.log(1, {"phi": 0.5}) == 1
    for records in (read_all(writer.run.telemetry(), Sample), read_all(writer.run.events, Event)):
        assert sum(isinstance(r, Unreadable) for r in records) == 1
        seqs = [r.seq for r in records if not isinstance(r, Unreadable)]
        assert seqs == sorted(set(seqs))


def test_a_run_that_the_disk_refuses_to_begin_leaves_no_directory_in_the_way(tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        from pathlib import Path
        from qig_core.errors import RecordWriteError
        from qig_core.rundir.schema import Manifest
        from qig_core.rundir.writer import RunWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            RunWriter.create(Path("runs"), Manifest(id="r"))
        except RecordWriteError as error:
            print(error.strerror)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "File too large" in done.stdout
    assert list((tmp_path / "runs").iterdir()) == []
