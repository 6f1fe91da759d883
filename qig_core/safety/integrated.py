"""The guard around anybody's training loop: judge, record, obey, save, go back, stop in order. Trains nothing.

    with IntegratedMonitor.open("runs", name="mine", total_steps=steps, save=save, restore=restore) as monitor:
        for step in monitor.steps():
            loss = ...; loss.backward()
            if monitor.check(step, {"loss": loss.item()}):
                optimizer.step()
    sys.exit(monitor.exit_code)

`step` counts the optimiser updates that were applied. `check` comes before the update, and where it says False the
update is left out: the run stops, or goes back, and `steps` goes on accordingly. A checkpoint taken in it holds exactly
`step` updates, and a resume begins by doing step `step` again. When the last update was applied, `steps` makes the last
checkpoint. A loop over a `range` of its own works as well: it must `break` at False, call `finish` at its end, and
cannot go back.
"""

import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from qig_core.errors import CheckpointError, ExitCode, RecordWriteError, RunNotFound, UsageError, exit_code_of
from qig_core.rundir.host import git_revision, versions
from qig_core.rundir.layout import LATEST, RunDir, newest_run, resolve_run, split_selector
from qig_core.rundir.schema import CheckpointManifest, Manifest, MetricSpec
from qig_core.rundir.writer import RunWriter
from qig_core.safety.abort import DEADLINE_S, AbortState, Cause, EmergencyAbortHandler, SaveSkipped
from qig_core.safety.alerts import AlertSettings
from qig_core.safety.announcing import Announcer
from qig_core.safety.commands import CommandDesk
from qig_core.safety.delivery import Channel
from qig_core.safety.emergency import Memory
from qig_core.safety.ending import Ending, Outcome
from qig_core.safety.going_back import Ask, GoingBack, HalfRestored, check_restore
from qig_core.safety.monitor import Judgement, SafetyMonitor
from qig_core.safety.profile import DEFAULT, Profile, load_profile, to_dict
from qig_core.safety.reset import POLICY_KEY, ResetPolicy
from qig_core.safety.saves import Restore, Save, Saves
from qig_core.safety.verdict import ALARMS, Verdict

Relieve = Callable[[int, Sequence[Verdict]], Collection[str]]
"""What a loop of several models does for one of them alone, before the whole run answers.

Given the step and every critical verdict, it gives the ids of those that it has dealt with: they are judged anew.
"""


def _plain(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """A copy with numbers only."""
    sample: dict[str, Any] = dict(metrics)
    try:
        # A float only where every value is an int or a float: almost always, and quickly known.
        if type(sum(sample.values())) is float:
            return sample
    except (TypeError, RuntimeError):  # a None; tensors of two devices
        pass
    return {name: _number(value) for name, value in sample.items() if value is not None}


def _number(value: Any) -> float:
    """Of a tensor or an array of one number as well: float() would warn of a tensor's gradient."""
    item = getattr(value, "item", None)
    return float(value if item is None else item())


def _run_to_resume(resume: str, runs: Path, name: str) -> tuple[RunDir, str | None] | None:
    """The run, and STEP or CHECKPOINT where it was named; None where a new run is to be begun.

    Raises:
        UsageError: no such run.
    """
    text, selector = split_selector(resume)
    if text == "auto":
        newest = newest_run(runs, name)
        return None if newest is None or not any(newest.checkpoints.glob("*/manifest.json")) else (newest, selector)
    if text == LATEST and name:
        newest = newest_run(runs, name)
        if newest is None:
            raise RunNotFound(f"no run under {str(runs)!r} is named {name[:100]!r}; resume='auto' would begin one")
        return newest, selector
    return resolve_run(text, runs), selector


class IntegratedMonitor:
    """A SafetyMonitor and an EmergencyAbortHandler over one open run. A context manager; it closes the run.

    Args:
        writer: holds the run.
        profile: which limits are judged, or its name ("default", "reference", "off") or TOML path. A critical one stops
            the run, unless the profile wants it answered by a soft reset first.
        save: publishes a checkpoint; without it checkpoint commands are refused, and a stop saves nothing.
        restore: puts the state of a checkpoint back, as `qig_core.checkpoints.saving.restorer` makes one; without it
            the run cannot go back.
        alerts: who is told of alarms and of the end.
        relieve: is asked first when something is critical, see Relieve.
        log_every: steps between samples. A sample with a transition, a basin, a regime, or a metric that the check
            before did not have, is always recorded.
        checkpoint_every: steps between interval checkpoints; 0 for none.
        deadline_s: how long a stop may take before the watchdog ends the process with exit code 78.
        signals: whether SIGINT, SIGTERM and SIGHUP ask for a stop.
        first_step, monitor_state, training_s, parent: from the checkpoint that this session goes on from.
    """

    def __init__(
        self,
        writer: RunWriter,
        *,
        profile: Profile | str = DEFAULT,
        save: Save | None = None,
        restore: Restore | None = None,
        alerts: AlertSettings | None = None,
        relieve: Relieve | None = None,
        log_every: int = 1,
        checkpoint_every: int = 0,
        deadline_s: float = DEADLINE_S,
        signals: bool = True,
        first_step: int = 0,
        monitor_state: Mapping[str, Any] | None = None,
        training_s: float = 0.0,
        parent: str | None = None,
        config_digest: str = "",
        corpus_digest: str = "",
    ) -> None:
        profile = load_profile(profile) if isinstance(profile, str) else profile
        check_restore(profile, restore)
        self.writer = writer
        self.first_step = first_step
        """Where the loop begins: the updates that its state holds already."""
        self.safety = SafetyMonitor.from_state(profile, monitor_state or {})
        self._policy = ResetPolicy(profile.soft_reset)
        self._policy.restore((monitor_state or {}).get(POLICY_KEY, {}))
        self.abort = EmergencyAbortHandler(
            deadline_s=deadline_s, signals=signals, on_deadline=lambda: self._ending.deadline()
        )
        self._memory = Memory()
        self._saves = Saves(
            writer,
            save,
            safety=self.safety,
            policy=self._policy,
            abort=self.abort,
            memory=self._memory,
            training_s=training_s,
            parent=parent,
            config_digest=config_digest,
            corpus_digest=corpus_digest,
        )
        self._back = GoingBack(writer, restore, policy=self._policy, abort=self.abort)
        self._desk = CommandDesk(
            writer,
            self._saves,
            self.abort,
            log_every=log_every,
            cannot_go_back=self._back.refusal,
            nothing_good=self._policy.nothing_good,
        )
        self._announcer = Announcer(writer, self.safety, alerts)
        self._outcome = Outcome()
        self._ending = Ending(
            writer,
            self._outcome,
            safety=self.safety,
            abort=self.abort,
            saves=self._saves,
            desk=self._desk,
            memory=self._memory,
            announcer=self._announcer,
        )
        self._reasons: Mapping[str, str] = {}
        self._relieve = relieve
        self._wanted = ""
        self._checkpoint_every = checkpoint_every if save is not None else 0
        self._first: int | None = None
        self._went_back_to: int | None = None
        """The step that `steps` is to go on with, where it is not the next one."""
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def open(
        cls,
        runs: str | os.PathLike[str],
        *,
        name: str = "",
        config: Mapping[str, Any] | None = None,
        metrics: Sequence[MetricSpec] = (),
        total_steps: int | None = None,
        restore: Restore | None = None,
        resume: str | None = None,
        **settings: Any,
    ) -> Self:
        """Begin a new run under the folder `runs`, or go on with one; `settings` are the constructor's.

        Args:
            total_steps: how many updates the loop is to make; a resume without one keeps the recorded one.
            resume: RUN[@STEP|@CHECKPOINT]: a run's id, its name, its path, or `latest`, the newest of this name (of all
                where `name` is empty); from its newest checkpoint that verifies where none is named. None: a new run.
                `auto`: as `latest` where there is one with a checkpoint, else a new run. What is random in the loop is
                set up before `open`.

        Raises:
            RecordWriteError: the folder cannot be written.
            ConfigError: a profile or alerts that cannot be.
            UsageError: `resume` without `restore`, or no such run.
            RunLocked, CheckpointError, ConfigError: as `restore` does; the run is then as it was.
        """
        # Refused before there is a run.
        profile = settings.get("profile", DEFAULT)
        settings["profile"] = profile = load_profile(profile) if isinstance(profile, str) else profile
        check_restore(profile, restore)
        if alerts := settings.get("alerts"):
            Channel(alerts)
        settings["restore"] = restore
        if resume is not None and restore is None:
            raise UsageError(f"resume={resume!r} needs restore=restorer(load_state): what puts a state back")
        found = None if resume is None else _run_to_resume(resume, Path(runs), name)
        if found is not None and restore is not None:

            def amend(manifest: Manifest) -> None:
                manifest.total_steps = total_steps or manifest.total_steps
                manifest.config = manifest.config if config is None else dict(config)
                manifest.metrics = list(metrics) or manifest.metrics

            writer, restored = restore(*found, amend, total_steps)
            return cls(
                writer,
                first_step=restored.step,
                monitor_state=restored.monitor_state,
                training_s=restored.training_s,
                parent=restored.checkpoint,
                **settings,
            )
        manifest = Manifest(
            id="",
            name=name,
            program=Path(sys.argv[0]).name,
            total_steps=total_steps,
            config=dict(config or {}),
            metrics=list(metrics),
            versions=versions(),
            git=git_revision(Path.cwd()),
        )
        return cls(RunWriter.create(Path(runs), manifest), **settings)

    @property
    def latest(self) -> Mapping[str, float | None]:
        """The latest value of every metric."""
        return self._memory.latest

    @property
    def exit_code(self) -> int:
        """What the process should end with."""
        return self._outcome.exit_code

    @property
    def reason(self) -> str:
        """Why the run stopped, for people; empty where it came to its end."""
        return self._outcome.reason

    @property
    def error(self) -> Exception | None:
        """The first thing that the disk refused, or that the checkpoint at the end failed of."""
        return self._outcome.error

    @property
    def known_good(self) -> tuple[str, ...]:
        """Checkpoints that a soft reset would go back to, the newest first."""
        return tuple(each.name for each in self._policy.good)

    @property
    def checkpoint(self) -> CheckpointManifest | None:
        """The newest that this session made."""
        return self._saves.newest

    def records(self, step: int) -> bool:
        """Whether this step has a sample though nothing is measured at it: every `log_every` steps, as last asked."""
        return step % self._desk.log_every == 0

    def check(
        self,
        step: int,
        metrics: Mapping[str, float | None],
        *,
        basin: bytes | None = None,
        regime: str | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> bool:
        """The step boundary, before the update; False where the loop must end without it.

        Args:
            step: updates applied so far.
            metrics: name to value, a number or a tensor of one; None and absent are "not measured".
            basin: little-endian float32, 64 of them.
            reasons: why a metric has no value, or where it ceased to be finite, by its name: told in an `unmeasured`
                event when it changes, and in the cause of a stop.
        """
        if self._outcome.ended:
            return False
        self._outcome.step = step
        memory = self._memory
        sample = _plain(metrics)
        try:
            self.writer.step_done(step)
            if self._saves.on_its_way is not None:
                self._saves.settle(step)
            memory.add(step, sample)
            judgement = self.safety.judge(step, sample)
            measured = basin is not None or regime is not None
            if measured:
                memory.basin, memory.regime = basin or memory.basin, regime or memory.regime
            # A step at which nothing was measured has no reasons either, and says nothing of those before.
            if (reasons or (measured and reasons is not None)) and reasons != self._reasons:
                self._reasons = dict(reasons)
                self.writer.event("unmeasured", step=step, reasons=self._reasons)
            if self.records(step) or measured or judgement.transitions or memory.has_more:
                self.writer.telemetry.log(step, sample, basin=basin, regime=regime)
            if judgement.transitions or judgement.moved or judgement.advice:
                self._announcer.judged(step, judgement)
            self._policy.checked(judgement.worst in ALARMS)
            if self.writer.mailbox.pending:
                self._desk.obey(step, may_wait=judgement.worst != "critical")
            if judgement.worst == "critical":
                self._answer(judgement)
            if self.abort.asked:
                self._stop(step)
                return False
            if self._desk.going_back is not None and not self._go_back(step):
                return False
            wanted, self._wanted = self._wanted, ""
            # The step that a session or a way back begins with has its checkpoint.
            if wanted and self._saves.possible and not (self._first is None and self._saves.is_of_a_checkpoint):
                self._saves.begin(step, wanted)
                self._first = step if self._first is None else self._first
            elif self._checkpoint_every:
                # The step that a session begins with was saved by the one before, or is the birth of the run; the last
                # step is saved as the end.
                last = step == self.writer.manifest.total_steps
                if self._first is not None and not last:
                    if step % self._checkpoint_every == 0:
                        self._saves.begin(step, "interval")
                    elif self._saves.is_best(sample) and judgement.worst not in ALARMS:
                        self._saves.begin(step, "best")
                self._first = step if self._first is None else self._first
        except RecordWriteError as error:
            self._stop_for_disk(self._outcome.step, error)
            return False
        self._saves.step_begins()
        return True

    def steps(self, *, last: bool = False) -> Iterator[int]:
        """The steps to do, from `first_step` on: after each the next one, or the one that the run has gone back to.

        Ends when the run has stopped; when the last update was applied, after `finish`. Without `total_steps` endless.

        Args:
            last: give the total as a step too, after the last update, for a last look; `finish` is then the caller's.
        """
        self._back.loop_follows = True
        total = self.writer.manifest.total_steps
        step = self.first_step
        while not self._outcome.ended and (total is None or step < total + last):
            yield step
            again, self._went_back_to = self._went_back_to, None
            step = step + 1 if again is None else again
        if total is not None and not last:
            self.finish(total)

    def want_checkpoint(self, reason: str) -> None:
        """Make a checkpoint at the next check that the run goes on from; nothing where it cannot be saved."""
        self._wanted = reason

    def finish(self, step: int) -> CheckpointManifest | None:
        """The last update was applied, `step` in all: save with the reason "end". None where nothing was saved."""
        outcome = self._outcome
        if outcome.ended:
            return None
        outcome.step = step
        try:
            if self.abort.asked:
                self._stop(step)
                return self.checkpoint
            # A run that was finished when it was opened has that checkpoint.
            wanted = self._saves.possible and not (step == self.first_step and self._saves.is_of_a_checkpoint)
            made = self._saves.attempt(step, "end") if wanted else None
        except RecordWriteError as error:
            self._stop_for_disk(step, error)
            return None
        outcome.ended = True
        if self._saves.error is not None:
            outcome.failed(self._saves.error)
            refused = isinstance(self._saves.error, OSError) or isinstance(self._saves.error.__cause__, OSError)
            outcome.exit_code = int(ExitCode.IO if refused else ExitCode.FOUND_BAD)
            outcome.reason = f"the checkpoint at the end failed: {self._saves.error}"
        return made

    def _critical(self) -> str:
        """Every critical alarm in words."""
        return "; ".join(self._in_words(each) for each in self.safety.verdicts() if each.state == "critical")

    def _in_words(self, verdict: Verdict) -> str:
        """The verdict, and of what is not finite where that began, if the loop said so."""
        names = (verdict.cause or (verdict.metric,)) if verdict.comparison == "finite" else ()
        told = dict.fromkeys(self._reasons[name] for name in names if name in self._reasons)
        return verdict.text() + (f" ({'; '.join(told)})" if told else "")

    def _answer(self, judgement: Judgement) -> None:
        """To critical alarms: relief, a soft reset where the profile wants it and it can be, else a stop."""
        critical = judgement.critical
        if self._relieve is not None and (dealt := self._relieve(self._outcome.step or 0, critical)):
            for verdict in self.safety.rearm(dealt):
                self._announcer.tell_of(self._outcome.step, verdict)
            critical = tuple(verdict for verdict in critical if verdict.id not in dealt)
            if not critical:
                return
        words = self._critical()
        if self._policy.answers([verdict.id for verdict in critical]):
            refusal = self._back.refusal() or self._policy.refusal()
            if not refusal:
                # A person who asked at this very step knows better where to.
                self._desk.going_back = self._desk.going_back or Ask(how="soft_reset", cause=words)
                return
            words += f"; soft reset not possible: {refusal}"
        self.abort.request(Cause.limit(words))

    def _go_back(self, step: int) -> bool:
        """Do what the desk was asked for; whether the step goes on, because nothing has changed."""
        self._saves.settle(step, wait=True)
        while (ask := self._desk.going_back) is not None:
            try:
                gone = self._back.go(ask)
            except CheckpointError as error:
                self._desk.went_back("refused", step, reason=str(error))
                self.writer.heartbeat.step_done(step)
                if self._went_back_to is None and (critical := self._critical()):
                    self.abort.request(Cause.limit(f"{critical}; soft reset not possible: {error}"))
                if self.abort.asked:
                    self._stop(step)
                    return False
                return self._went_back_to is None
            except HalfRestored as error:
                self._desk.went_back("refused", step, reason=f"the run stops, its state is half restored: {error}")
                cause = self.abort.request(Cause("error", f"{ask.how}: {error}"[:500], int(ExitCode.INTERNAL)))
                self._ending.conclude(cause, cause.exit_code, None, "the state is half restored")
                return False
            # All that says which step the state is of, before anything is written: a disk that refuses is a stop at it.
            step = self._outcome.step = self._went_back_to = gone.restored.step
            self.writer.heartbeat.step_done(step)
            self.safety.restore(gone.restored.monitor_state or {})
            self._memory.forget_latest()
            self._saves.goes_on_from(gone.restored.checkpoint, gone.restored.training_s)
            self._saves.step_begins()
            self._first, self._reasons = None, {}
            self._back.tell(gone)
            self._announcer.all(step)
            if ask.command is None:
                self._announcer.went_back(step, gone.restored.checkpoint or "", ask.cause)
            self._desk.went_back("done", step, **gone.facts)
            if self._desk.paused and not self.abort.asked:
                self._desk.obey(step)
            if self.abort.asked:
                self._stop(step)
                return False
        return False

    def _stop(self, step: int) -> None:
        """Save if that is possible, then write down what happened."""
        cause = self.abort.cause
        assert cause is not None
        code, note, made = cause.exit_code, "", None
        self.abort.advance(AbortState.CHECKPOINTING)
        self._ending.foreshadow(cause)
        if not self._saves.possible:
            note = "this loop gave no save function"
        elif self.abort.skip:
            note = "a second Ctrl-C asked not to wait for it"
        else:
            try:
                with self.abort.interruptible():
                    self._saves.settle(step, wait=True)
                made = self._saves.publish(step, "emergency")
            except SaveSkipped:
                note = "a second Ctrl-C interrupted it"
            except Exception as error:
                note = f"{type(error).__name__}: {error}"
                if cause.kind != "error":
                    code = int(ExitCode.EMERGENCY_CHECKPOINT_FAILED)
        self._ending.conclude(cause, code, made, note)

    def _stop_for_disk(self, step: int | None, error: RecordWriteError) -> None:
        self._outcome.failed(error)
        self.abort.request(Cause("error", str(error), int(ExitCode.IO)))
        self._stop(step or 0)

    def __enter__(self) -> Self:
        self.abort.__enter__()
        try:
            self._saves.step_begins()
            manifest, profile, keep = self.writer.manifest, to_dict(self.safety.profile), self._saves.rule()
            if manifest.profile != profile or manifest.keep != keep:
                manifest.profile, manifest.keep = profile, keep
                self.writer.save_manifest()
            self._ending.begin()
            self._announcer.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if os.getpid() != self._pid:  # a forked child that leaves by this way; the run is its parent's
            return
        try:
            if error is not None and not self._outcome.ended:
                self._fail(error)
            elif self._went_back_to is not None and not self._outcome.ended:
                went = f"the loop ended where it should have gone back to step {self._went_back_to}: no break at False"
                cause = self.abort.request(Cause("error", went, int(ExitCode.INTERNAL)))
                self._ending.conclude(cause, cause.exit_code, None, "the state is the one that was gone back to")
            elif not self._outcome.ended and (asked := self.abort.cause) is not None:
                self._ending.conclude(asked, asked.exit_code, None, "the loop ended before a step boundary")
        finally:
            self.close()

    def _fail(self, error: BaseException) -> None:
        """The loop raised: its state may be half updated, so nothing is saved."""
        outcome = self._outcome
        code = exit_code_of(error)
        if isinstance(error, SystemExit) and not self.abort.asked:
            outcome.exit_code = code
            outcome.reason = f"SystemExit: {error.code}" if error.code else ""
            return
        cause = self.abort.request(Cause("error", f"{type(error).__name__}: {error}"[:500], code))
        text = "".join(traceback.format_exception(error))
        self._ending.conclude(cause, code, None, "the loop raised between step boundaries", trace=text)

    def close(self) -> None:
        """Close the run with the exit code and the reason, and give the signals back."""
        if self._closed:
            return
        self._closed = True
        outcome = self._outcome
        self._announcer.end(outcome.step, outcome.exit_code, outcome.reason)
        try:
            try:
                self._saves.settle(outcome.step or 0, wait=True)
                self._desk.dismiss(outcome.step)
            finally:
                self.writer.close(outcome.exit_code, outcome.reason)
        except RecordWriteError as error:
            outcome.failed(error)
            outcome.exit_code = outcome.exit_code or int(ExitCode.IO)
        finally:
            self._ending.end()
            self.abort.__exit__(None, None, None)
            self._announcer.close()
