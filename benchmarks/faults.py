"""What can be broken in a training run, in its tensors, and what it takes to break it. Trains nothing, knows no limit.

A fault begins at one step and lasts. `subjects` calls its hooks from within the loops; `detection` hands out the jobs.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from alarms import INJECTED, history_of
from torch import Tensor, nn

from qig_core.rundir.layout import RunDir
from qig_core.rundir.writer import RunWriter

SAME_LOSS = 1e-4
PATIENCE_S = 90.0
"""How long a loader hangs at most."""
_NEVER = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, as it is handed to a process."""

    subject: str
    seed: int
    folder: str
    """Where its run directory goes."""
    steps: int
    profile: str = "default"
    fault: str = ""
    """None, for a healthy run."""
    parent: str = ""
    """The run directory that a faulty run goes on from, and the checkpoint's step."""
    parent_step: int = 0
    inject_at: int = _NEVER
    checkpoint_every: int = _NEVER

    @property
    def run_id(self) -> str:
        return "-".join(each for each in (self.subject, self.fault, str(self.seed)) if each)

    @property
    def run(self) -> RunDir:
        return RunDir(Path(self.folder, self.run_id))

    def data(self) -> dict[str, Any]:
        return asdict(self)


class Target:
    """What a fault gets hold of: the tensors of one of the two models."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def flatten_attention(self) -> None:
        """Make every row of attention uniform."""
        raise NotImplementedError

    def cut(self) -> None:
        """Let nothing pass from one half of the width to the other, inside the blocks."""
        raise NotImplementedError

    def residual_axes(self, first: Tensor, second: Tensor) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
        """Every parameter with the axis that counts residual units, and the order it takes where the units of the
        halves take the orders `first` and `second`, each a permutation of 0 .. d/2 - 1."""
        raise NotImplementedError

    def heldout_loss(self) -> float:
        """Nats a byte."""
        raise NotImplementedError


class Fault:
    """A fault begins at one step and lasts; before it every hook leaves things as they are. This one does nothing."""

    title = ""

    def __init__(self, job: Job, target: Target, writer: RunWriter) -> None:
        self.job, self.target, self.writer = job, target, writer
        self.active = False

    def step_begins(self, step: int) -> None:
        """Called before the step reads its data; step counts the updates that were applied."""
        if step == self.job.inject_at:
            self.writer.event(INJECTED, step=step, fault=self.job.fault)
            self.active = True
            self.begin()

    def updated(self) -> None:
        """Called after each update."""
        if self.active:
            self.hold()

    def begin(self) -> None:
        """What happens once."""
        self.hold()

    def hold(self) -> None:
        """What is true again after each update."""

    def rate(self, rate: float) -> float:
        return rate

    def targets(self, targets: Tensor) -> Tensor:
        return targets

    def gradients(self) -> None:
        """Called before the gradients are clipped."""


class Rate(Fault):
    """The learning rate, a hundred times."""

    title = "learning rate × 100"

    def rate(self, rate: float) -> float:
        return 100.0 * rate if self.active else rate


class NanGradient(Fault):
    """One NaN in one element of one parameter's gradient, at one step."""

    title = "one NaN in a gradient"

    def gradients(self) -> None:
        if self.active:
            self.active = False
            middle = list(self.target.model.parameters())
            gradient = middle[len(middle) // 2].grad
            assert gradient is not None
            gradient.view(-1)[0] = math.nan


class AttentionCollapse(Fault):
    """Attention looks everywhere alike, and is kept so."""

    title = "attention collapse"

    def hold(self) -> None:
        self.target.flatten_attention()


class Cut(Fault):
    """The two halves of the width no longer reach each other, and are kept apart."""

    title = "cross-coupling cut to 0"

    def hold(self) -> None:
        self.target.cut()


class BasinJump(Fault):
    """The residual units take other places, within each half: another identity of the same function.

    Everything that reads or writes the residual stream follows, the optimiser's moments too, so that training goes on
    as if nothing had happened.
    """

    title = "basin jump"

    @torch.no_grad()
    def begin(self) -> None:
        target = self.target
        before = target.heldout_loss()
        generator = torch.Generator().manual_seed(self.job.seed)
        half = target.model.get_parameter("embedding").shape[1] // 2
        orders = (torch.randperm(half, generator=generator) for _ in range(2))
        for parameter, axis, order in target.residual_axes(*orders):
            moments = (
                each
                for each in target.optimizer.state[parameter].values()
                if isinstance(each, Tensor) and each.shape == parameter.shape
            )
            for tensor in (parameter, *moments):
                tensor.copy_(tensor.index_select(axis, order))
        after = target.heldout_loss()
        assert abs(after - before) <= SAME_LOSS, f"the loss was {before} and is {after}: not the same function"


class LabelCorruption(Fault):
    """Every target is a byte drawn uniformly."""

    title = "label corruption"

    def begin(self) -> None:
        self._generator = torch.Generator().manual_seed(self.job.seed)

    def targets(self, targets: Tensor) -> Tensor:
        if not self.active:
            return targets
        return torch.randint(0, 256, targets.shape, generator=self._generator)


class GradientExplosion(Fault):
    """Every gradient, ten thousand times, before clipping."""

    title = "gradients × 10⁴"

    def gradients(self) -> None:
        if self.active:
            torch._foreach_mul_([p.grad for p in self.target.model.parameters() if p.grad is not None], 1e4)


class HungLoader(Fault):
    """The next batch is read from a pipe that nobody writes, until an alarm was recorded or patience ends."""

    title = "hung loader"

    def begin(self) -> None:
        pipe = self.writer.run.artifacts / "loader"
        os.mkfifo(pipe)
        threading.Thread(target=self._stop_waiting, args=(pipe,), daemon=True).start()
        with open(pipe, "rb") as loader:
            loader.read(1)

    def _stop_waiting(self, pipe: Path) -> None:
        """What somebody who saw the alarm would do: stop the run, and let the reader go so that it can."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not history_of(self.writer.run).after:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        pipe.write_bytes(b"\n")


FAULTS: Mapping[str, type[Fault]] = {
    "rate": Rate,
    "nan": NanGradient,
    "attention": AttentionCollapse,
    "cut": Cut,
    "basin": BasinJump,
    "labels": LabelCorruption,
    "explosion": GradientExplosion,
    "hung": HungLoader,
}
