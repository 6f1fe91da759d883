"""The records of format 1, byte for byte and back."""

import json
import math
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.rundir.atomic import encode_document
from qig_core.rundir.schema import (
    Ack,
    CheckpointManifest,
    Command,
    ConsciousnessTelemetry,
    Event,
    FileEntry,
    Heartbeat,
    Manifest,
    MetricSpec,
    ReferenceLine,
    Sample,
    Scalars,
    SessionRecord,
    Stage,
)
from qig_core.rundir.values import decode_basin, encode_basin, foreign_line, name_nonfinite, plain, split_nonfinite

LITERALS = [
    (Sample(0, 0, 1.5), b'{"seq":0,"step":0,"t":1.5}'),
    (
        Sample(
            7,
            12,
            1700000000.25,
            "00ff00ff00ff00ff",
            {"phi": 0.71, "loss": None},
            "AACAPw==",
            "geometric",
            {"loss": "nan"},
        ),
        b'{"seq":7,"step":12,"t":1700000000.25,"session":"00ff00ff00ff00ff","m":{"phi":0.71,"loss":null},'
        b'"basin":"AACAPw==","regime":"geometric","nonfinite":{"loss":"nan"}}',
    ),
    (
        Event(3, 2.0, "condition", 5, "aa", "critical", "gary1", {"id": "phi-low", "limit": 0.4}),
        b'{"seq":3,"t":2.0,"kind":"condition","step":5,"session":"aa","severity":"critical","stream":"gary1",'
        b'"data":{"id":"phi-low","limit":0.4}}',
    ),
    (Event(0, 2.0, "note"), b'{"seq":0,"t":2.0,"kind":"note"}'),
    (
        Heartbeat("aa", 9, 3.0, 77, 5, 0.25, "step", 1.5, 2.5),
        b'{"session":"aa","beat":9,"t":3.0,"pid":77,"step":5,"last_step_age_s":0.25,"doing":"step",'
        b'"step_ms_p50":1.5,"step_ms_p99":2.5}',
    ),
    (
        Command("0" * 32, "aa", "abort", 4.0, by="me@here"),
        b'{"id":"00000000000000000000000000000000","session":"aa","verb":"abort","t":4.0,"by":"me@here"}',
    ),
    (
        Ack("0" * 32, "aa", "abort", [Stage("seen", 4.5, 12), Stage("refused", 5.0, None, {"reason": "late"})]),
        b'{"id":"00000000000000000000000000000000","session":"aa","verb":"abort","stages":[{"stage":"seen","t":4.5,'
        b'"step":12},{"stage":"refused","t":5.0,"detail":{"reason":"late"}}]}',
    ),
    (
        MetricSpec("phi", "", "Φ", (0.0, None), [ReferenceLine(0.7, "high", "warning")], "band"),
        '{"name":"phi","label":"Φ","range":[0.0,null],"references":[{"value":0.7,"label":"high","severity":"warning"}],'
        '"better":"band"}'.encode(),
    ),
]


@pytest.mark.parametrize(("record", "literal"), LITERALS, ids=lambda value: type(value).__name__)
def test_a_record_is_these_bytes_and_these_bytes_are_the_record(record: msgspec.Struct, literal: bytes) -> None:
    assert msgspec.json.encode(record) == literal
    assert msgspec.json.decode(literal, type=type(record)) == record


def test_documents_read_back_as_they_were() -> None:
    manifest = Manifest(
        id="r1",
        config={"a": [1, {"b": None}]},
        metrics=[MetricSpec("phi")],
        sessions=[SessionRecord("aa", 1.0, 2, "host")],
    )
    checkpoint = CheckpointManifest("c1", "r1", "aa", 5, 1.0, "interval", [FileEntry("w.bin", 3, "00")], "ff", seq=4)
    for document in (manifest, checkpoint):
        text = encode_document(document)
        assert text.endswith(b"\n}\n")
        assert msgspec.json.decode(text, type=type(document)) == document


@given(st.lists(st.floats(width=32), max_size=80))
def test_a_basin_is_recovered_to_the_bit(values: list[float]) -> None:
    raw = struct.pack(f"<{len(values)}f", *values)
    assert decode_basin(encode_basin(raw)) == raw


def test_a_basin_is_little_endian_float32_in_base64() -> None:
    assert encode_basin(np.array([1.0, -2.0], "<f4").tobytes()) == "AACAPwAAAMA="


@pytest.mark.parametrize("text", ["AACA", "AACAPw=", "AAC APw==", "é", "AACAPw==\n", "AACAPw==AACAPw=="])
def test_a_basin_that_is_none_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_basin(text)


def test_a_basin_of_broken_floats_is_not_written() -> None:
    with pytest.raises(ValueError, match="not a whole number of float32"):
        encode_basin(b"12345")


@given(st.dictionaries(st.text(max_size=5), st.floats()))
def test_values_that_are_not_finite_are_named_and_none_is_lost(metrics: dict[str, float]) -> None:
    finite, kinds = split_nonfinite(metrics)
    back = {name: float(kinds[name]) if value is None else value for name, value in finite.items()}
    assert back.keys() == metrics.keys()
    assert all(a == metrics[k] or (math.isnan(a) and math.isnan(metrics[k])) for k, a in back.items())
    json.loads(json.dumps(finite), parse_constant=pytest.fail)


def test_an_integer_beyond_float64_is_infinite() -> None:
    assert split_nonfinite({"a": 10**400, "b": -(10**400)}) == ({"a": None, "b": None}, {"a": "inf", "b": "-inf"})


def test_numbers_in_event_data_are_named_by_the_way_to_them() -> None:
    data = {
        "value": math.nan,
        "deep": {"a": [1.0, -math.inf]},
        "np": np.float32("inf"),
        "text": "x",
        "array": np.arange(2.0),
    }
    assert name_nonfinite(data) == {
        "value": None,
        "deep": {"a": [1.0, None]},
        "np": None,
        "text": "x",
        "array": [0.0, 1.0],
        "nonfinite": {"value": "nan", "deep.a.1": "-inf", "np": "inf"},
    }


def test_scalars_are_a_sample_without_its_basin() -> None:
    assert set(Scalars.__struct_fields__) < set(Sample.__struct_fields__)
    line = msgspec.json.encode(LITERALS[1][0])
    scalars = msgspec.json.decode(line, type=Scalars)
    assert (scalars.seq, scalars.step, scalars.m, scalars.regime) == (7, 12, {"phi": 0.71, "loss": None}, "geometric")


@pytest.mark.parametrize(
    ("line", "m", "kinds"),
    [
        (b'{"seq":1,"step":1,"t":1,"m":{"a":NaN,"b":2}}', {"a": None, "b": 2}, {"a": "nan"}),
        (
            b'{"seq":1,"step":1,"t":1,"m":{"a":Infinity,"b":-Infinity}}',
            {"a": None, "b": None},
            {"a": "inf", "b": "-inf"},
        ),
        (b'{"seq":1,"step":1,"t":1,"m":{"a":1e400,"b":-1e999}}', {"a": None, "b": None}, {"a": "inf", "b": "-inf"}),
    ],
)
def test_a_foreign_line_keeps_the_kind_of_its_numbers(line: bytes, m: dict[str, object], kinds: dict[str, str]) -> None:
    record = foreign_line(line)
    assert (record["m"], record["nonfinite"]) == (m, kinds)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b'{"t":NaN}',
        b'{"t":1e400}',
        b'{"regime":"\\ud800"}',
        '{"a":1}'.encode("utf-16-le"),
        b"\xff",
        b'{"seq":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_record_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        foreign_line(line)


def test_the_typed_record_gives_only_what_was_measured() -> None:
    assert ConsciousnessTelemetry(phi=0.7, loss=0.0).metrics() == {"loss": 0.0, "phi": 0.7}


def test_foreign_scalars_and_paths_have_a_place_in_a_document_and_other_objects_do_not() -> None:
    text = encode_document({"a": np.float64(1.5), "b": np.int32(2), "c": np.ones(2), "d": Path("x/y"), "e": "\udcff"})
    assert json.loads(text) == {"a": 1.5, "b": 2, "c": [1.0, 1.0], "d": "x/y", "e": "\\udcff"}
    with pytest.raises(TypeError, match="object has no place in a record"):
        plain(object())
