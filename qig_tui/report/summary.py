"""The first screenful: what the run is, how it ended and why, how long it took, and where its metrics stood."""

import time
from collections.abc import Sequence

import numpy as np

from qig_core.rundir.aftermath import Aftermath
from qig_core.rundir.liveness import Word
from qig_tui.alarms.stops import exit_words
from qig_tui.charting import ChartData
from qig_tui.journal import ALARMS
from qig_tui.picture import WATCHED
from qig_tui.report.markdown import Cell, fenced, md, moment, table
from qig_tui.report.reading import Reading
from qig_tui.text import ABSENT, duration, grouped, percent, quantity, regime_text, safe

_LONGEST_S = 1e10
"""Three hundred years: a longer one is a clock that was wrong."""
_UNTIL = {Word.EXITED: "ended", **dict.fromkeys(WATCHED, "until now")}


def span(first: float | None, last: float | None) -> str:
    """The time between; nothing where it cannot be."""
    if first is None or last is None or not 0 <= last - first < _LONGEST_S:
        return ABSENT
    return duration(last - first)


def ended(reading: Reading, aftermath: Aftermath) -> str:
    """How it ended and why, or that it has not, in a sentence or two."""
    picture = reading.picture
    manifest, word = picture.manifest, picture.liveness.word
    step = picture.run_history.step
    where = "before its first sample" if step is None else f"at step {safe(grouped(step), 30)}"
    after = where.replace("at", "after", 1) if step is not None else where
    if word == Word.EXITED:
        code = manifest.exit_code
        told = f"It ended {where} with exit code {ABSENT if code is None else safe(code, 12)}{_meaning(code)}"
        return f"**{told}**{_why(reading)}."
    if word == Word.KILLED:
        last = "" if aftermath.last_t is None else f" The last that it wrote is of {moment(aftermath.last_t)}."
        return f"**Its process is gone {after}, and it never said why:** it was killed, or the machine went down.{last}"
    return (
        f"**It has not ended:** {md(picture.liveness.text, 80)} {where}. This is how it stood on {moment(reading.at)}."
    )


def _meaning(code: int | None) -> str:
    words = exit_words(code)
    return f" ({words})" if words else ""


def _why(reading: Reading) -> str:
    manifest = reading.picture.manifest
    said = md(manifest.reason, 300)
    newest = reading.emergencies[-1].brief if reading.emergencies else None
    session = manifest.sessions[-1].id if manifest.sessions else None
    # One of an earlier session did not end this one.
    mine = newest is not None and newest.session in (None, session)
    cause = md(f"{newest.kind} {newest.cause}".strip(), 300) if newest is not None and mine else ""
    # Most runs say the same in both places.
    parts = [part for part in (said, "" if cause in said or (said in cause and said) else cause) if part]
    return f": {'; '.join(parts)}" if parts else ""


def facts(reading: Reading, aftermath: Aftermath) -> list[str]:
    """What it is, as a table; and what it printed last, where it never came to its end."""
    picture = reading.picture
    manifest, history = picture.manifest, picture.history
    sessions = manifest.sessions
    began = sessions[0].t if sessions else manifest.created_t or reading.first_t
    last = reading.at if picture.watched else manifest.ended_t or aftermath.last_t or reading.last_t
    total = "" if manifest.total_steps is None else f" of {safe(grouped(manifest.total_steps), 30)}"
    progress = picture.progress.fraction
    share = "" if progress is None else f" ({percent(progress)})"
    at = picture.run_history.step
    step = ABSENT if at is None else f"{safe(grouped(at), 30)}{total}{share}"
    stream = [] if picture.stream is None else [("stream", f"{md(picture.stream, 64)}: its metrics, charts and basin")]
    zone = time.strftime("%Z", time.localtime())
    rows = [
        ("run", md(manifest.id, 100)),
        *stream,
        ("program", md(manifest.program, 100) or ABSENT),
        ("state", f"{picture.liveness.glyph} {md(picture.liveness.text, 80)}"),
        ("verdict", picture.verdict()[1]),
        ("step", step),
        ("alarms", _alarms(reading)),
        ("regime", md(regime_text(history.regime, 40)) if history.regime else ABSENT),
        ("began", f"{moment(began)} ({zone}, as all times here)"),
        (_UNTIL.get(picture.liveness.word, "last record"), moment(last)),
        ("duration", span(began, last)),
        ("sessions", str(len(sessions))),
        ("went back", {0: "never", 1: "once"}.get(reading.went_back, f"{grouped(reading.went_back)} times")),
    ]
    lines = table(["", ""], rows)
    if aftermath.console and picture.liveness.word == Word.KILLED:
        lines += ["", "The last lines that it printed:", "", *fenced([safe(line, 300) for line in aftermath.console])]
    for damage in aftermath.damage:
        lines += ["", f"{md(damage.text())}."]
    return lines


def _alarms(reading: Reading) -> str:
    alarms = [alarm for alarm in reading.alarms.alarms if alarm.level in ALARMS]
    standing = standing_alarms(reading)
    still = sum(alarm.is_open(standing) for alarm in alarms)
    return f"{grouped(len(alarms))}, of which {grouped(still) if still else 'none'} at the end" if alarms else "none"


def standing_alarms(reading: Reading) -> set[str]:
    """The conditions that are alarmed at the end."""
    conditions = reading.picture.journal.conditions
    return {name for name, condition in conditions.items() if condition.state in ALARMS}


def headline_rows(reading: Reading, charts: Sequence[ChartData]) -> list[list[Cell]]:
    """Of each metric that was measured: last, best with its step, extremes, how often."""
    rows: list[list[Cell]] = []
    for chart in charts:
        if chart.newest is None:
            continue

        def shown(value: float | None, unit: str = chart.unit) -> Cell:
            return md(quantity(value, unit), 40)

        low, high = chart.series.extremes or (None, None)
        step, value = chart.newest
        best = _best(reading, chart)
        told = [ABSENT, ABSENT] if best is None else [shown(best[1]), grouped(best[0])]
        name = (
            f"{md(chart.metric, 60)} ({md(chart.label, 24)})" if chart.label != chart.metric else md(chart.metric, 60)
        )
        rows.append([name, shown(value), grouped(step), *told, shown(low), shown(high), grouped(chart.seen)])
    return rows


def _best(reading: Reading, chart: ChartData) -> tuple[int, float] | None:
    """Step and value of the best point of the branch that the run is on; thinning keeps the extremes."""
    better = reading.picture.spec(chart.metric).better
    if better not in ("lower", "higher"):
        return None
    keep = np.isfinite(chart.series.value)
    if chart.abandoned is not None:
        keep &= ~chart.abandoned
    step, value = chart.series.step[keep], chart.series.value[keep]
    if not len(value):
        return None
    at = int(value.argmin() if better == "lower" else value.argmax())
    return int(step[at]), float(value[at])
