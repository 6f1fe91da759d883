"""Basin packets: both forms give back what went in, and refuse everything else with one exception."""

import dataclasses
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.errors import PacketError
from qig_core.geometry.simplex import Basin, fisher_rao_distance
from qig_core.measures.packet import (
    FORMAT,
    MAX_BYTES,
    BasinPacket,
    digest,
    distance,
    from_json,
    from_npz,
    load,
    save,
    to_json,
    to_npz,
)

GOLDEN = b"""{
  "format": 1,
  "kind": "softmax of a fixed readout",
  "unit": "probability",
  "step": 1200,
  "phi": 0.73,
  "kappa": -1.5,
  "regime": "geometric",
  "probe_digest": "c0ffee",
  "run": "night-\xc3\xa9",
  "checkpoint": null,
  "created_t": 1700000000.25,
  "metrics": {"drift_rolling": 1e-07, "loss": 1.25},
  "basin": [0.5, 0.25, 0.25],
  "mean": [0.1, 0.2, 0.7],
  "window": [
    [0.0, 0.0, 1.0],
    [0.3333333333333333, 0.3333333333333333, 0.3333333333333333]
  ],
  "digest": "c2d2bf7d17a9400d72adbd8704f3f47b3b11f62e6f12fd23d82ed737e1c561a8"
}
"""
FORMS = pytest.mark.parametrize(("encode", "decode"), [(to_json, from_json), (to_npz, from_npz)])


def packet(**changes: Any) -> BasinPacket:
    values: dict[str, Any] = {
        "basin": Basin(np.array([0.5, 0.25, 0.25])),
        "step": 1200,
        "phi": 0.73,
        "kappa": -1.5,
        "regime": "geometric",
        "probe_digest": "c0ffee",
        "run": "night-é",
        "created_t": 1700000000.25,
        "mean": Basin(np.array([0.1, 0.2, 0.7])),
        "window": np.array([[0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]]),
        "metrics": {"loss": 1.25, "drift_rolling": 1e-7},
    }
    return BasinPacket(**(values | changes))


def assert_same(a: BasinPacket, b: BasinPacket) -> None:
    """Bit for bit, and of the same types."""
    for field in dataclasses.fields(BasinPacket):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert type(one) is type(other), field.name
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        elif isinstance(one, float):
            assert struct.pack("<d", one) == struct.pack("<d", other)
        elif isinstance(one, dict):
            assert list(one) == list(other)
            assert struct.pack(f"<{len(one)}d", *one.values()) == struct.pack(f"<{len(other)}d", *other.values())
        else:
            assert one == other


finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def packets(draw: st.DrawFn) -> BasinPacket:
    size = draw(st.integers(2, 6))
    rows = draw(
        st.lists(st.lists(st.floats(0.0, 1.0), min_size=size, max_size=size).filter(any), min_size=2, max_size=4)
    )
    with np.errstate(over="ignore", under="ignore"):
        points = np.array(rows, dtype=np.float64)
        points /= points.max(axis=1, keepdims=True)
        points /= points.sum(axis=1, keepdims=True)
    return BasinPacket(
        basin=Basin(points[0]),
        kind=draw(text.filter(bool)),
        step=draw(st.integers(0, 2**63 - 1)),
        phi=draw(st.none() | st.floats(0.0, 1.0)),
        kappa=draw(st.none() | finite),
        regime=draw(st.none() | text),
        probe_digest=draw(text.filter(bool)),
        run=draw(text),
        checkpoint=draw(st.none() | text),
        created_t=draw(finite),
        mean=draw(st.none() | st.just(Basin(points[1]))),
        window=draw(st.none() | st.just(points)),
        metrics=draw(st.dictionaries(text, finite, max_size=3)),
    )


@FORMS
@given(packets())
def test_a_packet_comes_back_bit_for_bit(
    encode: Callable[[BasinPacket], bytes], decode: Callable[[bytes], BasinPacket], written: BasinPacket
) -> None:
    content = encode(written)
    read = decode(content)
    assert_same(written, read)
    assert encode(read) == content
    assert digest(read) == digest(written)


def test_the_json_form_is_these_bytes() -> None:
    assert to_json(packet()) == GOLDEN
    assert_same(from_json(GOLDEN), packet())


def test_the_digest_is_of_the_bytes_that_its_docstring_says() -> None:
    parts: list[tuple[str, bytes]] = [
        ("basin", struct.pack("<3d", 0.5, 0.25, 0.25)),
        ("kind", b"softmax of a fixed readout"),
        ("unit", b"probability"),
        ("step", struct.pack("<q", 1200)),
        ("phi", struct.pack("<d", 0.73)),
        ("kappa", struct.pack("<d", -1.5)),
        ("regime", b"geometric"),
        ("probe_digest", b"c0ffee"),
        ("run", "night-é".encode()),
        ("created_t", struct.pack("<d", 1700000000.25)),
        ("mean", struct.pack("<3d", 0.1, 0.2, 0.7)),
        ("window", struct.pack("<6d", 0.0, 0.0, 1.0, 1 / 3, 1 / 3, 1 / 3)),
        ("metrics.drift_rolling", struct.pack("<d", 1e-7)),
        ("metrics.loss", struct.pack("<d", 1.25)),
    ]
    content = b"basin packet 1\n"
    for name, value in parts:
        content += name.encode() + b"\0" + struct.pack("<Q", len(value)) + value
    assert digest(packet()) == blake3.blake3(content).hexdigest()


def test_json_in_another_layout_and_with_keys_of_the_future_is_read() -> None:
    values = json.loads(to_json(packet()))
    shuffled = {"mood": {"calm": True}} | dict(reversed(values.items()))
    assert_same(from_json(json.dumps(shuffled).encode()), packet())


def test_numpy_opens_the_npz_form_without_pickle() -> None:
    with np.load(io.BytesIO(to_npz(packet())), allow_pickle=False) as archive:
        assert sorted(archive.files) == ["basin", "facts", "mean", "window"]
        np.testing.assert_array_equal(archive["window"], packet().window)
        assert json.loads(archive["facts"].tobytes())["step"] == 1200


@pytest.mark.parametrize("rewrite", [np.savez, np.savez_compressed])
def test_an_npz_that_numpy_rewrote_is_read(rewrite: Callable[..., None]) -> None:
    with np.load(io.BytesIO(to_npz(packet()))) as archive:
        arrays = dict(archive)
    out = io.BytesIO()
    rewrite(out, **arrays, extra=np.arange(3))
    assert_same(from_npz(out.getvalue()), packet())


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_saved_packet_is_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"identity{suffix}"
    save(packet(step=1), path)
    save(packet(), path)
    assert_same(load(path), packet())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["identity", "identity.pickle", "identity.JSON", ".json"])
def test_another_suffix_is_refused_and_both_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(PacketError, match=r"ends in \.json or \.npz"):
        save(packet(), tmp_path / name)
    with pytest.raises(PacketError, match=r"ends in \.json or \.npz"):
        load(tmp_path / name)


def test_a_failed_save_leaves_the_old_packet_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "identity.json"
    save(packet(), path)

    def full(fd: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(packet(step=7), path)
    assert list(tmp_path.iterdir()) == [path]
    assert load(path).step == 1200


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    path.write_bytes(to_json(packet())[:-30])
    with pytest.raises(PacketError, match=r"identity\.json': not the facts"):
        load(path)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(PacketError, match="not a regular file"):
        load(tmp_path / "pipe.json")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz")


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "huge.json", tmp_path / "huge.npz"):
        path.touch()
        os.truncate(path, 1 << 40)
        with pytest.raises(PacketError, match="more than 16777216 bytes"):
            load(path)


@FORMS
def test_what_could_not_be_read_is_not_written(
    encode: Callable[[BasinPacket], bytes], decode: Callable[[bytes], BasinPacket]
) -> None:
    size = MAX_BYTES // 5 + 1
    with pytest.raises(PacketError, match="shorten the window"):
        encode(packet(basin=np.eye(1, size)[0], mean=None, window=None))


@pytest.mark.parametrize("name", json.loads(to_json(packet())))
def test_a_missing_key_is_named(name: str) -> None:
    values = json.loads(to_json(packet()))
    del values[name]
    with pytest.raises(PacketError, match=f"missing required field `{name}`"):
        from_json(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"basin": [0.5, 0.5]}, r"mean is \(3,\), the basin \(2,\)"),
        ({"basin": [0.5, 0.25, math.nan]}, "malformed"),
        ({"basin": [0.5, 0.25, None]}, r"Expected `float`, got `null` - at `\$.basin"),
        ({"basin": [0.5, -0.25, 0.75]}, "basin has a negative entry: -0.25"),
        ({"basin": [0.5, 0.25, 0.2]}, "basin sums to 0.95, off by 0.05"),
        ({"basin": [1e308, 1e308, 1e308]}, "basin sums to inf"),
        ({"basin": [1.0], "mean": None, "window": None}, "K ≥ 2"),
        ({"basin": []}, "basin has shape"),
        ({"window": []}, "window"),
        ({"window": [[0.5, 0.5]]}, r"window is \(1, 2\)"),
        ({"window": [[0.5, 0.25, 0.25], [0.5, 0.5]]}, "window is not an array of numbers"),
        ({"window": [[0.5, 0.25, 0.25], [0.5, 0.5, 0.5]]}, r"window\[1\] sums to 1.5"),
        ({"mean": "flat"}, r"Expected `array \| null`, got `str` - at `\$.mean`"),
        ({"step": -1}, "step is -1"),
        ({"step": 2**63}, "step is 9223372036854775808"),
        ({"step": 10**30}, "step"),
        ({"step": 1.5}, "Expected `int`"),
        ({"phi": 1.01}, "phi is 1.01"),
        ({"phi": 10**400}, "out of range"),
        ({"kind": ""}, "kind is empty"),
        ({"unit": "rad"}, "unit is 'rad'"),
        ({"metrics": {"loss": None}}, r"\$.metrics"),
        ({"digest": "0" * 64}, "digest is '0000"),
        ({"step": 1201}, "something was changed"),
        ({"run": "another"}, "something was changed"),
        ({"mean": None}, "something was changed"),
        ({"basin": [0.5, 0.25000000000000006, 0.25]}, "something was changed"),
        ({"format": FORMAT + 1, "basin": {"new": 1}}, "format 2; this program reads 1: upgrade"),
        ({"format": 0}, "none before 1"),
        ({"format": "1"}, r"Expected `int`, got `str` - at `\$.format`"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(changes: dict[str, Any], message: str) -> None:
    content = json.dumps(json.loads(to_json(packet())) | changes).encode()
    with pytest.raises(PacketError, match=message):
        from_json(content)


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'"\\ud800"'])
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(PacketError, match="not the facts"):
        from_json(content)


def test_a_packet_that_could_not_be_written_is_not_made() -> None:
    for changes, message in (
        ({"kappa": math.nan}, "kappa is nan"),
        ({"created_t": math.inf}, "created_t is inf"),
        ({"metrics": {"loss": math.nan}}, "metrics.loss is nan"),
        ({"run": "\ud800"}, "cannot be written as UTF-8"),
        ({"metrics": {"\ud800": 1.0}}, "cannot be written as UTF-8"),
        ({"basin": np.array([0.5, 0.25, 0.25 + 0j])}, "basin is complex"),
        ({"basin": 1.0}, "basin has shape"),
        ({"basin": "abc"}, "not an array of numbers"),
    ):
        with pytest.raises(PacketError, match=message):
            packet(**changes)


def test_the_arrays_of_a_packet_are_its_own() -> None:
    given_basin = np.array([0.5, 0.25, 0.25])
    mine = packet(basin=given_basin)
    given_basin[0] = 9.0
    assert mine.basin[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        mine.basin[0] = 9.0


def archive_of(members: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive of `packet()` with some members put in, or left out, as bytes."""
    with zipfile.ZipFile(io.BytesIO(to_npz(packet()))) as old:
        contents: dict[str, bytes | None] = {name: old.read(name) for name in old.namelist()}
    contents |= {f"{name}.npy": content for name, content in members.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as new:
        for name, content in contents.items():
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


def npy(array: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asanyarray(array), **how)
    return out.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"facts": None}, "no facts.npy"),
        ({"basin": None}, "no basin.npy"),
        ({"basin": npy(np.array([{}, []], dtype=object), allow_pickle=True)}, "basin.npy is not an array of <f8"),
        ({"basin": npy(np.array([0.5, 0.25, 0.25], dtype="<f4"))}, "basin.npy is not an array of <f8"),
        ({"basin": npy(np.array([0.5, 0.25, 0.25], dtype=">f8"))}, "basin.npy is not an array of <f8"),
        ({"basin": npy([0.5, 0.25, 0.25], version=(2, 0))}, "format 1.0 of numpy"),
        ({"window": npy(np.asfortranarray(np.full((2, 3), 1 / 3)))}, "in C order"),
        ({"window": npy(np.full((2, 1, 3), 1 / 3))}, "window.npy is not an array"),
        ({"basin": npy([0.5, 0.25, math.nan])}, "basin holds a value that is not finite"),
        ({"basin": npy([0.5, 0.25, 0.25])[:-8]}, "holds 16 bytes"),
        ({"basin": npy([0.5, 0.25, 0.25]) + b"\0"}, "holds 25 bytes"),
        ({"basin": npy([0.5, 0.25, 0.25]).replace(b"(3,)", b"(999999999,)")}, "basin.npy"),
        ({"basin": npy([0.25, 0.5, 0.25])}, "something was changed"),
        ({"mean": None}, "something was changed"),
        ({"facts": npy(np.frombuffer(b"{}", dtype=np.uint8))}, "missing required field `format`"),
        ({"facts": npy([0.5, 0.5])}, "facts.npy is not an array"),
        ({"basin": b""}, "basin.npy is not an array"),
    ],
)
def test_an_archive_with_a_wrong_member_is_refused(members: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(PacketError, match=message):
        from_npz(archive_of(members))


def test_an_archive_that_swells_is_refused_before_it_is_unpacked() -> None:
    bomb = archive_of({"window": npy(np.eye(1, 3)).ljust(MAX_BYTES + 1, b"\0")}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(PacketError, match=r"window\.npy announces 16777217 bytes"):
        from_npz(bomb)
    liar = bomb.replace(struct.pack("<I", MAX_BYTES + 1), struct.pack("<I", 1000))
    with pytest.raises(PacketError, match="damaged"):
        from_npz(liar)


def test_another_compression_and_a_member_twice_are_refused() -> None:
    with pytest.raises(PacketError, match="method 12"):
        from_npz(archive_of({}, zipfile.ZIP_BZIP2))
    out = io.BytesIO(to_npz(packet()))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr("basin.npy", npy([0.5, 0.25, 0.25]))
    with pytest.raises(PacketError, match="twice"):
        from_npz(out.getvalue())


@FORMS
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_packet_error(
    encode: Callable[[BasinPacket], bytes], decode: Callable[[bytes], BasinPacket], content: bytes
) -> None:
    with pytest.raises(PacketError):
        decode(content)


@FORMS
@given(data=st.data())
def test_damaged_bytes_are_refused_or_mean_the_same(
    encode: Callable[[BasinPacket], bytes], decode: Callable[[bytes], BasinPacket], data: st.DataObject
) -> None:
    content = bytearray(encode(packet()))
    begin = data.draw(st.integers(0, len(content)))
    end = min(len(content), begin + data.draw(st.integers(0, 4)))
    content[begin:end] = data.draw(st.binary(max_size=4))
    try:
        read = decode(bytes(content))
    except PacketError:
        return
    assert_same(read, packet())


@FORMS
def test_every_truncation_is_refused(
    encode: Callable[[BasinPacket], bytes], decode: Callable[[bytes], BasinPacket]
) -> None:
    content = encode(packet()).rstrip(b"\n")
    for length in range(len(content)):
        with pytest.raises(PacketError):
            decode(content[:length])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(to_json(packet())))), json_values)
def test_any_value_at_any_key_raises_nothing_but_packet_error(name: str, value: Any) -> None:
    values = json.loads(to_json(packet()))
    content = json.dumps(values | {name: value}).encode()
    if values[name] == value:
        return
    with pytest.raises(PacketError):
        from_json(content)


def test_the_distance_of_packets_is_that_of_their_basins() -> None:
    other = packet(basin=Basin(np.array([0.2, 0.3, 0.5])))
    expected = float(fisher_rao_distance(packet().basin, other.basin))
    assert distance(packet(), other) == expected
    assert distance(packet(), packet()) == 0.0


def test_packets_that_are_not_comparable_have_no_distance_unless_asked() -> None:
    basin = Basin(np.array([0.2, 0.3, 0.5]))
    for changes in ({"probe_digest": "decaf"}, {"kind": "trained readout, next-token loss"}):
        other = packet(basin=basin, **changes)
        with pytest.raises(PacketError, match=f"{next(iter(changes))} differs: .*would mean nothing"):
            distance(packet(), other)
        assert distance(packet(), other, across_probes=True) == float(fisher_rao_distance(packet().basin, basin))


def test_basins_of_unequal_size_have_no_distance_at_all() -> None:
    other = packet(basin=Basin(np.array([0.5, 0.5])), mean=None, window=None)
    with pytest.raises(PacketError, match="different simplices"):
        distance(packet(), other, across_probes=True)
