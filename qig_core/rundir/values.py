"""Single values as a record holds them: numbers that are not finite, basins, ids, text that is not Unicode. No disk."""

import binascii
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

MAX_LINE_BYTES = 1 << 24
"""A record line that is longer is neither written nor read."""
MAX_DOCUMENT_BYTES = 1 << 26
"""No document of ours comes near; a sparse file of any size costs its maker nothing."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HEX32 = re.compile(r"[0-9a-f]{32}")


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
