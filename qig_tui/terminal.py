"""What the terminal can show, as its environment tells, and the names of our themes. No Textual."""

import contextlib
import re
from collections.abc import Mapping

DARK, LIGHT = "qig-dark", "qig-light"
SAFE, SAFE_LIGHT = "qig-safe", "qig-safe-light"
CONTRAST, CONTRAST_LIGHT = "qig-contrast", "qig-contrast-light"
ANSI = "qig-ansi"
THEMES = (DARK, LIGHT, SAFE, SAFE_LIGHT, CONTRAST, CONTRAST_LIGHT, ANSI)
"""Ours; Textual's stand beside them."""
SHORT = {name.removeprefix("qig-"): name for name in THEMES}
AUTO = "auto"
HUNG_UP = 128 + 1
"""Exit code where the terminal went away: that of the signal that should have said so."""
_BLIND = frozenset({"dumb", "unknown"})
_FEW = 8
"""Fewer colours than these cannot tell a state."""


def is_blind(environ: Mapping[str, str]) -> bool:
    """Whether this terminal says of itself that text has no place on it: then nothing can be drawn."""
    return environ.get("TERM", "").lower() in _BLIND


def has_colours(environ: Mapping[str, str]) -> bool:
    """Whether colours are wanted (https://no-color.org) and there are any; a terminal that nobody knows has some."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("COLORTERM") or not environ.get("TERM"):
        return True
    try:
        import curses
    except ImportError:
        # Some builds of Python have none.
        return True
    with contextlib.suppress(curses.error):
        # A process can ask for one terminal only.
        curses.setupterm(environ["TERM"], 1)
        return curses.tigetnum("colors") >= _FEW
    return True


def is_light(environ: Mapping[str, str]) -> bool:
    """Whether $COLORFGBG names a light background, as Vim reads it: 7 and all bright ones but the dark grey."""
    found = re.search(r"(?:^|;)([0-9]{1,2})$", environ.get("COLORFGBG", ""))
    return found is not None and int(found[1]) in (7, *range(9, 16))


def suiting(environ: Mapping[str, str], *, few: bool) -> str:
    """The theme for whoever asked for none. Args: few: whether there are 16 colours at most."""
    if few:
        return ANSI
    return LIGHT if is_light(environ) else DARK
