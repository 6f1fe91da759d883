"""A basin packet: what a model is, as a file that another run can read. JSON or npz, never pickle; no model, no clock.

The JSON form has a line for each field, floats as Python's repr, so that people can read it. The npz form holds
basin.npy, mean.npy and window.npy in little-endian float64, and in facts.npy the bytes of the JSON form of all else.
Both give back every float bit for bit, and both carry one `digest`: of the values, not of their spelling.
"""

import dataclasses
import io
import json
import math
import operator
import os
import re
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import blake3
import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qig_core.errors import PacketError, SimplexError
from qig_core.geometry.simplex import Basin, FloatArray, fisher_rao_distance

FORMAT = 1
"""A reader refuses a higher one and ignores keys that it does not know."""
MAX_BYTES = 16 << 20
"""Of a file, and of each array that an archive announces."""
UNIT = "probability"

_ARRAYS = ("basin", "mean", "window")
# The one header that is read: what numpy itself writes for these types. Its own parser evaluates Python literals.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<descr>[^']*)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,9},(?: \d{1,9})?)\), \} *\n",
    re.DOTALL,
)
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
_Document = TypeVar("_Document", bound="_Facts")


@dataclass(frozen=True, kw_only=True, eq=False)
class BasinPacket:
    """What a model is at one step, and what it is comparable with. Two packets are equal where their digests are.

    Raises:
        PacketError: a point off the simplex, shapes that do not fit, a number out of range or not finite.
    """

    basin: Basin
    """[K], K ≥ 2, kept as given and read-only, as the other arrays are."""
    kind: str = "softmax of a fixed readout"
    """How the point was made; a trained readout names its loss."""
    unit: str = UNIT
    """Of the entries of basin, mean and window; there is no other."""
    step: int
    """Updates applied, 0 .. 2⁶³ − 1."""
    phi: float | None = None
    """Score in [0, 1]: one that is less than 1 by no more than rounding is 1."""
    kappa: float | None = None
    """rad⁻¹."""
    regime: str | None = None
    probe_digest: str
    """Of probe tokens, positions and readout: basins of unequal digest are not comparable."""
    run: str = ""
    """Id of the run it comes from."""
    checkpoint: str | None = None
    """Name of the checkpoint it comes from."""
    created_t: float
    """Unix seconds."""
    mean: Basin | None = None
    """[K], the Fréchet mean of older basins."""
    window: FloatArray | None = None
    """[N, K], N ≥ 1, the newest basins, oldest first."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers of that step, by name."""

    def __post_init__(self) -> None:
        changed: dict[str, Any] = {
            name: _points(value, name) for name in _ARRAYS if (value := getattr(self, name)) is not None
        }
        size = changed["basin"].shape
        if len(size) != 1 or size[0] < 2:
            raise PacketError(f"basin must be [K] with K ≥ 2, not {size}")
        if "mean" in changed and changed["mean"].shape != size:
            raise PacketError(f"mean is {changed['mean'].shape}, the basin {size}: they must be equal")
        if "window" in changed and (changed["window"].shape[1:] != size or not len(changed["window"])):
            raise PacketError(f"window is {changed['window'].shape}: it must be [N, {size[0]}] with N ≥ 1")
        if self.unit != UNIT:
            raise PacketError(f"unit is {self.unit[:40]!r}: a basin's entries are of unit {UNIT!r}")
        changed |= {
            name: _finite(value, name)
            for name in ("phi", "kappa", "created_t")
            if (value := getattr(self, name)) is not None
        }
        if not 0.0 <= changed.get("phi", 0.0) <= 1.0:
            raise PacketError(f"phi is {self.phi}: a score lies in [0, 1]")
        changed["step"] = operator.index(self.step)
        if not 0 <= changed["step"] < 2**63:
            raise PacketError(f"step is {self.step}: it must lie in 0 .. 2**63 - 1")
        for name in ("kind", "probe_digest"):
            if not getattr(self, name):
                raise PacketError(f"{name} is empty: it says what the basin is comparable with")
        for name in ("kind", "probe_digest", "run", "checkpoint", "regime"):
            _utf8(getattr(self, name) or "", name)
        for name in self.metrics:
            _utf8(name, "a name in metrics")
        changed["metrics"] = {name: _finite(self.metrics[name], f"metrics.{name}") for name in sorted(self.metrics)}
        for name, value in changed.items():
            object.__setattr__(self, name, value)


class _Head(msgspec.Struct):
    format: int


class _Facts(msgspec.Struct, kw_only=True):
    """What is written beside the arrays."""

    format: int
    kind: str
    unit: str
    step: int
    phi: float | None
    kappa: float | None
    regime: str | None
    probe_digest: str
    run: str
    checkpoint: str | None
    created_t: float
    metrics: dict[str, float]
    digest: str


class _Whole(_Facts, kw_only=True):
    basin: list[float]
    mean: list[float] | None
    window: list[list[float]] | None


def digest(packet: BasinPacket) -> str:
    """blake3, hex, of all values of a packet, the same whatever form it is kept in.

    What is hashed: the line "basin packet 1", then for each field of BasinPacket that is not None, in their order, its
    name, a zero byte, the length of its content in 8 bytes, its content. Text is UTF-8, step an int64, every other
    number a float64, arrays row by row; each of metrics is a field called metrics.NAME, by name. All little-endian.
    """
    values = {each.name: getattr(packet, each.name) for each in dataclasses.fields(packet)}
    values |= {f"metrics.{name}": value for name, value in values.pop("metrics").items()}
    hasher = blake3.blake3(f"basin packet {FORMAT}\n".encode())
    for name, value in values.items():
        if value is None:
            continue
        dtype = "<i8" if name == "step" else "<f8"
        content = value.encode() if isinstance(value, str) else np.asarray(value, dtype=dtype).tobytes()
        hasher.update(name.encode() + b"\0" + len(content).to_bytes(8, "little") + content)
    return str(hasher.hexdigest())


def distance(a: BasinPacket, b: BasinPacket, *, across_probes: bool = False) -> float:
    """Fisher–Rao distance between the basins of two packets: 2 arccos Σ_k √(p_k q_k), radians, in [0, π].

    Args:
        across_probes: measure basins of unequal kind or probe digest too. What comes out is a number, but no drift.

    Raises:
        PacketError: basins of unequal size; of unequal kind or probe digest, unless across_probes.
    """
    if a.basin.shape != b.basin.shape:
        raise PacketError(f"basins of {a.basin.size} and {b.basin.size} entries are points of different simplices")
    for name in () if across_probes else ("kind", "probe_digest"):
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            raise PacketError(f"{name} differs: {one!r} and {other!r}: their distance would mean nothing")
    return float(fisher_rao_distance(a.basin, b.basin))


def to_json(packet: BasinPacket) -> bytes:
    """The packet as JSON, a line for each field and for each row of window. Equal packets give equal bytes.

    Raises:
        PacketError: larger than MAX_BYTES.
    """
    arrays = {name: None if (x := getattr(packet, name)) is None else x.tolist() for name in _ARRAYS}
    return _limited(_lines({"format": FORMAT} | _facts(packet) | arrays | {"digest": digest(packet)}))


def from_json(content: bytes) -> BasinPacket:
    """The packet that `to_json` wrote, in any layout.

    Raises:
        PacketError: not JSON, a key missing or of another type, a value that BasinPacket refuses, a digest that does
            not match, a newer format, or more than MAX_BYTES.
    """
    whole = _decoded(_limited(content), _Whole)
    return _packet(whole, {name: getattr(whole, name) for name in _ARRAYS})


def to_npz(packet: BasinPacket) -> bytes:
    """The packet as an archive that numpy.load opens, not compressed. Equal packets give equal bytes.

    Raises:
        PacketError: larger than MAX_BYTES.
    """
    arrays = {name: array for name in _ARRAYS if (array := getattr(packet, name)) is not None}
    facts = _lines({"format": FORMAT} | _facts(packet) | {"digest": digest(packet)})
    arrays["facts"] = np.frombuffer(facts, dtype=np.uint8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            np.lib.format.write_array(member, little, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # which is dated 1980, not now
    return _limited(out.getvalue())


def from_npz(content: bytes) -> BasinPacket:
    """The packet that `to_npz` wrote; compressed members are read too.

    Raises:
        PacketError: as from_json; a member that is no float64 array in C order, that announces more than MAX_BYTES, or
            whose checksum is wrong.
    """
    members = _members(_limited(content))
    for name in ("facts", "basin"):
        if name not in members:
            raise PacketError(f"no {name}.npy in the archive")
    facts = _decoded(_array(members["facts"], "facts", "|u1").tobytes(), _Facts)
    return _packet(facts, {n: _array(members[n], n, "<f8") if n in members else None for n in _ARRAYS})


_FORMS: dict[str, tuple[Callable[[BasinPacket], bytes], Callable[[bytes], BasinPacket]]] = {
    ".json": (to_json, from_json),
    ".npz": (to_npz, from_npz),
}


def save(packet: BasinPacket, path: str | Path) -> None:
    """Write a packet in the form that the suffix names, .json or .npz: a temporary name beside it, fsync, rename.

    Raises:
        PacketError: another suffix, or larger than MAX_BYTES.
        OSError: as the system says; what was at `path` is untouched and no temporary file stays.
    """
    path = Path(path)
    content = _form(path)[0](packet)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | Path) -> BasinPacket:
    """Read a packet in the form that the suffix names, .json or .npz.

    Raises:
        PacketError: another suffix, no regular file, more than MAX_BYTES, or as from_json and from_npz; with the path.
        OSError: it cannot be opened or read.
    """
    path = Path(path)
    decode = _form(path)[1]
    # Without O_NONBLOCK a FIFO would wait for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PacketError(f"{str(path)!r} is not a regular file")
        content = file.read(MAX_BYTES + 1)
    try:
        return decode(content)
    except PacketError as error:
        raise PacketError(f"{str(path)!r}: {error}") from error


def _form(path: Path) -> tuple[Callable[[BasinPacket], bytes], Callable[[bytes], BasinPacket]]:
    if path.suffix not in _FORMS:
        raise PacketError(f"{str(path)!r}: a basin packet ends in .json or .npz")
    return _FORMS[path.suffix]


def _facts(source: "BasinPacket | _Facts") -> dict[str, Any]:
    return {name: getattr(source, name) for name in _Facts.__struct_fields__ if name not in ("format", "digest")}


def _lines(values: Mapping[str, Any]) -> bytes:
    """An object with a line for each key, and for each item of a list of lists."""

    def text(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "[\n    " + ",\n    ".join(map(text, value)) + "\n  ]"
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    return ("{\n" + ",\n".join(f"  {text(name)}: {text(value)}" for name, value in values.items()) + "\n}\n").encode()


def _decoded(content: bytes, kind: type[_Document]) -> _Document:
    try:
        version = msgspec.json.decode(content, type=_Head).format
        if version > FORMAT:
            raise PacketError(f"format {version}; this program reads {FORMAT}: upgrade qig-tui")
        if version < 1:
            raise PacketError(f"format {version}: there is none before 1")
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PacketError(f"not the facts of a basin packet: {error}") from error


def _packet(facts: _Facts, arrays: Mapping[str, Any]) -> BasinPacket:
    packet = BasinPacket(**_facts(facts), **arrays)
    if (found := digest(packet)) != facts.digest:
        raise PacketError(f"digest is {facts.digest[:64]!r}, of the values it is {found}: something was changed")
    return packet


def _members(content: bytes) -> dict[str, bytes]:
    """The arrays of an archive by name, each no larger than MAX_BYTES; other members are left alone."""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name not in (*_ARRAYS, "facts") or name == info.filename:
                    continue
                if info.file_size > MAX_BYTES:
                    raise PacketError(f"{info.filename} announces {info.file_size} bytes, the limit is {MAX_BYTES}")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise PacketError(f"{info.filename} is compressed by method {info.compress_type}, not 0 or 8")
                if name in found:
                    raise PacketError(f"{info.filename} stands twice in the archive")
                with archive.open(info) as member:
                    # With a size, no more is unpacked than was announced; and past the end, the checksum is compared.
                    found[name] = member.read(info.file_size + 1)
    except PacketError:
        raise
    except _ZIP_ERRORS as error:
        raise PacketError(f"not an npz archive, or a damaged one: {error!r}") from error
    return found


def _array(content: bytes, name: str, descr: str) -> NDArray[Any]:
    header = _NPY.match(content)
    if (
        header is None
        or header["descr"] != descr.encode()
        or int.from_bytes(header["length"], "little") != (header.end() - 10)
    ):
        raise PacketError(f"{name}.npy is not an array of {descr} in C order, format 1.0 of numpy")
    shape = tuple(int(size) for size in header["shape"].split(b",") if size)
    dtype = np.dtype(descr)
    if math.prod(shape) * dtype.itemsize != len(content) - header.end():
        raise PacketError(f"{name}.npy says {shape} and holds {len(content) - header.end()} bytes")
    return np.frombuffer(content, dtype=dtype, offset=header.end()).reshape(shape)


def _points(points: ArrayLike, name: str) -> FloatArray:
    """A read-only copy, checked to be on the simplex."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            fisher_rao_distance(points, points)
        array = np.array(points, dtype=np.float64)
    except SimplexError as error:
        raise PacketError(f"{name}{str(error).removeprefix('p')}") from error  # "p[3] sums to" -> "window[3] sums to"
    except (TypeError, ValueError) as error:
        raise PacketError(f"{name} is not an array of numbers: {error}") from error
    array.setflags(write=False)
    return array


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise PacketError(f"{name} is {value}: it must be finite")
    return float(value)


def _utf8(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PacketError(f"{name} is {text!r}: it cannot be written as UTF-8") from error


def _limited(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise PacketError(f"more than {MAX_BYTES} bytes: no basin packet is that large; shorten the window")
    return content
