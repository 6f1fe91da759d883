"""What the basins of a run amount to: what is kept of them, how far apart they are, where they have been. numpy only.

Every distance is Fisher–Rao's, every centre a Fréchet mean. Nothing is read here and nothing is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qig_core.errors import QigError
from qig_core.geometry.simplex import Simplex, fisher_rao_distance, log, normalise
from qig_tui.basin.trail import Trail, trail_of
from qig_tui.series import Bools, Floats, Ints
from qig_tui.text import sparkline

LEAST_AWAY = 100
"""Steps of training: a state is no past one before so many have gone by."""
LEAST_BETWEEN = 10
"""Basins: where they are recorded seldom, as many lie between a state and a past one."""
LEAST_SHARE = 0.05
"""Of the steps so far: on a long path the nearest would always be the one that came just before."""
MOST_MAPPED = 1024
"""Entries of a basin that is still mapped: the map takes memory by their square."""
SPARKS = 12
"""Basins that the line of an entry is made of."""
_MOST_SPARKS = 4096
_ROUNDING = 1e-7
"""Radians: what is recorded in four bytes an entry differs by less where it is the same."""
_NEVER = np.iinfo(np.int64).max


def shares(p: Floats, q: Floats) -> Floats:
    """What each entry contributes to the squared chord between two basins: (√p_i − √q_i)² / Σ_j (√p_j − √q_j)².

    The chord is the one of the square-root sphere, Σ (√p − √q)² = 4 sin²(d/4) for the Fisher–Rao distance d: the one
    function of d that is a sum over the entries. In [0, 1], they sum to 1; all 0 between equal basins.
    """
    parts = np.square(np.sqrt(np.maximum(p, 0.0)) - np.sqrt(np.maximum(q, 0.0)))
    total = float(parts.sum())
    found: Floats = parts / total if total > 0.0 else np.zeros_like(parts)
    return found


def movers(change: Floats, count: int, least: float) -> list[tuple[int, float]]:
    """The entries that changed most and by at least so much: index and difference, the largest first."""
    order = np.argsort(-np.abs(change), kind="stable")[:count]
    return [(int(i), float(change[i])) for i in order if abs(change[i]) >= least]


def acceleration(known: Sequence[tuple[int, Floats]]) -> float | None:
    """‖log_m(p_t) + log_m(p_{t−2})‖ at m = p_{t−1}: the covariant second difference of three successive basins.

    Args:
        known: step and basin, newest first; the third and more are not looked at.

    Returns:
        Radians per squared interval, 0 on a geodesic run through at constant speed; None where there are not three of
        one size at equal distances of steps.
    """
    if len(known) < 3:
        return None
    (newest, after), (middle, at), (oldest, before) = known[:3]
    if newest - middle != middle - oldest or not after.shape == at.shape == before.shape:
        return None
    return float(np.linalg.norm(log(np.array([at, at]), np.array([before, after])).sum(axis=0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """The basins of one telemetry file, evenly thinned, in the order of the file. Immutable."""

    step: Ints
    seq: Ints
    values: NDArray[np.float32]
    """[N, K], as recorded."""
    rewinds: tuple[Ints, Ints]
    """Seq and step of the first sample of every segment but the first."""
    every: int
    """Of so many recorded basins one is kept."""
    recorded: int
    share: float | None
    """Of the file, how much was read; None: all of it."""

    @property
    def entries(self) -> int:
        return int(self.values.shape[1])

    def points(self, which: Ints) -> Simplex:
        return normalise(self.values[which].astype(np.float64))

    def seq_at(self, step: int) -> int | None:
        """The seq of the newest basin at or before a step, on the branch that the run is on now."""
        fitting = np.flatnonzero((self.step <= step) & (self._cuts(len(self.rewinds[0])) > self.step))
        return int(self.seq[fitting[-1]]) if len(fitting) else None

    def _cuts(self, segments: int) -> Ints:
        """The step that each basin's branch was left at, by a run that had gone back so many times."""
        seqs, steps = self.rewinds[0][:segments], self.rewinds[1][:segments]
        cuts = np.full(segments + 1, _NEVER, dtype=np.int64)
        cuts[:-1] = np.minimum.accumulate(steps[::-1])[::-1]
        found: Ints = cuts[np.searchsorted(seqs, self.seq, side="right")]
        return found

    def until(self, step: int, seq: int | None) -> "Known":
        """What was known when a sample was the newest.

        Args:
            step: of the basin looked at.
            seq: of the sample; None: now.
        """
        rewound = len(self.rewinds[0])
        known: Bools = np.ones(len(self.seq), dtype=np.bool_)
        if seq is not None:
            rewound = int(np.searchsorted(self.rewinds[0], seq, side="right"))
            known = self.seq <= seq
        cuts = self._cuts(rewound)
        left = known & (self.step >= cuts)
        live = known & ~left & (self.step <= step)
        # Back to where the branches part, and up the other one.
        fork = np.where(left, np.minimum(cuts, step), self.step)
        away = (step - fork) + (self.step - fork)
        gaps = np.diff(self.step[live])
        usual = float(np.median(gaps)) / self.every if len(gaps) else 0.0
        so_far = step - int(self.step[live][0]) if live.any() else 0
        return Known(
            kept=self,
            live=np.flatnonzero(live),
            left=np.flatnonzero(left),
            away=away,
            lag=max(LEAST_AWAY, round(LEAST_BETWEEN * usual), round(LEAST_SHARE * so_far)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The past state that is nearest to a basin."""

    step: int
    distance_rad: float
    away: int
    """Steps of training between the two, along the run's own path."""
    left: bool
    """On a branch that the run had gone back from."""
    between_rad: float | None
    """How far from the basin the path was between the two, at most; None on a left branch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What was known of the basins of a run at a moment of it."""

    kept: Kept
    live: Ints
    """Which of the kept ones lie on the branch that the run was on, oldest first."""
    left: Ints
    """Which lie on a branch that it had gone back from."""
    away: Ints
    """Of every kept one, the steps of training between it and the basin looked at: back to where their branches part,
    and up the other one."""
    lag: int
    """A state is a past one from so many steps away."""

    def nearest(self, values: Floats) -> tuple[Nearest | None, Nearest | None]:
        """Of all past states the nearest to a basin, and the nearest of those on its own branch."""
        own = self._nearest(self.live, values, left=False)
        other = self._nearest(self.left, values, left=True)
        return min((one for one in (own, other) if one is not None), key=lambda n: n.distance_rad, default=None), own

    def _nearest(self, which: Ints, values: Floats, *, left: bool) -> Nearest | None:
        if not (self.away[which] >= self.lag).any() or len(values) != self.kept.entries:
            return None
        distance = np.asarray(fisher_rao_distance(self.kept.points(which), values))
        best = int(np.argmin(np.where(self.away[which] >= self.lag, distance, np.inf)))
        place = int(which[best])
        return Nearest(
            step=int(self.kept.step[place]),
            distance_rad=float(distance[best]),
            away=int(self.away[place]),
            left=left,
            between_rad=None if left else float(distance[best:].max()),
        )

    def trail(self, step: int, values: Floats) -> "Trail | str":
        """The map of the path up to a basin; a sentence where there is none."""
        if len(values) > MOST_MAPPED:
            return f"a basin of more than {MOST_MAPPED} entries is not mapped"
        if len(values) != self.kept.entries:
            return "this basin has other entries than those before it"
        steps, points = self.kept.step[self.live], np.asarray(self.kept.points(self.live))
        if not len(steps) or steps[-1] != step:
            steps, points = np.append(steps, step), np.concatenate((points, values[None]))
        if len(steps) < 3 or len(values) < 2:
            return "a path begins with three basins"
        try:
            found = trail_of(steps, points)
        except QigError as error:
            return str(error)
        return found if found.spread_rad > _ROUNDING else "the basins of this path are all the same"

    def some(self, most: int) -> Floats:
        """[n ≤ most, K]: basins of the path, evenly spaced and the newest always among them.

        The spacing is a power of two, so that a path that grows does not move what is shown of its past.
        """
        stride = 1
        while len(self.live) > stride * (most - 1):
            stride *= 2
        chosen = self.live[::stride]
        if len(self.live) and chosen[-1] != self.live[-1]:
            chosen = np.append(chosen, self.live[-1])
        return np.asarray(self.kept.points(chosen))


@dataclass(frozen=True, kw_only=True, eq=False)
class Derived:
    """What takes longer to find out about a basin and its past than a picture may take."""

    step: int
    trail: Trail | str
    """A sentence where there is none."""
    nearest: Nearest | None
    own: Nearest | None
    """The nearest on the branch of the basin itself."""
    lag: int
    live: int
    """How many basins the path is made of."""
    left: int
    """How many lie on branches that the run had gone back from: they are no part of the path."""
    every: int
    share: float | None
    sparks: Sequence[str]
    """Of each entry, its line over the path."""
    before: tuple[int, Floats] | None
    """The last basin but two, where it had to be read again."""


def derive(
    kept: Kept, step: int, seq: int | None, values: Floats, *, before: tuple[int, Floats] | None = None
) -> Derived:
    """Args: step, values: of the basin looked at; seq: of the sample that was the newest then, None: now."""
    known = kept.until(step, seq)
    nearest, own = known.nearest(values)
    sparks: list[str] = []
    if len(known.live) and len(values) == kept.entries:
        some = known.some(SPARKS)[:, :_MOST_SPARKS]
        sparks = [sparkline(some[:, i].tolist(), len(some)) for i in range(some.shape[1])]
    return Derived(
        step=step,
        trail=known.trail(step, values),
        nearest=nearest,
        own=own,
        lag=known.lag,
        live=len(known.live),
        left=len(known.left),
        every=kept.every,
        share=kept.share,
        sparks=sparks,
        before=before,
    )
