"""Rows as bytes: CSV, JSON lines, Parquet. What a value was is what stands there, to the last bit."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec
import numpy as np

from qig_core.rundir.printable import printable
from qig_core.rundir.schema import Sample
from qig_tui.branches import Branch
from qig_tui.commandline import Refusal
from qig_tui.export.reading import Row
from qig_tui.records import NONFINITE, basin_of, columns_of
from qig_tui.series import Floats

if TYPE_CHECKING:
    import pyarrow as pa

FIXED = ("seq", "step", "t", "session", "regime", "branch")
BASIN = 64
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ROWS_OF_A_GROUP = 1 << 14


class Writer(Protocol):
    """Takes rows as they come; `close` writes what is still held back."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


def column_names(metrics: Sequence[str], *, basins: bool) -> tuple[list[str], list[str]]:
    """The names of the metrics' columns and of the basin's: a metric that is called like another column has "m."
    before its name.
    """
    basin = [f"basin_{i:02d}" for i in range(BASIN)] if basins else []
    taken = {*FIXED, *basin}
    columns = []
    for name in metrics:
        while name in taken:
            name = f"m.{name}"
        taken.add(name)
        columns.append(name)
    return columns, basin


def cell_text(text: str | None) -> str:
    """Text of a file as a cell of CSV: control characters as escapes, and an apostrophe before what a spreadsheet would
    take for a formula.
    """
    if not text:
        return ""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def values_of(sample: Sample, names: Sequence[str]) -> list[float | None]:
    """Of each metric its value, not finite where it was so; None where it was not measured."""
    m = sample.m
    values = [m.get(name) for name in names]
    if None in m.values():
        for i, name in enumerate(names):
            if name in m and m[name] is None:
                values[i] = NONFINITE.get(sample.nonfinite.get(name, "nan"), math.nan)
    return values


def basin_entries(sample: Sample, odd: Counter[str]) -> Floats | None:
    """The basin if it fits the table; one that does not is counted."""
    basin = basin_of(sample)
    if basin is not None and len(basin) == BASIN:
        return basin
    odd["basins"] += sample.basin is not None
    return None


class CsvWriter:
    """RFC 4180 with a header and "\\n" line ends; numbers as short as they are exact, nan, inf and -inf as such.

    An empty cell: not measured at this step.
    """

    def __init__(self, out: BinaryIO, metrics: Sequence[str], *, basins: bool, odd: Counter[str]) -> None:
        self._out, self._metrics, self._basins, self._odd = out, metrics, basins, odd
        names, basin = column_names([printable(name) for name in metrics], basins=basins)
        self._emit([[*FIXED, *map(cell_text, names), *basin]])

    def write(self, rows: Sequence[Row]) -> None:
        texts: dict[str | None, str] = {}
        table: list[list[Any]] = []
        for row in rows:
            sample = row.sample
            for text in (row.session, sample.regime):
                if text not in texts:
                    texts[text] = cell_text(text)
            cells = [sample.seq, sample.step, sample.t, texts[row.session], texts[sample.regime], row.branch]
            cells += values_of(sample, self._metrics)
            if self._basins:
                basin = basin_entries(sample, self._odd)
                cells += [None] * BASIN if basin is None else basin.tolist()
            table.append(cells)
        self._emit(table)

    def _emit(self, table: list[list[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        self._out.write(text.getvalue().encode())

    def close(self) -> None:
        pass


class _Line(msgspec.Struct, omit_defaults=True):
    """A line of telemetry with the session and the branch in every one, and the basin as numbers."""

    seq: int
    step: int
    t: float
    branch: Branch
    m: dict[str, float | None]
    session: str | None = None
    nonfinite: dict[str, str] = {}
    regime: str | None = None
    basin: list[float] | None = None


class JsonlWriter:
    """The lines of the file with the same keys: a value that is not finite is null and named in `nonfinite`."""

    def __init__(self, out: BinaryIO, metrics: Sequence[str] | None, *, basins: bool, odd: Counter[str]) -> None:
        """Args: metrics: those to write; None: all."""
        self._out, self._basins, self._odd = out, basins, odd
        self._metrics = None if metrics is None else frozenset(metrics)
        self._encoder = msgspec.json.Encoder()

    def write(self, rows: Sequence[Row]) -> None:
        lines = self._encoder.encode_lines([self._line(row) for row in rows])
        # As escapes, what is not ASCII moves no cursor; it is the same text to every reader of JSON.
        if not lines.isascii() or b"\x7f" in lines:
            whole = [json.dumps(json.loads(line)).replace("\x7f", "\\u007f") for line in lines.splitlines()]
            lines = "".join(f"{line}\n" for line in whole).encode()
        self._out.write(lines)

    def _line(self, row: Row) -> _Line:
        sample = row.sample
        m, kinds = sample.m, sample.nonfinite
        if self._metrics is not None:
            m = {name: value for name, value in m.items() if name in self._metrics}
            kinds = {name: kind for name, kind in kinds.items() if name in self._metrics}
        basin = None
        if self._basins:
            entries = basin_of(sample)
            self._odd["basins"] += entries is None and sample.basin is not None
            basin = None if entries is None else entries.tolist()
        return _Line(sample.seq, sample.step, sample.t, row.branch, m, row.session, kinds, sample.regime, basin)

    def close(self) -> None:
        pass


class ParquetWriter:
    """One column a metric (double; null: not measured; NaN and ±inf as such), compressed by zstd.

    Raises:
        Refusal: pyarrow is not installed.
    """

    def __init__(self, out: BinaryIO, metrics: Sequence[str], *, basins: bool, odd: Counter[str]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise Refusal(f"Parquet needs pyarrow: pip install 'qig-tui[parquet]' ({error})") from error
        self._pa, self._metrics, self._basins, self._odd = pa, metrics, basins, odd
        names, basin = column_names(metrics, basins=basins)
        text = pa.dictionary(pa.int32(), pa.string())
        fixed = zip(FIXED, (pa.int64(), pa.int64(), pa.float64(), text, text, text), strict=True)
        self._schema = pa.schema([*fixed, *((name, pa.float64()) for name in [*names, *basin])])
        self._file = pq.ParquetWriter(out, self._schema, compression="zstd")
        self._held: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        self._held += rows
        if len(self._held) >= _ROWS_OF_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        pa, rows = self._pa, self._held
        samples = [row.sample for row in rows]
        fixed = [
            pa.array([s.seq for s in samples], pa.int64()),
            pa.array([s.step for s in samples], pa.int64()),
            pa.array([s.t for s in samples], pa.float64()),
            *(
                pa.array(texts, pa.string()).dictionary_encode()
                for texts in ([r.session for r in rows], [s.regime for s in samples], [r.branch for r in rows])
            ),
        ]
        columns = [*fixed, *self._values(samples), *(self._entries(samples) if self._basins else ())]
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._held = []

    def _values(self, samples: Sequence[Sample]) -> "list[pa.Array]":
        found = {name: (where, column) for name, where, column in columns_of(samples)}
        arrays = []
        for name in self._metrics:
            value, absent = np.zeros(len(samples)), np.ones(len(samples), dtype=np.bool_)
            if name in found:
                where, column = found[name]
                at = slice(None) if where is None else where
                value[at], absent[at] = column, False
            arrays.append(self._pa.array(value, mask=absent))
        return arrays

    def _entries(self, samples: Sequence[Sample]) -> "list[pa.Array]":
        known = [basin_entries(sample, self._odd) for sample in samples]
        absent = np.array([basin is None for basin in known])
        table = np.zeros((BASIN, len(samples)))
        for i, basin in enumerate(known):
            if basin is not None:
                table[:, i] = basin
        return [self._pa.array(row, mask=absent) for row in table]

    def close(self) -> None:
        if self._held:
            self._flush()
        self._file.close()
