"""The dashboard beside its marks: the real program in a real pseudo-terminal, two chart widgets on the same numbers.

    python benchmarks/dashboard.py [--quick] [--folder WHERE] [--only TEXT] [--write] [--readme]

160 columns by 48 rows unless a row says otherwise. Times are wall clock, from a key or a process start to the arrival
of the bytes that show it; CPU is that of the program's process, all threads, by the kernel; bytes are counted at the
terminal's end of the line, which answers that it can hold a frame back. Exits 1 where a mark is missed.
"""

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from dashboard_runs import BASIN_EVERY, CHARTED, METRICS, NAME, Feed, figures, fill, open_run, samples
from racing import MISSED, machine
from rich.console import Console
from rich.table import Table
from terminal import Terminal, Timeout, clock

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Scalars
from qig_core.rundir.writer import RunWriter

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "dashboard.json"
PROGRAM = str(Path(sys.executable).with_name("qig-tui"))
PEERS = ("textual-plot", "textual-plotext")
SAMPLES = 242_000
"""With twelve metrics and a basin in each, 190 MB."""
POINTS = 100_000
LIVE_POINTS = 20_000
SSH = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
POLLING = """
import sys
import qig_tui.sources.local as local
assert local.is_network
local.is_network = lambda path: True
from qig_tui.cli import main
sys.exit(main())
"""
"""The program where no notification can be had: one question of it is answered as on NFS."""
SIZES = ((160, 48), (80, 24), (40, 12))
DRAWN = ("●", "○", "■", "✖", "◐", "◑", "‖", "qig-tui: ", "Traceback")
"""One of these is on every screen that shows a run, or says why it does not."""
_READING = "reading earlier"
_HELP = "─ Keys ─"
_HEADING = re.compile(rf"(?:^|[ │┌├┬┼])({'|'.join(CHARTED)}) -?[0-9][0-9.e ]*[^─→↑↓\n]{{0,8}} [→↑↓]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure beside its mark."""

    what: str
    seen: float | None
    unit: str
    limit: float | None = None
    """At most; none: no mark, a fact beside one."""
    spread: tuple[float, float] | None = None
    """Least and most."""
    peers: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.seen is None:
            return "not measured"
        if self.limit is None:
            return "no mark"
        return "met" if self.seen <= self.limit else MISSED


@dataclass(kw_only=True)
class Bench:
    """What the groups share."""

    folder: Path
    quick: bool
    charts_seen: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def window_s(self) -> float:
        return 5.0 if self.quick else 30.0

    @functools.cached_property
    def large(self) -> Path:
        """An ended run of SAMPLES samples, in the page cache."""
        writer = open_run(self.folder, "large")
        fill(writer, SAMPLES, basin_every=1)
        writer.close(0)
        self.notes.append(f"{SAMPLES} samples: {writer.run.telemetry().stat().st_size / 1e6:.0f} MB")
        return writer.run.path

    @contextlib.contextmanager
    def live(self, run_id: str, points: int = LIVE_POINTS) -> Iterator[RunWriter]:
        writer = open_run(self.folder, run_id)
        fill(writer, points)
        try:
            yield writer
        finally:
            writer.close(0)


def program(path: Path, *, words: Sequence[str] = (PROGRAM,), env: Mapping[str, str] = {}, **how: Any) -> Terminal:
    """It remembers nothing that another one chose, and nothing of the user's."""
    state = path.parent / ".states" / f"{time.monotonic_ns()}.json"
    return Terminal([*words, str(path)], env={"QIG_DASHBOARD_STATE": str(state), **env}, **how)


def grouped(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def charts_on(text: str) -> list[str]:
    """The charts in sight, by the names in their headings."""
    return _HEADING.findall(text)


def is_drawn(newest: int) -> Callable[[str], bool]:
    """Name, a chart and the newest step."""
    return lambda text: NAME in text and grouped(newest) in text and bool(charts_on(text))


def all_read(count: int) -> Callable[[str], bool]:
    return lambda text: f"{grouped(count)} read" in text and _READING not in text


def want_six(bench: Bench, terminal: Terminal) -> None:
    """The layout of six charts, by its key; as many as there are where there is none."""
    for _ in range(6):
        if len(charts_on(terminal.text)) >= len(CHARTED):
            break
        terminal.send("g")
        time.sleep(0.4)
    bench.charts_seen = len(charts_on(terminal.text))


def row(what: str, seen: Sequence[float], unit: str, limit: float | None = None, **more: Any) -> Row:
    """The median, with the least and the most."""
    return Row(what=what, seen=statistics.median(seen), unit=unit, limit=limit, spread=(min(seen), max(seen)), **more)


def start_rows(bench: Bench) -> Iterator[Row]:
    times = 3 if bench.quick else 10
    for what, words in (("--help", ["--help"]), ("a wrong path", [str(bench.folder / "nowhere")])):
        took = []
        for _ in range(times):
            began = clock()
            subprocess.run([PROGRAM, *words], capture_output=True, check=False)
            took.append(1e3 * (clock() - began))
        yield row(f"start: {what}", took, "ms", 150.0)


def first_rows(bench: Bench) -> Iterator[Row]:
    path, newest = bench.large, SAMPLES - 1
    # Everything that a start imports, and the run, are in the page cache.
    with program(path) as terminal:
        terminal.wait(is_drawn(newest))
    first, whole, cpu, memory = [], [], [], []
    for _ in range(2 if bench.quick else 5):
        with program(path) as terminal:
            first.append(terminal.wait(is_drawn(newest)) - terminal.started)
            cpu.append(terminal.cpu_s())
            whole.append(terminal.wait(all_read(SAMPLES), 60) - terminal.started)
            want_six(bench, terminal)
            time.sleep(1.0)
            memory.append(terminal.peak_mb())
            torch = terminal.maps("libtorch")
            terminal.leave()
    size = "190 MB file, warm"
    yield row(f"first frame, {size}", first, "s", 1.0)
    yield row("… CPU until then", cpu, "s")
    yield row(f"every sample read, {size}", whole, "s")
    yield row(f"peak memory, {SAMPLES // 1000}k samples", memory, "MB", 120.0, note=f"{bench.charts_seen} charts")
    yield Row(what="torch is loaded", seen=float(torch), unit="", limit=0.0)


def backfill_rows(bench: Bench) -> Iterator[Row]:
    from qig_tui.sources.local import LocalSource

    took = []
    for _ in range(2 if bench.quick else 5):
        source = LocalSource(RunDir(bench.large))
        source.look()
        share = source.backfill_end / source.run.telemetry().stat().st_size
        began = time.process_time()
        source.backfill(lambda share: None, threading.Event())
        took.append((time.process_time() - began) / share / SAMPLES * 200_000)
        source.close()
    yield row("backfill of 200k samples, scalars", took, "CPU s", 1.5, note="in-process; scaled from the whole file")


def key_rows(bench: Bench) -> Iterator[Row]:
    """Keys pressed while earlier steps are being read; the program is opened again until there are enough."""
    wanted = 5 if bench.quick else 24
    shown: dict[str, list[float]] = {"?": [], "+ -": []}
    began = clock()
    while min(map(len, shown.values())) < wanted and clock() - began < 60:
        with program(bench.large) as terminal:
            terminal.wait(is_drawn(SAMPLES - 1))
            terminal.wait(_READING)
            for key in itertools.cycle(("+", "?", "-")):
                before = settled(terminal)
                if before is None:
                    break
                if key == "?":
                    took = press(terminal, "?", lambda text: _HELP in text)
                    press(terminal, "\x1b", lambda text: _HELP not in text and " read" in text)
                else:
                    took = press(terminal, key, lambda text, before=before: charts_part(text) != before)
                # The end of the reading draws the charts anew as well: it is no answer to a key.
                if _READING in terminal.text:
                    shown["?" if key == "?" else "+ -"].append(took)
    for key, took in shown.items():
        note = f"{len(took)} presses" + (", the first of a process included" if key == "?" else "")
        yield row(f"key to paint while reading: {key}", took, "ms", 50.0, note=note)


def time_rows(bench: Bench) -> Iterator[Row]:
    """Back in time, one sample after another, on a run that is read whole; another screen of the run."""
    presses = 5 if bench.quick else 20
    with program(bench.large) as terminal:
        terminal.wait(all_read(SAMPLES))
        took = []
        for back in range(1, presses + 1):
            time.sleep(0.2)
            place = f"PAST step {grouped(SAMPLES - 1 - back)}"
            took.append(press(terminal, "[", lambda text, place=place: place in text))
        yield row(
            "key to paint in the past: [", took, "ms", 50.0, note=f"{presses} presses, the first of a process included"
        )
        terminal.send("\x1b")
        terminal.wait(lambda text: "PAST" not in text)
        for key, words in (("3", "CONDITIONS"), ("2", "DISTANCES")):
            first = press(terminal, key, lambda text, words=words: words in text)
            press(terminal, "1", lambda text: bool(charts_on(text)))
            yield row(f"another screen, opened first: {key}", [first], "ms")


def press(terminal: Terminal, key: str, condition: Callable[[str], bool]) -> float:
    """From the key to the bytes that made it so, ms."""
    terminal.watch(condition)
    sent = terminal.send(key)
    return 1e3 * (terminal.awaited() - sent)


def charts_part(text: str) -> list[str]:
    """The rows between the status line and the lists, which change by themselves."""
    return text.split("\n")[1:30]


def settled(terminal: Terminal) -> list[str] | None:
    """The charts when nothing more moves in them; None as soon as everything is read."""
    before: list[str] = []
    while _READING in (text := terminal.text):
        if charts_part(text) == before:
            return before
        before = charts_part(text)
        time.sleep(0.05)
    return None


def peer(bench: Bench, kind: str, *, points: int, hertz: float, seconds: float, thin: bool) -> dict[str, float]:
    """Six charts by one widget: CPU ms a frame, KiB/s."""
    out = bench.folder / f"{kind}-{hertz}.json"
    script = str(Path(__file__).with_name("dashboard_peers.py"))
    words = [sys.executable, script, kind, str(out), "--points", str(points), "--hertz", str(hertz)]
    words += ["--seconds", str(seconds), *(["--thin"] if thin else [])]
    with Terminal(words) as terminal:
        terminal.ended(seconds + 120)
        seen = json.loads(out.read_text())
        came = terminal.bytes_between(seen["began"], seen["ended"])
    out.unlink()
    return {"ms": 1e3 * seen["cpu_s"] / seen["frames"], "kib_s": came / 1024 / (seen["ended"] - seen["began"])}


def redraw_rows(bench: Bench) -> Iterator[Row]:
    rounds = 1 if bench.quick else 2
    shown: dict[str, list[float]] = {}
    how = {"points": POINTS, "hertz": 2.0, "seconds": 3.0 if bench.quick else 5.0}
    for _ in range(rounds):
        for kind in ("ours", *PEERS):
            shown.setdefault(kind, []).append(peer(bench, kind, thin=kind != "ours", **how)["ms"])
    theirs = {kind: statistics.median(shown[kind]) for kind in PEERS}
    note = "peers are given the extremes of each half column only"
    yield row("redraw of six charts, 100k points", shown["ours"], "CPU ms", 25.0, peers=theirs, note=note)
    if not bench.quick:
        whole = {k: peer(bench, k, points=POINTS, hertz=2.0, seconds=0.6, thin=False)["ms"] for k in PEERS}
        seen = statistics.median(shown["ours"])
        yield Row(what="… the peers given every point", seen=seen, unit="CPU ms", peers=whole, note="a frame or two")


def idle_rows(bench: Bench) -> Iterator[Row]:
    seconds = 5.0 if bench.quick else 20.0

    def percent(terminal: Terminal) -> float:
        began, used = clock(), terminal.cpu_s()
        time.sleep(seconds)
        return 100 * (terminal.cpu_s() - used) / (clock() - began)

    with bench.live("idle") as writer, program(writer.run.path) as terminal:
        terminal.wait(all_read(LIVE_POINTS))
        want_six(bench, terminal)
        time.sleep(2.0)
        began, came = clock(), percent(terminal)
        sent = terminal.bytes_between(began, clock()) / 1024 / (clock() - began)
        yield Row(what="idle: a live run, no new samples", seen=came, unit="% core", limit=2.0, note=f"{seconds:g} s")
        yield Row(what="… to the terminal", seen=sent, unit="KiB/s")
    with program(bench.folder / "idle") as terminal:
        terminal.wait(all_read(LIVE_POINTS))
        want_six(bench, terminal)
        time.sleep(2.0)
        yield Row(what="idle: an ended run", seen=percent(terminal), unit="% core", limit=2.0, note=f"{seconds:g} s")


def live_rows(bench: Bench) -> Iterator[Row]:
    """Both kinds of terminal look at the same run at once; the peers run beside each other, and not beside us."""
    for hertz, limit in ((10.0, 3.0), (2.0, 1.0)):
        with (
            bench.live(f"live-{hertz:g}") as writer,
            program(writer.run.path) as local,
            program(writer.run.path, env=SSH) as remote,
        ):
            for terminal in (local, remote):
                terminal.wait(all_read(LIVE_POINTS))
                want_six(bench, terminal)
            with Feed(writer, LIVE_POINTS, hertz) as feed:
                time.sleep(4.0)
                began, used = clock(), [local.cpu_s(), remote.cpu_s()]
                time.sleep(bench.window_s)
                ended = clock()
            took = ended - began
            busy = [100 * (t.cpu_s() - u) / took for t, u in zip((local, remote), used, strict=True)]
            sent = [t.bytes_between(began, ended) / 1024 / took for t in (local, remote)]
            seen = bench.charts_seen
            assert feed.step > LIVE_POINTS
        theirs = {
            kind: peer(bench, kind, points=LIVE_POINTS, hertz=hertz, seconds=max(bench.window_s / 5, 3.0), thin=True)
            for kind in PEERS
        }
        rates = {kind: each["kib_s"] for kind, each in theirs.items()}
        loads = {kind: each["ms"] * hertz / 10 for kind, each in theirs.items()}
        at = f"{hertz:g} samples/s"
        note = f"{seen} charts; the peers show charts only"
        yield Row(what=f"CPU at {at}", seen=busy[0], unit="% core", limit=10.0, peers=loads, note=note)
        yield Row(what=f"CPU at {at}, over SSH", seen=busy[1], unit="% core", limit=10.0)
        yield Row(what=f"to the terminal at {at}", seen=sent[0], unit="KiB/s", limit=limit, peers=rates, note=note)
        yield Row(what=f"to the terminal at {at}, over SSH", seen=sent[1], unit="KiB/s", limit=limit)


def latency(bench: Bench, run_id: str, words: Sequence[str], count: int, pause_s: tuple[float, float]) -> list[float]:
    """From before `log` to the arrival of the bytes that show its value in the heading of a chart; ms."""
    chance = random.Random(0)
    took = []
    with bench.live(run_id, 2_000) as writer, program(writer.run.path, words=words) as terminal:
        terminal.wait(all_read(2_000))
        time.sleep(1.0)
        for index, (step, metrics, basin) in enumerate(samples(2_000, 2_000 + count)):
            time.sleep(chance.uniform(*pause_s))
            phi = 0.6 + index / 1000
            terminal.watch(lambda text, phi=phi: f"Φ {phi:.3f}" in text)
            logged = clock()
            each = None if step % BASIN_EVERY else basin
            writer.telemetry.log(step, metrics | {"phi": phi}, basin=each, regime="geometric")
            took.append(1e3 * (terminal.awaited() - logged))
    return took


def latency_rows(bench: Bench) -> Iterator[Row]:
    seen = latency(bench, "inotify", [PROGRAM], 10 if bench.quick else 40, (0.15, 0.9))
    yield row("write to screen, inotify", seen, "ms", 150.0, note=f"{len(seen)} samples at irregular times")
    seen = latency(bench, "polling", [sys.executable, "-c", POLLING], 3 if bench.quick else 15, (0.1, 1.3))
    yield row("write to screen, polling", seen, "ms", 1200.0, note="is_network answers yes; all else is the program")


def runs_rows(bench: Bench) -> Iterator[Row]:
    count, alive = (100, 5) if bench.quick else (500, 5)
    root = bench.folder / "runs"
    root.mkdir()
    with contextlib.ExitStack() as stack:
        feeds = []
        for index in range(count):
            writer = open_run(root, f"run-{index:04d}", f"charlie-{index:04d}")
            fill(writer, 200)
            if index % (count // alive) == count // alive - 1:
                stack.callback(writer.close, 0)
                feeds.append(Feed(writer, 200, 2.0))
            else:
                writer.close(0)
        # The newest stands first, and the last row of the first page is there.
        is_full = lambda text: f"charlie-{count - 1:04d}" in text and f"charlie-{count - 30:04d}" in text  # noqa: E731
        took = []
        for _ in range(2 if bench.quick else 5):
            with program(root) as terminal:
                terminal.wait(is_full, 30)
                # Not only the first page: by `end` to the oldest, pressed again as long as rows still come.
                terminal.watch("charlie-0000")
                came = None
                while came is None and clock() - terminal.started < 30:
                    terminal.send("\x1b[F")
                    with contextlib.suppress(Timeout):
                        came = terminal.awaited(0.2)
                took.append(math.inf if came is None else came - terminal.started)
        yield row(f"runs screen, {count} runs: to the last row", took, "s", 2.0)
        for feed in feeds:
            stack.enter_context(feed)
        with program(root) as terminal:
            terminal.wait(is_full, 30)
            time.sleep(3.0)
            began, used = clock(), terminal.cpu_s()
            time.sleep(5.0 if bench.quick else 20.0)
            took_s = clock() - began
            busy = 100 * (terminal.cpu_s() - used) / took_s
            sent = terminal.bytes_between(began, clock()) / 1024 / took_s
            memory = terminal.peak_mb()
        note = f"{alive} of them live at 2 samples/s"
        yield Row(what=f"runs screen, {count} runs: watching", seen=busy, unit="% core", limit=5.0, note=note)
        yield Row(what="… to the terminal", seen=sent, unit="KiB/s")
        yield Row(what="… peak memory", seen=memory, unit="MB")


def resident_mb() -> float:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def endless(count: int) -> tuple[float, float, int]:
    """In a process of its own: MB at a tenth and at all of so many samples, and the longest series."""
    from qig_tui.history import History

    history, early = History(), 0.0
    for first in range(0, count, 10_000):
        steps = np.arange(first, first + 10_000)
        table = figures(steps).tolist()
        history.add(
            [
                Scalars(step, step, 1.7e9 + step, dict(zip(METRICS, line, strict=True)))
                for step, line in zip(steps.tolist(), table, strict=True)
            ]
        )
        del table
        if first + 10_000 == count // 10:
            early = resident_mb()
    return early, resident_mb(), max(len(history.series(name)) for name in METRICS)


def memory_rows(bench: Bench) -> Iterator[Row]:
    count = 500_000 if bench.quick else 10_000_000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        early, late, longest = pool.submit(endless, count).result()
    note = f"the history alone, in-process: {early:.0f} -> {late:.0f} MB; longest series {longest} points"
    yield Row(what=f"memory from {count // 10} to {count} samples", seen=late - early, unit="MB", limit=5.0, note=note)


def hostile_rows(bench: Bench) -> Iterator[Row]:
    """Each directory of the tests' corpus, through every size: it is shown or refused, and left by its key."""
    sys.path.insert(0, str(ROOT))
    corpus = importlib.import_module("tests.tui.hostile").corpus
    root = bench.folder / "hostile"
    root.mkdir()
    paths = corpus(root)[:: 8 if bench.quick else 1]
    # Two at a time: most of it is waiting.
    with ThreadPoolExecutor(2) as pool:
        crashed = [f"{path.name}: {why}" for path, why in zip(paths, pool.map(crash, paths), strict=True) if why]
    bench.notes += crashed
    note = f"{len(paths)} directories, {', '.join(f'{columns}x{rows}' for columns, rows in SIZES)}"
    yield Row(what="crashes on the hostile corpus", seen=float(len(crashed)), unit="", limit=0.0, note=note)


def crash(path: Path) -> str:
    """What went wrong, or nothing."""
    with program(path, size=SIZES[0]) as terminal:
        try:
            terminal.wait(lambda text: any(word in text for word in DRAWN))
            for size in SIZES[1:]:
                if "qig-tui: " in terminal.text:
                    break
                came = len(terminal.pieces)
                terminal.resize(size)
                terminal.wait(lambda text, came=came: len(terminal.pieces) > came + 1)
            code = terminal.ended(5) if "qig-tui: " in terminal.text else terminal.leave()
        except (subprocess.TimeoutExpired, Timeout, OSError) as error:
            return f"{type(error).__name__}; alive: {terminal.alive}"
        terminal.drained()
        text = terminal.text
        is_fine = (code, "qig-tui: " in text) in ((0, False), (2, True)) and "Traceback" not in text
        return "" if is_fine else f"left with {code}"


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "start": start_rows,
    "first": first_rows,
    "backfill": backfill_rows,
    "keys": key_rows,
    "time": time_rows,
    "redraw": redraw_rows,
    "idle": idle_rows,
    "live": live_rows,
    "latency": latency_rows,
    "runs": runs_rows,
    "memory": memory_rows,
    "hostile": hostile_rows,
}


def value_text(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.3g} {unit}".strip() if abs(value) < 1000 else f"{value:.0f} {unit}".strip()


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table("what", "seen", "least … most", *PEERS, "mark", "verdict", "note")
    for each in rows:
        table.add_row(
            each.what,
            value_text(each.seen, each.unit),
            "" if each.spread is None else " … ".join(value_text(end) for end in each.spread),
            *(value_text(each.peers[kind]) if kind in each.peers else "" for kind in PEERS),
            "" if each.limit is None else f"≤ {each.limit:g}",
            each.verdict,
            each.note,
            style="bold red" if each.verdict == MISSED else None,
        )
    console.print(table)


def markdown(facts: dict[str, Any]) -> str:
    """The rows that have a mark or a peer, as a table for a document; facts as `--write` leaves them."""
    lines = [f"| | seen | mark | | {' | '.join(PEERS)} |", f"|---|---|---|---|{'---|' * len(PEERS)}"]
    for line in facts["rows"]:
        if line["limit"] is None and not line["peers"]:
            continue
        mark = "" if line["limit"] is None else f"≤ {line['limit']:g}"
        verdict = "" if line["limit"] is None else line["verdict"].replace(MISSED, "**missed**")
        theirs = (value_text(line["peers"][kind]) if kind in line["peers"] else "" for kind in PEERS)
        cells = (line["what"], value_text(line["seen"], line["unit"]), mark, verdict, *theirs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def into_readme() -> None:
    """Replace the table between README.md's markers by that of the last whole run."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split("<!-- dashboard -->")
    table = markdown(json.loads(RESULTS.read_text(encoding="utf-8")))
    _, after = rest.split("<!-- /dashboard -->")
    readme.write_text(f"{before}<!-- dashboard -->\n{table}<!-- /dashboard -->{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, about a minute")
    parser.add_argument("--folder", type=Path, help="on which disk; default: the system's temporary folder")
    parser.add_argument("--only", metavar="TEXT", default="", help=f"groups by their names: {', '.join(GROUPS)}")
    parser.add_argument("--write", action="store_true", help=f"keep a whole run in results/{RESULTS.name}")
    parser.add_argument("--readme", action="store_true", help="measure nothing: put the last whole run into README.md")
    given = parser.parse_args()
    if given.readme:
        into_readme()
        return 0
    if given.write and (given.quick or given.only):
        parser.error("--write keeps whole runs only: leave out --quick and --only")
    # Between the thread that takes bytes and the one that draws them.
    sys.setswitchinterval(5e-4)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    facts = machine() | {"quick": given.quick}
    names = ("textual", "rich", "msgspec", "watchfiles", "pyte", "plotext", *PEERS)
    facts["versions"] = {"python": facts["versions"]["python"]} | {name: metadata.version(name) for name in names}
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    rows: list[Row] = []
    began = clock()
    with tempfile.TemporaryDirectory(prefix="dashboard-", dir=given.folder) as folder:
        bench = Bench(folder=Path(folder), quick=given.quick)
        try:
            for name, group in GROUPS.items():
                if not given.only or name in given.only.split(","):
                    print(f"{clock() - began:6.1f} s  {name}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
                    rows += group(bench)
        finally:
            # Also where the last of them did not come to its end.
            show(rows, console)
    for note in bench.notes:
        console.print(note, highlight=False, markup=False)
    facts |= {"load_after": round(os.getloadavg()[0], 2), "took_s": round(clock() - began, 1)}
    facts["charts"] = bench.charts_seen
    console.print(f"{facts['took_s']} s; load {facts['load_before']} before, {facts['load_after']} after")
    if given.write:
        kept = [asdict(each) | {"verdict": each.verdict} for each in rows]
        RESULTS.write_text(
            json.dumps(facts | {"notes": bench.notes, "rows": kept}, indent=1, ensure_ascii=False) + "\n"
        )
        console.print(f"written: {RESULTS}")
    return int(any(each.verdict == MISSED for each in rows))


if __name__ == "__main__":
    sys.exit(main())
