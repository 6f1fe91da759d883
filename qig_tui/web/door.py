"""Who may come in. Every request passes here first: Host, Origin, then token or cookie. Knows nothing of dashboards.

A browser carries a person's cookies to whoever asks, so that a page of somebody else could speak for them: a name that
is made to point here (DNS rebinding) is caught by Host, a page of another server, also one on this machine, by Origin.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NAMES = frozenset({"127.0.0.1", "localhost"})
NO_TOKEN = (
    "This page opens with the address that `qig-tui serve` printed: it ends in a token, and yours does not match."
)
FOREIGN_HOST = "This server answers as 127.0.0.1 or localhost, and to no other name."
FOREIGN_ORIGIN = "Another page may not ask this server for anything."
_COME_IN = '<!doctype html><meta charset="utf-8"><title>qig-tui</title><p>The dashboard opens.</p>'


class Door:
    """Lets in who knows the token, by a cookie of this server from then on."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        # Not the token: who can read the one has not got the other. Cookies do not tell ports apart, so the name does.
        self._pass = secrets.token_urlsafe(32)
        self._cookie = f"qig-tui-{port}"

    @web.middleware
    async def check(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answers itself whatever may not pass."""
        refused = self._refused(request)
        if refused:
            return web.Response(status=403, text=f"{refused}\n")
        knocks = request.path == "/" and "token" in request.query
        if _same(request.cookies.get(self._cookie, ""), self._pass):
            return _without_token() if knocks else await handler(request)
        if knocks and _same(request.query["token"], self.token):
            answer = _without_token()
            answer.set_cookie(self._cookie, self._pass, path="/", httponly=True, samesite="Strict")
            return answer
        return web.Response(status=403, text=f"{NO_TOKEN}\n")

    def _refused(self, request: web.Request) -> str:
        """What is wrong with where a request comes from; nothing if it is fine."""
        host = request.headers.getall("Host", [])
        # The port is the far end's affair: `ssh -L` may use another one.
        if len(host) != 1 or not is_ours(host[0]):
            return FOREIGN_HOST
        origin = request.headers.getall("Origin", [])
        # A browser names it for every websocket.
        asks_for_socket = "Upgrade" in request.headers
        if origin != [f"http://{host[0]}"] and (origin or asks_for_socket):
            return FOREIGN_ORIGIN
        return ""


def is_ours(host: str) -> bool:
    """Whether a Host header names this machine to itself, on whatever port."""
    name, colon, port = host.partition(":")
    return name in _NAMES and (not colon or (port.isascii() and port.isdigit() and len(port) <= 5))


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _without_token() -> web.Response:
    """To the page itself. Not by a status: from a link on another site a browser would go there without the cookie."""
    return web.Response(text=_COME_IN, content_type="text/html", headers={"Refresh": "0; url=/"})


async def guard(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer: nothing from elsewhere, in no frame, no other window, no download, kept nowhere."""
    host = request.headers.get("Host", "")
    socket = f" ws://{host}" if is_ours(host) else ""
    response.headers.update(
        {
            # The terminal writes style sheets as it runs. The sandbox has no popups and no downloads: a page of
            # textual-serve opens whatever address or file the program behind it names.
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
            f"img-src 'self' data:; font-src 'self'; connect-src 'self'{socket}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; sandbox allow-scripts allow-same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "clipboard-read=(), camera=(), microphone=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "Server": "qig-tui",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
    )
    response.headers.setdefault("Cache-Control", "no-store")
