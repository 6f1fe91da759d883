"""Pictures of the screens of programs. After a change that is meant: `pytest --snapshot-update`."""

import time
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_tui import terminal
from qig_tui.setup import Setup
from tests.tui.programs import charlie, constellation
from tests.tui.screens import WIDE, open_app, screen_text, until
from tests.tui.test_snapshots import fix


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A run of each, named from where the test stands; in UTC, with colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    folder = Path("runs")
    for make in (charlie, constellation):
        with make(folder) as writer:
            pass
        fix(writer.run, writer.session)
    yield folder
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("run", "screen", "size", "theme", "at"),
    [
        pytest.param("charlie", "program", (120, 40), terminal.DARK, 240, id="charlie-program-past-dark-120x40"),
        pytest.param("charlie", "run", WIDE, terminal.LIGHT, 240, id="charlie-run-past-light-160x48"),
        pytest.param("stars3", "program", WIDE, terminal.DARK, None, id="stars-program-dark-160x48"),
    ],
)
def test_a_screen_looks_as_it_did(programs, snap_compare, run, screen, size, theme, at):
    async def drawn(pilot) -> None:
        shown = pilot.app
        await until(pilot, lambda: getattr(shown.screen, "is_drawn", False))
        before, now = "", screen_text(shown)
        while before != now:
            await pilot.pause(0.3)
            before, now = now, screen_text(shown)

    app = open_app(RunDir(programs / run), theme=theme, setup=Setup(screen=screen, at=at))
    assert snap_compare(app, terminal_size=size, run_before=drawn)
