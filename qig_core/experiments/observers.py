"""Do observers drift less than actors?

Declared before the data:

hypothesis  A Gary that follows the active one's basin (an observer) drifts less than the same Gary when it learns from
            text (an actor).
fairness    Observer and actor of one run differ in birth, and birth decides how far an observer has to go. So every
            observing Gary is compared with itself: same seed, birth, text and number of updates, one a step, in a
            second constellation in which all are active. Routing is fixed: a Gary keeps its role for the whole run.
measure     Fisher–Rao distances of the basin of the fixed probe, of each seed, as the mean over its observing Garys of
            ln(as observer / as actor): of drift per update, the length of the path through all measured basins over the
            number of updates; and of drift from birth, the distance of the last from the first measured basin, both
            after equal steps.
control     The same constellation with vicarious_share = 0: observers take no update and must not drift at all
            (largest distance from birth below 1e-6 rad), or what is measured is not theirs.
null        Either mean logarithm is at least 0; resting observers drift by at least 1e-6 rad.
margins     0, of the logarithm of a ratio: any amount less is less; 1e-6 rad.
rule        All nulls are rejected over seeds, one-sided at 5 %: pass. The opposite of one claim is found at 5 %: fail.
            Else, or where a seed has no figure: inconclusive.

An observer's first updates take it towards the active basin, the later ones along with it. The ratio over the second
half of the steps and its distance to the active Gary at both ends are reported beside; nothing is judged by them.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qig_core.experiments.experiment import (
    Experiment,
    Figures,
    Line,
    Panel,
    Result,
    Runs,
    Wanted,
    column,
    mean,
    remarks,
    want,
)
from qig_core.experiments.reading import Curve, Recorded
from qig_core.experiments.verdict import judge
from qig_core.geometry.simplex import Basin, fisher_rao_distance
from qig_core.training.config import build

RATIO_MARGIN = 0.0
STILL_RAD = 1e-6
OBSERVING, ACTING, RESTING = "observing", "acting", "resting"
_LABELS = {OBSERVING: "observing", ACTING: "the same Garys, acting", RESTING: "the same Garys, resting"}


def wanted(preset: str, seed: int) -> Sequence[Wanted]:
    """Three constellations that differ in roles alone."""
    observing = want(OBSERVING, preset, "constellation", seed, routing="fixed", active=1, target="active")
    settings = build(observing.values).constellation
    assert settings is not None
    acting = want(ACTING, preset, "constellation", seed, routing="fixed", active=settings.garys, target="active")
    resting = want(
        RESTING, preset, "constellation", seed, routing="fixed", active=1, target="active", vicarious_share=0.0
    )
    return [observing, acting, resting]


def evaluate(runs: Runs) -> Result:
    """Judge the Garys that observe in the first constellation of each seed."""
    figures = {seed: _figures(of_seed) for seed, of_seed in runs.items()}
    birth, moved = [], []
    for of_seed in runs.values():
        _, observers = _roles(of_seed[OBSERVING])
        for role in (ACTING, OBSERVING, RESTING):
            basins = [of_seed[role].basins(name) for name in observers]
            birth.append(Line(label=_LABELS[role], points=_mean_curve([_from_birth(each) for each in basins])))
            if role != RESTING:
                moved.append(Line(label=_LABELS[role], points=_mean_curve([_per_update(each) for each in basins])))
    return Result(
        findings=[
            judge(
                "drift_per_update",
                "ln of drift per update, observing over acting",
                column(figures, "ln_drift_per_update"),
                below=RATIO_MARGIN,
            ),
            judge(
                "drift_from_birth",
                "ln of drift from birth, observing over acting",
                column(figures, "ln_drift_from_birth"),
                below=RATIO_MARGIN,
            ),
            judge(
                "resting_is_still",
                "drift of observers without updates",
                column(figures, "resting_rad"),
                unit="rad",
                below=STILL_RAD,
            ),
        ],
        figures=figures,
        panels=[
            Panel(title="drift from birth, mean of a seed's Garys", label="rad", lines=birth),
            Panel(title="drift per update, mean of a seed's Garys", label="rad", lines=moved),
        ],
        notes=remarks(runs),
    )


def _roles(run: Recorded) -> tuple[str, tuple[str, ...]]:
    """The first Gary that is active, and those that observe, for the whole run."""
    settings = build(run.manifest.config).constellation
    assert settings is not None
    active = settings.active_at(0)
    return active[0], tuple(name for name in settings.names if name not in active)


def _figures(of_seed: Mapping[str, Recorded]) -> Figures:
    observing, acting, resting = (of_seed[role] for role in (OBSERVING, ACTING, RESTING))
    actor, observers = _roles(observing)
    pairs = [_common(observing.basins(name), acting.basins(name)) for name in observers]
    halves = [tuple(_second_half(basins) for basins in pair) for pair in pairs]
    apart = [_common(observing.basins(name), observing.basins(actor)) for name in observers]
    rest = [distance for name in observers for distance in _from_birth(resting.basins(name)).values()]
    return {
        "updates": mean([float(max(own) - min(own)) for own, _ in pairs if own]),
        "ln_drift_per_update": _log_ratio([(_path(own), _path(other)) for own, other in pairs]),
        "ln_drift_from_birth": _log_ratio([(_net(own), _net(other)) for own, other in pairs]),
        "resting_rad": max(rest, default=None),
        "ln_drift_per_update_second_half": _log_ratio([(_path(own), _path(other)) for own, other in halves]),
        "observing_rad_per_update": _mean_of([_path(own) for own, _ in pairs]),
        "acting_rad_per_update": _mean_of([_path(other) for _, other in pairs]),
        "observing_from_birth_rad": _mean_of([_net(own) for own, _ in pairs]),
        "acting_from_birth_rad": _mean_of([_net(other) for _, other in pairs]),
        "actor_of_the_same_run_rad_per_update": _path(observing.basins(actor)),
        "actor_of_the_same_run_from_birth_rad": _net(observing.basins(actor)),
        "from_the_actor_at_first_rad": _mean_of([_apart(pair, 0) for pair in apart]),
        "from_the_actor_at_last_rad": _mean_of([_apart(pair, -1) for pair in apart]),
        "interventions": float(sum(event.kind == "intervention" for run in of_seed.values() for event in run.events)),
    }


Basins = Mapping[int, Basin]


def _common(first: Basins, second: Basins) -> tuple[Basins, Basins]:
    """Both at the steps that both have."""
    both = sorted(first.keys() & second.keys())
    return {step: first[step] for step in both}, {step: second[step] for step in both}


def _second_half(basins: Basins) -> Basins:
    middle = (min(basins) + max(basins)) / 2 if basins else 0.0
    return {step: basin for step, basin in basins.items() if step >= middle}


def _lengths(basins: Basins) -> list[float]:
    """Of the way from each measured basin to the next, rad."""
    points = np.array(list(basins.values()))
    return [] if len(points) < 2 else fisher_rao_distance(points[:-1], points[1:]).tolist()


def _path(basins: Basins) -> float | None:
    """Length of the path through all of them over the number of steps, rad an update."""
    return math.fsum(_lengths(basins)) / (max(basins) - min(basins)) if len(basins) > 1 else None


def _from_birth(basins: Basins) -> Curve:
    """Distance of each from the first, rad."""
    points = list(basins.values())
    return {step: float(fisher_rao_distance(points[0], basin)) for step, basin in basins.items()}


def _per_update(basins: Basins) -> Curve:
    """At the end of each interval: its length over its number of steps, rad an update."""
    steps = list(basins)
    spans = zip(steps, steps[1:], _lengths(basins), strict=False)
    return {end: length / (end - begin) for begin, end, length in spans}


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """At the steps that all have."""
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: math.fsum(curve[step] for curve in curves) / len(curves) for step in common}


def _net(basins: Basins) -> float | None:
    """Distance of the last from the first, rad."""
    return list(_from_birth(basins).values())[-1] if len(basins) > 1 else None


def _apart(pair: tuple[Basins, Basins], which: int) -> float | None:
    """Distance of two Garys at the first (0) or last (−1) step that both have, rad."""
    first, second = (list(basins.values()) for basins in pair)
    return float(fisher_rao_distance(first[which], second[which])) if first else None


def _log_ratio(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Mean of ln(a/b); None where one of them is not known, or 0."""
    logs = [math.log(a / b) for a, b in pairs if a and b]
    return mean(logs) if len(logs) == len(pairs) else None


def _mean_of(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


OBSERVERS = Experiment(name="observers", declared=__doc__ or "", wanted=wanted, evaluate=evaluate)
