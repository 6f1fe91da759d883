"""What a person chose and finds again: theme, charts, smoothing, order of the runs. One small file; no Textual."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import platformdirs

from qig_core.errors import RunFormatError
from qig_core.rundir.atomic import encode_document, write_document
from qig_core.rundir.reader import read_document

VERSION = 1


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """Every choice with its default. Keys are only ever added; a file of a higher version is left alone."""

    version: int = VERSION
    theme: str = ""
    """Empty: the one that suits the terminal."""
    layout: str = ""
    """How the charts stand: one of `qig_tui.widgets.chart_deck.LAYOUTS`; empty: the first."""
    pinned: tuple[str, ...] = ()
    """Metrics that come first, in this order, where a run has them."""
    hidden: tuple[str, ...] = ()
    """Metrics that get no chart."""
    smoothing: str = ""
    """One of `qig_tui.view.SMOOTHINGS` by its name; empty: none."""
    runs_sort: str = ""
    """Column of the runs table, "-" before it for the reverse order; empty: the newest first."""
    checkpoints_sort: str = ""
    """The same of the table of checkpoints."""


class _Versioned(msgspec.Struct):
    version: int = VERSION


def state_path() -> Path | None:
    """$QIG_DASHBOARD_STATE, else dashboard.json in the user's state directory; None for a user without a home."""
    named = os.environ.get("QIG_DASHBOARD_STATE")
    if named:
        return Path(named).absolute()
    try:
        path = platformdirs.user_state_path("qig-tui") / "dashboard.json"
    except RuntimeError:
        return None
    # Other versions of platformdirs leave the "~" as it is, and it would become a folder in the working directory.
    return path if path.is_absolute() else None


class Memory:
    """Read at the start; at every change what was chosen is put into the file, beside what others chose meanwhile.

    A disk that refuses costs nothing but the memory.

    Args:
        path: None remembers nothing beyond this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._listener: Callable[[str], None] | None = None
        self._told: set[str] = set()
        self.problem: str | None = None
        """Why what was chosen is not read or not kept; a sentence. None once it was told."""
        self.chosen = self._read() or Remembered()

    def listen(self, tell: Callable[[str], None]) -> None:
        """Have every problem told, once each: the one of now, and those that come."""
        self._listener = tell
        self._tell()

    def change(self, **choices: str | Sequence[str]) -> None:
        """Choose, by the names of `Remembered`, and keep it."""
        chosen = msgspec.structs.replace(self.chosen, **choices)
        if chosen == self.chosen:
            return
        self.chosen = chosen
        # Another dashboard may have kept another choice since: only what was chosen here is changed.
        kept = self._read()
        if self._path is not None:
            self._write(self._path, chosen if kept is None else msgspec.structs.replace(kept, **choices))
        self._tell()

    def _write(self, path: Path, chosen: Remembered) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_document(path, encode_document(chosen), durable=False, mode=0o600)
        except OSError as error:
            self.problem = f"{str(path)!r} cannot be written: {error.strerror}"

    def _read(self) -> Remembered | None:
        """What the file holds; None where there is none, or none that can be read."""
        path = self._path
        if path is None or not path.exists():
            return None
        try:
            # Its version first: of a newer one anything else may have another form.
            version = read_document(path, _Versioned, what="file of choices").version
            if version == VERSION:
                return read_document(path, Remembered, what="file of choices")
            self.problem = f"{str(path)!r} has version {version}: nothing is read from it or kept"
            self._path = None
        except RunFormatError as error:
            self.problem = str(error)
            if isinstance(error.__cause__, OSError):
                # It may be whole.
                self._path = None
            else:
                self._set_aside(path)
        return None

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(f"{path.name}.bad")
        try:
            os.replace(path, aside)
        except OSError:
            self._path = None
        else:
            self.problem = f"{self.problem}; it is set aside as {aside.name}"

    def _tell(self) -> None:
        if self.problem is None or self._listener is None:
            return
        words, self.problem = self.problem, None
        if words not in self._told:
            self._told.add(words)
            self._listener(words)
