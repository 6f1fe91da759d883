"""`qig-tui report`: what a post-mortem says, that it says nothing that was not measured, and that text stays text."""

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from markdown_it import MarkdownIt

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.host import boot_id, host_name
from qig_core.rundir.schema import Event, Manifest, MetricSpec, ReferenceLine, Sample
from qig_tui.charting import chart_of
from qig_tui.picture import RunPicture
from qig_tui.report.command import main, parser
from qig_tui.report.document import MARK
from qig_tui.report.figures import figure
from qig_tui.report.markdown import md, table
from qig_tui.report.story import Story
from qig_tui.sources.local import LocalSource
from qig_tui.text import safe
from tests.tui.hostile import EVIL, MARKUP, REFUSED, TEXTS, corpus, events, manifest, sample, samples
from tests.tui.runs import SPECS, add_checkpoint, basin, full_run, log_steps, open_run, set_condition

HANDFUL = ("text-markup", "text-ansi", "text-bidi", "text-surrogate", "values-odd", "values-huge", "steps-wide",
           "rewinds", "emergencies-odd", "checkpoints-odd", "files-none", "sessions-none")  # fmt: skip
INVISIBLE = {*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {0x0A}
TAGS = set("h1 h2 h3 p table thead tbody tr th td img a pre code strong".split())
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@pytest.fixture
def brief(monkeypatch):
    """A run that does not beat is not waited for."""
    monkeypatch.setattr("qig_tui.once.WATCH_S", 0.05)


def report(path, capsys, *arguments):
    """The exit code, stdout and stderr."""
    code = main([str(path), *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def reported(path, folder, capsys):
    """The text of a report."""
    code, out, err = report(path, capsys, "--output", folder)
    assert (code, out) == (0, f"{folder / 'report.md'}\n"), err
    return (folder / "report.md").read_text()


def section(text, title):
    return re.search(rf"^## {re.escape(title)}\n\n(.*?)(?=\n## |\Z)", text, re.M | re.S)[1]


def cells(body):
    """The rows of the first table, without head and rule."""
    rows = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


class Html(HTMLParser):
    """What a renderer makes of a document: its tags, what they point to, and its text."""

    def __init__(self, markdown, parser=PARSER):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(parser.render(markdown))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def stopped(tmp_path):
    """A run that went back once, was stopped by a limit, and has told of all of it."""
    specs = [*SPECS[:2], MetricSpec(name="loss", unit="nats", label="loss", better="lower"), SPECS[3]]
    writer = open_run(tmp_path, metrics=specs, user="ada", threads=2, config={"lr": 3e-4, "token": "***"})
    set_condition(writer, "unarmed")
    set_condition(writer, "ok")
    log_steps(writer, 0, 200)
    name = add_checkpoint(writer, 100)
    alarm = {"since_step": 190, "cause": ["loss", "drift_rolling"], "value": 0.61}
    for state in ("warning", "critical"):
        set_condition(writer, state, **alarm)
    writer.event("soft_reset", step=199, from_step=199, to_step=100, checkpoint=name, cause="drift", number=1)
    writer.event("restored", step=100, checkpoint=name, fingerprint="f" * 64, how="soft_reset")
    set_condition(writer, "ok")
    log_steps(writer, 101, 150)
    add_checkpoint(writer, 140, size=6)
    remembered = [{"step": s, "t": 1.0e9, "m": {"phi": 0.25, "loss": None}, "nonfinite": {"loss": "nan"}}
                  for s in range(100, 150)]  # fmt: skip
    emergency = {
        "id": "e1", "step": 149, "t": 1.0e9, "cause": {"kind": "limit", "detail": "phi below 0.5", "exit_code": 75},
        "exit_code": 75, "checkpoint": None, "note": "the disk was full", "samples": remembered,
        "stages": [{"stage": "seen", "t": 5.0}, {"stage": "stopped", "t": 5.25}],
    }  # fmt: skip
    writer.run.emergency("e1").write_bytes(encode_document(emergency))
    writer.run.emergency_stacks("e1").write_text("Thread 1")
    writer.close(75, reason="phi below 0.5")
    return writer.run.path


def test_a_stopped_run_says_first_how_it_ended_and_why(stopped, tmp_path, capsys):
    text = reported(stopped, tmp_path / "out", capsys)
    assert text.startswith(f"{MARK}\n\n# charlie\n\n")
    summary = text.split("## Headline metrics")[0]
    assert "**It ended at step 149 with exit code 75 (a limit stopped it)**: phi below 0.5." in summary
    for row in ("| alarms | 1, of which none at the end |", "| step | 149 of 1 000 (15 %) |", "| went back | once |"):
        assert row in summary
    metrics = {row[0]: row[1:] for row in cells(section(text, "Headline metrics"))}
    assert metrics["loss"] == ["0.0333 nats", "149", "0.0333 nats", "149", "0.0250 nats", "5.000 nats", "249"]
    assert metrics["phi (Φ)"][2:4] == ["–", "–"]
    assert "loss_heldout" not in metrics


def test_alarms_tell_their_cause_and_how_long_they_lasted(stopped, tmp_path, capsys):
    text = reported(stopped, tmp_path / "out", capsys)
    (row,) = cells(section(text, "Alarms"))
    blame = "loss moved first, then drift_rolling"
    assert row[:6] == ["drift", "▲ warning at 0 → ✖ critical at 0", blame, "0.610 rad", "0.610 rad", "≤ 0.6 rad"]
    assert re.fullmatch(r"0 steps, \d+ ms, cleared at 0", row[6])
    (state,) = cells(section(text, "Safety conditions at the end"))
    assert state[:7] == ["● ok", "drift", "drift_rolling", "0.500 rad", "≤ 0.6 rad", "17 %", "3"]


def test_an_emergency_shows_the_samples_before_it_and_where_the_threads_stood(stopped, tmp_path, capsys):
    text = reported(stopped, tmp_path / "out", capsys)
    body = section(text, "Emergencies")
    parts = ["| cause | limit phi below 0.5 |", "| checkpoint | none: the disk was full |", "emergencies/e1.stacks.txt"]
    for part in (*parts, "seen (0 ms) → stopped (250 ms)", "[emergency-e1.csv](emergency-e1.csv)"):
        assert part in body
    last = body.splitlines()[-1].strip("|").split("|")
    assert [cell.strip() for cell in last][0::2] == ["149", "0.250", "nan"]
    csv = (tmp_path / "out" / "emergency-e1.csv").read_text().splitlines()
    assert (len(csv), csv[0], csv[-1]) == (51, "step,t,phi,loss", "149,1000000000.0,0.25,nan")


def test_the_way_of_the_run_is_told_with_what_it_left_behind(stopped, tmp_path, capsys):
    text = reported(stopped, tmp_path / "out", capsys)
    lineage = section(text, "Lineage")
    assert "| soft_reset | step-00000100 | 199 | 100 |" in lineage
    assert "| 101 | 199 | 99 |" in lineage
    shelf = {row[0]: row for row in cells(section(text, "Checkpoints"))}
    assert shelf["step-00000100"][-2:] == ["latest, best, last good", "✓ complete"]
    assert shelf["step-00000140"][-1] == "✖ TORN: model.bin has another size"
    kinds = [row[3] for row in cells(section(text, "Timeline"))]
    told = "start condition checkpoint condition condition soft_reset restored condition checkpoint end"
    assert kinds == told.split()
    assert '"token": "***"' in section(text, "Environment")


def test_the_last_samples_stand_in_the_document_and_all_two_hundred_beside_it(stopped, tmp_path, capsys):
    text = reported(stopped, tmp_path / "out", capsys)
    rows = cells(section(text, "The last samples"))
    assert [row[0] for row in rows] == [str(step) for step in range(130, 150)]
    assert rows[-1][2] == f"{0.7 + 0.1 * math.sin(149 / 9):.3f}"
    lines = (tmp_path / "out" / "last-samples.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == [*range(49, 200), *range(101, 150)]
    assert float(lines[-1].split(",")[2]) == 0.7 + 0.1 * math.sin(149 / 9)


def test_where_nothing_was_measured_no_number_stands(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    manifest(tmp_path / "run")
    text = reported(tmp_path / "run", tmp_path / "out", capsys)
    assert "It ended before its first sample with exit code 0 (it finished)" in text
    assert "| step | – |" in text
    for title in ("Headline metrics", "The last samples"):
        assert section(text, title).strip() == "No sample was recorded."
    assert section(text, "The basin at the end").strip() == "No basin was recorded."
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.md"]


def test_a_run_whose_process_is_gone_shows_what_it_printed_last(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    gone = {"id": "0123456789abcdef", "t": 1.0e9, "pid": 1, "host": host_name(), "boot_id": boot_id(), "start_ticks": 1}
    manifest(tmp_path / "run", state="running", exit_code=None, sessions=[gone])
    samples(tmp_path / "run", sample(0), sample(1))
    (tmp_path / "run" / "console.log").write_text("Traceback\x1b[31m\nMemoryError: `out`\n")
    text = reported(tmp_path / "run", tmp_path / "out", capsys)
    assert "**Its process is gone after step 1, and it never said why:**" in text
    assert "| last record | 2001-09-09" in text
    assert "```\nTraceback\\x1b[31m\nMemoryError: `out`\n```" in text


def test_a_live_run_has_not_ended(tmp_path, capsys):
    with full_run(tmp_path) as writer:
        text = reported(writer.run.path, tmp_path / "out", capsys)
    assert "**It has not ended:** LIVE" in text
    assert "| until now |" in text


def test_a_file_that_is_read_in_two_parts_is_told_as_one(tmp_path, capsys, monkeypatch):
    writer = open_run(tmp_path)
    for step in [*range(0, 500), *range(300, 900)]:
        writer.telemetry.log(step, {"phi": float(step)}, basin=basin(step) if step % 100 == 0 else None)
    writer.close(0)
    texts = []
    for name, tail_bytes in (("whole", 1 << 30), ("parts", 1 << 14)):
        monkeypatch.setattr("qig_tui.report.reading.LocalSource", partial(LocalSource, tail_bytes=tail_bytes))
        texts.append(reported(writer.run.path, tmp_path / name, capsys))
    for title in ("Headline metrics", "Lineage"):
        assert section(texts[0], title) == section(texts[1], title)
    assert "| 300 | 499 | 200 |" in texts[1]
    assert "1 100 samples" in section(texts[1], "How this was read")


def test_a_long_timeline_keeps_its_ends_and_the_worst_between():
    story = Story()
    worst = {400: "critical", 700: "warning"}
    story.add(Event(i, float(i), "note", i, severity=worst.get(i, "info"), data={"text": "x"}) for i in range(10_000))
    places = [told.place for told in story.timeline()]
    assert (places[0], places[-1], story.total) == (0, 9_999, 10_000)
    assert {400, 700} < set(places)
    assert len(places) < 500
    assert story.counts["note", "info"] == 9_998


def picture_of(values, **spec):
    """A picture with one metric at steps 0, 1, ..."""
    picture = RunPicture(Manifest(id="r", metrics=[MetricSpec(name="x", **spec)]))
    kinds = [{} if math.isfinite(value) else {"x": str(value)} for value in values]
    known = [value if math.isfinite(value) else None for value in values]
    picture.history.add(
        [Sample(i, i, float(i), m={"x": v}, nonfinite=k) for i, (v, k) in enumerate(zip(known, kinds, strict=True))]
    )
    return picture


def paths(svg, classes):
    return [node.get("d") for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
            if node.get("class") == classes]  # fmt: skip


def heights(data):
    """The y of every point of a path with relative steps."""
    numbers = np.array(re.findall(r"-?[\d.]+", data), dtype=float).reshape(-1, 2)
    return numbers[:, 1].cumsum()


def test_a_chart_of_many_points_keeps_the_spike_and_stays_small():
    values = [math.sin(i / 900) for i in range(60_000)]
    values[31_234] = 9.0
    drawn = figure(chart_of(picture_of(values), "x"), {})
    (band,), (line,) = paths(drawn.svg, "band")[:1], paths(drawn.svg, "line")[:1]
    grid = {float(re.search(r"M\S+ ([\d.]+)", d)[1]) for d in paths(drawn.svg, "grid")}
    assert min(grid) < heights(band).min() < min(grid) + 25
    assert heights(line).min() > heights(band).min() + 100
    assert drawn.measured == 60_000
    assert drawn.drawn < 60_000
    assert len(drawn.svg) < 100_000
    assert "prefers-color-scheme: dark" in drawn.svg


def test_what_is_not_finite_is_marked_at_the_edge_and_no_coordinate_is():
    drawn = figure(chart_of(picture_of([1.0, math.nan, math.inf, -math.inf, 2.0]), "x"), {})
    *below, above, _ = paths(drawn.svg, "odd")
    middle = (float(below[0][1:4]) + float(below[1][1:4])) / 2
    assert [path[4:].split("l")[0].count("v") for path in (*below, above)] == [0, 1, 1]
    assert float(below[0][1:4]) < float(above[1:4]) == middle < float(below[1][1:4])
    assert not re.search(r'd="[^"]*(nan|inf)', drawn.svg)


def test_lines_and_bands_of_values_are_drawn_and_named():
    references = [ReferenceLine(0.2, "geometric", upto=0.4), ReferenceLine(0.9, "<unstable>", "warning")]
    drawn = figure(chart_of(picture_of([i / 100 for i in range(100)], references=references), "x"), {})
    (band,), (line,) = paths(drawn.svg, "span info"), paths(drawn.svg, "ref warning")
    base = max(float(re.search(r"M\S+ ([\d.]+)", d)[1]) for d in paths(drawn.svg, "axis"))
    scale = (base - float(re.search(r"M\S+ ([\d.]+)", line)[1])) / 0.9
    assert [base - heights(band).max(), base - heights(band).min()] == pytest.approx(
        [0.2 * scale, 0.4 * scale], abs=0.2
    )
    assert ">&lt;unstable&gt;</text>" in drawn.svg


def test_a_branch_that_was_left_is_drawn_apart_and_so_is_what_happened():
    picture = picture_of([float(i) for i in range(100)])
    picture.history.add([Sample(100 + i, 50 + i, 0.0, m={"x": 0.0}) for i in range(40)])
    drawn = figure(chart_of(picture, "x"), {"critical": [99], "restored": [50], "checkpoint": [10, 2_000]})
    assert len([d for d in paths(drawn.svg, "lost") if d.count("l") == 49]) == 1
    assert len([d for d in paths(drawn.svg, "checkpoint") if d.startswith("M")]) == 2
    for name in ("abandoned branch", "critical", "went back", "checkpoint"):
        assert f">{name}</text>" in drawn.svg
    assert ">warning</text>" not in drawn.svg


PROSE = (
    *("| a | b |", "`code` ``x``", "<b>&amp;</b> <script>", "a_b _c_ *d* ~~e~~ $f$", "\\| \\* \\", "# no heading"),
    *("1. no list", "- no list", "12) x", "=====", "http://x.y www.x.y", "![a](b) [c]: d", "--- | ---", MARKUP),
)
"""Text that means something in Markdown, or in HTML."""


@pytest.mark.parametrize("text", [*TEXTS.values(), *PROSE], ids=[*TEXTS, *map(str, range(len(PROSE)))])
def test_text_from_a_file_stays_text(text):
    for shown in (md(text, 100), "\n".join(table(["h"], [[md(text, 100)]]))):
        html = Html(shown, MarkdownIt("gfm-like", {"html": True, "linkify": False}))
        assert html.tags <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
        assert safe(text, 100).split() == html.text.removeprefix("\n\n\nh\n").split()


def test_a_folder_with_something_else_is_left_alone_and_an_older_report_gives_way(stopped, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    code, _, err = report(stopped, capsys, "--output", out)
    assert (code, "holds something else than a report" in err, len(list(out.iterdir()))) == (2, True, 1)
    assert report(stopped, capsys, "--output", out, "--force")[0] == 0
    (out / "figure-09-old.svg").write_text("<svg/>")
    assert report(stopped, capsys, "--output", out)[0] == 0
    assert not (out / "figure-09-old.svg").exists()
    assert (out / "thesis.tex").read_text() == "mine"


def test_the_default_folder_is_never_in_the_run_directory(stopped, tmp_path, capsys, monkeypatch):
    before = sorted(stopped.rglob("*"))
    monkeypatch.chdir(stopped)
    code, _, err = report(".", capsys)
    assert (code, "--output" in err) == (2, True)
    monkeypatch.chdir(tmp_path)
    assert report(stopped, capsys)[0] == 0
    assert (tmp_path / "report-run1" / "report.md").exists()
    assert sorted(stopped.rglob("*")) == before


def test_for_programs_it_tells_progress_and_result_line_by_line(stopped, tmp_path, capsys):
    code, out, err = report(stopped, capsys, "--output", tmp_path / "out", "--json")
    *progress, last = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    assert all(set(line["progress"]) == {"doing", "done", "total"} for line in progress)
    result = last["result"]
    assert result["document"] == str(tmp_path / "out" / "report.md")
    assert (result["state"], result["samples"]) == ("EXITED", 249)
    assert sorted(result["files"]) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_what_cannot_be_reported_or_written_is_refused_in_a_sentence(stopped, tmp_path, capsys):
    (tmp_path / "file").touch()
    for path, out, expected in ((tmp_path / "none", "x", 2), (stopped, tmp_path / "file", 2), (stopped, "/proc/x", 74)):
        code, said, err = report(path, capsys, "--output", out)
        assert (code, said, len(err.splitlines())) == (expected, "", 1), err
        assert err.startswith("qig-tui report: ")


def test_neither_torch_nor_a_screen_is_loaded(stopped, tmp_path):
    script = (
        "import sys; from qig_tui.report.command import main; code = main(sys.argv[1:])\n"
        "print(code, *{m.split('.')[0] for m in sys.modules} & {'textual', 'torch', 'scipy', 'pyarrow'})"
    )
    argv = [sys.executable, "-c", script, str(stopped), "--output", str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


def test_help_tells_the_exit_codes():
    assert "exit codes: 0 written. 2 " in parser().format_help()


def check(path, out, capsys):
    """Report one run: it is written and says nothing but text, or refused in a sentence."""
    code, said, err = report(path, capsys, "--output", out)
    assert (code == 2) == (path.name in REFUSED), ascii((path.name, err))
    assert not INVISIBLE & set(map(ord, said + err)), ascii(path.name)
    if code:
        assert len(err.splitlines()) == 1
        return
    text = (out / "report.md").read_text()
    assert not INVISIBLE & set(map(ord, text)), ascii(path.name)
    html = Html(text)
    assert html.tags <= TAGS, ascii((path.name, html.tags - TAGS))
    assert all((out / link).is_file() for link in html.links), ascii((path.name, html.links))
    for drawing in out.glob("*.svg"):
        svg = drawing.read_text()
        ET.fromstring(svg)
        assert len(svg) < 100_000
        assert not INVISIBLE & set(map(ord, svg))
        assert not re.search(r' (d|x|y)="[^"]*(nan|inf)', svg), ascii(path.name)


@pytest.mark.parametrize("names", [HANDFUL, pytest.param(tuple(EVIL), marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.usefixtures("brief")
def test_nothing_in_a_run_directory_breaks_it(tmp_path, capsys, names):
    for number, path in enumerate(corpus(tmp_path / "runs", names)):
        check(path, tmp_path / f"out{number}", capsys)


def test_an_event_flood_is_counted_and_its_worst_is_told(tmp_path, capsys):
    manifest(tmp_path)
    samples(tmp_path, sample(0))
    flood = [{"seq": i, "t": 1.0e9, "step": i, "kind": "note", "data": {"text": "t"}} for i in range(3000)]
    flood[1500] |= {"severity": "critical", "data": {"text": "here it broke"}}
    events(tmp_path, *flood)
    body = section(reported(tmp_path, tmp_path / "out", capsys), "Timeline")
    assert body.startswith("3 000 events, of which 121 are told")
    assert "here it broke" in body
    assert "1 480 left out" in body
