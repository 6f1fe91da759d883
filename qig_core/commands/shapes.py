"""Whether a checkpoint holds tensors of the names, types and shapes that another of its run holds. Reads headers."""

from collections.abc import Mapping, Sequence
from typing import Any

from qig_core.checkpoints.catalog import Found, list_checkpoints, look
from qig_core.checkpoints.stored import open_checkpoint
from qig_core.errors import CheckpointError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.values import without_surrogates

Row = dict[str, Any]
_Tensors = Mapping[tuple[str, str], tuple[str, tuple[int, ...]]]
_NAMED = 5
"""Tensors that are named, at most."""


def add_shapes(run: RunDir, rows: Sequence[Row]) -> None:
    """Put under `shapes` of each verified row that is COMPLETE what a look at its headers shows; null for the others.

    Keys: tensors (how many), beside (the checkpoint they are compared with: the newest other whole one; null where
    there is none), differing (sentences, the first of them), reason (why nothing could be compared, or null).

    Raises:
        CheckpointError: the checkpoints cannot be listed.
    """
    known: dict[str, _Tensors | str] = {}
    damaged = {row["name"] for row in rows if row["status"] != "COMPLETE"}
    whole = [found for found in list_checkpoints(run) if found.status == "COMPLETE" and found.name not in damaged]
    for row in rows:
        row["shapes"] = None
        found = look(run, row["name"]) if row["status"] == "COMPLETE" else None
        if found is not None:
            other = next((one for one in whole if one.name != found.name), None)
            row["shapes"] = without_surrogates(_compared(found, other, known))


def _compared(found: Found, other: Found | None, known: dict[str, _Tensors | str]) -> Row:
    ours = _tensors(found, known)
    if isinstance(ours, str):
        return {"tensors": None, "beside": None, "differing": [], "reason": ours}
    if other is None:
        return {"tensors": len(ours), "beside": None, "differing": [], "reason": "there is no other whole checkpoint"}
    theirs = _tensors(other, known)
    if isinstance(theirs, str):
        return {"tensors": len(ours), "beside": None, "differing": [], "reason": theirs}
    return {"tensors": len(ours), "beside": other.name, "differing": _differing(ours, theirs), "reason": None}


def _tensors(found: Found, known: dict[str, _Tensors | str]) -> _Tensors | str:
    """By (KEY, NAME) type and shape; or why they cannot be read."""
    if found.name not in known:
        try:
            with open_checkpoint(found) as opened:
                known[found.name] = {at: (one.dtype, one.shape) for at, one in opened.tensors.items()}
        except CheckpointError as error:
            known[found.name] = str(error)
    return known[found.name]


def _differing(ours: _Tensors, theirs: _Tensors) -> list[str]:
    said = []
    for at in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(at), theirs.get(at)
        if here != there:
            said.append(f"{':'.join(at)} is {_words(here)}, there {_words(there)}")
    more = len(said) - _NAMED
    return said[:_NAMED] + ([f"and {more} more"] if more > 0 else [])


def _words(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if tensor is None else f"{tensor[0]} {list(tensor[1])}"
