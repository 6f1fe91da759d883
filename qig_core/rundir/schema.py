"""The records of a run directory, format 1, as typed structures. No disk, no clock.

One encoder and one decoder for each record stand here; nothing else in the packages spells a key of the format.
Numbers that are not finite never reach JSON: they are `null` in their place and named in `nonfinite`.
"""

import binascii
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

FORMAT = 1
"""The major format. A reader refuses a higher one and ignores keys that it does not know."""

FORMAT_MINOR = 0

MAX_LINE_BYTES = 1 << 24
"""A record line that is longer is neither written nor read."""

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

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HEX32 = re.compile(r"[0-9a-f]{32}")


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
    """step | eval | save | pause | start | stop"""
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


class FileEntry(msgspec.Struct):
    """A payload file of a checkpoint."""

    path: str
    size: int
    blake3: str


class CheckpointManifest(msgspec.Struct):
    """checkpoints/NAME/manifest.json: the commit marker, and everything known at that moment."""

    name: str
    run: str
    session: str
    step: int
    t: float
    reason: str
    """interval | command | emergency | end | best"""
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
    recursion_depth: float | None = None
    breakdown_pct: float | None = None
    grad_norm: float | None = None
    lr: float | None = None
    tokens_per_s: float | None = None
    step_ms: float | None = None
    cpu_pct: float | None = None
    rss_bytes: float | None = None
    gpu_util_pct: float | None = None
    gpu_mem_bytes: float | None = None

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


def kind_of_nonfinite(value: float) -> str:
    """ "nan", "inf" or "-inf" for a float that is not finite."""
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def split_nonfinite(metrics: Mapping[str, float]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Metrics as they go into a record: values that are not finite become None, their kind is named beside them."""
    finite: dict[str, float | None] = {}
    nonfinite: dict[str, str] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        if math.isfinite(number):
            finite[name] = number
        else:
            finite[name] = None
            nonfinite[name] = kind_of_nonfinite(number)
    return finite, nonfinite


def encode_basin(little_endian_float32: bytes) -> str:
    """The record's form of a basin; the caller converts (`array.astype("<f4").tobytes()`).

    Raises:
        ValueError: not a whole number of float32.
    """
    if len(little_endian_float32) % 4:
        raise ValueError(f"a basin of {len(little_endian_float32)} bytes is not a whole number of float32")
    return binascii.b2a_base64(little_endian_float32, newline=False).decode("ascii")


def decode_basin(text: str) -> bytes:
    """Little-endian float32 bytes of a recorded basin.

    Raises:
        ValueError: not base64, or not a whole number of float32.
    """
    raw = binascii.a2b_base64(text, strict_mode=True)
    if len(raw) % 4:
        raise ValueError(f"a basin of {len(raw)} bytes is not a whole number of float32")
    return raw


def is_run_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_command_id(text: str) -> bool:
    return _HEX32.fullmatch(text) is not None


def plain(value: Any) -> Any:
    """The encoders' hook for what JSON does not know: arrays and their scalars as numbers, paths as text.

    Raises:
        TypeError: nothing that a record could hold.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    # numpy's and torch's scalars, numpy.float64 among them, and their arrays.
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    raise TypeError(f"a {type(value).__name__} has no place in a record")


def name_nonfinite(data: Mapping[str, Any]) -> dict[str, Any]:
    """An event's data as it may be recorded: as in a Sample, a number that is not finite becomes None.

    Its kind stands in `nonfinite` under the way to it, joined by dots: {"value": None, "nonfinite": {"value": "nan"}}.
    """
    kinds: dict[str, str] = {}
    out = {key: _named(value, str(key), kinds) for key, value in data.items()}
    if kinds:
        known = out.get("nonfinite")
        out["nonfinite"] = {**(known if isinstance(known, dict) else {}), **kinds}
    return out


def _named(value: Any, where: str, kinds: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(each, f"{where}.{key}", kinds) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(each, f"{where}.{i}", kinds) for i, each in enumerate(value)]
    if callable(tolist := getattr(value, "tolist", None)):
        return _named(tolist(), where, kinds)
    if isinstance(value, float) and not math.isfinite(value):
        kinds[where] = kind_of_nonfinite(value)
        return None
    return value


def without_surrogates(value: Any) -> Any:
    """A plain structure whose text can be written as UTF-8: a lone surrogate (an odd file name) as its escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_surrogates(each) for each in value]
    return value


def foreign_line(line: bytes) -> dict[str, Any]:
    """A record line with bare NaN or Infinity, or a number beyond float64, by way of the stdlib.

    Raises:
        ValueError: not a JSON object in UTF-8, or its time is not finite.
        RecursionError: nested without end.
    """
    record = json.loads(line.decode("utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}, not an object")
    # An escaped lone surrogate would be text that no encoder writes again.
    json.dumps(record, ensure_ascii=False).encode("utf-8")
    t = record.get("t")
    if isinstance(t, float) and not math.isfinite(t):
        raise ValueError("its time is not finite")
    metrics = record.get("m")
    if isinstance(metrics, dict):
        named = record.setdefault("nonfinite", {})
        for name, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                metrics[name] = None
                if isinstance(named, dict):
                    named[name] = kind_of_nonfinite(value)
    data = record.get("data")
    if isinstance(data, dict):
        record["data"] = name_nonfinite(data)
    return record
