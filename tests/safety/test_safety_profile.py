import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from qig_core.errors import ConfigError
from qig_core.safety.profile import (
    DEFAULT,
    OFF,
    PROFILES,
    REFERENCE,
    Divergence,
    EarlyWarning,
    Floor,
    Measured,
    NonFinite,
    Profile,
    RobustZ,
    SoftReset,
    Stall,
    Threshold,
    from_dict,
    load_profile,
    to_dict,
)

EVERY_KIND = Profile(
    name="every kind",
    limits=(
        NonFinite(metrics=("loss", "reward"), severity="warning"),
        Threshold(id="x-y", metric='a "quoted" \\ metric', comparison=">=", value=-1e-9, unit="rad⁻¹"),
        Threshold(
            id="graded",
            metric="x",
            comparison="<=",
            value=3.0,
            warning=2.0,
            advice_at=1.0,
            advice="sleep advised",
            armed_at=0.5,
            armed_held=7,
            armed_after=3,
            dwell=2,
            hysteresis=0.25,
        ),
        Divergence(metric="reward", margin=2.0, span=3),
        Floor(id="floor", metric="phi", share=0.5, rebase_on="stage"),
        RobustZ(id="z", metric="kappa", sides="below", severity="critical"),
        EarlyWarning(metrics={"reward": "down", "loss": "up"}, threshold=50.0),
        Measured(metrics=("phi", "kappa")),
        Stall(min_s=1.5),
    ),
    breakdown="reference",
    soft_reset=SoftReset(limits=("graded", "z"), lr_factor=0.5),
)
EVERY_PROFILE = pytest.mark.parametrize("profile", [*PROFILES.values(), EVERY_KIND], ids=lambda profile: profile.name)


def toml(value: Any) -> str:
    """Plain data as TOML; a None has no place in it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    assert isinstance(value, str | int | float)
    return json.dumps(value)


@EVERY_PROFILE
def test_a_profile_survives_the_way_through_plain_data(profile: Profile) -> None:
    assert from_dict(to_dict(profile)) == profile
    assert from_dict(json.loads(json.dumps(to_dict(profile), allow_nan=False))) == profile


@EVERY_PROFILE
def test_a_profile_survives_the_way_through_toml(profile: Profile, tmp_path) -> None:
    text = "\n".join(f"{key} = {toml(value)}" for key, value in to_dict(profile).items())
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert load_profile(str(path)) == profile


def test_every_kind_and_every_setting_stands_in_the_plain_data() -> None:
    for limit, table in zip(EVERY_KIND.limits, to_dict(EVERY_KIND)["limits"], strict=True):
        settings = {name: getattr(limit, name) for name in limit.__struct_fields__}
        assert set(table) - {"kind"} == {name for name, value in settings.items() if value is not None}
    assert {table["kind"] for table in to_dict(EVERY_KIND)["limits"]} == set(KINDS)


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
        ({"name": "x", "limits": [{"kind": "divergence", "dwell": 0}]}, "dwell is 0: it must be at least 1"),
        ({"name": "x", "limits": [{"kind": "divergence", "dwell": "20"}]}, "Expected `int`, got `str`"),
        ({"name": "x", "limits": [{"kind": "nonfinite", "metrics": []}]}, "names no metric"),
        ({"name": "x", "limits": [{"kind": "nonfinite"}, {"kind": "nonfinite"}]}, "two limits are called 'nonfinite'"),
        (
            {
                "name": "x",
                "limits": [{"kind": "threshold", "id": "a", "metric": "m", "comparison": ">", "value": 1.0}],
            },
            "comparison '>' is unknown; did you mean '>='",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(data)


KINDS: dict[str, dict[str, Any]] = {
    "nonfinite": {},
    "threshold": {"id": "t", "metric": "m", "comparison": "<=", "value": 1.0},
    "divergence": {},
    "floor": {"id": "f", "metric": "m"},
    "robust_z": {"id": "z", "metric": "m"},
    "early_warning": {},
    "measured": {},
    "stall": {},
}
"""The least of each."""
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_of_each_kind_is_enough(kind: str) -> None:
    assert len(from_dict({"name": "x", "limits": [{"kind": kind} | KINDS[kind]]}).limits) == 1


@pytest.mark.parametrize(
    ("kind", "setting", "problem"),
    [
        ("nonfinite", {"metrics": []}, "metrics names no metric"),
        ("threshold", {"value": NAN}, "value is nan: it must be finite"),
        ("threshold", {"value": INF}, "value is inf: it must be finite"),
        ("threshold", {"dwell": 0}, "dwell is 0: it must be at least 1, and finite"),
        ("threshold", {"armed_at": 0.5, "armed_held": 0}, "armed_held is 0: it must be at least 1, and finite"),
        ("threshold", {"armed_held": 5}, "armed_held has no armed_at"),
        ("threshold", {"armed_after": -1}, "armed_after is -1: it must be at least 0, and finite"),
        ("threshold", {"hysteresis": -0.1}, "hysteresis is -0.1: it must be at least 0, and finite"),
        ("threshold", {"hysteresis": INF}, "hysteresis is inf: it must be at least 0, and finite"),
        ("threshold", {"hysteresis": NAN}, "hysteresis is nan: it must be at least 0, and finite"),
        ("threshold", {"warning": 2.0}, "warning is 2: it must be <= 1, the healthy side of value, and finite"),
        ("threshold", {"armed_at": -INF}, "armed_at is -inf: it must be <= 1, the healthy side of value, and finite"),
        ("threshold", {"advice_at": 2.0, "advice": "a"}, "advice_at is 2: it must be <= 1, the healthy side of value"),
        ("threshold", {"comparison": ">=", "warning": 0.5}, "warning is 0.5: it must be >= 1, the healthy side"),
        ("threshold", {"severity": "warning", "warning": 0.5}, "warning is for a critical limit"),
        ("threshold", {"advice_at": 0.5}, "advice_at has no advice: say what is to be considered"),
        ("threshold", {"advice": "rest"}, "advice has no advice_at: say from which number on"),
        ("threshold", {"severity": "info"}, "severity 'info' is unknown; known are warning, critical"),
        ("divergence", {"span": 0}, "span is 0: it must be at least 1"),
        ("divergence", {"window": 0}, "window is 0: it must be at least 1"),
        ("divergence", {"margin_dwell": 0}, "margin_dwell is 0: it must be at least 1"),
        ("divergence", {"lag": -1}, "lag is -1: it must be at least 0"),
        ("divergence", {"mads": 0.0}, "mads is 0: it must be greater than 0, and finite"),
        ("divergence", {"margin": INF}, "margin is inf: it must be greater than 0, and finite"),
        ("divergence", {"margin_share": -1.0}, "margin_share is -1: it must be at least 0"),
        ("divergence", {"mad_floor": NAN}, "mad_floor is nan: it must be at least 0, and finite"),
        ("divergence", {"mad_floor_share": INF}, "mad_floor_share is inf: it must be at least 0, and finite"),
        ("floor", {"share": 1.0}, "share is 1: it must be greater than 0 and less than 1"),
        ("floor", {"share": NAN}, "share is nan: it must be greater than 0 and less than 1"),
        ("floor", {"dwell": 0}, "dwell is 0: it must be at least 1"),
        ("floor", {"baseline": 0}, "baseline is 0: it must be at least 1"),
        ("floor", {"armed_after_steps": -1}, "armed_after_steps is -1: it must be at least 0"),
        ("robust_z", {"z": 0.0}, "z is 0: it must be greater than 0, and finite"),
        ("robust_z", {"window": 9}, "window is 9: it must be at least 10"),
        ("robust_z", {"dwell": 0}, "dwell is 0: it must be at least 1"),
        ("robust_z", {"mad_floor_share": -0.5}, "mad_floor_share is -0.5: it must be at least 0"),
        ("robust_z", {"hysteresis": 1.0}, "hysteresis is 1: it must be a share, at least 0 and less than 1"),
        ("robust_z", {"sides": "left"}, "sides 'left' is unknown; known are above, below, both"),
        ("early_warning", {"metrics": {}}, "metrics names no metric"),
        ("early_warning", {"metrics": {"loss": "upwards"}}, "Invalid enum value 'upwards'"),
        ("early_warning", {"slack": 0.0}, "slack is 0: it must be greater than 0"),
        ("early_warning", {"threshold": NAN}, "threshold is nan: it must be greater than 0"),
        ("early_warning", {"clip": 1.5}, "clip is 1.5: it must be greater than 1.5"),
        ("early_warning", {"window": 1}, "window is 1: it must be at least 10"),
        ("measured", {"metrics": ["phi", "phi"]}, "metrics names fewer than two"),
        ("measured", {"armed_after": 0}, "armed_after is 0: it must be at least 1"),
        ("measured", {"dwell": 0}, "dwell is 0: it must be at least 1"),
        ("stall", {"min_s": 0.0}, "min_s is 0: it must be greater than 0"),
        ("stall", {"p99s": INF}, "p99s is inf: it must be greater than 0, and finite"),
        ("stall", {"severity": "critical"}, "severity is critical: a thread beside the loop cannot stop it in order"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_and_why(
    kind: str, setting: dict[str, Any], problem: str
) -> None:
    fine = {"kind": "nonfinite", "id": "fine"}
    with pytest.raises(ConfigError) as refused:
        from_dict({"name": "x", "limits": [fine, {"kind": kind} | KINDS[kind] | setting]})
    assert str(refused.value).startswith("profile: ")
    assert problem in str(refused.value)
    assert re.search(rf"limits\[1\]|limit '{KINDS[kind].get('id')}'", str(refused.value))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"lr_factor": 0.0}, "lr_factor is 0: it must be greater than 0 and at most 1"),
        ({"lr_factor": 1.5}, "lr_factor is 1.5: it must be greater than 0 and at most 1"),
        ({"good_for": -1}, "good_for is -1: it must be at least 0"),
        ({"cooldown": -1}, "cooldown is -1: it must be at least 0"),
        ({"at_most": 0}, "at_most is 0: it must be at least 1"),
        ({"window": 0}, "window is 0: it must be at least 1"),
        ({"limits": ["nonfinit"]}, "names 'nonfinit', which is no limit of this profile; did you mean 'nonfinite'?"),
        ({"limits": ["loss_spike"]}, "names 'loss_spike', which only warns"),
        ({"limits": ["no_step"]}, "names 'no_step', which only warns"),
        ({"limit": ["nonfinite"]}, "soft_reset: unknown key 'limit'; did you mean 'limits'?"),
    ],
)
def test_a_soft_reset_that_cannot_be_is_refused_with_what_and_why(setting: dict[str, Any], problem: str) -> None:
    limits = [
        {"kind": "nonfinite"},
        {"kind": "robust_z", "id": "loss_spike", "metric": "loss"},
        {"kind": "stall"},
    ]
    with pytest.raises(ConfigError) as refused:
        from_dict({"name": "x", "limits": limits, "soft_reset": setting})
    assert problem in str(refused.value)


def test_a_run_with_a_long_warm_up_arms_its_floors_later_and_changes_nothing_else() -> None:
    later = DEFAULT.armed_after(700)
    assert [limit.armed_after_steps for limit in later.limits if isinstance(limit, Floor)] == [700]
    others = [[limit for limit in each.limits if not isinstance(limit, Floor)] for each in (later, DEFAULT)]
    assert others[0] == others[1]
    assert DEFAULT.armed_after(100) == DEFAULT
    kept = EVERY_KIND.armed_after(700)
    assert (kept.soft_reset, kept.breakdown, kept.name) == (EVERY_KIND.soft_reset, "reference", "every kind")


def test_a_stall_is_judged_by_nobody_from_samples() -> None:
    assert DEFAULT.stall == Stall()
    assert [limit for limit in DEFAULT.judged if isinstance(limit, Stall)] == []
    assert len(DEFAULT.judged) == len(DEFAULT.limits) - 1
    assert OFF.stall is None


def test_the_profiles_stop_a_run_for_what_is_said_and_for_nothing_else() -> None:
    critical = {
        profile.name: {each.id for each in profile.limits if each.severity == "critical"}
        for profile in (DEFAULT, REFERENCE, OFF)
    }
    assert critical == {
        "default": {"nonfinite", "recursion_depth", "divergence", "phi_floor", "breakdown"},
        "reference": {"nonfinite", "recursion_depth", "phi_floor", "breakdown", "drift"},
        "off": set(),
    }


def test_a_profile_can_be_changed_like_any_plain_value() -> None:
    stricter = msgspec.structs.replace(DEFAULT, name="stricter", soft_reset=SoftReset(limits=("nonfinite",)))
    assert from_dict(to_dict(stricter)) == stricter


def test_a_built_in_profile_is_loaded_by_its_name_and_another_by_its_path(tmp_path) -> None:
    assert load_profile("default") is DEFAULT
    path = tmp_path / "strict.toml"
    path.write_text('[[limits]]\nkind = "nonfinite"\n')
    assert load_profile(str(path)) == Profile(name="strict", limits=(NonFinite(),))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("defualt", "unknown safety profile 'defualt'; did you mean 'default'"),
        ("./absent.toml", r"safety profile './absent.toml': No such file"),
        ("./empty.toml", r"safety profile './empty.toml' has no \[\[limits\]\]"),
        ("./folder.toml", r"safety profile './folder.toml': Is a directory"),
        ("./bad.toml", r"safety profile './bad.toml' is not TOML"),
        ("./binary.toml", r"safety profile './binary.toml' is not TOML"),
        ("./wrong.toml", r"safety profile './wrong.toml': limit 0: unknown key 'dwel'; did you mean 'dwell'"),
    ],
)
def test_a_profile_that_cannot_be_loaded_says_why(name: str, message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("= 1")
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "empty.toml").touch()
    (tmp_path / "wrong.toml").write_text("[[limits]]\nkind = 'divergence'\ndwel = 1")
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
