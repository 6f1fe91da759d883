"""Records as columns of numbers: what a series, a chart and a panel are made of. numpy only."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from qig_core.rundir.schema import Sample, Scalars
from qig_core.rundir.values import decode_basin
from qig_tui.series import Floats

_MOST_ENTRIES = 1 << 16
"""A basin of more is no identity of 64 dimensions, and some of them are kept."""
NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def as_float(value: object) -> float | None:
    """A number; an integer that is beyond float64 is infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


Columns = Iterable[tuple[str, NDArray[np.intp] | None, Floats]]


def columns_of(records: Sequence[Sample | Scalars]) -> Columns:
    """Of every metric the records that hold it (None: all of them) and its values in their order."""
    # Samples with the same metrics in the same order become one table: one conversion, not one for each metric.
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault(tuple(record.m), []).append(i)
    if len(groups) == 1:
        names = next(iter(groups))
        for name, column in zip(names, _table(records, names).T, strict=True):
            yield name, None, column
        return
    columns: dict[str, tuple[list[list[int]], list[Floats]]] = {}
    for names, rows in groups.items():
        for name, column in zip(names, _table([records[i] for i in rows], names).T, strict=True):
            where, parts = columns.setdefault(name, ([], []))
            where.append(rows)
            parts.append(column)
    for name, (where, parts) in columns.items():
        index = np.concatenate(where)
        order = np.argsort(index, kind="stable")
        yield name, index[order], np.concatenate(parts)[order]


def _table(records: Sequence[Sample | Scalars], names: tuple[str, ...]) -> Floats:
    """Values [record, metric] of samples that hold the same metrics; what was not finite by its recorded kind."""
    # numpy reads None as nan; only then is it asked which kind it was.
    values: Iterable[float | None] = chain.from_iterable([record.m.values() for record in records])
    count = len(records) * len(names)
    table = np.fromiter(values, dtype=np.float64, count=count).reshape(len(records), len(names))
    for i in np.flatnonzero(np.isnan(table).any(axis=1)).tolist():
        record = records[i]
        for j, name in enumerate(names):
            if record.m[name] is None:
                table[i, j] = NONFINITE.get(record.nonfinite.get(name, "nan"), math.nan)
    return table


def basin_of(record: Sample) -> Floats | None:
    """The recorded basin as probabilities in float64, or None where it cannot be read as a distribution."""
    if record.basin is None:
        return None
    try:
        basin = np.frombuffer(decode_basin(record.basin), dtype="<f4").astype(np.float64)
    except ValueError:
        return None
    if len(basin) > _MOST_ENTRIES:
        return None
    total = float(basin.sum())
    if not len(basin) or not np.isfinite(basin).all() or basin.min() < 0 or not 0 < total < math.inf:
        return None
    return basin / total
