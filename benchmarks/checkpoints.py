"""Checkpoints beside the limits of the machine and beside other libraries, all in one run.

    python benchmarks/checkpoints.py [--quick] [--folder WHERE] [--only TEXT] [--write] [--readme]

The state: 50 million float32 parameters in the shapes of a GPT and their AdamW, 600 MB (--quick: 100 MB). Contestants
take turns, every second round in the opposite order, after a round that is not counted; each file is fsynced where its
row says so, deleted after its turn, and the disk is left to come to rest (sync) before the next. Wall clock. A ratio is
the median over the rounds of the ratio within a round: a disk that others use is slow for minutes, and then for both;
least times would compare moments that never met. The times beside it are medians.
What is a fixed number of milliseconds weighs six times as much in a quick run, whose marks are those of the whole one.
Exits 1 where a mark is missed.
"""

import argparse
import contextlib
import functools
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import blake3
import checkpoint_peers as peers
import racing
import torch
from racing import MISSED, OURS, Mark, Row, into_readme, machine, seconds_text, show, write
from rich.console import Console
from rich.table import Table
from safety import Marks, one_signal, signalled
from step_overhead import metrics_of

from qig_core.checkpoints import store
from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.manifest_file import encode_sealed
from qig_core.checkpoints.pruning import plan_prune
from qig_core.checkpoints.pytree import from_files, to_files
from qig_core.checkpoints.recovery import load
from qig_core.checkpoints.retention import Keep
from qig_core.checkpoints.saving import saver
from qig_core.checkpoints.staging import Stage
from qig_core.checkpoints.store import publish
from qig_core.checkpoints.verification import verify
from qig_core.rundir.layout import CHECKPOINT_MANIFEST, CHECKPOINT_TAGS, RunDir
from qig_core.rundir.mounts import mount_of
from qig_core.rundir.schema import CheckpointManifest, GitRevision
from qig_core.rundir.values import encode_basin
from qig_core.safety.saves import SaveRequest

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"
SHAPES = {
    False: {"width": 512, "layers": 12, "vocabulary": 22_784},
    True: {"width": 256, "layers": 8, "vocabulary": 6_848},
}
"""By --quick."""
ROOM = 10
"""Times the state that must be free."""
SESSION = "be" * 8
SCAN_S = 0.050
EMERGENCY_S = 25.0
SIGNALS = 40
AT_MOST_RAW, AT_LEAST_READ = Mark(limit=1.3, at_most=True), Mark(limit=0.8)
FLOOR = "write + fsync, one file"
UNHASHED = "ours, its hash patched out"
SHA256 = "ours, SHA-256 as well"
TORCH, SAFETENSORS, DCP = "torch.save + fsync", "safetensors + fsync", "dcp.save, its fsync"
MATMUL, PRODUCTS = 512, 4
QUIET_S = 0.5

Calls = dict[str, Callable[[], object]]
Spent = dict[str, list[float]]
"""Seconds of each round, by contestant."""
clock = time.perf_counter


class NoDigest:
    """In the place of the store's digest, for one row: what saving costs without hashing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def feed(self, buffer: object) -> None:
        pass

    def hexdigest(self) -> str:
        return "0" * 64

    def sha256(self) -> None:
        pass

    def __enter__(self) -> "NoDigest":
        return self

    def __exit__(self, *args: object) -> None:
        pass


FASTEST = "the fastest durable write of the round"
REST_S = 1.0
"""After a sync, until the disk has dealt with what was deleted: without it whoever writes next pays for that."""


@dataclass(kw_only=True)
class Bench:
    """What the groups share."""

    folder: Path
    quick: bool
    rounds: int
    seen: dict[str, Spent] = field(default_factory=dict)
    """The rounds of every race, by what was raced."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes that each contestant of a race moves, where that says something."""
    notes: list[str] = field(default_factory=list)

    @functools.cached_property
    def state(self) -> dict[str, Any]:
        return peers.transformer_state(**SHAPES[self.quick])

    @functools.cached_property
    def content(self) -> memoryview:
        """Every byte that we publish of the state, in memory."""
        whole = bytearray()
        for payload in to_files(self.state).values():
            for piece in (payload,) if isinstance(payload, bytes) else payload:
                whole += memoryview(piece).cast("B")
        return memoryview(whole)

    @property
    def size(self) -> str:
        return f"{len(self.content) / 1e6:.0f} MB"

    def race(
        self,
        what: str,
        calls: Calls,
        rounds: int | None = None,
        *,
        size: int = 0,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> Spent:
        """All of them in turns; `before` and `after` each call, beside the clock."""
        spent: Spent = {name: [] for name in calls}
        for number in range((rounds or self.rounds) + 1):
            for name in calls if number % 2 else reversed(calls):
                before()
                began = clock()
                calls[name]()
                took = clock() - began
                after()
                if number:
                    spent[name].append(took)
        self.seen[what], self.sizes[what] = spent, size
        return spent

    @contextlib.contextmanager
    def turns(self) -> Iterator[tuple[Path, Callable[[], None]]]:
        """A folder for what one call writes, and what makes it empty again when the disk has come to rest."""
        turn = self.folder / "turn"

        def renew() -> None:
            # The folder itself stays: a new one would lie elsewhere on the disk, on blocks that no turn has touched
            # yet, and on a virtual disk those take several times as long.
            for path in turn.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            os.sync()
            time.sleep(REST_S)

        turn.mkdir()
        yield turn, renew
        shutil.rmtree(turn)


def beside(
    kernel: str, size: str, ours: list[float], peer: str, theirs: list[float], mark: Mark | None = None, **how: bool
) -> Row:
    """One row; `limit=True` for a peer that is a limit, without a mark: the ratio is then ours / theirs."""
    upper = how.get("limit", False) if mark is None else mark.at_most
    ratio = statistics.median(a / b if upper else b / a for a, b in zip(ours, theirs, strict=True))
    return Row(
        kernel=kernel,
        size=size,
        peer=peer,
        ours_s=statistics.median(ours),
        peer_s=statistics.median(theirs),
        ratio=ratio,
        mark=None if mark is None else str(mark),
        verdict="no mark" if mark is None else "met" if mark.met(ratio) else MISSED,
    )


def within(kernel: str, size: str, seen_s: float, limit_s: float) -> Row:
    """A row of a mark that is a time."""
    verdict = "met" if seen_s <= limit_s else MISSED
    return Row(kernel=kernel, size=size, peer="–", ours_s=seen_s, mark=f"≤ {seconds_text(limit_s)}", verdict=verdict)


def published(run: RunDir, files: Any, step: int = 1, **more: Any) -> CheckpointManifest:
    run.path.mkdir(exist_ok=True)
    return publish(run, session=SESSION, step=step, reason="interval", files=files, **more)


def unhashed(run: RunDir, files: Any) -> None:
    with mock.patch.object(store, "StreamDigest", NoDigest):
        published(run, files)


def savers(bench: Bench, turn: Path) -> Calls:
    """Each writes the whole state below the folder of its turn."""
    tree, run, path = bench.state, RunDir(turn / "run"), turn / "file"
    return {
        FLOOR: lambda: peers.write_raw(path, bench.content),
        OURS: lambda: published(run, to_files(tree)),
        TORCH: lambda: peers.torch_save_durable(tree, path),
        SAFETENSORS: lambda: peers.safetensors_save_durable(tree, path),
        DCP: lambda: peers.dcp_save(tree, path),
    }


def save_rows(bench: Bench) -> Iterator[Row]:
    with bench.turns() as (turn, renew):
        run, tree, calls = RunDir(turn / "run"), bench.state, savers(bench, turn)
        # Ours and the floor next to each other, whichever way a round goes.
        calls = {
            UNHASHED: lambda: unhashed(run, to_files(tree)),
            FLOOR: calls.pop(FLOOR),
            OURS: calls.pop(OURS),
            **calls,
            "torch.save, no fsync": lambda: peers.torch_save(tree, turn / "file"),
            SHA256: lambda: published(run, to_files(tree), sha256=True),
        }
        spent = bench.race("save", calls, size=len(bench.content), after=renew)
    yield beside("save, blake3 of every byte", bench.size, spent[OURS], FLOOR, spent[FLOOR], AT_MOST_RAW)
    # Where the disk lets a plain write wait longer than somebody's file, that one is the floor.
    durable = (spent[name] for name in (FLOOR, TORCH, SAFETENSORS))
    fastest = [min(took) for took in zip(*durable, strict=True)]
    yield beside("save, blake3 of every byte", bench.size, spent[OURS], FASTEST, fastest, AT_MOST_RAW)
    for variant in (UNHASHED, SHA256):
        kernel = variant.replace("ours", "save")
        yield beside(kernel, bench.size, spent[variant], FLOOR, spent[FLOOR], limit=True)
    for peer, theirs in spent.items():
        if peer not in (FLOOR, OURS, UNHASHED, SHA256):
            yield beside("save, blake3 of every byte", bench.size, spent[OURS], peer, theirs)


def stage_rows(bench: Bench) -> Iterator[Row]:
    """What a step pays for a save in the background, and how fast it steps while that writes."""
    stage, tree, save = Stage(), bench.state, saver(lambda: bench.state)
    with bench.turns() as (turn, renew):
        dcp = peers.DcpStaging(tree, turn / "dcp")
        begun: list[Future[Any]] = []

        def begin() -> None:
            run = RunDir(turn / "run")
            run.path.mkdir()
            begun.append(save.begin(SaveRequest(run=run, session=SESSION, step=1, reason="interval")))

        def settle() -> None:
            while begun:
                begun.pop().result()
            dcp.settle()
            renew()

        floor, whole, theirs = "copy_ into a buffer", "saver.begin, all of it", "dcp.async_save, its stager kept"
        calls: Calls = {floor: peers.copying(tree), OURS: lambda: stage.take(tree), whole: begin, theirs: dcp}
        spent = bench.race("stage", calls, 2 * bench.rounds, size=len(bench.content), after=settle)
        dcp.close()
    kernel = "what a step pays for a save"
    yield beside(f"{kernel}: the copy", bench.size, spent[OURS], floor, spent[floor], AT_MOST_RAW)
    yield beside(f"{kernel}: all of it", bench.size, spent[whole], floor, spent[floor], limit=True)
    yield beside(f"{kernel}: all of it", bench.size, spent[whole], theirs, spent[theirs])
    yield from step_rows(bench)


def step_rows(bench: Bench) -> Iterator[Row]:
    """Steps of matrix products on all threads, alone and while a thread writes the state: wall seconds a step."""
    a = torch.randn(MATMUL, MATMUL)

    def step() -> float:
        began = clock()
        for _ in range(PRODUCTS):
            torch.mm(a, a)
        return clock() - began

    spent: Spent = {}
    with bench.turns() as (turn, renew):
        writers = savers(bench, turn)
        for number in range(bench.rounds + 1):
            for name, write_state in writers.items():
                quiet = [step()]
                while sum(quiet) < QUIET_S:
                    quiet.append(step())
                thread = threading.Thread(target=write_state)
                thread.start()
                meanwhile = [step()]
                while thread.is_alive():
                    meanwhile.append(step())
                thread.join()
                renew()
                if number:
                    spent.setdefault(f"beside nothing ({name})", []).append(statistics.fmean(quiet))
                    spent.setdefault(f"beside {name}", []).append(statistics.fmean(meanwhile))
    bench.seen["step"] = spent
    kernel, size = "a step while one is written", f"{PRODUCTS} products of {MATMUL}²"
    yield beside(kernel, size, spent[f"beside {OURS}"], "nothing", spent[f"beside nothing ({OURS})"], limit=True)
    for name in writers:
        if name != OURS:
            yield beside(kernel, size, spent[f"beside {OURS}"], name, spent[f"beside {name}"])


def verify_rows(bench: Bench) -> Iterator[Row]:
    run = RunDir(bench.folder / "verified")
    made = published(run, to_files(bench.state))
    name, files = made.name, [run.checkpoint(made.name) / file.path for file in made.files]
    buffer = bytearray(peers.READ_BUFFER)

    def ours() -> None:
        assert verify(run, name).status == "COMPLETE"

    reading, hashing = f"preadv into {peers.READ_BUFFER >> 20} MB", "blake3 from memory"
    calls: Calls = {
        reading: lambda: peers.read_raw(files, buffer),
        OURS: ours,
        hashing: lambda: blake3.blake3(bench.content),
    }
    assert calls[reading]() == len(bench.content)
    caches: dict[str, Callable[[], object]] = {"warm": lambda: None}
    peers.drop_from_cache(files)
    if any(map(peers.cached, files)):
        bench.notes.append("verify, cold cache: not measured, the kernel does not forget a file's pages here")
    else:
        caches["cold"] = lambda: peers.drop_from_cache(files)
    for cache, prepare in caches.items():
        spent = bench.race(f"verify, {cache} cache", calls, size=len(bench.content), before=prepare)
        slower = [max(both) for both in zip(spent[reading], spent[hashing], strict=True)]
        peer = "the slower of reading, hashing"
        yield beside(f"verify, {cache} cache", bench.size, spent[OURS], peer, slower, AT_LEAST_READ)
    yield from load_rows(bench, run, name)
    shutil.rmtree(run.path)


def load_rows(bench: Bench, run: RunDir, name: str) -> Iterator[Row]:
    torch_file, safetensors_file = bench.folder / "load.pt", bench.folder / "load.safetensors"
    peers.torch_save_durable(bench.state, torch_file)
    peers.safetensors_save_durable(bench.state, safetensors_file)
    unverified, theirs = "ours, not verified", ("torch.load, weights_only", "safetensors load_file, copied")
    calls: Calls = {
        OURS: lambda: load(run, name),
        unverified: lambda: from_files(run.checkpoint(name)),
        theirs[0]: lambda: peers.torch_load(torch_file),
        theirs[1]: lambda: peers.safetensors_load(safetensors_file),
    }
    spent = bench.race("load, warm cache", calls, size=len(bench.content))
    for peer in theirs:
        yield beside("load, every byte verified", bench.size, spent[OURS], peer, spent[peer])
        yield beside("load, not verified", bench.size, spent[unverified], peer, spent[peer])
    torch_file.unlink()
    safetensors_file.unlink()


def facts_of(step: int, generator: random.Random) -> dict[str, Any]:
    """A manifest as a long run fills it: twenty metrics, the basin, conditions, versions."""
    metrics = metrics_of(step, generator) | {f"further_{number}": generator.random() for number in range(6)}
    assert len(metrics) == 20
    return {
        "metrics": metrics,
        "basin": encode_basin(generator.randbytes(256)),
        "regime": "geometric",
        "conditions": {f"{name}_band": "ok" for name in list(metrics)[:14]},
        "seq": step,
        "data_position": {"epoch": 3, "batch": step, "seed": 7},
        "training_s": 0.2 * step,
        "config_digest": generator.randbytes(32).hex(),
        "corpus_digest": generator.randbytes(32).hex(),
        "versions": racing.machine()["versions"],
        "git": GitRevision(revision=generator.randbytes(20).hex(), dirty=False),
    }


def scan_rows(bench: Bench) -> Iterator[Row]:
    run, generator = RunDir(bench.folder / "scanned"), random.Random(0)
    files = {"model.safetensors": bytes(256), "state.json": b"{}"}
    facts = facts_of(1000, generator)
    for step in range(100):
        metrics = metrics_of(step, generator) | {f"further_{number}": generator.random() for number in range(6)}
        published(run, files, step, tags=["pinned"] if step % 10 == 0 else ["good"], **(facts | {"metrics": metrics}))

    def ours() -> list[Any]:
        found = list_checkpoints(run)
        assert len(found) == count
        return found

    def floor() -> None:
        for folder in run.checkpoints.iterdir():
            for name in (CHECKPOINT_MANIFEST, CHECKPOINT_TAGS):
                (folder / name).read_bytes()

    for count in (100, 1000):
        if count == 1000:
            multiply(run, count)
        spent = bench.race(f"scan {count}", {"reading those files": floor, OURS: ours}, 15)
        if count == 100:
            yield within("scan", f"{count} checkpoints", statistics.median(spent[OURS]), SCAN_S)
        floor_s = spent["reading those files"]
        yield beside("scan", f"{count} checkpoints", spent[OURS], "reading those files", floor_s, limit=True)
        keep = Keep(newest=5, best=3, score="loss")
        calls: Calls = {"the scan in it": ours, OURS: functools.partial(plan_prune, run, keep)}
        spent = bench.race(f"plan a prune of {count}", calls, 15)
        scan_s = spent["the scan in it"]
        yield beside("plan a prune", f"{count} checkpoints", spent[OURS], "the scan in it", scan_s, limit=True)
    yield from tiny_rows(bench, run, "among 1000")
    shutil.rmtree(run.path)


def multiply(run: RunDir, count: int) -> None:
    """Up to `count` of them, by copies with a step, a time and a seal of their own: publishing takes minutes."""
    originals = [one for one in list_checkpoints(run) if one.manifest]
    for step in range(len(originals), count):
        original = originals[step % len(originals)]
        name = f"step-{step:08d}-{step:06x}"
        shutil.copytree(original.path, run.checkpoint(name))
        assert original.manifest is not None
        original.manifest.name, original.manifest.step, original.manifest.t = name, step, original.manifest.t + step
        run.checkpoint_manifest(name).write_bytes(encode_sealed(original.manifest))
    os.sync()


def tiny_rows(bench: Bench, run: RunDir | None = None, where: str = "beside one other") -> Iterator[Row]:
    content = os.urandom(1024)
    with bench.turns() as (turn, _):
        run = run or RunDir(turn / "run")
        published(run, {"state.json": content})  # the first one of a run has its folder to make durable as well
        calls: Calls = {
            "fsync, rename, fsync": lambda: peers.replace_raw(turn / "small", content),
            OURS: lambda: made.append(published(run, {"state.json": content}).name),
        }
        made: list[str] = []

        def forget() -> None:
            while made:
                shutil.rmtree(run.checkpoint(made.pop()))

        spent = bench.race(f"1 KB {where}", calls, 10 * bench.rounds, after=forget)
        with mock.patch("os.fsync", wraps=os.fsync) as counted:
            calls[OURS]()
        bench.notes.append(f"publishing one file {where} makes {counted.call_count} fsyncs; its floor makes 2")
        forget()
    floor, ours = calls
    yield beside("publish", f"1 KB, {where}", spent[ours], floor, spent[floor], limit=True)


def abort_rows(bench: Bench) -> Iterator[Row]:
    class Kept(Marks):
        def judge(self, what: str, seen: float, limit: float, unit: str) -> None:
            super().judge(what, seen, limit, unit)
            judged.append((seen, limit))

    judged: list[tuple[float, float]] = []
    signals = SIGNALS // 4 if bench.quick else SIGNALS
    took: list[float] = []
    with bench.turns() as (turn, renew):
        signalled(Kept(), turn, signals)
        ((seen_ms, limit_ms),) = judged
        yield within("abort: step's end to save", f"median of {signals}", seen_ms / 1e3, limit_ms / 1e3)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                for _ in range(1 if bench.quick else 3):
                    renew()
                    took.append(pool.submit(emergency, turn, bench.quick).result())
        except BrokenProcessPool:
            bench.notes.append("abort: the process ended before its checkpoint was there: the watchdog's deadline")
            took.append(math.inf)
    bench.seen["emergency"] = {"SIGTERM to published": took}
    yield within("abort: signal to published", f"{bench.size}, worst of {len(took)}", max(took), EMERGENCY_S)


@functools.cache
def _state(quick: bool) -> dict[str, Any]:
    return peers.transformer_state(**SHAPES[quick])


def emergency(folder: Path, quick: bool) -> float:
    """Seconds from a SIGTERM to the published checkpoint, in a process of its own: its deadline may end it."""
    state = _state(quick)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return one_signal(folder, random.Random(), lambda: state).published_s


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "save": save_rows,
    "stage": stage_rows,
    "verify": verify_rows,
    "scan": scan_rows,
    "tiny": tiny_rows,
    "abort": abort_rows,
}


def show_rounds(bench: Bench, console: Console) -> None:
    """Every race with its spread: what a ratio hides."""
    table = Table("race", "contestant", "median", "least", "most", "MB/s", "rounds")
    for what, spent in bench.seen.items():
        for name, each in spent.items():
            middle = statistics.median(each)
            rate = f"{bench.sizes[what] / middle / 1e6:.0f}" if bench.sizes.get(what) else "–"
            ends = map(seconds_text, (middle, min(each), max(each)))
            shown = " ".join(f"{seconds:.3g}" for seconds in each) if len(each) <= 9 else str(len(each))
            table.add_row(what, name, *ends, rate, shown)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 MB and two rounds, a minute")
    parser.add_argument("--folder", type=Path, default=Path(), help="on which disk; default: the working directory's")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help=f"groups whose name contains it: {', '.join(GROUPS)}"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"keep a whole run in {RESULTS.parent.name}/{RESULTS.name}"
    )
    parser.add_argument("--readme", action="store_true", help="measure nothing: put the last whole run into README.md")
    given = parser.parse_args()
    if given.readme:
        into_readme("checkpoints", RESULTS)
        return 0
    if given.write and (given.quick or given.only):
        parser.error("--write keeps whole runs only: leave out --quick and --only")
    needed = ROOM * (100_000_000 if given.quick else 600_000_000)
    if why := peers.refusal(given.folder, needed):
        parser.error(why)
    torch.set_num_threads(os.cpu_count() or 1)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    facts = machine() | {
        "file_system": mount.kind if (mount := mount_of(given.folder)) else "unknown",
        "torch_threads": torch.get_num_threads(),
        "quick": given.quick,
    }
    facts["versions"] |= {name: metadata.version(name) for name in ("blake3", "msgspec", "safetensors")}
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    rows: list[Row] = []
    began = clock()
    with tempfile.TemporaryDirectory(prefix=".checkpoints-", dir=given.folder) as folder:
        bench = Bench(folder=Path(folder), quick=given.quick, rounds=2 if given.quick else 5)
        for name, group in GROUPS.items():
            if given.only in name:
                print(f"{clock() - began:6.1f} s  {name}", file=sys.stderr)
                rows += group(bench)
    show_rounds(bench, console)
    show(rows, console)
    for note in bench.notes:
        console.print(note, highlight=False)
    facts |= {"load_after": round(os.getloadavg()[0], 2), "took_s": round(clock() - began, 1)}
    console.print(f"{facts['took_s']} s; load {facts['load_before']} before, {facts['load_after']} after")
    if given.write:
        write(RESULTS, facts | {"rounds": bench.seen, "notes": bench.notes}, rows)
        console.print(f"written: {RESULTS}")
    return int(any(row.verdict == MISSED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
