"""Contestants taken in turns in one process, what the rows say of them, the table and the JSON. No mathematics here."""

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

PACKAGES = ("numpy", "scipy", "torch", "qutip", "toqito", "quanestimation", "geomstats")
MISSED, DIFFERS = "MISSED", "DIFFERS"
OURS = "ours"
PATIENCE_S = 10.0


class Missing(Exception):
    """A peer that is not here; its message says why."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a contestant runs: in rounds of blocks of at least block_s, while less than budget_s is spent on it."""

    rounds: int
    block_s: float
    budget_s: float

    def longer(self, times: int) -> "Pace":
        return replace(self, rounds=self.rounds * times, budget_s=self.budget_s * times)


FULL = Pace(rounds=15, block_s=0.05, budget_s=8.0)
QUICK = Pace(rounds=5, block_s=0.01, budget_s=0.4)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """peer / ours at least `limit`, or, where at_most, ours / peer no more than that."""

    limit: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"

    def met(self, ratio: float) -> bool:
        return ratio <= self.limit if self.at_most else ratio >= self.limit


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Someone to be measured beside us."""

    name: str
    make: Callable[..., Callable[[], Any]]
    """make(*data) -> the call that is timed; raises Missing."""
    mark: Mark | None = None
    scale: float = 1.0
    """Its time is multiplied by this: it does that part of the work only, and its name says so."""
    limit: bool = False
    """A limit, not the same work: its result is not looked at."""


@dataclass(frozen=True, kw_only=True)
class Row:
    kernel: str
    size: str
    peer: str
    ours_s: float | None = None
    peer_s: float | None = None
    ratio: float | None = None
    """peer_s / ours_s; ours_s / peer_s where the mark is an upper one, or the peer a limit without a mark."""
    mark: str | None = None
    verdict: str = "no mark"
    difference: float | None = None
    """Between our result and the peer's, in the unit of the errors."""
    error: float | None = None
    peer_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How results are compared before times are."""

    error: Callable[[Any], float]
    """error(result): against a closed form or a higher precision."""
    difference: Callable[[Any, Any], float]
    accuracy: float
    """No error may exceed it, and no difference ten times it: else the row's verdict is DIFFERS."""
    probe: tuple[Any, ...] | None = None
    """What the errors are taken on where it is not the data that are timed."""


def race(
    calls: dict[str, Callable[[], Any]],
    pace: Pace,
    clock: Callable[[], float] = time.process_time,
    finish: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """The least seconds a call over all blocks, and the result of each one's first call. That call warms up (libraries
    import and compile late), and stands alone for a peer it took more than PATIENCE_S. finish() precedes the clock."""

    def spend(call: Callable[[], Any], count: int) -> tuple[float, Any]:
        finish()
        began = clock()
        for _ in range(count):
            result = call()
        finish()
        return clock() - began, result

    best: dict[str, float] = {}
    results: dict[str, Any] = {}
    spent: dict[str, float] = {}
    for name, call in calls.items():
        best[name], results[name] = spend(call, 1)
        spent[name] = math.inf if name != OURS and best[name] > PATIENCE_S else 0.0
    counts: dict[str, int] = {}
    for _ in range(pace.rounds + 1):  # the first one tells how many calls make a block
        for name, call in calls.items():
            if spent[name] < pace.budget_s:
                took, _ = spend(call, counts.get(name, 1))
                best[name] = min(best[name], took / counts.get(name, 1))
                counts.setdefault(name, max(1, math.ceil(pace.block_s / max(took, 1e-7))))
                spent[name] += took
    return best, results


def compare(
    kernel: str,
    size: str,
    ours: Callable[..., Callable[[], Any]],
    rivals: list[Rival],
    data: tuple[Any, ...],
    judge: Judge,
    pace: Pace,
    **how: Any,
) -> list[Row]:
    """One row a rival: all of them and we on the same data, in one race. `how` goes to race."""
    calls = {OURS: ours(*data)}
    rows: dict[str, Row] = {}
    for rival in rivals:
        rows[rival.name] = Row(
            kernel=kernel, size=size, peer=rival.name, mark=None if rival.mark is None else str(rival.mark)
        )
        try:
            calls[rival.name] = rival.make(*data)
        except Missing as why:
            rows[rival.name] = replace(rows[rival.name], verdict=f"not installed ({why})")
    seconds, results = race(calls, pace, **how)
    probed = results if judge.probe is None else {OURS: ours(*judge.probe)()}
    mine = judge.error(probed[OURS])
    for rival in rivals:
        row = replace(rows[rival.name], ours_s=seconds[OURS], error=mine)
        if rival.name in calls:
            row = _judged(row, rival, seconds[rival.name] * rival.scale)
            if not rival.limit:
                probe = results[rival.name] if judge.probe is None else rival.make(*judge.probe)()
                row = _compared(row, judge, judge.difference(results[OURS], results[rival.name]), judge.error(probe))
        rows[rival.name] = row
    return list(rows.values())


def _judged(row: Row, rival: Rival, peer_s: float) -> Row:
    assert row.ours_s is not None
    upper = rival.limit if rival.mark is None else rival.mark.at_most
    ratio = row.ours_s / peer_s if upper else peer_s / row.ours_s
    verdict = "no mark" if rival.mark is None else "met" if rival.mark.met(ratio) else MISSED
    return replace(row, peer_s=peer_s, ratio=ratio, verdict=verdict)


def _compared(row: Row, judge: Judge, difference: float, peer_error: float) -> Row:
    assert row.error is not None
    limits = ((row.error, judge.accuracy), (peer_error, judge.accuracy), (difference, 10.0 * judge.accuracy))
    right = all(value <= limit for value, limit in limits)
    verdict = row.verdict if right else f"{DIFFERS} (limit {judge.accuracy:g})"
    return replace(row, difference=difference, peer_error=peer_error, verdict=verdict)


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def show(rows: list[Row], console: Console) -> None:
    compared = any(row.error is not None for row in rows)
    errors_of = ("error", "peer's", "apart") if compared else ()
    table = Table("kernel", "size", "peer", "ours", "peer's", "ratio", "mark", *errors_of, "verdict")
    for row in rows:
        errors = ("-" if each is None else f"{each:.0e}" for each in (row.error, row.peer_error, row.difference))
        table.add_row(
            row.kernel,
            row.size,
            row.peer,
            seconds_text(row.ours_s),
            seconds_text(row.peer_s),
            "-" if row.ratio is None else f"{row.ratio:.3g}",
            row.mark or "-",
            *(errors if compared else ()),
            row.verdict,
            style="bold red" if row.verdict.startswith((MISSED, DIFFERS)) else None,
        )
    console.print(table)


def markdown(facts: dict[str, Any]) -> str:
    """The rows that a mark belongs to, as a table for a document; facts as `write` leaves them."""
    lines = ["| kernel | beside | ours | theirs | ratio | mark | |", "|---|---|---|---|---|---|---|"]
    for row in facts["rows"]:
        if row["mark"] is None:
            continue
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.3g}x"
        times = (seconds_text(row[whose]) for whose in ("ours_s", "peer_s"))
        verdict = row["verdict"].replace(MISSED, "**missed**")
        cells = (f"{row['kernel']} {row['size']}", row["peer"], *times, ratio, row["mark"], verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def into_readme(name: str, results: Path) -> None:
    """Replace the table between README.md's markers of this name by that of the last whole run."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    readme = Path(__file__).parents[1] / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    table = markdown(json.loads(results.read_text(encoding="utf-8")))
    readme.write_text(f"{before}{begin}\n{table}{end}{rest.split(end)[1]}", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures depend on, taken before the first row."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cpu": names[0] if names else platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
        "versions": versions,
        "settings": {
            name: value
            for name, value in os.environ.items()
            if name.endswith("_THREADS") or name.startswith("OPENBLAS")
        },
        "load_before": round(os.getloadavg()[0], 2),
    }


def write(path: Path, facts: dict[str, Any], rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False) + "\n")
