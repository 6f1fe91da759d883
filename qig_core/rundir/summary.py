"""A run in a few facts, read from the ends of its files: what `show` and `runs` print. Costs the same at any length."""

import math
import struct
import time
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import BeatWatch, Liveness
from qig_core.rundir.reader import LineDecoder, open_regular, read_manifest, tail_start
from qig_core.rundir.schema import Event, Manifest, Sample, Unreadable
from qig_core.rundir.values import decode_basin

_TAIL_BYTES = 1 << 18


class Summary(msgspec.Struct):
    """What is known of a run at a glance."""

    run: RunDir
    manifest: Manifest | None = None
    error: str | None = None
    """Which file cannot be read, and why: the first of them. What it would have told is empty; all of it, if it is the
    manifest."""
    liveness: Liveness | None = None
    step: int | None = None
    t: float | None = None
    metrics: dict[str, float | None] = {}
    """The latest value of each metric within the last 256 KiB."""
    nonfinite: dict[str, str] = {}
    basin: str | None = None
    regime: str | None = None
    conditions: dict[str, str] = {}
    """Condition id to state, of the conditions reported within the last 256 KiB of events."""
    last_events: list[Event] = []

    def basin_values(self) -> list[float] | None:
        """The latest basin as numbers that sum to 1; None where there is none or it cannot be read."""
        try:
            raw = decode_basin(self.basin or "")
        except ValueError:
            return None
        values = struct.unpack(f"<{len(raw) // 4}f", raw)
        total = math.fsum(values)
        return [value / total for value in values] if math.isfinite(total) and total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        manifest = self.manifest
        return {
            "id": self.run.id,
            "path": str(self.run.path),
            "name": manifest.name if manifest else None,
            "error": self.error,
            "state": str(self.liveness.word) if self.liveness else None,
            "state_detail": self.liveness.detail if self.liveness else None,
            "program": manifest.program if manifest else None,
            "step": self.step,
            "total_steps": manifest.total_steps if manifest else None,
            "t": self.t,
            "metrics": self.metrics,
            "nonfinite": self.nonfinite,
            "regime": self.regime,
            "conditions": self.conditions,
        }


def _last_records(summary: Summary, run_file: Path, kind: Any) -> list[Any]:
    try:
        start = tail_start(run_file, _TAIL_BYTES)
        with open(open_regular(run_file), "rb") as file:
            file.seek(start)
            chunk = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        summary.error = summary.error or f"{str(run_file)!r} cannot be read: {error.strerror}"
        return []
    whole = chunk[: chunk.rfind(b"\n") + 1]
    return [r for r in LineDecoder(run_file, kind).decode(whole, start) if not isinstance(r, Unreadable)]


def summarise(run: RunDir, *, wait_for_beat_s: float = 0.0) -> Summary:
    """Read the ends of a run's files. One that cannot be read is the summary's `error`, never an exception.

    Args:
        wait_for_beat_s: how long to watch a running trainer for a new beat before judging it. Without it a run on
            another host is judged by its last heartbeat alone.
    """
    summary = Summary(run)
    try:
        manifest = summary.manifest = read_manifest(run)
    except RunFormatError as error:
        summary.error = str(error)
        return summary
    watch = BeatWatch(run)
    summary.liveness = watch.look(manifest)
    deadline = time.monotonic() + wait_for_beat_s
    first = watch.heartbeat.beat if watch.heartbeat else None
    while time.monotonic() < deadline and manifest.state != "exited":
        time.sleep(0.05)
        summary.liveness = watch.look(manifest)
        if watch.heartbeat is None or watch.heartbeat.beat != first:
            break
    for sample in _last_records(summary, run.telemetry(), Sample):
        summary.step, summary.t = sample.step, sample.t
        summary.metrics.update(sample.m)
        summary.nonfinite = {k: v for k, v in summary.nonfinite.items() if k not in sample.m} | sample.nonfinite
        summary.basin = sample.basin or summary.basin
        summary.regime = sample.regime or summary.regime
    events: list[Event] = _last_records(summary, run.events, Event)
    for event in events:
        if event.kind == "condition" and isinstance(event.data.get("id"), str):
            summary.conditions[event.data["id"]] = str(event.data.get("state"))
    summary.last_events = events[-10:]
    return summary
