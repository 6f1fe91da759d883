"""The bridge from a loop's state to a published checkpoint: one function to give to the monitor."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.store import publish
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import CheckpointManifest

MONITOR_KEY = "monitor"
"""Where the payload keeps what the safety monitor needs to go on."""


class Request(Protocol):
    """What is asked for, and the facts for the manifest; `qig_core.safety.saves.SaveRequest` is one."""

    @property
    def run(self) -> RunDir: ...
    @property
    def session(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def monitor_state(self) -> Mapping[str, Any]: ...

    def facts(self) -> dict[str, Any]: ...


def saver(
    state: Callable[[], Mapping[str, Any]], *, data_position: Callable[[int], Mapping[str, Any]] | None = None
) -> Callable[[Request], CheckpointManifest]:
    """A save function for the monitor.

    Args:
        state: gives the tensors and plain data that a resume needs, as they are when it is called. The key "monitor" is
            added and must not be there.
        data_position: of a step, plain data: where in the data a resume goes on.

    Raises:
        CheckpointError: by the save function, when the disk refuses; no half checkpoint stays.
    """

    def save(request: Request) -> CheckpointManifest:
        tree = dict(state())
        assert MONITOR_KEY not in tree, f"the key {MONITOR_KEY!r} is the monitor's"
        tree[MONITOR_KEY] = dict(request.monitor_state)
        facts = request.facts()
        if data_position is not None:
            facts["data_position"] = dict(data_position(request.step))
        marks = {"emergency": request.reason == "emergency", "nonfinite": bool(facts.get("nonfinite"))}
        return publish(
            request.run,
            session=request.session,
            step=request.step,
            reason=request.reason,
            files=to_files(tree),
            tags=[tag for tag, applies in marks.items() if applies],
            **facts,
        )

    return save
