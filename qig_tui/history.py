"""What was measured, folded into bounded series that know where a run went back. No Textual, no clock, no disk."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_tui.detail import Detail, detail_of
from qig_tui.records import basin_of, columns_of
from qig_tui.series import BEYOND, CAPACITY, Bools, Branches, Floats, Ints, Segments, Series
from qig_tui.travel import Moment

MAX_METRICS = 1024
MAX_POINTS = 1 << 20
"""Points kept of all metrics together: a run of very many metrics keeps fewer of each."""
MAX_SEGMENTS = 1 << 16
MAX_REGIMES = 64
_BASINS = 64
_PAUSE_S = 20.0
_MOST_AWAITED = 1 << 12
_REGIME_CAPACITY = 1 << 13
_TIMES_CAPACITY = 1 << 14


class History:
    """Every metric of one telemetry file, the newest basins, and the honesty counts.

    A step that is not above the one before it starts a new segment: what earlier segments hold at or after that step is
    an abandoned branch.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._series: dict[str, Series] = {}
        self._rewinds: list[tuple[int, int]] = []
        """Seq and step of the first sample of every segment but the first."""
        self._branches = Branches()
        self._regimes = Series(_REGIME_CAPACITY)
        """Where the regime became another one, as the place of its name in `_regime_names`."""
        self._regime_names: list[str] = []
        self._times = Series(_TIMES_CAPACITY)
        self.detail: Detail | None = None
        self._since: list[Sample | Scalars] | None = None
        """What came since a detail was asked for: whoever reads the file again may have been too early for it. None:
        nobody asked, or too much came.
        """
        self._last_seq = -1
        self._first_seq = -1
        self._first_step: int | None = None
        self.step: int | None = None
        self.t: float | None = None
        self.regime: str | None = None
        self.read = 0
        self.bad = 0
        self.late = 0
        """Records whose seq is not above the one before: counted, not drawn."""
        self.dropped_metrics: set[str] = set()
        """Names of metrics for which there was no room, as far as they are counted."""
        self.unreadable: deque[Unreadable] = deque(maxlen=20)
        self.basins: deque[tuple[int, Floats]] = deque(maxlen=_BASINS)
        """Step and probabilities of the newest basins, oldest first."""
        self.reference: tuple[int, Floats] | None = None
        """The basin that distances are measured from: the run's first."""
        self._pace: deque[tuple[float, int]] = deque(maxlen=200)

    @property
    def metrics(self) -> list[str]:
        """Names in the order of their first appearance."""
        return list(self._series)

    def series(self, name: str) -> Series:
        """The points of a metric; an empty series where it was never measured."""
        return self._series.get(name) or Series(self._capacity)

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last step that were read of any metric."""
        steps = [series.step for series in self._series.values() if len(series)]
        if not steps:
            return 0, 1
        if self.segments == 1:
            return min(int(s[0]) for s in steps), max(int(s[-1]) for s in steps)
        return min(int(s.min()) for s in steps), max(int(s.max()) for s in steps)

    def series_within(self, name: str, first: int, last: int | None) -> Series:
        """The points of a metric to draw a range of steps with: all of them, where they were read again."""
        if self.detail is not None and name in self.detail.series and self.detail.covers(first, last):
            return self.detail.series[name]
        return self.series(name)

    def is_thinned(self, first: int, last: int | None) -> bool:
        """Whether of such a range of steps fewer points are known than were measured."""
        return (self.detail is None or not self.detail.covers(first, last)) and any(
            series.is_thinned for series in self._series.values()
        )

    def ask_for_detail(self) -> None:
        """From now on remember what comes, until `take_detail`."""
        self._since = []

    def take_detail(self, detail: Detail) -> None:
        """Show a range of steps by what was read again of it, and what has come since."""
        since, self._since = self._since, None
        if detail.last is None:
            if since is None:
                return
            later = detail_of([r for r in since if r.seq > detail.seq], self.branches, detail.first, None)
            for name, series in later.series.items():
                detail.extend(name, series.step, series.value, series.segment)
        if detail.is_whole:
            self.detail = detail

    @property
    def newest(self) -> Moment | None:
        """The moment of the newest sample; its session is not known here."""
        if self.step is None or self.t is None:
            return None
        return Moment(
            step=self.step,
            seq=self._last_seq,
            t=self.t,
            session=None,
            segment=self.segments - 1,
            regime=self.regime,
            basins=tuple(self.basins)[:-3:-1],
        )

    def until(self, moment: Moment) -> "History":
        """As it was when a sample was the newest: to look at only. What is counted of the file stays as it is now."""
        past = History(self._capacity)
        place = moment.step, moment.segment
        past._series = {n: s.until(*place) for n, s in self._series.items() if s.begins_before(*place)}
        past._rewinds = self._rewinds[: moment.segment]
        past._regimes, past._regime_names = self._regimes.until(*place), self._regime_names
        past._times = self._times.until(*place)
        past.step, past.t, past.regime = moment.step, moment.t, moment.regime
        if past.regime is None and len(past._regimes):
            past.regime = self._regime_names[int(past._regimes.value[-1])]
        past.read, past.bad, past.late = self.read, self.bad, self.late
        past.dropped_metrics, past.unreadable = self.dropped_metrics, self.unreadable
        past.basins = deque(reversed(moment.basins), maxlen=_BASINS)
        past.reference = self.reference
        if self.detail is not None:
            series = {name: s.until(*place) for name, s in self.detail.series.items()}
            past.detail = replace(self.detail, series=series)
        return past

    def regimes(self) -> tuple[Ints, list[str]]:
        """Where the regime became another one, on the branch that the run is on: ascending steps, and its names."""
        series, gone = self._regimes, self.abandoned(self._regimes)
        keep = np.ones(len(series), dtype=np.bool_) if gone is None else ~gone
        return series.step[keep], [self._regime_names[int(code)] for code in series.value[keep]]

    @property
    def times(self) -> Series:
        """When each step was recorded: unix seconds on the writer's clock as the values of a series."""
        return self._times

    def recent(self, name: str, count: int) -> Floats:
        """The finite ones of the newest so many values, of the branch that the run is on."""
        series = self.series(name)
        value = series.value[-count:]
        gone = self.branches.abandoned(series.step[-count:], series.segment[-count:])
        keep = np.isfinite(value) if gone is None else np.isfinite(value) & ~gone
        found: Floats = value[keep]
        return found

    def latest(self, name: str) -> float | None:
        found = self._series.get(name)
        return found.last[1] if found is not None and found.last is not None else None

    @property
    def segments(self) -> int:
        return len(self._rewinds) + 1

    @property
    def branches(self) -> Branches:
        """Where the run went back, as far as it is known now."""
        if self._branches.count != self.segments:
            self._branches = Branches(*zip(*self._rewinds, strict=True))
        return self._branches

    def abandoned(self, series: Series) -> Bools | None:
        """Which points lie on a branch that the run went back from; None where it never did."""
        return self.branches.abandoned(series.step, series.segment)

    @property
    def seconds_per_step(self) -> float | None:
        """The pace of the newest samples, evaluations and saves included."""
        if len(self._pace) < 2:
            return None
        t, step = (np.array(column, dtype=np.float64) for column in zip(*self._pace, strict=True))
        steps = float(step[-1] - step[0])
        with np.errstate(over="ignore", invalid="ignore"):
            gaps = np.diff(t)
            # A pause, or the time between two processes, says nothing of the steps to come.
            spent = float(gaps[gaps <= max(_PAUSE_S, 50 * float(np.median(gaps)))].sum())
        return spent / steps if steps > 0 and 0 < spent < math.inf else None

    def add(self, records: Iterable[Sample | Scalars | Unreadable]) -> int:
        """Fold new records in; the number of samples that were new."""
        good: list[Sample | Scalars] = []
        last_seq = self._last_seq
        for record in records:
            if isinstance(record, Unreadable):
                self.bad += 1
                self.unreadable.append(record)
            elif not (-BEYOND < record.step < BEYOND and -BEYOND < record.seq < BEYOND):
                self.bad += 1
            elif record.seq <= last_seq:
                self.late += 1
            else:
                last_seq = record.seq
                good.append(record)
        if good:
            self._last_seq = last_seq
            self._fold(good)
        return len(good)

    def _fold(self, records: Sequence[Sample | Scalars]) -> None:
        steps = np.fromiter((record.step for record in records), dtype=np.int64, count=len(records))
        before = steps[0] - 1 if self.step is None else self.step
        back = np.empty(len(steps), dtype=np.bool_)
        back[0] = steps[0] <= before
        np.less_equal(steps[1:], steps[:-1], out=back[1:])
        room = MAX_SEGMENTS - len(self._rewinds)
        if back.any():
            back[np.flatnonzero(back)[room:]] = False
            self._pace.clear()
        segment = (len(self._rewinds) + np.cumsum(back)).astype(np.int32)
        self._rewinds += [(records[i].seq, int(steps[i])) for i in np.flatnonzero(back).tolist()]
        if self._first_step is None:
            self._first_seq, self._first_step = records[0].seq, int(steps[0])
        self._fold_metrics(records, steps, segment)
        self._times.extend(steps, np.fromiter((r.t for r in records), dtype=np.float64, count=len(records)), segment)
        if self.detail is not None and not self.detail.is_whole:
            self.detail = None
        if self._since is not None:
            self._since += records
            if len(self._since) > _MOST_AWAITED:
                self._since = None
        newest = records[-1]
        self.step, self.t = newest.step, newest.t
        self.read += len(records)
        self._fold_regimes(records, segment)
        self._pace += [(r.t, r.step) for r in records[-(self._pace.maxlen or 0) :] if math.isfinite(r.t)]
        self._keep_basins(records)

    def _fold_metrics(self, records: Sequence[Sample | Scalars], steps: Ints, segment: Segments) -> None:
        for name, where, column in columns_of(records):
            if (series := self._open(name)) is not None:
                at = (steps, segment) if where is None else (steps[where], segment[where])
                series.extend(at[0], column, at[1])
                if self.detail is not None and self.detail.last is None:
                    self.detail.extend(name, at[0], column, at[1])

    def _fold_regimes(self, records: Sequence[Sample | Scalars], segment: Segments) -> None:
        turned: list[tuple[int, int, int]] = []
        # A segment begins with the regime named anew: what came before it may lie on a branch that is left.
        known = int(self._regimes.segment[-1]) if len(self._regimes) else -1
        for record, mine in zip(records, segment.tolist(), strict=True):
            name = record.regime
            if name is None or (name == self.regime and mine == known):
                continue
            if name not in self._regime_names:
                if len(self._regime_names) >= MAX_REGIMES:
                    self.regime = name
                    continue
                self._regime_names.append(name)
            self.regime, known = name, mine
            turned.append((record.step, self._regime_names.index(name), mine))
        if turned:
            step, code, mine = (np.array(column) for column in zip(*turned, strict=True))
            self._regimes.extend(step.astype(np.int64), code.astype(np.float64), mine.astype(np.int32))

    def _open(self, name: str) -> Series | None:
        """The series of a metric, new ones as long as there is room."""
        series = self._series.get(name)
        if series is None:
            if len(self._series) >= MAX_METRICS:
                if len(self.dropped_metrics) < MAX_METRICS:
                    self.dropped_metrics.add(name)
                return None
            series = self._series[name] = Series(self._capacity)
            self._share_room()
        return series

    def _share_room(self) -> None:
        each = MAX_POINTS // max(len(self._series), 1)
        if each < self._capacity:
            for series in self._series.values():
                series.limit(each)

    def _keep_basins(self, records: Sequence[Sample | Scalars]) -> None:
        fresh: list[tuple[int, Floats]] = []
        for record in reversed(records):
            if isinstance(record, Sample) and record.basin is not None:
                basin = basin_of(record)
                if basin is not None:
                    fresh.append((record.step, basin))
                if len(fresh) == _BASINS:
                    break
        self.basins.extend(reversed(fresh))
        if self.reference is None and fresh:
            found = ((r.step, basin_of(r)) for r in records if isinstance(r, Sample))
            self.reference = next(((step, basin) for step, basin in found if basin is not None), None)

    def prepend(self, older: "History") -> None:
        """Put the earlier part of the same file in front: what a backfill found while this part was being shown."""
        if older.step is not None and self._first_step is not None and self._first_step <= older.step:
            older._rewinds.append((self._first_seq, self._first_step))
        offset = len(older._rewinds)
        self._rewinds = older._rewinds + self._rewinds
        self._branches = Branches()
        mine = self._series
        self._series = older._series
        for name, series in mine.items():
            front = self._series.get(name)
            if front is None:
                front = Series(self._capacity)
            series.prepend(front, offset)
            self._series[name] = series
        self._share_room()
        self._prepend_regimes(older, offset)
        self._times.prepend(older._times, offset)
        self.detail = None
        self.read += older.read
        self.bad += older.bad
        self.late += older.late
        if older._first_step is not None:
            self._first_seq, self._first_step = older._first_seq, older._first_step
        if self.step is None:
            self.step, self.t, self._last_seq = older.step, older.t, older._last_seq
        if older.reference is not None:
            self.reference = older.reference

    def _prepend_regimes(self, older: "History", offset: int) -> None:
        names = older._regime_names + [name for name in self._regime_names if name not in older._regime_names]
        codes = np.array([names.index(name) for name in self._regime_names], dtype=np.float64)
        mine = self._regimes
        moved = Series(_REGIME_CAPACITY)
        if len(mine):
            moved.extend(mine.step, codes[mine.value.astype(np.int64)], mine.segment)
        moved.prepend(older._regimes, offset)
        self._regimes, self._regime_names = moved, names
        self.regime = self.regime if self.regime is not None else older.regime
