import subprocess
import sys
import tomllib

import pytest

from qig_core.errors import ConfigError
from qig_core.safety.profile import (
    DEFAULT,
    OFF,
    Divergence,
    NonFinite,
    Profile,
    Threshold,
    from_dict,
    load_profile,
    to_dict,
)


@pytest.mark.parametrize("profile", [DEFAULT, OFF])
def test_a_profile_survives_the_way_through_plain_data(profile: Profile) -> None:
    assert from_dict(to_dict(profile)) == profile


def test_every_number_of_a_profile_is_spelled_out() -> None:
    table = next(limit for limit in to_dict(DEFAULT)["limits"] if limit["id"] == "divergence")
    assert table["kind"] == "divergence"
    assert (table["span"], table["window"], table["lag"], table["mads"], table["dwell"]) == (20, 200, 50, 8.0, 20)
    assert (table["margin"], table["margin_dwell"]) == (0.5, 50)


def test_toml_is_read_with_defaults_for_what_is_left_out() -> None:
    text = """
    name = "mine"
    [[limits]]
    kind = "nonfinite"
    metrics = ["loss", "reward"]
    [[limits]]
    id = "reward_floor"
    kind = "threshold"
    metric = "reward"
    comparison = ">="
    value = 0
    severity = "warning"
    dwell = 10
    [[limits]]
    kind = "divergence"
    margin = 2
    """
    assert from_dict(tomllib.loads(text)) == Profile(
        name="mine",
        limits=(
            NonFinite(metrics=("loss", "reward")),
            Threshold(id="reward_floor", metric="reward", comparison=">=", value=0.0, severity="warning", dwell=10),
            Divergence(margin=2.0),
        ),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "limit": []}, r"unknown key 'limit'; did you mean 'limits'\?"),
        ({"name": "x", "limits": [{"kind": "treshold"}]}, r"kind 'treshold' is unknown; did you mean 'threshold'\?"),
        (
            {"name": "x", "limits": [{"kind": "divergence", "margni": 1}]},
            r"limit 0: unknown key 'margni'; did you mean 'margin'\?",
        ),
        ({"name": "x", "limits": [{"kind": "threshold", "id": "a"}]}, "missing required field `metric`"),
        ({"name": "x", "limits": {}}, "must be a list of tables"),
        ({"limits": []}, "missing required field `name`"),
        ({"name": "x", "limits": [{"kind": "divergence", "dwell": 0}]}, "dwell is less than 1"),
        ({"name": "x", "limits": [{"kind": "divergence", "dwell": "20"}]}, "Expected `int`, got `str`"),
        ({"name": "x", "limits": [{"kind": "nonfinite", "metrics": []}]}, "names no metric"),
        ({"name": "x", "limits": [{"kind": "nonfinite"}, {"kind": "nonfinite"}]}, "two limits are called 'nonfinite'"),
        (
            {
                "name": "x",
                "limits": [{"kind": "threshold", "id": "a", "metric": "m", "comparison": ">", "value": 1.0}],
            },
            "Invalid enum value '>'",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(data)


def test_a_built_in_profile_is_loaded_by_its_name_and_another_by_its_path(tmp_path) -> None:
    assert load_profile("default") is DEFAULT
    path = tmp_path / "strict.toml"
    path.write_text('[[limits]]\nkind = "nonfinite"\n')
    assert load_profile(str(path)) == Profile(name="strict", limits=(NonFinite(),))


@pytest.mark.parametrize(
    ("name", "message"),
    [("defualt", "did you mean 'default'"), ("./absent.toml", "No such file"), ("./bad.toml", "is not TOML")],
)
def test_a_profile_that_cannot_be_loaded_says_why(name: str, message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(ConfigError, match=message):
        load_profile(name)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("qig_core.safety.monitor", ("torch", "numpy", "qig_core.rundir.writer")),
        ("qig_core.safety.integrated", ("torch", "numpy", "qig_core.checkpoints", "qig_core.training")),
    ],
)
def test_a_module_loads_nothing_that_it_must_not_know(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(int(any(m.startswith({forbidden!r}) for m in sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
