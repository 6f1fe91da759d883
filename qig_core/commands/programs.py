"""What the events of a run tell of its program: its phase, the Ocean's report. Reads; computes nothing."""

from collections.abc import Mapping
from typing import Any

from qig_core.errors import UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.reader import read_all
from qig_core.rundir.schema import Event
from qig_core.terminal import print_facts, print_json, print_table

_NUMBERS = ("phi", "kappa", "loss", "loss_heldout", "velocity", "drift", "from_mean", "from_ocean")


def report_at(run: RunDir, step: int | None) -> Event:
    """The last report of a run, or the last one up to a step.

    Raises:
        UsageError: it has none.
    """
    found = None
    for event in read_all(run.events, Event):
        if not isinstance(event, Event) or event.kind != "ocean":
            continue
        if step is None or (event.step is not None and event.step <= step):
            found = event
    if found is None:
        why = "only a constellation has one" if step is None else f"none up to step {step}"
        raise UsageError(f"run {run.id!r} has no such report of an Ocean: {why}")
    return found


def where_it_stands(run: RunDir) -> str:
    """The phase that a run is in, or how many Garys it has, in a few words; empty where nothing was told yet."""
    told = ""
    for event in read_all(run.events, Event):
        if isinstance(event, Event) and event.kind == "phase" and isinstance(event.data.get("guards"), list):
            name, state, reason = (str(event.data.get(key, "")) for key in ("name", "state", "reason"))
            told = f"{name}, {state} at step {event.step}" + (f": {reason}" if reason else "")
        elif isinstance(event, Event) and event.kind == "ocean" and isinstance(event.data.get("garys"), list):
            told = f"{len(event.data['garys'])} Garys, seen by the Ocean at step {event.step}"
    return told


def show(event: Event, *, json: bool) -> None:
    """Print one report."""
    data = event.data
    if json:
        print_json({"step": event.step, "t": event.t} | data)
        return
    garys = [each for each in data.get("garys", []) if isinstance(each, Mapping)]
    names = [str(gary.get("name", "?")) for gary in garys]
    rows = [
        (
            name,
            gary.get("role"),
            *(_number(gary.get(key)) for key in _NUMBERS),
            ", ".join(gary.get("flags", [])) or None,
        )
        for name, gary in zip(names, garys, strict=True)
    ]
    print_facts([("step", str(event.step)), *_facts(data)])
    print_table(("gary", "role", *_NUMBERS, "flags"), rows, right=_NUMBERS, fold=("flags",))
    if data.get("distances"):
        table = [(name, *map(_number, row)) for name, row in zip(names, data["distances"], strict=False)]
        print_table(("d / rad", *names), table, right=tuple(names), fold=("d / rad",))
    for each in data.get("recommendations", []):
        print_facts([(f"{each.get('rung')}", f"{each.get('text')}, since step {each.get('since_step')}")])


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    modes = data.get("modes")
    reasons: Mapping[str, str] = data.get("reasons", {})
    shares = "  ".join(f"{100 * mode['share']:.0f} %" for mode in modes) if modes else reasons.get("modes", "–")
    low, high = _number(data.get("min_rad")), _number(data.get("max_rad"))
    return [
        ("distances", f"{low or '–'} to {high or '–'} rad, collapse below {_number(data.get('floor_rad'))} rad"),
        ("variance", f"{_number(data.get('variance')) or '–'} rad²"),
        ("coherence", _number(data.get("coherence")) or "–"),
        ("modes", shares),
        ("Ocean", f"{'as it was born' if data.get('sound') else 'CHANGED'}, digest {str(data.get('digest'))[:12]}"),
    ]


def _number(value: object) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None
