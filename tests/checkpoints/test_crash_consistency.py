"""After a power cut at any moment what was promised is there, and nothing half is taken for a checkpoint.

Everything that is done to checkpoints is recorded call by call; what the disk may hold after each call is built anew
and asked by the program's own means: listed, verified, loaded, gone on from.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.recovery import load, newest_verified
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag, delete, quarantine, remove_stale_temporaries
from qig_core.checkpoints.verification import verify
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import RunLock
from tests.checkpoints.recording import Recorder, Replay, Step, Tree, read_tree, write_tree


def state_of(step: int) -> dict[str, Any]:
    return {"model": {"w": torch.arange(5.0) + step, "b": torch.full((2, 2), 1.0 / (1 + step))}, "step": step}


def put(run: RunDir, step: int, tags: tuple[str, ...] = ()) -> str:
    files = to_files(state_of(step))
    return publish(run, session="5e55", step=step, reason="interval", files=files, tags=tags).name


class Scene:
    """A run with checkpoints on a disk that kept them all, what is done from then on, and what must hold after it."""

    def __init__(self, run: RunDir, earlier: int = 3) -> None:
        self.run = run
        self.steps_of: dict[str, int] = {}
        """The training step of each checkpoint that was whole, in the order of publishing."""
        self._promises: list[tuple[int, str, set[tuple[str, ...]]]] = []
        earlier_names = [put(run, step) for step in range(1, earlier + 1)]
        self.spoilt = earlier_names.pop() if earlier_names else ""
        if self.spoilt:
            payload = run.checkpoint(self.spoilt) / "model.safetensors"
            payload.write_bytes(payload.read_bytes()[:-1] + b"\xff")
        else:
            run.checkpoints.rmdir()
        run.lock.touch()
        self.recorder = Recorder(run.path)
        for step, name in enumerate(earlier_names, 1):
            self.steps_of[name] = step
            self.promise(name, ())

    @property
    def names(self) -> list[str]:
        return list(self.steps_of)

    def promise(self, name: str, *tags: tuple[str, ...]) -> None:
        """From now on it is there with tags that are one of these; with none: it may be gone."""
        self._promises.append((len(self.recorder.steps), name, set(tags)))

    def put(self, step: int, tags: tuple[str, ...] = ()) -> None:
        name = put(self.run, step, tags)
        self.steps_of[name] = step
        self.promise(name, tags)

    def pin(self, name: str, *before: str) -> None:
        self.promise(name, before, (*before, "pinned"))
        self.promise(name, add_tag(self.run, name, "pinned"))

    def delete(self, *names: str) -> None:
        for name in names:
            self.promise(name)
        assert delete(self.run, names) == list(names)

    def set_aside(self) -> None:
        quarantine(self.run, self.spoilt, "its bytes have changed")

    def sweep(self) -> None:
        lock = RunLock(self.run.lock)
        try:
            remove_stale_temporaries(self.run, "0ther")
        finally:
            lock.release()

    def promised(self, number: int) -> dict[str, set[tuple[str, ...]]]:
        """What must be there after so many recorded steps, with which tags."""
        state = {name: tags for since, name, tags in self._promises if since <= number}
        return {name: tags for name, tags in state.items() if tags}


@dataclass(frozen=True)
class Seen:
    """What the program makes of one image of the disk."""

    tags: dict[str, tuple[str, ...]]
    """Of each checkpoint that is listed COMPLETE, verifies and gives back the state that was saved."""
    newest: str
    wrong: list[str]


def look_at(image: Tree, folder: Path, scene: Scene) -> Seen:
    write_tree(image, folder)
    run = RunDir(folder)
    tags: dict[str, tuple[str, ...]] = {}
    wrong, newest = [], ""
    for found in list_checkpoints(run):
        if found.name == scene.spoilt:
            if verify(run, found.name).status != "HASH-MISMATCH":
                wrong.append(f"{found.name} is spoilt and passes")
        elif found.problems or found.status != "COMPLETE":
            wrong.append(f"{found.name} is {found.status}: {found.problems}")
        else:
            try:
                state, _ = load(run, found.name)
            except CheckpointError as error:
                wrong.append(f"{found.name} is listed and not loaded: {error}")
                continue
            expected = state_of(state["step"])["model"]
            if state["step"] != scene.steps_of.get(found.name, state["step"]) or not all(
                torch.equal(state["model"][key], value) for key, value in expected.items()
            ):
                wrong.append(f"{found.name} holds another state")
            tags[found.name] = found.tags
    if tags:
        newest = newest_verified(run).name
    wrong += next_session(run, {*tags})
    return Seen(tags, newest, wrong)


def next_session(run: RunDir, whole: set[str]) -> Iterator[str]:
    """What goes wrong in the session after: it sweeps and saves."""
    lock = RunLock(run.lock)
    try:
        remove_stale_temporaries(run, "0ther")
        left = [*run.checkpoints.glob(".tmp-*"), *run.checkpoints.glob(".del-*"), *run.checkpoints.glob("*/*.tmp")]
        if left:
            yield f"{left} are not swept"
        whole = {*whole, put(run, 99)}
    finally:
        lock.release()
    lost = whole - {one.name for one in list_checkpoints(run) if one.status == "COMPLETE"}
    if lost:
        yield f"after the next session {lost} are lost"


def violations(
    scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch, since: int = 0, draws: int = 4
) -> Iterator[str]:
    """Each promise that an image of the disk breaks, after each step from `since` on."""
    replay, steps = Replay(scene.recorder), scene.recorder.steps
    seen: dict[str, Seen] = {}
    for number in range(len(steps) + 1):
        if number:
            replay.apply(steps[number - 1])
        if number < since:
            continue
        promised = scene.promised(number)
        for word, image in replay.images(seed=number, draws=draws):
            key = repr(image)
            if key not in seen:
                with monkeypatch.context() as patched:
                    patched.setattr(os, "fsync", lambda fd: None)  # of the images nothing is to survive
                    seen[key] = look_at(image, folder / str(len(seen)), scene)
            found = seen[key]
            wrong = list(found.wrong)
            for name, tags in promised.items():
                if name not in found.tags:
                    wrong.append(f"{name} is lost")
                elif found.tags[name] not in tags:
                    wrong.append(f"{name} has the tags {found.tags[name]}")
            newer = scene.names[scene.names.index(found.newest) :] if found.newest in scene.names else []
            if {*newer[1:]} & promised.keys():
                wrong.append(f"the newest is {found.newest}, before {newer[1:]}")
            for one in wrong:
                yield f"after step {number} ({steps[number - 1].name if number else 'none'}), {word}: {one}"
    assert replay.tree == read_tree(scene.run.path), "something went past the recorder"


def a_session(scene: Scene) -> None:
    first = scene.names[0]
    scene.put(4)
    scene.put(5, ("good", "kept"))
    scene.pin(scene.names[-1], "good", "kept")
    scene.delete(first, scene.names[-2])
    scene.put(6)
    scene.set_aside()


def test_a_power_cut_at_any_moment_loses_nothing_that_was_promised(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(run)
    with scene.recorder:
        a_session(scene)
    assert len(scene.recorder.steps) > 70
    assert list(violations(scene, tmp_path / "images", monkeypatch, draws=20)) == []
    aside = run.checkpoints / f".bad-{scene.spoilt}"
    assert {path.name for path in aside.iterdir()} > {"model.safetensors", "state.json", "manifest.json"}


class Killed(BaseException):
    """No system call goes through any more."""


ACTIONS: dict[str, tuple[int, Callable[[Scene], None]]] = {
    "save": (2, lambda scene: scene.put(7, ("good",))),
    "first save": (0, lambda scene: scene.put(7)),
    "pin": (2, lambda scene: scene.pin(scene.names[-1])),
    "prune": (3, lambda scene: scene.delete(*scene.names[:1])),
    "quarantine": (2, lambda scene: scene.set_aside()),
}


def killed_then_gone_on(run: RunDir, action: str, at: int, forget: Callable[[], None] = lambda: None) -> Scene | None:
    """The scene of an action that is killed before its step `at`, and of the session after; None, it has no such."""
    run.path.mkdir()
    run.checkpoints.mkdir()
    earlier, act = ACTIONS[action]
    scene = Scene(run, earlier)

    def kill(step: Step) -> None:
        if step.index >= at:
            raise Killed

    scene.recorder.hook = kill
    with scene.recorder:
        try:
            act(scene)
        except Killed:
            scene.recorder.hook = None
            forget()
            scene.sweep()
            scene.put(8)
            return scene
    return None


@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_and_later_a_power_cut_lose_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    for at in itertools.count():
        scene = killed_then_gone_on(RunDir(tmp_path / f"run-{at}"), action, at)
        if scene is None:
            break
        assert list(violations(scene, tmp_path / f"images-{at}", monkeypatch, since=at, draws=1)) == [], at
    assert at >= 5


def forget_fsync_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on one kind of file, or folder, is not made durable."""
    going_on = os.fsync

    def fsync(fd: int) -> None:
        where = Path(os.readlink(f"/proc/self/fd/{fd}")).parts
        if Step(index=0, call="fsync", where=where).name != f"fsync {name}":
            going_on(fd)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "state.json", "manifest.json", "tags.json", ".tmp", "checkpoints", "final"]
)
def test_these_tests_notice_an_fsync_that_is_left_out(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scene = Scene(run)
    with scene.recorder, monkeypatch.context() as patched:
        forget_fsync_of(name, patched)
        a_session(scene)
    assert next(violations(scene, tmp_path / "images", monkeypatch), "")


@pytest.mark.parametrize(("action", "name"), [("prune", "checkpoints"), ("first save", "a-run")])
def test_these_tests_notice_an_fsync_that_one_action_leaves_out(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, name: str
) -> None:
    earlier, act = ACTIONS[action]
    scene = Scene(run, earlier)
    with scene.recorder, monkeypatch.context() as patched:
        forget_fsync_of(name, patched)
        act(scene)
    assert next(violations(scene, tmp_path / "images", monkeypatch), "")


def test_these_tests_notice_a_sweep_before_the_mark_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        run = RunDir(tmp_path / "run")
        scene = killed_then_gone_on(run, "prune", 1, lambda: forget_fsync_of("checkpoints", patched))
    assert scene is not None
    assert scene.recorder.names[0] == "rename to .del"
    assert next(violations(scene, tmp_path / "images", monkeypatch, since=1), "")
