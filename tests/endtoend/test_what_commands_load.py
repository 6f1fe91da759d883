"""What each entry point really loads, asked in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    done = run_code(WITHOUT_TORCH, "train", "--runs", tmp_path)
    assert done.returncode == 2
    assert "pip install 'qig-tui[train]'" in done.stderr
    assert "Traceback" not in done.stderr
