"""What a record costs the loop, and what 200 000 of them cost a reader. Prints figures of this machine, now.

    python benchmarks/telemetry.py [--folder WHERE] [--samples 200000]

Logging: medians of calls that alternate with their peers in one process, so that all of them see the same noise; the
cost of timing an empty call is taken off. The floor is what no record that survives kill -9 can avoid: build the
sample, encode it, write(2) the same bytes. Reading: CPU seconds from the bytes on the disk to columns of numbers.
"""

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from qig_core.rundir.reader import Tail
from qig_core.rundir.schema import Sample, Scalars, Unreadable
from qig_core.rundir.values import encode_basin
from qig_core.rundir.writer import TelemetryCollector

METRICS = (
    "loss phi phi_nats kappa drift_birth drift_rolling drift_velocity recursion_depth breakdown_pct grad_norm lr "
    "step_ms"
).split()
ROUNDS, CALLS = 200, 100


def metrics_of(step: int) -> dict[str, float | None]:
    return {name: 1.0 + math.sin(step * 0.01 + i) for i, name in enumerate(METRICS)}


def median_us(calls: dict[str, Callable[[], object]], after_round: Callable[[], None]) -> dict[str, float]:
    """Median microseconds of each call, taken in turns."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    clock = time.perf_counter_ns
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            for _ in range(CALLS):
                began = clock()
                call()
                spent[name].append(clock() - began)
        after_round()
    return {name: statistics.median(each) / 1e3 for name, each in spent.items()}


def mark(seen: float, limit: float) -> str:
    return f"{'met' if seen <= limit else 'MISSED'} (<= {limit:g})"


def logging(folder: Path) -> None:
    metrics = metrics_of(7)
    through = TelemetryCollector(folder / "through.jsonl", "ab" * 8)
    handed = TelemetryCollector(folder / "handed.jsonl", "ab" * 8, buffered=True)
    plain, floor = (os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("json", "floor"))
    encode, now = msgspec.json.Encoder().encode, time.time

    def write_floor() -> None:
        os.write(floor, encode(Sample(7, 7, now(), None, metrics, None, "geometric")) + b"\n")

    def write_json() -> None:
        record = {"seq": 7, "step": 7, "t": now(), "m": metrics, "regime": "geometric"}
        os.write(plain, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    calls: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "floor": write_floor,
        "log": lambda: through.log(7, metrics, regime="geometric"),
        "handed": lambda: handed.log(7, metrics, regime="geometric"),
        "json": write_json,
    }
    seen = median_us(calls, after_round=handed.flush)
    seen = {name: each - seen["nothing"] for name, each in seen.items()}
    print(f"log one record of {len(metrics)} metrics, µs, median of {ROUNDS * CALLS} calls")
    print(f"  floor: build + encode + write(2)   {seen['floor']:6.2f}")
    ratio = seen["log"] / seen["floor"]
    print(f"  log, written through               {seen['log']:6.2f}  {mark(seen['log'], 6.0)}")
    print(f"  ... times the floor                {ratio:6.2f}  {mark(ratio, 2.0)}")
    print(f"  log, handed off (buffered)         {seen['handed']:6.2f}  {mark(seen['handed'], 1.0)}")
    print(f"  stdlib json + write(2)             {seen['json']:6.2f}  {seen['json'] / seen['floor']:.1f}x the floor")
    through.close()
    handed.close()
    os.close(plain)
    os.close(floor)


Columns = dict[str, tuple[list[int], list[float]]]


def columns_by_tail(path: Path) -> Columns:
    """As the dashboard does it: poll until nothing more comes, scalars only."""
    columns: Columns = {}
    tail = Tail(path, Scalars)
    more = True
    while more:
        batch = tail.poll()
        more = batch.more
        for record in batch.records:
            if isinstance(record, Unreadable):
                continue
            seq = record.seq
            for name, value in record.m.items():
                if value is not None:
                    found = columns.get(name)
                    if found is None:
                        found = columns[name] = ([], [])
                    found[0].append(seq)
                    found[1].append(value)
    tail.close()
    return columns


def columns_by_json(path: Path) -> Columns:
    columns: Columns = {}
    with open(path, "rb") as file:
        for line in file:
            record = json.loads(line)
            for name, value in record["m"].items():
                if value is not None:
                    seqs, values = columns.setdefault(name, ([], []))
                    seqs.append(record["seq"])
                    values.append(value)
    return columns


def decode_only(path: Path) -> int:
    count = 0
    tail = Tail(path, Scalars)
    more = True
    while more:
        batch = tail.poll()
        more, count = batch.more, count + len(batch.records)
    tail.close()
    return count


def cpu_s(call: Callable[[], object], times: int = 3) -> float:
    spent = []
    for _ in range(times):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)


def reading(folder: Path, count: int) -> None:
    path = folder / "telemetry.jsonl"
    encode = msgspec.json.Encoder().encode
    basin = encode_basin(os.urandom(256))
    with open(path, "wb") as file:
        for step in range(count):
            file.write(encode(Sample(step, step, 1.7e9 + step, None, metrics_of(step), basin, "geometric")) + b"\n")
    mine = columns_by_tail(path)
    assert mine == columns_by_json(path)
    print(f"read {count} samples with basins, {path.stat().st_size / 1e6:.0f} MB, CPU seconds, best of 3")
    seen = cpu_s(lambda: columns_by_tail(path))
    scale = count / 200_000
    print(f"  scalars into {len(mine)} columns         {seen:6.2f}  {mark(seen / scale, 1.5)} a 200 000")
    print(f"  ... decoding alone               {cpu_s(lambda: decode_only(path)):6.2f}")
    print(f"  stdlib json into columns         {cpu_s(lambda: columns_by_json(path), 1):6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--samples", type=int, default=200_000)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, msgspec {msgspec.__version__}, load {load:.1f} on {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        logging(Path(folder))
        reading(Path(folder), options.samples)


if __name__ == "__main__":
    main()
