"""What a person sees who types a command, and what a program gets that reads the same through a pipe."""

import json
import os
import pty
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.commands import demo
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import VERBS, Command, Event, Manifest
from qig_core.rundir.writer import RunWriter
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.terminal import command, resume_command
from tests.endtoend.commands import core, core_json


def in_columns(columns: int, *arguments: str | Path) -> str:
    """The output of qig-core on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "qig_core.cli", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "dumb"},
    ) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


@pytest.fixture
def long_named(tmp_path: Path) -> RunDir:
    """A run whose id, name and checkpoint are all longer than a terminal is wide."""
    with RunWriter.create(tmp_path, Manifest(id="r" * 90, name="a long name " * 7)) as writer:
        writer.telemetry.log(7, {"phi": 0.5})
        publish(writer.run, session=writer.session, step=7, reason="interval", files={"a": b"x"}, tags=["t" * 40])
    return writer.run


def test_through_a_pipe_nothing_is_cut_whatever_the_columns(
    long_named: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint,) = list_checkpoints(long_named)
    for words, expected in (
        (["runs", "--runs", long_named.path.parent], ["r" * 90, ("a long name " * 7).strip()]),
        (["show", long_named.path], ["r" * 90, ("a long name " * 7).strip()]),
        (["checkpoints", "list", long_named.path], [checkpoint.name, "t" * 40]),
    ):
        for columns in ("20", "80"):
            done = subprocess.run(
                [sys.executable, "-m", "qig_core.cli", *map(str, words)],
                capture_output=True,
                text=True,
                env=os.environ | {"COLUMNS": columns},
                check=True,
            )
            lines = done.stdout.splitlines()
            assert all(any(text in line for line in lines) for text in expected), done.stdout
            assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("columns", [30, 80])
def test_on_a_narrow_terminal_ids_and_numbers_stay_whole_and_words_fold(long_named: RunDir, columns: int) -> None:
    (checkpoint,) = list_checkpoints(long_named)
    shown = in_columns(columns, "runs", "--runs", long_named.path.parent)
    assert "r" * 90 in shown
    assert "0.500" in shown
    assert "…" not in shown
    assert ("a long name " * 7).strip() not in shown
    assert checkpoint.name in in_columns(columns, "checkpoints", "list", long_named.path)


def test_a_run_is_named_by_latest_or_by_its_name(finished: Path) -> None:
    for text in ("latest", "first", finished.name):
        (shown,) = core_json("show", text, "--runs", finished.parent)
        assert shown["id"] == finished.name


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_names_what_matters_in_a_report(option: str) -> None:
    done = core(option)
    assert done.returncode == 0
    assert done.stdout.startswith("qig-tui 0.")
    assert f"python {sys.version.split()[0]}, torch " in done.stdout


def test_an_unknown_verb_is_a_wrong_command_line_and_the_nearest_is_named(finished: Path) -> None:
    done = core("ctl", finished, "abrot")
    assert (done.returncode, done.stderr) == (2, "qig-core: unknown verb 'abrot'; did you mean abort?\n")
    assert all(verb in core("ctl", "--help").stdout for verb in VERBS)


def test_a_run_with_a_foreign_file_is_a_row_of_the_list_and_one_sentence_of_its_own(tmp_path: Path) -> None:
    for name in ("good", "no-telemetry", "no-events"):
        with RunWriter.create(tmp_path, Manifest(id=name)) as writer:
            writer.telemetry.log(7, {"phi": 0.5})
    for path in (RunDir(tmp_path / "no-telemetry").telemetry(), RunDir(tmp_path / "no-events").events):
        path.unlink()
        path.mkdir()
        sentence = f"{str(path)!r} cannot be read: not a regular file\n"
        shown = core("show", path.parent)
        assert (shown.returncode, shown.stdout, shown.stderr) == (2, "", f"qig-core: {sentence}")
        listed = core("runs", "--runs", tmp_path)
        assert listed.returncode == 0
        assert f"{path.parent.name}: {sentence}" in listed.stderr
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        ["good", "EXITED"], ["no-events", "UNREADABLE"], ["no-telemetry", "UNREADABLE"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["pause", "5"], 2, "pause takes nothing after it, and '5' was given; see qig-core ctl --help"),
        (["set_log_every"], 2, "set_log_every needs N, a whole number ≥ 1"),
        (["set_log_every", "-3"], 2, "set_log_every needs N, a whole number ≥ 1, not '-3'"),
        (["set_log_every", "often"], 2, "set_log_every needs N, a whole number ≥ 1, not 'often'"),
        (["pin"], 2, "pin needs a CHECKPOINT: STEP, a name, latest, best or last-good"),
        (["tag", "100"], 2, "tag needs a CHECKPOINT and a TAG"),
        (
            ["xyz"],
            2,
            f"unknown verb 'xyz'; known are {', '.join(VERBS)}",
        ),
    ],
)
def test_a_command_that_no_trainer_could_obey_is_refused_at_once(
    finished: Path, words: list[str], code: int, sentence: str
) -> None:
    done = core("ctl", finished, *words)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"qig-core: {sentence}\n")


def test_a_checkpoint_is_shown_by_whatever_names_it(finished: Path) -> None:
    names = {row["name"]: row["step"] for row in core_json("checkpoints", "list", finished)}

    def shown(*words: str | Path) -> int:
        return int(json.loads(core("checkpoints", "show", *words, "--json").stdout)["step"])

    name = next(name for name, step in names.items() if step == 100)
    assert [shown(finished, "100"), shown(finished, name), shown(f"{finished}@100"), shown(finished)] == [
        100, 100, 100, 120
    ]  # fmt: skip
    assert shown(f"{finished}@best") in names.values()
    *_, verified = core_json("checkpoints", "verify", f"{finished}@100")
    assert [row["step"] for row in verified["result"]] == [100]
    twice = core("checkpoints", "show", f"{finished}@100", "120")
    assert (twice.returncode, twice.stderr) == (2, "qig-core: two checkpoints, '100' and '120'; name one\n")


def test_training_takes_several_texts_and_its_help_shows_no_argument(tmp_path: Path) -> None:
    usage = next(line for line in core("train", "--help").stdout.splitlines() if "Usage" in line)
    assert usage.strip() == "Usage: qig-core train [OPTIONS]"
    (tmp_path / "a.txt").write_text("text " * 1000)
    done = core("train", "--corpus", tmp_path / "a.txt", tmp_path / "b.txt")
    assert done.stderr == f"qig-core: no such file or folder: {str(tmp_path / 'b.txt')!r}\n"
    lost = core("train", "text.txt")
    said = "qig-core: unexpected argument 'text.txt'; did you mean --corpus 'text.txt'?\n"
    assert (lost.returncode, lost.stderr) == (2, said)


def test_the_verbs_of_the_help_are_those_that_a_trainer_acts_on(tmp_path: Path) -> None:
    with IntegratedMonitor.open(tmp_path) as monitor:
        writer = monitor.writer
        for number, verb in enumerate(sorted(VERBS, key="abort".__eq__)):  # the abort last
            command_id = f"{number:032x}"
            asked = Command(id=command_id, session=writer.session, verb=verb, t=0.0)
            write_document(writer.run.command(command_id), encode_document(asked), mode=0o600)
        writer.mailbox.poll(0)
        monitor.check(0, {"loss": 1.0})
    answers = [e.data for e in read_all(writer.run.events, Event) if isinstance(e, Event) and e.kind == "command"]
    assert {data["verb"] for data in answers} == set(VERBS)
    assert not [data for data in answers if "not supported" in data.get("reason", "")]


def test_verifying_a_run_without_checkpoints_found_nothing_good(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")):
        pass
    done = core("checkpoints", "verify", tmp_path / "r1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no checkpoint to verify\n")
    as_json = core("checkpoints", "verify", tmp_path / "r1", "--json")
    assert (as_json.returncode, as_json.stdout) == (1, '{"result":[]}\n')


def test_a_whole_file_beside_a_preset_says_which_of_its_keys_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(core("config").stdout.replace("\nthreads = 0\n", "\nthreads = 1\n"))
    command = ["train", "--preset", "tiny", "--config", file, "--corpus", tmp_path / "absent"]
    told, refused = core(*command).stderr.splitlines()
    assert told.startswith(f"qig-core: {str(file)!r} wins over --preset tiny in steps, kernel.width")
    assert "threads" not in told  # the same in both
    assert "absent" in refused
    file.write_text("seed = 1\n")
    assert "wins over" not in core(*command).stderr
    assert "wins" in core("train", "--help").stdout


def test_the_last_line_of_figures_is_what_show_says(tmp_path: Path) -> None:
    done = core("train", "--preset", "tiny", "--steps", "23", "--runs", tmp_path)
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("step 23/23")]
    metrics = core_json("show", "latest", "--runs", tmp_path)[0]["metrics"]
    labels = {"loss": "loss", "held-out": "loss_heldout", "phi": "phi", "kappa": "kappa"}
    assert last.split("  ")[1:] == [f"{label} {metrics[key]:.3f}" for label, key in labels.items()]


def test_a_printed_command_can_be_typed_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "my runs; rm -rf $HOME" / "r'1"
    assert shlex.split(command("qig-tui", odd)) == ["qig-tui", "my runs; rm -rf $HOME/r'1"]
    assert shlex.split(resume_command(odd, 75))[-1] == "my runs; rm -rf $HOME/r'1@last-good"
    assert command("qig-tui", tmp_path / "r1") == "qig-tui ./r1"  # without a slash it would be an id
    assert command("qig-tui", Path("/elsewhere/r1")) == "qig-tui /elsewhere/r1"


def test_after_training_the_next_command_is_quoted(tmp_path: Path) -> None:
    done = core("train", "--preset", "tiny", "--steps", "2", "--runs", tmp_path / "my runs", "--id", "r1")
    assert f"see it with: qig-tui '{tmp_path}/my runs/r1'" in done.stderr


def test_leaving_the_demo_says_where_the_run_is_and_how_to_stop_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunWriter.create(tmp_path / "my runs", Manifest(id="r1")) as writer:
        writer.step_done(3)
        demo.tell_what_became(writer.run)
    told = capsys.readouterr().err
    assert f"goes on in the background, in {writer.run.path}\n" in told
    assert f"qig-tui '{writer.run.path}'\n" in told
    assert f"qig-core ctl '{writer.run.path}' abort\n" in told


def test_after_a_stop_the_demo_says_what_was_saved_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.telemetry.log(3, {"loss": 1.0})
        made = publish(writer.run, session=writer.session, step=3, reason="emergency", files={"a": b"x"})
        writer.close(76, "abort")
    demo.tell_what_became(writer.run)
    told = capsys.readouterr().err
    assert "EXITED 76, at step 3" in told
    assert f"checkpoint {made.name}, step 3\n" in told
    assert f"qig-core train --resume {writer.run.path}\n" in told


def test_what_a_limit_stopped_is_not_sent_back_to_a_state_that_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        publish(
            writer.run,
            session=writer.session,
            step=3,
            reason="emergency",
            files={"a": b"x"},
            conditions={"divergence": "critical"},
        )
        writer.close(75, "divergence")
    demo.tell_what_became(writer.run)
    told = capsys.readouterr().err
    assert "there is none to go back to" in told
    assert f"qig-core checkpoints list {writer.run.path}\n" in told
    assert "--resume" not in told


def test_a_run_that_has_stopped_but_not_ended_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:
        writer.event("emergency", step=3, exit_code=76)
        ending = threading.Timer(0.3, lambda: writer.close(76, "abort"))
        ending.start()
        demo.tell_what_became(writer.run)
        ending.join()
    assert "is EXITED 76" in capsys.readouterr().err
