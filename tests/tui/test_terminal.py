"""The real program in a real pseudo-terminal, read as a terminal shows it: what no pilot can see."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal import Terminal

from tests.tui.runs import full_run

SIZES = {(160, 48): "charlie", (80, 24): "charlie", (40, 12): "limits"}
"""Columns and rows, and a word that they have room for."""
PROGRAM = str(Path(sys.executable).with_name("qig-tui"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = full_run(tmp_path_factory.mktemp("runs"))
    writer.close(0)
    return writer.run.path


@contextmanager
def running(run: Path, state: Path, size: tuple[int, int]) -> Iterator[Terminal]:
    """The program as soon as it shows the run."""
    with Terminal([PROGRAM, str(run)], size=size, env={"QIG_DASHBOARD_STATE": str(state / "state.json")}) as terminal:
        terminal.wait(lambda text: "EXITED" in text and "300 read" in text)
        yield terminal


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_run_is_shown_its_keys_are_told_and_it_is_left(ended: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    with running(ended, tmp_path, size) as terminal:
        assert SIZES[size] in terminal.text.split("\n")[0]
        assert all(len(line) == size[0] for line in terminal.text.split("\n"))
        terminal.send("?")
        terminal.wait("─ Keys ─")
        terminal.send("\x1b")
        terminal.wait(lambda text: "─ Keys ─" not in text)
        assert terminal.leave() == 0


def test_another_size_is_filled_to_its_last_line_and_all_that_was_taken_is_given_back(
    ended: Path, tmp_path: Path
) -> None:
    with running(ended, tmp_path, (160, 48)) as terminal:
        for columns, rows in ((90, 30), (120, 40)):
            terminal.resize((columns, rows))
            # And nothing is left of the last line of the size before.
            terminal.wait(
                lambda text, last=rows - 1: "300 read" in text.split("\n")[last] and text.count("300 read") == 1
            )
        assert terminal.leave() == 0
        terminal.drained()
        assert taken_and_given_back(b"".join(data for _, data in terminal.pieces))


def taken_and_given_back(sent: bytes) -> bool:
    """The other screen, the mouse, brackets around what is pasted; the cursor, which is hidden by "l"."""
    modes = ((b"?1049", b"h", b"l"), (b"?1000", b"h", b"l"), (b"?2004", b"h", b"l"), (b"?25", b"l", b"h"))
    return all(0 <= sent.rfind(b"\x1b[" + mode + on) < sent.rfind(b"\x1b[" + mode + off) for mode, on, off in modes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_whoever_ends_it_from_elsewhere_gives_the_terminal_back(
    ended: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with running(ended, tmp_path, (80, 24)) as terminal:
        os.kill(terminal.pid, number)
        assert terminal.ended(20) == 128 + number
        terminal.drained()
        assert taken_and_given_back(b"".join(data for _, data in terminal.pieces))


def test_a_dashboard_whose_terminal_is_gone_ends(ended: Path, tmp_path: Path) -> None:
    with running(ended, tmp_path, (80, 24)) as terminal:
        terminal.hang_up()
        assert terminal.ended(20) == 129


def test_only_what_differs_is_sent_until_the_screen_is_to_be_drawn_anew(ended: Path, tmp_path: Path) -> None:
    with running(ended, tmp_path, (80, 24)) as terminal:
        first = len(terminal.pieces)
        terminal.send("s")
        terminal.wait("ema 10")
        assert b"charlie" not in b"".join(data for _, data in terminal.pieces[first:])
        first = len(terminal.pieces)
        terminal.send("\x0c")
        until = time.monotonic() + 20
        while b"charlie" not in b"".join(data for _, data in terminal.pieces[first:]):
            assert time.monotonic() < until, "the screen was not drawn anew"
            time.sleep(0.02)
        assert "charlie" in terminal.text
        assert terminal.leave() == 0
