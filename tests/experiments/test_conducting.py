"""From the runs to the files: what is there is taken, what is not is trained, what was stopped is gone on with."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
import pytest

from qig_core.commands.experimenting import run_experiments
from qig_core.errors import ConfigError, ExitCode, Refused, UsageError
from qig_core.experiments import awakening, observers, suppression
from qig_core.experiments.conducting import How, Interrupted, conduct, obtain, runs_folder
from qig_core.experiments.experiment import Wanted
from qig_core.experiments.picture import draw
from qig_core.experiments.verdict import judge
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import send
from qig_core.training.config import merge, preset
from tests.experiments.recorded import charlie, constellation

Told = list[tuple[str, How, int, int]]


def ignore(wanted: Wanted, how: How, step: int, total: int) -> None:
    """Nobody looks."""


def recorder(told: Told) -> Any:
    return lambda wanted, how, step, total: told.append((wanted.run_id, how, step, total))


def finished_charlies(out: Path, seeds: int = 3, **numbers: Any) -> None:
    for seed in range(seeds):
        (wanted,) = suppression.wanted("tiny", seed)
        control = 0.5 + seed / 100
        charlie(
            runs_folder(out), wanted.run_id, values=wanted.values, **{"control": lambda step, c=control: c} | numbers
        )


def small(**over: Any) -> Wanted:
    """A plain run of six steps."""
    values = merge(preset("tiny"), {"steps": 6, "cadence": {"checkpoint_every": 2, "measure_every": 3}, **over})
    return Wanted(role="small", seed=0, values=values)


def test_what_is_there_is_judged_and_written_without_training(tmp_path: Path) -> None:
    finished_charlies(tmp_path)
    told: Told = []
    found, files = conduct("suppression", "tiny", 3, tmp_path, recorder(told))
    assert {how for _, how, _, _ in told} == {"taken as it is"}
    assert len(told) == 3
    assert found["verdict"] == "pass"
    assert [path.name for path in files] == ["suppression.json", "suppression.svg"]
    written = json.loads(files[0].read_text())
    assert written == msgspec.to_builtins(found)
    assert written["declared"] == suppression.SUPPRESSION.declared.strip().splitlines()
    assert written["runs"]["seed 2"]["charlie"]["config"]["seed"] == 2
    assert written["findings"][1]["values"] == {"seed 0": 0.5, "seed 1": 0.51, "seed 2": 0.52}
    assert {"python", "numpy", "scipy", "matplotlib", "qig-tui"} <= written["versions"].keys()
    assert str(tmp_path) not in files[0].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "suppression.json", "suppression.svg"]


def test_a_run_on_another_text_is_not_taken(tmp_path: Path) -> None:
    finished_charlies(tmp_path)
    (wanted,) = suppression.wanted("tiny", 1)
    run = runs_folder(tmp_path) / wanted.run_id / "run.json"
    manifest = json.loads(run.read_text())
    manifest["corpus"]["digest"] = "0" * 64
    run.write_text(json.dumps(manifest))
    with pytest.raises(Refused, match="another corpus"):
        conduct("suppression", "tiny", 3, tmp_path, ignore)
    assert not (tmp_path / "suppression.json").exists()


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset 'huge'"):
        conduct("suppression", "huge", 3, tmp_path, ignore)


def test_what_is_not_there_is_trained_once(tmp_path: Path) -> None:
    told: Told = []
    first = obtain(small(), tmp_path, recorder(told))
    assert [(how, step) for _, how, step, _ in told] == [("trained", step) for step in range(7)]
    assert (first.manifest.exit_code, list(first.curve("phi"))) == (0, [0, 3, 6])
    told.clear()
    again = obtain(small(), tmp_path, recorder(told))
    assert [how for _, how, _, _ in told] == ["taken as it is"]
    assert len(again.manifest.sessions) == 1
    assert obtain(small(seed=1), tmp_path, ignore).run.path != first.run.path


def test_what_was_stopped_is_gone_on_with(tmp_path: Path) -> None:
    def stop(wanted: Wanted, how: How, step: int, total: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(small(), tmp_path, stop)
    told: Told = []
    found = obtain(small(), tmp_path, recorder(told))
    assert {how for _, how, _, _ in told} == {"gone on with"}
    assert told[0][2] in (2, 3), "from its newest checkpoint"
    assert told[-1][2] == 6
    assert (found.manifest.exit_code, len(found.manifest.sessions)) == (0, 2)
    whole = obtain(small(), tmp_path / "whole", ignore)
    assert found.curve("loss") == whole.curve("loss"), "as if it had never been stopped"


def test_a_run_that_was_told_to_stop_is_no_result(tmp_path: Path) -> None:
    def ask(wanted: Wanted, how: How, step: int, total: int) -> None:
        if step == 0:
            send(RunDir(runs_folder(tmp_path) / wanted.run_id), "abort")

    long = small(steps=100_000)
    with pytest.raises(Interrupted, match=r"exit code 76; the same command goes on") as stopped:
        obtain(long, tmp_path, ask)
    assert stopped.value.code == ExitCode.COMMAND


# charlie and constellation, as their trainers write them


def test_what_charlie_records_is_what_is_read(tmp_path: Path) -> None:
    phases = {"dormant_steps": 8, "awakening_steps": 20, "settling_steps": 20, "demonstration_steps": 2}
    table = {"steps": 60, "cadence": {"heldout_every": 4, "measure_every": 4}, "charlie": phases | {"margin_nats": 0.0}}
    wanted = Wanted(role="charlie", seed=0, values=merge(preset("tiny", "charlie"), table))
    runs = {"seed 0": {"charlie": obtain(wanted, tmp_path, ignore)}}
    dormant = suppression.evaluate(runs).figures["seed 0"]
    assert dormant["phi_max"] == 0.0
    assert dormant["evaluations"] is not None
    assert dormant["evaluations"] >= 3.0
    assert dormant["control_min"] is not None
    assert dormant["control_min"] > 0.1
    awake = awakening.evaluate(runs).figures["seed 0"]
    assert awake["phi_over_branch"] is not None
    assert awake["phi_over_branch"] > 0.1
    assert awake["heldout_over_branch_nats"] is not None
    assert awake["heldout_over_before_nats"] is not None


def test_what_a_constellation_records_is_what_is_read(tmp_path: Path) -> None:
    over = {"steps": 8, "cadence": {"measure_every": 2}, "constellation": {"garys": 2}}
    of_seed = {}
    for each in observers.wanted("tiny", 0):
        values = merge(each.values, over)
        values["constellation"]["active"] = min(values["constellation"]["active"], 2)
        of_seed[each.role] = obtain(Wanted(role=each.role, seed=0, values=values), tmp_path, ignore)
    figures = observers.evaluate({"seed 0": of_seed}).figures["seed 0"]
    assert figures["updates"] == 8.0
    assert figures["resting_rad"] == 0.0
    for name in ("ln_drift_per_update", "ln_drift_from_birth", "from_the_actor_at_last_rad"):
        assert figures[name] is not None


# the picture


def document(**over: Any) -> dict[str, Any]:
    finding = judge("a", "Φ & more", {"seed 0": 0.1, "seed 1": 0.2}, unit="nats", above=0.0, below=1.0)
    open_ = judge("b", "nothing", {"seed 0": None, "seed 1": 0.2}, below=1.0)
    lines = [{"label": label, "steps": [0, 1, 2], "values": [0.0, 0.5, 1.0]} for label in ("one", "two", "one")]
    known = {
        "experiment": "suppression",
        "verdict": "inconclusive",
        "findings": [msgspec.to_builtins(finding), msgspec.to_builtins(open_)],
        "panels": [{"title": "curves", "label": "rad", "lines": lines}],
    }
    return known | over


def texts(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_says_the_verdict_each_claim_and_each_curve_once() -> None:
    said = texts(draw(document()))
    assert said.count("suppression: inconclusive") == 1
    assert [text for text in said if "Φ & more" in text] == ["0 < Φ & more < 1 nats: inconclusive, p = 0.1"]
    assert [text for text in said if "nothing" in text] == ["nothing < 1: inconclusive, no figure of seed 0"]
    assert (said.count("one"), said.count("two")) == (1, 1)


def test_the_same_document_gives_the_same_bytes_whatever_others_have_set() -> None:
    first = draw(document())
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0, "svg.hashsalt": "other"}):
        assert draw(document()) == first
        assert matplotlib.rcParams["font.size"] == 30.0
    assert b"<dc:date>" not in first


def test_a_picture_of_nothing_measured_can_be_drawn() -> None:
    empty = [{"title": "curves", "label": "rad", "lines": [{"label": "one", "steps": [], "values": []}]}]
    finding = judge("b", "nothing", {"seed 0": None, "seed 1": None}, below=1.0)
    assert texts(draw(document(panels=empty, findings=[msgspec.to_builtins(finding)])))


# the command


def results(text: str) -> list[Mapping[str, Any]]:
    return [line["result"] for line in map(json.loads, text.splitlines()) if "result" in line]


def run(name: str, out: Path, *, json: bool = True, seeds: int = 3) -> int:
    return run_experiments(name, preset="tiny", seeds=seeds, out=out, json=json)


def test_a_pass_is_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_charlies(tmp_path)
    assert run("suppression", tmp_path) == ExitCode.OK
    (result,) = results(capsys.readouterr().out)
    assert (result["experiment"], result["verdict"]) == ("suppression", "pass")


def test_a_fail_is_exit_1_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_charlies(tmp_path, phi=lambda step: 0.5)
    assert run("suppression", tmp_path, json=False) == ExitCode.FOUND_BAD
    out = capsys.readouterr().out
    assert "verdict     fail" in out
    assert "largest Φ while dormant" in out


def test_inconclusive_is_exit_0_with_the_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_charlies(tmp_path, until=100)
    assert run("awakening", tmp_path, json=False) == ExitCode.OK
    out = capsys.readouterr().out
    assert "verdict     inconclusive" in out
    assert "no figure of seed 0, seed 1, seed 2" in out


def test_all_are_carried_out_and_one_that_fails_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_charlies(tmp_path, phi=lambda step: 0.0)
    speeds = {"gary1": 0.01, "gary2": 0.001, "gary3": 0.001}
    for seed in range(3):
        for each in observers.wanted("tiny", seed):
            moving = {"gary1": 0.01, "gary2": 0.0, "gary3": 0.0} if each.role == observers.RESTING else speeds
            constellation(runs_folder(tmp_path), each, moving)
    assert run("all", tmp_path) == ExitCode.FOUND_BAD
    found = {result["experiment"]: result["verdict"] for result in results(capsys.readouterr().out)}
    assert found["suppression"] == "pass"
    assert found["awakening"] == "fail"
    assert "observers" in found


def test_progress_is_told_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_charlies(tmp_path)
    run("suppression", tmp_path)
    progress = [
        line["progress"] for line in map(json.loads, capsys.readouterr().out.splitlines()) if "progress" in line
    ]
    assert [each["how"] for each in progress] == ["taken as it is"] * 3


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no experiment 'sleep'; there are suppression, awakening, observers and all"):
        run("sleep", tmp_path)
    with pytest.raises(UsageError, match="fewer than 2"):
        run("suppression", tmp_path, seeds=1)
