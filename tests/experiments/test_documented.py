"""What docs/experiments.md says is what the documents beside it say, and they are small and name no machine."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from qig_core.experiments.conducting import EXPERIMENTS
from qig_core.experiments.picture import draw

DOCS = Path(__file__).parents[2] / "docs"


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "experiments" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def rows(found: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    out = []
    for finding in found["findings"]:
        limits = [
            f"{sign} {finding[key]:g}" for sign, key in ((">", "above"), ("<", "below")) if finding[key] is not None
        ]
        claimed = " and ".join(limits) + (f" {finding['unit']}" if finding["unit"] else "")
        estimate = finding["estimate"]
        interval = f"{estimate['low']:.3g} .. {estimate['high']:.3g}"
        p = f"{finding['p']:.2g}" if estimate["deviation"] else "–"
        cells = (finding["claim"], claimed, f"{estimate['mean']:.3g}", interval, p, finding["verdict"])
        out.append(f"| {found['experiment']}: **{found['verdict']}** | {' | '.join(cells)} |")
    return out


def texts(svg: bytes) -> list[str]:
    """What a picture says; where it says it is the business of fonts and versions."""
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_table_is_that_of_the_documents() -> None:
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    table = text.split("<!-- findings -->\n")[1].split("<!-- /findings -->")[0].splitlines()
    assert table[2:] == [row for name in EXPERIMENTS for row in rows(document(name))]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_kept_document_is_of_the_protocol_as_it_is_now(name: str) -> None:
    """A protocol that is changed after its data needs new data."""
    assert document(name)["declared"] == EXPERIMENTS[name].declared.strip().splitlines()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_kept_picture_is_drawn_from_the_kept_document(name: str) -> None:
    kept = (DOCS / "experiments" / f"{name}.svg").read_bytes()
    assert len(kept) < 100_000
    assert (DOCS / "experiments" / f"{name}.json").stat().st_size < 100_000
    assert texts(draw(document(name))) == texts(kept)
