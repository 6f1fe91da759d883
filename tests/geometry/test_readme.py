"""What the README says of the geometry: its snippet runs, its table is that of the last benchmark."""

import json
import re
import subprocess
import sys
from pathlib import Path

from racing import markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_its_comments_say() -> None:
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "thermal_state" in code)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    distance, _mean, qfi, angle = done.stdout.splitlines()
    assert f"{float(distance):.1e}" == "2.9e-09"
    assert qfi.endswith("(2, 2)")
    assert 1e-9 < float(angle) < 1e-8


def test_the_table_is_that_of_the_last_whole_run() -> None:
    facts = json.loads((ROOT / "benchmarks" / "results" / "geometry.json").read_text(encoding="utf-8"))
    assert not facts["quick"]
    assert f"<!-- geometry -->\n{markdown(facts)}<!-- /geometry -->" in README
