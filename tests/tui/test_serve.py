"""`qig-tui serve`: a real server, a real browser, and those who may not come in."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from qig_core.rundir.writer import RunWriter
from qig_tui import serve
from qig_tui.web.door import Door
from qig_tui.web.server import FULL, Server
from qig_tui.web.session import DRIVER
from tests.tui import browser
from tests.tui.runs import full_run, log_steps, open_run

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHELL = "a'; touch hit; $(touch hit) `touch hit` \"& touch hit"
"""A folder whose name a shell would act on."""
STUBBORN = ["sh", "-c", "printf '__GANGLION__\\n'; trap '' TERM INT; while :; do sleep 60; done"]
"""Ignores that it is asked to leave."""
FLOODING = ["sh", "-c", "printf '__GANGLION__\\n'; while :; do printf 'D\\000\\000\\001\\000%0256d' 0; done"]
"""Draws without end and reads nothing."""
TAKING = """
import os, sys
os.write(1, b"__GANGLION__\\n")
with open(sys.argv[1], "ab", 0) as taken:
    while (data := os.read(0, 4096)) and b"quit" not in data:
        taken.write(data)
    taken.write(data)
"""
"""Writes down what it is told until it is told to leave."""
OPENING = """
from io import StringIO
from textual.app import App
class Opening(App):
    def on_mount(self):
        self.open_url("http://127.0.0.1/hit")
        self.deliver_text(StringIO("hit"), save_filename="hit")
        self.set_timer(0.2, self.exit)
Opening().run()
"""
"""An app that leads whoever sits at the browser elsewhere, and hands them a file."""


@contextmanager
def serving(run: Path, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command, as soon as it says where."""
    argv = [sys.executable, "-m", "qig_tui.serve", str(run), "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=cwd) as process:
        try:
            assert process.stdout is not None
            url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
            yield process, url
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(20)


@asynccontextmanager
async def serving_here(
    argv: list[str], title: str = "run", grace_s: float = 0.3
) -> AsyncIterator[tuple[Door, str, aiohttp.ClientSession]]:
    """Any program behind the page, and a client that has the cookie."""
    door = Door(1)
    async with TestServer(Server(argv, title, door, print, grace_s=grace_s).application) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Origin": url}) as client:
            async with client.get(f"{url}/?token={door.token}") as answer:
                assert answer.status == 200
            yield door, url, client


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.02)


def children(pid: int | None = None) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children(recursive=True) if lives(one)]


def lives(process: psutil.Process) -> bool:
    """A process that ended may wait for ever for somebody to be told."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shells() -> int:
    return sum(one.cmdline()[:1] == ["sh"] for one in children())


def charts(text: str) -> str:
    return "".join(character for character in text if "\u2800" <= character <= "\u28ff")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunWriter]:
    folder = tmp_path_factory.mktemp("served") / SHELL
    folder.mkdir()
    with full_run(folder) as writer:
        yield writer


@pytest.fixture(scope="module")
def server(live: RunWriter) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with serving(live.run.path, live.run.path.parent) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[browser.Browser]:
    async with browser.opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


async def test_a_browser_shows_a_run_that_goes_on_takes_keys_loads_again_and_leaves_nothing_behind(
    live: RunWriter, server: tuple[subprocess.Popen[str], str], chromium: browser.Browser
) -> None:
    process, url = server
    page = await chromium.open(url)
    first = await page.wait(lambda text: "300 read" in text)
    assert "charlie" in first.split("\n")[0]
    assert "read only" in first
    # The token is in no address that stays, and no script can read the cookie.
    assert not any("token" in address for address in await page.addresses())
    assert await page.run("location.pathname + location.search + document.cookie") == "/"
    hosts = "[...new Set(performance.getEntriesByType('resource').map(one => new URL(one.name).host))].join()"
    assert await page.run(hosts) == url.split("/")[2]

    log_steps(live, 300, 420)
    second = await page.wait(lambda text: "420 read" in text)
    assert charts(second) != charts(first)

    before = await page.picture()
    await page.press("?", "?")
    await page.wait(lambda text: "─ Keys ─" in text)
    assert await page.picture() != before
    await page.press("Escape")
    await page.wait(lambda text: "─ Keys ─" not in text)
    # It was painted, not only stored: an empty page is a tenth of that.
    assert len(before) > 40_000

    await page.ask("Page.reload")
    await page.wait(lambda text: "420 read" in text)
    await until(lambda: len(children(process.pid)) == 1)
    await page.close()
    await until(lambda: not children(process.pid))
    assert not list(live.run.path.parent.glob("**/hit"))


async def test_a_page_of_another_server_on_this_machine_gets_no_dashboard_with_the_cookie_but_a_link_opens_one(
    server: tuple[subprocess.Popen[str], str], chromium: browser.Browser
) -> None:
    process, url = server
    host = url.split("/")[2]
    own = await chromium.open(url)
    await own.wait(lambda text: "read only" in text)
    asks = f"""new Promise(done => {{
      const socket = new WebSocket("ws://{host}/ws");
      socket.onopen = () => {{ socket.close(); done("open"); }};
      socket.onerror = () => done("refused");
    }})"""
    assert await own.run(asks) == "open"

    async def blank(_: web.Request) -> web.Response:
        return web.Response(text="<p>elsewhere", content_type="text/html")

    elsewhere = web.Application()
    elsewhere.router.add_get("/", blank)
    async with TestServer(elsewhere) as other:
        # A browser sends the cookie along: to it two ports of a machine are one site.
        page = await chromium.open(f"http://127.0.0.1:{other.port}/")
        await page.wait(lambda text: text == "elsewhere", "document.body?.innerText ?? ''")
        assert await page.run(asks) == "refused"
        framed = f"""new Promise(done => {{
          const frame = document.createElement("iframe");
          frame.onload = () => done("");
          frame.src = "http://{host}/";
          document.body.append(frame);
        }})"""
        await page.run(framed)
        (frame,) = (await page.ask("Page.getFrameTree"))["frameTree"]["childFrames"]
        assert frame["frame"]["url"].startswith("chrome-error:")
        # Another site, whose link a browser follows without any cookie of ours.
        await page.go(f"http://localhost:{other.port}/")
        await page.wait(lambda text: text == "elsewhere", "document.body?.innerText ?? ''")
        await until(lambda: len(children(process.pid)) == 1)
        await page.run(f"void (location.href = {url!r})")
        await page.wait(lambda text: "read only" in text)
        await page.close()
    await own.close()
    await until(lambda: not children(process.pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_dashboard_outlives_its_server(live: RunWriter, tmp_path: Path, number: signal.Signals) -> None:
    with serving(live.run.path, tmp_path) as (process, url):
        root = url.split("/?")[0]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            await client.get(url)
            async with client.ws_connect(f"{root}/ws", origin=root) as socket:
                while b"charlie" not in await socket.receive_bytes(timeout=20):
                    pass
                behind = children(process.pid)
                assert behind
                process.send_signal(number)
                try:
                    await until(lambda: not any(map(lives, behind)))
                finally:
                    for one in filter(lives, behind):
                        one.kill()
        assert process.wait(20) == (0 if number is signal.SIGTERM else -number)


async def test_a_dashboard_whose_server_is_gone_ends_also_when_it_has_nothing_to_draw() -> None:
    quiet = [sys.executable, "-c", "from textual.app import App; App().run()"]
    process = await asyncio.create_subprocess_exec(
        *quiet, stdin=PIPE, stdout=PIPE, env=os.environ | {"TEXTUAL_DRIVER": DRIVER}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"__GANGLION__\n"
    process.stdin.close()
    try:
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("header", "value", "sentence"),
    [
        ("Host", "evil.example", "127.0.0.1 or localhost"),
        ("Host", "127.0.0.1.evil.example", "127.0.0.1 or localhost"),
        ("Host", "localhost:80@evil.example", "127.0.0.1 or localhost"),
        ("Origin", "http://evil.example", "Another page"),
        ("Origin", "http://127.0.0.1:1", "Another page"),
        ("Origin", "null", "Another page"),
        ("Cookie", "", "token"),
        ("Cookie", "qig-tui-1=wrong", "token"),
        ("Cookie", "qig-tui-1=\u00fc", "token"),
    ],
)
async def test_a_foreign_host_or_origin_or_a_wrong_cookie_is_refused_everywhere(
    strict: tuple[Door, str, aiohttp.ClientSession], header: str, value: str, sentence: str
) -> None:
    _, url, knowing = strict
    right = {"Origin": url, "Cookie": "; ".join(f"{one.key}={one.value}" for one in knowing.cookie_jar)}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        for path in ("/", "/ws", "/static/textual.js", "/static/page.js", "/download/x", "/nowhere"):
            for method, more in (("GET", {}), ("POST", {}), ("GET", {"Upgrade": "websocket", "Connection": "upgrade"})):
                async with client.request(method, url + path, headers=right | {header: value} | more) as answer:
                    assert answer.status == 403
                    assert sentence in await answer.text()
                    assert answer.headers["X-Frame-Options"] == "DENY"
        async with client.get(url, headers=right) as answer:
            assert answer.status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict() -> AsyncIterator[tuple[Door, str, aiohttp.ClientSession]]:
    async with serving_here(STUBBORN) as found:
        yield found


async def test_only_the_token_of_this_server_is_exchanged_and_only_at_the_page(
    strict: tuple[Door, str, aiohttp.ClientSession],
) -> None:
    door, url, knowing = strict
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        for wrong in ("", "?token=", f"?token={door.token[:-1]}", f"?token={Door(1).token}", "?token=%FF"):
            assert (await client.get(f"{url}/{wrong}")).status == 403
        assert (await client.get(f"{url}/static/page.js?token={door.token}")).status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect(f"{url}/ws?token={door.token}", origin=url)
        answer = await client.get(f"{url}/?token={door.token}")
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert door.token not in cookie + await answer.text()
        # What other servers gave, or the token itself, is no cookie.
        async with serving_here(STUBBORN) as (_, other, _):
            assert (await client.get(other, headers={"Cookie": cookie.split(";")[0]})).status == 403
        stale = {"Cookie": f"{cookie.split('=')[0]}={door.token}"}
        assert (await client.get(url, headers=stale)).status == 403
    # A websocket has an origin, or no browser asks for it.
    del knowing.headers["Origin"]
    try:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await knowing.ws_connect(f"{url}/ws")
    finally:
        knowing.headers["Origin"] = url


async def test_the_page_needs_nothing_from_elsewhere_and_takes_no_markup_from_a_name() -> None:
    async with serving_here(STUBBORN, title='<script>"$x') as (_, url, client):
        answer = await client.get(f"{url}/?fontsize=99999")
        page = await answer.text()
        assert "&lt;script&gt;&quot;$x" in page
        assert 'data-font-size="40"' in page
        addresses = re.findall(r'(?:src|href|url)="([^"]*)"', page)
        assert all(address.startswith(("/static/", f"ws://{url[7:]}/", "data:,")) for address in addresses)
        for address in addresses:
            if address.startswith("/static/"):
                assert (await client.get(url + address)).status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        for nowhere in ("/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/", "/download/x"):
            assert (await client.get(url + nowhere)).status == 404


async def test_one_dashboard_too_many_is_told_and_all_end_with_the_server() -> None:
    async with serving_here(STUBBORN) as (_, url, client):
        sockets = [await client.ws_connect(f"{url}/ws", origin=url) for _ in range(8)]
        await until(lambda: shells() == 8)
        async with client.ws_connect(f"{url}/ws", origin=url) as ninth:
            assert FULL.encode() in await ninth.receive_bytes()
            assert (await ninth.receive()).type is aiohttp.WSMsgType.CLOSE
        await sockets[0].close()
        await until(lambda: shells() == 7)
        async with client.ws_connect(f"{url}/ws", origin=url):
            await until(lambda: shells() == 8)
    assert not shells()


async def test_a_program_that_floods_a_page_that_is_gone_is_ended() -> None:
    async with serving_here(FLOODING) as (_, url, client):
        socket = await client.ws_connect(f"{url}/ws", origin=url)
        await socket.receive_bytes()
        assert shells() == 1
        # Without a word: the line is cut.
        assert socket._response.connection is not None
        socket._response.connection.close()
        await until(lambda: not shells())


async def test_a_page_may_send_keys_and_its_size_and_nothing_else(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    left = _packet(b"M", b'{"type": "quit"}')
    wrong = (
        '["quit"]',
        '["deliver_chunk_request", {"key": "x"}]',
        '["stdin", 5]',
        '{"a": 1}',
        "[" * 60_000,
        '["resize", {}]',
    )
    async with serving_here([sys.executable, "-S", "-c", TAKING, str(taken)], grace_s=20) as (_, url, client):
        for count, message in enumerate(wrong, 1):
            async with client.ws_connect(f"{url}/ws", origin=url) as socket:
                await socket.send_str(message)
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
                assert socket.close_code == 1008
            await until(lambda count=count: taken.exists() and len(taken.read_bytes()) >= count * len(left))
        assert taken.read_bytes() == left * len(wrong)
        taken.unlink()
        async with client.ws_connect(f"{url}/ws", origin=url) as socket:
            await socket.send_json(["stdin", "M\x00\x00\x00\x01\ud800ü"])
            await socket.send_json(["resize", {"width": 10**9, "height": -1}])
            await socket.send_json(["ping", "7"])
            assert await socket.receive_json() == ["pong", "7"]
    size = _packet(b"M", b'{"type": "resize", "width": 500, "height": 5}')
    assert taken.read_bytes() == _packet(b"D", "M\x00\x00\x00\x01ü".encode()) + size + left


def _packet(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


async def test_a_program_opens_no_address_and_hands_out_no_file_through_the_page() -> None:
    async with serving_here([sys.executable, "-c", OPENING]) as (_, url, client):
        async with client.ws_connect(f"{url}/ws", origin=url) as socket:
            came = [message async for message in socket]
    assert {message.type for message in came} == {aiohttp.WSMsgType.BINARY}
    drawn = b"".join(message.data for message in came)
    assert b"?1049h" in drawn
    assert b"hit" not in drawn
    # Also not one that has a driver of its own.
    packet = _packet(b"M", b'{"type": "open_url", "url": "http://127.0.0.1/hit", "new_tab": true}')
    raw = f"import os; os.write(1, b'__GANGLION__\\n' + {packet})"
    async with serving_here([sys.executable, "-S", "-c", raw]) as (_, url, client):
        async with client.ws_connect(f"{url}/ws", origin=url) as socket:
            assert not [message async for message in socket]


async def test_what_a_program_said_before_it_failed_is_told_without_its_escapes() -> None:
    failing = ["sh", "-c", "printf '\\033]0;hit\\007no such run' >&2; exit 2"]
    async with serving_here(failing) as (_, url, client):
        async with client.ws_connect(f"{url}/ws", origin=url) as socket:
            came = [message.data async for message in socket]
    assert b"\\x1b]0;hit\\x07no such run" in came[0]


async def test_what_cannot_be_served_is_refused_in_a_sentence(
    live: RunWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(live.run.path)
    (tmp_path / "run.json").write_text("{")
    for argv, code, sentence in (
        ([str(tmp_path / "nowhere")], 2, "nowhere"),
        ([str(tmp_path)], 2, "run.json"),
        ([run, "--theme", "qig-drak"], 2, "do you mean"),
    ):
        assert serve.main([*argv, "--port", "0"]) == code
        assert sentence in capsys.readouterr().err
    async with TestServer(web.Application()) as other:
        assert serve.main([run, "--port", str(other.port)]) == 74
        assert "--port 0" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    assert serve.main([run, "--port", "0"]) == 2
    assert "pip install 'qig-tui[serve]'" in capsys.readouterr().err


async def test_commands_are_off_unless_they_were_allowed(tmp_path: Path) -> None:
    open_run(tmp_path).close(0)
    assert "--read-only" in serve.command("/run", False, None)
    assert "--read-only" not in serve.command("/run", True, None)
    assert serve.WEB in serve.command("/run", True, "light")
