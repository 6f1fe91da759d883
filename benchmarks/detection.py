"""Whether a healthy run raises no alarm and an injected fault always does: measured, through the real components.

    python benchmarks/detection.py [--only healthy|faults] [--seeds N] [--first-seed N] [--full] [--profile NAME]
                                   [--keep DIR] [--write] [--readme]

Two subjects (subjects.py): our kernel, preset `tiny`, in its own loop, and a byte language model around
nn.TransformerEncoder in a loop of its own, each with a monitor, checkpoints and a run directory. All that is said here
is read from the events of those directories.

Healthy: ten seeds of 2000 steps. An alarm is a condition that begins to warn or becomes critical, or an alert. Faults
(faults.py): three of these seeds go on from their checkpoint at step 1000, the monitor's state included, to step 1600;
the fault begins at step 1100. 0 steps to an alarm is the step of the injection itself, judged before its update. What
the healthy run of that seed says at the same step is no detection. `--full`: 20 seeds of 5000 steps, 10 of each fault.

Two processes of one thread each; the runs whose loader hangs wait beside them. Exits 1 where a mark is missed or a run
crashed: no critical alarm and at most one warning in 5000 steps of healthy runs, every injected fault detected.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qig_core.training.process import settle

settle()

from alarms import History, history_of  # noqa: E402  # settle() speaks to libraries that are loaded here
from faults import FAULTS, HungLoader, Job  # noqa: E402
from outcomes import (  # noqa: E402
    Ended,
    faulty_row,
    faulty_summary,
    healthy_row,
    healthy_summary,
    markdown,
    remarks,
)
from racing import MISSED, machine  # noqa: E402
from subjects import SUBJECTS, work  # noqa: E402

from qig_core.errors import QigError  # noqa: E402
from qig_core.rundir.reader import read_document, read_manifest  # noqa: E402
from qig_core.rundir.schema import Heartbeat  # noqa: E402
from qig_core.safety.profile import load_profile  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "detection.json"
README = ROOT / "README.md"

FORK_AT, INJECT_AT, STOP_AT = 1000, 1100, 1600
WORKERS, WAITING = 2, 8
TIMEOUT_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    seeds: int
    steps: int
    fault_seeds: int


DEFAULT, FULL = Size(seeds=10, steps=2000, fault_seeds=3), Size(seeds=20, steps=5000, fault_seeds=10)


class Progress:
    """A line on stderr for every run that ended."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began, self._lock = total, 0, time.monotonic(), threading.Lock()

    def tell(self, ended: Ended) -> None:
        alarms = ended.history.after or ended.history.before
        said = "; ".join(f"{each.id} {each.severity} at {each.step}" for each in alarms[:3]) or "no alarm"
        with self._lock:
            self._done += 1
            where = f"{time.monotonic() - self._began:7.1f} s  {self._done:3}/{self._total}"
            text = f"CRASHED: {ended.crash.splitlines()[-1]}" if ended.crash else f"exit code {ended.exit_code}; {said}"
            print(f"{where}  {ended.job.run_id}: {text}", file=sys.stderr, flush=True)


def run_job(job: Job, progress: Progress, parent: "Future[Ended] | None" = None) -> Ended:
    """A job in a process of its own, after its parent; whatever becomes of it is a value."""
    if parent is not None and (crash := parent.result().crash):
        ended = Ended(job=job, history=History(), crash=f"no parent: {crash}")
    else:
        ended = _run(job)
    progress.tell(ended)
    return ended


def _run(job: Job) -> Ended:
    command = [sys.executable, __file__, "--job", json.dumps(job.data())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        crash = "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}"
    except subprocess.TimeoutExpired:
        crash = f"not ended after {TIMEOUT_S:g} s"
    try:
        manifest = read_manifest(job.run)
        beat = read_document(job.run.heartbeat, Heartbeat)
        return Ended(
            job=job,
            history=history_of(job.run),
            steps=beat.step or 0,
            exit_code=manifest.exit_code,
            reason=manifest.reason,
            crash=crash,
        )
    except QigError as error:
        return Ended(job=job, history=History(), crash=crash or str(error))


def hangs(job: Job) -> bool:
    """It waits and does not compute, so that it may run beside the others."""
    return FAULTS.get(job.fault) is HungLoader


def run_all(healthy: Sequence[Job], faulty: Sequence[Job]) -> tuple[list[Ended], list[Ended]]:
    """Every job, the healthy ones first: the others go on from them. Results in the order of the jobs."""
    progress = Progress(len(healthy) + len(faulty))
    with ThreadPoolExecutor(WORKERS) as workers, ThreadPoolExecutor(WAITING) as waiting:
        parents = {str(job.run.path): workers.submit(run_job, job, progress) for job in healthy}
        # A worker that waits for a parent waits for the other worker: parents were handed out before.
        others = [
            (waiting if hangs(job) else workers).submit(run_job, job, progress, parents[job.parent]) for job in faulty
        ]
        try:
            return [each.result() for each in parents.values()], [each.result() for each in others]
        except BaseException:  # Ctrl-C: the runs heard it too, those that did not begin never shall
            for each in (*parents.values(), *others):
                each.cancel()
            raise


def jobs_of(size: Size, first_seed: int, folder: Path, profile: str, only: str) -> tuple[list[Job], list[Job]]:
    """Healthy and faulty ones. The seeds that faults begin from come first: their hung loaders are waited for."""
    seeds = range(first_seed, first_seed + size.seeds)
    forked = seeds[: 0 if only == "healthy" else size.fault_seeds]
    healthy = [
        Job(
            subject=subject,
            seed=seed,
            folder=str(folder / "healthy"),
            steps=STOP_AT if only == "faults" else size.steps,
            profile=profile,
            checkpoint_every=FORK_AT,
        )
        for seed in (forked if only == "faults" else seeds)
        for subject in SUBJECTS
    ]
    faulty = [
        Job(
            subject=parent.subject,
            seed=parent.seed,
            folder=str(folder / "faults"),
            steps=STOP_AT,
            profile=profile,
            fault=fault,
            parent=str(parent.run.path),
            parent_step=FORK_AT,
            inject_at=INJECT_AT,
        )
        for parent in healthy
        if parent.seed in forked
        for fault in FAULTS
    ]
    return healthy, faulty


def into_readme() -> None:
    """Replace the tables between README.md's markers by those of the last run that was written."""
    before, rest = README.read_text(encoding="utf-8").split("<!-- detection -->")
    tables = markdown(json.loads(RESULTS.read_text(encoding="utf-8")))
    after = rest.split("<!-- /detection -->")[1]
    README.write_text(f"{before}<!-- detection -->\n{tables}<!-- /detection -->{after}", encoding="utf-8")


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All runs under `folder`, and everything that is to be said of them."""
    size = FULL if given.full else DEFAULT
    seeds = given.seeds or size.seeds
    size = Size(seeds=seeds, steps=size.steps, fault_seeds=min(seeds, size.fault_seeds))
    facts, began = machine(), time.perf_counter()
    ended, broken = run_all(*jobs_of(size, given.first_seed, folder, given.profile, given.only))
    twins = {str(each.job.run.path): each for each in ended}
    healthy = [] if given.only == "faults" else [healthy_row(each) for each in ended]
    faulty = [faulty_row(each, twins[each.job.parent]) for each in broken]
    return facts | {
        "load_after": round(os.getloadavg()[0], 2),
        "took_s": round(time.perf_counter() - began, 1),
        "profile": given.profile,
        "steps": {"healthy": size.steps, "fork_at": FORK_AT, "inject_at": INJECT_AT, "stop_at": STOP_AT},
        "healthy": healthy_summary(healthy),
        "faults": faulty_summary(faulty),
        "remarks": remarks(healthy, faulty),
        "healthy_runs": [asdict(row) for row in healthy],
        "faulty_runs": [asdict(row) for row in faulty],
    }


def report(facts: dict[str, Any]) -> int:
    print(markdown(facts))
    for remark in facts["remarks"]:
        print(f"- {remark}")
    print(f"{facts['took_s']} s; load {facts['load_before']} before, {facts['load_after']} after")
    crashed = any(row["crash"] for row in (*facts["healthy_runs"], *facts["faulty_runs"]))
    return int(crashed or any(row["verdict"] == MISSED for row in (*facts["healthy"], *facts["faults"])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("healthy", "faults"), default="")
    parser.add_argument("--seeds", type=int, metavar="N", help="healthy seeds; faults take the first of them")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N")
    parser.add_argument("--full", action="store_true", help="20 healthy seeds of 5000 steps, 10 of each fault")
    parser.add_argument("--profile", default="default", help="default, off, or the path of a TOML file")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the run directories stay; absent or empty")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--readme", action="store_true", help="measure nothing: put the last results into README.md")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        work(Job(**json.loads(given.job)))
        return 0
    if given.readme:
        into_readme()
        return 0
    if given.seeds is not None and given.seeds < 1:
        parser.error("--seeds must be at least 1")
    try:
        load_profile(given.profile)
    except QigError as error:
        parser.error(str(error))
    if given.write and given.only:
        parser.error("--write takes a whole run: both tables go into one file")
    if given.keep is not None and given.keep.is_dir() and any(given.keep.iterdir()):
        parser.error(f"{str(given.keep)!r} is not empty")
    with tempfile.TemporaryDirectory() as temporary:
        facts = measure(given, Path(given.keep or temporary).absolute())
    if given.write:
        RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report(facts)


if __name__ == "__main__":
    sys.exit(main())
