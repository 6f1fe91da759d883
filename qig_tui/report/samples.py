"""The last samples before something: a few as Markdown, all of them as CSV."""

import csv
import io
from collections.abc import Sequence

from qig_core.rundir.printable import printable
from qig_core.rundir.schema import Sample
from qig_tui.charting import ChartData
from qig_tui.export.formats import cell_text, values_of
from qig_tui.report.markdown import md, moment, step_text, table
from qig_tui.sources.emergencies import Remembered
from qig_tui.text import number, unit_text

ROWS = 20
"""Of a table within the document; the rest stands beside it."""
_MOST_COLUMNS = 1024


def sample_table(charts: Sequence[ChartData], samples: Sequence[Remembered]) -> list[str]:
    """Samples with the metrics that are charted, as Markdown."""
    head = ["step", "time", *(_heading(chart) for chart in charts)]
    rows = [
        [step_text(s.step), moment(s.t), *(number(s.values.get(chart.metric)) for chart in charts)] for s in samples
    ]
    return table(head, rows, right=[0, *range(2, len(head))])


def _heading(chart: ChartData) -> str:
    unit = md(unit_text(chart.unit), 20)
    return f"{md(chart.metric, 40)} ({unit})" if unit else md(chart.metric, 40)


def remembered(sample: Sample) -> Remembered:
    """A sample in the form in which an emergency remembers its last ones."""
    values = zip(sample.m, values_of(sample, list(sample.m)), strict=True)
    return Remembered(sample.step, sample.t, {name: value for name, value in values if value is not None})


def samples_csv(samples: Sequence[Remembered]) -> bytes:
    """Samples with every metric that any of them holds."""
    names = list(dict.fromkeys(name for sample in samples for name in sample.values))[:_MOST_COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "t", *(cell_text(printable(name)) for name in names)])
    writer.writerows([sample.step, sample.t, *map(sample.values.get, names)] for sample in samples)
    return text.getvalue().encode()
