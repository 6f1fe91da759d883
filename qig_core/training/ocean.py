"""The frozen Ocean: sees the Garys of a constellation, tells how they stand, never learns and never touches one.

It is given numbers and copies of basins, no kernel but its own. What it holds as a module is settled at birth and its
digest is asserted at every report; what it remembers of earlier reports is plain data beside that (`history`).
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qig_core.errors import QigError, SimplexError
from qig_core.geometry.simplex import Basin, FloatArray, fisher_rao_distance
from qig_core.rundir.values import kind_of_nonfinite
from qig_core.training.advice import Advice, Finding, Recommendation, findings
from qig_core.training.changes import WATCHED, Changes, Flag
from qig_core.training.config import KernelConfig
from qig_core.training.digests import parameter_digest
from qig_core.training.formation import Formation, Pooled, formation, pooled
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.program_config import OceanConfig, Verb

NUMBERS = ("phi", "kappa", "loss", "loss_heldout", "velocity", "drift")
LOSSES = ("loss", "loss_heldout")
WATCH_FROM = 200
"""The least number of steps until a young kernel is steady enough for changes: before, phi falls and rises again."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What the Ocean sees of one Gary: numbers and a copy of its basin, never the Gary. None: not measured."""

    name: str
    role: Literal["active", "observer"]
    basin: Basin | None = None
    """[64]."""
    phi: float | None = None
    kappa: float | None = None
    """rad⁻¹."""
    loss: float | None = None
    """Nats a byte, of the batch it learnt from."""
    loss_heldout: float | None = None
    velocity: float | None = None
    """Fisher–Rao distance from its basin at the measurement before, rad."""
    drift: float | None = None
    """Fisher–Rao distance from the mean of its older basins (drift_rolling), rad."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One Gary as the report has it; a number that is not finite is None."""

    name: str
    role: str
    numbers: Mapping[str, float | None]
    from_mean: float | None
    """Fisher–Rao distance from the Fréchet mean of all, rad."""
    from_ocean: float | None
    """Fisher–Rao distance from the Ocean's still point, rad."""
    flags: Mapping[str, Flag]

    def to_dict(self) -> dict[str, Any]:
        """As the report has it."""
        told = [f"{metric} {flag.direction} since {flag.since}" for metric, flag in self.flags.items()]
        rad = {"from_mean": self.from_mean, "from_ocean": self.from_ocean}
        return {"name": self.name, "role": self.role} | dict(self.numbers) | rad | {"flags": told}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the Ocean says at one step."""

    step: int
    garys: tuple[Standing, ...]
    formation: Formation | None
    """Of the Garys whose basin is a point of the simplex; None where they are fewer than two."""
    placed: tuple[int, ...]
    """Which of the Garys these are."""
    pooled: Pooled | None
    floor_rad: float
    recommendations: tuple[Recommendation, ...]
    """The first is the most pressing."""
    cooldowns: Mapping[str, int]
    """Reports still to come in which nothing may be carried out on a Gary."""
    digest: str
    reasons: Mapping[str, str]
    """Why something is missing, by its name here, or by GARY.METRIC."""

    @property
    def mean(self) -> Basin | None:
        """The Fréchet mean of the basins, [64]."""
        return None if self.formation is None else self.formation.mean

    def to_dict(self) -> dict[str, Any]:
        """The data of the "ocean" event; every number is finite or None."""
        seen, scatter = self.formation, self.pooled
        return {
            "garys": [gary.to_dict() for gary in self.garys],
            "distances": None if seen is None else self._distances(seen),
            "min_rad": None if seen is None else seen.min_rad,
            "max_rad": None if seen is None else seen.max_rad,
            "floor_rad": self.floor_rad,
            "variance": None if seen is None else seen.variance,
            "coherence": None if seen is None else seen.coherence,
            "modes": None if seen is None or seen.modes is None else _shares(seen.modes),
            "pooled": None
            if scatter is None
            else {
                "samples": scatter.samples,
                "within": scatter.within,
                "between": scatter.between,
                "modes": _shares(scatter.modes),
            },
            "recommendations": [each.to_dict(rank) for rank, each in enumerate(self.recommendations, 1)],
            "cooldowns": dict(self.cooldowns),
            "digest": self.digest,
            "sound": True,  # else there is no report
            "reasons": dict(self.reasons),
        }

    def _distances(self, seen: Formation) -> list[list[float | None]]:
        """[G, G] in the order of the Garys; None in the rows and columns of those without a basin."""
        table: list[list[float | None]] = [[None] * len(self.garys) for _ in self.garys]
        for i, row in zip(self.placed, seen.distances.tolist(), strict=True):
            for j, distance in zip(self.placed, row, strict=True):
                table[i][j] = distance
        return table


class Ocean(nn.Module):
    """The observer: a kernel as it is born, which never learns, and its basin, the still point.

    Args:
        config: of every Gary, and of its own kernel.
        probe: the Garys' own: it holds the readout, and the Ocean the digest of both.
        settings: windows, limits and how far advice may go.
        seed: of its kernel at birth.
        watch_from: the step from which changes are watched; better twice the warm-up of the learning rate, if later.

    Raises:
        QigError: its own kernel has no basin on this probe.
    """

    still: Tensor
    probe: Tensor

    def __init__(
        self,
        config: KernelConfig,
        probe: KernelProbe,
        settings: OceanConfig,
        *,
        seed: int,
        watch_from: int = WATCH_FROM,
    ) -> None:
        super().__init__()
        self.kernel = Kernel(config, seed=seed)
        basin = probe.measure(self.kernel).basin
        if basin is None:
            raise QigError(f"the Ocean's kernel, born of seed {seed}, has no basin on this probe")
        self.register_buffer("still", torch.from_numpy(np.array(basin)))
        self.register_buffer("probe", torch.frombuffer(bytearray.fromhex(probe.probe_digest), dtype=torch.uint8))
        self.requires_grad_(False)
        self._birth = self.digest()
        self._still: FloatArray = np.array(basin)
        self._settings = settings
        self._changes = Changes(
            window=settings.window, slack=settings.slack, threshold=settings.threshold, watch_from=watch_from
        )
        self._advice = Advice(settings)
        self._basins: dict[str, deque[list[float] | None]] = {}
        """Of the last W reports, by Gary; rows are never changed, so that a history may share them."""

    def digest(self) -> str:
        """blake3, hex, of name, type, shape and bytes of every parameter and buffer."""
        return parameter_digest(self)

    @torch.inference_mode()
    def observe(self, step: int, sightings: Sequence[Sighting]) -> Report:
        """Take in what was measured at a step.

        A Gary that is broken is told as that: its numbers are None with a reason, and the rest is reported without it.

        Raises:
            QigError: the Ocean is not what it was at birth.
            ValueError: two sightings of one name.
        """
        digest = self._asserted()
        names = [seen.name for seen in sightings]
        if len(set(names)) < len(names):
            raise ValueError(f"the Ocean was shown one Gary twice: {', '.join(names)}")
        reasons: dict[str, str] = {}
        placed, points, from_ocean = self._place(sightings, reasons)
        self._remember(names, dict(zip((names[i] for i in placed), points, strict=True)))
        found = formation(np.array(points)) if len(points) > 1 else None
        scatter = self._pooled()
        _explain(reasons, len(points), found, scatter)
        from_mean = {} if found is None else dict(zip(placed, found.from_mean.tolist(), strict=True))
        garys: list[Standing] = []
        by_gary: dict[str, dict[Verb, Finding]] = {}
        for i, seen in enumerate(sightings):
            numbers = _numbers(seen, reasons)
            flags = self._changes.observe(step, seen.name, seen.role, {metric: numbers[metric] for metric in WATCHED})
            by_gary[seen.name] = findings(
                flags=flags,
                broken=[metric for metric in LOSSES if f"{seen.name}.{metric}" in reasons],
                drift=numbers["drift"],
                nearest=_nearest(i, sightings, placed, found),
                floor_rad=self._settings.collapse_floor_rad,
            )
            standing = Standing(
                name=seen.name,
                role=seen.role,
                numbers=numbers,
                from_mean=from_mean.get(i),
                from_ocean=from_ocean.get(i),
                flags=flags,
            )
            garys.append(standing)
        recommendations = self._advice.weigh(step, by_gary)
        return Report(
            step=step,
            garys=tuple(garys),
            formation=found,
            placed=tuple(placed),
            pooled=scatter,
            floor_rad=self._settings.collapse_floor_rad,
            recommendations=recommendations,
            cooldowns=self._advice.cooldowns,
            digest=digest,
            reasons=reasons,
        )

    def carried_out(self, gary: str) -> None:
        """Something was done to this Gary: its cooldown begins, and the evidence on it starts anew."""
        self._changes.anew(gary)
        self._advice.carried_out(gary)

    def history(self) -> dict[str, Any]:
        """What is remembered of earlier reports, as plain data: with it another Ocean of this birth goes on bit by
        bit."""
        return {
            "basins": {gary: list(rows) for gary, rows in self._basins.items()},
            "changes": self._changes.state(),
            "advice": self._advice.state(),
        }

    def restore_history(self, state: Mapping[str, Any]) -> None:
        """Go on from a `history`, and from nothing else."""
        self._basins = {gary: deque(rows, maxlen=self._settings.window) for gary, rows in state["basins"].items()}
        self._changes.restore(state["changes"])
        self._advice.restore(state["advice"])

    def _asserted(self) -> str:
        digest = self.digest()
        if digest != self._birth:
            raise QigError(
                f"the Ocean is not what it was at birth: its digest is {digest[:16]}…, it was {self._birth[:16]}…; "
                "something has written to it, and what it reports can no longer be compared"
            )
        learning = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        if learning:
            raise QigError(f"the Ocean is to learn: {learning[0]} requires a gradient; freeze it again")
        return digest

    def _place(
        self, sightings: Sequence[Sighting], reasons: dict[str, str]
    ) -> tuple[list[int], list[Basin], dict[int, float]]:
        """The Garys whose basin is comparable with the still point, these basins, and their distance from it."""
        placed, points, from_ocean = [], [], {}
        for i, seen in enumerate(sightings):
            if seen.basin is None:
                reasons[f"{seen.name}.basin"] = "not measured"
                continue
            basin = Basin(np.asarray(seen.basin, dtype=np.float64))
            try:
                if basin.shape != self._still.shape:
                    raise SimplexError(f"it is {basin.shape}, the Ocean's {self._still.shape}")
                from_ocean[i] = float(fisher_rao_distance(basin, self._still))
            except SimplexError as error:
                reasons[f"{seen.name}.basin"] = str(error)
                continue
            placed.append(i)
            points.append(basin)
        return placed, points, from_ocean

    def _remember(self, names: Sequence[str], points: Mapping[str, Basin]) -> None:
        for name in names:
            self._basins.setdefault(name, deque(maxlen=self._settings.window))
        for name, rows in self._basins.items():
            rows.append(points[name].tolist() if name in points else None)

    def _pooled(self) -> Pooled | None:
        samples = [[row for row in rows if row is not None] for rows in self._basins.values()]
        known = [np.array(rows) for rows in samples if rows]
        return pooled(known) if len(known) > 1 else None


def _shares(modes: Sequence[float]) -> list[dict[str, float]]:
    return [{"share": share} for share in modes]


def _numbers(seen: Sighting, reasons: dict[str, str]) -> dict[str, float | None]:
    """The numbers of a sighting, None instead of what is not finite, whose kind is then a reason."""
    numbers: dict[str, float | None] = {}
    for metric in NUMBERS:
        value = getattr(seen, metric)
        numbers[metric] = None if value is None else float(value)
        if value is not None and not math.isfinite(value):
            numbers[metric], reasons[f"{seen.name}.{metric}"] = None, kind_of_nonfinite(value)
    return numbers


def _nearest(
    i: int, sightings: Sequence[Sighting], placed: Sequence[int], found: Formation | None
) -> tuple[str, float] | None:
    """Of the Garys that Gary i is to be apart from, the nearest: of a pair the later is to move, whatever the roles.

    Under a routing that takes turns the observer of a pair is soon the other one, and evidence would never add up.
    """
    if found is None or i not in placed:
        return None
    row = found.distances[placed.index(i)]
    pairs = [(distance, j) for distance, j in zip(row.tolist(), placed, strict=True) if j < i]
    if not pairs:
        return None
    distance, j = min(pairs)
    return sightings[j].name, distance


def _explain(reasons: dict[str, str], count: int, found: Formation | None, scatter: Pooled | None) -> None:
    """Say of everything in the report's geometry that is not there why it is not."""
    if found is None:
        why = f"{count} of the Garys {'has' if count == 1 else 'have'} a basin: at least two are needed"
        reasons |= dict.fromkeys(("distances", "variance", "coherence", "modes"), why)
    elif found.modes is None:
        reasons["modes"] = "two basins have one direction" if count == 2 else "the basins coincide"
    if scatter is None:
        reasons["pooled"] = "fewer than two Garys have had a basin in these reports"
    elif not scatter.modes:
        reasons["pooled.modes"] = "the basins coincide"
