from pathlib import Path

import pytest

from qig_core.rundir.layout import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "a-run")
    run.path.mkdir()
    run.checkpoints.mkdir()
    return run
