"""Lines in the colours of runs: eight that most eyes tell apart, on dark and on light. Colours only."""

from typing import ClassVar

from qig_tui.compare.places import MOST_RUNS
from qig_tui.widgets.lines import Lines


class Hued(Lines):
    """Lines that also know the colours of runs: `run0` ... `run7`, and each dim.

    Chosen so that each can be read on its background and that any two stay apart for eyes without red, green or blue
    cones. They follow whether the theme is dark, and are the terminal's own where the theme is made of its colours.
    """

    DEFAULT_CSS = """
    Hued > .lines--run0 { color: #9dc2f2; }
    Hued > .lines--run1 { color: #b09635; }
    Hued > .lines--run2 { color: #48ed9a; }
    Hued > .lines--run3 { color: #e15993; }
    Hued > .lines--run4 { color: #e3d353; }
    Hued > .lines--run5 { color: #9c85f0; }
    Hued > .lines--run6 { color: #bb785c; }
    Hued > .lines--run7 { color: #d0d3d5; }
    Hued > .lines--run0-dim { color: #9dc2f2 38%; }
    Hued > .lines--run1-dim { color: #b09635 38%; }
    Hued > .lines--run2-dim { color: #48ed9a 38%; }
    Hued > .lines--run3-dim { color: #e15993 38%; }
    Hued > .lines--run4-dim { color: #e3d353 34%; }
    Hued > .lines--run5-dim { color: #9c85f0 42%; }
    Hued > .lines--run6-dim { color: #bb785c 38%; }
    Hued > .lines--run7-dim { color: #d0d3d5 34%; }
    Hued:light > .lines--run0 { color: #2a66dd; }
    Hued:light > .lines--run1 { color: #96690a; }
    Hued:light > .lines--run2 { color: #10834d; }
    Hued:light > .lines--run3 { color: #642450; }
    Hued:light > .lines--run4 { color: #3c3009; }
    Hued:light > .lines--run5 { color: #4420d0; }
    Hued:light > .lines--run6 { color: #c03a38; }
    Hued:light > .lines--run7 { color: #636e72; }
    Hued:light > .lines--run0-dim { color: #2a66dd 42%; }
    Hued:light > .lines--run1-dim { color: #96690a 42%; }
    Hued:light > .lines--run2-dim { color: #10834d 42%; }
    Hued:light > .lines--run3-dim { color: #642450 42%; }
    Hued:light > .lines--run4-dim { color: #3c3009 42%; }
    Hued:light > .lines--run5-dim { color: #4420d0 42%; }
    Hued:light > .lines--run6-dim { color: #c03a38 42%; }
    Hued:light > .lines--run7-dim { color: #636e72 42%; }
    Hued:ansi > .lines--run0, Hued:ansi > .lines--run0-dim { color: ansi_cyan; }
    Hued:ansi > .lines--run1, Hued:ansi > .lines--run1-dim { color: ansi_yellow; }
    Hued:ansi > .lines--run2, Hued:ansi > .lines--run2-dim { color: ansi_green; }
    Hued:ansi > .lines--run3, Hued:ansi > .lines--run3-dim { color: ansi_magenta; }
    Hued:ansi > .lines--run4, Hued:ansi > .lines--run4-dim { color: ansi_default; }
    Hued:ansi > .lines--run5, Hued:ansi > .lines--run5-dim { color: ansi_blue; }
    Hued:ansi > .lines--run6, Hued:ansi > .lines--run6-dim { color: ansi_red; }
    Hued:ansi > .lines--run7, Hued:ansi > .lines--run7-dim { color: ansi_default; }
    Hued:ansi > .lines--run0-dim, Hued:ansi > .lines--run1-dim, Hued:ansi > .lines--run2-dim,
    Hued:ansi > .lines--run3-dim, Hued:ansi > .lines--run4-dim, Hued:ansi > .lines--run5-dim,
    Hued:ansi > .lines--run6-dim, Hued:ansi > .lines--run7-dim { text-style: dim; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"lines--run{place}{dim}" for place in range(MOST_RUNS) for dim in ("", "-dim")
    }

    @property
    def is_plain(self) -> bool:
        """Whether colours alone would not keep eight lines apart."""
        return self.app.no_color or self.app.current_theme.ansi
