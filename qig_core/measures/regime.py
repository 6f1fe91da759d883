"""The name of the regime a run is in: a pure function of (phi, kappa, drift), a profile and the state before.

A name is for display; it alarms nobody by itself. Names hold for phi at full rank only: at any other the caller passes
None for phi, and there is no name.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Band:
    """One regime. A sample belongs to the last band of the profile whose every bound it meets."""

    name: str
    phi_min: float
    """Inclusive, 0 .. 1."""
    kappa_min: float | None = None
    """rad⁻¹; None where the profile does not look at kappa."""
    drift_max_rad: float | None = None
    """Fisher–Rao; None where the profile does not look at drift."""


@dataclass(frozen=True, kw_only=True)
class RegimeProfile:
    """Bands in rising order of phi_min, the first at 0 and without other bounds, so that every sample has a name."""

    bands: tuple[Band, ...]
    margin: float = 0.01
    """How far past a bound of phi a sample must lie to count as left."""
    dwell: int = 3
    """Consecutive evaluations on one side of the regime before the name changes, to the nearest band among theirs."""

    def __post_init__(self) -> None:
        bounds = [band.phi_min for band in self.bands]
        if not bounds or bounds[0] != 0.0 or bounds != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise ValueError(f"bounds of phi must start at 0 and rise, not {bounds}")
        if len({band.name for band in self.bands}) < len(self.bands):
            raise ValueError(f"two bands have one name: {', '.join(band.name for band in self.bands)}")
        if self.bands[0].kappa_min is not None or self.bands[0].drift_max_rad is not None:
            raise ValueError(f"the first band, {self.bands[0].name!r}, must take any kappa and drift")
        if not 0.0 <= self.margin < math.inf or self.dwell < 1:
            raise ValueError(f"margin {self.margin} must not be negative and dwell {self.dwell} must be at least 1")

    def index(self, name: str) -> int:
        """Where `name` stands in the profile; raises ValueError for a name it does not have."""
        names = [band.name for band in self.bands]
        if name not in names:
            raise ValueError(f"no regime is called {name!r}; this profile knows {', '.join(names)}")
        return names.index(name)


FIELD_REGIMES = RegimeProfile(
    bands=(
        Band(name="linear", phi_min=0.0),
        Band(name="geometric", phi_min=0.45),
        Band(name="hyperdimensional", phi_min=0.75),
        Band(name="topological_instability", phi_min=0.90),
    )
)
"""The field's names and boundaries; meant for phi at full rank only."""


@dataclass(frozen=True, kw_only=True)
class RegimeState:
    """What hysteresis remembers. The default is a run that has no name yet."""

    name: str | None = None
    candidate: str | None = None
    """The band nearest to `name` that the newest evaluations lay in, all of them on one side of it."""
    count: int = 0
    """How many of them, in a row."""


def classify(
    state: RegimeState,
    *,
    phi: float | None,
    kappa: float | None,
    drift: float | None,
    profile: RegimeProfile = FIELD_REGIMES,
) -> RegimeState:
    """The state after one more evaluation; its `name` is the regime.

    The first finite phi names the regime at once. After that phi must pass a bound by `margin`, `dwell` times in a row;
    the name is then that of the nearest band reached, so that a phi that swings about a further bound cannot hold back
    the change. A phi that is None or not finite changes nothing.

    Args:
        phi: score in [0, 1), at full rank; None where it was measured at another.
        kappa: rad⁻¹, None where there is none; it then fails any bound on kappa.
        drift: Fisher–Rao, radians, None before it is armed; it then fails any bound on drift.

    Raises:
        ValueError: the state holds a name that the profile does not have.
    """
    for known in (state.name, state.candidate):
        if known is not None:
            profile.index(known)
    if phi is None or not math.isfinite(phi):
        return state
    here = None if state.name is None else profile.index(state.name)
    seen = _band(phi, kappa, drift, profile, here)
    if here is None or seen == here:
        return RegimeState(name=profile.bands[seen].name)
    count = 1
    if state.candidate is not None:
        before = profile.index(state.candidate)
        if (before > here) == (seen > here):
            count, seen = state.count + 1, min(before, seen, key=lambda i: abs(i - here))
    name = profile.bands[seen].name
    if count >= profile.dwell:
        return RegimeState(name=name)
    return RegimeState(name=state.name, candidate=name, count=count)


def _band(phi: float, kappa: float | None, drift: float | None, profile: RegimeProfile, here: int | None) -> int:
    found = 0
    for i, band in enumerate(profile.bands[1:], start=1):
        shift = 0.0 if here is None else (profile.margin if i > here else -profile.margin)
        if phi < band.phi_min + shift:
            continue
        if band.kappa_min is not None and (kappa is None or not kappa >= band.kappa_min):
            continue
        if band.drift_max_rad is not None and (drift is None or not drift <= band.drift_max_rad):
            continue
        found = i
    return found


class RegimeTracker:
    """`classify` with its state kept: one regime for one stream of evaluations."""

    def __init__(self, profile: RegimeProfile = FIELD_REGIMES, state: RegimeState | None = None) -> None:
        self._profile = profile
        self._state = RegimeState() if state is None else state

    @property
    def name(self) -> str | None:
        """The regime, None before the first finite phi: always, where phi is not at full rank."""
        return self._state.name

    def observe(self, phi: float | None, kappa: float | None = None, drift: float | None = None) -> str | None:
        """Take one evaluation; the regime after it. Arguments as in `classify`."""
        self._state = classify(self._state, phi=phi, kappa=kappa, drift=drift, profile=self._profile)
        return self.name

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, as plain data."""
        return dataclasses.asdict(self._state)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], profile: RegimeProfile = FIELD_REGIMES) -> "RegimeTracker":
        """The tracker that `state()` was taken from. Raises ValueError for another shape or an unknown name."""
        try:
            restored = RegimeState(**state)
        except TypeError as error:
            raise ValueError(f"not the state of a regime: {error}") from error
        if isinstance(restored.count, bool) or not isinstance(restored.count, int) or restored.count < 0:
            raise ValueError(f"not the state of a regime: {restored.count!r} evaluations")
        for name in (restored.name, restored.candidate):
            if name is not None:
                profile.index(name)
        return cls(profile, restored)
