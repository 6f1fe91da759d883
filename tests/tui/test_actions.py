import os
import shlex
import signal
import subprocess
import sys

import pytest

from qig_core.errors import Refused
from qig_core.rundir.host import boot_id, host_name, start_ticks
from qig_core.rundir.schema import Event, Manifest, SessionRecord
from qig_tui.actions import ask, child, console_tail, relaunch, restored_as, send_signal, start
from tests.tui.runs import add_checkpoint, log_steps, open_run


def dead_run(root, **manifest):
    writer = open_run(root, **manifest)
    log_steps(writer, 0, 5)
    name = add_checkpoint(writer, 4)
    writer.close(76)
    return writer, name


def test_a_dead_run_of_ours_is_relaunched_by_an_argv_of_literals_and_its_path(tmp_path):
    writer, name = dead_run(tmp_path)
    plan = relaunch(writer.run, writer.manifest, name)
    assert plan.refusal is None
    assert plan.argv == [sys.executable, "-m", "qig_core.cli", "train", "--resume", f"{writer.run.path}@{name}"]
    assert plan.shown == shlex.join(plan.argv)


def test_a_live_run_is_not_relaunched(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 2)
        name = add_checkpoint(writer, 1)
        assert "still runs" in relaunch(writer.run, writer.manifest, name).refusal


def test_a_run_of_another_host_is_not_relaunched(tmp_path):
    writer, name = dead_run(tmp_path)
    writer.manifest.sessions[-1].host = "elsewhere"
    assert "elsewhere" in relaunch(writer.run, writer.manifest, name).refusal


@pytest.mark.parametrize("which", ["path", "manifest", "checkpoint"])
def test_what_others_can_write_is_not_relaunched_and_the_cure_is_named(tmp_path, which):
    writer, name = dead_run(tmp_path)
    path = writer.run.checkpoint(name) if which == "checkpoint" else getattr(writer.run, which)
    os.chmod(path, os.stat(path).st_mode | 0o022)
    plan = relaunch(writer.run, writer.manifest, name)
    assert f"chmod go-w {path}" in plan.refusal
    with pytest.raises(Refused):
        start(writer.run, plan)


def test_a_linked_checkpoint_is_not_relaunched(tmp_path):
    writer, name = dead_run(tmp_path)
    writer.run.checkpoint("linked").symlink_to(writer.run.checkpoint(name))
    assert "is a link" in relaunch(writer.run, writer.manifest, "linked").refusal


@pytest.mark.parametrize("name", ["../other", "a/b", "", ".hidden", "a@b"])
def test_a_checkpoint_that_is_no_plain_name_is_refused(tmp_path, name):
    writer, _ = dead_run(tmp_path)
    assert relaunch(writer.run, writer.manifest, name).refusal is not None


def test_a_foreign_command_is_only_shown(tmp_path):
    writer, name = dead_run(tmp_path, program="other")
    writer.manifest.sessions[-1].argv = ["x", "; rm -rf /", "\x1b[2J"]
    plan = relaunch(writer.run, writer.manifest, name)
    assert plan.refusal is not None
    assert "'; rm -rf /'" in plan.shown
    assert "\x1b" not in plan.shown


def test_the_child_outlives_us_and_writes_into_the_console_log(tmp_path):
    writer, name = dead_run(tmp_path)
    plan = relaunch(writer.run, writer.manifest, name)
    code = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == ''); print('\\x1b[31m')"
    plan.argv[:] = [sys.executable, "-c", code]
    process = start(writer.run, plan)
    assert process.wait(30) == 0
    assert console_tail(writer.run) == ["True True", "\\x1b[31m"]


def test_a_console_log_that_is_a_link_is_not_written(tmp_path):
    writer, name = dead_run(tmp_path)
    writer.run.console_log.symlink_to(tmp_path / "victim")
    with pytest.raises(Refused):
        start(writer.run, relaunch(writer.run, writer.manifest, name))
    assert not (tmp_path / "victim").exists()


def test_only_the_session_that_names_the_checkpoint_proves_a_restore():
    def restored(session, **data):
        return Event(0, 0.0, "restored", 4, session, data=data)

    good = restored("new", checkpoint="c", fingerprint="f")
    others = [restored("old", checkpoint="c", fingerprint="f"), restored("new", checkpoint="d", fingerprint="f")]
    assert restored_as([*others, restored("new", checkpoint="c")], "new", "c") is None
    assert restored_as([*others, good], "new", "c") is good


def test_a_run_that_ended_cannot_be_asked(tmp_path):
    writer, _ = dead_run(tmp_path)
    with pytest.raises(Refused, match="has ended"):
        ask(writer.run, "abort")


def test_a_command_can_be_taken_back_before_it_is_seen(tmp_path):
    with open_run(tmp_path) as writer:
        writer.heartbeat._stop.set()
        asked = ask(writer.run, "checkpoint")
        assert asked.withdraw() or writer.mailbox.pending
        assert asked.stages[0].name == "requested"


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def session_of(pid, **other):
    known = {
        "id": "s",
        "t": 0.0,
        "pid": pid,
        "host": host_name(),
        "boot_id": boot_id(),
        "start_ticks": start_ticks(pid),
    }
    return Manifest(id="x", sessions=[SessionRecord(**(known | other))])


def test_a_signal_reaches_the_process_that_was_written_down(sleeper):
    assert "SIGTERM" in send_signal(session_of(sleeper.pid), signal.SIGTERM)
    assert sleeper.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"host": "elsewhere"}, "elsewhere"),
        ({"boot_id": "another"}, "restarted"),
        ({"boot_id": None}, "restarted"),
        ({"start_ticks": 1}, "another one"),
        ({"start_ticks": None}, "when the process started"),
    ],
)
def test_no_signal_reaches_a_process_that_may_be_another(sleeper, other, reason):
    with pytest.raises(Refused, match=reason):
        send_signal(session_of(sleeper.pid, **other), signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_signal_to_a_process_that_is_gone_is_refused(sleeper):
    manifest = session_of(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(Refused, match="gone"):
        send_signal(manifest, signal.SIGTERM)


async def test_a_child_yields_its_objects_and_its_failure():
    code = "print('{\"progress\": 1}'); print('noise'); print('{\"result\": []}')"
    assert [found async for found in child([sys.executable, "-c", code])] == [{"progress": 1}, {"result": []}]
    code = "import sys; print('why [b]', file=sys.stderr); sys.exit(3)"
    assert [found async for found in child([sys.executable, "-c", code])] == [{"error": "why [b]"}]
    failed = [found async for found in child(["/no/such/program"])]
    assert "started" in failed[0]["error"]
