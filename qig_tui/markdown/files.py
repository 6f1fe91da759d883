"""A file of notes: read within bounds, and the editor that a person writes it with. No Textual."""

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from qig_tui.text import safe, size

MAX_BYTES = 1 << 20
"""Of one file; more is no note."""
_EDITORS = ("nano", "vim", "vi")
_MAX_SUGGESTED = 500
_MAX_LOOKED_AT = 5000
_SUFFIX = ".md"

Stamp = tuple[int, int, int]
"""By which a file is known to be as it was: time, size, number."""


@dataclass(frozen=True, kw_only=True)
class Note:
    text: str = ""
    said: str = ""
    """What is wrong with it, or missing; a sentence."""
    stamp: Stamp | None = None
    """None: there is no such file."""
    is_there: bool = True
    """Whether it is a file that can be shown and written."""


def stamp_of(path: Path) -> Stamp | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_note(path: Path) -> Note:
    """The file, or why it is not shown; never an exception."""
    name = safe(path.name, 80)
    try:
        # Without waiting: a pipe under this name would keep us for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Note(said=f"there is no {name} yet", is_there=False)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        why = "is a link to somewhere else: it is not opened" if is_link else _unreadable(error)
        return Note(said=f"{name} {why}", stamp=stamp_of(path), is_there=False)
    try:
        found = os.fstat(handle)
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        if not stat.S_ISREG(found.st_mode):
            return Note(said=f"{name} is not a regular file: it is not opened", stamp=stamp, is_there=False)
        data = _bytes(handle, MAX_BYTES)
    except OSError as error:
        return Note(said=f"{name} {_unreadable(error)}", stamp=stamp_of(path), is_there=False)
    finally:
        os.close(handle)
    said = []
    if found.st_size > MAX_BYTES:
        said.append(f"only the first {size(MAX_BYTES)} of {size(found.st_size)} are shown")
        # A character that is cut in two is none that somebody wrote.
        data = data[: data.rfind(b"\n") + 1] or data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        said.append("not all of it is UTF-8: what is not stands as \N{REPLACEMENT CHARACTER}")
    return Note(text=text.removeprefix("\ufeff"), said="; ".join(said), stamp=stamp)


def _bytes(handle: int, limit: int) -> bytes:
    parts = []
    while limit and (part := os.read(handle, limit)):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {safe(error.strerror, 80)}"


def refusal(path: Path) -> str:
    """Why this is no file to be opened here; empty if it is one."""
    name = safe(path.name, 80)
    if path.suffix.lower() != _SUFFIX:
        return f"{name} is no {_SUFFIX} file"
    note = stamp_of(path)
    if note is None:
        return f"there is no {name}"
    return "" if path.is_file() and not path.is_symlink() else f"{name} is not a regular file"


def inside(target: str, shown: Path) -> Path | None:
    """The .md file that a link of a shown file leads to, if it lies in the same directory or below it."""
    words = unquote(target.partition("#")[0])
    path = Path(words)
    if path.is_absolute() or path.suffix.lower() != _SUFFIX or ":" in words or "\0" in words:
        return None
    try:
        root = shown.parent.resolve()
        found = (root / path).resolve()
    except (OSError, RuntimeError):
        # Too long a name; links that lead in a circle.
        return None
    return found if found.is_relative_to(root) else None


def suggestions(folder: Path) -> Iterator[str]:
    """The .md files in a folder and two levels below it, bounded, as they would be typed."""
    queue = [(folder, 0)]
    looked = given = 0
    while queue:
        at, depth = queue.pop(0)
        try:
            entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            looked += 1
            if looked > _MAX_LOOKED_AT:
                return
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth < 2:
                    queue.append((Path(entry.path), depth + 1))
            elif entry.name.lower().endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                yield os.path.relpath(entry.path, folder)
                given += 1
                if given == _MAX_SUGGESTED:
                    return


def editor(environ: Mapping[str, str]) -> list[str]:
    """The words that start an editor: $VISUAL, $EDITOR, or the first of nano, vim, vi that there is.

    Raises: ValueError: a sentence that says why there is none.
    """
    for name in ("VISUAL", "EDITOR"):
        if environ.get(name, "").strip():
            try:
                return shlex.split(environ[name])
            except ValueError as error:
                raise ValueError(f"${name} is no command: {safe(error, 80)}") from error
    found = next((path for name in _EDITORS if (path := shutil.which(name, path=environ.get("PATH")))), None)
    if found is None:
        raise ValueError("there is no editor: $VISUAL or $EDITOR can name one")
    return [found]
