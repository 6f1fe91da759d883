"""Processes that torch is loaded in from the start: forked from one that did nothing but load it.

Loading torch and what its first step loads takes three seconds of CPU, and a hundred tests need a process of their own
that trains or measures. Nothing of ours is loaded before the fork. What a command itself loads, limits that are set
before exec, and a terminal are asked with `subprocess` as ever.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "torch._decomp.decompositions_for_jvp", "torch.utils.data"])


def console_script(argv: list[str]) -> None:
    """qig-core, as its console script calls it."""
    sys.argv = ["qig-core", *argv]
    from qig_core.cli import main

    sys.exit(main())


def code(argv: list[str]) -> None:
    """As `python -c CODE ...`."""
    sys.argv = ["-c", *argv[1:]]
    exec(compile(argv[0], "<string>", "exec"), {"__name__": "__main__"})


def file(argv: list[str]) -> None:
    """As `python FILE ...`."""
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(argv[0]))
    runpy.run_path(argv[0], run_name="__main__")


def _begin(
    what: Callable[[list[str]], None], argv: list[str], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    for name, target in ((out, 1), (err, 2)):
        opened = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, target)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    what(argv)


class Warm:
    """What a test asks of a `subprocess.Popen` with captured text."""

    def __init__(
        self,
        what: Callable[[list[str]], None],
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.args = [str(each) for each in argv]
        self._files: list[IO[str]] = [tempfile.NamedTemporaryFile("r", encoding="utf-8") for _ in "12"]
        where, environment = os.fspath(cwd or os.getcwd()), dict(os.environ if env is None else env)
        given = (what, self.args, where, environment, *(each.name for each in self._files))
        self._process = _CONTEXT.Process(target=_begin, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (each.read() for each in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    what: Callable[[list[str]], None], *argv: str | Path, timeout: float = 120, cwd: str | Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """To its end, however it ends; one that takes longer is killed."""
    process = Warm(what, argv, cwd=cwd)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)
