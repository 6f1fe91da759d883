"""What a person at a terminal sees of a training run: where it is, how it goes, how it ended, what to do next."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qig_core.errors import ExitCode
from qig_core.training.loop import Report, Started, train

_err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def drive(started: Started) -> int:
    """Train, with progress; say how it ended and what to do next."""
    run, total = started.writer.run, started.trainer.config.steps
    restored = started.restored
    where = f"from step {restored.step}" + (f" of {restored.checkpoint}" if restored.checkpoint else "")
    _err.print(f"run {run.id} in {run.path}: {total} steps {where}", soft_wrap=True)
    report, close = _reporter(restored.step, total)
    try:
        monitor = train(started, report)
    finally:
        close()
    step = started.writer.heartbeat.step
    if monitor.exit_code == ExitCode.OK:
        _err.print(f"done: {step} steps; see it with: qig-tui {run.path}", soft_wrap=True)
    else:
        # What a limit stopped would be stopped again by the state that broke it.
        where = "@last-good" if monitor.exit_code == ExitCode.LIMIT else ""
        _err.print(f"go on with: qig-core train --resume {run.path}{where}", soft_wrap=True)
    return int(monitor.exit_code)


def _reporter(start: int, total: int) -> tuple[Report, Callable[[], None]]:
    """What shows progress: a bar on a terminal, a line now and then elsewhere; and how to end it."""

    def figures(metrics: Mapping[str, float | None]) -> str:
        shown = {"loss": "loss", "loss_heldout": "held-out", "phi": "phi", "kappa": "kappa"}
        parts = [f"{label} {value:.3f}" for key, label in shown.items() if (value := metrics.get(key)) is not None]
        return "  ".join(parts)

    if not _err.is_terminal:
        every = max(1, min(100, total // 20))

        def line(step: int, metrics: Mapping[str, float | None]) -> None:
            if step % every == 0 or step == total:
                _err.print(f"step {step}/{total}  {figures(metrics)}", soft_wrap=True)

        return line, lambda: None

    bar = Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=_err,
        refresh_per_second=4,
    )
    task = bar.add_task("", total=total, completed=start, figures="")
    bar.start()

    def advance(step: int, metrics: Mapping[str, float | None]) -> None:
        bar.update(task, completed=step, figures=figures(metrics))

    return advance, bar.stop
