"""From a run to the files of its report: read, choose what is drawn, lay out. Writes nothing."""

import re
from dataclasses import dataclass

from qig_core.rundir.aftermath import read_aftermath
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lineage import lineage_of
from qig_tui.charting import chart_metrics, chart_of
from qig_tui.report.document import Contents, document
from qig_tui.report.figures import Figure, figure
from qig_tui.report.reading import Reading, Tell, read
from qig_tui.report.samples import remembered, samples_csv

DOCUMENT = "report.md"
LAST_SAMPLES = "last-samples.csv"
OURS = re.compile(r"figure-\d\d-[a-z0-9_-]*\.svg|emergency-[A-Za-z0-9._-]+\.csv|last-samples\.csv")
"""Files beside the document: an earlier report's give way to a newer one's."""
HEADLINE = ("phi", "kappa", "loss", "loss_heldout", "drift_rolling", "grad_norm")
_MOST_CHARTS = 10
_LEAST_CHARTS = 4


@dataclass(frozen=True, kw_only=True)
class Report:
    """The files by their names, the document last: where it stands, the others do too."""

    files: dict[str, bytes]
    reading: Reading


def make_report(run: RunDir, tell: Tell, stream: str | None = None) -> Report:
    """Read a run and lay its report out.

    Args:
        stream: whose samples are told of; None: the run's own.

    Raises:
        RunFormatError: it cannot be read.
        LookupError: there is no such stream.
    """
    reading = read(run, tell, stream=stream)
    manifest = reading.picture.manifest
    charts = [chart_of(reading.picture, name) for name in charted(reading)]
    figures: dict[str, Figure] = {}
    for number, chart in enumerate(charts, 1):
        tell("drawing", number, len(charts))
        slug = re.sub(r"[^a-z0-9_-]+", "-", chart.metric.lower()[:40]).strip("-")
        figures[f"figure-{number:02d}-{slug}.svg"] = figure(chart, reading.story.marks)
    with_samples = [one for one in reading.emergencies if one.samples]
    tables = {one.brief.id: f"emergency-{one.brief.id}.csv" for one in with_samples}
    files = {name: drawn.svg.encode() for name, drawn in figures.items()}
    files |= {tables[one.brief.id]: samples_csv(one.samples) for one in with_samples}
    last = [remembered(sample) for sample in reading.last]
    if last:
        files[LAST_SAMPLES] = samples_csv(last)
    contents = Contents(
        reading=reading,
        charts=charts,
        figures=figures,
        lineage=lineage_of(run, manifest),
        aftermath=read_aftermath(run, manifest),
        last=last,
        last_name=LAST_SAMPLES,
        emergency_names=tables,
    )
    files[DOCUMENT] = document(contents).encode()
    return Report(files=files, reading=reading)


def charted(reading: Reading) -> list[str]:
    """What is drawn: the headline metrics, those that raised an alarm or moved first, others where these are few."""
    known = chart_metrics(reading.picture)
    worst = [alarm.condition for alarm in reading.alarms.alarms if alarm.condition is not None]
    of_stream = "" if reading.picture.stream is None else f"{reading.picture.stream}."
    alarmed = [name.removeprefix(of_stream) for c in worst for name in (c.metric, *c.cause)]
    chosen = list(dict.fromkeys(name for name in (*HEADLINE, *alarmed) if name in known))
    for name in known:
        if len(chosen) < _LEAST_CHARTS and name not in chosen:
            chosen.append(name)
    return chosen[:_MOST_CHARTS]
