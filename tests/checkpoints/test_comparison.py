"""What differs between two checkpoints, against numpy, torch and closed forms."""

import json
import math
import operator
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from qig_core.checkpoints import plain_state, pytree
from qig_core.checkpoints.catalog import look
from qig_core.checkpoints.comparison import STATE_PATHS, compare
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.stored import Opened, open_checkpoint, open_file
from qig_core.checkpoints.tensor_change import CHUNK
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.values import encode_basin


def put(run: RunDir, state: dict[str, Any], **facts: Any) -> Opened:
    asked = {"session": "5e55", "step": 1, "reason": "interval"} | facts
    found = look(run, publish(run, files=to_files(state), **asked).name)
    assert found is not None
    return open_checkpoint(found)


def outcome(a: Opened, b: Opened, *, everything: bool = False) -> dict[str, Any]:
    with a, b:
        *reports, last = compare(a, b, everything=everything)
    assert all(report.keys() == {"progress"} for report in reports)
    json.loads(msgspec.json.encode(last))
    return dict(last["result"])


def of_tensors(folder: Path, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The part `tensors` of the comparison of two files that the safetensors package wrote."""
    for name, tensors in (("a", a), ("b", b)):
        save_file(tensors, folder / f"{name}.safetensors")
    result = outcome(open_file(folder / "a.safetensors"), open_file(folder / "b.safetensors"), everything=True)
    return dict(result["tensors"])


def changed(folder: Path, a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
    (row,) = of_tensors(folder, {"w": a}, {"w": b})["changed"]
    return dict(row)


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    count = math.prod(shape)
    values = st.lists(st.floats(-3e4, 3e4, width=16), min_size=count, max_size=count)
    dtype = draw(st.sampled_from(FLOATS))
    a, b = (torch.tensor(draw(values), dtype=torch.float64).to(dtype).reshape(shape) for _ in range(2))
    return (a, a.clone()) if draw(st.booleans()) else (a, b)


@given(trees=st.dictionaries(st.text("abc.", min_size=1, max_size=4), pairs(), max_size=4))
@settings(deadline=None, max_examples=60)
def test_norms_and_changes_of_random_trees_are_those_that_numpy_finds(
    tmp_path_factory: pytest.TempPathFactory, trees: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    first, second = ({name: pair[side] for name, pair in trees.items()} for side in (0, 1))
    found = of_tensors(folder, first, second)
    rows = {row["name"]: row for row in (*found["changed"], *found["unchanged"])}
    assert rows.keys() == trees.keys()
    assert found["compared"] == len(trees)
    for name, (a, b) in trees.items():
        row, x, y = rows[name], a.double().numpy(), b.double().numpy()
        assert row["shape"] == list(a.shape)
        assert row["norm_a"] == pytest.approx(np.linalg.norm(x), rel=1e-12)
        assert row["norm_b"] == pytest.approx(np.linalg.norm(y), rel=1e-12)
        assert row["max_abs_change"] == np.abs(x - y).max(initial=0.0)
        width = {2: np.uint16, 4: np.uint32, 8: np.uint64}[a.element_size()]
        bits = (t.reshape(-1).view(torch.uint8).numpy().view(width) for t in (a, b))
        assert row["differing"] == np.count_nonzero(np.not_equal(*bits))
        if np.linalg.norm(x):
            relative = np.linalg.norm(x - y) / np.linalg.norm(x)
            assert row["relative_change"] == pytest.approx(relative, rel=1e-12, abs=0)
            assert row["reason"] is None
        else:
            assert (row["relative_change"], row["reason"]) == (None, "|A| is 0")


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_element_counts_in_a_tensor_of_several_chunks(tmp_path: Path, dtype: torch.dtype) -> None:
    a = torch.randn(2 * CHUNK // dtype.itemsize + 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    for at in (0, CHUNK // dtype.itemsize - 1, CHUNK // dtype.itemsize, len(a) - 1):
        b = a.clone()
        b[at] += 64
        row = changed(tmp_path, a, b)
        assert (row["elements"], row["differing"]) == (len(a), 1)
        assert row["max_abs_change"] == (b[at].double() - a[at].double()).item()
        assert row["norm_b"] == pytest.approx(b.double().norm().item(), rel=1e-12)
        assert row["relative_change"] == pytest.approx(row["max_abs_change"] / row["norm_a"], rel=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-310])
def test_norms_are_right_at_the_ends_of_the_range(tmp_path: Path, scale: float) -> None:
    a = torch.tensor([3.0, 4.0], dtype=torch.float64) * scale
    row = changed(tmp_path, a, 2 * a)
    assert row["norm_a"] == pytest.approx(5 * scale, rel=1e-9)
    assert row["relative_change"] == pytest.approx(1.0, rel=1e-9)


def test_what_leaves_the_range_has_a_reason_and_no_number(tmp_path: Path) -> None:
    a = torch.tensor([1.7e308], dtype=torch.float64)
    row = changed(tmp_path, a, -a)
    assert (row["relative_change"], row["max_abs_change"]) == (None, None)
    assert row["reason"] == "beyond the range of float64"
    assert row["norm_a"] == 1.7e308


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_are_not_finite_leave_no_norm_but_a_reason(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    sound, sick = torch.ones(3, dtype=dtype), torch.tensor([1, bad, 1]).to(dtype)
    for a, b, where in ((sound, sick, "B holds"), (sick, sound, "A holds"), (sick, 2 * sick, "A and B hold")):
        row = changed(tmp_path, a, b)
        assert (row["relative_change"], row["max_abs_change"]) == (None, None)
        assert row["reason"] == f"{where} values that are not finite"
    row = changed(tmp_path, sound, sick)
    assert row["norm_a"] == pytest.approx(math.sqrt(3))
    assert row["norm_b"] is None


def test_the_same_mask_on_both_sides_is_equal(tmp_path: Path) -> None:
    mask = torch.tensor([0.0, -math.inf, math.nan])
    found = of_tensors(tmp_path, {"mask": mask}, {"mask": mask.clone()})
    assert (found["equal"], found["changed"]) == (1, [])


def test_zero_and_minus_zero_differ_in_bits_and_by_nothing(tmp_path: Path) -> None:
    row = changed(tmp_path, torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert (row["differing"], row["relative_change"], row["max_abs_change"]) == (1, 0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_of_counted_types_the_differing_elements_are_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    a = torch.zeros(2, 5).to(dtype)
    b = a.clone()
    b[0, 3] = b[1, 1] = 1
    row = changed(tmp_path, a, b)
    assert (row["elements"], row["differing"], row["relative_change"]) == (10, 2, None)
    assert "counted" in row["reason"]


def test_a_complex_tensor_is_compared_by_its_parts(run: RunDir, tmp_path: Path) -> None:
    z = torch.tensor([3 + 4j, 1j])
    save_file({"z": z}, tmp_path / "z.safetensors")
    torch.save({"z": z.conj().resolve_conj()}, tmp_path / "z.pt")
    other = tmp_path / "z.safetensors"
    for first in (open_file(other), put(run, {"model": {"z": z}})):
        (row,) = outcome(first, open_file(tmp_path / "z.pt"))["tensors"]["changed"]
        assert (row["dtype"], row["shape"]) == ("F32", [2, 2])
        assert row["norm_a"] == pytest.approx(math.sqrt(26), rel=1e-12)
        assert row["max_abs_change"] == 8.0


def test_other_shapes_and_types_and_lone_tensors_are_listed(tmp_path: Path) -> None:
    one = torch.ones(2, 3)
    found = of_tensors(
        tmp_path,
        {name: one.clone() for name in ("same", "shape", "type", "gone")},
        {"same": one.clone(), "shape": torch.ones(3, 2), "type": one.half(), "new": torch.ones(1)},
    )
    assert [row["name"] for row in found["unchanged"]] == ["same"]
    assert {row["name"]: (row["a"], row["b"]) for row in found["retyped"]} == {
        "shape": ({"dtype": "F32", "shape": [2, 3]}, {"dtype": "F32", "shape": [3, 2]}),
        "type": ({"dtype": "F32", "shape": [2, 3]}, {"dtype": "F16", "shape": [2, 3]}),
    }
    assert found["only_a"] == [{"name": "gone", "dtype": "F32", "shape": [2, 3]}]
    assert found["only_b"] == [{"name": "new", "dtype": "F32", "shape": [1]}]
    assert (found["compared"], found["equal"], found["changed"]) == (1, 1, [])


def test_tied_weights_stand_under_both_names_and_are_read_once(run: RunDir) -> None:
    def tied(value: float) -> dict[str, Any]:
        weight = torch.full((4, 4), value)
        return {"model": {"wte.weight": weight, "head.weight": weight}}

    with put(run, tied(1.0)) as a, put(run, tied(2.0)) as b:
        first, last = compare(a, b)
    assert first == {"progress": {"done": 0, "total": 2 * 4 * 16}}
    names = [row["name"] for row in last["result"]["tensors"]["changed"]]
    assert sorted(names) == ["model:head.weight", "model:wte.weight"]


BASIN = np.zeros(64)
BASIN[:2] = 0.5
OTHER = np.zeros(64)
OTHER[1:3] = 0.5


def recorded(basin: np.ndarray) -> str:
    return encode_basin(basin.astype("<f4").tobytes())


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        (BASIN, BASIN, 0.0),
        (BASIN, OTHER, 2 * math.acos(0.5)),
        (BASIN, np.eye(64)[9], math.pi),
        (np.full(64, 1 / 64), np.eye(64)[0], 2 * math.acos(1 / 8)),
    ],
)
def test_basins_are_as_far_apart_as_the_closed_form_says(
    run: RunDir, p: np.ndarray, q: np.ndarray, expected: float
) -> None:
    a, b = (put(run, {"n": 1}, basin=recorded(basin)) for basin in (p, q))
    found = outcome(a, b)["basin"]
    assert found["reason"] is None
    assert found["distance_rad"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "said"),
    [
        (recorded(BASIN), None, "of B: it was not measured"),
        (None, None, "of A: it was not measured; of B: it was not measured"),
        (recorded(BASIN), recorded(BASIN[:32]), "64 places, of B 32"),
        ("no base64!", recorded(BASIN), "of A: it is none"),
        (recorded(-BASIN), recorded(BASIN), "of A: it is none"),
        (recorded(np.full(64, np.nan)), recorded(BASIN), "of A: it is none"),
    ],
)
def test_basins_that_cannot_be_compared_say_why(run: RunDir, p: str | None, q: str | None, said: str) -> None:
    a, b = (put(run, {"n": 1}, basin=basin) for basin in (p, q))
    found = outcome(a, b)["basin"]
    assert found["distance_rad"] is None
    assert said in found["reason"]


def test_metrics_conditions_and_facts_are_laid_side_by_side(run: RunDir) -> None:
    a = put(run, {"n": 1}, step=1, metrics={"loss": 2.0, "phi": 0.5}, conditions={"drift": "ok", "kappa": "ok"})
    b = put(
        run,
        {"n": 1},
        step=2,
        metrics={"loss": math.nan, "phi": 0.75, "kappa": 3.0},
        conditions={"drift": "critical", "kappa": "ok"},
        training_s=5.0,
        versions={"torch": "9"},
        git={"revision": "abc", "dirty": True},
        corpus_digest="c0",
    )
    result = outcome(a, b)
    assert {row["name"]: (row["a"], row["b"], row["difference"], row["nonfinite"]) for row in result["metrics"]} == {
        "loss": (2.0, None, None, {"b": "nan"}),
        "phi": (0.5, 0.75, 0.25, {}),
        "kappa": (None, 3.0, None, {}),
    }
    assert result["conditions"] == [{"id": "drift", "a": "ok", "b": "critical"}]
    facts = {row["name"]: (row["a"], row["b"]) for row in result["facts"]}
    assert operator.lt(*facts.pop("t"))
    assert facts == {
        "step": (1, 2),
        "training_s": (None, 5.0),
        "corpus_digest": ("", "c0"),
        "git": (None, "abc (changed)"),
        "version of torch": (None, "9"),
    }


def test_plain_state_is_compared_by_path(run: RunDir) -> None:
    w = torch.ones(1)
    a = {"same": [1, 2], "n": 1, "nan": math.nan, "of": {0: "x", "deep": (1, {"k": None})}, "list": [1], "t": {"w": w}}
    b = {"same": [1, 2], "n": 1.0, "nan": 0.5, "of": {0: "y", "deep": (1, {"k": 7})}, "list": (1,), "t": {}, "new": {}}
    result = outcome(put(run, a), put(run, b))
    state = result["state"]
    assert not result["equal"]
    assert not state["equal"]
    assert {row["path"]: (row["a"], row["b"]) for row in state["paths"]} == {
        "n": ("1", "1.0"),
        "nan": ("nan", "0.5"),
        "of.0": ('"x"', '"y"'),
        "of.deep.1.k": ("null", "7"),
        "list": ("1 values", "1 values"),
        "new": (None, "{}"),
    }
    assert state["differing"] == 6


def test_equal_plain_state_is_known_by_its_digest(run: RunDir) -> None:
    a, b = (put(run, {"model": {"w": torch.ones(2)}, "n": [1]}) for _ in range(2))
    result = outcome(a, b)
    assert result["state"] == {"equal": True, "differing": 0, "paths": []}
    assert result["equal"]


def test_of_many_differing_paths_some_are_named_and_all_counted(run: RunDir) -> None:
    state = outcome(put(run, {"n": list(range(50))}), put(run, {"n": list(range(1, 51))}))["state"]
    assert [row["path"] for row in state["paths"]] == [f"n.{i}" for i in range(STATE_PATHS)]
    assert state["differing"] == 50


def test_the_reader_of_plain_state_knows_the_format_that_is_written() -> None:
    assert plain_state.FORMAT == pytree.FORMAT


def test_a_file_is_compared_with_the_key_whose_tensors_it_has(run: RunDir, tmp_path: Path) -> None:
    weights = {"w": torch.ones(2), "b": torch.zeros(1)}
    ema = {"w": torch.full((2,), 3.0), "b": torch.ones(1), "decay": torch.ones(1)}
    state = {"model": weights, "ema": ema}
    save_file(weights, tmp_path / "model.safetensors")
    torch.save(ema, tmp_path / "ema.pt")
    save_file({f"{k}.{n}": t for k, of in state.items() for n, t in of.items()}, tmp_path / "all.safetensors")
    for name, key, count in (("model.safetensors", "model", 2), ("ema.pt", "ema", 3), ("all.safetensors", None, 5)):
        result = outcome(put(run, state), open_file(tmp_path / name))
        assert (result["key"], result["equal"], result["tensors"]["equal"]) == (key, True, count)
        turned = outcome(open_file(tmp_path / name), put(run, state), everything=True)
        assert (turned["key"], turned["equal"]) == (key, True)
        assert all(":" in row["name"] for row in turned["tensors"]["unchanged"])
        assert turned["metrics"] is turned["basin"] is turned["state"] is None


def test_a_state_dict_by_torch_is_compared_however_it_lies_in_memory(tmp_path: Path) -> None:
    w = torch.randn(300, 500, generator=torch.Generator().manual_seed(1))
    torch.save({"w": w.t(), "n": torch.tensor(3), "none": torch.empty(0, 4)}, tmp_path / "a.pt")
    save_file({"w": w.t().contiguous(), "n": torch.tensor(3), "none": torch.empty(0, 4)}, tmp_path / "b.safetensors")
    result = outcome(open_file(tmp_path / "a.pt"), open_file(tmp_path / "b.safetensors"))
    assert result["equal"]
    assert result["tensors"]["equal"] == 3


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_checkpoint_that_is_not_complete_by_a_look_is_refused(run: RunDir, damage: str) -> None:
    with put(run, {"model": {"w": torch.ones(2)}}) as opened:
        assert opened.manifest is not None
        path = run.checkpoint(opened.manifest.name)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1]) if damage == "cut" else weights.unlink()
    found = look(run, path.name)
    assert found is not None
    with pytest.raises(CheckpointError, match="it is TORN"):
        open_checkpoint(found)


@pytest.mark.parametrize("content", [b"", b"garbage, and more of it", b"\xff" * 30])
def test_a_bad_header_is_an_error_of_the_checkpoint(run: RunDir, tmp_path: Path, content: bytes) -> None:
    name = publish(run, session="s", step=1, reason="end", files={"model.safetensors": content}).name
    found = look(run, name)
    assert found is not None
    with pytest.raises(CheckpointError, match=r"model.safetensors' is no safetensors file"):
        open_checkpoint(found)
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        open_file(tmp_path / "x.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(4000)}, path)
    with open_file(path) as a, open_file(path) as b:
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(CheckpointError, match="cut short"):
            list(compare(a, b))


def test_names_that_are_no_unicode_come_through(tmp_path: Path) -> None:
    for name, value in (("a", b"\0\0\0\0"), ("b", b"\0\0\0\1")):
        header = b'{"w\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        (tmp_path / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + value)
    result = outcome(open_file(tmp_path / "a.safetensors"), open_file(tmp_path / "b.safetensors"))
    assert [row["name"] for row in result["tensors"]["changed"]] == ["w\\ud800"]


def test_memory_stays_at_some_chunks_whatever_the_size(tmp_path: Path) -> None:
    size = 100 << 20
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    for name in "ab":
        with open(tmp_path / f"{name}.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)  # a hole takes no disk
    with open(tmp_path / "b.safetensors", "r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x80\x3f")
    tracemalloc.start()
    result = outcome(open_file(tmp_path / "a.safetensors"), open_file(tmp_path / "b.safetensors"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (row,) = result["tensors"]["changed"]
    assert (row["differing"], row["norm_b"], row["max_abs_change"], row["reason"]) == (1, 1.0, 1.0, "|A| is 0")
    assert peak < 20 * CHUNK


def test_comparing_loads_no_torch(run: RunDir, tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        put(run, {"model": {"w": torch.full((2,), value)}})
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    code = (
        "import sys; from pathlib import Path; from qig_core.checkpoints.catalog import list_checkpoints;"
        "from qig_core.checkpoints.comparison import compare;"
        "from qig_core.checkpoints.stored import open_checkpoint, open_file;"
        "from qig_core.rundir.layout import RunDir;"
        f"a, b = map(open_checkpoint, list_checkpoints(RunDir({str(run.path)!r})));"
        f"f = open_file(Path({str(tmp_path / 'w.safetensors')!r}));"
        "print([list(compare(x, y))[-1]['result']['equal'] for x, y in ((a, b), (b, f))]);"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, True]"
