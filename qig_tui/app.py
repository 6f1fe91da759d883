"""The switchboard: which screen stands first, the themes, the keys that work everywhere. Nothing else."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from qig_core.rundir.layout import RunDir

DARK = Theme(
    name="qig-dark",
    primary="#6cb6d9",
    secondary="#d9a0e0",
    accent="#6cb6d9",
    success="#7fc48f",
    warning="#e3b15c",
    error="#f0716b",
    foreground="#d6dbe2",
    background="#0f1318",
    surface="#151a21",
    panel="#1a2029",
    dark=True,
)
LIGHT = Theme(
    name="qig-light",
    primary="#1f6f97",
    secondary="#8a3f94",
    accent="#1f6f97",
    success="#2d7d41",
    warning="#96600a",
    error="#b8312c",
    foreground="#1e2429",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#eae7df",
    dark=False,
)


_REMOTE_FRAME_S = 0.5
"""Over SSH two pictures a second: a slow line carries them, and a key is not behind a queue of them."""


class QigApp(App[int]):
    """Opens one run, or the list of runs in a folder."""

    TITLE = "qig-tui"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "toggle_light", "theme", tooltip="Change between dark and light"),
        Binding("question_mark", "show_help", "help", key_display="?", tooltip="Every key and what it does"),
        Binding("q", "leave", "quit", tooltip="Leave; the run goes on"),
        Binding("ctrl+q", "leave", "quit", show=False, priority=True),
    ]

    def __init__(
        self,
        path: Path,
        *,
        is_run: bool,
        read_only: bool = False,
        owned: bool = False,
        light: bool = False,
        remote: bool = False,
    ) -> None:
        super().__init__()
        self._path = path
        self._is_run = is_run
        self._read_only = read_only
        self._owned = owned
        self._frame_s = _REMOTE_FRAME_S if remote else None
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = LIGHT.name if light else DARK.name

    def on_mount(self) -> None:
        if self._is_run:
            from qig_tui.screens.run import FRAME_S, RunScreen

            frame_s = self._frame_s or FRAME_S
            run = RunDir(self._path)
            self.push_screen(RunScreen(run, read_only=self._read_only, owned=self._owned, frame_s=frame_s))
        else:
            from qig_tui.screens.runs import RunsScreen

            self.push_screen(RunsScreen(self._path, read_only=self._read_only, frame_s=self._frame_s))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: what the screen's keys do, without what would need a mouse or write files unasked."""
        for command in super().get_system_commands(screen):
            if command.title not in ("Maximize", "Minimize", "Screenshot"):
                yield command
        found: dict[str, SystemCommand] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if active.node is screen and binding.show and binding.tooltip:
                run = partial(self.run_action, binding.action, screen)
                found[binding.action] = SystemCommand(binding.description.capitalize(), binding.tooltip, run)
        yield from found.values()

    def action_toggle_light(self) -> None:
        self.theme = DARK.name if not self.current_theme.dark else LIGHT.name

    def action_show_help(self) -> None:
        from qig_tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen.active_bindings))

    @work(exclusive=True, group="leave")
    async def action_leave(self) -> None:
        """A screen may have a question first."""
        may_leave = getattr(self.screen, "may_leave", None)
        if may_leave is None or await may_leave():
            self.exit(0)
