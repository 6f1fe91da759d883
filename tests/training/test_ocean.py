"""The Ocean: its geometry is the closed form, its report plain data, and neither it nor any Gary is ever changed."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qig_core.errors import QigError
from qig_core.geometry.simplex import Basin, FloatArray, exp, fisher_rao_distance, geodesic, log
from qig_core.measures.undisturbed import one_thread
from qig_core.training.config import KernelConfig
from qig_core.training.corpus import batch, default_corpus, probe_batch
from qig_core.training.digests import parameter_digest
from qig_core.training.formation import formation, pooled
from qig_core.training.kernel import Kernel
from qig_core.training.measure import KernelProbe
from qig_core.training.ocean import Ocean, Sighting
from qig_core.training.program_config import OceanConfig
from qig_core.training.trainer import next_token_loss

TINY = KernelConfig(width=32, heads=4, context=32, passes=3)
PROBE = KernelProbe(TINY, probe_batch(default_corpus().heldout, 2, context=16))


def ocean(seed: int = 0, *, watch_from: int = 0, **given: Any) -> Ocean:
    return Ocean(TINY, PROBE, OceanConfig(**given), seed=seed, watch_from=watch_from)


def random_basins(count: int, seed: int = 0) -> list[Basin]:
    return [Basin(row) for row in np.random.default_rng(seed).dirichlet(np.ones(64), size=count)]


def on_a_geodesic(*shares: float) -> list[Basin]:
    p, q = random_basins(2)
    return [Basin(geodesic(p, q, share)) for share in shares]


def sightings(basins: Sequence[Basin | None], **given: Any) -> list[Sighting]:
    return [Sighting(name=f"gary{i}", role="observer", basin=basin, **given) for i, basin in enumerate(basins, 1)]


def looked(watcher: Ocean, step: int, basins: Sequence[Basin | None], **given: Any) -> dict[str, Any]:
    """The report as it is written, through JSON that knows no NaN."""
    report = watcher.observe(step, sightings(basins, **given)).to_dict()
    again: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    assert again == report
    return again


# Geometry


def test_the_mean_of_two_is_in_the_middle_of_their_geodesic() -> None:
    p, q = random_basins(2)
    d = float(fisher_rao_distance(p, q))
    report = ocean().observe(0, sightings([p, q]))
    assert report.mean is not None
    assert fisher_rao_distance(report.mean, geodesic(p, q, 0.5)) < 1e-9
    data = report.to_dict()
    assert data["variance"] == pytest.approx(d**2 / 4)
    assert [gary["from_mean"] for gary in data["garys"]] == pytest.approx([d / 2, d / 2])
    assert data["distances"] == [[0.0, pytest.approx(d)], [pytest.approx(d), 0.0]]
    assert data["min_rad"] == data["max_rad"] == pytest.approx(d)
    assert data["coherence"] == pytest.approx(math.cos(d / 4))  # two unit vectors d/2 apart
    assert data["modes"] is None
    assert data["reasons"] == {"modes": "two basins have one direction"}


def test_points_of_one_geodesic_have_one_mode() -> None:
    points = on_a_geodesic(0.0, 0.25, 0.5, 0.75, 1.0)
    d = float(fisher_rao_distance(points[0], points[-1]))
    data = looked(ocean(), 0, points)
    assert len(data["modes"]) == 4
    assert [mode["share"] for mode in data["modes"]] == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-9)
    assert data["variance"] == pytest.approx(d**2 / 8)  # of 0, 1/4 .. 1: 1/8
    uneven = looked(ocean(), 0, on_a_geodesic(0.0, 0.1, 0.8))["garys"]
    assert [gary["from_mean"] for gary in uneven] == pytest.approx([0.3 * d, 0.2 * d, 0.5 * d])
    assert (data["min_rad"], data["max_rad"]) == (pytest.approx(d / 4), pytest.approx(d))


def test_modes_share_the_variance_along_their_geodesics() -> None:
    centre = Basin(np.full(64, 1 / 64))
    ways = np.zeros((2, 64))
    ways[0, :2], ways[1, 2:4] = (1.0, -1.0), (1.0, -1.0)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    steps = (0.02, -0.02, 0.01, -0.01)
    points = np.array([exp(centre, step * ways[i // 2]) for i, step in enumerate(steps)])
    found = formation(points)
    assert found.modes is not None
    assert found.modes == pytest.approx([0.8, 0.2, 0.0], abs=1e-9)  # 2·4 and 2·1 of 10
    assert found.variance == pytest.approx(2.5e-4, rel=1e-9)


@settings(max_examples=25)
@given(st.integers(3, 7), st.integers(0, 1000))
def test_the_formation_is_what_a_straightforward_computation_says(count: int, seed: int) -> None:
    points = np.array(random_basins(count, seed))
    found = formation(points)
    roots = np.sqrt(points)
    pull = log(found.mean, points).sum(axis=0)
    assert np.linalg.norm(pull) < 1e-9  # what makes it the Fréchet mean
    distances = np.array([[2.0 * math.acos(min(1.0, float(u @ v))) for u in roots] for v in roots])
    assert found.distances == pytest.approx(distances, abs=1e-7)
    to_mean = [2.0 * math.acos(float(u @ np.sqrt(found.mean))) for u in roots]
    assert found.from_mean == pytest.approx(to_mean, abs=1e-9)
    assert found.variance == pytest.approx(np.mean(np.square(to_mean)), rel=1e-9)
    off = distances[~np.eye(count, dtype=bool)]
    assert [found.min_rad, found.max_rad] == pytest.approx([off.min(), off.max()])
    assert found.coherence == pytest.approx(float(np.sqrt(np.mean(roots @ roots.T))))
    logs = log(found.mean, points)
    spread = np.sort(np.linalg.eigvalsh(logs @ logs.T))[::-1][: count - 1]
    assert found.modes == pytest.approx(spread / spread.sum(), abs=1e-9)


def test_the_pool_tells_scatter_within_from_scatter_between() -> None:
    apart = np.array(on_a_geodesic(0.2, 0.8))
    d = float(fisher_rao_distance(*apart))
    still = pooled([np.repeat(apart[:1], 5, axis=0), np.repeat(apart[1:], 5, axis=0)])
    assert still.samples == 10
    assert still.within == pytest.approx(0.0, abs=1e-20)
    assert still.between == pytest.approx(d**2 / 4)
    assert still.modes[0] == pytest.approx(1.0)
    together = pooled([apart, apart])
    assert together.within == pytest.approx(d**2 / 4)
    assert together.between == pytest.approx(0.0, abs=1e-20)
    uneven = pooled([np.repeat(apart[:1], 3, axis=0), apart[1:]])
    assert uneven.between == pytest.approx(d**2 * 3 / 16)  # the mean of all lies at a quarter


def test_the_pool_holds_the_last_reports_of_every_gary() -> None:
    watcher = ocean(window=8)
    first, second = random_basins(2, 1)
    away = random_basins(20, 2)
    for step in range(12):
        data = looked(watcher, step, [away[step] if step < 4 else first, second if step % 2 else None])
    assert data["pooled"]["samples"] == 8 + 4
    assert data["pooled"]["within"] == pytest.approx(0.0, abs=1e-20)  # the four that were away are forgotten
    d = float(fisher_rao_distance(first, second))
    assert data["pooled"]["between"] == pytest.approx(d**2 * 8 * 4 / 12**2)
    assert data["pooled"]["modes"][0]["share"] == pytest.approx(1.0)


def test_basins_that_coincide_have_no_direction() -> None:
    data = looked(ocean(), 0, [random_basins(1)[0]] * 3)
    assert data["modes"] is None
    assert data["pooled"]["modes"] == []
    assert data["reasons"] == {"modes": "the basins coincide", "pooled.modes": "the basins coincide"}
    assert (data["variance"], data["coherence"]) == (pytest.approx(0.0, abs=1e-20), pytest.approx(1.0))


def test_the_still_point_is_the_basin_of_the_oceans_own_kernel() -> None:
    watcher, gary = ocean(seed=5), Kernel(TINY, seed=5)
    own, other = PROBE.measure(gary).basin, PROBE.measure(Kernel(TINY, seed=6)).basin
    assert own is not None
    assert other is not None
    garys = looked(watcher, 0, [own, other])["garys"]
    assert garys[0]["from_ocean"] == 0.0
    assert garys[1]["from_ocean"] == pytest.approx(float(fisher_rao_distance(own, other)))


# What is broken


def test_a_broken_gary_is_left_out_with_a_reason_and_the_rest_is_as_without_it() -> None:
    a, b, c = random_basins(3)
    torn = Basin(np.where(np.arange(64) == 3, np.nan, a))
    negative = Basin(np.where(np.arange(64) < 2, -a, a))
    short = Basin(np.full(10, 0.1))
    data = looked(ocean(), 0, [a, None, b, torn, negative, short, c])
    whole = looked(ocean(), 0, [a, b, c])
    for name in ("min_rad", "max_rad", "variance", "coherence", "modes", "pooled"):
        assert data[name] == whole[name]
    rows = [0, 2, 6]
    assert [[data["distances"][i][j] for j in rows] for i in rows] == whole["distances"]
    assert data["distances"][1] == [None] * 7
    assert all(row[3] is None for row in data["distances"])
    assert [gary["from_mean"] is None for gary in data["garys"]] == [i not in rows for i in range(7)]
    assert [gary["from_ocean"] is None for gary in data["garys"]] == [i not in rows for i in range(7)]
    assert data["reasons"]["gary2.basin"] == "not measured"
    assert "not finite" in data["reasons"]["gary4.basin"]
    assert "negative" in data["reasons"]["gary5.basin"]
    assert data["reasons"]["gary6.basin"] == "it is (10,), the Ocean's (64,)"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_basins_have_no_geometry_and_the_report_says_so(count: int) -> None:
    data = looked(ocean(), 0, [*random_basins(count), None, None])
    for name in ("distances", "min_rad", "max_rad", "variance", "coherence", "modes", "pooled"):
        assert data[name] is None
    assert set(data["reasons"]) >= {"distances", "variance", "coherence", "modes", "pooled"}
    assert str(count) in data["reasons"]["variance"]
    assert [gary["from_mean"] for gary in data["garys"]] == [None] * (count + 2)


def test_a_number_that_is_not_finite_is_none_with_its_kind_and_escape_is_recommended() -> None:
    one, two = sightings(random_basins(2))
    broken = Sighting(name="gary3", role="active", phi=math.nan, loss=math.inf, kappa=-math.inf, drift=0.5)
    report = ocean().observe(7, [one, two, broken])
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    gary = data["garys"][2]
    assert (gary["phi"], gary["loss"], gary["kappa"], gary["drift"]) == (None, None, None, 0.5)
    expected = {"gary3.phi": "nan", "gary3.loss": "inf", "gary3.kappa": "-inf", "gary3.basin": "not measured"}
    assert data["reasons"].items() >= expected.items()
    told = [(one["rank"], one["verb"], one["gary"], one["rung"], one["since_step"]) for one in data["recommendations"]]
    assert told == [(1, "escape", "gary3", "witness", 7), (2, "sleep", "gary3", "witness", 7)]


def test_a_heldout_loss_that_is_not_finite_is_evidence_too() -> None:
    data = looked(ocean(), 0, random_basins(2), loss=2.0, loss_heldout=math.nan)
    assert [(one["verb"], one["evidence"][0]["metric"]) for one in data["recommendations"]] == [
        ("escape", "loss_heldout_nonfinite")
    ] * 2


def test_a_gary_that_takes_turns_is_compared_with_itself_in_the_same_role() -> None:
    watcher = ocean(window=12)
    for step in range(120):
        active = step // 4 % 3 == 0
        velocity = (0.1 if active else 0.01) * (1.0 + 0.01 * (step % 5))
        role: Any = "active" if active else "observer"
        report = watcher.observe(step, [Sighting(name="gary1", role=role, velocity=velocity)])
        assert report.garys[0].flags == {}
        assert report.recommendations == ()


ANY = st.one_of(st.none(), st.floats())
MADE = ("none", "random", "corner", "nan", "half", "zero", "negative", "flat")


def made(kind: str, seed: int) -> Basin | None:
    random = random_basins(1, seed)[0]
    points: dict[str, FloatArray | None] = {
        "none": None,
        "random": random,
        "corner": np.eye(64)[seed % 64],
        "nan": np.full(64, np.nan),
        "half": 0.5 * random,
        "zero": np.zeros(64),
        "negative": random - 0.1,
        "flat": np.full((2, 64), 1 / 64),
    }
    point = points[kind]
    return None if point is None else Basin(point)


SIGHTING = st.builds(
    Sighting,
    name=st.just(""),
    role=st.sampled_from(["active", "observer"]),
    basin=st.builds(made, st.sampled_from(MADE), st.integers(0, 5)),
    phi=ANY,
    kappa=ANY,
    loss=ANY,
    loss_heldout=ANY,
    velocity=ANY,
    drift=ANY,
)


@settings(max_examples=40)
@given(st.lists(st.lists(SIGHTING, max_size=4), max_size=12))
def test_whatever_it_is_shown_the_report_is_json_with_finite_numbers(reports: list[list[Sighting]]) -> None:
    watcher = BORN
    watcher.restore_history(FRESH)
    for step, seen in enumerate(reports):
        named = [Sighting(**(vars(one) | {"name": f"gary{i}"})) for i, one in enumerate(seen)]
        data = watcher.observe(step, named).to_dict()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    history = watcher.history()
    assert json.loads(json.dumps(history, allow_nan=False)) == history


BORN = ocean()
FRESH = BORN.history()


def test_one_gary_is_not_shown_twice() -> None:
    twice = sightings(random_basins(1)) * 2
    with pytest.raises(ValueError, match="twice: gary1, gary1"):
        ocean().observe(0, twice)


# Recommendations from what is seen


def test_of_a_collapsed_pair_the_later_is_to_be_perturbed_whatever_the_roles() -> None:
    a, b = random_basins(2)
    near = Basin(geodesic(a, b, 0.01))
    assert 0.0 < float(fisher_rao_distance(a, near)) < 0.03

    def perturbed(*roles: Any) -> list[tuple[str, str]]:
        seen = [
            Sighting(name=name, role=role, basin=basin)
            for name, role, basin in zip(("gary1", "gary2", "gary10"), roles, (a, b, near), strict=True)
        ]
        told = ocean().observe(0, seen).to_dict()["recommendations"]
        return [(one["gary"], one["evidence"][0]["metric"]) for one in told]

    assert perturbed("active", "active", "observer") == [("gary10", "distance to gary1")]
    assert perturbed("observer", "active", "active") == [("gary10", "distance to gary1")]
    assert perturbed("active", "active", "active") == [("gary10", "distance to gary1")]
    assert perturbed("observer", "observer", "observer") == [("gary10", "distance to gary1")]


def test_garys_that_are_apart_are_not_perturbed() -> None:
    assert looked(ocean(), 0, random_basins(3))["recommendations"] == []


def test_each_change_is_flagged_advised_and_acted_on_only_up_to_the_cooldown() -> None:
    watcher = ocean(ladder="act", patience=1, cooldown=3)
    basins = random_basins(2)

    def seen(step: int, loss: float) -> dict[str, Any]:
        return looked(watcher, step, basins, loss=loss * (1.0 + 0.02 * (step % 3)), phi=0.7, kappa=8.0, velocity=0.1)

    for step in range(30):
        calm = seen(10 * step, 2.0)
        assert calm["recommendations"] == []
        assert [gary["flags"] for gary in calm["garys"]] == [[], []]
    for step in range(30, 37):
        data = seen(10 * step, 4.0)
    assert [gary["flags"] for gary in data["garys"]] == [["loss up since 300"]] * 2
    assert [(one["verb"], one["gary"], one["rung"]) for one in data["recommendations"]] == [
        ("escape", "gary1", "act"),
        ("escape", "gary2", "act"),
    ]
    assert data["recommendations"][0]["evidence"][0]["metric"] == "loss CUSUM"
    watcher.carried_out("gary2")
    data = seen(370, 4.0)
    assert data["garys"][1]["flags"] == []
    assert [one["gary"] for one in data["recommendations"]] == ["gary1"]
    assert data["cooldowns"] == {"gary2": 2}


def test_nothing_of_a_young_kernel_is_called_a_change() -> None:
    early, late = ocean(), Ocean(TINY, PROBE, OceanConfig(), seed=0)
    flagged = {"early": 0, "late": 0}
    for step in range(0, 500, 10):
        # phi falls when training begins, by much and once.
        phi = (0.9 if step < 150 else 0.5) + 0.001 * (step % 3)
        for name, watcher in (("early", early), ("late", late)):
            flagged[name] += bool(looked(watcher, step, random_basins(2), phi=phi)["recommendations"])
    assert flagged["early"] > 10
    assert flagged["late"] == 0
    assert late.history()["changes"]["gary1"]["observer"]["phi"]["past"][0] == 0.5 + 0.001 * 2


def test_a_resume_in_the_middle_of_a_window_goes_on_bit_by_bit() -> None:
    rng = np.random.default_rng(4)
    whole, resumed = ocean(window=10, patience=1), ocean(window=10, patience=1)
    for step in range(40):
        off = 6.0 if step > 20 else 0.0
        values = {"loss": 2.0 + off + rng.normal(), "phi": 0.7 + 0.01 * rng.normal(), "velocity": 0.1 + 0.01 * off}
        basins = random_basins(3, step) if step % 7 else [*random_basins(2, step), None]
        assert looked(whole, step, basins, **values) == looked(resumed, step, basins, **values)
        if step == 25:
            for watcher in (whole, resumed):
                watcher.carried_out("gary3")
        if step in (13, 24, 27):
            state = json.loads(json.dumps(resumed.history()))
            resumed = ocean(window=10, patience=1)
            resumed.restore_history(state)
    assert resumed.history() == whole.history()


def test_a_history_is_not_changed_by_what_is_seen_later() -> None:
    watcher = ocean(patience=1)
    looked(watcher, 0, random_basins(2), drift=0.5, loss=1.0)
    history = watcher.history()
    before = json.dumps(history)
    for step in range(1, 12):
        looked(watcher, step, random_basins(2, step), drift=0.5, loss=1.0 + step)
    watcher.carried_out("gary1")
    assert json.dumps(history) == before


# Frozen


def test_the_digest_is_of_what_the_ocean_was_born_with_and_every_report_tells_it() -> None:
    watcher, twin, other = ocean(seed=1), ocean(seed=1, window=8), ocean(seed=2)
    assert watcher.digest() == twin.digest() != other.digest()
    born = parameter_digest(watcher)
    for step in range(3):
        data = looked(watcher, step, random_basins(2, step))
        assert (data["digest"], data["sound"]) == (born, True)
    kernel = {f"kernel.{name}" for name in Kernel(TINY).state_dict()}
    assert set(watcher.state_dict()) == kernel | {"still", "probe"}
    assert not any(parameter.requires_grad for parameter in watcher.parameters())


def test_another_probe_is_another_ocean() -> None:
    probe = KernelProbe(TINY, probe_batch(default_corpus().heldout, 2, context=16), seed=1)
    assert Ocean(TINY, probe, OceanConfig(), seed=0).digest() != ocean().digest()


@pytest.mark.parametrize("name", ["kernel.embedding", "kernel.w_o.cross_ab", "kernel.gain", "still", "probe"])
def test_a_tampered_ocean_refuses_to_report(name: str) -> None:
    watcher = ocean()
    looked(watcher, 0, random_basins(2))
    history = watcher.history()
    with torch.no_grad():
        flat = watcher.state_dict()[name].view(-1)
        bits = flat.view(torch.uint8)
        bits[0] ^= 1
    with pytest.raises(QigError, match="the Ocean is not what it was at birth"):
        watcher.observe(1, sightings(random_basins(2)))
    assert watcher.history() == history
    with torch.no_grad():
        bits[0] ^= 1
    looked(watcher, 1, random_basins(2))


def test_an_ocean_that_could_learn_refuses_to_report() -> None:
    watcher = ocean()
    watcher.kernel.embedding.requires_grad_(True)
    with pytest.raises(QigError, match=r"kernel\.embedding requires a gradient"):
        watcher.observe(0, sightings(random_basins(2)))


def test_observing_leaves_no_trace_and_keeps_no_hold_on_what_it_was_shown() -> None:
    watcher = ocean()
    basins = random_basins(2)
    copies = [basin.copy() for basin in basins]
    generator = torch.get_rng_state()
    first = watcher.observe(0, sightings(basins))
    assert torch.equal(generator, torch.get_rng_state())
    assert np.array_equal(basins, copies)
    told = json.dumps(first.to_dict())
    for basin in basins:
        basin[:] = 1 / 64  # the caller uses its buffer again
    assert json.dumps(first.to_dict()) == told
    assert watcher.history()["basins"] == {f"gary{i}": [copy.tolist()] for i, copy in enumerate(copies, 1)}
    assert all(parameter.grad is None for parameter in watcher.parameters())


def trained(seed: int, steps: int, watcher: Ocean | None) -> Kernel:
    """A Gary after real AdamW steps on real text, seen by an Ocean at every twentieth where there is one."""
    text = default_corpus().train
    gary = Kernel(TINY, seed=seed)
    optimizer = torch.optim.AdamW(gary.parameters(), lr=3e-3)
    last: Basin | None = None
    for step in range(steps):
        tokens = torch.from_numpy(batch(text, seed=seed, step=step, batch_size=2, context=8))
        optimizer.zero_grad()
        loss = next_token_loss(gary, tokens)
        loss.backward()
        if watcher is not None and step % 20 == 0:
            seen = PROBE.measure(gary)
            assert seen.basin is not None
            velocity = None if last is None else float(fisher_rao_distance(last, seen.basin))
            shown = Sighting(
                name=f"gary{seed}",
                role="active",
                basin=seen.basin,
                phi=seen.phi,
                kappa=seen.kappa,
                loss=loss.item(),
                velocity=velocity,
            )
            beside = [
                Sighting(name=name, role="observer", basin=basin)
                for name, basin in zip(("left", "right"), random_basins(2), strict=True)
            ]
            watcher.observe(step, [shown, *beside])
            last = seen.basin
        optimizer.step()
    return gary


def test_a_thousand_real_steps_change_no_bit_of_the_ocean_and_the_ocean_no_bit_of_a_gary() -> None:
    watcher = ocean()
    before = {name: tensor.clone() for name, tensor in watcher.state_dict().items()}
    with one_thread():
        seen = [trained(seed, 500, watcher) for seed in (1, 2)]
        unseen = trained(1, 500, None)
    assert all(torch.equal(before[name], tensor) for name, tensor in watcher.state_dict().items())
    assert watcher.history()["basins"].keys() == {"gary1", "gary2", "left", "right"}
    born = Kernel(TINY, seed=1)
    for name, tensor in seen[0].state_dict().items():
        assert torch.equal(tensor, unseen.state_dict()[name]), name
    assert not torch.equal(seen[0].embedding, born.embedding)
    assert not torch.equal(seen[0].embedding, seen[1].embedding)
