"""Which colour and letter each run has, for as long as a dashboard is open. Pure."""

from collections.abc import Sequence

MOST_RUNS = 8
"""As many are drawn over one another: nobody keeps more colours apart."""
LETTERS = "ABCDEFGH"
assert len(LETTERS) == MOST_RUNS


class Places:
    """A run keeps the place that it was given first, whatever is filtered, hidden, added or sorted afterwards.

    Only where more than eight runs have been compared can one have to give its place away: to a run that had it before,
    or to one for which no other is left.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        """By id, the one that was compared longest ago first."""

    def of(self, ids: Sequence[str]) -> list[int]:
        """A place for each of at most eight ids, no two alike."""
        assert len(ids) <= MOST_RUNS
        found: list[int | None] = []
        for run_id in ids:
            place = self._known.get(run_id)
            found.append(None if place in found else place)
        unused = [place for place in range(MOST_RUNS) if place not in self._known.values()]
        # After those that nobody has, those that were needed longest ago.
        spare = [*unused, *self._known.values(), *range(MOST_RUNS)]
        places: list[int] = []
        for run_id, place in zip(ids, found, strict=True):
            if place is None:
                place = next(p for p in spare if p not in found and p not in places)
            places.append(place)
            self._known.pop(run_id, None)
            self._known[run_id] = place
        return places
