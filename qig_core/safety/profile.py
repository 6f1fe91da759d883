"""Limits as data: what is judged, against which number, in which unit, after how long. No torch, no judging.

A profile is named, built in ("default", "reference", "off") or one's own in TOML:

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

    [soft_reset]             # go back to the last known good checkpoint before the run is stopped
    limits = ["nonfinite"]
    lr_factor = 0.5

Counts, dwells and windows are in evaluations of the limit's metric, never in steps, unless a name says steps.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from qig_core.errors import ConfigError
from qig_core.safety.given import check_choices, check_keys, hint, require

_ID = re.compile(r"[A-Za-z0-9._-]{1,80}")

LimitSeverity = Literal["warning", "critical"]


def _range(limit: msgspec.Struct, *names: str, least: float = 0.0, above: bool = False) -> None:
    """Each of these is finite and at least, or above, a number. None is left out."""
    for name in names:
        if (number := getattr(limit, name)) is not None:
            fits = number > least if above else number >= least
            words = f"{'greater than' if above else 'at least'} {least:g}, and finite"
            require(fits and number < math.inf, f"{name} is {number:g}: it must be {words}")


class _Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the kinds of limit have in common on paper: a `kind` that tells them apart."""


class NonFinite(_Limit, frozen=True, kw_only=True, tag="nonfinite"):
    """Every named metric stays finite. Alarms at the first value that is not, clears when all are finite again."""

    id: str = "nonfinite"
    metrics: tuple[str, ...] = ("loss", "loss_heldout", "phi", "grad_norm")
    severity: LimitSeverity = "critical"

    def __post_init__(self) -> None:
        require(len(self.metrics) > 0, "metrics names no metric")


class Threshold(_Limit, frozen=True, kw_only=True, tag="threshold"):
    """A metric stays on the healthy side of a fixed number: `metric comparison value`."""

    id: str
    metric: str
    comparison: Literal[">=", "<="]
    """Of the healthy side; equality is healthy."""
    value: float
    unit: str = ""
    severity: LimitSeverity = "critical"
    warning: float | None = None
    """Of a critical limit: a number on its healthy side from which on the state is a warning."""
    advice_at: float | None = None
    """A number on the healthy side from which on `advice` is given; the state stays ok."""
    advice: str = ""
    dwell: int = 1
    """Consecutive evaluations of the metric before it alarms, and before it clears."""
    hysteresis: float = 0.0
    """How far back inside the limit, in its unit, an alarming metric must come to count as healthy."""
    armed_after: int = 0
    """Evaluations of the metric that are seen before one is judged."""
    armed_at: float | None = None
    """Judged only once the metric has been on the healthy side of this number ..."""
    armed_held: int = 1
    """... for so many consecutive evaluations."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.value), f"value is {self.value:g}: it must be finite")
        _range(self, "hysteresis", "armed_after")
        _range(self, "dwell", "armed_held", least=1)
        for name in ("warning", "advice_at", "armed_at"):
            if (number := getattr(self, name)) is not None:
                inside = number >= self.value if self.comparison == ">=" else number <= self.value
                side = f"{name} is {number:g}: it must be {self.comparison} {self.value:g}, the healthy side of value"
                require(inside and math.isfinite(number), f"{side}, and finite")
        why = "warning is for a critical limit; of this one the severity is a warning already"
        require(self.warning is None or self.severity == "critical", why)
        require(self.advice_at is None or bool(self.advice), "advice_at has no advice: say what is to be considered")
        require(self.advice_at is not None or not self.advice, "advice has no advice_at: say from which number on")
        require(self.armed_at is not None or self.armed_held == 1, "armed_held has no armed_at: say which number")


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
        _range(self, "span", "window", "dwell", "margin_dwell", least=1)
        _range(self, "lag", "margin_share", "mad_floor", "mad_floor_share")
        _range(self, "mads", "margin", above=True)


class Floor(_Limit, frozen=True, kw_only=True, tag="floor"):
    """A metric does not fall under a share of its own baseline, the median of its first evaluations once armed."""

    id: str
    metric: str
    share: float = 0.7
    unit: str = ""
    severity: LimitSeverity = "critical"
    dwell: int = 10
    baseline: int = 50
    """Evaluations whose median is the baseline."""
    armed_after_steps: int = 200
    """Of the run, not of the metric: its warm-up is no baseline. A trainer makes it at least twice its warm-up."""
    rebase_on: str = "gain"
    """A metric whose change means that another baseline holds: a new one is taken, and nothing is judged till then."""

    def __post_init__(self) -> None:
        require(0.0 < self.share < 1.0, f"share is {self.share:g}: it must be greater than 0 and less than 1")
        _range(self, "dwell", "baseline", least=1)
        _range(self, "armed_after_steps")


class RobustZ(_Limit, frozen=True, kw_only=True, tag="robust_z"):
    """A metric does not leave its recent past: |x − median| <= z x 1.4826 MAD of a rolling window.

    The window never takes in a value that alarms.
    """

    id: str
    metric: str
    z: float = 8.0
    sides: Literal["above", "below", "both"] = "above"
    unit: str = ""
    severity: LimitSeverity = "warning"
    window: int = 100
    mad_floor_share: float = 0.01
    """Of the median's magnitude: the MAD counts as at least this."""
    dwell: int = 1
    hysteresis: float = 0.25
    """Share of z by which an alarming metric must come back."""

    def __post_init__(self) -> None:
        _range(self, "z", above=True)
        _range(self, "window", least=10)
        _range(self, "dwell", least=1)
        _range(self, "mad_floor_share")
        problem = f"hysteresis is {self.hysteresis:g}: it must be a share, at least 0 and less than 1"
        require(0.0 <= self.hysteresis < 1.0, problem)


Direction = Literal["up", "down", "both"]


class EarlyWarning(_Limit, frozen=True, kw_only=True, tag="early_warning"):
    """Several metrics stay steady: a CUSUM of each, against its own recent past (see `early`).

    It warns before a limit is reached, and tells for every other alarm which metrics moved first.
    """

    id: str = "early_warning"
    metrics: dict[str, Direction] = msgspec.field(default_factory=lambda: dict(EARLY_METRICS))
    """Each with the direction in which it is watched."""
    severity: LimitSeverity = "warning"
    slack: float = 1.5
    """In robust standard deviations, as the next two: what a metric may be off without anything adding up."""
    threshold: float = 35.0
    """The sum at which it alarms. The largest of 32 000 healthy steps of two models was 26."""
    clip: float = 6.0
    """One value counts as at most this."""
    window: int = 100
    """Evaluations of each metric that are its recent past."""

    def __post_init__(self) -> None:
        require(len(self.metrics) > 0, "metrics names no metric")
        _range(self, "slack", "threshold", above=True)
        _range(self, "clip", least=self.slack, above=True)  # else nothing could ever add up
        _range(self, "window", least=10)


EARLY_METRICS: dict[str, Direction] = {
    "loss": "up",
    "grad_norm": "up",
    "phi": "down",
    "kappa": "both",
    "drift_velocity": "up",
}


class Measured(_Limit, frozen=True, kw_only=True, tag="measured"):
    """A metric that used to be measured goes on being measured where others of its group are."""

    id: str = "measured"
    metrics: tuple[str, ...] = ("phi", "kappa", "drift_velocity")
    severity: LimitSeverity = "warning"
    armed_after: int = 10
    """Evaluations of a metric after which it is missed."""
    dwell: int = 3
    """Consecutive evaluations of the group without it."""

    def __post_init__(self) -> None:
        require(len(set(self.metrics)) > 1, "metrics names fewer than two: one is missed only where another is there")
        _range(self, "armed_after", "dwell", least=1)


class Stall(_Limit, frozen=True, kw_only=True, tag="stall"):
    """A step comes within max(min_s, p99s x the 99th percentile of step times). Judged by a thread, not by samples."""

    id: str = "no_step"
    severity: LimitSeverity = "warning"
    min_s: float = 60.0
    p99s: float = 20.0

    def __post_init__(self) -> None:
        _range(self, "min_s", "p99s", above=True)
        why = "severity is critical: a thread beside the loop cannot stop it in order, and can only warn"
        require(self.severity == "warning", why)


Judged = NonFinite | Threshold | Divergence | Floor | RobustZ | EarlyWarning | Measured
"""What is judged from samples."""
Limit = Judged | Stall
_KINDS: dict[str, type[Limit]] = {
    "nonfinite": NonFinite,
    "threshold": Threshold,
    "divergence": Divergence,
    "floor": Floor,
    "robust_z": RobustZ,
    "early_warning": EarlyWarning,
    "measured": Measured,
    "stall": Stall,
}


class SoftReset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Going back to the last known good checkpoint instead of stopping. Counts are checks of the loop, never steps."""

    limits: tuple[str, ...] = ()
    """Ids of the limits whose critical alarm is answered by a reset first; every other one stops the run."""
    good_for: int = 50
    """Checks after a checkpoint that must have been inside all bands before it is known to be good."""
    lr_factor: float = 1.0
    """What the learning rate is multiplied by at each reset."""
    cooldown: int = 200
    """Checks after a reset within which another alarm stops the run."""
    at_most: int = 2
    """Resets within `window`; the next alarm stops the run."""
    window: int = 2000

    def __post_init__(self) -> None:
        _range(self, "good_for", "cooldown")
        _range(self, "at_most", "window", least=1)
        problem = f"lr_factor is {self.lr_factor:g}: it must be greater than 0 and at most 1"
        require(0.0 < self.lr_factor <= 1.0, problem)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits under one name; ids are unique."""

    name: str
    limits: tuple[Limit, ...] = ()
    breakdown: Literal["default", "reference"] = "default"
    """What counts as a breakdown in breakdown_pct (see `breakdown`)."""
    soft_reset: SoftReset | None = None
    on_failed_save: Literal["go on", "stop"] = "go on"
    """When the disk refuses an interval or commanded checkpoint: an alert alone, or the end with exit code 74."""

    def __post_init__(self) -> None:
        ids = [limit.id for limit in self.limits]
        for name in ids:
            require(
                _ID.fullmatch(name) is not None, f"a limit's id {name[:80]!r} is not letters, digits, . _ and - alone"
            )
            require(ids.count(name) == 1, f"two limits are called {name!r}")
        severities = {limit.id: limit.severity for limit in self.limits}
        for name in self.soft_reset.limits if self.soft_reset else ():
            require(name in ids, f"soft_reset names {name!r}, which is no limit of this profile{hint(name, ids)}")
            why = f"soft_reset names {name!r}, which only warns: a reset answers what would stop the run"
            require(severities[name] == "critical", why)

    @property
    def stall(self) -> Stall | None:
        return next((limit for limit in self.limits if isinstance(limit, Stall)), None)

    @property
    def judged(self) -> tuple[Judged, ...]:
        """The limits that are judged from samples."""
        return tuple(limit for limit in self.limits if not isinstance(limit, Stall))

    def armed_after(self, steps: int) -> "Profile":
        """The same for a run whose warm-up wants more: no Floor is armed before so many steps."""
        limits = tuple(
            msgspec.structs.replace(limit, armed_after_steps=max(limit.armed_after_steps, steps))
            if isinstance(limit, Floor)
            else limit
            for limit in self.limits
        )
        return msgspec.structs.replace(self, limits=limits)


_DEPTH = Threshold(id="recursion_depth", metric="recursion_depth", comparison=">=", value=3.0, unit="passes")
_BREAKDOWN = Threshold(
    id="breakdown", metric="breakdown_pct", comparison="<=", value=60.0, unit="%", dwell=3, hysteresis=5.0
)
_GPU = Threshold(
    id="gpu_memory",
    metric="gpu_mem_pct",
    comparison="<=",
    value=95.0,
    unit="%",
    severity="warning",
    dwell=2,
    hysteresis=2.0,
)
DEFAULT = Profile(
    name="default",
    limits=(
        NonFinite(),
        _DEPTH,
        Divergence(),
        Floor(id="phi_floor", metric="phi"),
        _BREAKDOWN,
        Threshold(
            id="drift",
            metric="drift_rolling",
            comparison="<=",
            value=0.60,
            unit="rad",
            severity="warning",
            advice_at=0.48,
            advice="sleep advised",
            hysteresis=0.05,
        ),
        RobustZ(id="kappa", metric="kappa", z=6.0, sides="both", unit="rad⁻¹"),
        RobustZ(id="loss_spike", metric="loss", unit="nat"),
        # One batch in eighty is beyond 8 of a healthy kernel, whose gradients are heavy-tailed; three in a row are not.
        RobustZ(id="grad_spike", metric="grad_norm", dwell=3),
        RobustZ(id="basin_jump", metric="drift_velocity", z=10.0, window=50, unit="rad"),
        EarlyWarning(),
        Measured(),
        _GPU,
        Stall(),
    ),
)
REFERENCE = Profile(
    name="reference",
    limits=(
        NonFinite(),
        Threshold(id="phi_floor", metric="phi", comparison=">=", value=0.50, armed_at=0.65, armed_held=50),
        _BREAKDOWN,
        Threshold(id="drift", metric="drift_rolling", comparison="<=", value=0.60, unit="rad"),
        Threshold(id="kappa", metric="kappa", comparison=">=", value=20.0, unit="rad⁻¹", severity="warning"),
        _DEPTH,
        Stall(),
    ),
    breakdown="reference",
)
"""The field's absolute limits, for models whose measures are in those units; drift is 0.30 rad Bhattacharyya there."""
OFF = Profile(name="off")
PROFILES = {profile.name: profile for profile in (DEFAULT, REFERENCE, OFF)}


def to_dict(profile: Profile) -> dict[str, Any]:
    """A profile with every number spelled out, as a manifest keeps it and TOML can hold it."""
    plain: dict[str, Any] = _without_none(msgspec.json.decode(msgspec.json.encode(profile)))
    return plain


def _without_none(data: Any) -> Any:
    """TOML has no null; what is left out is None again when it is read."""
    if isinstance(data, list):
        return [_without_none(each) for each in data]
    if isinstance(data, dict):
        return {key: _without_none(value) for key, value in data.items() if value is not None}
    return data


def from_dict(data: Mapping[str, Any], where: str = "profile") -> Profile:
    """The inverse of `to_dict`; what is left out has its default. What is wrong is told with `where` it stands.

    Raises:
        ConfigError: an unknown key or kind (with the nearest name), a missing one, a wrong type or range.
    """
    check_keys(data, Profile.__struct_fields__, where)
    check_choices(data, Profile, where)
    soft_reset = data.get("soft_reset")
    if isinstance(soft_reset, Mapping):
        check_keys(soft_reset, SoftReset.__struct_fields__, f"{where}: soft_reset")
    limits = data.get("limits", [])
    if not isinstance(limits, list | tuple) or not all(isinstance(limit, Mapping) for limit in limits):
        raise ConfigError(f"{where}: limits must be a list of tables ([[limits]])")
    for index, limit in enumerate(limits):
        named = f"{where}: limit {limit.get('id', index)!r}"
        kind = limit.get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ConfigError(f"{named}: kind {kind!r} is unknown{hint(str(kind), _KINDS)}")
        check_keys(limit, ("kind", *_KINDS[kind].__struct_fields__), named)
        check_choices(limit, _KINDS[kind], named)
    try:
        return msgspec.convert(data, Profile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {str(error).replace(' - at `$.', ' - at `')}") from error


def is_path(name: str) -> bool:
    """Whether a profile's name means a file."""
    return "/" in name or name.endswith(".toml")


def load_profile(name: str) -> Profile:
    """A built-in profile by its name, or one's own by the path of a TOML file (a name with a "/" or ".toml").

    Raises:
        ConfigError: an unknown name (with the nearest), or a file that cannot be read or understood.
    """
    if name in PROFILES:
        return PROFILES[name]
    if not is_path(name):
        raise ConfigError(f"unknown safety profile {name!r}{hint(name, PROFILES)}; your own is a path to a .toml file")
    try:
        data = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"safety profile {name!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"safety profile {name!r} is not TOML: {error}") from error
    require("limits" in data, f"safety profile {name!r} has no [[limits]]; the profile 'off' judges nothing")
    return from_dict({"name": Path(name).stem} | data, f"safety profile {name!r}")
