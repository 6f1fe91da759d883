"""What state.json of a checkpoint says, without torch: which paths of two differ, which tensors are complex.

The form is described in `pytree`, which writes it and alone builds values from it.
"""

import base64
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

from qig_core.errors import CheckpointError

FORMAT = 1
"""As in `pytree`, whose import would take torch."""
_SHOWN = 60
"""Characters of a value."""
_ABSENT = object()


def read_state(fd: int, label: str) -> dict[str, Any]:
    """The table `state` of an open state.json.

    Raises:
        CheckpointError: it cannot be read, is of another form, or of a newer one.
    """
    try:
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            document = json.load(file)
        if document["format"] > FORMAT:
            raise ValueError(f"format {document['format']}; this program reads {FORMAT}: upgrade qig-tui")
        state = document["state"]
        if not isinstance(state, dict):
            raise ValueError("not a table")
    except OSError as error:
        raise CheckpointError(f"state.json of {label!r} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"state.json of {label!r} is no state that this program reads: {error}") from error
    return state


def differing(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None]]:
    """The paths at which two states differ, joined by dots, with both values as short text; None where absent.

    A tensor that only one of them has is passed over: it is told among the tensors.
    """
    stack: list[tuple[str, Any, Any]] = [("", a, b)]
    while stack:
        path, x, y = stack.pop()
        if x == y and type(x) is type(y) and not isinstance(x, dict | list):
            continue
        left, right = _children(x), _children(y)
        if left is not None and right is not None and _kind(x) == _kind(y):
            keys = [*left, *(key for key in right if key not in left)]
            prefix = f"{path}." if path else ""
            children = [(prefix + key, left.get(key, _ABSENT), right.get(key, _ABSENT)) for key in keys]
            stack.extend(reversed(children))
        elif not (x == y and type(x) is type(y)) and not _is_tensor(x, y):
            yield path, _short(x), _short(y)


def complex_tensors(state: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The tensors that are stored as (real, imaginary), by (KEY, NAME): "complex64" or "complex128"."""
    found = {}
    stack: list[Any] = [state]
    while stack:
        match stack.pop():
            case {"$tensor": [str(key), str(name), str(dtype)]} | {"$array": [str(key), str(name), str(dtype)]}:
                found[key, name] = dtype
            case dict(table):
                stack.extend(table.values())
            case list(items):
                stack.extend(items)
    return found


def _children(value: Any) -> dict[str, Any] | None:
    """What is below a value by the text of its keys; None for a leaf."""
    match value:
        case {"$tuple": [*items]} if len(value) == 1:
            return {str(i): item for i, item in enumerate(items)}
        case {"$dict": [*pairs]} if len(value) == 1:
            return {_text(pair[0]): pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2}
        case dict() if not _mark(value):
            return value
        case [*items]:
            return {str(i): item for i, item in enumerate(items)}
    return None


def _mark(value: Any) -> str:
    """The mark of a value that JSON has not, or no text."""
    if isinstance(value, dict) and len(value) == 1:
        (key,) = value
        return str(key) if key.startswith("$") else ""
    return ""


def _kind(value: Any) -> str:
    mark = _mark(value)
    return type(value).__name__ if mark in ("", "$dict") else mark


def _is_tensor(x: Any, y: Any) -> bool:
    tensors = ("$tensor", "$array")
    return (x is _ABSENT and _mark(y) in tensors) or (y is _ABSENT and _mark(x) in tensors)


def _text(value: Any) -> str:
    """A value for people."""
    try:
        match value:
            case {"$float": str(bits)}:
                return repr(struct.unpack(">d", bytes.fromhex(bits))[0])
            case {"$int": str(digits)}:
                return str(int(digits, 16))
            case {"$str": str(encoded)}:
                return (
                    base64.b64decode(encoded)
                    .decode("utf-8", "surrogatepass")
                    .encode(errors="backslashreplace")
                    .decode()
                )
    except (ValueError, struct.error):
        pass
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    children = _children(value)
    if children:
        return f"{len(children)} values"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _text(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
