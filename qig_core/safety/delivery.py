"""One message on its way to people: as JSON posted to a URL, as JSON on a command's stdin. No settings, no queue.

What is secret stays in the environment and out of every message. A failure is words, and raises nothing.
"""

import contextlib
import dataclasses
import http.client
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from qig_core.rundir.printable import printable
from qig_core.rundir.values import name_nonfinite, plain, without_surrogates
from qig_core.safety.given import require

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
"""Of an environment variable."""
VARIABLE = re.compile(rf"\$\{{({NAME})\}}")
"""In an address: ${NAME}."""
_MAX_TEXT = 1500
"""Characters; Discord refuses a message of more than 2000."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """The run that tells: its id, its display name, its directory, its machine."""

    run: str
    name: str
    path: str
    host: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """One thing to tell."""

    kind: str
    t: float
    step: int | None
    text: str
    data: Mapping[str, Any]
    left_out: int = 0
    """Alerts of the same kind and condition since the last one, that were not to be delivered."""

    @property
    def key(self) -> tuple[str, str]:
        """What counts as the same: that a condition is critical is news after its warning."""
        return self.kind, str(self.data.get("id", ""))

    def sentence(self, sender: Sender) -> str:
        """For people: "mine on host, step 1200: critical: divergence: loss 5.13 nat, limit <= 2.5 nat"."""
        who = f"{printable(sender.name or sender.run, 100)} on {printable(sender.host, 100)}"
        at = "" if self.step is None else f", step {self.step}"
        more = f" ({self.left_out} more left out)" if self.left_out else ""
        return f"{who}{at}: {self.kind}: {printable(self.text, _MAX_TEXT)}{more}"

    def body(self, sender: Sender) -> bytes:
        """The JSON. The sentence is `text`, which Slack shows, and `content`, which Discord shows."""
        try:
            data = msgspec.to_builtins(name_nonfinite(self.data), enc_hook=plain, str_keys=True)
        except (TypeError, ValueError, RecursionError):
            data = {"repr": printable(repr(self.data), _MAX_TEXT)}
        facts = {"text": (shown := self.sentence(sender)), "content": shown, "program": "qig-tui", "data": data}
        told = {name: getattr(self, name) for name in ("kind", "t", "step", "left_out")}
        return msgspec.json.encode(without_surrogates(told | dataclasses.asdict(sender) | facts))


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a POST would arrive without its content, and the token at another address."""

    def redirect_request(self, *_: object) -> None:
        return None


class Address(Protocol):
    """Where messages go, as it was written down: AlertSettings are one. What is empty is left out."""

    @property
    def command(self) -> Sequence[str]:
        """A program and its arguments."""

    @property
    def url(self) -> str:
        """With ${NAME} for environment variables."""

    @property
    def token_env(self) -> str:
        """The environment variable that is sent as `Authorization: Bearer`."""

    @property
    def timeout_s(self) -> float:
        """Of one delivery; a command that takes longer is killed with its children."""


class Channel:
    """Where messages go, with what that needs from the environment.

    Args:
        output: of the command; what it says may be secret, so it is nowhere but on the terminal of a test.

    Raises:
        ConfigError: a variable that is not set, or whose value cannot be in an address or a header.
    """

    def __init__(self, address: Address, *, output: int | None = subprocess.DEVNULL) -> None:
        self._command = address.command
        self._output = output
        self._timeout_s = address.timeout_s
        self._url = VARIABLE.sub(lambda match: _variable(match[1]), address.url)
        if self._url:
            _check_address(self._url)
        self._headers = {"Content-Type": "application/json", "User-Agent": "qig-tui"}
        if address.token_env:
            self._headers["Authorization"] = f"Bearer {_variable(address.token_env)}"
        self._opener = urllib.request.build_opener(_Stay)
        self._poster: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def deliver(self, message: Message, sender: Sender) -> str:
        """Wait for the delivery; what failed, or nothing. Raises nothing."""
        try:
            body = message.body(sender)
            posted = self._post_in_time(body) if self._url else ""
            ran = self._run(body, message, sender) if self._command else ""
        except Exception as error:  # whatever it is, the next alert is to be told
            return type(error).__name__
        return "; ".join(filter(None, (posted, ran)))

    def _post_in_time(self, body: bytes) -> str:
        """In one more thread: looking up a host and an answer that drips in know no timeout."""
        if self._poster is not None:
            self._poster.join(self._timeout_s)
            if self._poster.is_alive():
                return "the url still owes the answer to an earlier alert"
        said: list[str] = []
        self._poster = threading.Thread(target=lambda: said.append(self._post(body)), name="qig-post", daemon=True)
        self._poster.start()
        self._poster.join(self._timeout_s)
        return said[0] if said else self._no_answer()

    def _no_answer(self) -> str:
        return f"the url did not answer within {self._timeout_s:g} s"

    def _post(self, body: bytes) -> str:
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            self._opener.open(request, timeout=self._timeout_s).close()
        except urllib.error.HTTPError as error:
            error.close()
            hint = "; a redirect is not followed, name its target" if 300 <= error.code < 400 else ""
            # Not the server's own words: they may repeat the address.
            return f"the url answered {error.code} ({http.client.responses.get(error.code, 'no known code')}){hint}"
        except Exception as error:  # of many kinds, and the text of some holds the address
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                return self._no_answer()
            # TLS has its reasons in short; its sentences name the host.
            words = getattr(cause, "reason", None) or getattr(cause, "strerror", None) or type(cause).__name__
            return f"the url cannot be reached: {words}"
        return ""

    def _run(self, body: bytes, message: Message, sender: Sender) -> str:
        name = printable(os.path.basename(self._command[0]), 80)
        told = {"QIG_ALERT_KIND": message.kind, "QIG_ALERT_TEXT": message.sentence(sender)}
        try:
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # a group to kill, and out of reach of the run's own Ctrl-C
                env=os.environ | told | {"QIG_RUN": sender.run, "QIG_RUN_PATH": sender.path},
            )
        except OSError as error:
            return f"the command {name!r} cannot be run: {error.strerror}"
        try:
            process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1.0)
            return f"the command {name!r} did not end within {self._timeout_s:g} s and was killed"
        return f"the command {name!r} ended with exit status {process.returncode}" if process.returncode else ""

    def kill(self) -> None:
        """End the command that runs now, with its children."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    require(bool(value), f"the environment variable {name} is not set")
    fits = re.fullmatch(r"[!-~]+", value) is not None
    require(fits, f"the environment variable {name} holds a blank, an end of line or another character that cannot be")
    return value


def _check_address(url: str) -> None:
    """Nothing of it is in the message: it may be secret."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    require(whole, "url, its variables filled in, is no address that begins with http:// or https://")
    require("@" not in urlsplit(url).netloc, "url holds a user or a password; a token goes by token_env")
    require(re.fullmatch(r"[!-~]+", url) is not None, "url holds a blank or a character that is to be percent-encoded")
