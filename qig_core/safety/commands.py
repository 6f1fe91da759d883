"""What a trainer does with the commands in its mailbox. Called at step boundaries only."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from qig_core.errors import CheckpointError, UsageError
from qig_core.rundir.schema import PINNED, Command
from qig_core.rundir.values import is_run_id
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import Cause, EmergencyAbortHandler
from qig_core.safety.going_back import Ask
from qig_core.safety.saves import Saves

AT_ONCE = 64
"""Commands that one step boundary answers; the rest waits for the next."""
_PAUSE_LOOK_S = 0.05
_NAME_WANTED = "args.checkpoint must be the name of a checkpoint of this run, and no path"


class CommandDesk:
    """Answers each command by stages: acting, then done, refused or, for an abort, stopped.

    set_log_every takes `{"value": n}`; restore, pin and unpin `{"checkpoint": NAME}`; tag that and `"tag": WORD`, with
    `"remove": true` to take it away; prune perhaps `{"newest": n, "best": k, "names": [...]}`, of these names alone.

    Args:
        cannot_go_back: why the loop cannot, or nothing.
        nothing_good: why there is no checkpoint for a soft reset, or nothing.
    """

    def __init__(
        self,
        writer: RunWriter,
        saves: Saves,
        abort: EmergencyAbortHandler,
        *,
        log_every: int,
        cannot_go_back: Callable[[], str],
        nothing_good: Callable[[], str],
    ) -> None:
        self._writer = writer
        self._saves = saves
        self._abort = abort
        self._cannot_go_back = cannot_go_back
        self._nothing_good = nothing_good
        self.paused = False
        self.log_every = max(1, log_every)
        self.aborts: list[Command] = []
        """Those that asked for the stop: they are told when it is reached."""
        self.going_back: Ask | None = None
        """What a command asked for: whoever holds the loop acts on it and takes it away."""

    def obey(self, step: int, *, may_wait: bool = True) -> None:
        """Act on the commands that wait; a pause is sat out here, until it ends or the run is to go back or to stop.

        Args:
            may_wait: False where the step has something more urgent; a pause then begins at the next boundary.

        Raises:
            RecordWriteError: an answer could not be recorded.
        """
        self._answer_all(step)
        if not self.paused or not may_wait or self.going_back is not None:
            return
        since = time.monotonic()
        while self.paused and self.going_back is None and not self._abort.asked:
            self._writer.heartbeat.doing = "pause"
            time.sleep(_PAUSE_LOOK_S)
            self._writer.look_after(step)
            self._saves.settle(step)
            self._answer_all(step)
        self._saves.not_training(time.monotonic() - since)
        self._writer.heartbeat.step_done(step)  # a pause is no step time

    def dismiss(self, step: int | None) -> None:
        """The run has ended: refuse what still waits."""
        if self.going_back is not None:
            self.went_back("refused", step, reason="the run is to stop")
        for pending in self._writer.mailbox.take():
            self.stage(pending.command, "refused", step, reason="the run has ended")

    def went_back(self, stage: str, step: int | None, **detail: Any) -> None:
        """Take away what was asked for, and tell who asked."""
        ask, self.going_back = self.going_back, None
        if ask is not None and ask.command is not None:
            self.stage(ask.command, stage, step, **detail)

    def stage(self, command: Command, stage: str, step: int | None, **detail: Any) -> None:
        """Write a stage into the acknowledgement and into the events."""
        self._writer.mailbox.stage(command, stage, step, **detail)
        severity = "warning" if stage == "refused" else "info"
        self._writer.event(
            "command", step=step, severity=severity, id=command.id, verb=command.verb, stage=stage, **detail
        )

    def _answer_all(self, step: int) -> None:
        checkpoints: list[Command] = []
        for pending in self._writer.mailbox.take(AT_ONCE):
            command = pending.command
            if pending.is_late(time.monotonic()):
                self.stage(command, "refused", step, reason=f"too late: seen more than {command.ttl_s:g} s ago")
            elif command.verb == "checkpoint":
                checkpoints.append(command)
            else:
                self._answer(command, step)
        if checkpoints:
            self._save_for(checkpoints, step)

    def _save_for(self, commands: list[Command], step: int) -> None:
        """One checkpoint answers all that asked for one at this boundary."""
        if not self._saves.possible:
            for command in commands:
                self.stage(command, "refused", step, reason="this loop gave no save function")
            return
        for command in commands:
            self.stage(command, "acting", step)
        made = self._saves.attempt(step, "command")
        for command in commands:
            if made is None:
                self.stage(command, "refused", step, reason=f"the save failed: {self._saves.error}")
            else:
                self.stage(command, "done", step, name=made.name, digest=made.fingerprint)

    def _answer(self, command: Command, step: int) -> None:
        match command.verb:
            case "abort":
                self.stage(command, "acting", step)
                self.aborts.append(command)
                self._abort.request(Cause.command(f"abort by {command.by or 'nobody named'}"))
            case "pause":
                self.paused = True
                self.stage(command, "done", step)
            case "resume" if self.paused:
                self.paused = False
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
            case "restore" | "soft_reset":
                if reason := self._ask_to_go_back(command):
                    self.stage(command, "refused", step, reason=reason)
                else:
                    self.stage(command, "acting", step)
            case "pin" | "unpin" | "tag" | "prune":
                self._keep_house(command, step)
            case _:
                self.stage(command, "refused", step, reason="not supported by this trainer yet")

    def _keep_house(self, command: Command, step: int) -> None:
        """Pins, tags and prunes: never while a save is on its way, which prunes by what it found."""
        keeper = self._saves.keeper
        if keeper is None:
            reason = "this loop's save function looks after no checkpoints; qig_core.checkpoints.saving.saver makes one"
            self.stage(command, "refused", step, reason=reason)
            return
        self.stage(command, "acting", step)
        self._saves.settle(step, wait=True)
        run, args = self._writer.run, command.args
        try:
            if command.verb == "prune":
                over = {key: _whole_number(args, key) for key in ("newest", "best")}
                gone = keeper.tidy(run, self._saves.in_use(), over, _names(args))
                self._saves.tell_pruned(step, gone, how=f"by {command.by or 'nobody named'}")
                told = gone.data()
            else:
                name = args.get("checkpoint")
                if not isinstance(name, str) or not is_run_id(name):
                    raise UsageError(_NAME_WANTED)
                word = args.get("tag") if command.verb == "tag" else PINNED
                if not isinstance(word, str):
                    raise UsageError("args.tag must be a word")
                change = keeper.untag if command.verb == "unpin" or args.get("remove") is True else keeper.tag
                tags = change(run, name, word)
                self._writer.event("tagged", step=step, name=name, tags=list(tags))
                told = {"name": name, "tags": list(tags)}
        except (UsageError, CheckpointError) as error:
            self.stage(command, "refused", step, reason=str(error))
        else:
            self.stage(command, "done", step, **told)

    def _ask_to_go_back(self, command: Command) -> str:
        """Keep what is asked for; why not, where it cannot be."""
        if reason := self._cannot_go_back():
            return reason
        if self.going_back is not None:
            return "another command to go back came first"
        cause = f"{command.verb} by {command.by or 'nobody named'}"
        if command.verb == "soft_reset":
            if reason := self._nothing_good():
                return reason
            self.going_back = Ask(how="soft_reset", cause=cause, command=command)
            return ""
        name = command.args.get("checkpoint")
        if not isinstance(name, str) or not is_run_id(name):
            return _NAME_WANTED
        self.going_back = Ask(how="restore", cause=cause, checkpoint=name, command=command)
        return ""


def _whole_number(args: Mapping[str, Any], key: str) -> int | None:
    """Raises: UsageError, it is there and no whole number."""
    value = args.get(key)
    if value is not None and type(value) is not int:
        raise UsageError(f"args.{key} must be a whole number")
    return value


def _names(args: Mapping[str, Any]) -> list[str] | None:
    """Raises: UsageError, they are there and no list of text."""
    names = args.get("names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UsageError("args.names must be a list of checkpoint names")
    return names
