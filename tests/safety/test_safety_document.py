"""docs/safety.md says what the code does."""

import dataclasses
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from qig_core.rundir.schema import VERBS
from qig_core.safety import profile
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.announcing import LAST_ALERTS_S
from qig_core.safety.profile import DEFAULT, PROFILES, Limit, SoftReset, from_dict

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
KINDS: tuple[type[msgspec.Struct], ...] = Limit.__args__


def profile_of(text: str) -> profile.Profile:
    """The one in a document."""
    found = [code for code in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[limits]]" in code]
    return from_dict({"name": "documented"} | tomllib.loads(found[0]))


def test_the_documented_profile_can_be_read_and_has_every_kind_once() -> None:
    mine = profile_of(DOCUMENT)
    assert [type(limit) for limit in mine.limits] == sorted(KINDS, key=[type(limit) for limit in mine.limits].index), (
        "every kind of limit, each once"
    )
    assert mine.soft_reset is not None


@pytest.mark.parametrize("kind", [*KINDS, SoftReset])
def test_every_key_of_a_limit_stands_in_the_document(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if not re.search(rf"\b{name} =", DOCUMENT)] == []


def test_a_default_that_is_shown_is_the_default() -> None:
    for limit in profile_of(DOCUMENT).limits:
        kind = type(limit).__name__
        if kind in ("Divergence", "EarlyWarning", "Measured", "Stall"):
            assert limit == type(limit)(), kind


def test_the_profile_in_the_readme_can_be_read() -> None:
    mine = profile_of(README)
    assert [limit.id for limit in mine.limits] == ["nonfinite", "reward_floor"]
    assert mine.soft_reset is not None
    assert f"within {mine.soft_reset.cooldown} checks" in README


def test_every_condition_verb_and_setting_stands_in_the_documents() -> None:
    assert [limit.id for limit in DEFAULT.limits if f"`{limit.id}`" not in README] == []
    assert [verb for verb in VERBS if not re.search(rf"\b{verb}\b", DOCUMENT)] == []
    assert [name for name in PROFILES if f"`{name}`" not in DOCUMENT] == []
    assert [each.name for each in dataclasses.fields(AlertSettings) if f"| {each.name} |" not in DOCUMENT] == []
    assert f"at most {LAST_ALERTS_S:g} s" in DOCUMENT.replace("\n", " ")
