"""A constellation: several kernels ("Garys") in one run, watched by a frozen Ocean. Who learns from what: the routing.

At a step the active Garys learn from the batch, all from the same one. An observer sees no text; it takes one step down
the Fisher–Rao distance from its own basin to a detached target: the active basins' Fréchet mean, or that of all. Every
Gary is judged by the profile's limits under its own name ("gary2.divergence"); one that goes wrong alone is taken back
alone, to its part of the last checkpoint that is known to be good, and only where that cannot be does the run stop.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from qig_core.geometry.simplex import Basin, frechet_mean
from qig_core.measures.basin import BasinTracker
from qig_core.rundir.schema import MetricSpec
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import OFF, Profile, Threshold
from qig_core.safety.several import of_several
from qig_core.safety.verdict import Verdict
from qig_core.training.config import TrainConfig
from qig_core.training.coordinator import Coordinator
from qig_core.training.corpus import Corpus
from qig_core.training.ocean import Ocean, Report, Sighting
from qig_core.training.program import Look, Metrics, look_at
from qig_core.training.pull import Descent, basin, descent
from qig_core.training.specs import OF_A_GARY, constellation_specs
from qig_core.training.trainer import Trainer


class Constellation:
    """The program `constellation`; see the module."""

    outcome = ""
    remedy = ""

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        assert config.constellation is not None
        self.config = config
        self.corpus = corpus
        self.settings = settings = config.constellation
        self.trainers = {
            name: Trainer(config, corpus, seed=config.seed + number + 1) for number, name in enumerate(settings.names)
        }
        first = next(iter(self.trainers.values()))
        self._probe = first.probe
        """Of all of them, and of the Ocean: basins that are read otherwise could not be compared."""
        self.probe = self._probe.facts()
        watch_from = max(200, 2 * config.optimizer.warmup_steps)
        self.ocean = Ocean(config.kernel, self._probe, settings.ocean, seed=config.seed, watch_from=watch_from)
        self.coordinator = Coordinator(config, self.trainers, self.ocean)
        self.profile = _profile(first.profile, settings.names, settings.ocean.collapse_floor_rad)
        self.specs: list[MetricSpec] = constellation_specs(config.optimizer.name, settings.names)
        self.mean = BasinTracker()
        """Of the Fréchet mean of all basins."""
        self._active: tuple[str, ...] = ()
        self._learnt: dict[str, Metrics] = {}
        self._descents: dict[str, Descent] = {}
        self._seen: dict[str, Look] = {}
        self._begun: dict[str, Any] = {}
        self._monitor: IntegratedMonitor | None = None

    @property
    def tokens_per_step(self) -> int:
        return self.settings.active * next(iter(self.trainers.values())).tokens_per_step

    def state(self) -> dict[str, Any]:
        garys = {name: trainer.state() for name, trainer in self.trainers.items()}
        return garys | {"constellation": self._begun | {"coordinator": self.coordinator.state()}}

    def load(self, state: Mapping[str, Any]) -> None:
        for name, trainer in self.trainers.items():
            trainer.load(state[name])
        own = state["constellation"]
        self.mean = BasinTracker.from_state(own["mean"])
        self.ocean.restore_history(own["ocean"])
        self.coordinator.restore(own["coordinator"])

    def scale_lr(self, factor: float) -> None:
        for trainer in self.trainers.values():
            trainer.scale_lr(factor)

    def data_position(self, step: int) -> dict[str, Any]:
        return next(iter(self.trainers.values())).data_position(step) | {"active": list(self.settings.active_at(step))}

    def begin_step(self, step: int) -> None:
        self._active = self.settings.active_at(step)
        self._begun = {"mean": self.mean.state(), "ocean": self.ocean.history()}
        self.coordinator.begin_step(step)
        for trainer in self.trainers.values():
            trainer.begin_step()

    def learn(self, step: int) -> Metrics:
        self._learnt = {name: self.trainers[name].forward_backward(step) for name in self._active}
        self._descents = dict(self._follow())
        for name, found in self._descents.items():
            self._learnt[name] = {"vicarious": found.distance}
        return {}

    def look(self, *, heldout: bool, measure: bool) -> Look:
        self._seen = {
            name: look_at(trainer, heldout=heldout, measure=measure) for name, trainer in self.trainers.items()
        }
        return Look()

    def attend(self, step: int, look: Look, monitor: IntegratedMonitor) -> None:
        self._monitor = monitor
        last = step == self.config.steps
        metrics = look.metrics
        for name, trainer in self.trainers.items():
            seen, learnt = self._seen[name], {} if last else self._learnt.get(name, {})
            own = learnt | seen.metrics | {"active": float(name in self._active)}
            if "loss" in learnt:
                own["breakdown_pct"] = trainer.breakdown.observe(step, own, seen.regime)
            measured = seen.basin is not None or "loss_heldout" in own
            if measured or monitor.records(step):
                monitor.writer.stream(name).log(step, own, basin=seen.basin, regime=seen.regime)
            seen.metrics = own
            kept = (key for key in own if key in OF_A_GARY or key.startswith("drift_"))
            metrics |= {f"{name}.{key}": own[key] for key in kept}
        for key in ("loss", "loss_heldout", "phi", "kappa", "grad_norm"):
            metrics[key] = _mean(seen.metrics.get(key) for seen in self._seen.values())
        reasons = {f"{name}.{key}": why for name, seen in self._seen.items() for key, why in seen.reasons.items()}
        look.reasons = reasons
        if any("phi" in seen.metrics for seen in self._seen.values()):
            self._observe(step, look, monitor)

    def update(self, step: int) -> None:
        for name in self._active:
            if self.coordinator.updates(name):
                self.trainers[name].update()
        for name, found in self._descents.items():
            if self.coordinator.updates(name):
                found.take(self.settings.vicarious_share)
        assert self._monitor is not None
        self.coordinator.act(step, self._monitor)

    def relieve(self, step: int, critical: Sequence[Verdict]) -> Collection[str]:
        """Take the Garys that went wrong alone back, each by itself; the ids of the conditions that are about them."""
        assert self._monitor is not None
        names = dict.fromkeys(verdict.id.rpartition(".")[0] for verdict in critical)
        if not all(name in self.trainers for name in names) or len(names) == len(self.trainers):
            return ()  # what is wrong with all of them, or with none of them, is the run's
        causes = {name: "; ".join(each.text() for each in critical if each.id.startswith(f"{name}.")) for name in names}
        taken = [name for name in names if self.coordinator.relieve(name, step, causes[name], self._monitor)]
        return {limit.id for limit in self.profile.limits if limit.id.rpartition(".")[0] in taken}

    def _follow(self) -> Iterator[tuple[str, Descent]]:
        """Of every observer, the way down to what it follows; none where there is nothing to follow."""
        observers = [name for name in self.trainers if name not in self._active]
        if not observers or self.settings.vicarious_share == 0.0:
            return
        followed = self._active if self.settings.target == "active" else tuple(self.trainers)
        points = [found for name in followed if (found := self._basin(name)) is not None]
        if not points:
            return
        target = Basin(points[0] if len(points) == 1 else frechet_mean(points))
        for name in observers:
            trainer = self.trainers[name]
            way = descent(trainer.kernel, self._probe, target, trainer.learning)
            if way is not None:
                yield name, way

    @torch.no_grad()
    def _basin(self, name: str) -> Basin | None:
        """Where a Gary stands now; None where it is broken."""
        point = basin(self.trainers[name].kernel, self._probe).double().numpy()
        return Basin(point / point.sum()) if np.all(np.isfinite(point)) else None

    def _observe(self, step: int, look: Look, monitor: IntegratedMonitor) -> None:
        """Let the Ocean see what was measured, and tell what it says."""
        report: Report = self.ocean.observe(step, [self._sighting(name) for name in self.trainers])
        found = report.to_dict()
        monitor.writer.event("ocean", step=step, **found)
        look.metrics |= {
            "pairwise_min": found["min_rad"],
            "pairwise_max": found["max_rad"],
            "frechet_variance": found["variance"],
            "resultant": found["coherence"],
        }
        if report.mean is not None:
            look.basin = report.mean.astype("<f4").tobytes()
            look.metrics |= self.mean.observe(report.mean)
        self.coordinator.consider(report)

    def _sighting(self, name: str) -> Sighting:
        seen = self._seen[name]
        metrics = seen.metrics
        return Sighting(
            name=name,
            role="active" if name in self._active else "observer",
            basin=None if seen.basin is None else _point(seen.basin),
            phi=metrics.get("phi"),
            kappa=metrics.get("kappa"),
            loss=metrics.get("loss"),
            loss_heldout=metrics.get("loss_heldout"),
            velocity=metrics.get("drift_velocity"),
            drift=metrics.get("drift_rolling"),
        )


def _point(basin: bytes) -> Basin:
    point = np.frombuffer(basin, dtype="<f4").astype(np.float64)
    return Basin(point / point.sum())


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there and finite; None where none is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _profile(profile: Profile, names: Sequence[str], floor_rad: float) -> Profile:
    """The limits of one kernel for each Gary, and that no two of them become the same."""
    if profile == OFF:
        return profile
    collapse = Threshold(
        id="collapse",
        metric="pairwise_min",
        comparison=">=",
        value=floor_rad,
        unit="rad",
        severity="warning",
        dwell=3,
        hysteresis=0.1 * floor_rad,
    )
    several = of_several(profile, names)
    return msgspec.structs.replace(several, limits=(*several.limits, collapse))
