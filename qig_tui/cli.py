"""`qig-tui`: parse, check the path with os, and only then import what draws. Must stay quick."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from qig_tui.setup import SCREENS
from qig_tui.terminal import AUTO, DARK, HUNG_UP, SHORT, has_colours, is_blind

if TYPE_CHECKING:
    from textual.driver import Driver

USAGE = 2

_DESCRIPTION = "Watch a training run, stop it safely, bring it back."
_EPILOG = """\
further commands, each with its own --help: `qig-tui report RUN` writes a post-mortem, `qig-tui export RUN` every sample
as CSV, JSON lines or Parquet, `qig-tui serve PATH` shows the dashboard in a browser. A path of such a name: ./report.
PATH is a run directory, a folder of runs (default: $QIG_RUNS, else ./runs) or a Markdown file; or, of a run under that
default, its id, its name if no other has it, or "latest".
exit codes of --once: 0 the run is well: it works (LIVE, SLOW, BUSY), is PAUSED, or ended with 0; and no condition is
critical. 1 it is not: HUNG, SILENT, KILLED, ended otherwise, or a condition is critical; with --at: one was critical
then. 2 there is no such run or step, or it cannot be read.
"""


_COLUMNS = range(20, 501)
_ROWS = range(5, 201)
"""Smaller shows nothing, larger takes minutes."""


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if match is None or int(match[1]) not in _COLUMNS or int(match[2]) not in _ROWS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not COLUMNSxROWS, as in 160x48, of {_COLUMNS[0]} to {_COLUMNS[-1]} columns and "
            f"{_ROWS[0]} to {_ROWS[-1]} rows"
        )
    return int(match[1]), int(match[2])


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: a start must stay quick."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"qig-tui {version('qig-tui')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="qig-tui",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "path", nargs="?", metavar="PATH", help="a run (directory, id, name, latest), a folder, a .md file"
    )
    made.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    made.add_argument("--once", action="store_true", help="print a snapshot as text and leave")
    made.add_argument("--json", action="store_true", help="with --once: the snapshot as JSON")
    made.add_argument("--at", type=int, metavar="STEP", help="show the run as it was at a step; also with --once")
    made.add_argument("--screen", choices=SCREENS, default="run", help="of a run the screen to open (default: run)")
    made.add_argument("--stream", metavar="NAME", help="of a run the further stream to look at: control, branch, gary1")
    made.add_argument("--read-only", action="store_true", help="disable every command")
    made.add_argument("--screenshot", metavar="OUT.svg", help="write the first full screen as SVG and leave")
    made.add_argument("--size", type=_size, metavar="160x48", help="with --screenshot: columns x rows")
    made.add_argument(
        "--theme",
        metavar="NAME",
        help=f"colours of this start: auto (default: those chosen last, else what suits the terminal), "
        f"{', '.join(SHORT)}, or any theme of Textual; a screenshot is dark unless this says otherwise",
    )
    # For a launcher that started the trainer itself: leaving a live run asks what becomes of it.
    made.add_argument("--owned", action="store_true", help=argparse.SUPPRESS)
    # For `serve`: in somebody's browser nothing of this machine but the run may be reached.
    made.add_argument("--web", action="store_true", help=argparse.SUPPRESS)
    return made


def find(text: str | None) -> tuple[str, bool]:
    """The directory that PATH names and whether it is a run itself; `ValueError` says what is wrong in a sentence."""
    root = os.environ.get("QIG_RUNS") or "runs"
    path = root if text is None else text
    if text is not None and not os.path.exists(text):
        path = os.path.join(root, text)
        if not text or "/" in text or not os.path.exists(path):
            return _named(text, root), True
    if not os.path.isdir(path):
        if text is None:
            raise ValueError(f"there is no folder of runs at {path!r}; name a run, or set QIG_RUNS")
        if os.path.basename(path) != "run.json":
            raise ValueError(f"{path!r} is a file; name the run directory that holds it")
        path = os.path.dirname(path) or "."
    try:
        if os.path.isfile(os.path.join(path, "run.json")):
            return path, True
        with os.scandir(path) as entries:
            inside = [e.path for e in entries if os.path.isfile(os.path.join(e.path, "run.json"))]
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read: {error.strerror}") from error
    if not inside:
        raise ValueError(f"{path!r} holds no run: there is no run.json in it or in a folder of it")
    return (inside[0], True) if len(inside) == 1 else (path, False)


def _named(text: str, root: str) -> str:
    """The run under `root` that is meant by what is no path; `ValueError` where none is, or several are."""
    from pathlib import Path

    from qig_core.rundir.layout import resolve_run

    return str(resolve_run(text, Path(root)).path)


def main(argv: Sequence[str] | None = None) -> int | None:
    given = sys.argv[1:] if argv is None else list(argv)
    match given[:1]:
        case ["report"]:
            from qig_tui.report.command import main as report

            return report(given[1:])
        case ["export"]:
            from qig_tui.export.command import main as export

            return export(given[1:])
        case ["serve"]:
            from qig_tui.serve import main as serve

            return serve(given[1:])
    made = parser()
    arguments = made.parse_args(given)
    if arguments.json and not arguments.once:
        made.error("--json belongs to --once")
    if arguments.web and arguments.owned:
        made.error("--owned is for a terminal")
    if arguments.screenshot and not arguments.screenshot.lower().endswith(".svg"):
        made.error("--screenshot writes SVG: its name ends in .svg")
    if arguments.size and not arguments.screenshot:
        made.error("--size belongs to --screenshot")
    is_note = bool(arguments.path) and arguments.path.endswith(".md") and os.path.isfile(arguments.path)
    of_one = arguments.at is not None or arguments.screen != "run" or arguments.stream is not None
    if is_note and (arguments.once or of_one):
        return _refuse(f"{arguments.path!r} is a file of notes; --once, --at, --screen and --stream belong to runs")
    try:
        path, is_run = (arguments.path, False) if is_note else find(arguments.path)
    except ValueError as error:
        return _refuse(str(error))
    if not is_run and of_one:
        return _refuse(f"{path!r} holds several runs; --at, --screen and --stream belong to one of them")
    if arguments.once:
        return _once(path, is_run, at=arguments.at, stream=arguments.stream, as_json=arguments.json)
    return _screen(path, is_run, arguments)


def _refuse(sentence: str) -> int:
    from qig_core.rundir.printable import printable

    print(f"qig-tui: {printable(sentence, 500)}", file=sys.stderr)
    return USAGE


def _once(path: str, is_run: bool, *, at: int | None, stream: str | None, as_json: bool) -> int:
    from qig_core.errors import RunFormatError
    from qig_core.rundir.layout import RunDir, list_runs
    from qig_tui.once import exit_code, render, take

    code = 0
    runs = [RunDir(path)] if is_run else list(list_runs(RunDir(path).path))
    try:
        for index, run in enumerate(runs):
            try:
                picture = take(run, at=at, stream=stream)
            except (RunFormatError, LookupError) as error:
                # Of several runs the others can still be told.
                code = _refuse(str(error))
                continue
            if index and not as_json:
                print()
            print(render(picture, as_json=as_json), end="", flush=True)
            code = max(code, exit_code(picture))
    except BrokenPipeError:
        # The reader had enough (`| head`); Python would complain again while it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _screen(path: str, is_run: bool, arguments: argparse.Namespace) -> int | None:
    from qig_core.errors import RunFormatError
    from qig_core.rundir.layout import RunDir
    from qig_tui.sources.local import open_run

    run = RunDir(os.path.abspath(path))
    if is_run:
        try:
            open_run(run, arguments.stream)
        except (RunFormatError, LookupError) as error:
            return _refuse(str(error))
    screenshot = arguments.screenshot is not None
    if screenshot:
        # The same whoever takes it.
        os.environ.pop("NO_COLOR", None)
    else:
        if not arguments.web and not sys.stdout.isatty():
            return _refuse("this is not a terminal; --once prints a snapshot")
        if is_blind(os.environ):
            return _refuse(
                f"a terminal of the type {os.environ['TERM']!r} cannot place text; set TERM to what it is, or --once "
                "prints a snapshot"
            )
        if not has_colours(os.environ):
            os.environ["NO_COLOR"] = "1"
        elif "NO_COLOR" in os.environ:
            # Set and empty it means nothing; Textual would heed it.
            del os.environ["NO_COLOR"]
    remote = bool(os.environ.get("SSH_CONNECTION"))
    # Textual reads both when it is imported; a slow line is spared frames that nobody can see.
    os.environ.setdefault("TEXTUAL_FPS", "15" if remote else "30")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    # A key must not wait for the thread that reads: it has the interpreter for a millisecond at a time, not for five.
    sys.setswitchinterval(0.001)
    from qig_tui.app import QigApp
    from qig_tui.memory import Memory, state_path
    from qig_tui.setup import FRAME_S, REMOTE_FRAME_S, Setup

    memory = Memory() if screenshot else Memory(state_path())
    theme = arguments.theme or (DARK if screenshot else AUTO)
    try:
        app = QigApp(
            run.path,
            is_run=is_run,
            setup=Setup(
                read_only=arguments.read_only,
                web=arguments.web,
                owned=arguments.owned,
                frame_s=REMOTE_FRAME_S if remote else FRAME_S,
                at=arguments.at,
                screen=arguments.screen,
                stream=arguments.stream,
            ),
            theme=theme,
            memory=memory,
            driver=_driver(),
        )
    except ValueError as error:
        return _refuse(str(error))
    if screenshot:
        from qig_tui.screenshot import take_screenshot

        try:
            take_screenshot(app, arguments.screenshot, arguments.size or (160, 48))
        except OSError as error:
            return _refuse(f"{arguments.screenshot!r} cannot be written: {error.strerror}")
        return 0
    app.run()
    if app.return_code == HUNG_UP:
        # What is left to say goes nowhere; Python would fail on it when it ends.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.dup2(nowhere, sys.stderr.fileno())
    return app.return_code


def _driver() -> "type[Driver] | None":
    """Ours for a terminal; None leaves it to Textual: one that was asked for by name, as a web server does."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return None
    from qig_tui.driver import ThriftyDriver

    return ThriftyDriver


if __name__ == "__main__":
    sys.exit(main())
