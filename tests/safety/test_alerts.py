"""Alerts against a real server on the loopback and real commands."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qig_core.errors import ConfigError
from qig_core.rundir.host import start_ticks
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Manifest
from qig_core.rundir.writer import RunWriter
from qig_core.safety.alerts import (
    EXAMPLE,
    MAX_QUEUED,
    Alerts,
    AlertSettings,
    load_alerts,
    send_test,
    settings_path,
)
from qig_core.training.requests import PROGRAM
from tests.endtoend.commands import core

SECRET = "s3cr3t-of-the-team"
WRITE_DOWN = """
import json, os, sys
told = json.load(sys.stdin)
told["environment"] = {name: os.environ[name] for name in os.environ if name.startswith("QIG_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
"""
HANG = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


class Server(ThreadingHTTPServer):
    """Remembers what was posted; answers with `status`, or not before `answers` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.status = 204
        self.answers = threading.Event()
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.posts]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, dict(self.headers), json.loads(body)))
        self.server.answers.wait(60)
        # The server's own words repeat what they should not.
        self.send_response(self.server.status, f"refused {self.path}")
        if 300 <= self.server.status < 400:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.posts.append((self.path, dict(self.headers), None))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.answers.set()
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's settings would be; there are none yet, and nobody's real ones are read."""
    monkeypatch.delenv("QIG_SETTINGS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    path = settings_path()
    path.parent.mkdir(parents=True)
    return path


class Run:
    """Alerts of a run, and what they reported."""

    def __init__(self, **settings: Any) -> None:
        self.reports: list[str] = []
        self.alerts = Alerts(
            AlertSettings(**settings),
            run="r1",
            name="mine",
            path="/runs/r1",
            host="here",
            report=self.reports.append,
        )

    def tell(self, kind: Any = "critical", condition: str = "divergence", text: str = "loss 5.1 nat") -> None:
        self.alerts.tell(kind, step=7, text=text, data={"id": condition, "value": 5.1})

    def told(self) -> str:
        until(lambda: self.reports)
        return self.reports[0]


def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def python(code: str, *arguments: str | Path) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *map(str, arguments))


def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_each_kind_is_posted_as_json_with_a_sentence_for_people(server: Server) -> None:
    run = Run(url=f"{server.url}/hook", on=("warning", "critical", "end"))
    for kind in ("warning", "critical", "end"):
        run.tell(kind)
    run.alerts.close(30)
    assert [body["kind"] for body in server.bodies] == ["warning", "critical", "end"]
    path, headers, body = server.posts[1]
    assert (path, headers["Content-Type"]) == ("/hook", "application/json")
    assert abs(body.pop("t") - time.time()) < 60
    sentence = "mine on here, step 7: critical: loss 5.1 nat"
    assert body == {
        "kind": "critical",
        "run": "r1",
        "name": "mine",
        "path": "/runs/r1",
        "host": "here",
        "step": 7,
        "text": sentence,
        "content": sentence,
        "data": {"id": "divergence", "value": 5.1},
        "left_out": 0,
        "program": "qig-tui",
    }
    assert run.reports == []


def test_a_kind_that_was_not_asked_for_is_not_told(server: Server) -> None:
    run = Run(url=server.url, on=("end",))
    for kind in ("warning", "critical", "end"):
        run.tell(kind)
    run.alerts.close(30)
    assert [body["kind"] for body in server.bodies] == ["end"]


def test_a_command_gets_the_json_and_the_environment(tmp_path: Path) -> None:
    run = Run(command=python(WRITE_DOWN, tmp_path / "told"))
    run.tell()
    run.alerts.close(30)
    told = json.loads((tmp_path / "told").read_text())
    assert (told["kind"], told["step"], told["data"]["id"]) == ("critical", 7, "divergence")
    environment = {
        "QIG_ALERT_KIND": "critical",
        "QIG_ALERT_TEXT": "mine on here, step 7: critical: loss 5.1 nat",
        "QIG_RUN": "r1",
        "QIG_RUN_PATH": "/runs/r1",
    }
    assert told["environment"].items() >= environment.items()
    assert run.reports == []


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    run = Run(command=python("import sys; open(sys.argv[1], 'w').write(sys.argv[2])", tmp_path / "told", "$(id); `id`"))
    run.tell()
    run.alerts.close(30)
    assert (tmp_path / "told").read_text() == "$(id); `id`"


def test_what_cannot_be_shown_or_encoded_does_not_keep_an_alert_back(server: Server) -> None:
    run = Run(url=server.url)
    text, odd = "\x1b[2Jred\udc80\u202e", {"loss": float("nan"), "where": Path("/x"), "who": "\udc80", "what": object()}
    run.alerts.tell("critical", step=None, text=text, data={"id": "a", **odd})
    del odd["what"]
    run.alerts.tell("critical", step=None, text=text, data={"id": "b", **odd})
    run.alerts.close(30)
    strange, body = server.bodies
    assert body["text"] == "mine on here: critical: \\x1b[2Jred\\udc80\\u202e"
    assert body["data"] == {"id": "b", "loss": None, "where": "/x", "who": "\\udc80", "nonfinite": {"loss": "nan"}}
    assert "object object" in strange["data"]["repr"]


def test_a_server_that_never_answers_delays_nobody_and_is_given_up(server: Server) -> None:
    server.answers.clear()
    run = Run(url=server.url, timeout_s=2.0)
    began = time.monotonic()
    for number in range(20):
        run.tell(condition=f"c{number}")
    assert run.reports == []  # told of 20, and none has been waited for
    assert run.told() == "an alert was not delivered: the url did not answer within 2 s"
    run.alerts.close(0.2)
    assert time.monotonic() - began < 20
    assert "given up after 0.2 s" in run.reports[-1]
    assert len(run.reports) == 2  # the second failure of the same minute waited for the end


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    run = Run(command=python(HANG, tmp_path / "pids"), timeout_s=5.0)
    run.tell()
    until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(start_ticks(pid) for pid in pids)
    assert "did not end within 5 s and was killed" in run.told()
    until(lambda: not any(map(start_ticks, pids)))
    run.alerts.close(5)


def test_a_command_that_still_runs_when_the_run_gives_up_is_killed(tmp_path: Path) -> None:
    run = Run(command=python(HANG, tmp_path / "pids"), timeout_s=600.0)
    run.tell()
    until((tmp_path / "pids").exists)
    run.alerts.close(0.0)
    until(lambda: not any(start_ticks(int(pid)) for pid in (tmp_path / "pids").read_text().split()))
    assert run.reports == ["an alert was not delivered: 1 given up after 0 s"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nowhere/notify-me",), "the command 'notify-me' cannot be run: No such file or directory"),
        ((sys.executable, "-c", f"import sys; print({SECRET!r}); sys.exit({SECRET!r})"), "ended with exit status 1"),
    ],
)
def test_a_command_that_fails_is_told_without_its_words(
    command: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run(command=command)
    run.tell()
    assert said in run.told()
    run.alerts.close(5)
    assert SECRET not in "".join([*run.reports, *capfd.readouterr()])


def test_secrets_are_taken_from_the_environment_and_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEAM_HOOK", SECRET)
    monkeypatch.setenv("TEAM_TOKEN", f"token-{SECRET}")
    settings = load_alerts({"url": server.url + "/hook/${TEAM_HOOK}", "token_env": "TEAM_TOKEN"}, "mine.toml")
    assert settings is not None
    assert send_test(settings) == ""
    path, headers, body = server.posts[0]
    assert (path, headers["Authorization"]) == (f"/hook/{SECRET}", f"Bearer token-{SECRET}")
    server.status = 500
    refused = send_test(settings)
    assert refused == "the url answered 500 (Internal Server Error)"
    monkeypatch.setenv("TEAM_HOOK", f"http://127.0.0.1:{closed_port()}/{SECRET}")
    unreachable = send_test(AlertSettings(url="${TEAM_HOOK}"))
    assert unreachable == "the url cannot be reached: Connection refused"
    shown = [repr(settings), json.dumps(body), refused, unreachable, *capfd.readouterr()]
    assert SECRET not in "".join(shown)


def test_a_redirect_is_not_followed_and_takes_no_token_along(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", SECRET)
    for status in (301, 302, 307):
        server.status = status
        told = send_test(AlertSettings(url=f"{server.url}/first", token_env="TEAM_TOKEN"))
        assert told.startswith(f"the url answered {status} (")
        assert "a redirect is not followed" in told
    assert {path for path, _, _ in server.posts} == {"/first"}


def test_a_variable_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEAM_HOOK", raising=False)
    for table in ({"url": "https://host/${TEAM_HOOK}"}, {"url": "https://host/", "token_env": "TEAM_HOOK"}):
        with pytest.raises(
            ConfigError, match=r"'mine\.toml': \[alerts\]: the environment variable TEAM_HOOK is not set"
        ):
            load_alerts(table, "mine.toml")


@pytest.mark.parametrize(
    "value", ["two words", "a line\n", "ü", f"http://{SECRET}@host/", "ftp://host", "https://h:port/"]
)
def test_a_secret_that_cannot_be_an_address_is_refused_without_being_shown(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_HOOK", value)
    with pytest.raises(ConfigError) as refused:
        load_alerts({"url": "${TEAM_HOOK}"}, "mine.toml")
    assert value.strip() not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "command and url are both empty"),
        ({"urll": "https://host/"}, "unknown key 'urll'; did you mean 'url'?"),
        ({"command": "notify-send qig"}, "command is a list of words"),
        ({"command": [""]}, "command begins with an empty word"),
        ({"command": ["a", 1]}, "Expected `str`, got `int` - at `command[1]`"),
        ({"url": "file:///etc/passwd"}, "url must begin with http:// or https://"),
        ({"url": f"https://me:{SECRET}@host/"}, "url holds a user or a password"),
        ({"url": "https://host/${9}"}, "a ${ that is not followed by a NAME"),
        ({"url": "https://host/", "on": ["critcal"]}, "critcal"),
        ({"url": "https://host/", "on": []}, "on names nothing"),
        ({"url": "https://host/", "timeout_s": 0}, "timeout_s is 0"),
        ({"url": "https://host/", "min_interval_s": float("nan")}, "min_interval_s is nan"),
        ({"url": "https://host/", "token_env": f"Bearer {SECRET}"}, "token_env is the name of an environment variable"),
        ({"command": ["a"], "token_env": "TOKEN"}, "token_env is for a url"),
        ("https://host/", "[alerts] must be a table"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_the_reason(table: object, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_alerts(table, "mine.toml")
    assert said in str(refused.value)
    assert "'mine.toml': [alerts]" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_flood_is_one_alert_a_condition_and_the_end_says_what_was_left_out(server: Server) -> None:
    run = Run(url=server.url, on=("warning", "critical", "end"), min_interval_s=3600)
    for tells in (1, 49):
        for _ in range(tells):
            run.tell("warning")
            run.tell("critical")  # that it became critical is news
            run.tell("critical", condition="nonfinite")
        until(lambda: len(server.bodies) == 3)
    run.tell("end", condition="")
    run.alerts.close(30)
    assert [(body["kind"], body["data"]["id"], body["left_out"]) for body in server.bodies] == [
        ("warning", "divergence", 0),
        ("critical", "divergence", 0),
        ("critical", "nonfinite", 0),
        ("end", "", 3 * 49),
    ]
    assert server.bodies[-1]["text"].endswith("(147 more left out)")


def test_the_next_alert_of_a_condition_says_how_many_were_left_out(server: Server) -> None:
    run = Run(url=server.url, min_interval_s=0.5)
    tells = 0
    while len(server.bodies) < 3:
        run.tell()
        tells += 1
        time.sleep(0.02)
    run.tell("end")
    run.alerts.close(30)
    *told, end = server.bodies
    assert len(told) + sum(body["left_out"] for body in server.bodies) == tells
    assert any(body["left_out"] for body in told[1:])
    assert end["kind"] == "end"


def test_a_full_queue_drops_the_oldest_and_counts_it(server: Server) -> None:
    server.answers.clear()
    run = Run(url=server.url, timeout_s=60)
    run.tell(condition="first")
    until(lambda: server.posts)
    for number in range(MAX_QUEUED + 9):
        run.tell(condition=f"c{number}")
    run.tell("end", condition="")
    server.answers.set()
    run.alerts.close(60)
    first, *others, end = server.bodies
    assert (first["data"]["id"], end["kind"], end["left_out"]) == ("first", "end", 10)
    assert [body["data"]["id"] for body in others] == [f"c{number}" for number in range(10, MAX_QUEUED + 9)]


def test_the_end_is_delivered_by_closing_and_nothing_after_it(server: Server) -> None:
    run = Run(url=server.url)
    run.tell("end")
    run.alerts.close(30)
    assert [body["kind"] for body in server.bodies] == ["end"]
    run.tell()
    run.alerts.close(30)
    assert len(server.bodies) == 1


def test_a_report_that_fails_ends_nothing(server: Server) -> None:
    def broken(_: str) -> None:
        raise OSError("the disk is full")

    server.status = 500
    alerts = Alerts(AlertSettings(url=server.url), run="r1", name="", path="/r1", host="here", report=broken)
    for number in range(3):
        alerts.tell("critical", step=1, text="x", data={"id": number})
    alerts.close(30)
    assert len(server.bodies) == 3


def test_a_failure_can_be_an_event_of_the_run(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path) as writer:
        alerts = Alerts(
            AlertSettings(command=("/nowhere/notify-me",)),
            run=writer.run.id,
            name=writer.manifest.name,
            path=str(writer.run.path),
            host="here",
            report=lambda text: writer.event("alert", severity="warning", text=text),
        )
        alerts.tell("end", step=3, text="finished", data={})
        alerts.close(30)
    found = [each for each in read_all(writer.run.events, Event) if isinstance(each, Event)]
    assert [each.kind for each in found] == ["start", "alert", "end"]
    assert found[1].severity == "warning"
    assert found[1].data["text"] == (
        "an alert was not delivered: the command 'notify-me' cannot be run: No such file or directory"
    )


def test_a_forked_child_tells_nobody(tmp_path: Path) -> None:
    code = f"""
import os
from qig_core.safety.alerts import Alerts, AlertSettings
settings = AlertSettings(command={python(WRITE_DOWN, tmp_path / "told")!r})
alerts = Alerts(settings, run="r1", name="", path="/r1", host="here", report=print)
alerts.tell("critical", step=1, text="of the parent", data={{}})
if (child := os.fork()) == 0:
    alerts.tell("end", step=1, text="of the child", data={{}})
    alerts.close(30)
    os._exit(0)
os.waitpid(child, 0)
alerts.close(30)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (told,) = (tmp_path / "told").read_text().splitlines()
    assert "of the parent" in told


def test_the_users_own_settings_are_taken_where_no_table_is_given(settings_file: Path) -> None:
    assert load_alerts() is None
    settings_file.write_text('[alerts]\nurl = "https://mine/"\ntimeout_s = 3\n')
    own = load_alerts()
    assert own == AlertSettings(url="https://mine/", timeout_s=3.0)
    # As a whole: nothing of the user's is mixed in.
    assert load_alerts({"url": "https://other/"}, "x.toml") == AlertSettings(url="https://other/")
    settings_file.write_text('[alertz]\nurl = "https://mine/"\n')
    with pytest.raises(ConfigError, match="unknown key 'alertz'; did you mean 'alerts'"):
        load_alerts()
    settings_file.write_text("[alerts\n")
    with pytest.raises(ConfigError, match="are not TOML"):
        load_alerts()


def test_settings_that_are_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIG_SETTINGS", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"absent\.toml': No such file"):
        load_alerts()
    monkeypatch.setenv("QIG_SETTINGS", str(tmp_path))
    with pytest.raises(ConfigError, match="Is a directory"):
        load_alerts()
    mine = tmp_path / "mine.toml"
    mine.write_text('[alerts]\nurl = "https://mine/"\n')
    monkeypatch.setenv("QIG_SETTINGS", str(mine))
    assert load_alerts() == AlertSettings(url="https://mine/")


def test_settings_that_others_can_write_are_refused_with_the_cure(settings_file: Path) -> None:
    settings_file.write_text('[alerts]\nurl = "https://mine/"\n')
    for mode in (0o666, 0o664):
        settings_file.chmod(mode)
        with pytest.raises(ConfigError, match=r"cure it with: (chmod go-w .*settings\.toml)") as refused:
            load_alerts()
    subprocess.run(str(refused.value).split("cure it with: ")[1], shell=True, check=True)
    assert load_alerts() is not None


def test_settings_of_another_user_are_refused(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/etc/passwd")
    if os.geteuid() == 0:
        settings_file.touch()
        os.chown(settings_file, 12345, -1)
        other = settings_file
    monkeypatch.setenv("QIG_SETTINGS", str(other))
    with pytest.raises(ConfigError, match="are another user's"):
        load_alerts()


def test_the_example_that_config_prints_is_a_table_once_it_is_uncommented(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = core("config").stdout
    assert printed.endswith(EXAMPLE)
    assert "alerts" not in tomllib.loads(printed)
    whole, _, example = printed.partition("# [alerts]\n")
    values = tomllib.loads(whole + "[alerts]\n" + example.replace("# ", "", 1).replace("\n# ", "\n"))
    monkeypatch.setenv("TEAM_WEBHOOK", server.url)
    settings = load_alerts(values["alerts"], "mine.toml")
    assert settings == AlertSettings(url="${TEAM_WEBHOOK}")
    assert send_test(settings) == ""


def test_the_command_alerts_test_says_whether_it_was_delivered(
    server: Server, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = core("alerts", "test")
    assert none.returncode == 2
    assert f"no table [alerts] in {str(settings_file)!r}; `qig-core config` prints an example" in none.stderr
    monkeypatch.setenv("TEAM_HOOK", f"{server.url}/{SECRET}")
    settings_file.write_text('[alerts]\nurl = "${TEAM_HOOK}"\n')
    done = core("alerts", "test")
    assert (done.returncode, done.stderr) == (0, "delivered\n")
    assert server.bodies[0]["kind"] == "test"
    server.status = 403
    done = core("alerts", "test")
    assert (done.returncode, done.stderr) == (1, "qig-core: not delivered: the url answered 403 (Forbidden)\n")
    file = tmp_path / "mine.toml"
    file.write_text("[alerts]\ncommand = ['/nowhere/notify-me']\n")
    done = core("alerts", "test", "--config", file)
    assert (done.returncode, len(server.bodies)) == (1, 2)
    assert "the command 'notify-me' cannot be run" in done.stderr


def test_alerts_are_no_part_of_the_configuration_of_a_run(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(f"[alerts]\ncommand = {json.dumps(python(WRITE_DOWN, tmp_path / 'told'))}\n")
    for run_id, options in (("with", ["--config", config]), ("without", [])):
        command = ["train", "--preset", "tiny", "--steps", "2", "--runs", tmp_path / "runs", "--id", run_id, *options]
        done = core(*command)
        assert done.returncode == 0, done.stderr
        assert "wins over" not in done.stderr
    files = [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if b'"alerts"' in (data := file.read_bytes()) or b"json.load(" in data]
    manifests = [json.loads(file.read_text()) for file in files if file.name == "manifest.json"]
    assert len(manifests) >= 2
    assert len({manifest["config_digest"] for manifest in manifests}) == 1


def test_alerts_in_a_run_directory_are_never_executed(tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    table = {"command": ["touch", str(executed)], "on": ["warning", "critical", "end"]}
    manifest = Manifest(id="r1", program=PROGRAM, total_steps=300, config={"steps": 300, "alerts": table})
    with RunWriter.create(tmp_path, manifest) as writer:
        run = writer.run
    toml = f"[alerts]\ncommand = ['touch', '{executed}']\n"
    for name in ("settings.toml", "alerts.toml", "config.toml"):
        (run.path / name).write_text(toml)
    assert read_manifest(run).config["alerts"] == table
    for words in (["train", "--resume", run.path], ["train", "--fork", run.path], ["alerts", "test"]):
        done = core(*words, cwd=run.path)
        assert done.returncode == 2
    refused = core("train", "--resume", run.path, "--steps", "5", cwd=run.path)
    assert "unknown key alerts" in refused.stderr
    assert not executed.exists()
