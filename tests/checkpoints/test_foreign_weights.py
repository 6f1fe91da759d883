"""Weights of other programs are read, and nothing in a file is executed."""

import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model

from qig_core.checkpoints.foreign import read_weights
from qig_core.errors import CheckpointError

W = torch.arange(6.0).reshape(2, 3)
OLD_AND_NEW = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


def saved(path: Path, value: Any, as_zip: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=as_zip)
    return path


@OLD_AND_NEW
def test_tables_of_tensors_become_dotted_names(tmp_path: Path, as_zip: bool) -> None:
    value = {
        "model": OrderedDict({"layer.weight": W, "bias": torch.nn.Parameter(torch.ones(2))}),
        "optimizer": {"state": {0: {"exp_avg": W.half()}}, "groups": [{"lr": 0.1}, {"t": torch.tensor(True)}]},
        "epoch": 3,
        "name": "x",
        "none": None,
    }
    read = read_weights(saved(tmp_path / "x.pt", value, as_zip))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        "model.layer.weight": W.tolist(),
        "model.bias": [1, 1],
        "optimizer.state.0.exp_avg": W.tolist(),
        "optimizer.groups.1.t": True,
    }
    assert read["optimizer.state.0.exp_avg"].dtype is torch.float16
    assert not any(tensor.requires_grad for tensor in read.values())


@OLD_AND_NEW
def test_shared_memory_stays_shared(tmp_path: Path, as_zip: bool) -> None:
    w = W.clone()
    read = read_weights(saved(tmp_path / "x.bin", {"a": w, "b": w, "row": w[1], "turned": w.t()}, as_zip))
    assert {tensor.untyped_storage().data_ptr() for tensor in read.values()} == {read["a"].untyped_storage().data_ptr()}
    assert torch.equal(read["row"], W[1])
    assert torch.equal(read["turned"], W.t())


def test_writing_to_what_was_read_does_not_change_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": W})
    before = path.read_bytes()
    read_weights(path)["w"].zero_()
    assert path.read_bytes() == before


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_safetensors_files_are_read_as_their_own_package_wrote_them(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"w": torch.tensor([[0.0, 1.0, 2.0]]).to(dtype), "none": torch.empty(0, 2, dtype=dtype)}
    save_file(tensors, tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (dtype, tensor.shape)
        assert read[name].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_names_that_another_writer_left_out_for_shared_memory_are_there(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(2, 2)
            self.b = self.a

    save_model(Tied(), str(tmp_path / "m.safetensors"))
    read = read_weights(tmp_path / "m.safetensors")
    assert read.keys() == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert read["a.weight"] is read["b.weight"]


class Hostile:
    """What its pickle does when it is loaded as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class Hidden(Hostile):
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", [Hostile, Hidden])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 5"])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, kind: type[Hostile], form: str) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "x.pt"
    value = {"w": W, "evil": kind(trap)}
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps({"evil": kind(trap)}, protocol=int(form[-1])))
    else:
        saved(path, value, form == "zip")
    with pytest.raises(CheckpointError, match=r"is not read.*nothing in it was executed") as refused:
        read_weights(path)
    if form != "pickle 5":  # whose first byte is refused already
        assert "open" in str(refused.value) or "system" in str(refused.value)
    assert not trap.exists()


def test_the_trap_of_the_test_before_is_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"evil": Hidden(tmp_path / "sprung")})
    torch.load(path, weights_only=False)
    assert (tmp_path / "sprung").exists()


@OLD_AND_NEW
def test_an_environment_that_asks_for_execution_is_not_obeyed(
    tmp_path: Path, as_zip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match="holds a pickled object"):
        read_weights(saved(tmp_path / "x.pt", {"evil": Hidden(tmp_path / "sprung")}, as_zip))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", [torch.nn.Linear(1, 1), {"a": np.ones(2)}, {"p": Path("x")}], ids=str)
def test_a_pickled_object_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"holds a pickled object, (torch\.nn|numpy|pathlib)\S*, and is not read"):
        read_weights(saved(tmp_path / "x.pt", value))


def test_advice_to_execute_the_file_is_not_passed_on(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"n": 1}, protocol=5))
    with pytest.raises(CheckpointError) as refused:
        read_weights(tmp_path / "x.pt")
    assert "weights_only" not in str(refused.value)


def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path) -> None:
    itself: dict[str, Any] = {"w": W}
    itself["again"] = itself
    for value, said in (
        (W, "no table of tensors but a Tensor"),
        ({"n": 1}, "no table of tensors but a dict"),
        (5, "no table of tensors but a int"),
        (itself, "contains itself"),
        ({"a": {"b": W}, "a.b": W}, r"two tensors are called 'a\.b'"),
        ({"s": torch.eye(2).to_sparse()}, "'s' is torch.sparse_coo"),
        ({"m": torch.empty(2, device="meta")}, "'m' is torch.strided, on meta"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read_weights(saved(tmp_path / "x.pt", value))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin", ""])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_weights(path)
    for content in (b"", b"PK", b"PK\3\4", b"garbage " * 40, b"\x80\x02}q\0.", b"\xff" * 9, b"GGUF\3\0\0\0" * 9):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x(\.\w+)?' "):
            read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/x.txt", "not by torch")
    with pytest.raises(CheckpointError, match=r"x(\.\w+)?' "):
        read_weights(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_weights(path)


def test_a_type_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(CheckpointError, match="no known type"):
        read_weights(tmp_path / "w.safetensors")


FILES: dict[str, bytes] = {}


@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    cut=st.floats(0, 1, exclude_max=True),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
)
@settings(deadline=None, max_examples=150)
def test_damage_of_any_kind_is_an_error_of_the_checkpoint_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind not in FILES:
        if kind == "safetensors":
            save_file({"w": W, "b": torch.ones(3)}, path)
        else:
            saved(path, {"model": {"w": W}, "epoch": 3}, kind == "zip")
        FILES[kind] = path.read_bytes()
    content = bytearray(FILES[kind])
    if flips:
        for at, change in flips:
            content[math.floor(at * len(content))] ^= change
    else:
        del content[math.floor(cut * len(content)) :]
    path.write_bytes(content)
    try:
        read = read_weights(path)
    except CheckpointError:
        return
    assert flips or kind == "legacy"
    assert all(isinstance(tensor, torch.Tensor) for tensor in read.values())
