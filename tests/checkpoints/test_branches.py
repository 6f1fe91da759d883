"""From where a run goes on by itself after it went back: only from what lies on its way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.checkpoints.branches import Branches
from qig_core.checkpoints.catalog import candidates, resolve
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.recovery import go_on, newest_verified
from qig_core.checkpoints.store import publish
from qig_core.errors import CheckpointError
from qig_core.rundir.schema import Event, Manifest, Parent
from qig_core.rundir.writer import RunWriter


class Life:
    """A run that saves, goes back, is killed and resumed: real files, no model."""

    def __init__(self, folder: Path, parent: Parent | None = None) -> None:
        self.writer = RunWriter.create(folder, Manifest(id="a-run", parent=parent))
        self.run = self.writer.run
        self.step = 0

    def save(self, *, told: bool = True) -> str:
        self.step += 10
        files = to_files({"step": self.step})
        made = publish(self.run, session=self.writer.session, step=self.step, reason="interval", files=files)
        if told:
            self.writer.event("checkpoint", step=self.step, name=made.name, reason="interval")
        return made.name

    def go_back(self, name: str, how: str = "restore") -> None:
        if how == "soft_reset":
            self.writer.event("soft_reset", checkpoint=name)
        self.writer.event("restored", checkpoint=name, how=how)

    def end(self) -> None:
        self.writer.close()

    def resume(self, selector: str | None = None) -> str | None:
        """End, and go on as `--resume RUN[@SELECTOR]` does; from what."""
        self.end()

        def load(state: dict[str, Any]) -> None:
            self.step = state["step"]

        self.writer, restored = go_on(self.run, selector, load, lambda manifest: None)
        return restored.checkpoint

    @property
    def way(self) -> list[str]:
        return [found.name for found in candidates(self.run)]

    def spoil(self, *names: str) -> None:
        for name in names:
            (self.run.checkpoint(name) / "state.json").write_bytes(b"{}")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    life.end()


def test_killed_after_a_restore_it_goes_on_from_what_was_restored(life: Life) -> None:
    a, b, c = life.save(), life.save(), life.save()
    assert life.way == [c, b, a]
    life.go_back(a)
    assert life.way == [a]
    assert resolve(life.run, "last-good").name == newest_verified(life.run).name == a
    assert resolve(life.run, "latest").name == c, "a name for a person, by publication"
    assert life.resume() == a
    assert life.step == 10


@pytest.mark.parametrize("how", ["restore", "soft_reset"])
def test_what_is_saved_after_going_back_is_the_way(life: Life, how: str) -> None:
    a, b, c = life.save(), life.save(), life.save()
    life.go_back(b, how)
    d = life.save()
    assert life.way == [d, b, a]
    assert life.resume() == d
    assert resolve(life.run, c).status == "COMPLETE", "it stays"


def test_a_checkpoint_that_was_not_told_of_is_on_the_way_as_long_as_nobody_went_back(life: Life) -> None:
    a, b = life.save(), life.save(told=False)
    assert life.way == [b, a]
    assert life.resume() == b
    c = life.save()
    assert life.way == [c, b, a]


def test_a_checkpoint_that_was_not_told_of_is_left_when_the_run_goes_on_from_an_older_one(life: Life) -> None:
    a, b = life.save(), life.save(told=False)
    assert life.resume(a) == a
    assert life.way == [a]
    c = life.save()
    assert life.way == [c, a]
    assert life.resume(b) == b
    assert life.way == [b, a], "the one that was made in between is on no way to it"
    d = life.save()
    assert life.way == [d, b, a]


def test_resumed_twice_from_the_same_one_only_the_second_branch_is_the_way(life: Life) -> None:
    a, b = life.save(), life.save()
    assert life.resume(a) == a
    c = life.save()
    assert life.resume(a) == a
    assert life.way == [a]
    d = life.save()
    assert life.way == [d, a]
    assert not {b, c} & set(life.way)
    assert life.resume() == d


def test_back_on_a_branch_that_was_left_it_is_the_way_again(life: Life) -> None:
    a, b, c = life.save(), life.save(), life.save()
    life.go_back(a)
    d = life.save()
    life.go_back(c)
    assert life.way == [c, b, a]
    e = life.save()
    assert life.way == [e, c, b, a]
    assert d not in life.way


def test_a_fork_begins_with_a_foreign_name_and_has_a_way_of_its_own(tmp_path: Path) -> None:
    foreign = "step-00000500-abcdef"
    life = Life(tmp_path, Parent("another", foreign))
    life.go_back(foreign, "fork")
    assert life.way == []
    a = life.save()
    b = life.save()
    assert life.way == [b, a]
    life.go_back(a)
    assert life.resume() == a
    life.end()


def test_begun_again_from_birth_nothing_before_is_the_way(life: Life) -> None:
    life.save()
    life.writer.event("restored", checkpoint=None, how="resume")
    assert life.way == []
    a = life.save()
    assert life.way == [a]


def test_lines_that_cannot_be_read_hide_nothing(life: Life) -> None:
    a, b = life.save(), life.save()
    with open(life.run.events, "ab") as events:
        events.write(b'{"seq": 99, "kind": "restored", "da\n\xff\xfe\n[]\n{"seq":1,"t":1,"kind":"checkpoint"}\n')
        events.write(b'{"seq":2,"t":1,"kind":"checkpoint","data":{"name":7}}\n')
    assert life.way == [b, a]
    life.go_back(a)
    life.save()
    torn = life.run.events.read_bytes().splitlines(keepends=True)
    life.run.events.write_bytes(b"".join(torn[:-1]) + torn[-1][:20])
    assert len(life.way) == 2, "the event of the newest one is torn: it is newer than all that was gone back to"
    assert a in life.way


def test_when_only_left_ones_are_sound_they_are_named_and_can_be_named(life: Life) -> None:
    a, b, c = life.save(), life.save(), life.save()
    life.go_back(a)
    d = life.save()
    life.spoil(a, d)
    with pytest.raises(CheckpointError) as caught:
        life.resume()
    said = str(caught.value)
    assert "on the way that this run took" in said
    assert f"set aside: {d} (" in said
    assert f"on branches that were left, to be named with @: {c}, {b}" in said
    assert life.resume(b) == b
    assert life.way == [b]


def test_bad_ones_are_passed_over_on_the_way_only(life: Life) -> None:
    a, b, c = life.save(), life.save(), life.save()
    life.go_back(b)
    d = life.save()
    life.spoil(d, c)
    assert life.resume() == b
    assert life.way == [b, a]
    assert life.run.checkpoint(c).is_dir(), "what was left is not looked at"
    assert not life.run.checkpoint(d).exists()


OPS = st.one_of(
    st.tuples(st.just("save"), st.just(0)),
    st.tuples(st.just("killed in a save"), st.integers(0, 30)),
    st.tuples(st.just("go back"), st.integers(0, 30)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(OPS, max_size=25))
def test_the_way_is_the_line_of_ancestors_in_the_tree_of_checkpoints(ops: list[tuple[str, int]]) -> None:
    parents: dict[str, str | None] = {}
    times: dict[str, float] = {}
    events: list[Event] = []
    now: str | None = None

    def save() -> str:
        name = f"c{len(parents)}"
        parents[name], times[name] = now, float(len(events) + len(parents))
        return name

    def note(kind: str, **data: str) -> None:
        events.append(Event(len(events), float(len(events) + len(parents)) + 0.5, kind, data=data))

    for op, number in ops:
        if op == "go back" and not parents:
            continue
        if op == "save":
            now = save()
            note("checkpoint", name=now)
        else:
            untold = save() if op == "killed in a save" else None
            newest = untold or now
            way = set()
            while newest is not None:
                way.add(newest)
                newest = parents[newest]
            branches = Branches(events, times)
            assert {name for name in parents if not branches.left(name, times[name])} == way
            # One in three goes on from the newest, as a resume does by itself.
            now = (untold or now if number % 3 == 0 else None) or sorted(parents)[number % len(parents)]
            note("restored", checkpoint=now)
    way, at = set[str](), now
    while at is not None:
        way.add(at)
        at = parents[at]
    branches = Branches(events, times)
    assert {name for name in parents if not branches.left(name, times[name])} == way
    assert branches.way() == way
