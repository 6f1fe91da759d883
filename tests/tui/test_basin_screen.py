"""The basin screen, opened over real run directories."""

import ast
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest

from qig_core.geometry.simplex import fisher_rao_distance, normalise
from qig_tui.picture import RunPicture
from qig_tui.screens.basin import BasinScreen
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from qig_tui.text import number
from qig_tui.widgets.basin import BasinMovers
from qig_tui.widgets.basin_facts import BasinFacts
from qig_tui.widgets.basin_grid import BasinGrid
from qig_tui.widgets.basin_table import BasinTable
from qig_tui.widgets.basin_trail import BasinTrail
from qig_tui.widgets.sentence import Sentence
from tests.tui.runs import add_checkpoint, basin, log_steps, open_run
from tests.tui.screens import opened, text_of, told, until


@asynccontextmanager
async def opened_basin(run, size=(160, 48), **options):
    async with opened(run, size, **options) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, BasinScreen) and app.screen.is_mounted)
        yield app, pilot


async def known(app, pilot, step):
    """What takes time is known of the basin of a step."""
    await until(pilot, lambda: (view := facing(app).basin()) is not None and view.step == step)
    await until(pilot, lambda: f"step {step} " in f"{table_text(app)} ")
    await until(pilot, lambda: "steps apart" in facts(app) and f"–{step} " in f"{trail(app)} ")


def facing(app) -> RunPicture:
    return app.screen.shown


def table(app) -> BasinTable:
    return app.screen.query_one(BasinTable)


def table_text(app) -> str:
    return text_of(table(app))


def facts(app) -> str:
    return text_of(app.screen.query_one(BasinFacts))


def trail(app) -> str:
    return text_of(app.screen.query_one(BasinTrail))


def values_at(step):
    return np.asarray(normalise(np.frombuffer(basin(step / 50), "<f4").astype(np.float64)))


def distance(one, other) -> str:
    return number(float(fisher_rao_distance(values_at(one), values_at(other))))


async def go(pilot, app, *keys, to):
    """Travel by keys, and be there."""
    await pilot.press(*keys)
    await until(pilot, lambda: facing(app).moment is not None and facing(app).history.step == to)


async def test_the_table_sorts_by_key_and_header_and_the_order_is_found_again(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        assert table(app).entries == list(range(64))
        assert f"{values_at(290)[0]:.5f}" in table_text(app).splitlines()[2]
        await pilot.press("o")
        await until(pilot, lambda: "value▼" in table_text(app))
        assert table(app).entries == np.argsort(-values_at(290), kind="stable").tolist()
        await pilot.press("O")
        await until(pilot, lambda: table(app).entries[0] == int(np.argmin(values_at(290))))
        await pilot.click(BasinTable, offset=(table_text(app).splitlines()[1].index("Δ ref") + 1, 1))
        moved = np.abs(values_at(290) - values_at(0))
        await until(pilot, lambda: table(app).entries[0] == int(np.argmax(moved)))
        assert moved[table(app).entries].tolist() == sorted(moved.tolist(), reverse=True)
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        log_steps(writer, 300, 341)
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, BasinScreen))
        await known(app, pilot, 340)
        assert "35 basins, steps 0–340" in trail(app)
        moved = np.abs(values_at(340) - values_at(0))
        assert moved[table(app).entries].tolist() == sorted(moved.tolist(), reverse=True)


async def test_the_table_and_the_grid_mark_the_same_entry_and_need_no_colour(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        grid = app.screen.query_one(BasinGrid)
        await pilot.press("down", "down", "pagedown")
        await until(pilot, lambda: f"#{table(app).entry:02d} " in text_of(grid).splitlines()[0])
        assert table(app).entry > 30
        await pilot.click(BasinGrid, offset=(7 * 3 + 1, 1 + 2 * 2))
        await until(pilot, lambda: table(app).entry == 2 * 8 + 3)
        assert "▸  19" in table_text(app)
        grid.focus()
        await pilot.press("down", "left")
        await until(pilot, lambda: table(app).entry == 3 * 8 + 2)
        change = values_at(290) - values_at(0)
        shown = text_of(grid).split()
        assert f"{values_at(290)[9]:.4f}".removeprefix("0") in shown
        await pilot.press("d")
        await until(pilot, lambda: "Δ to the reference" in text_of(grid))
        rows = text_of(grid).splitlines()[1::2]
        signs = "".join(row[7 * i] for row in rows[:8] for i in range(8))
        assert signs == "".join("−" if value < 0 else "+" for value in change)


async def test_distances_are_those_of_the_recorded_basins(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        found = facts(app)
        assert "from     step 0 (birth)" in found
        assert f"distance {distance(290, 0)}" in found
        assert f"velocity {distance(290, 280)} in 10 steps" in found
        assert "drift    0.500 recorded" in found
        accelerated = next(line for line in found.splitlines() if "accel." in line)
        await go(pilot, app, "left_square_bracket", "left_square_bracket", to=297)
        await known(app, pilot, 290)
        # Then only two basins were in the picture: the third is read again.
        assert accelerated in facts(app)


async def test_a_basin_of_the_past_is_pinned_and_measured_from(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        app.screen.run_watch.go(120)
        await known(app, pilot, 120)
        await pilot.press("i")
        await until(pilot, lambda: "reference: step 120 (pinned)" in table_text(app))
        assert "distance 0 " in facts(app)
        await pilot.press("end")
        await until(pilot, lambda: f"distance {distance(290, 120)}" in facts(app))
        await until(pilot, lambda: "◆ pinned" in trail(app))
        await pilot.press("1")
        await until(pilot, lambda: "since 120" in text_of(app.screen.query_one(BasinMovers)))
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, BasinScreen))
        await until(pilot, lambda: "reference: step 120 (pinned)" in table_text(app))
        await pilot.press("I")
        await until(pilot, lambda: "step 0 (birth)" in table_text(app))
        await pilot.press("i")
        await until(pilot, lambda: "step 290 (pinned)" in table_text(app))
        await pilot.press("i")
        await until(pilot, lambda: "step 0 (birth)" in table_text(app))


async def test_a_key_goes_to_the_nearest_past_state(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        # The basins of these runs repeat: |sin(0.7 i + s / 50)| has the period 50 π.
        at = [step for step in range(0, 191, 10)]
        nearest = min(at, key=lambda step: float(fisher_rao_distance(values_at(step), values_at(290))))
        assert f"nearest  {distance(290, nearest)} step {nearest}" in facts(app)
        assert "≥ 100 steps apart" in facts(app)
        await go(pilot, app, "n", to=nearest)
        await known(app, pilot, nearest)
        assert "none ≥ 100 steps apart" in facts(app) or nearest >= 100


async def test_a_nearer_state_on_a_branch_that_was_left_is_told_and_not_gone_to(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 400)
        for step in range(200, 500):
            # Far from everything, until it comes to where the branch that was left had been.
            shift = 390 / 50 if step == 490 else 3.0 + step
            writer.telemetry.log(step, {"phi": 0.7}, basin=basin(shift) if step % 10 == 0 else None)
        async with opened_basin(writer.run) as (app, pilot):
            await known(app, pilot, 490)
            assert "↩ left branch" in facts(app)
            assert "step 390" in facts(app)
            assert "without 20 on branches it left" in trail(app)
            await pilot.press("n")
            await until(pilot, lambda: any("step 390 is nearer, but on a branch" in note for note in told(app)))
            await until(pilot, lambda: facing(app).moment is not None)


async def test_the_path_is_mapped_as_far_as_the_moment(writer):
    add_checkpoint(writer, 250)
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        assert "30 basins, steps 0–290" in trail(app)
        for part in ("PC 1", "% of the variance", "Fréchet mean", "○ birth", "✓ checkpoint", "● now", "rad"):
            assert part in trail(app)
        app.screen.run_watch.go(155)
        await known(app, pilot, 150)
        assert "16 basins, steps 0–150" in trail(app)
        assert "● step 150" in trail(app)
        # The first basin is the nearest one there.
        place = next((x, y) for y, line in enumerate(trail(app).splitlines()) if (x := line.find("◇")) >= 0)
        await pilot.click(BasinTrail, offset=place)
        await until(pilot, lambda: facing(app).history.step == 0)


async def test_what_is_copied_reads_back_as_the_basin_that_is_shown(writer):
    async with opened_basin(writer.run) as (app, pilot):
        app.screen.run_watch.go(123)
        await until(pilot, lambda: facing(app).history.step == 123)
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard.startswith("{"))
        found = json.loads(app.clipboard)
        assert (found["run"], found["step"]) == (writer.run.id, 120)
        assert np.array_equal(np.array(found["basin"], dtype=np.float64), values_at(120))
        await until(pilot, lambda: any("basin of step 120 as JSON" in note for note in told(app)))
        assert any("set-clipboard" in note for note in told(app))
        await pilot.press("Y")
        await until(pilot, lambda: app.clipboard.startswith("np.array("))
        literal = app.clipboard.removeprefix("np.array(").partition(")")[0]
        assert np.array_equal(np.array(ast.literal_eval(literal)), values_at(120))
        app.screen.run_watch.setup = Setup(web=True)
        await pilot.press("y")
        await until(pilot, lambda: any("nothing is copied" in note for note in told(app)))
        assert app.clipboard.startswith("np.array(")


async def test_where_there_is_no_basin_or_no_past_one_yet_a_sentence_says_so(tmp_path):
    with open_run(tmp_path) as writer:
        writer.telemetry.log(0, {"phi": 0.5})
        async with opened_basin(writer.run) as (app, pilot):
            await until(pilot, lambda: "has recorded no basin" in text_of(app.screen.query_one(Sentence)))
            await pilot.press("i", "n", "d", "o", "y", "v")
            assert not told(app)
            assert not app.screen.query_one(BasinTable).is_on_screen
            log_steps(writer, 1, 51)
            await known(app, pilot, 50)
            await pilot.press("n")
            await until(pilot, lambda: any("no basin was recorded 100 steps or more" in note for note in told(app)))


@pytest.mark.parametrize(("entries", "grid"), [(1, "1.0000"), (1 << 16, "of 65 536")])
async def test_a_basin_of_another_size_is_shown(tmp_path, entries, grid):
    with open_run(tmp_path) as writer:
        for step in range(4):
            values = np.ones(entries) + 1e-6 * np.random.default_rng(step).random(entries)
            writer.telemetry.log(step, {"phi": 0.5}, basin=(values / values.sum()).astype("<f4").tobytes())
        async with opened_basin(writer.run) as (app, pilot):
            await until(pilot, lambda: "steps apart" in facts(app))
            assert grid in text_of(app.screen.query_one(BasinGrid))
            assert table(app).row_count == entries
            await pilot.press("d", "o", "ctrl+end", "y")
            await until(pilot, lambda: bool(app.clipboard))
            if entries > 5000:
                assert any("many terminals take no more" in note for note in told(app))


async def test_where_there_is_little_room_one_thing_is_shown_at_a_time(writer):
    async with opened_basin(writer.run, (80, 24)) as (app, pilot):
        parts = [app.screen.query_one(kind) for kind in (BasinTable, BasinGrid, BasinTrail)]
        for size in ((80, 24), (160, 18), (40, 12), (20, 5)):
            await pilot.resize_terminal(*size)
            for place in (0, 1, 2):
                await until(
                    pilot, lambda place=place: [p.is_on_screen for p in parts] == [i == place for i in range(3)]
                )
                await pilot.press("v")
        await pilot.resize_terminal(80, 24)
        await pilot.click("#basin-tabs", offset=(18, 0))
        await until(pilot, lambda: parts[2].is_on_screen)
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: all(part.is_on_screen for part in parts))


async def test_it_holds_still_and_travels_by_the_keys_of_every_screen(writer):
    async with opened_basin(writer.run) as (app, pilot):
        await known(app, pilot, 290)
        await pilot.press("space")
        log_steps(writer, 300, 341)
        await until(pilot, lambda: app.screen.picture.history.read == 341)
        app.screen.draw_all()
        assert "BASIN  step 290" in table_text(app)
        assert "30 basins, steps 0–290" in trail(app)
        await pilot.press("space")
        await known(app, pilot, 340)
        assert app.focused is table(app)
        # The table leaves these keys to time.
        await go(pilot, app, "home", to=0)
        await pilot.press("end")
        await until(pilot, lambda: facing(app).moment is None)
