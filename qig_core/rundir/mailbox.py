"""Commands in, acknowledgements out. The trainer's side (`Mailbox`) and the asker's (`send`, `withdraw`, `read_ack`).

A file in the mailbox is a stranger's until it has been checked: it must be a regular file with one link, owned by this
user, writable by nobody else, small, named by its id, and addressed to this session.
"""

import contextlib
import difflib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RecordWriteError, Refused, RunFormatError, UsageError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.host import host_name, process_is, user_name
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.reader import read_document, read_manifest
from qig_core.rundir.schema import (
    VERBS,
    Ack,
    Command,
    Heartbeat,
    Manifest,
    Stage,
)
from qig_core.rundir.values import is_command_id

_TOO_MANY = "too many commands wait"

MAX_BYTES = 64 * 1024
MAX_FILES_A_POLL = 64
MAX_PENDING = 2000
"""Commands that may wait for the step boundary. When a run ends each of them is answered within the abort's deadline,
at up to 4 ms for the replacing of a file."""


def _check_folder(path: Path) -> None:
    """Refuse a folder that is not this user's alone, naming the command that cures it."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Refused(f"no mailbox at {str(path)!r}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{str(path)!r} is not a folder")
    if found.st_uid != os.getuid():
        raise Refused(f"{str(path)!r} belongs to user {found.st_uid}, not to you")
    if found.st_mode & 0o022:
        raise Refused(f"{str(path)!r} can be written by others; run: chmod go-w {str(path)!r}")


def _open_checked(path: Path) -> bytes:
    """The content of a command file that passed every check.

    Raises:
        Refused: what is wrong with it.
        FileNotFoundError: it was withdrawn.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refused(f"cannot be opened: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("not a regular file")
        if found.st_uid != os.getuid():
            raise Refused(f"belongs to user {found.st_uid}")
        if found.st_nlink != 1:
            raise Refused(f"has {found.st_nlink} links")
        if found.st_mode & 0o022:
            raise Refused("can be written by others")
        if found.st_size > MAX_BYTES:
            raise Refused(f"{found.st_size} bytes, more than {MAX_BYTES}")
        content = os.read(fd, MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Refused(f"grew to more than {MAX_BYTES} bytes")
        return content
    finally:
        os.close(fd)


class Pending(msgspec.Struct):
    """A command that was seen and waits for the step boundary."""

    command: Command
    seen_monotonic: float

    def is_late(self, now: float) -> bool:
        """Whether the step boundary came after the command's time to live; an abort is never late."""
        return self.command.verb != "abort" and now - self.seen_monotonic > self.command.ttl_s


class Rejected(msgspec.Struct):
    """A file in the mailbox that is no command for this session."""

    name: str
    reason: str


class Mailbox:
    """The trainer's side: `poll` in the heartbeat thread, `take` and `stage` at the step boundary."""

    def __init__(self, run: RunDir, session: str) -> None:
        self._run = run
        self._session = session
        self._lock = threading.Lock()
        self._acks: dict[str, Ack] = {}
        self._queue_lock = threading.Lock()
        self._left_in_place: set[str] = set()
        self._listed: Iterator[str] = iter(())
        self.pending: list[Pending] = []
        """Read as an attribute by the step path; empty almost always."""
        for folder in (run.mailbox, run.mailbox_in, run.mailbox_out):
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise RecordWriteError(error.errno, f"cannot make {str(folder)!r}: {error.strerror}") from error

    @property
    def has_more(self) -> bool:
        """Whether the last poll left files that it had listed: the next one goes on with them and lists nothing."""
        return length_hint(self._listed) > 0

    def poll(self, step: int | None) -> list[Rejected]:
        """Read at most 64 new files, acknowledge `seen`, queue them; return what was rejected, each once.

        A folder that others can write is itself rejected, and nothing in it is read.
        """
        try:
            for folder in (self._run.mailbox, self._run.mailbox_in, self._run.mailbox_out):
                _check_folder(folder)
            if not self.has_more:
                names = sorted(name for name in os.listdir(self._run.mailbox_in) if not name.startswith("."))
                self._listed = iter([name for name in names if name not in self._left_in_place])
        except (Refused, OSError) as error:
            self._listed = iter(())
            return self._once(Rejected("mailbox", str(error)))
        rejected: list[Rejected] = []
        for name in islice(self._listed, MAX_FILES_A_POLL):
            path = self._run.mailbox_in / name
            try:
                command = self._read(path)
                # Taken away before it is seen: an asker who deletes the file first has withdrawn it.
                path.unlink()
            except FileNotFoundError:
                continue
            except Refused as error:
                rejected += self._reject(path, str(error))
                continue
            except OSError as error:
                rejected += self._once(Rejected(name, f"cannot be taken: {error.strerror}"))
                continue
            if command is not None and not self._is_full(command):
                self.stage(command, "seen", step)
                with self._queue_lock:
                    self.pending.append(Pending(command, time.monotonic()))
            elif command is not None:
                self.stage(command, "refused", step, reason=_TOO_MANY)
                rejected.append(Rejected(name, _TOO_MANY))
        return rejected

    def _is_full(self, command: Command) -> bool:
        """Whether too many wait already; one abort always finds room."""
        return len(self.pending) >= MAX_PENDING and not (
            command.verb == "abort" and all(one.command.verb != "abort" for one in self.pending)
        )

    def _read(self, path: Path) -> Command | None:
        """The command in a file; None where its id was answered before."""
        command_id = path.stem
        if path.suffix != ".json" or not is_command_id(command_id):
            raise Refused("not named by a command id (32 hex digits and .json)")
        if self._is_answered(command_id):
            return None
        try:
            command = msgspec.json.decode(_open_checked(path), type=Command)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"not a command: {error}") from error
        if command.id != command_id:
            raise Refused(f"the id inside is {command.id[:40]!r}, not the file's name")
        if command.session != self._session:
            raise Refused("addressed to another session of this run")
        if command.verb not in VERBS:
            raise Refused(f"unknown verb {command.verb[:40]!r}; known are {', '.join(VERBS)}")
        return command

    def _is_answered(self, command_id: str) -> bool:
        return command_id in self._acks or os.path.lexists(self._run.ack(command_id))

    def _reject(self, path: Path, reason: str) -> list[Rejected]:
        """Answer by an acknowledgement where the id allows it; take the file away, or never look at it again."""
        if path.suffix == ".json" and is_command_id(path.stem) and not self._is_answered(path.stem):
            self.stage(Command(path.stem, self._session, "", time.time()), "refused", None, reason=reason)
        try:
            path.unlink()
        except OSError:
            return self._once(Rejected(path.name, reason))
        return [Rejected(path.name, reason)]

    def _once(self, rejected: Rejected) -> list[Rejected]:
        if rejected.name in self._left_in_place:
            return []
        self._left_in_place.add(rejected.name)
        return [rejected]

    def take(self, limit: int | None = None) -> list[Pending]:
        """What waits, aborts first, the others as they were seen; at most `limit`, and the rest waits on."""
        with self._queue_lock:
            # A stable sort: False comes before True.
            waiting = sorted(self.pending, key=lambda one: one.command.verb != "abort")
            taken, self.pending = waiting[:limit], [] if limit is None else waiting[limit:]
        return taken

    def stage(self, command: Command, stage: str, step: int | None, **detail: Any) -> None:
        """Write the next stage of an acknowledgement; none comes after done, refused or stopped.

        A full disk does not stop the command itself.
        """
        with self._lock:
            ack = self._acks.setdefault(command.id, Ack(command.id, self._session, command.verb))
            ack.stages.append(Stage(stage, time.time(), step, detail))
            content = encode_document(ack)
        # An acknowledgement is a courtesy: the event file tells the same, and the next stage writes all of them.
        # Not forced to the disk: an abort waits for it, and after a power cut the session is another one anyway.
        # Outside the lock: the loop does not wait for the thread that listens, nor that for the loop.
        with contextlib.suppress(OSError):
            write_document(self._run.ack(command.id), content, durable=False)
            if ack.ended:
                # From now on the file says that this id was answered; one that was not written stays here.
                self._acks.pop(command.id, None)


def send(run: RunDir, verb: str, *, args: dict[str, Any] | None = None, ttl_s: float = 120.0) -> Command:
    """Ask the live trainer of a run for something.

    Raises:
        UsageError: no such verb; the message names the nearest.
        Refused: no trainer to ask, or a mailbox that is not safe to use.
        RunFormatError: a manifest that cannot be read.
    """
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb[:40]!r}; {hint}")
    manifest = read_manifest(run)
    if reason := nobody_to_ask(run, manifest):
        raise Refused(reason)
    session = manifest.sessions[-1] if manifest.sessions else None
    try:
        heartbeat = read_document(run.heartbeat, Heartbeat)
    except RunFormatError as error:
        raise Refused(f"run {run.id!r} has no heartbeat to address: {error}") from error
    for folder in (run.mailbox, run.mailbox_in):
        _check_folder(folder)
    command = Command(
        id=secrets.token_hex(16),
        session=heartbeat.session if session is None else session.id,
        verb=verb,
        t=time.time(),
        ttl_s=ttl_s,
        by=f"{user_name()}@{host_name()}",
        args=args or {},
    )
    content = encode_document(command)
    if len(content) > MAX_BYTES:
        raise Refused(f"a command of {len(content)} bytes; at most {MAX_BYTES}")
    try:
        write_document(run.command(command.id), content, mode=0o600)
    except OSError as error:
        raise Refused(f"cannot write into {str(run.mailbox_in)!r}: {error.strerror}") from error
    return command


def nobody_to_ask(run: RunDir, manifest: Manifest) -> str:
    """Why no trainer will answer: the run has ended, or its process is gone; empty where one may."""
    if manifest.state == "exited":
        return f"run {run.id!r} has ended (exit code {manifest.exit_code}); there is no trainer to ask"
    session = manifest.sessions[-1] if manifest.sessions else None
    if (
        session is not None
        and process_is(session.pid, session.start_ticks, session.host, session.boot_id) is False
        and lock_holder(run.lock) is None
    ):
        return f"the trainer of run {run.id!r} (process {session.pid}) is gone; there is nobody to ask"
    return ""


def withdraw(run: RunDir, command: Command) -> bool:
    """Take back a command that the trainer has not taken; False where it already has."""
    try:
        run.command(command.id).unlink()
    except FileNotFoundError:
        return False
    return True


def read_ack(run: RunDir, command_id: str) -> Ack | None:
    """The acknowledgement so far; None before the trainer has seen the command."""
    try:
        return read_document(run.ack(command_id), Ack)
    except RunFormatError:
        return None
