"""What a training run is asked to do, as frozen data read from TOML. No torch."""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import blake3
import msgspec

from qig_core.checkpoints.retention import Keep
from qig_core.errors import ConfigError
from qig_core.safety.profile import is_path
from qig_core.training.program_config import PROGRAMS, CharlieConfig, ConstellationConfig, positive, require

MIN_PASSES = 3
MAX_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Shape and birth of a kernel. Raises ConfigError naming the field that does not fit."""

    width: int = 128
    heads: int = 8
    """Even; at most 8, or a multiple of 8 (a part of the phi measure is then heads / 8 neighbouring heads)."""
    context: int = 64
    """Longest sequence, tokens."""
    passes: int = 4
    """Times the one block is applied: the recursion depth, at least 3."""
    mlp_ratio: int = 2
    vocab: int = 256
    gain: float = 1.0
    """g at birth, in [0, 1]; multiplies every cross block."""
    kappa_init: float = 8.0
    """Inverse temperature of attention at birth, rad⁻¹, the same for every head."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "context", "mlp_ratio", "vocab"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.passes < MIN_PASSES:
            raise ConfigError(f"passes is {self.passes}: the recursion depth is at least {MIN_PASSES}")
        if self.heads % 2 or (self.heads > MAX_PARTS and self.heads % MAX_PARTS):
            raise ConfigError(f"heads is {self.heads}: choose 2, 4, 6, 8 or a multiple of 8, so that no head straddles")
        if self.width % self.heads or self.width // self.heads < 2:
            raise ConfigError(f"width {self.width} must be a multiple of heads {self.heads}, two units a head or more")
        if not 0.0 <= self.gain <= 1.0:
            raise ConfigError(f"gain is {self.gain}: it must lie in [0, 1]")
        if not (math.isfinite(self.kappa_init) and self.kappa_init > 0.0):
            raise ConfigError(f"kappa_init is {self.kappa_init}: it must be positive (rad⁻¹)")

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The unit groups whose integration is measured: each head's units, at most eight groups of equal size."""
        num_parts = min(self.heads, MAX_PARTS)
        size = self.width // num_parts
        return tuple(tuple(range(i * size, (i + 1) * size)) for i in range(num_parts))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    batch_size: int = 16
    heldout_batches: int = 4
    """Fixed batches of held-out text, of batch_size each, over which loss_heldout is averaged."""

    def __post_init__(self) -> None:
        positive(self, "batch_size", "heldout_batches")


OPTIMIZERS: dict[str, Mapping[str, Any]] = {
    "adamw": {},
    "natural": {
        "lr": 0.1,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "damping": 0.1,
        "damping_min": 0.01,
        "kl_max": 0.02,
        "cg_iterations": 3,
        "warm_start": 0.95,
    },
}
"""Every optimiser with what it has instead of OptimizerConfig's defaults, which are adamw's."""
ADAMW_KEYS = ("weight_decay", "clip_norm")
NATURAL_KEYS = ("damping", "damping_min", "kl_max", "cg_iterations", "warm_start")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How a gradient becomes a step; the rate warms up linearly, then is constant, so that a run can go on.

    In a file, `optimizer = "natural"` is that optimiser with its own defaults (OPTIMIZERS), a table with `name` and
    what is to differ from them the long form.
    """

    name: str = "adamw"
    """adamw, or natural: qig_core.geometry.natural, which takes neither weight_decay nor clip_norm."""
    lr: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    damping: float = 0.0
    """Of natural, as all below, and 0 for adamw: lambda at birth; the loss's reductions then raise and lower it."""
    damping_min: float = 0.0
    """How low it may fall. A batch of a few hundred tokens knows the Fisher matrix no better."""
    kl_max: float = 0.0
    """Trust region, nats a token."""
    cg_iterations: int = 0
    """Of one step; each costs about two backward passes."""
    warm_start: float = 0.0
    """Share of the last solution that the next one begins with, in [0, 1]: the memory over batches."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer {self.name!r}{_nearest(self.name, OPTIMIZERS)}")
        natural = self.name == "natural"
        for name in ADAMW_KEYS if natural else NATURAL_KEYS:
            if getattr(self, name) != 0:
                raise ConfigError(f"optimizer.{name} does nothing for {self.name}: leave it out, or at 0")
        positive(self, "lr", *(("damping_min", "kl_max", "cg_iterations") if natural else ()))
        for name in ("warmup_steps", "weight_decay", "clip_norm", "damping"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}: it must not be negative")
        if not 0.0 <= self.warm_start <= 1.0:
            raise ConfigError(f"warm_start is {self.warm_start}: it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class CadenceConfig:
    """How often something is done, in steps."""

    log_every: int = 1
    measure_every: int = 35
    heldout_every: int = 100
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        positive(self, "log_every", "measure_every", "heldout_every", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Which checkpoints stay, and how they are written; cadence.checkpoint_every says how often."""

    newest: int = 5
    """So many of the newest are kept, with the best, pinned, emergency and resumed-from ones."""
    best: int = 3
    """So many of those with the lowest loss_heldout."""
    on_best: bool = False
    """Save also whenever loss_heldout is lower than at every checkpoint before."""
    asynchronous: bool = True
    """Write interval checkpoints beside the training, from a copy in memory."""
    sha256: bool = False
    """Digest by SHA-256 as well as by blake3."""

    def __post_init__(self) -> None:
        self.keep()

    def keep(self) -> Keep:
        return Keep(newest=self.newest, best=self.best)


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    profile: str = "default"
    """default, off, or the path of a TOML file."""
    deadline_s: float = 25.0
    """How long a requested abort may take before the watchdog ends the process."""

    def __post_init__(self) -> None:
        positive(self, "deadline_s")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a run's numbers depend on, but the corpus, which is recorded by its digest."""

    program: str = "kernel"
    """kernel: plain training; charlie or constellation, which have a table of that name."""
    steps: int = 2000
    """The total number of steps, over all sessions."""
    seed: int = 0
    threads: int = 0
    """torch's threads; 0 leaves torch's choice. Resuming bitwise needs the same number."""
    kernel: KernelConfig = field(default_factory=KernelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cadence: CadenceConfig = field(default_factory=CadenceConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    charlie: CharlieConfig | None = None
    constellation: ConstellationConfig | None = None

    def __post_init__(self) -> None:
        positive(self, "steps")
        require(self.threads >= 0, f"threads is {self.threads}: it must be 0 or more")
        require(self.program in PROGRAMS, f"unknown program {self.program!r}{_nearest(self.program, PROGRAMS)}")
        for name in PROGRAMS[1:]:
            given, wanted = getattr(self, name) is not None, self.program == name
            require(given is wanted, f"a table [{name}] is for program = {name!r}, and only for that")
        if self.charlie is not None:
            least = self.charlie.least_steps
            require(self.steps >= least, f"steps is {self.steps}: the phases of charlie take at least {least}")


PRESETS: dict[str, Mapping[str, Any]] = {
    "default": {},
    # Small enough for a test: about a hundred steps a second on one core.
    "tiny": {
        "steps": 300,
        "threads": 1,
        "kernel": {"width": 32, "heads": 4, "context": 32, "passes": 3},
        "data": {"batch_size": 4, "heldout_batches": 2},
        "optimizer": {"name": "adamw", "lr": 1e-2, "warmup_steps": 20},
        "cadence": {"measure_every": 10, "heldout_every": 50, "checkpoint_every": 100},
    },
}
PROGRAM_PRESETS: dict[str, dict[str, Mapping[str, Any]]] = {
    "default": {
        "charlie": {"cadence": {"measure_every": 20, "heldout_every": 40}, "charlie": {}},
        "constellation": {"cadence": {"measure_every": 25}, "constellation": {}},
    },
    "tiny": {
        "charlie": {
            "steps": 900,
            "cadence": {"heldout_every": 20},
            "charlie": {
                "dormant_steps": 300,
                "awakening_steps": 200,
                "settling_steps": 200,
                "demonstration_steps": 10,
                "margin_nats": 2.3,
            },
        },
        "constellation": {"steps": 600, "constellation": {"turn_steps": 20}},
    },
}
"""What a program wants otherwise than its preset."""

CHANGEABLE = frozenset(
    {
        "steps",
        "optimizer.lr",
        "cadence.log_every",
        "cadence.measure_every",
        "cadence.heldout_every",
        "cadence.checkpoint_every",
        "checkpoints.newest",
        "checkpoints.best",
        "checkpoints.on_best",
        "checkpoints.asynchronous",
        "checkpoints.sha256",
    }
)
"""What a resume may change; anything else would make it another run, which is what a fork is for."""


def _nearest(given: str, known: Iterable[str], where: str = "") -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {where}{near[0]}?" if near else f"; known here: {', '.join(sorted(known))}"


def _check_keys(given: Mapping[str, Any], kind: type, where: str = "") -> None:
    hints = get_type_hints(kind)
    for key, value in given.items():
        path = f"{where}{key}"
        if key not in hints:
            raise ConfigError(f"unknown key {path}{_nearest(key, hints, where)}")
        table = next((each for each in (hints[key], *get_args(hints[key])) if dataclasses.is_dataclass(each)), None)
        if table is not None and not (value is None and key in PROGRAMS):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path} must be a table")
            _check_keys(value, cast(type, table), f"{path}.")


def _expanded(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` with `optimizer = NAME`, the short form, as the table it stands for."""
    short = values.get("optimizer")
    return {**values, "optimizer": {"name": short}} if isinstance(short, str) else values


def _named(values: Mapping[str, Any]) -> object:
    """The optimiser's name, of expanded values; None where its table is no table."""
    optimizer = values.get("optimizer", {})
    return optimizer.get("name", OptimizerConfig.name) if isinstance(optimizer, Mapping) else None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, tables merged key by key.

    A rate is one optimiser's: where `over` names another than base's, nothing stays of base's table.
    """
    base, over = _expanded(base), _expanded(over)
    optimizer = over.get("optimizer")
    if isinstance(optimizer, Mapping) and "name" in optimizer and _named(over) != _named(base):
        base = {key: value for key, value in base.items() if key != "optimizer"}
    return _merged(base, over)


def preset(name: str, program: str = "kernel") -> dict[str, Any]:
    """The values that a new run starts from.

    Raises:
        ConfigError: no such preset or program, with those that there are.
    """
    require(name in PRESETS, f"no preset {name!r}; there are {', '.join(PRESETS)}")
    require(program in PROGRAMS, f"unknown program {program!r}{_nearest(program, PROGRAMS)}")
    own = {} if program == "kernel" else {"program": program, **PROGRAM_PRESETS[name][program]}
    return merge(PRESETS[name], own)


def plain(config: TrainConfig) -> dict[str, Any]:
    """A configuration as nested plain values; the tables of other programs are left out."""
    return {key: value for key, value in dataclasses.asdict(config).items() if value is not None}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        mine = out.get(key)
        out[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return out


def overridden(base: Mapping[str, Any], over: Mapping[str, Any]) -> list[str]:
    """The keys of `base`, joined by dots, to which `over` gives another value."""
    new = flatten(_expanded(over))
    return [key for key, value in flatten(base).items() if key in new and new[key] != value]


def build(values: Mapping[str, Any]) -> TrainConfig:
    """A checked configuration from nested plain values; what is left out has its default, or its optimiser's.

    Raises:
        ConfigError: an unknown key (with the nearest name), a wrong type, a value out of range.
    """
    values = _expanded(values)
    _check_keys(values, TrainConfig)
    if isinstance(name := _named(values), str):
        values = {**values, "optimizer": {**OPTIMIZERS.get(name, {}), **values.get("optimizer", {})}}
    if (program := values.get("program")) in PROGRAMS[1:]:
        values = {program: {}, **values}
    try:
        return msgspec.convert(values, TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace(" - at `$.", " - at `")) from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested plain values. The path of a safety profile in it is relative to the file.

    Raises:
        ConfigError: absent, unreadable or not TOML.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not TOML: {error}") from error
    safety = values.get("safety")
    if isinstance(safety, dict) and isinstance(profile := safety.get("profile"), str) and is_path(profile):
        safety["profile"] = str(path.absolute().parent / profile)
    return values


def to_toml(values: Mapping[str, Any], where: str = "") -> str:
    """A configuration as a TOML file. A JSON scalar or list is one of TOML, and there is nothing else in it."""
    scalars = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    tables = [
        f"\n[{where}{key}]\n{to_toml(value, f'{where}{key}.')}"
        for key, value in values.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join([*scalars, ""]) + "".join(tables)


def digest(config: TrainConfig) -> str:
    """blake3, hex, of a configuration's JSON with sorted keys."""
    return str(blake3.blake3(json.dumps(plain(config), sort_keys=True).encode()).hexdigest())


def flatten(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{where}{key}.")
        else:
            out[f"{where}{key}"] = value
    return out


def resume_config(recorded: Mapping[str, Any], over: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a resumed run: the recorded one with the changes that a resume may make.

    Raises:
        ConfigError: names every key that may not differ.
    """
    before = build(recorded)
    after = build(merge(recorded, over))
    old, new = flatten(plain(before)), flatten(plain(after))
    refused = [f"{key} ({old[key]!r} -> {value!r})" for key, value in new.items() if old[key] != value]
    refused = [text for text in refused if text.split(" ")[0] not in CHANGEABLE]
    if refused:
        raise ConfigError(f"a resume may not change {', '.join(refused)}; use --fork for another run")
    return after
