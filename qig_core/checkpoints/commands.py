"""What `qig-core checkpoints` answers, as plain data that JSON can hold. No rendering, no torch."""

from collections.abc import Iterator
from typing import Any

import msgspec

from qig_core.checkpoints.catalog import Found, list_checkpoints, resolve
from qig_core.checkpoints.ranking import DEFAULT_SCORE
from qig_core.checkpoints.verification import verifying
from qig_core.rundir.layout import RunDir

Row = dict[str, Any]

_PROGRESS_BYTES = 64 << 20


def list_rows(run: RunDir) -> list[Row]:
    """`list`: one row for each, newest-published first; no payload byte is read.

    Keys: name, step, t, reason, status, problems, tags, fingerprint, size, metrics, nonfinite_metrics, conditions.
    """
    return [_row(found) for found in list_checkpoints(run)]


def show(run: RunDir, text: str) -> Row:
    """`show`: the row of `list`, and under `manifest` everything that the manifest says. `text`: as `resolve` takes it.

    Raises:
        CheckpointError: `text` names none, or more than one.
    """
    found = resolve(run, text)
    return {**_row(found), "path": str(found.path), "manifest": msgspec.to_builtins(found.manifest)}


def latest(run: RunDir) -> Row:
    """`latest`: the row of the newest-published complete one. Raises: CheckpointError, where there is none."""
    return _row(resolve(run, "latest"))


def best(run: RunDir, *, score: str = DEFAULT_SCORE, lower_is_better: bool = True) -> Row:
    """`best`: the row of the best by `ranking.rank_key`. Raises: CheckpointError, where none has a finite score."""
    return _row(resolve(run, "best", score=score, lower_is_better=lower_is_better))


def verify(run: RunDir, text: str | None = None) -> Iterator[Row]:
    """`verify [NAME]`: {"progress": {...}} as it goes, {"checked": {...}} of each, at last {"result": [...]} of all.

    The newest-published is read first.

    progress: name, number (1...), of (checkpoints), done and total (bytes of all checkpoints).
    result: name, step, t, reason, status, problems, nonfinite (FILE:TENSOR), tags, fingerprint, size.

    Raises:
        CheckpointError: `text` names none, or more than one. Without `text` and without checkpoints: result [].
    """
    chosen = list_checkpoints(run) if text is None else [resolve(run, text)]
    total = sum(found.size for found in chosen)
    done, rows = 0, []
    for number, found in enumerate(chosen, 1):
        progress = {"name": found.name, "number": number, "of": len(chosen), "done": done, "total": total}
        yield {"progress": progress}
        said = here = 0
        steps = verifying(found)
        while True:
            try:
                here = next(steps)
            except StopIteration as stop:
                result = stop.value
                break
            if here - said >= _PROGRESS_BYTES:
                said = here
                yield {"progress": {**progress, "done": done + here}}
        done += here
        row = _row(found)
        for key in ("metrics", "nonfinite_metrics", "conditions"):
            del row[key]
        rows.append(
            {**row, "status": result.status, "problems": list(result.problems), "nonfinite": list(result.nonfinite)}
        )
        yield {"checked": rows[-1]}
    yield {"result": rows}


def _row(found: Found) -> Row:
    manifest = found.manifest
    return {
        "name": found.name,
        "step": found.step,
        "t": found.t,
        "reason": manifest.reason if manifest else None,
        "status": found.status,
        "problems": list(found.problems),
        "tags": list(found.tags),
        "fingerprint": manifest.fingerprint if manifest else None,
        "size": found.size,
        "metrics": manifest.metrics if manifest else {},
        "nonfinite_metrics": manifest.nonfinite if manifest else {},
        "conditions": manifest.conditions if manifest else {},
    }
