"""When it is time to measure: every k steps, and never for more than a share of the time. The clock is passed in."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What measuring has cost so far, and how often it could be done."""

    every: int
    """Steps between measurements that were asked for."""
    actual_every: float | None
    """Steps between them as they were; None before the second."""
    num_measured: int
    num_skipped: int
    """Turns that were let pass for the budget's sake."""
    overhead: float | None
    """Seconds spent measuring per second of everything else since the first step; None before there are any."""
    max_overhead: float
    last_cost_s: float | None
    birth_s: float
    """What the first measurement cost where it was made before the first step; it is in the share."""

    def text(self) -> str:
        """One line for people."""
        if self.last_cost_s is None:
            return "nothing measured yet"
        took = f"of {1e3 * self.last_cost_s:.3g} ms"
        count = f"1 measurement {took}" if self.num_measured == 1 else f"{self.num_measured} measurements {took}"
        if self.overhead is None:
            return count
        often = "" if self.actual_every is None else f", every {self.actual_every:.3g} steps (asked: {self.every})"
        if self.actual_every is None and self.num_skipped:
            often = f", {self.num_skipped} turns left out"
        return f"{count}{often}: {100 * self.overhead:.2f} % of the time, limit {100 * self.max_overhead:.3g} %"


class Cadence:
    """Says at each step whether to measure.

    A turn comes every `every` steps. It is taken when, with one more measurement of the last one's cost, all of them
    together would stay within `max_overhead` of the time that was spent on everything else since the first step. The
    first turn is always taken, so that a run has its birth, and paid for before the second.
    """

    def __init__(self, every: int, max_overhead: float) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: it must be at least 1")
        if not max_overhead > 0.0:
            raise ValueError(f"max_overhead is {max_overhead}: it must be greater than 0; math.inf sets no limit")
        self._every, self._max_overhead = every, max_overhead
        self._begun: float | None = None
        self._now = 0.0
        self._cost = 0.0
        self._last_cost: float | None = None
        self._birth = 0.0
        self._steps: list[int] = []  # the first and the last that were measured
        self._measured = self._skipped = 0

    def due(self, step: int, now_s: float) -> bool:
        """Whether to measure at this step."""
        self._begun = now_s if self._begun is None else self._begun
        self._now = now_s
        if step % self._every:
            return False
        if self._last_cost is None:
            return True
        if self._cost + self._last_cost <= self._max_overhead * self._rest():
            return True
        self._skipped += 1
        return False

    def born(self, step: int, cost_s: float) -> None:
        """The first turn is that of a measurement made before the loop began."""
        self._birth = self._last_cost = self._cost = cost_s
        self._measured, self._steps = 1, [step]

    def measured(self, step: int, cost_s: float, now_s: float) -> None:
        """A measurement was made and took this long."""
        self._begun = now_s - cost_s if self._begun is None else self._begun
        self._now = now_s
        self._cost += cost_s
        self._last_cost = cost_s
        self._measured += 1
        self._steps = [*self._steps[:1], step]

    def spent(self) -> Spent:
        rest = self._rest()
        between = None
        if len(self._steps) == 2 and self._measured > 1:
            between = (self._steps[1] - self._steps[0]) / (self._measured - 1)
        return Spent(
            every=self._every,
            actual_every=between,
            num_measured=self._measured,
            num_skipped=self._skipped,
            overhead=self._cost / rest if rest > 0.0 else None,
            max_overhead=self._max_overhead,
            last_cost_s=self._last_cost,
            birth_s=self._birth,
        )

    def _rest(self) -> float:
        """Seconds since the first step that were not spent measuring."""
        return 0.0 if self._begun is None else self._now - self._begun - (self._cost - self._birth)
