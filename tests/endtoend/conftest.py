"""One finished run for all end-to-end tests, and a writer that lives beside a test."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir
from tests.endtoend.commands import WRITES, core


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of 120 steps that came to its end; its directory is not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    done = core("train", "--preset", "tiny", "--steps", "120", "--runs", root, "--name", "first")
    assert done.returncode == 0, done.stderr
    (run,) = [path for path in root.iterdir() if path.is_dir()]
    return run


@pytest.fixture
def live(run: RunDir) -> Iterator["subprocess.Popen[str]"]:
    """The run of a module's own fixture `run`, written by another process until it is let go."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writes\n"
    yield process
    process.communicate("stop\n", timeout=60)
    assert process.returncode == 0
