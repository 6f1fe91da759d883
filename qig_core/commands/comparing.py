"""What `checkpoints diff` and `checkpoints export` take, write and print. Computes nothing."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from qig_core.checkpoints.catalog import Found, resolve
from qig_core.checkpoints.comparison import STATE_PATHS, WEIGHTS, compare
from qig_core.checkpoints.export import export
from qig_core.checkpoints.stored import SUFFIX, TORCH_SUFFIXES, Opened, open_checkpoint, open_file
from qig_core.commands.arguments import find_run_at
from qig_core.errors import UsageError
from qig_core.rundir.layout import RunDir
from qig_core.terminal import print_facts, print_json, print_table, progress_bar, tell

Row = dict[str, Any]


def run_diff(a: str, b: str, second: str | None, *, runs: Path | None, everything: bool, json: bool) -> None:
    """Compare A with B, or of the run A the checkpoints B and `second`, and show what differs.

    Raises:
        UsageError, RunNotFound: no such run. CheckpointError: no such checkpoint or file, or it cannot be read.
    """
    if second is None:
        sides = [_find(text, runs) for text in (a, b)]
    else:
        sides = [_checkpoint(a, text, runs) for text in (b, second)]
    with _open(sides[0]) as left, _open(sides[1]) as right:
        result = _follow(compare(left, right, everything=everything), "comparing", json)
    if not json:
        _show(result)


def run_export(
    words: Sequence[str], *, runs: Path | None, keys: Sequence[str], everything: bool, force: bool, json: bool
) -> None:
    """Export; `words`: RUN[@CHECKPOINT] [CHECKPOINT] OUT.

    Raises:
        UsageError, RunNotFound, CheckpointError, RecordWriteError: see `export.export`.
    """
    if len(words) not in (2, 3):
        raise UsageError("export takes RUN[@CHECKPOINT] [CHECKPOINT] OUT.safetensors")
    run, *between, out = words
    found = _checkpoint(run, between[0] if between else None, runs)
    result = _follow(export(found, Path(out), keys=keys, everything=everything, force=force), "exporting", json)
    if json:
        return
    exported = result["exported"]
    size = decimal(exported["size"])
    tell(f"{exported['tensors']} tensors of {result['source']['checkpoint']} are in {out!r} ({size})")
    if exported["complex"]:
        tell(f"{len(exported['complex'])} of them are complex: their last axis is (real, imaginary)")
    if exported["nonfinite"]:
        tell(f"values that are not finite in {', '.join(exported['nonfinite'][:5])}")


def _follow(reports: Iterable[Row], doing: str, json: bool) -> Row:
    """The result at the end of reports, each shown as it comes."""
    result: Row = {}
    with progress_bar(doing, shown=not json) as show:
        for report in reports:
            if json:
                print_json(report)
            if "result" in report:
                result = report["result"]
            else:
                show(report["progress"]["done"], report["progress"]["total"])
    return result


def _find(text: str, runs: Path | None) -> Found | Path:
    """RUN[@CHECKPOINT], the path of a checkpoint inside its run, or a file of weights."""
    path = Path(text)
    if os.path.isfile(text) or (path.suffix in (SUFFIX, *TORCH_SUFFIXES) and not os.path.isdir(text)):
        return path
    if path.parent.name == "checkpoints" and (run := RunDir(path.resolve().parents[1])).exists():
        return resolve(run, path.name)
    return _checkpoint(text, None, runs)


def _checkpoint(text: str, checkpoint: str | None, runs: Path | None) -> Found:
    run, selector = find_run_at(text, checkpoint, runs)
    return resolve(run, "latest" if selector is None else selector)


def _open(side: Found | Path) -> Opened:
    return open_file(side) if isinstance(side, Path) else open_checkpoint(side)


def _show(result: Row) -> None:
    tensors, state, basin = result["tensors"], result["state"], result["basin"]
    facts = [("A", result["a"]), ("B", result["b"])]
    if result["key"] is not None:
        facts.append(("compared", f"what the checkpoint holds under {result['key']!r}"))
    counts = {
        "changed": len(tensors["changed"]),
        "of another shape or type": len(tensors["retyped"]),
        "only in A": len(tensors["only_a"]),
        "only in B": len(tensors["only_b"]),
    }
    said = [f"{tensors['equal']} equal bit by bit", *(f"{count} {what}" for what, count in counts.items() if count)]
    facts.append(("tensors", ", ".join(said)))
    if state is not None:
        facts.append(("plain state", "equal" if state["equal"] else f"differs at {state['differing']} paths"))
    if basin is not None:
        distance = basin["distance_rad"]
        shown = f"– ({basin['reason']})" if distance is None else f"{distance:.6g} rad apart (Fisher–Rao)"
        facts.append(("basin", shown))
    print_facts(facts)
    _table(("tensor", "dtype", "shape", "|A|", "|B|", "|A−B|/|A|", "max |A−B|", "note"), _changes(tensors), fold="note")
    retyped: list[tuple[object, ...]] = [(row["name"], _type(row["a"]), _type(row["b"])) for row in tensors["retyped"]]
    retyped += [(row["name"], _type(row), None) for row in tensors["only_a"]]
    retyped += [(row["name"], None, _type(row)) for row in tensors["only_b"]]
    _table(("tensor", "A", "B"), retyped)
    metrics = [
        (row["name"], _measured(row, "a"), _measured(row, "b"), _number(row["difference"]))
        for row in result["metrics"] or ()
    ]
    _table(("metric", "A", "B", "B − A"), metrics)
    conditions = [(row["id"], row["a"], row["b"]) for row in result["conditions"] or ()]
    _table(("condition", "A", "B"), conditions)
    differing = [(row["name"], _fact(row, "a"), _fact(row, "b")) for row in result["facts"] or ()]
    _table(("fact", "A", "B"), differing)
    if state is not None:
        _table(("state", "A", "B"), [(row["path"], row["a"], row["b"]) for row in state["paths"]])
        if state["differing"] > STATE_PATHS:
            tell(f"and {state['differing'] - STATE_PATHS} more paths of the plain state")


def _changes(tensors: Row) -> list[tuple[object, ...]]:
    """The weights first; of each key the largest relative change first, and what has none after it."""

    def place(row: Row) -> tuple[bool, str, float]:
        key, colon, _ = row["name"].partition(":")
        return key != WEIGHTS, key if colon else "", -(row["relative_change"] or 0.0)

    rows = sorted(tensors["changed"], key=place)
    return [
        (
            row["name"],
            row["dtype"],
            row["shape"],
            *(_number(row[key]) for key in ("norm_a", "norm_b", "relative_change", "max_abs_change")),
            _note(row),
        )
        for row in [*rows, *tensors.get("unchanged", ())]
    ]


def _note(row: Row) -> str:
    if not row["differing"]:
        return "equal"
    counted = f"{row['differing']} of {row['elements']} elements"
    if row["reason"] is None:
        return ""
    return counted if row["norm_a"] is None and "counted" in row["reason"] else f"{counted}; {row['reason']}"


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[object]], fold: str = "") -> None:
    if rows:
        print()
        numbers = tuple(column for column in columns if column not in (columns[0], "dtype", "shape", "note"))
        print_table(columns, rows, right=numbers, fold=(fold, columns[0]))


def _type(row: Row) -> str:
    return f"{row['dtype']} {row['shape']}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def _fact(row: Row, side: str) -> object:
    if row["name"] != "t":
        return row[side]
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row[side]))


def _measured(row: Row, side: str) -> str | None:
    return row["nonfinite"].get(side) or _number(row[side])
