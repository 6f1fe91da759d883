"""What the subcommands share: which run is meant, a refusal in a sentence, progress for people and for programs."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qig_core.rundir.layout import RunDir

USAGE = 2
IO = 74
_EVERY_S = 0.1


class Refusal(Exception):
    """Why a subcommand cannot do it, in a sentence; `code` is its exit code."""

    def __init__(self, sentence: str, code: int = USAGE) -> None:
        super().__init__(sentence)
        self.code = code


def unwritten(path: str, error: OSError) -> Refusal:
    """That the system refused to write something."""
    return Refusal(f"{path!r} cannot be written: {error.strerror or error}", IO)


def find_run(text: str) -> "RunDir":
    """The one run that is named, its path absolute.

    Raises:
        Refusal: there is none, or there are several.
    """
    from qig_core.rundir.layout import RunDir, list_runs
    from qig_tui.cli import find

    try:
        path, is_run = find(text)
        several = 0 if is_run else sum(1 for _ in list_runs(RunDir(path).path))
    except ValueError as error:
        raise Refusal(str(error)) from error
    if not is_run:
        raise Refusal(f"{path!r} holds {several} runs; name one of them")
    return RunDir(os.path.abspath(path))


def default_output(run: "RunDir", name: str) -> str:
    """A name in the current folder.

    Raises:
        Refusal: that lies within the run directory, where only its trainer writes.
    """
    here, there = os.path.realpath(os.curdir), os.path.realpath(run.path)
    if here == there or here.startswith(there + os.sep):
        raise Refusal("this folder belongs to the run, where nothing else is written; name another with --output")
    return name


def file_id(run: "RunDir") -> str:
    """The run's id where it can stand in a file's name."""
    from qig_core.rundir.values import is_run_id

    return run.id if is_run_id(run.id) else "run"


def stream_name(run: "RunDir", name: str) -> str:
    """The name of a further stream that the run has.

    Raises:
        Refusal: it has none of that name, or its manifest cannot be read.
    """
    from qig_core.errors import RunFormatError
    from qig_core.rundir.reader import read_manifest
    from qig_tui.sources.telemetry import check_stream, streams_of

    try:
        check_stream(name, streams_of(run, read_manifest(run)))
    except (RunFormatError, LookupError) as error:
        raise Refusal(str(error)) from error
    return name


def refuse(program: str, refusal: Refusal) -> int:
    """Say why not; the exit code."""
    from qig_core.rundir.printable import printable

    say(f"{program}: {printable(refusal, 500)}")
    return refusal.code


def say(line: str) -> None:
    """A line for a person. A reader that has gone away is no failure of what was done."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def close_stdout() -> None:
    """The reader had enough (`| head`); Python would complain again while it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """How far long work has come: a line that overwrites itself on a terminal, or JSON objects on stdout."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._json = as_json
        self._shown = not as_json and sys.stderr.isatty()
        self._last = -1.0
        self._doing = ""

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Tell it, at most ten times a second."""
        now = time.monotonic()
        if now - self._last < _EVERY_S and doing == self._doing:
            return
        self._last, self._doing = now, doing
        if self._json:
            self.tell({"progress": {"doing": doing, "done": done, "total": total}})
        elif self._shown:
            share = f" {100 * done // total} %" if total else ""
            with contextlib.suppress(OSError):
                print(f"\r\x1b[K{doing}{share}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Take the line away."""
        if self._shown and self._doing:
            with contextlib.suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def tell(found: Mapping[str, Any]) -> None:
        """One JSON object a line on stdout."""
        print(json.dumps(found, allow_nan=False), flush=True)
