"""`qig-tui report RUN`: parse, read, write a folder; the document last, so that it never names what is not there."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qig_tui.commandline import (
    Progress,
    Refusal,
    close_stdout,
    default_output,
    file_id,
    find_run,
    refuse,
    say,
    stream_name,
    unwritten,
)

if TYPE_CHECKING:
    from qig_core.rundir.layout import RunDir
    from qig_tui.report.assembly import Report

_PROGRAM = "qig-tui report"
_DESCRIPTION = "Write a post-mortem of a run: a Markdown document and its charts."
_EPILOG = """\
DIR gets report.md, a chart as SVG for each headline metric and each that raised an alarm (light and dark), and the last
samples as CSV. It works on a run that still goes on, and on one that never said how it ended.
With --json, stdout holds one object a line: {"progress": {"doing", "done", "total"}} ..., at last {"result": {"path",
"document", "files", "run", "state", "samples"}}.
exit codes: 0 written. 2 there is no such run, it cannot be read, or DIR holds something else. 74 the system refused to
write.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=_PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", metavar="RUN", help="a run directory, its id, its name, or latest")
    made.add_argument(
        "--output", metavar="DIR", help="default: report-RUN-ID in this folder; an older report gives way"
    )
    made.add_argument("--stream", metavar="NAME", help="metrics and charts of a further stream: control, gary1")
    made.add_argument("--json", action="store_true", help="progress and result for programs")
    made.add_argument("--force", action="store_true", help="write into DIR whatever else it holds")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        return _report(arguments)
    except Refusal as refusal:
        return refuse(_PROGRAM, refusal)
    except BrokenPipeError:
        close_stdout()
        return 0
    except KeyboardInterrupt:
        return 130


def _report(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    beside = "" if arguments.stream is None else f"-{stream_name(run, arguments.stream)}"
    folder = Path(arguments.output or default_output(run, f"report-{file_id(run)}{beside}"))
    # Before the run is read, which may take a while.
    _check(folder, force=arguments.force)
    from qig_core.errors import RunFormatError
    from qig_core.rundir.printable import printable
    from qig_tui.report.assembly import make_report

    progress = Progress(as_json=arguments.json)
    try:
        made = make_report(run, progress, arguments.stream)
    except (RunFormatError, LookupError) as error:
        raise Refusal(str(error)) from error
    finally:
        progress.done()
    _check(folder, force=arguments.force)
    try:
        _write(folder, made.files)
    except OSError as error:
        raise unwritten(str(folder), error) from error
    document = folder / next(reversed(made.files))
    if arguments.json:
        progress.tell({"result": _result(run, made, document)})
    else:
        print(printable(document, 4096))
    if made.reading.picture.problem:
        say(f"{_PROGRAM}: {printable(made.reading.picture.problem, 500)}")
    return 0


def _result(run: "RunDir", made: "Report", document: Path) -> dict[str, object]:
    whole = document.absolute()
    return {
        "path": str(whole.parent),
        "document": str(whole),
        "files": list(made.files),
        "run": run.id,
        "state": str(made.reading.picture.liveness.word),
        "samples": made.reading.picture.history.read,
    }


def _check(folder: Path, *, force: bool) -> None:
    """Raises Refusal: the folder holds something else than an earlier report."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise Refusal(f"{str(folder)!r} is a file; name a folder") from error
    except OSError as error:
        raise unwritten(str(folder), error) from error
    if names and not force and not _is_report(folder):
        raise Refusal(f"{str(folder)!r} holds something else than a report; --force writes into it all the same")


def _is_report(folder: Path) -> bool:
    from qig_core.rundir.reader import open_regular
    from qig_tui.report.assembly import DOCUMENT
    from qig_tui.report.document import MARK

    try:
        with open(open_regular(folder / DOCUMENT), "rb") as file:
            return file.readline(100).rstrip() == MARK.encode()
    except OSError:
        return False


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Every file whole; what an older report leaves over is removed, and nothing else.

    Raises:
        OSError: as the system says.
    """
    from qig_core.rundir.atomic import write_document
    from qig_tui.report.assembly import OURS

    folder.mkdir(parents=True, exist_ok=True)
    was_report = _is_report(folder)
    for name, content in files.items():
        write_document(folder / name, content)
    for name in os.listdir(folder) if was_report else ():
        if name not in files and OURS.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
