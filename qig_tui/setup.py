"""How a dashboard was started: what holds for all its screens. Imports next to nothing: the command line needs it."""

from typing import NamedTuple

FRAME_S = 0.2
"""At most five pictures a second: nobody reads faster, and a terminal is not flooded."""
REMOTE_FRAME_S = 0.5
"""Over SSH two pictures a second: a slow line carries them, and a key is not behind a queue of them."""
TAIL_BYTES = 4 << 20
"""So much of the telemetry is read before the first picture; what lies before it comes behind."""


SCREENS = {"run": "1", "basin": "2", "safety": "3", "checkpoints": "4", "compare": "5", "notes": "6", "program": "7"}
"""The screens of a run, each with its key."""


class Setup(NamedTuple):
    """How this dashboard was started."""

    read_only: bool = False
    """Nothing may be asked of a run."""
    web: bool = False
    """In somebody's browser: nothing of this machine but the run is reached from here."""
    owned: bool = False
    """This command started the trainer: leaving it asks what becomes of it."""
    frame_s: float = FRAME_S
    tail_bytes: int = TAIL_BYTES
    at: int | None = None
    """The step to open at."""
    screen: str = "run"
    """Which of `SCREENS` to open."""
    stream: str | None = None
    """Which further stream of the run to look at; None: its own."""


DEFAULT = Setup()
