"""`qig-core measure`: a checkpoint, a model of the user's, and everything that can be named wrongly."""

import json
from pathlib import Path

import pytest

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.measures.packet import load
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all, read_manifest
from qig_core.rundir.schema import Sample
from tests.endtoend.commands import core, core_json

MODELS = """
import torch
from torch import nn
from neighbour import WIDTH


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
    return nn.Sequential(nn.Embedding(256, WIDTH), nn.TransformerEncoder(layer, 2), nn.Linear(WIDTH, 256))


def with_batch():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()), torch.randn(8, 8)


def broken():
    model = encoder()
    with torch.no_grad():
        model[1].layers[0].linear1.bias[0] = torch.nan
    return model


def few_tokens():
    return nn.Sequential(nn.Embedding(10, WIDTH), nn.Linear(WIDTH, WIDTH))


def nothing():
    return 3


def raises():
    return 1 / 0


not_a_function = 1
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 32\n")
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path / "models.py"


def test_a_checkpoint_gives_what_the_run_recorded_there(finished: Path) -> None:
    (found,) = core_json("measure", finished)
    run = RunDir(finished)
    last = [record for record in read_all(run.telemetry(), Sample) if isinstance(record, Sample)][-1]
    for name in ("phi", "phi_nats", "kappa"):
        assert found[name] == pytest.approx(last.m[name], rel=1e-6)
    assert found["regime"] is not None
    assert found["probe"]["digest"] == read_manifest(run).probe["digest"]
    assert len(found["per_pass"]) == 3
    assert found["per_pass"][-1] == found["phi"]
    assert (found["nonfinite"], found["reasons"], found["notes"]) == ({}, {}, [])
    assert len(found["basin"]) == 64
    assert found["integration"]["share"] == pytest.approx(0.9, abs=0.1)


def test_a_checkpoint_has_many_names(finished: Path) -> None:
    checkpoint = list_checkpoints(RunDir(finished))[0]
    by_path, by_name, by_step = (
        core_json("measure", target)[0]
        for target in (checkpoint.path, f"{finished}@{checkpoint.name}", f"{finished}@{checkpoint.step}")
    )
    assert by_path["model"] == by_name["model"] == by_step["model"]
    assert by_path["phi"] == by_name["phi"] == by_step["phi"]


@pytest.mark.parametrize("form", ["json", "npz"])
def test_a_basin_travels_as_a_packet_and_is_found_again(finished: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"identity.{form}"
    assert core("measure", finished, "--packet", file).returncode == 0
    (found,) = core_json("measure", finished, "--against", file)
    assert found["distance_rad"] == 0.0
    assert load(file).basin.tolist() == found["basin"]
    assert "0 rad (Fisher–Rao)" in core("measure", finished, "--against", file).stdout
    text = tmp_path / "text.txt"
    text.write_text("It was a dark and stormy night. " * 400)
    other = core("measure", finished, "--corpus", text, "--against", file)
    assert other.returncode == 2
    assert "probe" in other.stderr
    file.write_bytes(b"junk")
    assert core("measure", finished, "--against", file).returncode == 2
    assert core("measure", finished, "--against", tmp_path / "none.json").returncode == 2
    assert core("measure", finished, "--packet", tmp_path / "no" / "dir.json").returncode == 74


def test_another_text_is_said_to_be_another(finished: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("It was a dark and stormy night. " * 400)
    done = core("measure", finished, "--corpus", text)
    assert done.returncode == 0
    assert "another text than the run's own: not comparable with its record" in done.stdout


def test_the_table_says_what_phi_is_comparable_with(finished: Path) -> None:
    shown = core("measure", finished, cold=True).stdout
    for part in ("Φ phi", "M = 4, rank 8, ε = 0.1", "of each pass", "κ kappa", "head", "explained", "entropy"):
        assert part in shown


def test_any_module_is_measured_with_a_batch_of_its_own_or_bytes(models: Path) -> None:
    (found,) = core_json("measure", f"{models}:encoder", "--length", "16")
    assert found["probe"]["block"] == "1.layers.1"
    assert 0.0 < found["phi"] < 1.0
    assert len(found["coupling"]["per_head"]) == 4
    assert found["regime"] is not None  # rank 4 of 4: whole parts
    (own,) = core_json("measure", f"{models}:with_batch", "--parts", "4", "--rank", "2")
    assert own["kappa"] is None
    assert own["reasons"] == {"kappa": "2 shows no attention"}
    assert own["regime"] is None
    assert own["corpus"] == "given by the factory"
    shown = core("measure", f"{models}:with_batch", "--block", "2").stdout
    assert "– 2 shows no attention" in shown


def test_a_broken_model_is_named_and_the_exit_code_says_so(models: Path) -> None:
    done = core("measure", f"{models}:broken")
    assert done.returncode == 1
    assert "not finite: nan, first in 1.layers.0.linear1" in done.stdout


@pytest.mark.parametrize(
    ("function", "options", "sentence"),
    [
        ("encodr", [], "has no function 'encodr'; nearest: encoder"),
        ("raises", [], "raised ZeroDivisionError: division by zero ("),
        ("not_a_function", [], "has no function 'not_a_function'"),
        ("nothing", [], "returned int, not a torch module or (module, batch)"),
        ("few_tokens", [], "without a batch of its own it is called with [8, 64] bytes, 0 .. 255"),
        ("encoder", ["--block", "1.layer.0"], "no module '1.layer.0'; nearest: 1.layers.0"),
        ("encoder", ["--parts", "1"], "parts is 1: it must be a whole number, at least 2"),
        ("with_batch", ["--corpus", "x.txt"], "gives a batch of its own: leave --corpus out"),
        ("with_batch", ["--length", "9"], "gives a batch of its own: leave --length out"),
        ("encoder", ["--length", "1"], "--length 1: at least 2 bytes make a sequence"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    models: Path, function: str, options: list[str], sentence: str
) -> None:
    done = core("measure", f"{models}:{function}", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_there_is_said_before_torch_is_loaded(finished: Path, tmp_path: Path) -> None:
    assert "no such file" in core("measure", tmp_path / "none.py:f").stderr
    assert core("measure", "nowhere", "--runs", tmp_path).returncode == 2
    (tmp_path / "model.py").touch()
    assert "name a function in it too" in core("measure", tmp_path / "model.py").stderr
    assert "--block is for MODEL.py:FACTORY" in core("measure", finished, "--block", "x").stderr
    missing = core("measure", f"{finished}@7")
    assert (missing.returncode, "no complete checkpoint of step 7" in missing.stderr) == (1, True)
    assert json.loads(core("measure", finished, "--json").stdout)["phi"] is not None
