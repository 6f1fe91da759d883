"""What the files of a run say after a crash: its last events, damaged ends, the last lines printed. Reads only."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.printable import printable
from qig_core.rundir.reader import LineDecoder, open_regular, read_document, tail_start
from qig_core.rundir.schema import Event, Heartbeat, Manifest, Sample, Unreadable

_TAIL_BYTES = 1 << 18
_CONSOLE_BYTES = 1 << 16


class Damage(msgspec.Struct):
    """What stands behind the last readable record of a file."""

    file: str
    lines: int
    """Whole lines that are no records."""
    torn_bytes: int
    """Of a last line without its newline."""

    def text(self) -> str:
        parts = [f"{self.lines} unreadable lines"] if self.lines else []
        parts += [f"a torn line of {self.torn_bytes} bytes"] if self.torn_bytes else []
        return f"{self.file} ends in {' and '.join(parts)}"


class Aftermath(msgspec.Struct):
    """The ends of a run's files."""

    events: list[Event]
    """The last ones, oldest first; no condition that says again what it said."""
    damage: list[Damage]
    console: list[str]
    """What was printed last, where the session that printed it never came to its end; safe for a terminal."""
    last_t: float | None
    """The latest time that anything was written, on the writer's clock."""


def read_aftermath(run: RunDir, manifest: Manifest, *, events: int = 10, console: int = 5) -> Aftermath:
    """Read the last 256 KiB of each record file, the heartbeat, and the end of console.log.

    Args:
        events: how many of the last ones, at most.
        console: how many of the last lines.
    """
    damage: list[Damage] = []
    times: list[float] = []
    told: list[Event] = []
    for path, kind in ((run.telemetry(), Sample), *((run.telemetry(s), Sample) for s in run.streams())):
        times += [record.t for record in _last_records(path, kind, damage)[-1:]]
    recorded: list[Event] = _last_records(run.events, Event, damage)
    times += [event.t for event in recorded[-1:]]
    states: dict[str, str] = {}
    for event in recorded:
        if event.kind == "condition":
            name, state = str(event.data.get("id")), str(event.data.get("state"))
            if states.get(name, "unarmed") == state:
                continue
            states[name] = state
        told.append(event)
    try:
        times.append(read_document(run.heartbeat, Heartbeat).t)
    except RunFormatError:
        pass
    began = manifest.sessions[-1].t if manifest.sessions else 0.0
    return Aftermath(
        events=told[-events:],
        damage=damage,
        console=[] if manifest.state == "exited" else _console_tail(run.console_log, began, console),
        last_t=max(times, default=None) if manifest.ended_t is None else manifest.ended_t,
    )


def _last_records(path: Path, kind: Any, damage: list[Damage]) -> list[Any]:
    """The readable ones; what is behind the last of them is added to `damage`, as is a file that cannot be read."""
    try:
        start = tail_start(path, _TAIL_BYTES)
        with open(open_regular(path), "rb") as file:
            file.seek(start)
            chunk = file.read()
    except OSError:
        return []  # absent; or it is told of by whoever needs the file
    end = chunk.rfind(b"\n") + 1
    records: Sequence[Any] = LineDecoder(path, kind).decode(chunk[:end], start)
    readable = [record for record in records if not isinstance(record, Unreadable)]
    behind = 0
    while behind < len(records) and isinstance(records[-1 - behind], Unreadable):
        behind += 1
    if behind or chunk[end:]:
        damage.append(Damage(path.name, behind, len(chunk) - end))
    return readable


def _console_tail(path: Path, since: float, lines: int) -> list[str]:
    """Nothing where nobody has written into it since then: it is another session's."""
    try:
        if path.stat().st_mtime < since:
            return []
        with open(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _CONSOLE_BYTES))
            text = file.read(_CONSOLE_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return []
    return [printable(line, 300) for line in text.splitlines() if line.strip()][-lines:]
