"""qig-core: parse, build, call. What a command needs is imported when it runs; torch only where something trains."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from qig_core.commands import checkpoints
from qig_core.commands.arguments import Json, Run, Runs, find_run, find_run_at
from qig_core.errors import ExitCode, MissingExtra, QigError, Refused, RunFormatError, UsageError
from qig_core.rundir.layout import RunDir, default_root, list_runs, split_selector
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import VERBS
from qig_core.terminal import out, print_facts, print_json, print_table, tell

app = typer.Typer(
    name="qig-core",
    help="Train, watch and keep runs. RUN is an id under --runs, `latest`, a --name, or a path (with a / or a .).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(checkpoints.app, name="checkpoints")
alerts_app = typer.Typer(help="Who is told of a warning, a critical condition, the end.", no_args_is_help=True)
app.add_typer(alerts_app, name="alerts")


def _version(wanted: bool) -> None:
    if not wanted:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    try:
        torch = version("torch")  # what is installed says so; importing it would take seconds
    except PackageNotFoundError:
        torch = "is not installed"
    out.print(f"qig-tui {version('qig-tui')}, python {platform.python_version()}, torch {torch}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_version, help="Show the versions and leave.")
    ] = False,
) -> None:
    """Options of qig-core itself; its help stands above."""


@app.command(context_settings={"allow_extra_args": True})  # --corpus takes several, as a shell's * gives them
def train(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file; `qig-core config` prints every key. It wins over --preset, and --steps over it."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="What a new run starts from: default or tiny. (default: default)")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            help="kernel: one kernel. charlie: one whose Φ is suppressed, awakened, shown. constellation: several, "
            "watched by a frozen Ocean. (default: kernel)"
        ),
    ] = None,
    control: Annotated[bool, typer.Option("--control", help="Of charlie: suppress nothing, from birth on.")] = False,
    garys: Annotated[int | None, typer.Option(help="Of constellation: how many kernels. (default: 3)")] = None,
    runs: Runs = None,
    name: Annotated[str, typer.Option(help="A name to show beside the run's id.")] = "",
    run_id: Annotated[str, typer.Option("--id", help="The new run's id. (default: time and chance)")] = "",
    steps: Annotated[int | None, typer.Option(help="The total number of steps, over all sessions.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Text files and folders. (default: Python's language reference)")
    ] = None,
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
    from qig_core.safety.alerts import load_alerts
    from qig_core.training import config as configuration

    texts = _texts(context, corpus)
    if resume is not None and fork is not None:
        raise UsageError("--resume and --fork exclude each other: the same run, or a new one")
    origin = fork if resume is None else resume
    for option, given_for_new in (("--preset", preset), ("--program", program), ("--control", control or None)):
        if origin is not None and given_for_new is not None:
            raise UsageError(f"{option} is for a new run; this one has its recorded configuration")
    for option, value in (("--name", name), ("--id", run_id)):
        if resume is not None and value:
            raise UsageError(f"{option} is for a new run; a resumed one keeps its own")
    if accept_new_corpus and resume is None:
        raise UsageError("--accept-new-corpus is for --resume")
    given = configuration.read_toml(config) if config else {}
    alerts = load_alerts(given.pop("alerts", None), str(config))  # who is told is no part of the run
    chosen = program or given.get("program", "kernel")
    start = configuration.preset(preset or "default", chosen)
    if control:
        if chosen != "charlie":
            raise UsageError("--control is for --program charlie: the same run with nothing suppressed")
        given = configuration.merge(given, {"charlie": {"suppressed": False}})
    if garys is not None:
        if chosen != "constellation":
            raise UsageError("--garys is for --program constellation")
        given = configuration.merge(given, {"constellation": {"garys": garys}})
    if program is not None and given.get("program", program) != program:
        raise UsageError(f"--program {program}, but {str(config)!r} is for {given['program']}")
    if preset is not None and (won := configuration.overridden(start, given)):
        tell(f"qig-core: {str(config)!r} wins over --preset {preset} in {', '.join(won)}")
    if steps is not None:
        given = configuration.merge(given, {"steps": steps})
    if origin is None:
        given = configuration.merge(start, given)
    from qig_core.training import requests

    place = requests.Place(runs=runs or default_root(), run_id=run_id, name=name)
    if origin is None:
        request = requests.new(given, texts, place, alerts=alerts)
    else:
        text, selector = split_selector(origin)
        run = find_run(text, runs)
        if resume is not None:
            request = requests.resume(run, selector, given, texts, place, new_corpus=accept_new_corpus, alerts=alerts)
        else:
            request = requests.fork(run, selector, given, texts, place, alerts=alerts)
    _need("torch", "train")
    from qig_core.training.process import settle

    settle()  # before torch
    from qig_core.training.console import drive
    from qig_core.training.runs import begin

    raise typer.Exit(drive(begin(request)))


@app.command()
def recover(
    run: Run,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with it at once, here.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer the question whether to go on with yes.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """After a crash: what happened, the newest checkpoint that is sound, and the command that goes on from it.

    Damaged checkpoints are set aside. Exit 1: no sound checkpoint; 73: the trainer lives; else that of what went on.
    """
    from qig_core.commands.recovering import run_recover

    raise typer.Exit(run_recover(find_run(run, runs), resume=resume, yes=yes, json=json))


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtra(f"this command needs {module}; install it with: pip install 'qig-tui[{extra}]'")


@app.command()
def config(
    preset: Annotated[str, typer.Option(help="default or tiny.")] = "default",
    program: Annotated[str, typer.Option(help="kernel, charlie or constellation.")] = "kernel",
) -> None:
    """Print a whole configuration file: every key with its value."""
    from qig_core.safety.alerts import EXAMPLE
    from qig_core.training import config as configuration

    values = configuration.plain(configuration.build(configuration.preset(preset, program)))
    sys.stdout.write(f"{configuration.to_toml(values)}\n{EXAMPLE}")


@alerts_app.command(name="test")
def alerts_test(
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with a table for alerts. (default: your own settings)")
    ] = None,
) -> None:
    """Deliver an alert now, with everything that a run would need for it; exit 0 if that worked."""
    from qig_core.safety.alerts import load_alerts, send_test, settings_path
    from qig_core.training.config import read_toml

    settings = load_alerts(read_toml(config).get("alerts") if config else None, str(config))
    if settings is None:
        where = " and ".join(repr(str(path)) for path in (config, settings_path()) if path)
        raise UsageError(f"no table [alerts] in {where}; `qig-core config` prints an example")
    if failure := send_test(settings):
        raise Refused(f"not delivered: {failure}")
    tell("delivered")


@app.command(context_settings={"allow_extra_args": True})  # --corpus takes several, as for train
def measure(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|MODEL.py:FACTORY",
            help="RUN, RUN@STEP, RUN@NAME or a checkpoint's path; or a file of yours and a function in it that returns "
            "a torch module, or (module, batch). The file is executed.",
            show_default=False,
        ),
    ],
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Text files and folders. (default: the run's own, or Python's)")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="Of a run with several kernels: which, as gary1, control or branch.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Of MODEL.py: the module that is measured. (default: auto)")] = None,
    parts: Annotated[
        int | None, typer.Option(help="Of MODEL.py: groups of units that are cut, 2 to 12. (default: 8)")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Of MODEL.py: coordinates of each part, perturbed and read. (default: 4)")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Of MODEL.py: bytes in each of the eight sequences of text. (default: 64)")
    ] = None,
    packet: Annotated[
        Path | None, typer.Option(metavar="FILE.json|FILE.npz", help="Write the basin down for another run to read.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json|FILE.npz", help="How far the basin is from this packet's."),
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Φ, κ and the basin of a frozen model, with everything that they are comparable with."""
    texts = _texts(context, corpus)
    given = {"block": block, "parts": parts, "rank": rank, "length": length}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if target.endswith(".py") and Path(target).is_file():
        raise UsageError(f"{target!r} is a file: name a function in it too, {target}:FUNCTION")
    where = None if ".py:" in target else _run_of_checkpoint(target, runs)
    if where is None and stream is not None:
        raise UsageError("--stream is for a checkpoint of a run with several kernels")
    if where is not None and settings:
        raise UsageError(f"--{next(iter(settings))} is for MODEL.py:FACTORY; a checkpoint is measured as its run was")
    _need("torch", "train")
    from qig_core.commands.measuring import run_measure
    from qig_core.training.frozen import of_checkpoint, of_factory

    if where is None:
        look = partial(of_factory, target, texts, **settings)
    else:
        look = partial(of_checkpoint, *where, texts, stream=stream)
    raise typer.Exit(run_measure(look, packet=packet, against=against, json=json))


def _texts(context: typer.Context, corpus: list[Path] | None) -> list[Path]:
    """What --corpus names, and what follows it."""
    if context.args and not corpus:
        raise UsageError(f"unexpected argument {context.args[0]!r}; did you mean --corpus {context.args[0]!r}?")
    return [*(corpus or []), *map(Path, context.args)]


def _run_of_checkpoint(text: str, runs: Path | None) -> tuple[RunDir, str | None]:
    """RUN[@...], or the path of a checkpoint inside its run."""
    path = Path(text)
    if path.parent.name == "checkpoints" and (run := RunDir(path.resolve().parents[1])).exists():
        return run, path.name
    return find_run_at(text, None, runs)


@app.command()
def show(run: Run, runs: Runs = None, json: Json = False) -> None:
    """What a run is, where it stands, and where it comes from."""
    from qig_core.rundir.lineage import lineage_of, lineage_rows
    from qig_core.rundir.summary import summarise

    summary = summarise(find_run(run, runs), wait_for_beat_s=1.5)
    if summary.error is not None or summary.manifest is None:
        raise RunFormatError(summary.error)
    lineage = lineage_of(summary.run, summary.manifest)
    if json:
        more = {"manifest": summary.manifest, "basin": summary.basin_values(), "lineage": lineage}
        print_json(summary.to_dict() | more)
        return
    manifest, liveness = summary.manifest, summary.liveness
    facts = {
        "run": f"{manifest.id}  {manifest.name}",
        "state": f"{liveness.glyph} {liveness.text}" if liveness else "",
        "step": f"{summary.step if summary.step is not None else '–'} / {manifest.total_steps or '–'}",
        "program": manifest.program,
        "corpus": f"{manifest.corpus.get('name', '–')}  {str(manifest.corpus.get('digest', ''))[:12]}",
        "versions": "  ".join(f"{k} {v}" for k, v in manifest.versions.items()),
        "regime": summary.regime or "–",
    }
    rows = [*facts.items(), *lineage_rows(lineage)]
    if (program := manifest.config.get("program", "kernel")) != "kernel":
        from qig_core.commands.programs import where_it_stands

        rows.insert(4, ("trains", f"{program}  {where_it_stands(summary.run)}"))
    for metric, number in sorted(summary.metrics.items()):
        shown = summary.nonfinite.get(metric, "not measured") if number is None else f"{number:.6g}"
        rows.append((metric, shown))
    rows += [("condition", f"{condition}: {state}") for condition, state in summary.conditions.items()]
    print_facts(rows)


@app.command()
def ocean(
    run: Run,
    at: Annotated[int | None, typer.Option(metavar="STEP", help="The last one up to there. (default: of all)")] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What the frozen Ocean last said of a constellation: the Garys, how far apart they are, what it recommends."""
    from qig_core.commands.programs import report_at
    from qig_core.commands.programs import show as show_report

    show_report(report_at(find_run(run, runs), at), json=json)


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
    for summary in summaries:
        if summary.error is not None:
            tell(f"{summary.run.id}: {summary.error}")
    if not summaries:
        tell(f"no runs under {str(root)!r}; make one with: qig-core train")
        return
    rows = []
    for summary in summaries:
        state = summary.liveness.text if summary.liveness and not summary.error else "UNREADABLE"
        values = [summary.metrics.get(key) for key in ("phi", "kappa", "loss")]
        name = printable(summary.manifest.name if summary.manifest else "", 100)
        figures = [None if value is None else f"{value:.3f}" for value in values]
        rows.append((summary.run.id, name, state, summary.step, *figures))
    numbers = ("step", "phi", "kappa", "loss")
    print_table(("run", "name", "state", *numbers), rows, right=numbers, fold=("name", "state"))


@app.command(context_settings={"ignore_unknown_options": True})  # -3 is a value, to be refused in words
def ctl(
    run: Run,
    verb: Annotated[str, typer.Argument(help=f"{', '.join(VERBS)}.", show_default=False)],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[N|CHECKPOINT] [TAG]",
            help="For set_log_every: steps between samples. For restore, pin, unpin and tag: STEP, a name, latest, "
            "best or last-good. For tag: the word too.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the end of it.")] = 30.0,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Ask the live trainer of a run for something and show the stages; exit 0 only when it is done."""
    from qig_core.commands.asking import args_of, ask

    where = find_run(run, runs)
    done = ask(where, verb, args_of(verb, values or [], where), wait_s=wait, json=json)
    raise typer.Exit(ExitCode.OK if done else ExitCode.FOUND_BAD)


@app.command()
def doctor(
    run: Run,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte of every checkpoint as well.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Look a run's directory over, whatever became of it: what is wrong, and what cures it. It changes nothing.

    Exit 1 if anything is bad; what is only a warning is not.
    """
    from qig_core.commands.doctor import examine, find

    result: dict[str, Any] = {}
    for report in examine(find(run, runs or default_root()), verify=verify):
        if json:
            print_json(report)
        result = report.get("result", result)
    if not json:
        rows = [
            (one["check"], one["state"], f"{one['what']}; run: {one['cure']}" if one["cure"] else one["what"])
            for one in result["findings"]
        ]
        print_table(("check", "state", "what"), rows, fold=("what",))
        tell(f"{result['id']}: bad {result['bad']}, warnings {result['warning']}")
    if result["bad"]:
        raise typer.Exit(ExitCode.FOUND_BAD)


@app.command(name="rm")
def remove(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs: ids, `latest`, names, or paths.", show_default=False),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer the question with yes.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Delete runs and everything in them, for good. One that is being written is refused.

    A removal that was interrupted is finished by the same command.
    """
    from qig_core.commands.removal import look_at_all
    from qig_core.commands.removal import remove as delete

    doomed = look_at_all(run, runs or default_root())
    for one in doomed:
        for sentence in one.sentences():
            tell(sentence)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was deleted: there is no terminal to ask on; add --yes")
        if not typer.confirm("Delete for good?", err=True):
            raise Refused("nothing was deleted")
    for one in doomed:
        for report in delete(one):
            if json:
                print_json(report)
        tell(f"{one.run.id} is deleted")


@app.command()
def demo(
    steps: Annotated[int, typer.Option(help="Steps to train where there is no terminal.")] = 300,
    runs: Runs = None,
) -> None:
    """Train in the background with the dashboard in front; without a terminal, train a little and print a snapshot."""
    from qig_core.commands.demo import run_demo

    _need("torch", "train")
    raise typer.Exit(run_demo(runs or default_root(), steps))


@app.command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT", help="suppression, awakening, observers, or all.", show_default=False),
    ],
    seeds: Annotated[int, typer.Option(help="Runs of each kind, from seed 0 on; at least 2.")] = 3,
    preset: Annotated[str, typer.Option(help="What the runs start from: default or tiny.")] = "tiny",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where EXPERIMENT.json and .svg go, and the runs.")] = Path(
        "experiments"
    ),
    json: Json = False,
) -> None:
    """Train what an experiment needs, and judge it by the rule that was written down before the data.

    The runs lie in DIR/runs; one that has ended is taken as it is, one that was stopped is gone on with. Exit 1: an
    experiment fails; 0: it passes, or is inconclusive, and says so.
    """
    _need("torch", "train")
    _need("matplotlib", "experiments")
    from qig_core.training.process import settle

    settle()  # before torch
    from qig_core.commands.experimenting import run_experiments

    raise typer.Exit(run_experiments(name, preset=preset, seeds=seeds, out=out, json=json))


def main() -> None:
    """The console script: errors of ours become one sentence and their exit code."""
    try:
        app(prog_name="qig-core")
    except QigError as error:
        tell(f"qig-core: {error}")
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
