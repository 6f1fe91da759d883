import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.recovery import load
from qig_core.checkpoints.saving import restorer, saver
from qig_core.errors import ConfigError, RecordWriteError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import read_ack
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Ack, Command, Event, Sample
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.emergency import EmergencyRecord
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import DEFAULT, Divergence, NonFinite, Profile, SoftReset
from qig_core.training import requests
from qig_core.training.config import PRESETS, merge
from qig_core.training.loop import train
from qig_core.training.runs import begin

NAN = float("nan")
EVERY = 10
FORGIVING = Profile(
    name="forgiving",
    limits=(NonFinite(), Divergence()),
    soft_reset=SoftReset(limits=("nonfinite",), good_for=5, cooldown=10, at_most=2),
)


class Loop:
    """A small model in a loop that draws random numbers: what it computes depends on everything that is restored."""

    def __init__(self, folder: Path, *, total: int = 40, profile: Profile = DEFAULT, **given: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.before_check: dict[int, Callable[[], float | None]] = {}
        """At a step, once: called before its check; a number takes the place of the loss."""
        self.losses: list[tuple[int, float]] = []
        settings: dict[str, Any] = {
            "restore": restorer(self.load),
            "checkpoint_every": EVERY,
            "save": saver(self.state, asynchronous=False),
        }
        settings |= given
        self.monitor = IntegratedMonitor.open(folder, total_steps=total, profile=profile, **settings)
        self.run = self.monitor.writer.run

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def scale_lr(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    @property
    def rate(self) -> float:
        (group,) = self.optimizer.param_groups
        return float(group["lr"])

    def train(self) -> int:
        with self.monitor as monitor:
            for step in monitor.steps():
                x = torch.randn(8, 4)
                loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                value = loss.item()
                if hook := self.before_check.pop(step, None):
                    instead = hook()
                    value = value if instead is None else instead
                if monitor.check(step, {"loss": value}):
                    self.optimizer.step()
                    self.losses.append((step, value))
        return monitor.exit_code

    def ask(self, verb: str, **args: Any) -> Command:
        """Put a command into the mailbox; the trainer has seen it when this returns."""
        command = Command(secrets.token_hex(16), self.monitor.writer.session, verb, time.time(), args=args)
        write_document(self.run.command(command.id), encode_document(command), mode=0o600)
        end = time.monotonic() + 20
        while command.id not in [each.command.id for each in self.monitor.writer.mailbox.pending]:
            self.monitor.writer.mailbox.poll(None)
            assert time.monotonic() < end
        return command

    def checkpoint_of(self, step: int) -> str:
        return next(found.name for found in list_checkpoints(self.run) if found.step == step)

    def restore(self, step: int) -> Command:
        return self.ask("restore", checkpoint=self.checkpoint_of(step))

    def stages(self, command: Command) -> list[str]:
        return [stage.stage for stage in self.ack(command).stages]

    def reason(self, command: Command) -> str:
        last = self.ack(command).last
        assert last is not None
        assert last.stage == "refused"
        return str(last.detail["reason"])

    def ack(self, command: Command) -> Ack:
        ack = read_ack(self.run, command.id)
        assert isinstance(ack, Ack)
        return ack

    def events(self, kind: str) -> list[Event]:
        return [each for each in read_all(self.run.events, Event) if isinstance(each, Event) and each.kind == kind]

    def emergency(self) -> EmergencyRecord:
        (path,) = self.run.emergencies.glob("*.json")
        return msgspec.json.decode(path.read_bytes(), type=EmergencyRecord)


def flip_a_byte(run: RunDir, name: str) -> None:
    (path, *_) = sorted(run.checkpoint(name).glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[tuple[int, float]]:
    loop = Loop(tmp_path / "undisturbed")
    assert loop.train() == 0
    return loop.losses


def test_a_restore_goes_back_and_does_the_same_steps_bit_by_bit(
    tmp_path: Path, undisturbed: list[tuple[int, float]]
) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []
    loop.before_check[25] = lambda: asked.append(loop.restore(10))
    assert loop.train() == 0
    assert loop.losses == undisturbed[:25] + undisturbed[10:]
    (command,) = asked
    assert loop.stages(command) == ["seen", "acting", "done"]
    done = loop.ack(command).last
    (restored,) = loop.events("restored")
    assert done is not None
    assert (done.step, done.detail) == (10, {key: restored.data[key] for key in ("checkpoint", "fingerprint")})
    assert (restored.step, restored.data["how"]) == (10, "restore")
    _, manifest = load(loop.run, str(restored.data["checkpoint"]))
    assert restored.data["fingerprint"] == manifest.fingerprint
    samples = [each for each in read_all(loop.run.telemetry(), Sample) if isinstance(each, Sample)]
    assert [sample.step for sample in samples] == [*range(26), *range(10, 40)]
    made = {found.name: found.manifest for found in list_checkpoints(loop.run)}
    steps = sorted(found.step for found in made.values() if found)
    assert steps == [10, 20, 20, 30, 40], "the step that was gone back to is not saved again"
    newest = made[loop.checkpoint_of(40)]
    assert newest is not None
    assert newest.parent == manifest.name


def test_after_a_restore_every_condition_is_told_as_it_was_at_the_checkpoint(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.before_check[25] = lambda: loop.restore(20) and None
    assert loop.train() == 0
    events = [each for each in read_all(loop.run.events, Event) if isinstance(each, Event)]
    after = next(number for number, each in enumerate(events) if each.kind == "restored")
    told = {each.data["id"] for each in events[after:] if each.kind == "condition"}
    assert told == {limit.id for limit in DEFAULT.judged}


@pytest.mark.parametrize(
    ("checkpoint", "why"),
    [
        ("../other", "no path"),
        ("/etc", "no path"),
        (7, "no path"),
        (None, "no path"),
        ("step-00000099-abcdef", "no checkpoint"),
    ],
)
def test_a_checkpoint_that_is_no_name_of_one_is_refused(
    tmp_path: Path, undisturbed: list[tuple[int, float]], checkpoint: object, why: str
) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []
    loop.before_check[15] = lambda: asked.append(loop.ask("restore", checkpoint=checkpoint))
    assert loop.train() == 0
    assert why in loop.reason(asked[0])
    assert loop.losses == undisturbed, "what is refused changes nothing"


def test_a_damaged_checkpoint_is_refused_and_the_run_goes_on(
    tmp_path: Path, undisturbed: list[tuple[int, float]]
) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []

    def damage() -> None:
        flip_a_byte(loop.run, loop.checkpoint_of(10))
        asked.append(loop.restore(10))

    loop.before_check[15] = damage
    assert loop.train() == 0
    assert "HASH-MISMATCH" in loop.reason(asked[0])
    assert loop.losses == undisturbed
    assert loop.events("restored") == []


def test_two_restores_at_one_boundary_are_one(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []
    loop.before_check[25] = lambda: asked.extend([loop.restore(10), loop.restore(20)])
    assert loop.train() == 0
    assert [loop.ack(command).stages[-1].stage for command in asked] == ["done", "refused"]
    assert "came first" in loop.reason(asked[1])


def test_a_loop_over_a_range_is_told_that_it_cannot_go_back(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []
    with loop.monitor as monitor:
        for step in range(monitor.first_step, 30):
            if step == 25:
                asked += [loop.restore(10), loop.ask("soft_reset")]
            assert monitor.check(step, {"loss": 1.0})
        monitor.finish(30)
    assert all("monitor.steps()" in loop.reason(command) for command in asked)


def test_a_loop_without_a_restore_function_is_told_so(tmp_path: Path) -> None:
    loop = Loop(tmp_path, restore=None)
    asked: list[Command] = []
    loop.before_check[25] = lambda: asked.append(loop.restore(10))
    assert loop.train() == 0
    assert loop.reason(asked[0]) == "this loop gave no restore function"


def test_a_restore_function_for_starts_only_is_told_so(tmp_path: Path) -> None:
    loop = Loop(tmp_path, restore=lambda *_: None)
    asked: list[Command] = []
    loop.before_check[25] = lambda: asked.append(loop.restore(10))
    assert loop.train() == 0
    assert "at a start only" in loop.reason(asked[0])


def test_a_paused_run_goes_back_and_stays_paused(tmp_path: Path, undisturbed: list[tuple[int, float]]) -> None:
    loop = Loop(tmp_path)
    desk = loop.monitor._desk
    asked: list[Command] = []

    def pause_then_restore() -> None:
        asked.extend([loop.ask("pause"), loop.restore(10)])

    answer = desk.stage

    def resume_when_back(command: Command, stage: str, step: int | None, **detail: Any) -> None:
        answer(command, stage, step, **detail)
        if (command.verb, stage) == ("restore", "done"):
            assert desk.paused
            asked.append(loop.ask("resume"))

    desk.stage = resume_when_back  # type: ignore[method-assign]
    loop.before_check[25] = pause_then_restore
    assert loop.train() == 0
    assert [loop.ack(command).stages[-1].stage for command in asked] == ["done", "done", "done"]
    resumed = loop.ack(asked[2]).last
    assert resumed is not None
    assert resumed.step == 10
    assert loop.losses == undisturbed[:25] + undisturbed[10:]


def test_a_state_that_comes_back_by_half_stops_the_run_without_a_checkpoint(tmp_path: Path) -> None:
    def broken(state: Mapping[str, Any]) -> None:
        raise LookupError("the layer is gone")

    loop = Loop(tmp_path, restore=restorer(broken))
    asked: list[Command] = []
    loop.before_check[25] = lambda: asked.append(loop.restore(10))
    assert loop.train() == 70
    assert "half restored" in loop.reason(asked[0])
    assert "the layer is gone" in loop.monitor.reason
    record = loop.emergency()
    assert (record.checkpoint, record.exit_code, record.note) == (None, 70, "the state is half restored")
    assert [found.step for found in list_checkpoints(loop.run)] == [20, 10]


def test_an_abort_during_a_restore_stops_with_a_checkpoint_of_the_restored_state(tmp_path: Path) -> None:
    asked: list[Command] = []

    def load_and_be_stopped(state: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        loop.load(state)

    loop = Loop(tmp_path, restore=restorer(load_and_be_stopped))
    loop.before_check[25] = lambda: asked.append(loop.restore(10))
    assert loop.train() == 143
    assert loop.stages(asked[0]) == ["seen", "acting", "done"]
    record = loop.emergency()
    assert (record.step, record.cause.text()) == (10, "signal SIGTERM")
    assert record.checkpoint is not None
    state, manifest = load(loop.run, record.checkpoint)
    before, _ = load(loop.run, first_of(loop.run, 10))
    assert (manifest.step, manifest.reason) == (10, "emergency")
    for name, tensor in before["model"].items():
        assert torch.equal(state["model"][name], tensor)
    assert torch.equal(state["global_rng"]["torch"], before["global_rng"]["torch"])


def test_an_abort_during_a_soft_reset_wins(tmp_path: Path) -> None:
    def load_and_be_stopped(state: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        loop.load(state)

    loop = Loop(tmp_path, profile=FORGIVING, restore=restorer(load_and_be_stopped))
    loop.before_check[27] = lambda: NAN
    assert loop.train() == 143
    assert [event.data["to_step"] for event in loop.events("soft_reset")] == [20]
    assert (loop.emergency().step, loop.emergency().exit_code) == (20, 143)


def first_of(run: RunDir, step: int) -> str:
    return [found.name for found in list_checkpoints(run) if found.step == step][-1]


def test_a_disk_that_does_not_take_the_record_of_it_is_a_stop_at_the_step_of_the_restored_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    append = loop.monitor.writer.event

    def refuse(kind: str, **data: Any) -> int:
        if kind == "restored":
            raise RecordWriteError(28, "No space left on device")
        return append(kind, **data)

    monkeypatch.setattr(loop.monitor.writer, "event", refuse)
    loop.before_check[25] = lambda: loop.restore(10) and None
    assert loop.train() == 74
    record = loop.emergency()
    assert record.step == 10
    assert record.checkpoint is not None
    state, manifest = load(loop.run, record.checkpoint)
    before, _ = load(loop.run, first_of(loop.run, 10))
    assert manifest.step == 10
    for name, tensor in before["model"].items():
        assert torch.equal(state["model"][name], tensor)


def test_a_loop_that_breaks_where_it_should_go_back_ends_as_an_error(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    with loop.monitor as monitor:
        for step in monitor.steps():
            if step == 25:
                loop.restore(10)
            if not monitor.check(step, {"loss": 1.0}):
                break
    assert monitor.exit_code == 70
    assert "no break at False" in monitor.reason
    assert read_manifest(loop.run).exit_code == 70


def test_a_soft_reset_goes_back_to_the_last_known_good_and_the_run_comes_to_its_end(
    tmp_path: Path, undisturbed: list[tuple[int, float]]
) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)
    loop.before_check[27] = lambda: NAN
    assert loop.train() == 0
    assert loop.losses == undisturbed[:27] + undisturbed[20:]
    (reset,) = loop.events("soft_reset")
    assert (reset.severity, reset.step) == ("warning", 20)
    assert reset.data | {"checkpoint": ""} == {
        "from_step": 27,
        "to_step": 20,
        "checkpoint": "",
        "cause": "nonfinite: loss not finite",
        "lr_factor": 1.0,
        "number": 1,
    }
    (restored,) = loop.events("restored")
    assert (restored.data["how"], restored.data["checkpoint"]) == ("soft_reset", reset.data["checkpoint"])
    assert list(loop.run.emergencies.iterdir()) == []


def test_who_was_told_of_the_alarm_is_told_that_the_run_goes_on(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = ("sh", "-c", f'echo "$QIG_ALERT_TEXT" >> {told}')
    loop = Loop(tmp_path, profile=FORGIVING, alerts=AlertSettings(command=command))
    loop.before_check[27] = lambda: NAN
    assert loop.train() == 0
    alarm, reset, end = told.read_text().splitlines()
    assert "step 27: critical: nonfinite: loss not finite" in alarm
    assert "step 20: critical: soft reset after nonfinite: loss not finite: the run goes on from checkpoint" in reset
    assert "step 40: end: ended with exit code 0" in end


def test_a_checkpoint_too_young_to_be_known_good_is_passed_over(tmp_path: Path) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)
    loop.before_check[22] = lambda: NAN
    assert loop.train() == 0
    (reset,) = loop.events("soft_reset")
    assert reset.data["to_step"] == 10


def test_a_damaged_good_checkpoint_is_told_and_the_one_before_is_taken(tmp_path: Path) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)

    def damage() -> float:
        flip_a_byte(loop.run, loop.checkpoint_of(20))
        return NAN

    loop.before_check[27] = damage
    assert loop.train() == 0
    assert [event.data["to_step"] for event in loop.events("soft_reset")] == [10]
    assert any("HASH-MISMATCH" in str(event.data["text"]) for event in loop.events("alert"))


def test_an_alarm_that_the_profile_does_not_forgive_stops_the_run(tmp_path: Path) -> None:
    unforgiving = msgspec.structs.replace(FORGIVING, soft_reset=SoftReset(limits=("divergence",), good_for=5))
    loop = Loop(tmp_path, profile=unforgiving)
    loop.before_check[27] = lambda: NAN
    assert loop.train() == 75
    assert loop.events("soft_reset") == []
    assert "soft reset" not in loop.monitor.reason


@pytest.mark.parametrize(
    ("again", "why"), [(27, "the cooldown is 10"), (8, "no checkpoint is known to be good")], ids=["cooldown", "early"]
)
def test_a_reset_that_cannot_be_is_a_stop_that_says_why(tmp_path: Path, again: int, why: str) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)

    def once_more() -> float:
        loop.before_check[again] = lambda: NAN
        return NAN

    loop.before_check[again] = once_more
    assert loop.train() == 75
    assert f"soft reset not possible: {'the last one was 8 checks ago, and ' if again == 27 else ''}{why}" in (
        loop.monitor.reason
    )
    assert loop.emergency().exit_code == 75


def test_a_loop_over_a_range_is_stopped_where_others_are_reset(tmp_path: Path) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)
    with loop.monitor as monitor:
        for step in range(40):
            if not monitor.check(step, {"loss": NAN if step == 27 else 1.0}):
                break
    assert monitor.exit_code == 75
    assert "soft reset not possible: this loop does not take its steps from monitor.steps()" in monitor.reason


def test_a_soft_reset_lowers_the_rate_by_its_factor_each_time(tmp_path: Path) -> None:
    asked = SoftReset(limits=("nonfinite",), good_for=5, cooldown=0, at_most=5, lr_factor=0.5)
    profile = msgspec.structs.replace(FORGIVING, soft_reset=asked)
    rates: list[float] = []

    def remember(loop: Loop) -> float:
        rates.append(loop.rate)
        return NAN

    def scale(factor: float) -> None:
        loop.scale_lr(factor)

    def load(state: Mapping[str, Any]) -> None:
        loop.load(state)

    loop = Loop(tmp_path, profile=profile, restore=restorer(load, scale_lr=scale))

    def again() -> float:
        loop.before_check[27] = lambda: remember(loop)
        return remember(loop)

    loop.before_check[27] = again
    assert loop.train() == 0
    assert (*rates, loop.rate) == (1e-2, 5e-3, 2.5e-3)
    assert [event.data["lr_factor"] for event in loop.events("soft_reset")] == [0.5, 0.25]
    assert [event.data["number"] for event in loop.events("soft_reset")] == [1, 2]


def test_a_person_can_ask_for_a_soft_reset(tmp_path: Path, undisturbed: list[tuple[int, float]]) -> None:
    quick = msgspec.structs.replace(DEFAULT, soft_reset=SoftReset(good_for=5))
    loop = Loop(tmp_path, profile=quick)
    asked: list[Command] = []
    loop.before_check[12] = lambda: asked.append(loop.ask("soft_reset"))
    loop.before_check[27] = lambda: asked.append(loop.ask("soft_reset"))
    assert loop.train() == 0
    assert "no checkpoint is known to be good" in loop.reason(asked[0])
    assert loop.stages(asked[1]) == ["seen", "acting", "done"]
    done = loop.ack(asked[1]).last
    assert done is not None
    assert (done.step, done.detail["number"]) == (20, 1)
    assert loop.losses == undisturbed[:27] + undisturbed[20:]


def test_a_limit_wins_over_a_restore_at_the_same_step(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    asked: list[Command] = []

    def both() -> float:
        asked.append(loop.restore(10))
        return NAN

    loop.before_check[25] = both
    assert loop.train() == 75
    assert loop.reason(asked[0]) == "the run is to stop"


def test_a_restore_that_is_refused_at_a_critical_step_lets_no_bad_update_through(tmp_path: Path) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)

    def both() -> float:
        loop.ask("restore", checkpoint="step-00000099-abcdef")
        return NAN

    loop.before_check[27] = both
    assert loop.train() == 75
    assert "not finite; soft reset not possible: no checkpoint 'step-00000099-abcdef'" in loop.monitor.reason
    assert loop.losses[-1][0] == 26


def test_a_pause_at_a_critical_step_begins_after_the_reset(
    tmp_path: Path, undisturbed: list[tuple[int, float]]
) -> None:
    loop = Loop(tmp_path, profile=FORGIVING)
    waited: list[int | None] = []
    sit_out = loop.monitor._desk.obey

    def obey(step: int, *, may_wait: bool = True) -> None:
        if loop.monitor._desk.paused:
            waited.append(step)
            loop.ask("resume")
        sit_out(step, may_wait=may_wait)

    loop.monitor._desk.obey = obey  # type: ignore[method-assign]

    def both() -> float:
        loop.ask("pause")
        return NAN

    loop.before_check[27] = both
    assert loop.train() == 0
    assert waited == [20]
    assert loop.losses == undisturbed[:27] + undisturbed[20:]


def test_the_good_ones_are_known_again_after_a_resume(tmp_path: Path) -> None:
    first = Loop(tmp_path, profile=FORGIVING, total=30)
    assert first.train() == 0
    second = Loop(tmp_path, profile=FORGIVING, total=60, resume=first.run.id)
    second.before_check[32] = lambda: NAN
    assert second.train() == 0
    (reset,) = second.events("soft_reset")
    assert reset.data["to_step"] == 20, "the one of step 30 was not yet known to be good"


def test_a_profile_that_the_loop_cannot_follow_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need restore=restorer"):
        IntegratedMonitor.open(tmp_path / "runs", profile=FORGIVING)
    assert not (tmp_path / "runs").exists()


def test_the_trainer_goes_back_and_repeats_its_steps_bit_by_bit(tmp_path: Path) -> None:
    over = {"steps": 60, "seed": 3, "cadence": {"checkpoint_every": 20, "measure_every": 5, "log_every": 1}}

    def run(name: str, restore_at: int | None) -> list[Sample]:
        place = requests.Place(runs=tmp_path, run_id=name)
        started = begin(requests.new(merge(PRESETS["tiny"], over), [], place))
        writer = started.writer
        waiting = {restore_at}

        def report(step: int, metrics: Mapping[str, float | None]) -> None:
            if step in waiting:
                waiting.clear()
                name = next(found.name for found in list_checkpoints(writer.run) if found.step == 20)
                command = Command(secrets.token_hex(16), writer.session, "restore", time.time())
                command.args = {"checkpoint": name}
                write_document(writer.run.command(command.id), encode_document(command), mode=0o600)
                writer.mailbox.poll(step)

        assert train(started, report).exit_code == 0
        return [each for each in read_all(writer.run.telemetry(), Sample) if isinstance(each, Sample)]

    clocks = ("step_ms", "tokens_per_s", "cpu_pct", "rss_bytes")

    def what_counts(samples: list[Sample]) -> list[tuple[object, ...]]:
        return [
            (each.step, {name: value for name, value in each.m.items() if name not in clocks}, each.basin, each.regime)
            for each in samples
        ]

    plain, back = what_counts(run("plain", None)), what_counts(run("back", 33))
    assert [each[0] for each in back] == [*range(35), *range(20, 61)]
    assert back[:35] == plain[:35]
    assert back[35:] == plain[20:]
