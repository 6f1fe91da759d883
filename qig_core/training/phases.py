"""The three phases of Φ-suppressed training: which one a step lies in, what its guards say. Pure: no model, no disk.

    dormant        g = 0          ends when its guards hold, from its least length on
    awakening      g rises to 1   ends when the rest of the run is the demonstration's
    demonstration  g = 1, frozen  ends with the run

No phase can be skipped: `Phases.enter` takes the next one only, and only where every guard of the last one holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from qig_core.measures.trend import rising
from qig_core.training.program_config import CharlieConfig

PhaseName = Literal["dormant", "awakening", "demonstration"]
PHASES: tuple[PhaseName, ...] = ("dormant", "awakening", "demonstration")
GuardState = Literal["ok", "open", "failed", "unknown"]
_MOST_PHIS = 200


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One thing that must hold before a phase may end."""

    id: str
    label: str
    comparison: Literal["<", "<=", ">", ">="]
    limit: float
    unit: str = ""
    value: float | None = None
    final: bool = False
    """Whether a value on the wrong side is the end: it never can hold any more."""
    reason: str = ""
    """Why there is no value."""

    @property
    def state(self) -> GuardState:
        """ok: it holds. open: not yet. failed: it never can any more. unknown: there is no value."""
        value, limit = self.value, self.limit
        if value is None:
            return "unknown"
        holds = {"<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit}[self.comparison]
        return "ok" if holds else "failed" if self.final else "open"

    def text(self) -> str:
        """For people: "held-out loss fell by 0.31 nats, must be >= 0.5"."""
        unit = f" {self.unit}" if self.unit else ""
        said = f"{self.value:.4g}{unit}" if self.value is not None else f"not known ({self.reason})"
        return f"{self.label} {said}, must be {self.comparison} {self.limit:g}{unit}"

    def data(self) -> dict[str, Any]:
        """As the event of a phase has it."""
        kept = {name: getattr(self, name) for name in ("id", "label", "comparison", "limit", "unit", "value", "reason")}
        return kept | {"state": self.state, "reason": self.reason if self.value is None else ""}


@dataclass(kw_only=True)
class Phases:
    """Where a run stands in its phases, and what its guards need to remember. Plain data both ways."""

    settings: CharlieConfig
    steps: int
    """Of the run."""
    name: PhaseName = "dormant"
    since: int = 0
    first_heldout: float | None = None
    """At the first evaluation of the run."""
    before: float | None = None
    """Held-out loss when awakening began."""
    phi_max: float = 0.0
    """The largest in this phase."""
    phi: float | None = None
    """At the last evaluation of this phase."""
    phis: list[float] = field(default_factory=list)
    """Of every `thinning`-th evaluation of this phase: of a long one a hundred or two, which is enough for a trend."""
    thinning: int = 1
    looks: int = 0
    """Evaluations of phi in this phase."""
    ratio_max: float = 0.0
    """The largest held-out loss over `before` in this phase."""
    awoken: int | None = None
    """The first step of awakening."""
    digest: str = ""
    """Of the parameters, once they are frozen."""

    def gain(self, step: int) -> float:
        """g of a step: 0 dormant; (1 − cos πt/N)/2 at the t-th step of awakening, t = 1 .. N; 1 from there on."""
        if not self.settings.suppressed:
            return 1.0
        if self.awoken is None:
            return 0.0
        t = min(step - self.awoken + 1, self.settings.awakening_steps)
        return 0.5 * (1.0 - math.cos(math.pi * t / self.settings.awakening_steps))

    @property
    def earliest(self) -> int:
        """The first step at which this phase may end."""
        settings = self.settings
        if not settings.suppressed:
            return self.steps
        if self.name == "dormant":
            return settings.dormant_steps
        # The last step of a run is a last look alone: the passages are written at the steps between this and that.
        end = self.steps - settings.demonstration_steps - 1
        return end if self.name == "awakening" else self.steps

    @property
    def latest(self) -> int:
        """The step by which it must have ended, or the run stops."""
        if self.settings.suppressed and self.name == "dormant":
            settings = self.settings
            after = settings.awakening_steps + settings.settling_steps + settings.demonstration_steps
            return self.steps - after - 1
        return self.earliest

    def saw(self, *, phi: float | None = None, heldout: float | None = None) -> None:
        """Remember what an evaluation found; None and what is not finite are not remembered."""
        if phi is not None and math.isfinite(phi):
            self.phi, self.phi_max = phi, max(self.phi_max, phi)
            if self.looks % self.thinning == 0:
                self.phis.append(phi)
            self.looks += 1
            if len(self.phis) > _MOST_PHIS:
                self.phis, self.thinning = self.phis[::2], 2 * self.thinning
        if heldout is not None and math.isfinite(heldout):
            self.first_heldout = heldout if self.first_heldout is None else self.first_heldout
            if self.before is not None:
                self.ratio_max = max(self.ratio_max, heldout / self.before)

    def dormant_guards(self, *, heldout: float | None, control_phi: float | None) -> list[Guard]:
        """phi is nothing though the control's is something, and the corpus is learnt."""
        settings = self.settings
        fell = None if heldout is None or self.first_heldout is None else self.first_heldout - heldout
        return [
            Guard(
                id="phi_zero",
                label="Φ at every evaluation",
                comparison="<",
                limit=settings.phi_max,
                value=self.phi_max if self.looks else None,
                final=True,
                reason="not measured yet",
            ),
            Guard(
                id="heldout_fell",
                label="held-out loss fell by",
                comparison=">=",
                limit=settings.margin_nats,
                unit="nats",
                value=fell,
                reason="not evaluated yet",
            ),
            _exceeds(settings.phi_max, control_phi),
        ]

    def awakening_guards(
        self, *, heldout: float | None, branch_heldout: float | None, phi_without_cross: float | None
    ) -> list[Guard]:
        """phi rises, by the cross weights alone, and nothing is lost for it."""
        settings = self.settings
        trend = rising(self.phis)
        behind = None if heldout is None or branch_heldout is None else heldout - branch_heldout
        return [
            Guard(
                id="phi_rises",
                label="Φ rises: p of the trend",
                comparison="<",
                limit=settings.alpha,
                value=trend.p,
                reason=trend.reason,
            ),
            Guard(
                id="heldout_kept",
                label="held-out loss over before, at most",
                comparison="<=",
                limit=settings.heldout_factor,
                value=self.ratio_max or None,
                final=True,
                reason="not evaluated yet",
            ),
            Guard(
                id="heldout_branch",
                label="held-out loss over the branch at g = 0",
                comparison="<=",
                limit=settings.branch_margin_nats,
                unit="nats",
                value=behind,
                reason="not evaluated yet",
            ),
            Guard(
                id="cross_carries",
                label="Φ of a copy without cross weights",
                comparison="<=",
                limit=0.0,
                value=phi_without_cross,
                final=True,
                reason="measured when the phase may end",
            ),
        ]

    def control_guards(self) -> list[Guard]:
        """Where nothing is suppressed there must be something to suppress."""
        return [_exceeds(self.settings.phi_max, self.phi)]

    def demonstration_guards(self, *, changed: bool, phi: float | None, control_phi: float | None) -> list[Guard]:
        """Nothing is learnt any more, and phi came close to what it is where nothing was ever suppressed."""
        share = None if phi is None or not control_phi else phi / control_phi
        return [
            Guard(
                id="frozen",
                label="parameters that changed",
                comparison="<=",
                limit=0.0,
                value=float(changed),
                final=True,
            ),
            Guard(
                id="graduation",
                label="Φ as a share of the control's",
                comparison=">=",
                limit=self.settings.graduation_share,
                value=share,
                reason="not measured yet",
            ),
        ]

    def enter(self, name: PhaseName, step: int, guards: Sequence[Guard], *, heldout: float | None = None) -> None:
        """Begin the next phase with `step`.

        Raises:
            AssertionError: it is not the next one, it is too early, or a guard of the last one does not hold.
        """
        assert PHASES.index(name) == PHASES.index(self.name) + 1, f"{name} does not follow {self.name}"
        assert step > self.earliest, "a phase has a least length"
        assert guards, "a phase has guards"
        assert all(guard.state == "ok" for guard in guards), "every guard must hold"
        self.name, self.since = name, step
        self.phi, self.phi_max, self.phis, self.thinning, self.looks = None, 0.0, [], 1, 0
        if name == "awakening":
            assert heldout is not None
            self.awoken, self.before, self.ratio_max = step, heldout, 0.0

    def data(self, state: str, guards: Sequence[Guard], reason: str = "") -> dict[str, Any]:
        """The data of a `phase` event."""
        suppressed = self.settings.suppressed
        return {
            "name": self.name if suppressed else "control",
            "index": PHASES.index(self.name) + 1 if suppressed else 1,
            "of": len(PHASES) if suppressed else 1,
            "state": state,
            "since_step": self.since,
            "earliest_step": self.earliest,
            "latest_step": self.latest,
            "guards": [guard.data() for guard in guards],
            "reason": reason,
        }

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""
        kept = [each.name for each in fields(self) if each.name not in ("settings", "steps")]
        return {name: getattr(self, name) for name in kept} | {"phis": list(self.phis)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for name, value in state.items():
            setattr(self, name, list(value) if name == "phis" else value)


def _exceeds(phi_max: float, control_phi: float | None) -> Guard:
    return Guard(
        id="control_integrates",
        label="Φ of the control",
        comparison=">",
        limit=phi_max,
        value=control_phi,
        reason="not measured yet",
    )
