"""The checkpoints that lie in a run directory, as their manifests say. Reads names, sizes and tags, never a payload."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.values import is_run_id


class _Tags(msgspec.Struct):
    tags: list[str] = []


@dataclass(frozen=True, kw_only=True)
class CheckpointEntry:
    """One checkpoint folder."""

    name: str
    manifest: CheckpointManifest | None
    """None where it is absent or unreadable."""
    tags: tuple[str, ...] = ()
    problem: str = ""
    """What is wrong at first sight: the payload's names and sizes, not its digests."""

    @property
    def step(self) -> int | None:
        return None if self.manifest is None else self.manifest.step


class CheckpointShelf:
    """Lists the checkpoints of one run; a manifest never changes once published, so it is read once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._seen: tuple[object, ...] | None = None
        self._manifests: dict[tuple[str, int], tuple[CheckpointManifest | None, str]] = {}

    def changed(self) -> list[CheckpointEntry] | None:
        """The entries, newest published first, if anything is different from the last call; else None."""
        marks: list[tuple[str, int, int]] = []
        try:
            with os.scandir(self._run.checkpoints) as entries:
                for entry in entries:
                    if is_run_id(entry.name) and entry.is_dir():
                        manifest_ns = _mtime(self._run.checkpoint_manifest(entry.name))
                        marks.append((entry.name, manifest_ns, _mtime(self._run.checkpoint_tags(entry.name))))
        except OSError:
            marks = []
        seen = tuple(sorted(marks))
        if seen == self._seen:
            return None
        self._seen = seen
        found = [self._entry(name, manifest_ns) for name, manifest_ns, _ in marks]
        return sorted(found, key=lambda e: (e.manifest.t if e.manifest else 0.0, e.name), reverse=True)

    def _entry(self, name: str, manifest_ns: int) -> CheckpointEntry:
        key = (name, manifest_ns)
        if key not in self._manifests:
            self._manifests[key] = self._read(name)
        manifest, problem = self._manifests[key]
        try:
            tags = tuple(read_document(self._run.checkpoint_tags(name), _Tags).tags)
        except RunFormatError:
            tags = ()
        return CheckpointEntry(name=name, manifest=manifest, tags=tags, problem=problem)

    def _read(self, name: str) -> tuple[CheckpointManifest | None, str]:
        try:
            manifest = read_document(self._run.checkpoint_manifest(name), CheckpointManifest)
        except RunFormatError as error:
            absent = isinstance(error.__cause__, FileNotFoundError)
            return None, "TORN: no manifest" if absent else "UNREADABLE manifest"
        folder = self._run.checkpoint(name)
        for file in manifest.files:
            if ".." in Path(file.path).parts or Path(file.path).is_absolute():
                return manifest, "UNREADABLE: a path that leaves the folder"
            try:
                found = os.lstat(folder / file.path)
            except OSError:
                return manifest, f"TORN: {file.path} is missing"
            if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
                return manifest, f"TORN: {file.path} has another size"
        return manifest, ""


def _mtime(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
