import os
import shutil
from contextlib import ExitStack, asynccontextmanager

import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.widgets import Input

from qig_tui.app import QigApp
from qig_tui.memory import Memory
from qig_tui.runs.columns import COLUMNS, Order, fitting
from qig_tui.screens.help import HelpScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.runs import RunsScreen
from qig_tui.sources.runs import RunShelf
from qig_tui.widgets.filter_bar import FilterBar
from qig_tui.widgets.runs_table import BarLine, RunsTable
from tests.tui.runs import log_steps, open_run, set_condition
from tests.tui.screens import opened, screen_text, text_of, told, until, until_shown


def ended(root, run_id, code=0, *, phi=None, state="ok", **manifest):
    """A run that has ended, with one sample."""
    with open_run(root, run_id, **({"name": run_id} | manifest)) as writer:
        set_condition(writer, state)
        if phi is not None:
            writer.telemetry.log(len(run_id), {"phi": phi, "loss": 1 - phi})
        writer.close(code)
    return writer.run


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr("qig_tui.screens.runs.LOOK_S", 0.2)


@pytest.fixture
def root(tmp_path):
    """Five runs that have ended, the last one the newest: their phi goes up and down."""
    for run_id, phi in [("r1", 0.1), ("r2", 0.9), ("r3", None), ("r4", 0.3), ("r5", 0.7)]:
        ended(tmp_path, run_id, phi=phi, state="critical" if run_id == "r2" else "ok")
    return tmp_path


def table_of(app):
    return app.screen.query_one(RunsTable)


def shown(app):
    """Ids as they stand, from the first row in sight to the last."""
    table = table_of(app)
    return [row.id for row in table.items]


def at(app):
    row = table_of(app).current
    return None if row is None else row.id


def line(app, which):
    return text_of(app.screen.query_one(f"#runs-{which}", BarLine))


async def type_filter(pilot, text):
    await pilot.press("slash")
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()


async def test_every_column_is_on_the_wide_screen(tmp_path):
    with open_run(tmp_path, "20261122-235014-1f0a9c", name="first [b]") as writer:
        set_condition(writer, "warning")
        log_steps(writer, 0, 300)
        ended(tmp_path, "20261121-000000-000000", 76, name="second", state="critical")
        async with opened(tmp_path) as (app, _):
            header, second, first = text_of(table_of(app)).splitlines()[:3]
            for label in ("run", "state", "step", "%", "Φ", "Φ trend", "κ", "drift", "loss", "alerts", "age", "id"):
                assert label in header
            for part in ("first [b]", "299", "30 %", "0.79", "▁", "62.0", "0.500", "▲ warning 1", "1f0a9c"):
                assert part in first, part
            for part in ("▸", "second", "■ EXITED 76", "✖ critical 1", "20261121-000000-000000"):
                assert part in second
            assert "2 runs · 1 alive · newest first" in line(app, "title")
            assert "? help  q quit  ⏎ open  / filter  space mark  5 compare  o sort" in line(app, "keys")


@pytest.mark.parametrize("size", [(160, 48), (120, 40), (80, 24), (40, 12), (20, 5), (1, 1)])
async def test_no_size_breaks_the_screen(root, size):
    ended(root, "wide", name="漢字" * 30)
    ended(root, "long", name="n" * 10_000)
    ended(root, "evil", name="x\x1b[31m[red]\u202e\u200d")
    ended(root, "lost").manifest.unlink()
    async with opened(root, size) as (app, pilot):
        table = table_of(app)
        assert all(strip.cell_length == size[0] for strip in app.screen._compositor.render_strips())
        assert {"\x1b", "\u202e", "\u200d"}.isdisjoint(screen_text(app))
        await pilot.press("down", "space", "o", "O", "end", "slash", "r", "enter", "escape")
        assert table.row_count == 9
        assert table.max_scroll_x == 0
        if size[0] >= 20:
            assert ("■ EXITED 0" if size[0] >= 40 else "■") in text_of(table)
            assert {"?", "q"} <= set(line(app, "keys").split())


def test_the_columns_fill_no_more_than_the_width():
    order = [column.key for column in COLUMNS]
    for width in range(200):
        columns = fitting(width)
        keys = [column.key for column, _ in columns]
        assert sum(cells for _, cells in columns) + 2 * (len(columns) - 1) <= width
        assert keys == sorted(keys, key=order.index)
        assert all(cells >= column.cells for column, cells in columns[2:])


def test_the_columns_leave_by_their_rank():
    def keys(width):
        return {column.key for column, _ in fitting(width - 4)}

    assert keys(160) == {column.key for column in COLUMNS}
    assert keys(120) == keys(160) - {"id", "share"}
    assert keys(80) == {"name", "state", "step", "phi", "alerts", "age"}
    assert keys(60) == {"name", "state", "step", "alerts"}
    assert keys(40) == {"name", "state"}


async def test_the_arrows_and_pages_move_the_cursor(tmp_path):
    for i in range(60):
        (tmp_path / f"r{i:02d}" / "checkpoints").mkdir(parents=True)
        os.utime(tmp_path / f"r{i:02d}", (i, i))
    async with opened(tmp_path, (80, 14)) as (app, pilot):
        table = table_of(app)
        body = table.size.height - 1
        assert (at(app), table.top) == ("r59", 0)
        for key, row in [
            ("down", 1),
            ("j", 2),
            ("up", 1),
            ("k", 0),
            ("up", 0),
            ("pagedown", body - 1),
            ("pagedown", 2 * (body - 1)),
            ("pageup", body - 1),
            ("end", 59),
            ("down", 59),
            ("home", 0),
        ]:
            await pilot.press(key)
            assert table.cursor_row == row, key
            assert table.top <= row < table.top + body
        assert "┃" in text_of(table)


async def test_the_wheel_scrolls_and_leaves_the_cursor(tmp_path):
    for i in range(60):
        (tmp_path / f"r{i:02d}" / "checkpoints").mkdir(parents=True)
    async with opened(tmp_path, (80, 14)) as (app, pilot):
        table = table_of(app)

        def wheel(kind):
            table.post_message(kind(table, 5, 5, 0, 0, 0, False, False, False, 5, 5))

        wheel(MouseScrollDown)
        await until(pilot, lambda: table.top == 3)
        assert table.cursor_row == 0
        app.screen._draw()
        assert table.top == 3
        wheel(MouseScrollUp)
        wheel(MouseScrollUp)
        await until(pilot, lambda: table.top == 0)


async def test_enter_opens_and_escape_comes_back_to_the_same_place(root):
    async with opened(root) as (app, pilot):
        await pilot.press("down", "down", "o", "enter")
        await until_shown(pilot, RunScreen)
        assert app.screen.run_dir.id == "r3"
        await pilot.press("escape")
        await until_shown(pilot, RunsScreen)
        assert at(app) == "r3"
        assert "run ▲" in text_of(table_of(app))


async def test_a_click_selects_and_a_double_click_opens(root):
    async with opened(root) as (app, pilot):
        await pilot.click(RunsTable, offset=(6, 3))
        assert at(app) == "r3"
        await pilot.click(RunsTable, offset=(6, 30))
        assert at(app) == "r3"
        await pilot.click(RunsTable, offset=(6, 2), times=2)
        await until_shown(pilot, RunScreen)
        assert app.screen.run_dir.id == "r4"


async def test_o_sorts_by_each_column_and_capital_o_turns_it_round(root):
    async with opened(root) as (app, pilot):
        assert shown(app) == ["r5", "r4", "r3", "r2", "r1"]
        await pilot.press("O")
        assert shown(app) == ["r1", "r2", "r3", "r4", "r5"]
        assert "oldest first" in line(app, "title")
        seen = []
        for _ in range(12):
            await pilot.press("o")
            seen.append(app.screen._order.key)
        assert seen == ["name", "state", "step", "share", "phi", "kappa", "drift", "loss", "alerts", "age", "id", ""]
        await pilot.press(*"ooooo")
        assert "Φ ▼" in text_of(table_of(app))
        assert "by Φ ▼" in line(app, "title")
        assert shown(app) == ["r2", "r5", "r4", "r1", "r3"]
        await pilot.press("O")
        assert "Φ ▲" in text_of(table_of(app))
        assert shown(app) == ["r1", "r4", "r5", "r2", "r3"]
        assert at(app) == "r5"


async def test_a_click_on_a_header_sorts_by_it(root):
    async with opened(root) as (app, pilot):
        header = text_of(table_of(app)).splitlines()[0]
        await pilot.click(RunsTable, offset=(header.index("alerts") + 1, 0))
        assert shown(app)[0] == "r2"
        await pilot.click(RunsTable, offset=(header.index("alerts") + 1, 0))
        assert shown(app)[-1] == "r2"
        await pilot.click(RunsTable, offset=(header.index("Φ trend") + 1, 0))
        await pilot.click(RunsTable, offset=(0, 0))
        assert app.screen._order == Order("alerts", turned=True)


async def test_the_order_is_remembered(root, tmp_path):
    path = tmp_path / "choices" / "state.json"
    async with screen_on(root, Memory(path)) as (app, pilot):
        await pilot.press(*"ooooo", "O")
    assert Memory(path).chosen.runs_sort == "-phi"
    async with screen_on(root, Memory(path)) as (app, pilot):
        assert shown(app) == ["r1", "r4", "r5", "r2", "r3"]
    for unknown in ("nothing", "-trend"):
        assert Order.of(unknown) == Order()


async def test_a_memory_that_cannot_be_kept_says_so_once(root):
    async with screen_on(root, Memory(root / "r1" / "run.json" / "x")) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: any("cannot be written" in note for note in told(app)))


@asynccontextmanager
async def screen_on(root, memory):
    """The screen with what a person chose before."""
    app = QigApp(root, is_run=False, memory=memory)
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: getattr(app.screen, "is_drawn", False))
        yield app, pilot


async def test_equal_and_missing_values_have_a_place(tmp_path):
    for run_id, phi in [("a", 0.5), ("b", float("nan")), ("c", None), ("d", 0.5), ("e", float("inf"))]:
        ended(tmp_path, run_id, phi=phi)
    rows = RunShelf(tmp_path).look()
    assert [row.id for row in Order("phi").sort(rows)] == ["e", "d", "a", "b", "c"]
    assert [row.id for row in Order("phi", turned=True).sort(rows)] == ["d", "a", "e", "b", "c"]
    for column in COLUMNS:
        if column.value is not None:
            assert len(Order(column.key).sort(rows)) == 5


async def test_the_filter_works_while_it_is_typed(root):
    async with opened(root) as (app, pilot):
        await pilot.press("slash", *"phi>0.5")
        assert shown(app) == ["r5", "r2"]
        assert "2 of 5 runs" in line(app, "title")
        assert "⏎ keep the filter  esc no filter" in line(app, "keys")
        await pilot.press("space", *"phi<0")
        assert shown(app) == []
        assert "no run fits the filter" in text_of(table_of(app))
        await pilot.press("backspace", "backspace", "backspace", "backspace", "backspace", "enter")
        assert shown(app) == ["r5", "r2"]
        assert table_of(app).has_focus
        assert "/ filter" in line(app, "keys")
        assert app.screen.query_one(FilterBar).display
        await pilot.press("escape")
        assert len(shown(app)) == 5
        assert not app.screen.query_one(FilterBar).display
        assert "5 runs" in line(app, "title")


async def test_a_filter_that_means_nothing_shows_every_run_and_says_why(root):
    async with opened(root) as (app, pilot):
        await type_filter(pilot, "phi>0.5")
        await type_filter(pilot, "phi>0.5 lss<2")
        assert shown(app) == ["r5", "r4", "r3", "r2", "r1"]
        assert "no run has lss; nearest is loss" in screen_text(app)
        await type_filter(pilot, "phi>0.5 loss<0.2")
        assert shown(app) == ["r2"]
        assert "nearest" not in screen_text(app)
        await pilot.press("escape")
        assert table_of(app).has_focus


async def test_a_filter_waits_for_a_metric_that_no_run_has_yet(tmp_path):
    ended(tmp_path, "a", phi=0.5)
    with open_run(tmp_path, "b") as writer:
        async with opened(tmp_path) as (app, pilot):
            await type_filter(pilot, "gary>1")
            assert "no run has gary" in screen_text(app)
            writer.telemetry.log(0, {"gary": 2.0})
            await until(pilot, lambda: shown(app) == ["b"])
            assert "no run has gary" not in screen_text(app)


async def test_space_marks_and_u_unmarks(root):
    async with opened(root) as (app, pilot):
        await pilot.press("space", "down", "space")
        assert app.screen.marked == ["r5", "r3"]
        assert at(app) == "r2"
        assert "◆ 2 marked" in line(app, "title")
        rows = text_of(table_of(app)).splitlines()
        assert [y for y, row in enumerate(rows) if "◆" in row] == [1, 3]
        await pilot.press("home", "space")
        assert app.screen.marked == ["r3"]
        await pilot.press("u")
        assert app.screen.marked == []
        assert "◆" not in screen_text(app)


async def test_marked_runs_stay_in_sight_whatever_the_filter_says(root):
    async with opened(root) as (app, pilot):
        await pilot.press("down", "space")
        await type_filter(pilot, "phi>0.8")
        assert shown(app) == ["r4", "r2"]
        assert "1 of 5 runs" in line(app, "title")
        await pilot.press("enter", "u")
        assert shown(app) == ["r2"]


async def test_a_marked_run_that_is_gone_is_marked_no_more(root):
    async with opened(root) as (app, pilot):
        await pilot.press("down", "space")
        shutil.rmtree(root / "r4")
        await until(pilot, lambda: app.screen.marked == [])
        assert at(app) == "r3"


async def test_the_cursor_comes_back_to_its_run_when_the_filter_goes(root):
    async with opened(root) as (app, pilot):
        await pilot.press("down")
        await type_filter(pilot, "phi>0.5")
        assert at(app) in ("r5", "r2")
        await pilot.press("escape")
        assert at(app) == "r4"


async def test_live_updates_keep_the_place(tmp_path):
    for i in range(40):
        (tmp_path / f"r{i:02d}" / "checkpoints").mkdir(parents=True)
        os.utime(tmp_path / f"r{i:02d}", (i, i))
    with ExitStack() as stack:
        writers = [stack.enter_context(open_run(tmp_path, f"live{i}", name=f"live {i}")) for i in range(3)]
        for i, writer in enumerate(writers):
            writer.telemetry.log(0, {"phi": 0.1 * (i + 1)})
        async with opened(tmp_path, (160, 14)) as (app, pilot):
            table = table_of(app)
            await pilot.press(*"ooooo", "home", "down", "space")
            await type_filter(pilot, "phi>0 OR id~r")
            await pilot.press("enter", "home", "down")
            assert shown(app)[:3] == ["live2", "live1", "live0"]
            assert (at(app), table.top) == ("live1", 0)
            writers[0].telemetry.log(1, {"phi": 0.9})
            await until(pilot, lambda: shown(app)[:3] == ["live0", "live2", "live1"])
            assert (at(app), table.cursor_row, table.top) == ("live1", 2, 0)
            assert app.screen.marked == ["live1"]
            assert "by Φ ▼" in line(app, "title")

            await pilot.press("end", "up", "up")
            here, on_screen = at(app), table.cursor_row - table.top
            new = stack.enter_context(open_run(tmp_path, "new", name="new"))
            new.telemetry.log(0, {"phi": 1.0})
            await until(pilot, lambda: shown(app)[0] == "new")
            assert (at(app), table.cursor_row - table.top) == (here, on_screen)
            assert app.screen.query_one(FilterBar).text == "phi>0 OR id~r"


async def test_a_wheeled_view_stays_where_it_is_when_a_run_appears(tmp_path):
    for i in range(40):
        (tmp_path / f"r{i:02d}" / "checkpoints").mkdir(parents=True)
        os.utime(tmp_path / f"r{i:02d}", (i, i))
    async with opened(tmp_path, (80, 14)) as (app, pilot):
        table = table_of(app)
        table.scroll_rows(20)
        top = shown(app)[table.top]
        ended(tmp_path, "new")
        await until(pilot, lambda: shown(app)[0] == "new")
        assert shown(app)[table.top] == top
        assert at(app) == "r39"


async def test_a_new_run_at_the_top_is_in_sight(root):
    async with opened(root) as (app, pilot):
        with open_run(root, "r6"):
            await until(pilot, lambda: shown(app)[0] == "r6")
            assert (at(app), table_of(app).top) == ("r5", 0)


async def test_what_is_no_readable_run_says_why_beside_the_keys(root):
    ended(root, "s1").manifest.write_text("{}")
    ended(root, "s2").manifest.unlink()
    torn = ended(root, "s3", phi=0.5)
    torn.telemetry().write_bytes(torn.telemetry().read_bytes() + b"{")
    os.symlink("loop", root / "loop")
    async with opened(root, (120, 40)) as (app, pilot):
        said = {}
        for _ in range(table_of(app).row_count):
            said[at(app)] = line(app, "keys")
            await pilot.press("down")
        assert "✖ 'run.json' is not a readable" in said["s1"]
        assert "✖ no run: there is no run.json beside" in said["s2"]
        assert "▲ telemetry.jsonl: its last line is torn" in said["s3"]
        assert "✖ run.json cannot be read: Too many levels" in said["loop"]
        assert "✖" not in said["r5"]
        assert all({"?", "q"} <= set(keys.split()) for keys in said.values())
        assert screen_text(app).count("✖ UNREADABLE") == 2
        assert "– no run" in screen_text(app)
        await type_filter(pilot, "state:unreadable,norun")
        assert sorted(shown(app)) == ["loop", "s1", "s2"]
        await pilot.press("enter", "home", "enter")
        await until(pilot, lambda: any("run.json" in note for note in told(app)))


async def test_a_folder_without_a_run_says_so_and_shows_the_first_one(tmp_path):
    root = tmp_path / "runs"
    async with opened(root, (120, 40)) as (app, pilot):
        assert "the folder does not exist; it is looked for every second" in screen_text(app)
        await pilot.press("enter", "space", "o", "end", "down", "u")
        root.mkdir()
        await until(pilot, lambda: "no run yet; one that begins here appears" in screen_text(app))
        ended(root, "a")
        await until(pilot, lambda: shown(app) == ["a"])
        assert at(app) == "a"


async def test_a_folder_that_vanishes_while_it_is_watched_is_found_again(root, tmp_path):
    inner = tmp_path / "inner"
    for run_id in "abc":
        ended(inner, run_id)
    async with opened(inner) as (app, pilot):
        await pilot.press("down", "space")
        os.rename(inner, tmp_path / "away")
        await until(pilot, lambda: "the folder does not exist; it is looked for" in screen_text(app))
        assert "✖ does not exist" in line(app, "title")
        os.rename(tmp_path / "away", inner)
        await until(pilot, lambda: shown(app) == ["c", "b", "a"])
        assert at(app) == "a"
        assert app.screen.marked == ["b"]


async def test_the_first_rows_are_there_before_the_last_are_read(root, monkeypatch):
    monkeypatch.setattr("qig_tui.sources.runs._REPORT_S", 0.0)
    titles = []
    draw = RunsScreen._draw_title

    def drawn(screen):
        draw(screen)
        titles.append((text_of(screen.query_one("#runs-title", BarLine)), screen.query_one(RunsTable).row_count))

    monkeypatch.setattr(RunsScreen, "_draw_title", drawn)
    async with opened(root) as (app, _):
        assert any("2 runs · reading 2 of 5" in title and count == 2 for title, count in titles)
        assert at(app) == "r5"
        assert "reading" not in line(app, "title")


async def test_the_screen_rests_while_a_run_stands_over_it(root):
    async with opened(root) as (app, pilot):
        screen = app.screen
        await pilot.press("enter")
        await until_shown(pilot, RunScreen)
        assert not screen._awake.is_set()
        ended(root, "r6")
        await pilot.press("escape")
        await until_shown(pilot, RunsScreen)
        await until(pilot, lambda: shown(app)[0] == "r6")


async def test_help_and_palette_name_every_key(root):
    async with opened(root) as (app, pilot):
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Open", "Filter", "Sort", "Reverse", "Mark", "Unmark", "No filter"} <= titles
        await pilot.press("question_mark")
        await until_shown(pilot, HelpScreen)
        said = ("The run above", "A screenful down", "The last run", "Open the run under", "Sort by the next", "Unmark")
        await until(pilot, lambda: all(words in screen_text(app) for words in said))


async def test_what_is_read_while_the_screen_closes_is_dropped(root):
    async with opened(root) as (app, _):
        screen = app.screen
    screen._take([], None)
