"""qig-core: parse, build, call. What a command needs is imported when it runs; torch only where something trains."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qig_core.errors import ExitCode, MissingExtra, QigError, Refused, UsageError
from qig_core.rundir.layout import RunDir, default_root, list_runs, resolve_run
from qig_core.rundir.printable import printable
from qig_core.rundir.values import is_run_id

app = typer.Typer(
    name="qig-core",
    help="Train, watch and keep runs. RUN is an id under --runs, or a path (with a / or a .).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoints_app = typer.Typer(help="Look at and verify the checkpoints of a run.", no_args_is_help=True)
app.add_typer(checkpoints_app, name="checkpoints")

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of runs.  [default: $QIG_RUNS, else ./runs]")]
Run = Annotated[str, typer.Argument(help="A run: its id, or its path.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


def print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def _run(text: str, runs: Path | None) -> RunDir:
    return resolve_run(text, runs or default_root())


def _split_selector(text: str) -> tuple[str, str | None]:
    """RUN[@STEP|@CHECKPOINT]; an @ inside a folder's name is part of the path."""
    run, at, selector = text.rpartition("@")
    return (run, selector) if at and "/" not in selector else (text, None)


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="A TOML file; `qig-core config` prints every key.")] = None,
    preset: Annotated[str, typer.Option(help="What --config starts from: default or tiny.")] = "default",
    runs: Runs = None,
    name: Annotated[str, typer.Option(help="A name to show beside the run's id.")] = "",
    run_id: Annotated[str, typer.Option("--id", help="The new run's id.  [default: time and chance]")] = "",
    steps: Annotated[int | None, typer.Option(help="The total number of steps, over all sessions.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Text files and folders.  [default: Python's language reference]")
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN[@STEP|@CHECKPOINT]", help="Go on with a run that has ended or died.")
    ] = None,
    fork: Annotated[
        str | None, typer.Option(metavar="RUN[@STEP|@CHECKPOINT]", help="A new run from another run's checkpoint.")
    ] = None,
    accept_new_corpus: Annotated[bool, typer.Option(help="Resume on another text than the recorded one.")] = False,
) -> None:
    """Train a small language kernel on text, guarded and recorded, without a screen.

    Ctrl-C stops after the step with a checkpoint; a second one does not wait.
    """
    from qig_core.training import config as configuration

    if preset not in configuration.PRESETS:
        raise UsageError(f"no preset {preset!r}; there are {', '.join(configuration.PRESETS)}")
    if more and not corpus:
        raise UsageError(f"unexpected argument {str(more[0])!r}; did you mean --corpus {str(more[0])!r}?")
    if resume and fork:
        raise UsageError("--resume and --fork exclude each other: the same run, or a new one")
    given = configuration.read_toml(config) if config else {}
    if steps is not None:
        given = configuration.merge(given, {"steps": steps})
    origin = resume or fork
    if origin is None:
        given = configuration.merge(configuration.PRESETS[preset], given)
        configuration.build(given)
    elif preset != "default":
        raise UsageError("--preset is for a new run; this one has its recorded configuration")
    _need("torch", "train")
    # Read by torch's OpenMP when it loads. Its threads spin while they wait: with anything else on the processor (the
    # dashboard, say) two of them on two cores made a step several times slower. They spin a little, and then sleep.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if run_id and not is_run_id(run_id):
        raise UsageError(f"--id {run_id!r}: letters, digits, . _ and - only, at most 100, the first a letter or digit")
    texts = [*(corpus or []), *(more or [])]
    root = runs or default_root()
    from qig_core.training import runs as training_runs
    from qig_core.training.console import drive

    if origin is None:
        started = training_runs.start(given, texts, runs=root, run_id=run_id, name=name)
    else:
        text, selector = _split_selector(origin)
        run = _run(text, root)
        if resume:
            started = training_runs.resume(run, selector, given, texts, accept_new_corpus=accept_new_corpus)
        else:
            started = training_runs.fork(run, selector, given, texts, runs=root, run_id=run_id, name=name)
    raise typer.Exit(drive(started))


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtra(f"this command needs {module}; install it with: pip install 'qig-tui[{extra}]'")


@app.command()
def config(preset: Annotated[str, typer.Option(help="default or tiny.")] = "default") -> None:
    """Print a whole configuration file: every key with its value."""
    import dataclasses

    from qig_core.training import config as configuration

    if preset not in configuration.PRESETS:
        raise UsageError(f"no preset {preset!r}; there are {', '.join(configuration.PRESETS)}")
    values = dataclasses.asdict(configuration.build(configuration.PRESETS[preset]))
    sys.stdout.write(configuration.to_toml(values))


@app.command()
def show(run: Run, runs: Runs = None, json: Json = False) -> None:
    """What a run is and where it stands."""
    from qig_core.rundir.summary import summarise

    summary = summarise(_run(run, runs), wait_for_beat_s=1.5)
    if summary.manifest is None:
        raise UsageError(summary.error or "unreadable")
    if json:
        print_json(summary.to_dict() | {"manifest": summary.manifest, "basin": summary.basin_values()})
        return
    manifest, liveness = summary.manifest, summary.liveness
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "run": f"{manifest.id}  {manifest.name}",
        "state": f"{liveness.glyph} {liveness.text}" if liveness else "",
        "step": f"{summary.step if summary.step is not None else '–'} / {manifest.total_steps or '–'}",
        "program": manifest.program,
        "sessions": "  ".join(
            s.id[:8] + (f" (from {s.resumed_from})" if s.resumed_from else "") for s in manifest.sessions
        ),
        "parent": f"{manifest.parent.run} @ {manifest.parent.checkpoint}" if manifest.parent else "none",
        "corpus": f"{manifest.corpus.get('name', '–')}  {str(manifest.corpus.get('digest', ''))[:12]}",
        "versions": "  ".join(f"{k} {v}" for k, v in manifest.versions.items()),
        "regime": summary.regime or "–",
    }
    for label, value in rows.items():
        table.add_row(Text(label, style="dim"), Text(printable(value)))
    for metric, number in sorted(summary.metrics.items()):
        shown = summary.nonfinite.get(metric, "not measured") if number is None else f"{number:.6g}"
        table.add_row(Text(printable(metric), style="dim"), Text(printable(shown)))
    for condition, state in summary.conditions.items():
        table.add_row(Text("condition", style="dim"), Text(printable(f"{condition}: {state}")))
    out.print(table)


@app.command(name="runs")
def list_all(runs: Runs = None, json: Json = False) -> None:
    """Every run under a folder, oldest first."""
    from qig_core.rundir.summary import summarise

    root = runs or default_root()
    if not root.is_dir():
        raise UsageError(f"{str(root)!r} is not a folder; name one with --runs, or train first")
    summaries = [summarise(run) for run in list_runs(root)]
    if json:
        for summary in summaries:
            print_json(summary.to_dict())
        return
    if not summaries:
        err.print(f"no runs under {str(root)!r}; make one with: qig-core train")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "name", "state", "step", "phi", "kappa", "loss"):
        table.add_column(column, justify="right" if column in ("step", "phi", "kappa", "loss") else "left")
    for summary in summaries:
        state = summary.liveness.text if summary.liveness else "UNREADABLE"
        values = [summary.metrics.get(key) for key in ("phi", "kappa", "loss")]
        cells = [summary.run.id, summary.manifest.name if summary.manifest else "", state]
        cells += ["–" if summary.step is None else str(summary.step)]
        cells += ["–" if value is None else f"{value:.3f}" for value in values]
        table.add_row(*(Text(printable(cell, 40)) for cell in cells))
    out.print(table)


@app.command()
def ctl(
    run: Run,
    verb: Annotated[str, typer.Argument(help="abort, checkpoint, pause, resume, ...", show_default=False)],
    wait: Annotated[float, typer.Option(help="Seconds to wait for the end of it.")] = 30.0,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Ask the live trainer of a run for something and show the stages; exit 0 only when it is done."""
    from qig_core.rundir.mailbox import read_ack, send, withdraw

    where = _run(run, runs)
    command = send(where, verb)
    began = time.monotonic()

    def tell(stage: str, step: int | None, detail: Mapping[str, Any]) -> None:
        elapsed = time.monotonic() - began
        if json:
            print_json({"stage": stage, "step": step, "after_s": round(elapsed, 3), **detail})
        else:
            at = "" if step is None else f" (step {step})"
            what = "  ".join(f"{key} {value}" for key, value in detail.items())
            out.print(printable(f"{elapsed:6.1f} s  {stage}{at}  {what}".rstrip()), soft_wrap=True)

    tell("requested", None, {"id": command.id})
    told = 0
    while time.monotonic() - began < wait:
        ack = read_ack(where, command.id)
        for stage in ack.stages[told:] if ack else []:
            tell(stage.stage, stage.step, stage.detail)
            told += 1
        if ack is not None and ack.ended:
            raise typer.Exit(ExitCode.FOUND_BAD if ack.stages[-1].stage == "refused" else ExitCode.OK)
        time.sleep(0.05)
    if told == 0 and withdraw(where, command):
        raise Refused(f"the trainer did not look at it within {wait:g} s; the command was withdrawn")
    raise Refused(f"not confirmed within {wait:g} s")


@checkpoints_app.command(name="list")
def checkpoints_list(run: Run, runs: Runs = None, json: Json = False) -> None:
    """Every checkpoint, newest first; a cheap look, not a verification."""
    from qig_core.checkpoints import commands

    _show_checkpoints(commands.list_rows(_run(run, runs)), json)


@checkpoints_app.command(name="show")
def checkpoints_show(run: Run, checkpoint: str, runs: Runs = None) -> None:
    """Everything that one checkpoint's manifest says, as JSON."""
    from qig_core.checkpoints import commands

    print_json(commands.show(_run(run, runs), checkpoint))


@checkpoints_app.command(name="latest")
def checkpoints_latest(run: Run, runs: Runs = None, json: Json = False) -> None:
    """The newest whole checkpoint, by publication."""
    from qig_core.checkpoints import commands

    _show_checkpoints([commands.latest(_run(run, runs))], json)


@checkpoints_app.command(name="best")
def checkpoints_best(run: Run, runs: Runs = None, json: Json = False) -> None:
    """The best by held-out loss among those inside all bands."""
    from qig_core.checkpoints import commands

    _show_checkpoints([commands.best(_run(run, runs))], json)


@checkpoints_app.command(name="verify")
def checkpoints_verify(
    run: Run, checkpoint: Annotated[str | None, typer.Argument()] = None, runs: Runs = None, json: Json = False
) -> None:
    """Check sizes, digests and finiteness; exit 1 if any is not whole."""
    from qig_core.checkpoints import commands

    rows: list[dict[str, Any]] = []
    for report in commands.verify(_run(run, runs), checkpoint):
        if json:
            print_json(report)
        if "result" in report:
            rows = report["result"]
    if not json:
        _show_checkpoints(rows, json=False)
    if any(row["status"] != "COMPLETE" for row in rows):
        raise typer.Exit(ExitCode.FOUND_BAD)


def _show_checkpoints(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        err.print("no checkpoints")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("checkpoint", "step", "status", "reason", "tags", "problems"):
        table.add_column(column, justify="right" if column == "step" else "left", overflow="fold")
    for row in rows:
        cells = [
            row["name"],
            row["step"],
            row["status"],
            row["reason"],
            " ".join(row["tags"]),
            "; ".join(row.get("problems", [])),
        ]
        table.add_row(*(Text(printable("–" if cell is None else cell)) for cell in cells))
    out.print(table)


@app.command()
def demo(
    steps: Annotated[int, typer.Option(help="Steps to train where there is no terminal.")] = 300,
    runs: Runs = None,
) -> None:
    """Train in the background with the dashboard in front; without a terminal, train a little and print a snapshot."""
    from qig_core.demo import run_demo

    _need("torch", "train")
    raise typer.Exit(run_demo(runs or default_root(), steps))


def main() -> None:
    """The console script: errors of ours become one sentence and their exit code."""
    try:
        app(prog_name="qig-core")
    except QigError as error:
        err.print(printable(f"qig-core: {error}"), soft_wrap=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
