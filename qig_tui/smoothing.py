"""Smooth curves over series that may have been thinned: each point stands for `count` samples. numpy only."""

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_HUGE = 1e150
_DEEPEST = 200.0
"""Exponents of e that stay well within float64, also when a value of 1e150 is divided by them."""


def ema(mean: Floats, count: Ints, span: int) -> Floats:
    """Exponential moving average of weight 2 / (span + 1), as if the first value had always stood before it.

    y_i = k^n_i y_(i-1) + (1 - k^n_i) m_i with k = 1 - 2 / (span + 1): exact for single samples, and for n_i equal ones.

    Args:
        mean, count: [n], the mean of so many samples, in their order; finite, at least 1.
    """
    if span <= 1 or len(mean) < 2:
        return mean
    unit = float(np.abs(mean).max())
    unit = unit if unit > _HUGE else 1.0
    decay = np.maximum(count * math.log1p(-2.0 / (span + 1.0)), -_DEEPEST)
    # In rows so short that the product of a row's decays can be divided by; only the rows wait for one another.
    wide = max(int(-_DEEPEST / float(decay.min())), 1)
    high = -(-len(mean) // wide)
    decays = np.zeros(high * wide)
    decays[: len(mean)] = decay
    values = np.zeros(high * wide)
    values[: len(mean)] = mean / unit
    product = np.exp(np.cumsum(decays.reshape(high, wide), axis=1))
    gain = -np.expm1(decays.reshape(high, wide)) * values.reshape(high, wide)
    within = product * np.cumsum(gain / product, axis=1)
    before = np.empty(high)
    last = float(values[0])
    for row, (left, added) in enumerate(zip(product[:, -1].tolist(), within[:, -1].tolist(), strict=True)):
        before[row] = last
        last = left * last + added
    smooth: Floats = (within + product * before[:, None]).reshape(-1)[: len(mean)]
    return smooth * unit


def median_at(mean: Floats, count: Ints, ends: Ints, span: int) -> Floats:
    """At each of some points the median of the last `span` samples up to it; fewer at the beginning.

    Args:
        mean, count: as for `ema`; a point that stands for several samples weighs as many.
        ends: [k], indices of points, ascending.
    """
    before = ends[:, None] - np.arange(span)[None, :]
    there = before >= 0
    at = np.maximum(before, 0)
    # Of the oldest point as many samples as there is room for.
    sofar = np.cumsum(np.where(there, count[at], 0), axis=1)
    weight = np.clip(span - (sofar - count[at]), 0, count[at]) * there
    order = np.argsort(mean[at], axis=1, kind="stable")
    value, weight = np.take_along_axis(mean[at], order, axis=1), np.take_along_axis(weight, order, axis=1)
    reached = np.cumsum(weight, axis=1)
    half = reached[:, -1:]
    low = np.argmax(2 * reached >= half, axis=1)
    high = np.argmax(2 * reached > half, axis=1)
    rows = np.arange(len(ends))
    median: Floats = value[rows, low] / 2 + value[rows, high] / 2
    return median
