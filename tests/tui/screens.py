"""The app without a terminal: opened, waited for, read off."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widget import Widget

from qig_core.rundir.layout import RunDir
from qig_tui.app import QigApp

WIDE = (160, 48)


def open_app(run: RunDir | Path, **options: Any) -> QigApp:
    """The app of one run, or of a folder of runs."""
    return QigApp(run.path if isinstance(run, RunDir) else run, is_run=isinstance(run, RunDir), **options)


@asynccontextmanager
async def opened(
    run: RunDir | Path, size: tuple[int, int] = WIDE, **options: Any
) -> AsyncIterator[tuple[QigApp, Pilot[int]]]:
    """The app as soon as its first screen shows all that lay there."""
    app = open_app(run, **options)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: getattr(app.screen, "is_drawn", False))
        yield app, pilot


async def until(pilot: Pilot[int], condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Wait for a condition, not for a time; the limit only ends a test that has failed."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await pilot.pause(0.02)
    await pilot.pause()


async def until_shown(pilot: Pilot[int], kind: type[Widget]) -> None:
    """Wait for a screen of this kind to be on top."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind))


def text_of(widget: Widget) -> str:
    return "\n".join("".join(segment.text for segment in widget.render_line(y)) for y in range(widget.size.height))


def screen_text(app: QigApp) -> str:
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def told(app: QigApp) -> list[str]:
    """Title and words of every notification."""
    return [f"{note.title}: {note.message}" for note in app._notifications]
