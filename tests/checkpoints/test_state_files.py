"""Trees to files and back: bitwise, without pickle, and readable by others."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qig_core.checkpoints.pytree import from_files, to_files
from qig_core.checkpoints.tensorfile import read_header
from qig_core.errors import CheckpointError


def written(state: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in to_files(state).items():
        content = payload if isinstance(payload, bytes) else b"".join(payload)
        assert len(content) == (len(payload) if isinstance(payload, bytes) else payload.nbytes)
        (folder / name).write_bytes(content)
    return folder


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items(), strict=False)
        return len(a) == len(b) and all(same(k, m) and same(v, w) for (k, v), (m, w) in pairs)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return bool(a == b)


def bits(tensor: torch.Tensor) -> bytes:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
]
WIDTH = {dtype: torch.empty(1, dtype=dtype).element_size() for dtype in DTYPES}


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    if dtype is torch.bool:
        values = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype)
    else:
        raw = bytearray(draw(st.binary(min_size=count * WIDTH[dtype], max_size=count * WIDTH[dtype])))
        values = torch.frombuffer(raw, dtype=dtype) if count else torch.empty(0, dtype=dtype)
    tensor = values.reshape(shape)
    return tensor.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(["u1", "i8", "f2", "f4", "f8", "c8", "c16", "u4"])))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=dtype).reshape(shape)
    return np.asfortranarray(array) if draw(st.booleans()) and shape else array


TEXT = st.text(st.characters(), max_size=5)  # lone surrogates too
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=1 << 62, max_value=1 << 200)
    | st.floats()
    | TEXT
    | st.binary(max_size=5)
    | st.floats(width=32).map(np.float32)
    | st.integers(0, 255).map(np.uint8)
)
KEYS = TEXT | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), TEXT) | st.sampled_from(["$tensor"])
TREES = st.recursive(
    SCALARS | tensors() | arrays(),
    lambda child: (
        st.lists(child, max_size=3) | st.lists(child, max_size=3).map(tuple) | st.dictionaries(KEYS, child, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["model", "optimizer", "rng", "state"]), TREES, max_size=3))
def test_any_tree_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    assert same(from_files(written(state, tmp_path_factory.mktemp("tree"))), state)


def test_the_state_of_adamw_comes_back_bitwise_and_steps_on_alike(tmp_path: Path) -> None:
    def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 1))
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    model, optimizer = trained()
    for seed in range(3):
        step(model, optimizer, seed)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    read = from_files(written(state, tmp_path))
    assert same(read["optimizer"], state["optimizer"])
    other, restored = trained()
    other.load_state_dict(read["model"])
    restored.load_state_dict(read["optimizer"])
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, restored, seed)
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_another_program_reads_the_model_under_its_state_dict_names(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).bfloat16()
    folder = written({"model": model.state_dict()}, tmp_path)
    read = load_file(folder / "model.safetensors")
    assert read.keys() == model.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in model.state_dict().items())


def test_a_file_of_the_safetensors_package_is_read_with_the_same_offsets(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"b": torch.arange(3), "a": torch.ones(2, 2, dtype=torch.float16), "e": torch.empty(0)}, path, {"k": "v"})
    with open(path, "rb") as file:
        entries, metadata = read_header(file.fileno(), path.stat().st_size)
    assert metadata == {"k": "v"}
    raw = path.read_bytes()
    by_name = {entry.name: entry for entry in entries}
    assert raw[by_name["b"].start : by_name["b"].end] == np.arange(3).tobytes()
    assert by_name["a"].shape == (2, 2)


def test_tied_tensors_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.randn(50, 40)
    state = {"model": {"embed.weight": weight, "head.weight": weight.view(50, 40), "top": weight[:1]}}
    folder = written(state, tmp_path)
    assert (folder / "model.safetensors").stat().st_size < 9000
    read = from_files(folder)["model"]
    assert read["head.weight"] is read["embed.weight"]
    assert same(read["top"], weight[:1])
    assert list(load_file(folder / "model.safetensors")) == ["embed.weight", "top"]


def test_two_paths_of_one_dotted_name_keep_their_own_tensors(tmp_path: Path) -> None:
    state = {
        "x": {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), "__metadata__": torch.tensor(3)},
        "y": np.eye(2),
    }
    assert same(from_files(written(state, tmp_path)), state)


def test_conjugated_and_negated_views_come_back_as_what_they_show(tmp_path: Path) -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    read = from_files(written({"z": [z, z.conj(), z.conj().imag]}, tmp_path))["z"]
    assert torch.equal(read[1], z.conj().resolve_conj())
    assert read[2].tolist() == [-2.0, 4.0]


def test_arrays_of_the_other_byte_order_keep_their_values(tmp_path: Path) -> None:
    read = from_files(written({"x": np.arange(4, dtype=">i4")}, tmp_path))["x"]
    assert read.dtype == np.dtype("i4")
    assert read.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2: {3, 4}}]}, "['x']['a'][1][2] is a builtins.set"),
        (lambda: None, "['x'] is a builtins.function"),
        ([torch.empty(2, device="meta")], "['x'][0] is a tensor of torch.float32, torch.strided, on meta"),
        (torch.eye(2).to_sparse(), "['x'] is a tensor of torch.float32, torch.sparse_coo"),
        ({"o": np.array(["a"], dtype=object)}, "['x']['o'] is an array of object"),
        (np.longdouble(1), "['x'] is a numpy.longdouble"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        to_files({"x": value})
    assert path in str(caught.value)


def test_a_tree_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="contains itself"):
        to_files({"x": loop})


@pytest.mark.parametrize("key", ["../x", "a/b", "", ".hidden", "a\nb"])
def test_a_key_that_would_leave_the_folder_may_hold_no_tensor(key: str) -> None:
    assert list(to_files({key: 1})) == ["state.json"]
    with pytest.raises(CheckpointError, match="no plain file name"):
        to_files({key: torch.ones(1)})


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"format":2,"state":{}}',
        '{"format":1,"state":{"x":{"$pickle":"gASV"}}}',
        '{"format":1,"state":{"x":{"$tensor":["../../etc","w"]}}}',
        '{"format":1,"state":{"x":{"$tensor":["gone","w"]}}}',
        '{"format":1,"state":[]}',
        "[" * 100_000,
    ],
)
def test_a_state_of_another_form_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        from_files(tmp_path)


def test_the_bytes_of_the_format_stand(tmp_path: Path) -> None:
    state = {"a": (1, 2**64, math.inf, b"x"), "m": {"w": torch.tensor([1.0])}, "s": {1: np.float32(1)}}
    folder = written(state, tmp_path)
    assert (folder / "state.json").read_text() == (
        '{"format":1,"state":{"a":{"$tuple":[1,{"$int":"0x10000000000000000"},{"$float":"7ff0000000000000"},'
        '{"$bytes":"eA=="}]},"m":{"w":{"$tensor":["m","w"]}},"s":{"$dict":[[1,{"$scalar":["float32","0000803f"]}]]}}}'
    )
    header = b'{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    header += b" " * (-len(header) % 8)
    expected = len(header).to_bytes(8, "little") + header + struct.pack("<f", 1)
    assert (folder / "m.safetensors").read_bytes() == expected
