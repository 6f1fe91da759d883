"""What checkpoints a run has, by a cheap look at each directory: no payload byte is read, nothing is changed."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import blake3
import msgspec

from qig_core.checkpoints.branches import Branches
from qig_core.checkpoints.manifest_file import NewerFormat, is_payload_name, read_sealed
from qig_core.checkpoints.ranking import DEFAULT_SCORE, best, last_good, latest, score_of
from qig_core.errors import CheckpointError, RunFormatError, UsageError
from qig_core.rundir.atomic import encode_document
from qig_core.rundir.layout import CHECKPOINT_MANIFEST, RunDir
from qig_core.rundir.reader import open_regular, read_all, read_manifest
from qig_core.rundir.schema import CheckpointManifest, Event

Status = Literal["COMPLETE", "TORN", "HASH-MISMATCH", "UNREADABLE", "NO-ACCESS", "NEWER"]
"""TORN: something is missing or short. UNREADABLE: the manifest is damaged, or a file is not one that may be opened.
NO-ACCESS: the system refuses to read it now, which says nothing of its bytes.
NEWER: of a format that this program does not know; it is left alone."""

_NAME = re.compile(r"step-(\d{8,})-[0-9a-f]{6}")
_NAMED = 5
"""Names in one sentence, at most."""


class _Tags(msgspec.Struct, forbid_unknown_fields=True):
    tags: list[str]
    seal: str | None = None
    """What `_seal` gives; one that a person wrote has none."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One checkpoint as a look at its directory shows it: no payload byte has been read."""

    name: str
    path: Path
    manifest: CheckpointManifest | None
    tags: tuple[str, ...]
    tags_known: bool
    """Whether its tags could be read."""
    status: Status
    problems: tuple[str, ...]
    t: float
    """When it was published; without a readable manifest, when its directory last changed."""

    @property
    def step(self) -> int | None:
        if self.manifest is not None:
            return self.manifest.step
        match = _NAME.fullmatch(self.name)
        return int(match[1]) if match else None

    @property
    def size(self) -> int:
        """Bytes of payload, as the manifest says."""
        return sum(file.size for file in self.manifest.files) if self.manifest else 0


def list_checkpoints(run: RunDir) -> list[Found]:
    """What is there, newest-published first. Hidden names, files, links and foreign folders are passed over.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    found = []
    try:
        with os.scandir(run.checkpoints) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    one = look(run, entry.name)
                    if one is not None:
                        found.append(one)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{str(run.checkpoints)!r} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda one: (one.t, one.name), reverse=True)


def look(run: RunDir, name: str) -> Found | None:
    """One checkpoint by its directory's name, by a cheap look; None where there is no checkpoint of that name."""
    try:
        path = run.checkpoint(name)
        facts = path.lstat()
    except (UsageError, OSError):
        return None
    if not stat.S_ISDIR(facts.st_mode):
        return None
    manifest: CheckpointManifest | None = None
    status: Status = "COMPLETE"
    problems: list[str] = []
    try:
        manifest = read_sealed(path / CHECKPOINT_MANIFEST)
    except FileNotFoundError:
        if not _NAME.fullmatch(name) or not path.is_dir():
            return None  # a folder of somebody else's, or one that has just been pruned
        status, problems = "TORN", [f"{CHECKPOINT_MANIFEST} is missing"]
    except NewerFormat as error:
        status, problems = "NEWER", [str(error)]
    except OSError as error:
        status, problems = refused(error), [f"{CHECKPOINT_MANIFEST}: {error}"]
    except ValueError as error:
        status, problems = "UNREADABLE", [f"{CHECKPOINT_MANIFEST}: {error}"]
    if manifest is not None:
        # The directory's name counts: a copy may have been given another.
        manifest.name = name
        status, problems = _look_at_files(path, manifest)
    tags: tuple[str, ...] = ()
    tags_known = True
    try:
        tags = read_tags(run, name)
    except CheckpointError as error:
        tags_known = False
        problems.append(str(error))
    return Found(
        name=name,
        path=path,
        manifest=manifest,
        tags=tags,
        tags_known=tags_known,
        status=status,
        problems=tuple(problems),
        t=manifest.t if manifest else facts.st_mtime,
    )


def read_tags(run: RunDir, name: str) -> tuple[str, ...]:
    """The tags of a checkpoint, sorted; none where there is no tags.json.

    Raises:
        CheckpointError: it is there and cannot be read: a pin may stand in it.
    """
    path = run.checkpoint_tags(name)
    try:
        if path.is_symlink():  # one that leads nowhere would read as no tags
            raise ValueError("a link")
        with open(open_regular(path), "rb") as file:
            document = msgspec.json.decode(file.read(), type=_Tags)
        if document.seal not in (None, _seal(document.tags)):
            raise ValueError("its seal does not match: a byte has changed")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(path)!r} cannot be read ({why}); delete it to begin without tags") from error
    return tuple(sorted(set(document.tags)))


def encode_tags(tags: Iterable[str]) -> bytes:
    """tags.json as it stands on disk. Its seal tells a flipped bit from another word: "pinned" must not fade."""
    kept = sorted(set(tags))
    return encode_document({"tags": kept, "seal": _seal(kept)})


def _seal(tags: Sequence[str]) -> str:
    lines = "".join(f"{tag}\n" for tag in tags)
    return str(blake3.blake3(lines.encode("utf-8", "surrogatepass")).hexdigest())


def refused(error: OSError) -> Status:
    """What a refusal to open or read means: a link or a folder is none of ours, all else says nothing of bytes."""
    return "UNREADABLE" if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR) else "NO-ACCESS"


def _look_at_files(path: Path, manifest: CheckpointManifest) -> tuple[Status, list[str]]:
    status: Status = "COMPLETE"
    problems = []
    for file in manifest.files:
        if not is_payload_name(file.path):
            return "UNREADABLE", [f"{file.path!r} is not a plain file name"]
        try:
            facts = (path / file.path).lstat()
        except FileNotFoundError:
            status = "TORN"
            problems.append(f"{file.path} is missing")
            continue
        except OSError as error:
            return refused(error), [f"{file.path}: {error.strerror}"]
        if not stat.S_ISREG(facts.st_mode):
            return "UNREADABLE", [f"{file.path} is a link or no regular file"]
        if facts.st_size != file.size:
            status = "TORN"
            problems.append(f"{file.path} has {facts.st_size} bytes, not {file.size}")
    return status, problems


def candidates(run: RunDir) -> list[Found]:
    """From what a run may go on by itself, newest-published first: all but what lies on a branch that was left.

    When a run went back to a checkpoint, by a restore, a soft reset or a resume, those made after it belong to no past
    of its present state. They stay, and can be named.

    Raises:
        CheckpointError: the folder, or the events, cannot be read.
    """
    shelf = list_checkpoints(run)
    branches = read_branches(run, {found.name: found.t for found in shelf})
    return [found for found in shelf if not branches.left(found.name, found.t)]


def read_branches(run: RunDir, published: Mapping[str, float] | None = None) -> Branches:
    """The way that a run has taken, by its events; see `Branches`. Raises: CheckpointError, they cannot be read."""
    try:
        return Branches((event for event in read_all(run.events, Event) if isinstance(event, Event)), published)
    except RunFormatError as error:
        raise CheckpointError(str(error)) from error


def declared_score(run: RunDir) -> tuple[str, bool]:
    """The metric that checkpoints are ranked by, and whether lower is better: what run.json says, or the default."""
    try:
        keep = read_manifest(run).keep
    except RunFormatError:
        keep = {}
    score, lower = keep.get("score"), keep.get("lower_is_better")
    return (score, lower is not False) if isinstance(score, str) else (DEFAULT_SCORE, True)


def resolve(run: RunDir, text: str, *, score: str | None = None, lower_is_better: bool = True) -> Found:
    """CHECKPOINT as a person gives it.

    Args:
        score: of `best`; None for the `declared_score`.
        text: a name; `latest`, `best` or `last-good`; a step (its newest-published); a tag that just one has; or the
            beginning of just one name. By the words and by a step one is chosen among those that a cheap look finds
            complete, by `last-good` among the `candidates`.

    Raises:
        CheckpointError: none, or more than one; the message lists what there is.
    """
    exact = look(run, text)
    if exact is not None:
        return exact
    found = list_checkpoints(run)
    complete = {one.name: one for one in found if one.status == "COMPLETE"}
    if score is None:
        score, lower_is_better = declared_score(run)
    manifests = [one.manifest for one in complete.values() if one.manifest]
    if text in ("latest", "best", "last-good"):
        chosen = (
            latest(manifests)
            if text == "latest"
            else best(manifests, score, lower_is_better)
            if text == "best"
            else last_good(one.manifest for one in candidates(run) if one.name in complete and one.manifest)
        )
        if chosen is not None:
            return complete[chosen.name]
        is_scored = any(score_of(manifest, score) is not None for manifest in manifests)
        unsound = f"no complete checkpoint with a finite {score!r} is finite and without a critical condition"
        why = {
            "latest": "no complete checkpoint",
            "best": unsound if is_scored else f"no complete checkpoint has a finite {score!r}",
            "last-good": "no complete checkpoint is finite and without a critical condition",
        }[text]
        raise CheckpointError(f"{why} in {str(run.checkpoints)!r}{_listing(found)}")
    if text.isascii() and text.isdecimal():
        of_step = latest(manifest for manifest in manifests if manifest.step == int(text))
        if of_step is not None:
            return complete[of_step.name]
        raise CheckpointError(f"no complete checkpoint of step {text} in {str(run.checkpoints)!r}{_listing(found)}")
    tagged = [one for one in found if text in one.tags]
    matches = tagged or [one for one in found if text and one.name.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        how = f"{len(matches)} checkpoints have the tag {text!r}" if tagged else f"{text!r} begins {len(matches)} names"
        raise CheckpointError(f"{how}{_listing(matches)}")
    raise CheckpointError(f"no checkpoint {text!r} in {str(run.checkpoints)!r}{_listing(found)}")


def _listing(found: Sequence[Found]) -> str:
    if not found:
        return "; there is none"
    names = [one.name if one.status == "COMPLETE" else f"{one.name} ({one.status})" for one in found]
    return f"; there are, newest first: {in_words(names)}"


def in_words(names: Sequence[str]) -> str:
    """Some names for a sentence: a run may have thousands."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
