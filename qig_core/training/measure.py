"""Looks at a kernel and says phi, kappa and basin, on one fixed probe.

Changes nothing: not the model, not its mode, no random state. A measurement is a function of the weights alone.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import blake3
import numpy as np
import torch
from numpy.typing import NDArray

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.basin import basin_of, readout
from qig_core.measures.coupling import KappaResult, kappa_eff
from qig_core.measures.integration import PhiResult, effective_information
from qig_core.measures.measurement import Measurement, spread_positions
from qig_core.measures.transition import nonfinite_kind
from qig_core.measures.undisturbed import one_thread
from qig_core.training.config import KernelConfig
from qig_core.training.kernel import BlockWeights, Kernel, Observation, half_norm
from qig_core.training.kernel_jacobian import pass_jacobians


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

    @property
    def tokens(self) -> torch.Tensor:
        """[B, T], on the CPU."""
        return self._tokens

    @property
    def readout(self) -> FloatArray:
        """R, [64, width]: the basin is softmax(R z)."""
        return self._readout

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
    def measure(self, kernel: Kernel, *, every_pass: bool = False) -> Measurement:
        """Measure `kernel` as it is. A broken model is a value, not an exception: see Measurement.nonfinite.

        Args:
            every_pass: fill Measurement.per_pass and PhiResult.share too, for one more Jacobian and phi a pass.
        """
        if kernel.config.parts != self._config.parts or kernel.config.vocab < self._config.vocab:
            raise ValueError("this probe was made for a kernel of another shape")
        begun = time.perf_counter()
        was_training = kernel.training
        kernel.eval()
        try:
            with one_thread() as threads:
                found = self._look(kernel, threads, every_pass)
        finally:
            kernel.train(was_training)
        return replace(found, cost_s=time.perf_counter() - begun)

    def _look(self, kernel: Kernel, threads: int, every_pass: bool) -> Measurement:
        tokens, weights = self._tokens.to(kernel.embedding.device), kernel.block_weights()
        num_shards = min(threads, len(tokens)) if tokens.device.type == "cpu" else 1
        with ThreadPoolExecutor(num_shards) as pool:
            seen = _joined(list(pool.map(kernel.observe, tokens.tensor_split(num_shards))))
        maps = [self._relative(one, weights) for one in (seen if every_pass else seen[-1:])]
        phis = [self._phi(one, threads, share=every_pass) for one in maps]
        coupling = self._kappa(seen[-1], weights)

        nonfinite: dict[str, str] = {}
        reasons: dict[str, str] = {}
        if (kind := nonfinite_kind(maps[-1])) is not None:
            nonfinite |= {"phi": kind, "phi_nats": kind}
        if coupling.reason == "not finite":
            nonfinite["kappa"] = nonfinite_kind(seen[-1].attention) or nonfinite_kind(seen[-1].distances) or "nan"
        elif coupling.reason is not None:
            reasons["kappa"] = coupling.reason

        # As the head reads it: the raw state grows with training and would drive every basin into a corner.
        pooled = half_norm(seen[-1].state).double().mean(dim=(0, 1)).cpu()
        basin = None
        if (kind := nonfinite_kind(pooled)) is None:
            basin = basin_of(pooled.numpy(), self._readout)
        else:
            nonfinite["basin"] = kind
        scores = tuple(phi.score for phi in phis if phi is not None)
        return Measurement(
            integration=phis[-1],
            coupling=coupling,
            basin=basin,
            nonfinite=nonfinite,
            reasons=reasons,
            per_pass=scores if every_pass and len(scores) == len(seen) else (),
            cost_s=0.0,
        )

    def _relative(self, seen: Observation, weights: BlockWeights) -> torch.Tensor:
        """J · rms(x)/rms(y) of one pass, [P, d, d], float64 on the CPU."""
        jacobian, rms_x, rms_y = pass_jacobians(seen, self._positions.to(seen.state.device), weights)
        return (jacobian.double() * (rms_x.double() / rms_y.double())[:, None, None]).cpu()

    def _phi(self, relative: torch.Tensor, threads: int, *, share: bool) -> PhiResult | None:
        """None where the map is broken."""
        if nonfinite_kind(relative) is not None:
            return None
        return effective_information(relative.numpy(), self._config.parts, self._noise, share=share, threads=threads)

    def _kappa(self, seen: Observation, weights: BlockWeights) -> KappaResult:
        # The model's own kappa is where the fit should end, so it starts there.
        own = tuple(weights.kappa.tolist())
        return kappa_eff(
            _rows(seen.attention), _rows(seen.distances), mask=self._causal, clusters=self._clusters, warm=own
        )


def _joined(shards: list[tuple[Observation, ...]]) -> tuple[Observation, ...]:
    """The passes of sequences that were looked at in shards."""
    if len(shards) == 1:
        return shards[0]
    return tuple(Observation(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*shards, strict=True))


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """[B, H, T, T] -> [H, B·T, T]: rows pooled within a head."""
    return maps.transpose(0, 1).flatten(1, 2)
