"""Saves in the background as a loop meets them: told later, never two, never lost; nothing pruned that is needed."""

import errno
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.checkpoints.retention import Keep
from qig_core.checkpoints.saving import restorer, saver
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.mailbox import read_ack
from qig_core.rundir.reader import read_all, read_document
from qig_core.rundir.schema import Ack, CheckpointManifest, Command, Event, Heartbeat
from qig_core.safety.abort import Cause
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import DEFAULT, NonFinite, Profile, SoftReset, Threshold
from qig_core.safety.saves import SaveRequest

NAN = float("nan")
EVERY = 10
THREAD = "qig-save"
QUICK = Profile(name="quick", limits=(NonFinite(),), soft_reset=SoftReset(good_for=1))
"""One that counts on its newest checkpoints only, for what a soft reset may need."""


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Disk:
    """Stands before each fsync of the thread that saves: lets it wait, or refuses it."""

    def __init__(self) -> None:
        self._going_on = os.fsync
        self.free = threading.Event()
        self.free.set()
        self.refusals = 0
        self.reached = 0

    def fsync(self, fd: int) -> None:
        if threading.current_thread().name == THREAD:
            self.reached += 1
            assert self.free.wait(15), "before the watchdog ends the process"
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._going_on(fd)

    def slow(self) -> None:
        self.free.clear()
        self.reached = 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.free.set()
    until(lambda: not saving())


def saving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


class Loop:
    """A state of one number that counts the updates, and one that is slow to be written."""

    def __init__(self, folder: Path, *, total: int = 40, profile: Profile = DEFAULT, **given: Any) -> None:
        self.w = torch.zeros(3)
        keeping = {key: given.pop(key) for key in ("keep", "on_best", "asynchronous") if key in given}
        settings: dict[str, Any] = {
            "save": saver(lambda: {"model": {"w": self.w}}, **keeping),
            "restore": restorer(self.load),
            "checkpoint_every": EVERY,
        }
        self.monitor = IntegratedMonitor.open(folder, total_steps=total, profile=profile, **settings | given)
        self.run = self.monitor.writer.run
        self.at: dict[int, Callable[[], Mapping[str, float] | None]] = {}
        """At a step, once: called before its check; what it gives replaces the metrics."""
        self.steps: list[int] = []

    def load(self, state: Mapping[str, Any]) -> None:
        self.w.copy_(state["model"]["w"])

    def train(self, stop: int | None = None) -> int:
        with self.monitor as monitor:
            for step in monitor.steps():
                if step == stop:
                    break
                metrics: Mapping[str, float] = {"loss": 1.0}
                if hook := self.at.pop(step, None):
                    metrics = hook() or metrics
                if monitor.check(step, metrics):
                    self.steps.append(step)
                    self.w += 1
        return monitor.exit_code

    def ask(self, verb: str, **args: Any) -> Command:
        """Put a command into the mailbox; the trainer has seen it when this returns."""
        command = Command(secrets.token_hex(16), self.monitor.writer.session, verb, time.time(), args=args, by="me")
        write_document(self.run.command(command.id), encode_document(command), mode=0o600)

        def seen() -> bool:
            self.monitor.writer.mailbox.poll(None)
            return command.id in [each.command.id for each in self.monitor.writer.mailbox.pending]

        until(seen)
        return command

    def ack(self, command: Command) -> Ack:
        ack = read_ack(self.run, command.id)
        assert isinstance(ack, Ack)
        return ack

    def stages(self, command: Command) -> list[str]:
        return [stage.stage for stage in self.ack(command).stages]

    def answer(self, command: Command) -> Mapping[str, Any]:
        return self.ack(command).stages[-1].detail

    def events(self, *kinds: str) -> list[Event]:
        return [each for each in read_all(self.run.events, Event) if isinstance(each, Event) and each.kind in kinds]

    def told(self) -> list[tuple[int | None, str]]:
        """Step and reason of each checkpoint that was told of."""
        return [(each.step, each.data["reason"]) for each in self.events("checkpoint")]

    def made(self) -> dict[int | None, str]:
        return {found.step: found.name for found in list_checkpoints(self.run)}

    @contextmanager
    def lets_go_when_waited_for(self, disk: Disk) -> Iterator[list[str]]:
        """In a thread: the disk stays slow until the heartbeat's file says that the loop waits in a save."""
        seen: list[str] = []

        def watch() -> None:
            try:
                until(lambda: read_document(self.run.heartbeat, Heartbeat).doing == "save")
                seen.append("save")
                seen.extend(thread.name for thread in saving())
            finally:
                disk.free.set()

        disk.slow()
        watcher = threading.Thread(target=watch)
        watcher.start()
        yield seen
        watcher.join()
        assert seen == ["save", THREAD], "it waited, and only one save was on its way"


def test_the_event_of_a_checkpoint_comes_at_a_later_step(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)
    told: dict[int, list[tuple[int | None, str]]] = {}

    def free() -> None:
        told[15] = loop.told()
        disk.free.set()
        until(lambda: not saving())

    loop.at = {
        10: disk.slow,
        12: lambda: until(lambda: disk.reached),
        15: free,
        16: lambda: told.update({16: loop.told()}),
    }
    assert loop.train() == 0
    assert told == {15: [], 16: [(10, "interval")]}
    assert loop.told() == [(10, "interval"), (20, "interval"), (30, "interval"), (40, "end")]
    state, manifest = load(loop.run, loop.made()[10])
    assert state["model"]["w"].tolist() == [10.0] * 3, "as it was then, though the loop went on"
    assert manifest.metrics == {"loss": 1.0}


def test_there_are_never_two_and_the_heartbeat_says_what_the_loop_waits_for(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path, total=25)
    loop.at[10] = disk.slow
    with loop.lets_go_when_waited_for(disk):
        assert loop.train() == 0
    assert loop.told() == [(10, "interval"), (20, "interval"), (25, "end")]
    for step, name in loop.made().items():
        assert load(loop.run, name)[0]["model"]["w"].tolist() == [step] * 3


def test_a_disk_that_refuses_in_the_background_is_told_once_and_training_goes_on(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path)
    disk.refusals = 1
    alerts: list[list[Event]] = []
    loop.at = {
        11: lambda: until(lambda: not saving()),
        12: lambda: alerts.append(loop.events("alert")),
    }
    assert loop.train() == 0
    (first,) = alerts[0]
    assert (first.step, first.severity) == (11, "critical")
    assert "no interval checkpoint: CheckpointError: no checkpoint at step 10" in first.data["text"]
    assert "No space left on device" in first.data["text"]
    assert loop.events("alert") == [first]
    assert loop.told() == [(20, "interval"), (30, "interval"), (40, "end")]
    assert capsys.readouterr().err.count("no interval checkpoint") == 1
    assert [name for name in os.listdir(loop.run.checkpoints) if name.startswith(".")] == []


def test_a_row_of_refusals_is_told_in_events_and_once_on_the_terminal(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path)
    disk.refusals = 3
    assert loop.train() == 0
    assert [each.severity for each in loop.events("alert")] == ["critical"] * 3
    assert loop.told() == [(40, "end")]
    assert capsys.readouterr().err.count("no interval checkpoint") == 1


def test_a_system_without_a_thread_to_spare_costs_that_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == THREAD:
            raise RuntimeError("can't start new thread")
        start(thread)

    loop.at = {
        10: lambda: monkeypatch.setattr(threading.Thread, "start", refused),
        11: lambda: monkeypatch.setattr(threading.Thread, "start", start),
    }
    assert loop.train() == 0
    assert [each.data["text"] for each in loop.events("alert")] == [
        "no interval checkpoint: RuntimeError: can't start new thread"
    ]
    assert loop.told() == [(20, "interval"), (30, "interval"), (40, "end")]


def test_a_state_that_cannot_be_saved_is_told_and_training_goes_on(tmp_path: Path) -> None:
    loop = Loop(tmp_path, save=saver(lambda: {"model": {"w": object()}}), total=25)
    assert loop.train() == 1
    assert "no checkpoint" not in loop.told()
    assert [each.data["text"].split(":")[0] for each in loop.events("alert")] == [
        "no interval checkpoint",
        "no interval checkpoint",
        "no end checkpoint",
    ]
    assert "the checkpoint at the end failed" in loop.monitor.reason


def test_the_end_of_the_loop_waits_for_the_save_and_tells_it(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path, total=12)
    loop.at[10] = disk.slow
    with loop.lets_go_when_waited_for(disk):
        assert loop.train() == 0
    assert loop.told() == [(10, "interval"), (12, "end")]


def test_a_loop_that_breaks_off_waits_for_the_save_and_tells_it(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)
    loop.at[10] = disk.slow
    with loop.lets_go_when_waited_for(disk):
        assert loop.train(stop=12) == 0
    assert loop.told() == [(10, "interval")]


def test_an_abort_waits_for_the_save_and_then_makes_its_own(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)

    def abort() -> None:
        loop.monitor.abort.request(Cause.command("enough"))

    loop.at = {10: disk.slow, 13: abort}
    with loop.lets_go_when_waited_for(disk):
        assert loop.train() == 76
    assert loop.told() == [(10, "interval"), (13, "emergency")]
    assert load(loop.run, loop.made()[13])[0]["model"]["w"].tolist() == [13.0] * 3
    times = [found.t for found in list_checkpoints(loop.run)]
    assert times == sorted(times, reverse=True)


def test_a_save_that_the_disk_refused_costs_no_emergency_checkpoint(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)
    disk.refusals = 1

    def abort() -> None:
        until(lambda: not saving())
        loop.monitor.abort.request(Cause.command("enough"))

    loop.at[13] = abort
    assert loop.train() == 76
    assert loop.told() == [(13, "emergency")]
    assert len(loop.events("alert")) == 1


def test_a_loop_that_raises_does_not_lose_the_save(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)

    def fail() -> None:
        raise ZeroDivisionError("the loop's own")

    loop.at = {10: disk.slow, 13: fail}
    with pytest.raises(ZeroDivisionError), loop.lets_go_when_waited_for(disk):
        loop.train()
    assert loop.told() == [(10, "interval")]
    assert [each.data["cause"] for each in loop.events("emergency")] == ["error ZeroDivisionError: the loop's own"]


def test_a_restore_waits_for_the_save_and_may_go_back_to_it(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []

    def restore() -> None:
        asked.append(loop.ask("restore", checkpoint=loop.made()[10]))

    loop.at = {20: disk.slow, 22: restore}
    with loop.lets_go_when_waited_for(disk):
        assert loop.train() == 0
    assert loop.stages(asked[0]) == ["seen", "acting", "done"]
    order = [(each.kind, each.step) for each in loop.events("checkpoint", "restored")]
    assert order[:3] == [("checkpoint", 10), ("checkpoint", 20), ("restored", 10)]
    assert loop.steps == [*range(22), *range(10, 40)]
    assert loop.w.tolist() == [40.0] * 3


def test_a_pin_waits_for_the_save_that_is_on_its_way(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path, keep=Keep(newest=1, best=0))
    asked: list[Command] = []

    def pin() -> None:
        asked.append(loop.ask("pin", checkpoint=loop.made()[10]))

    loop.at = {20: disk.slow, 22: lambda: until(lambda: disk.reached), 23: pin}
    with loop.lets_go_when_waited_for(disk):
        assert loop.train() == 0
    assert loop.stages(asked[0]) == ["seen", "acting", "done"]
    order = [(each.kind, each.data["name"]) for each in loop.events("checkpoint", "tagged")]
    assert [kind for kind, _ in order][:3] == ["checkpoint", "checkpoint", "tagged"]
    assert {order[0][1], order[2][1]} == {loop.made()[10]}, "it stays although there are newer ones"


def test_after_each_save_the_rule_is_applied_and_what_went_is_told(tmp_path: Path) -> None:
    loop = Loop(tmp_path, total=60, profile=QUICK, keep=Keep(newest=2, best=1, score="loss"))
    for step, loss in ((10, 0.5), (20, 0.1), (30, 0.3), (40, 0.4)):
        loop.at[step] = lambda loss=loss: {"loss": loss}  # type: ignore[misc]
    for step in range(15, 60, 10):
        loop.at[step] = lambda: until(lambda: not saving())
    assert loop.train() == 0
    assert set(loop.made()) == {20, 50, 60}
    pruned = loop.events("pruned")
    assert {each.data["how"] for each in pruned} == {"after a save"}
    assert [(len(each.data["names"]), each.data["kept"]) for each in pruned] == [(1, 2), (1, 3), (1, 3)]
    assert all(each.data["size"] > 0 for each in pruned)
    names = {name: int(name.split("-")[1]) for each in pruned for name in each.data["names"]}
    assert sorted(names.values()) == [10, 30, 40]
    assert loop.monitor.writer.manifest.keep == {"newest": 2, "best": 1, "score": "loss", "lower_is_better": True}
    assert loop.events("alert") == []


def test_a_prune_never_takes_what_a_soft_reset_would_go_back_to(tmp_path: Path) -> None:
    forgiving = Profile(
        name="forgiving",
        limits=(NonFinite(),),
        soft_reset=SoftReset(limits=("nonfinite",), good_for=25, cooldown=10, at_most=2),
    )
    loop = Loop(tmp_path, total=80, profile=forgiving, keep=Keep(newest=1, best=0))
    loop.at[57] = lambda: {"loss": NAN}
    assert loop.train() == 0
    (reset,) = loop.events("soft_reset")
    assert (reset.data["from_step"], reset.data["to_step"]) == (57, 30), "the newest that 25 checks have followed"
    assert loop.steps == [*range(57), *range(30, 80)]
    assert {10, 20} & {int(name.split("-")[1]) for each in loop.events("pruned") for name in each.data["names"]}


def test_one_that_is_better_than_all_before_is_saved_beside_the_cadence(tmp_path: Path) -> None:
    loop = Loop(tmp_path, total=60, checkpoint_every=50, on_best=True, keep=Keep(score="loss"))
    for step in range(60):
        loop.at[step] = lambda: {"loss": 1.0}
    for step, loss in ((5, 0.9), (6, 0.95), (20, 0.5), (21, 0.5), (30, NAN)):
        loop.at[step] = lambda loss=loss: {"loss": loss}  # type: ignore[misc]
    del loop.at[30]
    assert loop.train() == 0
    assert loop.told() == [(1, "best"), (5, "best"), (20, "best"), (50, "interval"), (60, "end")]


def test_the_best_is_known_while_it_is_still_being_written(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path, total=30, checkpoint_every=1000, on_best=True, keep=Keep(score="loss"))
    losses = {5: 0.5, 6: 0.7, 7: 0.6, 8: 0.5, 20: 0.65, 25: 0.4}

    def metrics(step: int) -> Callable[[], Mapping[str, float]]:
        def hook() -> Mapping[str, float]:
            if step == 5:
                until(lambda: not saving())
                disk.slow()
            if step == 12:
                disk.free.set()
            return {"loss": losses.get(step, 1.0)}

        return hook

    for step in range(30):
        loop.at[step] = metrics(step)
    assert loop.train() == 0
    assert loop.told() == [(1, "best"), (5, "best"), (25, "best"), (30, "end")]


def test_a_best_one_that_could_not_be_written_is_not_taken_for_one(tmp_path: Path, disk: Disk) -> None:
    loop = Loop(tmp_path, total=30, checkpoint_every=1000, on_best=True, keep=Keep(score="loss"))

    def best() -> Mapping[str, float]:
        until(lambda: not saving())
        disk.refusals = 1
        return {"loss": 0.5}

    loop.at[5] = best
    loop.at[6] = lambda: until(lambda: not saving())
    loop.at[15] = lambda: {"loss": 0.6}
    assert loop.train() == 0
    assert loop.told() == [(1, "best"), (15, "best"), (30, "end")]


def test_nothing_is_saved_as_the_best_while_something_is_in_alarm(tmp_path: Path) -> None:
    limit = Threshold(id="drift", metric="drift", comparison="<=", value=1.0, severity="warning")
    careful = Profile(name="careful", limits=(limit,))
    loop = Loop(tmp_path, profile=careful, total=20, checkpoint_every=1000, on_best=True, keep=Keep(score="loss"))
    loop.at[10] = lambda: {"loss": 0.1, "drift": 2.0}
    loop.at[12] = lambda: {"loss": 0.5, "drift": 0.2}
    assert loop.train() == 0
    assert loop.told() == [(1, "best"), (12, "best"), (20, "end")]


def test_the_best_of_earlier_sessions_count_whatever_was_saved_since(tmp_path: Path) -> None:
    first = Loop(tmp_path, total=20, on_best=True, keep=Keep(score="loss"))
    first.at[5] = lambda: {"loss": 0.1}
    assert first.train() == 0
    second = Loop(tmp_path, total=40, on_best=True, keep=Keep(score="loss"), resume=first.run.id)
    second.at[35] = lambda: {"loss": 0.5}
    second.at[38] = lambda: {"loss": 0.05}
    assert second.train() == 0
    assert second.told()[-3:] == [(30, "interval"), (38, "best"), (40, "end")]


def doubled(item: int) -> int:
    return 2 * item


@pytest.mark.parametrize("when", ["waiting", "writing"])
def test_a_worker_that_is_forked_beside_a_save_does_its_work(tmp_path: Path, disk: Disk, when: str) -> None:
    loop = Loop(tmp_path, total=15)
    loop.w = torch.zeros(400_000)
    got: list[int] = []

    def fork() -> None:
        if when == "waiting":
            until(lambda: disk.reached)
        with warnings.catch_warnings():
            # Newer Pythons warn of any fork beside any thread, and the heartbeat is one.
            warnings.simplefilter("ignore", DeprecationWarning)
            loader = DataLoader(
                list(range(8)), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
            )
            got.extend(int(item) for item in loader)
        disk.free.set()

    loop.at[10] = disk.slow if when == "waiting" else lambda: None
    loop.at[11] = fork
    assert loop.train() == 0
    assert got == list(range(8))
    assert loop.told() == [(10, "interval"), (15, "end")]
    for name in loop.made().values():
        load(loop.run, name)


def test_commands_pin_tag_and_prune(tmp_path: Path) -> None:
    loop = Loop(tmp_path, total=80, profile=QUICK, keep=Keep(newest=3, best=0))
    asked: dict[str, Command] = {}

    def ask(key: str, verb: str, step: int | None = None, **args: Any) -> None:
        given = {} if step is None else {"checkpoint": loop.made()[step]}
        asked[key] = loop.ask(verb, **given, **args)

    def several() -> None:
        until(lambda: not saving())
        ask("pin", "pin", 10)
        ask("tag", "tag", 20, tag="paper")
        ask("untag", "tag", 20, tag="paper", remove=True)
        ask("keep", "pin", 20)
        ask("unpin", "unpin", 20)

    loop.at = {25: several, 62: lambda: until(lambda: not saving()), 65: lambda: ask("prune", "prune", newest=1)}
    assert loop.train() == 0
    assert all(loop.stages(command) == ["seen", "acting", "done"] for command in asked.values())
    first = int(loop.answer(asked["pin"])["name"].split("-")[1])
    assert (first, loop.answer(asked["pin"])["tags"]) == (10, ["pinned"])
    answers = [loop.answer(asked[key])["tags"] for key in ("tag", "untag", "keep", "unpin")]
    assert answers == [["paper"], [], ["pinned"], []]
    assert [each.data["tags"] for each in loop.events("tagged")] == [["pinned"], ["paper"], [], ["pinned"], []]
    told = loop.answer(asked["prune"])
    assert sorted(int(name.split("-")[1]) for name in told["names"]) == [40, 50]
    assert told["kept"] == 2
    by_command = [each for each in loop.events("pruned") if each.data["how"] == "by me"]
    assert [each.data["names"] for each in by_command] == [told["names"]]
    assert set(loop.made()) == {10, 60, 70, 80}


def test_a_prune_takes_nothing_that_whoever_asked_has_not_seen(tmp_path: Path) -> None:
    loop = Loop(tmp_path, total=60, profile=QUICK, keep=Keep(newest=9, best=0))
    asked: list[Command] = []

    def ask() -> None:
        until(lambda: not saving())
        asked.append(loop.ask("prune", newest=1, names=[loop.made()[10], loop.made()[40], "step-00000099-abcdef"]))

    loop.at = {45: ask}
    assert loop.train() == 0
    assert [int(name.split("-")[1]) for name in loop.answer(asked[0])["names"]] == [10]
    assert set(loop.made()) == {20, 30, 40, 50, 60}, "40 was the newest"


@pytest.mark.parametrize(
    ("verb", "args", "why"),
    [
        ("pin", {}, "args.checkpoint must be the name"),
        ("pin", {"checkpoint": 10}, "args.checkpoint must be the name"),
        ("pin", {"checkpoint": "../10"}, "and no path"),
        ("unpin", {"checkpoint": "step-00000010-abcdef"}, "no checkpoint 'step-00000010-abcdef'"),
        ("tag", {"checkpoint": "NAME"}, "args.tag must be a word"),
        ("tag", {"checkpoint": "NAME", "tag": 7}, "args.tag must be a word"),
        ("tag", {"checkpoint": "NAME", "tag": "two words"}, "letters, digits"),
        ("prune", {"newest": "3"}, "args.newest must be a whole number"),
        ("prune", {"newest": True}, "args.newest must be a whole number"),
        ("prune", {"best": 1.5}, "args.best must be a whole number"),
        ("prune", {"newest": 0}, "newest is 0: at least 1"),
        ("prune", {"names": "all"}, "args.names must be a list of checkpoint names"),
        ("prune", {"best": -1}, "best is -1"),
    ],
)
def test_a_command_that_cannot_be_followed_is_refused_with_the_reason(
    tmp_path: Path, verb: str, args: dict[str, Any], why: str
) -> None:
    loop = Loop(tmp_path, total=15, asynchronous=False)
    asked: list[Command] = []

    def ask() -> None:
        name = {"checkpoint": loop.made()[10]} if args.get("checkpoint") == "NAME" else {}
        asked.append(loop.ask(verb, **args | name))

    loop.at[12] = ask
    assert loop.train() == 0
    assert loop.stages(asked[0]) == ["seen", "acting", "refused"]
    assert why in loop.answer(asked[0])["reason"]
    assert set(loop.made()) == {10, 15}


def test_a_prune_is_refused_where_none_verifies(tmp_path: Path) -> None:
    loop = Loop(tmp_path, total=25)
    asked: list[Command] = []

    def spoil() -> None:
        until(lambda: not saving())
        for name in loop.made().values():
            path = loop.run.checkpoint(name) / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        asked.append(loop.ask("prune", newest=1))

    loop.at[22] = spoil
    assert loop.train() == 0
    assert "none verifies" in loop.answer(asked[0])["reason"]
    assert set(loop.made()) == {10, 20, 25}


@pytest.mark.parametrize("verb", ["pin", "unpin", "tag", "prune"])
def test_a_plain_save_function_looks_after_nothing_and_says_so(tmp_path: Path, verb: str) -> None:
    def save(request: SaveRequest) -> CheckpointManifest:
        facts = request.facts()
        made = CheckpointManifest("step-1", request.run.id, request.session, request.step, 0.0, "end", [], "f" * 64)
        made.metrics = facts["metrics"]
        return made

    loop = Loop(tmp_path, total=5, save=save)
    asked: list[Command] = []
    loop.at[2] = lambda: asked.append(loop.ask(verb, checkpoint="step-1"))
    assert loop.train() == 0
    assert loop.stages(asked[0]) == ["seen", "refused"]
    assert "qig_core.checkpoints.saving.saver makes one" in loop.answer(asked[0])["reason"]
