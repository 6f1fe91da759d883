"""Which machine and process this is, and whether another process still is the one that was written down."""

import os
import platform
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

from qig_core.rundir.redaction import redact_argv
from qig_core.rundir.schema import GitRevision, SessionRecord


def host_name() -> str:
    return socket.gethostname()


def boot_id() -> str | None:
    """The kernel's random id of this boot; None where there is none to read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it is gone or not readable.

    A pid is used again; pid and start ticks together are not. A zombie counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # The name before the last bracket is the process's own choice, in any bytes.
        fields = stat[stat.rindex(b")") + 2 :].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def process_is(pid: int, ticks: int | None, host: str, boot: str | None) -> bool | None:
    """Whether the recorded process still runs: True, False, or None where that cannot be known from here."""
    if host != host_name() or boot is None or boot != boot_id() or ticks is None:
        return None
    return start_ticks(pid) == ticks


def this_process(session: str, resumed_from: str | None = None) -> SessionRecord:
    """This process as the writer of a run from now on."""
    pid = os.getpid()
    return SessionRecord(
        id=session,
        t=time.time(),
        pid=pid,
        host=host_name(),
        boot_id=boot_id(),
        start_ticks=start_ticks(pid),
        argv=redact_argv(sys.argv),
        resumed_from=resumed_from,
    )


def user_name() -> str:
    """A label for people; nothing trusts it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def git_revision(folder: Path) -> GitRevision | None:
    """The commit that a folder's repository stands at, and whether tracked files differ; None outside a repository."""
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        return GitRevision(revision, bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Of the program, and of what a run's numbers come from, where that has been imported."""
    from importlib.metadata import version  # writers only: a reader starts without it

    found = {"python": platform.python_version(), "qig-tui": version("qig-tui")}
    for name in ("torch", "numpy"):
        if known := getattr(sys.modules.get(name), "__version__", None):
            found[name] = str(known)
    return found
