"""What a run has trained on is counted over its sessions, and over forks."""

from pathlib import Path

from qig_core.rundir.layout import RunDir, list_runs
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Sample
from tests.endtoend.commands import core


def counted(run: RunDir) -> dict[int, float | None]:
    return {s.step: s.m.get("tokens") for s in read_all(run.telemetry(), Sample) if isinstance(s, Sample)}


def test_a_resumed_run_and_a_fork_go_on_counting_tokens(tmp_path: Path) -> None:
    assert core("train", "--preset", "tiny", "--steps", "8", "--runs", tmp_path, "--id", "first").returncode == 0
    run = RunDir(tmp_path / "first")
    config = read_manifest(run).config
    a_step = config["data"]["batch_size"] * config["kernel"]["context"]
    assert core("train", "--resume", run.path, "--steps", "12").returncode == 0
    assert counted(run) == {step: float(step * a_step) for step in range(13)}
    (tmp_path / "other.toml").write_text(f"steps = 14\n[data]\nbatch_size = {2 * config['data']['batch_size']}\n")
    done = core("train", "--fork", f"{run.path}@12", "--config", tmp_path / "other.toml", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    (fork,) = [one for one in list_runs(tmp_path) if one.id != "first"]
    assert counted(fork) == {12: 12.0 * a_step, 13: 14.0 * a_step, 14: 16.0 * a_step}
