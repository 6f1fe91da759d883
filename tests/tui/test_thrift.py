import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_tui.thrift import Thrift

WIDTH, HEIGHT = 24, 5
STYLES = ["", "1", "31", "38;2;1;2;3", "38;2;1;2;3;48;2;9;9;9", "1;4;38;5;200;48;2;9;9;9", "48;5;17", "2;97;104", "7"]
TEXTS = ["a", "   ", "step 18 240", "⣀⠤⠔⠒", "●▲✖ ─", "日本", "x日y", "é", "e\u0301b", "Φ κ", "👍", "0123456789"]


def frame(pieces, cursor=(0, 0)):
    """As Textual writes one: a move, text in its style, a reset."""
    out = []
    for y, x, text, style in pieces:
        out.append(f"\x1b[{y + 1};{x + 1}H")
        out.append(f"\x1b[{style}m{text}\x1b[0m" if style else text)
        out.append("\n" if y % 2 else "")
    return "".join(out) + f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H"


class Terminal:
    def __init__(self):
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self.stream = pyte.Stream(self.screen)
        self.stream.feed("\x1b[?7l")

    def feed(self, data):
        # A driver's terminal is raw: a line feed there moves down and nothing else.
        self.stream.feed(data)

    @property
    def cells(self):
        return [[self.screen.buffer[y][x] for x in range(WIDTH)] for y in range(HEIGHT)]


pieces = st.lists(
    st.tuples(st.integers(0, HEIGHT - 2), st.integers(0, WIDTH - 12), st.sampled_from(TEXTS), st.sampled_from(STYLES)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=6))
def test_the_terminal_shows_the_same_whatever_was_left_out(frames):
    plain, thrifty, thrift = Terminal(), Terminal(), Thrift()
    for each in frames:
        data = frame(each)
        plain.feed(data)
        thrifty.feed(thrift.encode(data))
        assert thrifty.cells == plain.cells
        assert (thrifty.screen.cursor.y, thrifty.screen.cursor.x) == (plain.screen.cursor.y, plain.screen.cursor.x)


def test_what_stands_already_is_not_sent_again():
    thrift = Thrift()
    line = [(1, 0, "step 18 240 / 40 000", "38;2;1;2;3;48;2;9;9;9")]
    first = thrift.encode(frame(line))
    assert "step 18 240 / 40 000" in first
    assert thrift.encode(frame(line)) == ""
    assert thrift.encode(frame(line, cursor=(2, 3))) == "\x1b[3;4H"
    assert thrift.encode(frame(line)) == "\x1b[1;1H"
    changed = thrift.encode(frame([(1, 0, "step 18 241 / 40 000", "38;2;1;2;3;48;2;9;9;9")]))
    assert changed == "\x1b[2;11H\x1b[38;2;1;2;3;48;2;9;9;9m1\x1b[1;1H\x1b[0m"


def test_only_the_colour_that_is_another_is_sent():
    thrift = Thrift()
    sent = thrift.encode(frame([(0, 0, "ab", "38;2;1;2;3;48;2;9;9;9"), (0, 2, "cd", "38;2;4;5;6;48;2;9;9;9")]))
    assert sent == "\x1b[1;1H\x1b[38;2;1;2;3;48;2;9;9;9mab\x1b[38;2;4;5;6mcd\x1b[1;1H\x1b[0m"


@pytest.mark.parametrize(
    "data",
    [
        "\x1b[?2026h",
        "\x1b[?2026l",
        "\x1b[?25l",
        "\x1b]52;c;aGk=\x07",
        "\x1b]22;pointer\x1b\\",
        "\x07",
        "\x1b[>1u",
        "\x1b[<u",
    ],
)
def test_what_changes_no_cell_passes_and_nothing_is_forgotten(data):
    thrift = Thrift()
    thrift.encode(frame([(0, 0, "abc", "1")]))
    assert thrift.encode(data) == data
    assert "abc" not in thrift.encode(frame([(0, 0, "abc", "1")]))


@pytest.mark.parametrize("data", ["\x1b[?1049h", "\x1b[2J", "abc", "\x1b[5A", "\x1b[1;1Habc\x1b[K", "\x1b[1;1H\tabc"])
def test_what_may_change_any_cell_passes_and_all_is_sent_anew(data):
    thrift = Thrift()
    thrift.encode(frame([(0, 0, "abc", "1")]))
    assert thrift.encode(data) == data
    assert "abc" in thrift.encode(frame([(0, 0, "abc", "1")]))


def test_after_forgetting_all_is_sent():
    thrift = Thrift()
    thrift.encode(frame([(0, 0, "abc", "1")]))
    thrift.forget()
    assert "abc" in thrift.encode(frame([(0, 0, "abc", "1")]))
