"""Which checkpoints lie on the way to where a run stands now: after a run went back, others do not. Pure."""

from collections.abc import Iterable, Mapping
from math import inf

from qig_core.rundir.schema import Event


class Branches:
    """The way a run has taken, from its `checkpoint` and `restored` events in their order.

    The way up to a checkpoint is every checkpoint made before it without going back behind it.

    Args:
        published: Unix times of checkpoints, for those that have no event of their own: their trainer was killed
            between publishing and telling.
    """

    def __init__(self, events: Iterable[Event] = (), published: Mapping[str, float] | None = None) -> None:
        self._before: dict[str, str | None] = {}
        self._last: str | None = None
        self._trail: list[tuple[float, str | None]] = []
        """Since when the run went on from which checkpoint."""
        self._published = published or {}
        self.restored: set[str] = set()
        """All that the run ever went on from, or back to."""
        self.made = 0
        """How many checkpoints the run has told of."""
        self.since = -inf
        """Unix time of the last of these."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        name = event.data.get("name" if event.kind == "checkpoint" else "checkpoint")
        if event.kind == "checkpoint" and isinstance(name, str):
            self._before.setdefault(name, self._last)
            self._last = name
            self.made += 1
        elif event.kind == "restored":
            self.since = event.t
            if isinstance(name, str):
                if name not in self._before:
                    self._before[name] = self._stood_at(self._published.get(name))
                self.restored.add(name)
                self._last = name
            else:
                self._last = None
        else:
            return
        self._trail.append((event.t, self._last))

    def _stood_at(self, t: float | None) -> str | None:
        """From which checkpoint the run went on at a time; now, where it is not known."""
        if t is None:
            return self._last
        return next((name for since, name in reversed(self._trail) if since <= t), None)

    def way(self) -> set[str]:
        """The checkpoints on the way to now."""
        found: set[str] = set()
        name = self._last
        while name is not None and name not in found:
            found.add(name)
            name = self._before.get(name)
        return found

    def left(self, name: str, t: float) -> bool:
        """Whether a checkpoint that was published at `t` lies on a branch that was left."""
        return name not in self.way() if name in self._before else t < self.since
