"""Several runs side by side, as plain data: where their points stand on one axis, how well each did. No Textual."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qig_core.rundir.layout import RunDir
from qig_core.rundir.lineage import Lineage
from qig_core.rundir.liveness import Liveness
from qig_core.rundir.schema import Manifest, MetricSpec, Unreadable
from qig_tui.charting import PREFERRED, chart_metrics
from qig_tui.compare.axes import AXES, MS, Axis
from qig_tui.compare.places import LETTERS
from qig_tui.compare.placing import Placed, counts, places_along, rising
from qig_tui.compare.training_time import TrainingTime
from qig_tui.history import History
from qig_tui.journal import Journal
from qig_tui.picture import RunPicture
from qig_tui.series import BEYOND, CAPACITY, Bools, Floats, Ints, Series, last_at
from qig_tui.sources.several import Found
from qig_tui.text import safe
from qig_tui.view import Ends

TOKENS = "tokens"
"""The metric that counts, over the whole run, what was trained on."""
_ROOMY = 4
"""So many runs are remembered as finely as one alone; more share that room."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one run on an axis."""

    run: "ComparedRun"
    series: Series
    abandoned: Bools | None
    """Which points lie on a branch that the run went back from."""

    def at(self, place: int) -> float | None:
        """The newest value at or before a place of the branch that the run is on; None outside of it."""
        step, value = self._live
        index = last_at(step, place)
        return None if index is None or place > int(step[-1]) else float(value[index])

    @property
    def _live(self) -> tuple[Ints, Floats]:
        step, value = self.series.step, self.series.value
        return (step, value) if self.abandoned is None else (step[~self.abandoned], value[~self.abandoned])


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How well a run does by one metric, on the branch that it is on; each a step and a value."""

    last: tuple[int, float] | None = None
    """The newest value, finite or not."""
    low: tuple[int, float] | None = None
    high: tuple[int, float] | None = None
    """The extremes of what is finite."""

    def best(self, better: str | None) -> tuple[int, float] | None:
        """None where there is no better end."""
        return self.low if better == "lower" else self.high if better == "higher" else None


class ComparedRun:
    """One of the runs, as far as it has been read. `take` folds in what was found; the rest only looks."""

    def __init__(self, run: RunDir, place: int, *, among: int = 1) -> None:
        """Args: place: of its colour and letter; among: how many runs share the room for points."""
        self.run = run
        self.place = place
        self._capacity = CAPACITY * _ROOMY // max(among, _ROOMY)
        self.picture: RunPicture | None = None
        """None as long as its manifest cannot be read."""
        self.problem: str | None = None
        self.liveness: Liveness | None = None
        self.share: float | None = 0.0
        """Of what lay there at the start, what has been read; None: all of it."""
        self.lineage: Lineage | None = None
        self.time = TrainingTime(self._capacity)
        self._starts = np.empty(0)
        self._seq = -1
        self._lines: dict[tuple[str, Axis], tuple[int, Line]] = {}
        self._standings: dict[str, tuple[int, Standing]] = {}

    @property
    def letter(self) -> str:
        return LETTERS[self.place]

    @property
    def name(self) -> str:
        return safe(self.run.id, 60) if self.picture is None else self.picture.name

    @property
    def manifest(self) -> Manifest | None:
        return None if self.picture is None else self.picture.manifest

    @property
    def history(self) -> History | None:
        return None if self.picture is None else self.picture.history

    def take(self, found: Found) -> None:
        self.problem, self.liveness, self.share = found.problem, found.liveness or self.liveness, found.share
        if found.lineage is not None:
            self.lineage = found.lineage
        if found.manifest is not None:
            if self.picture is None:
                self.picture = RunPicture(found.manifest)
                self.picture.history = History(self._capacity)
            self.picture.manifest = found.manifest
            starts = [s.t for s in found.manifest.sessions if math.isfinite(s.t)]
            self._starts = np.array(sorted(starts), dtype=np.float64)
        if self.picture is None:
            return
        if found.restarted:
            self.picture.history = History(self._capacity)
            self.time = TrainingTime(self._capacity)
            self._seq = -1
            self._lines.clear()
            self._standings.clear()
        if found.events_restarted:
            self.picture.journal = Journal()
        self.picture.journal.add(found.events)
        if self.picture.history.add(found.samples):
            self._fold_time(self.picture.history, found)

    def _fold_time(self, history: History, found: Found) -> None:
        seq, step, t = [], [], []
        for record in found.samples:
            # The same ones as the history takes.
            if isinstance(record, Unreadable) or not self._seq < record.seq < BEYOND:
                continue
            if -BEYOND < record.step < BEYOND:
                self._seq = record.seq
                seq.append(record.seq)
                step.append(record.step)
                t.append(record.t)
        segment = history.branches.segment_of(np.array(seq, dtype=np.int64))
        self.time.extend(np.array(step, dtype=np.int64), np.array(t, dtype=np.float64), segment, self._starts)

    def records(self, axis: Axis) -> bool:
        """Whether it says where on such an axis its samples stand."""
        return self.ends(axis) is not None

    def ends(self, axis: Axis) -> Ends | None:
        """The first and the last place; None where nothing is known of any."""
        history = self.history
        if history is None or not history.read:
            return None
        if axis == "step":
            return history.ends
        if axis == "time":
            return 0, round(MS * self.time.total_s)
        tokens = counts(history.series(TOKENS))
        return (int(tokens.min()), int(tokens.max())) if len(tokens) else None

    def line(self, metric: str, axis: Axis) -> Line | None:
        """A metric on an axis; None where there is no point of it."""
        history = self.history
        if history is None or metric not in history.metrics:
            return None
        known = self._lines.get((metric, axis))
        if known is None or known[0] != history.read:
            series = history.series(metric).still()
            made = Line(run=self, series=series, abandoned=history.abandoned(series))
            if axis != "step":
                made = self._placed(history, made, axis)
            known = self._lines[metric, axis] = history.read, made
        return known[1] if len(known[1].series) else None

    def _placed(self, history: History, line: Line, axis: Axis) -> Line:
        by = self.time.seconds if axis == "time" else history.series(TOKENS)
        place = places_along(by, line.series.step, line.series.segment) * (MS if axis == "time" else 1)
        keep = np.isfinite(place) & (np.abs(place) < BEYOND)
        where = np.where(keep, place, 0.0).round().astype(np.int64)
        if line.abandoned is None:
            keep &= rising(where, keep)
            return Line(run=self, series=Placed(line.series, where, keep), abandoned=None)
        keep &= line.abandoned | rising(where, keep & ~line.abandoned)
        return Line(run=self, series=Placed(line.series, where, keep), abandoned=line.abandoned[keep])

    def standing(self, metric: str) -> Standing:
        """Its newest value and its extremes. What the run went back from does not count, nor what is not finite."""
        history = self.history
        if history is None or metric not in history.metrics:
            return Standing()
        known = self._standings.get(metric)
        if known is None or known[0] != history.read:
            known = self._standings[metric] = history.read, _standing(history, metric)
        return known[1]


def _standing(history: History, metric: str) -> Standing:
    series = history.series(metric)
    gone = history.abandoned(series)
    step, value = (series.step, series.value) if gone is None else (series.step[~gone], series.value[~gone])
    if not len(step):
        return Standing()
    fine = np.flatnonzero(np.isfinite(value))
    last = int(step[-1]), float(value[-1])
    if not len(fine):
        return Standing(last=last)
    low, high = fine[np.argmin(value[fine])], fine[np.argmax(value[fine])]
    return Standing(last=last, low=(int(step[low]), float(value[low])), high=(int(step[high]), float(value[high])))


class Comparison:
    """The runs, which of them are hidden, and the axis that they share."""

    def __init__(self, runs: Sequence[RunDir], places: Sequence[int]) -> None:
        self.runs = [ComparedRun(run, place, among=len(runs)) for run, place in zip(runs, places, strict=True)]
        self.hidden: set[int] = set()
        """Places."""
        self.axis: Axis = "step"

    @property
    def shown(self) -> list[ComparedRun]:
        return [run for run in self.runs if run.place not in self.hidden]

    @property
    def is_read(self) -> bool:
        """Whether all that lay there at the start has been read, or cannot be."""
        return all(run.share is None for run in self.runs)

    @property
    def share(self) -> float:
        """Of what lay there at the start, what has been read."""
        return sum(1.0 if run.share is None else run.share for run in self.runs) / max(len(self.runs), 1)

    def metrics(self) -> list[str]:
        """Whatever any run measured: the preferred first, then as the runs bring them."""
        found: dict[str, None] = {}
        for run in self.runs:
            if run.picture is not None:
                found |= dict.fromkeys(chart_metrics(run.picture))
        first = [name for name in PREFERRED if name in found]
        return first + [name for name in found if name not in first]

    def ends(self) -> Ends:
        """The first and the last place that any shown run stands at."""
        found = [ends for run in self.shown if (ends := run.ends(self.axis)) is not None]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else (0, 1)

    def lines(self, metric: str) -> list[Line]:
        """Of the shown runs that have it."""
        return [line for run in self.shown if (line := run.line(metric, self.axis)) is not None]

    def next_axis(self) -> None:
        """The next one by which any run can be drawn."""
        at = AXES.index(self.axis)
        around = [*AXES[at + 1 :], *AXES[: at + 1]]
        self.axis = next((axis for axis in around if any(run.records(axis) for run in self.runs)), "step")

    @property
    def left_out(self) -> list[ComparedRun]:
        """Shown runs that have samples, and say nothing of where those stand on this axis."""
        return [run for run in self.shown if run.records("step") and not run.records(self.axis)]

    def spec(self, metric: str) -> MetricSpec:
        """How a metric is to be shown: as the first run that declares it says."""
        found = [run.picture.spec(metric) for run in self.runs if run.picture is not None]
        return next((spec for spec in found if spec != MetricSpec(name=metric)), MetricSpec(name=metric))

    def label(self, metric: str) -> tuple[str, str]:
        """The short name of a metric, and what stands beside it."""
        found = [run.picture for run in self.runs if run.picture is not None]
        picture = next((p for p in found if p.spec(metric) != MetricSpec(name=metric)), found[0] if found else None)
        return (safe(metric, 24), "") if picture is None else (picture.label(metric), picture.title(metric))
