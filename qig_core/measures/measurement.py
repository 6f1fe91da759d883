"""One look at a model, as plain data: what phi, kappa and the basin were, or why they were not. No torch, no model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qig_core.geometry.simplex import Basin
from qig_core.measures.coupling import KappaResult
from qig_core.measures.integration import PhiResult

NUM_POSITIONS = 8


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One look. A value that could not be computed is None with a reason; if the model is to blame, `nonfinite` names
    it."""

    integration: PhiResult | None
    """Score, nats, the cut, the spread over positions, and what phi is comparable with."""
    coupling: KappaResult | None
    """None where the model shows no attention."""
    basin: Basin | None
    """[64], float64."""
    nonfinite: Mapping[str, str] = field(default_factory=dict)
    """Metric name -> "nan", "inf" or "-inf": what the model gave instead of a number."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Metric name -> why there is no value, where the model is not broken."""
    broken_at: str | None = None
    """The first module whose output was not finite."""
    per_pass: tuple[float, ...] = ()
    """phi of every pass of the block, the last being `phi`; empty where only the last was measured."""
    mode: str = "forward"
    """How the Jacobian was taken: forward or reverse."""
    drift: Mapping[str, float] = field(default_factory=dict)
    """What a BasinTracker said of this basin in its stream; empty where nobody tracks."""
    regime: str | None = None
    """Only where phi was taken at full rank: elsewhere its boundaries mean nothing."""
    cost_s: float

    @property
    def phi(self) -> float | None:
        """Score in [0, 1)."""
        return None if self.integration is None else self.integration.score

    @property
    def phi_nats(self) -> float | None:
        return None if self.integration is None else self.integration.nats

    @property
    def kappa(self) -> float | None:
        """Median over heads, rad⁻¹."""
        return None if self.coupling is None else self.coupling.value

    @property
    def basin_bytes(self) -> bytes | None:
        """The basin as a record holds it: 64 little-endian float32."""
        return None if self.basin is None else self.basin.astype("<f4").tobytes()

    def metrics(self) -> dict[str, float | None]:
        """phi, phi_nats, kappa and drift for a record: not finite where the model is broken, None where undefined."""
        values: dict[str, float | None] = {"phi": self.phi, "phi_nats": self.phi_nats, "kappa": self.kappa}
        return values | dict(self.drift) | {name: float(kind) for name, kind in self.nonfinite.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; a result that is not there is None and has its reason or its kind."""
        return {
            "phi": self.phi,
            "phi_nats": self.phi_nats,
            "kappa": self.kappa,
            "regime": self.regime,
            "integration": None if self.integration is None else dataclasses.asdict(self.integration),
            "coupling": None if self.coupling is None else dataclasses.asdict(self.coupling),
            "basin": None if self.basin is None else self.basin.tolist(),
            "drift": dict(self.drift),
            "per_pass": list(self.per_pass),
            "mode": self.mode,
            "nonfinite": dict(self.nonfinite),
            "reasons": dict(self.reasons),
            "broken_at": self.broken_at,
            "cost_s": self.cost_s,
        }


NOT_NOW = Measurement(integration=None, coupling=None, basin=None, cost_s=0.0)
"""No look at all: this was not the step for one."""


def spread_positions(num_sequences: int, context: int, num_positions: int = NUM_POSITIONS) -> NDArray[np.int64]:
    """[S, 2] (sequence, offset) pairs: the sequences in turn, offsets evenly from the middle to the last token."""
    sequence = np.arange(num_positions) % num_sequences
    offset = np.linspace(context // 2, context - 1, num_positions).astype(np.int64)
    return np.stack([sequence, offset], axis=1)
