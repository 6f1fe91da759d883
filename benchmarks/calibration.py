"""How often phi_observed sees coupling where there is none, and how often where there is some.

    python benchmarks/calibration.py [--draws 500] [--json]

Families of recordings of 4 parts of 2 units:

    uncoupled    each part its own random stable VAR(1), noise correlated across all units
    shuffled     a coupled VAR(1), each part then shifted in time, round, by its own random offset, 50 steps apart
    given        uncoupled, and one input to all units, given
    hidden       the same input, not given: looks coupled
    drifting     uncoupled, spectral radius 0.98: too slow for so short a recording
    oscillating  narrow bands seen through noise: remembers longer than MAX_LAGS
    coupled      the VAR(1) of shuffled, not shifted
    faint        a third of that coupling

Nothing is coupled in the first three: the share of draws with p ≤ 0.05 is the false-alarm rate, printed with its 95 %
interval (Wilson 1927). Exits 1 where one lies outside 3 % .. 7 %. The next three are limits, the last two detection.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TypeAlias

import numpy as np

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.observed import phi_observed

NUM_PARTS, PART = 4, 2
DIM = NUM_PARTS * PART
Recording: TypeAlias = tuple[FloatArray, FloatArray | None]
"""x [T, 8] and u [T, m]"""
PARTS = [list(range(PART * i, PART * (i + 1))) for i in range(NUM_PARTS)]
NUM_SAMPLES, NUM_SURROGATES = 400, 99
WARM_UP = 200
ALPHA = 0.05
LOWEST, HIGHEST = 0.03, 0.07
COUPLING = 0.15
"""Standard deviation of a weight between parts; the spectral radius is then scaled into [0.5, 0.9]."""
APART = 50
"""Steps between the offsets of two parts: beyond, a radius of 0.9 has forgotten (0.9^50 = 0.005)."""
CORRELATED = 12
"""Degrees of freedom of the noise's Wishart covariance, 8 units: strongly correlated."""


def own_dynamics(generator: np.random.Generator) -> FloatArray:
    """[8, 8], zero between parts; each part of a spectral radius in [0.2, 0.9]."""
    a = np.zeros((DIM, DIM))
    for part in PARTS:
        block = generator.standard_normal((PART, PART))
        a[np.ix_(part, part)] = block * generator.uniform(0.2, 0.9) / np.abs(np.linalg.eigvals(block)).max()
    return a


def correlated(generator: np.random.Generator) -> FloatArray:
    """[WARM_UP + T, 8], noise with a random covariance."""
    mixing = generator.standard_normal((DIM, CORRELATED)) / math.sqrt(CORRELATED)
    return np.asarray(generator.standard_normal((WARM_UP + NUM_SAMPLES, CORRELATED)) @ mixing.T)


def run(a: FloatArray, shocks: FloatArray) -> FloatArray:
    """[T, d] of x_t+1 = A x_t + shock, after WARM_UP steps."""
    x = shocks.copy()
    for step in range(1, len(x)):
        x[step] += a @ x[step - 1]
    return x[WARM_UP:]


def uncoupled(generator: np.random.Generator) -> Recording:
    return run(own_dynamics(generator), correlated(generator)), None


def coupled(generator: np.random.Generator, strength: float = COUPLING) -> Recording:
    a = own_dynamics(generator) + strength * generator.standard_normal((DIM, DIM))
    a *= generator.uniform(0.5, 0.9) / np.abs(np.linalg.eigvals(a)).max()
    return run(a, correlated(generator)), None


def faint(generator: np.random.Generator) -> Recording:
    return coupled(generator, COUPLING / 3)


def shuffled(generator: np.random.Generator) -> Recording:
    """Parts shifted by nearly the same offset would still drive each other; with any offsets, one draw in six has such
    a pair, and 7.4 % of 2000 draws were seen, rightly."""
    x, _ = coupled(generator)
    share = NUM_SAMPLES // NUM_PARTS
    for slot, part in zip(generator.permutation(NUM_PARTS), PARTS, strict=True):
        x[:, part] = np.roll(x[:, part], slot * share + generator.integers(share - APART), axis=0)
    return x, None


def given(generator: np.random.Generator) -> Recording:
    """u_t, of memory 0.9, acts on x_t+1 of every unit with a random weight, twice as strong as the noise."""
    u = run(np.array([[0.9]]), generator.standard_normal((2 * WARM_UP + NUM_SAMPLES, 1)))
    shocks = correlated(generator)
    shocks[1:] += 2.0 * u[:-1] @ generator.standard_normal((1, DIM))
    return run(own_dynamics(generator), shocks), u[WARM_UP:]


def hidden(generator: np.random.Generator) -> Recording:
    return given(generator)[0], None


def drifting(generator: np.random.Generator) -> Recording:
    return run(0.98 * np.eye(DIM), correlated(generator)), None


def oscillating(generator: np.random.Generator) -> Recording:
    """Each unit y_t+1 = 1.8 y_t − 0.9 y_t−1 + e, seen with noise of half its standard deviation."""
    companion = np.kron(np.array([[1.8, -0.9], [1.0, 0.0]]), np.eye(DIM))
    shocks = np.zeros((WARM_UP + NUM_SAMPLES, 2 * DIM))
    shocks[:, :DIM] = generator.standard_normal((len(shocks), DIM))
    y = run(companion, shocks)[:, :DIM]
    return y + 0.5 * y.std(axis=0) * generator.standard_normal(y.shape), None


FAMILIES: dict[str, Callable[[np.random.Generator], Recording]] = {
    family.__name__: family for family in (uncoupled, shuffled, given, hidden, drifting, oscillating, coupled, faint)
}
UNCOUPLED = ("uncoupled", "shuffled", "given")


def measure(job: tuple[str, int]) -> tuple[float, float, float, float] | None:
    """(p, value, bias, std) of one draw; None where a part drifts too slowly for surrogates."""
    family, draw = job
    generator = np.random.default_rng([list(FAMILIES).index(family), draw])
    x, u = FAMILIES[family](generator)
    found = phi_observed(x, PARTS, u, num_surrogates=NUM_SURROGATES, seed=draw)
    if found.value is None:
        return None
    assert found.p_value is not None
    assert found.bias_nats is not None
    assert found.std_nats is not None
    return found.p_value, found.value, found.bias_nats, found.std_nats


@dataclass(frozen=True, kw_only=True)
class Family:
    name: str
    draws: int
    without_value: int
    rate: float
    """Share of draws with p ≤ 0.05."""
    low: float
    high: float
    """95 % interval of the rate."""
    value_nats: float
    """Mean corrected value: the bias left where nothing is coupled."""
    value_errors: float
    """The same in units of its standard error."""
    removed_nats: float
    """Mean bias_nats: what the surrogates took away."""
    z_std: float
    """Standard deviation of value / std_nats over the draws: 1 where the surrogates spread as the data do."""


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a rate: (p + z²/2n ± z sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n)."""
    rate = hits / count
    middle = rate + z * z / (2 * count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return (middle - reach) / (1 + z * z / count), (middle + reach) / (1 + z * z / count)


def family(name: str, draws: int, pool: ProcessPoolExecutor) -> Family:
    found: list[tuple[float, float, float, float] | None] = []
    began = time.perf_counter()
    for result in pool.map(measure, [(name, draw) for draw in range(draws)], chunksize=5):
        found.append(result)
        if len(found) % max(1, draws // 10) == 0:
            print(f"{name:<12}{len(found):>5} / {draws}{time.perf_counter() - began:>8.1f} s", file=sys.stderr)
    p, value, bias, std = np.array([each for each in found if each is not None]).T
    hits = int(np.count_nonzero(p <= ALPHA + 1e-12))
    low, high = wilson(hits, len(p))
    return Family(
        name=name,
        draws=draws,
        without_value=draws - len(p),
        rate=hits / len(p),
        low=low,
        high=high,
        value_nats=float(value.mean()),
        value_errors=float(value.mean() / (value.std(ddof=1) / math.sqrt(len(value)))),
        removed_nats=float(bias.mean()),
        z_std=float((value / std).std(ddof=1)),
    )


def measured(draws: int) -> list[Family]:
    """Every family."""
    # One process a core, each with one thread: a spawned one imports numpy after this.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return [family(name, draws, pool) for name in FAMILIES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500, help="recordings of each family")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    rows = measured(given.draws)
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(f"T = {NUM_SAMPLES}, {NUM_PARTS} parts of {PART}, {NUM_SURROGATES} surrogates, p ≤ {ALPHA}")
        print("family       draws    rate  95 %             value/nats  /error  removed  z std")
        for row in rows:
            print(
                f"{row.name:<12}{row.draws - row.without_value:>6}{row.rate:>8.1%}  "
                f"{f'[{row.low:.1%}, {row.high:.1%}]':<17}{row.value_nats:>10.5f}{row.value_errors:>8.2f}"
                f"{row.removed_nats:>9.5f}{row.z_std:>7.2f}"
            )
    return int(any(not LOWEST <= row.rate <= HIGHEST for row in rows if row.name in UNCOUPLED))


if __name__ == "__main__":
    sys.exit(main())
