import pytest

from tests.tui.runs import full_run


@pytest.fixture
def writer(tmp_path):
    """A live run that has recorded everything the run screen shows."""
    with full_run(tmp_path) as writer:
        yield writer
