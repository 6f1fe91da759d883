"""The switchboard: which screen stands first, the themes, the keys that work everywhere. Nothing else."""

import signal
from asyncio import get_running_loop
from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import AppFocus, Event, Key, Resize
from textual.screen import Screen

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_tui import terminal, themes
from qig_tui.memory import Memory
from qig_tui.setup import DEFAULT, Setup
from qig_tui.text import safe
from qig_tui.thrift import Thrifty

if TYPE_CHECKING:
    from textual.command import Provider
    from textual.driver import Driver

_TERMINAL_S = 5.0
_ASKING = ("ask(", "send(")
"""How the actions begin that ask something of a run."""


def _palette() -> type["Provider"]:
    """What the palette offers; imported when it is opened first."""
    from qig_tui.palette import Everything

    return Everything


class QigApp(App[int]):
    """Opens one run, the list of runs in a folder, or a Markdown file.

    Args:
        theme: a name, one of ours without its "qig-", or "auto": the one in the memory, else what suits the terminal.
        memory: what a person chose before; without it nothing is kept.

    Raises:
        ValueError: there is no such theme.
    """

    TITLE = "qig-tui"
    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar[set[type["Provider"] | Callable[[], type["Provider"]]]] = {_palette}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "toggle_light", "theme", tooltip="Change between dark and light"),
        Binding("question_mark", "show_help", "help", key_display="?", tooltip="Every key and what it does"),
        Binding("h", "show_guide", "guide", tooltip="What every number means, with its formula"),
        Binding("q", "leave", "quit", tooltip="Leave; the run goes on"),
        Binding("ctrl+c", "leave", "quit", show=False, tooltip="Leave; the run goes on", system=True),
        Binding("ctrl+q", "leave", "quit", show=False, tooltip="Leave; the run goes on", priority=True),
        Binding("ctrl+l", "redraw", "redraw", show=False, tooltip="Draw the whole screen anew"),
        Binding("ctrl+z", "suspend_process", "suspend", show=False, tooltip="To the shell; fg comes back"),
    ]

    def __init__(
        self,
        path: Path,
        *,
        is_run: bool,
        setup: Setup = DEFAULT,
        theme: str = terminal.DARK,
        memory: Memory | None = None,
        driver: "type[Driver] | None" = None,
    ) -> None:
        # Without colours Textual would send greys; asked for the terminal's own colours it sends none at all.
        super().__init__(driver, ansi_color=True if "NO_COLOR" in environ else None)
        self._path = path
        self._is_run = is_run
        self.setup = setup
        self._memory = Memory() if memory is None else memory
        self._leaving = False
        for ours in themes.OURS:
            self.register_theme(ours)
        if theme == terminal.AUTO:
            theme = self._suiting()
        self._first_theme: str | None = themes.named(theme, self.available_themes)
        self.theme = self._first_theme

    def _suiting(self) -> str:
        """What somebody chose last, if it is still there and the terminal has the colours for it; else by its kind."""
        few = self.no_color or self.console.color_system == "standard"
        chosen = self.get_theme(self._memory.chosen.theme)
        return chosen.name if chosen and (chosen.ansi or not few) else terminal.suiting(environ, few=few)

    def on_mount(self) -> None:
        if not self.is_headless:
            # The terminal is given back also to whoever ends this from elsewhere.
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                get_running_loop().add_signal_handler(number, partial(self.exit, return_code=128 + number))
        self.set_interval(_TERMINAL_S, self._leave_with_the_terminal)
        self._memory.listen(self._tell_problem)
        if self._path.suffix == ".md":
            from qig_tui.screens.notes import NotesScreen

            may_edit = not (self.setup.read_only or self.setup.web)
            self.push_screen(NotesScreen(self._path, title=safe(self._path.name, 120), may_edit=may_edit))
        elif self._is_run:
            self.push_screen(self._run_screen(RunDir(self._path), self.setup))
        else:
            from qig_tui.screens.runs import RunsScreen

            self.push_screen(RunsScreen(self._path, setup=self.setup, memory=self._memory))

    def _run_screen(self, run: RunDir, setup: Setup) -> Screen[None]:
        """Raises: RunFormatError."""
        from qig_tui.screens.run import RunScreen

        return RunScreen(run, setup=setup, memory=self._memory)

    async def on_event(self, event: Event) -> None:
        """A terminal of another size, or one that had been out of sight, may show anything; a key comes before all."""
        if isinstance(event, Resize | AppFocus):
            self._forget()
        elif isinstance(event, Key):
            for screen in self.screen_stack:
                if (make_way := getattr(screen, "make_way", None)) is not None:
                    make_way()
        await super().on_event(event)

    @property
    def _thrifty(self) -> Thrifty | None:
        # Mypy thinks that no Driver can be Thrifty as well.
        driver: object = self._driver
        return driver if isinstance(driver, Thrifty) else None

    def _forget(self) -> None:
        if (driver := self._thrifty) is not None:
            driver.forget()

    def _leave_with_the_terminal(self) -> None:
        """A line that broke may leave us without anybody, and without the signal that says so."""
        if (driver := self._thrifty) is not None and driver.is_gone:
            self.exit(return_code=terminal.HUNG_UP)

    def action_suspend_process(self) -> None:
        """A browser has no shell to go back to."""
        if not self.setup.web:
            super().action_suspend_process()

    def action_redraw(self) -> None:
        self._forget()
        self.refresh(repaint=True, layout=True)

    def _tell_problem(self, words: str) -> None:
        self.notify(safe(words, 300), title="what you choose is not kept", severity="warning", markup=False)

    @property
    def folder(self) -> Path:
        """The folder of runs that is open, or that the open run lies in."""
        return self._path.parent if self._is_run or self._path.suffix == ".md" else self._path

    def open_run(self, run: RunDir) -> None:
        """Show a run, in the place of another one; one that this command started stays behind it."""
        try:
            screen = self._run_screen(run, self.setup._replace(owned=False, at=None, screen="run", stream=None))
        except RunFormatError as error:
            self.notify(safe(error, 300), severity="error", markup=False)
            return
        for _ in range(self._screens_of_a_run()):
            self.pop_screen()
        self.push_screen(screen)

    def _screens_of_a_run(self) -> int:
        """How many screens lie on top that belong to the run in sight: the one that this command started stays."""
        above = list(takewhile(lambda screen: hasattr(screen, "run_dir"), reversed(self.screen_stack)))
        return max(len(above) - 1, 0) if self.setup.owned else len(above)

    def get_css_variables(self) -> dict[str, str]:
        self.theme_variables = themes.variables(super().get_css_variables())
        return self.theme_variables

    def watch_theme(self, theme: str) -> None:
        """A theme that somebody chose is remembered; the one of the start is not their choice."""
        if theme != self._first_theme:
            self._first_theme = None
            self._memory.change(theme=theme)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the keys of the screen and of the app do; none that asks something of a run where all are disabled."""
        found: dict[str, SystemCommand] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if not (active.node is screen or active.node is self) or not binding.tooltip:
                continue
            if not binding.show or (self.setup.read_only and binding.action.startswith(_ASKING)):
                continue
            run = partial(self.run_action, binding.action, active.node)
            found[binding.action] = SystemCommand(binding.description.capitalize(), binding.tooltip, run)
        yield from found.values()

    def action_toggle_light(self) -> None:
        other = themes.counterpart(self.current_theme, self.available_themes)
        if other is None:
            self.notify("these are the terminal's own colours; ctrl+p chooses another theme", markup=False)
        else:
            self.theme = other

    def action_show_guide(self) -> None:
        from qig_tui.screens.notes import GUIDE, NotesScreen

        if not isinstance(self.screen, NotesScreen):
            why_not = "the guide comes with the program"
            self.push_screen(NotesScreen(GUIDE, title="What the numbers mean", may_edit=False, why_not=why_not))

    def action_show_help(self) -> None:
        from qig_tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            shown = {
                key: active
                for key, active in self.screen.active_bindings.items()
                if not (self.setup.read_only and active.binding.action.startswith(_ASKING))
            }
            self.push_screen(HelpScreen(shown))

    async def action_quit(self) -> None:
        """Textual's own way out is ours."""
        self.action_leave()

    @work(group="leave")
    async def action_leave(self) -> None:
        """A screen may have a question first, also one that lies below."""
        if self._leaving:
            return
        self._leaving = True
        try:
            for screen in reversed(self.screen_stack):
                may_leave = getattr(screen, "may_leave", None)
                if may_leave is not None and not await may_leave():
                    return
            self.exit(0)
        finally:
            self._leaving = False
