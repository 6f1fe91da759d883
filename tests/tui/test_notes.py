"""The notes: real files, real changes by others, a real editor in a real terminal."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from terminal import Terminal
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from qig_core.rundir.printable import printable
from qig_tui.markdown.files import MAX_BYTES, editor, inside, read_note, suggestions
from qig_tui.markdown.page import Document
from qig_tui.screens.notes import GUIDE, NotesScreen
from qig_tui.widgets.markdown_page import MarkdownPage
from qig_tui.widgets.notes_view import NotesView
from tests.tui.screens import opened, screen_text, told, until

NOTES = r"""# Run 7

The score is $\kappa_i = x^2$, it cost $5 and $5. <b>No HTML</b> here.
Nor is there ESC or &#x202e;.

$$
\frac{a}{b}
$$

See [more](more.md), [the web](https://example.org/x), [above](../secret.md).
"""


@asynccontextmanager
async def notes(path: Path, *, may_edit: bool = True) -> AsyncIterator[Pilot[int]]:
    """The screen of this file, as soon as it shows it."""
    runs = path.parent / "runs"
    runs.mkdir(exist_ok=True)
    async with opened(runs, size=(100, 30)) as (app, pilot):
        screen = NotesScreen(path, title="the notes", may_edit=may_edit)
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and screen.is_drawn)
        yield pilot


def page(pilot: Pilot[int]) -> MarkdownPage:
    return pilot.app.screen.query_one(MarkdownPage)


async def until_shown(pilot: Pilot[int], words: str) -> None:
    await until(pilot, lambda: words in screen_text(pilot.app))


async def click_on(pilot: Pilot[int], words: str) -> None:
    lines = screen_text(pilot.app).split("\n")
    y = next(i for i, line in enumerate(lines) if words in line)
    assert await pilot.click(offset=(lines[y].index(words) + 1, y))


async def test_a_formula_stands_in_two_dimensions_and_what_is_none_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text(NOTES.replace("ESC", "\x1b]0;stolen\x07"))
    async with notes(path) as pilot:
        text = screen_text(pilot.app)
        assert "\n     a\n     ─\n     b\n" in "\n".join(line.rstrip() for line in text.split("\n"))
        assert "The score is κᵢ = x², it cost $5 and $5. <b>No HTML</b> here. Nor is there" in text
        assert r"\x1b]0;stolen\x07 or" in text
        assert r"\u202e." in text
        assert "the web (https://example.org/x)" in text


async def test_what_another_program_writes_is_shown_and_the_place_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("".join(f"- line {i}\n" for i in range(200)))
    async with notes(path) as pilot:
        await pilot.press("pagedown", "down", "j", "k")
        top = page(pilot).scroll_offset.y
        assert top > 20
        with path.open("a") as file:
            file.write("- the last word\n")
        await until(pilot, lambda: page(pilot).virtual_size.height == 201)
        assert page(pilot).scroll_offset.y == top
        await pilot.press("end")
        await until_shown(pilot, "the last word")
        await pilot.press("home")
        await until_shown(pilot, "line 0")
        path.unlink()
        await until_shown(pilot, "there is no notes.md yet; e begins it")


async def test_another_file_is_opened_by_its_path_and_left_again(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text(NOTES)
    (tmp_path / "more.md").write_text("the other one")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "data.txt").touch()
    async with notes(path) as pilot:
        for typed, refused in (
            ("folder.md", "is not a regular"),
            ("data.txt", "is no .md"),
            ("~nobody/no.md", "there is no no.md"),
        ):
            await pilot.press("o")
            line = pilot.app.screen.query_one(Input)
            await until(pilot, lambda line=line: line.has_focus)
            line.value = typed
            await pilot.press("enter")
            await until(pilot, lambda refused=refused: any(refused in note for note in told(pilot.app)))
            await pilot.press("escape")
        await pilot.press("o", *"mor")
        await until(pilot, lambda: pilot.app.screen.query_one(Input)._suggestion == "more.md")
        await pilot.press("right", "enter")
        await until_shown(pilot, "the other one")
        assert "the notes  more.md" in screen_text(pilot.app)
        await pilot.press("backspace")
        await until_shown(pilot, "Run 7")


async def test_a_link_opens_a_file_beside_it_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.md").write_text(NOTES)
    (folder / "more.md").write_text("the other one")
    (tmp_path / "secret.md").write_text("not for you")
    asked: list[str] = []
    async with notes(folder / "notes.md") as pilot:
        monkeypatch.setattr(pilot.app, "open_url", lambda url, **_: asked.append(url))
        for words, target in (("the web", "https://example.org/x"), ("above", "../secret.md")):
            await click_on(pilot, words)
            await until(
                pilot, lambda target=target: any(f"{target} is not opened from here" in n for n in told(pilot.app))
            )
        await click_on(pilot, "more")
        await until_shown(pilot, "the other one")
    assert asked == []


async def test_where_nothing_may_be_written_the_keys_say_why(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text(NOTES)
    (tmp_path / "more.md").touch()
    async with notes(path, may_edit=False) as pilot:
        await pilot.press("e", "o")
        await click_on(pilot, "more")
        await until(pilot, lambda: len(told(pilot.app)) == 3)
        said = "\n".join(told(pilot.app))
        assert "this dashboard is read-only: notes are not written from here" in said
        assert "this dashboard is read-only: no other file is opened from here" in said
        assert "more.md is not opened from here" in said


async def test_the_guide_has_its_contents_and_a_heading_is_gone_to(tmp_path: Path) -> None:
    async with notes(tmp_path / "notes.md") as pilot:
        pilot.app.screen.query_one(NotesView).show(GUIDE)
        await until_shown(pilot, "What the numbers mean")
        await pilot.press("T")
        await until(pilot, lambda: pilot.app.screen.query_one(OptionList).has_focus)
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: screen_text(pilot.app).split("\n")[1].strip() == "κ, coupling")
        assert not pilot.app.screen.query_one(OptionList).has_class("-open")


def test_every_formula_of_the_guide_is_drawn_and_fits_a_small_terminal() -> None:
    shown = Document(GUIDE.read_text()).page(76)
    text = "\n".join("".join(span.text for span in line) for line in shown.lines)
    assert shown.width <= 76
    assert "\\" not in text
    assert "$" not in text


EDITOR = """#!/bin/sh
printf 'EDITING %s' "$2"
read answer
[ -e "$2" ] && exit 3
echo 'written with $x^2$' > "$2"
"""


def test_the_editor_has_the_terminal_and_what_it_wrote_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "an editor.sh"
    program.write_text(EDITOR)
    program.chmod(0o755)
    path = tmp_path / "notes.md"
    env = {"VISUAL": f"'{program}' --wait", "QIG_DASHBOARD_STATE": str(tmp_path / "state.json")}
    with Terminal([sys.executable, "-m", "tests.tui.notes_program", str(path)], size=(100, 24), env=env) as terminal:
        terminal.wait("there is no notes.md yet; e begins it")
        terminal.send("e")
        terminal.wait("EDITING")
        # Ctrl-C is no end of the dashboard below.
        os.kill(terminal.pid, 2)
        terminal.send("\r")
        terminal.wait(lambda text: "written with x²" in text and "esc close" in text and "EDITING" not in text)
        assert path.read_text() == "written with $x^2$\n"
        terminal.send("e")
        terminal.wait("EDITING")
        terminal.send("\r")
        terminal.wait("an editor.sh ended with code 3")
        assert terminal.leave() == 0


def test_the_editor_is_the_one_that_a_person_named() -> None:
    assert editor({"VISUAL": "code --wait", "EDITOR": "vi"}) == ["code", "--wait"]
    assert editor({"VISUAL": " ", "EDITOR": "'my ed' -x"}) == ["my ed", "-x"]
    with pytest.raises(ValueError, match=r"\$EDITOR is no command: No closing quotation"):
        editor({"EDITOR": "'vi"})
    with pytest.raises(ValueError, match="there is no editor"):
        editor({"PATH": "/nowhere"})


async def test_an_editor_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with notes(tmp_path / "notes.md") as pilot:
        for value, said in (("'vi", "$VISUAL is no command"), ("vi", "no editor can be started from here")):
            monkeypatch.setenv("VISUAL", value)
            await pilot.press("e")
            await until(pilot, lambda said=said: any(said in note for note in told(pilot.app)))


def test_what_is_no_plain_text_is_read_within_bounds_or_refused(tmp_path: Path) -> None:
    big, odd, pipe, link = (tmp_path / name for name in ("big.md", "odd.md", "pipe.md", "link.md"))
    big.write_bytes(b"a line\n" * (10 * MAX_BYTES // 7))
    odd.write_bytes(b"\xff\xfe caf\xe9\n")
    os.mkfifo(pipe)
    link.symlink_to(odd)
    note = read_note(big)
    assert note.said == "only the first 1.0 MiB of 10.0 MiB are shown"
    assert note.text.endswith("a line\n")
    assert "not all of it is UTF-8" in read_note(odd).said
    assert "�� caf�" in read_note(odd).text
    for path, why in ((pipe, "is not a regular file"), (tmp_path, "is not a regular file"), (link, "is a link")):
        assert why in read_note(path).said
        assert not read_note(path).is_there


def test_a_link_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    shown = tmp_path / "run" / "notes.md"
    shown.parent.mkdir()
    (shown.parent / "out.md").symlink_to(tmp_path / "secret.md")
    (shown.parent / "round.md").symlink_to("round.md")
    for target in (
        "%2e%2e/secret.md",
        "round.md",
        "a%00.md",
        "../secret.md",
        "/etc/x.md",
        "out.md",
        "https://x.org/a.md",
        "a.py",
        "#there",
        "sub/../../x.md",
    ):
        assert inside(target, shown) is None
    assert inside("sub/my%20a.md#there", shown) == shown.parent / "sub" / "my a.md"


def test_files_are_suggested_as_they_would_be_typed(tmp_path: Path) -> None:
    for name in ("b.md", "a/c.md", "a/b/d.md", "a/b/c/e.md", ".git/f.md", "g.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(suggestions(tmp_path)) == ["b.md", "a/c.md", "a/b/d.md"]


PIECES = st.lists(
    st.sampled_from(
        "# ~- ~> ~1. ~    ~```math\n~```python\n~```\n~$$\n~$x^2$ ~\\frac ~**a ~_b_ ~`c` ~[l](m.md) ~![p](q) ~"
        "<b> ~a &amp; ~\n~\n\n~a|b\n---|---\n~\x1b[31m~\u202e~漢字~&#27;~\\[ x \\]~\\begin{align}\n~"
        "\\end{align}\n~* * *\n".split("~")
    ),
    max_size=30,
).map("".join)


@given(st.one_of(PIECES, st.text(max_size=60)), st.integers(1, 60))
@example("> " * 500 + "deep", 20)
@example("|a\n|-", 1)
def test_whatever_stands_in_a_file_is_set_and_nothing_of_it_reaches_the_terminal(source: str, width: int) -> None:
    for line in Document(source).page(width).lines:
        for span in line:
            assert printable(span.text) == span.text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("a $x$ is 5", "a x is 5"),
        ("$x$ is 5", "x is 5"),
        ("US$5 or US$6", "US$5 or US$6"),
        ("$5-$10", "$5-$10"),
        ("US$5, $ too", "US$5, $ too"),
        ("CA$a$", "CA$a$"),
        ("$a or $ b", "$a or $ b"),
        (r"\$x\$", "$x$"),
        ("`$x^2$`", "$x^2$"),
        (r"\(x^2\) and $$y^2$$!", "x² and|    y²|!"),
        ("We have\n$$\nx^2\n$$\nhere", "We have||    x²||here"),
        ("$$ x^2 $$ (eq1)", "    x²    (eq1)"),
        (r"\[ x^2 \]", "    x²"),
        ("```math\nx^2\n```", "    x²"),
        (r"\begin{align} a &= b \\ &= c \end{align}", "    a = b|      = c"),
        ("$$\nnever closed", "$$ never closed"),
        ("1. a\n2. b\n   - c", "1. a|2. b|   ▪ c"),
        ("> a\n> b", "▌ a b"),
        ("|a|b|\n|-|-|\n|1|$x^2$|", "a  b|─────|1  x²"),
        ("```python\nx = 1\n```", "    x = 1"),
        ("one two three four", "one two three|four"),
    ],
)
def test_markdown_is_set_like_this(source: str, shown: str) -> None:
    lines = Document(source).page(16).lines
    assert "|".join("".join(span.text for span in line).rstrip() for line in lines) == shown
