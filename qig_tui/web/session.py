"""One dashboard behind one websocket: a process that starts and ends with it, whatever the page sends or does not."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from qig_core.rundir.printable import printable

COLUMNS, ROWS = range(20, 501), range(5, 201)
"""Smaller shows nothing, larger takes minutes."""
_TAKES_S = 10.0
"""A dashboard that takes no key for so long is ended."""
_READY = b"__GANGLION__\n"
_MAX_PACKET = 1 << 24
DRIVER = "qig_tui.web.driver:BrowserDriver"
_ABOUT_THE_TERMINAL = ("NO_COLOR", "COLORFGBG", "COLUMNS", "LINES", "TEXTUAL", "TEXTUAL_FPS", "TMUX", "STY")
"""They tell of the terminal that the server runs in, not of the page."""


class Session(AppService):
    """The process of one page.

    Args:
        argv: the program; no shell reads it.
        tell: takes a sentence for whoever runs the server.
        grace_s: for leaving by itself; then it is killed.
    """

    def __init__(
        self, argv: Sequence[str], websocket: web.WebSocketResponse, tell: Callable[[str], None], *, grace_s: float
    ) -> None:
        super().__init__(
            shlex.join(argv),
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=self._close,
            download_manager=DownloadManager(),
        )
        self._argv = argv
        self._websocket = websocket
        self._tell = tell
        self._grace_s = grace_s
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """Of the process; None before it is started."""
        return None if self._process is None else self._process.pid

    async def _close(self) -> None:
        await self._websocket.close()

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in _ABOUT_THE_TERMINAL}
        return environment | {
            "TEXTUAL_DRIVER": DRIVER,
            "TEXTUAL_COLOR_SYSTEM": "truecolor",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "TERM_PROGRAM": "qig-tui serve",
            "COLUMNS": str(width),
            "ROWS": str(height),
        }

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        self._process = process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width, height),
            start_new_session=True,
        )
        self._stdin = process.stdin
        return process

    async def serve(self, width: int, height: int) -> None:
        """Until the page or the process ends; `stop` is the caller's to call then."""
        try:
            await self.start(clamp(width, COLUMNS), clamp(height, ROWS))
        except OSError as error:
            self._tell(f"a dashboard could not be started: {error.strerror}")
            await write_words(self._websocket, f"The dashboard could not be started: {error.strerror}")
            return
        try:
            async for message in self._websocket:
                if message.type is WSMsgType.TEXT:
                    async with asyncio.timeout(_TAKES_S):
                        await self._take(message.data)
        except TimeoutError:
            self._tell("a dashboard took no key any more and was ended")
        except ConnectionError:
            # The page went away while it was answered.
            return

    async def _take(self, text: str) -> None:
        """What a page may say: keys, its size, whether it is looked at. Everything else ends it."""
        match _decoded(text):
            case ["stdin", str(keys)]:
                await self.send_bytes(keys.encode("utf-8", "ignore"))
            case ["resize", {"width": int(width), "height": int(height)}]:
                await self.set_terminal_size(clamp(width, COLUMNS), clamp(height, ROWS))
            case ["ping", str(when)]:
                await self._websocket.send_json(["pong", when[:40]])
            case ["focus"]:
                await self.focus()
            case ["blur"]:
                await self.blur()
            case _:
                await self._websocket.close(code=1008, message=b"not a message of this page")

    async def run(self) -> None:
        """Hand on what the process draws. Also when nobody takes it: it could not end with a full pipe."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        last_words = asyncio.create_task(_last(process.stderr))
        try:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await self._hand_on(process.stdout)
                self._kill()
            code = await process.wait()
            words = await last_words
        finally:
            last_words.cancel()
        if code and not self._is_stopping:
            await self._explain(code, words)
        with contextlib.suppress(ConnectionError):
            await self._close()

    async def _hand_on(self, stdout: asyncio.StreamReader) -> None:
        """Returns when it does not speak the protocol. Raises: IncompleteReadError, at the end."""
        if await stdout.readexactly(len(_READY)) != _READY:
            return
        while True:
            head = await stdout.readexactly(5)
            size = int.from_bytes(head[1:], "big")
            if size > _MAX_PACKET:
                return
            payload = await stdout.readexactly(size)
            # Nothing else than a picture: the rest of the protocol opens addresses and hands out files.
            if head[:1] == b"D":
                with contextlib.suppress(ConnectionError):
                    await self.on_data(payload)

    async def _explain(self, code: int, words: list[str]) -> None:
        self._tell(f"a dashboard ended with code {code}" + "".join(f"\n  {line}" for line in words))
        said = words[-1] if words else f"the dashboard ended with code {code}"
        await write_words(self._websocket, said)

    async def stop(self) -> None:
        """End the process: asked first, killed when it does not. Returns when it is gone."""
        process, task = self._process, self._task
        if process is None or task is None:
            return
        was_asked, self._is_stopping = self._is_stopping, True
        try:
            async with asyncio.timeout(self._grace_s):
                if not was_asked:
                    await self.send_meta({"type": "quit"})
                await process.wait()
        except TimeoutError:
            self._kill()
            await process.wait()
        # Whom it started may hold its pipes open for longer.
        await asyncio.wait([task], timeout=self._grace_s)
        task.cancel()

    def _kill(self) -> None:
        """With all that it started itself."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def write_words(websocket: web.WebSocketResponse, words: str) -> None:
    """A sentence in the place of the dashboard."""
    with contextlib.suppress(ConnectionError):
        await websocket.send_bytes(b"\x1b[?1049l\x1b[2J\x1b[2;3H" + printable(words, 400).encode())


def clamp(value: int, within: range) -> int:
    return min(max(value, within[0]), within[-1])


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


async def _last(stream: asyncio.StreamReader, size: int = 8192, lines: int = 20) -> list[str]:
    """The end of what is said there, made safe for a terminal."""
    end = b""
    while data := await stream.read(4096):
        end = (end + data)[-size:]
    return [printable(line, 300) for line in end.decode("utf-8", "replace").splitlines()[-lines:] if line.strip()]
