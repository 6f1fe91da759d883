"""What a person at a terminal sees of a training run: where it is, how it goes, how it ended, what to do next."""

from collections.abc import Callable, Mapping

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qig_core.checkpoints.going_on import how_to_go_on
from qig_core.errors import ExitCode
from qig_core.terminal import command, err, tell
from qig_core.training.loop import Report, Started, train


def drive(started: Started) -> int:
    """Train, with progress; say how it ended and what to do next."""
    run, total = started.writer.run, started.program.config.steps
    restored = started.restored
    where = f"from step {restored.step}" + (f" of {restored.checkpoint}" if restored.checkpoint else "")
    tell(f"run {run.id} in {run.path}: {total} steps {where}")
    report, close = _reporter(restored.step, total)
    try:
        monitor = train(started, report)
    finally:
        close()
    step = started.writer.heartbeat.step
    if monitor.exit_code == ExitCode.OK:
        outcome = f", {started.program.outcome}" if started.program.outcome else ""
        tell(f"done: {step} steps{outcome}; see it with: {command('qig-tui', run.path)}")
    elif run.exists() and started.program.remedy:
        tell(started.program.remedy.replace("RUN", command(run.path)))
    elif run.exists():
        tell(how_to_go_on(run, monitor.exit_code))
    return int(monitor.exit_code)


def _reporter(start: int, total: int) -> tuple[Report, Callable[[], None]]:
    """What shows progress: a bar on a terminal, a line now and then elsewhere; and how to end it."""

    def figures(metrics: Mapping[str, float | None]) -> str:
        shown = {"loss": "loss", "loss_heldout": "held-out", "phi": "phi", "kappa": "kappa", "gain": "g"}
        parts = [f"{label} {value:.3f}" for key, label in shown.items() if (value := metrics.get(key)) is not None]
        return "  ".join(parts)

    if not err.is_terminal:
        every = max(1, min(100, total // 20))
        untold: list[tuple[int, Mapping[str, float | None]]] = []

        def line(step: int, metrics: Mapping[str, float | None]) -> None:
            untold[:] = [(step, metrics)]
            if step % every == 0:
                tell_last()

        def tell_last() -> None:
            while untold:
                step, metrics = untold.pop()
                tell(f"step {step}/{total}  {figures(metrics)}")

        return line, tell_last

    bar = Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=err,
        refresh_per_second=4,
    )
    task = bar.add_task("", total=total, completed=start, figures="")
    bar.start()

    def advance(step: int, metrics: Mapping[str, float | None]) -> None:
        bar.update(task, completed=step, figures=figures(metrics))

    return advance, bar.stop
