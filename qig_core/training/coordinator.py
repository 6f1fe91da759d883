"""Who acts on a Gary, and when: what the Ocean recommends where the configuration allows it, and what safety asks for.

The Ocean itself never touches one. What it recommends is decided before a step is judged and carried out after it, so
that a checkpoint of that step holds what was before, and a resume does the same again. A Gary that is taken back by
safety has no update at that step, which the checkpoint knows. Each is told in an `intervention` event.
"""

from collections.abc import Mapping
from typing import Any

import torch

from qig_core.checkpoints.recovery import load
from qig_core.errors import CheckpointError
from qig_core.geometry.simplex import Basin
from qig_core.rundir.writer import RunWriter
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.training.config import TrainConfig
from qig_core.training.interventions import Intervention, dream, escape, perturb, sleep
from qig_core.training.ocean import Ocean, Report
from qig_core.training.program_config import Verb
from qig_core.training.pull import basin, distance_to
from qig_core.training.trainer import Trainer


class Coordinator:
    """Counts how often a Gary was taken back, and carries out what is to be done."""

    def __init__(self, config: TrainConfig, trainers: Mapping[str, Trainer], ocean: Ocean) -> None:
        assert config.constellation is not None
        self._settings = config.constellation
        self._seed = config.seed
        self._trainers = trainers
        self._ocean = ocean
        self._taken_back = dict.fromkeys(trainers, 0)
        self._resting: dict[str, int] = {}
        """The step at which safety took a Gary back: it has no update at that one."""
        self._step = 0
        self._pending: list[tuple[Verb, str, str]] = []
        """(verb, Gary, why), to be carried out after this step's update."""

    def begin_step(self, step: int) -> None:
        self._step, self._pending = step, []

    def updates(self, name: str) -> bool:
        """Whether a Gary takes the update of this step: not where it was taken back at it."""
        return self._resting.get(name) != self._step

    def consider(self, report: Report) -> None:
        """Note what the Ocean's report asks to be carried out, one thing a Gary: the most pressing."""
        asked = [each for each in reversed(report.recommendations) if each.rung == "act"]
        self._pending = [(each.verb, name, each.text) for name, each in {each.gary: each for each in asked}.items()]

    def act(self, step: int, monitor: IntegratedMonitor) -> None:
        """After a step's update: carry out what was noted, and tell the Ocean of every Gary that is another now."""
        for name, at in self._resting.items():
            if at == step:
                self._ocean.carried_out(name)
        for verb, name, why in self._pending:
            if not self.updates(name):
                continue
            if verb == "escape":
                done = self.take_back(name, step, why, monitor, by="ocean")
            else:
                found = self._intervene(verb, name, step)
                if done := found is not None:
                    _tell(monitor.writer, step, found, by="ocean", why=why)
            if done:
                self._ocean.carried_out(name)

    def relieve(self, name: str, step: int, why: str, monitor: IntegratedMonitor) -> bool:
        """Safety's call, while a step is judged: take one Gary back and leave its update out; whether that was done."""
        if not self.take_back(name, step, why, monitor, by="safety"):
            return False
        self._resting[name] = step
        return True

    def take_back(self, name: str, step: int, why: str, monitor: IntegratedMonitor, *, by: str) -> bool:
        """escape: θ, the optimiser's moments and the basin's past become those of the last known good checkpoint.

        Nothing of another Gary, of the data's position or of the random generators changes. False, with an alert that
        says why, where it cannot be.
        """
        limit = self._settings.soft_resets
        if self._taken_back[name] >= limit:
            _alert(monitor.writer, step, f"{name} is not taken back: it was {limit} times, and more may not be")
            return False
        for checkpoint in monitor.known_good:
            try:
                state, _ = load(monitor.writer.run, checkpoint)
            except CheckpointError as error:
                _alert(monitor.writer, step, f"{name} is not taken back to {checkpoint}: {error}")
                continue
            done = escape(name, self._trainers[name], state[name])
            _tell(monitor.writer, step, done, by=by, why=f"{why}; taken back to {checkpoint}")
            if done.undone:
                continue
            self._taken_back[name] += 1
            return True
        _alert(monitor.writer, step, f"{name} is not taken back: no checkpoint is known to be good")
        return False

    def _intervene(self, verb: Verb, name: str, step: int) -> Intervention | None:
        """What can be done to a Gary as it stands; None where there is nothing to do it by."""
        trainer, settings = self._trainers[name], self._settings.interventions
        seed = self._seed + 1 + list(self._trainers).index(name)
        if verb == "dream":
            return dream(name, trainer, settings, seed=seed, step=step)
        if verb == "perturb":
            return perturb(name, trainer, settings, seed=seed, step=step, away_from=self._nearest(name))
        reference = trainer.basin.reference
        return None if reference is None else sleep(name, trainer, reference, settings)

    @torch.no_grad()
    def _nearest(self, name: str) -> Basin:
        """Where the Gary stands that is nearest to this one now."""
        points = {other: basin(trainer.kernel, trainer.probe) for other, trainer in self._trainers.items()}
        here = points.pop(name)
        nearest = min(points.values(), key=lambda point: distance_to(here, point).item())
        return Basin(nearest.numpy())

    def state(self) -> dict[str, Any]:
        """Plain data; what was noted for a step is noted again when the step is repeated."""
        return {"taken_back": dict(self._taken_back), "resting": dict(self._resting)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._taken_back = {name: int(count) for name, count in state["taken_back"].items()}
        self._resting = {name: int(step) for name, step in state["resting"].items()}
        self._pending = []


def _alert(writer: RunWriter, step: int, text: str) -> None:
    writer.event("alert", step=step, severity="warning", text=text)


def _tell(writer: RunWriter, step: int, done: Intervention, *, by: str, why: str) -> None:
    data = done.to_dict()
    data["reason"] = "; ".join(filter(None, (why, data["reason"])))
    writer.event("intervention", step=step, severity="warning", by=by, **data)
