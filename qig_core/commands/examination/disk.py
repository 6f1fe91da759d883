"""The file system under a run, its checkpoints, and what lies beside them. Changes nothing."""

import os
from collections import Counter
from pathlib import Path

import msgspec
from rich.filesize import decimal

from qig_core.checkpoints.catalog import Found, in_words, list_checkpoints, look
from qig_core.checkpoints.commands import verify as verify_all
from qig_core.checkpoints.store import SPACE_FACTOR
from qig_core.commands.examination.finding import Finding, Known, State, Steps
from qig_core.errors import CheckpointError, RunFormatError
from qig_core.rundir.layout import BEING_DELETED, BEING_WRITTEN, QUARANTINE_NOTE, QUARANTINED
from qig_core.rundir.mounts import Mount, mount_of
from qig_core.rundir.reader import read_document
from qig_core.terminal import command

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "afs", "gpfs", "beegfs", "fuse"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_FEW_INODES = 100


def file_system(known: Known) -> Steps:
    """What is under the run, and under its checkpoints if a link leads them elsewhere: its kind, and what is free."""
    mounts = {}
    for path in (known.run.path, known.run.checkpoints):
        if path.exists():
            mounts[mount_of(path)] = path
    for mount, path in mounts.items():
        if mount is not None:
            yield of_mount(mount)
        yield from _space(known, path)


def of_mount(mount: Mount) -> Finding:
    """What a file system of this kind does not promise."""
    caveats = []
    if mount.kind in _NETWORK or mount.kind.startswith("fuse."):
        caveats.append("a network file system, where locks and fsync may not be what they say")
    if mount.kind in _MEMORY:
        caveats.append("memory, gone at the next boot")
    if mount.read_only:
        caveats.append("mounted read-only, so that no session can go on here")
    what = f"{mount.kind} at {mount.point!r}" + "".join(f"; {caveat}" for caveat in caveats)
    return Finding(check="file system", state="warning" if caveats else "ok", what=what)


def _space(known: Known, path: Path) -> Steps:
    facts = os.statvfs(path)
    free = facts.f_bavail * facts.f_frsize
    try:
        newest = next((one for one in list_checkpoints(known.run) if one.manifest), None)
    except CheckpointError:
        newest = None  # `checkpoints` says why
    needed = int(SPACE_FACTOR * newest.size) if newest else 0
    what = f"{decimal(free)} free"
    if newest:
        what += f"; the next checkpoint, if it is like {newest.name}, needs {decimal(needed)}"
    short: State = "bad" if known.live else "warning"
    yield Finding(check="file system", state=short if free < needed else "ok", what=what)
    if facts.f_files and facts.f_favail < _FEW_INODES:
        yield Finding(check="file system", state=short, what=f"only {facts.f_favail} more files can be made")


def checkpoints(known: Known, verify: bool) -> Steps:
    """How many there are, and what is wrong with which. `verify`: by every byte, not by a cheap look."""
    run = known.run
    found = list_checkpoints(run)
    problems = {one.name: one.problems for one in found}
    status: dict[str, str] = {one.name: one.status for one in found}
    nonfinite: dict[str, list[str]] = {}
    if verify:
        for report in verify_all(run):
            if "progress" in report:
                step = report["progress"]
                yield {"check": step["name"], "done": step["done"], "total": step["total"]}
            for row in report.get("result", ()):
                status[row["name"]], problems[row["name"]] = row["status"], tuple(row["problems"])
                nonfinite[row["name"]] = row["nonfinite"]
    # What is no longer there has been pruned while it was looked at.
    found = [one for one in found if status[one.name] == "COMPLETE" or look(run, one.name) is not None]
    counts = Counter(status[one.name] for one in found)
    what = ", ".join(f"{number} {word}" for word, number in counts.items()) or "none"
    what += f", {decimal(sum(one.size for one in found))}" if found else ""
    what += "; every byte was read" if verify and found else ""
    whole = counts.keys() <= {"COMPLETE", "NEWER"}
    yield Finding(check="checkpoints", state="ok" if whole else "bad", what=what)
    sound = False
    for one in found:
        said = f"{one.name} is {status[one.name]}: {'; '.join(problems[one.name])}"
        if status[one.name] == "NEWER":
            yield Finding(check="checkpoints", state="warning", what=said)
        elif status[one.name] != "COMPLETE":
            # Only those before the newest sound one are set aside.
            cure = "" if known.live or sound else command("qig-core", "recover", run.path)
            yield Finding(check="checkpoints", state="bad", what=said, cure=cure)
        else:
            sound = True
            if problems[one.name]:
                yield Finding(check="checkpoints", state="warning", what=f"{one.name}: {'; '.join(problems[one.name])}")
        if nonfinite.get(one.name):
            what = f"{one.name} holds values that are not finite, which may be meant: {in_words(nonfinite[one.name])}"
            yield Finding(check="checkpoints", state="ok", what=what)
    yield from _of_other_runs(known, found)


def _of_other_runs(known: Known, found: list[Found]) -> Steps:
    if known.manifest is None:
        return  # nobody knows whose they should be
    ids = {known.run.id, known.manifest.id}
    foreign = [f"{one.name} ({one.manifest.run})" for one in found if one.manifest and one.manifest.run not in ids]
    if foreign:
        what = f"of another run, by their manifests, {len(foreign)}: {in_words(foreign)}; they are never pruned"
        yield Finding(check="checkpoints", state="warning", what=what)


class _Note(msgspec.Struct):
    reason: str


def leftovers(known: Known) -> Steps:
    """What lies beside the checkpoints: half written, half deleted, set aside, links."""
    run = known.run
    if not run.checkpoints.is_dir():
        return
    with os.scandir(run.checkpoints) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        path = Path(entry.path)
        if entry.is_symlink():
            what = f"{entry.name} is a link: it is taken for no checkpoint"
            yield Finding(check="checkpoints", state="warning", what=what)
        elif entry.name.startswith(QUARANTINED):
            what = f"{entry.name} was set aside, {decimal(_size(path))}: {_reason(path)}"
            what += "; mended, it is put back by its name without .bad-"
            yield Finding(check="checkpoints", state="warning", what=what)
        elif entry.name.startswith((BEING_WRITTEN, BEING_DELETED)) and entry.is_dir(follow_symlinks=False):
            deleted = entry.name.startswith(BEING_DELETED)
            if known.live and (deleted or entry.name.startswith(f"{BEING_WRITTEN}{known.session}-")):
                what = f"{entry.name} is being {'deleted' if deleted else 'written'}"
                yield Finding(check="checkpoints", state="ok", what=what)
            else:
                what = f"{entry.name} is being {'deleted' if deleted else 'written'} by nobody, {decimal(_size(path))}"
                cure = command("qig-core", "checkpoints", "prune", run.path)
                yield Finding(check="checkpoints", state="warning", what=f"{what}: left by a kill", cure=cure)


def _reason(path: Path) -> str:
    try:
        return read_document(path / QUARANTINE_NOTE, _Note).reason[:500]
    except RunFormatError:
        return f"nobody wrote down why (no readable {QUARANTINE_NOTE})"


def _size(path: Path) -> int:
    """Bytes of all files of a folder, links not followed; what is not there any more counts nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += Path(folder, name).lstat().st_size
            except OSError:
                continue
    return total
