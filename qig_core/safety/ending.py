"""How a stop is told: the emergency record, the event, the acknowledgements, one line for the terminal."""

import contextlib
import faulthandler
import sys
import time
from dataclasses import dataclass
from typing import Any

from qig_core.errors import ExitCode, QigError, RecordWriteError
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import AbortState, Cause, EmergencyAbortHandler
from qig_core.safety.announcing import Announcer
from qig_core.safety.commands import CommandDesk
from qig_core.safety.emergency import EmergencyRecord, Memory, RememberedSample, Reserved, StageTime
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.saves import Saves


@dataclass(kw_only=True)
class Outcome:
    """How the run went, as far as it is known."""

    ended: bool = False
    exit_code: int = 0
    reason: str = ""
    error: Exception | None = None
    step: int | None = None

    def failed(self, error: Exception) -> None:
        """Keep the first failure."""
        self.error = self.error or error


class Ending:
    """Writes down a stop; a disk that refuses does not keep the rest from being told."""

    def __init__(
        self,
        writer: RunWriter,
        outcome: Outcome,
        *,
        safety: SafetyMonitor,
        abort: EmergencyAbortHandler,
        saves: Saves,
        desk: CommandDesk,
        memory: Memory,
        announcer: Announcer,
    ) -> None:
        self._writer = writer
        self._outcome = outcome
        self._safety = safety
        self._abort = abort
        self._saves = saves
        self._desk = desk
        self._memory = memory
        self._announcer = announcer
        self._reserved: Reserved | None = None

    def begin(self) -> None:
        """The run begins: see to it that a stop can be told quickly."""
        with contextlib.suppress(OSError):  # a disk that refuses this is told of where it matters
            for left in self._writer.run.emergencies.glob(".*.tmp"):  # by sessions that were killed
                left.unlink(missing_ok=True)
            self._reserved = Reserved(self._writer.run, self._abort.id)

    def end(self) -> None:
        """The run is over, however."""
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            with contextlib.suppress(OSError):
                reserved.drop()

    def foreshadow(self, cause: Cause) -> None:
        """The record before the save, so that a process killed in it leaves more than silence.

        Without samples and conditions, and not forced to the disk: the save is to start within a millisecond.
        """
        if self._reserved is not None:
            try:
                self._reserved.write(self._record(cause, cause.exit_code, conditions=[], samples=[]))
            except OSError as error:
                self._outcome.failed(error)

    def conclude(
        self, cause: Cause, code: int, made: CheckpointManifest | None, note: str = "", *, trace: str = ""
    ) -> None:
        """The run has stopped. `note` says why there is no checkpoint."""
        self._writer.heartbeat.doing = "stop"
        self._abort.advance(AbortState.STOPPED)
        reason = f"{cause.text()}; {f'checkpoint {made.name}' if made else f'no checkpoint: {note}'}"
        outcome = self._outcome
        outcome.ended, outcome.exit_code, outcome.reason = True, code, reason
        self._write_record(cause, code, made=made, note=note, trace=trace)
        try:
            if made is not None:
                self._saves.tell(made)
            self._tell(cause, code, made, note)
        except RecordWriteError as error:
            outcome.failed(error)
        # A terminal that is gone (SIGHUP) or a full disk behind a redirection must not change how the run ends.
        with contextlib.suppress(OSError, ValueError):
            print(f"qig: stopped at step {outcome.step}: {printable(reason)}; exit code {code}", file=sys.stderr)

    def deadline(self) -> None:
        """In the watchdog's thread, which ends the process when this returns or takes too long: most precious first."""
        code = int(ExitCode.DEADLINE)
        cause = self._abort.cause or Cause("error", "deadline", code)
        note = f"not stopped in time, busy with {self._writer.heartbeat.doing}"
        with contextlib.suppress(OSError), open(self._writer.run.emergency_stacks(self._abort.id), "w") as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
        self._announcer.end(self._outcome.step, code, f"{cause.text()}; {note}")  # on its way while the disk is asked
        self._write_record(cause, code, note=note)
        with contextlib.suppress(OSError, QigError):
            self._tell(cause, code, None, note)
        with contextlib.suppress(OSError, QigError):
            self._writer.close(code, f"{cause.text()}; no checkpoint: {note}")
        self._announcer.close(1.0)

    def _tell(self, cause: Cause, code: int, made: CheckpointManifest | None, note: str) -> None:
        name = made.name if made else None
        why = {"note": f"no checkpoint: {note}"} if note else {}
        # A stop that was asked for and went as asked is no emergency.
        asked = cause.kind in ("command", "signal") and code == cause.exit_code
        self._writer.event(
            "emergency",
            step=self._outcome.step,
            severity="critical" if not asked else "info" if made else "warning",
            id=self._abort.id,
            cause=cause.text(),
            checkpoint=name,
            exit_code=code,
            **why,
        )
        for command in self._desk.aborts:
            if made:
                self._desk.stage(command, "checkpoint", self._outcome.step, name=name, digest=made.fingerprint)
            self._desk.stage(command, "stopped", self._outcome.step, exit_code=code, **why)

    def _write_record(
        self,
        cause: Cause,
        code: int,
        *,
        made: CheckpointManifest | None = None,
        note: str = "",
        trace: str = "",
    ) -> None:
        conditions = [verdict.data() for verdict in self._safety.verdicts()]
        record = self._record(
            cause, code, conditions=conditions, samples=self._memory.samples(), made=made, note=note, trace=trace
        )
        try:
            record.write(self._writer.run)
        except OSError as error:
            self._outcome.failed(error)

    def _record(
        self,
        cause: Cause,
        code: int,
        *,
        conditions: list[dict[str, Any]],
        samples: list[RememberedSample],
        made: CheckpointManifest | None = None,
        note: str = "",
        trace: str = "",
    ) -> EmergencyRecord:
        return EmergencyRecord(
            id=self._abort.id,
            run=self._writer.run.id,
            session=self._writer.session,
            step=self._outcome.step,
            t=time.time(),
            cause=cause,
            exit_code=code,
            checkpoint=made.name if made else None,
            fingerprint=made.fingerprint if made else None,
            note=note,
            conditions=conditions,
            stages=[StageTime(stage, t) for stage, t in self._abort.stages],
            samples=samples,
            versions=self._writer.manifest.versions,
            traceback=trace,
        )
