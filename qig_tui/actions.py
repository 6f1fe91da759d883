"""What the dashboard asks of a run: a command in its mailbox, a child process, a signal. No Textual.

Nothing that a file says is ever executed: argv lists consist of this interpreter, literals and one path.
"""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig_core.errors import Refused, RunFormatError, UsageError
from qig_core.rundir.host import boot_id, host_name, process_is, start_ticks
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lock import lock_holder
from qig_core.rundir.mailbox import read_ack, send, withdraw
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.relaunch import obstacle
from qig_core.rundir.schema import Command, Event, Manifest, Stage
from qig_tui.text import number, safe

PROGRAM = "qig-core train"
"""The only program that the dashboard starts by itself."""
ESCALATE_AFTER_S = 25.0
_LINE_LIMIT = 64 << 20
"""Bytes of one line of a child: what is known of some 100 000 tensors."""


@dataclass(frozen=True)
class StageLine:
    """One stage of a command as it is shown."""

    name: str
    after_s: float
    """Seconds since the command was sent, on this reader's clock."""
    detail: str


class Asked:
    """A command that was sent, and how far it has come."""

    def __init__(self, run: RunDir, command: Command) -> None:
        self._run = run
        self.command = command
        self._began = time.monotonic()
        self._moved = self._began
        self._answered: list[Stage] = []
        self.stages: list[StageLine] = [StageLine("requested", 0.0, f"command {command.id[:8]}")]
        self.ended = False
        self.refused: str | None = None
        self.problem: str | None = None

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def still_s(self) -> float:
        """How long ago the newest stage came, of a command that was answered too."""
        return time.monotonic() - self._moved

    @property
    def quiet_s(self) -> float:
        """How long nothing has moved that should."""
        return 0.0 if self.ended else self.still_s

    @property
    def unseen(self) -> bool:
        return len(self.stages) == 1 and not self.ended

    @property
    def answer(self) -> Stage | None:
        """The newest stage as the trainer wrote it."""
        return self._answered[-1] if self._answered else None

    @property
    def seen_t(self) -> float | None:
        """When the trainer saw it, on the trainer's clock."""
        return self._answered[0].t if self._answered else None

    def look(self) -> bool:
        """Read the acknowledgement and the manifest again; whether a stage is new."""
        if self.ended:
            return False
        self.problem = None
        try:
            ack = read_ack(self._run, self.command.id)
        except OSError as error:
            ack, self.problem = None, f"the acknowledgement cannot be read: {error.strerror}"
        fresh = [] if ack is None else ack.stages[len(self._answered) :]
        self._answered += fresh
        for stage in fresh:
            # Between two looks the trainer's own clock tells how far apart its stages were.
            self._add(stage.stage, stage_detail(stage), earlier_s=fresh[-1].t - stage.t)
            if stage.stage == "refused":
                self.refused = safe(stage.detail.get("reason") or "no reason was given", 300)
                self.ended = True
            elif stage.stage in ("stopped", "done"):
                self.ended = True
        if not self.ended and self.command.verb == "abort" and self._run_ended():
            return True
        return bool(fresh)

    def _run_ended(self) -> bool:
        """The manifest says so even where the last acknowledgement could not be written."""
        try:
            manifest = read_manifest(self._run)
        except RunFormatError:
            return False
        if manifest.state != "exited" or not manifest.sessions or manifest.sessions[-1].id != self.command.session:
            return False
        self._add("stopped", f"exit code {manifest.exit_code}")
        self.ended = True
        return True

    def _add(self, name: str, detail: str, *, earlier_s: float = 0.0) -> None:
        self._moved = time.monotonic()
        after_s = min(max(self.elapsed_s - earlier_s, self.stages[-1].after_s), self.elapsed_s)
        self.stages.append(StageLine(safe(name, 20), after_s, detail))

    def withdraw(self) -> bool:
        """Take the command back; False where the trainer has it, or the mailbox cannot be changed."""
        try:
            return withdraw(self._run, self.command)
        except OSError:
            return False


def stage_detail(stage: Stage) -> str:
    """What a stage carries, in words."""
    parts = [] if stage.step is None else [f"step {stage.step}"]
    for key, value in list(stage.detail.items())[:6]:
        shown = number(value) if isinstance(value, float) else safe(value, 120)
        if key in ("digest", "fingerprint"):
            shown = shown[:12]
        parts.append(shown if key in ("name", "reason") else f"{safe(key, 20).replace('_', ' ')} {shown}")
    return " · ".join(parts)


def ask(run: RunDir, verb: str, args: dict[str, Any] | None = None) -> Asked:
    """Send a command.

    Raises:
        Refused: no trainer to ask, or an unsafe mailbox; the message is a sentence.
    """
    try:
        return Asked(run, send(run, verb, args=args))
    except UsageError as error:
        raise Refused(f"the run cannot be asked: {error}") from error


def send_signal(manifest: Manifest, number: signal.Signals) -> str:
    """Signal the run's process: only on this host, only if boot, pid and start ticks are still those written down.

    Returns:
        A sentence that says what was done.

    Raises:
        Refused: a sentence that says why not.
    """
    session = manifest.sessions[-1] if manifest.sessions else None
    if session is None:
        raise Refused("the manifest names no process")
    if session.host != host_name():
        raise Refused(f"the run is on {safe(session.host, 60)}; signals reach only processes of this host")
    if session.boot_id is None or session.boot_id != boot_id():
        raise Refused("this host has been restarted since, or was never the same machine")
    if session.start_ticks is None:
        raise Refused("the manifest does not say when the process started, so another may have its number")
    if not hasattr(os, "pidfd_open"):
        raise Refused("this system cannot name a process safely (no pidfd)")
    try:
        handle = os.pidfd_open(session.pid)
    except OSError as error:
        raise Refused(f"process {session.pid} is gone ({error.strerror})") from error
    try:
        # Compared while the handle is held: from here on the number cannot pass to another process.
        if start_ticks(session.pid) != session.start_ticks:
            raise Refused(f"process {session.pid} is another one now; the trainer is gone")
        try:
            signal.pidfd_send_signal(handle, number)
        except OSError as error:
            raise Refused(f"{number.name} was not delivered: {error.strerror}") from error
    finally:
        os.close(handle)
    return f"{number.name} sent to process {session.pid}"


@dataclass(frozen=True)
class Relaunch:
    """How a dead run is brought back, or why it cannot be from here."""

    argv: list[str]
    """Of another program: what was recorded of its command, to read and copy only."""
    refusal: str | None
    ours: bool = True
    """Whether the dashboard starts this program at all."""

    @property
    def shown(self) -> str:
        """The exact command, quoted for a shell and safe for a terminal."""
        return safe(shlex.join(self.argv), 2000)


def relaunch(run: RunDir, manifest: Manifest, checkpoint: str) -> Relaunch:
    """The command for a checkpoint, with the first precondition that does not hold."""
    path = os.path.abspath(run.path)
    if manifest.program != PROGRAM:
        recorded = manifest.sessions[-1].argv if manifest.sessions else []
        by_hand = f"Start it again yourself, from the checkpoint {safe(f'{path}@{checkpoint}')}; " \
                  f"the dashboard starts runs of {PROGRAM} only."  # fmt: skip
        return Relaunch(recorded, by_hand, ours=False)
    argv = [sys.executable, "-m", "qig_core.cli", "train", "--resume", f"{path}@{checkpoint}"]
    return Relaunch(argv, _obstacle(run, manifest, checkpoint))


def _obstacle(run: RunDir, manifest: Manifest, checkpoint: str) -> str | None:
    session = manifest.sessions[-1] if manifest.sessions else None
    alive = session and process_is(session.pid, session.start_ticks, session.host, session.boot_id)
    if manifest.state != "exited" and alive:
        return f"process {session.pid if session else '?'} still runs; stop it first"
    holder = lock_holder(run.lock)
    if holder is not None:
        return f"process {holder} holds the run's lock; stop it first"
    try:
        why = obstacle(run, manifest, checkpoint)
    except UsageError as error:
        why = str(error)
    return safe(why) or None


def start(run: RunDir, plan: Relaunch) -> "subprocess.Popen[bytes]":
    """Start the trainer in a session of its own: it outlives the dashboard; its output goes to console.log.

    Raises:
        Refused: a precondition does not hold, or the system refused.
    """
    if plan.refusal is not None:
        raise Refused(plan.refusal)
    try:
        fd = os.open(run.console_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(f"{str(run.console_log)!r} cannot be written: {error.strerror}") from error
    try:
        process = subprocess.Popen(
            plan.argv, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, start_new_session=True, close_fds=True
        )
    except OSError as error:
        raise Refused(f"the trainer could not be started: {error.strerror}") from error
    finally:
        os.close(fd)
    # Somebody must wait for it, whatever becomes of the dialog: a trainer that ended would stay a zombie otherwise.
    threading.Thread(target=process.wait, name="qig-trainer", daemon=True).start()
    return process


def console_tail(run: RunDir, lines: int = 20) -> list[str]:
    """The last lines that the trainer printed, safe for a terminal."""
    try:
        with open(run.console_log, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - (64 << 10)))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        return [f"console.log cannot be read: {error.strerror}"]
    return [safe(line, 300) for line in text.splitlines()[-lines:]]


def restored_as(events: Sequence[Event], session: str, checkpoint: str) -> Event | None:
    """The event by which a session says that it goes on from a checkpoint."""
    for event in reversed(events):
        if event.session == session and event.data.get("checkpoint") == checkpoint and event.data.get("fingerprint"):
            return event
    return None


def went_back_as(events: Sequence[Event], asked: Asked, how: str) -> Event | None:
    """The event by which a live run says that it went back to where its answer says.

    The same checkpoint, fingerprint and step; by this session; after the command was seen, on one clock: the run may
    have gone back to the same checkpoint before.
    """
    answer = asked.answer
    if answer is None or answer.stage != "done" or asked.seen_t is None:
        return None
    told = answer.detail
    step = told.get("step", answer.step)
    for event in reversed(events):
        if event.session != asked.command.session or event.t < asked.seen_t:
            continue
        same = all(event.data.get(key) == told.get(key) and told.get(key) for key in ("checkpoint", "fingerprint"))
        if same and event.data.get("how") == how and event.step is not None and event.step == step:
            return event
    return None


async def child(argv: Sequence[str]) -> AsyncGenerator[dict[str, Any], None]:
    """Run a `qig-core ... --json` child and yield the objects it prints, one a line.

    The last one yielded is `{"error": TEXT}` where the child failed without a result.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
    except OSError as error:
        yield {"error": f"could not be started: {error.strerror}"}
        return
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    answered = False
    try:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                yield {"error": f"a line of more than {_LINE_LIMIT >> 20} MiB"}
                return
            if not line:
                break
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                answered = answered or "result" in found
                yield found
        code = await process.wait()
        said = (await errors).decode(errors="replace").strip().splitlines()
        if not answered:
            yield {"error": safe(said[-1], 300) if said else f"ended with exit code {code} and no result"}
    finally:
        errors.cancel()
        # Kills it where it still runs. By itself asyncio lets go of a process only after its loop has turned again, and
        # closing the dashboard over a running child ends the loop.
        process._transport.close()  # type: ignore[attr-defined]  # there is no public way
        await process.wait()


def verify_argv(run: RunDir, checkpoint: str | None = None) -> list[str]:
    """The child that checks the digests of a checkpoint; of every one where none is named."""
    return _checkpoints("verify", run, *([] if checkpoint is None else [checkpoint]))


def diff_argv(run: RunDir, a: str, b: str) -> list[str]:
    """The child that says in what two checkpoints of a run differ."""
    return _checkpoints("diff", run, a, b)


def tag_argv(run: RunDir, checkpoint: str, tag: str, *, remove: bool) -> list[str]:
    """The child that gives a checkpoint of a run without a trainer a tag, or takes it away."""
    return _checkpoints("tag", run, checkpoint, tag, *(["--remove"] if remove else []))


def prune_argv(run: RunDir, *, newest: int | None, best: int | None, only: Sequence[str] | None = None) -> list[str]:
    """The child that plans which checkpoints go, and that deletes of these what `only` names, where it names any.

    Args:
        newest, best: how many of each stay; None for as many as the run's own rule says.
    """
    words = [word for name in only or () for word in ("--only", name)]
    words += ["--dry-run"] if only is None else ["--yes"]
    for option, count in (("--newest", newest), ("--best", best)):
        words += [] if count is None else [option, str(count)]
    return _checkpoints("prune", run, *words)


def _checkpoints(verb: str, run: RunDir, *words: str) -> list[str]:
    # Beginning with a "/" the path is no option, whatever it is called; the names are those of folders that are shown.
    return [sys.executable, "-m", "qig_core.cli", "checkpoints", verb, str(Path(run.path).absolute()), *words, "--json"]
