import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.host import boot_id, host_name
from qig_core.rundir.liveness import Liveness, Word
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import Event, Manifest, MetricSpec, Sample
from qig_tui.cli import main
from qig_tui.once import as_data, exit_code, render, status_line
from qig_tui.picture import RunPicture
from tests.tui.runs import add_checkpoint, log_steps, open_run, set_condition


def once(capsys, *arguments):
    code = main([*map(str, arguments), "--once"])
    return code, capsys.readouterr().out


def test_a_live_run_prints_its_picture_and_exits_0(tmp_path, capsys):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok")
        log_steps(writer, 0, 100)
        add_checkpoint(writer, 50)
        code, out = once(capsys, writer.run.path)
    assert code == 0
    first = out.splitlines()[0]
    assert first.startswith("charlie  ● LIVE")
    assert "step 99 / 1 000 (10 %)" in first
    for part in ("METRICS", "kappa", "rad⁻¹", "drift ≤ 0.6 rad", "BASIN", "d_ref", "step-00000050", "100 read · 0 bad"):
        assert part in out
    assert "\x1b" not in out


def test_a_run_that_just_started_has_no_sample_and_is_well(tmp_path, capsys):
    with open_run(tmp_path) as writer:
        code, out = once(capsys, writer.run.path)
    assert code == 0
    assert "no sample yet" in out
    assert "no conditions" in out


@pytest.mark.parametrize(
    ("ended", "state", "expected"), [(0, "ok", 0), (0, "warning", 0), (0, "critical", 1), (75, "ok", 1)]
)
def test_the_exit_code_says_whether_the_run_is_well(tmp_path, capsys, ended, state, expected):
    writer = open_run(tmp_path)
    set_condition(writer, state)
    log_steps(writer, 0, 5)
    writer.close(ended)
    code, out = once(capsys, writer.run.path)
    assert code == expected
    assert f"EXITED {ended}" in out


def picture_of(word, exit_code=None):
    """A run half way whose limits are ok."""
    picture = RunPicture(Manifest(id="a", total_steps=20, exit_code=exit_code))
    picture.history.add([Sample(i, i, float(i), m={"loss": 1.0}) for i in range(10)])
    picture.journal.add([Event(0, 0.0, "condition", 0, data={"id": "c", "state": "ok"})])
    picture.liveness = Liveness(word)
    return picture


@pytest.mark.parametrize("word", [Word.LIVE, Word.SLOW, Word.BUSY, Word.PAUSED])
def test_a_run_that_is_there_is_well_and_its_limits_are_ok(word):
    picture = picture_of(word)
    assert exit_code(picture) == 0
    assert "● limits ok" in status_line(picture)
    assert ("ETA" in status_line(picture)) == (word != Word.PAUSED)


@pytest.mark.parametrize("word", [Word.HUNG, Word.SILENT, Word.KILLED, Word.EXITED])
def test_no_light_is_green_beside_a_run_that_is_not_there(word):
    picture = picture_of(word, exit_code=75)
    assert exit_code(picture) == 1
    assert "○ limits were ok" in status_line(picture)
    assert "SAFETY, last known" in render(picture, as_json=False)
    assert "ETA" not in status_line(picture)
    assert as_data(picture)["eta_s"] is None


def test_a_dead_process_is_not_well(tmp_path, capsys):
    writer = open_run(tmp_path)
    writer.close(0)
    manifest = read_manifest(writer.run)
    manifest.state = "running"
    session = manifest.sessions[-1]
    session.host, session.boot_id, session.start_ticks = host_name(), boot_id(), 1
    writer.run.manifest.write_bytes(encode_document(manifest))
    code, out = once(capsys, writer.run.path)
    assert code == 1
    assert "KILLED" in out


def test_a_heartbeat_that_stands_still_is_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("qig_tui.once.WATCH_S", 0.2)
    writer = open_run(tmp_path)
    writer.close(0)
    manifest = read_manifest(writer.run)
    manifest.state, manifest.sessions[-1].host = "running", "elsewhere"
    writer.run.manifest.write_bytes(encode_document(manifest))
    code, out = once(capsys, writer.run.path)
    assert code == 1
    assert "SILENT" in out


@pytest.mark.parametrize("name", ["telemetry.jsonl", "events.jsonl"])
def test_a_run_whose_records_cannot_be_read_is_one_sentence_and_exit_2(tmp_path, capsys, name):
    with open_run(tmp_path / "runs", "a") as writer:
        pass
    open_run(tmp_path / "runs", "b").close(0)
    (writer.run.path / name).unlink(missing_ok=True)
    (writer.run.path / name).mkdir()
    for more in ([], ["--once"], ["--once", "--json"]):
        assert main([str(writer.run.path), *more]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert f"{name}' cannot be read: not a regular file" in said.err
        assert len(said.err.splitlines()) == 1
    assert main([str(tmp_path / "runs"), "--once"]) == 2
    said = capsys.readouterr()
    assert "\nrun b\n" in said.out
    assert len(said.err.splitlines()) == 1


def test_checkpoints_that_cannot_be_listed_are_not_said_to_be_none(tmp_path, capsys):
    writer = open_run(tmp_path)
    writer.run.checkpoints.rmdir()
    writer.run.checkpoints.write_text("a file")
    writer.close(0)
    _, out = once(capsys, writer.run.path)
    assert "! checkpoints/ cannot be read: Not a directory" in out
    assert "\nnone\n" not in out


def test_a_damaged_checkpoint_is_listed_however_old(tmp_path, capsys):
    writer = open_run(tmp_path)
    for step in range(0, 100, 10):
        add_checkpoint(writer, step)
    writer.run.checkpoint_manifest("step-00000000").write_bytes(b"{")
    os.utime(writer.run.checkpoint("step-00000000"), (5.0, 5.0))
    writer.close(0)
    _, out = once(capsys, writer.run.path)
    assert "✖ UNREADABLE manifest step-00000000" in out
    assert "and 4 more, none of them damaged" in out


def test_no_condition_is_ok_whose_newest_value_is_no_number(tmp_path, capsys):
    with open_run(tmp_path) as writer:
        set_condition(writer, "ok", id="nonfinite", metric="loss", comparison="finite", limit=None, value=1.0)
        log_steps(writer, 0, 20)
        writer.telemetry.log(20, {"loss": float("nan")})
        _, out = once(capsys, writer.run.path)
        found = json.loads(once(capsys, writer.run.path, "--json")[1])
    assert "● ok" not in out
    assert "▲ 1 unjudged" in out.splitlines()[0]
    (line,) = [line for line in out.splitlines() if line.startswith("▲ unjudged nonfinite")]
    assert "nan" in line
    assert found["conditions"][0]["unjudged"] is True


def test_a_value_is_never_cut_from_its_unit(tmp_path, capsys):
    unit = "tokens per day"
    with open_run(tmp_path, metrics=[MetricSpec(name="speed", unit=unit)]) as writer:
        for step in range(3):
            writer.telemetry.log(step, {"speed": 6835.0 + step, "phi": 0.5})
        _, out = once(capsys, writer.run.path)
    assert f"6 837 {unit}  " in out
    assert f"6 835 {unit} " in out
    table = out.split("METRICS")[1].splitlines()[1:4]
    assert len({line.index("3  ") for line in table[1:]}) == 1


def test_a_regime_is_told_in_words():
    picture = picture_of(Word.LIVE)
    picture.history.regime = "topological_instability"
    assert "  TOPOLOGICAL INSTABILITY  " in status_line(picture)
    assert as_data(picture)["regime"] == "topological_instability"


@pytest.mark.parametrize("size", ["5x3", "99999x99999", "501x100", "160x201", "19x5", "160", "-1x5"])
def test_a_size_that_no_terminal_has_is_refused_with_the_range(size, capsys):
    with pytest.raises(SystemExit) as end:
        main(["x", "--screenshot", "o.svg", f"--size={size}"])
    assert end.value.code == 2
    assert "20 to 500 columns and 5 to 200 rows" in capsys.readouterr().err


def test_json_says_the_same(tmp_path, capsys):
    with open_run(tmp_path) as writer:
        set_condition(writer, "warning")
        log_steps(writer, 0, 20)
        writer.telemetry.log(20, {"loss": float("nan")})
        code, out = once(capsys, writer.run.path, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["well"] is True
    assert found["metrics"]["loss"]["last"] == "nan"
    assert found["metrics"]["phi"]["points"] == 20
    assert found["conditions"][0]["state"] == "warning"
    assert len(found["basin"]["values"]) == 64


def test_a_folder_prints_every_run_and_exits_with_the_worst(tmp_path, capsys):
    for run_id, ended in (("a", 0), ("b", 75)):
        open_run(tmp_path, run_id, name=run_id).close(ended)
    code, out = once(capsys, tmp_path)
    assert code == 1
    assert out.count("── METRICS") == 2


def test_a_run_is_found_by_its_id_under_the_root(tmp_path, capsys, monkeypatch):
    open_run(tmp_path, "a").close(0)
    open_run(tmp_path, "b").close(0)
    monkeypatch.setenv("QIG_RUNS", str(tmp_path))
    code, out = once(capsys, "b")
    assert code == 0
    assert "\nrun b\n" in out


def test_a_run_is_found_by_its_name_and_as_the_latest(tmp_path, capsys, monkeypatch):
    open_run(tmp_path, "b", name="my first").close(0)
    open_run(tmp_path, "a", name="again").close(0)
    monkeypatch.setenv("QIG_RUNS", str(tmp_path))
    assert "\nrun b\n" in once(capsys, "my first")[1]
    assert "\nrun a\n" in once(capsys, "latest")[1]
    open_run(tmp_path, "c", name="again").close(0)
    assert main(["again", "--once"]) == 2
    said = capsys.readouterr().err
    assert "2 runs" in said
    assert "a, c" in said


def test_the_version_is_told_on_request(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"qig-tui {version('qig-tui')}\n"


def test_bad_paths_are_one_sentence_and_exit_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QIG_RUNS", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    for arguments in (["nothing"], ["./no/thing"], ["empty"], ["file"], ["bad"], [], ["\x1b[31m"]):
        for more in ([], ["--once"]):
            assert main([*arguments, *more]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.startswith("qig-tui: ")
            assert len(said.err.splitlines()) == 1
            assert "\x1b" not in said.err


def test_a_wrong_path_and_help_never_import_the_screen():
    code = (
        "import sys\n"
        "from qig_tui.cli import main\n"
        "heavy = {'textual', 'rich', 'numpy', 'torch', 'importlib.metadata'}\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "found = heavy & set(sys.modules) | {'msgspec'} & set(sys.modules)\n"
        "assert not found, found\n"
        "assert main(['/nothing/there']) == 2\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_screen_ever_loads_torch_or_scipy():
    code = (
        "import sys, pkgutil, importlib, qig_tui\n"
        "for m in pkgutil.walk_packages(qig_tui.__path__, 'qig_tui.'):\n    importlib.import_module(m.name)\n"
        "import qig_core.checkpoints.ranking\n"
        "assert not {'torch', 'scipy', 'safetensors'} & set(sys.modules)\n"
        "allowed = ('qig_core.rundir', 'qig_core.geometry', 'qig_core.checkpoints', 'qig_core.errors')\n"
        "other = [m for m in sys.modules if m.startswith('qig_core.') and not m.startswith(allowed)]\n"
        "assert not other, other\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
