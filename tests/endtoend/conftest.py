"""One finished run for all end-to-end tests."""

from pathlib import Path

import pytest

from tests.endtoend.commands import core


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of 120 steps that came to its end; its directory is not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    done = core("train", "--preset", "tiny", "--steps", "120", "--runs", root, "--name", "first")
    assert done.returncode == 0, done.stderr
    (run,) = [path for path in root.iterdir() if path.is_dir()]
    return run
