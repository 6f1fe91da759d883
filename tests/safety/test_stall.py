"""When a trainer hangs, and that it is said once, with the stacks, and taken back once."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from qig_core.rundir.heartbeat import HeartbeatThread
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Word, judge_liveness
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import Heartbeat, Manifest, SessionRecord
from qig_core.rundir.writer import RunWriter
from qig_core.safety.profile import Stall
from qig_core.safety.stall import StallWatch
from qig_core.safety.verdict import Verdict


class Trainer:
    """A heartbeat without a thread, on a clock of its own, and what was told of it."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, **limit: Any) -> None:
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)
        self.run = RunDir(path)
        self.run.emergencies.mkdir()
        self.heartbeat = HeartbeatThread(self.run, "aa", each_second=lambda: None)
        self.told: list[tuple[str, int | None, str | None]] = []
        self.watch = StallWatch(Stall(**limit), self.heartbeat, self.run, self._hear)

    def _hear(self, verdict: Verdict, stacks: str | None) -> None:
        assert verdict is self.watch.verdict
        self.told.append((verdict.state, verdict.since_step, stacks))

    def steps(self, *numbers: int, seconds: float = 0.1) -> None:
        for number in numbers:
            self.now += seconds
            self.heartbeat.step_done(number)

    def wait(self, seconds: float) -> None:
        """Looked at every second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            self.heartbeat.beat()
            self.watch.look()

    @property
    def states(self) -> list[tuple[str, int | None]]:
        return [(state, step) for state, step, _ in self.told]


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    return Trainer(tmp_path, monkeypatch)


def test_a_hang_is_told_once_with_the_stacks_and_its_end_once_without(trainer: Trainer) -> None:
    trainer.steps(0, 1, 2, 3)
    trainer.wait(60)
    assert trainer.states == [("ok", 3)]
    trainer.wait(500)
    assert trainer.states == [("ok", 3), ("warning", 3)]
    name = trainer.told[-1][2]
    assert name is not None
    assert os.listdir(trainer.run.emergencies) == [name]
    assert "test_a_hang_is_told_once" in trainer.run.emergency_stacks(name.removesuffix(".stacks.txt")).read_text()
    trainer.steps(4)
    trainer.wait(3)
    assert trainer.told[2:] == [("ok", 4, None)]
    assert len(os.listdir(trainer.run.emergencies)) == 1


def test_what_the_condition_says(trainer: Trainer) -> None:
    assert trainer.watch.verdict == Verdict("no_step", "unarmed", "step_age", "<=", 600.0, "s", None, None, 1)
    trainer.steps(5, 6)
    trainer.wait(2)
    assert trainer.watch.verdict == Verdict("no_step", "ok", "step_age", "<=", 60.0, "s", 2.0, 6, 1)
    trainer.wait(60)
    said = trainer.watch.verdict
    assert said == Verdict("no_step", "warning", "step_age", "<=", 60.0, "s", 62.0, 6, 1, ("step_age",))
    assert said.text() == "no_step: step_age 62 s, limit <= 60 s"
    assert Verdict.from_data(said.data()) == said


def test_the_limit_is_a_multiple_of_the_99th_percentile_where_that_is_longer(trainer: Trainer) -> None:
    trainer.steps(*range(10), seconds=6.0)
    trainer.wait(120)
    assert (trainer.watch.verdict.limit, trainer.states) == (120.0, [("ok", 9)])
    trainer.wait(1)
    assert trainer.states == [("ok", 9), ("warning", 9)]


def test_a_limit_that_has_moved_is_told_again(trainer: Trainer) -> None:
    trainer.heartbeat.doing = "eval"
    trainer.steps(0)
    trainer.heartbeat.doing = "eval"
    trainer.wait(2)
    limits = [trainer.watch.verdict.limit]
    trainer.steps(1)
    trainer.wait(2)
    limits.append(trainer.watch.verdict.limit)
    trainer.wait(2)
    trainer.steps(*range(2, 12), seconds=30.0)
    trainer.wait(2)
    limits.append(trainer.watch.verdict.limit)
    assert limits == [600.0, 60.0, 600.0]
    assert trainer.states == [("ok", 0)] * 3, "each once"


def test_a_process_that_stood_still_is_told_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tmp_path, monkeypatch)
    silences: list[float] = []
    trainer.watch = StallWatch(Stall(), trainer.heartbeat, trainer.run, trainer._hear, silences.append)
    trainer.steps(1, 2)
    trainer.wait(5)
    trainer.now += 72.0
    trainer.steps(3)
    trainer.wait(5)
    assert [round(each, 6) for each in silences] == [73.1]
    assert trainer.states == [("ok", 2)]


def test_the_numbers_are_the_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tmp_path, monkeypatch, id="mine", min_s=3.0, p99s=5.0)
    trainer.steps(*range(10), seconds=1.0)
    trainer.wait(6)
    assert (trainer.watch.verdict.id, trainer.watch.verdict.limit, trainer.states[-1]) == ("mine", 5.0, ("warning", 9))


def test_nothing_is_armed_before_the_first_step_which_has_ten_minutes(trainer: Trainer) -> None:
    trainer.wait(600)
    assert (trainer.told, trainer.watch.verdict.state) == ([], "unarmed")
    trainer.wait(1)
    assert (trainer.states, trainer.watch.doing) == ([("warning", None)], "start")
    trainer.steps(0)
    trainer.wait(1)
    assert trainer.states == [("warning", None), ("ok", 0)]


@pytest.mark.parametrize("doing", ["eval", "save", "restore"])
def test_something_else_than_a_step_has_ten_minutes(trainer: Trainer, doing: str) -> None:
    trainer.steps(0, 1)
    trainer.heartbeat.doing = doing
    trainer.wait(600)
    assert trainer.states == [("ok", 1)]
    trainer.wait(1)
    assert (trainer.states[-1], trainer.watch.doing) == (("warning", 1), doing)
    trainer.steps(1)  # what ends a save
    trainer.wait(1)
    assert trainer.states[-1] == ("ok", 1)


def test_a_pause_never_hangs_and_is_no_part_of_the_age_after_it(trainer: Trainer) -> None:
    trainer.steps(0, 1)
    trainer.heartbeat.doing = "pause"
    trainer.wait(900)
    trainer.heartbeat.doing = "step"
    trainer.wait(60)
    assert trainer.states == [("ok", 1)]
    trainer.wait(1)
    assert trainer.states[-1] == ("warning", 1)


def test_a_stop_never_hangs_and_takes_no_alarm_back(trainer: Trainer) -> None:
    trainer.steps(0, 1)
    trainer.wait(61)
    trainer.heartbeat.doing = "stop"
    trainer.wait(900)
    assert trainer.states == [("ok", 1), ("warning", 1)]


def test_an_evaluation_that_begins_after_a_slow_step_shows_that_the_trainer_goes_on(trainer: Trainer) -> None:
    trainer.steps(0, 1)
    trainer.wait(61)
    trainer.heartbeat.doing = "eval"
    trainer.wait(1)
    assert trainer.states == [("ok", 1), ("warning", 1), ("ok", 1)]


def test_each_hang_has_stacks_of_its_own(trainer: Trainer) -> None:
    for first in (0, 10):
        trainer.steps(first, first + 1)
        # The first hang is a step time as well; it must not hide the second for good.
        trainer.wait(61 if first == 0 else 20 * 70)
    assert [state for state, _ in trainer.states] == ["ok", "warning", "ok", "warning"]
    assert len(os.listdir(trainer.run.emergencies)) == 2


def test_stacks_that_the_disk_refuses_keep_nothing_from_being_told(trainer: Trainer) -> None:
    trainer.run.emergencies.rmdir()
    trainer.steps(0, 1)
    trainer.wait(61)
    assert trainer.told[-1] == ("warning", 1, None)


def test_stacks_of_which_a_full_disk_took_nothing_are_no_file(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faulthandler.dump_traceback", lambda **_: None)
    trainer.steps(0, 1)
    trainer.wait(61)
    assert trainer.told[-1] == ("warning", 1, None)
    assert os.listdir(trainer.run.emergencies) == []


@pytest.mark.parametrize(
    ("doing", "seconds"), [("step", 59), ("step", 62), ("save", 599), ("save", 602), ("pause", 900), ("eval", 602)]
)
def test_a_reader_says_hung_when_the_condition_warns(trainer: Trainer, doing: str, seconds: float) -> None:
    trainer.steps(0, 1)
    trainer.heartbeat.doing = doing
    trainer.wait(seconds)
    manifest = Manifest(id="r", sessions=[SessionRecord("aa", 0.0, 1, "h")])
    word = judge_liveness(
        manifest, read_document(trainer.run.heartbeat, Heartbeat), silence_s=0.0, process_alive=True
    ).word
    assert (word is Word.HUNG) == (trainer.watch.verdict.state == "warning")


def test_a_boundary_that_passes_while_it_is_looked_at_is_no_hang(trainer: Trainer) -> None:
    trainer.steps(0, 1)
    trainer.wait(1)

    def look_at_each_line(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is not HeartbeatThread.step_done.__code__:
            return None
        trainer.watch.look()
        return look_at_each_line

    trainer.heartbeat.doing = "save"
    trainer.now += 100.0
    before = sys.gettrace()
    sys.settrace(look_at_each_line)
    try:
        trainer.heartbeat.step_done(1)
    finally:
        sys.settrace(before)
    assert trainer.states == [("ok", 1)]


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_loop_that_hangs_is_seen_by_the_heartbeat_thread_of_its_run(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r1")) as writer:

        def tell(verdict: Verdict, stacks: str | None) -> None:
            told.append((verdict.state, stacks))

        told: list[tuple[str, str | None]] = []
        watch = StallWatch(Stall(min_s=0.1), writer.heartbeat, writer.run, tell)
        writer.heartbeat.watch(watch.look)
        writer.step_done(0)
        until(lambda: told and told[-1][0] == "warning")
        (path,) = writer.run.emergencies.iterdir()
        assert told[-1][1] == path.name
        # This thread, which hangs, and the one that saw it.
        assert "in until" in path.read_text()
        assert "in look" in path.read_text()
        until(lambda: (writer.step_done(1), told[-1][0] == "ok")[1])
    assert writer.heartbeat.failure is None
