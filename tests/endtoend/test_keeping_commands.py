"""Checkpoints are pinned, tagged, pruned and gone back to by a person: of a run that has ended, and of a live one."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from qig_core.checkpoints.catalog import list_checkpoints, read_tags
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event
from tests.endtoend.commands import core, core_json, start_core, wait_for_step
from tests.warm import Warm

OFTEN = """
[cadence]
checkpoint_every = 10
heldout_every = 10
measure_every = 20
[checkpoints]
newest = {newest}
best = 1
"""


def train_words(folder: Path, steps: int, newest: int) -> list[str]:
    config = folder / "often.toml"
    config.write_text(OFTEN.format(newest=newest))
    words = ["train", "--preset", "tiny", "--steps", str(steps), "--config", str(config)]
    return [*words, "--runs", str(folder), "--id", "r1"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of 60 steps with six checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("ended")
    done = core(*train_words(folder, 60, 10))
    assert done.returncode == 0, done.stderr
    return RunDir(folder / "r1")


@pytest.fixture
def run(ended: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it."""
    shutil.copytree(ended.path, tmp_path / "r1")
    return RunDir(tmp_path / "r1")


@dataclass(frozen=True)
class Live:
    run: RunDir
    trainer: "subprocess.Popen[str] | Warm"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A trainer that is at work; the last test that uses it ends it."""
    folder = tmp_path_factory.mktemp("live")
    trainer = start_core(*train_words(folder, 1_000_000, 100_000))
    wait_for_step(folder, 45)
    yield Live(RunDir(folder / "r1"), trainer)
    if trainer.poll() is None:
        psutil.Process(trainer.pid).terminate()
    trainer.communicate(timeout=60)


def name_of(run: RunDir, step: int) -> str:
    return next(found.name for found in list_checkpoints(run) if found.step == step)


def steps_of(run: RunDir) -> list[int | None]:
    return [found.step for found in list_checkpoints(run)]


def events(run: RunDir, kind: str) -> list[Event]:
    return [each for each in read_all(run.events, Event) if isinstance(each, Event) and each.kind == kind]


def at_a_terminal(*words: str | Path, answer: str) -> tuple[int, str, str]:
    """qig-core with a pseudo-terminal for stdin and stderr: its exit code, stdout, and what stood on the terminal."""
    keyboard, screen = pty.openpty()
    argv = [sys.executable, "-m", "qig_core.cli", *map(str, words)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        argv, stdin=screen, stdout=subprocess.PIPE, stderr=screen, env=environment, start_new_session=True
    )
    os.close(screen)
    shown, answered = b"", False
    while True:
        ready, _, _ = select.select([keyboard], [], [], 60)
        assert ready, shown
        try:
            piece = os.read(keyboard, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
        if b"[y/N]" in shown and not answered:
            answered = True
            os.write(keyboard, answer.encode() + b"\n")
    out, _ = process.communicate(timeout=60)
    os.close(keyboard)
    assert answered, shown
    return process.returncode, out.decode(), shown.decode()


def test_pins_and_tags_of_a_run_that_has_ended(run: RunDir) -> None:
    name = name_of(run, 20)
    pinned = core("checkpoints", "pin", run.path, "20")
    assert (pinned.returncode, pinned.stdout, pinned.stderr) == (0, "", f"{name}: pinned\n")
    assert core_json("checkpoints", "tag", run.path, "20", "paper") == [{"name": name, "tags": ["paper", "pinned"]}]
    assert core_json("checkpoints", "unpin", f"{run.path}@{name}") == [{"name": name, "tags": ["paper"]}]
    removed = core("checkpoints", "tag", run.path, name, "paper", "--remove")
    assert (removed.returncode, removed.stderr) == (0, f"{name}: no tags\n")
    assert read_tags(run, name) == ()
    assert [(each.session, each.data["tags"]) for each in events(run, "tagged")] == [
        (None, ["pinned"]),
        (None, ["paper", "pinned"]),
        (None, ["paper"]),
        (None, []),
    ]
    seqs = [each.seq for each in read_all(run.events, Event) if isinstance(each, Event)]
    assert seqs == list(range(len(seqs)))


def test_what_cannot_be_pinned_or_tagged_is_said(run: RunDir) -> None:
    for words, code, why in [
        (("pin", run.path), 2, "name a CHECKPOINT"),
        (("pin", run.path, "999"), 1, "no complete checkpoint of step 999"),
        (("unpin", run.path, "../../etc"), 1, "no checkpoint '../../etc'"),
        (("pin", f"{run.path}@20", "30"), 2, "two checkpoints, '20' and '30'"),
        (("tag", run.path, "20", "two words"), 2, "letters, digits"),
        (("pin", run.path.with_name("nothing"), "20"), 2, "does not exist"),
    ]:
        done = core("checkpoints", *words)
        assert (done.returncode, done.stdout, why in done.stderr) == (code, "", True), done.stderr
    assert events(run, "tagged") == []


def test_a_dry_run_shows_why_each_is_kept_and_changes_nothing(ended: RunDir) -> None:
    before = ended.events.read_bytes()
    done = core("checkpoints", "prune", ended.path, "--newest", "2", "--dry-run")
    rows = [line.split(maxsplit=5) for line in done.stdout.splitlines()[1:]]
    assert (done.returncode, done.stderr) == (0, "")
    assert [(row[1], row[4]) for row in rows] == [
        ("60", "keep"),
        ("50", "keep"),
        ("40", "delete"),
        ("30", "delete"),
        ("20", "delete"),
        ("10", "delete"),
    ]
    assert rows[0][5] == "newest, best, last verified"
    *progress, last = core_json("checkpoints", "prune", ended.path, "--newest", "2", "--dry-run")
    result = last["result"]
    assert all(set(line) == {"progress"} for line in progress)
    assert result["rule"] == {"newest": 2, "best": 1, "score": "loss_heldout", "lower_is_better": True}
    assert [(row["step"], row["kept"]) for row in result["plan"]] == [
        (60, True),
        (50, True),
        *((step, False) for step in (40, 30, 20, 10)),
    ]
    assert (result["dry_run"], result["deleted"]) == (True, [])
    assert result["freed"] == sum(row["size"] for row in result["plan"] if not row["kept"])
    nothing = core("checkpoints", "prune", ended.path, "--yes")
    assert (nothing.returncode, nothing.stderr) == (0, "nothing to delete: the rule keeps them all\n")
    assert len(steps_of(ended)) == 6
    assert ended.events.read_bytes() == before


def test_nobody_to_ask_is_a_usage_error_and_nothing_goes(run: RunDir) -> None:
    for words, why in [
        (("--newest", "2"), "nobody is here to ask: add --yes, or --dry-run to look"),
        (("--newest", "2", "--json"), "nobody is here to ask"),
        (("--newest", "0", "--yes"), "newest is 0: at least 1"),
    ]:
        done = core("checkpoints", "prune", run.path, *words)
        assert (done.returncode, done.stdout, why in done.stderr) == (2, "", True), done.stderr
    assert len(steps_of(run)) == 6


def test_at_a_terminal_no_keeps_and_yes_deletes(run: RunDir) -> None:
    words = ("checkpoints", "prune", run.path, "--newest", "2", "--best", "0")
    code, out, shown = at_a_terminal(*words, answer="n")
    assert (code, len(steps_of(run))) == (1, 6)
    assert "Delete 4 checkpoints (1.4 MB)? [y/N]" in shown
    assert "nothing was deleted" in shown
    assert out.count("delete") == 4
    code, _, shown = at_a_terminal(*words, answer="y")
    assert (code, steps_of(run)) == (0, [60, 50])
    assert "4 checkpoints deleted, 1.4 MB freed, 2 kept" in shown
    (pruned,) = events(run, "pruned")
    assert (pruned.data["how"], pruned.data["kept"], len(pruned.data["names"])) == ("by qig-core", 2, 4)
    assert [path.name for path in run.checkpoints.glob(".*")] == []


def test_with_yes_and_json_the_last_line_says_what_went(run: RunDir) -> None:
    pinned = name_of(run, 10)
    assert core("checkpoints", "pin", run.path, pinned).returncode == 0
    words = ("--newest", "1", "--best", "1", "--score", "loss_heldout", "--higher-is-better", "--yes")
    going = {name_of(run, step) for step in (30, 40, 50)}
    scores = {found.step: found.manifest.metrics["loss_heldout"] for found in list_checkpoints(run) if found.manifest}
    highest = max(scores, key=lambda step: scores[step] or 0.0)
    *_, last = core_json("checkpoints", "prune", run.path, *words)
    assert set(steps_of(run)) == {60, highest, 10}
    assert going - {name_of(run, highest)} <= set(last["result"]["deleted"])
    assert last["result"]["rule"]["lower_is_better"] is False
    assert len(last["result"]["deleted"]) == 6 - len(steps_of(run))


def test_where_none_verifies_nothing_is_pruned_and_a_damaged_one_is_not_restored(run: RunDir) -> None:
    for found in list_checkpoints(run):
        path = found.path / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    done = core("checkpoints", "prune", run.path, "--newest", "1", "--yes")
    assert done.returncode == 1
    assert "of 6 checkpoints none verifies" in done.stderr
    assert len(steps_of(run)) == 6
    back = core("checkpoints", "restore", run.path, "20")
    assert back.returncode == 1
    assert f"{name_of(run, 20)} is HASH-MISMATCH" in back.stderr


def test_a_restore_of_a_run_that_has_ended_verifies_and_says_how_to_go_on(ended: RunDir) -> None:
    name = name_of(ended, 20)
    done = core("checkpoints", "restore", ended.path, "20", cwd=ended.path.parent)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"{name} is whole, and nothing is running. Go on from it with:",
        f"  qig-core train --resume ./r1@{name}",
    ]
    (line,) = core_json("checkpoints", "restore", f"{ended.path}@best")
    assert line["result"]["status"] == "COMPLETE"
    assert line["result"]["command"].endswith(f"@{line['result']['name']}")


def test_show_and_best_say_what_is_known(ended: RunDir) -> None:
    name = name_of(ended, 20)
    shown = core("checkpoints", "show", f"{ended.path}@20")
    facts = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines() if len(line.split()) > 1)
    assert shown.returncode == 0
    assert (facts["checkpoint"], facts["status"], facts["step"]) == (name, "COMPLETE", "20")
    assert (facts["reason"], facts["tags"]) == ("interval", "–")
    assert "model.safetensors" in shown.stdout
    (row,) = core_json("checkpoints", "show", ended.path)
    assert (row["step"], row["manifest"]["reason"]) == (60, "end")
    scores = {found.step: found.manifest.metrics["lr"] for found in list_checkpoints(ended) if found.manifest}
    for way, chosen in (("--lower-is-better", min), ("--higher-is-better", max)):
        (row,) = core_json("checkpoints", "best", ended.path, "--score", "lr", way)
        assert row["metrics"]["lr"] == chosen(score for score in scores.values() if score is not None)
    nothing = core("checkpoints", "best", ended.path, "--score", "no_such")
    assert nothing.returncode == 1
    assert "no complete checkpoint has a finite 'no_such'" in nothing.stderr


@pytest.mark.parametrize("verb", ["pin", "unpin", "tag", "prune", "restore", "show", "best"])
def test_every_command_has_its_help(verb: str) -> None:
    done = core("checkpoints", verb, "--help")
    assert done.returncode == 0
    assert f"qig-core checkpoints {verb}" in done.stdout
    assert "--json" in done.stdout


def stages(*words: str | Path) -> list[dict[str, Any]]:
    return core_json("checkpoints", *words)


def test_a_trainer_that_does_not_answer_is_said_and_nothing_is_changed(live: Live) -> None:
    run = live.run
    trainer = psutil.Process(read_manifest(run).sessions[-1].pid)
    trainer.suspend()
    try:
        done = core("checkpoints", "pin", run.path, "20", "--wait", "0.3", "--json")
        assert done.returncode == 1
        assert "did not look at it within 0.3 s; the command was withdrawn" in done.stderr
        assert [json.loads(line)["stage"] for line in done.stdout.splitlines()] == ["requested"]
        assert read_tags(run, name_of(run, 20)) == ()
        assert list(run.mailbox_in.iterdir()) == []
    finally:
        trainer.resume()


def test_a_live_trainer_is_asked_and_answers(live: Live) -> None:
    run = live.run
    assert [each["stage"] for each in core_json("ctl", run.path, "pause")][-1] == "done"
    name = name_of(run, 20)
    told = stages("pin", run.path, "20")
    assert [each["stage"] for each in told] == ["requested", "seen", "acting", "done"]
    assert (told[-1]["name"], told[-1]["tags"]) == (name, ["pinned"])
    by_hand = core("ctl", run.path, "tag", "20", "paper")
    assert by_hand.returncode == 0, by_hand.stderr
    assert stages("tag", run.path, name, "pinned", "--remove")[-1]["tags"] == ["paper"]
    assert stages("pin", run.path, name)[-1]["tags"] == ["paper", "pinned"] == list(read_tags(run, name))
    refused = core("checkpoints", "tag", run.path, "20", "two words")
    assert (refused.returncode, "letters, digits" in refused.stdout) == (1, True)

    score = core("checkpoints", "prune", run.path, "--score", "loss", "--yes")
    assert (score.returncode, "--score is for a run that has ended" in score.stderr) == (2, True)
    before = steps_of(run)
    looked = core("checkpoints", "prune", run.path, "--newest", "1", "--best", "0", "--dry-run")
    assert looked.returncode == 0
    assert "the trainer is alive: it keeps those as well that it would go back to" in looked.stderr
    assert steps_of(run) == before
    *_, last = core_json("checkpoints", "prune", run.path, "--newest", "1", "--best", "0", "--yes")
    assert last["stage"] == "done"
    assert len(last["names"]) + last["kept"] == len(before)
    assert {before[0], 20} <= set(steps_of(run)), "the newest and the pinned one"
    assert events(run, "pruned")[-1].data["how"].startswith("by ")

    went = stages("restore", run.path, "20")
    assert [each["stage"] for each in went] == ["requested", "seen", "acting", "done"]
    assert (went[-1]["step"], went[-1]["checkpoint"]) == (20, name)
    assert core("ctl", run.path, "abort").returncode == 0
    assert live.trainer.wait(60) == 76
    last_made = list_checkpoints(run)[0].manifest
    assert last_made is not None
    assert (last_made.step, last_made.reason, last_made.parent) == (20, "emergency", name), "stopped where it went to"
    manifest = read_manifest(run)
    assert (manifest.state, manifest.keep["newest"]) == ("exited", 100_000)
    assert stages("unpin", run.path, name) == [{"name": name, "tags": ["paper"]}], "nobody is asked any more"


def test_what_an_interrupted_prune_left_is_gone_after_the_next(run: RunDir) -> None:
    half = run.checkpoints / ".del-step-00000001-abcdef"
    half.mkdir()
    (half / "model.safetensors").write_bytes(bytes(1000))
    done = core("checkpoints", "prune", run.path, "--newest", "9", "--yes")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "nothing to delete: the rule keeps them all")
    assert not half.exists()


@pytest.mark.parametrize("word", ["latest", "best", "last-good", "700"])
def test_a_tag_cannot_be_what_already_names_a_checkpoint(run: RunDir, word: str) -> None:
    done = core("checkpoints", "tag", run.path, "latest", word)
    assert done.returncode == 2
    assert f"tag '{word}' already means something" in done.stderr
