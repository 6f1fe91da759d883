"""A dead run of `qig-core train` resumed by a child process in the foreground.

Nothing that a file says is ever executed: the argv list consists of this interpreter, literals and one path.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from qig_core.rundir.layout import RunDir


def resume_argv(run: RunDir, checkpoint: str | None) -> list[str]:
    """The command; without a checkpoint the run begins again at step 0."""
    where = str(run.path.absolute()) + (f"@{checkpoint}" if checkpoint else "")
    return [sys.executable, "-m", "qig_core.cli", "train", "--resume", where]


def run_in_foreground(argv: Sequence[str], *, stdout_is_taken: bool = False) -> int:
    """Start it, wait for it, and return its exit code, 128 + signal where one ended it.

    Ctrl-C reaches the child from the terminal and is waited for; SIGTERM and SIGHUP are passed on. A signal that this
    process ignores, the child ignores too.

    Args:
        stdout_is_taken: what the child prints goes to stderr.
    """
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            return  # a second one would tell the trainer not to wait for its checkpoint
        if child is None:
            early.append(signum)
        else:
            child.send_signal(signum)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)  # no handler outlives the exec: the child begins with the default
    try:
        child = subprocess.Popen(argv, stdout=sys.stderr if stdout_is_taken else None)
        for signum in early:
            child.send_signal(signum)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
