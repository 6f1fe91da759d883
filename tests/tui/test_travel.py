import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.rundir.schema import Event, Sample
from qig_tui.cli import main
from qig_tui.history import History
from qig_tui.journal import Journal
from qig_tui.once import as_text, take
from qig_tui.picture import RunPicture
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from qig_tui.sources.chronicle import Chronicle, cut
from qig_tui.sources.local import LocalSource
from qig_tui.travel import Mark, Moment, Pace, marks, next_mark
from qig_tui.widgets.basin import BasinPanel
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.checkpoints import CheckpointStrip
from qig_tui.widgets.events import EventList
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.scrubber import Scrubber
from qig_tui.widgets.status import StatusLine
from tests.tui.runs import add_checkpoint, basin, log_steps, open_run, set_condition
from tests.tui.screens import opened, screen_text, text_of, told, until


def moment_of(history, record, segment):
    return Moment(
        step=record.step, seq=record.seq, t=record.t, session=None, segment=segment, regime=record.regime, basins=()
    )


@given(
    jumps=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=6),
    at=st.floats(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_the_history_at_a_moment_is_that_of_a_reader_who_stopped_there(jumps, at):
    steps, step = [], 0
    for length, back in jumps:
        steps += range(step, step + length)
        step = max(step + length - back, 0)
    records = [
        Sample(
            seq, step, 10.0 * seq, m={"a": step + seq / 1000} | ({"b": 1.0} if seq > 7 else {}), regime=f"r{seq // 9}"
        )
        for seq, step in enumerate(steps)
    ]
    last = min(int(at * len(records)), len(records) - 1)
    whole, stopped = History(), History()
    whole.add(records)
    stopped.add(records[: last + 1])
    past = whole.until(moment_of(whole, records[last], stopped.segments - 1))
    assert past.metrics == stopped.metrics
    for name in stopped.metrics:
        mine, theirs = past.series(name), stopped.series(name)
        assert mine.step.tolist() == theirs.step.tolist()
        assert mine.value.tolist() == theirs.value.tolist()
        assert mine.seen == theirs.seen
        gone, lost = past.abandoned(mine), stopped.abandoned(theirs)
        assert (gone is None and lost is None) or gone.tolist() == lost.tolist()
    assert (past.step, past.t, past.regime, past.segments, past.ends) == (
        stopped.step,
        stopped.t,
        stopped.regime,
        stopped.segments,
        stopped.ends,
    )
    assert past.times.value.tolist() == stopped.times.value.tolist()


def test_a_thinned_history_ends_at_the_moment_and_counts_what_it_stands_for():
    records = [Sample(i, i, float(i), m={"a": float(i % 7)}) for i in range(1000)]
    history = History(capacity=64)
    history.add(records)
    past = history.until(moment_of(history, records[400], 0))
    series = past.series("a")
    assert series.is_thinned
    assert series.step.max() <= 400
    assert abs(series.seen - 401) <= 64


def event(seq, t, step=None, session="s", **data):
    return Event(seq, t, data.pop("kind", "note"), step, session, data.pop("severity", "info"), None, data)


def at(step, t, session="s"):
    return Moment(step=step, seq=step, t=t, session=session, segment=0, regime=None, basins=())


def test_what_happened_at_the_step_of_a_moment_belongs_to_it_and_what_came_after_does_not():
    events = [event(0, 1.0), event(1, 5.0, 5), event(2, 5.2, 5), event(3, 6.1, 6), event(4, 5.0, 7)]
    assert cut(events, at(5, 5.1), {"s": 0}) == 3
    assert cut(events, at(4, 4.9), {"s": 0}) == 1
    assert cut(events, at(9, 99.0), {"s": 0}) == 5


def test_the_clock_of_another_host_does_not_bring_a_later_session_forward():
    events = [event(0, 1000.0, 1, "a"), event(1, 10.0, 1, "b", kind="start"), event(2, 20.0, 3, "b")]
    order = {"a": 0, "b": 1}
    assert cut(events, at(1, 999.0, "a"), order) == 1
    assert cut(events, at(2, 12.0, "b"), order) == 2


def test_a_pause_takes_no_time_in_a_replay():
    t = np.array([0.0, 1.0, 2.0, 3.0, 5000.0, 5001.0, 5002.0])
    pace = Pace(np.arange(7), t)
    assert pace.seconds(6) == 5.0
    assert pace.step_after(0, 2.0) == 2
    assert pace.step_after(3, 1.0) == 5
    assert pace.step_after(0, 5.0) is None
    assert Pace(np.arange(2), np.array([np.nan, np.nan])).step_after(0, 1.0) is None


def test_of_what_happened_at_one_step_the_worst_is_marked():
    events = [
        event(0, 0.0, 3, kind="checkpoint"),
        event(1, 0.0, 3, severity="critical"),
        event(2, 0.0, 3, severity="warning"),
        event(3, 0.0, 8, kind="command"),
        event(4, 0.0, 9, kind="restored"),
        event(5, 0.0, None, severity="critical"),
    ]
    found = marks(events)
    assert found == [Mark(3, "note", "critical"), Mark(9, "restored", "info")]
    assert next_mark(found, 3, 1) == found[1]
    assert next_mark(found, 3, -1) is None


def told_of(picture):
    """The snapshot without what is told of now, and of the file."""
    return [
        line for line in as_text(picture).splitlines()[2:] if not ("read ·" in line or line.startswith("── SAFETY"))
    ]


def a_run_with_a_past(root):
    """A run that is warned, saved, taken back; what a snapshot showed at some of its steps while it was there."""
    seen = {}
    with open_run(root) as writer:
        set_condition(writer, "ok")

        def look(step):
            seen[step] = told_of(take(writer.run, sleep=lambda _: None))

        log_steps(writer, 0, 40)
        look(39)
        log_steps(writer, 40, 41)
        set_condition(writer, "warning", cause=["kappa"], since_step=40)
        log_steps(writer, 41, 80)
        add_checkpoint(writer, 79)
        log_steps(writer, 80, 120)
        writer.event("restored", step=80, checkpoint="step-00000079", fingerprint="f" * 64, how="restore")
        log_steps(writer, 80, 100)
        look(99)
        log_steps(writer, 100, 110)
        writer.event("condition", step=109, severity="critical", id="nonfinite", state="critical", metric="loss")
        writer.close(75)
    return writer, seen


def test_a_snapshot_at_a_step_is_what_a_snapshot_showed_then(tmp_path):
    writer, seen = a_run_with_a_past(tmp_path)
    assert seen[39] != seen[99]
    assert told_of(take(writer.run, at=39)) == seen[39]
    assert told_of(take(writer.run, at=99)) == seen[99]


def test_a_step_before_the_first_is_refused_in_a_sentence(tmp_path, capsys):
    writer, _ = a_run_with_a_past(tmp_path)
    assert main([str(writer.run.path), "--once", "--at", "-5"]) == 2
    assert "has no sample at or before step -5" in capsys.readouterr().err
    assert main([str(writer.run.path), "--once", "--at", "39"]) == 0
    shown = capsys.readouterr().out
    assert "step 39 / 1 000" in shown
    assert "as it was at step 39" in shown
    assert main([str(writer.run.path), "--once", "--at", "39", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["at"]["step"] == 39
    assert main([str(writer.run.path), "--once", "--at", "109"]) == 1


def test_the_journal_of_a_moment_does_not_change_when_another_one_is_asked_for(tmp_path):
    writer, _ = a_run_with_a_past(tmp_path)
    source, picture = LocalSource(writer.run), RunPicture(writer.manifest)
    picture.apply(source.look())
    chronicle, branches = Chronicle(writer.run), picture.history.branches
    states = {}
    for step in (10, 45, 109, 45, 10):
        journal = chronicle.until(source.index.moment(step, branches), [writer.session])
        found = {name: condition.state for name, condition in journal.conditions.items()}
        assert states.setdefault(step, (journal, found))[1] == found
    assert states[10][1] == {"drift": "ok"}
    assert states[45][1] == {"drift": "warning"}
    assert states[109][1] == {"drift": "warning", "nonfinite": "critical"}
    for journal, found in states.values():
        assert {name: condition.state for name, condition in journal.conditions.items()} == found
    source.close()
    chronicle.close()


def warn(writer, step):
    limit = {"metric": "drift_rolling", "comparison": "<=", "limit": 0.6, "unit": "rad", "value": 0.7}
    writer.event("condition", step=step, severity="warning", id="drift", state="warning", since_step=step, **limit)


def body(app):
    """What stands between the status and the way through time."""
    kinds = (ChartDeck, SafetyPanel, BasinPanel, EventList, CheckpointStrip)
    first, last = app.screen.query_one(StatusLine).region.bottom, app.screen.query_one("#footer").region.y
    assert all(app.screen.query(kind) for kind in kinds)
    return "\n".join(screen_text(app).splitlines()[first : last - 1])


def shows(app, step):
    past = app.screen.run_watch.past
    return past is not None and past.history.step == step


async def test_the_keys_of_time_show_every_panel_as_it_was_and_end_comes_back(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, 60)
        warn(writer, 60)
        log_steps(writer, 60, 100)
        add_checkpoint(writer, 99)
        async with opened(writer.run) as (app, pilot):
            assert not app.screen.query_one(Scrubber).display
            assert "▲ drift" in text_of(app.screen.query_one(SafetyPanel))
            await pilot.press(*["left_square_bracket"] * 3)
            await until(pilot, lambda: shows(app, 96))
            assert "◀ PAST step 96" in text_of(app.screen.query_one(StatusLine))
            assert "step 96" in text_of(app.screen.query_one(Scrubber))
            await pilot.press("right_square_bracket")
            await until(pilot, lambda: shows(app, 97))
            await pilot.press("left_curly_bracket")
            await until(pilot, lambda: shows(app, 60))
            await pilot.press("home")
            await until(pilot, lambda: shows(app, 0))
            await until(pilot, lambda: "● drift" in text_of(app.screen.query_one(SafetyPanel)))
            # What is wrong now is told wherever one looks.
            assert "now ▲ 1 warning" in text_of(app.screen.query_one(StatusLine))
            assert "none yet" in text_of(app.screen.query_one(CheckpointStrip))
            await pilot.press("end")
            await until(pilot, lambda: app.screen.run_watch.past is None)
            assert "▲ drift" in text_of(app.screen.query_one(SafetyPanel))
            assert not app.screen.query_one(Scrubber).display
            await pilot.press("right_square_bracket")
            assert app.screen.run_watch.past is None


@pytest.mark.parametrize("number", "12346")
async def test_time_has_its_keys_on_every_screen(tmp_path, number):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 30)
        add_checkpoint(writer, 20)
        async with opened(writer.run) as (app, pilot):
            if number != "1":
                below = app.screen
                await pilot.press(number)
                await until(pilot, lambda: app.screen is not below and app.screen.is_drawn)
            await pilot.press("home")
            await until(pilot, lambda: shows(app, 0))
            await pilot.press("right_square_bracket")
            await until(pilot, lambda: shows(app, 1))
            await pilot.press("end")
            await until(pilot, lambda: app.screen.run_watch.past is None)


async def test_a_frame_of_the_past_depends_on_nothing_that_came_later_nor_on_what_was_looked_at_before(tmp_path):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, 100)
        async with opened(writer.run, setup=Setup(at=70)) as (app, pilot):
            assert shows(app, 70)
            frame = body(app)
        for step in range(100, 160):
            writer.telemetry.log(step, {"phi": 50.0, "kappa": -9.0, "loss": 1e6, "new": 1.0}, basin=basin(step))
        warn(writer, 140)
        add_checkpoint(writer, 150)
        log_steps(writer, 60, 65)
        log_steps(writer, 65, 130)
        async with opened(writer.run, setup=Setup(at=65)) as (app, pilot):
            assert "◀ PAST step 65" in screen_text(app)
        async with opened(writer.run) as (app, pilot):
            app.screen.run_watch.go(59)
            await until(pilot, lambda: shows(app, 59))
            early = body(app)
            app.screen.run_watch.go(120)
            await until(pilot, lambda: shows(app, 120))
            app.screen.run_watch.go(59)
            await until(pilot, lambda: shows(app, 59))
            assert body(app) == early
    assert "GEOMETRIC" not in frame
    assert "70" in frame


async def test_a_replay_comes_to_the_end_and_its_speed_changes(tmp_path):
    writer = open_run(tmp_path)
    log_steps(writer, 0, 50)
    writer.close(0)
    # As if a step had taken a second.
    lines = [msgspec.json.decode(line) for line in writer.run.telemetry().read_bytes().splitlines()]
    slow = b"".join(msgspec.json.encode(line | {"t": 1e9 + line["step"]}) + b"\n" for line in lines)
    writer.run.telemetry().write_bytes(slow)
    async with opened(writer.run) as (app, pilot):
        watch = app.screen.run_watch
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: watch.past is not None)
        assert watch.speed == 10
        assert "▶ 10×" in text_of(app.screen.query_one(Scrubber))
        await pilot.press("space")
        assert watch.speed is None
        await pilot.press(*["greater_than_sign"] * 5)
        assert watch.speed == 1000
        await until(pilot, lambda: watch.speed is None and shows(app, 49))
        await pilot.press("home")
        await until(pilot, lambda: shows(app, 0))
        await pilot.press("escape")
        await until(pilot, lambda: watch.past is None)


async def test_a_click_on_the_line_of_time_goes_there(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 200)
        async with opened(writer.run) as (app, pilot):
            await pilot.press("left_square_bracket")
            await until(pilot, lambda: shows(app, 198))
            line = text_of(app.screen.query_one(Scrubber))
            await pilot.click(Scrubber, offset=(line.index("━") + 1, 0))
            await until(pilot, lambda: shows(app, 1) or shows(app, 2))
            assert isinstance(app.screen, RunScreen)


async def test_that_checkpoints_of_then_are_deleted_is_not_taken_for_that_there_were_none(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 50)
        name = add_checkpoint(writer, 49)
        log_steps(writer, 50, 90)
        shutil.rmtree(writer.run.checkpoint(name))
        writer.event("pruned", step=89, names=[name])
        async with opened(writer.run, setup=Setup(at=70)) as (app, pilot):
            assert "none is there any more" in text_of(app.screen.query_one(CheckpointStrip))
            app.screen.run_watch.go(20)
            await until(pilot, lambda: shows(app, 20))
            assert "none yet" in text_of(app.screen.query_one(CheckpointStrip))
            await pilot.press("4")
            await until(pilot, lambda: "there was none yet" in screen_text(app))


async def test_a_step_that_is_not_there_is_said(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 10, 20)
        async with opened(writer.run, setup=Setup(at=3)) as (app, pilot):
            await until(pilot, lambda: any("no sample at or before it" in words for words in told(app)))
            assert app.screen.run_watch.past is None


@pytest.mark.parametrize("lines", [0, 1])
async def test_a_run_without_samples_has_no_past(tmp_path, lines):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, lines)
        async with opened(writer.run) as (app, pilot):
            for key in ("left_square_bracket", "home", "left_curly_bracket", "greater_than_sign", "space", "end"):
                await pilot.press(key)
            await pilot.pause()
            assert "charlie" in screen_text(app)


def test_a_journal_and_its_copy_do_not_share_what_is_folded_later():
    journal = Journal()
    journal.add([event(0, 0.0, kind="condition", id="a", state="ok")])
    copied = journal.copy()
    copied.add([event(1, 1.0, kind="condition", id="a", state="critical")])
    assert journal.conditions["a"].state == "ok"
    assert copied.conditions["a"].state == "critical"
    assert (len(journal.events), len(copied.events)) == (1, 2)
