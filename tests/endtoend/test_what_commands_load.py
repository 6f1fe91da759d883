"""What each entry point really loads, asked in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.writer import RunWriter

REPORT = """
import sys
from qig_core.cli import main
sys.argv = ["qig-core", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
heavy = {"torch", "scipy", "textual"} & set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""

# Behaves as an environment without the extra: torch cannot be found.
WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def but_torch(cls, name, *rest):
    return None if name.split(".")[0] == "torch" else find(name, *rest)
PathFinder.find_spec = classmethod(but_torch)
from qig_core.cli import main
sys.argv = ["qig-core", *sys.argv[1:]]
main()
"""


def run_code(code: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "command", [["--help"], ["show"], ["runs", "--runs"], ["checkpoints", "list"], ["checkpoints", "verify"]]
)
def test_looking_at_a_run_never_loads_torch(finished: Path, command: list[str]) -> None:
    where = [] if command == ["--help"] else [finished.parent if command[0] == "runs" else finished]
    done = run_code(REPORT, *command, *where)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr


def test_a_wrong_configuration_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("stepz = 1")
    assert run_code(REPORT, "train", "--config", file).stderr.splitlines()[-1] == "2 []"


def test_the_version_is_known_without_torch() -> None:
    assert run_code(REPORT, "--version").stderr.splitlines()[-1] == "0 []"


def test_a_demand_that_cannot_be_met_is_refused_before_torch_is_loaded(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    wider = tmp_path / "wider.toml"
    wider.write_text("[kernel]\nwidth = 64\n")
    bad_value = tmp_path / "bad.toml"
    bad_value.write_text("[optimizer]\nlr = -1.0\n")
    no_profile = tmp_path / "no-profile.toml"
    no_profile.write_text("[safety]\nprofile = 'absent.toml'\n")
    for words, code, said in (
        (["--resume", tmp_path / "absent"], 2, "does not exist"),
        (["--fork", "nobody", "--runs", tmp_path], 2, "no run 'nobody'"),
        (["--resume", f"{copy}@77"], 1, "no complete checkpoint of step 77"),
        (["--fork", f"{copy}@step-x"], 1, "no checkpoint 'step-x'"),
        (["--resume", copy], 2, "nothing is left to do"),
        (["--resume", copy, "--steps", "900", "--config", wider], 2, "kernel.width"),
        (["--config", bad_value], 2, "lr is -1.0"),
        (["--config", no_profile], 2, "absent.toml"),
        (["--id", "../x"], 2, "--id"),
        (["--corpus", tmp_path / "absent"], 2, "absent"),
    ):
        done = run_code(REPORT, "train", *words)
        assert said in done.stderr
        assert done.stderr.splitlines()[-1] == f"{code} []", done.stderr


def test_a_run_that_is_being_written_is_refused_before_torch_is_loaded(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    with RunWriter.reopen(RunDir(copy)):
        done = run_code(REPORT, "train", "--resume", copy, "--steps", "900")
    assert f"is being written by process {os.getpid()}" in done.stderr
    assert done.stderr.splitlines()[-1] == "73 []"


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    done = run_code(WITHOUT_TORCH, "train", "--runs", tmp_path)
    assert done.returncode == 2
    assert "pip install 'qig-tui[train]'" in done.stderr
    assert "Traceback" not in done.stderr
