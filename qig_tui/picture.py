"""What the screen shows, as plain data: one run's state and what is read off it. No Textual, no clock, no disk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from qig_core.checkpoints.ranking import DEFAULT_SCORE, best, last_good, latest
from qig_core.geometry.simplex import fisher_rao_distance
from qig_core.rundir.liveness import ENDED, Liveness, Word
from qig_core.rundir.schema import Event, Heartbeat, Manifest, MetricSpec
from qig_tui.detail import Cursor
from qig_tui.history import History
from qig_tui.journal import ALARMS, GLYPHS, SHOWN, Condition, Journal, verdict
from qig_tui.programs.constellation import Report, report_of
from qig_tui.programs.phases import Phase
from qig_tui.series import Floats
from qig_tui.sources.checkpoints import CheckpointEntry
from qig_tui.sources.local import Update
from qig_tui.sources.streams import StreamUpdate
from qig_tui.sources.telemetry import Backfill
from qig_tui.text import ABSENT, grouped, number, safe, unit_text
from qig_tui.travel import Moment

MOVING = frozenset({Word.LIVE, Word.SLOW, Word.BUSY})
WATCHED = MOVING | {Word.PAUSED}
"""The words of a run that is there: what was judged last still holds."""
_LEAST_MOVE = 5e-4
"""Less is shown as 0."""
_NAMES = {
    "phi": "Φ",
    "kappa": "κ",
    "drift_rolling": "drift",
    "loss_heldout": "held-out loss",
    "breakdown_pct": "breakdown",
}


@dataclass(frozen=True)
class Progress:
    step: int | None
    total: int | None
    fraction: float | None
    eta_s: float | None
    seconds_per_step: float | None


@dataclass(frozen=True)
class ConditionRow:
    """A condition beside the newest value of its metric."""

    condition: Condition
    value: float | None
    margin: float | None
    name: str
    unit: str

    @property
    def state(self) -> str:
        """As judged last; "unjudged" where that was ok, and the newest value is none that could be."""
        is_odd = self.value is not None and not math.isfinite(self.value)
        return "unjudged" if is_odd and self.condition.state == "ok" else self.condition.state

    @property
    def glyph(self) -> str:
        return GLYPHS[self.state]

    @property
    def shown(self) -> str:
        """The newest value; where no number is asked for, in a word whether all is as it should be."""
        state, comparison = self.condition.state, self.condition.comparison
        if self.value is not None and self.value.is_integer() and abs(self.value) < 1e6:
            return f"{grouped(int(self.value))} %" if self.unit == "%" else grouped(int(self.value))
        if comparison == "finite":
            return "finite" if self.value is not None and math.isfinite(self.value) else number(self.value)
        if comparison in ("steady", "measured"):
            broken = "moved" if comparison == "steady" else "missing"
            return broken if state in ALARMS else ABSENT if state == "unarmed" else comparison
        return number(self.value)

    @property
    def story(self) -> str:
        """Of an alarm what it is blamed on, since which step it stands, and how often in a row it takes to raise it."""
        condition = self.condition
        if condition.state not in ALARMS:
            return ""
        since = "" if condition.since_step is None else f"since {grouped(condition.since_step)}"
        dwell = f"after {condition.dwell} in a row" if condition.dwell.isdigit() and int(condition.dwell) > 1 else ""
        return ", ".join(part for part in (condition.blame, since, dwell) if part)


@dataclass(frozen=True)
class BasinView:
    """The newest basin against the reference and the one before it."""

    step: int
    values: Floats
    reference_step: int
    to_reference: Floats
    """Newest minus reference."""
    to_previous: Floats | None
    distance_rad: float | None
    """Fisher–Rao, to the reference."""
    velocity_rad: float | None
    """Fisher–Rao, to the basin recorded before."""

    def movers(self, count: int) -> list[tuple[int, float]]:
        """The entries that moved most since the reference: index and difference."""
        order = np.argsort(-np.abs(self.to_reference), kind="stable")[:count]
        return [(int(i), float(self.to_reference[i])) for i in order if abs(self.to_reference[i]) >= _LEAST_MOVE]


class RunPicture:
    """One run as far as it has been read. `apply` and `backfill` fold in what a source found; the rest only looks.

    One of a further stream has that stream's samples, and everything else of the run's own picture (`follow`).
    """

    def __init__(self, manifest: Manifest, stream: str | None = None) -> None:
        self.manifest = manifest
        self.stream = stream
        """Whose samples these are; None: the run's own."""
        self.streams: Sequence[str] = ()
        """The further ones that the run has."""
        self.history = History()
        self._of_run: History | None = None
        """The samples of the run's own stream, where `history` is another one's."""
        self.journal = Journal()
        self._specs: tuple[Manifest, dict[str, MetricSpec]] = manifest, {s.name: s for s in reversed(manifest.metrics)}
        """Of a manifest by their names: it may declare thousands."""
        self._report: tuple[Event | None, Report | None] | None = None
        """The event that was read, and what it says."""
        self.liveness = Liveness(Word.SILENT, "not read yet")
        self.heartbeat: Heartbeat | None = None
        self.checkpoints: list[CheckpointEntry] = []
        self._listed: list[CheckpointEntry] = []
        self._found_bad: dict[str, str] = {}
        self.cursor: Cursor | None = None
        """Where the basin is read; None: the newest one."""
        self.pinned: tuple[int, Floats] | None = None
        """Step and basin that somebody measures distances from; None: from the run's first one."""
        self.moment: Moment | None = None
        """The moment that is shown; None: now."""
        self.run_moment: Moment | None = None
        """The same in the run's own stream, where `moment` is one of another."""
        self.problem: str | None = None
        """Why something cannot be read now."""
        self._problem: str | None = None
        """Of the further stream."""
        self.checkpoints_problem: str | None = None
        """Why the list of the checkpoints is empty, where that does not mean that there are none."""
        self.bytes_per_s: float | None = None
        """None: not known yet."""
        self.waiting_bytes = 0
        self.lag_s: float | None = None
        """From the writer's clock to this reader's; only where both are the same machine's."""
        self.backfilled: float | None = None
        """Share of the earlier records read; None when nothing is left to read."""

    def apply(self, update: Update) -> None:
        if update.manifest is not None:
            self.manifest = update.manifest
        if update.restarted:
            self.history = History()
            self.backfilled = self.cursor = self.pinned = None
        if update.events_restarted:
            self.journal = Journal()
        if update.head and self.history.reference is None:
            first = History()
            first.add(update.head)
            self.history.reference = first.reference
        self.history.add(update.samples)
        self.journal.add(update.events)
        self.liveness, self.heartbeat = update.liveness, update.heartbeat
        if update.checkpoints is not None:
            self._listed = update.checkpoints
            self.checkpoints = _marked(self._listed, self._found_bad)
        self.checkpoints_problem = update.checkpoints_problem
        self.problem = update.problem or update.checkpoints_problem
        if update.streams is not None:
            self.streams = update.streams
        if update.lag_s is not None:
            self.lag_s = update.lag_s
        self.bytes_per_s, self.waiting_bytes = update.bytes_per_s, update.waiting_bytes

    @property
    def run_history(self) -> History:
        """The samples of the run's own stream: what its conditions compare, and its progress."""
        return self.history if self._of_run is None else self._of_run

    def of_stream(self, stream: str) -> "RunPicture":
        """The same run with the samples of a further stream, none of which is read yet."""
        made = RunPicture(self.manifest, stream)
        made.follow(self)
        return made

    def follow(self, run: "RunPicture") -> None:
        """Take over what is known of the run but for its samples."""
        self.manifest, self.streams, self.journal = run.manifest, run.streams, run.journal
        self.liveness, self.heartbeat = run.liveness, run.heartbeat
        self._listed, self._found_bad, self.checkpoints = run._listed, run._found_bad, run.checkpoints
        self.checkpoints_problem = run.checkpoints_problem
        self.problem = run.problem or self._problem
        self.lag_s, self.bytes_per_s, self.waiting_bytes = run.lag_s, run.bytes_per_s, run.waiting_bytes
        self._of_run = run.history

    def apply_stream(self, update: StreamUpdate) -> None:
        """Fold in what was found of the further stream."""
        if update.restarted:
            self.history = History()
            self.backfilled = self.cursor = self.pinned = None
        if update.head and self.history.reference is None:
            first = History()
            first.add(update.head)
            self.history.reference = first.reference
        self.history.add(update.samples)
        self._problem = update.problem
        self.problem = self.problem or update.problem

    def backfill(self, found: Backfill) -> None:
        """Fold in what lies before the part that is shown already."""
        self.backfilled = found.share
        if found.older is not None:
            self.history.prepend(found.older)

    def until(self, moment: Moment, journal: Journal, run_moment: Moment | None = None) -> "RunPicture":
        """As it was at a moment, to look at only; whether the run is alive is told of now.

        Args:
            journal: what had happened by then.
            run_moment: of a picture of a further stream, the moment in the run's own; None where it had no sample yet.
        """
        past = RunPicture(self.manifest, self.stream)
        past.moment, past.pinned, past.run_moment, past.streams = moment, self.pinned, run_moment, self.streams
        past.history, past.journal = self.history.until(moment), journal
        if self._of_run is not None:
            past._of_run = History() if run_moment is None else self._of_run.until(run_moment)
        past.cursor = self.cursor if self.cursor is not None and self.cursor.step <= moment.step else None
        past.liveness = self.liveness
        past._found_bad = self._found_bad
        by_seq = moment if self.stream is None else run_moment
        past.checkpoints = [entry for entry in self.checkpoints if _had_come(entry, moment, by_seq)]
        past.checkpoints_problem, past.problem, past.backfilled = (
            self.checkpoints_problem,
            self.problem,
            self.backfilled,
        )
        return past

    def verified(self, problems: Mapping[str, str]) -> None:
        """Fold in what a verification said of checkpoints, by name; an empty problem is none."""
        self._found_bad.update(problems)
        self.checkpoints = _marked(self._listed, self._found_bad)

    @property
    def name(self) -> str:
        return safe(self.manifest.name or self.manifest.id, 60)

    @property
    def ended(self) -> bool:
        return self.liveness.word in ENDED

    @property
    def paused(self) -> bool:
        return not self.ended and self.heartbeat is not None and self.heartbeat.doing == "pause"

    @property
    def watched(self) -> bool:
        """Whether somebody still judges this run: what the limits said last holds now."""
        return self.moment is not None or self.liveness.word in WATCHED

    def spec(self, metric: str) -> MetricSpec:
        """How a metric is to be shown: as declared later, as the manifest says, or by its bare name.

        In a further stream as the run declares it of that stream (gary2.phi), else as of the run's own.
        """
        if self.stream is not None and (found := self._declared(self.of_run(metric))) is not None:
            label = found.label.removeprefix(f"{self.stream} ")
            return msgspec.structs.replace(found, name=metric, label=label)
        return self._declared(metric) or MetricSpec(name=metric)

    def _declared(self, metric: str) -> MetricSpec | None:
        if self._specs[0] is not self.manifest:
            self._specs = self.manifest, {spec.name: spec for spec in reversed(self.manifest.metrics)}
        return self.journal.specs.get(metric) or self._specs[1].get(metric)

    def of_run(self, metric: str) -> str:
        """What a metric is called in the run's own stream: gary2.phi."""
        return metric if self.stream is None else f"{self.stream}.{metric}"

    def label(self, metric: str) -> str:
        """The short name of a metric: Φ, κ, drift, or as recorded."""
        return _NAMES.get(metric) or safe(metric, 24) or "(no name)"

    def title(self, metric: str) -> str:
        """What stands beside the short name: the manifest's label without repeating it."""
        label = safe(self.spec(metric).label, 40).removeprefix(self.label(metric)).strip()
        return "" if label == metric else label

    def unit(self, metric: str) -> str:
        return unit_text(self.spec(metric).unit)

    @property
    def progress(self) -> Progress:
        step = self.run_history.step
        beat = self.heartbeat
        if beat is not None and beat.step is not None and not self.ended and self.manifest.sessions:
            if beat.session == self.manifest.sessions[-1].id:
                step = beat.step
        step, total = _countable(step), _countable(self.manifest.total_steps) or None
        pace = self.run_history.seconds_per_step
        if pace is None and beat is not None and beat.step_ms_p50 is not None:
            pace = beat.step_ms_p50 / 1e3
        eta = None
        moves = self.moment is None and self.liveness.word in MOVING
        if pace is not None and total is not None and step is not None and moves:
            eta = max(total - step, 0) * pace
        fraction = None if step is None or not total else min(max(step / total, 0.0), 1.0)
        return Progress(step, total, fraction, eta, pace)

    def condition_rows(self) -> list[ConditionRow]:
        """Every condition in the order it was announced, with the newest value of its metric."""
        rows = []
        for condition in self.journal.conditions.values():
            value = self._value(condition)
            rows.append(
                ConditionRow(
                    condition,
                    value,
                    condition.margin(value, (self._declared(condition.metric) or MetricSpec(name="")).range),
                    self.label(condition.metric) if condition.metric else condition.id,
                    unit_text(condition.unit),
                )
            )
        return rows

    def _value(self, condition: Condition) -> float | None:
        """The newest of what a condition compares: a sample's, the heartbeat's, or the one that its event told."""
        if condition.comparison in ("steady", "measured") or condition.statistic:
            return condition.value
        found = self.run_history.latest(condition.metric)
        if found is None and condition.metric == "step_age" and self.heartbeat is not None:
            found = self.heartbeat.last_step_age_s
        return condition.value if found is None else found

    def verdict(self) -> tuple[str, str]:
        """The worst state of any condition as it is shown, and that in words."""
        states = [row.state for row in self.condition_rows()]
        worst = max(states, key=SHOWN.index, default="unarmed")
        return worst, verdict(states, current=self.watched)

    def basin(self) -> BasinView | None:
        """The newest basin, or the one at the cursor, against the reference and the one before it."""
        history = self.history
        known = self.cursor.basins if self.cursor is not None else list(history.basins)[:-3:-1]
        origin = self.pinned or history.reference
        if not known or origin is None:
            return None
        step, values = known[0]
        reference_step, reference = origin
        if reference.shape != values.shape:
            reference_step, reference = step, values
        previous = known[1][1] if len(known) > 1 else None
        if previous is not None and previous.shape != values.shape:
            previous = None
        return BasinView(
            step=step,
            values=values,
            reference_step=reference_step,
            to_reference=values - reference,
            to_previous=None if previous is None else values - previous,
            distance_rad=float(fisher_rao_distance(reference, values)),
            velocity_rad=None if previous is None else float(fisher_rao_distance(previous, values)),
        )

    def phases(self) -> Sequence[Phase]:
        """Every phase of the run, those to come too; none where it has none."""
        return self.journal.phases.all(self.manifest.config)

    def report(self) -> Report | None:
        """What the Ocean of a constellation said last."""
        event = self.journal.report
        if self._report is None or self._report[0] is not event:
            self._report = event, None if event is None else report_of(event)
        return self._report[1]

    def is_well(self) -> bool:
        """Alive, paused included, or ended with 0; and no condition critical."""
        fine = self.watched or (self.liveness.word == Word.EXITED and self.manifest.exit_code == 0)
        return fine and self.journal.worst != "critical"

    @property
    def no_checkpoints(self) -> str:
        """Why the list of the checkpoints is empty, in a few words; "" where it is not."""
        if self.checkpoints:
            return ""
        there_were = any(event.kind == "checkpoint" and event.data.get("name") for event in self.journal.events)
        return "none is there any more" if there_were else "none yet"

    @property
    def went_back(self) -> dict[str, Event]:
        """By name, the checkpoints whose branch the run left again, and the event that tells of it."""
        found = {}
        for event in self.journal.restored:
            for entry in self.checkpoints:
                if event.step is not None and entry.manifest is not None and entry.t < event.t:
                    if entry.manifest.step > event.step:
                        found[entry.name] = event
        return found

    @property
    def tagged(self) -> dict[str, CheckpointEntry]:
        """best, latest and last good among the whole checkpoints, by the core's own ranking."""
        entries = {e.name: e for e in self.checkpoints if e.manifest is not None and not e.problem}
        manifests = [e.manifest for e in entries.values() if e.manifest is not None]
        if not manifests:
            return {}
        left = self.went_back
        found = {
            "latest": latest(manifests),
            "best": best(manifests, *score_rule(self.manifest)),
            "last good": last_good(manifest for manifest in manifests if manifest.name not in left),
        }
        return {tag: entries[m.name] for tag, m in found.items() if m is not None and m.name in entries}


def score_rule(manifest: Manifest) -> tuple[str, bool]:
    """By which metric its checkpoints are ranked, and whether lower is better: as recorded, else as the core does."""
    score, lower = manifest.keep.get("score"), manifest.keep.get("lower_is_better")
    return (score, lower is not False) if isinstance(score, str) and score else (DEFAULT_SCORE, True)


def _had_come(entry: CheckpointEntry, moment: Moment, by_seq: Moment | None) -> bool:
    """Whether a checkpoint was there at a moment: one of its own step was written after its sample.

    Args:
        by_seq: the moment in the run's own stream, whose seq a checkpoint knows.
    """
    seq = None if entry.manifest is None else entry.manifest.seq
    return entry.t <= moment.t if seq is None or by_seq is None else seq <= by_seq.seq


def _countable(steps: int | None) -> int | None:
    """An integer of a file, where it can be reckoned with: JSON's may have any length."""
    return steps if steps is not None and -(1 << 53) < steps < 1 << 53 else None


def _marked(entries: Sequence[CheckpointEntry], found_bad: Mapping[str, str]) -> list[CheckpointEntry]:
    """The entries with what only their digests could tell."""
    return [replace(e, problem=e.problem or found_bad.get(e.name, "")) for e in entries]
