"""Further streams of a run: found, looked at, travelled in; what is the run's stays the run's."""

import json

import numpy as np
import pytest

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest, Sample
from qig_tui.charting import chart_of
from qig_tui.cli import main
from qig_tui.once import take
from qig_tui.picture import RunPicture
from qig_tui.screens.basin import BasinScreen
from qig_tui.screens.run import RunScreen
from qig_tui.setup import Setup
from qig_tui.sources.local import open_run
from qig_tui.sources.streams import StreamUpdate
from qig_tui.sources.telemetry import check_stream, streams_of
from qig_tui.widgets.chart import LineChart
from qig_tui.widgets.chart_deck import ChartDeck
from qig_tui.widgets.footer import HonestyFooter
from qig_tui.widgets.safety import SafetyPanel
from qig_tui.widgets.status import StatusLine
from tests.tui.programs import AWAKENING, END, charlie, constellation
from tests.tui.runs import basin, log_steps
from tests.tui.runs import open_run as new_run
from tests.tui.screens import opened, text_of, told, until, until_shown


@pytest.fixture(scope="module")
def charlie_run(tmp_path_factory):
    with charlie(tmp_path_factory.mktemp("charlie")) as writer:
        pass
    return writer.run


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    with constellation(tmp_path_factory.mktemp("stars")) as writer:
        pass
    return writer.run


def headline(app):
    return text_of(app.screen.query(LineChart).first()).splitlines()[0]


def status(app):
    return text_of(app.screen.query_one(StatusLine))


def test_streams_are_those_of_the_manifest_in_its_order_and_those_that_have_a_file(tmp_path):
    with constellation(tmp_path, 12, until=3) as writer:
        pass
    for name in ("rank10", "rank2"):
        writer.run.telemetry(name).write_bytes(writer.run.telemetry("gary1").read_bytes())
    known = streams_of(writer.run, read_manifest(writer.run))
    assert known == [*(f"gary{i + 1}" for i in range(12)), "rank2", "rank10"]


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("gray2", ["gary1", "gary2"], "has no stream 'gray2'; it has gary1, gary2; did you mean gary2 or gary1?"),
        ("zzz", ["control", "branch"], "has no stream 'zzz'; it has control, branch"),
        ("control", [], "has no stream 'control'; it has no further streams"),
    ],
)
def test_a_stream_that_is_not_there_is_refused_with_the_nearest(name, known, words):
    with pytest.raises(LookupError, match="the run") as refusal:
        check_stream(name, known)
    assert words in str(refusal.value)


@pytest.mark.parametrize("command", [[], ["--once"], ["--once", "--json"], ["report"], ["export"]])
def test_every_command_refuses_an_unknown_stream_in_one_line(stars, capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    first, rest = (command[:1], []) if command[:1] in (["report"], ["export"]) else ([], command)
    assert main([*first, str(stars.path), *rest, "--stream", "gary9"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "has no stream 'gary9'; it has gary1, gary2, gary3; did you mean gary" in said.err


def test_a_stream_that_cannot_be_read_is_refused(tmp_path):
    with charlie(tmp_path, until=1) as writer:
        pass
    writer.run.telemetry("control").unlink()
    writer.run.telemetry("control").mkdir()
    with pytest.raises(RunFormatError, match=r"telemetry.control.jsonl' cannot be read"):
        open_run(writer.run, "control")


def test_a_snapshot_shows_the_streams_samples_and_the_runs_limits(stars, capsys):
    assert main([str(stars.path), "--once", "--json", "--stream", "gary2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["stream"] == "gary2"
    assert shown["streams"] == ["gary1", "gary2", "gary3"]
    assert shown["metrics"]["phi"]["last"] == pytest.approx(0.81)
    assert "pairwise_min" not in shown["metrics"]
    values = {condition["id"]: condition["value"] for condition in shown["conditions"]}
    assert values["gary2.divergence"] == 3.5, "of the run's own newest sample"
    assert main([str(stars.path), "--once", "--stream", "gary2", "--at", "40"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("stars3 · gary2 ")
    assert "PAST step 40 / 100" in first
    assert any("3 Garys, active gary1" in line for line in rest)


def test_a_streams_chart_has_its_own_limits_and_label(stars):
    picture = take(stars, stream="gary2")
    chart = chart_of(picture, "loss")
    assert [line.label for line in chart.references] == ["≤ 4 gary2.divergence"]
    assert picture.title("phi") == "integration", "the run's label of gary2.phi without its name"
    assert chart_of(take(stars), "loss").references == ()


def test_a_step_before_a_streams_first_sample_is_told(charlie_run, capsys):
    assert main([str(charlie_run.path), "--once", "--stream", "branch", "--at", "10"]) == 2
    assert "no sample of the stream branch at or before step 10" in capsys.readouterr().err


def test_a_report_of_a_stream_has_its_metrics_and_the_runs_phases(charlie_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(charlie_run.path), "--stream", "control"]) == 0
    assert capsys.readouterr().out.strip() == "report-charlie-control/report.md"
    document = (tmp_path / "report-charlie-control" / "report.md").read_text()
    assert document.splitlines()[2] == "# charlie · control"
    assert "| stream | control: its metrics, charts and basin |" in document
    assert "## Phases" in document
    assert "passed at 300: graduated" in document
    assert "gain" not in document.partition("## Charts")[0].partition("## Headline metrics")[2]


async def test_a_key_goes_through_the_streams_in_a_circle(charlie_run):
    async with opened(charlie_run) as (app, pilot):
        watch = app.screen.run_watch
        assert ")" in text_of(app.screen.query_one(HonestyFooter))
        seen = []
        for _ in range(3):
            await pilot.press("right_parenthesis")
            await until(pilot, lambda: watch.is_drawn and not watch._unread)
            seen.append((watch.stream, headline(app).split()[1]))
        assert [stream for stream, _ in seen] == ["control", "branch", None]
        assert seen[1][1] == "0"
        assert seen[0][1].startswith(("0.69", "0.70", "0.71"))
        await pilot.press("left_parenthesis")
        await until(pilot, lambda: "charlie · branch" in status(app))
        assert "limits were ok" in status(app)


async def test_a_run_without_further_streams_says_so(writer):
    async with opened(writer.run) as (app, pilot):
        assert ") stream" not in text_of(app.screen.query_one(HonestyFooter))
        await pilot.press("right_parenthesis")
        await until(pilot, lambda: len(told(app)) == 1)
        assert "this run has one stream" in told(app)[0]


async def test_zoom_smoothing_and_the_moment_survive_the_change(charlie_run):
    async with opened(charlie_run, setup=Setup(at=200)) as (app, pilot):
        screen, watch = app.screen, app.screen.run_watch
        await pilot.press("plus", "s")
        deck = screen.query_one(ChartDeck)
        view = deck.view
        await pilot.press("right_parenthesis", "right_parenthesis")
        await until(pilot, lambda: watch.stream == "branch" and watch.past is not None)
        assert (watch.at, watch.past.run_moment.step) == (200, 200)
        assert deck.view == view
        assert "charlie · branch" in status(app)
        assert "PAST step 200" in status(app)
        # What had happened by then is the run's.
        assert {event.step for event in watch.shown.journal.events if event.kind == "phase"} >= {0, 120, 140}
        assert max(event.step or 0 for event in watch.shown.journal.events) <= 200
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: watch.at == 199)


async def test_a_moment_that_a_stream_does_not_have_is_told_and_now_is_shown(charlie_run):
    async with opened(charlie_run, setup=Setup(at=40)) as (app, pilot):
        watch = app.screen.run_watch
        await pilot.press("left_parenthesis")
        await until(pilot, lambda: len(told(app)) == 1)
        assert "step 40: the stream branch has no sample at or before it" in told(app)[0]
        assert watch.past is None
        assert watch.at == END


async def test_a_start_at_a_stream_and_a_step(charlie_run):
    async with opened(charlie_run, setup=Setup(stream="branch", at=AWAKENING + 9)) as (app, _):
        watch = app.screen.run_watch
        assert (watch.stream, watch.at) == ("branch", AWAKENING + 9)
        assert "charlie · branch" in status(app)


async def test_the_basin_screen_shows_the_streams_basins(charlie_run):
    async with opened(charlie_run) as (app, pilot):
        await pilot.press("2")
        await until_shown(pilot, BasinScreen)
        screen = app.screen
        await until(pilot, lambda: screen.is_settled)
        await pilot.press("right_parenthesis")
        await until(pilot, lambda: screen.run_watch.stream == "control" and not screen.run_watch._unread)
        await until(pilot, lambda: screen.is_settled and screen._reading.memory.kept is not None)
        mine = np.frombuffer(basin(END / 50 + 1.0), dtype="<f4")
        np.testing.assert_allclose(screen.shown.basin().values, mine, atol=1e-6)
        kept = screen._reading.memory.kept
        assert kept.recorded == 31
        np.testing.assert_allclose(kept.values[-1], mine, atol=1e-6)


async def test_conditions_and_progress_stay_the_runs(stars):
    async with opened(stars, setup=Setup(stream="gary2")) as (app, _):
        watch = app.screen.run_watch
        rows = {row.condition.id: row for row in watch.shown.condition_rows()}
        assert rows["gary2.divergence"].value == 3.5
        assert rows["gary2.divergence"].margin == pytest.approx(0.125)
        assert "gary2.divergence" in text_of(app.screen.query_one(SafetyPanel))
        assert watch.shown.history.latest("gary2.loss") is None
        assert watch.picture.checkpoints == watch.shown.checkpoints


def test_progress_is_the_runs_wherever_the_stream_ends():
    run = RunPicture(Manifest(id="a", total_steps=100))
    run.history.add([Sample(i, i, float(i), m={"phi": 0.5}) for i in range(31)])
    looked = run.of_stream("gary1")
    looked.apply_stream(StreamUpdate(samples=[Sample(0, 3, 0.0, m={"phi": 0.1})]))
    assert (looked.progress.step, looked.progress.fraction) == (30, 0.3)
    assert looked.history.step == 3
    past = looked.until(looked.history.newest, run.journal, run.history.newest)
    assert past.progress.step == 30
    assert looked.until(looked.history.newest, run.journal).progress.step is None, "the run had no sample then"


async def test_the_chart_of_a_condition_is_one_of_the_runs_own_stream(stars):
    async with opened(stars, setup=Setup(stream="gary2")) as (app, pilot):
        watch = app.screen.run_watch
        await pilot.press("3", "down", "m")
        await until_shown(pilot, RunScreen)
        assert watch.stream is None
        await until(pilot, lambda: headline(app).startswith("gary2.loss"))


async def test_what_is_appended_to_a_stream_and_a_stream_that_comes_later_are_found(tmp_path):
    with new_run(tmp_path, "live") as writer:
        log_steps(writer, 0, 20)
        async with opened(writer.run) as (app, pilot):
            screen = app.screen
            assert screen.picture.streams == []
            writer.stream("late").log(0, {"phi": 0.1})
            await until(pilot, lambda: list(screen.picture.streams) == ["late"])
            await pilot.press("right_parenthesis")
            await until(pilot, lambda: headline(app).startswith("Φ 0.1"))
            writer.stream("late").log(1, {"phi": 0.9})
            await until(pilot, lambda: headline(app).startswith("Φ 0.9"))
            # The run's own goes on beside it.
            log_steps(writer, 20, 30)
            await until(pilot, lambda: screen.picture.history.step == 29)
            assert screen.shown.history.step == 1


async def test_a_stream_that_the_manifest_names_is_waited_for(tmp_path):
    with new_run(tmp_path, "live", streams=["control"]) as writer:
        log_steps(writer, 0, 20)
        async with opened(writer.run, setup=Setup(stream="control")) as (app, pilot):
            assert "charlie · control" in status(app)
            writer.stream("control").log(3, {"phi": 0.25})
            await until(pilot, lambda: headline(app).startswith("Φ 0.25"))


async def test_a_stream_that_is_replaced_is_read_from_its_start(tmp_path):
    with charlie(tmp_path, until=40) as writer:
        pass
    path = writer.run.telemetry("control")
    first = path.read_bytes().splitlines(keepends=True)[0]
    async with opened(RunDir(writer.run.path), setup=Setup(stream="control")) as (app, pilot):
        path.write_bytes(first)
        await until(pilot, lambda: app.screen.shown.history.step == 0)
        assert any("telemetry.control.jsonl was cut or replaced" in words for words in told(app))
        assert app.screen.picture.history.step == 40


async def test_the_palette_offers_the_other_streams(stars):
    from qig_tui.palette import _streams

    async with opened(stars, setup=Setup(stream="gary2")) as (app, pilot):
        offered = {entry.text: entry.run for entry in _streams(app.screen)}
        assert list(offered) == ["stream the run's own", "stream gary1", "stream gary3"]
        offered["stream gary3"]()
        await until(pilot, lambda: "stars3 · gary3" in status(app))


@pytest.mark.parametrize("size", [(160, 48), (80, 24), (60, 15)])
async def test_at_every_size_it_stands_whose_numbers_these_are(stars, size):
    async with opened(stars, size=size, setup=Setup(stream="gary2", at=50)) as (app, _):
        assert " · gary2" in status(app)
