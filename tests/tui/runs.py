"""Run directories as a trainer leaves them, made by the real writer."""

import math
import time
from pathlib import Path

import numpy as np

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.schema import CheckpointManifest, FileEntry, Manifest, MetricSpec, ReferenceLine
from qig_core.rundir.writer import RunWriter

SPECS = [
    MetricSpec(
        name="phi",
        label="Φ integration",
        range=(0.0, 1.0),
        references=[ReferenceLine(0.45, "geometric"), ReferenceLine(0.9, "unstable", "warning")],
    ),
    MetricSpec(name="kappa", unit="rad⁻¹", label="κ coupling"),
    MetricSpec(name="loss", unit="nats", label="loss"),
    MetricSpec(name="drift_rolling", unit="rad", label="basin drift"),
]


def open_run(root: Path, run_id: str = "run1", **manifest: object) -> RunWriter:
    """A live run whose heartbeat thread beats in this process."""
    known = {"name": "charlie", "program": "qig-core train", "total_steps": 1000, "metrics": list(SPECS)} | manifest
    return RunWriter.create(root, Manifest(id=run_id, **known))  # type: ignore[arg-type]  # keys of Manifest


def basin(shift: float = 0.0) -> bytes:
    values = np.abs(np.sin(np.arange(64) * 0.7 + shift)) + 0.01
    return (values / values.sum()).astype("<f4").tobytes()


def log_steps(writer: RunWriter, start: int, stop: int) -> None:
    for step in range(start, stop):
        metrics = {
            "phi": 0.7 + 0.1 * math.sin(step / 9),
            "kappa": 58.0 + step % 5,
            "loss": 5.0 / (1 + step),
            "drift_rolling": 0.5,
        }
        writer.telemetry.log(step, metrics, basin=basin(step / 50) if step % 10 == 0 else None, regime="geometric")
        writer.step_done(step)


def set_condition(writer: RunWriter, state: str, **data: object) -> None:
    severity = state if state in ("warning", "critical") else "info"
    known = {"id": "drift", "metric": "drift_rolling", "comparison": "<=", "limit": 0.6, "unit": "rad", "value": 0.5}
    known |= {"since_step": 0, "dwell": 3, "cause": []}
    writer.event("condition", step=0, severity=severity, **(known | {"state": state} | data))


def add_checkpoint(writer: RunWriter, step: int, *, size: int = 5) -> str:
    name = f"step-{step:08d}"
    folder = writer.run.checkpoint(name)
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"12345")
    manifest = CheckpointManifest(
        name=name,
        run=writer.run.id,
        session=writer.session,
        step=step,
        t=time.time(),
        reason="interval",
        files=[FileEntry("model.bin", size, "0" * 64)],
        fingerprint="f" * 64,
        metrics={"phi": 0.7, "loss_heldout": 1.4},
    )
    writer.run.checkpoint_manifest(name).write_bytes(encode_document(manifest))
    writer.event("checkpoint", step=step, name=name, reason="interval")
    return name


def full_run(root: Path) -> RunWriter:
    """A condition that is ok, 300 steps, two checkpoints."""
    writer = open_run(root)
    for state in ("unarmed", "ok"):
        set_condition(writer, state)
    log_steps(writer, 0, 300)
    add_checkpoint(writer, 100)
    add_checkpoint(writer, 200)
    return writer
