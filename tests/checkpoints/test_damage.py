"""No damage to a file of a checkpoint passes: it is said, it is not loaded, and the run goes on from the one before."""

import itertools
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qig_core.checkpoints.catalog import list_checkpoints, read_tags
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.recovery import load, newest_verified
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, remove_tag
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir

PAYLOAD = ["model.safetensors", "optimizer.safetensors", "state.json"]
HASHED = [*PAYLOAD, "manifest.json"]
BAD = {"TORN", "HASH-MISMATCH", "UNREADABLE"}


def put(run: RunDir, step: int, num_values: int = 12) -> Path:
    model = {"w": torch.arange(float(num_values)) + step, "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    state: dict[str, Any] = {"model": model, "optimizer": {"exp_avg": torch.full((12,), 0.5 * step)}, "step": step}
    files = to_files(state)
    return run.checkpoint(
        publish(run, session="5e55", step=step, reason="interval", files=files, tags=["kept", "pinned"]).name
    )


@pytest.fixture
def older(run: RunDir) -> Path:
    return put(run, 1)


@pytest.fixture
def newer(run: RunDir, older: Path) -> Path:
    return put(run, 2)


def verdict(run: RunDir, checkpoint: Path) -> str:
    """Why it is not loaded."""
    with pytest.raises(CheckpointError, match="is not loaded") as refusal:
        load(run, checkpoint.name)
    found = re.search(r"it is ([A-Z-]+): .", str(refusal.value))
    assert found
    assert found[1] in BAD
    return found[1]


def glance(run: RunDir, checkpoint: Path) -> str:
    return next(found.status for found in list_checkpoints(run) if found.name == checkpoint.name)


def overwrite(path: Path, content: bytes) -> None:
    """In place: the inode, the links and the name stay."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()


def test_these_are_all_the_files(newer: Path) -> None:
    assert sorted(path.name for path in newer.iterdir()) == sorted([*HASHED, "tags.json"])


@pytest.mark.parametrize("name", HASHED)
def test_each_flipped_bit_is_found(run: RunDir, newer: Path, name: str) -> None:
    content = (newer / name).read_bytes()
    for position, bit in itertools.product(range(len(content)), range(8)):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        overwrite(newer / name, changed)
        assert verdict(run, newer) == ("UNREADABLE" if name == "manifest.json" else "HASH-MISMATCH"), (position, bit)
    overwrite(newer / name, content)
    assert verify(run, newer.name).status == "COMPLETE"


@pytest.mark.parametrize("name", HASHED)
def test_a_file_of_any_other_length_is_found_by_a_cheap_look(run: RunDir, newer: Path, name: str) -> None:
    content = (newer / name).read_bytes()
    sizes = [*range(0, len(content), 1 + len(content) // 200), len(content) - 1]
    for changed in [content[:size] for size in sizes] + [content + more for more in (b"\n", b"\0" * 4096, content)]:
        overwrite(newer / name, changed)
        expected = "UNREADABLE" if name == "manifest.json" else "TORN"
        assert glance(run, newer) == expected
        assert verdict(run, newer) == expected
        assert any(name in problem for problem in verify(run, newer.name).problems)


CHUNK = 2 << 20


def test_damage_anywhere_in_a_file_of_many_chunks_is_found(run: RunDir) -> None:
    large = put(run, 3, num_values=1_400_000)
    path = large / "model.safetensors"
    size = path.stat().st_size
    assert size > 2 * CHUNK
    chance = random.Random(5)
    edges = [0, 7, 8, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, size - 2, size - 1]
    with open(path, "r+b") as file:
        for position in edges + [chance.randrange(size) for _ in range(60)]:
            (byte,) = os.pread(file.fileno(), 1, position)
            os.pwrite(file.fileno(), bytes([byte ^ 1 << chance.randrange(8)]), position)
            assert verdict(run, large) == "HASH-MISMATCH", position
            os.pwrite(file.fileno(), bytes([byte]), position)
        # A block of zeros: what a disk gives for what it never wrote.
        block = os.pread(file.fileno(), 4096, CHUNK)
        os.pwrite(file.fileno(), bytes(4096), CHUNK)
        assert verdict(run, large) == "HASH-MISMATCH"
        os.pwrite(file.fileno(), block, CHUNK)
        assert verify(run, large.name).status == "COMPLETE"
        for shorter in sorted([*edges[:-1], *(chance.randrange(size) for _ in range(20))], reverse=True):
            file.truncate(shorter)
            assert verdict(run, large) == "TORN", shorter
        file.truncate(size)  # as long as it was, and zeros
        assert verdict(run, large) == "HASH-MISMATCH"


@pytest.mark.parametrize(("one", "other"), itertools.combinations([*HASHED, "tags.json"], 2))
def test_two_files_that_changed_places_are_found(run: RunDir, newer: Path, one: str, other: str) -> None:
    (newer / one).rename(newer / "between")
    (newer / other).rename(newer / one)
    (newer / "between").rename(newer / other)
    assert verdict(run, newer) in BAD


@pytest.mark.parametrize("name", HASHED)
def test_a_file_of_another_checkpoint_in_its_place_is_found(run: RunDir, older: Path, newer: Path, name: str) -> None:
    overwrite(newer / name, (older / name).read_bytes())
    assert verdict(run, newer) == "HASH-MISMATCH"
    overwrite(newer / "manifest.json", (older / "manifest.json").read_bytes())
    assert verdict(run, newer) == "HASH-MISMATCH"


def flip(path: Path) -> None:
    content = path.read_bytes()
    overwrite(path, content[:-5] + bytes([content[-5] ^ 4]) + content[-4:])


def link(path: Path) -> None:
    path.rename(path.parent.parent.parent / path.name)
    path.symlink_to(path.parent.parent.parent / path.name)


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[Callable[[Path], Any], str] = {
    flip: "HASH-MISMATCH",
    lambda path: os.truncate(path, 5): "TORN",
    Path.unlink: "TORN",
    link: "UNREADABLE",
    link_to_nowhere: "UNREADABLE",
    folder: "UNREADABLE",
    pipe: "UNREADABLE",
}


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_run_goes_on_from_the_one_before_and_the_bad_one_keeps_its_bytes(
    run: RunDir, older: Path, newer: Path, damage: Callable[[Path], Any], name: str
) -> None:
    damage(newer / name)
    expected = DAMAGE[damage]
    if name == "manifest.json" and damage is not Path.unlink:
        expected = "UNREADABLE"
    assert glance(run, newer) == ("COMPLETE" if expected == "HASH-MISMATCH" else expected)
    assert verdict(run, newer) == expected
    others = {path.name: path.read_bytes() for path in newer.iterdir() if path.name != name}
    before = (newer / name).lstat() if os.path.lexists(newer / name) else None
    told: list[tuple[str, Path]] = []
    assert newest_verified(run, on_bad=lambda bad, where: told.append((bad.status, where))).name == older.name
    aside = run.checkpoints / f".bad-{newer.name}"
    assert told == [(expected, aside)]
    kept = {path.name: path.read_bytes() for path in aside.iterdir() if path.name not in (name, "quarantine.json")}
    assert kept == others
    after = (aside / name).lstat() if os.path.lexists(aside / name) else None
    assert (after and (after.st_ino, after.st_size)) == (before and (before.st_ino, before.st_size))
    state, _ = load(run, older.name)
    assert state["step"] == 1


def said_or_harmless(run: RunDir, checkpoint: Path) -> bool:
    """The state is loaded all the same; the tags are read right, or are said to be unknown and are not written over."""
    found = list_checkpoints(run)[0]
    assert (found.name, found.status) == (checkpoint.name, "COMPLETE")
    assert load(run, checkpoint.name)[0]["step"] == 2
    if found.tags_known:
        assert (found.tags, found.problems) == (("kept", "pinned"), ())
        return False
    assert any("tags.json" in problem for problem in found.problems)
    assert verify(run, checkpoint.name).problems == found.problems
    for act in (read_tags, lambda run, name: add_tag(run, name, "x"), lambda run, name: remove_tag(run, name, "kept")):
        with pytest.raises(CheckpointError, match="delete it to begin without tags"):
            act(run, checkpoint.name)
    return True


def test_no_damage_to_the_tags_takes_a_pin_away_or_keeps_the_state_from_being_loaded(run: RunDir, newer: Path) -> None:
    path = newer / "tags.json"
    content = path.read_bytes()
    for position, bit in itertools.product(range(len(content)), range(8)):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        overwrite(path, changed)
        assert said_or_harmless(run, newer), (position, bit)
    for size in range(len(content)):
        overwrite(path, content[:size])
        assert said_or_harmless(run, newer) or size == len(content) - 1  # the newline at the end
    for changed in (bytes(len(content)), b"{}", b"[]", b"null", b'{"tags": null}', b"[" * 100_000, content * 2):
        overwrite(path, changed)
        assert said_or_harmless(run, newer), changed[:20]


@pytest.mark.parametrize("damage", [link, link_to_nowhere, folder, pipe])
def test_tags_that_are_no_file_are_not_read_as_none(run: RunDir, newer: Path, damage: Callable[[Path], Any]) -> None:
    damage(newer / "tags.json")
    assert said_or_harmless(run, newer)


def test_tags_as_a_person_writes_them_have_no_seal(run: RunDir, newer: Path) -> None:
    (newer / "tags.json").write_text('{"tags": ["pinned"]}')
    assert read_tags(run, newer.name) == ("pinned",)
    assert add_tag(run, newer.name, "kept") == read_tags(run, newer.name) == ("kept", "pinned")
