"""What one step pays for being watched, against the floor of a record that survives kill -9.

    python benchmarks/step_overhead.py [--steps N] [--dir FOLDER]

Floor: msgspec encode and write(2) of the same record. Check: IntegratedMonitor.check with 14 metrics, every condition
of the default profile armed, one sample a step written through, signals and mailbox listened to. With a saver, the
random generators are remembered at each step as well, so that a resume draws the same numbers again. Floor and check
in one run, in alternating blocks. Exits 1 where a mark is missed: median 20 µs, p99 100 µs.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from qig_core.checkpoints.saving import saver
from qig_core.rundir.schema import Sample
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.saves import Save

MEDIAN_US, P99_US = 20.0, 100.0
WARM_UP = 1000
BLOCK = 500


def metrics_of(step: int, generator: random.Random) -> dict[str, float]:
    """Fourteen metrics of a healthy run: a loss that falls and rests, with noise."""
    loss = 2.0 + 3.5 * 0.997**step + generator.gauss(0.0, 0.05)
    return {
        "loss": loss,
        "grad_norm": 1.0 + generator.random(),
        "lr": 3e-3,
        "phi": 0.7 + 0.01 * generator.random(),
        "phi_nats": 1.3,
        "kappa": 8.0 + generator.random(),
        "drift_rolling": 0.1,
        "drift_velocity": 0.01 + 0.002 * generator.random(),
        "breakdown_pct": 0.0,
        "gpu_mem_pct": 40.0,
        "recursion_depth": 4.0,
        "tokens_per_s": 51234.5,
        "step_ms": 20.1,
        "rss_bytes": 512e6,
    }


def percentile(ordered: list[int], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e3


def measure(folder: Path, steps: int, save: Save | None) -> tuple[list[int], list[int]]:
    """Nanoseconds of every check and of every floor write, sorted."""
    generator = random.Random(0)
    encoder = msgspec.json.Encoder()
    floor_fd = os.open(folder / "floor.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    checks: list[int] = []
    floors: list[int] = []
    clock = time.perf_counter_ns
    with IntegratedMonitor.open(folder, name="step_overhead", save=save) as monitor:
        for step in range(steps + WARM_UP):
            metrics = metrics_of(step, generator)
            began = clock()
            go_on = monitor.check(step, metrics)
            took = clock() - began
            assert go_on, monitor.reason
            if step >= WARM_UP:
                checks.append(took)
            if step >= WARM_UP and step % BLOCK == 0:
                for number in range(BLOCK):
                    began = clock()
                    os.write(floor_fd, encoder.encode(Sample(number, step, time.time(), None, {**metrics})) + b"\n")
                    floors.append(clock() - began)
    os.close(floor_fd)
    return sorted(checks), sorted(floors)


def main() -> int:
    parser = argparse.ArgumentParser(description="Overhead of IntegratedMonitor.check, in µs.")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--dir", type=Path, default=None, help="where to write; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        checks, floors = measure(Path(folder), given.steps, None)
        saving, _ = measure(Path(folder), given.steps, saver(dict))
    check, floor = statistics.median(checks) / 1e3, statistics.median(floors) / 1e3
    p99 = percentile(checks, 0.99)
    print(f"floor  encode + write(2)        median {floor:7.1f} µs   p99 {percentile(floors, 0.99):7.1f} µs")
    print(f"check  {given.steps} steps, 14 metrics  median {check:7.1f} µs   p99 {p99:7.1f} µs")
    print(
        f"check  the same with a saver    median {statistics.median(saving) / 1e3:7.1f} µs   "
        f"p99 {percentile(saving, 0.99):7.1f} µs"
    )
    print(f"ratio  {check / floor:.2f} x the floor; marks: median <= {MEDIAN_US:g} µs, p99 <= {P99_US:g} µs")
    return 0 if check <= MEDIAN_US and p99 <= P99_US else 1


if __name__ == "__main__":
    sys.exit(main())
