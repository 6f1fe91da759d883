"""From one figure a seed to a verdict: exact small-sample intervals and one-sided tests. Pure; no run, no disk.

A claim is that the mean over all seeds there could be lies beyond a limit: above one, below one, or between two. Each
limit is tested by a one-sided t-test at ALPHA, so that a claim with two limits is tested as by TOST (Schuirmann 1987)
and needs no correction: all of it must hold. A protocol passes where all its claims do, likewise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import stdtr, stdtrit

Word = Literal["pass", "fail", "inconclusive"]
ALPHA = 0.05
"""Of each one-sided test; the interval that says the same is two-sided at 1 − 2 ALPHA = 90 %."""
LEAST_SEEDS = 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its t interval; exact where the figures are normal, at any number of seeds."""

    mean: float
    deviation: float
    """Of one seed: the standard deviation with n − 1."""
    low: float
    high: float
    num: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the seeds say of one claim."""

    id: str
    claim: str
    """For people: "Φ of the control, less Φ"."""
    unit: str
    above: float | None
    """The claim: the mean is greater than this ..."""
    below: float | None
    """... and smaller than this."""
    values: Mapping[str, float | None]
    """One a seed."""
    estimate: Estimate | None
    p: float | None
    """The larger of the p of the limits: of "the mean does not lie beyond it"."""
    verdict: Word
    reason: str = ""
    """Why there is no estimate."""


def p_text(finding: Mapping[str, Any]) -> str:
    """What a finding, as plain data, says of its p, for people: "p = 0.003"; without one, why."""
    found, p = finding["estimate"], finding["p"]
    if found is None or p is None:
        return str(finding["reason"])
    return f"p = {p:.2g}" if found["deviation"] > 0.0 else "the same for every seed"


def estimate(values: Sequence[float], *, alpha: float = ALPHA) -> Estimate:
    """x̄ ± t_{n−1}(1 − alpha) s/√n, s² = Σ(x − x̄)²/(n − 1).

    Args:
        values: at least LEAST_SEEDS, finite. Where all are equal the interval is that one number.

    Raises:
        ValueError: too few, or not finite.
    """
    n = len(values)
    if n < LEAST_SEEDS or not all(map(math.isfinite, values)):
        raise ValueError(f"an interval needs at least {LEAST_SEEDS} finite figures, not {list(values)}")
    mean = math.fsum(values) / n
    # Equal figures have no spread, whatever the rounding of their mean.
    equal = min(values) == max(values)
    mean = values[0] if equal else mean
    deviation = 0.0 if equal else math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 1.0 - alpha)) * deviation / math.sqrt(n)
    return Estimate(mean=mean, deviation=deviation, low=mean - half, high=mean + half, num=n)


def p_above(found: Estimate, limit: float) -> float:
    """One-sided p of "the mean is at most `limit`": P(T_{n−1} ≥ (x̄ − limit) √n / s). Without spread it is 0 or 1."""
    off = found.mean - limit
    if found.deviation == 0.0:
        return 0.0 if off > 0.0 else 1.0
    return float(stdtr(found.num - 1, -off * math.sqrt(found.num) / found.deviation))


def p_below(found: Estimate, limit: float) -> float:
    """One-sided p of "the mean is at least `limit`"."""
    if found.deviation == 0.0:
        return 0.0 if found.mean < limit else 1.0
    return float(stdtr(found.num - 1, (found.mean - limit) * math.sqrt(found.num) / found.deviation))


def judge(
    id: str,
    claim: str,
    values: Mapping[str, float | None],
    *,
    unit: str = "",
    above: float | None = None,
    below: float | None = None,
    alpha: float = ALPHA,
) -> Finding:
    """Whether the mean lies beyond the limits of a claim.

    pass: p < alpha at every limit. fail: at one of them the opposite is found at alpha. inconclusive: neither,
    or a seed without a figure: none is ever left out.

    Args:
        above, below: at least one.

    Source: Schuirmann, J Pharmacokinet Biopharm 15:657, 1987.
    """
    assert above is not None or below is not None, "a claim has a limit"
    missing = [seed for seed, value in values.items() if value is None or not math.isfinite(value)]
    numbers = [value for value in values.values() if value is not None]
    reason = ""
    if missing:
        reason = f"no figure of {', '.join(missing)}"
    elif len(numbers) < LEAST_SEEDS:
        reason = f"{len(numbers)} of at least {LEAST_SEEDS} seeds"
    found, p = None, None
    verdict: Word = "inconclusive"
    if not reason:
        found = estimate(numbers, alpha=alpha)
        holds = [test(found, limit) for test, limit in ((p_above, above), (p_below, below)) if limit is not None]
        fails = [test(found, limit) for test, limit in ((p_below, above), (p_above, below)) if limit is not None]
        p = max(holds)
        verdict = "pass" if p < alpha else "fail" if min(fails) < alpha else "inconclusive"
    return Finding(
        id=id,
        claim=claim,
        unit=unit,
        above=above,
        below=below,
        values=dict(values),
        estimate=found,
        p=p,
        verdict=verdict,
        reason=reason,
    )


def together(findings: Sequence[Finding]) -> Word:
    """pass where every claim holds, fail where one fails, else inconclusive. Raises ValueError without any claim."""
    if not findings:
        raise ValueError("nothing was claimed")
    words = {finding.verdict for finding in findings}
    return "fail" if "fail" in words else "inconclusive" if "inconclusive" in words else "pass"
