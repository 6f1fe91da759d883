"""Asking the live trainer of a run for something, and telling each stage of the answer on the terminal."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from qig_core.errors import Refused, UsageError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.mailbox import nobody_to_ask, read_ack, send, withdraw
from qig_core.rundir.printable import printable
from qig_core.rundir.reader import read_manifest
from qig_core.rundir.schema import VERBS
from qig_core.terminal import out, print_json

_LOOK_S = 0.05


def ask(run: RunDir, verb: str, args: Mapping[str, Any], *, wait_s: float, json: bool) -> bool:
    """Ask and show each stage as it comes, up to the last; whether it was done, and not refused.

    Raises:
        UsageError: no such verb. Refused: nobody is there to ask, or nothing is confirmed within `wait_s`; what
            was not seen is then withdrawn.
    """
    command = send(run, verb, args=dict(args))
    began = time.monotonic()

    def show(stage: str, step: int | None, detail: Mapping[str, Any]) -> None:
        elapsed = time.monotonic() - began
        if json:
            print_json({"stage": stage, "step": step, "after_s": round(elapsed, 3), **detail})
        else:
            at = "" if step is None else f" (step {step})"
            what = "  ".join(f"{key} {value}" for key, value in detail.items())
            out.print(printable(f"{elapsed:6.1f} s  {stage}{at}  {what}".rstrip()), soft_wrap=True)

    show("requested", None, {"id": command.id})
    told, looked, gone = 0, began, ""
    while time.monotonic() - began < wait_s:
        if time.monotonic() - looked >= 1.0:
            looked, gone = time.monotonic(), nobody_to_ask(run, read_manifest(run))
        ack = read_ack(run, command.id)
        for stage in ack.stages[told:] if ack else []:
            show(stage.stage, stage.step, stage.detail)
            told += 1
        if ack is not None and ack.ended:
            return ack.stages[-1].stage != "refused"
        if gone:
            withdraw(run, command)
            raise Refused(f"not confirmed: {gone}")
        time.sleep(_LOOK_S)
    if told == 0 and withdraw(run, command):
        raise Refused(f"the trainer did not look at it within {wait_s:g} s; the command was withdrawn")
    raise Refused(f"not confirmed within {wait_s:g} s")


def args_of(verb: str, values: Sequence[str], run: RunDir) -> dict[str, Any]:
    """What goes with a verb; whether there is such a verb is not asked here.

    Raises:
        UsageError: not what the verb takes. CheckpointError: no such checkpoint.
    """
    if verb in ("restore", "pin", "unpin", "tag"):
        from qig_core.checkpoints.catalog import resolve

        wanted = 2 if verb == "tag" else 1
        if len(values) < wanted:
            tag = " and a TAG" if verb == "tag" else ": STEP, a name, latest, best or last-good"
            raise UsageError(f"{verb} needs a CHECKPOINT{tag}")
        _nothing_after(verb, values, wanted)
        return {"checkpoint": resolve(run, values[0]).name} | ({"tag": values[1]} if verb == "tag" else {})
    if verb == "set_log_every":
        _nothing_after(verb, values, 1)
        if not values or not re.fullmatch(r"0{0,9}[1-9][0-9]{0,17}", values[0]):
            given = f", not {values[0][:40]!r}" if values else ""
            raise UsageError(f"set_log_every needs N, a whole number ≥ 1{given}")
        return {"value": int(values[0])}
    if verb in VERBS:
        _nothing_after(verb, values, 0)
    return {}


def _nothing_after(verb: str, values: Sequence[str], wanted: int) -> None:
    if len(values) > wanted:
        what = "nothing after it" if wanted == 0 else "one value" if wanted == 1 else "two values"
        extra = values[wanted][:40]
        raise UsageError(f"{verb} takes {what}, and {extra!r} was given; see qig-core ctl --help")
