"""Our themes, and which of all themes is the light or dark one beside another. Colours only; no widget, no state."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from textual.theme import Theme

from qig_tui import terminal

FAINT, RAW = "qig-faint", "qig-raw"
"""Variables of the style sheet: rules and empty bars; the line behind a smoothed one."""
_MUTED = "foreground-muted"

_DARK = Theme(
    name=terminal.DARK,
    primary="#6cb6d9",
    secondary="#d9a0e0",
    accent="#6cb6d9",
    success="#7fc48f",
    warning="#e3b15c",
    error="#f0716b",
    foreground="#d6dbe2",
    background="#0f1318",
    surface="#151a21",
    panel="#1a2029",
    dark=True,
)
_LIGHT = Theme(
    name=terminal.LIGHT,
    primary="#1e6d95",
    secondary="#8a3f94",
    accent="#1e6d95",
    success="#27753a",
    warning="#8a5808",
    error="#b8312c",
    foreground="#1e2429",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#eae7df",
    dark=False,
    variables={_MUTED: "#1e2429 68%", FAINT: "#1e2429 31%", RAW: "#1e6d95 45%"},
)
# Blue, amber and vermilion after Okabe and Ito (2008), lightened until each can be read. Dark enough for a light
# background amber and vermilion are one brown to many eyes: there the third is their reddish purple.
_SAFE = replace(
    _DARK,
    name=terminal.SAFE,
    primary="#b9c4d0",
    secondary="#cc79a7",
    accent="#b9c4d0",
    success="#4aa3e0",
    warning="#f5d547",
    error="#e0620d",
)
_SAFE_LIGHT = replace(
    _LIGHT,
    name=terminal.SAFE_LIGHT,
    primary="#3c4650",
    secondary="#5b4a9e",
    accent="#3c4650",
    success="#0067a8",
    warning="#7c5f00",
    error="#a3004f",
    variables={**_LIGHT.variables, RAW: "#3c4650 40%"},
)
_CONTRAST = Theme(
    name=terminal.CONTRAST,
    primary="#7fd4ff",
    secondary="#ffb0ff",
    accent="#7fd4ff",
    success="#6dff8f",
    warning="#ffd24a",
    error="#ff9a94",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#101010",
    dark=True,
    variables={_MUTED: "#ffffff 80%", FAINT: "#ffffff 42%", RAW: "#7fd4ff 55%"},
)
_CONTRAST_LIGHT = Theme(
    name=terminal.CONTRAST_LIGHT,
    primary="#00446b",
    secondary="#6a0078",
    accent="#00446b",
    success="#00501a",
    warning="#5c3a00",
    error="#8a0000",
    foreground="#000000",
    background="#ffffff",
    surface="#ffffff",
    panel="#f2f2f2",
    dark=False,
    variables={_MUTED: "#000000 74%", FAINT: "#000000 50%", RAW: "#00446b 60%"},
)
# The terminal's own colours on its own background, the eight that every palette keeps apart from it; dim and selected
# are attributes, for no grey among sixteen colours is one on every terminal.
_ANSI = Theme(
    name=terminal.ANSI,
    primary="ansi_cyan",
    secondary="ansi_magenta",
    accent="ansi_cyan",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    ansi=True,
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "surface": "ansi_default",
        "panel": "ansi_default",
        "border": "ansi_cyan",
        "border-blurred": "ansi_default",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "bold reverse",
        "block-cursor-blurred-text-style": "reverse",
        "scrollbar": "ansi_cyan",
        "scrollbar-hover": "ansi_cyan",
        "scrollbar-active": "ansi_cyan",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_cyan",
        "input-selection-foreground": "ansi_black",
        "screen-selection-background": "ansi_cyan",
        "screen-selection-foreground": "ansi_black",
        FAINT: "ansi_default",
        RAW: "ansi_default",
    },
)


OURS = (_DARK, _LIGHT, _SAFE, _SAFE_LIGHT, _CONTRAST, _CONTRAST_LIGHT, _ANSI)

_OTHER_NAMES = {
    terminal.SAFE: terminal.SAFE_LIGHT,
    terminal.CONTRAST: terminal.CONTRAST_LIGHT,
    "rose-pine": "rose-pine-dawn",
    "catppuccin-mocha": "catppuccin-latte",
}
_BACK = {light: dark for dark, light in _OTHER_NAMES.items()}


def variables(made: Mapping[str, str]) -> dict[str, str]:
    """The variables of a theme with those of ours that it does not name itself."""
    return {FAINT: f"{made['foreground']} 28%", RAW: f"{made['primary']} 38%", **made}


def counterpart(theme: Theme, known: Collection[str]) -> str | None:
    """The light theme beside a dark one, and the other way round; None for one without a background of its own."""
    if theme.ansi:
        return None
    name = theme.name
    ends = ("-dark", "-light") if theme.dark else ("-light", "-dark")
    other = _OTHER_NAMES.get(name) or _BACK.get(name) or (name.removesuffix(ends[0]) + ends[1])
    return other if other in known and other != name else terminal.LIGHT if theme.dark else terminal.DARK


def named(name: str, known: Collection[str]) -> str:
    """The theme that is meant by a name or by a short one.

    Raises:
        ValueError: there is none of that name; names the nearest.
    """
    meant = terminal.SHORT.get(name, name)
    if meant in known:
        return meant
    import difflib

    names = [terminal.AUTO, *terminal.SHORT, *sorted(known)]
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    nearest = f"do you mean {near[0]!r}? " if near else ""
    raise ValueError(f"there is no theme {name[:60]!r}: {nearest}there are {', '.join(names)}")
