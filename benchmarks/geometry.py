"""The geometry kernels beside other libraries and beside their limits, same work at the same accuracy in one run.

    make bench                                      all of it, after the other benchmarks; peers live in .venv-bench
    .venv-bench/bin/python benchmarks/geometry.py [--quick] [--only TEXT] [--json PATH] [--readme]

One thread for every library. A time is the least CPU time of a call over blocks of calls that take turns (on a GPU the
least wall time). Results are compared before times are: a row prints both errors and how far apart the results are, and
one that is off has the verdict DIFFERS. Peers are used as their users would, except that the tolerance of an iteration
is set to reach our error. Where a peer is not installed its row says so.
Exits 1 where a mark is missed or a result differs.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # read when the libraries are loaded
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import peers  # noqa: E402
import samples  # noqa: E402
import torch  # noqa: E402
from racing import (  # noqa: E402
    DIFFERS,
    FULL,
    MISSED,
    QUICK,
    Judge,
    Mark,
    Pace,
    Rival,
    Row,
    compare,
    into_readme,
    machine,
    show,
    write,
)
from rich.console import Console  # noqa: E402

from qig_core.geometry import batched, simplex  # noqa: E402
from qig_core.geometry.density import fidelity  # noqa: E402
from qig_core.geometry.fisher import SparseFisherMetric, qfi_matrix  # noqa: E402
from qig_core.geometry.qfi_cache import CachedQFI  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "geometry.json"
SEED = 20260101
SIZE = 64  # of a basin
GRADIENT_RAD = 1e-12
SHARE, RATE = 0.3, 0.1
DAMPING = 1e-3
LOOP_ROWS = 1000
GPU_ROWS = 1_000_000
GEOMSTATS = "geomstats"


@dataclass(frozen=True, kw_only=True)
class Case:
    kernel: str
    size: str
    rows: Callable[[str, str, Pace], list[Row]]
    """rows(kernel, size, pace)."""


def seeded() -> np.random.Generator:
    return np.random.default_rng(SEED)


def fidelity_rows(kernel: str, size: str, pace: Pace, *, dim: int, toqito: float) -> list[Row]:
    generator = seeded()
    probe, truth = samples.commuting_states(generator, dim)
    judge = Judge(
        error=lambda value: abs(float(value - truth)),
        difference=samples.largest_difference,
        accuracy=1e-11,
        probe=probe,
    )
    rivals = [
        Rival(name="QuTiP", make=peers.qutip_fidelity, mark=Mark(limit=4.0)),
        Rival(name="toqito", make=peers.toqito_fidelity, mark=Mark(limit=toqito)),
    ]
    return compare(kernel, size, partial(partial, fidelity), rivals, samples.states(generator, dim), judge, pace)


def our_qfi(rho: Any, drho: Any) -> Callable[[], Any]:
    return lambda: qfi_matrix(rho, drho).matrix


def against_truth(truth: Any) -> Judge:
    return Judge(
        error=lambda value: samples.relative_difference(value, truth),
        difference=samples.relative_difference,
        accuracy=1e-9,
    )


def qfi_rows(kernel: str, size: str, pace: Pace, *, dim: int) -> list[Row]:
    data, truth = samples.family(seeded(), dim, 8)
    small = dim <= 64
    rivals = [
        Rival(
            name="limit: eigh + 2m GEMMs",
            make=peers.eigh_and_gemms,
            limit=True,
            mark=Mark(limit=1.5, at_most=True) if small else None,
        )
    ]
    if small:
        rivals.append(Rival(name="QuanEstimation", make=peers.quanestimation_qfim, mark=Mark(limit=80.0)))
    else:
        rivals.append(Rival(name="eigh + loop", make=peers.qfi_loop, mark=Mark(limit=12.0)))
        rivals.append(Rival(name="eigh + numpy a pair", make=peers.qfi_vectorised))
    return compare(kernel, size, our_qfi, rivals, data, against_truth(truth), pace)


def cache_rows(kernel: str, size: str, pace: Pace, *, dim: int) -> list[Row]:
    data, truth = samples.family(seeded(), dim, 8)

    def hit(rho: Any, drho: Any) -> Callable[[], Any]:
        cache = CachedQFI()
        cache(rho, drho)
        return lambda: cache(rho, drho).matrix

    return compare(kernel, size, hit, [Rival(name="computing it", make=our_qfi)], data, against_truth(truth), pace)


def sparse_rows(
    kernel: str, size: str, pace: Pace, *, blocks: int, count: int, mark: Mark, reuse: bool = False
) -> list[Row]:
    data, truth = samples.family(seeded(), 256, count, blocks)
    structure = SparseFisherMetric(*data).structure if reuse else None

    def ours(rho: Any, drho: Any) -> Callable[[], Any]:
        return lambda: SparseFisherMetric(rho, drho, structure=structure).matrix

    rivals = [Rival(name="our dense path", make=our_qfi, mark=mark)]
    return compare(kernel, size, ours, rivals, data, against_truth(truth), pace.longer(3) if blocks == 1 else pace)


def distance_rows(kernel: str, size: str, pace: Pace, *, pairs: int) -> list[Row]:
    p, q = samples.simplex_points(seeded(), 2, pairs, SIZE)
    truth = samples.exact_distance(p, q)
    judge = Judge(
        error=lambda value: samples.largest_difference(value, truth),
        difference=samples.largest_difference,
        accuracy=1e-13,
    )
    sphere = Rival(
        name=f"{GEOMSTATS} sphere", make=peers.sphere_distance, mark=Mark(limit=3.0) if pairs >= 10_000 else None
    )
    read = Rival(
        name="limit: reading p, q",
        make=peers.read_once,
        limit=True,
        mark=Mark(limit=3.0, at_most=True) if pairs >= 100_000 else None,
    )
    rivals = [sphere, read]
    if pairs < 10_000:
        rivals.append(Rival(name=f"{GEOMSTATS} simplex", make=peers.simplex_distance))
    return compare(kernel, size, partial(partial, simplex.fisher_rao_distance), rivals, (p, q), judge, pace)


def mean_rows(kernel: str, size: str, pace: Pace) -> list[Row]:
    points = samples.simplex_points(seeded(), 1000, SIZE)
    judge = Judge(
        error=partial(samples.mean_gradient, points),
        difference=samples.largest_difference,
        accuracy=GRADIENT_RAD,
    )
    sphere = partial(partial, peers.sphere_mean, GRADIENT_RAD)
    rivals = [
        Rival(name=f"{GEOMSTATS} sphere", make=sphere(False), mark=Mark(limit=4.0)),
        Rival(name=f"{GEOMSTATS} sphere, our start", make=sphere(True)),
        Rival(name=f"{GEOMSTATS} simplex", make=partial(peers.simplex_mean, GRADIENT_RAD), mark=Mark(limit=15.0)),
    ]
    ours = partial(partial, simplex.frechet_mean, tol=GRADIENT_RAD)
    return compare(kernel, size, ours, rivals, (points,), judge, pace)


def solve_rows(kernel: str, size: str, pace: Pace, *, count: int, damping: float) -> list[Row]:
    generator = seeded()
    p, v = samples.simplex_points(generator, count), generator.standard_normal(count)
    v -= v.mean()
    judge = Judge(
        error=partial(samples.residual, p, v, damping), difference=samples.relative_difference, accuracy=1e-10
    )
    mark = Mark(limit=10.0 if count < 512 else 100.0)
    rival = (
        Rival(name="numpy solve", make=partial(peers.dense_solve, damping), mark=mark)
        if damping
        else Rival(name="numpy pinv", make=peers.pseudo_inverse, mark=mark)
    )
    ours = partial(partial, simplex.fisher_solve, damping=damping)
    return compare(kernel, size, ours, [rival], (p, v), judge, pace)


def step_rows(kernel: str, size: str, pace: Pace, *, count: int, into_place: bool) -> list[Row]:
    p, target = samples.simplex_points(seeded(), 2, count, SIZE)
    truth = samples.exact_step(p, target, SHARE)
    judge = Judge(
        error=lambda value: samples.largest_difference(value, truth),
        difference=samples.largest_difference,
        accuracy=1e-13,
    )

    def ours(p: Any, target: Any) -> Callable[[], Any]:
        a, b = torch.from_numpy(p), torch.from_numpy(target)
        out = torch.empty_like(a) if into_place else None
        return lambda: batched.geodesic_step(a, b, SHARE, out=out).numpy()

    rivals = [
        Rival(
            name=f"loop over rows ({LOOP_ROWS}, scaled)",
            make=partial(peers.step_by_rows, SHARE, LOOP_ROWS),
            mark=Mark(limit=20.0),
            scale=count / LOOP_ROWS,
        ),
        Rival(name=GEOMSTATS, make=partial(peers.sphere_step, SHARE), mark=Mark(limit=3.0)),
    ]
    return compare(kernel, size, ours, rivals, (p, target), judge, pace)


def gpu_rows(kernel: str, size: str, pace: Pace, *, step: Any, exact: Any, scalar: float) -> list[Row]:
    """The limit: what copying as many bytes as p, the other argument and the result have takes."""
    name, mark = "limit: copy of those bytes", Mark(limit=0.6)
    if not torch.cuda.is_available():
        return [Row(kernel=kernel, size=size, peer=name, mark=str(mark), verdict="no GPU")]
    generator = torch.Generator("cuda").manual_seed(SEED)
    p, other = torch.empty(2, GPU_ROWS, SIZE, device="cuda").exponential_(generator=generator)
    p /= p.sum(dim=-1, keepdim=True)
    if step is batched.geodesic_step:
        other /= other.sum(dim=-1, keepdim=True)
    out, copied = torch.empty_like(p), torch.empty_like(p)
    truth = exact(*(x[: samples.HEAD].double().cpu().numpy() for x in (p, other)), scalar)
    judge = Judge(
        error=lambda value: samples.largest_difference(value[: samples.HEAD].double().cpu().numpy(), truth),
        difference=lambda a, b: 0.0,
        accuracy=1e-5,
    )
    rival = Rival(name=name, make=lambda p, _: partial(copied.copy_, p), mark=mark, scale=1.5, limit=True)
    ours = partial(partial, step, out=out)
    timing = {"clock": time.perf_counter, "finish": torch.cuda.synchronize}
    return compare(
        kernel, size, lambda p, other: partial(ours(p, other), scalar), [rival], (p, other), judge, pace, **timing
    )


def cases() -> list[Case]:
    found: list[Case] = []

    def add(kernel: str, size: str, rows: Callable[..., list[Row]], **how: Any) -> None:
        found.append(Case(kernel=kernel, size=size, rows=partial(rows, **how)))

    for dim, toqito in ((16, 8.0), (64, 20.0), (256, 19.0)):
        add("fidelity", f"d={dim}", fidelity_rows, dim=dim, toqito=toqito)
    for dim in (16, 32, 64, 256):
        add("QFI matrix", f"d={dim} m=8", qfi_rows, dim=dim)
    for dim in (64, 256):
        add("QFI from the cache", f"d={dim} m=8", cache_rows, dim=dim)
    for zeros, blocks, fresh, reused in ((80, 5, 6.0, 10.0), (94, 16, 14.0, 40.0)):
        what = f"{zeros} % zeros"
        add("sparse QFI", f"{what} m=8", sparse_rows, blocks=blocks, count=8, mark=Mark(limit=fresh))
        add(
            "sparse QFI, reused",
            f"{what} m=64",
            sparse_rows,
            blocks=blocks,
            count=64,
            mark=Mark(limit=reused),
            reuse=True,
        )
    add("sparse QFI", "connected m=8", sparse_rows, blocks=1, count=8, mark=Mark(limit=1.05, at_most=True))
    for pairs in (1_000, 10_000, 100_000):
        add("Fisher–Rao distance", f"B={pairs}", distance_rows, pairs=pairs)
    add("Karcher mean", "N=1000", mean_rows)
    for name, damping in (("min-norm", 0.0), ("damped", DAMPING)):
        for count in (64, 512, 4096):
            add(f"Fisher solve, {name}", f"n={count}", solve_rows, count=count, damping=damping)
    add("geodesic step", "B=100000 CPU, new", step_rows, count=100_000, into_place=False)
    add("geodesic step", "B=100000 CPU, out=", step_rows, count=100_000, into_place=True)
    for name, step, exact, scalar in (
        ("geodesic step", batched.geodesic_step, samples.exact_step, SHARE),
        ("natural gradient step", batched.natural_gradient_step, samples.exact_natural_step, RATE),
        ("exponentiated step", batched.exponentiated_gradient_step, samples.exact_exponentiated_step, RATE),
    ):
        add(name, f"B={GPU_ROWS} GPU", gpu_rows, step=step, exact=exact, scalar=scalar)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every row with few repeats, under two minutes")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose kernel and size contain it")
    parser.add_argument(
        "--json",
        type=Path,
        help=f"where to write the rows; default: {RESULTS.parent.name}/{RESULTS.name} for a whole run",
    )
    parser.add_argument("--readme", action="store_true", help="measure nothing: put the last whole run into README.md")
    given = parser.parse_args()
    if given.readme:
        into_readme("geometry", RESULTS)
        return 0
    torch.set_num_threads(1)
    wide = Console() if sys.stdout.isatty() else Console(width=160)
    facts = machine() | {"torch_threads": torch.get_num_threads(), "quick": given.quick}
    if torch.cuda.is_available():
        facts["machine"]["gpu"] = torch.cuda.get_device_name()
    for name, value in facts.items():
        wide.print(f"{name}: {value}", highlight=False)
    began, rows = time.perf_counter(), []
    for case in cases():
        if given.only in f"{case.kernel} {case.size}":
            print(f"{time.perf_counter() - began:6.1f} s  {case.kernel} {case.size}", file=sys.stderr)
            rows += case.rows(case.kernel, case.size, QUICK if given.quick else FULL)
    show(rows, wide)
    facts |= {"load_after": round(os.getloadavg()[0], 2), "took_s": round(time.perf_counter() - began, 1)}
    wide.print(f"{facts['took_s']} s; load {facts['load_before']} before, {facts['load_after']} after")
    path = given.json or (None if given.quick or given.only else RESULTS)
    if path:
        write(path, facts, rows)
        wide.print(f"written: {path}")
    return int(any(row.verdict.startswith((MISSED, DIFFERS)) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
