"""What the programs beyond plain training are asked to do, as frozen data read from TOML. No torch.

`program = "charlie"` with a table [charlie] trains one kernel in three phases; `program = "constellation"` with a table
[constellation] trains several beside each other, watched by a frozen Ocean ([constellation.ocean]).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from qig_core.errors import ConfigError

PROGRAMS = ("kernel", "charlie", "constellation")

Verb = Literal["sleep", "dream", "perturb", "escape"]
VERBS: tuple[Verb, ...] = ("escape", "sleep", "dream", "perturb")
"""What can be done to one Gary, the most urgent first."""
Rung = Literal["witness", "suggest", "warn", "act"]
RUNGS: tuple[Rung, ...] = ("witness", "suggest", "warn", "act")
"""The ladder: seen, told as information, told as a warning, carried out."""


def require(holds: bool, problem: str) -> None:
    """Raises ConfigError with the problem where it does not hold."""
    if not holds:
        raise ConfigError(problem)


def positive(owner: object, *names: str) -> None:
    """Each of these is finite and above 0. Raises ConfigError."""
    for name in names:
        value = getattr(owner, name)
        require(math.isfinite(value) and value > 0, f"{name} is {value}: it must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class CharlieConfig:
    """Φ-suppressed training: dormant, awakening, demonstration. Steps are of the run, which has `steps` in all.

    A guard is judged at every evaluation of held-out text (cadence.heldout_every). The dormant phase ends at the first
    one after `dormant_steps` at which its guards hold; what the phases do not use is spent after the gain has risen, so
    that the run always has `steps` steps; the last `demonstration_steps` train nothing.
    """

    suppressed: bool = True
    """False: the control alone, on the same text: g = 1 and random cross weights from birth, nothing is suppressed."""
    dormant_steps: int = 600
    """The least that the dormant phase takes."""
    awakening_steps: int = 400
    """N: g = (1 − cos πt/N)/2 at the t-th step of awakening, 1 from the N-th on."""
    settling_steps: int = 400
    """The least that is trained at g = 1 before the phase may end."""
    demonstration_steps: int = 20
    """Passages of text that the frozen kernel writes, one a step."""
    phi_max: float = 0.01
    """Dormant: phi stays below it at every evaluation, and the control's must exceed it."""
    margin_nats: float = 2.5
    """Dormant: by so much must held-out loss have fallen since the first evaluation."""
    heldout_factor: float = 1.05
    """Awakening: held-out loss stays within this times what it was before, at every evaluation."""
    branch_margin_nats: float = 0.05
    """Awakening: in the end held-out loss is above the branch's by at most this. Of three small runs it lay between
    0.04 below and 0.03 above (docs/experiments.md)."""
    alpha: float = 0.01
    """Awakening: significance at which phi is said to rise."""
    graduation_share: float = 0.8
    """Demonstration: phi is at least this share of the control's at equal steps."""

    def __post_init__(self) -> None:
        positive(self, "dormant_steps", "awakening_steps", "settling_steps", "demonstration_steps")
        positive(self, "phi_max", "graduation_share")
        for name in ("margin_nats", "branch_margin_nats"):
            value = getattr(self, name)
            require(math.isfinite(value), f"{name} is {value}: it must be finite")
        require(self.heldout_factor >= 1.0, f"heldout_factor is {self.heldout_factor}: it must be at least 1")
        require(0.0 < self.alpha <= 1.0, f"alpha is {self.alpha}: it must lie in (0, 1]")

    @property
    def least_steps(self) -> int:
        """The fewest steps in which all phases fit."""
        return self.dormant_steps + self.awakening_steps + self.settling_steps + self.demonstration_steps + 1


@dataclass(frozen=True, kw_only=True)
class OceanConfig:
    """What the frozen observer looks out for, and how far its advice may go. Counts are of its reports."""

    window: int = 30
    """W: the reports that pooled modes, rolling medians and CUSUMs look back on."""
    collapse_floor_rad: float = 0.03
    """The smallest Fisher–Rao distance of two Garys that is no collapse."""
    slack: float = 1.5
    """Of the CUSUM, in robust standard deviations: what a metric may be off without anything adding up."""
    threshold: float = 12.0
    """The sum at which it flags a change."""
    patience: int = 2
    """Further reports in a row with evidence before a recommendation climbs a rung; without, before it is dropped."""
    ladder: Rung = "warn"
    """The highest rung: up to "warn" it is told, at "act" the coordinator carries it out."""
    allow: tuple[Verb, ...] = VERBS
    """What may be carried out at all."""
    cooldown: int = 10
    """Reports after something was carried out on a Gary before anything else may be."""

    def __post_init__(self) -> None:
        positive(self, "window", "collapse_floor_rad", "slack", "threshold", "patience")
        floor = self.collapse_floor_rad
        require(floor <= math.pi, f"collapse_floor_rad is {floor}: no distance is more than π")
        require(self.window >= 8, f"window is {self.window}: it must be at least 8")
        require(self.cooldown >= 0, f"cooldown is {self.cooldown}: it must not be negative")


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    """How strong each is, and the bound beyond which it is undone. KL is a mean over the tokens of the probe."""

    sleep_pulls: int = 10
    sleep_share: float = 0.1
    """Of the distance that is left, at each pull: ten leave about 0.9¹⁰ = 35 % of it."""
    sleep_rise_nats: float = 0.05
    """So much may held-out loss rise."""
    dream_texts: int = 16
    """As long as the kernel's context, each."""
    dream_steps: int = 10
    dream_lr: float = 0.1
    dream_kl_nats: float = 0.05
    """So far may the distributions of the next token move."""
    perturb_kl_nats: float = 0.02
    """So far they are to move; twice as far they may."""
    perturb_draws: int = 16
    """Labels drawn for every token of the probe, to estimate the Fisher diagonal."""
    perturb_damping: float = 1.0
    """Times the mean of the Fisher diagonal: what no token of the probe depends on must not move without limit."""

    def __post_init__(self) -> None:
        positive(self, "sleep_pulls", "sleep_rise_nats", "dream_texts", "dream_steps", "dream_lr", "dream_kl_nats")
        positive(self, "perturb_kl_nats", "perturb_draws", "perturb_damping")
        require(0.0 < self.sleep_share <= 1.0, f"sleep_share is {self.sleep_share}: it must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class ConstellationConfig:
    """Several kernels in one run: an active Gary learns from text, an observer from the basin of the active ones.

    An observer sees no text. Its one term is the Fisher–Rao distance d from its own basin to the DETACHED target: each
    step takes it the share `vicarious_share` of d along the steepest descent, θ ← θ − η d ∇d/‖∇d‖², to first order.
    """

    garys: int = 3
    """G; their names are gary1 ... garyG, the seed of each is the run's plus its number."""
    active: int = 1
    """How many are active at a time."""
    routing: Literal["fixed", "round_robin"] = "round_robin"
    """fixed: the first ones are active for ever. round_robin: the actives move on by one Gary every `turn_steps`."""
    turn_steps: int = 50
    target: Literal["active", "mean"] = "active"
    """What observers approach: the Fréchet mean of the active basins, or of all."""
    vicarious_share: float = 0.01
    """η in [0, 1): 0 lets observers rest."""
    soft_resets: int = 2
    """How often one Gary alone may be taken back to its last known good state before its alarm stops the run."""
    ocean: OceanConfig = field(default_factory=OceanConfig)
    interventions: InterventionConfig = field(default_factory=InterventionConfig)

    def __post_init__(self) -> None:
        require(2 <= self.garys <= 64, f"garys is {self.garys}: between 2 and 64 are possible")
        require(
            1 <= self.active <= self.garys, f"active is {self.active}: at least 1, and at most the {self.garys} Garys"
        )
        positive(self, "turn_steps")
        share = self.vicarious_share
        require(0.0 <= share < 1.0, f"vicarious_share is {share}: it must lie in [0, 1)")
        require(self.soft_resets >= 0, f"soft_resets is {self.soft_resets}: it must not be negative")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"gary{i + 1}" for i in range(self.garys))

    def active_at(self, step: int) -> tuple[str, ...]:
        """The Garys that learn from the text of a step: a pure function, so a resume routes as the run did."""
        first = step // self.turn_steps if self.routing == "round_robin" else 0
        return tuple(self.names[(first + i) % self.garys] for i in range(self.active))
