"""The main job by its commands: train, look, stop, bring back. Real processes, real files."""

import json
import math
import resource
import shutil
import signal
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Event, Sample, Unreadable
from tests.endtoend.commands import core, core_json, start_core, wait_for_step

DESIGN_KEYS = {
    "loss", "loss_heldout", "phi", "phi_nats", "kappa", "drift_birth", "drift_velocity", "recursion_depth",
    "breakdown_pct", "grad_norm", "lr", "tokens", "tokens_per_s", "step_ms", "cpu_pct", "rss_bytes",
}  # fmt: skip


def samples(run: Path) -> list[Sample]:
    records = read_all(RunDir(run).telemetry(), Sample)
    assert not [r for r in records if isinstance(r, Unreadable)]
    return [r for r in records if isinstance(r, Sample)]


def events(run: Path) -> list[Event]:
    return [r for r in read_all(RunDir(run).events, Event) if isinstance(r, Event)]


def test_a_run_records_every_step_with_the_named_metrics(finished: Path) -> None:
    found = samples(finished)
    assert [s.step for s in found] == list(range(121))
    assert [s.seq for s in found] == list(range(121))
    seen = {key for s in found for key in s.m}
    assert seen >= DESIGN_KEYS
    assert all(value is None or math.isfinite(value) for s in found for value in s.m.values())
    assert any(s.basin for s in found)
    assert {s.regime for s in found} - {None}


def test_the_heldout_loss_falls(finished: Path) -> None:
    heldout = [s.m["loss_heldout"] for s in samples(finished) if "loss_heldout" in s.m]
    assert heldout[0] is not None
    assert heldout[-1] is not None
    assert heldout[0] > 5.0
    assert heldout[-1] < 0.75 * heldout[0]


def test_the_manifest_says_what_ran(finished: Path) -> None:
    manifest = read_manifest(RunDir(finished))
    assert manifest.program == "qig-core train"
    assert manifest.name == "first"
    assert (manifest.state, manifest.exit_code) == ("exited", 0)
    assert len(manifest.corpus["digest"]) == 64
    assert manifest.config["kernel"]["width"] == 32
    assert {spec.name for spec in manifest.metrics} >= DESIGN_KEYS
    assert manifest.probe["digest"]
    kinds = [e.kind for e in events(finished)]
    assert (kinds[0], kinds[-1]) == ("start", "end")


def test_show_and_runs_tell_the_same_as_the_files(finished: Path) -> None:
    (shown,) = core_json("show", finished)
    assert shown["state"] == "EXITED"
    assert shown["step"] == 120
    assert len(shown["basin"]) == 64
    assert math.isclose(sum(shown["basin"]), 1.0, abs_tol=1e-9)
    (listed,) = core_json("runs", "--runs", finished.parent)
    assert listed["metrics"] == shown["metrics"]
    assert "first" in core("runs", "--runs", finished.parent).stdout


def test_every_checkpoint_of_a_finished_run_verifies(finished: Path) -> None:
    *_, last = core_json("checkpoints", "verify", finished)
    assert {row["status"] for row in last["result"]} == {"COMPLETE"}
    assert {row["reason"] for row in last["result"]} >= {"interval", "end"}
    (latest,) = core_json("checkpoints", "latest", finished)
    assert latest["step"] == 120
    (best,) = core_json("checkpoints", "best", finished)
    assert best["step"] in {row["step"] for row in last["result"]}


def test_resuming_gives_bit_by_bit_what_training_on_would_have_given(finished: Path, tmp_path: Path) -> None:
    assert core("train", "--preset", "tiny", "--steps", "60", "--runs", tmp_path).returncode == 0
    (run,) = list_runs(tmp_path)
    done = core("train", "--resume", run.path, "--steps", "120")
    assert done.returncode == 0, done.stderr
    mine, whole = core_json("checkpoints", "latest", run.path)[0], core_json("checkpoints", "latest", finished)[0]
    assert mine["step"] == whole["step"] == 120
    for file in ("model.safetensors", "optimizer.safetensors"):
        resumed = run.checkpoint(mine["name"]) / file
        assert resumed.read_bytes() == (RunDir(finished).checkpoint(whole["name"]) / file).read_bytes()
    after = {s.step: s.m for s in samples(run.path)}
    before = {s.step: s.m for s in samples(finished)}
    for key in ("loss", "loss_heldout", "phi", "kappa", "drift_birth", "drift_velocity", "grad_norm"):
        assert {n: m[key] for n, m in after.items() if key in m} == {n: m[key] for n, m in before.items() if key in m}
    (restored,) = [e for e in events(run.path) if e.kind == "restored"]
    assert restored.step == 60
    assert restored.data["fingerprint"]


def test_a_natural_run_resumes_bit_by_bit_and_records_what_its_steps_did(tmp_path: Path) -> None:
    config = tmp_path / "natural.toml"
    config.write_text('optimizer = "natural"\n[cadence]\nmeasure_every = 5\nheldout_every = 5\n')
    for run_id, steps in (("whole", "20"), ("parts", "9")):
        done = core(
            "train", "--preset", "tiny", "--config", config, "--steps", steps, "--runs", tmp_path, "--id", run_id
        )
        assert done.returncode == 0, done.stderr
        assert "wins over --preset tiny in optimizer.name" in done.stderr
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    done = core("train", "--resume", parts.path, "--config", config, "--steps", "20")
    assert done.returncode == 0, done.stderr
    for file in ("model.safetensors", "optimizer.safetensors"):
        mine, other = (
            (run.checkpoint(core_json("checkpoints", "latest", run.path)[0]["name"]) / file).read_bytes()
            for run in (parts, whole)
        )
        assert mine == other
    after, before = ({s.step: s.m for s in samples(run.path)} for run in (parts, whole))
    for key in ("loss", "loss_heldout", "phi", "damping", "step_kl", "cg_iterations", "reduction_ratio", "grad_norm"):
        assert any(key in m for m in before.values())
        assert {n: m[key] for n, m in after.items() if key in m} == {n: m[key] for n, m in before.items() if key in m}
    manifest = read_manifest(whole)
    assert manifest.config["optimizer"]["name"] == "natural"
    assert {"damping", "step_kl", "cg_iterations", "reduction_ratio"} <= {spec.name for spec in manifest.metrics}
    refused = core(
        "train", "--resume", parts.path, "--config", _written(tmp_path / "adamw.toml", 'optimizer = "adamw"')
    )
    assert refused.returncode == 2
    assert "optimizer.name ('natural' -> 'adamw')" in refused.stderr


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_fork_is_a_new_run_that_remembers_its_parent(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / finished.name
    shutil.copytree(finished, copy)
    done = core("train", "--fork", f"{copy}@100", "--steps", "110", "--runs", tmp_path / "runs", "--id", "child")
    assert done.returncode == 0, done.stderr
    child = read_manifest(RunDir(tmp_path / "runs" / "child"))
    assert child.parent is not None
    assert child.parent.run == finished.name
    assert [s.step for s in samples(tmp_path / "runs" / "child")] == list(range(100, 111))


def test_sigterm_ends_in_a_verified_emergency_checkpoint_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    process = start_core("train", "--preset", "tiny", "--steps", "100000", "--runs", tmp_path)
    run = wait_for_step(tmp_path, 30)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "go on with: qig-core train --resume" in err
    *_, verified = core_json("checkpoints", "verify", run)
    (emergency,) = [row for row in verified["result"] if row["reason"] == "emergency"]
    assert emergency["status"] == "COMPLETE"
    (record,) = list(RunDir(run).emergencies.glob("*.json"))
    assert json.loads(record.read_text())["samples"]
    assert read_manifest(RunDir(run)).exit_code == 143

    # A resume repeats the step at which the emergency checkpoint was taken.
    total = emergency["step"] + 5
    done = core("train", "--resume", run, "--steps", str(total))
    assert done.returncode == 0, done.stderr
    assert [s.step for s in samples(run)][-6:] == list(range(emergency["step"], total + 1))


def test_abort_by_command_shows_its_stages_and_exits_76(tmp_path: Path) -> None:
    process = start_core("train", "--preset", "tiny", "--steps", "100000", "--runs", tmp_path)
    run = wait_for_step(tmp_path, 20)
    saved = core_json("ctl", run, "checkpoint")
    assert [line["stage"] for line in saved][:2] == ["requested", "seen"]
    assert saved[-1]["stage"] == "done"
    stages = core_json("ctl", run, "abort")
    assert [line["stage"] for line in stages] == ["requested", "seen", "acting", "checkpoint", "stopped"]
    assert stages[-1]["exit_code"] == 76
    process.communicate(timeout=60)
    assert process.returncode == 76
    refused = core("ctl", run, "abort")
    assert refused.returncode == 1
    assert "has ended" in refused.stderr


def test_a_second_trainer_on_the_same_run_is_turned_away(tmp_path: Path) -> None:
    first = start_core("train", "--preset", "tiny", "--steps", "100000", "--runs", tmp_path)
    try:
        run = wait_for_step(tmp_path, 5)
        second = core("train", "--resume", run)
        assert second.returncode == 73
        assert "is being written by process" in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("stepz = 5", "did you mean steps?"),
        ("[kernel]\nwidht = 64", "did you mean kernel.width?"),
        ("[optimizer]\nlr = 'fast'", "optimizer.lr"),
        ("steps = -1", "greater than 0"),
        ("kernel = 3", "must be a table"),
        ("steps = ", "is not TOML"),
        ("[kernel]\npasses = 2", "at least 3"),
        ("optimizer = 'natrual'", "did you mean natural?"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(tmp_path: Path, toml: str, expected: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    done = core("train", "--config", file, "--runs", tmp_path / "runs")
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_corpus_that_cannot_be_trained_on_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 40)
    for text, expected in (("empty.txt", "empty"), ("binary", "not text"), ("absent.txt", "no such file")):
        done = core("train", "--preset", "tiny", "--corpus", tmp_path / text, "--runs", tmp_path / "runs")
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_resume_refuses_what_would_make_it_another_run(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = tmp_path / "other.toml"
    config.write_text("[kernel]\nwidth = 64\n")
    done = core("train", "--resume", run, "--config", config)
    assert done.returncode == 2
    assert "kernel.width (32 -> 64)" in done.stderr
    text = tmp_path / "text.txt"
    text.write_text("another text " * 1000)
    done = core("train", "--resume", run, "--corpus", text, "--steps", "130")
    assert done.returncode == 2
    assert "--accept-new-corpus" in done.stderr


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--resume", "{}", "--name", "other"], "--name"),
        (["--resume", "{}", "--id", "other"], "--id"),
        (["--resume", "{}", "--preset", "default"], "--preset"),
        (["--fork", "{}", "--preset", "default"], "--preset"),
        (["--fork", "{}", "--accept-new-corpus"], "--accept-new-corpus"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_by_its_name(finished: Path, words: list[str], option: str) -> None:
    done = core("train", *(word.format(finished) for word in words), "--steps", "130")
    assert done.returncode == 2
    assert done.stderr.startswith(f"qig-core: {option} is for ")
    assert done.stderr.count("\n") == 1


def test_a_resume_from_a_damaged_checkpoint_leaves_the_run_as_it_ended(finished: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(finished, run.path)
    (name,) = [row["name"] for row in core_json("checkpoints", "list", run.path) if row["step"] == 100]
    weights = run.checkpoint(name) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    before = run.manifest.read_bytes(), run.events.read_bytes()
    done = core("train", "--resume", f"{run.path}@{name}", "--steps", "130")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "HASH-MISMATCH" in done.stderr
    assert (run.manifest.read_bytes(), run.events.read_bytes()) == before


@pytest.mark.parametrize(
    ("resume", "sentence"), [("first@", "missing after the @"), ("", "'' is neither a path nor a run")]
)
def test_a_resume_of_nothing_is_refused_and_is_not_a_new_run(finished: Path, resume: str, sentence: str) -> None:
    there = set(finished.parent.iterdir())
    done = core("train", "--resume", resume, "--runs", finished.parent, "--steps", "130")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert set(finished.parent.iterdir()) == there


def test_a_resume_with_nothing_left_to_do_says_so_and_touches_nothing(finished: Path) -> None:
    before = RunDir(finished).manifest.read_bytes()
    done = core("train", "--resume", finished)
    assert done.returncode == 2
    assert "nothing is left to do" in done.stderr
    assert RunDir(finished).manifest.read_bytes() == before


def test_a_checkpoint_says_where_in_the_data_and_under_which_config_it_was_made(finished: Path) -> None:
    (shown,) = (
        json.loads(line) for line in core("checkpoints", "show", finished, "latest", "--json").stdout.splitlines()
    )
    manifest = shown["manifest"]
    assert manifest["data_position"] == {"step": 120, "seed": 0, "batch_size": 4, "context": 32}
    assert len(manifest["config_digest"]) == 64
    assert manifest["corpus_digest"] == read_manifest(RunDir(finished)).corpus["digest"]
    assert manifest["training_s"] > 0


def test_a_full_disk_stops_the_run_in_order_and_keeps_what_was_written(tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    # Small enough that a checkpoint fits where the telemetry does not.
    config = tmp_path / "small.toml"
    config.write_text("[kernel]\nwidth = 16\n")

    command = ["train", "--preset", "tiny", "--config", config, "--steps", "100000", "--runs", tmp_path / "runs"]
    done = core(*command, preexec_fn=small_files_only)
    assert done.returncode == 74, done.stderr
    assert done.stderr.count("cannot write") == 1
    assert "Traceback" not in done.stderr
    (run,) = list_runs(tmp_path / "runs")
    steps = [r.step for r in read_all(run.telemetry(), Sample) if isinstance(r, Sample)]
    assert steps == list(range(len(steps)))
    assert len(steps) > 100
    resumed = core("train", "--resume", run.path, "--steps", str(len(steps) + 10))
    assert resumed.returncode == 0, resumed.stderr


def test_a_quiet_terminal_is_not_flooded(finished: Path, tmp_path: Path) -> None:
    done = core("train", "--preset", "tiny", "--steps", "40", "--runs", tmp_path, cold=True)
    lines = done.stderr.splitlines()
    assert 3 <= len(lines) <= 25
    assert not any("\x1b" in line for line in lines)
