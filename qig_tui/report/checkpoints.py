"""The checkpoints of a run as a table: where they stand, what they were worth, what is wrong at first sight."""

from collections.abc import Sequence

from qig_core.rundir.schema import CheckpointManifest
from qig_tui.charting import ChartData
from qig_tui.picture import RunPicture, score_rule
from qig_tui.records import NONFINITE
from qig_tui.report.markdown import Cell, md, moment, table
from qig_tui.sources.checkpoints import in_sight, rest_of
from qig_tui.text import ABSENT, grouped, number, safe

_MOST = 100
_METRICS = 4


def checkpoint_lines(picture: RunPicture, charts: Sequence[ChartData]) -> list[str]:
    entries = picture.checkpoints
    if not entries:
        why = picture.checkpoints_problem
        return [f"{md(why, 200)}." if why else "None is there."]
    score, lower = score_rule(picture.manifest)
    tags = {tag: entry.name for tag, entry in picture.tagged.items()}
    shown = in_sight(entries, _MOST)
    names = [chart.metric for chart in charts[:_METRICS]]
    gone = picture.went_back
    rows = []
    for entry in shown:
        found = entry.manifest
        words = [*(tag for tag, name in tags.items() if name == entry.name), *(md(t, 30) for t in entry.tags[:8])]
        if entry.name in gone:
            words.append("on a branch that was left")
        rows.append(
            [
                md(entry.name, 100),
                ABSENT if entry.step is None else safe(grouped(entry.step), 30),
                moment(entry.t),
                ABSENT if found is None else md(found.reason, 24),
                *(_value(found, name) for name in names),
                ", ".join(words),
                f"✖ {md(entry.problem, 100)}" if entry.problem else "✓ complete",
            ]
        )
    numbers = range(4, 4 + len(names))
    head: list[Cell] = ["name", "step", "time", "reason", *(md(name, 40) for name in names), "tags", "at first sight"]
    way = "lower" if lower else "higher"
    lines = [
        *table(head, rows, right=[1, *numbers]),
        "",
        f"Newest published first. Best is by {md(score, 60)} ({way} is better). At first sight means names and sizes: "
        "digests are checked by `qig-core checkpoints verify`.",
    ]
    if len(shown) < len(entries):
        lines += ["", f"{rest_of(entries, shown)}."]
    return lines


def _value(manifest: CheckpointManifest | None, name: str) -> str:
    if manifest is None or name not in manifest.metrics:
        return ABSENT
    value = manifest.metrics[name]
    return number(NONFINITE.get(manifest.nonfinite.get(name, "nan")) if value is None else value)
