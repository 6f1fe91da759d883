"""The bridge between a loop's state and its checkpoints: what to give to the monitor, one way and the other."""

import math
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Protocol

from qig_core.checkpoints.catalog import list_checkpoints
from qig_core.checkpoints.pruning import Pruned, carry_out, plan_prune, planning, recorded_keep
from qig_core.checkpoints.pytree import to_files
from qig_core.checkpoints.ranking import best
from qig_core.checkpoints.recovery import Amend, Restored, go_on, prepare
from qig_core.checkpoints.retention import EMERGENCY, Keep
from qig_core.checkpoints.rng import capture_rng, restore_rng
from qig_core.checkpoints.staging import Stage
from qig_core.checkpoints.store import Payload, publish
from qig_core.checkpoints.upkeep import add_tag, remove_tag
from qig_core.errors import QigError
from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import PINNED, CheckpointManifest
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
    @property
    def in_use(self) -> Mapping[str, str]: ...

    def facts(self) -> dict[str, Any]: ...


class Saver:
    """See `saver`."""

    def __init__(
        self,
        state: Callable[[], Mapping[str, Any]],
        data_position: Callable[[int], Mapping[str, Any]] | None,
        keep: Keep | None,
        asynchronous: bool,
        on_best: bool,
        sha256: bool,
    ) -> None:
        self._state = state
        self._data_position = data_position
        self.keep = keep
        self.asynchronous = asynchronous
        self.on_best = on_best
        self._sha256 = sha256
        self._rng = capture_rng()
        self._stage = Stage()
        self._thread: threading.Thread | None = None

    def step_begins(self) -> None:
        """Remember the random generators: a checkpoint of this step must not hold what the step drew."""
        self._rng = capture_rng()

    def __call__(self, request: Request) -> CheckpointManifest:
        """Publish now, and return when it is durable. Raises: CheckpointError, see `saver`."""
        return self._publish(request, to_files(self._tree(request)), self._facts(request))

    def begin(self, request: Request) -> Future[tuple[CheckpointManifest, Pruned]]:
        """Copy the state and return; publishing, and pruning after it, go on in a thread.

        While one save is on its way the next one waits here: there are never two.

        Raises:
            CheckpointError: the state is none that can be saved; by the future, what the disk refused.
        """
        if self._thread is not None:
            self._thread.join()
        tree, facts = self._stage.take(self._tree(request)), self._facts(request)
        future: Future[tuple[CheckpointManifest, Pruned]] = Future()

        def work() -> None:
            try:
                made = self._publish(request, to_files(tree), facts)
                future.set_result((made, self.prune(request.run, request.in_use)))
            except BaseException as error:
                future.set_exception(error)

        # No daemon: an interpreter that ends waits for it.
        thread = threading.Thread(target=work, name="qig-save")
        thread.start()
        self._thread = thread
        return future

    def rule(self) -> dict[str, Any]:
        """`keep` as plain data; {} for none."""
        return {} if self.keep is None else asdict(self.keep)

    def score(self, metrics: Mapping[str, float | None]) -> float | None:
        """What the best are ranked by, turned so that higher is better; None where it is no finite number."""
        keep = self.keep or Keep()
        value = metrics.get(keep.score)
        if value is None or not math.isfinite(value):
            return None
        return -value if keep.lower_is_better else value

    def best_score(self, run: RunDir) -> float | None:
        """The `score` of the best checkpoint that there is."""
        keep = self.keep or Keep()
        shelf = [found.manifest for found in list_checkpoints(run) if found.status == "COMPLETE" and found.manifest]
        found = best(shelf, keep.score, keep.lower_is_better)
        return None if found is None else self.score(found.metrics)

    def prune(self, run: RunDir, in_use: Mapping[str, str]) -> Pruned:
        """Delete what the rule gives up; nothing without a rule. What fails is told in the result."""
        if self.keep is None:
            return Pruned()
        try:
            return carry_out(run, plan_prune(run, self.keep, in_use=in_use))
        except QigError as error:
            return Pruned(error=str(error))

    def tidy(
        self, run: RunDir, in_use: Mapping[str, str], over: Mapping[str, Any], only: Collection[str] | None
    ) -> Pruned:
        """A prune that a person asked for: by the rule with what `over` changes, after the newest was verified.

        Args:
            only: what that person has seen in the plan: nothing else goes. None: all that the rule gives up.

        Raises:
            CheckpointError: as `prune`, or none verifies. ConfigError: a rule that cannot be.
        """
        steps = planning(run, recorded_keep(run, **over), in_use=in_use)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return carry_out(run, stop.value, only)

    def tag(self, run: RunDir, name: str, tag: str) -> tuple[str, ...]:
        """See `upkeep.add_tag`."""
        return add_tag(run, name, tag)

    def untag(self, run: RunDir, name: str, tag: str) -> tuple[str, ...]:
        """See `upkeep.remove_tag`."""
        return remove_tag(run, name, tag)

    def _tree(self, request: Request) -> dict[str, Any]:
        tree = dict(self._state())
        assert MONITOR_KEY not in tree, f"the key {MONITOR_KEY!r} is the monitor's"
        tree[MONITOR_KEY] = dict(request.monitor_state)
        if "rng" not in tree:
            tree[RNG_KEY] = self._rng
        return tree

    def _facts(self, request: Request) -> dict[str, Any]:
        facts = request.facts()
        if self._data_position is not None:
            facts["data_position"] = dict(self._data_position(request.step))
        return facts

    def _publish(self, request: Request, files: Mapping[str, Payload], facts: Mapping[str, Any]) -> CheckpointManifest:
        marks = {
            EMERGENCY: request.reason == EMERGENCY,
            # A person wanted it, or a phase of training began there: it stays until a person lets it go.
            PINNED: request.reason in ("command", "phase"),
            "nonfinite": bool(facts.get("nonfinite")),
        }
        return publish(
            request.run,
            session=request.session,
            step=request.step,
            reason=request.reason,
            files=files,
            tags=[tag for tag, applies in marks.items() if applies],
            sha256=self._sha256,
            **facts,
        )


def saver(
    state: Callable[[], Mapping[str, Any]],
    *,
    data_position: Callable[[int], Mapping[str, Any]] | None = None,
    keep: Keep | None = None,
    asynchronous: bool = True,
    on_best: bool = False,
    sha256: bool = False,
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
        keep: how many checkpoints are kept; the others are deleted after each save, see `retention`. None: all.
        asynchronous: interval checkpoints are copied in memory, as much again as the state, and written by a thread
            while the loop goes on. What the disk refuses is told at the next step.
        on_best: save whenever the score of `keep` (held-out loss without one) is better than at every checkpoint
            before and nothing is in alarm; beside the monitor's `checkpoint_every`.
        sha256: the manifest also has each file's SHA-256; slow where the processor has no instruction for it.

    Raises:
        CheckpointError: by the save function, when the disk refuses; no half checkpoint stays.
    """
    return Saver(state, data_position, keep, asynchronous, on_best, sha256)


class Restorer:
    """See `restorer`."""

    def __init__(
        self,
        load_state: Callable[[dict[str, Any]], object],
        scale_lr: Callable[[float], object] | None,
        finished_is_fine: bool,
    ) -> None:
        self._load = state_loader(load_state)
        self.scale_lr = scale_lr
        self._finished_is_fine = finished_is_fine

    def __call__(
        self, run: RunDir, selector: str | None, amend: Amend, total_steps: int | None
    ) -> tuple[RunWriter, Restored]:
        """Open a run for a new session. Raises: RunLocked, CheckpointError, ConfigError, see `recovery.go_on`."""
        fine = self._finished_is_fine
        return go_on(run, selector, self._load, amend, total_steps=total_steps, finished_is_fine=fine)

    def prepare(self, run: RunDir, name: str) -> Callable[[], Restored]:
        """Verify and read a checkpoint while the run goes on; what puts its state back. See `recovery.prepare`."""
        return prepare(run, name, self._load)


def restorer(
    load_state: Callable[[dict[str, Any]], object],
    *,
    scale_lr: Callable[[float], object] | None = None,
    finished_is_fine: bool = False,
) -> Restorer:
    """A restore function for the monitor: to resume, to go back while the run goes on, and for soft resets.

    Args:
        load_state: given what `saver`'s `state` gave, tensors on the CPU: puts it back. The global random generators
            are put back after it.
        scale_lr: multiplies the learning rate that was put back, for profiles whose soft reset lowers it.
        finished_is_fine: resuming a run that has made all its steps brings its state back and makes none, instead of
            being refused.
    """
    return Restorer(load_state, scale_lr, finished_is_fine)


def state_loader(load_state: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """What puts a whole checkpoint's state back: the loop's part by `load_state`, and the random generators."""

    def load(state: dict[str, Any]) -> None:
        rng = state.pop(RNG_KEY, None)
        load_state(state)
        if rng is not None:
            restore_rng(rng)

    return load
