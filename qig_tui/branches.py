"""Which branch of a run a sample lies on, told record by record in the order of the file. Pure."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from qig_core.rundir.schema import Sample, Scalars
from qig_tui.series import BEYOND

Branch = Literal["live", "abandoned", "late"]
"""abandoned: the run went back behind it later. late: its seq is not above the one before, so that it has no place."""


class Walk:
    """Walked twice: the first time to learn where the run went back, the second time to say of each sample its branch.

    A step that is not above the one before it begins a new segment; what earlier segments hold at or after that step is
    abandoned. The same rule as a History's.
    """

    def __init__(self, went_back_to: Sequence[int] = ()) -> None:
        """Args: went_back_to: of the first walk; empty for the first one, for which no sample is abandoned."""
        self._cuts = [*reversed(list(accumulate(reversed(went_back_to), min))), None]
        self._known = bool(went_back_to)
        self._seq: int | None = None
        self.step: int | None = None
        """Of the newest sample that has its place."""
        self.went_back_to: list[int] = []
        """First step of every segment but the first."""

    def place(self, record: Sample | Scalars) -> Branch | None:
        """The branch of the next sample; None where its step or seq is no count."""
        seq, step = record.seq, record.step
        if not (-BEYOND < step < BEYOND and -BEYOND < seq < BEYOND):
            return None
        if self._seq is not None and seq <= self._seq:
            return "late"
        if self.step is not None and step <= self.step:
            self.went_back_to.append(step)
        self._seq, self.step = seq, step
        if not self._known:
            return "live"
        cut = self._cuts[min(len(self.went_back_to), len(self._cuts) - 1)]
        return "live" if cut is None or step < cut else "abandoned"
