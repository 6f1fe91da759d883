"""Charlie: one kernel trained with its integration suppressed by structure, then awakened, then shown frozen.

While it is dormant the cross blocks are zero, multiplied by g = 0, and outside the optimiser: phi is exactly 0. At the
awakening they join as a group without a past, and g rises. Beside it, in the same run and on the same batches, train
the control, where nothing was ever suppressed, and from the awakening on the branch, a copy that stays at g = 0: the
guards compare with them at equal steps. What the guards say is `phases`' to decide; here it is measured, told and done.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch import nn

from qig_core.errors import ConfigError
from qig_core.rundir.schema import MetricSpec
from qig_core.safety.abort import Cause
from qig_core.safety.integrated import IntegratedMonitor
from qig_core.safety.profile import OFF, Profile, SoftReset, Threshold
from qig_core.safety.verdict import State, Verdict
from qig_core.training.config import TrainConfig
from qig_core.training.corpus import Corpus, probe_batch
from qig_core.training.digests import parameter_digest
from qig_core.training.kernel import Kernel
from qig_core.training.phases import PHASES, Guard, PhaseName, Phases
from qig_core.training.program import Look, Metrics, look_at
from qig_core.training.specs import CHARLIE_SPECS, specs_of
from qig_core.training.trainer import Trainer
from qig_core.training.writing import generate

CONTROL, BRANCH = "control", "branch"
HELDOUT_LIMIT = "awakening_heldout"
_PROMPTS = 8
_PROMPT_BYTES = 16
_ANSWERED = ("nonfinite", "divergence")


class Charlie:
    """The program `charlie`; see the module. With `suppressed = false` it is the control alone.

    Raises:
        ConfigError: a gain at birth that is not the program's own.
    """

    relieve = None
    outcome = ""
    remedy = ""

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        assert config.charlie is not None
        if config.kernel.gain != 1.0:
            raise ConfigError(f"kernel.gain is {config.kernel.gain}: charlie sets the gain itself, leave it out")
        self.config = config
        self.corpus = corpus
        self.settings = config.charlie
        self.phases = Phases(settings=config.charlie, steps=config.steps)
        self.trainer = Trainer(config, corpus)
        self.companions: dict[str, Trainer] = {}
        if self.settings.suppressed:
            self.companions[CONTROL] = Trainer(config, corpus)
            with torch.no_grad():
                for parameter in self.trainer.kernel.cross_parameters().values():
                    parameter.zero_()
            self.trainer.kernel.set_gain(0.0)
            self.trainer.learn_only(self._within(self.trainer.kernel))
        self.specs: list[MetricSpec] = [*specs_of(config.optimizer.name), *CHARLIE_SPECS]
        self.probe = self.trainer.probe.facts()
        self.profile = _with_heldout_limit(self.trainer.profile, self.settings.heldout_factor)
        self._begun = self.phases.state()
        self._next: PhaseName | None = None
        """Begins with the next step: every guard held at this one."""
        self._guards: list[Guard] = []
        """Those that held for it."""
        self._heldout: float | None = None
        """At the last evaluation."""
        self._seen: dict[str, Look] = {}
        self._learnt: dict[str, Metrics] = {}
        self._condition: State = "unarmed"
        """What was told of the phase as a condition."""
        self._told = False
        """Whether the phase was told of in this session."""
        self._step = 0
        self._passage: dict[str, str] | None = None
        prompts = probe_batch(corpus.heldout, _PROMPTS, context=config.kernel.context)
        self._prompts = torch.from_numpy(prompts[:, : min(_PROMPT_BYTES, config.kernel.context - 1)])

    @property
    def trains(self) -> bool:
        """Whether anything is learnt in this phase."""
        return self.phases.name != "demonstration"

    @property
    def tokens_per_step(self) -> int:
        return self.trainer.tokens_per_step if self.trains else 0

    def state(self) -> dict[str, Any]:
        beside = {name: trainer.state() for name, trainer in self.companions.items()}
        return self.trainer.state() | {"phases": self._begun} | beside

    def load(self, state: Mapping[str, Any]) -> None:
        self.phases.restore(state["phases"])
        if self.settings.suppressed:
            self.trainer.learn_only(self._within(self.trainer.kernel))
            if self.phases.awoken is not None:
                self.trainer.learn_also(self.trainer.kernel.cross_parameters().values())
        self.trainer.load(state)
        self.companions.pop(BRANCH, None)
        if BRANCH in state:
            self.companions[BRANCH] = self._new_branch()
        for name, trainer in self.companions.items():
            trainer.load(state[name])
        self._begun, self._next, self._told, self._heldout = self.phases.state(), None, False, None

    def scale_lr(self, factor: float) -> None:
        for _, trainer in self._all():
            trainer.scale_lr(factor)

    def data_position(self, step: int) -> dict[str, Any]:
        return self.trainer.data_position(step)

    def begin_step(self, step: int) -> None:
        self._step, self._passage, self._learnt = step, None, {}
        if self._next is not None:
            self._enter(self._next, step)
        self._begun = self.phases.state()
        for _, trainer in self._all():
            trainer.begin_step()
        self.trainer.kernel.set_gain(self.phases.gain(step))

    def learn(self, step: int) -> Metrics:
        if not self.trains:
            self._passage = self._passage_of(step)
            return {}
        self._learnt = {name: trainer.forward_backward(step) for name, trainer in self.companions.items()}
        return self.trainer.forward_backward(step)

    def look(self, *, heldout: bool, measure: bool) -> Look:
        # Guards need both, also where a phase may end between two evaluations.
        step, phases = self._step, self.phases
        ends = step in (phases.latest, self.config.steps) or (not self.trains and step == phases.since)
        heldout = heldout or (self.settings.suppressed and ends)
        measure = measure or heldout
        self._seen = {
            name: look_at(trainer, heldout=heldout, measure=measure) for name, trainer in self.companions.items()
        }
        return look_at(self.trainer, heldout=heldout, measure=measure)

    def attend(self, step: int, look: Look, monitor: IntegratedMonitor) -> None:
        metrics, phases = look.metrics, self.phases
        metrics["gain"] = phases.gain(step)
        if self.trains and step < self.config.steps:
            metrics["breakdown_pct"] = self.trainer.breakdown.observe(step, metrics, look.regime)
        heldout, phi = metrics.get("loss_heldout"), metrics.get("phi")
        phases.saw(phi=phi, heldout=heldout)
        if heldout is not None and phases.name == "awakening" and phases.before is not None:
            metrics["heldout_ratio"] = heldout / phases.before
        for name, seen in self._seen.items():
            for key in ("phi", "loss_heldout"):
                if seen.metrics.get(key) is not None:
                    metrics[f"{name}.{key}"] = seen.metrics[key]
        self._record(step, monitor)
        if self._passage is not None:
            monitor.writer.event("generated", step=step, **self._passage)
        if heldout is not None:
            self._heldout = heldout if math.isfinite(heldout) else None
            self._judge(step, monitor, phi=_finite(phi))
        elif not self._told:
            monitor.writer.event("phase", step=step, **phases.data("begun", ()))
        self._told = True

    def update(self, step: int) -> None:
        if self.trains:
            for _, trainer in self._all():
                trainer.update()

    def _all(self) -> Iterator[tuple[str, Trainer]]:
        yield "", self.trainer
        yield from self.companions.items()

    @staticmethod
    def _within(kernel: Kernel) -> list[nn.Parameter]:
        cross = kernel.cross_parameters()
        return [parameter for name, parameter in kernel.named_parameters() if name not in cross]

    def _new_branch(self) -> Trainer:
        branch = Trainer(self.config, self.corpus)
        branch.kernel.set_gain(0.0)
        branch.learn_only(self._within(branch.kernel))
        return branch

    def _enter(self, name: PhaseName, step: int) -> None:
        """Everything that a phase begins with."""
        self._next, self._told = None, False
        self.phases.enter(name, step, self._guards, heldout=self._heldout)
        trainer = self.trainer
        if name == "awakening":
            self.companions[BRANCH] = branch = self._new_branch()
            branch.load(copy.deepcopy(trainer.state()))  # an optimiser's load keeps the tensors that it is given
            trainer.learn_also(trainer.kernel.cross_parameters().values())
        else:
            self.phases.digest = parameter_digest(trainer.kernel)

    def _record(self, step: int, monitor: IntegratedMonitor) -> None:
        """A sample of each companion."""
        for name in self.companions:
            seen = self._seen[name]
            measured = seen.basin is not None or "loss_heldout" in seen.metrics
            if measured or monitor.records(step):
                metrics = self._learnt.get(name, {}) | seen.metrics
                monitor.writer.stream(name).log(step, metrics, basin=seen.basin, regime=seen.regime)

    def _judge(self, step: int, monitor: IntegratedMonitor, *, phi: float | None) -> None:
        """Look at the guards of the phase: go on in it, end it, or stop the run."""
        phases = self.phases
        guards = self._look_at_guards(step, phi)
        # Of the held-out loss the profile has a limit, which is answered by a soft reset first.
        has_limit = any(each.id == HELDOUT_LIMIT for each in self.profile.limits)
        failed = [each for each in guards if each.state == "failed" and not (has_limit and each.id == "heldout_kept")]
        holds = all(guard.state == "ok" for guard in guards)
        state, reason = "judged", ""
        if failed or (not holds and step >= phases.latest):
            self.remedy = _remedy(phases, final=bool(failed))
            wanting = failed or [guard for guard in guards if guard.state != "ok"]
            state, reason = "failed", "; ".join(guard.text() for guard in wanting)
            name = phases.data(state, guards)["name"]
            what = "cannot end" if failed else f"had not ended by step {step}"
            monitor.abort.request(Cause.limit(f"the phase {name} {what}: {reason}"))
        elif holds and step >= phases.earliest:
            state = "passed"
            if self.settings.suppressed and phases.name != PHASES[-1]:
                self._next, self._guards = PHASES[PHASES.index(phases.name) + 1], guards
                monitor.want_checkpoint("phase")
            else:
                reason = self.outcome = "graduated" if self.settings.suppressed else "the control integrates"
        self._tell_condition(step, monitor, state, guards)
        severity = "critical" if state == "failed" else "info"
        monitor.writer.event("phase", step=step, severity=severity, **phases.data(state, guards, reason))

    def _tell_condition(self, step: int, monitor: IntegratedMonitor, state: str, guards: Sequence[Guard]) -> None:
        """That a run was stopped by its phase stands among the conditions; a session that goes on takes it back."""
        said: State = "critical" if state == "failed" else "ok"
        if said == self._condition:
            return
        self._condition = said
        verdict = Verdict(
            id="phase",
            state=said,
            metric="guards that hold",
            comparison=">=",
            limit=float(len(guards)) if state == "failed" else None,
            unit="",
            value=float(sum(guard.state == "ok" for guard in guards)),
            since_step=step,
            dwell=1,
            cause=tuple(guard.id for guard in guards if guard.state != "ok") if state == "failed" else (),
        )
        severity = "critical" if said == "critical" else "info"
        monitor.writer.event("condition", step=step, severity=severity, **verdict.data())

    def _look_at_guards(self, step: int, phi: float | None) -> list[Guard]:
        phases, heldout = self.phases, self._heldout
        if not self.settings.suppressed:
            return phases.control_guards()
        control = _finite(self._seen[CONTROL].metrics.get("phi"))
        if phases.name == "dormant":
            return phases.dormant_guards(heldout=heldout, control_phi=control)
        if phases.name == "awakening":
            branch = _finite(self._seen[BRANCH].metrics.get("loss_heldout"))
            without = self._phi_without_cross() if step >= phases.earliest else None
            return phases.awakening_guards(heldout=heldout, branch_heldout=branch, phi_without_cross=without)
        changed = parameter_digest(self.trainer.kernel) != phases.digest
        return phases.demonstration_guards(changed=changed, phi=phi, control_phi=control)

    @torch.no_grad()
    def _phi_without_cross(self) -> float | None:
        """phi of a copy at g = 1 whose cross weights are zero: all of phi must be theirs."""
        bare = Kernel(self.config.kernel)
        bare.load_state_dict(self.trainer.kernel.state_dict())
        bare.set_gain(1.0)
        for parameter in bare.cross_parameters().values():
            parameter.zero_()
        return self.trainer.probe.measure(bare).phi

    def _passage_of(self, step: int) -> dict[str, str]:
        """A prompt of held-out text, and what the frozen kernel makes of it."""
        prompt = self._prompts[step % len(self._prompts)]
        length = self.config.kernel.context
        written = generate(self.trainer.kernel, prompt, length, seed=self.config.seed, step=step)
        return {"prompt": _text(prompt), "text": _text(written)}


def _remedy(phases: Phases, *, final: bool) -> str:
    """What a person can do where a phase did not end."""
    if final:
        return "more steps would not cure it"
    if phases.name == "demonstration":
        step = phases.since - 1
        return f"its kernel is frozen; train longer before that: qig-core train --fork RUN@{step} --steps MORE"
    return f"give it more than {phases.steps} steps: qig-core train --resume RUN --steps MORE"


def _text(tokens: torch.Tensor) -> str:
    return bytes(tokens.tolist()).decode("utf-8", "backslashreplace")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _with_heldout_limit(profile: Profile, factor: float) -> Profile:
    """Judged while awakening: held-out loss over what it was before. A collapse is answered by a soft reset first."""
    if profile == OFF:
        return profile
    limit = Threshold(id=HELDOUT_LIMIT, metric="heldout_ratio", comparison="<=", value=factor)
    known = [each.id for each in profile.limits if each.severity == "critical"]
    answered = [name for name in _ANSWERED if name in known]
    asked = profile.soft_reset or SoftReset(limits=tuple(answered), lr_factor=0.5, at_most=1)
    asked = msgspec.structs.replace(asked, limits=(*asked.limits, HELDOUT_LIMIT))
    return msgspec.structs.replace(profile, limits=(*profile.limits, limit), soft_reset=asked)
