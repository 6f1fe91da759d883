"""An exported checkpoint opens in other tools, says where it comes from, and is there whole or not at all."""

import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qig_core.checkpoints.catalog import Found, look
from qig_core.checkpoints.export import export
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.store import publish
from qig_core.errors import CheckpointError, RecordWriteError, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.values import encode_basin


def put(run: RunDir, state: dict[str, Any], **facts: Any) -> Found:
    asked = {"session": "5e55", "step": 7, "reason": "interval"} | facts
    found = look(run, publish(run, files=to_files(state), **asked).name)
    assert found is not None
    return found


def exported(found: Found, out: Path, **options: Any) -> dict[str, Any]:
    *reports, last = export(found, out, **options)
    assert [report["progress"]["doing"] for report in reports] == ["verify", "write"]
    assert json.loads(out.with_suffix(".json").read_bytes()) == last["result"]
    return dict(last["result"])


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(11, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 11, bias=False)
        self.head.weight = self.wte.weight


STATE = {"model": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}, "optimizer": {"w": torch.ones(2)}}


def test_the_weights_load_elsewhere_under_their_own_names(run: RunDir, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).to(torch.bfloat16)
    found = put(run, {"model": model.state_dict(), "optimizer": {"x": torch.ones(3)}, "epoch": 1})
    exported(found, tmp_path / "w.safetensors")
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).to(torch.bfloat16)
    other.load_state_dict(loaded)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tied_weights_stand_under_both_names(run: RunDir, tmp_path: Path) -> None:
    model = Tied()
    result = exported(put(run, {"model": model.state_dict()}), tmp_path / "w.safetensors")
    assert result["exported"]["tied"] == {"head.weight": "wte.weight"}
    other = Tied()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(other.head.weight, model.wte.weight)


def test_all_takes_every_tensor_as_key_and_name(run: RunDir, tmp_path: Path) -> None:
    result = exported(put(run, STATE), tmp_path / "w.safetensors", everything=True)
    loaded = load_file(tmp_path / "w.safetensors")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        "model.w": [[0, 1, 2], [3, 4, 5]],
        "model.n": 3,
        "optimizer.w": [1, 1],
    }
    assert result["exported"]["keys"] == ["model", "optimizer"]
    assert result["exported"]["tensors"] == 3


def test_one_key_keeps_its_names_and_several_say_whose(run: RunDir, tmp_path: Path) -> None:
    found = put(run, STATE)
    exported(found, tmp_path / "one.safetensors", keys=["optimizer"])
    assert load_file(tmp_path / "one.safetensors").keys() == {"w"}
    exported(found, tmp_path / "two.safetensors", keys=["optimizer", "model"])
    assert load_file(tmp_path / "two.safetensors").keys() == {"model.w", "model.n", "optimizer.w"}


def test_without_a_model_the_keys_are_listed(run: RunDir, tmp_path: Path) -> None:
    found = put(run, {"policy": {"w": torch.ones(1)}, "value": {"w": torch.ones(1)}})
    for options, said in (
        ({}, r"has no 'model'; name with --key, or take with --all, of: 'policy', 'value'"),
        ({"keys": ["model"]}, r"no tensors under 'model'; there are 'policy', 'value'"),
        ({"keys": ["value"], "everything": True}, "exclude each other"),
    ):
        with pytest.raises(UsageError, match=said):
            exported(found, tmp_path / "w.safetensors", **options)
    exported(found, tmp_path / "w.safetensors", keys=["value"])


def test_two_tensors_never_share_a_name(run: RunDir, tmp_path: Path) -> None:
    found = put(run, {"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.zeros(1)}})
    with pytest.raises(UsageError, match=r"would be called 'a\.b\.c'"):
        exported(found, tmp_path / "w.safetensors", everything=True)
    assert list(tmp_path.glob("*w.*")) == []


def test_a_checkpoint_without_tensors_says_so(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        exported(put(run, {"epoch": 1}), tmp_path / "w.safetensors", everything=True)


def test_the_json_beside_says_what_it_is_and_where_it_comes_from(run: RunDir, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).dirichlet(np.ones(64)).astype("<f4")
    found = put(
        run,
        STATE,
        metrics={"loss": 1.5, "phi": math.nan},
        basin=encode_basin(raw.tobytes()),
        versions={"torch": "2"},
        git={"revision": "abc", "dirty": False},
    )
    out = tmp_path / "w.safetensors"
    result = exported(found, out)
    assert found.manifest is not None
    assert result["source"] == {"run": run.id, "checkpoint": found.name}
    assert (result["format"], result["step"], result["reason"]) == (1, 7, "interval")
    assert (result["metrics"], result["nonfinite"]) == ({"loss": 1.5, "phi": None}, {"phi": "nan"})
    assert result["fingerprint"] == found.manifest.fingerprint
    assert (result["versions"], result["git"]["revision"]) == ({"torch": "2"}, "abc")
    assert len(result["basin"]) == 64
    assert sum(result["basin"]) == pytest.approx(1.0, abs=1e-15)
    assert result["basin"] == pytest.approx(raw.tolist(), rel=1e-6)
    assert result["exported"]["path"] == "w.safetensors"
    assert result["exported"]["size"] == out.stat().st_size
    assert result["exported"]["blake3"] == blake3.blake3(out.read_bytes()).hexdigest()


def test_a_basin_that_was_not_measured_is_null_with_a_reason(run: RunDir, tmp_path: Path) -> None:
    result = exported(put(run, STATE), tmp_path / "w.safetensors")
    assert (result["basin"], result["basin_reason"]) == (None, "it was not measured")


def test_complex_tensors_stay_as_stored_and_are_named(run: RunDir, tmp_path: Path) -> None:
    z = torch.tensor([1 + 2j, 3j], dtype=torch.complex128)
    found = put(run, {"model": {"z": z, "same": z, "parts": torch.ones(2, 2), "a": np.ones(3, dtype=np.complex64)}})
    result = exported(found, tmp_path / "w.safetensors")
    assert result["exported"]["complex"] == {"z": "complex128", "same": "complex128", "a": "complex64"}
    loaded = load_file(tmp_path / "w.safetensors")
    assert torch.equal(torch.view_as_complex(loaded["z"]), z)
    assert torch.equal(loaded["same"], loaded["z"])
    assert loaded["a"].dtype is torch.float32


def test_tensors_that_are_not_finite_are_taken_and_named(run: RunDir, tmp_path: Path) -> None:
    mask = torch.tensor([0.0, -math.inf])
    found = put(run, {"model": {"mask": mask, "again": mask, "w": torch.ones(1)}})
    result = exported(found, tmp_path / "w.safetensors", everything=True)
    assert sorted(result["exported"]["nonfinite"]) == ["model.again", "model.mask"]


def test_a_tensor_of_many_chunks_is_copied_byte_by_byte_in_little_memory(run: RunDir, tmp_path: Path) -> None:
    w = torch.randint(-128, 128, (60_000_001,), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    found = put(run, {"model": {"w": w, "v": w[:7].double(), "none": torch.empty(0, 3)}})
    out = tmp_path / "w.safetensors"
    tracemalloc.start()
    result = exported(found, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    assert result["exported"]["blake3"] == blake3.blake3(out.read_bytes()).hexdigest()
    loaded = load_file(out)
    assert torch.equal(loaded["w"], w)
    assert torch.equal(loaded["v"], w[:7].double())
    assert loaded["none"].shape == (0, 3)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_one_flipped_bit_anywhere_in_the_checkpoint_and_nothing_is_exported(
    run: RunDir, tmp_path: Path, name: str
) -> None:
    found = put(run, STATE)
    content = bytearray((found.path / name).read_bytes())
    content[-1] ^= 1
    (found.path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="is not exported, it is HASH-MISMATCH"):
        exported(found, tmp_path / "w.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-run"]


def test_what_is_there_is_replaced_only_by_force(run: RunDir, tmp_path: Path) -> None:
    found = put(run, STATE)
    out = tmp_path / "w.safetensors"
    for there in (out, out.with_suffix(".json")):
        there.write_text("mine")
        with pytest.raises(UsageError, match="exists; --force replaces it"):
            exported(found, out)
        assert there.read_text() == "mine"
        exported(found, out, force=True)
        assert load_file(out).keys() == {"w", "n"}
        out.unlink()
        out.with_suffix(".json").unlink()


def test_a_place_where_nothing_can_be_written_is_named_before_anything_is_read(run: RunDir, tmp_path: Path) -> None:
    found = put(run, STATE)
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "link").symlink_to(run.checkpoints)
    for out, said in (
        (tmp_path / "folder.safetensors", "is a folder or no regular file"),
        (tmp_path / "pipe.safetensors", "is a folder or no regular file"),
        (tmp_path / "absent" / "w.safetensors", "absent' is not a folder"),
        (tmp_path / "w.pt", r"its name ends in \.safetensors"),
        (found.path / "model.safetensors", "lies among the checkpoints of a run"),
        (tmp_path / "link" / "w.safetensors", "lies among the checkpoints of a run"),
    ):
        with pytest.raises(UsageError, match=said):
            next(export(found, out, force=True))


# The limit stands for a full disk: both refuse the write in the middle.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.export import export
from qig_core.rundir.layout import RunDir
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
(found,) = list_checkpoints(RunDir(sys.argv[1]))
try:
    list(export(found, Path(sys.argv[2]), force=True))
except OSError as error:
    print(type(error).__name__, error)
assert "torch" not in sys.modules and "safetensors" not in sys.modules
"""


@pytest.mark.parametrize("limit", [10, 1000, 100_000])
def test_a_disk_that_refuses_leaves_nothing_and_what_was_there_before(run: RunDir, tmp_path: Path, limit: int) -> None:
    put(run, {"model": {"w": torch.ones(50_000)}})
    (tmp_path / "w.json").write_text("before")
    (tmp_path / "w.safetensors").write_text("before")
    words = [sys.executable, "-c", LIMITED, str(run.path), str(tmp_path / "w.safetensors"), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RecordWriteError")
    assert "was not written: File too large (EFBIG)" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-run", "w.json", "w.safetensors"]
    assert (tmp_path / "w.json").read_text() == (tmp_path / "w.safetensors").read_text() == "before"


def test_an_export_that_is_given_up_leaves_nothing(run: RunDir, tmp_path: Path) -> None:
    steps = export(put(run, STATE), tmp_path / "w.safetensors")
    while next(steps)["progress"]["doing"] != "write":
        pass
    steps.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-run"]


def test_a_name_that_the_disk_refuses_is_an_error_of_the_disk(run: RunDir, tmp_path: Path) -> None:
    long = tmp_path / f"{'n' * 240}.safetensors"  # fits; the temporary name does not
    with pytest.raises(RecordWriteError, match="ENAMETOOLONG"):
        exported(put(run, STATE), long)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-run"]


def test_payload_that_no_state_describes_is_exported_by_its_header(run: RunDir, tmp_path: Path) -> None:
    header = b'{"__metadata__":{"tied":"w"},"w":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}'
    content = len(header).to_bytes(8, "little") + header + np.complex64(1 + 2j).tobytes()
    name = publish(run, session="s", step=1, reason="end", files={"model.safetensors": content}).name
    found = look(run, name)
    assert found is not None
    result = exported(found, tmp_path / "w.safetensors")
    assert result["exported"]["complex"] == {"w": "complex64", "tied": "complex64"}
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded["w"].tolist() == loaded["tied"].tolist() == [[1.0, 2.0]]
