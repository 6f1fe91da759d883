"""The training loop, read top to bottom: step, measure, judge, record, save.

`step` is the number of optimiser updates that were applied (in Charlie's demonstration, of passages that were written
after them). A step is judged before its update, so a checkpoint taken at step n holds exactly n updates, and a resume
begins by repeating step n.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from qig_core.checkpoints.recovery import Restored
from qig_core.checkpoints.saving import restorer, saver
from qig_core.measures.gpu import GpuMeter
from qig_core.rundir.writer import RunWriter
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.training.config import digest
from qig_core.training.program import Program

Report = Callable[[int, Mapping[str, float | None]], None]
"""Called at each step, the last one too, with the latest value of every metric."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run that is open for writing, and a program that stands before its first step."""

    writer: RunWriter
    program: Program
    restored: Restored = field(default_factory=Restored)
    alerts: AlertSettings | None = None


def train(started: Started, report: Report | None = None) -> IntegratedMonitor:
    """Train to the configured step; the monitor that comes back knows how it ended. The run is then closed."""
    writer, program, config = started.writer, started.program, started.program.config
    restored = started.restored
    cadence, checkpoints = config.cadence, config.checkpoints
    process = psutil.Process()
    process.cpu_percent()
    gpu = GpuMeter()
    with IntegratedMonitor(
        writer,
        profile=program.profile,
        save=saver(
            program.state,
            data_position=program.data_position,
            keep=checkpoints.keep(),
            asynchronous=checkpoints.asynchronous,
            on_best=checkpoints.on_best,
            sha256=checkpoints.sha256,
        ),
        restore=restorer(program.load, scale_lr=program.scale_lr),
        alerts=started.alerts,
        relieve=program.relieve,
        log_every=cadence.log_every,
        checkpoint_every=cadence.checkpoint_every,
        deadline_s=config.safety.deadline_s,
        config_digest=digest(config),
        corpus_digest=program.corpus.digest,
        training_s=restored.training_s,
        parent=restored.checkpoint,
        first_step=restored.step,
        monitor_state=restored.monitor_state,
    ) as monitor:
        step_s: float | None = None
        began = time.perf_counter()
        for step in monitor.steps(last=True):
            program.begin_step(step)
            last = step == config.steps
            metrics: dict[str, float | None] = {} if last else program.learn(step)
            computed = time.perf_counter()
            if step_s is not None and not last:
                metrics["step_ms"] = 1e3 * step_s
                if program.tokens_per_step:
                    metrics["tokens_per_s"] = program.tokens_per_step / step_s

            heldout, measure = (last or step % every == 0 for every in (cadence.heldout_every, cadence.measure_every))
            if heldout or measure:
                writer.heartbeat.doing = "eval"
            look = program.look(heldout=heldout, measure=measure)
            look.metrics |= metrics
            if measure:
                look.metrics["cpu_pct"] = process.cpu_percent()
                look.metrics["rss_bytes"] = float(process.memory_info().rss)
                look.metrics |= gpu.metrics()

            program.attend(step, look, monitor)
            goes_on = monitor.check(step, look.metrics, basin=look.basin, regime=look.regime, reasons=look.reasons)
            if report is not None:
                report(step, monitor.latest)
            if not goes_on:  # stopped, or gone back: the update is left out
                step_s, began = None, time.perf_counter()
                continue
            if last:
                monitor.finish(step)
                continue
            updating = time.perf_counter()
            program.update(step)
            done = time.perf_counter()
            step_s = (computed - began) + (done - updating)
            began = done
    return monitor
