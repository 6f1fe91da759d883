"""qig-core checkpoints ...: parse, call, print. What a command needs is imported when it runs."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from qig_core.commands.arguments import Checkpoint, Json, Run, RunAt, Runs, find_run, find_run_at
from qig_core.errors import ExitCode, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.terminal import print_facts, print_json, print_table, progress_bar, tell

Wait = Annotated[float, typer.Option(help="Seconds to wait for a live trainer's answer.")]
Score = Annotated[str | None, typer.Option(help="The metric that ranks them. (default: the run's own)")]
Higher = Annotated[
    bool | None,
    typer.Option("--higher-is-better/--lower-is-better", help="How that metric is read.", show_default=False),
]

app = typer.Typer(help="Look at, verify, keep, compare and take out the checkpoints of a run.", no_args_is_help=True)


@app.command(name="list")
def list_all(run: Run, runs: Runs = None, json: Json = False) -> None:
    """Every checkpoint, newest first; a cheap look, not a verification."""
    from qig_core.checkpoints import commands

    _show_rows(commands.list_rows(find_run(run, runs)), json)


@app.command(name="show")
def show(run: RunAt, checkpoint: Checkpoint = None, runs: Runs = None, json: Json = False) -> None:
    """What one checkpoint holds and what was known when it was made; the latest where none is named."""
    from qig_core.checkpoints import commands
    from qig_core.checkpoints.catalog import resolve
    from qig_core.commands.showing import facts_of

    where, selector = find_run_at(run, checkpoint, runs)
    text = "latest" if selector is None else selector
    if json:
        print_json(commands.show(where, text))
    else:
        print_facts(facts_of(resolve(where, text)))


@app.command(name="latest")
def latest(run: Run, runs: Runs = None, json: Json = False) -> None:
    """The newest whole checkpoint, by publication."""
    from qig_core.checkpoints import commands

    _show_rows([commands.latest(find_run(run, runs))], json)


@app.command(name="best")
def best(run: Run, score: Score = None, higher: Higher = None, runs: Runs = None, json: Json = False) -> None:
    """The best by the run's score, or the one that is named, among those that are finite and inside all bands."""
    from qig_core.checkpoints import commands
    from qig_core.checkpoints.pruning import recorded_keep

    where = find_run(run, runs)
    keep = recorded_keep(where, **_rule(score=score, higher=higher))
    _show_rows([commands.best(where, score=keep.score, lower_is_better=keep.lower_is_better)], json)


@app.command(name="verify")
def verify(run: RunAt, checkpoint: Checkpoint = None, runs: Runs = None, json: Json = False) -> None:
    """Check sizes, digests and finiteness, of all where none is named; exit 1 if any is not whole.

    Told besides: whether the tensors have the names, types and shapes that they have in the newest other whole one.
    """
    from qig_core.checkpoints import commands
    from qig_core.commands.shapes import add_shapes

    rows: list[dict[str, Any]] = []
    where, name = find_run_at(run, checkpoint, runs)
    with progress_bar("verifying", shown=not json) as show_progress:
        for report in commands.verify(where, name):
            if "result" in report:
                rows = report["result"]
                add_shapes(where, rows)
            if json:
                print_json(report)
            if "progress" in report:
                show_progress(report["progress"]["done"], report["progress"]["total"])
    if not json:
        _show_rows(rows, json=False, none="no checkpoint to verify")
        for row in rows:
            if row["shapes"] and row["shapes"]["differing"]:
                tell(f"{row['name']}, beside {row['shapes']['beside']}: {'; '.join(row['shapes']['differing'])}")
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
    facts, lists = ("step", "published", "size", "status", "reason"), ("tags", "problems")
    cells = []
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["t"]))
        told = (row["step"], when, decimal(row["size"]), row["status"], row["reason"])
        cells.append((row["name"], *told, " ".join(row["tags"]), "; ".join(row["problems"])))
    print_table(("checkpoint", *facts, *lists), cells, right=("step", "size"), fold=lists)


@app.command(name="pin")
def pin(run: RunAt, checkpoint: Checkpoint = None, wait: Wait = 30.0, runs: Runs = None, json: Json = False) -> None:
    """Keep a checkpoint whatever the rule says, until it is unpinned; a live trainer is asked to."""
    from qig_core.commands.keeping import change_tags

    where, name = _one(run, checkpoint, runs)
    raise typer.Exit(change_tags(where, "pin", name, wait_s=wait, json=json))


@app.command(name="unpin")
def unpin(run: RunAt, checkpoint: Checkpoint = None, wait: Wait = 30.0, runs: Runs = None, json: Json = False) -> None:
    """Let the rule decide over a checkpoint again; a live trainer is asked to."""
    from qig_core.commands.keeping import change_tags

    where, name = _one(run, checkpoint, runs)
    raise typer.Exit(change_tags(where, "unpin", name, remove=True, wait_s=wait, json=json))


@app.command(name="tag")
def tag(
    run: Run,
    checkpoint: Annotated[str, typer.Argument(help="A step, a name, a tag, latest, best or last-good.")],
    word: Annotated[str, typer.Argument(metavar="TAG", help="Letters, digits, '.', '_' and '-'.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it away.")] = False,
    wait: Wait = 30.0,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Give a checkpoint a tag, to find it by; a live trainer is asked to. The tag `pinned` keeps it."""
    from qig_core.commands.keeping import change_tags

    where = find_run(run, runs)
    raise typer.Exit(change_tags(where, "tag", checkpoint, word, remove=remove, wait_s=wait, json=json))


@app.command(name="prune")
def prune(
    run: Run,
    newest: Annotated[int | None, typer.Option(help="So many of the newest stay. (default: the run's own)")] = None,
    best: Annotated[int | None, typer.Option(help="So many of the best stay. (default: the run's own)")] = None,
    score: Score = None,
    higher: Higher = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of those that the rule gives up delete this one; may be given again."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = 30.0,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Delete what the rule gives up: all but newest, best, pinned, emergency, gone on from, and last verified ones.

    The plan is shown first, with the reason why each is kept; a live trainer is asked to do it.
    """
    from qig_core.commands import keeping

    over = {"newest": newest, "best": best, **_rule(score=score, higher=higher)}
    over = {key: value for key, value in over.items() if value is not None}
    where = find_run(run, runs)
    raise typer.Exit(keeping.prune(where, over, only=only, dry_run=dry_run, yes=yes, wait_s=wait, json=json))


@app.command(name="restore")
def restore(
    run: RunAt, checkpoint: Checkpoint = None, wait: Wait = 30.0, runs: Runs = None, json: Json = False
) -> None:
    """Bring a live run back to a checkpoint; of one that has ended, verify it and say how to go on from it."""
    from qig_core.commands import keeping

    where, name = _one(run, checkpoint, runs)
    raise typer.Exit(keeping.restore(where, name, wait_s=wait, json=json))


@app.command(name="diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN@CHECKPOINT, RUN (its latest), or a file of weights.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise; or, before a third, a checkpoint of the run A.")],
    second: Annotated[str | None, typer.Argument(metavar="CHECKPOINT", help="Of the run A too.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Tensors that are equal bit by bit too.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """In what two checkpoints differ: tensors, basin, metrics, conditions, plain state. It verifies nothing.

    A file of weights is .safetensors, or a state dict by torch.save (.pt, .pth, .bin). Exit 0 whatever the difference.
    """
    from qig_core.commands.comparing import run_diff

    run_diff(a, b, second, runs=runs, everything=everything, json=json)


@app.command(name="export")
def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN[@CHECKPOINT] [CHECKPOINT] OUT.safetensors",
            help="A checkpoint (the latest where none is named), and the file to write.",
            show_default=False,
        ),
    ],
    everything: Annotated[bool, typer.Option("--all", help="Every tensor, as KEY.NAME.")] = False,
    key: Annotated[list[str] | None, typer.Option(help="Tensors under this key. (default: model)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Verify a checkpoint and write its weights as one safetensors file; what is known of it as OUT.json beside it."""
    from qig_core.commands.comparing import run_export

    run_export(words, runs=runs, keys=key or (), everything=everything, force=force, json=json)


def _one(run: str, checkpoint: str | None, runs: Path | None) -> tuple[RunDir, str]:
    where, name = find_run_at(run, checkpoint, runs)
    if name is None:
        raise UsageError("name a CHECKPOINT: a step, a name, latest, best or last-good")
    return where, name


def _rule(*, score: str | None, higher: bool | None) -> dict[str, Any]:
    return {"score": score, "lower_is_better": None if higher is None else not higher}
