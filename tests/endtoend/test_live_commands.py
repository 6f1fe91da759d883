"""A run is commanded, restored and told of from outside: real processes, the real mailbox."""

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Sample
from tests.endtoend.commands import core, core_json, start_core, wait_for_step


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RunDir]:
    config = tmp_path / "often.toml"
    config.write_text("[cadence]\ncheckpoint_every = 20\nmeasure_every = 5\n[checkpoints]\nnewest = 100000\n")
    words = ("train", "--preset", "tiny", "--steps", "1000000", "--config", config, "--runs", tmp_path, "--id", "live")
    trainer = start_core(*words)
    wait_for_step(tmp_path, 45)
    yield RunDir(tmp_path / "live")
    if trainer.poll() is None:
        psutil.Process(trainer.pid).terminate()
    trainer.communicate(timeout=60)


def stages(run: RunDir, *words: str) -> list[dict[str, object]]:
    return core_json("ctl", run.path, *words)


def test_a_live_run_is_paused_restored_and_goes_on_from_there(live: RunDir) -> None:
    assert [each["stage"] for each in stages(live, "pause")] == ["requested", "seen", "done"]
    (name,) = [found.name for found in list_checkpoints(live) if found.step == 20]
    told = stages(live, "restore", "20")
    assert [each["stage"] for each in told] == ["requested", "seen", "acting", "done"]
    assert (told[-1]["step"], told[-1]["checkpoint"]) == (20, name)
    assert [each["stage"] for each in stages(live, "resume")] == ["requested", "seen", "done"]
    assert [each["stage"] for each in stages(live, "set_log_every", "2")][-1] == "done"
    assert [each["stage"] for each in stages(live, "checkpoint")][-1] == "done"
    assert [each["stage"] for each in stages(live, "abort")][-1] == "stopped"
    events = [each for each in read_all(live.events, Event) if isinstance(each, Event)]
    (restored,) = [each for each in events if each.kind == "restored"]
    assert restored.data == {"checkpoint": name, "fingerprint": told[-1]["fingerprint"], "how": "restore"}
    steps = [each.step for each in read_all(live.telemetry(), Sample) if isinstance(each, Sample)]
    back = next(at for at in range(1, len(steps)) if steps[at] < steps[at - 1])
    assert steps[back] == 20


def test_what_cannot_be_restored_is_said(live: RunDir) -> None:
    cases = {
        ("restore",): (2, "restore needs a CHECKPOINT"),
        ("restore", "999999"): (1, "no complete checkpoint of step 999999"),
        ("restore", "../../elsewhere"): (1, "no checkpoint '../../elsewhere'"),
        ("soft_reset", "20"): (2, "soft_reset takes nothing after it"),
    }
    for words, (code, why) in cases.items():
        done = core("ctl", live.path, *words)
        assert (done.returncode, why in done.stderr) == (code, True), done.stderr


def test_a_command_to_a_trainer_that_is_killed_says_so_at_once(live: RunDir) -> None:
    pid = read_manifest(live).sessions[-1].pid
    psutil.Process(pid).suspend()
    asking = start_core("ctl", live.path, "pause", "--wait", "60")
    while not list(live.mailbox_in.iterdir()):
        assert asking.poll() is None
    psutil.Process(pid).kill()
    _, said = asking.communicate(timeout=30)
    assert asking.returncode == 1
    assert "not confirmed: the trainer of run 'live'" in said
    assert "is gone" in said
    assert list(live.mailbox_in.iterdir()) == [], "taken back"


def test_a_soft_reset_of_a_young_run_is_refused_with_the_reason(live: RunDir) -> None:
    assert core("ctl", live.path, "abort").returncode == 0
    done = core("ctl", live.path, "soft_reset")
    assert done.returncode == 1
    assert "there is no trainer to ask" in done.stderr


def test_the_end_of_a_run_is_told_to_the_command_of_the_configuration(tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    notify = tmp_path / "notify.py"
    notify.write_text(f"#!{sys.executable}\nimport sys\nopen({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')\n")
    notify.chmod(stat.S_IRWXU)
    config = tmp_path / "told.toml"
    config.write_text(f"steps = 5\n[alerts]\ncommand = [{json.dumps(str(notify))}]\n")
    done = core("train", "--preset", "tiny", "--config", config, "--runs", tmp_path / "runs", "--id", "r1")
    assert done.returncode == 0, done.stderr
    (message,) = map(json.loads, told.read_text().splitlines())
    assert (message["kind"], message["run"], message["step"]) == ("end", "r1", 5)
    assert message["data"] == {"exit_code": 0, "reason": ""}
    run = RunDir(tmp_path / "runs" / "r1")
    assert "notify" not in run.manifest.read_text(), "who is told is no part of a run"
    tested = core("alerts", "test", "--config", config)
    assert (tested.returncode, tested.stderr) == (0, "delivered\n")
    assert [json.loads(line)["kind"] for line in told.read_text().splitlines()] == ["end", "test"]
