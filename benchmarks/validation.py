"""Phi, phi_observed and kappa on systems whose answer is known: what docs/measures.md shows.

    python benchmarks/validation.py [--draws 500] [--write]

--write puts the tables of this run into docs/measures.md and benchmarks/results/validation.json. Exits 1 where
something is not as it must be. Timings are not measured here.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from calibration import HIGHEST, LOWEST, UNCOUPLED, measured
from racing import machine

from qig_core.geometry.simplex import FloatArray
from qig_core.measures.coupling import kappa_eff
from qig_core.measures.integration import effective_information, geometric_integration
from qig_core.measures.transition import equal_parts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "validation.json"
DOCUMENT = ROOT / "docs" / "measures.md"
EPS = 0.1
KAPPAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def independent_parts(draws: int) -> dict[str, Any]:
    """Eight parts of four units, nothing between them."""
    rng = np.random.default_rng(0)
    parts = equal_parts(32, 8)
    inside = np.kron(np.eye(8), np.ones((4, 4)))
    largest = 0.0
    for _ in range(draws):
        order = rng.permutation(32)
        maps = (10.0 * rng.standard_normal((3, 32, 32)) * inside)[:, order][:, :, order]
        where = np.argsort(order)
        largest = max(largest, effective_information(maps, [where[part].tolist() for part in parts], EPS).score)
    return {
        "system": f"8 independent parts, units in any order ({draws} draws)",
        "known": "phi = 0",
        "found": f"largest phi {largest:g}",
        "right": bool(largest == 0.0),
    }


def two_units() -> dict[str, Any]:
    """phi² = 1 − 1/((1 + b²/ε²)(1 + c²/ε²))."""
    worst = 0.0
    for b in np.linspace(-2.0, 2.0, 41):
        for c in np.linspace(-2.0, 2.0, 41):
            found = effective_information([[0.3, b], [c, -0.7]], [[0], [1]], EPS)
            known = 1.0 - 1.0 / ((1.0 + (b / EPS) ** 2) * (1.0 + (c / EPS) ** 2))
            worst = max(worst, abs(found.score**2 - known))
    return {
        "system": "two units, b one way and c the other (41 x 41 pairs)",
        "known": "phi² = 1 − 1/((1 + b²/ε²)(1 + c²/ε²))",
        "found": f"largest error of phi² {worst:.1e}",
        "right": bool(worst < 1e-12),
    }


def ring() -> dict[str, Any]:
    """Eight units, each driving the next by g: the least cut takes two edges and has K = 4."""
    gains = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    scores = []
    worst = 0.0
    for gain in gains:
        a = 0.5 * np.eye(8) + gain * np.roll(np.eye(8), 1, axis=1)
        found = effective_information(a, equal_parts(8, 8), EPS)
        known = math.sqrt(1.0 - (1.0 + (gain / EPS) ** 2) ** -0.5)
        worst = max(worst, abs(found.score - known))
        scores.append(found.score)
    rising = all(low < high for low, high in pairwise(scores))
    return {
        "system": f"a ring of 8 units, g = {', '.join(f'{gain:g}' for gain in gains)}",
        "known": "phi = sqrt(1 − (1 + g²/ε²)^−½), rising",
        "found": f"{', '.join(f'{score:.3f}' for score in scores)}; largest error {worst:.1e}",
        "right": bool(worst < 1e-9 and rising),
    }


def hidden_cut(draws: int) -> dict[str, Any]:
    """Two groups of four parts, strong inside and weak across, the parts shuffled."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(draws):
        group = rng.permutation(np.repeat([0, 1], 4))
        same = np.kron(group[:, None] == group[None, :], np.ones((4, 4)))
        a = rng.standard_normal((32, 32)) * np.where(same, 0.3, 0.02)
        found = effective_information(a, equal_parts(32, 8), EPS)
        hits += set(found.cut) in ({*np.flatnonzero(group == 0)}, {*np.flatnonzero(group == 1)})
    return {
        "system": f"a weak cut hidden under a permutation of 8 parts ({draws} draws)",
        "known": "the cut",
        "found": f"found in {hits} of {draws}",
        "right": bool(hits == draws),
    }


def lower_bound(draws: int) -> dict[str, Any]:
    """Φ_G ≤ Φ, equal where the two ways together are weak."""
    rng = np.random.default_rng(2)
    low, worst = 1.0, 0.0
    for _ in range(draws):
        scale = rng.uniform(0.01, 1.0)
        a = scale * rng.standard_normal((8, 8))
        b, c = a[:4, 4:] / EPS, a[4:, :4] / EPS
        whole = sum(0.5 * np.linalg.slogdet(np.eye(4) + block @ block.T)[1] for block in (b, c))
        share = geometric_integration(a, [4, 5, 6, 7], EPS) / whole
        low = min(low, share)
        if np.linalg.norm(b, 2) * np.linalg.norm(c, 2) <= 1.0:
            worst = max(worst, abs(share - 1.0))
        if share > 1.0 + 1e-12:
            worst = math.inf
    return {
        "system": f"Φ_G beside Φ of the same cut ({draws} maps)",
        "known": "Φ_G ≤ Φ; equal where σ₁σ₁ ≤ ε²",
        "found": f"Φ_G/Φ from {low:.3f} to 1; largest error where equal {worst:.1e}",
        "right": bool(worst < 1e-9),
    }


def gibbs_rows(kappa: float, draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """8 sequences of 32 rows over up to 64 entries: attention as the shares of so many draws a row, and exactly."""
    d = rng.uniform(0.2, 2.8, (256, 64))
    weight = np.exp(-kappa * (d - d.min(axis=1, keepdims=True)))
    exact = weight / weight.sum(axis=1, keepdims=True)
    shares = rng.multinomial(draws, exact) / draws
    return shares[None], exact[None], d[None]


def kappa_curve(repeats: int) -> list[dict[str, Any]]:
    """κ of heads whose κ is known: exactly, and from attention that is itself a sample."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(8), 32)
    rows = []
    for kappa in KAPPAS:
        values, errors, exact_error = [], [], 0.0
        for _ in range(repeats):
            shares, exact, d = gibbs_rows(kappa, 20, rng)
            found = kappa_eff(shares, d, clusters=clusters)
            assert found.value is not None
            assert found.std_error[0] is not None
            values.append(found.value)
            errors.append(found.std_error[0])
            whole = kappa_eff(exact, d).value
            assert whole is not None
            exact_error = max(exact_error, abs(whole / kappa - 1.0))
        inside = np.mean(np.abs(np.array(values) - kappa) <= 2.0 * np.array(errors))
        rows.append(
            {
                "kappa": kappa,
                "exact_error": exact_error,
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)),
                "std_error": float(np.mean(errors)),
                "inside": float(inside),
                "right": bool(exact_error < 1e-6),
            }
        )
    return rows


def tables(facts: dict[str, Any]) -> dict[str, str]:
    """The document's three tables by the name of their markers."""
    known = ["| system | what is known | what was found | |", "|---|---|---|---|"]
    known += [
        f"| {row['system']} | {row['known']} | {row['found']} | {'right' if row['right'] else '**wrong**'} |"
        for row in facts["known"]
    ]
    kappa = [
        "| κ of the head | error, exact attention | fit to 20 draws a row, mean ± sd | standard error | within two |",
        "|---|---|---|---|---|",
    ]
    for row in facts["kappa"]:
        cells = (
            f"{row['kappa']:g}",
            f"{row['exact_error']:.0e}",
            f"{row['mean']:.4g} ± {row['std']:.2g}",
            f"{row['std_error']:.2g}",
            f"{100 * row['inside']:.0f} %",
        )
        kappa.append(f"| {' | '.join(cells)} |")
    observed = [
        "| recordings | p ≤ 0.05 in | 95 % interval | mean corrected value, nats | in its standard errors |",
        "|---|---|---|---|---|",
    ]
    for row in facts["observed"]:
        cells = (
            row["name"],
            f"{100 * row['rate']:.1f} % of {row['draws'] - row['without_value']}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %",
            f"{row['value_nats']:+.2g}",
            f"{row['value_errors']:+.1f}",
        )
        observed.append(f"| {' | '.join(cells)} |")
    lines = {"known": known, "kappa": kappa, "observed": observed}
    return {name: "\n".join(each) + "\n" for name, each in lines.items()}


def into_document(facts: dict[str, Any]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in tables(facts).items():
        before, rest = text.split(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n{table}<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"
    DOCUMENT.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500, help="recordings a family for phi_observed")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/measures.md")
    given = parser.parse_args()
    facts = {key: value for key, value in machine().items() if key in ("date", "versions")}
    checks: list[Callable[[], dict[str, Any]]] = [
        lambda: independent_parts(200),
        two_units,
        ring,
        lambda: hidden_cut(200),
        lambda: lower_bound(500),
    ]
    facts["known"] = [check() for check in checks]
    facts["kappa"] = kappa_curve(100)
    facts["observed"] = [asdict(row) for row in measured(given.draws)]
    for name, table in tables(facts).items():
        print(f"{name}\n{table}")
    if given.write:
        into_document(facts)
        RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written: {DOCUMENT} {RESULTS}")
    calibrated = all(LOWEST <= row["rate"] <= HIGHEST for row in facts["observed"] if row["name"] in UNCOUPLED)
    return int(not (calibrated and all(row["right"] for row in (*facts["known"], *facts["kappa"]))))


if __name__ == "__main__":
    sys.exit(main())
