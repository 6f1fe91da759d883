"""`qig-tui RUN --once`: the picture as plain text or JSON, printed once. No Textual."""

import json
import time
from collections.abc import Callable
from typing import Any

from rich.cells import cell_len

from qig_core.errors import ExitCode, RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import ENDED, Liveness, Word, has_beaten
from qig_core.rundir.schema import Event, Heartbeat
from qig_tui import journal as journals
from qig_tui.charting import chart_metrics
from qig_tui.picture import BasinView, ConditionRow, RunPicture
from qig_tui.programs.constellation import advice_in_line
from qig_tui.programs.constellation import in_line as report_in_line
from qig_tui.programs.data import phase_data, plain, report_data
from qig_tui.programs.phases import current, guard_in_line, in_line
from qig_tui.series import Series
from qig_tui.sources.checkpoints import in_sight, rest_of
from qig_tui.sources.chronicle import Chronicle
from qig_tui.sources.local import LocalSource, Update, open_run
from qig_tui.sources.streams import StreamSource
from qig_tui.sources.telemetry import Telemetry
from qig_tui.text import (
    ABSENT,
    bar,
    clock,
    compact,
    duration,
    grouped,
    number,
    pad,
    pad_left,
    percent,
    quantity,
    regime_text,
    safe,
    signed,
    size,
    sparkline,
)

WATCH_S = 3.0
"""A healthy heartbeat comes within one second; a loaded machine may be late."""
_PAUSE_S = 0.05
_EVENTS = 8
_CHECKPOINTS = 6
_GUARDS = 20
_ADVICE = 3


def take(
    run: RunDir,
    *,
    at: int | None = None,
    stream: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> RunPicture:
    """Read a run whole and watch until its heartbeat has moved, or does not.

    Args:
        at: show it as it was at this step.
        stream: show the samples of this one; what is judged and what happened is the run's.

    Raises:
        RunFormatError: the manifest, the telemetry or the events cannot be read.
        LookupError: there is no such stream, or no sample of it at or before the step.
    """
    if stream is not None:
        open_run(run, stream)
    # The whole file is the tail: minima and maxima are those of the run.
    source = LocalSource(run, tail_bytes=1 << 62)
    try:
        picture = RunPicture(source.manifest)
        picture.apply(source.look())
        settle(source, picture, picture.apply, sleep=sleep)
        if stream is None:
            return picture if at is None else _as_it_was(source, source.telemetry, picture, picture, at)
        beside = StreamSource(run, stream, tail_bytes=1 << 62)
        looked = picture.of_stream(stream)
        looked.apply_stream(beside.look())
        return looked if at is None else _as_it_was(source, beside.telemetry, picture, looked, at)
    finally:
        source.close()


def settle(
    source: LocalSource, picture: RunPicture, apply: Callable[[Update], None], *, sleep: Callable[[float], None]
) -> None:
    """Of a run that has not ended: watch whether its heart beats, and have what came meanwhile folded in."""
    beat = picture.heartbeat
    if picture.liveness.word in ENDED or beat is None:
        return
    beats = _beats(source.run, beat, sleep)
    apply(source.look())
    if picture.liveness.word not in ENDED and not beats:
        picture.liveness = Liveness(Word.SILENT, f"no beat for {WATCH_S:.0f} s")


def _as_it_was(
    source: LocalSource, telemetry: Telemetry, picture: RunPicture, looked: RunPicture, step: int
) -> RunPicture:
    """Args: telemetry, looked: of the stream that is shown; picture: of the run's own."""
    moment = telemetry.index.moment(step, looked.history.branches)
    if moment is None:
        whose = "" if looked.stream is None else f" of the stream {looked.stream}"
        raise LookupError(f"{picture.manifest.id!r} has no sample{whose} at or before step {step}")
    own = None if looked.stream is None else source.index.moment(moment.step, picture.history.branches)
    chronicle = Chronicle(source.run)
    try:
        journal = chronicle.until(moment, [session.id for session in picture.manifest.sessions])
    except OSError as error:
        raise RunFormatError(f"the events cannot be read: {error.strerror}") from error
    finally:
        chronicle.close()
    return looked.until(moment, journal, own)


def _beats(run: RunDir, since: Heartbeat, sleep: Callable[[float], None]) -> bool:
    for _ in range(round(WATCH_S / _PAUSE_S)):
        if has_beaten(run.heartbeat, since):
            return True
        sleep(_PAUSE_S)
    return False


def exit_code(picture: RunPicture) -> int:
    return ExitCode.OK if picture.is_well() else ExitCode.FOUND_BAD


def status_line(picture: RunPicture) -> str:
    progress = picture.progress
    stream = "" if picture.stream is None else f" · {safe(picture.stream, 64)}"
    parts = [f"{picture.name}{stream}  {picture.liveness.glyph} {safe(picture.liveness.text, 80)}"]
    if progress.step is not None:
        total = "" if progress.total is None else f" / {grouped(progress.total)}"
        share = "" if progress.fraction is None else f" ({percent(progress.fraction)})"
        past = "" if picture.moment is None else "◀ PAST "
        parts.append(f"{past}step {grouped(progress.step)}{total}{share}")
    if progress.eta_s is not None:
        parts.append(f"ETA {duration(progress.eta_s)}")
    if picture.history.regime:
        parts.append(regime_text(picture.history.regime, 40))
    parts.append(picture.verdict()[1])
    return "  ".join(parts)


def as_text(picture: RunPicture) -> str:
    """The snapshot; every line plain text without escape sequences."""
    history, journal = picture.history, picture.journal
    moment = picture.moment
    then = (
        ""
        if moment is None
        else f", as it was at step {grouped(moment.step)}, {clock(moment.t)}; alive or not is of now"
    )
    lines = [status_line(picture), f"run {safe(picture.manifest.id, 100)}{then}"]
    lines += _program_lines(picture)
    lines += ["", _rule("METRICS"), *_metric_lines(picture)]
    lines += [
        "",
        _rule("SAFETY" if picture.watched else "SAFETY, last known"),
        *([_condition_line(row) for row in picture.condition_rows()] or ["no conditions"]),
    ]
    basin = picture.basin()
    if basin is not None:
        lines += ["", _rule("BASIN"), _basin_line(basin)]
    lines += ["", _rule("EVENTS"), *[_event_line(e) for e in list(journal.events)[-_EVENTS:]]]
    lines += ["", _rule("CHECKPOINTS"), *_checkpoint_lines(picture)]
    honesty = (
        f"{grouped(history.read)} read · {history.bad + journal.bad} bad · {history.late} late · "
        f"{size(picture.waiting_bytes)} waiting"
    )
    lines += ["", honesty]
    if picture.problem:
        lines.append(f"! {safe(picture.problem, 300)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _rule(title: str) -> str:
    return f"── {title} ".ljust(100, "─")


def _program_lines(picture: RunPicture) -> list[str]:
    """Where a run with phases stands in them, and how the Garys of a constellation do."""
    phase, report = current(picture.phases()), picture.report()
    if phase is not None:
        held = [guard_in_line(guard) for guard in phase.guards[:_GUARDS] if guard.state != "ok"]
        return ["", _rule("PHASE"), in_line(phase), *held]
    if report is not None:
        advice = [advice_in_line(each) for each in report.advice[:_ADVICE]]
        unsound = [report.soundness] if report.sound is False else []
        return ["", _rule("CONSTELLATION"), report_in_line(report), *unsound, *advice]
    return []


def _metric_lines(picture: RunPicture) -> list[str]:
    if not picture.history.metrics:
        return ["no sample yet"]
    rows: list[list[str]] = []
    for name in chart_metrics(picture):
        series = picture.history.series(name)
        unit = picture.spec(name).unit
        low, high = series.extremes or (None, None)
        last = series.last
        cells = [quantity(v, unit) for v in (None if last is None else last[1], low, high)]
        trend = sparkline(live_values(picture, series).tolist(), 24)
        rows.append([safe(name, 24), *cells, grouped(series.seen), trend])
    # As wide as what stands in it: a number without its unit would be another one.
    width = max(12, *(cell_len(cell) for row in rows for cell in row[1:4]))
    lines = [
        f"{pad(name, 24)} {' '.join(pad_left(cell, width) for cell in values)} {points:>10}  {trend}"
        for name, *values, points, trend in [["", "last", "min", "max", "points", "trend"], *rows]
    ]
    if picture.history.dropped_metrics:
        lines.append(f"{len(picture.history.dropped_metrics)} more metrics were recorded than are kept")
    return lines


def live_values(picture: RunPicture, series: Series) -> Any:
    """The values on the branch that the run is on."""
    gone = picture.history.abandoned(series)
    return series.value if gone is None else series.value[~gone]


def _condition_line(row: ConditionRow) -> str:
    c = row.condition
    unit = f" {row.unit}" if row.unit else ""
    limit = "" if c.limit is None else f"{c.comparison} {compact(c.limit)}{unit}"
    margin = "" if row.margin is None else f"▕{bar(row.margin, 8)}▏ {percent(row.margin)} left"
    state = f"{row.glyph} {row.state}"
    name = row.name if c.comparison not in ("steady", "measured") else ""
    what = pad(f"{name} {limit}", 28)
    tail = "  ".join(part for part in (margin, c.blame) if part)
    return f"{pad(state, 10)} {pad(c.id, 24)} {what} {pad_left(row.shown, 9)}  {tail}"


def _basin_line(basin: BasinView) -> str:
    velocity = "" if basin.velocity_rad is None else f"  v {number(basin.velocity_rad)} rad"
    movers = "  ".join(f"#{i:02d} {signed(d)}" for i, d in basin.movers(4))
    return (
        f"step {grouped(basin.step)}  d_ref {number(basin.distance_rad)} rad (step {grouped(basin.reference_step)})"
        f"{velocity}  top movers {movers}"
    )


def _event_line(event: Event) -> str:
    glyph = journals.SEVERITY_GLYPHS.get(event.severity, "·")
    step = pad_left(journals.at_step(event), 9)
    return f"{clock(event.t)} {glyph} {pad(safe(event.kind, 12), 12)} {step}  {journals.sentence(event)}"


def _checkpoint_lines(picture: RunPicture) -> list[str]:
    if not picture.checkpoints:
        return [
            f"! {safe(picture.checkpoints_problem, 200)}" if picture.checkpoints_problem else picture.no_checkpoints
        ]
    tagged = picture.tagged
    lines = []
    shown = in_sight(picture.checkpoints, _CHECKPOINTS)
    for entry in shown:
        words = [tag for tag, found in tagged.items() if found.name == entry.name] + [safe(t, 30) for t in entry.tags]
        mark = f"✖ {safe(entry.problem, 60)}" if entry.problem else "✓"
        step = ABSENT if entry.step is None else grouped(entry.step)
        lines.append(f"{mark} {pad(safe(entry.name, 40), 40)} step {step:>9}  {', '.join(words)}")
    if len(shown) < len(picture.checkpoints):
        lines.append(rest_of(picture.checkpoints, shown))
    return lines


def as_data(picture: RunPicture) -> dict[str, Any]:
    """The snapshot for scripts. Keys are only ever added."""
    history, progress = picture.history, picture.progress
    metrics: dict[str, Any] = {}
    for name in history.metrics:
        series = history.series(name)
        low, high = series.extremes or (None, None)
        step, value = series.last or (None, None)
        spec = picture.spec(name)
        metrics[name] = {
            "step": step, "last": plain(value), "min": low, "max": high, "points": series.seen, "unit": spec.unit
        }  # fmt: skip
    conditions = [
        {
            "id": r.condition.id,
            "state": r.condition.state,
            "unjudged": r.state == "unjudged",
            "metric": r.condition.metric,
            "comparison": r.condition.comparison,
            "limit": plain(r.condition.limit),
            "unit": r.condition.unit,
            "value": plain(r.value),
            "margin": r.margin,
            "since_step": r.condition.since_step,
            "cause": list(r.condition.cause),
        }
        for r in picture.condition_rows()
    ]
    basin = picture.basin()
    moment, report = picture.moment, picture.report()
    return {
        "run": picture.manifest.id,
        "at": None if moment is None else {"step": moment.step, "t": plain(moment.t)},
        "name": picture.manifest.name,
        "liveness": str(picture.liveness.word),
        "detail": picture.liveness.detail,
        "exit_code": picture.manifest.exit_code,
        "well": picture.is_well(),
        "step": progress.step,
        "total_steps": progress.total,
        "eta_s": plain(progress.eta_s),
        "regime": history.regime,
        "stream": picture.stream,
        "streams": list(picture.streams),
        "phases": [phase_data(phase) for phase in picture.phases() if phase.event is not None],
        "ocean": None if report is None else report_data(report),
        "metrics": metrics,
        "conditions": conditions,
        "basin": None
        if basin is None
        else {
            "step": basin.step,
            "reference_step": basin.reference_step,
            "distance_rad": basin.distance_rad,
            "velocity_rad": basin.velocity_rad,
            "values": basin.values.tolist(),
        },
        "events": [
            {"t": e.t, "step": e.step, "kind": e.kind, "severity": e.severity, "text": journals.sentence(e)}
            for e in list(picture.journal.events)[-_EVENTS:]
        ],
        "checkpoints": [
            {"name": e.name, "step": e.step, "tags": list(e.tags), "problem": e.problem} for e in picture.checkpoints
        ],
        "data": {
            "read": history.read,
            "bad": history.bad + picture.journal.bad,
            "late": history.late,
            "waiting_bytes": picture.waiting_bytes,
        },
    }


def render(picture: RunPicture, *, as_json: bool) -> str:
    return json.dumps(as_data(picture), allow_nan=False) + "\n" if as_json else as_text(picture)
