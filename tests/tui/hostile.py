"""A corpus of run directories that nobody should have: each one evil in its own way. Bytes on a disk, nothing else.

They are not made by our writer: it would refuse to. What a foreign, broken or malicious one may leave is spelled here.
"""

import base64
import json
import os
import struct
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

Make = Callable[[Path], None]
EVIL: dict[str, Make] = {}
"""How each directory is filled, by its name."""
REFUSED: set[str] = set()
"""Of which nothing can be shown: a sentence says why."""
HEAVY: set[str] = set()
"""Large enough to be opened only once by a test."""

DIGITS = int("9" * 400)
"""Beyond float64, and legal JSON."""
BIG = 10**30
NAN, INF = float("nan"), float("inf")

MARKUP = "[bold red]x[/] [link='file:///etc/passwd']l[/link] [@click=app.bell]c[/] [/]"
TEXTS = {
    "markup": MARKUP,
    "ansi": "\x1b[31mred\x1b[0m\x1b[2J\x1b[H",
    "osc-csi-bel": "\x1b]0;title\x07\x1b]52;c;QUJD\x07\x1b[?1049l\x1bc\x07\x08\x7f",
    "c1": "\x9b31m\x9d0;t\x9c\x85\x90q\x9c",
    "bidi": "a\u202egnp.exe\u202c\u2066b\u2069\u200e\u200f\u061c",
    "zero-width": "a\u200db\u200bc\ufeffd\u2060e\u00adf\u034fg\u115fh",
    "cjk": "學習率が高すぎる한국어" * 4,
    "emoji": "👩\u200d👩\u200d👧\u200d👦❤\ufe0f🏳\ufe0f\u200d🌈👍🏽🇩🇪1\ufe0f\u20e3",
    "combining": "Z\u0351\u036b\u0343\u036a" * 8 + "\u0301\u20dd नि क्षि ปั้ำ",
    "whitespace": "a\tb\nc\rd\ve\ff\u2028g\u2029h\u3000i\u00a0j\x1c",
    "nul": "a\x00b\x00",
    "odd-planes": "\ue000\U000f0000\uffff\U0010ffff\U000e0041\ufffd\u0378",
    "long": "x" * 10_000,
    "long-wide": "測" * 10_000,
    "empty": "",
}
"""Each stands in every text field of a run of its own."""


def evil(name: str, *, refused: bool = False, heavy: bool = False) -> Callable[[Make], Make]:
    """Register how a directory is filled."""

    def register(make: Make) -> Make:
        EVIL[name] = make
        if refused:
            REFUSED.add(name)
        if heavy:
            HEAVY.add(name)
        return make

    return register


def corpus(root: Path, only: Collection[str] | None = None) -> list[Path]:
    """Make the directories, or those of some names, under `root`."""
    made = []
    for name, make in EVIL.items():
        if only is None or name in only:
            path = root / name
            path.mkdir(parents=True)
            make(path)
            made.append(path)
    return made


def manifest(path: Path, **changes: Any) -> None:
    """A run.json that has ended well, but for the changes."""
    known: dict[str, Any] = {
        "format": 1,
        "minor": 2,
        "id": path.name,
        "name": path.name,
        "program": "somebody else's",
        "created_t": 1.0e9,
        "state": "exited",
        "exit_code": 0,
        "total_steps": 1000,
        "metrics": [{"name": "phi", "range": [0.0, 1.0]}, {"name": "kappa", "unit": "1/rad"}],
        "sessions": [session()],
    }
    document(path / "run.json", known | changes)


def session(**changes: Any) -> dict[str, Any]:
    return {"id": "0123456789abcdef", "t": 1.0e9, "pid": 7, "host": "elsewhere"} | changes


def running(path: Path, *, beat: dict[str, Any] | None = None, **changes: Any) -> None:
    """A manifest of a run that goes on, on another host, with a heartbeat."""
    manifest(path, **({"state": "running", "exit_code": None} | changes))
    known = {"session": "0123456789abcdef", "beat": 5, "t": time.time(), "pid": 7, "step": 50, "last_step_age_s": 0.1}
    document(path / "heartbeat.json", known | {"doing": "step"} | (beat or {}))


def document(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def lines(path: Path, *records: Any) -> None:
    """Append records, one a line; bytes as they are."""
    with open(path, "ab") as file:
        for record in records:
            file.write(record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n")


def samples(path: Path, *records: Any) -> None:
    lines(path / "telemetry.jsonl", *records)


def samples_of(path: Path, stream: str, *records: Any) -> None:
    lines(path / f"telemetry.{stream}.jsonl", *records)


def events(path: Path, *records: Any) -> None:
    lines(path / "events.jsonl", *records)


def sample(seq: Any, m: Any = None, **changes: Any) -> dict[str, Any]:
    known = {"seq": seq, "step": seq, "t": 1.0e9 + (seq if isinstance(seq, int) and abs(seq) < 1e9 else 0)}
    return known | {"m": {"phi": 0.5} if m is None else m} | changes


def event(seq: Any, kind: Any, data: Any = None, **changes: Any) -> dict[str, Any]:
    return {"seq": seq, "t": 1.0e9, "step": seq, "kind": kind, "data": {} if data is None else data} | changes


def basin(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def condition(seq: int, **data: Any) -> dict[str, Any]:
    known = {"id": "drift", "metric": "phi", "comparison": "<=", "limit": 0.6, "unit": "rad", "value": 0.5}
    return event(seq, "condition", known | {"state": "ok", "since_step": 0, "dwell": 3, "cause": []} | data)


def checkpoint(path: Path, name: str, /, **changes: Any) -> None:
    """A checkpoint of one small file; what `changes` is None for is left out."""
    folder = path / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"12345")
    known: dict[str, Any] = {
        "name": name,
        "run": path.name,
        "session": "0123456789abcdef",
        "step": 10,
        "t": 1.0e9,
        "reason": "interval",
        "files": [{"path": "model.bin", "size": 5, "blake3": "0" * 64}],
        "fingerprint": "f" * 64,
        "metrics": {"phi": 0.7},
    }
    tags = changes.pop("tags", None)
    document(folder / "manifest.json", known | changes)
    if tags is not None:
        document(folder / "tags.json", tags)


def ordinary(path: Path, count: int = 40) -> None:
    """What a healthy run would have."""
    samples(path, *[sample(i, {"phi": 0.5 + i / 100, "kappa": 60.0 - i}) for i in range(count)])


# Text in every field.


def in_every_field(path: Path, text: str) -> None:
    reference = {"value": 0.5, "label": text, "severity": text}
    spec = {"unit": text, "label": text, "references": [reference, reference], "range": [0.0, 1.0]}
    running(
        path,
        beat={"doing": text, "last_step_age_s": 5.0},
        name=text,
        program=text,
        cwd=text,
        user=text,
        reason=text,
        metrics=[{"name": "phi", **spec}, {"name": text or "t", **spec}],
        config={text: text, "cadence": {"log_every": text}},
        versions={text: text},
        sessions=[session(argv=[text, text])],
        streams=[text],
        keep={"score": text},
    )
    samples(path, *[sample(i, {"phi": 0.5, text: i * 1.0, text + "2": 1.0}, regime=text) for i in range(30)])
    samples(path, sample(30, {text: None, "phi": None}, nonfinite={text: text, "phi": "inf"}, session=text))
    said = {"state": text, "id": text, "metric": text, "comparison": text, "unit": text, "dwell": text}
    alarm = {"id": text + "a", "metric": text, "unit": text, "cause": [text, text, text], "doing": text, "stacks": text}
    everything = {
        key: text
        for key in "id name reason verb stage how checkpoint fingerprint text message cause error exit_code pid".split()
    }
    events(
        path,
        event(0, "start", {"pid": 7, "resumed_from": text}),
        condition(1, **said),
        condition(2, state="critical", **alarm),
        condition(3, **alarm | {"state": "warning", "comparison": "finite", "id": text + "b"}),
        condition(4, **alarm | {"state": "warning", "comparison": "steady", "id": text + "c"}),
        *[
            event(5 + i, kind, everything, severity=text, stream=text)
            for i, kind in enumerate(
                "checkpoint command restored soft_reset end start emergency metrics note alert tagged phase".split()
            )
        ],
        event(30, text, {text: text, text + "2": [text], text + "3": {text: text}}, severity="critical", session=text),
        event(31, "metrics", {"specs": [{"name": text, **spec}]}),
        *programs(text),
        condition(32, **alarm | {"state": "critical", "id": text + "d"}),
    )
    checkpoint(path, "step-00000010", reason=text, regime=text, tags={"tags": [text, text]}, conditions={text: text})
    checkpoint(path, "a-name", files=[{"path": text, "size": 5, "blake3": text}], fingerprint=text, metrics={text: 1.0})
    emergencies = path / "emergencies"
    emergencies.mkdir()
    document(emergencies / "e1.json", {"id": text, "cause": text, text: [text]})


def programs(text: str) -> list[dict[str, Any]]:
    """What a program of several phases or kernels would tell."""
    guard = {key: text for key in "id label comparison unit state reason".split()} | {"limit": 0.5, "value": 0.1}
    phase = {"name": text, "index": 2, "of": 3, "reason": text, "since_step": 0, "latest_step": 40}
    gary = {"name": text, "role": text, "phi": 0.5, "flags": [text, text]}
    advice = {key: text for key in "verb gary rung text".split()}
    evidence = {"metric": text, "comparison": text, "unit": text, "value": 1.0, "limit": 0.5}
    bound = {"name": text, "unit": text, "value": 1.0, "limit": 0.5}
    done = {
        "verb": text,
        "gary": text,
        "by": text,
        "reason": text,
        "bound": bound,
        "before": {text: 1.0},
        "undone": True,
    }
    report = {"garys": [gary, gary], "recommendations": [advice | {"evidence": [evidence]}], "digest": text}
    report |= {"reasons": {f"{text}.phi": text, "modes": text}, "distances": [[0.0, 0.1], [0.1, 0.0]], "floor_rad": 0.2}
    return [
        event(33, "phase", phase | {"state": "judged", "guards": [guard, guard | {"state": "failed", "value": None}]}),
        event(34, "phase", phase | {"state": "failed", "index": 3, "guards": [guard | {"state": "unknown"}]}),
        event(35, "ocean", report),
        event(36, "intervention", done),
        event(37, "generated", {"prompt": text, "text": text}),
    ]


def _register_texts() -> None:
    for key, text in TEXTS.items():
        evil(f"text-{key}")(lambda path, text=text: in_every_field(path, text))  # type: ignore[misc]  # a bound value


_register_texts()


@evil("text-surrogate")
def _(path: Path) -> None:
    manifest(path)
    samples(path, b'{"seq":0,"step":0,"t":1.0,"m":{"\\ud800":1.0,"phi":0.5}}\n', sample(1), b'{"seq":2,"\\udfff":1}\n')
    events(path, event(0, "note", {"text": "\ud800\udc00 \udfff"}), b'{"seq":1,"t":1.0,"kind":"\\ud834"}\n')


@evil("text-surrogate-manifest", refused=True)
def _(path: Path) -> None:
    manifest(path, name="\ud800")


# Numbers.


@evil("values-odd")
def _(path: Path) -> None:
    manifest(path)
    odd = [NAN, INF, -INF, 1e308, -1e308, 5e-324, -5e-324, 0.0, -0.0, 1.0]
    samples(path, *[sample(i, {"phi": odd[i % 10], "kappa": odd[(i * 7 + 3) % 10]}) for i in range(200)])


@evil("values-odd-named")
def _(path: Path) -> None:
    manifest(path)
    kinds = ["nan", "inf", "-inf", "odd"]
    samples(path, *[sample(i, {"phi": None}, nonfinite={"phi": kinds[i % 4]}) for i in range(50)])


@evil("values-not-positive")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, {"phi": -float(i), "kappa": 0.0, "loss": -1e308, "lr": -5e-324}) for i in range(100)])


@evil("values-huge")
def _(path: Path) -> None:
    manifest(path, total_steps=10)
    samples(
        path, *[sample(i, {"phi": (-1) ** i * 1e308, "kappa": 10.0 ** (i % 308), "loss": 1e308}) for i in range(99)]
    )


@evil("values-tiny")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, {"phi": 5e-324 * i, "kappa": 1e-310, "loss": 1.0 + i * 2e-16}) for i in range(99)])


@evil("values-constant")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, {"phi": 0.5, "kappa": 1e15, "loss": 0.0}) for i in range(99)])


@evil("values-beyond-float")
def _(path: Path) -> None:
    manifest(path)
    samples(path, sample(0), sample(1, {"phi": DIGITS}), sample(2, {"phi": -DIGITS}), sample(3, {"phi": BIG}))
    samples(path, b'{"seq":4,"step":4,"t":4.0,"m":{"phi":1e999,"kappa":-1e999}}\n')
    samples(path, b'{"seq":5,"step":5,"t":5.0,"m":{"phi":' + b"9" * 5000 + b"}}\n")


@evil("seq-huge-and-back")
def _(path: Path) -> None:
    manifest(path)
    samples(path, sample(0, {"phi": 0.5}, step=5), sample(BIG, {"phi": 0.6}, step=3), sample(2, {"phi": 0.7}))


@evil("sample-single")
def _(path: Path) -> None:
    manifest(path)
    samples(path, sample(0))


@evil("steps-odd")
def _(path: Path) -> None:
    manifest(path, total_steps=-5)
    steps = [-5, -1, 0, 10**15, 10**15 + 1, -(10**18), 2**62 - 1, -(2**62) + 1, 2**62, 2**63, BIG, DIGITS, 3]
    samples(path, *[sample(i, step=step) for i, step in enumerate(steps)])


@evil("steps-jumping")
def _(path: Path) -> None:
    manifest(path, total_steps=10**18)
    samples(path, *[sample(i, step=i * 10**15) for i in range(100)])


@evil("steps-wide")
def _(path: Path) -> None:
    manifest(path)
    samples(path, sample(0, step=-(2**62) + 1), sample(1, step=2**62 - 1), sample(2, step=0))


@evil("seq-odd")
def _(path: Path) -> None:
    manifest(path)
    order = [5, 4, 3, 6, 6, 6, -1, 0, 7, BIG, BIG, 8, DIGITS, 9]
    samples(path, *[sample(seq, step=i) for i, seq in enumerate(order)])
    events(path, *[event(seq, "note", {"text": "n"}, step=seq) for seq in order])


@evil("rewinds")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, step=i % 3, m={"phi": i % 7 / 7, "kappa": float(i)}) for i in range(9000)])
    restored = {"checkpoint": "step-00000001", "fingerprint": "f" * 64}
    events(path, *[event(i, "restored", restored, step=i % 3) for i in range(500)])
    checkpoint(path, "step-00000001", step=1)


@evil("times-odd")
def _(path: Path) -> None:
    running(path, beat={"t": 1e300, "last_step_age_s": -1e308, "step_ms_p50": 1e308, "step_ms_p99": -5.0})
    times: list[Any] = [1e300, -1e300, 1e308, -1e308, -1.0, 0.0, NAN, INF, 1e18, DIGITS, 2**63]
    samples(path, *[sample(i, t=t) for i, t in enumerate(times)])
    events(path, *[event(i, "note", {"text": "n"}, t=t) for i, t in enumerate(times)])


@evil("pace-infinite")
def _(path: Path) -> None:
    running(path, total_steps=60)
    samples(path, sample(0, t=-1.7e308), sample(1, t=1.7e308))


@evil("schema-drift")
def _(path: Path) -> None:
    manifest(path, metrics=[])
    samples(path, *[sample(i, {f"m{i % 13}": i * 1.0, f"n{i}": 1.0} if i % 5 else {}) for i in range(240)])


@evil("metrics-300")
def _(path: Path) -> None:
    manifest(path, metrics=[{"name": f"m{j}"} for j in range(400)])
    samples(path, *[sample(i, {f"m{j}": float(i * j) for j in range(300)}) for i in range(20)])


@evil("references-odd")
def _(path: Path) -> None:
    values = [1e308, -1e308, 0.5, 0.0, 5e-324, DIGITS // 10**100]
    references = [{"value": v, "label": f"v{i}", "severity": "odd"} for i, v in enumerate(values)]
    specs = [
        {"name": "phi", "references": references * 50, "range": [1.0, 0.0], "better": "lower"},
        {"name": "kappa", "references": references, "range": [-1e308, 1e308]},
        {"name": "loss", "range": [0.0, 0.0]},
        {"name": "lr", "range": [None, None]},
        {"name": "phi"},
    ]
    manifest(path, metrics=specs)
    samples(path, *[sample(i, {"phi": i / 40, "kappa": 1e308, "loss": 0.0, "lr": 1e-9}) for i in range(40)])


@evil("references-not-finite", refused=True)
def _(path: Path) -> None:
    manifest(path, metrics=[{"name": "phi", "references": [{"value": NAN, "label": "n"}], "range": [NAN, INF]}])


@evil("total-zero")
def _(path: Path) -> None:
    running(path, total_steps=0)
    ordinary(path)


@evil("total-huge")
def _(path: Path) -> None:
    running(path, total_steps=DIGITS)
    ordinary(path)


@evil("exit-code-odd")
def _(path: Path) -> None:
    manifest(path, exit_code=DIGITS, ended_t=1e300, created_t=-1e300)
    ordinary(path)


# Beats and sessions.


@evil("heartbeat-future")
def _(path: Path) -> None:
    running(path, beat={"t": 4e9, "beat": BIG, "step": DIGITS, "pid": BIG, "last_step_age_s": 1e308, "doing": "eval"})
    ordinary(path)


@evil("heartbeat-behind")
def _(path: Path) -> None:
    running(path, beat={"t": -1e308, "step": -DIGITS, "step_ms_p50": 0.0}, sessions=[session(t=1e308)])


@evil("heartbeat-wrong-types")
def _(path: Path) -> None:
    running(path, beat={"session": 5, "beat": "five", "t": None})
    ordinary(path)


@evil("heartbeat-absent")
def _(path: Path) -> None:
    running(path)
    (path / "heartbeat.json").unlink()
    ordinary(path)


@evil("heartbeat-fifo")
def _(path: Path) -> None:
    running(path)
    (path / "heartbeat.json").unlink()
    os.mkfifo(path / "heartbeat.json")


@evil("sessions-odd")
def _(path: Path) -> None:
    here = {"host": os.uname().nodename, "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    pids = [-1, 0, 1, BIG, -BIG]
    running(path, sessions=[session(id=f"{i:016x}", pid=pid, start_ticks=BIG, **here) for i, pid in enumerate(pids)])


@evil("sessions-none")
def _(path: Path) -> None:
    running(path, sessions=[])
    ordinary(path)


# Files that are something else.


@evil("files-empty")
def _(path: Path) -> None:
    manifest(path)
    for name in ("telemetry.jsonl", "events.jsonl", "heartbeat.json"):
        (path / name).touch()
    (path / "checkpoints").mkdir()


@evil("files-none")
def _(path: Path) -> None:
    manifest(path)


@evil("manifest-empty", refused=True)
def _(path: Path) -> None:
    (path / "run.json").touch()


@evil("manifest-fifo", refused=True)
def _(path: Path) -> None:
    os.mkfifo(path / "run.json")


@evil("manifest-folder", refused=True)
def _(path: Path) -> None:
    (path / "run.json").mkdir()


@evil("manifest-loop", refused=True)
def _(path: Path) -> None:
    (path / "run.json").symlink_to(path / "run.json")


@evil("manifest-device", refused=True)
def _(path: Path) -> None:
    (path / "run.json").symlink_to("/dev/zero")


@evil("manifest-endless", refused=True)
def _(path: Path) -> None:
    (path / "run.json").touch()
    os.truncate(path / "run.json", 1 << 40)


@evil("manifest-deep", refused=True)
def _(path: Path) -> None:
    (path / "run.json").write_text('{"id":"a","config":' + "[" * 100_000 + "]" * 100_000 + "}")


@evil("manifest-not-utf8", refused=True)
def _(path: Path) -> None:
    (path / "run.json").write_bytes(b'{"id":"a","name":"\xff\xc3("}')


@evil("manifest-list", refused=True)
def _(path: Path) -> None:
    document(path / "run.json", [1, 2, 3])


@evil("manifest-wrong-types", refused=True)
def _(path: Path) -> None:
    document(path / "run.json", {"id": 5, "format": 1, "name": [], "metrics": "all", "sessions": {"a": 1}})


@evil("manifest-newer", refused=True)
def _(path: Path) -> None:
    document(path / "run.json", {"format": DIGITS, "name": MARKUP})


@evil("manifest-newer-minor")
def _(path: Path) -> None:
    manifest(path, minor=99, future={"a": [1, {"b": None}]}, hyper=MARKUP)
    samples(path, *[sample(i, basis="ab", more=[1, 2]) for i in range(9)])
    events(path, event(0, "teleported", {"to": {"x": [1, 2]}, "from": None}), event(1, "", {}, severity="apocalyptic"))


@evil("manifest-wild")
def _(path: Path) -> None:
    anything = {"": None, "a": [[], {}, [None, True, 1e308, MARKUP]], "b": {"c": {"d": DIGITS}}}
    fields = {name: anything for name in ("config", "profile", "corpus", "probe", "keep")}
    manifest(path, **fields, streams=["../../etc/passwd", "", "a b"], parent={"run": "../x"}, threads=-BIG)
    ordinary(path)


@evil("telemetry-fifo", refused=True)
def _(path: Path) -> None:
    manifest(path)
    os.mkfifo(path / "telemetry.jsonl")


@evil("telemetry-folder", refused=True)
def _(path: Path) -> None:
    manifest(path)
    (path / "telemetry.jsonl").mkdir()


@evil("events-folder", refused=True)
def _(path: Path) -> None:
    manifest(path)
    (path / "events.jsonl").mkdir()


@evil("checkpoints-file")
def _(path: Path) -> None:
    manifest(path)
    ordinary(path)
    (path / "checkpoints").write_text("not a folder")


# Lines that are no records.


@evil("lines-torn")
def _(path: Path) -> None:
    manifest(path)
    samples(
        path, sample(0), b'{"seq":1,"step":1,"t":1.0,"regime":"\xe5\xad\n', sample(2), b"\xff\xfe\x00\n", b"\n\n\r\n"
    )
    samples(path, b"\x00" * 5000 + b"\n", sample(3), b'{"seq":4,"regime":"\xe5\xad')
    events(path, event(0, "note", {"text": "a"}), b'{"seq":1,"t":1.0,"kind":"\xe5\n', b"\x00\x00", b'{"seq":2,')


@evil("lines-wrong-types")
def _(path: Path) -> None:
    manifest(path)
    wrong: list[Any] = [None, True, -1, 1.5, "text", [], {}, [[1]], {"a": {"b": 1}}, DIGITS]
    fields = ("seq", "step", "t", "session", "m", "basin", "regime", "nonfinite")
    samples(path, *[sample(i) | {field: value} for i, value in enumerate(wrong) for field in fields])
    samples(path, *wrong, *[sample(99 + i, {"phi": value}) for i, value in enumerate(wrong)])
    fields = ("seq", "t", "kind", "step", "session", "severity", "stream", "data")
    events(path, *[event(i, "note") | {field: value} for i, value in enumerate(wrong) for field in fields], *wrong)


@evil("events-wrong-data")
def _(path: Path) -> None:
    manifest(path)
    ordinary(path)
    wrong: list[Any] = [None, True, -1, 1.5, "text", [], {}, [[1]], {"a": {"b": 1}}, DIGITS, -DIGITS, 1e308, NAN]
    keys = (
        "id state metric comparison limit unit value since_step dwell cause nonfinite value_text doing stacks reason "
        "error name verb stage how checkpoint fingerprint pid resumed_from exit_code specs text message raised "
        "from_step to_step lr_factor number guards log_every"
    ).split()
    kinds = (
        "condition checkpoint pruned tagged command restored soft_reset end start emergency metrics note alert "
        "baseline phase unknown"
    ).split()
    seq = 0
    for kind in kinds:
        records = []
        for value in wrong:
            records.append(event(seq, kind, dict.fromkeys(keys, value), step=value if isinstance(value, int) else 0))
            seq += 1
        events(path, *records)
    events(path, *[condition(seq + i, **{key: v}) for key in keys for i, v in enumerate(wrong)])
    specs: list[Any] = [{"name": v, "unit": v, "range": v, "references": v} for v in wrong]
    events(path, event(10**6, "metrics", {"specs": [*wrong, *specs, {"name": "phi", "range": [1.0, -1.0]}]}))
    events(path, event(10**6 + 1, "metrics", {"specs": [{"name": f"s{i}"} for i in range(3000)]}))


@evil("conditions-extreme")
def _(path: Path) -> None:
    manifest(path, metrics=[{"name": "phi", "range": [-1e308, 1e308]}, {"name": "kappa", "range": [1e308, -1e308]}])
    samples(path, sample(0, {"phi": -1e308, "kappa": 1e308, "loss": 0.0}), sample(1, {"loss": NAN}))
    limits = [1e308, -1e308, DIGITS, -DIGITS, 0.0, 5e-324, None]
    sides = ["<=", ">=", "finite", "steady", "measured", "odd"]
    events(
        path,
        *[
            condition(i, id=f"c{i}", metric=metric, comparison=side, limit=limit, value=limit, state=state)
            for i, (metric, side, limit, state) in enumerate(
                (m, side, limit, state)
                for m in ("phi", "kappa", "loss")
                for side in sides
                for limit in limits
                for state in ("ok", "critical")
            )
        ],
    )


@evil("conditions-1000")
def _(path: Path) -> None:
    manifest(path)
    ordinary(path)
    states = ["unarmed", "ok", "warning", "critical", "odd"]
    events(path, *[condition(i, id=f"c{i}", state=states[i % 5], cause=["a", "b"]) for i in range(1000)])


@evil("lines-deep")
def _(path: Path) -> None:
    manifest(path)
    deep = b"[" * 100_000 + b"]" * 100_000
    samples(path, sample(0), b'{"seq":1,"step":1,"t":1.0,"m":' + deep + b"}\n", deep + b"\n", b"[" * 100_000 + b"\n")
    samples(path, b'{"a":' * 50_000 + b"\n", sample(2))
    for depth in (150, 300, 600, 900):
        for odd in (b"1", b"NaN"):
            nested = b"[" * depth + b"]" * depth
            events(path, b'{"seq":%d,"t":1.0,"kind":"note","data":{"b":%s,"a":%s}}\n' % (depth, odd, nested))
            nested = b'{"a":' * depth + b"1" + b"}" * depth
            events(path, b'{"seq":%d,"t":1.0,"kind":"condition","data":{"id":%s}}\n' % (depth, nested))


@evil("basin-odd")
def _(path: Path) -> None:
    manifest(path)
    flat = [1 / 64] * 64
    odd = [
        basin(flat),
        basin([NAN] * 64),
        basin([-1.0] * 64),
        basin([0.0] * 64),
        basin([INF] * 64),
        basin([3.4e38] * 64),
        basin([1e-45] * 64),
        basin([1.0] + [0.0] * 63),
        "not base64 !",
        "AAA=",
        "",
        "\u00e9",
        basin([1.0]),
        basin([0.5, 0.5]),
        basin([1 / 65] * 65),
    ]
    samples(path, *[sample(i, basin=text) for i, text in enumerate(odd)])


@evil("basin-single")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, basin=basin([1.0])) for i in range(5)])


@evil("basin-4096")
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, basin=basin([float(j % (7 + i)) for j in range(4096)])) for i in range(3)])


@evil("basin-million", heavy=True)
def _(path: Path) -> None:
    manifest(path)
    samples(path, *[sample(i, basin=basin([1.0, 2.0] * 500_000)) for i in range(2)])


# Checkpoints and emergencies.


@evil("checkpoints-odd")
def _(path: Path) -> None:
    manifest(path)
    ordinary(path)
    checkpoint(path, "nul", files=[{"path": "a\x00b", "size": 5, "blake3": ""}])
    checkpoint(path, "outside", files=[{"path": "../../../etc/passwd", "size": 5, "blake3": ""}])
    checkpoint(path, "absolute", files=[{"path": "/etc/passwd", "size": 5, "blake3": ""}])
    checkpoint(path, "long", files=[{"path": "x" * 5000, "size": DIGITS, "blake3": ""}])
    checkpoint(path, "numbers", step=DIGITS, t=1e300, metrics={"phi": 1e308}, seq=-BIG, training_s=-1e308)
    checkpoint(path, "behind", step=-DIGITS, t=-1e300, metrics={"phi": None}, nonfinite={"phi": "inf"})
    checkpoint(path, "wrong-types", step="ten", files="all", metrics=[1])
    checkpoint(path, "wrong-tags", tags={"tags": [1, None]})
    checkpoint(path, "odd-tags", tags=[MARKUP])
    checkpoint(path, "no-files", files=[], conditions={"a": "critical", "b": MARKUP}, name=MARKUP)
    checkpoint(path, "newer", format=DIGITS)
    for name in ("empty", "step-" + "9" * 90, "manifest-folder", "manifest-fifo", "manifest-torn", "tags-fifo"):
        (path / "checkpoints" / name).mkdir()
    (path / "checkpoints" / "manifest-folder" / "manifest.json").mkdir()
    os.mkfifo(path / "checkpoints" / "manifest-fifo" / "manifest.json")
    (path / "checkpoints" / "manifest-torn" / "manifest.json").write_bytes(b'{"name":"\xe5')
    os.mkfifo(path / "checkpoints" / "tags-fifo" / "tags.json")
    for odd in ("[bold red]x", "a\x1b[31m", "line\nbreak", "x y", "測"):
        (path / "checkpoints" / odd).mkdir()
    os.mkdir(os.fsencode(path / "checkpoints") + b"/\xff\xfe")
    (path / "checkpoints" / "a-file").write_text("")
    (path / "checkpoints" / "a-link").symlink_to("/")
    (path / "checkpoints" / "a-loop").symlink_to("a-loop")


@evil("emergencies-odd")
def _(path: Path) -> None:
    manifest(path)
    folder = path / "emergencies"
    folder.mkdir()
    (folder / "e1.json").write_bytes(b"\xff\x00{")
    (folder / "e2.json").mkdir()
    os.mkfifo(folder / "e3.json")
    document(folder / "e4.json", {"samples": "all", "cause": DIGITS, "id": ["a"], MARKUP: {MARKUP: [MARKUP]}})
    (folder / "[bold]x\x1b[31m.json").write_text("{}")
    names: list[Any] = ["e1", "e2", "e3", "../../x", "", None, 5, MARKUP]
    events(path, *[event(i, "emergency", {"id": name, "emergency": name}) for i, name in enumerate(names)])


@evil("unreadable")
def _(path: Path) -> None:
    manifest(path)
    ordinary(path)
    for name in ("events.jsonl", "heartbeat.json", "checkpoints", "emergencies"):
        (path / name).mkdir() if "." not in name else (path / name).touch()
    for name in ("heartbeat.json", "checkpoints", "emergencies"):
        os.chmod(path / name, 0)


# A run's folder may be called anything.


for odd_name in (MARKUP.replace("/", "|"), "a\x1b[31mred\x1b[0m\u202e", "two\nlines", "測" * 60, "-x"):

    @evil(odd_name)
    def _(path: Path) -> None:
        manifest(path, id=path.name, name="")
        ordinary(path)


@evil(os.fsdecode(b"bytes-\xff\xfe"))
def _(path: Path) -> None:
    manifest(path, id="bytes", name="")
    ordinary(path)


# What is merely large.


@evil("line-20-mb", heavy=True)
def _(path: Path) -> None:
    manifest(path)
    samples(path, sample(0), b'{"seq":1,"step":1,"t":1.0,"regime":"' + b"x" * 20_000_000 + b'"}\n', sample(2))
    events(path, event(0, "note", {"text": "y" * 5_000_000}), event(1, "odd", {"z" * 5_000_000: ["z" * 5_000_000]}))


@evil("data-wide", heavy=True)
def _(path: Path) -> None:
    manifest(path)
    events(path, *[event(i, "odd", {f"k{j}": j for j in range(100_000)}) for i in range(3)])


@evil("events-50000", heavy=True)
def _(path: Path) -> None:
    manifest(path)
    events(path, *[event(i, "note", {"text": MARKUP}) for i in range(50_000)])


@evil("checkpoints-5000", heavy=True)
def _(path: Path) -> None:
    manifest(path)
    (path / "checkpoints").mkdir()
    for i in range(5000):
        (path / "checkpoints" / f"step-{i:08d}").mkdir()
    checkpoint(path, "step-00005000")


# Programs.


@evil("programs-phases-odd")
def _(path: Path) -> None:
    manifest(path, config={"program": "charlie", "charlie": {"dormant_steps": "many", "awakening_steps": BIG}})
    ordinary(path)
    guard = {"id": "g", "label": "g", "comparison": "<", "limit": 0.5, "value": 0.1, "state": "ok"}
    phase = {"name": "dormant", "index": 1, "of": 3, "state": "judged", "since_step": 0, "latest_step": 40}
    strange = [None, 7, "nonfinite", [], {}, {"id": None, "value": NAN, "limit": INF}, {"value": DIGITS, "limit": "x"}]
    nonfinite = {"guards.0.value": "nan", "guards.1.value": "inf", "guards.2.limit": 5, "guards": []}
    events(
        path,
        event(0, "phase", {"name": "awakening", "guards": ["nonfinite", "divergence"]}),
        event(1, "phase", phase | {"guards": strange, "nonfinite": nonfinite}),
        event(2, "phase", phase | {"guards": {"a": 1}}),
        event(3, "phase", phase | {"state": ["judged"], "guards": [guard]}),
        event(4, "phase", phase | {"state": "to come", "guards": [guard]}),
        event(5, "phase", phase | {"index": -4, "of": DIGITS, "guards": [guard]}, step=BIG),
        event(6, "phase", phase | {"index": True, "of": None, "since_step": NAN, "latest_step": -BIG}),
        event(7, "phase", phase | {"since_step": 2**60, "earliest_step": "x", "latest_step": 0.5, "name": ["a"]}),
        event(8, "phase", None),
        event(9, "phase", phase | {"index": 3, "of": 2, "guards": [guard | {"id": f"g{i}"} for i in range(300)]}),
        event(10, "generated", {"prompt": ["a"], "text": None}),
        event(
            11, "phase", phase | {"index": 32, "of": 32, "state": "passed", "reason": ["r"], "guards": [guard] * 200}
        ),
    )


@evil("programs-garys-odd")
def _(path: Path) -> None:
    manifest(path, config={"program": "constellation"}, streams=["gary1", "../gary2", "", "gary1"])
    ordinary(path)
    gary = {"name": "gary1", "role": "active", "phi": 0.5, "flags": ["up"]}
    strange = [
        gary,
        gary,
        None,
        5,
        [],
        {"name": 7, "role": [], "phi": "x", "flags": "loss"},
        {"phi": NAN, "drift": DIGITS},
    ]
    advice = [
        None,
        {},
        {"rung": "shout", "evidence": [None, {"value": None, "limit": NAN}]},
        {"evidence": "x", "verb": []},
    ]
    report = {"garys": strange, "recommendations": advice, "floor_rad": 0.4, "sound": False, "digest": 5}
    square = [[0.0, None, "x"], [NAN], 7, None, [1e308, -1e308, DIGITS, 0.3, 0.2, 0.1, 0.0, 5.0]]
    nonfinite = {"garys.0.phi": "nan", "min_rad": "inf", "distances.0.1": "-inf", "variance": ["nan"]}
    events(
        path,
        event(0, "ocean", {}),
        event(1, "ocean", {"garys": {"gary1": gary}}),
        event(2, "ocean", {"garys": []}),
        event(3, "ocean", report | {"distances": square, "reasons": ["modes"], "cooldowns": [1]}),
        event(
            4,
            "ocean",
            report | {"distances": {"0": []}, "modes": [1, {"share": NAN}], "pooled": "x", "variance": DIGITS},
        ),
        event(5, "intervention", {"before": 1, "after": [2], "bound": "x", "undone": "yes"}, severity="warning"),
        event(6, "intervention", {"before": {"a": NAN}, "bound": {"limit": None, "value": DIGITS}, "undone": True}),
        event(7, "ocean", report | {"distances": square, "nonfinite": nonfinite, "min_rad": None, "max_rad": -1e308}),
    )
    samples_of(path, "gary1", *[sample(i) for i in range(20)])


@evil("programs-garys-many")
def _(path: Path) -> None:
    manifest(path, streams=[f"gary{i}" for i in range(600)])
    ordinary(path)
    garys = [{"name": f"gary{i}" + "測" * (i % 40), "role": "observer", "phi": i / 100} for i in range(90)]
    distances = [[abs(i - j) / 100 for j in range(90)] for i in range(90)]
    advice = [
        {"verb": "sleep", "gary": f"gary{i}", "rung": "warn", "evidence": [{"metric": "m" * 99}] * 9}
        for i in range(300)
    ]
    report = {"garys": garys, "distances": distances, "floor_rad": 0.03, "recommendations": advice, "sound": True}
    events(
        path,
        event(
            0,
            "ocean",
            report | {"modes": [{"share": 1 / 89}] * 89, "reasons": {f"gary{i}.phi": "x" for i in range(900)}},
        ),
    )
