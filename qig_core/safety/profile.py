"""Limits as data: what is judged, against which number, in which unit, after how long. No torch, no judging.

A profile is named, built in ("default", "off") or one's own in TOML:

    name = "mine"

    [[limits]]
    kind = "nonfinite"
    metrics = ["loss", "reward"]

    [[limits]]
    id = "reward_floor"
    kind = "threshold"
    metric = "reward"
    comparison = ">="        # the healthy side: reward >= 0.1
    value = 0.1
    dwell = 10
    severity = "warning"
"""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from qig_core.errors import ConfigError

LimitSeverity = Literal["warning", "critical"]


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ConfigError(problem)


class _Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the kinds of limit have in common on paper: a `kind` that tells them apart."""


class NonFinite(_Limit, frozen=True, kw_only=True, tag="nonfinite"):
    """Every named metric stays finite. Alarms at the first value that is not, clears when all are finite again."""

    id: str = "nonfinite"
    metrics: tuple[str, ...] = ("loss", "loss_heldout", "phi", "grad_norm")
    severity: LimitSeverity = "critical"

    def __post_init__(self) -> None:
        _require(len(self.metrics) > 0, "metrics names no metric")


class Threshold(_Limit, frozen=True, kw_only=True, tag="threshold"):
    """A metric stays on the healthy side of a fixed number: `metric comparison value`."""

    id: str
    metric: str
    comparison: Literal[">=", "<="]
    """Of the healthy side; equality is healthy."""
    value: float
    unit: str = ""
    severity: LimitSeverity = "critical"
    dwell: int = 1
    """Consecutive evaluations of the metric before it alarms, and before it clears."""
    hysteresis: float = 0.0
    """How far back inside the limit, in its unit, an alarming metric must come to count as healthy."""
    armed_after: int = 0
    """Evaluations of the metric that are seen before one is judged."""

    def __post_init__(self) -> None:
        _require(math.isfinite(self.value), "value is not finite")
        _require(self.dwell >= 1, "dwell is less than 1")
        _require(0.0 <= self.hysteresis < math.inf, "hysteresis is negative or not finite")
        _require(self.armed_after >= 0, "armed_after is negative")


class Divergence(_Limit, frozen=True, kw_only=True, tag="divergence"):
    """A falling or resting metric does not run away upwards: two limits on one moving average (see `divergence`).

    `margin` and `mad_floor` are in the metric's own unit: the defaults are meant for a loss in nats.
    """

    id: str = "divergence"
    metric: str = "loss"
    unit: str = "nat"
    severity: LimitSeverity = "critical"
    span: int = 20
    """Of the moving average: alpha = 2 / (span + 1)."""
    window: int = 200
    """Trailing evaluations over which median and MAD are taken."""
    lag: int = 50
    """Evaluations between the newest and the end of the window."""
    mads: float = 8.0
    dwell: int = 20
    """Consecutive evaluations above median + mads x MAD."""
    margin: float = 0.5
    """Above the best moving average so far; more where the metric is noisy or large (see `divergence`)."""
    margin_share: float = 0.1
    """Of the median's magnitude: the margin is at least this."""
    margin_dwell: int = 50
    mad_floor: float = 0.01
    mad_floor_share: float = 0.01
    """Of the median's magnitude: the MAD counts as at least this, so that a flat loss does not alarm."""

    def __post_init__(self) -> None:
        for name in ("span", "window", "dwell", "margin_dwell"):
            _require(getattr(self, name) >= 1, f"{name} is less than 1")
        _require(self.lag >= 0, "lag is negative")
        for name in ("mads", "margin"):
            _require(0.0 < getattr(self, name) < math.inf, f"{name} is not positive")
        for name in ("margin_share", "mad_floor", "mad_floor_share"):
            _require(0.0 <= getattr(self, name) < math.inf, f"{name} is negative or not finite")


Limit = NonFinite | Threshold | Divergence
_KINDS: dict[str, type[Limit]] = {"nonfinite": NonFinite, "threshold": Threshold, "divergence": Divergence}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits under one name; ids are unique."""

    name: str
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        ids = [limit.id for limit in self.limits]
        for name in ids:
            _require(bool(name), "a limit has an empty id")
            _require(ids.count(name) == 1, f"two limits are called {name!r}")


DEFAULT = Profile(
    name="default",
    limits=(
        NonFinite(),
        Threshold(id="recursion_depth", metric="recursion_depth", comparison=">=", value=3.0, unit="passes"),
        Divergence(),
    ),
)
OFF = Profile(name="off")
PROFILES = {profile.name: profile for profile in (DEFAULT, OFF)}


def to_dict(profile: Profile) -> dict[str, Any]:
    """A profile with every number spelled out, as a manifest keeps it and TOML can hold it."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(profile))
    return plain


def from_dict(data: Mapping[str, Any]) -> Profile:
    """The inverse of `to_dict`; what is left out has its default.

    Raises:
        ConfigError: an unknown key or kind (with the nearest name), a missing one, a wrong type or range.
    """
    _check_keys(data, ("name", "limits"), "profile")
    limits = data.get("limits", [])
    if not isinstance(limits, list | tuple) or not all(isinstance(limit, Mapping) for limit in limits):
        raise ConfigError("profile: limits must be a list of tables ([[limits]])")
    for index, limit in enumerate(limits):
        where = f"profile: limit {limit.get('id', index)!r}"
        kind = limit.get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ConfigError(f"{where}: kind {kind!r} is unknown{_hint(str(kind), _KINDS)}")
        _check_keys(limit, ("kind", *_KINDS[kind].__struct_fields__), where)
    try:
        return msgspec.convert(data, Profile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"profile: {error}") from error


def load_profile(name: str) -> Profile:
    """A built-in profile by its name, or one's own by the path of a TOML file (a name with a "/" or ".toml").

    Raises:
        ConfigError: an unknown name (with the nearest), or a file that cannot be read or understood.
    """
    if name in PROFILES:
        return PROFILES[name]
    if "/" not in name and not name.endswith(".toml"):
        raise ConfigError(f"unknown safety profile {name!r}{_hint(name, PROFILES)}; your own is a path to a .toml file")
    try:
        data = tomllib.loads(Path(name).read_text())
    except OSError as error:
        raise ConfigError(f"safety profile {name!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"safety profile {name!r} is not TOML: {error}") from error
    return from_dict({"name": Path(name).stem} | data)


def _check_keys(data: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{_hint(key, known)}")


def _hint(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
