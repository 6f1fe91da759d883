"""What was chosen is found again; nothing that can happen to the file costs more than the memory."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qig_tui.memory import VERSION, Memory, Remembered, state_path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "dashboard.json"


def test_what_was_chosen_is_found_again(file):
    first = Memory(file)
    first.change(theme="qig-light", pinned=("loss", "phi"))
    first.change(smoothing="50")
    assert Memory(file).chosen == Remembered(theme="qig-light", pinned=("loss", "phi"), smoothing="50")
    assert json.loads(file.read_text())["version"] == VERSION
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_a_choice_that_is_none_writes_nothing(file):
    memory = Memory(file)
    memory.change(theme="")
    assert not file.exists()
    assert memory.problem is None


def test_without_a_path_nothing_outlives_the_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = Memory()
    memory.change(theme="qig-light")
    assert memory.chosen.theme == "qig-light"
    assert not list(tmp_path.iterdir())


def test_two_dashboards_keep_each_others_choices(file):
    one, other = Memory(file), Memory(file)
    one.change(theme="qig-light")
    other.change(runs_sort="-loss")
    one.change(smoothing="10")
    assert Memory(file).chosen == Remembered(theme="qig-light", runs_sort="-loss", smoothing="10")
    assert other.chosen == Remembered(runs_sort="-loss"), "what is open does not change under somebody's eyes"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"theme": 5}', b'{"version": "x"}', b'{"pinned": "phi"}', b"\xff\xfe", b"[" * 9999],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_file_is_set_aside_and_told(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    memory = Memory(file)
    assert memory.chosen == Remembered()
    assert repr(str(file)) in memory.problem
    assert memory.problem.endswith("it is set aside as dashboard.json.bad")
    assert file.with_name("dashboard.json.bad").read_bytes() == content
    memory.change(theme="qig-light")
    assert Memory(file).chosen.theme == "qig-light"


@pytest.mark.parametrize("more", [{}, {"theme": {"of": "another form"}, "pinned": 3}])
def test_a_file_of_a_newer_version_is_left_alone(file, more):
    file.parent.mkdir()
    content = json.dumps({"version": VERSION + 1, **more})
    file.write_text(content)
    memory = Memory(file)
    assert f"version {VERSION + 1}" in memory.problem
    memory.change(theme="qig-light")
    assert memory.chosen.theme == "qig-light"
    assert file.read_text() == content


def test_what_a_later_program_adds_does_not_disturb(file):
    file.parent.mkdir()
    file.write_text(json.dumps({"version": VERSION, "theme": "qig-safe", "unheard_of": [1]}))
    memory = Memory(file)
    assert (memory.chosen.theme, memory.problem) == ("qig-safe", None)


def test_a_path_that_is_no_file_is_left_where_it_is(file):
    file.mkdir(parents=True)
    memory = Memory(file)
    assert memory.problem is not None
    memory.change(theme="qig-light")
    assert file.is_dir()
    assert not file.with_name("dashboard.json.bad").exists()


def test_a_fifo_is_not_waited_for(file):
    file.parent.mkdir()
    os.mkfifo(file)
    assert "not a regular file" in (Memory(file).problem or "")


def test_a_folder_that_cannot_be_made_is_told_once_and_costs_no_choice(tmp_path):
    (tmp_path / "state").write_text("a file in the way")
    told: list[str] = []
    memory = Memory(tmp_path / "state" / "dashboard.json")
    memory.listen(told.append)
    memory.change(theme="qig-light")
    memory.change(theme="qig-dark")
    assert memory.chosen.theme == "qig-dark"
    (words,) = told
    assert "cannot be" in words


def test_a_problem_from_before_is_told_to_whoever_listens(file):
    file.parent.mkdir()
    file.write_text("{")
    told: list[str] = []
    Memory(file).listen(told.append)
    assert len(told) == 1


def test_a_dangling_link_is_replaced(file):
    file.parent.mkdir()
    file.symlink_to(file.parent / "nowhere")
    memory = Memory(file)
    memory.change(theme="qig-light")
    assert Memory(file).chosen.theme == "qig-light"


def test_the_place_is_the_named_one_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("QIG_DASHBOARD_STATE", str(tmp_path / "x.json"))
    assert state_path() == tmp_path / "x.json"
    monkeypatch.setenv("QIG_DASHBOARD_STATE", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_path() == tmp_path / "qig-tui" / "dashboard.json"


def test_nobody_without_a_home_gets_a_folder_called_tilde(monkeypatch):
    monkeypatch.delenv("QIG_DASHBOARD_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a user that nobody knows
    assert state_path() is None


def test_it_is_read_without_textual():
    code = "import qig_tui.memory, sys; print('textual' in sys.modules)"
    here = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.strip() == "False"
