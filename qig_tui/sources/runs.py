"""Every run under a folder in a few facts, read again only where its files changed."""

import os
from dataclasses import dataclass
from pathlib import Path

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.liveness import BeatWatch, Liveness
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest
from qig_core.rundir.summary import Summary, summarise
from qig_tui.journal import STATES
from qig_tui.sources.local import within

_Mark = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of the folder."""

    run: RunDir
    name: str
    error: str | None
    """What of it cannot be read, and why; then nothing of it is judged."""
    liveness: Liveness | None
    step: int | None
    total: int | None
    t: float | None
    metrics: dict[str, float | None]
    worst: str


class _Known:
    def __init__(self, run: RunDir) -> None:
        self.watch = BeatWatch(run)
        self.mark: _Mark | None = None
        self.summary: Summary | None = None
        self.manifest: Manifest | None = None


class RunShelf:
    """Looks at a folder again and again; a heartbeat is judged over time, a file is read when it changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, _Known] = {}

    def look(self) -> list[RunRow]:
        """The runs, newest id first."""
        rows = []
        runs = list(list_runs(self._root))
        for run in runs:
            rows.append(self._row(run, self._known.setdefault(run.id, _Known(run))))
        for gone in self._known.keys() - {run.id for run in runs}:
            del self._known[gone]
        return rows[::-1]

    def _row(self, run: RunDir, known: _Known) -> RunRow:
        mark = tuple(_mark(path) for path in (run.manifest, run.telemetry(), run.events))
        if mark != known.mark:
            known.mark, known.summary = mark, summarise(run)
            try:
                known.manifest = read_manifest(run)
            except RunFormatError:
                known.manifest = None
        summary, manifest = known.summary, known.manifest
        assert summary is not None
        return RunRow(
            run=run,
            name=(manifest.name if manifest else "") or run.id,
            error=None if summary.error is None else within(run, summary.error),
            liveness=None if manifest is None else known.watch.look(manifest),
            step=summary.step,
            total=manifest.total_steps if manifest else None,
            t=summary.t,
            metrics=summary.metrics,
            worst=max((s for s in summary.conditions.values() if s in STATES), key=STATES.index, default="unarmed"),
        )


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    # Not only what was written: also who may read it.
    return (found.st_ctime_ns, found.st_size)
