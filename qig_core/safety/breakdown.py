"""breakdown_pct: the share of the last 100 evaluations in which the run was broken. Pure: no clock, no disk."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from qig_core.safety.rolling import median_of
from qig_core.safety.trailing import TrailingWindow

Rule = Literal["default", "reference"]

WINDOW = 100
MIN_EVALUATIONS = 20
MAX_Z = 8.0
PHI_FLOOR_SHARE = 0.7
PHI_BASELINE_SIZE = 50
REFERENCE_REGIME = "topological_instability"

_MAD_FLOOR_SHARE = 0.01
_SPIKING = ("loss", "grad_norm")
_Z95 = 1.959964


def wilson_interval(hits: int, total: int, z: float = _Z95) -> tuple[float, float]:
    """The Wilson score interval of a share hits / total, both ends in [0, 1].

    (p + z²/2n ± z sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n).

    Raises:
        ValueError: total is not positive, or hits lies outside 0 .. total.

    Source: Wilson 1927.
    """
    if total <= 0 or not 0 <= hits <= total:
        raise ValueError(f"{hits} of {total} is no share")
    p, n = hits / total, float(total)
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


class Breakdown:
    """Counts evaluations that a profile's rule calls a breakdown.

    default: an evaluation is a step. A breakdown is a value that is not finite; a loss or gradient norm whose robust
    z = 0.6745 (x − median)/MAD over the last 100 sound values exceeds 8 (MAD at least 1 % of the median); or phi under
    0.7 x its baseline, the median of the 50 evaluations of phi that follow step `phi_armed_after`.

    reference: an evaluation is a step at which a regime was measured. A breakdown is topological_instability.

    Args:
        phi_armed_after: max(200, 2 x warm-up) in a training run.
        rule: the profile's `breakdown`.
    """

    def __init__(self, phi_armed_after: int = 200, rule: Rule = "default") -> None:
        self.rule = rule
        self._phi_armed_after = phi_armed_after
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._sound = {name: TrailingWindow(WINDOW, 0) for name in _SPIKING}
        self._phi_baseline: list[float] = []

    def observe(self, step: int, metrics: Mapping[str, float | None], regime: str | None = None) -> float | None:
        """Take in what was measured at a step; percent, or None under 20 evaluations and where there was none.

        Args:
            regime: its name, None where it was not measured; the default rule does not ask.
        """
        if self.rule == "default":
            self._recent.append(self._is_breakdown(step, metrics))
        elif regime is None:
            return None
        else:
            self._recent.append(regime == REFERENCE_REGIME)
        if len(self._recent) < MIN_EVALUATIONS:
            return None
        return 100.0 * sum(self._recent) / len(self._recent)

    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson interval of the share, in percent; None under 20 evaluations."""
        if len(self._recent) < MIN_EVALUATIONS:
            return None
        low, high = wilson_interval(sum(self._recent), len(self._recent))
        return 100.0 * low, 100.0 * high

    def _is_breakdown(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        broken = any(value is not None and not math.isfinite(value) for value in metrics.values())
        for name, window in self._sound.items():
            value = metrics.get(name)
            if value is None or not math.isfinite(value):
                continue
            if len(window) >= MIN_EVALUATIONS:
                median, mad = window.median_and_mad()
                if 0.6745 * (value - median) > MAX_Z * max(mad, _MAD_FLOOR_SHARE * abs(median)):
                    # A baseline never takes in what it calls broken.
                    broken = True
                    continue
            window.add(value)
        phi = metrics.get("phi")
        if phi is not None and math.isfinite(phi) and step >= self._phi_armed_after:
            if len(self._phi_baseline) < PHI_BASELINE_SIZE:
                self._phi_baseline.append(phi)
            elif phi < PHI_FLOOR_SHARE * median_of(self._phi_baseline):
                broken = True
        return broken

    def state(self) -> dict[str, Any]:
        """Plain data from which `from_state` goes on."""
        return {
            "rule": self.rule,
            "phi_armed_after": self._phi_armed_after,
            "recent": [int(hit) for hit in self._recent],
            "sound": {name: window.values() for name, window in self._sound.items()},
            "phi_baseline": list(self._phi_baseline),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Breakdown":
        """Go on from a `state`; one of before there were rules has the default one."""
        breakdown = cls(int(state["phi_armed_after"]), state.get("rule", "default"))
        breakdown._recent.extend(bool(hit) for hit in state["recent"])
        for name in _SPIKING:
            breakdown._sound[name] = TrailingWindow(WINDOW, 0, state["sound"][name])
        breakdown._phi_baseline = list(state["phi_baseline"])
        return breakdown
