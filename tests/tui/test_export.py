"""`qig-tui export`: every sample with every bit, in three formats, against a reading of the same file by hand."""

import base64
import csv
import io
import json
import math
import struct
import subprocess
import sys
from collections import Counter

import pytest

from qig_tui.export import reading
from qig_tui.export.command import main, parser
from qig_tui.export.reading import Wanted, rows, survey
from tests.tui.hostile import EVIL, REFUSED, corpus, manifest, sample, samples
from tests.tui.runs import basin, full_run, open_run

ODD = [5e-324, -1.7976931348623157e308, 0.1 + 0.2, -0.0, 1 / 3, math.nan, math.inf, -math.inf]
FIXED = ["seq", "step", "t", "session", "regime", "branch"]
HANDFUL = ("text-markup", "text-nul", "values-odd", "values-beyond-float", "steps-odd", "seq-odd", "lines-torn",
           "basin-odd", "schema-drift", "files-none", "metrics-300")  # fmt: skip
EVIL_ALONE = frozenset({"events-folder"})
"""Refused as a run to look at; its samples are whole."""


@pytest.fixture
def odd_run(tmp_path):
    """Two sessions, every kind of number, metrics that come and go, steps that go back, a line that is none."""
    with open_run(tmp_path) as writer:
        for step in range(60):
            metrics = {"phi": 0.5 + step / 7, "loss": ODD[step % len(ODD)]}
            if step % 3 == 0:
                metrics["step"] = float(step)
            writer.telemetry.log(step, metrics, basin=basin(step) if step % 5 == 0 else None, regime="geometric")
        writer.telemetry.log(40, {"kappa": 58.25}, regime=None)
        writer.telemetry.log(41, {"phi": 1e-9})
        path = writer.run.path
    with open(path / "telemetry.jsonl", "ab") as file:
        file.write(b'{"seq": 62, "nothing": 1}\n')
        file.write(b'{"seq":63,"step":42,"t":9.5,"session":"another","m":{"phi":0.25}}\n')
        file.write(b'{"seq":63,"step":42,"t":9.5,"m":{"phi":0.5}}\n')
        file.write(b'{"seq":10,"step":43,"t":9.5,"m":{"phi":0.125}}\n')
        file.write(b'{"seq":64,"step":')
    return path


def by_hand(path):
    """What stands in the file, as the json module reads it: each line, its session, its branch."""
    found, session, seq = [], None, -1
    for line in (path / "telemetry.jsonl").read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if "step" not in record:
            continue
        session = record.get("session", session)
        late = record["seq"] <= seq
        seq = max(seq, record["seq"])
        found.append({**record, "session": session, "branch": "late" if late else "live"})
    for i, record in enumerate(found):
        later = [other["step"] for other in found[i + 1 :] if other["branch"] != "late"]
        if record["branch"] == "live" and any(step <= record["step"] for step in later):
            record["branch"] = "abandoned"
    return found


def value_by_hand(record, name):
    """The number of a metric; None where it was not measured."""
    if name not in record["m"]:
        return None
    value = record["m"][name]
    return float(record["nonfinite"][name]) if value is None else value


def bits(value):
    """A float as its eight bytes, all NaN alike; None stays."""
    return None if value is None else "nan" if math.isnan(value) else struct.pack("<d", value)


def basin_by_hand(record):
    if "basin" not in record:
        return [None] * 64
    raw = base64.b64decode(record["basin"], validate=True)
    values = struct.unpack("<64f", raw)
    return [value / math.fsum(values) for value in values]


def export(path, capsys, *arguments):
    """The exit code, stdout and stderr."""
    code = main([str(path), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def exported(path, tmp_path, capsys, name, *arguments):
    out = tmp_path / name
    code, _, err = export(path, capsys, "--output", str(out), *arguments)
    assert code == 0, err
    return out, err


def test_csv_holds_every_sample_of_the_file_to_the_last_bit(odd_run, tmp_path, capsys):
    out, err = exported(odd_run, tmp_path, capsys, "x.csv", "--basins")
    known = by_hand(odd_run)
    with open(out, newline="", encoding="utf-8") as file:
        head, *body = csv.reader(file)
    assert head == [*FIXED, "phi", "loss", "m.step", "kappa", *(f"basin_{i:02d}" for i in range(64))]
    assert len(body) == len(known) == 65
    for cells, record in zip(body, known, strict=True):
        assert cells[:2] == [str(record["seq"]), str(record["step"])]
        assert bits(float(cells[2])) == bits(record["t"])
        assert cells[3:6] == [record["session"], record.get("regime", ""), record["branch"]]
        values = [float(cell) if cell else None for cell in cells[6:10]]
        names = ("phi", "loss", "step", "kappa")
        assert list(map(bits, values)) == [bits(value_by_hand(record, name)) for name in names]
        entries = [float(cell) if cell else None for cell in cells[10:]]
        assert entries == pytest.approx(basin_by_hand(record), rel=1e-15, abs=0)
    assert Counter(record["branch"] for record in known) == {"live": 43, "abandoned": 20, "late": 2}
    assert "65 of 65 samples" in err
    assert "1 line unreadable, left out" in err
    assert "2 samples with a seq" in err


def test_json_lines_are_the_lines_of_the_file_with_session_and_branch_in_each(odd_run, tmp_path, capsys):
    out, _ = exported(odd_run, tmp_path, capsys, "x.jsonl")
    known = by_hand(odd_run)
    for record in known:
        record.pop("basin", None)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found == known
    assert sum("nonfinite" in record for record in found) > 20


def test_parquet_tells_not_measured_from_not_a_number(odd_run, tmp_path, capsys):
    import pyarrow.parquet

    out, _ = exported(odd_run, tmp_path, capsys, "x.parquet", "--basins")
    table = pyarrow.parquet.read_table(out)
    known = by_hand(odd_run)
    assert table.num_rows == len(known)
    for name in FIXED:
        assert table[name].to_pylist() == [record.get(name) for record in known], name
    for name in ("phi", "loss", "kappa"):
        assert list(map(bits, table[name].to_pylist())) == [bits(value_by_hand(record, name)) for record in known]
    assert table["loss"].null_count == 5
    with_basin = [record for record in known if "basin" in record]
    assert table["basin_07"].drop_null().to_pylist() == pytest.approx([basin_by_hand(r)[7] for r in with_basin])


def test_rows_and_columns_can_be_chosen(odd_run, capsys):
    asked = ["--output", "-", "--metrics", "loss,phi", "--from", "38", "--to", "42"]
    code, out, _ = export(odd_run, capsys, *asked)
    assert code == 0
    head, *body = csv.reader(io.StringIO(out))
    assert head[6:] == ["loss", "phi"]
    assert [(cells[1], cells[5]) for cells in body] == [
        *[(str(step), "live") for step in (38, 39)],
        *[(str(step), "abandoned") for step in (40, 41, 42)],
        *[(str(step), "live") for step in (40, 41, 42)],
        ("42", "late"),
    ]
    _, out, _ = export(odd_run, capsys, *asked, "--branch", "live")
    assert [cells[5] for cells in csv.reader(io.StringIO(out))][1:] == ["live"] * 5
    _, out, _ = export(odd_run, capsys, *asked, "--format", "jsonl")
    assert set().union(*(json.loads(line)["m"] for line in out.splitlines())) == {"loss", "phi"}


def test_a_null_of_an_unknown_kind_is_not_a_number(tmp_path, capsys):
    manifest(tmp_path)
    samples(tmp_path, sample(0, {"a": None, "b": None, "c": 1.0}, nonfinite={"a": "odd"}))
    _, out, _ = export(tmp_path, capsys, "--output", "-")
    assert out.splitlines()[1].endswith(",live,nan,nan,1.0")


def test_text_that_a_spreadsheet_would_execute_is_defused(tmp_path, capsys):
    manifest(tmp_path)
    names = ["=HYPERLINK(1)", "+1", "@sum", "-2+3", "a\x1b[31m", "plain, with a comma"]
    samples(tmp_path, sample(0, dict.fromkeys(names, -1.5), regime='=cmd|"/c calc"!A1', session="-1"))
    out, _ = exported(tmp_path, tmp_path, capsys, "x.csv")
    with open(out, newline="") as file:
        head, body = csv.reader(file)
    assert head[6:] == ["'=HYPERLINK(1)", "'+1", "'@sum", "'-2+3", "a\\x1b[31m", "plain, with a comma"]
    assert body[3:] == ["'-1", '\'=cmd|"/c calc"!A1', "live", *["-1.5"] * 6]


def test_a_metric_never_takes_the_column_of_another(tmp_path, capsys):
    manifest(tmp_path)
    samples(tmp_path, sample(0, {"step": 1.0, "m.step": 2.0, "branch": 3.0, "basin_00": 4.0}))
    for name in ("x.csv", "y.csv"):
        out, _ = exported(tmp_path, tmp_path, capsys, name, *["--basins"] * (name == "y.csv"))
        head = out.read_text().splitlines()[0].split(",")
        assert len(set(head)) == len(head)
        assert head[6:10] == ["m.step", "m.m.step", "m.branch", "m.basin_00" if name == "y.csv" else "basin_00"]


def test_what_a_live_run_appends_meanwhile_is_left_to_another_export(tmp_path):
    with full_run(tmp_path) as writer:
        path = writer.run.telemetry()
        known = survey(path, Wanted(), lambda *_: None)
        writer.telemetry.log(50, {"phi": 1.0})
        found = [row for some in rows(path, known, Wanted(), lambda *_: None, Counter()) for row in some]
    assert len(found) == known.samples == 300
    assert {row.branch for row in found} == {"live"}


def test_a_file_is_whole_or_not_there_and_none_is_replaced_unasked(odd_run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "x.csv"
    out.write_text("mine")
    code, _, err = export(odd_run, capsys, "--output", str(out))
    assert (code, out.read_text()) == (2, "mine")
    assert err == f"qig-tui export: {str(out)!r} exists; --force replaces it\n"

    with monkeypatch.context() as patch:
        patch.setattr("qig_tui.export.formats.CsvWriter.write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([str(odd_run), "--output", str(out), "--force"])
    assert out.read_text() == "mine"
    assert export(odd_run, capsys, "--output", str(out), "--force")[0] == 0
    assert len(out.read_text().splitlines()) == 66
    assert [path.name for path in tmp_path.glob(".*tmp")] == []


def test_the_default_file_is_never_in_the_run_directory(odd_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(odd_run)
    code, _, err = export(".", capsys)
    assert (code, "--output" in err) == (2, True)
    monkeypatch.chdir(tmp_path)
    assert export(odd_run, capsys, "--format", "jsonl")[0] == 0
    assert (tmp_path / "run1.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "phj"], "no metric 'phj' stands in 'telemetry.jsonl'"),
        (["--stream", "rank7"], "the run has no stream 'rank7'; it has rank0001"),
        (["--output", "/proc/none/x.csv"], "cannot be written"),
        (["--output", "."], "is a folder"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(odd_run, capsys, arguments, said):
    (odd_run / "telemetry.rank0001.jsonl").write_text('{"seq":0,"step":5,"t":1.0,"m":{"x":2.0}}\n')
    code, _, err = export(odd_run, capsys, *arguments)
    assert code == (74 if "written" in said else 2)
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_run_that_is_not_there_or_one_of_several_is_refused(tmp_path, capsys):
    assert export(tmp_path / "none", capsys)[0] == 2
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        manifest(tmp_path / name)
    code, _, err = export(tmp_path, capsys)
    assert (code, "holds 2 runs; name one of them" in err) == (2, True)


def test_a_further_stream_is_exported_by_its_name(odd_run, capsys):
    (odd_run / "telemetry.rank0001.jsonl").write_text('{"seq":0,"step":5,"t":1.0,"m":{"x":2.0}}\n')
    _, out, _ = export(odd_run, capsys, "--output", "-", "--stream", "rank0001")
    assert out.splitlines() == ["seq,step,t,session,regime,branch,x", "0,5,1.0,,,live,2.0"]


def test_more_metrics_than_a_table_can_have_are_refused_unless_some_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reading, "MAX_COLUMNS", 3)
    manifest(tmp_path)
    samples(tmp_path, sample(0, dict.fromkeys("abcd", 1.0)), sample(1, dict.fromkeys("efgh", 1.0)))
    code, _, err = export(tmp_path, capsys, "--output", "-")
    assert (code, "more than 3 metrics" in err) == (2, True)
    code, out, _ = export(tmp_path, capsys, "--output", "-", "--metrics", "h,a")
    assert [line.rpartition("live")[2] for line in out.splitlines()[1:]] == [",,1.0", ",1.0,"]


def test_without_pyarrow_the_extra_is_named_and_nothing_is_left(odd_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = export(odd_run, capsys, "--output", str(tmp_path / "x.parquet"))
    assert (code, "pip install 'qig-tui[parquet]'" in err) == (2, True)
    assert not list(tmp_path.glob("*x.parquet*"))


def test_a_reader_that_has_enough_ends_it_quietly_and_no_screen_is_loaded(tmp_path):
    manifest(tmp_path)
    samples(tmp_path, *[sample(i) for i in range(20_000)])
    script = (
        "import sys; from qig_tui.export.command import main; code = main(sys.argv[1:])\n"
        "print(code, *{m.split('.')[0] for m in sys.modules} & {'textual', 'torch', 'pyarrow'}, file=sys.stderr)"
    )
    argv = [sys.executable, "-c", script, str(tmp_path), "--output", "-"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"seq,step")
        process.stdout.close()
        assert process.stderr.read() == b"0\n"


def test_help_tells_the_exit_codes():
    assert "exit codes: 0 written. 2 " in parser().format_help()


def check(path, out, capsys):
    """Export one run in every format: each is written, or refused in a sentence."""
    for kind in ("csv", "jsonl", "parquet"):
        target = out / f"x.{kind}"
        code, _, err = export(path, capsys, "--output", str(target), "--basins", "--force")
        assert (code == 2) == (path.name in REFUSED - EVIL_ALONE), ascii((path.name, kind, err))
        assert "\x1b" not in err
        if code == 0 and kind == "csv":
            with open(target, newline="", encoding="utf-8") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            assert not [c for c in cells if c.startswith(("=", "+", "@")) or "\x1b" in c], ascii(path.name)
        if code == 0 and kind == "jsonl":
            assert target.read_bytes().isascii()
            for line in target.read_text().splitlines():
                json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("names", [HANDFUL, pytest.param(tuple(EVIL), marks=pytest.mark.slow)], ids=["some", "all"])
def test_nothing_in_a_run_directory_breaks_it(tmp_path, capsys, names):
    for path in corpus(tmp_path / "runs", names):
        check(path, tmp_path, capsys)
