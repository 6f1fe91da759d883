"""On which mounted file system a path lies, as Linux tells it. Asks the system and judges nothing."""

import re
from pathlib import Path, PurePath

import msgspec

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """One line of /proc/self/mountinfo."""

    point: str
    kind: str
    """As the kernel spells it: ext4, nfs4, tmpfs, fuse.sshfs."""
    read_only: bool


def mount_of(path: Path) -> Mount | None:
    """The mount that a path lies on, links followed; None where the system does not tell (not Linux)."""
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        return mount_in(table, path.resolve())
    except (OSError, RuntimeError):  # the latter: a link that leads to itself
        return None


def mount_in(table: str, path: PurePath) -> Mount | None:
    """The mount of an absolute path in a table like mountinfo: the deepest, of equals the one mounted last."""
    found: Mount | None = None
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if not dash or len(fields) < 6:
            continue
        point = _unescaped(fields[4])
        if path.is_relative_to(point) and (found is None or len(point) >= len(found.point)):
            found = Mount(point, _unescaped(kind), "ro" in fields[5].split(","))
    return found


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
