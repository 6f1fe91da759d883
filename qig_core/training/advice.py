"""What the Ocean recommends to do with a Gary: from which evidence, how urgently, for how long. Pure; it does nothing.

    verb     evidence, any of                                  it holds on until
    escape   loss CUSUM >= threshold                           <= a quarter of it
             a loss that is not finite                         finite
    sleep    rolling drift >= 0.48 rad (80 % of 0.60)          < 0.45 rad (75 %)
             velocity CUSUM >= threshold                       <= a quarter of it
    dream    phi CUSUM (down) >= threshold, loss unflagged     <= a quarter of it, or loss flagged
    perturb  distance to another Gary < collapse floor         >= 1.25 x the floor

Ladder witness -> suggest -> warn -> act: a recommendation is born as a witness and climbs a rung after each `patience`
further reports with evidence in a row. Between the two limits it stays where it is. It is dropped after `patience`
reports in a row without evidence; what was not measured is none. No rung is above the ladder's, and "act" is only for a
verb that is allowed, in a report that has evidence itself, outside the cooldown of the Gary.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qig_core.training.changes import Flag
from qig_core.training.program_config import RUNGS, VERBS, OceanConfig, Rung, Verb

SLEEP_RAD, AWAKE_RAD = 0.48, 0.45
"""80 % and 75 % of the rolling drift that the default safety profile warns of: from where sleep is advised, and down to
where it stays so."""
PARTED = 1.25
"""Collapse floors that two Garys must be apart before they count as parted again."""
_WARN = RUNGS.index("warn")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One number on the wrong side of its limit."""

    metric: str
    value: float
    comparison: str
    limit: float
    unit: str = ""

    def text(self) -> str:
        """For people: "drift 0.51 >= 0.48 rad"."""
        return f"{self.metric} {self.value:.3g} {self.comparison} {self.limit:.3g} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What there is for one verb on one Gary."""

    evidence: tuple[Evidence, ...] = ()
    near: bool = False
    """A number is not beyond its limit, but not back by the margin either."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    verb: Verb
    gary: str
    rung: Rung
    since_step: int
    """Of the first evidence."""
    evidence: tuple[Evidence, ...]
    """The newest there was."""
    text: str

    def to_dict(self, rank: int) -> dict[str, Any]:
        """As the report has it."""
        data = dataclasses.asdict(self)
        return {"rank": rank} | data | {"evidence": list(data["evidence"])}


def findings(
    *,
    flags: Mapping[str, Flag],
    broken: Sequence[str],
    drift: float | None,
    nearest: tuple[str, float] | None,
    floor_rad: float,
) -> dict[Verb, Finding]:
    """The evidence on one Gary, by verb; see the module's table.

    Args:
        flags: changes that are not over, by metric.
        broken: the losses that are not finite.
        drift: rolling, rad.
        nearest: of the Garys that this one should be apart from, the nearest and its distance, rad.
    """
    found: dict[Verb, Finding] = {"escape": _changed("loss", flags)}
    if broken:
        evidence = tuple(Evidence(metric=f"{name}_nonfinite", value=1.0, comparison=">=", limit=1.0) for name in broken)
        found["escape"] = Finding(evidence=evidence + found["escape"].evidence)
    sleep = _changed("velocity", flags)
    if drift is not None and drift >= AWAKE_RAD:
        evidence = (Evidence(metric="drift", value=drift, comparison=">=", limit=SLEEP_RAD, unit="rad"),)
        sleep = Finding(evidence=(evidence if drift >= SLEEP_RAD else ()) + sleep.evidence, near=True)
    found["sleep"] = sleep
    if "loss" not in flags and not broken:
        found["dream"] = _changed("phi", flags)
    if nearest is not None and nearest[1] < PARTED * floor_rad:
        other, distance = nearest
        evidence = (
            Evidence(metric=f"distance to {other}", value=distance, comparison="<", limit=floor_rad, unit="rad"),
        )
        found["perturb"] = Finding(evidence=evidence if distance < floor_rad else (), near=True)
    return found


def _changed(metric: str, flags: Mapping[str, Flag]) -> Finding:
    flag = flags.get(metric)
    if flag is None:
        return Finding()
    evidence = (Evidence(metric=f"{metric} CUSUM", value=flag.sum, comparison=">=", limit=flag.limit, unit="σ"),)
    return Finding(evidence=evidence if flag.holds else (), near=True)


@dataclass(kw_only=True)
class _Standing:
    """A recommendation that has been made."""

    since: int
    evidence: tuple[Evidence, ...]
    rung: int = 0
    climbing: int = 0
    """Reports in a row with evidence since it was born or climbed."""
    leaving: int = 0
    """Reports in a row without."""


class Advice:
    """The recommendations that stand, and the Garys that are left alone for a while."""

    def __init__(self, settings: OceanConfig) -> None:
        self._settings = settings
        self._standing: dict[tuple[str, Verb], _Standing] = {}
        self._cooldowns: dict[str, int] = {}

    @property
    def cooldowns(self) -> dict[str, int]:
        """Reports still to come in which nothing may be carried out on a Gary."""
        return dict(self._cooldowns)

    def weigh(self, step: int, found: Mapping[str, Mapping[Verb, Finding]]) -> tuple[Recommendation, ...]:
        """Take in the findings of one report, by Gary; what stands now, by rung, urgency and the order of the Garys."""
        for gary, by_verb in found.items():
            for verb, finding in by_verb.items():
                if finding.evidence and (gary, verb) not in self._standing:
                    self._standing[gary, verb] = _Standing(since=step, evidence=finding.evidence)
                elif (gary, verb) in self._standing:
                    self._go_on(gary, verb, finding)
        for gary, verb in [key for key in self._standing if key[1] not in found.get(key[0], {})]:
            self._go_on(gary, verb, Finding())
        told = [
            self._told(gary, verb, standing, found.get(gary, {}).get(verb, Finding()))
            for (gary, verb), standing in self._standing.items()
        ]
        place = {gary: number for number, gary in enumerate(found)}
        told.sort(
            key=lambda one: (
                -RUNGS.index(one.rung),
                VERBS.index(one.verb),
                place.get(one.gary, len(place)),
                one.gary,
            )
        )
        self._cooldowns = {gary: left - 1 for gary, left in self._cooldowns.items() if left > 1}
        return tuple(told)

    def carried_out(self, gary: str) -> None:
        """Something was done to this Gary: what was recommended for it is past, and its cooldown begins."""
        self._standing = {key: standing for key, standing in self._standing.items() if key[0] != gary}
        self._cooldowns.pop(gary, None)
        if self._settings.cooldown:
            self._cooldowns[gary] = self._settings.cooldown

    def _go_on(self, gary: str, verb: Verb, finding: Finding) -> None:
        standing = self._standing[gary, verb]
        if finding.evidence:
            standing.evidence = finding.evidence
            standing.climbing, standing.leaving = standing.climbing + 1, 0
            if standing.climbing >= self._settings.patience and standing.rung < self._highest(gary, verb):
                standing.rung, standing.climbing = standing.rung + 1, 0
            return
        standing.climbing = 0
        standing.leaving = 0 if finding.near else standing.leaving + 1
        if standing.leaving >= self._settings.patience:
            del self._standing[gary, verb]

    def _highest(self, gary: str, verb: Verb) -> int:
        highest = RUNGS.index(self._settings.ladder)
        free = verb in self._settings.allow and gary not in self._cooldowns
        return highest if free else min(highest, _WARN)

    def _told(self, gary: str, verb: Verb, standing: _Standing, finding: Finding) -> Recommendation:
        highest = self._highest(gary, verb)
        said = "; ".join(each.text() for each in standing.evidence)
        if not finding.evidence:
            # Nothing is carried out on what is past.
            highest, said = min(highest, _WARN), f"{said} (no longer)"
        return Recommendation(
            verb=verb,
            gary=gary,
            rung=RUNGS[min(standing.rung, highest)],
            since_step=standing.since,
            evidence=standing.evidence,
            text=f"{verb} {gary}: {said}",
        )

    def state(self) -> dict[str, Any]:
        """All of it, as plain data."""
        standing = [
            {"gary": gary, "verb": verb} | dataclasses.asdict(each) for (gary, verb), each in self._standing.items()
        ]
        for each in standing:
            each["evidence"] = list(each["evidence"])
        return {"standing": standing, "cooldowns": dict(self._cooldowns)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, and from nothing else."""
        self._standing = {}
        for each in state["standing"]:
            kept = {name: each[name] for name in ("since", "rung", "climbing", "leaving")}
            evidence = tuple(Evidence(**one) for one in each["evidence"])
            self._standing[each["gary"], each["verb"]] = _Standing(evidence=evidence, **kept)
        self._cooldowns = dict(state["cooldowns"])
