"""Around the screens: themes that are kept, the palette, the help, ways out, and what a terminal does to a program."""

import importlib
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from terminal import Terminal
from textual.binding import Binding
from textual.command import CommandList, CommandPalette
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

import qig_tui
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import GLYPHS, Word
from qig_tui import journal, terminal
from qig_tui.app import QigApp
from qig_tui.memory import Memory
from qig_tui.palette import Everything
from qig_tui.screens import help as help_screen
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.dialog import Dialog
from qig_tui.screens.help import HelpScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.runs import RunsScreen
from qig_tui.setup import Setup
from qig_tui.widgets.basin_table import BasinTable
from tests.tui.runs import log_steps, open_run
from tests.tui.screens import opened, screen_text, told, until, until_shown

HERE = Path(qig_tui.__file__).parents[1]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state.json"


@pytest.fixture
def folder(tmp_path):
    """A folder of three runs, two of them hostile to whoever takes names for markup."""
    folder = tmp_path / "runs"
    for run_id, name in (("a", "first [b]bold[/b]"), ("b", "[@click=app.quit]second"), ("c", "third")):
        with open_run(folder, run_id, name=name) as writer:
            log_steps(writer, 0, 12)
    return folder


async def test_a_chosen_theme_is_remembered_and_the_one_of_the_start_is_not(writer, state):
    state.write_text("{")
    async with opened(writer.run, memory=Memory(state), theme=terminal.SAFE) as (app, pilot):
        assert app.theme == terminal.SAFE
        await until(pilot, lambda: len(told(app)) == 1)
        assert "set aside as state.json.bad" in told(app)[0]
        assert not state.exists()
        for other in (terminal.SAFE_LIGHT, terminal.SAFE):
            await pilot.press("t")
            await until(pilot, lambda other=other: Memory(state).chosen.theme == other)
        app.theme = terminal.ANSI
        await pilot.press("t")
        await until(pilot, lambda: any("the terminal's own colours" in note for note in told(app)))
        assert Memory(state).chosen.theme == app.theme == terminal.ANSI
        assert len(told(app)) == 2


def test_the_next_start_has_the_remembered_theme_where_the_terminal_has_its_colours(state, monkeypatch):
    Memory(state).change(theme="gruvbox")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)
    for term, theme in (("xterm-256color", "gruvbox"), ("xterm", terminal.ANSI)):
        monkeypatch.setenv("TERM", term)
        assert QigApp(Path(), is_run=False, theme=terminal.AUTO, memory=Memory(state)).theme == theme


def test_a_remembered_theme_that_is_gone_is_no_reason_to_fail(state, monkeypatch):
    Memory(state).change(theme="of-another-version")
    for name, value in (("TERM", "xterm-256color"), ("COLORFGBG", "15;0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert QigApp(Path(), is_run=False, theme=terminal.AUTO, memory=Memory(state)).theme == terminal.DARK


@pytest.mark.parametrize(("name", "nearest"), [("qig-drak", "qig-dark"), ("lihgt", "light"), ("drakula", "dracula")])
def test_an_unknown_theme_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"do you mean '{nearest}'"):
        QigApp(Path(), is_run=False, theme=name)


async def offered(app: QigApp, query: str = "") -> list[str]:
    """What the palette would list on the screen that is shown."""
    provider = Everything(app.screen)
    await provider.startup()
    hits = provider.search(query) if query else provider.discover()
    found = [hit async for hit in hits]
    return [hit.text or "" for hit in (sorted(found, reverse=True) if query else found)]


async def test_a_read_only_palette_offers_what_there_is_and_no_command(writer):
    async with opened(writer.run, setup=Setup(read_only=True)) as (app, pilot):
        # Stands in for what the screen does with a name; what it does is its own matter.
        went: list[str] = []
        app.screen.show_metric = went.append
        app.screen.show_checkpoint = went.append
        listed = await offered(app)
        assert not {"Abort", "Checkpoint", "Pause", "Recover", "Soft reset", "Samples"} & set(listed)
        assert "Freeze" in listed
        assert any(entry.startswith("checkpoint 200  step-00000200") for entry in listed)
        assert any(entry.startswith("metric loss") for entry in listed)
        await pilot.press("ctrl+p")
        await until_shown(pilot, CommandPalette)
        await pilot.press(*"metric kappa")
        await until(pilot, lambda: app.screen.query_one(CommandList).option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: went == ["kappa"])


async def test_the_palette_lists_what_there_is_and_opens_another_run_in_the_place_of_this_one(folder):
    async with opened(RunDir(folder / "a")) as (app, pilot):
        listed = await offered(app)
        assert listed[:2] == ["Abort", "Checkpoint"]
        assert [e for e in listed if e.startswith("run ")] == ["run third  c", "run [@click=app.quit]second  b"]
        assert listed[-1] == "Choose a theme"
        assert (await offered(app, "theme qig-saf"))[0] == "theme qig-safe"
        assert (await offered(app, "secnd")) == ["run [@click=app.quit]second  b"]
        await pilot.press("ctrl+p")
        await until_shown(pilot, CommandPalette)
        await pilot.press(*"secnd")
        await until(pilot, lambda: app.screen.query_one(CommandList).option_count == 1)
        assert "[@click=app.quit]second" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: getattr(app.screen, "run_dir", None) is not None and app.screen.run_dir.id == "b")
        assert len(app.screen_stack) == 2


async def test_the_palette_opens_a_run_above_the_list_of_runs_or_says_why_not(folder):
    async with opened(folder) as (app, pilot):
        listed = [entry for entry in await offered(app) if entry.startswith("run ")]
        assert listed == ["run third  c", "run [@click=app.quit]second  b", "run first [b]bold[/b]  a"]
        app.open_run(RunDir(folder / "a"))
        await until_shown(pilot, RunScreen)
        await pilot.press("escape")
        await until_shown(pilot, RunsScreen)
        (folder / "b" / "run.json").write_text("{")
        app.open_run(RunDir(folder / "b"))
        await until(pilot, lambda: any("run.json" in note for note in told(app)))
        assert isinstance(app.screen, RunsScreen)


def own_classes() -> list[type[DOMNode]]:
    """Every class of ours with keys of its own."""
    for module in pkgutil.walk_packages(qig_tui.__path__, "qig_tui."):
        importlib.import_module(module.name)
    found: list[type[DOMNode]] = []
    waiting = [DOMNode]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("qig_tui.") and "BINDINGS" in vars(kind):
            found.append(kind)
    return sorted(set(found), key=lambda kind: kind.__qualname__)


def bindings(kind: type[DOMNode]) -> list[Binding]:
    return [binding for binding in Binding.make_bindings(kind.BINDINGS)]


IN_A_DIALOG = "a dialog takes every key, also ?; it says itself what its keys do"
NOT_IN_HELP = {
    "FilterBar": "it has the focus only while somebody types into it, and then ? is a letter of the filter",
    "MetricsTable": IN_A_DIALOG,
}
"""Classes with keys that no help lists, each with its reason."""


def said(binding: Binding) -> str:
    """What the help says of a key."""
    return binding.tooltip or binding.description


def test_every_key_says_what_it_does():
    kinds = own_classes()
    assert {QigApp, RunScreen, BasinTable, Dialog, HelpScreen, AbortScreen} <= {*kinds}
    for kind in kinds:
        for binding in bindings(kind):
            # A key that moves a list may do with its name.
            assert binding.tooltip if binding.show else said(binding), f"{kind.__name__}: {binding}"


async def help_of(app, pilot):
    await pilot.press("question_mark")
    await until(pilot, lambda: "Other marks" in screen_text(app))
    shown = screen_text(app)
    await pilot.press("escape")
    await until(pilot, lambda: "Other marks" not in screen_text(app))
    return shown


async def test_every_key_of_every_screen_and_widget_is_in_the_help(writer, folder):
    kinds = [k for k in own_classes() if not issubclass(k, Dialog) and k.__name__ not in NOT_IN_HELP]
    shown = ""
    for place, number in (*((writer.run, number) for number in "1234567h"), (folder, "")):
        async with opened(place, (124, 130)) as (app, pilot):
            if number > "1":
                below = app.screen
                await pilot.press(number)
                await until(pilot, lambda below=below: app.screen is not below and app.screen.is_drawn)
            screen = app.screen
            if not screen.focus_chain:
                shown += await help_of(app, pilot)
            for kind in (k for k in kinds if issubclass(k, Widget) and not issubclass(k, Screen)):
                for widget in screen.query(kind.__name__).results(Widget):
                    # Of the two faces of a screen one is in sight.
                    if widget not in screen.focus_chain:
                        continue
                    widget.focus()
                    await until(pilot, lambda widget=widget: app.focused is widget)
                    shown += await help_of(app, pilot)
    for kind in kinds:
        for binding in bindings(kind):
            assert said(binding) in shown, f"{kind.__name__}: {binding}"
    for word in Word:
        assert f"{GLYPHS[word]} {word}" in shown
        assert help_screen.WORDS[word] in shown
    for state, glyph in journal.GLYPHS.items():
        assert f"{glyph} {state}" in shown
    for heading in (*help_screen._GROUPS, "The mouse", "The run", "Its limits", "Other marks"):
        assert heading in shown


async def test_the_help_scrolls_in_a_small_terminal_and_the_keys_that_open_it_close_it(writer):
    async with opened(writer.run, (80, 24)) as (app, pilot):
        await pilot.press("question_mark")
        await until_shown(pilot, HelpScreen)
        box = app.screen.query_one("#dialog")
        await until(pilot, lambda: box.max_scroll_y > 0)
        for key, at in (("down", 1), ("up", 0), ("end", box.max_scroll_y), ("home", 0)):
            await pilot.press(key)
            assert box.scroll_y == at, key
        await pilot.press("pagedown")
        assert box.scroll_y > 5
        await pilot.press("pageup")
        assert box.scroll_y == 0
        assert "Commands to this run" in screen_text(app)
        for closing in ("escape", "question_mark", "q"):
            await pilot.press(closing)
            await until_shown(pilot, RunScreen)
            app.action_show_help()
            await until_shown(pilot, HelpScreen)


async def test_every_way_out_of_a_run_of_ones_own_asks_once_from_wherever(writer, folder):
    async with opened(writer.run, setup=Setup(owned=True)) as (app, pilot):
        for key in ("q", "ctrl+c", "ctrl+q"):
            await pilot.press(key)
            await until_shown(pilot, LeaveScreen)
            await pilot.press("ctrl+q")
            assert [isinstance(screen, LeaveScreen) for screen in app.screen_stack].count(True) == 1
            await pilot.press("ctrl+c")
            await until_shown(pilot, RunScreen)
        # As the palette would.
        await app.run_action("quit")
        await until_shown(pilot, LeaveScreen)
        await pilot.press("escape", "a")
        await until_shown(pilot, AbortScreen)
        await pilot.press("escape")
        app.open_run(RunDir(folder / "a"))
        await until(pilot, lambda: getattr(app.screen, "run_dir", writer.run).id == "a")
        await pilot.press("ctrl+q")
        await until_shown(pilot, LeaveScreen)
        await pilot.press("l")
        await until(pilot, lambda: app._exit)


def test_a_real_terminal_may_stop_the_program_bring_it_back_and_change_its_size_in_a_storm(writer, tmp_path):
    writer.close(0)
    argv = ["/usr/bin/env", "-u", "TERM", "-u", "COLORTERM", sys.executable, "-m", "qig_tui.cli", str(writer.run.path)]
    env = {"QIG_DASHBOARD_STATE": str(tmp_path / "state.json"), "PYTHONPATH": str(HERE)}
    with Terminal(argv, size=(120, 40), env=env) as screen:
        screen.wait("SAFETY")
        screen.send("\x1a")
        process = psutil.Process(screen.pid)
        deadline = time.monotonic() + 20
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline, "it was not stopped"
            time.sleep(0.02)
        before = sum(len(data) for _, data in screen.pieces)
        process.send_signal(signal.SIGCONT)

        def again(text: str) -> bool:
            sent = b"".join(data for _, data in screen.pieces)[before:]
            return b"\x1b[?1049h" in sent and b"SAFETY" in sent and "SAFETY" in text

        screen.wait(again)
        for step in range(40):
            screen.resize((20 + 37 * step % 180, 5 + 13 * step % 60))
        screen.resize((120, 40))
        screen.wait(lambda text: "SAFETY" in text and "EVENTS" in text and "? help" in text)
        assert screen.leave("\x03") == 0
        assert "Traceback" not in screen.text


def test_help_on_the_command_line_loads_no_textual():
    code = (
        "import sys, qig_tui.cli\n"
        "try: qig_tui.cli.main(['--help'])\n"
        "except SystemExit: print({'textual', 'rich', 'numpy', 'msgspec', 'curses'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stderr.strip() == "set()"
    assert all(name in done.stdout for name in terminal.SHORT)


def test_the_palette_is_imported_when_it_is_opened():
    code = "import sys, qig_tui.app; print({'qig_tui.palette', 'qig_tui.screens.help', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stdout.strip() == "set()"
