"""What the charts of a run draw: which metrics, and of each its points, lines and bounds. No Textual, no clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qig_core.rundir.schema import MetricSpec, ReferenceLine
from qig_tui.journal import ALARMS
from qig_tui.picture import RunPicture
from qig_tui.series import Bools, Floats, Series
from qig_tui.text import compact
from qig_tui.view import View

PREFERRED = ("phi", "kappa", "loss", "drift_rolling")
"""What the run screen draws where the run measures it; any other metric fills the gaps."""
_RECENT = 2000


@dataclass(frozen=True, kw_only=True)
class ChartData:
    """One metric as it is drawn."""

    metric: str
    label: str
    title: str
    unit: str
    series: Series
    """Held still: samples that come later are not in it, so that it stays as long as `abandoned`."""
    abandoned: Bools | None
    """Which points lie on a branch that the run went back from."""
    newest: tuple[int, float] | None
    """Step and value, wherever the series ends."""
    seen: int
    """Points that were measured of it in all."""
    recent: Floats
    """The newest finite values of the branch that the run is on, wherever the series ends."""
    is_detail: bool = False
    """Whether the series holds every point of the steps that were asked for, and no others."""
    references: tuple[ReferenceLine, ...] = ()
    """As declared, and the limits of the conditions on it."""
    bounds: tuple[float | None, float | None] | None = None
    """The values that are possible."""
    regimes: tuple[Sequence[int], Sequence[str]] | None = None
    """Where the regime became another one, and what it then was; None where it is not to be drawn."""


def chart_metrics(picture: RunPicture, at_least: int = 0) -> list[str]:
    """Every metric that was measured: the preferred first, then in the order of the manifest and of appearance.

    Where they are fewer than `at_least`, those that were declared only come after them.
    """
    known = set(picture.history.metrics)
    names = [m for m in PREFERRED if m in known]
    for name in [*(s.name for s in picture.manifest.metrics), *picture.history.metrics]:
        if name not in names and name in known:
            names.append(name)
    declared = [s.name for s in picture.manifest.metrics if s.name not in names]
    return names + declared[: max(at_least - len(names), 0)]


def chart_of(picture: RunPicture, metric: str, view: View | None = None, *, with_regimes: bool = False) -> ChartData:
    """What a chart of a metric draws, as it is now: it may be drawn again after more has come.

    Args:
        view: which steps; None: all.
    """
    spec, whole = picture.spec(metric), picture.history.series(metric)
    series = whole
    if view is not None and view.first is not None:
        series = picture.history.series_within(metric, view.first, view.last)
    still = series.still()
    regimes = None
    if with_regimes and picture.history.regime is not None:
        steps, names = picture.history.regimes()
        regimes = steps.tolist(), names
    return ChartData(
        metric=metric,
        label=picture.label(metric),
        title=picture.title(metric),
        unit=spec.unit,
        series=still,
        abandoned=picture.history.abandoned(still),
        newest=whole.last,
        seen=whole.seen,
        recent=picture.history.recent(metric, _RECENT),
        is_detail=series is not whole,
        references=_references(picture, spec),
        bounds=spec.range,
        regimes=regimes,
    )


def _references(picture: RunPicture, spec: MetricSpec) -> tuple[ReferenceLine, ...]:
    """What is declared of a metric's values, and the limits that are in force, which say the same more truly."""
    limits = []
    for condition in picture.journal.conditions.values():
        limit = condition.limit
        if (
            condition.metric != picture.of_run(spec.name)
            or condition.comparison not in ("≤", "≥")
            or condition.state == "unarmed"
        ):
            continue
        if condition.statistic:
            # It holds for something else than the values that are drawn.
            continue
        if limit is not None and math.isfinite(limit):
            severity = condition.state if condition.state in ALARMS else "warning"
            limits.append(ReferenceLine(limit, f"{condition.comparison} {compact(limit)} {condition.id}", severity))
    known = {line.value for line in limits}
    declared = [line for line in spec.references[:16] if math.isfinite(line.value) and line.value not in known]
    return (*declared, *limits[:8])
