"""What the documents say: a snippet that runs, tables that are those of the last benchmarks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from racing import markdown
from validation import tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_its_comments_say() -> None:
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "thermal_state" in code)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    distance, _mean, qfi, angle = done.stdout.splitlines()
    assert f"{float(distance):.1e}" == "2.9e-09"
    assert qfi.endswith("(2, 2)")
    assert 1e-9 < float(angle) < 1e-8


def test_the_validation_is_that_of_the_last_run() -> None:
    facts = json.loads((ROOT / "benchmarks" / "results" / "validation.json").read_text(encoding="utf-8"))
    document = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    for name, table in tables(facts).items():
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in document
    assert all(row["right"] for row in (*facts["known"], *facts["kappa"]))


@pytest.mark.parametrize("name", ["geometry", "measures"])
def test_the_tables_are_those_of_the_last_whole_runs(name: str) -> None:
    facts = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert not facts.get("quick")
    assert f"<!-- {name} -->\n{markdown(facts)}<!-- /{name} -->" in README
