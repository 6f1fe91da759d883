"""The alarms of a recorded run, read from its events as any other program would. No torch, no training."""

from dataclasses import dataclass

from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event
from qig_core.safety.verdict import ALARMS

INJECTED = "injected"
"""The kind of event with which a run says that its fault begins: everything after it is a consequence, or false."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A condition that began to alarm or became worse, or an alert."""

    id: str
    severity: str
    step: int | None
    """As the event has it: of a run that hangs, the last one that was done."""
    metric: str = ""
    cause: str = ""
    """The metric that went wrong first."""
    after_s: float | None = None
    """Seconds since the injection; None before it."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What a run said, in its order."""

    before: tuple[Alarm, ...] = ()
    """The injection; all of them where there was none."""
    after: tuple[Alarm, ...] = ()
    injected_step: int | None = None


def history_of(run: RunDir) -> History:
    """Read a run's events. What a condition repeats while its state is unchanged is no alarm, nor what it inherited.

    Raises:
        RunFormatError: the events cannot be read.
    """
    before: list[Alarm] = []
    after: list[Alarm] = []
    states: dict[str, str] = {}
    injected: Event | None = None
    for event in read_all(run.events, Event):
        if not isinstance(event, Event):
            continue
        if event.kind == INJECTED:
            injected = event
            continue
        if (alarm := _alarm(event, states, injected)) is not None:
            (before if injected is None else after).append(alarm)
    return History(before=tuple(before), after=tuple(after), injected_step=None if injected is None else injected.step)


def _alarm(event: Event, states: dict[str, str], injected: Event | None) -> Alarm | None:
    after_s = None if injected is None else round(event.t - injected.t, 3)
    if event.kind == "alert" and event.severity in ALARMS:
        return Alarm(id="alert", severity=event.severity, step=event.step, after_s=after_s)
    if event.kind != "condition":
        return None
    name, state = event.data["id"], event.data["state"]
    known, states[name] = states.get(name), state
    inherited = (
        injected is None and known is None and event.step is None
    )  # told at the start of a session, as the parent left it
    if state not in ALARMS or state == known or inherited or known == "critical":
        return None
    cause = event.data.get("cause") or [""]
    return Alarm(id=name, severity=state, step=event.step, metric=event.data["metric"], cause=cause[0], after_s=after_s)
