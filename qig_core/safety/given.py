"""What people gave, in a file or in a call: checked, and refused with what is wrong and the nearest that is known."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qig_core.errors import ConfigError


def require(holds: bool, problem: str) -> None:
    """Raises: ConfigError, with the problem, where it does not hold."""
    if not holds:
        raise ConfigError(problem)


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises: ConfigError, for the first key that is not known."""
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{hint(key, known)}")


def check_choices(given: Mapping[str, Any], kind: type, where: str) -> None:
    """Raises: ConfigError, for the first value that is none of the words which a field of `kind` may be."""
    for key, annotation in get_type_hints(kind).items():
        if key in given and get_origin(annotation) is Literal and given[key] not in get_args(annotation):
            raise ConfigError(f"{where}: {key} {given[key]!r} is unknown{hint(str(given[key]), get_args(annotation))}")


def hint(given: str, known: Iterable[str]) -> str:
    """The end of a sentence: the nearest of what is known, or all of it."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
