"""The conditions of the default profile, whose room is small."""

import pytest

from qig_core.rundir.schema import Event, Heartbeat, Manifest, Sample
from qig_core.safety.monitor import SafetyMonitor
from qig_core.safety.profile import DEFAULT
from qig_tui.once import render
from qig_tui.picture import RunPicture
from qig_tui.widgets.safety import SafetyPanel, fit, more
from tests.tui.runs import log_steps, open_run
from tests.tui.screens import opened, text_of, until

NO_STEP = {"id": "no_step", "metric": "step_age", "comparison": "<=", "limit": 60.0, "unit": "s", "value": None}


def announced():
    """Every condition of the default profile as it is announced at a start, and the stall watch's."""
    known = [verdict.data() for verdict in SafetyMonitor(DEFAULT).verdicts()]
    return known + [NO_STEP | {"state": "ok", "cause": []}] * all(data["id"] != "no_step" for data in known)


def said(state, **data):
    """All but one in a state; those that compare with a number have one."""
    for condition in announced():
        limit = (
            2.534567 if condition["limit"] is None and condition["comparison"] in ("<=", ">=") else condition["limit"]
        )
        kept = condition["id"] == "gpu_memory"
        yield condition | {"limit": None if kept else limit, "state": "unarmed" if kept else state} | data


ALARMS = (
    {"id": "drift", "state": "critical", "cause": ["kappa", "drift_rolling"], "value": 0.7},
    {"id": "early_warning", "state": "warning", "metric": "phi", "value": 0.4, "cause": ["phi", "kappa"]},
    {"id": "measured", "state": "warning", "metric": "phi", "cause": ["phi"]},
    {"id": "no_step", "state": "warning", "value": 63.2, "cause": ["step_age"]},
)


def picture_of(*alarms):
    picture = RunPicture(Manifest(id="a"))
    found = {data["id"]: data for data in said("ok")}
    for alarm in alarms:
        found[alarm["id"]] = found[alarm["id"]] | alarm
    picture.journal.add([Event(i, 0.0, "condition", 0, data=data) for i, data in enumerate(found.values())])
    return picture


def rows_of(*alarms):
    return picture_of(*alarms).condition_rows()


def test_everything_fits_in_the_order_of_the_profile_but_the_alarms_which_stand_first():
    rows = rows_of(*ALARMS)
    found = fit(rows, 99, blame=True)
    assert [r.condition.id for r in found.rows[:4]] == ["drift", "early_warning", "measured", "no_step"]
    rest = [r.condition.id for r in found.rows[4:]]
    assert rest == [r.condition.id for r in rows if r.condition.id in rest]
    assert found.blamed == 4
    assert not found.hidden


@pytest.mark.parametrize("room", range(20))
@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("blame", [True, False])
def test_no_room_is_left_out_or_overdrawn_and_no_alarm_is_hidden_by_what_is_well(room, count, blame):
    rows = rows_of(*ALARMS[:count])
    found = fit(rows, room, blame=blame)
    lines = len(found.rows) + bool(found.hidden) + sum(bool(r.story) for r in found.rows[: found.blamed])
    assert lines <= max(room, 1)
    assert len(found.rows) + len(found.hidden) == len(rows)
    if room > count:
        assert [r.state in ("warning", "critical") for r in found.rows[:count]] == [True] * count
    if room > 1 and found.hidden:
        assert lines == room


def test_what_is_left_out_is_counted_by_its_state_and_the_unarmed_go_first():
    found = fit(rows_of(), 8, blame=True)
    assert more(found.hidden) == f"+{len(found.hidden)} more: {len(found.hidden) - 1} ok, 1 unarmed"
    found = fit(rows_of(), len(rows_of()) - 1, blame=True)
    assert more([row for row in found.hidden if row.state == "ok"]) == "+1 more ok"


@pytest.mark.parametrize(("size", "inline"), [((160, 48), False), ((120, 40), False), ((80, 24), True)])
async def test_the_default_profile_is_shown_with_its_alarms_first(tmp_path, size, inline):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 30)
        alarms = {data["id"]: data for data in ALARMS}
        for data in said("ok"):
            writer.event("condition", step=0, **(data | alarms.get(data["id"], {})))
        async with opened(writer.run, size) as (app, _):
            lines = text_of(app.screen.query_one(SafetyPanel)).splitlines()
    assert "1 critical  3 warning" in lines[0]
    assert lines[1].split()[:4] == ["✖", "drift", "≤", "0.6"]
    blamed = lines[1] if inline else lines[2]
    assert "kappa moved first, the" in blamed
    (early,) = (line for line in lines if "early_warning" in line)
    assert "moved " in early
    assert "━" not in early
    assert "─" not in early
    (measured,) = (line for line in lines if line.startswith("▲ measured"))
    assert "missing" in measured
    assert any(line.startswith("▲ no_step") and "≤ 60 s" in line for line in lines)
    left_out = [line for line in lines if " more" in line]
    assert len(left_out) == 1
    assert lines.index(left_out[0]) == len(lines) - 1
    if size == (160, 48):
        (finite,) = (line for line in lines if "nonfinite" in line)
        assert "finite  " in finite.removeprefix("● nonfinite")
        assert any(line.startswith("● divergence      ≤ 2.535") for line in lines)


async def test_two_conditions_of_one_metric_are_told_apart_and_a_limit_is_never_cut(tmp_path):
    with open_run(tmp_path) as writer:
        log_steps(writer, 0, 30)
        for data in said("ok"):
            writer.event("condition", step=0, **data)
        async with opened(writer.run, (120, 40)) as (app, pilot):
            panel = app.screen.query_one(SafetyPanel)
            panel.styles.max_height = 30
            await until(pilot, lambda: panel.size.height > len(announced()))
            lines = text_of(panel).splitlines()
    of_loss = [line.split()[1] for line in lines if line.split()[1:2] in (["divergence"], ["loss_spike"])]
    assert of_loss == ["divergence", "loss_spike"]
    assert all("≤ 2.535" in line or "≥ 2.535" in line for line in lines if "2.5" in line)


def test_how_long_no_step_has_come_is_what_the_heartbeat_says():
    picture = picture_of({"id": "no_step", "state": "warning", "value": 63.2})
    picture.heartbeat = Heartbeat("s", 1, 0.0, 1, last_step_age_s=90.0)
    (row,) = (row for row in picture.condition_rows() if row.condition.id == "no_step")
    assert row.value == 90.0
    assert row.margin == 0.0


def test_the_snapshot_says_the_same_of_what_has_no_number():
    picture = picture_of(*ALARMS)
    picture.history.add([Sample(0, 0, 0.0, m={"loss": 1.0, "phi": 0.5})])
    shown = render(picture, as_json=False)
    lines = {line.split()[2]: line for line in shown.splitlines() if line[:1] in ("●", "▲", "✖", "○")}
    assert lines["early_warning"].split()[2:] == ["early_warning", "moved", "phi", "moved", "first,", "then", "kappa"]
    assert lines["measured"].split()[2:] == ["measured", "missing", "phi"]
    assert "kappa moved first, then drift_rolling" in lines["drift"]
    assert "finite" in lines["nonfinite"].removeprefix("● ok nonfinite")
