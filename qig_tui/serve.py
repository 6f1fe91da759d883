"""`qig-tui serve`: the dashboard in a browser on this machine. Parses and checks, and only then imports a server."""

import argparse
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec

USAGE, IO = 2, 74
ADDRESS = "127.0.0.1"
PROGRAM = (sys.executable, "-P", "-m", "qig_tui.cli")
"""Behind each page; -P, or a package that lies in the current folder could stand in for ours."""
WEB = "--web"
_PORT = 8000
_DESCRIPTION = "Show the dashboard in a browser: on this machine only, and only with the token that is printed here."
_EPILOG = """\
Without --allow-commands nothing can be asked of a run. Whoever has the printed address sees what you see.
exit codes: 0 ended by ctrl+c or a signal. 2 there is no such run, or what serving needs is not installed. 74 the port
is taken.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="qig-tui serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("path", nargs="?", metavar="PATH", help="a run, a folder of runs, a run's id or name, or latest")
    made.add_argument("--port", type=_port, default=_PORT, help=f"default {_PORT}; 0 takes any that is free")
    made.add_argument(
        "--allow-commands",
        action="store_true",
        help="let the page abort, checkpoint, pause and restore as a terminal can",
    )
    made.add_argument("--theme", metavar="NAME", help="colours, as for the dashboard in a terminal")
    return made


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port: a number from 0 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    from qig_tui.cli import find

    arguments = parser().parse_args(argv)
    try:
        path, is_run = find(arguments.path)
        path = os.path.abspath(path)
        _check(path, is_run, arguments.theme)
    except ValueError as error:
        return _refuse(str(error))
    if find_spec("textual_serve") is None:
        return _refuse("serving needs textual_serve; install it with: pip install 'qig-tui[serve]'")
    # Ours before anybody is told of it. A port that was in use a moment ago is free.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.closing(listening):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, arguments.port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken; --port 0 takes any that is free" if taken else f"cannot be had: {error.strerror}"
            return _refuse(f"port {arguments.port} of this machine {why}", IO)
        import asyncio

        asyncio.run(_serve(listening, path, command(path, arguments.allow_commands, arguments.theme)))
    return 0


def command(path: str, allow_commands: bool, theme: str | None) -> list[str]:
    """The program behind each page. Args: path: absolute, so that it is no option."""
    made = [*PROGRAM, path, WEB]
    if not allow_commands:
        made.append("--read-only")
    return made if theme is None else [*made, f"--theme={theme}"]


def _check(path: str, is_run: bool, theme: str | None) -> None:
    """What the dashboard would refuse, before a browser shows it. Raises: ValueError."""
    from qig_core.errors import RunFormatError
    from qig_core.rundir.layout import RunDir
    from qig_tui.sources.local import open_run

    if is_run:
        try:
            open_run(RunDir(path))
        except RunFormatError as error:
            raise ValueError(str(error)) from error
    if theme is not None:
        from textual.theme import BUILTIN_THEMES

        from qig_tui import terminal, themes

        if theme != terminal.AUTO:
            themes.named(theme, {*BUILTIN_THEMES, *terminal.THEMES})


async def _serve(listening: socket.socket, path: str, argv: Sequence[str]) -> None:
    """Until a signal says that it is enough."""
    import asyncio

    from aiohttp import web

    from qig_tui.web.door import Door
    from qig_tui.web.server import Server

    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup and a shell's & have some of them ignored, and mean it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, enough.set)
    port = listening.getsockname()[1]
    door = Door(port)
    server = Server(argv, os.path.basename(path), door, _tell)
    runner = web.AppRunner(server.application, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        print(_greeting(path, port, door.token, "--read-only" in argv), flush=True)
        await enough.wait()
    finally:
        await runner.cleanup()


def _greeting(path: str, port: int, token: str, read_only: bool) -> str:
    from qig_core.rundir.printable import printable

    commands = "nothing can be asked of a run" if read_only else "a run can be stopped from there"
    host = printable(socket.gethostname(), 80)
    return (
        f"{printable(path, 300)} in a browser; {commands}. ctrl+c ends it.\n"
        f"  open       http://{ADDRESS}:{port}/?token={token}\n"
        f"  elsewhere  first, where the browser is: ssh -L {port}:{ADDRESS}:{port} {host}"
    )


def _tell(words: str) -> None:
    print(f"qig-tui serve: {words}", file=sys.stderr, flush=True)


def _refuse(sentence: str, code: int = USAGE) -> int:
    from qig_core.rundir.printable import printable

    print(f"qig-tui serve: {printable(sentence, 500)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
