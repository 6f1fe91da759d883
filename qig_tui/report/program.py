"""The phases of a run, or the Garys of a constellation, as parts of a report. Plain data in, lines out."""

from collections.abc import Sequence

from qig_tui.picture import RunPicture
from qig_tui.programs.constellation import NUMBERS, Report, in_line
from qig_tui.programs.phases import Phase, current
from qig_tui.programs.words import intervention_words
from qig_tui.report.markdown import Cell, md, step_text, table
from qig_tui.text import ABSENT, compact, number

_MOST_DONE = 40


def program_parts(picture: RunPicture) -> list[tuple[str, list[str]]]:
    """A title and its lines; nothing of a run that has neither phases nor an Ocean."""
    phases, report = picture.phases(), picture.report()
    parts = []
    if phases:
        parts.append(("Phases", _phases(phases)))
    if report is not None:
        done = [
            [step_text(event.step), md(intervention_words(event.data), 400)]
            for event in list(picture.journal.interventions)[-_MOST_DONE:]
        ]
        told = table(["step", "done to a Gary"], done, right=[0]) or ["Nothing was done to a Gary."]
        parts.append(("Constellation", [*_constellation(report), "", *told]))
    return parts


def _phases(phases: Sequence[Phase]) -> list[str]:
    rows: list[list[Cell]] = [
        [
            str(phase.index),
            md(phase.name, 40),
            f"{phase.glyph} {phase.state}",
            step_text(phase.since_step),
            step_text(phase.earliest_step),
            step_text(phase.latest_step),
            md(phase.told, 400),
        ]
        for phase in phases
    ]
    head = ["", "phase", "state", "since step", "may end at", "must end by", "guards"]
    lines = table(head, rows, right=[0, 3, 4, 5])
    latest = current(phases)
    if latest is not None and latest.guards:
        guards: list[list[Cell]] = [
            [
                f"{guard.glyph} {guard.state}",
                md(guard.label, 80),
                number(guard.value) if guard.value is not None else f"{ABSENT} {md(guard.why, 120)}",
                md(guard.bound, 40),
            ]
            for guard in latest.guards
        ]
        lines += ["", f"The guards of {md(latest.name, 40)} at step {step_text(latest.step)}:", ""]
        lines += table(["state", "guard", "value", "must be"], guards, right=[2])
    return lines


def _constellation(report: Report) -> list[str]:
    lines = [f"At step {step_text(report.step)}: {md(in_line(report), 300)}. {md(report.soundness, 120)}.", ""]
    rows: list[list[Cell]] = [
        [
            md(gary.name, 40),
            md(gary.role_text, 20),
            *(number(gary.numbers[key]) for key in NUMBERS),
            md(gary.remarks, 200),
        ]
        for gary in report.garys
    ]
    lines += table(["Gary", "role", *(key.replace("_", " ") for key in NUMBERS), "flags"], rows, right=range(2, 10))
    if report.too_near and report.floor_rad is not None:
        names = report.names
        pairs = ", ".join(f"{names[p.first]} and {names[p.second]} ({number(p.rad)} rad)" for p in report.too_near[:20])
        lines += ["", f"▼ Under the floor of {compact(report.floor_rad)} rad: {md(pairs, 1000)}."]
    advice: list[list[Cell]] = [
        [md(each.rung_text, 20), md(f"{each.verb} {each.gary}", 60), md(each.said, 300), step_text(each.since_step)]
        for each in report.advice[:20]
    ]
    recommended = table(["rung", "recommended", "evidence", "since step"], advice, right=[3])
    return [*lines, "", *(recommended or ["The Ocean recommends nothing."])]
