"""`checkpoints diff` and `checkpoints export` as a person and as a program use them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.rundir.layout import RunDir
from tests.endtoend.commands import core, core_json


def test_two_checkpoints_of_a_run_are_laid_side_by_side(finished: Path) -> None:
    last, first = (found.name for found in list_checkpoints(RunDir(finished))[:2])
    forms = ([f"{finished}@{first}", finished], [finished, first, last], [finished / "checkpoints" / first, finished])
    results = []
    for form in forms:
        *reports, answer = core_json("checkpoints", "diff", *form)
        assert reports[0]["progress"]["done"] == 0
        results.append(answer["result"])
    assert results[0] == results[1] == results[2]
    (result, *_) = results
    assert (result["a"], result["b"]) == (f"{finished.name}@{first}", f"{finished.name}@{last}")
    assert not result["equal"]
    assert 0.0 < result["basin"]["distance_rad"] < 3.1416
    rows = {row["name"]: row for row in result["tensors"]["changed"]}
    assert rows["model:embedding"]["relative_change"] > 0
    assert {row["name"] for row in result["facts"]} >= {"step", "t", "training_s"}

    done = core("checkpoints", "diff", finished, first, last)
    assert done.returncode == 0, done.stderr
    for said in ("rad apart (Fisher–Rao)", "model:embedding", "loss_heldout", "differs at", "|A−B|/|A|"):
        assert said in done.stdout


def test_a_checkpoint_beside_itself_is_equal_in_one_line(finished: Path) -> None:
    done = core("checkpoints", "diff", finished, finished)
    assert done.returncode == 0
    assert "equal bit by bit\n" in done.stdout
    assert "model:embedding" not in done.stdout
    assert "model:embedding" in core("checkpoints", "diff", finished, finished, "--all").stdout


def test_what_is_exported_is_equal_to_what_was_exported(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    done = core("checkpoints", "export", finished, "latest", out)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "weights.json").read_bytes())
    assert about["source"]["run"] == finished.name
    assert sum(about["basin"]) == pytest.approx(1.0)
    torch.save(load_file(out), tmp_path / "weights.pt")
    for file in (out, tmp_path / "weights.pt"):
        *_, answer = core_json("checkpoints", "diff", finished, file)
        assert (answer["result"]["key"], answer["result"]["equal"]) == ("model", True)
        done = core("checkpoints", "diff", file, out)
        assert done.returncode == 0, done.stderr
        assert "equal bit by bit" in done.stdout
        assert done.stderr == ""

    again = core("checkpoints", "export", f"{finished}@latest", out)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    *_, answer = core_json("checkpoints", "export", f"{finished}@latest", out, "--force", "--all")
    assert "optimizer" in answer["result"]["exported"]["keys"]
    assert "model.embedding" in load_file(out)


WITHOUT_TORCH = """
import sys
from qig_core.cli import main
sys.argv = ["qig-core", "checkpoints", *sys.argv[1:]]
try:
    main()
finally:
    assert not {"torch", "safetensors", "scipy"} & set(sys.modules)
"""


def test_neither_command_loads_torch(finished: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "w.safetensors")
    for words in (["export", str(finished), out], ["diff", str(finished), out]):
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_what_cannot_be_is_refused_in_one_sentence(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"garbage")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    out = tmp_path / "w.safetensors"
    for words, code, said in (
        (["diff", finished, f"{finished}@77"], 1, "no complete checkpoint of step 77"),
        (["diff", finished, tmp_path / "bad.pt"], 1, "is not read"),
        (["diff", tmp_path / "bad.safetensors", finished], 1, "is no safetensors file"),
        (["diff", finished, "n" * 300], 2, "no run 'nnn"),
        (["export", finished, "latest"], 2, "its name ends in .safetensors"),
        (["export", finished], 2, "export takes RUN[@CHECKPOINT] [CHECKPOINT] OUT.safetensors"),
        (["export", f"{finished}@latest", "best", out], 2, "two checkpoints"),
        (["export", finished, out, "--key", "weights"], 2, "there are 'global_rng', 'model', 'optimizer'"),
        (["export", finished, tmp_path / "absent" / "w.safetensors"], 2, "is not a folder"),
    ):
        done = core("checkpoints", *words)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*w.*"))
