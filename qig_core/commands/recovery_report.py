"""What `qig-core recover` found, as plain data, and how a person sees it. Reads no file, decides nothing."""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from rich.filesize import decimal

from qig_core.checkpoints.verification import Progress
from qig_core.rundir.aftermath import Damage
from qig_core.rundir.printable import printable
from qig_core.rundir.schema import Event, SessionRecord
from qig_core.terminal import err, out, print_facts, print_json, print_table, progress_bar

Outcome = Literal["live", "finished", "goes-on", "nothing-left", "from-birth", "fork-again", "lost"]
"""goes-on: from a sound checkpoint. nothing-left: that one is at the run's last step. from-birth: there is none, it
begins again at step 0. fork-again: nor has a fork one, whose state was its parent's. lost: no sound one."""

_FIRST = ("loss", "loss_heldout", "phi", "kappa", "drift_birth", "grad_norm", "lr")
_PROGRESS_BYTES = 64 << 20
_SHOWN = 10
_BARE = ("id", "state", "name", "checkpoint", "text", "cause", "verb", "stage")
"""Of an event's data: what is understood without its key."""
_UNSAID = ("fingerprint", "digest", "window", "specs", "since_step", "dwell", "comparison", "unit", "metric")


class Row(msgspec.Struct):
    """A checkpoint whose every byte was read."""

    name: str
    step: int | None
    t: float
    size: int
    reason: str
    tags: list[str]
    conditions: dict[str, str]
    """Those in warning or critical."""
    nonfinite: list[str]
    """Metrics, and FILE:TENSOR of tensors."""


class SetAside(msgspec.Struct):
    """A checkpoint that was bad, and where it is now."""

    name: str
    step: int | None
    status: str
    problems: list[str]
    path: str


class LeftAlone(msgspec.Struct):
    """A checkpoint that was passed over: of a newer format, or of a branch that the run left."""

    name: str
    step: int | None
    status: str
    problems: list[str]


class Emergency(msgspec.Struct):
    """What was written down when the last session was stopped."""

    id: str
    t: float
    step: int | None
    cause: str
    exit_code: int
    checkpoint: str | None
    note: str


class Next(msgspec.Struct):
    """The command that goes on."""

    argv: list[str]
    """Of another program: as it was recorded, without the interpreter."""
    text: str
    """To be typed or copied."""
    cwd: str | None
    ours: bool
    """Of `qig-core train`; only such a one is ever started."""


class Report(msgspec.Struct, kw_only=True):
    """The whole answer; under `result` in --json."""

    run: str
    path: str
    name: str
    program: str
    liveness: str
    liveness_detail: str
    outcome: Outcome = "lost"
    session: SessionRecord | None
    """The last one."""
    sessions: int
    exit_code: int | None
    reason: str
    last_t: float | None
    age_s: float | None
    step: int | None
    """The last recorded one."""
    total_steps: int | None
    metrics: dict[str, float | None]
    nonfinite: dict[str, str]
    conditions: dict[str, str]
    """Those in warning or critical."""
    events: list[Event]
    emergency: Emergency | None
    console: list[str]
    damage: list[Damage]
    set_aside: list[SetAside] = []
    left_alone: list[LeftAlone] = []
    newest: Row | None = None
    checkpoint: Row | None = None
    """The one to go on from: the newest, or the last good one where that would stop again."""
    lost_steps: int | None = None
    problem: str = ""
    """Why there is no checkpoint."""
    notes: list[str] = []
    command: Next | None = None


class Bar:
    """Where verifying stands: a bar on a terminal, lines of JSON, or nothing. A context manager."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._number, self._of, self._last, self._said = 0, 0, -1, 0
        self._stack = ExitStack()
        self._show: Progress = lambda done, total: None

    def __enter__(self) -> Self:
        self._show = self._stack.enter_context(progress_bar("verifying", shown=not self._json))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of the checkpoint that is being read; where they do not grow, it is the next one."""
        if done <= self._last or total != self._of:
            self._number, self._said = self._number + 1, -_PROGRESS_BYTES
        self._last, self._of = done, total
        self._show(done, total)
        if self._json and (done - self._said >= _PROGRESS_BYTES or done >= total):
            self._said = done
            print_json({"progress": {"number": self._number, "done": done, "total": total}})


def show_happened(found: Report) -> None:
    """What became of the run, its last figures and events."""
    session = found.session
    ended = (
        f"exit {'?' if found.exit_code is None else found.exit_code}" + (f": {found.reason}" if found.reason else "")
        if found.liveness == "EXITED"
        else "no end was recorded"
    )
    when = "?" if found.last_t is None else f"{_clock(found.last_t)}, {_age(found.age_s)} ago"
    rows = [
        ("run", f"{found.run}  {printable(found.name, 200)}"),
        ("state", f"{found.liveness} {found.liveness_detail}".rstrip()),
        ("ended", ended),
        ("last sign", when),
        ("step", f"{_known(found.step)} / {_known(found.total_steps)}"),
    ]
    if session is not None:
        where = f"process {session.pid} on {printable(session.host, 100)}"
        rows.insert(1, ("session", f"{session.id[:8]}, {found.sessions} in all, {where}"))
    names = [name for name in _FIRST if name in found.metrics]
    rows.append(("measured", "  ".join(f"{name} {_figure(found, name)}" for name in names) or "nothing"))
    rows += [("not finite", f"{printable(name, 100)}: {kind}") for name, kind in list(found.nonfinite.items())[:10]]
    rows += [("condition", f"{printable(name, 100)}: {state}") for name, state in list(found.conditions.items())[:20]]
    if found.emergency is not None:
        one = found.emergency
        saved = one.checkpoint or "no checkpoint"
        note = f": {one.note}" if one.note else ""
        rows.append(("emergency", printable(f"{one.cause}, step {_known(one.step)}, {saved}{note}", 1000)))
    rows += [("damage", one.text()) for one in found.damage]
    rows += [("console.log", line) for line in found.console]
    print_facts(rows)
    if found.events:
        out.print()
        cells = [(_clock(event.t), event.step, event.kind, what(event)) for event in found.events]
        print_table(("last events", "step", "kind", "what"), cells, right=("step",), fold=("kind", "what"))


def show_checkpoints(found: Report) -> None:
    """What verifying has shown."""
    out.print()
    for bad in found.set_aside:
        _say(f"{bad.name} is {bad.status} ({'; '.join(bad.problems)}): set aside in {bad.path!r}")
    for other in found.left_alone[:_SHOWN]:
        _say(f"{other.name} is {other.status} ({'; '.join(other.problems)}): left alone")
    if len(found.left_alone) > _SHOWN:
        _say(f"and {len(found.left_alone) - _SHOWN} more were left alone")
    if found.problem:
        _say(found.problem)
    one = found.checkpoint
    if one is not None:
        age = _age(None if found.last_t is None else found.last_t - one.t + (found.age_s or 0.0))
        lost = "" if found.lost_steps is None else f", {found.lost_steps} steps lost"
        kind = f"{one.reason} checkpoint"
        _say(f"go on from {one.name}: step {_known(one.step)}, {kind}, {age} old, {decimal(one.size)}, verified{lost}")
    for note in found.notes:
        _say(note)


def show_next(found: Report) -> None:
    """The command, whole and on one line."""
    then = found.command
    if then is None:
        return
    if then.ours:
        _say("resume it with:" if found.outcome != "fork-again" else "fork it again with:")
    else:
        _say(f"its command as it was recorded, in {then.cwd or '?'}, to copy; nothing of it is executed:")
    _say(f"  {then.text}")


def ask(question: str) -> bool:
    """A question on the terminal's stderr; anything but y or yes is no."""
    err.print(printable(f"{question} [y/N] "), end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def what(event: Event) -> str:
    """The data of an event in one line, whatever a foreign writer put there."""
    parts = []
    for key, value in event.data.items():
        if (
            key in _UNSAID
            or (key == "id" and event.kind in ("command", "emergency"))
            or value is None
            or value == ""
            or value == []
            or isinstance(value, Mapping)
        ):
            continue
        shown = f"{value:.6g}" if isinstance(value, float) else printable(_plain(value), 120)
        parts.append(shown if key in _BARE else f"{printable(key, 40).replace('_', ' ')} {shown}")
    return ", ".join(parts[:8])


def _plain(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return " ".join(str(each.get("id", "…") if isinstance(each, Mapping) else each) for each in value[:8])


def _say(sentence: str) -> None:
    out.print(printable(sentence), soft_wrap=True)


def _figure(found: Report, name: str) -> str:
    value = found.metrics[name]
    return found.nonfinite.get(name, "not measured") if value is None else f"{value:.6g}"


def _known(value: int | None) -> str:
    return "–" if value is None else str(value)


def _clock(t: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return "?"


def _age(seconds: float | None) -> str:
    """41 s, 14 min, 5 h, 3 d."""
    if seconds is None:
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
