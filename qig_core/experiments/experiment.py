"""What an experiment is made of: the runs that it needs, and what it makes of what they recorded. Plain data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qig_core.experiments.reading import Curve, Recorded
from qig_core.experiments.verdict import Finding, Word, together
from qig_core.training.config import build, digest, merge, preset


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run, by what it is to be trained with."""

    role: str
    """What it is in its experiment: "charlie", "acting"."""
    seed: int
    values: Mapping[str, Any]
    """A configuration as nested plain values."""

    @property
    def run_id(self) -> str:
        """The same for the same configuration, whichever experiment wants it; another for any other."""
        return f"{self.role}-seed{self.seed}-{digest(build(self.values))[:8]}"


def want(role: str, preset_name: str, program: str, seed: int, **over: Any) -> Wanted:
    """A run of a preset, with another seed and the program's table changed by `over`. Raises: ConfigError."""
    changed = {"seed": seed} | ({program: over} if over else {})
    return Wanted(role=role, seed=seed, values=merge(preset(preset_name, program), changed))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a picture."""

    label: str
    """Lines of one label have one colour and one entry in the legend."""
    points: Curve


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of a picture: curves over steps."""

    title: str
    label: str
    """Of the vertical axis, with its unit."""
    lines: Sequence[Line]


Figures = Mapping[str, float | None]
"""Of one seed, by name; None: it could not be measured."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an experiment found."""

    findings: Sequence[Finding]
    figures: Mapping[str, Figures]
    """By seed: everything that was measured, also what nothing is judged by."""
    panels: Sequence[Panel]
    notes: Sequence[str] = field(default_factory=tuple)
    """What a reader must know: runs that did not come to their end."""

    @property
    def verdict(self) -> Word:
        return together(self.findings)


Runs = Mapping[str, Mapping[str, Recorded]]
"""By seed ("seed 0"), then by role."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A protocol. What is declared before the data is the text of its module."""

    name: Literal["suppression", "awakening", "observers"]
    declared: str
    wanted: Callable[[str, int], Sequence[Wanted]]
    """(preset, seed) to runs, one a role."""
    evaluate: Callable[[Runs], Result]


def column(figures: Mapping[str, Figures], name: str) -> dict[str, float | None]:
    """One figure of every seed."""
    return {seed: of_seed[name] for seed, of_seed in figures.items()}


def mean(values: Sequence[float]) -> float | None:
    """None of none."""
    return math.fsum(values) / len(values) if values else None


def less(a: float | None, b: float | None) -> float | None:
    """a − b; None where one is not known."""
    return None if a is None or b is None else a - b


def remarks(runs: Runs) -> list[str]:
    """Of every run that did not end in order, a sentence; and one if they were not all trained by the same program."""
    manifests = [run.manifest for of_seed in runs.values() for run in of_seed.values()]
    notes = [
        f"{manifest.id} stopped with exit code {manifest.exit_code}: {manifest.reason}"
        for manifest in manifests
        if manifest.exit_code != 0
    ]
    programs = [(manifest.git and manifest.git.revision, manifest.versions) for manifest in manifests]
    if any(program != programs[0] for program in programs):
        notes.append(
            "these runs were not all trained by one revision and the same versions: what differs may be theirs"
        )
    return notes
