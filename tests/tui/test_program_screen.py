"""The phases of a run and the Garys of another on their screen and on the run screen, now and as they were."""

import pytest

from qig_tui.screens.event import EventScreen
from qig_tui.screens.program import ProgramScreen
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from qig_tui.widgets.distances import DistanceGrid, OceanFacts
from qig_tui.widgets.events import EventList
from qig_tui.widgets.garys import AdviceList, GaryTable, InterventionList
from qig_tui.widgets.phases import GuardTable, PassageList, PhaseList
from qig_tui.widgets.program_panel import ProgramPanel
from qig_tui.widgets.sentence import Sentence
from tests.tui.programs import charlie, collapsed, constellation, report
from tests.tui.screens import opened, screen_text, text_of, told, until, until_shown

SIZES = [(160, 48), (120, 40), (80, 24)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The runs by their names, each of which has ended."""
    root = tmp_path_factory.mktemp("programs")
    runs = {}
    for make in (charlie, collapsed, constellation, lambda root: constellation(root, 12)):
        with make(root) as writer:
            runs[writer.run.id] = writer.run
    with constellation(root, 64, until=10) as writer:
        runs["stars64"] = writer.run
    return runs


def program(run, size=(160, 48), **setup):
    return opened(run, size=size, setup=Setup(screen="program", **setup))


def lines(app, kind):
    return text_of(app.screen.query_one(kind)).splitlines()


def line_with(app, kind, *words):
    return next(line for line in lines(app, kind) if all(word in line for word in words))


async def test_the_phases_stand_in_their_order_with_their_outcome(made):
    async with program(made["charlie"]) as (app, _):
        table = [line.split() for line in lines(app, PhaseList)[2:5]]
        assert [row[:4] for row in table[:2]] == [["1", "dormant", "✓", "passed"], ["2", "awakening", "✓", "passed"]]
        assert table[2][0] == "▸"
        assert "passed at 120: all guards hold" in lines(app, PhaseList)[2]
        assert "passed at 300: graduated" in lines(app, PhaseList)[4]
        assert line_with(app, GuardTable, "● ok", "Φ as a share of the control's", "0.990", "≥ 0.8")
        assert "a list of them" in line_with(app, PassageList, "300", "the slice at 300 ▸  is")


async def test_it_is_as_it_was_at_the_step_that_is_shown(made):
    async with program(made["charlie"], at=150) as (app, pilot):
        assert line_with(app, PhaseList, "2 awakening", "▸ now", "121", "279")
        assert "step 29 of awakening" in lines(app, PhaseList)[0]
        assert line_with(app, PhaseList, "3 demonstration", "○ to come", "at least 20 steps")
        guards = lines(app, GuardTable)
        assert "1 open" in guards[0]
        assert "1 unknown" in guards[0]
        # The worst first: open, not known, then those that hold.
        assert [line.split()[1] for line in guards[2:5]] == ["open", "unknown", "ok"]
        assert "not measured yet" in guards[3]
        assert "nothing yet" in lines(app, PassageList)[1]
        app.screen.run_watch.go(40)
        await until(pilot, lambda: app.screen.run_watch.at == 40)
        assert line_with(app, PhaseList, "1 dormant", "▸ now", "2 of 3 guards hold, 1 open (judged at 40)")
        assert "by 179" not in lines(app, PhaseList)[2]
        await pilot.press("end")
        await until(pilot, lambda: "graduated" in screen_text(app))


async def test_the_guards_of_a_phase_that_passed_are_those_that_it_passed_with(made):
    async with program(made["charlie"]) as (app, pilot):
        await pilot.press("up", "up")
        await until(pilot, lambda: "dormant at 120" in lines(app, GuardTable)[0])
        assert line_with(app, GuardTable, "held-out loss fell by", "3.000", "≥ 2.3 nats")
        await pilot.press("enter")
        await until_shown(pilot, EventScreen)
        assert "dormant (1 of 3) passed: all guards hold" in screen_text(app)
        await pilot.press("escape", "g")
        await until(pilot, lambda: app.screen.run_watch.at == 0)


async def test_a_phase_that_failed_says_why_in_words(made):
    async with program(made["collapsed"]) as (app, pilot):
        assert line_with(app, PhaseList, "✖ failed", "failed at 180: held-out loss over before, at most 1.31")
        assert lines(app, GuardTable)[2].split()[:2] == ["✖", "failed"]
        await pilot.press("1")
        await until_shown(pilot, RunScreen)
        panel = lines(app, ProgramPanel)
        assert "PHASE 2 of 3 ✖ awakening" in panel[0]
        assert "✖ held-out loss over before, at most 1.31" in panel[1]
        assert line_with(app, ProgramPanel, "✖ held-out", "1.310", "failed")


@pytest.mark.parametrize("size", SIZES)
async def test_the_run_screen_says_where_the_run_is_in_its_phases(made, size):
    async with opened(made["charlie"], size=size, setup=Setup(at=240)) as (app, pilot):
        panel = lines(app, ProgramPanel)
        assert panel[0].startswith("PHASE 2 of 3 ▸ awakening")
        if size[1] > 24:
            assert "✓ dormant ─ ▸ awakening ─ ○ demonstr" in panel[1]
            assert "may end" in panel[2] or "ends at 279" in panel[2]
            assert line_with(app, ProgramPanel, "○ Φ of a copy", "–")
        else:
            assert len(panel) == 1
            assert "2 of 3 guards hold" in panel[0]
        await pilot.press("end")
        await until(pilot, lambda: "demonstration" in lines(app, ProgramPanel)[0])


async def test_a_run_without_a_program_has_no_such_panel_and_a_sentence_on_its_screen(writer):
    async with opened(writer.run) as (app, pilot):
        assert not app.screen.query_one(ProgramPanel).display
        assert not app.screen.has_class("-program")
        await pilot.press("7")
        await until_shown(pilot, ProgramScreen)
        await until(pilot, lambda: "tells of no phases" in text_of(app.screen.query_one(Sentence)))


async def test_a_phase_event_of_an_old_run_makes_no_panel(writer):
    writer.event("phase", step=3, name="awakening", guards=["nonfinite"])
    async with opened(writer.run) as (app, pilot):
        await until(pilot, lambda: "guards ['nonfinite']" in text_of(app.screen.query_one(EventList)))
        assert not app.screen.query_one(ProgramPanel).display


async def test_a_new_phase_is_seen_as_it_comes(tmp_path):
    with charlie(tmp_path, until=100) as writer:
        async with program(writer.run) as (app, pilot):
            assert "all guards hold" in line_with(app, PhaseList, "▸ now")
            writer.event("phase", step=121, name="awakening", index=2, of=3, state="begun", guards=[], since_step=121)
            await until(pilot, lambda: "begun at 121" in screen_text(app))
            # The keys stay where they are: at what that phase had told of last.
            assert "dormant at 100" in lines(app, GuardTable)[0]
            await pilot.press("down")
            await until(pilot, lambda: "none was judged" in text_of(app.screen.query_one(GuardTable)))


async def test_the_garys_stand_with_their_numbers_flags_and_reasons(made):
    async with program(made["stars3"]) as (app, _):
        assert lines(app, GaryTable)[0].startswith("GARYS  3  at 100")
        assert line_with(app, GaryTable, "gary2", "○ observer", "0.810", "5.000", "loss up since 40")
        assert line_with(app, GaryTable, "gary3", "▶ active", "–", "basin: not measured; phi: nan")
        grid = lines(app, DistanceGrid)
        assert grid[2].split() == ["gary1", "·", "▼0.012", "–"]
        assert grid[4].split() == ["gary3", "–", "–", "·"]
        assert "▼ under the floor of 0.03 rad: gary1 and gary2" in grid[5]
        facts = text_of(app.screen.query_one(OceanFacts))
        for part in ("● the Ocean is as it was born, digest ef65047add62", "0.0120 rad", "0.0360 rad²", "71 %  29 %"):
            assert part in facts, part
        assert line_with(app, AdviceList, "▲ warn", "sleep gary2", "since 20", "drift 0.510 ≥ 0.48 rad")
        done = lines(app, InterventionList)
        assert "2, 1 undone" in done[0]
        assert done[1].split()[:6] == ["90", "↶", "undone", "sleep", "gary2", "by"]
        assert "by command  rise of" in done[1]
        assert "held-out loss rose by more than 0.05 nats; dis" in done[2]
        assert line_with(app, InterventionList, "50 ✓ kept   perturb gary1 by ocean", "kl_nats 0")
        assert line_with(app, InterventionList, "  distance_rad 0.0200 → 0.0500; phi 0.800 → 0.790")


async def test_the_ocean_is_seen_as_it_was(made):
    async with program(made["stars3"], at=35) as (app, pilot):
        assert lines(app, GaryTable)[0].startswith("GARYS  3  at 30")
        assert line_with(app, AdviceList, "· witness")
        assert "nothing yet" in text_of(app.screen.query_one(InterventionList))
        assert "none under the floor" in text_of(app.screen.query_one(DistanceGrid))
        app.screen.run_watch.go(5)
        await until(pilot, lambda: app.screen.run_watch.at == 5)
        assert "nothing" in lines(app, AdviceList)[1]


async def test_an_ocean_that_has_changed_is_told_in_words_wherever_one_looks(tmp_path):
    with constellation(tmp_path, until=10) as writer:
        writer.event("ocean", step=11, **report(3, 11, sound=False))
    async with program(writer.run) as (app, pilot):
        assert "✖ the Ocean is NOT as it was born" in text_of(app.screen.query_one(OceanFacts))
        await pilot.press("1")
        await until_shown(pilot, RunScreen)
        assert "✖ the Ocean has changed" in lines(app, ProgramPanel)[0]


async def test_enter_on_a_gary_opens_its_stream(made):
    async with program(made["stars3"]) as (app, pilot):
        await pilot.press("down", "enter")
        await until_shown(pilot, RunScreen)
        assert app.screen.run_watch.stream == "gary2"


async def test_a_gary_without_a_stream_says_so(tmp_path):
    with constellation(tmp_path, until=10) as writer:
        garys = [gary | {"name": "nobody"} for gary in report(3, 20)["garys"]]
        writer.event("ocean", step=11, **report(3, 20, garys=garys))
    async with program(writer.run) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: len(told(app)) == 1)
        assert "nobody has no stream of its own" in told(app)[0]


async def test_twelve_garys_have_a_whole_grid_where_it_fits_and_the_nearest_pairs_where_not(made):
    async with program(made["stars12"]) as (app, pilot):
        grid = lines(app, DistanceGrid)
        assert len([line for line in grid if line.startswith("gary")]) == 12
        assert "▼0.012" in grid[2]
        await pilot.resize_terminal(80, 24)
        await until(
            pilot, lambda: app.size.width == 80 and "nearest first" in text_of(app.screen.query_one(DistanceGrid))
        )
        assert line_with(app, DistanceGrid, "gary1", "gary2", "▼0.0120")
        assert "of 55 pairs" in lines(app, DistanceGrid)[0]


async def test_sixty_four_garys_scroll_and_break_nothing_at_any_size(made):
    async with program(made["stars64"]) as (app, pilot):
        table = app.screen.query_one(GaryTable)
        assert len(table.items) == 64
        for size in ((160, 48), (80, 24), (40, 12)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size)
            table.focus()
            for key in [*["pagedown"] * 64, "tab", "down", "tab", "down"]:
                app.simulate_key(key)
            await until(pilot, lambda: "▸gary64" in text_of(table) or "gary64" in text_of(table))
            if size[1] > 20:
                assert "of 1 953 pairs, nearest first" in text_of(app.screen.query_one(DistanceGrid))


async def test_a_row_of_the_events_stands_for_reports_without_anything_between_them(made):
    async with opened(made["stars3"]) as (app, pilot):
        events = app.screen.query_one(EventList)
        assert line_with(app, EventList, "ocean", "×2", "steps 0 … 40; the newest: 3 Garys, nearest two 0.240 rad")
        assert events.filter("kind:ocean") is None
        await until(pilot, lambda: sum(" ocean " in line for line in lines(app, EventList)) == 4)


@pytest.mark.parametrize("size", SIZES)
async def test_the_run_screen_says_how_the_garys_stand(made, size):
    async with opened(made["stars12"], size=size) as (app, _):
        panel = lines(app, ProgramPanel)
        assert panel[0].startswith("GARYS 12 ")
        assert "▼ 1 under 0.03 rad" in panel[0]
        if size[1] > 24:
            assert line_with(app, ProgramPanel, "▲ warn", "sleep gary2: drift")
            assert line_with(app, ProgramPanel, "gary1 ", "held-out 2.600")
            assert line_with(app, ProgramPanel, "more: 7 shows all")
