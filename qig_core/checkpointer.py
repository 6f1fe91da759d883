"""Checkpoints for any loop, and nothing else of it: no metric is needed, no limit judged.

    with Checkpointer("runs", "mine", steps=2000, every=500, model=model, optimizer=optimizer) as checkpoints:
        for step in checkpoints.steps():
            ...
            optimizer.step()

Begun again, it goes on from the newest checkpoint that verifies, with the same random numbers; a run that has made all
its steps gives its last state and no more steps. It is a run like any other: `qig-core checkpoints`, `ctl` and the
dashboard work on it, Ctrl-C stops it with a checkpoint, and the program ends there with the exit code of the stop.
"""

from collections.abc import Iterator, Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any, Self

import torch

from qig_core.checkpoints.retention import Keep
from qig_core.checkpoints.saving import restorer, saver
from qig_core.errors import UsageError
from qig_core.safety.integrated import IntegratedMonitor


class Checkpointer:
    """Saves and brings back whatever a loop names. A context manager.

    Args:
        runs: the folder of runs.
        name: of the run: the newest of this name that has a checkpoint goes on, else a new one is begun.
        steps: how many the loop is to make, over all sessions.
        every: steps between checkpoints.
        keep: how many checkpoints stay, see `qig_core.checkpoints.retention`. None: all.
        resume: RUN[@STEP|@CHECKPOINT] for another one, None for a new run.
        asynchronous: checkpoints are copied in memory and written beside the loop.
        state: by its name whatever is to be saved: what has `state_dict` and `load_state_dict` (modules, optimisers,
            schedulers, scalers), generators of torch, and dicts of plain data and tensors, which are filled anew. Set
            up before this: what is random in it is then put back.

    Raises:
        UsageError: something is named that cannot be saved so.
        RunLocked, CheckpointError, ConfigError: as `IntegratedMonitor.open`; the run is then as it was.
    """

    def __init__(
        self,
        runs: str | Path,
        name: str,
        *,
        steps: int,
        every: int = 500,
        keep: Keep | None = None,
        resume: str | None = "auto",
        asynchronous: bool = True,
        **state: Any,
    ) -> None:
        if not state:
            raise UsageError("a Checkpointer needs something to save: model=model, optimizer=optimizer, ...")
        for key, value in state.items():
            _kind(key, value)
        self._state = state
        self._noted: dict[str, float] = {}
        self._saver = saver(self._take, keep=keep, asynchronous=asynchronous)
        self.monitor = IntegratedMonitor.open(
            runs,
            name=name,
            total_steps=steps,
            profile="off",
            checkpoint_every=every,
            save=self._saver,
            restore=restorer(self._put_back, finished_is_fine=True),
            resume=resume,
        )

    @property
    def step(self) -> int:
        """Steps that the state holds already: where the loop begins."""
        return self.monitor.first_step

    @property
    def exit_code(self) -> int:
        """What the process should end with."""
        return self.monitor.exit_code

    def note(self, **metrics: float) -> None:
        """Figures for the record, and for ranking checkpoints: `loss_heldout`, unless `keep` says otherwise."""
        self._noted |= metrics

    def steps(self) -> Iterator[int]:
        """The steps to do: after each the next one, or the one that the run was brought back to.

        A checkpoint of step n is made before its body runs: it holds n steps. The last is made at the end.
        """
        total = self.monitor.writer.manifest.total_steps
        for step in self.monitor.steps(last=True):
            self._saver.step_begins()
            noted, self._noted = self._noted, {}
            if self.monitor.check(step, noted):
                if step == total:
                    self.monitor.finish(step)
                else:
                    yield step

    def _take(self) -> Mapping[str, Any]:
        return {key: _kind(key, value)[0](value) for key, value in self._state.items()}

    def _put_back(self, saved: Mapping[str, Any]) -> None:
        absent = [key for key in self._state if key not in saved]
        if absent:
            raise KeyError(f"it has no {', '.join(map(repr, absent))}, only {', '.join(map(repr, saved))}")
        for key, value in self._state.items():
            _kind(key, value)[1](value, saved[key])

    def __enter__(self) -> Self:
        self.monitor.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close the run.

        Raises:
            SystemExit: it was stopped, by a signal or a command: what follows the block is for a loop that came to its
                end. With the exit code that was told.
        """
        self.monitor.__exit__(kind, error, trace)
        if error is None and self.monitor.exit_code:
            raise SystemExit(self.monitor.exit_code)


def _kind(key: str, value: Any) -> tuple[Any, Any]:
    """How such a thing is read and put back. Raises: UsageError, nobody knows."""
    if isinstance(value, torch.Generator):
        return torch.Generator.get_state, torch.Generator.set_state
    if isinstance(value, dict):
        return dict, _refill
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        # Not by its class: wrappers hand these on.
        return methodcaller("state_dict"), lambda thing, saved: thing.load_state_dict(saved)
    raise UsageError(
        f"{key}={type(value).__qualname__}: only what has state_dict and load_state_dict, a torch.Generator or a dict "
        "can be saved"
    )


def _refill(old: dict[Any, Any], new: Mapping[Any, Any]) -> None:
    old.clear()
    old.update(new)
