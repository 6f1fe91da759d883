"""Colours: readable, told apart by whoever sees fewer, none where none are wanted; in real terminals."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import numpy as np
import pyte
import pytest
from rich.color import ColorSystem
from terminal import Terminal
from textual.theme import Theme

from qig_tui import terminal, themes
from qig_tui.app import QigApp
from qig_tui.widgets.lines import Lines
from tests.tui.runs import full_run, set_condition
from tests.tui.screens import opened, until

COLOURED = [theme for theme in themes.OURS if not theme.ansi]
READ = ("text", "strong", "dim", "accent", "cursor", "ok", "warning", "critical")
DRAWN = ("faint", "raw")

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
SEEN_AS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all colours": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: Sequence[int]) -> np.ndarray:
    share = np.array(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """WCAG 2: 1 is the same lightness, 21 is black on white."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: np.ndarray) -> np.ndarray:
    """CIE 1976, of linear RGB."""
    share = TO_XYZ @ np.clip(colour, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


class Grounds(QigApp):
    """Lines on each of the backgrounds that lines stand on."""

    CSS_PATH = Path(sys.modules[QigApp.__module__].__file__ or "").with_name("app.tcss")
    CSS = "#background { background: $background } #surface { background: $surface } #panel { background: $panel }"

    def compose(self) -> Iterator[Lines]:
        class Blank(Lines):
            def lines(self, width, height):
                return []

        for name in ("background", "surface", "panel"):
            yield Blank(id=name)

    def on_mount(self) -> None:
        """No screen of a run."""


async def test_every_tone_can_be_read_on_every_background():
    assert {*READ, *DRAWN} == {*Lines.TONES}
    app = Grounds(Path(), is_run=False)
    async with app.run_test() as pilot:
        for theme in COLOURED:
            app.theme = theme.name
            await until(
                pilot, lambda: app.query(Lines).first().styles.background.hex == app.current_theme.background.upper()
            )
            text, drawn = (7.0, 3.0) if "contrast" in theme.name else (4.5, 1.8)
            for lines in app.query(Lines):
                for tones, least in ((READ, text), (DRAWN, drawn)):
                    for tone in tones:
                        style = lines.tone(tone)
                        pair = [style.color, style.bgcolor]
                        found = contrast(*[colour.triplet for colour in pair])
                        assert found >= least, f"{theme.name}: {tone} on {lines.id}: {found:.2f}"
                        # 256 colours have few dark ones.
                        coarse = [colour.downgrade(ColorSystem.EIGHT_BIT).get_truecolor() for colour in pair]
                        assert contrast(*coarse) >= (1.3 if tone in DRAWN else 3.0), (theme.name, tone)


def states(theme: Theme) -> list[list[int]]:
    return [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (theme.success, theme.warning, theme.error)]


@pytest.mark.parametrize("eyes", SEEN_AS)
@pytest.mark.parametrize("name", [terminal.SAFE, terminal.SAFE_LIGHT])
def test_the_safe_themes_tell_the_states_apart_for_everybody(name, eyes):
    theme = next(theme for theme in themes.OURS if theme.name == name)
    seen = [lab(np.array(SEEN_AS[eyes]) @ linear(colour)) for colour in states(theme)]
    # 10 is what one sees at a glance; the usual green and red come down to 13 and less.
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 25


def test_the_names_that_the_command_line_knows_are_the_themes():
    assert tuple(theme.name for theme in themes.OURS) == terminal.THEMES


def test_light_and_dark_lead_to_each_other():
    app = QigApp(Path(), is_run=False)
    known = app.available_themes
    for theme in known.values():
        other = themes.counterpart(theme, known)
        if theme.ansi:
            assert other is None
            continue
        assert known[other].dark != theme.dark
        if theme in themes.OURS:
            assert themes.counterpart(known[other], known) == theme.name
    assert themes.counterpart(known["solarized-dark"], known) == "solarized-light"


@pytest.mark.parametrize(
    ("value", "light"),
    [
        *[("15;0", False), ("0;15", True), ("0;default;15", True), ("0;7", True), ("15;8", False), ("0;11", True)],
        *[("", False), ("15;default", False), ("7", True), ("x", False)],
    ],
)
def test_the_background_is_read_from_colorfgbg_as_vim_does(value, light):
    assert terminal.is_light({"COLORFGBG": value}) is light


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True),
        ({"TERM": "vt100"}, False),
        ({"TERM": "vt100", "COLORTERM": "truecolor"}, True),
        ({"TERM": "linux"}, True),
        ({"TERM": "nobody-knows-it"}, True),
        ({}, True),
    ],
)
def test_a_terminal_has_colours_unless_it_says_otherwise(environ, coloured):
    # In a process each: curses knows one terminal in its life.
    code = f"from qig_tui.terminal import has_colours; print(has_colours({environ!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stdout.strip() == str(coloured)


async def test_another_theme_gives_every_tone_its_colour(writer):
    async with opened(writer.run) as (app, pilot):
        await pilot.press("t")
        await until(pilot, lambda: not app.current_theme.dark)
        for lines in app.screen.query(Lines):
            if lines.region:
                # What is drawn, not only what would be.
                styles = [s.style for y in range(lines.size.height) for s in lines.render_line(y) if s.text.strip()]
                assert all(contrast(s.color.triplet, s.bgcolor.triplet) >= 1.6 for s in styles), lines


SGR = re.compile(r"\x1b\[([0-9;]*)m")
HERE = Path(themes.__file__).parents[1]


@contextmanager
def shown(folder: Path, *arguments: str, **environ: str | None) -> Iterator[Terminal]:
    """qig-tui on a run in a terminal with this environment; None takes a variable out of it."""
    gone = [word for name, value in environ.items() if value is None for word in ("-u", name)]
    kept = {name: value for name, value in environ.items() if value is not None}
    kept |= {"QIG_DASHBOARD_STATE": str(folder / "state.json"), "PYTHONPATH": str(HERE)}
    argv = ["/usr/bin/env", *gone, sys.executable, "-m", "qig_tui.cli", str(folder / "run1"), *arguments]
    with Terminal(argv, size=(100, 30), env=kept) as screen:
        yield screen


def sent(screen: Terminal) -> str:
    return b"".join(data for _, data in screen.pieces).decode("utf-8", "replace")


def cells(screen: Terminal) -> list[pyte.screens.Char]:
    """Every cell with text in it."""
    columns, rows = 100, 30
    drawn = pyte.Screen(columns, rows)
    pyte.Stream(drawn).feed(sent(screen))
    return [drawn.buffer[y][x] for y in range(rows) for x in range(columns) if drawn.buffer[y][x].data.strip()]


def colours(text: str) -> set[str]:
    """Every code in every SGR sequence that sets a colour."""
    codes = {code for found in SGR.findall(text) for code in found.split(";") if code}
    return {c for c in codes if c in ("38", "48") or 30 <= int(c) <= 37 or 40 <= int(c) <= 47 or 90 <= int(c) <= 107}


@pytest.fixture
def run(tmp_path):
    """An ended run with an alarm."""
    with full_run(tmp_path) as writer:
        set_condition(writer, "critical", id="drift", value=0.9)
    return tmp_path


def test_without_colours_none_is_sent_and_a_state_is_a_mark_and_a_word(run):
    with shown(run, NO_COLOR="1") as screen:
        screen.wait(lambda text: "SAFETY" in text and "■ EXITED" in text and "✖ 1 critical" in text)
        screen.send("?")
        screen.wait("Commands to this run")
        screen.send("q")
        screen.wait(lambda text: "Commands to this run" not in text)
        screen.send("r")
        screen.wait("verified: ")
        assert colours(sent(screen)) == set()
        # The row under the cursor, and the button with the focus.
        assert any(cell.reverse for cell in cells(screen))


def test_a_terminal_without_colours_is_sent_none(run):
    with shown(run, TERM="vt100", COLORTERM=None) as screen:
        screen.wait("SAFETY")
        screen.wait("■ EXITED")
        assert colours(sent(screen)) == set()


def test_sixteen_colours_are_the_terminals_own_and_never_hide_a_text(run):
    with shown(run, TERM="linux", COLORTERM=None) as screen:
        screen.wait("SAFETY")
        screen.wait("EXITED")
        used = colours(sent(screen))
        assert used, "no colour at all"
        assert used <= {str(code) for code in (*range(31, 38), *range(41, 48))}, (
            "a colour that not every palette keeps apart"
        )
        assert not [c for c in cells(screen) if c.fg == c.bg and c.fg != "default"]


def test_a_terminal_that_cannot_place_text_is_refused_with_what_to_do(run):
    with shown(run, TERM="dumb") as screen:
        screen.wait(lambda text: "--once prints a snapshot" in text.replace("\n", ""))
        assert "'dumb'" in screen.text
        assert screen.ended(20.0) == 2


def test_a_terminal_that_nobody_knows_is_drawn_on(run):
    with shown(run, TERM="nobody-knows-it", COLORTERM="truecolor", COLORFGBG="0;15") as screen:
        screen.wait("SAFETY")
        assert "48;2;251;250;247" in sent(screen), "a light background gets the light theme"
        assert screen.leave() == 0


def test_a_theme_that_is_not_there_is_refused_with_the_nearest(run):
    with shown(run, "--theme", "qig-drak") as screen:
        screen.wait("do you mean 'qig-dark'?")
        assert screen.ended(20.0) == 2
