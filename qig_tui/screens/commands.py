"""What a person asks of a run: stop, save, pause, go back, and whether it may be left. Shows no widget of its own."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from textual.notifications import SeverityLevel
from textual.screen import Screen

from qig_core.errors import Refused
from qig_core.rundir.layout import RunDir
from qig_tui.actions import child
from qig_tui.following import Followed
from qig_tui.picture import RunPicture
from qig_tui.screens.abort import AbortScreen
from qig_tui.screens.leave import LeaveScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.restore import RestoreScreen
from qig_tui.screens.sampling import SamplingScreen
from qig_tui.screens.soft_reset import SoftResetScreen
from qig_tui.text import duration, safe

_ACK_S = 0.2
_DONE = {"checkpoint": "checkpoint written", "pause": "paused", "resume": "the run goes on"}
_NOT_DONE = {"checkpoint": "no checkpoint", "pause": "not paused", "resume": "the run does not go on"}
READ_ONLY = "this dashboard is read-only: every command is disabled"


def report_argv(run: RunDir) -> list[str]:
    """The child that writes a post-mortem."""
    return [sys.executable, "-m", "qig_tui.cli", "report", str(Path(run.path).absolute()), "--json"]


class RunCommands:
    """Asks where that makes sense now and says why not where it does not; dialogs and words appear on `screen`."""

    def __init__(
        self, screen: Screen[None], run: RunDir, picture: RunPicture, *, read_only: bool, owned: bool, web: bool = False
    ) -> None:
        self._screen = screen
        self._run = run
        self._picture = picture
        self._read_only = read_only
        self._owned = owned
        self._web = web
        self.dialogs: Mapping[str, Callable[[], None]] = {
            "abort": self.abort,
            "recover": self.recover,
            "soft_reset": self.soft_reset,
            "sampling": self.sampling,
        }
        """What a dialog asks for, by the names that the keys call it."""
        self.messages: Mapping[str, Callable[[], Coroutine[None, None, None]]] = {
            "checkpoint": self.checkpoint,
            "pause": self.pause,
        }
        """What is asked for at once, and told as it goes."""
        self._waiting: set[str] = set()
        """Of these, what the trainer has not answered yet."""

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Those that are needed now, each with its word."""
        if self._read_only:
            return [("", "read only")]
        if self._picture.ended:
            return [("r", "recover")]
        needed = [("a", "abort"), ("c", "checkpoint")]
        return [*needed, ("p", "go on")] if self._picture.paused else needed

    @property
    def more_keys(self) -> list[tuple[str, str]]:
        """Those that make sense as well."""
        if self._read_only or self._picture.ended:
            return []
        return [("r", "restore")] if self._picture.paused else [("p", "pause"), ("r", "restore")]

    def abort(self) -> None:
        if self._may_ask():
            self._screen.app.push_screen(AbortScreen(self._picture, self._run, may_signal=not self._web))

    def soft_reset(self) -> None:
        if self._may_ask():
            self._screen.app.push_screen(SoftResetScreen(self._picture, self._run))

    def sampling(self) -> None:
        if self._may_ask():
            self._screen.app.push_screen(SamplingScreen(self._picture, self._run))

    async def checkpoint(self) -> None:
        if self._may_ask():
            await self._follow("checkpoint", "checkpoint")

    async def pause(self) -> None:
        """Pause a run, or let one that is paused go on."""
        if self._may_ask():
            await self._follow("pause", "resume" if self._picture.paused else "pause")

    async def _follow(self, key: str, verb: str) -> None:
        """Ask, and tell how far it has come, each stage in the place of the one before; one at a time."""
        if key in self._waiting:
            self._tell("the trainer has not answered what was asked before", title="not asked")
            return
        try:
            followed = Followed(self._picture, self._run, verb)
        except Refused as error:
            self._tell(safe(error, 300), title="not asked", severity="error")
            return
        self._waiting.add(key)
        try:
            await self._tell_as_it_goes(followed, verb)
        finally:
            self._waiting.discard(key)

    async def _tell_as_it_goes(self, followed: Followed, verb: str) -> None:
        asked, told = followed.asked, 0
        while True:
            if len(asked.stages) > told:
                told, stage = len(asked.stages), asked.stages[-1]
                ends = {"done": _DONE[verb], "refused": _NOT_DONE[verb]}
                title = ends.get(stage.name, f"{verb} {stage.name}")
                severity: SeverityLevel = "error" if stage.name == "refused" else "information"
                self._tell_instead(f"{duration(stage.after_s)}  {stage.detail}", title=title, severity=severity)
            if followed.outcome != "waiting":
                break
            await asyncio.sleep(_ACK_S)
            followed.look()
        if followed.outcome == "unconfirmed":
            self._tell_instead(followed.words, title=_NOT_DONE[verb], severity="error")

    def recover(self) -> None:
        """Of a live run by asking its trainer, of a dead one by starting it again."""
        if self._read_only:
            self._tell(READ_ONLY)
        elif self._picture.ended and self._web:
            self._tell("from a browser no program is started; on its own machine qig-core recover tells how to go on")
        elif self._picture.ended:
            self._screen.app.push_screen(RecoverScreen(self._picture, self._run))
        else:
            self._screen.app.push_screen(RestoreScreen(self._picture, self._run))

    async def report(self) -> None:
        """Have a post-mortem written into the working directory by a child, and say where."""
        if self._web:
            self._tell("from a browser nothing is written on this machine; qig-tui report does it there")
            return
        if "report" in self._waiting:
            self._tell("it is being written", title="report")
            return
        self._waiting.add("report")
        self._tell("reading the whole run", title="report", severity="information")
        try:
            async for found in child(report_argv(self._run)):
                if isinstance(found.get("result"), dict):
                    where = safe(found["result"].get("document", "?"), 300)
                    self._tell_instead(where, title="report written", severity="information")
                elif "error" in found:
                    self._tell_instead(safe(found["error"], 300), title="no report", severity="error")
        finally:
            self._waiting.discard("report")

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
            self._tell(READ_ONLY)
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
