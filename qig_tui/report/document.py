"""The post-mortem as Markdown: what a reader wants first stands first. Plain data in, lines out; no disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qig_core.rundir.aftermath import Aftermath
from qig_core.rundir.lineage import Lineage
from qig_tui.charting import ChartData
from qig_tui.journal import SEVERITY_GLYPHS, sentence
from qig_tui.report.checkpoints import checkpoint_lines
from qig_tui.report.figures import Figure, name_of
from qig_tui.report.markdown import fenced, md, moment, step_text, table
from qig_tui.report.program import program_parts
from qig_tui.report.reading import Reading
from qig_tui.report.safety import alarm_lines, condition_lines, emergency_lines
from qig_tui.report.samples import ROWS, sample_table
from qig_tui.report.summary import ended, facts, headline_rows
from qig_tui.sources.emergencies import Remembered
from qig_tui.text import ABSENT, grouped, number, safe, signed

MARK = "<!-- qig-tui report -->"
"""The first line of every report: what says that a folder is one."""
_CONFIG_LINES = 400
_NEWLY_CHANGED = 60


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the document is made of, read already."""

    reading: Reading
    charts: Sequence[ChartData]
    figures: Mapping[str, Figure]
    """By the name of their file."""
    lineage: Lineage
    aftermath: Aftermath
    last: Sequence[Remembered]
    last_name: str
    """The file with all of them."""
    emergency_names: Mapping[str, str]
    """By an emergency's id the file with its samples."""


def document(contents: Contents) -> str:
    """The whole text."""
    parts: list[tuple[str, list[str]]] = [
        *program_parts(contents.reading.picture),
        ("Headline metrics", _metrics(contents)),
        ("Charts", _charts(contents)),
        ("Emergencies", emergency_lines(contents.reading, contents.charts, contents.emergency_names)),
        ("Alarms", alarm_lines(contents.reading)),
        ("Safety conditions at the end", condition_lines(contents.reading)),
        ("Timeline", _timeline(contents)),
        ("Checkpoints", checkpoint_lines(contents.reading.picture, contents.charts)),
        ("Lineage", _lineage(contents)),
        ("The basin at the end", _basin(contents)),
        ("The last samples", _last(contents)),
        ("Environment", _environment(contents)),
        ("How this was read", _honesty(contents)),
    ]
    picture = contents.reading.picture
    stream = "" if picture.stream is None else f" · {md(picture.stream, 64)}"
    lines = [MARK, "", f"# {md(picture.manifest.name or picture.manifest.id, 100)}{stream}", ""]
    lines += [ended(contents.reading, contents.aftermath), ""]
    lines += facts(contents.reading, contents.aftermath)
    for title, body in parts:
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _metrics(contents: Contents) -> list[str]:
    rows = headline_rows(contents.reading, contents.charts)
    if not rows:
        return ["No sample was recorded."]
    head = ["metric", "last", "at step", "best", "at step", "lowest", "highest", "measured"]
    return [
        *table(head, rows, right=range(1, 8)),
        "",
        "Best: as the run says which way is better, on the branch that the run ended on; – where it says neither.",
    ]


def _charts(contents: Contents) -> list[str]:
    if not contents.figures:
        return ["There is nothing to draw."]
    lines = []
    titles = {chart.metric: name_of(chart) for chart in contents.charts}
    for name, figure in contents.figures.items():
        lines += [f"![{md(titles.get(figure.metric, ''), 80)}]({name})", ""]
    return lines[:-1]


def _timeline(contents: Contents) -> list[str]:
    story = contents.reading.story
    told = story.timeline()
    if not told:
        return ["No event was recorded."]
    lines: list[str] = []
    if story.total > len(told):
        most = sorted(story.counts.items(), key=lambda one: -one[1])[:20]
        counts = [[md(kind, 40), md(severity, 20), grouped(count)] for (kind, severity), count in most]
        lines = [
            f"{grouped(story.total)} events, of which {len(told)} are told: the first, the newest, and of the others "
            "the newest that were critical, warnings, commands, or changed the way of the run.",
            "",
            *table(["kind", "severity", "events"], counts, right=[2]),
            "",
        ]
    rows = []
    place = 0
    for one in told:
        if one.place > place:
            rows.append([f"{grouped(one.place - place)} left out", "", "", "", ""])
        place = one.place + 1
        event = one.event
        glyph = SEVERITY_GLYPHS.get(event.severity, "·")
        rows.append(
            [
                moment(event.t),
                step_text(event.step),
                f"{glyph} {md(event.severity, 20)}",
                md(event.kind, 24),
                md(sentence(event), 400),
            ]
        )
    return [*lines, *table(["time", "step", "severity", "what", ""], rows, right=[1])]


def _lineage(contents: Contents) -> list[str]:
    found, reading = contents.lineage, contents.reading
    line = [md(found.run, 100)]
    for one in found.ancestors[:20]:
        at = f" at {md(one.checkpoint, 100)}" if one.checkpoint else ""
        line.append(f"{md(one.run, 100)}{at}" + (f" ({md(one.problem, 60)})" if one.problem else ""))
    lines = [f"Forked from: {' ← '.join(line[1:])}." if line[1:] else "It was not forked from another run.", ""]
    records = {session.id: session for session in reading.picture.manifest.sessions}
    rows = []
    for began in found.sessions[-_NEWLY_CHANGED:]:
        record = records.get(began.session)
        origin = f"{md(began.checkpoint, 100)}" if began.checkpoint else "the beginning"
        code = ABSENT if record is None or record.exit_code is None else safe(record.exit_code, 12)
        finished = None if record is None else record.ended_t
        host = "" if record is None else md(record.host, 60)
        rows.append([md(began.session, 16), moment(began.t), moment(finished), code, origin, host])
    head = ["session", "began", "ended", "exit code", "went on from", "host"]
    lines += table(head, rows, right=[3]) or ["No session is recorded."]
    back = [
        [
            moment(one.t),
            md(one.how, 24),
            md(one.checkpoint or "?", 100),
            step_text(one.from_step),
            step_text(one.to_step),
        ]
        for one in found.went_back[-_NEWLY_CHANGED:]
    ]
    if back:
        lines += ["", "It went back while it ran:", ""]
        lines += table(["time", "how", "to checkpoint", "from step", "to step"], back, right=[3, 4])
    if reading.abandoned:
        some = list(reading.abandoned)[-_NEWLY_CHANGED:]
        left = [[step_text(a.first), step_text(a.last), grouped(a.last - a.first + 1), moment(a.t)] for a in some]
        more = f" (the newest {len(some)} of {grouped(reading.went_back)})" if reading.went_back > len(some) else ""
        lines += ["", f"Steps that were recorded, then left behind and gone through again{more}:", ""]
        lines += table(["from", "to", "steps", "went back at"], left, right=range(3))
    return lines


def _basin(contents: Contents) -> list[str]:
    basin = contents.reading.picture.basin()
    if basin is None:
        return ["No basin was recorded."]
    rows = [
        ("step", step_text(basin.step)),
        (
            "distance to the reference",
            f"{number(basin.distance_rad)} rad (Fisher–Rao, to step {step_text(basin.reference_step)})",
        ),
        ("velocity", ABSENT if basin.velocity_rad is None else f"{number(basin.velocity_rad)} rad to the one before"),
    ]
    movers = [[f"#{i:02d}", number(float(basin.values[i])), signed(d, 4)] for i, d in basin.movers(8)]
    moved = table(["entry", "value", "since the reference"], movers, right=range(3)) or ["No entry has moved."]
    return [*table(["", ""], rows), "", *moved]


def _last(contents: Contents) -> list[str]:
    last, name = contents.last, contents.last_name
    if not last:
        return ["No sample was recorded."]
    shown = last[-ROWS:]
    lead = f"The last {len(shown)}; the last {len(last)} with every metric: [{name}]({name})."
    return [lead, "", *sample_table(contents.charts, shown)]


def _environment(contents: Contents) -> list[str]:
    manifest = contents.reading.picture.manifest
    session = manifest.sessions[-1] if manifest.sessions else None
    revision = ABSENT
    if manifest.git is not None:
        revision = md(manifest.git.revision, 60) + (" with changes that are not committed" * manifest.git.dirty)
    rows = [
        ("program", md(manifest.program, 100) or ABSENT),
        ("host", ABSENT if session is None else md(session.host, 100)),
        ("user", md(manifest.user, 60) or ABSENT),
        ("folder", md(manifest.cwd, 300) or ABSENT),
        ("command", ABSENT if session is None else md(" ".join(session.argv[:100]), 1000) or ABSENT),
        ("threads", ABSENT if manifest.threads is None else safe(manifest.threads, 20)),
        ("revision", revision),
        *((md(name, 60), md(version, 60)) for name, version in list(manifest.versions.items())[:60]),
    ]
    return [
        *table(["", ""], rows),
        "",
        "Configuration, as recorded; what looks like a secret is `***` there:",
        "",
        *_json(manifest.config),
    ]


def _json(value: Any) -> list[str]:
    try:
        lines = json.dumps(value, indent=2, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):
        return ["It cannot be shown: it is nested too deep, or holds numbers without end."]
    shown = [safe(line, 300) for line in lines[:_CONFIG_LINES]]
    if len(lines) > len(shown):
        shown.append(f"… and {grouped(len(lines) - len(shown))} more lines")
    return fenced(shown, "json")


def _honesty(contents: Contents) -> list[str]:
    reading = contents.reading
    history, journal = reading.picture.history, reading.picture.journal
    lines = [
        f"Read on {moment(reading.at)}: {grouped(history.read)} samples and {grouped(journal.read)} events. Bad lines: "
        f"{grouped(history.bad)} of telemetry, {grouped(journal.bad)} of events. Late, with a seq that is not above "
        f"the one before, and so without a place: {grouped(history.late)} samples."
    ]
    drawn = [
        [md(figure.metric, 60), grouped(figure.drawn), grouped(figure.measured)] for figure in contents.figures.values()
    ]
    if drawn:
        lines += [
            "",
            "A chart keeps every extreme and the mean of all points, however many are left out:",
            "",
            *table(["metric", "points drawn", "points measured"], drawn, right=[1, 2]),
        ]
    if history.unreadable:
        rows = [[grouped(bad.offset), md(bad.reason, 200)] for bad in list(history.unreadable)[-5:]]
        lines += ["", *table(["bad line at byte", "why"], rows, right=[0])]
    if history.dropped_metrics:
        lines += ["", f"{len(history.dropped_metrics)} more metrics were recorded than are kept."]
    if reading.picture.problem:
        lines += ["", f"{md(reading.picture.problem, 300)}."]
    return lines
