"""Where everything in a run directory lies. The only place where a file name is spelled."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from qig_core.errors import RunNotFound, UsageError
from qig_core.rundir.values import MAX_DOCUMENT_BYTES, is_command_id, is_run_id

CHECKPOINT_MANIFEST = "manifest.json"
CHECKPOINT_TAGS = "tags.json"
QUARANTINE_NOTE = "quarantine.json"
BEING_WRITTEN = ".tmp-"
QUARANTINED = ".bad-"
BEING_DELETED = ".del-"

LATEST = "latest"
"""For RUN: the run whose last session began last."""

_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class RunDir:
    """The paths of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.id = self.path.name
        self.manifest = self.path / "run.json"
        self.lock = self.path / "lock"
        self.reserve = self.path / ".reserve"
        self.events = self.path / "events.jsonl"
        self.heartbeat = self.path / "heartbeat.json"
        self.mailbox = self.path / "mailbox"
        self.mailbox_in = self.mailbox / "in"
        self.mailbox_out = self.mailbox / "out"
        self.checkpoints = self.path / "checkpoints"
        self.emergencies = self.path / "emergencies"
        self.artifacts = self.path / "artifacts"
        self.console_log = self.path / "console.log"
        self.notes = self.path / "notes.md"

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def telemetry(self, stream: str | None = None) -> Path:
        """The samples of the run, or of one further stream.

        Raises:
            UsageError: a stream name that could leave the directory.
        """
        if stream is None:
            return self.path / "telemetry.jsonl"
        if not _STREAM.fullmatch(stream):
            raise UsageError(f"stream name {stream!r}: letters, digits, _ and - only, at most 64")
        return self.path / f"telemetry.{stream}.jsonl"

    def streams(self) -> list[str]:
        """The further streams that have a file, by name: a stream may be younger than the manifest."""
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        found = (re.fullmatch(rf"telemetry\.({_STREAM.pattern})\.jsonl", name) for name in names)
        return sorted(match[1] for match in found if match)

    def command(self, command_id: str) -> Path:
        """Raises UsageError: not 32 hex digits."""
        return self.mailbox_in / f"{_command_id(command_id)}.json"

    def ack(self, command_id: str) -> Path:
        """Raises UsageError: not 32 hex digits."""
        return self.mailbox_out / f"{_command_id(command_id)}.json"

    def checkpoint(self, name: str) -> Path:
        """The directory of one checkpoint.

        Raises:
            UsageError: not a plain name.
        """
        if not is_run_id(name):
            raise UsageError(f"checkpoint {name!r} is not a plain name")
        return self.checkpoints / name

    def checkpoint_manifest(self, name: str) -> Path:
        return self.checkpoint(name) / CHECKPOINT_MANIFEST

    def checkpoint_tags(self, name: str) -> Path:
        return self.checkpoint(name) / CHECKPOINT_TAGS

    def emergency(self, emergency_id: str) -> Path:
        """What was known at one emergency. Raises UsageError: not a plain name."""
        return self.emergencies / f"{_plain_name(emergency_id)}.json"

    def emergency_stacks(self, emergency_id: str) -> Path:
        """Where every thread stood. Raises UsageError: not a plain name."""
        return self.emergencies / f"{_plain_name(emergency_id)}.stacks.txt"

    def exists(self) -> bool:
        try:
            return self.manifest.is_file()
        except (OSError, ValueError):
            # A name that is too long, a folder that may not be entered: no run for us.
            return False


def _command_id(text: str) -> str:
    if not is_command_id(text):
        raise UsageError(f"command id {text[:40]!r} is not 32 hex digits")
    return text


def _plain_name(text: str) -> str:
    if not is_run_id(text):
        raise UsageError(f"{text[:100]!r} is not a plain name")
    return text


def default_root() -> Path:
    """Where runs live when nobody says otherwise: $QIG_RUNS, else ./runs."""
    return Path(os.environ.get("QIG_RUNS") or "runs")


def new_run_id(now: float | None = None) -> str:
    """A time-sortable random id (UTC): 20261122-235014-1f0a9c."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + "-" + secrets.token_hex(3)


def split_selector(text: str) -> tuple[str, str | None]:
    """RUN[@STEP|@CHECKPOINT] as RUN and the rest; an @ inside a folder's name is part of the path.

    Raises:
        UsageError: nothing after the @.
    """
    run, at, selector = text.rpartition("@")
    if at and not selector:
        raise UsageError(
            f"{text[:300]!r}: a step or a checkpoint is missing after the @; without the @ it is the newest"
        )
    return (run, selector) if at and "/" not in selector else (text, None)


def resolve_run(text: str, root: Path) -> RunDir:
    """RUN as a command line gives it: a path (with a "/" or "."), else, under `root`, an id, `latest`, or a name.

    The first that fits counts, in this order; `latest` is the run whose last session began last. A name is what
    `--name` gave, whole; manifests are read only where it comes to that.

    Raises:
        RunNotFound: no run directory there.
        UsageError: several runs have this name; the message lists their ids.
    """
    if not text or "\0" in text:
        raise RunNotFound(f"{text[:100]!r} is neither a path nor a run")
    is_path = "/" in text or "." in text
    if is_path and (run := RunDir(Path(text).resolve())).exists():
        return run
    if is_run_id(text) and (run := RunDir(root / text)).exists():
        return run
    if text == LATEST and (newest := newest_run(root)) is not None:
        return newest
    known = [(run, _glance(run)) for run in list_runs(root)]
    named = [run for run, glance in known if glance.name == text]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(run.id for run in named)
        raise UsageError(f"{len(named)} runs under {str(root)!r} are named {text[:100]!r}; give one by its id: {ids}")
    if is_path:
        what = "is not a run directory (no run.json)" if os.path.isdir(text) else "does not exist"
        raise RunNotFound(f"{text[:300]!r} {what}")
    hint = f"; the newest there is {known[-1][0].id!r}" if known else "; there is none"
    raise RunNotFound(f"no run {text[:100]!r} under {str(root)!r}, neither by id nor by name{hint}")


def newest_run(root: Path, name: str = "") -> RunDir | None:
    """The run whose last session began last, of all under `root` or of those with a display name; None without one."""
    known = [(run, _glance(run)) for run in list_runs(root)]
    of_name = [one for one in known if not name or one[1].name == name]
    return max(of_name, key=lambda one: (one[1].began, one[0].id))[0] if of_name else None


class _Began(msgspec.Struct):
    t: float = 0.0


class _Glance(msgspec.Struct):
    """What of a manifest it takes to find a run."""

    name: str = ""
    created_t: float = 0.0
    sessions: list[_Began] = []

    @property
    def began(self) -> float:
        return self.sessions[-1].t if self.sessions else self.created_t


def _glance(run: RunDir) -> _Glance:
    try:
        if run.manifest.stat().st_size > MAX_DOCUMENT_BYTES:
            return _Glance()
        return msgspec.json.decode(run.manifest.read_bytes(), type=_Glance)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # It cannot be found by what it says; it still can by its id.
        return _Glance()


def list_runs(root: Path) -> Iterator[RunDir]:
    """The run directories directly under `root`, oldest id first; nothing where the folder is absent.

    Hidden names are passed over: what is being deleted is no run any more.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"{str(root)!r} cannot be read: {error.strerror}") from error
    for name in sorted(names):
        run = RunDir(root / name)
        if not name.startswith(".") and run.exists():
            yield run
