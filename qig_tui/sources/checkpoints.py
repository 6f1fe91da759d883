"""The checkpoints that lie in a run directory, as their manifests say. Reads names, sizes and tags, never a payload."""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import FORMAT, CheckpointManifest
from qig_core.rundir.values import is_run_id
from qig_tui.text import grouped

_NAME = re.compile(r"step-(\d{8,})(-[0-9a-f]{6})?")
"""What publishing calls a checkpoint: the step is known where nothing else can be read."""


_MOST_BYTES = 1 << 62


class _Tags(msgspec.Struct):
    tags: list[str] = []


@dataclass(frozen=True, kw_only=True)
class CheckpointEntry:
    """One checkpoint folder."""

    name: str
    manifest: CheckpointManifest | None
    """None where it is absent or unreadable."""
    t: float
    """When it was published; without a readable manifest, when its directory last changed."""
    tags: tuple[str, ...] = ()
    tags_known: bool = True
    """Whether they could be read: a pin may stand in them."""
    problem: str = ""
    """What is wrong at first sight: the payload's names and sizes, not its digests."""

    @property
    def step(self) -> int | None:
        return step_of(self.name) if self.manifest is None else self.manifest.step

    @property
    def size(self) -> int:
        """Bytes of payload, as the manifest says; an integer of JSON may have any length."""
        found = sum(file.size for file in self.manifest.files) if self.manifest else 0
        return min(max(found, 0), _MOST_BYTES)


def step_of(name: str) -> int | None:
    """The step that a checkpoint's name tells; None where it tells none."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def in_sight(entries: Sequence[CheckpointEntry], room: int) -> list[CheckpointEntry]:
    """So many of them, in their order: the newest, and damaged ones before older whole ones."""
    order = sorted(range(len(entries)), key=lambda i: (i > 0, not entries[i].problem, i))
    return [entries[i] for i in sorted(order[: max(room, 0)])]


def rest_of(entries: Sequence[CheckpointEntry], shown: Sequence[CheckpointEntry]) -> str:
    """How many are not shown, and how many of those are damaged."""
    damaged = sum(bool(e.problem) for e in entries) - sum(bool(e.problem) for e in shown)
    return f"and {grouped(len(entries) - len(shown))} more, {grouped(damaged) if damaged else 'none'} of them damaged"


class CheckpointShelf:
    """Lists the checkpoints of one run; a manifest never changes once published, so it is read once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self.problem: str | None = None
        """Why the folder cannot be listed; that it never was there is none."""
        self._was_there = False
        self._seen: tuple[object, ...] | None = None
        self._manifests: dict[tuple[str, int], tuple[CheckpointManifest | None, str]] = {}

    def changed(self) -> list[CheckpointEntry] | None:
        """The entries if anything is different from the last call, else None; in the order of `qig-core checkpoints`:
        the newest published first.
        """
        marks: list[tuple[str, int, int]] = []
        self.problem = None
        try:
            with os.scandir(self._run.checkpoints) as entries:
                for entry in entries:
                    if is_run_id(entry.name) and entry.is_dir(follow_symlinks=False):
                        manifest_ns = _mtime(self._run.checkpoint_manifest(entry.name))
                        marks.append((entry.name, manifest_ns, _mtime(self._run.checkpoint_tags(entry.name))))
            self._was_there = True
        except FileNotFoundError:
            marks = []
            if self._was_there:
                self.problem = f"{self._run.checkpoints.name}/ is gone"
        except OSError as error:
            marks = []
            self.problem = f"{self._run.checkpoints.name}/ cannot be read: {error.strerror}"
        seen = tuple(sorted(marks))
        if seen == self._seen:
            return None
        self._seen = seen
        found = [self._entry(name, manifest_ns) for name, manifest_ns, _ in marks]
        return sorted(found, key=lambda e: (e.t, e.name), reverse=True)

    def _entry(self, name: str, manifest_ns: int) -> CheckpointEntry:
        key = (name, manifest_ns)
        if key not in self._manifests:
            self._manifests[key] = self._read(name)
        manifest, problem = self._manifests[key]
        known, tags = True, tuple[str, ...]()
        try:
            tags = tuple(dict.fromkeys(read_document(self._run.checkpoint_tags(name), _Tags).tags))
        except RunFormatError as error:
            known = isinstance(error.__cause__, FileNotFoundError)
        t = _mtime(self._run.checkpoint(name)) / 1e9 if manifest is None else manifest.t
        return CheckpointEntry(name=name, manifest=manifest, t=t, tags=tags, tags_known=known, problem=problem)

    def _read(self, name: str) -> tuple[CheckpointManifest | None, str]:
        try:
            manifest = read_document(self._run.checkpoint_manifest(name), CheckpointManifest)
        except RunFormatError as error:
            absent = isinstance(error.__cause__, FileNotFoundError)
            return None, "TORN: no manifest" if absent else "UNREADABLE manifest"
        # The directory's name counts: a copy may have been given another.
        manifest.name = name
        if manifest.format > FORMAT:
            return manifest, f"NEWER: format {grouped(manifest.format)}; this program reads {FORMAT}"
        folder = self._run.checkpoint(name)
        for file in manifest.files:
            if ".." in Path(file.path).parts or Path(file.path).is_absolute():
                return manifest, "UNREADABLE: a path that leaves the folder"
            try:
                found = os.lstat(folder / file.path)
            except (OSError, ValueError):
                # ValueError: a NUL in it.
                return manifest, f"TORN: {file.path} is missing"
            if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
                return manifest, f"TORN: {file.path} has another size"
        return manifest, ""


def _mtime(path: Path) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0
