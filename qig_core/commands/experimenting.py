"""What `qig-core experiment` shows: how far the runs are, and what came out. Trains and judges nothing itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qig_core.errors import ExitCode, UsageError
from qig_core.experiments.conducting import EXPERIMENTS, Advance, How, Interrupted, conduct
from qig_core.experiments.experiment import Wanted
from qig_core.experiments.verdict import LEAST_SEEDS, p_text
from qig_core.terminal import err, print_facts, print_json, print_table, tell

ALL = "all"


def run_experiments(name: str, *, preset: str, seeds: int, out: Path, json: bool) -> int:
    """Carry one experiment out, or all, one after the other.

    Returns:
        FOUND_BAD where one fails; OK where each passes or is inconclusive, which is a result and says so; the exit code
        of a run that was stopped.

    Raises:
        UsageError: no such experiment, or too few seeds. What `conduct` raises.
    """
    if name not in (*EXPERIMENTS, ALL):
        raise UsageError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)} and {ALL}")
    if seeds < LEAST_SEEDS:
        raise UsageError(f"--seeds {seeds}: with fewer than {LEAST_SEEDS} there is no verdict")
    verdicts = []
    for each in EXPERIMENTS if name == ALL else (name,):
        try:
            with _progress(each, json=json) as advance:
                found, files = conduct(each, preset, seeds, out, advance)
        except Interrupted as stopped:
            tell(f"qig-core: {stopped}")
            return stopped.code
        verdicts.append(found["verdict"])
        if json:
            print_json(
                {"result": {key: found[key] for key in ("experiment", "verdict", "findings", "figures", "notes")}}
            )
        else:
            show(found)
        for path in files:
            tell(f"written: {path}")
    return ExitCode.FOUND_BAD if "fail" in verdicts else ExitCode.OK


def show(found: Mapping[str, Any]) -> None:
    """The verdict, and a row for each claim."""
    print_facts([("experiment", found["experiment"]), ("verdict", found["verdict"]), *_notes(found)])
    rows = []
    for finding in found["findings"]:
        estimate = finding["estimate"]
        limits = [
            f"{sign} {finding[key]:g}" for sign, key in ((">", "above"), ("<", "below")) if finding[key] is not None
        ]
        mean = None if estimate is None else f"{estimate['mean']:.4g}"
        interval = None if estimate is None else f"{estimate['low']:.4g} .. {estimate['high']:.4g}"
        claimed = " and ".join(limits) + (f" {finding['unit']}" if finding["unit"] else "")
        rows.append((finding["claim"], claimed, mean, interval, p_text(finding), finding["verdict"]))
    columns = ("mean over seeds of", "claimed", "mean", "90 % interval", "", "verdict")
    print_table(columns, rows, right=("mean",), fold=(columns[0],))


def _notes(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("note", note) for note in found["notes"]]


@contextmanager
def _progress(experiment: str, *, json: bool) -> Iterator[Advance]:
    """Where the runs of an experiment are: JSON lines, a bar on a terminal, else a sentence now and then."""
    told: set[tuple[str, str]] = set()

    def sentence(wanted: Wanted, how: How, step: int, total: int) -> None:
        if how == "taken as it is" and (wanted.run_id, how) not in told:
            tell(f"{experiment}: {wanted.run_id} is {how}")
        elif how != "taken as it is" and step % max(1, total // 4) == 0:
            tell(f"{experiment}: {wanted.run_id} is {how}, step {step}/{total}")
        told.add((wanted.run_id, how))

    def line(wanted: Wanted, how: How, step: int, total: int) -> None:
        if how == "taken as it is" or step % max(1, total // 20) == 0:
            run = {"experiment": experiment, "run": wanted.run_id, "how": how, "step": step, "total": total}
            print_json({"progress": run})

    if json or not err.is_terminal:
        yield line if json else sentence
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, refresh_per_second=4) as bar:
        tasks: dict[str, Any] = {}

        def advance(wanted: Wanted, how: How, step: int, total: int) -> None:
            if wanted.run_id not in tasks:
                tasks[wanted.run_id] = bar.add_task(f"{wanted.run_id} {how}", total=total)
            bar.update(tasks[wanted.run_id], completed=step)

        yield advance
