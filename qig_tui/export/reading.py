"""The samples of a telemetry file in its order, whole but never all at once: surveyed first, then read for good."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from qig_core.rundir.reader import Tail, open_regular
from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_tui.branches import Branch, Walk
from qig_tui.commandline import IO, Refusal

_CHUNK = 1 << 18
MAX_COLUMNS = 4096
"""More metrics than this make no table."""

Tell = Callable[[str, int, int], None]
K = TypeVar("K", Sample, Scalars)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which samples and metrics are asked for."""

    metrics: tuple[str, ...] = ()
    """Empty: all."""
    first: int | None = None
    last: int | None = None
    """Steps, both included."""
    live_only: bool = False

    def takes(self, step: int, branch: Branch) -> bool:
        if self.first is not None and step < self.first:
            return False
        if self.last is not None and step > self.last:
            return False
        return branch == "live" or not self.live_only


@dataclass(kw_only=True)
class Survey:
    """What the first reading found."""

    names: list[str] = field(default_factory=list)
    """Metrics in the order of their first appearance, no more than one above `MAX_COLUMNS`."""
    went_back_to: list[int] = field(default_factory=list)
    end: int = 0
    """Where the second reading stops: what a live run appends meanwhile is left to another export."""
    samples: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One sample, and what its line alone does not tell."""

    sample: Sample
    session: str | None
    """That of the newest line that named one: a session names itself once."""
    branch: Branch


def survey(path: Path, wanted: Wanted, tell: Tell) -> Survey:
    """Read the file once, basins passed over: which metrics it holds, and where the run went back.

    Raises:
        Refusal: it cannot be read, a metric that is asked for is not in it, or there are too many for a table.
    """
    found, walk = Survey(), Walk()
    names: dict[str, None] = {}
    before: tuple[str, ...] = ()
    size = _size(path)
    for records, offset in _batches(path, Scalars, size):
        for record in records:
            if isinstance(record, Unreadable) or walk.place(record) is None:
                found.bad += 1
                continue
            found.samples += 1
            mine = tuple(record.m)
            if mine != before:
                before = mine
                if len(names) <= MAX_COLUMNS or wanted.metrics:
                    names.update(dict.fromkeys(mine if not wanted.metrics else set(mine) & set(wanted.metrics)))
        found.end = offset
        tell("surveying", offset, size)
    found.went_back_to = walk.went_back_to
    found.names = list(names)
    _check(found, wanted, path)
    return found


def _size(path: Path) -> int:
    """0 where it is not there: a run may have begun and recorded nothing yet."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _check(found: Survey, wanted: Wanted, path: Path) -> None:
    if missing := [name for name in wanted.metrics if name not in found.names]:
        raise Refusal(f"no metric {missing[0]!r} stands in {path.name!r}; without --metrics all that do are written")
    if wanted.metrics:
        found.names = list(wanted.metrics)
    elif len(found.names) > MAX_COLUMNS:
        raise Refusal(
            f"{path.name!r} holds more than {MAX_COLUMNS} metrics, too many for a table; name some with --metrics"
        )


def rows(path: Path, known: Survey, wanted: Wanted, tell: Tell, passed_over: Counter[str]) -> Iterator[list[Row]]:
    """Read it again up to where the survey came: the samples that are wanted, some thousands at a time.

    Args:
        passed_over: counts what there is to tell of them: "late" ones that are among them.

    Raises:
        Refusal: it cannot be read, or was replaced since the survey.
    """
    walk, session = Walk(known.went_back_to), None
    for records, offset in _batches(path, Sample, known.end):
        taken: list[Row] = []
        for record in records:
            if isinstance(record, Unreadable) or (branch := walk.place(record)) is None:
                continue
            session = record.session or session
            if wanted.takes(record.step, branch):
                taken.append(Row(record, session, branch))
                if branch == "late":
                    passed_over["late"] += 1
        yield taken
        tell("writing", offset, known.end)


def _batches(path: Path, kind: type[K], end: int) -> Iterator[tuple[Sequence[K | Unreadable], int]]:
    """Records, and the offset behind them, up to `end`, or to a torn line before it."""
    tail: Tail[K] = Tail(path, kind)
    try:
        while tail.offset < end:
            start = tail.offset
            batch = tail.poll(min(_CHUNK, end - start))
            if batch.restarted or not path.exists():
                raise Refusal(f"{str(path)!r} was replaced while it was read; try again", IO)
            yield batch.records, tail.offset
            if tail.offset == start:
                return
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        tail.close()


def _unreadable(path: Path, error: OSError) -> Refusal:
    return Refusal(f"{str(path)!r} cannot be read: {error.strerror or error}")
