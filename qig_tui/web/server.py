"""The page, its few files and its websocket; a bounded number of dashboards. Who may ask is the door's."""

import asyncio
import html
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from aiohttp import web

from qig_core.rundir.printable import printable
from qig_tui.web.door import Door, guard
from qig_tui.web.session import Session, clamp, write_words

_MAX_SESSIONS = 8
_MAX_MESSAGE = 1 << 16
_CLOSES_S = 2.0
"""A browser that does not answer a close is not waited for any longer."""
_HEARTBEAT_S = 15.0
_FONT_PX = range(6, 41)
_PAGE = Path(str(files("qig_tui.web"))) / "page"
_THEIRS = Path(str(files("textual_serve"))) / "static"
_ASSETS = {
    "page.css": (_PAGE / "page.css", "text/css"),
    "page.js": (_PAGE / "page.js", "text/javascript"),
    "xterm.css": (_THEIRS / "css" / "xterm.css", "text/css"),
    "textual.js": (_THEIRS / "js" / "textual.js", "text/javascript"),
}
FULL = (
    f"{_MAX_SESSIONS} dashboards are open here already, and there may be no more: close one, then load this page again."
)


class Server:
    """What `qig-tui serve` serves.

    Args:
        argv: the program behind each page.
        title: of the page.
        tell: takes a sentence for whoever runs the server.
        grace_s: how long a program may take to leave.
    """

    def __init__(
        self, argv: Sequence[str], title: str, door: Door, tell: Callable[[str], None], *, grace_s: float = 3.0
    ) -> None:
        self._argv = argv
        self._title = title
        self._tell = tell
        self._grace_s = grace_s
        self._open: dict[Session, web.WebSocketResponse] = {}
        self._page = Template((_PAGE / "index.html").read_text("utf-8"))
        self.application = web.Application(middlewares=[door.check])
        self.application.on_response_prepare.append(guard)
        self.application.on_shutdown.append(self._end)
        self.application.add_routes(
            [
                web.get("/", self._show_page),
                web.get("/ws", self._talk),
                web.get("/static/{name}", self._show_asset),
            ]
        )

    async def _show_page(self, request: web.Request) -> web.Response:
        filled = self._page.substitute(
            title=html.escape(printable(self._title, 100)),
            socket=html.escape(f"ws://{request.headers['Host']}/ws"),
            font_px=clamp(_number(request, "fontsize", 16), _FONT_PX),
        )
        return web.Response(text=filled, content_type="text/html")

    async def _show_asset(self, request: web.Request) -> web.StreamResponse:
        found = _ASSETS.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound(text="There is no such file.\n")
        path, kind = found
        # Asked for anew each time, sent only if it changed.
        return web.FileResponse(path, headers={"Content-Type": f"{kind}; charset=utf-8", "Cache-Control": "no-cache"})

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, timeout=_CLOSES_S, max_msg_size=_MAX_MESSAGE)
        await websocket.prepare(request)
        if len(self._open) >= _MAX_SESSIONS:
            await write_words(websocket, FULL)
            await websocket.close()
            return websocket
        session = Session(self._argv, websocket, self._tell, grace_s=self._grace_s)
        self._open[session] = websocket
        try:
            await session.serve(_number(request, "width", 80), _number(request, "height", 24))
        finally:
            # Also when the request itself was given up, because the browser went away.
            await asyncio.shield(self._leave(session))
        return websocket

    async def _leave(self, session: Session) -> None:
        await session.stop()
        self._open.pop(session, None)

    async def _end(self, _: web.Application) -> None:
        """Every dashboard ends with the server."""
        closing = [websocket.close(code=1001, message=b"the server ends") for websocket in self._open.values()]
        stopping = [session.stop() for session in self._open]
        await asyncio.gather(*closing, *stopping)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else default
