"""What is known of a real run's checkpoints before a prune, and what is deleted by the plan."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.manifest_file import encode_sealed, read_sealed
from qig_core.checkpoints.pruning import Pruned, carry_out, plan_prune, planning, recorded_keep
from qig_core.checkpoints.retention import Keep, Plan
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.upkeep import add_tag
from qig_core.errors import CheckpointError, ConfigError, RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter

ONE = Keep(newest=1, best=0)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has ended, with a run.json and events."""
    with RunWriter.create(tmp_path, Manifest(id="a-run")) as writer:
        pass
    return writer.run


def put(run: RunDir, step: int, loss: float = 1.0, **facts: Any) -> str:
    files = {"weights.bin": b"w" * 100, "state.json": b"{}"}
    reason = facts.pop("reason", "interval")
    metrics = {"loss_heldout": loss}
    return publish(run, session="5e55", step=step, reason=reason, files=files, metrics=metrics, **facts).name


def flip(run: RunDir, *names: str) -> None:
    for name in names:
        (run.checkpoint(name) / "weights.bin").write_bytes(b"x" * 100)


def planned(run: RunDir, keep: Keep = ONE, **given: Any) -> tuple[Plan, list[tuple[str, int, int]]]:
    """The plan after verifying, and the progress that was told."""
    steps, told = planning(run, keep, **given), []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as stop:
            return stop.value, told


def reasons(found: Plan) -> dict[str, tuple[str, ...]]:
    return {one.name: one.reasons for one in found.decisions}


def there(run: RunDir) -> list[str]:
    return [found.name for found in list_checkpoints(run)]


def test_what_the_plan_drops_is_deleted_and_nothing_else(run: RunDir) -> None:
    names = [put(run, step, loss) for step, loss in enumerate((0.1, 0.9, 0.5, 0.7))]
    found, told = planned(run, Keep(newest=1, best=1))
    assert [name for name, done, _ in told if done] == [names[3]] * len(told), "the newest is whole: no other is read"
    assert told[-1][1:] == (102, 102)
    assert there(run) == names[::-1], "a plan changes nothing"
    gone = carry_out(run, found)
    assert gone == Pruned(names=(names[2], names[1]), size=204, kept=2)
    assert gone.data() == {"names": [names[2], names[1]], "size": 204, "kept": 2}
    assert there(run) == [names[3], names[0]]
    assert [path.name for path in run.checkpoints.glob(".*")] == []
    assert planned(run, Keep(newest=1, best=1))[0].dropped == ()


def test_the_newest_that_verifies_stays_although_a_newer_one_is_listed_whole(run: RunDir) -> None:
    names = [put(run, step) for step in range(5)]
    flip(run, names[4], names[3])
    found, told = planned(run)
    assert list(dict.fromkeys(name for name, _, _ in told)) == [names[4], names[3], names[2]]
    assert reasons(found) == {
        names[4]: ("not whole; never pruned",),
        names[3]: ("not whole; never pruned",),
        names[2]: ("newest", "last verified"),
        names[1]: (),
        names[0]: (),
    }
    assert carry_out(run, found).names == (names[1], names[0])


def test_where_none_verifies_nothing_goes(run: RunDir) -> None:
    names = [put(run, step) for step in range(3)]
    flip(run, *names)
    with pytest.raises(CheckpointError, match=r"nothing is pruned in .*: of 3 checkpoints none verifies"):
        planned(run)
    for name in names:
        (run.checkpoint(name) / "weights.bin").unlink()
    found, told = planned(run)
    assert (found.dropped, told) == ((), []), "a torn one is not even read"
    assert there(run) == names[::-1]


def test_nothing_is_planned_where_there_is_nothing(run: RunDir) -> None:
    assert planned(run)[0] == Plan(decisions=())
    run.checkpoints.rmdir()
    assert plan_prune(run, ONE) == Plan(decisions=())
    assert carry_out(run, Plan(decisions=())) == Pruned()


def test_what_sessions_went_on_from_stays_by_run_json_and_by_the_events(tmp_path: Path, run: RunDir) -> None:
    names = [put(run, step) for step in range(6)]
    with RunWriter.reopen(run, resumed_from=names[0]):
        pass
    with RunWriter.reopen(run, resumed_from=None) as writer:
        writer.event("restored", checkpoint=names[2], how="restore")
        writer.event("restored", checkpoint=names[3], how="soft_reset")
    found = plan_prune(run, ONE)
    assert {name for name, why in reasons(found).items() if why == ("gone on from",)} == {names[0], names[2], names[3]}
    assert {one.name for one in found.dropped} == {names[1], names[4]}


def test_what_is_in_use_stays_with_its_reason(run: RunDir) -> None:
    names = [put(run, step) for step in range(3)]
    found = plan_prune(run, ONE, in_use={names[0]: "for a soft reset", "gone": "for nothing"}, verified=names[1])
    assert [reasons(found)[name] for name in names] == [("for a soft reset",), ("last verified",), ("newest",)]


def test_tags_that_cannot_be_read_keep(run: RunDir) -> None:
    names = [put(run, step) for step in range(3)]
    add_tag(run, names[0], "pinned")
    run.checkpoint_tags(names[1]).write_text('{"tags": ["pinne')
    found = plan_prune(run, ONE)
    assert [reasons(found)[name] for name in names[:2]] == [("pinned",), ("its tags cannot be read",)]


def test_a_run_directory_may_be_renamed_and_a_foreign_checkpoint_is_left_alone(tmp_path: Path, run: RunDir) -> None:
    first = put(run, 1)
    moved = RunDir(run.path.rename(tmp_path / "another-name"))
    second, third = put(moved, 2), put(moved, 3)
    with RunWriter.create(tmp_path, Manifest(id="stranger")) as writer:
        foreign = put(writer.run, 4)
    writer.run.checkpoint(foreign).rename(moved.checkpoint(foreign))
    found, _ = planned(moved)
    assert reasons(found) == {
        foreign: ("of another run",),
        third: ("newest", "last verified"),
        second: (),
        first: (),
    }
    assert carry_out(moved, found).names == (second, first)


def test_a_whole_one_of_another_run_does_not_vouch_for_this_ones(tmp_path: Path, run: RunDir) -> None:
    old, new = put(run, 1), put(run, 2)
    with RunWriter.create(tmp_path, Manifest(id="stranger")) as writer:
        foreign = put(writer.run, 3)
    writer.run.checkpoint(foreign).rename(run.checkpoint(foreign))
    flip(run, new)
    assert planned(run)[0].dropped == ()
    flip(run, old)
    with pytest.raises(CheckpointError, match="none verifies"):
        planned(run)


def test_without_a_readable_run_json_only_those_of_its_own_name_may_go(tmp_path: Path, run: RunDir) -> None:
    first = put(run, 1)
    moved = RunDir(run.path.rename(tmp_path / "another-name"))
    second, _ = put(moved, 2), put(moved, 3)
    moved.manifest.write_text("{")
    found = plan_prune(moved, ONE)
    assert {one.name for one in found.dropped} == {second}
    assert reasons(found)[first] == ("of another run",)


def test_events_that_cannot_be_read_keep_all(run: RunDir) -> None:
    names = [put(run, step) for step in range(3)]
    run.events.unlink()
    run.events.mkdir()
    with pytest.raises(CheckpointError, match=r"events\.jsonl"):
        planned(run)
    assert there(run) == names[::-1]


def record(run: RunDir, keep: Any) -> None:
    document = json.loads(run.manifest.read_bytes())
    document["keep"] = keep
    run.manifest.write_text(json.dumps(document))


def test_the_recorded_rule_counts_and_single_parts_of_it_can_differ(run: RunDir) -> None:
    assert recorded_keep(run) == Keep()
    record(run, {"newest": 2, "best": 7, "score": "phi", "lower_is_better": False})
    assert recorded_keep(run) == Keep(newest=2, best=7, score="phi", lower_is_better=False)
    assert recorded_keep(run, newest=4, score=None) == Keep(newest=4, best=7, score="phi", lower_is_better=False)
    assert recorded_keep(run, best=0, lower_is_better=True) == Keep(newest=2, best=0, score="phi")
    record(run, {"newest": 3, "of a newer program": [1]})
    assert recorded_keep(run) == Keep(newest=3)
    assert read_manifest(run).keep["newest"] == 3


@pytest.mark.parametrize(
    "keep", [{"newest": "many"}, {"newest": 0}, {"newest": 2.5}, {"best": None}, {"best": -1}, {"score": [1]}]
)
def test_garbage_in_the_recorded_rule_is_refused_and_can_be_overruled(run: RunDir, keep: dict[str, Any]) -> None:
    record(run, keep)
    with pytest.raises(ConfigError, match="run 'a-run' records no rule that this program reads"):
        recorded_keep(run)
    over = {"newest": 1, "best": 1, "score": "loss"}
    assert recorded_keep(run, **over) == Keep(newest=1, best=1, score="loss")


def test_a_fault_of_the_caller_is_not_said_of_the_run(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"^newest is 0"):
        recorded_keep(run, newest=0)
    run.manifest.write_text("{")
    with pytest.raises(RunFormatError, match=r"run\.json"):
        recorded_keep(run)


def test_three_hundred_checkpoints_are_planned_and_deleted_at_once(run: RunDir) -> None:
    pattern = run.checkpoint(put(run, 0))
    payload = {path.name: path.read_bytes() for path in pattern.iterdir() if path.name != "manifest.json"}
    manifest = read_sealed(pattern / "manifest.json")
    for step in range(1, 300):
        manifest.name, manifest.step, manifest.t = f"step-{step:08d}-aaaaaa", step, manifest.t + 1.0
        manifest.metrics = {"loss_heldout": float(step % 17)}
        folder = run.checkpoint(manifest.name)
        folder.mkdir()
        for name, content in payload.items():
            (folder / name).write_bytes(content)
        (folder / "manifest.json").write_bytes(encode_sealed(manifest))
    began = time.monotonic()
    found, _ = planned(run, Keep(newest=5, best=3))
    gone = carry_out(run, found)
    assert time.monotonic() - began < 5.0, "a second, and it is not read byte by byte"
    assert len(gone.names) == 292
    assert {found.step for found in list_checkpoints(run)} == {*range(295, 300), 17, 34, 51}
