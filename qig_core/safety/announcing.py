"""What the conditions say, told: as events of the run, and to whom the [alerts] name. Judges nothing."""

from typing import Any

from qig_core.rundir.host import host_name
from qig_core.rundir.writer import RunWriter
from qig_core.safety.alerts import Alerts, AlertSettings
from qig_core.safety.monitor import Judgement, SafetyMonitor
from qig_core.safety.stall import StallWatch
from qig_core.safety.verdict import ALARMS, Verdict

LAST_ALERTS_S = 5.0
"""What telling of the end may take of the end's time."""


class Announcer:
    """Tells of every condition: at a start all of them, then what changes, each with its cause and its window."""

    def __init__(self, writer: RunWriter, safety: SafetyMonitor, settings: AlertSettings | None) -> None:
        """Raises: ConfigError, as `Alerts` does."""
        self._writer = writer
        self._safety = safety
        self._alerts: Alerts | None = None
        if settings is not None:
            self._alerts = Alerts(
                settings,
                run=writer.run.id,
                name=writer.manifest.name,
                path=str(writer.run.path),
                host=host_name(),
                report=self._tell_of_failure,
            )
        self._stall: StallWatch | None = None
        if safety.profile.stall is not None:
            self._stall = StallWatch(
                safety.profile.stall,
                writer.heartbeat,
                writer.run,
                on_change=self._stalled,
                on_silence=self._stood_still,
            )

    def begin(self) -> None:
        """All of them, whatever was told before: a reader folds the state from the last start on."""
        self.all(None)
        if self._stall is not None:
            self.tell_of(None, self._stall.verdict)
            self._writer.heartbeat.watch(self._stall.look)

    def all(self, step: int | None) -> None:
        """Everything that is judged from samples, as after a start."""
        for verdict in self._safety.verdicts():
            self.tell_of(step, verdict)

    def judged(self, step: int, judgement: Judgement) -> None:
        """What a step has changed.

        Raises:
            RecordWriteError: the disk refused.
        """
        for verdict in judgement.transitions:
            alarm = verdict.state in ALARMS
            window = {"window": self._safety.window(verdict.metric)} if alarm else {}
            self.tell_of(step, verdict, **window)
            if alarm:
                self._tell(verdict, step)
        for verdict in judgement.moved:
            self.tell_of(step, verdict)
        for advice in judgement.advice:
            self._writer.event("alert", step=step, id=advice.id, text=advice.text, raised=advice.raised)

    def _stalled(self, verdict: Verdict, stacks: str | None) -> None:
        """In the heartbeat thread."""
        step = self._writer.heartbeat.step
        if verdict.state in ALARMS:
            self._tell(verdict, step)  # first: the disk may be what hangs
        doing = self._stall.doing if self._stall is not None else ""
        self.tell_of(step, verdict, doing=doing, **({"stacks": stacks} if stacks else {}))

    def _stood_still(self, seconds: float) -> None:
        """In the heartbeat thread, after the fact."""
        why = "it was stopped or starved, or one call kept the interpreter"
        text = f"nothing of the process ran for {seconds:.0f} s: {why}"
        step = self._writer.heartbeat.step
        self._writer.event("note", step=step, severity="warning", text=text)
        if self._alerts is not None:
            self._alerts.tell("warning", step=step, text=text, data={"id": "silence", "seconds": seconds})

    def went_back(self, step: int, checkpoint: str, cause: str) -> None:
        """To those who were told of the critical alarm: the run goes on."""
        if self._alerts is not None:
            text = f"soft reset after {cause}: the run goes on from checkpoint {checkpoint}"
            data = {"id": "soft_reset", "checkpoint": checkpoint, "cause": cause}
            self._alerts.tell("critical", step=step, text=text, data=data)

    def tell_of(self, step: int | None, verdict: Verdict, **more: Any) -> None:
        """Record what a condition says, to nobody else."""
        severity = verdict.state if verdict.state in ALARMS else "info"
        self._writer.event("condition", step=step, severity=severity, **verdict.data(), **more)

    def _tell_of_failure(self, text: str) -> None:
        """In the thread that delivers."""
        self._writer.event("alert", severity="warning", text=text)

    def _tell(self, verdict: Verdict, step: int | None) -> None:
        if self._alerts is not None and (verdict.state == "warning" or verdict.state == "critical"):
            self._alerts.tell(verdict.state, step=step, text=verdict.text(), data=verdict.data())

    def end(self, step: int | None, exit_code: int, reason: str) -> None:
        """How the run ended."""
        if self._alerts is not None:
            text = f"ended with exit code {exit_code}" + (f": {reason}" if reason else "")
            self._alerts.tell("end", step=step, text=text, data={"exit_code": exit_code, "reason": reason})

    def close(self, wait_s: float = LAST_ALERTS_S) -> None:
        """Deliver what waits, or give up."""
        if self._alerts is not None:
            self._alerts.close(wait_s)
