"""In what two checkpoints, or files of weights, differ, as plain data that JSON can hold. No rendering, no torch.

Nothing is verified: bytes are taken as they are, once, in chunks. Basins are points of the probability simplex and are
compared by their Fisher–Rao distance alone.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from qig_core.checkpoints.plain_state import differing, read_state
from qig_core.checkpoints.stored import STATE, Opened, StoredTensor
from qig_core.checkpoints.tensor_change import Change, measure
from qig_core.errors import SimplexError
from qig_core.geometry.simplex import Basin, FloatArray, fisher_rao_distance, normalise
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.values import decode_basin, without_surrogates

Row = dict[str, Any]

STATE_PATHS = 20
"""Differing paths of plain state that are named, at most."""
WEIGHTS = "model"
"""The key that holds what is compared with, and exported as, a file of weights."""

_PROGRESS_BYTES = 64 << 20
_FACTS = ("step", "t", "training_s", "reason", "regime", "config_digest", "corpus_digest")


def compare(a: Opened, b: Opened, *, everything: bool = False) -> Iterator[Row]:
    """Compare: {"progress": {"done", "total"}} (bytes of both) as it goes, at last {"result": {...}}.

    result:
        a, b: what was compared; key: of a checkpoint beside a file, the key whose tensors the file has; else null.
        equal: whether the tensors and the plain state are the same, bit by bit.
        tensors: compared, equal (counts), changed, retyped (shape or type), only_a, only_b (rows) and, with
            `everything`, unchanged (rows). A row: name (FILE:TENSOR, as in a verification), dtype, shape, and of
            those compared every field of `tensor_change.Change`.
        basin: distance_rad, or null and a reason. metrics: name, a, b, difference (b - a), nonfinite.
        conditions: id, a, b, where they differ. facts: name, a, b, where they differ.
        state: equal, differing (count), paths (path, a, b; the first STATE_PATHS).
        These last five are null beside a file, which has no such things.

    Raises:
        CheckpointError: a file cannot be read, or is of another form.
    """
    tensors: Row = {}
    key, left, right = _by_name(a, b)
    for report in _compare_tensors(left, right, everything):
        if "result" in report:
            tensors = report["result"]
        else:
            yield report
    result: Row = {"a": a.label, "b": b.label, "key": key, "tensors": tensors}
    result |= dict.fromkeys(("basin", "metrics", "conditions", "facts", "state"))
    equal = len(left) == len(right) == tensors["equal"]
    if a.manifest is not None and b.manifest is not None:
        result |= _compare_manifests(a.manifest, b.manifest)
        result["state"] = _compare_state(a, b, a.manifest, b.manifest)
        equal = equal and result["state"]["equal"]
    yield {"result": without_surrogates({**result, "equal": equal})}


def basin_of(manifest: CheckpointManifest) -> tuple[Basin | None, str | None]:
    """The basin of a checkpoint, its sum 1 in float64; or None, and why there is none."""
    if manifest.basin is None:
        return None, "it was not measured"
    try:
        raw: FloatArray = np.frombuffer(decode_basin(manifest.basin), dtype="<f4").astype(np.float64)
        return Basin(normalise(raw)), None
    except (ValueError, SimplexError) as error:
        return None, f"it is none: {error}"


def _by_name(a: Opened, b: Opened) -> tuple[str | None, dict[str, StoredTensor], dict[str, StoredTensor]]:
    """Both sides by comparable names, and the key that was chosen where only one of them has keys."""
    if (a.manifest is None) == (b.manifest is None):
        left, right = ({_shown(*at): tensor for at, tensor in side.tensors.items()} for side in (a, b))
        return None, left, right
    whole, file = (b, a) if a.manifest is None else (a, b)
    names = {name for _, name in file.tensors}
    # A file has the tensors of one key under their names, or (export --all) those of all as KEY.NAME.
    keys = sorted({key for key, _ in whole.tensors}, key=lambda key: (key != WEIGHTS, key))
    joined = {at: ".".join(at) for at in whole.tensors}
    found = {key: sum(key == of and name in names for of, name in whole.tensors) for key in keys}
    best = max(keys, key=found.__getitem__, default=None)
    if best is None or found[best] < sum(name in names for name in joined.values()):
        back = {name: _shown(*at) for at, name in joined.items()}
        ours = {_shown(*at): tensor for at, tensor in whole.tensors.items()}
        theirs = {back.get(name, name): tensor for (_, name), tensor in file.tensors.items()}
        best = None
    else:
        ours = {_shown(*at): tensor for at, tensor in whole.tensors.items() if at[0] == best}
        theirs = {_shown(best, name): tensor for (_, name), tensor in file.tensors.items()}
    return (best, theirs, ours) if a.manifest is None else (best, ours, theirs)


def _shown(key: str, name: str) -> str:
    return f"{key}:{name}" if key else name


def _compare_tensors(
    a: Mapping[str, StoredTensor], b: Mapping[str, StoredTensor], everything: bool
) -> Iterator[dict[str, Any]]:
    both = [name for name in a if name in b]
    alike = [name for name in both if (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)]
    pairs = {(a[name].place, b[name].place): name for name in alike}  # tied weights are read once
    total = sum(2 * a[name].nbytes for name in pairs.values())
    done = said = 0
    yield {"progress": {"done": 0, "total": total}}
    changes: dict[Any, Change] = {}
    for places, name in pairs.items():
        steps = measure(a[name], b[name])
        while True:
            try:
                done += next(steps)
            except StopIteration as stop:
                changes[places] = stop.value
                break
            if done - said >= _PROGRESS_BYTES:
                said = done
                yield {"progress": {"done": done, "total": total}}
    rows = [(changes[a[name].place, b[name].place], name) for name in alike]
    result: Row = {
        "compared": len(alike),
        "equal": sum(change.equal for change, _ in rows),
        "changed": [_change_row(name, a[name], change) for change, name in rows if not change.equal],
        "retyped": [
            {"name": name, "a": _type_row(a[name]), "b": _type_row(b[name])} for name in both if name not in set(alike)
        ],
        "only_a": [{"name": name, **_type_row(a[name])} for name in a if name not in b],
        "only_b": [{"name": name, **_type_row(b[name])} for name in b if name not in a],
    }
    if everything:
        result["unchanged"] = [_change_row(name, a[name], change) for change, name in rows if change.equal]
    yield {"result": result}


def _type_row(tensor: StoredTensor) -> Row:
    return {"dtype": tensor.dtype, "shape": list(tensor.shape)}


def _change_row(name: str, tensor: StoredTensor, change: Change) -> Row:
    return {"name": name, **_type_row(tensor), **vars(change)}


def _compare_manifests(a: CheckpointManifest, b: CheckpointManifest) -> Row:
    conditions = [
        {"id": name, "a": a.conditions.get(name), "b": b.conditions.get(name)}
        for name in dict.fromkeys([*a.conditions, *b.conditions])
    ]
    facts = {name: (getattr(a, name), getattr(b, name)) for name in _FACTS}
    facts["git"] = (_git(a), _git(b))
    for name in dict.fromkeys([*a.versions, *b.versions]):
        facts[f"version of {name}"] = (a.versions.get(name), b.versions.get(name))
    return {
        "basin": _compare_basins(a, b),
        "metrics": [_metric_row(name, a, b) for name in dict.fromkeys([*a.metrics, *b.metrics])],
        "conditions": [row for row in conditions if row["a"] != row["b"]],
        "facts": [{"name": name, "a": x, "b": y} for name, (x, y) in facts.items() if x != y],
    }


def _git(manifest: CheckpointManifest) -> str | None:
    if manifest.git is None:
        return None
    return manifest.git.revision + (" (changed)" if manifest.git.dirty else "")


def _metric_row(name: str, a: CheckpointManifest, b: CheckpointManifest) -> Row:
    x, y = a.metrics.get(name), b.metrics.get(name)
    kinds = {side: kind for side, of in (("a", a), ("b", b)) if (kind := of.nonfinite.get(name)) is not None}
    return {"name": name, "a": x, "b": y, "difference": None if x is None or y is None else y - x, "nonfinite": kinds}


def _compare_basins(a: CheckpointManifest, b: CheckpointManifest) -> Row:
    (p, no_p), (q, no_q) = basin_of(a), basin_of(b)
    reason = "; ".join(f"of {side}: {why}" for side, why in (("A", no_p), ("B", no_q)) if why)
    if p is None or q is None:
        return {"distance_rad": None, "reason": reason}
    if p.shape != q.shape:
        return {"distance_rad": None, "reason": f"of A it has {p.size} places, of B {q.size}"}
    return {"distance_rad": float(fisher_rao_distance(p, q)), "reason": None}


def _compare_state(a: Opened, b: Opened, of_a: CheckpointManifest, of_b: CheckpointManifest) -> Row:
    digests = [{file.path: file.blake3 for file in manifest.files}.get(STATE) for manifest in (of_a, of_b)]
    if digests[0] == digests[1]:
        return {"equal": True, "differing": 0, "paths": []}
    states = [{} if side.state_fd is None else read_state(side.state_fd, side.label) for side in (a, b)]
    paths = differing(*states)
    named = [{"path": path, "a": x, "b": y} for path, x, y in islice(paths, STATE_PATHS)]
    more = sum(1 for _ in paths)
    return {"equal": False, "differing": len(named) + more, "paths": named}
