"""What a trainer does with the commands in its mailbox. Called at step boundaries only."""

import time
from typing import Any

from qig_core.rundir.schema import Command
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import Cause, EmergencyAbortHandler
from qig_core.safety.saves import Saves

_PAUSE_LOOK_S = 0.05


class CommandDesk:
    """Answers each command by stages: acting, then done, refused or, for an abort, stopped.

    set_log_every takes `{"value": n}`.
    """

    def __init__(self, writer: RunWriter, saves: Saves, abort: EmergencyAbortHandler, *, log_every: int) -> None:
        self._writer = writer
        self._saves = saves
        self._abort = abort
        self._paused = False
        self.log_every = max(1, log_every)
        self.aborts: list[Command] = []
        """Those that asked for the stop: they are told when it is reached."""

    def obey(self, step: int) -> None:
        """Act on the commands that wait; a pause is sat out here.

        Raises:
            RecordWriteError: an answer could not be recorded.
        """
        self._answer_all(step)
        if not self._paused:
            return
        since = time.monotonic()
        while self._paused and not self._abort.asked:
            self._writer.heartbeat.doing = "pause"
            time.sleep(_PAUSE_LOOK_S)
            if self._writer.write_error is not None:
                raise self._writer.write_error
            self._answer_all(step)
        self._saves.not_training(time.monotonic() - since)
        self._writer.heartbeat.step_done(step)  # a pause is no step time

    def dismiss(self, step: int | None) -> None:
        """The run has ended: refuse what still waits."""
        for pending in self._writer.mailbox.take():
            self.stage(pending.command, "refused", step, reason="the run has ended")

    def stage(self, command: Command, stage: str, step: int | None, **detail: Any) -> None:
        """Write a stage into the acknowledgement and into the events."""
        self._writer.mailbox.stage(command, stage, step, **detail)
        severity = "warning" if stage == "refused" else "info"
        self._writer.event(
            "command", step=step, severity=severity, id=command.id, verb=command.verb, stage=stage, **detail
        )

    def _answer_all(self, step: int) -> None:
        for pending in self._writer.mailbox.take():
            command = pending.command
            if pending.is_late(time.monotonic()):
                self.stage(command, "refused", step, reason=f"too late: seen more than {command.ttl_s:g} s ago")
            else:
                self._answer(command, step)

    def _answer(self, command: Command, step: int) -> None:
        match command.verb:
            case "abort":
                self.stage(command, "acting", step)
                self.aborts.append(command)
                self._abort.request(Cause.command(f"abort by {command.by or 'nobody named'}"))
            case "checkpoint" if not self._saves.possible:
                self.stage(command, "refused", step, reason="this loop gave no save function")
            case "checkpoint":
                self.stage(command, "acting", step)
                made = self._saves.attempt(step, "command")
                if made is None:
                    self.stage(command, "refused", step, reason=f"the save failed: {self._saves.error}")
                else:
                    self.stage(command, "done", step, name=made.name, digest=made.fingerprint)
            case "pause":
                self._paused = True
                self.stage(command, "done", step)
            case "resume" if self._paused:
                self._paused = False
                self.stage(command, "done", step)
            case "resume":
                self.stage(command, "refused", step, reason="the run is not paused")
            case "set_log_every":
                every = command.args.get("value")
                if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
                    self.log_every = every
                    self.stage(command, "done", step, log_every=every)
                else:
                    self.stage(command, "refused", step, reason="args.value must be a whole number, 1 or more")
            case _:
                self.stage(command, "refused", step, reason="not supported by this trainer yet")
