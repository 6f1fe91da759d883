"""Looks at a kernel and says phi, kappa and basin, on one fixed probe.

Changes nothing: not the model, not its mode, no random state. A measurement is a function of the weights alone.
"""

import math
import time
from typing import Any

import blake3
import numpy as np
import torch
from numpy.typing import NDArray

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.basin import basin_of, readout
from qig_core.measures.coupling import kappa_eff
from qig_core.measures.integration import effective_information
from qig_core.measures.measurement import Measurement, spread_positions
from qig_core.training.config import KernelConfig
from qig_core.training.kernel import Kernel, half_norm


class KernelProbe:
    """A fixed probe: held-out tokens, the positions that phi perturbs, and the basin's readout.

    Args:
        config: of every kernel that will be measured.
        probe_tokens: [B, T] integers.
        positions: [S, 2] (sequence, offset) pairs; None spreads eight.
        seed: of the readout.

    Raises:
        ValueError: tokens or positions do not fit.
    """

    def __init__(
        self,
        config: KernelConfig,
        probe_tokens: NDArray[np.int64],
        positions: NDArray[np.int64] | None = None,
        *,
        seed: int = 0,
        noise: float = 0.1,
    ) -> None:
        tokens = np.ascontiguousarray(probe_tokens, dtype=np.int64)
        if tokens.ndim != 2 or not tokens.size or tokens.shape[1] > config.context:
            raise ValueError(f"probe tokens {tokens.shape} must be [B, T], T at most the context of {config.context}")
        if positions is None:
            positions = spread_positions(*tokens.shape)
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        if positions.ndim != 2 or positions.shape[1] != 2 or np.any((positions < 0) | (positions >= tokens.shape)):
            raise ValueError(f"positions must be [S, 2] pairs inside {tokens.shape}")
        self._config = config
        self._noise = noise
        self._tokens = torch.from_numpy(tokens)
        self._positions = torch.from_numpy(positions)
        self._readout: FloatArray = readout(config.width, seed=seed)
        self._clusters = np.repeat(np.arange(len(tokens)), tokens.shape[1])
        self._causal = np.tile(np.tri(tokens.shape[1], dtype=bool), (len(tokens), 1))
        digest = blake3.blake3(np.array([tokens.shape, positions.shape], dtype="<i8").tobytes())
        for array in (tokens.astype("<i8"), positions.astype("<i8"), self._readout.astype("<f8")):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.probe_digest: str = digest.hexdigest()
        """blake3, hex, of tokens, positions and readout: measurements of unequal digest are not comparable."""

    def facts(self) -> dict[str, Any]:
        """What two runs must share for their phi, kappa and basin to be comparable, as plain data for a manifest."""
        return {
            "digest": self.probe_digest,
            "tokens": list(self._tokens.shape),
            "positions": self._positions.tolist(),
            "num_parts": len(self._config.parts),
            "width": self._config.width,
            "rank": self._config.width // len(self._config.parts),
            "partition": "heads",
            "noise": self._noise,
            "pass": "last",
            "mode": "forward",
        }

    @torch.no_grad()
    def measure(self, kernel: Kernel) -> Measurement:
        """Measure `kernel` as it is. A broken model is a value, not an exception: see Measurement.nonfinite."""
        if kernel.config.parts != self._config.parts or kernel.config.vocab < self._config.vocab:
            raise ValueError("this probe was made for a kernel of another shape")
        begun = time.perf_counter()
        was_training = kernel.training
        kernel.eval()
        try:
            device = kernel.embedding.device
            tokens, positions = self._tokens.to(device), self._positions.to(device)
            seen = kernel.observe(tokens)
            jacobian, rms_x, rms_y = kernel.last_pass_jacobians(tokens, positions)
        finally:
            kernel.train(was_training)
        nonfinite: dict[str, str] = {}
        reasons: dict[str, str] = {}

        relative = jacobian.double().cpu() * (rms_x / rms_y).double().cpu()[:, None, None]
        integration = None
        if (kind := _kind(relative)) is None:
            integration = effective_information(relative.numpy(), self._config.parts, self._noise)
        else:
            nonfinite |= {"phi": kind, "phi_nats": kind}

        # The model's own kappa is where the fit should end, so it starts there.
        own = tuple(kernel.log_kappa.exp().tolist())
        coupling = kappa_eff(
            _rows(seen.attention), _rows(seen.distances), mask=self._causal, clusters=self._clusters, warm=own
        )
        if coupling.reason == "not finite":
            nonfinite["kappa"] = _kind(seen.attention) or _kind(seen.distances) or "nan"
        elif coupling.reason is not None:
            reasons["kappa"] = coupling.reason

        # As the head reads it: the raw state grows with training and would drive every basin into a corner.
        pooled = half_norm(seen.state).double().mean(dim=(0, 1)).cpu()
        basin = None
        if (kind := _kind(pooled)) is None:
            basin = basin_of(pooled.numpy(), self._readout)
        else:
            nonfinite["basin"] = kind
        return Measurement(
            integration=integration,
            coupling=coupling,
            basin=basin,
            nonfinite=nonfinite,
            reasons=reasons,
            cost_s=time.perf_counter() - begun,
        )


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """[B, H, T, T] -> [H, B·T, T]: rows pooled within a head."""
    return maps.transpose(0, 1).flatten(1, 2)


def _kind(x: torch.Tensor) -> str | None:
    """What is not finite in x: "nan" if anything is NaN, else "inf" or "-inf", else None."""
    if bool(torch.isfinite(x).all()):
        return None
    if bool(torch.isnan(x).any()):
        return "nan"
    return "inf" if math.isinf(float(x.max())) else "-inf"
