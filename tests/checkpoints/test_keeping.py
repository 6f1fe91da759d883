"""What programs are told and may ask: shapes beside a verification, a prune of checkpoints by their names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qig_core.checkpoints import commands
from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.tensorfile import TensorFile, TensorSource
from qig_core.commands import keeping
from qig_core.commands.shapes import add_shapes
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has ended."""
    with RunWriter.create(tmp_path, Manifest(id="a-run")) as writer:
        pass
    return writer.run


def put(run: RunDir, step: int, **shapes: tuple[int, ...]) -> str:
    sources = [
        TensorSource(
            name=name,
            dtype="F32",
            shape=shape,
            read=lambda shape=shape: memoryview(np.ones(shape, dtype="<f4")).cast("B"),  # type: ignore[misc]  # bound
        )
        for name, shape in shapes.items()
    ]
    files = {"model.safetensors": TensorFile(sources)}
    return publish(run, session="5e55", step=step, reason="interval", files=files).name


def verified(run: RunDir, name: str | None = None) -> dict[str, Any]:
    """By name, what is told of the shapes."""
    rows: list[dict[str, Any]] = next(report["result"] for report in commands.verify(run, name) if "result" in report)
    add_shapes(run, rows)
    return {row["name"]: row["shapes"] for row in rows}


def test_tensors_are_compared_with_those_of_the_newest_other_whole_checkpoint(run: RunDir) -> None:
    names = [put(run, 1, w=(2, 3)), put(run, 2, w=(2, 3)), put(run, 3, w=(2, 4), new=(1,))]
    found = verified(run)
    assert (found[names[0]]["beside"], found[names[2]]["beside"]) == (names[2], names[1])
    assert found[names[2]] == {
        "tensors": 2,
        "beside": names[1],
        "differing": ["model:new is F32 [1], there absent", "model:w is F32 [2, 4], there F32 [2, 3]"],
        "reason": None,
    }
    assert verified(run, names[2]) == {names[2]: found[names[2]]}


def test_what_is_damaged_has_no_shapes_and_is_nobody_s_measure(run: RunDir) -> None:
    names = [put(run, 1, w=(2, 3)), put(run, 2, w=(2, 3))]
    path = run.checkpoint(names[1]) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = verified(run)
    assert found[names[1]] is None
    assert found[names[0]]["reason"] == "there is no other whole checkpoint"


def test_of_many_differences_the_first_are_named_and_the_rest_counted(run: RunDir) -> None:
    put(run, 1, **{f"a{i}": (1,) for i in range(8)})
    name = put(run, 2, **{f"b{i}": (1,) for i in range(8)})
    differing = verified(run)[name]["differing"]
    assert len(differing) == 6
    assert differing[-1] == "and 11 more"


def test_a_prune_of_named_ones_deletes_no_other(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    names = [put(run, step, w=(step,)) for step in (1, 2, 3, 4)]

    def prune(*only: str) -> list[str]:
        over = {"newest": 1, "best": 0}
        code = keeping.prune(run, over, only=only, dry_run=False, yes=True, wait_s=1.0, json=True)
        assert code == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        deleted: list[str] = answer["result"]["deleted"]
        return deleted

    assert prune("step-nothing", names[3]) == []
    assert prune(names[1], names[3]) == [names[1]]
    assert [found.name for found in list_checkpoints(run)] == [names[3], names[2], names[0]]
