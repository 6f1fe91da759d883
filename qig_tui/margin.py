"""How far a value is from its limit, as a share. Pure arithmetic."""

import math

UPPER = frozenset({"<=", "≤", "<", "le", "lt", "max", "at_most", "below"})
LOWER = frozenset({">=", "≥", ">", "ge", "gt", "min", "at_least", "above"})
"""Comparisons of the healthy side, whoever spelled them."""

Bounds = tuple[float | None, float | None] | None


def share_left(value: float | None, limit: float | None, *, is_upper: bool, bounds: Bounds = None) -> float | None:
    """The share of the way to the limit that is left: 1 far from it, 0 at it or beyond; None if unknowable.

    Args:
        bounds: the values that are possible; the way is measured from the far end where it is known, else from 0.
    """
    if value is None or limit is None or math.isnan(value) or math.isnan(limit):
        return None
    low, high = bounds or (None, None)
    far = low if is_upper else high
    way = abs(limit - far) if far is not None and far != limit else abs(limit) or 1.0
    left = limit - value if is_upper else value - limit
    # Both may be beyond float64: how much of the way that is, nobody knows.
    share = left / way
    return None if math.isnan(share) else min(max(share, 0.0), 1.0)
