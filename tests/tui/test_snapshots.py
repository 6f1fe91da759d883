"""Pictures of the two screens that stand first. After a change that is meant: `pytest --snapshot-update`.

The run has ended and carries times of its own: nothing in a picture moves with the clock, the machine or the folder.
"""

import json
import time
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_tui import terminal
from tests.tui.runs import add_checkpoint, log_steps, open_run, set_condition
from tests.tui.screens import open_app, until

SIZES = [(160, 48), (120, 40), (80, 24)]
THEN = 7_258_118_400.0
"""New Year 2200: a last sample that lies ahead is of now, for as long as anybody runs this."""


def fixed(value: object, t: float) -> object:
    """The same with this time, and with a process that is everybody's."""
    known = {"t": t, "created_t": t, "ended_t": t, "pid": 4242, "host": "here"}
    if isinstance(value, dict):
        return {k: known[k] if k in known and v is not None else fixed(v, t) for k, v in value.items()}
    return [fixed(v, t) for v in value] if isinstance(value, list) else value


def fix(run: RunDir) -> None:
    """A sample each 50 ms, what happened each second."""
    for path, pause in ((run.telemetry(), 0.05), (run.events, 1.0)):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(fixed(record, THEN + pause * i)) for i, record in enumerate(records)]
        path.write_text("".join(f"{line}\n" for line in lines))
    for path in (run.manifest, *run.path.glob("checkpoints/*/manifest.json")):
        path.write_text(json.dumps(fixed(json.loads(path.read_text()), THEN)))


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
        fix(writer.run)
    yield folder
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("theme", [terminal.DARK, terminal.LIGHT])
@pytest.mark.parametrize("screen", ["run", "runs"])
def test_what_stands_first_looks_as_it_did(runs, snap_compare, screen, theme, size):
    async def drawn(pilot) -> None:
        await until(pilot, lambda: getattr(pilot.app.screen, "is_drawn", False))
        await pilot.pause()

    app = open_app(RunDir(runs / "first") if screen == "run" else runs, theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=drawn)
