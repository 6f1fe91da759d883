"""What the loop drives: a program of one kernel or of several. Of a run directory only its streams and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from qig_core.measures.measurement import NOT_NOW, Measurement
from qig_core.rundir.schema import MetricSpec
from qig_core.safety.integrated import IntegratedMonitor, Relieve
from qig_core.safety.profile import Profile
from qig_core.training.config import TrainConfig
from qig_core.training.corpus import Corpus
from qig_core.training.specs import specs_of
from qig_core.training.trainer import Trainer

Metrics = dict[str, float | None]


@dataclass(kw_only=True)
class Look:
    """What a step showed of a program, as its record holds it; a program may still add metrics to it."""

    metrics: Metrics = field(default_factory=dict)
    basin: bytes | None = None
    regime: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


class Program(Protocol):
    """What a run trains. A step: `begin_step`, `learn`, `look`, `attend`, then the judgement, and `update` if it may.

    Everything that changes before the judgement is saved as it was when the step began: a resume repeats that step.
    """

    @property
    def config(self) -> TrainConfig: ...
    @property
    def corpus(self) -> Corpus: ...
    @property
    def profile(self) -> Profile:
        """What the run is judged by."""
        ...

    @property
    def specs(self) -> list[MetricSpec]:
        """Of the run's own metrics."""
        ...

    @property
    def probe(self) -> dict[str, Any]:
        """What phi, kappa and the basin are measured on, for the manifest."""
        ...

    @property
    def relieve(self) -> Relieve | None:
        """What it does for one of several models alone, see IntegratedMonitor; None where there is one."""
        ...

    @property
    def outcome(self) -> str:
        """What came of it, in a few words, where it ended in order; empty where that is not for it to say."""
        ...

    @property
    def remedy(self) -> str:
        """What to do where the program itself stopped the run; empty where it did not."""
        ...

    @property
    def tokens_per_step(self) -> int: ...

    def state(self) -> dict[str, Any]:
        """What a resume needs to go on bit by bit; tensors and plain data."""
        ...

    def load(self, state: Mapping[str, Any]) -> None: ...
    def scale_lr(self, factor: float) -> None: ...
    def data_position(self, step: int) -> dict[str, Any]: ...
    def begin_step(self, step: int) -> None: ...

    def learn(self, step: int) -> Metrics:
        """Compute the gradients of a step; nothing is updated yet."""
        ...

    def look(self, *, heldout: bool, measure: bool) -> Look:
        """Evaluate and measure what is asked for, and what is known at every step."""
        ...

    def attend(self, step: int, look: Look, monitor: IntegratedMonitor) -> None:
        """With all that is known of the step, before it is judged: further metrics, streams, what is decided."""
        ...

    def update(self, step: int) -> None:
        """Take the step that `learn` prepared."""
        ...


def look_at(trainer: Trainer, *, heldout: bool, measure: bool) -> Look:
    """One kernel, looked at."""
    metrics: Metrics = {}
    if trainer.tokens is not None:
        metrics["tokens"] = float(trainer.tokens)
    if heldout:
        metrics["loss_heldout"] = trainer.heldout_loss()
    seen: Measurement = trainer.measure() if measure else NOT_NOW
    if measure:
        metrics |= seen.metrics()  # what is not finite among them is judged, not hidden
    return Look(metrics=metrics, basin=seen.basin_bytes, regime=seen.regime, reasons=seen.reasons)


class Solo:
    """One kernel, plainly trained."""

    relieve = None
    outcome = ""
    remedy = ""

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        self.config = config
        self.corpus = corpus
        self.trainer = Trainer(config, corpus)
        self.specs = specs_of(config.optimizer.name)
        self.probe = self.trainer.probe.facts()
        self.profile = self.trainer.profile
        self.tokens_per_step = self.trainer.tokens_per_step
        self.state, self.load = self.trainer.state, self.trainer.load
        self.scale_lr, self.data_position = self.trainer.scale_lr, self.trainer.data_position

    def begin_step(self, step: int) -> None:
        self.trainer.begin_step()

    def learn(self, step: int) -> Metrics:
        return self.trainer.forward_backward(step)

    def look(self, *, heldout: bool, measure: bool) -> Look:
        return look_at(self.trainer, heldout=heldout, measure=measure)

    def attend(self, step: int, look: Look, monitor: IntegratedMonitor) -> None:
        if step < self.config.steps:
            look.metrics["breakdown_pct"] = self.trainer.breakdown.observe(step, look.metrics, look.regime)

    def update(self, step: int) -> None:
        self.trainer.update()
