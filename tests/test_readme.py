"""What the documents say: a snippet that runs, tables that are those of the last benchmarks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import dashboard
import pytest
from racing import markdown
from validation import tables

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.rundir.layout import list_runs
from tests import warm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_its_comments_say() -> None:
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "thermal_state" in code)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    distance, _mean, qfi, angle = done.stdout.splitlines()
    assert f"{float(distance):.1e}" == "2.9e-09"
    assert qfi.endswith("(2, 2)")
    assert 1e-9 < float(angle) < 1e-8


def test_the_dashboards_table_is_that_of_the_last_whole_run() -> None:
    facts = json.loads(dashboard.RESULTS.read_text(encoding="utf-8"))
    assert not facts["quick"]
    assert f"<!-- dashboard -->\n{dashboard.markdown(facts)}<!-- /dashboard -->" in README


LOOP = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
optimizer = torch.optim.Adam(model.parameters())


def train_one_step(model, optimizer, step):
    optimizer.zero_grad()
    model(torch.rand(4, 2)).sum().backward()
    optimizer.step()


"""


@pytest.mark.parametrize("document", ["README.md", "docs/checkpoints.md"])
def test_the_five_lines_of_the_checkpointer_work(document: str, tmp_path: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    (snippet,) = (code for code in re.findall(r"```python.*?\n(.*?)```", text, re.DOTALL) if "Checkpointer(" in code)
    for steps in ("2", "4"):
        done = warm.run(warm.code, LOOP + snippet.replace("2000", steps), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "runs")
    assert [found.step for found in list_checkpoints(run)] == [4, 2]


def test_the_partial_load_of_the_document_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python partial\n(.*?)```", text, re.DOTALL)
    saved = "torch.save({'encoder.0.weight': torch.ones(3, 2), 'encoder.9.bias': torch.ones(1)}, 'weights.pt')\n"
    shown = "assert model[0].weight.sum() == 6\n"
    done = warm.run(warm.code, LOOP + saved + snippet + shown, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("9.bias", "1.weight", "0.bias"))


def test_the_validation_is_that_of_the_last_run() -> None:
    facts = json.loads((ROOT / "benchmarks" / "results" / "validation.json").read_text(encoding="utf-8"))
    document = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    for name, table in tables(facts).items():
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in document
    assert all(row["right"] for row in (*facts["known"], *facts["kappa"]))


@pytest.mark.parametrize("name", ["geometry", "measures", "checkpoints"])
def test_the_tables_are_those_of_the_last_whole_runs(name: str) -> None:
    facts = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert not facts.get("quick")
    assert f"<!-- {name} -->\n{markdown(facts)}<!-- /{name} -->" in README
