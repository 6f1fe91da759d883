"""What a finished run recorded, as numbers by step: streams, basins, phases. Reads run directories; trains nothing."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from qig_core.geometry.simplex import Basin, normalise
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Manifest, Sample, Unreadable
from qig_core.rundir.values import decode_basin

Curve = dict[int, float]
"""Step to value, by rising step; a step at which nothing finite was measured is not in it."""
R = TypeVar("R", Sample, Event)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a charlie run, as its events tell it."""

    first: int
    """Its first step."""
    last: int
    """The last step at which it was told of."""
    state: str
    """What was told last: begun, judged, passed or failed."""
    reason: str


class Recorded:
    """One run. What a run did again, after a rewind or a resume, counts as it was done last.

    Raises:
        RunFormatError: a file of it cannot be read; from every method.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.manifest: Manifest = read_manifest(run)
        self.unreadable = 0
        """Lines that could not be read, in the files that were asked for so far."""
        self._streams: dict[str, list[Sample]] = {}

    def samples(self, stream: str = "") -> list[Sample]:
        """Those of the run itself, or of one of its streams, by rising step."""
        if stream not in self._streams:
            self._streams[stream] = self._done_last(read_all(self.run.telemetry(stream or None), Sample))
        return self._streams[stream]

    def curve(self, metric: str, stream: str = "") -> Curve:
        """A metric by step."""
        values = ((sample.step, sample.m.get(metric)) for sample in self.samples(stream))
        return {step: value for step, value in values if value is not None}

    def basins(self, stream: str = "") -> dict[int, Basin]:
        """Basins by step, as they were measured: float32, normalised. Raises ValueError for one that is none."""
        return {s.step: _point(s.basin) for s in self.samples(stream) if s.basin is not None}

    @functools.cached_property
    def events(self) -> list[Event]:
        """All of them, as they were written."""
        found = read_all(self.run.events, Event)
        self.unreadable += sum(isinstance(record, Unreadable) for record in found)
        return [record for record in found if isinstance(record, Event)]

    @functools.cached_property
    def phases(self) -> dict[str, Phase]:
        """Those that the run came to, by name."""
        told: dict[str, Phase] = {}
        for event in self._done_last(event for event in self.events if event.kind == "phase"):
            data, step = event.data, event.step
            assert step is not None
            told[data["name"]] = Phase(
                first=data["since_step"], last=step, state=data["state"], reason=data.get("reason", "")
            )
        return told

    def within(self, phase: str, metric: str, stream: str = "") -> Curve:
        """A metric at the steps of a phase; empty where the run never came to it."""
        return {step: value for step, value in self.curve(metric, stream).items() if self._is_in(phase, step)}

    def missing(self, phase: str, metric: str, stream: str = "") -> int:
        """At how many evaluations of a phase (a basin, a held-out loss) a metric has no finite value."""
        return sum(
            sample.m.get(metric) is None
            for sample in self.samples(stream)
            if self._is_in(phase, sample.step)
            and (sample.basin is not None or not sample.m.keys().isdisjoint((metric, "loss_heldout")))
        )

    def _is_in(self, phase: str, step: int) -> bool:
        found = self.phases.get(phase)
        return found is not None and found.first <= step <= found.last

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on, and how the run ended; no path, no host, no person."""
        manifest = self.manifest
        return {
            "run": manifest.id,
            "config": manifest.config,
            "corpus": {name: value for name, value in manifest.corpus.items() if name != "paths"},
            "versions": manifest.versions,
            "git": None if manifest.git is None else msgspec.structs.asdict(manifest.git),
            "threads": manifest.threads,
            "exit_code": manifest.exit_code,
            "reason": manifest.reason,
            "sessions": len(manifest.sessions),
            "duration_s": self.duration_s(),
            "unreadable_lines": self.unreadable,
        }

    def duration_s(self) -> float | None:
        """Of all sessions together; None where one did not end in order."""
        spans = [(session.t, session.ended_t) for session in self.manifest.sessions]
        return None if any(end is None for _, end in spans) else sum(end - t for t, end in spans if end is not None)

    def _done_last(self, records: Iterable[R | Unreadable]) -> list[R]:
        """By rising step: a record takes those of its own step and of later ones back. Without a step: left out."""
        kept: list[R] = []
        for record in records:
            if isinstance(record, Unreadable):
                self.unreadable += 1
            elif record.step is not None:
                while kept and (kept[-1].step or 0) >= record.step:
                    kept.pop()
                kept.append(record)
        return kept


def _point(text: str) -> Basin:
    return Basin(normalise(np.frombuffer(decode_basin(text), dtype="<f4").astype(np.float64)))
