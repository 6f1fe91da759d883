"""Tensors under names put into a model that may not have just these: what differs is said, and what fits is copied.

Nothing is read from a disk here, and no name is guessed: a part is taken by its prefix.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch

from qig_core.checkpoints.foreign import memory_of
from qig_core.errors import CheckpointError, UsageError

_NAMED = 8
"""Names of each kind in a text, at most."""
_NEAREST = 3
_EXTRA = "_extra_state"
"""What a module adds to its state_dict itself; only load_state_dict puts it back."""

Target = torch.nn.Module | Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One tensor that both have, not alike."""

    name: str
    saved: tuple[tuple[int, ...], torch.dtype]
    wanted: tuple[tuple[int, ...], torch.dtype]
    converts: bool
    """Whether it can be copied all the same: floats of one shape whose values the other type can hold."""
    reason: str
    """What keeps it from being copied as it is."""

    def __str__(self) -> str:
        (shape, dtype), (other, kind) = self.saved, self.wanted
        return f"{self.name}: {self.reason}, saved {_kind(shape, dtype)}, wanted {_kind(other, kind)}"


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What keeps saved tensors from being just the wanted ones."""

    matching: tuple[str, ...]
    """Both have it, with the same shape and type."""
    missing: tuple[str, ...]
    """Wanted and not saved, not even under another name of the same memory."""
    unexpected: tuple[str, ...]
    """Saved and not wanted."""
    mismatched: tuple[Mismatch, ...]

    @property
    def none(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.unexpected or self.mismatched)

    def lines(self) -> list[str]:
        """One line for each kind of difference, then one for each tensor that does not match."""
        lines = [
            f"{len(names)} {kind}: {_some(names)}"
            for kind, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        if self.mismatched:
            lines.append(f"{len(self.mismatched)} not alike: {_some(map(str, self.mismatched), '; ')}")
        if not self.matching and (prefix := self._likely_prefix()):
            lines.append(f"prefix={prefix!r} would match")
        return lines or [f"nothing differs in {len(self.matching)} tensors"]

    def _likely_prefix(self) -> str:
        """What stands before the wanted names in the saved ones: a wrapper's, or the table that they were saved in."""
        missing = set(self.missing)
        for name in self.unexpected:
            for at, letter in enumerate(name):
                if letter == "." and name[at + 1 :] in missing:
                    return name[: at + 1]
        return ""

    def text(self) -> str:
        """A list for people: at most some names of each kind, and how many more."""
        return "\n".join(self.lines())


def compare(saved: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], *, prefix: str = "") -> Differences:
    """What differs between saved tensors and those of a model; neither is changed.

    Args:
        prefix: only the saved names under it, without it: "encoder." (or "encoder") takes "encoder.layer.weight" as
            "layer.weight".

    Raises:
        UsageError: a prefix that no saved name has; the nearest are named.
    """
    return _compare(_under(saved, prefix, "saved"), wanted)


def load_into(
    target: Target, saved: Mapping[str, torch.Tensor], *, strict: bool = True, prefix: str = "", into: str = ""
) -> Differences:
    """Copy saved tensors into those of a model, in place; tied weights once.

    Args:
        target: a module (its parameters and buffers as in its state_dict), or tensors by name.
        strict: refuse where anything differs. Else what fits is copied: the same shape and type, or floats of another
            type, converted where their values fit; they stand among the mismatched.
        prefix: of the saved names, as for `compare`.
        into: of the target's names, likewise: only these are wanted.

    Returns:
        What differed.

    Raises:
        CheckpointError: strict, and something differs; nothing has been touched.
        UsageError: a prefix that no name has, a target without memory (on the meta device, lazy), or a module whose
            state_dict does not give its own tensors.
    """
    tensors = _tensors_of(target) if isinstance(target, torch.nn.Module) else target
    wanted = _under(tensors, into, "target's")
    source = _under(saved, prefix, "saved")
    for name, tensor in wanted.items():
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise UsageError(f"tensor {name!r} of the target has no memory yet: make the model on a device first")
    found = _compare(source, wanted)
    if strict and not found.none:
        raise CheckpointError(f"the saved tensors are not those of the target: {'; '.join(found.lines())}")
    done = set()
    with torch.no_grad():
        for name in (*found.matching, *(row.name for row in found.mismatched if row.converts)):
            if (memory := memory_of(wanted[name])) not in done:
                wanted[name].copy_(source[name])
                done.add(memory)
    return found


def _tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    tensors = {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, torch.Tensor) and name.rpartition(".")[2] != _EXTRA
    }
    for name, tensor in tensors.items():
        if id(tensor) not in own:
            raise UsageError(f"the module's state_dict gives no parameter or buffer as {name!r}: copying would be lost")
    return tensors


def _compare(saved: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> Differences:
    matching, mismatched = [], []
    given: dict[object, str] = {}  # memory of what is wanted, to the name whose saved tensor it takes
    for name, tensor in wanted.items():
        if name not in saved:
            continue
        row = _mismatch(name, saved[name], tensor)
        first = given.get(memory_of(tensor))
        if first is not None and (row is None or row.converts) and not _equal(saved[name], saved[first]):
            row = _row(
                name, saved[name], tensor, f"one tensor with {first} in what is wanted, another in what is saved"
            )
        if row is None or row.converts:
            given.setdefault(memory_of(tensor), name)
        if row is None:
            matching.append(name)
        else:
            mismatched.append(row)
    return Differences(
        matching=tuple(matching),
        missing=tuple(name for name, tensor in wanted.items() if name not in saved and memory_of(tensor) not in given),
        unexpected=tuple(name for name in saved if name not in wanted),
        mismatched=tuple(mismatched),
    )


def _mismatch(name: str, saved: torch.Tensor, wanted: torch.Tensor) -> Mismatch | None:
    if saved.shape != wanted.shape:
        return _row(name, saved, wanted, "another shape")
    if saved.dtype == wanted.dtype:
        return None
    if not (saved.is_floating_point() and wanted.is_floating_point()):
        return _row(name, saved, wanted, "another type")
    if not torch.equal(_finite(saved.detach().to(wanted.dtype)), _finite(saved.detach())):
        return _row(name, saved, wanted, "values beyond the range of the other type")
    return _row(name, saved, wanted, "another type, converted where that is asked for", converts=True)


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(tensor if tensor.element_size() >= 4 else tensor.float())


def _row(name: str, saved: torch.Tensor, wanted: torch.Tensor, reason: str, converts: bool = False) -> Mismatch:
    return Mismatch(
        name=name,
        saved=(tuple(saved.shape), saved.dtype),
        wanted=(tuple(wanted.shape), wanted.dtype),
        converts=converts,
        reason=reason,
    )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both hold the same, NaN in the same places too."""
    if a is b or memory_of(a) == memory_of(b):
        return True
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _under(tensors: Mapping[str, torch.Tensor], prefix: str, whose: str) -> Mapping[str, torch.Tensor]:
    """Those whose name lies under a prefix, without it."""
    if not prefix:
        return tensors
    whole = prefix if prefix.endswith(".") else f"{prefix}."
    found = {name.removeprefix(whole): tensor for name, tensor in tensors.items() if name.startswith(whole)}
    if not found:
        parts = [name.split(".") for name in tensors]
        there = dict.fromkeys(".".join(part[:n]) + "." for part in parts for n in range(1, len(part)))
        nearest = get_close_matches(whole, there, _NEAREST, cutoff=0.0)
        hint = f"; the nearest are {', '.join(map(repr, nearest))}" if nearest else "; no name there has a prefix"
        raise UsageError(f"no {whose} name begins with {whole!r}{hint}")
    return found


def _kind(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _some(names: Iterable[str], between: str = ", ") -> str:
    every = list(names)
    rest = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return between.join(every[:_NAMED]) + rest
