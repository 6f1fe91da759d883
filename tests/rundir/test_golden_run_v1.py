"""A run directory of format 1.0 as it was written once; what it says must be read for ever.

It came to be by the real writer (RunWriter, the checkpoint store) with fabricated measurements, a fixed clock, a fixed
source of random ids and another host's name: a first session with a NaN, an emergency and a rewind, killed within a
record; a second that resumed and ended. It is never edited; a later format adds files or a directory of its own.
"""

import hashlib
import os
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qig_core.rundir.layout import RunDir
from qig_core.rundir.liveness import BeatWatch
from qig_core.rundir.mailbox import read_ack
from qig_core.rundir.printable import printable
from qig_core.rundir.reader import read_all, read_document, read_manifest
from qig_core.rundir.schema import (
    CheckpointManifest,
    Event,
    GitRevision,
    Heartbeat,
    MetricSpec,
    Parent,
    ReferenceLine,
    Sample,
    Scalars,
    Unreadable,
)
from qig_core.rundir.values import decode_basin, encode_basin
from qig_core.rundir.writer import RunWriter

RUN = RunDir(Path(__file__).parent.parent / "data" / "run_v1")
FIRST, SECOND = "91b7584a2265b1f5", "9b810e766ec9d286"
CHECKPOINT = "step-00000050-a6cecc"
FINGERPRINT = "283d71f606ed23d7b5c465347da026679481195c2f977aecdf3925641ba4768c"

FILES = {
    "artifacts/summary.json": "3a5ce1ee78f2146e",
    "checkpoints/step-00000050-a6cecc/manifest.json": "9ff53cce08874109",
    "checkpoints/step-00000050-a6cecc/state.json": "ea59b6ba0adc5635",
    "checkpoints/step-00000050-a6cecc/tags.json": "5971f16c79a4ad78",
    "checkpoints/step-00000050-a6cecc/weights.bin": "58dda328598e2f7f",
    "console.log": "9594c606447c4115",
    "emergencies/63-9c1d.json": "0d6f7231abd4a40d",
    "emergencies/63-9c1d.stacks.txt": "40d22a56f2ceba0c",
    "events.jsonl": "f24cc3728190952a",
    "heartbeat.json": "f300c12d669c6b12",
    "lock": "e3b0c44298fc1c14",
    "mailbox/out/00112233445566778899aabbccddeeff.json": "6cd3bd8cfa63120d",
    "mailbox/out/ffeeddccbbaa99887766554433221100.json": "d3868189c7537de3",
    "notes.md": "5ab28a08df48dfc8",
    "run.json": "5c7db24c730c34f1",
    "telemetry.gary1.jsonl": "519ca4158c5ef611",
    "telemetry.jsonl": "aeb8e806ec2dfc92",
}


def samples() -> list[Sample]:
    return [r for r in read_all(RUN.telemetry(), Sample) if isinstance(r, Sample)]


def events() -> list[Event]:
    found = read_all(RUN.events, Event)
    assert not [r for r in found if isinstance(r, Unreadable)]
    return [r for r in found if isinstance(r, Event)]


@pytest.mark.parametrize("name", FILES)
def test_no_byte_of_it_was_changed(name: str) -> None:
    assert hashlib.sha256((RUN.path / name).read_bytes()).hexdigest()[:16] == FILES[name]


def test_the_manifest_says_this() -> None:
    manifest = read_manifest(RUN)
    assert (manifest.id, manifest.format, manifest.minor) == ("20261201-000000-5eed01", 1, 0)
    assert (manifest.name, manifest.program) == ("first light: Φ over a small corpus", "qig-core train")
    assert (manifest.state, manifest.exit_code, manifest.reason, manifest.total_steps) == ("exited", 0, "", 95)
    assert (manifest.user, manifest.cwd, manifest.threads) == ("ada", "/home/ada/runs", 2)
    assert manifest.config == {
        "seed": 7,
        "steps": 95,
        "optim": {"lr": 0.003, "betas": [0.9, 0.95]},
        "cadence": {"log_every": 1, "measure_every": 5, "checkpoint_every": 25},
        "tracker": {"api_key": "***", "url": "https://ada:***@tracker.example/api"},
        "clip": "inf",
        "eos_token": "</s>",
    }
    assert manifest.metrics[0] == MetricSpec(
        "phi", "", "Φ integration", (0.0, 1.0), [ReferenceLine(0.9, "unstable", "warning")], "band"
    )
    assert [spec.name for spec in manifest.metrics] == ["phi", "loss", "kappa"]
    assert [limit["id"] for limit in manifest.profile["limits"]] == ["nonfinite", "recursion_depth"]
    assert manifest.corpus["digest"] == "b3:6f1e"
    assert manifest.git == GitRevision("41618e1f0c5b2f3a9d7e6c5b4a39281706f5e4d3", False)
    assert manifest.parent == Parent("20261130-181500-0a1b2c", "step-00000400-9f8e7d")
    first, second = manifest.sessions
    assert (first.id, first.pid, first.host, first.start_ticks) == (FIRST, 41210, "atlas", 914213)
    assert (first.ended_t, first.exit_code, first.resumed_from) == (None, None, None)
    assert first.argv == ["qig-core", "train", "--steps", "95", "--api-key=***", "corpus.txt"]
    assert (second.id, second.exit_code, second.resumed_from) == (SECOND, 0, CHECKPOINT)


def test_the_telemetry_says_this() -> None:
    records = read_all(RUN.telemetry(), Sample)
    (torn,) = [r for r in records if isinstance(r, Unreadable)]
    assert (records.index(torn), torn.offset) == (94, 27601)
    assert torn.text == b'{"seq":94,"step":80,"t":1796083210.25,"m":{"loss":1.90'
    found = samples()
    assert [s.seq for s in found] == list(range(140))
    # Up to the NaN, rewound to 50, killed after 79, resumed at 50.
    assert [s.step for s in found] == [*range(64), *range(50, 80), *range(50, 96)]
    assert {s.seq: s.session for s in found if s.session} == {0: FIRST, 94: SECOND}
    assert found[0].t == 1796083200.0510986
    assert found[0].m["loss"] == 5.0
    assert found[-1].m["loss"] == 1.6758817961303414
    assert Counter(s.regime for s in found) == {None: 111, "geometric": 26, "linear": 3}
    bad = found[63]
    assert bad.nonfinite == {"loss": "nan", "grad_norm": "inf", "phi": "-inf"}
    assert [name for name, value in bad.m.items() if value is None] == ["loss", "grad_norm", "phi"]
    assert sum(len(s.nonfinite) for s in found) == 3
    assert set().union(*(s.m for s in found)) == {
        "loss", "loss_heldout", "grad_norm", "lr", "tokens_per_s", "step_ms", "recursion_depth", "phi", "phi_nats",
        "kappa", "drift_birth", "drift_rolling", "drift_velocity", "breakdown_pct", "cpu_pct", "rss_bytes",
    }  # fmt: skip


def test_the_basins_say_this() -> None:
    basins = [s.basin for s in samples() if s.basin is not None]
    assert len(basins) == 29
    first = struct.unpack("<64f", decode_basin(basins[0]))
    assert first[:3] == (0.03336169570684433, 0.03238258138298988, 0.027632031589746475)
    assert sum(first) == 0.999999996740371
    assert all(encode_basin(decode_basin(text)) == text for text in basins)


def test_every_line_is_written_again_as_it_stands() -> None:
    for path, kind in ((RUN.telemetry(), Sample), (RUN.telemetry("gary1"), Sample), (RUN.events, Event)):
        for line in path.read_bytes().splitlines():
            if line.endswith(b"}"):
                assert msgspec.json.encode(msgspec.json.decode(line, type=kind)) == line


def test_scalars_are_the_same_without_the_basin() -> None:
    scalars = [r for r in read_all(RUN.telemetry(), Scalars) if isinstance(r, Scalars)]
    assert [(s.seq, s.m, s.regime, s.nonfinite) for s in scalars] == [
        (s.seq, s.m, s.regime, s.nonfinite) for s in samples()
    ]


def test_a_further_stream_is_found_by_its_file() -> None:
    assert RUN.streams() == ["gary1"]
    found = read_all(RUN.telemetry("gary1"), Sample)
    assert [(s.seq, s.step, s.session, s.m["temperature"]) for s in found if isinstance(s, Sample)] == [
        (0, 20, FIRST, 311.5), (1, 21, None, 311.75)
    ]  # fmt: skip


def test_the_events_say_this() -> None:
    found = events()
    assert [e.seq for e in found] == list(range(28))
    assert [e.kind for e in found] == [
        "start", "condition", "condition", "baseline", "phase", "condition", "condition", "phase", "metrics", "command",
        "command", "command", "checkpoint", "condition", "alert", "emergency", "restored", "condition", "pruned",
        "note", "aurora", "start", "restored", "condition", "command", "command", "command", "end",
    ]  # fmt: skip
    assert [e.session for e in found] == [FIRST] * 21 + [SECOND] * 7
    by_seq: dict[int, dict[str, Any]] = {e.seq: e.data for e in found}
    assert by_seq[0] == {"pid": 41210, "resumed_from": None}
    assert by_seq[8]["specs"] == [{"name": "temperature", "unit": "K", "label": "junction", "range": [0.0, None]}]
    assert by_seq[12] == {"name": CHECKPOINT, "reason": "interval", "fingerprint": FINGERPRINT}
    assert (found[13].severity, found[13].step, by_seq[13]["state"], by_seq[13]["value_text"]) == (
        "critical", 63, "critical", "nan"
    )  # fmt: skip
    assert by_seq[14]["nonfinite"] == {"value": "nan", "others.grad_norm": "inf"}
    assert by_seq[15] == {
        "id": "63-9c1d", "cause": "nonfinite: loss, grad_norm not finite", "checkpoint": None, "exit_code": 75
    }  # fmt: skip
    assert by_seq[16] == {"checkpoint": CHECKPOINT, "fingerprint": FINGERPRINT}
    assert (found[19].stream, printable(by_seq[19]["text"])) == ("gary1", "read\\u202eback \\x1b[31mred\\x1b[0m")
    assert by_seq[20] == {"colour": "green", "deep": {"list": [1, None, 2.5]}}
    assert by_seq[27] == {"exit_code": 0, "reason": ""}


def test_the_heartbeat_the_acks_and_the_emergency_say_this() -> None:
    assert read_document(RUN.heartbeat, Heartbeat) == Heartbeat(
        SECOND, 3, 1796086807.0229425, 58833, 95, 0.027, "stop", 48.75, 49.25
    )
    assert BeatWatch(RUN).look(read_manifest(RUN)).text == "EXITED 0"
    refused, done = read_ack(RUN, "00112233445566778899aabbccddeeff"), read_ack(RUN, "ffeeddccbbaa99887766554433221100")
    assert refused is not None
    assert done is not None
    assert [s.stage for s in refused.stages] == ["seen", "acting", "refused"]
    assert refused.stages[-1].detail == {"reason": "no checkpoint before step 50"}
    assert (done.verb, [s.stage for s in done.stages], done.ended) == (
        "set_log_every",
        ["seen", "acting", "done"],
        True,
    )
    emergency = msgspec.json.decode(RUN.emergency("63-9c1d").read_bytes())
    assert (emergency["step"], emergency["session"], emergency["exit_code"]) == (63, FIRST, 75)
    assert emergency["samples"][-1]["nonfinite"] == {"loss": "nan"}
    assert RUN.emergency_stacks("63-9c1d").read_text().startswith("Current thread")
    assert RUN.notes.read_text().startswith("# Notes")


def test_the_checkpoint_says_this() -> None:
    manifest = read_document(RUN.checkpoint_manifest(CHECKPOINT), CheckpointManifest)
    assert (manifest.name, manifest.step, manifest.seq, manifest.reason) == (CHECKPOINT, 50, 49, "interval")
    assert (manifest.session, manifest.fingerprint) == (FIRST, FINGERPRINT)
    assert [(f.path, f.size) for f in manifest.files] == [("weights.bin", 64), ("state.json", 15)]
    assert manifest.metrics["phi"] == 0.6353980812559239
    assert manifest.conditions == {"nonfinite": "ok", "recursion_depth": "ok"}
    for file in manifest.files:
        assert (RUN.checkpoint(CHECKPOINT) / file.path).stat().st_size == file.size
    payload = (RUN.checkpoint(CHECKPOINT) / "weights.bin").read_bytes()
    assert struct.unpack("<16f", payload) == tuple(float(n) for n in range(16))
    assert msgspec.json.decode(RUN.checkpoint_tags(CHECKPOINT).read_bytes()) == {"tags": ["pinned"]}


def test_the_writer_of_today_goes_on_with_it(tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(RUN.path, copy.path)
    for folder in (copy.mailbox, copy.mailbox_out):
        os.chmod(folder, 0o700)
    with RunWriter.reopen(copy, resumed_from=CHECKPOINT) as writer:
        assert writer.telemetry.log(51, {"loss": 2.5}) == 140
        assert writer.stream("gary1").log(51, {"phi": 0.5}) == 2
    assert len(read_manifest(copy).sessions) == 3
    assert [e.seq for e in read_all(copy.events, Event) if isinstance(e, Event)] == list(range(30))
    assert copy.telemetry().read_bytes().startswith(RUN.telemetry().read_bytes())
