"""A real Chromium without a window, driven over its DevTools protocol; what a page's terminal shows, as text.

The browser is Debian's, or whatever $CHROMIUM names. Nothing here knows what the page is about.
"""

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

MISSING = "these tests need a real browser: apt-get install --no-install-recommends chromium (or set CHROMIUM)"
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
)
_SEEN = """
Object.defineProperty(Object.prototype, "terminal", {configurable: true, set(made) {
  Object.defineProperty(this, "terminal", {value: made, writable: true});
  window.seenTerminal = made;
}});
"""
"""The page keeps its terminal to itself; whatever is stored under that name first is it."""
_TEXT = """
(() => {
  const buffer = window.seenTerminal?.buffer?.active;
  if (!buffer) return "";
  const line = y => buffer.getLine(y)?.translateToString() ?? "";
  return Array.from({length: buffer.length}, (_, y) => line(y)).join("\\n");
})()
"""


class Gone(AssertionError):
    """The page that was asked has given way to another."""


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.ask(method, self._session, **parameters)

    async def go(self, url: str) -> None:
        await self.ask("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        answer = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def text(self) -> str:
        """The rows of the terminal; nothing before there is one."""
        return str(await self.run(_TEXT))

    async def wait(self, condition: Callable[[str], bool], script: str = _TEXT, timeout_s: float = 20.0) -> str:
        """Until the terminal's text, or what a script says, is as it should be; the limit ends a test that failed."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = str(await self.run(script))
            except Gone:
                found = ""
            if condition(found):
                return found
            assert time.monotonic() < deadline, f"the page never came to show it:\n{found}"
            await asyncio.sleep(0.05)

    async def press(self, key: str, text: str = "") -> None:
        code = {"Escape": 27}.get(key, 0)
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def picture(self) -> bytes:
        """What is really painted, as PNG."""
        return base64.b64decode((await self.ask("Page.captureScreenshot"))["data"])

    async def addresses(self) -> list[str]:
        """Of the tab's history."""
        return [entry["url"] for entry in (await self.ask("Page.getNavigationHistory"))["entries"]]

    async def close(self) -> None:
        await self._browser.ask("Target.closeTarget", targetId=self._target)


class Browser:
    """A running one; `opened` starts and ends it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            answer = json.loads(message.data)
            waiting = self._waiting.pop(answer.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        answer = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        question = {"id": self._last, "method": method, "params": parameters}
        await self._socket.send_json(question if session is None else question | {"sessionId": session})
        said = await asyncio.wait_for(answer, 30)
        if "error" in said:
            trouble = said["error"]["message"]
            assert "navigated" in trouble or "context" in trouble, f"{method}: {trouble}"
            raise Gone(trouble)
        return dict(said["result"])

    async def open(self, url: str, size: tuple[int, int] = (1600, 1000)) -> Page:
        """A new tab."""
        target = (await self.ask("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(self, session, target)
        await page.ask("Page.enable")
        await page.ask("Page.addScriptToEvaluateOnNewDocument", source=_SEEN)
        width, height = size
        await page.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await page.go(url)
        return page

    async def end(self) -> None:
        self._listening.cancel()
        await self._socket.close()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Browser]:
    """Started with an empty profile in the folder, and gone at the end."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    assert program, MISSING
    quiet = asyncio.subprocess.DEVNULL
    # It would put more than its profile into the homes of whoever runs the tests.
    homes = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    words = (program, *_FLAGS, f"--user-data-dir={folder}", "about:blank")
    process = await asyncio.create_subprocess_exec(
        *words, stdin=quiet, stdout=quiet, stderr=quiet, env=os.environ | homes
    )
    try:
        deadline = time.monotonic() + 30
        told = folder / "DevToolsActivePort"
        while not (told.exists() and len(told.read_text().split("\n")) > 1):
            assert time.monotonic() < deadline, "the browser did not start"
            assert process.returncode is None, "the browser ended"
            await asyncio.sleep(0.02)
        port, path = told.read_text().split("\n")[:2]
        async with aiohttp.ClientSession() as client:
            browser = Browser(await client.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0))
            yield browser
            await browser.end()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
