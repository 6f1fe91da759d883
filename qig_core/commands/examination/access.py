"""Who else can write a run, and links where a folder should be. Changes nothing."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from qig_core.checkpoints.catalog import in_words
from qig_core.commands.examination.finding import Finding, Known, State, Steps
from qig_core.rundir.layout import RunDir
from qig_core.terminal import command

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def permissions(known: Known, uid: int) -> Steps:
    """What a relaunch and the mailbox refuse. `uid`: whose the run should be."""
    well = True
    for finding in _findings(known.run, uid):
        well = False
        yield finding
    if well:
        yield Finding(check="permissions", state="ok", what="nobody else can write what counts")


def _findings(run: RunDir, uid: int) -> Iterator[Finding]:
    facts = run.path.stat()
    owner = facts.st_uid
    if run.path.is_symlink():
        yield Finding(check="permissions", state="warning", what=f"{str(run.path)!r} is a link to the run")
    if owner != uid:
        what = f"the run belongs to user {owner}, not to you: it is not relaunched from here"
        yield Finding(check="permissions", state="warning", what=what)
    elif not facts.st_mode & stat.S_IRUSR or not facts.st_mode & stat.S_IXUSR:
        what = f"{str(run.path)!r} is closed to its owner"
        yield Finding(check="permissions", state="bad", what=what, cure=command("chmod", "u+rx", run.path))
    for path in (run.path, run.checkpoints):
        if owner == uid and path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            what = f"{str(path)!r} cannot be written by its owner: nothing can be saved there"
            yield Finding(check="permissions", state="bad", what=what, cure=command("chmod", "u+wx", path))
    for path in (run.path, run.manifest, run.checkpoints):
        yield from _writable(path, owner)
    yield from _writable_checkpoints(run, owner)
    for path in (run.checkpoints, run.emergencies, run.artifacts):
        if path.is_symlink():
            yield Finding(check="permissions", state="warning", what=f"{path.name} is a link, not a folder")
        elif path.exists() and not path.is_dir():
            yield Finding(check="permissions", state="bad", what=f"{path.name} is no folder")
    for path in (run.mailbox, run.mailbox_in, run.mailbox_out):
        yield from _private_folder(path, owner)


def _writable(path: Path, owner: int) -> list[Finding]:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return []  # said elsewhere, where it matters
    found = []
    if facts.st_uid != owner:
        what = f"{str(path)!r} belongs to user {facts.st_uid}, the run to user {owner}: relaunch refuses it"
        found.append(Finding(check="permissions", state="bad", what=what))
    if facts.st_mode & _OTHERS and not stat.S_ISLNK(facts.st_mode):
        by = "everybody" if facts.st_mode & stat.S_IWOTH else "its group"
        found.append(
            Finding(
                check="permissions",
                state="bad" if facts.st_mode & stat.S_IWOTH else "warning",
                what=f"{str(path)!r} can be written by {by}: relaunch refuses it",
                cure=command("chmod", "go-w", path),
            )
        )
    return found


def _writable_checkpoints(run: RunDir, owner: int) -> list[Finding]:
    """Of thousands of files one finding each way."""
    loose, foreign, by_all = list[str](), list[str](), False
    for folder, folders, files in os.walk(run.checkpoints):
        for name in (*folders, *files):
            path = Path(folder, name)
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue  # pruned just now
            if facts.st_uid != owner:
                foreign.append(str(path.relative_to(run.checkpoints)))
            if facts.st_mode & _OTHERS and not stat.S_ISLNK(facts.st_mode):
                loose.append(str(path.relative_to(run.checkpoints)))
                by_all = by_all or bool(facts.st_mode & stat.S_IWOTH)
    found = []
    if foreign:
        what = f"in checkpoints, not of user {owner}, to whom the run belongs: {len(foreign)}"
        found.append(Finding(check="permissions", state="bad", what=f"{what}, {in_words(sorted(foreign))}"))
    if loose:
        what = f"in checkpoints, writable by others, which a relaunch refuses: {len(loose)}"
        cure = command("chmod", "-R", "go-w", run.checkpoints)
        state: State = "bad" if by_all else "warning"
        found.append(Finding(check="permissions", state=state, what=f"{what}, {in_words(sorted(loose))}", cure=cure))
    return found


def _private_folder(path: Path, owner: int) -> list[Finding]:
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return []  # the trainer makes it
    except PermissionError:
        return []  # private indeed
    if not stat.S_ISDIR(facts.st_mode):
        what = f"{str(path)!r} is a link or no folder: no command is read from it"
        return [Finding(check="permissions", state="bad", what=what)]
    if facts.st_uid != owner:
        what = f"{str(path)!r} belongs to user {facts.st_uid}, the run to user {owner}: no command is read from it"
        return [Finding(check="permissions", state="bad", what=what)]
    mode = stat.S_IMODE(facts.st_mode)
    if mode == 0o700:
        return []
    closed = mode & _OTHERS or mode & stat.S_IRWXU != stat.S_IRWXU
    what = f"{str(path)!r} has mode {mode:04o}, not 0700" + (": no command is read from it" if closed else "")
    state: State = "bad" if closed else "warning"
    return [Finding(check="permissions", state=state, what=what, cure=command("chmod", "700", path))]
