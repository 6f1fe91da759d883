"""What an experiment leaves behind: one JSON document with everything, and a picture drawn from it alone."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RecordWriteError
from qig_core.experiments.experiment import Experiment, Panel, Result, Runs
from qig_core.experiments.verdict import ALPHA
from qig_core.rundir.atomic import write_document
from qig_core.rundir.host import versions

FORMAT = 1
_DIGITS = 6


def document(experiment: Experiment, preset: str, runs: Runs, result: Result) -> dict[str, Any]:
    """Everything as plain data: what was declared, what was found, and the runs that it was found in.

    Curves, which are for the picture, have six significant digits; figures have all of theirs.
    """
    facts = {seed: {role: run.facts() for role, run in of_seed.items()} for seed, of_seed in runs.items()}
    durations = [each["duration_s"] for of_seed in facts.values() for each in of_seed.values()]
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "verdict": result.verdict,
        "declared": experiment.declared.strip().splitlines(),
        "alpha": ALPHA,
        "preset": preset,
        "seeds": list(runs),
        "findings": [msgspec.to_builtins(finding) for finding in result.findings],
        "figures": result.figures,
        "notes": list(result.notes),
        "training_s": None if None in durations else sum(durations),
        "versions": versions() | {name: version(name) for name in ("scipy", "matplotlib")},
        "runs": facts,
        "panels": [_panel(panel) for panel in result.panels],
    }


def write(out: Path, found: dict[str, Any]) -> Sequence[Path]:
    """`<out>/<experiment>.json` and `.svg`, each replaced whole. Raises: RecordWriteError, MissingExtra."""
    from qig_core.experiments.picture import draw

    contents = {"json": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n", "svg": draw(found)}
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, content in contents.items():
            path = out / f"{found['experiment']}.{suffix}"
            write_document(path, content)
            paths.append(path)
    except OSError as error:
        raise RecordWriteError(f"{str(out)!r}: nothing could be written there: {error.strerror}") from error
    return paths


def _panel(panel: Panel) -> dict[str, Any]:
    def rounded(value: float) -> float:
        return float(f"{value:.{_DIGITS}g}")

    lines = [
        {"label": line.label, "steps": list(line.points), "values": [rounded(value) for value in line.points.values()]}
        for line in panel.lines
    ]
    return {"title": panel.title, "label": panel.label, "lines": lines}
