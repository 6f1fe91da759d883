"""Pictures of every screen, of now and of a step in the past. After a change that is meant: `pytest --snapshot-update`.

The run has ended and carries times of its own: nothing in a picture moves with the clock, the machine or the folder.
"""

import json
import time
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_tui import terminal
from qig_tui.setup import Setup
from tests.tui.runs import add_checkpoint, log_steps, open_run, set_condition
from tests.tui.screens import WIDE, open_app, screen_text, until

SMALL = (80, 24)
NOTES = "# Drift\n\n$$ d = 2 \\arccos \\sum_k \\sqrt{p_k q_k} $$\n\n- $d < 0.6$ rad, as it should be\n"
THEN = 7_258_118_400.0
"""New Year 2200: a last sample that lies ahead is of now, for as long as anybody runs this."""


def fixed(value: object, t: float) -> object:
    """The same with this time, and with a process that is everybody's."""
    known = {"t": t, "created_t": t, "ended_t": t, "pid": 4242, "host": "here"}
    if isinstance(value, dict):
        return {k: known[k] if k in known and v is not None else fixed(v, t) for k, v in value.items()}
    return [fixed(v, t) for v in value] if isinstance(value, list) else value


def fix(run: RunDir, session: str) -> None:
    """A sample each 50 ms, what happened each second, by a process that is everybody's."""
    for path, pause in ((run.telemetry(), 0.05), (run.events, 1.0)):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(fixed(record, THEN + pause * i)) for i, record in enumerate(records)]
        path.write_text("".join(f"{line}\n" for line in lines))
    for path in (run.manifest, *run.path.glob("checkpoints/*/manifest.json")):
        path.write_text(json.dumps(fixed(json.loads(path.read_text()), THEN)))
    for path in (
        run.telemetry(),
        run.events,
        run.manifest,
        run.heartbeat,
        *run.path.glob("checkpoints/*/manifest.json"),
    ):
        path.write_text(path.read_text().replace(session, "0123456789abcdef"))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder of two ended runs, named from where the test stands; in UTC, with colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    folder = Path("runs")
    for run_id, state in (("first", "warning"), ("second", "ok")):
        with open_run(folder, run_id, name=f"charlie {run_id}") as writer:
            set_condition(writer, "ok")
            log_steps(writer, 0, 300)
            add_checkpoint(writer, 100)
            add_checkpoint(writer, 200)
            set_condition(writer, state, value=0.55, cause=["drift_velocity"])
        fix(writer.run, writer.session)
        writer.run.notes.write_text(NOTES)
    yield folder
    monkeypatch.undo()
    time.tzset()


def state(screen: str, size: tuple[int, int], theme: str, *, at: int | None = None) -> object:
    name = f"{screen}{'' if at is None else '-past'}-{theme}-{size[0]}x{size[1]}"
    return pytest.param(screen, size, theme, at, id=name)


@pytest.mark.parametrize(
    ("screen", "size", "theme", "at"),
    [
        state("run", WIDE, terminal.DARK),
        state("run", (120, 40), terminal.LIGHT),
        state("run", SMALL, terminal.DARK),
        state("run", WIDE, terminal.DARK, at=150),
        state("run", SMALL, terminal.LIGHT, at=150),
        state("runs", WIDE, terminal.DARK),
        state("runs", SMALL, terminal.LIGHT),
        state("basin", WIDE, terminal.DARK, at=250),
        state("safety", WIDE, terminal.LIGHT),
        state("checkpoints", WIDE, terminal.DARK, at=250),
        state("compare", WIDE, terminal.DARK),
        state("notes", SMALL, terminal.LIGHT),
    ],
)
def test_a_screen_looks_as_it_did(runs, snap_compare, screen, size, theme, at):
    async def drawn(pilot) -> None:
        shown = pilot.app
        await until(pilot, lambda: getattr(shown.screen, "is_drawn", False))
        await until(pilot, lambda: getattr(shown.screen, "is_settled", True))
        before, now = "", screen_text(shown)
        while before != now:
            await pilot.pause(0.3)
            before, now = now, screen_text(shown)

    if screen == "runs":
        app = open_app(runs, theme=theme)
    else:
        app = open_app(RunDir(runs / "first"), theme=theme, setup=Setup(screen=screen, at=at))
    assert snap_compare(app, terminal_size=size, run_before=drawn)
