"""What a person asks of a run: stop, save, come back, and whether it may be left. Shows no widget of its own."""

import asyncio

from textual.notifications import SeverityLevel
from textual.screen import Screen

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import ask
from qig_tui.picture import RunPicture
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.text import duration, safe

_ACK_S = 0.2
_TITLES = {"done": "checkpoint written", "refused": "no checkpoint"}
_READ_ONLY = "this dashboard is read-only: every command is disabled"


class RunCommands:
    """Asks where that makes sense now and says why not where it does not; dialogs and words appear on `screen`."""

    def __init__(self, screen: Screen[None], run: RunDir, picture: RunPicture, *, read_only: bool, owned: bool) -> None:
        self._screen = screen
        self._run = run
        self._picture = picture
        self._read_only = read_only
        self._owned = owned

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Those that make sense now, each with its word."""
        if self._read_only:
            return [("", "read only")]
        return [("r", "recover")] if self._picture.ended else [("a", "abort"), ("c", "checkpoint")]

    def abort(self) -> None:
        if self._may_ask():
            self._screen.app.push_screen(AbortScreen(self._picture, self._run))

    async def checkpoint(self) -> None:
        """Ask for a checkpoint and tell how far that has come, each stage in the place of the one before."""
        if not self._may_ask():
            return
        try:
            asked = ask(self._run, "checkpoint")
        except Refused as error:
            self._tell(safe(error, 300), title="not asked", severity="error")
            return
        told = 0
        while asked.elapsed_s < asked.command.ttl_s:
            if len(asked.stages) > told:
                told, stage = len(asked.stages), asked.stages[-1]
                title = _TITLES.get(stage.name, f"checkpoint {stage.name}")
                severity: SeverityLevel = "error" if stage.name == "refused" else "information"
                self._tell_instead(f"{duration(stage.after_s)}  {stage.detail}", title=title, severity=severity)
            if asked.ended:
                return
            await asyncio.sleep(_ACK_S)
            asked.look()
        self._tell_instead("the trainer did not answer", title="no checkpoint", severity="error")

    def recover(self) -> None:
        if self._read_only:
            self._tell(_READ_ONLY)
        elif not self._picture.ended:
            self._tell(f"the run is {self._picture.liveness.text}; only a dead one is recovered")
        else:
            self._screen.app.push_screen(RecoverScreen(self._picture, self._run))

    async def may_leave(self) -> bool:
        """Whether the app may close: a run that this command started is not left by accident. Needs a worker."""
        if not self._owned or self._picture.ended or self._read_only:
            return True
        app = self._screen.app
        choice = await app.push_screen_wait(LeaveScreen(self._picture.name))
        if choice == "stop":
            stopped = await app.push_screen_wait(AbortScreen(self._picture, self._run, confirmed=True))
            return stopped is True
        return choice == "leave"

    def _may_ask(self) -> bool:
        """Whether a trainer is there to ask and may be asked; says why not."""
        if self._read_only:
            self._tell(_READ_ONLY)
            return False
        if self._picture.ended:
            self._tell(f"the run is {self._picture.liveness.text}: there is no trainer to ask")
            return False
        return True

    def _tell_instead(self, words: str, *, title: str, severity: SeverityLevel) -> None:
        """In the place of what was told before: a pile of it would cover what it is about."""
        self._screen.app.clear_notifications()
        self._tell(words, title=title, severity=severity)

    def _tell(self, words: str, *, title: str = "", severity: SeverityLevel = "warning") -> None:
        self._screen.notify(words, title=title, severity=severity, markup=False)
