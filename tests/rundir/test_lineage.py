"""Where a run comes from, whatever the files of its ancestors are."""

import time
from pathlib import Path

import pytest

from qig_core.errors import RunFormatError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.lineage import MAX_ANCESTORS, ancestors, lineage_of, lineage_rows, relatives
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Manifest, Parent
from qig_core.rundir.writer import RunWriter


def make(root: Path, name: str, parent: Parent | None = None) -> RunDir:
    with RunWriter.create(root, Manifest(id=name, parent=parent)) as writer:
        pass
    return writer.run


def line(run: RunDir) -> str:
    return lineage_rows(lineage_of(run, read_manifest(run)))[0][1]


def test_a_fork_of_a_fork_has_its_whole_line(tmp_path: Path) -> None:
    make(tmp_path, "first")
    make(tmp_path, "second", Parent("first", "step-00000010-aaaaaa"))
    third = make(tmp_path, "third", Parent("second", "step-00000020-bbbbbb"))
    assert line(third) == "third  ←  second @ step-00000020-bbbbbb  ←  first @ step-00000010-aaaaaa"


@pytest.mark.parametrize("name", ["elsewhere", "../first", "/etc", "", "x" * 300, "a\0b"])
def test_a_parent_that_is_not_there_is_said_and_no_name_leaves_the_root(tmp_path: Path, name: str) -> None:
    make(tmp_path, "first")
    root = tmp_path / "runs"
    run = make(root, "second")
    (found,) = ancestors(run, Parent(name, None))
    assert found.problem == "not here"


def test_the_relatives_of_a_run_are_its_parent_and_its_forks_that_can_be_read(tmp_path: Path) -> None:
    for name, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", "b"), ("e", "a"), ("f", None)):
        make(tmp_path, name, None if parent is None else Parent(parent))
    make(tmp_path, "g", Parent("b")).manifest.write_text("{")
    assert [run.id for run in relatives(RunDir(tmp_path / "b"))] == ["a", "c", "d"]
    assert relatives(RunDir(tmp_path / "f")) == []
    assert [run.id for run in relatives(RunDir(tmp_path / "g"))] == []


def test_a_circle_ends_where_it_closes(tmp_path: Path) -> None:
    make(tmp_path, "a", Parent("b", None))
    make(tmp_path, "b", Parent("c", None))
    run = make(tmp_path, "c", Parent("a", None))
    assert line(run) == "c  ←  a  ←  b  ←  c (met before: a circle)"
    assert line(make(tmp_path, "d", Parent("d", "s"))) == "d  ←  d @ s (met before: a circle)"


def test_a_damaged_ancestor_ends_the_line(tmp_path: Path) -> None:
    make(tmp_path, "a").manifest.write_text("{")
    assert line(make(tmp_path, "b", Parent("a", "s"))) == "b  ←  a @ s (cannot be read)"


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    make(tmp_path, "r0")
    for number in range(MAX_ANCESTORS + 2):
        run = make(tmp_path, f"r{number + 1}", Parent(f"r{number}", None))
    found = ancestors(run, read_manifest(run).parent)
    assert len(found) == MAX_ANCESTORS
    assert found[-1].problem == "and older ones"


def test_sessions_say_where_they_began_and_what_went_back_says_from_where(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, Manifest(id="r")) as writer:
        writer.event("command", step=300, verb="restore", stage="acting")
        writer.event("restored", step=200, checkpoint="step-00000200-ab12cd", fingerprint="f", how="restore")
        writer.event("soft_reset", step=210, checkpoint="step-00000210-ab12cd", from_step=250, to_step=210)
        writer.event("restored", step=210, checkpoint="step-00000210-ab12cd", fingerprint="f", how="soft_reset")
    with RunWriter.reopen(writer.run, resumed_from="step-00000210-ab12cd") as again:
        again.event("restored", step=210, checkpoint="step-00000210-ab12cd", fingerprint="f", how="resume")
    with RunWriter.reopen(writer.run, resumed_from="step-00000210-ab12cd") as third:
        pass  # died before it said so
    rows = lineage_rows(lineage_of(writer.run, read_manifest(writer.run)))
    assert [label for label, _ in rows] == ["lineage", "session", "session", "session", "went back", "went back"]
    words = [text for _, text in rows[1:]]
    assert words[0].startswith(writer.session[:8])
    assert [text.split("  ")[2] for text in words[:3]] == [
        "from the beginning", "from step-00000210-ab12cd, step 210", "from step-00000210-ab12cd"
    ]  # fmt: skip
    assert words[2].startswith(third.session[:8])
    assert words[3:] == ["step 300 -> step-00000200-ab12cd (restore)", "step 250 -> step-00000210-ab12cd (soft_reset)"]


def test_what_a_foreign_writer_put_there_is_no_error(tmp_path: Path) -> None:
    run = make(tmp_path, "r")
    with run.events.open("ab") as file:
        file.write(b'{"seq":9,"t":1e300,"kind":"restored","data":{"how":["x"],"checkpoint":{"a":1}}}\nnot json\n')
        file.write(b'{"seq":10,"t":2,"kind":"soft_reset","data":{"from_step":true}}\n{"torn')
    manifest = read_manifest(run)
    manifest.sessions[0].t = 1e300
    found = lineage_of(run, manifest)
    assert [one.how for one in found.went_back] == ["['x']"]
    assert "  ?  " in lineage_rows(found)[1][1]
    run.events.unlink()
    assert lineage_of(run, manifest).went_back == []
    run.events.mkdir()
    with pytest.raises(RunFormatError, match="not a regular file"):
        lineage_of(run, manifest)


def test_of_many_the_last_are_shown_and_ten_thousands_of_events_take_no_time(tmp_path: Path) -> None:
    run = make(tmp_path, "r")
    line = b'{"seq":%d,"t":2,"kind":"restored","step":%d,"data":{"how":"restore","checkpoint":"c"}}\n'
    run.events.write_bytes(b"".join(line % (number, number) for number in range(50_000)))
    began = time.monotonic()
    found = lineage_of(run, read_manifest(run))
    assert time.monotonic() - began < 5
    assert len(found.went_back) == 50_000
    back = [text for label, text in lineage_rows(found) if label == "went back"]
    assert back[0] == "49990 earlier"
    assert back[-1] == "step 49998 -> c (restore)"
