"""What commands print: sentences, tables, JSON lines, and commands that a person may type next. Reads no run."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from qig_core.errors import ExitCode
from qig_core.rundir.printable import printable

_UNBOUNDED = 100_000
"""Columns where the output is no terminal: a program that reads it wants whole words."""
_FOLDED = 10
"""What a column that folds keeps at least."""


def _console(*, stderr: bool) -> Console:
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _UNBOUNDED
    return made


out = _console(stderr=False)
err = _console(stderr=True)


def tell(sentence: str) -> None:
    """One sentence on stderr."""
    err.print(printable(sentence), soft_wrap=True)


def print_json(value: object) -> None:
    """One JSON object as a line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = (), fold: Sequence[str]
) -> None:
    """A table in which nothing is cut: on a narrow terminal the cells of `fold` take more lines.

    Args:
        right: the columns that are aligned to the right.
    """
    cells = [[printable("–" if cell is None else str(cell)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    least = -2
    for number, column in enumerate(columns):
        whole = max(cell_len(text) for text in (column, *(row[number] for row in cells)))
        least += 2 + (min(whole, _FOLDED) if column in fold else whole)
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in fold)
    for row in cells:
        table.add_row(*map(Text, row))
    _print(table, least)


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """What a thing is, a label and its value a line; on a narrow terminal the values fold."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(printable(label)), Text(printable(value)))
    _print(table)


def _print(table: Table, least: int = 0) -> None:
    """In at least so many columns, without blanks at the ends of the lines."""
    console = _console(stderr=False)
    console.size = (max(console.width, least), console.height)  # of a dumb terminal rich ignores the width alone
    with console.capture() as captured:
        console.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    sys.stdout.flush()


@contextmanager
def progress_bar(label: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while something long goes on, where that is a terminal; it leaves no trace.

    Gives what is called with the bytes done so far and the bytes in all.
    """
    if not (shown and err.is_terminal):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(printable(label))
        yield lambda done, total: progress.update(task, completed=done, total=total)


def command(*words: str | Path) -> str:
    """A command as it can be typed; a path below the working directory by its short name."""
    return shlex.join([_short(word) if isinstance(word, Path) else word for word in words])


def resume_command(path: Path, exit_code: int | None) -> str:
    """How to go on with a run of `qig-core train` that ended so."""
    # What a limit stopped would be stopped again by the state that broke it.
    selector = "@last-good" if exit_code == ExitCode.LIMIT else ""
    return command("qig-core", "train", "--resume", path.with_name(path.name + selector))


def _short(path: Path) -> str:
    here = Path.cwd()
    absolute = path.absolute()
    if not absolute.is_relative_to(here):
        return str(absolute)
    short = str(absolute.relative_to(here))
    return short if "/" in short or short == "." else f"./{short}"
