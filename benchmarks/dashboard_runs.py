"""The runs that the dashboard is measured on: written by the real writer, noisy as real ones are."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qig_core.rundir.schema import Manifest, MetricSpec, ReferenceLine
from qig_core.rundir.writer import RunWriter

METRICS = (
    "phi kappa loss drift_rolling grad_norm step_ms phi_nats drift_birth drift_velocity recursion_depth breakdown_pct "
    "lr"
).split()
CHARTED = ("Φ", "κ", "loss", "drift", "grad_norm", "step_ms")
"""The names of the first six on the screen."""
NAME = "charlie-0412"
BASIN_EVERY = 10
_SPECS = [
    MetricSpec(
        name="phi",
        label="Φ integration",
        range=(0.0, 1.0),
        references=[
            ReferenceLine(0.45, "geometric"),
            ReferenceLine(0.75, "hyperdimensional"),
            ReferenceLine(0.9, "unstable", "warning"),
        ],
    ),
    MetricSpec(name="kappa", unit="rad⁻¹", label="κ coupling"),
    MetricSpec(name="loss", unit="nats", label="loss"),
    MetricSpec(name="drift_rolling", unit="rad", label="basin drift"),
    MetricSpec(name="grad_norm", label="gradient norm"),
    MetricSpec(name="step_ms", unit="ms", label="a step"),
]
_NOISE = np.random.default_rng(0).standard_normal(1 << 14)


def figures(steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """[step, metric]: the metrics of a run at these steps; each moves slowly and is noisy."""
    noise = [_NOISE[(steps * 7 + 1009 * i) % len(_NOISE)] for i in range(len(METRICS))]
    at = steps.astype(np.float64)
    columns = (
        0.7 + 0.08 * np.sin(at / 900) + 0.01 * noise[0],
        58 + 6 * np.sin(at / 4000) + 0.8 * noise[1],
        1.3 + 3 * np.exp(-at / 20_000) + 0.04 * noise[2],
        0.4 + 0.08 * np.sin(at / 1500) + 0.01 * noise[3],
        np.exp(0.3 * noise[4]),
        41 + 1.5 * np.abs(noise[5]),
        0.9 + 0.1 * np.sin(at / 900) + 0.01 * noise[6],
        0.5 + 0.3 * (1 - np.exp(-at / 30_000)) + 0.005 * noise[7],
        np.abs(0.004 * noise[8]),
        3 + np.floor(np.abs(noise[9])),
        np.clip(5 + 3 * noise[10], 0, 100),
        3e-4 * (1 + np.cos(at / 1e5)),
    )
    return np.stack(columns, axis=1)


def basins(steps: NDArray[np.int64]) -> list[bytes]:
    values = np.abs(np.sin(np.arange(64) * 0.7 + steps[:, None] / 5000)) + 0.01
    return [row.tobytes() for row in (values / values.sum(axis=1, keepdims=True)).astype("<f4")]


def samples(start: int, stop: int) -> Iterator[tuple[int, dict[str, float | None], bytes]]:
    """Step, metrics and basin of each."""
    for first in range(start, stop, 4096):
        steps = np.arange(first, min(first + 4096, stop), dtype=np.int64)
        for step, row, basin in zip(steps.tolist(), figures(steps).tolist(), basins(steps), strict=True):
            yield step, dict(zip(METRICS, row, strict=True)), basin


def open_run(root: Path, run_id: str = "run1", name: str = NAME) -> RunWriter:
    """A live run with two conditions, whose heartbeat beats in this process."""
    made = Manifest(id=run_id, name=name, program="benchmark", total_steps=400_000, metrics=list(_SPECS))
    writer = RunWriter.create(root, made)
    for metric, limit, comparison in (("drift_rolling", 0.6, "<="), ("phi", 0.5, ">=")):
        writer.event(
            "condition",
            step=0,
            severity="info",
            id=metric,
            metric=metric,
            comparison=comparison,
            limit=limit,
            unit="rad" if metric == "drift_rolling" else "",
            value=limit,
            state="ok",
            since_step=0,
            dwell=3,
            cause=[],
        )
    return writer


def fill(writer: RunWriter, count: int, *, basin_every: int = BASIN_EVERY) -> None:
    """So many samples at once, from step 0 on."""
    for step, metrics, basin in samples(0, count):
        writer.telemetry.log(step, metrics, basin=None if step % basin_every else basin, regime="geometric")
    if count:
        writer.step_done(count - 1)


class Feed:
    """New samples at a rate, from a thread of this process, until the block is left."""

    def __init__(self, writer: RunWriter, start: int, hertz: float) -> None:
        self._writer, self._start, self._hertz = writer, start, hertz
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.step = start
        """The next one."""

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        for step, metrics, basin in samples(self._start, self._start + 1_000_000):
            if self._stop.wait(max(due - time.monotonic(), 0.0)):
                return
            due += 1 / self._hertz
            self._writer.telemetry.log(step, metrics, basin=None if step % BASIN_EVERY else basin, regime="geometric")
            self._writer.step_done(step)
            self.step = step + 1
