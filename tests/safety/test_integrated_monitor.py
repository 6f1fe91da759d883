import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from qig_core.errors import RecordWriteError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.mailbox import Pending, read_ack, send
from qig_core.rundir.schema import Ack, CheckpointManifest, Command, Event, Manifest, Sample
from qig_core.rundir.writer import RunWriter
from qig_core.safety.emergency import EmergencyRecord
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import DEFAULT, OFF, to_dict
from qig_core.safety.saves import SaveRequest

NAN = float("nan")


def fake_save(request: SaveRequest) -> CheckpointManifest:
    """A checkpoint that is only a manifest."""
    return CheckpointManifest(
        name=f"step-{request.step}",
        run=request.run.id,
        session=request.session,
        step=request.step,
        t=time.time(),
        reason=request.reason,
        files=[],
        fingerprint="f" * 64,
        **request.facts(),
    )


class Saves:
    """Remembers what was asked for."""

    def __init__(self) -> None:
        self.requests: list[SaveRequest] = []

    def __call__(self, request: SaveRequest) -> CheckpointManifest:
        self.requests.append(request)
        return fake_save(request)


def broken_save(request: SaveRequest) -> CheckpointManifest:
    raise OSError(28, "No space left on device")


def events(run: RunDir, kind: str | None = None) -> list[Event]:
    lines = run.events.read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=Event) for line in lines]
    return [event for event in found if kind in (None, event.kind)]


def samples(run: RunDir) -> list[Sample]:
    return [msgspec.json.decode(line, type=Sample) for line in run.telemetry().read_bytes().splitlines()]


def manifest(run: RunDir) -> Manifest:
    return msgspec.json.decode(run.manifest.read_bytes(), type=Manifest)


def emergency(run: RunDir) -> EmergencyRecord:
    (path,) = run.emergencies.glob("*.json")
    return msgspec.json.decode(path.read_bytes(), type=EmergencyRecord)


def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def saves() -> Saves:
    return Saves()


def ask(monitor: IntegratedMonitor, verb: str, **args: Any) -> Command:
    """Send a command and wait until the trainer has seen it."""
    # Not by `send`, which refuses at once what no trainer answers.
    run = monitor.writer.run
    command = Command(id=secrets.token_hex(16), session=monitor.writer.session, verb=verb, t=time.time(), args=args)
    write_document(run.command(command.id), encode_document(command), mode=0o600)
    monitor.writer.mailbox.poll(None)  # what the heartbeat thread does within a second, if it has not just done it
    until(lambda: monitor.writer.mailbox.pending)
    return command


def stages(run: RunDir, command: Command) -> list[str]:
    ack = read_ack(run, command.id)
    assert isinstance(ack, Ack)
    return [stage.stage for stage in ack.stages]


def test_a_run_that_comes_to_its_end_is_recorded_saved_and_closed(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, name="mine", config={"lr": 0.1}, save=saves, checkpoint_every=4) as monitor:
        for step in range(10):
            assert monitor.check(step, {"loss": 2.0 - 0.1 * step})
        made = monitor.finish(10)
    assert (monitor.exit_code, monitor.reason, monitor.error) == (0, "", None)
    assert [(request.step, request.reason) for request in saves.requests] == [
        (4, "interval"),
        (8, "interval"),
        (10, "end"),
    ]
    run = monitor.writer.run
    assert [sample.step for sample in samples(run)] == list(range(10))
    assert (manifest(run).state, manifest(run).exit_code, manifest(run).profile) == ("exited", 0, to_dict(DEFAULT))
    assert [event.data["reason"] for event in events(run, "checkpoint")] == ["interval", "interval", "end"]
    assert made is not None
    assert made.metrics == {"loss": pytest.approx(1.1)}
    assert list(run.emergencies.iterdir()) == []


def test_a_save_request_holds_what_is_known(tmp_path: Path, saves: Saves) -> None:
    basin = bytes(256)
    with IntegratedMonitor.open(tmp_path, save=saves, corpus_digest="c", parent="step-1") as monitor:
        monitor.check(0, {"loss": 2.0, "phi": 0.7}, basin=basin, regime="geometric")
        monitor.check(1, {"loss": 1.9, "kappa": NAN})
        monitor.finish(2)
    (request,) = saves.requests
    facts = request.facts()
    assert facts["metrics"] == {"loss": 1.9, "phi": 0.7, "kappa": None}
    assert facts["nonfinite"] == {"kappa": "nan"}
    assert facts["basin"] == samples(monitor.writer.run)[0].basin
    assert (facts["regime"], facts["corpus_digest"], facts["parent"], facts["seq"]) == ("geometric", "c", "step-1", 1)
    assert facts["conditions"] == {limit.id: "unarmed" for limit in DEFAULT.judged} | {"nonfinite": "ok"}
    json.dumps(request.monitor_state, allow_nan=False)
    assert facts.keys() <= set(CheckpointManifest.__struct_fields__)


def test_every_condition_is_told_at_the_start_and_at_each_transition(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        monitor.check(1, {"loss": 1.0})
        monitor.check(2, {"loss": NAN})
    told = [
        (event.step, event.data["id"], event.data["state"], event.severity)
        for event in events(monitor.writer.run, "condition")
    ]
    assert told == [
        *((None, limit.id, "unarmed", "info") for limit in DEFAULT.limits),
        (0, "nonfinite", "ok", "info"),
        (2, "nonfinite", "critical", "critical"),
    ]
    last = events(monitor.writer.run, "condition")[-1].data
    assert last == {
        "id": "nonfinite",
        "state": "critical",
        "metric": "loss",
        "comparison": "finite",
        "limit": None,
        "unit": "",
        "value": None,
        "nonfinite": {"value": "nan", "window.2.1": "nan"},
        "since_step": 2,
        "dwell": 1,
        "cause": ["loss"],
        "window": [[0, 1.0], [1, 1.0], [2, None]],
    }


def test_a_critical_limit_stops_the_run_before_the_update_with_75(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves, log_every=100) as monitor:
        assert monitor.check(0, {"loss": 1.0})
        assert monitor.check(1, {"loss": 1.0})
        assert not monitor.check(2, {"loss": NAN, "grad_norm": float("inf")})
        assert not monitor.check(3, {"loss": 1.0})
    run = monitor.writer.run
    assert monitor.exit_code == manifest(run).exit_code == 75
    (request,) = saves.requests
    assert (request.step, request.reason, request.nonfinite) == (2, "emergency", {"loss": "nan", "grad_norm": "inf"})
    record = emergency(run)
    assert record.cause.kind == "limit"
    assert record.cause.detail == "nonfinite: loss, grad_norm not finite"
    assert (record.step, record.exit_code, record.checkpoint) == (2, 75, "step-2")
    assert [sample.step for sample in record.samples] == [0, 1, 2]
    assert record.samples[-1].nonfinite == {"loss": "nan", "grad_norm": "inf"}
    assert record.conditions[0]["id"] == "nonfinite"
    assert [stage.stage for stage in record.stages] == ["requested", "checkpointing", "stopped"]
    (event,) = events(run, "emergency")
    assert event.data == {
        "id": record.id,
        "cause": "limit nonfinite: loss, grad_norm not finite",
        "checkpoint": "step-2",
        "exit_code": 75,
    }
    # Steps 0 and 2: the first of everything, and the transition. Step 1 was not due.
    assert [sample.step for sample in samples(run)] == [0, 2]


def test_why_a_metric_has_no_value_is_told_when_it_changes_and_in_the_cause_of_a_stop(tmp_path: Path) -> None:
    basin, silent = bytes(256), {"kappa": "encoder shows no attention"}
    with IntegratedMonitor.open(tmp_path, signals=False) as monitor:
        run = monitor.writer.run
        for step, (measured, reasons) in enumerate([(basin, silent), (None, {}), (basin, silent), (basin, {})]):
            assert monitor.check(step, {"loss": 1.0}, basin=measured, reasons=reasons)
        assert not monitor.check(4, {"loss": 1.0, "phi": NAN}, reasons={"phi": "nan, first in head"})
    assert [(event.step, event.data) for event in events(run, "unmeasured")] == [
        (0, {"reasons": silent}),
        (3, {"reasons": {}}),
        (4, {"reasons": {"phi": "nan, first in head"}}),
    ]
    assert "phi not finite (nan, first in head)" in monitor.reason
    (emergency,) = events(run, "emergency")
    assert "nan, first in head" in str(emergency.data["cause"])


def test_an_emergency_keeps_the_last_200_samples(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        for step in range(250):
            monitor.check(step, {"loss": 1.0})
        monitor.check(250, {"loss": NAN})
    assert [sample.step for sample in emergency(monitor.writer.run).samples] == list(range(51, 251))


def test_the_profile_off_stops_nothing(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path, profile=OFF) as monitor:
        assert monitor.check(0, {"loss": NAN})
    assert monitor.exit_code == 0


def test_a_metric_may_be_a_tensor_of_one_number_and_nothing_is_warned_of(tmp_path: Path) -> None:
    loss = torch.tensor(1.5, requires_grad=True)
    with warnings.catch_warnings(), IntegratedMonitor.open(tmp_path) as monitor:
        warnings.simplefilter("error")
        assert monitor.check(0, {"loss": loss})
        assert monitor.check(1, {"loss": loss, "phi": np.float32(0.5), "n": np.array([3]), "kappa": None})
        assert not monitor.check(2, {"loss": loss * NAN, "phi": 0.5})
    first, second, third = samples(monitor.writer.run)
    assert (first.m, second.m) == ({"loss": 1.5}, {"loss": 1.5, "phi": 0.5, "n": 3.0})
    assert third.nonfinite == {"loss": "nan"}


def test_the_manifest_names_the_versions_of_what_the_loop_has_imported(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        found = monitor.writer.manifest.versions
    assert (found["torch"], found["numpy"]) == (str(torch.__version__), np.__version__)
    code = (
        "import sys; from qig_core.safety.integrated import IntegratedMonitor\n"
        "with IntegratedMonitor.open(sys.argv[1]) as monitor: print(*monitor.writer.manifest.versions)\n"
        "assert 'torch' not in sys.modules"
    )
    bare = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "torch" not in bare.stdout


def test_what_is_measured_beyond_the_cheap_is_always_logged(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path, log_every=10) as monitor:
        for step in range(30):
            metrics: dict[str, float | None] = {"loss": 1.0, "phi": 0.5 if step % 7 == 0 else None}
            monitor.check(step, metrics, regime="linear" if step == 24 else None)
    assert [sample.step for sample in samples(monitor.writer.run)] == [0, 7, 10, 14, 20, 21, 24, 28]


def test_an_emergency_checkpoint_that_fails_is_77(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path, save=broken_save) as monitor:
        assert not monitor.check(0, {"loss": NAN})
    record = emergency(monitor.writer.run)
    assert monitor.exit_code == record.exit_code == 77
    assert "No space left on device" in record.note


def test_interval_checkpoints_that_fail_are_alerts_told_once_on_the_terminal_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with IntegratedMonitor.open(tmp_path, save=broken_save, checkpoint_every=2) as monitor:
        for step in range(7):
            assert monitor.check(step, {"loss": 1.0})
    run = monitor.writer.run
    assert events(run, "checkpoint") == []  # such an event is a checkpoint that exists
    sentence = "no interval checkpoint: OSError: [Errno 28] No space left on device"
    assert [(e.step, e.severity, e.data) for e in events(run, "alert")] == [
        (step, "critical", {"text": sentence}) for step in (2, 4, 6)
    ]
    assert capsys.readouterr().err == f"qig: step 2: {sentence}\n"
    assert monitor.exit_code == 0


def test_a_profile_can_have_a_failed_checkpoint_end_the_run(tmp_path: Path) -> None:
    def refused_once(request: SaveRequest) -> CheckpointManifest:
        return fake_save(request) if request.reason == "emergency" else broken_save(request)

    strict = msgspec.structs.replace(OFF, name="strict", on_failed_save="stop")
    with IntegratedMonitor.open(tmp_path, profile=strict, save=refused_once, checkpoint_every=2) as monitor:
        went_on = [monitor.check(step, {"loss": 1.0}) for step in range(4)]
    assert went_on == [True, True, True, False]
    assert monitor.exit_code == 74
    assert "no interval checkpoint: OSError: [Errno 28] No space left on device; checkpoint " in monitor.reason


def test_a_failure_after_a_checkpoint_that_was_made_is_told_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def now_and_then(request: SaveRequest) -> CheckpointManifest:
        return fake_save(request) if request.step == 2 else broken_save(request)

    with IntegratedMonitor.open(tmp_path, save=now_and_then, checkpoint_every=1) as monitor:
        for step in range(4):
            monitor.check(step, {"loss": 1.0})
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [" step 1", " step 3"]


def test_a_checkpoint_at_the_end_that_the_disk_refuses_is_74_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with IntegratedMonitor.open(tmp_path, save=broken_save) as monitor:
        monitor.check(0, {"loss": 1.0})
        assert monitor.finish(1) is None
    assert monitor.exit_code == 74
    assert isinstance(monitor.error, OSError)
    assert "no end checkpoint: OSError" in capsys.readouterr().err


def test_an_exception_of_the_loop_is_recorded_and_raised_again(tmp_path: Path, saves: Saves) -> None:
    monitor = IntegratedMonitor.open(tmp_path, save=saves)

    def loop() -> None:
        with monitor:
            monitor.check(0, {"loss": 1.0})
            raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        loop()
    record = emergency(monitor.writer.run)
    assert (monitor.exit_code, record.exit_code, record.checkpoint) == (1, 1, None)
    assert "ZeroDivisionError: division by zero" in record.traceback
    assert saves.requests == []
    assert manifest(monitor.writer.run).exit_code == 1


def test_sys_exit_in_the_loop_is_an_end_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), IntegratedMonitor.open(tmp_path) as monitor:
        sys.exit(3)
    assert (monitor.exit_code, manifest(monitor.writer.run).exit_code) == (3, 3)
    assert list(monitor.writer.run.emergencies.iterdir()) == []


def test_an_abort_by_mailbox_passes_its_stages(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        assert monitor.check(0, {"loss": 1.0})
        command = ask(monitor, "abort")
        assert not monitor.check(1, {"loss": 1.0})
    run = monitor.writer.run
    assert monitor.exit_code == 76
    assert stages(run, command) == ["seen", "acting", "checkpoint", "stopped"]
    ack = read_ack(run, command.id)
    assert ack is not None
    assert ack.stages[2].detail == {"name": "step-1", "digest": "f" * 64}
    assert ack.stages[3].detail == {"exit_code": 76}
    assert emergency(run).cause.kind == "command"


@pytest.mark.parametrize(
    ("save", "why", "severity", "exit_code"),
    [
        (fake_save, "command", "info", 76),
        (fake_save, "signal", "info", 130),
        (None, "command", "warning", 76),
        (broken_save, "command", "critical", 77),
        (fake_save, "limit", "critical", 75),
    ],
)
def test_a_stop_that_was_asked_for_is_no_emergency_unless_it_fails(
    tmp_path: Path, save: Any, why: str, severity: str, exit_code: int
) -> None:
    with IntegratedMonitor.open(tmp_path, save=save) as monitor:
        if why == "signal":
            signal.raise_signal(signal.SIGINT)
        elif why == "command":
            ask(monitor, "abort")
        monitor.check(0, {"loss": NAN if why == "limit" else 1.0})
    (event,) = events(monitor.writer.run, "emergency")
    assert (event.severity, monitor.exit_code) == (severity, exit_code)


def test_an_abort_without_a_save_function_works_and_says_so(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        command = ask(monitor, "abort")
        assert not monitor.check(1, {"loss": 1.0})
    ack = read_ack(monitor.writer.run, command.id)
    assert ack is not None
    assert ack.last is not None
    assert ack.last.detail == {"exit_code": 76, "note": "no checkpoint: this loop gave no save function"}


def test_a_checkpoint_by_mailbox_is_made_at_the_boundary(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        monitor.check(0, {"loss": 1.0})
        command = ask(monitor, "checkpoint")
        assert monitor.check(1, {"loss": 1.0})
    assert stages(monitor.writer.run, command) == ["seen", "acting", "done"]
    assert [(request.step, request.reason) for request in saves.requests] == [(1, "command")]
    assert [event.data["stage"] for event in events(monitor.writer.run, "command")] == ["acting", "done"]


@pytest.mark.parametrize(
    ("verb", "args", "reason"),
    [
        ("checkpoint", {}, "this loop gave no save function"),
        ("soft_reset", {}, "this loop gave no restore function"),
        ("restore", {"checkpoint": "step-00000001-abcdef"}, "this loop gave no restore function"),
        (
            "prune",
            {},
            "this loop's save function looks after no checkpoints; qig_core.checkpoints.saving.saver makes one",
        ),
        ("resume", {}, "the run is not paused"),
        ("set_log_every", {"value": 0}, "whole number"),
        ("set_log_every", {"value": "3"}, "whole number"),
    ],
)
def test_a_command_that_cannot_be_obeyed_is_refused_with_the_reason(
    tmp_path: Path, verb: str, args: dict[str, Any], reason: str
) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        command = ask(monitor, verb, **args)
        assert monitor.check(1, {"loss": 1.0})
    ack = read_ack(monitor.writer.run, command.id)
    assert ack is not None
    assert ack.last is not None
    assert ack.last.stage == "refused"
    assert reason in ack.last.detail["reason"]


def test_a_late_command_is_refused_but_an_abort_never_is(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        monitor.check(0, {"loss": 1.0})
        session, long_ago = monitor.writer.session, time.monotonic() - 121.0
        late = Command("a" * 32, session, "checkpoint", time.time())
        monitor.writer.mailbox.pending.append(Pending(late, long_ago))
        assert monitor.check(1, {"loss": 1.0})
        assert saves.requests == []
        abort = Command("b" * 32, session, "abort", time.time())
        monitor.writer.mailbox.pending.append(Pending(abort, long_ago))
        assert not monitor.check(2, {"loss": 1.0})
    ack = read_ack(monitor.writer.run, late.id)
    assert ack is not None
    assert ack.last is not None
    assert (ack.last.stage, ack.last.detail["reason"]) == ("refused", "too late: seen more than 120 s ago")
    assert monitor.exit_code == 76


def test_a_command_that_comes_after_the_last_boundary_is_refused(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        command = ask(monitor, "pause")
    assert stages(monitor.writer.run, command) == ["seen", "refused"]


def test_a_pause_is_sat_out_until_resume_and_is_no_step_time(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        pause = ask(monitor, "pause")
        resumes: list[Command] = []

        def later() -> None:
            until(lambda: monitor.writer.heartbeat.doing == "pause")
            resumes.append(send(monitor.writer.run, "resume"))

        thread = threading.Thread(target=later)
        thread.start()
        assert monitor.check(1, {"loss": 1.0})
        thread.join()
        assert monitor.writer.heartbeat.doing == "step"
    assert stages(monitor.writer.run, pause) == ["seen", "done"]
    assert stages(monitor.writer.run, resumes[0]) == ["seen", "done"]


def test_a_paused_run_can_be_stopped_by_a_signal(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        ask(monitor, "pause")
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        assert not monitor.check(1, {"loss": 1.0})
        timer.join()
    assert monitor.exit_code == 143


def test_log_every_is_changed_by_command(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        monitor.check(0, {"loss": 1.0})
        command = ask(monitor, "set_log_every", value=5)
        for step in range(1, 12):
            monitor.check(step, {"loss": 1.0})
    assert stages(monitor.writer.run, command) == ["seen", "done"]
    assert [sample.step for sample in samples(monitor.writer.run)] == [0, 1, 5, 10]


def test_a_signal_after_the_last_boundary_still_names_the_exit_code(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        monitor.check(0, {"loss": 1.0})
        signal.raise_signal(signal.SIGTERM)
    assert monitor.exit_code == emergency(monitor.writer.run).exit_code == 143
    assert saves.requests == []


def test_a_signal_before_finish_stops_with_an_emergency_checkpoint(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        monitor.check(0, {"loss": 1.0})
        signal.raise_signal(signal.SIGTERM)
        assert monitor.finish(1) is not None
    assert [(request.step, request.reason) for request in saves.requests] == [(1, "emergency")]
    assert monitor.exit_code == 143


def test_a_session_goes_on_where_the_last_one_judged(tmp_path: Path, saves: Saves) -> None:
    with IntegratedMonitor.open(tmp_path, save=saves) as first:
        for step in range(300):
            first.check(step, {"loss": 2.0 + 0.1 * (step % 3)})
        first.finish(300)
    state = json.loads(json.dumps(saves.requests[-1].monitor_state))
    with IntegratedMonitor.open(tmp_path, save=saves, monitor_state=state, checkpoint_every=100) as second:
        second.check(300, {"loss": 2.0})
    assert second.safety.states()["divergence"] == "ok"
    told = [event.data for event in events(second.writer.run, "condition")][: len(DEFAULT.limits)]
    assert {data["id"]: data["state"] for data in told} == {limit.id: "unarmed" for limit in DEFAULT.limits} | {
        "nonfinite": "ok",
        "divergence": "ok",
        "loss_spike": "ok",
        "early_warning": "ok",
    }
    # The checkpoint of step 300 is the one that the session began with.
    assert [request.reason for request in saves.requests] == ["end"]


# What follows happens to real processes.

SCRIPT = """
import os, signal, sys, time
from qig_core.rundir.schema import CheckpointManifest
from qig_core.safety.integrated import IntegratedMonitor

def save(request):
    {body}
    return CheckpointManifest(
        name=f"step-{{request.step}}", run=request.run.id, session=request.session, step=request.step,
        t=time.time(), reason=request.reason, files=[], fingerprint="f" * 64, **request.facts())

with IntegratedMonitor.open({root!r}, save=save, {settings}) as monitor:
    print(monitor.writer.run.path, flush=True)
    for step in range(100_000):
        {before}
        if not monitor.check(step, {{"loss": 1.0}}):
            break
        {after}
sys.exit(monitor.exit_code)
"""


class Trainer:
    """A loop in a process of its own."""

    def __init__(
        self,
        root: Path,
        *,
        body: str = "pass",
        settings: str = "",
        before: str = "pass",
        after: str = "time.sleep(0.005)",
    ) -> None:
        code = SCRIPT.format(root=str(root), body=body, settings=settings, before=before, after=after)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.run = RunDir(self.process.stdout.readline().strip())
        until(lambda: self.run.telemetry().stat().st_size > 0)

    def kill(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self) -> tuple[int, str]:
        _, text = self.process.communicate(timeout=30)
        return self.process.returncode, text


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    started: list[Trainer] = []

    def start(**how: str) -> Trainer:
        started.append(Trainer(tmp_path, **how))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_run_in_order(trainer: Callable[..., Trainer], signum: signal.Signals, code: int) -> None:
    one = trainer()
    one.kill(signum)
    returned, text = one.wait()
    record = emergency(one.run)
    assert returned == record.exit_code == manifest(one.run).exit_code == code
    assert record.checkpoint == f"step-{record.step}"
    assert record.cause.detail == signum.name
    assert re.fullmatch(
        rf"qig: stopped at step \d+: signal {signum.name}; checkpoint step-\d+; exit code {code}\n", text
    )


def test_a_second_ctrl_c_interrupts_the_save(trainer: Callable[..., Trainer]) -> None:
    one = trainer(body="time.sleep(60)")
    one.kill(signal.SIGINT)
    until(lambda: list(one.run.emergencies.glob("*.json")))
    time.sleep(0.2)
    one.kill(signal.SIGINT)
    returned, _ = one.wait()
    record = emergency(one.run)
    assert returned == record.exit_code == 130
    assert (record.checkpoint, record.note) == (None, "a second Ctrl-C interrupted it")


def test_a_second_ctrl_c_before_the_boundary_skips_the_save(trainer: Callable[..., Trainer]) -> None:
    one = trainer(
        after="""
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
    """
    )
    returned, _ = one.wait()
    record = emergency(one.run)
    assert returned == record.exit_code == 130
    assert (record.step, record.checkpoint, record.note) == (4, None, "a second Ctrl-C asked not to wait for it")


def test_a_third_ctrl_c_ends_the_process_where_it_is(trainer: Callable[..., Trainer]) -> None:
    one = trainer(
        after="""
        if step == 3:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            time.sleep(60)
    """
    )
    assert one.wait()[0] == 130
    assert list(one.run.emergencies.glob("[!.]*")) == []
    assert manifest(one.run).state == "running"


def test_a_save_that_hangs_ends_at_the_deadline_with_78_and_the_stacks(trainer: Callable[..., Trainer]) -> None:
    one = trainer(body="hang_here()", settings="deadline_s=0.5", before="hang_here = lambda: time.sleep(60)")
    one.kill(signal.SIGTERM)
    returned, _ = one.wait()
    record = emergency(one.run)
    assert returned == record.exit_code == manifest(one.run).exit_code == 78
    assert record.note == "not stopped in time, busy with save"
    assert record.cause.detail == "SIGTERM"
    stacks = one.run.emergency_stacks(record.id).read_text()
    assert "in save" in stacks
    (event,) = events(one.run, "emergency")
    assert (event.data["id"], event.data["exit_code"]) == (record.id, 78)


def test_a_loop_that_hangs_ends_at_the_deadline_too(trainer: Callable[..., Trainer]) -> None:
    one = trainer(settings="deadline_s=0.5", after="time.sleep(60)")
    one.kill(signal.SIGTERM)
    assert one.wait()[0] == 78
    assert emergency(one.run).exit_code == 78


def test_a_signal_while_a_record_is_being_written_does_not_hang(trainer: Callable[..., Trainer]) -> None:
    one = trainer(
        before="""
        with monitor.writer._events._lock:
            if step == 5:
                signal.raise_signal(signal.SIGTERM)
    """
    )
    assert one.wait()[0] == 143
    assert emergency(one.run).checkpoint == "step-5"


def test_nohup_is_respected(tmp_path: Path) -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        one = Trainer(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, old)
    one.kill(signal.SIGHUP)
    time.sleep(0.3)
    assert one.process.poll() is None
    one.kill(signal.SIGTERM)
    assert one.wait()[0] == 143


def test_an_abort_command_stops_a_process_with_76(trainer: Callable[..., Trainer]) -> None:
    one = trainer()
    command = send(one.run, "abort")
    assert one.wait()[0] == 76
    assert stages(one.run, command) == ["seen", "acting", "checkpoint", "stopped"]


def test_a_limit_stops_a_process_with_75_and_a_failed_save_with_77(trainer: Callable[..., Trainer]) -> None:
    bad = "monitor.check(step, {'loss': float('nan')}) if step == 3 else None"
    assert trainer(before=bad).wait()[0] == 75
    assert trainer(before=bad, body="raise OSError(28, 'full')").wait()[0] == 77


def test_a_full_disk_stops_the_run_in_order_with_74(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import resource, sys
        from qig_core.safety.integrated import IntegratedMonitor

        with IntegratedMonitor.open(sys.argv[1]) as monitor:
            for step in range(100_000):
                if not monitor.check(step, {"loss": 1.0}):
                    break
                if step == 50:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
        assert monitor.error is not None
        sys.exit(monitor.exit_code)
        """
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 74, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert "telemetry.jsonl" in lines[0]
    assert "exit code 74" in lines[0]
    (run,) = list_runs(tmp_path)
    whole = [line for line in run.telemetry().read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert len(whole) > 50
    assert [msgspec.json.decode(line, type=Sample).step for line in whole[:-1]] == list(range(len(whole) - 1))
    assert (manifest(run).state, manifest(run).exit_code) == ("exited", 74)


def test_a_full_disk_within_the_process_is_kept_as_the_error(tmp_path: Path, saves: Saves) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with IntegratedMonitor.open(tmp_path, save=saves) as monitor:
        monitor.check(0, {"loss": 1.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            assert not monitor.check(1, {"loss": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert isinstance(monitor.error, RecordWriteError)
    assert (monitor.exit_code, [request.reason for request in saves.requests]) == (74, ["emergency"])


def test_what_a_killed_session_had_ready_for_its_emergency_is_swept_by_the_next(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        run = monitor.writer.run
        (ready,) = run.emergencies.iterdir()
        assert ready.name.startswith(".")
        (run.emergencies / ready.name.replace(".tmp", "0.tmp")).touch()
    assert len(list(run.emergencies.iterdir())) == 1, "of nobody who lives"
    with IntegratedMonitor(RunWriter.reopen(run)):
        (of_this_session,) = run.emergencies.iterdir()
        assert of_this_session != ready
    assert list(run.emergencies.iterdir()) == []
