"""The records of a run directory, format 1, as typed structures. No disk, no clock.

One encoder and one decoder for each record stand here; nothing else in the packages spells a key of the format.
Numbers that are not finite never reach JSON: they are `null` in their place and named in `nonfinite`.
"""

from typing import Any, Literal

import msgspec

FORMAT = 1
"""The major format. A reader refuses a higher one and ignores keys that it does not know."""

FORMAT_MINOR = 4
"""1: `restored` says how, `soft_reset` events, a `condition` event may hold the window that fired it.
2: `keep` in run.json, `tagged` events, `sha256` of a checkpoint's file, a seal in tags.json.
3: `upto` of a reference line: a band; `statistic` of a `condition` event.
4: guards of a `phase` event are objects; `generated`, `ocean`, `intervention` events; checkpoints of reason phase."""

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")

VERBS = (
    "abort",
    "checkpoint",
    "pause",
    "resume",
    "soft_reset",
    "restore",
    "pin",
    "unpin",
    "tag",
    "prune",
    "set_log_every",
)


class Sample(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of telemetry: what was measured at one step. Holds numbers and text only, so that no cycle can form."""

    seq: int
    """Increases within the file; the order of samples is by seq, never by t or step."""
    step: int
    """May go back: a rewind or a resume starts a new segment."""
    t: float
    """Unix seconds on the writer's clock."""
    session: str | None = None
    m: dict[str, float | None] = {}
    """Metric name to value; null where the value was not finite, absent where it was not measured."""
    basin: str | None = None
    """Base64 of little-endian float32, 64 of them; see `decode_basin`."""
    regime: str | None = None
    nonfinite: dict[str, str] = {}
    """Metric name to "nan", "inf" or "-inf"."""


class Scalars(msgspec.Struct, omit_defaults=True, gc=False):
    """A Sample without its basin: what a chart needs, decoded at a third of the cost."""

    seq: int
    step: int
    t: float
    m: dict[str, float | None] = {}
    regime: str | None = None
    nonfinite: dict[str, str] = {}


class Event(msgspec.Struct, omit_defaults=True):
    """One line of events.jsonl: something that happened. Unknown kinds are shown as they are."""

    seq: int
    t: float
    kind: str
    step: int | None = None
    session: str | None = None
    severity: str = "info"
    stream: str | None = None
    data: dict[str, Any] = {}


class ReferenceLine(msgspec.Struct, omit_defaults=True):
    """A horizontal line on a chart, for the eye only: no limit is read from it."""

    value: float
    label: str
    severity: str = "info"
    upto: float | None = None
    """Where it is a band of values: its upper edge, `value` being the lower one."""


class MetricSpec(msgspec.Struct, omit_defaults=True):
    """How a metric is to be shown."""

    name: str
    unit: str = ""
    label: str = ""
    range: tuple[float | None, float | None] | None = None
    """The values that are possible, not the ones expected; None where unbounded."""
    references: list[ReferenceLine] = []
    better: Literal["higher", "lower", "band"] | None = None


class SessionRecord(msgspec.Struct, omit_defaults=True):
    """One process that wrote this run."""

    id: str
    t: float
    pid: int
    host: str
    boot_id: str | None = None
    start_ticks: int | None = None
    argv: list[str] = []
    resumed_from: str | None = None
    ended_t: float | None = None
    exit_code: int | None = None


class Parent(msgspec.Struct, omit_defaults=True):
    """Where a fork came from."""

    run: str
    checkpoint: str | None = None


class GitRevision(msgspec.Struct):
    revision: str
    dirty: bool


class Manifest(msgspec.Struct):
    """run.json: who runs what, where, and how it ended. Replaced only at start, resume and end."""

    id: str
    format: int = FORMAT
    minor: int = FORMAT_MINOR
    name: str = ""
    """Display text, never a path."""
    program: str = ""
    created_t: float = 0.0
    cwd: str = ""
    user: str = ""
    state: Literal["running", "exited"] = "running"
    exit_code: int | None = None
    ended_t: float | None = None
    reason: str = ""
    total_steps: int | None = None
    streams: list[str] = []
    """Further streams beside telemetry.jsonl, by name."""
    config: dict[str, Any] = {}
    """Verbatim, secret-looking values as "***"."""
    metrics: list[MetricSpec] = []
    profile: dict[str, Any] = {}
    corpus: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    """What phi, kappa and the basin are measured on: digests and the parameters they are comparable at."""
    versions: dict[str, str] = {}
    git: GitRevision | None = None
    threads: int | None = None
    parent: Parent | None = None
    sessions: list[SessionRecord] = []
    keep: dict[str, Any] = {}
    """By which rule its checkpoints are pruned and ranked: newest, best, score, lower_is_better; empty: by none."""


class Heartbeat(msgspec.Struct, omit_defaults=True):
    """heartbeat.json: the facts from which a reader judges whether the run is alive."""

    session: str
    beat: int
    t: float
    pid: int
    step: int | None = None
    last_step_age_s: float | None = None
    """Since the last step, a pause not counted; None before the first."""
    doing: str = "start"
    """step | eval | save | pause | restore | start | stop"""
    step_ms_p50: float | None = None
    step_ms_p99: float | None = None


class Command(msgspec.Struct, omit_defaults=True):
    """mailbox/in/ID.json: something asked of the trainer."""

    id: str
    session: str
    verb: str
    t: float
    ttl_s: float = 120.0
    """Counts on the trainer's clock from the moment the command was seen."""
    by: str = ""
    """user@host, a label for people; never trusted."""
    args: dict[str, Any] = {}


class Stage(msgspec.Struct, omit_defaults=True):
    """One stage of an acknowledgement: seen, acting, checkpoint, stopped, done or refused."""

    stage: str
    t: float
    step: int | None = None
    detail: dict[str, Any] = {}


class Ack(msgspec.Struct, omit_defaults=True):
    """mailbox/out/ID.json: how far a command has come."""

    id: str
    session: str
    verb: str
    stages: list[Stage] = []

    @property
    def last(self) -> Stage | None:
        return self.stages[-1] if self.stages else None

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.stage in ("done", "refused", "stopped")


PINNED = "pinned"
"""The tag that keeps a checkpoint until it is taken away."""


class FileEntry(msgspec.Struct, omit_defaults=True):
    """A payload file of a checkpoint."""

    path: str
    size: int
    blake3: str
    sha256: str | None = None
    """Where it was asked for."""


class CheckpointManifest(msgspec.Struct):
    """checkpoints/NAME/manifest.json: the commit marker, and everything known at that moment."""

    name: str
    run: str
    session: str
    step: int
    t: float
    reason: str
    """interval | command | emergency | end | best | phase"""
    files: list[FileEntry]
    fingerprint: str
    """blake3 over the payload's names, sizes and digests: what a restore is confirmed with."""
    format: int = FORMAT
    metrics: dict[str, float | None] = {}
    """The latest value of every metric, not only of this step."""
    nonfinite: dict[str, str] = {}
    basin: str | None = None
    regime: str | None = None
    conditions: dict[str, str] = {}
    """Condition id to unarmed | ok | warning | critical at this step."""
    seq: int | None = None
    """Seq of the last telemetry record before the checkpoint."""
    data_position: dict[str, Any] = {}
    training_s: float | None = None
    config_digest: str = ""
    corpus_digest: str = ""
    parent: str | None = None
    """The checkpoint that this session was restored from."""
    versions: dict[str, str] = {}
    git: GitRevision | None = None


class ConsciousnessTelemetry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The field's named metrics as one typed record; None is "not measured at this step".

    Units: loss in nats a token, phi a score in [0, 1), phi_nats in nats, kappa in 1/rad, drifts in rad (Fisher–Rao),
    recursion_depth in passes, breakdown_pct and cpu_pct in percent, step_ms in milliseconds, memory in bytes.
    """

    loss: float | None = None
    loss_heldout: float | None = None
    phi: float | None = None
    phi_nats: float | None = None
    kappa: float | None = None
    drift_birth: float | None = None
    drift_rolling: float | None = None
    drift_velocity: float | None = None
    drift_acceleration: float | None = None
    coherence: float | None = None
    recursion_depth: float | None = None
    breakdown_pct: float | None = None
    grad_norm: float | None = None
    lr: float | None = None
    tokens: float | None = None
    """Trained on so far, over all sessions of the branch."""
    tokens_per_s: float | None = None
    step_ms: float | None = None
    cpu_pct: float | None = None
    rss_bytes: float | None = None
    gpu_util_pct: float | None = None
    gpu_mem_bytes: float | None = None
    gpu_mem_pct: float | None = None

    def metrics(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class Unreadable(msgspec.Struct):
    """A line that is no record: counted and shown, never an exception."""

    path: str
    offset: int
    reason: str
    text: bytes
    """The first 200 bytes, as they stand in the file."""
