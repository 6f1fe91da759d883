"""One look at a model, as plain data: what phi, kappa and the basin were, or why they were not. No torch, no model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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

    def metrics(self) -> dict[str, float | None]:
        """phi, phi_nats and kappa for a record: not finite where the model is broken, None where undefined."""
        values = {"phi": self.phi, "phi_nats": self.phi_nats, "kappa": self.kappa}
        return {name: float(self.nonfinite[name]) if name in self.nonfinite else v for name, v in values.items()}


def spread_positions(num_sequences: int, context: int, num_positions: int = NUM_POSITIONS) -> NDArray[np.int64]:
    """[S, 2] (sequence, offset) pairs: the sequences in turn, offsets evenly from the middle to the last token."""
    sequence = np.arange(num_positions) % num_sequences
    offset = np.linspace(context // 2, context - 1, num_positions).astype(np.int64)
    return np.stack([sequence, offset], axis=1)
