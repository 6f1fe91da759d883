"""Finding a checkpoint by what a person types, going on from the newest sound one, setting bad ones aside."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from qig_core.checkpoints import commands
from qig_core.checkpoints.catalog import list_checkpoints, resolve
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.recovery import load, newest_verified
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, quarantine, remove_tag
from qig_core.checkpoints.verification import Verification
from qig_core.errors import CheckpointError, UsageError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest


def put(run: RunDir, step: int, loss: float | None = None, **facts: Any) -> str:
    state = {"model": {"w": torch.full((3,), float(step))}, "step": step}
    metrics = facts.pop("metrics", {}) | ({} if loss is None else {"loss_heldout": loss})
    reason = facts.pop("reason", "interval")
    return publish(run, session="5e55", step=step, reason=reason, files=to_files(state), metrics=metrics, **facts).name


def spoil(run: RunDir, name: str) -> None:
    path = run.checkpoint(name) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_newest_sound_one_is_found_and_bad_ones_are_set_aside_with_every_byte(run: RunDir) -> None:
    names = [put(run, step) for step in (1, 2, 3, 4)]
    spoil(run, names[3])
    (run.checkpoint(names[2]) / "state.json").unlink()
    (run.checkpoint(names[1]) / "manifest.json").write_bytes(b"{}")
    before = {path.name: path.read_bytes() for path in run.checkpoint(names[3]).iterdir()}
    reported: list[tuple[str, str, Path]] = []

    def on_bad(verification: Verification, path: Path) -> None:
        reported.append((verification.name, verification.status, path))

    assert newest_verified(run, on_bad=on_bad).name == names[0]
    assert {name: status for name, status, _ in reported} == {
        names[3]: "HASH-MISMATCH",
        names[2]: "TORN",
        names[1]: "UNREADABLE",
    }
    path = next(path for name, _, path in reported if name == names[3])
    assert path == run.checkpoints / f".bad-{names[3]}"
    after = {path.name: path.read_bytes() for path in path.iterdir()}
    note = json.loads(after.pop("quarantine.json"))
    assert after == before
    assert note["name"] == names[3]
    assert "HASH-MISMATCH" in note["reason"]
    assert [found.name for found in list_checkpoints(run)] == [names[0]]


def test_nothing_is_set_aside_behind_the_newest_sound_one(run: RunDir) -> None:
    old, new = put(run, 1), put(run, 2)
    spoil(run, old)
    assert newest_verified(run).name == new
    assert len(list_checkpoints(run)) == 2


def test_when_none_is_left_the_error_names_the_bad_ones(run: RunDir) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        newest_verified(run)
    name = put(run, 1)
    spoil(run, name)
    with pytest.raises(CheckpointError, match=f"set aside: {name} .HASH-MISMATCH"):
        newest_verified(run)


def test_a_name_that_was_set_aside_before_is_set_aside_again_beside_it(run: RunDir) -> None:
    name = put(run, 1)
    (run.checkpoints / f".bad-{name}").mkdir()
    path = quarantine(run, name, "why")
    assert path.name.startswith(f".bad-{name}-")
    assert json.loads((path / "quarantine.json").read_bytes())["reason"] == "why"
    with pytest.raises(CheckpointError, match="cannot be set aside"):
        quarantine(run, name, "again")


def test_a_state_is_loaded_only_after_it_verified(run: RunDir) -> None:
    name = put(run, 7)
    state, manifest = load(run, name)
    assert state["step"] == manifest.step == 7
    assert state["model"]["w"].tolist() == [7.0] * 3
    spoil(run, name)
    with pytest.raises(CheckpointError, match="HASH-MISMATCH"):
        load(run, name)


def test_a_person_names_a_checkpoint_in_many_ways(run: RunDir) -> None:
    first = put(run, 100, 3.0)
    best = put(run, 200, 1.0, conditions={"drift": "ok"})
    again = put(run, 100, 2.0)
    sick = put(run, 300, float("nan"), reason="emergency")
    assert resolve(run, "latest").name == sick
    assert resolve(run, "best").name == best
    assert resolve(run, "best", score="loss_heldout", lower_is_better=False).name == first
    assert resolve(run, "last-good").name == again
    assert resolve(run, "100").name == again
    assert resolve(run, first).name == first
    assert resolve(run, "step-000003").name == sick
    for text, why in [
        ("step-00000100", "begins 2 names"),
        ("400", "no complete checkpoint of step 400"),
        ("nothing", f"no checkpoint 'nothing'.*newest first: {sick}, {again}"),
        ("", "no checkpoint"),
        ("../a-run", "no checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=why):
            resolve(run, text)
    with pytest.raises(CheckpointError, match="finite 'phi'"):
        resolve(run, "best", score="phi")


def test_the_best_is_by_the_score_that_the_run_declares(run: RunDir) -> None:
    low, high = (put(run, step, 1.0, metrics={"accuracy": step / 300}) for step in (100, 200))
    rule = {"newest": 1, "best": 1, "score": "accuracy", "lower_is_better": False}
    write_document(run.manifest, encode_document(Manifest(id=run.id, keep=rule)))
    assert resolve(run, "best").name == high
    assert resolve(run, "best", score="accuracy", lower_is_better=True).name == low


def test_a_tag_names_the_one_that_has_it(run: RunDir) -> None:
    first, second = put(run, 100), put(run, 200)
    add_tag(run, first, "good")
    assert resolve(run, "good").name == first
    add_tag(run, second, "good")
    with pytest.raises(CheckpointError, match="2 checkpoints have the tag 'good'; there are, newest first"):
        resolve(run, "good")


def test_a_sentence_names_five_checkpoints_and_counts_the_rest(run: RunDir) -> None:
    names = [put(run, step) for step in range(1, 8)][::-1]
    with pytest.raises(CheckpointError, match=f"newest first: {', '.join(names[:5])} and 2 more$"):
        resolve(run, "400")
    for name in names:
        spoil(run, name)
    with pytest.raises(CheckpointError, match=f"{names[4]} .HASH-MISMATCH[^,]* and 2 more$"):
        newest_verified(run)


def test_tags_on_which_a_read_would_never_end_are_a_problem_of_their_checkpoint(run: RunDir) -> None:
    name = put(run, 1)
    os.mkfifo(run.checkpoint_tags(name))
    (found,) = list_checkpoints(run)
    assert "tags.json' cannot be read (not a regular file)" in found.problems[0]


def test_a_step_or_a_rank_chooses_no_torn_one_and_says_that_it_is_there(run: RunDir) -> None:
    name = put(run, 5, 1.0)
    (run.checkpoint(name) / "state.json").unlink()
    for text in ("5", "latest", "best", "last-good"):
        with pytest.raises(CheckpointError, match=rf"{name} \(TORN\)"):
            resolve(run, text)
    assert resolve(run, name).status == "TORN"


def test_the_list_passes_over_what_is_no_checkpoint(run: RunDir, tmp_path: Path) -> None:
    name = put(run, 1)
    for junk in (".tmp-5e55-aaaaaa", ".bad-x", ".del-x", "lost+found", "notes", "ümlaut", "a b"):
        (run.checkpoints / junk).mkdir()
    (run.checkpoints / "a-file").write_text("x")
    (run.checkpoints / "step-00000009-abcdef").symlink_to(run.checkpoint(name))
    assert [found.name for found in list_checkpoints(run)] == [name]
    assert list_checkpoints(RunDir(tmp_path / "no-such-run")) == []


def test_a_copy_under_another_name_is_a_checkpoint_of_that_name(run: RunDir) -> None:
    name = put(run, 1)
    copy = run.checkpoint("keep-this")
    copy.mkdir()
    for path in run.checkpoint(name).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert {found.name for found in list_checkpoints(run)} == {name, "keep-this"}
    assert load(run, "keep-this")[1].name == "keep-this"


def test_tags_are_added_and_removed_without_touching_what_is_verified(run: RunDir) -> None:
    name = put(run, 1, tags=["first"])
    assert add_tag(run, name, "pinned") == ("first", "pinned")
    assert add_tag(run, name, "pinned") == ("first", "pinned")
    assert json.loads(run.checkpoint_tags(name).read_bytes())["tags"] == ["first", "pinned"]
    assert remove_tag(run, name, "first") == ("pinned",)
    assert list_checkpoints(run)[0].tags == ("pinned",)
    assert newest_verified(run).name == name
    with pytest.raises(UsageError):
        add_tag(run, name, "a b")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        add_tag(run, "step-00000002-000000", "x")


def test_damaged_tags_are_a_problem_that_is_told_and_never_overwritten(run: RunDir) -> None:
    name = put(run, 1, tags=["pinned"])
    run.checkpoint_tags(name).write_bytes(b'{"tags": ["pin')
    (found,) = list_checkpoints(run)
    assert found.status == "COMPLETE"
    assert "tags.json" in found.problems[0]
    with pytest.raises(CheckpointError, match=r"tags\.json"):
        add_tag(run, name, "x")


def test_every_answer_of_the_commands_is_plain_json(run: RunDir) -> None:
    assert commands.list_rows(run) == []
    assert list(commands.verify(run)) == [{"result": []}]
    good, bad = put(run, 1, 2.0, tags=["pinned"]), put(run, 2, float("inf"))
    spoil(run, bad)
    rows = commands.list_rows(run)
    assert [row["name"] for row in rows] == [bad, good]
    assert rows[0]["nonfinite_metrics"] == {"loss_heldout": "inf"}
    assert commands.best(run)["name"] == good
    assert commands.latest(run)["name"] == bad
    assert commands.show(run, "1")["manifest"]["files"][0]["path"] == "model.safetensors"
    *told, last = commands.verify(run)
    progress = [line for line in told if "progress" in line]
    assert [line["progress"]["number"] for line in progress] == [1, 2]
    assert [line["checked"] for line in told if line not in progress] == last["result"]
    assert set(last["result"][0]) == {
        *("name", "step", "t", "reason", "status", "problems", "nonfinite", "tags", "fingerprint", "size")
    }
    assert [row["status"] for row in last["result"]] == ["HASH-MISMATCH", "COMPLETE"]
    assert [row["name"] for row in list(commands.verify(run, "best"))[-1]["result"]] == [good]
    everything = [rows, commands.show(run, "1"), *progress, last]
    assert json.loads(msgspec.json.encode(everything)) == everything


def test_a_hundred_checkpoints_are_listed_by_their_manifests_alone(run: RunDir) -> None:
    names = {put(run, step) for step in range(20)}
    for name in names:
        assert (run.checkpoint(name) / "model.safetensors").stat().st_size > 0
        (run.checkpoint(name) / "model.safetensors").chmod(0)
    assert {found.name for found in list_checkpoints(run)} == names
    assert {found.status for found in list_checkpoints(run)} == {"COMPLETE"}


def as_nobody(code: str, folder: Path) -> list[str]:
    """Run it as a user whom modes keep out, in `folder`; what it prints."""
    drop = "import os\nif os.geteuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    words = [sys.executable, "-c", textwrap.dedent(code).replace("DROP", drop, 1)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_what_cannot_be_read_now_is_neither_set_aside_nor_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a-run")
    run.checkpoints.mkdir(parents=True)
    older, newer = put(run, 1), put(run, 2)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    (run.checkpoint(newer) / "model.safetensors").chmod(0o000)
    code = """
        from qig_core.checkpoints.recovery import newest_verified
        from qig_core.checkpoints.verification import verify
        from qig_core.errors import CheckpointError
        from qig_core.rundir.layout import RunDir
        DROP
        run = RunDir("a-run")
        try:
            print(newest_verified(run).name)
        except CheckpointError as error:
            print(error)
    """
    (said,) = as_nobody(code, tmp_path)
    assert said.startswith(f"{newer}: model.safetensors cannot be read: Permission denied; nothing is known against")
    assert {path.name for path in run.checkpoints.iterdir()} == {older, newer}
    (run.checkpoint(newer) / "model.safetensors").chmod(0o644)
    assert newest_verified(run).name == newer
