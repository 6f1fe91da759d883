"""The driver of a dashboard that a browser shows: it draws and takes keys, and does nothing else for the page."""

import os
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from textual import messages
from textual.app import App
from textual.drivers.web_driver import WebDriver

from qig_tui.thrift import Thrift

_TAKEN = frozenset({"resize", "focus", "blur", "quit"})
"""What the server may tell; the rest of the protocol hands out files."""


class BrowserDriver(WebDriver):
    """Sends only the cells that changed, opens no address, delivers no file, and ends with the server."""

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._thrift = Thrift()
        self._write = self._write_all  # type: ignore[assignment]  # inferred there as a partial of os.write
        self._is_gone = False

    def _write_all(self, data: bytes) -> None:
        """A signal may end a write half way; what follows would then be read as the rest of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fileno, rest) :]

    def write(self, data: str) -> None:
        encoded = self._thrift.encode(data)
        if encoded:
            super().write(encoded)

    @property
    def is_gone(self) -> bool:
        """Whether the server is: nobody can see or press anything any more."""
        return self._is_gone

    def forget(self) -> None:
        """Send everything that is drawn from now on."""
        self._thrift.forget()

    def run_input_thread(self) -> None:
        super().run_input_thread()
        # The far end closed, or sent what cannot be read: Textual would stay, deaf.
        self._is_gone = True
        self._app.post_message(messages.ExitApp())

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        if packet_type in _TAKEN:
            super().on_meta(packet_type, payload)

    def open_url(self, url: str, new_tab: bool = True) -> None:
        """Not for whoever sits at the browser to be led anywhere by what a file says."""

    def deliver_binary(
        self,
        binary: BinaryIO | TextIO,
        *,
        delivery_key: str,
        save_path: Path,
        open_method: Literal["browser", "download"] = "download",
        encoding: str | None = None,
        mime_type: str | None = None,
        name: str | None = None,
    ) -> None:
        """No file leaves through the page."""
        binary.close()
