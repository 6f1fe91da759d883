"""`qig-tui export RUN`: parse, read the file twice, write one file whole or none."""

import argparse
import contextlib
import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

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
    from qig_tui.export.formats import Writer
    from qig_tui.export.reading import Survey, Wanted

_PROGRAM = "qig-tui export"
FORMATS = ("csv", "jsonl", "parquet")
_DESCRIPTION = "Write every sample of a run: none is left out, thinned or rounded."
_EPILOG = """\
Columns: seq, step, t (Unix seconds), session, regime, branch, and each metric that was measured at any step.
branch says where a sample stands: live; abandoned, where the run went back behind it later; or late, where its seq is
not above the one before it. A metric that is called like another column has "m." before its name.
csv      an empty cell was not measured; nan, inf and -inf are values that were not finite. Text that a spreadsheet
         would take for a formula has an apostrophe before it, control characters are escapes.
jsonl    the lines of the file with the same keys: a value that is not finite is null and named in "nonfinite".
parquet  null was not measured; NaN and infinities are such. Needs pyarrow: pip install 'qig-tui[parquet]'.
Lines that cannot be read are counted and told on stderr.
exit codes: 0 written. 2 there is no such run, stream or metric; it cannot be read; the file exists; pyarrow is missing.
74 the system refused to write, or the telemetry was replaced while it was read.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=_PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", metavar="RUN", help="a run directory, its id, its name, or latest")
    made.add_argument("--format", choices=FORMATS, help="default: by the ending of FILE, else csv")
    made.add_argument("--output", metavar="FILE", help="default: RUN-ID.csv in this folder; - is stdout")
    made.add_argument("--metrics", metavar="NAME,NAME", action="append", default=[], help="these alone, in this order")
    made.add_argument("--from", metavar="STEP", type=int, dest="first", help="from this step on")
    made.add_argument("--to", metavar="STEP", type=int, dest="last", help="up to this step, which is included")
    # All by default: what was measured on a branch that was left is no less true, and its rows say what they are.
    made.add_argument(
        "--branch", choices=("all", "live"), default="all", help="live leaves out what the run went back from"
    )
    made.add_argument("--basins", action="store_true", help="the basin too: basin_00 to basin_63, summing to 1")
    made.add_argument("--stream", metavar="NAME", help="a further stream of the run (rank0001)")
    made.add_argument("--force", action="store_true", help="replace FILE where it exists")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.first is not None and arguments.last is not None and arguments.first > arguments.last:
        made.error(f"--from {arguments.first} is after --to {arguments.last}")
    try:
        return _export(arguments)
    except Refusal as refusal:
        return refuse(_PROGRAM, refusal)
    except BrokenPipeError:
        close_stdout()
        return 0
    except OSError as error:
        # Of a file it is told where it is written.
        return refuse(_PROGRAM, unwritten("stdout", error))
    except KeyboardInterrupt:
        return 130


def _export(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    output, kind = _target(run, arguments)
    from qig_core.errors import RunFormatError
    from qig_core.rundir.reader import read_manifest
    from qig_tui.export.reading import Wanted, rows, survey
    from qig_tui.text import grouped, size

    try:
        # Its format says whether the records can be understood.
        read_manifest(run)
    except RunFormatError as error:
        raise Refusal(str(error)) from error
    path = run.telemetry(None if arguments.stream is None else stream_name(run, arguments.stream))
    names = [name for given in arguments.metrics for name in given.split(",") if name]
    wanted = Wanted(
        metrics=tuple(dict.fromkeys(names)),
        first=arguments.first,
        last=arguments.last,
        live_only=arguments.branch == "live",
    )
    progress = Progress()
    odd: Counter[str] = Counter()
    written = 0
    try:
        known = survey(path, wanted, progress)
        with _opened(output, force=arguments.force) as out:
            writer = _writer(kind, out, known, wanted, arguments.basins, odd)
            for some in rows(path, known, wanted, progress, odd):
                writer.write(some)
                written += len(some)
            writer.close()
            out.flush()
    finally:
        progress.done()
    what = f"{grouped(written)} of {grouped(known.samples)} samples, {grouped(len(known.names))} metrics"
    where = "" if output == "-" else f", {size(os.path.getsize(output))} in {output}"
    say(_safe(f"{_PROGRAM}: {what}{where}"))
    for line in _told(known, odd):
        say(_safe(f"{_PROGRAM}: {line}"))
    return 0


def _target(run: "RunDir", arguments: argparse.Namespace) -> tuple[str, str]:
    """Where to, and in which format."""
    given: str | None = arguments.output
    ending = (given or "").rpartition(".")[2]
    kind: str = arguments.format or (ending if ending in FORMATS else "csv")
    if given == "-":
        if kind == "parquet" and sys.stdout.isatty():
            raise Refusal("Parquet is not for a terminal; name a file with --output")
        return given, kind
    output = given or default_output(run, f"{file_id(run)}.{kind}")
    if os.path.isdir(output):
        raise Refusal(f"{output!r} is a folder; name a file")
    _check_free(output, force=arguments.force)
    return output, kind


def _check_free(output: str, *, force: bool) -> None:
    if not force and os.path.lexists(output):
        raise Refusal(f"{output!r} exists; --force replaces it")


def _writer(kind: str, out: BinaryIO, known: "Survey", wanted: "Wanted", basins: bool, odd: Counter[str]) -> "Writer":
    from qig_tui.export.formats import CsvWriter, JsonlWriter, ParquetWriter

    if kind == "jsonl":
        return JsonlWriter(out, known.names if wanted.metrics else None, basins=basins, odd=odd)
    made = CsvWriter if kind == "csv" else ParquetWriter
    return made(out, known.names, basins=basins, odd=odd)


def _told(known: "Survey", odd: Counter[str]) -> Iterator[str]:
    """What is not as it should be, a sentence each."""
    if known.bad:
        yield f"{_count(known.bad, 'line')} unreadable, left out"
    if odd["late"]:
        yield f"{_count(odd['late'], 'sample')} with a seq that is not above the one before: the branch is late"
    if odd["basins"]:
        yield f"{_count(odd['basins'], 'basin')} with no place in a column, or no distribution, left out"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _safe(line: str) -> str:
    from qig_core.rundir.printable import printable

    return printable(line, 1000)


@contextlib.contextmanager
def _opened(output: str, *, force: bool) -> Iterator[BinaryIO]:
    """stdout, or a temporary file beside `output` that takes its name at the end, and is gone if there is none.

    Raises:
        Refusal: the system refuses it.
    """
    if output == "-":
        yield sys.stdout.buffer
        return
    folder, name = os.path.split(output)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise unwritten(output, error) from error
    try:
        with open(fd, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(fd)
        _check_free(output, force=force)
        os.replace(temporary, output)
    except OSError as error:
        _remove(temporary)
        raise unwritten(output, error) from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
