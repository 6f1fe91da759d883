"""Nothing that lies in a run directory breaks the dashboard: the corpus, in the real app and printed."""

import json
import os
from collections.abc import Iterable

import pytest
from rich.cells import cell_len

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.reader import read_document
from qig_core.rundir.schema import Event, Manifest, Sample
from qig_tui.app import QigApp
from qig_tui.cli import main
from qig_tui.journal import condition_of, sentence
from qig_tui.once import render
from qig_tui.picture import RunPicture
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from tests.tui.hostile import EVIL, HEAVY, REFUSED, corpus
from tests.tui.screens import opened, until

SIZES = ((160, 48), (80, 24), (40, 12))
KEYS = (*"slyy", "plus", "plus", "minus", "left", "x", "right", *"mMnNgggv0l")
"""They change the view."""
ASIDE = (["question_mark"], ["a"], ["r"], ["o"], ["f", "x"], ["slash", "x"], ["down", "down", "enter"])
"""They open something, which escape closes."""
SCREENS = {"2": "doOinv", "3": ["tab", "down", "v", "tab"], "4": ["down", "m", "o"], "5": ["d", "tab", "n"], "6": "T"}
PROGRAM = {"7": ["down", "tab", "down", "tab", "pagedown", "right_parenthesis", "left_parenthesis"]}
"""Of the runs that have a program: at any size."""
"""The other screens of a run, and keys of theirs."""
TIME = ("left_square_bracket", "home", "left_curly_bracket", "end")
PLAIN = ("files-", "manifest-", "sessions-", "heartbeat-", "unreadable")
"""Evil before anything is drawn: shown at one size, which takes turns. Others at all, and all keys at one of them."""
ASKED = ("text-markup", "text-ansi", "text-bidi", "text-cjk", "text-long", "text-empty", "checkpoints-odd")
"""Where what a key opens, or another theme, shows more of what is evil."""
GROUPS = 8
INVISIBLE = {
    *range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)
}  # fmt: skip
"""What would move the cursor, change the colour or turn the direction."""


def names(group: int) -> list[str]:
    """Every so many-th of the corpus: the groups weigh about the same."""
    return list(EVIL)[group::GROUPS]


def checked(app: QigApp) -> str:
    """What the screen shows, after a look at each of its cells."""
    rows = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    assert len(rows) == app.size.height
    for row in rows:
        assert cell_len(row) == app.size.width, ascii(row)
        assert not INVISIBLE & set(map(ord, row)), ascii(row)
    return "\n".join(rows)


async def pressed(app, pilot, keys: Iterable[str]) -> str:
    """The screen after keys that come as fast as a terminal can send them."""
    for key in keys:
        app.simulate_key(key)
    await pilot.pause()
    # A dialog that a key has opened may not be laid out yet on a busy machine.
    await until(pilot, lambda: app.screen._compositor.size == app.size or is_broken(app))
    return checked(app)


def is_broken(app) -> bool:
    """Whether a handler raised: the app is about to end, and nothing more will come true."""
    return app._exception is not None


def hash_of(name: str) -> int:
    """Which of several takes its turn with a run: the same one each time."""
    return sum(os.fsencode(name))


async def look_around(app, pilot, screen, name, sizes):
    """Every key that changes the view, at each size; where the text is evil, what others open as well."""
    for index, size in enumerate(sizes):
        if app.size != size:
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size or is_broken(app))
        checked(app)
        if index:
            await pressed(app, pilot, ["l", "plus", "m", "0", "l"])
            continue
        await pressed(app, pilot, KEYS)
        await pressed(app, pilot, ["space", "l", "plus", "0", "l", "space"])
        # At every size all of them; else one for every other run.
        turn = list(SCREENS)[hash_of(name) // 2 % len(SCREENS)] if hash_of(name) % 2 else ""
        screens = SCREENS if len(sizes) > 1 else turn
        for number in [*screens, *(PROGRAM if name.startswith(("programs-", *ASKED)) else ())]:
            own = (SCREENS | PROGRAM)[number]
            await pressed(app, pilot, [number, *own, *TIME])
            await pressed(app, pilot, ["escape" if number == "5" else "1"])
            await until(pilot, lambda: app.screen is screen or is_broken(app))
            assert app.screen is screen, number
        await pressed(app, pilot, ["end"])
        for keys in ASIDE if name.startswith(ASKED) and not index else ():
            await pressed(app, pilot, keys)
            for _ in range(4):
                if app.screen is not screen or app.focused is not None:
                    await pressed(app, pilot, ["escape"])
            assert app.screen is screen, keys
    if name.startswith(ASKED):
        await pressed(app, pilot, "t")


@pytest.mark.parametrize("at_every_size", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("group", range(GROUPS))
async def test_every_run_is_shown_or_refused_in_a_sentence(tmp_path, group, at_every_size):
    runs = corpus(tmp_path / "runs", names(group))
    (tmp_path / "none").mkdir()
    app = QigApp(tmp_path / "none", is_run=False, setup=Setup(read_only=True))
    async with app.run_test(size=SIZES[group % len(SIZES)]) as pilot:
        await until(pilot, lambda: getattr(app.screen, "is_drawn", False))
        for path in runs:
            try:
                await show(app, pilot, path, len(SIZES) if at_every_size else 1)
            except BaseException as error:
                error.add_note(f"of {path.name!a}")
                raise


async def show(app, pilot, path, most_sizes):
    if path.name in REFUSED:
        with pytest.raises(RunFormatError) as refusal:
            RunScreen(RunDir(path))
        assert len(str(refusal.value)) < 1000
        return
    screen = RunScreen(RunDir(path))
    await app.push_screen(screen)
    await until(pilot, lambda: screen.is_drawn or is_broken(app))
    # Beginning with the size that the one before ended with: which that is takes turns.
    is_brief = path.name in HEAVY or path.name.startswith(PLAIN)
    sizes = [app.size, *(size for size in SIZES if size != app.size)]
    await look_around(app, pilot, screen, path.name, sizes[: 1 if is_brief else most_sizes])
    assert app.screen is screen
    app.pop_screen()
    await until(pilot, lambda: app.screen is not screen or is_broken(app))


async def test_a_name_with_markup_stands_there_as_it_is(tmp_path):
    (path,) = corpus(tmp_path, ["text-markup"])
    async with opened(RunDir(path)) as (app, pilot):
        await until(pilot, lambda: "[bold red]x[/]" in checked(app))
        shown = checked(app)
    assert shown.startswith(" [bold red]x[/] [link=")
    assert shown.upper().count("[BOLD RED]X[/]") > 5


async def test_the_list_of_runs_shows_the_whole_corpus(tmp_path):
    listed = corpus(tmp_path, EVIL.keys() - HEAVY)
    async with opened(tmp_path) as (app, pilot):
        assert f"{len(listed)} runs" in checked(app)
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size or is_broken(app))
            for keys in ([], ["pagedown"] * 3, ["end"], ["o", "O", "space", "space", "u"], ["pageup"] * 4, ["home"]):
                await pressed(app, pilot, keys)
        await pressed(app, pilot, ["slash", *"phi"])
        await pressed(app, pilot, ["escape", "escape", "question_mark"])
        await pressed(app, pilot, ["escape"])


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_run_is_printed_or_refused_in_a_sentence(tmp_path, capsys, monkeypatch, group):
    monkeypatch.setattr("qig_tui.once.WATCH_S", 0.05)
    for path in corpus(tmp_path, names(group)):
        for as_json in (False, True):
            code = main([str(path), "--once", *["--json"] * as_json])
            said = capsys.readouterr()
            assert (code == 2) == (path.name in REFUSED), ascii((path.name, said.err))
            assert len(said.err.splitlines()) == (code == 2), ascii(path.name)
            assert not (said.out == "") ^ (code == 2), ascii(path.name)
            for line in (said.out + said.err).splitlines():
                assert not INVISIBLE & set(map(ord, line)), ascii(path.name)
            if as_json and code != 2:
                strictly(said.out)


def strictly(text: str) -> dict:
    """JSON without NaN, and text that every encoding of Unicode can hold."""

    def refuse(constant):
        raise AssertionError(constant)

    text.encode()
    return json.loads(text, parse_constant=refuse)


def test_what_is_evil_only_while_a_run_is_alive_is_told_all_the_same():
    picture = RunPicture(Manifest(id="a", total_steps=100))
    picture.liveness = Liveness(Word.LIVE)
    picture.history.add([Sample(0, 0, -1.7e308, m={"phi": 0.5}), Sample(1, 1, 1.7e308, m={"phi": 0.5})])
    assert strictly(render(picture, as_json=True))["eta_s"] is None
    assert "ETA" not in render(picture, as_json=False)


@pytest.mark.parametrize(
    ("limit", "value", "bounds"),
    [
        (1e308, -1e308, (-1e308, None)),
        (float("inf"), 1.0, None),
        (float("-inf"), 1.0, None),
        (float("inf"), float("inf"), (None, None)),
        (5e-324, 1e308, (0.0, 1.0)),
    ],
)
def test_a_margin_is_a_share_or_not_known(limit, value, bounds):
    for side in ("<=", ">="):
        margin = condition_of({"limit": limit, "comparison": side}, 0).margin(value, bounds)
        assert margin is None or 0 <= margin <= 1


def test_a_number_beyond_float64_is_infinite():
    assert condition_of({"limit": 10**400}, 0).limit == float("inf")
    assert condition_of({"limit": -(10**400)}, 0).limit == float("-inf")


def test_an_event_of_a_hundred_thousand_fields_shows_the_first_of_them():
    data = {f"k{i}": i for i in range(100_000)}
    assert sentence(Event(0, 0.0, "odd", data=data)) == " · ".join(f"k{i} {i}" for i in range(8))


def test_a_document_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "run.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(RunFormatError, match="larger than 64 MiB"):
        read_document(path, Manifest)
