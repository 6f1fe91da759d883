"""Telling people how a run is: what, when and on whose word. How it gets there is in `delivery`.

The settings come from a file that a person named, or from their own; never from a run directory, for what stands there
may come from anybody, and this executes it. A run never waits or ends for an alert.
"""

import contextlib
import dataclasses
import math
import os
import re
import shlex
import stat
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import platformdirs

from qig_core.errors import ConfigError
from qig_core.rundir.host import host_name
from qig_core.safety.delivery import NAME, VARIABLE, Channel, Message, Sender
from qig_core.safety.given import check_keys, hint, require

Kind = Literal["warning", "critical", "end"]

MAX_QUEUED = 64
REPORT_EVERY_S = 60.0
_MAX_TIMEOUT_S = 600.0

EXAMPLE = """\
# Telling people. Read from a --config file, else from your own settings.toml; never from a run directory.
# [alerts]
# on = ["critical", "end"]  # and "warning"
# url = "${TEAM_WEBHOOK}"  # JSON is posted there; ${NAME} is taken from the environment
# token_env = ""  # the variable that is sent as Authorization: Bearer
# command = []  # ["/home/me/bin/notify", "qig"]: words, no shell; JSON on its stdin, the sentence in $QIG_ALERT_TEXT
# timeout_s = 10.0
# min_interval_s = 60.0  # between two alerts of one condition
"""


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """What is told, and where. What may be or hold a secret is not in the repr."""

    command: tuple[str, ...] = field(default=(), repr=False)
    """A program and its arguments, never a shell's line; the JSON comes on its stdin."""
    url: str = field(default="", repr=False)
    """http or https; ${NAME} in it is that environment variable."""
    on: tuple[Kind, ...] = ("critical", "end")
    timeout_s: float = 10.0
    """Of one delivery; a command that takes longer is killed with its children."""
    token_env: str = field(default="", repr=False)
    """The environment variable that is sent as `Authorization: Bearer`."""
    min_interval_s: float = 60.0
    """Between two alerts of the same kind and condition; the next one says how many were left out."""

    def __post_init__(self) -> None:
        require(bool(self.command or self.url), "command and url are both empty: name one, or leave the table out")
        require(not self.command or bool(self.command[0]), "command begins with an empty word")
        require("\0" not in "".join(self.command), "command holds a NUL")
        direct = not self.url or self.url.startswith(("http://", "https://", "${"))
        require(direct, "url must begin with http:// or https://")
        require("${" not in VARIABLE.sub("", self.url), "url has a ${ that is not followed by a NAME and }")
        named = re.fullmatch(f"({NAME})?", self.token_env) is not None
        require(named, "token_env is the name of an environment variable; the token itself belongs in there")
        require(bool(self.url or not self.token_env), "token_env is for a url, and there is none")
        require(bool(self.on), "on names nothing that is to be told")
        for kind in self.on:
            require(kind in get_args(Kind), f"on: {kind!r} is unknown{hint(kind, get_args(Kind))}")
        short = 0.0 < self.timeout_s <= _MAX_TIMEOUT_S
        require(short, f"timeout_s is {self.timeout_s}: it must be greater than 0, and at most {_MAX_TIMEOUT_S:g}")
        sane = math.isfinite(self.min_interval_s) and self.min_interval_s >= 0
        require(sane, f"min_interval_s is {self.min_interval_s}: it must not be negative")


def settings_path() -> Path:
    """The user's own settings: $QIG_SETTINGS, else settings.toml in the user's folder for such files."""
    named = os.environ.get("QIG_SETTINGS")
    return Path(named) if named else platformdirs.user_config_path("qig-tui") / "settings.toml"


def load_alerts(table: object = None, where: str = "") -> AlertSettings | None:
    """The alerts of an [alerts] table as it was read from the file `where`, else of the user's own settings, else None.

    Raises:
        ConfigError: an unknown key (with the nearest), a value that cannot be, an environment variable that is not
            set; settings that are not the user's, or that others can write.
    """
    if table is None:
        where = str(settings_path())
        own = _read_own(Path(where))
        check_keys(own, ("alerts",), repr(where))
        if (table := own.get("alerts")) is None:
            return None
    told = f"{where!r}: [alerts]"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{told} must be a table")
    check_keys(table, [each.name for each in dataclasses.fields(AlertSettings)], told)
    if isinstance(table.get("command"), str):
        raise ConfigError(f'{told}: command is a list of words, which no shell reads: ["notify-send", "qig"]')
    for kind in table["on"] if isinstance(table.get("on"), list) else ():
        require(kind in get_args(Kind), f"{told}: on: {kind!r} is unknown{hint(str(kind), get_args(Kind))}")
    try:
        settings = msgspec.convert(table, AlertSettings)
        Channel(settings)  # what the environment lacks is said now, not in the night
    except (msgspec.ValidationError, ConfigError) as error:
        raise ConfigError(f"{told}: {str(error).replace(' - at `$.', ' - at `')}") from error
    return settings


def _read_own(path: Path) -> Mapping[str, Any]:
    """The user's settings; empty where there are none."""
    shown = repr(str(path))
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        # A home that this user may not even enter, as in a container, holds no settings.
        if os.environ.get("QIG_SETTINGS") or os.path.lexists(path):
            raise ConfigError(f"settings {shown}: {error.strerror}") from error
        return {}
    with file:
        found = os.fstat(file.fileno())
        require(stat.S_ISREG(found.st_mode), f"settings {shown} are not a file")
        why = "and an alert may be a command"
        mine = found.st_uid == os.geteuid()
        require(mine, f"settings {shown} are another user's, {why}; name a file of your own in $QIG_SETTINGS")
        cure = f"chmod go-w {shlex.quote(str(path))}"
        require(not found.st_mode & 0o022, f"settings {shown} can be written by others, {why}; cure it with: {cure}")
        try:
            return tomllib.load(file)
        except ValueError as error:
            raise ConfigError(f"settings {shown} are not TOML: {error}") from error


def send_test(settings: AlertSettings) -> str:
    """Deliver an alert of the kind "test" now; what failed, or nothing. A command's own output goes to the terminal."""
    message = Message(kind="test", t=time.time(), step=None, text="this is how an alert looks", data={})
    sender = Sender(run="test", name="qig-core alerts test", path=os.getcwd(), host=host_name())
    return Channel(settings, output=None).deliver(message, sender)


class Alerts:
    """Tells, in a thread of its own, what the settings ask for.

    Args:
        run, name, path, host: as a Sender's.
        report: called from that thread with a sentence on what was not delivered, at most once a minute; what it
            raises is dropped.

    Raises:
        ConfigError: as a Channel does.
    """

    def __init__(
        self, settings: AlertSettings, *, run: str, name: str, path: str, host: str, report: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._channel = Channel(settings)
        self._sender = Sender(run=run, name=name, path=path, host=host)
        self._report = report
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._queue: deque[Message] = deque()
        self._told_at: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}
        self._thread: threading.Thread | None = None
        self._closed = self._given_up = False
        self._failures: list[str] = []
        """Not reported yet."""
        self._reported_at = -math.inf

    def tell(self, kind: Kind, *, step: int | None, text: str, data: Mapping[str, Any]) -> None:
        """Have this delivered; returns at once. `data["id"]` is the condition's id.

        Nothing happens in a forked child, nor after `close`.
        """
        if kind not in self._settings.on or os.getpid() != self._pid:
            return
        message = Message(kind=kind, t=time.time(), step=step, text=text, data=dict(data))
        key, now = message.key, time.monotonic()
        with self._wake:
            if self._closed:
                return
            if kind != "end" and now - self._told_at.get(key, -math.inf) < self._settings.min_interval_s:
                self._left_out[key] = self._left_out.get(key, 0) + 1
                return
            self._told_at[key] = now
            if len(self._queue) >= MAX_QUEUED:
                oldest = self._queue.popleft().key
                self._left_out[oldest] = self._left_out.get(oldest, 0) + 1
            self._queue.append(message)
            self._wake.notify()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="qig-alerts", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads now; the next alert tries again
                    thread.start()
                    self._thread = thread

    def close(self, wait_s: float) -> None:
        """Deliver what waits; give up after `wait_s`, and end a command that still runs then."""
        if os.getpid() != self._pid:
            return
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(max(0.0, wait_s))
        with self._wake:
            if self._given_up:
                return
            self._given_up = True
            busy = self._thread is not None and self._thread.is_alive()
            if waiting := len(self._queue) + busy:
                self._failures.append(f"{waiting} given up after {wait_s:g} s")
            self._queue.clear()
        self._channel.kill()
        self._say()

    def _work(self) -> None:
        while (message := self._next()) is not None:
            failure = self._channel.deliver(message, self._sender)
            if failure and not self._given_up:
                self._failures.append(failure)
                if time.monotonic() - self._reported_at >= REPORT_EVERY_S:
                    self._say()

    def _next(self) -> Message | None:
        """The oldest message, waited for; None where none will come."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            message = self._queue.popleft()
            # The end tells what was left out of all conditions.
            keys = list(self._left_out) if message.kind == "end" else [message.key]
            return dataclasses.replace(message, left_out=sum(self._left_out.pop(key, 0) for key in keys))

    def _say(self) -> None:
        if not self._failures:
            return
        last, earlier = self._failures[-1], len(self._failures) - 1
        self._failures, self._reported_at = [], time.monotonic()
        more = f"; {earlier} more before" if earlier else ""
        with contextlib.suppress(Exception):  # the disk may be what is being told of
            self._report(f"an alert was not delivered: {last}{more}")
