"""Runs of the programs beyond plain training, as their trainers leave them, made by the real writer: the keys of their
events are those of the run directory's specification.
"""

import math
from pathlib import Path
from typing import Any

from qig_core.rundir.schema import MetricSpec
from qig_core.rundir.writer import RunWriter
from tests.tui.runs import SPECS, add_checkpoint, basin, open_run, set_condition

CHARLIE = {
    "program": "charlie",
    "charlie": {
        "dormant_steps": 100,
        "awakening_steps": 60,
        "settling_steps": 40,
        "demonstration_steps": 20,
    },
}
DORMANT, AWAKENING, DEMONSTRATION = 0, 121, 280
"""The first steps of the phases."""
END = 300
_SPAN = {"dormant": (DORMANT, 100, 179), "awakening": (AWAKENING, 279, 279), "demonstration": (DEMONSTRATION, END, END)}


def guard(name: str, label: str, comparison: str, limit: float, value: float | None, **changes: Any) -> dict[str, Any]:
    """One whose state is what its value says; `changes` may say otherwise."""
    known = {"id": name, "label": label, "comparison": comparison, "limit": limit, "unit": "", "value": value}
    beyond = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}[comparison]
    holds = value is not None and beyond(float(value), float(limit))
    state = "unknown" if value is None else "ok" if holds else "open"
    return known | {"state": state, "reason": "not measured yet" if value is None else ""} | changes


def dormant_guards(step: int) -> list[dict[str, Any]]:
    return [
        guard("phi_zero", "Φ at every evaluation", "<", 0.01, 0.0),
        guard("heldout_fell", "held-out loss fell by", ">=", 2.3, step / 40, unit="nats"),
        guard("control_integrates", "Φ of the control", ">", 0.01, 0.5),
    ]


def awakening_guards(step: int) -> list[dict[str, Any]]:
    """The last is measured when the phase may end."""
    return [
        guard("phi_rises", "Φ rises: p of the trend", "<", 0.01, 10 / (step - AWAKENING + 1) ** 2),
        guard("heldout_kept", "held-out loss over before, at most", "<=", 1.05, 0.97),
        guard("cross_carries", "Φ of a copy without cross weights", "<=", 0.0, 0.0 if step >= 279 else None),
    ]


def tell_phase(writer: RunWriter, step: int, name: str, state: str, guards: Any, reason: str = "", **more: Any) -> None:
    index = list(_SPAN).index(name) + 1
    since, earliest, latest = _SPAN[name]
    known = {"name": name, "index": index, "of": 3, "state": state, "since_step": since, "guards": guards}
    known |= {"earliest_step": earliest, "latest_step": latest, "reason": reason}
    severity = "critical" if state == "failed" else "info"
    writer.event("phase", step=step, severity=severity, **(known | more))


def _log(writer: RunWriter, step: int, phi: float, stream: str | None = None, **more: float) -> None:
    channel = writer.telemetry if stream is None else writer.stream(stream)
    metrics = {"phi": phi, "kappa": 8.0 - step / 100, "loss": 5 / (1 + step / 40), "drift_rolling": 0.2} | more
    shift = step / 50 + (0.0 if stream is None else 1.0)
    channel.log(step, metrics, basin=basin(shift) if step % 10 == 0 else None, regime="geometric")
    if stream is None:
        writer.step_done(step)


def charlie(root: Path, run_id: str = "charlie", *, until: int = END) -> RunWriter:
    """Through all three phases, with the control and the branch beside it; or up to a step."""
    writer = open_run(root, run_id, name=run_id, total_steps=END, config=CHARLIE, metrics=list(SPECS))
    set_condition(writer, "ok")
    tell_phase(writer, 0, "dormant", "begun", [])
    for step in range(until + 1):
        gain = min(max((step - AWAKENING) / 60, 0.0), 1.0)
        _log(writer, step, 0.7 * gain, gain=gain)
        _log(writer, step, 0.7 + 0.01 * math.sin(step), "control")
        if step >= AWAKENING:
            _log(writer, step, 0.0, "branch")
        if step == DEMONSTRATION:
            tell_phase(writer, step, "demonstration", "begun", [])
        if step > DEMONSTRATION and step % 5 == 0:
            writer.event("generated", step=step, prompt=f"the slice at {step}", text=" is\na list of them")
        if step % 20 and step != 279:
            continue
        if step < AWAKENING:
            state = "passed" if step == 120 else "judged"
            tell_phase(writer, step, "dormant", state, dormant_guards(step))
            if state == "passed":
                add_checkpoint(writer, step)
        elif step < DEMONSTRATION:
            tell_phase(writer, step, "awakening", "passed" if step == 279 else "judged", awakening_guards(step))
        elif step == END:
            graduated = [guard("graduation", "Φ as a share of the control's", ">=", 0.8, 0.99)]
            tell_phase(writer, step, "demonstration", "passed", graduated, "graduated")
    return writer


def collapsed(root: Path, run_id: str = "collapsed") -> RunWriter:
    """It stands in the awakening, which has failed: a guard can never hold any more."""
    writer = charlie(root, run_id, until=160)
    guards = awakening_guards(180)
    guards[1] |= {"value": 1.31, "state": "failed"}
    _log(writer, 180, 0.1)
    tell_phase(writer, 180, "awakening", "failed", guards, "held-out loss over before, at most 1.31, must be <= 1.05")
    return writer


def names_of(count: int) -> list[str]:
    return [f"gary{i + 1}" for i in range(count)]


def distance(i: int, j: int, step: int) -> float:
    """Rad; the first two come nearer all the time."""
    if {i, j} == {0, 1}:
        return max(0.4 - step / 250, 0.012)
    return 0.0 if i == j else 0.2 + 0.01 * (i + j) + 0.001 * abs(i - j)


def report(count: int, step: int, **changes: Any) -> dict[str, Any]:
    """What an Ocean says of so many Garys at a step; gary2 drifts, and of gary3 there is no basin and no phi."""
    names = names_of(count)
    garys = [
        {
            "name": name,
            "role": "active" if i == step // 50 % count else "observer",
            "phi": 0.8 + i / 100,
            "kappa": 4.0 + i,
            "loss": 2.5,
            "loss_heldout": 2.6,
            "velocity": 0.02,
            "drift": 0.3 + i / 10,
            "from_mean": 0.1,
            "from_ocean": 0.6,
            "flags": ["loss up since 40"] if i == 1 else [],
        }
        for i, name in enumerate(names)
    ]
    distances: list[list[float | None]] = [[distance(i, j, step) for j in range(count)] for i in range(count)]
    reasons = {"modes": "two basins have one direction"}
    if count > 2:
        garys[2] |= {"phi": None, "from_mean": None}
        distances = [[None if 2 in (i, j) else rad for j, rad in enumerate(row)] for i, row in enumerate(distances)]
        reasons |= {"gary3.basin": "not measured", "gary3.phi": "nan"}
    evidence = [{"metric": "drift", "value": 0.51, "comparison": ">=", "limit": 0.48, "unit": "rad"}]
    rung = "witness" if step < 40 else "suggest" if step < 80 else "warn"
    advice = {"rank": 1, "verb": "sleep", "gary": "gary2", "rung": rung, "since_step": 20, "evidence": evidence}
    return {
        "garys": garys,
        "distances": distances,
        "min_rad": distance(0, 1, step),
        "max_rad": 0.4,
        "floor_rad": 0.03,
        "variance": 0.036,
        "coherence": 0.995,
        "modes": None if count < 3 else [{"share": 0.71}, {"share": 0.29}],
        "pooled": {"samples": 90, "within": 0.011, "between": 0.042, "modes": [{"share": 0.55}]},
        "recommendations": [advice | {"text": "sleep gary2: drift 0.51 >= 0.48 rad"}] if step >= 20 else [],
        "cooldowns": {"gary1": 7} if step >= 90 else {},
        "digest": "ef65047add627c1a30d3d81ed56acf96f8213ba9ae415aafbf026a471e0c73cb",
        "sound": True,
        "reasons": reasons,
    } | changes


def intervene(writer: RunWriter, step: int, **changes: Any) -> None:
    bound = {"name": "kl_nats", "value": 0.013, "limit": 0.05, "unit": "nats"}
    known = {"verb": "perturb", "gary": "gary1", "by": "ocean", "undone": False, "reason": "", "bound": bound}
    known |= {"before": {"distance_rad": 0.02, "phi": 0.80}, "after": {"distance_rad": 0.05, "phi": 0.79}}
    writer.event("intervention", step=step, severity="warning", **(known | changes))


def constellation(root: Path, count: int = 3, run_id: str = "", *, until: int = 100) -> RunWriter:
    """So many Garys, each a stream; reports at every tenth step, two interventions, of which one was undone."""
    names = names_of(count)
    config = {"program": "constellation", "constellation": {"garys": count}}
    specs = [*SPECS, *(MetricSpec(name=f"{name}.phi", label=f"{name} Φ integration") for name in names)]
    run_id = run_id or f"stars{count}"
    writer = open_run(root, run_id, name=run_id, total_steps=until, config=config, streams=names, metrics=specs)
    set_condition(writer, "ok")
    set_condition(writer, "ok", id="gary2.divergence", metric="gary2.loss", limit=4.0, unit="nats", value=2.0)
    for step in range(until + 1):
        for i, name in enumerate(names):
            _log(writer, step, 0.8 + i / 100, name)
        of_garys = {f"{name}.phi": 0.8 + i / 100 for i, name in enumerate(names)}
        _log(writer, step, 0.8, None, **of_garys, **{"gary2.loss": 3.5, "pairwise_min": distance(0, 1, step)})
        if step % 10 == 0:
            writer.event("ocean", step=step, **report(count, step))
        if step == 50:
            intervene(writer, step)
        if step == 90:
            over = {"name": "rise of loss_heldout", "value": 0.07, "limit": 0.05, "unit": "nats"}
            reason = "held-out loss rose by more than 0.05 nats"
            intervene(writer, step, verb="sleep", gary="gary2", by="command", bound=over, undone=True, reason=reason)
    return writer
