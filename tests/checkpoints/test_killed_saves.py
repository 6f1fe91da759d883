"""kill -9 at each step of a session that saves, pins and prunes: nothing is lost, and nothing is half."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def killed_sessions(run: Path, *drawn: int) -> tuple[list[str], list[str]]:
    """The steps at which sessions died, each checked by `killing.Witness`, and those of one that lived."""
    argv = [sys.executable, "-m", "tests.checkpoints.killing", run, *map(str, drawn)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # In which order the files of a folder go is the file system's choice.
    died, lived = (
        ["unlink" if name.startswith("unlink") else name for name in found[key]] for key in ("died", "lived")
    )
    return died, lived


SAVE = [
    "mkdir .tmp",
    *["open model.safetensors", "write model.safetensors", "fsync model.safetensors"],
    *["open notes.txt", "write notes.txt", "fsync notes.txt", "fsync .tmp"],
    *["open tags.json", "write tags.json", "fsync tags.json", "rename to tags.json"],
    *["open manifest.json", "write manifest.json", "fsync manifest.json", "rename to manifest.json"],
    *["rename to final", "fsync checkpoints"],
]
"""In their order, those that come twice at their first place."""
PIN = ["fsync final"]
PRUNE = ["rename to .del", "unlink", "rmdir .del"]


def test_a_kill_at_each_step_loses_nothing_and_leaves_nothing_half(tmp_path: Path) -> None:
    died, lived = killed_sessions(tmp_path / "run")
    assert len(died) >= len(lived) > 30
    assert {*died} == {*lived}
    assert {*died} >= {*SAVE, *PIN, *PRUNE}
    save = lived[lived.index("mkdir .tmp") : lived.index("rename to final") + 2]
    assert list(dict.fromkeys(save)) == SAVE


@pytest.mark.slow
def test_two_hundred_kills_at_random_steps_and_bytes_lose_nothing(tmp_path: Path) -> None:
    died, _ = killed_sessions(tmp_path / "run", 200, 20261130)
    assert len(died) > 150
    assert {*died} >= {*SAVE, *PIN, *PRUNE}
