"""What the Ocean of a constellation said: its Garys, how far apart they are, what it recommends. No Textual, no disk.

Nothing is judged here: roles, flags, rungs and the floor are those that the events tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from qig_core.rundir.schema import Event
from qig_tui.programs.fields import Data, Numbers, rows, step, table, text
from qig_tui.text import ABSENT, compact, grouped, number, percent, quantity, safe, unit_text

RUNGS = ("witness", "suggest", "warn", "act")
"""By rising urgency."""
RUNG_GLYPHS = {"witness": "·", "suggest": "○", "warn": "▲", "act": "◆"}
ROLE_GLYPHS = {"active": "▶", "observer": "○"}
NUMBERS = ("phi", "kappa", "loss", "loss_heldout", "velocity", "drift", "from_mean", "from_ocean")
_MOST_GARYS = 64
_MOST_ADVICE = 256
_MOST_FLAGS = 8
_MOST_REASONS = 512


@dataclass(frozen=True, kw_only=True)
class Gary:
    """One kernel as the Ocean saw it."""

    name: str
    role: str
    numbers: Mapping[str, float | None]
    """Those of `NUMBERS`; rad for velocity, drift and what is from something."""
    flags: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]
    """Of what was not measured: what, and why."""
    cooldown: int | None
    """Reports in which nothing may be done to it yet."""

    @property
    def role_text(self) -> str:
        return f"{ROLE_GLYPHS.get(self.role, '?')} {self.role or 'no role'}"

    @property
    def remarks(self) -> str:
        """What is off, what is missing and why, and whether it is left alone."""
        parts = [*self.flags, *(f"{what}: {why}" for what, why in self.reasons)]
        if self.cooldown:
            parts.append(f"left alone for {grouped(self.cooldown)} more reports")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One recommendation."""

    verb: str
    gary: str
    rung: str
    since_step: int | None
    evidence: tuple[str, ...]
    text: str

    @property
    def rung_text(self) -> str:
        return f"{RUNG_GLYPHS.get(self.rung, '?')} {self.rung or 'no rung'}"

    @property
    def said(self) -> str:
        """Its evidence in words."""
        return "; ".join(self.evidence) or self.text


@dataclass(frozen=True)
class Pair:
    """Two Garys by their places, and how far apart they are."""

    first: int
    second: int
    rad: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one `ocean` event says."""

    event: Event
    garys: tuple[Gary, ...]
    more_garys: int
    """Beyond those that are kept."""
    min_rad: float | None
    max_rad: float | None
    floor_rad: float | None
    variance: float | None
    """rad²."""
    coherence: float | None
    modes: tuple[float, ...]
    """Shares of the variance along principal geodesics."""
    pooled: Mapping[str, float | None]
    """samples, and within and between in rad², over the last reports."""
    advice: tuple[Advice, ...]
    digest: str
    sound: bool | None
    """Whether the Ocean is as it was born; None: it does not say."""
    reasons: Mapping[str, str]

    @property
    def step(self) -> int | None:
        return self.event.step

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(gary.name for gary in self.garys)

    @cached_property
    def distances(self) -> tuple[tuple[float | None, ...], ...]:
        """As many rows and columns as there are Garys, rad; empty where there are none. Worked out when looked at."""
        return _distances(self.event.data.get("distances"), len(self.garys), Numbers(self.event.data))

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """Every two of which the distance is known, the nearest first."""
        found = []
        for i, j in combinations(range(len(self.distances)), 2):
            rad = self.distances[i][j]
            if rad is not None and math.isfinite(rad):
                found.append(Pair(i, j, rad))
        return sorted(found, key=lambda pair: (pair.rad, pair.first, pair.second))

    def is_under_floor(self, rad: float | None) -> bool:
        """Whether two Garys so far apart are too near to each other, by the floor that the report tells."""
        return rad is not None and self.floor_rad is not None and rad < self.floor_rad

    @property
    def too_near(self) -> Sequence[Pair]:
        """The pairs under the floor."""
        return [pair for pair in self.pairs if self.is_under_floor(pair.rad)]

    def why(self, what: str) -> str:
        """Why there is no such thing."""
        return self.reasons.get(what, "")

    @property
    def soundness(self) -> str:
        """Whether the Ocean is what it was at birth, in words with a glyph."""
        digest = f", digest {self.digest[:12]}" if self.digest else ""
        if self.sound is None:
            return f"○ the Ocean does not say whether it is as it was born{digest}"
        return f"● the Ocean is as it was born{digest}" if self.sound else f"✖ the Ocean is NOT as it was born{digest}"

    @property
    def shares(self) -> str:
        """The modes in words, or why there are none."""
        return "  ".join(percent(share) for share in self.modes) or f"{ABSENT} {self.why('modes')}".rstrip()


def report_of(event: Event) -> Report | None:
    """What an `ocean` event says, whatever anybody put there; None where there are no Garys in it."""
    data = event.data
    found = data.get("garys")
    if not isinstance(found, list):
        return None
    numbers, reasons = Numbers(data), _reasons(data)
    cooldowns = table(data.get("cooldowns"))
    by_gary: dict[str, list[tuple[str, str]]] = {}
    for what, why in reasons.items():
        name, dot, metric = what.rpartition(".")
        if dot:
            by_gary.setdefault(name, []).append((metric, why))
    garys = tuple(_gary(table(each), numbers, i, by_gary, cooldowns) for i, each in enumerate(found[:_MOST_GARYS]))
    pooled = table(data.get("pooled"))
    sound = data.get("sound")
    return Report(
        event=event,
        garys=garys,
        more_garys=max(len(found) - _MOST_GARYS, 0),
        min_rad=numbers.at(data.get("min_rad"), "min_rad"),
        max_rad=numbers.at(data.get("max_rad"), "max_rad"),
        floor_rad=numbers.at(data.get("floor_rad"), "floor_rad"),
        variance=numbers.at(data.get("variance"), "variance"),
        coherence=numbers.at(data.get("coherence"), "coherence"),
        modes=_shares(data.get("modes"), numbers),
        pooled={key: numbers.at(pooled.get(key), "pooled", key) for key in ("samples", "within", "between")},
        advice=tuple(
            _advice(table(each), numbers, i) for i, each in enumerate(rows(data.get("recommendations"), _MOST_ADVICE))
        ),
        digest=text(data, "digest", 64),
        sound=sound if isinstance(sound, bool) else None,
        reasons=reasons,
    )


def _reasons(data: Data) -> dict[str, str]:
    found = list(table(data.get("reasons")).items())[:_MOST_REASONS]
    return {safe(what, 60): safe(why, 120) for what, why in found}


def _gary(
    data: Data,
    numbers: Numbers,
    place: int,
    reasons: Mapping[str, Sequence[tuple[str, str]]],
    cooldowns: Data,
) -> Gary:
    name = text(data, "name", 40) or f"no name {place + 1}"
    return Gary(
        name=name,
        role=text(data, "role", 12),
        numbers={key: numbers.at(data.get(key), "garys", place, key) for key in NUMBERS},
        flags=tuple(safe(flag, 80) for flag in rows(data.get("flags"), _MOST_FLAGS) if isinstance(flag, str)),
        reasons=tuple(reasons.get(name, ())[:_MOST_FLAGS]),
        cooldown=step(cooldowns.get(name)),
    )


def _distances(found: object, count: int, numbers: Numbers) -> tuple[tuple[float | None, ...], ...]:
    """A square table, whatever was recorded: what is missing of it is None."""
    if not isinstance(found, list) or not found:
        return ()
    made = []
    for i in range(count):
        row = rows(found[i], count) if i < len(found) else []
        made.append(tuple(numbers.at(row[j], "distances", i, j) if j < len(row) else None for j in range(count)))
    return tuple(made)


def _shares(found: object, numbers: Numbers) -> tuple[float, ...]:
    shares = (
        numbers.at(table(each).get("share"), "modes", i, "share") for i, each in enumerate(rows(found, _MOST_GARYS))
    )
    return tuple(share for share in shares if share is not None and math.isfinite(share))


def _advice(data: Data, numbers: Numbers, place: int) -> Advice:
    evidence = []
    for i, each in enumerate(rows(data.get("evidence"), 8)):
        one = table(each)
        path = ("recommendations", place, "evidence", i)
        unit = unit_text(text(one, "unit", 16))
        value, limit = (numbers.at(one.get(key), *path, key) for key in ("value", "limit"))
        comparison = text(one, "comparison", 4).replace(">=", "≥").replace("<=", "≤")
        bound = ABSENT if limit is None else compact(limit)
        evidence.append(f"{text(one, 'metric', 60) or '?'} {number(value)} {comparison} {bound} {unit}".rstrip())
    return Advice(
        verb=text(data, "verb", 16) or "?",
        gary=text(data, "gary", 40) or "?",
        rung=text(data, "rung", 12),
        since_step=step(data.get("since_step")),
        evidence=tuple(evidence),
        text=text(data, "text", 200),
    )


def in_line(report: Report) -> str:
    """A report in one line of plain text."""
    count = len(report.garys) + report.more_garys
    active = [gary.name for gary in report.garys if gary.role == "active"]
    who = f"{grouped(count)} Garys" + (
        f", active {', '.join(active[:4])}{' …' if len(active) > 4 else ''}" if active else ""
    )
    near = f"nearest two {number(report.min_rad)}, farthest {number(report.max_rad)} rad"
    low = (
        f" ▼ {grouped(len(report.too_near))} under the floor of {compact(report.floor_rad)} rad"
        if report.too_near and report.floor_rad is not None
        else ""
    )
    return f"{who}; {near}{low}; variance {quantity(report.variance, 'rad²')}, coherence {number(report.coherence)}"


def advice_in_line(advice: Advice) -> str:
    """A recommendation in one line of plain text."""
    since = "" if advice.since_step is None else f", since {grouped(advice.since_step)}"
    return f"{advice.rung_text}: {advice.verb} {advice.gary}: {advice.said}{since}"
