"""`qig-core recover` after real crashes: a killed trainer, damaged checkpoints, runs of others."""

import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Manifest, Parent
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import Cause
from qig_core.safety.emergency import EmergencyRecord
from qig_core.training.requests import PROGRAM
from tests.endtoend.commands import core, start_core, wait_for_step

EXAMPLE = Path(__file__).parents[2] / "examples" / "your_own_loop.py"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that SIGKILL ended after at least four checkpoints; not to be changed."""
    root = tmp_path_factory.mktemp("victim")
    config = root / "often.toml"
    config.write_text("[cadence]\ncheckpoint_every = 10\n")
    words = ("train", "--preset", "tiny", "--config", config, "--steps", "100000", "--runs", root, "--id", "victim")
    trainer = start_core(*words)
    path = wait_for_step(root, 45)
    trainer.kill()
    trainer.communicate(timeout=60)
    return path


@pytest.fixture
def killed(victim: Path, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(victim, tmp_path / "runs" / victim.name))


def flip_a_byte(run: RunDir, name: str) -> None:
    (found,) = [one for one in list_checkpoints(run) if one.name == name]
    assert found.manifest is not None
    payload = found.path / max(found.manifest.files, key=lambda file: file.size).path
    content = bytearray(payload.read_bytes())
    content[-1] ^= 1
    payload.write_bytes(content)


def set_total(run: RunDir, steps: int) -> None:
    """So that what goes on comes to its end soon."""
    manifest = json.loads(run.manifest.read_text())
    manifest["total_steps"] = manifest["config"]["steps"] = steps
    run.manifest.write_text(json.dumps(manifest))


def recover_json(run: RunDir, *words: str, code: int = 0) -> tuple[list[Any], Any]:
    """The progress and the result."""
    done = core("recover", run.path, *words, "--json")
    assert done.returncode == code, done.stderr
    *progress, result = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(each) == {"progress"} for each in progress)
    return [each["progress"] for each in progress], result["result"]


def contents(run: RunDir) -> dict[str, bytes]:
    """Of all files but the lock: to close it here would let it go."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path != run.lock]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def test_a_killed_run_is_told_of_and_the_printed_command_goes_on(killed: RunDir) -> None:
    newest = list_checkpoints(killed)[0]
    before = contents(killed)
    done = core("recover", killed.path)
    assert done.returncode == 0, done.stderr
    assert contents(killed) == before
    for said in ("KILLED", "no end was recorded", "loss ", f"go on from {newest.name}: step {newest.step}", "verified"):
        assert said in done.stdout
    command = done.stdout.splitlines()[-1].strip()
    assert shlex.split(command) == ["qig-core", "train", "--resume", f"{killed.path}@{newest.name}"]
    again = core(*shlex.split(command)[1:], "--steps", str((newest.step or 0) + 3))
    assert again.returncode == 0, again.stderr


def test_a_damaged_newest_is_set_aside_and_the_one_before_is_named(killed: RunDir) -> None:
    newest, before, *_ = [found.name for found in list_checkpoints(killed)]
    flip_a_byte(killed, newest)
    progress, result = recover_json(killed)
    assert [each["number"] for each in progress if each["done"] == each["total"]] == [1, 2]
    (bad,) = result["set_aside"]
    assert (bad["name"], bad["status"]) == (newest, "HASH-MISMATCH")
    assert "a byte has changed" in bad["problems"][0]
    assert Path(bad["path"]) == killed.checkpoints / f".bad-{newest}"
    assert Path(bad["path"]).is_dir()
    assert result["checkpoint"]["name"] == before
    assert result["lost_steps"] == result["step"] - result["checkpoint"]["step"] > 0
    assert (result["outcome"], result["liveness"], result["exit_code"]) == ("goes-on", "KILLED", None)
    assert result["events"][-1]["kind"] == "checkpoint"
    assert result["command"]["argv"] == [
        sys.executable, "-m", "qig_core.cli", "train", "--resume", f"{killed.path}@{before}"
    ]  # fmt: skip
    flip_a_byte(killed, before)
    told = core("recover", killed.path).stdout
    assert f"{before} is HASH-MISMATCH" in told
    assert f"set aside in '{killed.checkpoints}/.bad-{before}'" in told


def test_resume_goes_on_as_a_child_and_ends_with_its_code(killed: RunDir) -> None:
    newest = list_checkpoints(killed)[0]
    set_total(killed, (newest.step or 0) + 3)
    flip_a_byte(killed, newest.name)
    done = core("recover", killed.path, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    manifest = read_manifest(killed)
    assert (manifest.state, manifest.exit_code, len(manifest.sessions)) == ("exited", 0, 2)
    assert manifest.sessions[-1].resumed_from == result["checkpoint"]["name"] != newest.name
    assert "done:" in done.stderr

    finished = core("recover", killed.path, "--resume")
    assert finished.returncode == 0
    assert finished.stdout.endswith("the run came to its end: nothing to recover\n")
    assert len(read_manifest(killed).sessions) == 2


def test_a_signal_reaches_the_child_and_its_code_is_ours(killed: RunDir) -> None:
    process = start_core("recover", killed.path, "--yes")
    deadline = time.monotonic() + 60
    while len(read_manifest(killed).sessions) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert read_manifest(killed).exit_code == 128 + signal.SIGTERM


def test_a_live_trainer_is_refused_and_nothing_is_touched(killed: RunDir) -> None:
    with RunWriter.reopen(killed) as writer:
        writer.heartbeat.stop()
        flip_a_byte(killed, list_checkpoints(killed)[0].name)
        before = contents(killed)
        for words in ([], ["--resume"]):
            done = core("recover", killed.path, *words)
            assert (done.returncode, done.stdout) == (73, "")
            assert f"run 'victim' is alive (process {os.getpid()} holds its lock)" in done.stderr
        _, result = recover_json(killed, code=73)
        assert result["outcome"] == "live"
        assert contents(killed) == before


def test_a_finished_run_has_nothing_to_recover(finished: Path) -> None:
    run = RunDir(finished)
    before = contents(run)
    _, result = recover_json(run)
    assert (result["outcome"], result["checkpoint"], result["exit_code"]) == ("finished", None, 0)
    assert contents(run) == before


def test_a_run_that_was_killed_at_its_very_end_has_nothing_left(killed: RunDir) -> None:
    newest = list_checkpoints(killed)[0]
    set_total(killed, newest.step or 0)
    done = core("recover", killed.path, "--resume")
    assert done.returncode == 0
    assert "nothing is left to do but with a larger total" in done.stdout
    assert len(read_manifest(killed).sessions) == 1


def test_without_any_checkpoint_it_begins_again_only_where_that_is_the_same_run(killed: RunDir) -> None:
    for found in list_checkpoints(killed):
        flip_a_byte(killed, found.name)
    _, result = recover_json(killed, code=1)
    assert (result["outcome"], result["checkpoint"], result["command"]) == ("lost", None, None)
    assert len(result["set_aside"]) >= 4
    assert "no sound checkpoint is left" in result["problem"]
    for _ in range(2):  # a restart loop would ask again
        refused = core("train", "--resume", killed.path)
        assert refused.returncode == 1
        assert "set aside and never deleted: .bad-step-" in refused.stderr
        assert "to begin again, begin a new run" in refused.stderr
    assert len(read_manifest(killed).sessions) == 1

    shutil.rmtree(killed.checkpoints)
    lines = killed.events.read_bytes().splitlines(keepends=True)
    killed.events.write_bytes(b"".join(line for line in lines if b'"kind":"checkpoint"' not in line))
    _, result = recover_json(killed, code=1)
    assert result["outcome"] == "from-birth"
    assert result["command"]["argv"][-1] == str(killed.path)
    set_total(killed, 3)
    done = core("recover", killed.path, "--resume")
    assert done.returncode == 0, done.stderr
    events = [each for each in read_all(killed.events, Event) if isinstance(each, Event)]
    (restored,) = [each for each in events if each.kind == "restored"]
    assert (restored.step, restored.data["checkpoint"]) == (0, None)


def test_a_fork_without_a_checkpoint_is_to_be_forked_again(killed: RunDir) -> None:
    root, origin = killed.path.parent, list_checkpoints(killed)[0].name
    config = dict(read_manifest(killed).config, steps=77)
    lost = Manifest(
        id="child", name="my fork", program=PROGRAM, parent=Parent("victim", origin), config=config, total_steps=77
    )
    with RunWriter.create(root, lost) as writer:
        writer.close(70, "broke")
    _, result = recover_json(writer.run, code=1)
    assert result["outcome"] == "fork-again"
    shown = shlex.split(result["command"]["text"])
    assert shown == [
        "qig-core", "train", "--fork", f"{killed.path}@{origin}", "--runs", str(root), "--steps", "77", "--name",
        "my fork",
    ]  # fmt: skip
    assert core("recover", writer.run.path, "--resume").returncode == 1
    assert len(read_manifest(writer.run).sessions) == 1
    shutil.rmtree(killed.checkpoints)
    _, result = recover_json(writer.run, code=1)
    assert result["command"] is None
    assert any("cannot be forked again from here" in note for note in result["notes"])


def test_the_lineage_of_a_fork_of_a_fork_is_shown(killed: RunDir) -> None:
    root = killed.path.parent
    origin = list_checkpoints(killed)[0]
    steps = str((origin.step or 0) + 2)
    for parent, child in (("victim", "child"), ("child", "grandchild")):
        done = core(
            "train", "--fork", f"{root / parent}@{origin.step}", "--runs", root, "--id", child, "--steps", steps
        )
        assert done.returncode == 0, done.stderr
        origin = list_checkpoints(RunDir(root / child))[0]
        steps = str((origin.step or 0) + 2)
    done = core("show", root / "grandchild")
    (shown,) = [line for line in done.stdout.splitlines() if line.startswith("lineage")]
    assert shown.split(None, 1)[1].startswith("grandchild  ←  child @ step-")
    assert "  ←  victim @ step-" in shown
    data = json.loads(core("show", root / "grandchild", "--json").stdout)["lineage"]
    assert [each["run"] for each in data["ancestors"]] == ["child", "victim"]
    assert data["sessions"][0]["checkpoint"] == data["ancestors"][0]["checkpoint"]


@pytest.fixture
def at_a_limit(tmp_path: Path) -> RunDir:
    """A run of three checkpoints that a limit stopped; the newest is that of the stop."""
    with RunWriter.create(tmp_path / "runs", Manifest(id="r", program=PROGRAM, total_steps=100)) as writer:
        for step, reason, conditions in (
            (10, "interval", {}),
            (20, "interval", {"nonfinite": "ok"}),
            (30, "emergency", {"nonfinite": "critical"}),
        ):
            publish(
                writer.run,
                session=writer.session,
                step=step,
                reason=reason,
                files={"a": b"x" * 100},
                metrics={"loss": float("nan") if reason == "emergency" else 1.0},
                conditions=conditions,
            )
        writer.telemetry.log(30, {"loss": float("nan"), "phi": 0.5})
        writer.event("condition", step=30, severity="critical", id="nonfinite", state="critical")
        cause = Cause.limit("nonfinite")
        EmergencyRecord(
            id="20260101-000000-abcdef", run="r", session=writer.session, step=30, t=1.0, cause=cause, exit_code=75,
            checkpoint=list_checkpoints(writer.run)[0].name, fingerprint=None, note="", conditions=[], stages=[],
            samples=[], versions={},
        ).write(writer.run)  # fmt: skip
        writer.close(75, "limit nonfinite")
    return writer.run


def test_what_a_limit_stopped_goes_on_from_the_last_good_one(at_a_limit: RunDir) -> None:
    emergency, good, older = list_checkpoints(at_a_limit)
    _, result = recover_json(at_a_limit)
    assert (result["newest"]["name"], result["checkpoint"]["name"]) == (emergency.name, good.name)
    assert (result["lost_steps"], result["exit_code"], result["reason"]) == (10, 75, "limit nonfinite")
    assert result["emergency"]["cause"] == "limit nonfinite"
    assert result["conditions"] == {"nonfinite": "critical"}
    (note,) = result["notes"]
    assert "would stop again, nonfinite is critical there: hence @last-good" in note

    flip_a_byte(at_a_limit, good.name)
    _, result = recover_json(at_a_limit)
    assert [bad["name"] for bad in result["set_aside"]] == [good.name]
    assert result["checkpoint"]["name"] == older.name
    flip_a_byte(at_a_limit, older.name)
    _, result = recover_json(at_a_limit)
    assert result["checkpoint"]["name"] == emergency.name
    assert "no checkpoint is known to be good" in result["notes"][0]
    assert result["checkpoint"]["nonfinite"] == ["loss"]


def test_a_checkpoint_of_a_branch_that_was_left_is_passed_over_and_named(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r", program=PROGRAM, total_steps=100)) as writer:
        one, two = [
            publish(writer.run, session=writer.session, step=step, reason="interval", files={"a": b"x"})
            for step in (10, 20)
        ]
        writer.event("restored", step=10, checkpoint=one.name, fingerprint="f", how="restore")
        writer.close(1)
    _, result = recover_json(writer.run)
    assert result["checkpoint"]["name"] == one.name
    (left,) = result["left_alone"]
    assert (left["name"], left["status"]) == (two.name, "COMPLETE")
    assert "the run went back to before it" in left["problems"][0]


def test_a_checkpoint_of_a_newer_format_is_left_alone_and_said_so(killed: RunDir) -> None:
    newest, before, *_ = list_checkpoints(killed)
    path = killed.checkpoint_manifest(newest.name)
    path.write_text(json.dumps(dict(json.loads(path.read_text()), format=99)))
    done = core("recover", killed.path)
    assert f"{newest.name} is NEWER" in done.stdout
    assert f"go on from {before.name}" in done.stdout
    assert newest.path.is_dir()
    for found in list_checkpoints(killed)[1:]:
        shutil.rmtree(found.path)
    _, result = recover_json(killed, code=1)
    assert (result["outcome"], result["command"]) == ("lost", None)
    assert core("recover", killed.path, "--resume").returncode == 1
    assert len(read_manifest(killed).sessions) == 1


def test_a_foreign_run_is_told_its_recorded_command_and_never_started(tmp_path: Path) -> None:
    words = [sys.executable, str(EXAMPLE), "--runs", str(tmp_path), "--steps", "100000"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as loop:
        path = wait_for_step(tmp_path, 500)
        deadline = time.monotonic() + 60
        while not list_checkpoints(RunDir(path)):
            assert time.monotonic() < deadline
        loop.kill()
    run = RunDir(path)
    done = core("recover", path, "--yes")
    assert done.returncode == 0, done.stderr
    name = list_checkpoints(run)[0].name
    assert f"go on from {name}: step" in done.stdout
    assert f"in {os.getcwd()}, to copy; nothing of it is executed:" in done.stdout
    assert shlex.split(done.stdout.splitlines()[-1]) == ["python", *words[1:]]
    assert len(read_manifest(run).sessions) == 1
    refused = core("recover", path, "--resume")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--resume is for runs of qig-core train" in refused.stderr


def test_hostile_text_reaches_the_terminal_as_escapes_only(tmp_path: Path) -> None:
    bad = "\x1b]0;owned\x07\x1b[2J\u202e\r\n; rm -rf ~"
    with RunWriter.create(tmp_path, Manifest(id="r", name=bad, program=bad, cwd=bad)) as writer:
        writer.telemetry.log(1, {bad: float("nan"), "loss": 1.0})
        writer.event(bad, severity=bad, **{bad: bad, "text": bad})
        writer.event("condition", id=bad, state="critical")
        session = writer.manifest.sessions[0]
        session.argv = [bad, "--x"]
        writer.run.console_log.write_text(f"{bad}\nlast {bad}", encoding="utf-8")
        publish(writer.run, session=writer.session, step=1, reason=bad, files={"a": b"x"})
        writer.close(1, bad)
    manifest = json.loads(writer.run.manifest.read_text())
    for state in ("exited", "running"):
        manifest["state"], manifest["ended_t"] = state, None
        # No process has these ticks: to who looks, the trainer is gone.
        manifest["sessions"][0]["start_ticks"] = 1
        writer.run.manifest.write_text(json.dumps(manifest))
        done = core("recover", writer.run.path)
        assert done.returncode == 0, done.stderr
        assert all(character.isprintable() or character == "\n" for character in done.stdout), repr(done.stdout)
        assert "\u202e" not in done.stdout
        assert "nothing of it is executed" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("  '\\x1b]0;owned")
        assert ("console.log  " in done.stdout) == (state == "running")


def test_torn_ends_and_the_last_printed_lines_are_told(killed: RunDir) -> None:
    with killed.telemetry().open("ab") as file:
        file.write(b'\0\0\0\n{}\n{"seq": 7, "st')
    with killed.events.open("ab") as file:
        file.write(b'{"seq":')
    killed.console_log.write_text("".join(f"line {number}\n" for number in range(20)) + "\x1b[31mKilled")
    done = core("recover", killed.path)
    assert "telemetry.jsonl ends in 2 unreadable lines and a torn line of 14 bytes" in done.stdout
    assert "events.jsonl ends in a torn line of 7 bytes" in done.stdout
    assert "line 15" not in done.stdout
    assert "line 16" in done.stdout
    assert "\\x1b[31mKilled" in done.stdout
    assert done.returncode == 0


def test_what_others_could_have_changed_is_not_resumed_and_nothing_is_touched(killed: RunDir) -> None:
    flip_a_byte(killed, list_checkpoints(killed)[0].name)
    before = contents(killed)
    killed.path.chmod(0o775)
    done = core("recover", killed.path, "--resume")
    assert done.returncode == 1
    assert f"can be written by others; run: chmod go-w {killed.path}" in done.stderr
    assert contents(killed) == before
    killed.path.chmod(0o755)
    checkpoint = list_checkpoints(killed)[1]
    checkpoint.path.chmod(0o777)
    done = core("recover", killed.path, "--resume")
    assert done.returncode == 1
    assert f"not resumed: '{checkpoint.path}' can be written by others" in done.stderr


def test_a_run_of_another_host_is_told_of_and_not_resumed_here(killed: RunDir) -> None:
    manifest = json.loads(killed.manifest.read_text())
    manifest["sessions"][0]["host"] = "elsewhere"
    killed.manifest.write_text(json.dumps(manifest))
    done = core("recover", killed.path)
    assert done.returncode == 0
    assert "SILENT no beat, on elsewhere" in done.stdout
    refused = core("recover", killed.path, "--resume")
    assert refused.returncode == 1
    assert "the run is on 'elsewhere'; start it there" in refused.stderr


def on_a_terminal(answer: str, *words: str | Path, when_asked: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """qig-core with a terminal for all three; the question is answered once it is there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qig_core.cli", *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "200", "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    seen, asked = b"", False
    while select.select([ours], [], [], 120)[0]:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        seen += part
        if not asked and b"[y/N]" in seen:
            asked = True
            when_asked()
            os.write(ours, answer.encode())
    os.close(ours)
    return process.wait(timeout=60), seen.decode()


def test_on_a_terminal_it_asks_and_y_goes_on(killed: RunDir) -> None:
    newest = list_checkpoints(killed)[0]
    set_total(killed, (newest.step or 0) + 3)
    code, seen = on_a_terminal("\n", "recover", killed.path)
    assert (code, f"go on from {newest.name} now?" in seen) == (0, True)
    assert len(read_manifest(killed).sessions) == 1
    code, seen = on_a_terminal("y\n", "recover", killed.path)
    assert (code, "done:" in seen) == (0, True), seen
    assert read_manifest(killed).sessions[-1].resumed_from == newest.name


def test_while_the_question_stands_nobody_holds_the_run(killed: RunDir) -> None:
    holders: list[int | None] = []
    code, seen = on_a_terminal(
        "\x04", "recover", killed.path, when_asked=lambda: holders.append(lock_holder(killed.lock))
    )
    assert (code, "[y/N]" in seen, holders) == (0, True, [None])


def test_recovering_never_loads_torch(killed: RunDir) -> None:
    report = (
        "import sys\nfrom qig_core.commands.recovering import run_recover\nprint({'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
