"""Checkpoints as the core publishes them: real files, real digests. No torch."""

import base64
from typing import Any

import numpy as np

from qig_core.checkpoints.store import publish
from qig_core.checkpoints.tensorfile import TensorFile, TensorSource
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.writer import RunWriter
from tests.tui.runs import basin


def put(
    writer: RunWriter, step: int, *, loss: float = 1.5, rows: int = 8, sick: bool = False, **facts: Any
) -> CheckpointManifest:
    """Publish one of two tensors and a state, and tell of it.

    Args:
        rows: of the first tensor.
        sick: whether a number in it is not finite.
    """
    weights = np.full((rows, 16), 1.0 + step / 1000, dtype="<f4")
    if sick:
        weights[1, 2] = np.nan
    tensors = {"embed.weight": weights, "head.bias": np.arange(16, dtype="<f4") * step}
    sources = [
        TensorSource(name=name, dtype="F32", shape=value.shape, read=lambda value=value: memoryview(value).cast("B"))
        for name, value in tensors.items()
    ]
    known: dict[str, Any] = {
        "reason": "interval",
        "metrics": {"phi": 0.7 + step / 10_000, "loss_heldout": loss, "kappa": 58.0},
        "basin": base64.b64encode(basin(step / 500)).decode(),
        "regime": "geometric",
        "conditions": {"drift": "ok", "phi": "ok"},
        "training_s": step * 0.04,
        "data_position": {"tokens": step * 4096},
        "versions": {"python": "3.11", "torch": "2.9"},
    }
    made = publish(
        writer.run,
        session=writer.session,
        step=step,
        files={
            "model.safetensors": TensorFile(sources),
            "state.json": b'{"format": 1, "state": {"epoch": %d}}' % (step // 100),
        },
        **(known | facts),
    )
    writer.event("checkpoint", step=step, name=made.name, reason=made.reason, fingerprint=made.fingerprint)
    return made


def flip(writer: RunWriter, name: str) -> None:
    """One bit of a tensor is another one; names and sizes stay."""
    path = writer.run.checkpoint(name) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def cut(writer: RunWriter, name: str) -> None:
    path = writer.run.checkpoint(name) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
