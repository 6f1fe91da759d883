"""What went wrong, as Markdown: emergencies, alarms, and the safety conditions as they stand at the end."""

from collections.abc import Mapping, Sequence

from qig_tui.alarms.episodes import Alarm, peak
from qig_tui.alarms.words import limit_text, why_unarmed
from qig_tui.charting import ChartData
from qig_tui.journal import GLYPHS, SEVERITY_GLYPHS, SHOWN
from qig_tui.report.markdown import fenced, md, moment, step_text, table
from qig_tui.report.reading import Reading
from qig_tui.report.samples import ROWS, sample_table
from qig_tui.report.summary import standing_alarms
from qig_tui.sources.emergencies import EmergencyDetail
from qig_tui.text import ABSENT, duration, grouped, number, percent, safe

_MOST = 60


def emergency_lines(reading: Reading, charts: Sequence[ChartData], names: Mapping[str, str]) -> list[str]:
    """Every stop, the newest last. Args: names: by an emergency's id the file with its samples."""
    lines = [f"{md(reading.emergency_problem)}.", ""] if reading.emergency_problem else []
    if not reading.emergencies:
        return lines or ["None was recorded."]
    if reading.emergency_count > len(reading.emergencies):
        lines += [f"{reading.emergency_count} were recorded; the newest {len(reading.emergencies)} are told.", ""]
    for one in reading.emergencies:
        lines += [f"### {md(one.brief.id, 100)}", "", *_emergency(charts, names.get(one.brief.id, ""), one), ""]
    return lines[:-1]


def _emergency(charts: Sequence[ChartData], name: str, one: EmergencyDetail) -> list[str]:
    brief = one.brief
    note = f": {md(brief.note, 300)}" if brief.note else ""
    rows = [
        ("cause", md(f"{brief.kind} {brief.cause}".strip(), 300) or ABSENT),
        ("step", step_text(brief.step)),
        ("time", moment(brief.t)),
        ("exit code", ABSENT if brief.exit_code is None else str(brief.exit_code)),
        ("checkpoint", md(brief.checkpoint, 100) or f"none{note}"),
    ]
    if brief.stages:
        began = brief.stages[0][1]
        rows.append(("stages", " → ".join(f"{md(stage, 20)} ({duration(t - began)})" for stage, t in brief.stages)))
    if brief.has_stacks:
        rows.append(("threads", f"where each stood: emergencies/{md(brief.id, 100)}.stacks.txt in the run directory"))
    if brief.problem:
        rows.append(("problem", md(brief.problem, 300)))
    lines = table(["", ""], rows)
    if one.samples:
        shown = one.samples[-ROWS:]
        rest = f"all {len(one.samples)} with every metric: [{name}]({name})"
        lines += ["", f"The last {len(shown)} samples before it; {rest}.", "", *sample_table(charts, shown)]
    if one.traceback:
        lines += ["", *fenced([safe(line, 200) for line in one.traceback.splitlines()[-40:]])]
    return lines


def alarm_lines(reading: Reading) -> list[str]:
    """Every alarm with what is to blame and how long it lasted."""
    book = reading.alarms
    if not book.alarms:
        return ["No alarm was raised."]
    standing = standing_alarms(reading)
    shown = list(book.alarms)[-_MOST:]
    rows = [_alarm(reading, alarm, is_open=alarm.is_open(standing)) for alarm in shown]
    more = (
        [f"{grouped(book.count)} were raised; the newest {len(rows)} are told.", ""] if book.count > len(rows) else []
    )
    head = ["alarm", "raised", "why", "value then", "farthest", "limit", "lasted"]
    return [*more, *table(head, rows, right=[3, 4])]


def _alarm(reading: Reading, alarm: Alarm, *, is_open: bool) -> list[str]:
    c = alarm.condition
    glyph = GLYPHS.get(alarm.level, SEVERITY_GLYPHS["info"])
    name = md(alarm.id, 60)
    lasted = _lasted(alarm, is_open=is_open)
    if c is None:
        raised = f"{glyph} {alarm.level} at {step_text(alarm.raised.step)}"
        return [name, raised, md(alarm.text, 300), ABSENT, ABSENT, ABSENT, lasted]
    raised = " → ".join(f"{GLYPHS[t.condition.state]} {t.condition.state} at {step_text(t.step)}" for t in alarm.turns)
    unit = f" {md(c.unit, 16)}" if c.unit else ""
    values = (c.value, peak(alarm, reading.picture.run_history))
    told = [ABSENT if value is None else number(value) + unit for value in values]
    return [name, raised, md(alarm.blame or c.metric, 200), *told, md(limit_text(c), 60), lasted]


def _lasted(alarm: Alarm, *, is_open: bool) -> str:
    if not alarm.passes:
        return ABSENT
    if alarm.cleared is None:
        return "stands at the end" if is_open else "until another session began"
    steps = [] if alarm.steps is None else [f"{grouped(alarm.steps)} steps"]
    seconds = [] if alarm.seconds is None else [duration(alarm.seconds)]
    return ", ".join([*steps, *seconds, f"cleared at {step_text(alarm.cleared.step)}"])


def condition_lines(reading: Reading) -> list[str]:
    """Every condition as it stands at the end, the worst first."""
    picture, reasons = reading.picture, reading.alarms.reasons
    measured = set(picture.run_history.metrics)
    rows = []
    for row in sorted(picture.condition_rows(), key=lambda row: -SHOWN.index(row.state)):
        c = row.condition
        shown = md(row.shown, 24)
        if shown[-1:].isdigit() and row.unit:
            shown += f" {md(row.unit, 16)}"
        margin = ABSENT if row.margin is None else percent(row.margin)
        why = md(c.blame, 200)
        if c.state == "unarmed":
            profile = picture.manifest.profile
            why = md(why_unarmed(c, reasons=reasons, is_measured=measured.__contains__, profile=profile), 200)
        state, limit = f"{row.glyph} {row.state}", md(limit_text(c), 60)
        rows.append(
            [state, md(c.id, 60), md(c.metric, 60), shown, limit, margin, md(c.dwell, 40), step_text(c.since_step), why]
        )
    if not rows:
        return ["The run recorded no conditions."]
    head = ["state", "condition", "metric", "value", "limit", "margin", "in a row to raise it", "since step", "why"]
    return table(head, rows, right=[3, 5, 6, 7])
