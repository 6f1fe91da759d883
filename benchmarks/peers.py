"""Who benchmarks/geometry.py measures us against: other libraries, if here, and the formulas as one writes them.

Every function takes the data and returns the call that is timed; what a library wants its data to be turned into first
is done outside of that call. A library that cannot be imported raises Missing with the reason.
"""

import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from racing import Missing

Array = NDArray[Any]
Call = Callable[[], Any]


def _need(name: str) -> Any:
    logging.getLogger().setLevel(logging.ERROR)  # geomstats tells its backend on the root logger
    try:
        return import_module(name)
    except ImportError as error:
        raise Missing(str(error)) from None


def qutip_fidelity(rho: Array, sigma: Array) -> Call:
    qutip = _need("qutip")
    a, b = qutip.Qobj(rho), qutip.Qobj(sigma)
    return lambda: qutip.fidelity(a, b) ** 2


def toqito_fidelity(rho: Array, sigma: Array) -> Call:
    metrics = _need("toqito.state_metrics")
    return lambda: metrics.fidelity(rho, sigma) ** 2


def quanestimation_qfim(rho: Array, drho: Array) -> Call:
    """QFIM of quanestimation.base.AsymptoticBound.CramerRao, which is numpy and scipy alone. Its packages are entered
    without their __init__, and the name juliacall, which fetches Julia when imported, is taken by an empty module."""
    package = "quanestimation"
    if package not in sys.modules:
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise Missing(f"No module named {package!r}")
        root = Path(found.submodule_search_locations[0])
        for name in (package, f"{package}.base", f"{package}.base.AsymptoticBound"):
            module = ModuleType(name)
            module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = module
        sys.modules.setdefault("juliacall", ModuleType("juliacall"))
    qfim = _need(f"{package}.base.AsymptoticBound.CramerRao").QFIM
    return partial(qfim, rho, list(drho))


def sphere_distance(p: Array, q: Array) -> Call:
    metric = _sphere(p.shape[-1]).metric
    return lambda: 2.0 * metric.dist(np.sqrt(p), np.sqrt(q))


def simplex_distance(p: Array, q: Array) -> Call:
    return partial(_simplex(p.shape[-1]).metric.dist, p, q)


def sphere_mean(gradient_rad: float, same_start: bool, points: Array) -> Call:
    """FrechetMean of √p by the default method (the adaptive one takes more than twice as long); it stops where the
    squared gradient is at most epsilon times the dimension, and an angle on the sphere is half the distance."""
    fit = _frechet_mean(_sphere(points.shape[-1]), 0.5 * gradient_rad)

    def call() -> Array:
        roots = np.sqrt(points)
        if same_start:
            start = roots.mean(axis=0)
            fit.set(init_point=start / np.linalg.norm(start))
        return fit.fit(roots).estimate_ ** 2

    return call


def simplex_mean(gradient_rad: float, points: Array) -> Call:
    fit = _frechet_mean(_simplex(points.shape[-1]), gradient_rad)
    return lambda: fit.fit(points).estimate_


def sphere_step(share: float, p: Array, target: Array) -> Call:
    metric = _sphere(p.shape[-1]).metric

    def call() -> Array:
        root = np.sqrt(p)
        return metric.exp(share * metric.log(np.sqrt(target), root), root) ** 2

    return call


def _sphere(count: int) -> Any:
    return _need("geomstats.geometry.hypersphere").Hypersphere(count - 1)


def _simplex(count: int) -> Any:
    return _need("geomstats.information_geometry.categorical").CategoricalDistributions(count - 1)


def _frechet_mean(space: Any, gradient: float) -> Any:
    fit = _need("geomstats.learning.frechet_mean").FrechetMean(space)
    return fit.set(epsilon=gradient**2 / space.dim, max_iter=1000)


def qfi_loop(rho: Array, drho: Array) -> Call:
    """The formula as it stands: for every pair of parameters and every pair of eigenvectors."""

    def call() -> Array:
        values, vectors = np.linalg.eigh(rho)
        turned = [vectors.conj().T @ each @ vectors for each in drho]
        cut, count = len(values) * np.finfo(float).eps * values[-1], len(drho)
        matrix = np.zeros((count, count))
        for i in range(count):
            for j in range(i, count):
                total = 0.0
                for k in range(len(values)):
                    for n in range(len(values)):
                        if values[k] + values[n] > cut:
                            total += (turned[i][k, n] * turned[j][n, k]).real / (values[k] + values[n])
                matrix[i, j] = matrix[j, i] = 2.0 * total
        return matrix

    return call


def qfi_vectorised(rho: Array, drho: Array) -> Call:
    """The same with one numpy expression a pair of parameters."""

    def call() -> Array:
        values, vectors = np.linalg.eigh(rho)
        turned = [vectors.conj().T @ each @ vectors for each in drho]
        sums, count = values[:, None] + values, len(drho)
        weight = np.divide(
            2.0, sums, out=np.zeros_like(sums), where=sums > len(values) * np.finfo(float).eps * values[-1]
        )
        matrix = np.zeros((count, count))
        for i in range(count):
            for j in range(i, count):
                matrix[i, j] = matrix[j, i] = np.sum(weight * (turned[i] * turned[j].conj()).real)
        return matrix

    return call


def eigh_and_gemms(rho: Array, drho: Array) -> Call:
    """One eigh and 2m products of that size, in two numpy calls."""

    def call() -> None:
        _, vectors = np.linalg.eigh(rho)
        np.matmul(np.matmul(vectors.conj().T, drho), vectors)

    return call


def read_once(p: Array, q: Array) -> Call:
    """One pass over both arrays: numpy.dot keeps nothing and is bound by what memory delivers."""
    return partial(np.dot, p.reshape(-1), q.reshape(-1))


def pseudo_inverse(p: Array, v: Array) -> Call:
    """hermitian=True halves the time of the plain numpy.linalg.pinv."""
    return lambda: np.linalg.pinv(np.diag(p) - np.outer(p, p), hermitian=True) @ v


def dense_solve(damping: float, p: Array, v: Array) -> Call:
    def call() -> Array:
        matrix = np.diag(p + damping)
        matrix -= np.outer(p, p)
        return np.linalg.solve(matrix, v)

    return call


def step_by_rows(share: float, rows: int, p: Array, target: Array) -> Call:
    """The geodesic step of the first rows, one after the other."""

    def call() -> Array:
        out = np.empty_like(p[:rows])
        for i in range(rows):
            u, v = np.sqrt(p[i]), np.sqrt(target[i])
            angle = np.arccos(min(1.0, u @ v))
            end = (np.sin((1.0 - share) * angle) * u + np.sin(share * angle) * v) / np.sin(angle)
            out[i] = end * end
        return out

    return call
