"""The terminal's driver, sending only the cells that changed. Everything else is Textual's."""

import termios

from textual.drivers.linux_driver import LinuxDriver

from qig_tui.thrift import Thrift

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Between these a terminal shows nothing of a frame until it is whole."""


class ThriftyDriver(LinuxDriver):
    """A slow line is spared what the terminal shows already."""

    _thrift: Thrift | None = None
    _is_held = False
    """Whether a frame has begun of which nothing was worth sending yet."""

    def write(self, data: str) -> None:
        # A signal may have it written to before it is set up.
        if self._thrift is None:
            self._thrift = Thrift()
        if data == _BEGIN:
            self._is_held = True
            return
        if data == _END and self._is_held:
            self._is_held = False
            return
        encoded = self._thrift.encode(data)
        if encoded:
            super().write(_BEGIN + encoded if self._is_held else encoded)
            self._is_held = False

    @property
    def is_gone(self) -> bool:
        """Whether the terminal was hung up: nobody can see or press anything any more."""
        try:
            termios.tcgetattr(self.fileno)
        except termios.error:
            return True
        return False

    def forget(self) -> None:
        """Send everything that is drawn from now on: the terminal may show something else."""
        if self._thrift is not None:
            self._thrift.forget()
