"""What differs between saved and wanted tensors is said whole, before anything is touched; what fits is copied."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qig_core.checkpoints.foreign import read_weights
from qig_core.checkpoints.partial import compare, load_into
from qig_core.errors import CheckpointError, UsageError


class Part(torch.nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 4)
        self.norm = torch.nn.BatchNorm1d(4)


class Whole(torch.nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.encoder = Part(width)
        self.head = torch.nn.Linear(4, 2)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.wte.weight


def before(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def same(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    now = module.state_dict()
    return now.keys() == state.keys() and all(torch.equal(now[name], state[name]) for name in state)


def test_what_fits_wholly_is_loaded_as_torch_does(tmp_path: Any) -> None:
    source, ours, theirs = Whole(), Whole(), Whole()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    saved = read_weights(tmp_path / "w.pt")
    found = load_into(ours, saved)
    theirs.load_state_dict(saved)
    assert found.none
    assert found.text() == f"nothing differs in {len(saved)} tensors"
    assert set(found.matching) == set(saved)
    assert same(ours, before(theirs))
    assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in ours.parameters())


NAMES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), max_size=6)


@given(saved=NAMES, wanted=NAMES)
def test_missing_and_unexpected_are_those_that_torch_names(saved: dict[str, int], wanted: dict[str, int]) -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, size in wanted.items():
                self.register_buffer(name, torch.zeros(size))

    given_tensors = {name: torch.ones(size) for name, size in saved.items()}
    module = Holder()
    found = load_into(module, given_tensors, strict=False)
    fitting = {name: tensor for name, tensor in given_tensors.items() if wanted.get(name, len(tensor)) == len(tensor)}
    theirs = Holder().load_state_dict(fitting, strict=False)
    mismatched = {row.name for row in found.mismatched}
    assert set(found.missing) == set(theirs.missing_keys) - mismatched
    assert set(found.unexpected) == set(theirs.unexpected_keys)
    assert mismatched == {name for name in saved.keys() & wanted.keys() if saved[name] != wanted[name]}
    assert {*found.matching, *mismatched, *found.missing} == wanted.keys()
    assert all(tensor.eq(float(name in found.matching)).all() for name, tensor in module.state_dict().items())


def test_strict_touches_nothing_where_anything_differs() -> None:
    target = Whole()
    state = before(target)
    for change, said in (
        ({"head.bias": None}, "1 missing: head.bias"),
        ({"extra": torch.ones(1)}, "1 unexpected: extra"),
        ({"head.bias": torch.ones(3)}, r"head\.bias: another shape, saved float32 \[3\], wanted float32 \[2\]"),
        ({"head.bias": torch.ones(2).half()}, r"head\.bias: another type.*saved float16 \[2\], wanted float32 \[2\]"),
    ):
        saved = {**before(Whole()), **change}
        saved = {name: tensor for name, tensor in saved.items() if tensor is not None}
        with pytest.raises(CheckpointError, match=said):
            load_into(target, saved)
        assert same(target, state)


def test_without_strict_what_fits_is_copied_and_the_rest_is_said() -> None:
    target, other = Whole(width=3), Whole(width=5)
    state = before(target)
    saved = before(other) | {"extra": torch.ones(1)}
    del saved["head.weight"]
    found = load_into(target, saved, strict=False)
    assert not found.none
    assert found.missing == ("head.weight",)
    assert found.unexpected == ("extra",)
    (row,) = found.mismatched
    assert (row.name, row.saved, row.wanted) == (
        "encoder.linear.weight",
        ((4, 5), torch.float32),
        ((4, 3), torch.float32),
    )
    assert found.text().splitlines() == [
        "1 missing: head.weight",
        "1 unexpected: extra",
        "1 not alike: encoder.linear.weight: another shape, saved float32 [4, 5], wanted float32 [4, 3]",
    ]
    now = target.state_dict()
    for name in ("head.weight", "encoder.linear.weight"):
        assert torch.equal(now[name], state[name])
    for name in found.matching:
        assert torch.equal(now[name], saved[name])
    assert len(found.matching) + 2 == len(now)


def test_a_long_list_names_some_and_counts_the_rest() -> None:
    found = compare({}, {f"w{i:03}": torch.ones(1) for i in range(100)})
    assert found.text() == "100 missing: w000, w001, w002, w003, w004, w005, w006, w007 and 92 more"


@pytest.mark.parametrize("saved", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_another_float_type_is_converted_and_reported(saved: torch.dtype, wanted: torch.dtype) -> None:
    values = torch.tensor([0.1, -3.5, math.inf]).to(saved)
    target = {"w": torch.zeros(3, dtype=wanted)}
    found = load_into(target, {"w": values}, strict=False)
    assert found.none is (saved is wanted)
    assert [row.converts for row in found.mismatched] == [True] * (saved is not wanted)
    assert torch.equal(target["w"], values.to(wanted))


def test_values_that_the_other_type_cannot_hold_are_not_made_infinite() -> None:
    target = {"w": torch.zeros(2, dtype=torch.float16), "b": torch.zeros(2, dtype=torch.float16)}
    found = load_into(target, {"w": torch.tensor([1.0, 1e5]), "b": torch.ones(2)}, strict=False)
    assert [(row.name, row.converts) for row in found.mismatched] == [("w", False), ("b", True)]
    assert "beyond the range" in found.text()
    assert (target["w"].tolist(), target["b"].tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize(
    ("saved", "wanted"),
    [
        (torch.int64, torch.float32),
        (torch.float32, torch.int64),
        (torch.int32, torch.int64),
        (torch.bool, torch.uint8),
        (torch.complex64, torch.float32),
        (torch.complex64, torch.complex128),
    ],
)
def test_other_types_are_never_converted(saved: torch.dtype, wanted: torch.dtype) -> None:
    target = {"w": torch.zeros(2, dtype=wanted)}
    found = load_into(target, {"w": torch.ones(2, dtype=saved)}, strict=False)
    assert [(row.reason, row.converts) for row in found.mismatched] == [("another type", False)]
    assert not target["w"].any()


@pytest.mark.parametrize("prefix", ["encoder.", "encoder"])
def test_a_prefix_takes_the_part_below_it(prefix: str) -> None:
    source, target = Whole(), Part()
    saved = before(source) | {"encoder2.linear.weight": torch.ones(1), "encoder": torch.ones(1)}
    assert load_into(target, saved, prefix=prefix).none
    assert same(target, before(source.encoder))
    assert compare(saved, target.state_dict(), prefix=prefix).none


def test_a_part_goes_into_a_part() -> None:
    source, target = Whole(), torch.nn.ModuleDict({"backbone": Part(), "other": Part()})
    untouched = before(target["other"])
    assert load_into(target, before(source), prefix="encoder.", into="backbone.").none
    assert same(target["backbone"], before(source.encoder))
    assert same(target["other"], untouched)


def test_a_prefix_that_nothing_has_names_the_nearest() -> None:
    saved = before(Whole())
    with pytest.raises(UsageError, match=r"no saved name begins with 'encodr\.'; the nearest are 'encoder\.'"):
        load_into(Part(), saved, prefix="encodr")
    with pytest.raises(UsageError, match=r"no target's name begins with 'hed\.'; the nearest are 'head\.'"):
        load_into(Whole(), saved, into="hed.")
    with pytest.raises(UsageError, match="no name there has a prefix"):
        compare({"w": torch.ones(1)}, {}, prefix="x")


def test_tied_weights_are_copied_once_and_stay_tied() -> None:
    source, target = Tied(), Tied()
    weight = target.wte.weight
    version = weight._version
    assert load_into(target, source.state_dict()).none
    assert target.head.weight is target.wte.weight is weight
    assert weight._version == version + 1
    assert torch.equal(weight, source.wte.weight)


@pytest.mark.parametrize("name", ["wte.weight", "head.weight"])
def test_one_name_of_a_tied_weight_is_enough(name: str) -> None:
    target, saved = Tied(), torch.randn(5, 3)
    assert load_into(target, {name: saved}).none
    assert torch.equal(target.head.weight, saved)


def test_two_saved_tensors_for_one_tied_weight_are_a_difference() -> None:
    target = Tied()
    state = before(target)
    saved = {"wte.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)}
    with pytest.raises(CheckpointError, match=r"head\.weight: one tensor with wte\.weight in what is wanted"):
        load_into(target, saved)
    assert same(target, state)
    load_into(target, saved, strict=False)
    assert torch.equal(target.wte.weight, saved["wte.weight"])
    alike = {name: torch.full((5, 3), math.nan) for name in saved}
    assert load_into(target, alike).none


def test_a_dict_of_tensors_is_filled_in_place() -> None:
    target = {"a": torch.zeros(2), "b": torch.zeros(()), "none": torch.zeros(0)}
    held = target["a"]
    assert load_into(target, {"a": torch.ones(2), "b": torch.tensor(5.0), "none": torch.zeros(0)}).none
    assert (held.tolist(), target["b"].item()) == ([1, 1], 5)


def test_a_target_without_memory_is_refused() -> None:
    for target in (torch.nn.Linear(2, 2, device="meta"), torch.nn.LazyLinear(2)):
        with pytest.raises(UsageError, match="has no memory yet"):
            load_into(target, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})


def test_a_module_that_gives_copies_of_its_tensors_is_refused() -> None:
    module = torch.nn.Linear(2, 2)
    module.register_state_dict_post_hook(
        lambda _module, state, _prefix, _meta: state.update({name: tensor.clone() for name, tensor in state.items()})
    )
    with pytest.raises(UsageError, match="copying would be lost"):
        load_into(module, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})


def test_what_a_module_adds_to_its_state_itself_is_left_to_it() -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> torch.Tensor:
            return torch.ones(1)

        def set_extra_state(self, state: Any) -> None: ...

    assert load_into(Extra(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}).none


def test_buffers_that_are_not_kept_are_not_wanted() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    module.register_buffer("mask", torch.ones(1), persistent=False)
    module.register_buffer("mean", torch.ones(1))
    assert load_into(module, {"weight": torch.ones(1, 1), "mean": torch.zeros(1)}).none
    assert (module.get_buffer("mask").item(), module.get_buffer("mean").item()) == (1, 0)


def test_names_that_a_wrapper_has_put_something_before_are_seen_through() -> None:
    model = torch.nn.Linear(2, 2)
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    assert "prefix='module.' would match" in load_into(model, wrapped, strict=False).text()
    assert "would match" not in load_into(model, wrapped, prefix="module.").text()
