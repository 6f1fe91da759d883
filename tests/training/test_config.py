from pathlib import Path

import pytest

from qig_core.safety.profile import load_profile
from qig_core.training.config import build, read_toml


def test_a_profile_in_a_file_is_sought_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('[[limits]]\nkind = "nonfinite"\n')
    file = tmp_path / "train.toml"
    file.write_text('[safety]\nprofile = "mine.toml"\n')
    monkeypatch.chdir("/")
    assert load_profile(build(read_toml(file)).safety.profile).name == "mine"
    file.write_text('[safety]\nprofile = "reference"\n')
    assert build(read_toml(file)).safety.profile == "reference"
