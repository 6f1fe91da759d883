"""What was asked of a run and how far it came, how it was stopped, how it ended: in stages and words. No disk."""

import math
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qig_core.errors import ExitCode
from qig_core.rundir.liveness import Word
from qig_core.rundir.schema import Ack, Command, Event
from qig_core.rundir.values import is_command_id
from qig_tui.picture import RunPicture
from qig_tui.records import as_float
from qig_tui.sources.emergencies import Emergency
from qig_tui.sources.surroundings import Beside
from qig_tui.text import clock, grouped, number, safe

_MOST = 50
"""Newest commands that are told of."""
_MOST_STAGES = 12
_ENDS = frozenset({"done", "refused", "stopped"})
_CODES: dict[int, str] = {
    ExitCode.OK: "it finished",
    ExitCode.FOUND_BAD: "something was found bad",
    ExitCode.USAGE: "it was asked for something that cannot be",
    ExitCode.INTERNAL: "an error of the program ended it",
    ExitCode.LOCKED: "another writer had the run",
    ExitCode.IO: "the disk stopped it",
    ExitCode.LIMIT: "a limit stopped it",
    ExitCode.COMMAND: "a command stopped it",
    ExitCode.EMERGENCY_CHECKPOINT_FAILED: "it was stopped, and the emergency checkpoint failed",
    ExitCode.DEADLINE: "it did not stop in time, and the watchdog ended it",
}


def exit_words(code: int | None) -> str:
    """What an exit code means; empty where it is not one of ours."""
    if code is None:
        return ""
    if code in _CODES:
        return _CODES[code]
    try:
        return f"{signal.Signals(code - 128).name} stopped it"
    except ValueError:
        return ""


@dataclass(frozen=True)
class Stage:
    """A point that was reached."""

    name: str
    t: float | None
    """Unix seconds; None: it was not recorded."""
    detail: str = ""


@dataclass(frozen=True)
class Asking:
    """One thing that was asked of the run, or one stop."""

    id: str
    title: str
    """abort; limit nonfinite: loss not finite."""
    by: str
    is_stop: bool
    stages: tuple[Stage, ...]
    t: float
    """Of the newest stage."""
    step: int | None = None
    session: str | None = None

    @property
    def ended(self) -> bool:
        return bool(self.stages) and self.stages[-1].name in _ENDS

    @property
    def origin(self) -> float | None:
        """What its times are counted from: the request, or the first stage whose time is known."""
        return next((stage.t for stage in self.stages if stage.t is not None), None)

    @property
    def is_timed_from_request(self) -> bool:
        return bool(self.stages) and self.stages[0].name == "requested" and self.stages[0].t is not None


def detail_text(data: Mapping[str, Any], step: int | None = None) -> str:
    """What a stage carries, in words."""
    parts = [] if step is None else [f"step {grouped(step)}"]
    for key, value in list(data.items())[:8]:
        if key in ("id", "verb", "stage", "nonfinite") or value is None:
            continue
        shown = number(value) if isinstance(value, float) else safe(value, 160)
        if key in ("digest", "fingerprint"):
            shown = shown[:12]
        parts.append(shown if key in ("name", "reason", "note") else f"{safe(key, 20).replace('_', ' ')} {shown}")
    return " · ".join(parts)


def askings(
    events: Iterable[Event], acks: Mapping[str, Ack], waiting: Sequence[Command], requests: Mapping[str, Command]
) -> list[Asking]:
    """Every command, the newest first: by its acknowledgement, else by the events, else as it lies in the mailbox.

    Args:
        events: the oldest first.
        acks: by id.
        waiting: what the trainer has not seen.
        requests: by id, what was seen lying there before, so that it is known when it was asked for.
    """
    told: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "command":
            name = event.data.get("id")
            key = name if isinstance(name, str) and is_command_id(name) else f"event {event.seq}"
            told.setdefault(key, []).append(event)
            if len(told) > _MOST:
                del told[next(iter(told))]
    known = [_of_events(key, found, acks.get(key), requests.get(key)) for key, found in told.items()]
    known += [_of_ack(ack, requests.get(key)) for key, ack in acks.items() if key not in told and ack.stages]
    known += [_unseen(command) for command in waiting if command.id not in told and command.id not in acks]
    return sorted(known, key=lambda asking: asking.t, reverse=True)[:_MOST]


def _finite(t: object) -> float | None:
    value = as_float(t)
    return value if value is not None and math.isfinite(value) else None


def _verb(value: object) -> str:
    return safe(value or "?", 40).replace("_", " ")


def _made(
    key: str, verb: str, stages: list[Stage], request: Command | None, step: int | None, session: str | None
) -> Asking:
    by = "" if request is None else safe(request.by, 60)
    # Its time is the asker's clock's; it is not known any more of what had been seen before anybody looked.
    first = _finite(request.t) if request is not None else None
    seen = next((stage.t for stage in stages if stage.t is not None), None)
    if first is not None and seen is not None and not 0 <= seen - first < 600:
        first = None
    stages = [Stage("requested", first, f"by {by}" if by else ""), *stages[:_MOST_STAGES]]
    t = next((stage.t for stage in reversed(stages) if stage.t is not None), 0.0)
    return Asking(key, verb, by, verb == "abort", tuple(stages), t, step, session)


def _of_events(key: str, found: Sequence[Event], ack: Ack | None, request: Command | None) -> Asking:
    first, last = found[0], found[-1]
    if ack is not None and len(ack.stages) >= len(found):
        return _of_ack(ack, request, step=first.step)
    if not key.startswith("event "):
        stages = [Stage(safe(e.data.get("stage") or "?", 20), _finite(e.t), detail_text(e.data, e.step)) for e in found]
        return _made(key, _verb(last.data.get("verb")), stages, request, first.step, first.session)
    reason = safe(first.data.get("reason") or first.data.get("stage") or "", 160)
    what = safe(first.data.get("name") or first.data.get("verb") or "?", 40)
    stage = Stage(
        "refused" if first.severity != "info" else safe(first.data.get("stage") or "told", 20), first.t, reason
    )
    return Asking(key, what, "", False, (stage,), first.t, first.step, first.session)


def _of_ack(ack: Ack, request: Command | None, *, step: int | None = None) -> Asking:
    stages = [Stage(safe(s.stage, 20), _finite(s.t), detail_text(s.detail, s.step)) for s in ack.stages[:_MOST_STAGES]]
    return _made(ack.id, _verb(ack.verb), stages, request, step or ack.stages[0].step, safe(ack.session, 40))


def _unseen(command: Command) -> Asking:
    return _made(command.id, _verb(command.verb), [], command, None, safe(command.session, 40))


@dataclass(frozen=True, kw_only=True)
class StopView:
    """Whether the run can be stopped, what was asked of it, how it ended."""

    verdict: str
    """In a word or two."""
    tone: str
    facts: Sequence[tuple[str, str]]
    """Sentences with their tones: what the key does, or why nothing can be asked; who has the run."""
    last: Asking | None = None
    """The last stop, or the last command where nobody stopped the run."""
    others: Sequence[Asking] = ()
    """The commands besides, the newest first."""
    end: str = ""
    """How the run ended; empty while it goes on."""
    end_tone: str = "text"
    proof: Sequence[tuple[bool | None, str]] = ()
    """What says that it stopped; None: it cannot be known from here."""
    is_moving: bool = False
    """Whether a further stage may come."""
    later: int = 0
    """Commands after the moment that is shown."""


def stop_view(
    now: RunPicture,
    beside: Beside | None,
    asked: Sequence[Asking],
    stops: Sequence[Emergency],
    *,
    read_only: bool,
    web: bool,
    is_past: bool,
    later: int = 0,
) -> StopView:
    """Put together what the panel shows.

    Args:
        now: the run as it is now.
        beside: None: not looked at yet.
        asked, stops: up to the moment that is shown, the newest first.
    """
    verdict, tone, facts = _possible(now, beside, read_only=read_only, web=web)
    aborts = [asking for asking in asked if asking.is_stop]
    known = [*aborts, *(of_emergency(one) for one in stops if one.stages and (one.kind != "command" or not aborts))]
    last = max(known, key=lambda asking: asking.t, default=None) or (asked[0] if asked else None)
    end, end_tone, proof = ("", "text", []) if is_past or not now.ended else _ending(now, beside)
    return StopView(
        verdict=verdict,
        tone=tone,
        facts=facts,
        last=last,
        others=[asking for asking in asked if asking is not last],
        end=end,
        end_tone=end_tone,
        proof=proof,
        is_moving=not is_past and not now.ended,
        later=later,
    )


def of_emergency(one: Emergency) -> Asking:
    """A stop that nobody asked for by a command, or whose command is not known any more."""
    told = {"checkpointing": one.checkpoint or (f"nothing saved: {one.note}" if one.note else "")}
    if one.exit_code is not None:
        told["stopped"] = f"exit code {one.exit_code}"
    stages = tuple(Stage(name, t, told.get(name, "")) for name, t in one.stages)
    title = f"{one.kind}: {one.cause}" if one.kind else one.cause
    return Asking(one.id, title or "stop", "", True, stages, stages[-1].t or 0.0, one.step, one.session)


def _possible(
    now: RunPicture, beside: Beside | None, *, read_only: bool, web: bool
) -> tuple[str, str, list[tuple[str, str]]]:
    live, sessions = now.liveness, now.manifest.sessions
    who = f"process {sessions[-1].pid} on {safe(sessions[-1].host, 40)}" if sessions else "its trainer"
    there = ("dim", f"{live.glyph} {safe(live.text, 80)}{'' if beside is None else f' · {_lock_words(beside.lock)}'}")
    if now.ended:
        return "not possible", "dim", [("dim", f"The run is {safe(live.text, 60)}: there is no trainer to ask.")]
    if read_only:
        return "read only", "dim", [("dim", "This dashboard is read-only: every command is disabled."), there]
    if live.word in (Word.SILENT, Word.HUNG):
        then = "it may not hear this" if web else "it may not hear this, and then a signal is offered"
        return "doubtful now", "warning", [("warning", f"a asks {who} to stop; {then}."), there]
    return "possible now", "ok", [("text", f"a asks {who} to stop with a checkpoint, after a question."), there]


def _lock_words(lock: int | None) -> str:
    if lock is None:
        return "nobody holds the lock"
    return f"process {lock} holds the lock" if lock > 0 else "the lock is held from another host or container"


def _ending(now: RunPicture, beside: Beside | None) -> tuple[str, str, list[tuple[bool | None, str]]]:
    manifest = now.manifest
    code, exited = manifest.exit_code, manifest.state == "exited"
    if exited:
        at = "" if manifest.ended_t is None else f" {clock(manifest.ended_t)}"
        meaning = exit_words(code)
        words = f"Ended{at}, " + ("without an exit code" if code is None else f"exit code {safe(code, 12)}")
        end = f"{words}{f': {meaning}' if meaning else ''}."
        if manifest.reason and not now.journal.emergencies:
            end += f" {safe(manifest.reason, 300)}"
        proof: list[tuple[bool | None, str]] = [(True, "run.json says that it has ended")]
    else:
        end = "Its process is gone, and it never told of an end."
        proof = [(None, "run.json still says running")]
    if beside is not None:
        free = "nobody holds the lock"
        proof.append((True, free) if beside.lock is None else (None, _lock_words(beside.lock)))
        pid = f"process {manifest.sessions[-1].pid}" if manifest.sessions else "its process"
        if beside.process is None:
            proof.append((None, f"{pid}: not to be seen from here"))
        else:
            proof.append((None, f"{pid} is there, without the run") if beside.process else (True, f"{pid} is gone"))
    return end, "text" if exited and code in (ExitCode.OK, ExitCode.COMMAND) else "critical", proof
