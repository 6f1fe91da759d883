"""What `qig-core measure` writes and prints. Computes nothing but a distance."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qig_core.errors import ExitCode, RecordWriteError, UsageError
from qig_core.geometry.simplex import FloatArray
from qig_core.measures.coupling import KappaResult
from qig_core.measures.integration import PhiResult
from qig_core.measures.packet import distance, load, save
from qig_core.terminal import print_facts, print_json, print_table
from qig_core.training.frozen import Frozen

_LARGEST = 5


def run_measure(look: Callable[[], Frozen], *, packet: Path | None, against: Path | None, json: bool) -> ExitCode:
    """Look, compare with the packet `against`, write the packet, and show what was found.

    Returns:
        FOUND_BAD where the model is broken.

    Raises:
        PacketError, UsageError: `against` is no packet, or is not comparable. RecordWriteError: `packet` was refused.
    """
    try:
        other = None if against is None else load(against)
    except OSError as error:
        raise UsageError(f"{str(against)!r}: {error.strerror}") from error
    found = look()
    if other is not None:
        found = replace(found, distance_rad=distance(found.packet(), other))
    if packet is not None:
        try:
            save(found.packet(), packet)
        except OSError as error:
            raise RecordWriteError(f"{str(packet)!r} was not written: {error.strerror}") from error
    if json:
        print_json(found.to_dict())
    else:
        show_measures(found)
    return ExitCode.FOUND_BAD if found.seen.nonfinite else ExitCode.OK


def show_measures(found: Frozen) -> None:
    """The measures as facts, and a table of heads."""
    seen, probe = found.seen, found.probe
    rows = [
        ("model", found.model),
        ("block", f"{probe.get('block', 'the kernel')}, pass {probe['pass']}, {seen.mode} mode"),
    ]

    def missing(name: str) -> str:
        if name in seen.nonfinite:
            at = "" if seen.broken_at is None else f", first in {seen.broken_at}"
            return f"not finite: {seen.nonfinite[name]}{at}"
        return f"– {seen.reasons.get(name, '')}".rstrip()

    rows.append(("Φ phi", missing("phi") if seen.integration is None else f"{seen.integration.score:.4f}"))
    if seen.integration is not None:
        rows += _integration(seen.integration, probe)
    if len(seen.per_pass) > 1:
        rows.append(("  of each pass", "  ".join(f"{score:.4f}" for score in seen.per_pass)))
    rows.append(("  regime", seen.regime or "n/a: its boundaries are those of full rank"))
    kappa = missing("kappa")
    if seen.coupling is not None and seen.kappa is not None:
        valued = sum(value is not None for value in seen.coupling.per_head)
        kappa = f"{seen.kappa:.4f} rad⁻¹, median of {valued} heads" + (
            ""
            if "temperature" not in probe
            else f"; softmax of queries and keys at temperature {probe['temperature']:g}"
        )
    rows.append(("κ kappa", kappa))
    rows.append(("basin", missing("basin") if seen.basin is None else _basin(seen.basin)))
    if "output" in seen.nonfinite:
        rows.append(("output", missing("output")))
    if found.distance_rad is not None:
        rows.append(("  from the packet", f"{found.distance_rad:.4g} rad (Fisher–Rao)"))
    rows += [("text", found.corpus), ("probe", f"{probe['digest'][:16]}  (equal digests are comparable)")]
    rows += [("note", note) for note in found.notes]
    print_facts(rows)
    if seen.coupling is not None:
        print()
        _heads(seen.coupling)


def _integration(phi: PhiResult, probe: Mapping[str, Any]) -> list[tuple[str, str]]:
    far = [i for i in range(phi.num_parts) if i not in phi.cut]
    sides = " | ".join(" ".join(map(str, side)) for side in (far, phi.cut))
    widths = probe["width"] if isinstance(probe["width"], list) else [probe["width"]]
    width = " to ".join(map(str, dict.fromkeys(widths)))
    share = "–" if phi.share is None else f"{phi.share:.3f}"
    return [
        (
            "  across the cut",
            f"{phi.nats:.4g} ± {phi.spread_nats:.2g} nats over {len(phi.per_position_nats)} positions",
        ),
        ("  the cut", f"parts {sides}, K = {phi.dim}"),
        ("  needs the cut", f"{share} of it (Φ_G / I)"),
        ("  comparable at", f"d = {width}, M = {phi.num_parts}, rank {probe['rank']}, ε = {phi.noise:g}"),
    ]


def _basin(basin: FloatArray) -> str:
    largest = np.argsort(-basin)[:_LARGEST]
    entropy = -float(np.sum(basin * np.log(basin, where=basin > 0.0, out=np.zeros_like(basin))))
    top = "  ".join(f"{i}: {basin[i]:.4f}" for i in largest)
    return f"entropy {entropy:.4f} of {np.log(basin.size):.4f} nats; largest {top}"


def _heads(kappa: KappaResult) -> None:
    def text(value: float | None, form: str) -> str | None:
        return None if value is None else format(value, form)

    rows = [
        (
            i,
            text(kappa.per_head[i], ".4f"),
            text(kappa.std_error[i], ".2g"),
            text(kappa.kl[i], ".3g"),
            text(kappa.explained[i], ".3f"),
            kappa.n_rows[i],
            kappa.flags[i] or "",
        )
        for i in range(len(kappa.per_head))
    ]
    columns = ("head", "κ rad⁻¹", "± std error", "KL nats", "explained", "rows", "")
    print_table(columns, rows, right=columns[:-1], fold=())
