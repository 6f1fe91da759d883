"""What it costs to be guarded: judging, the whole check, the way from a signal to the save, the mailbox.

    python benchmarks/safety.py [--steps N] [--signals N] [--dir FOLDER]

Judged: every condition of the default profile, 14 metrics at each step, phi, kappa and drift among them; the check and
its floor: as step_overhead.py measures them. Signal: a loop of 20 ms steps whose windows are full gets a SIGTERM from
another thread at a random moment; from then to the first line of the save function, less what the step had left to do.
Mailbox: what a step pays for one that is empty, and, beside it, what the listening thread does once a second. Figures
of this machine, now. Exits 1 where a mark is missed; of the signals the median is what is judged, and one that met a
slow disk or another program's turn is counted.
"""

import argparse
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step_overhead import MEDIAN_US, P99_US, WARM_UP, measure, metrics_of, percentile

from qig_core.checkpoints.saving import saver
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.writer import RunWriter
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.saves import SaveRequest

JUDGED_US = 10.0
SIGNAL_MS = 1.0
"""Beyond the end of the step in which it came."""
MAILBOX_US = 3.0
STEP_S = 0.020
FEWEST_SIGNALS = 20
_FILL = 400
"""Steps without a pause after which every window is full."""

clock = time.perf_counter


class Marks:
    """Prints each figure beside its mark, and remembers whether one was missed."""

    def __init__(self) -> None:
        self.missed = False

    def judge(self, what: str, seen: float, limit: float, unit: str) -> None:
        met = seen <= limit
        self.missed |= not met
        print(f"  {what:38} {seen:9.3f} {unit}   {'met' if met else 'MISSED'} (<= {limit:g} {unit})")

    def tell(self, what: str, seen: float, unit: str) -> None:
        print(f"  {what:38} {seen:9.3f} {unit}")


def judged(marks: Marks, steps: int) -> None:
    generator = random.Random(0)
    monitor = SafetyMonitor()
    spent: list[int] = []
    for step in range(steps + WARM_UP):
        metrics = metrics_of(step, generator)
        began = time.perf_counter_ns()
        monitor.judge(step, metrics)
        spent.append(time.perf_counter_ns() - began)
    assert set(monitor.states().values()) == {"ok"}, monitor.states()
    spent = sorted(spent[WARM_UP:])
    print(f"judge all {len(monitor.states())} conditions, {len(metrics)} metrics a step, {steps} steps")
    marks.judge("median", statistics.median(spent) / 1e3, JUDGED_US, "µs")
    marks.tell("mean, windows renewed now and then", statistics.mean(spent) / 1e3, "µs")
    marks.tell("p99", percentile(spent, 0.99), "µs")


def checked(marks: Marks, folder: Path, steps: int) -> None:
    checks, floors = measure(folder, steps, None)
    check, floor = statistics.median(checks) / 1e3, statistics.median(floors) / 1e3
    print(f"check: record, judge, flag and mailbox, {steps} steps, a block of the floor's writes every 500")
    marks.judge("median", check, MEDIAN_US, "µs")
    marks.judge("p99", percentile(checks, 0.99), P99_US, "µs")
    marks.tell("floor, encode + write(2), median", floor, "µs")
    marks.tell("check / floor", check / floor, "times")


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Seconds after a SIGTERM."""

    began_s: float
    """... the save began,"""
    beyond_s: float
    """of it those beyond the end of the step in which it came."""
    published_s: float
    """... the checkpoint was there."""


def one_signal(folder: Path, generator: random.Random, state: Callable[[], Mapping[str, Any]] = dict) -> Stopped:
    """A run of such a state that is stopped by SIGTERM."""
    sent: list[float] = []
    entered: list[float] = []
    left: list[float] = []
    publish = saver(state)

    def save(request: SaveRequest) -> CheckpointManifest:
        entered.append(clock())
        made = publish(request)
        left.append(clock())
        return made

    def send() -> None:
        time.sleep(pause)
        sent.append(clock())
        os.kill(os.getpid(), signal.SIGTERM)

    pause = STEP_S * (1.0 + 2.0 * generator.random())
    sender = threading.Thread(target=send)
    with IntegratedMonitor.open(folder, name="safety", save=save) as monitor:
        for step in range(_FILL):
            monitor.check(step, metrics_of(step, generator))
        sender.start()
        go_on, step = True, _FILL
        while go_on:
            time.sleep(STEP_S)
            metrics = metrics_of(step, generator)
            boundary = clock()
            go_on = monitor.check(step, metrics)
            step += 1
    sender.join()
    assert monitor.exit_code == 128 + signal.SIGTERM, monitor.reason
    return Stopped(
        began_s=entered[0] - sent[0],
        beyond_s=entered[0] - max(sent[0], boundary),
        published_s=left[0] - sent[0],
    )


def signalled(marks: Marks, folder: Path, times: int) -> None:
    generator = random.Random(1)
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w")  # each run says on it why it stopped
    try:
        seen = [one_signal(folder, generator) for _ in range(times)]
    finally:
        sys.stderr.close()
        sys.stderr = stderr
    whole, beyond = [1e3 * each.began_s for each in seen], [1e3 * each.beyond_s for each in seen]
    print(f"signal to the first line of the save, {times} runs of {1e3 * STEP_S:g} ms steps")
    marks.judge("beyond the end of the step, median", statistics.median(beyond), SIGNAL_MS, "ms")
    marks.tell("beyond the end of the step, worst", max(beyond), "ms")
    marks.tell("beyond the mark", sum(each > SIGNAL_MS for each in beyond), f"of {times} runs")
    marks.tell("from the signal on, worst", max(whole), "ms")
    marks.tell("from the signal on, median", statistics.median(whole), "ms")


def mailbox(marks: Marks, folder: Path) -> None:
    calls = 200_000
    with RunWriter.create(folder) as writer:
        asked = min(timeit.repeat("writer.mailbox.pending and print()", globals={"writer": writer}, number=calls))
        nothing = min(timeit.repeat("pass", number=calls))
        polls: list[int] = []
        for _ in range(2000):
            began = time.perf_counter_ns()
            writer.mailbox.poll(0)
            polls.append(time.perf_counter_ns() - began)
    print("an empty mailbox")
    marks.judge("what a step pays: reading an attribute", 1e6 * (asked - nothing) / calls, MAILBOX_US, "µs")
    marks.tell("a poll, once a second, another thread", statistics.median(polls) / 1e3, "µs")
    marks.tell("its p99", percentile(sorted(polls), 0.99), "µs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--signals", type=int, default=40, help=f"at least {FEWEST_SIGNALS}")
    parser.add_argument("--dir", type=Path, default=None, help="where to write; default: a temporary folder")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, load {load:.1f} on {os.cpu_count()} cores")
    marks = Marks()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        judged(marks, given.steps)
        checked(marks, Path(folder), given.steps)
        signalled(marks, Path(folder), max(given.signals, FEWEST_SIGNALS))
        mailbox(marks, Path(folder))
    return int(marks.missed)


if __name__ == "__main__":
    sys.exit(main())
