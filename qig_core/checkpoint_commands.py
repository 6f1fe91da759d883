"""qig-core checkpoints ...: parse, call, print. What a command needs is imported when it runs."""

from typing import Any

import typer

from qig_core.arguments import Checkpoint, Json, Run, RunAt, Runs, find_run, find_run_at
from qig_core.errors import ExitCode
from qig_core.terminal import print_json, print_table, tell

app = typer.Typer(help="Look at, verify, keep, compare and take out the checkpoints of a run.", no_args_is_help=True)


@app.command(name="list")
def list_all(run: Run, runs: Runs = None, json: Json = False) -> None:
    """Every checkpoint, newest first; a cheap look, not a verification."""
    from qig_core.checkpoints import commands

    _show_rows(commands.list_rows(find_run(run, runs)), json)


@app.command(name="show")
def show(run: RunAt, checkpoint: Checkpoint = None, runs: Runs = None) -> None:
    """Everything that one checkpoint's manifest says, as JSON; the latest's where none is named."""
    from qig_core.checkpoints import commands

    where, selector = find_run_at(run, checkpoint, runs)
    print_json(commands.show(where, "latest" if selector is None else selector))


@app.command(name="latest")
def latest(run: Run, runs: Runs = None, json: Json = False) -> None:
    """The newest whole checkpoint, by publication."""
    from qig_core.checkpoints import commands

    _show_rows([commands.latest(find_run(run, runs))], json)


@app.command(name="best")
def best(run: Run, runs: Runs = None, json: Json = False) -> None:
    """The best by held-out loss among those inside all bands."""
    from qig_core.checkpoints import commands

    _show_rows([commands.best(find_run(run, runs))], json)


@app.command(name="verify")
def verify(run: RunAt, checkpoint: Checkpoint = None, runs: Runs = None, json: Json = False) -> None:
    """Check sizes, digests and finiteness, of all where none is named; exit 1 if any is not whole."""
    from qig_core.checkpoints import commands

    rows: list[dict[str, Any]] = []
    for report in commands.verify(*find_run_at(run, checkpoint, runs)):
        if json:
            print_json(report)
        if "result" in report:
            rows = report["result"]
    if not json:
        _show_rows(rows, json=False, none="no checkpoint to verify")
    if not rows or any(row["status"] != "COMPLETE" for row in rows):
        raise typer.Exit(ExitCode.FOUND_BAD)


def _show_rows(rows: list[dict[str, Any]], json: bool, none: str = "no checkpoints") -> None:
    if json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        tell(none)
        return
    facts, lists = ("step", "status", "reason"), ("tags", "problems")
    cells = [
        (row["name"], *(row[fact] for fact in facts), " ".join(row["tags"]), "; ".join(row["problems"])) for row in rows
    ]
    print_table(("checkpoint", *facts, *lists), cells, right=("step",), fold=lists)
