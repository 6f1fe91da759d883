"""Finished runs as a trainer leaves them, made by the real writer, whose numbers a test chooses."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qig_core.experiments.experiment import Wanted
from qig_core.experiments.reading import Recorded
from qig_core.geometry.simplex import Basin, geodesic
from qig_core.rundir.schema import Manifest
from qig_core.rundir.writer import RunWriter
from qig_core.training.config import build, plain
from qig_core.training.corpus import default_corpus

DORMANT, AWAKENING = 100, 200
"""Steps of the phases of `charlie`: dormant 0 .. 99, awakening 100 .. 299."""
EVERY = 10
Number = Callable[[int], float | None]


def opened(root: Path, run_id: str, values: Mapping[str, Any] | None = None, **manifest: Any) -> RunWriter:
    """A run that is being written; of the real corpus and configuration where `values` are given."""
    known = {"program": "qig-core train", "versions": {"python": "3.11"}} | manifest
    if values is not None:
        known |= {
            "config": plain(build(values)),
            "corpus": {"digest": default_corpus().digest, "paths": [str(root / "text")]},
        }
    return RunWriter.create(root, Manifest(id=run_id, **known))


def tell_phase(writer: RunWriter, name: str, since: int, step: int, state: str = "judged", reason: str = "") -> None:
    writer.event("phase", step=step, name=name, since_step=since, state=state, reason=reason, guards=[])


def charlie(
    root: Path,
    run_id: str = "charlie",
    *,
    values: Mapping[str, Any] | None = None,
    phi: Number = lambda step: 0.0 if step < DORMANT else 0.7,
    control: Number = lambda step: 0.6,
    heldout: Number = lambda step: 3.0 - step / 300,
    branch: Number = lambda step: 3.1 - step / 300,
    until: int = DORMANT + AWAKENING,
    exit_code: int = 0,
    **manifest: Any,
) -> Recorded:
    """A charlie run of `until` steps, measured every EVERY."""
    with opened(root, run_id, values, **manifest) as writer:
        for step in range(0, until, EVERY):
            dormant = step < DORMANT
            writer.telemetry.log(step, {"phi": phi(step), "loss_heldout": heldout(step), "gain": float(not dormant)})
            writer.stream("control").log(step, {"phi": control(step), "loss_heldout": heldout(step)})
            if not dormant:
                writer.stream("branch").log(step, {"phi": 0.0, "loss_heldout": branch(step)})
            tell_phase(writer, "dormant" if dormant else "awakening", 0 if dormant else DORMANT, step)
        writer.close(exit_code, "a guard" if exit_code else "")
    return Recorded(writer.run)


def points(seed: int) -> tuple[Basin, Basin]:
    """Two ends of a geodesic."""
    first, second = np.random.default_rng(seed).dirichlet(np.ones(64), 2)
    return Basin(first), Basin(second)


def constellation(
    root: Path, wanted: Wanted, speeds: Mapping[str, float], *, run_id: str = "", steps: int = 60, every: int = EVERY
) -> Recorded:
    """A constellation whose Garys each go along a geodesic, by `speeds` of its length a step."""
    with opened(root, run_id or wanted.run_id, wanted.values) as writer:
        for number, (name, speed) in enumerate(speeds.items()):
            ends = points(number)
            for step in range(0, steps + 1, every):
                basin = geodesic(*ends, speed * step).astype("<f4").tobytes()
                writer.stream(name).log(step, {"phi": 0.5}, basin=basin)
        writer.close(0)
    return Recorded(writer.run)
