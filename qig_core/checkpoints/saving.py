"""The bridge between a loop's state and its checkpoints: what to give to the monitor, one way and the other."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.recovery import Amend, Restored, go_on, prepare
from qig_core.checkpoints.rng import capture_rng, restore_rng
from qig_core.checkpoints.store import publish
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import CheckpointManifest
from qig_core.rundir.writer import RunWriter

MONITOR_KEY = "monitor"
"""Where the payload keeps what the safety monitor needs to go on."""
RNG_KEY = "global_rng"
"""Where it keeps the global random generators, unless the loop's own state has a key "rng"."""


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


class Saver:
    """See `saver`."""

    def __init__(
        self, state: Callable[[], Mapping[str, Any]], data_position: Callable[[int], Mapping[str, Any]] | None
    ) -> None:
        self._state = state
        self._data_position = data_position
        self._rng = capture_rng()

    def step_begins(self) -> None:
        """Remember the random generators: a checkpoint of this step must not hold what the step drew."""
        self._rng = capture_rng()

    def __call__(self, request: Request) -> CheckpointManifest:
        tree = dict(self._state())
        assert MONITOR_KEY not in tree, f"the key {MONITOR_KEY!r} is the monitor's"
        tree[MONITOR_KEY] = dict(request.monitor_state)
        if "rng" not in tree:
            tree[RNG_KEY] = self._rng
        facts = request.facts()
        if self._data_position is not None:
            facts["data_position"] = dict(self._data_position(request.step))
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


def saver(
    state: Callable[[], Mapping[str, Any]], *, data_position: Callable[[int], Mapping[str, Any]] | None = None
) -> Saver:
    """A save function for the monitor.

    A checkpoint of step n is made in the monitor's check, when the step has drawn its random numbers, and a resume
    does step n again. So the global generators (python, numpy, torch) are saved as they were when the check before
    returned: what a loop draws between a check and the next step's beginning would be drawn by the resume in another
    place. A loop that does so, or has generators of its own, saves them in its state under "rng".

    Args:
        state: gives the tensors and plain data that a resume needs, as they are when it is called. The keys "monitor"
            and "global_rng" are added and must not be there.
        data_position: of a step, plain data: where in the data a resume goes on.

    Raises:
        CheckpointError: by the save function, when the disk refuses; no half checkpoint stays.
    """
    return Saver(state, data_position)


class Restorer:
    """See `restorer`."""

    def __init__(
        self, load_state: Callable[[dict[str, Any]], object], scale_lr: Callable[[float], object] | None
    ) -> None:
        self._load = state_loader(load_state)
        self.scale_lr = scale_lr

    def __call__(
        self, run: RunDir, selector: str | None, amend: Amend, total_steps: int | None
    ) -> tuple[RunWriter, Restored]:
        """Open a run for a new session. Raises: RunLocked, CheckpointError, ConfigError, see `recovery.go_on`."""
        return go_on(run, selector, self._load, amend, total_steps=total_steps)

    def prepare(self, run: RunDir, name: str) -> Callable[[], Restored]:
        """Verify and read a checkpoint while the run goes on; what puts its state back. See `recovery.prepare`."""
        return prepare(run, name, self._load)


def restorer(
    load_state: Callable[[dict[str, Any]], object], *, scale_lr: Callable[[float], object] | None = None
) -> Restorer:
    """A restore function for the monitor: to resume, to go back while the run goes on, and for soft resets.

    Args:
        load_state: given what `saver`'s `state` gave, tensors on the CPU: puts it back. The global random generators
            are put back after it.
        scale_lr: multiplies the learning rate that was put back, for profiles whose soft reset lowers it.
    """
    return Restorer(load_state, scale_lr)


def state_loader(load_state: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """What puts a whole checkpoint's state back: the loop's part by `load_state`, and the random generators."""

    def load(state: dict[str, Any]) -> None:
        rng = state.pop(RNG_KEY, None)
        load_state(state)
        if rng is not None:
            restore_rng(rng)

    return load
