"""The screen that says whether a run is safe, over runs as the monitor leaves them."""

import math

import pytest
from rich.cells import cell_len

from qig_core.checkpoints.saving import saver
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import send
from qig_core.safety.integrated import IntegratedMonitor
from qig_tui.journal import Journal
from qig_tui.screens.condition import ConditionScreen
from qig_tui.screens.emergency import EmergencyScreen
from qig_tui.screens.event import EventScreen
from qig_tui.screens.run import RunScreen
from qig_tui.screens.safety import SafetyScreen
from qig_tui.widgets.abort_panel import AbortPanel
from qig_tui.widgets.alarms import AlarmList
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.conditions import ConditionTable
from qig_tui.widgets.emergency_list import EmergencyList
from tests.tui.hostile import MARKUP, TEXTS, in_every_field
from tests.tui.runs import SPECS, log_steps, open_run, set_condition
from tests.tui.screens import WIDE, opened, screen_text, text_of, told, until, until_shown

STOP = 140


def monitored(root, name):
    return IntegratedMonitor.open(
        root, name=name, total_steps=1000, metrics=SPECS, save=saver(lambda: {"n": 5}), signals=False
    )


def measured(step):
    """A drift that is too far twice, and at last a loss that is no number."""
    drift = 0.7 if 40 <= step < 50 else 0.65 + step / 1e4 if step >= 120 else 0.3
    loss = math.nan if step == STOP else 5 / (1 + step)
    return {"loss": loss, "phi": 0.7 + step / 1e4, "drift_rolling": drift, "grad_norm": 1.0, "recursion_depth": 4.0}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Stopped by the real monitor: a loss that is no number."""
    with monitored(tmp_path_factory.mktemp("stopped"), "nan") as monitor:
        for step in monitor.steps():
            if not monitor.check(step, measured(step)):
                break
    assert monitor.exit_code == 75
    return monitor.writer.run


@pytest.fixture(scope="module")
def aborted(tmp_path_factory):
    """Stopped by a command."""
    with monitored(tmp_path_factory.mktemp("aborted"), "asked") as monitor:
        for step in monitor.steps():
            if step == 30:
                send(monitor.writer.run, "pause", ttl_s=0.0)
                send(monitor.writer.run, "abort")
                monitor.writer.mailbox.poll(step)
            if not monitor.check(step, {"loss": 1.0}):
                break
    assert monitor.exit_code == 76
    return monitor.writer.run


async def safety(app, pilot):
    """The safety screen, as soon as it knows what lies beside the records."""
    await pilot.press("3")
    await until(pilot, lambda: isinstance(app.screen, SafetyScreen) and app.screen.beside is not None)
    return app.screen


def row_with(widget, *words):
    return next(line for line in text_of(widget).splitlines() if all(word in line for word in words))


async def test_a_run_that_a_limit_stopped_tells_what_when_and_why(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        table = text_of(screen.query_one(ConditionTable)).splitlines()
        assert "last known" in table[0]
        assert "1 critical" in table[0]
        assert table[2].split()[:3] == ["▸✖", "critical", "nonfinite"]
        assert "loss not finite" in table[2]
        drift = row_with(screen.query_one(ConditionTable), "drift ", "warning")
        for part in ("≤ 0.6 rad", "0.664", "120", "drift_rolling alone"):
            assert part in drift, part
        assert "no value of kappa yet" in row_with(screen.query_one(ConditionTable), "kappa", "unarmed")
        alarms = screen.query_one(AlarmList)
        assert "2 stood to the end" in text_of(alarms)
        assert "to the end" in row_with(alarms, "nonfinite", "140")
        assert "0.700" in row_with(alarms, "warning", "drift", " 40 "), "how far it went"
        emergency = text_of(screen.query_one(EmergencyList))
        assert "limit: nonfinite: loss not finite" in emergency
        assert "saved as step-00000140-" in emergency
        panel = text_of(screen.query_one(AbortPanel))
        for part in ("not possible", "exit code 75: a limit stopped it", "✓ nobody holds the lock", "✓ checkpointing"):
            assert part in panel, part


async def test_a_condition_tells_its_turns_and_one_of_them_is_gone_to(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        await pilot.press("down", "enter")
        await until_shown(pilot, ConditionScreen)
        await until(pilot, lambda: "4 in this run" in screen_text(app))
        assert "compares    drift_rolling  ≤ 0.6 rad" in screen_text(app)
        turns = text_of(app.screen.query_one("#turns")).splitlines()[2:]
        assert [line.split()[-1] for line in turns if "▲" in line] == ["alone", "alone"]
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: screen.run_watch.past is not None and screen.run_watch.at == 40)
        assert isinstance(app.screen, SafetyScreen)


async def test_in_the_past_everything_is_as_it_was_then(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        screen.run_watch.go(45)
        await until(pilot, lambda: screen.run_watch.at == 45)
        table, alarms = screen.query_one(ConditionTable), screen.query_one(AlarmList)
        assert "0.700" in row_with(table, "drift ", "warning", "40")
        assert row_with(table, "nonfinite", "ok")
        assert "still" in row_with(alarms, "warning", "drift")
        assert "1 still" in text_of(alarms)
        assert {alarm.raised.step for alarm in alarms.items} == {40}
        assert "1 later" in text_of(screen.query_one(EmergencyList))
        assert "limit" not in text_of(screen.query_one(EmergencyList))
        panel = text_of(screen.query_one(AbortPanel))
        assert "exit code" not in panel
        assert "EXITED 75" in panel
        await pilot.press("end")
        await until(pilot, lambda: screen.run_watch.past is None)
        assert "1 later" not in screen_text(app)
        # At the step of the stop itself it has happened.
        screen.run_watch.go(STOP)
        await until(pilot, lambda: screen.run_watch.past is not None)
        assert "limit: nonfinite" in text_of(screen.query_one(EmergencyList))


async def test_the_metric_of_a_row_becomes_the_first_chart_where_it_has_values(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        table = screen.query_one(ConditionTable)
        unarmed = [judged.row.condition.id for judged in table.items].index("kappa")
        for key in (*["down"] * unarmed, "m", "g"):
            app.simulate_key(key)
        await until(pilot, lambda: len(told(app)) == 2)
        assert "kappa has no values" in told(app)[0]
        assert "no step is recorded" in told(app)[1]
        for key in (*["up"] * (unarmed - 1), "m"):
            app.simulate_key(key)
        await until_shown(pilot, RunScreen)
        await until(pilot, lambda: text_of(app.screen.query(LineChart).first()).startswith("drift "))


async def test_alarms_are_chosen_by_severity_shown_whole_and_gone_to(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        alarms = screen.query_one(AlarmList)
        everything = len(alarms.items)
        await pilot.press("v")
        assert 0 < len(alarms.items) < everything
        assert "warnings and critical" in text_of(alarms)
        await pilot.press("v")
        assert [alarm.id for alarm in alarms.items] == ["nonfinite"]
        await pilot.press("v", "tab", "enter")
        await until_shown(pilot, EventScreen)
        await until(pilot, lambda: "nonfinite critical: loss not finite" in screen_text(app))
        await pilot.press("escape")
        await until_shown(pilot, SafetyScreen)
        await pilot.press("pagedown", "g")
        first = alarms.items[-1].raised.step
        await until(pilot, lambda: screen.run_watch.past is not None and screen.run_watch.at == first)


async def test_an_emergency_shows_the_samples_around_it_and_where_they_went_beyond(stopped):
    async with opened(stopped) as (app, pilot):
        screen = await safety(app, pilot)
        await pilot.press("tab", "tab", "enter")
        await until_shown(pilot, EmergencyScreen)
        await until(pilot, lambda: app.screen.detail is not None and "THE LAST 20" in screen_text(app))
        shown = screen_text(app)
        for part in (
            "exit code 75: a limit stopped it",
            "✓ saved as step-00000140-",
            "✓ checkpointing",
            "steps 0 … 140",
            "not finite from step 140 on  ▴",
            "beyond ≤ 0.6 rad from step 120 on  ▴▴▴",
            "nan ✖",
        ):
            assert part in shown, part
        steps = [line.split("✖")[1].split()[0] for line in shown.splitlines() if "│  ✖  " in line]
        assert steps[:2] == ["140", "139"], "newest first, marked where a value lies beyond"
        await pilot.press("g")
        await until(pilot, lambda: screen.run_watch.past is not None and screen.run_watch.at == STOP)


async def test_an_abort_is_told_with_every_stage_and_what_proves_the_stop(aborted):
    async with opened(aborted) as (app, pilot):
        screen = await safety(app, pilot)
        panel = screen.query_one(AbortPanel)
        lines = [line.split() for line in text_of(panel).splitlines() if line.startswith("✓ ")]
        names = [words[1] for words in lines]
        assert [n for n in names if n in ("requested", "seen", "acting", "checkpoint", "stopped")] == [
            "requested", "seen", "acting", "checkpoint", "stopped",
        ]  # fmt: skip
        shown = text_of(panel)
        for part in ("a command stopped it", "exit code 76", "step-000000", "digest", "times since it was seen"):
            assert part in shown, part
        assert "✖" in row_with(panel, "pause refused")


async def test_a_live_run_says_who_would_stop_it_and_an_abort_moves(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, 30)
        async with opened(writer.run) as (app, pilot):
            screen = await safety(app, pilot)
            panel = screen.query_one(AbortPanel)
            assert "possible now" in text_of(panel)
            assert "holds the lock" in text_of(panel)
            command = send(writer.run, "abort")
            await until(pilot, lambda: "requested" in text_of(panel))
            await until(pilot, lambda: "seen" in text_of(panel))
            # A trainer may take it away before anybody has seen it lying there.
            assert f"by {command.by}" in text_of(panel) or "times since it was seen" in text_of(panel)
            assert "waiting" in text_of(panel)
            taken = writer.mailbox.take()[0].command
            writer.mailbox.stage(taken, "acting", 29)
            writer.mailbox.stage(taken, "stopped", 29, exit_code=76)
            writer.close(76, "stopped by a command")
            await until(pilot, lambda: "Ended" in text_of(panel) and "step 29 · exit code 76" in text_of(panel))
            assert "waiting" not in text_of(panel)


async def test_an_alarm_that_comes_is_shown_and_the_keys_stay_on_their_row(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok")
        set_condition(writer, "warning", id="kappa", metric="kappa")
        set_condition(writer, "warning", id="phi", metric="phi")
        log_steps(writer, 0, 10)
        async with opened(writer.run) as (app, pilot):
            screen = await safety(app, pilot)
            alarms, table = screen.query_one(AlarmList), screen.query_one(ConditionTable)
            assert "no alarm" not in text_of(alarms)
            await pilot.press("down", "tab", "down")
            assert (alarms.chosen.id, table.chosen.row.condition.id) == ("kappa", "phi")
            set_condition(writer, "critical", cause=["loss", "drift_rolling"], value=0.9)
            await until(pilot, lambda: "loss moved first, then drift_rolling" in text_of(alarms))
            await until(pilot, lambda: table.items[0].row.condition.id == "drift")
            assert (alarms.chosen.id, table.chosen.row.condition.id) == ("kappa", "phi")


async def test_alarms_that_the_journal_has_dropped_are_read_from_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("qig_tui.journal._KEPT", 5)
    assert Journal().events.maxlen == 5
    with open_run(tmp_path) as writer:
        for _ in range(6):
            set_condition(writer, "warning")
            set_condition(writer, "ok")
        log_steps(writer, 0, 3)
        async with opened(writer.run) as (app, pilot):
            screen = await safety(app, pilot)
            await until(pilot, lambda: "6 in all" in text_of(screen.query_one(AlarmList)))


async def looked_at_everywhere(app, pilot, screen):
    """Every part and every dialog, one after the other; what each shows."""
    for keys in ("enter", "tab", "tab enter", "tab"):
        for key in keys.split():
            app.simulate_key(key)
        await pilot.pause()
        await until(pilot, lambda: app.screen._compositor.size == app.size)
        if isinstance(app.screen, EmergencyScreen):
            await until(pilot, lambda: app.screen.detail is not None)
        yield screen_text(app)
        if app.screen is not screen:
            app.simulate_key("escape")
            await until_shown(pilot, SafetyScreen)


async def test_every_part_and_every_dialog_fits_the_smallest_terminal(stopped):
    async with opened(stopped, size=(30, 9)) as (app, pilot):
        screen = await safety(app, pilot)
        async for shown in looked_at_everywhere(app, pilot, screen):
            assert [cell_len(line) for line in shown.splitlines()] == [30] * 9


async def test_in_a_small_terminal_the_part_with_the_keys_has_most_of_the_room(stopped):
    async with opened(stopped, size=(80, 24)) as (app, pilot):
        screen = await safety(app, pilot)
        parts = [screen.query_one(f"#{name}") for name in ("conditions", "alarms", "emergencies", "abort")]
        for part in parts:
            await until(pilot, lambda part=part: part.size.height == max(p.size.height for p in parts) > 4)
            assert all(p.size.height >= 3 for p in parts)
            await pilot.press("tab")


async def test_nothing_that_a_directory_holds_breaks_it(tmp_path):
    in_every_field(tmp_path, f"{TEXTS['ansi']}{TEXTS['bidi']}{MARKUP}{TEXTS['long-wide']}")
    folder = tmp_path / "emergencies"
    (folder / "a.json").write_text(
        '{"stages": 3, "t": 1e300, "samples": [{"m": {"\\u001b[2J測": 1}}], "traceback": [1]}'
    )
    (folder / "a.stacks.txt").write_text("\x1b[2J[bold]測\u202e" * 100)
    async with opened(RunDir(tmp_path)) as (app, pilot):
        screen = await safety(app, pilot)
        async for shown in looked_at_everywhere(app, pilot, screen):
            assert not {"\x1b", "\u202e"} & set(shown)
            assert {cell_len(line) for line in shown.splitlines()} == {WIDE[0]}
