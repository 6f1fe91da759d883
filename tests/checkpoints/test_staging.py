"""The copy of a state: byte for byte what would have been written, and untouched by what comes after."""

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.staging import Stage
from qig_core.errors import CheckpointError


def contents(state: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: file if isinstance(file, bytes) else b"".join(file) for name, file in to_files(state).items()}


DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
DTYPES += [torch.float8_e5m2, torch.complex64, torch.complex128]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    values = torch.randn(*shape, 2, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) * 4
    tensor = torch.view_as_complex(values).to(dtype) if dtype.is_complex else values[..., 0].to(dtype)
    for change in draw(st.lists(st.sampled_from(["transpose", "stride", "conj", "imag", "parameter"]), max_size=3)):
        if change == "transpose" and tensor.dim() > 1:
            tensor = tensor.transpose(0, -1)
        elif change == "stride" and tensor.dim():
            tensor = tensor[::2]
        elif change == "conj":
            tensor = tensor.conj()
        elif change == "imag" and tensor.is_complex():
            tensor = tensor.conj().imag  # negative by a flag, and every other element
        elif change == "parameter" and tensor.is_floating_point() and tensor.dtype != torch.float8_e5m2:
            tensor = torch.nn.Parameter(tensor)
    return tensor


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(["u1", "<i8", ">i4", "<f4", ">f8", "c8", ">c16", "bool"])))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 200, shape).astype(dtype)
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    return array[::-2] if array.ndim and draw(st.booleans()) else array


PLAIN = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=4)
TREES = st.recursive(
    tensors() | tensors() | arrays() | PLAIN,
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), child, max_size=3),
    max_leaves=8,
)
STATES = st.dictionaries(st.sampled_from(["model", "optimizer", "ema", "rng"]), TREES, max_size=4)


@settings(max_examples=120, deadline=None)
@given(STATES, STATES)
def test_a_copy_is_byte_for_byte_what_would_be_written(first: dict[str, Any], second: dict[str, Any]) -> None:
    stage = Stage()
    for state in (first, first, second, first):
        assert contents(stage.take(state)) == contents(state)


def test_a_copy_does_not_change_with_the_originals() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    model = {"w": weight, "t": weight.T, "tied": weight, "half": weight.bfloat16(), "z": weight.to(torch.cfloat)}
    data = {"order": np.arange(6), "columns": np.asfortranarray(np.ones((2, 3)))}
    groups = [{"lr": 0.1, "betas": (0.9, [0.95])}]
    state = {"model": model, "data": data, "optimizer": {"param_groups": groups}}
    before = contents(state)
    taken = Stage().take(state)
    for tensor in (weight, model["half"], model["z"]):
        tensor.add_(1)
    data["order"] += 1
    data["columns"] *= 2
    groups[0]["lr"] = 0.05
    groups[0]["betas"][1].append(7)  # type: ignore[index]
    groups.append({})
    model["more"] = weight
    del state["optimizer"]
    assert contents(taken) == before
    assert contents(taken) == before, "it can be written twice"


def test_what_is_one_stays_one() -> None:
    weight, order = torch.ones(1000), np.arange(500)
    model = {"a": weight, "b": weight, "c": weight.clone()}
    taken = Stage().take({"model": model, "data": [order, order]})
    assert taken["model"]["a"] is taken["model"]["b"] is not taken["model"]["c"]
    assert taken["data"][0] is taken["data"][1]
    assert len(contents(taken)["model.safetensors"]) < 2.1 * weight.nbytes


def test_one_element_of_a_slice_is_copied_and_written() -> None:
    state = {"model": {"every": torch.arange(3.0)[::7], "column": torch.ones(1, 5)[:, 2], "none": torch.ones(0)[::2]}}
    assert contents(Stage().take(state)) == contents(state)


def test_tables_of_every_kind_are_copied() -> None:
    state = {"o": OrderedDict(b=torch.ones(2), a=1), "d": defaultdict(dict, {3: {"x": torch.zeros(1)}})}
    taken = Stage().take(state)
    assert contents(taken) == contents(state)
    state["o"]["c"] = 2
    state["d"][3]["x"] = 5
    assert contents(taken) != contents(state)


def pointers(taken: Mapping[str, Any]) -> list[int]:
    return [tensor.data_ptr() for part in taken.values() for tensor in part.values()]


def test_memory_is_used_again_and_made_anew_for_another_shape_or_type() -> None:
    stage = Stage()
    state = {"model": {"a": torch.zeros(100), "b": torch.zeros(3)}, "ema": {"a": torch.zeros(100)}}
    first = pointers(stage.take(state))
    state["model"]["a"].add_(5.0)
    assert pointers(stage.take(state)) == first
    state["model"]["a"] = torch.zeros(5000)
    taken = stage.take(state)
    assert contents(taken) == contents(state)
    second = pointers(taken)
    assert (second[0] == first[0], second[1:]) == (False, first[1:])
    state["model"]["b"] = torch.zeros(3, dtype=torch.int32)
    third = stage.take(state)
    assert contents(third) == contents(state)
    assert pointers(stage.take(state)) == pointers(third)


def test_what_is_gone_gives_its_memory_back() -> None:
    stage = Stage()
    state = {"model": {"w": torch.zeros(4)}, "ema": {"w": torch.zeros(8)}}
    taken = stage.take(state)
    kept, gone = weakref.ref(taken["model"]["w"]), weakref.ref(taken["ema"]["w"])
    state["ema"] = {"decay": torch.zeros(())}
    taken = stage.take(state)
    assert kept() is not None
    assert gone() is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (object(), r"state\['model'\]\['w'\] is a builtins.object"),
        (torch.ones(2).to_sparse(), r"state\['model'\]\['w'\] is a tensor of torch.float32, torch.sparse_coo"),
        (np.array(["x"]), "an array of <U1"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_the_same_words_and_the_memory_stays_of_use(bad: Any, why: str) -> None:
    stage = Stage()
    good = {"model": {"v": torch.ones(4)}}
    first = pointers(stage.take(good))
    with pytest.raises(CheckpointError, match=why):
        to_files(stage.take({"model": {"v": torch.ones(4), "w": bad}}))
    assert pointers(stage.take(good)) == first


def test_a_state_that_contains_itself_is_refused() -> None:
    around: dict[str, Any] = {}
    around["around"] = around
    with pytest.raises(CheckpointError, match="contains itself"):
        Stage().take({"model": around})
