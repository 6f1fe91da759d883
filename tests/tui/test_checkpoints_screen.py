"""The screen of all checkpoints: real ones by the real store, damaged by hand; commands are answered by the test."""

import asyncio
import base64

import numpy as np
import pytest
from textual.widgets import Button, Input

from qig_core.checkpoints.catalog import list_checkpoints, read_tags
from qig_core.checkpoints.upkeep import add_tag, delete
from qig_core.geometry.simplex import fisher_rao_distance
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event
from qig_tui.memory import Memory
from qig_tui.screens.checkpoint import CheckpointScreen
from qig_tui.screens.checkpoints import CheckpointsScreen
from qig_tui.screens.diff import DiffScreen
from qig_tui.screens.prune import PruneScreen
from qig_tui.screens.recover import RecoverScreen
from qig_tui.screens.restore import RestoreScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.tag import TagScreen
from qig_tui.setup import Setup
from qig_tui.widgets.checkpoint_table import CheckpointTable
from qig_tui.widgets.checkpoints import CheckpointStrip
from tests.tui.runs import add_checkpoint, basin, log_steps, open_run
from tests.tui.screens import opened, screen_text, text_of, told, until, until_shown
from tests.tui.shelves import cut, flip, put

KEEP = {"newest": 2, "best": 1, "score": "loss_heldout", "lower_is_better": True}


@pytest.fixture
def writer(tmp_path):
    """A live run of 300 steps."""
    with open_run(tmp_path, keep=KEEP) as writer:
        log_steps(writer, 0, 300)
        yield writer


async def shelf(app, pilot):
    """The screen, once it shows what lies there."""
    await pilot.press("4")
    await until_shown(pilot, CheckpointsScreen)
    screen = app.screen
    await until(pilot, lambda: screen.is_drawn and len(screen._rows) == len(screen.shown.checkpoints))
    return app.screen


async def asked_for(pilot, writer, verb):
    await until(pilot, lambda: bool(writer.mailbox.pending))
    command = writer.mailbox.take()[0].command
    assert command.verb == verb
    return command


def row_of(app, step):
    """What the table shows of a step."""
    lines = text_of(app.screen.query_one(CheckpointTable)).splitlines()
    return next(line for line in lines if line[3:12].strip() == str(step))


async def test_what_was_damaged_by_hand_is_named_and_stays_known_when_the_screen_is_left(writer):
    names = [put(writer, step, loss=3.0 - step / 100).name for step in (50, 100, 150, 200)]
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        assert "best, latest, last-good" in row_of(app, 200)
        assert all("○ COMPLETE" in row_of(app, step) for step in (50, 100, 150, 200))
        flip(writer, names[3])
        cut(writer, names[1])
        (writer.run.checkpoint(names[0]) / "manifest.json").write_text("{")
        seen = []
        changed = screen.desk.changed
        screen.desk.changed = lambda: (seen.append(screen.desk.progress), changed())
        await pilot.press("V")
        await until(pilot, lambda: len(screen.desk.checked) == 4 and not screen.desk.is_verifying)
        assert sorted({one.number for one in seen if one is not None and one.of}) == [1, 2, 3, 4]
        assert "✖ HASH-MISMATCH" in row_of(app, 200)
        assert "✓ COMPLETE" in row_of(app, 150)
        assert "✖ TORN" in row_of(app, 100)
        assert "✖ UNREADABLE" in row_of(app, 50)
        assert "best, latest, last-good" in row_of(app, 150)
        assert "not whole; never pruned" in row_of(app, 200)
        assert "✖ 3 of 4 damaged  1 HASH-MISMATCH, 1 TORN, 1 UNREADABLE" in screen_text(app)
        await pilot.press("1")
        await until_shown(pilot, RunScreen)
        await until(pilot, lambda: "✖      200  HASH-MISMATCH" in text_of(app.screen.query_one(CheckpointStrip)))
        await shelf(app, pilot)
        assert "✖ HASH-MISMATCH" in row_of(app, 200)


async def test_one_is_verified_alone_and_what_is_not_finite_in_it_is_named(writer):
    put(writer, 100)
    put(writer, 200, sick=True, rows=9)
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        await pilot.press("v")
        await until(pilot, lambda: len(screen.desk.checked) == 1 and not screen.desk.is_verifying)
        assert "✓ COMPLETE" in row_of(app, 200)
        assert "○ COMPLETE" in row_of(app, 100)
        for part in (
            "▲ 1 with tensors that are not finite",
            "▲ model:embed.weight",
            "▲ model:embed.weight is F32 [9, 16],",
        ):
            assert part in screen_text(app), part


def verification(monkeypatch, proceed):
    """A child that says how far it is and then waits to be told to go on."""

    async def slow(argv):
        yield {"progress": {"name": "a", "number": 1, "of": 2, "done": 0, "total": 100}}
        await proceed.wait()
        yield {"result": [{"name": "a", "status": "TORN", "problems": ["x is missing"]}]}

    monkeypatch.setattr("qig_tui.checkpoints.desk.child", slow)


async def test_a_verification_goes_on_behind_other_screens_and_is_told_of_there(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed)
    put(writer, 100)
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("V")
        await until(pilot, lambda: "● verifying 1 of 2 · 0 % of 100 B" in screen_text(app))
        await pilot.press("1")
        await until_shown(pilot, RunScreen)
        await shelf(app, pilot)
        assert "● verifying 1 of 2" in screen_text(app)
        await pilot.press("1")
        await until_shown(pilot, RunScreen)
        proceed.set()
        await until(pilot, lambda: any("✖ 1 of 1 damaged  1 TORN" in note for note in told(app)))


async def test_a_verification_is_stopped_by_escape_or_the_same_key_and_can_be_begun_again(writer, monkeypatch):
    proceed = asyncio.Event()
    verification(monkeypatch, proceed)
    put(writer, 100)
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        for key in ("escape", "v", "V"):
            await pilot.press("V")
            await until(pilot, lambda: "● verifying 1 of 2" in screen_text(app))
            await pilot.press(key)
            stopped = "○ verification stopped  0 were read till then, none of them damaged"
            await until(pilot, lambda stopped=stopped: stopped in screen_text(app))
            assert app.screen is screen
        proceed.set()
        await pilot.press("V", "V", "V")
        await until(pilot, lambda: "a" in screen.desk.checked and not screen.desk.is_verifying)
        await pilot.press("escape")
        await until_shown(pilot, RunScreen)


async def test_two_marked_ones_are_compared_and_the_basins_are_as_far_apart_as_they_are(writer):
    for step in (100, 200):
        put(writer, step)
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        await pilot.press("d")
        await until(pilot, lambda: "▲ mark one with space" in screen_text(app))
        await pilot.press("space")
        assert "◆" in row_of(app, 200)
        await pilot.press("d")
        await until_shown(pilot, DiffScreen)
        await until(pilot, lambda: app.screen.result is not None)
        p, q = (np.frombuffer(basin(step / 500), dtype="<f4").astype(float) for step in (100, 200))
        apart = float(fisher_rao_distance(p / p.sum(), q / q.sum()))
        assert app.screen.result["basin"]["distance_rad"] == pytest.approx(apart, abs=1e-6)
        shown = screen_text(app)
        assert f"{apart:.3f} rad apart (Fisher–Rao)" in shown
        assert shown.index("model:head.bias") < shown.index("model:embed.weight")
        assert "1.000" in next(line for line in shown.splitlines() if "model:head.bias" in line)
        assert "epoch" in shown
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)


def answering(monkeypatch, module, *reports):
    """A child that says this."""

    async def says(argv):
        for report in reports:
            yield report

    monkeypatch.setattr(f"qig_tui.screens.{module}.child", says)


async def test_a_comparison_that_cannot_be_made_says_why(writer, monkeypatch):
    answering(monkeypatch, "diff", {"progress": {"done": 1, "total": 2}}, {"error": "no [b]checkpoint[/] \x1b[31m"})
    for step in (100, 200):
        put(writer, step)
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("m", "m", "d")
        await until(pilot, lambda: "✖ not compared: no [b]checkpoint[/] \\x1b[31m" in screen_text(app))


async def test_a_live_trainer_is_asked_to_pin_and_what_it_answers_is_shown(writer):
    name = put(writer, 100).name
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("i")
        command = await asked_for(pilot, writer, "pin")
        assert command.args == {"checkpoint": name}
        writer.mailbox.stage(command, "acting", 299)
        await until(pilot, lambda: f"● pin {name}  requested" in screen_text(app) and "acting" in screen_text(app))
        assert "✓ pin" not in screen_text(app)
        await pilot.press("i")
        await until(pilot, lambda: "the trainer has not answered what was asked before" in screen_text(app))
        tags = add_tag(writer.run, name, "pinned")
        writer.mailbox.stage(command, "done", 299, name=name, tags=list(tags))
        await until(pilot, lambda: f"✓ pin {name}" in screen_text(app) and "its tags: pinned" in screen_text(app))
        await until(pilot, lambda: "pinned" in row_of(app, 100))
        await pilot.press("i")
        command = await asked_for(pilot, writer, "unpin")
        writer.mailbox.stage(command, "refused", 299, reason="not [b]now[/]")
        await until(pilot, lambda: f"✖ unpin {name}  The trainer refused: not [b]now[/]" in screen_text(app))
        assert "pinned" in row_of(app, 100)


async def test_a_run_that_has_ended_is_pinned_and_tagged_by_a_child_that_writes_it_down(writer):
    name = put(writer, 100).name
    writer.close(0)
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("i")
        await until(pilot, lambda: f"✓ pin {name}  done; its tags: pinned" in screen_text(app))
        await until(pilot, lambda: "pinned" in row_of(app, 100))
        await pilot.press("T")
        await until_shown(pilot, TagScreen)
        await until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press(*"last-good", "enter")
        assert "already means something" in screen_text(app)
        app.screen.query_one(Input).value = "paper"
        await pilot.press("enter")
        await until(pilot, lambda: f"✓ tag paper: {name}  done; its tags: paper, pinned" in screen_text(app))
        await until(pilot, lambda: "pinned, paper" in screen_text(app))
        assert read_tags(writer.run, name) == ("paper", "pinned")
    kinds = [event.kind for event in read_all(writer.run.events, Event) if isinstance(event, Event)]
    assert kinds.count("tagged") == 2


async def test_a_dashboard_that_only_reads_changes_nothing_and_says_so(writer):
    put(writer, 100)
    async with opened(writer.run, setup=Setup(read_only=True)) as (app, pilot):
        screen = await shelf(app, pilot)
        for key in ("i", "T", "x", "r"):
            app.clear_notifications()
            await pilot.press(key)
            await until(pilot, lambda: any("read-only" in note for note in told(app)))
            assert app.screen is screen
        assert not writer.mailbox.pending
        await pilot.press("v")
        await until(pilot, lambda: len(screen.desk.checked) == 1)


async def test_a_prune_of_a_live_run_asks_for_just_what_the_plan_shows(writer):
    names = [put(writer, step, loss=step / 100).name for step in (50, 100, 150, 200, 250)]
    flip(writer, names[1])
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        assert "▲ goes when pruned" in row_of(app, 100)
        await pilot.press("V")
        await until(pilot, lambda: len(screen.desk.checked) == 5)
        await pilot.press("x")
        await until_shown(pilot, PruneScreen)
        await until(pilot, lambda: "y deletes 1 checkpoint;" in screen_text(app))
        assert "found HASH-MISMATCH; never pruned" in screen_text(app)
        assert not writer.mailbox.pending
        await pilot.press("n")
        await until(pilot, lambda: "y deletes 2 checkpoints;" in screen_text(app))
        await pilot.press("y")
        command = await asked_for(pilot, writer, "prune")
        assert command.args == {"newest": 1, "names": [names[3], names[2]]}
        delete(writer.run, [names[2]])
        writer.mailbox.stage(command, "done", 299, names=[names[2]], size=738, kept=7)
        await until(pilot, lambda: "✓ 1 checkpoint deleted, 0.7 KiB freed, 7 kept." in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen and len(screen._rows) == 4)


async def test_a_prune_of_a_run_that_has_ended_is_done_by_a_child_after_the_question(writer):
    names = [put(writer, step, loss=step / 100).name for step in (50, 100, 150, 200)]
    writer.close(0)
    async with opened(writer.run, (80, 24)) as (app, pilot):
        screen = await shelf(app, pilot)
        await pilot.press("x")
        await until_shown(pilot, PruneScreen)
        await until(pilot, lambda: "y deletes 1 checkpoint;" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        assert len(list_checkpoints(writer.run)) == 4
        await pilot.press("x")
        await until(pilot, lambda: "y deletes 1 checkpoint;" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: "✓ 1 checkpoint deleted" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen and len(screen._rows) == 3)
    assert [found.name for found in list_checkpoints(writer.run)] == [names[3], names[2], names[0]]


async def test_where_nothing_would_go_there_is_nothing_to_confirm(writer, monkeypatch):
    put(writer, 100)
    kept = [{"name": "a", "step": 1, "kept": True, "reasons": ["newest"]}]
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        for report, words in (
            ({"result": {"plan": kept}}, "Nothing to delete: the rule keeps them all"),
            ({"error": "nothing is pruned: none verifies"}, "✖ no plan: nothing is pruned: none verifies"),
            ({"result": []}, "✖ no plan: the answer cannot be read"),
        ):
            answering(monkeypatch, "prune", {"progress": {"name": "a", "done": 1, "total": 2}}, report)
            await pilot.press("x")
            await until_shown(pilot, PruneScreen)
            await until(pilot, lambda words=words: words in screen_text(app))
            assert not app.screen.query_one("#confirm", Button).display
            await pilot.press("y", "escape")
            await until(pilot, lambda: app.screen is screen)
        assert not writer.mailbox.pending


async def test_going_back_begins_with_the_checkpoint_under_the_cursor_and_a_dry_run(writer):
    names = [put(writer, step).name for step in (100, 200)]
    async with opened(writer.run, (80, 24)) as (app, pilot):
        screen = await shelf(app, pilot)
        await pilot.press("down", "r")
        await until_shown(pilot, RestoreScreen)
        dialog = app.screen
        assert dialog.chosen.name == names[0]
        await until(pilot, lambda: len(dialog.status) == 2)
        assert dialog.chosen.name == names[0]
        text = " ".join(str(dialog.query_one("#text").content).split())
        parts = ("✓ opened 2 files", "✓ digests of", "✓ every number finite", f"✓ shapes of 2 tensors as in {names[1]}")
        for part in parts:
            assert part in text, part
        assert app.screen.query_one("#dialog").region.contains_region(dialog.query_one("#confirm").region)
        assert set(screen.desk.checked) == set(names)
        made = put(writer, 250)
        await until(pilot, lambda: dialog.status.get(made.name) == "COMPLETE")
        assert dialog.chosen.name == names[0]
        await pilot.press("y")
        command = await asked_for(pilot, writer, "restore")
        assert command.args == {"checkpoint": names[0]}
        good = {"checkpoint": names[0], "fingerprint": "f" * 64}
        writer.mailbox.stage(command, "done", 100, **good)
        await until(pilot, lambda: dialog.followed.unproven)
        writer.event("restored", step=100, how="restore", **good)
        await until(pilot, lambda: "The run goes on from" in screen_text(app))


async def test_a_dead_run_is_brought_back_with_the_chosen_one_but_never_from_a_browser(writer):
    names = [put(writer, step).name for step in (100, 200)]
    writer.close(76)
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("down", "r")
        await until_shown(pilot, RecoverScreen)
        await until(pilot, lambda: f"@{names[0]}" in screen_text(app).replace("\n", ""))
        assert app.screen.chosen.name == names[0]
    async with opened(writer.run, setup=Setup(web=True)) as (app, pilot):
        screen = await shelf(app, pilot)
        await pilot.press("r")
        await until(pilot, lambda: any("from a browser no program is started" in note for note in told(app)))
        assert app.screen is screen


async def test_new_ones_appear_and_others_vanish_below_a_cursor_that_stays(writer):
    names = [put(writer, step).name for step in (50, 100, 150)]
    async with opened(writer.run) as (app, pilot):
        screen = await shelf(app, pilot)
        table = screen.query_one(CheckpointTable)
        await pilot.press("down")
        assert table.current.name == names[1]
        made = put(writer, 200)
        await until(pilot, lambda: made.name in [row.name for row in screen._rows])
        assert table.current.name == names[1]
        assert table.cursor_row == 2
        delete(writer.run, [names[1]])
        await until(pilot, lambda: len(screen._rows) == 3)
        assert table.current.name == names[0]


async def test_in_the_past_later_ones_are_counted_and_those_that_are_gone_since_are_said_to_be(writer):
    names = [put(writer, 20, seq=20).name, put(writer, 280, seq=280).name, put(writer, 290, seq=290).name]
    log_steps(writer, 300, 310)
    writer.event("pruned", step=309, names=["step-00000010-ffffff", "step-00000285-ffffff"], size=1, kept=3)
    async with opened(writer.run, setup=Setup(at=100)) as (app, pilot):
        screen = await shelf(app, pilot)
        await until(pilot, lambda: [row.name for row in screen._rows] == names[:1])
        await until(pilot, lambda: "2 later · 1 deleted since then" in screen_text(app))
        assert "latest" in row_of(app, 20)
        await pilot.press("m")
        assert screen.desk.marked == names[:1]
        await pilot.press("space")
        await until(pilot, lambda: screen.run_watch.past is None)
        assert screen.desk.marked == names[:1]


async def test_the_order_is_by_any_column_and_is_found_again(writer, tmp_path):
    for step, loss in ((100, 1.0), (200, 3.0), (300, 2.0)):
        put(writer, step, loss=loss)
    memory = Memory(tmp_path / "chosen.json")
    async with opened(writer.run, memory=memory) as (app, pilot):
        screen = await shelf(app, pilot)

        def steps():
            return [row.entry.step for row in screen._arranged]

        assert steps() == [300, 200, 100]
        table = screen.query_one(CheckpointTable)
        x = text_of(table).splitlines()[0].index("held-out")
        await pilot.click(table, offset=(x + 1, 0))
        await until(pilot, lambda: steps() == [100, 300, 200])
        assert "by held-out ▲" in screen_text(app)
        await pilot.press("O")
        await until(pilot, lambda: steps() == [200, 300, 100])
        await pilot.press("o")
        assert screen._order.key == "reason"
        assert Memory(tmp_path / "chosen.json").chosen.checkpoints_sort == "reason"


async def test_the_details_of_one_are_all_that_its_manifest_says(writer):
    made = put(writer, 100, conditions={"drift": "critical"})
    async with opened(writer.run) as (app, pilot):
        await shelf(app, pilot)
        await pilot.press("enter")
        await until_shown(pilot, CheckpointScreen)
        text = str(app.screen.query_one("#text").content)
        values = np.frombuffer(base64.b64decode(made.basin), dtype="<f4").astype(float)
        now = app.screen_stack[1].picture.basin().values
        apart = float(fisher_rao_distance(values / values.sum(), now))
        files = [part for file in made.files for part in (file.path, file.blake3)]
        for part in (made.fingerprint, *files, "✖ critical", "geometric", "tokens 409600", f"{apart:.3f} rad", "2.9"):
            assert part in text, part
        await pilot.press("enter")
        await until_shown(pilot, CheckpointsScreen)


async def test_it_can_be_drawn_at_any_size_and_without_any_checkpoint(writer):
    async with opened(writer.run, (120, 40)) as (app, pilot):
        screen = await shelf(app, pilot)
        await until(pilot, lambda: "no checkpoint yet" in screen_text(app))
        add_checkpoint(writer, 100, size=6)
        await until(pilot, lambda: len(screen._rows) == 1)
        assert screen._rows[0].status == "TORN"
        for size in ((80, 24), (20, 5), (3, 2), (160, 48)):
            await pilot.resize_terminal(*size)
            await pilot.press("O", "m", "end")
        assert "✖ TORN" in row_of(app, 100)
