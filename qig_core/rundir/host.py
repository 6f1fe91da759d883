"""Which machine and process this is, and whether another process still is the one that was written down."""

import os
import pwd
import socket
from pathlib import Path


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
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rfind(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def process_is(pid: int, ticks: int | None, host: str, boot: str | None) -> bool | None:
    """Whether the recorded process still runs: True, False, or None where that cannot be known from here."""
    if host != host_name() or boot is None or boot != boot_id() or ticks is None:
        return None
    return start_ticks(pid) == ticks


def user_name() -> str:
    """A label for people; nothing trusts it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
